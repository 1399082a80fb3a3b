//! Generations of all tenants: what a start finds, what upkeep takes up, and what an hourly look at the counts tells.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use tokio::task::spawn_blocking;

use super::{By, Generation, UNUSED_KEPT, begin_in, fill, give_up_wishes, mend, retire, state, store};
use crate::app::App;
use crate::config::IndexBackend;
use crate::db::{Conn, Scope};
use crate::error::{Error, Result};
use crate::id::TenantId;
use crate::jobs::{Job, JobContext, Outcome, Priority};
use crate::knowledge::verify::{self, Findings, Slice};
use crate::on;

/// A generation that was live is kept at least so long: no question and no job that began with it lasts longer.
const LONGEST_USE: TimeDelta = TimeDelta::hours(1);

/// Generations of which some points are held against the rows in one look, and how long that may take.
const VERIFIED_AT_ONCE: i64 = 1_000;
const VERIFY_TURN: Duration = Duration::from_secs(60);

/// At a start: remembers the configured model, opens those that tenants are answered with, and begins what a change of the
/// configuration asks for.
pub async fn start(app: &App) -> Result<()> {
    app.remember_space().await?;
    adopt(app).await?;
    let open = store::list_all_open(&mut app.db.read(Scope::Operator).await?).await?;
    for name in used(&open) {
        let noted = async { app.note_making(app.space(name).await?.as_ref()).await };
        if let Err(error) = noted.await {
            tracing::error!(error = ?error, space = name, "what tenants are answered from cannot be opened: it is tried again with each question");
        }
    }
    give_up_unconfigured(app, &open).await?;
    begin_wanted(app, &open).await?;
    if app.config.index.backend == IndexBackend::Embedded && !open.is_empty() {
        // Files may have been put back from an older copy. A server's index is looked at within the hour.
        if let Err(error) = check_counts(app).await {
            tracing::warn!(error = ?error, "the index could not be held against the rows: that is done within the hour");
        }
    }
    take_up(app).await
}

/// The configuration that was last started with holds: what is being built with another model, or would go live with it by
/// itself, was wanted by an earlier one.
async fn give_up_unconfigured(app: &App, open: &[Generation]) -> Result<()> {
    let wanted = app.spaces.wanted();
    // A model that is not installed is no wish for none.
    if wanted.model.is_none() {
        return Ok(());
    }
    let is_outdated = |generation: &&Generation| {
        let is_under_way = generation.state == state::BUILDING || generation.activates;
        generation.space != wanted.name && generation.state != state::LIVE && is_under_way
    };
    for outdated in open.iter().filter(is_outdated) {
        let mut write = app.db.write(outdated.tenant_id).await?;
        store::hold_live(&mut write, outdated.tenant_id).await?;
        let present = store::find(&mut write, outdated.tenant_id, outdated.id).await?;
        // As it is now that nobody else changes it.
        let present = present.filter(|present| is_outdated(&present));
        give_up_wishes(app, &mut write, present.iter(), By::Itself).await?;
        write.commit().await?;
        tracing::info!(tenant.id = %outdated.tenant_id, generation.id = %outdated.id, space = outdated.space, "another embedding model is configured by now: this generation does not go live");
    }
    Ok(())
}

/// Gives tenants a generation whose documents were indexed before there were any.
async fn adopt(app: &App) -> Result<()> {
    let wanted = app.spaces.wanted();
    let model = wanted.model.as_deref().unwrap_or("none");
    let mut write = app.db.write(Scope::Operator).await?;
    let without: Vec<(TenantId, bool)> = on!(write, c => sqlx::query_as(
        "select d.tenant_id, count(case when d.embedding_model <> $1 then 1 end) = 0
           from document d
          where d.indexed_at is not null
            and not exists (select 1 from generation g where g.tenant_id = d.tenant_id)
          group by d.tenant_id",
    ).bind(model).fetch_all(c).await)?;
    for (tenant_id, is_filled) in without {
        store::insert_first(&mut write, tenant_id, &wanted.name, app.clock.now()).await?;
        if !is_filled {
            on!(write, c => sqlx::query("update generation set is_filled = $2 where tenant_id = $1")
                .bind(tenant_id).bind(false).execute(c).await.map(drop))?;
        }
    }
    write.commit().await
}

