//! Fresh databases to test on: SQLite always, PostgreSQL where a server is given.

use std::sync::atomic::{AtomicU32, Ordering};

use frontdesk::db::{DatabaseUrl, Db};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection, SqliteConnection};
use tempfile::TempDir;

/// Names a PostgreSQL server whose login may create databases. `scripts/with-postgres` sets it.
const SERVER_VARIABLE: &str = "FRONTDESK_TEST_POSTGRES_URL";

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

/// Creates an empty database and returns its address.
pub async fn create_postgres_database(server: &str) -> String {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let name = format!(
        "test_{}_{}",
        std::process::id(),
        NUMBER.fetch_add(1, Ordering::Relaxed)
    );
    let mut connection = PgConnection::connect(server)
        .await
        .expect("the test server answers");
    connection
        .execute(AssertSqlSafe(format!("drop database if exists {name}")))
        .await
        .expect("an old database can be dropped");
    connection
        .execute(AssertSqlSafe(format!("create database {name}")))
        .await
        .expect("a database can be created");
    connection.close().await.expect("the connection closes");
    let mut url = url::Url::parse(server).expect("the server's address is a URL");
    url.set_path(&name);
    url.into()
}
