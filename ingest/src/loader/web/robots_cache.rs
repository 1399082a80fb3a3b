//! The robots.txt of each origin, read once for everybody and kept for a while.
//!
//! What an unreadable file means is RFC 9309, section 2.3.1: a site that has none allows everything; a site that cannot
//! say what it allows allows nothing for now, unless we know from less than a day ago.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, timeout_at};
use url::Url;

use super::credentials::Credentials;
use super::failure::FetchFailure;
use super::fetch::{Fetcher, retry_after};
use super::politeness::{Busy, Politeness};
use super::robots::Robots;

/// A copy of this age is used without asking.
const FRESH_FOR: Duration = Duration::from_secs(3_600);

/// A copy of this age is used when the site cannot answer.
const KEPT_FOR: Duration = Duration::from_secs(24 * 3_600);

/// A site that could not answer is asked again after this time.
const FAILED_FOR: Duration = Duration::from_secs(30);

/// A reading that somebody else has begun is over by then.
const READ_PAUSE: Duration = Duration::from_secs(5);

/// Origins that are remembered.
const MAX_ORIGINS: usize = 4_096;

/// Larger files than this are not read at all; of those up to here, the part that the protocol promises.
pub(super) const MAX_FILE_BYTES: usize = 5 << 20;

/// Cheap to clone; clones share what they know.
#[derive(Clone)]
pub(super) struct RobotsCache {
    fetcher: Fetcher,
    politeness: Politeness,
    origins: Arc<Mutex<HashMap<String, Arc<tokio::sync::Mutex<Known>>>>>,
}

/// What is known of one origin. Its lock is held while the file is read, so that it is read once.
#[derive(Default)]
struct Known {
    rules: Option<(Arc<Robots>, Instant)>,
    failure: Option<(FetchFailure, Instant)>,
}

impl Known {
    fn is_needed(&self) -> bool {
        self.rules
            .as_ref()
            .is_some_and(|(_, at)| at.elapsed() < FRESH_FOR)
    }

    /// The pause that the site wished for the last time.
    fn delay(&self) -> Duration {
        let rules = self.rules.as_ref();
        rules
            .and_then(|(rules, _)| rules.crawl_delay())
            .unwrap_or_default()
    }

    fn rules_younger_than(&self, age: Duration) -> Option<Arc<Robots>> {
        let (rules, at) = self.rules.as_ref()?;
        (at.elapsed() < age).then(|| rules.clone())
    }
}

impl RobotsCache {
    pub(super) fn new(fetcher: Fetcher, politeness: Politeness) -> Self {
        Self {
            fetcher,
            politeness,
            origins: Arc::default(),
        }
    }

    /// The rules for `url`, from a copy of at most [`FRESH_FOR`]. A host that has no time until `begin_until` is a failure
    /// with a [`FetchFailure::host_pause`].
    pub(super) async fn rules_for(
        &self,
        url: &Url,
        begin_until: Instant,
    ) -> Result<Arc<Robots>, FetchFailure> {
        self.rules_younger_than(url, FRESH_FOR, begin_until).await
    }

    /// The rules for `url` as they are now.
    pub(super) async fn reload(&self, url: &Url, begin_until: Instant) -> Result<Arc<Robots>, FetchFailure> {
        self.rules_younger_than(url, Duration::ZERO, begin_until).await
    }

    async fn rules_younger_than(
        &self,
        url: &Url,
        age: Duration,
        begin_until: Instant,
    ) -> Result<Arc<Robots>, FetchFailure> {
        let origin = self.origin(url);
        // Somebody else is reading them.
        let locked = timeout_at(begin_until, origin.lock()).await;
        let mut known = locked.map_err(|_| Busy { pause: READ_PAUSE })?;
        if let Some(rules) = known.rules_younger_than(age) {
            return Ok(rules);
        }
        let failed = known
            .failure
            .as_ref()
            .filter(|(_, at)| at.elapsed() < FAILED_FOR.min(age));
        let failure = match failed {
            Some((failure, _)) => failure.clone(),
            None => match self.read(url, known.delay(), begin_until).await {
                Ok(rules) => {
                    let rules = Arc::new(rules);
                    *known = Known {
                        rules: Some((rules.clone(), Instant::now())),
                        failure: None,
                    };
                    return Ok(rules);
                }
                Err(failure) if failure.host_pause().is_some() => return Err(failure),
                Err(failure) => {
                    known.failure = Some((failure.clone(), Instant::now()));
                    failure
                }
            },
        };
        known.rules_younger_than(KEPT_FOR).ok_or(failure)
    }

    async fn read(&self, url: &Url, delay: Duration, begin_until: Instant) -> Result<Robots, FetchFailure> {
        let mut file = url.clone();
        file.set_path("/robots.txt");
        file.set_query(None);
        file.set_fragment(None);
        let _permit = self.politeness.acquire(&file, delay, begin_until).await?;
        // Without credentials: what is read here is used for every source of the site.
        let (fetched, has_led_on) = self.fetcher.get_following(&file, &Credentials::none()).await;
        let fetched = match fetched {
            Ok(fetched) => fetched,
            Err(failure) if failure.code == "too_many_redirects" => return Ok(Robots::default()),
            // The page would fail the same way, and for the same reason.
            Err(failure) if is_of_connection(&failure) && !has_led_on => return Err(failure),
            Err(failure) => return Err(FetchFailure::robots_unavailable(&failure)),
        };
        match fetched.status.as_u16() {
            200..=299 => Ok(Robots::parse(&fetched.body, self.fetcher.product())),
            status @ (429 | 500..) => {
                let pause = retry_after(&fetched.headers);
                if let Some(pause) = pause {
                    self.politeness.back_off(&file, pause);
                }
                Err(FetchFailure::robots_unavailable(&FetchFailure::of_status(
                    status, pause,
                )))
            }
            _ => Ok(Robots::default()),
        }
    }

    fn origin(&self, url: &Url) -> Arc<tokio::sync::Mutex<Known>> {
        let name = url.origin().ascii_serialization();
        let mut origins = self.origins.lock().unwrap_or_else(PoisonError::into_inner);
        if origins.len() >= MAX_ORIGINS && !origins.contains_key(&name) {
            origins.retain(|_, known| known.try_lock().map_or(true, |known| known.is_needed()));
            if origins.len() >= MAX_ORIGINS {
                origins.retain(|_, known| Arc::strong_count(known) > 1);
            }
        }
        origins.entry(name).or_default().clone()
    }
}

fn is_of_connection(failure: &FetchFailure) -> bool {
    matches!(
        failure.code,
        "url_not_public" | "name_not_resolved" | "connection_failed" | "tls_failed"
    )
}
