//! What a searcher can ask for beside words, and how a search explains itself.

use std::sync::Arc;

use retrieval::BoxFuture;
use retrieval::analysis::Language;
use retrieval::embed::{Asker, EmbedError, Embedder, Embeddings};
use serde_json::{Value, json};

use crate::harness::app::{Chatbot, Reply, TestApp, TestOptions, WordEmbedder};
use crate::harness::indexes::IndexSwitch;

/// Compares words, and reads English alone.
struct EnglishEmbedder;

impl Embedder for EnglishEmbedder {
    fn model_id(&self) -> &str {
        "english-words"
    }

    fn dimension(&self) -> usize {
        WordEmbedder.dimension()
    }

    fn max_tokens(&self) -> usize {
        WordEmbedder.max_tokens()
    }

    fn languages(&self) -> Option<&[Language]> {
        Some(&[Language::English])
    }

    fn count_tokens(&self, text: &str) -> usize {
        WordEmbedder.count_tokens(text)
    }

    fn embed_query(&self, asker: Asker, text: String) -> BoxFuture<'_, Result<Embeddings, EmbedError>> {
        Box::pin(async move { WordEmbedder.embed_query(asker, text).await })
    }

    fn embed_documents(
        &self,
        asker: Asker,
        texts: Vec<String>,
    ) -> BoxFuture<'_, Result<Embeddings, EmbedError>> {
        Box::pin(async move { WordEmbedder.embed_documents(asker, texts).await })
    }
}

async fn ask(desk: &Chatbot<'_, '_>, body: Value) -> Reply {
    let path = format!("/api/chatbots/{}/search", desk.id);
    desk.tenant.post(&path, body).await
}

fn documents(reply: &Value) -> Vec<&str> {
    let items = reply["items"].as_array().expect("items");
    items
        .iter()
        .map(|item| item["document_id"].as_str().expect("an id"))
        .collect()
}

fn stage<'a>(reply: &'a Value, name: &str) -> &'a Value {
    let stages = reply["explain"]["stages"].as_array().expect("stages");
    let found = stages.iter().find(|stage| stage["name"] == name);
    found.unwrap_or_else(|| panic!("no stage {name} in {stages:?}"))
}

#[tokio::test]
async fn quotes_ask_for_words_in_a_row_and_minus_leaves_out() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let cards = desk
        .publish("cards.md", "A gift card is valid for three years.")
        .await;
    let gifts = desk
        .publish("gifts.md", "Any gift comes with a card that you may write.")
        .await;
    let shipping = desk
        .publish("shipping.md", "Shipping of a gift card by post is free.")
        .await;

    for (query, mut found) in [
        ("gift card", vec![&cards, &gifts, &shipping]),
        ("\"gift card\"", vec![&cards, &shipping]),
        ("\"Gift-Card\" -post", vec![&cards]),
        ("card -\"gift card\"", vec![&gifts]),
        ("\"shipping\" card", vec![&shipping]),
        ("\"card gift\"", vec![]),
    ] {
        let reply = ask(&desk, json!({ "query": query })).await.expect(200).json();

        let mut documents = documents(&reply);
        documents.sort_unstable();
        found.sort_unstable();
        assert_eq!(documents, found, "{query}");
    }
}

#[tokio::test]
async fn what_a_phrase_asks_for_is_found_behind_better_passages_without_it() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let pages: String = (0..150)
        .map(|number| format!("# Page {number}\n\n{}\n\n", "Tables are oiled well. ".repeat(40)))
        .collect();
    desk.publish("tables.md", &pages).await;
    let wanted = desk
        .publish(
            "wax.md",
            "Nobody waxes furniture here, but tables made of oak wood are.",
        )
        .await;

    let reply = ask(
        &desk,
        json!({ "query": "well oiled \"tables made of\"", "limit": 3 }),
    )
    .await
    .expect(200)
    .json();

    assert_eq!(documents(&reply), [&wanted]);
}

