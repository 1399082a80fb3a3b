//! What a visitor, the saved message and the books see of a model that fails.

use std::time::Duration;

use reqwest::header;
use serde_json::{Value, json};

use crate::harness::app::{Chatbot, Event, Reply as Answered, TestApp, TestOptions};
use crate::harness::openai::{Reply, Script, ScriptedModel};
use crate::harness::turns::letter_by_letter;

const RETURNS: &str =
    "# Returns\n\nGoods may be returned within 30 days of delivery. Engraved goods cannot be returned.\n";
const REFUNDS: &str = "# Refunds\n\nWhen goods are returned, the money comes within 5 days. Delivery of returned goods costs 4 pounds.\n";
const QUESTION: &str = "Within how many days may goods be returned?";
const API_KEY: &str = "sk-very-secret";

/// The service with short limits for its model, and with a budget, so that something is reserved.
async fn impatient(model: &ScriptedModel) -> TestApp {
    TestOptions::default()
        .model(model)
        .set("llm.api_key", API_KEY)
        .set("llm.first_token_timeout_s", 1)
        .set("llm.idle_timeout_s", 1)
        .set("llm.total_timeout_s", 3)
        .set("llm.max_attempts", 2)
        .start()
        .await
}

/// How a turn ended for the one who asked.
struct Ended {
    /// The problem's code, or none.
    code: Option<String>,
    /// What came before the end, or the whole answer.
    text: String,
    /// Everything that was sent.
    raw: String,
}

async fn ask(desk: &Chatbot<'_, '_>, streamed: bool) -> Ended {
    if !streamed {
        let answer = desk.ask(QUESTION).await;
        let code = Some(answer.code()).filter(|code| !code.is_empty());
        return Ended {
            code,
            text: answer.json()["answer"].as_str().unwrap_or_default().to_owned(),
            raw: answer.text,
        };
    }
    let raw = desk
        .open_stream(QUESTION)
        .await
        .text()
        .await
        .expect("the stream ends");
    let events = Event::parse_all(&raw);
    let last = events.last().expect("an end");
    let code = (last.name == "error").then(|| last.data["code"].as_str().expect("a code").to_owned());
    assert!(
        code.is_some() || last.name == "message.end",
        "a stream ends with its answer or an error: {raw}"
    );
    assert_eq!(
        events
            .iter()
            .filter(|event| ["error", "message.end"].contains(&event.name.as_str()))
            .count(),
        1,
        "{raw}"
    );
    let text = events
        .iter()
        .filter(|event| event.name == "delta")
        .filter_map(|event| event.data["text"].as_str())
        .collect();
    Ended { code, text, raw }
}

/// A turn that failed with `code` after `text`: so it is saved, nothing is held, and nothing of the server's is shown.
async fn check_failed(
    service: &TestApp,
    desk: &Chatbot<'_, '_>,
    ended: &Ended,
    code: &str,
    text: &str,
) -> Value {
    assert_eq!(
        (ended.code.as_deref(), ended.text.as_str()),
        (Some(code), text),
        "{}",
        ended.raw
    );
    service.wait_idle().await;
    let saved = desk.tenant.last_answer().await;
    assert_eq!(
        (&saved["state"], &saved["error_code"], &saved["content"]),
        (&json!("failed"), &json!(code), &json!(text)),
        "{saved}"
    );
    for shown in [ended.raw.clone(), saved.to_string()] {
        for secret in ["upstream words", API_KEY, "127.0.0.1"] {
            assert!(!shown.contains(secret), "{secret:?} is shown: {shown}");
        }
    }
    let budget = desk.tenant.budget().await;
    assert_eq!(
        (&budget["reserved_tokens"], &budget["reserved_micro_usd"]),
        (&json!(0), &json!(0)),
        "{budget}"
    );
    saved
}

