//! Holding a job: the lease, its heartbeat, and how others see that it has ended.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};
use uuid::Uuid;

use super::store::{self, HeldJob};
use crate::app::App;
use crate::db::Scope;
use crate::id::JobId;

/// A worker's hold on one job.
#[derive(Clone, Copy, Debug)]
pub struct Lease {
    pub(super) job_id: JobId,
    pub(super) token: Uuid,
}

impl Lease {
    /// Renews the lease at a third of its length, until it is lost. Returns then: whoever else holds the job now must
    /// not be disturbed.
    pub(super) async fn keep(self, app: &App) {
        let length = length(app);
        let mut renewed_at = Instant::now();
        loop {
            tokio::time::sleep(length / 3).await;
            match self.renew(app).await {
                Ok(true) => renewed_at = Instant::now(),
                Ok(false) => return,
                Err(error) => {
                    tracing::warn!(error = ?error, job.id = %self.job_id, "cannot renew the lease");
                    if renewed_at.elapsed() >= length {
                        return;
                    }
                }
            }
        }
    }

    async fn renew(self, app: &App) -> crate::error::Result<bool> {
        let mut write = app.db.write(Scope::Operator).await?;
        let renewed = store::renew(&mut write, self.job_id, self.token, until(app)).await?;
        write.commit().await?;
        Ok(renewed)
    }
}

/// When a lease taken now runs out.
pub(super) fn until(app: &App) -> DateTime<Utc> {
    app.clock.now() + TimeDelta::from_std(length(app)).unwrap_or(TimeDelta::MAX)
}

/// How long a lease lasts.
pub(super) fn length(app: &App) -> Duration {
    Duration::from_secs(app.config.jobs.lease_s)
}

/// Tells leases that nobody renews any more, whatever the clocks of the machines say: a live worker's lease changes
/// every third of its length, so one that was seen unchanged for longer is dead.
#[derive(Default)]
pub(super) struct LeaseWatch(HashMap<JobId, Seen>);

/// A lease as it was first seen like this.
struct Seen {
    token: Uuid,
    until: DateTime<Utc>,
    since: Instant,
}

impl LeaseWatch {
    /// Those of `held`, all held jobs as they are at this moment, whose worker is gone.
    pub(super) fn lapsed(
        &mut self,
        held: Vec<HeldJob>,
        length: Duration,
        now: DateTime<Utc>,
        at: Instant,
    ) -> Vec<HeldJob> {
        let mut seen = HashMap::with_capacity(held.len());
        let mut lapsed = Vec::new();
        for held in held {
            let (token, until) = (held.lease_token, held.lease_until);
            let before = self
                .0
                .remove(&held.job.id)
                .filter(|before| before.token == token && before.until == until);
            let since = before.map_or(at, |before| before.since);
            seen.insert(held.job.id, Seen { token, until, since });
            let unchanged = at.saturating_duration_since(since);
            // The clock may have jumped either way: ahead it must not end a living lease, back not keep a dead one.
            if unchanged >= length || (until < now && unchanged >= length / 2) {
                lapsed.push(held);
            }
        }
        self.0 = seen;
        lapsed
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;
    use sqlx::types::Json;

    use super::store::ClaimedJob;
    use super::*;

    const LENGTH: Duration = Duration::from_secs(60);

    fn held(lease_until: DateTime<Utc>) -> HeldJob {
        let job = ClaimedJob {
            id: JobId(Uuid::from_u128(1)),
            tenant_id: None,
            kind: "x".to_owned(),
            payload: Json(Value::Null),
            attempt: 1,
            max_attempts: 8,
        };
        HeldJob {
            job,
            lease_token: Uuid::from_u128(2),
            lease_until,
        }
    }

    fn time(second: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_000 + second, 0).expect("a valid time")
    }

    #[test]
    fn a_renewed_lease_lives_even_when_the_clock_jumps_ahead() {
        let (mut watch, start) = (LeaseWatch::default(), Instant::now());

        for look in 0..10_u32 {
            let renewed = held(time(i64::from(look) * 20 + 60));
            let lapsed = watch.lapsed(
                vec![renewed],
                LENGTH,
                time(86_400),
                start + Duration::from_secs(20) * look,
            );
            assert!(lapsed.is_empty(), "look {look}");
        }
    }

    #[test]
    fn a_lease_that_ran_out_is_dead_once_it_missed_its_heartbeat() {
        let (mut watch, start) = (LeaseWatch::default(), Instant::now());

        assert!(
            watch
                .lapsed(vec![held(time(60))], LENGTH, time(61), start)
                .is_empty()
        );
        assert_eq!(
            watch
                .lapsed(vec![held(time(60))], LENGTH, time(91), start + LENGTH / 2)
                .len(),
            1
        );
    }

    #[test]
    fn a_lease_from_a_clock_that_ran_ahead_ends_after_its_length() {
        let (mut watch, start) = (LeaseWatch::default(), Instant::now());
        let far = || held(time(1_000_000));

        assert!(watch.lapsed(vec![far()], LENGTH, time(0), start).is_empty());
        assert!(
            watch
                .lapsed(vec![far()], LENGTH, time(59), start + Duration::from_secs(59))
                .is_empty()
        );
        assert_eq!(
            watch.lapsed(vec![far()], LENGTH, time(60), start + LENGTH).len(),
            1
        );
    }
}
