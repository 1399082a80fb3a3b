//! The one writer of a SQLite file, which commits transactions together that wait for each other.
//!
//! The end of a small transaction costs more than its statements: pages go to the log, readers lose what they have
//! cached. So a transaction that ends while others wait is only closed, as a savepoint, and hands the connection on; the
//! last one commits for all. Nobody is told that a write is done before that commit, and a transaction that fails or is
//! dropped takes back nothing but its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use sqlx::{Connection as _, Executor as _, SqliteConnection};
use tokio::sync::{Mutex, OwnedMutexGuard, oneshot};

use super::open::WAIT_LIMIT;
use crate::error::{Error, Result};

/// Transactions in one commit, at most.
const MEMBERS_AT_MOST: usize = 64;

/// From this age on a group takes nobody in: its members wait for the commit, and so do other processes.
const GROUP_AGE: Duration = Duration::from_millis(5);

/// How long a caller whose commit was lost waits before it tries again.
const LOST_RETRY: Duration = Duration::from_secs(1);

const BEGIN: &str = "begin immediate; savepoint member";
const CLOSE_AND_GO_ON: &str = "release member; savepoint member";
const TAKE_BACK: &str = "rollback to member";

/// The writer. Clones share it.
#[derive(Clone)]
pub struct SqliteWriter {
    session: Arc<Mutex<Session>>,
    /// Transactions that wait to begin.
    waiting: Arc<AtomicUsize>,
}

/// The connection, and what was written over it since the last commit.
struct Session {
    /// None once closed.
    connection: Option<SqliteConnection>,
    group: Option<Group>,
}

/// Transactions that are committed together. A savepoint for the next one is always open.
struct Group {
    began: Instant,
    /// Whom to tell how the commit went.
    members: Vec<oneshot::Sender<Committed>>,
}

/// Whether the common commit went well. What went wrong is known to the one who made it, and in the log.
type Committed = std::result::Result<(), ()>;

/// An open transaction; rolled back unless [`SqliteWrite::commit`] is called.
pub(super) struct SqliteWrite {
    writer: SqliteWriter,
    /// None once it has ended.
    session: Option<OwnedMutexGuard<Session>>,
}

/// How a transaction ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ending {
    Kept,
    TakenBack,
}

impl SqliteWriter {
    pub(super) fn new(connection: SqliteConnection) -> Self {
        let session = Session {
            connection: Some(connection),
            group: None,
        };
        Self {
            session: Arc::new(Mutex::new(session)),
            waiting: Arc::default(),
        }
    }

    /// Waits for its turn and opens a transaction.
    pub(super) async fn begin(&self) -> Result<SqliteWrite> {
        let place = Place::take(self);
        let turn = tokio::time::timeout(WAIT_LIMIT, self.session.clone().lock_owned()).await;
        let session = turn.map_err(|_| sqlx::Error::PoolTimedOut)?;
        place.give_up();
        // From here on whoever drops this, the caller's own cancellation too, ends the transaction in order.
        let mut write = SqliteWrite {
            writer: self.clone(),
            session: Some(session),
        };
        write.session_mut().open().await?;
        Ok(write)
    }

    /// Waits for the open transaction and closes the connection.
    pub(super) async fn close(&self) {
        let mut session = self.session.lock().await;
        // A group that was left open for somebody who waits behind this call is committed now.
        if session.group.is_some()
            && let Err(error) = session.end(Ending::TakenBack, false).await
        {
            tracing::error!(error = ?error, "cannot commit before closing");
        }
        if let Some(connection) = session.connection.take()
            && let Err(error) = connection.close().await
        {
            tracing::warn!(error = ?error, "cannot close the database in order");
        }
    }

    /// Ends the transaction that `session` has open, and commits the group unless another transaction follows at once.
    async fn end(&self, mut session: OwnedMutexGuard<Session>, ending: Ending) -> Result<()> {
        let told = match ending {
            Ending::TakenBack => None,
            Ending::Kept => session.group.as_mut().map(|group| {
                let (tell, told) = oneshot::channel();
                group.members.push(tell);
                told
            }),
        };
        let is_followed =
            self.waiting.load(Ordering::Acquire) > 0 && session.group.as_ref().is_some_and(Group::takes_more);
        let ended = session.end(ending, is_followed).await;
        drop(session);
        ended?;
        match (ending, told) {
            (Ending::TakenBack, _) => Ok(()),
            (Ending::Kept, Some(told)) => told.await.unwrap_or(Err(())).map_err(|()| lost()),
            (Ending::Kept, None) => Err(lost()),
        }
    }
}

