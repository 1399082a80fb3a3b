//! Upkeep of all tenants' knowledge: what the index was not told, orphaned files and lost ones.

use std::collections::{HashMap, HashSet};

use crate::app::App;
use crate::db::Scope;
use crate::error::Result;
use crate::id::{DocumentId, TenantId};
use crate::{jobs, on};

use super::jobs::RemoveDocuments;
use super::labels;

/// What a document's row says when it was indexed without an embedding model.
pub(super) const NO_MODEL: &str = "none";

/// Documents that one transaction queues.
const QUEUED_AT_ONCE: i64 = 500;

/// Documents whose files are looked for at once.
const READ_AT_ONCE: i64 = 1_000;

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
    for key in list_unnamed(app, true).await? {
        tracing::info!(file = key, "removing a file that nothing names");
        app.files.remove(&key).await?;
    }
    Ok(())
}

/// The keys of old files that no row names, and that no job is about to remove. With `removes_received`, what was received half and is as
/// old goes on the way.
async fn list_unnamed(app: &App, removes_received: bool) -> Result<Vec<String>> {
    let mut old = app.files.list_old(removes_received).await?;
    if old.is_empty() {
        return Ok(old);
    }
    let removals = jobs::list_open_of_all::<RemoveDocuments>(app).await?;
    let being_removed: HashSet<String> = removals
        .into_iter()
        .flat_map(|removal| removal.file_keys)
        .collect();
    old.retain(|key| !being_removed.contains(key));
    let mut conn = app.db.read(Scope::Operator).await?;
    let named: Vec<String> =
        on!(conn, c => sqlx::query_scalar("select file_key from document").fetch_all(c).await)?;
    let named: HashSet<String> = named.into_iter().collect();
    old.retain(|key| !named.contains(key));
    Ok(old)
}

/// How files and rows compare.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct FileFindings {
    /// Documents whose file is gone. They answer from what is indexed of them.
    pub lost: Vec<(TenantId, DocumentId)>,
    /// Files of more than an hour that no row names.
    pub stray: usize,
}

/// Compares files with the rows of all tenants, or of one. With `heals`, what belongs to nothing is removed; what is lost comes back with
/// its document only.
pub async fn compare_files(app: &App, only: Option<TenantId>, heals: bool) -> Result<FileFindings> {
    let mut findings = FileFindings::default();
    let mut after = DocumentId(uuid::Uuid::nil());
    loop {
        let named = list_named(app, only, after).await?;
        let Some((_, last, _)) = named.last() else {
            break;
        };
        after = *last;
        for (tenant_id, id, key) in &named {
            if !app.files.has(key).await? && names_still(app, *tenant_id, *id, key).await? {
                findings.lost.push((*tenant_id, *id));
            }
        }
    }
    let mut unnamed = list_unnamed(app, heals).await?;
    if let Some(tenant_id) = only {
        let prefix = format!("{tenant_id}/");
        unnamed.retain(|key| key.starts_with(&prefix));
    }
    findings.stray = unnamed.len();
    if heals {
        for key in unnamed {
            app.files.remove(&key).await?;
        }
    }
    Ok(findings)
}

/// The next documents behind `after`, with the keys of their files.
async fn list_named(
    app: &App,
    only: Option<TenantId>,
    after: DocumentId,
) -> Result<Vec<(TenantId, DocumentId, String)>> {
    let mut conn = app.db.read(only.map_or(Scope::Operator, Scope::Tenant)).await?;
    Ok(on!(conn, c => sqlx::query_as(
        "select tenant_id, id, file_key
           from document
          where id > $1
            and ($2 is null or tenant_id = $2)
          order by id
          limit $3",
    ).bind(after).bind(only).bind(READ_AT_ONCE).fetch_all(c).await)?)
}

/// Whether the document has not been replaced or deleted since it was listed.
async fn names_still(app: &App, tenant_id: TenantId, id: DocumentId, key: &str) -> Result<bool> {
    let mut conn = app.db.read(tenant_id).await?;
    let present: Option<String> = on!(conn, c => sqlx::query_scalar(
        "select file_key from document where tenant_id = $1 and id = $2",
    ).bind(tenant_id).bind(id).fetch_optional(c).await)?;
    Ok(present.as_deref() == Some(key))
}
