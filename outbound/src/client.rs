//! The guarded client: sends one request, follows its redirects by hand so that each hop is judged, reads the answer
//! within the limits.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{
    ACCEPT, ACCEPT_ENCODING, ACCEPT_LANGUAGE, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE,
    EXPECT, HOST, IF_MODIFIED_SINCE, IF_NONE_MATCH, LOCATION, RANGE, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
    USER_AGENT,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use url::Url;

use crate::body;
use crate::error::OutboundError;
use crate::guard::Guard;
use crate::resolve::{Connecting, Resolver, SystemResolver};
use crate::tls::tls_config;

/// How servers see us unless the caller names itself.
const DEFAULT_USER_AGENT: &str = concat!("frontdesk/", env!("CARGO_PKG_VERSION"));

/// Idle connections are kept this long: enough for the pages of one crawl.
const POOL_IDLE: Duration = Duration::from_secs(30);

/// Headers that say how bytes travel. They are ours to set; a caller's value could smuggle a second request or aim the
/// request at another host behind the same address.
const TRANSPORT_HEADERS: &[HeaderName] = &[
    ACCEPT_ENCODING,
    CONNECTION,
    CONTENT_LENGTH,
    EXPECT,
    HOST,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// The caller's headers that another scheme, host or port may see. Every other one may be a credential.
const HARMLESS_HEADERS: &[HeaderName] = &[
    ACCEPT,
    ACCEPT_LANGUAGE,
    CONTENT_TYPE,
    IF_MODIFIED_SINCE,
    IF_NONE_MATCH,
    RANGE,
    USER_AGENT,
];

/// What one request may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// For each connection, name resolution and TLS handshake included.
    pub connect: Duration,
    /// From the first byte sent to the last byte read, over all redirects.
    pub total: Duration,
    /// Of the decoded body.
    pub max_bytes: usize,
    /// 0 makes every redirect an error.
    pub max_redirects: u32,
}

impl Default for Limits {
    /// The limits for a page.
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            total: Duration::from_secs(30),
            max_bytes: 10 * 1024 * 1024,
            max_redirects: 5,
        }
    }
}

/// Which answers the caller can use. It is what the `Accept` header says, and a successful answer of another type is an
/// error before its body is read.
#[derive(Clone, Debug, Default)]
pub struct Accept {
    content_types: Vec<String>,
    unnamed: bool,
}

impl Accept {
    /// Every content type, and answers that name none.
    pub fn anything() -> Self {
        Self::default()
    }

    /// These media types only, without parameters, in lower case: `text/html`, or `text/*` for a family.
    pub fn only<T: Into<String>>(content_types: impl IntoIterator<Item = T>) -> Self {
        Self {
            content_types: content_types.into_iter().map(Into::into).collect(),
            unnamed: false,
        }
    }

    /// Answers that name no type at all as well; the caller looks at their bytes.
    pub fn or_unnamed(self) -> Self {
        Self {
            unnamed: true,
            ..self
        }
    }

    fn allows(&self, media_type: &str) -> bool {
        let fits = |accepted: &String| match accepted.strip_suffix('*') {
            Some(family) => media_type.starts_with(family),
            None => media_type == accepted,
        };
        self.content_types.is_empty()
            || (self.unnamed && media_type.is_empty())
            || self.content_types.iter().any(fits)
    }

    fn header(&self) -> Option<HeaderValue> {
        HeaderValue::from_str(&self.content_types.join(", "))
            .ok()
            .filter(|value| !value.is_empty())
    }
}

/// A request to send. Credentials go into `headers`; they reach the scheme, host and port of `url` and no other.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: Method,
    pub url: Url,
    pub headers: HeaderMap,
    pub body: Option<Bytes>,
}

/// Whether a redirect to this address is to be followed, asked before the guard judges the address.
pub type MayFollow<'a> = &'a (dyn Fn(&Url) -> bool + Send + Sync);

