//! Documents that are cut otherwise, beside the chunks that answer. Nobody finds what is made here before its cut goes live, so
//! rows are put in bit by bit, each as soon as the index holds it; what has a row need not be embedded again, whatever ends an
//! attempt.

mod store;

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use ingest::sandbox::DocumentParts;
use ingest::{ExtractError, ExtractedDocument};

use super::batch::title_of;
use super::embedding::{EMBEDDED_AT_ONCE, Payer, add_to_index};
use super::store::{Found, clear_chunks, hold_unchanged, insert_chunks, list, list_chunk_ids};
use super::{Reading, Unread, Work, load_edits, read, reader_unavailable, remove_chunks_later};
use crate::app::App;
use crate::db::Write;
use crate::error::{Error, Result};
use crate::generations;
use crate::id::{ChunkId, CutId, DocumentId, SourceId, TenantId};
use crate::knowledge::chunks::Chunking;
use crate::knowledge::cut::{CutChunk, Cutter, PresentChunks, as_i64};
use crate::knowledge::labels;
use crate::knowledge::search::TEXT_REFUSED;
use crate::knowledge::store::ChunkRow;

/// A document that took so long lets others have their turn.
const SLICE: Duration = Duration::from_secs(15 * 60);

/// So long further documents are begun.
const TURN: Duration = Duration::from_secs(60);

/// Rows that one transaction deletes.
const DELETED_AT_ONCE: i64 = 1_000;

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

