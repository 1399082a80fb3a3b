//! HTML as a reader sees it: headings, paragraphs, lists, table rows and code, without scripts, styles,
//! navigation, comments and hidden elements; of a web page, its main content only.
//!
//! The page is read token by token into pieces of text and the elements around them, so that work is linear
//! in its size whatever its nesting: tree construction as browsers do it multiplies misnested elements.

mod breadcrumbs;
mod date;
mod elements;
mod facts;
mod guard;
mod hidden;
mod landmarks;
mod main_content;
mod page;
mod structured;
mod tag;
mod title;
mod walker;

use encoding_rs::Encoding;
use html5ever::tendril::StrTendril;
use html5ever::tokenizer::{BufferQueue, Tokenizer, TokenizerOpts};

use self::facts::Facts;
use self::guard::refuse_endless_tags;
use self::page::{Page, Piece, Use};
use self::walker::Walker;
use super::text::{decode, hinted_encoding};
use crate::document::{DocumentBuilder, clean_prose, one_line};
use crate::{BlockKind, ExtractError, ExtractedDocument, Hints, Limits};

/// Where a page declares its encoding, as browsers look for it.
const CHARSET_WINDOW: usize = 4_096;

/// Text given to the tokenizer at once.
const FEED_BYTES: usize = 256 << 10;

/// Reads the main content of a page, and what the page says about itself. The encoding is the one that the
/// server named, else the one that the page declares.
pub(crate) fn extract(
    bytes: &[u8],
    hints: &Hints,
    limits: &Limits,
) -> Result<ExtractedDocument, ExtractError> {
    let encoding = hinted_encoding(hints).or_else(|| declared_encoding(bytes));
    let source = decode(bytes, encoding, limits)?;
    let Reading { page, facts, title } = read(&source, limits)?;
    drop(source);
    let names = title::Names::new(title, &facts);
    let kept = main_content::choose(&page, names.longest());
    let title = names.choose(&page, &kept);
    let uses = uses(&page, title.as_deref(), &kept);
    let (metadata, web) = facts.finish(title.as_deref());
    let mut builder = DocumentBuilder::new(limits);
    builder.title = title;
    builder.metadata = metadata;
    builder.web = Some(web);
    page.write(&mut builder, |place| uses[place]);
    builder.finish()
}

/// What becomes of each piece. Of a page that was more than its content, the heading that is its title stands
/// in the title and above the text, not in it.
fn uses(page: &Page, title: Option<&str>, kept: &[bool]) -> Vec<Use> {
    let is_whole = kept.iter().all(|kept| *kept);
    let is_title = |piece: &Piece| {
        !is_whole
            && matches!(piece.kind, BlockKind::Heading { level: 1 | 2 })
            && title.is_some_and(|title| title == one_line(&clean_prose(page.text_of(piece))))
    };
    let uses: Vec<Use> = page
        .pieces
        .iter()
        .zip(kept)
        .map(|(piece, kept)| match *kept {
            true if is_title(piece) => Use::HeadingOnly,
            true => Use::Text,
            false => Use::Nothing,
        })
        .collect();
    match uses.contains(&Use::Text) {
        true => uses,
        false => kept
            .iter()
            .map(|kept| if *kept { Use::Text } else { Use::Nothing })
            .collect(),
    }
}

/// Adds all blocks of a page, or of a part of one, to `builder`: for documents that are written in HTML and
/// have nothing around their content.
pub(super) fn read_fragment(
    source: &str,
    mut builder: DocumentBuilder,
    limits: &Limits,
) -> Result<DocumentBuilder, ExtractError> {
    let Reading { page, title, .. } = read(source, limits)?;
    builder.title = builder.title.or(title);
    page.write(&mut builder, |_| Use::Text);
    Ok(builder)
}

/// What was read of a page.
#[derive(Debug)]
struct Reading {
    page: Page,
    facts: Facts,
    /// The text of the `title` element.
    title: Option<String>,
}

fn read(source: &str, limits: &Limits) -> Result<Reading, ExtractError> {
    refuse_endless_tags(source)?;
    let tokenizer = Tokenizer::new(Walker::new(limits), TokenizerOpts::default());
    let queue = BufferQueue::default();
    let mut rest = source;
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
    Ok(tokenizer.sink.finish())
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
        // Who can read this declaration does not read UTF-16.
        Encoding::for_label(label.as_bytes()).filter(|encoding| encoding.is_ascii_compatible())
    })
}

#[cfg(test)]
mod tests;

#[cfg(test)]
mod facts_tests;
