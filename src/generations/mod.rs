//! Generations: a tenant's chunks in the index of one embedding model. One is live and answers; another one is built beside
//! it, is compared with it, takes its place in one moment, and can be taken back while the old one is kept.
//!
//! The rows of chunks are the same for all generations. Documents are put into the live one as they are indexed. What the
//! others lack by that is noted with the same commit (`generation_gap`) and put in by a job, so that an embedding model
//! that is tried holds up no document. What is removed is removed from all.

mod compare;
pub mod cuts;
mod fill;
mod listing;
mod mend;
pub mod operator;
mod record;
pub mod routes;
mod store;

use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::json;
use sqlx::types::{Json, Uuid};

use crate::app::{App, Space, share_noting};
use crate::config::OnModelChange;
use crate::db::{Conn, Write};
use crate::error::{Error, Result};
use crate::id::{ChunkId, DocumentId, GenerationId, TenantId};
use crate::knowledge::stored_chunks::Portion;

pub use compare::Comparison;
pub use fill::FillGeneration;
pub use listing::{list, list_hindrances};
pub use mend::{MendIndex, ReclaimGeneration};
pub use record::By;
use record::Deed;

/// A document of any size has come in so long after it was begun.
const LONGEST_WAY_IN: TimeDelta = TimeDelta::days(7);

/// One that was made ready and is not asked for is given up so long after that: each document that comes is put into it as well.
const UNUSED_KEPT: TimeDelta = TimeDelta::days(14);

/// Where documents change as fast as they are put in, a generation goes live without the last changes, of so many documents at most,
/// after so many attempts to put all of them in, or a whole turn of them.
const MOST_LACKING: i64 = 32;
const PATIENCE: usize = 3;

/// Where a generation stands.
pub(crate) mod state {
    pub const BUILDING: &str = "building";
    pub const READY: &str = "ready";
    pub const LIVE: &str = "live";
    pub const STANDBY: &str = "standby";
    pub const RETIRED: &str = "retired";
}

/// A tenant's chunks in the index of one embedding model.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct Generation {
    pub id: GenerationId,
    pub tenant_id: TenantId,
    /// The embedding model, with the length of its vectors.
    pub space: String,
    /// The making of its index that documents are put into.
    pub(crate) making: Option<String>,
    /// `building`, `ready`, `live`, `standby` or `retired`.
    pub state: String,
    /// Goes live by itself once it is complete.
    pub activates: bool,
    pub(crate) filled_to: Option<DocumentId>,
    pub(crate) is_filled: bool,
    /// The index was found to hold less than the rows say, and was not compared as a whole since.
    pub(crate) is_short: bool,
    #[sqlx(flatten)]
    pub(crate) place: Place,
    /// How often what it held was lost.
    pub(crate) losses: i64,
    /// Chunks when it was begun, and how many of them are in.
    pub chunk_count: i64,
    pub done_count: i64,
    /// Documents that changed and are to be put in once more.
    pub lacking: i64,
    pub comparison: Option<Json<Comparison>>,
    pub created_at: DateTime<Utc>,
    pub ready_at: Option<DateTime<Utc>>,
    pub activated_at: Option<DateTime<Utc>>,
    pub left_at: Option<DateTime<Utc>>,
    pub rolled_back_at: Option<DateTime<Utc>>,
    /// Its points up to this one were held against the rows.
    pub(crate) verified_to: Option<ChunkId>,
}

impl Generation {
    /// Made for a wish that another one may take the place of.
    fn is_tried(&self) -> bool {
        self.state == state::BUILDING || (self.state == state::READY && self.rolled_back_at.is_none())
    }

    /// Whether all documents are in, but for so many that changed.
    const fn lacks_at_most(&self, most: i64) -> bool {
        self.is_filled && self.lacking <= most
    }

    /// Kept for a way back, or a way forth.
    fn is_spare(&self) -> bool {
        self.state == state::STANDBY || (self.state == state::READY && self.rolled_back_at.is_some())
    }
}

/// How far a document of many chunks is in that is put in part by part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, sqlx::FromRow)]
pub(crate) struct Place {
    place_document: Option<DocumentId>,
    /// The change of it that is put in; none: it is on its first way in.
    place_mark: Option<Uuid>,
    /// Chunks before this position are in.
    place_position: Option<i64>,
}

