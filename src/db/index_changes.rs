//! Changes of indexes that lie in this very database: the last part of the transaction whose rows they belong to.
//!
//! An index locks a tenant's points as a whole. Whoever has that lock commits next, and asks for no row that somebody might
//! hold who waits for the lock.

use std::collections::BTreeMap;
use std::sync::Arc;

use retrieval::index::{AfterCommit, ConnectionLost, Index, IndexChange, IndexError};
use sqlx::PgConnection;

use crate::error::{Error, Result};
use crate::id::TenantId;

/// What is to be changed, of each tenant and index in the same order for all transactions.
#[derive(Default)]
pub(super) struct IndexChanges(BTreeMap<(TenantId, String), OfIndex>);

struct OfIndex {
    index: Arc<dyn Index>,
    changes: Vec<IndexChange>,
}

impl IndexChanges {
    /// `name` tells the index from others.
    pub(super) fn add(
        &mut self,
        tenant_id: TenantId,
        (name, index): (&str, &Arc<dyn Index>),
        change: IndexChange,
    ) {
        let of_index = self.0.entry((tenant_id, name.to_owned()));
        let of_index = of_index.or_insert_with(|| OfIndex {
            index: Arc::clone(index),
            changes: Vec::new(),
        });
        of_index.changes.push(change);
    }

    /// Carries all out, as the last before the commit; after it, those that are returned are told.
    pub(super) async fn carry_out(self, connection: &mut PgConnection) -> Result<Vec<AfterCommit>> {
        let mut committed = Vec::with_capacity(self.0.len());
        for ((tenant_id, name), OfIndex { index, changes }) in self.0 {
            let within = index
                .within_transactions()
                .ok_or_else(|| Error::internal(format!("the index {name:?} is no part of transactions")))?;
            let done = within.apply(connection, retrieval::TenantId(tenant_id.0), changes);
            committed.push(done.await.map_err(as_of_this_database)?);
        }
        Ok(committed)
    }
}

/// What failed in the index failed in the transaction.
fn as_of_this_database(error: IndexError) -> Error {
    let source = match error {
        IndexError::Unavailable {
            source: Some(source), ..
        } => source,
        error => return Error::from(error),
    };
    let source = match source.downcast::<ConnectionLost>() {
        Ok(lost) => lost.0,
        Err(source) => source,
    };
    match source.downcast::<sqlx::Error>() {
        Ok(error) => Error::Database(*error),
        Err(source) => Error::internal(source),
    }
}
