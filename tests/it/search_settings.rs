//! What an owner decides about the passages of a chatbot: repetitions, differences, the recent, and preferred sources.

use chrono::TimeDelta;
use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::app::{Chatbot, Tenant, TestApp};

async fn search(desk: &Chatbot<'_, '_>, query: &str) -> Value {
    let path = format!("/api/chatbots/{}/search", desk.id);
    let body = json!({ "query": query, "explain": true });
    desk.tenant.post(&path, body).await.expect(200).json()
}

async fn set(desk: &Chatbot<'_, '_>, search: Value) -> Value {
    let path = format!("/api/chatbots/{}", desk.id);
    let changed = desk.tenant.patch(&path, json!({ "search": search })).await;
    changed.expect(200).json()["search"].clone()
}

fn texts(reply: &Value) -> Vec<&str> {
    let items = reply["items"].as_array().expect("items");
    items
        .iter()
        .map(|item| item["text"].as_str().expect("a text"))
        .collect()
}

fn stage<'a>(reply: &'a Value, name: &str) -> Option<&'a Value> {
    let stages = reply["explain"]["stages"].as_array().expect("stages");
    stages.iter().find(|stage| stage["name"] == name)
}

/// A source of a chatbot, with one document of that title.
async fn push(tenant: &Tenant<'_>, desk: &Chatbot<'_, '_>, title: &str, text: &str) -> String {
    let path = format!("/api/chatbots/{}/sources", desk.id);
    let source = tenant
        .post(&path, json!({ "kind": "push" }))
        .await
        .expect(202)
        .id();
    let path = format!("/api/sources/{source}/documents/page");
    let body = json!({ "title": title, "text": text });
    tenant
        .service
        .send(Method::PUT, &path, Some(&tenant.key), Some(body))
        .await
        .expect(201);
    tenant.service.drain_jobs().await;
    source
}

const OAK: &str = "Oak tables are oiled twice a year.";
const TABLES: &str = "Tables of any wood need some oil now and then.";

#[tokio::test]
async fn settings_of_choosing_passages_are_kept_and_what_is_left_out_stays() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let path = format!("/api/chatbots/{}", desk.id);

    let at_first = acme.get(&path).await.expect(200).json()["search"].clone();
    set(&desk, json!({ "mmr_lambda": 0.7, "recency_half_life_days": 30 })).await;
    let changed = set(&desk, json!({ "rerank": false, "recency_half_life_days": null })).await;

    assert_eq!(
        at_first,
        json!({ "leave_out_repetitions": true, "mmr_lambda": 1.0, "recency_half_life_days": null, "recency_weight": 0.5,
                "source_boosts": {}, "rerank": true, "context_tokens": 0 })
    );
    assert_eq!(
        (
            &changed["mmr_lambda"],
            &changed["rerank"],
            &changed["recency_half_life_days"]
        ),
        (&json!(0.7), &json!(false), &Value::Null)
    );
    assert_eq!(acme.get(&path).await.expect(200).json()["search"], changed);
}

#[tokio::test]
async fn settings_out_of_their_range_are_refused() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let path = format!("/api/chatbots/{}", desk.id);
    let many: serde_json::Map<String, Value> = (0..201)
        .map(|_| (uuid::Uuid::now_v7().to_string(), json!(1.0)))
        .collect();
    let one = uuid::Uuid::now_v7().to_string();

    for search in [
        json!({ "mmr_lambda": 1.1 }),
        json!({ "recency_half_life_days": 0 }),
        json!({ "recency_weight": -0.1 }),
        json!({ "source_boosts": { one: 11.0 } }),
        json!({ "source_boosts": many }),
        json!({ "context_tokens": 100_001 }),
    ] {
        let refused = acme.patch(&path, json!({ "search": search })).await.expect(422);
        assert_eq!(refused.code(), "invalid_search_settings", "{search}");
    }
    for search in [
        json!({ "mmr": 0.5 }),
        json!({ "rerank": null }),
        json!({ "source_boosts": { "x": 1.0 } }),
    ] {
        acme.patch(&path, json!({ "search": search })).await.expect(422);
    }
}

