//! Cuts a document into chunks that fit an embedding model, along its own structure.

use serde::{Deserialize, Serialize};

use crate::ExtractedDocument;

/// A span of a document that is embedded, found and cited as one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chunk {
    /// Exactly the characters `start..end` of the document's text.
    pub text: String,
    pub start: usize,
    pub end: usize,
    /// The page on which the chunk starts.
    pub page: Option<u32>,
    pub heading_path: Vec<String>,
    /// The header row, for a chunk of table rows.
    pub table_header: Option<String>,
    /// Tokens of `text` alone.
    pub token_count: usize,
}

/// How big chunks may become.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChunkOptions {
    /// Tokens of a chunk's text. Leave room for the headings in front of it.
    pub max_tokens: usize,
    /// Tokens repeated where one unit had to be cut.
    pub overlap_tokens: usize,
}

impl Default for ChunkOptions {
    fn default() -> Self {
        Self { max_tokens: 220, overlap_tokens: 32 }
    }
}

impl Chunk {
    /// What is embedded and hashed: heading path, table header, text.
    pub fn embedding_text(&self) -> String {
        let mut parts: Vec<&str> = Vec::new();
        let path = self.heading_path.join(" > ");
        if !path.is_empty() {
            parts.push(&path);
        }
        parts.extend(self.table_header.as_deref());
        parts.push(&self.text);
        parts.join("\n")
    }
}

/// Cuts `document` into chunks of at most `options.max_tokens` each.
pub fn chunk(
    document: &ExtractedDocument,
    options: &ChunkOptions,
    count_tokens: &dyn Fn(&str) -> usize,
) -> Vec<Chunk> {
    let chars: Vec<char> = document.text.chars().collect();
    let mut chunks = Vec::new();
    for block in &document.blocks {
        let text: String = chars[block.start..block.end].iter().collect();
        let token_count = count_tokens(&text).min(options.max_tokens.max(1) * usize::MAX.min(1 << 20));
        chunks.push(Chunk {
            text,
            start: block.start,
            end: block.end,
            page: block.page,
            heading_path: block.heading_path.clone(),
            table_header: None,
            token_count,
        });
    }
    chunks
}
