//! Background work: every job ends or has a dated next try, whatever dies meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use frontdesk::app::App;
use frontdesk::clock::Clock as _;
use frontdesk::db::Scope;
use frontdesk::jobs::runner::{self, JobKinds, drain};
use frontdesk::jobs::{self, Outcome, Priority};
use frontdesk::on;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use crate::harness::app::{Tenant, TestApp, TestOptions, engine};
use crate::harness::work::{Work, Workers, scripted_jobs, spawn_worker, until};

async fn start() -> TestApp {
    TestOptions::default().jobs(scripted_jobs()).start().await
}

/// The tenant's only job.
async fn only_job(tenant: &Tenant<'_>) -> Value {
    let page = tenant.get("/api/jobs").await.expect(200).json();
    assert_eq!(page["items"].as_array().map(Vec::len), Some(1), "{page}");
    page["items"][0].clone()
}

fn run_at(job: &Value) -> DateTime<Utc> {
    job["run_at"].as_str().expect("a time").parse().expect("a time")
}

async fn lease_until(app: &App) -> DateTime<Utc> {
    let mut conn = app.db.read(Scope::Operator).await.expect("a connection");
    on!(conn, c => sqlx::query_scalar("select lease_until from job where state = 'running'").fetch_one(c).await).expect("one job runs")
}

fn retry() -> Outcome {
    Outcome::Retry {
        reason: "the shelf is empty".to_owned(),
        delay: None,
    }
}