/// Begins a generation for every tenant that another embedding model answers than the configured one, unless that one was
/// taken back.
async fn begin_wanted(app: &App, open: &[Generation]) -> Result<()> {
    let (begins, activates) = app.config.index.on_model_change.begins_and_activates();
    // A model that is not installed is no wish for none: what it embedded is there when it is back.
    let space = app.spaces.wanted();
    if !begins || space.model.is_none() {
        return Ok(());
    }
    let wanted = &space.name;
    let mut conn = app.db.read(Scope::Operator).await?;
    let was_taken_back: Vec<TenantId> = on!(conn, c => sqlx::query_scalar(
        "select distinct tenant_id from generation where space = $1 and rolled_back_at is not null",
    ).bind(wanted).fetch_all(c).await)?;
    drop(conn);
    let was_taken_back: HashSet<TenantId> = was_taken_back.into_iter().collect();
    let others = open.iter().filter(|generation| {
        generation.state == state::LIVE
            && generation.space != *wanted
            && !was_taken_back.contains(&generation.tenant_id)
    });
    let mut begun = 0;
    for live in others {
        let mut write = app.db.write(live.tenant_id).await?;
        begin_in(app, &mut write, live.tenant_id, activates, By::Itself).await?;
        write.commit().await?;
        begun += 1;
    }
    if begun > 0 {
        tracing::info!(
            tenants = begun,
            space = wanted,
            "another embedding model is configured: it is made ready while the present one answers"
        );
    }
    Ok(())
}

/// Queues what is to be filled and has no job, and gives up what was kept long enough.
pub async fn take_up(app: &App) -> Result<()> {
    let open = store::list_all_open(&mut app.db.read(Scope::Operator).await?).await?;
    let mut conn = app.db.read(Scope::Operator).await?;
    let with_gaps: Vec<crate::id::GenerationId> = on!(conn, c => sqlx::query_scalar("select distinct generation_id from generation_gap").fetch_all(c).await)?;
    drop(conn);
    let with_gaps: HashSet<_> = with_gaps.into_iter().collect();
    let now = app.clock.now();
    let kept = TimeDelta::hours(app.config.index.keep_previous_hours.into());
    let kept_until = now - kept.max(LONGEST_USE);
    let is_old = |generation: &Generation| {
        let left_long_ago = generation.left_at.is_some_and(|left_at| left_at <= kept_until);
        let ready_long_ago = generation
            .ready_at
            .is_some_and(|ready_at| ready_at <= now - UNUSED_KEPT);
        let is_unused = generation.state == state::READY && generation.is_tried() && ready_long_ago;
        !generation.activates && (generation.is_spare() && left_long_ago || is_unused)
    };
    for generation in &open {
        let is_unfinished = !generation.is_filled
            || with_gaps.contains(&generation.id)
            || generation.state == state::BUILDING;
        if is_old(generation) {
            let mut write = app.db.write(generation.tenant_id).await?;
            store::hold_live(&mut write, generation.tenant_id).await?;
            let present = store::find(&mut write, generation.tenant_id, generation.id).await?;
            if let Some(present) = present.filter(is_old) {
                retire(app, &mut write, &present, By::Itself).await?;
                write.commit().await?;
            }
        } else if is_unfinished {
            let mut write = app.db.write(generation.tenant_id).await?;
            fill::queue(app, &mut write, generation.tenant_id, generation.id).await?;
            write.commit().await?;
        }
    }
    super::cuts::operator::take_up(app).await?;
    app.wake_workers();
    Ok(())
}

/// How a generation's index and the rows compare.
pub struct Compared {
    pub generation: Generation,
    /// False: it is being filled, or will be when the service runs.
    pub is_filled: bool,
    pub findings: Findings,
}

impl Compared {
    /// Whether it is built beside what answers: what it lacks is no loss.
    pub fn is_being_built(&self) -> bool {
        self.generation.state == state::BUILDING && !self.is_filled
    }
}

