//! Markdown: rendered to HTML first, so that the HTML that people write into it, tables, and hidden parts
//! are treated by the one reader that knows them.

use std::borrow::Cow;

use pulldown_cmark::{Event, MetadataBlockKind, Options, Parser, Tag, TagEnd, html};

use super::front_matter;
use super::html::read_fragment;
use super::text::{decode_in_place, hinted_encoding};
use crate::document::DocumentBuilder;
use crate::{ExtractError, ExtractedDocument, Hints, Limits};

/// Bytes of quote marks, list marks and white space that may open a line. The parser looks at every open quote and list
/// on every line, so that thousands of them, followed by thousands of lines, would take it hours.
const MAX_OPENING_BYTES: usize = 1_024;

/// The longest mark of a footnote that is looked for.
const MAX_FOOTNOTE_MARK_BYTES: usize = 100;

/// Reads Markdown with the extensions of GitHub and of common site generators.
pub(crate) fn extract(
    bytes: &[u8],
    hints: &Hints,
    limits: &Limits,
) -> Result<ExtractedDocument, ExtractError> {
    let source = decode_in_place(bytes, hinted_encoding(hints), limits)?;
    let mut front_matter = String::new();
    let page = render(&shorten_openings(&source), &mut front_matter);
    let mut builder = DocumentBuilder::new(limits);
    front_matter::describe(&front_matter, &mut builder);
    read_fragment(&page, builder, limits)?.finish()
}

/// The source without what is over the limit in the openings of its lines.
fn shorten_openings(source: &str) -> Cow<'_, str> {
    let mut out = String::new();
    let (mut kept, mut at) = (0, 0);
    for line in source.split_inclusive('\n') {
        let opening = opening_bytes(line);
        if opening > MAX_OPENING_BYTES {
            // A digit or a mark of a footnote may be parted, which leaves text of it.
            let cut = line.floor_char_boundary(MAX_OPENING_BYTES);
            out.push_str(&source[kept..at + cut]);
            out.push(' ');
            kept = at + opening;
        }
        at += line.len();
    }
    if kept == 0 {
        return Cow::Borrowed(source);
    }
    out.push_str(&source[kept..]);
    Cow::Owned(out)
}

/// The length of the marks and the white space before the text of a line.
fn opening_bytes(line: &str) -> usize {
    let mut at = 0;
    loop {
        let rest = &line[at..];
        let length = match rest.as_bytes() {
            [b' ' | b'\t' | b'>' | b'-' | b'*' | b'+' | b':', ..] => 1,
            [b'0'..=b'9', ..] => number_bytes(rest),
            [b'[', b'^', ..] => footnote_bytes(rest),
            _ => 0,
        };
        if length == 0 {
            return at;
        }
        at += length;
    }
}

/// The length of the number of a list item.
fn number_bytes(text: &str) -> usize {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let is_mark = digits < 10 && matches!(text.as_bytes().get(digits), Some(b'.' | b')'));
    if is_mark { digits + 1 } else { 0 }
}

/// The length of the mark of a footnote's text.
fn footnote_bytes(text: &str) -> usize {
    let bytes = text.as_bytes();
    let window = &bytes[..bytes.len().min(MAX_FOOTNOTE_MARK_BYTES)];
    window
        .windows(2)
        .position(|pair| pair == b"]:")
        .map_or(0, |end| end + 2)
}

fn render(source: &str, front_matter: &mut String) -> String {
    let options = Options::ENABLE_TABLES
        | Options::ENABLE_FOOTNOTES
        | Options::ENABLE_STRIKETHROUGH
        | Options::ENABLE_TASKLISTS
        | Options::ENABLE_HEADING_ATTRIBUTES
        | Options::ENABLE_YAML_STYLE_METADATA_BLOCKS
        | Options::ENABLE_PLUSES_DELIMITED_METADATA_BLOCKS
        | Options::ENABLE_DEFINITION_LIST;
    let mut in_front_matter = false;
    let events = Parser::new_ext(source, options).filter_map(|event| match event {
        Event::Start(Tag::MetadataBlock(MetadataBlockKind::YamlStyle | MetadataBlockKind::PlusesStyle)) => {
            in_front_matter = true;
            None
        }
        Event::End(TagEnd::MetadataBlock(_)) => {
            in_front_matter = false;
            None
        }
        Event::Text(text) if in_front_matter => {
            front_matter.push_str(&text);
            None
        }
        // Marks of footnotes and task boxes would stand as stray digits in the text.
        Event::FootnoteReference(_) | Event::TaskListMarker(_) => None,
        event => Some(event),
    });
    let mut page = String::with_capacity(source.len() + source.len() / 2);
    html::push_html(&mut page, events);
    page
}

#[cfg(test)]
mod tests {
    use rustix::time::{ClockId, clock_gettime};

    use super::*;
    use crate::BlockKind;

    fn read(source: &str) -> ExtractedDocument {
        extract(source.as_bytes(), &Hints::default(), &Limits::default()).expect("the source has text")
    }

    #[test]
    fn markup_becomes_structure_and_leaves_readable_text() {
        let document = read(
            "---\ntitle: \"Handbook\"\ndraft: true\n---\n# Returns\n\nWithin **30 days** of\npurchase, see [terms](http://x.y).\n\n\
             - first\n- second `code`\n  - inner\n\n| Size | Price |\n|---|---|\n| S | 5 |\n\n```sh\nmake  run\n```\n",
        );

        assert_eq!(document.title.as_deref(), Some("Handbook"));
        assert_eq!(
            document.text,
            "Returns\n\nWithin 30 days of purchase, see terms.\n\nfirst\nsecond code\ninner\n\nSize | Price\nS | 5\n\nmake  run"
        );
        assert_eq!(document.blocks[0].kind, BlockKind::Heading { level: 1 });
        assert_eq!(document.blocks[1].heading_path, ["Returns"]);
    }

    #[test]
    fn comments_scripts_and_hidden_html_are_dropped() {
        let document = read(
            "Seen <!-- not --> text\n\n<script>alert(1)</script>\n\n<div style=\"display:none\">\n\ntrap\n\n</div>\n\nend\n",
        );

        assert_eq!(document.text, "Seen text\n\nend");
    }

    #[test]
    fn a_file_without_front_matter_is_titled_by_its_first_heading() {
        assert_eq!(
            read("# Opening hours\n\nDaily.").title.as_deref(),
            Some("Opening hours")
        );
    }

    #[test]
    fn a_million_brackets_and_other_repetitions_end_soon() {
        for (unit, times) in [
            ("[", 1_000_000),
            ("![", 300_000),
            ("[a](", 200_000),
            ("](", 300_000),
            ("*a _", 200_000),
            ("> ", 100_000),
            ("`a ``", 200_000),
            ("<a ", 200_000),
            ("- ", 100_000),
            ("a\n- ", 100_000),
            ("|", 500_000),
            ("[^a]: ", 100_000),
            ("&", 300_000),
        ] {
            // The time of this thread: a busy machine changes nothing.
            let cpu_seconds = || clock_gettime(ClockId::ThreadCPUTime).tv_sec;
            let begin = cpu_seconds();
            let source = format!("start {}\n\nend", unit.repeat(times));

            let outcome = extract(source.as_bytes(), &Hints::default(), &Limits::default());

            assert!(
                outcome.is_ok_and(|document| document.text.starts_with("start")),
                "{unit:?}"
            );
            let took = cpu_seconds() - begin;
            assert!(took < 20, "{unit:?} took {took} s");
        }
    }
}
