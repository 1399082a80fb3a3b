//! The text of a document with its structure, and the builder that every extractor writes through.
//!
//! All offsets are counted in characters (`char`s), not bytes, because citations are shown by programs in
//! other languages. The builder keeps the invariant that blocks are ordered, do not overlap, and that the
//! text between two blocks is white space only.

use serde::{Deserialize, Serialize};
use unicode_normalization::{IsNormalized, UnicodeNormalization, is_nfc_quick};

use crate::part::{PartOutlet, is_part};
use crate::{ExtractError, Format, Limits, Metadata, WebPage};

/// Blocks of one document. More of them than this is a file made to hurt, or one that should be split.
const MAX_BLOCKS: usize = 1_000_000;

/// Headings are repeated in every block below them, so a "heading" of a megabyte must not be.
const MAX_HEADING_CHARS: usize = 160;

/// The text of a document and where its parts lie.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExtractedDocument {
    /// The title that the document gives itself, else the heading that opens it. File names are not titles.
    pub title: Option<String>,
    pub text: String,
    /// In reading order, without overlap.
    pub blocks: Vec<Block>,
    /// For paged formats only.
    pub page_count: Option<u32>,
    /// Pages that are pictures without text, counted from 1, in order.
    #[serde(default)]
    pub scanned_pages: Vec<u32>,
    /// Pictures and recordings in it that nobody read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<LeftOut>,
    #[serde(default)]
    pub metadata: Metadata,
    /// For web pages only.
    #[serde(default)]
    pub web: Option<WebPage>,
}

/// Pictures or recordings in a document that were not read, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftOut {
    /// [`Format::Picture`] or [`Format::Recording`].
    pub format: Format,
    pub reason: LeftOutReason,
    pub count: u32,
}

/// Why nobody read them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LeftOutReason {
    /// Nobody is configured to.
    NotConfigured,
    /// There are more than are read of one document.
    TooMany,
    /// More bytes or pixels, or a longer recording, than are read.
    TooLarge,
    /// The time for those of one document was over.
    OutOfTime,
    /// The reader failed on them.
    Unreadable,
}

impl LeftOutReason {
    /// The stable name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotConfigured => "not_configured",
            Self::TooMany => "too_many",
            Self::TooLarge => "too_large",
            Self::OutOfTime => "out_of_time",
            Self::Unreadable => "unreadable",
        }
    }
}

impl LeftOut {
    /// Adds one to `all`.
    pub(crate) fn count(all: &mut Vec<Self>, format: Format, reason: LeftOutReason) {
        let known = all
            .iter_mut()
            .find(|known| known.format == format && known.reason == reason);
        match known {
            Some(known) => known.count = known.count.saturating_add(1),
            None => all.push(Self {
                format,
                reason,
                count: 1,
            }),
        }
    }
}

/// One paragraph, heading, list item, table row or code listing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Block {
    pub kind: BlockKind,
    /// Offset of the first character in [`ExtractedDocument::text`].
    pub start: usize,
    /// Offset after the last character.
    pub end: usize,
    /// Counted from 1.
    pub page: Option<u32>,
    /// The headings above, outermost first. A heading's own path ends with itself.
    pub heading_path: Vec<String>,
}

/// What a block is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum BlockKind {
    /// 1 is the outermost level, 6 the innermost.
    Heading {
        level: u8,
    },
    Paragraph,
    ListItem,
    /// `header` is the text of the table's header row, cells joined like the row's own.
    TableRow {
        header: Option<String>,
    },
    Code,
    /// A picture or a recording whose text belongs here once others have read it; its own text is its name. What an
    /// [`ExtractorPool`](crate::sandbox::ExtractorPool) gives has none of these any more.
    Medium {
        number: u32,
        format: Format,
        /// Of the heading with its name that its text stands under.
        level: Option<u8>,
    },
}

