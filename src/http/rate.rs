//! Rate limits per key, account, tenant and client address, by the generic cell rate algorithm: one timestamp per bucket.
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
use crate::id::{AccountId, ApiKeyId, TenantId};

const SHARDS: usize = 16;

/// Buckets in one shard before the full ones are swept out for the first time.
const SWEEP_AT: usize = 4096;

/// Buckets in one shard at most, a million in all: someone with many addresses makes as many as they like.
const MAX_BUCKETS: usize = 65_536;

/// Whose requests are counted together.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Bucket {
    /// One API key.
    Key(ApiKeyId),
    /// One person, in whichever session.
    Account(AccountId),
    /// One person of the configured issuer.
    Subject(String),
    /// One tenant, with all its keys and persons.
    Tenant(TenantId),
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
    /// Seconds until the bucket is full again; of an empty one, until it allows the next request.
    pub reset_s: u64,
}

/// All buckets of this process.
pub struct RateLimits {
    shards: Vec<Mutex<Shard>>,
    hasher: RandomState,
}

/// Some of the buckets, each with the time at which it is full again.
struct Shard {
    full_at: HashMap<Bucket, DateTime<Utc>>,
    /// So many buckets bring about the next sweep. Twice what the last one left: a sweep costs each insertion little.
    sweep_at: usize,
}

impl Default for Shard {
    fn default() -> Self {
        Self {
            full_at: HashMap::new(),
            sweep_at: SWEEP_AT,
        }
    }
}

impl Shard {
    fn insert(&mut self, bucket: &Bucket, full_at: DateTime<Utc>, now: DateTime<Utc>) {
        if let Some(known) = self.full_at.get_mut(bucket) {
            *known = full_at;
            return;
        }
        if self.full_at.len() >= self.sweep_at {
            self.sweep(now);
        }
        self.full_at.insert(bucket.clone(), full_at);
    }

    /// Forgets what is full again, and, where that leaves too many, the half that will be soonest: it gives away least.
    fn sweep(&mut self, now: DateTime<Utc>) {
        self.full_at.retain(|_, full_at| *full_at > now);
        if self.full_at.len() >= MAX_BUCKETS {
            let mut times: Vec<DateTime<Utc>> = self.full_at.values().copied().collect();
            let (_, middle, _) = times.select_nth_unstable(MAX_BUCKETS / 2);
            let middle = *middle;
            // Of buckets that are full at the same time, as many go as must.
            let mut left = MAX_BUCKETS / 2;
            self.full_at.retain(|_, full_at| {
                let stays = *full_at > middle || (*full_at == middle && left > 0);
                left -= usize::from(stays && left > 0);
                stays
            });
        }
        self.sweep_at = (self.full_at.len() * 2).clamp(SWEEP_AT, MAX_BUCKETS);
    }
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
        let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
        // The time at which the bucket is full again; it may lie at most one window ahead.
        let full_at = shard
            .full_at
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
            shard.insert(bucket, after, now);
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
    fn set(&self, name: &'static str, standing: Standing) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((name, standing));
    }

    /// Writes `RateLimit` and `RateLimit-Policy` (IETF httpapi draft) when a bucket was charged or found empty.
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

    /// Counts the request in `bucket`, which is told in the headers only when it is empty: another one is nearer to the
    /// client.
    pub fn charge_behind(&self, app: &App, bucket: Bucket) -> Result<()> {
        self.check(app, bucket.clone())?;
        take(app, None, bucket, 1)
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
        Bucket::Tenant(_) => ("tenant", limits.requests_per_minute_per_tenant, minute),
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
                slot.set(name, standing);
            }
            Ok(())
        }
        Err(retry_after) => {
            if let Some(slot) = slot {
                slot.set(
                    name,
                    Standing {
                        limit,
                        window_s: window.as_secs(),
                        remaining: 0,
                        reset_s: retry_after.as_secs_f64().ceil() as u64,
                    },
                );
            }
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
    network_of(forwarded_for(
        peer,
        &parts.headers,
        &app.config.server.trusted_proxies,
    ))
}

/// What counts as one client: an IPv4 address, or the /64 of an IPv6 address, which is one customer's.
pub fn network_of(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        address => address,
    }
}

