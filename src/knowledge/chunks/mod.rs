//! Chunks in their owner's hands: read, changed, switched off, added, and how a source's documents are cut.
//!
//! A change belongs to the passage it was made to, by the passage's own words: it holds wherever that passage stands
//! in the document, also after the document was away, and rests as stale while the passage is not there. Deleting a
//! document by hand takes its changes along.

mod edits;
mod preview;
pub mod routes;
mod settings;
mod store;

use serde_json::{Value, json};

pub(super) use self::edits::{Edit, EditKind, Edits, Passage, Verdict};
pub use self::preview::{MAX_TEXT_CHARS, PreviewText, Previews, preview};
pub use self::settings::{Chunking, set_chunking};
pub(super) use self::store::{count_resting, delete_edits, list_edits, rename_edits, set_stale};

use super::cut::as_i64;
use super::{Chunk, Document, DocumentState, cuts, index_changes, indexing};
use crate::app::App;
use crate::db::Write;
use crate::error::{Error, Result};
use crate::generations;
use crate::http::access::{Actor, Reach};
use crate::id::{ChunkEditId, ChunkId, DocumentId, TenantId};
use crate::jobs::Priority;
use crate::llm;
use crate::secrets::token_hash;
use crate::tenancy::audit::{self, Change, Origin};

/// Chunks that an owner may add to one document.
const MAX_ADDITIONS: i64 = 1_000;

/// Characters of a chunk that an owner writes.
const MAX_CHARS: usize = 8_000;

/// Characters of the heading of an added chunk.
const MAX_HEADING_CHARS: usize = 200;

/// What an owner changes in a chunk.
#[derive(Debug, Default)]
pub struct ChunkChange {
    pub text: Option<String>,
    pub is_enabled: Option<bool>,
}

/// A chunk that an owner writes.
#[derive(Debug)]
pub struct NewChunk {
    pub text: String,
    pub heading: Option<String>,
}

/// A page of a document's chunks with the changes that rest.
pub struct ChunkList {
    pub chunks: Vec<Chunk>,
    /// The position of the next chunk; none when these are the last.
    pub next: Option<i64>,
    /// Changes whose passage is not in the document at present.
    pub stale: Vec<Edit>,
    /// The last of `stale` when there are more behind it.
    pub next_stale: Option<ChunkEditId>,
}

/// A document's chunks from position `from` on, and its resting changes behind `after`, at most `limit` of each.
pub async fn list(
    app: &App,
    reach: Reach,
    id: DocumentId,
    (from, after): (i64, Option<ChunkEditId>),
    limit: i64,
) -> Result<ChunkList> {
    let document = super::get_document(app, reach, id).await?;
    let mut conn = app.db.read(reach.tenant_id).await?;
    let mut chunks = super::store::list_chunks(&mut conn, reach.tenant_id, id, from, limit + 1).await?;
    let next = usize::try_from(limit)
        .ok()
        .and_then(|limit| chunks.get(limit))
        .map(|chunk| chunk.position);
    chunks.truncate(usize::try_from(limit).unwrap_or_default());
    let place = (document.source_id, document.external_id.as_str());
    let mut stale = store::list_resting(&mut conn, reach.tenant_id, place, after, limit + 1).await?;
    let length = usize::try_from(limit).unwrap_or_default();
    let has_more = stale.len() > length;
    stale.truncate(length);
    Ok(ChunkList {
        chunks,
        next,
        next_stale: stale.last().map(|edit| edit.id).filter(|_| has_more),
        stale,
    })
}

/// Changes a chunk's text, or switches it off or on. Both hold at once; new text is found by its own meaning as soon
/// as it is embedded, which takes a moment.
pub async fn update(
    app: &App,
    reach: Reach,
    (document_id, chunk_id): (DocumentId, ChunkId),
    change: ChunkChange,
    actor: &Actor,
    origin: &Origin,
) -> Result<Chunk> {
    let tenant_id = reach.tenant_id;
    if change.text.is_none() && change.is_enabled.is_none() {
        return Err(Error::invalid(
            "nothing_to_change",
            "text",
            "give text, enabled or both",
        ));
    }
    let text = change.text.map(|text| checked_text(app, &text)).transpose()?;
    let now = app.clock.now();
    let mut write = app.db.write(tenant_id).await?;
    let (document, mut chunk) = hold(&mut write, reach, document_id, chunk_id).await?;
    let before = json!({ "document_id": document_id, "enabled": chunk.is_enabled });
    let is_new_text = text.as_ref().is_some_and(|text| *text != chunk.text);
    let edit_id = match chunk.edit_id {
        Some(edit_id) => edit_id,
        None => {
            let original = Edit::of_passage(
                &chunk.text,
                chunk.heading.clone(),
                store::count_before(&mut write, tenant_id, document_id, &chunk).await?,
                now,
            );
            store::insert_edit(
                &mut write,
                tenant_id,
                (document.source_id, &document.external_id),
                &original,
            )
            .await?;
            original.id
        }
    };
    chunk.edit_id = Some(edit_id);
    chunk.is_enabled = change.is_enabled.unwrap_or(chunk.is_enabled);
    if let Some(text) = text.filter(|_| is_new_text) {
        let original = std::mem::replace(&mut chunk.text, text);
        if !chunk.is_added() {
            chunk.original_text.get_or_insert(original);
        }
        chunk.token_count = count_tokens(app, &chunk.text);
    }
    let has_own_words = chunk.is_added() || chunk.original_text.is_some();
    let own_words = has_own_words.then_some(chunk.text.as_str());
    store::update_edit(&mut write, tenant_id, edit_id, own_words, chunk.is_enabled, now).await?;
    store::update_chunk(
        &mut write,
        tenant_id,
        &chunk,
        count_prompt_tokens(app, &chunk.text),
        is_new_text,
    )
    .await?;
    revise(app, &mut write, tenant_id, &document, is_new_text).await?;
    let after =
        json!({ "document_id": document_id, "enabled": chunk.is_enabled, "text_changed": is_new_text });
    record(
        app,
        &mut write,
        tenant_id,
        actor,
        origin,
        ("chunk.update", chunk_id.to_string(), Some(before), Some(after)),
    )
    .await?;
    write.commit().await?;
    app.wake_workers();
    Ok(chunk)
}

