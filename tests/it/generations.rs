//! Another embedding model is configured: its generation is built beside the one that answers, takes its place and is taken
//! back, and nobody who asks meanwhile notices.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use chrono::TimeDelta;
use frontdesk::generations;
use frontdesk::jobs;
use frontdesk::knowledge::verify::{self, Findings};
use retrieval::embed::Embedder;
use retrieval::index::{Facets, Point};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::harness::app::{Chatbot, Tenant, TestApp, WordEmbedder};
use crate::harness::embedders::WatchedEmbedder;
use crate::harness::generations::{
    GENERATIONS, Held, NEW, OLD, begin, listed, new_embedder, points, search, states, text_of, with_new_model,
};
use crate::harness::stored::count_rows;
use crate::harness::work::until;

/// Puts documents in until it is told to stop, each when the one before is through; how many there are.
async fn publish_on(desk: &Chatbot<'_, '_>, stop: &AtomicBool) -> usize {
    let mut count = 0;
    while !stop.load(Ordering::SeqCst) {
        let text = format!("Chair{count} is waxed {count} times a year.");
        desk.upload(&[(&format!("chair{count}.md"), text.as_bytes())])
            .await
            .expect(202);
        count += 1;
        let app = &desk.tenant.service.app;
        while !stop.load(Ordering::SeqCst) && jobs::count_open(app).await.expect("a count") > 0 {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    count
}

/// Chats without a pause until it is told to stop; what was wrong.
async fn chat_on(desk: &Chatbot<'_, '_>, stop: &AtomicBool) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut number = 0;
    while !stop.load(Ordering::SeqCst) {
        number = (number + 3) % 8;
        let reply = desk.ask(&format!("How often is Table{number} oiled?")).await;
        let body = reply.json();
        let is_right = reply.status == 200
            && body["degraded"].is_null()
            && body["answer"]
                .as_str()
                .is_some_and(|said| said.contains(&format!("Table{number} is oiled")));
        if !is_right {
            wrong.push(reply.text);
        }
    }
    wrong
}

/// Asks without a pause until it is told to stop; how often, and what was wrong.
async fn ask_on(acme: &Tenant<'_>, chatbot: &str, stop: &AtomicBool, asked: &AtomicUsize) -> Vec<String> {
    let path = format!("/api/chatbots/{chatbot}/search");
    let mut wrong = Vec::new();
    while !stop.load(Ordering::SeqCst) {
        let number = asked.fetch_add(1, Ordering::SeqCst) % 8;
        let query = json!({ "query": format!("How often is Table{number} oiled?") });
        let reply = acme.post(&path, query).await;
        let body = reply.json();
        let best = &body["items"][0];
        let is_right = reply.status == 200
            && body["degraded"].is_null()
            && best["text"] == text_of(number)
            && best["similarity"]
                .as_f64()
                .is_some_and(|similarity| similarity > 0.3);
        if !is_right {
            wrong.push(reply.text);
        }
    }
    wrong
}

#[tokio::test]
async fn under_constant_load_a_generation_is_built_goes_live_is_taken_back_and_reclaims_the_old_one_without_one_failed_or_mixed_answer()
 {
    let service = TestApp::start().await;
    let held = Held::with_documents(&service, 8).await;
    let embedder = new_embedder();
    let service = with_new_model(service, &embedder, "wait").await;
    let acme = held.tenant(&service);
    let desk = Chatbot {
        tenant: &acme,
        id: held.chatbot.clone(),
    };
    let (stop, asked) = (AtomicBool::new(false), AtomicUsize::new(0));
    // Documents come meanwhile, and are put in.
    let wait_for_more = async || {
        let before = asked.load(Ordering::SeqCst);
        while asked.load(Ordering::SeqCst) < before + 20 {
            service.drain_jobs().await;
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };

    let change = async {
        wait_for_more().await;
        let id = begin(&acme).await;
        until("the new generation is ready", async || {
            service.drain_jobs().await;
            states(&acme).await == ["ready", "live"]
        })
        .await;
        let activate = async || {
            // It may lack what was published this moment.
            until("it goes live", async || {
                let reply = acme
                    .post(&format!("{GENERATIONS}/{id}/activate"), json!({}))
                    .await;
                service.drain_jobs().await;
                reply.status == 200
            })
            .await;
        };
        for _ in 0..3 {
            activate().await;
            wait_for_more().await;
            assert_eq!(states(&acme).await, ["live", "standby"]);
            service.drain_jobs().await;
            acme.post(&format!("{GENERATIONS}/{id}/rollback"), json!({}))
                .await
                .expect(200);
            service.drain_jobs().await;
            wait_for_more().await;
            assert_eq!(states(&acme).await, ["ready", "live"]);
        }
        activate().await;
        wait_for_more().await;
        service.clock.advance(TimeDelta::hours(25));
        generations::operator::take_up(&service.app)
            .await
            .expect("upkeep");
        wait_for_more().await;
        assert_eq!(states(&acme).await, ["live", "retired"]);
        stop.store(true, Ordering::SeqCst);
    };
    let (chatbot, stop_of, asked_of) = (held.chatbot.as_str(), &stop, &asked);
    let (first, second, chatted, published, ()) = tokio::join!(
        ask_on(&acme, chatbot, stop_of, asked_of),
        ask_on(&acme, chatbot, stop_of, asked_of),
        chat_on(&desk, stop_of),
        publish_on(&desk, stop_of),
        change
    );

    let wrong: Vec<String> = [first, second, chatted].concat();
    assert_eq!(wrong, Vec::<String>::new());
    assert!(asked.load(Ordering::SeqCst) >= 160);
    service.drain_jobs().await;
    assert_eq!(points(&service, held.tenant, OLD).await, 0);
    assert_eq!(points(&service, held.tenant, NEW).await, 8 + published as u64);
    let documents = embedder.take_documents();
    let tables = documents.iter().filter(|text| text.contains("Table")).count();
    assert_eq!(tables, 8, "each was embedded once: {documents:?}");
}

#[tokio::test]
async fn with_another_model_configured_the_old_one_answers_until_the_new_one_is_complete_by_itself() {
    let service = TestApp::start().await;
    let held = Held::with_documents(&service, 3).await;
    let embedder = new_embedder();
    embedder.set_down(true);
    let service = with_new_model(service, &embedder, "activate").await;
    service.drain_jobs().await;
    {
        let acme = held.tenant(&service);
        assert_eq!(states(&acme).await, ["building", "live"]);
        let found = search(&acme, &held.chatbot, "How often is Table2 oiled?").await;
        assert!(found["items"][0]["similarity"].is_number(), "{found}");
        assert!(found["degraded"].is_null(), "{found}");
    }

    // Its process may end whenever it likes.
    let service = with_new_model(service, &embedder, "activate").await;
    embedder.set_down(false);
    service.clock.advance(TimeDelta::hours(1));
    service.drain_jobs().await;

    let acme = held.tenant(&service);
    assert_eq!(states(&acme).await, ["live", "standby"]);
    let found = search(&acme, &held.chatbot, "How often is Table2 oiled?").await;
    assert_eq!(found["items"][0]["text"], text_of(2), "{found}");
    assert_eq!(points(&service, held.tenant, NEW).await, 3);
    let log = acme.get("/api/audit").await.expect(200).json();
    let line = log["items"].as_array().expect("items").iter();
    let activated: Vec<&Value> = line
        .filter(|line| line["action"] == "generation.activate")
        .collect();
    assert_eq!(activated.len(), 1, "{log}");
    assert_eq!(
        activated[0]["actor"],
        json!({ "kind": "system", "id": "generations" }),
        "{log}"
    );
}

#[tokio::test]
async fn a_generation_that_was_taken_back_does_not_come_again_by_itself() {
    let service = TestApp::start().await;
    let held = Held::with_documents(&service, 2).await;
    let embedder = new_embedder();
    let service = with_new_model(service, &embedder, "activate").await;
    service.drain_jobs().await;
    {
        let acme = held.tenant(&service);
        let id = listed(&acme).await[0]["id"].as_str().expect("an id").to_owned();
        acme.post(&format!("{GENERATIONS}/{id}/rollback"), json!({}))
            .await
            .expect(200);
        let twice = acme
            .post(&format!("{GENERATIONS}/{id}/rollback"), json!({}))
            .await
            .expect(409);
        assert_eq!(twice.code(), "generation_not_live");
    }

    let earlier: Vec<Arc<dyn Embedder>> = vec![Arc::new(WordEmbedder)];
    let settings = [("index.on_model_change", "activate")];
    let service = service
        .restart_remembering(Some(embedder as Arc<dyn Embedder>), earlier, &settings)
        .await;
    service.drain_jobs().await;

    let acme = held.tenant(&service);
    assert_eq!(states(&acme).await, ["ready", "live"]);
    assert_eq!(listed(&acme).await[1]["embedding"], OLD);
    let found = search(&acme, &held.chatbot, "How often is Table1 oiled?").await;
    assert!(found["items"][0]["similarity"].is_number(), "{found}");
}

#[tokio::test]
async fn what_comes_and_goes_while_two_generations_are_kept_is_in_both() {
    let service = TestApp::start().await;
    let held = Held::with_documents(&service, 2).await;
    let embedder = new_embedder();
    let service = with_new_model(service, &embedder, "wait").await;
    let acme = held.tenant(&service);
    let desk = Chatbot {
        tenant: &acme,
        id: held.chatbot.clone(),
    };
    let id = begin(&acme).await;
    service.drain_jobs().await;

    let added = desk.publish("9.md", &text_of(9)).await;
    desk.upload(&[("0.md", b"Chairs are waxed once a year.")])
        .await
        .expect(202);
    service.drain_jobs().await;
    assert_eq!(
        (
            points(&service, held.tenant, OLD).await,
            points(&service, held.tenant, NEW).await
        ),
        (3, 3)
    );
    acme.post(&format!("{GENERATIONS}/{id}/activate"), json!({}))
        .await
        .expect(200);
    for query in ["How often is Table9 oiled?", "How often are chairs waxed?"] {
        let found = search(&acme, &held.chatbot, query).await;
        assert!(found["items"][0]["similarity"].as_f64() > Some(0.3), "{found}");
        assert!(found["degraded"].is_null(), "{found}");
    }
    acme.delete(&format!("/api/documents/{added}")).await.expect(204);
    service.drain_jobs().await;

    assert_eq!(
        (
            points(&service, held.tenant, OLD).await,
            points(&service, held.tenant, NEW).await
        ),
        (2, 2)
    );
    assert_eq!(count_rows(&service, "generation_gap").await, 0);
}

#[tokio::test]
async fn where_the_old_model_is_gone_words_answer_and_say_so_until_the_new_one_is_ready() {
    let service = TestApp::start().await;
    let held = Held::with_documents(&service, 2).await;
    let embedder = new_embedder();
    let settings = [("index.on_model_change", "wait")];
    let service = service
        .restart_remembering(Some(embedder as Arc<dyn Embedder>), Vec::new(), &settings)
        .await;
    let acme = held.tenant(&service);

    let found = search(&acme, &held.chatbot, "How often is Table1 oiled?").await;

    assert_eq!(found["items"][0]["text"], text_of(1), "{found}");
    assert_eq!(found["degraded"][0]["code"], "embedding_unavailable", "{found}");
    acme.post(&format!("{GENERATIONS}?activate=true"), json!({}))
        .await
        .expect(202);
    service.drain_jobs().await;
    let found = search(&acme, &held.chatbot, "How often is Table1 oiled?").await;
    assert!(
        found["degraded"].is_null() && found["items"][0]["similarity"].is_number(),
        "{found}"
    );
}

#[tokio::test]
async fn the_new_generation_is_compared_on_the_tenants_own_questions() {
    let service = TestApp::start().await;
    let held = Held::with_documents(&service, 3).await;
    {
        let acme = held.tenant(&service);
        let desk = Chatbot {
            tenant: &acme,
            id: held.chatbot.clone(),
        };
        desk.ask("How often is Table1 oiled?").await.expect(200);
    }
    let service = with_new_model(service, &new_embedder(), "wait").await;
    let acme = held.tenant(&service);
    begin(&acme).await;
    service.drain_jobs().await;
    let by_visitors = listed(&acme).await[0]["comparison"].clone();
    assert_eq!(
        (
            &by_visitors["questions"],
            &by_visitors["judged"],
            &by_visitors["overlap_at_10"]
        ),
        (&json!(1), &json!(0), &json!(1.0)),
        "{by_visitors}"
    );
    assert!(by_visitors["new_ndcg_at_10"].is_null());

    let service = with_new_model(service, &WatchedEmbedder::named("third-words", 128), "wait").await;
    let acme = held.tenant(&service);
    let evals = format!("/api/chatbots/{}/evals", held.chatbot);
    let questions = json!([{ "question": "How often is Table2 oiled?", "answer": "oiled 2 times" }]);
    acme.post(&evals, json!({ "name": "Tables", "questions": questions }))
        .await
        .expect(201);
    begin(&acme).await;
    service.drain_jobs().await;

    let judged = listed(&acme).await[0]["comparison"].clone();
    assert_eq!(
        (&judged["judged"], &judged["new_ndcg_at_10"], &judged["worse"]),
        (&json!(1), &json!(1.0), &json!(0)),
        "{judged}"
    );
}

#[tokio::test]
async fn only_what_is_complete_goes_live_and_what_is_current_is_not_built_again() {
    let service = TestApp::start().await;
    let held = Held::with_documents(&service, 1).await;
    {
        let acme = held.tenant(&service);
        let current = acme.post(GENERATIONS, json!({})).await.expect(409);
        assert_eq!(current.code(), "generation_current");
        let live = listed(&acme).await[0]["id"].as_str().expect("an id").to_owned();
        let alone = acme
            .post(&format!("{GENERATIONS}/{live}/rollback"), json!({}))
            .await
            .expect(409);
        assert_eq!(alone.code(), "no_previous_generation");
    }
    let service = with_new_model(service, &new_embedder(), "wait").await;
    let acme = held.tenant(&service);
    let id = begin(&acme).await;
    assert_eq!(begin(&acme).await, id, "it is under way");

    let early = acme
        .post(&format!("{GENERATIONS}/{id}/activate"), json!({}))
        .await
        .expect(409);

    assert_eq!(early.code(), "generation_not_ready");
    service.drain_jobs().await;
    acme.post(&format!("{GENERATIONS}/{id}/activate"), json!({}))
        .await
        .expect(200);
    acme.post(&format!("{GENERATIONS}/{id}/rollback"), json!({}))
        .await
        .expect(200);
    let actions: Vec<Value> = acme.get("/api/audit").await.expect(200).json()["items"]
        .as_array()
        .expect("items")
        .iter()
        .map(|line| line["action"].clone())
        .collect();
    for action in ["generation.begin", "generation.activate", "generation.rollback"] {
        assert!(actions.contains(&json!(action)), "{action}: {actions:?}");
    }
}

#[tokio::test]
async fn the_old_generation_is_kept_for_a_while_and_then_its_room_is_given_back() {
    let service = TestApp::start().await;
    let held = Held::with_documents(&service, 2).await;
    let service = with_new_model(service, &new_embedder(), "activate").await;
    service.drain_jobs().await;
    assert_eq!(points(&service, held.tenant, OLD).await, 2);

    generations::operator::take_up(&service.app)
        .await
        .expect("upkeep");
    service.drain_jobs().await;
    assert_eq!(points(&service, held.tenant, OLD).await, 2, "a way back");
    service.clock.advance(TimeDelta::hours(25));
    generations::operator::take_up(&service.app)
        .await
        .expect("upkeep");
    service.drain_jobs().await;

    let acme = held.tenant(&service);
    assert_eq!(points(&service, held.tenant, OLD).await, 0);
    assert_eq!(points(&service, held.tenant, NEW).await, 2);
    assert_eq!(states(&acme).await, ["live", "retired"]);
    let found = search(&acme, &held.chatbot, "How often is Table1 oiled?").await;
    assert_eq!(found["items"][0]["text"], text_of(1), "{found}");
}

#[tokio::test]
async fn what_the_index_lacks_has_too_much_or_has_otherwise_is_found_and_mended() {
    let service = TestApp::start().await;
    let held = Held::with_documents(&service, 3).await;
    let acme = held.tenant(&service);
    let space = service.app.spaces.wanted().clone();
    let tenant = retrieval::TenantId(held.tenant.0);
    let stored = space.index.list(tenant, None, 10).await.expect("points");
    let compare = async |heals| {
        verify::compare(&service.app, held.tenant, &space, heals)
            .await
            .expect("compared")
    };
    assert!(compare(false).await.agree());
    let point = |id: Uuid, text: &str| Point {
        chunk_id: retrieval::ChunkId(id),
        document_id: stored[1].document_id,
        source_id: stored[1].source_id,
        text: text.to_owned(),
        vector: Some(vec![0.0625; 256]),
        facets: Facets::default(),
    };
    space
        .index
        .delete_chunks(tenant, vec![stored[0].chunk_id])
        .await
        .expect("deleted");
    let wrong = vec![
        point(stored[1].chunk_id.0, "Another text."),
        point(Uuid::now_v7(), "Nobody's."),
    ];
    space.index.upsert(tenant, wrong).await.expect("stored");

    let found = compare(false).await;

    let expected = Findings {
        chunks: 3,
        points: 3,
        missing: 1,
        different: 1,
        stray: 1,
    };
    assert_eq!(found, expected);
    assert_eq!(compare(true).await, expected, "it says what it found");
    assert!(compare(false).await.agree());
    for number in 0..3 {
        let found = search(
            &acme,
            &held.chatbot,
            &format!("How often is Table{number} oiled?"),
        )
        .await;
        assert_eq!(found["items"][0]["text"], text_of(number), "{found}");
    }
}

#[tokio::test]
async fn an_hourly_look_at_the_counts_has_an_index_mended_that_lost_something() {
    let service = TestApp::start().await;
    let held = Held::with_documents(&service, 3).await;
    let check = async || {
        generations::operator::check_counts(&service.app)
            .await
            .expect("counted")
    };
    assert_eq!(check().await, []);
    let index = service.app.spaces.wanted().index.clone();
    let tenant = retrieval::TenantId(held.tenant.0);
    let lost = index.list(tenant, None, 1).await.expect("a point")[0].chunk_id;
    index.delete_chunks(tenant, vec![lost]).await.expect("deleted");

    assert_eq!(check().await, [held.tenant]);
    service.drain_jobs().await;

    assert_eq!(check().await, []);
    held.tenant(&service).check_stores_agree().await;
}
