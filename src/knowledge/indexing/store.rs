//! SQL of indexing.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use chrono::{DateTime, Utc};
use sqlx::types::Json;
use sqlx::{FromRow, QueryBuilder};

use super::Work;
use crate::app::Space;
use crate::db::{Conn, Write};
use crate::error::Result;
use crate::id::{ChatbotId, ChunkId, CutId, DocumentId, SourceId, SyncRunId, TenantId};
use crate::knowledge::chunks::Chunking;
use crate::knowledge::cuts;
use crate::knowledge::facts::Facts;
use crate::knowledge::labels::{FacetsRow, facets_columns};
use crate::knowledge::reading::KeptAs;
use crate::knowledge::store::ChunkRow;
use crate::knowledge::versions::{self, is_shown};
use crate::on;

/// Chunks in one statement.
const CHUNKS_AT_ONCE: usize = 64;

#[derive(FromRow)]
struct WorkRow {
    id: DocumentId,
    chatbot_id: ChatbotId,
    source_id: SourceId,
    given_title: Option<String>,
    external_id: String,
    file_name: String,
    format: String,
    content_hash: String,
    file_key: String,
    kept_as: String,
    run_id: Option<SyncRunId>,
    state: String,
    error_code: Option<String>,
    indexed_at: Option<DateTime<Utc>>,
    cut_revision: i64,
    cut: CutId,
    chunking: Option<Json<Chunking>>,
    has_edits: bool,
    said_language: Option<String>,
    read_with: Option<String>,
    #[sqlx(flatten)]
    facets: FacetsRow,
}

/// A document as an indexing job finds it.
pub(super) struct Found {
    pub work: Work,
    pub state: String,
    pub error_code: Option<String>,
}

/// Those of these documents that there are.
pub(super) async fn list(
    conn: &mut Conn,
    tenant_id: TenantId,
    ids: &[DocumentId],
    space: &Arc<Space>,
) -> Result<Vec<Found>> {
    let rows: Vec<WorkRow> = on!(conn, c => {
        let mut query = QueryBuilder::new(concat!(
            "select ", facets_columns!(), ", d.id, d.chatbot_id, d.source_id, d.external_id, d.given_title, d.file_name, d.format, d.content_hash, d.file_key, d.kept_as, d.run_id,
                    d.language as said_language, d.read_with,
                    d.state, d.error_code, d.indexed_at, d.cut_revision, coalesce(k.id, s.id) as cut, coalesce(k.chunking, s.chunking) as chunking,
                    exists(select 1
                             from chunk_edit e
                            where e.tenant_id = d.tenant_id
                              and e.source_id = d.source_id
                              and e.external_id = d.external_id) as has_edits
               from document d
               join source s on s.id = d.source_id and s.deleted_at is null
               left join cut k on k.source_id = s.id and k.tenant_id = s.tenant_id and k.state = 'live'
              where coalesce(d.tenant_id, d.tenant_id) = ",
        ));
        query.push_bind(tenant_id).push(" and d.id in (");
        let mut list = query.separated(", ");
        ids.iter().for_each(|id| {
            list.push_bind(*id);
        });
        query.push(")");
        query.build_query_as().fetch_all(c).await
    })?;
    let found = rows.into_iter().map(|row| Found {
        work: Work {
            id: row.id,
            chatbot_id: row.chatbot_id,
            source_id: row.source_id,
            given_title: row.given_title,
            external_id: row.external_id,
            file_name: row.file_name,
            format: row.format,
            content_hash: row.content_hash,
            file_key: row.file_key,
            kept_as: KeptAs::parse(&row.kept_as),
            run_id: row.run_id,
            space: space.clone(),
            was_indexed: row.indexed_at.is_some(),
            is_indexed: row.state == "indexed",
            cut_revision: row.cut_revision,
            cut: row.cut,
            chunking: row.chunking.map(|Json(chunking)| chunking).unwrap_or_default(),
            has_edits: row.has_edits,
            said_language: row.said_language,
            read_with: row.read_with,
            created_at: row.facets.document_created_at,
            facets: row.facets.into(),
        },
        state: row.state,
        error_code: row.error_code,
    });
    Ok(found.collect())
}

/// Marks documents as being worked on.
pub(super) async fn set_processing(
    write: &mut Write,
    tenant_id: TenantId,
    work: &[Work],
    now: DateTime<Utc>,
) -> Result<()> {
    on!(write, c => {
        let mut query = QueryBuilder::new("update document set state = 'processing', error_code = null, error_message = null, updated_at = ");
        query.push_bind(now).push(" where coalesce(tenant_id, tenant_id) = ").push_bind(tenant_id).push(" and state <> 'indexed' and id in (");
        let mut list = query.separated(", ");
        work.iter().for_each(|work| {
            list.push_bind(work.id);
        });
        query.push(")");
        query.build().execute(c).await.map(drop)
    })?;
    Ok(())
}

