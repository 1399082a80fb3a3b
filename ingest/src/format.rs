//! Decides what a file is from its content; the name only chooses among kinds of plain text.

use std::io::Cursor;

use serde::{Deserialize, Serialize};

use crate::ExtractError;
use crate::extract::{csv, text};

/// Readers of PDF accept junk before the header up to here.
const PDF_HEADER_WINDOW: usize = 1_024;

/// How much of a text file is looked at for markup.
const SNIFF_WINDOW: usize = 4_096;

/// A format that can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    Text,
    Markdown,
    Html,
    Pdf,
    Docx,
    Csv,
}

impl Format {
    /// Every format, in the order they are shown to people.
    pub const ALL: [Self; 6] = [
        Self::Pdf,
        Self::Docx,
        Self::Html,
        Self::Markdown,
        Self::Csv,
        Self::Text,
    ];

    /// The name used in stored rows and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Markdown => "markdown",
            Self::Html => "html",
            Self::Pdf => "pdf",
            Self::Docx => "docx",
            Self::Csv => "csv",
        }
    }

    /// The media type to serve the original with.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain",
            Self::Markdown => "text/markdown",
            Self::Html => "text/html",
            Self::Pdf => "application/pdf",
            Self::Docx => "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
            Self::Csv => "text/csv",
        }
    }

    /// The accepted formats as a list for a person.
    pub fn accepted_names() -> &'static str {
        "PDF, Word (.docx), HTML, Markdown, CSV, plain text"
    }

    /// What `bytes` are. `file_name` chooses between text, Markdown and CSV, where the content allows it.
    pub fn detect(bytes: &[u8], file_name: &str) -> Result<Self, ExtractError> {
        if bytes.iter().all(u8::is_ascii_whitespace) {
            return Err(ExtractError::EmptyFile);
        }
        if contains(&bytes[..bytes.len().min(PDF_HEADER_WINDOW)], b"%PDF-") {
            return Ok(Self::Pdf);
        }
        if bytes.starts_with(b"PK\x03\x04") || bytes.starts_with(b"PK\x05\x06") {
            return detect_in_zip(bytes);
        }
        if bytes.starts_with(&[0xd0, 0xcf, 0x11, 0xe0, 0xa1, 0xb1, 0x1a, 0xe1]) {
            return Err(judge_compound_file(bytes));
        }
        if bytes.starts_with(b"{\\rtf") {
            return Err(unsupported("RTF"));
        }
        let Some(sample) = text::decode_sample(bytes, SNIFF_WINDOW) else {
            return Err(ExtractError::UnsupportedType {
                found: name_of_binary(bytes),
            });
        };
        if sample.trim().is_empty() && bytes.len() <= SNIFF_WINDOW {
            return Err(ExtractError::EmptyFile);
        }
        Ok(detect_in_text(&sample, bytes, file_name))
    }
}

fn unsupported(found: &str) -> ExtractError {
    ExtractError::UnsupportedType {
        found: Some(found.to_owned()),
    }
}

/// A `.docx` is a zip archive with a Word body; every other archive is named for what it is.
fn detect_in_zip(bytes: &[u8]) -> Result<Format, ExtractError> {
    let Ok(archive) = zip::ZipArchive::new(Cursor::new(bytes)) else {
        return Err(ExtractError::damaged("the archive cannot be opened"));
    };
    let has = |prefix: &str| {
        archive
            .file_names()
            .any(|name| name.is_ok_and(|name| name.starts_with(prefix)))
    };
    if has("word/document") {
        return Ok(Format::Docx);
    }
    Err(if has("xl/") {
        unsupported("Excel workbook")
    } else if has("ppt/") {
        unsupported("PowerPoint presentation")
    } else {
        unsupported("zip archive")
    })
}

/// The old Office container also wraps new documents that are locked with a password.
fn judge_compound_file(bytes: &[u8]) -> ExtractError {
    let utf16 = |name: &str| -> Vec<u8> { name.encode_utf16().flat_map(u16::to_le_bytes).collect() };
    if contains(bytes, &utf16("EncryptedPackage")) {
        return ExtractError::PasswordProtected;
    }
    if contains(bytes, &utf16("WordDocument")) {
        return unsupported("old Word document, save it as .docx");
    }
    unsupported("old Office document")
}

fn name_of_binary(bytes: &[u8]) -> Option<String> {
    infer::get(bytes).map(|kind| kind.mime_type().to_owned())
}

