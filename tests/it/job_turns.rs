//! Who goes first: priorities, and turns among tenants.

use std::sync::Arc;

use frontdesk::jobs::{Outcome, Priority};
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
        .set("jobs.workers", 2)
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
        "no more imports at once than there are workers"
    );
    finish.add_permits(3);
    workers.stop().await;
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
