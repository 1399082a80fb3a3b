//! Documents of any size: they come in parts, each of which is cut, embedded and staged, group by group, before the next
//! one is read. What was staged need not be done again, whatever ends an attempt.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use ingest::ExtractedDocument;
use ingest::sandbox::DocumentParts;

use super::batch::title_of;
use super::embedding::{EMBEDDED_AT_ONCE, Payer, add_to_index};
use super::store::{Indexed, hold_current, set_indexed, set_queued_again};
use super::{
    Progress, Work, drop_staged_later, enqueue_alone, load_edits, reader, remove_chunks_later, staging,
};
use crate::app::App;
use crate::db::Write;
use crate::error::{Error, Result};
use crate::id::{ChunkId, TenantId};
use crate::knowledge::chunks::{self, Verdict};
use crate::knowledge::cut::{ContentKey, CutChunk, Cutter, PresentChunks, as_i64, content_key};
use crate::knowledge::facts::Facts;
use crate::knowledge::jobs::RemoveDocuments;
use crate::knowledge::labels;
use crate::knowledge::operator;
use crate::knowledge::store::{self, ChunkRow};
use crate::knowledge::sync;
use crate::{generations, jobs, usage};

/// A document that took so long lets others have their turn. What was staged stays, but the file is read again.
const SLICE: Duration = Duration::from_secs(20 * 60);

/// A document that takes longer to be brought to where it stood is given up.
const LONGEST_REPLAY: Duration = Duration::from_secs(25 * 60);

/// Chunks that one version may have to be swapped for another one in one transaction.
pub(super) const SWAPPED_AT_ONCE: usize = 2_000;

/// Why a document fails: a code, and a sentence for its owner.
type Reason = (String, String);

/// How far staging came.
enum Staged {
    Whole {
        facts: Facts,
        /// What became of the owner's changes.
        verdicts: Vec<Verdict>,
        /// An earlier attempt put some of it into the index, perhaps into another one than answers now.
        was_begun: bool,
        /// How many there are.
        chunks: i64,
    },
    Unfinished,
    /// The document was deleted or replaced meanwhile.
    Superseded,
    Failed(Reason),
}

/// The first part of a document, or all of it, as it was cut.
pub(super) struct FirstPart {
    pub title: String,
    pub cutter: Cutter,
    pub document: ExtractedDocument,
    pub chunks: Vec<CutChunk>,
}

impl FirstPart {
    /// Cuts the first of several parts.
    pub(super) async fn cut(
        app: &App,
        tenant_id: TenantId,
        work: &Work,
        first: ExtractedDocument,
    ) -> Result<Self> {
        let title = title_of(work, &first);
        let present = PresentChunks::load(app, tenant_id, work).await?;
        let edits = load_edits(app, tenant_id, work).await?;
        let cutter = Cutter::new(app, work, &title, present, edits);
        let (cutter, document, chunks) = cutter.cut(first, false).await?;
        Ok(Self {
            title,
            cutter,
            document,
            chunks,
        })
    }
}

/// Indexes a document of which at least the first part was cut.
pub(super) async fn index(
    app: &App,
    tenant_id: TenantId,
    work: &Work,
    first: FirstPart,
    rest: Option<DocumentParts>,
) -> Result<Progress> {
    let title = first.title.clone();
    let reason = match stage(app, tenant_id, work, first, rest).await {
        Ok(Staged::Whole {
            facts,
            verdicts,
            was_begun,
            chunks,
        }) => {
            check_whole(app, tenant_id, work, chunks).await?;
            swap(app, tenant_id, work, (&title, &facts), (&verdicts, was_begun)).await?;
            return Ok(Progress::Done);
        }
        Ok(Staged::Unfinished) => return Ok(Progress::Unfinished),
        Ok(Staged::Superseded) => {
            abandon(app, tenant_id, work).await?;
            return Ok(Progress::Done);
        }
        Ok(Staged::Failed(reason)) => reason,
        Err(Error::BudgetExceeded { code, message }) => {
            let reason = (code.to_owned(), message.to_string());
            let refusal = Error::BudgetExceeded { code, message };
            usage::tell_owner_of_refusal(app, tenant_id, work.chatbot_id, refusal).await;
            reason
        }
        Err(error) => return Err(error),
    };
    fail(app, tenant_id, work, reason).await?;
    Ok(Progress::Done)
}

