//! Cuts one text that is too big at the best boundaries inside it, and counts tokens sparingly.
//!
//! The boundaries come from `text-splitter`. It asks for the size of many overlapping spans, and looks at
//! everything it was given, so it gets a window at a time and a sizer that answers from running totals:
//! each stretch of the text is counted once, and a line of a megabyte costs a megabyte.

use std::cell::RefCell;
use std::ops::Range;

use text_splitter::{ChunkConfig, ChunkSizer, TextSplitter};

/// Bytes per token that no real text exceeds on average; a text longer than this is not worth counting.
const MAX_BYTES_PER_TOKEN: usize = 48;

/// Text given to the splitter at once, in bytes per token of the budget.
const WINDOW_BYTES_PER_TOKEN: usize = 64;

/// Stretches that are counted at once end at the first white space after this many bytes.
const STRETCH_BYTES: usize = 40;

/// Words longer than this are counted in parts.
const MAX_WORD_BYTES: usize = 96;

/// A cut-off part: its byte range and its tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) range: Range<usize>,
    pub(super) tokens: usize,
}

/// Counts tokens without the special ones that a tokenizer adds to every text.
pub(super) struct TokenCounter<'a> {
    count: &'a dyn Fn(&str) -> usize,
    special: usize,
}

impl<'a> TokenCounter<'a> {
    pub(super) fn new(count: &'a dyn Fn(&str) -> usize) -> Self {
        Self {
            count,
            special: count(""),
        }
    }

    pub(super) fn count(&self, text: &str) -> usize {
        (self.count)(text).saturating_sub(self.special)
    }

    /// The tokens of `text`, or `None` if they are more than `max`.
    pub(super) fn count_up_to(&self, text: &str, max: usize) -> Option<usize> {
        if text.len() > max.saturating_mul(MAX_BYTES_PER_TOKEN) {
            return None;
        }
        Some(self.count(text)).filter(|tokens| *tokens <= max)
    }
}

/// Cuts `text` into pieces of at most `max_tokens`, ascending, which cover everything but white space.
pub(super) fn cut(
    text: &str,
    max_tokens: usize,
    overlap_tokens: usize,
    counter: &TokenCounter<'_>,
) -> Vec<Piece> {
    let window_bytes = max_tokens.saturating_mul(WINDOW_BYTES_PER_TOKEN).max(1 << 10);
    let mut pieces: Vec<Piece> = Vec::new();
    let mut start = 0;
    while start < text.len() {
        let end = window_end(text, start, window_bytes);
        let window = &text[start..end];
        let mut found = cut_window(window, max_tokens, overlap_tokens, counter);
        for piece in &mut found {
            piece.range = piece.range.start + start..piece.range.end + start;
        }
        // The last piece ends where the window happens to end: the next window begins with it, so that
        // it is filled up. With a single piece there would be no progress.
        start = match found.last() {
            Some(last) if end < text.len() && found.len() > 1 && last.range.start > start => {
                let next = last.range.start;
                found.pop();
                next
            }
            _ => end,
        };
        for piece in found {
            push_piece(&mut pieces, piece);
        }
    }
    pieces
}

/// Keeps pieces ascending: one that lies within its predecessor says nothing new.
fn push_piece(pieces: &mut Vec<Piece>, piece: Piece) {
    if pieces
        .last()
        .is_some_and(|last| piece.range.end <= last.range.end)
    {
        return;
    }
    pieces.push(piece);
}

fn cut_window(
    window: &str,
    max_tokens: usize,
    overlap_tokens: usize,
    counter: &TokenCounter<'_>,
) -> Vec<Piece> {
    let ruler = Ruler::new(window, counter);
    let config = ChunkConfig::new(max_tokens).with_sizer(&ruler);
    let config = match config.with_overlap(overlap_tokens) {
        Ok(config) => config,
        Err(_) => ChunkConfig::new(max_tokens).with_sizer(&ruler),
    };
    let splitter = TextSplitter::new(config);
    splitter
        .chunk_indices(window)
        .filter(|(_, chunk)| !chunk.is_empty())
        .map(|(start, chunk)| Piece {
            range: start..start + chunk.len(),
            tokens: ruler.size(chunk),
        })
        .collect()
}

/// The end of a window from `start`: at a line or word end in its second half, if there is one.
fn window_end(text: &str, start: usize, window_bytes: usize) -> usize {
    if text.len() - start <= window_bytes {
        return text.len();
    }
    let limit = floor_char_boundary(text, start + window_bytes);
    let half = floor_char_boundary(text, start + window_bytes / 2);
    let tail = &text[half..limit];
    match tail.rfind('\n').or_else(|| tail.rfind(char::is_whitespace)) {
        Some(offset) if half + offset > start => half + offset,
        _ => limit,
    }
}

fn floor_char_boundary(text: &str, at: usize) -> usize {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

/// Knows the tokens of every span of one text from running totals over short stretches.
struct Ruler<'a> {
    text: &'a str,
    counter: &'a TokenCounter<'a>,
    /// Byte offsets where stretches begin, and the end of the text.
    bounds: Vec<usize>,
    /// Tokens before each bound.
    totals: Vec<usize>,
    /// Part of a stretch, counted before.
    parts: RefCell<std::collections::HashMap<Range<usize>, usize>>,
}

impl<'a> Ruler<'a> {
    fn new(text: &'a str, counter: &'a TokenCounter<'a>) -> Self {
        let mut bounds = vec![0];
        let mut totals = vec![0];
        let mut start = 0;
        while start < text.len() {
            let end = stretch_end(text, start);
            let total = totals[totals.len() - 1] + counter.count(&text[start..end]);
            bounds.push(end);
            totals.push(total);
            start = end;
        }
        Self {
            text,
            counter,
            bounds,
            totals,
            parts: RefCell::default(),
        }
    }

    fn tokens(&self, range: Range<usize>) -> usize {
        // The first bound at or after the start, the last at or before the end.
        let first = self.bounds.partition_point(|bound| *bound < range.start);
        let last = self.bounds.partition_point(|bound| *bound <= range.end) - 1;
        if first > last {
            return self.part(range);
        }
        let head = self.part(range.start..self.bounds[first]);
        let tail = self.part(self.bounds[last]..range.end);
        head + (self.totals[last] - self.totals[first]) + tail
    }

    fn part(&self, range: Range<usize>) -> usize {
        if range.is_empty() {
            return 0;
        }
        *self
            .parts
            .borrow_mut()
            .entry(range.clone())
            .or_insert_with(|| self.counter.count(&self.text[range]))
    }
}

impl ChunkSizer for Ruler<'_> {
    fn size(&self, chunk: &str) -> usize {
        // The splitter only ever asks for parts of the text it was given.
        let offset = (chunk.as_ptr() as usize).wrapping_sub(self.text.as_ptr() as usize);
        match offset.checked_add(chunk.len()) {
            Some(end) if end <= self.text.len() => self.tokens(offset..end),
            _ => self.counter.count(chunk),
        }
    }
}

fn stretch_end(text: &str, start: usize) -> usize {
    let from = floor_char_boundary(text, start + STRETCH_BYTES).max(start);
    let limit = floor_char_boundary(text, start + MAX_WORD_BYTES);
    if limit >= text.len() {
        return text.len();
    }
    text[from..limit]
        .find(char::is_whitespace)
        .map_or(limit, |offset| from + offset)
        .max(start + 1)
}
