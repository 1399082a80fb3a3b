//! From a question to passages: whose, which, how many, and what is left when a part is down.

use reqwest::Method;
use serde_json::json;

use crate::harness::app::{Chatbot, Reply, TestApp, TestOptions, index_backend};
use crate::harness::embedders::WatchedEmbedder;
use crate::harness::stored::{count_rows, fixture};

async fn ask(desk: &Chatbot<'_, '_>, body: serde_json::Value) -> Reply {
    desk.tenant
        .post(&format!("/api/chatbots/{}/search", desk.id), body)
        .await
}

fn documents(reply: &Reply) -> Vec<String> {
    reply.json()["items"]
        .as_array()
        .expect("items")
        .iter()
        .map(|item| item["document_id"].as_str().expect("an id").to_owned())
        .collect()
}

#[tokio::test]
async fn a_passage_tells_where_it_stands() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let taken = desk
        .upload(&[("guide.pdf", &fixture("demo/product-guide.pdf"))])
        .await
        .expect(202)
        .json();
    service.drain_jobs().await;
    let document = desk
        .document(taken["items"][0]["id"].as_str().expect("an id"))
        .await;

    let passages = desk.search("Which cushions are there?").await;

    let characters: Vec<char> = document["text"].as_str().expect("text").chars().collect();
    assert!(!passages.is_empty());
    for passage in &passages {
        let offset = |name: &str| passage[name].as_u64().expect("an offset") as usize;
        assert_eq!(
            passage["text"],
            json!(
                characters[offset("start")..offset("end")]
                    .iter()
                    .collect::<String>()
            )
        );
        assert_eq!(
            (&passage["document_id"], &passage["title"]),
            (&document["id"], &document["title"])
        );
        assert!(
            passage["page"].as_i64().is_some() && passage["chunk_id"].is_string(),
            "{passage}"
        );
        assert!(
            passage["score"]
                .as_f64()
                .is_some_and(|score| score > 0.0 && score <= 1.0),
            "{passage}"
        );
    }
    let scores: Vec<f64> = passages
        .iter()
        .filter_map(|passage| passage["score"].as_f64())
        .collect();
    assert!(scores.is_sorted_by(|better, worse| better >= worse), "{scores:?}");
}

#[tokio::test]
async fn a_key_that_browsers_see_asks_and_does_not_search() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    desk.publish("returns.md", "Goods may be returned within 30 days.")
        .await;
    let question = "Within how many days may goods be returned?";
    let path = format!("/api/chatbots/{}/search", desk.id);

    for (scope, status) in [("chat", 403), ("chat:groups", 200)] {
        let key = acme.make_key(json!({ "name": scope, "scopes": [scope] })).await;
        let post = async |path: &str, body| service.send(Method::POST, path, Some(&key), Some(body)).await;

        let asked = json!({ "chatbot_id": desk.id, "message": question });
        post("/api/chat/message", asked).await.expect(200);
        for body in [
            json!({ "query": question }),
            json!({ "query": question, "explain": true }),
        ] {
            let reply = post(&path, body).await.expect(status);
            assert_eq!(
                status == 403,
                reply.code() == "permission_missing",
                "{}",
                reply.text
            );
        }
    }
}

#[tokio::test]
async fn a_filter_names_what_there_may_be_and_no_more_than_a_search_should() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let many = |count: usize, name: &str| vec![name.to_owned(); count];
    let ids: Vec<uuid::Uuid> = (0..101).map(|_| uuid::Uuid::now_v7()).collect();
    let tags: Vec<String> = (0..51).map(|number| format!("tag {number}")).collect();

    for (filter, code) in [
        (json!({ "languages": ["de", "klingon!"] }), "invalid_language"),
        (json!({ "languages": [""] }), "invalid_language"),
        (json!({ "languages": many(101, "de") }), "filter_too_long"),
        (json!({ "document_ids": ids }), "filter_too_long"),
        (json!({ "source_ids": ids }), "filter_too_long"),
        (json!({ "tags": tags }), "invalid_names"),
        (json!({ "tags": ["a,b"] }), "invalid_names"),
        (
            json!({ "since": "2026-11-20T10:00:00Z", "until": "2026-11-19T10:00:00Z" }),
            "invalid_period",
        ),
    ] {
        let refused = ask(&desk, json!({ "query": "goods", "filter": filter }))
            .await
            .expect(422);
        assert_eq!(refused.code(), code, "{}", refused.text);
    }
    let fine = json!({ "languages": many(100, "pt-BR"), "document_ids": ids[..100], "tags": tags[..50] });
    ask(&desk, json!({ "query": "goods", "filter": fine }))
        .await
        .expect(200);
}

