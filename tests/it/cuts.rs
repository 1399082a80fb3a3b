//! A source's documents are cut otherwise: the new chunks are made beside those that answer, take their place in one moment and
//! are taken back, and nobody who asks meanwhile notices.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use chrono::TimeDelta;
use frontdesk::generations;
use frontdesk::id::SourceId;
use frontdesk::on;
use serde_json::{Value, json};

use crate::harness::app::{Chatbot, Tenant, TestApp, TestOptions};
use crate::harness::embedders::WatchedEmbedder;
use crate::harness::stored::{count_rows, page_about};
use crate::harness::work::spawn_worker;

const GENERATIONS: &str = "/api/index/generations";

/// Characters that a chunk of the small cut never has, and one of the usual cut of [`page_about`] always.
pub(crate) const LONG: usize = 600;

/// The source of the tenant's uploads.
pub(crate) async fn uploads(acme: &Tenant<'_>) -> SourceId {
    let mut conn = acme.service.app.db.read(acme.id).await.expect("a connection");
    on!(conn, c => sqlx::query_scalar("select id from source where tenant_id = $1 and deleted_at is null").bind(acme.id).fetch_one(c).await)
        .expect("a source")
}

pub(crate) fn small() -> Value {
    json!({ "max_tokens": 40, "overlap_tokens": 0 })
}

pub(crate) async fn begin(acme: &Tenant<'_>, chunking: Value) -> String {
    let body = json!({ "source_id": uploads(acme).await, "chunking": chunking });
    acme.post(GENERATIONS, body).await.expect(202).id()
}

/// The generations that are cuts, newest first.
pub(crate) async fn cuts(acme: &Tenant<'_>) -> Vec<Value> {
    let reply = acme.get(GENERATIONS).await.expect(200).json();
    let all = reply["items"].as_array().expect("items").clone();
    all.into_iter().filter(|one| one["kind"] == "chunking").collect()
}

pub(crate) async fn states(acme: &Tenant<'_>) -> Vec<String> {
    let of = |one: &Value| one["state"].as_str().expect("a state").to_owned();
    cuts(acme).await.iter().map(of).collect()
}

pub(crate) async fn order(acme: &Tenant<'_>, id: &str, order: &str, status: u16) -> Value {
    let path = format!("{GENERATIONS}/{id}/{order}");
    acme.post(&path, json!({})).await.expect(status).json()
}

pub(crate) async fn chunk_count(desk: &Chatbot<'_, '_>, document: &str) -> i64 {
    desk.document(document).await["chunks"].as_i64().expect("a count")
}

pub(crate) fn length(item: &Value) -> usize {
    item["text"].as_str().expect("a text").len()
}

pub(crate) async fn upkeep(service: &TestApp) {
    generations::operator::take_up(&service.app)
        .await
        .expect("upkeep");
    service.drain_jobs().await;
}

#[tokio::test]
async fn another_cut_is_built_beside_the_one_that_answers_compared_swapped_and_taken_back() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let id = desk.publish("manual.md", &page_about(&["Oak", "Teak"])).await;
    desk.ask("Does Teak matter?").await.expect(200);
    let source = format!("/api/sources/{}", uploads(&acme).await);

    let cut = begin(&acme, small()).await;
    assert_eq!(begin(&acme, small()).await, cut, "it is under way");
    order(&acme, &cut, "activate", 409).await;
    service.drain_jobs().await;

    assert_eq!(states(&acme).await, ["ready", "live"]);
    let built = cuts(&acme).await[0].clone();
    assert_eq!(
        (&built["chunking"], &built["chunks"], &built["done"]),
        (&small(), &json!(2), &json!(2)),
        "{built}"
    );
    let live = cuts(&acme).await[1].clone();
    assert_eq!((&live["chunks"], &live["done"]), (&json!(2), &json!(2)), "{live}");
    let comparison = &built["comparison"];
    assert_eq!(
        (&comparison["questions"], &comparison["overlap_at_10"]),
        (&json!(1), &json!(1.0)),
        "{built}"
    );
    assert!(count_rows(&service, "chunk").await > 8, "it is in the rows");
    acme.check_stores_agree().await;
    let found = desk.search("Teak").await;
    assert!(found.iter().all(|item| length(item) > LONG), "{found:?}");
    assert_eq!(chunk_count(&desk, &id).await, 2);

    order(&acme, &cut, "activate", 200).await;
    let found = desk.search("Teak").await;
    assert!(
        !found.is_empty() && found.iter().all(|item| length(item) < LONG),
        "{found:?}"
    );
    service.drain_jobs().await;
    assert!(chunk_count(&desk, &id).await > 8);
    let listed = desk.document(&id).await["chunk_list"].clone();
    let listed = listed.as_array().expect("chunks").clone();
    assert!(listed.iter().all(|chunk| length(chunk) < LONG), "{listed:?}");
    assert_eq!(acme.get(&source).await.expect(200).json()["chunking"], small());

    order(&acme, &cut, "rollback", 200).await;
    assert!(desk.search("Teak").await.iter().all(|item| length(item) > LONG));
    service.drain_jobs().await;
    assert_eq!(chunk_count(&desk, &id).await, 2);
    assert_eq!(states(&acme).await, ["ready", "live"]);
    assert_eq!(
        acme.get(&source).await.expect(200).json()["chunking"],
        Value::Null
    );
    order(&acme, &cut, "rollback", 409).await;
}