fn lost() -> Error {
    Error::Unavailable {
        code: "database_unavailable",
        message: "the database could not save this: try again".into(),
        retry_after: LOST_RETRY,
        source: None,
    }
}

/// A place among those who wait to begin.
struct Place {
    writer: SqliteWriter,
    is_taken: bool,
}

impl Place {
    fn take(writer: &SqliteWriter) -> Self {
        writer.waiting.fetch_add(1, Ordering::AcqRel);
        Self {
            writer: writer.clone(),
            is_taken: true,
        }
    }

    /// The turn has come.
    fn give_up(mut self) {
        self.is_taken = false;
        self.writer.waiting.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Drop for Place {
    /// Whoever goes before the turn came may be the one for whom a group was left open.
    fn drop(&mut self) {
        if !self.is_taken {
            return;
        }
        self.writer.waiting.fetch_sub(1, Ordering::AcqRel);
        let writer = self.writer.clone();
        spawn(async move {
            let mut session = writer.session.lock().await;
            if session.group.is_some()
                && let Err(error) = session.end(Ending::TakenBack, false).await
            {
                tracing::error!(error = ?error, "cannot commit");
            }
        });
    }
}

impl Group {
    fn takes_more(&self) -> bool {
        self.members.len() < MEMBERS_AT_MOST && self.began.elapsed() < GROUP_AGE
    }
}

impl Session {
    /// Makes sure that a savepoint is open.
    async fn open(&mut self) -> Result<(), sqlx::Error> {
        if self.connection.is_none() {
            return Err(sqlx::Error::PoolClosed);
        }
        if self.group.is_none() {
            // Set first: whatever becomes of the statement, what it began is ended.
            self.group = Some(Group {
                began: Instant::now(),
                members: Vec::new(),
            });
            self.execute(BEGIN).await?;
        }
        Ok(())
    }

    async fn end(&mut self, ending: Ending, is_followed: bool) -> Result<(), sqlx::Error> {
        let is_empty = self.group.as_ref().is_none_or(|group| group.members.is_empty());
        let done = match (ending, is_followed) {
            (Ending::Kept, true) => self.execute(CLOSE_AND_GO_ON).await,
            (Ending::TakenBack, true) => self.execute(TAKE_BACK).await,
            (Ending::TakenBack, false) if is_empty => self.execute("rollback").await,
            (Ending::TakenBack, false) => match self.execute(TAKE_BACK).await {
                Ok(()) => self.execute("commit").await,
                Err(error) => Err(error),
            },
            (Ending::Kept, false) => self.execute("commit").await,
        };
        if done.is_err() {
            // Some failures end the whole transaction by themselves; then there is nothing left to roll back.
            let _ = self.execute("rollback").await;
        }
        if done.is_err() || !is_followed {
            let told = if done.is_ok() { Ok(()) } else { Err(()) };
            for member in self.group.take().into_iter().flat_map(|group| group.members) {
                // Whoever asked may have gone.
                let _ = member.send(told);
            }
        }
        done
    }

    async fn execute(&mut self, statement: &'static str) -> Result<(), sqlx::Error> {
        let connection = self.connection.as_mut().ok_or(sqlx::Error::PoolClosed)?;
        connection.execute(sqlx::query(statement)).await.map(drop)
    }
}

impl SqliteWrite {
    /// The connection, for statements of this transaction.
    pub(super) fn connection(&mut self) -> &mut SqliteConnection {
        self.session_mut()
            .connection
            .as_mut()
            .expect("a closed session begins no transaction")
    }

    fn session_mut(&mut self) -> &mut Session {
        self.session
            .as_mut()
            .expect("taken by the end of the transaction only")
    }

    /// Makes everything written so far durable.
    pub(super) async fn commit(mut self) -> Result<()> {
        let Some(session) = self.session.take() else {
            return Err(lost());
        };
        let writer = self.writer.clone();
        // In a task of its own, so that a caller who goes away leaves nothing half done.
        tokio::spawn(async move { writer.end(session, Ending::Kept).await })
            .await
            .map_err(Error::internal)?
    }
}

impl Drop for SqliteWrite {
    fn drop(&mut self) {
        let Some(session) = self.session.take() else {
            return;
        };
        let writer = self.writer.clone();
        spawn(async move {
            if let Err(error) = writer.end(session, Ending::TakenBack).await {
                tracing::debug!(error = ?error, "a transaction could not be rolled back by itself");
            }
        });
    }
}

/// Runs `work` beside the caller; where no runtime is left, the connection goes with the process.
fn spawn(work: impl Future<Output = ()> + Send + 'static) {
    if let Ok(runtime) = tokio::runtime::Handle::try_current() {
        runtime.spawn(work);
    }
}

#[cfg(test)]
mod tests {
    use sqlx::ConnectOptions as _;
    use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode};

    use super::*;

    struct File {
        writer: SqliteWriter,
        options: SqliteConnectOptions,
        _folder: tempfile::TempDir,
    }

    async fn file() -> File {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let options = SqliteConnectOptions::new()
            .filename(folder.path().join("test.db"))
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal);
        let mut connection = options.connect().await.expect("the file opens");
        connection
            .execute("create table line (text text unique)")
            .await
            .expect("a table");
        File {
            writer: SqliteWriter::new(connection),
            options,
            _folder: folder,
        }
    }