/// Compares the indexes of all tenants, or of one, with the rows. With `heals`, what differs is put right and what a lost index
/// held is put in again; what is being built is left to the service.
pub async fn compare(app: &App, only: Option<TenantId>, heals: bool) -> Result<Vec<Compared>> {
    if heals {
        for name in used(&list_open_of(app, only).await?) {
            let space = app.space(name).await?;
            app.note_making(&space).await?;
        }
    }
    let mut all = Vec::new();
    for generation in list_open_of(app, only).await? {
        let space = app.space(&generation.space).await?;
        let mut compared = Compared {
            is_filled: generation.is_filled
                && (heals || !space.has_lost(generation.tenant_id, generation.making.as_deref())),
            findings: Findings::default(),
            generation,
        };
        let heals = heals && !compared.is_being_built();
        if heals && !compared.is_filled {
            fill::check_fillable(app, &compared.generation, &space).await?;
        }
        let tenant_id = compared.generation.tenant_id;
        compared.findings = verify::compare(app, tenant_id, &space, heals).await?;
        if heals {
            mend::note_whole(app, &compared.generation).await?;
        }
        if heals && !compared.is_filled {
            fill::note_filled(app, &mut compared.generation).await?;
        }
        all.push(compared);
    }
    Ok(all)
}

async fn list_open_of(app: &App, only: Option<TenantId>) -> Result<Vec<Generation>> {
    match only {
        Some(tenant_id) => store::list_open(&mut app.db.read(tenant_id).await?, tenant_id).await,
        None => store::list_all_open(&mut app.db.read(Scope::Operator).await?).await,
    }
}

/// The spaces of these generations.
fn used(open: &[Generation]) -> BTreeSet<&str> {
    open.iter().map(|generation| generation.space.as_str()).collect()
}

/// How long what was damaged and put aside is left to whoever wants to know what happened, at least, by the look of every hour.
const LEFT_ASIDE: Duration = Duration::from_secs(3_600);

/// How long processes of the release or the settings before may ask what they kept, beside that which replaces it.
const LEFT_TO_FORMER: Duration = Duration::from_secs(24 * 3_600);

/// Holds indexes against rows: every count, some of the points in turn, and what generations left that were given up.
#[derive(Debug, Serialize, Deserialize)]
pub struct CheckIndex {}

impl Job for CheckIndex {
    const KIND: &'static str = "check_index";
    const PRIORITY: Priority = Priority::Bulk;
    const TIMEOUT: Duration = Duration::from_secs(10 * 60);

    async fn run(self, app: App, _: JobContext) -> Outcome {
        let ends = [
            check_counts(&app).await.map(drop),
            sweep_left(&app).await,
            verify_some(&app).await.map(drop),
            remove_put_aside(&app, LEFT_ASIDE).await.map(drop),
            remove_former(&app, LEFT_TO_FORMER).await.map(drop),
        ];
        ends.into_iter().collect::<Result<()>>().into()
    }
}

/// Removes what of the embedded index was damaged and put aside so long ago: documents in it may have been deleted since. How much
/// there was.
pub async fn remove_put_aside(app: &App, at_least: Duration) -> Result<usize> {
    if app.config.index.backend != IndexBackend::Embedded {
        return Ok(0);
    }
    let dir = app.config.index_dir();
    let removed = spawn_blocking(move || retrieval::index::remove_put_aside(&dir, at_least));
    let removed = removed.await.map_err(Error::internal)?.map_err(Error::internal)?;
    if removed > 0 {
        tracing::info!(
            removed,
            "damaged parts of the index that were put aside are removed"
        );
    }
    Ok(removed)
}

/// Removes what indexes keep of other settings or former rules of words, where what replaced it is `at_least` so old. How much there
/// was.
pub async fn remove_former(app: &App, at_least: Duration) -> Result<usize> {
    let open = list_open_of(app, None).await?;
    // Also of models that answer nobody any more.
    let at_hand = app.spaces.list_on_servers();
    let mut spaces = used(&open);
    spaces.extend(at_hand.iter().map(|space| space.name.as_str()));
    let (mut removed, mut silent) = (0, Silent::default());
    for space in spaces {
        let found = remove_former_of(app, space, at_least).await;
        removed += silent.heard(space, found).unwrap_or_default();
    }
    Ok(removed)
}

/// A release that is taken back uses what is of its rules again: from then on it is counted how long ago something took its place.
async fn remove_former_of(app: &App, space: &str, at_least: Duration) -> Result<usize> {
    let space = app.space_for_index(space).await?;
    if !app.is_noted_for(&space, at_least).await? {
        return Ok(0);
    }
    Ok(space.index.remove_former(at_least).await?)
}

/// Spaces whose index did not answer in this look: nobody waits for one again.
#[derive(Default)]
struct Silent(HashSet<String>);

