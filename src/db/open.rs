//! Opening a database: connection options, pools, the role that row-level security applies to.

use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sqlx::{ConnectOptions, Executor};

use super::watch::WatchedConnection;
use super::{DatabaseUrl, Db, SqliteReaders, SqliteWriter};
use crate::error::{Error, Result};

/// How long a statement waits for the one SQLite writer, or a request for a connection.
pub(super) const WAIT_LIMIT: Duration = Duration::from_secs(10);

/// Readers of the SQLite file, at most.
const SQLITE_READERS: u32 = 8;

/// What may be asked of a database.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections to PostgreSQL at once.
    pub connections: u32,
    /// Statements that take longer are cut off. On SQLite those count together that are sent together.
    pub statement: Duration,
}

/// So many connections, and the time for a statement that is the default.
impl From<u32> for Limits {
    fn from(connections: u32) -> Self {
        Self {
            connections,
            statement: Duration::from_secs(30),
        }
    }
}

/// The role without privileges of its own that statements run as when the login role would bypass row security.
const POSTGRES_ROLE: &str = "frontdesk_app";

impl FromStr for DatabaseUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("sqlite:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            if path.is_empty() {
                return Err("names no file: write sqlite:/path/to/frontdesk.db".to_owned());
            }
            if path == ":memory:" || path.starts_with("file:") || path.contains('?') {
                return Err(
                    "must be the path of a file, without parameters, and not in memory, where readers and writer would \
                     not share it: write sqlite:/path/to/frontdesk.db"
                        .to_owned(),
                );
            }
            return Ok(Self::Sqlite(path.into()));
        }
        if text.starts_with("postgres://") || text.starts_with("postgresql://") {
            PgConnectOptions::from_str(text).map_err(|_| {
                "is not a PostgreSQL URL: write postgres://user:password@host:5432/database".to_owned()
            })?;
            return Ok(Self::Postgres(text.to_owned()));
        }
        Err("must start with sqlite: or postgres://".to_owned())
    }
}

impl Db {
    /// Opens the database and brings its schema up to date, which takes as long as it takes. A SQLite file is created when
    /// absent.
    pub async fn open(url: &DatabaseUrl, limits: impl Into<Limits>) -> Result<Self> {
        let limits = limits.into();
        let db = match url {
            DatabaseUrl::Sqlite(path) => open_sqlite(path, limits).await?,
            DatabaseUrl::Postgres(url) => open_postgres(url, limits).await?,
        };
        Ok(db)
    }
}

async fn open_sqlite(path: &Path, limits: Limits) -> Result<Db> {
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        tokio::fs::create_dir_all(folder).await?;
    }
    let options = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Normal)
        .foreign_keys(true)
        .busy_timeout(WAIT_LIMIT)
        .statement_cache_capacity(256)
        .pragma("temp_store", "memory")
        // What is deleted is overwritten, on the pages that are given up by it, too; `Db::clear_log` does the rest.
        .pragma("secure_delete", "on")
        .disable_statement_logging();
    let mut connection = options.connect().await?;
    super::migrate::sqlite(&mut connection).await?;
    let writer = SqliteWriter::new(WatchedConnection::new(connection, limits.statement).await?);
    // A connection is a thread with a cache of its own: more of them than cores only makes all of them cold.
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let readers = u32::try_from(cores).unwrap_or(1).clamp(3, SQLITE_READERS);
    let options = options.read_only(true).create_if_missing(false);
    let reader = SqliteReaders::open(options, readers, limits.statement).await?;
    Ok(Db::Sqlite { reader, writer })
}

async fn open_postgres(url: &str, limits: Limits) -> Result<Db> {
    let options = PgConnectOptions::from_str(url)?
        .application_name("frontdesk")
        .disable_statement_logging();
    let bypasses_row_security = super::migrate::postgres(&options, POSTGRES_ROLE).await?;
    let statement_timeout = format!("{}ms", limits.statement.as_millis());
    let options = options.options([
        ("statement_timeout", statement_timeout.as_str()),
        ("idle_in_transaction_session_timeout", "60s"),
    ]);
    let pool = PgPoolOptions::new()
        .max_connections(limits.connections)
        .acquire_timeout(WAIT_LIMIT)
        .test_before_acquire(false)
        .after_connect(move |connection, _| {
            Box::pin(async move {
                if bypasses_row_security {
                    connection
                        .execute(sqlx::AssertSqlSafe(format!("set role {POSTGRES_ROLE}")))
                        .await?;
                }
                Ok(())
            })
        })
        .connect_with(options)
        .await
        .map_err(|error| Error::Unavailable {
            code: "database_unavailable",
            message: "the database does not answer".into(),
            retry_after: Duration::from_secs(5),
            source: Some(error.into()),
        })?;
    Ok(Db::Postgres(pool))
}
