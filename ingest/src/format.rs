//! Decides what a file is from its content; the name only chooses among kinds of plain text.

mod container;
mod plain;

use std::io::Read as _;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::ExtractError;
use crate::extract::text;

/// Readers of PDF accept junk before the header up to here.
const PDF_HEADER_WINDOW: usize = 1_024;

/// How much of a text file is looked at for markup.
const SNIFF_WINDOW: usize = 4_096;

/// The beginning of a file, which tells what most files are.
const TELLING_BYTES: u64 = 1 << 20;

/// A format that can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    Pdf,
    /// Word, with and without macros, and its templates.
    Docx,
    Pptx,
    Xlsx,
    Odt,
    Odp,
    Ods,
    Rtf,
    Epub,
    Html,
    Markdown,
    /// reStructuredText.
    Rst,
    Asciidoc,
    /// Values between commas, semicolons, tabs or bars.
    Csv,
    Json,
    /// A JSON value on every line.
    Jsonl,
    /// A mail as it is sent.
    Eml,
    /// A mail as Outlook stores it.
    Msg,
    /// An archive of files in any of these formats.
    Zip,
    Text,
    /// An image, for text recognition.
    Picture,
    /// Sound or film, for transcription.
    Recording,
}

/// What can be read besides documents, as this machine is configured.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Media {
    pub pictures: bool,
    pub recordings: bool,
}

impl Media {
    /// The format, if it can be read; else what would have to be configured.
    pub fn accept(self, format: Format) -> Result<Format, ExtractError> {
        match format {
            Format::Picture if !self.pictures => Err(ExtractError::unread(format)),
            Format::Recording if !self.recordings => Err(ExtractError::unread(format)),
            format => Ok(format),
        }
    }
}

impl Format {
    /// Every format, in the order they are shown to people.
    pub const ALL: [Self; 22] = [
        Self::Pdf,
        Self::Docx,
        Self::Pptx,
        Self::Xlsx,
        Self::Odt,
        Self::Odp,
        Self::Ods,
        Self::Rtf,
        Self::Epub,
        Self::Html,
        Self::Markdown,
        Self::Rst,
        Self::Asciidoc,
        Self::Csv,
        Self::Json,
        Self::Jsonl,
        Self::Eml,
        Self::Msg,
        Self::Zip,
        Self::Text,
        Self::Picture,
        Self::Recording,
    ];

    /// The name used in stored rows and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pdf => "pdf",
            Self::Docx => "docx",
            Self::Pptx => "pptx",
            Self::Xlsx => "xlsx",
            Self::Odt => "odt",
            Self::Odp => "odp",
            Self::Ods => "ods",
            Self::Rtf => "rtf",
            Self::Epub => "epub",
            Self::Html => "html",
            Self::Markdown => "markdown",
            Self::Rst => "rst",
            Self::Asciidoc => "asciidoc",
            Self::Csv => "csv",
            Self::Json => "json",
            Self::Jsonl => "jsonl",
            Self::Eml => "eml",
            Self::Msg => "msg",
            Self::Zip => "zip",
            Self::Text => "text",
            Self::Picture => "picture",
            Self::Recording => "recording",
        }
    }

    /// The media type to serve the original with.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Pdf => "application/pdf",
            Self::Docx => "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
            Self::Pptx => "application/vnd.openxmlformats-officedocument.presentationml.presentation",
            Self::Xlsx => "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
            Self::Odt => "application/vnd.oasis.opendocument.text",
            Self::Odp => "application/vnd.oasis.opendocument.presentation",
            Self::Ods => "application/vnd.oasis.opendocument.spreadsheet",
            Self::Rtf => "application/rtf",
            Self::Epub => "application/epub+zip",
            Self::Html => "text/html",
            Self::Markdown => "text/markdown",
            Self::Rst => "text/x-rst",
            Self::Asciidoc => "text/asciidoc",
            Self::Csv => "text/csv",
            Self::Json => "application/json",
            Self::Jsonl => "application/jsonl",
            Self::Eml => "message/rfc822",
            Self::Msg => "application/vnd.ms-outlook",
            Self::Zip => "application/zip",
            Self::Text => "text/plain",
            // Nobody needs to know the kind to save it.
            Self::Picture | Self::Recording => "application/octet-stream",
        }
    }

    /// Whether it is read by others, where they are configured.
    pub fn is_media(self) -> bool {
        matches!(self, Self::Picture | Self::Recording)
    }

    /// The accepted formats as a list for a person.
    pub fn accepted_names() -> &'static str {
        "PDF, Word (.docx), PowerPoint (.pptx), Excel (.xlsx), OpenDocument (.odt, .odp, .ods), RTF, EPUB, HTML, \
         Markdown, reStructuredText, AsciiDoc, CSV, TSV, JSON, JSON Lines, e-mail (.eml, .msg), ZIP archives of \
         these, plain text"
    }

    /// What the file at `path` is, by its beginning; by all of it only where the beginning does not tell. Blocks.
    pub fn detect_file(path: &Path, file_name: &str) -> std::io::Result<Result<Self, ExtractError>> {
        let mut file = std::fs::File::open(path)?;
        let mut bytes = Vec::new();
        (&mut file).take(TELLING_BYTES).read_to_end(&mut bytes)?;
        let is_whole = (bytes.len() as u64) < TELLING_BYTES;
        // The table of an archive stands at its end; the beginning may hold that of an archive inside of it.
        let is_archive = bytes.starts_with(b"PK\x03\x04");
        if is_whole || !is_archive {
            let format = Self::detect(&bytes, file_name);
            if is_whole || format.is_ok() {
                return Ok(format);
            }
        }
        file.read_to_end(&mut bytes)?;
        Ok(Self::detect(&bytes, file_name))
    }

    /// What `bytes` are. `file_name` chooses among the kinds of text, where the content allows it.
    pub fn detect(bytes: &[u8], file_name: &str) -> Result<Self, ExtractError> {
        if bytes.iter().all(u8::is_ascii_whitespace) {
            return Err(ExtractError::EmptyFile);
        }
        if bytes.starts_with(b"PK\x03\x04") || bytes.starts_with(b"PK\x05\x06") {
            return container::detect_in_zip(bytes);
        }
        if bytes.starts_with(&container::COMPOUND_FILE) {
            return container::detect_in_compound_file(bytes);
        }
        if bytes.starts_with(b"{\\rtf") {
            return Ok(Self::Rtf);
        }
        if contains(&bytes[..bytes.len().min(PDF_HEADER_WINDOW)], b"%PDF-") {
            return Ok(Self::Pdf);
        }
        let Some(sample) = text::decode_sample(bytes, SNIFF_WINDOW) else {
            return detect_media(bytes);
        };
        if sample.trim().is_empty() && bytes.len() <= SNIFF_WINDOW {
            return Err(ExtractError::EmptyFile);
        }
        Ok(plain::detect(&sample, bytes, file_name))
    }
}