#[tokio::test]
async fn what_passes_is_tried_again_and_the_visitor_sees_only_the_answer() {
    let model = ScriptedModel::start().await;
    let service = impatient(&model).await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    desk.publish("returns.md", RETURNS).await;

    for script in [
        Script::rate_limited("0"),
        Script::error(500, "server_error", "x"),
        Script::error(503, "server_error", "overloaded"),
        Script::CutAfter(""),
    ] {
        for streamed in [true, false] {
            let before = model.chat_requests().len();
            model.push(script.clone());

            let ended = ask(&desk, streamed).await;

            assert_eq!(
                (ended.code, ended.text.as_str()),
                (None, "Scripted answer."),
                "{script:?}"
            );
            assert_eq!(model.chat_requests().len() - before, 2, "{script:?}");
        }
    }
    let answers = acme
        .ledger()
        .await
        .iter()
        .filter(|line| line["kind"] == "chat")
        .count();
    assert_eq!(answers, 8, "a try that gave nothing costs nothing");
}

#[tokio::test]
async fn tries_end_at_the_cap_with_an_error_that_says_when_to_come_back() {
    let model = ScriptedModel::start().await;
    let service = impatient(&model).await;
    let acme = service.tenant("acme").await;
    acme.patch("/api/tenant", json!({ "monthly_token_limit": 100_000 }))
        .await
        .expect(200);
    let desk = acme.chatbot("Desk").await;
    desk.publish("returns.md", RETURNS).await;
    model.reply_with(|_| Script::rate_limited("0"));

    for streamed in [true, false] {
        let before = model.chat_requests().len();
        let ended = ask(&desk, streamed).await;
        check_failed(&service, &desk, &ended, "model_unavailable", "").await;
        assert_eq!(model.chat_requests().len() - before, 2);
    }

    model.reply_with(|_| Script::rate_limited("77"));
    let refused = desk.ask(QUESTION).await.expect(503);
    assert_eq!(refused.headers[header::RETRY_AFTER], "77");
    let chats = acme
        .ledger()
        .await
        .iter()
        .filter(|line| line["kind"] == "chat")
        .count();
    assert_eq!(chats, 0, "the model did no work");
}

#[tokio::test]
async fn what_will_not_pass_ends_at_once_under_its_code() {
    let model = ScriptedModel::start().await;
    let service = impatient(&model).await;
    let acme = service.tenant("acme").await;
    acme.patch("/api/tenant", json!({ "monthly_token_limit": 100_000 }))
        .await
        .expect(200);
    let desk = acme.chatbot("Desk").await;
    desk.publish("returns.md", RETURNS).await;

    for (script, code, status) in [
        (Script::quota_exhausted(), "model_quota_exhausted", 502),
        (
            Script::error(401, "invalid_request_error", "invalid_api_key"),
            "model_refused",
            502,
        ),
        (
            Script::error(404, "invalid_request_error", "model_not_found"),
            "model_refused",
            502,
        ),
        (
            Script::error(307, "redirect", "x").with_header("location", "http://127.0.0.1:1/"),
            "model_refused",
            502,
        ),
        (
            Script::ErrorAfter("", json!({ "message": "upstream words that no visitor may see" })),
            "model_refused",
            502,
        ),
        (Script::MalformedAfter(""), "model_unreadable", 502),
        (
            Script::ToolCall {
                name: "delete_everything",
                arguments: "{}",
            },
            "model_unreadable",
            502,
        ),
        (Script::Reply(Reply::new("")), "model_unreadable", 502),
        (Script::Reply(Reply::new("[7] [8]")), "model_unreadable", 502),
    ] {
        for streamed in [true, false] {
            let before = model.chat_requests().len();
            model.push(script.clone());
            let ended = ask(&desk, streamed).await;
            check_failed(&service, &desk, &ended, code, "").await;
            assert_eq!(model.chat_requests().len() - before, 1, "{script:?}");
        }
        model.push(script.clone());
        let refused = desk.ask(QUESTION).await;
        assert_eq!(refused.status.as_u16(), status, "{script:?}");
    }
}

