//! What was embedded once is not embedded again, for the tenant whose text it is, as long as somebody has it.

use std::collections::HashSet;
use std::sync::Arc;

use chrono::TimeDelta;
use frontdesk::jobs::schedule;
use serde_json::{Value, json};

use crate::harness::app::{Chatbot, Tenant, TestApp, TestOptions};
use crate::harness::embedders::WatchedEmbedder;
use crate::harness::indexes::IndexSwitch;
use crate::harness::openai::{EmbeddingFault, ScriptedModel, UPSTREAM_WORDS};
use crate::harness::stored::count_rows;
use crate::harness::work::until;

/// Long enough for two chunks of a size that a test asks for.
fn text() -> String {
    (0..20)
        .map(|number| format!("Paragraph {number} tells of ladders, tables and chairs.\n\n"))
        .collect()
}

async fn watched() -> (TestApp, Arc<WatchedEmbedder>) {
    let embedder = WatchedEmbedder::new();
    let service = TestOptions::default().embedder(embedder.clone()).start().await;
    (service, embedder)
}

fn bought(model: &ScriptedModel) -> TestOptions {
    TestOptions::default()
        .without_embedder()
        .set("embedding.backend", "openai")
        .set("embedding.base_url", model.base_url())
        .set("embedding.model", "scripted-embedding")
        .set("embedding.dimension", model.dimension())
}

/// The texts of each request for embeddings.
fn requests(model: &ScriptedModel) -> Vec<Vec<String>> {
    let requests = model.requests();
    let of_embedding = requests.iter().filter(|request| request.path == "/v1/embeddings");
    of_embedding
        .map(|request| serde_json::from_value(request.body["input"].clone()).expect("texts"))
        .collect()
}

/// Bought and cached tokens of each line that embedded for a channel.
async fn booked(tenant: &Tenant<'_>, channel: &str) -> Vec<(i64, i64)> {
    let number = |text: &str| text.parse().expect("a number");
    let lines = tenant.ledger().await;
    lines
        .iter()
        .filter(|line| line["kind"] == "embedding" && line["channel"] == channel)
        .map(|line| (number(&line["embedding_tokens"]), number(&line["cached_tokens"])))
        .collect()
}

async fn push(desk: &Chatbot<'_, '_>) -> String {
    let path = format!("/api/chatbots/{}/sources", desk.id);
    let body = json!({ "kind": "push" });
    desk.tenant.post(&path, body).await.expect(202).id()
}

#[tokio::test]
async fn the_same_text_elsewhere_and_a_restored_document_cost_nothing() {
    let (service, embedder) = watched().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let document = desk.publish("tables.md", &text()).await;
    assert!(!embedder.take_documents().is_empty());

    acme.chatbot("Other").await.publish("tables.md", &text()).await;
    acme.delete(&format!("/api/documents/{document}"))
        .await
        .expect(204);
    service.drain_jobs().await;
    desk.publish("tables.md", &text()).await;

    assert_eq!(embedder.take_documents(), Vec::<String>::new());
    let booked = booked(&acme, "ingest").await;
    assert_eq!(booked.len(), 3);
    let bought: Vec<&(i64, i64)> = booked.iter().filter(|(bought, _)| *bought > 0).collect();
    assert!(matches!(bought[..], [(_, 0)]), "{booked:?}");
    assert!(
        booked
            .iter()
            .all(|(bought, cached)| (*bought > 0) != (*cached > 0)),
        "{booked:?}"
    );
    acme.check_stores_agree().await;
}