/// What indexing found out about a document.
pub(super) struct Indexed<'a> {
    pub title: &'a str,
    pub chunk_count: i64,
    pub token_count: i64,
    pub facts: &'a Facts,
    /// What read it.
    pub read_with: &'a str,
    pub embedding_model: &'a str,
}

/// Like [`hold_versions`], but for those of a cut that is not live any more.
pub(super) async fn hold_current(
    write: &mut Write,
    tenant_id: TenantId,
    work: &[&Work],
) -> Result<HashSet<DocumentId>> {
    let sources: Vec<SourceId> = work.iter().map(|work| work.source_id).collect();
    let live = cuts::share_live(write, tenant_id, &sources).await?;
    let held = hold_versions(write, tenant_id, work).await?;
    let is_of_live = |work: &&&Work| live.get(&work.source_id) == Some(&work.cut);
    let current = work.iter().filter(is_of_live).map(|work| work.id);
    Ok(current.filter(|id| held.contains(id)).collect())
}

/// Those of these versions of documents, each by its file and how it was cut, that no newer one has taken the place of. None
/// will until the transaction ends.
pub(super) async fn hold_versions(
    write: &mut Write,
    tenant_id: TenantId,
    work: &[&Work],
) -> Result<HashSet<DocumentId>> {
    let present = hold_present(write, tenant_id, work).await?;
    let is_current = |work: &&&Work| present.get(&work.id).is_some_and(|present| present.is_of(work));
    Ok(work.iter().filter(is_current).map(|work| work.id).collect())
}

/// Like [`hold_versions`], but for those that were indexed since they were looked at, or are to be: other chunks answer.
pub(super) async fn hold_unchanged(
    write: &mut Write,
    tenant_id: TenantId,
    work: &[&Work],
) -> Result<HashSet<DocumentId>> {
    let present = hold_present(write, tenant_id, work).await?;
    let is_unchanged = |work: &&&Work| {
        let present = present.get(&work.id);
        present.is_some_and(|present| present.is_of(work) && present.is_indexed == work.is_indexed)
    };
    Ok(work.iter().filter(is_unchanged).map(|work| work.id).collect())
}

/// A document as it is while it is held.
#[derive(FromRow)]
struct Present {
    id: DocumentId,
    file_key: String,
    cut_revision: i64,
    is_indexed: bool,
}

impl Present {
    fn is_of(&self, work: &Work) -> bool {
        self.file_key == work.file_key && self.cut_revision == work.cut_revision
    }
}

async fn hold_present(
    write: &mut Write,
    tenant_id: TenantId,
    work: &[&Work],
) -> Result<HashMap<DocumentId, Present>> {
    if work.is_empty() {
        return Ok(HashMap::new());
    }
    let lock = write.row_lock();
    let present: Vec<Present> = on!(write, c => {
        let mut query = QueryBuilder::new("select id, file_key, cut_revision, state = 'indexed' as is_indexed from document where coalesce(tenant_id, tenant_id) = ");
        query.push_bind(tenant_id).push(" and id in (");
        let mut list = query.separated(", ");
        work.iter().for_each(|work| {
            list.push_bind(work.id);
        });
        query.push(") order by id ").push(lock);
        query.build_query_as().fetch_all(c).await
    })?;
    Ok(present.into_iter().map(|present| (present.id, present)).collect())
}

/// The ids of the chunks that these documents show in the cuts that they are worked on for.
pub(super) async fn list_chunk_ids(
    conn: &mut Conn,
    tenant_id: TenantId,
    work: &[&Work],
) -> Result<HashMap<DocumentId, HashSet<ChunkId>>> {
    if work.is_empty() {
        return Ok(HashMap::new());
    }
    let rows: Vec<(DocumentId, ChunkId, CutId)> = on!(conn, c => {
        let mut query = QueryBuilder::new(concat!(
            "select document_id, id, coalesce(cut_id, source_id) from chunk c where ", is_shown!("c"), " and tenant_id = "
        ));
        query.push_bind(tenant_id).push(" and document_id in (");
        let mut list = query.separated(", ");
        work.iter().for_each(|work| {
            list.push_bind(work.id);
        });
        query.push(")");
        query.build_query_as().fetch_all(c).await
    })?;
    let cut_of: HashMap<DocumentId, CutId> = work.iter().map(|work| (work.id, work.cut)).collect();
    let mut chunks: HashMap<DocumentId, HashSet<ChunkId>> = HashMap::new();
    for (document_id, id, cut) in rows {
        if cut_of.get(&document_id) == Some(&cut) {
            chunks.entry(document_id).or_default().insert(id);
        }
    }
    Ok(chunks)
}

