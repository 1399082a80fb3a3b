//! The ledger over the API: it equals what was served, it groups and filters, and it exports safely.

use std::collections::HashSet;
use std::time::Duration;

use chrono::TimeDelta;
use reqwest::header;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::app::{TestApp, TestOptions};
use crate::harness::openai::{EmbeddingFault, Reply, Script, ScriptedModel};
use crate::harness::turns::until;

const RETURNS: &str =
    "# Returns\n\nGoods may be returned within 30 days of delivery. Engraved goods cannot be returned.\n";
const REFUNDS: &str = "# Refunds\n\nWhen goods are returned, the money comes within 5 days. Delivery of returned goods costs 4 pounds.\n";
const QUESTION: &str = "Within how many days may goods be returned?";

const PRICES: &str = "version = \"2026-test\"\n\
[[model]]\nname = \"scripted\"\ninput = 1500000\ncached_input = 500000\noutput = 6000000\n\
[[model]]\nname = \"scripted-embedding\"\nembedding = 20000\n";

/// A service that gets answers and embeddings from `model`, at a price.
async fn remote(model: &ScriptedModel) -> (TestApp, TempDir) {
    let folder = TempDir::new().expect("a folder");
    let prices = folder.path().join("prices.toml");
    std::fs::write(&prices, PRICES).expect("the prices are written");
    let service = TestOptions::default()
        .model(model)
        .without_embedder()
        .set("embedding.backend", "openai")
        .set("embedding.base_url", model.base_url())
        .set("embedding.model", "scripted-embedding")
        .set("embedding.dimension", model.dimension())
        // Every line is a call then, and what is cached is the vendor's.
        .set("embedding.cache_mb", 0)
        .set("llm.price_book", prices.display())
        .start()
        .await;
    (service, folder)
}

fn number(line: &std::collections::HashMap<String, String>, column: &str) -> u64 {
    line[column]
        .parse()
        .unwrap_or_else(|_| panic!("{column} of {line:?} is no number"))
}

#[tokio::test]
async fn the_ledger_equals_what_the_providers_served() {
    let model = ScriptedModel::start().await;
    let (service, _prices) = remote(&model).await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    desk.publish("returns.md", RETURNS).await;
    desk.publish("refunds.md", REFUNDS).await;
    let mut tokens = 0;
    for number in 0..12_u64 {
        model.push(Script::Reply(
            Reply::new("word ".repeat(number as usize * 3 + 1)).cached(number),
        ));
        let usage = if number % 2 == 0 {
            desk.ask(QUESTION).await.expect(200).json()["usage"].clone()
        } else {
            desk.stream(QUESTION).await.pop().expect("an end").data["usage"].clone()
        };
        tokens += ["prompt_tokens", "completion_tokens", "embedding_tokens"]
            .iter()
            .filter_map(|name| usage[name].as_u64())
            .sum::<u64>();
    }
    desk.search(QUESTION).await;
    acme.post(
        "/api/chat/inline",
        json!({ "chatbot_id": desk.id, "messages": [{ "role": "user", "content": QUESTION }] }),
    )
    .await
    .expect(200);

    let served = model.served();
    let booked = acme.usage().await;

    assert_eq!(booked["prompt_tokens"], json!(served.prompt));
    assert_eq!(booked["completion_tokens"], json!(served.completion));
    assert_eq!(booked["cached_tokens"], json!(served.cached));
    assert_eq!(booked["embedding_tokens"], json!(served.embedding));
    assert_eq!(booked["calls"], json!(model.requests().len()));
    assert!(
        served.cached > 0
            && served.embedding > 0
            && tokens > 0
            && tokens < served.prompt + served.completion + served.embedding
    );
    assert_eq!(
        acme.budget().await["used_tokens"],
        json!(served.prompt + served.completion + served.embedding)
    );
    let costs: u64 = acme
        .ledger()
        .await
        .iter()
        .map(|line| {
            assert_eq!(
                (line["price_book_version"].as_str(), line["reported"].as_str()),
                ("2026-test", "true")
            );
            let (prompt, cached) = (number(line, "prompt_tokens"), number(line, "cached_tokens"));
            let micro = (prompt - cached) * 1_500_000
                + cached * 500_000
                + number(line, "completion_tokens") * 6_000_000
                + number(line, "embedding_tokens") * 20_000;
            assert_eq!(
                number(line, "cost_micro_usd"),
                micro.div_ceil(1_000_000),
                "{line:?}"
            );
            number(line, "cost_micro_usd")
        })
        .sum();
    assert_eq!(booked["cost_micro_usd"], json!(costs));
    assert_eq!(acme.budget().await["used_micro_usd"], json!(costs));
}

