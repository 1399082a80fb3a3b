//! robots.txt (RFC 9309): what a site asks crawlers to leave alone, how slowly it wants to be read, and where its
//! sitemaps are.

use std::cmp::Ordering;
use std::time::Duration;

use url::Url;

use super::percent;

/// What is read of a file at most; the rest counts as absent.
pub const MAX_ROBOTS_BYTES: usize = 500 * 1024;

/// Sitemaps named by one file beyond this many are left out.
const MAX_SITEMAPS: usize = 100;

/// The rules of one site for one crawler.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Robots {
    rules: Vec<Rule>,
    crawl_delay: Option<Duration>,
    sitemaps: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Rule {
    allow: bool,
    /// In the normal form of percent-encoding, with `*` for anything.
    pattern: String,
    /// The pattern has to end where the path ends.
    to_the_end: bool,
}

impl Robots {
    /// Reads a file for the crawler whose product token is `product`, such as `Frontdesk`. Every sequence of bytes is
    /// a robots.txt: lines that make no sense are skipped.
    pub fn parse(bytes: &[u8], product: &str) -> Self {
        let bytes = &bytes[..bytes.len().min(MAX_ROBOTS_BYTES)];
        let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
        let mut ours = Group::default();
        let mut others = Group::default();
        let mut sitemaps = Vec::new();
        let mut speaks_to = SpeaksTo::default();
        let mut in_rules = true;
        for (key, value) in bytes
            .split(|byte| matches!(byte, b'\r' | b'\n'))
            .filter_map(key_and_value)
        {
            match key.as_str() {
                "user-agent" => {
                    if in_rules {
                        speaks_to = SpeaksTo::default();
                        in_rules = false;
                    }
                    speaks_to.add(value, product);
                }
                "allow" | "disallow" => {
                    in_rules = true;
                    let rule = Rule::parse(key == "allow", value);
                    speaks_to.each(&mut ours, &mut others, |group| group.rules.extend(rule.clone()));
                }
                // Other records do not end a group (section 2.2.4).
                "crawl-delay" => {
                    let delay = parse_delay(value);
                    speaks_to.each(&mut ours, &mut others, |group| {
                        group.crawl_delay = delay.or(group.crawl_delay)
                    });
                }
                "sitemap" if sitemaps.len() < MAX_SITEMAPS => {
                    sitemaps.extend(String::from_utf8(value.to_vec()).ok());
                }
                _ => {}
            }
        }
        let group = if ours.is_named { ours } else { others };
        Self {
            rules: group.rules,
            crawl_delay: group.crawl_delay,
            sitemaps,
        }
    }

    /// Whether `url` may be read. The longest rule that fits decides; of equally long ones, the allowing one.
    pub fn allows(&self, url: &Url) -> bool {
        if url.path() == "/robots.txt" {
            return true;
        }
        let path = percent::normalize(&url[url::Position::BeforePath..url::Position::AfterQuery]);
        let fitting = self.rules.iter().filter(|rule| rule.fits(&path));
        let decisive = fitting.max_by(|a, b| match a.length().cmp(&b.length()) {
            Ordering::Equal => a.allow.cmp(&b.allow),
            unequal => unequal,
        });
        decisive.is_none_or(|rule| rule.allow)
    }

    /// The pause between requests that the site wishes for. May be absurd; [`super::Politeness`] caps it.
    pub fn crawl_delay(&self) -> Option<Duration> {
        self.crawl_delay
    }

    /// The sitemaps that the file names, resolved against `site`, any address of the site.
    pub fn sitemaps(&self, site: &Url) -> Vec<Url> {
        self.sitemaps
            .iter()
            .filter_map(|sitemap| site.join(sitemap).ok())
            .filter(|sitemap| matches!(sitemap.scheme(), "http" | "https"))
            .collect()
    }
}

impl Rule {
    /// `None` for an empty value: it forbids nothing and allows nothing.
    fn parse(allow: bool, value: &[u8]) -> Option<Self> {
        let (value, to_the_end) = match value.strip_suffix(b"$") {
            Some(value) => (value, true),
            None => (value, false),
        };
        let pattern = percent::normalize_bytes(value);
        (!pattern.is_empty()).then_some(Self {
            allow,
            pattern,
            to_the_end,
        })
    }

    fn length(&self) -> usize {
        self.pattern.len() + usize::from(self.to_the_end)
    }

