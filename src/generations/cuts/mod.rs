//! Another cut of a source's documents: built beside the one that answers, compared with it, put in its place in one moment,
//! and taken back while the old one is kept. The embedding model stays.
//!
//! Here the rows differ, and the index with them: each chunk names its cut (`knowledge/cuts.rs`). Documents are indexed for the
//! live cut. What the others lack by that is noted with the same commit (`cut_gap`) and cut by a job. A document that the live cut
//! lacks, because another one was live when it changed, is not found until it is cut.

mod fill;
pub mod operator;
mod reclaim;
mod settle;
mod store;

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};
use sqlx::types::Json;

use super::record::Deed;
use super::{By, Comparison, MOST_LACKING, PATIENCE, RolledBack, state};
use crate::app::App;
use crate::db::{Conn, Write};
use crate::error::{Error, Result};
use crate::http::access::Reach;
use crate::id::{ChatbotId, CutId, DocumentId, SourceId, TenantId};
use crate::jobs;
use crate::knowledge;
use crate::knowledge::chunks::Chunking;

pub use fill::FillCut;
pub(super) use fill::unique_key as fill_key;
pub use reclaim::ReclaimCut;
pub use settle::SettleCut;
pub use store::share;
pub(super) use store::{insert_answer, list_answers};

/// A cut that was live is kept at least so long: no question that began with it lasts longer.
const LONGEST_USE: TimeDelta = TimeDelta::hours(1);

/// Cuts of one source that may be kept because questions may have begun with them.
const MOST_SPARE: usize = 3;

/// One way of cutting the documents of a source.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct Cut {
    pub id: CutId,
    pub tenant_id: TenantId,
    pub source_id: SourceId,
    pub chunking: Json<Chunking>,
    /// `building`, `ready`, `live`, `standby` or `retired`.
    pub state: String,
    /// Goes live by itself once it is complete.
    pub activates: bool,
    filled_to: Option<DocumentId>,
    pub(super) is_filled: bool,
    /// Chunks of the live cut when this one was begun, and how many of them are of documents that are cut.
    pub chunk_count: i64,
    pub done_count: i64,
    /// Documents that changed and are to be cut once more.
    pub lacking: i64,
    pub comparison: Option<Json<Comparison>>,
    pub created_at: DateTime<Utc>,
    pub ready_at: Option<DateTime<Utc>>,
    pub activated_at: Option<DateTime<Utc>>,
    pub left_at: Option<DateTime<Utc>>,
    pub rolled_back_at: Option<DateTime<Utc>>,
}

impl Cut {
    /// Made for a wish that another one may take the place of.
    fn is_tried(&self) -> bool {
        self.state == state::BUILDING || (self.state == state::READY && self.rolled_back_at.is_none())
    }

    /// Whether all documents are cut, but for so many that changed.
    const fn lacks_at_most(&self, most: i64) -> bool {
        self.is_filled && self.lacking <= most
    }

    /// Kept for a way back, or a way forth.
    fn is_spare(&self) -> bool {
        self.state == state::STANDBY || (self.state == state::READY && self.rolled_back_at.is_some())
    }
}

/// Notes, in the transaction that changes documents of the live cut, that the other cuts of their sources lack that, and queues
/// that they get it.
pub async fn note_gaps(
    app: &App,
    write: &mut Write,
    tenant_id: TenantId,
    documents: &[DocumentId],
) -> Result<()> {
    for id in store::insert_gaps_beside_live(write, tenant_id, documents).await? {
        fill::queue(app, write, tenant_id, id).await?;
    }
    Ok(())
}

/// Like [`note_gaps`], for documents that were indexed for the live cut: that one has all of them now.
pub async fn note_indexed(
    app: &App,
    write: &mut Write,
    tenant_id: TenantId,
    documents: &[DocumentId],
) -> Result<()> {
    store::close_live_gaps(write, tenant_id, documents).await?;
    note_gaps(app, write, tenant_id, documents).await
}

