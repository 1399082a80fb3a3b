//! What goes wrong, and how it ends.

use std::time::{Duration, Instant};

use frontdesk::llm::{ChatModel, FinishReason, ModelEvent, Phase, ProviderError};
use futures::StreamExt as _;
use serde_json::json;

use super::{client, client_at, listen, question};
use crate::harness::openai::{Reply, Script, ScriptedModel};

#[tokio::test]
async fn what_may_pass_is_tried_again_until_it_passes() {
    let server = ScriptedModel::start().await;
    let model = client(&server, &[]);
    for script in [
        Script::error(500, "server_error", "x"),
        Script::rate_limited("0"),
        Script::CutAfter(""),
        Script::ErrorAfter("", json!({ "type": "server_error", "message": "x" })),
    ] {
        for streamed in [true, false] {
            let before = server.requests().len();
            server.push(script.clone());

            let text = if streamed {
                listen(&model).await.text
            } else {
                model.complete(question()).await.expect("the second try").text
            };

            assert_eq!(text, "Scripted answer.", "{script:?}");
            assert_eq!(server.requests().len() - before, 2, "{script:?}");
        }
    }
}

#[tokio::test]
async fn tries_are_limited_and_the_servers_wish_is_passed_on() {
    let server = ScriptedModel::start().await;
    server.reply_with(|_| Script::error(503, "server_error", "overloaded"));
    let model = client(&server, &[("llm.max_attempts", "2")]);

    assert_eq!(listen(&model).await.error_code(), Some("model_unavailable"));
    assert_eq!(server.requests().len(), 2);

    server.reply_with(|_| Script::rate_limited("3600"));
    let error = model
        .complete(question())
        .await
        .expect_err("an hour is past the total limit");
    assert!(
        matches!(error, ProviderError::Unavailable { retry_after: Some(wait), .. } if wait == Duration::from_secs(3600)),
        "{error:?}"
    );
    assert_eq!(server.requests().len(), 3, "nobody waits for what cannot come");
}

#[tokio::test]
async fn retry_after_is_waited_for() {
    let server = ScriptedModel::start().await;
    server.push(Script::error(429, "requests", "rate_limit_exceeded").with_header("retry-after", "1"));
    let started = Instant::now();

    let heard = listen(&client(&server, &[])).await;

    assert_eq!(heard.finish, Some(FinishReason::Stop));
    assert!(started.elapsed() >= Duration::from_secs(1));
}

#[tokio::test]
async fn what_will_not_pass_is_not_tried_again_and_shows_no_words_of_the_server() {
    let server = ScriptedModel::start().await;
    let model = client(&server, &[]);
    for (script, code) in [
        (Script::quota_exhausted(), "model_quota_exhausted"),
        (Script::context_too_long(), "context_too_long"),
        (
            Script::error(401, "invalid_request_error", "invalid_api_key"),
            "model_refused",
        ),
        (
            Script::error(404, "invalid_request_error", "model_not_found"),
            "model_refused",
        ),
        (
            Script::error(307, "redirect", "x").with_header("location", "http://127.0.0.1:1/"),
            "model_refused",
        ),
        (Script::MalformedAfter(""), "model_unreadable"),
        (
            Script::ErrorAfter("", json!({ "message": "upstream words that no visitor may see" })),
            "model_refused",
        ),
    ] {
        let before = server.requests().len();
        server.push(script.clone());

        let error = listen(&model).await.error.expect("an error");

        assert_eq!(error.code(), code, "{script:?}");
        assert_eq!(server.requests().len() - before, 1, "{script:?}");
        let shown = format!("{error} {error:?}");
        assert!(
            !shown.contains("upstream words") && !shown.contains("secret"),
            "{shown}"
        );
    }
}

#[tokio::test]
async fn silence_ends_within_the_limit_of_its_phase_and_the_connection_is_closed() {
    let server = ScriptedModel::start().await;
    let model = client(&server, &[]);
    for (count, (script, phase, text)) in [
        (Script::HangBeforeHeaders, Phase::FirstToken, ""),
        (Script::HangAfter(""), Phase::FirstToken, ""),
        (Script::Drip(Duration::from_millis(50)), Phase::FirstToken, ""),
        (Script::HangAfter("We open"), Phase::Idle, "We open"),
    ]
    .into_iter()
    .enumerate()
    {
        server.push(script.clone());

        let heard = listen(&model).await;

        assert!(
            matches!(heard.error, Some(ProviderError::TimedOut { phase: timed_out }) if timed_out == phase),
            "{script:?}: {heard:?}"
        );
        assert_eq!(heard.text, text);
        assert!(server.wait_cancelled(count + 1).await, "{script:?}");
        assert_eq!(
            server.requests().len(),
            count + 1,
            "a late answer is not tried again"
        );
    }
}

