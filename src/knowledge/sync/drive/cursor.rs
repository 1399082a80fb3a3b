//! Where listing a Drive stands, and what a run leaves for the next one.

use chrono::{DateTime, Utc};
use ingest::loader::drive::Scope;
use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::knowledge::sync::driver::Listing;

/// Where listing stands.
#[derive(Serialize, Deserialize)]
#[serde(tag = "at", rename_all = "snake_case")]
pub(super) enum Cursor {
    /// The graph is not complete yet.
    Graph,
    /// Documents behind this id are left to be compared.
    Documents { after: String },
}

/// What a run leaves for the next one.
#[derive(Serialize, Deserialize)]
pub(super) struct ChangeToken {
    pub token: String,
    /// The shared drive whose changes it is of.
    pub drive_id: Option<String>,
    /// Changes are of use only for the scope whose files are known.
    pub scope: Scope,
    pub listed_at: DateTime<Utc>,
}

impl Listing {
    /// A page that goes on at `cursor`.
    pub(super) fn up_to(cursor: &Cursor) -> Result<Self> {
        Ok(Self {
            next_cursor: Some(serde_json::to_string(cursor)?),
            // What is gone is said in so many words, also when everything was listed.
            is_changes: true,
            ..Self::default()
        })
    }
}
