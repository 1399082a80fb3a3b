//! How often one host is asked: a few requests at a time and a pause between them, over everybody who crawls it.
//!
//! The limits hold for the process, not for a source: ten tenants who crawl one site are one crawler to it. Who waits
//! is served in the order of asking. Nobody waits out a pause that is longer than a moment: they are told how long it is.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep, sleep_until, timeout_at};
use url::Url;

/// A site may wish for a slower pace than this and does not get it: its pages would never be read.
pub const MAX_CRAWL_DELAY: Duration = Duration::from_secs(10);

/// A host that asks to be left alone is asked again after this time at the latest.
pub const MAX_BACK_OFF: Duration = Duration::from_secs(600);

/// A pause of a host is waited out if it is no longer than this.
pub const MAX_WAIT: Duration = Duration::from_secs(2);

/// All slots of a host are taken by requests that take long: a good time to look again.
const TAKEN_PAUSE: Duration = Duration::from_secs(5);

/// Fewer hosts than this are never looked through for idle ones.
const MIN_SWEEP: usize = 256;

/// The slots of all hosts. Cheap to clone; clones share them.
#[derive(Clone, Debug)]
pub struct Politeness {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    per_host: usize,
    min_delay: Duration,
    hosts: Mutex<Hosts>,
}

#[derive(Debug)]
struct Hosts {
    by_name: HashMap<String, Arc<Host>>,
    /// Idle hosts are forgotten when there are this many.
    sweep_at: usize,
}

#[derive(Debug)]
struct Host {
    slots: Arc<Semaphore>,
    pace: Mutex<Pace>,
}

#[derive(Clone, Copy, Debug)]
struct Pace {
    /// When the last request began, or will begin; none before the first one.
    last_start: Option<Instant>,
    /// The end of the pause that the last request wished for.
    kept_until: Instant,
    /// The host asked to be left alone until then.
    blocked_until: Instant,
}

/// The right to one request. Dropping it lets the next one in.
#[derive(Debug)]
pub struct Permit {
    _slot: OwnedSemaphorePermit,
    /// A host in use is not forgotten.
    _host: Arc<Host>,
}

/// The request was not sent: the host has no time for us yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Busy {
    /// Until it may have.
    pub pause: Duration,
}

impl Politeness {
    /// At most `per_host` requests at a time to one host, at least 1, and `min_delay` between their starts.
    pub fn new(per_host: usize, min_delay: Duration) -> Self {
        Self {
            shared: Arc::new(Shared {
                per_host: per_host.max(1),
                min_delay,
                hosts: Mutex::new(Hosts {
                    by_name: HashMap::new(),
                    sweep_at: MIN_SWEEP,
                }),
            }),
        }
    }

    /// Waits for a slot of the host of `url`, and for the pause after the request before. `delay` is the pause that the
    /// site or the owner wishes for; the longer one of it and the configured one holds, up to [`MAX_CRAWL_DELAY`].
    ///
    /// A pause of more than [`MAX_WAIT`], or behind `begin_until`, is not waited for: a worker with other things to do
    /// does them meanwhile. So does one that gets no slot until then.
    pub async fn acquire(&self, url: &Url, delay: Duration, begin_until: Instant) -> Result<Permit, Busy> {
        let host = self.host(url);
        soon(host.pace().blocked_until, begin_until)?;
        let slot = timeout_at(begin_until, host.slots.clone().acquire_owned())
            .await
            .map_err(|_| Busy { pause: TAKEN_PAUSE })?
            .expect("the semaphore of a host is never closed");
        let delay = delay.min(MAX_CRAWL_DELAY).max(self.shared.min_delay);
        let mut start = {
            let mut pace = host.pace();
            let start = soon(pace.next_start(delay), begin_until)?;
            pace.last_start = Some(start);
            pace.kept_until = start + delay;
            start
        };
        // The host may ask for a pause while we wait.
        while start > Instant::now() {
            sleep_until(start).await;
            start = soon(start.max(host.pace().blocked_until), begin_until)?;
        }
        Ok(Permit {
            _slot: slot,
            _host: host,
        })
    }

    /// Like [`Politeness::acquire`], for a request that is of no use later: waits out every pause that ends before `until`.
    /// None when the host has no time until then.
    pub async fn acquire_by(&self, url: &Url, delay: Duration, until: Instant) -> Option<Permit> {
        loop {
            match self.acquire(url, delay, until).await {
                Ok(permit) => return Some(permit),
                Err(busy) if Instant::now() + busy.pause < until => sleep(busy.pause).await,
                Err(_) => return None,
            }
        }
    }

