//! What the service asks others to read: scanned pages and pictures the configured text recognition, recordings the
//! configured transcription server. An extractor's place is held for none of that.

use std::borrow::Cow;
use std::io;
use std::path::Path;

use super::parts::DocumentParts;
use super::pool::ExtractorPool;
use super::process::Body;
use super::protocol::{Wanted, decode_scans};
use crate::extract::{Scans, may_hold_media};
use crate::ocr::progress::Memory;
use crate::ocr::{Ocr, OcrOptions};
use crate::transcription::Transcriber;
use crate::{Account, ExtractError, ExtractedDocument, Format, Hints, Media};

/// Where the bytes of a document are.
#[derive(Debug, Clone, Copy)]
pub(super) enum Origin<'a> {
    Bytes(&'a [u8]),
    File(&'a Path),
}

/// Who reads what extractors cannot.
#[derive(Debug, Default)]
pub(super) struct Readers {
    pub(super) ocr: Option<Ocr>,
    pub(super) transcriber: Option<Transcriber>,
    /// What was read lately of the pictures and recordings inside of documents.
    pub(super) memory: Memory,
}

impl ExtractorPool {
    /// Scanned pages and pictures are read by text recognition, which takes seconds a page.
    pub fn with_ocr(mut self, ocr: OcrOptions) -> Self {
        self.readers.ocr = Some(Ocr::new(ocr));
        self
    }

    /// Recordings are transcribed.
    pub fn with_transcription(mut self, transcriber: Transcriber) -> Self {
        self.readers.transcriber = Some(transcriber);
        self
    }

    /// What can be read besides documents.
    pub fn media(&self) -> Media {
        Media {
            pictures: self.readers.ocr.is_some(),
            recordings: self.readers.transcriber.is_some(),
        }
    }

    /// Whether others may have to read something of a file in this format, which takes long, or is paid.
    pub fn asks_others(&self, format: Format) -> bool {
        let media = self.media();
        match format {
            Format::Picture | Format::Pdf => media.pictures,
            Format::Recording => media.recordings,
            format => may_hold_media(format) && media != Media::default(),
        }
    }

    /// Reads a picture or a recording.
    pub(super) async fn read_media(
        &self,
        origin: Origin<'_>,
        format: Format,
        account: &dyn Account,
    ) -> Result<DocumentParts, ExtractError> {
        let limits = &self.shared.limits;
        let document = match (format, &self.readers) {
            (Format::Picture, Readers { ocr: Some(ocr), .. }) => {
                let bytes = origin.read().await?;
                ocr.read_picture(&bytes, limits).await?
            }
            (
                Format::Recording,
                Readers {
                    transcriber: Some(transcriber),
                    ..
                },
            ) => {
                if origin.size().await? > transcriber.max_bytes() {
                    return Err(transcriber.too_large());
                }
                let bytes = origin.read().await?;
                transcriber.transcribe(&bytes, limits, account).await?
            }
            // What was configured when it came is no longer.
            (format, _) => return Err(ExtractError::unread(format)),
        };
        Ok(DocumentParts::of(document))
    }

    /// Reads a document whose pages may be scanned.
    pub(super) async fn read_with_scans(
        &self,
        ocr: &Ocr,
        origin: Origin<'_>,
        format: Format,
        hints: &Hints,
    ) -> Result<DocumentParts, ExtractError> {
        let whole = self.read_whole(origin, format, hints).await;
        let scans = |after| self.scans(origin, format, hints, after);
        let key = origin.key().await?;
        let document = ocr.complete(key, whole, &self.shared.limits, scans).await?;
        Ok(DocumentParts::of(document))
    }

    /// All that an extractor makes of a document.
    pub(super) async fn read_whole(
        &self,
        origin: Origin<'_>,
        format: Format,
        hints: &Hints,
    ) -> Result<ExtractedDocument, ExtractError> {
        let _slot = self.slot().await?;
        let (exchange, message) = self
            .ask(origin.body().await?, format, hints, Wanted::Text)
            .await?;
        DocumentParts::join_all(exchange, message).await
    }

    /// The images of the next scanned pages after page `after`, or the next pictures and recordings.
    pub(super) async fn scans(
        &self,
        origin: Origin<'_>,
        format: Format,
        hints: &Hints,
        after: u32,
    ) -> Result<Scans, ExtractError> {
        let _slot = self.slot().await?;
        let wanted = Wanted::Scans { after };
        let (exchange, message) = self.ask(origin.body().await?, format, hints, wanted).await?;
        let scans = decode_scans(&message).unwrap_or_else(|error| {
            tracing::warn!(%error, "an extractor gave a reply that cannot be read");
            Err(ExtractError::Crashed)
        });
        // A panic may leave anything behind.
        if !matches!(scans, Err(ExtractError::Crashed)) {
            exchange.end();
        }
        scans
    }
}

impl Origin<'_> {
    /// The bytes for an extractor; a large file is passed on as it is read.
    pub(super) async fn body(&self) -> Result<Body<'_>, ExtractError> {
        match self {
            Self::Bytes(bytes) => Ok(Body::Bytes(Cow::Borrowed(bytes))),
            Self::File(path) => Body::of_file(path).await.map_err(cannot_open),
        }
    }

    async fn read(&self) -> Result<Vec<u8>, ExtractError> {
        match self {
            Self::Bytes(bytes) => Ok(bytes.to_vec()),
            Self::File(path) => tokio::fs::read(path).await.map_err(cannot_open),
        }
    }

    async fn size(&self) -> Result<u64, ExtractError> {
        match self {
            Self::Bytes(bytes) => Ok(bytes.len() as u64),
            Self::File(path) => Ok(tokio::fs::metadata(path).await.map_err(cannot_open)?.len()),
        }
    }

    /// Tells this content from any other.
    pub(super) async fn key(&self) -> Result<String, ExtractError> {
        match self {
            Self::Bytes(bytes) => {
                let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
                Ok(format!("{digest:?}"))
            }
            Self::File(path) => {
                let facts = tokio::fs::metadata(path).await.map_err(cannot_open)?;
                let changed = facts.modified().map_err(cannot_open)?;
                Ok(format!("{} {} {changed:?}", path.display(), facts.len()))
            }
        }
    }
}

/// A stored document that is not there is no fault of its own.
pub(super) fn cannot_open(error: io::Error) -> ExtractError {
    // A file that is not there may have been replaced meanwhile: the caller knows.
    if error.kind() != io::ErrorKind::NotFound {
        tracing::error!(%error, "a stored document cannot be opened");
    }
    ExtractError::Unavailable
}