/// Adds a chunk of the owner's own to a document. It is found as soon as it is embedded; where the index lies in the database of the
/// rows, by its words at once.
pub async fn add(
    app: &App,
    reach: Reach,
    document_id: DocumentId,
    new: NewChunk,
    actor: &Actor,
    origin: &Origin,
) -> Result<Chunk> {
    let tenant_id = reach.tenant_id;
    let text = checked_text(app, &new.text)?;
    let heading = new
        .heading
        .map(|heading| checked_heading(&heading))
        .transpose()?
        .flatten();
    let now = app.clock.now();
    let mut write = app.db.write(tenant_id).await?;
    let document = find_held(&mut write, reach, document_id).await?;
    if document.indexed_at.is_none() {
        return Err(Error::conflict(
            "not_indexed",
            "chunks can be added once the document is indexed: wait for that, or see why it failed",
        ));
    }
    let edit = Edit::addition(text, heading, now);
    let place = (document.source_id, document.external_id.as_str());
    if store::count_additions(&mut write, tenant_id, place).await? >= MAX_ADDITIONS {
        return Err(Error::conflict(
            "too_many_chunks",
            format!("a document takes at most {MAX_ADDITIONS} added chunks: delete some first"),
        ));
    }
    store::insert_edit(&mut write, tenant_id, place, &edit).await?;
    let (position, end) = store::find_end(&mut write, tenant_id, document_id).await?;
    let text = edit.text.clone().unwrap_or_default();
    let chunk = Chunk {
        id: ChunkId::new(),
        position,
        token_count: count_tokens(app, &text),
        text,
        heading: edit.heading.clone(),
        page: None,
        start_char: end,
        end_char: end,
        edit_id: Some(edit.id),
        original_text: None,
        is_enabled: true,
    };
    let prompt_tokens = count_prompt_tokens(app, &chunk.text);
    store::insert_chunk(&mut write, tenant_id, &document, &chunk, prompt_tokens).await?;
    index_changes::put_words(app, &mut write, tenant_id, chunk.id).await?;
    revise(app, &mut write, tenant_id, &document, true).await?;
    let after = json!({ "document_id": document_id });
    record(
        app,
        &mut write,
        tenant_id,
        actor,
        origin,
        ("chunk.add", chunk.id.to_string(), None, Some(after)),
    )
    .await?;
    write.commit().await?;
    app.wake_workers();
    Ok(chunk)
}

/// Deletes an added chunk, gives a changed one its own words back, or drops a change that rests.
pub async fn delete(
    app: &App,
    reach: Reach,
    (document_id, id): (DocumentId, ChunkId),
    actor: &Actor,
    origin: &Origin,
) -> Result<()> {
    let tenant_id = reach.tenant_id;
    let mut write = app.db.write(tenant_id).await?;
    let document = find_held(&mut write, reach, document_id).await?;
    let action = match store::find_chunk(&mut write, tenant_id, document_id, id).await? {
        Some(chunk) => {
            let edit_id = chunk.edit_id.ok_or_else(|| {
                Error::conflict(
                    "chunk_not_edited",
                    "this chunk is the document's own: switch it off with enabled: false to keep it out of answers",
                )
            })?;
            store::delete_edit(&mut write, tenant_id, edit_id).await?;
            if chunk.is_added() {
                store::delete_chunk(&mut write, tenant_id, document_id, id).await?;
                index_changes::remove_chunks(app, &mut write, tenant_id, &[id]).await?;
                revise(app, &mut write, tenant_id, &document, false).await?;
                "chunk.delete"
            } else {
                restore(app, &mut write, tenant_id, &document, chunk).await?;
                "chunk.restore"
            }
        }
        None => {
            let place = (document.source_id, document.external_id.as_str());
            if !store::delete_stale_edit(&mut write, tenant_id, place, ChunkEditId(id.0)).await? {
                return Err(Error::NotFound("chunk"));
            }
            "chunk.delete"
        }
    };
    let before = json!({ "document_id": document_id });
    record(
        app,
        &mut write,
        tenant_id,
        actor,
        origin,
        (action, id.to_string(), Some(before), None),
    )
    .await?;
    write.commit().await?;
    app.wake_workers();
    Ok(())
}