    /// Leaves the host of `url` alone for `pause`, up to [`MAX_BACK_OFF`].
    pub fn back_off(&self, url: &Url, pause: Duration) {
        let host = self.host(url);
        let mut pace = host.pace();
        pace.blocked_until = pace.blocked_until.max(Instant::now() + pause.min(MAX_BACK_OFF));
    }

    /// How long the host of `url` is still to be left alone. A worker with other things to do does them meanwhile.
    pub fn pause_of(&self, url: &Url) -> Duration {
        let host = self.host(url);
        let blocked_until = host.pace().blocked_until;
        blocked_until.saturating_duration_since(Instant::now())
    }

    fn host(&self, url: &Url) -> Arc<Host> {
        let name = url.host_str().unwrap_or_default();
        let mut hosts = lock(&self.shared.hosts);
        if let Some(host) = hosts.by_name.get(name) {
            return host.clone();
        }
        let now = Instant::now();
        if hosts.by_name.len() >= hosts.sweep_at {
            hosts
                .by_name
                .retain(|_, host| Arc::strong_count(host) > 1 || host.pace().ends_after(now));
            hosts.sweep_at = MIN_SWEEP.max(hosts.by_name.len() * 2);
        }
        let host = Arc::new(Host {
            slots: Arc::new(Semaphore::new(self.shared.per_host)),
            pace: Mutex::new(Pace {
                last_start: None,
                kept_until: now,
                blocked_until: now,
            }),
        });
        hosts.by_name.insert(name.to_owned(), host.clone());
        host
    }

    #[cfg(test)]
    fn known_hosts(&self) -> usize {
        lock(&self.shared.hosts).by_name.len()
    }
}

impl Host {
    fn pace(&self) -> MutexGuard<'_, Pace> {
        lock(&self.pace)
    }
}

impl Pace {
    /// When a request may begin, `delay` after the last one.
    fn next_start(self, delay: Duration) -> Instant {
        let now = Instant::now();
        let paced = self.last_start.map_or(now, |last| last + delay);
        paced.max(self.blocked_until).max(now)
    }

    fn ends_after(self, now: Instant) -> bool {
        self.kept_until > now || self.blocked_until > now
    }
}

/// `start`, if it is not behind `begin_until` and no more than a moment away.
fn soon(start: Instant, begin_until: Instant) -> Result<Instant, Busy> {
    let now = Instant::now();
    if start > begin_until.min(now + MAX_WAIT) {
        return Err(Busy {
            pause: start.saturating_duration_since(now),
        });
    }
    Ok(start)
}

