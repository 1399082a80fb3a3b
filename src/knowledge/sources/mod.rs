//! Sources as their owners see them: what is read, on which schedule, how the last run went.
//!
//! The reading itself is [`super::sync`]'s.

pub mod schedule;
pub mod secrets;
pub mod settings;
pub mod store;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use crate::app::App;
use crate::error::Result;
use crate::id::{ChatbotId, SourceId, TenantId};

pub use schedule::Schedule;
pub use secrets::Secrets;
pub use settings::Settings;

/// What documents come from.
#[derive(Clone, Debug)]
pub struct Source {
    pub id: SourceId,
    pub tenant_id: TenantId,
    pub chatbot_id: ChatbotId,
    pub name: String,
    pub settings: Settings,
    pub state: SourceState,
    /// How its documents are cut; none: as everywhere.
    pub chunking: Option<Value>,
    /// None: read on request only.
    pub schedule: Option<Schedule>,
    pub next_run_at: Option<DateTime<Utc>>,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
    /// See [`Source::secrets`].
    sealed: Option<String>,
}

impl Source {
    /// What it is.
    pub fn kind(&self) -> SourceKind {
        self.settings.kind()
    }

    /// Its secrets, opened. They go to the source's own origins and nowhere else.
    pub fn secrets(&self, app: &App) -> Result<Secrets> {
        Secrets::open(&app.keyring, self.tenant_id, self.id, self.sealed.as_deref())
    }
}

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
