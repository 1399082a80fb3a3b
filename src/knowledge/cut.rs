//! Cutting a document into chunks, with what its owner changed, and telling which of them are there already.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use aws_lc_rs::digest;
use ingest::{Chunker, ExtractedDocument};
use retrieval::embed::{Embedder, estimate_tokens};

use super::chunks::{Edit, Edits, Passage};
use super::indexing::Work;
use super::store::{self, ChunkRow};
use crate::app::App;
use crate::error::{Error, Result};
use crate::id::{ChunkEditId, ChunkId, CutId, DocumentId, TenantId};
use crate::llm;

/// A chunk with what is embedded for it.
pub(super) struct CutChunk {
    pub row: ChunkRow,
    pub embedding_text: String,
    /// The index holds it with the vector of just this text, as it does all that has rows, or will.
    pub is_indexed: bool,
}

impl CutChunk {
    /// A chunk of one cut as it is, for the one that the document is worked on for, which has `present` chunks.
    pub(super) fn taken_over(mut row: ChunkRow, work: &Work, present: &HashSet<ChunkId>) -> Self {
        let embedding_text = format!("{}{}", row.context, row.text);
        row.content_hash = crate::secrets::token_hash(&embedding_text);
        let version = version_of(work);
        row.id = id_from(&[&version, row.id.0.as_bytes(), row.content_hash.as_bytes()]);
        Self {
            is_indexed: present.contains(&row.id),
            row,
            embedding_text,
        }
    }
}

/// Cuts one version of a document, part by part, and gives its chunks their ids: what was there before keeps its id, the
/// rest gets the ids of this version. So an id that was given up never comes back, and removing it late removes nothing
/// that is needed.
pub(super) struct Cutter {
    /// Tells the ids of this version's chunks from all others.
    version: Vec<u8>,
    /// Stands in front of each chunk when it is embedded, unless its headings say it already.
    title: String,
    chunker: Chunker,
    embedder: Option<Arc<dyn Embedder>>,
    count_prompt_tokens: bool,
    present: PresentChunks,
    edits: Edits,
    /// How often each content came so far.
    seen: HashMap<ContentKey, u32>,
    position: i64,
}

impl Cutter {
    pub(super) fn new(app: &App, work: &Work, title: &str, present: PresentChunks, edits: Edits) -> Self {
        let embedder = work.space.embedder.clone();
        let reads = embedder.as_deref().map(Embedder::max_tokens);
        Self {
            version: version_of(work),
            title: title.to_owned(),
            chunker: Chunker::new(work.chunking.options(reads)),
            embedder,
            count_prompt_tokens: app.model.is_some(),
            present,
            edits,
            seen: HashMap::new(),
            position: 0,
        }
    }

    /// Cuts the next part, off the async threads.
    pub(super) async fn cut(
        mut self,
        part: ExtractedDocument,
        is_last: bool,
    ) -> Result<(Self, ExtractedDocument, Vec<CutChunk>)> {
        tokio::task::spawn_blocking(move || {
            let chunks = self.cut_now(&part, is_last);
            (self, part, chunks)
        })
        .await
        .map_err(Error::internal)
    }

    /// What became of the owner's changes.
    pub(super) fn edits(&self) -> &Edits {
        &self.edits
    }

    fn cut_now(&mut self, part: &ExtractedDocument, is_last: bool) -> Vec<CutChunk> {
        let embedder = self.embedder.clone();
        let count = |text: &str| count_tokens(embedder.as_deref(), text);
        let chunks = self.chunker.chunk(part, &count);
        let edits = self.edits_of(&chunks, is_last && self.position == 0);
        let mut cut: Vec<CutChunk> = chunks
            .into_iter()
            .zip(edits)
            .map(|(chunk, edit)| self.name(chunk, edit))
            .collect();
        // Nothing but an owner's own chunks is no document.
        if is_last && self.position > 0 {
            let additions = self.edits.additions().to_vec();
            cut.extend(additions.into_iter().map(|edit| self.add(edit)));
        }
        cut
    }

    /// What the owner changed in each of these chunks. Of a document that comes whole, passages that were switched off
    /// are followed to their new words.
    fn edits_of(&mut self, chunks: &[ingest::Chunk], is_whole: bool) -> Vec<Option<Edit>> {
        let mut edits: Vec<Option<Edit>> = chunks
            .iter()
            .map(|chunk| self.edits.next_of(&chunk.text).cloned())
            .collect();
        if !is_whole || self.present.are_none() || !self.edits.has_lost() {
            return edits;
        }
        let mut seen: HashMap<&str, i64> = HashMap::new();
        let (mut indexes, mut new) = (Vec::new(), Vec::new());
        for (index, chunk) in chunks.iter().enumerate() {
            let count = seen.entry(&chunk.text).or_default();
            let repeat = *count;
            *count += 1;
            if edits[index].is_some() || self.was_there(chunk) {
                continue;
            }
            indexes.push(index);
            new.push(Passage {
                text: chunk.text.clone(),
                heading: chunk.heading(),
                repeat,
            });
        }
        for (index, edit) in self.edits.follow(&new) {
            edits[indexes[index]] = Some(edit);
        }
        edits
    }

