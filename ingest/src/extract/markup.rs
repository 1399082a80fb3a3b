//! reStructuredText and AsciiDoc as text with headings, lists and listings. Directives that hold text keep it;
//! comments, options and references to other files are no text.

use super::text::{decode_in_place, hinted_encoding};
use crate::document::DocumentBuilder;
use crate::{BlockKind, ExtractError, ExtractedDocument, Hints, Limits};

/// Innermost level of headings.
const MAX_LEVEL: usize = 6;

/// Characters that underline headings in reStructuredText.
const ADORNMENTS: &str = "=-~`:.'\"^_*+#<>";

/// Directives whose content is a listing.
const CODE_DIRECTIVES: [&str; 5] = [
    "code",
    "code-block",
    "sourcecode",
    "parsed-literal",
    "literalinclude",
];

/// Directives whose content is no text of the page.
const SKIPPED_DIRECTIVES: [&str; 12] = [
    "toctree",
    "image",
    "raw",
    "include",
    "contents",
    "index",
    "meta",
    "highlight",
    "only",
    "automodule",
    "autoclass",
    "autofunction",
];

/// Reads reStructuredText.
pub(crate) fn extract_rst(
    bytes: &[u8],
    hints: &Hints,
    limits: &Limits,
) -> Result<ExtractedDocument, ExtractError> {
    let source = decode_in_place(bytes, hinted_encoding(hints), limits)?;
    let mut page = Page::new(limits);
    let lines: Vec<&str> = source.lines().collect();
    // The order in which kinds of underlining appear gives their levels.
    let mut levels: Vec<(char, bool)> = Vec::new();
    let mut at = 0;
    while at < lines.len() && !page.builder.is_full() {
        let line = lines[at];
        let below = lines.get(at + 1).copied().unwrap_or_default();
        let has_overline = adornment(line).is_some()
            && adornment(line) == adornment(lines.get(at + 2).copied().unwrap_or_default());
        if has_overline && !below.trim().is_empty() && adornment(below).is_none() {
            page.heading(level_of(&mut levels, adornment(line), true), below);
            at += 3;
        } else if !line.trim().is_empty()
            && !line.starts_with(' ')
            && adornment(line).is_none()
            && adornment(below).is_some()
            && below.trim_end().chars().count() + 1 >= line.trim_end().chars().count().min(60)
            && page.is_empty()
        {
            page.heading(level_of(&mut levels, adornment(below), false), line);
            at += 2;
        } else if let Some(directive) = line.trim_start().strip_prefix("..") {
            page.end();
            at = rst_directive(&lines, at, directive.trim(), &mut page);
        } else if adornment(line).is_some() && page.is_empty() {
            at += 1;
        } else {
            let opens_listing = line.trim_end().ends_with("::");
            page.line(&plain_rst(if opens_listing {
                &line.trim_end()[..line.trim_end().len() - 1]
            } else {
                line
            }));
            at += 1;
            if opens_listing {
                page.end();
                at = listing(&lines, at, indent(line), &mut page);
            }
        }
    }
    page.finish()
}

/// Reads AsciiDoc.
pub(crate) fn extract_asciidoc(
    bytes: &[u8],
    hints: &Hints,
    limits: &Limits,
) -> Result<ExtractedDocument, ExtractError> {
    let source = decode_in_place(bytes, hinted_encoding(hints), limits)?;
    let mut page = Page::new(limits);
    let mut lines = source.lines();
    while let Some(line) = lines.next() {
        if page.builder.is_full() {
            break;
        }
        let trimmed = line.trim_end();
        let marks = trimmed.chars().take_while(|c| *c == '=').count();
        match trimmed {
            // Listings and literals, comments, passed-through parts.
            "----" | "...." | "```" => {
                page.end();
                let content: Vec<&str> = lines
                    .by_ref()
                    .take_while(|inner| inner.trim_end() != trimmed)
                    .collect();
                page.builder.push(BlockKind::Code, &content.join("\n"), None);
            }
            "////" | "++++" => {
                page.end();
                lines
                    .by_ref()
                    .take_while(|inner| inner.trim_end() != trimmed)
                    .for_each(drop);
            }
            "====" | "****" | "____" | "--" | "|===" | "'''" | "<<<" | "+" => page.end(),
            _ if trimmed.starts_with("//") => {}
            // Settings of the document, attributes of a block, other files.
            _ if is_attribute(trimmed) || is_bracketed(trimmed) || trimmed.starts_with("include::") => {}
            _ if (1..=MAX_LEVEL).contains(&marks) && trimmed[marks..].starts_with(' ') => {
                page.heading(marks, &trimmed[marks..]);
            }
            _ if trimmed.starts_with('.') && trimmed[1..].starts_with(char::is_alphabetic) => {
                page.end();
                page.line(&trimmed[1..]);
                page.end();
            }
            _ if trimmed.starts_with('|') => {
                page.end();
                let cells: Vec<&str> = trimmed
                    .split('|')
                    .map(str::trim)
                    .filter(|cell| !cell.is_empty())
                    .collect();
                page.builder
                    .push(BlockKind::TableRow { header: None }, &cells.join(" | "), None);
            }
            _ => page.line(line),
        }
    }
    page.finish()
}

