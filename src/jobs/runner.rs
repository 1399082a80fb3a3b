//! Workers: claim, run under a lease, end; and take up what dead workers left.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;
use uuid::Uuid;

use super::lane::Lane;
use super::lease::LeaseWatch;
use super::store::{self, Claimable, ClaimedJob, Ending, HeldJob};
use super::{Failure, Job, JobContext, JobState, Lease, Outcome, Priority, lease, schedule};
use crate::app::App;
use crate::db::{Db, Scope, Write};
use crate::error::Result;
use crate::id::TenantId;
use crate::knowledge::sources;

/// First pause after a failed attempt; doubles with each further one.
const FIRST_PAUSE: Duration = Duration::from_secs(2);

/// Longest pause between attempts.
const LONGEST_PAUSE: Duration = Duration::from_secs(15 * 60);

/// By so much at most do those come later who were told when to come.
const LONGEST_SPREAD: Duration = Duration::from_secs(30);

type RunJob = fn(App, JobContext, Value) -> BoxFuture<'static, Outcome>;
type FailJob = for<'a> fn(
    Value,
    &'a App,
    &'a mut Write,
    Option<TenantId>,
    Failure<'a>,
    DateTime<Utc>,
) -> BoxFuture<'a, Result<()>>;

struct Kind {
    run: RunJob,
    fail: FailJob,
    timeout: Duration,
}

/// The kinds of jobs that this build can carry out.
#[derive(Default)]
pub struct JobKinds(BTreeMap<&'static str, Kind>);

impl JobKinds {
    /// Adds a kind.
    #[must_use]
    pub fn with<J: Job>(mut self) -> Self {
        let run: RunJob = |app, context, payload| {
            Box::pin(async move {
                match serde_json::from_value::<J>(payload) {
                    Ok(job) => job.run(app, context).await,
                    Err(error) => Outcome::Fail {
                        reason: format!("the job's payload cannot be read: {error}"),
                    },
                }
            })
        };
        let fail: FailJob =
            |payload, app, write, tenant_id, failure, now| match serde_json::from_value::<J>(payload) {
                Ok(job) => job.on_failed(app, write, tenant_id, failure, now),
                Err(_) => Box::pin(async { Ok(()) }),
            };
        self.0.insert(
            J::KIND,
            Kind {
                run,
                fail,
                timeout: J::TIMEOUT,
            },
        );
        self
    }

    fn names(&self) -> Vec<&'static str> {
        self.0.keys().copied().collect()
    }
}

/// Runs workers until `stop`, then lets running jobs finish for `grace` and gives the rest back to the queue.
pub async fn run(app: App, stop: CancellationToken, grace: Duration) {
    let running = TaskTracker::new();
    let abandon = CancellationToken::new();
    let upkeep = tokio::spawn(keep_up(app.clone(), stop.clone()));
    let lanes = [
        Lane::with_room_for_others(Priority::Chat..=Priority::Bulk, app.config.jobs.workers),
        // Whatever the others are busy with, nobody in a chat waits for it.
        Lane::new(Priority::Chat..=Priority::Chat, 1),
        Lane::shared(Priority::Remote..=Priority::Remote, app.config.crawl.runs),
    ];
    let taking = lanes
        .iter()
        .map(|lane| take_work(&app, lane, &running, &abandon, &stop));
    futures::future::join_all(taking).await;
    running.close();
    if tokio::time::timeout(grace, running.wait()).await.is_err() {
        tracing::warn!(jobs = running.len(), "giving unfinished jobs back to the queue");
        abandon.cancel();
        running.wait().await;
    }
    let _ = upkeep.await;
}

