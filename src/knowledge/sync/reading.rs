//! The reading phase: items that wait are read side by side, level by level, and what came of it is stored in batches.
//!
//! All of one level is read before the next begins, and within a level the order is that of the keys. So which items
//! fall within the limits does not depend on who answered first, or on how often the run was interrupted.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::batch::{self, ReadItem};
use super::driver::{Content, Driver, File, ListError, Outcome, Reading, Retry};
use super::items::{self, Item};
use super::level::{BusyHosts, Level};
use super::slice::{Hold, Next, Progress, delta};
use super::{Note, Phase, documents, orphans, text};
use crate::app::App;
use crate::error::{Error, Result};
use crate::id::TenantId;
use crate::knowledge::reading;

/// Items that one slice reads, about. Each slice begins with a look at all that the run has listed.
const ITEMS_PER_SLICE: usize = 10_000;

/// Items in one transaction, at most.
const BATCH_ITEMS: usize = 32;

/// What was read waits for its transaction no longer than this.
const BATCH_AGE: Duration = Duration::from_millis(250);

/// So many failures in a row, and nothing in between: the other side is down, and the run does not ask for the rest.
const FAILURES_IN_A_ROW: usize = 50;

/// When nothing could be read in a slice because hosts were busy, the next one waits so long.
const BUSY_PAUSE: TimeDelta = TimeDelta::seconds(5);

/// A run may list so many times as many items as it may read, and never fewer than [`LISTED_AT_LEAST`].
const LISTED_PER_READ: usize = 10;
const LISTED_AT_LEAST: usize = 10_000;

/// What the reading of one slice knows.
struct Reader<'a> {
    app: &'a App,
    hold: &'a mut Hold,
    driver: &'a Arc<dyn Driver>,
    end_at: Instant,
    /// Keys that the run has listed.
    listed: HashSet<String>,
    busy: BusyHosts,
    /// Keys that the driver let through in this slice.
    admitted: HashSet<String>,
    /// Items that count to the source's limit.
    done: i64,
    /// Items read in this slice.
    read: usize,
    failures_in_a_row: usize,
    /// Address, code and message.
    last_failure: Option<(String, String, String)>,
}

/// Reads what waits, until it is all read or the slice is over.
pub(super) async fn read(
    app: &App,
    hold: &mut Hold,
    driver: &Arc<dyn Driver>,
    end_at: Instant,
) -> Result<Next> {
    let mut conn = app.db.read(hold.place.tenant_id).await?;
    let states: HashMap<String, i64> = items::count_states(&mut conn, hold.place)
        .await?
        .into_iter()
        .collect();
    let failures = items::count_failures_in_a_row(&mut conn, hold.place).await?;
    let mut listed = HashSet::new();
    for (key, waits) in items::list_keys(&mut conn, hold.place).await? {
        if !waits {
            driver.admits_another(&key);
        }
        listed.insert(key);
    }
    drop(conn);
    let uncounted = ["waiting", "skipped", "beyond"];
    let counted = states
        .iter()
        .filter(|(state, _)| !uncounted.contains(&state.as_str()));
    let mut reader = Reader {
        app,
        done: counted.map(|(_, count)| count).sum(),
        hold,
        driver,
        end_at,
        listed,
        busy: BusyHosts::new(driver.has_many_hosts()),
        admitted: HashSet::new(),
        read: 0,
        // One more decides.
        failures_in_a_row: usize::try_from(failures)
            .unwrap_or_default()
            .min(FAILURES_IN_A_ROW - 1),
        last_failure: None,
    };
    reader.run().await
}