/// The paragraph or item that is being read.
struct Page {
    builder: DocumentBuilder,
    kind: BlockKind,
    text: String,
}

impl Page {
    fn new(limits: &Limits) -> Self {
        Self {
            builder: DocumentBuilder::new(limits),
            kind: BlockKind::Paragraph,
            text: String::new(),
        }
    }

    fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// Takes a line of running text; a blank one ends what was begun, a mark of a list begins an item.
    fn line(&mut self, line: &str) {
        let trimmed = line.trim();
        if trimmed.is_empty() {
            self.end();
            return;
        }
        if let Some(item) = item_text(trimmed) {
            self.end();
            self.kind = BlockKind::ListItem;
            self.text.push_str(item);
            return;
        }
        if !self.text.is_empty() {
            self.text.push(' ');
        }
        self.text.push_str(trimmed);
    }

    fn heading(&mut self, level: usize, text: &str) {
        self.end();
        let level = u8::try_from(level.min(MAX_LEVEL)).unwrap_or(1);
        self.builder.push(BlockKind::Heading { level }, text.trim(), None);
    }

    fn end(&mut self) {
        let kind = std::mem::replace(&mut self.kind, BlockKind::Paragraph);
        self.builder.push(kind, &std::mem::take(&mut self.text), None);
    }

    fn finish(mut self) -> Result<ExtractedDocument, ExtractError> {
        self.end();
        self.builder.finish()
    }
}

/// The text of a list item, its number kept: people refer to it.
fn item_text(line: &str) -> Option<&str> {
    for mark in ["* ", "- ", "+ ", "** ", "*** ", "• "] {
        if let Some(text) = line.strip_prefix(mark) {
            return Some(text);
        }
    }
    for mark in ["#. ", ". ", ".. "] {
        if let Some(text) = line.strip_prefix(mark) {
            return Some(text);
        }
    }
    let digits = line.bytes().take_while(u8::is_ascii_digit).count();
    let is_numbered =
        (1..=3).contains(&digits) && (line[digits..].starts_with(". ") || line[digits..].starts_with(") "));
    is_numbered.then_some(line)
}

/// The character that a line consists of, if it underlines a heading.
fn adornment(line: &str) -> Option<char> {
    let line = line.trim_end();
    let first = line.chars().next().filter(|c| ADORNMENTS.contains(*c))?;
    (line.len() >= 3 && line.chars().all(|c| c == first)).then_some(first)
}

fn level_of(levels: &mut Vec<(char, bool)>, adornment: Option<char>, has_overline: bool) -> usize {
    let kind = (adornment.unwrap_or('='), has_overline);
    if !levels.contains(&kind) {
        levels.push(kind);
    }
    levels
        .iter()
        .position(|known| *known == kind)
        .map_or(1, |at| at + 1)
}

fn indent(line: &str) -> usize {
    line.len() - line.trim_start().len()
}

/// The line after the block that is indented by more than `outer` from `at` on.
fn end_of_block(lines: &[&str], at: usize, outer: usize) -> usize {
    let mut end = at;
    for (offset, line) in lines[at.min(lines.len())..].iter().enumerate() {
        if line.trim().is_empty() {
            continue;
        }
        if indent(line) <= outer {
            break;
        }
        end = at + offset + 1;
    }
    end
}

