//! What an owner gives us to be let into a site. It goes to the scheme, host and port of the source and nowhere else.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use outbound::{HeaderMap, HeaderName, HeaderValue, is_transport_header};
use url::{Origin, Url};

/// Headers of one source.
pub const MAX_HEADERS: usize = 20;

/// Of all headers of a source together.
const MAX_HEADER_BYTES: usize = 16 * 1024;

/// Headers by which we say who we are and what we have.
const OWN_HEADERS: &[&str] = &[
    "accept",
    "if-modified-since",
    "if-none-match",
    "range",
    "user-agent",
];

/// Custom headers and a login for one origin.
#[derive(Clone, Default)]
pub struct Credentials {
    origin: Option<Origin>,
    headers: HeaderMap,
}

/// What is wrong with the headers of a source.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CredentialsError {
    #[error("there are more than {MAX_HEADERS} headers")]
    TooMany,
    #[error("the headers are longer than {MAX_HEADER_BYTES} bytes together")]
    TooLong,
    #[error("{0:?} is not a header name")]
    Name(String),
    #[error("the value of the header {0:?} holds characters that headers cannot carry")]
    Value(String),
    #[error("the header {0:?} cannot be set: the crawler sets it itself")]
    NotAllowed(String),
    #[error("a user name cannot hold a colon")]
    UserName,
}

impl Credentials {
    /// No credentials, for sites that anyone may read.
    pub fn none() -> Self {
        Self::default()
    }

    /// What the origin of `site` is sent: `headers` as name and value, and a user name with its password.
    pub fn new(
        site: &Url,
        headers: &[(String, String)],
        basic: Option<(&str, &str)>,
    ) -> Result<Self, CredentialsError> {
        if headers.len() > MAX_HEADERS {
            return Err(CredentialsError::TooMany);
        }
        let length = |(name, value): &(String, String)| name.len() + value.len();
        if headers.iter().map(length).sum::<usize>() > MAX_HEADER_BYTES {
            return Err(CredentialsError::TooLong);
        }
        let mut map = HeaderMap::new();
        for (written, value) in headers {
            let name: HeaderName = written
                .parse()
                .map_err(|_| CredentialsError::Name(written.clone()))?;
            if is_transport_header(&name) || OWN_HEADERS.contains(&name.as_str()) {
                return Err(CredentialsError::NotAllowed(written.clone()));
            }
            map.append(
                name,
                secret(value).ok_or_else(|| CredentialsError::Value(written.clone()))?,
            );
        }
        if let Some((user, password)) = basic {
            if user.contains(':') {
                return Err(CredentialsError::UserName);
            }
            let login = format!("Basic {}", STANDARD.encode(format!("{user}:{password}")));
            let value = secret(&login).expect("base64 fits into a header");
            map.insert("authorization", value);
        }
        Ok(Self {
            origin: Some(site.origin()),
            headers: map,
        })
    }

    /// What a request to `url` carries: nothing, if it goes to another origin.
    pub(super) fn for_url(&self, url: &Url) -> HeaderMap {
        match &self.origin {
            Some(origin) if *origin == url.origin() => self.headers.clone(),
            _ => HeaderMap::new(),
        }
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.headers.keys().map(HeaderName::as_str).collect();
        f.debug_struct("Credentials")
            .field("headers", &names)
            .finish_non_exhaustive()
    }
}

fn secret(value: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(value).ok()?;
    value.set_sensitive(true);
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        Url::parse(text).expect("the test names a URL")
    }

    fn headers(name: &str, value: &str) -> Vec<(String, String)> {
        vec![(name.to_owned(), value.to_owned())]
    }

    #[test]
    fn credentials_go_to_their_own_scheme_host_and_port_only() {
        let site = url("https://example.org/docs");
        let credentials = Credentials::new(&site, &headers("X-Key", "k"), Some(("u", "p"))).expect("valid");

        let own = credentials.for_url(&url("https://example.org/other"));
        assert_eq!(own["authorization"], "Basic dTpw");
        assert_eq!(own["x-key"], "k");
        for other in [
            "http://example.org/",
            "https://www.example.org/",
            "https://example.org:8443/",
            "https://example.net/",
        ] {
            assert!(credentials.for_url(&url(other)).is_empty(), "{other}");
        }
    }

    #[test]
    fn headers_that_are_not_the_owners_to_set_are_refused() {
        let site = url("https://example.org/");
        let refusal = |name: &str, value: &str| {
            Credentials::new(&site, &headers(name, value), None).expect_err("refused")
        };
        for name in [
            "Host",
            "Content-Length",
            "Transfer-Encoding",
            "Connection",
            "Proxy-Authorization",
            "User-Agent",
            "If-None-Match",
        ] {
            assert_eq!(refusal(name, "x"), CredentialsError::NotAllowed(name.into()));
        }
        assert_eq!(refusal("a b", "x"), CredentialsError::Name("a b".into()));
        assert_eq!(refusal("a", "x\r\nb: c"), CredentialsError::Value("a".into()));
        let many = vec![("a".to_owned(), "b".to_owned()); MAX_HEADERS + 1];
        assert_eq!(
            Credentials::new(&site, &many, None).expect_err("refused"),
            CredentialsError::TooMany
        );
        let long = headers("a", &"b".repeat(MAX_HEADER_BYTES));
        assert_eq!(
            Credentials::new(&site, &long, None).expect_err("refused"),
            CredentialsError::TooLong
        );
    }

    #[test]
    fn secrets_are_not_shown() {
        let credentials = Credentials::new(
            &url("https://example.org/"),
            &headers("x-key", "hush"),
            Some(("u", "pw")),
        )
        .expect("valid");
        let shown = format!("{credentials:?}");
        assert!(
            shown.contains("x-key") && !shown.contains("hush") && !shown.contains("dTpwdw"),
            "{shown}"
        );
    }
}
