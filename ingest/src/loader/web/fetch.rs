//! One page over the guarded client: conditional, within its limits, with a reason when there is none.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use outbound::{Accept, Fetched, GuardedClient, HeaderMap, HeaderValue, Limits, MayFollow, Method, Request};
use tokio::time::Instant;
use url::Url;

use super::address::normalize;
use super::credentials::Credentials;
use super::failure::{FetchFailure, Retry};
use super::page::{Page, Validators};

/// What we can read, or tell from its bytes.
const MEDIA_TYPES: &[&str] = &[
    "text/html",
    "text/plain",
    "text/markdown",
    "text/x-markdown",
    "text/csv",
    "text/tab-separated-values",
    "text/xml",
    "text/rtf",
    "text/x-rst",
    "text/asciidoc",
    "application/xhtml+xml",
    "application/xml",
    "application/pdf",
    "application/x-pdf",
    "application/json",
    "application/ld+json",
    "application/jsonl",
    "application/x-ndjson",
    "application/rtf",
    "application/csv",
    "application/epub+zip",
    "application/zip",
    "application/msword",
    "application/vnd.ms-excel",
    "application/vnd.ms-powerpoint",
    "application/vnd.openxmlformats-officedocument.*",
    "application/vnd.oasis.opendocument.*",
    "application/octet-stream",
    "binary/octet-stream",
    "message/rfc822",
    "image/png",
    "image/jpeg",
    "image/tiff",
    "image/webp",
    "image/gif",
    "image/bmp",
    "audio/*",
    "video/*",
];

const ACCEPT: HeaderValue =
    HeaderValue::from_static("text/html,application/xhtml+xml,application/pdf;q=0.9,text/*;q=0.8,*/*;q=0.5");

/// How pages are fetched.
#[derive(Clone, Debug)]
pub struct FetchSettings {
    /// Sent with each request. Its first word, up to a slash, is the name that a robots.txt knows us by.
    pub user_agent: String,
    /// Of one page, redirects included.
    pub limits: Limits,
}

/// The configured user agent cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the user agent {0:?} has to be visible ASCII and start with a name of letters, - and _")]
pub struct BadUserAgent(String);

/// What to fetch.
#[derive(Clone, Copy)]
pub struct PageRequest<'a> {
    pub url: &'a Url,
    /// Of the copy we have.
    pub validators: &'a Validators,
    pub credentials: &'a Credentials,
    /// The pause between requests that the owner of the source wishes for.
    pub delay: Duration,
    /// No request begins later.
    pub begin_until: Instant,
    /// Whether the page's scripts are run. It is then always fetched: a copy of a page that scripts fill says nothing
    /// about what they fill it with.
    pub render: bool,
    /// Whether a redirect to this address, of the same origin, stays within the source.
    pub may_follow: MayFollow<'a>,
}

/// What a server said about a page.
#[derive(Clone, Debug)]
pub enum Answer {
    Page(Box<Page>),
    /// The copy that the validators belong to still holds.
    NotModified,
    /// The page is elsewhere: at another origin, or where `may_follow` or robots.txt says no. To be judged and queued
    /// like a link. In normal form.
    Redirected {
        to: Url,
    },
    /// There is no such page (404, 410).
    Gone {
        status: u16,
    },
}

/// Fetches without regard for robots.txt or pace; [`super::WebLoader`] adds both. Cheap to clone.
#[derive(Clone)]
pub(super) struct Fetcher {
    client: GuardedClient,
    user_agent: HeaderValue,
    product: String,
    accept: Accept,
}

impl Fetcher {
    pub(super) fn new(client: &GuardedClient, settings: &FetchSettings) -> Result<Self, BadUserAgent> {
        let bad = || BadUserAgent(settings.user_agent.clone());
        let product: String = settings
            .user_agent
            .chars()
            .take_while(|c| c.is_ascii_alphabetic() || matches!(c, '-' | '_'))
            .collect();
        if product.is_empty()
            || !settings
                .user_agent
                .bytes()
                .all(|byte| matches!(byte, b' '..=b'~'))
        {
            return Err(bad());
        }
        Ok(Self {
            client: client.with_limits(settings.limits),
            user_agent: HeaderValue::from_str(&settings.user_agent).map_err(|_| bad())?,
            product,
            accept: Accept::only(MEDIA_TYPES.iter().copied()).or_unnamed(),
        })
    }