/// Tells pictures and recordings that others can read, and names what is none of the formats.
fn detect_media(bytes: &[u8]) -> Result<Format, ExtractError> {
    let Some(kind) = infer::get(bytes) else {
        return Err(ExtractError::UnsupportedType { found: None });
    };
    match (kind.matcher_type(), kind.mime_type()) {
        (
            infer::MatcherType::Image,
            "image/png" | "image/jpeg" | "image/tiff" | "image/webp" | "image/gif" | "image/bmp",
        ) => Ok(Format::Picture),
        (infer::MatcherType::Image, name) => Err(unsupported(&format!("{name}, save it as PNG or JPEG"))),
        // Notes for instruments, and no sound.
        (_, name @ "audio/midi") => Err(unsupported(name)),
        (infer::MatcherType::Audio | infer::MatcherType::Video, _) => Ok(Format::Recording),
        (_, name) => Err(unsupported(name)),
    }
}

fn unsupported(found: &str) -> ExtractError {
    ExtractError::UnsupportedType {
        found: Some(found.to_owned()),
    }
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
    fn a_large_file_is_not_taken_for_what_is_packed_in_its_beginning() {
        let workbook = pack(&[("xl/workbook.xml", b"<workbook/>")]);
        let filling = vec![b'.'; usize::try_from(TELLING_BYTES).expect("it is small")];
        let slides = pack(&[
            ("ppt/embeddings/1.xlsx", &workbook),
            ("ppt/media/1.jpeg", &filling),
            ("ppt/presentation.xml", b"<presentation/>"),
        ]);
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), &slides).expect("it is written");

        assert_eq!(Format::detect(&slides, "a.pptx"), Ok(Format::Pptx));
        assert_eq!(
            Format::detect_file(file.path(), "a.pptx").expect("it is read"),
            Ok(Format::Pptx)
        );
    }

    /// An archive of these members, as they are.
    fn pack(members: &[(&str, &[u8])]) -> Vec<u8> {
        let mut writer = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
        let stored =
            zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
        for (name, content) in members {
            writer.start_file(*name, stored).expect("a new entry");
            std::io::Write::write_all(&mut writer, content).expect("written to memory");
        }
        writer.finish().expect("a whole archive").into_inner()
    }

    #[test]
    fn what_is_none_of_the_formats_is_refused_with_its_reason() {
        assert_eq!(detect(b"", "a.txt"), Err("empty_file"));
        assert_eq!(detect(b" \r\n\t", "a.txt"), Err("empty_file"));
        assert_eq!(
            detect(&[0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0], "a.md"),
            Err("unsupported_type")
        );
        assert_eq!(detect(b"8BPS\0\x01\0\0\0\0", "a.png"), Err("unsupported_type"));
        assert_eq!(detect(b"PK\x03\x04 cut off", "a.docx"), Err("damaged"));
    }

    #[test]
    fn pictures_and_recordings_are_accepted_where_somebody_reads_them() {
        let picture = Format::detect(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "a.txt");
        let recording = Format::detect(b"\xff\xfb\x90\x64\0\0\0\0\0\0\0\0", "a.txt");
        assert_eq!(
            (&picture, &recording),
            (&Ok(Format::Picture), &Ok(Format::Recording))
        );
        let all = Media {
            pictures: true,
            recordings: true,
        };

        for (format, setting) in [
            (Format::Picture, "extract.ocr_program"),
            (Format::Recording, "extract.transcription_base_url"),
        ] {
            assert_eq!(all.accept(format), Ok(format));
            let refusal = Media::default().accept(format).expect_err("nobody reads it");
            assert_eq!(refusal.code(), "unsupported_type");
            assert!(refusal.to_string().contains(setting), "{refusal}");
        }
        assert_eq!(Media::default().accept(Format::Pdf), Ok(Format::Pdf));
    }

    #[test]
    fn the_refusal_lists_what_is_accepted() {
        let message = ExtractError::UnsupportedType { found: None }.to_string();

        assert!(message.contains("PDF") && message.contains("CSV"), "{message}");
    }
}