/// Collects blocks into a document, cleans their text and tracks offsets and headings.
#[derive(Debug)]
pub(crate) struct DocumentBuilder {
    text: String,
    chars: usize,
    blocks: Vec<Block>,
    headings: Vec<(u8, String)>,
    /// The last block spans several lines.
    last_has_lines: bool,
    max_bytes: usize,
    /// Takes parts of the document as soon as they are large enough.
    outlet: Option<PartOutlet>,
    /// Bytes of the parts that are gone, and the title that the first of them gave.
    gone_bytes: usize,
    gone_title: Option<Option<String>>,
    overflow: Option<&'static str>,
    /// Of blocks that come without one.
    pub(crate) page: Option<u32>,
    pub(crate) title: Option<String>,
    pub(crate) page_count: Option<u32>,
    pub(crate) scanned_pages: Vec<u32>,
    pub(crate) metadata: Metadata,
    pub(crate) web: Option<WebPage>,
}

impl DocumentBuilder {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
            text: String::new(),
            chars: 0,
            blocks: Vec::new(),
            headings: Vec::new(),
            last_has_lines: false,
            max_bytes: usize::try_from(limits.max_unpacked_bytes).unwrap_or(usize::MAX),
            outlet: PartOutlet::take(),
            gone_bytes: 0,
            gone_title: None,
            overflow: None,
            page: None,
            title: None,
            page_count: None,
            scanned_pages: Vec::new(),
            metadata: Metadata::default(),
            web: None,
        }
    }

    /// Adds a block, unless nothing visible is left of `text`. Line breaks inside code are kept, in other
    /// kinds any run of white space becomes one space, or one line break if it held one.
    pub(crate) fn push(&mut self, kind: BlockKind, text: &str, page: Option<u32>) {
        if self.overflow.is_some() {
            return;
        }
        let cleaned = match kind {
            BlockKind::Code => clean_code(text),
            BlockKind::Heading { .. } => one_line(&clean_prose(text)),
            _ => clean_prose(text),
        };
        if cleaned.is_empty() {
            return;
        }
        if self.blocks.len() >= MAX_BLOCKS {
            self.overflow = Some("too many paragraphs");
            return;
        }
        if self.gone_bytes + self.text.len() + cleaned.len() > self.max_bytes {
            self.overflow = Some("too much text");
            return;
        }
        let has_lines = cleaned.contains('\n');
        let separator = self.separator_before(&kind, has_lines);
        self.last_has_lines = has_lines;
        self.text.push_str(separator);
        self.chars += separator.len();
        self.let_part_go();
        let start = self.chars;
        self.chars += cleaned.chars().count();
        self.text.push_str(&cleaned);
        // The name of a picture will be the heading of its text.
        if let BlockKind::Heading { level }
        | BlockKind::Medium {
            level: Some(level), ..
        } = kind
        {
            self.headings.retain(|(above, _)| *above < level);
            self.headings.push((level, shorten(&cleaned, MAX_HEADING_CHARS)));
        }
        self.blocks.push(Block {
            kind,
            start,
            end: self.chars,
            page: page.or(self.page),
            heading_path: self.headings.iter().map(|(_, text)| text.clone()).collect(),
        });
    }

    /// Adds a block under these headings, whatever came before.
    pub(crate) fn push_under(&mut self, path: &[String], kind: BlockKind, text: &str, page: Option<u32>) {
        let before = self.blocks.len();
        self.push(kind, text, page);
        if let Some(block) = self.blocks.get_mut(before) {
            block.heading_path = path.to_vec();
        }
    }

    /// Whether nothing was added yet.
    pub(crate) fn is_empty(&self) -> bool {
        self.blocks.is_empty() && self.gone_bytes == 0
    }

    /// Puts what follows under a heading that is no block of its own, such as the title of the document.
    pub(crate) fn begin_section(&mut self, level: u8, heading: &str) {
        let heading = one_line(&clean_prose(heading));
        self.headings.retain(|(above, _)| *above < level);
        self.headings.push((level, shorten(&heading, MAX_HEADING_CHARS)));
    }

    /// Lets the text grow by what its reader adds to the document's own words.
    pub(crate) fn allow(&mut self, bytes: usize) {
        self.max_bytes = self.max_bytes.saturating_add(bytes);
    }

    /// Whether a limit was passed, so that extractors can stop early.
    pub(crate) fn is_full(&self) -> bool {
        self.overflow.is_some()
    }

    /// Hands over what there is, when that is a part. The block to come begins the next one.
    fn let_part_go(&mut self) {
        let Some(outlet) = &mut self.outlet else { return };
        if !is_part(&self.text, &self.blocks) {
            return;
        }
        let title = match &self.gone_title {
            Some(title) => title.clone(),
            None => title_of(self.title.clone(), &self.text, &self.blocks),
        };
        self.gone_bytes += self.text.len();
        self.gone_title = Some(title.clone());
        self.chars = 0;
        outlet.send(ExtractedDocument {
            title,
            text: std::mem::take(&mut self.text),
            blocks: std::mem::take(&mut self.blocks),
            ..ExtractedDocument::default()
        });
    }

    /// The document, or the last part of it where others are gone, or why there is none.
    pub(crate) fn finish(self) -> Result<ExtractedDocument, ExtractError> {
        if let Some(reason) = self.overflow {
            return Err(ExtractError::too_large(reason));
        }
        // A web page without text may still lead on to others.
        if self.blocks.is_empty() && self.web.is_none() {
            return Err(ExtractError::NoText { scanned: false });
        }
        let title = match self.gone_title {
            Some(title) => title,
            None => title_of(self.title, &self.text, &self.blocks),
        };
        Ok(ExtractedDocument {
            title,
            text: self.text,
            blocks: self.blocks,
            page_count: self.page_count,
            scanned_pages: self.scanned_pages,
            left_out: Vec::new(),
            metadata: self.metadata,
            web: self.web,
        })
    }

    /// Whether the last block is this header row itself.
    fn ends_with_row(&self, header: &Option<String>) -> bool {
        header
            .as_ref()
            .is_some_and(|header| self.text.ends_with(header.as_str()))
    }

    /// Items and rows of one line stand on adjacent lines, everything else is a paragraph apart.
    fn separator_before(&self, kind: &BlockKind, has_lines: bool) -> &'static str {
        let Some(previous) = self.blocks.last() else {
            return "";
        };
        match (&previous.kind, kind) {
            (BlockKind::ListItem, BlockKind::ListItem) => "\n",
            (BlockKind::TableRow { header: above }, BlockKind::TableRow { header })
                if !has_lines && !self.last_has_lines && (above == header || self.ends_with_row(header)) =>
            {
                "\n"
            }
            _ => "\n\n",
        }
    }
}