/// The cuts of a tenant's sources that hold chunks, and the latest of those that were given up; newest first.
pub(super) async fn list(conn: &mut Conn, tenant_id: TenantId) -> Result<Vec<Cut>> {
    store::list(conn, tenant_id).await
}

/// This cut, if the tenant has it.
pub async fn find(app: &App, tenant_id: TenantId, id: CutId) -> Result<Option<Cut>> {
    store::find(&mut app.db.read(tenant_id).await?, tenant_id, id).await
}

/// What came of a wish for a chunking.
enum Wish {
    /// One is begun, or under way.
    Building(Cut),
    /// The live cut is like this; something that was begun for another wish was given up.
    GaveUp(Cut),
    /// The live cut is like this.
    Holds,
}

/// Begins to cut a source's documents otherwise, or says what is under way already. Where they are cut like this, what was begun
/// for another wish is given up.
pub async fn begin(
    app: &App,
    reach: Reach,
    (source_id, chunking): (SourceId, Chunking),
    activates: bool,
    by: By<'_>,
) -> Result<Cut> {
    chunking.check()?;
    let tenant_id = reach.tenant_id;
    let mut write = app.db.write(tenant_id).await?;
    let source = knowledge::sources::hold(&mut write, reach, source_id).await?;
    let present = source.chunking.unwrap_or_default();
    let place = (tenant_id, source_id);
    let cut = match begin_in(app, &mut write, place, (&present, &chunking), activates, by).await? {
        Wish::Building(cut) | Wish::GaveUp(cut) => cut,
        Wish::Holds => {
            return Err(Error::conflict(
                "generation_current",
                "the documents of this source are cut like this already: give another chunking",
            ));
        }
    };
    // The source says what answers, or goes live by itself. An earlier wish for that may have been given up.
    let wanted = cut.activates.then_some(&cut.chunking.0);
    store::set_source_chunking(&mut write, place, wanted).await?;
    write.commit().await?;
    app.wake_workers();
    Ok(cut)
}

/// Brings the documents of a source to another cut, which goes live by itself, in the transaction of the caller, who holds the
/// source. A source that has none yet is simply cut like this from now on.
pub async fn want(
    app: &App,
    write: &mut Write,
    (tenant_id, source_id): (TenantId, SourceId),
    (present, wanted): (&Chunking, &Chunking),
    by: By<'_>,
) -> Result<()> {
    if store::has_something(write, tenant_id, source_id).await? {
        begin_in(app, write, (tenant_id, source_id), (present, wanted), true, by).await?;
    }
    Ok(())
}

/// Begins one, unless it is there. `present` is what holds for a source that was never cut otherwise.
async fn begin_in(
    app: &App,
    write: &mut Write,
    (tenant_id, source_id): (TenantId, SourceId),
    (present, wanted): (&Chunking, &Chunking),
    activates: bool,
    by: By<'_>,
) -> Result<Wish> {
    let now = app.clock.now();
    let mut open = store::hold_open(write, tenant_id, source_id).await?;
    if open.is_empty() {
        // Documents are committed before this, or see what is begun.
        store::hold_source_for_all(write, tenant_id, source_id).await?;
        open.push(store::insert_first(write, tenant_id, source_id, present, now).await?);
    }
    let known = open.iter().find(|cut| cut.chunking.0 == *wanted).cloned();
    let known_id = known.as_ref().map(|cut| cut.id);
    let mut has_given_up = store::give_up_wishes(write, (tenant_id, source_id), known_id).await?;
    for cut in open
        .iter()
        .filter(|cut| cut.is_tried() && Some(cut.id) != known_id)
    {
        retire(app, write, cut, by).await?;
        has_given_up = true;
    }
    let cut = match known {
        Some(live) if live.state == state::LIVE => {
            return Ok(if has_given_up {
                Wish::GaveUp(live)
            } else {
                Wish::Holds
            });
        }
        Some(mut known) => {
            if activates && !known.activates {
                known.activates = true;
                store::set_activates(write, tenant_id, known.id).await?;
            }
            known
        }
        None => {
            app.disk.check_room()?;
            make_room(app, write, &open).await?;
            store::insert_building(write, (tenant_id, source_id), wanted, activates, now).await?
        }
    };
    fill::queue(app, write, tenant_id, cut.id).await?;
    let after = json!({ "source_id": source_id, "chunking": cut.chunking, "activates": cut.activates });
    record(app, write, ("generation.begin", &cut), (None, Some(after)), by).await?;
    Ok(Wish::Building(cut))
}

