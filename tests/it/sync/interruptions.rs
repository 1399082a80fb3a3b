//! A run goes on where it stood, whatever ended its worker; an owner may hold it still or end it.

use std::time::Duration;

use chrono::TimeDelta;
use frontdesk::db::Scope;
use frontdesk::knowledge::sync::{self, Cause, RunState, SyncRun};
use frontdesk::on;

use super::desk::{Desk, counts, options_for, service_for};
use super::site::{Answer, Site};
use crate::harness::stored::count_rows;
use crate::harness::work::{spawn_worker, until};

/// Pages in a tree, three links each, every answer a little late.
async fn tree(count: usize) -> Site {
    let site = Site::start(&[]).await;
    for page in 0..count {
        let children: Vec<String> = (1..=3)
            .map(|child| page * 3 + child)
            .filter(|child| *child < count)
            .map(|child| format!("/n{child}"))
            .collect();
        let links: Vec<&str> = children.iter().map(String::as_str).collect();
        // Every tenth page is a copy of the one before.
        let said = if page % 10 == 9 { page - 1 } else { page };
        let text = format!("This is what node {said} has to say about wood {}.", said * 31);
        let title = format!("Node {said}");
        let path = if page == 0 {
            "/".to_owned()
        } else {
            format!("/n{page}")
        };
        site.put(
            &path,
            Answer::page(&title, &text, &links).slow(Duration::from_millis(8)),
        );
    }
    site
}

async fn chunk_texts(desk: &Desk<'_>) -> Vec<(String, String)> {
    let mut conn = desk
        .service
        .app
        .db
        .read(desk.tenant_id)
        .await
        .expect("a connection");
    on!(conn, c => sqlx::query_as(
        "select d.external_id, c.text from chunk c join document d on d.id = c.document_id order by d.external_id, c.position",
    ).fetch_all(c).await)
    .expect("chunks")
}

fn outcome(run: &SyncRun) -> (RunState, [i64; 5]) {
    (run.state, counts(run))
}

#[tokio::test]
async fn a_run_that_dies_again_and_again_ends_like_an_undisturbed_one() {
    let site = tree(90).await;
    let service = service_for(&site).await;
    let desk = Desk::of_website(&service, &site).await;
    let undisturbed = desk.sync().await;
    let (paths, texts) = (desk.paths().await, chunk_texts(&desk).await);
    assert_eq!(
        outcome(&undisturbed),
        (RunState::Done, [81, 0, 0, 0, 0]),
        "{undisturbed:?}"
    );
    drop(service);

    let service = service_for(&site).await;
    let desk = Desk::of_website(&service, &site).await;
    let run = desk.request(Cause::Created).await;
    site.take_asked();
    let mut seen = 0;
    for _ in 0..8 {
        let worker = spawn_worker(&service.app);
        until("some pages are asked for", async || {
            seen += site.take_asked().len();
            worker.is_finished() || seen >= 9
        })
        .await;
        seen = 0;
        worker.abort();
        let _ = worker.await;
        service.clock.advance(TimeDelta::minutes(2));
    }
    let run = desk.finish(run).await;

    assert_eq!(outcome(&run), outcome(&undisturbed), "{run:?}");
    assert_eq!(desk.paths().await, paths);
    assert_eq!(chunk_texts(&desk).await, texts);
    assert_eq!(count_rows(&service, "document").await, 81);
}

#[tokio::test]
async fn a_paused_source_reads_nothing_and_goes_on_where_it_stood() {
    let site = tree(40).await;
    let service = service_for(&site).await;
    let desk = Desk::of_website(&service, &site).await;
    let run = desk.request(Cause::Created).await;
    let worker = spawn_worker(&service.app);
    let mut asked = 0;
    until("some pages are read", async || {
        asked += site.take_asked().len();
        asked >= 15
    })
    .await;

    let mut write = service.app.db.write(desk.tenant_id).await.expect("a transaction");
    sync::pause(&service.app, &mut write, desk.tenant_id, desk.source_id)
        .await
        .expect("paused");
    write.commit().await.expect("paused");
    worker.await.expect("the worker ends");
    let at_pause = desk.run(&run).await;
    site.take_asked();
    service.clock.advance(TimeDelta::hours(30));
    service.drain_jobs().await;
    assert!(site.take_asked().is_empty());
    assert_eq!(desk.source_state().await, "paused");
    assert_eq!(desk.run(&run).await.state, RunState::Running);

    let mut write = service.app.db.write(desk.tenant_id).await.expect("a transaction");
    sync::resume(&service.app, &mut write, desk.tenant_id, desk.source_id)
        .await
        .expect("resumed");
    write.commit().await.expect("resumed");
    let run = desk.finish(run).await;

    assert_eq!(
        outcome(&run),
        (RunState::Done, [36, 0, 0, 0, 0]),
        "{run:?} {at_pause:?}"
    );
    let asked_again = site.take_asked().len();
    assert!(asked_again < 40, "what was read is not read again: {asked_again}");
}

