//! The end of a run: waits until what it read is indexed, removes what has vanished, and says how it went.

use chrono::TimeDelta;

use super::documents::{self, Missing, Unindexed};
use super::driver::Driver;
use super::items::{self, Item, ItemState};
use super::loops::{self, MovedOn, find_lost};
use super::slice::{Hold, Next, Progress};
use super::store::{self, FinalCounts};
use super::{Note, Phase, RunState};
use crate::app::App;
use crate::error::Result;
use crate::id::DocumentId;
use crate::knowledge::sources::exclusions;
use crate::knowledge::{chunks, index_changes};

/// When a run looks again whether its documents are indexed: after this time, and this much more for each that is left.
const INDEX_LOOK_MS: i64 = 500;
const LOOK_PER_DOCUMENT_MS: i64 = 2;
const LONGEST_LOOK_MS: i64 = 10_000;

/// Documents that one transaction removes.
const REMOVED_AT_ONCE: usize = 100;

/// So few documents may vanish whatever their share, as long as others are left: they are a share of little.
const FEW_DOCUMENTS: i64 = 5;

/// With a larger share of failures, in percent, what the run has not seen may be behind what it could not read.
const MOST_FAILURES_PERCENT: i64 = 10;

/// Waits, slice by slice, until every document of the source is indexed or has failed.
pub(super) async fn wait_for_index(app: &App, hold: &Hold) -> Result<Next> {
    let mut conn = app.db.read(hold.place.tenant_id).await?;
    let left = documents::count_unfinished(&mut conn, hold.place).await?;
    if left == 0 {
        return Ok(Next::Phase(Phase::Removing));
    }
    let pause = left
        .saturating_mul(LOOK_PER_DOCUMENT_MS)
        .saturating_add(INDEX_LOOK_MS)
        .min(LONGEST_LOOK_MS);
    Ok(Next::Again(app.clock.now() + TimeDelta::milliseconds(pause)))
}

/// Removes what has vanished, as far as the run can tell, and ends the run.
pub(super) async fn remove(app: &App, hold: &mut Hold, driver: &dyn Driver) -> Result<Next> {
    let place = hold.place;
    let mut conn = app.db.read(place.tenant_id).await?;
    let tally = Tally::of(items::count_states(&mut conn, place).await?);
    let is_start_unread = items::is_start_unread(&mut conn, place).await?;
    let total = documents::count(&mut conn, place).await?;
    let missing = documents::list_missing(&mut conn, place).await?;
    let excludes_by_hand = exclusions::are_any(&mut conn, place.tenant_id, place.source_id).await?;
    drop(conn);
    let mut notes = Vec::new();
    if is_start_unread {
        notes.push(Note::StartUnreadable);
    }
    let many = tally.failed * 100 > (tally.failed + tally.read()) * MOST_FAILURES_PERCENT;
    if many && tally.failed > 1 {
        notes.push(Note::ManyFailures);
    }
    hold.run.notes.extend(notes.iter().copied());

    let Sorted { certain, vanished } = sort(hold, driver, missing);
    let count = |documents: &[Missing]| i64::try_from(documents.len()).unwrap_or(i64::MAX);
    let shrinking = Shrinking {
        total,
        certain: count(&certain),
        vanished: count(&vanished),
    };
    let is_held = !shrinking.is_within(driver.shrink_limit_percent()) && !hold.run.accepts_removals;
    let mut gone = certain;
    let mut held = 0;
    if is_held {
        notes.push(Note::RemovalsHeld);
        held = i64::try_from(vanished.len()).unwrap_or(i64::MAX);
    } else {
        gone.extend(vanished);
    }
    for group in gone.chunks(REMOVED_AT_ONCE) {
        let now = app.clock.now();
        let mut write = app.db.write(place.tenant_id).await?;
        if !hold.advance(&mut write, &Progress::default(), now).await? {
            return Ok(Next::Over);
        }
        let ids: Vec<DocumentId> = group.iter().map(|missing| missing.id).collect();
        let progress = Progress {
            removed: documents::delete(app, &mut write, place, &ids).await?,
            is_step: true,
            ..Progress::default()
        };
        hold.advance(&mut write, &progress, now).await?;
        let files = group.iter().map(|missing| missing.file_key.clone()).collect();
        index_changes::remove_documents(app, &mut write, place.tenant_id, &ids, files).await?;
        write.commit().await?;
        app.wake_workers();
    }
    let is_empty = total == i64::try_from(gone.len()).unwrap_or(i64::MAX);
    let is_found_empty = is_empty && !driver.may_be_empty() && !excludes_by_hand;
    let end = End {
        tally,
        notes,
        held,
        is_found_empty,
    };
    finish(app, hold, driver, &end).await?;
    Ok(Next::Over)
}