/// Marks a version that is held as indexed.
pub(super) async fn set_indexed(
    write: &mut Write,
    tenant_id: TenantId,
    id: DocumentId,
    indexed: Indexed<'_>,
    now: DateTime<Utc>,
) -> Result<()> {
    let facts = indexed.facts;
    write
        .put(
            "update document
                set state = 'indexed', error_code = null, error_message = null, title = $3, chunk_count = $4, token_count = $5,
                    page_count = $6, embedding_model = $7, indexed_at = $8, updated_at = $8, scanned_pages = $9, read_with = $10, left_out = $15,
                    -- Read for the first time; later a page may have said something else of itself with the same text.
                    description = case when read_with is distinct from $10 then $11 else description end,
                    published_at = case when read_with is distinct from $10 then $12 else published_at end,
                    breadcrumbs = case when read_with is distinct from $10 then $13 else breadcrumbs end,
                    -- What somebody said of it goes before what it says of itself.
                    language = case when read_with is distinct from $10 and run_id is not null then $14 else language end,
                    detected_language = $16
              where tenant_id = $1 and id = $2",
        )
        .bind(tenant_id)
        .bind(id)
        .bind(indexed.title)
        .bind(indexed.chunk_count)
        .bind(indexed.token_count)
        .bind(facts.page_count)
        .bind(indexed.embedding_model)
        .bind(now)
        .bind(facts.scanned_pages)
        .bind(indexed.read_with)
        .bind(&facts.description)
        .bind(facts.published_at)
        .bind(facts.stored_breadcrumbs())
        .bind(&facts.language)
        .bind(facts.stored_left_out())
        .bind(facts.detected_language)
        .run()
        .await
}

/// Deletes the chunks that a document shows, and what its text has beyond its first part.
pub(super) async fn clear(write: &mut Write, tenant_id: TenantId, work: &Work) -> Result<()> {
    clear_chunks(write, tenant_id, work).await?;
    let delete = write.put(
        "delete from document_text
          where tenant_id = $1
            and document_id = $2
            and part > 0
            and version = (select d.text_version from document d where d.tenant_id = $1 and d.id = $2)",
    );
    delete.bind(tenant_id).bind(work.id).run().await
}

/// Deletes the chunks that a document shows in the cut that it is worked on for.
pub(super) async fn clear_chunks(write: &mut Write, tenant_id: TenantId, work: &Work) -> Result<()> {
    let delete = write.put(concat!(
        "delete from chunk where tenant_id = $1 and document_id = $2 and coalesce(cut_id, source_id) = $3 and ",
        is_shown!("chunk"),
    ));
    delete.bind(tenant_id).bind(work.id).bind(work.cut).run().await
}

/// Work that was not taken for its result because another cut of the source went live meanwhile is to be done again, for that
/// one; whether it is. Otherwise a newer version has taken its place.
pub(super) async fn set_queued_again(write: &mut Write, tenant_id: TenantId, work: &Work) -> Result<bool> {
    let again: Option<DocumentId> = on!(write, c => sqlx::query_scalar(
        "update document
            set state = 'queued', cut_revision = cut_revision + 1
          where tenant_id = $1
            and id = $2
            and source_id = $3
            and file_key = $4
            and state in ('queued', 'processing')
            -- What waited to be shown is queued by the cut that went live.
            and cut_revision = $5
         returning id",
    ).bind(tenant_id).bind(work.id).bind(work.source_id).bind(&work.file_key).bind(work.cut_revision)
     .fetch_optional(c).await)?;
    Ok(again.is_some())
}

/// The whole text of a document.
pub(super) async fn put_text(
    write: &mut Write,
    tenant_id: TenantId,
    id: DocumentId,
    content_hash: &str,
    text: &str,
) -> Result<()> {
    write
        .put(
            "insert into document_text (document_id, version, part, tenant_id, content_hash, start_char, text)
             select d.id, d.text_version, 0, d.tenant_id, $3, 0, $4
               from document d
              where d.id = $1
                and d.tenant_id = $2
             on conflict (document_id, version, part) do update set content_hash = excluded.content_hash, start_char = 0, text = excluded.text",
        )
        .bind(id)
        .bind(tenant_id)
        .bind(content_hash)
        .bind(text)
        .run()
        .await
}

