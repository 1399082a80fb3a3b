//! Items of one depth, on their way to being read: in the order of their keys, around hosts that have no time for us.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::time::Instant;
use url::Url;

use super::items::{self, Item, Place};
use crate::db::Db;
use crate::error::Result;

/// Items that are looked up at once.
const LOOKED_UP: i64 = 200;

/// Items whose hosts have no time that are passed over in search of others.
const MOST_PASSED: usize = 1_000;

/// Items of one depth.
pub(super) struct Level {
    depth: i64,
    /// Items that may still be begun.
    room: i64,
    looked_up: VecDeque<Item>,
    /// The key of the last item that was looked up.
    after: String,
    is_exhausted: bool,
    passed: usize,
}

/// Hosts that have no time for us, each until when.
pub(super) struct BusyHosts {
    until: HashMap<String, Instant>,
    /// Whether items of one host say nothing about those behind them.
    are_many: bool,
}

impl Level {
    pub(super) fn new(depth: i64, room: i64) -> Self {
        Self {
            depth,
            room,
            looked_up: VecDeque::new(),
            after: String::new(),
            is_exhausted: false,
            passed: 0,
        }
    }

    /// The next item whose host has time.
    pub(super) async fn next(
        &mut self,
        db: &Db,
        place: Place,
        busy: &BusyHosts,
        now: DateTime<Utc>,
    ) -> Result<Option<Item>> {
        loop {
            if self.looked_up.is_empty() && !self.is_exhausted {
                self.look_up(db, place, now).await?;
            }
            let Some(item) = self.looked_up.pop_front() else {
                return Ok(None);
            };
            if !busy.has(&item.url) {
                return Ok(Some(item));
            }
            self.passed += 1;
            if !busy.are_many || self.passed >= MOST_PASSED {
                self.is_exhausted = true;
                self.looked_up.clear();
            }
        }
    }

    async fn look_up(&mut self, db: &Db, place: Place, now: DateTime<Utc>) -> Result<()> {
        let limit = LOOKED_UP.min(self.room);
        let mut conn = db.read(place.tenant_id).await?;
        let items = items::list_waiting(&mut conn, place, self.depth, &self.after, now, limit).await?;
        let count = i64::try_from(items.len()).unwrap_or(i64::MAX);
        self.is_exhausted = count < limit || limit == self.room;
        self.room -= count;
        if let Some(last) = items.last() {
            self.after.clone_from(&last.key);
        }
        self.looked_up = items.into();
        Ok(())
    }
}

impl BusyHosts {
    pub(super) fn new(are_many: bool) -> Self {
        Self {
            until: HashMap::new(),
            are_many,
        }
    }

    /// The host of `url` has no time for `pause`.
    pub(super) fn note(&mut self, url: &str, pause: Duration) {
        let until = Instant::now() + pause;
        let known = self.until.entry(host_of(url)).or_insert(until);
        *known = until.max(*known);
    }

    fn has(&self, url: &str) -> bool {
        !self.until.is_empty()
            && self
                .until
                .get(&host_of(url))
                .is_some_and(|until| *until > Instant::now())
    }

    /// How long until the first of them has time again; none when all have.
    pub(super) fn pause(&self) -> Option<Duration> {
        let now = Instant::now();
        let first = self.until.values().filter(|until| **until > now).min()?;
        Some(*first - now)
    }
}

fn host_of(url: &str) -> String {
    let url = Url::parse(url).ok();
    let host = url.as_ref().and_then(Url::host_str);
    host.unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_host_is_busy_for_its_pause_and_others_are_not() {
        let mut busy = BusyHosts::new(true);
        busy.note("https://a.example/1", Duration::from_secs(30));
        busy.note("https://b.example/1", Duration::from_secs(10));

        assert!(busy.has("https://a.example/2") && !busy.has("https://c.example/"));
        assert_eq!(busy.pause(), Some(Duration::from_secs(10)));

        tokio::time::advance(Duration::from_secs(20)).await;
        assert!(busy.has("https://a.example/2") && !busy.has("https://b.example/1"));
        assert_eq!(busy.pause(), Some(Duration::from_secs(10)));
    }
}