#[tokio::test]
async fn what_is_no_time_or_no_id_is_refused_by_its_place_and_by_what_is_wanted() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let id = uuid::Uuid::now_v7();

    for (filter, field, wanted) in [
        (
            json!({ "since": "yesterday" }),
            "filter.since",
            "2026-11-20T10:00:00Z",
        ),
        (
            json!({ "until": "2026-11-20" }),
            "filter.until",
            "2026-11-20T10:00:00Z",
        ),
        (
            json!({ "document_ids": [id, "x"] }),
            "filter.document_ids[1]",
            "a UUID",
        ),
        (json!({ "tags": "one" }), "filter.tags", "a sequence"),
    ] {
        let refused = ask(&desk, json!({ "query": "goods", "filter": filter }))
            .await
            .expect(422);
        assert_eq!(
            (refused.code().as_str(), &refused.json()["field"]),
            ("invalid_body", &json!(field))
        );
        assert!(refused.text.contains(wanted), "{}", refused.text);
    }
    let unknown = ask(&desk, json!({ "query": "goods", "colour": 1 }))
        .await
        .expect(422);
    assert_eq!(unknown.json()["field"], "colour", "{}", unknown.text);
}

#[tokio::test]
async fn a_search_stays_within_its_chatbot_and_its_filter() {
    let service = TestApp::start().await;
    let (acme, globex) = (service.tenant("acme").await, service.tenant("globex").await);
    let (desk, other, theirs) = (
        acme.chatbot("Desk").await,
        acme.chatbot("Other").await,
        globex.chatbot("Desk").await,
    );
    let first = desk
        .publish("first.md", "Oak tables are oiled twice a year.")
        .await;
    let second = desk
        .publish("second.md", "Teak tables are oiled every spring.")
        .await;
    let elsewhere = other.publish("third.md", "Elm tables are oiled never.").await;
    let foreign = theirs.publish("fourth.md", "Ash tables are oiled daily.").await;
    let query = "How often are tables oiled?";

    let all = documents(&ask(&desk, json!({ "query": query })).await.expect(200));
    assert_eq!(all.len(), 2);
    assert!(all.contains(&first) && all.contains(&second));
    for (wanted, found) in [
        (json!([second]), vec![second.clone()]),
        (json!([elsewhere, foreign, second]), vec![second.clone()]),
        (json!([elsewhere]), vec![]),
        (json!([foreign]), vec![]),
        (json!([]), vec![]),
    ] {
        let reply = ask(
            &desk,
            json!({ "query": query, "filter": { "document_ids": wanted } }),
        )
        .await
        .expect(200);
        assert_eq!(documents(&reply), found, "{wanted}");
    }
    let path = format!("/api/chatbots/{}/search", theirs.id);
    assert_eq!(
        acme.post(&path, json!({ "query": query }))
            .await
            .expect(404)
            .code(),
        "not_found"
    );
}

