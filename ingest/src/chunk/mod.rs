//! Cuts a document into chunks that fit an embedding model, along its own structure.
//!
//! Whole blocks under one heading path are packed together up to the budget; only a block that is too big
//! by itself is cut, at the best boundary inside it. A heading opens the chunk of the text below it. Every
//! visible character lies in at least one chunk, and a chunk's text is exactly the document's at its span.

mod cut;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

use self::cut::{TokenCounter, cut};
use crate::document::shorten;
use crate::{Block, BlockKind, ExtractedDocument};

/// Characters of headings, and of a table header, that go in front of a chunk when it is embedded: about
/// the tokens that the default budget leaves free in a window of 256.
const MAX_CONTEXT_CHARS: usize = 120;

/// Records are chunks of their own up to this many; in larger tables they share chunks, since each chunk
/// costs an embedding.
const MAX_LONE_RECORDS: usize = 2_000;

/// What stands between the headings above a chunk, for readers.
pub const HEADING_SEPARATOR: &str = " › ";

/// A span of a document that is embedded, found and cited as one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chunk {
    /// Exactly the characters `start..end` of the document's text.
    pub text: String,
    pub start: usize,
    /// After the last character.
    pub end: usize,
    /// The page on which the chunk starts, counted from 1.
    pub page: Option<u32>,
    pub heading_path: Vec<String>,
    /// The header row of the table whose rows the chunk holds.
    #[serde(default)]
    pub table_header: Option<String>,
    /// Tokens of `text` alone.
    pub token_count: usize,
}

/// How big chunks may become.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChunkOptions {
    /// Tokens of a chunk's text. Leave room for the headings in front of it.
    pub max_tokens: usize,
    /// Tokens repeated where one block had to be cut.
    pub overlap_tokens: usize,
}

impl Default for ChunkOptions {
    fn default() -> Self {
        Self {
            max_tokens: 220,
            overlap_tokens: 32,
        }
    }
}

impl Chunk {
    /// What is embedded and hashed: the innermost headings, the table header, the text.
    pub fn embedding_text(&self) -> String {
        let mut parts: Vec<String> = Vec::new();
        let path = self.context_headings();
        if !path.is_empty() {
            parts.push(path);
        }
        if let Some(header) = self
            .table_header
            .as_ref()
            .filter(|header| !self.text.contains(header.as_str()))
        {
            parts.push(shorten(header, MAX_CONTEXT_CHARS));
        }
        parts.push(self.text.clone());
        parts.join("\n")
    }

    /// What stands above the text, for a reader: the headings, outermost first, and the header of the table whose
    /// rows the chunk continues.
    pub fn heading(&self) -> Option<String> {
        let header = self
            .table_header
            .as_ref()
            .filter(|header| !self.text.contains(header.as_str()));
        let mut parts: Vec<String> = self.heading_path.clone();
        parts.extend(header.map(|header| shorten(header, MAX_CONTEXT_CHARS)));
        (!parts.is_empty()).then(|| parts.join(HEADING_SEPARATOR))
    }

    /// Headings from the innermost outwards as far as the space goes, without one that the text repeats.
    fn context_headings(&self) -> String {
        let repeated = self
            .heading_path
            .last()
            .is_some_and(|last| self.text.starts_with(last.as_str()));
        let above = &self.heading_path[..self.heading_path.len() - usize::from(repeated)];
        let mut path = String::new();
        for heading in above.iter().rev() {
            let joined = if path.is_empty() {
                heading.clone()
            } else {
                format!("{heading} > {path}")
            };
            if joined.chars().count() > MAX_CONTEXT_CHARS {
                break;
            }
            path = joined;
        }
        if path.is_empty() {
            above
                .last()
                .map(|last| shorten(last, MAX_CONTEXT_CHARS))
                .unwrap_or_default()
        } else {
            path
        }
    }
}

