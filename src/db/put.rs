//! One statement that has only to succeed, for both engines.

use sqlx::encode::Encode;
use sqlx::postgres::{PgArguments, PgConnection, Postgres};
use sqlx::query::Query;
use sqlx::sqlite::Sqlite;
use sqlx::types::Type;

use super::writer::SqliteWrite;
use crate::error::Result;

/// A statement whose values are being bound; it is nothing until [`Put::run`].
///
/// PostgreSQL runs it there and then. On SQLite it waits for company: its error, a missing reference or a key that is
/// taken, is that of a later statement of the transaction or of the commit. Whoever tells errors apart by their kind
/// does so there too.
#[must_use = "a statement that is not run changes nothing"]
pub struct Put<'w>(On<'w>);

enum On<'w> {
    Sqlite(&'w mut SqliteWrite),
    Postgres(&'w mut PgConnection, Query<'static, Postgres, PgArguments>),
}

impl<'w> Put<'w> {
    pub(super) fn on_sqlite(write: &'w mut SqliteWrite, statement: &'static str) -> Self {
        write.script().push_with_values(statement);
        Self(On::Sqlite(write))
    }

    pub(super) fn on_postgres(connection: &'w mut PgConnection, statement: &'static str) -> Self {
        Self(On::Postgres(connection, sqlx::query(statement)))
    }

    /// The next value: `$1`, then `$2`.
    pub fn bind<'t, T>(self, value: T) -> Self
    where
        T: Encode<'t, Sqlite> + Type<Sqlite> + Encode<'t, Postgres> + Type<Postgres>,
    {
        Self(match self.0 {
            On::Sqlite(write) => {
                write.script().bind(value);
                On::Sqlite(write)
            }
            On::Postgres(connection, query) => On::Postgres(connection, query.bind(value)),
        })
    }

    /// Runs the statement, at the latest with the commit.
    pub async fn run(self) -> Result<()> {
        match self.0 {
            On::Sqlite(write) => {
                if write.script().is_full() {
                    write.send().await?;
                }
            }
            On::Postgres(connection, query) => {
                query.execute(connection).await?;
            }
        }
        Ok(())
    }
}
