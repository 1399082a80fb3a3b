//! Documents that share a job, an embedding call and a transaction, and nothing else: each ends as it would alone.

use std::sync::Arc;

use chrono::TimeDelta;
use frontdesk::clock::Clock as _;
use frontdesk::id::{DocumentId, SyncRunId};
use frontdesk::jobs::Priority;
use frontdesk::knowledge::{indexing, reading};
use frontdesk::on;
use ingest::{Block, BlockKind, ExtractedDocument};
use retrieval::BoxFuture;
use retrieval::embed::{Asker, EmbedError, Embedder, Embeddings};
use serde_json::json;
use uuid::Uuid;

use crate::harness::app::{Chatbot, Tenant, TestApp, TestOptions, WordEmbedder};
use crate::harness::embedders::WatchedEmbedder;
use crate::harness::stored::{count_rows, fixture, ids, page_about};
use crate::harness::work::{kill, spawn_worker};

/// Enough files for an upload to count as a bulk import, whose documents share jobs.
const BULK: usize = 12;

fn files(count: usize) -> Vec<(String, Vec<u8>)> {
    (0..count)
        .map(|number| {
            (
                format!("{number}.md"),
                format!("Notes about subject {number}.").into_bytes(),
            )
        })
        .collect()
}

async fn upload(desk: &Chatbot<'_, '_>, files: &[(String, Vec<u8>)]) -> Vec<String> {
    let files: Vec<(&str, &[u8])> = files
        .iter()
        .map(|(name, bytes)| (name.as_str(), bytes.as_slice()))
        .collect();
    ids(&desk.upload(&files).await.expect(202).json())
}

async fn states(desk: &Chatbot<'_, '_>, ids: &[String]) -> Vec<String> {
    let mut states = Vec::new();
    for id in ids {
        let document = desk.document(id).await;
        let end = document["error"]["code"].as_str().or(document["state"].as_str());
        states.push(end.expect("a state").to_owned());
    }
    states
}

fn document_id(id: &str) -> DocumentId {
    id.parse().expect("an id")
}

async fn file_key(acme: &Tenant<'_>, id: &str) -> String {
    let mut conn = acme.service.app.db.read(acme.id).await.expect("a connection");
    on!(conn, c => sqlx::query_scalar("select file_key from document where tenant_id = $1 and id = $2")
        .bind(acme.id).bind(document_id(id)).fetch_one(c).await)
    .expect("the document is there")
}

#[tokio::test]
async fn many_small_documents_take_one_job_and_one_embedding_call() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;

    let ids = upload(&desk, &files(BULK)).await;
    let jobs = service.drain_jobs().await;

    assert_eq!(jobs, 1);
    assert_eq!(count_rows(&service, "usage_event").await, 1);
    assert_eq!(states(&desk, &ids).await, vec!["indexed"; BULK]);
    acme.check_stores_agree().await;
}

#[tokio::test]
async fn a_document_that_cannot_be_read_fails_alone_in_its_job() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let mut files = files(BULK);
    files[4] = ("damaged.pdf".to_owned(), fixture("broken/damaged.pdf"));

    let ids = upload(&desk, &files).await;
    let jobs = service.drain_jobs().await;

    let mut expected = vec!["indexed"; BULK];
    expected[4] = "damaged";
    assert_eq!(
        (jobs, states(&desk, &ids).await),
        (1, expected.into_iter().map(str::to_owned).collect())
    );
}

/// Takes no text about a certain subject, whoever else is in the call.
struct PickyEmbedder;

const UNPALATABLE: &str = "subject 5";

impl Embedder for PickyEmbedder {
    fn model_id(&self) -> &str {
        "picky-words"
    }

    fn dimension(&self) -> usize {
        WordEmbedder.dimension()
    }

    fn max_tokens(&self) -> usize {
        WordEmbedder.max_tokens()
    }

    fn count_tokens(&self, text: &str) -> usize {
        WordEmbedder.count_tokens(text)
    }