impl Reader<'_> {
    async fn run(&mut self) -> Result<Next> {
        loop {
            if self.failures_in_a_row >= FAILURES_IN_A_ROW {
                return self.give_up().await;
            }
            if self.is_over() {
                return Ok(Next::Again(self.app.clock.now()));
            }
            let room = self.driver.max_items() - self.done;
            if room <= 0 && !self.leave_rest_beyond().await? {
                return Ok(Next::Over);
            }
            let now = self.app.clock.now();
            let mut conn = self.app.db.read(self.hold.place.tenant_id).await?;
            let Some(depth) = items::find_level(&mut conn, self.hold.place, now).await? else {
                let next_retry = items::find_next_retry(&mut conn, self.hold.place).await?;
                drop(conn);
                match next_retry {
                    Some(at) => return Ok(Next::Again(at)),
                    None if self.find_more(now).await? => continue,
                    None => return Ok(Next::Phase(Phase::Indexing)),
                }
            };
            drop(conn);
            // Behind the limit only items with documents are left to read.
            let level = Level::new(depth, if room <= 0 { i64::MAX } else { room });
            let read = self.read_level(level).await?;
            match (read, self.driver.obstacle()) {
                (Read::Lost, _) => return Ok(Next::Over),
                (_, Some(ListError::Failed { code, message })) => return Ok(Next::Failed { code, message }),
                (_, Some(ListError::Later { retry_after, .. })) => {
                    return Ok(Next::Again(now + retry_after.map_or(BUSY_PAUSE, delta)));
                }
                (_, Some(ListError::Busy { pause })) => return Ok(Next::Again(now + delta(pause))),
                (Read::Some, None) => {}
                (Read::Nothing, None) => {
                    let pause = self.busy.pause().map_or(BUSY_PAUSE, delta);
                    return Ok(Next::Again(self.app.clock.now() + pause));
                }
            }
        }
    }

    /// Whether nothing more is begun in this slice.
    fn is_over(&self) -> bool {
        self.read >= ITEMS_PER_SLICE
            || self.failures_in_a_row >= FAILURES_IN_A_ROW
            || Instant::now() >= self.end_at
            || self.app.stopping.is_cancelled()
            || self.driver.obstacle().is_some()
    }

    /// Whether an item is within the bounds of its family of addresses. One whose host was busy is not counted again.
    fn admits_another(&mut self, item: &Item) -> bool {
        if item.attempts > 0 || self.admitted.contains(&item.key) {
            return true;
        }
        let is_admitted = self.driver.admits_another(&item.key);
        if is_admitted {
            self.admitted.insert(item.key.clone());
        }
        is_admitted
    }

    /// Reads the items of a level side by side and stores what came of it.
    async fn read_level(&mut self, mut level: Level) -> Result<Read> {
        let mut under_way: JoinSet<Result<ReadItem>> = JoinSet::new();
        let mut batch: Vec<ReadItem> = Vec::with_capacity(BATCH_ITEMS);
        let mut batch_since = Instant::now();
        let mut outcome = Read::Nothing;
        loop {
            while under_way.len() < self.driver.concurrency() && !self.is_over() {
                let now = self.app.clock.now();
                let next = level.next(&self.app.db, self.hold.place, &self.busy, now);
                let Some(item) = next.await? else {
                    break;
                };
                if !self.admits_another(&item) {
                    batch.push(skipped(item));
                    continue;
                }
                let (app, driver) = (self.app.clone(), self.driver.clone());
                let (tenant_id, is_full, end_at) =
                    (self.hold.place.tenant_id, self.hold.run.is_full, self.end_at);
                under_way.spawn(async move {
                    read_item(&app, tenant_id, driver.as_ref(), item, is_full, end_at).await
                });
            }
            let patience = if batch.is_empty() {
                Duration::from_secs(3600)
            } else {
                BATCH_AGE.saturating_sub(batch_since.elapsed())
            };
            let joined = tokio::time::timeout(patience, under_way.join_next()).await;
            let is_over = matches!(joined, Ok(None));
            if let Ok(Some(joined)) = joined {
                let read = joined.map_err(Error::internal)??;
                if let Outcome::Busy { pause } = read.reading.outcome {
                    self.busy.note(&read.item.url, pause);
                }
                if read.is_begun() {
                    if batch.is_empty() {
                        batch_since = Instant::now();
                    }
                    self.note_outcome(&read);
                    batch.push(read);
                }
            }
            let is_due = batch.len() >= BATCH_ITEMS || batch_since.elapsed() >= BATCH_AGE || is_over;
            if !batch.is_empty() && is_due {
                outcome = Read::Some;
                if !self.store(std::mem::take(&mut batch)).await? {
                    return Ok(Read::Lost);
                }
            }
            if is_over {
                return Ok(outcome);
            }
        }
    }

    fn note_outcome(&mut self, read: &ReadItem) {
        self.read += 1;
        match &read.reading.outcome {
            Outcome::Failed { code, message, retry } if *retry != Retry::Never => {
                self.failures_in_a_row += 1;
                self.last_failure = Some((read.item.url.clone(), code.clone(), message.clone()));
            }
            _ => self.failures_in_a_row = 0,
        }
    }

    async fn store(&mut self, batch: Vec<ReadItem>) -> Result<bool> {
        let counted = batch.iter().filter(|read| {
            !matches!(read.reading.outcome, Outcome::Skipped | Outcome::NotKept { .. })
                && read.is_begun()
                && !batch::will_retry(read)
        });
        self.done += i64::try_from(counted.count()).unwrap_or(i64::MAX);
        let limits = batch::Limits {
            most_listed: (usize::try_from(self.driver.max_items())
                .unwrap_or_default()
                .saturating_mul(LISTED_PER_READ))
            .max(LISTED_AT_LEAST),
            // Behind the limit of items nothing more is taken up.
            follows: self.done < self.driver.max_items(),
        };
        batch::store(self.app, self.hold, batch, &mut self.listed, limits).await
    }

    /// The limit is reached: what waits and has no document is left out of this run; false when the run is lost.
    async fn leave_rest_beyond(&mut self) -> Result<bool> {
        let now = self.app.clock.now();
        let mut write = self.app.db.write(self.hold.place.tenant_id).await?;
        let is_more = items::leave_beyond(&mut write, self.hold.place, now).await?;
        let progress = Progress {
            notes: is_more.then_some(Note::PageLimit).into_iter().collect(),
            ..Progress::default()
        };
        if !self.hold.advance(&mut write, &progress, now).await? {
            return Ok(false);
        }
        write.commit().await?;
        self.hold.run.notes.extend(progress.notes);
        Ok(true)
    }

    /// Looks for what should be read although no list names it; true when there is something.
    async fn find_more(&mut self, now: DateTime<Utc>) -> Result<bool> {
        let mut write = self.app.db.write(self.hold.place.tenant_id).await?;
        if !self.hold.advance(&mut write, &Progress::default(), now).await? {
            return Ok(false);
        }
        let mut more = 0;
        for orphan in orphans::list_orphans(&mut write, self.hold.place).await? {
            match orphans::adopt(&mut write, self.hold.place, &orphan, now).await? {
                Some(id) => {
                    documents::rename(&mut write, self.hold.place, id, &orphan.key, &orphan.url, now).await?;
                }
                None => {
                    orphans::reopen(&mut write, self.hold.place, &orphan.key, now).await?;
                    more += 1;
                }
            }
        }
        // The limit cut the reading short, so silence about a document means nothing: it is asked for by its address.
        if self.hold.has(Note::PageLimit) {
            more += items::list_unseen(&mut write, self.hold.place, now).await?;
        }
        write.commit().await?;
        Ok(more > 0)
    }

    /// The other side is down: the rest is not asked for.
    async fn give_up(&mut self) -> Result<Next> {
        let now = self.app.clock.now();
        let place = self.hold.place;
        let mut write = self.app.db.write(place.tenant_id).await?;
        let progress = Progress {
            notes: vec![Note::ManyFailures],
            failed: 1,
            ..Progress::default()
        };
        if !self.hold.advance(&mut write, &progress, now).await? {
            return Ok(Next::Over);
        }
        items::give_up_waiting(&mut write, place, now).await?;
        let (url, code, message) = self.last_failure.clone().unwrap_or_default();
        let message =
            format!("{FAILURES_IN_A_ROW} attempts in a row failed, so the rest was left. {message}");
        documents::insert_failure(&mut write, place, &url, &code, &message, now).await?;
        write.commit().await?;
        self.hold.run.notes.extend(progress.notes);
        Ok(Next::Phase(Phase::Indexing))
    }
}

