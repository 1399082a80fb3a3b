//! Documents of any size: they come in parts, each of which is cut, embedded and put in its place, group by group, before the next
//! one is read, as a version that nobody reads. What was put in need not be done again, whatever ends an attempt. When all of it
//! is there, one row shows it in place of the one that answered: whatever the document's size, and never a mixture of both.

use std::time::Duration;

use ingest::ExtractedDocument;
use ingest::sandbox::DocumentParts;

use super::batch::title_of;
use super::dropping::delete_some;
use super::embedding::{EMBEDDED_AT_ONCE, Payer, add_to_index};
use super::in_vain::undo_later;
use super::staging::{self, MOVED_AT_ONCE, Version, Waiting};
use super::store::{Indexed, hold_current, insert_versioned, list_chunk_ids, set_indexed, set_queued_again};
use super::turn::Turn;
use super::{Progress, Work, drop_staged_later, enqueue_alone, load_edits, reader};
use crate::app::App;
use crate::db::Write;
use crate::error::{Error, Result};
use crate::id::{ChunkId, TenantId};
use crate::jobs::JobContext;
use crate::knowledge::chunks::{self, Verdict};
use crate::knowledge::cut::{ContentKey, CutChunk, Cutter, PresentChunks, as_i64, content_key};
use crate::knowledge::facts::Facts;
use crate::knowledge::index_changes;
use crate::knowledge::labels;
use crate::knowledge::operator;
use crate::knowledge::store::{self, ChunkRow};
use crate::knowledge::sync;
use crate::{generations, jobs, usage};

/// A document that takes longer to be brought to where it stood is given up.
const LONGEST_REPLAY: Duration = Duration::from_secs(25 * 60);

/// Chunks that one version may have to be swapped for another one in one transaction.
pub(super) const SWAPPED_AT_ONCE: usize = 2_000;

/// Why a document fails: a code, and a sentence for its owner.
type Reason = (String, String);

/// Why a version is not shown.
enum Halt {
    /// Others have their turn.
    TurnIsOver,
    /// The document was deleted or replaced meanwhile, or is to be begun anew.
    Superseded,
    /// Another attempt works on it.
    TakenOver,
    Failed(Reason),
    Error(Error),
}

impl From<Error> for Halt {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
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
    context: &JobContext,
    work: &Work,
    first: FirstPart,
    rest: Option<DocumentParts>,
) -> Result<Progress> {
    let tenant_id = context.tenant()?;
    let Err(halt) = bring_in(app, context, work, first, rest).await else {
        return Ok(Progress::Done);
    };
    match halt {
        Halt::TurnIsOver => return Ok(Progress::Unfinished),
        Halt::TakenOver => {}
        Halt::Superseded => abandon(app, tenant_id, work).await?,
        Halt::Failed(reason) => fail(app, tenant_id, work, reason).await?,
        Halt::Error(Error::BudgetExceeded { code, message }) => {
            let reason = (code.to_owned(), message.to_string());
            let refusal = Error::BudgetExceeded { code, message };
            usage::tell_owner_of_refusal(app, tenant_id, work.chatbot_id, refusal).await;
            fail(app, tenant_id, work, reason).await?;
        }
        Halt::Error(error) => return Err(error),
    }
    Ok(Progress::Done)
}

/// Brings all parts in, and shows them.
async fn bring_in(
    app: &App,
    context: &JobContext,
    work: &Work,
    first: FirstPart,
    mut rest: Option<DocumentParts>,
) -> Result<(), Halt> {
    let mut stage = Stage::take_up(app, context, work).await?;
    // The beginning shows the language, as where a document comes whole.
    let detected_language = Facts::of(&first.document).detected_language;
    let FirstPart {
        title,
        mut cutter,
        document: mut part,
        mut chunks,
    } = first;
    loop {
        stage.add_chunks(&chunks).await?;
        stage.add_text(&part.text).await?;
        let Some(parts) = rest.as_mut().filter(|parts| parts.has_more()) else {
            break;
        };
        if !stage.turn.has_gained() && stage.turn.elapsed() > LONGEST_REPLAY {
            // Nothing was gained by this turn, and nothing would be by the next one.
            let message = "The document is too large: reading it anew up to where it stood takes too long. Split it into smaller files.";
            return Err(Halt::Failed(("too_large".to_owned(), message.to_owned())));
        }
        let next = match parts.next().await {
            Ok(Some(next)) => next,
            Ok(None) => return Err(Error::internal("the last part of a document did not come").into()),
            Err(error) => return Err(Halt::Failed((error.code().to_owned(), error.to_string()))),
        };
        let is_last = !parts.has_more();
        (cutter, part, chunks) = cutter.cut(next, is_last).await?;
    }
    let facts = Facts {
        detected_language,
        ..Facts::of(&part)
    };
    stage.show(&title, &facts, &cutter.edits().verdicts()).await
}

