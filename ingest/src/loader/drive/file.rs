//! What a file of Drive is to us: a folder, a pointer, something to download, something to export.

use google_drive3::api;

use super::error::DriveError;

const FOLDER: &str = "application/vnd.google-apps.folder";
const SHORTCUT: &str = "application/vnd.google-apps.shortcut";
const GOOGLE_TYPES: &str = "application/vnd.google-apps.";

/// Characters of an id that are believed; Google's have 19 to 44.
const MAX_ID_CHARS: usize = 200;

/// A file of Drive, checked: its id is one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    pub id: String,
    pub name: String,
    pub kind: FileKind,
    /// The folders it lies in, where the account sees them. Old files have several.
    pub parents: Vec<String>,
    pub is_trashed: bool,
    /// The shared drive it is in.
    pub drive_id: Option<String>,
    /// Where a person opens it.
    pub url: String,
    /// Changes when the content may have.
    pub version: String,
    /// MD5 of the content in lower-case hexadecimal; of uploaded files only.
    pub md5: Option<String>,
    pub size_bytes: Option<u64>,
    /// Whether the account may take the content out of Drive.
    pub is_downloadable: bool,
}

/// What is done with a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileKind {
    Folder,
    /// Points at a file elsewhere.
    Shortcut {
        target: Option<String>,
    },
    /// An uploaded file: downloaded as it is.
    Uploaded,
    /// A document of Google's own, which Drive turns into a file: the first of these exports that works is taken.
    Google(&'static [Export]),
    /// A document of Google's own without text: a form, a map, a site.
    Unreadable {
        media_type: String,
    },
}

/// A form in which Drive gives a document of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Export {
    pub media_type: &'static str,
    /// With the dot.
    pub extension: &'static str,
}

/// Plain text is the way out for documents whose Office form is over Google's limit of 10 MB, mostly by their pictures.
const TEXT: Export = Export {
    media_type: "text/plain",
    extension: ".txt",
};
const DOCUMENT: &[Export] = &[
    Export {
        media_type: "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
        extension: ".docx",
    },
    TEXT,
];
/// All sheets; as CSV there would be the first one only.
const SHEET: &[Export] = &[Export {
    media_type: "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    extension: ".xlsx",
}];
const SLIDES: &[Export] = &[
    Export {
        media_type: "application/vnd.openxmlformats-officedocument.presentationml.presentation",
        extension: ".pptx",
    },
    TEXT,
];

impl FileKind {
    fn of(file: &api::File) -> Self {
        match file.mime_type.as_deref().unwrap_or_default() {
            FOLDER => Self::Folder,
            SHORTCUT => {
                let target = file
                    .shortcut_details
                    .as_ref()
                    .and_then(|details| details.target_id.clone());
                Self::Shortcut {
                    target: target.filter(|target| is_id(target)),
                }
            }
            "application/vnd.google-apps.document" => Self::Google(DOCUMENT),
            "application/vnd.google-apps.spreadsheet" => Self::Google(SHEET),
            "application/vnd.google-apps.presentation" => Self::Google(SLIDES),
            other if other.starts_with(GOOGLE_TYPES) => Self::Unreadable {
                media_type: other.to_owned(),
            },
            _ => Self::Uploaded,
        }
    }
}

impl File {
    /// The file of an answer; none when the answer names none.
    pub(super) fn of(file: api::File) -> Option<Self> {
        let kind = FileKind::of(&file);
        let id = file.id.filter(|id| is_id(id))?;
        let md5 = file.md5_checksum.map(|md5| md5.to_ascii_lowercase());
        let time = file
            .modified_time
            .map(|time| time.to_rfc3339())
            .unwrap_or_default();
        let version = match (&md5, file.size) {
            (Some(md5), _) => format!("md5 {md5}"),
            (None, Some(size)) if kind == FileKind::Uploaded => format!("at {time} size {size}"),
            _ => format!("at {time}"),
        };
        let url = file
            .web_view_link
            .filter(|link| link.starts_with("https://"))
            .unwrap_or_else(|| format!("https://drive.google.com/open?id={id}"));
        let parents = file.parents.unwrap_or_default();
        let can_download = file
            .capabilities
            .and_then(|capabilities| capabilities.can_download);
        Some(Self {
            id,
            kind,
            parents: parents.into_iter().filter(|parent| is_id(parent)).collect(),
            is_trashed: file.trashed.unwrap_or_default(),
            drive_id: file.drive_id.filter(|drive| is_id(drive)),
            url,
            version,
            md5,
            size_bytes: file.size.and_then(|size| u64::try_from(size).ok()),
            is_downloadable: can_download.unwrap_or(true),
            name: file.name.unwrap_or_default(),
        })
    }