#[tokio::test]
async fn an_answer_does_without_repetitions_unless_the_owner_wants_them() {
    let (service, model) = TestApp::with_model().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    push(&acme, &desk, "Care", OAK).await;
    push(&acme, &desk, "Care", &OAK.to_uppercase()).await;
    push(&acme, &desk, "Teak care", OAK).await;

    let question = "How often are oak tables oiled?";
    let path = format!("/api/chatbots/{}/search", desk.id);
    let body = json!({ "query": question, "without_repetitions": true, "explain": true });
    let once = acme.post(&path, body).await.expect(200).json();
    let all = search(&desk, question).await;
    let prompt = async || {
        desk.ask(question).await.expect(200);
        let asked = model.chat_requests().pop().expect("a prompt");
        asked
            .last_message()
            .to_uppercase()
            .matches("OAK TABLES ARE OILED TWICE")
            .count()
    };
    let in_prompt = prompt().await;
    set(&desk, json!({ "leave_out_repetitions": false })).await;
    let in_prompt_with_repetitions = prompt().await;

    assert_eq!(
        once["items"].as_array().expect("items").len(),
        2,
        "another title says something: {once}"
    );
    let left_out = stage(&once, "repetitions").expect("the stage");
    assert_eq!(left_out["items"][0]["left_out"], "repetition");
    assert_eq!(
        all["items"].as_array().expect("items").len(),
        3,
        "a search shows what there is"
    );
    assert!(stage(&all, "repetitions").is_none());
    assert_eq!((in_prompt, in_prompt_with_repetitions), (2, 3));
}

#[tokio::test]
async fn the_recent_comes_first_where_the_owner_prefers_it() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    push(&acme, &desk, "Old", OAK).await;
    service.clock.advance(TimeDelta::days(60));
    let (acme, desk) = (&acme, &desk);
    push(acme, desk, "New", TABLES).await;

    let by_nearness = search(desk, "How often are oak tables oiled?").await;
    set(
        desk,
        json!({ "recency_half_life_days": 7, "recency_weight": 1.0 }),
    )
    .await;
    let by_age = search(desk, "How often are oak tables oiled?").await;

    assert_eq!(texts(&by_nearness), [OAK, TABLES]);
    assert!(stage(&by_nearness, "boosts").is_none());
    assert_eq!(texts(&by_age), [TABLES, OAK]);
    let factors = &stage(&by_age, "boosts").expect("the stage")["items"];
    assert!(
        factors[0]["scores"]["factor"]
            .as_f64()
            .is_some_and(|factor| factor > 0.9),
        "{factors}"
    );
    assert!(
        factors[1]["scores"]["factor"]
            .as_f64()
            .is_some_and(|factor| factor < 0.01),
        "{factors}"
    );
}

#[tokio::test]
async fn a_preferred_source_comes_first() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    push(&acme, &desk, "Forum", OAK).await;
    let manual = push(&acme, &desk, "Manual", TABLES).await;

    set(&desk, json!({ "source_boosts": { manual: 10.0 } })).await;
    let reply = search(&desk, "How often are oak tables oiled?").await;

    assert_eq!(texts(&reply), [TABLES, OAK]);
    let scores: Vec<f64> = reply["items"]
        .as_array()
        .expect("items")
        .iter()
        .filter_map(|item| item["score"].as_f64())
        .collect();
    assert!(
        scores.iter().all(|score| *score > 0.0 && *score <= 1.0),
        "{scores:?}"
    );
}

