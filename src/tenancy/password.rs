//! Passwords: argon2id hashes, made and checked off the async threads, a few at a time.

use std::time::Duration;

use argon2::Argon2;
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use tokio::sync::Semaphore;

use crate::error::{Error, Result};

/// Hashes at once: each takes 19 MiB and a core for some tens of milliseconds.
const PARALLEL_HASHES: usize = 2;

/// Requests that wait for their hash; newcomers past this are told to come back.
const MAX_WAITING: usize = 64;

static HASHING: Line = Line::new(PARALLEL_HASHES, MAX_WAITING);

/// Shortest and longest password, in characters.
const LENGTHS: std::ops::RangeInclusive<usize> = 10..=200;

/// Refuses passwords that are too short to protect anything, blank, or absurdly long.
pub fn check(password: &str) -> Result<()> {
    let is_blank = password.chars().all(super::draws_nothing);
    if LENGTHS.contains(&password.chars().count()) && !is_blank {
        return Ok(());
    }
    Err(Error::invalid(
        "invalid_password",
        "password",
        format!(
            "the password must have {} to {} characters, not all of them blank",
            LENGTHS.start(),
            LENGTHS.end()
        ),
    ))
}

/// The hash to store, with its own salt and parameters inside (PHC string).
pub async fn hash(password: String) -> Result<String> {
    run(move || {
        Argon2::default()
            .hash_password(password.as_bytes())
            .map(|hash| hash.to_string())
            .map_err(|error| Error::internal(error.to_string()))
    })
    .await?
}

/// Whether `password` is the one that was hashed. Without a hash the same work is done and the answer is no, so that
/// time does not tell whether an account exists.
pub async fn verify(password: String, hash: Option<String>) -> Result<bool> {
    run(move || match hash {
        Some(hash) => PasswordHash::new(&hash).is_ok_and(|hash| {
            Argon2::default()
                .verify_password(password.as_bytes(), &hash)
                .is_ok()
        }),
        None => Argon2::default().hash_password(password.as_bytes()).is_err() && password.is_empty(),
    })
    .await
}

async fn run<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    HASHING.run(work).await
}

/// Work off the async threads, a few at a time, behind a line that does not grow for ever.
struct Line {
    turns: Semaphore,
    waiting: Semaphore,
}

impl Line {
    const fn new(parallel: usize, waiting: usize) -> Self {
        Self {
            turns: Semaphore::const_new(parallel),
            waiting: Semaphore::const_new(waiting),
        }
    }

    async fn run<T: Send + 'static>(&'static self, work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
        let place = self.waiting.try_acquire().map_err(|_| Error::Unavailable {
            code: "busy",
            message: "too many passwords are being checked at once; try again shortly".into(),
            retry_after: Duration::from_secs(2),
            source: None,
        })?;
        let turn = self.turns.acquire().await.map_err(Error::internal)?;
        drop(place);
        // A client that leaves ends this future and not the work: the turn goes with the work.
        tokio::task::spawn_blocking(move || {
            let done = work();
            drop(turn);
            done
        })
        .await
        .map_err(Error::internal)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn work_whose_client_left_keeps_its_turn_until_it_is_done() {
        static LINE: Line = Line::new(1, 8);
        let (started, has_started) = tokio::sync::oneshot::channel();
        let (finish, finished) = mpsc::channel::<()>();
        let request = tokio::spawn(LINE.run(move || {
            let _ = started.send(());
            finished.recv()
        }));
        has_started.await.expect("it runs");

        request.abort();
        assert!(request.await.expect_err("the client left").is_cancelled());

        assert_eq!(LINE.turns.available_permits(), 0);
        finish.send(()).expect("it still runs");
        assert_eq!(LINE.run(|| 7).await.expect("the turn is free again"), 7);
    }

    #[tokio::test]
    async fn a_line_that_is_full_turns_newcomers_away() {
        static LINE: Line = Line::new(1, 1);
        let turn = LINE.turns.acquire().await.expect("a turn");
        let first = tokio::spawn(LINE.run(|| 7));
        while LINE.waiting.available_permits() > 0 {
            tokio::task::yield_now().await;
        }

        let refused = LINE.run(|| 8).await;

        assert!(matches!(refused, Err(Error::Unavailable { code: "busy", .. })));
        drop(turn);
        assert_eq!(first.await.expect("it ran").expect("in its turn"), 7);
    }
}
