//! What of the web belongs to a source: hosts, paths, depth, and no addresses that only a trap would make.

use std::collections::HashMap;

use url::{Host, Url};

use super::address::{AddressError, normalize};
use super::pattern::{PatternError, Patterns};
use super::trap;
use crate::Media;

/// File endings of what text recognition reads, where it is configured.
const PICTURE_ENDINGS: &[&str] = &["bmp", "gif", "jpeg", "jpg", "png", "tif", "tiff", "webp"];

/// File endings of what a transcription server hears, where one is configured.
const RECORDING_ENDINGS: &[&str] = &[
    "aac", "avi", "flac", "m4a", "m4v", "mkv", "mov", "mp3", "mp4", "mpeg", "mpg", "ogg", "ogv", "wav",
    "webm", "wma", "wmv",
];

/// File endings of what holds no text to read. A link to one is not worth a request.
const UNREADABLE_ENDINGS: &[&str] = &[
    "7z", "aac", "apk", "avi", "avif", "bmp", "bz2", "css", "deb", "dll", "dmg", "eot", "exe", "flac", "gif",
    "gz", "heic", "ico", "iso", "jar", "jpeg", "jpg", "js", "m4a", "m4v", "map", "mjs", "mkv", "mov", "mp3",
    "mp4", "mpeg", "mpg", "msi", "ogg", "ogv", "otf", "pkg", "png", "psd", "rar", "rpm", "svg", "swf", "tar",
    "tgz", "tif", "tiff", "ttf", "wasm", "wav", "webm", "webp", "wma", "wmv", "woff", "woff2", "xz", "zst",
];

/// Which hosts belong to a source besides that of its start page. The port has to be the same, or the standard one of
/// http and https on both sides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Hosts {
    /// The same host, and its twin with or without `www.`.
    #[default]
    Same,
    /// The start page's host without `www.`, and every host below it.
    Subdomains,
}

/// Why an address is not part of a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OutOfScope {
    #[error("the page is on another host")]
    OtherHost,
    #[error("the page is further from the start than the depth limit")]
    TooDeep,
    #[error("the path is excluded")]
    Excluded,
    #[error("the path is not among those included")]
    NotIncluded,
    #[error("files of this kind hold no text")]
    NotText,
    /// Repeated segments, too many segments or parameters.
    #[error("the address looks like one of endlessly many")]
    Trap,
}

impl OutOfScope {
    /// Stable, for stored reasons.
    pub fn code(self) -> &'static str {
        match self {
            Self::OtherHost => "other_host",
            Self::TooDeep => "too_deep",
            Self::Excluded => "excluded",
            Self::NotIncluded => "not_included",
            Self::NotText => "not_text",
            Self::Trap => "trap",
        }
    }
}

