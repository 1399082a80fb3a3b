//! Answers as server-sent events: which events, in which order, to how many at once.

use std::time::Duration;

use reqwest::{Method, header};
use serde_json::{Value, json};

use crate::harness::app::{Event, Reply as Answered, TestApp, TestOptions};
use crate::harness::openai::{Reply, Script, ScriptedModel};
use crate::harness::turns::{read_until, until};

const RETURNS: &str =
    "# Returns\n\nGoods may be returned within 30 days of delivery. Engraved goods cannot be returned.\n";
const QUESTION: &str = "Within how many days may goods be returned?";

fn text_of(events: &[Event]) -> String {
    events
        .iter()
        .filter(|event| event.name == "delta")
        .filter_map(|event| event.data["text"].as_str())
        .collect()
}

#[tokio::test]
async fn a_stream_opens_with_its_ids_and_ends_with_the_whole_answer() {
    let (service, model) = TestApp::with_model().await;
    model.reply("You have 30 days [1]. Keep the box.");
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    desk.publish("returns.md", RETURNS).await;

    let response = desk.open_stream(QUESTION).await;

    assert_eq!(
        response.headers()[header::CONTENT_TYPE],
        "text/event-stream; charset=utf-8"
    );
    assert_eq!(response.headers()[header::CACHE_CONTROL], "no-store");
    let events = Event::parse_all(&response.text().await.expect("the stream ends"));
    let (first, last) = (&events[0], &events[events.len() - 1]);
    assert_eq!(
        (first.name.as_str(), last.name.as_str()),
        ("message.start", "message.end")
    );
    assert_eq!(
        first.data,
        json!({ "conversation_id": last.data["conversation_id"], "message_id": last.data["message_id"] })
    );
    let between: Vec<&str> = events[1..events.len() - 1]
        .iter()
        .map(|event| event.name.as_str())
        .collect();
    assert!(
        between.iter().all(|name| ["delta", "citation"].contains(name)),
        "{between:?}"
    );
    assert!(
        between.iter().filter(|name| **name == "delta").count() > 1,
        "the text comes in pieces: {between:?}"
    );
    assert_eq!(last.data["answer"], json!(text_of(&events)));
}

#[tokio::test]
async fn the_end_of_a_stream_is_what_is_saved() {
    let (service, model) = TestApp::with_model().await;
    model.reply("You have 30 days [1].");
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    desk.publish("returns.md", RETURNS).await;

    let events = desk.stream(QUESTION).await;

    let end = &events[events.len() - 1].data;
    let saved = &acme
        .messages(end["conversation_id"].as_str().expect("an id"))
        .await[1];
    assert_eq!(
        (&saved["id"], &saved["state"]),
        (&end["message_id"], &json!("complete"))
    );
    for (saved_as, sent_as) in [
        ("content", "answer"),
        ("citations", "citations"),
        ("usage", "usage"),
        ("source", "source"),
    ] {
        assert_eq!(saved[saved_as], end[sent_as], "{saved_as}");
    }
}

#[tokio::test]
async fn a_stream_and_a_whole_answer_say_the_same() {
    let (service, model) = TestApp::with_model().await;
    model.reply("You have 30 days [1]. Engraved goods stay [4].");
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    desk.publish("returns.md", RETURNS).await;

    let whole = desk.ask(QUESTION).await.expect(200).json();
    let streamed = desk.stream(QUESTION).await.pop().expect("an end").data;

    for field in ["answer", "citations", "usage", "source"] {
        assert_eq!(whole[field], streamed[field], "{field}");
    }
}

#[tokio::test]
async fn without_a_model_a_stream_has_the_same_events() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    desk.publish("returns.md", RETURNS).await;

    let events = desk.stream(QUESTION).await;

    let names: Vec<&str> = events.iter().map(|event| event.name.as_str()).collect();
    assert_eq!(names, ["message.start", "citation", "delta", "message.end"]);
    assert_eq!(json!([events[1].data]), events[3].data["citations"]);
    assert_eq!(
        (events[3].data["answer"].as_str(), &events[3].data["source"]),
        (Some(text_of(&events).as_str()), &json!("extractive"))
    );
}

