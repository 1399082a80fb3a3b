//! Puts a tenant's chunks into a generation that lacks some: all of them while it is built or after its index was lost,
//! later those of documents that changed. It goes on where it was, whatever ended it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::json;
use sqlx::types::Uuid;

use super::compare::{self, Candidate, Kept};
use super::{By, Deed, Generation, MOST_LACKING, PATIENCE, Place, state, store};
use crate::app::{App, Space};
use crate::db::Write;
use crate::error::{Error, Result};
use crate::id::{DocumentId, GenerationId, TenantId};
use crate::jobs::{self, Job, JobContext, Outcome, Priority};
use crate::knowledge::Aim;
use crate::knowledge::stored_chunks::{self, Portion};

/// So long a job fills before others have their turn.
const TURN: Duration = Duration::from_secs(60);

/// When a month's limit that was reached is tried again.
const BUDGET_RETRY: Duration = Duration::from_secs(3600);

/// When a generation is taken up again that this process has no model for: another one may have it.
const NO_MODEL_RETRY: Duration = Duration::from_secs(15);

/// When a generation is taken up again in whose index earlier points are still being removed.
const RECLAIMING_RETRY: Duration = Duration::from_secs(5);

/// Fills a generation.
#[derive(Debug, Serialize, Deserialize)]
pub struct FillGeneration {
    pub generation_id: GenerationId,
}

/// How far a turn came.
pub(super) enum Progress {
    Done,
    Unfinished,
}

/// Queues that a generation is filled, in the caller's transaction.
pub(super) async fn queue(
    app: &App,
    write: &mut Write,
    tenant_id: TenantId,
    generation_id: GenerationId,
) -> Result<()> {
    let job = FillGeneration { generation_id };
    let key = unique_key(generation_id);
    jobs::enqueue_once(app, write, tenant_id, &job, &key, app.clock.now()).await
}

pub(super) fn unique_key(generation_id: GenerationId) -> String {
    format!("fill:{generation_id}")
}

impl Job for FillGeneration {
    const KIND: &'static str = "fill_generation";
    const PRIORITY: Priority = Priority::Bulk;
    const TIMEOUT: Duration = Duration::from_secs(30 * 60);

    async fn run(self, app: App, context: JobContext) -> Outcome {
        outcome(fill(&app, &context, self.generation_id).await)
    }
}

pub(super) fn outcome(ended: Result<Progress>) -> Outcome {
    match ended {
        Ok(Progress::Unfinished) => Outcome::TurnOver,
        Err(Error::BudgetExceeded { message, .. }) => Outcome::Outage {
            reason: message.into_owned(),
            delay: BUDGET_RETRY,
        },
        ended => ended.map(drop).into(),
    }
}

async fn fill(app: &App, context: &JobContext, id: GenerationId) -> Result<Progress> {
    let tenant_id = context.tenant()?;
    let started = Instant::now();
    let (mut closings, mut was_filled) = (0, None);
    loop {
        let generation = store::find(&mut app.db.read(tenant_id).await?, tenant_id, id).await?;
        let Some(generation) = generation.filter(|generation| generation.state != state::RETIRED) else {
            return Ok(Progress::Done);
        };
        let space = app.space(&generation.space).await?;
        check_fillable(app, &generation, &space).await?;
        let gaps = match generation.is_filled {
            true => store::list_gaps(&mut app.db.read(tenant_id).await?, tenant_id, id).await?,
            false => Vec::new(),
        };
        let is_whole = generation.is_filled && gaps.is_empty();
        closings += usize::from(!gaps.is_empty());
        let put_in = match (generation.is_filled, gaps.is_empty()) {
            (false, _) => fill_on(app, generation.clone(), &space, started).await?,
            (true, false) => close_gaps(app, generation.clone(), &space, gaps, started).await?,
            (true, true) => Progress::Done,
        };
        // With a slow model a whole turn is one closing; what is asked to compare has its time behind it.
        let closed_all_turn = *was_filled.get_or_insert(generation.is_filled) && started.elapsed() >= TURN;
        let since = if closed_all_turn { Instant::now() } else { started };
        let is_impatient = generation.is_filled && closings > PATIENCE || closed_all_turn;
        let most_lacking = if is_impatient { MOST_LACKING } else { 0 };
        let progress = match put_in {
            _ if is_whole || is_impatient => {
                match settle(app, &generation, &space, since, most_lacking).await? {
                    Settled::Yes => return Ok(Progress::Done),
                    Settled::NotYet => Progress::Done,
                    Settled::TurnIsOver => Progress::Unfinished,
                }
            }
            put_in => put_in,
        };
        if matches!(progress, Progress::Unfinished) || started.elapsed() >= TURN {
            return Ok(Progress::Unfinished);
        }
    }
}

