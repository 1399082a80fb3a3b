//! The database: SQLite or PostgreSQL behind one type, always opened for one tenant or for the operator.
//!
//! A statement is written once and compiled for both engines by [`on!`](crate::on). Who the statement is for is
//! said when the connection is taken: on PostgreSQL it becomes the setting that row-level security reads, so a
//! statement that forgets its `tenant_id` still sees no other tenant's rows.

mod migrate;
mod open;
mod writer;

use std::path::PathBuf;

use sqlx::pool::PoolConnection;
use sqlx::{
    AssertSqlSafe, PgConnection, PgPool, Postgres, Sqlite, SqliteConnection, SqlitePool, Transaction,
};

use crate::error::Result;
use crate::id::TenantId;

pub use migrate::AppliedMigration;
use writer::SqliteWrite;
pub use writer::SqliteWriter;

/// An open database. Cheap to clone.
#[derive(Clone)]
pub enum Db {
    /// One file, one writer, many readers.
    Sqlite {
        reader: SqlitePool,
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
pub struct Write(Conn);

enum Inner {
    SqliteRead(PoolConnection<Sqlite>),
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
            Self::Postgres(pool) => Inner::Postgres(
                pool.begin_with(AssertSqlSafe(begin_postgres("begin read only", scope.into())))
                    .await?,
            ),
        }))
    }

    /// A write transaction within `scope`. On SQLite it holds the one writer: keep it short, and never across a
    /// network call.
    pub async fn write(&self, scope: impl Into<Scope>) -> Result<Write> {
        Ok(Write(Conn(match self {
            Self::Sqlite { writer, .. } => Inner::Sqlite(writer.begin().await?),
            Self::Postgres(pool) => Inner::Postgres(
                pool.begin_with(AssertSqlSafe(begin_postgres("begin", scope.into())))
                    .await?,
            ),
        })))
    }

    /// Whether this is PostgreSQL, for the few statements that have two texts.
    pub fn is_postgres(&self) -> bool {
        matches!(self, Self::Postgres(_))
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

/// The text that opens a transaction and sets for whom it is, in one round trip.
fn begin_postgres(begin: &str, scope: Scope) -> String {
    match scope {
        Scope::Tenant(tenant_id) => format!("{begin}; set local frontdesk.tenant_id = '{tenant_id}'"),
        Scope::Operator => format!("{begin}; set local frontdesk.operator = 'on'"),
    }
}

impl Conn {
    /// The engine's own connection. Used through [`on!`](crate::on).
    pub fn engine(&mut self) -> Engine<'_> {
        match &mut self.0 {
            Inner::SqliteRead(connection) => Engine::Sqlite(connection),
            Inner::Sqlite(write) => Engine::Sqlite(write.connection()),
            Inner::Postgres(transaction) => Engine::Postgres(transaction),
        }
    }

    /// Whether this is PostgreSQL, for the few statements that have two texts.
    pub fn is_postgres(&self) -> bool {
        matches!(self.0, Inner::Postgres(_))
    }
}

impl Write {
    /// Makes everything written so far durable.
    pub async fn commit(self) -> Result<()> {
        match self.0.0 {
            Inner::Sqlite(write) => write.commit().await?,
            Inner::Postgres(transaction) => transaction.commit().await?,
            Inner::SqliteRead(_) => unreachable!("a write is always a transaction"),
        }
        Ok(())
    }
}

impl std::ops::Deref for Write {
    type Target = Conn;

    fn deref(&self) -> &Conn {
        &self.0
    }
}

impl std::ops::DerefMut for Write {
    fn deref_mut(&mut self) -> &mut Conn {
        &mut self.0
    }
}

/// Compiles one statement for both engines: `on!(conn, c => sqlx::query("…").bind(x).execute(c).await)`.
///
/// `conn` is a [`Conn`] or a [`Write`]; `c` is the engine's own connection.
#[macro_export]
macro_rules! on {
    ($conn:expr, $c:ident => $body:expr) => {
        match $conn.engine() {
            $crate::db::Engine::Sqlite($c) => $body,
            $crate::db::Engine::Postgres($c) => $body,
        }
    };
}
