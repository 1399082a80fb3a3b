//! Documents in parts: a large one is handed on piece by piece, so that nobody holds all of it.
//!
//! A part is an [`ExtractedDocument`] whose offsets count from its own beginning; the texts of all parts, one after
//! another, are the text of the document. Parts end between two blocks, and not right after a heading; a block that is
//! too large for that becomes several.

use std::cell::RefCell;
use std::fmt;

use crate::{Block, BlockKind, ExtractedDocument};

/// Bytes of text at which a part is large enough.
pub(crate) const PART_BYTES: usize = 2 << 20;

/// Bytes of a block above which it becomes several where a document is parted.
const MAX_BLOCK_BYTES: usize = PART_BYTES / 4;

thread_local! {
    static OUTLET: RefCell<Option<PartOutlet>> = const { RefCell::new(None) };
}

/// Where a builder's parts go before the document is finished.
pub(crate) struct PartOutlet(Box<dyn FnMut(ExtractedDocument)>);

impl PartOutlet {
    /// Runs `read`, whose first document builder sends its parts to `send`, and in the end gives the last one.
    pub(crate) fn during<T>(send: impl FnMut(ExtractedDocument) + 'static, read: impl FnOnce() -> T) -> T {
        /// Also when `read` panics, nothing of this document is left for the next one.
        struct Closed;
        impl Drop for Closed {
            fn drop(&mut self) {
                PartOutlet::take();
            }
        }
        OUTLET.with_borrow_mut(|outlet| *outlet = Some(Self(Box::new(send))));
        let _closed = Closed;
        read()
    }

    /// The outlet of this thread, for the one builder that comes first.
    pub(crate) fn take() -> Option<Self> {
        OUTLET.with_borrow_mut(Option::take)
    }

    /// Sends what a builder lets go, in several parts where one of its blocks is too large.
    pub(crate) fn send(&mut self, part: ExtractedDocument) {
        let last = split(part, &mut self.0);
        (self.0)(last);
    }
}

impl fmt::Debug for PartOutlet {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("PartOutlet")
    }
}

/// Whether a part may end here.
pub(crate) fn is_part(text: &str, blocks: &[Block]) -> bool {
    let ends_with_heading = blocks
        .last()
        .is_none_or(|block| matches!(block.kind, BlockKind::Heading { .. }));
    // A document of nothing but headings has to be parted after one.
    text.len() >= PART_BYTES && (!ends_with_heading || text.len() >= 2 * PART_BYTES)
}

/// Parts a document that was read whole. The last part has what is known of the document besides its text.
pub(crate) fn split(
    mut document: ExtractedDocument,
    mut send: impl FnMut(ExtractedDocument),
) -> ExtractedDocument {
    if document.text.len() < 2 * PART_BYTES {
        return document;
    }
    let text = std::mem::take(&mut document.text);
    let blocks = std::mem::take(&mut document.blocks);
    let (mut part_byte, mut part_char) = (0, 0);
    let (mut byte, mut char) = (0, 0);
    for block in blocks {
        byte += byte_of_char(&text[byte..], block.start - char);
        let end_byte = byte + byte_of_char(&text[byte..], block.end - block.start);
        char = block.end;
        for (piece_byte, mut piece) in pieces(&text[byte..end_byte], block) {
            let piece_byte = byte + piece_byte;
            if is_part(&text[part_byte..piece_byte], &document.blocks) {
                send(ExtractedDocument {
                    title: document.title.clone(),
                    text: text[part_byte..piece_byte].to_owned(),
                    blocks: std::mem::take(&mut document.blocks),
                    ..ExtractedDocument::default()
                });
                (part_byte, part_char) = (piece_byte, piece.start);
            }
            piece.start -= part_char;
            piece.end -= part_char;
            document.blocks.push(piece);
        }
        byte = end_byte;
    }
    document.text = text[part_byte..].to_owned();
    document
}

fn byte_of_char(text: &str, chars: usize) -> usize {
    text.char_indices()
        .nth(chars)
        .map_or(text.len(), |(byte, _)| byte)
}

/// The block, whose text this is, as blocks of at most [`MAX_BLOCK_BYTES`], each with its first byte in `text`. White
/// space where it is cut is between them. What goes on after the beginning of a heading is a paragraph under it.
fn pieces(text: &str, mut block: Block) -> Vec<(usize, Block)> {
    let mut pieces = Vec::new();
    let (mut byte, mut char) = (0, block.start);
    loop {
        let left = &text[byte..];
        let length = if left.len() > MAX_BLOCK_BYTES {
            length_of_piece(left)
        } else {
            left.len()
        };
        if length == left.len() {
            block.start = char;
            pieces.push((byte, block));
            return pieces;
        }
        let piece = &left[..length];
        let visible = piece.trim_end().chars().count();
        if visible > 0 {
            let piece = Block {
                start: char,
                end: char + visible,
                ..block.clone()
            };
            pieces.push((byte, piece));
            if matches!(block.kind, BlockKind::Heading { .. }) {
                block.kind = BlockKind::Paragraph;
            }
        }
        char += piece.chars().count();
        byte += length;
    }
}

