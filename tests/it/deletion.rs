//! Deleted is deleted: out of answers at once, and out of rows, index and files soon after, whatever dies meanwhile.

use std::collections::BTreeSet;
use std::time::Duration;

use chrono::TimeDelta;
use frontdesk::chatbots::deletion;
use frontdesk::db::{Scope, Write};
use frontdesk::id::{ChatbotId, ChunkId, DocumentId, SourceId};
use frontdesk::jobs::schedule;
use frontdesk::on;
use retrieval::index::{Facets, Point};
use serde_json::json;

use crate::harness::app::{TestApp, TestOptions, index_backend};
use crate::harness::client::Chatbot;
use crate::harness::embedders::WatchedEmbedder;
use crate::harness::indexes::IndexSwitch;
use crate::harness::stored::{count_rows, said_in_files, stored_files};
use crate::harness::work::{kill, spawn_worker, until};

const QUESTION: &str = "When are oak tables oiled?";

#[tokio::test]
async fn a_deleted_document_is_out_of_search_and_answers_at_once() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let oak = desk.publish("oak.md", "Oak tables are oiled twice a year.").await;
    desk.publish("hours.md", "The showroom opens at ten.").await;
    assert_eq!(desk.search(QUESTION).await[0]["document_id"], json!(oak));

    acme.delete(&format!("/api/documents/{oak}")).await.expect(204);

    // No worker has run since.
    let held = if index_backend() == "pgvector" { 1 } else { 2 };
    assert_eq!(
        acme.indexed_chunks().await,
        held,
        "an index elsewhere still holds it"
    );
    assert!(
        desk.search(QUESTION)
            .await
            .iter()
            .all(|passage| passage["document_id"] != json!(oak))
    );
    let answer = desk.ask(QUESTION).await.expect(200).json();
    assert!(!answer.to_string().contains("twice a year"), "{answer}");
    for path in [
        format!("/api/documents/{oak}"),
        format!("/api/documents/{oak}/file"),
    ] {
        acme.get(&path).await.expect(404);
    }
    acme.delete(&format!("/api/documents/{oak}")).await.expect(404);
}

#[tokio::test]
async fn what_is_deleted_leaves_rows_index_and_files() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let oak = desk.publish("oak.md", "Oak tables are oiled twice a year.").await;
    desk.publish("hours.md", "The showroom opens at ten.").await;

    acme.delete(&format!("/api/documents/{oak}")).await.expect(204);
    service.drain_jobs().await;

    for (table, left) in [("document", 1), ("document_text", 1), ("chunk", 1)] {
        assert_eq!(count_rows(&service, table).await, left, "{table}");
    }
    assert_eq!(stored_files(&service.data_dir()).len(), 1);
    acme.check_stores_agree().await;
}

#[tokio::test]
async fn what_is_deleted_is_in_no_file_once_upkeep_came_by() {
    let service = TestApp::start().await;
    if service.app.db.is_postgres() {
        // Its rows go by its own vacuum (docs/decisions/0009).
        return;
    }
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let mut ids = Vec::new();
    for number in 0..30 {
        // Some fit into a page of the database with others, some fill several.
        let name = format!("Heartwood{number}oiled ");
        let text = name.repeat(if number % 2 == 0 { 5 } else { 600 });
        ids.push(desk.publish(&format!("{number}.md"), &text).await);
    }
    let all: BTreeSet<String> = (0..30).map(|number| number.to_string()).collect();
    assert_eq!(said_in_files(&service.data_dir(), "Heartwood", "oiled"), all);

    for id in &ids[1..] {
        acme.delete(&format!("/api/documents/{id}")).await.expect(204);
    }
    service.drain_jobs().await;
    schedule::fire_due(&service.app).await.expect("planned");
    service.clock.advance(TimeDelta::minutes(6));
    schedule::fire_due(&service.app).await.expect("upkeep is due");
    service.drain_jobs().await;

    let left = said_in_files(&service.data_dir(), "Heartwood", "oiled");
    assert_eq!(left, BTreeSet::from(["0".to_owned()]));
}

