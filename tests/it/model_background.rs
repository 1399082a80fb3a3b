//! What a cosine says depends on the model: how near unrelated texts are to it is measured once, so that tenants of any size
//! are answered and declined alike.

use serde_json::Value;

use crate::harness::app::{TestApp, TestOptions};
use crate::harness::openai::ScriptedModel;

const RETURNS: &str = "Goods may be returned within thirty days of delivery.";
const QUESTION: &str = "Within how many days after delivery may goods be returned?";
const ABOUT_ELSE: &str = "Which composer wrote music for seven pianos?";

fn settings(model: &ScriptedModel) -> [(&'static str, String); 4] {
    [
        ("embedding.backend", "openai".to_owned()),
        ("embedding.base_url", model.base_url()),
        ("embedding.model", "scripted-embedding".to_owned()),
        ("embedding.dimension", model.dimension().to_string()),
    ]
}

fn remote(model: &ScriptedModel) -> TestOptions {
    let options = TestOptions::default().without_embedder();
    settings(model)
        .iter()
        .fold(options, |options, (path, value)| options.set(path, value))
}

async fn restart(service: TestApp, model: &ScriptedModel, languages: &str) -> TestApp {
    let settings = settings(model);
    let mut settings: Vec<(&str, &str)> = settings
        .iter()
        .map(|(path, value)| (*path, value.as_str()))
        .collect();
    settings.push(("embedding.languages", languages));
    service.restart_remembering(None, Vec::new(), &settings).await
}

/// A tenant's chatbot with so many documents, of which the first is about returns.
async fn with_documents(service: &TestApp, name: &str, documents: usize) -> [Value; 2] {
    let tenant = service.tenant(name).await;
    let desk = tenant.chatbot("Desk").await;
    desk.publish("returns.md", RETURNS).await;
    for number in 1..documents {
        let text = format!("Table{number} is made of oak{number} and oiled by carpenter{number}.");
        desk.publish(&format!("table-{number}.md"), &text).await;
    }
    let mut answers = Vec::new();
    for question in [QUESTION, ABOUT_ELSE] {
        answers.push(desk.ask(question).await.expect(200).json());
    }
    answers.try_into().expect("two answers")
}

#[tokio::test]
async fn a_model_whose_cosines_are_all_high_answers_and_declines_in_tenants_of_any_size() {
    let model = ScriptedModel::start().await;
    model.set_base(0.75);
    let service = remote(&model).start().await;

    for documents in [1, 10] {
        let [known, unknown] = with_documents(&service, &format!("with-{documents}"), documents).await;

        assert_eq!(known["source"], "extractive", "{documents} documents: {known}");
        assert_eq!(known["degraded"], Value::Null, "{known}");
        assert_eq!(unknown["source"], "no_answer", "{documents} documents: {unknown}");
    }
}

#[tokio::test]
async fn it_is_measured_by_one_request_that_nobody_pays_and_is_remembered() {
    let model = ScriptedModel::start().await;
    let service = remote(&model).start().await;
    assert_eq!(model.measured(), 0, "nothing was asked yet");

    with_documents(&service, "acme", 1).await;

    assert_eq!(model.measured(), 1);
    let acme = service.tenant("globex").await;
    assert_eq!(acme.ledger().await.len(), 0, "another tenant pays nothing either");
    let service = restart(service, &model, "").await;
    with_documents(&service, "initech", 1).await;
    assert_eq!(model.measured(), 1, "it was remembered");

    let service = restart(service, &model, "en").await;
    with_documents(&service, "umbrella", 1).await;
    assert_eq!(model.measured(), 2, "in other languages it is another figure");
}
