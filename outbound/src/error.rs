//! Why a request gave no answer.

use std::error::Error as StdError;
use std::io;

use crate::guard::Refusal;
use crate::resolve::ResolveError;

type BoxError = Box<dyn StdError + Send + Sync>;

/// Why a guarded request gave no answer. [`OutboundError::is_transient`] says whether a later try may do better.
#[derive(Debug, thiserror::Error)]
pub enum OutboundError {
    /// The URL, a redirect, or an address behind it may not be reached.
    #[error("not a public URL: {0}")]
    NotPublic(#[from] Refusal),
    #[error("the name could not be resolved")]
    NotResolved(#[source] BoxError),
    #[error("no connection to the server")]
    Unreachable(#[source] BoxError),
    /// No valid certificate for this host, or no common TLS version.
    #[error("no trusted TLS connection")]
    Tls(#[source] BoxError),
    #[error("no complete answer within {seconds} s")]
    TimedOut { seconds: u64 },
    /// The decoded body is longer than the limit.
    #[error("the answer is longer than {limit_bytes} bytes")]
    TooLarge { limit_bytes: usize },
    #[error("more than {limit} redirects")]
    TooManyRedirects { limit: u32 },
    /// A redirect without a usable target, or one that would carry a changing request to another server.
    #[error("unusable redirect: {reason}")]
    BadRedirect { reason: &'static str },
    #[error("the content type {found:?} is not accepted")]
    ContentType { found: String },
    /// A header that belongs to the transport was given by the caller.
    #[error("the header {name:?} can not be set")]
    HeaderNotAllowed { name: String },
    /// The answer breaks HTTP or its content encoding.
    #[error("unreadable answer")]
    Unreadable(#[source] BoxError),
}

impl OutboundError {
    /// Stable, for the API and for stored reasons.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotPublic(_) => "url_not_public",
            Self::NotResolved(_) => "name_not_resolved",
            Self::Unreachable(_) => "unreachable",
            Self::Tls(_) => "tls_failed",
            Self::TimedOut { .. } => "timed_out",
            Self::TooLarge { .. } => "too_large",
            Self::TooManyRedirects { .. } => "too_many_redirects",
            Self::BadRedirect { .. } => "bad_redirect",
            Self::ContentType { .. } => "content_type",
            Self::HeaderNotAllowed { .. } => "header_not_allowed",
            Self::Unreadable(_) => "unreadable_answer",
        }
    }

    /// Whether the same request may succeed later without anyone changing it.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::NotResolved(_) | Self::Unreachable(_) | Self::TimedOut { .. } | Self::Unreadable(_) => true,
            Self::NotPublic(_)
            | Self::Tls(_)
            | Self::TooLarge { .. }
            | Self::TooManyRedirects { .. }
            | Self::BadRedirect { .. }
            | Self::ContentType { .. }
            | Self::HeaderNotAllowed { .. } => false,
        }
    }

    /// Finds the cause under the layers of the HTTP client. `total_seconds` is the deadline to name for its timeouts.
    pub(crate) fn from_http(error: reqwest::Error, total_seconds: u64) -> Self {
        if let Some(resolve_error) = find_cause::<ResolveError>(&error) {
            return match resolve_error {
                ResolveError::Refused(refusal) => Self::NotPublic(refusal.clone()),
                ResolveError::NotResolved(_) => Self::NotResolved(error.without_url().into()),
            };
        }
        if error.is_timeout() && !error.is_connect() {
            return Self::TimedOut {
                seconds: total_seconds,
            };
        }
        // The TLS layer reports what it finds wrong as invalid data below the connection error.
        let is_tls = find_cause::<rustls::Error>(&error).is_some()
            || find_cause::<io::Error>(&error)
                .is_some_and(|cause| cause.kind() == io::ErrorKind::InvalidData);
        if error.is_connect() && is_tls {
            return Self::Tls(error.without_url().into());
        }
        if error.is_connect() {
            return Self::Unreachable(error.without_url().into());
        }
        Self::Unreadable(error.without_url().into())
    }
}

/// The first error of type `T` in the chain of causes.
fn find_cause<'a, T: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a T> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<T>() {
            return Some(found);
        }
        // io::Error hides the error it wraps from source() of some wrappers; look inside.
        let inner = error
            .downcast_ref::<io::Error>()
            .and_then(|io_error| io_error.get_ref());
        next = match inner {
            Some(inner) => Some(inner as &(dyn StdError + 'static)),
            None => error.source(),
        };
    }
    None
}
