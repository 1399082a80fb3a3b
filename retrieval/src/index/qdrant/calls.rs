//! How the server is asked: in bounded time, again when that may help, and with errors that say what to do.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use qdrant_client::qdrant::{UpdateResult, UpdateStatus};
use qdrant_client::{Qdrant, QdrantError};
use tokio::time::{Instant, sleep, timeout_at};
use tonic::{Code, Status};

use super::connection;
use super::options::{QdrantOptions, QdrantTuning};
use crate::index::{ConnectionLost, IndexError};

/// Pause before the second try, doubled for each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Readiness is asked for all the time, and whoever asks does not wait long.
const CHECK_TIMEOUT: Duration = Duration::from_secs(3);

/// Asked to wait for longer, we give up: every call ends sooner.
const LONGEST_ASKED_PAUSE_S: u64 = 3_600;

/// Questions go without the index meanwhile, as when it does not answer.
pub(super) const COLLECTION_IS_GONE: &str =
    "the collection is gone from the index server; a restart makes it again and fills it from the rows";

/// The connections to the server and our patience with it. All calls are safe to make twice.
pub(super) struct Calls {
    url: String,
    /// Gives up half-way through `read_timeout`, so that a connection which leads nowhere is replaced in time.
    reader: Qdrant,
    writer: Qdrant,
    attempts: u32,
    read_timeout: Duration,
    write_timeout: Duration,
    closed: AtomicBool,
}

impl Calls {
    /// Connects when first asked.
    pub(super) fn new(options: &QdrantOptions) -> Result<Self, IndexError> {
        let QdrantTuning {
            connect_timeout,
            read_timeout,
            write_timeout,
            attempts,
            ..
        } = options.tuning;
        let client = |call_timeout: Duration| {
            Qdrant::from_url(&options.url)
                .api_key(options.api_key.clone())
                .timeout(call_timeout)
                .connect_timeout(connect_timeout)
                // It would print to the standard output; `Collection::open` looks at the version itself.
                .skip_compatibility_check()
                .build()
                .map_err(|error| error_of("connect", error, &options.url))
        };
        Ok(Self {
            url: options.url.trim_end_matches('/').to_owned(),
            reader: client(read_timeout / 2)?,
            writer: client(write_timeout)?,
            attempts: attempts.max(1),
            read_timeout,
            write_timeout,
            closed: AtomicBool::new(false),
        })
    }

    /// Asks something that changes nothing.
    pub(super) async fn read<T, F>(
        &self,
        what: &'static str,
        ask: impl Fn(Qdrant) -> F,
    ) -> Result<T, IndexError>
    where
        F: Future<Output = Result<T, QdrantError>>,
    {
        self.call(what, &self.reader, self.read_timeout, self.attempts, ask)
            .await
    }

    /// Asks once, for readiness.
    pub(super) async fn read_once<T, F>(
        &self,
        what: &'static str,
        ask: impl Fn(Qdrant) -> F,
    ) -> Result<T, IndexError>
    where
        F: Future<Output = Result<T, QdrantError>>,
    {
        let patience = CHECK_TIMEOUT.min(self.read_timeout);
        self.call(what, &self.reader, patience, 1, ask).await
    }

    /// Changes something that can be changed twice without harm.
    pub(super) async fn write<T, F>(
        &self,
        what: &'static str,
        ask: impl Fn(Qdrant) -> F,
    ) -> Result<T, IndexError>
    where
        F: Future<Output = Result<T, QdrantError>>,
    {
        self.call(what, &self.writer, self.write_timeout, self.attempts, ask)
            .await
    }

