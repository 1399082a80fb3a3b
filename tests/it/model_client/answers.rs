//! What goes well, in every form that servers give it.

use frontdesk::llm::{ChatModel, Completion, FinishReason, TokenUsage};
use serde_json::json;

use super::{client, listen, question};
use crate::harness::openai::{Reply, Script, ScriptedModel};

#[tokio::test]
async fn a_streamed_answer_comes_word_by_word_with_its_usage_and_its_end_last() {
    let server = ScriptedModel::start().await;
    server.push(Script::Reply(
        Reply::new("We open at nine \u{1F600} every day.").cached(3),
    ));

    let heard = listen(&client(&server, &[])).await;

    assert_eq!(
        (heard.text.as_str(), heard.deltas),
        ("We open at nine \u{1F600} every day.", 7)
    );
    assert_eq!(
        heard.usage,
        Some(TokenUsage {
            prompt: 6,
            completion: 7,
            cached: 3,
            reported: true
        })
    );
    assert_eq!(heard.finish, Some(FinishReason::Stop));
    let asked = &server.requests()[0];
    let expected = json!({
        "model": "scripted", "temperature": 0.5, "max_completion_tokens": 64, "stream": true, "stream_options": { "include_usage": true },
        "messages": [{ "role": "system", "content": "Answer briefly." }, { "role": "user", "content": "When do you open?" }],
    });
    assert_eq!(asked.body, expected);
    assert_eq!(asked.headers["authorization"], "Bearer sk-very-secret");
}

#[tokio::test]
async fn a_whole_answer_has_text_usage_and_the_reason_of_its_end() {
    let server = ScriptedModel::start().await;
    server.push(Script::Reply(Reply::new("At nine.").finish(Some("length"))));
    server.push(Script::Reply(Reply::new("At ten.").without_usage()));
    let model = client(&server, &[("llm.token_limit_field", "max_tokens")]);

    let first = model.complete(question()).await.expect("an answer");
    let second = model.complete(question()).await.expect("an answer");

    let usage = TokenUsage {
        prompt: 6,
        completion: 2,
        cached: 0,
        reported: true,
    };
    assert_eq!(
        first,
        Completion {
            text: "At nine.".to_owned(),
            usage: Some(usage),
            finish: FinishReason::Length
        }
    );
    assert_eq!(
        second,
        Completion {
            text: "At ten.".to_owned(),
            usage: None,
            finish: FinishReason::Stop
        }
    );
    assert_eq!(server.requests()[0].body["max_tokens"], 64);
    assert!(server.requests()[0].body.get("stream").is_none());
}

#[tokio::test]
async fn servers_that_leave_things_out_are_understood() {
    let server = ScriptedModel::start().await;
    let model = client(&server, &[]);
    for script in [
        Script::Reply(Reply::new("At nine.").without_done()),
        Script::Reply(Reply::new("At nine.").finish(None)),
        Script::Reply(Reply::new("At nine.").without_usage()),
        Script::NoStream(Reply::new("At nine.")),
        // Behind a byte order mark, and without the blank line after its last event.
        Script::Raw(vec![
            b"\xEF\xBB\xBFdata: {\"choices\":[{\"delta\":{\"content\":\"At nine.\"}}]}\n\ndata:\n\n".to_vec(),
            b"data: {\"choices\":[{\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":1}}".to_vec(),
        ]),
    ] {
        server.push(script.clone());

        let heard = listen(&model).await;

        assert_eq!(
            (heard.text.as_str(), heard.finish),
            ("At nine.", Some(FinishReason::Stop)),
            "{script:?}: {heard:?}"
        );
        assert_eq!(
            heard.usage.is_some(),
            !format!("{script:?}").contains("usage: false"),
            "{script:?}"
        );
    }
}

#[tokio::test]
async fn an_answer_is_the_same_however_its_bytes_arrive() {
    let server = ScriptedModel::start().await;
    let model = client(&server, &[]);
    let text = ": hello\r\n\r\ndata:{\"choices\":[{\"delta\":{\"role\":\"assistant\"}}]}\r\n\r\ndata: {\"choices\":[{\"delta\":{\"content\":\"Gr\u{fc}n \"}}]}\n\n\
                event: x\ndata: {\"choices\":[{\"delta\":{\"content\":\"\u{20AC}5\"},\"finish_reason\":\"stop\"}]}\n\ndata: {\"choices\":[],\"usage\":{\"prompt_tokens\":4,\"completion_tokens\":2}}\n\ndata: [DONE]\n\n";
    for size in [1, 2, 3, 7, 50, text.len()] {
        server.push(Script::Raw(
            text.as_bytes().chunks(size).map(<[u8]>::to_vec).collect(),
        ));

        let heard = listen(&model).await;

        assert_eq!(
            (heard.text.as_str(), heard.finish),
            ("Gr\u{fc}n \u{20AC}5", Some(FinishReason::Stop)),
            "reads of {size}"
        );
        assert_eq!(heard.usage.map(|usage| usage.prompt), Some(4));
    }
}

#[tokio::test]
async fn usage_after_the_end_is_waited_for_briefly_and_never_makes_an_answer_fail() {
    let server = ScriptedModel::start().await;
    let mut answer =
        b"data: {\"choices\":[{\"delta\":{\"content\":\"Yes.\"},\"finish_reason\":\"stop\"}]}\n\n".to_vec();
    answer.extend(std::iter::repeat_n(b": ping\n\n", 2000).flatten());
    server.push(Script::Raw(answer.chunks(8).map(<[u8]>::to_vec).collect()));

    let heard = listen(&client(&server, &[])).await;

    assert_eq!(
        (heard.text.as_str(), heard.finish, heard.usage),
        ("Yes.", Some(FinishReason::Stop), None)
    );
    assert!(server.wait_cancelled(1).await, "the rest is not waited for");
}

#[tokio::test]
async fn a_tool_call_that_nobody_offered_ends_the_answer_without_text() {
    let server = ScriptedModel::start().await;
    server.push(Script::ToolCall {
        name: "search",
        arguments: "{}",
    });
    server.push(Script::ToolCall {
        name: "search",
        arguments: "{}",
    });
    let model = client(&server, &[]);

    let heard = listen(&model).await;
    let whole = model.complete(question()).await.expect("an answer");

    assert_eq!(
        (heard.text.as_str(), heard.finish),
        ("", Some(FinishReason::ToolCalls))
    );
    assert_eq!((whole.text.as_str(), whole.finish), ("", FinishReason::ToolCalls));
}

#[tokio::test]
async fn connections_are_used_again() {
    let server = ScriptedModel::start().await;
    let model = client(&server, &[]);

    for _ in 0..10 {
        listen(&model).await;
        model.complete(question()).await.expect("an answer");
        server.push(Script::error(400, "x", "y"));
        listen(&model).await;
    }

    assert!(
        server.connections() <= 2,
        "{} connections for 30 calls",
        server.connections()
    );
    assert_eq!(server.cancelled(), 0);
}