/// Cuts `document` into chunks of at most `options.max_tokens`, in document order.
///
/// `count_tokens` may count fixed special tokens; they are found out and not added up. It is called about
/// once per block, and per 40 bytes of a block that must be cut.
pub fn chunk(
    document: &ExtractedDocument,
    options: &ChunkOptions,
    count_tokens: &dyn Fn(&str) -> usize,
) -> Vec<Chunk> {
    Chunker::new(options.clone()).chunk(document, count_tokens)
}

/// Cuts a document that comes in parts: [`chunk`] for each, with offsets that count from the document's beginning.
#[derive(Debug)]
pub struct Chunker {
    options: ChunkOptions,
    /// Characters of the parts so far.
    chars: usize,
    /// Rows without a header in the parts so far.
    records: usize,
}

impl Chunker {
    pub fn new(options: ChunkOptions) -> Self {
        Self {
            options,
            chars: 0,
            records: 0,
        }
    }

    /// Characters of the parts so far.
    pub fn chars(&self) -> usize {
        self.chars
    }

    /// Cuts the next part.
    pub fn chunk(&mut self, part: &ExtractedDocument, count_tokens: &dyn Fn(&str) -> usize) -> Vec<Chunk> {
        let max_tokens = self.options.max_tokens.max(1);
        self.records += part.blocks.iter().filter(|block| is_unnamed_row(block)).count();
        let mut packer = Packer {
            text: &part.text,
            counter: TokenCounter::new(count_tokens),
            max_tokens,
            overlap_tokens: self.options.overlap_tokens.min(max_tokens / 2),
            records_stand_alone: self.records <= MAX_LONE_RECORDS,
            open: None,
            chunks: Vec::new(),
        };
        let mut cursor = Cursor {
            text: &part.text,
            byte: 0,
            char: 0,
        };
        for block in &part.blocks {
            let start = cursor.at(block.start);
            let end = cursor.at(block.end);
            packer.add(block, start, end);
        }
        packer.close();
        let mut chunks = packer.chunks;
        for chunk in &mut chunks {
            chunk.start += self.chars;
            chunk.end += self.chars;
        }
        self.chars += part.text.chars().count();
        chunks
    }
}

/// A place in the text, in both countings.
#[derive(Debug, Clone, Copy)]
struct Place {
    byte: usize,
    char: usize,
}

/// Translates ascending character offsets to bytes in one pass over the text.
struct Cursor<'a> {
    text: &'a str,
    byte: usize,
    char: usize,
}

impl Cursor<'_> {
    fn at(&mut self, char: usize) -> Place {
        let ahead = char.saturating_sub(self.char);
        let rest = &self.text[self.byte..];
        self.byte += rest
            .char_indices()
            .nth(ahead)
            .map_or(rest.len(), |(offset, _)| offset);
        self.char = self.char.max(char);
        Place {
            byte: self.byte,
            char: self.char,
        }
    }
}

/// The chunk that is being filled.
struct Open<'a> {
    start: Place,
    end: Place,
    first: &'a Block,
    heading_path: &'a [String],
    header: Option<&'a str>,
    tokens: usize,
    /// Nothing but headings so far.
    headings_only: bool,
    /// A record stands alone.
    sealed: bool,
}

struct Packer<'a> {
    text: &'a str,
    counter: TokenCounter<'a>,
    max_tokens: usize,
    overlap_tokens: usize,
    records_stand_alone: bool,
    open: Option<Open<'a>>,
    chunks: Vec<Chunk>,
}