/// Brings all parts into the index and into the tables where they wait.
async fn stage(
    app: &App,
    tenant_id: TenantId,
    work: &Work,
    first: FirstPart,
    mut rest: Option<DocumentParts>,
) -> Result<Staged> {
    let mut stage = Stage::take_up(app, tenant_id, work).await?;
    // The beginning shows the language, as where a document comes whole.
    let detected_language = Facts::of(&first.document).detected_language;
    let FirstPart {
        mut cutter,
        document: mut part,
        mut chunks,
        ..
    } = first;
    loop {
        match stage.add_chunks(&chunks).await? {
            Step::Taken => {}
            Step::TurnIsOver => return Ok(Staged::Unfinished),
            Step::Superseded => return Ok(Staged::Superseded),
        }
        if stage.add_text(&part.text).await? == Step::Superseded {
            return Ok(Staged::Superseded);
        }
        let Some(parts) = rest.as_mut().filter(|parts| parts.has_more()) else {
            return Ok(Staged::Whole {
                facts: Facts {
                    detected_language,
                    ..Facts::of(&part)
                },
                verdicts: cutter.edits().verdicts(),
                was_begun: !stage.staged.is_empty(),
                chunks: stage.chunks,
            });
        };
        if !stage.has_gained && stage.started.elapsed() > LONGEST_REPLAY {
            // Nothing was gained by this turn, and nothing would be by the next one.
            let message = "The document is too large: reading it anew up to where it stood takes too long. Split it into smaller files.";
            return Ok(Staged::Failed(("too_large".to_owned(), message.to_owned())));
        }
        let next = match parts.next().await {
            Ok(Some(next)) => next,
            Ok(None) => return Err(Error::internal("the last part of a document did not come")),
            Err(error) => return Ok(Staged::Failed((error.code().to_owned(), error.to_string()))),
        };
        let is_last = !parts.has_more();
        (cutter, part, chunks) = cutter.cut(next, is_last).await?;
    }
}

/// What became of a step of staging.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    Taken,
    TurnIsOver,
    Superseded,
}

/// The tables where a version waits until all of it is there.
struct Stage<'a> {
    app: &'a App,
    tenant_id: TenantId,
    work: &'a Work,
    started: Instant,
    /// What an earlier attempt staged: the index holds it.
    staged: HashMap<ChunkId, ContentKey>,
    /// Parts of the text that an earlier attempt staged.
    staged_parts: i64,
    /// This attempt staged something.
    has_gained: bool,
    /// The part that comes next, and where it begins.
    part: i64,
    start_char: i64,
    /// Of all parts so far.
    chunks: i64,
}

impl<'a> Stage<'a> {
    async fn take_up(app: &'a App, tenant_id: TenantId, work: &'a Work) -> Result<Self> {
        let mut conn = app.db.read(tenant_id).await?;
        let staged = staging::list(&mut conn, tenant_id, work).await?;
        let staged_parts = staging::count_parts(&mut conn, tenant_id, work).await?;
        let staged = staged
            .into_iter()
            .map(|(id, content_hash)| (id, content_key(&content_hash)))
            .collect();
        Ok(Self {
            app,
            tenant_id,
            work,
            started: Instant::now(),
            staged,
            staged_parts,
            has_gained: false,
            part: 0,
            start_char: 0,
            chunks: 0,
        })
    }

    /// Stages chunks of a part group by group, each as soon as the index holds it.
    async fn add_chunks(&mut self, chunks: &[CutChunk]) -> Result<Step> {
        self.chunks += as_i64(chunks.len());
        let payer = Payer {
            tenant_id: self.tenant_id,
            chatbot_id: self.work.chatbot_id,
            run_id: self.work.run_id,
        };
        let is_staged =
            |chunk: &&CutChunk| self.staged.get(&chunk.row.id) == Some(&content_key(&chunk.row.content_hash));
        let left = chunks.iter().filter(|chunk| !is_staged(chunk));
        let (known, new): (Vec<&CutChunk>, Vec<&CutChunk>) = left.partition(|chunk| chunk.is_indexed);
        for group in known.chunks(staging::MOVED_AT_ONCE) {
            if self.insert(group).await? == Step::Superseded {
                return Ok(Step::Superseded);
            }
        }
        for group in new.chunks(EMBEDDED_AT_ONCE) {
            if self.has_gained && self.started.elapsed() > SLICE {
                return Ok(Step::TurnIsOver);
            }
            let of_work: Vec<(&Work, &CutChunk)> = group.iter().map(|chunk| (self.work, *chunk)).collect();
            add_to_index(self.app, payer, &of_work).await?;
            if self.insert(group).await? == Step::Superseded {
                self.forget(group).await?;
                return Ok(Step::Superseded);
            }
        }
        Ok(Step::Taken)
    }

