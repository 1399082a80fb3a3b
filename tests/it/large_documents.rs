//! Documents of many megabytes: read, cut, embedded and stored in parts, and swapped in whole.

use chrono::TimeDelta;
use frontdesk::db::Scope;
use frontdesk::generations::operator;
use frontdesk::id::ChunkId;
use frontdesk::knowledge::verify;
use frontdesk::on;
use serde_json::{Value, json};

use crate::harness::app::{Chatbot, TestApp, TestOptions};
use crate::harness::embedders::WatchedEmbedder;
use crate::harness::stored::{WAITING_TEXT, assert_nothing_staged, count_rows, waiting_chunks};
use crate::harness::work::{kill, spawn_worker, until};

/// What one call of the embedding model takes at most.
const GROUP: i64 = 256;

/// A log without an empty line is one block; this one has several groups of chunks.
fn log_file() -> String {
    (0..60_000)
        .map(|number| format!("request{number} answered\n"))
        .collect()
}

/// Uploads the log, and leaves the work to whoever runs jobs.
async fn upload_log(desk: &Chatbot<'_, '_>) -> String {
    let log = log_file();
    let taken = desk
        .upload(&[("requests.txt", log.as_bytes())])
        .await
        .expect(202)
        .json();
    taken["items"][0]["id"].as_str().expect("an id").to_owned()
}

/// Somewhat more than two parts, of chapters whose chunks are few enough for a test.
fn book(last_words: &str) -> String {
    let mut text = String::new();
    let mut number = 0;
    while text.len() < 5 << 20 {
        number += 1;
        // A long word is few tokens here, so chunks are large.
        text += &format!("Größe {number} {}\n\n", "x".repeat(4_000));
    }
    text + last_words
}

/// The whole text, put together from its parts.
pub async fn text_of(desk: &Chatbot<'_, '_>, id: &str) -> (String, usize) {
    let (mut text, mut part, mut parts) = (String::new(), 0, 0);
    loop {
        let page = desk
            .tenant
            .get(&format!("/api/documents/{id}?text_part={part}"))
            .await
            .expect(200)
            .json();
        assert_eq!(page["text_start"].as_u64(), Some(text.chars().count() as u64));
        text += page["text"].as_str().expect("text");
        parts += 1;
        match page["next_text_part"].as_i64() {
            Some(next) => part = next,
            None => return (text, parts),
        }
    }
}

pub async fn all_chunks(desk: &Chatbot<'_, '_>, id: &str) -> Vec<Value> {
    let (mut chunks, mut from) = (Vec::new(), 0);
    loop {
        let page = desk
            .tenant
            .get(&format!("/api/documents/{id}/chunks?from_chunk={from}"))
            .await
            .expect(200)
            .json();
        chunks.extend(page["items"].as_array().expect("items").clone());
        match page["next_chunk"].as_i64() {
            Some(next) => from = next,
            None => return chunks,
        }
    }
}

#[tokio::test]
async fn a_document_in_parts_is_one_document_whose_spans_hold_from_end_to_end() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;

    let id = desk.publish("book.txt", &book("The butler did it.")).await;

    let document = desk.document(&id).await;
    assert_eq!(document["state"], "indexed", "{}", document["error"]);
    let (text, parts) = text_of(&desk, &id).await;
    assert!(parts >= 2, "{parts} parts");
    let text: Vec<char> = text.chars().collect();
    let chunks = all_chunks(&desk, &id).await;
    assert_eq!(document["chunks"].as_u64(), Some(chunks.len() as u64));
    let offset =
        |chunk: &Value, name: &str| usize::try_from(chunk[name].as_u64().expect("an offset")).expect("small");
    for (position, chunk) in chunks.iter().enumerate() {
        let span: String = text[offset(chunk, "start")..offset(chunk, "end")]
            .iter()
            .collect();
        assert!(chunk["text"] == span.as_str(), "chunk {position}");
        assert_eq!(chunk["position"].as_u64(), Some(position as u64));
    }
    assert!(
        desk.search("Who did it? The butler?").await[0]["text"]
            .to_string()
            .contains("butler")
    );
    assert_nothing_staged(&service).await;
    acme.check_stores_agree().await;
}