impl<'a> Packer<'a> {
    fn add(&mut self, block: &'a Block, start: Place, end: Place) {
        let text = &self.text[start.byte..end.byte];
        // A row that names its own cells, one per line, is a record: it is looked up by itself.
        let is_lone_record = self.records_stand_alone && is_unnamed_row(block) && text.contains('\n');
        if !self
            .open
            .as_ref()
            .is_some_and(|open| open.may_take(block, is_lone_record))
        {
            self.close();
        }
        let Some(tokens) = self.counter.count_up_to(text, self.max_tokens) else {
            self.cut(block, start, end);
            return;
        };
        if self
            .open
            .as_ref()
            .is_some_and(|open| open.tokens + tokens > self.max_tokens)
        {
            let lone_heading = self.open.as_ref().is_some_and(|open| open.headings_only);
            if lone_heading && !matches!(block.kind, BlockKind::Heading { .. }) {
                // The heading still belongs to this text: both are cut as one.
                self.cut(block, start, end);
                return;
            }
            self.close();
        }
        let is_heading = matches!(block.kind, BlockKind::Heading { .. });
        let open = self.open.get_or_insert_with(|| Open::new(block, start));
        open.end = end;
        open.tokens += tokens;
        open.heading_path = &block.heading_path;
        open.header = open.header.or(header_of(block));
        open.headings_only &= is_heading;
        open.sealed |= is_lone_record;
    }

    /// Cuts a block that is too big; headings waiting for it are cut with it.
    fn cut(&mut self, block: &'a Block, start: Place, end: Place) {
        if self.open.as_ref().is_some_and(|open| !open.headings_only) {
            self.close();
        }
        let (first, page) = match self.open.take() {
            Some(open) => (open.start, open.first.page),
            None => (start, block.page),
        };
        let region = &self.text[first.byte..end.byte];
        // Line breaks would be taken as good places to part the headings from their text.
        let (headings, body) = region.split_at(start.byte - first.byte);
        let joined = format!("{}{body}", headings.replace('\n', " "));
        let pieces = cut(&joined, self.max_tokens, self.overlap_tokens, &self.counter);
        let mut cursor = Cursor {
            text: region,
            byte: 0,
            char: 0,
        };
        let mut starts: Vec<(usize, usize)> = Vec::with_capacity(pieces.len());
        for piece in &pieces {
            starts.push((
                cursor.char_at_byte(piece.range.start),
                region[piece.range.clone()].chars().count(),
            ));
        }
        for (piece, (char_start, chars)) in pieces.into_iter().zip(starts) {
            self.chunks.push(Chunk {
                text: region[piece.range].to_owned(),
                start: first.char + char_start,
                end: first.char + char_start + chars,
                page,
                heading_path: block.heading_path.clone(),
                table_header: header_of(block).map(str::to_owned),
                token_count: piece.tokens,
            });
        }
    }

    fn close(&mut self) {
        let Some(open) = self.open.take() else { return };
        self.chunks.push(Chunk {
            text: self.text[open.start.byte..open.end.byte].to_owned(),
            start: open.start.char,
            end: open.end.char,
            page: open.first.page,
            heading_path: open.heading_path.to_vec(),
            table_header: open.header.map(str::to_owned),
            token_count: open.tokens,
        });
    }
}

impl Cursor<'_> {
    /// The character offset of `byte`, which must not lie before the last one asked for.
    fn char_at_byte(&mut self, byte: usize) -> usize {
        self.char += self.text[self.byte..byte].chars().count();
        self.byte = byte;
        self.char
    }
}

impl<'a> Open<'a> {
    fn new(block: &'a Block, start: Place) -> Self {
        Self {
            start,
            end: start,
            first: block,
            heading_path: &block.heading_path,
            header: None,
            tokens: 0,
            headings_only: true,
            sealed: false,
        }
    }

    /// Whether `block` may stand in this chunk, sizes aside.
    fn may_take(&self, block: &Block, is_lone_record: bool) -> bool {
        if self.sealed || (is_lone_record && !self.headings_only) {
            return false;
        }
        if let (Some(open), Some(header)) = (self.header, header_of(block))
            && open != header
        {
            return false;
        }
        // A heading without text of its own waits for the text of the heading below it.
        block.heading_path == self.heading_path
            || (self.headings_only && block.heading_path.starts_with(self.heading_path))
    }
}

fn header_of(block: &Block) -> Option<&str> {
    match &block.kind {
        BlockKind::TableRow { header } => header.as_deref(),
        _ => None,
    }
}

fn is_unnamed_row(block: &Block) -> bool {
    matches!(block.kind, BlockKind::TableRow { header: None })
}