/// Bytes of the first piece of a text that is too large: up to the last end of a line in the second half of what it may
/// have, else of a sentence, else of a word, else of a character.
fn length_of_piece(text: &str) -> usize {
    let most = text.floor_char_boundary(MAX_BLOCK_BYTES);
    let least = text.floor_char_boundary(MAX_BLOCK_BYTES / 2);
    let half = &text[least..most];
    let after = |found: Option<(usize, &str)>| found.map(|(at, end)| least + at + end.len());
    let last_space = || {
        let (at, space) = half.char_indices().rev().find(|(_, char)| char.is_whitespace())?;
        Some(least + at + space.len_utf8())
    };
    after(half.rmatch_indices('\n').next())
        .or_else(|| {
            after(
                SENTENCE_ENDS
                    .iter()
                    .filter_map(|end| half.rmatch_indices(*end).next())
                    .max(),
            )
        })
        .or_else(last_space)
        .unwrap_or(most)
}

/// How sentences end.
const SENTENCE_ENDS: [&str; 5] = [". ", "! ", "? ", "。", "؟ "];

/// Puts parts together again.
#[derive(Debug, Default)]
pub(crate) struct Joined {
    document: Option<ExtractedDocument>,
    chars: usize,
}

impl Joined {
    pub(crate) fn add(&mut self, mut part: ExtractedDocument) {
        let chars = part.text.chars().count();
        if let Some(mut before) = self.document.take() {
            before.text.push_str(&part.text);
            before.blocks.extend(part.blocks.into_iter().map(|mut block| {
                block.start += self.chars;
                block.end += self.chars;
                block
            }));
            // The first part has the title, the last one all that is known besides.
            (part.title, part.text, part.blocks) = (before.title, before.text, before.blocks);
        }
        self.chars += chars;
        self.document = Some(part);
    }

