//! Documents that were read before they came here: a crawler reads each page anyway, so what it read is kept in place
//! of the page, as the JSON of an [`ExtractedDocument`].

use ingest::ExtractedDocument;

use super::files::store_error;
use crate::app::App;
use crate::error::{Error, Result};
use crate::id::TenantId;

/// What the file of a document holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeptAs {
    /// The file as it came.
    Original,
    /// What was read from it.
    Reading,
}

impl KeptAs {
    /// The name in the database.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Original => "original",
            Self::Reading => "reading",
        }
    }

    /// The one of this name.
    pub fn parse(name: &str) -> Self {
        if name == Self::Reading.name() {
            Self::Reading
        } else {
            Self::Original
        }
    }
}

/// Stores a reading; the document that names the key has `kept_as` [`KeptAs::Reading`].
pub async fn keep(app: &App, tenant_id: TenantId, reading: ExtractedDocument) -> Result<String> {
    app.files
        .put(tenant_id, move || Ok(serde_json::to_vec(&reading)?))
        .await
}

/// The reading that is kept under `file_key`.
pub async fn load(app: &App, file_key: &str) -> Result<ExtractedDocument> {
    let bytes = match tokio::fs::read(app.files.path(file_key)?).await {
        Ok(bytes) => bytes,
        // A newer version took its place.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(Error::NotFound("document"));
        }
        Err(error) => return Err(store_error(error)),
    };
    /// Readings from this size on take milliseconds to decode, which must not hold up the other tasks.
    const DECODE_ASIDE_FROM_BYTES: usize = 256 << 10;
    if bytes.len() < DECODE_ASIDE_FROM_BYTES {
        return Ok(serde_json::from_slice(&bytes)?);
    }
    let decoded = tokio::task::spawn_blocking(move || serde_json::from_slice(&bytes)).await;
    Ok(decoded.map_err(Error::internal)??)
}
