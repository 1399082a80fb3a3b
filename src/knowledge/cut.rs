//! Cutting a document into chunks, and telling which of them are there already.

use std::collections::HashMap;
use std::sync::Arc;

use aws_lc_rs::digest;
use ingest::{ChunkOptions, ExtractedDocument};
use retrieval::embed::{Embedder, estimate_tokens};

use super::indexing::Work;
use super::store::{self, ChunkRow};
use crate::app::App;
use crate::error::{Error, Result};
use crate::id::{ChunkId, DocumentId, TenantId};
use crate::llm;

/// A chunk with what is embedded for it.
pub(super) struct CutChunk {
    pub row: ChunkRow,
    pub embedding_text: String,
    /// The index holds it with the vector of just this text.
    pub is_indexed: bool,
}

/// Cuts one version of a document, and gives its chunks their ids: what was there before keeps its id, the rest gets
/// the ids of this version. So an id that was given up never comes back, and removing it late removes nothing needed.
pub(super) struct Cutter {
    document_id: DocumentId,
    file_key: String,
    /// Stands in front of each chunk when it is embedded, unless its headings say it already.
    title: String,
    options: ChunkOptions,
    embedder: Option<Arc<dyn Embedder>>,
    count_prompt_tokens: bool,
    present: PresentChunks,
    /// How often each content came so far.
    seen: HashMap<ContentKey, u32>,
    position: i64,
}

impl Cutter {
    pub(super) fn new(app: &App, work: &Work, title: &str, present: PresentChunks) -> Self {
        let mut options = ChunkOptions::default();
        if let Some(embedder) = &app.embedder {
            options.max_tokens = options.max_tokens.min(embedder.max_tokens());
        }
        Self {
            document_id: work.id,
            file_key: work.file_key.clone(),
            title: title.to_owned(),
            options,
            embedder: app.embedder.clone(),
            count_prompt_tokens: app.model.is_some(),
            present,
            seen: HashMap::new(),
            position: 0,
        }
    }

    /// Cuts the document, off the async threads.
    pub(super) async fn cut(
        mut self,
        extracted: ExtractedDocument,
    ) -> Result<(Self, ExtractedDocument, Vec<CutChunk>)> {
        tokio::task::spawn_blocking(move || {
            let chunks = self.cut_now(&extracted);
            (self, extracted, chunks)
        })
        .await
        .map_err(Error::internal)
    }

    fn cut_now(&mut self, extracted: &ExtractedDocument) -> Vec<CutChunk> {
        let embedder = self.embedder.clone();
        let count = |text: &str| {
            embedder
                .as_deref()
                .map_or_else(|| estimate_tokens(text), |embedder| embedder.count_tokens(text))
        };
        ingest::chunk(extracted, &self.options, &count)
            .into_iter()
            .map(|chunk| self.name(chunk))
            .collect()
    }

    fn name(&mut self, chunk: ingest::Chunk) -> CutChunk {
        let embedding_text = with_title(&self.title, chunk.embedding_text());
        let content_hash = crate::secrets::token_hash(&embedding_text);
        let key = content_key(&content_hash);
        let count = self.seen.entry(key).or_default();
        let repeat = *count;
        *count += 1;
        let kept = self.present.ids_of_content.get(&(key, repeat)).copied();
        let row = ChunkRow {
            id: kept.unwrap_or_else(|| chunk_id(self.document_id, &self.file_key, &content_hash, repeat)),
            position: self.position,
            prompt_token_count: if self.count_prompt_tokens {
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
        self.position += 1;
        CutChunk {
            is_indexed: kept.is_some() && self.present.are_current,
            row,
            embedding_text,
        }
    }
}

/// The chunks of a document's indexed version.
#[derive(Default)]
pub(super) struct PresentChunks {
    /// The index holds them with vectors of the present embedding model.
    are_current: bool,
    /// By content, and how often it came before.
    ids_of_content: HashMap<(ContentKey, u32), ChunkId>,
}

impl PresentChunks {
    pub(super) async fn load(app: &App, tenant_id: TenantId, work: &Work) -> Result<Self> {
        if !work.was_indexed {
            return Ok(Self::default());
        }
        let mut conn = app.db.read(tenant_id).await?;
        let rows = store::list_chunk_ids(&mut conn, tenant_id, work.id).await?;
        drop(conn);
        let mut seen: HashMap<ContentKey, u32> = HashMap::new();
        let mut ids_of_content = HashMap::with_capacity(rows.len());
        for (id, content_hash) in rows {
            let key = content_key(&content_hash);
            let count = seen.entry(key).or_default();
            ids_of_content.insert((key, *count), id);
            *count += 1;
        }
        let model = app.embedding_model().unwrap_or(super::operator::NO_MODEL);
        Ok(Self {
            are_current: work.embedding_model.as_deref() == Some(model),
            ids_of_content,
        })
    }
}

/// The first half of a content hash: documents may have hundreds of thousands of chunks, and no two contents share it.
type ContentKey = u128;

fn content_key(content_hash: &str) -> ContentKey {
    content_hash
        .get(..32)
        .and_then(|half| u128::from_str_radix(half, 16).ok())
        .unwrap_or_default()
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