#[tokio::test]
async fn a_source_that_is_cut_otherwise_pays_for_new_texts_only() {
    let (service, embedder) = watched().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let source = push(&desk).await;
    let path = format!("/api/sources/{source}");
    service
        .send(
            reqwest::Method::PUT,
            &format!("{path}/documents/long"),
            Some(&acme.key),
            Some(json!({ "text": text() })),
        )
        .await
        .expect(201);
    service.drain_jobs().await;
    let first = embedder.take_documents();
    let cut = async |chunking: Value| {
        acme.patch(&path, json!({ "chunking": chunking }))
            .await
            .expect(200);
        service.drain_jobs().await;
    };

    cut(json!({ "max_tokens": 20, "overlap_tokens": 0 })).await;
    let smaller = embedder.take_documents();
    cut(Value::Null).await;

    assert!(smaller.len() > first.len() && smaller.iter().all(|text| !first.contains(text)));
    assert_eq!(
        embedder.take_documents(),
        Vec::<String>::new(),
        "as it was before"
    );
}

#[tokio::test]
async fn what_another_tenant_embedded_is_unknown() {
    let (service, embedder) = watched().await;
    let (acme, globex) = (service.tenant("acme").await, service.tenant("globex").await);
    acme.chatbot("Desk").await.publish("tables.md", &text()).await;
    let first = embedder.take_documents();

    globex.chatbot("Desk").await.publish("tables.md", &text()).await;

    assert_eq!(embedder.take_documents(), first);
    assert!(
        booked(&globex, "ingest")
            .await
            .iter()
            .all(|(_, cached)| *cached == 0)
    );
}

#[tokio::test]
async fn what_nobody_has_any_more_is_out_within_the_hour_and_the_rest_stays() {
    let (service, embedder) = watched().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let gone = desk.publish("gone.md", "Ladders are oiled once a year.").await;
    desk.publish("kept.md", "Tables are oiled twice a year.").await;
    let before = count_rows(&service, "embedding_cache").await;
    acme.delete(&format!("/api/documents/{gone}")).await.expect(204);
    service.drain_jobs().await;

    // The first look only notes when it is due.
    schedule::fire_due(&service.app).await.expect("it is noted");
    service.clock.advance(TimeDelta::minutes(45));
    schedule::fire_due(&service.app).await.expect("it fires");
    service.drain_jobs().await;

    assert_eq!(count_rows(&service, "embedding_cache").await, before - 1);
    embedder.take_documents();
    acme.chatbot("Other")
        .await
        .publish("kept.md", "Tables are oiled twice a year.")
        .await;
    assert_eq!(embedder.take_documents(), Vec::<String>::new());
}

#[tokio::test]
async fn no_more_is_kept_than_there_is_room_for() {
    let embedder = WatchedEmbedder::new();
    let service = TestOptions::default()
        .embedder(embedder.clone())
        .set("embedding.cache_mb", 1)
        .start()
        .await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let pages: String = (0..1_200)
        .map(|number| format!("# Page {number}\n\nTable {number} is oiled well.\n\n"))
        .collect();

    desk.publish("tables.md", &pages).await;

    // A vector of 256 values and what is around it: 1,536 bytes.
    assert_eq!(embedder.take_documents().len(), 1_200);
    until("there is room again", async || {
        count_rows(&service, "embedding_cache").await <= (1 << 20) / 1_536
    })
    .await;
    assert!(count_rows(&service, "embedding_cache").await > 500);
}

#[tokio::test]
async fn who_has_most_makes_room_for_who_has_little() {
    let embedder = WatchedEmbedder::new();
    let service = TestOptions::default()
        .embedder(embedder.clone())
        .set("embedding.cache_mb", 1)
        .start()
        .await;
    let (acme, globex) = (service.tenant("acme").await, service.tenant("globex").await);
    let few = "Tables are oiled twice a year.";
    globex.chatbot("Desk").await.publish("few.md", few).await;
    let pages: String = (0..1_200)
        .map(|number| format!("# Page {number}\n\nTable {number} is oiled well.\n\n"))
        .collect();

    // Later, so that the other's is what was used longest ago.
    service.clock.advance(TimeDelta::minutes(1));
    acme.chatbot("Desk").await.publish("tables.md", &pages).await;
    until("there is room again", async || {
        count_rows(&service, "embedding_cache").await <= (1 << 20) / 1_536
    })
    .await;

    embedder.take_documents();
    globex.chatbot("Other").await.publish("few.md", few).await;
    assert_eq!(embedder.take_documents(), Vec::<String>::new(), "its own is kept");
}

