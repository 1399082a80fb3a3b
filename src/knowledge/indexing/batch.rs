//! Documents that are embedded together and swapped in with one transaction.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use ingest::sandbox::DocumentParts;
use ingest::{ExtractError, ExtractedDocument};
use retrieval::index::Point;

use super::embedding::{EMBEDDED_AT_ONCE, Payer, add_to_index};
use super::in_vain::undo_later;
use super::large::{self, FirstPart};
use super::store::{
    Indexed, clear, forget_item, hold_current, insert_chunks, list_chunk_ids, put_text, set_indexed,
    set_queued_again,
};
use super::{
    FILE_LOST, Progress, Work, concerns_one_document, drop_staged_later, enqueue_alone, load_edits, reader,
};
use crate::app::App;
use crate::error::{Error, Result};
use crate::generations;
use crate::id::{ChunkId, DocumentId, TenantId};
use crate::jobs::JobContext;
use crate::knowledge::chunks::{Verdict, set_stale};
use crate::knowledge::cut::{CutChunk, Cutter, PresentChunks, as_i64};
use crate::knowledge::facts::Facts;
use crate::knowledge::index_changes;
use crate::knowledge::labels::{self, Stored};
use crate::knowledge::operator;
use crate::knowledge::search::TEXT_REFUSED;
use crate::knowledge::store::{self, ChunkRow};
use crate::knowledge::sync;
use crate::usage;

/// Documents that are swapped in with one transaction.
const DOCUMENTS_AT_ONCE: usize = 32;

/// Documents on their way into the index, of one chatbot and run.
pub(super) struct Batch<'a> {
    app: &'a App,
    context: &'a JobContext,
    tenant_id: TenantId,
    /// The job has no other document, so its failure is the document's.
    is_single: bool,
    payer: Option<Payer>,
    cut: Vec<Cut>,
    failed: Vec<(Work, String, String)>,
    new_chunks: usize,
    /// Chunks that this job has put into the index.
    added: HashSet<ChunkId>,
    /// Those that go in with their rows.
    points: HashMap<ChunkId, Point>,
}

/// A document that was read and cut.
struct Cut {
    work: Work,
    title: String,
    text: String,
    facts: Facts,
    chunks: Vec<CutChunk>,
    /// What became of the owner's changes.
    verdicts: Vec<Verdict>,
}

impl Cut {
    fn indexed<'a>(&'a self, read_with: &'a str) -> Indexed<'a> {
        Indexed {
            title: &self.title,
            chunk_count: as_i64(self.chunks.len()),
            token_count: self.chunks.iter().map(|chunk| chunk.row.token_count).sum(),
            facts: &self.facts,
            read_with,
            embedding_model: self.work.space.model.as_deref().unwrap_or(operator::NO_MODEL),
        }
    }
}

impl<'a> Batch<'a> {
    pub(super) fn new(app: &'a App, context: &'a JobContext, tenant_id: TenantId, is_single: bool) -> Self {
        Self {
            app,
            context,
            tenant_id,
            is_single,
            payer: None,
            cut: Vec::new(),
            failed: Vec::new(),
            new_chunks: 0,
            added: HashSet::new(),
            points: HashMap::new(),
        }
    }