    /// The same with another limit on the size of an answer.
    pub(super) fn with_max_bytes(&self, max_bytes: usize, limits: Limits) -> Self {
        Self {
            client: self.client.with_limits(Limits { max_bytes, ..limits }),
            ..self.clone()
        }
    }

    /// The name by which a robots.txt speaks to us.
    pub(super) fn product(&self) -> &str {
        &self.product
    }

    /// Fetches a page, following redirects within its origin as far as `may_follow` agrees.
    pub(super) async fn fetch(&self, request: &PageRequest<'_>) -> Result<Answer, FetchFailure> {
        let mut headers = request.credentials.for_url(request.url);
        let has_validators = !request.render && *request.validators != Validators::default();
        if has_validators {
            request.validators.write_to(&mut headers);
        }
        headers.insert(http::header::ACCEPT, ACCEPT);
        let origin = request.url.origin();
        let may_follow = |target: &Url| target.origin() == origin && (request.may_follow)(target);
        let fetched = self.send(request.url, headers, &self.accept, &may_follow).await?;
        if let Some(target) = fetched.redirect_target() {
            let to = normalize(&target).map_err(|error| {
                FetchFailure::new(
                    "bad_redirect",
                    format!("The address leads nowhere: {error}."),
                    Retry::Never,
                )
            })?;
            return Ok(Answer::Redirected { to });
        }
        match fetched.status.as_u16() {
            200..=299 => Ok(Answer::Page(Box::new(Page::new(fetched, &self.product)))),
            304 if has_validators => Ok(Answer::NotModified),
            status @ (404 | 410) => Ok(Answer::Gone { status }),
            status => Err(FetchFailure::of_status(status, retry_after(&fetched.headers))),
        }
    }

    /// Any answer to a plain GET that follows every redirect that the guard lets through.
    pub(super) async fn get(&self, url: &Url, credentials: &Credentials) -> Result<Fetched, FetchFailure> {
        self.get_following(url, credentials).await.0
    }

    /// Like [`Fetcher::get`], with whether the address led on to another one.
    pub(super) async fn get_following(
        &self,
        url: &Url,
        credentials: &Credentials,
    ) -> (Result<Fetched, FetchFailure>, bool) {
        let headers = credentials.for_url(url);
        let has_led_on = AtomicBool::new(false);
        let may_follow = |_: &Url| {
            has_led_on.store(true, Ordering::Relaxed);
            true
        };
        let fetched = self.send(url, headers, &Accept::anything(), &may_follow).await;
        (fetched, has_led_on.into_inner())
    }

    async fn send(
        &self,
        url: &Url,
        mut headers: HeaderMap,
        accept: &Accept,
        may_follow: MayFollow<'_>,
    ) -> Result<Fetched, FetchFailure> {
        headers.insert(http::header::USER_AGENT, self.user_agent.clone());
        let request = Request {
            method: Method::GET,
            url: url.clone(),
            headers,
            body: None,
        };
        Ok(self.client.send_following(request, accept, may_follow).await?)
    }
}

/// The pause that a server asks for: seconds, or a date, which is counted from the server's own clock.
pub(super) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get(http::header::RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let now = headers.get(http::header::DATE)?.to_str().ok()?;
    let until = httpdate::parse_http_date(value).ok()?;
    let now = httpdate::parse_http_date(now.trim()).ok()?;
    Some(until.duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn a_pause_is_read_in_seconds_or_by_the_servers_own_clock() {
        assert_eq!(
            retry_after(&headers(&[("retry-after", "120")])),
            Some(Duration::from_secs(120))
        );
        let dated = [
            ("retry-after", "Fri, 20 Nov 2026 15:00:30 GMT"),
            ("date", "Fri, 20 Nov 2026 15:00:00 GMT"),
        ];
        assert_eq!(retry_after(&headers(&dated)), Some(Duration::from_secs(30)));
        let past = [
            ("retry-after", "Fri, 20 Nov 2020 15:00:30 GMT"),
            ("date", "Fri, 20 Nov 2026 15:00:00 GMT"),
        ];
        assert_eq!(retry_after(&headers(&past)), Some(Duration::ZERO));
        for nonsense in ["soon", "-5", "1e9", ""] {
            let value =
                HeaderMap::from_iter([(http::header::RETRY_AFTER, HeaderValue::from_static(nonsense))]);
            assert_eq!(retry_after(&value), None, "{nonsense:?}");
        }
    }
}
