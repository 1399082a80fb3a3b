//! SQL of what is known of a Drive's files.

use std::collections::HashMap;

use ingest::loader::drive::{Node, TreeChanges};
use sqlx::types::Json;
use sqlx::{FromRow, QueryBuilder};

use crate::db::{Conn, ROWS_AT_ONCE, Write};
use crate::error::Result;
use crate::id::{SourceId, TenantId};
use crate::knowledge::sync::items::Place;
use crate::on;

/// One file of a source.
#[derive(Clone, Copy)]
pub(super) struct FilePlace<'a> {
    pub tenant_id: TenantId,
    pub source_id: SourceId,
    pub file_id: &'a str,
}

/// What was read of a file.
pub(super) struct KnownItem {
    pub state: String,
    pub read_version: Option<String>,
    pub reader_version: Option<i64>,
    pub has_document: bool,
    /// Why the document could not be indexed, and what it was read with.
    pub failed: Option<(String, Option<String>)>,
}

/// Why a version of a file cannot be read.
#[derive(FromRow)]
pub(super) struct Refusal {
    pub version: String,
    pub code: String,
    pub message: String,
}

pub(super) async fn list_nodes(
    conn: &mut Conn,
    tenant_id: TenantId,
    source_id: SourceId,
) -> Result<Vec<Node>> {
    let nodes: Vec<Json<Node>> = on!(conn, c => sqlx::query_scalar("select node from drive_node where tenant_id = $1 and source_id = $2")
        .bind(tenant_id).bind(source_id).fetch_all(c).await)?;
    Ok(nodes.into_iter().map(|node| node.0).collect())
}

pub(super) async fn store_nodes(write: &mut Write, place: Place, changes: &TreeChanges) -> Result<()> {
    for group in changes.put.chunks(ROWS_AT_ONCE) {
        on!(write, c => {
            let mut insert = QueryBuilder::new("insert into drive_node (source_id, file_id, tenant_id, node) ");
            insert.push_values(group, |mut row, node| {
                row.push_bind(place.source_id).push_bind(&node.id).push_bind(place.tenant_id).push_bind(Json(node));
            });
            insert.push(" on conflict (source_id, file_id) do update set node = excluded.node");
            insert.build().execute(c).await.map(drop)
        })?;
    }
    for group in changes.removed.chunks(ROWS_AT_ONCE) {
        on!(write, c => {
            let mut delete = QueryBuilder::new("delete from drive_node where coalesce(tenant_id, tenant_id) = ");
            delete.push_bind(place.tenant_id).push(" and source_id = ").push_bind(place.source_id).push(" and file_id in (");
            let mut list = delete.separated(", ");
            group.iter().for_each(|id| {
                list.push_bind(id);
            });
            delete.push(")");
            delete.build().execute(c).await.map(drop)
        })?;
    }
    Ok(())
}

/// What was read of these files, by their keys.
pub(super) async fn list_items(
    conn: &mut Conn,
    tenant_id: TenantId,
    source_id: SourceId,
    keys: &[&str],
) -> Result<HashMap<String, KnownItem>> {
    #[derive(FromRow)]
    struct Row {
        item_key: String,
        state: String,
        read_version: Option<String>,
        reader_version: Option<i64>,
        has_document: bool,
        error_code: Option<String>,
        read_with: Option<String>,
    }
    let mut items = HashMap::with_capacity(keys.len());
    for group in keys.chunks(ROWS_AT_ONCE) {
        let rows: Vec<Row> = on!(conn, c => {
            let mut query = QueryBuilder::new(
                "select i.item_key, i.state, i.read_version, i.reader_version, d.id is not null as has_document,
                        case when d.state = 'failed' then coalesce(d.error_code, '') end as error_code, d.read_with
                   from source_item i
                   left join document d on d.id = i.document_id and d.tenant_id = i.tenant_id
                  where coalesce(i.tenant_id, i.tenant_id) = ",
            );
            query.push_bind(tenant_id).push(" and i.source_id = ").push_bind(source_id).push(" and i.item_key in (");
            let mut list = query.separated(", ");
            group.iter().for_each(|key| {
                list.push_bind(*key);
            });
            query.push(")");
            query.build_query_as().fetch_all(c).await
        })?;
        items.extend(rows.into_iter().map(|row| {
            let item = KnownItem {
                state: row.state,
                read_version: row.read_version,
                reader_version: row.reader_version,
                has_document: row.has_document,
                failed: row.error_code.map(|code| (code, row.read_with)),
            };
            (row.item_key, item)
        }));
    }
    Ok(items)
}

/// The keys of all files that are not known to be gone.
pub(super) async fn list_present(
    conn: &mut Conn,
    tenant_id: TenantId,
    source_id: SourceId,
) -> Result<Vec<String>> {
    Ok(on!(conn, c => sqlx::query_scalar(
        "select item_key
           from source_item
          where tenant_id = $1
            and source_id = $2
            and (state <> 'gone' or document_id is not null)",
    ).bind(tenant_id).bind(source_id).fetch_all(c).await)?)
}

pub(super) async fn find_refusal(conn: &mut Conn, place: FilePlace<'_>) -> Result<Option<Refusal>> {
    Ok(on!(conn, c => sqlx::query_as(
        "select refused_version as version, refused_code as code, refused_message as message
           from drive_node
          where tenant_id = $1
            and source_id = $2
            and file_id = $3
            and refused_version is not null",
    ).bind(place.tenant_id).bind(place.source_id).bind(place.file_id).fetch_optional(c).await)?)
}

/// Forgets why files could not be read: all are tried again.
pub(super) async fn forget_refusals(write: &mut Write, place: Place) -> Result<()> {
    on!(write, c => sqlx::query(
        "update drive_node
            set refused_version = null
          where tenant_id = $1
            and source_id = $2
            and refused_version is not null",
    ).bind(place.tenant_id).bind(place.source_id).execute(c).await.map(drop))?;
    Ok(())
}

pub(super) async fn put_refusal(write: &mut Write, place: FilePlace<'_>, refusal: &Refusal) -> Result<()> {
    on!(write, c => sqlx::query(
        "update drive_node
            set refused_version = $4, refused_code = $5, refused_message = $6
          where tenant_id = $1
            and source_id = $2
            and file_id = $3",
    ).bind(place.tenant_id).bind(place.source_id).bind(place.file_id).bind(&refusal.version).bind(&refusal.code)
     .bind(&refusal.message).execute(c).await.map(drop))?;
    Ok(())
}
