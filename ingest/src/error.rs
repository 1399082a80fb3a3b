//! Why a file gave no text, as a stable code for programs and a sentence for the person who uploaded it.

use serde::{Deserialize, Serialize};

use crate::Format;

/// Why a document could not be read. The message says what to do and names no internals.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[serde(tag = "code", rename_all = "snake_case")]
pub enum ExtractError {
    /// No bytes, or nothing but white space.
    #[error("The document is empty. Bring one that contains text.")]
    EmptyFile,
    /// Content that is none of the accepted formats; `found` is what it seems to be.
    #[error(
        "This file type{} is not supported. Upload one of: {}.",
        found.as_deref().map(|found| format!(" ({found})")).unwrap_or_default(),
        Format::accepted_names()
    )]
    UnsupportedType { found: Option<String> },
    /// A readable file without a single word in it; `scanned` when its pages are pictures.
    #[error("{}", if *scanned {
        "The document looks scanned: its pages are images without text. Run text recognition (OCR) on it and upload the result."
    } else {
        "No text was found in the document. Bring one that contains text."
    })]
    NoText { scanned: bool },
    /// Opening the file needs a password that we do not have.
    #[error("The file is protected with a password. Remove the password and upload it again.")]
    PasswordProtected,
    /// The file breaks the rules of its own format.
    #[error(
        "The file is damaged and could not be read ({reason}). Open it in its program, save it again and upload the new file."
    )]
    Damaged { reason: String },
    /// Over one of the limits on size, pages, nesting or compression.
    #[error(
        "The document is too large or too complex ({reason}). Split it into smaller files and upload those."
    )]
    TooLarge { reason: String },
    /// Over the time limit.
    #[error(
        "Reading the document took longer than {seconds} seconds. Split it into smaller files or save it in a simpler form."
    )]
    TimedOut { seconds: u64 },
    /// Over the memory limit.
    #[error(
        "Reading the document needed too much memory. Split it into smaller files or save it in a simpler form."
    )]
    OutOfMemory,
    /// The extractor died on this document.
    #[error(
        "The document could not be read: the reader failed on it. Save it again in its program, or as another file type, and upload that."
    )]
    Crashed,
    /// Reading it would cost more than who pays for it allows.
    #[error(
        "Reading the document costs more than is allowed at present. Raise the limit, and bring it again."
    )]
    Unpaid,
    /// Nothing of the document's: this machine cannot read any at the moment.
    #[error("Documents cannot be read at the moment. Try again shortly.")]
    Unavailable,
}

impl ExtractError {
    /// The stable code of this reason.
    pub fn code(&self) -> &'static str {
        match self {
            Self::EmptyFile => "empty_file",
            Self::UnsupportedType { .. } => "unsupported_type",
            Self::NoText { .. } => "no_text",
            Self::PasswordProtected => "password_protected",
            Self::Damaged { .. } => "damaged",
            Self::TooLarge { .. } => "too_large",
            Self::TimedOut { .. } => "timed_out",
            Self::OutOfMemory => "out_of_memory",
            Self::Crashed => "crashed",
            Self::Unpaid => "not_paid_for",
            Self::Unavailable => "reader_unavailable",
        }
    }

    /// A picture or a recording, where nobody is configured to read it.
    pub(crate) fn unread(format: Format) -> Self {
        let found = match format {
            Format::Picture => {
                "a picture, and no program for text recognition is configured: extract.ocr_program names one"
            }
            Format::Recording => {
                "a recording, and no transcription server is configured: extract.transcription_base_url names one"
            }
            format => format.as_str(),
        };
        Self::UnsupportedType {
            found: Some(found.to_owned()),
        }
    }

    pub(crate) fn damaged(reason: impl Into<String>) -> Self {
        Self::Damaged {
            reason: reason.into(),
        }
    }

    pub(crate) fn too_large(reason: impl Into<String>) -> Self {
        Self::TooLarge {
            reason: reason.into(),
        }
    }
}