/// Cuts those of these documents that answer for the target. One that cannot be read any more, or whose next version is on its
/// way, is taken over as it is cut at present.
pub async fn put(app: &App, target: &Target, ids: &[DocumentId]) -> Result<Put> {
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

/// A small document, the cut that it answers from, and its chunks.
type Gathered = (Work, CutId, Vec<CutChunk>);

/// Documents on their way.
struct Beside<'a> {
    app: &'a App,
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
        let live_cut = found.work.cut;
        let work = Work {
            cut: self.target.cut,
            chunking: self.target.chunking.clone(),
            ..found.work
        };
        let reading = if found.state == "indexed" {
            read(self.app, self.target.tenant_id, &work).await?
        } else {
            Err(Unread::Superseded)
        };
        match reading {
            Ok(Reading::Whole(document)) => self.add_read(work, live_cut, document, None).await,
            Ok(Reading::Parts(first, rest)) => self.add_read(work, live_cut, first, Some(*rest)).await,
            Err(Unread::Verdict(ExtractError::Unavailable)) => {
                self.flush().await?;
                Err(reader_unavailable())
            }
            Err(Unread::OverBudget(code, message)) => {
                self.flush().await?;
                Err(Error::BudgetExceeded { code, message })
            }
            Err(Unread::Verdict(_) | Unread::FileLost | Unread::Superseded) => {
                self.take_over(&work, live_cut).await
            }
        }
    }

    async fn add_read(
        &mut self,
        work: Work,
        live_cut: CutId,
        first: ExtractedDocument,
        rest: Option<DocumentParts>,
    ) -> Result<()> {
        let (app, tenant_id) = (self.app, self.target.tenant_id);
        let title = title_of(&work, &first);
        let present = PresentChunks::load_beside(app, tenant_id, &work, live_cut).await?;
        let edits = load_edits(app, tenant_id, &work).await?;
        let cutter = Cutter::new(app, &work, &title, present, edits);
        let (cutter, _, chunks) = cutter.cut(first, rest.is_none()).await?;
        if rest.is_none() && chunks.is_empty() {
            return self.take_over(&work, live_cut).await;
        }
        if rest.is_none() && chunks.len() <= EMBEDDED_AT_ONCE {
            self.new_chunks += chunks.iter().filter(|chunk| !chunk.is_indexed).count();
            self.gathered.push((work, live_cut, chunks));
            if self.new_chunks >= EMBEDDED_AT_ONCE {
                self.flush().await?;
            }
            return Ok(());
        }
        self.flush().await?;
        self.put_large(work, live_cut, (cutter, chunks), rest).await
    }

    /// Puts in what has gathered. Where the embedding model refuses a passage, its document is taken over, and no other.
    async fn flush(&mut self) -> Result<()> {
        let gathered = std::mem::take(&mut self.gathered);
        self.new_chunks = 0;
        if gathered.is_empty() {
            return Ok(());
        }
        match self.embed(&gathered).await {
            Ok(()) => self.commit(&gathered).await?,
            Err(error) if is_refusal(&error) => self.put_one_by_one(gathered).await?,
            Err(error) => return Err(error),
        }
        self.put.reached = self.added;
        Ok(())
    }

    async fn put_one_by_one(&mut self, gathered: Vec<Gathered>) -> Result<()> {
        for (work, live_cut, chunks) in gathered {
            let alone = [(work, live_cut, chunks)];
            match self.embed(&alone).await {
                Ok(()) => self.commit(&alone).await?,
                Err(error) if is_refusal(&error) => self.copy(&alone[0].0, live_cut).await?,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    async fn embed(&self, gathered: &[Gathered]) -> Result<()> {
        let chunks = gathered
            .iter()
            .flat_map(|(work, _, chunks)| chunks.iter().map(move |chunk| (work, chunk)));
        let new: Vec<(&Work, &CutChunk)> = chunks.filter(|(_, chunk)| !chunk.is_indexed).collect();
        for group in new.chunks(EMBEDDED_AT_ONCE) {
            add_to_index(self.app, payer(self.target.tenant_id, group[0].0), group).await?;
        }
        Ok(())
    }

    /// Puts the rows in whose points are.
    async fn commit(&mut self, gathered: &[Gathered]) -> Result<()> {
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
                given_up.extend(after.difference(&before));
                self.put.changed.insert(work.id);
                continue;
            }
            given_up.extend(before.difference(&after));
            clear_chunks(&mut write, tenant_id, work).await?;
            rows.extend(chunks.iter().map(|chunk| (work, &chunk.row)));
            stored.push(work.stored());
        }
        insert_chunks(&mut write, tenant_id, &rows).await?;
        labels::settle(app, &mut write, tenant_id, &stored).await?;
        let ids: Vec<DocumentId> = stored.iter().map(|stored| stored.id).collect();
        generations::note_gaps(app, &mut write, tenant_id, Some(&work[0].space), &ids).await?;
        remove_chunks_later(app, &mut write, tenant_id, &given_up).await?;
        write.commit().await?;
        app.wake_workers();
        Ok(())
    }

    /// Puts in a document of many chunks, part by part.
    async fn put_large(
        &mut self,
        work: Work,
        live_cut: CutId,
        (mut cutter, mut chunks): (Cutter, Vec<CutChunk>),
        mut rest: Option<DocumentParts>,
    ) -> Result<()> {
        let mut large = Large::begin(self, &work).await?;
        loop {
            let step = match large.add(&chunks).await {
                Err(error) if is_refusal(&error) => return self.copy(&work, live_cut).await,
                step => step?,
            };
            if step != Step::Taken {
                self.note(step, &work);
                return Ok(());
            }
            let Some(parts) = rest.as_mut().filter(|parts| parts.has_more()) else {
                break;
            };
            let next = match parts.next().await {
                Ok(Some(next)) => next,
                Ok(None) => return Err(Error::internal("the last part of a document did not come")),
                Err(ExtractError::Unavailable) => return Err(reader_unavailable()),
                Err(_) => return self.take_over(&work, live_cut).await,
            };
            let is_last = !parts.has_more();
            (cutter, _, chunks) = cutter.cut(next, is_last).await?;
        }
        let step = large.finish().await?;
        self.note(step, &work);
        Ok(())
    }

    /// Puts a document in as it is cut at present, behind what has gathered.
    async fn take_over(&mut self, work: &Work, live_cut: CutId) -> Result<()> {
        self.flush().await?;
        self.copy(work, live_cut).await
    }

    async fn copy(&mut self, work: &Work, live_cut: CutId) -> Result<()> {
        let tenant_id = self.target.tenant_id;
        let mut large = Large::begin(self, work).await?;
        let mut from = 0;
        loop {
            let mut conn = self.app.db.read(tenant_id).await?;
            let rows =
                store::list_rows(&mut conn, tenant_id, (work.id, live_cut), from, EMBEDDED_AT_ONCE).await?;
            drop(conn);
            let Some(last) = rows.last() else {
                break;
            };
            from = last.position + 1;
            let chunks: Vec<CutChunk> = rows
                .into_iter()
                .map(|row| CutChunk::taken_over(row, work, &large.before))
                .collect();
            let step = large.add(&chunks).await?;
            if step != Step::Taken {
                self.note(step, work);
                return Ok(());
            }
        }
        let step = large.finish().await?;
        self.note(step, work);
        Ok(())
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

/// What became of a part of a document.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    Taken,
    /// Another version of the document took its place.
    Changed,
    /// It had its turn, or the cut was given up.
    Over,
}

/// A document that is put in group by group.
struct Large<'a> {
    app: &'a App,
    target: &'a Target,
    work: &'a Work,
    started: Instant,
    has_gained: bool,
    /// The chunks that there were.
    before: HashSet<ChunkId>,
    kept: HashSet<ChunkId>,
    position: i64,
}

