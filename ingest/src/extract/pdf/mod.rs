//! PDF: pages of placed characters, put together to lines, paragraphs and headings, with page numbers.

mod about;
mod bidi;
mod bitmap;
mod cmap;
mod content;
mod edges;
mod encoding;
mod font;
mod layout;
mod lexer;
mod objects;
mod order;
mod outline;
mod page;
mod program;
mod samples;
mod scan;
mod structure;
mod table;
#[cfg(test)]
mod tests;
mod text_state;
mod words;

use std::collections::HashSet;

use lopdf::{DecompressError, Document, Error, LoadOptions, Object, ObjectId};

pub(crate) use self::scan::{PageScan, Scans, scans};

use self::about::about;
use self::layout::lines_of;
use self::outline::Outline;
use self::page::PageReader;
use self::structure::write_blocks;
use crate::document::DocumentBuilder;
use crate::{ExtractError, ExtractedDocument, Hints, Limits};

/// Reads the text of all pages. Restrictions on printing or editing do not matter; a password for opening
/// does, and is tried where the hints have one.
pub(crate) fn extract(
    bytes: &[u8],
    hints: &Hints,
    limits: &Limits,
) -> Result<ExtractedDocument, ExtractError> {
    let max_unpacked = limits.max_unpacked(bytes.len() as u64);
    let document = load(bytes, hints, max_unpacked)?;
    let pages = pages_of(&document, limits)?;

    let mut reader = PageReader::new(&document, max_unpacked);
    let mut lines = Vec::with_capacity(pages.len());
    let mut has_images = false;
    let mut scanned_pages = Vec::new();
    for (page, number) in pages.iter().zip(1_u32..) {
        let content = reader.read(*page)?;
        has_images |= content.has_image;
        scanned_pages.extend(content.is_scanned.then_some(number));
        lines.push(lines_of(content.glyphs));
    }

    let mut builder = DocumentBuilder::new(limits);
    builder.page_count = u32::try_from(pages.len()).ok();
    builder.scanned_pages = scanned_pages;
    (builder.title, builder.metadata) = about(&document);
    write_blocks(lines, &Outline::of(&document, &pages), &mut builder);
    builder.finish().map_err(|error| match error {
        ExtractError::NoText { .. } => ExtractError::NoText { scanned: has_images },
        error => error,
    })
}

fn load(bytes: &[u8], hints: &Hints, max_unpacked: u64) -> Result<Document, ExtractError> {
    let options = LoadOptions {
        password: hints.password.clone(),
        max_decompressed_size: Some(usize::try_from(max_unpacked).unwrap_or(usize::MAX)),
        ..LoadOptions::default()
    };
    let document = Document::load_mem_with_options(bytes, options).map_err(|error| judge(&error))?;
    if document.trailer.has(b"Encrypt") {
        return Err(ExtractError::PasswordProtected);
    }
    Ok(document)
}

/// The pages in order, each once: a broken tree may hold one many times. Where the tree is lost, all pages that
/// the file holds.
fn pages_of(document: &Document, limits: &Limits) -> Result<Vec<ObjectId>, ExtractError> {
    let max_pages = limits.max_pages as usize;
    let mut seen = HashSet::new();
    let mut pages: Vec<ObjectId> = document
        .page_iter()
        .filter(|page| seen.insert(*page))
        .take(max_pages + 1)
        .collect();
    if pages.is_empty() {
        let is_page = |object: &Object| object.as_dict().is_ok_and(|dict| dict.has_type(b"Page"));
        pages = document
            .objects
            .iter()
            .filter(|(_, object)| is_page(object))
            .map(|(id, _)| *id)
            .take(max_pages + 1)
            .collect();
    }
    if pages.is_empty() {
        return Err(ExtractError::damaged("it has no pages"));
    }
    if pages.len() > max_pages {
        return Err(ExtractError::too_large(format!("more than {max_pages} pages")));
    }
    Ok(pages)
}

fn judge(error: &Error) -> ExtractError {
    match error {
        Error::Decompress(DecompressError::MemoryLimitExceeded { .. }) => {
            ExtractError::too_large("it unpacks to too much data")
        }
        Error::InvalidPassword => ExtractError::PasswordProtected,
        Error::Decryption(_) => ExtractError::damaged("its encryption is broken or of an unknown kind"),
        _ => ExtractError::damaged("its structure is broken"),
    }
}
