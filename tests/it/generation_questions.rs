//! Whose questions a new generation is compared by, and what questions tell for which nothing is found.

use serde_json::json;

use crate::harness::app::{Chatbot, TestApp};
use crate::harness::embedders::WatchedEmbedder;
use crate::harness::generations::{Held, begin, listed};

const QUESTION: &str = "How often is Table1 oiled?";

#[tokio::test]
async fn questions_are_asked_with_their_groups_and_those_that_find_nothing_are_no_agreement() {
    let service = TestApp::start().await;
    let held = Held::with_documents(&service, 2).await;
    {
        let acme = held.tenant(&service);
        let desk = Chatbot {
            tenant: &acme,
            id: held.chatbot.clone(),
        };
        let documents = acme
            .get(&format!("/api/chatbots/{}/documents", desk.id))
            .await
            .expect(200)
            .json();
        for document in documents["items"].as_array().expect("documents") {
            let path = format!("/api/documents/{}", document["id"].as_str().expect("an id"));
            acme.patch(&path, json!({ "access_groups": ["staff"] }))
                .await
                .expect(200);
        }
        service.drain_jobs().await;
        for groups in [json!([]), json!(["staff"])] {
            let body = json!({ "chatbot_id": desk.id, "message": QUESTION, "groups": groups });
            acme.post("/api/chat/message", body).await.expect(200);
        }
    }
    let new = WatchedEmbedder::named("longer-words", 384);
    let service = service
        .restart_with(Some(new), &[("index.on_model_change", "wait")])
        .await;
    let acme = held.tenant(&service);

    begin(&acme).await;
    service.drain_jobs().await;

    let comparison = listed(&acme).await[0]["comparison"].clone();
    assert_eq!(
        (
            &comparison["questions"],
            &comparison["found_nothing"],
            &comparison["overlap_at_10"]
        ),
        (&json!(2), &json!(1), &json!(1.0)),
        "the same words asked by staff find what nobody else does: {comparison}"
    );
}
