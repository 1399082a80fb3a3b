//! A client that leaves: the model is left too, and what there is is saved and paid for.

use std::time::Duration;

use serde_json::json;

use crate::harness::app::{TestApp, TestOptions};
use crate::harness::openai::{Reply, Script, ScriptedModel};
use crate::harness::turns::{read_until, until};

const RETURNS: &str =
    "# Returns\n\nGoods may be returned within 30 days of delivery. Engraved goods cannot be returned.\n";
const QUESTION: &str = "Within how many days may goods be returned?";

#[tokio::test]
async fn a_client_that_leaves_a_stream_ends_the_model_call_and_the_beginning_is_saved_and_booked() {
    let (service, model) = TestApp::with_model().await;
    let acme = service.tenant("acme").await;
    acme.patch("/api/tenant", json!({ "monthly_token_limit": 100_000 }))
        .await
        .expect(200);
    let desk = acme.chatbot("Desk").await;
    desk.publish("returns.md", RETURNS).await;
    model.push(Script::HangAfter("You have 30 days [1] and"));
    let mut response = desk.open_stream(QUESTION).await;
    read_until(&mut response, " and").await;
    assert!(
        acme.budget().await["reserved_tokens"]
            .as_i64()
            .is_some_and(|tokens| tokens > 0),
        "a running turn holds its share"
    );

    drop(response);

    assert!(model.wait_cancelled(1).await, "the model writes for nobody");
    service.wait_idle().await;
    let saved = acme.last_answer().await;
    assert_eq!(
        (&saved["state"], &saved["content"]),
        (&json!("incomplete"), &json!("You have 30 days [1] and"))
    );
    assert_eq!(
        saved["citations"][0]["quote"],
        "Goods may be returned within 30 days of delivery."
    );
    let budget = acme.budget().await;
    assert_eq!(budget["reserved_tokens"], 0);
    let usage = &saved["usage"];
    let spent = usage["prompt_tokens"].as_i64().expect("a number")
        + usage["completion_tokens"].as_i64().expect("a number");
    assert!(
        usage["completion_tokens"]
            .as_i64()
            .is_some_and(|tokens| tokens >= 6),
        "{usage}"
    );
    assert_eq!(budget["used_tokens"], json!(spent));
    let lines = acme.ledger().await;
    let line = lines
        .iter()
        .find(|line| line["kind"] == "chat")
        .expect("the call is booked");
    assert_eq!(
        (line["reported"].as_str(), line["completion_tokens"].clone()),
        ("false", usage["completion_tokens"].to_string())
    );
    assert_eq!(json!(line["message_id"]), saved["id"]);
}

#[tokio::test]
async fn a_client_that_leaves_before_the_first_word_still_owes_the_prompt() {
    let (service, model) = TestApp::with_model().await;
    let acme = service.tenant("acme").await;
    acme.patch("/api/tenant", json!({ "monthly_token_limit": 100_000 }))
        .await
        .expect(200);
    let desk = acme.chatbot("Desk").await;
    desk.publish("returns.md", RETURNS).await;
    model.push(Script::HangBeforeHeaders);
    let mut response = desk.open_stream(QUESTION).await;
    read_until(&mut response, "message.start").await;
    until("the model is asked", async || model.open() == 1).await;

    drop(response);

    assert!(model.wait_cancelled(1).await);
    service.wait_idle().await;
    let saved = acme.last_answer().await;
    assert_eq!(
        (&saved["state"], &saved["content"]),
        (&json!("incomplete"), &json!(""))
    );
    assert!(
        saved["usage"]["prompt_tokens"]
            .as_i64()
            .is_some_and(|tokens| tokens > 50),
        "{saved}"
    );
    assert_eq!(saved["usage"]["completion_tokens"], 0);
    let budget = acme.budget().await;
    assert_eq!(
        (&budget["reserved_tokens"], &budget["used_tokens"]),
        (&json!(0), &saved["usage"]["prompt_tokens"])
    );
}

#[tokio::test]
async fn a_client_that_leaves_while_it_waits_for_a_whole_answer_ends_the_call_too() {
    let (service, model) = TestApp::with_model().await;
    let acme = service.tenant("acme").await;
    acme.patch("/api/tenant", json!({ "monthly_token_limit": 100_000 }))
        .await
        .expect(200);
    let desk = acme.chatbot("Desk").await;
    desk.publish("returns.md", RETURNS).await;
    model.push(Script::HangBeforeHeaders);
    {
        let asking = desk.ask(QUESTION);
        tokio::pin!(asking);
        let asked = until("the model is asked", async || model.open() == 1);
        tokio::select! {
            reply = &mut asking => panic!("the model says nothing: {reply:?}"),
            () = asked => {}
        }
        // Leaving the block drops the request, which closes its connection.
    }

    assert!(model.wait_cancelled(1).await);
    service.wait_idle().await;
    let saved = acme.last_answer().await;
    assert_eq!(
        (&saved["state"], &saved["content"]),
        (&json!("incomplete"), &json!(""))
    );
    let budget = acme.budget().await;
    assert_eq!(budget["reserved_tokens"], 0);
    assert_eq!(budget["used_tokens"], saved["usage"]["prompt_tokens"]);
}