/// Asks without a pause until it is told to stop; what was wrong.
async fn ask_on(acme: &Tenant<'_>, chatbot: &str, stop: &AtomicBool, asked: &AtomicUsize) -> Vec<String> {
    let path = format!("/api/chatbots/{chatbot}/search");
    let mut wrong = Vec::new();
    while !stop.load(Ordering::SeqCst) {
        asked.fetch_add(1, Ordering::SeqCst);
        let reply = acme
            .post(&path, json!({ "query": "How much does Teak matter?" }))
            .await;
        let body = reply.json();
        let items = body["items"].as_array().cloned().unwrap_or_default();
        let of_old = items.iter().filter(|item| length(item) > LONG).count();
        let is_right = reply.status == 200
            && body["degraded"].is_null()
            && !items.is_empty()
            && (of_old == 0 || of_old == items.len());
        if !is_right {
            wrong.push(reply.text);
        }
    }
    wrong
}

#[tokio::test]
async fn under_constant_load_no_question_fails_and_none_is_answered_from_two_cuts() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    for number in 0..4 {
        desk.publish(&format!("{number}.md"), &page_about(&["Oak", "Teak", "Ash"]))
            .await;
    }
    let (stop, asked) = (AtomicBool::new(false), AtomicUsize::new(0));
    let wait_for_more = async || {
        let before = asked.load(Ordering::SeqCst);
        while asked.load(Ordering::SeqCst) < before + 12 {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };

    let change = async {
        wait_for_more().await;
        let cut = begin(&acme, small()).await;
        service.drain_jobs().await;
        assert_eq!(states(&acme).await, ["ready", "live"]);
        for turn in 0..3 {
            order(&acme, &cut, "activate", 200).await;
            wait_for_more().await;
            // Documents come and change meanwhile.
            desk.publish(&format!("new-{turn}.md"), &page_about(&["Teak", "Elm"]))
                .await;
            desk.publish("1.md", &page_about(&["Teak", "Pine"])).await;
            order(&acme, &cut, "rollback", 200).await;
            wait_for_more().await;
            service.drain_jobs().await;
        }
        order(&acme, &cut, "activate", 200).await;
        service.clock.advance(TimeDelta::hours(25));
        upkeep(&service).await;
        wait_for_more().await;
        stop.store(true, Ordering::SeqCst);
    };
    let (chatbot, stop_of, asked_of) = (desk.id.as_str(), &stop, &asked);
    let (first, second, ()) = tokio::join!(
        ask_on(&acme, chatbot, stop_of, asked_of),
        ask_on(&acme, chatbot, stop_of, asked_of),
        change
    );

    assert_eq!([first, second].concat(), Vec::<String>::new());
    assert_eq!(states(&acme).await, ["live", "retired"]);
    acme.check_stores_agree().await;
}

