//! The main job, end to end: upload a document, ask, get a streamed and cited answer.

use serde_json::json;

use crate::harness::app::TestApp;

const RETURNS: &str =
    "# Returns\n\nGoods may be returned within 30 days of delivery. Engraved goods cannot be returned.\n";

#[tokio::test]
async fn an_uploaded_document_answers_a_question_with_a_citation() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let document_id = desk.publish("returns.md", RETURNS).await;

    let answer = desk
        .ask("Within how many days may goods be returned?")
        .await
        .expect(200)
        .json();

    assert_eq!(answer["source"], "extractive");
    assert!(
        answer["answer"]
            .as_str()
            .is_some_and(|text| text.contains("Goods may be returned within 30 days of delivery. [1]")),
        "{answer}"
    );
    assert_eq!(answer["citations"][0]["document_id"], json!(document_id));
    assert_eq!(
        answer["citations"][0]["quote"],
        "Goods may be returned within 30 days of delivery."
    );
}

#[tokio::test]
async fn a_models_answer_streams_with_its_citations_and_is_kept() {
    let (service, model) = TestApp::with_model().await;
    model.reply("You have 30 days [1]. Nothing else is known [7].");
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    desk.publish("returns.md", RETURNS).await;

    let events = desk.stream("Within how many days may goods be returned?").await;

    let names: Vec<&str> = events.iter().map(|event| event.name.as_str()).collect();
    assert_eq!(names.first(), Some(&"message.start"));
    assert_eq!(names.last(), Some(&"message.end"));
    assert!(names.contains(&"citation"));
    let text: String = events
        .iter()
        .filter(|event| event.name == "delta")
        .filter_map(|event| event.data["text"].as_str())
        .collect();
    assert_eq!(text, "You have 30 days [1]. Nothing else is known.");
    let end = &events[events.len() - 1].data;
    assert_eq!(end["answer"], json!(text));
    assert_eq!(end["source"], "model");

    let conversation = acme
        .get(&format!(
            "/api/conversations/{}",
            end["conversation_id"].as_str().expect("an id")
        ))
        .await
        .expect(200)
        .json();
    assert_eq!(conversation["messages"][0]["role"], "user");
    assert_eq!(conversation["messages"][1]["content"], json!(text));
    assert_eq!(conversation["messages"][1]["citations"], end["citations"]);
    assert_eq!(conversation["messages"][1]["state"], "complete");
}

#[tokio::test]
async fn a_tenant_is_never_answered_from_anothers_documents() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    acme.chatbot("Desk").await.publish("returns.md", RETURNS).await;
    let globex = service.tenant("globex").await;
    let other = globex.chatbot("Desk").await;

    let answer = other
        .ask("Within how many days may goods be returned?")
        .await
        .expect(200)
        .json();

    assert_eq!(
        (
            answer["source"].as_str(),
            answer["citations"].as_array().map(Vec::len)
        ),
        (Some("no_answer"), Some(0))
    );
    assert!(other.search("returned goods").await.is_empty());
}
