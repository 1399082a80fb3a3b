//! Who may do what: the permissions, and which of them each role and each key scope holds.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What an operation needs. Every operation of the API needs exactly one; OpenAPI names it as the security scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Permission {
    /// Ask a chatbot.
    Chat,
    /// Search a chatbot's knowledge: its passages word by word, and how they were found.
    Search,
    /// See chatbots, documents and their chunks.
    KnowledgeRead,
    /// Add and delete documents.
    Ingest,
    /// Create, change and delete chatbots.
    Edit,
    /// Read conversations, and test sets, which hold what visitors asked.
    Conversations,
    /// See usage, costs and budgets.
    UsageRead,
    /// Keys, members, limits, jobs and the audit log.
    Admin,
}

impl Permission {
    /// All permissions.
    pub const ALL: [Self; 8] = [
        Self::Chat,
        Self::Search,
        Self::KnowledgeRead,
        Self::Ingest,
        Self::Edit,
        Self::Conversations,
        Self::UsageRead,
        Self::Admin,
    ];

    /// The name in OpenAPI and in refusals.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Chat => "chat",
            Self::Search => "search",
            Self::KnowledgeRead => "knowledge:read",
            Self::Ingest => "ingest",
            Self::Edit => "edit",
            Self::Conversations => "conversations",
            Self::UsageRead => "usage:read",
            Self::Admin => "admin",
        }
    }
}

/// A member's standing in a tenant. Later ones hold all that earlier ones hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Sees chatbots, documents and conversations.
    Viewer,
    /// Runs the chatbots and their knowledge.
    Editor,
    /// Runs keys, members, limits and costs too.
    Admin,
    /// Makes and unmakes owners.
    Owner,
}

impl Role {
    /// All roles, least first.
    pub const ALL: [Self; 4] = [Self::Viewer, Self::Editor, Self::Admin, Self::Owner];

    /// Whether members of this role may do what needs `permission`.
    pub fn allows(self, permission: Permission) -> bool {
        let least = match permission {
            Permission::KnowledgeRead | Permission::Conversations => Self::Viewer,
            Permission::Chat | Permission::Search | Permission::Ingest | Permission::Edit => Self::Editor,
            Permission::UsageRead | Permission::Admin => Self::Admin,
        };
        self >= least
    }

    /// The name in JSON and in the database.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Editor => "editor",
            Self::Admin => "admin",
            Self::Owner => "owner",
        }
    }

    /// The role of this name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.name() == name)
    }
}

/// What an API key is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
pub enum KeyScope {
    /// Everything that an admin may.
    #[serde(rename = "admin")]
    Admin,
    /// Adding, seeing and deleting documents.
    #[serde(rename = "ingest")]
    Ingest,
    /// Asking, and nothing else: the key that browsers may see.
    #[serde(rename = "chat")]
    Chat,
    /// Asking and searching, and saying which access groups the visitor has: for servers, never for browsers.
    #[serde(rename = "chat:groups")]
    ChatGroups,
    /// Usage and costs.
    #[serde(rename = "usage:read")]
    UsageRead,
}

impl KeyScope {
    /// All scopes.
    pub const ALL: [Self; 5] = [
        Self::Admin,
        Self::Ingest,
        Self::Chat,
        Self::ChatGroups,
        Self::UsageRead,
    ];

    /// Whether keys of this scope may do what needs `permission`.
    pub fn allows(self, permission: Permission) -> bool {
        match self {
            Self::Admin => true,
            Self::Ingest => matches!(permission, Permission::Ingest | Permission::KnowledgeRead),
            Self::Chat => permission == Permission::Chat,
            Self::ChatGroups => matches!(permission, Permission::Chat | Permission::Search),
            Self::UsageRead => permission == Permission::UsageRead,
        }
    }

    /// The name in JSON and on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Ingest => "ingest",
            Self::Chat => "chat",
            Self::ChatGroups => "chat:groups",
            Self::UsageRead => "usage:read",
        }
    }

    /// The scope of this name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scope| scope.name() == name)
    }
}
