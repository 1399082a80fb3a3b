//! Whether a chatbot knows an answer, and how surely, is told by what a chat would read, however much somebody else looks at.

use reqwest::Method;
use serde_json::{Value, json};

use crate::evals;
use crate::harness::app::{Chatbot, TestApp};

const QUERY: &str = "How often are oak tables oiled?";
const OAK: &str = "Oak tables are oiled twice a year.";
const TABLES: &str = "Tables of any wood need some oil now and then.";

/// A source of the desk's own, with one document.
async fn push(desk: &Chatbot<'_, '_>, text: &str) -> String {
    let path = format!("/api/chatbots/{}/sources", desk.id);
    let made = desk.tenant.post(&path, json!({ "kind": "push" })).await;
    let source = made.expect(202).id();
    let path = format!("/api/sources/{source}/documents/page");
    let body = json!({ "title": "Care", "text": text });
    let service = desk.tenant.service;
    let put = service.send(Method::PUT, &path, Some(&desk.tenant.key), Some(body));
    put.await.expect(201);
    service.drain_jobs().await;
    source
}

async fn set(desk: &Chatbot<'_, '_>, change: Value) {
    let path = format!("/api/chatbots/{}", desk.id);
    desk.tenant.patch(&path, change).await.expect(200);
}

async fn explained(desk: &Chatbot<'_, '_>, limit: usize) -> Value {
    let path = format!("/api/chatbots/{}/search", desk.id);
    let body = json!({ "query": QUERY, "limit": limit, "explain": true });
    desk.tenant.post(&path, body).await.expect(200).json()["explain"].clone()
}

#[tokio::test]
async fn a_run_and_an_explanation_decide_as_a_chat_does() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let (first, copy) = (push(&desk, TABLES).await, push(&desk, TABLES).await);
    push(&desk, OAK).await;
    let preferred = json!({ "source_boosts": { first: 10.0, copy: 10.0 } });
    set(
        &desk,
        json!({ "max_passages": 2, "min_similarity": 0.6, "search": preferred }),
    )
    .await;
    let question = json!([{ "question": QUERY, "answer": "twice a year" }]);
    let set_id = evals::make(&desk, question).await.expect(201).id();
    let mut confidences = Vec::new();

    for without_repetitions in [true, false] {
        set(
            &desk,
            json!({ "search": { "leave_out_repetitions": without_repetitions } }),
        )
        .await;
        let said = desk.ask(QUERY).await.expect(200).json();
        let result = evals::run(&desk, &set_id, false).await["results"][0].clone();

        assert_eq!(
            said["source"] != "no_answer",
            without_repetitions,
            "the copy takes the place of what answers: {said}"
        );
        assert_eq!(result["is_answered"], without_repetitions, "{result}");
        assert_eq!(result["is_first_right"], without_repetitions, "{result}");
        assert_eq!(
            result["measures"]["recall_at_5"], 1.0,
            "it was found, told or not"
        );
        for limit in [1, 2, 50] {
            let explained = explained(&desk, limit).await;
            assert_eq!(explained["is_enough"], without_repetitions, "{limit}");
            let confidence = explained["confidence"].as_f64().expect("a confidence");
            let of_run = result["confidence"].as_f64().expect("a confidence");
            assert!((confidence - of_run).abs() < 1e-6, "{confidence} and {of_run}");
        }
        confidences.push(result["confidence"].as_f64());
    }

    assert!(confidences[0] > confidences[1], "{confidences:?}");
}

#[tokio::test]
async fn what_stands_around_is_explained_of_the_passages_that_a_chat_reads() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let page = ["alder", "birch", "cedar", "elm"]
        .map(|wood| format!("{wood} matters. ").repeat(90))
        .join("\n\n");
    desk.publish("woods.md", &format!("# Woods\n\n{page}")).await;
    let change = json!({ "max_passages": 1, "min_similarity": 0, "search": { "context_tokens": 1000 } });
    set(&desk, change).await;

    let stages = explained(&desk, 50).await["stages"].clone();

    let stages = stages.as_array().expect("stages");
    let context = stages.iter().find(|stage| stage["name"] == "context");
    let around = context.expect("the stage")["items"].as_array().expect("items");
    assert!(!around.is_empty(), "found by the search, and not by a chat");
}