/// An answer. Its status is that of a redirect only if it named no target, or one that the caller would not follow.
#[derive(Clone, Debug)]
pub struct Fetched {
    pub status: StatusCode,
    /// Where the answer came from, after redirects.
    pub final_url: Url,
    /// As received, less the content encoding that `body` no longer has.
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Fetched {
    /// The media type in lower case, without parameters.
    pub fn media_type(&self) -> Option<String> {
        media_type(&self.headers)
    }

    /// Where a redirect that was not followed leads.
    pub fn redirect_target(&self) -> Option<Url> {
        let target = redirect_target(self.status, &self.headers)?;
        self.final_url.join(&target).ok()
    }
}

/// The HTTP client for URLs that someone else named. Cheap to clone; clones share their connections.
#[derive(Clone)]
pub struct GuardedClient {
    guard: Guard,
    limits: Limits,
    public: reqwest::Client,
    /// For the hosts that the operator listed: the one client whose addresses are not judged. A client of its own, so
    /// that no other request can find one of its open connections.
    listed: Option<reqwest::Client>,
}

impl GuardedClient {
    pub fn new(guard: Guard, limits: Limits) -> Self {
        Self::with_resolver(guard, limits, Arc::new(SystemResolver))
    }

    /// Resolves names by `resolver`, whose answers are judged like any other.
    pub fn with_resolver(guard: Guard, limits: Limits, resolver: Arc<dyn Resolver>) -> Self {
        let tls = tls_config();
        let build = |judged| {
            let connecting = Connecting {
                resolver: resolver.clone(),
                judged,
            };
            http_client(connecting, limits.connect, tls.clone())
        };
        let listed = (!guard.lists_nothing()).then(|| build(false));
        Self {
            public: build(true),
            listed,
            guard,
            limits,
        }
    }

    /// The same client and connections under other limits. The time to connect stays as it was.
    pub fn with_limits(&self, limits: Limits) -> Self {
        Self {
            limits: Limits {
                connect: self.limits.connect,
                ..limits
            },
            ..self.clone()
        }
    }

    /// To judge a URL when it is saved, long before it is fetched.
    pub fn guard(&self) -> &Guard {
        &self.guard
    }

    pub async fn get(
        &self,
        url: &Url,
        accept: &Accept,
        headers: HeaderMap,
    ) -> Result<Fetched, OutboundError> {
        self.send(
            Request {
                method: Method::GET,
                url: url.clone(),
                headers,
                body: None,
            },
            accept,
        )
        .await
    }

