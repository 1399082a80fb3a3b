//! What people do in their Drive arrives here, and what they leave alone costs nothing.

use serde_json::json;

use super::desk::{Desk, options_for};
use crate::harness::drive::{Content, FakeDrive};

#[tokio::test]
async fn a_folder_is_read_once_and_then_only_what_changed() {
    let fake = FakeDrive::start().await;
    let service = options_for(&fake).start().await;
    let root = fake.folder("Handbook", &[]);
    let inner = fake.folder("Policies", &[&root]);
    let returns = fake.document("Returns", &[&inner], "Goods may be returned within thirty days.");
    let fees = fake.text("fees.txt", &[&root], "Shipping costs five euros.");
    fake.text("elsewhere.txt", &[], "Nobody should know this.");
    let (desk, first) = Desk::of_folder(&service, &fake, &root).await;
    first.ended("done", [2, 0, 0, 0, 0]);
    assert_eq!(desk.knowledge().await, fake.view(&[&root]));
    assert!(desk.found("returned goods").await.contains("thirty days"));

    fake.forget_requests();
    let again = desk.sync().await;
    again.ended("done", [0, 0, 2, 0, 0]);
    assert_eq!(again.0["embedding_calls"], 0);
    assert_eq!((fake.transfers(), fake.requests("list")), (0, 0));

    fake.write(&returns, "Goods may be returned within ninety days.");
    fake.rename(&fees, "prices.txt");
    let changed = desk.sync().await;
    changed.ended("done", [0, 2, 0, 0, 0]);
    assert_eq!(fake.requests("list"), 0, "changes were followed");
    assert!(desk.found("returned goods").await.contains("ninety days"));
    let path = format!("/api/chatbots/{}/documents", desk.chatbot_id);
    let documents = desk.tenant.get(&path).await.expect(200).text;
    assert!(
        documents.contains("prices.txt") && !documents.contains("fees.txt"),
        "{documents}"
    );
}

#[tokio::test]
async fn what_leaves_the_folder_leaves_the_knowledge_and_what_comes_in_comes_with_all_that_is_in_it() {
    let fake = FakeDrive::start().await;
    let service = options_for(&fake).start().await;
    let root = fake.folder("Root", &[]);
    let (inner, outside) = (fake.folder("Inner", &[&root]), fake.folder("Outside", &[]));
    let trashed = fake.text("trashed.txt", &[&root], "trash");
    let deleted = fake.text("deleted.txt", &[&root], "delete");
    let moved = fake.text("moved.txt", &[&inner], "move");
    fake.text("kept.txt", &[&inner], "keep");
    let coming = fake.folder("Coming", &[&outside]);
    fake.text("deep.txt", &[&coming], "deep");
    let (desk, _) = Desk::of_folder(&service, &fake, &root).await;

    fake.trash(&trashed);
    fake.delete(&deleted);
    fake.move_to(&moved, &[&outside]);
    let run = desk.sync().await;
    run.ended("done", [0, 0, 1, 3, 0]);
    assert_eq!(desk.knowledge().await, fake.view(&[&root]));

    fake.move_to(&inner, &[&outside]);
    fake.move_to(&coming, &[&root]);
    fake.untrash(&trashed);
    let run = desk.sync().await;
    run.ended("done", [2, 0, 0, 1, 0]);
    assert_eq!(desk.knowledge().await, fake.view(&[&root]));
}

#[tokio::test]
async fn a_shared_drive_and_single_files_are_scopes_too() {
    let fake = FakeDrive::start().await;
    let service = options_for(&fake).start().await;
    let shared = fake.shared_drive("Team");
    let in_team = fake.text("team.txt", &[&shared], "Team words.");
    let single = fake.text("single.txt", &[], "Single words.");
    fake.text("other.txt", &[], "Other words.");
    let credentials = fake.service_account();
    let drive = json!({ "shared_drive_id": shared, "file_ids": [single], "credentials": credentials });
    let (desk, run) = Desk::with(&service, drive).await;
    run.is_done();
    assert_eq!(desk.knowledge().await, fake.view(&[&shared, &single]));

    fake.write(&single, "Changed single words.");
    fake.write(&in_team, "Changed team words.");
    let run = desk.sync().await;

    assert_eq!(run.counts(), [0, 2, 0, 0, 0], "{}", run.0);
    assert_eq!(desk.knowledge().await, fake.view(&[&shared, &single]));
}

#[tokio::test]
async fn what_cannot_be_read_is_reported_each_time_and_downloaded_once() {
    let fake = FakeDrive::start().await;
    let service = options_for(&fake).start().await;
    let root = fake.folder("Root", &[]);
    fake.text("read.txt", &[&root], "Words.");
    fake.add("Poll", &[&root], Content::Form);
    let picture = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR".to_vec();
    fake.add(
        "photo.png",
        &[&root],
        Content::Uploaded("image/png".to_owned(), picture),
    );
    let locked = fake.text("locked.txt", &[&root], "Locked words.");
    fake.allow_download(&locked, false);
    let (desk, run) = Desk::of_folder(&service, &fake, &root).await;
    let mut codes = run.failures();
    codes.sort_unstable();
    assert_eq!(
        (run.state(), codes),
        (
            "partial",
            vec!["not_downloadable", "unsupported_type", "unsupported_type"]
        )
    );

    fake.forget_requests();
    let again = desk.sync().await;
    again.ended("partial", [0, 0, 1, 0, 3]);
    assert_eq!(fake.transfers(), 0);
    assert_eq!(
        fake.requests("get"),
        2,
        "the folder, and whether the file may be downloaded now"
    );

    fake.allow_download(&locked, true);
    let allowed = desk.sync().await;
    assert_eq!(allowed.counts(), [1, 0, 1, 0, 2], "{}", allowed.0);
    assert!(desk.found("locked words").await.contains("Locked words."));
}

#[tokio::test]
async fn a_changed_scope_is_read_anew_without_reading_what_stays() {
    let fake = FakeDrive::start().await;
    let service = options_for(&fake).start().await;
    let (one, two) = (fake.folder("One", &[]), fake.folder("Two", &[]));
    let both = fake.text("both.txt", &[&one, &two], "Both words.");
    fake.text("first.txt", &[&one], "First words.");
    fake.text("second.txt", &[&two], "Second words.");
    let (desk, _) = Desk::of_folder(&service, &fake, &one).await;
    fake.forget_requests();

    let path = format!("/api/sources/{}", desk.source_id);
    let body = json!({ "drive": { "folder_id": two } });
    let change = desk
        .tenant
        .service
        .send(reqwest::Method::PATCH, &path, Some(&desk.tenant.key), Some(body));
    change.await.expect(200);
    let run = desk.sync().await;

    run.is_done();
    assert_eq!(desk.knowledge().await, fake.view(&[&two]));
    assert!(desk.knowledge().await.contains_key(&both));
    assert_eq!(fake.transfers(), 1);
}
