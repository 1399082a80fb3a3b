//! One page over the guarded client: conditional, within its limits, with a reason when there is none.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use outbound::{
    Accept, Fetched, GuardedClient, HeaderMap, HeaderName, HeaderValue, Limits, MayFollow, Method, Request,
};
use tokio::time::Instant;
use url::Url;

use super::address::normalize;
use super::credentials::Credentials;
use super::failure::{FetchFailure, Retry};
use crate::{ExtractError, Format, Hints};

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
];

const ACCEPT: HeaderValue =
    HeaderValue::from_static("text/html,application/xhtml+xml,application/pdf;q=0.9,text/*;q=0.8,*/*;q=0.5");

/// Longer validators are not kept.
const MAX_VALIDATOR_BYTES: usize = 512;

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

/// What a server gave with a copy so that it can say whether it still holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Validators {
    pub etag: Option<String>,
    pub last_modified: Option<String>,
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

/// A page or file as it came.
#[derive(Clone, Debug)]
pub struct Page {
    /// Where it came from, after redirects, in normal form. The document is known by this address.
    pub final_url: Url,
    pub bytes: Bytes,
    /// As the server says, in lower case, without parameters. The bytes decide what the page is.
    pub media_type: Option<String>,
    pub charset: Option<String>,
    pub validators: Validators,
    pub directives: Directives,
}

/// What the headers of an answer say to crawlers, beside what the page itself says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Directives {
    pub noindex: bool,
    pub nofollow: bool,
    /// From `Link: <…>; rel="canonical"`, in normal form. Absent when it is the page's own address.
    pub canonical: Option<Url>,
}

impl Page {
    /// What extraction should know. The file name is made from the address and, where that has no telling ending, from
    /// the media type.
    pub fn hints(&self) -> Hints {
        let file = self.final_url.path().rsplit('/').next().unwrap_or_default();
        let stem = if file.is_empty() { "page" } else { file };
        let ending = self.media_type.as_deref().and_then(ending_of);
        let name = match ending {
            Some(ending) if !stem.to_ascii_lowercase().ends_with(ending) => format!("{stem}{ending}"),
            _ => stem.to_owned(),
        };
        Hints {
            charset: self.charset.clone(),
            ..Hints::named(&name)
        }
    }

    /// What the bytes are.
    pub fn format(&self) -> Result<Format, ExtractError> {
        Format::detect(&self.bytes, &self.hints().file_name)
    }
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

impl Validators {
    fn read_from(headers: &HeaderMap) -> Self {
        let text = |name: HeaderName| {
            let value = headers.get(name)?.to_str().ok()?;
            (!value.is_empty() && value.len() <= MAX_VALIDATOR_BYTES).then(|| value.to_owned())
        };
        Self {
            etag: text(http::header::ETAG),
            last_modified: text(http::header::LAST_MODIFIED),
        }
    }

    /// What was stored once may no longer be a header; then the page is simply fetched.
    fn write_to(&self, headers: &mut HeaderMap) {
        let value = |text: &Option<String>| HeaderValue::from_str(text.as_deref()?).ok();
        if let Some(etag) = value(&self.etag) {
            headers.insert(http::header::IF_NONE_MATCH, etag);
        }
        if let Some(last_modified) = value(&self.last_modified) {
            headers.insert(http::header::IF_MODIFIED_SINCE, last_modified);
        }
    }
}

impl Page {
    fn new(fetched: Fetched, product: &str) -> Self {
        let media_type = fetched.media_type();
        Self {
            charset: charset(&fetched.headers),
            validators: Validators::read_from(&fetched.headers),
            directives: Directives::read_from(&fetched.headers, &fetched.final_url, product),
            final_url: normalize(&fetched.final_url).unwrap_or(fetched.final_url),
            media_type,
            bytes: fetched.body,
        }
    }
}

impl Directives {
    fn read_from(headers: &HeaderMap, final_url: &Url, product: &str) -> Self {
        let mut directives = Self::default();
        let texts = |name: &str| {
            let values: Vec<String> = headers
                .get_all(name)
                .iter()
                .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
                .collect();
            values
        };
        for value in texts("x-robots-tag") {
            directives.add_robots_tag(&value, product);
        }
        directives.canonical = texts("link")
            .iter()
            .find_map(|value| canonical_target(value))
            .and_then(|target| normalize(&final_url.join(&target).ok()?).ok())
            .filter(|target| normalize(final_url).ok().as_ref() != Some(target));
        directives
    }