impl Silent {
    /// What was found in the index of a space, if it answers.
    fn heard<T>(&mut self, space: &str, found: Result<T>) -> Option<T> {
        match found {
            Ok(found) => Some(found),
            Err(error) => {
                tracing::warn!(error = ?error, space, "an index cannot be looked after: the others are");
                self.0.insert(space.to_owned());
                None
            }
        }
    }

    fn has(&self, space: &str) -> bool {
        self.0.contains(space)
    }
}

/// The tenants whose counts differ although nothing of theirs is on its way; they are queued to be mended.
pub async fn check_counts(app: &App) -> Result<Vec<TenantId>> {
    let mut conn = app.db.read(Scope::Operator).await?;
    let chunks: Vec<(TenantId, i64)> = on!(conn, c => sqlx::query_as("select tenant_id, count(distinct id) from chunk group by tenant_id").fetch_all(c).await)?;
    let waiting = count_waiting(&mut conn).await?;
    let busy = list_busy(&mut conn).await?;
    let open = store::list_all_open(&mut conn).await?;
    drop(conn);
    let chunks: HashMap<TenantId, i64> = chunks.into_iter().collect();
    let (mut wrong, mut silent): (Vec<TenantId>, Silent) = Default::default();
    for generation in open.iter().filter(|generation| generation.is_filled) {
        let (tenant_id, space) = (generation.tenant_id, generation.space.as_str());
        if busy.contains(&tenant_id) || silent.has(space) {
            continue;
        }
        let Some(Some(points)) = silent.heard(space, count(app, generation).await) else {
            continue;
        };
        let points = i64::try_from(points).unwrap_or(i64::MAX);
        let chunks = chunks.get(&tenant_id).copied().unwrap_or_default();
        let waiting = waiting.get(&tenant_id).copied().unwrap_or_default();
        let is_short = points < chunks - waiting && is_at_rest(app, tenant_id, chunks).await?;
        if is_short {
            // An older copy of the index, perhaps: until it is mended, nothing found means nothing.
            let mut write = app.db.write(tenant_id).await?;
            store::set_short(&mut write, (tenant_id, generation.id), true).await?;
            write.commit().await?;
        }
        // One that was short once is so until it was compared chunk by chunk.
        let is_doubtful = is_short || generation.is_short || points > chunks;
        if is_doubtful && !wrong.contains(&tenant_id) {
            wrong.push(tenant_id);
        }
    }
    metrics::gauge!("frontdesk_index_tenants_differing").set(wrong.len() as f64);
    for tenant_id in &wrong {
        tracing::warn!(tenant.id = %tenant_id, "the index does not hold as many points as the rows say: it is compared and mended");
        queue_mend(app, *tenant_id).await?;
    }
    app.wake_workers();
    Ok(wrong)
}

/// Whether a tenant still has as many chunks as were counted before its index was asked: else it deletes some right now.
async fn is_at_rest(app: &App, tenant_id: TenantId, counted: i64) -> Result<bool> {
    let mut conn = app.db.read(tenant_id).await?;
    let chunks: i64 = on!(conn, c => sqlx::query_scalar("select count(distinct id) from chunk where tenant_id = $1")
        .bind(tenant_id).fetch_one(c).await)?;
    Ok(chunks == counted)
}

/// The points of a generation; none where this process has another making of its index.
async fn count(app: &App, generation: &Generation) -> Result<Option<u64>> {
    let space = app.space_for_index(&generation.space).await?;
    if space.is_of_another_making(generation.making.as_deref()) {
        return Ok(None);
    }
    let points = space
        .index
        .count(retrieval::TenantId(generation.tenant_id.0))
        .await;
    Ok(Some(points?))
}

/// Chunks of versions that are not shown as yet, or were left for whoever tries again: one index may have them, all, some or none.
async fn count_waiting(conn: &mut Conn) -> Result<HashMap<TenantId, i64>> {
    let waiting: Vec<(TenantId, i64)> = on!(conn, c => sqlx::query_as(
        "select v.tenant_id, count(*)
           from document_version v
           join chunk c on c.document_id = v.document_id and c.version = v.number and coalesce(c.cut_id, c.source_id) = v.cut_id
          where v.state = 'waiting'
          group by v.tenant_id",
    ).fetch_all(c).await)?;
    Ok(waiting.into_iter().collect())
}

