//! PDF: pages of placed characters, put together to lines, paragraphs and headings, with page numbers.

mod cmap;
mod content;
mod font;
mod layout;
mod lexer;
mod structure;
mod table;
#[cfg(test)]
mod tests;
mod text_state;
mod words;

use lopdf::{DecompressError, Document, Error, LoadOptions, Object, ObjectId};

use self::content::PageReader;
use self::font::dict_in;
use self::layout::lines_of;
use self::structure::write_blocks;
use crate::document::DocumentBuilder;
use crate::{ExtractError, ExtractedDocument, Limits};

/// Titles that programs write when nobody gave one.
const EMPTY_TITLES: [&str; 4] = [
    "untitled",
    "microsoft word",
    "powerpoint presentation",
    "document",
];

/// Reads the text of all pages. Restrictions on printing or editing do not matter; a password for opening
/// does.
pub(crate) fn extract(bytes: &[u8], limits: &Limits) -> Result<ExtractedDocument, ExtractError> {
    let max_unpacked = limits.max_unpacked(bytes.len() as u64);
    let options = LoadOptions {
        max_decompressed_size: Some(usize::try_from(max_unpacked).unwrap_or(usize::MAX)),
        ..LoadOptions::default()
    };
    let document = Document::load_mem_with_options(bytes, options).map_err(|error| judge(&error))?;
    if document.trailer.has(b"Encrypt") {
        return Err(ExtractError::PasswordProtected);
    }
    let max_pages = limits.max_pages as usize;
    let pages: Vec<ObjectId> = document.page_iter().take(max_pages + 1).collect();
    if pages.is_empty() {
        return Err(ExtractError::damaged("it has no pages"));
    }
    if pages.len() > max_pages {
        return Err(ExtractError::too_large(format!("more than {max_pages} pages")));
    }

    let mut reader = PageReader::new(&document, max_unpacked);
    let mut lines = Vec::with_capacity(pages.len());
    let mut pages_with_images = 0;
    for page in &pages {
        let content = reader.read(*page)?;
        pages_with_images += usize::from(content.has_image);
        lines.push(lines_of(content.glyphs));
    }

    let mut builder = DocumentBuilder::new(limits);
    builder.page_count = u32::try_from(pages.len()).ok();
    builder.title = title_of(&document);
    write_blocks(lines, &mut builder);
    builder.finish().map_err(|error| match error {
        ExtractError::NoText { .. } => ExtractError::NoText {
            scanned: pages_with_images > 0,
        },
        error => error,
    })
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

/// The title in the document's properties, if a person gave it.
fn title_of(document: &Document) -> Option<String> {
    let info = dict_in(document, &document.trailer, b"Info")?;
    let title = info
        .get(b"Title")
        .ok()
        .map(|title| document.dereference(title))
        .and_then(Result::ok)?
        .1;
    let Object::String(..) = title else { return None };
    let title = lopdf::decode_text_string(title).ok()?;
    let lower = title.trim().to_lowercase();
    let is_file_name = lower.rsplit_once('.').is_some_and(|(_, end)| {
        (2..=5).contains(&end.len()) && end.chars().all(|c| c.is_ascii_alphanumeric())
    });
    let is_empty = EMPTY_TITLES.iter().any(|empty| lower.starts_with(empty));
    (lower.chars().count() > 2 && !is_file_name && !is_empty).then_some(title)
}