    pub(crate) fn finish(self) -> ExtractedDocument {
        self.document.unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::*;
    use crate::document::DocumentBuilder;
    use crate::{ExtractError, Limits};

    fn write(builder: &mut DocumentBuilder) {
        builder.push(BlockKind::Heading { level: 1 }, "Ein Größenwahn", None);
        for number in 0..40_000 {
            if number % 1_000 == 0 {
                builder.push(
                    BlockKind::Heading { level: 2 },
                    &format!("Kapitel {number}"),
                    None,
                );
            }
            let kind = if number % 7 == 0 {
                BlockKind::ListItem
            } else {
                BlockKind::Paragraph
            };
            let text = format!("Satz {number}: {}", "die Größe zählt und wird größer. ".repeat(5));
            builder.push(kind, &text, Some(1 + number / 100));
        }
        builder.page_count = Some(400);
    }

    fn whole() -> ExtractedDocument {
        let mut builder = DocumentBuilder::new(&Limits::default());
        write(&mut builder);
        builder.finish().expect("it has text")
    }

    fn in_parts(limits: &Limits) -> (Vec<ExtractedDocument>, Result<ExtractedDocument, ExtractError>) {
        let parts = Rc::new(RefCell::new(Vec::new()));
        let sent = Rc::clone(&parts);
        let last = PartOutlet::during(
            move |part| sent.borrow_mut().push(part),
            || {
                let mut builder = DocumentBuilder::new(limits);
                let mut nested = DocumentBuilder::new(limits);
                nested.push(BlockKind::Paragraph, "This one is of something inside.", None);
                assert!(nested.finish().is_ok_and(|nested| nested.blocks.len() == 1));
                write(&mut builder);
                builder.finish()
            },
        );
        (parts.take(), last)
    }

    /// A heading, a block, and a few words.
    fn one_block(kind: BlockKind, text: &str) -> ExtractedDocument {
        let mut builder = DocumentBuilder::new(&Limits::default());
        builder.push(BlockKind::Heading { level: 1 }, "Protokoll", None);
        builder.push(kind, text, Some(7));
        builder.push(BlockKind::Paragraph, "Das war alles.", Some(8));
        builder.finish().expect("it has text")
    }

    /// Each block lies in one of the whole's, which says of what kind it is, and nothing visible is in none.
    fn assert_blocks_are_pieces(joined: &ExtractedDocument, whole: &ExtractedDocument) {
        let mut char = 0;
        let mut text = joined.text.chars();
        for block in &joined.blocks {
            let of = whole
                .blocks
                .iter()
                .find(|of| of.start <= block.start && block.end <= of.end)
                .expect("a block of the whole");
            assert_eq!(
                (&block.kind, block.page, &block.heading_path),
                (&of.kind, of.page, &of.heading_path)
            );
            assert!(text.by_ref().take(block.start - char).all(char::is_whitespace));
            let own: String = text.by_ref().take(block.end - block.start).collect();
            assert!(!own.trim().is_empty());
            char = block.end;
        }
        assert_eq!(text.next(), None);
    }

    fn join(parts: Vec<ExtractedDocument>, last: ExtractedDocument) -> ExtractedDocument {
        let mut joined = Joined::default();
        parts.into_iter().for_each(|part| joined.add(part));
        joined.add(last);
        joined.finish()
    }

    fn assert_are_parts(parts: &[ExtractedDocument], whole: &ExtractedDocument) {
        assert!(parts.len() >= 3, "{} parts", parts.len());
        for part in parts {
            assert!((PART_BYTES..PART_BYTES + 1_000).contains(&part.text.len()));
            assert_eq!(part.title, whole.title);
            assert_eq!(part.blocks.first().map(|block| block.start), Some(0));
            assert!(!matches!(
                part.blocks.last().map(|block| &block.kind),
                Some(BlockKind::Heading { .. })
            ));
        }
    }

    #[test]
    fn parts_that_a_builder_lets_go_make_the_same_document() {
        let whole = whole();

        let (parts, last) = in_parts(&Limits::default());

        assert_are_parts(&parts, &whole);
        assert!(join(parts, last.expect("it has text")) == whole);
    }

    #[test]
    fn a_whole_document_is_split_into_parts_that_make_it_again() {
        let whole = whole();
        let mut parts = Vec::new();

        let last = split(whole.clone(), |part| parts.push(part));

        assert_are_parts(&parts, &whole);
        assert!(join(parts, last) == whole);
    }

    #[test]
    fn a_block_of_any_size_goes_in_parts_that_make_the_same_text() {
        let of = |piece: &str| piece.repeat((5 << 20) / piece.len());
        let texts = [
            of("["),
            of("ж"),
            of("𝔤 "),
            of("Ein Satz. Größer als der vorige! "),
            of("2026-11-20 request id=1\n    indented path=/ü\n"),
            of("長い文です。"),
        ];
        let kinds = [BlockKind::Paragraph, BlockKind::Code];
        let of_each_kind = |text| kinds.clone().map(|kind| (text, kind));
        for (text, kind) in texts.iter().flat_map(of_each_kind) {
            let whole = one_block(kind, text);
            let mut parts = Vec::new();

            let last = split(whole.clone(), |part| parts.push(part));

            assert!(parts.len() >= 2, "{} parts", parts.len());
            for part in &parts {
                assert!((PART_BYTES..PART_BYTES + MAX_BLOCK_BYTES).contains(&part.text.len()));
            }
            let joined = join(parts, last);
            assert!(joined.text == whole.text);
            assert_blocks_are_pieces(&joined, &whole);
        }
    }

    #[test]
    fn a_builder_lets_no_block_go_that_is_too_large() {
        let parts = Rc::new(RefCell::new(Vec::new()));
        let sent = Rc::clone(&parts);
        let text = "word ".repeat(2 << 20);

        let last = PartOutlet::during(
            move |part| sent.borrow_mut().push(part),
            || one_block(BlockKind::Paragraph, &text),
        );

        let parts = parts.take();
        assert!(parts.len() >= 4, "{} parts", parts.len());
        assert!(
            parts
                .iter()
                .all(|part| part.text.len() < PART_BYTES + MAX_BLOCK_BYTES)
        );
        let joined = join(parts, last);
        let whole = one_block(BlockKind::Paragraph, &text);
        assert!(joined.text == whole.text);
        assert_blocks_are_pieces(&joined, &whole);
    }

    #[test]
    fn a_large_block_is_cut_at_lines_else_sentences_else_words() {
        let cut_after = |piece: &str| {
            let text = piece.repeat((1 << 20) / piece.len());
            text[..length_of_piece(&text)].to_owned()
        };

        assert!(cut_after("A line. Of words\n").ends_with('\n'));
        assert!(cut_after("A sentence of words. ").ends_with(". "));
        assert!(cut_after("words, ").ends_with(' '));
        assert_eq!(cut_after("ж").len(), MAX_BLOCK_BYTES);
    }

    #[test]
    fn the_limit_on_text_counts_parts_that_are_gone() {
        let limits = Limits {
            max_unpacked_bytes: 5 << 20,
            ..Limits::default()
        };

        let (parts, last) = in_parts(&limits);

        assert_eq!(parts.len(), 2);
        assert_eq!(last.map_err(|error| error.code()).err(), Some("too_large"));
    }

    #[test]
    fn small_documents_are_one_part() {
        let document = ExtractedDocument {
            text: "Small.".to_owned(),
            ..ExtractedDocument::default()
        };

        let last = split(document.clone(), |_| panic!("there is nothing to split"));

        assert_eq!(last, document);
    }
}
