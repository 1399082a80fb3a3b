//! Commands of the operator's open what the service has, with whatever their shell is set to: who only looks changes nothing,
//! and says what is lost; who repairs leaves nothing to do.

use std::path::Path;
use std::sync::Arc;

use chrono::TimeDelta;
use frontdesk::app::{App, Replacements};
use frontdesk::db::Scope;
use frontdesk::generations::operator::{self, Compared};
use frontdesk::on;
use retrieval::index::{EmbeddedIndex, EmbeddedOptions, Index as _};
use serde_json::json;

use crate::harness::app::{Chatbot, TestApp, TestClock, TestOptions, WordEmbedder};
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

fn as_a_command(clock: &Arc<TestClock>) -> Replacements {
    Replacements {
        clock: Some(clock.clone()),
        embedder: Some(Arc::new(WordEmbedder)),
        ..Replacements::default()
    }
}

#[tokio::test]
async fn who_looks_at_a_lost_index_is_told_and_makes_nothing_in_its_place() {
    let service = TestApp::start().await;
    let held = Held::with_documents(&service, DOCUMENTS).await;
    let before = all_rows(&service.app).await;

    let (service, (told, lying_there)) = service
        .in_between(async |config, clock| {
            lose_index(&config.data_dir);
            let refused = App::build_to_look_with(config.clone(), as_a_command(clock)).await;
            let told = refused.err().expect("it is gone").to_string();
            let index = config.data_dir.join("index");
            (
                told,
                std::fs::read_dir(index).map_or(0, |entries| entries.count()),
            )
        })
        .await;

    assert!(told.contains("it is gone: frontdesk index repair"), "{told}");
    assert_eq!(lying_there, 0);
    assert_ne!(all_rows(&service.app).await, before, "the service takes it up");
    assert!(service.drain_jobs().await > 0, "the service fills it again");
    held.tenant(&service).check_stores_agree().await;
}

#[tokio::test]
async fn an_index_that_nobody_is_answered_from_stays_where_it_lies_when_somebody_looks() {
    let service = TestApp::start().await;
    Held::with_documents(&service, DOCUMENTS).await;
    let (_service, [before, after]) = service
        .in_between(async |config, clock| {
            let index = config.data_dir.join("index");
            let unused = EmbeddedIndex::open(EmbeddedOptions {
                dir: index.clone(),
                model_id: Some("unused"),
                dimension: Some(3),
                shards: 1,
                mends: true,
            });
            unused.expect("made").close().await.expect("closed");
            let lying_there = || {
                let entries = std::fs::read_dir(&index).expect("the index").flatten();
                let mut names: Vec<_> = entries.map(|entry| entry.file_name()).collect();
                names.sort();
                names
            };
            let before = lying_there();
            let command = App::build_to_look_with(config.clone(), as_a_command(clock)).await;
            command.expect("the command starts").close().await;
            [before, lying_there()]
        })
        .await;

    assert_eq!(after, before);
}

#[tokio::test]
async fn a_lost_index_that_was_repaired_is_whole_for_the_service() {
    let service = TestApp::start().await;
    let held = Held::with_documents(&service, DOCUMENTS).await;

    let (service, (mended, then)) = service
        .in_between(async |config, clock| {
            lose_index(&config.data_dir);
            let command = App::build_to_repair_with(config.clone(), as_a_command(clock)).await;
            let command = command.expect("the command starts");
            let mended = operator::compare(&command, Some(held.tenant), true).await;
            let then = verified(&command).await;
            command.close().await;
            (mended.expect("mended"), then)
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
