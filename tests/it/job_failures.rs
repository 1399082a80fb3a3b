//! Background work: every job ends or has a dated next try, whatever dies meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use frontdesk::clock::Clock as _;
use frontdesk::jobs::runner::{self, drain};
use frontdesk::jobs::{self, Outcome};
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use crate::harness::app::{TestOptions, engine};
use crate::harness::work::{Work, Workers, scripted_jobs, spawn_worker, until};
use crate::jobs::{only_job, retry, start};

fn run_at(job: &Value) -> DateTime<Utc> {
    job["run_at"].as_str().expect("a time").parse().expect("a time")
}

#[tokio::test]
async fn the_job_of_a_dead_worker_is_taken_up_when_its_lease_ran_out_and_the_attempt_counts() {
    let service = start().await;
    let replica = service.replica(scripted_jobs()).await;
    let acme = service.tenant("acme").await;
    let work = Work::new(|_, attempt| async move {
        if attempt == 1 {
            std::future::pending::<()>().await;
        }
        Outcome::Done
    });
    work.queue(&service.app, acme.id, "interrupted").await;
    work.run_some(&service.app, 1).await;

    service.clock.advance(TimeDelta::seconds(59));
    assert_eq!(
        drain(&replica).await.expect("the queue works"),
        0,
        "the lease still holds"
    );
    service.clock.advance(TimeDelta::seconds(2));
    assert_eq!(drain(&replica).await.expect("the queue works"), 1);

    let job = only_job(&acme).await;
    assert_eq!((&job["state"], &job["attempt"]), (&json!("done"), &json!(2)));
}

