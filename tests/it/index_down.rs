//! While the index does not answer, words are looked for in the rows: flagged, with every wall in its place, and never told
//! as nothing known. It is left alone for a while, and comes back by itself.

use chrono::TimeDelta;
use serde_json::{Value, json};

use crate::harness::app::{Chatbot, TestApp, TestOptions};
use crate::harness::indexes::IndexSwitch;
use crate::harness::stored::count_rows;

const QUESTION: &str = "When are oak tables oiled?";

async fn start() -> (TestApp, IndexSwitch) {
    let index = IndexSwitch::default();
    (TestOptions::default().index(&index).start().await, index)
}

async fn search(desk: &Chatbot<'_, '_>, body: Value) -> Value {
    let path = format!("/api/chatbots/{}/search", desk.id);
    desk.tenant.post(&path, body).await.expect(200).json()
}

fn titles(found: &Value) -> Vec<&str> {
    let items = found["items"].as_array().expect("items");
    items
        .iter()
        .map(|item| item["title"].as_str().expect("a title"))
        .collect()
}

#[tokio::test]
async fn answers_and_searches_come_from_the_words_of_the_rows_and_say_so() {
    let (service, index) = start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    desk.publish("oak.md", "Oak tables are oiled twice a year.").await;
    desk.publish("opening.md", "We are open from nine to five.").await;
    index.set_down(true);

    let found = search(&desk, json!({ "query": QUESTION })).await;
    let answer = desk.ask(QUESTION).await.expect(200).json();
    let streamed = desk.stream(QUESTION).await;

    assert_eq!(titles(&found)[0], "oak.md", "{found}");
    assert!(found["items"][0]["similarity"].is_null());
    assert_eq!(found["degraded"][0]["code"], "index_unavailable");
    assert_eq!(answer["citations"][0]["title"], "oak.md", "{answer}");
    assert_eq!(answer["degraded"], found["degraded"]);
    let end = streamed.last().expect("an end");
    assert_eq!(end.data["degraded"], found["degraded"], "{streamed:?}");
}

#[tokio::test]
async fn every_wall_of_the_index_stands_without_it() {
    let (service, index) = start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let other_desk = acme.chatbot("Other").await;
    let globex = service.tenant("globex").await;
    let stranger = globex.chatbot("Desk").await;
    let open = desk.publish("oak.md", "Oak tables are oiled twice a year.").await;
    let staff = desk
        .publish("staff.md", "Oak tables are oiled by staff at night.")
        .await;
    let tagged = desk
        .publish("teak.md", "Teak tables are oiled, oak is not.")
        .await;
    let gone = desk
        .publish("gone.md", "Oak tables are oiled with what is gone.")
        .await;
    for (id, change) in [
        (&staff, json!({ "access_groups": ["staff"] })),
        (&tagged, json!({ "tags": ["teak"] })),
    ] {
        acme.patch(&format!("/api/documents/{id}"), change)
            .await
            .expect(200);
    }
    service.drain_jobs().await;
    index.set_down(true);
    acme.delete(&format!("/api/documents/{gone}")).await.expect(204);

    let asked = |extra: Value| {
        let mut body = json!({ "query": QUESTION, "groups": [] });
        body.as_object_mut()
            .expect("an object")
            .extend(extra.as_object().expect("an object").clone());
        body
    };
    let sorted = |found: &Value| {
        let mut titles: Vec<String> = titles(found).into_iter().map(str::to_owned).collect();
        titles.sort_unstable();
        titles
    };
    let found = search(&desk, asked(json!({}))).await;
    assert_eq!(sorted(&found), ["oak.md", "teak.md"]);
    let found = search(&desk, asked(json!({ "groups": ["staff"] }))).await;
    assert_eq!(sorted(&found), ["oak.md", "staff.md", "teak.md"]);
    let found = search(&desk, asked(json!({ "filter": { "tags": ["teak"] } }))).await;
    assert_eq!(sorted(&found), ["teak.md"]);
    let found = search(&desk, asked(json!({ "filter": { "document_ids": [open] } }))).await;
    assert_eq!(sorted(&found), ["oak.md"]);
    for desk in [&other_desk, &stranger] {
        let found = search(desk, asked(json!({}))).await;
        assert!(titles(&found).is_empty(), "{found}");
    }
}

