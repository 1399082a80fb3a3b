//! Tables of tenants' own: made when a tenant's points are many, filled from the shared table in the background.
//!
//! Making one copies the points and builds the indexes while everything goes on, then in a moment that this tenant's
//! changes wait for takes over what changed meanwhile: one transaction, so that a crash leaves nothing half made.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{AssertSqlSafe, Executor as _, PgPool};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout};
use uuid::Uuid;

use super::home::Home;
use super::schema::{Collection, ROLE};
use super::tenant::{Tenant, TenantTransaction};
use super::{PgvectorTuning, failure};
use crate::TenantId;
use crate::index::IndexError;

/// Points that move in one transaction: their tenant's changes wait while they are put into the graph.
const MOVED_AT_ONCE: usize = 200;

/// A tenant that never rests is looked after even so.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// Whether another process came to its end with a tenant is looked at so often.
const LOOK_AGAIN_AFTER: Duration = Duration::from_secs(2);

/// After a failure a tenant waits for so long.
const TRY_AGAIN_AFTER: Duration = Duration::from_secs(30);

/// How long the end may wait for a connection that is busy.
const END_LIMIT: Duration = Duration::from_secs(2);

/// What the columns of a point are called, in both kinds of tables.
const COLUMNS: &str = "tenant_id, chunk_id, document_id, source_id, version, text_hash, published, language, tags, groups, words, vector";

/// The background work of one open index.
pub(super) struct Movers {
    /// As the login itself, which may make tables.
    pool: PgPool,
    tuning: PgvectorTuning,
    /// `None` once stopped.
    noticed: Mutex<Option<mpsc::UnboundedSender<TenantId>>>,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl Movers {
    pub(super) fn start(
        connect: PgConnectOptions,
        collection: Collection,
        tuning: PgvectorTuning,
        bypasses_row_security: bool,
    ) -> Self {
        let pool = PgPoolOptions::new()
            .max_connections(2)
            .test_before_acquire(false)
            .connect_lazy_with(connect.options([("statement_timeout", "0")]));
        let (noticed, notices) = mpsc::unbounded_channel();
        let mover = Mover {
            pool: pool.clone(),
            collection,
            tuning,
            bypasses_row_security,
        };
        Self {
            pool,
            tuning,
            noticed: Mutex::new(Some(noticed)),
            task: Mutex::new(Some(tokio::spawn(mover.run(notices)))),
        }
    }

    pub(super) fn pool(&self) -> &PgPool {
        &self.pool
    }

    pub(super) const fn tuning(&self) -> PgvectorTuning {
        self.tuning
    }

    /// Tells of a change, after which there may be something to move.
    pub(super) fn notice(&self, tenant_id: TenantId, home: &Home) {
        if is_due(home, self.tuning)
            && let Some(noticed) = &*self.noticed.lock().unwrap_or_else(PoisonError::into_inner)
        {
            // Nobody listens once the index is being closed; the next opening looks for itself.
            let _ = noticed.send(tenant_id);
        }
    }

    /// Ends the work where it is: what is not committed did not happen.
    pub(super) async fn stop(&self) {
        self.noticed.lock().unwrap_or_else(PoisonError::into_inner).take();
        let task = self.task.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(task) = task {
            task.abort();
            let _ = task.await;
        }
        let _ = timeout(END_LIMIT, self.pool.close()).await;
    }
}

fn is_due(home: &Home, tuning: PgvectorTuning) -> bool {
    let from = if home.owns {
        tuning.move_from
    } else {
        tuning.own_table_from
    };
    home.fresh >= i64::from(from)
}

struct Mover {
    pool: PgPool,
    collection: Collection,
    tuning: PgvectorTuning,
    bypasses_row_security: bool,
}

/// What came of looking after a tenant.
enum Looked {
    Done,
    /// Another process moves its points. It may not come to its end, or have looked before the last ones came.
    OthersAreAtIt,
}

/// A tenant with points to move.
struct Waiting {
    since: Instant,
    due: Instant,
}

impl Mover {
    async fn run(self, mut notices: mpsc::UnboundedReceiver<TenantId>) {
        let mut waiting: HashMap<TenantId, Waiting> = HashMap::new();
        match self.list_due().await {
            Ok(tenants) => tenants
                .into_iter()
                .for_each(|tenant_id| self.wait(&mut waiting, tenant_id)),
            Err(error) => {
                tracing::warn!(error = ?error, "cannot ask which tenants need a table of their own; their next change asks again")
            }
        }
        loop {
            let next = waiting.iter().min_by_key(|(_, waiting)| waiting.due);
            let Some((tenant_id, due)) = next.map(|(tenant_id, waiting)| (*tenant_id, waiting.due)) else {
                match notices.recv().await {
                    Some(tenant_id) => self.wait(&mut waiting, tenant_id),
                    None => return,
                }
                continue;
            };
            tokio::select! {
                noticed = notices.recv() => match noticed {
                    Some(tenant_id) => self.wait(&mut waiting, tenant_id),
                    None => return,
                },
                () = sleep_until(due) => {
                    waiting.remove(&tenant_id);
                    let pause = match self.look_after(tenant_id).await {
                        Ok(Looked::Done) => continue,
                        Ok(Looked::OthersAreAtIt) => LOOK_AGAIN_AFTER,
                        Err(error) => {
                            tracing::warn!(tenant.id = %tenant_id, error = ?error, "cannot move points to the tenant's own table: searches go on without; tried again");
                            TRY_AGAIN_AFTER
                        }
                    };
                    let due = Instant::now() + pause;
                    waiting.insert(tenant_id, Waiting { since: due, due });
                }
            }
        }
    }

