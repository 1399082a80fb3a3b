//! What was read becomes documents: one transaction per batch, which also moves the items on and counts them.

use std::collections::HashSet;

use super::Note;
use super::ahead::Ahead;
use super::driver::{Found, Outcome, Reading, Retry};
use super::items::{self, Item};
use super::settling::Commit;
use super::slice::{Hold, Progress};
use crate::app::App;
use crate::error::Result;

/// Attempts at an item within one run.
const ATTEMPTS: i64 = 3;

/// An item with what came of reading it.
#[derive(Debug)]
pub(super) struct ReadItem {
    pub item: Item,
    pub reading: Reading,
    /// Where the content was put, if it is not what is known already.
    pub file_key: Option<String>,
}

impl ReadItem {
    /// Whether it was asked for at all.
    pub(super) fn is_begun(&self) -> bool {
        !matches!(self.reading.outcome, Outcome::NotBegun | Outcome::Busy { .. })
    }
}

/// What a batch may add to what the run has listed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Items that the run may list in all.
    pub most_listed: usize,
    /// Whether items that pages name are taken up.
    pub follows: bool,
}

/// Stores a batch; false when the run is no longer ours to work on, and then nothing is stored. `listed` holds the keys
/// that the run has listed, and gets those that the batch found.
pub(super) async fn store(
    app: &App,
    hold: &mut Hold,
    mut batch: Vec<ReadItem>,
    listed: &mut HashSet<String>,
    limits: Limits,
) -> Result<bool> {
    let now = app.clock.now();
    // Who answered first is no reason to be within a limit.
    batch.sort_by(|one, other| (one.item.depth, &one.item.key).cmp(&(other.item.depth, &other.item.key)));
    let mut notes: Vec<Note> = batch
        .iter()
        .flat_map(|read| read.reading.notes.iter().copied())
        .collect();
    let found = new_among(&batch, listed, limits, &mut notes);
    let bytes: u64 = batch.iter().map(|read| read.reading.bytes).sum();
    let files: Vec<String> = batch.iter().filter_map(|read| read.file_key.clone()).collect();
    let mut write = app.db.write(hold.place.tenant_id).await?;
    let begun = Progress {
        bytes: i64::try_from(bytes).unwrap_or(i64::MAX),
        notes: notes.clone(),
        is_step: true,
        ..Progress::default()
    };
    if !hold.advance(&mut write, &begun, now).await? {
        drop(write);
        app.files.remove_all(&files).await;
        return Ok(false);
    }
    items::list_found(&mut write, hold.place, &found, now).await?;
    let ahead = Ahead::look(&mut write, hold.place, &batch).await?;
    let mut commit = Commit::new(app, hold, write, ahead, now);
    for read in &mut batch {
        if let Err(error) = commit.settle(read).await {
            drop(commit);
            app.files.remove_all(&files).await;
            return Err(error);
        }
    }
    match commit.finish().await {
        Ok(superfluous) => {
            listed.extend(found.into_iter().map(|found| found.key));
            hold.run.notes.extend(notes);
            app.files.remove_all(&superfluous).await;
            Ok(true)
        }
        // The commit may have gone through all the same: files that are not named the sweep removes.
        Err(error) => Err(error),
    }
}

/// What the batch found that the run has not listed yet, each once, as long as there is room.
fn new_among(
    batch: &[ReadItem],
    listed: &HashSet<String>,
    limits: Limits,
    notes: &mut Vec<Note>,
) -> Vec<Found> {
    let mut keys: HashSet<&str> = HashSet::new();
    let mut found: Vec<Found> = Vec::new();
    for read in batch {
        if will_retry(read) || !read.is_begun() {
            continue;
        }
        // Where an item has moved to is no further item.
        let target = match &read.reading.outcome {
            Outcome::Moved { to, .. } => Some(to),
            _ => None,
        };
        for item in &read.reading.found {
            if listed.contains(&item.key) || !keys.insert(&item.key) {
                continue;
            }
            if !limits.follows && Some(&item.key) != target {
                notes.push(Note::PageLimit);
                continue;
            }
            if listed.len() + found.len() >= limits.most_listed {
                notes.push(Note::PageLimit);
                return found;
            }
            found.push(item.clone());
        }
    }
    found
}

pub(super) fn will_retry(read: &ReadItem) -> bool {
    matches!(&read.reading.outcome, Outcome::Failed { retry, .. } if *retry != Retry::Never)
        && read.item.attempts + 1 < ATTEMPTS
}