#[tokio::test]
async fn a_large_document_goes_on_where_it_was_and_its_old_version_answers_until_it_is_whole() {
    let embedder = WatchedEmbedder::new();
    // What was embedded without having been said to be ready is embedded again.
    let options = TestOptions::default().embedder(embedder.clone());
    let service = options.set("embedding.cache_mb", 0).start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    // In the same language, by whose rules words are read.
    let first: String = (1..40)
        .map(|number| format!("Größe {number} {}\n\n", "x".repeat(40)))
        .collect();
    let id = desk
        .publish("book.txt", &format!("{first}The gardener did it."))
        .await;
    embedder.take_documents();
    embedder.hold();
    desk.upload(&[("book.txt", book("The butler did it.").as_bytes())])
        .await
        .expect(202);
    let worker = spawn_worker(&service.app);
    // The first part is more than the embedder takes at once; stop in the second one.
    embedder
        .let_pass_until(async || count_rows(&service, WAITING_TEXT).await > 0)
        .await;
    kill(worker).await;
    embedder.take_documents();
    let staged = waiting_chunks(&service).await;
    assert!(
        desk.search("Who did it?").await[0]["text"]
            .to_string()
            .contains("gardener")
    );

    embedder.let_one_go();
    service.clock.advance(TimeDelta::minutes(10));
    service.drain_jobs().await;

    let embedded_again = i64::try_from(embedder.take_documents().len()).expect("a small number");
    let all = desk.document(&id).await["chunks"].as_i64().expect("a count");
    assert!(staged > 0);
    assert_eq!(
        embedded_again,
        all - staged,
        "what was staged is not embedded again"
    );
    assert!(
        desk.search("Who did it?").await[0]["text"]
            .to_string()
            .contains("butler")
    );
    acme.check_stores_agree().await;

    let smaller = desk.publish("book.txt", "Nobody did it.").await;
    assert_eq!(smaller, id);
    let (text, parts) = text_of(&desk, &id).await;
    assert_eq!((text.as_str(), parts), ("Nobody did it.", 1));
    acme.check_stores_agree().await;
}

#[tokio::test]
async fn a_text_of_one_block_goes_group_by_group_and_a_death_repeats_no_group_that_was_done() {
    let embedder = WatchedEmbedder::new();
    let service = TestOptions::default().embedder(embedder.clone()).start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    embedder.hold();
    let id = upload_log(&desk).await;
    let worker = spawn_worker(&service.app);
    embedder.let_first_pass().await;
    kill(worker).await;
    embedder.take_documents();
    let document = desk.document(&id).await;
    assert_eq!(
        (
            &document["state"],
            &document["chunks"],
            &document["staged_chunks"]
        ),
        (&json!("processing"), &json!(0), &json!(GROUP))
    );
    assert!(
        desk.search("request1").await.is_empty(),
        "half a document answers nothing"
    );

    embedder.let_one_go();
    service.clock.advance(TimeDelta::minutes(10));
    service.drain_jobs().await;

    let document = desk.document(&id).await;
    assert_eq!(document["state"], "indexed", "{}", document["error"]);
    assert!(document["staged_chunks"].is_null());
    let all = document["chunks"].as_i64().expect("a count");
    assert!(all > 2 * GROUP, "{all} chunks");
    let embedded_again = i64::try_from(embedder.take_documents().len()).expect("a small number");
    assert_eq!(embedded_again, all - GROUP);
    let booked = count_rows(&service, "usage_event where channel = 'ingest'").await;
    assert_eq!(booked, (all + GROUP - 1) / GROUP);
    assert_eq!(count_rows(&service, "chunk").await, all);
    assert_nothing_staged(&service).await;
    acme.check_stores_agree().await;
}

