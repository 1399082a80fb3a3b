//! Documents of a Drive that could not be indexed: told of at each sync, and tried again when that may help.

use serde_json::json;

use super::desk::{Desk, options_for};
use crate::harness::drive::{Content, FakeDrive};
use crate::harness::embedders::WatchedEmbedder;
use crate::harness::stored::{fixture, pdf};

#[tokio::test]
async fn a_document_whose_indexing_failed_is_tried_again_by_each_sync() {
    let fake = FakeDrive::start().await;
    let bought = [
        ("backend", "openai"),
        ("base_url", "http://127.0.0.1:9"),
        ("model", "m"),
        ("dimension", "256"),
    ];
    let options = options_for(&fake).embedder(WatchedEmbedder::new());
    let service = bought
        .iter()
        .fold(options, |options, (name, value)| {
            options.set(&format!("embedding.{name}"), value)
        })
        .start()
        .await;
    let root = fake.folder("Root", &[]);
    fake.text("first.txt", &[&root], "First words.");
    let (desk, run) = Desk::of_folder(&service, &fake, &root).await;
    run.is_done();
    let chatbot = format!("/api/chatbots/{}", desk.chatbot_id);
    let limit = async |tokens: i64| {
        let body = json!({ "monthly_token_limit": tokens });
        desk.tenant.patch(&chatbot, body).await.expect(200);
    };
    limit(1).await;
    fake.text("second.txt", &[&root], "Second words.");

    let refused = desk.sync().await;
    assert_eq!(
        (refused.state(), refused.counts(), refused.failures()),
        ("partial", [0, 0, 1, 0, 1], vec!["token_budget_exceeded"]),
        "{}",
        refused.0
    );
    let still_refused = desk.sync().await;
    still_refused.ended("partial", [0, 0, 1, 0, 1]);
    fake.forget_requests();
    limit(1_000_000).await;
    let indexed = desk.sync().await;

    indexed.ended("done", [0, 0, 2, 0, 0]);
    assert_eq!(fake.transfers(), 0, "the file is here");
    assert_eq!(desk.knowledge().await, fake.view(&[&root]));
}

#[tokio::test]
async fn a_document_that_cannot_be_read_is_told_of_at_each_sync_and_not_read_again() {
    let fake = FakeDrive::start().await;
    let service = options_for(&fake).start().await;
    let root = fake.folder("Root", &[]);
    fake.text("read.txt", &[&root], "Words.");
    let locked = Content::Uploaded("application/pdf".to_owned(), fixture("broken/locked.pdf"));
    fake.add("locked.pdf", &[&root], locked);
    let (desk, run) = Desk::of_folder(&service, &fake, &root).await;
    assert_eq!(
        (run.state(), run.counts(), run.failures()),
        ("partial", [1, 0, 0, 0, 1], vec!["password_protected"]),
        "{}",
        run.0
    );
    let failed_at = async || {
        let path = format!("/api/sources/{}/documents?state=failed", desk.source_id);
        desk.tenant.get(&path).await.expect(200).json()["items"][0]["updated_at"].clone()
    };
    let before = failed_at().await;

    let again = desk.sync().await;

    assert_eq!(
        (again.state(), again.counts(), again.failures()),
        ("partial", [0, 0, 1, 0, 1], vec!["password_protected"]),
        "{}",
        again.0
    );
    assert_eq!(failed_at().await, before, "it was left as it is");
}

#[tokio::test]
async fn a_scanned_document_is_read_again_once_text_recognition_is_there() {
    let fake = FakeDrive::start().await;
    let service = options_for(&fake).start().await;
    let root = fake.folder("Root", &[]);
    let scanned = Content::Uploaded("application/pdf".to_owned(), pdf(&[None]));
    fake.add("scanned.pdf", &[&root], scanned);
    let (desk, run) = Desk::of_folder(&service, &fake, &root).await;
    assert_eq!(run.failures(), ["no_text"], "{}", run.0);
    let (id, key) = (desk.tenant.id, desk.tenant.key.clone());
    let (chatbot_id, source_id) = (desk.chatbot_id.clone(), desk.source_id.clone());
    let stand_in = concat!(env!("CARGO_MANIFEST_DIR"), "/ingest/tests/ocr_stand_in.sh");
    let settings = [
        ("extract.ocr_program", stand_in.to_owned()),
        ("google.drive_base_url", fake.base_url()),
        ("google.token_url", fake.token_url()),
    ];
    let settings: Vec<(&str, &str)> = settings
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect();

    let service = service.restart(&settings).await;
    let tenant = crate::harness::app::Tenant {
        service: &service,
        id,
        key,
    };
    let desk = Desk {
        tenant,
        chatbot_id,
        source_id,
    };
    let run = desk.sync().await;

    run.ended("done", [0, 0, 1, 0, 0]);
}
