//! The index holds what nobody may read: a version that is on its way, or what a death left. It answers nothing, and takes
//! nothing from what does.

use frontdesk::db::Scope;
use frontdesk::id::ChunkId;
use frontdesk::jobs;
use frontdesk::knowledge::jobs::RemoveDocuments;
use frontdesk::on;
use retrieval::embed::Asker;
use retrieval::index::{Facets, Point};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::harness::app::{Chatbot, TestApp, TestOptions};
use crate::harness::embedders::WatchedEmbedder;
use crate::harness::indexes::IndexSwitch;
use crate::harness::stored::waiting_chunks;
use crate::harness::work::{kill, spawn_worker, until};

const CARE: &str = "Oak tables need oil twice a year, that is in spring and in autumn.";
const QUESTION: &str = "How often do oak tables need oil?";

/// A table of so many rows about what is asked, each a chunk of its own.
fn about_oil(rows: usize) -> String {
    let text = "oak tables oil need often ".repeat(25);
    let rows = (0..rows).map(|number| format!("item{number} {text},{number}\n"));
    "Name,Number\n".to_owned() + &rows.collect::<String>()
}

async fn search(desk: &Chatbot<'_, '_>) -> Value {
    let path = format!("/api/chatbots/{}/search", desk.id);
    let found = desk.tenant.post(&path, json!({ "query": QUESTION })).await;
    found.expect(200).json()
}

/// Fails unless chat and search tell the page, and this of what they do without.
async fn assert_answered(desk: &Chatbot<'_, '_>, degraded: &[&str]) {
    let codes = |told: &Value| -> Vec<String> {
        let told = told["degraded"].as_array().cloned().unwrap_or_default();
        let codes = told
            .iter()
            .map(|left_out| left_out["code"].as_str().expect("a code"));
        codes.map(str::to_owned).collect()
    };
    let found = search(desk).await;
    assert_eq!(found["items"][0]["text"], CARE, "{found}");
    assert_eq!(codes(&found), degraded, "{found}");
    let answer = desk.ask(QUESTION).await.expect(200).json();
    assert_eq!(answer["source"], "extractive", "{answer}");
    assert!(answer["answer"].to_string().contains("twice a year"), "{answer}");
    assert_eq!(codes(&answer), degraded, "{answer}");
}

/// Puts points that have no rows into the chatbot's source, which say just what is asked.
async fn add_strays(desk: &Chatbot<'_, '_>, document: &str, count: u128) {
    let source = desk.document(document).await["source_id"].clone();
    let source: Uuid = source.as_str().expect("an id").parse().expect("an id");
    let space = desk.tenant.service.app.spaces.wanted();
    let embedder = space.embedder.as_ref().expect("a model");
    let tenant = retrieval::TenantId(desk.tenant.id.0);
    let asked = embedder.embed_query(Asker::Tenant(tenant), QUESTION.to_owned());
    let asked = asked.await.expect("a vector");
    let point = |number: u128| Point {
        chunk_id: retrieval::ChunkId(Uuid::from_u128(number)),
        document_id: retrieval::DocumentId(Uuid::from_u128(7)),
        source_id: retrieval::SourceId(source),
        text: QUESTION.to_owned(),
        vector: asked.vectors.first().cloned(),
        facets: Facets::default(),
    };
    let points: Vec<Point> = (1..=count).map(point).collect();
    for some in points.chunks(1_000) {
        space.index.upsert(tenant, some.to_vec()).await.expect("stored");
    }
}

#[tokio::test]
async fn a_version_on_its_way_in_takes_no_answer_from_what_is_known() {
    let embedder = WatchedEmbedder::new();
    let service = TestOptions::default().embedder(embedder.clone()).start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    desk.publish("care.md", CARE).await;
    assert_answered(&desk, &[]).await;
    embedder.hold();
    desk.upload(&[("stock.csv", about_oil(2_000).as_bytes())])
        .await
        .expect(202);
    let worker = spawn_worker(&service.app);
    embedder
        .let_pass_until(async || waiting_chunks(&service).await >= 600)
        .await;

    assert_answered(&desk, &[]).await;

    kill(worker).await;
    embedder.let_one_go();
}

#[tokio::test]
async fn behind_more_than_is_looked_through_the_rows_answer_and_it_is_said() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let care = desk.publish("care.md", CARE).await;
    assert_answered(&desk, &[]).await;

    add_strays(&desk, &care, 600).await;
    assert_answered(&desk, &[]).await;

    add_strays(&desk, &care, 5_000).await;
    assert_answered(&desk, &["index_incomplete"]).await;
}

#[tokio::test]
async fn a_phrase_is_found_behind_what_nobody_may_read() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let care = desk.publish("care.md", CARE).await;
    add_strays(&desk, &care, 1_000).await;

    let found = desk.search("oak tables need oil often \"twice a year\"").await;

    assert_eq!(found[0]["text"], CARE, "{found:?}");
}

/// Gives a chunk's row another id.
async fn rename_chunk(service: &TestApp, from: ChunkId, to: ChunkId) {
    let mut write = service
        .app
        .db
        .write(Scope::Operator)
        .await
        .expect("a transaction");
    on!(write, c => sqlx::query("update chunk set id = $2 where id = $1").bind(from).bind(to).execute(c).await.map(drop))
        .expect("written");
    write.commit().await.expect("a commit");
}

#[tokio::test]
async fn what_comes_in_again_while_it_is_removed_from_the_index_stays_there() {
    let switch = IndexSwitch::default();
    let service = TestOptions::default().index(&switch).start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let care = desk.publish("care.md", CARE).await;
    let chunk = desk.first_chunk(&care).await;
    let (chunk, elsewhere) = (ChunkId(chunk.parse().expect("an id")), ChunkId::new());
    rename_chunk(&service, chunk, elsewhere).await;
    let removal = RemoveDocuments {
        document_ids: Vec::new(),
        chunk_ids: vec![chunk],
        file_keys: Vec::new(),
    };
    let mut write = service.app.db.write(acme.id).await.expect("a transaction");
    jobs::enqueue(&service.app, &mut write, acme.id, &removal)
        .await
        .expect("queued");
    write.commit().await.expect("a commit");
    let held = switch.hold_deletions().await;
    let worker = spawn_worker(&service.app);
    until("it is removed", async || switch.deletions() > 0).await;

    rename_chunk(&service, elsewhere, chunk).await;
    drop(held);
    worker.await.expect("the worker lives");

    assert_answered(&desk, &[]).await;
    acme.check_stores_agree().await;
}
