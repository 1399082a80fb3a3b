//! The index in PostgreSQL, on the extension pgvector: for those who have a PostgreSQL and want nothing beside it. Any
//! number of processes share it.
//!
//! Where a tenant's points lie goes by their number (`docs/decisions/0013-pgvector.md`):
//! - in the table that all small tenants share, which has no index on vectors or words: a search compares each point of
//!   the tenant, so that its answer is exact whatever the filter;
//! - once there are many, in a table of the tenant's own with a graph on the vectors and an inverted index on the words, a
//!   `tsvector` of the terms of our own analysis.
//!   New points go to the shared table even so, and move over in the background.
//!
//! BM25 goes by the tenant's own statistics, which every change keeps in the same transaction.

mod delete;
mod home;
mod open;
mod own;
mod read;
mod schema;
mod search;
mod stored;
mod tenant;
mod upkeep;
mod within;
mod write;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sqlx::{AssertSqlSafe, Executor as _, PgConnection, PgPool};

pub use self::open::PgvectorOptions;
use self::own::Movers;
use self::schema::Collection;
use super::{
    AfterCommit, Candidates, ConnectionLost, Facets, Index, IndexChange, IndexError, IndexWithin, Point,
    SearchQuery, StoredPoint,
};
use crate::{BoxFuture, ChunkId, DocumentId, SourceId, TenantId};

/// How long a readiness check, or who asks for the name, waits for an answer.
const CHECK_LIMIT: Duration = Duration::from_secs(2);

/// When points move to a table of their tenant's own. The defaults are what measurements chose.
#[derive(Debug, Clone, Copy)]
pub struct PgvectorTuning {
    /// Points of a tenant without a table of its own that make it get one.
    pub own_table_from: u32,
    /// Points beside its own table that make them move there.
    pub move_from: u32,
    /// A tenant that is being filled is left alone until it rests for so long.
    pub rest: Duration,
    /// Points in its own table that get other facets where they are: each goes into the graph again. More than these leave the table,
    /// and move back later.
    pub facets_in_place: u32,
}

impl Default for PgvectorTuning {
    fn default() -> Self {
        Self {
            own_table_from: 10_000,
            move_from: 2_000,
            rest: Duration::from_secs(3),
            facets_in_place: 500,
        }
    }
}

/// An open index in PostgreSQL. Cheap to clone; all clones are one index.
#[derive(Clone)]
pub struct PgvectorIndex {
    inner: Arc<Inner>,
}

struct Inner {
    /// Runs what calls ask for, as a role that row-level security holds.
    pool: PgPool,
    collection: Collection,
    /// Names this making of the tables.
    generation: Mutex<String>,
    /// Moves points to tables of their tenants' own; alone makes and drops those.
    movers: Movers,
    /// The login is not held by row-level security, and becomes a role that is.
    bypasses_row_security: bool,
}

impl Index for PgvectorIndex {
    fn upsert(&self, tenant_id: TenantId, points: Vec<Point>) -> BoxFuture<'_, Result<(), IndexError>> {
        Box::pin(write::upsert(&self.inner, tenant_id, points))
    }

    fn delete_chunks(
        &self,
        tenant_id: TenantId,
        chunk_ids: Vec<ChunkId>,
    ) -> BoxFuture<'_, Result<(), IndexError>> {
        let ids = chunk_ids.into_iter().map(|id| id.0).collect();
        Box::pin(delete::delete(&self.inner, tenant_id, "chunk_id", ids))
    }

    fn delete_documents(
        &self,
        tenant_id: TenantId,
        document_ids: Vec<DocumentId>,
    ) -> BoxFuture<'_, Result<(), IndexError>> {
        let ids = document_ids.into_iter().map(|id| id.0).collect();
        Box::pin(delete::delete(&self.inner, tenant_id, "document_id", ids))
    }

    fn delete_sources(
        &self,
        tenant_id: TenantId,
        source_ids: Vec<SourceId>,
    ) -> BoxFuture<'_, Result<(), IndexError>> {
        let ids = source_ids.into_iter().map(|id| id.0).collect();
        Box::pin(delete::delete(&self.inner, tenant_id, "source_id", ids))
    }

    fn delete_tenant(&self, tenant_id: TenantId) -> BoxFuture<'_, Result<(), IndexError>> {
        Box::pin(delete::delete_tenant(&self.inner, tenant_id))
    }

    fn set_facets(
        &self,
        tenant_id: TenantId,
        facets: Vec<(DocumentId, Facets)>,
    ) -> BoxFuture<'_, Result<(), IndexError>> {
        Box::pin(write::set_facets(&self.inner, tenant_id, facets))
    }

    fn search(
        &self,
        tenant_id: TenantId,
        query: SearchQuery,
    ) -> BoxFuture<'_, Result<Candidates, IndexError>> {
        Box::pin(search::search(&self.inner, tenant_id, query))
    }

    fn list(
        &self,
        tenant_id: TenantId,
        after: Option<ChunkId>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<StoredPoint>, IndexError>> {
        Box::pin(read::list(&self.inner, tenant_id, after, limit))
    }

    fn count(&self, tenant_id: TenantId) -> BoxFuture<'_, Result<u64, IndexError>> {
        Box::pin(read::count(&self.inner, tenant_id))
    }

    fn check(&self) -> BoxFuture<'_, Result<(), IndexError>> {
        Box::pin(async {
            let answer = tokio::time::timeout(CHECK_LIMIT, self.inner.check()).await;
            answer.unwrap_or_else(|_| Err(unavailable("no answer in time", None)))
        })
    }

    fn remove_former(&self, at_least: Duration) -> BoxFuture<'_, Result<usize, IndexError>> {
        Box::pin(upkeep::remove_former(&self.inner, at_least))
    }

    fn generation(&self) -> Option<String> {
        Some(self.inner.generation().clone())
    }

    fn look_up_generation(&self) -> BoxFuture<'_, Result<(), IndexError>> {
        Box::pin(async {
            let found = tokio::time::timeout(CHECK_LIMIT, self.inner.find_generation()).await;
            if let Some(present) = found.unwrap_or_else(|_| Err(unavailable("no answer in time", None)))? {
                *self.inner.generation() = present;
            }
            Ok(())
        })
    }

    fn within_transactions(&self) -> Option<&dyn IndexWithin> {
        Some(self)
    }

    fn close(&self) -> BoxFuture<'_, Result<(), IndexError>> {
        Box::pin(async {
            self.inner.movers.stop().await;
            self.inner.pool.close().await;
            Ok(())
        })
    }
}

