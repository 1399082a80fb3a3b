//! Documents that are cut otherwise, beside the chunks that answer. Nobody finds what is made here before its cut goes live, so
//! rows are put in bit by bit, each as soon as the index holds it; what has a row need not be embedded again, whatever ends an
//! attempt.

mod large;
mod original;
mod store;

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use retrieval::index::Point;

use self::large::{Large, Step};
use self::original::Original;
use super::embedding::{EMBEDDED_AT_ONCE, Payer, add_to_index};
use super::in_vain::undo_later;
use super::store::{Found, clear_chunks, hold_unchanged, insert_chunks, list, list_chunk_ids};
use super::{Work, load_edits};
use crate::app::App;
use crate::error::{Error, Result};
use crate::generations;
use crate::id::{ChunkId, CutId, DocumentId, SourceId, TenantId};
use crate::jobs::JobContext;
use crate::knowledge::chunks::Chunking;
use crate::knowledge::cut::{CutChunk, Cutter, PresentChunks};
use crate::knowledge::search::TEXT_REFUSED;
use crate::knowledge::{cuts, index_changes, labels};

/// So long further documents are begun.
const TURN: Duration = Duration::from_secs(60);

/// The cut that documents are put into.
#[derive(Clone, Debug)]
pub struct Target {
    pub tenant_id: TenantId,
    pub source_id: SourceId,
    pub cut: CutId,
    pub chunking: Chunking,
}

/// What became of documents.
#[derive(Debug, Default)]
pub struct Put {
    /// They changed while they were cut, and are to be cut once more.
    pub changed: HashSet<DocumentId>,
    /// So many of the documents, from the first one on, need not be looked at again.
    pub reached: usize,
    /// It had its turn, or the cut was given up: not all of the documents are in.
    pub is_unfinished: bool,
    /// What ended it.
    pub failure: Option<Error>,
}

/// Cuts those of these documents that answer for the target. One whose file cannot be read any more, or says something else, or
/// is of a version that is on its way, is cut as it was read when it was indexed.
pub async fn put(app: &App, context: &JobContext, target: &Target, ids: &[DocumentId]) -> Result<Put> {
    if ids.is_empty() {
        return Ok(Put::default());
    }
    let live = generations::live_now(app, target.tenant_id).await?;
    let mut conn = app.db.read(target.tenant_id).await?;
    let found = list(&mut conn, target.tenant_id, ids, &live.space).await?;
    drop(conn);
    let answering = found.into_iter().filter(|found| found.work.was_indexed);
    let found: HashMap<DocumentId, Found> = answering.map(|found| (found.work.id, found)).collect();
    let mut beside = Beside {
        app,
        context,
        target,
        started: Instant::now(),
        gathered: Vec::new(),
        new_chunks: 0,
        added: 0,
        put: Put::default(),
    };
    beside.put.failure = beside.add_all(ids, found).await.err();
    Ok(beside.put)
}

/// A small document, another cut that has all of it, and its chunks.
type Gathered = (Work, Option<CutId>, Vec<CutChunk>);

/// Documents on their way.
struct Beside<'a> {
    app: &'a App,
    context: &'a JobContext,
    target: &'a Target,
    started: Instant,
    /// Small ones share a call of the embedding model and a transaction.
    gathered: Vec<Gathered>,
    new_chunks: usize,
    /// So many documents are in, or have gathered.
    added: usize,
    put: Put,
}

