//! The shapes of addresses that a site makes without end: loops of relative links, calendars, heaps of filters.

use std::hash::{DefaultHasher, Hash, Hasher};

use url::Url;

/// People do not nest pages deeper.
const MAX_SEGMENTS: usize = 20;

/// More parameters are filters on filters.
const MAX_PARAMETERS: usize = 8;

/// The same segment this often, or the same run of segments this often in a row, is a loop of relative links.
const MAX_REPEATS: usize = 3;

/// Parameters whose number turns the pages of a calendar.
const CALENDAR_PARAMETERS: &[&str] = &[
    "cal", "calendar", "date", "day", "mon", "month", "week", "year", "yr",
];

/// Whether the address alone tells that a trap made it.
pub(super) fn is_shaped_like_one(url: &Url) -> bool {
    let segments: Vec<&str> = url
        .path()
        .split('/')
        .filter(|segment| !segment.is_empty())
        .collect();
    let parameters = url.query().map_or(0, |query| query.split('&').count());
    segments.len() > MAX_SEGMENTS || parameters > MAX_PARAMETERS || repeats(&segments)
}

/// One segment more than [`MAX_REPEATS`] times, or a run of segments that often in a row.
fn repeats(segments: &[&str]) -> bool {
    let times = |segment: &str| segments.iter().filter(|other| **other == segment).count();
    let is_word = |segment: &str| segment.bytes().any(|byte| byte.is_ascii_alphabetic());
    if segments
        .iter()
        .any(|segment| is_word(segment) && times(segment) > MAX_REPEATS)
    {
        return true;
    }
    (1..=segments.len() / MAX_REPEATS).any(|length| {
        segments.windows(length * MAX_REPEATS).any(|window| {
            let (first, rest) = window.split_at(length);
            first.iter().any(|segment| is_word(segment)) && rest.chunks(length).all(|run| run == first)
        })
    })
}

/// What addresses that differ in numbers only have in common.
pub(super) struct Template {
    pub(super) hash: u64,
    pub(super) has_numbers: bool,
    /// The last number is part of a date.
    pub(super) is_calendar: bool,
}

impl Template {
    pub(super) fn of(url: &Url) -> Self {
        let path_and_query = &url[url::Position::BeforePath..url::Position::AfterQuery];
        let mut hasher = DefaultHasher::new();
        url.host_str().hash(&mut hasher);
        url.port().hash(&mut hasher);
        let mut has_numbers = false;
        for piece in path_and_query.split(|c: char| c.is_ascii_digit()) {
            // Adjacent digits leave empty pieces: a number counts once, whatever its length.
            if piece.is_empty() {
                has_numbers = true;
                continue;
            }
            piece.hash(&mut hasher);
        }
        has_numbers |= path_and_query.bytes().any(|byte| byte.is_ascii_digit());
        Self {
            hash: hasher.finish(),
            has_numbers,
            is_calendar: has_calendar_parameter(url) || ends_in_date(path_and_query),
        }
    }
}

fn has_calendar_parameter(url: &Url) -> bool {
    let parameters = url.query().unwrap_or_default().split('&');
    parameters
        .filter_map(|parameter| parameter.split_once('='))
        .any(|(name, value)| {
            CALENDAR_PARAMETERS.contains(&name.to_ascii_lowercase().as_str())
                && value.starts_with(|c: char| c.is_ascii_digit() || c == '-')
        })
}

/// `2026-11`, `2026/11/20` or `20261120` as the last numbers of an address.
fn ends_in_date(text: &str) -> bool {
    let mut numbers: Vec<(&str, usize)> = Vec::new();
    let mut rest = text;
    let mut offset = 0;
    while let Some(start) = rest.find(|c: char| c.is_ascii_digit()) {
        let tail = &rest[start..];
        let length = tail.find(|c: char| !c.is_ascii_digit()).unwrap_or(tail.len());
        numbers.push((&tail[..length], offset + start));
        offset += start + length;
        rest = &tail[length..];
    }
    let is_year = |number: &str| number.len() == 4 && matches!(&number[..2], "19" | "20" | "21");
    let is_small = |number: &str| matches!(number.parse::<u32>(), Ok(1..=31)) && number.len() <= 2;
    let adjoin = |a: &(&str, usize), b: &(&str, usize)| a.1 + a.0.len() + 1 == b.1;
    match numbers.as_slice() {
        [.., (last, _)] if last.len() == 8 && is_year(&last[..4]) => {
            is_small(&last[4..6]) && is_small(&last[6..])
        }
        [.., year, month, day] if is_year(year.0) => {
            adjoin(year, month) && is_small(month.0) && adjoin(month, day) && is_small(day.0)
        }
        [.., year, month] if is_year(year.0) => adjoin(year, month) && is_small(month.0),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(path: &str) -> Url {
        Url::parse(&format!("https://example.org{path}")).expect("the test names a path")
    }

    #[test]
    fn loops_of_relative_links_are_traps() {
        for path in [
            "/a/b/a/b/a/b",
            "/x/docs/docs/docs",
            "/a/b/c/a/b/c/a/b/c",
            "/a/x/a/y/a/z/a",
            "/1/2/3/4/5/6/7/8/9/10/11/12/13/14/15/16/17/18/19/20/21",
            "/list?a=1&b=2&c=3&d=4&e=5&f=6&g=7&h=8&i=9",
        ] {
            assert!(is_shaped_like_one(&url(path)), "{path}");
        }
        for path in [
            "/",
            "/a/b/a/b",
            "/docs/docs",
            "/2020/01/01/01/01",
            "/en/shop/en/gb",
            "/list?a=1&b=2",
        ] {
            assert!(!is_shaped_like_one(&url(path)), "{path}");
        }
    }

    #[test]
    fn a_template_leaves_the_numbers_out() {
        let hash = |path: &str| Template::of(&url(path)).hash;
        assert_eq!(hash("/page/7"), hash("/page/1234"));
        assert_ne!(hash("/page/7"), hash("/pages/7"));
        assert_ne!(hash("/page/7"), hash("/page/7/8"));
        assert!(!Template::of(&url("/about")).has_numbers);
        assert!(Template::of(&url("/page/7")).has_numbers);
    }

    #[test]
    fn dates_are_told_from_other_numbers() {
        for path in [
            "/calendar/2026/11",
            "/calendar/2026-11-20",
            "/events?date=20261120",
            "/events?d=20261120",
            "/cal?month=11",
            "/cal?year=2026&month=-4",
        ] {
            assert!(Template::of(&url(path)).is_calendar, "{path}");
        }
        for path in [
            "/products/2026",
            "/news/2026/11/20/4711",
            "/news?id=20269999",
            "/page/7",
            "/a?date=x",
        ] {
            assert!(!Template::of(&url(path)).is_calendar, "{path}");
        }
    }
}
