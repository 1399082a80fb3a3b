//! Four times the text is about four times the work, in every text format and for whatever is repeated: nesting, marks
//! that are never closed, and openings that every later line is compared with.
//!
//! Work is counted as CPU time of the thread that reads, so that a busy machine changes nothing, and the rule is about
//! growth, so that a slow one does not either.

use std::time::Duration;

use ingest::{Format, Hints, Limits, extract};
use rustix::time::{ClockId, clock_gettime};

/// Bytes of the smaller text; the larger one has four times as many.
const SMALL_BYTES: usize = 6_000;

/// Less than this is noise.
const NOISE: Duration = Duration::from_millis(60);

/// Four is linear and sixteen is quadratic.
const MAX_GROWTH: u32 = 9;

/// What opens something that goes on in later lines.
const OPENINGS: [&str; 16] = [
    "> ",
    ">",
    "- ",
    "* ",
    "1. ",
    "> - ",
    ": ",
    "[^a]: ",
    "[",
    "*a _",
    "| a ",
    "<div>",
    "<ul><li>",
    "<table><tr><td>",
    "<!--",
    "    ",
];

/// What may stand many times by itself or below an opening.
const UNITS: [&str; 30] = [
    "a\n",
    "> a\n",
    "- a\n",
    "a\n- ",
    "a\n: ",
    "\n",
    "> - ",
    "a|b\n-|-\n",
    "|",
    "# a\n",
    "```\n",
    "[a]: b\n",
    "[^a]: b\n",
    "[a](",
    "![",
    "]",
    "](",
    "*",
    "**a ",
    "`a ``",
    "~~a ",
    "</div>",
    "<p>",
    "</p>",
    "<a ",
    "<![CDATA[",
    "&",
    "\\",
    "=\n",
    "a  \n",
];

/// CPU time of reading `source`.
fn work(source: &str, format: Format) -> Duration {
    let now = || {
        let time = clock_gettime(ClockId::ThreadCPUTime);
        Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
    };
    let begin = now();
    // Text or a reason: what matters here is that it comes.
    let _ = extract(source.as_bytes(), format, &Hints::default(), &Limits::default());
    now() - begin
}

fn assert_linear(name: &str, format: Format, source: impl Fn(usize) -> String) {
    let large = work(&source(SMALL_BYTES * 4), format);
    if large < NOISE {
        return;
    }
    let small = work(&source(SMALL_BYTES), format);
    // Of several tries the fastest is nearest to the work itself.
    let large = large.min(work(&source(SMALL_BYTES * 4), format));
    assert!(
        large < small * MAX_GROWTH + NOISE,
        "{format:?} {name}: {small:?}, and {large:?} for four times as much"
    );
}

fn repeat(unit: &str, bytes: usize) -> String {
    unit.repeat(bytes / unit.len())
}

#[test]
fn repeated_marks_cost_in_proportion() {
    for unit in OPENINGS.into_iter().chain(UNITS) {
        for format in [
            Format::Markdown,
            Format::Html,
            Format::Rst,
            Format::Asciidoc,
            Format::Text,
        ] {
            assert_linear(&format!("{unit:?}"), format, |bytes| repeat(unit, bytes));
        }
    }
}

#[test]
fn lines_below_many_openings_cost_in_proportion() {
    for opening in OPENINGS {
        for unit in UNITS {
            let name = format!("{opening:?} then {unit:?}");
            assert_linear(&name, Format::Markdown, |bytes| {
                format!("{}a\n{}", repeat(opening, bytes / 2), repeat(unit, bytes / 2))
            });
        }
    }
}

#[test]
fn elements_below_many_open_ones_cost_in_proportion() {
    const OPEN: [&str; 10] = [
        "<div>",
        "<p>",
        "<ul><li>",
        "<table><tr><td>",
        "<b>",
        "<dl><dt>",
        "<nav>",
        "<div hidden>",
        "<a href=x>",
        "<pre>",
    ];
    const THEN: [&str; 12] = [
        "<p>a",
        "</p>",
        "</div>",
        "<li>a",
        "</li>",
        "<tr><td>a",
        "</td>",
        "</table>",
        "<h1>a</h1>",
        "<br>a",
        "</span>",
        "<img alt=a>",
    ];
    for opening in OPEN {
        for unit in THEN {
            let name = format!("{opening:?} then {unit:?}");
            assert_linear(&name, Format::Html, |bytes| {
                format!("{}a{}", repeat(opening, bytes / 2), repeat(unit, bytes / 2))
            });
        }
    }
}

#[test]
fn records_groups_and_parts_cost_in_proportion() {
    const MAIL: &str = "From: a@b\nTo: c@d\nSubject: e\nMIME-Version: 1.0\n";
    const PARTS: &str = "From: a@b\nMIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=b\n\n";
    let cases: [(Format, &str, &[&str]); 6] = [
        (
            Format::Rtf,
            "{\\rtf1 a ",
            &[
                "{",
                "}",
                "{a}",
                "\\par a",
                "\\cell a",
                "\\trowd\\cell\\row ",
                "\\'e4",
                "\\u228?",
                "\\b",
                "{\\*\\x a}",
                "\\bin1 a",
            ],
        ),
        (
            Format::Json,
            "",
            &["[", "[1,", "{\"a\":", "[{\"a\":1},", "\"a\\n", "[\"a\",", " "],
        ),
        (
            Format::Jsonl,
            "",
            &["{}\n", "{\"a\":[1,2]}\n", "{\n", "\n", "[[[1]]]\n"],
        ),
        (
            Format::Csv,
            "a,b\n",
            &["1,2\n", "a,", "\"", "\"a\n", "\n", ",\n", "\"\"\"", "a;b\t"],
        ),
        (
            Format::Eml,
            MAIL,
            &[
                "X-A: b\n",
                " a\n",
                "\n",
                "=?utf-8?q?=C3=A4?= ",
                "Received: a\n",
                "a,",
            ],
        ),
        (
            Format::Eml,
            PARTS,
            &[
                "--b\n",
                "--b\n\na\n",
                "--b--\n",
                "--b\nContent-Type: multipart/mixed; boundary=b\n\n",
            ],
        ),
    ];
    for (format, head, units) in cases {
        for unit in units {
            assert_linear(&format!("{unit:?}"), format, |bytes| {
                format!("{head}{}", repeat(unit, bytes))
            });
        }
    }
}
