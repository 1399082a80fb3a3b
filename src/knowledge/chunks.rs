//! Cutting a document into chunks, and telling which of them are there already.

use std::collections::{HashMap, HashSet};

use aws_lc_rs::digest;
use ingest::{ChunkOptions, ExtractedDocument};
use retrieval::embed::estimate_tokens;

use super::Document;
use super::store::{self, ChunkRow};
use crate::app::App;
use crate::error::{Error, Result};
use crate::id::{ChunkId, DocumentId, TenantId};
use crate::llm;

/// The chunks of a document's indexed version.
pub(super) struct PresentChunks {
    /// The index holds them with vectors of the present embedding model.
    are_current: bool,
    ids: HashSet<ChunkId>,
    /// In document order.
    ids_of_content: HashMap<String, Vec<ChunkId>>,
}

impl PresentChunks {
    pub(super) async fn load(app: &App, tenant_id: TenantId, id: DocumentId) -> Result<Self> {
        let mut conn = app.db.read(tenant_id).await?;
        let model = store::find_embedding_model(&mut conn, tenant_id, id).await?;
        let rows = store::list_chunk_ids(&mut conn, tenant_id, id).await?;
        let mut ids_of_content: HashMap<String, Vec<ChunkId>> = HashMap::new();
        for (id, content_hash) in &rows {
            ids_of_content.entry(content_hash.clone()).or_default().push(*id);
        }
        let are_current =
            model.as_deref() == Some(app.embedding_model().unwrap_or(super::operator::NO_MODEL));
        Ok(Self {
            are_current,
            ids: rows.into_iter().map(|(id, _)| id).collect(),
            ids_of_content,
        })
    }

    /// Gives chunks their ids: what was there before keeps its id, the rest gets the ids of this version. So an id that
    /// was given up never comes back, and removing it late removes nothing that is needed.
    pub(super) fn name(&self, document: &Document, chunks: &mut [CutChunk]) {
        let mut seen: HashMap<String, u32> = HashMap::new();
        for CutChunk { row, .. } in chunks {
            let repeat = seen
                .entry(row.content_hash.clone())
                .and_modify(|count| *count += 1)
                .or_default();
            let kept = self
                .ids_of_content
                .get(&row.content_hash)
                .and_then(|ids| ids.get(*repeat as usize));
            row.id = kept
                .copied()
                .unwrap_or_else(|| chunk_id(document.id, &document.file_key, &row.content_hash, *repeat));
        }
    }

    /// Whether the index holds this chunk already.
    pub(super) fn is_indexed(&self, id: ChunkId) -> bool {
        self.are_current && self.ids.contains(&id)
    }
}

/// A chunk with what is embedded for it.
pub(super) struct CutChunk {
    pub row: ChunkRow,
    pub embedding_text: String,
}

/// Cuts a document into chunks, off the async threads. Their ids are given by [`PresentChunks::name`].
pub(super) async fn cut(app: &App, title: &str, extracted: ExtractedDocument) -> Result<Vec<CutChunk>> {
    let embedder = app.embedder.clone();
    let count_prompt_tokens = app.model.is_some();
    let title = title.to_owned();
    tokio::task::spawn_blocking(move || {
        let count = |text: &str| {
            embedder
                .as_deref()
                .map_or_else(|| estimate_tokens(text), |embedder| embedder.count_tokens(text))
        };
        let mut options = ChunkOptions::default();
        if let Some(embedder) = &embedder {
            options.max_tokens = options.max_tokens.min(embedder.max_tokens());
        }
        let chunks = ingest::chunk(&extracted, &options, &count);
        chunks
            .into_iter()
            .enumerate()
            .map(|(position, chunk)| {
                let embedding_text = with_title(&title, chunk.embedding_text());
                let content_hash = crate::secrets::token_hash(&embedding_text);
                let row = ChunkRow {
                    id: ChunkId(uuid::Uuid::nil()),
                    position: as_i64(position),
                    prompt_token_count: if count_prompt_tokens {
                        as_i64(llm::tokens::count(&chunk.text))
                    } else {
                        0
                    },
                    heading: (!chunk.heading_path.is_empty()).then(|| chunk.heading_path.join(" › ")),
                    page: chunk.page.map(i64::from),
                    start_char: as_i64(chunk.start),
                    end_char: as_i64(chunk.end),
                    token_count: as_i64(chunk.token_count),
                    content_hash,
                    text: chunk.text,
                };
                CutChunk { row, embedding_text }
            })
            .collect()
    })
    .await
    .map_err(Error::internal)
}

/// What is embedded for a chunk names the document, unless its headings do already.
fn with_title(title: &str, text: String) -> String {
    if text.starts_with(title) {
        text
    } else {
        format!("{title}\n{text}")
    }
}

/// A new chunk's id follows from its document's version, its content and how often that content came before, so that
/// doing the work twice makes the same chunks.
fn chunk_id(document_id: DocumentId, file_key: &str, content_hash: &str, repeat: u32) -> ChunkId {
    let mut hash = digest::Context::new(&digest::SHA256);
    hash.update(document_id.0.as_bytes());
    hash.update(file_key.as_bytes());
    hash.update(content_hash.as_bytes());
    hash.update(&repeat.to_be_bytes());
    let digest = hash.finish();
    let bytes: [u8; 16] = digest.as_ref()[..16].try_into().expect("SHA-256 has 32 bytes");
    ChunkId(uuid::Builder::from_custom_bytes(bytes).into_uuid())
}

/// A number of things as the database keeps it.
pub(super) fn as_i64(value: usize) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn doing_the_work_twice_makes_the_same_chunks() {
        let document = DocumentId(Uuid::from_u128(7));

        assert_eq!(
            chunk_id(document, "v1", "abc", 0),
            chunk_id(document, "v1", "abc", 0)
        );
        assert_ne!(
            chunk_id(document, "v1", "abc", 0),
            chunk_id(document, "v1", "abc", 1)
        );
        assert_ne!(
            chunk_id(document, "v1", "abc", 0),
            chunk_id(document, "v2", "abc", 0)
        );
        assert_ne!(
            chunk_id(document, "v1", "abc", 0),
            chunk_id(DocumentId(Uuid::from_u128(8)), "v1", "abc", 0)
        );
    }
}
