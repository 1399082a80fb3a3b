//! HTML as a reader sees it: headings, paragraphs, lists, table rows and code, without scripts, styles,
//! navigation, comments and hidden elements.
//!
//! The page is read token by token and never becomes a tree, so that work is linear in its size whatever
//! its nesting: tree construction as browsers do it multiplies misnested elements.

mod hidden;
mod walker;

use encoding_rs::Encoding;
use html5ever::tendril::StrTendril;
use html5ever::tokenizer::{BufferQueue, Tokenizer, TokenizerOpts};

use self::walker::Walker;
use super::text::decode;
use crate::document::DocumentBuilder;
use crate::{ExtractError, ExtractedDocument, Limits};

/// Where a page declares its encoding, as browsers look for it.
const CHARSET_WINDOW: usize = 4_096;

/// Attributes of one tag. The tokenizer compares each with all before it. No element has a hundredth of
/// these, but a script may look like an endless tag, and is counted like one.
const MAX_ATTRIBUTES: usize = 2_000;

/// Text given to the tokenizer at once.
const FEED_BYTES: usize = 256 << 10;

/// Reads a page in the encoding that it declares.
pub(crate) fn extract(bytes: &[u8], limits: &Limits) -> Result<ExtractedDocument, ExtractError> {
    let page = decode(bytes, declared_encoding(bytes), limits)?;
    let builder = read_page(&page, DocumentBuilder::new(limits), limits)?;
    builder.finish()
}

/// Adds the blocks of `page` to `builder`.
pub(super) fn read_page(
    page: &str,
    builder: DocumentBuilder,
    limits: &Limits,
) -> Result<DocumentBuilder, ExtractError> {
    refuse_endless_tags(page)?;
    let tokenizer = Tokenizer::new(Walker::new(builder, limits), TokenizerOpts::default());
    let queue = BufferQueue::default();
    let mut rest = page;
    while !rest.is_empty() && !tokenizer.sink.is_full() {
        let mut cut = rest.len().min(FEED_BYTES);
        while !rest.is_char_boundary(cut) {
            cut -= 1;
        }
        let (part, after) = rest.split_at(cut);
        rest = after;
        queue.push_back(StrTendril::from_slice(part));
        // A script or an encoding note makes the tokenizer pause; nothing is to be done about either.
        while !queue.is_empty() {
            let _ = tokenizer.feed(&queue);
        }
    }
    tokenizer.end();
    Ok(tokenizer.sink.into_builder())
}

/// The encoding named in a `meta` element, or in the XML declaration of XHTML.
fn declared_encoding(bytes: &[u8]) -> Option<&'static Encoding> {
    let head = &bytes[..bytes.len().min(CHARSET_WINDOW)];
    let head = String::from_utf8_lossy(head).to_ascii_lowercase();
    ["charset=", "encoding="].iter().find_map(|key| {
        let (_, after) = head.split_once(key)?;
        let label: String = after
            .trim_start_matches(['"', '\'', ' '])
            .chars()
            .take_while(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | ':'))
            .collect();
        Encoding::for_label(label.as_bytes())
    })
}

/// Refuses tags with absurdly many attributes before the tokenizer sees them.
fn refuse_endless_tags(page: &str) -> Result<(), ExtractError> {
    let bytes = page.as_bytes();
    let mut at = 0;
    while let Some(offset) = bytes[at..].iter().position(|byte| *byte == b'<') {
        at += offset + 1;
        if !bytes.get(at).is_some_and(u8::is_ascii_alphabetic) {
            continue;
        }
        let (end, attributes) = scan_tag(bytes, at);
        if attributes > MAX_ATTRIBUTES {
            return Err(ExtractError::too_large("an element with too many attributes"));
        }
        at = end.max(at);
    }
    Ok(())
}

/// The end of the tag that starts at `at`, and an upper bound for the number of its attributes.
fn scan_tag(bytes: &[u8], at: usize) -> (usize, usize) {
    let mut quote = None;
    let mut attributes = 0;
    let mut in_gap = false;
    let mut after_equals = false;
    for (offset, byte) in bytes[at..].iter().enumerate() {
        match (quote, byte) {
            (Some(open), byte) if open == *byte => quote = None,
            (Some(_), _) => continue,
            (None, b'>') => return (at + offset, attributes),
            (None, b'"' | b'\'') if after_equals => quote = Some(*byte),
            (None, b' ' | b'\t' | b'\n' | b'\r' | b'\x0c' | b'/') => {
                in_gap = true;
                continue;
            }
            (None, _) => {
                attributes += usize::from(in_gap || after_quote(bytes, at + offset));
            }
        }
        in_gap = false;
        after_equals = *byte == b'=';
        if attributes > MAX_ATTRIBUTES {
            break;
        }
    }
    (bytes.len(), attributes)
}

/// Attributes may follow a quoted value without a gap.
fn after_quote(bytes: &[u8], at: usize) -> bool {
    at > 0 && matches!(bytes[at - 1], b'"' | b'\'')
}

#[cfg(test)]
mod tests;
