//! What the client says of a server that it cannot reach, in words. It reports a first connection that fails as an internal
//! error of nobody's, one that is to be renewed as a server that is unavailable, and either with what its transport had to say
//! in the notation of programmers.

use qdrant_client::QdrantError;
use tonic::Code;

use super::calls::status_of;

/// How the client begins when it makes a connection.
const CANNOT_CONNECT: &str = "Failed to connect to ";

/// What its transport says when it renews one.
const CANNOT_RENEW: [&str; 3] = ["connect error", "dns error", "transport error"];

/// A server that was not reached.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NoConnection {
    /// What is the case, with the address.
    pub(super) told: String,
    /// The same, as a cause.
    pub(super) cause: &'static str,
}

/// Why there is no connection to `url`; `None`: the server answered.
pub(super) fn look(error: &QdrantError, url: &str) -> Option<NoConnection> {
    let status = status_of(error)?;
    let is_missing = match status.code() {
        Code::Internal => status.message().starts_with(CANNOT_CONNECT),
        Code::Unavailable => CANNOT_RENEW.iter().any(|end| status.message().ends_with(end)),
        _ => false,
    };
    if !is_missing {
        return None;
    }
    // With its sources.
    let detail = format!("{status:?}");
    let says = |signs: &[&str]| signs.iter().any(|sign| detail.contains(sign));
    let (told, cause) = if says(&["ConnectionRefused"]) {
        (format!("nobody listens at {url}"), "the connection was refused")
    } else if says(&["dns error", "failed to lookup"]) {
        (
            format!("the name in {url} is not known"),
            "the name cannot be looked up",
        )
    } else if says(&["Elapsed", "TimedOut", "deadline"]) {
        (format!("{url} does not answer"), "connecting took too long")
    } else if says(&["NetworkUnreachable", "HostUnreachable"]) {
        (format!("there is no way to {url} from here"), "it is unreachable")
    } else if says(&["ertificate"]) {
        (
            format!("the certificate of {url} is not accepted"),
            "it does not prove who it is",
        )
    } else {
        (
            format!("no connection to {url} comes about"),
            "the connection failed",
        )
    };
    Some(NoConnection { told, cause })
}

#[cfg(test)]
mod tests {
    use tonic::Status;

    use super::*;

    fn told(status: Status) -> Option<String> {
        look(&status.into(), "http://127.0.0.1:1").map(|missing| missing.told)
    }

    #[test]
    fn what_the_client_cannot_reach_is_told_in_words() {
        let refused = r#"Failed to connect to http://127.0.0.1:1/: tonic::transport::Error(Transport, ConnectError(ConnectError("tcp connect error", 127.0.0.1:1, Os { code: 111, kind: ConnectionRefused, message: "Connection refused" })))"#;
        assert_eq!(
            told(Status::internal(refused)).as_deref(),
            Some("nobody listens at http://127.0.0.1:1")
        );
        let unknown = r#"Failed to connect to https://no.example:6334/: tonic::transport::Error(Transport, ConnectError(ConnectError("dns error", Custom { kind: Uncategorized, error: "failed to lookup address information: Name or service not known" })))"#;
        assert_eq!(
            told(Status::internal(unknown)).as_deref(),
            Some("the name in http://127.0.0.1:1 is not known")
        );
        for other in [
            Status::internal("Failed to connect to http://127.0.0.1:1/: something new"),
            Status::unavailable("tcp connect error"),
        ] {
            assert_eq!(
                told(other).as_deref(),
                Some("no connection to http://127.0.0.1:1 comes about")
            );
        }
    }

    #[test]
    fn what_the_server_says_itself_is_no_lost_connection() {
        assert_eq!(told(Status::internal("Service internal error: no replica")), None);
        assert_eq!(told(Status::unavailable("no leader is elected")), None);
        assert_eq!(
            told(Status::not_found("Failed to connect to http://peer: x")),
            None
        );
    }
}