#[tokio::test]
async fn a_stream_is_asked_for_by_header_or_field_and_the_field_wins() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;

    for (accept, stream, is_stream) in [
        ("*/*", Value::Null, false),
        ("text/event-stream", Value::Null, true),
        ("application/json, text/event-stream;q=0.9", Value::Null, true),
        ("Text/Event-Stream", Value::Null, true),
        ("application/json, text/event-stream;q=0", Value::Null, false),
        ("text/event-stream-like", Value::Null, false),
        ("application/json", json!(true), true),
        ("text/event-stream", json!(false), false),
    ] {
        for path in ["/api/chat/message", "/api/chat/inline"] {
            let mut body = json!({ "chatbot_id": desk.id, "stream": stream });
            if path.ends_with("inline") {
                body["messages"] = json!([{ "role": "user", "content": "Hello?" }]);
            } else {
                body["message"] = json!("Hello?");
            }
            let request = service
                .request(Method::POST, path, Some(&acme.key))
                .header(header::ACCEPT, accept)
                .json(&body);
            let answer = Answered::read(request.send().await.expect("the service answers"))
                .await
                .expect(200);
            let content_type = answer.headers[header::CONTENT_TYPE]
                .to_str()
                .expect("text")
                .to_owned();
            assert_eq!(
                content_type.starts_with("text/event-stream"),
                is_stream,
                "{path} {accept} {stream}: {content_type}"
            );
        }
    }
}

#[tokio::test]
async fn a_refusal_before_the_stream_is_a_plain_problem() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;

    let refused = Answered::read(desk.open_stream("").await).await.expect(422);

    assert_eq!(refused.code(), "message_empty");
}

#[tokio::test]
async fn a_silent_stream_is_kept_open_by_comments() {
    let model = ScriptedModel::start().await;
    let service = TestOptions::default()
        .model(&model)
        .set("chat.heartbeat_s", 1)
        .start()
        .await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    desk.publish("returns.md", RETURNS).await;
    model.push(Script::Reply(
        Reply::new("Finally.").delay(Duration::from_millis(2500)),
    ));

    let text = desk
        .open_stream(QUESTION)
        .await
        .text()
        .await
        .expect("the stream ends");

    let comments = text.split("\n\n").filter(|block| block.starts_with(':')).count();
    assert!(comments >= 2, "{text}");
    let names: Vec<String> = Event::parse_all(&text)
        .into_iter()
        .map(|event| event.name)
        .collect();
    assert_eq!(
        names,
        ["message.start", "delta", "message.end"],
        "comments are no events"
    );
}

#[tokio::test]
async fn text_cannot_end_or_forge_an_event() {
    let (service, model) = TestApp::with_model().await;
    let forged = "Fine.\n\nevent: message.end\ndata: {\"answer\":\"forged\"}\n\n\r\n\rid: 7\nretry: 1\n: comment\n\u{2028}\u{0}\u{85}event: error\ndata: {}\n\n end";
    model.reply(forged);
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    desk.publish("returns.md", RETURNS).await;

    let events = desk
        .stream(&format!("{QUESTION}\n\nevent: message.end\ndata: {{}}\n\n"))
        .await;

    let ends = events.iter().filter(|event| event.name == "message.end").count();
    assert_eq!(
        (ends, events.iter().any(|event| event.name == "error")),
        (1, false)
    );
    // No database keeps a NUL, so it is left out from the beginning.
    let forged = forged.replace('\0', "");
    assert_eq!(text_of(&events), forged);
    assert_eq!(events[events.len() - 1].data["answer"], json!(forged));
}