/// Nothing is put in while what an earlier generation left in the index is removed, nor by a process that cannot embed for
/// it, or has another making of the index than it is to be filled in: it gives the work back, and no attempt counts.
pub(super) async fn check_fillable(app: &App, generation: &Generation, space: &Space) -> Result<()> {
    space.check_making(generation.making.as_deref())?;
    let wait = |code, message: &'static str, retry_after| Error::Unavailable {
        code,
        message: message.into(),
        retry_after,
        source: None,
    };
    if space.lacks_model() {
        return Err(wait(
            "embedding_unavailable",
            "the embedding model of this generation cannot be loaded here",
            NO_MODEL_RETRY,
        ));
    }
    let mut conn = app.db.read(generation.tenant_id).await?;
    if store::is_reclaiming(
        &mut conn,
        generation.tenant_id,
        &generation.space,
        app.clock.now(),
    )
    .await?
    {
        return Err(wait(
            "generation_reclaimed",
            "what an earlier generation left in its index is being removed",
            RECLAIMING_RETRY,
        ));
    }
    Ok(())
}

/// Puts in one document after the other, in the order of their ids. Those that came or changed meanwhile are gaps.
async fn fill_on(app: &App, mut generation: Generation, space: &Space, started: Instant) -> Result<Progress> {
    let tenant_id = generation.tenant_id;
    let mut conn = app.db.read(tenant_id).await?;
    let portions = stored_chunks::list_portions(&mut conn, tenant_id, generation.filled_to).await?;
    drop(conn);
    let mut done = generation.done_count;
    for portion in portions {
        done += put(app, &mut generation, space, &portion, None).await?;
        if started.elapsed() >= TURN && !portion.is_end_of_documents {
            return Ok(Progress::Unfinished);
        }
        if !portion.is_end_of_documents {
            continue;
        }
        let last = portion.documents.last().copied();
        if !note(app, &mut generation, (last, false, done)).await? {
            return Ok(Progress::Done);
        }
        if started.elapsed() >= TURN {
            return Ok(Progress::Unfinished);
        }
    }
    let filled_to = generation.filled_to;
    note(app, &mut generation, (filled_to, true, done)).await?;
    Ok(Progress::Done)
}

/// Notes that all chunks are in that there were when it was looked at; what came or changed meanwhile are gaps.
pub(super) async fn note_filled(app: &App, generation: &mut Generation) -> Result<bool> {
    let (filled_to, done) = (generation.filled_to, generation.chunk_count);
    note(app, generation, (filled_to, true, done)).await
}

async fn note(
    app: &App,
    generation: &mut Generation,
    (filled_to, is_filled, done): (Option<DocumentId>, bool, i64),
) -> Result<bool> {
    let mut write = app.db.write(generation.tenant_id).await?;
    let is_ours = store::set_filled(&mut write, generation, (filled_to, is_filled, done)).await?;
    write.commit().await?;
    generation.filled_to = filled_to;
    Ok(is_ours)
}

/// Puts in what changed of some documents.
async fn close_gaps(
    app: &App,
    mut generation: Generation,
    space: &Space,
    gaps: Vec<(DocumentId, Uuid)>,
    started: Instant,
) -> Result<Progress> {
    let tenant_id = generation.tenant_id;
    let ids: Vec<DocumentId> = gaps.iter().map(|(id, _)| *id).collect();
    let marks: HashMap<DocumentId, Uuid> = gaps.into_iter().collect();
    let mut conn = app.db.read(tenant_id).await?;
    let portions = stored_chunks::list_portions_of(&mut conn, tenant_id, &ids).await?;
    drop(conn);
    for portion in portions {
        let closed: Vec<(DocumentId, Uuid)> = portion
            .documents
            .iter()
            .filter_map(|id| Some((*id, *marks.get(id)?)))
            .collect();
        let mark = closed.first().map(|(_, mark)| *mark);
        put(app, &mut generation, space, &portion, mark).await?;
        if portion.is_end_of_documents {
            let mut write = app.db.write(tenant_id).await?;
            store::delete_gaps(&mut write, tenant_id, generation.id, &closed).await?;
            write.commit().await?;
        }
        if started.elapsed() >= TURN {
            return Ok(Progress::Unfinished);
        }
    }
    Ok(Progress::Done)
}

