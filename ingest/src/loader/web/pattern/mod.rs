//! Path patterns by which an owner says what of a site belongs to a source.
//!
//! `*` stands for anything within one path segment, `**` for anything; every other character means itself. A pattern
//! that starts with `/` begins at the root (`/docs/**`, which is also the page `/docs`), one with `://` is a whole
//! address, any other may begin at each segment (`*.pdf`, `archive/*`). A final `/` means everything below. The query
//! is looked at only by patterns that hold a `?`.

mod glob;

use url::Url;

use self::glob::Glob;
use super::percent;

/// Patterns in one list.
const MAX_PATTERNS: usize = 100;
const MAX_PATTERN_BYTES: usize = 500;

/// Stars in one pattern; nobody can tell what one of more stands for.
const MAX_STARS: usize = 8;

/// Why a list of patterns cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    #[error("there are more than {MAX_PATTERNS} patterns: combine some with * or **")]
    TooMany,
    #[error("a pattern is empty: write a path such as /docs/** or leave it out")]
    Empty,
    #[error("the pattern {0:?} is longer than {MAX_PATTERN_BYTES} bytes")]
    TooLong(String),
    #[error("the pattern {0:?} holds more than {MAX_STARS} stars")]
    TooManyStars(String),
    #[error("the pattern {0:?} holds a line break or another control character")]
    ControlCharacter(String),
    #[error(
        "the pattern {0:?} looks like a regular expression: * stands for anything within one path segment, ** for anything, and every other character means itself"
    )]
    RegularExpression(String),
}

/// A list of patterns; matching takes time linear in the address, for each pattern.
#[derive(Clone, Debug)]
pub struct Patterns {
    /// Of a path with its query.
    paths: Vec<Glob>,
    /// Of a whole address.
    whole: Vec<Glob>,
}

impl Patterns {
    pub fn parse<T: AsRef<str>>(patterns: &[T]) -> Result<Self, PatternError> {
        if patterns.len() > MAX_PATTERNS {
            return Err(PatternError::TooMany);
        }
        let (mut paths, mut whole) = (Vec::new(), Vec::new());
        for pattern in patterns {
            let pattern = checked(pattern.as_ref())?;
            let list = if pattern.contains("://") {
                &mut whole
            } else {
                &mut paths
            };
            list.push(Glob::new(&pattern));
        }
        Ok(Self { paths, whole })
    }

    pub fn is_empty(&self) -> bool {
        self.paths.is_empty() && self.whole.is_empty()
    }

    /// Whether any pattern describes `url`, an address in normal form.
    pub fn matches(&self, url: &Url) -> bool {
        let path = &url[url::Position::BeforePath..url::Position::AfterQuery];
        let address = &url[..url::Position::AfterQuery];
        self.paths.iter().any(|pattern| pattern.matches(path))
            || self.whole.iter().any(|pattern| pattern.matches(address))
    }
}

fn checked(pattern: &str) -> Result<String, PatternError> {
    let pattern = pattern.trim();
    if pattern.is_empty() {
        return Err(PatternError::Empty);
    }
    if pattern.len() > MAX_PATTERN_BYTES {
        return Err(PatternError::TooLong(pattern.chars().take(60).collect()));
    }
    if pattern.chars().any(char::is_control) {
        return Err(PatternError::ControlCharacter(pattern.to_owned()));
    }
    // Nothing of this is found in the path of an address.
    let path = pattern.split('?').next().unwrap_or_default();
    let is_expression = path.contains(['^', '\\', '|', '[', ']'])
        || path.contains(")+")
        || pattern.contains("(?")
        || pattern.ends_with('$');
    if is_expression && !pattern.contains("://[") {
        let shown = pattern.chars().take(60).collect();
        return Err(PatternError::RegularExpression(shown));
    }
    let stars = pattern.split('*').filter(|piece| !piece.is_empty()).count();
    if stars > MAX_STARS {
        return Err(PatternError::TooManyStars(pattern.chars().take(60).collect()));
    }
    Ok(percent::normalize(pattern))
}

#[cfg(test)]
mod tests {
    use rustix::time::{ClockId, clock_gettime};

    use super::*;

    fn matches(pattern: &str, url: &str) -> bool {
        let url = Url::parse(url).expect("the test names a URL");
        Patterns::parse(&[pattern]).expect("a pattern").matches(&url)
    }