    /// Takes each piece between stars at its first place; linear in pattern and path.
    fn fits(&self, path: &str) -> bool {
        let mut pieces = self.pattern.split('*');
        let Some(mut rest) = pieces.next().and_then(|start| path.strip_prefix(start)) else {
            return false;
        };
        let mut last = None;
        for piece in pieces {
            // The last piece of an anchored pattern belongs at the end, not at its first place.
            if let Some(before) = last.replace(piece) {
                match rest.find(before) {
                    Some(at) => rest = &rest[at + before.len()..],
                    None => return false,
                }
            }
        }
        match last {
            None => !self.to_the_end || rest.is_empty(),
            Some(piece) if self.to_the_end => rest.ends_with(piece),
            Some(piece) => rest.contains(piece),
        }
    }
}

/// The rules of all groups that speak to one crawler.
#[derive(Default)]
struct Group {
    is_named: bool,
    rules: Vec<Rule>,
    crawl_delay: Option<Duration>,
}

/// Whom the lines that follow are for.
#[derive(Clone, Copy, Default)]
struct SpeaksTo {
    us: bool,
    all: bool,
}

impl SpeaksTo {
    fn add(&mut self, value: &[u8], product: &str) {
        // A product token has letters, hyphens and underscores; what follows is a version or a comment.
        let end = value
            .iter()
            .position(|byte| !byte.is_ascii_alphabetic() && !matches!(byte, b'-' | b'_'))
            .unwrap_or(value.len());
        self.us |= end > 0 && value[..end].eq_ignore_ascii_case(product.as_bytes());
        self.all |= value == b"*";
    }

    fn each(self, ours: &mut Group, others: &mut Group, mut change: impl FnMut(&mut Group)) {
        if self.us {
            ours.is_named = true;
            change(ours);
        }
        if self.all {
            change(others);
        }
    }
}

/// The record on a line, without comment and white space.
fn key_and_value(line: &[u8]) -> Option<(String, &[u8])> {
    let line = line.split(|byte| *byte == b'#').next().unwrap_or_default();
    let colon = line.iter().position(|byte| *byte == b':')?;
    let key = std::str::from_utf8(line[..colon].trim_ascii()).ok()?;
    Some((key.to_ascii_lowercase(), line[colon + 1..].trim_ascii()))
}

