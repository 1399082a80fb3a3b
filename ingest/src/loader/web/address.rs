//! One spelling per page: addresses are brought to a normal form, so that a page that is linked in many ways is fetched
//! and kept once.
//!
//! Only differences that no server can mean are removed (RFC 3986, section 6.2.2), and parameters that name a visit or
//! an advertisement instead of a page. The order of parameters and a trailing slash may mean something and stay.

use std::collections::HashSet;

use url::Url;

use super::percent;
use crate::WebPage;

/// Longer addresses are made by loops and trackers, not by people.
pub const MAX_ADDRESS_BYTES: usize = 2_000;

/// Links of one page beyond this many are not followed.
const MAX_LINKS: usize = 5_000;

/// Parameters that say where a visitor came from. A trailing `*` stands for any ending.
const TRACKING_PARAMETERS: &[&str] = &[
    "utm_*",
    "mtm_*",
    "pk_campaign",
    "pk_kwd",
    "pk_source",
    "pk_medium",
    "hsa_*",
    "gclid",
    "gclsrc",
    "gbraid",
    "wbraid",
    "dclid",
    "fbclid",
    "msclkid",
    "twclid",
    "ttclid",
    "yclid",
    "li_fat_id",
    "igshid",
    "mc_cid",
    "mc_eid",
    "_ga",
    "_gl",
    "_hsenc",
    "_hsmi",
    "__hstc",
    "__hssc",
    "__hsfp",
    "vero_id",
    "oly_anon_id",
    "oly_enc_id",
    "wickedid",
    "srsltid",
];

/// Parameters that name a visit, whatever their value.
const SESSION_PARAMETERS: &[&str] = &[
    "jsessionid",
    "phpsessid",
    "phpsession",
    "aspsessionid*",
    "asp.net_sessionid",
    "cfid",
    "cftoken",
    "sessionid",
    "session_id",
    "sess_id",
    "oscsid",
    "zenid",
];

/// Names that mean a visit in one program and a page in another: the value decides.
const DOUBTFUL_PARAMETERS: &[&str] = &["sid", "session", "sess", "s"];

/// The least length of a value that can only be a token.
const MIN_TOKEN_CHARS: usize = 16;

/// Why an address names no page that could be fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    #[error("the address is not http or https")]
    NotHttp,
    #[error("the address holds a user name or password")]
    Credentials,
    #[error("the address names no host")]
    NoHost,
    #[error("the address is longer than {MAX_ADDRESS_BYTES} bytes")]
    TooLong,
}

/// The normal form of `url`. Normalising twice changes nothing.
pub fn normalize(url: &Url) -> Result<Url, AddressError> {
    if !matches!(url.scheme(), "http" | "https") {
        return Err(AddressError::NotHttp);
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(AddressError::Credentials);
    }
    // Before any work on it; a percent-encoded form is never shorter than the normal one by more than a factor of three.
    if url.as_str().len() > 4 * MAX_ADDRESS_BYTES {
        return Err(AddressError::TooLong);
    }
    let host = url.host_str().ok_or(AddressError::NoHost)?;
    let mut normal = url.clone();
    if let Some(undotted) = host.strip_suffix('.') {
        // The parser has already lowered the name and dropped a default port.
        normal
            .set_host(Some(undotted))
            .map_err(|_| AddressError::NoHost)?;
    }
    normal.set_fragment(None);
    let path = normal_path(url.path());
    if path != url.path() {
        normal.set_path(&path);
    }
    let query = url.query().and_then(normal_query);
    if query.as_deref() != url.query() {
        normal.set_query(query.as_deref());
    }
    if normal.as_str().len() > MAX_ADDRESS_BYTES {
        return Err(AddressError::TooLong);
    }
    Ok(normal)
}

/// The addresses that a page names, resolved and in normal form.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PageLinks {
    /// What the page wants to be known by. Absent when that is the page's own address.
    pub canonical: Option<Url>,
    /// Where the page sends a reader at once.
    pub refresh: Option<Url>,
    /// In page order, each once. Empty for a page that asks not to follow them.
    pub links: Vec<Url>,
}