/// Lives of a worker each of which ends in the midst of a group, behind so many whole ones.
async fn die(service: &TestApp, embedder: &WatchedEmbedder, held: &mut usize, groups: &[usize]) {
    for groups in groups {
        let worker = spawn_worker(&service.app);
        for _ in 0..*groups {
            *held += 1;
            embedder.wait_held(*held).await;
            embedder.let_one_go();
            embedder.hold();
        }
        *held += 1;
        embedder.wait_held(*held).await;
        kill(worker).await;
        service.clock.advance(TimeDelta::minutes(10));
    }
}

#[tokio::test]
async fn a_document_that_came_further_in_each_life_is_not_given_up_for_its_deaths() {
    let embedder = WatchedEmbedder::new();
    let options = TestOptions::default().embedder(embedder.clone());
    let service = options.set("jobs.max_attempts", 2).start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    embedder.hold();
    let id = upload_log(&desk).await;
    let mut held = 0;

    die(&service, &embedder, &mut held, &[1, 1]).await;
    assert_eq!(waiting_chunks(&service).await, 2 * GROUP);
    embedder.let_one_go();
    service.drain_jobs().await;

    let document = desk.document(&id).await;
    assert_eq!(document["state"], "indexed", "{}", document["error"]);
    acme.check_stores_agree().await;
}

/// A document that was given up for its deaths at the same place, behind one group.
async fn give_up_for_deaths(desk: &Chatbot<'_, '_>, embedder: &WatchedEmbedder) -> String {
    embedder.hold();
    let id = upload_log(desk).await;
    let service = desk.tenant.service;
    die(service, embedder, &mut 0, &[1, 0]).await;
    embedder.let_one_go();
    embedder.take_documents();
    service.drain_jobs().await;

    let document = desk.document(&id).await;
    assert_eq!(
        (&document["state"], &document["error"]["code"]),
        (&json!("failed"), &json!("indexing_failed"))
    );
    assert_eq!(waiting_chunks(service).await, GROUP);
    id
}

#[tokio::test]
async fn what_a_document_had_that_was_given_up_for_its_deaths_is_there_for_the_retry() {
    let embedder = WatchedEmbedder::new();
    let options = TestOptions::default().embedder(embedder.clone());
    let options = options.set("jobs.max_attempts", 2);
    let service = options.set("embedding.cache_mb", 0).start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let id = give_up_for_deaths(&desk, &embedder).await;

    let failed = acme.get("/api/jobs?state=failed").await.expect(200).json();
    let job = failed["items"][0]["id"].as_str().expect("a job");
    acme.post(&format!("/api/jobs/{job}/retry"), json!({}))
        .await
        .expect(200);
    service.drain_jobs().await;

    let document = desk.document(&id).await;
    assert_eq!(document["state"], "indexed", "{}", document["error"]);
    let all = document["chunks"].as_i64().expect("a count");
    let embedded_again = i64::try_from(embedder.take_documents().len()).expect("a small number");
    assert_eq!(embedded_again, all - GROUP);
    assert_nothing_staged(&service).await;
    acme.check_stores_agree().await;
}

#[tokio::test]
async fn what_is_kept_for_the_retry_is_no_difference_and_its_tenant_is_looked_at_meanwhile() {
    let embedder = WatchedEmbedder::new();
    let options = TestOptions::default().embedder(embedder.clone());
    let service = options.set("jobs.max_attempts", 2).start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let oak = desk.publish("oak.md", "Oak tables are oiled twice a year.").await;
    give_up_for_deaths(&desk, &embedder).await;
    let wrong = async || operator::verify_some(&service.app).await.expect("compared");

    assert_eq!(operator::check_counts(&service.app).await.expect("counted"), []);
    assert_eq!(wrong().await, []);
    let oak = retrieval::DocumentId(oak.parse().expect("an id"));
    let index = service.app.spaces.wanted().index.clone();
    index
        .set_facets(
            retrieval::TenantId(acme.id.0),
            vec![(oak, retrieval::index::Facets::default())],
        )
        .await
        .expect("told");

    assert_eq!(wrong().await, [acme.id]);
    service.drain_jobs().await;
    assert_eq!(wrong().await, []);
}