    /// Changes points, and is content only when the server has applied the change.
    pub(super) async fn update<F>(
        &self,
        what: &'static str,
        ask: impl Fn(Qdrant) -> F,
    ) -> Result<(), IndexError>
    where
        F: Future<Output = Result<Vec<UpdateResult>, QdrantError>>,
    {
        self.write(what, |client| {
            let asked = ask(client);
            async move { asked.await?.iter().try_for_each(applied) }
        })
        .await
    }

    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Release);
    }

    async fn call<T, F>(
        &self,
        what: &'static str,
        client: &Qdrant,
        patience: Duration,
        attempts: u32,
        ask: impl Fn(Qdrant) -> F,
    ) -> Result<T, IndexError>
    where
        F: Future<Output = Result<T, QdrantError>>,
    {
        let deadline = Instant::now() + patience;
        let mut pause = FIRST_PAUSE;
        for attempt in 1.. {
            if self.closed.load(Ordering::Acquire) {
                break;
            }
            let Ok(outcome) = timeout_at(deadline, ask(client.clone())).await else {
                return Err(IndexError::Unavailable {
                    reason: format!("{what}: the index server did not answer within {patience:?}"),
                    source: None,
                });
            };
            let error = match outcome {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            let wait = asked_pause(&error).unwrap_or_else(|| pause.mul_f64(rand::random_range(0.5..1.0)));
            if attempt >= attempts || !is_passing(&error) || Instant::now() + wait >= deadline {
                return Err(error_of(what, error, &self.url));
            }
            tracing::debug!(what, attempt, error = %summary(&error, &self.url), "asking the index server again");
            sleep(wait).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        Err(IndexError::Unavailable {
            reason: "the index is closed".to_owned(),
            source: None,
        })
    }
}

/// `wait` may end before the change is applied, and then it must not count as stored.
fn applied(result: &UpdateResult) -> Result<(), QdrantError> {
    match result.status() {
        UpdateStatus::Completed => Ok(()),
        status => Err(Status::unavailable(format!(
            "the change is {} and not applied yet",
            status.as_str_name()
        ))
        .into()),
    }
}

pub(super) fn status_of(error: &QdrantError) -> Option<&Status> {
    match error {
        QdrantError::ResponseError { status } | QdrantError::ResourceExhaustedError { status, .. } => {
            Some(status)
        }
        _ => None,
    }
}

/// Whether the same call may succeed a moment later. `Internal` counts: the client reports a connection that failed so, and
/// the server a shard whose copies are not there.
fn is_passing(error: &QdrantError) -> bool {
    status_of(error).is_some_and(|status| {
        matches!(
            status.code(),
            Code::Unavailable
                | Code::DeadlineExceeded
                | Code::ResourceExhausted
                | Code::Internal
                | Code::Unknown
                | Code::Cancelled
                | Code::Aborted
                // Writes are locked, or a shard is being moved.
                | Code::FailedPrecondition
        )
    })
}

/// How long the server asks us to wait.
fn asked_pause(error: &QdrantError) -> Option<Duration> {
    match error {
        QdrantError::ResourceExhaustedError {
            retry_after_seconds, ..
        } => Some(Duration::from_secs(
            (*retry_after_seconds).min(LONGEST_ASKED_PAUSE_S),
        )),
        _ => None,
    }
}

/// Whether the server says that there is no such thing.
pub(super) fn is_not_found(error: &QdrantError) -> bool {
    status_of(error).is_some_and(|status| status.code() == Code::NotFound)
}

/// Whether the server says that it is there already.
pub(super) fn is_already_there(error: &QdrantError) -> bool {
    status_of(error).is_some_and(|status| {
        status.code() == Code::AlreadyExists || status.message().contains("already exists")
    })
}

/// Whether the server refuses our key, which waiting does not change.
pub(super) fn is_key_refused(error: &IndexError) -> bool {
    let IndexError::Unavailable {
        source: Some(source), ..
    } = error
    else {
        return false;
    };
    let status = source.downcast_ref::<QdrantError>().and_then(status_of);
    status.is_some_and(|status| matches!(status.code(), Code::Unauthenticated | Code::PermissionDenied))
}

/// Without the metadata of the answer, which is nobody's concern.
fn summary(error: &QdrantError, url: &str) -> String {
    match (connection::look(error, url), status_of(error)) {
        (Some(missing), _) => missing.told,
        (None, Some(status)) => format!("{:?}: {}", status.code(), status.message()),
        (None, None) => error.to_string(),
    }
}

fn error_of(what: &str, error: QdrantError, url: &str) -> IndexError {
    let summary = summary(&error, url);
    if let Some(missing) = connection::look(&error, url) {
        return IndexError::Unavailable {
            reason: format!("{what}: {summary}"),
            source: Some(ConnectionLost(missing.cause.into()).into()),
        };
    }
    match status_of(&error).map(Status::code) {
        Some(Code::Unauthenticated | Code::PermissionDenied) => IndexError::Unavailable {
            reason: format!("{what}: the index server refuses our API key: {summary}"),
            source: Some(error.into()),
        },
        Some(Code::NotFound) => IndexError::Unavailable {
            reason: format!("{what}: {COLLECTION_IS_GONE}: {summary}"),
            source: Some(error.into()),
        },
        Some(Code::Unavailable) => IndexError::Unavailable {
            reason: format!("{what}: {summary}"),
            source: Some(ConnectionLost(error.into()).into()),
        },
        // The store's data is damaged, no call of ours is wrong.
        Some(Code::DataLoss) => IndexError::Unavailable {
            reason: format!("{what}: {summary}"),
            source: Some(error.into()),
        },
        _ if is_passing(&error) => IndexError::Unavailable {
            reason: format!("{what}: {summary}"),
            source: Some(error.into()),
        },
        _ => IndexError::Refused {
            reason: format!("{what}: {summary}"),
        },
    }
}