#[tokio::test]
async fn a_search_of_some_sources_finds_nothing_of_others() {
    let service = TestApp::start().await;
    let (acme, globex) = (service.tenant("acme").await, service.tenant("globex").await);
    let (desk, theirs) = (acme.chatbot("Desk").await, globex.chatbot("Desk").await);
    let oak = desk.publish("oak.md", "Oak tables are oiled twice a year.").await;
    let made = json!({ "kind": "push" });
    let pushed = acme
        .post(&format!("/api/chatbots/{}/sources", desk.id), made)
        .await
        .expect(202)
        .id();
    let teak = acme
        .service
        .send(
            reqwest::Method::PUT,
            &format!("/api/sources/{pushed}/documents/teak"),
            Some(&acme.key),
            Some(json!({ "text": "Teak tables are oiled every spring." })),
        )
        .await;
    assert!(teak.status.is_success(), "{}", teak.text);
    service.drain_jobs().await;
    theirs.publish("ash.md", "Ash tables are oiled daily.").await;
    let listed = globex
        .get(&format!("/api/chatbots/{}/sources", theirs.id))
        .await
        .expect(200);
    let foreign = listed.json()["items"][0]["id"].clone();
    let uploaded = acme
        .get(&format!("/api/documents/{oak}"))
        .await
        .expect(200)
        .json()["source_id"]
        .clone();

    for (wanted, titles) in [
        (json!([pushed, uploaded]), 2),
        (json!([pushed]), 1),
        (json!([pushed, foreign]), 1),
        (json!([uploaded]), 1),
        (json!([foreign]), 0),
        (json!([]), 0),
    ] {
        let reply = ask(
            &desk,
            json!({ "query": "How often are tables oiled?", "filter": { "source_ids": wanted } }),
        )
        .await
        .expect(200);
        let found = documents(&reply);
        assert_eq!(found.len(), titles, "{wanted}");
        assert_eq!(
            found.contains(&oak),
            wanted.to_string().contains(uploaded.as_str().expect("an id"))
        );
    }
}

#[tokio::test]
async fn the_number_of_passages_is_what_was_asked_for_and_bounded() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let text: String = (0..60)
        .map(|number| format!("## Table {number}\n\n{}\n\n", "Tables are oiled. ".repeat(60)))
        .collect();
    desk.publish("tables.md", &text).await;

    for (limit, count) in [(json!(1), 1), (json!(7), 7), (json!(50), 50), (json!(null), 10)] {
        let reply = ask(&desk, json!({ "query": "oiled tables", "limit": limit }))
            .await
            .expect(200);
        assert_eq!(documents(&reply).len(), count, "{limit}");
    }
    for limit in [json!(0), json!(51), json!(-1), json!("many"), json!(1.5)] {
        ask(&desk, json!({ "query": "oiled tables", "limit": limit }))
            .await
            .expect(422);
    }
}

#[tokio::test]
async fn a_search_that_makes_no_sense_is_refused_and_any_other_text_is_answered() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    desk.publish("tables.md", "Tables are oiled.").await;

    let too_long = "a".repeat(8001);
    for body in [
        json!({ "query": "" }),
        json!({ "query": " \n" }),
        json!({ "query": too_long }),
        json!({}),
        json!({ "query": "x", "tenant_id": acme.id }),
    ] {
        ask(&desk, body).await.expect(422);
    }
    ask(&desk, json!({ "query": "x", "filter": { "source": "all" } }))
        .await
        .expect(422);
    for query in [
        "?!",
        "\"'; drop table chunk; --",
        "tables AND (",
        "\u{202e}\u{7f}",
        "😀😀",
        &"oiled ".repeat(1300),
        "tables:^*~[to]",
    ] {
        ask(&desk, json!({ "query": query })).await.expect(200);
    }
}

#[tokio::test]
async fn without_an_embedding_model_words_are_enough() {
    let service = TestOptions::default().without_embedder().start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let oak = desk.publish("oak.md", "Oak tables are oiled twice a year.").await;
    desk.publish("hours.md", "The showroom opens at ten.").await;

    let reply = ask(&desk, json!({ "query": "When are tables oiled?" }))
        .await
        .expect(200);

    assert_eq!(documents(&reply), [oak]);
    assert!(reply.json()["items"][0]["similarity"].is_null());
    assert!(
        reply.json()["degraded"].is_null(),
        "nothing is missing that was there"
    );
    acme.check_stores_agree().await;
}