#[tokio::test]
async fn only_sources_of_the_chatbot_are_preferred_and_one_that_is_gone_is_in_nobodys_way() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let own = push(&acme, &desk, "Manual", TABLES).await;
    let of_another_desk = push(&acme, &acme.chatbot("Other").await, "Manual", TABLES).await;
    let globex = service.tenant("globex").await;
    let of_globex = push(&globex, &globex.chatbot("Desk").await, "Manual", TABLES).await;
    let nobodys = uuid::Uuid::now_v7().to_string();
    let path = format!("/api/chatbots/{}", desk.id);
    let boosts = |ids: &[&String]| {
        let boosts: serde_json::Map<String, Value> =
            ids.iter().map(|id| ((*id).clone(), json!(2.0))).collect();
        json!({ "name": "Desk", "search": { "source_boosts": boosts } })
    };

    for absent in [&of_another_desk, &of_globex, &nobodys] {
        let refused = acme.patch(&path, boosts(&[&own, absent])).await.expect(422);
        assert_eq!(refused.code(), "unknown_source");
        assert!(
            refused.text.contains(absent.as_str()) && !refused.text.contains(&own),
            "{}",
            refused.text
        );
    }
    let made = acme.post("/api/chatbots", boosts(&[&own])).await.expect(422);
    assert_eq!(made.code(), "unknown_source", "a new chatbot has none yet");
    acme.patch(&path, boosts(&[&own])).await.expect(200);
    acme.delete(&format!("/api/sources/{own}")).await.expect(204);
    service.drain_jobs().await;

    acme.patch(&path, json!({ "name": "Front desk" }))
        .await
        .expect(200);
    acme.patch(&path, boosts(&[&own])).await.expect(200);
    search(&desk, "How often are oak tables oiled?").await;
    let again = acme.patch(&path, boosts(&[])).await.expect(200).json();
    assert_eq!(again["search"]["source_boosts"], json!({}));
    acme.patch(&path, boosts(&[&own])).await.expect(422);
}

#[tokio::test]
async fn passages_that_differ_are_preferred_where_the_owner_says_how_much() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    push(&acme, &desk, "One", OAK).await;
    push(&acme, &desk, "Two", "Twice a year oak tables are oiled.").await;
    push(&acme, &desk, "Three", TABLES).await;

    set(&desk, json!({ "mmr_lambda": 0.3 })).await;
    let reply = search(&desk, "How often are oak tables oiled?").await;

    assert_eq!(texts(&reply)[1], TABLES, "{reply}");
    let margins = &stage(&reply, "mmr").expect("the stage")["items"];
    assert!(margins[0]["scores"]["margin"].is_number(), "{margins}");
}

#[tokio::test]
async fn a_prompt_gets_what_stands_around_a_passage_and_citations_keep_their_spans() {
    let (service, model) = TestApp::with_model().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let page = ["alder", "birch", "cedar", "elm"]
        .map(|wood| format!("{wood} matters. ").repeat(90))
        .join("\n\n");
    desk.publish("woods.md", &format!("# Woods\n\n{page}")).await;
    acme.patch(
        &format!("/api/chatbots/{}", desk.id),
        json!({ "max_passages": 1 }),
    )
    .await
    .expect(200);
    model.reply("It matters. [2]");

    let without = desk.ask("Does cedar matter?").await.expect(200).json();
    set(&desk, json!({ "context_tokens": 1000 })).await;
    let with = desk.ask("Does cedar matter?").await.expect(200).json();
    let path = format!("/api/chatbots/{}/search", desk.id);
    let body = json!({ "query": "Does cedar matter?", "limit": 1, "explain": true });
    let explained = acme.post(&path, body).await.expect(200).json();

    let prompts: Vec<String> = model
        .chat_requests()
        .iter()
        .map(|asked| asked.last_message().to_owned())
        .collect();
    assert!(
        !prompts[0].contains("number=\"2\"") && prompts[1].contains("number=\"2\""),
        "{prompts:?}"
    );
    assert_eq!(
        without["citations"],
        json!([]),
        "there was no second passage: {without}"
    );
    let citation = &with["citations"][0];
    let document = desk
        .document(citation["document_id"].as_str().expect("an id"))
        .await;
    let characters: Vec<char> = document["text"].as_str().expect("a text").chars().collect();
    let offset = |name: &str| citation[name].as_u64().expect("an offset") as usize;
    let cited: String = characters[offset("start")..offset("end")].iter().collect();
    assert!(
        cited.contains(citation["quote"].as_str().expect("a quote")),
        "{citation}"
    );
    let around = &stage(&explained, "context").expect("the stage")["items"];
    assert!(
        around[0]["scores"]["tokens"]
            .as_f64()
            .is_some_and(|tokens| tokens > 0.0),
        "{around}"
    );
}
