//! SQL of the documents that runs make and remove.

use chrono::{DateTime, Utc};
use sqlx::{FromRow, QueryBuilder};
use uuid::Uuid;

use super::driver::Content;
use super::items::{Item, Place};
use crate::app::App;
use crate::db::{Conn, ROWS_AT_ONCE, Write};
use crate::error::Result;
use crate::id::{ChatbotId, DocumentId};
use crate::knowledge::chunks::rename_edits;
use crate::knowledge::{deletion, indexing};
use crate::on;

/// Makes the document of an item that had none. Where one has the item's name already, `id` is that one's.
pub(super) async fn put(
    write: &mut Write,
    place: Place,
    (id, chatbot_id): (DocumentId, ChatbotId),
    item: &Item,
    content: &Content,
    file_key: &str,
    now: DateTime<Utc>,
) -> Result<()> {
    write
        .put(
            "insert into document (id, tenant_id, chatbot_id, source_id, external_id, title, file_name, format, size_bytes, content_hash,
                                   file_key, state, chunk_count, token_count, created_at, updated_at, url, kept_as, run_id)
             values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, 'queued', 0, 0, $12, $12, $13, $14, $15)
             on conflict (source_id, external_id) do update
                set title = excluded.title, file_name = excluded.file_name, format = excluded.format, size_bytes = excluded.size_bytes,
                    content_hash = excluded.content_hash, file_key = excluded.file_key, state = excluded.state, error_code = null,
                    error_message = null, updated_at = excluded.updated_at, url = excluded.url, kept_as = excluded.kept_as,
                    run_id = excluded.run_id, read_with = null",
        )
        .bind(id)
        .bind(place.tenant_id)
        .bind(chatbot_id)
        .bind(place.source_id)
        .bind(&item.key)
        .bind(&content.title)
        .bind(&content.file_name)
        .bind(&content.format)
        .bind(content.size_bytes)
        .bind(&content.text_hash)
        .bind(file_key)
        .bind(now)
        .bind(&item.url)
        .bind(content.file.kept_as().name())
        .bind(place.run_id)
        .run()
        .await
}

/// Makes a new version of a document; returns the key of the old version's file. None when the document is gone.
pub(super) async fn update(
    write: &mut Write,
    place: Place,
    id: DocumentId,
    item: &Item,
    content: &Content,
    file_key: &str,
    now: DateTime<Utc>,
) -> Result<Option<String>> {
    let old: Option<String> = on!(write, c => sqlx::query_scalar("select file_key from document where tenant_id = $1 and id = $2")
        .bind(place.tenant_id).bind(id).fetch_optional(c).await)?;
    if old.is_some() {
        rename_edits(write, place.tenant_id, id, &item.key).await?;
        on!(write, c => sqlx::query(
            "update document
                set external_id = $3, file_name = $4, format = $5, size_bytes = $6, content_hash = $7, file_key = $8,
                    state = 'queued', error_code = null, error_message = null, updated_at = $9, url = $10, kept_as = $11,
                    run_id = $12, read_with = null
              where tenant_id = $1 and id = $2",
        ).bind(place.tenant_id).bind(id).bind(&item.key).bind(&content.file_name).bind(&content.format).bind(content.size_bytes)
         .bind(&content.text_hash).bind(file_key).bind(now).bind(&item.url).bind(content.file.kept_as().name())
         .bind(place.run_id)
         .execute(c).await.map(drop))?;
    }
    Ok(old)
}

/// Lets a document be known by another address. One of the source that has it already is in the way and gives way.
pub(super) async fn rename(
    write: &mut Write,
    place: Place,
    id: DocumentId,
    key: &str,
    url: &str,
    now: DateTime<Utc>,
) -> Result<()> {
    rename_edits(write, place.tenant_id, id, key).await?;
    on!(write, c => sqlx::query(
        "update document
            set external_id = $3, url = $4, updated_at = $5
          where tenant_id = $1 and id = $2
            and not exists (select 1 from document other where other.source_id = $6 and other.external_id = $3)",
    ).bind(place.tenant_id).bind(id).bind(key).bind(url).bind(now).bind(place.source_id).execute(c).await.map(drop))?;
    Ok(())
}

