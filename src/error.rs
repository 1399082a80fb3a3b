//! What can go wrong in an operation, split by what the caller does next.

use std::borrow::Cow;
use std::time::Duration;

use retrieval::index::IndexError;

/// How long an index that failed is left alone.
const TRY_THE_INDEX_AFTER: Duration = Duration::from_secs(5);

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The result of an operation.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why an operation was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no such thing within the caller's reach. Another tenant's things are absent too.
    #[error("{0} not found")]
    NotFound(&'static str),
    /// The request cannot be understood.
    #[error("{message}")]
    Malformed {
        code: &'static str,
        message: Cow<'static, str>,
    },
    /// The request is understood, but its content does not hold; `field` names where.
    #[error("{message}")]
    Invalid {
        code: &'static str,
        field: Option<String>,
        message: Cow<'static, str>,
    },
    /// The request does not fit the present state.
    #[error("{message}")]
    Conflict {
        code: &'static str,
        message: Cow<'static, str>,
    },
    /// Who asks is not known.
    #[error("{message}")]
    Unauthenticated {
        code: &'static str,
        message: &'static str,
    },
    /// Who asks is known and may not.
    #[error("{message}")]
    Forbidden {
        code: &'static str,
        message: Cow<'static, str>,
    },
    /// Too often: the same call may work after `retry_after`.
    #[error("too many requests")]
    RateLimited { retry_after: Duration },
    /// The month's budget does not allow it.
    #[error("{message}")]
    BudgetExceeded {
        code: &'static str,
        message: Cow<'static, str>,
    },
    /// More bytes than allowed.
    #[error("{message}")]
    TooLarge {
        code: &'static str,
        message: Cow<'static, str>,
    },
    /// A type of content that is not accepted here.
    #[error("{message}")]
    UnsupportedType {
        code: &'static str,
        message: Cow<'static, str>,
    },
    /// Something this service depends on does not answer: try again later.
    #[error("{message}")]
    Unavailable {
        code: &'static str,
        message: Cow<'static, str>,
        retry_after: Duration,
        #[source]
        source: Option<BoxError>,
    },
    /// The model's server answered with something unusable or refused.
    #[error("{message}")]
    Upstream {
        code: &'static str,
        message: Cow<'static, str>,
        #[source]
        source: Option<BoxError>,
    },
    /// The disk is full.
    #[error("no space left to store this")]
    StorageFull,
    /// The database failed.
    #[error("database: {0}")]
    Database(#[from] sqlx::Error),
    /// A bug or a broken machine.
    #[error("internal: {0}")]
    Internal(#[source] BoxError),
}

impl Error {
    /// Content that does not hold, at the request field `field`.
    pub fn invalid(code: &'static str, field: &str, message: impl Into<Cow<'static, str>>) -> Self {
        Self::Invalid {
            code,
            field: Some(field.to_owned()),
            message: message.into(),
        }
    }

    /// A state that the request does not fit.
    pub fn conflict(code: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        Self::Conflict {
            code,
            message: message.into(),
        }
    }

    /// The folder of files does not answer, or is not the one that files were put into.
    pub fn storage_unavailable(source: impl Into<BoxError>) -> Self {
        Self::Unavailable {
            code: "storage_unavailable",
            message: "the server's store of files does not answer; try again shortly".into(),
            retry_after: Duration::from_secs(30),
            source: Some(source.into()),
        }
    }

    /// A failure that only a bug or a broken machine explains.
    pub fn internal(source: impl Into<BoxError>) -> Self {
        Self::Internal(source.into())
    }

    /// Whether a row that the written one belongs to is gone.
    pub fn is_missing_reference(&self) -> bool {
        matches!(self, Self::Database(sqlx::Error::Database(error)) if error.is_foreign_key_violation())
    }

    /// Whether two transactions waited for each other and this one was given up: it may go through when tried again.
    pub fn is_deadlock(&self) -> bool {
        matches!(self, Self::Database(sqlx::Error::Database(error)) if matches!(error.code().as_deref(), Some("40P01" | "40001")))
    }

    /// Whether a row with the same unique key exists already.
    pub fn is_unique_violation(&self) -> bool {
        matches!(self, Self::Database(sqlx::Error::Database(error)) if error.is_unique_violation())
    }
}

impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => Self::StorageFull,
            _ => Self::internal(error),
        }
    }
}

/// What a failure of the index means for a request or a job.
impl From<IndexError> for Error {
    fn from(error: IndexError) -> Self {
        let (code, message) = match error {
            IndexError::Unavailable { .. } | IndexError::InUse { .. } => (
                "index_unavailable",
                "the search index does not answer; try again shortly",
            ),
            IndexError::Overloaded => ("busy", "too many searches run at once; try again shortly"),
            IndexError::Damaged { .. } => (
                "index_unavailable",
                "the search index is damaged, or some of it is gone: the service's log says what. What is gone is made anew from the documents when the service is started again",
            ),
            error => return Self::internal(error),
        };
        Self::Unavailable {
            code,
            message: message.into(),
            retry_after: TRY_THE_INDEX_AFTER,
            source: Some(Box::new(error)),
        }
    }
}

impl From<serde_json::Error> for Error {
    fn from(error: serde_json::Error) -> Self {
        Self::internal(error)
    }
}