impl<'a> Large<'a> {
    async fn begin<'b>(beside: &Beside<'b>, work: &'a Work) -> Result<Self>
    where
        'b: 'a,
    {
        let tenant_id = beside.target.tenant_id;
        let mut conn = beside.app.db.read(tenant_id).await?;
        let mut before = list_chunk_ids(&mut conn, tenant_id, &[work]).await?;
        Ok(Self {
            app: beside.app,
            target: beside.target,
            work,
            started: beside.started,
            has_gained: false,
            before: before.remove(&work.id).unwrap_or_default(),
            kept: HashSet::new(),
            position: 0,
        })
    }

    async fn add(&mut self, chunks: &[CutChunk]) -> Result<Step> {
        let tenant_id = self.target.tenant_id;
        for group in chunks.chunks(EMBEDDED_AT_ONCE) {
            if self.has_gained && self.started.elapsed() > SLICE {
                return Ok(Step::Over);
            }
            let new: Vec<(&Work, &CutChunk)> = group
                .iter()
                .filter(|chunk| !chunk.is_indexed)
                .map(|chunk| (self.work, chunk))
                .collect();
            add_to_index(self.app, payer(tenant_id, self.work), &new).await?;
            self.has_gained |= !new.is_empty();
            let mut write = self.app.db.write(tenant_id).await?;
            let step = self.hold(&mut write).await?;
            if step == Step::Taken {
                let rows: Vec<&ChunkRow> = group.iter().map(|chunk| &chunk.row).collect();
                store::replace_chunks(&mut write, tenant_id, self.work, &rows).await?;
                let space = Some(self.work.space.as_ref());
                generations::note_gaps(self.app, &mut write, tenant_id, space, &[self.work.id]).await?;
            } else {
                let in_vain: Vec<ChunkId> = new.iter().map(|(_, chunk)| chunk.row.id).collect();
                remove_chunks_later(self.app, &mut write, tenant_id, &in_vain).await?;
            }
            write.commit().await?;
            if step != Step::Taken {
                return Ok(step);
            }
            self.kept.extend(group.iter().map(|chunk| chunk.row.id));
            self.position += as_i64(group.len());
        }
        Ok(Step::Taken)
    }

    /// Whether the cut is wanted, and the document of the version that was read.
    async fn hold(&self, write: &mut Write) -> Result<Step> {
        let tenant_id = self.target.tenant_id;
        if !generations::cuts::share(write, tenant_id, self.target.cut).await? {
            return Ok(Step::Over);
        }
        let held = hold_unchanged(write, tenant_id, &[self.work]).await?;
        Ok(if held.contains(&self.work.id) {
            Step::Taken
        } else {
            Step::Changed
        })
    }

    /// Removes what an earlier version had beyond this one.
    async fn finish(self) -> Result<Step> {
        let (app, tenant_id) = (self.app, self.target.tenant_id);
        loop {
            let mut write = app.db.write(tenant_id).await?;
            let step = self.hold(&mut write).await?;
            if step != Step::Taken {
                return Ok(step);
            }
            let deleted =
                store::delete_from(&mut write, tenant_id, self.work, self.position, DELETED_AT_ONCE).await?;
            let is_last = as_i64(deleted) < DELETED_AT_ONCE;
            if is_last {
                let given_up: Vec<ChunkId> = self.before.difference(&self.kept).copied().collect();
                remove_chunks_later(app, &mut write, tenant_id, &given_up).await?;
                labels::settle(app, &mut write, tenant_id, &[self.work.stored()]).await?;
            }
            write.commit().await?;
            app.wake_workers();
            if is_last {
                return Ok(Step::Taken);
            }
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