impl IndexWithin for PgvectorIndex {
    fn apply<'a>(
        &'a self,
        connection: &'a mut PgConnection,
        tenant_id: TenantId,
        changes: Vec<IndexChange>,
    ) -> BoxFuture<'a, Result<AfterCommit, IndexError>> {
        Box::pin(within::apply(&self.inner, connection, tenant_id, changes))
    }
}

impl Inner {
    fn generation(&self) -> MutexGuard<'_, String> {
        self.generation.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the tables are called by now; none: somebody forgot them.
    async fn find_generation(&self) -> Result<Option<String>, IndexError> {
        let find =
            sqlx::query_scalar("select generation::text from frontdesk_index.collection where number = $1");
        // The role that calls run as does not read this table.
        let found = find
            .bind(self.collection.number)
            .fetch_optional(self.movers.pool());
        found.await.map_err(failure)
    }

    async fn check(&self) -> Result<(), IndexError> {
        // Nothing is read: where a table is gone, the server says so.
        let collection = &self.collection;
        let text = [collection.points(), collection.terms(), collection.tenants()]
            .map(|table| format!("select from {table} where false"))
            .join(" union all ");
        self.pool.execute(AssertSqlSafe(text)).await.map_err(failure)?;
        let mut transaction = self.pool.begin().await.map_err(failure)?;
        let owners = upkeep::owners_without_table(&mut transaction, collection).await?;
        match owners.first() {
            None => Ok(()),
            Some((tenant_id, number)) => Err(IndexError::Damaged {
                reason: format!(
                    "{} is gone, the table of tenant {tenant_id}",
                    collection.own(*number)
                ),
            }),
        }
    }
}

/// What a failed statement means to the caller.
fn failure(error: sqlx::Error) -> IndexError {
    /// Classes of SQLSTATE that name something wrong with the tables, or the rights to them, rather than the moment.
    const DAMAGED: [&str; 2] = ["42", "XX"];
    let code = error.as_database_error().and_then(|error| error.code());
    match code {
        Some(code) if DAMAGED.iter().any(|class| code.starts_with(class)) => IndexError::Damaged {
            reason: error.to_string(),
        },
        _ if is_connection_lost(&error) => unavailable(
            "PostgreSQL does not answer",
            Some(ConnectionLost(error.into()).into()),
        ),
        _ => unavailable("PostgreSQL did not carry out the statement", Some(error.into())),
    }
}

/// Whether the next statement would fail as well, whatever it is.
fn is_connection_lost(error: &sqlx::Error) -> bool {
    /// Beginnings of SQLSTATE: the connection, the room for one, a server that stops.
    const LOST: [&str; 3] = ["08", "53", "57P"];
    match error {
        sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed => {
            true
        }
        error => error
            .as_database_error()
            .and_then(|error| error.code())
            .is_some_and(|code| LOST.iter().any(|start| code.starts_with(start))),
    }
}

fn unavailable(reason: &str, source: Option<crate::BoxError>) -> IndexError {
    IndexError::Unavailable {
        reason: reason.to_owned(),
        source,
    }
}