    /// Cuts a document and takes it in; carries out what has gathered when it is enough. What has more chunks than are
    /// embedded at once is staged, and what takes the place of many.
    pub(super) async fn add(&mut self, mut work: Work, extracted: ExtractedDocument) -> Result<Progress> {
        let payer = Payer {
            tenant_id: self.tenant_id,
            chatbot_id: work.chatbot_id,
            run_id: work.run_id,
        };
        if self.payer.is_some_and(|own| own != payer) {
            self.flush().await?;
        }
        let title = title_of(&work, &extracted);
        let present = PresentChunks::load(self.app, self.tenant_id, &work).await?;
        let is_large = present.len() > large::SWAPPED_AT_ONCE;
        let edits = load_edits(self.app, self.tenant_id, &work).await?;
        let cutter = Cutter::new(self.app, &work, &title, present, edits);
        let (cutter, extracted, chunks) = cutter.cut(extracted, true).await?;
        if chunks.is_empty() {
            return self.fail(work, &ExtractError::NoText { scanned: false }).await;
        }
        let facts = Facts::of(&extracted);
        work.expect(&facts, &reader(self.app));
        if is_large || chunks.len() > EMBEDDED_AT_ONCE {
            self.flush().await?;
            let first = FirstPart {
                title,
                cutter,
                document: extracted,
                chunks,
            };
            let staged = large::index(self.app, self.context, &work, first, None).await;
            return self.judge(work, staged).await;
        }
        self.payer = Some(payer);
        self.new_chunks += chunks.iter().filter(|chunk| !chunk.is_indexed).count();
        self.cut.push(Cut {
            work,
            title,
            facts,
            text: extracted.text,
            chunks,
            verdicts: cutter.edits().verdicts(),
        });
        self.flush_if_full().await
    }

    /// Indexes a document that comes in parts, of which this is the first, behind what has gathered.
    pub(super) async fn add_parts(
        &mut self,
        mut work: Work,
        first: ExtractedDocument,
        rest: DocumentParts,
    ) -> Result<Progress> {
        self.flush().await?;
        let (app, tenant_id) = (self.app, self.tenant_id);
        work.expect(&Facts::of(&first), &reader(app));
        let first = FirstPart::cut(app, tenant_id, &work, first).await?;
        let staged = large::index(app, self.context, &work, first, Some(rest)).await;
        self.judge(work, staged).await
    }

    /// What fails one document must not fail the others.
    pub(super) async fn judge(&mut self, work: Work, staged: Result<Progress>) -> Result<Progress> {
        match staged {
            Err(Error::Upstream { code, message, .. }) if code == TEXT_REFUSED => {
                self.failed.push((work, code.to_owned(), message.to_string()));
                self.flush_if_full().await
            }
            Err(error) if concerns_one_document(&error) => {
                self.try_alone(&work, error).await?;
                Ok(Progress::Done)
            }
            staged => staged,
        }
    }

    /// The document cannot be read.
    pub(super) async fn fail(&mut self, work: Work, error: &ExtractError) -> Result<Progress> {
        self.failed
            .push((work, error.code().to_owned(), error.to_string()));
        self.flush_if_full().await
    }

    /// Reading the document costs more than the month allows. The owner is told, once.
    pub(super) async fn fail_over_budget(
        &mut self,
        work: Work,
        code: &'static str,
        message: Cow<'static, str>,
    ) -> Result<Progress> {
        self.note_over_budget(work, code, message).await;
        self.flush_if_full().await
    }

    async fn note_over_budget(&mut self, work: Work, code: &'static str, message: Cow<'static, str>) {
        let chatbot_id = work.chatbot_id;
        self.failed.push((work, code.to_owned(), message.to_string()));
        let refusal = Error::BudgetExceeded { code, message };
        usage::tell_owner_of_refusal(self.app, self.tenant_id, chatbot_id, refusal).await;
    }

    /// What was stored of the document is lost: whoever brought it has to bring it again.
    pub(super) async fn fail_for_lost_file(&mut self, work: Work) -> Result<Progress> {
        let mut write = self.app.db.write(self.tenant_id).await?;
        forget_item(&mut write, self.tenant_id, work.id).await?;
        write.commit().await?;
        let message = "The stored file of this document is lost. Upload it again, or synchronise its source.";
        self.failed.push((work, FILE_LOST.to_owned(), message.to_owned()));
        self.flush_if_full().await
    }

    async fn flush_if_full(&mut self) -> Result<Progress> {
        if self.new_chunks >= EMBEDDED_AT_ONCE || self.cut.len() + self.failed.len() >= DOCUMENTS_AT_ONCE {
            self.flush().await?;
        }
        Ok(Progress::Done)
    }