    pub async fn post(
        &self,
        url: &Url,
        accept: &Accept,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<Fetched, OutboundError> {
        self.send(
            Request {
                method: Method::POST,
                url: url.clone(),
                headers,
                body: Some(body),
            },
            accept,
        )
        .await
    }

    /// Sends `request` and follows its redirects. A request that changes something never follows one to another server.
    pub async fn send(&self, request: Request, accept: &Accept) -> Result<Fetched, OutboundError> {
        self.send_following(request, accept, &|_| true).await
    }

    /// Sends `request` and follows its redirects as long as `may_follow` agrees. The redirect that it declines is the
    /// answer, without a body.
    pub async fn send_following(
        &self,
        request: Request,
        accept: &Accept,
        may_follow: MayFollow<'_>,
    ) -> Result<Fetched, OutboundError> {
        let timed_out = OutboundError::TimedOut {
            seconds: self.limits.total.as_secs(),
        };
        let answer = tokio::time::timeout(self.limits.total, self.follow(request, accept, may_follow)).await;
        answer.unwrap_or(Err(timed_out))
    }

    async fn follow(
        &self,
        mut request: Request,
        accept: &Accept,
        may_follow: MayFollow<'_>,
    ) -> Result<Fetched, OutboundError> {
        if let Some(name) = request.headers.keys().find(|name| is_transport_header(name)) {
            return Err(OutboundError::HeaderNotAllowed {
                name: name.to_string(),
            });
        }
        if let Some(value) = accept.header() {
            request.headers.entry(ACCEPT).or_insert(value);
        }
        let mut redirects = 0;
        loop {
            let response = self.send_once(&request).await?;
            let Some(location) = redirect_target(response.status(), response.headers()) else {
                return self.read(request.url, response, accept).await;
            };
            let target = request.url.join(&location);
            if target.is_ok_and(|target| !may_follow(&target)) {
                return Ok(Fetched {
                    status: response.status(),
                    final_url: request.url,
                    headers: response.headers().clone(),
                    body: Bytes::new(),
                });
            }
            if redirects == self.limits.max_redirects {
                return Err(OutboundError::TooManyRedirects {
                    limit: self.limits.max_redirects,
                });
            }
            redirects += 1;
            request = next_hop(request, response.status(), &location)?;
        }
    }

    async fn send_once(&self, request: &Request) -> Result<reqwest::Response, OutboundError> {
        self.guard.judge_url(&request.url)?;
        let client = match &self.listed {
            Some(listed) if self.guard.is_listed(&request.url) => listed,
            _ => &self.public,
        };
        let mut builder = client
            .request(request.method.clone(), request.url.clone())
            .headers(request.headers.clone());
        if let Some(body) = &request.body {
            builder = builder.body(body.clone());
        }
        builder.send().await.map_err(|error| self.to_error(error))
    }

    async fn read(
        &self,
        final_url: Url,
        response: reqwest::Response,
        accept: &Accept,
    ) -> Result<Fetched, OutboundError> {
        let status = response.status();
        let mut headers = response.headers().clone();
        // A refusal or a 304 says what it says in any format.
        if status.is_success() && status != StatusCode::NO_CONTENT {
            let found = media_type(&headers).unwrap_or_default();
            if !accept.allows(&found) {
                return Err(OutboundError::ContentType { found });
            }
        }
        let body = body::read(response, self.limits.max_bytes, |error| self.to_error(error)).await?;
        if headers.remove(CONTENT_ENCODING).is_some() {
            headers.remove(CONTENT_LENGTH);
        }
        Ok(Fetched {
            status,
            final_url,
            headers,
            body,
        })
    }

    fn to_error(&self, error: reqwest::Error) -> OutboundError {
        OutboundError::from_http(error, self.limits.total.as_secs())
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "this is the guarded client that all others are sent to"
)]
fn http_client(connecting: Connecting, connect: Duration, tls: rustls::ClientConfig) -> reqwest::Client {
    reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .dns_resolver(connecting)
        .connect_timeout(connect)
        .redirect(reqwest::redirect::Policy::none())
        // A proxy from the environment would resolve names behind our back.
        .no_proxy()
        .referer(false)
        .no_gzip()
        .no_brotli()
        .no_deflate()
        .no_zstd()
        .default_headers(HeaderMap::from_iter([(
            ACCEPT_ENCODING,
            HeaderValue::from_static("gzip"),
        )]))
        .user_agent(DEFAULT_USER_AGENT)
        .pool_idle_timeout(POOL_IDLE)
        .tcp_nodelay(true)
        .build()
        .expect("the TLS settings are complete and the user agent is a valid header")
}

/// Whether `name` says how bytes travel, so that no caller may set it.
pub fn is_transport_header(name: &HeaderName) -> bool {
    TRANSPORT_HEADERS.contains(name) || name.as_str().starts_with("proxy-") || name.as_str() == "keep-alive"
}

/// Where a redirect points, as its header says it. An answer with a redirect status but no target is an answer.
fn redirect_target(status: StatusCode, headers: &HeaderMap) -> Option<String> {
    let is_redirect = matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308);
    let location = headers.get(LOCATION).filter(|_| is_redirect)?;
    Some(String::from_utf8_lossy(location.as_bytes()).into_owned())
}

/// The request that follows a redirect, by the rules of the Fetch standard: 303, and 301 or 302 after POST, turn into
/// GET. What may be a credential, and the body, stay with the server they were meant for.
fn next_hop(mut request: Request, status: StatusCode, location: &str) -> Result<Request, OutboundError> {
    let bad = |reason| OutboundError::BadRedirect { reason };
    let target = request
        .url
        .join(location)
        .map_err(|_| bad("its target is not a URL"))?;
    let turns_into_get = match status.as_u16() {
        303 => request.method != Method::GET && request.method != Method::HEAD,
        301 | 302 => request.method == Method::POST,
        _ => false,
    };
    if turns_into_get {
        request.method = Method::GET;
        request.body = None;
        request.headers.remove(CONTENT_TYPE);
    }
    let same_server = request.url.origin() == target.origin();
    let changes_nothing = request.method == Method::GET || request.method == Method::HEAD;
    if !same_server && (!changes_nothing || request.body.is_some()) {
        return Err(bad("it would carry a changing request to another server"));
    }
    if !same_server {
        let dropped: Vec<HeaderName> = request
            .headers
            .keys()
            .filter(|name| !HARMLESS_HEADERS.contains(name))
            .cloned()
            .collect();
        for name in dropped {
            request.headers.remove(name);
        }
    }
    request.url = target;
    Ok(request)
}

fn media_type(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(CONTENT_TYPE)?.to_str().ok()?;
    let essence = value.split(';').next().unwrap_or_default().trim();
    Some(essence.to_ascii_lowercase()).filter(|media_type| !media_type.is_empty())
}