    /// Whether the version before had this very chunk.
    fn was_there(&self, chunk: &ingest::Chunk) -> bool {
        let content_hash = crate::secrets::token_hash(&with_title(&self.title, chunk.embedding_text()));
        self.present.has(content_key(&content_hash))
    }

    /// A chunk of the document, as its owner wants it.
    fn name(&mut self, mut chunk: ingest::Chunk, edit: Option<Edit>) -> CutChunk {
        let Some(edit) = edit else {
            return self.finish(chunk, None, None, true);
        };
        let mut original = None;
        if let Some(text) = edit.text {
            chunk.token_count = count_tokens(self.embedder.as_deref(), &text);
            original = Some(std::mem::replace(&mut chunk.text, text));
        }
        self.finish(chunk, Some(edit.id), original, edit.is_enabled)
    }

    /// A chunk of the owner's own, behind the end of the document.
    fn add(&mut self, edit: Edit) -> CutChunk {
        let text = edit.text.unwrap_or_default();
        let chunk = ingest::Chunk {
            token_count: count_tokens(self.embedder.as_deref(), &text),
            text,
            start: self.chunker.chars(),
            end: self.chunker.chars(),
            heading_path: edit.heading.into_iter().collect(),
            ..ingest::Chunk::default()
        };
        self.finish(chunk, Some(edit.id), None, edit.is_enabled)
    }

    fn finish(
        &mut self,
        chunk: ingest::Chunk,
        edit_id: Option<ChunkEditId>,
        original_text: Option<String>,
        is_enabled: bool,
    ) -> CutChunk {
        let embedding_text = with_title(&self.title, chunk.embedding_text());
        let content_hash = crate::secrets::token_hash(&embedding_text);
        let key = content_key(&content_hash);
        let (id, is_indexed) = match edit_id {
            // What an owner changed keeps its id whatever it says.
            Some(edit_id) => match self.present.ids_of_edits.get(&edit_id) {
                Some((id, indexed)) => (*id, *indexed == key),
                None => (self.new_id(edit_id.0.as_bytes(), 0), false),
            },
            None => {
                let count = self.seen.entry(key).or_default();
                let repeat = *count;
                *count += 1;
                match self.present.ids_of_content.get(&(key, repeat)) {
                    Some(id) => (*id, true),
                    None => (self.new_id(content_hash.as_bytes(), repeat), false),
                }
            }
        };
        let row = ChunkRow {
            id,
            position: self.position,
            prompt_token_count: if self.count_prompt_tokens {
                as_i64(llm::tokens::count(&chunk.text))
            } else {
                0
            },
            heading: chunk.heading(),
            page: chunk.page.map(i64::from),
            start_char: as_i64(chunk.start),
            end_char: as_i64(chunk.end),
            token_count: as_i64(chunk.token_count),
            content_hash,
            context: embedding_text
                .strip_suffix(&chunk.text)
                .unwrap_or_default()
                .to_owned(),
            text: chunk.text,
            edit_id,
            original_text,
            is_enabled,
        };
        self.position += 1;
        CutChunk {
            is_indexed,
            row,
            embedding_text,
        }
    }

    /// A new chunk's id follows from its document's version, its content and how often that content came before, so
    /// that doing the work twice makes the same chunks.
    fn new_id(&self, content: &[u8], repeat: u32) -> ChunkId {
        id_from(&[&self.version, content, &repeat.to_be_bytes()])
    }
}

fn id_from(parts: &[&[u8]]) -> ChunkId {
    let mut hash = digest::Context::new(&digest::SHA256);
    parts.iter().for_each(|part| hash.update(part));
    let digest = hash.finish();
    let bytes: [u8; 16] = digest.as_ref()[..16].try_into().expect("SHA-256 has 32 bytes");
    ChunkId(uuid::Builder::from_custom_bytes(bytes).into_uuid())
}

/// The chunks of a document's indexed version.
#[derive(Default)]
pub(super) struct PresentChunks {
    /// By content, and how often it came before.
    ids_of_content: HashMap<(ContentKey, u32), ChunkId>,
    /// Chunks that their owner changed, with the content that the index holds.
    ids_of_edits: HashMap<ChunkEditId, (ChunkId, ContentKey)>,
    /// What another cut says, where the document is cut beside it for the first time.
    of_other_cut: HashSet<ContentKey>,
}

impl PresentChunks {
    pub(super) fn len(&self) -> usize {
        self.ids_of_content.len() + self.ids_of_edits.len()
    }

    fn are_none(&self) -> bool {
        self.ids_of_content.is_empty() && self.ids_of_edits.is_empty() && self.of_other_cut.is_empty()
    }

    fn has(&self, content: ContentKey) -> bool {
        self.ids_of_content.contains_key(&(content, 0)) || self.of_other_cut.contains(&content)
    }

