//! SQL of sources.

use std::collections::HashSet;

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::FromRow;
use sqlx::types::Json;
use url::Url;

use super::{Schedule, Settings, Source, SourceKind, SourceState};
use crate::db::{Conn, Write};
use crate::error::{Error, Result};
use crate::http::access::Reach;
use crate::http::input::PageRequest;
use crate::id::{ChatbotId, SourceId, TenantId};
use crate::knowledge::Labels;
use crate::knowledge::chunks::Chunking;
use crate::on;

#[derive(FromRow)]
struct SourceRow {
    id: SourceId,
    tenant_id: TenantId,
    chatbot_id: ChatbotId,
    kind: String,
    name: String,
    settings: Json<Value>,
    sealed: Option<String>,
    state: String,
    chunking: Option<Json<Chunking>>,
    tags: Option<Json<Vec<String>>>,
    access_groups: Option<Json<Vec<String>>>,
    schedule: Option<Json<Schedule>>,
    next_run_at: Option<DateTime<Utc>>,
    created_at: DateTime<Utc>,
    updated_at: Option<DateTime<Utc>>,
}

impl TryFrom<SourceRow> for Source {
    type Error = Error;

    fn try_from(row: SourceRow) -> Result<Self> {
        let unknown =
            |what: &str, name: &str| Error::internal(format!("unknown {what} of a source: {name:?}"));
        let kind = SourceKind::parse(&row.kind).ok_or_else(|| unknown("kind", &row.kind))?;
        Ok(Self {
            id: row.id,
            tenant_id: row.tenant_id,
            chatbot_id: row.chatbot_id,
            name: row.name,
            settings: Settings::from_json(kind, row.settings.0)?,
            state: SourceState::parse(&row.state).ok_or_else(|| unknown("state", &row.state))?,
            chunking: row
                .chunking
                .map(|chunking| chunking.0)
                .filter(|chunking| *chunking != Chunking::default()),
            labels: Labels {
                tags: row.tags.map(|Json(names)| names),
                access_groups: row.access_groups.map(|Json(names)| names),
            },
            schedule: row.schedule.map(|schedule| schedule.0),
            next_run_at: row.next_run_at,
            created_at: row.created_at,
            updated_at: row.updated_at.unwrap_or(row.created_at),
            sealed: row.sealed,
        })
    }
}

/// The columns of a source, in every statement that reads whole ones.
macro_rules! select_source {
    ($rest:literal) => {
        concat!(
            "select id, tenant_id, chatbot_id, kind, name, settings, sealed, state, chunking, tags, access_groups, schedule, next_run_at, created_at, updated_at
               from source ",
            $rest
        )
    };
}

/// The source with this id, if it is within reach.
pub async fn find(conn: &mut Conn, reach: Reach, id: SourceId) -> Result<Option<Source>> {
    let row: Option<SourceRow> = on!(conn, c => sqlx::query_as(select_source!("where tenant_id = $1 and id = $2 and ($3 is null or chatbot_id = $3) and deleted_at is null"))
        .bind(reach.tenant_id).bind(id).bind(reach.chatbot_id).fetch_optional(c).await)?;
    row.map(Source::try_from).transpose()
}

/// Like [`find`]; until the transaction ends, nobody else changes the source.
pub async fn hold(write: &mut Write, reach: Reach, id: SourceId) -> Result<Option<Source>> {
    let row: Option<SourceRow> = if write.is_postgres() {
        on!(write, c => sqlx::query_as(select_source!("where tenant_id = $1 and id = $2 and ($3 is null or chatbot_id = $3) and deleted_at is null for no key update"))
            .bind(reach.tenant_id).bind(id).bind(reach.chatbot_id).fetch_optional(c).await)?
    } else {
        return find(write, reach, id).await;
    };
    row.map(Source::try_from).transpose()
}

/// Holds the rows of all of a chatbot's sources until the transaction ends. SQLite has one writer anyway.
pub async fn hold_all(write: &mut Write, tenant_id: TenantId, chatbot_id: ChatbotId) -> Result<()> {
    if write.is_postgres() {
        on!(write, c => sqlx::query("select id from source where tenant_id = $1 and chatbot_id = $2 order by id for update")
            .bind(tenant_id).bind(chatbot_id).execute(c).await.map(drop))?;
    }
    Ok(())
}

/// A page of a chatbot's sources, newest first, with one more than the page when there is a next one.
pub async fn list(
    conn: &mut Conn,
    tenant_id: TenantId,
    chatbot_id: ChatbotId,
    page: PageRequest,
) -> Result<Vec<Source>> {
    let rows: Vec<SourceRow> = on!(conn, c => sqlx::query_as(select_source!("where tenant_id = $1 and chatbot_id = $2 and id < $3 and deleted_at is null order by id desc limit $4"))
        .bind(tenant_id).bind(chatbot_id).bind(page.before).bind(page.limit + 1).fetch_all(c).await)?;
    rows.into_iter().map(Source::try_from).collect()
}

/// The ids of all of a chatbot's sources.
pub async fn list_ids(
    conn: &mut Conn,
    tenant_id: TenantId,
    chatbot_id: ChatbotId,
) -> Result<HashSet<SourceId>> {
    let ids: Vec<SourceId> = on!(conn, c => sqlx::query_scalar("select id from source where tenant_id = $1 and chatbot_id = $2 and deleted_at is null")
        .bind(tenant_id).bind(chatbot_id).fetch_all(c).await)?;
    Ok(ids.into_iter().collect())
}