#[tokio::test]
async fn a_phrase_that_is_nowhere_ends_the_search_early() {
    let index = IndexSwitch::default();
    let service = TestOptions::default().index(&index).start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let pages: String = (0..1_500)
        .map(|number| format!("# Page {number}\n\nTables are oiled well in week {number} of the year.\n\n"))
        .collect();
    desk.publish("tables.md", &pages).await;
    let (_, before) = index.searches();

    let reply = ask(&desk, json!({ "query": "\"the year of tables\"" }))
        .await
        .expect(200)
        .json();

    assert!(documents(&reply).is_empty());
    let (searches, candidates) = index.searches();
    assert!(searches <= 3, "{searches}");
    assert!(candidates - before <= 1_500, "{} candidates", candidates - before);
}

#[tokio::test]
async fn a_question_that_the_model_does_not_read_is_asked_once_however_few_passages_have_its_words() {
    let index = IndexSwitch::default();
    let embedder = Arc::new(EnglishEmbedder);
    let service = TestOptions::default()
        .index(&index)
        .embedder(embedder)
        .start()
        .await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let pages: String = (0..300)
        .map(|number| format!("# Page {number}\n\nTables are oiled well in week {number} of the year.\n\n"))
        .collect();
    desk.publish("tables.md", &pages).await;
    let returns = desk.publish("returns.md", "您可以在三十天内退货。").await;
    let (before, _) = index.searches();

    let reply = ask(&desk, json!({ "query": "几天内可以退货?", "limit": 5 }))
        .await
        .expect(200)
        .json();

    assert_eq!(documents(&reply), [returns]);
    let (searches, _) = index.searches();
    assert_eq!(searches - before, 1);
}

#[tokio::test]
async fn a_query_that_only_excludes_is_refused() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;

    for query in ["-shipping", "-\"gift card\" -post"] {
        let reply = ask(&desk, json!({ "query": query })).await.expect(422);
        assert_eq!(reply.code(), "invalid_query_text", "{query}");
    }
}

#[tokio::test]
async fn a_visitor_who_sets_off_a_word_is_answered_like_anyone() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    desk.publish("cards.md", "Gift cards are valid for three years.")
        .await;

    let set_off = desk
        .ask("How long is a \"gift card\" valid?")
        .await
        .expect(200)
        .json();
    let meant = desk.ask("\"valid for ten years\"").await.expect(200).json();

    assert_eq!(set_off["citations"][0]["title"], "cards.md", "{set_off}");
    assert_eq!(meant["source"], "no_answer", "{meant}");
}

#[tokio::test]
async fn a_search_explains_each_stage_with_its_scores_and_time() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    desk.publish("oak.md", "Oak tables are oiled twice a year.").await;
    desk.publish("teak.md", "Teak tables are oiled every spring.")
        .await;
    desk.publish("cards.md", "A gift card is valid for three years.")
        .await;

    let query = json!({ "query": "When are tables oiled? -teak", "explain": true });
    let reply = ask(&desk, query).await.expect(200).json();

    let explain = &reply["explain"];
    assert_eq!(explain["text"], "When are tables oiled?");
    assert_eq!(
        (&explain["phrases"], &explain["excluded"]),
        (&json!([]), &json!(["teak"]))
    );
    assert!(
        explain["confidence"]
            .as_f64()
            .is_some_and(|value| value > 0.5 && value <= 1.0),
        "{explain}"
    );
    assert_eq!(explain["confidence_by_meaning"], true);
    let names: Vec<&str> = explain["stages"]
        .as_array()
        .expect("stages")
        .iter()
        .map(|stage| stage["name"].as_str().expect("a name"))
        .collect();
    assert_eq!(
        names[..5],
        ["embed", "index", "fuse", "rows", "operators"],
        "{explain}"
    );
    let first = &reply["items"][0];
    let of_first = |name: &str| {
        let items = stage(&reply, name)["items"].as_array().expect("items");
        let item = items.iter().find(|item| item["chunk_id"] == first["chunk_id"]);
        item.expect("the first passage")["scores"].clone()
    };
    assert_eq!(of_first("index")["similarity"], first["similarity"]);
    assert!(
        of_first("index")["keyword_score"]
            .as_f64()
            .is_some_and(|score| score > 0.0)
    );
    assert_eq!(of_first("fuse")["score"], first["score"]);
    assert_eq!(of_first("rows")["confidence"], explain["confidence"]);
    let operators = stage(&reply, "operators")["items"].as_array().expect("items");
    assert_eq!(operators.last().expect("an item")["left_out"], "excluded");
    assert!(
        stage(&reply, "index")["took_us"]
            .as_u64()
            .is_some_and(|took| took > 0)
    );

    let plain = ask(&desk, json!({ "query": "tables" })).await.expect(200).json();
    assert!(plain["explain"].is_null());
}