#[tokio::test]
async fn the_whole_answer_has_a_limit_of_its_own() {
    let server = ScriptedModel::start().await;
    let slow = Script::Reply(Reply::new("a b c d e f g h i j").delay(Duration::from_millis(400)));
    let model = client(&server, &[("llm.total_timeout_s", "1")]);
    server.push(slow);
    server.push(Script::HangBeforeHeaders);

    let heard = listen(&model).await;
    let error = model.complete(question()).await.expect_err("too late");

    assert!(
        matches!(heard.error, Some(ProviderError::TimedOut { phase: Phase::Total })),
        "{heard:?}"
    );
    assert!(heard.text.starts_with("a b"), "{heard:?}");
    assert!(matches!(error, ProviderError::TimedOut { phase: Phase::Total }));
    assert!(server.wait_cancelled(2).await);
}

#[tokio::test]
async fn an_answer_that_breaks_off_after_text_is_interrupted_and_not_tried_again() {
    let server = ScriptedModel::start().await;
    let model = client(&server, &[]);
    for script in [
        Script::CutAfter("We open at"),
        Script::CutInsideCharacter("We open at"),
        Script::ErrorAfter("We open at", json!({ "type": "server_error", "message": "x" })),
        Script::Reply(
            Reply::new("We open at")
                .finish(None)
                .without_done()
                .without_usage(),
        ),
        Script::Raw(vec![
            b"data: {\"choices\":[{\"delta\":{\"content\":\"We open at\"}}]}\n\ndata: {\"choi".to_vec(),
        ]),
    ] {
        let before = server.requests().len();
        server.push(script.clone());

        let heard = listen(&model).await;

        assert_eq!(
            (heard.text.as_str(), heard.error_code()),
            ("We open at", Some("model_interrupted")),
            "{script:?}"
        );
        assert_eq!(server.requests().len() - before, 1, "{script:?}");
    }
}

#[tokio::test]
async fn a_whole_answer_that_breaks_off_was_made_and_is_not_paid_for_twice() {
    let server = ScriptedModel::start().await;
    let model = client(&server, &[]);
    for script in [
        Script::CutAfter("We open at"),
        Script::CutInsideCharacter("We open at"),
    ] {
        let before = server.requests().len();
        server.push(script.clone());

        let error = model.complete(question()).await.expect_err("half an answer");

        assert_eq!(error.code(), "model_interrupted", "{script:?}");
        assert_eq!(server.requests().len() - before, 1, "{script:?}");
    }
}

#[tokio::test]
async fn what_no_one_can_read_is_an_error_after_the_text_before_it() {
    let server = ScriptedModel::start().await;
    let event = b"data: {\"choices\":[{\"delta\":{\"content\":\"We open at\"}}]}\n\n";
    for script in [
        Script::MalformedAfter("We open at"),
        Script::Raw(vec![
            event.to_vec(),
            b"data: {\"choices\":[{\"delta\":{\"content\":\"\xFF\"}}]}\n\n".to_vec(),
            event.to_vec(),
        ]),
        Script::Raw(
            [event.to_vec()]
                .into_iter()
                .chain(vec![vec![b'x'; 64 * 1024]; 16])
                .collect(),
        ),
    ] {
        server.push(script);

        let heard = listen(&client(&server, &[])).await;

        assert_eq!(
            (heard.text.as_str(), heard.error_code()),
            ("We open at", Some("model_unreadable"))
        );
    }
}

#[tokio::test]
async fn an_endless_answer_is_ended() {
    let server = ScriptedModel::start().await;
    server.push(Script::Endless);
    server.push(Script::Endless);
    let model = client(&server, &[]);

    let heard = listen(&model).await;
    let error = model.complete(question()).await.expect_err("no answer");

    assert_eq!(
        (heard.error_code(), error.code()),
        (Some("model_unreadable"), "model_unreadable")
    );
    assert!(
        heard.text.len() < 16 * 1024,
        "no more is kept than an answer may have: {}",
        heard.text.len()
    );
    assert!(server.wait_cancelled(2).await);
}

#[tokio::test]
async fn whoever_stops_listening_stops_the_model() {
    let server = ScriptedModel::start().await;
    let model = client(&server, &[]);

    server.push(Script::HangAfter("We open"));
    let mut stream = model.stream(question()).await.expect("a stream");
    assert_eq!(
        stream.next().await.and_then(Result::ok),
        Some(ModelEvent::Delta("We ".to_owned()))
    );
    drop(stream);
    assert!(server.wait_cancelled(1).await, "a dropped stream");

    for streamed in [true, false] {
        server.push(Script::HangBeforeHeaders);
        let call = async {
            if streamed {
                model.stream(question()).await.map(drop)
            } else {
                model.complete(question()).await.map(drop)
            }
        };
        let _ = tokio::time::timeout(Duration::from_millis(300), call)
            .await
            .expect_err("the server hangs");
        assert!(
            server.wait_cancelled(if streamed { 2 } else { 3 }).await,
            "a dropped call"
        );
    }
}

#[tokio::test]
async fn a_server_that_is_not_there_is_unavailable() {
    let gone = {
        let server = ScriptedModel::start().await;
        server.base_url()
    };
    let model = client_at(&gone, &[]);

    let error = model.complete(question()).await.expect_err("nobody listens");

    assert_eq!(error.code(), "model_unavailable");
    assert!(!format!("{error} {error:?}").contains("secret"));
}
