//! A run that waits for its site holds nobody up, and ends at its owner's word.

use std::time::Duration;

use chrono::TimeDelta;
use frontdesk::db::Scope;
use frontdesk::jobs::Priority;
use frontdesk::knowledge::indexing;
use frontdesk::knowledge::sync::{self, Cause, RunState};
use frontdesk::{jobs, on};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::desk::{Desk, counts, options_for, service_for, website};
use super::site::{Answer, Site};
use crate::harness::app::{Chatbot, TestApp};
use crate::harness::work::{Workers, until};

/// A site that wishes to be left alone for an hour.
async fn closed_site() -> Site {
    let closed = Answer::status(503).header("retry-after", "3600");
    Site::start(&[("/closed", closed)]).await
}

async fn make(desk: &Chatbot<'_, '_>, body: Value) -> String {
    let path = format!("/api/chatbots/{}/sources", desk.id);
    desk.tenant.post(&path, body).await.expect(202).id()
}

async fn last_run(desk: &Chatbot<'_, '_>, source_id: &str) -> Value {
    let path = format!("/api/sources/{source_id}");
    desk.tenant.get(&path).await.expect(200).json()["last_run"].clone()
}

async fn running_jobs(service: &TestApp) -> i64 {
    let mut conn = service.app.db.read(Scope::Operator).await.expect("a connection");
    on!(conn, c => sqlx::query_scalar("select count(*) from job where state = 'running'").fetch_one(c).await)
        .expect("jobs")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_site_that_wants_to_be_left_alone_holds_up_no_other_tenant_and_its_runs_end_at_a_word() {
    let (closed, open) = (
        closed_site().await,
        Site::start(&[("/one", Answer::page("One", "We open at nine.", &[]))]).await,
    );
    let other_host = format!("localhost:{}", open.address.port());
    let service = options_for(&closed)
        .set("outbound.allow", format!("{},{other_host}", closed.address))
        .set("crawl.runs", 2)
        .start()
        .await;
    let (acme, globex) = (service.tenant("acme").await, service.tenant("globex").await);
    let (waiting, prompt) = (acme.chatbot("Desk").await, globex.chatbot("Desk").await);
    let workers = Workers::start(&service.app);
    let first = make(
        &waiting,
        json!({ "kind": "pages", "pages": { "urls": [closed.url("/closed")] } }),
    )
    .await;
    let mut asked = 0;
    until("the site asks for its pause", async || {
        asked += closed.take_asked().len();
        asked > 0
    })
    .await;
    let site = json!({ "kind": "website", "website": { "url": closed.url("/"), "max_pages": 3 } });
    let (second, third) = (make(&waiting, site.clone()).await, make(&waiting, site).await);
    until("all of them wait", async || running_jobs(&service).await == 0).await;

    let page = format!("http://{other_host}/one");
    let quick = make(&prompt, json!({ "kind": "pages", "pages": { "urls": [page] } })).await;
    until("the other tenant's page is read", async || {
        service.clock.advance(TimeDelta::milliseconds(50));
        last_run(&prompt, &quick).await["state"] == "done"
    })
    .await;
    assert_eq!(last_run(&prompt, &quick).await["new"], 1);

    for source_id in [&first, &second, &third] {
        assert_eq!(
            last_run(&waiting, source_id).await["state"],
            "running",
            "{source_id}"
        );
    }
    assert!(
        closed.take_asked().is_empty(),
        "nobody asks before the pause is over"
    );
    for (order, source_id) in [("pause", &first), ("cancel", &second)] {
        let path = format!("/api/sources/{source_id}/{order}");
        acme.post(&path, json!({})).await.expect(200);
    }
    let path = format!("/api/sources/{third}");
    acme.delete(&path).await.expect(204);
    until("nothing is left to do", async || {
        jobs::count_open(&service.app).await.expect("jobs") == 0
    })
    .await;
    assert_eq!(last_run(&waiting, &second).await["state"], "aborted");
    workers.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_run_that_waits_for_an_answer_ends_with_its_source() {
    let site = Site::start(&[(
        "/",
        Answer::page("Slow", "Here at last.", &[]).slow(Duration::from_secs(600)),
    )])
    .await;
    let service = options_for(&site).set("crawl.page_timeout_s", 900).start().await;
    let desk = Desk::of_website(&service, &site).await;
    let workers = Workers::start(&service.app);
    desk.request(Cause::Created).await;
    service.app.wake_workers();
    until("the run has begun", async || running_jobs(&service).await == 1).await;

    let mut write = service.app.db.write(desk.tenant_id).await.expect("a transaction");
    sync::cancel(&service.app, &mut write, desk.tenant_id, desk.source_id)
        .await
        .expect("cancelled");
    write.commit().await.expect("cancelled");
    until("its place is free", async || running_jobs(&service).await == 0).await;

    workers.stop().await;
}

#[tokio::test]
async fn a_site_with_a_pause_between_requests_is_read_in_turns() {
    let site = Site::start(&[
        ("/", Answer::page("Zero", "The start of it all.", &["/one"])),
        ("/one", Answer::page("One", "One link away.", &[])),
    ])
    .await;
    let service = service_for(&site).await;
    let mut settings = website(&site);
    settings["fetching"]["delay_ms"] = json!(2500);
    let desk = Desk::with(&service, "website", settings).await;
    let mut run = desk.request(Cause::Created).await;
    let mut turns = 0;

    // The pause is longer than anybody waits for it, so that the run gives its place back each time.
    while run.state == RunState::Running {
        service.drain_jobs().await;
        run = desk.run(&run).await;
        tokio::time::sleep(Duration::from_millis(600)).await;
        service.clock.advance(TimeDelta::milliseconds(600));
        turns += 1;
        assert!(turns < 100, "the run does not end: {run:?}");
    }

    assert!(turns > 2, "a turn waited: {turns}");
    assert_eq!((run.state, counts(&run)), (RunState::Done, [2, 0, 0, 0, 0]));
}

#[tokio::test]
async fn one_host_that_has_no_time_keeps_nobody_from_the_pages_of_another() {
    let (closed, open) = (
        closed_site().await,
        Site::start(&[("/one", Answer::page("One", "We open at nine.", &[]))]).await,
    );
    let other_host = format!("localhost:{}", open.address.port());
    let service = options_for(&closed)
        .set("outbound.allow", format!("{},{other_host}", closed.address))
        .start()
        .await;
    let mut urls: Vec<String> = (0..20)
        .map(|page| closed.url(&format!("/closed?{page}")))
        .collect();
    for page in 0..20 {
        closed.put(
            &format!("/closed?{page}"),
            Answer::status(503).header("retry-after", "3600"),
        );
    }
    urls.push(format!("http://{other_host}/one"));
    let settings = json!({
        "urls": urls, "shrink_limit_percent": 50,
        "fetching": { "header_names": [], "basic_auth_user": null, "render": false, "delay_ms": null },
    });
    let desk = Desk::with(&service, "pages", settings).await;
    desk.request(Cause::Created).await;

    service.drain_jobs().await;

    assert_eq!(desk.paths().await, ["/one"]);
    assert!(closed.take_asked().len() <= 16, "one round of requests at most");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_run_whose_slice_was_cut_short_goes_on_at_once() {
    let links: Vec<String> = (0..60).map(|page| format!("/page-{page}")).collect();
    let links: Vec<&str> = links.iter().map(String::as_str).collect();
    let site = Site::start(&[("/", Answer::page("Acme", "Everything we sell.", &links))]).await;
    for link in &links {
        let text = format!("What there is to say about {link}.");
        site.put(
            link,
            Answer::page(link, &text, &[]).slow(Duration::from_millis(60)),
        );
    }
    let service = service_for(&site).await;
    let desk = Desk::of_website(&service, &site).await;
    let run = desk.request(Cause::Created).await;
    let stop = CancellationToken::new();
    let worker = tokio::spawn(jobs::runner::run(
        service.app.clone(),
        stop.clone(),
        Duration::ZERO,
    ));
    until("something of the slice is stored", async || {
        desk.run(&run).await.new_count > 0
    })
    .await;

    // The process is told to stop, and the slice is given back to the queue.
    stop.cancel();
    worker.await.expect("the worker ends");
    assert_eq!(desk.run(&run).await.state, RunState::Running);
    for _ in 0..20 {
        service.drain_jobs().await;
        service.clock.advance(TimeDelta::seconds(10));
    }

    let run = desk.run(&run).await;
    assert_eq!((run.state, counts(&run)), (RunState::Done, [61, 0, 0, 0, 0]));
}

#[tokio::test]
async fn a_run_waits_no_longer_than_for_the_last_of_its_documents() {
    let site = Site::start(&[("/", Answer::page("Zero", "The start of it all.", &[]))]).await;
    let service = service_for(&site).await;
    let desk = Desk::of_website(&service, &site).await;
    desk.sync().await;
    let document_id = desk.documents().await["/"].0;
    let run = desk.request(Cause::Request).await;
    let mut write = service.app.db.write(desk.tenant_id).await.expect("a transaction");
    on!(write, c => sqlx::query("update sync_run set phase = 'indexing' where id = $1").bind(run.id).execute(c).await.map(drop))
        .expect("all is read");
    let file_key: String = on!(write, c => sqlx::query_scalar(
        "update document set state = 'queued', run_id = $2 where id = $1 returning file_key",
    ).bind(document_id).bind(run.id).fetch_one(c).await)
    .expect("one is left");
    write.commit().await.expect("stored");
    service.drain_jobs().await;
    assert_eq!(desk.run(&run).await.state, RunState::Running, "one is left");

    let mut write = service.app.db.write(desk.tenant_id).await.expect("a transaction");
    indexing::enqueue(
        &service.app,
        &mut write,
        desk.tenant_id,
        &[(document_id, file_key)],
        Priority::Bulk,
    )
    .await
    .expect("queued");
    write.commit().await.expect("stored");
    service.drain_jobs().await;

    assert_ne!(
        desk.run(&run).await.state,
        RunState::Running,
        "the clock stands still"
    );
}

#[tokio::test]
async fn a_lost_run_is_found_behind_any_number_of_runs_that_wait() {
    let site = Site::start(&[("/", Answer::page("Zero", "The start of it all.", &[]))]).await;
    let service = service_for(&site).await;
    let desk = Desk::of_website(&service, &site).await;
    let run = desk.request(Cause::Created).await;
    let (mut crowd, now) = (Vec::new(), service.app.clock.now());
    let mut write = service
        .app
        .db
        .write(Scope::Operator)
        .await
        .expect("a transaction");
    on!(write, c => sqlx::query("delete from job").execute(c).await.map(drop)).expect("lost");
    for number in 0..450 {
        let source_id = frontdesk::id::SourceId::new();
        on!(write, c => sqlx::query(
            "insert into source (id, tenant_id, chatbot_id, kind, name, settings, state, created_at, updated_at)
             select $1, tenant_id, chatbot_id, kind, name, settings, 'queued', created_at, updated_at from source where id = $2",
        ).bind(source_id).bind(desk.source_id).execute(c).await.map(drop))
        .expect("a source");
        crowd.push((source_id, number));
    }
    write.commit().await.expect("sources");
    for (source_id, _) in &crowd {
        let mut write = service.app.db.write(desk.tenant_id).await.expect("a transaction");
        let mut waiting = sync::request(
            &service.app,
            &mut write,
            desk.tenant_id,
            *source_id,
            Cause::Schedule,
        )
        .await
        .expect("a run");
        waiting.updated_at = now - TimeDelta::hours(1);
        on!(write, c => sqlx::query("update sync_run set updated_at = $2 where id = $1")
            .bind(waiting.id).bind(waiting.updated_at).execute(c).await.map(drop))
        .expect("an old run");
        on!(write, c => sqlx::query("update job set run_at = $1 where run_at = $2")
            .bind(now + TimeDelta::hours(1)).bind(now).execute(c).await.map(drop))
        .expect("its job waits");
        write.commit().await.expect("a run");
    }
    service.clock.advance(TimeDelta::minutes(11));

    sync::operator::take_up_silent(&service.app)
        .await
        .expect("upkeep");
    service.drain_jobs().await;
    service.clock.advance(TimeDelta::seconds(5));
    service.drain_jobs().await;

    assert_eq!(desk.run(&run).await.state, RunState::Done);
}
