//! Chunks in their owner's hands: what an owner changes is what is found and cited, and it outlives new versions of
//! the document for as long as its passage is there.

use frontdesk::id::SourceId;
use frontdesk::on;
use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::app::{Chatbot, Reply, Tenant, TestApp, TestOptions};
use crate::harness::embedders::WatchedEmbedder;
use crate::harness::stored::{count_rows, page_about};
use crate::harness::work::spawn_worker;

impl Chatbot<'_, '_> {
    async fn chunks(&self, document: &str) -> Value {
        self.tenant
            .get(&format!("/api/documents/{document}/chunks"))
            .await
            .expect(200)
            .json()
    }

    /// The id of the chunk with these words.
    async fn chunk_with(&self, document: &str, words: &str) -> String {
        let list = self.chunks(document).await;
        let items = list["items"].as_array().expect("items");
        let chunk = items
            .iter()
            .find(|chunk| chunk["text"].as_str().is_some_and(|text| text.contains(words)))
            .unwrap_or_else(|| panic!("no chunk says {words}: {list}"));
        chunk["id"].as_str().expect("an id").to_owned()
    }

    /// Changes a chunk and waits until it is embedded.
    async fn change(&self, document: &str, chunk: &str, change: Value) -> Value {
        let path = format!("/api/documents/{document}/chunks/{chunk}");
        let changed = self.tenant.patch(&path, change).await.expect(200).json();
        self.tenant.service.drain_jobs().await;
        changed
    }

    async fn texts(&self, query: &str) -> Vec<String> {
        let found = self.search(query).await;
        found
            .iter()
            .map(|passage| passage["text"].as_str().expect("a text").to_owned())
            .collect()
    }
}

const PRICES: &str = "# Prices\n\nAn oak table costs 300 euros.\n\n# Hours\n\nThe shop opens at ten.\n";

#[tokio::test]
async fn an_owners_words_are_embedded_found_and_cited_in_place_of_the_documents() {
    let embedder = WatchedEmbedder::new();
    let service = TestOptions::default().embedder(embedder.clone()).start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let id = desk.publish("shop.md", PRICES).await;
    let chunk = desk.chunk_with(&id, "300 euros").await;
    embedder.take_documents();

    let changed = desk
        .change(
            &id,
            &chunk,
            json!({ "text": "An oak table costs 350 euros, carriage paid." }),
        )
        .await;

    let embedded = embedder.take_documents();
    assert_eq!(embedded.len(), 1, "{embedded:?}");
    assert!(embedded[0].contains("carriage paid"));
    let found = &desk.search("What does carriage cost?").await[0];
    assert_eq!(
        (&found["chunk_id"], &found["text"]),
        (
            &json!(chunk),
            &json!("An oak table costs 350 euros, carriage paid.")
        )
    );
    assert_eq!(changed["original"], "Prices\n\nAn oak table costs 300 euros.");
    let document = desk.document(&id).await;
    let text: Vec<char> = document["text"].as_str().expect("text").chars().collect();
    let span = |name: &str| usize::try_from(found[name].as_i64().expect("an offset")).expect("from 0");
    let cited: String = text[span("start")..span("end")].iter().collect();
    assert_eq!(cited, "Prices\n\nAn oak table costs 300 euros.");
    let answer = desk.ask("What does an oak table cost?").await.expect(200).json();
    assert!(answer["citations"].to_string().contains("350 euros"), "{answer}");
    assert!(!answer.to_string().contains("300 euros"), "{answer}");
    acme.check_stores_agree().await;
}

#[tokio::test]
async fn a_chunk_that_is_switched_off_is_in_no_answer_at_once_and_comes_back_without_embedding() {
    let embedder = WatchedEmbedder::new();
    let service = TestOptions::default().embedder(embedder.clone()).start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let id = desk.publish("shop.md", PRICES).await;
    let chunk = desk.chunk_with(&id, "300 euros").await;
    let path = format!("/api/documents/{id}/chunks/{chunk}");
    embedder.take_documents();

    let off = acme
        .patch(&path, json!({ "enabled": false }))
        .await
        .expect(200)
        .json();

    assert_eq!(off["enabled"], json!(false));
    assert!(!desk.texts("oak table euros").await.concat().contains("300 euros"));
    acme.patch(&path, json!({ "enabled": true })).await.expect(200);
    assert!(desk.texts("oak table euros").await.concat().contains("300 euros"));
    assert_eq!(service.drain_jobs().await, 0, "there is nothing to embed");
    assert!(embedder.take_documents().is_empty());
}

