//! Points taken out, by their chunks, documents, sources or tenant.

use pgvector::SparseVector;
use sqlx::{AssertSqlSafe, Executor as _};
use uuid::Uuid;

use super::home::{Home, TermChanges};
use super::schema::Collection;
use super::tenant::{Tenant, TenantTransaction};
use super::{Inner, failure};
use crate::TenantId;
use crate::index::IndexError;

/// Points of one statement: their words come back, to be taken off the statistics.
const POINTS_AT_ONCE: usize = 2_000;

/// Removes the tenant's points whose `column` is one of `ids`.
pub(super) async fn delete(
    inner: &Inner,
    tenant_id: TenantId,
    column: &'static str,
    ids: Vec<Uuid>,
) -> Result<(), IndexError> {
    if ids.is_empty() {
        return Ok(());
    }
    let mut transaction = TenantTransaction::write(&inner.pool, tenant_id).await?;
    delete_in(inner, &mut transaction.tenant(), column, ids).await?;
    transaction.commit().await
}

/// As [`delete`], within a transaction.
pub(super) async fn delete_in(
    inner: &Inner,
    tenant: &mut Tenant<'_>,
    column: &'static str,
    ids: Vec<Uuid>,
) -> Result<(), IndexError> {
    let Some(mut home) = Home::lock(tenant, &inner.collection).await? else {
        return Ok(());
    };
    let before = home.chunks;
    let mut terms = TermChanges::default();
    remove(tenant, &inner.collection, &mut home, column, ids, &mut terms).await?;
    if home.chunks == before {
        return Ok(());
    }
    terms.save(tenant, &inner.collection).await?;
    home.save(tenant, &inner.collection).await
}

/// As [`delete_in`], within a transaction that holds `home` and saves it and the terms.
pub(super) async fn remove(
    tenant: &mut Tenant<'_>,
    collection: &Collection,
    home: &mut Home,
    column: &'static str,
    ids: Vec<Uuid>,
    terms: &mut TermChanges,
) -> Result<(), IndexError> {
    for table in home.tables(collection) {
        let is_shared = table == collection.points();
        loop {
            let mut statement = tenant.statement(format!(
                "delete from {table}
                  where tenant_id = $1
                    and chunk_id in (select chunk_id from {table} where tenant_id = $1 and {column} = any("
            ));
            let wanted = statement.bind(ids.clone());
            statement.push(&format!("{wanted}) limit {POINTS_AT_ONCE}) returning words"));
            let removed: Vec<(SparseVector,)> = tenant.fetch(statement).await?;
            removed.iter().for_each(|(words,)| terms.remove(words));
            let count = i64::try_from(removed.len()).expect("a batch is small");
            home.chunks -= count;
            home.fresh -= if is_shared { count } else { 0 };
            if removed.len() < POINTS_AT_ONCE {
                break;
            }
        }
    }
    Ok(())
}

/// Removes all points of the tenant, with its own table.
pub(super) async fn delete_tenant(inner: &Inner, tenant_id: TenantId) -> Result<(), IndexError> {
    let collection = &inner.collection;
    // Tables are dropped by who made them.
    let mut transaction = TenantTransaction::write(inner.movers.pool(), tenant_id).await?;
    let mut tenant = transaction.tenant();
    let Some(home) = Home::lock(&mut tenant, collection).await? else {
        return Ok(());
    };
    for table in [collection.points(), collection.terms(), collection.tenants()] {
        let statement = tenant.statement(format!("delete from {table} where tenant_id = $1"));
        tenant.execute(statement).await?;
    }
    if home.owns {
        tenant
            .connection()
            .execute(AssertSqlSafe(collection.drop_own(home.number)))
            .await
            .map_err(failure)?;
    }
    transaction.commit().await
}