/// Puts in a portion, unless an earlier turn did; how many chunks it put in. Of a document of many chunks, how far it is in is
/// kept.
async fn put(
    app: &App,
    generation: &mut Generation,
    space: &Space,
    portion: &Portion,
    mark: Option<Uuid>,
) -> Result<i64> {
    let tenant_id = generation.tenant_id;
    if generation.place.is_past(portion, mark) {
        return Ok(portion.to_position - portion.from_position);
    }
    let chunks = stored_chunks::list(&mut app.db.read(tenant_id).await?, tenant_id, portion).await?;
    let count = chunks.len() as i64;
    stored_chunks::put(app, tenant_id, space, chunks).await?;
    if !portion.is_end_of_documents {
        generation.place = Place {
            place_document: portion.documents.first().copied(),
            place_mark: mark,
            place_position: Some(portion.to_position),
        };
        let mut write = app.db.write(tenant_id).await?;
        store::set_place(&mut write, generation, generation.place).await?;
        write.commit().await?;
    }
    Ok(count)
}

/// What came of settling.
enum Settled {
    Yes,
    /// Something came in between: another look is due.
    NotYet,
    TurnIsOver,
}

/// All is in, but for so many documents that changed: a generation that was being built is compared with the live one, is ready, and
/// goes live if it is to.
async fn settle(
    app: &App,
    generation: &Generation,
    space: &Arc<Space>,
    started: Instant,
    most_lacking: i64,
) -> Result<Settled> {
    let (tenant_id, id) = (generation.tenant_id, generation.id);
    if generation.state == state::BUILDING && generation.comparison.is_none() {
        let is_over = || started.elapsed() >= TURN;
        let candidate = Candidate {
            tenant_id,
            kept: Kept::Generation(id),
            aim: Aim {
                space: space.clone(),
                cut: None,
            },
            chatbot_id: None,
        };
        let Some(comparison) = compare::compare(app, &candidate, is_over).await? else {
            return Ok(Settled::TurnIsOver);
        };
        let mut write = app.db.write(tenant_id).await?;
        store::set_comparison(&mut write, tenant_id, id, &comparison).await?;
        store::delete_answers(&mut write, tenant_id, id).await?;
        write.commit().await?;
        return Ok(Settled::NotYet);
    }
    let mut write = app.db.write(tenant_id).await?;
    store::hold_live(&mut write, tenant_id).await?;
    // As it is now, and stays until this is committed.
    let Some(generation) = store::find(&mut write, tenant_id, id).await? else {
        return Ok(Settled::Yes);
    };
    if generation.state == state::RETIRED {
        return Ok(Settled::Yes);
    }
    if !generation.lacks_at_most(most_lacking) {
        return Ok(Settled::NotYet);
    }
    let now = app.clock.now();
    store::set_ready(&mut write, tenant_id, id, now).await?;
    let activates = generation.activates && generation.state != state::LIVE;
    if activates {
        store::swap_live(&mut write, tenant_id, (id, state::STANDBY), now).await?;
        let deed = Deed {
            action: "generation.activate",
            id: id.to_string(),
            before: Some(json!({ "state": generation.state })),
            after: Some(json!({ "state": state::LIVE, "embedding": generation.space })),
        };
        By::Itself.record(app, &mut write, tenant_id, deed).await?;
    }
    write.commit().await?;
    if activates {
        tracing::info!(tenant.id = %tenant_id, generation.id = %id, space = generation.space, "a new generation answers");
    }
    Ok(if generation.lacking == 0 {
        Settled::Yes
    } else {
        Settled::NotYet
    })
}
