//! The database: SQLite or PostgreSQL behind one type, always opened for one tenant or for the operator.
//!
//! A statement is written once and compiled for both engines by [`on!`](crate::on). Who the statement is for is
//! said when the connection is taken: on PostgreSQL it becomes the setting that row-level security reads, so a
//! statement that forgets its `tenant_id` still sees no other tenant's rows.

mod index_changes;
mod migrate;
mod open;
mod put;
mod reader;
mod script;
mod watch;
mod writer;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use retrieval::index::{AfterCommit, Index, IndexChange};
use sqlx::{AssertSqlSafe, PgConnection, PgPool, Postgres, SqliteConnection, Transaction};

use crate::error::{Error, Result};
use crate::id::TenantId;

use index_changes::IndexChanges;
pub use migrate::AppliedMigration;
pub use open::Limits;
use open::WAIT_LIMIT;
pub use put::Put;
use reader::SqliteRead;
pub use reader::SqliteReaders;
use writer::SqliteWrite;
pub use writer::SqliteWriter;

/// Rows in one statement that lists them: stays far below both engines' limits on bound values.
///
/// Such a statement says `coalesce(tenant_id, tenant_id) = …` of its tenant. SQLite keeps no statistics here, takes a tenant
/// for ten rows, and would rather read all that an index by tenant leads to than look up more keys than that.
pub const ROWS_AT_ONCE: usize = 500;

/// So long, a connection that proves dead is replaced by another one: a restart of the server leaves as many as rested.
const RETRY_LIMIT: Duration = Duration::from_secs(2);

/// An open database. Cheap to clone.
#[derive(Clone)]
pub enum Db {
    /// One file, one writer, many readers.
    Sqlite {
        reader: SqliteReaders,
        writer: SqliteWriter,
    },
    /// A server that several replicas share.
    Postgres(PgPool),
}

/// Where the database is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DatabaseUrl {
    Sqlite(PathBuf),
    Postgres(String),
}

/// For whom statements run.
#[derive(Clone, Copy, Debug)]
pub enum Scope {
    /// Only this tenant's rows exist.
    Tenant(TenantId),
    /// All rows: finding out who asks, and work across tenants. Stands out on purpose.
    Operator,
}

impl From<TenantId> for Scope {
    fn from(tenant_id: TenantId) -> Self {
        Self::Tenant(tenant_id)
    }
}

/// A connection for reading, scoped to one tenant or the operator.
pub struct Conn(Inner);

/// An open write transaction; rolled back unless [`Write::commit`] is called.
pub struct Write {
    conn: Conn,
    /// Of indexes in this database; carried out by the commit.
    index_changes: IndexChanges,
}

enum Inner {
    SqliteRead(SqliteRead),
    Sqlite(SqliteWrite),
    Postgres(Transaction<'static, Postgres>),
}

/// The engine's own connection, as [`on!`](crate::on) hands it to a statement.
pub enum Engine<'c> {
    Sqlite(&'c mut SqliteConnection),
    Postgres(&'c mut PgConnection),
}

impl Db {
    /// A connection for reading within `scope`.
    pub async fn read(&self, scope: impl Into<Scope>) -> Result<Conn> {
        Ok(Conn(match self {
            Self::Sqlite { reader, .. } => Inner::SqliteRead(reader.acquire().await?),
            Self::Postgres(pool) => {
                Inner::Postgres(begin_postgres(pool, "begin read only", scope.into()).await?)
            }
        }))
    }

    /// A write transaction within `scope`. On SQLite it holds the one writer: keep it short, and never across a
    /// network call.
    pub async fn write(&self, scope: impl Into<Scope>) -> Result<Write> {
        let conn = Conn(match self {
            Self::Sqlite { writer, .. } => Inner::Sqlite(writer.begin().await?),
            Self::Postgres(pool) => Inner::Postgres(begin_postgres(pool, "begin", scope.into()).await?),
        });
        Ok(Write {
            conn,
            index_changes: IndexChanges::default(),
        })
    }

    /// Whether this is PostgreSQL, for the few statements that have two texts.
    pub fn is_postgres(&self) -> bool {
        matches!(self, Self::Postgres(_))
    }

    /// Whether there is an answer to a statement, and on SQLite also a turn at the one writer.
    pub async fn check(&self) -> Result<()> {
        let mut conn = self.read(Scope::Operator).await?;
        let _: i64 =
            crate::on!(conn, c => sqlx::query_scalar("select count(*) from job_clock").fetch_one(c).await)?;
        match self {
            Self::Sqlite { writer, .. } => Ok(writer.check().await?),
            Self::Postgres(_) => Ok(()),
        }
    }

    /// Brings what SQLite's write-ahead log still says into the database and empties it: its old pages hold what was deleted
    /// since, until others are written over them. While a reader is at work it stays as it is; PostgreSQL sees to its own.
    pub async fn clear_log(&self) -> Result<()> {
        match self {
            Self::Sqlite { writer, .. } => Ok(writer.clear_log().await?),
            Self::Postgres(_) => Ok(()),
        }
    }

    /// Waits until every connection is given back and closes them.
    pub async fn close(&self) {
        match self {
            Self::Sqlite { reader, writer } => {
                reader.close().await;
                writer.close().await;
            }
            Self::Postgres(pool) => pool.close().await,
        }
    }
}

/// Opens a transaction and sets for whom it is, in one round trip.
///
/// In a task of its own: a caller who stops waiting in the midst of it would leave a connection in the pool whose
/// transaction is open, without sqlx knowing of it.
async fn begin_postgres(
    pool: &PgPool,
    begin: &'static str,
    scope: Scope,
) -> Result<Transaction<'static, Postgres>> {
    let started = Instant::now();
    loop {
        let text = match scope {
            Scope::Tenant(tenant_id) => format!("{begin}; set local frontdesk.tenant_id = '{tenant_id}'"),
            Scope::Operator => format!("{begin}; set local frontdesk.operator = 'on'"),
        };
        let pool = pool.clone();
        let begun = tokio::spawn(async move { pool.begin_with(AssertSqlSafe(text)).await });
        let Ok(begun) = tokio::time::timeout(WAIT_LIMIT, begun).await else {
            return Err(sqlx::Error::PoolTimedOut.into());
        };
        match begun.map_err(Error::internal)? {
            // A connection that rested while the server went away: the next one may be good, and nothing is done yet.
            Err(error) if is_dead(&error) && started.elapsed() < RETRY_LIMIT => {}
            begun => return Ok(begun?),
        }
    }
}

/// Whether the connection is at its end rather than the request wrong: it broke, or the server said good-bye over it.
fn is_dead(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_) => true,
        sqlx::Error::Database(error) => error.code().is_some_and(|code| code.starts_with("57P")),
        _ => false,
    }
}