/// What came of reading a level.
enum Read {
    Some,
    /// No item could be begun.
    Nothing,
    /// The run is no longer ours.
    Lost,
}

fn skipped(item: Item) -> ReadItem {
    ReadItem {
        item,
        reading: Reading::from(Outcome::Skipped),
        file_key: None,
    }
}

/// Reads one item and puts what is new of it in place.
async fn read_item(
    app: &App,
    tenant_id: TenantId,
    driver: &dyn Driver,
    mut item: Item,
    is_full: bool,
    begin_until: Instant,
) -> Result<ReadItem> {
    let is_outdated = item.reader_version != Some(text::reader_version(app.extractor.media()));
    if is_full || is_outdated {
        item.forget();
    }
    let mut reading = driver.read(&item, begin_until).await?;
    if item.is_excluded {
        leave_out(&mut reading);
    }
    let file_key = match &mut reading.outcome {
        Outcome::Content(content) => keep(app, tenant_id, &item, content).await?,
        _ => None,
    };
    Ok(ReadItem {
        item,
        reading,
        file_key,
    })
}

/// What an owner deleted is not kept; what it names may be.
fn leave_out(reading: &mut Reading) {
    if let Outcome::Content(content) = &mut reading.outcome {
        let validators = std::mem::take(&mut content.validators);
        reading.outcome = Outcome::NotKept { validators };
    }
}

/// Puts content in place that is not there already.
async fn keep(app: &App, tenant_id: TenantId, item: &Item, content: &mut Content) -> Result<Option<String>> {
    let is_known =
        item.document_id.is_some() && item.text_hash.as_deref() == Some(content.text_hash.as_str());
    if is_known {
        return Ok(None);
    }
    match &mut content.file {
        File::Reading(extracted) => {
            // A batch of long pages is large: it waits on the disk.
            let extracted = std::mem::take(&mut **extracted);
            Ok(Some(reading::keep(app, tenant_id, extracted).await?))
        }
        File::Staged(staged) => match staged.take() {
            Some(staged) => Ok(Some(app.files.keep(tenant_id, *staged).await?)),
            None => Err(Error::internal("a file was put in place twice")),
        },
        File::Original(bytes) => {
            let mut incoming = app.files.receive().await?;
            incoming.write(bytes).await?;
            *bytes = Bytes::new();
            let staged = incoming.finish().await?;
            Ok(Some(app.files.keep(tenant_id, staged).await?))
        }
    }
}