/// Carries out the jobs of a lane until `stop`.
async fn take_work(
    app: &App,
    lane: &Lane,
    running: &TaskTracker,
    abandon: &CancellationToken,
    stop: &CancellationToken,
) {
    let poll = Duration::from_millis(app.config.jobs.poll_ms);
    while !stop.is_cancelled() {
        let slot = tokio::select! {
            slot = lane.free_slot() => match slot { Some(slot) => slot, None => break },
            () = stop.cancelled() => break,
        };
        // Before the look, so that what is queued during it is not slept over.
        let wake = app.worker_wake.notified();
        match claim(app, lane.priorities.clone(), lane.sated()).await {
            Ok(Some((job, lease))) => {
                let (app, abandon) = (app.clone(), abandon.clone());
                let slot = lane.fill(slot, job.tenant_id);
                running.spawn(async move {
                    work(&app, job, lease, &abandon).await;
                    let lets_in = slot.holds_up_others();
                    drop(slot);
                    if lets_in {
                        app.wake_workers();
                    }
                });
            }
            Ok(None) => {
                tokio::select! { () = wake => {}, () = tokio::time::sleep(jittered(poll)) => {}, () = stop.cancelled() => {} }
            }
            Err(error) => {
                tracing::error!(error = ?error, "cannot look for work");
                tokio::select! { () = tokio::time::sleep(jittered(Duration::from_secs(1))) => {}, () = stop.cancelled() => {} }
            }
        }
    }
}

/// Carries out everything that is due, one job after another, until nothing is; returns how many ran. Unlike [`run`]
/// it takes the clock's word for which leases have run out.
pub async fn drain(app: &App) -> Result<usize> {
    let abandon = CancellationToken::new();
    let mut count = 0;
    loop {
        let held = store::list_held(&mut app.db.read(Scope::Operator).await?).await?;
        let now = app.clock.now();
        let lapsed = held.into_iter().filter(|held| held.lease_until < now);
        take_up(app, lapsed, Duration::ZERO).await;
        match claim(app, Priority::Chat..=Priority::Remote, None).await? {
            Some((job, lease)) => {
                work(app, job, lease, &abandon).await;
                count += 1;
            }
            None => return Ok(count),
        }
    }
}

async fn claim(
    app: &App,
    priorities: RangeInclusive<Priority>,
    except: Option<TenantId>,
) -> Result<Option<(ClaimedJob, Lease)>> {
    let token = Uuid::now_v7();
    let mut write = app.db.write(Scope::Operator).await?;
    let claimed = store::claim(
        &mut write,
        Claimable {
            kinds: &app.job_kinds.names(),
            priorities,
            except,
        },
        app.clock.now(),
        lease::until(app),
        token,
    )
    .await?;
    if claimed.is_some() {
        write.commit().await?;
    }
    Ok(claimed.map(|job| {
        let lease = Lease {
            job_id: job.id,
            token,
        };
        (job, lease)
    }))
}

async fn work(app: &App, job: ClaimedJob, lease: Lease, abandon: &CancellationToken) {
    let span = tracing::info_span!("job.run", job.id = %job.id, job.kind = %job.kind, job.attempt = job.attempt, tenant.id = job.tenant_id.map(tracing::field::display));
    async {
        let started = Instant::now();
        let outcome = tokio::select! {
            outcome = attempt(app, &job) => outcome,
            () = lease.keep(app) => {
                tracing::warn!("the lease was lost: the attempt is dropped");
                return;
            }
            () = abandon.cancelled() => Outcome::Outage { reason: "the server was stopped".to_owned(), delay: Duration::ZERO },
        };
        let result = match &outcome {
            Outcome::Done => "done",
            Outcome::Retry { .. } => "retry",
            Outcome::Outage { .. } => "outage",
            Outcome::TurnOver => "turn_over",
            Outcome::Fail { .. } => "failed",
        };
        metrics::counter!("frontdesk_jobs_total", "kind" => job.kind.clone(), "result" => result).increment(1);
        metrics::histogram!("frontdesk_job_seconds", "kind" => job.kind.clone()).record(started.elapsed().as_secs_f64());
        if let Err(error) = end(app, &job, lease.token, Ended::told(outcome)).await {
            // The lease will run out, and the job be taken up again.
            tracing::error!(error = ?error, "cannot store how the job ended");
        }
    }
    .instrument(span)
    .await;
}