/// Prose as a reader sees it: composed characters, no invisible ones, no superfluous white space.
pub(crate) fn clean_prose(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut pending: Option<char> = None;
    for_each_visible(text, |c| {
        if c == '\n' {
            pending = Some('\n');
        } else if c.is_whitespace() {
            pending = pending.or(Some(' '));
        } else {
            if let Some(space) = pending.take().filter(|_| !out.is_empty()) {
                out.push(space);
            }
            out.push(c);
        }
    });
    compose(out)
}

/// Code keeps its lines and indentation; only blank lines around it and trailing spaces go.
fn clean_code(text: &str) -> String {
    let mut visible = String::with_capacity(text.len());
    for_each_visible(text, |c| visible.push(c));
    let lines: Vec<&str> = visible.split('\n').map(str::trim_end).collect();
    let first = lines
        .iter()
        .position(|line| !line.is_empty())
        .unwrap_or(lines.len());
    let last = lines
        .iter()
        .rposition(|line| !line.is_empty())
        .map_or(first, |last| last + 1);
    compose(lines[first..last].join("\n"))
}

/// `text` on one line.
pub(crate) fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// At most `max_chars` characters of `text`, cut at a word where one ends in the last part.
pub(crate) fn shorten(text: &str, max_chars: usize) -> String {
    let Some((cut, _)) = text.char_indices().nth(max_chars) else {
        return text.to_owned();
    };
    let head = &text[..cut];
    match head.rfind(char::is_whitespace) {
        Some(space) if space > cut / 2 => head[..space].trim_end().to_owned(),
        _ => head.to_owned(),
    }
}

/// The title that the document gives itself, else the heading that opens it.
fn title_of(own: Option<String>, text: &str, blocks: &[Block]) -> Option<String> {
    own.or_else(|| first_heading(text, blocks))
        .map(|title| shorten(&one_line(&clean_prose(&title)), MAX_HEADING_CHARS))
        .filter(|title| !title.is_empty())
}