/// Lets a cut that is complete answer from now on. Documents that changed a moment ago follow.
pub async fn activate(app: &App, reach: Reach, id: CutId, by: By<'_>) -> Result<Cut> {
    let (mut write, open, cut) = hold(app, reach, id).await?;
    if cut.state == state::LIVE {
        return Ok(cut);
    }
    if cut.state == state::BUILDING || !cut.lacks_at_most(MOST_LACKING) {
        return Err(Error::conflict(
            "generation_not_ready",
            "this generation is not complete yet: wait until its state is ready and it lacks nothing",
        ));
    }
    swap(app, &mut write, &open, (&cut, state::STANDBY)).await?;
    let lines = (
        Some(json!({ "state": cut.state })),
        Some(json!({ "state": state::LIVE })),
    );
    record(app, &mut write, ("generation.activate", &cut), lines, by).await?;
    finish(app, write, &cut).await
}

/// Takes a cut that is live back: the one before it answers again, at once. Documents that changed meanwhile follow.
pub async fn roll_back(app: &App, reach: Reach, id: CutId, by: By<'_>) -> Result<RolledBack<Cut>> {
    let (mut write, open, cut) = hold(app, reach, id).await?;
    if cut.state != state::LIVE {
        return Err(Error::conflict(
            "generation_not_live",
            format!(
                "only a generation that is live can be taken back; this one is {}",
                cut.state
            ),
        ));
    }
    let Some(before) = spares(&open).max_by_key(|other| other.left_at) else {
        return Err(Error::conflict(
            "no_previous_generation",
            "the generation before this one is not kept any more: begin a new one with the chunking that is wanted",
        ));
    };
    swap(app, &mut write, &open, (before, state::READY)).await?;
    store::set_rolled_back(&mut write, cut.tenant_id, id, app.clock.now()).await?;
    let after = json!({ "state": state::READY, "live": before.id, "lacking": before.lacking });
    let lines = (Some(json!({ "state": state::LIVE })), Some(after));
    record(app, &mut write, ("generation.rollback", &cut), lines, by).await?;
    let live = store::find(&mut write, before.tenant_id, before.id).await?;
    let former = finish(app, write, &cut).await?;
    let live = live.ok_or(Error::NotFound("generation"))?;
    Ok(RolledBack { former, live })
}

/// A transaction in which nobody else changes which cut of this one's source is live; with all that there are.
async fn hold(app: &App, reach: Reach, id: CutId) -> Result<(Write, Vec<Cut>, Cut)> {
    let mut write = app.db.write(reach.tenant_id).await?;
    let cut = store::find(&mut write, reach.tenant_id, id).await?;
    let cut = cut.ok_or(Error::NotFound("generation"))?;
    // The source comes before its cuts wherever both are held.
    knowledge::sources::hold(&mut write, reach, cut.source_id).await?;
    let open = store::hold_open(&mut write, reach.tenant_id, cut.source_id).await?;
    let cut = open.iter().find(|cut| cut.id == id).cloned();
    Ok((write, open, cut.ok_or(Error::NotFound("generation"))?))
}

async fn finish(app: &App, mut write: Write, cut: &Cut) -> Result<Cut> {
    let now = store::find(&mut write, cut.tenant_id, cut.id).await?;
    write.commit().await?;
    app.wake_workers();
    now.ok_or(Error::NotFound("generation"))
}