pub(super) async fn count(conn: &mut Conn, tenant_id: TenantId, chatbot_id: ChatbotId) -> Result<i64> {
    Ok(
        on!(conn, c => sqlx::query_scalar("select count(*) from source where tenant_id = $1 and chatbot_id = $2 and deleted_at is null").bind(tenant_id).bind(chatbot_id).fetch_one(c).await)?,
    )
}

/// The chatbot's source that reads a website from `url` on; until the transaction ends, nobody else changes it.
pub(super) async fn find_website(
    write: &mut Write,
    tenant_id: TenantId,
    chatbot_id: ChatbotId,
    url: &Url,
) -> Result<Option<Source>> {
    let lock = write.row_lock();
    let statement = format!(
        concat!(
            select_source!(
                "where tenant_id = $1 and chatbot_id = $2 and kind = 'website' and deleted_at is null order by id "
            ),
            "{}"
        ),
        lock
    );
    let rows: Vec<SourceRow> = on!(write, c => sqlx::query_as(sqlx::AssertSqlSafe(statement)).bind(tenant_id).bind(chatbot_id).fetch_all(c).await)?;
    for row in rows {
        let source = Source::try_from(row)?;
        if source.settings.addresses().contains(&url) {
            return Ok(Some(source));
        }
    }
    Ok(None)
}

pub(super) async fn insert(write: &mut Write, source: &Source) -> Result<()> {
    let settings = Json(source.settings.to_json()?);
    on!(write, c => sqlx::query(
        "insert into source (id, tenant_id, chatbot_id, kind, name, settings, sealed, state, schedule, next_run_at, created_at, updated_at, tags, access_groups)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $11, $12, $13)",
    ).bind(source.id).bind(source.tenant_id).bind(source.chatbot_id).bind(source.kind().name()).bind(&source.name)
     .bind(settings).bind(&source.sealed).bind(source.state.name()).bind(source.schedule.as_ref().map(Json))
     .bind(source.next_run_at).bind(source.created_at).bind(source.labels.tags.as_ref().map(Json))
     .bind(source.labels.access_groups.as_ref().map(Json)).execute(c).await.map(drop))?;
    Ok(())
}

/// Stores what an owner may change.
pub(super) async fn update(write: &mut Write, source: &Source) -> Result<()> {
    let settings = Json(source.settings.to_json()?);
    on!(write, c => sqlx::query(
        "update source
            set name = $3, settings = $4, sealed = $5, schedule = $6, next_run_at = $7, updated_at = $8, tags = $9,
                access_groups = $10
          where tenant_id = $1 and id = $2",
    ).bind(source.tenant_id).bind(source.id).bind(&source.name).bind(settings).bind(&source.sealed)
     .bind(source.schedule.as_ref().map(Json)).bind(source.next_run_at).bind(source.updated_at)
     .bind(source.labels.tags.as_ref().map(Json)).bind(source.labels.access_groups.as_ref().map(Json)).execute(c).await.map(drop))?;
    Ok(())
}

/// Nobody finds the source any more, and no schedule fires.
pub(in crate::knowledge) async fn hide(
    write: &mut Write,
    tenant_id: TenantId,
    id: SourceId,
    now: DateTime<Utc>,
) -> Result<()> {
    on!(write, c => sqlx::query("update source set deleted_at = $3, next_run_at = null where tenant_id = $1 and id = $2")
        .bind(tenant_id).bind(id).bind(now).execute(c).await.map(drop))?;
    Ok(())
}

/// A hidden source beside this one, for documents of it that are being deleted.
pub(in crate::knowledge) async fn insert_hidden_beside(
    write: &mut Write,
    (tenant_id, beside): (TenantId, SourceId),
    id: SourceId,
    now: DateTime<Utc>,
) -> Result<()> {
    on!(write, c => sqlx::query(
        "insert into source (id, tenant_id, chatbot_id, kind, name, created_at, deleted_at)
         select $3, tenant_id, chatbot_id, kind, name, created_at, $4
           from source
          where tenant_id = $1
            and id = $2",
    ).bind(tenant_id).bind(beside).bind(id).bind(now).execute(c).await.map(drop))?;
    Ok(())
}

/// Holds a source that was hidden until the transaction ends; false when there is none.
pub(in crate::knowledge) async fn hold_hidden(
    write: &mut Write,
    tenant_id: TenantId,
    id: SourceId,
) -> Result<bool> {
    let lock = write.row_lock();
    let statement =
        format!("select id from source where tenant_id = $1 and id = $2 and deleted_at is not null {lock}");
    let row: Option<SourceId> = on!(write, c => sqlx::query_scalar(sqlx::AssertSqlSafe(statement)).bind(tenant_id).bind(id).fetch_optional(c).await)?;
    Ok(row.is_some())
}

/// Deletes the row, and with it what is left of it.
pub(in crate::knowledge) async fn delete(write: &mut Write, tenant_id: TenantId, id: SourceId) -> Result<()> {
    on!(write, c => sqlx::query("delete from source where tenant_id = $1 and id = $2").bind(tenant_id).bind(id).execute(c).await.map(drop))?;
    Ok(())
}
