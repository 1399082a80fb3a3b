//! Cuts a source's documents for a cut that lacks some: all of them while it is built, later those that changed. It goes on where
//! it was, whatever ended it.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use sqlx::types::Uuid;

use super::super::fill::{Progress, outcome};
use super::{Cut, MOST_LACKING, PATIENCE, record_own, state, store, swap};
use crate::app::App;
use crate::db::Write;
use crate::error::{Error, Result};
use crate::generations;
use crate::generations::compare::{self, Candidate, Kept};
use crate::http::access::Reach;
use crate::id::{CutId, DocumentId, TenantId};
use crate::jobs::{self, Job, JobContext, Outcome, Priority};
use crate::knowledge::indexing::beside::{self, Put, Target};
use crate::knowledge::{self, Aim};

/// So long a job cuts before others have their turn.
const TURN: Duration = Duration::from_secs(60);

/// Documents that are cut before it is noted how far that is.
const DOCUMENTS_AT_ONCE: i64 = 32;

/// When a job looks again whether another one still fills the cut.
const BUSY_RETRY: Duration = Duration::from_secs(5);

/// Fills a cut.
#[derive(Debug, Serialize, Deserialize)]
pub struct FillCut {
    pub cut_id: CutId,
}

/// Queues that a cut is filled, in the caller's transaction.
pub(super) async fn queue(app: &App, write: &mut Write, tenant_id: TenantId, cut_id: CutId) -> Result<()> {
    let key = unique_key(cut_id);
    jobs::enqueue_once(app, write, tenant_id, &FillCut { cut_id }, &key, app.clock.now()).await
}

pub(in crate::generations) fn unique_key(cut_id: CutId) -> String {
    format!("fill_cut:{cut_id}")
}

impl Job for FillCut {
    const KIND: &'static str = "fill_cut";
    const PRIORITY: Priority = Priority::Bulk;
    const TIMEOUT: Duration = Duration::from_secs(30 * 60);

    async fn run(self, app: App, context: JobContext) -> Outcome {
        outcome(fill(&app, &context, self.cut_id).await)
    }
}

async fn fill(app: &App, context: &JobContext, id: CutId) -> Result<Progress> {
    let tenant_id = context.tenant()?;
    let started = Instant::now();
    let own = (unique_key(id), context.job_id);
    let mut conn = app.db.read(tenant_id).await?;
    if store::is_being_filled(&mut conn, tenant_id, (&own.0, own.1), app.clock.now()).await? {
        return Err(busy());
    }
    drop(conn);
    generations::check_live_making(app, tenant_id).await?;
    let (mut closings, mut was_filled) = (0, None);
    loop {
        let cut = store::find(&mut app.db.read(tenant_id).await?, tenant_id, id).await?;
        let Some(cut) = cut.filter(|cut| cut.state != state::RETIRED) else {
            return Ok(Progress::Done);
        };
        let step = match cut.is_filled {
            true => close_gaps(app, context, &cut).await?,
            false => fill_on(app, context, &cut).await?,
        };
        closings += usize::from(cut.is_filled);
        // With a slow model a whole turn is one closing; what is asked to compare has its time behind it.
        let closed_all_turn = *was_filled.get_or_insert(cut.is_filled) && started.elapsed() >= TURN;
        let since = if closed_all_turn { Instant::now() } else { started };
        let is_impatient = cut.is_filled && closings > PATIENCE || closed_all_turn;
        let step = match step {
            Step::NothingToDo => settle(app, &cut, since, 0).await?,
            Step::Done | Step::TurnIsOver if is_impatient => settle(app, &cut, since, MOST_LACKING).await?,
            step => step,
        };
        match step {
            Step::TurnIsOver => return Ok(Progress::Unfinished),
            Step::NothingToDo => return Ok(Progress::Done),
            Step::Done => {}
        }
        if started.elapsed() >= TURN {
            return Ok(Progress::Unfinished);
        }
    }
}

/// One job at a time fills a cut: what two cut of a document would be paid twice.
fn busy() -> Error {
    Error::Unavailable {
        code: "generation_busy",
        message: "another job fills this generation; this is tried again by itself".into(),
        retry_after: BUSY_RETRY,
        source: None,
    }
}

/// What came of a step.
enum Step {
    Done,
    NothingToDo,
    TurnIsOver,
}

/// Cuts the next documents, in the order of their ids. Those that came or changed meanwhile are gaps.
async fn fill_on(app: &App, context: &JobContext, cut: &Cut) -> Result<Step> {
    let mut conn = app.db.read(cut.tenant_id).await?;
    let documents = store::list_documents(&mut conn, cut, cut.filled_to, DOCUMENTS_AT_ONCE).await?;
    drop(conn);
    let ids: Vec<DocumentId> = documents.iter().map(|(id, _)| *id).collect();
    let put = put(app, context, cut, &ids).await?;
    let reached = &documents[..put.reached];
    let done = cut.done_count + reached.iter().map(|(_, chunks)| chunks).sum::<i64>();
    let filled_to = reached.last().map(|(id, _)| *id).or(cut.filled_to);
    let mut write = app.db.write(cut.tenant_id).await?;
    let changed: Vec<DocumentId> = put.changed.iter().copied().collect();
    // Who changes documents holds their cuts before noting gaps, too.
    store::hold(&mut write, cut.tenant_id, cut.id).await?;
    store::insert_gaps(&mut write, cut, &changed).await?;
    store::set_filled(&mut write, cut, (filled_to, ids.is_empty(), done)).await?;
    write.commit().await?;
    step_after(put)
}