#[tokio::test]
async fn a_turn_that_its_budget_refuses_still_books_the_embedding_that_was_served() {
    let model = ScriptedModel::start().await;
    let (service, _prices) = remote(&model).await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    desk.publish("returns.md", RETURNS).await;
    let used = acme.budget().await["used_tokens"].as_i64().expect("a number");
    acme.patch("/api/tenant", json!({ "monthly_token_limit": used + 30 }))
        .await
        .expect(200);

    // Too little is left for any answer, but not nothing: the question is looked up before that is known.
    desk.ask(QUESTION).await.expect(402);

    assert!(model.chat_requests().is_empty() && acme.conversations().await.is_empty());
    assert_eq!(
        acme.usage().await["embedding_tokens"],
        json!(model.served().embedding)
    );
}

#[tokio::test]
async fn parallel_turns_that_pay_for_their_embeddings_stay_within_the_budget() {
    const LIMIT: i64 = 2500;
    let model = ScriptedModel::start().await;
    model.reply_with(|asked| {
        let allowed = asked.body["max_completion_tokens"].as_u64().expect("a limit") as usize;
        Script::Reply(Reply::new("word ".repeat(allowed.min(60))))
    });
    let (service, _prices) = remote(&model).await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    desk.publish("returns.md", RETURNS).await;
    acme.patch("/api/tenant", json!({ "monthly_token_limit": LIMIT }))
        .await
        .expect(200);

    let mut answered = 0;
    for _ in 0..3 {
        for reply in futures::future::join_all((0..10).map(|_| desk.ask(QUESTION))).await {
            assert!(matches!(reply.status.as_u16(), 200 | 402), "{}", reply.text);
            answered += usize::from(reply.status == 200);
        }
    }

    service.wait_idle().await;
    let (budget, served) = (acme.budget().await, model.served());
    assert!(answered >= 3, "{answered} answers");
    assert_eq!(
        budget["used_tokens"],
        json!(served.prompt + served.completion + served.embedding),
        "what was looked up for refused turns counts too"
    );
    assert!(
        budget["used_tokens"].as_i64().is_some_and(|used| used <= LIMIT),
        "{budget}"
    );
    assert_eq!(budget["reserved_tokens"], 0);
}

#[tokio::test]
async fn questions_that_are_embedded_at_the_same_time_stay_within_the_budget_together() {
    const QUESTIONS: usize = 30;
    let model = ScriptedModel::start().await;
    let (service, _prices) = remote(&model).await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    desk.publish("returns.md", RETURNS).await;
    let limit = acme.budget().await["used_tokens"].as_i64().expect("a number") + 3000;
    acme.patch("/api/tenant", json!({ "monthly_token_limit": limit }))
        .await
        .expect(200);
    let long = format!("{QUESTION} {}", "oak ".repeat(500));

    for is_search in [false, true] {
        for _ in 0..QUESTIONS {
            model.push_fault(EmbeddingFault::Late(Duration::from_millis(300)));
        }
        let path = format!("/api/chatbots/{}/search", desk.id);
        let replies = futures::future::join_all((0..QUESTIONS).map(async |_| {
            if is_search {
                acme.post(&path, json!({ "query": long })).await
            } else {
                desk.ask(&long).await
            }
        }))
        .await;

        for reply in replies {
            assert!(matches!(reply.status.as_u16(), 200 | 402), "{}", reply.text);
        }
        service.wait_idle().await;
        let budget = acme.budget().await;
        assert!(
            budget["used_tokens"].as_i64().is_some_and(|used| used <= limit),
            "{budget}"
        );
        assert_eq!(budget["reserved_tokens"], 0);
    }
    let served = model.served();
    assert_eq!(
        acme.budget().await["used_tokens"],
        json!(served.prompt + served.completion + served.embedding)
    );
}

#[tokio::test]
async fn a_client_that_leaves_while_its_question_is_embedded_holds_nothing() {
    let model = ScriptedModel::start().await;
    let (service, _prices) = remote(&model).await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    desk.publish("returns.md", RETURNS).await;
    acme.patch("/api/tenant", json!({ "monthly_token_limit": 100_000 }))
        .await
        .expect(200);
    model.push_fault(EmbeddingFault::Late(Duration::from_secs(60)));

    let held = until("the embedding is paid for in advance", async || {
        acme.budget().await["reserved_tokens"] != 0
    });
    tokio::select! {
        reply = desk.ask(QUESTION) => panic!("nothing is embedded yet: {reply:?}"),
        () = held => {}
    }

    until("what was held is given back", async || {
        acme.budget().await["reserved_tokens"] == 0
    })
    .await;
}