/// By how much a source is smaller than it was, in documents.
struct Shrinking {
    total: i64,
    certain: i64,
    vanished: i64,
}

impl Shrinking {
    /// Whether this is no reason to doubt it.
    fn is_within(&self, limit_percent: i64) -> bool {
        let left = self.total - self.certain - self.vanished;
        let is_small_share = self.vanished.saturating_mul(100) <= self.total.saturating_mul(limit_percent);
        // A single page that is gone is no mass of them.
        let are_few = self.vanished <= 1 || (self.vanished <= FEW_DOCUMENTS && left > 0);
        is_small_share || (are_few && limit_percent > 0)
    }
}

/// What is not there any more.
#[derive(Default)]
struct Sorted {
    /// By the source's own word or the owner's settings.
    certain: Vec<Missing>,
    /// By its silence, or by an answer that a broken site may give for all of its pages.
    vanished: Vec<Missing>,
}

fn sort(hold: &Hold, driver: &dyn Driver, missing: Vec<Missing>) -> Sorted {
    let doubts = [
        Note::StartUnreadable,
        Note::RobotsUnavailable,
        Note::SitemapUnreadable,
        Note::ManyFailures,
        Note::PageLimit,
    ];
    let has_seen_all = !hold.run.lists_changes && !doubts.into_iter().any(|note| hold.has(note));
    let mut sorted = Sorted::default();
    for document in missing {
        let is_in_scope = driver.admits(&Item::named(&document.key, &document.url, document.depth));
        match document.state.as_deref() {
            // Where one page moves, or shows another one's text, this is so; where all do, the site is not itself.
            Some("moved" | "duplicate") => sorted.vanished.push(document),
            // A site that shuts even its start page says nothing about the others.
            Some("skipped") if is_in_scope && hold.has(Note::StartUnreadable) => {}
            Some("gone" | "skipped") if is_in_scope => sorted.vanished.push(document),
            Some("gone" | "skipped") => sorted.certain.push(document),
            Some(_) => {}
            None if hold.run.lists_changes => {}
            None if !is_in_scope => sorted.certain.push(document),
            None if has_seen_all => sorted.vanished.push(document),
            None => {}
        }
    }
    sorted
}

/// How many items of a run ended in which way.
#[derive(Debug, Default)]
struct Tally {
    new: i64,
    changed: i64,
    unchanged: i64,
    /// Read, but not with a document of its own.
    other: i64,
    failed: i64,
}

impl Tally {
    fn of(states: Vec<(String, i64)>) -> Self {
        let mut tally = Self::default();
        for (state, count) in states {
            let place = match state.as_str() {
                state if state == ItemState::New.name() => &mut tally.new,
                state if state == ItemState::Changed.name() => &mut tally.changed,
                state if state == ItemState::Unchanged.name() => &mut tally.unchanged,
                state if state == ItemState::Failed.name() => &mut tally.failed,
                _ => &mut tally.other,
            };
            *place += count;
        }
        tally
    }

    fn read(&self) -> i64 {
        self.new + self.changed + self.unchanged + self.other
    }

    fn has_read_documents(&self) -> bool {
        self.new + self.changed + self.unchanged > 0
    }
}

/// What a run came to.
struct End {
    tally: Tally,
    /// Of the end.
    notes: Vec<Note>,
    /// Documents that vanished and are kept.
    held: i64,
    /// The source has no documents, and should have some.
    is_found_empty: bool,
}

