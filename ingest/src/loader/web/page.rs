//! What a server answers with: a page or file as it came, and what its headers say of it.

use bytes::Bytes;
use outbound::{Fetched, HeaderMap, HeaderName, HeaderValue};
use url::Url;

use super::address::normalize;
use crate::{ExtractError, Format, Hints};

/// Longer validators are not kept.
const MAX_VALIDATOR_BYTES: usize = 512;

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

/// What a server gave with a copy so that it can say whether it still holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Validators {
    pub etag: Option<String>,
    pub last_modified: Option<String>,
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
    pub(super) fn write_to(&self, headers: &mut HeaderMap) {
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
    pub(super) fn new(fetched: Fetched, product: &str) -> Self {
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