#[tokio::test]
async fn changes_hold_in_new_versions_of_the_document_and_only_what_is_new_is_embedded() {
    let embedder = WatchedEmbedder::new();
    let service = TestOptions::default().embedder(embedder.clone()).start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let id = desk
        .publish("manual.md", &page_about(&["Oak", "Teak", "Rope"]))
        .await;
    let (oak, teak) = (
        desk.chunk_with(&id, "Oak").await,
        desk.chunk_with(&id, "Teak").await,
    );
    desk.change(&id, &oak, json!({ "text": "Oak needs oil twice a year." }))
        .await;
    desk.change(&id, &teak, json!({ "enabled": false })).await;
    embedder.take_documents();

    desk.publish("manual.md", &page_about(&["Oak", "Paint", "Teak", "Rope"]))
        .await;

    let embedded = embedder.take_documents();
    assert_eq!(embedded.len(), 1, "{embedded:?}");
    assert!(embedded[0].contains("Paint"));
    assert_eq!(desk.chunk_with(&id, "oil twice a year").await, oak);
    let chunks = desk.chunks(&id).await;
    let enabled: Vec<bool> = chunks["items"]
        .as_array()
        .expect("items")
        .iter()
        .map(|chunk| chunk["enabled"].as_bool().expect("yes or no"))
        .collect();
    assert_eq!(
        (enabled, &chunks["stale_changes"]),
        (vec![true, true, false, true], &json!([]))
    );
    acme.check_stores_agree().await;
}

#[tokio::test]
async fn a_change_whose_passage_is_gone_rests_and_holds_again_when_it_returns() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let (first, second) = (page_about(&["Oak", "Teak"]), page_about(&["Oak", "Rope"]));
    let id = desk.publish("manual.md", &first).await;
    let teak = desk.chunk_with(&id, "Teak").await;
    desk.change(&id, &teak, json!({ "text": "Teak comes from managed woods." }))
        .await;

    desk.publish("manual.md", &second).await;

    let resting = desk.chunks(&id).await;
    let stale = &resting["stale_changes"][0];
    assert_eq!(stale["text"], "Teak comes from managed woods.");
    assert!(
        stale["original"]
            .as_str()
            .is_some_and(|text| text.contains("Teak matters."))
    );
    assert!(!resting["items"].to_string().contains("managed woods"));
    assert!(!desk.texts("managed woods").await.concat().contains("managed"));

    desk.publish("manual.md", &first).await;
    let back = desk.chunks(&id).await;
    assert_eq!(back["stale_changes"], json!([]));
    assert!(desk.texts("managed woods").await[0].contains("managed woods"));
    acme.check_stores_agree().await;

    desk.publish("manual.md", &second).await;
    let stale = desk.chunks(&id).await["stale_changes"][0]["id"].clone();
    let path = format!("/api/documents/{id}/chunks/{}", stale.as_str().expect("an id"));
    acme.delete(&path).await.expect(204);
    acme.delete(&path).await.expect(404);
    assert_eq!(count_rows(&service, "chunk_edit").await, 0);
}

#[tokio::test]
async fn changes_outlive_the_documents_absence_but_not_its_deletion_by_hand() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let id = desk.publish("shop.md", PRICES).await;
    let chunk = desk.chunk_with(&id, "300 euros").await;
    desk.change(&id, &chunk, json!({ "text": "An oak table costs 350 euros." }))
        .await;
    // As a sync does when a page is away.
    let mut write = service.app.db.write(acme.id).await.expect("a transaction");
    on!(write, c => sqlx::query("delete from document where tenant_id = $1").bind(acme.id).execute(c).await.map(drop))
        .expect("deleted");
    write.commit().await.expect("stored");

    let again = desk.publish("shop.md", PRICES).await;

    assert_ne!(again, id);
    assert!(
        desk.chunks(&again).await["items"]
            .to_string()
            .contains("350 euros")
    );
    acme.delete(&format!("/api/documents/{again}")).await.expect(204);
    assert_eq!(count_rows(&service, "chunk_edit").await, 0);
    let anew = desk.publish("shop.md", PRICES).await;
    assert!(
        desk.chunks(&anew).await["items"]
            .to_string()
            .contains("300 euros")
    );
}