/// Tenants of whom something is on its way into an index, or out of it. What a death left of a document is not: it is dropped in
/// some days.
async fn list_busy(conn: &mut Conn) -> Result<HashSet<TenantId>> {
    let busy: Vec<TenantId> = on!(conn, c => sqlx::query_scalar(
        "select distinct tenant_id from document where state in ('queued', 'processing')
         union
         select distinct tenant_id
           from job
          where tenant_id is not null
            and state in ('queued', 'running')
            and (unique_key is null or unique_key not like 'give_up %')
            and kind in ('index_documents', 'remove_documents', 'drop_staged', 'delete_source', 'delete_chatbot', 'tell_index',
                         'weigh_anew', 'put_back_chunks', 'fill_generation', 'reclaim_generation', 'mend_index', 'fill_cut',
                         'reclaim_cut')",
    ).fetch_all(c).await)?;
    Ok(busy.into_iter().collect())
}

async fn queue_mend(app: &App, tenant_id: TenantId) -> Result<()> {
    let mut write = app.db.write(tenant_id).await?;
    mend::queue_mend(app, &mut write, tenant_id).await?;
    write.commit().await
}

/// Looks for points in spaces where a tenant has no generation any more, and queues that they are removed.
pub async fn sweep_left(app: &App) -> Result<()> {
    let mut conn = app.db.read(Scope::Operator).await?;
    let left: Vec<(TenantId, String, Option<DateTime<Utc>>)> = on!(conn, c => sqlx::query_as(
        "select g.tenant_id, g.space, max(g.retired_at)
           from generation g
          where g.state = 'retired'
            and g.reclaimed_at is null
            and not exists (select 1
                              from generation o
                             where o.tenant_id = g.tenant_id
                               and o.space = g.space
                               and o.state <> 'retired')
          group by g.tenant_id, g.space",
    ).fetch_all(c).await)?;
    drop(conn);
    let last = app.clock.now() - mend::LAST_WRITES;
    let mut silent = Silent::default();
    for (tenant_id, space, retired_at) in left {
        if silent.has(&space) {
            continue;
        }
        let is_final = retired_at.is_none_or(|retired_at| retired_at < last);
        silent.heard(&space, mend::sweep(app, tenant_id, &space, is_final).await);
    }
    app.wake_workers();
    Ok(())
}

/// Holds some points of each generation against the rows, those first that waited longest; what differs is queued to be
/// mended. Returns the tenants of whom something does. In time this sees all, also where the counts agree.
pub async fn verify_some(app: &App) -> Result<Vec<TenantId>> {
    let started = Instant::now();
    let mut conn = app.db.read(Scope::Operator).await?;
    let busy = list_busy(&mut conn).await?;
    let turn = store::list_least_verified(&mut conn, VERIFIED_AT_ONCE).await?;
    drop(conn);
    let (mut wrong, mut silent): (Vec<TenantId>, Silent) = Default::default();
    for generation in turn {
        let (tenant_id, space) = (generation.tenant_id, generation.space.as_str());
        if busy.contains(&tenant_id) || silent.has(space) {
            continue;
        }
        if started.elapsed() >= VERIFY_TURN {
            break;
        }
        let Some(Some(slice)) = silent.heard(space, verify_slice(app, &generation).await) else {
            continue;
        };
        if slice.differing > 0 && !wrong.contains(&tenant_id) {
            tracing::warn!(tenant.id = %tenant_id, space, points = slice.differing, "the index holds other texts than the rows: it is compared and mended");
            queue_mend(app, tenant_id).await?;
            wrong.push(tenant_id);
        }
        let mut write = app.db.write(tenant_id).await?;
        let place = (tenant_id, generation.id);
        store::set_verified(&mut write, place, slice.to, app.clock.now()).await?;
        write.commit().await?;
    }
    app.wake_workers();
    Ok(wrong)
}

/// None where this process has another making of the generation's index.
async fn verify_slice(app: &App, generation: &Generation) -> Result<Option<Slice>> {
    let space = app.space_for_index(&generation.space).await?;
    if space.is_of_another_making(generation.making.as_deref()) {
        return Ok(None);
    }
    let slice = verify::compare_some(app, generation.tenant_id, &space, generation.verified_to);
    slice.await.map(Some)
}