impl PageLinks {
    /// `page_url` is where the page came from, after redirects.
    pub fn resolve(page_url: &Url, page: &WebPage) -> Self {
        let base = page
            .base
            .as_deref()
            .and_then(|base| page_url.join(base.trim()).ok())
            .unwrap_or_else(|| page_url.clone());
        let own = normalize(page_url).ok();
        let resolve = |written: &str| normalize(&base.join(written.trim()).ok()?).ok();
        let is_other = |address: &Url| Some(address) != own.as_ref();
        let mut seen = HashSet::new();
        let links = page
            .links
            .iter()
            .filter(|_| !page.nofollow)
            .take(MAX_LINKS)
            .filter_map(|link| resolve(link))
            .filter(|link| is_other(link) && seen.insert(link.clone()))
            .collect();
        Self {
            canonical: page.canonical.as_deref().and_then(resolve).filter(is_other),
            refresh: page.refresh.as_deref().and_then(resolve).filter(is_other),
            links,
        }
    }
}

fn normal_path(path: &str) -> String {
    let segments: Vec<String> = path
        .split('/')
        .filter(|segment| !is_cookieless_session(segment))
        .map(|segment| percent::normalize(&without_session(segment)))
        .collect();
    let joined = segments.join("/");
    if joined.starts_with('/') {
        joined
    } else {
        format!("/{joined}")
    }
}

/// Drops path parameters such as `;jsessionid=…`.
fn without_session(segment: &str) -> String {
    let mut parts = segment.split(';');
    let mut kept = parts.next().unwrap_or_default().to_owned();
    for part in parts.filter(|part| !names_a_visit(part)) {
        kept.push(';');
        kept.push_str(part);
    }
    kept
}

/// ASP.NET without cookies puts `(S(token))` into the path.
fn is_cookieless_session(segment: &str) -> bool {
    let inner = segment
        .strip_prefix("(S(")
        .and_then(|rest| rest.strip_suffix("))"));
    inner.is_some_and(is_token)
}

/// `None` when nothing is left.
fn normal_query(query: &str) -> Option<String> {
    let kept: Vec<String> = query
        .split('&')
        .map(percent::normalize)
        .filter(|part| !part.is_empty() && !names_a_visit(part) && !tracks(part))
        .collect();
    Some(kept.join("&")).filter(|query| !query.is_empty())
}

fn names_a_visit(parameter: &str) -> bool {
    let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
    is_one_of(name, SESSION_PARAMETERS) || (is_one_of(name, DOUBTFUL_PARAMETERS) && is_token(value))
}

fn tracks(parameter: &str) -> bool {
    let name = parameter.split_once('=').map_or(parameter, |(name, _)| name);
    is_one_of(name, TRACKING_PARAMETERS)
}

fn is_one_of(name: &str, list: &[&str]) -> bool {
    let name = name.to_ascii_lowercase();
    list.iter().any(|entry| match entry.strip_suffix('*') {
        Some(start) => name.starts_with(start),
        None => name == *entry,
    })
}