async fn attempt(app: &App, job: &ClaimedJob) -> Outcome {
    let Some(kind) = app.job_kinds.0.get(job.kind.as_str()) else {
        return Outcome::Outage {
            reason: format!("this version knows no jobs of kind {:?}", job.kind),
            delay: Duration::from_secs(60),
        };
    };
    let context = JobContext {
        job_id: job.id,
        tenant_id: job.tenant_id,
        attempt: job.attempt,
    };
    let run =
        std::panic::AssertUnwindSafe((kind.run)(app.clone(), context, job.payload.0.clone())).catch_unwind();
    match tokio::time::timeout(kind.timeout, run).await {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(_)) => Outcome::Retry {
            reason: "the job crashed; the log has the details".to_owned(),
            delay: None,
        },
        Err(_) => Outcome::Retry {
            reason: format!("the job took longer than {} seconds", kind.timeout.as_secs()),
            delay: None,
        },
    }
}

/// How an attempt ended, and who says so.
struct Ended {
    outcome: Outcome,
    /// Nobody: its worker is gone.
    is_death: bool,
}

impl Ended {
    fn told(outcome: Outcome) -> Self {
        Self {
            outcome,
            is_death: false,
        }
    }

    fn by_death(delay: Duration) -> Self {
        Self {
            outcome: Outcome::Retry {
                reason: "the worker died or stalled while it ran".to_owned(),
                delay: Some(delay),
            },
            is_death: true,
        }
    }
}

async fn end(app: &App, job: &ClaimedJob, token: Uuid, ended: Ended) -> Result<()> {
    match try_end(app, job, token, &ended).await {
        // Somebody queued its key at the same moment: the second look sees that it is followed.
        Err(error) if error.is_unique_violation() => try_end(app, job, token, &ended).await,
        ended => ended,
    }
}

async fn try_end(app: &App, job: &ClaimedJob, token: Uuid, ended: &Ended) -> Result<()> {
    let now = app.clock.now();
    let mut write = app.db.write(Scope::Operator).await?;
    let ending = match &ended.outcome {
        Outcome::Done => Ending::Done,
        Outcome::Fail { reason } => Ending::Failed { reason },
        Outcome::Retry { reason, delay } => {
            // The attempt may have noted that attempts count anew.
            let (attempts, deaths) = store::count_attempts(&mut write, job.id).await?;
            let pause = match delay {
                Some(delay) => at_least(*delay),
                // It waits longer each time that it fails by itself.
                None => jittered(pause_after(attempts - deaths)),
            };
            match attempts < job.max_attempts {
                true => Ending::Again {
                    reason,
                    run_at: now + TimeDelta::from_std(pause).unwrap_or_default(),
                    count_attempt: true,
                    is_death: ended.is_death,
                },
                false => Ending::Failed { reason },
            }
        }
        Outcome::Outage { reason, delay } => {
            let run_at = now + TimeDelta::from_std(at_least(*delay)).unwrap_or_default();
            Ending::Again {
                reason,
                run_at,
                count_attempt: false,
                is_death: false,
            }
        }
        Outcome::TurnOver => Ending::BehindOthers { run_at: now },
    };
    let failed = match &ending {
        Ending::Failed { reason } => Some((*reason).to_owned()),
        _ => None,
    };
    if store::finish(&mut write, job.id, token, ending, now).await?
        && let Some(reason) = failed
    {
        tracing::warn!(reason, "job failed for good");
        if let Some(kind) = app.job_kinds.0.get(job.kind.as_str()) {
            let failure = Failure {
                reason: &reason,
                is_death: ended.is_death,
            };
            let payload = job.payload.0.clone();
            (kind.fail)(payload, app, &mut write, job.tenant_id, failure, now).await?;
        }
    }
    write.commit().await
}

/// Puts the jobs of dead workers back into the queue, to go on after `delay`. The attempt counts: a job that kills its worker
/// must end.
async fn take_up(app: &App, lapsed: impl IntoIterator<Item = HeldJob>, delay: Duration) {
    for HeldJob { job, lease_token, .. } in lapsed {
        tracing::warn!(job.id = %job.id, job.kind = %job.kind, job.attempt = job.attempt, "a worker died or stalled: its job is taken up again");
        match end(app, &job, lease_token, Ended::by_death(delay)).await {
            Ok(()) => app.wake_workers(),
            // The others must not wait for it; it is tried again at the next look.
            Err(error) => tracing::error!(error = ?error, job.id = %job.id, "cannot take up a job"),
        }
    }
}