/// What is behind our locks is whole after each statement, so that a panic elsewhere spoils nothing.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(host: &str) -> Url {
        Url::parse(&format!("https://{host}/")).expect("the test names a host")
    }

    const NO_DELAY: Duration = Duration::ZERO;
    const SECOND: Duration = Duration::from_secs(1);

    const MINUTE: Duration = Duration::from_secs(60);

    /// Waits like a run that has a minute.
    async fn acquire(politeness: &Politeness, host: &str, delay: Duration) -> Permit {
        let until = Instant::now() + MINUTE;
        politeness
            .acquire(&url(host), delay, until)
            .await
            .expect("the host has time")
    }

    async fn pause(politeness: &Politeness, host: &str, delay: Duration) -> Duration {
        let until = Instant::now() + MINUTE;
        match politeness.acquire(&url(host), delay, until).await {
            Ok(_) => Duration::ZERO,
            Err(busy) => busy.pause,
        }
    }

    async fn is_waiting<T>(future: impl Future<Output = T>) -> bool {
        tokio::time::timeout(Duration::from_millis(1), future)
            .await
            .is_err()
    }

    #[tokio::test(start_paused = true)]
    async fn a_host_has_as_many_slots_as_configured_and_others_have_their_own() {
        let politeness = Politeness::new(2, NO_DELAY);
        let first = acquire(&politeness, "a.example", NO_DELAY).await;
        let _second = acquire(&politeness, "a.example", NO_DELAY).await;

        assert!(is_waiting(acquire(&politeness, "a.example", NO_DELAY)).await);
        assert!(!is_waiting(acquire(&politeness, "b.example", NO_DELAY)).await);

        drop(first);
        assert!(!is_waiting(acquire(&politeness, "a.example", NO_DELAY)).await);
    }

    #[tokio::test(start_paused = true)]
    async fn requests_start_a_delay_apart_whatever_the_number_of_slots() {
        let politeness = Politeness::new(4, NO_DELAY);
        let started = Instant::now();
        for _ in 0..4 {
            drop(acquire(&politeness, "a.example", SECOND).await);
        }
        assert_eq!(started.elapsed().as_secs(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_configured_delay_holds_and_an_absurd_one_is_cut() {
        let politeness = Politeness::new(1, SECOND);
        let started = Instant::now();
        drop(acquire(&politeness, "a.example", NO_DELAY).await);
        drop(acquire(&politeness, "a.example", NO_DELAY).await);
        assert_eq!(started.elapsed().as_secs(), 1);

        assert_eq!(
            pause(&politeness, "a.example", Duration::MAX).await,
            MAX_CRAWL_DELAY
        );
        assert_eq!(started.elapsed().as_secs(), 1, "nobody waits that long");
    }

    #[tokio::test(start_paused = true)]
    async fn a_delay_that_a_site_no_longer_wishes_for_is_not_kept() {
        let politeness = Politeness::new(1, NO_DELAY);
        drop(acquire(&politeness, "a.example", Duration::MAX).await);

        assert_eq!(pause(&politeness, "a.example", NO_DELAY).await, Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn a_host_that_asks_for_a_pause_is_left_alone_also_by_those_who_wait() {
        let politeness = Politeness::new(2, NO_DELAY);
        let started = Instant::now();
        drop(acquire(&politeness, "a.example", SECOND).await);
        let waiting = tokio::spawn({
            let politeness = politeness.clone();
            async move { pause(&politeness, "a.example", SECOND).await }
        });
        tokio::task::yield_now().await;

        politeness.back_off(&url("a.example"), Duration::from_secs(30));

        assert_eq!(politeness.pause_of(&url("a.example")).as_secs(), 30);
        assert_eq!(politeness.pause_of(&url("b.example")), Duration::ZERO);
        assert_eq!(waiting.await.expect("no panic").as_secs(), 29);
        assert_eq!(started.elapsed().as_secs(), 1);
        politeness.back_off(&url("a.example"), Duration::MAX);
        assert_eq!(politeness.pause_of(&url("a.example")), MAX_BACK_OFF);
    }

    #[tokio::test(start_paused = true)]
    async fn who_gets_no_slot_in_time_is_told_to_come_back() {
        let politeness = Politeness::new(1, NO_DELAY);
        let _held = acquire(&politeness, "a.example", NO_DELAY).await;
        let started = Instant::now();

        assert_eq!(pause(&politeness, "a.example", NO_DELAY).await, TAKEN_PAUSE);
        assert_eq!(started.elapsed(), MINUTE);
    }

    #[tokio::test(start_paused = true)]
    async fn who_asked_first_is_served_first() {
        let politeness = Politeness::new(1, NO_DELAY);
        let order = Arc::new(Mutex::new(Vec::new()));
        let held = acquire(&politeness, "a.example", NO_DELAY).await;
        let mut waiting = Vec::new();
        for number in 0..5 {
            let (politeness, order) = (politeness.clone(), order.clone());
            waiting.push(tokio::spawn(async move {
                let _permit = acquire(&politeness, "a.example", NO_DELAY).await;
                lock(&order).push(number);
            }));
            tokio::task::yield_now().await;
        }
        drop(held);
        for task in waiting {
            task.await.expect("no panic");
        }
        assert_eq!(*lock(&order), [0, 1, 2, 3, 4]);
    }

    #[tokio::test(start_paused = true)]
    async fn idle_hosts_are_forgotten_and_busy_or_blocked_ones_are_not() {
        let politeness = Politeness::new(1, NO_DELAY);
        let _held = acquire(&politeness, "busy.example", NO_DELAY).await;
        politeness.back_off(&url("blocked.example"), SECOND);
        for number in 0..10_000 {
            drop(acquire(&politeness, &format!("h{number}.example"), NO_DELAY).await);
        }
        assert!(
            politeness.known_hosts() <= MIN_SWEEP,
            "{}",
            politeness.known_hosts()
        );
        assert!(is_waiting(acquire(&politeness, "busy.example", NO_DELAY)).await);
        assert!(politeness.pause_of(&url("blocked.example")) > Duration::ZERO);
    }
}