#[tokio::test]
async fn what_changes_while_a_cut_is_kept_holds_when_it_answers() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let manual = desk.publish("manual.md", &page_about(&["Oak", "Teak"])).await;
    let offer = desk
        .publish("offer.md", "Wicker chairs are half the price in March.")
        .await;
    let gone = desk.publish("gone.md", "Bamboo stools are sold out.").await;
    let cut = begin(&acme, small()).await;
    service.drain_jobs().await;

    let chunk = desk.first_chunk(&offer).await;
    let path = format!("/api/documents/{offer}/chunks/{chunk}");
    acme.patch(&path, json!({ "enabled": false })).await.expect(200);
    desk.upload(&[("manual.md", page_about(&["Ash", "Elm"]).as_bytes())])
        .await
        .expect(202);
    acme.delete(&format!("/api/documents/{gone}")).await.expect(204);
    let body = json!({ "text": "We mend wicker.", "heading": "Mending" });
    acme.post(&format!("/api/documents/{offer}/chunks"), body)
        .await
        .expect(201);
    desk.publish("new.md", "Rattan lamps came in May.").await;
    order(&acme, &cut, "activate", 200).await;
    service.drain_jobs().await;

    assert!(desk.search("Elm").await.iter().all(|item| length(item) < LONG));
    assert!(chunk_count(&desk, &manual).await > 8);
    let texts = async |query: &str| -> Vec<String> {
        let found = desk.search(query).await;
        found
            .iter()
            .map(|item| item["text"].as_str().expect("a text").to_owned())
            .collect()
    };
    let of_wicker = texts("Wicker chairs").await;
    assert!(
        !of_wicker.iter().any(|text| text.contains("half the price")),
        "{of_wicker:?}"
    );
    assert!(
        of_wicker.iter().any(|text| text == "We mend wicker."),
        "{of_wicker:?}"
    );
    assert_eq!(texts("Rattan lamps").await[0], "Rattan lamps came in May.");
    assert!(
        !texts("Bamboo stools")
            .await
            .iter()
            .any(|text| text.contains("Bamboo"))
    );
    assert_eq!(count_rows(&service, "cut_gap").await, 0);
    acme.check_stores_agree().await;
}

#[tokio::test]
async fn an_owners_changes_go_with_their_passages_and_rest_while_a_cut_has_them_not() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let long = desk.publish("manual.md", &page_about(&["Oak", "Teak"])).await;
    let short = desk.publish("hours.md", "We open at ten.").await;
    for (document, text) in [(&long, "Oak is all that matters."), (&short, "We open at nine.")] {
        let chunk = desk.first_chunk(document).await;
        let path = format!("/api/documents/{document}/chunks/{chunk}");
        acme.patch(&path, json!({ "text": text })).await.expect(200);
    }
    service.drain_jobs().await;
    let resting = async |document: &str| {
        desk.document(document).await["stale_changes"]
            .as_i64()
            .unwrap_or_default()
    };

    let cut = begin(&acme, small()).await;
    service.drain_jobs().await;
    assert_eq!(resting(&long).await, 0, "it is not live");
    order(&acme, &cut, "activate", 200).await;
    service.drain_jobs().await;

    assert_eq!((resting(&long).await, resting(&short).await), (1, 0));
    assert_eq!(
        desk.search("When do we open?").await[0]["text"],
        "We open at nine."
    );
    order(&acme, &cut, "rollback", 200).await;
    service.drain_jobs().await;
    assert_eq!((resting(&long).await, resting(&short).await), (0, 0));
    let found = desk.search("What is all that matters?").await;
    assert_eq!(found[0]["text"], "Oak is all that matters.", "{found:?}");
    acme.check_stores_agree().await;
}

#[tokio::test]
async fn what_is_being_indexed_while_another_cut_goes_live_is_indexed_for_that_one() {
    let embedder = WatchedEmbedder::new();
    let service = TestOptions::default().embedder(embedder.clone()).start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    desk.publish("manual.md", &page_about(&["Oak", "Teak"])).await;
    let cut = begin(&acme, small()).await;
    service.drain_jobs().await;
    embedder.hold();
    desk.upload(&[("late.md", page_about(&["Ash", "Elm"]).as_bytes())])
        .await
        .expect(202);
    let worker = spawn_worker(&service.app);
    embedder.wait_held(1).await;

    order(&acme, &cut, "activate", 200).await;
    embedder.let_one_go();
    worker.await.expect("the worker lives");
    service.drain_jobs().await;

    let found = desk.search("Elm").await;
    assert!(
        found.iter().any(|item| item["text"]
            .as_str()
            .is_some_and(|text| text.contains("Elm matters"))),
        "{found:?}"
    );
    assert!(found.iter().all(|item| length(item) < LONG), "{found:?}");
    order(&acme, &cut, "rollback", 200).await;
    assert!(desk.search("Elm").await.iter().all(|item| length(item) > LONG));
    acme.check_stores_agree().await;
}