/// A chunk that an earlier attempt brought in.
struct Ready {
    id: ChunkId,
    content: ContentKey,
    span: (i64, i64),
}

impl Ready {
    fn is(&self, row: &ChunkRow) -> bool {
        let content = content_key(&row.content_hash);
        (self.id, self.content, self.span) == (row.id, content, (row.start_char, row.end_char))
    }
}

/// A version that is brought in.
struct Stage<'a> {
    app: &'a App,
    context: &'a JobContext,
    tenant_id: TenantId,
    work: &'a Work,
    turn: Turn,
    waiting: Waiting,
    /// What earlier attempts brought in, in its order: rows and points.
    ready: Vec<Ready>,
    /// Parts of the text that earlier attempts brought in.
    ready_parts: i64,
    /// Attempts count anew since this attempt came further than those before.
    is_counted_anew: bool,
    /// The part that comes next, and where it begins.
    part: i64,
    start_char: i64,
    /// The position of the chunk that comes next.
    position: usize,
    token_count: i64,
}

impl<'a> Stage<'a> {
    async fn take_up(app: &'a App, context: &'a JobContext, work: &'a Work) -> Result<Self, Halt> {
        let tenant_id = context.tenant()?;
        generations::check_live_making_for_document(app, tenant_id).await?;
        let mut write = app.db.write(tenant_id).await?;
        // All that is waiting is in the index that documents are put into, whoever goes on with it.
        generations::hold_live_making_for_document(app, &mut write, tenant_id).await?;
        hold_wanted(&mut write, tenant_id, work).await?;
        let waiting = staging::take_up(&mut write, tenant_id, work).await?;
        write.commit().await?;
        let mut stage = Self {
            app,
            context,
            tenant_id,
            work,
            turn: Turn::begin(),
            waiting,
            ready: Vec::new(),
            ready_parts: 0,
            is_counted_anew: false,
            part: 0,
            start_char: 0,
            position: 0,
            token_count: 0,
        };
        if waiting.was_begun {
            stage.load_ready().await?;
        }
        Ok(stage)
    }

    async fn load_ready(&mut self) -> Result<(), Halt> {
        // The index may hold the last group, which the last attempt did not live to say.
        self.delete_from(self.waiting.ready_to).await?;
        let mut conn = self.app.db.read(self.tenant_id).await?;
        let rows = staging::list_ready(&mut conn, self.tenant_id, self.work, &self.waiting).await?;
        self.ready_parts = staging::count_parts(&mut conn, self.tenant_id, self.work, &self.waiting).await?;
        self.ready = rows
            .into_iter()
            .map(|row| Ready {
                id: row.id,
                content: content_key(&row.content_hash),
                span: (row.start_char, row.end_char),
            })
            .collect();
        Ok(())
    }

    const fn version(&self) -> Version {
        Version::of(self.work, &self.waiting)
    }

    /// Brings in chunks of a part group by group.
    async fn add_chunks(&mut self, chunks: &[CutChunk]) -> Result<(), Halt> {
        self.token_count += chunks.iter().map(|chunk| chunk.row.token_count).sum::<i64>();
        let ready = self.ready.get(self.position..).unwrap_or_default();
        let pairs = chunks.iter().zip(ready);
        let there = pairs.take_while(|(chunk, ready)| ready.is(&chunk.row)).count();
        self.position += there;
        let mut left = &chunks[there..];
        if !left.is_empty() {
            self.cut_off().await?;
        }
        while !left.is_empty() {
            if self.turn.is_over(self.app, self.context).await? {
                return Err(Halt::TurnIsOver);
            }
            let (group, behind) = left.split_at(group_len(left));
            self.add_group(group).await?;
            left = behind;
        }
        Ok(())
    }

