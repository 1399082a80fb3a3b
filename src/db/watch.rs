//! A SQLite connection whose statements come to an end: when they have taken as long as one may, or soon after nobody waits
//! for them any more.
//!
//! SQLite knows neither limit nor leaving, but asks every so many steps whether to go on. A statement that is cut off takes
//! its transaction back, and with it those that were to be committed together with it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use sqlx::Connection as _;
use sqlx::sqlite::SqliteConnection;

/// Steps of SQLite's machine between two questions: a good half of a millisecond.
const STEPS: i32 = 10_000;

/// What a statement may take in all that nobody waits for. Nearly all are at their end by then, and spoil no group.
const LEFT_LIMIT: Duration = Duration::from_millis(100);

/// The connection, and when its statement has to be at its end.
pub(super) struct WatchedConnection {
    connection: SqliteConnection,
    limit: Duration,
    /// What times are counted from.
    epoch: Instant,
    began: Duration,
    /// In milliseconds since `epoch`.
    end_ms: Arc<AtomicU64>,
}

impl WatchedConnection {
    /// From now on no statement takes longer than `limit`.
    pub(super) async fn new(mut connection: SqliteConnection, limit: Duration) -> Result<Self, sqlx::Error> {
        let epoch = Instant::now();
        let end_ms = Arc::new(AtomicU64::new(u64::MAX));
        let end = end_ms.clone();
        let goes_on = move || as_ms(epoch.elapsed()) < end.load(Ordering::Relaxed);
        connection
            .lock_handle()
            .await?
            .set_progress_handler(STEPS, goes_on);
        Ok(Self {
            connection,
            limit,
            epoch,
            began: Duration::ZERO,
            end_ms,
        })
    }

    /// The connection, for what begins now.
    pub(super) fn begin(&mut self) -> &mut SqliteConnection {
        self.began = self.epoch.elapsed();
        self.end_by(self.began.saturating_add(self.limit));
        &mut self.connection
    }

    /// Waits until a statement that was left is at its end, and sees to it that it soon is.
    pub(super) async fn come_to_rest(&mut self) -> Result<(), sqlx::Error> {
        self.end_by(self.began.saturating_add(LEFT_LIMIT.min(self.limit)));
        self.connection.ping().await
    }

    pub(super) async fn close(self) -> Result<(), sqlx::Error> {
        self.connection.close().await
    }

    fn end_by(&self, time: Duration) {
        self.end_ms.store(as_ms(time), Ordering::Relaxed);
    }
}

fn as_ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