#[tokio::test]
async fn a_conversation_goes_on_after_a_client_left() {
    let (service, model) = TestApp::with_model().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    desk.publish("returns.md", RETURNS).await;
    model.push(Script::HangAfter("You have 30 days"));
    let mut response = desk.open_stream(QUESTION).await;
    read_until(&mut response, "days").await;
    drop(response);
    service.wait_idle().await;
    let id = acme.conversations().await[0]["id"]
        .as_str()
        .expect("an id")
        .to_owned();

    desk.ask_in(&id, "And engraved goods, may they be returned?")
        .await
        .expect(200);

    let thread = &model.chat_requests()[1].body["messages"];
    assert_eq!(
        (&thread[1]["content"], &thread[2]["content"]),
        (&json!(QUESTION), &json!("You have 30 days")),
        "what the visitor saw was said"
    );
    assert_eq!(acme.messages(&id).await.len(), 4);
}

#[tokio::test]
async fn an_answer_that_never_began_is_no_part_of_later_prompts() {
    let (service, model) = TestApp::with_model().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    desk.publish("returns.md", RETURNS).await;
    model.push(Script::HangBeforeHeaders);
    let mut response = desk.open_stream(QUESTION).await;
    read_until(&mut response, "message.start").await;
    until("the model is asked", async || model.open() == 1).await;
    drop(response);
    service.wait_idle().await;
    let id = acme.conversations().await[0]["id"]
        .as_str()
        .expect("an id")
        .to_owned();

    model.reply("Thirty days [1].");
    desk.ask_in(&id, QUESTION).await.expect(200);
    desk.ask_in(&id, "And engraved goods, may they be returned?")
        .await
        .expect(200);

    let requests = model.chat_requests();
    let said = |index: usize| {
        requests[index].body["messages"].as_array().expect("messages")[1..]
            .iter()
            .map(|message| message["content"].clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(said(1)[..1], [json!(QUESTION)], "an empty message is not sent");
    assert_eq!((said(1).len(), said(2).len()), (2, 4));
    assert_eq!(
        said(2)[2],
        "Thirty days.",
        "markers name passages of their own turn"
    );
}

#[tokio::test]
async fn the_servers_own_figures_count_when_it_gives_them_and_ours_when_not() {
    let (service, model) = TestApp::with_model().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    desk.publish("returns.md", RETURNS).await;

    for streamed in [true, false] {
        for (reply, reported, completion) in [
            (Reply::new("Within thirty days, unopened.").cached(2), "true", 4),
            (
                Reply::new("Within thirty days, unopened.").without_usage(),
                "false",
                7,
            ),
        ] {
            let before = acme.ledger().await.len();
            model.push(Script::Reply(reply));
            if streamed {
                desk.stream(QUESTION).await;
            } else {
                desk.ask(QUESTION).await.expect(200);
            }
            let lines = acme.ledger().await.split_off(before);
            let line = lines
                .iter()
                .find(|line| line["kind"] == "chat")
                .expect("the call is booked");
            assert_eq!(line["reported"], reported);
            let booked: i64 = line["completion_tokens"].parse().expect("a number");
            // The scripted server counts words, we count the tokens of a tokenizer: never fewer.
            assert!(
                if reported == "true" {
                    booked == completion
                } else {
                    (4..=completion).contains(&booked)
                },
                "{line:?}"
            );
            assert_eq!(line["cached_tokens"], if reported == "true" { "2" } else { "0" });
            assert!(
                line["prompt_tokens"]
                    .parse::<i64>()
                    .is_ok_and(|tokens| tokens > 50),
                "{line:?}"
            );
        }
    }
}

#[tokio::test]
async fn many_clients_that_leave_at_once_leave_nothing_running_or_held() {
    const CLIENTS: usize = 20;
    let model = ScriptedModel::start().await;
    let service = TestOptions::default()
        .model(&model)
        .set("chat.max_streams", CLIENTS)
        .start()
        .await;
    let acme = service.tenant("acme").await;
    acme.patch("/api/tenant", json!({ "monthly_token_limit": 1_000_000 }))
        .await
        .expect(200);
    let desk = acme.chatbot("Desk").await;
    desk.publish("returns.md", RETURNS).await;
    model.reply_with(|_| Script::Reply(Reply::new("word ".repeat(400)).delay(Duration::from_millis(20))));
    let responses = futures::future::join_all((0..CLIENTS).map(async |_| {
        let mut response = desk.open_stream(QUESTION).await;
        read_until(&mut response, "event: delta").await;
        response
    }))
    .await;

    drop(responses);

    assert!(
        model.wait_cancelled(CLIENTS).await,
        "{} calls were closed",
        model.cancelled()
    );
    service.wait_idle().await;
    assert_eq!(model.open(), 0);
    assert_eq!(acme.budget().await["reserved_tokens"], 0);
    let conversations = acme.conversations().await;
    assert_eq!(conversations.len(), CLIENTS);
    assert!(
        conversations
            .iter()
            .all(|conversation| conversation["message_count"] == 2),
        "{conversations:?}"
    );
    assert_eq!(
        acme.ledger()
            .await
            .iter()
            .filter(|line| line["kind"] == "chat")
            .count(),
        CLIENTS
    );
}