fn parse_delay(value: &[u8]) -> Option<Duration> {
    let seconds: f64 = std::str::from_utf8(value).ok()?.parse().ok()?;
    Duration::try_from_secs_f64(seconds).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allows(file: &str, path: &str) -> bool {
        Robots::parse(file.as_bytes(), "Frontdesk").allows(&url(path))
    }

    fn url(path: &str) -> Url {
        Url::parse(&format!("https://example.org{path}")).expect("the test names a path")
    }

    #[test]
    fn the_longest_rule_decides_and_allow_wins_ties() {
        let file = "User-agent: *\nDisallow: /shop\nAllow: /shop/public\nDisallow: /shop/public/x\nAllow: /tie\nDisallow: /tie";
        for (path, expected) in [
            ("/", true),
            ("/shop", false),
            ("/shopping", false),
            ("/shop/public/a", true),
            ("/shop/public/x", false),
            ("/tie", true),
        ] {
            assert_eq!(allows(file, path), expected, "{path}");
        }
    }

    #[test]
    fn stars_stand_for_anything_and_a_dollar_for_the_end() {
        let file = "user-agent:*\ndisallow:/*.gif$\ndisallow:/a*b*c\ndisallow:/exact$\ndisallow:*/private/\ndisallow:/*?*print=";
        for (path, expected) in [
            ("/x/y.gif", false),
            ("/x/y.gif?v=1", true),
            ("/y.gif/z.gif", false),
            ("/a1b2c3", false),
            ("/acb", true),
            ("/exact", false),
            ("/exactly", true),
            ("/x/private/y", false),
            ("/x?a=1&print=2", false),
            ("/x", true),
        ] {
            assert_eq!(allows(file, path), expected, "{path}");
        }
    }

    #[test]
    fn groups_of_the_same_crawler_are_one_and_other_groups_do_not_count() {
        let file = "User-agent: frontdesk\nDisallow: /a\n\nUser-agent: other\nUser-agent: FRONTDESK/2.0\nDisallow: /b\n\
                    User-agent: *\nDisallow: /";
        for (path, expected) in [("/a", false), ("/b", false), ("/c", true)] {
            assert_eq!(allows(file, path), expected, "{path}");
        }
        assert!(!Robots::parse(file.as_bytes(), "Someone").allows(&url("/c")));
    }

    #[test]
    fn a_group_for_a_longer_name_is_not_ours() {
        assert!(allows("User-agent: frontdesk-images\nDisallow: /", "/a"));
        assert!(allows("User-agent: front\nDisallow: /", "/a"));
    }

    #[test]
    fn an_empty_group_of_our_own_allows_everything() {
        assert!(allows(
            "User-agent: Frontdesk\nDisallow:\n\nUser-agent: *\nDisallow: /",
            "/a"
        ));
    }

    #[test]
    fn rules_before_any_group_are_nobodys() {
        assert!(allows("Disallow: /\nUser-agent: *\nDisallow: /b", "/a"));
    }

    #[test]
    fn other_records_do_not_end_a_group() {
        let file = "User-agent: a\nSitemap: /s.xml\nCrawl-delay: 3\nUser-agent: frontdesk\nDisallow: /x";
        let robots = Robots::parse(file.as_bytes(), "frontdesk");
        assert!(!robots.allows(&url("/x")));
        assert_eq!(robots.crawl_delay(), None, "the delay stood before our name");
        assert_eq!(robots.sitemaps(&url("/")), [url("/s.xml")]);
    }

    #[test]
    fn escapes_compare_as_what_they_mean() {
        for (rule, path) in [
            ("/foo/bar/ツ", "/foo/bar/%E3%83%84"),
            ("/foo/bar/%E3%83%84", "/foo/bar/ツ"),
            ("/foo/%62%61z", "/foo/baz"),
            ("/foo/baz", "/foo/%62%61%7a"),
            ("/a%3cd", "/a%3Cd"),
        ] {
            assert!(
                !allows(&format!("User-agent: *\nDisallow: {rule}"), path),
                "{rule} {path}"
            );
        }
        assert!(
            allows("User-agent: *\nDisallow: /a%2fb", "/a/b"),
            "an escaped slash is no slash"
        );
    }

    #[test]
    fn line_ends_marks_comments_and_spaces_are_as_people_write_them() {
        for file in [
            "\u{feff}User-agent: *\r\nDisallow: /a # not this\r\n",
            "User-agent: *\rDisallow: /a\r",
            "  USER-AGENT :  * \n\n\n\tdisallow:\t/a\n",
            "nonsense\nUser-agent: *\n: : :\nDisallow: /a\n<html>",
        ] {
            assert!(!allows(file, "/a"), "{file:?}");
            assert!(allows(file, "/b"), "{file:?}");
        }
    }

    #[test]
    fn the_file_itself_may_always_be_read() {
        assert!(allows("User-agent: *\nDisallow: /", "/robots.txt"));
    }

    #[test]
    fn a_delay_is_read_and_nonsense_is_none() {
        let delay = |value: &str| {
            let file = format!("User-agent: *\nCrawl-delay: {value}\nDisallow: /x");
            Robots::parse(file.as_bytes(), "Frontdesk").crawl_delay()
        };
        assert_eq!(delay("2.5"), Some(Duration::from_millis(2_500)));
        for nonsense in ["-1", "NaN", "inf", "1e300", "soon", ""] {
            assert_eq!(delay(nonsense), None, "{nonsense}");
        }
    }

    #[test]
    fn what_lies_past_the_limit_is_absent() {
        let mut file = String::from("User-agent: *\n");
        while file.len() < MAX_ROBOTS_BYTES {
            file.push_str("# nothing to see in this line of the file\n");
        }
        file.push_str("Disallow: /a\n");
        assert!(allows(&file, "/a"));
    }

    #[test]
    fn a_hostile_file_is_judged_fast() {
        let file = format!("User-agent: *\nDisallow: /{}$\n", "*a".repeat(200_000));
        let many = format!("User-agent: *\n{}", "Disallow: /*a*a*a*b$\n".repeat(20_000));
        let path = format!("/{}", "a".repeat(1_900));

        let started = std::time::Instant::now();
        allows(&file, &path);
        allows(&many, &path);

        assert!(started.elapsed() < Duration::from_secs(5));
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>, path in "/[ -~]{0,30}") {
            if let Ok(url) = Url::parse(&format!("https://example.org{path}")) {
                let _ = Robots::parse(&bytes, "Frontdesk").allows(&url);
            }
        }

        #[test]
        fn a_pattern_fits_as_a_plain_search_says(pattern in "/[ab*]{0,6}\\$?", path in "/[ab]{0,8}") {
            let file = format!("User-agent: *\nDisallow: {pattern}");
            let (body, anchored) = match pattern.strip_suffix('$') {
                Some(body) => (body, true),
                None => (pattern.as_str(), false),
            };
            proptest::prop_assert_eq!(allows(&file, &path), !plain_search(body.as_bytes(), path.as_bytes(), anchored));
        }
    }

    /// The definition, tried out in every way.
    fn plain_search(pattern: &[u8], path: &[u8], anchored: bool) -> bool {
        match pattern.split_first() {
            None => !anchored || path.is_empty(),
            Some((b'*', rest)) => (0..=path.len()).any(|at| plain_search(rest, &path[at..], anchored)),
            Some((byte, rest)) => path
                .split_first()
                .is_some_and(|(first, path)| first == byte && plain_search(rest, path, anchored)),
        }
    }
}