#[tokio::test]
async fn silence_ends_within_the_limits_as_a_dated_error() {
    let model = ScriptedModel::start().await;
    let service = impatient(&model).await;
    let acme = service.tenant("acme").await;
    acme.patch("/api/tenant", json!({ "monthly_token_limit": 100_000 }))
        .await
        .expect(200);
    let desk = acme.chatbot("Desk").await;
    desk.publish("returns.md", RETURNS).await;

    for (script, streamed) in [
        (Script::HangBeforeHeaders, true),
        (Script::HangBeforeHeaders, false),
        (Script::Drip(Duration::from_millis(50)), true),
        (Script::HangAfter(""), false),
    ] {
        model.push(script.clone());
        let ended = ask(&desk, streamed).await;
        check_failed(&service, &desk, &ended, "model_timed_out", "").await;
    }
    assert!(
        model.wait_cancelled(4).await,
        "every call that timed out was closed"
    );
}

#[tokio::test]
async fn a_stream_that_breaks_off_ends_in_an_error_and_its_beginning_is_saved_and_booked() {
    let model = ScriptedModel::start().await;
    let service = impatient(&model).await;
    let acme = service.tenant("acme").await;
    acme.patch("/api/tenant", json!({ "monthly_token_limit": 100_000 }))
        .await
        .expect(200);
    let desk = acme.chatbot("Desk").await;
    desk.publish("returns.md", RETURNS).await;
    const SAID: &str = "You have 30 days [1] and";

    for (script, code) in [
        (Script::CutAfter(SAID), "model_interrupted"),
        (Script::CutInsideCharacter(SAID), "model_interrupted"),
        (
            Script::ErrorAfter(
                SAID,
                json!({ "type": "server_error", "message": "upstream words" }),
            ),
            "model_interrupted",
        ),
        (Script::MalformedAfter(SAID), "model_unreadable"),
        (Script::HangAfter(SAID), "model_timed_out"),
    ] {
        let before = (
            model.chat_requests().len(),
            acme.usage().await["completion_tokens"]
                .as_i64()
                .expect("a number"),
        );
        model.push(script.clone());

        let ended = ask(&desk, true).await;

        let saved = check_failed(&service, &desk, &ended, code, SAID).await;
        assert!(
            !ended.raw.contains('\u{FFFD}'),
            "nothing half a character long is sent on: {script:?}"
        );
        assert_eq!(
            saved["citations"][0]["quote"],
            "Goods may be returned within 30 days of delivery."
        );
        assert!(
            saved["usage"]["completion_tokens"]
                .as_i64()
                .is_some_and(|tokens| tokens > 3),
            "{saved}"
        );
        let booked = acme.usage().await["completion_tokens"]
            .as_i64()
            .expect("a number")
            - before.1;
        assert_eq!(json!(booked), saved["usage"]["completion_tokens"]);
        assert_eq!(
            model.chat_requests().len() - before.0,
            1,
            "nobody hears a beginning twice: {script:?}"
        );
    }
}

#[tokio::test]
async fn an_endless_answer_is_cut_at_what_was_asked_for() {
    let model = ScriptedModel::start().await;
    let service = TestOptions::default()
        .model(&model)
        .set("llm.max_answer_tokens", 64)
        .start()
        .await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    desk.publish("returns.md", RETURNS).await;
    model.push(Script::Endless);
    model.push(Script::Endless);

    let streamed = ask(&desk, true).await;
    service.wait_idle().await;
    let saved = acme.last_answer().await;
    let whole = ask(&desk, false).await;

    assert_eq!(
        (streamed.code.as_deref(), whole.code.as_deref()),
        (Some("model_unreadable"), Some("model_unreadable"))
    );
    assert!(streamed.text.len() < 8 * 1024, "{} bytes", streamed.text.len());
    assert_eq!(saved["content"], json!(streamed.text));
    assert!(model.wait_cancelled(2).await);
}

#[tokio::test]
async fn a_prompt_that_stays_too_long_fails_after_the_second_try() {
    let model = ScriptedModel::start().await;
    let service = impatient(&model).await;
    let acme = service.tenant("acme").await;
    acme.patch("/api/tenant", json!({ "monthly_token_limit": 100_000 }))
        .await
        .expect(200);
    let desk = acme.chatbot("Desk").await;
    desk.publish("returns.md", RETURNS).await;
    desk.publish("refunds.md", REFUNDS).await;
    model.reply_with(|_| Script::context_too_long());

    for streamed in [true, false] {
        let before = model.chat_requests().len();
        let ended = ask(&desk, streamed).await;
        check_failed(&service, &desk, &ended, "context_too_long", "").await;
        assert_eq!(model.chat_requests().len() - before, 2);
    }
}