impl Place {
    /// Whether an earlier turn has put in this part of this change.
    fn is_past(&self, portion: &Portion, mark: Option<Uuid>) -> bool {
        self.place_document.as_ref() == portion.documents.first()
            && self.place_mark == mark
            && !portion.is_end_of_documents
            && self.place_position >= Some(portion.to_position)
    }
}

/// What answers a tenant's questions.
#[derive(Clone)]
pub struct Live {
    pub space: Arc<Space>,
    /// False: chunks are missing in its index, and are on their way.
    pub is_whole: bool,
}

/// What a statement reads of the live generation beside other things; all none: there is none.
#[derive(Clone, Debug, Default, sqlx::FromRow)]
pub struct LiveRow {
    pub live_space: Option<String>,
    /// The making of its index that documents are put into.
    pub live_making: Option<String>,
    pub live_is_whole: Option<bool>,
}

/// The columns of [`LiveRow`], where the live generation is joined as `g`.
macro_rules! live_columns {
    () => {
        "g.space as live_space, (select e.making from embedding_space e where e.name = g.space) as live_making, g.is_filled and not g.is_short and not exists (select 1 from generation_gap p where p.generation_id = g.id) as live_is_whole"
    };
}
pub(crate) use live_columns;

impl LiveRow {
    /// The space itself. A tenant without documents is answered with the configured one.
    pub async fn open(self, app: &App, tenant_id: TenantId) -> Result<Live> {
        Ok(match self.live_space {
            Some(name) => {
                let space = app.space(&name).await?;
                Live {
                    is_whole: self.live_is_whole.unwrap_or(false)
                        && !space.has_lost(tenant_id, self.live_making.as_deref()),
                    space,
                }
            }
            None => Live {
                space: app.spaces.wanted(),
                is_whole: true,
            },
        })
    }
}

/// What answers this tenant now, before a transaction is begun that needs it: opening it may have to write.
pub async fn live_now(app: &App, tenant_id: TenantId) -> Result<Live> {
    let mut conn = app.db.read(tenant_id).await?;
    let row = store::find_live_row(&mut conn, tenant_id).await?;
    drop(conn);
    row.open(app, tenant_id).await
}

/// What answers this tenant now.
pub async fn live(app: &App, conn: &mut Conn, tenant_id: TenantId) -> Result<Live> {
    let row = store::find_live_row(conn, tenant_id).await?;
    row.open(app, tenant_id).await
}

/// Leaves work on what answers this tenant to processes that have the index which documents are put into: no attempt counts.
pub async fn check_live_making(app: &App, tenant_id: TenantId) -> Result<()> {
    match find_live_making(app, tenant_id).await? {
        Some((space, making)) => space.check_making(making.as_deref()),
        None => Ok(()),
    }
}

/// The same of a document that is to be indexed.
pub async fn check_live_making_for_document(app: &App, tenant_id: TenantId) -> Result<()> {
    match find_live_making(app, tenant_id).await? {
        Some((space, making)) => space.check_making_for_document(making.as_deref()),
        None => Ok(()),
    }
}

/// The same for as long as a transaction lasts: until then nobody notes another index. It is the first that the transaction does, and
/// the index has been opened before.
pub async fn hold_live_making_for_document(app: &App, write: &mut Write, tenant_id: TenantId) -> Result<()> {
    share_noting(write).await?;
    let row = store::find_live_row(write, tenant_id).await?;
    match find_making_of(app, row).await? {
        Some((space, making)) => space.check_making_for_document(making.as_deref()),
        None => Ok(()),
    }
}

/// What answers this tenant, for the sake of its index, with the making of it that documents are put into.
async fn find_live_making(app: &App, tenant_id: TenantId) -> Result<Option<(Arc<Space>, Option<String>)>> {
    let row = store::find_live_row(&mut app.db.read(tenant_id).await?, tenant_id).await?;
    find_making_of(app, row).await
}

async fn find_making_of(app: &App, row: LiveRow) -> Result<Option<(Arc<Space>, Option<String>)>> {
    let Some(name) = row.live_space else {
        return Ok(None);
    };
    Ok(Some((app.space_for_index(&name).await?, row.live_making)))
}

