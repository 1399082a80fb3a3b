//! What sources there are, and where one stands.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What a source is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum SourceKind {
    /// Files that people upload: every chatbot has one, and it is never read again.
    Upload,
    Website,
    Sitemap,
    Pages,
    Drive,
    /// Documents that a program puts here.
    Push,
}

impl SourceKind {
    /// All kinds.
    pub const ALL: [Self; 6] = [
        Self::Upload,
        Self::Website,
        Self::Sitemap,
        Self::Pages,
        Self::Drive,
        Self::Push,
    ];

    /// The name in JSON and in the database.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Upload => "upload",
            Self::Website => "website",
            Self::Sitemap => "sitemap",
            Self::Pages => "pages",
            Self::Drive => "drive",
            Self::Push => "push",
        }
    }

    /// The kind of this name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// Whether there is something elsewhere that can be read again.
    pub fn is_synced(self) -> bool {
        matches!(self, Self::Website | Self::Sitemap | Self::Pages | Self::Drive)
    }
}

/// Where a source stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum SourceState {
    /// Nothing is under way.
    Idle,
    /// A run waits for its turn.
    Queued,
    /// It is being read.
    Running,
    /// An owner stopped it; a run that was under way keeps its place.
    Paused,
    /// The last run failed; its error says why.
    Failed,
}

impl SourceState {
    /// All states.
    pub const ALL: [Self; 5] = [
        Self::Idle,
        Self::Queued,
        Self::Running,
        Self::Paused,
        Self::Failed,
    ];

    /// The name in JSON and in the database.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Failed => "failed",
        }
    }

    /// The state of this name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.name() == name)
    }
}
