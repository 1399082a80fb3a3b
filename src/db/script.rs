//! Statements that are sent to SQLite together.
//!
//! A SQLite connection is a thread, and waking it and being woken costs more than most statements. Statements whose
//! answers nobody looks at are therefore collected, and go with the next one that is waited for: one text, prepared once,
//! with one list of values. The driver runs it statement by statement and stops at the first that fails.

use sqlx::encode::Encode;
use sqlx::sqlite::{Sqlite, SqliteArguments, SqliteConnection};
use sqlx::types::Type;
use sqlx::{Arguments as _, AssertSqlSafe, Executor as _};

/// Statements in one script, at most: longer ones are no more use, and would be prepared in many lengths.
const STATEMENTS_AT_MOST: usize = 16;

const SEPARATOR: &str = ";\n";

/// Statements that wait to be sent.
#[derive(Default)]
pub(super) struct Script {
    text: String,
    values: SqliteArguments,
    statements: usize,
    /// The first value that could not be encoded.
    failed: Option<sqlx::error::BoxDynError>,
}

impl Script {
    pub(super) fn is_empty(&self) -> bool {
        self.statements == 0
    }

    pub(super) fn is_full(&self) -> bool {
        self.statements >= STATEMENTS_AT_MOST
    }

    /// Adds a statement without values.
    pub(super) fn push(&mut self, statement: &'static str) {
        self.push_numbered(statement, 0);
    }

    /// Adds a statement without values before all others.
    pub(super) fn put_first(&mut self, statement: &'static str) {
        if !self.is_empty() {
            self.text.insert_str(0, SEPARATOR);
        }
        self.text.insert_str(0, statement);
        self.statements += 1;
    }

    /// Adds a statement whose values are to follow: its `$1` is the first of them.
    pub(super) fn push_with_values(&mut self, statement: &'static str) {
        self.push_numbered(statement, self.values.len());
    }

    fn push_numbered(&mut self, statement: &str, before: usize) {
        if self.statements > 0 {
            self.text.push_str(SEPARATOR);
        }
        self.statements += 1;
        if before == 0 {
            self.text.push_str(statement);
            return;
        }
        let mut parts = statement.split('$');
        self.text.push_str(parts.next().unwrap_or_default());
        for part in parts {
            let digits = part.len() - part.trim_start_matches(|c: char| c.is_ascii_digit()).len();
            let (number, rest) = part.split_at(digits);
            self.text.push('$');
            match number.parse::<usize>() {
                Ok(number) => self.text.push_str(&(before + number).to_string()),
                Err(_) => self.text.push_str(number),
            }
            self.text.push_str(rest);
        }
    }

    /// Adds a value of the statement that was pushed last.
    pub(super) fn bind<'t>(&mut self, value: impl Encode<'t, Sqlite> + Type<Sqlite>) {
        if let Err(error) = self.values.add(value) {
            self.failed.get_or_insert(error);
        }
    }

    /// Sends everything and waits until all of it is done, or one statement has failed.
    pub(super) async fn run(self, connection: &mut SqliteConnection) -> Result<(), sqlx::Error> {
        if let Some(error) = self.failed {
            return Err(sqlx::Error::Encode(error));
        }
        // The text is made of constants of this program; values are bound.
        let query = sqlx::query_with(AssertSqlSafe(self.text), self.values);
        connection.execute(query).await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use sqlx::Connection as _;

    use super::*;

    async fn table() -> SqliteConnection {
        let mut connection = SqliteConnection::connect("sqlite::memory:")
            .await
            .expect("a database");
        connection
            .execute("create table line (number integer unique, text text)")
            .await
            .expect("a table");
        connection
    }

    async fn lines(connection: &mut SqliteConnection) -> Vec<(i64, String)> {
        sqlx::query_as("select number, text from line order by number")
            .fetch_all(connection)
            .await
            .expect("lines")
    }

    fn insert(script: &mut Script, number: i64, text: &str) {
        script.push_with_values("insert into line (number, text) values ($1, $2 || '!' || $2)");
        script.bind(number);
        script.bind(text);
    }

    #[tokio::test]
    async fn every_statement_runs_with_its_own_values_as_often_as_the_script_is_sent() {
        let mut connection = table().await;

        for round in [0, 10] {
            let mut script = Script::default();
            insert(&mut script, round + 1, "one");
            insert(&mut script, round + 2, "two");
            script.put_first("begin immediate");
            script.push("commit");
            script.run(&mut connection).await.expect("all of it runs");
        }

        let expected = [(1, "one!one"), (2, "two!two"), (11, "one!one"), (12, "two!two")];
        assert_eq!(
            lines(&mut connection).await,
            expected.map(|(number, text)| (number, text.to_owned()))
        );
    }

    #[tokio::test]
    async fn a_statement_that_fails_ends_the_script_and_is_its_error() {
        let mut connection = table().await;
        let mut script = Script::default();
        insert(&mut script, 1, "one");
        insert(&mut script, 1, "again");
        insert(&mut script, 2, "two");

        let error = script
            .run(&mut connection)
            .await
            .expect_err("the number is taken");

        assert!(
            matches!(&error, sqlx::Error::Database(error) if error.is_unique_violation()),
            "{error}"
        );
        assert_eq!(lines(&mut connection).await, [(1, "one!one".to_owned())]);
    }
}