/// More chunks of documents, as part of what they show.
pub(super) async fn insert_chunks(
    write: &mut Write,
    tenant_id: TenantId,
    chunks: &[(&Work, &ChunkRow)],
) -> Result<()> {
    let mut ids: Vec<DocumentId> = chunks.iter().map(|(work, _)| work.id).collect();
    ids.dedup();
    let shown = versions::list_shown(write, tenant_id, &ids).await?;
    let number_of = |work: &Work| shown.get(&(work.id, work.cut)).copied().unwrap_or_default();
    insert_versioned(write, tenant_id, chunks, number_of).await
}

/// More chunks of documents, of versions of these numbers. Their statement has a few lengths only, so that it is prepared once
/// for most of them.
pub(super) async fn insert_versioned(
    write: &mut Write,
    tenant_id: TenantId,
    chunks: &[(&Work, &ChunkRow)],
    number_of: impl Fn(&Work) -> i64,
) -> Result<()> {
    for group in chunks.chunks(CHUNKS_AT_ONCE) {
        let is_of_common_length = group.len() == CHUNKS_AT_ONCE;
        on!(write, c => {
            let mut insert = QueryBuilder::new(
                "insert into chunk (id, tenant_id, document_id, source_id, position, text, heading, page, start_char, end_char, token_count,
                                    prompt_token_count, content_hash, edit_id, original_text, is_enabled, context, cut_id, version) ",
            );
            insert.push_values(group, |mut row, (work, chunk)| {
                row.push_bind(chunk.id).push_bind(tenant_id).push_bind(work.id).push_bind(work.source_id).push_bind(chunk.position)
                    .push_bind(&chunk.text).push_bind(&chunk.heading).push_bind(chunk.page).push_bind(chunk.start_char).push_bind(chunk.end_char)
                    .push_bind(chunk.token_count).push_bind(chunk.prompt_token_count).push_bind(&chunk.content_hash)
                    .push_bind(chunk.edit_id).push_bind(&chunk.original_text).push_bind(chunk.is_enabled).push_bind(&chunk.context)
                    .push_bind(work.cut.in_rows(work.source_id)).push_bind(number_of(work));
            });
            insert.build().persistent(is_of_common_length).execute(c).await.map(drop)
        })?;
    }
    Ok(())
}

/// Which file the document has now; none when it is gone.
pub(super) async fn find_file_key(
    conn: &mut Conn,
    tenant_id: TenantId,
    id: DocumentId,
) -> Result<Option<String>> {
    Ok(
        on!(conn, c => sqlx::query_scalar("select file_key from document where tenant_id = $1 and id = $2")
        .bind(tenant_id).bind(id).fetch_optional(c).await)?,
    )
}

/// Forgets what is known of the page or file that a document came from: the next run reads it as if it were new.
pub(super) async fn forget_item(write: &mut Write, tenant_id: TenantId, id: DocumentId) -> Result<()> {
    on!(write, c => sqlx::query(
        "update source_item
            set known_as = null, etag = null, last_modified = null, read_version = null, body_hash = null, text_hash = null
          where tenant_id = $1
            and document_id = $2",
    ).bind(tenant_id).bind(id).execute(c).await.map(drop))?;
    Ok(())
}

/// Fails this version of a document, if it is waiting or being worked on.
pub(in crate::knowledge) async fn fail_unfinished(
    write: &mut Write,
    tenant_id: TenantId,
    (id, file_key): (DocumentId, &str),
    (code, message): (&str, &str),
    now: DateTime<Utc>,
) -> Result<()> {
    on!(write, c => sqlx::query(
        "update document
            set state = 'failed', error_code = $4, error_message = $5, updated_at = $6
          where tenant_id = $1
            and id = $2
            and file_key = $3
            and state in ('queued', 'processing')",
    ).bind(tenant_id).bind(id).bind(file_key).bind(code).bind(message).bind(now).execute(c).await.map(drop))?;
    Ok(())
}

/// Another attempt at those of these documents that failed has chunks of its own: those of this one can be removed.
pub(in crate::knowledge) async fn give_up_staged(
    write: &mut Write,
    tenant_id: TenantId,
    ids: &[DocumentId],
) -> Result<()> {
    for id in ids {
        let update = write.put(
            "update document set cut_revision = cut_revision + 1 where tenant_id = $1 and id = $2 and state = 'failed'",
        );
        update.bind(tenant_id).bind(*id).run().await?;
    }
    Ok(())
}

/// Counts a batch of texts that was sent to the embedding model for documents of a run.
pub(super) async fn count_embedding_call(
    write: &mut Write,
    tenant_id: TenantId,
    run_id: SyncRunId,
) -> Result<()> {
    on!(write, c => sqlx::query("update sync_run set embedding_calls = embedding_calls + 1 where tenant_id = $1 and id = $2")
        .bind(tenant_id).bind(run_id).execute(c).await.map(drop))?;
    Ok(())
}