#[tokio::test]
async fn an_explanation_tells_nobody_of_what_they_may_not_read() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    desk.publish("oak.md", "Oak tables are oiled twice a year.").await;
    let secret = desk
        .publish("pay.md", "Who oils tables is paid by the hour.")
        .await;
    acme.patch(
        &format!("/api/documents/{secret}"),
        json!({ "access_groups": ["staff"] }),
    )
    .await
    .expect(200);

    let query = json!({ "query": "oiled tables", "explain": true, "groups": [] });
    let before_the_index_knows = ask(&desk, query.clone()).await.expect(200).json();
    service.drain_jobs().await;
    let afterwards = ask(&desk, query).await.expect(200).json();

    for reply in [before_the_index_knows, afterwards] {
        let first = &reply["items"][0]["chunk_id"];
        for stage in reply["explain"]["stages"].as_array().expect("stages") {
            let items = stage["items"].as_array().expect("items");
            assert!(items.iter().all(|item| item["chunk_id"] == *first), "{stage}");
        }
    }
}

#[tokio::test]
async fn an_explanation_tells_whether_a_chat_would_answer_and_what_stands_around_without_a_model_too() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let page = ["alder", "birch", "cedar", "elm"]
        .map(|wood| format!("{wood} matters. ").repeat(90))
        .join("\n\n");
    desk.publish("woods.md", &format!("# Woods\n\n{page}")).await;
    let path = format!("/api/chatbots/{}", desk.id);
    let query = json!({ "query": "Does cedar matter?", "limit": 1, "explain": true });
    let mut explained = Vec::new();

    for min_similarity in [0.0, 0.4, 1.0] {
        let change = json!({ "min_similarity": min_similarity, "max_passages": 1, "search": { "context_tokens": 1000 } });
        acme.patch(&path, change).await.expect(200);
        let explain = ask(&desk, query.clone()).await.expect(200).json();
        let answer = desk.ask("Does cedar matter?").await.expect(200).json();
        let is_answered = answer["source"] != "no_answer";
        assert_eq!(explain["explain"]["is_enough"], is_answered, "{min_similarity}");
        assert_eq!(explain["explain"]["min_similarity"], min_similarity);
        explained.push(explain);
    }

    let needed = |of: usize| explained[of]["explain"]["needed_confidence"].as_f64();
    let needed = [0, 1, 2].map(|of| needed(of).expect("a confidence"));
    assert!(
        needed[0] == 0.0 && needed[1] > 0.1 && needed[2] > 0.9,
        "{needed:?}"
    );
    let told = ["is_enough", "confidence"].map(|name| &explained[1]["explain"][name]);
    assert!(
        *told[0] == true && told[1].as_f64().is_some_and(|told| told >= needed[1]),
        "{told:?}"
    );
    let around = stage(&explained[1], "context")["items"]
        .as_array()
        .expect("items");
    let tokens = around.iter().map(|item| item["scores"]["tokens"].as_f64());
    assert!(
        !around.is_empty() && tokens.flatten().all(|tokens| tokens > 50.0),
        "{around:?}"
    );
}
