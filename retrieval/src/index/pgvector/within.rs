//! Changes as a part of somebody else's transaction: they hold, and are seen, with whatever else it changes or not at all.

use std::sync::Arc;

use sqlx::PgConnection;
use uuid::Uuid;

use super::Inner;
use super::delete::delete_in;
use super::home::Home;
use super::open::Layout;
use super::stored::{Prepared, prepare};
use super::tenant::{Before, Tenant};
use super::write::{set_facets_in, upsert_in};
use crate::index::{AfterCommit, Facets, IndexChange, IndexError};
use crate::{DocumentId, TenantId};

/// A change as the tables take it.
enum TableChange {
    Upsert(Prepared),
    /// The points whose column has one of these ids.
    Delete(&'static str, Vec<Uuid>),
    SetFacets(Vec<(DocumentId, Facets)>),
}

impl TableChange {
    /// Checks points and reads their texts.
    fn new(layout: &Layout, change: IndexChange) -> Result<Self, IndexError> {
        Ok(match change {
            IndexChange::Upsert(points) => Self::Upsert(prepare(layout, points)?),
            IndexChange::DeleteChunks(ids) => {
                Self::Delete("chunk_id", ids.into_iter().map(|id| id.0).collect())
            }
            IndexChange::DeleteDocuments(ids) => {
                Self::Delete("document_id", ids.into_iter().map(|id| id.0).collect())
            }
            IndexChange::DeleteSources(ids) => {
                Self::Delete("source_id", ids.into_iter().map(|id| id.0).collect())
            }
            IndexChange::SetFacets(facets) => Self::SetFacets(facets),
        })
    }
}

/// Carries out `changes`, one after the other, in the transaction that `connection` has open.
pub(super) async fn apply(
    inner: &Arc<Inner>,
    connection: &mut PgConnection,
    tenant_id: TenantId,
    changes: Vec<IndexChange>,
) -> Result<AfterCommit, IndexError> {
    // Before the first statement: from then on this tenant's other changes wait.
    let changes = changes
        .into_iter()
        .map(|change| TableChange::new(&inner.collection.layout, change))
        .collect::<Result<Vec<TableChange>, IndexError>>()?;
    let before = Before::enter(connection, tenant_id, inner.bypasses_row_security).await?;
    let home = carry_out(inner, &mut Tenant::of(connection, tenant_id), changes).await?;
    before.restore(connection).await?;
    let inner = Arc::clone(inner);
    Ok(AfterCommit::new(move || {
        if let Some(home) = home {
            inner.movers.notice(tenant_id, &home);
        }
    }))
}

/// Where the tenant's points lie then, as far as it may have changed.
async fn carry_out(
    inner: &Inner,
    tenant: &mut Tenant<'_>,
    changes: Vec<TableChange>,
) -> Result<Option<Home>, IndexError> {
    let mut home = None;
    for change in changes {
        match change {
            TableChange::Upsert(points) => home = Some(upsert_in(inner, tenant, points).await?),
            TableChange::Delete(column, ids) => delete_in(inner, tenant, column, ids).await?,
            TableChange::SetFacets(facets) => {
                if let Some(lifted) = set_facets_in(inner, tenant, facets).await? {
                    home = Some(lifted);
                }
            }
        }
    }
    Ok(home)
}