    /// Carries out what has gathered.
    pub(super) async fn flush(&mut self) -> Result<()> {
        let cut = std::mem::take(&mut self.cut);
        self.new_chunks = 0;
        let Some(payer) = self.payer.take() else {
            return self.commit(&[]).await;
        };
        match self.embed(payer, &cut).await {
            Ok(()) => self.commit(&cut).await,
            Err(error) if !concerns_one_document(&error) => Err(error),
            Err(error) => match <[Cut; 1]>::try_from(cut) {
                Ok([document]) => {
                    self.set_aside(document, error).await?;
                    self.commit(&[]).await
                }
                Err(several) => self.flush_one_by_one(payer, several).await,
            },
        }
    }

    /// One of these documents cannot be embedded: the others must not wait for it.
    async fn flush_one_by_one(&mut self, payer: Payer, cut: Vec<Cut>) -> Result<()> {
        let mut whole = Vec::with_capacity(cut.len());
        for document in cut {
            let document = [document];
            match self.embed(payer, &document).await {
                Ok(()) => whole.extend(document),
                Err(error) if concerns_one_document(&error) => {
                    let [document] = document;
                    self.set_aside(document, error).await?;
                }
                Err(error) => {
                    self.commit(&whole).await?;
                    return Err(error);
                }
            }
        }
        self.commit(&whole).await
    }

    /// The document cannot be embedded: it fails for want of a budget or for what it says, else gets a job of its own if this
    /// is not one.
    async fn set_aside(&mut self, document: Cut, error: Error) -> Result<()> {
        match error {
            Error::BudgetExceeded { code, message } => {
                self.forget(&document).await?;
                self.note_over_budget(document.work, code, message).await;
                Ok(())
            }
            Error::Upstream { code, message, .. } if code == TEXT_REFUSED => {
                self.forget(&document).await?;
                self.failed
                    .push((document.work, code.to_owned(), message.to_string()));
                Ok(())
            }
            error => self.try_alone(&document.work, error).await,
        }
    }

    /// The document gets a job of its own, if this is not one.
    async fn try_alone(&self, work: &Work, error: Error) -> Result<()> {
        if self.is_single {
            return Err(error);
        }
        tracing::warn!(error = ?error, document.id = %work.id, "a document is tried again by itself");
        let mut write = self.app.db.write(self.tenant_id).await?;
        enqueue_alone(self.app, &mut write, self.tenant_id, work).await?;
        write.commit().await
    }

    async fn embed(&mut self, payer: Payer, cut: &[Cut]) -> Result<()> {
        let new: Vec<(&Work, &CutChunk)> = cut
            .iter()
            .flat_map(|document| document.chunks.iter().map(|chunk| (&document.work, chunk)))
            .filter(|(_, chunk)| !chunk.is_indexed && !self.is_embedded(chunk.row.id))
            .collect();
        for group in new.chunks(EMBEDDED_AT_ONCE) {
            let left = add_to_index(self.app, payer, group).await?;
            if left.is_empty() {
                self.added.extend(group.iter().map(|(_, chunk)| chunk.row.id));
            }
            let left = left.into_iter().map(|point| (ChunkId(point.chunk_id.0), point));
            self.points.extend(left);
        }
        Ok(())
    }

    fn is_embedded(&self, id: ChunkId) -> bool {
        self.added.contains(&id) || self.points.contains_key(&id)
    }

    /// What was put into the index for a document in vain is undone.
    async fn forget(&mut self, document: &Cut) -> Result<()> {
        let (work, tenant_id) = (&document.work, self.tenant_id);
        document.chunks.iter().for_each(|chunk| {
            self.points.remove(&chunk.row.id);
        });
        let mut write = self.app.db.write(tenant_id).await?;
        let shown = list_chunk_ids(&mut write, tenant_id, &[work]).await?;
        let shown = shown.get(&work.id).cloned().unwrap_or_default();
        let new = document.chunks.iter().filter(|chunk| !chunk.is_indexed);
        let put = new.map(|chunk| chunk.row.id).collect();
        undo_later(self.app, &mut write, tenant_id, work, put, &shown).await?;
        write.commit().await
    }

