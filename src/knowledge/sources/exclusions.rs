//! Pages and files whose documents were deleted by hand: runs leave them out until the exclusion is lifted, whatever they
//! say by then, and leave out the words that were deleted, whatever address shows them.

use chrono::{DateTime, Utc};
use serde_json::json;
use sqlx::{FromRow, QueryBuilder};

use super::{SourceKind, find, hold, record};
use crate::app::App;
use crate::db::{Conn, ROWS_AT_ONCE, Write};
use crate::error::{Error, Result};
use crate::http::access::{Actor, Reach};
use crate::http::input::PageRequest;
use crate::id::{ExclusionId, SourceId, TenantId};
use crate::knowledge::Document;
use crate::on;
use crate::tenancy::audit::Origin;

/// One page or file that is left out.
#[derive(Clone, Debug, FromRow)]
pub(super) struct Exclusion {
    pub id: ExclusionId,
    #[sqlx(rename = "item_key")]
    pub external_id: String,
    pub url: Option<String>,
    pub title: String,
    pub created_at: DateTime<Utc>,
}

/// Keeps runs from bringing back a document that is deleted in the same transaction. Uploads and what programs push come
/// back when somebody brings them.
pub(in crate::knowledge) async fn exclude(
    write: &mut Write,
    tenant_id: TenantId,
    document: &Document,
    now: DateTime<Utc>,
) -> Result<()> {
    let (source_id, key) = (document.source_id, &document.external_id);
    let kind: Option<String> = on!(write, c => sqlx::query_scalar("select kind from source where tenant_id = $1 and id = $2")
        .bind(tenant_id).bind(source_id).fetch_optional(c).await)?;
    if !kind
        .and_then(|kind| SourceKind::parse(&kind))
        .is_some_and(SourceKind::is_synced)
    {
        return Ok(());
    }
    on!(write, c => sqlx::query(
        "insert into source_exclusion (id, tenant_id, source_id, item_key, url, title, created_at, content_hash)
         values ($1, $2, $3, $4, $5, $6, $7, $8)
         on conflict (source_id, item_key) do nothing",
    ).bind(ExclusionId::new()).bind(tenant_id).bind(source_id).bind(key).bind(&document.url).bind(&document.title).bind(now)
     .bind(&document.content_hash).execute(c).await.map(drop))?;
    forget_item(write, tenant_id, source_id, key).await
}

/// Which of these texts were deleted by hand.
pub(in crate::knowledge) async fn list_texts(
    conn: &mut Conn,
    tenant_id: TenantId,
    source_id: SourceId,
    texts: &[&str],
) -> Result<Vec<String>> {
    let mut excluded = Vec::new();
    for group in texts.chunks(ROWS_AT_ONCE) {
        let found: Vec<String> = on!(conn, c => {
            let mut query = QueryBuilder::new("select content_hash from source_exclusion where coalesce(tenant_id, tenant_id) = ");
            query.push_bind(tenant_id).push(" and source_id = ").push_bind(source_id).push(" and content_hash in (");
            let mut list = query.separated(", ");
            group.iter().for_each(|text| {
                list.push_bind(*text);
            });
            query.push(")");
            query.build_query_scalar().fetch_all(c).await
        })?;
        excluded.extend(found);
    }
    Ok(excluded)
}

/// Whether a source leaves anything out.
pub(in crate::knowledge) async fn are_any(
    conn: &mut Conn,
    tenant_id: TenantId,
    source_id: SourceId,
) -> Result<bool> {
    let first: Option<ExclusionId> = on!(conn, c => sqlx::query_scalar(
        "select id from source_exclusion where tenant_id = $1 and source_id = $2 limit 1",
    ).bind(tenant_id).bind(source_id).fetch_optional(c).await)?;
    Ok(first.is_some())
}

/// A page of what a source leaves out, newest first, with one more than the page when there is a next one.
pub(super) async fn list(
    app: &App,
    reach: Reach,
    source_id: SourceId,
    page: PageRequest,
) -> Result<Vec<Exclusion>> {
    let mut conn = app.db.read(reach.tenant_id).await?;
    find(&mut conn, reach, source_id).await?;
    Ok(on!(conn, c => sqlx::query_as(
        "select id, item_key, url, title, created_at
           from source_exclusion
          where tenant_id = $1
            and source_id = $2
            and id < $3
          order by id desc
          limit $4",
    ).bind(reach.tenant_id).bind(source_id).bind(page.before).bind(page.limit + 1).fetch_all(c).await)?)
}

/// Lifts an exclusion: the next run reads the page or file as if it were new.
pub(super) async fn lift(
    app: &App,
    reach: Reach,
    (source_id, id): (SourceId, ExclusionId),
    actor: &Actor,
    origin: &Origin,
) -> Result<()> {
    let tenant_id = reach.tenant_id;
    let mut write = app.db.write(tenant_id).await?;
    let source = hold(&mut write, reach, source_id).await?;
    let key: Option<String> = on!(write, c => sqlx::query_scalar(
        "delete from source_exclusion where tenant_id = $1 and source_id = $2 and id = $3 returning item_key",
    ).bind(tenant_id).bind(source_id).bind(id).fetch_optional(c).await)?;
    let key = key.ok_or(Error::NotFound("exclusion"))?;
    forget_item(&mut write, tenant_id, source_id, &key).await?;
    let before = Some(json!({ "external_id": key }));
    record(
        app,
        &mut write,
        &source,
        "source.include",
        (before, None),
        actor,
        origin,
    )
    .await?;
    write.commit().await
}

/// What was known of a page or file is no reason not to read it.
async fn forget_item(write: &mut Write, tenant_id: TenantId, source_id: SourceId, key: &str) -> Result<()> {
    on!(write, c => sqlx::query(
        "update source_item
            set known_as = null, etag = null, last_modified = null, read_version = null, body_hash = null, text_hash = null
          where tenant_id = $1
            and source_id = $2
            and item_key = $3",
    ).bind(tenant_id).bind(source_id).bind(key).execute(c).await.map(drop))?;
    Ok(())
}