    fn matches_path(pattern: &str, path: &str) -> bool {
        matches(pattern, &format!("https://example.org{path}"))
    }

    #[test]
    fn patterns_describe_paths() {
        for (pattern, path, expected) in [
            ("/docs/**", "/docs/a/b", true),
            ("/docs/**", "/docs", true),
            ("/docs/**", "/docs?page=2", true),
            ("/docs/**", "/docsets", false),
            ("/docs/**", "/en/docs/a", false),
            ("/docs/*", "/docs/a", true),
            ("/docs/*", "/docs/a/b", false),
            ("/docs/", "/docs/a/b", true),
            ("/docs", "/docs", true),
            ("/docs", "/docs/a", false),
            ("*.pdf", "/files/a.pdf", true),
            ("*.pdf", "/a.pdf?v=1", true),
            ("*.pdf", "/a.pdfx", false),
            ("archive/*", "/en/archive/2020", true),
            ("archive/*", "/en/myarchive/2020", false),
            ("**/print/**", "/en/print/a", true),
            ("/**/print", "/en/de/print", true),
            ("/a?page=*", "/a?page=2", true),
            ("/a?page=*", "/a", false),
            ("**/print", "/share?of=/print", false),
            ("**?*of=**", "/share?of=/print", true),
            ("/a.c", "/abc", false),
            ("/über/*", "/%C3%BCber/uns", true),
            ("/", "/anything/at/all", true),
            ("/**", "/", true),
            ("**", "/a/b", true),
            ("/a*b", "/a/b", false),
        ] {
            assert_eq!(matches_path(pattern, path), expected, "{pattern} {path}");
        }
        assert!(matches("https://example.org/a/**", "https://example.org/a/b"));
        assert!(!matches("https://example.org/a/**", "https://other.org/a/b"));
    }

    #[test]
    fn a_pattern_that_cannot_be_used_is_refused_with_its_reason() {
        let refusal = |patterns: &[&str]| Patterns::parse(patterns).expect_err("refused");
        assert_eq!(refusal(&[" "]), PatternError::Empty);
        assert_eq!(refusal(&["/a"; 101]), PatternError::TooMany);
        assert!(matches!(refusal(&[&"a".repeat(501)]), PatternError::TooLong(_)));
        assert!(matches!(
            refusal(&[&"*a".repeat(9)]),
            PatternError::TooManyStars(_)
        ));
        assert!(matches!(refusal(&["/a\n/b"]), PatternError::ControlCharacter(_)));
        for expression in ["[", "(a+)+$", "^/docs", "/a|/b", r"/\d", "(?i)/a", "*.pdf$"] {
            let refusal = refusal(&[expression]);
            assert!(
                matches!(refusal, PatternError::RegularExpression(_)),
                "{expression}"
            );
        }
        for literal in [
            "/Gold_(element)*",
            "/a?filter[x]=1",
            "/c++/**",
            "http://[2001:db8::1]/a",
        ] {
            assert!(Patterns::parse(&[literal]).is_ok(), "{literal}");
        }
    }

    #[test]
    fn the_largest_list_compiles_and_answers_fast() {
        let pattern = format!("**{}", "a*".repeat(MAX_STARS - 1) + &"a".repeat(480));
        let patterns = Patterns::parse(&vec![pattern; 100]).expect("within the limits");
        let url = Url::parse(&format!("https://example.org/{}", "a".repeat(1_900))).expect("a URL");

        // The time of this thread: a busy machine changes nothing.
        let cpu_seconds = || clock_gettime(ClockId::ThreadCPUTime).tv_sec;
        let started = cpu_seconds();
        let _ = patterns.matches(&url);

        assert!(cpu_seconds() - started < 2);
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_a_pattern_or_a_reason(text in "\\PC{0,80}") {
            if let Ok(patterns) = Patterns::parse(&[&text]) {
                let _ = patterns.matches(&Url::parse("https://example.org/a/b?c=d").expect("a URL"));
            }
        }

        #[test]
        fn a_path_without_stars_matches_itself(path in "/[a-z0-9_~-]{1,20}") {
            proptest::prop_assert!(matches_path(&path, &path));
        }
    }
}
