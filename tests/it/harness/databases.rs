//! Fresh databases to test on: SQLite always, PostgreSQL where a server is given.

use std::sync::atomic::{AtomicI32, Ordering};

use frontdesk::db::{DatabaseUrl, Db};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection, SqliteConnection};
use tempfile::TempDir;
use tokio::sync::OnceCell;

/// Names a PostgreSQL server whose login may create databases. `scripts/with-postgres` sets it.
const SERVER_VARIABLE: &str = "FRONTDESK_TEST_POSTGRES_URL";

/// Begins the names of databases of tests; the numbers of their process and of the database in it follow.
const PREFIX: &str = "frontdesk_test_";

/// Connections of one test's pool; tests run side by side.
const CONNECTIONS: u32 = 5;

/// A database of its own for one test.
pub struct TestDatabase {
    pub db: Db,
    /// For messages of failed assertions.
    pub engine: &'static str,
    _dir: Option<TempDir>,
}

/// One fresh database for each engine there is.
pub async fn databases() -> Vec<TestDatabase> {
    let dir = TempDir::new().expect("a temporary folder");
    let url = DatabaseUrl::Sqlite(dir.path().join("test.db"));
    let mut databases = vec![TestDatabase {
        db: Db::open(&url, CONNECTIONS).await.expect("SQLite opens"),
        engine: "SQLite",
        _dir: Some(dir),
    }];
    if let Some(server) = postgres_server() {
        let url = DatabaseUrl::Postgres(create_postgres_database(&server).await);
        databases.push(TestDatabase {
            db: Db::open(&url, CONNECTIONS).await.expect("PostgreSQL opens"),
            engine: "PostgreSQL",
            _dir: None,
        });
    }
    databases
}

/// The server to create databases on, if there is one.
#[expect(
    clippy::disallowed_methods,
    reason = "how the tests' own script tells where the server is"
)]
pub fn postgres_server() -> Option<String> {
    std::env::var(SERVER_VARIABLE).ok().filter(|url| !url.is_empty())
}

/// Carries out statements as the database's owner, which the service is not.
pub async fn run_as_owner(url: &DatabaseUrl, statements: &str) {
    let statements = AssertSqlSafe(statements.to_owned());
    match url {
        DatabaseUrl::Postgres(url) => {
            let mut connection = PgConnection::connect(url).await.expect("the database answers");
            connection
                .execute(sqlx::raw_sql(statements))
                .await
                .expect("carried out");
            connection.close().await.expect("the connection closes");
        }
        DatabaseUrl::Sqlite(path) => {
            let options = SqliteConnectOptions::new()
                .filename(path)
                .busy_timeout(std::time::Duration::from_secs(30));
            let mut connection = SqliteConnection::connect_with(&options)
                .await
                .expect("the file opens");
            connection
                .execute(sqlx::raw_sql(statements))
                .await
                .expect("carried out");
            connection.close().await.expect("the connection closes");
        }
    }
}

/// Creates an empty database, which is dropped by who comes next once this process has ended, and returns its address.
pub async fn create_postgres_database(server: &str) -> String {
    static NUMBER: AtomicI32 = AtomicI32::new(0);
    static IS_ALIVE: OnceCell<()> = OnceCell::const_new();
    let process = i64::from(std::process::id());
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let mut connection = PgConnection::connect(server)
        .await
        .expect("the test server answers");
    drop_abandoned(&mut connection).await;
    IS_ALIVE.get_or_init(|| say_alive(server, process)).await;
    let name = format!("{PREFIX}{process}_{number}");
    for statement in ["drop database if exists", "create database"] {
        connection
            .execute(AssertSqlSafe(format!("{statement} {name}")))
            .await
            .expect("a database can be created");
    }
    connection.close().await.expect("the connection closes");
    let mut url = url::Url::parse(server).expect("the server's address is a URL");
    url.set_path(&name);
    url.into()
}

/// Takes the lock which says that somebody needs the databases of this process, until it ends.
async fn say_alive(server: &str, process: i64) {
    let mut connection = PgConnection::connect(server)
        .await
        .expect("the test server answers");
    sqlx::query("select pg_advisory_lock($1)")
        .bind(process)
        .execute(&mut connection)
        .await
        .expect("a lock");
    std::mem::forget(connection);
}

/// Drops the databases of processes that have ended: those of all tests together take gigabytes.
async fn drop_abandoned(connection: &mut PgConnection) {
    let names: Vec<String> =
        sqlx::query_scalar("select datname from pg_database where datname ~ ('^' || $1 || '[0-9]+_[0-9]+$')")
            .bind(PREFIX)
            .fetch_all(&mut *connection)
            .await
            .expect("databases");
    for name in names {
        let (process, _) = name[PREFIX.len()..].split_once('_').expect("two numbers");
        let process: i64 = process.parse().expect("a number");
        let is_abandoned: bool = sqlx::query_scalar("select pg_try_advisory_lock($1)")
            .bind(process)
            .fetch_one(&mut *connection)
            .await
            .expect("a lock");
        if is_abandoned {
            // Services that a test killed may still be connected.
            connection
                .execute(AssertSqlSafe(format!(
                    "drop database if exists {name} with (force)"
                )))
                .await
                .expect("dropped");
            sqlx::query("select pg_advisory_unlock($1)")
                .bind(process)
                .execute(&mut *connection)
                .await
                .expect("unlocked");
        }
    }
}
