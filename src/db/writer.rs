//! The one writer of a SQLite file, which commits transactions together that wait for each other.
//!
//! The end of a small transaction costs more than its statements: pages go to the log, readers lose what they have
//! cached. So a transaction that ends while others wait is only closed, as a savepoint, and hands the connection on; the
//! last one commits for all. Nobody is told that a write is done before that commit, and a transaction that fails or is
//! dropped takes back nothing but its own.
//!
//! What opens and what closes a transaction goes with its statements ([`Script`]): one that asks nothing of the database
//! before it commits crosses to the connection's thread once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use sqlx::{AssertSqlSafe, Executor as _, SqliteConnection};
use tokio::sync::{Mutex, OwnedMutexGuard, oneshot};
use tokio::time::timeout;

use super::open::WAIT_LIMIT;
use super::script::Script;
use super::watch::WatchedConnection;
use crate::error::{Error, Result};

/// Transactions in one commit, at most.
const MEMBERS_AT_MOST: usize = 64;

/// From this age on a group takes nobody in: its members wait for the commit, and so do other processes.
const GROUP_AGE: Duration = Duration::from_millis(5);

/// Who asks whether the writer is to be had waits this long for a turn.
const TURN_LIMIT: Duration = Duration::from_secs(2);

/// For so long everybody who asks gets the same answer.
const CHECK_LIFE: Duration = Duration::from_secs(1);

/// For so long the emptying of the log waits for readers, and writers for it.
const READERS_LIMIT: Duration = Duration::from_millis(200);

/// How long a caller whose commit was lost waits before it tries again.
const LOST_RETRY: Duration = Duration::from_secs(1);

/// The writer. Clones share it.
#[derive(Clone)]
pub struct SqliteWriter {
    session: Arc<Mutex<Session>>,
    /// Transactions that wait to begin.
    waiting: Arc<AtomicUsize>,
    /// Whether a turn was to be had, and when that was asked.
    checked: Arc<Mutex<Option<(Instant, bool)>>>,
}

/// The connection, and what was written over it since the last commit.
struct Session {
    /// None once closed.
    connection: Option<WatchedConnection>,
    group: Option<Group>,
}

/// Transactions that are committed together.
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
    begun: Begun,
    /// What is still to be sent.
    script: Script,
    /// What was sent last has not come to a good end, or is still at it.
    is_in_doubt: bool,
}

/// How far the database knows of a transaction.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Begun {
    NotYet,
    /// It opened the group: all that is uncommitted is its own.
    AsFirst,
    /// A savepoint tells its own from what others of the group wrote.
    AsMember,
}

/// How a transaction ends.
enum Ending {
    Kept(Script),
    TakenBack,
}

impl SqliteWriter {
    pub(super) fn new(connection: WatchedConnection) -> Self {
        let session = Session {
            connection: Some(connection),
            group: None,
        };
        Self {
            session: Arc::new(Mutex::new(session)),
            waiting: Arc::default(),
            checked: Arc::default(),
        }
    }

    /// Waits for its turn.
    pub(super) async fn begin(&self) -> Result<SqliteWrite, sqlx::Error> {
        let session = match self.session.clone().try_lock_owned() {
            Ok(session) => session,
            Err(_) => {
                let place = Place::take(self);
                let turn = timeout(WAIT_LIMIT, self.session.clone().lock_owned()).await;
                let session = turn.map_err(|_| sqlx::Error::PoolTimedOut)?;
                place.give_up();
                session
            }
        };
        // From here on whoever drops this, the caller's own cancellation too, ends the transaction in order.
        let write = SqliteWrite {
            writer: self.clone(),
            session: Some(session),
            begun: Begun::NotYet,
            script: Script::default(),
            is_in_doubt: false,
        };
        match write
            .session
            .as_ref()
            .is_some_and(|session| session.connection.is_some())
        {
            true => Ok(write),
            false => Err(sqlx::Error::PoolClosed),
        }
    }

    /// Whether a turn is to be had soon. However many ask, it is tried once a second.
    pub(super) async fn check(&self) -> Result<(), sqlx::Error> {
        let mut checked = self.checked.lock().await;
        let is_had = match *checked {
            Some((when, is_had)) if when.elapsed() < CHECK_LIFE => is_had,
            _ => {
                let is_had = timeout(TURN_LIMIT, self.session.lock()).await.is_ok();
                *checked = Some((Instant::now(), is_had));
                is_had
            }
        };
        is_had.then_some(()).ok_or(sqlx::Error::PoolTimedOut)
    }