#[tokio::test]
async fn usage_is_summed_by_day_model_chatbot_or_channel_and_filters_by_time_and_chatbot() {
    let model = ScriptedModel::start().await;
    let (service, _prices) = remote(&model).await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let other = acme.chatbot("Other").await;
    desk.publish("returns.md", RETURNS).await;
    other.publish("refunds.md", REFUNDS).await;
    desk.ask(QUESTION).await.expect(200);
    service.clock.advance(TimeDelta::days(1));
    other
        .ask("When does the money come for returned goods?")
        .await
        .expect(200);
    other.search(QUESTION).await;
    let report = async |query: &str| acme.get(&format!("/api/usage?{query}")).await.expect(200).json();
    let keys = |report: &Value| {
        report["items"]
            .as_array()
            .expect("items")
            .iter()
            .map(|item| item["key"].as_str().expect("a key").to_owned())
            .collect::<Vec<_>>()
    };

    let by_day = report("").await;
    assert_eq!(keys(&by_day), ["2026-11-20", "2026-11-21"]);
    assert_eq!(
        keys(&report("group_by=model").await),
        ["scripted", "scripted-embedding"]
    );
    let by_chatbot = report("group_by=chatbot").await;
    assert_eq!(
        keys(&by_chatbot).into_iter().collect::<HashSet<_>>(),
        HashSet::from([desk.id.clone(), other.id.clone()])
    );
    let channels = keys(&report("group_by=channel").await);
    assert!(
        channels.contains(&"api".to_owned()) && channels.contains(&"search".to_owned()),
        "{channels:?}"
    );
    for group in ["model", "chatbot", "channel"] {
        let report = report(&format!("group_by={group}")).await;
        assert_eq!(report["total"], by_day["total"], "{group}");
        for field in [
            "prompt_tokens",
            "completion_tokens",
            "embedding_tokens",
            "cost_micro_usd",
            "calls",
        ] {
            let sum: i64 = report["items"]
                .as_array()
                .expect("items")
                .iter()
                .filter_map(|item| item[field].as_i64())
                .sum();
            assert_eq!(json!(sum), report["total"][field], "{group} {field}");
        }
    }

    let second_day = report("from=2026-11-21&to=2026-11-21").await;
    assert_eq!(second_day["items"], json!([by_day["items"][1]]));
    let first_day = report("from=2026-11-20T00:00:00Z&to=2026-11-21T00:00:00Z").await;
    assert_eq!(first_day["items"], json!([by_day["items"][0]]));
    let of_desk = report(&format!("chatbot_id={}&group_by=chatbot", desk.id)).await;
    assert_eq!(keys(&of_desk), std::slice::from_ref(&desk.id));
    for (query, status) in [
        ("group_by=colour", 422),
        ("from=yesterday", 422),
        ("from=2026-12-01&to=2026-11-01", 422),
        ("tenant_id=1", 422),
    ] {
        acme.get(&format!("/api/usage?{query}")).await.expect(status);
    }
    acme.get(&format!("/api/usage?chatbot_id={}", uuid::Uuid::now_v7()))
        .await
        .expect(404);
}

#[tokio::test]
async fn an_export_is_csv_that_no_spreadsheet_runs_and_adds_up_to_the_report() {
    let (service, _model) = TestApp::with_model().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    desk.publish("returns.md", RETURNS).await;
    let evil = ["=cmd|' /C calc'!A0", "+1", "-1", "@SUM(A1)", "a,\"b\""];
    for name in evil {
        acme.patch(&format!("/api/chatbots/{}", desk.id), json!({ "model": name }))
            .await
            .expect(200);
        desk.ask(QUESTION).await.expect(200);
    }

    let export = acme.get("/api/usage/export").await.expect(200);

    assert_eq!(export.headers[header::CONTENT_TYPE], "text/csv; charset=utf-8");
    assert!(
        export.headers[header::CONTENT_DISPOSITION]
            .to_str()
            .is_ok_and(|value| value.starts_with("attachment"))
    );
    let lines = acme.ledger().await;
    let models: Vec<&str> = lines
        .iter()
        .filter(|line| line["kind"] == "chat")
        .map(|line| line["model"].as_str())
        .collect();
    assert_eq!(
        models,
        ["'=cmd|' /C calc'!A0", "'+1", "'-1", "'@SUM(A1)", "a,\"b\""]
    );
    for line in &lines {
        assert!(
            line.values()
                .all(|cell| !cell.starts_with(['=', '+', '-', '@', '\t', '\r'])),
            "{line:?}"
        );
    }
    let total = acme.usage().await;
    assert_eq!(total["calls"], json!(lines.len()));
    for column in [
        "prompt_tokens",
        "completion_tokens",
        "embedding_tokens",
        "cost_micro_usd",
    ] {
        assert_eq!(
            total[column],
            json!(lines.iter().map(|line| number(line, column)).sum::<u64>()),
            "{column}"
        );
    }
    let audit = acme.get("/api/audit?limit=1").await.expect(200).json();
    assert_eq!(audit["items"][0]["action"], "usage.export");
}

#[tokio::test]
async fn a_long_ledger_is_exported_whole() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    desk.publish("returns.md", RETURNS).await;
    for _ in 0..26 {
        futures::future::join_all((0..40).map(|_| desk.search("goods"))).await;
    }

    let lines = acme.ledger().await;

    let ids: HashSet<&str> = lines.iter().map(|line| line["id"].as_str()).collect();
    assert!(lines.len() > 1000, "{} lines, more than one page", lines.len());
    assert_eq!(ids.len(), lines.len(), "each line once");
    assert!(
        lines.is_sorted_by_key(|line| line["created_at"].clone()),
        "oldest first"
    );
}
