//! The ids an index is addressed by, one newtype each, so that a document's id is never taken for a chunk's.

use std::fmt;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(formatter)
            }
        }

        impl From<Uuid> for $name {
            fn from(id: Uuid) -> Self {
                Self(id)
            }
        }
    };
}

id! {
    /// The customer account that owns a chunk. Nothing is stored or asked without one.
    TenantId
}
id! {
    /// What was synced: a website, a folder, the uploads of one chatbot.
    SourceId
}
id! {
    /// One page or file of a source.
    DocumentId
}
id! {
    /// A retrievable span of a document. Unique over all tenants: it is the point's id in the index.
    ChunkId
}
