//! What an answer holds: its fixed fields, where it comes from, and what the model was given to write it.

use serde_json::{Value, json};

use crate::harness::app::{TestApp, TestOptions};
use crate::harness::openai::ScriptedModel;
use crate::harness::turns::redacted;

const RETURNS: &str =
    "# Returns\n\nGoods may be returned within 30 days of delivery. Engraved goods cannot be returned.\n";
const QUESTION: &str = "Within how many days may goods be returned?";

#[tokio::test]
async fn a_models_answer_has_exactly_the_fixed_fields() {
    let (service, model) = TestApp::with_model().await;
    model.reply("You have 30 days [1].");
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    desk.publish("returns.md", RETURNS).await;

    let answer = desk.ask(QUESTION).await.expect(200).json();

    assert!(
        answer["citations"][0]["score"]
            .as_f64()
            .is_some_and(|score| score > 0.0 && score <= 1.0),
        "{answer}"
    );
    assert!(
        answer["usage"]["prompt_tokens"]
            .as_i64()
            .is_some_and(|tokens| tokens > 0),
        "{answer}"
    );
    insta::assert_json_snapshot!(redacted(answer));
}

#[tokio::test]
async fn a_saved_conversation_has_exactly_the_fixed_fields() {
    let (service, model) = TestApp::with_model().await;
    model.reply("You have 30 days [1].");
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    desk.publish("returns.md", RETURNS).await;
    let answer = desk.ask(QUESTION).await.expect(200).json();

    let conversation = acme
        .get(&format!(
            "/api/conversations/{}",
            answer["conversation_id"].as_str().expect("an id")
        ))
        .await
        .expect(200)
        .json();

    insta::assert_json_snapshot!(redacted(conversation));
}

#[tokio::test]
async fn without_a_model_the_answer_is_an_extract_and_says_so() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    desk.publish("returns.md", RETURNS).await;

    let answer = desk.ask(QUESTION).await.expect(200).json();

    assert!(
        answer["answer"]
            .as_str()
            .is_some_and(|text| text.starts_with("From the documents:")),
        "{answer}"
    );
    insta::assert_json_snapshot!(redacted(answer));
    let saved = acme.last_answer().await;
    assert_eq!(
        (&saved["source"], &saved["model"]),
        (&json!("extractive"), &Value::Null)
    );
}

#[tokio::test]
async fn without_a_relevant_passage_the_owners_text_is_given_and_no_model_is_asked() {
    let (service, model) = TestApp::with_model().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    desk.publish("returns.md", RETURNS).await;
    acme.patch(
        &format!("/api/chatbots/{}", desk.id),
        json!({ "no_answer_text": "Please call 555-0100." }),
    )
    .await
    .expect(200);

    let answer = desk
        .ask("Who invented quantum chromodynamics?")
        .await
        .expect(200)
        .json();
    let events = desk.stream("Who invented quantum chromodynamics?").await;

    insta::assert_json_snapshot!(redacted(answer));
    let names: Vec<&str> = events.iter().map(|event| event.name.as_str()).collect();
    assert_eq!(names, ["message.start", "delta", "message.end"]);
    assert_eq!(events[2].data["source"], "no_answer");
    assert!(
        model.chat_requests().is_empty(),
        "nothing supports an answer, so nobody is paid for one"
    );
}

#[tokio::test]
async fn a_chatbots_own_model_temperature_and_prompt_reach_the_model() {
    let (service, model) = TestApp::with_model().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    desk.publish("returns.md", RETURNS).await;

    desk.ask(QUESTION).await.expect(200);
    let change = json!({ "model": "special-1", "temperature": 0.25, "prompt": "Always greet with Ahoy." });
    acme.patch(&format!("/api/chatbots/{}", desk.id), change)
        .await
        .expect(200);
    desk.ask(QUESTION).await.expect(200);

    let requests = model.chat_requests();
    assert_eq!(
        (&requests[0].body["model"], requests[0].body.get("temperature")),
        (&json!("scripted"), None)
    );
    assert_eq!(
        (&requests[1].body["model"], &requests[1].body["temperature"]),
        (&json!("special-1"), &json!(0.25))
    );
    let system = &requests[1].body["messages"][0];
    assert_eq!(system["role"], "system");
    assert!(
        system["content"]
            .as_str()
            .is_some_and(|text| text.contains("Always greet with Ahoy.") && text.contains("Desk")),
        "{system}"
    );
    assert!(
        requests[1]
            .last_message()
            .contains("Goods may be returned within 30 days"),
        "{:?}",
        requests[1].body
    );
    assert!(
        requests[1]
            .last_message()
            .ends_with(&format!("Question: {QUESTION}"))
    );
    assert_eq!(acme.last_answer().await["model"], "special-1");
}

#[tokio::test]
async fn the_answers_limit_is_sent_under_the_configured_name() {
    for field in ["max_tokens", "max_completion_tokens"] {
        let model = ScriptedModel::start().await;
        let service = TestOptions::default()
            .model(&model)
            .set("llm.token_limit_field", field)
            .set("llm.max_answer_tokens", 99)
            .start()
            .await;
        let acme = service.tenant("acme").await;
        let desk = acme.chatbot("Desk").await;
        desk.publish("returns.md", RETURNS).await;

        desk.ask(QUESTION).await.expect(200);

        let body = &model.chat_requests()[0].body;
        let sent: Vec<&str> = ["max_tokens", "max_completion_tokens"]
            .into_iter()
            .filter(|name| body[name] == 99)
            .collect();
        assert_eq!(sent, [field], "{body}");
    }
}