/// Where this tenant's documents go: the live generation, which is begun with the first of them. Call [`live_now`] before the
/// transaction.
pub async fn live_for_writing(app: &App, write: &mut Write, tenant_id: TenantId) -> Result<Arc<Space>> {
    let mut row = store::find_live_row(write, tenant_id).await?;
    if row.live_space.is_none() {
        store::insert_first(write, tenant_id, &app.spaces.wanted().name, app.clock.now()).await?;
        row = store::find_live_row(write, tenant_id).await?;
    }
    Ok(row.open(app, tenant_id).await?.space)
}

/// All spaces that hold chunks of this tenant, for whoever changes what is in their indexes. Fails where documents are put into another
/// making of one of these: who has it does the work.
pub async fn list_spaces(app: &App, tenant_id: TenantId) -> Result<Vec<Arc<Space>>> {
    let mut conn = app.db.read(tenant_id).await?;
    let open = store::list_open(&mut conn, tenant_id).await?;
    drop(conn);
    let mut spaces = Vec::with_capacity(open.len());
    for generation in open {
        let space = app.space(&generation.space).await?;
        space.check_making(generation.making.as_deref())?;
        spaces.push(space);
    }
    Ok(spaces)
}

/// All spaces that hold chunks of this tenant as the transaction sees it, for the sake of their indexes. Indexes that this
/// process has not open yet are opened. None: documents are put into another making of one of these.
pub async fn list_spaces_for_index(
    app: &App,
    write: &mut Write,
    tenant_id: TenantId,
) -> Result<Option<Vec<Arc<Space>>>> {
    let open = store::list_open(write, tenant_id).await?;
    let mut spaces = Vec::with_capacity(open.len());
    for generation in open {
        let space = app.space_for_index(&generation.space).await?;
        if space.is_of_another_making(generation.making.as_deref()) {
            return Ok(None);
        }
        spaces.push(space);
    }
    Ok(Some(spaces))
}

/// Nobody begins or gives up a generation until the transaction ends.
pub async fn share(write: &mut Write, tenant_id: TenantId) -> Result<()> {
    store::share_live(write, tenant_id).await
}

/// Whether this tenant has a generation in this space that holds chunks. What is put in for a generation that was given up is
/// to be removed again.
pub async fn is_open(conn: &mut Conn, tenant_id: TenantId, space: &Space) -> Result<bool> {
    store::is_open(conn, tenant_id, &space.name).await
}

/// Notes, in the transaction that swaps documents in whose new chunks were put into `written`, what other generations lack
/// by that, and queues that they get it. None: they may be in one or another.
pub async fn note_gaps(
    app: &App,
    write: &mut Write,
    tenant_id: TenantId,
    written: Option<&Space>,
    documents: &[DocumentId],
) -> Result<()> {
    if documents.is_empty() {
        return Ok(());
    }
    // A generation is begun and goes live under this lock: it knows this commit, or this commit knows it.
    store::share_live(write, tenant_id).await?;
    let open = store::list_open(write, tenant_id).await?;
    let lacks = |generation: &&Generation| match written {
        Some(space) => {
            generation.space != space.name || space.is_of_another_making(generation.making.as_deref())
        }
        None => open.len() > 1,
    };
    // Begun for one that is gone by now: what the live one lacks of them is found by comparison.
    let since = app.clock.now() - LONGEST_WAY_IN;
    if written.is_none() && open.len() == 1 && store::has_retired_since(write, tenant_id, since).await? {
        mend::queue_mend(app, write, tenant_id).await?;
    }
    for generation in open.iter().filter(lacks) {
        store::insert_gaps(write, tenant_id, generation.id, documents).await?;
        fill::queue(app, write, tenant_id, generation.id).await?;
    }
    Ok(())
}
/// The name of what answers this tenant; nothing is opened for it.
pub async fn live_name(app: &App, tenant_id: TenantId) -> Result<String> {
    let row = store::find_live_row(&mut app.db.read(tenant_id).await?, tenant_id).await?;
    Ok(row.live_space.unwrap_or_else(|| app.spaces.wanted().name.clone()))
}

/// What came of a wish for the configured model.
enum Wish {
    /// One is begun, or under way.
    Building(Generation),
    /// It answers already; something that was begun for another wish was given up.
    GaveUp(Generation),
    /// It answers already.
    Holds,
}