    /// Brings the write-ahead log into the database and empties it, unless somebody reads for longer than [`READERS_LIMIT`].
    /// Nobody writes meanwhile.
    pub(super) async fn clear_log(&self) -> Result<(), sqlx::Error> {
        let mut session = self.session.clone().lock_owned().await;
        // In a task of its own, so that a caller who goes away leaves the connection as it was.
        let cleared = tokio::spawn(async move {
            session.commit_group().await?;
            session.wait_for_others(READERS_LIMIT).await?;
            let cleared = session.execute("pragma wal_checkpoint(truncate)").await;
            session.wait_for_others(WAIT_LIMIT).await?;
            cleared
        });
        cleared
            .await
            .map_err(|error| sqlx::Error::Io(std::io::Error::other(error)))?
    }

    /// Waits for the open transaction and closes the connection.
    pub(super) async fn close(&self) {
        let mut session = self.session.lock().await;
        // A group that was left open for somebody who waits behind this call is committed now.
        if let Err(error) = session.commit_group().await {
            tracing::error!(error = ?error, "cannot commit before closing");
        }
        if let Some(connection) = session.connection.take()
            && let Err(error) = connection.close().await
        {
            tracing::warn!(error = ?error, "cannot close the database in order");
        }
    }

    /// Ends the transaction that `session` has open, and commits the group unless another transaction follows at once.
    async fn end(
        &self,
        mut session: OwnedMutexGuard<Session>,
        begun: Begun,
        ending: Ending,
        is_in_doubt: bool,
    ) -> Result<()> {
        if is_in_doubt && let Some(connection) = &mut session.connection {
            // Where the connection is at its end, what follows finds out and tells it.
            let _ = connection.come_to_rest().await;
        }
        // Some failures take the whole group back by themselves: then nobody builds on it, and the commit finds out.
        let is_followed = !is_in_doubt
            && self.waiting.load(Ordering::Acquire) > 0
            && session.group.as_ref().is_none_or(Group::takes_more);
        let told = match ending {
            Ending::TakenBack => {
                session.take_back(begun, is_followed).await?;
                None
            }
            Ending::Kept(script) => session.keep(begun, script, is_followed).await?,
        };
        drop(session);
        match told {
            None => Ok(()),
            Some(told) => told.await.unwrap_or(Err(())).map_err(|()| lost()),
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
            if let Err(error) = session.commit_group().await {
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
    /// Puts what opens a transaction before its first statements.
    fn open(&mut self, script: &mut Script) -> Begun {
        if self.group.is_some() {
            script.put_first("savepoint member");
            return Begun::AsMember;
        }
        self.group = Some(Group {
            began: Instant::now(),
            members: Vec::new(),
        });
        script.put_first("begin immediate");
        Begun::AsFirst
    }

    /// Runs the rest of a transaction, and commits it with its group unless another one follows. Then the answer tells
    /// later how the commit went.
    async fn keep(
        &mut self,
        mut begun: Begun,
        mut script: Script,
        is_followed: bool,
    ) -> Result<Option<oneshot::Receiver<Committed>>, sqlx::Error> {
        if begun == Begun::NotYet {
            if script.is_empty() {
                self.take_back(begun, is_followed).await?;
                return Ok(None);
            }
            begun = self.open(&mut script);
        }
        match (is_followed, begun) {
            (false, _) => script.push("commit"),
            (true, Begun::AsMember) => script.push("release member"),
            (true, _) => {}
        }
        if !script.is_empty()
            && let Err(error) = self.run(script).await
        {
            // What went wrong is told to the one whose statement it was; the others are as they were.
            let _ = self.take_back(begun, is_followed).await;
            return Err(error);
        }
        if !is_followed {
            self.tell(Ok(()));
            return Ok(None);
        }
        let (tell, told) = oneshot::channel();
        if let Some(group) = &mut self.group {
            group.members.push(tell);
        }
        Ok(Some(told))
    }

    /// Takes back what a transaction wrote, and commits the others of its group unless another one follows.
    async fn take_back(&mut self, begun: Begun, is_followed: bool) -> Result<(), sqlx::Error> {
        let done = match (begun, is_followed) {
            (Begun::NotYet, true) => return Ok(()),
            (Begun::NotYet, false) => return self.commit_group().await,
            (Begun::AsFirst, _) => return self.roll_back().await,
            (Begun::AsMember, true) => self.execute("rollback to member; release member").await,
            (Begun::AsMember, false) => self.execute("rollback to member; commit").await,
        };
        if done.is_err() {
            let _ = self.roll_back().await;
        } else if !is_followed {
            self.tell(Ok(()));
        }
        done
    }

    /// Gives the whole group up. Some failures do that by themselves; then there is nothing left to roll back.
    async fn roll_back(&mut self) -> Result<(), sqlx::Error> {
        let done = self.execute("rollback").await;
        self.tell(Err(()));
        done
    }

    /// Commits what others left to somebody who did not come.
    async fn commit_group(&mut self) -> Result<(), sqlx::Error> {
        if self.group.is_none() {
            return Ok(());
        }
        let done = self.execute("commit").await;
        match done {
            Ok(()) => self.tell(Ok(())),
            Err(_) => drop(self.roll_back().await),
        }
        done
    }

    /// Ends the group and tells its members how.
    fn tell(&mut self, committed: Committed) {
        for member in self.group.take().into_iter().flat_map(|group| group.members) {
            // Whoever asked may have gone.
            let _ = member.send(committed);
        }
    }

    async fn run(&mut self, script: Script) -> Result<(), sqlx::Error> {
        script.run(self.connection()?).await
    }

    async fn execute(&mut self, statement: &'static str) -> Result<(), sqlx::Error> {
        self.connection()?.execute(sqlx::query(statement)).await.map(drop)
    }

    /// How long a statement waits for a lock of other connections.
    async fn wait_for_others(&mut self, limit: Duration) -> Result<(), sqlx::Error> {
        let text = format!("pragma busy_timeout = {}", limit.as_millis());
        let statement = sqlx::query(AssertSqlSafe(text));
        self.connection()?.execute(statement).await.map(drop)
    }

    /// The connection, for a statement that begins now.
    fn connection(&mut self) -> Result<&mut SqliteConnection, sqlx::Error> {
        let connection = self.connection.as_mut().ok_or(sqlx::Error::PoolClosed)?;
        Ok(connection.begin())
    }
}

impl SqliteWrite {
    /// The connection, for a statement of this transaction, in doubt until [`SqliteWrite::settle`] says that it came to its
    /// end. Everything before it has been sent and has succeeded.
    pub(super) async fn connection(&mut self) -> Result<&mut SqliteConnection, sqlx::Error> {
        self.send().await?;
        self.is_in_doubt = true;
        self.session_mut().connection()
    }

    pub(super) fn settle(&mut self) {
        self.is_in_doubt = false;
    }

    /// Statements that go with the next ones that are waited for.
    pub(super) fn script(&mut self) -> &mut Script {
        &mut self.script
    }

    /// Opens the transaction, if that is still to be done, and runs what has been collected.
    pub(super) async fn send(&mut self) -> Result<(), sqlx::Error> {
        let mut script = std::mem::take(&mut self.script);
        if self.begun == Begun::NotYet {
            // Noted first: whatever becomes of the statement, what it began is ended.
            self.begun = self.session_mut().open(&mut script);
        }
        if script.is_empty() {
            return Ok(());
        }
        self.is_in_doubt = true;
        self.session_mut().run(script).await?;
        self.is_in_doubt = false;
        Ok(())
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
        let (begun, ending) = (self.begun, Ending::Kept(std::mem::take(&mut self.script)));
        let is_in_doubt = self.is_in_doubt;
        // In a task of its own, so that a caller who goes away leaves nothing half done.
        tokio::spawn(async move { writer.end(session, begun, ending, is_in_doubt).await })
            .await
            .map_err(Error::internal)?
    }
}

impl Drop for SqliteWrite {
    fn drop(&mut self) {
        let Some(session) = self.session.take() else {
            return;
        };
        let (writer, begun, is_in_doubt) = (self.writer.clone(), self.begun, self.is_in_doubt);
        spawn(async move {
            if let Err(error) = writer.end(session, begun, Ending::TakenBack, is_in_doubt).await {
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
mod tests;