#[tokio::test]
async fn earlier_messages_go_into_the_prompt_up_to_their_limit_and_the_latest_first() {
    let model = ScriptedModel::start().await;
    let service = TestOptions::default()
        .model(&model)
        .set("chat.history_tokens", 60)
        .start()
        .await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    desk.publish("returns.md", RETURNS).await;
    let long = [QUESTION; 8].join(" ");
    let first = desk.ask(&long).await.expect(200).json();
    let conversation_id = first["conversation_id"].as_str().expect("an id").to_owned();

    desk.ask_in(&conversation_id, "And engraved goods, may they be returned?")
        .await
        .expect(200);
    desk.ask_in(&conversation_id, QUESTION).await.expect(200);

    let requests = model.chat_requests();
    let thread: Vec<(&str, &str)> = requests[2].body["messages"]
        .as_array()
        .expect("messages")
        .iter()
        .map(|message| {
            (
                message["role"].as_str().unwrap_or_default(),
                message["content"].as_str().unwrap_or_default(),
            )
        })
        .collect();
    assert_eq!(thread.len(), 4, "{thread:?}");
    assert_eq!(
        thread[1..3],
        [
            ("user", "And engraved goods, may they be returned?"),
            ("assistant", "Scripted answer.")
        ]
    );
    assert!(
        !requests[2].body.to_string().contains(&long),
        "what is past the limit is left out"
    );
    assert_eq!(thread[3].0, "user");
}

#[tokio::test]
async fn a_stateless_call_sees_its_own_thread_and_stores_nothing_but_usage() {
    let (service, model) = TestApp::with_model().await;
    model.reply("You have 30 days [1].");
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    desk.publish("returns.md", RETURNS).await;
    let before = acme.usage().await["calls"].as_i64().expect("a number");

    let thread = json!([
        { "role": "user", "content": "Hello!" },
        { "role": "assistant", "content": "Hello, how can I help?" },
        { "role": "user", "content": QUESTION },
    ]);
    let answer = acme
        .post(
            "/api/chat/inline",
            json!({ "chatbot_id": desk.id, "messages": thread }),
        )
        .await
        .expect(200)
        .json();

    assert_eq!(
        (&answer["conversation_id"], &answer["message_id"]),
        (&Value::Null, &Value::Null)
    );
    assert_eq!(
        (&answer["answer"], &answer["source"]),
        (&json!("You have 30 days [1]."), &json!("model"))
    );
    let asked = model.chat_requests()[0].body["messages"].clone();
    assert_eq!((&asked[1], &asked[2]), (&thread[0], &thread[1]));
    assert!(acme.conversations().await.is_empty());
    let lines = acme.ledger().await;
    assert_eq!(
        lines.len() as i64,
        before + 2,
        "the question's embedding and the answer"
    );
    assert!(
        lines
            .iter()
            .all(|line| line["conversation_id"].is_empty() && line["message_id"].is_empty()),
        "{lines:?}"
    );
}

#[tokio::test]
async fn a_thread_without_a_question_at_its_end_is_refused() {
    let (service, model) = TestApp::with_model().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let message = |role: &str| json!({ "role": role, "content": "Hello" });
    let too_many: Vec<Value> = (0..101).map(|_| message("user")).collect();

    for (messages, code) in [
        (json!([]), "no_question"),
        (json!([message("user"), message("assistant")]), "no_question"),
        (json!(too_many), "too_many_messages"),
    ] {
        let refused = acme
            .post(
                "/api/chat/inline",
                json!({ "chatbot_id": desk.id, "messages": messages }),
            )
            .await
            .expect(422);
        assert_eq!(refused.code(), code);
    }
    assert!(model.chat_requests().is_empty());
}

#[tokio::test]
async fn an_empty_message_and_one_past_the_limit_are_refused_and_nothing_is_saved() {
    let (service, model) = TestApp::with_model().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    desk.publish("returns.md", RETURNS).await;

    for (message, code) in [
        (String::new(), "message_empty"),
        (" \n\t ".to_owned(), "message_empty"),
        ("ä".repeat(8001), "message_too_long"),
    ] {
        let refused = desk.ask(&message).await.expect(422);
        assert_eq!(
            (refused.code().as_str(), &refused.json()["field"]),
            (code, &json!("message"))
        );
    }
    assert!(acme.conversations().await.is_empty());
    assert!(model.chat_requests().is_empty());
    // The limit counts characters, not bytes.
    desk.ask(&"ä".repeat(8000)).await.expect(200);
}

#[tokio::test]
async fn any_text_within_the_limit_gets_an_answer() {
    let (service, _model) = TestApp::with_model().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    desk.publish("returns.md", RETURNS).await;

    for message in [
        "?",
        "\u{1F600}",
        "\u{202E}abc",
        "' or 1=1 --",
        "\"returned\" AND goods* NEAR(",
        "[1] [99]",
        "{\"role\":\"system\"}",
        "goods\r\n\r\nreturned",
        "返品 商品",
    ] {
        let answer = desk.ask(message).await.expect(200).json();
        assert!(
            answer["answer"].as_str().is_some_and(|text| !text.is_empty()),
            "{message:?}: {answer}"
        );
    }
}
