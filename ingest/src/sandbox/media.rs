//! Pictures and recordings inside of documents: each is read by whoever reads such files, and its text stands where it
//! stood. One that cannot be read is counted with its reason and fails nothing else; what was read is remembered for a
//! while, so that a document that is tried again does not pay twice.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use super::parts::DocumentParts;
use super::pool::ExtractorPool;
use super::recognition::Origin;
use crate::document::{DocumentBuilder, LeftOut, LeftOutReason};
use crate::ocr::progress::Attempt;
use crate::{Account, BlockKind, ExtractError, ExtractedDocument, Format, Hints, Limits};

/// For all pictures and recordings of one document; those beyond are left out.
const MAX_TIME: Duration = Duration::from_secs(600);

/// Those of one document that have to be named, and are not read.
const MAX_NAMED: usize = 50;

/// What was read of them, by their numbers: a text that may be empty, or why there is none.
type Outcomes = BTreeMap<u32, Result<String, LeftOutReason>>;

impl ExtractorPool {
    /// Reads a document that may hold pictures and recordings.
    pub(super) async fn read_with_media(
        &self,
        origin: Origin<'_>,
        format: Format,
        hints: &Hints,
        account: &dyn Account,
    ) -> Result<DocumentParts, ExtractError> {
        let document = self.read_whole(origin, format, hints).await?;
        let media: BTreeMap<u32, Format> = document.blocks.iter().filter_map(medium_of).collect();
        if media.is_empty() {
            return Ok(DocumentParts::of(document));
        }
        let scans = |after| self.scans(origin, format, hints, after);
        let key = format!("media {}", origin.key().await?);
        let mut attempt = Attempt::resume(&self.readers.memory, key);
        let outcomes = self.read_each(&mut attempt, &media, account, scans).await?;
        let filled = fill(document, &outcomes, &self.shared.limits)?;
        Ok(DocumentParts::of(filled))
    }

    /// Reads those that an earlier attempt did not come to.
    async fn read_each<F, S>(
        &self,
        attempt: &mut Attempt<'_>,
        media: &BTreeMap<u32, Format>,
        account: &dyn Account,
        scans: F,
    ) -> Result<Outcomes, ExtractError>
    where
        F: Fn(u32) -> S,
        S: Future<Output = Result<crate::extract::Scans, ExtractError>>,
    {
        let mut reasons = HashMap::new();
        let (began, left) = (Instant::now(), MAX_TIME.saturating_sub(attempt.progress.spent));
        let last = media.keys().next_back().copied().unwrap_or(0);
        'all: loop {
            let after = attempt.progress.pages.keys().next_back().copied().unwrap_or(0);
            if after >= last {
                break;
            }
            let batch = scans(after).await?;
            if batch.pages.is_empty() {
                break;
            }
            for scan in batch.pages {
                if began.elapsed() >= left {
                    break 'all;
                }
                let format = media.get(&scan.page).copied().unwrap_or(Format::Picture);
                let text = match scan.images.first() {
                    Some(bytes) => self.read_medium(format, bytes, account).await?,
                    None => Err(LeftOutReason::TooLarge),
                };
                if let Err(reason) = text {
                    reasons.insert(scan.page, reason);
                }
                attempt.progress.pages.insert(scan.page, text.ok());
            }
        }
        let outcome = |number: &u32| match attempt.progress.pages.get(number) {
            Some(Some(text)) => Ok(text.clone()),
            Some(None) => Err(reasons.get(number).copied().unwrap_or(LeftOutReason::Unreadable)),
            None => Err(LeftOutReason::OutOfTime),
        };
        Ok(media.keys().map(|number| (*number, outcome(number))).collect())
    }

    /// The text of one, or why there is none. `Err` where that is no fault of its own.
    async fn read_medium(
        &self,
        format: Format,
        bytes: &[u8],
        account: &dyn Account,
    ) -> Result<Result<String, LeftOutReason>, ExtractError> {
        let limits = &self.shared.limits;
        let read = match (format, &self.readers.ocr, &self.readers.transcriber) {
            (Format::Picture, Some(ocr), _) => match ocr.read_picture(bytes, limits).await {
                // A program that cannot be run leaves pages unread as well.
                Err(ExtractError::Unavailable) => return Ok(Err(LeftOutReason::Unreadable)),
                read => read,
            },
            (Format::Recording, _, Some(transcriber)) => transcriber.transcribe(bytes, limits, account).await,
            _ => return Ok(Err(LeftOutReason::NotConfigured)),
        };
        match read {
            Ok(document) => Ok(Ok(document.text)),
            // A photograph has no words, and a silence neither.
            Err(ExtractError::NoText { .. }) => Ok(Ok(String::new())),
            Err(error @ (ExtractError::Unpaid | ExtractError::Unavailable)) => Err(error),
            Err(ExtractError::TooLarge { .. }) => Ok(Err(LeftOutReason::TooLarge)),
            Err(ExtractError::TimedOut { .. }) => Ok(Err(LeftOutReason::OutOfTime)),
            Err(_) => Ok(Err(LeftOutReason::Unreadable)),
        }
    }
}