/// At the start of the only process that works on this database: nobody holds a job any more, whatever the leases say. The jobs
/// go on after a pause, so that one which brings its process down does not take the others with it each time.
pub async fn take_up_all(app: &App) -> Result<()> {
    if let Db::Sqlite { .. } = &app.db {
        let held = store::list_held(&mut app.db.read(Scope::Operator).await?).await?;
        take_up(app, held, FIRST_PAUSE).await;
    }
    Ok(())
}

async fn take_up_lapsed(app: &App, watch: &mut LeaseWatch) -> Result<()> {
    let held = store::list_held(&mut app.db.read(Scope::Operator).await?).await?;
    let lapsed = watch.lapsed(held, lease::length(app), app.clock.now(), Instant::now());
    take_up(app, lapsed, Duration::ZERO).await;
    Ok(())
}

/// Looks after leases and schedules while workers run. Several replicas may do so at once.
async fn keep_up(app: App, stop: CancellationToken) {
    let mut watch = LeaseWatch::default();
    let pause = lease::length(&app)
        .div_f64(4.0)
        .clamp(Duration::from_millis(100), Duration::from_secs(10));
    while !stop.is_cancelled() {
        if let Err(error) = take_up_lapsed(&app, &mut watch).await {
            tracing::error!(error = ?error, "cannot look for lapsed leases");
        }
        if app.is_service {
            if let Err(error) = schedule::fire_due(&app).await {
                tracing::error!(error = ?error, "cannot fire schedules");
            }
            if let Err(error) = sources::operator::fire_due(&app).await {
                tracing::error!(error = ?error, "cannot fire the schedules of sources");
            }
        }
        if let Err(error) = report(&app).await {
            tracing::warn!(error = ?error, "cannot count jobs");
        }
        tokio::select! { () = tokio::time::sleep(jittered(pause)) => {}, () = stop.cancelled() => {} }
    }
}

/// Publishes the queue's length.
async fn report(app: &App) -> Result<()> {
    let counts = store::count_by_state(&mut app.db.read(Scope::Operator).await?).await?;
    for state in [JobState::Queued, JobState::Running, JobState::Failed] {
        let count = counts
            .iter()
            .find(|(name, _)| name == state.name())
            .map_or(0, |(_, count)| *count);
        metrics::gauge!("frontdesk_jobs", "state" => state.name()).set(count as f64);
    }
    Ok(())
}

fn pause_after(attempt: i64) -> Duration {
    let doublings = u32::try_from(attempt.clamp(1, 16) - 1).unwrap_or_default();
    (FIRST_PAUSE * 2_u32.pow(doublings)).min(LONGEST_PAUSE)
}

/// Between three quarters and five quarters of `pause`: crowds spread out.
fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(0.75 + rand::random::<f64>() / 2.0)
}

/// Not before `delay` is over, since somebody said so, and up to a quarter of it later, half a minute at most: crowds spread out.
fn at_least(delay: Duration) -> Duration {
    delay + delay.div_f64(4.0).min(LONGEST_SPREAD).mul_f64(rand::random())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest() {
        assert_eq!(pause_after(1), Duration::from_secs(2));
        assert_eq!(pause_after(4), Duration::from_secs(16));
        assert_eq!(pause_after(400), LONGEST_PAUSE);
    }

    #[test]
    fn jitter_stays_within_a_quarter() {
        for _ in 0..100 {
            let pause = jittered(Duration::from_secs(100));
            assert!(
                (Duration::from_secs(75)..=Duration::from_secs(125)).contains(&pause),
                "{pause:?}"
            );
        }
    }

    #[test]
    fn nobody_comes_back_before_the_time_that_was_asked_for() {
        for _ in 0..100 {
            let soon = at_least(Duration::from_secs(100));
            assert!(
                (Duration::from_secs(100)..=Duration::from_secs(125)).contains(&soon),
                "{soon:?}"
            );
            let day = Duration::from_secs(24 * 3600);
            assert!((day..=day + LONGEST_SPREAD).contains(&at_least(day)));
        }
        assert_eq!(at_least(Duration::ZERO), Duration::ZERO);
    }
}