/// Long, of one piece and with a digit: nobody names a page like this.
fn is_token(value: &str) -> bool {
    let is_token_byte = |byte: u8| byte.is_ascii_alphanumeric();
    value.len() >= MIN_TOKEN_CHARS
        && value.bytes().all(is_token_byte)
        && value.bytes().any(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn normal(url: &str) -> String {
        let url = Url::parse(url).expect("the test names a URL");
        normalize(&url).expect("a page").into()
    }

    #[test]
    fn spellings_of_one_page_have_one_normal_form() {
        for (url, expected) in [
            ("HTTP://Example.ORG:80/a/./b/../c", "http://example.org/a/c"),
            ("https://example.org.:443/", "https://example.org/"),
            (
                "https://example.org/%7euser/%e4%bd%a0",
                "https://example.org/~user/%E4%BD%A0",
            ),
            ("https://example.org/ä b", "https://example.org/%C3%A4%20b"),
            ("https://example.org/a#part", "https://example.org/a"),
            ("https://example.org/a#!/b", "https://example.org/a"),
            ("https://example.org/a?", "https://example.org/a"),
            ("https://example.org/a?&b=1&&c=2", "https://example.org/a?b=1&c=2"),
            ("https://example.org/a?q=%2fx%41", "https://example.org/a?q=%2FxA"),
        ] {
            assert_eq!(normal(url), expected, "{url}");
        }
    }

    #[test]
    fn what_may_mean_another_page_stays() {
        for url in [
            "https://example.org/a/",
            "https://example.org/A",
            "https://example.org/a?b=2&a=1",
            "https://example.org/a?b=1&b=2",
            "https://example.org/a?empty=",
            "https://example.org/a%2Fb",
            "https://example.org/story?sid=1234",
            "https://example.org/?s=search",
            "https://example.org/map;view=near/x",
            "http://example.org:8080/",
        ] {
            assert_eq!(normal(url), url);
        }
    }

    #[test]
    fn visits_and_advertisements_are_not_pages() {
        for (url, expected) in [
            (
                "https://example.org/a?utm_source=x&id=7&UTM_Medium=y&gclid=1&fbclid=2",
                "https://example.org/a?id=7",
            ),
            ("https://example.org/a?PHPSESSID=1", "https://example.org/a"),
            (
                "https://example.org/a;jsessionid=8AF2?x=1",
                "https://example.org/a?x=1",
            ),
            (
                "https://example.org/a;jsessionid=8AF2/b;JSESSIONID=1;v=2",
                "https://example.org/a/b;v=2",
            ),
            (
                "https://example.org/a?ASPSESSIONIDQQ=1&sid=0123456789abcdef01",
                "https://example.org/a",
            ),
            (
                "https://example.org/(S(lit3py55t21z5v55vlm25s55))/a",
                "https://example.org/a",
            ),
        ] {
            assert_eq!(normal(url), expected);
        }
    }

    #[test]
    fn what_is_no_page_is_refused() {
        let refused = |url: &str| normalize(&Url::parse(url).expect("a URL")).expect_err("refused");
        assert_eq!(refused("mailto:a@example.org"), AddressError::NotHttp);
        assert_eq!(refused("javascript:alert(1)"), AddressError::NotHttp);
        assert_eq!(
            refused("https://user:pass@example.org/"),
            AddressError::Credentials
        );
        let long = format!("https://example.org/{}", "a".repeat(MAX_ADDRESS_BYTES));
        assert_eq!(refused(&long), AddressError::TooLong);
    }

    #[test]
    fn links_are_resolved_against_the_base_and_each_is_told_once() {
        let page = WebPage {
            base: Some("/docs/".into()),
            canonical: Some("https://example.org/docs/".into()),
            refresh: Some(" next ".into()),
            links: [
                "a",
                "./a#part",
                "../b?utm_source=x",
                "mailto:a@b.c",
                "http://[",
                "//other.org/c",
                ".",
            ]
            .map(str::to_owned)
            .to_vec(),
            ..WebPage::default()
        };
        let page_url = Url::parse("https://example.org/docs/").expect("a URL");

        let resolved = PageLinks::resolve(&page_url, &page);

        assert_eq!(resolved.canonical, None);
        assert_eq!(
            resolved.refresh.expect("a target").as_str(),
            "https://example.org/docs/next"
        );
        let links: Vec<&str> = resolved.links.iter().map(Url::as_str).collect();
        assert_eq!(
            links,
            [
                "https://example.org/docs/a",
                "https://example.org/b",
                "https://other.org/c"
            ]
        );
    }

    #[test]
    fn a_page_that_asks_for_it_has_no_links_to_follow() {
        let page = WebPage {
            nofollow: true,
            links: vec!["/a".into()],
            ..WebPage::default()
        };
        let page_url = Url::parse("https://example.org/").expect("a URL");

        assert_eq!(PageLinks::resolve(&page_url, &page), PageLinks::default());
    }

    proptest::proptest! {
        #[test]
        fn normalising_twice_changes_nothing(
            path in "(/([a-zA-Z0-9.~%;=()é _-]|%[0-9a-fA-F]{2}|\\.|;jsessionid=|\\(S\\(){0,8}){0,6}",
            query in "([a-z&=%?é;/]|%[0-9a-fA-F]{2}|utm_|sid=|PHPSESSID){0,20}",
        ) {
            let Ok(url) = Url::parse(&format!("https://Example.org.{path}?{query}#x")) else { return Ok(()) };
            if let Ok(once) = normalize(&url) {
                let (twice, reread) = (normalize(&once), Url::parse(once.as_str()));
                proptest::prop_assert_eq!(twice.as_ref(), Ok(&once));
                proptest::prop_assert_eq!(reread.as_ref(), Ok(&once));
            }
        }

        #[test]
        fn no_link_makes_it_panic(link in "\\PC{0,60}", base in "\\PC{0,60}") {
            let page = WebPage {
                base: Some(base),
                canonical: Some(link.clone()),
                links: vec![link],
                ..WebPage::default()
            };
            let resolved = PageLinks::resolve(&Url::parse("https://example.org/a/").expect("a URL"), &page);
            for link in resolved.links {
                proptest::prop_assert!(matches!(link.scheme(), "http" | "https"));
            }
        }

        #[test]
        fn no_text_makes_it_panic(text in "\\PC{0,200}") {
            if let Ok(url) = Url::parse(&text).or_else(|_| Url::parse(&format!("http://{text}"))) {
                let _ = normalize(&url);
            }
        }
    }
}