/// The chunk gets the document's words back, and is embedded again if it had others.
async fn restore(
    app: &App,
    write: &mut Write,
    tenant_id: TenantId,
    document: &Document,
    mut chunk: Chunk,
) -> Result<()> {
    chunk.edit_id = None;
    chunk.is_enabled = true;
    let original = chunk.original_text.take();
    let had_others = original.is_some();
    if let Some(original) = original {
        chunk.token_count = count_tokens(app, &original);
        chunk.text = original;
    }
    store::update_chunk(
        write,
        tenant_id,
        &chunk,
        count_prompt_tokens(app, &chunk.text),
        had_others,
    )
    .await?;
    revise(app, write, tenant_id, document, had_others).await
}

/// The document within reach. Its chunks that answer go on answering, and nobody else works on it, until the transaction ends.
async fn find_held(write: &mut Write, reach: Reach, id: DocumentId) -> Result<Document> {
    let not_found = || Error::NotFound("document");
    let document = super::store::find(write, reach, id)
        .await?
        .ok_or_else(not_found)?;
    cuts::share_live(write, reach.tenant_id, &[document.source_id]).await?;
    cuts::hold(write, reach.tenant_id, &[id]).await?;
    super::store::find(write, reach, id).await?.ok_or_else(not_found)
}

/// The chunk of this document within reach.
async fn hold(
    write: &mut Write,
    reach: Reach,
    document_id: DocumentId,
    chunk_id: ChunkId,
) -> Result<(Document, Chunk)> {
    let document = find_held(write, reach, document_id).await?;
    let chunk = store::find_chunk(write, reach.tenant_id, document_id, chunk_id)
        .await?
        .ok_or(Error::NotFound("chunk"))?;
    Ok((document, chunk))
}

/// Work that is under way for the document is not taken for its result any more, and done again; also without such
/// work if there is something to embed.
async fn revise(
    app: &App,
    write: &mut Write,
    tenant_id: TenantId,
    document: &Document,
    has_new_text: bool,
) -> Result<()> {
    let Some(state) = store::revise(write, tenant_id, document.id).await? else {
        return Ok(());
    };
    generations::cuts::note_gaps(app, write, tenant_id, &[document.id]).await?;
    let is_under_way = state == DocumentState::Queued.name() || state == DocumentState::Processing.name();
    if has_new_text || is_under_way {
        store::set_queued(write, tenant_id, document.id).await?;
        let version = [(document.id, document.file_key.clone())];
        indexing::enqueue(app, write, tenant_id, &version, Priority::Normal).await?;
    }
    Ok(())
}

async fn record(
    app: &App,
    write: &mut Write,
    tenant_id: TenantId,
    actor: &Actor,
    origin: &Origin,
    (action, object_id, before, after): (&'static str, String, Option<Value>, Option<Value>),
) -> Result<()> {
    let change = Change {
        action,
        object_kind: "chunk",
        object_id,
        before,
        after,
    };
    audit::record(write, tenant_id, actor, origin, change, app.clock.now()).await
}

/// An owner's text, if a model can read all of it at once.
fn checked_text(app: &App, text: &str) -> Result<String> {
    let text = text.trim().to_owned();
    if text.is_empty() || text.chars().count() > MAX_CHARS {
        return Err(Error::invalid(
            "invalid_chunk_text",
            "text",
            format!("text must have 1 to {MAX_CHARS} characters"),
        ));
    }
    let most = app
        .spaces
        .wanted()
        .embedder
        .as_deref()
        .map_or(i64::MAX, |embedder| as_i64(embedder.max_tokens()));
    if count_tokens(app, &text) > most {
        return Err(Error::invalid(
            "chunk_too_long",
            "text",
            format!("the embedding model reads at most {most} tokens of a chunk: split it into several"),
        ));
    }
    Ok(text)
}

/// A heading on one line; none when nothing is left of it.
fn checked_heading(heading: &str) -> Result<Option<String>> {
    let heading = heading.split_whitespace().collect::<Vec<_>>().join(" ");
    if heading.chars().count() > MAX_HEADING_CHARS {
        return Err(Error::invalid(
            "invalid_heading",
            "heading",
            format!("heading must have at most {MAX_HEADING_CHARS} characters"),
        ));
    }
    Ok(Some(heading).filter(|heading| !heading.is_empty()))
}

fn count_tokens(app: &App, text: &str) -> i64 {
    as_i64(super::cut::count_tokens(
        app.spaces.wanted().embedder.as_deref(),
        text,
    ))
}

fn count_prompt_tokens(app: &App, text: &str) -> i64 {
    if app.model.is_some() {
        as_i64(llm::tokens::count(text))
    } else {
        0
    }
}

/// What tells a passage from others: its own words.
pub(in crate::knowledge) fn passage_hash(text: &str) -> String {
    token_hash(text)
}