#[tokio::test]
async fn a_text_that_is_there_many_times_is_bought_once() {
    let model = ScriptedModel::start().await;
    let service = bought(&model).start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;

    // Nearly as much as a chunk holds.
    let notice = "All rights are reserved by the shop and by its owners. ".repeat(10);
    desk.publish("legal.md", &format!("# Legal\n\n{notice}\n\n").repeat(6))
        .await;

    assert_eq!(count_rows(&service, "chunk").await, 6);
    let asked: Vec<String> = requests(&model).concat();
    let different: HashSet<&String> = asked.iter().collect();
    // The first and the last chunk have no section on one side.
    assert_eq!((asked.len(), different.len()), (3, 3), "{asked:?}");
    acme.check_stores_agree().await;
}

#[tokio::test]
async fn without_room_for_it_nothing_is_kept() {
    let embedder = WatchedEmbedder::new();
    let service = TestOptions::default()
        .embedder(embedder.clone())
        .set("embedding.cache_mb", 0)
        .start()
        .await;
    let acme = service.tenant("acme").await;
    for name in ["Desk", "Other"] {
        let desk = acme.chatbot(name).await;
        desk.publish("tables.md", "Tables are oiled twice a year.").await;
    }

    assert_eq!(embedder.take_documents().len(), 2);
    assert_eq!(count_rows(&service, "embedding_cache").await, 0);
}

#[tokio::test]
async fn a_question_that_was_asked_before_is_bought_once_and_told_as_cached() {
    let model = ScriptedModel::start().await;
    let service = bought(&model).start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    desk.publish("oak.md", "Oak tables are oiled twice a year.").await;
    let before = count_rows(&service, "embedding_cache").await;
    let question = "How often are oak tables oiled?";

    let first = desk.search(question).await;
    until("it is kept", async || {
        count_rows(&service, "embedding_cache").await > before
    })
    .await;
    let second = desk.search(question).await;

    assert_eq!(first[0]["similarity"], second[0]["similarity"]);
    let asked = requests(&model);
    assert_eq!(asked.iter().filter(|texts| texts[0] == question).count(), 1);
    let booked = booked(&acme, "search").await;
    assert!(booked[0].0 > 0 && booked[0].1 == 0, "{booked:?}");
    assert!(booked[1].0 == 0 && booked[1].1 > 0, "{booked:?}");
}

#[tokio::test]
async fn a_question_that_says_what_a_passage_says_is_embedded_as_a_question() {
    let model = ScriptedModel::start().await;
    let service = bought(&model)
        .set("embedding.query_prefix", "query: ")
        .set("embedding.document_prefix", "passage: ")
        .start()
        .await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    desk.publish("tables.md", "Oak tables are oiled twice a year.")
        .await;
    let embedded = requests(&model).concat();
    let mut passages = embedded.iter().filter_map(|text| text.strip_prefix("passage: "));
    let passage = passages
        .find(|text| text.contains("Oak tables"))
        .expect("it was embedded");
    let before = count_rows(&service, "embedding_cache").await;

    desk.search(passage).await;
    until("it is kept", async || {
        count_rows(&service, "embedding_cache").await > before
    })
    .await;
    desk.search(passage).await;

    let asked = requests(&model).concat();
    let questions = asked.iter().filter(|text| **text == format!("query: {passage}"));
    assert_eq!(
        questions.count(),
        1,
        "once, and not taken for the passage: {asked:?}"
    );
}