#[tokio::test]
async fn a_cancelled_run_is_aborted_and_removes_nothing() {
    let site = tree(40).await;
    let service = service_for(&site).await;
    let desk = Desk::of_website(&service, &site).await;
    desk.sync().await;
    let before = desk.paths().await;
    site.put(
        "/",
        Answer::page("Node 0", "Nothing else is left.", &[]).slow(Duration::from_millis(300)),
    );
    let run = desk.request(Cause::Request).await;
    let worker = spawn_worker(&service.app);
    until("the run has begun", async || {
        desk.source_state().await == "running"
    })
    .await;

    let mut write = service.app.db.write(desk.tenant_id).await.expect("a transaction");
    let cancelled = sync::cancel(&service.app, &mut write, desk.tenant_id, desk.source_id)
        .await
        .expect("cancelled")
        .expect("an open run");
    write.commit().await.expect("cancelled");
    worker.await.expect("the worker ends");

    assert_eq!((cancelled.id, cancelled.state), (run.id, RunState::Aborted));
    let run = desk.run(&run).await;
    assert_eq!(outcome(&run), (RunState::Aborted, [0, 0, 0, 0, 0]));
    assert!(run.ended_at.is_some());
    assert_eq!(
        (desk.paths().await, desk.source_state().await),
        (before, "idle".to_owned())
    );
}

#[tokio::test]
async fn a_tenant_that_is_deleted_takes_its_run_along() {
    let site = tree(40).await;
    let service = service_for(&site).await;
    let desk = Desk::of_website(&service, &site).await;
    desk.request(Cause::Created).await;
    let worker = spawn_worker(&service.app);
    let mut asked = 0;
    until("some pages are read", async || {
        asked += site.take_asked().len();
        asked >= 15
    })
    .await;

    let mut write = service
        .app
        .db
        .write(Scope::Operator)
        .await
        .expect("a transaction");
    on!(write, c => sqlx::query("delete from tenant where id = $1").bind(desk.tenant_id).execute(c).await.map(drop))
        .expect("deleted");
    write.commit().await.expect("deleted");
    worker.await.expect("the worker ends");
    service.drain_jobs().await;

    for table in ["document", "source_item", "sync_run", "chunk"] {
        assert_eq!(count_rows(&service, table).await, 0, "{table}");
    }
}

#[tokio::test]
async fn a_run_whose_job_is_lost_is_taken_up_by_upkeep() {
    let site = tree(10).await;
    let service = service_for(&site).await;
    let desk = Desk::of_website(&service, &site).await;
    let run = desk.request(Cause::Created).await;
    let mut write = service
        .app
        .db
        .write(Scope::Operator)
        .await
        .expect("a transaction");
    on!(write, c => sqlx::query("delete from job").execute(c).await.map(drop)).expect("lost");
    write.commit().await.expect("lost");
    service.clock.advance(TimeDelta::minutes(11));

    sync::operator::take_up_silent(&service.app)
        .await
        .expect("upkeep");
    let run = desk.finish(run).await;

    assert_eq!(outcome(&run), (RunState::Done, [9, 0, 0, 0, 0]));
}

#[tokio::test]
async fn a_run_that_takes_too_long_ends_with_its_reason() {
    let site = tree(10).await;
    let service = options_for(&site).set("crawl.run_limit_hours", 2).start().await;
    let desk = Desk::of_website(&service, &site).await;
    let run = desk.request(Cause::Created).await;
    service.clock.advance(TimeDelta::hours(3));

    let run = desk.finish(run).await;

    assert_eq!(run.state, RunState::Failed);
    assert_eq!(run.error.expect("a reason").0, "run_too_long");
    assert_eq!(desk.source_state().await, "failed");
}

#[tokio::test]
async fn a_suspended_tenants_run_waits() {
    let site = tree(4).await;
    let service = service_for(&site).await;
    let desk = Desk::of_website(&service, &site).await;
    let run = desk.request(Cause::Created).await;
    set_tenant_state(&desk, "suspended").await;
    service.drain_jobs().await;
    assert!(site.take_asked().is_empty());

    set_tenant_state(&desk, "active").await;
    service.clock.advance(TimeDelta::minutes(10));
    let run = desk.finish(run).await;

    assert_eq!(outcome(&run), (RunState::Done, [4, 0, 0, 0, 0]));
}

async fn set_tenant_state(desk: &Desk<'_>, state: &str) {
    let mut write = desk
        .service
        .app
        .db
        .write(Scope::Operator)
        .await
        .expect("a transaction");
    on!(write, c => sqlx::query("update tenant set state = $2 where id = $1").bind(desk.tenant_id).bind(state).execute(c).await.map(drop))
        .expect("set");
    write.commit().await.expect("set");
}

#[tokio::test]
async fn one_run_at_a_time() {
    let site = tree(4).await;
    let service = service_for(&site).await;
    let desk = Desk::of_website(&service, &site).await;
    desk.request(Cause::Created).await;

    let mut write = service.app.db.write(desk.tenant_id).await.expect("a transaction");
    let second = sync::request(
        &service.app,
        &mut write,
        desk.tenant_id,
        desk.source_id,
        Cause::Schedule,
    )
    .await;
    drop(write);

    assert!(second.expect_err("refused").to_string().contains("being synced"));
    service.drain_jobs().await;
}
