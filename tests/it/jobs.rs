//! Background work: a job is queued once, run by one, and seen by its tenant alone. What failures and deaths do to it is in
//! `job_failures.rs`.

use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use frontdesk::app::App;
use frontdesk::db::Scope;
use frontdesk::jobs::runner::{JobKinds, drain};
use frontdesk::jobs::{self, Outcome, Priority};
use frontdesk::on;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use crate::harness::app::{Tenant, TestApp, TestOptions};
use crate::harness::work::{Work, Workers, scripted_jobs, spawn_worker, until};

pub(crate) async fn start() -> TestApp {
    TestOptions::default().jobs(scripted_jobs()).start().await
}

/// The tenant's only job.
pub(crate) async fn only_job(tenant: &Tenant<'_>) -> Value {
    let page = tenant.get("/api/jobs").await.expect(200).json();
    assert_eq!(page["items"].as_array().map(Vec::len), Some(1), "{page}");
    page["items"][0].clone()
}

async fn lease_until(app: &App) -> DateTime<Utc> {
    let mut conn = app.db.read(Scope::Operator).await.expect("a connection");
    on!(conn, c => sqlx::query_scalar("select lease_until from job where state = 'running'").fetch_one(c).await).expect("one job runs")
}

pub(crate) fn retry() -> Outcome {
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
