//! SQL of embeddings that were made before.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use sqlx::{FromRow, QueryBuilder};

use crate::db::{Conn, ROWS_AT_ONCE, Write};
use crate::error::Result;
use crate::id::TenantId;
use crate::on;

/// Rows of one statement: seven values each, which both engines take.
const INSERTED_AT_ONCE: usize = 64;

/// What a row takes beside its vector, with its places in indexes.
const ROW_BYTES: usize = 512;

/// A kept embedding.
#[derive(Debug, FromRow)]
pub(super) struct KeptRow {
    text_hash: String,
    pub(super) vector: Vec<u8>,
    pub(super) used_at: DateTime<Utc>,
}

/// By which a row is found.
#[derive(Clone, Debug, PartialEq, Eq, FromRow)]
pub(super) struct Key {
    pub(super) tenant_id: TenantId,
    pub(super) text_hash: String,
    pub(super) space: String,
}

/// Those of `hashes` that are kept, by hash.
pub(super) async fn find(
    conn: &mut Conn,
    tenant_id: TenantId,
    space: &str,
    hashes: &[String],
) -> Result<HashMap<String, KeptRow>> {
    let mut found = HashMap::new();
    for group in hashes.chunks(ROWS_AT_ONCE) {
        let rows: Vec<KeptRow> = on!(conn, c => {
            let mut query = QueryBuilder::new("select text_hash, vector, used_at from embedding_cache where tenant_id = ");
            query.push_bind(tenant_id).push(" and space = ").push_bind(space).push(" and text_hash in (");
            let mut list = query.separated(", ");
            group.iter().for_each(|hash| {
                list.push_bind(hash);
            });
            query.push(")");
            query.build_query_as().fetch_all(c).await
        })?;
        found.extend(rows.into_iter().map(|row| (row.text_hash.clone(), row)));
    }
    Ok(found)
}

/// Keeps vectors by the hashes of their texts; what somebody else kept meanwhile stays. How many bytes that are.
pub(super) async fn insert(
    write: &mut Write,
    tenant_id: TenantId,
    space: &str,
    vectors: &[(&str, Vec<u8>)],
    now: DateTime<Utc>,
) -> Result<i64> {
    let mut added = 0;
    for group in vectors.chunks(INSERTED_AT_ONCE) {
        let is_of_common_length = group.len() == INSERTED_AT_ONCE;
        on!(write, c => {
            let mut insert = QueryBuilder::new(
                "insert into embedding_cache (tenant_id, text_hash, space, vector, size_bytes, kept_at, used_at) ",
            );
            insert.push_values(group, |mut row, (hash, vector)| {
                row.push_bind(tenant_id).push_bind(*hash).push_bind(space).push_bind(vector).push_bind(size(vector))
                    .push_bind(now).push_bind(now);
            });
            insert.push(" on conflict do nothing");
            insert.build().persistent(is_of_common_length).execute(c).await.map(drop)
        })?;
        added += group.iter().map(|(_, vector)| size(vector)).sum::<i64>();
    }
    Ok(added)
}

fn size(vector: &[u8]) -> i64 {
    i64::try_from(vector.len() + ROW_BYTES).unwrap_or(i64::MAX)
}

/// Notes that these were used.
pub(super) async fn note_use(
    write: &mut Write,
    tenant_id: TenantId,
    space: &str,
    hashes: &[String],
    now: DateTime<Utc>,
) -> Result<()> {
    for group in hashes.chunks(ROWS_AT_ONCE) {
        on!(write, c => {
            let mut query = QueryBuilder::new("update embedding_cache set used_at = ");
            query.push_bind(now).push(" where tenant_id = ").push_bind(tenant_id)
                .push(" and space = ").push_bind(space).push(" and text_hash in (");
            let mut list = query.separated(", ");
            group.iter().for_each(|hash| {
                list.push_bind(hash);
            });
            query.push(")");
            query.build().execute(c).await.map(drop)
        })?;
    }
    Ok(())
}

/// What all tenants' rows take together.
pub(super) async fn total_bytes(conn: &mut Conn) -> Result<i64> {
    Ok(
        on!(conn, c => sqlx::query_scalar("select cast(coalesce(sum(size_bytes), 0) as bigint) from embedding_cache")
        .fetch_one(c).await)?,
    )
}

/// What each tenant's rows take.
pub(super) async fn bytes_by_tenant(conn: &mut Conn) -> Result<Vec<(TenantId, i64)>> {
    Ok(on!(conn, c => sqlx::query_as(
        "select tenant_id, cast(sum(size_bytes) as bigint)
           from embedding_cache
          group by tenant_id",
    ).fetch_all(c).await)?)
}

/// The tenant's rows that were used longest ago, each with what it takes.
pub(super) async fn list_least_used(
    conn: &mut Conn,
    tenant_id: TenantId,
    limit: i64,
) -> Result<Vec<(Key, i64)>> {
    let rows: Vec<(String, String, i64)> = on!(conn, c => sqlx::query_as(
        "select text_hash, space, size_bytes
           from embedding_cache
          where tenant_id = $1
          order by used_at
          limit $2",
    ).bind(tenant_id).bind(limit).fetch_all(c).await)?;
    let keyed = rows.into_iter().map(|(text_hash, space, size)| {
        let key = Key {
            tenant_id,
            text_hash,
            space,
        };
        (key, size)
    });
    Ok(keyed.collect())
}

/// All tenants' rows behind `after`, and whether each was kept before `before` of a text that no chunk has.
pub(super) async fn list_with_owners(
    conn: &mut Conn,
    after: Option<&Key>,
    before: DateTime<Utc>,
    limit: i64,
) -> Result<Vec<(Key, bool)>> {
    let rows: Vec<(TenantId, String, String, bool)> = on!(conn, c => {
        let mut query = QueryBuilder::new("select e.tenant_id, e.text_hash, e.space, e.kept_at < ");
        query.push_bind(before).push(
            " and not exists (select 1 from chunk c where c.tenant_id = e.tenant_id and c.content_hash = e.text_hash) as is_orphan
               from embedding_cache e",
        );
        if let Some(after) = after {
            query.push(" where (e.tenant_id, e.text_hash, e.space) > (").push_bind(after.tenant_id).push(", ")
                .push_bind(&after.text_hash).push(", ").push_bind(&after.space).push(")");
        }
        query.push(" order by e.tenant_id, e.text_hash, e.space limit ").push_bind(limit);
        query.build_query_as().fetch_all(c).await
    })?;
    let keyed = rows.into_iter().map(|(tenant_id, text_hash, space, is_orphan)| {
        let key = Key {
            tenant_id,
            text_hash,
            space,
        };
        (key, is_orphan)
    });
    Ok(keyed.collect())
}

/// Forgets rows of any tenants.
pub(super) async fn delete(write: &mut Write, keys: &[Key]) -> Result<()> {
    for key in keys {
        write
            .put("delete from embedding_cache where tenant_id = $1 and text_hash = $2 and space = $3")
            .bind(key.tenant_id)
            .bind(key.text_hash.as_str())
            .bind(key.space.as_str())
            .run()
            .await?;
    }
    Ok(())
}