#[tokio::test]
async fn what_nobody_tries_again_is_dropped_when_its_job_is_forgotten() {
    let embedder = WatchedEmbedder::new();
    let options = TestOptions::default().embedder(embedder.clone());
    let service = options.set("jobs.max_attempts", 2).start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    give_up_for_deaths(&desk, &embedder).await;

    service.clock.advance(TimeDelta::days(8));
    service.drain_jobs().await;

    assert_eq!(count_rows(&service, "chunk").await, 0);
    assert_nothing_staged(&service).await;
    acme.check_stores_agree().await;
}

#[tokio::test]
async fn a_version_takes_no_text_of_one_whose_dropping_was_interrupted() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let id = desk.publish("book.txt", &book("The butler did it.")).await;
    let mut write = service
        .app
        .db
        .write(Scope::Operator)
        .await
        .expect("a transaction");
    on!(write, c => sqlx::query(
        "insert into document_text (document_id, version, part, tenant_id, content_hash, start_char, text)
         select document_id, version + 1, part + 1, tenant_id, content_hash, start_char, text from document_text",
    ).execute(c).await.map(drop))
    .expect("rows");
    write.commit().await.expect("stored");

    let other = book("The gardener did it.");
    desk.publish("book.txt", &other).await;

    let (text, _) = text_of(&desk, &id).await;
    assert!(text.trim_end() == other.trim_end(), "it says what its file says");
    service.drain_jobs().await;
    assert_nothing_staged(&service).await;
}

#[tokio::test]
async fn what_a_document_is_labelled_with_between_two_attempts_holds_in_all_of_its_chunks() {
    let embedder = WatchedEmbedder::new();
    let service = TestOptions::default().embedder(embedder.clone()).start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    embedder.hold();
    let id = upload_log(&desk).await;
    let worker = spawn_worker(&service.app);
    embedder.wait_held(1).await;
    let labels = json!({ "tags": ["log"] });
    acme.patch(&format!("/api/documents/{id}"), labels)
        .await
        .expect(200);
    // The index is told before it holds anything of the document.
    service.drain_jobs().await;
    embedder.let_one_go();
    embedder.hold();
    embedder.wait_held(2).await;
    assert_eq!(waiting_chunks(&service).await, GROUP);
    kill(worker).await;

    embedder.let_one_go();
    service.clock.advance(TimeDelta::minutes(10));
    service.drain_jobs().await;

    assert_eq!(desk.document(&id).await["state"], "indexed");
    let space = service.app.spaces.wanted().clone();
    let compared = verify::compare(&service.app, acme.id, &space, false).await;
    assert!(
        compared.as_ref().is_ok_and(verify::Findings::agree),
        "{compared:?}"
    );
}

