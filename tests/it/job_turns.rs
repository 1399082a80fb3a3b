//! Who goes first: priorities, and turns among tenants.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use frontdesk::jobs::{self, JobContext, Outcome, Priority};
use tokio::sync::Semaphore;

use crate::harness::app::{TestApp, TestOptions};
use crate::harness::work::{Work, Workers, scripted_jobs, until};

const CROWD: usize = 10_000;

async fn start() -> TestApp {
    TestOptions::default().jobs(scripted_jobs()).start().await
}

fn crowd() -> Vec<String> {
    (0..CROWD).map(|number| format!("crowd {number}")).collect()
}

#[tokio::test]
async fn what_a_chat_waits_for_goes_before_a_bulk_import() {
    let service = start().await;
    let acme = service.tenant("acme").await;
    let work = Work::easy();
    work.queue_many(&service.app, acme.id, Priority::Bulk, crowd())
        .await;
    work.queue_many(&service.app, acme.id, Priority::Normal, ["upload"])
        .await;
    work.queue_many(&service.app, acme.id, Priority::Chat, ["chat"])
        .await;

    assert_eq!(
        work.run_some(&service.app, 3).await,
        ["chat", "upload", "crowd 0"]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_a_chat_waits_for_runs_even_while_every_worker_is_busy_with_imports() {
    let service = TestOptions::default()
        .jobs(scripted_jobs())
        .set("jobs.workers", 3)
        .start()
        .await;
    let acme = service.tenant("acme").await;
    let finish = Arc::new(Semaphore::new(0));
    let may_finish = finish.clone();
    let work = Work::new(move |label, _| {
        let may_finish = may_finish.clone();
        async move {
            if label != "chat" {
                may_finish.acquire().await.expect("open").forget();
            }
            Outcome::Done
        }
    });
    work.queue_many(
        &service.app,
        acme.id,
        Priority::Bulk,
        ["first", "second", "third"],
    )
    .await;
    let workers = Workers::start(&service.app);
    work.wait_begun(2).await;

    work.queue_many(&service.app, acme.id, Priority::Chat, ["chat"])
        .await;
    until("the chat is served", async || {
        work.begun().contains(&"chat".to_owned())
    })
    .await;

    assert!(
        !work.begun().contains(&"third".to_owned()),
        "no more imports at once than a tenant may have workers"
    );
    finish.add_permits(3);
    workers.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_tenants_long_jobs_leave_a_worker_to_the_others() {
    let service = TestOptions::default()
        .jobs(scripted_jobs())
        .set("jobs.workers", 3)
        .start()
        .await;
    let (acme, globex) = (service.tenant("acme").await, service.tenant("globex").await);
    let finish = Arc::new(Semaphore::new(0));
    let may_finish = finish.clone();
    let work = Work::new(move |label, _| {
        let may_finish = may_finish.clone();
        async move {
            if label.starts_with("long") {
                may_finish.acquire().await.expect("open").forget();
            }
            Outcome::Done
        }
    });
    let long: Vec<String> = (0..5).map(|number| format!("long {number}")).collect();
    work.queue_many(&service.app, acme.id, Priority::Normal, &long)
        .await;
    let workers = Workers::start(&service.app);
    work.wait_begun(2).await;

    work.queue_many(&service.app, globex.id, Priority::Normal, ["small"])
        .await;
    until("the other tenant is served", async || {
        work.begun().contains(&"small".to_owned())
    })
    .await;

    assert!(!work.begun().contains(&"long 2".to_owned()), "no third place");
    finish.add_permits(long.len());
    until("what was passed over is taken up", async || {
        work.begun().len() == long.len() + 1
    })
    .await;
    workers.stop().await;
}

#[tokio::test]
async fn a_job_that_had_its_turn_goes_on_behind_the_next_one_of_another_tenant() {
    let service = start().await;
    let (acme, globex) = (service.tenant("acme").await, service.tenant("globex").await);
    let turns = AtomicUsize::new(0);
    let work = Work::new(move |label, _| {
        let is_over = label == "long" && turns.fetch_add(1, Ordering::SeqCst) < 2;
        async move { if is_over { Outcome::TurnOver } else { Outcome::Done } }
    });
    work.queue(&service.app, acme.id, "long").await;
    for label in ["first", "second", "third"] {
        work.queue(&service.app, globex.id, label).await;
    }

    service.drain_jobs().await;

    assert_eq!(work.begun(), ["long", "first", "second", "long", "third", "long"]);
}

#[tokio::test]
async fn others_wait_who_are_of_another_tenant_and_no_less_urgent() {
    let service = start().await;
    let (acme, globex) = (service.tenant("acme").await, service.tenant("globex").await);
    let work = Work::easy();
    work.queue(&service.app, acme.id, "own").await;
    let listed = acme.get("/api/jobs").await.expect(200).json();
    let context = JobContext {
        job_id: serde_json::from_value(listed["items"][0]["id"].clone()).expect("an id"),
        tenant_id: Some(acme.id),
        attempt: 1,
    };
    let others_wait = async || {
        jobs::others_wait(&service.app, &context)
            .await
            .expect("an answer")
    };

    work.queue(&service.app, acme.id, "of the same tenant").await;
    work.queue_many(&service.app, globex.id, Priority::Bulk, ["less urgent"])
        .await;
    assert!(!others_wait().await);

    work.queue(&service.app, globex.id, "as urgent").await;
    assert!(others_wait().await);
}

#[tokio::test]
async fn one_tenants_crowd_does_not_starve_anothers_single_job() {
    let service = start().await;
    let (acme, globex) = (service.tenant("acme").await, service.tenant("globex").await);
    let work = Work::easy();
    work.queue_many(&service.app, acme.id, Priority::Bulk, crowd())
        .await;
    work.run_some(&service.app, 10).await;

    work.queue_many(&service.app, globex.id, Priority::Bulk, ["single"])
        .await;

    let next = work.run_some(&service.app, 3).await;
    assert!(next.contains(&"single".to_owned()), "{next:?}");
}

#[tokio::test]
async fn an_urgent_job_of_a_crowded_tenant_costs_the_other_tenants_nothing() {
    let service = start().await;
    let (acme, globex) = (service.tenant("acme").await, service.tenant("globex").await);
    let work = Work::easy();
    work.queue_many(&service.app, acme.id, Priority::Bulk, crowd())
        .await;
    work.queue_many(&service.app, acme.id, Priority::Chat, ["urgent"])
        .await;
    assert_eq!(work.run_some(&service.app, 1).await, ["urgent"]);

    work.queue_many(&service.app, globex.id, Priority::Bulk, ["single"])
        .await;

    let next = work.run_some(&service.app, 4).await;
    assert!(next.contains(&"single".to_owned()), "{next:?}");
}

#[tokio::test]
async fn a_tenant_that_had_the_queue_to_itself_does_not_pay_for_it_later() {
    let service = start().await;
    let (acme, globex) = (service.tenant("acme").await, service.tenant("globex").await);
    let work = Work::easy();
    work.queue_many(
        &service.app,
        acme.id,
        Priority::Bulk,
        (0..50).map(|number| format!("alone {number}")),
    )
    .await;
    service.drain_jobs().await;

    work.queue_many(
        &service.app,
        globex.id,
        Priority::Bulk,
        (0..10).map(|number| format!("globex {number}")),
    )
    .await;
    work.queue_many(
        &service.app,
        acme.id,
        Priority::Bulk,
        (0..10).map(|number| format!("acme {number}")),
    )
    .await;

    let next = work.run_some(&service.app, 8).await;
    assert_eq!(
        next.iter().filter(|label| label.starts_with("acme")).count(),
        4,
        "{next:?}"
    );
}
