//! A reranker decides the order of passages, is paid for, and is never in the way of an answer.

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::evals;
use crate::harness::app::{Chatbot, TestApp, TestOptions};
use crate::harness::openai::{Reply, Script, ScriptedModel};
use crate::harness::reranker::{RerankFault, ScriptedReranker};

/// A search costs two thousand micro-USD.
const PRICES: &str = "version = \"test\"\n[[model]]\nname = \"order-1\"\nsearches = 2000000\n[[model]]\nname = \"scripted\"\ninput = 1000000\noutput = 3000000\n";

const QUERY: &str = "How often are oak tables oiled?";

/// With two documents: words and meaning prefer oak, the reranker teak.
struct Desks {
    service: TestApp,
    _folder: TempDir,
}

async fn with_reranker(reranker: &ScriptedReranker, model: Option<&ScriptedModel>) -> Desks {
    let options = TestOptions::default()
        .set("rerank.backend", "cohere")
        .set("rerank.base_url", reranker.base_url())
        .set("rerank.model", "order-1");
    start(options, model).await
}

async fn start(options: TestOptions, model: Option<&ScriptedModel>) -> Desks {
    let folder = TempDir::new().expect("a folder");
    let prices = folder.path().join("prices.toml");
    std::fs::write(&prices, PRICES).expect("the prices are written");
    let options = options.set("llm.price_book", prices.display());
    let options = match model {
        Some(model) => options.model(model),
        None => options,
    };
    Desks {
        service: options.start().await,
        _folder: folder,
    }
}

async fn publish(desk: &Chatbot<'_, '_>) {
    desk.publish("oak.md", "Oak tables are oiled twice a year.").await;
    desk.publish(
        "teak.md",
        "Other tables, such as those of teak, are oiled every spring.",
    )
    .await;
}

async fn search(desk: &Chatbot<'_, '_>) -> Value {
    let path = format!("/api/chatbots/{}/search", desk.id);
    let body = json!({ "query": QUERY, "explain": true });
    desk.tenant.post(&path, body).await.expect(200).json()
}

fn titles(reply: &Value) -> Vec<&str> {
    let items = reply["items"].as_array().expect("items");
    items
        .iter()
        .map(|item| item["title"].as_str().expect("a title"))
        .collect()
}

fn has_stage(reply: &Value, name: &str) -> bool {
    let stages = reply["explain"]["stages"].as_array().expect("stages");
    stages.iter().any(|stage| stage["name"] == name)
}

/// Tokens read and micro-USD of each call of a kind in the ledger.
async fn booked(desk: &Chatbot<'_, '_>, kind: &str) -> Vec<(i64, i64)> {
    let number = |text: &str| text.parse().expect("a number");
    let lines = desk.tenant.ledger().await;
    lines
        .iter()
        .filter(|line| line["kind"] == kind)
        .map(|line| (number(&line["prompt_tokens"]), number(&line["cost_micro_usd"])))
        .collect()
}

#[tokio::test]
async fn a_reranker_decides_the_order_shows_its_scores_and_is_booked() {
    let reranker = ScriptedReranker::start("teak").await;
    let desks = with_reranker(&reranker, None).await;
    let acme = desks.service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    publish(&desk).await;

    let reply = search(&desk).await;

    assert_eq!(titles(&reply), ["teak.md", "oak.md"], "{reply}");
    assert!(reply["degraded"].is_null());
    let scores: Vec<f64> = reply["items"]
        .as_array()
        .expect("items")
        .iter()
        .filter_map(|item| item["score"].as_f64())
        .collect();
    assert!(
        scores[0] == 1.0 && scores[1] < 1.0,
        "scores belong to places: {scores:?}"
    );
    let stages = reply["explain"]["stages"].as_array().expect("stages");
    let stage = stages
        .iter()
        .find(|stage| stage["name"] == "rerank")
        .expect("the stage");
    let relevance = stage["items"][0]["scores"]["relevance"]
        .as_f64()
        .expect("a score");
    assert!((relevance - 0.9).abs() < 1e-6, "{stage}");
    assert!(stage["took_us"].as_u64().is_some_and(|took| took > 0));
    let asked = &reranker.requests()[0];
    assert_eq!(
        (&asked["query"], &asked["model"]),
        (&json!(QUERY), &json!("order-1"))
    );
    let booked = booked(&desk, "rerank").await;
    assert!(
        booked.len() == 1 && booked[0].0 > 0 && booked[0].1 == 2_000,
        "{booked:?}"
    );
}