    impl File {
        /// What a reader sees: committed lines only.
        async fn lines(&self) -> Vec<String> {
            let mut reader = self.options.connect().await.expect("the file opens");
            sqlx::query_scalar("select text from line order by rowid")
                .fetch_all(&mut reader)
                .await
                .expect("lines")
        }
    }

    async fn write(writer: &SqliteWriter, text: &str) -> SqliteWrite {
        let mut write = writer.begin().await.expect("a turn");
        sqlx::query("insert into line values ($1)")
            .bind(text.to_owned())
            .execute(write.connection())
            .await
            .expect("written");
        write
    }

    #[tokio::test]
    async fn a_commit_alone_is_seen_at_once() {
        let file = file().await;

        write(&file.writer, "one")
            .await
            .commit()
            .await
            .expect("committed");

        assert_eq!(file.lines().await, ["one"]);
    }

    #[tokio::test]
    async fn what_is_dropped_takes_back_only_itself() {
        let file = file().await;
        let first = write(&file.writer, "first").await;
        let (dropping, last) = (file.writer.clone(), file.writer.clone());
        let second = tokio::spawn(async move { drop(write(&dropping, "second").await) });
        let third = tokio::spawn(async move { write(&last, "third").await.commit().await });
        tokio::task::yield_now().await;

        first.commit().await.expect("committed with those that wait");
        second.await.expect("dropped");
        third.await.expect("no panic").expect("committed");

        assert_eq!(file.lines().await, ["first", "third"]);
    }

    #[tokio::test]
    async fn every_commit_of_a_crowd_is_told_after_it_can_be_seen() {
        let file = file().await;
        let crowd: Vec<_> = (0..200)
            .map(|number| {
                let writer = file.writer.clone();
                tokio::spawn(async move { write(&writer, &number.to_string()).await.commit().await })
            })
            .collect();

        for member in crowd {
            member.await.expect("no panic").expect("committed");
        }

        assert_eq!(file.lines().await.len(), 200);
    }

    #[tokio::test]
    async fn a_failed_statement_leaves_the_others_of_its_group() {
        let file = file().await;
        let first = write(&file.writer, "same").await;
        let writer = file.writer.clone();
        let second = tokio::spawn(async move {
            let mut write = write(&writer, "of the second").await;
            let again = sqlx::query("insert into line values ('same')")
                .execute(write.connection())
                .await;
            assert!(again.is_err(), "the line of the first is there");
        });
        tokio::task::yield_now().await;

        first.commit().await.expect("committed");
        second.await.expect("no panic");

        assert_eq!(file.lines().await, ["same"]);
    }

    #[tokio::test]
    async fn one_who_goes_away_while_waiting_holds_nobody_up() {
        let file = file().await;
        let first = write(&file.writer, "first").await;
        let writer = file.writer.clone();
        let waiting = tokio::spawn(async move { writer.begin().await.map(drop) });
        tokio::task::yield_now().await;
        waiting.abort();

        first.commit().await.expect("committed");

        assert_eq!(file.lines().await, ["first"]);
        write(&file.writer, "second")
            .await
            .commit()
            .await
            .expect("the writer is free");
    }
}
