//! Upkeep of all tenants' knowledge: re-indexing after a change of the embedding model, and orphaned files.

use std::collections::{HashMap, HashSet};

use crate::app::App;
use crate::db::Scope;
use crate::error::Result;
use crate::id::{DocumentId, TenantId};
use crate::jobs::Priority;
use crate::on;

use super::indexing;

/// What a document's row says when it was indexed without an embedding model.
pub(super) const NO_MODEL: &str = "none";

/// Documents that one transaction queues.
const QUEUED_AT_ONCE: i64 = 500;

/// Queues all documents whose indexed version was made with another embedding model than the present one.
pub async fn queue_stale_documents(app: &App) -> Result<()> {
    let model = app.embedding_model().unwrap_or(NO_MODEL).to_owned();
    let mut total = 0;
    loop {
        let mut write = app.db.write(Scope::Operator).await?;
        let stale: Vec<(TenantId, DocumentId, String)> = on!(write, c => sqlx::query_as(
            "update document
                set state = 'queued'
              where id in (select id from document where state = 'indexed' and embedding_model <> $1 limit $2)
                and state = 'indexed'
             returning tenant_id, id, file_key",
        ).bind(&model).bind(QUEUED_AT_ONCE).fetch_all(c).await)?;
        if stale.is_empty() {
            break;
        }
        total += stale.len();
        let mut stale_of: HashMap<TenantId, Vec<(DocumentId, String)>> = HashMap::new();
        for (tenant_id, document_id, file_key) in stale {
            stale_of
                .entry(tenant_id)
                .or_default()
                .push((document_id, file_key));
        }
        for (tenant_id, documents) in stale_of {
            indexing::enqueue(app, &mut write, tenant_id, &documents, Priority::Bulk).await?;
        }
        write.commit().await?;
    }
    if total > 0 {
        tracing::info!(
            documents = total,
            model,
            "the embedding model has changed: documents are indexed again"
        );
    }
    Ok(())
}

/// Removes files that no row names: left by requests that died between storing a file and naming it.
pub async fn sweep(app: &App) -> Result<()> {
    let old = app.files.list_old().await?;
    if old.is_empty() {
        return Ok(());
    }
    let mut conn = app.db.read(Scope::Operator).await?;
    let named: Vec<String> =
        on!(conn, c => sqlx::query_scalar("select file_key from document").fetch_all(c).await)?;
    drop(conn);
    let named: HashSet<String> = named.into_iter().collect();
    for key in old.into_iter().filter(|key| !named.contains(key)) {
        tracing::info!(file = key, "removing a file that nothing names");
        app.files.remove(&key).await?;
    }
    Ok(())
}