#[tokio::test]
async fn a_document_that_is_given_up_half_way_leaves_nothing_staged_and_nothing_in_the_index() {
    let embedder = WatchedEmbedder::new();
    let service = TestOptions::default()
        .embedder(embedder.clone())
        .set("jobs.max_attempts", 1)
        .start()
        .await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    embedder.hold();
    upload_log(&desk).await;
    let worker = spawn_worker(&service.app);
    embedder.let_first_pass().await;
    assert_eq!(waiting_chunks(&service).await, GROUP);
    let given_up = chunk_ids(&service).await;
    embedder.refuse(1);
    embedder.let_one_go();
    // No job has a second attempt here, so none is to die with its worker.
    until("it is given up and dropped", async || {
        (acme.indexed_chunks().await, count_rows(&service, "chunk").await) == (0, 0)
    })
    .await;
    kill(worker).await;
    service.clock.advance(TimeDelta::minutes(10));
    service.drain_jobs().await;

    assert_nothing_staged(&service).await;
    acme.check_stores_agree().await;

    // Another attempt owes nothing to the first one, however late that one's chunks are removed.
    let failed = acme.get("/api/jobs?state=failed").await.expect(200).json();
    let jobs = failed["items"].as_array().expect("jobs");
    let indexing = jobs
        .iter()
        .find(|job| job["kind"] == "index_documents")
        .expect("it");
    let job = indexing["id"].as_str().expect("an id");
    acme.post(&format!("/api/jobs/{job}/retry"), json!({}))
        .await
        .expect(200);
    service.drain_jobs().await;
    let chunks = count_rows(&service, "chunk").await;
    assert!(chunks > GROUP, "{chunks}");
    service
        .app
        .spaces
        .wanted()
        .index
        .delete_chunks(retrieval::TenantId(acme.id.0), given_up)
        .await
        .expect("removed");
    acme.check_stores_agree().await;
}

async fn chunk_ids(service: &TestApp) -> Vec<retrieval::ChunkId> {
    let mut conn = service.app.db.read(Scope::Operator).await.expect("a connection");
    let ids: Vec<ChunkId> =
        on!(conn, c => sqlx::query_scalar("select id from chunk").fetch_all(c).await).expect("ids");
    ids.into_iter().map(|id| retrieval::ChunkId(id.0)).collect()
}

#[tokio::test]
async fn a_document_whose_index_was_lost_meanwhile_is_not_shown_with_holes() {
    let embedder = WatchedEmbedder::new();
    let service = TestOptions::default().embedder(embedder.clone()).start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    embedder.hold();
    let id = upload_log(&desk).await;
    let worker = spawn_worker(&service.app);
    embedder.let_first_pass().await;

    // As a server does that starts on a new index.
    let mut write = service
        .app
        .db
        .write(Scope::Operator)
        .await
        .expect("a transaction");
    on!(write, c => sqlx::query("update document_version set state = 'left' where state = 'waiting'").execute(c).await.map(drop)).expect("written");
    write.commit().await.expect("a commit");
    embedder.let_one_go();
    worker.await.expect("the worker lives");
    service.clock.advance(TimeDelta::hours(1));
    service.drain_jobs().await;

    let document = desk.document(&id).await;
    assert_eq!(document["state"], "indexed", "{}", document["error"]);
    let chunks = all_chunks(&desk, &id).await;
    assert_eq!(chunks[0]["start"], 0, "{}", chunks[0]);
    assert!(chunks.len() > 256, "{} chunks", chunks.len());
    assert_nothing_staged(&service).await;
    acme.check_stores_agree().await;
}

#[tokio::test]
async fn a_later_attempt_takes_over_what_another_one_is_still_bringing_in() {
    let embedder = WatchedEmbedder::new();
    let service = TestOptions::default().embedder(embedder.clone()).start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    embedder.hold();
    let id = upload_log(&desk).await;
    let slow = spawn_worker(&service.app);
    embedder.wait_held(1).await;
    service.clock.advance(TimeDelta::minutes(10));
    let second = spawn_worker(&service.app);
    embedder.wait_held(2).await;

    // The first attempt does not know yet that its lease is over, and goes on before the second one does.
    embedder.let_one_go();
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    embedder.let_one_go();
    slow.await.expect("the worker lives");
    second.await.expect("the worker lives");
    service.clock.advance(TimeDelta::minutes(10));
    service.drain_jobs().await;

    let document = desk.document(&id).await;
    assert_eq!(document["state"], "indexed", "{}", document["error"]);
    let chunks = document["chunks"].as_i64().expect("a count");
    assert_eq!(count_rows(&service, "chunk").await, chunks);
    assert_nothing_staged(&service).await;
    acme.check_stores_agree().await;
}