/// Adds the indented lines from `at` on as a listing; gives the line after them.
fn listing(lines: &[&str], at: usize, outer: usize, page: &mut Page) -> usize {
    let end = end_of_block(lines, at, outer);
    let block = &lines[at.min(end)..end];
    let margin = block
        .iter()
        .filter(|line| !line.trim().is_empty())
        .map(|line| indent(line))
        .min()
        .unwrap_or(0);
    let code: Vec<&str> = block
        .iter()
        .map(|line| line.get(margin..).unwrap_or_default())
        .collect();
    page.builder.push(BlockKind::Code, &code.join("\n"), None);
    end
}

/// Passes over a comment or reads a directive; gives the line after what was dealt with.
fn rst_directive(lines: &[&str], at: usize, text: &str, page: &mut Page) -> usize {
    let outer = indent(lines[at]);
    let Some((name, argument)) = text.split_once("::") else {
        // Comments, link targets and footnotes; of these only footnotes are text.
        if let Some(note) = text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            page.line(&plain_rst(note.1));
            return at + 1;
        }
        return end_of_block(lines, at + 1, outer);
    };
    let name = name.trim();
    if SKIPPED_DIRECTIVES.contains(&name) {
        return end_of_block(lines, at + 1, outer);
    }
    // Options come first, each between colons.
    let mut next = at + 1;
    while lines
        .get(next)
        .is_some_and(|line| indent(line) > outer && line.trim_start().starts_with(':'))
    {
        next += 1;
    }
    if CODE_DIRECTIVES.contains(&name) {
        return listing(lines, next, outer, page);
    }
    page.line(&plain_rst(argument));
    page.end();
    next
}

/// A line without the marks of inline markup, links and roles by their text.
fn plain_rst(line: &str) -> String {
    let mut out = String::with_capacity(line.len());
    let cleaned = line.replace("**", "").replace("``", "\u{1}");
    let mut rest = cleaned.as_str();
    while let Some(start) = rest.find('`') {
        // A role stands before the text: `:ref:`text <target>``.
        let before = &rest[..start];
        let role = before
            .ends_with(':')
            .then(|| before[..before.len() - 1].rfind(':'))
            .flatten();
        let is_role = role.is_some_and(|at| {
            before[at + 1..before.len() - 1]
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        });
        out.push_str(match role.filter(|_| is_role) {
            Some(at) => &before[..at],
            None => before,
        });
        let after = &rest[start + 1..];
        let Some(end) = after.find('`') else {
            rest = after;
            break;
        };
        let inner = &after[..end];
        let shown = inner.split(" <").next().unwrap_or(inner);
        out.push_str(shown);
        rest = after[end + 1..].trim_start_matches('_');
    }
    out.push_str(rest);
    out.replace('\u{1}', "")
}

/// `:name: value`, a setting.
fn is_attribute(line: &str) -> bool {
    line.strip_prefix(':')
        .and_then(|rest| rest.split_once(':'))
        .is_some_and(|(name, _)| !name.is_empty() && !name.contains(' '))
}

/// `[source,ruby]` or `[[anchor]]`.
fn is_bracketed(line: &str) -> bool {
    line.starts_with('[') && line.ends_with(']')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn restructured_text_keeps_headings_lists_and_listings() {
        let source = "Guide\n=====\n\n.. comment\n   goes on\n\nSee the :ref:`terms <t>` and `our site <http://x>`_.\n\nHours\n-----\n\n* daily\n  from 9\n* **not** on Sundays\n\nExample::\n\n    make  run\n\n.. note:: Bring\n   your receipt.\n";

        let document =
            extract_rst(source.as_bytes(), &Hints::default(), &Limits::default()).expect("it has text");

        assert_eq!(
            document.text,
            "Guide\n\nSee the terms and our site.\n\nHours\n\ndaily from 9\nnot on Sundays\n\nExample:\n\nmake  run\n\nBring\n\nyour receipt."
        );
        assert_eq!(document.blocks[2].kind, BlockKind::Heading { level: 2 });
    }

    #[test]
    fn asciidoc_keeps_headings_lists_and_listings() {
        let source = "= Guide\n:toc:\n\n// hidden\nWelcome to\nthe shop.\n\n== Hours\n\n* daily\n* late\n\n----\nmake  run\n----\n\n////\nhidden\n////\n|===\n|S |5\n|===\n";

        let document =
            extract_asciidoc(source.as_bytes(), &Hints::default(), &Limits::default()).expect("it has text");

        assert_eq!(
            document.text,
            "Guide\n\nWelcome to the shop.\n\nHours\n\ndaily\nlate\n\nmake  run\n\nS | 5"
        );
    }
}