fn detect_in_text(sample: &str, bytes: &[u8], file_name: &str) -> Format {
    let extension = file_name
        .rsplit_once('.')
        .map(|(_, end)| end.to_ascii_lowercase())
        .unwrap_or_default();
    match sniff_markup(sample) {
        Markup::Page => return Format::Html,
        // Markdown and text files may open with a few tags; only their names tell.
        Markup::Fragment if !matches!(extension.as_str(), "md" | "markdown" | "mdx" | "txt") => {
            return Format::Html;
        }
        _ => {}
    }
    match extension.as_str() {
        "md" | "markdown" | "mdx" => Format::Markdown,
        "csv" | "tsv" if csv::is_plausible(bytes) => Format::Csv,
        "html" | "htm" | "xhtml" if sample.contains("</") => Format::Html,
        _ => Format::Text,
    }
}

enum Markup {
    /// Says that it is an HTML page.
    Page,
    /// Starts with an HTML tag.
    Fragment,
    None,
}

/// Tags at the start of a text that make it HTML (WHATWG MIME sniffing, section 7.1, with common blocks added).
const OPENING_TAGS: [&str; 20] = [
    "script", "iframe", "h1", "h2", "h3", "div", "font", "table", "a", "style", "title", "b", "br", "p",
    "ul", "ol", "section", "article", "main", "meta",
];

fn sniff_markup(sample: &str) -> Markup {
    let mut rest = sample.trim_start_matches(['\u{feff}', ' ', '\t', '\r', '\n', '\u{c}']);
    let mut starts_with_comment = false;
    // Comments and the XML declaration may stand before the first tag.
    loop {
        let skipped = if let Some(after) = rest.strip_prefix("<!--") {
            starts_with_comment = true;
            after.split_once("-->").map(|(_, after)| after)
        } else if let Some(after) = rest.strip_prefix("<?xml") {
            after.split_once('>').map(|(_, after)| after)
        } else {
            break;
        };
        let Some(after) = skipped else { break };
        rest = after.trim_start();
    }
    let head: String = rest.chars().take(16).collect::<String>().to_ascii_lowercase();
    if ["<!doctype html", "<html", "<head", "<body"]
        .iter()
        .any(|tag| starts_with_tag(&head, tag))
    {
        return Markup::Page;
    }
    let is_tag = |name: &&str| {
        head.strip_prefix('<')
            .is_some_and(|tag| starts_with_tag(tag, name))
    };
    if OPENING_TAGS.iter().any(is_tag) || (starts_with_comment && rest.starts_with('<')) {
        return Markup::Fragment;
    }
    Markup::None
}

fn starts_with_tag(text: &str, tag: &str) -> bool {
    text.strip_prefix(tag).is_some_and(|after| {
        after.is_empty() || after.starts_with(|c: char| c.is_whitespace() || c == '>' || c == '/')
    })
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn detect(bytes: &[u8], name: &str) -> Result<Format, &'static str> {
        Format::detect(bytes, name).map_err(|error| error.code())
    }

    #[test]
    fn content_decides_and_the_name_only_chooses_among_texts() {
        assert_eq!(detect(b"%PDF-1.4\n", "a.txt"), Ok(Format::Pdf));
        assert_eq!(detect(b"<!DOCTYPE html><p>x", "a.md"), Ok(Format::Html));
        assert_eq!(detect(b"<div>Hello</div>", "page"), Ok(Format::Html));
        assert_eq!(
            detect(b"<div align=center>Logo</div>\n# Hi", "README.md"),
            Ok(Format::Markdown)
        );
        assert_eq!(detect(b"just words", "a.pdf"), Ok(Format::Text));
        assert_eq!(detect(b"a,b\n1,2\n", "a.csv"), Ok(Format::Csv));
        assert_eq!(detect(b"a,b\n1,2\n", "a.txt"), Ok(Format::Text));
        assert_eq!(detect(b"no table at all", "a.csv"), Ok(Format::Text));
    }

    #[test]
    fn what_is_none_of_the_formats_is_refused_with_its_reason() {
        assert_eq!(detect(b"", "a.txt"), Err("empty_file"));
        assert_eq!(detect(b" \r\n\t", "a.txt"), Err("empty_file"));
        assert_eq!(
            detect(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "a.txt"),
            Err("unsupported_type")
        );
        assert_eq!(
            detect(&[0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0], "a.md"),
            Err("unsupported_type")
        );
        assert_eq!(detect(b"{\\rtf1 hello}", "a.txt"), Err("unsupported_type"));
        assert_eq!(detect(b"PK\x03\x04 cut off", "a.docx"), Err("damaged"));
    }

    #[test]
    fn the_refusal_lists_what_is_accepted() {
        let message = ExtractError::UnsupportedType { found: None }.to_string();

        assert!(message.contains("PDF") && message.contains("CSV"), "{message}");
    }
}