#[tokio::test]
async fn a_job_exists_only_with_the_transaction_that_needs_it() {
    let service = start().await;
    let acme = service.tenant("acme").await;
    let work = Work::easy();

    let mut write = service.app.db.write(acme.id).await.expect("a transaction");
    jobs::enqueue(&service.app, &mut write, acme.id, &work.job("undone"))
        .await
        .expect("queued");
    drop(write);
    let mut write = service.app.db.write(acme.id).await.expect("a transaction");
    jobs::enqueue(&service.app, &mut write, acme.id, &work.job("kept"))
        .await
        .expect("queued");
    write.commit().await.expect("stored");

    assert_eq!(service.drain_jobs().await, 1);
    assert_eq!(work.begun(), ["kept"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_processes_never_run_one_job() {
    let service = start().await;
    let replica = service.replica(scripted_jobs()).await;
    let acme = service.tenant("acme").await;
    let work = Work::new(|_, _| async {
        tokio::task::yield_now().await;
        Outcome::Done
    });
    let labels: Vec<String> = (0..60).map(|number| format!("{number:02}")).collect();
    work.queue_many(&service.app, acme.id, Priority::Normal, &labels)
        .await;

    let workers = [Workers::start(&service.app), Workers::start(&replica)];
    until("all jobs are done", async || {
        jobs::count_open(&service.app).await.expect("a count") == 0
    })
    .await;
    for workers in workers {
        workers.stop().await;
    }

    let mut begun = work.begun();
    begun.sort();
    assert_eq!(begun, labels);
}

#[tokio::test]
async fn a_job_that_outlasts_its_lease_keeps_it_by_heartbeats() {
    let service = TestOptions::default()
        .jobs(scripted_jobs())
        .set("jobs.lease_s", 1)
        .start()
        .await;
    let replica = service.replica(scripted_jobs()).await;
    let acme = service.tenant("acme").await;
    let finish = Arc::new(Semaphore::new(0));
    let may_finish = finish.clone();
    let work = Work::new(move |_, _| {
        let may_finish = may_finish.clone();
        async move {
            may_finish.acquire().await.expect("open").forget();
            Outcome::Done
        }
    });
    work.queue(&service.app, acme.id, "long").await;
    let worker = spawn_worker(&service.app);
    work.wait_begun(1).await;

    for _ in 0..4 {
        let before = lease_until(&service.app).await;
        service.clock.advance(TimeDelta::milliseconds(900));
        until("the lease is renewed", async || {
            lease_until(&service.app).await > before
        })
        .await;
        assert_eq!(drain(&replica).await.expect("the queue works"), 0);
    }
    finish.add_permits(1);

    assert_eq!(worker.await.expect("the worker lives"), 1);
    let job = only_job(&acme).await;
    assert_eq!((&job["state"], &job["attempt"]), (&json!("done"), &json!(1)));
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

/// Queues a job of which one is enough.
async fn queue_one(tenant: &Tenant<'_>, app: &App, work: &Work, label: &str) {
    let mut write = app.db.write(tenant.id).await.expect("a transaction");
    jobs::enqueue_once(
        app,
        &mut write,
        tenant.id,
        &work.job(label),
        "the only one",
        app.clock.now(),
    )
    .await
    .expect("queued");
    write.commit().await.expect("stored");
}

#[tokio::test]
async fn a_turn_that_ends_while_another_job_of_its_key_waits_leaves_the_rest_to_that_one() {
    let service = start().await;
    let acme = service.tenant("acme").await;
    let (begun, go_on) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let (tells, waits) = (begun.clone(), go_on.clone());
    let work = Work::new(move |label, _| {
        let (tells, waits) = (tells.clone(), waits.clone());
        async move {
            if label == "second" {
                return Outcome::Done;
            }
            tells.add_permits(1);
            waits.acquire().await.expect("open").forget();
            Outcome::TurnOver
        }
    });
    queue_one(&acme, &service.app, &work, "first").await;
    let worker = spawn_worker(&service.app);
    begun.acquire().await.expect("open").forget();

    queue_one(&acme, &service.app, &work, "second").await;
    go_on.add_permits(1);

    assert_eq!(worker.await.expect("the worker ends"), 2);
    assert_eq!(work.begun(), ["first", "second"]);
    let page = acme.get("/api/jobs").await.expect(200).json();
    let states: Vec<&Value> = page["items"]
        .as_array()
        .expect("jobs")
        .iter()
        .map(|job| &job["state"])
        .collect();
    assert_eq!(states, ["done", "done"]);
}

#[tokio::test]
async fn a_failed_job_whose_place_another_one_has_taken_is_not_queued_twice() {
    let service = TestOptions::default()
        .jobs(scripted_jobs())
        .set("jobs.max_attempts", 1)
        .start()
        .await;
    let acme = service.tenant("acme").await;
    let work = Work::new(|_, _| async { retry() });
    queue_one(&acme, &service.app, &work, "first").await;
    service.drain_jobs().await;
    let failed = only_job(&acme).await;
    queue_one(&acme, &service.app, &work, "second").await;

    let path = format!("/api/jobs/{}/retry", failed["id"].as_str().expect("an id"));
    let refused = acme.post(&path, json!({})).await.expect(409);

    assert_eq!(refused.code(), "job_waits_already");
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

#[tokio::test]
async fn a_kind_that_this_version_does_not_know_is_left_for_one_that_does() {
    let service = start().await;
    let older = service.replica(JobKinds::default()).await;
    let acme = service.tenant("acme").await;
    let work = Work::easy();
    work.queue(&service.app, acme.id, "new").await;

    assert_eq!(drain(&older).await.expect("the queue works"), 0);
    assert_eq!(only_job(&acme).await["state"], "queued");

    assert_eq!(service.drain_jobs().await, 1);
    assert_eq!(only_job(&acme).await["state"], "done");
}

#[tokio::test]
async fn a_tenant_pages_through_its_own_jobs_newest_first() {
    let service = start().await;
    let (acme, globex) = (service.tenant("acme").await, service.tenant("globex").await);
    let work = Work::easy();
    for label in ["1", "2", "3", "4", "5"] {
        work.queue(&service.app, acme.id, label).await;
    }
    work.queue(&service.app, globex.id, "other").await;

    let (mut labels, mut cursor, mut pages) = (Vec::new(), String::new(), 0);
    loop {
        let page = acme
            .get(&format!("/api/jobs?limit=2{cursor}"))
            .await
            .expect(200)
            .json();
        let items = page["items"].as_array().expect("items");
        labels.extend(
            items
                .iter()
                .map(|job| job["payload"]["label"].as_str().expect("a label").to_owned()),
        );
        pages += 1;
        let Some(next) = page["next_cursor"].as_str() else {
            break;
        };
        cursor = format!("&cursor={next}");
    }

    assert_eq!(
        (labels, pages),
        (["5", "4", "3", "2", "1"].map(str::to_owned).to_vec(), 3)
    );
}

#[tokio::test]
async fn jobs_are_filtered_by_state_and_a_wrong_question_is_refused() {
    let service = start().await;
    let (acme, globex) = (service.tenant("acme").await, service.tenant("globex").await);
    let work = Work::new(|label, _| async move {
        if label == "bad" {
            Outcome::Fail {
                reason: "never".to_owned(),
            }
        } else {
            Outcome::Done
        }
    });
    work.queue(&service.app, acme.id, "bad").await;
    work.queue(&service.app, acme.id, "good").await;
    service.drain_jobs().await;
    work.queue(&service.app, acme.id, "next").await;

    for (state, label) in [("failed", "bad"), ("done", "good"), ("queued", "next")] {
        let page = acme
            .get(&format!("/api/jobs?state={state}"))
            .await
            .expect(200)
            .json();
        assert_eq!(page["items"].as_array().map(Vec::len), Some(1), "{state}: {page}");
        assert_eq!(page["items"][0]["payload"]["label"], label);
    }
    for wrong in ["state=asleep", "limit=0", "limit=101", "colour=red", "cursor=%00"] {
        acme.get(&format!("/api/jobs?{wrong}")).await.expect(422);
    }
    let id = acme.get("/api/jobs?state=failed").await.json()["items"][0]["id"]
        .as_str()
        .expect("an id")
        .to_owned();
    assert_eq!(
        globex.get(&format!("/api/jobs/{id}")).await.expect(404).code(),
        "not_found"
    );
    globex
        .post(&format!("/api/jobs/{id}/retry"), json!({}))
        .await
        .expect(404);
    assert_eq!(
        acme.get(&format!("/api/jobs/{id}")).await.expect(200).json()["last_error"],
        "never"
    );
}