#[tokio::test]
async fn a_failed_answer_is_no_part_of_later_prompts() {
    let model = ScriptedModel::start().await;
    let service = impatient(&model).await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    desk.publish("returns.md", RETURNS).await;
    model.push(Script::CutAfter("You have ninety-nine days"));
    ask(&desk, true).await;
    service.wait_idle().await;
    let id = acme.conversations().await[0]["id"]
        .as_str()
        .expect("an id")
        .to_owned();

    desk.ask_in(&id, "May engraved goods be returned?")
        .await
        .expect(200);

    assert!(!model.chat_requests()[1].body.to_string().contains("ninety-nine"));
}

#[tokio::test]
async fn servers_that_answer_oddly_but_whole_are_understood() {
    let model = ScriptedModel::start().await;
    let service = impatient(&model).await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    desk.publish("returns.md", RETURNS).await;

    for script in [
        Script::NoStream(Reply::new("At nine.")),
        Script::Reply(Reply::new("At nine.").without_done()),
        Script::Reply(Reply::new("At nine.").finish(Some("length"))),
        Script::Reply(Reply::new("At nine.").without_usage()),
        letter_by_letter("At nine."),
    ] {
        model.push(script.clone());
        let ended = ask(&desk, true).await;
        assert_eq!(
            (ended.code, ended.text.as_str()),
            (None, "At nine."),
            "{script:?}"
        );
    }
}

#[tokio::test]
async fn an_embedding_endpoint_that_fails_leaves_the_words_and_says_so() {
    let model = ScriptedModel::start().await;
    let service = TestOptions::default()
        .without_embedder()
        .set("embedding.backend", "openai")
        .set("embedding.base_url", model.base_url())
        .set("embedding.model", "scripted-embedding")
        .set("embedding.dimension", model.dimension())
        .start()
        .await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    desk.publish("returns.md", RETURNS).await;
    for _ in 0..10 {
        model.push_fault(crate::harness::openai::EmbeddingFault::Status(400));
    }

    let answer: Answered = desk.ask(QUESTION).await.expect(200);

    assert_eq!(
        (&answer.json()["degraded"][0]["code"], &answer.json()["source"]),
        (&json!("embedding_unavailable"), &json!("extractive")),
        "{}",
        answer.text
    );
    assert!(
        answer.json()["answer"]
            .as_str()
            .is_some_and(|text| text.contains("30 days")),
        "{}",
        answer.text
    );
    assert_eq!(answer.json()["usage"]["embedding_tokens"], 0);
}

#[tokio::test]
async fn an_embedding_endpoint_that_failed_is_left_alone_for_a_while_and_asked_again_by_one() {
    let model = ScriptedModel::start().await;
    let service = TestOptions::default()
        .without_embedder()
        .set("embedding.backend", "openai")
        .set("embedding.base_url", model.base_url())
        .set("embedding.model", "scripted-embedding")
        .set("embedding.dimension", model.dimension())
        .start()
        .await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    desk.publish("returns.md", RETURNS).await;
    // A call is tried three times.
    for _ in 0..3 {
        model.push_fault(crate::harness::openai::EmbeddingFault::Status(503));
    }
    let asked = || {
        let requests = model.requests();
        requests
            .iter()
            .filter(|request| request.path == "/v1/embeddings")
            .count()
    };
    let before = asked();

    let failed: Answered = desk.ask(QUESTION).await.expect(200);
    let resting: Answered = desk.ask(QUESTION).await.expect(200);

    assert_eq!(asked() - before, 3, "nobody waits for it");
    for answer in [&failed, &resting] {
        assert_eq!(answer.json()["degraded"][0]["code"], "embedding_unavailable");
    }
    service.clock.advance(chrono::TimeDelta::seconds(1));
    let back: Answered = desk.ask(QUESTION).await.expect(200);
    assert!(back.json()["degraded"].is_null(), "{}", back.text);
    assert_eq!(asked() - before, 4);
}
