//! Commands of the operator's open what the service has, with whatever their shell is set to: who only looks changes nothing,
//! and says what is lost; who repairs leaves nothing to do.

use std::path::Path;
use std::sync::Arc;

use chrono::TimeDelta;
use frontdesk::app::App;
use frontdesk::db::Scope;
use frontdesk::generations::operator::{self, Compared};
use frontdesk::{generations, on};
use serde_json::json;

use crate::harness::app::{Chatbot, TestApp, TestOptions, WordEmbedder};
use crate::harness::embedders::WatchedEmbedder;
use crate::harness::generations::{GENERATIONS, Held, NEW, OLD, begin, new_embedder, states};
use crate::harness::indexes::IndexSwitch;

const DOCUMENTS: usize = 3;

fn lose_index(data: &Path) {
    std::fs::remove_dir_all(data.join("index")).expect("removed");
}

/// All that says who is answered with what, what waits to be done, and what was used.
async fn all_rows(app: &App) -> Vec<String> {
    let mut conn = app.db.read(Scope::Operator).await.expect("a connection");
    on!(conn, c => sqlx::query_scalar(
        "select 'generation ' || space || ' ' || state || ' ' || cast(is_filled as text) from generation
         union all select 'space ' || name || ' ' || coalesce(making, 'none') from embedding_space
         union all select 'job ' || kind || ' ' || state from job
         union all select 'message ' || state from message
         union all select 'usage ' || model from usage_event
         order by 1",
    ).fetch_all(c).await)
    .expect("rows")
}

async fn verified(app: &App) -> Vec<Compared> {
    operator::compare(app, None, false).await.expect("compared")
}

#[tokio::test]
async fn a_command_that_looks_begins_nothing_gives_nothing_up_and_books_nothing() {
    let service = TestApp::start().await;
    let held = Held::with_documents(&service, DOCUMENTS).await;
    let service = service
        .restart_with(Some(new_embedder()), &[("index.on_model_change", "wait")])
        .await;
    let acme = held.tenant(&service);
    let id = begin(&acme).await;
    service.drain_jobs().await;
    acme.post(&format!("{GENERATIONS}/{id}/activate"), json!({}))
        .await
        .expect(200);
    let desk = Chatbot {
        tenant: &acme,
        id: held.chatbot.clone(),
    };
    desk.ask("How often is Table1 oiled?").await.expect(200);
    let mut write = service.app.db.write(Scope::Operator).await.expect("a writer");
    on!(write, c => sqlx::query("update message set state = 'writing' where role = 'assistant'")
        .execute(c).await.map(drop))
    .expect("as if its process had died");
    write.commit().await.expect("committed");
    service.clock.advance(TimeDelta::hours(25));
    let before = all_rows(&service.app).await;
    assert!(before.iter().any(|row| row == "message writing"), "{before:?}");
    assert_eq!(states(&acme).await, ["live", "standby"]);

    let another = WatchedEmbedder::named("not-the-services", 64);
    let (service, after) = service
        .looked_at(
            another,
            |_| (),
            async |app| {
                assert_eq!(verified(app).await.len(), 2);
                all_rows(app).await
            },
        )
        .await;

    assert_eq!(after, before);
    let started = all_rows(&service.app).await;
    assert_ne!(started, before, "the service takes up what the command left");
    assert_eq!(states(&held.tenant(&service)).await, ["live", "retired"]);
}

#[tokio::test]
async fn who_looks_at_a_lost_index_is_told_and_takes_nothing_up() {
    let service = TestApp::start().await;
    let held = Held::with_documents(&service, DOCUMENTS).await;
    let before = all_rows(&service.app).await;

    let (service, (compared, is_whole, after)) = service
        .looked_at(Arc::new(WordEmbedder), lose_index, async |app| {
            let live = generations::live_now(app, held.tenant)
                .await
                .expect("what answers");
            (verified(app).await, live.is_whole, all_rows(app).await)
        })
        .await;

    assert!(!is_whole, "an answer would say so");
    assert!(!compared[0].is_filled);
    assert_eq!(compared[0].findings.missing, DOCUMENTS as u64);
    assert_eq!(after, before);
    assert!(service.drain_jobs().await > 0, "the service fills it again");
    held.tenant(&service).check_stores_agree().await;
}

#[tokio::test]
async fn a_lost_index_that_was_repaired_is_whole_for_the_service() {
    let service = TestApp::start().await;
    let held = Held::with_documents(&service, DOCUMENTS).await;

    let (service, (mended, then)) = service
        .looked_at(Arc::new(WordEmbedder), lose_index, async |app| {
            let mended = operator::compare(app, Some(held.tenant), true).await;
            (mended.expect("mended"), verified(app).await)
        })
        .await;

    assert_eq!(mended[0].findings.missing, DOCUMENTS as u64);
    assert!(then[0].is_filled || then[0].findings.agree());
    assert_eq!(service.drain_jobs().await, 0, "nothing is left to do");
    let acme = held.tenant(&service);
    let path = format!("/api/chatbots/{}/search", held.chatbot);
    let found = acme
        .post(&path, json!({ "query": "How often is Table1 oiled?" }))
        .await;
    assert!(found.expect(200).json()["degraded"].is_null());
    acme.check_stores_agree().await;
}

#[tokio::test]
async fn what_is_built_beside_what_answers_is_named_and_left_to_the_service() {
    let service = TestApp::start().await;
    let held = Held::with_documents(&service, DOCUMENTS).await;
    let service = service.restart_with(Some(new_embedder()), &[]).await;

    let (service, (seen, mended)) = service
        .looked_at(
            new_embedder(),
            |_| (),
            async |app| {
                let mended = operator::compare(app, None, true).await;
                (verified(app).await, mended.expect("mended"))
            },
        )
        .await;

    for compared in [seen, mended] {
        let told: Vec<(&str, bool, u64)> = compared
            .iter()
            .map(|one| {
                (
                    one.generation.space.as_str(),
                    one.is_being_built(),
                    one.findings.missing,
                )
            })
            .collect();
        assert_eq!(told, [(OLD, false, 0), (NEW, true, DOCUMENTS as u64)]);
    }
    service.drain_jobs().await;
    assert_eq!(states(&held.tenant(&service)).await[0], "live");
}

#[tokio::test]
async fn what_is_put_in_while_it_is_compared_is_not_missing() {
    let index = IndexSwitch::default();
    let service = TestOptions::default().index(&index).start().await;
    Held::with_documents(&service, DOCUMENTS).await;
    index.miss_in_next_list();

    let compared = verified(&service.app).await;

    assert_eq!(compared[0].findings.points, 0, "the first look came too early");
    assert!(compared[0].findings.agree(), "{:?}", compared[0].findings);
}