impl Conn {
    /// The engine's own connection. Used through [`on!`](crate::on).
    pub async fn engine(&mut self) -> Result<Engine<'_>, sqlx::Error> {
        Ok(match &mut self.0 {
            Inner::SqliteRead(read) => Engine::Sqlite(read.connection()),
            Inner::Sqlite(write) => Engine::Sqlite(write.connection().await?),
            Inner::Postgres(transaction) => Engine::Postgres(transaction),
        })
    }

    /// Says that the statement came to its end, so that the connection is fit for the next one as it is. Called by
    /// [`on!`](crate::on).
    pub fn settle(&mut self) {
        match &mut self.0 {
            Inner::SqliteRead(read) => read.settle(),
            Inner::Sqlite(write) => write.settle(),
            Inner::Postgres(_) => {}
        }
    }

    /// Whether this is PostgreSQL, for the few statements that have two texts.
    pub fn is_postgres(&self) -> bool {
        matches!(self.0, Inner::Postgres(_))
    }
}

impl Write {
    /// A statement that has only to succeed: nobody looks at rows or counts. On SQLite it goes with what is sent next, the
    /// commit at the latest, and it is there that its error shows; see [`Put`].
    pub fn put(&mut self, statement: &'static str) -> Put<'_> {
        match &mut self.conn.0 {
            Inner::Sqlite(write) => Put::on_sqlite(write, statement),
            Inner::Postgres(transaction) => Put::on_postgres(transaction, statement),
            Inner::SqliteRead(_) => unreachable!("a write is always a transaction"),
        }
    }

    /// What a query ends with that holds the rows which it finds: nobody else writes them until the transaction ends. On
    /// SQLite there is one writer at a time anyway.
    pub fn row_lock(&self) -> &'static str {
        if self.is_postgres() {
            "for no key update"
        } else {
            ""
        }
    }

    /// Has the index of this `name`, which lies in this database, changed by the transaction as well: at its commit, behind all
    /// that it writes.
    pub fn change_index(
        &mut self,
        tenant_id: TenantId,
        (name, index): (&str, &Arc<dyn Index>),
        change: IndexChange,
    ) {
        self.index_changes.add(tenant_id, (name, index), change);
    }

    /// Makes everything written so far durable.
    pub async fn commit(self) -> Result<()> {
        match self.conn.0 {
            Inner::Sqlite(write) => write.commit().await?,
            Inner::Postgres(mut transaction) => {
                let committed = self.index_changes.carry_out(&mut transaction).await?;
                transaction.commit().await?;
                committed.into_iter().for_each(AfterCommit::tell);
            }
            Inner::SqliteRead(_) => unreachable!("a write is always a transaction"),
        }
        Ok(())
    }
}

impl std::ops::Deref for Write {
    type Target = Conn;

    fn deref(&self) -> &Conn {
        &self.conn
    }
}

impl std::ops::DerefMut for Write {
    fn deref_mut(&mut self) -> &mut Conn {
        &mut self.conn
    }
}

/// Compiles one statement for both engines: `on!(conn, c => sqlx::query("…").bind(x).execute(c).await)`.
///
/// `conn` is a [`Conn`] or a [`Write`]; `c` is the engine's own connection.
#[macro_export]
macro_rules! on {
    ($conn:expr, $c:ident => $body:expr) => {{
        let done = match $conn.engine().await {
            Ok($crate::db::Engine::Sqlite($c)) => $body,
            Ok($crate::db::Engine::Postgres($c)) => $body,
            Err(error) => Err(error),
        };
        if done.is_ok() {
            $conn.settle();
        }
        done
    }};
}