    /// Swaps the new versions in and queues the removal of what only the old ones had; fails what failed.
    async fn commit(&mut self, cut: &[Cut]) -> Result<()> {
        let failed = std::mem::take(&mut self.failed);
        if cut.is_empty() && failed.is_empty() {
            return Ok(());
        }
        let (app, tenant_id, now) = (self.app, self.tenant_id, self.app.clock.now());
        let mut write = app.db.write(tenant_id).await?;
        let mut given_up: Vec<ChunkId> = Vec::new();
        let mut swapped_in: Vec<Stored<'_>> = Vec::new();
        let read_with = reader(app);
        let work: Vec<&Work> = cut.iter().map(|document| &document.work).collect();
        let current = hold_current(&mut write, tenant_id, &work).await?;
        let mut chunks_before = list_chunk_ids(&mut write, tenant_id, &work).await?;
        let mut chunks_after: Vec<(&Work, &ChunkRow)> = Vec::new();
        for document in cut {
            let work = &document.work;
            let before = chunks_before.remove(&work.id).unwrap_or_default();
            let after: HashSet<ChunkId> = document.chunks.iter().map(|chunk| chunk.row.id).collect();
            if !current.contains(&work.id) {
                // Deleted, changed or replaced meanwhile.
                let put = document.chunks.iter().map(|chunk| chunk.row.id);
                let put = put.filter(|id| self.added.contains(id)).collect();
                undo_later(app, &mut write, tenant_id, work, put, &before).await?;
                if set_queued_again(&mut write, tenant_id, work).await? {
                    enqueue_alone(app, &mut write, tenant_id, work).await?;
                }
                continue;
            }
            given_up.extend(before.difference(&after));
            if work.was_indexed || !before.is_empty() {
                clear(&mut write, tenant_id, work).await?;
            }
            chunks_after.extend(document.chunks.iter().map(|chunk| (work, &chunk.row)));
            let indexed = document.indexed(&read_with);
            set_indexed(&mut write, tenant_id, work.id, indexed, now).await?;
            put_text(&mut write, tenant_id, work.id, &work.content_hash, &document.text).await?;
            set_stale(&mut write, tenant_id, &document.verdicts).await?;
            swapped_in.push(work.stored());
        }
        insert_chunks(&mut write, tenant_id, &chunks_after).await?;
        let mut points = std::mem::take(&mut self.points);
        if let Some((work, _)) = chunks_after.first() {
            let ids = chunks_after.iter().map(|(_, row)| row.id);
            let points = ids.filter_map(|id| points.remove(&id)).collect();
            index_changes::put(&mut write, tenant_id, &work.space, points);
        }
        for (work, code, message) in &failed {
            let version = (work.file_key.as_str(), read_with.as_str());
            store::set_failed(&mut write, tenant_id, work.id, version, (code, message), now).await?;
        }
        let failed_ids: Vec<DocumentId> = failed.iter().map(|(work, ..)| work.id).collect();
        drop_staged_later(app, &mut write, tenant_id, &failed_ids).await?;
        labels::settle(app, &mut write, tenant_id, &swapped_in).await?;
        let changed: Vec<DocumentId> = swapped_in.iter().map(|stored| stored.id).collect();
        if let Some(work) = work.first() {
            generations::note_gaps(app, &mut write, tenant_id, Some(&work.space), &changed).await?;
            generations::cuts::note_indexed(app, &mut write, tenant_id, &changed).await?;
        }
        index_changes::remove_chunks(app, &mut write, tenant_id, &given_up).await?;
        let done = cut
            .iter()
            .map(|document| &document.work)
            .chain(failed.iter().map(|(work, ..)| work));
        let of_runs = done
            .filter(|work| work.run_id.is_some())
            .map(|work| work.source_id)
            .collect();
        sync::go_on_if_indexed(&mut write, tenant_id, &of_runs, now).await?;
        write.commit().await?;
        app.wake_workers();
        Ok(())
    }
}

/// What the document is called: by who brought it, else by itself, else by its file.
pub(super) fn title_of(work: &Work, extracted: &ExtractedDocument) -> String {
    work.given_title
        .clone()
        .or_else(|| extracted.title.clone())
        .filter(|title| !title.trim().is_empty())
        .unwrap_or_else(|| work.file_name.clone())
}