#[tokio::test]
async fn a_chatbot_may_do_without_it() {
    let reranker = ScriptedReranker::start("teak").await;
    let desks = with_reranker(&reranker, None).await;
    let acme = desks.service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    publish(&desk).await;
    let path = format!("/api/chatbots/{}", desk.id);
    acme.patch(&path, json!({ "search": { "rerank": false } }))
        .await
        .expect(200);

    let reply = search(&desk).await;

    assert_eq!(titles(&reply), ["oak.md", "teak.md"]);
    assert!(!has_stage(&reply, "rerank"));
    assert_eq!(
        (reranker.requests().len(), booked(&desk, "rerank").await.len()),
        (0, 0)
    );
}

#[tokio::test]
async fn a_run_of_a_test_set_asks_it_as_a_visitors_question_would_and_books_it() {
    let reranker = ScriptedReranker::start("teak").await;
    let desks = with_reranker(&reranker, None).await;
    let acme = desks.service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    publish(&desk).await;
    let question = json!([{ "question": QUERY, "answer": "oiled every spring" }]);
    let set = evals::make(&desk, question).await.expect(201).id();

    let reranked = evals::run(&desk, &set, false).await;
    acme.patch(
        &format!("/api/chatbots/{}", desk.id),
        json!({ "search": { "rerank": false } }),
    )
    .await
    .expect(200);
    let plain = evals::run(&desk, &set, false).await;

    assert_eq!(
        (&reranked["results"][0]["rank"], &plain["results"][0]["rank"]),
        (&json!(1), &json!(2))
    );
    assert_eq!(booked(&desk, "rerank").await.len(), 1);
    let lines = acme.ledger().await;
    let line = lines.iter().find(|line| line["kind"] == "rerank");
    assert_eq!(line.map(|line| line["channel"].as_str()), Some("eval"));
}

