//! Identifiers: one newtype per kind of thing, all time-ordered (UUIDv7), shown as plain strings.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

macro_rules! id_type {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, sqlx::Type, utoipa::ToSchema)]
        #[serde(transparent)]
        #[sqlx(transparent)]
        #[schema(value_type = String, format = "uuid")]
        pub struct $name(pub Uuid);

        impl $name {
            /// A fresh id, later than every id this process made before.
            #[allow(clippy::new_without_default, reason = "an id has no default: each one is new")]
            pub fn new() -> Self {
                Self(Uuid::now_v7())
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.hyphenated().fmt(formatter)
            }
        }

        impl std::str::FromStr for $name {
            type Err = uuid::Error;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Uuid::try_parse(text).map(Self)
            }
        }
    )+};
}

id_type! {
    /// A customer account of this installation.
    TenantId,
    /// A person with a password, who may be a member of several tenants.
    AccountId,
    /// A person's place in one tenant.
    MemberId,
    /// An invitation to become a member.
    InviteId,
    /// One login of one member, on one device.
    SessionId,
    /// An API key (not its secret).
    ApiKeyId,
    /// One line of the audit log.
    AuditEventId,
    /// A configured assistant of a tenant.
    ChatbotId,
    /// What documents come from.
    SourceId,
    /// One page or file of a source.
    DocumentId,
    /// One retrievable span of a document.
    ChunkId,
    /// A thread of messages.
    ConversationId,
    /// One utterance in a conversation.
    MessageId,
    /// One line of the usage ledger.
    UsageEventId,
    /// A share of a budget that is held while a turn runs.
    ReservationId,
    /// One piece of background work.
    JobId,
}