    /// The name of the file that is read: documents of Google's own have no extension in Drive.
    pub fn file_name(&self, export: Option<Export>) -> String {
        match export {
            Some(export) if !self.name.ends_with(export.extension) => {
                format!("{}{}", self.name, export.extension)
            }
            _ => self.name.clone(),
        }
    }

    /// Refuses what cannot be read, as far as that can be told without asking for it.
    pub fn check_readable(&self, limit_bytes: u64) -> Result<(), DriveError> {
        match &self.kind {
            FileKind::Unreadable { media_type } => Err(DriveError::Unreadable {
                kind: media_type.trim_start_matches(GOOGLE_TYPES).to_owned(),
            }),
            FileKind::Folder | FileKind::Shortcut { .. } => Err(DriveError::NotFound),
            _ if !self.is_downloadable => Err(DriveError::NotDownloadable {
                reason: "its owner has switched downloads off".to_owned(),
            }),
            FileKind::Uploaded if self.size_bytes.is_some_and(|size| size > limit_bytes) => {
                Err(DriveError::TooLarge { limit_bytes })
            }
            FileKind::Uploaded | FileKind::Google(_) => Ok(()),
        }
    }
}

/// Whether `text` can be an id of Drive: it goes into paths and queries.
pub(super) fn is_id(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= MAX_ID_CHARS
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(json: serde_json::Value) -> File {
        let wire: api::File = serde_json::from_value(json).expect("a file's JSON");
        File::of(wire).expect("a file")
    }

    #[test]
    fn what_cannot_be_an_id_names_no_file() {
        for id in ["", "../about", "a b", "a'b", "a/b", &"a".repeat(201)] {
            let wire = api::File {
                id: Some(id.to_owned()),
                ..api::File::default()
            };
            assert!(File::of(wire).is_none(), "{id:?}");
        }
    }

    #[test]
    fn the_version_of_an_uploaded_file_is_its_content_and_that_of_a_document_its_time() {
        let uploaded = file(serde_json::json!({
            "id": "f", "mimeType": "application/pdf", "md5Checksum": "AB12", "modifiedTime": "2026-01-01T00:00:00Z",
        }));
        let document = file(serde_json::json!({
            "id": "d", "mimeType": "application/vnd.google-apps.document", "modifiedTime": "2026-01-01T00:00:00Z", "size": "99",
        }));

        assert_eq!(uploaded.version, "md5 ab12");
        assert_eq!(document.version, "at 2026-01-01T00:00:00+00:00");
        assert_eq!(document.file_name(Some(DOCUMENT[0])), ".docx");
    }

    #[test]
    fn what_cannot_be_read_is_refused_before_it_is_asked_for() {
        let form = file(serde_json::json!({ "id": "f", "mimeType": "application/vnd.google-apps.form" }));
        let locked = file(serde_json::json!({
            "id": "f", "mimeType": "application/pdf", "capabilities": { "canDownload": false },
        }));
        let large = file(serde_json::json!({ "id": "f", "mimeType": "application/pdf", "size": "101" }));

        let code = |file: &File| file.check_readable(100).map_err(|error| error.code());
        assert_eq!(code(&form), Err("unsupported_type"));
        assert_eq!(code(&locked), Err("not_downloadable"));
        assert_eq!(code(&large), Err("too_large"));
    }

    #[test]
    fn a_link_that_is_no_web_address_is_replaced() {
        let odd = file(serde_json::json!({ "id": "f", "webViewLink": "javascript:alert(1)" }));

        assert_eq!(odd.url, "https://drive.google.com/open?id=f");
    }
}