    /// Has the tenant wait until it rests.
    fn wait(&self, waiting: &mut HashMap<TenantId, Waiting>, tenant_id: TenantId) {
        let now = Instant::now();
        let waiting = waiting
            .entry(tenant_id)
            .or_insert(Waiting { since: now, due: now });
        waiting.due = (now + self.tuning.rest)
            .min(waiting.since + LONGEST_WAIT)
            .max(waiting.due);
    }

    /// All tenants with points to move.
    async fn list_due(&self) -> Result<Vec<TenantId>, IndexError> {
        let mut transaction = self
            .pool
            .begin_with("begin read only; set local frontdesk_index.operator = 'on'")
            .await
            .map_err(failure)?;
        let due: Vec<Uuid> = sqlx::query_scalar(AssertSqlSafe(format!(
            "select tenant_id from {} where fresh >= case when owns then $1 else $2 end",
            self.collection.tenants()
        )))
        .bind(i64::from(self.tuning.move_from))
        .bind(i64::from(self.tuning.own_table_from))
        .fetch_all(&mut *transaction)
        .await
        .map_err(failure)?;
        Ok(due.into_iter().map(TenantId).collect())
    }

    async fn look_after(&self, tenant_id: TenantId) -> Result<Looked, IndexError> {
        loop {
            let mut transaction = TenantTransaction::write(&self.pool, tenant_id).await?;
            let mut tenant = transaction.tenant();
            if !self.try_lock(&mut tenant, tenant_id).await? {
                return Ok(Looked::OthersAreAtIt);
            }
            let Some(home) = Home::find(&mut tenant, &self.collection).await? else {
                return Ok(Looked::Done);
            };
            if home.owns {
                if !self.move_some(transaction).await? {
                    return Ok(Looked::Done);
                }
            } else if is_due(&home, self.tuning) {
                let started = Instant::now();
                self.make_table(transaction, tenant_id, home.number).await?;
                tracing::info!(tenant.id = %tenant_id, chunks = home.fresh, duration_ms = started.elapsed().as_millis() as u64, "the tenant's points have a table of their own");
            } else {
                return Ok(Looked::Done);
            }
        }
    }

    /// One process at a time does this for a tenant of a collection.
    async fn try_lock(&self, tenant: &mut Tenant<'_>, tenant_id: TenantId) -> Result<bool, IndexError> {
        let (high, low) = tenant_id.0.as_u64_pair();
        let mut statement = tenant.statement("");
        let key = statement.bind((high ^ low).cast_signed() ^ i64::from(self.collection.number));
        statement.push(&format!(
            "select pg_try_advisory_xact_lock({key}) where $1::uuid is not null"
        ));
        let locked: Vec<(bool,)> = tenant.fetch(statement).await?;
        Ok(locked.first().is_some_and(|(locked,)| *locked))
    }

