//! Why a page could not be read, for programs and for the owner who looks at the run.

use std::time::Duration;

use outbound::OutboundError;

use super::politeness::Busy;

/// Servers ask for pauses of years; a run does not wait longer than this for one page.
const MAX_PAUSE: Duration = Duration::from_secs(3_600);

/// The code of requests that were not sent.
const HOST_BUSY: &str = "host_busy";

/// Whether the same request may succeed later without anyone changing it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    Never,
    /// Not before this pause, if the server named one.
    After(Option<Duration>),
}

/// Why a page could not be read. A page that could not be read is not a page that was deleted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct FetchFailure {
    /// Stable.
    pub code: &'static str,
    /// A sentence for the owner of the source, who reads it beside the address. It never holds the server's own words.
    pub message: String,
    pub retry: Retry,
}

impl FetchFailure {
    pub(super) fn new(code: &'static str, message: impl Into<String>, retry: Retry) -> Self {
        Self {
            code,
            message: message.into(),
            retry,
        }
    }

    /// What the failure of a request is that was not sent, because its host is to be left alone: the pause that the
    /// host needs. Nothing is wrong with the page.
    pub fn host_pause(&self) -> Option<Duration> {
        self.pause().filter(|_| self.code == HOST_BUSY)
    }

    /// The site's robots.txt forbids the page.
    pub(super) fn robots_disallowed() -> Self {
        Self::new(
            "robots_disallowed",
            "The site's robots.txt asks crawlers not to read this page. Allow our user agent there, or upload the content.",
            Retry::Never,
        )
    }

    /// Nothing may be read while it is unknown what the site allows.
    pub(super) fn robots_unavailable(cause: &Self) -> Self {
        Self::new(
            "robots_unavailable",
            format!(
                "The site's robots.txt could not be read, so none of its pages may be. {}",
                cause.message
            ),
            Retry::After(cause.pause()),
        )
    }

    /// The source wants its pages rendered and no browser is configured.
    pub(super) fn render_unavailable() -> Self {
        Self::new(
            "render_unavailable",
            "This service has no browser to run the page's scripts. Turn rendering off for this source, or ask the operator.",
            Retry::Never,
        )
    }

    /// An answer with a status that brings no page. `pause` is what the server asked for.
    pub(super) fn of_status(status: u16, pause: Option<Duration>) -> Self {
        let pause = pause.map(|pause| pause.min(MAX_PAUSE));
        match status {
            401 => Self::new(
                "http_401",
                "The site asks for a login. Give the source a user name and password, or a header with a token.",
                Retry::Never,
            ),
            403 => Self::new(
                "http_403",
                "The site refuses this page to us. Allow our user agent in its firewall, or upload the content.",
                Retry::Never,
            ),
            408 | 425 => Self::new(
                "server_error",
                format!("The site could not answer in time (status {status}). It is tried again."),
                Retry::After(pause),
            ),
            429 => Self::new(
                "http_429",
                "The site limits how often its pages may be read. It is tried again more slowly.",
                Retry::After(pause),
            ),
            500.. => Self::new(
                "server_error",
                format!("The site failed to answer (status {status}). It is tried again."),
                Retry::After(pause),
            ),
            _ => Self::new(
                "http_status",
                format!(
                    "The site answered with status {status} instead of a page. Open the page in a browser to see why."
                ),
                Retry::Never,
            ),
        }
    }

    fn pause(&self) -> Option<Duration> {
        match self.retry {
            Retry::After(pause) => pause,
            Retry::Never => None,
        }
    }
}

impl From<OutboundError> for FetchFailure {
    fn from(error: OutboundError) -> Self {
        let (code, message) = match &error {
            OutboundError::NotPublic(refusal) => (
                "url_not_public",
                format!("The address may not be read: {refusal}. Only public addresses can be."),
            ),
            OutboundError::NotResolved(_) => (
                "name_not_resolved",
                "The name of the site is not known. Check its spelling.".to_owned(),
            ),
            OutboundError::Unreachable(_) => (
                "connection_failed",
                "The site could not be reached. Check that it is online.".to_owned(),
            ),
            OutboundError::Tls(_) => (
                "tls_failed",
                "The site has no valid certificate. Renew it, or use the right host name.".to_owned(),
            ),
            OutboundError::TimedOut { seconds } => (
                "timed_out",
                format!("The page did not arrive within {seconds} seconds."),
            ),
            OutboundError::TooLarge { limit_bytes } => (
                "too_large",
                format!(
                    "The page is larger than {} KiB. Split it into smaller ones.",
                    limit_bytes / 1024
                ),
            ),
            OutboundError::TooManyRedirects { limit } => (
                "too_many_redirects",
                format!("The address leads on to others more than {limit} times."),
            ),
            OutboundError::BadRedirect { reason } => {
                ("bad_redirect", format!("The address leads nowhere: {reason}."))
            }
            OutboundError::ContentType { found } => (
                "unsupported_type",
                format!(
                    "Content of the type {:?} holds no text that can be read.",
                    shown(found)
                ),
            ),
            OutboundError::HeaderNotAllowed { name } => (
                "header_not_allowed",
                format!(
                    "The header {:?} cannot be set. Take it out of the source.",
                    shown(name)
                ),
            ),
            OutboundError::Unreadable(_) => (
                "unreadable_answer",
                "The site's answer broke off or breaks the rules of HTTP.".to_owned(),
            ),
        };
        let retry = if error.is_transient() {
            Retry::After(None)
        } else {
            Retry::Never
        };
        Self::new(code, message, retry)
    }
}

impl From<Busy> for FetchFailure {
    fn from(busy: Busy) -> Self {
        Self::new(
            HOST_BUSY,
            "The site wishes to be asked more slowly. It is asked later.",
            Retry::After(Some(busy.pause)),
        )
    }
}

/// What a server said, short enough for a sentence.
fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(80).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_says_whether_another_try_makes_sense() {
        let second = Some(Duration::from_secs(1));
        for (status, code, retry) in [
            (401, "http_401", Retry::Never),
            (403, "http_403", Retry::Never),
            (400, "http_status", Retry::Never),
            (429, "http_429", Retry::After(second)),
            (500, "server_error", Retry::After(second)),
            (503, "server_error", Retry::After(second)),
        ] {
            let failure = FetchFailure::of_status(status, second);
            assert_eq!((failure.code, failure.retry), (code, retry), "{status}");
        }
    }

    #[test]
    fn a_pause_of_years_is_cut() {
        let failure = FetchFailure::of_status(503, Some(Duration::from_secs(100_000_000)));
        assert_eq!(failure.retry, Retry::After(Some(MAX_PAUSE)));
    }
}