#[tokio::test]
async fn when_the_embedding_model_is_down_words_still_find_and_the_answer_says_so() {
    let embedder = WatchedEmbedder::new();
    let service = TestOptions::default().embedder(embedder.clone()).start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let oak = desk.publish("oak.md", "Oak tables are oiled twice a year.").await;
    let whole = ask(&desk, json!({ "query": "When are tables oiled?" }))
        .await
        .expect(200)
        .json();
    embedder.set_down(true);

    let reply = ask(&desk, json!({ "query": "When are tables oiled?" }))
        .await
        .expect(200);

    assert_eq!(documents(&reply), [oak]);
    assert!(
        whole["degraded"].is_null() && whole["items"][0]["similarity"].is_number(),
        "{whole}"
    );
    assert!(
        reply.json()["degraded"][0]["code"] == "embedding_unavailable"
            && reply.json()["items"][0]["similarity"].is_null(),
        "{}",
        reply.text
    );
    let answer = desk.ask("When are oak tables oiled?").await.expect(200).json();
    assert!(
        answer["answer"]
            .as_str()
            .is_some_and(|text| text.contains("twice a year")),
        "{answer}"
    );
    assert_eq!(answer["degraded"], reply.json()["degraded"], "{answer}");
    let path = format!(
        "/api/conversations/{}",
        answer["conversation_id"].as_str().expect("an id")
    );
    let kept = acme.get(&path).await.expect(200).json();
    assert_eq!(kept["messages"][1]["degraded"], answer["degraded"], "{kept}");
    assert!(kept["messages"][0]["degraded"].is_null(), "{kept}");
    let metrics = service.http.get(format!("http://{}/metrics", service.address));
    let metrics = metrics.send().await.expect("metrics").text().await.expect("text");
    assert!(
        metrics.contains("frontdesk_degraded_total{code=\"embedding_unavailable\"}"),
        "{metrics}"
    );
}

#[tokio::test]
async fn when_the_embedding_model_is_down_nothing_found_by_words_is_not_told_as_nothing_known() {
    let embedder = WatchedEmbedder::new();
    let service = TestOptions::default().embedder(embedder.clone()).start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    desk.publish("oak.md", "Oak tables are oiled twice a year.").await;
    let known = desk.ask("Who won the cup?").await.expect(200).json();
    embedder.set_down(true);

    let answer = desk.ask("Who won the cup?").await.expect(503);

    assert_eq!(known["source"], "no_answer");
    assert_eq!(answer.code(), "search_degraded");
    assert!(answer.headers.contains_key("retry-after"));
    assert_eq!(count_rows(&service, "message").await, 2, "nothing of it is kept");
    embedder.set_down(false);
    assert_eq!(
        desk.ask("Who won the cup?").await.expect(200).json()["source"],
        "no_answer"
    );
}

#[tokio::test]
async fn an_index_that_is_gone_is_told_and_what_comes_meanwhile_waits_for_it() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    desk.publish("oak.md", "Oak tables are oiled twice a year.").await;
    let index = service.app.spaces.wanted().index.clone();
    index.close().await.expect("it closes");

    let found = ask(&desk, json!({ "query": "When are tables oiled?" }))
        .await
        .expect(200)
        .json();
    let upload = desk
        .upload(&[("teak.md", b"Teak is oiled too.")])
        .await
        .expect(202)
        .json();
    service.drain_jobs().await;

    assert_eq!(found["degraded"][0]["code"], "index_unavailable", "{found}");
    let document = desk
        .document(upload["items"][0]["id"].as_str().expect("an id"))
        .await;
    // What lies in the database of the rows can be written as long as these can.
    let state = if index_backend() == "pgvector" {
        "indexed"
    } else {
        "processing"
    };
    assert_eq!(document["state"], state, "{document}");
    assert_eq!(count_rows(&service, "document").await, 2);
}
