//! One reader per format, all bounded by [`Limits`] and all writing through the document builder.

pub(crate) mod csv;
mod docx;
mod html;
mod markdown;
mod pdf;
mod table;
pub(crate) mod text;

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
    match format {
        Format::Text => text::extract(bytes, hints, limits),
        Format::Markdown => markdown::extract(bytes, hints, limits),
        Format::Html => html::extract(bytes, hints, limits),
        Format::Docx => docx::extract(bytes, limits),
        Format::Csv => csv::extract(bytes, hints, limits),
        Format::Pdf => pdf::extract(bytes, hints, limits),
    }
}