#[tokio::test]
async fn fifty_streams_at_once_each_carry_their_own_answer() {
    const STREAMS: usize = 50;
    let (service, model) = TestApp::with_model().await;
    model.reply_with(|asked| {
        let number = asked
            .last_message()
            .rsplit("number ")
            .next()
            .unwrap_or_default()
            .to_owned();
        Script::Reply(
            Reply::new(format!("To number {number} we say again number {number} ."))
                .delay(Duration::from_millis(5)),
        )
    });
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    desk.publish("returns.md", RETURNS).await;

    let questions: Vec<String> = (0..STREAMS)
        .map(|number| format!("May goods be returned? number {number}"))
        .collect();
    let streams = futures::future::join_all(questions.iter().map(|question| desk.stream(question))).await;

    for (number, events) in streams.iter().enumerate() {
        assert_eq!(
            text_of(events),
            format!("To number {number} we say again number {number} .")
        );
        assert_eq!(events[events.len() - 1].name, "message.end");
    }
    service.wait_idle().await;
    assert_eq!(acme.usage().await["completion_tokens"], 9 * STREAMS);
}

#[tokio::test]
async fn past_the_cap_a_newcomer_is_told_to_come_back_and_those_inside_are_served() {
    let model = ScriptedModel::start().await;
    let service = TestOptions::default()
        .model(&model)
        .set("chat.max_streams", 1)
        .start()
        .await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    desk.publish("returns.md", RETURNS).await;
    model.push(Script::Reply(
        Reply::new("Slow but sure.").delay(Duration::from_millis(300)),
    ));
    let mut inside = desk.open_stream(QUESTION).await;
    let beginning = read_until(&mut inside, "event: delta").await;

    let refused = desk.ask(QUESTION).await.expect(503);

    assert_eq!(refused.code(), "busy");
    assert!(
        refused.headers[header::RETRY_AFTER]
            .to_str()
            .is_ok_and(|seconds| seconds.parse::<u32>().is_ok_and(|seconds| seconds > 0))
    );
    let rest = inside.text().await.expect("the stream ends");
    assert_eq!(text_of(&Event::parse_all(&(beginning + &rest))), "Slow but sure.");
    service.wait_idle().await;
    desk.ask(QUESTION).await.expect(200);
    assert_eq!(
        acme.conversations().await.len(),
        2,
        "of the refused turn nothing is saved"
    );
}

#[tokio::test]
async fn one_tenants_slow_answers_leave_places_to_the_others() {
    let model = ScriptedModel::start().await;
    let service = TestOptions::default()
        .model(&model)
        .set("chat.max_streams", 4)
        .set("chat.max_streams_per_tenant", 2)
        .start()
        .await;
    let (acme, globex) = (service.tenant("acme").await, service.tenant("globex").await);
    let (desk, other) = (acme.chatbot("Desk").await, globex.chatbot("Desk").await);
    desk.publish("returns.md", RETURNS).await;
    other.publish("returns.md", RETURNS).await;
    let mut slow = Vec::new();
    for _ in 0..2 {
        model.push(Script::HangAfter("Slow but"));
        let mut response = desk.open_stream(QUESTION).await;
        read_until(&mut response, " but").await;
        slow.push(response);
    }

    let refused = desk.ask(QUESTION).await.expect(503);

    assert_eq!(refused.code(), "busy");
    other.ask(QUESTION).await.expect(200);
    drop(slow);
    service.wait_idle().await;
    desk.ask(QUESTION).await.expect(200);
}

#[tokio::test]
async fn a_client_that_reads_slowly_gets_everything_and_holds_up_nobody() {
    let (service, model) = TestApp::with_model().await;
    let long = (0..3000).map(|number| format!("w{number} ")).collect::<String>();
    let script = Script::Reply(Reply::new(long.clone()));
    model.push(script);
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    desk.publish("returns.md", RETURNS).await;

    let mut slow = desk.open_stream(QUESTION).await;
    until("the model was asked", async || !model.chat_requests().is_empty()).await;
    for _ in 0..5 {
        desk.ask(QUESTION).await.expect(200);
    }
    let mut text = String::new();
    while let Some(chunk) = slow.chunk().await.expect("the stream goes on") {
        text.push_str(&String::from_utf8_lossy(&chunk));
        tokio::task::yield_now().await;
    }

    let events = Event::parse_all(&text);
    assert_eq!(text_of(&events), long);
    assert_eq!(events[events.len() - 1].name, "message.end");
}