#[tokio::test]
async fn a_deleted_chatbot_takes_all_that_it_knew_along() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let (desk, other) = (acme.chatbot("Desk").await, acme.chatbot("Other").await);
    for number in 0..5 {
        desk.publish(
            &format!("{number}.md"),
            &format!("Table number {number} is oiled."),
        )
        .await;
    }
    desk.ask(QUESTION).await.expect(200);
    other.publish("hours.md", "The showroom opens at ten.").await;

    acme.delete(&format!("/api/chatbots/{}", desk.id))
        .await
        .expect(204);

    acme.post(
        &format!("/api/chatbots/{}/search", desk.id),
        json!({ "query": QUESTION }),
    )
    .await
    .expect(404);
    desk.ask(QUESTION).await.expect(404);
    service.drain_jobs().await;
    for (table, left) in [
        ("chatbot", 1),
        ("source", 1),
        ("document", 1),
        ("document_text", 1),
        ("chunk", 1),
        ("conversation", 0),
        ("message", 0),
    ] {
        assert_eq!(count_rows(&service, table).await, left, "{table}");
    }
    acme.check_stores_agree().await;
    assert_eq!(other.search("When does the showroom open?").await.len(), 1);
}

#[tokio::test]
async fn a_document_that_is_deleted_while_it_is_indexed_leaves_nothing_even_when_the_worker_dies() {
    let embedder = WatchedEmbedder::new();
    let service = TestOptions::default().embedder(embedder.clone()).start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let id = upload_woods(&desk).await;
    embedder.hold();
    let worker = spawn_worker(&service.app);
    embedder.wait_held(1).await;

    // Deleted and cleaned away while chunks are embedded; they get into the index, and the worker dies.
    acme.delete(&format!("/api/documents/{id}")).await.expect(204);
    service.drain_jobs().await;
    kill(worker).await;
    let left = Point {
        chunk_id: retrieval::ChunkId(ChunkId::new().0),
        document_id: retrieval::DocumentId(id.parse::<DocumentId>().expect("an id").0),
        source_id: retrieval::SourceId(ChunkId::new().0),
        text: "Wood1 matters.".to_owned(),
        vector: None,
        facets: Facets::default(),
    };
    let tenant_id = retrieval::TenantId(acme.id.0);
    service
        .app
        .spaces
        .wanted()
        .index
        .upsert(tenant_id, vec![left])
        .await
        .expect("a point");

    service.clock.advance(TimeDelta::seconds(61));
    service.drain_jobs().await;
    acme.check_stores_agree().await;
    assert_eq!(
        (acme.indexed_chunks().await, count_rows(&service, "chunk").await),
        (0, 0)
    );
}

#[tokio::test]
async fn a_document_of_many_chunks_that_is_deleted_while_it_is_staged_leaves_nothing() {
    let embedder = WatchedEmbedder::new();
    let service = TestOptions::default().embedder(embedder.clone()).start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let id = upload_woods(&desk).await;
    embedder.hold();
    let worker = spawn_worker(&service.app);
    embedder.wait_held(1).await;
    embedder.take_documents();

    acme.delete(&format!("/api/documents/{id}")).await.expect(204);
    embedder.let_one_go();
    worker.await.expect("the worker lives");

    service.drain_jobs().await;
    acme.check_stores_agree().await;
    for table in ["document", "chunk", "document_version", "document_text"] {
        assert_eq!(count_rows(&service, table).await, 0, "{table}");
    }
    assert_eq!(acme.indexed_chunks().await, 0);
    assert!(
        embedder.take_documents().len() <= 256,
        "nothing is embedded after it was deleted"
    );
}

/// Uploads a document that is embedded in two groups.
async fn upload_woods(desk: &Chatbot<'_, '_>) -> String {
    let woods: String = (0..300)
        .map(|number| {
            format!(
                "## Wood {number}\n\n{}\n\n",
                format!("Wood{number} matters. ").repeat(90)
            )
        })
        .collect();
    let taken = desk
        .upload(&[("woods.md", woods.as_bytes())])
        .await
        .expect(202)
        .json();
    taken["items"][0]["id"].as_str().expect("an id").to_owned()
}

#[tokio::test]
async fn a_document_that_is_deleted_while_it_is_indexed_stays_deleted() {
    let embedder = WatchedEmbedder::new();
    let switch = IndexSwitch::default();
    let service = TestOptions::default()
        .embedder(embedder.clone())
        .index(&switch)
        .start()
        .await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    embedder.hold();
    let taken = desk
        .upload(&[("oak.md", b"Oak tables are oiled twice a year.")])
        .await
        .expect(202)
        .json();
    let worker = spawn_worker(&service.app);
    embedder.wait_held(1).await;
    acme.delete(&format!(
        "/api/documents/{}",
        taken["items"][0]["id"].as_str().expect("an id")
    ))
    .await
    .expect(204);
    // It is cleaned away before it comes in.
    service.drain_jobs().await;
    embedder.let_one_go();
    worker.await.expect("the worker lives");
    service.drain_jobs().await;

    assert!(desk.search(QUESTION).await.is_empty());
    acme.check_stores_agree().await;
    assert_eq!(count_rows(&service, "document").await, 0);
    let known = switch.documents();
    assert!(known.is_empty(), "what is said of it stays: {known:?}");
}