/// Queues documents again whose indexing failed and may go well now, among those that the run has seen as they were;
/// returns them with their files.
pub(super) async fn requeue_failed(
    app: &App,
    write: &mut Write,
    place: Place,
    now: DateTime<Utc>,
) -> Result<Vec<(DocumentId, String)>> {
    #[derive(FromRow)]
    struct Failed {
        id: DocumentId,
        error_code: Option<String>,
        read_with: Option<String>,
    }
    let failed: Vec<Failed> = on!(write, c => sqlx::query_as(
        "select id, error_code, read_with
           from document
          where tenant_id = $1
            and source_id = $2
            and state = 'failed'
            and (run_id is null or run_id <> $3)
            and id in (select document_id from source_item
                        where tenant_id = $1 and source_id = $2 and run_id = $3 and state = 'unchanged')",
    ).bind(place.tenant_id).bind(place.source_id).bind(place.run_id).fetch_all(c).await)?;
    let is_worth_it = |failed: &&Failed| {
        let code = failed.error_code.as_deref().unwrap_or_default();
        indexing::is_worth_another_try(app, code, failed.read_with.as_deref())
    };
    let again: Vec<DocumentId> = failed
        .iter()
        .filter(is_worth_it)
        .map(|failed| failed.id)
        .collect();
    let mut queued = Vec::with_capacity(again.len());
    for group in again.chunks(ROWS_AT_ONCE) {
        let rows: Vec<(DocumentId, String)> = on!(write, c => {
            let mut update = QueryBuilder::new("update document set state = 'queued', error_code = null, error_message = null, run_id = ");
            update.push_bind(place.run_id).push(", updated_at = ").push_bind(now);
            update.push(" where coalesce(tenant_id, tenant_id) = ").push_bind(place.tenant_id).push(" and state = 'failed' and id in (");
            let mut list = update.separated(", ");
            group.iter().for_each(|id| {
                list.push_bind(*id);
            });
            update.push(") returning id, file_key");
            update.build_query_as().fetch_all(c).await
        })?;
        queued.extend(rows);
    }
    Ok(queued)
}

/// Documents of the source that are not indexed yet.
pub(super) async fn count_unfinished(conn: &mut Conn, place: Place) -> Result<i64> {
    Ok(on!(conn, c => sqlx::query_scalar(
        "select count(*) from document where tenant_id = $1 and source_id = $2 and state in ('queued', 'processing')",
    ).bind(place.tenant_id).bind(place.source_id).fetch_one(c).await)?)
}

/// All documents of the source.
pub(super) async fn count(conn: &mut Conn, place: Place) -> Result<i64> {
    Ok(
        on!(conn, c => sqlx::query_scalar("select count(*) from document where tenant_id = $1 and source_id = $2")
        .bind(place.tenant_id).bind(place.source_id).fetch_one(c).await)?,
    )
}

/// A document that the run has not found to be there.
#[derive(Debug, FromRow)]
pub(super) struct Missing {
    pub id: DocumentId,
    pub file_key: String,
    pub key: String,
    pub url: String,
    pub depth: i64,
    /// The state of its item in this run; none: the run has not come across it.
    pub state: Option<String>,
}

/// Documents of the source whose item the run has not found in place.
pub(super) async fn list_missing(conn: &mut Conn, place: Place) -> Result<Vec<Missing>> {
    Ok(on!(conn, c => sqlx::query_as(
        "select d.id, d.file_key, coalesce(i.item_key, d.external_id) as key, coalesce(i.url, d.url, d.external_id) as url,
                coalesce(i.depth, 0) as depth, case when i.run_id = $3 then i.state end as state
           from document d
           left join source_item i on i.document_id = d.id and i.source_id = $2 and i.tenant_id = $1
           left join source_item target on target.source_id = $2 and target.item_key = i.moved_to and target.run_id = $3
          where d.tenant_id = $1
            and d.source_id = $2
            and (i.run_id is null or i.run_id <> $3 or i.state not in ('waiting', 'new', 'changed', 'unchanged', 'failed'))
            -- What it moved to could not be read: until then it is all there is.
            and not (i.run_id = $3 and i.state = 'moved' and coalesce(target.state, '') = 'failed')
          order by d.id",
    ).bind(place.tenant_id).bind(place.source_id).bind(place.run_id).fetch_all(c).await)?)
}

