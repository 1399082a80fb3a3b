//! Connections that read a SQLite file.
//!
//! The driver's own pool asks a connection whether it is well each time it comes back, which costs as much as a small
//! statement. Here only those are asked that come back in doubt: after an error, or from the middle of a statement.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sqlx::ConnectOptions as _;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::open::WAIT_LIMIT;
use super::watch::WatchedConnection;

/// The readers. Clones share them.
#[derive(Clone)]
pub struct SqliteReaders(Arc<Readers>);

struct Readers {
    options: SqliteConnectOptions,
    statement_limit: Duration,
    at_most: u32,
    places: Arc<Semaphore>,
    /// The one that came back last is taken first: its cache is the warmest.
    idle: Mutex<Vec<WatchedConnection>>,
}

/// A connection that goes back when it is dropped.
pub(super) struct SqliteRead {
    readers: SqliteReaders,
    /// None while it is given back.
    connection: Option<WatchedConnection>,
    place: Option<OwnedSemaphorePermit>,
    is_in_doubt: bool,
}

impl SqliteReaders {
    /// At most `at_most` connections, of which the first is opened now, and on which no statement takes longer than
    /// `statement_limit`.
    pub(super) async fn open(
        options: SqliteConnectOptions,
        at_most: u32,
        statement_limit: Duration,
    ) -> Result<Self, sqlx::Error> {
        let first = WatchedConnection::new(options.connect().await?, statement_limit).await?;
        Ok(Self(Arc::new(Readers {
            options,
            statement_limit,
            at_most,
            places: Arc::new(Semaphore::new(at_most as usize)),
            idle: Mutex::new(vec![first]),
        })))
    }

    pub(super) async fn acquire(&self) -> Result<SqliteRead, sqlx::Error> {
        let place = match self.0.places.clone().try_acquire_owned() {
            Ok(place) => place,
            Err(_) => tokio::time::timeout(WAIT_LIMIT, self.0.places.clone().acquire_owned())
                .await
                .map_err(|_| sqlx::Error::PoolTimedOut)?
                .map_err(|_| sqlx::Error::PoolClosed)?,
        };
        let idle = self.idle().pop();
        let connection = match idle {
            Some(connection) => connection,
            None => WatchedConnection::new(self.0.options.connect().await?, self.0.statement_limit).await?,
        };
        Ok(SqliteRead {
            readers: self.clone(),
            connection: Some(connection),
            place: Some(place),
            is_in_doubt: false,
        })
    }

    /// Waits until every connection is given back and closes them.
    pub(super) async fn close(&self) {
        let all = self.0.places.acquire_many(self.0.at_most).await;
        self.0.places.close();
        drop(all);
        let connections = std::mem::take(&mut *self.idle());
        for connection in connections {
            if let Err(error) = connection.close().await {
                tracing::warn!(error = ?error, "cannot close a reader of the database in order");
            }
        }
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<WatchedConnection>> {
        // A list is whole whatever happened to who held it.
        self.0.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SqliteRead {
    /// The connection, in doubt until [`SqliteRead::settle`] says that its statement came to its end.
    pub(super) fn connection(&mut self) -> &mut SqliteConnection {
        self.is_in_doubt = true;
        self.connection
            .as_mut()
            .expect("given back when it is dropped only")
            .begin()
    }

    pub(super) fn settle(&mut self) {
        self.is_in_doubt = false;
    }
}

impl Drop for SqliteRead {
    fn drop(&mut self) {
        let Some(mut connection) = self.connection.take() else {
            return;
        };
        if !self.is_in_doubt {
            self.readers.idle().push(connection);
            return;
        }
        let (readers, place) = (self.readers.clone(), self.place.take());
        // Without a runtime nobody reads any more.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                if connection.come_to_rest().await.is_ok() {
                    readers.idle().push(connection);
                }
                drop(place);
            });
        }
    }
}

#[cfg(test)]
mod tests {

    use super::*;

    /// Far more than any statement of these tests takes that ends by itself.
    const LIMIT: Duration = Duration::from_secs(60);

    /// A statement that does not end by itself.
    const ENDLESS: &str = "with recursive counted (n) as (select 1 union all select n + 1 from counted) select count(*) from counted";

    async fn readers(at_most: u32) -> (SqliteReaders, tempfile::TempDir) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let options = SqliteConnectOptions::new()
            .filename(folder.path().join("test.db"))
            .create_if_missing(true);
        let readers = SqliteReaders::open(options, at_most, LIMIT)
            .await
            .expect("the file opens");
        (readers, folder)
    }

    async fn read(read: &mut SqliteRead, statement: &'static str) -> Result<i64, sqlx::Error> {
        let answer = sqlx::query_scalar(statement).fetch_one(read.connection()).await;
        if answer.is_ok() {
            read.settle();
        }
        answer
    }

    #[tokio::test]
    async fn one_who_finds_all_places_taken_waits_for_the_first_that_is_given_back() {
        let (readers, _folder) = readers(1).await;
        let first = readers.acquire().await.expect("a place");
        let waiting = {
            let readers = readers.clone();
            tokio::spawn(async move { read(&mut readers.acquire().await?, "select 2").await })
        };
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());

        drop(first);

        assert_eq!(waiting.await.expect("no panic").expect("read"), 2);
    }

    #[tokio::test]
    async fn a_statement_that_fails_or_is_left_spoils_nothing_for_the_next_one() {
        let (readers, _folder) = readers(1).await;
        let mut failing = readers.acquire().await.expect("a place");
        assert!(read(&mut failing, "select no_such_column").await.is_err());
        drop(failing);
        let mut left = readers.acquire().await.expect("a place");
        let endless = "with recursive counted (n) as (select 1 union all select n + 1 from counted where n < 300000) select n from counted";
        let many = sqlx::query_scalar::<_, i64>(endless).fetch_all(left.connection());
        let cut_off = tokio::time::timeout(Duration::from_millis(5), many).await;
        assert!(cut_off.is_err(), "it was still at it");
        drop(left);

        let mut next = readers.acquire().await.expect("a place");

        assert_eq!(read(&mut next, "select 3").await.expect("read"), 3);
    }

    #[tokio::test]
    async fn a_statement_whose_reader_left_gives_its_place_to_the_next_one_long_before_its_time() {
        let (readers, _folder) = readers(1).await;
        let mut left = readers.acquire().await.expect("a place");
        let cut_off = tokio::time::timeout(Duration::from_millis(50), read(&mut left, ENDLESS)).await;
        assert!(cut_off.is_err(), "it is endless");

        drop(left);

        let mut next = readers.acquire().await.expect("a place");
        assert_eq!(read(&mut next, "select 4").await.expect("read"), 4);
    }

    #[tokio::test]
    async fn closing_waits_for_those_who_read_and_refuses_newcomers() {
        let (readers, _folder) = readers(2).await;
        let mut reading = readers.acquire().await.expect("a place");
        let closing = {
            let readers = readers.clone();
            tokio::spawn(async move { readers.close().await })
        };
        tokio::task::yield_now().await;

        assert_eq!(read(&mut reading, "select 1").await.expect("read"), 1);
        drop(reading);
        closing.await.expect("closed");

        assert!(matches!(readers.acquire().await, Err(sqlx::Error::PoolClosed)));
    }
}
