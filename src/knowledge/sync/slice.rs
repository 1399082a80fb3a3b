//! One slice of a run: takes the run over, works on its phase for a while, and queues the next slice.

use std::collections::HashMap;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use tokio::time::Instant;
use uuid::Uuid;

use super::driver::{self, Driver, Found, Known, ListError};
use super::items::{self, Place};
use super::{Note, Phase, RunState, SyncRun, SyncSource, documents, ending, enqueue_slice, reading, store};
use crate::app::App;
use crate::db::Write;
use crate::error::{Error, Result};
use crate::http::access::Reach;
use crate::id::{ChatbotId, TenantId};
use crate::jobs::{JobContext, Outcome, Priority};
use crate::knowledge::{indexing, sources};
use crate::tenancy;

/// How long a slice works before others have their turn.
const LENGTH: Duration = Duration::from_secs(15);

/// How often a slice looks whether its run is still its own.
const LOOK_PAUSE: Duration = Duration::from_millis(500);

/// A run that waits for a site looks again after this time at the latest.
const LONGEST_PAUSE: TimeDelta = TimeDelta::hours(1);

/// A suspended tenant's runs look again after this time.
const SUSPENDED_PAUSE: Duration = Duration::from_secs(300);

/// The right to work on a run. Whoever takes the run over, pauses or ends it, takes the right away, and every
/// transaction asks for it first.
#[derive(Debug)]
pub(super) struct Hold {
    pub place: Place,
    pub chatbot_id: ChatbotId,
    pub run: SyncRun,
    holder: Uuid,
}

/// What a transaction adds to a run.
#[derive(Debug, Default)]
pub(super) struct Progress {
    pub new: i64,
    pub changed: i64,
    pub unchanged: i64,
    pub removed: i64,
    pub failed: i64,
    pub bytes: i64,
    pub notes: Vec<Note>,
    /// What is done is done: if the worker dies now, that does not count against the run.
    pub is_step: bool,
}

/// How a phase goes on.
#[derive(Debug)]
pub(super) enum Next {
    Phase(Phase),
    /// The same phase, in the next slice, not before this time.
    Again(DateTime<Utc>),
    /// The run fails, with nothing removed.
    Failed {
        code: String,
        message: String,
    },
    /// The run is no longer ours, or it has ended.
    Over,
}

impl Hold {
    /// Adds to the run's counts; false when the right is lost, and then the transaction must write nothing.
    pub(super) async fn advance(
        &self,
        write: &mut Write,
        progress: &Progress,
        now: DateTime<Utc>,
    ) -> Result<bool> {
        if !store::advance(write, self.place, self.holder, progress, now).await? {
            return Ok(false);
        }
        for (index, note) in progress.notes.iter().enumerate() {
            if !progress.notes[..index].contains(note) {
                store::add_note(write, self.place, *note).await?;
            }
        }
        Ok(true)
    }

    /// Whether the run has this note, as far as this slice knows.
    pub(super) fn has(&self, note: Note) -> bool {
        self.run.notes.contains(&note)
    }
}

/// Works on a run, as the job of its present slice.
pub(super) async fn work(app: &App, context: &JobContext, job: &SyncSource) -> Outcome {
    let ended: Result<Outcome> = async {
        let tenant_id = context.tenant()?;
        if !tenancy::is_active(app, tenant_id).await? {
            return Ok(Outcome::Outage {
                reason: "the customer account is suspended".to_owned(),
                delay: SUSPENDED_PAUSE,
            });
        }
        let Some(mut hold) = begin(app, tenant_id, job).await? else {
            return Ok(Outcome::Done);
        };
        let (place, holder) = (hold.place, hold.holder);
        tokio::select! {
            outcome = go_on(app, &mut hold) => outcome,
            // An owner who ends a run does not wait for what it waits for.
            () = lost(app, place, holder) => Ok(Outcome::Done),
        }
    }
    .await;
    ended.unwrap_or_else(|error| Outcome::from(Err(error)))
}

/// Returns when the right to work on a run is lost.
async fn lost(app: &App, place: Place, holder: Uuid) {
    loop {
        tokio::time::sleep(LOOK_PAUSE).await;
        let held: Result<bool> = async {
            let mut conn = app.db.read(place.tenant_id).await?;
            store::is_held_by(&mut conn, place, holder).await
        }
        .await;
        // Whoever works on the run learns of it soon, too, and knows better what to do.
        if let Ok(false) = held {
            return;
        }
    }
}

