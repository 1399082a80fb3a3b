//! What a document says, for another cut of it: its file once more, as long as that reads as it did when the document was
//! indexed, and else the text that was read then. Citations count in that text, and nothing is bought a second time.

use std::future::ready;
use std::pin::Pin;
use std::time::Duration;

use ingest::sandbox::DocumentParts;
use ingest::{Account, Block, BlockKind, ExtractError, ExtractedDocument, Format, HEADING_SEPARATOR, Heard};
use tokio::time::timeout;

use super::store::{self, StoredPart, Stretch};
use crate::app::App;
use crate::error::Result;
use crate::id::{CutId, DocumentId, TenantId};
use crate::knowledge::files::store_error;
use crate::knowledge::indexing::{Reading, Work, judge_absent_file, read, read_file, reader_unavailable};
use crate::knowledge::reading::KeptAs;

/// A file that takes longer up to its next part is not read once more.
const LONGEST_READING: Duration = Duration::from_secs(10 * 60);

/// What stands between two paragraphs.
const BETWEEN_PARAGRAPHS: &str = "\n\n";

/// A document part by part.
pub(super) struct Original<'a> {
    app: &'a App,
    tenant_id: TenantId,
    document_id: DocumentId,
    /// The cut that knows the headings of its stored text.
    known_by: Option<CutId>,
    title: String,
    file: Option<FileParts>,
    next_part: i64,
}

/// What is left to come of a file.
struct FileParts {
    first: Option<ExtractedDocument>,
    rest: Option<Box<DocumentParts>>,
}

impl<'a> Original<'a> {
    /// Begins a document. With `is_current`, its file is of the version that answers.
    pub(super) async fn open(
        app: &'a App,
        tenant_id: TenantId,
        work: &Work,
        known_by: Option<CutId>,
        is_current: bool,
    ) -> Result<Self> {
        let file = if is_current && may_read_the_same(work) {
            read_again(app, tenant_id, work).await?
        } else {
            None
        };
        let title = store::find_title(&mut app.db.read(tenant_id).await?, tenant_id, work.id).await?;
        Ok(Self {
            app,
            tenant_id,
            document_id: work.id,
            known_by,
            title: title.unwrap_or_default(),
            file: file.map(FileParts::of),
            next_part: 0,
        })
    }

    /// As it was called when it was indexed.
    pub(super) fn title(&self) -> &str {
        &self.title
    }

    /// The file takes too long: what follows comes from what was read of it before.
    pub(super) fn leave_file(&mut self) {
        self.file = None;
    }

    /// The next part, and whether it is the last one; none: there is no such part.
    pub(super) async fn next(&mut self) -> Result<Option<(ExtractedDocument, bool)>> {
        let mut conn = self.app.db.read(self.tenant_id).await?;
        let place = (self.document_id, self.next_part);
        let Some(stored) = store::find_part(&mut conn, self.tenant_id, place).await? else {
            return Ok(None);
        };
        drop(conn);
        self.next_part = stored.part + 1;
        if let Some(part) = self.next_of_file(&stored).await? {
            return Ok(Some((part, stored.is_last)));
        }
        let is_last = stored.is_last;
        Ok(Some((self.rebuild(stored).await?, is_last)))
    }

    /// The next part of the file, if it is the stored one.
    async fn next_of_file(&mut self, stored: &StoredPart) -> Result<Option<ExtractedDocument>> {
        let Some(file) = &mut self.file else {
            return Ok(None);
        };
        match timeout(LONGEST_READING, file.next()).await {
            Ok(Ok(Some(part))) if part.text == stored.text && file.has_more() != stored.is_last => {
                return Ok(Some(part));
            }
            Ok(Err(ExtractError::Unavailable)) => return Err(reader_unavailable()),
            _ => {}
        }
        tracing::info!(document.id = %self.document_id, "a document does not read as it did when it was indexed: the text of then is cut");
        self.leave_file();
        Ok(None)
    }

    async fn rebuild(&self, stored: StoredPart) -> Result<ExtractedDocument> {
        let chars = i64::try_from(stored.text.chars().count()).unwrap_or(i64::MAX);
        let span = (stored.start_char, stored.start_char.saturating_add(chars));
        let stretches = match self.known_by {
            Some(cut) => {
                let mut conn = self.app.db.read(self.tenant_id).await?;
                store::list_stretches(&mut conn, self.tenant_id, (self.document_id, cut), span).await?
            }
            None => Vec::new(),
        };
        Ok(ExtractedDocument {
            blocks: blocks_of(&stored.text, stored.start_char, &stretches),
            text: stored.text,
            ..ExtractedDocument::default()
        })
    }
}

impl FileParts {
    fn of(reading: Reading) -> Self {
        let (first, rest) = match reading {
            Reading::Whole(document) => (document, None),
            Reading::Parts(first, rest) => (first, Some(rest)),
        };
        Self {
            first: Some(first),
            rest,
        }
    }

    fn has_more(&self) -> bool {
        self.first.is_some() || self.rest.as_ref().is_some_and(|rest| rest.has_more())
    }

    async fn next(&mut self) -> std::result::Result<Option<ExtractedDocument>, ExtractError> {
        match (self.first.take(), &mut self.rest) {
            (Some(first), _) => Ok(Some(first)),
            (None, Some(rest)) => rest.next().await,
            (None, None) => Ok(None),
        }
    }
}