/// The files of these documents.
pub(super) async fn list_files(conn: &mut Conn, place: Place, ids: &[DocumentId]) -> Result<Vec<String>> {
    let mut files = Vec::with_capacity(ids.len());
    for group in ids.chunks(ROWS_AT_ONCE) {
        let found: Vec<String> = on!(conn, c => {
            let mut query = QueryBuilder::new("select file_key from document where coalesce(tenant_id, tenant_id) = ");
            query.push_bind(place.tenant_id).push(" and id in (");
            let mut list = query.separated(", ");
            group.iter().for_each(|id| {
                list.push_bind(*id);
            });
            query.push(")");
            query.build_query_scalar().fetch_all(c).await
        })?;
        files.extend(found);
    }
    Ok(files)
}

/// Deletes documents: out of answers with the commit. What was known of their items is forgotten; returns how many
/// there were.
pub(super) async fn delete(app: &App, write: &mut Write, place: Place, ids: &[DocumentId]) -> Result<i64> {
    for group in ids.chunks(ROWS_AT_ONCE) {
        on!(write, c => {
            let mut update = QueryBuilder::new(
                "update source_item set known_as = null, etag = null, last_modified = null, read_version = null, body_hash = null, text_hash = null where tenant_id = ",
            );
            update.push_bind(place.tenant_id).push(" and source_id = ").push_bind(place.source_id).push(" and document_id in (");
            let mut list = update.separated(", ");
            group.iter().for_each(|id| {
                list.push_bind(*id);
            });
            update.push(")");
            update.build().execute(c).await.map(drop)
        })?;
    }
    deletion::delete_or_hide(app, write, (place.tenant_id, place.source_id), ids).await
}

/// Notes what a run could not read.
pub(super) async fn insert_failure(
    write: &mut Write,
    place: Place,
    url: &str,
    code: &str,
    message: &str,
    now: DateTime<Utc>,
) -> Result<()> {
    on!(write, c => sqlx::query(
        "insert into sync_failure (id, tenant_id, run_id, url, code, message, created_at) values ($1, $2, $3, $4, $5, $6, $7)",
    ).bind(Uuid::now_v7()).bind(place.tenant_id).bind(place.run_id).bind(url).bind(code).bind(message).bind(now)
     .execute(c).await.map(drop))?;
    Ok(())
}

/// A document that could not be indexed.
#[derive(Debug, FromRow)]
pub(super) struct Unindexed {
    pub url: String,
    pub code: String,
    pub message: String,
    /// The state of its item in this run; none when the run had no reason to look at it.
    pub item_state: Option<String>,
}

/// Documents that could not be indexed, of those that the run has seen; `all` counts those that it left as they were too.
pub(super) async fn list_unindexed(conn: &mut Conn, place: Place, all: bool) -> Result<Vec<Unindexed>> {
    Ok(on!(conn, c => sqlx::query_as(
        "select coalesce(d.url, d.external_id) as url, coalesce(d.error_code, '') as code, coalesce(d.error_message, '') as message,
                case when i.run_id = $3 then i.state end as item_state
           from document d
           join source_item i on i.document_id = d.id and i.source_id = $2 and i.tenant_id = $1
          where d.tenant_id = $1
            and d.source_id = $2
            and d.state = 'failed'
            and (i.run_id = $3 or $4)
            and i.state in ('new', 'changed', 'unchanged')
          order by i.depth, i.item_key",
    ).bind(place.tenant_id).bind(place.source_id).bind(place.run_id).bind(all).fetch_all(c).await)?)
}

/// Documents of the source that the run had no reason to look at.
pub(super) async fn count_unseen(conn: &mut Conn, place: Place) -> Result<i64> {
    Ok(on!(conn, c => sqlx::query_scalar(
        "select count(*)
           from document d
           join source_item i on i.document_id = d.id and i.source_id = $2 and i.tenant_id = $1
          where d.tenant_id = $1
            and d.source_id = $2
            and i.run_id <> $3",
    ).bind(place.tenant_id).bind(place.source_id).bind(place.run_id).fetch_one(c).await)?)
}
