//! What crosses the wire: the types of `google-drive3`, the mask that asks for what we read of them, and refusals.

use serde::Deserialize;

/// What is asked of a file, wherever one is given.
pub(super) const FILE_FIELDS: &str = "id,name,mimeType,modifiedTime,md5Checksum,size,parents,trashed,driveId,webViewLink,\
     shortcutDetails(targetId,targetMimeType),capabilities(canDownload)";

/// What every refusal of a Google API holds.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct WireRefusal {
    pub error: WireError,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct WireError {
    pub errors: Vec<WireReason>,
    /// The newer form, for example `RESOURCE_EXHAUSTED`.
    pub status: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct WireReason {
    pub reason: String,
    /// The parameter at fault.
    pub location: String,
}