/// Who recognises or transcribes says something else each time.
fn may_read_the_same(work: &Work) -> bool {
    let is_medium = [Format::Picture, Format::Recording]
        .iter()
        .any(|format| format.as_str() == work.format);
    work.kept_as == KeptAs::Reading || !is_medium
}

/// What the file says at present; none: it cannot be read, or not without paying once more.
async fn read_again(app: &App, tenant_id: TenantId, work: &Work) -> Result<Option<Reading>> {
    if work.kept_as == KeptAs::Reading {
        return Ok(read(app, tenant_id, work).await?.ok());
    }
    let path = app.files.path(&work.file_key)?;
    match timeout(LONGEST_READING, read_file(app, work, &path, &NothingIsBought)).await {
        Ok(Ok(reading)) => Ok(Some(reading)),
        Ok(Err(ExtractError::Unavailable)) => {
            if tokio::fs::try_exists(&path).await.map_err(store_error)? {
                return Err(reader_unavailable());
            }
            judge_absent_file(app, tenant_id, work).await?;
            Ok(None)
        }
        Ok(Err(_)) | Err(_) => Ok(None),
    }
}

/// What was transcribed is in the stored text.
struct NothingIsBought;

type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

impl Account for NothingIsBought {
    fn reserve<'a>(&'a self, _: &'a str, _: u64) -> BoxFuture<'a, std::result::Result<(), ExtractError>> {
        Box::pin(ready(Err(ExtractError::Unpaid)))
    }

    fn settle<'a>(
        &'a self,
        _: &'a str,
        _: Option<Heard>,
    ) -> BoxFuture<'a, std::result::Result<(), ExtractError>> {
        Box::pin(ready(Ok(())))
    }
}

/// The paragraphs of a text that begins at this character of its document, under the headings that chunks of it, in their order,
/// stand under.
fn blocks_of(text: &str, start_char: i64, stretches: &[Stretch]) -> Vec<Block> {
    let mut blocks = Vec::new();
    let (mut around, mut ahead): (Option<&Stretch>, _) = (None, stretches.iter().peekable());
    let mut at = 0;
    for paragraph in text.split(BETWEEN_PARAGRAPHS) {
        let length = paragraph.chars().count();
        let words = paragraph.trim_start();
        let start = at + length - words.chars().count();
        let end = at + length;
        at = end + BETWEEN_PARAGRAPHS.len();
        if words.is_empty() {
            continue;
        }
        let place = start_char.saturating_add(i64::try_from(start).unwrap_or(i64::MAX));
        while let Some(next) = ahead.next_if(|next| next.start_char <= place) {
            around = Some(next);
        }
        let stretch = around.filter(|stretch| place < stretch.end_char);
        let (kind, heading_path) = place_of(words, stretch);
        blocks.push(Block {
            kind,
            start,
            end,
            page: stretch
                .and_then(|stretch| stretch.page)
                .and_then(|page| u32::try_from(page).ok()),
            heading_path,
        });
    }
    blocks
}

/// What a paragraph is, and the headings above it.
fn place_of(words: &str, stretch: Option<&Stretch>) -> (BlockKind, Vec<String>) {
    let above = stretch.and_then(|stretch| stretch.heading.as_deref());
    let path: Vec<String> = above.map_or_else(Vec::new, |above| {
        above.split(HEADING_SEPARATOR).map(str::to_owned).collect()
    });
    match path.iter().position(|heading| heading == words) {
        Some(depth) => {
            let level = u8::try_from(depth + 1).unwrap_or(6).min(6);
            (BlockKind::Heading { level }, path[..=depth].to_vec())
        }
        None => (BlockKind::Paragraph, path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stretch(heading: &str, (start_char, end_char): (i64, i64)) -> Stretch {
        Stretch {
            heading: (!heading.is_empty()).then(|| heading.to_owned()),
            page: Some(2),
            start_char,
            end_char,
        }
    }

    #[test]
    fn a_stored_text_has_its_paragraphs_back_under_their_headings() {
        let text = "Öfen\n\nHolz\n\nBuche wärmt.\n\nEiche auch.\n\nRest.";
        let stretches = [stretch("Öfen › Holz", (100, 124)), stretch("", (126, 137))];

        let blocks = blocks_of(text, 100, &stretches);

        let told: Vec<(String, BlockKind, usize)> = blocks
            .iter()
            .map(|block| {
                let words = text.chars().skip(block.start).take(block.end - block.start);
                (words.collect(), block.kind.clone(), block.heading_path.len())
            })
            .collect();
        assert_eq!(
            told,
            [
                ("Öfen".to_owned(), BlockKind::Heading { level: 1 }, 1),
                ("Holz".to_owned(), BlockKind::Heading { level: 2 }, 2),
                ("Buche wärmt.".to_owned(), BlockKind::Paragraph, 2),
                ("Eiche auch.".to_owned(), BlockKind::Paragraph, 0),
                ("Rest.".to_owned(), BlockKind::Paragraph, 0),
            ]
        );
        assert_eq!(
            blocks.iter().map(|block| block.page).collect::<Vec<_>>(),
            [Some(2), Some(2), Some(2), Some(2), None]
        );
    }

    #[test]
    fn a_stored_text_of_blank_lines_has_no_paragraphs() {
        assert!(blocks_of("\n\n\n \n\n", 0, &[]).is_empty());
        let odd = blocks_of("\n\n\nA", 0, &[]);
        assert_eq!((odd.len(), odd[0].start, odd[0].end), (1, 3, 4));
    }
}