/// Ends the run, with what it came to.
async fn finish(app: &App, hold: &Hold, driver: &dyn Driver, end: &End) -> Result<()> {
    let End {
        tally,
        held,
        is_found_empty,
        ..
    } = end;
    let mut notes = end.notes.clone();
    let (place, now) = (hold.place, app.clock.now());
    let mut write = app.db.write(place.tenant_id).await?;
    // Before the run, as all do who change both.
    store::hold_source(&mut write, place.tenant_id, place.source_id).await?;
    if chunks::count_resting(&mut write, place.tenant_id, place.source_id).await? > 0 {
        notes.push(Note::ChangesRest);
    }
    let progress = Progress {
        notes: notes.clone(),
        ..Progress::default()
    };
    if !hold.advance(&mut write, &progress, now).await? {
        return Ok(());
    }
    let moved = loops::list_moved_on(&mut write, place).await?;
    let is_named = |lost: &&MovedOn| driver.names(&Item::named(&lost.key, &lost.url, lost.depth));
    for lost in find_lost(&moved).into_iter().filter(is_named) {
        let message = "The page leads on to others and these lead back, so that there is no page at the end. Correct its redirects at the site.";
        documents::insert_failure(&mut write, place, &lost.url, "redirect_loop", message, now).await?;
    }
    let mut counts = FinalCounts {
        new: tally.new,
        changed: tally.changed,
        unchanged: tally.unchanged,
        held: *held,
    };
    for unindexed in documents::list_unindexed(&mut write, place, hold.run.lists_changes).await? {
        let Unindexed {
            url, code, message, ..
        } = &unindexed;
        documents::insert_failure(&mut write, place, url, code, message, now).await?;
        // It counts as failed, and as nothing else.
        match unindexed.item_state.as_deref() {
            Some("new") => counts.new -= 1,
            Some("changed") => counts.changed -= 1,
            _ => counts.unchanged -= 1,
        }
    }
    if hold.run.lists_changes {
        // What the list of changes did not name is as it was.
        counts.unchanged += documents::count_unseen(&mut write, place).await?;
    }
    let failed = store::set_counts(&mut write, place, &counts).await?;
    let has_doubts = hold.run.notes.iter().chain(&notes).any(|note| note.is_doubt());
    let first = store::find_first_failure(&mut write, place).await?;
    let has_read_nothing = failed > 0
        && !tally.has_read_documents()
        && (!hold.run.lists_changes || tally.other + counts.unchanged == 0);
    let (state, error) = if has_read_nothing {
        (RunState::Failed, first)
    } else if failed == 0 && *is_found_empty && !tally.has_read_documents() {
        let message = "Nothing was found that may be kept. Look at the source's include and exclude, and at what the site's pages and site maps say to crawlers.";
        (
            RunState::Failed,
            Some(("nothing_found".to_owned(), message.to_owned())),
        )
    } else if failed > 0 || has_doubts {
        (RunState::Partial, None)
    } else {
        (RunState::Done, None)
    };
    let error = error
        .as_ref()
        .map(|(code, message)| (code.as_str(), message.as_str()));
    if store::end(&mut write, place.tenant_id, place.run_id, state, error, now).await? {
        let source_state = if state == RunState::Failed {
            "failed"
        } else {
            "idle"
        };
        store::set_source_state(&mut write, place.tenant_id, place.source_id, source_state, now).await?;
    }
    if !hold.run.lists_changes {
        items::delete_unseen(&mut write, place).await?;
    }
    write.commit().await?;
    tracing::info!(source.id = %place.source_id, run.id = %place.run_id, state = state.name(), "a sync has ended");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_documents_may_vanish_while_others_are_left_and_never_against_the_owners_word() {
        for (total, vanished, limit, is_within) in [
            (100, 50, 50, true),
            (100, 51, 50, false),
            (6, 5, 50, true),
            (5, 5, 50, false),
            (2, 2, 50, false),
            (1, 1, 50, true),
            (100, 1, 0, false),
            (100, 0, 0, true),
            (5, 5, 100, true),
        ] {
            let shrinking = Shrinking {
                total,
                certain: 0,
                vanished,
            };
            assert_eq!(
                shrinking.is_within(limit),
                is_within,
                "{vanished} of {total}, {limit} %"
            );
        }
    }
}