/// The heading that opens the document, if one does: some formats have no other title.
fn first_heading(text: &str, blocks: &[Block]) -> Option<String> {
    let first = blocks
        .first()
        .filter(|block| matches!(block.kind, BlockKind::Heading { .. }))?;
    Some(text.chars().take(first.end).skip(first.start).collect())
}

fn compose(text: String) -> String {
    match is_nfc_quick(text.chars()) {
        IsNormalized::Yes => text,
        _ => text.nfc().collect(),
    }
}

/// Calls `keep` for every character that has a place on the page; line ends of all kinds arrive as `\n`.
///
/// Characters that a reader cannot see (zero width, direction overrides, tags, controls) could hide
/// instructions from the owner of the document, so they are not text. Joiners stay between non-Latin
/// letters, where they change the shape of the word.
fn for_each_visible(text: &str, mut keep: impl FnMut(char)) {
    let mut previous = '\n';
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        let visible = match c {
            '\r' if chars.peek() == Some(&'\n') => None,
            '\r' | '\u{b}' | '\u{c}' | '\u{85}' | '\u{2028}' | '\u{2029}' => Some('\n'),
            '\n' | '\t' => Some(c),
            '\u{200c}' | '\u{200d}' => {
                let joins = is_joinable(previous) && chars.peek().copied().is_some_and(is_joinable);
                joins.then_some(c)
            }
            _ if is_invisible(c) => None,
            _ => Some(c),
        };
        if let Some(c) = visible {
            previous = c;
            keep(c);
        }
    }
}

fn is_joinable(c: char) -> bool {
    u32::from(c) >= 0x300 && !c.is_whitespace() && !is_invisible(c)
}

/// Code points that draw nothing: controls, default-ignorables, private tags.
pub(crate) fn is_invisible(c: char) -> bool {
    matches!(c,
        '\0'..='\u{1f}' | '\u{7f}'..='\u{9f}' | '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}'
        | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}'
        | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
        || (c != '\u{fe0f}' && matches!(c, '\u{fe00}'..='\u{fe0f}'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn build(parts: &[(BlockKind, &str)]) -> ExtractedDocument {
        let mut builder = DocumentBuilder::new(&Limits::default());
        for (kind, text) in parts {
            builder.push(kind.clone(), text, None);
        }
        builder.finish().expect("the parts hold text")
    }

    #[test]
    fn spans_count_characters_and_select_the_block() {
        let document = build(&[
            (BlockKind::Heading { level: 1 }, "Größe"),
            (BlockKind::Paragraph, "  naïve \t café  "),
        ]);

        let chars: Vec<char> = document.text.chars().collect();
        let second: String = chars[document.blocks[1].start..document.blocks[1].end]
            .iter()
            .collect();
        assert_eq!(second, "naïve café");
        assert_eq!(document.blocks[1].heading_path, ["Größe"]);
    }

    #[test]
    fn a_heading_closes_those_of_its_level_and_below() {
        let document = build(&[
            (BlockKind::Heading { level: 1 }, "A"),
            (BlockKind::Heading { level: 3 }, "B"),
            (BlockKind::Heading { level: 2 }, "C"),
            (BlockKind::Paragraph, "text"),
        ]);

        assert_eq!(document.blocks[3].heading_path, ["A", "C"]);
    }

    #[test]
    fn characters_that_nobody_sees_are_not_text() {
        let hidden = "pay\u{200b}ment\u{202e} \u{e0041}\u{e0042}now\u{0}\u{ad}";

        assert_eq!(clean_prose(hidden), "payment now");
    }

    #[test]
    fn joiners_stay_where_they_shape_a_word() {
        let persian = "می\u{200c}خواهم";

        assert_eq!(clean_prose(persian), persian);
        assert_eq!(clean_prose("a\u{200d}b"), "ab");
    }

    #[test]
    fn letters_and_marks_are_composed() {
        assert_eq!(clean_prose("u\u{308}ber"), "über");
    }

    #[test]
    fn more_text_than_the_limit_is_refused() {
        let limits = Limits {
            max_unpacked_bytes: 10,
            ..Limits::default()
        };
        let mut builder = DocumentBuilder::new(&limits);

        builder.push(BlockKind::Paragraph, "twelve chars", None);

        assert_eq!(builder.finish().map_err(|error| error.code()), Err("too_large"));
    }
}