#[tokio::test]
async fn a_document_of_many_chunks_is_cut_beside_and_swapped_at_once() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let sections: Vec<String> = (0..320).map(|number| format!("Wood{number}")).collect();
    let sections: Vec<&str> = sections.iter().map(String::as_str).collect();
    let id = desk.publish("woods.md", &page_about(&sections)).await;
    let before = chunk_count(&desk, &id).await;
    assert_eq!(before, 320);

    let cut = begin(&acme, json!({ "max_tokens": 100, "overlap_tokens": 0 })).await;
    service.drain_jobs().await;
    let found = desk.search("Wood7 matters").await;
    assert!(found.iter().all(|item| length(item) > LONG * 2), "{found:?}");
    order(&acme, &cut, "activate", 200).await;
    service.drain_jobs().await;

    assert!(chunk_count(&desk, &id).await > before);
    let found = desk.search("Wood7 matters").await;
    assert_eq!(found[0]["heading"], "About Wood7", "{found:?}");
    acme.check_stores_agree().await;
    service.clock.advance(TimeDelta::hours(25));
    upkeep(&service).await;
    acme.check_stores_agree().await;
    assert_eq!(count_rows(&service, "chunk").await, chunk_count(&desk, &id).await);
}

#[tokio::test]
async fn a_cut_that_an_owner_sets_goes_live_by_itself_and_the_old_one_is_kept_for_a_while() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let id = desk.publish("manual.md", &page_about(&["Oak", "Teak"])).await;
    let source = format!("/api/sources/{}", uploads(&acme).await);

    let set = acme
        .patch(&source, json!({ "chunking": small() }))
        .await
        .expect(200);
    assert_eq!(set.json()["chunking"], small());
    assert_eq!(states(&acme).await, ["building", "live"]);
    service.drain_jobs().await;

    assert_eq!(states(&acme).await, ["live", "standby"]);
    let small_count = chunk_count(&desk, &id).await;
    assert!(small_count > 8);
    // Back while the old one is kept: nothing is cut.
    acme.patch(&source, json!({ "chunking": null })).await.expect(200);
    service.drain_jobs().await;
    assert_eq!(states(&acme).await, ["standby", "live"]);
    assert_eq!(chunk_count(&desk, &id).await, 2);
    assert_eq!(count_rows(&service, "chunk").await, small_count + 2);
    service.clock.advance(TimeDelta::hours(25));
    upkeep(&service).await;
    assert_eq!(states(&acme).await, ["retired", "live"]);
    assert_eq!(count_rows(&service, "chunk").await, 2);
    acme.check_stores_agree().await;
}

#[tokio::test]
async fn a_wish_that_is_given_up_leaves_nothing() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    desk.publish("manual.md", &page_about(&["Oak", "Teak"])).await;
    begin(&acme, small()).await;
    service.drain_jobs().await;

    begin(&acme, json!({ "max_tokens": 60, "overlap_tokens": 0 })).await;
    service.drain_jobs().await;
    assert_eq!(states(&acme).await, ["ready", "retired", "live"]);
    acme.check_stores_agree().await;
    assert_eq!(begin(&acme, json!({})).await, uploads(&acme).await.to_string());
    assert_eq!(states(&acme).await, ["retired", "retired", "live"]);
    let body = json!({ "source_id": uploads(&acme).await, "chunking": {} });
    let current = acme.post(GENERATIONS, body).await.expect(409);
    assert_eq!(current.code(), "generation_current");
    acme.delete(&format!("/api/chatbots/{}", desk.id))
        .await
        .expect(204);
    service.drain_jobs().await;

    for table in ["cut", "cut_gap", "chunk"] {
        assert_eq!(count_rows(&service, table).await, 0, "{table}");
    }
    acme.check_stores_agree().await;
}

#[tokio::test]
async fn what_to_build_is_told_whole_and_of_ones_own_source() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    desk.publish("manual.md", &page_about(&["Oak"])).await;
    let source = uploads(&acme).await;
    let globex = service.tenant("globex").await;

    for (body, code) in [
        (json!({ "source_id": source }), "incomplete_generation"),
        (json!({ "chunking": small() }), "incomplete_generation"),
        (
            json!({ "source_id": source, "chunking": { "max_tokens": 3 } }),
            "invalid_chunking",
        ),
    ] {
        let refused = acme.post(GENERATIONS, body).await.expect(422);
        assert_eq!(refused.code(), code);
    }
    let body = json!({ "source_id": source, "chunking": small() });
    globex.post(GENERATIONS, body).await.expect(404);
    let cut = begin(&acme, small()).await;
    service.drain_jobs().await;
    for order in ["activate", "rollback"] {
        let path = format!("{GENERATIONS}/{cut}/{order}");
        globex.post(&path, json!({})).await.expect(404);
    }
    assert!(cuts(&globex).await.is_empty());
}
