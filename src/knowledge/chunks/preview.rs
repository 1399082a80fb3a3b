//! How a text would be cut, without keeping anything of it.

use ingest::{Format, Hints};

use super::Chunking;
use crate::app::App;
use crate::error::{Error, Result};
use crate::knowledge::cut::count_tokens;

/// Characters of a text that is cut for show.
pub const MAX_TEXT_CHARS: usize = 500_000;

/// A text and what it is.
pub struct PreviewText {
    pub text: String,
    pub format: Format,
}

/// Reads the text as a document would be read, and cuts it.
pub async fn preview(app: &App, text: PreviewText, chunking: &Chunking) -> Result<Vec<ingest::Chunk>> {
    chunking.check()?;
    let chars = text.text.chars().count();
    if text.text.trim().is_empty() || chars > MAX_TEXT_CHARS {
        return Err(Error::invalid(
            "invalid_preview_text",
            text.format.as_str(),
            format!("give a text of 1 to {MAX_TEXT_CHARS} characters"),
        ));
    }
    let extracted = app
        .extractor
        .extract_bytes(text.text.as_bytes(), text.format, &Hints::default())
        .await
        .map_err(|error| Error::Invalid {
            code: error.code(),
            field: Some(text.format.as_str().to_owned()),
            message: error.to_string().into(),
        })?;
    let embedder = app.embedder.clone();
    let options = chunking.options(embedder.as_deref().map(|embedder| embedder.max_tokens()));
    tokio::task::spawn_blocking(move || {
        let count = |text: &str| count_tokens(embedder.as_deref(), text);
        ingest::chunk(&extracted, &options, &count)
    })
    .await
    .map_err(Error::internal)
}