/// Walks the hops back from `peer` for as long as proxies name them. What cannot be read ends the walk: a proxy did not
/// write it, and neither it nor anything before it is believed.
fn forwarded_for(peer: IpAddr, headers: &HeaderMap, proxies: &[IpAddr]) -> IpAddr {
    let values: Vec<&str> = headers
        .get_all("x-forwarded-for")
        .iter()
        .map(|value| value.to_str().unwrap_or_default())
        .collect();
    let mut hops = values.iter().rev().flat_map(|value| value.rsplit(','));
    let mut address = peer;
    while proxies.contains(&address)
        && let Some(hop) = hops.next().and_then(read_hop)
    {
        address = hop;
    }
    address
}

/// An address as proxies write it: alone, in brackets, or with a port.
fn read_hop(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    let bracketed = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
    let address = match bracketed {
        Some(text) => text.parse::<Ipv6Addr>().map(IpAddr::from).ok(),
        None => text
            .parse()
            .ok()
            .or_else(|| text.parse::<SocketAddr>().ok().map(|address| address.ip())),
    };
    address.map(|address| address.to_canonical())
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

    #[test]
    fn only_what_proxies_say_is_believed_and_what_cannot_be_read_ends_the_walk() {
        let address = |text: &str| text.parse::<IpAddr>().expect("an address");
        let proxies = [address("10.0.0.1"), address("10.0.0.2")];
        let forwarded = |peer: &str, values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                let value = HeaderValue::from_bytes(value.as_bytes()).expect("a header");
                headers.append("x-forwarded-for", value);
            }
            forwarded_for(address(peer), &headers, &proxies).to_string()
        };

        for (peer, values, expected) in [
            ("192.0.2.1", &["203.0.113.1"][..], "192.0.2.1"),
            ("10.0.0.1", &[], "10.0.0.1"),
            ("10.0.0.1", &["203.0.113.1"], "203.0.113.1"),
            ("10.0.0.1", &["198.51.100.1, 203.0.113.1"], "203.0.113.1"),
            (
                "10.0.0.1",
                &["198.51.100.1", "203.0.113.1, 10.0.0.2"],
                "203.0.113.1",
            ),
            ("10.0.0.1", &["198.51.100.1, made up"], "10.0.0.1"),
            ("10.0.0.1", &["198.51.100.1, 10.0.0.2,"], "10.0.0.1"),
            ("10.0.0.1", &["198.51.100.1, unknown, 10.0.0.2"], "10.0.0.2"),
            ("10.0.0.1", &["198.51.100.1", "\u{e9}"], "10.0.0.1"),
            ("10.0.0.1", &["198.51.100.1, 203.0.113.1:4711"], "203.0.113.1"),
            ("10.0.0.1", &["[2001:db8::1]:4711"], "2001:db8::1"),
            ("10.0.0.1", &["[2001:db8::1]"], "2001:db8::1"),
            ("10.0.0.1", &["2001:db8::1"], "2001:db8::1"),
            ("10.0.0.1", &["203.0.113.1, ::ffff:10.0.0.2"], "203.0.113.1"),
            ("10.0.0.1", &["[203.0.113.1]"], "10.0.0.1"),
        ] {
            assert_eq!(forwarded(peer, values), expected, "{peer} {values:?}");
        }
    }

    #[test]
    fn many_addresses_fill_no_memory_and_free_nobody_who_waits_longest() {
        let mut shard = Shard::default();
        let waiting = Bucket::LoginAccount("a@example.com".to_owned());
        shard.insert(&waiting, start() + TimeDelta::minutes(1), start());

        for number in 0..200_000_u32 {
            let bucket = Bucket::Address(IpAddr::from(number.to_be_bytes()));
            shard.insert(&bucket, start() + TimeDelta::seconds(1), start());
        }

        assert!(shard.full_at.len() <= MAX_BUCKETS, "{}", shard.full_at.len());
        assert!(shard.full_at.contains_key(&waiting));
        shard.sweep(start() + TimeDelta::seconds(2));
        assert_eq!(shard.full_at.len(), 1, "what is full again is forgotten");
        assert_eq!(shard.sweep_at, SWEEP_AT);
    }
}
