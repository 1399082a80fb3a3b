//! Passwords: argon2id hashes, made and checked off the async threads, a few at a time.

use argon2::Argon2;
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use tokio::sync::Semaphore;

use crate::error::{Error, Result};

/// Hashes at once: each takes 19 MiB and a core for some tens of milliseconds.
const PARALLEL_HASHES: usize = 2;

static HASHING: Semaphore = Semaphore::const_new(PARALLEL_HASHES);

/// Shortest and longest password, in characters.
const LENGTHS: std::ops::RangeInclusive<usize> = 10..=200;

/// Refuses passwords that are too short to protect anything or absurdly long.
pub fn check(password: &str) -> Result<()> {
    if LENGTHS.contains(&password.chars().count()) {
        return Ok(());
    }
    Err(Error::invalid(
        "invalid_password",
        "password",
        format!(
            "the password must have {} to {} characters",
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
    let _turn = HASHING.acquire().await.map_err(Error::internal)?;
    tokio::task::spawn_blocking(work).await.map_err(Error::internal)
}
