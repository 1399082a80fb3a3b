//! Identifiers: one newtype per kind of thing, all time-ordered (UUIDv7), shown as plain strings.

use serde::Serialize;
use uuid::Uuid;
use uuid::fmt::Hyphenated;

macro_rules! id_type {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, sqlx::Type, utoipa::ToSchema)]
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

            /// Reads the one way in which ids are shown: UUIDs have other spellings, and one thing has one address.
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                text.parse::<Hyphenated>().map(|id| Self(id.into_uuid()))
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                text.parse()
                    .map_err(|_| serde::de::Error::custom("an id is expected: a UUID, as the API shows it"))
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
    /// An account elsewhere that a tenant let us into.
    ConnectionId,
    /// One run over a source.
    SyncRunId,
    /// One page or file of a source.
    DocumentId,
    /// One retrievable span of a document.
    ChunkId,
    /// What an owner changed in the chunks of a document.
    ChunkEditId,
    /// A page or file that runs leave out.
    ExclusionId,
    /// A thread of messages.
    ConversationId,
    /// One utterance in a conversation.
    MessageId,
    /// Questions by which a chatbot is measured.
    EvalSetId,
    /// One of them.
    EvalQuestionId,
    /// One asking of all questions of a set.
    EvalRunId,
    /// A tenant's chunks in the index of one embedding model.
    GenerationId,
    /// One way of cutting the documents of a source; the first one has the source's id.
    CutId,
    /// One line of the usage ledger.
    UsageEventId,
    /// A share of a budget that is held while a turn runs.
    ReservationId,
    /// One piece of background work.
    JobId,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_has_one_spelling() {
        let id = "0190b5a0-1234-7000-8000-00000000abcd";

        let read = serde_json::from_value::<TenantId>(id.into()).expect("as it is shown");
        assert_eq!(read.to_string(), id);
        assert_eq!(id.to_uppercase().parse::<TenantId>().expect("in capitals"), read);
        for spelling in [
            format!("{{{id}}}"),
            format!("urn:uuid:{id}"),
            id.replace('-', ""),
            format!(" {id}"),
            String::new(),
        ] {
            assert!(spelling.parse::<TenantId>().is_err(), "{spelling}");
            assert!(
                serde_json::from_value::<TenantId>(spelling.clone().into()).is_err(),
                "{spelling}"
            );
        }
    }
}
