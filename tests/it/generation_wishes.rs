//! What is made ready, and is not wanted any more: by the configuration, by whoever asked for it, or because nobody asks for it.

use std::sync::Arc;

use chrono::TimeDelta;
use frontdesk::db::Scope;
use frontdesk::generations::operator;
use frontdesk::on;
use retrieval::embed::Embedder;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::cuts;
use crate::harness::app::{Tenant, TestApp, WordEmbedder};
use crate::harness::embedders::WatchedEmbedder;
use crate::harness::generations::{
    GENERATIONS, Held, NEW, OLD, begin, listed, new_embedder, points, search, states, text_of, with_new_model,
};
use crate::harness::stored::{count_rows, page_about};
use crate::harness::work::spawn_worker;

/// Takes the configuration back; the new model can still be loaded.
async fn with_old_model(service: TestApp, embedder: Arc<WatchedEmbedder>, mode: &str) -> TestApp {
    let earlier: Vec<Arc<dyn Embedder>> = vec![embedder];
    let settings = [("index.on_model_change", mode)];
    service
        .restart_remembering(Some(Arc::new(WordEmbedder)), earlier, &settings)
        .await
}

async fn actions(acme: &Tenant<'_>) -> Vec<Value> {
    let log = acme.get("/api/audit").await.expect(200).json();
    let lines = log["items"].as_array().expect("items").clone();
    lines
        .into_iter()
        .filter(|line| line["object"]["kind"] == "generation")
        .map(|line| json!([line["action"], line["actor"]["kind"]]))
        .collect()
}

#[tokio::test]
async fn a_model_whose_configuration_was_taken_back_does_not_go_live() {
    let service = TestApp::start().await;
    let held = Held::with_documents(&service, 2).await;
    let embedder = new_embedder();
    embedder.set_down(true);
    let service = with_new_model(service, &embedder, "activate").await;
    service.drain_jobs().await;
    assert_eq!(states(&held.tenant(&service)).await, ["building", "live"]);

    embedder.set_down(false);
    let service = with_old_model(service, embedder, "activate").await;
    service.clock.advance(TimeDelta::hours(1));
    service.drain_jobs().await;

    let acme = held.tenant(&service);
    assert_eq!(states(&acme).await, ["retired", "live"]);
    assert_eq!(points(&service, held.tenant, NEW).await, 0);
    let found = search(&acme, &held.chatbot, "How often is Table1 oiled?").await;
    assert!(found["items"][0]["similarity"].is_number(), "{found}");
    assert_eq!(actions(&acme).await, [json!(["generation.retire", "system"])]);
}

#[tokio::test]
async fn asked_for_the_model_that_answers_what_was_made_ready_with_another_one_is_given_up() {
    let service = TestApp::start().await;
    let held = Held::with_documents(&service, 2).await;
    let embedder = new_embedder();
    let service = with_new_model(service, &embedder, "build").await;
    service.drain_jobs().await;
    let service = with_old_model(service, embedder, "build").await;
    service.drain_jobs().await;
    let acme = held.tenant(&service);
    assert_eq!(
        states(&acme).await,
        ["ready", "live"],
        "it may still be asked for"
    );

    let live = acme.post(GENERATIONS, json!({})).await.expect(202).json();

    assert_eq!(
        (&live["state"], &live["embedding"]),
        (&json!("live"), &json!(OLD))
    );
    service.drain_jobs().await;
    assert_eq!(states(&acme).await, ["retired", "live"]);
    assert_eq!(points(&service, held.tenant, NEW).await, 0);
    assert_eq!(actions(&acme).await[0][0], "generation.retire");
    let again = acme.post(GENERATIONS, json!({})).await.expect(409);
    assert_eq!(again.code(), "generation_current");
}

#[tokio::test]
async fn another_wish_takes_the_place_of_what_was_made_ready() {
    let service = TestApp::start().await;
    let held = Held::with_documents(&service, 2).await;
    let service = with_new_model(service, &new_embedder(), "wait").await;
    begin(&held.tenant(&service)).await;
    service.drain_jobs().await;

    let third = WatchedEmbedder::named("third-words", 128);
    let service = with_new_model(service, &third, "wait").await;
    let acme = held.tenant(&service);
    begin(&acme).await;
    service.drain_jobs().await;

    assert_eq!(states(&acme).await, ["ready", "retired", "live"]);
    assert_eq!(points(&service, held.tenant, NEW).await, 0);
}

#[tokio::test]
async fn what_nobody_asks_for_is_kept_ready_for_two_weeks() {
    let service = TestApp::start().await;
    let held = Held::with_documents(&service, 2).await;
    let service = with_new_model(service, &new_embedder(), "wait").await;
    let acme = held.tenant(&service);
    begin(&acme).await;
    cuts::begin(&acme, cuts::small()).await;
    service.drain_jobs().await;
    let of_kind = async |kind: &str| -> Vec<Value> {
        let all = listed(&acme).await;
        let of = all.iter().filter(|one| one["kind"] == kind);
        of.map(|one| one["state"].clone()).collect()
    };

    for (days, state) in [(13, "ready"), (2, "retired")] {
        service.clock.advance(TimeDelta::days(days));
        operator::take_up(&service.app).await.expect("upkeep");
        service.drain_jobs().await;
        for kind in ["model", "chunking"] {
            assert_eq!(of_kind(kind).await, [state, "live"], "{kind}");
        }
    }

    let rows = u64::try_from(count_rows(&service, "chunk").await).expect("a count");
    assert_eq!(points(&service, held.tenant, OLD).await, rows);
    assert_eq!(points(&service, held.tenant, NEW).await, 0);
    service.clock.advance(TimeDelta::days(91));
    operator::take_up(&service.app).await.expect("upkeep");
    assert_eq!(of_kind("chunking").await, ["live"]);
}