    /// Like [`Self::load`], for a cut that may have nothing yet of a document that another one has whole.
    pub(super) async fn load_beside(
        app: &App,
        tenant_id: TenantId,
        work: &Work,
        other: Option<CutId>,
    ) -> Result<Self> {
        let mut present = Self::load(app, tenant_id, work).await?;
        if let (true, Some(other)) = (present.are_none(), other) {
            let mut conn = app.db.read(tenant_id).await?;
            let rows = store::list_chunk_ids(&mut conn, tenant_id, (work.id, other)).await?;
            let unchanged = rows.iter().filter(|(.., edit_id)| edit_id.is_none());
            present.of_other_cut = unchanged
                .map(|(_, content_hash, _)| content_key(content_hash))
                .collect();
        }
        Ok(present)
    }

    pub(super) async fn load(app: &App, tenant_id: TenantId, work: &Work) -> Result<Self> {
        if !work.was_indexed {
            return Ok(Self::default());
        }
        let mut conn = app.db.read(tenant_id).await?;
        let rows = store::list_chunk_ids(&mut conn, tenant_id, (work.id, work.cut)).await?;
        drop(conn);
        let mut present = Self::default();
        let mut seen: HashMap<ContentKey, u32> = HashMap::new();
        for (id, content_hash, edit_id) in rows {
            let key = content_key(&content_hash);
            if let Some(edit_id) = edit_id {
                present.ids_of_edits.insert(edit_id, (id, key));
                continue;
            }
            let count = seen.entry(key).or_default();
            present.ids_of_content.insert((key, *count), id);
            *count += 1;
        }
        Ok(present)
    }
}

/// The first half of a content hash: documents may have hundreds of thousands of chunks, and no two contents share it.
/// Zero while a chunk waits to be embedded.
pub(super) type ContentKey = u128;

pub(super) fn content_key(content_hash: &str) -> ContentKey {
    content_hash
        .get(..32)
        .and_then(|half| u128::from_str_radix(half, 16).ok())
        .unwrap_or_default()
}

/// Tokens as the embedding model counts them, or about so many without one.
pub(super) fn count_tokens(embedder: Option<&dyn Embedder>, text: &str) -> usize {
    embedder.map_or_else(|| estimate_tokens(text), |embedder| embedder.count_tokens(text))
}

fn version_of(work: &Work) -> Vec<u8> {
    let cut = work.cut.in_rows(work.source_id);
    version(work.id, &work.file_key, work.cut_revision, cut)
}

/// `cut` is none for the first one of a source.
fn version(id: DocumentId, file_key: &str, cut_revision: i64, cut: Option<CutId>) -> Vec<u8> {
    let mut version = id.0.as_bytes().to_vec();
    version.extend(cut_revision.to_be_bytes());
    version.extend(file_key.as_bytes());
    if let Some(cut) = cut {
        // Neither a file's key nor a digest has a zero.
        version.push(0);
        version.extend(cut.0.as_bytes());
    }
    version
}

/// What is embedded for a chunk names the document, unless its headings do already.
fn with_title(title: &str, text: String) -> String {
    if text.starts_with(title) {
        text
    } else {
        format!("{title}\n{text}")
    }
}

/// A number of things as the database keeps it.
pub(super) fn as_i64(value: usize) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn cutter(document: u128, file_key: &str, revision: i64) -> Cutter {
        Cutter {
            version: version(DocumentId(Uuid::from_u128(document)), file_key, revision, None),
            title: "Title".to_owned(),
            chunker: Chunker::new(ingest::ChunkOptions::default()),
            embedder: None,
            count_prompt_tokens: false,
            present: PresentChunks::default(),
            edits: Edits::default(),
            seen: HashMap::new(),
            position: 0,
        }
    }

    #[test]
    fn doing_the_work_twice_makes_the_same_chunks() {
        let id = |cutter: Cutter, content: &str, repeat| cutter.new_id(content.as_bytes(), repeat);
        let first = id(cutter(7, "v1", 0), "abc", 0);

        assert_eq!(id(cutter(7, "v1", 0), "abc", 0), first);
        assert_ne!(id(cutter(7, "v1", 0), "abc", 1), first);
        assert_ne!(id(cutter(7, "v1", 0), "abd", 0), first);
        assert_ne!(id(cutter(7, "v1", 1), "abc", 0), first);
        assert_ne!(id(cutter(7, "v2", 0), "abc", 0), first);
        assert_ne!(id(cutter(8, "v1", 0), "abc", 0), first);
    }

    #[test]
    fn equal_chunks_of_one_document_have_ids_of_their_own() {
        let chunk = |start: usize| ingest::Chunk {
            text: "The same.".to_owned(),
            start,
            end: start + 9,
            ..ingest::Chunk::default()
        };
        let mut cutter = cutter(7, "v1", 0);

        let (first, second) = (cutter.name(chunk(0), None), cutter.name(chunk(20), None));

        assert_ne!(first.row.id, second.row.id);
        assert_eq!((first.row.position, second.row.position), (0, 1));
        assert!(!first.is_indexed && !second.is_indexed);
    }
}
