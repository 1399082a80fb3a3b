//! Upkeep of all tenants' knowledge: what the index was not told, and orphaned files.

use std::collections::{HashMap, HashSet};

use crate::app::App;
use crate::db::Scope;
use crate::error::Result;
use crate::id::{DocumentId, TenantId};
use crate::on;

use super::labels;

/// What a document's row says when it was indexed without an embedding model.
pub(super) const NO_MODEL: &str = "none";

/// Documents that one transaction queues.
const QUEUED_AT_ONCE: i64 = 500;

/// Queues that the index is told of documents of which it was not told since they were indexed.
pub async fn queue_untold_documents(app: &App) -> Result<()> {
    let mut after = DocumentId(uuid::Uuid::nil());
    loop {
        let mut write = app.db.write(Scope::Operator).await?;
        let untold: Vec<(TenantId, DocumentId)> = on!(write, c => sqlx::query_as(
            "select tenant_id, id
               from document
              where state = 'indexed'
                and facets_told is null
                and id > $1
              order by id
              limit $2",
        ).bind(after).bind(QUEUED_AT_ONCE).fetch_all(c).await)?;
        let Some((_, last)) = untold.last() else {
            return Ok(());
        };
        after = *last;
        let mut untold_of: HashMap<TenantId, Vec<DocumentId>> = HashMap::new();
        for (tenant_id, document_id) in untold {
            untold_of.entry(tenant_id).or_default().push(document_id);
        }
        for (tenant_id, ids) in untold_of {
            labels::tell_later(app, &mut write, tenant_id, &ids).await?;
        }
        write.commit().await?;
    }
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
