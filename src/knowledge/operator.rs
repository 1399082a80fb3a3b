//! Upkeep of all tenants' knowledge: indexing again after a change of the embedding model or the loss of the index, and
//! orphaned files.

use std::collections::{HashMap, HashSet};

use crate::app::App;
use crate::db::Scope;
use crate::error::Result;
use crate::id::{DocumentId, TenantId};
use crate::jobs::Priority;
use crate::on;

use super::{indexing, labels};

/// What a document's row says when it was indexed without an embedding model.
pub(super) const NO_MODEL: &str = "none";

/// What a document's row says when the index that held it is lost. No model is called so.
const LOST_MODEL: &str = "(lost)";

/// Documents that one transaction queues.
const QUEUED_AT_ONCE: i64 = 500;

/// Finds out whether the index is the one that the documents were put into. If not, it was lost, and all of them count as
/// never embedded: then [`queue_stale_documents`] takes them all.
pub async fn notice_lost_index(app: &App) -> Result<()> {
    let Some(generation) = app.index.generation() else {
        return Ok(());
    };
    let mut write = app.db.write(Scope::Operator).await?;
    let known: Option<String> = on!(write, c => sqlx::query_scalar("select generation from index_generation where id = 1").fetch_optional(c).await)?;
    if known.as_ref() == Some(&generation) {
        return Ok(());
    }
    on!(write, c => sqlx::query(
        "insert into index_generation (id, generation) values (1, $1) on conflict (id) do update set generation = excluded.generation",
    ).bind(&generation).execute(c).await.map(drop))?;
    let lost: Vec<DocumentId> = on!(write, c => sqlx::query_scalar(
        "update document
            set embedding_model = $1
          where embedding_model is not null
         returning id",
    ).bind(LOST_MODEL).fetch_all(c).await)?;
    // What is staged was in the lost index as well.
    on!(write, c => sqlx::query("delete from staged_chunk").execute(c).await.map(drop))?;
    write.commit().await?;
    if !lost.is_empty() {
        tracing::warn!(
            documents = lost.len(),
            "the search index is not the one that these documents were put into: it is filled again, and until then some are not found"
        );
    }
    Ok(())
}

/// Queues all documents whose indexed version was made with another embedding model than the present one. A document
/// whose newer version failed is one of them: its old version is not found any more, and what failed it may be gone. One
/// that fails again is tried at the next start.
pub async fn queue_stale_documents(app: &App) -> Result<()> {
    let model = app.embedding_model().unwrap_or(NO_MODEL).to_owned();
    let mut total = 0;
    loop {
        let mut write = app.db.write(Scope::Operator).await?;
        let stale: Vec<(TenantId, DocumentId, String)> = on!(write, c => sqlx::query_as(
            "update document
                set state = 'queued'
              where id in (select id from document where state in ('indexed', 'failed') and embedding_model <> $1 limit $2)
                and state in ('indexed', 'failed')
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
            "documents that this model did not embed into this index are indexed again"
        );
    }
    Ok(())
}

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