#[tokio::test]
async fn a_chunk_of_the_owners_own_is_found_and_stays_until_it_is_deleted() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let id = desk.publish("shop.md", PRICES).await;
    let own = json!({ "text": "Gift wrapping is free in December.", "heading": "Gifts" });

    let added = acme
        .post(&format!("/api/documents/{id}/chunks"), own)
        .await
        .expect(201)
        .json();
    service.drain_jobs().await;
    desk.publish("shop.md", &PRICES.replace("ten", "nine")).await;

    let found = &desk.search("Is gift wrapping free?").await[0];
    assert_eq!(
        (&found["chunk_id"], &found["heading"]),
        (&added["id"], &json!("Gifts"))
    );
    let listed = desk.chunks(&id).await;
    let last = listed["items"]
        .as_array()
        .and_then(|items| items.last())
        .expect("chunks");
    assert_eq!((&last["id"], &last["added"]), (&added["id"], &json!(true)));
    assert_eq!(last["start"], last["end"]);
    acme.check_stores_agree().await;

    let path = format!(
        "/api/documents/{id}/chunks/{}",
        added["id"].as_str().expect("an id")
    );
    acme.delete(&path).await.expect(204);
    assert!(!desk.texts("gift wrapping").await.concat().contains("wrapping"));
    service.drain_jobs().await;
    desk.publish("shop.md", PRICES).await;
    assert!(!desk.chunks(&id).await.to_string().contains("wrapping"));
    acme.check_stores_agree().await;
}

#[tokio::test]
async fn deleting_a_change_gives_the_documents_words_back_and_the_documents_own_chunks_stay() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let id = desk.publish("shop.md", PRICES).await;
    let chunk = desk.chunk_with(&id, "300 euros").await;
    let path = format!("/api/documents/{id}/chunks/{chunk}");
    assert_eq!(acme.delete(&path).await.expect(409).code(), "chunk_not_edited");
    desk.change(
        &id,
        &chunk,
        json!({ "text": "Ask for prices.", "enabled": false }),
    )
    .await;

    acme.delete(&path).await.expect(204);

    assert!(desk.texts("oak table euros").await.concat().contains("300 euros"));
    service.drain_jobs().await;
    let restored = desk.chunks(&id).await;
    assert!(!restored.to_string().contains("Ask for prices"));
    assert!(desk.texts("oak table euros").await[0].contains("300 euros"));
    acme.check_stores_agree().await;
}

#[tokio::test]
async fn a_change_made_while_the_document_is_being_indexed_is_not_lost() {
    let embedder = WatchedEmbedder::new();
    let service = TestOptions::default().embedder(embedder.clone()).start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let id = desk.publish("manual.md", &page_about(&["Oak", "Teak"])).await;
    let oak = desk.chunk_with(&id, "Oak").await;
    embedder.hold();
    desk.upload(&[("manual.md", page_about(&["Oak", "Rope"]).as_bytes())])
        .await
        .expect(202);
    let worker = spawn_worker(&service.app);
    embedder.wait_held(1).await;

    let change = json!({ "text": "Oak needs oil twice a year." });
    acme.patch(&format!("/api/documents/{id}/chunks/{oak}"), change)
        .await
        .expect(200);
    embedder.let_one_go();
    worker.await.expect("the worker lives");
    service.drain_jobs().await;

    let chunks = desk.chunks(&id).await["items"].to_string();
    assert!(
        chunks.contains("oil twice a year") && chunks.contains("Rope matters"),
        "{chunks}"
    );
    assert!(!chunks.contains("Teak"));
    assert!(desk.texts("oil twice a year").await[0].contains("oil twice"));
    assert_eq!(desk.document(&id).await["state"], "indexed");
    acme.check_stores_agree().await;
}