/// Takes the run over; none when there is nothing to do for this job.
async fn begin(app: &App, tenant_id: TenantId, job: &SyncSource) -> Result<Option<Hold>> {
    let now = app.clock.now();
    let place = Place {
        tenant_id,
        source_id: job.source_id,
        run_id: job.run_id,
    };
    let holder = Uuid::now_v7();
    let mut write = app.db.write(tenant_id).await?;
    let state = store::hold_source(&mut write, tenant_id, job.source_id).await?;
    if state.is_none_or(|state| state == "paused") {
        return Ok(None);
    }
    let run = store::find_open(&mut write, tenant_id, job.source_id)
        .await?
        .filter(|run| run.id == job.run_id);
    let Some(run) = run else { return Ok(None) };
    if run.slice != job.slice {
        // An earlier attempt at this job died, or was cut short by an outage, after it had brought the run on: what is
        // left has all its attempts.
        if run.is_held {
            enqueue_slice(app, &mut write, tenant_id, &run, now).await?;
            write.commit().await?;
            app.wake_workers();
        }
        return Ok(None);
    }
    if run.deadline <= now {
        let message = "The run took too long and was ended; what it read is kept. Narrow the source, or raise the site's pace, and sync again.";
        store::end(
            &mut write,
            tenant_id,
            run.id,
            RunState::Failed,
            Some(("run_too_long", message)),
            now,
        )
        .await?;
        store::set_source_state(&mut write, tenant_id, job.source_id, "failed", now).await?;
        write.commit().await?;
        return Ok(None);
    }
    store::take_over(&mut write, place, holder, now).await?;
    // Who held it until then may have brought it on.
    let run = store::find_open(&mut write, tenant_id, job.source_id).await?;
    let Some(run) = run.filter(|run| run.id == job.run_id && run.slice == job.slice) else {
        return Ok(None);
    };
    store::set_source_state(&mut write, tenant_id, job.source_id, "running", now).await?;
    let chatbot_id = store::find_chatbot(&mut write, tenant_id, job.source_id)
        .await?
        .ok_or(Error::NotFound("source"))?;
    write.commit().await?;
    Ok(Some(Hold {
        place,
        chatbot_id,
        run,
        holder,
    }))
}

async fn go_on(app: &App, hold: &mut Hold) -> Result<Outcome> {
    let place = hold.place;
    let mut conn = app.db.read(place.tenant_id).await?;
    let source = sources::store::find(&mut conn, Reach::whole(place.tenant_id), place.source_id)
        .await?
        .ok_or(Error::NotFound("source"))?;
    drop(conn);
    let driver = match driver::open(app, &source).await {
        Ok(driver) => driver,
        Err(Error::Conflict { code, message } | Error::Invalid { code, message, .. }) => {
            fail(app, hold, code, &message).await?;
            return Ok(Outcome::Done);
        }
        Err(error) => return Err(error),
    };
    let end_at = Instant::now() + LENGTH;
    loop {
        let next = match hold.run.phase {
            Phase::Listing => match list(app, hold, driver.as_ref(), end_at).await? {
                Ok(next) => next,
                Err(ListError::Later { message, retry_after }) => {
                    return Ok(Outcome::Retry {
                        reason: message,
                        delay: retry_after,
                    });
                }
                Err(ListError::Busy { pause }) => Next::Again(app.clock.now() + delta(pause)),
                Err(ListError::Failed { code, message }) => {
                    fail(app, hold, &code, &message).await?;
                    return Ok(Outcome::Done);
                }
            },
            Phase::Reading => reading::read(app, hold, &driver, end_at).await?,
            Phase::Indexing => ending::wait_for_index(app, hold).await?,
            Phase::Removing => ending::remove(app, hold, driver.as_ref()).await?,
        };
        match next {
            Next::Over => return Ok(Outcome::Done),
            Next::Failed { code, message } => {
                fail(app, hold, &code, &message).await?;
                return Ok(Outcome::Done);
            }
            Next::Again(run_at) => {
                queue_next(app, hold, run_at).await?;
                return Ok(Outcome::Done);
            }
            Next::Phase(phase) => {
                if !enter(app, hold, phase).await? {
                    return Ok(Outcome::Done);
                }
                let gives_way = phase == Phase::Indexing || Instant::now() >= end_at;
                if gives_way {
                    // Behind the documents that wait to be indexed.
                    queue_next(app, hold, app.clock.now()).await?;
                    return Ok(Outcome::Done);
                }
            }
        }
    }
}