    /// What was put into the index in vain is removed.
    async fn forget(&self, chunks: &[&CutChunk]) -> Result<()> {
        let in_vain: Vec<ChunkId> = chunks.iter().map(|chunk| chunk.row.id).collect();
        let mut write = self.app.db.write(self.tenant_id).await?;
        remove_chunks_later(self.app, &mut write, self.tenant_id, &in_vain).await?;
        write.commit().await
    }

    async fn insert(&mut self, chunks: &[&CutChunk]) -> Result<Step> {
        let rows: Vec<&ChunkRow> = chunks.iter().map(|chunk| &chunk.row).collect();
        let Some(mut write) = hold_wanted(self.app, self.tenant_id, self.work).await? else {
            return Ok(Step::Superseded);
        };
        staging::insert_chunks(&mut write, self.tenant_id, self.work, &rows).await?;
        write.commit().await?;
        self.has_gained = true;
        Ok(Step::Taken)
    }

    /// Stages the text of a part, all of whose chunks are.
    async fn add_text(&mut self, text: &str) -> Result<Step> {
        if self.part >= self.staged_parts {
            let Some(mut write) = hold_wanted(self.app, self.tenant_id, self.work).await? else {
                return Ok(Step::Superseded);
            };
            let place = (self.part, self.start_char);
            staging::insert_text(&mut write, self.tenant_id, self.work, place, text).await?;
            write.commit().await?;
            self.has_gained = true;
        }
        self.part += 1;
        self.start_char += as_i64(text.chars().count());
        Ok(Step::Taken)
    }
}

/// What was staged may be dropped meanwhile, by a server that starts on a new index: then the document is not brought in with
/// holes, but tried again.
async fn check_whole(app: &App, tenant_id: TenantId, work: &Work, chunks: i64) -> Result<()> {
    let mut conn = app.db.read(tenant_id).await?;
    let staged = staging::count(&mut conn, tenant_id, work).await?.chunk_count;
    drop(conn);
    if staged >= chunks || hold_wanted(app, tenant_id, work).await?.is_none() {
        return Ok(());
    }
    Err(Error::internal(format!(
        "{staged} of {chunks} chunks are staged: the index was lost meanwhile"
    )))
}

/// Makes the staged version the one that answers: in one transaction where it takes the place of another one and both are
/// small. Else its rows are brought to their place before, so that no transaction is long.
async fn swap(
    app: &App,
    tenant_id: TenantId,
    work: &Work,
    (title, facts): (&str, &Facts),
    (verdicts, was_begun): (&[Verdict], bool),
) -> Result<()> {
    let mut conn = app.db.read(tenant_id).await?;
    let totals = staging::count(&mut conn, tenant_id, work).await?;
    let parts = staging::count_parts(&mut conn, tenant_id, work).await?;
    let present = staging::count_present(&mut conn, tenant_id, work).await?;
    drop(conn);
    let is_at_once = work.was_indexed && present.max(totals.chunk_count) <= as_i64(SWAPPED_AT_ONCE);
    if !is_at_once {
        bring_in(app, tenant_id, work, totals.chunk_count, parts).await?;
    }
    let indexed = Indexed {
        title,
        chunk_count: totals.chunk_count,
        token_count: totals.token_count,
        facts,
        read_with: &reader(app),
        embedding_model: work.space.model.as_deref().unwrap_or(operator::NO_MODEL),
    };
    let mut write = app.db.write(tenant_id).await?;
    let is_wanted = hold_current(&mut write, tenant_id, &[work])
        .await?
        .contains(&work.id);
    if !is_wanted {
        drop(write);
        return abandon(app, tenant_id, work).await;
    }
    set_indexed(&mut write, tenant_id, work.id, indexed, app.clock.now()).await?;
    if is_at_once {
        let given_up = staging::list_given_up(&mut write, tenant_id, work).await?;
        staging::swap_in(&mut write, tenant_id, work).await?;
        remove_chunks_later(app, &mut write, tenant_id, &given_up).await?;
    }
    chunks::set_stale(&mut write, tenant_id, verdicts).await?;
    labels::settle(app, &mut write, tenant_id, &[work.stored()]).await?;
    let written = (!was_begun).then_some(work.space.as_ref());
    generations::note_gaps(app, &mut write, tenant_id, written, &[work.id]).await?;
    generations::cuts::note_gaps(app, &mut write, tenant_id, &[work.id]).await?;
    drop_staged_later(app, &mut write, tenant_id, &[work.id]).await?;
    let of_run = work.run_id.map(|_| work.source_id).into_iter().collect();
    sync::go_on_if_indexed(&mut write, tenant_id, &of_run, app.clock.now()).await?;
    write.commit().await?;
    app.wake_workers();
    Ok(())
}