    fn embed_query(&self, asker: Asker, text: String) -> BoxFuture<'_, Result<Embeddings, EmbedError>> {
        self.embed_documents(asker, vec![text])
    }

    fn embed_documents(
        &self,
        asker: Asker,
        texts: Vec<String>,
    ) -> BoxFuture<'_, Result<Embeddings, EmbedError>> {
        if texts.iter().any(|text| text.contains(UNPALATABLE)) {
            let reason = "not to my taste".to_owned();
            return Box::pin(async move { Err(EmbedError::Refused { reason }) });
        }
        Box::pin(async move { WordEmbedder.embed_documents(asker, texts).await })
    }
}

#[tokio::test]
async fn a_document_that_cannot_be_embedded_fails_alone_in_its_job() {
    let service = TestOptions::default()
        .embedder(Arc::new(PickyEmbedder))
        .set("jobs.max_attempts", 1)
        .start()
        .await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;

    let ids = upload(&desk, &files(BULK)).await;
    service.drain_jobs().await;

    let mut expected = vec!["indexed".to_owned(); BULK];
    expected[5] = "indexing_failed".to_owned();
    assert_eq!(states(&desk, &ids).await, expected);
    acme.check_stores_agree().await;
}

#[tokio::test]
async fn a_job_that_is_taken_up_again_embeds_only_what_is_not_indexed_yet() {
    let embedder = WatchedEmbedder::new();
    let service = TestOptions::default().embedder(embedder.clone()).start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let page = |number: usize| {
        let sections: Vec<String> = (0..30).map(|section| format!("W{number}x{section}")).collect();
        let sections: Vec<&str> = sections.iter().map(String::as_str).collect();
        (format!("{number}.md"), page_about(&sections).into_bytes())
    };
    let files: Vec<(String, Vec<u8>)> = (0..BULK).map(page).collect();
    embedder.hold();
    let ids = upload(&desk, &files).await;
    let worker = spawn_worker(&service.app);
    embedder.wait_held(1).await;
    embedder.let_one_go();
    embedder.hold();
    // The first 300 chunks take two calls; the third one is of the next documents.
    embedder.wait_held(2).await;
    embedder.let_one_go();
    embedder.hold();
    embedder.wait_held(3).await;
    kill(worker).await;
    let before = embedder.take_documents();

    embedder.let_one_go();
    service.clock.advance(TimeDelta::minutes(10));
    service.drain_jobs().await;

    let after = embedder.take_documents();
    assert_eq!((before.len(), after.len()), (270, 90));
    assert!(after.iter().all(|text| !before.contains(text)));
    assert_eq!(states(&desk, &ids).await, vec!["indexed"; BULK]);
    acme.check_stores_agree().await;
}

#[tokio::test]
async fn a_run_counts_the_embedding_calls_for_its_documents_and_none_for_unchanged_ones() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let ids = upload(&desk, &files(BULK)).await;
    let run_id = open_run(&acme, &ids[0]).await;
    let mut write = service.app.db.write(acme.id).await.expect("a transaction");
    on!(write, c => sqlx::query("update document set run_id = $2 where tenant_id = $1").bind(acme.id).bind(run_id).execute(c).await.map(drop))
        .expect("updated");
    write.commit().await.expect("stored");

    service.drain_jobs().await;
    assert_eq!(calls_of(&acme, run_id).await, 1);

    let mut again = Vec::new();
    for id in &ids {
        again.push((document_id(id), file_key(&acme, id).await));
    }
    let mut write = service.app.db.write(acme.id).await.expect("a transaction");
    on!(write, c => sqlx::query("update document set state = 'queued' where tenant_id = $1").bind(acme.id).execute(c).await.map(drop))
        .expect("updated");
    indexing::enqueue(&service.app, &mut write, acme.id, &again, Priority::Bulk)
        .await
        .expect("queued");
    write.commit().await.expect("stored");
    service.drain_jobs().await;

    assert_eq!(states(&desk, &ids).await, vec!["indexed"; BULK]);
    assert_eq!(calls_of(&acme, run_id).await, 1);
}