#[tokio::test]
async fn what_was_answered_beside_a_failed_request_is_not_bought_again() {
    let model = ScriptedModel::start().await;
    let service = bought(&model).set("embedding.batch_size", 4).start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let pages: String = (0..12)
        .map(|number| format!("# Page {number}\n\nTable {number} is oiled well.\n\n"))
        .collect();
    // Of three requests one is not answered, however often it is asked.
    model.push_fault(EmbeddingFault::NoDirection);

    let upload = desk
        .upload(&[("tables.md", pages.as_bytes())])
        .await
        .expect(202)
        .json();
    service.drain_jobs().await;
    service.clock.advance(TimeDelta::minutes(30));
    service.drain_jobs().await;

    let document = desk
        .document(upload["items"][0]["id"].as_str().expect("an id"))
        .await;
    assert_eq!(document["state"], "indexed", "{document}");
    let sizes: Vec<usize> = requests(&model).iter().map(Vec::len).collect();
    assert_eq!(
        sizes,
        [4, 4, 4, 4],
        "the one that failed is asked again, no other"
    );
    acme.check_stores_agree().await;
}

#[tokio::test]
async fn a_passage_that_the_model_refuses_fails_its_own_document_at_once_and_no_other() {
    let model = ScriptedModel::start().await;
    let service = bought(&model).start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    model.refuse_texts_with("unspeakable");

    let files: Vec<(String, Vec<u8>)> = (0..6)
        .map(|number| {
            let what = if number == 3 { "unspeakable" } else { "oiled well" };
            (
                format!("{number}.md"),
                format!("Table {number} is {what}.").into_bytes(),
            )
        })
        .collect();
    let files: Vec<(&str, &[u8])> = files
        .iter()
        .map(|(name, text)| (name.as_str(), text.as_slice()))
        .collect();
    let uploaded = desk.upload(&files).await.expect(202).json();
    service.drain_jobs().await;

    for (number, item) in uploaded["items"].as_array().expect("items").iter().enumerate() {
        let document = desk.document(item["id"].as_str().expect("an id")).await;
        if number == 3 {
            assert_eq!(document["state"], "failed", "{document}");
            assert_eq!(document["error"]["code"], "passage_refused", "{document}");
            let message = document["error"]["message"].as_str().expect("a message");
            assert!(
                message.contains("status 400") && !message.contains(UPSTREAM_WORDS),
                "{message}"
            );
        } else {
            assert_eq!(document["state"], "indexed", "{document}");
        }
    }
    acme.check_stores_agree().await;
}

#[tokio::test]
async fn nothing_is_bought_for_a_question_while_the_index_rests() {
    let (model, index) = (ScriptedModel::start().await, IndexSwitch::default());
    let service = bought(&model).index(&index).start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    desk.publish("oak.md", "Oak tables are oiled twice a year.").await;
    let before = requests(&model).len();
    index.set_down(true);

    desk.search("When are oak tables oiled?").await;
    assert_eq!(requests(&model).len(), before + 1);
    desk.search("Are oak tables oiled at all?").await;
    assert_eq!(requests(&model).len(), before + 1);

    index.set_down(false);
    service.clock.advance(TimeDelta::seconds(1));
    let found = desk.search("Are oak tables oiled at all?").await;
    assert_eq!(requests(&model).len(), before + 2);
    assert!(found[0]["similarity"].is_number(), "{found:?}");
}

#[tokio::test]
async fn vectors_that_are_of_no_use_are_booked_as_they_were_reserved() {
    let model = ScriptedModel::start().await;
    let service = bought(&model).start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    desk.publish("oak.md", "Oak tables are oiled twice a year.").await;
    let question = "When are oak tables oiled?";

    model.push_fault(EmbeddingFault::NoDirection);
    desk.search(question).await;
    until("it is booked", async || !booked(&acme, "search").await.is_empty()).await;
    assert!(booked(&acme, "search").await[0].0 >= question.len() as i64);

    let before = booked(&acme, "ingest").await.len();
    model.push_fault(EmbeddingFault::NoDirection);
    desk.upload(&[("teak.md", b"Teak tables are never oiled.".as_slice())])
        .await
        .expect(202);
    service.drain_jobs().await;
    let booked = booked(&acme, "ingest").await;
    assert!(booked.len() > before && booked[before].0 > 0, "{booked:?}");
}
