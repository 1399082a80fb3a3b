//! Schema changes, forward only, one folder per engine with the same file names.

use std::str::FromStr as _;
use std::sync::LazyLock;

use sqlx::migrate::Migrator;
use sqlx::postgres::PgConnectOptions;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Executor, FromRow, SqliteConnection};

use super::{DatabaseUrl, Db};
use crate::error::{Error, Result};

static SQLITE: Migrator = sqlx::migrate!("migrations/sqlite");

/// Changes that a later release made are left: a release that is taken back starts on what is there.
static POSTGRES: LazyLock<Migrator> = LazyLock::new(|| {
    let mut migrator = sqlx::migrate!("migrations/postgres");
    migrator.set_ignore_missing(true);
    migrator
});

/// Brings a SQLite file up to date.
pub(super) async fn sqlite(connection: &mut SqliteConnection) -> Result<()> {
    SQLITE.run(connection).await.map_err(Error::internal)
}

/// Brings a PostgreSQL database up to date. True when the login role would bypass row security (a superuser, say):
/// statements must then run as `role`, which is created here and granted exactly the tables' rows.
pub(super) async fn postgres(options: &PgConnectOptions, role: &str) -> Result<bool> {
    let mut connection = options.connect().await?;
    POSTGRES.run(&mut connection).await.map_err(Error::internal)?;
    let bypasses: bool =
        sqlx::query_scalar("select rolsuper or rolbypassrls from pg_roles where rolname = current_user")
            .fetch_one(&mut connection)
            .await?;
    if bypasses {
        // Roles belong to the whole cluster, so another database's migration may create it at the same moment.
        let create = format!(
            "do $$ begin
                 if not exists (select from pg_roles where rolname = '{role}') then create role {role} nologin; end if;
             exception when duplicate_object or unique_violation then null;
             end $$;
             grant usage on schema public to {role};
             grant select, insert, update, delete on all tables in schema public to {role};"
        );
        connection.execute(AssertSqlSafe(create)).await?;
    }
    connection.close().await?;
    Ok(bypasses)
}

/// A schema change that a database has had.
#[derive(Clone, Debug, PartialEq, Eq, FromRow)]
pub struct AppliedMigration {
    pub version: i64,
    pub description: String,
}

impl Db {
    /// The schema changes that the database has had, in order, without making any. None when it does not exist yet.
    pub async fn applied_migrations(url: &DatabaseUrl) -> Result<Vec<AppliedMigration>> {
        const APPLIED: &str =
            "select version, description from _sqlx_migrations where success order by version";
        match url {
            DatabaseUrl::Sqlite(path) => {
                if !path.exists() {
                    return Ok(Vec::new());
                }
                let mut connection = SqliteConnectOptions::new()
                    .filename(path)
                    .disable_statement_logging()
                    .connect()
                    .await?;
                let known: i64 =
                    sqlx::query_scalar("select count(*) from sqlite_master where name = '_sqlx_migrations'")
                        .fetch_one(&mut connection)
                        .await?;
                let applied = if known == 0 {
                    Vec::new()
                } else {
                    sqlx::query_as(APPLIED).fetch_all(&mut connection).await?
                };
                connection.close().await?;
                Ok(applied)
            }
            DatabaseUrl::Postgres(url) => {
                let mut connection = PgConnectOptions::from_str(url)?
                    .disable_statement_logging()
                    .connect()
                    .await?;
                let known: bool = sqlx::query_scalar("select to_regclass('_sqlx_migrations') is not null")
                    .fetch_one(&mut connection)
                    .await?;
                let applied = if known {
                    sqlx::query_as(APPLIED).fetch_all(&mut connection).await?
                } else {
                    Vec::new()
                };
                connection.close().await?;
                Ok(applied)
            }
        }
    }
}
