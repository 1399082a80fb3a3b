//! Rate limits per key, account and client address, by the generic cell rate algorithm: one timestamp per bucket.
//!
//! Counts live in this process; each replica allows its own share. Buckets that are full again are forgotten.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::convert::Infallible;
use std::hash::BuildHasher;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::{ConnectInfo, FromRequestParts};
use chrono::{DateTime, TimeDelta, Utc};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::app::App;
use crate::error::{Error, Result};
use crate::id::{AccountId, ApiKeyId};

const SHARDS: usize = 16;

/// Buckets in one shard before the full ones are swept out.
const SWEEP_AT: usize = 4096;

/// Whose requests are counted together.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Bucket {
    /// One API key.
    Key(ApiKeyId),
    /// One person, in whichever session.
    Account(AccountId),
    /// One person of the configured issuer.
    Subject(String),
    /// One client address; an IPv6 /64 is one address.
    Address(IpAddr),
    /// Logins, sign-ups and wrong tokens from one address.
    LoginAddress(IpAddr),
    /// Logins to one account, by e-mail address, whether or not it exists.
    LoginAccount(String),
    /// Tries to change one person's password, each of which guesses the present one.
    Password(AccountId),
}

/// How many in which time.
#[derive(Clone, Copy, Debug)]
pub struct Quota {
    /// Requests at once and per window.
    pub limit: u32,
    /// The window.
    pub window: Duration,
}

/// What is left in a bucket after a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The quota's limit.
    pub limit: u32,
    /// The quota's window in seconds.
    pub window_s: u64,
    /// Requests still allowed at once.
    pub remaining: u32,
    /// Seconds until the bucket is full again.
    pub reset_s: u64,
}

/// All buckets of this process.
pub struct RateLimits {
    shards: Vec<Mutex<HashMap<Bucket, DateTime<Utc>>>>,
    hasher: RandomState,
}

impl Default for RateLimits {
    fn default() -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hasher: RandomState::new(),
        }
    }
}

impl RateLimits {
    /// Takes `cost` (0 only looks) from the bucket. `Err` holds how long to wait.
    pub fn take(
        &self,
        bucket: &Bucket,
        quota: Quota,
        cost: u32,
        now: DateTime<Utc>,
    ) -> std::result::Result<Standing, Duration> {
        let window = TimeDelta::from_std(quota.window).unwrap_or(TimeDelta::MAX);
        let step = window / i32::try_from(quota.limit.max(1)).unwrap_or(i32::MAX);
        let shard = &self.shards[self.hasher.hash_one(bucket) as usize % SHARDS];
        let mut buckets = shard.lock().unwrap_or_else(PoisonError::into_inner);
        // The time at which the bucket is full again; it may lie at most one window ahead.
        let full_at = buckets
            .get(bucket)
            .copied()
            .unwrap_or(now)
            .max(now)
            .min(now + window);
        let after = full_at + step * i32::try_from(cost).unwrap_or(i32::MAX);
        let needed = if cost == 0 { full_at + step } else { after };
        if needed > now + window {
            return Err((needed - now - window).to_std().unwrap_or_default());
        }
        if cost > 0 {
            if buckets.len() >= SWEEP_AT {
                buckets.retain(|_, full_at| *full_at > now);
            }
            buckets.insert(bucket.clone(), after);
        }
        let spare = (now + window - after).num_microseconds().unwrap_or_default();
        let remaining = spare / step.num_microseconds().unwrap_or(1).max(1);
        Ok(Standing {
            limit: quota.limit,
            window_s: quota.window.as_secs(),
            remaining: u32::try_from(remaining).unwrap_or(u32::MAX),
            reset_s: u64::try_from((after - now).num_seconds()).unwrap_or_default(),
        })
    }
}