/// Brings the rows of a document to their place bit by bit. Where it never answered, nobody sees them before it is indexed;
/// else they take the place of the old ones in order.
async fn bring_in(app: &App, tenant_id: TenantId, work: &Work, chunk_count: i64, parts: i64) -> Result<()> {
    let mut conn = app.db.read(tenant_id).await?;
    let given_up = staging::list_given_up(&mut conn, tenant_id, work).await?;
    drop(conn);
    let given_up: HashSet<ChunkId> = given_up.into_iter().collect();
    let gone_of = |replaced: Vec<ChunkId>| -> Vec<ChunkId> {
        replaced.into_iter().filter(|id| given_up.contains(id)).collect()
    };
    let mut from = 0;
    while from < chunk_count {
        let to = from + as_i64(staging::MOVED_AT_ONCE);
        let Some(mut write) = hold_wanted(app, tenant_id, work).await? else {
            return Ok(());
        };
        let replaced = staging::bring_in_chunks(&mut write, tenant_id, work, (from, to)).await?;
        remove_chunks_later(app, &mut write, tenant_id, &gone_of(replaced)).await?;
        write.commit().await?;
        from = to;
    }
    for part in 0..parts {
        let Some(mut write) = hold_wanted(app, tenant_id, work).await? else {
            return Ok(());
        };
        staging::bring_in_text(&mut write, tenant_id, work, part).await?;
        write.commit().await?;
    }
    loop {
        let Some(mut write) = hold_wanted(app, tenant_id, work).await? else {
            return Ok(());
        };
        let dropped = staging::drop_from(&mut write, tenant_id, work, chunk_count).await?;
        staging::drop_text_from(&mut write, tenant_id, work, parts).await?;
        let is_last = dropped.is_empty();
        remove_chunks_later(app, &mut write, tenant_id, &gone_of(dropped)).await?;
        write.commit().await?;
        if is_last {
            return Ok(());
        }
    }
}

/// A transaction in which this version is the document's own; none where it is not any more.
async fn hold_wanted(app: &App, tenant_id: TenantId, work: &Work) -> Result<Option<Write>> {
    let mut write = app.db.write(tenant_id).await?;
    let current = hold_current(&mut write, tenant_id, &[work]).await?;
    Ok(current.contains(&work.id).then_some(write))
}

/// What was staged, and put into the index, of a version that is not wanted any more goes.
async fn abandon(app: &App, tenant_id: TenantId, work: &Work) -> Result<()> {
    let mut write = app.db.write(tenant_id).await?;
    if staging::hold(&mut write, tenant_id, work.id).await?.is_some() {
        if set_queued_again(&mut write, tenant_id, work).await? {
            enqueue_alone(app, &mut write, tenant_id, work).await?;
        }
        drop_staged_later(app, &mut write, tenant_id, &[work.id]).await?;
    } else {
        let removal = RemoveDocuments {
            document_ids: vec![work.id],
            chunk_ids: Vec::new(),
            file_keys: Vec::new(),
        };
        jobs::enqueue(app, &mut write, tenant_id, &removal).await?;
    }
    let of_run = work.run_id.map(|_| work.source_id).into_iter().collect();
    sync::go_on_if_indexed(&mut write, tenant_id, &of_run, app.clock.now()).await?;
    write.commit().await?;
    app.wake_workers();
    Ok(())
}

/// The document fails, and what was staged for it goes.
async fn fail(app: &App, tenant_id: TenantId, work: &Work, (code, message): Reason) -> Result<()> {
    let mut write = app.db.write(tenant_id).await?;
    let read_with = reader(app);
    let (version, now) = ((work.file_key.as_str(), read_with.as_str()), app.clock.now());
    store::set_failed(&mut write, tenant_id, work.id, version, (&code, &message), now).await?;
    drop_staged_later(app, &mut write, tenant_id, &[work.id]).await?;
    let of_run = work.run_id.map(|_| work.source_id).into_iter().collect();
    sync::go_on_if_indexed(&mut write, tenant_id, &of_run, now).await?;
    write.commit().await?;
    app.wake_workers();
    Ok(())
}