/// Lists the source's next page.
async fn list(
    app: &App,
    hold: &mut Hold,
    driver: &dyn Driver,
    end_at: Instant,
) -> Result<std::result::Result<Next, ListError>> {
    let place = hold.place;
    let change_token = if hold.run.is_full {
        None
    } else {
        store::find_change_token(&mut app.db.read(place.tenant_id).await?, place).await?
    };
    let known = Known {
        cursor: hold.run.list_cursor.clone(),
        begin_until: end_at,
        change_token,
    };
    let listing = match driver.list(&known).await? {
        Ok(listing) => listing,
        Err(error) => return Ok(Err(error)),
    };
    let now = app.clock.now();
    let mut write = app.db.write(place.tenant_id).await?;
    let progress = Progress {
        notes: listing.notes.clone(),
        is_step: true,
        ..Progress::default()
    };
    if !hold.advance(&mut write, &progress, now).await? {
        return Ok(Ok(Next::Over));
    }
    items::list_found(&mut write, place, &each_once(&listing.items), now).await?;
    items::mark_gone(&mut write, place, &listing.gone, now).await?;
    driver.keep(&mut write, place).await?;
    if listing.is_changes && known.cursor.is_none() {
        // The other side tells of changes once. What could not be read then has not changed since, but is still unread.
        items::list_failed_again(&mut write, place, now).await?;
    }
    store::set_listing(
        &mut write,
        place,
        listing.next_cursor.as_deref(),
        listing.is_changes,
        listing.change_token.as_deref(),
    )
    .await?;
    write.commit().await?;
    hold.run.notes.extend(listing.notes);
    hold.run.lists_changes |= listing.is_changes;
    hold.run.list_cursor = listing.next_cursor;
    Ok(Ok(match (&hold.run.list_cursor, listing.pause) {
        (Some(_), Some(pause)) => Next::Again(now + delta(pause)),
        (Some(_), None) => Next::Phase(Phase::Listing),
        (None, _) => Next::Phase(Phase::Reading),
    }))
}

/// `pause` for the clock, within bounds.
pub(super) fn delta(pause: Duration) -> TimeDelta {
    TimeDelta::from_std(pause).map_or(LONGEST_PAUSE, |pause| pause.min(LONGEST_PAUSE))
}

/// A list may name an item twice; the last word counts.
fn each_once(listed: &[Found]) -> Vec<Found> {
    let mut last: HashMap<&str, usize> = HashMap::with_capacity(listed.len());
    for (index, found) in listed.iter().enumerate() {
        last.insert(&found.key, index);
    }
    let is_last = |index: &usize, found: &Found| last.get(found.key.as_str()) == Some(index);
    listed
        .iter()
        .enumerate()
        .filter(|(index, found)| is_last(index, found))
        .map(|(_, found)| found.clone())
        .collect()
}

/// Enters a phase; false when the run is no longer ours.
async fn enter(app: &App, hold: &mut Hold, phase: Phase) -> Result<bool> {
    if phase == hold.run.phase {
        return Ok(true);
    }
    let now = app.clock.now();
    let mut write = app.db.write(hold.place.tenant_id).await?;
    if !hold.advance(&mut write, &Progress::default(), now).await? {
        return Ok(false);
    }
    store::set_phase(&mut write, hold.place, phase).await?;
    if phase == Phase::Indexing {
        let again = documents::requeue_failed(app, &mut write, hold.place, now).await?;
        indexing::enqueue(app, &mut write, hold.place.tenant_id, &again, Priority::Bulk).await?;
    }
    write.commit().await?;
    app.wake_workers();
    hold.run.phase = phase;
    Ok(true)
}

/// Gives the run to the next slice.
async fn queue_next(app: &App, hold: &Hold, run_at: DateTime<Utc>) -> Result<()> {
    let now = app.clock.now();
    let mut write = app.db.write(hold.place.tenant_id).await?;
    if !hold.advance(&mut write, &Progress::default(), now).await? {
        return Ok(());
    }
    let mut run = hold.run.clone();
    run.slice = store::begin_next_slice(&mut write, hold.place).await?;
    // A run whose time is up ends then, not when a site has finished its pause.
    let run_at = run_at.min(run.deadline + TimeDelta::seconds(1));
    enqueue_slice(app, &mut write, hold.place.tenant_id, &run, run_at).await?;
    write.commit().await?;
    app.wake_workers();
    Ok(())
}

/// Ends the run as failed, with nothing removed.
async fn fail(app: &App, hold: &Hold, code: &str, message: &str) -> Result<()> {
    let now = app.clock.now();
    let place = hold.place;
    let mut write = app.db.write(place.tenant_id).await?;
    // Before the run, as all do who change both.
    store::hold_source(&mut write, place.tenant_id, place.source_id).await?;
    if !hold.advance(&mut write, &Progress::default(), now).await? {
        return Ok(());
    }
    let error = Some((code, message));
    if store::end(
        &mut write,
        place.tenant_id,
        place.run_id,
        RunState::Failed,
        error,
        now,
    )
    .await?
    {
        store::set_source_state(&mut write, place.tenant_id, place.source_id, "failed", now).await?;
    }
    write.commit().await
}