fn medium_of(block: &crate::Block) -> Option<(u32, Format)> {
    match block.kind {
        BlockKind::Medium { number, format, .. } => Some((number, format)),
        _ => None,
    }
}

/// The document with the texts of its pictures and recordings at their places.
fn fill(
    mut document: ExtractedDocument,
    outcomes: &Outcomes,
    limits: &Limits,
) -> Result<ExtractedDocument, ExtractError> {
    let mut builder = DocumentBuilder::new(limits);
    let mut unread = Vec::new();
    let mut chars = document.text.chars();
    let mut at = 0;
    for block in &document.blocks {
        let (start, length) = (block.start - at, block.end - block.start);
        let text: String = chars.by_ref().skip(start).take(length).collect();
        at = block.end;
        let BlockKind::Medium {
            number,
            format,
            level,
        } = block.kind
        else {
            builder.push_under(&block.heading_path, block.kind.clone(), &text, block.page);
            continue;
        };
        let is_named = level.is_some();
        match outcomes.get(&number) {
            Some(Ok(words)) if !words.trim().is_empty() => {
                let path = &block.heading_path;
                if let Some(level) = level {
                    builder.push_under(path, BlockKind::Heading { level }, &text, block.page);
                }
                for paragraph in words.split("\n\n") {
                    builder.push_under(path, BlockKind::Paragraph, paragraph, block.page);
                }
            }
            Some(Ok(_)) if is_named => unread.push(format!("{text} (no text in it)")),
            Some(Ok(_)) => {}
            other => {
                let reason = match other {
                    Some(Err(reason)) => *reason,
                    _ => LeftOutReason::Unreadable,
                };
                LeftOut::count(&mut document.left_out, format, reason);
                if is_named {
                    unread.push(format!("{text} ({})", in_words(reason)));
                }
            }
        }
    }
    if builder.is_empty() {
        return Err(ExtractError::NoText { scanned: false });
    }
    if !unread.is_empty() {
        let more = match unread.len().saturating_sub(MAX_NAMED) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        unread.truncate(MAX_NAMED);
        let note = format!("Not read: {}{more}.", unread.join(", "));
        builder.push(BlockKind::Paragraph, &note, None);
    }
    // What had no title gets none from the name of a picture.
    builder.title = Some(document.title.unwrap_or_default());
    builder.page_count = document.page_count;
    builder.metadata = document.metadata;
    Ok(ExtractedDocument {
        left_out: document.left_out,
        ..builder.finish()?
    })
}

fn in_words(reason: LeftOutReason) -> &'static str {
    match reason {
        LeftOutReason::NotConfigured => "nobody is set up to read it",
        LeftOutReason::TooMany => "more than are read",
        LeftOutReason::TooLarge => "too large",
        LeftOutReason::OutOfTime => "no time left for it",
        LeftOutReason::Unreadable => "damaged",
    }
}