    /// Rows come before their points, but where both go in together: by them is found what the index may hold, whatever ends this
    /// attempt.
    async fn add_group(&mut self, group: &[CutChunk]) -> Result<(), Halt> {
        let new: Vec<(&Work, &CutChunk)> = group
            .iter()
            .filter(|chunk| !chunk.is_indexed)
            .map(|chunk| (self.work, chunk))
            .collect();
        let are_together = self.work.space.index_with_rows().is_some();
        let mut write = self.hold().await?;
        if new.is_empty() {
            self.insert(&mut write, group).await?;
        } else {
            if !are_together {
                self.insert(&mut write, group).await?;
            }
            write.commit().await?;
            let points = add_to_index(self.app, self.payer(), &new).await?;
            write = match self.hold().await {
                Ok(write) => write,
                Err(halt) => {
                    self.forget(&new).await?;
                    return Err(halt);
                }
            };
            if are_together {
                self.insert(&mut write, group).await?;
            }
            index_changes::put(&mut write, self.tenant_id, &self.work.space, points);
        }
        self.position += group.len();
        staging::set_ready(&mut write, self.tenant_id, self.version(), as_i64(self.position)).await?;
        if !self.is_counted_anew && as_i64(self.position) > self.waiting.ready_to {
            jobs::count_anew(&mut write, self.context).await?;
            self.is_counted_anew = true;
        }
        write.commit().await?;
        self.turn.note_gain();
        Ok(())
    }

    async fn insert(&self, write: &mut Write, group: &[CutChunk]) -> Result<()> {
        let rows: Vec<(&Work, &ChunkRow)> = group.iter().map(|chunk| (self.work, &chunk.row)).collect();
        insert_versioned(write, self.tenant_id, &rows, |_| self.waiting.number).await
    }

    const fn payer(&self) -> Payer {
        Payer {
            tenant_id: self.tenant_id,
            chatbot_id: self.work.chatbot_id,
            run_id: self.work.run_id,
        }
    }

    /// What was put into the index in vain is undone: its rows may have been dropped while it was on its way.
    async fn forget(&self, chunks: &[(&Work, &CutChunk)]) -> Result<()> {
        let (app, tenant_id, work) = (self.app, self.tenant_id, self.work);
        let mut write = app.db.write(tenant_id).await?;
        let shown = list_chunk_ids(&mut write, tenant_id, &[work]).await?;
        let shown = shown.get(&work.id).cloned().unwrap_or_default();
        let put = chunks.iter().map(|(_, chunk)| chunk.row.id).collect();
        undo_later(app, &mut write, tenant_id, work, put, &shown).await?;
        write.commit().await
    }

    /// Brings in the text of a part, all of whose chunks are in.
    async fn add_text(&mut self, text: &str) -> Result<(), Halt> {
        if self.part >= self.ready_parts {
            let mut write = self.hold().await?;
            let place = (self.waiting.number, self.part, self.start_char);
            staging::put_text(&mut write, self.tenant_id, self.work, place, text).await?;
            write.commit().await?;
            self.turn.note_gain();
        }
        self.part += 1;
        self.start_char += as_i64(text.chars().count());
        Ok(())
    }

    /// Where an earlier attempt read the file otherwise, or more of it, what it brought in goes from here on.
    async fn cut_off(&mut self) -> Result<(), Halt> {
        if self.ready.len() <= self.position && self.ready_parts <= self.part {
            return Ok(());
        }
        self.ready.truncate(self.position);
        self.ready_parts = self.ready_parts.min(self.part);
        let mut write = self.hold().await?;
        staging::set_ready(&mut write, self.tenant_id, self.version(), as_i64(self.position)).await?;
        staging::delete_text_from(&mut write, self.tenant_id, self.version(), self.part).await?;
        write.commit().await?;
        self.delete_from(as_i64(self.position)).await
    }

    async fn delete_from(&self, position: i64) -> Result<(), Halt> {
        let mut from = Some(position);
        while let Some(position) = from {
            let mut write = self.hold().await?;
            from = delete_some(self.app, &mut write, self.tenant_id, self.version(), position).await?;
            write.commit().await?;
        }
        Ok(())
    }

    /// A transaction in which this version is the document's own, and in the hands of this attempt.
    async fn hold(&self) -> Result<Write, Halt> {
        let mut write = self.app.db.write(self.tenant_id).await?;
        hold_wanted(&mut write, self.tenant_id, self.work).await?;
        match staging::find_holder(&mut write, self.tenant_id, self.work, &self.waiting).await? {
            Some(true) => Ok(write),
            Some(false) => Err(Halt::TakenOver),
            // A server that starts on a new index leaves what may have been in the lost one.
            None => Err(Halt::Superseded),
        }
    }