#[tokio::test]
async fn nothing_found_without_the_index_is_not_told_as_nothing_known() {
    let (service, index) = start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    desk.publish("oak.md", "Oak tables are oiled twice a year.").await;
    let known = desk.ask("Who won the cup?").await.expect(200).json();
    assert_eq!(known["source"], "no_answer");
    index.set_down(true);

    let answer = desk.ask("Who won the cup?").await.expect(503);

    assert_eq!(answer.code(), "index_unavailable");
    assert!(answer.headers.contains_key("retry-after"));
    assert!(
        answer.text.contains("cannot be searched right now"),
        "{}",
        answer.text
    );
    assert_eq!(count_rows(&service, "message").await, 2, "nothing of it is kept");
    let found = search(&desk, json!({ "query": "Who won the cup?" })).await;
    assert_eq!(found["degraded"][0]["code"], "index_unavailable", "{found}");
}

#[tokio::test]
async fn an_index_that_failed_is_left_alone_for_a_while_and_comes_back_by_itself() {
    let (service, index) = start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    desk.publish("oak.md", "Oak tables are oiled twice a year.").await;
    index.set_down(true);
    let asked = async || search(&desk, json!({ "query": QUESTION })).await["degraded"].clone();

    assert_eq!(asked().await[0]["code"], "index_unavailable");
    assert_eq!(asked().await[0]["code"], "index_unavailable");
    assert_eq!(index.searches().0, 1, "it rests");
    service.clock.advance(TimeDelta::seconds(1));
    assert_eq!(asked().await[0]["code"], "index_unavailable");
    assert_eq!(index.searches().0, 2, "it was tried");
    index.set_down(false);
    service.clock.advance(TimeDelta::seconds(1));
    assert_eq!(asked().await[0]["code"], "index_unavailable");
    assert_eq!(index.searches().0, 2, "the second rest is longer");
    service.clock.advance(TimeDelta::seconds(1));
    assert!(asked().await.is_null());
    assert!(asked().await.is_null());
    assert_eq!(index.searches().0, 4);
}

#[tokio::test]
async fn a_search_that_got_no_turn_is_told_as_one_of_too_many_and_the_next_one_is_asked() {
    let (service, index) = start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    desk.publish("oak.md", "Oak tables are oiled twice a year.").await;
    index.set_overloaded(true);

    let found = search(&desk, json!({ "query": QUESTION })).await;
    let declined = desk.ask("Who won the cup?").await.expect(503);
    index.set_overloaded(false);
    let after = search(&desk, json!({ "query": QUESTION })).await;

    assert_eq!(titles(&found), ["oak.md"], "its words are looked for in the rows");
    assert_eq!(found["degraded"][0]["code"], "index_overloaded", "{found}");
    assert_eq!(declined.code(), "busy");
    assert!(declined.headers.contains_key("retry-after"));
    assert!(after["degraded"].is_null(), "nothing is left alone: {after}");
    assert!(after["items"][0]["similarity"].is_number(), "{after}");
}

#[tokio::test]
async fn what_fails_for_one_tenant_is_not_kept_from_another() {
    let (service, index) = start().await;
    let (acme, globex) = (service.tenant("acme").await, service.tenant("globex").await);
    let (broken, healthy) = (acme.chatbot("Desk").await, globex.chatbot("Desk").await);
    for desk in [&broken, &healthy] {
        desk.publish("oak.md", "Oak tables are oiled twice a year.").await;
    }
    index.fail_for(acme.id.0);
    let asked = async |desk| search(desk, json!({ "query": QUESTION })).await["degraded"].clone();

    assert_eq!(asked(&broken).await[0]["code"], "index_unavailable");
    assert!(asked(&healthy).await.is_null());
    assert_eq!(asked(&broken).await[0]["code"], "index_unavailable");
    assert_eq!(index.searches().0, 2, "it rests for the one");
}

#[tokio::test]
async fn a_run_of_questions_waits_for_the_index() {
    let (service, index) = start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    desk.publish("oak.md", "Oak tables are oiled twice a year.").await;
    let sets = format!("/api/chatbots/{}/evals", desk.id);
    let questions = json!([{ "question": QUESTION, "answer": "twice a year" }]);
    let body = json!({ "name": "Questions", "questions": questions });
    let set = acme.post(&sets, body).await.expect(201).id();
    let runs = format!("{sets}/{set}/runs");
    index.set_down(true);
    let run = acme
        .post(&runs, json!({ "answers": true }))
        .await
        .expect(202)
        .id();
    let state = async || acme.get(&format!("{runs}/{run}")).await.expect(200).json();

    service.drain_jobs().await;
    assert_ne!(state().await["state"], "done");
    index.set_down(false);
    service.clock.advance(TimeDelta::minutes(30));
    service.drain_jobs().await;

    let ended = state().await;
    assert_eq!(ended["state"], "done", "{ended}");
    assert_eq!(ended["results"][0]["degraded"], false, "{ended}");
}