async fn open_run(acme: &Tenant<'_>, document: &str) -> SyncRunId {
    let run_id = SyncRunId(Uuid::now_v7());
    let now = acme.service.clock.now();
    let mut write = acme.service.app.db.write(acme.id).await.expect("a transaction");
    on!(write, c => sqlx::query(
        "insert into sync_run (id, tenant_id, source_id, cause, state, phase, is_full, accepts_removals, slice, deadline, lists_changes, notes,
                               new_count, changed_count, unchanged_count, removed_count, failed_count, held_count, bytes, embedding_calls,
                               started_at, updated_at)
         select $1, tenant_id, source_id, 'request', 'done', 'removing', false, false, 0, $4, false, '', 0, 0, 0, 0, 0, 0, 0, 0, $4, $4
           from document where tenant_id = $2 and id = $3",
    ).bind(run_id).bind(acme.id).bind(document_id(document)).bind(now).execute(c).await.map(drop))
    .expect("inserted");
    write.commit().await.expect("stored");
    run_id
}

async fn calls_of(acme: &Tenant<'_>, run_id: SyncRunId) -> i64 {
    let mut conn = acme.service.app.db.read(acme.id).await.expect("a connection");
    on!(conn, c => sqlx::query_scalar("select embedding_calls from sync_run where id = $1").bind(run_id).fetch_one(c).await)
        .expect("the run is there")
}

#[tokio::test]
async fn a_page_that_the_crawler_read_is_indexed_as_it_was_read_and_downloaded_as_text() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let id = desk
        .publish("page.html", "<p>What the file itself says.</p>")
        .await;
    let reading = ExtractedDocument {
        title: Some("Opening hours".to_owned()),
        text: "We open at ten.".to_owned(),
        blocks: vec![Block {
            kind: BlockKind::Paragraph,
            start: 0,
            end: 15,
            page: None,
            heading_path: Vec::new(),
        }],
        ..ExtractedDocument::default()
    };
    let kept = reading::keep(&service.app, acme.id, reading).await.expect("kept");
    let original = file_key(&acme, &id).await;
    let mut write = service.app.db.write(acme.id).await.expect("a transaction");
    on!(write, c => sqlx::query("update document set kept_as = 'reading', file_key = $3, state = 'queued' where tenant_id = $1 and id = $2")
        .bind(acme.id).bind(document_id(&id)).bind(&kept).execute(c).await.map(drop))
    .expect("updated");
    let version = [(document_id(&id), kept)];
    indexing::enqueue(&service.app, &mut write, acme.id, &version, Priority::Normal)
        .await
        .expect("queued");
    write.commit().await.expect("stored");
    service.app.files.remove(&original).await.expect("removed");
    service.drain_jobs().await;

    let document = desk.document(&id).await;
    let file = acme.get(&format!("/api/documents/{id}/file")).await.expect(200);

    assert_eq!(
        (&document["title"], &document["text"]),
        (&json!("Opening hours"), &json!("We open at ten."))
    );
    assert_eq!(
        (file.text.as_str(), &file.headers["content-type"]),
        (
            "We open at ten.",
            &"text/plain; charset=utf-8".parse().expect("a header")
        )
    );
    assert!(
        file.headers["content-disposition"]
            .to_str()
            .is_ok_and(|value| value.starts_with("attachment;") && value.contains("page.html.txt"))
    );
    acme.check_stores_agree().await;
}

#[tokio::test]
async fn a_job_that_keeps_dying_is_split_so_that_one_document_cannot_end_the_others() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let ids = upload(&desk, &files(BULK)).await;
    let mut write = service.app.db.write(acme.id).await.expect("a transaction");
    on!(write, c => sqlx::query("update job set attempt = 2 where tenant_id = $1").bind(acme.id).execute(c).await.map(drop))
        .expect("as if it had died twice");
    write.commit().await.expect("stored");

    service.drain_jobs().await;

    let jobs = acme.get("/api/jobs?state=done").await.expect(200).json();
    let sizes: Vec<usize> = jobs["items"]
        .as_array()
        .expect("items")
        .iter()
        .map(|job| job["payload"]["documents"].as_array().map_or(0, Vec::len))
        .collect();
    assert_eq!(sizes.iter().filter(|size| **size == 1).count(), BULK, "{sizes:?}");
    assert_eq!(states(&desk, &ids).await, vec!["indexed"; BULK]);
}