    /// Makes the version the one that answers.
    async fn show(mut self, title: &str, facts: &Facts, verdicts: &[Verdict]) -> Result<(), Halt> {
        self.cut_off().await?;
        let (app, tenant_id, work) = (self.app, self.tenant_id, self.work);
        let indexed = Indexed {
            title,
            chunk_count: as_i64(self.position),
            token_count: self.token_count,
            facts,
            read_with: &reader(app),
            embedding_model: work.space.model.as_deref().unwrap_or(operator::NO_MODEL),
        };
        let mut write = self.hold().await?;
        set_indexed(&mut write, tenant_id, work.id, indexed, app.clock.now()).await?;
        staging::show(&mut write, tenant_id, self.version()).await?;
        chunks::set_stale(&mut write, tenant_id, verdicts).await?;
        if self.waiting.was_begun {
            // An earlier attempt may have put some of it in with what was said of the document then.
            labels::tell_anew(app, &mut write, tenant_id, &work.stored()).await?;
        } else {
            labels::settle(app, &mut write, tenant_id, &[work.stored()]).await?;
        }
        // An earlier attempt may have put some of it into another index than answers now.
        let written = (!self.waiting.was_begun).then_some(work.space.as_ref());
        generations::note_gaps(app, &mut write, tenant_id, written, &[work.id]).await?;
        generations::cuts::note_indexed(app, &mut write, tenant_id, &[work.id]).await?;
        drop_staged_later(app, &mut write, tenant_id, &[work.id]).await?;
        let of_run = work.run_id.map(|_| work.source_id).into_iter().collect();
        sync::go_on_if_indexed(&mut write, tenant_id, &of_run, app.clock.now()).await?;
        write.commit().await?;
        app.wake_workers();
        Ok(())
    }
}

/// Chunks that go together: no more new ones than are embedded at once, and no more than one transaction puts in.
fn group_len(chunks: &[CutChunk]) -> usize {
    let mut new = 0;
    let fitting = chunks.iter().take(MOVED_AT_ONCE).take_while(|chunk| {
        new += usize::from(!chunk.is_indexed);
        new <= EMBEDDED_AT_ONCE
    });
    fitting.count()
}

/// Until the transaction ends this version is the document's own.
async fn hold_wanted(write: &mut Write, tenant_id: TenantId, work: &Work) -> Result<(), Halt> {
    let current = hold_current(write, tenant_id, &[work]).await?;
    if current.contains(&work.id) {
        Ok(())
    } else {
        Err(Halt::Superseded)
    }
}

/// What was brought in of a version that is not wanted any more goes, and the index is told what rows say of the document: it has
/// that as this version said.
async fn abandon(app: &App, tenant_id: TenantId, work: &Work) -> Result<()> {
    let mut write = app.db.write(tenant_id).await?;
    if staging::hold(&mut write, tenant_id, work.id).await?.is_some() {
        if set_queued_again(&mut write, tenant_id, work).await? {
            enqueue_alone(app, &mut write, tenant_id, work).await?;
        }
        drop_staged_later(app, &mut write, tenant_id, &[work.id]).await?;
        labels::tell_again(app, &mut write, tenant_id, work.id).await?;
    } else {
        index_changes::remove_documents(app, &mut write, tenant_id, &[work.id], Vec::new()).await?;
    }
    let of_run = work.run_id.map(|_| work.source_id).into_iter().collect();
    sync::go_on_if_indexed(&mut write, tenant_id, &of_run, app.clock.now()).await?;
    write.commit().await?;
    app.wake_workers();
    Ok(())
}

/// The document fails, and what was brought in for it goes, as in [`abandon`].
async fn fail(app: &App, tenant_id: TenantId, work: &Work, (code, message): Reason) -> Result<()> {
    let mut write = app.db.write(tenant_id).await?;
    let read_with = reader(app);
    let (version, now) = ((work.file_key.as_str(), read_with.as_str()), app.clock.now());
    store::set_failed(&mut write, tenant_id, work.id, version, (&code, &message), now).await?;
    drop_staged_later(app, &mut write, tenant_id, &[work.id]).await?;
    labels::tell_again(app, &mut write, tenant_id, work.id).await?;
    let of_run = work.run_id.map(|_| work.source_id).into_iter().collect();
    sync::go_on_if_indexed(&mut write, tenant_id, &of_run, now).await?;
    write.commit().await?;
    app.wake_workers();
    Ok(())
}