/// What an owner may get wrong when describing a scope.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScopeError {
    #[error("start: {0}")]
    Start(#[from] AddressError),
    #[error("include: {0}")]
    Include(#[source] PatternError),
    #[error("exclude: {0}")]
    Exclude(#[source] PatternError),
}

/// The pages that a source may consist of.
#[derive(Clone, Debug)]
pub struct Scope {
    start: Url,
    hosts: Hosts,
    include: Patterns,
    exclude: Patterns,
    max_depth: u32,
    /// What can be read besides text.
    media: Media,
}

impl Scope {
    /// `max_depth` counts links from the start page, which has depth 0.
    pub fn new<T: AsRef<str>>(
        start: &Url,
        hosts: Hosts,
        include: &[T],
        exclude: &[T],
        max_depth: u32,
    ) -> Result<Self, ScopeError> {
        Ok(Self {
            start: normalize(start)?,
            hosts,
            include: Patterns::parse(include).map_err(ScopeError::Include)?,
            exclude: Patterns::parse(exclude).map_err(ScopeError::Exclude)?,
            max_depth,
            media: Media::default(),
        })
    }

    /// Pictures and recordings that somebody reads are part of it.
    pub fn with_media(self, media: Media) -> Self {
        Self { media, ..self }
    }

    /// Whether `url` is left out only because nobody is configured to read such pictures or recordings.
    pub fn lacks_reader_of(&self, url: &Url, depth: u32) -> bool {
        let all = Media {
            pictures: true,
            recordings: true,
        };
        self.admits(url, depth) == Err(OutOfScope::NotText) && !has_unreadable_ending(url, all)
    }

    /// The start page in normal form.
    pub fn start(&self) -> &Url {
        &self.start
    }

    /// Whether `url`, an address in normal form that is `depth` links from the start, belongs to the source. The start
    /// page itself always does: something has to name the others.
    pub fn admits(&self, url: &Url, depth: u32) -> Result<(), OutOfScope> {
        if !self.is_own_host(url) {
            return Err(OutOfScope::OtherHost);
        }
        if *url == self.start {
            return Ok(());
        }
        if depth > self.max_depth {
            return Err(OutOfScope::TooDeep);
        }
        if self.exclude.matches(url) {
            return Err(OutOfScope::Excluded);
        }
        if !self.include.is_empty() && !self.include.matches(url) {
            return Err(OutOfScope::NotIncluded);
        }
        if has_unreadable_ending(url, self.media) {
            return Err(OutOfScope::NotText);
        }
        if trap::is_shaped_like_one(url) {
            return Err(OutOfScope::Trap);
        }
        Ok(())
    }

    /// Whether `url` is on a host of the source, whatever its path.
    pub fn is_own_host(&self, url: &Url) -> bool {
        let same_port = url.port() == self.start.port();
        same_port
            && match (self.start.host(), url.host()) {
                (Some(Host::Domain(own)), Some(Host::Domain(other))) => {
                    let (own, bare) = (without_www(own), without_www(other));
                    own == bare
                        || (self.hosts == Hosts::Subdomains
                            && other.strip_suffix(own).is_some_and(|rest| rest.ends_with('.')))
                }
                (own, other) => own == other,
            }
    }
}

/// How many addresses of one template are let in. A template is an address with its numbers left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrapLimits {
    /// For addresses that differ in a date only: calendars have a page for every day there will ever be.
    pub per_calendar: u32,
    /// For addresses that differ in other numbers only.
    pub per_template: u32,
}

impl Default for TrapLimits {
    fn default() -> Self {
        Self {
            per_calendar: 200,
            per_template: 10_000,
        }
    }
}

/// Bounds the endless families of addresses that a site makes up as it is read. It holds a number per template, and can
/// be rebuilt after a restart by admitting the addresses known so far.
#[derive(Clone, Debug, Default)]
pub struct TrapGuard {
    limits: TrapLimits,
    seen: HashMap<u64, u32>,
}

impl TrapGuard {
    pub fn new(limits: TrapLimits) -> Self {
        Self {
            limits,
            seen: HashMap::new(),
        }
    }

    /// Counts `url`, which was not admitted before, and says whether its family is still within the limit.
    pub fn admit(&mut self, url: &Url) -> bool {
        let template = trap::Template::of(url);
        let limit = match template.is_calendar {
            _ if !template.has_numbers => return true,
            true => self.limits.per_calendar,
            false => self.limits.per_template,
        };
        let count = self.seen.entry(template.hash).or_default();
        if *count >= limit {
            return false;
        }
        *count += 1;
        true
    }
}

fn without_www(host: &str) -> &str {
    host.strip_prefix("www.").unwrap_or(host)
}

fn has_unreadable_ending(url: &Url, media: Media) -> bool {
    let file = url.path().rsplit('/').next().unwrap_or_default();
    let ending = file
        .rsplit_once('.')
        .map(|(_, ending)| ending.to_ascii_lowercase());
    ending.is_some_and(|ending| {
        let is_one_of = |endings: &[&str]| endings.binary_search(&ending.as_str()).is_ok();
        let is_read = (media.pictures && is_one_of(PICTURE_ENDINGS))
            || (media.recordings && is_one_of(RECORDING_ENDINGS));
        is_one_of(UNREADABLE_ENDINGS) && !is_read
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        Url::parse(text).expect("the test names a URL")
    }

    fn scope(start: &str, include: &[&str], exclude: &[&str]) -> Scope {
        Scope::new(&url(start), Hosts::Same, include, exclude, 3).expect("a scope")
    }

    #[test]
    fn the_endings_are_sorted_for_the_search() {
        assert!(UNREADABLE_ENDINGS.is_sorted());
    }

    #[test]
    fn only_the_same_host_and_its_www_twin_belong_to_a_source() {
        let scope = scope("https://example.org/", &[], &[]);
        for own in [
            "https://example.org/a",
            "http://example.org/a",
            "https://www.example.org/a",
        ] {
            assert_eq!(scope.admits(&url(own), 1), Ok(()), "{own}");
        }
        for other in [
            "https://docs.example.org/",
            "https://example.org.evil.net/",
            "https://badexample.org/",
            "https://example.org:8443/",
            "https://93.184.216.34/",
        ] {
            assert_eq!(
                scope.admits(&url(other), 1),
                Err(OutOfScope::OtherHost),
                "{other}"
            );
        }
    }

    #[test]
    fn subdomains_belong_to_a_source_when_its_owner_says_so() {
        let none: &[&str] = &[];
        let scope =
            Scope::new(&url("https://www.example.org/"), Hosts::Subdomains, none, none, 3).expect("a scope");
        for own in [
            "https://docs.example.org/",
            "https://a.b.example.org/",
            "https://example.org/",
        ] {
            assert_eq!(scope.admits(&url(own), 1), Ok(()), "{own}");
        }
        for other in ["https://badexample.org/", "https://org/"] {
            assert_eq!(
                scope.admits(&url(other), 1),
                Err(OutOfScope::OtherHost),
                "{other}"
            );
        }
    }

    #[test]
    fn an_address_has_no_subdomains() {
        let none: &[&str] = &[];
        let scope = Scope::new(&url("http://10.0.0.1/"), Hosts::Subdomains, none, none, 3).expect("a scope");
        assert!(scope.is_own_host(&url("http://10.0.0.1/a")));
        assert!(!scope.is_own_host(&url("http://110.0.0.1/a")));
    }

    #[test]
    fn patterns_depth_and_kind_decide_within_a_host() {
        let scope = scope("https://example.org/", &["/docs/**", "*.pdf"], &["/docs/old/**"]);
        let judge = |path: &str, depth| scope.admits(&url(&format!("https://example.org{path}")), depth);

        assert_eq!(judge("/docs/a", 3), Ok(()));
        assert_eq!(judge("/files/a.pdf", 1), Ok(()));
        assert_eq!(judge("/", 0), Ok(()), "the start page names the others");
        assert_eq!(judge("/docs/a", 4), Err(OutOfScope::TooDeep));
        assert_eq!(judge("/docs/old/a", 1), Err(OutOfScope::Excluded));
        assert_eq!(judge("/blog/a", 1), Err(OutOfScope::NotIncluded));
        assert_eq!(judge("/docs/logo.PNG", 1), Err(OutOfScope::NotText));
        assert_eq!(judge("/docs/a/b/a/b/a/b", 1), Err(OutOfScope::Trap));
    }

    #[test]
    fn a_mistake_in_the_patterns_is_named() {
        let none: &[&str] = &[];
        let error =
            Scope::new(&url("https://example.org/"), Hosts::Same, none, &[""], 3).expect_err("refused");
        assert!(
            error.to_string().starts_with("exclude: a pattern is empty"),
            "{error}"
        );
    }

    #[test]
    fn a_calendar_ends_and_numbered_pages_go_on() {
        let mut guard = TrapGuard::default();
        let months = (0..5_000u32).map(|i| {
            format!(
                "https://example.org/calendar?month={}-{:02}",
                2000 + i / 12,
                i % 12 + 1
            )
        });
        let admitted = months.filter(|month| guard.admit(&url(month))).count();
        assert_eq!(admitted, 200);

        let pages = (0..5_000u32).map(|i| format!("https://example.org/products/{i}"));
        let admitted = pages.filter(|page| guard.admit(&url(page))).count();
        assert_eq!(admitted, 5_000);
        assert!(guard.admit(&url("https://example.org/about")));
    }

    #[test]
    fn a_guard_rebuilt_from_known_addresses_goes_on_counting() {
        let day = |i: u32| {
            url(&format!(
                "https://example.org/events/2026/{:02}/{:02}",
                i / 28 + 1,
                i % 28 + 1
            ))
        };
        let mut before = TrapGuard::default();
        let known: Vec<Url> = (0..150).map(day).filter(|url| before.admit(url)).collect();

        let mut after = TrapGuard::default();
        for url in &known {
            after.admit(url);
        }

        assert_eq!((150..300).map(day).filter(|url| after.admit(url)).count(), 50);
    }
}