#[tokio::test]
async fn a_cleaning_that_was_interrupted_is_finished_later() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let oak = desk.publish("oak.md", "Oak tables are oiled twice a year.").await;
    acme.delete(&format!("/api/documents/{oak}")).await.expect(204);
    // The process ends before any worker has looked.
    let (id, key) = (acme.id, acme.key.clone());
    let desk_id = desk.id.clone();
    let service = service.restart(&[]).await;
    let acme = crate::harness::app::Tenant {
        service: &service,
        id,
        key,
    };

    service.drain_jobs().await;

    until("nothing is left", async || {
        stored_files(&service.data_dir()).is_empty()
    })
    .await;
    acme.check_stores_agree().await;
    assert_eq!(acme.indexed_chunks().await, 0);
    acme.post(
        &format!("/api/chatbots/{desk_id}/search"),
        json!({ "query": QUESTION }),
    )
    .await
    .expect(200);
}

/// Documents that are deleted in several transactions, and the chunks of each.
const MANY: usize = 1_200;
const CHUNKS_EACH: i64 = 3;

/// One more document than fits into a transaction with its chunks.
const CHUNKS_OF_LARGE: i64 = 4_500;

/// Copies the one document of a chatbot `MANY` times, and gives the first one more chunks than a transaction deletes.
async fn multiply_document(service: &TestApp, desk: &str) {
    let mut write = service
        .app
        .db
        .write(Scope::Operator)
        .await
        .expect("a transaction");
    let desk: ChatbotId = desk.parse().expect("an id");
    let original: (DocumentId, String) =
        on!(write, c => sqlx::query_as("select id, content_hash from document where chatbot_id = $1").bind(desk).fetch_one(c).await)
            .expect("a document");
    for _ in 0..MANY {
        let id = DocumentId::new();
        on!(write, c => sqlx::query(
            "insert into document (id, tenant_id, chatbot_id, source_id, external_id, title, file_name, format, size_bytes, content_hash,
                                   file_key, state, chunk_count, token_count, created_at, updated_at)
             select $1, tenant_id, chatbot_id, source_id, $2, title, file_name, format, size_bytes, content_hash, $2, state, $3, token_count,
                    created_at, updated_at
               from document
              where id = $4",
        ).bind(id).bind(format!("{0}/{0}", id.0)).bind(CHUNKS_EACH).bind(original.0).execute(c).await.map(drop))
        .expect("a copy");
        copy_chunk(&mut write, original.0, id, CHUNKS_EACH).await;
    }
    copy_chunk(&mut write, original.0, original.0, CHUNKS_OF_LARGE).await;
    on!(write, c => sqlx::query("update document set chunk_count = $2 where id = $1").bind(original.0).bind(1 + CHUNKS_OF_LARGE).execute(c).await.map(drop))
        .expect("a count");
    write.commit().await.expect("a commit");
}

async fn copy_chunk(write: &mut Write, from: DocumentId, to: DocumentId, copies: i64) {
    for position in 1..=copies {
        on!(write, c => sqlx::query(
            "insert into chunk (id, tenant_id, document_id, source_id, position, text, start_char, end_char, token_count, prompt_token_count, content_hash)
             select $1, tenant_id, $2, source_id, $3, text, start_char, end_char, token_count, prompt_token_count, content_hash
               from chunk
              where document_id = $4
                and position = 0",
        ).bind(ChunkId::new()).bind(to).bind(position).bind(from).execute(c).await.map(drop))
        .expect("a chunk");
    }
}