    /// `noindex, nofollow`, for all crawlers or, after a name and a colon, for one.
    fn add_robots_tag(&mut self, value: &str, product: &str) {
        let mut is_for_us = true;
        for part in value.split(',') {
            let mut rule = part.trim();
            if let Some((name, after)) = rule.split_once(':')
                && !name.trim().to_ascii_lowercase().starts_with("max-")
                && !name.trim().eq_ignore_ascii_case("unavailable_after")
            {
                is_for_us = name.trim().eq_ignore_ascii_case(product);
                rule = after.trim();
            }
            let is = |names: &[&str]| names.iter().any(|name| rule.eq_ignore_ascii_case(name));
            self.noindex |= is_for_us && is(&["noindex", "none"]);
            self.nofollow |= is_for_us && is(&["nofollow", "none"]);
        }
    }
}

/// The target of `<…>; rel="canonical"` in a `Link` header.
fn canonical_target(value: &str) -> Option<String> {
    let mut rest = value;
    while let Some((_, after)) = rest.split_once('<') {
        let (target, after) = after.split_once('>')?;
        let parameters = after.split('<').next().unwrap_or_default().to_ascii_lowercase();
        let parameters: String = parameters
            .chars()
            .filter(|c| !matches!(c, '"' | ' ' | '\''))
            .collect();
        if parameters
            .split([';', ','])
            .any(|parameter| parameter == "rel=canonical")
        {
            return Some(target.trim().to_owned());
        }
        rest = after;
    }
    None
}

/// The ending that tells [`Format::detect`] which text or container a file is, where only the media type says so.
fn ending_of(media_type: &str) -> Option<&'static str> {
    Some(match media_type {
        "text/markdown" | "text/x-markdown" => ".md",
        "text/csv" | "application/csv" => ".csv",
        "text/tab-separated-values" => ".tsv",
        "text/html" | "application/xhtml+xml" => ".html",
        "application/json" | "application/ld+json" => ".json",
        "application/jsonl" | "application/x-ndjson" => ".jsonl",
        "text/x-rst" => ".rst",
        "text/asciidoc" => ".adoc",
        "message/rfc822" => ".eml",
        _ => return None,
    })
}

fn charset(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(http::header::CONTENT_TYPE)?.to_str().ok()?;
    let mut parameters = value
        .split(';')
        .skip(1)
        .filter_map(|parameter| parameter.split_once('='));
    let (_, charset) = parameters.find(|(name, _)| name.trim().eq_ignore_ascii_case("charset"))?;
    let charset = charset.trim().trim_matches(['"', '\'']).to_ascii_lowercase();
    (!charset.is_empty() && charset.len() <= 40).then_some(charset)
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

    #[test]
    fn a_charset_is_read_from_the_content_type() {
        let of = |value| charset(&headers(&[("content-type", value)]));
        assert_eq!(of("text/html; Charset=\"ISO-8859-1\""), Some("iso-8859-1".into()));
        assert_eq!(of("text/html; boundary=x; charset=utf-8"), Some("utf-8".into()));
        assert_eq!(of("text/html"), None);
        assert_eq!(of("text/html; charset="), None);
    }

    #[test]
    fn robots_tags_count_when_they_speak_to_all_or_to_us() {
        let url = Url::parse("https://example.org/a").expect("a URL");
        let read = |value| Directives::read_from(&headers(&[("x-robots-tag", value)]), &url, "Frontdesk");
        let found = |value| (read(value).noindex, read(value).nofollow);
        assert_eq!(found("noindex"), (true, false));
        assert_eq!(found("NoIndex, nofollow"), (true, true));
        assert_eq!(found("none"), (true, true));
        assert_eq!(found("frontdesk: noindex"), (true, false));
        assert_eq!(found("otherbot: noindex, nofollow"), (false, false));
        assert_eq!(
            found("unavailable_after: 25 Jun 2030 15:00:00 PST, max-snippet: 5, noindex"),
            (true, false)
        );
        assert_eq!(found("all"), (false, false));
    }

    #[test]
    fn a_canonical_address_may_stand_in_the_headers() {
        let url = Url::parse("https://example.org/a").expect("a URL");
        let read = |value| Directives::read_from(&headers(&[("link", value)]), &url, "Frontdesk").canonical;
        let canonical = read("</style.css>; rel=preload, </b?utm_source=x>; rel=\"canonical\"");
        assert_eq!(canonical.expect("a target").as_str(), "https://example.org/b");
        assert_eq!(read("</a>; rel=canonical"), None, "its own address");
        assert_eq!(read("</b>; rel=next, <broken"), None);
    }

    #[test]
    fn the_media_type_names_what_the_address_does_not() {
        let page = |path: &str, media_type: &str, bytes: &'static [u8]| Page {
            final_url: Url::parse("https://example.org")
                .and_then(|url| url.join(path))
                .expect("a URL"),
            bytes: Bytes::from_static(bytes),
            media_type: Some(media_type.to_owned()),
            charset: None,
            validators: Validators::default(),
            directives: Directives::default(),
        };
        assert_eq!(
            page("/readme", "text/markdown", b"# Hi").format(),
            Ok(Format::Markdown)
        );
        assert_eq!(
            page("/export?x=1", "text/csv", b"a,b\n1,2\n").format(),
            Ok(Format::Csv)
        );
        assert_eq!(page("/", "text/html", b"<p>Hi</p>").format(), Ok(Format::Html));
        assert_eq!(
            page("/a.html", "text/html", b"%PDF-1.4\n").format(),
            Ok(Format::Pdf),
            "content decides"
        );
        assert_eq!(page("/a.html", "text/html", b"x").hints().file_name, "a.html");
    }
}
