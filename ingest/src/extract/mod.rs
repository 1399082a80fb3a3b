//! One reader per format, all bounded by [`Limits`] and all writing through the document builder.

mod archive;
pub(crate) mod csv;
mod docx;
mod drawing;
mod epub;
mod front_matter;
mod html;
mod inside;
mod json;
mod mail;
mod markdown;
mod markup;
pub(crate) mod media;
mod odf;
pub(crate) mod package;
mod pdf;
mod pptx;
mod records;
mod rtf;
pub(crate) mod scope;
mod sheet;
mod table;
pub(crate) mod text;
mod text_reader;
mod title;
mod xlsx;
mod xml;

use std::cell::Cell;
use std::io::Read;

use self::media::Shelf;
pub(crate) use self::pdf::{PageScan, Scans};
use self::scope::Scope;
use crate::{ExtractError, ExtractedDocument, Format, Hints, Limits};

/// Reads `bytes` as `format`, in this process.
///
/// Sizes, counts and nesting of `limits` hold here; time and memory need the [`sandbox`](crate::sandbox).
pub fn extract(
    bytes: &[u8],
    format: Format,
    hints: &Hints,
    limits: &Limits,
) -> Result<ExtractedDocument, ExtractError> {
    let shelf = Shelf::of(limits.media);
    match read_whole(bytes, format, hints, limits, &shelf) {
        Ok(document) => Ok(ExtractedDocument {
            left_out: shelf.left_out(),
            ..document
        }),
        Err(error) => Err(shelf.judge(error)),
    }
}

fn read_whole(
    bytes: &[u8],
    format: Format,
    hints: &Hints,
    limits: &Limits,
    shelf: &Shelf,
) -> Result<ExtractedDocument, ExtractError> {
    let (unpack, documents) = (Cell::new(0), Cell::new(0));
    let scope = Scope::of_file(bytes, hints, limits, &unpack, &documents, shelf);
    read(bytes, format, &scope)
}

/// Whether pictures and recordings inside of files of this format are read.
pub(crate) fn may_hold_media(format: Format) -> bool {
    matches!(
        format,
        Format::Docx
            | Format::Pptx
            | Format::Odt
            | Format::Odp
            | Format::Epub
            | Format::Eml
            | Format::Msg
            | Format::Zip
    )
}

/// Whether files of this format are read as they come, so that nobody holds them whole.
pub(crate) fn is_streamed(format: Format) -> bool {
    matches!(format, Format::Csv | Format::Jsonl)
}

/// Reads `size` bytes in a format that [`is_streamed`], in this process.
pub(crate) fn extract_stream(
    source: impl Read,
    size: u64,
    format: Format,
    hints: &Hints,
    limits: &Limits,
) -> Result<ExtractedDocument, ExtractError> {
    match format {
        Format::Csv => csv::extract_stream(source, size, hints, limits),
        Format::Jsonl => json::extract_lines_stream(source, size, limits),
        format => Err(ExtractError::unread(format)),
    }
}

/// The images of the next scanned pages after page `after`, for text recognition, or the next pictures and recordings
/// after the one of this number; none when there are no more.
pub(crate) fn scans(
    bytes: &[u8],
    format: Format,
    hints: &Hints,
    limits: &Limits,
    after: u32,
) -> Result<Scans, ExtractError> {
    match format {
        Format::Pdf => pdf::scans(bytes, hints, limits, after),
        format if may_hold_media(format) => {
            let shelf = Shelf::collecting(limits.media, after);
            read_whole(bytes, format, hints, limits, &shelf)?;
            Ok(shelf.into_batch())
        }
        _ => Ok(Scans::default()),
    }
}

/// Reads a file, or a document inside one.
fn read(bytes: &[u8], format: Format, scope: &Scope<'_>) -> Result<ExtractedDocument, ExtractError> {
    match format {
        Format::Text => text::extract(bytes, scope.hints, scope.limits),
        Format::Markdown => markdown::extract(bytes, scope.hints, scope.limits),
        Format::Html => html::extract(bytes, scope.hints, scope.limits),
        Format::Pdf => pdf::extract(bytes, scope.hints, scope.limits),
        Format::Csv => csv::extract(bytes, scope.hints, scope.limits),
        Format::Docx => docx::extract(bytes, scope),
        Format::Pptx => pptx::extract(bytes, scope),
        Format::Xlsx => xlsx::extract(bytes, scope),
        Format::Rst => markup::extract_rst(bytes, scope.hints, scope.limits),
        Format::Asciidoc => markup::extract_asciidoc(bytes, scope.hints, scope.limits),
        Format::Json => json::extract(bytes, scope.limits),
        Format::Jsonl => json::extract_lines(bytes, scope.limits),
        Format::Rtf => rtf::extract(bytes, scope.limits),
        Format::Epub => epub::extract(bytes, scope),
        Format::Eml => mail::extract_eml(bytes, scope),
        Format::Msg => mail::extract_msg(bytes, scope),
        Format::Zip => archive::extract(bytes, scope),
        Format::Odt => odf::extract_text(bytes, scope),
        Format::Odp => odf::extract_presentation(bytes, scope),
        Format::Ods => odf::extract_spreadsheet(bytes, scope),
        // Others read these, and not inside of documents.
        Format::Picture | Format::Recording => Err(ExtractError::unread(format)),
    }
}