#[tokio::test]
async fn a_large_chatbot_is_gone_at_once_for_everybody_while_its_rows_go_in_slices() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let oak = desk.publish("oak.md", "Oak tables are oiled twice a year.").await;
    let answer = desk.ask(QUESTION).await.expect(200).json();
    let conversation = answer["conversation_id"].as_str().expect("an id");
    multiply_document(&service, &desk.id).await;
    let sources = format!("/api/chatbots/{}/sources", desk.id);
    let source = acme.get(&sources).await.expect(200).json()["items"][0]["id"].clone();
    let source = source.as_str().expect("an id");

    acme.delete(&format!("/api/chatbots/{}", desk.id))
        .await
        .expect(204);

    // No worker has run since: all rows are there.
    assert_eq!(count_rows(&service, "document").await, 1 + MANY as i64);
    for path in [
        format!("/api/chatbots/{}", desk.id),
        format!("/api/chatbots/{}/documents", desk.id),
        sources,
        format!("/api/sources/{source}"),
        format!("/api/documents/{oak}"),
        format!("/api/conversations/{conversation}"),
    ] {
        acme.get(&path).await.expect(404);
    }
    for path in ["/api/chatbots", "/api/conversations"] {
        let page = acme.get(path).await.expect(200).json();
        assert_eq!(page["items"], json!([]), "{path}");
    }
    desk.ask(QUESTION).await.expect(404);
    desk.upload(&[("new.md", b"Something new.")]).await.expect(404);
    acme.delete(&format!("/api/chatbots/{}", desk.id))
        .await
        .expect(404);

    let id: ChatbotId = desk.id.parse().expect("an id");
    let (mut documents, mut chunks) = (1 + MANY as i64, count_rows(&service, "chunk").await);
    while deletion::delete_some(&service.app, acme.id, id)
        .await
        .expect("a slice")
    {
        let left = (
            count_rows(&service, "document").await,
            count_rows(&service, "chunk").await,
        );
        assert!(
            documents - left.0 <= 500 && chunks - left.1 <= 2_000,
            "{left:?} of {documents} and {chunks}"
        );
        (documents, chunks) = left;
    }
    service.drain_jobs().await;
    for table in [
        "chatbot",
        "source",
        "document",
        "document_text",
        "chunk",
        "conversation",
        "message",
    ] {
        assert_eq!(count_rows(&service, table).await, 0, "{table}");
    }
    acme.check_stores_agree().await;
}

#[tokio::test]
async fn a_document_of_many_chunks_is_gone_at_once_and_its_rows_go_in_slices() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let oak = desk.publish("oak.md", "Oak tables are oiled twice a year.").await;
    multiply_document(&service, &desk.id).await;
    let mut chunks = count_rows(&service, "chunk").await;

    acme.delete(&format!("/api/documents/{oak}")).await.expect(204);

    acme.get(&format!("/api/documents/{oak}")).await.expect(404);
    assert!(desk.search(QUESTION).await.is_empty());
    assert_eq!(
        count_rows(&service, "chunk").await,
        chunks,
        "no worker has run since"
    );
    let taken = desk
        .upload(&[("oak.md", b"Oak is hard.")])
        .await
        .expect(202)
        .json();
    assert_ne!(taken["items"][0]["id"], json!(oak));

    let mut conn = service.app.db.read(Scope::Operator).await.expect("a connection");
    let hidden: SourceId = on!(conn, c => sqlx::query_scalar("select id from source where deleted_at is not null").fetch_one(c).await)
        .expect("what hides it");
    drop(conn);
    while frontdesk::knowledge::deletion::delete_some(&service.app, acme.id, hidden)
        .await
        .expect("a slice")
    {
        let left = count_rows(&service, "chunk").await;
        assert!(chunks - left <= 1_000, "{left} of {chunks}");
        chunks = left;
    }
    service.drain_jobs().await;
    assert_eq!(chunks, CHUNKS_EACH * MANY as i64);
    assert_eq!(count_rows(&service, "source").await, 1);
    assert_eq!(acme.indexed_chunks().await, 1, "that of the new document");
}

#[tokio::test]
async fn nobody_is_refused_while_a_large_chatbot_is_deleted() {
    let service = TestApp::start().await;
    let (acme, globex) = (service.tenant("acme").await, service.tenant("globex").await);
    let desk = acme.chatbot("Desk").await;
    desk.publish("oak.md", "Oak tables are oiled twice a year.").await;
    multiply_document(&service, &desk.id).await;
    acme.delete(&format!("/api/chatbots/{}", desk.id))
        .await
        .expect(204);

    let worker = spawn_worker(&service.app);
    let mut made = 0;
    while !worker.is_finished() || made < 5 {
        globex
            .post("/api/chatbots", json!({ "name": format!("Desk {made}") }))
            .await
            .expect(201);
        made += 1;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }

    worker.await.expect("the worker lives");
    assert_eq!(count_rows(&service, "document").await, 0);
    assert_eq!(count_rows(&service, "chatbot").await, made);
}