/// Where the access extractor leaves a request's standing for the envelope to put into headers.
#[derive(Clone, Default)]
pub struct StandingSlot(Arc<Mutex<Option<(&'static str, Standing)>>>);

impl StandingSlot {
    /// Writes `RateLimit` and `RateLimit-Policy` (IETF httpapi draft) when a bucket was charged.
    pub fn write_headers(&self, headers: &mut HeaderMap) {
        let Some((name, standing)) = *self.0.lock().unwrap_or_else(PoisonError::into_inner) else {
            return;
        };
        let policy = format!("\"{name}\";q={};w={}", standing.limit, standing.window_s);
        let state = format!("\"{name}\";r={};t={}", standing.remaining, standing.reset_s);
        for (header, value) in [("ratelimit-policy", policy), ("ratelimit", state)] {
            if let Ok(value) = HeaderValue::try_from(value) {
                headers.insert(HeaderName::from_static(header), value);
            }
        }
    }
}

/// Counts a request in buckets. The last count ends up in the answer's headers.
#[derive(Clone, Default)]
pub struct Meter(Option<StandingSlot>);

impl Meter {
    /// For the request with these parts.
    pub fn of(parts: &Parts) -> Self {
        Self(parts.extensions.get::<StandingSlot>().cloned())
    }

    /// Counts the request in `bucket`.
    pub fn charge(&self, app: &App, bucket: Bucket) -> Result<()> {
        take(app, self.0.as_ref(), bucket, 1)
    }

    /// Refuses when `bucket` is empty already, without counting.
    pub fn check(&self, app: &App, bucket: Bucket) -> Result<()> {
        take(app, self.0.as_ref(), bucket, 0)
    }
}

impl FromRequestParts<App> for Meter {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &App) -> Result<Self, Infallible> {
        Ok(Self::of(parts))
    }
}

fn take(app: &App, slot: Option<&StandingSlot>, bucket: Bucket, cost: u32) -> Result<()> {
    let limits = &app.config.limits;
    let minute = Duration::from_secs(60);
    let login_window = Duration::from_secs(limits.login_window_s);
    let (name, limit, window) = match bucket {
        Bucket::Key(_) => ("key", limits.requests_per_minute_per_key, minute),
        Bucket::Account(_) | Bucket::Subject(_) => ("member", limits.requests_per_minute_per_member, minute),
        Bucket::Address(_) => ("address", limits.requests_per_minute_per_address, minute),
        Bucket::LoginAddress(_) | Bucket::LoginAccount(_) | Bucket::Password(_) => {
            ("login", limits.login_attempts, login_window)
        }
    };
    match app
        .rate_limits
        .take(&bucket, Quota { limit, window }, cost, app.clock.now())
    {
        Ok(standing) => {
            if cost > 0
                && let Some(slot) = slot
            {
                *slot.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((name, standing));
            }
            Ok(())
        }
        Err(retry_after) => {
            metrics::counter!("frontdesk_rate_limited_total", "bucket" => name).increment(1);
            Err(Error::RateLimited { retry_after })
        }
    }
}

/// The client's address: the connection's, or, when that is a configured proxy, the last address in
/// `X-Forwarded-For` that is not one. An IPv6 address stands for its /64.
pub fn client_address(parts: &Parts, app: &App) -> IpAddr {
    let peer = parts
        .extensions
        .get::<ConnectInfo<SocketAddr>>()
        .map_or(IpAddr::from([127, 0, 0, 1]), |ConnectInfo(address)| {
            address.ip().to_canonical()
        });
    let proxies = &app.config.server.trusted_proxies;
    let forwarded = parts
        .headers
        .get_all("x-forwarded-for")
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','));
    let mut hops: Vec<IpAddr> = forwarded
        .filter_map(|hop| hop.trim().parse::<IpAddr>().ok())
        .map(|hop| hop.to_canonical())
        .collect();
    hops.push(peer);
    let mut address = peer;
    for hop in hops.into_iter().rev() {
        address = hop;
        if !proxies.contains(&hop) {
            break;
        }
    }
    match address {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUOTA: Quota = Quota {
        limit: 3,
        window: Duration::from_secs(60),
    };

    fn start() -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_000, 0).expect("a valid time")
    }

    #[test]
    fn the_limit_is_allowed_at_once_and_then_one_per_step() {
        let limits = RateLimits::default();
        let bucket = Bucket::LoginAccount("a@example.com".to_owned());

        let remaining: Vec<u32> = (0..3)
            .map(|_| {
                limits
                    .take(&bucket, QUOTA, 1, start())
                    .expect("within the limit")
                    .remaining
            })
            .collect();

        assert_eq!(remaining, [2, 1, 0]);
        assert_eq!(
            limits.take(&bucket, QUOTA, 1, start()),
            Err(Duration::from_secs(20))
        );
        assert!(
            limits
                .take(&bucket, QUOTA, 1, start() + TimeDelta::seconds(20))
                .is_ok()
        );
        assert!(
            limits
                .take(&bucket, QUOTA, 1, start() + TimeDelta::seconds(20))
                .is_err()
        );
    }

    #[test]
    fn looking_takes_nothing_but_sees_an_empty_bucket() {
        let limits = RateLimits::default();
        let bucket = Bucket::LoginAccount("a@example.com".to_owned());

        for _ in 0..10 {
            assert!(limits.take(&bucket, QUOTA, 0, start()).is_ok());
        }
        for _ in 0..3 {
            assert!(limits.take(&bucket, QUOTA, 1, start()).is_ok());
        }
        assert!(limits.take(&bucket, QUOTA, 0, start()).is_err());
    }

    #[test]
    fn a_clock_that_jumps_back_locks_nobody_out_for_longer_than_the_window() {
        let limits = RateLimits::default();
        let bucket = Bucket::LoginAccount("a@example.com".to_owned());
        assert!(limits.take(&bucket, QUOTA, 1, start()).is_ok());

        let wait = limits
            .take(&bucket, QUOTA, 1, start() - TimeDelta::days(3))
            .expect_err("the bucket counts as empty");

        assert!(wait <= QUOTA.window);
    }
}