impl Beside<'_> {
    async fn add_all(&mut self, ids: &[DocumentId], mut found: HashMap<DocumentId, Found>) -> Result<()> {
        for id in ids {
            if self.added > 0 && self.started.elapsed() >= TURN {
                self.flush().await?;
                self.put.is_unfinished = true;
                return Ok(());
            }
            if let Some(found) = found.remove(id) {
                self.add(found).await?;
            }
            if self.put.is_unfinished {
                return Ok(());
            }
            self.added += 1;
            if self.gathered.is_empty() {
                self.put.reached = self.added;
            }
        }
        self.flush().await
    }

    async fn add(&mut self, found: Found) -> Result<()> {
        let work = Work {
            cut: self.target.cut,
            chunking: self.target.chunking.clone(),
            ..found.work
        };
        let (app, tenant_id) = (self.app, self.target.tenant_id);
        let mut conn = app.db.read(tenant_id).await?;
        let beside = cuts::find_whole_beside(&mut conn, tenant_id, &work).await?;
        drop(conn);
        let opened = Original::open(app, tenant_id, &work, beside, found.state == "indexed").await;
        match opened {
            Ok(original) => self.add_read(work, beside, original).await,
            Err(error) => {
                self.flush().await?;
                Err(error)
            }
        }
    }

    async fn add_read(
        &mut self,
        work: Work,
        beside: Option<CutId>,
        mut original: Original<'_>,
    ) -> Result<()> {
        let (app, tenant_id) = (self.app, self.target.tenant_id);
        let Some((first, is_last)) = original.next().await? else {
            return self.take_over(&work, beside).await;
        };
        let present = PresentChunks::load_beside(app, tenant_id, &work, beside).await?;
        let edits = load_edits(app, tenant_id, &work).await?;
        let cutter = Cutter::new(app, &work, original.title(), present, edits);
        let (cutter, _, chunks) = cutter.cut(first, is_last).await?;
        if is_last && chunks.is_empty() {
            return self.take_over(&work, beside).await;
        }
        if is_last && chunks.len() <= EMBEDDED_AT_ONCE {
            self.new_chunks += chunks.iter().filter(|chunk| !chunk.is_indexed).count();
            self.gathered.push((work, beside, chunks));
            if self.new_chunks >= EMBEDDED_AT_ONCE {
                self.flush().await?;
            }
            return Ok(());
        }
        self.flush().await?;
        let rest = (!is_last).then_some(original);
        self.put_large(work, beside, (cutter, chunks), rest).await
    }

    /// Puts in what has gathered. Where the embedding model refuses a passage, its document is taken over, and no other.
    async fn flush(&mut self) -> Result<()> {
        let gathered = std::mem::take(&mut self.gathered);
        self.new_chunks = 0;
        if gathered.is_empty() {
            return Ok(());
        }
        match self.embed(&gathered).await {
            Ok(points) => self.commit(&gathered, points).await?,
            Err(error) if is_refusal(&error) => self.put_one_by_one(gathered).await?,
            Err(error) => return Err(error),
        }
        self.put.reached = self.added;
        Ok(())
    }

    async fn put_one_by_one(&mut self, gathered: Vec<Gathered>) -> Result<()> {
        for (work, beside, chunks) in gathered {
            let alone = [(work, beside, chunks)];
            match self.embed(&alone).await {
                Ok(points) => self.commit(&alone, points).await?,
                Err(error) if is_refusal(&error) => self.copy(&alone[0].0, (beside, Some(error))).await?,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Embeds new chunks; those that are returned go into the index with their rows.
    async fn embed(&self, gathered: &[Gathered]) -> Result<Vec<Point>> {
        let chunks = gathered
            .iter()
            .flat_map(|(work, _, chunks)| chunks.iter().map(move |chunk| (work, chunk)));
        let new: Vec<(&Work, &CutChunk)> = chunks.filter(|(_, chunk)| !chunk.is_indexed).collect();
        let mut points = Vec::new();
        for group in new.chunks(EMBEDDED_AT_ONCE) {
            points.extend(add_to_index(self.app, payer(self.target.tenant_id, group[0].0), group).await?);
        }
        Ok(points)
    }

    /// Puts the rows in, with the points that are not in yet.
    async fn commit(&mut self, gathered: &[Gathered], mut points: Vec<Point>) -> Result<()> {
        let (app, tenant_id) = (self.app, self.target.tenant_id);
        let work: Vec<&Work> = gathered.iter().map(|(work, ..)| work).collect();
        let mut write = app.db.write(tenant_id).await?;
        let is_wanted = generations::cuts::share(&mut write, tenant_id, self.target.cut).await?;
        let held = if is_wanted {
            hold_unchanged(&mut write, tenant_id, &work).await?
        } else {
            self.put.is_unfinished = true;
            HashSet::new()
        };
        let mut before_of = list_chunk_ids(&mut write, tenant_id, &work).await?;
        let (mut given_up, mut rows, mut stored) = (Vec::new(), Vec::new(), Vec::new());
        for (work, _, chunks) in gathered {
            let before = before_of.remove(&work.id).unwrap_or_default();
            let after: HashSet<ChunkId> = chunks.iter().map(|chunk| chunk.row.id).collect();
            if !held.contains(&work.id) {
                let put = chunks.iter().filter(|chunk| !chunk.is_indexed);
                let put = put.map(|chunk| chunk.row.id).collect();
                undo_later(app, &mut write, tenant_id, work, put, &before).await?;
                self.put.changed.insert(work.id);
                continue;
            }
            given_up.extend(before.difference(&after));
            clear_chunks(&mut write, tenant_id, work).await?;
            rows.extend(chunks.iter().map(|chunk| (work, &chunk.row)));
            stored.push(work.stored());
        }
        insert_chunks(&mut write, tenant_id, &rows).await?;
        points.retain(|point| held.contains(&DocumentId(point.document_id.0)));
        index_changes::put(&mut write, tenant_id, &work[0].space, points);
        labels::settle(app, &mut write, tenant_id, &stored).await?;
        let ids: Vec<DocumentId> = stored.iter().map(|stored| stored.id).collect();
        generations::note_gaps(app, &mut write, tenant_id, Some(&work[0].space), &ids).await?;
        index_changes::remove_chunks(app, &mut write, tenant_id, &given_up).await?;
        write.commit().await?;
        app.wake_workers();
        Ok(())
    }

    /// Puts in a document of many chunks, part by part. Where the embedding model refuses a passage, it is taken over.
    async fn put_large(
        &mut self,
        work: Work,
        beside: Option<CutId>,
        cut: (Cutter, Vec<CutChunk>),
        rest: Option<Original<'_>>,
    ) -> Result<()> {
        let mut large = Large::begin(self, &work).await?;
        let ended = match add_parts(&mut large, cut, rest).await {
            Ok(Step::Taken) => large.finish().await,
            ended => ended,
        };
        match ended {
            Ok(step) => self.note(step, &work),
            Err(error) if is_refusal(&error) => return self.copy(&work, (beside, Some(error))).await,
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Puts a document in as it is cut at present, behind what has gathered.
    async fn take_over(&mut self, work: &Work, beside: Option<CutId>) -> Result<()> {
        self.flush().await?;
        self.copy(work, (beside, None)).await
    }

    /// Puts a document in as another cut has it, which is whole: for want of a text, or because of this error.
    async fn copy(&mut self, work: &Work, (from, because): (Option<CutId>, Option<Error>)) -> Result<()> {
        if let (None, Some(error)) = (from, because) {
            return Err(error);
        }
        let mut large = Large::begin(self, work).await?;
        let ended = match self.copy_rows(&mut large, work, from).await {
            Ok(Step::Taken) => large.finish().await,
            ended => ended,
        };
        self.note(ended?, work);
        Ok(())
    }

    async fn copy_rows(&self, large: &mut Large<'_>, work: &Work, from: Option<CutId>) -> Result<Step> {
        let (tenant_id, mut position) = (self.target.tenant_id, 0);
        let Some(from) = from else {
            return Ok(Step::Taken);
        };
        loop {
            let mut conn = self.app.db.read(tenant_id).await?;
            let place = (work.id, from);
            let rows = store::list_rows(&mut conn, tenant_id, place, position, EMBEDDED_AT_ONCE).await?;
            drop(conn);
            let Some(last) = rows.last() else {
                return Ok(Step::Taken);
            };
            position = last.position + 1;
            let chunks: Vec<CutChunk> = rows
                .into_iter()
                .map(|row| CutChunk::taken_over(row, work, large.before()))
                .collect();
            let step = large.add(&chunks).await?;
            if step != Step::Taken {
                return Ok(step);
            }
        }
    }

    fn note(&mut self, step: Step, work: &Work) {
        match step {
            Step::Taken => {}
            Step::Changed => {
                self.put.changed.insert(work.id);
            }
            Step::Over => self.put.is_unfinished = true,
        }
    }
}

/// Puts in the parts of a document of which the first is cut.
async fn add_parts(
    large: &mut Large<'_>,
    (mut cutter, mut chunks): (Cutter, Vec<CutChunk>),
    mut rest: Option<Original<'_>>,
) -> Result<Step> {
    loop {
        let step = large.add(&chunks).await?;
        if step != Step::Taken {
            return Ok(step);
        }
        let Some(original) = &mut rest else {
            return Ok(Step::Taken);
        };
        if large.is_slow() {
            original.leave_file();
        }
        let Some((part, is_last)) = original.next().await? else {
            // Its text is another one by now.
            return Ok(Step::Changed);
        };
        (cutter, _, chunks) = cutter.cut(part, is_last).await?;
        if is_last {
            rest = None;
        }
    }
}

/// The embedding model does not take a passage.
fn is_refusal(error: &Error) -> bool {
    matches!(error, Error::Upstream { code, .. } if *code == TEXT_REFUSED)
}

fn payer(tenant_id: TenantId, work: &Work) -> Payer {
    Payer {
        tenant_id,
        chatbot_id: work.chatbot_id,
        run_id: None,
    }
}