    /// Moves a few points; false when none was left.
    async fn move_some(&self, mut transaction: TenantTransaction) -> Result<bool, IndexError> {
        let mut tenant = transaction.tenant();
        let Some(mut home) = Home::lock(&mut tenant, &self.collection).await? else {
            return Ok(false);
        };
        let (points, rows) = (self.collection.points(), self.collection.own_rows(home.number));
        let statement = tenant.statement(format!(
            "with moved as (
                 delete from {points}
                  where tenant_id = $1
                    and chunk_id in (select chunk_id from {points} where tenant_id = $1 limit {MOVED_AT_ONCE})
                 returning {COLUMNS}
             )
             insert into {rows} ({COLUMNS}) select {COLUMNS} from moved"
        ));
        let moved = tenant.execute(statement).await?;
        if moved == 0 {
            return Ok(false);
        }
        home.fresh -= moved.cast_signed();
        home.save(&mut tenant, &self.collection).await?;
        transaction.commit().await?;
        Ok(true)
    }

    async fn make_table(
        &self,
        mut transaction: TenantTransaction,
        tenant_id: TenantId,
        number: i64,
    ) -> Result<(), IndexError> {
        let mut tenant = transaction.tenant();
        let points = self.collection.points();
        let (view, rows) = (self.collection.own(number), self.collection.own_rows(number));
        // One statement after the other: each sees what the ones before it made.
        for text in self.making(tenant_id, number) {
            tenant
                .connection()
                .execute(AssertSqlSafe(text))
                .await
                .map_err(failure)?;
        }
        let Some(mut home) = Home::lock(&mut tenant, &self.collection).await? else {
            // Deleted meanwhile; so is the table, with the transaction.
            return Ok(());
        };
        if home.number != number || home.owns {
            // Deleted and begun again: this table is not the one that it is going to have.
            return Ok(());
        }
        let outdated = tenant.statement(format!(
            "delete from {rows} as own
              where own.tenant_id = $1
                and not exists (select from {points} as point
                                 where point.tenant_id = $1
                                   and point.chunk_id = own.chunk_id
                                   and point.version = own.version)"
        ));
        tenant.execute(outdated).await?;
        let moved = tenant.statement(format!(
            "delete from {points} as point using {rows} as own
              where point.tenant_id = $1
                and point.chunk_id = own.chunk_id
                and point.version = own.version"
        ));
        home.fresh -= tenant.execute(moved).await?.cast_signed();
        home.owns = true;
        home.save(&mut tenant, &self.collection).await?;
        tracing::debug!(table = view, "made");
        transaction.commit().await
    }

    /// The statements that make the tenant's table and copy its points.
    ///
    /// Row-level security would keep the inverted index from being used, as the operators that it serves may tell of rows by
    /// their errors. The wall is a view instead, which is empty unless its tenant is set, and a table beneath it that holds
    /// no other tenant's rows.
    fn making(&self, tenant_id: TenantId, number: i64) -> Vec<String> {
        let points = self.collection.points();
        let (view, rows) = (self.collection.own(number), self.collection.own_rows(number));
        let stem = self.collection.own_stem(number);
        let layout = &self.collection.layout;
        let mut statements = vec![
            format!("set local maintenance_work_mem = '{}MB'", layout.build_memory_mb),
            format!(
                "create table {rows} (
                     like {points},
                     check (tenant_id = '{tenant_id}')
                 ) with (toast_tuple_target = 8160)"
            ),
            format!(
                "insert into {rows} ({COLUMNS}) select {COLUMNS} from {points} where tenant_id = '{tenant_id}'"
            ),
            format!("alter table {rows} add primary key (chunk_id)"),
            format!("create index {stem}_document on {rows} (tenant_id, document_id)"),
            format!("create index {stem}_source on {rows} (tenant_id, source_id)"),
            self.collection.index_of_lexemes(number),
        ];
        if layout.dimension.is_some() {
            let operators = if layout.halfvec {
                "halfvec_ip_ops"
            } else {
                "vector_ip_ops"
            };
            let (m, ef_construction) = (layout.m, layout.ef_construction);
            statements.push(format!(
                "create index {stem}_vector on {rows} using hnsw (vector {operators}) with (m = {m}, ef_construction = {ef_construction})"
            ));
        }
        statements.push(format!("analyze {rows}"));
        statements.push(format!(
            "create view {view} as select * from {rows}
              where current_setting('frontdesk_index.tenant_id', true) = '{tenant_id}'"
        ));
        if self.bypasses_row_security {
            statements.push(format!(
                "grant select, insert, update, delete on {view} to {ROLE}"
            ));
        }
        statements
    }
}