#[tokio::test]
async fn at_a_start_jobs_of_the_process_before_wait_for_no_lease_where_nobody_else_can_hold_one() {
    let service = start().await;
    let acme = service.tenant("acme").await;
    let work = Work::new(|_, attempt| async move {
        if attempt == 1 {
            std::future::pending::<()>().await;
        }
        Outcome::Done
    });
    work.queue(&service.app, acme.id, "interrupted").await;
    work.run_some(&service.app, 1).await;

    // As the process that comes after does.
    runner::take_up_all(&service.app).await.expect("the queue works");

    let job = only_job(&acme).await;
    let pause = if engine() == "postgres" {
        assert_eq!(job["state"], "running", "another process may hold it");
        TimeDelta::seconds(61)
    } else {
        assert_eq!((&job["state"], &job["attempt"]), (&json!("queued"), &json!(1)));
        assert_eq!(service.drain_jobs().await, 0, "it goes on after a pause");
        TimeDelta::seconds(3)
    };
    service.clock.advance(pause);
    assert_eq!(service.drain_jobs().await, 1);
    assert_eq!(only_job(&acme).await["state"], "done");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn running_workers_find_the_job_of_a_dead_one_by_themselves() {
    let service = TestOptions::default()
        .jobs(scripted_jobs())
        .set("jobs.lease_s", 1)
        .start()
        .await;
    let replica = service.replica(scripted_jobs()).await;
    let acme = service.tenant("acme").await;
    let work = Work::new(|_, attempt| async move {
        if attempt == 1 {
            std::future::pending::<()>().await;
        }
        Outcome::Done
    });
    work.queue(&service.app, acme.id, "interrupted").await;
    work.run_some(&service.app, 1).await;
    // The dead worker's clock ran a year ahead: by the clocks its lease would hold that long.
    service.clock.advance(TimeDelta::days(-365));

    let workers = Workers::start(&replica);
    work.wait_begun(2).await;
    until("the job is done", async || {
        jobs::count_open(&service.app).await.expect("a count") == 0
    })
    .await;
    workers.stop().await;

    assert_eq!(only_job(&acme).await["attempt"], 2);
}

#[tokio::test]
async fn a_worker_that_lost_its_lease_cannot_end_the_job() {
    let service = start().await;
    let replica = service.replica(scripted_jobs()).await;
    let acme = service.tenant("acme").await;
    let wake = Arc::new(Semaphore::new(0));
    let paused = wake.clone();
    let work = Work::new(move |_, attempt| {
        let paused = paused.clone();
        async move {
            if attempt == 1 {
                paused.acquire().await.expect("open").forget();
                return Outcome::Fail {
                    reason: "said too late".to_owned(),
                };
            }
            Outcome::Done
        }
    });
    work.queue(&service.app, acme.id, "paused").await;
    let sleeper = spawn_worker(&service.app);
    work.wait_begun(1).await;
    service.clock.advance(TimeDelta::seconds(61));
    assert_eq!(drain(&replica).await.expect("the queue works"), 1);
    let before = only_job(&acme).await;

    wake.add_permits(1);
    sleeper.await.expect("the sleeper ends well");

    assert_eq!(before["state"], "done");
    assert_eq!(only_job(&acme).await, before);
}

#[tokio::test]
async fn a_failed_attempt_is_repeated_after_growing_pauses() {
    let service = start().await;
    let acme = service.tenant("acme").await;
    let work = Work::new(|_, attempt| async move { if attempt < 3 { retry() } else { Outcome::Done } });
    work.queue(&service.app, acme.id, "stubborn").await;

    for (attempt, shortest, longest) in [(1, 1500, 2600), (2, 3000, 5100)] {
        let tried_at = service.clock.now();
        assert_eq!(service.drain_jobs().await, 1);
        let job = only_job(&acme).await;
        let pause = (run_at(&job) - tried_at).num_milliseconds();
        assert_eq!(
            (&job["state"], &job["attempt"], &job["last_error"]),
            (&json!("queued"), &json!(attempt), &json!("the shelf is empty"))
        );
        assert!(
            (shortest..=longest).contains(&pause),
            "pause {attempt}: {pause} ms"
        );
        assert_eq!(service.drain_jobs().await, 0, "not before its time");
        service.clock.advance(TimeDelta::milliseconds(longest));
    }

    assert_eq!(service.drain_jobs().await, 1);
    assert_eq!(only_job(&acme).await["state"], "done");
}

#[tokio::test]
async fn at_the_last_attempt_a_job_is_set_aside_with_its_reason_and_can_be_tried_again() {
    let service = TestOptions::default()
        .jobs(scripted_jobs())
        .set("jobs.max_attempts", 3)
        .start()
        .await;
    let acme = service.tenant("acme").await;
    let mended = Arc::new(AtomicBool::new(false));
    let is_mended = mended.clone();
    let work = Work::new(move |_, _| {
        let outcome = if is_mended.load(Ordering::SeqCst) {
            Outcome::Done
        } else {
            retry()
        };
        async move { outcome }
    });
    work.queue(&service.app, acme.id, "hopeless").await;

    for _ in 0..5 {
        service.drain_jobs().await;
        service.clock.advance(TimeDelta::hours(1));
    }

    let job = only_job(&acme).await;
    assert_eq!(work.begun().len(), 3);
    assert_eq!(
        (&job["state"], &job["last_error"]),
        (&json!("failed"), &json!("the shelf is empty"))
    );
    assert!(job["finished_at"].is_string());

    mended.store(true, Ordering::SeqCst);
    let retry_path = format!("/api/jobs/{}/retry", job["id"].as_str().expect("an id"));
    let queued = acme.post(&retry_path, json!({})).await.expect(200).json();
    assert_eq!(
        (&queued["state"], &queued["attempt"]),
        (&json!("queued"), &json!(0))
    );
    service.drain_jobs().await;
    assert_eq!(only_job(&acme).await["state"], "done");
    assert_eq!(
        acme.post(&retry_path, json!({})).await.expect(409).code(),
        "job_not_failed"
    );
}

#[tokio::test]
async fn a_job_that_panics_every_time_ends_failed_and_harms_no_other() {
    let service = TestOptions::default()
        .jobs(scripted_jobs())
        .set("jobs.max_attempts", 2)
        .start()
        .await;
    let acme = service.tenant("acme").await;
    let globex = service.tenant("globex").await;
    let work = Work::new(|label, _| async move {
        assert_ne!(label, "poison", "as the test wants it");
        Outcome::Done
    });
    work.queue(&service.app, acme.id, "poison").await;
    work.queue(&service.app, globex.id, "harmless").await;

    for _ in 0..3 {
        service.drain_jobs().await;
        service.clock.advance(TimeDelta::hours(1));
    }

    let job = only_job(&acme).await;
    assert_eq!((&job["state"], &job["attempt"]), (&json!("failed"), &json!(2)));
    assert!(
        job["last_error"]
            .as_str()
            .is_some_and(|reason| reason.contains("crashed")),
        "{job}"
    );
    assert_eq!(only_job(&globex).await["state"], "done");
}

#[tokio::test]
async fn a_job_that_kills_its_worker_every_time_ends_failed() {
    let service = TestOptions::default()
        .jobs(scripted_jobs())
        .set("jobs.max_attempts", 2)
        .start()
        .await;
    let acme = service.tenant("acme").await;
    let work = Work::new(|_, _| async { std::future::pending::<Outcome>().await });
    work.queue(&service.app, acme.id, "deadly").await;

    for _ in 0..2 {
        work.run_some(&service.app, 1).await;
        service.clock.advance(TimeDelta::seconds(61));
    }
    assert_eq!(service.drain_jobs().await, 0);

    let job = only_job(&acme).await;
    assert_eq!(job["state"], "failed");
    assert!(
        job["last_error"]
            .as_str()
            .is_some_and(|reason| reason.contains("died or stalled")),
        "{job}"
    );
}

#[tokio::test]
async fn a_job_that_met_deaths_and_then_fails_by_itself_waits_as_after_its_first_failure() {
    let service = start().await;
    let acme = service.tenant("acme").await;
    let is_deadly = Arc::new(AtomicBool::new(true));
    let kills = is_deadly.clone();
    let work = Work::new(move |_, _| {
        let kills = kills.load(Ordering::SeqCst);
        async move {
            match kills {
                true => std::future::pending::<Outcome>().await,
                false => retry(),
            }
        }
    });
    work.queue(&service.app, acme.id, "unlucky").await;
    for _ in 0..5 {
        work.run_some(&service.app, 1).await;
        service.clock.advance(TimeDelta::seconds(61));
    }
    is_deadly.store(false, Ordering::SeqCst);

    service.drain_jobs().await;

    let job = only_job(&acme).await;
    assert_eq!(
        (&job["attempt"], &job["last_error"]),
        (&json!(6), &json!("the shelf is empty"))
    );
    let pause = run_at(&job) - service.clock.now();
    assert!(pause <= TimeDelta::seconds(3), "{pause}");
}

#[tokio::test]
async fn an_outage_elsewhere_burns_no_attempts() {
    let service = TestOptions::default()
        .jobs(scripted_jobs())
        .set("jobs.max_attempts", 2)
        .start()
        .await;
    let acme = service.tenant("acme").await;
    let down = Arc::new(AtomicBool::new(true));
    let is_down = down.clone();
    let work = Work::new(move |_, _| {
        let outcome = if is_down.load(Ordering::SeqCst) {
            Outcome::Outage {
                reason: "the warehouse is closed".to_owned(),
                delay: Duration::from_secs(30),
            }
        } else {
            Outcome::Done
        };
        async move { outcome }
    });
    work.queue(&service.app, acme.id, "patient").await;

    for _ in 0..10 {
        assert_eq!(service.drain_jobs().await, 1);
        let job = only_job(&acme).await;
        assert_eq!(
            (&job["state"], &job["attempt"], &job["last_error"]),
            (&json!("queued"), &json!(0), &json!("the warehouse is closed"))
        );
        service.clock.advance(TimeDelta::seconds(40));
    }
    down.store(false, Ordering::SeqCst);
    service.drain_jobs().await;

    assert_eq!(only_job(&acme).await["state"], "done");
}
