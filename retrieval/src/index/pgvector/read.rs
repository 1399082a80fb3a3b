//! Points counted and listed.

use sqlx::FromRow;
use uuid::Uuid;

use super::Inner;
use super::home::Home;
use super::tenant::TenantTransaction;
use crate::index::point::fingerprint;
use crate::index::{Facets, IndexError, StoredPoint};
use crate::{ChunkId, DocumentId, SourceId, TenantId};

#[derive(FromRow)]
struct ListedRow {
    chunk_id: Uuid,
    document_id: Uuid,
    source_id: Uuid,
    text_hash: i64,
    published: Option<i64>,
    language: Option<String>,
    tags: Vec<String>,
    groups: Vec<String>,
    has_vector: bool,
}

pub(super) async fn list(
    inner: &Inner,
    tenant_id: TenantId,
    after: Option<ChunkId>,
    limit: usize,
) -> Result<Vec<StoredPoint>, IndexError> {
    let mut transaction = TenantTransaction::read(&inner.pool, tenant_id).await?;
    let mut tenant = transaction.tenant();
    let Some(home) = Home::find(&mut tenant, &inner.collection).await? else {
        return Ok(Vec::new());
    };
    let mut statement = tenant.statement("");
    let limit = statement.bind(i64::try_from(limit).unwrap_or(i64::MAX));
    let after = after.map(|chunk_id| statement.bind(chunk_id.0));
    let beyond = after
        .map(|after| format!("and chunk_id > {after}"))
        .unwrap_or_default();
    let parts: Vec<String> = home
        .tables(&inner.collection)
        .iter()
        .map(|table| {
            format!(
                "(select chunk_id, document_id, source_id, text_hash, published, language, tags, groups, vector is not null as has_vector
                    from {table}
                   where tenant_id = $1 {beyond}
                   order by chunk_id
                   limit {limit})"
            )
        })
        .collect();
    statement.push(&format!(
        "select * from ({}) as listed order by chunk_id limit {limit}",
        parts.join(" union all ")
    ));
    let rows: Vec<ListedRow> = tenant.fetch(statement).await?;
    Ok(rows.into_iter().map(StoredPoint::from).collect())
}

pub(super) async fn count(inner: &Inner, tenant_id: TenantId) -> Result<u64, IndexError> {
    let mut transaction = TenantTransaction::read(&inner.pool, tenant_id).await?;
    let mut tenant = transaction.tenant();
    let Some(home) = Home::find(&mut tenant, &inner.collection).await? else {
        return Ok(0);
    };
    let mut total = 0;
    for table in home.tables(&inner.collection) {
        let statement = tenant.statement(format!("select count(*) from {table} where tenant_id = $1"));
        let counted: Vec<(i64,)> = tenant.fetch(statement).await?;
        total += counted.iter().map(|(count,)| count.unsigned_abs()).sum::<u64>();
    }
    Ok(total)
}

impl From<ListedRow> for StoredPoint {
    fn from(row: ListedRow) -> Self {
        let facets = Facets {
            language: row.language,
            tags: row.tags,
            date: row.published,
            groups: row.groups,
        };
        Self {
            chunk_id: ChunkId(row.chunk_id),
            document_id: DocumentId(row.document_id),
            source_id: SourceId(row.source_id),
            fingerprint: fingerprint(row.text_hash.cast_unsigned(), &facets, row.has_vector),
        }
    }
}