/// How it goes on when what was put in is noted.
fn step_after(put: Put) -> Result<Step> {
    match put.failure {
        Some(error) => Err(error),
        None if put.is_unfinished => Ok(Step::TurnIsOver),
        None => Ok(Step::Done),
    }
}

/// Cuts documents that changed.
async fn close_gaps(app: &App, context: &JobContext, cut: &Cut) -> Result<Step> {
    let mut conn = app.db.read(cut.tenant_id).await?;
    let gaps = store::list_gaps(&mut conn, cut, takes_queued(cut), DOCUMENTS_AT_ONCE).await?;
    drop(conn);
    if gaps.is_empty() {
        return Ok(Step::NothingToDo);
    }
    let ids: Vec<DocumentId> = gaps.iter().map(|(id, _)| *id).collect();
    let put = put(app, context, cut, &ids).await?;
    let reached = gaps.into_iter().take(put.reached);
    let closed: Vec<(DocumentId, Uuid)> = reached.filter(|(id, _)| !put.changed.contains(id)).collect();
    let (tenant_id, source_id) = (cut.tenant_id, cut.source_id);
    let mut write = app.db.write(tenant_id).await?;
    // None goes live meanwhile: whoever makes it live has all of its documents settled.
    store::share(&mut write, tenant_id, cut.id).await?;
    if store::is_live(&mut write, tenant_id, cut.id).await? {
        let ids: Vec<DocumentId> = closed.iter().map(|(id, _)| *id).collect();
        knowledge::cuts::settle(&mut write, tenant_id, (source_id, cut.id), &ids).await?;
    }
    store::delete_gaps(&mut write, cut, &closed).await?;
    write.commit().await?;
    step_after(put)
}

/// A document that is about to be indexed is cut then, and only then; but none holds up a cut that is to go live.
fn takes_queued(cut: &Cut) -> bool {
    cut.activates && cut.state != state::LIVE
}

async fn put(app: &App, context: &JobContext, cut: &Cut, ids: &[DocumentId]) -> Result<Put> {
    let target = Target {
        tenant_id: cut.tenant_id,
        source_id: cut.source_id,
        cut: cut.id,
        chunking: cut.chunking.0.clone(),
    };
    beside::put(app, context, &target, ids).await
}

/// All is in, but for so many documents that changed: a cut that was being built is compared with the live one, is ready, and goes
/// live if it is to.
async fn settle(app: &App, cut: &Cut, started: Instant, most_lacking: i64) -> Result<Step> {
    let tenant_id = cut.tenant_id;
    if cut.state == state::BUILDING && cut.comparison.is_none() {
        return compare(app, cut, started).await;
    }
    let mut write = app.db.write(tenant_id).await?;
    knowledge::sources::hold(&mut write, Reach::whole(tenant_id), cut.source_id).await?;
    let open = store::hold_open(&mut write, tenant_id, cut.source_id).await?;
    // As it is now that nobody else changes it.
    let Some(cut) = open.iter().find(|other| other.id == cut.id) else {
        return Ok(Step::NothingToDo);
    };
    if !cut.lacks_at_most(most_lacking) {
        // Something came in between, or will be indexed first.
        let next = store::list_gaps(&mut write, cut, takes_queued(cut), 1).await?;
        return Ok(if next.is_empty() && cut.is_filled {
            Step::NothingToDo
        } else {
            Step::Done
        });
    }
    store::set_ready(&mut write, tenant_id, cut.id, app.clock.now()).await?;
    let activates = cut.activates && cut.state != state::LIVE;
    if activates {
        swap(app, &mut write, &open, (cut, state::STANDBY)).await?;
        record_own(app, &mut write, cut).await?;
    }
    write.commit().await?;
    app.wake_workers();
    if activates {
        tracing::info!(tenant.id = %tenant_id, source.id = %cut.source_id, generation.id = %cut.id, "another cut of a source's documents answers");
    }
    Ok(if cut.lacking == 0 {
        Step::NothingToDo
    } else {
        Step::Done
    })
}

async fn compare(app: &App, cut: &Cut, started: Instant) -> Result<Step> {
    let tenant_id = cut.tenant_id;
    let chatbot_id = super::find_chatbot(&mut app.db.read(tenant_id).await?, cut).await?;
    let candidate = Candidate {
        tenant_id,
        kept: Kept::Cut(cut.id),
        aim: Aim {
            space: generations::live_now(app, tenant_id).await?.space,
            cut: Some((cut.source_id, cut.id)),
        },
        chatbot_id,
    };
    let is_over = || started.elapsed() >= TURN;
    let Some(comparison) = compare::compare(app, &candidate, is_over).await? else {
        return Ok(Step::TurnIsOver);
    };
    let mut write = app.db.write(tenant_id).await?;
    store::set_comparison(&mut write, tenant_id, cut.id, &comparison).await?;
    write.commit().await?;
    Ok(Step::Done)
}
