//! What real servers send, and what is sent to them.

use serde_json::json;

use super::*;
use crate::llm::PromptMessage;

fn answer(text: &str) -> Answer {
    serde_json::from_str(text).expect("an answer")
}

fn request(temperature: Option<f64>) -> ChatRequest {
    ChatRequest {
        model: "m".to_owned(),
        messages: vec![
            PromptMessage {
                role: PromptRole::System,
                content: "be brief".to_owned(),
            },
            PromptMessage {
                role: PromptRole::User,
                content: "hi".to_owned(),
            },
            PromptMessage {
                role: PromptRole::Assistant,
                content: "hello".to_owned(),
            },
        ],
        temperature,
        max_answer_tokens: 64,
    }
}

fn encoded(temperature: Option<f64>, limit_field: TokenLimitField, stream: bool) -> Value {
    serde_json::to_value(body(request(temperature), limit_field, stream)).expect("JSON")
}

#[test]
fn a_request_holds_what_was_asked_for_and_nothing_else() {
    let messages = json!([{ "role": "system", "content": "be brief" }, { "role": "user", "content": "hi" }, { "role": "assistant", "content": "hello" }]);

    assert_eq!(
        encoded(None, TokenLimitField::MaxTokens, false),
        json!({ "model": "m", "messages": messages, "max_tokens": 64 })
    );
    let body = body(request(Some(0.7)), TokenLimitField::MaxCompletionTokens, true);
    let text = serde_json::to_string(&body).expect("JSON");
    assert!(
        text.contains("\"temperature\":0.7,") || text.contains("\"temperature\":0.7}"),
        "{text}"
    );
    let streamed = encoded(None, TokenLimitField::MaxCompletionTokens, true);
    assert_eq!(
        streamed,
        json!({ "model": "m", "messages": messages, "max_completion_tokens": 64, "stream": true, "stream_options": { "include_usage": true } })
    );
}

#[test]
fn a_delta_of_a_real_server_is_read() {
    let mut chunk = answer(
        r#"{"id":"chatcmpl-A1","object":"chat.completion.chunk","created":1767607200,"model":"gpt-4o-mini-2024-07-18","system_fingerprint":"fp_44709d6fcb",
            "choices":[{"index":0,"delta":{"content":" open \u00e9"},"logprobs":null,"finish_reason":null}],"usage":null}"#,
    );

    assert_eq!(chunk.choice.take_text(), " open \u{e9}");
    assert!(chunk.choice.is_present() && chunk.choice.finish().is_none() && chunk.usage.is_none());
}

#[test]
fn what_other_servers_do_differently_is_forgiven() {
    for (text, expected) in [
        (r#"{"choices":null}"#, ""),
        (r#"{"choices":[]}"#, ""),
        (r#"{"choices":[{"delta":{"content":"a\u0000b"}}]}"#, "ab"),
        (
            r#"{"choices":[{"delta":{"content":null,"refusal":"I may not."}}]}"#,
            "I may not.",
        ),
        (
            r#"{"choices":[{"delta":{"content":[{"type":"thinking","thinking":[{"type":"text","text":"hm"}]},{"type":"text","text":"yes"}]}}]}"#,
            "yes",
        ),
        (
            r#"{"choices":[{"message":{"content":"whole","reasoning":"a","reasoning_content":"b"}},{"message":{"content":"second"}}]}"#,
            "whole",
        ),
        (
            r#"{"choices":[{"delta":null,"finish_reason":""}],"extra":{"deep":[1,2]}}"#,
            "",
        ),
    ] {
        assert_eq!(answer(text).choice.take_text(), expected, "{text}");
    }
}

#[test]
fn reported_tokens_are_kept_within_reason() {
    let usage = |text: &str| serde_json::from_str::<Usage>(text).expect("usage").reported();

    assert_eq!(
        usage(
            r#"{"prompt_tokens":42,"completion_tokens":8,"total_tokens":50,"prompt_tokens_details":{"cached_tokens":16}}"#
        ),
        Some(TokenUsage {
            prompt: 42,
            completion: 8,
            cached: 16,
            reported: true
        })
    );
    assert_eq!(
        usage(r#"{"prompt_tokens":0,"completion_tokens":0}"#),
        None,
        "filled in, not counted"
    );
    assert_eq!(
        usage(r#"{"prompt_tokens":-3,"completion_tokens":1.5,"prompt_tokens_details":null}"#),
        Some(TokenUsage {
            prompt: 0,
            completion: 2,
            cached: 0,
            reported: true
        })
    );
    assert_eq!(
        usage(r#"{"prompt_tokens":18446744073709551615,"completion_tokens":null}"#).map(|usage| usage.prompt),
        Some(MAX_REPORTED_TOKENS)
    );
    assert_eq!(
        usage(r#"{"prompt_tokens":5,"prompt_tokens_details":{"cached_tokens":9}}"#).map(|usage| usage.cached),
        Some(5)
    );
}

#[test]
fn complaints_are_read_in_every_shape() {
    assert!(
        Complaint::from_body(br#"{"error":{"message":"x","code":"insufficient_quota"}}"#)
            .says(&["insufficient_quota"])
    );
    assert!(
        Complaint::from_body(br#"{"detail":"Maximum Context Length exceeded"}"#)
            .says(&["maximum context length"])
    );
    assert!(Complaint::from_body(b"<html>Bad gateway</html>").says(&["bad gateway"]));
    assert_eq!(
        Complaint::from_body(br#"{"error":{"code":502,"message":"upstream"}}"#).status,
        Some(502)
    );
    assert_eq!(Complaint::from_body(br#"{"error":{"code":7}}"#).status, None);
    assert_eq!(Complaint::from_body(b"[]"), Complaint::default());
}