/// Begins a generation with the configured embedding model, or says which one is under way already. Where that model answers, what
/// was begun with another one is given up.
pub async fn begin(app: &App, tenant_id: TenantId, activates: bool, by: By<'_>) -> Result<Generation> {
    live_now(app, tenant_id).await?;
    let mut write = app.db.write(tenant_id).await?;
    live_for_writing(app, &mut write, tenant_id).await?;
    let generation = match begin_in(app, &mut write, tenant_id, activates, by).await? {
        Wish::Building(generation) => {
            let after = json!({ "space": generation.space, "activates": generation.activates });
            let deed = Deed {
                action: "generation.begin",
                id: generation.id.to_string(),
                before: None,
                after: Some(after),
            };
            by.record(app, &mut write, tenant_id, deed).await?;
            generation
        }
        Wish::GaveUp(live) => live,
        Wish::Holds => {
            return Err(Error::conflict(
                "generation_current",
                "the configured embedding model answers already: a new generation begins when the configuration names another one",
            ));
        }
    };
    write.commit().await?;
    app.wake_workers();
    Ok(generation)
}

/// Begins one with the configured model, unless it is there.
async fn begin_in(
    app: &App,
    write: &mut Write,
    tenant_id: TenantId,
    activates: bool,
    by: By<'_>,
) -> Result<Wish> {
    store::hold_live(write, tenant_id).await?;
    let space = app.spaces.wanted();
    let wanted = &space.name;
    let open = store::list_open(write, tenant_id).await?;
    let present = open
        .iter()
        .find(|generation| generation.space == *wanted)
        .cloned();
    let others = open.iter().filter(|generation| generation.space != *wanted);
    let has_given_up = give_up_wishes(app, write, others, by).await?;
    let Some(mut present) = present else {
        app.disk.check_room()?;
        let now = app.clock.now();
        let generation = store::insert_building(write, tenant_id, wanted, activates, now).await?;
        fill::queue(app, write, tenant_id, generation.id).await?;
        return Ok(Wish::Building(generation));
    };
    if present.state == state::LIVE {
        return Ok(if has_given_up {
            Wish::GaveUp(present)
        } else {
            Wish::Holds
        });
    }
    if activates && !present.activates {
        present.activates = true;
        store::set_activates(write, tenant_id, present.id, true).await?;
    }
    fill::queue(app, write, tenant_id, present.id).await?;
    Ok(Wish::Building(present))
}

/// Gives up what was tried for wishes that do not hold any more; what is kept for a way back does not go live by itself. Whether
/// there was any.
async fn give_up_wishes<'a>(
    app: &App,
    write: &mut Write,
    generations: impl Iterator<Item = &'a Generation>,
    by: By<'_>,
) -> Result<bool> {
    let mut has_given_up = false;
    for generation in generations {
        if generation.is_tried() {
            retire(app, write, generation, by).await?;
        } else if generation.activates {
            store::set_activates(write, generation.tenant_id, generation.id, false).await?;
        } else {
            continue;
        }
        has_given_up = true;
    }
    Ok(has_given_up)
}

/// Lets a generation that is complete answer from now on.
pub async fn activate(app: &App, tenant_id: TenantId, id: GenerationId, by: By<'_>) -> Result<Generation> {
    let mut write = app.db.write(tenant_id).await?;
    store::hold_live(&mut write, tenant_id).await?;
    let generation = find_open(&mut write, tenant_id, id).await?;
    if generation.state == state::LIVE {
        return Ok(generation);
    }
    if generation.state == state::BUILDING || !generation.lacks_at_most(MOST_LACKING) {
        return Err(Error::conflict(
            "generation_not_ready",
            "this generation is not complete yet: wait until its state is ready and its chunks are all done",
        ));
    }
    store::swap_live(&mut write, tenant_id, (id, state::STANDBY), app.clock.now()).await?;
    let deed = Deed {
        action: "generation.activate",
        id: id.to_string(),
        before: Some(json!({ "state": generation.state })),
        after: Some(json!({ "state": state::LIVE })),
    };
    by.record(app, &mut write, tenant_id, deed).await?;
    finish(write, tenant_id, id).await
}