#[tokio::test]
async fn what_no_model_can_read_and_what_changes_nothing_is_refused() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let id = desk.publish("shop.md", PRICES).await;
    let chunk = desk.chunk_with(&id, "300 euros").await;
    let one = format!("/api/documents/{id}/chunks/{chunk}");
    let all = format!("/api/documents/{id}/chunks");

    for (body, code) in [
        (json!({}), "nothing_to_change"),
        (json!({ "text": "  " }), "invalid_chunk_text"),
        (json!({ "text": "x".repeat(8_001) }), "invalid_chunk_text"),
        (json!({ "text": "word ".repeat(300) }), "chunk_too_long"),
        (json!({ "text": null }), "invalid_body"),
        (json!({ "words": "x" }), "invalid_body"),
    ] {
        let reply = acme.patch(&one, body.clone()).await.expect(422);
        assert_eq!(reply.code(), code, "{body}");
    }
    for (body, code) in [
        (json!({ "text": "" }), "invalid_chunk_text"),
        (json!({ "text": "word ".repeat(300) }), "chunk_too_long"),
        (
            json!({ "text": "x", "heading": "h".repeat(201) }),
            "invalid_heading",
        ),
        (json!({ "heading": "x" }), "invalid_body"),
    ] {
        let reply = acme.post(&all, body.clone()).await.expect(422);
        assert_eq!(reply.code(), code, "{body}");
    }
    let waiting =
        crate::harness::stored::ids(&desk.upload(&[("b.md", b"Not yet.")]).await.expect(202).json());
    let reply = acme
        .post(
            &format!("/api/documents/{}/chunks", waiting[0]),
            json!({ "text": "Mine." }),
        )
        .await
        .expect(409);
    assert_eq!(reply.code(), "not_indexed");
    assert_eq!(count_rows(&service, "chunk_edit").await, 0);
}

#[tokio::test]
async fn each_change_of_a_chunk_is_in_the_audit_log() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let id = desk.publish("shop.md", PRICES).await;
    let chunk = desk.chunk_with(&id, "300 euros").await;
    let own = acme
        .post(&format!("/api/documents/{id}/chunks"), json!({ "text": "Mine." }))
        .await
        .expect(201)
        .id();
    desk.change(&id, &chunk, json!({ "enabled": false })).await;
    for chunk in [&own, &chunk] {
        acme.delete(&format!("/api/documents/{id}/chunks/{chunk}"))
            .await
            .expect(204);
    }

    let log = acme.get("/api/audit").await.expect(200).json();

    let actions: Vec<&str> = log["items"]
        .as_array()
        .expect("items")
        .iter()
        .filter(|line| line["object"]["kind"] == "chunk")
        .map(|line| line["action"].as_str().expect("an action"))
        .collect();
    assert_eq!(
        actions,
        ["chunk.restore", "chunk.delete", "chunk.update", "chunk.add"]
    );
}

#[tokio::test]
async fn a_sources_documents_are_cut_anew_when_their_owner_wants_them_cut_otherwise() {
    let embedder = WatchedEmbedder::new();
    let service = TestOptions::default().embedder(embedder.clone()).start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let id = desk.publish("manual.md", &page_about(&["Oak", "Teak"])).await;
    embedder.hold();

    cut_otherwise(&acme, json!({ "max_tokens": 40, "overlap_tokens": 0 }))
        .await
        .expect(200);
    let worker = spawn_worker(&service.app);
    embedder.wait_held(1).await;
    assert_eq!(
        desk.search("Teak").await[0]["heading"],
        "About Teak",
        "the old chunks answer"
    );
    assert_eq!(desk.document(&id).await["chunks"], 2);
    embedder.let_one_go();
    worker.await.expect("the worker lives");
    service.drain_jobs().await;

    let small = desk.document(&id).await;
    assert!(small["chunks"].as_i64().is_some_and(|count| count > 8), "{small}");
    assert!(
        small["chunk_list"]
            .as_array()
            .expect("chunks")
            .iter()
            .all(|chunk| chunk["tokens"].as_i64() <= Some(40))
    );
    acme.check_stores_agree().await;

    // And back: ids that were given up do not return, so their late removal takes nothing.
    cut_otherwise(&acme, json!({ "max_tokens": 15 }))
        .await
        .expect(422);
    cut_otherwise(&acme, json!({})).await.expect(200);
    service.drain_jobs().await;
    assert_eq!(desk.document(&id).await["chunks"], 2);
    acme.check_stores_agree().await;
}

async fn cut_otherwise(acme: &Tenant<'_>, chunking: Value) -> Reply {
    let mut conn = acme.service.app.db.read(acme.id).await.expect("a connection");
    let source: SourceId = on!(conn, c => sqlx::query_scalar("select id from source where tenant_id = $1").bind(acme.id).fetch_one(c).await)
        .expect("a source");
    drop(conn);
    let path = format!("/api/sources/{source}");
    acme.service
        .send(
            Method::PATCH,
            &path,
            Some(&acme.key),
            Some(json!({ "chunking": chunking })),
        )
        .await
}