/// Cuts that answered before the one that is live.
fn spares(open: &[Cut]) -> impl Iterator<Item = &Cut> {
    open.iter().filter(|cut| cut.state == state::STANDBY)
}

/// Gives those of these up that no question uses any more; how many are left.
async fn retire_old(app: &App, write: &mut Write, spares: impl Iterator<Item = &Cut>) -> Result<usize> {
    let used_from = app.clock.now() - LONGEST_USE;
    let mut left = 0;
    for spare in spares {
        if spare.left_at.is_some_and(|left_at| left_at <= used_from) {
            retire(app, write, spare, By::Itself).await?;
        } else {
            left += 1;
        }
    }
    Ok(left)
}

/// Refuses one more where as many are kept as may be: each has all chunks of the source. The latest is the way back.
async fn make_room(app: &App, write: &mut Write, open: &[Cut]) -> Result<()> {
    let latest = spares(open)
        .max_by_key(|spare| spare.left_at)
        .map(|spare| spare.id);
    let others = spares(open).filter(|spare| Some(spare.id) != latest);
    if retire_old(app, write, others).await? + usize::from(latest.is_some()) < MOST_SPARE {
        return Ok(());
    }
    Err(Error::conflict(
        "too_many_generations",
        format!(
            "the documents of this source were cut in {MOST_SPARE} other ways within the last hour, and each is kept so long because \
             questions may be under way with it: try again later, or take the present one back"
        ),
    ))
}

/// Makes a cut live; the one that was gets the other state. `open` are all of the source, held.
async fn swap(app: &App, write: &mut Write, open: &[Cut], (cut, former): (&Cut, &'static str)) -> Result<()> {
    // One way back is enough.
    retire_old(app, write, spares(open).filter(|spare| spare.id != cut.id)).await?;
    store::swap_live(write, cut, former, app.clock.now()).await?;
    knowledge::cuts::begin_waiting_anew(app, write, cut.tenant_id, cut.source_id).await?;
    if cut.lacking > 0 {
        fill::queue(app, write, cut.tenant_id, cut.id).await?;
    }
    let settling = SettleCut {
        cut_id: cut.id,
        after: None,
    };
    jobs::enqueue(app, write, cut.tenant_id, &settling).await
}

/// Gives a cut up, and queues that its chunks are removed.
async fn retire(app: &App, write: &mut Write, cut: &Cut, by: By<'_>) -> Result<()> {
    store::retire(write, cut.tenant_id, cut.id, app.clock.now()).await?;
    let deed = Deed::retirement(cut.id.to_string(), &cut.state);
    by.record(app, write, cut.tenant_id, deed).await?;
    let job = ReclaimCut {
        source_id: cut.source_id,
        cut_id: cut.id,
    };
    jobs::enqueue(app, write, cut.tenant_id, &job).await
}

/// Writes down that a cut went live by itself.
async fn record_own(app: &App, write: &mut Write, cut: &Cut) -> Result<()> {
    let before = json!({ "state": cut.state });
    let after = json!({ "state": state::LIVE, "source_id": cut.source_id, "chunking": cut.chunking });
    let lines = (Some(before), Some(after));
    record(app, write, ("generation.activate", cut), lines, By::Itself).await
}

async fn record(
    app: &App,
    write: &mut Write,
    (action, cut): (&'static str, &Cut),
    (before, after): (Option<Value>, Option<Value>),
    by: By<'_>,
) -> Result<()> {
    let deed = Deed {
        action,
        id: cut.id.to_string(),
        before,
        after,
    };
    by.record(app, write, cut.tenant_id, deed).await
}

/// The live cut's documents and those of this one are compared by questions of this chatbot.
async fn find_chatbot(conn: &mut Conn, cut: &Cut) -> Result<Option<ChatbotId>> {
    store::find_chatbot(conn, cut.tenant_id, cut.source_id).await
}
