//! Names of a point's fields, the same in the embedded index and on a Qdrant server. Stored, so none may ever change.

pub(super) const TENANT: &str = "tenant";
pub(super) const SOURCE: &str = "source";
pub(super) const DOCUMENT: &str = "document";
pub(super) const LANGUAGE: &str = "language";
pub(super) const TAGS: &str = "tags";
pub(super) const DATE: &str = "date";
pub(super) const GROUPS: &str = "groups";
