//! Schema changes, forward only, one folder per engine with the same file names.

use sqlx::migrate::Migrator;
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Executor, SqlitePool};

use crate::error::{Error, Result};

static SQLITE: Migrator = sqlx::migrate!("migrations/sqlite");
static POSTGRES: Migrator = sqlx::migrate!("migrations/postgres");

/// Brings a SQLite file up to date.
pub(super) async fn sqlite(pool: &SqlitePool) -> Result<()> {
    SQLITE.run(pool).await.map_err(Error::internal)
}

/// Brings a PostgreSQL database up to date. True when the login role would bypass row security (a superuser, say):
/// statements must then run as `role`, which is created here and granted exactly the tables' rows.
pub(super) async fn postgres(options: &PgConnectOptions, role: &str) -> Result<bool> {
    let mut connection = options.connect().await?;
    POSTGRES.run(&mut connection).await.map_err(Error::internal)?;
    let bypasses: bool = sqlx::query_scalar("select rolsuper or rolbypassrls from pg_roles where rolname = current_user")
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