#[tokio::test]
async fn without_its_answer_passages_are_in_the_order_of_the_search_and_the_answer_says_so() {
    let reranker = ScriptedReranker::start("teak").await;
    let desks = with_reranker(&reranker, None).await;
    let acme = desks.service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    publish(&desk).await;

    for (fault, is_paid) in [
        (RerankFault::Status(401), false),
        (RerankFault::Stray, true),
        (RerankFault::Empty, true),
    ] {
        let before = booked(&desk, "rerank").await.len();
        reranker.push_fault(fault);

        let reply = search(&desk).await;
        desks.service.drain_jobs().await;

        assert_eq!(titles(&reply), ["oak.md", "teak.md"], "{fault:?}");
        assert_eq!(reply["degraded"][0]["code"], "rerank_unavailable", "{fault:?}");
        assert!(has_stage(&reply, "rerank"), "its time is told: {fault:?}");
        // What is booked when a hold falls is booked by a task of its own.
        let mut added = 0;
        for _ in 0..100 {
            added = booked(&desk, "rerank").await.len() - before;
            if added == usize::from(is_paid) {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        assert_eq!(added, usize::from(is_paid), "{fault:?}");
    }

    reranker.push_fault(RerankFault::Status(401));
    let answer = desk.ask(QUERY).await.expect(200).json();
    assert_eq!(answer["degraded"][0]["code"], "rerank_unavailable", "{answer}");
    assert_eq!(answer["source"], "extractive");
}

#[tokio::test]
async fn what_the_month_does_not_allow_is_not_asked_for() {
    let reranker = ScriptedReranker::start("teak").await;
    let desks = with_reranker(&reranker, None).await;
    let acme = desks.service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    publish(&desk).await;
    let path = format!("/api/chatbots/{}", desk.id);
    acme.patch(&path, json!({ "monthly_cost_limit_micro_usd": 3_000 }))
        .await
        .expect(200);

    let first = search(&desk).await;
    let second = search(&desk).await;

    assert_eq!(titles(&first)[0], "teak.md");
    assert_eq!(titles(&second)[0], "oak.md");
    assert_eq!(second["degraded"][0]["code"], "rerank_over_budget", "{second}");
    assert_eq!(reranker.requests().len(), 1);
}

#[tokio::test]
async fn a_turn_reranks_and_its_figures_hold_what_that_took() {
    let reranker = ScriptedReranker::start("teak").await;
    let model = ScriptedModel::start().await;
    model.reply("Every spring. [1]");
    let desks = with_reranker(&reranker, Some(&model)).await;
    let acme = desks.service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    // The order is what is asked about, not which passages count.
    let path = format!("/api/chatbots/{}", desk.id);
    acme.patch(&path, json!({ "min_similarity": 0 }))
        .await
        .expect(200);
    publish(&desk).await;

    let answer = desk.ask(QUERY).await.expect(200).json();

    assert_eq!(answer["citations"][0]["title"], "teak.md", "{answer}");
    let rerank = booked(&desk, "rerank").await;
    let chat = booked(&desk, "chat").await;
    assert_eq!((rerank.len(), chat.len()), (1, 1));
    assert_eq!(answer["usage"]["prompt_tokens"], rerank[0].0 + chat[0].0);
    assert_eq!(answer["usage"]["cost_micro_usd"], rerank[0].1 + chat[0].1);
}

#[tokio::test]
async fn what_it_puts_first_is_told_however_little_sure_the_search_was_of_it() {
    let reranker = ScriptedReranker::start("linseed").await;
    let model = ScriptedModel::start().await;
    model.reply("Every spring. [1]");
    let desks = with_reranker(&reranker, Some(&model)).await;
    let acme = desks.service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    desk.publish("oak.md", "Oak tables are oiled twice a year.").await;
    desk.publish("spring.md", "Each spring, linseed for everything wooden.")
        .await;

    let answer = desk.ask(QUERY).await.expect(200).json();
    let path = format!("/api/chatbots/{}", desk.id);
    acme.patch(&path, json!({ "search": { "rerank": false } }))
        .await
        .expect(200);
    desk.ask(QUERY).await.expect(200);

    assert_eq!(answer["citations"][0]["title"], "spring.md", "{answer}");
    let prompts = model.chat_requests();
    let has_it: Vec<bool> = prompts
        .iter()
        .map(|asked| asked.last_message().contains("linseed"))
        .collect();
    assert_eq!(has_it, [true, false], "alone it inspires too little");
}

#[tokio::test]
async fn the_chat_model_can_put_passages_in_order() {
    let model = ScriptedModel::start().await;
    model.reply_with(|asked| {
        let ranks = asked.body["messages"][0]["content"]
            .as_str()
            .is_some_and(|text| text.starts_with("You order passages"));
        Script::Reply(Reply::new(if ranks { "2, 1" } else { "Every spring. [1]" }))
    });
    let desks = start(TestOptions::default().set("rerank.backend", "llm"), Some(&model)).await;
    let acme = desks.service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    // The order is what is asked about, not which passages count.
    let path = format!("/api/chatbots/{}", desk.id);
    acme.patch(&path, json!({ "min_similarity": 0 }))
        .await
        .expect(200);
    publish(&desk).await;

    let reply = search(&desk).await;
    let answer = desk.ask(QUERY).await.expect(200).json();

    assert_eq!(titles(&reply), ["teak.md", "oak.md"]);
    assert_eq!(answer["citations"][0]["title"], "teak.md", "{answer}");
    let booked = booked(&desk, "rerank").await;
    assert!(
        booked.len() == 2 && booked.iter().all(|(tokens, cost)| *tokens > 0 && *cost > 0),
        "{booked:?}"
    );
}

#[tokio::test]
async fn a_chat_model_that_names_no_passage_leaves_the_order_and_is_paid() {
    let model = ScriptedModel::start().await;
    model.reply("I would rather not.");
    let desks = start(TestOptions::default().set("rerank.backend", "llm"), Some(&model)).await;
    let acme = desks.service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    publish(&desk).await;

    let reply = search(&desk).await;

    assert_eq!(titles(&reply), ["oak.md", "teak.md"]);
    assert_eq!(reply["degraded"][0]["code"], "rerank_unavailable");
}

#[tokio::test]
async fn a_reranker_that_failed_is_left_alone_for_a_while_and_asked_again_by_one() {
    let reranker = ScriptedReranker::start("teak").await;
    let desks = with_reranker(&reranker, None).await;
    let acme = desks.service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    publish(&desk).await;
    // A call is tried three times.
    for _ in 0..3 {
        reranker.push_fault(RerankFault::Status(503));
    }

    let first = search(&desk).await;
    let resting = search(&desk).await;

    assert_eq!(reranker.requests().len(), 3, "nobody waits for it");
    for reply in [&first, &resting] {
        assert_eq!(titles(reply), ["oak.md", "teak.md"]);
        assert_eq!(reply["degraded"][0]["code"], "rerank_unavailable");
    }
    desks.service.clock.advance(chrono::TimeDelta::seconds(1));
    let back = search(&desk).await;
    assert!(back["degraded"].is_null(), "{back}");
    assert_eq!((titles(&back)[0], reranker.requests().len()), ("teak.md", 4));
}

#[tokio::test]
async fn an_order_that_came_too_late_is_booked_as_it_was_reserved() {
    let reranker = ScriptedReranker::start("teak").await;
    let options = TestOptions::default()
        .set("rerank.backend", "cohere")
        .set("rerank.base_url", reranker.base_url())
        .set("rerank.model", "order-1")
        .set("rerank.timeout_s", 1);
    let desks = start(options, None).await;
    let acme = desks.service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    publish(&desk).await;
    reranker.push_fault(RerankFault::Silence);

    let reply = search(&desk).await;

    assert_eq!(reply["degraded"][0]["code"], "rerank_unavailable", "{reply}");
    crate::harness::work::until("it is booked", async || !booked(&desk, "rerank").await.is_empty()).await;
    assert_eq!(booked(&desk, "rerank").await[0].1, 2_000);
}