/// What was taken back, and what answers instead.
pub struct RolledBack<T> {
    pub former: T,
    pub live: T,
}

/// Takes a generation that is live back: the one before it answers again.
pub async fn roll_back(
    app: &App,
    tenant_id: TenantId,
    id: GenerationId,
    by: By<'_>,
) -> Result<RolledBack<Generation>> {
    let mut write = app.db.write(tenant_id).await?;
    store::hold_live(&mut write, tenant_id).await?;
    let generation = find_open(&mut write, tenant_id, id).await?;
    if generation.state != state::LIVE {
        return Err(Error::conflict(
            "generation_not_live",
            format!(
                "only a generation that is live can be taken back; this one is {}",
                generation.state
            ),
        ));
    }
    let open = store::list_open(&mut write, tenant_id).await?;
    let before = open
        .iter()
        .filter(|generation| generation.state == state::STANDBY)
        .max_by_key(|generation| generation.left_at);
    let Some(before) = before else {
        return Err(Error::conflict(
            "no_previous_generation",
            "the generation before this one is not kept any more: begin a new one with the embedding model that is wanted",
        ));
    };
    // What was published a moment ago may be on its way into it: answers say so until it is there.
    if !before.is_filled {
        return Err(Error::conflict(
            "generation_not_ready",
            "the index of the generation before this one was lost and is being filled again: wait until its chunks are all done",
        ));
    }
    store::swap_live(&mut write, tenant_id, (before.id, state::READY), app.clock.now()).await?;
    store::set_rolled_back(&mut write, tenant_id, id, app.clock.now()).await?;
    let deed = Deed {
        action: "generation.rollback",
        id: id.to_string(),
        before: Some(json!({ "state": state::LIVE })),
        after: Some(json!({ "state": state::READY, "live": before.id })),
    };
    by.record(app, &mut write, tenant_id, deed).await?;
    let live = find_open(&mut write, tenant_id, before.id).await?;
    let former = finish(write, tenant_id, id).await?;
    Ok(RolledBack { former, live })
}

async fn finish(mut write: Write, tenant_id: TenantId, id: GenerationId) -> Result<Generation> {
    let generation = find_open(&mut write, tenant_id, id).await?;
    write.commit().await?;
    Ok(generation)
}

async fn find_open(conn: &mut Conn, tenant_id: TenantId, id: GenerationId) -> Result<Generation> {
    store::find(conn, tenant_id, id)
        .await?
        .filter(|generation| generation.state != state::RETIRED)
        .ok_or(Error::NotFound("generation"))
}

/// Gives a generation up, and queues that its points are removed.
async fn retire(app: &App, write: &mut Write, generation: &Generation, by: By<'_>) -> Result<()> {
    let tenant_id = generation.tenant_id;
    store::retire(write, tenant_id, generation.id, app.clock.now()).await?;
    let deed = Deed::retirement(generation.id.to_string(), &generation.state);
    by.record(app, write, tenant_id, deed).await?;
    mend::queue_reclaim(app, write, tenant_id, &generation.space).await
}

impl OnModelChange {
    /// Whether a new generation is begun by itself, and goes live by itself.
    fn begins_and_activates(self) -> (bool, bool) {
        (self != Self::Wait, self == Self::Activate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_a_large_document_is_put_in_once_for_each_change_of_it() {
        let (one, other) = (DocumentId(Uuid::from_u128(1)), DocumentId(Uuid::from_u128(2)));
        let (before, now) = (Some(Uuid::from_u128(3)), Some(Uuid::from_u128(4)));
        let part = |document, from_position, is_end_of_documents| Portion {
            documents: vec![document],
            from_position,
            to_position: from_position + 256,
            is_end_of_documents,
        };
        let place = Place {
            place_document: Some(one),
            place_mark: now,
            place_position: Some(512),
        };

        for (portion, mark, is_past) in [
            (part(one, 0, false), now, true),
            (part(one, 256, false), now, true),
            (part(one, 512, false), now, false),
            (part(one, 256, true), now, false),
            (part(one, 0, false), before, false),
            (part(one, 0, false), None, false),
            (part(other, 0, false), now, false),
        ] {
            assert_eq!(place.is_past(&portion, mark), is_past, "{portion:?}");
            assert!(!Place::default().is_past(&portion, mark));
        }
    }
}
