//! One name, several files: nothing is lost without a word, and what answers stays what citations open.

use reqwest::Method;
use serde_json::json;

use crate::harness::app::{Reply, TestApp};
use crate::harness::stored::{count_rows, stored_files};

#[tokio::test]
async fn two_different_files_of_one_name_in_one_upload_are_refused_whole() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;

    let refused = desk
        .upload(&[("a.md", b"One."), ("b.md", b"Other."), ("old/a.md", b"Two.")])
        .await
        .expect(422);

    assert_eq!(refused.code(), "duplicate_file_name");
    let problem = refused.json();
    assert!(
        problem["detail"]
            .as_str()
            .is_some_and(|detail| detail.contains("a.md")),
        "{problem}"
    );
    assert_eq!(count_rows(&service, "document").await, 0);
    assert!(stored_files(&service.data_dir()).is_empty());
    // The same bytes twice lose nothing.
    desk.upload(&[("a.md", b"One."), ("a.md", b"One.")])
        .await
        .expect(202);
}

#[tokio::test]
async fn a_new_version_that_cannot_be_read_leaves_the_original_of_the_old_one() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let id = desk.publish("oak.md", "Oak tables are oiled twice a year.").await;
    let image: &[u8] = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x01";

    desk.upload(&[("oak.md", image), ("rope.md", b"Rope is sold by the metre.")])
        .await
        .expect(202);
    service.drain_jobs().await;

    let document = desk.document(&id).await;
    assert_eq!(
        (&document["state"], &document["error"]["code"]),
        (&json!("failed"), &json!("unsupported_type"))
    );
    let original = acme.get(&format!("/api/documents/{id}/file")).await.expect(200);
    assert_eq!(original.text, "Oak tables are oiled twice a year.");
    let found = desk.search("oak tables oiled").await;
    assert_eq!(found[0]["document_id"], json!(id));
    acme.check_stores_agree().await;

    // The old bytes again mend it.
    desk.publish("oak.md", "Oak tables are oiled twice a year.").await;
    assert_eq!(desk.document(&id).await["state"], "indexed");
}

#[tokio::test]
async fn a_file_name_that_cannot_be_read_is_named_as_the_fault() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let mut body =
        b"--cut\r\ncontent-disposition: form-data; name=\"file\"; filename=\"pr\xe9cis.txt\"\r\n\r\n"
            .to_vec();
    body.extend_from_slice(b"Words.\r\n--cut--\r\n");

    let request = service
        .request(
            Method::POST,
            &format!("/api/chatbots/{}/documents", desk.id),
            Some(&acme.key),
        )
        .header("content-type", "multipart/form-data; boundary=cut")
        .body(body);
    let refused = Reply::read(request.send().await.expect("an answer"))
        .await
        .expect(422);

    assert_eq!(refused.code(), "unreadable_file_name");
}