/// A document changes that the new model is to read once more.
async fn note_gap(service: &TestApp) {
    let mut write = service.app.db.write(Scope::Operator).await.expect("a writer");
    on!(write, c => sqlx::query(
        "insert into generation_gap (generation_id, document_id, tenant_id, mark)
         select g.id, d.id, d.tenant_id, $1
           from generation g
           join document d on d.tenant_id = g.tenant_id
          where g.space = $2
          order by d.id
          limit 1
         on conflict (generation_id, document_id) do update set mark = excluded.mark",
    ).bind(Uuid::now_v7()).bind(NEW).execute(c).await.map(drop))
    .expect("noted");
    write.commit().await.expect("committed");
}

#[tokio::test]
async fn a_model_goes_live_though_documents_change_without_a_pause() {
    let service = TestApp::start().await;
    let held = Held::with_documents(&service, 3).await;
    let embedder = new_embedder();
    embedder.hold();
    let settings = [("index.on_model_change", "activate"), ("embedding.cache_mb", "0")];
    let service = service
        .restart_with(Some(embedder.clone() as Arc<dyn Embedder>), &settings)
        .await;
    let acme = held.tenant(&service);
    let worker = spawn_worker(&service.app);

    for calls in 1..=10 {
        embedder.wait_held(calls).await;
        if states(&acme).await == ["live", "standby"] {
            break;
        }
        note_gap(&service).await;
        embedder.let_one_go();
        embedder.hold();
    }

    assert_eq!(states(&acme).await, ["live", "standby"]);
    assert_eq!(listed(&acme).await[0]["lacking"], 1);
    embedder.let_one_go();
    worker.await.expect("the worker lives");
    assert_eq!(listed(&acme).await[0]["lacking"], 0);
}

#[tokio::test]
async fn who_sets_another_chunking_and_who_gives_it_up_is_in_the_audit_log() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    desk.publish("manual.md", &page_about(&["Oak"])).await;
    let source = format!("/api/sources/{}", cuts::uploads(&acme).await);

    for chunking in [cuts::small(), json!(null)] {
        let body = json!({ "chunking": chunking });
        acme.patch(&source, body).await.expect(200);
    }
    service.drain_jobs().await;

    assert_eq!(
        actions(&acme).await,
        [
            json!(["generation.retire", "api_key"]),
            json!(["generation.begin", "api_key"])
        ]
    );
}

#[tokio::test]
async fn generations_are_listed_and_swapped_while_the_index_that_answers_cannot_be_opened() {
    let service = TestApp::start().await;
    let held = Held::with_documents(&service, 2).await;
    let cut = {
        let acme = held.tenant(&service);
        let cut = cuts::begin(&acme, cuts::small()).await;
        service.drain_jobs().await;
        cut
    };
    let mut write = service.app.db.write(Scope::Operator).await.expect("a writer");
    on!(write, c => sqlx::query("update embedding_space set settings = '\"nothing\"' where name = $1").bind(OLD).execute(c).await.map(drop))
        .expect("changed");
    write.commit().await.expect("committed");
    let service = with_new_model(service, &new_embedder(), "wait").await;
    let acme = held.tenant(&service);
    let search = format!("/api/chatbots/{}/search", held.chatbot);
    let query = json!({ "query": "How often is Table1 oiled?" });
    let failed = acme.post(&search, query).await;
    assert!(failed.status.is_server_error(), "{}", failed.text);

    let all = listed(&acme).await;

    assert!(all.iter().all(|one| one["embedding"] == OLD), "{all:?}");
    cuts::order(&acme, &cut, "activate", 200).await;
    cuts::order(&acme, &cut, "rollback", 200).await;
    assert_eq!(states(&acme).await, ["ready", "live", "live"]);
}

#[tokio::test]
async fn what_answers_counts_the_chunks_that_there_are() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let first = desk.publish("0.md", &text_of(0)).await;
    desk.publish("1.md", &text_of(1)).await;
    let counts = async || {
        let live = listed(&acme).await[0].clone();
        (live["chunks"].clone(), live["done"].clone())
    };
    assert_eq!(counts().await, (json!(2), json!(2)));

    acme.delete(&format!("/api/documents/{first}")).await.expect(204);
    service.drain_jobs().await;

    assert_eq!(counts().await, (json!(1), json!(1)));
}

#[tokio::test]
async fn what_hinders_a_generation_is_told_until_it_is_over() {
    let service = TestApp::start().await;
    let held = Held::with_documents(&service, 2).await;
    let embedder = new_embedder();
    embedder.set_down(true);
    let service = with_new_model(service, &embedder, "activate").await;
    let acme = held.tenant(&service);

    service.drain_jobs().await;

    let all = listed(&acme).await;
    let [building, live] = &all[..] else {
        panic!("there are two");
    };
    assert_eq!(building["state"], "building");
    let told = building["last_error"].as_str().expect("it is told");
    assert!(told.contains("the embedding model does not answer"), "{told}");
    assert!(live["last_error"].is_null(), "{live}");

    embedder.set_down(false);
    service.clock.advance(TimeDelta::seconds(15));
    service.drain_jobs().await;
    let all = listed(&acme).await;
    assert_eq!(all[0]["state"], "live");
    assert!(all.iter().all(|one| one["last_error"].is_null()), "{all:?}");
}
