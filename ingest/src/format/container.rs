//! Looks into the containers that many formats share: zip archives and the compound files of old Office.

use std::io::{Cursor, Read};

use zip::ZipArchive;

use super::{Format, contains, unsupported};
use crate::extract::package::declared_entries;
use crate::{ExtractError, Limits};

pub(super) const COMPOUND_FILE: [u8; 8] = [0xd0, 0xcf, 0x11, 0xe0, 0xa1, 0xb1, 0x1a, 0xe1];

/// What is unpacked of the entries that name the type.
const MAX_NAMING_BYTES: u64 = 256 << 10;

/// Content types of main parts, by what they contain.
const OFFICE_TYPES: [(&str, Format); 5] = [
    ("wordprocessingml.document.main", Format::Docx),
    ("wordprocessingml.template.main", Format::Docx),
    ("ms-word.", Format::Docx),
    ("spreadsheetml.", Format::Xlsx),
    ("presentationml.", Format::Pptx),
];

/// Media types of the entry `mimetype`, without the `-template` that may follow.
const DECLARED_TYPES: [(&str, Format); 6] = [
    ("application/epub+zip", Format::Epub),
    ("application/vnd.oasis.opendocument.text", Format::Odt),
    ("application/vnd.oasis.opendocument.presentation", Format::Odp),
    ("application/vnd.oasis.opendocument.graphics", Format::Odp),
    ("application/vnd.oasis.opendocument.spreadsheet", Format::Ods),
    ("application/vnd.sun.xml.writer", Format::Odt),
];

/// Office files and e-books say what they are in an entry of their archive; others are archives of files.
pub(super) fn detect_in_zip(bytes: &[u8]) -> Result<Format, ExtractError> {
    if declared_entries(bytes) > u64::from(Limits::default().max_entries) {
        return Err(ExtractError::too_large("its archive has too many entries"));
    }
    let Ok(mut archive) = ZipArchive::new(Cursor::new(bytes)) else {
        return Err(ExtractError::damaged("the archive cannot be opened"));
    };
    if let Some(declared) = read_entry(&mut archive, "mimetype") {
        let known = DECLARED_TYPES
            .iter()
            .find(|(name, _)| declared.trim().starts_with(name));
        if let Some((_, format)) = known {
            return Ok(*format);
        }
    }
    let types = read_entry(&mut archive, "[Content_Types].xml").unwrap_or_default();
    if types.contains("ms-excel.sheet.binary") {
        return Err(unsupported("binary Excel workbook, save it as .xlsx"));
    }
    let has = |prefix: &str| {
        archive
            .file_names()
            .any(|name| name.is_ok_and(|name| name.starts_with(prefix)))
    };
    // The usual places go first: the table of types may name parts that are embedded.
    let usual = [
        ("word/document", Format::Docx),
        ("xl/workbook", Format::Xlsx),
        ("ppt/presentation", Format::Pptx),
    ];
    if let Some((_, format)) = usual.iter().find(|(prefix, _)| has(prefix)) {
        return Ok(*format);
    }
    if let Some((_, format)) = OFFICE_TYPES.iter().find(|(name, _)| types.contains(name)) {
        return Ok(*format);
    }
    if has("META-INF/container.xml") {
        return Ok(Format::Epub);
    }
    Ok(Format::Zip)
}

fn read_entry(archive: &mut ZipArchive<Cursor<&[u8]>>, name: &str) -> Option<String> {
    let entry = archive.by_name(name).ok()?;
    let mut content = Vec::new();
    entry.take(MAX_NAMING_BYTES).read_to_end(&mut content).ok()?;
    Some(String::from_utf8_lossy(&content).into_owned())
}

/// The old Office container holds Outlook's mails, and new documents that are locked with a password.
pub(super) fn detect_in_compound_file(bytes: &[u8]) -> Result<Format, ExtractError> {
    let has = |name: &str| {
        let name: Vec<u8> = name.encode_utf16().flat_map(u16::to_le_bytes).collect();
        contains(bytes, &name)
    };
    if has("EncryptedPackage") {
        return Err(ExtractError::PasswordProtected);
    }
    if has("__properties_version1.0") {
        return Ok(Format::Msg);
    }
    Err(unsupported(if has("WordDocument") {
        "old Word document, save it as .docx"
    } else if has("Workbook") {
        "old Excel workbook, save it as .xlsx"
    } else if has("PowerPoint Document") {
        "old PowerPoint presentation, save it as .pptx"
    } else {
        "old Office document, save it in a current format"
    }))
}
