//! Answers on their way: seen as such from the question on, and ended by the upkeep when their turn died.

use chrono::TimeDelta;
use frontdesk::jobs::schedule;
use serde_json::{Value, json};

use crate::harness::app::{Tenant, TestApp};
use crate::harness::openai::{Reply, Script};
use crate::harness::turns::{read_until, until};

const RETURNS: &str = "# Returns\n\nGoods may be returned within 30 days of delivery.\n";
const QUESTION: &str = "Within how many days may goods be returned?";

async fn upkeep(service: &TestApp) {
    schedule::fire_due(&service.app)
        .await
        .expect("the schedule is due");
    service.drain_jobs().await;
}

async fn newest_message(tenant: &Tenant<'_>) -> Value {
    let conversation = tenant.conversations().await.swap_remove(0);
    let id = conversation["id"].as_str().expect("an id");
    tenant.messages(id).await.pop().expect("a message")
}

#[tokio::test]
async fn while_an_answer_streams_its_conversation_shows_it_as_being_written() {
    let (service, model) = TestApp::with_model().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    desk.publish("returns.md", RETURNS).await;
    model.push(Script::HangAfter("You have 30 days [1] and"));

    let mut response = desk.open_stream(QUESTION).await;
    read_until(&mut response, " and").await;

    let listed = &acme.conversations().await[0];
    assert_eq!(listed["message_count"], 2);
    let id = listed["id"].as_str().expect("an id");
    let messages = acme.messages(id).await;
    let seen: Vec<(&Value, &Value, &Value)> = messages
        .iter()
        .map(|message| (&message["role"], &message["content"], &message["state"]))
        .collect();
    assert_eq!(
        seen,
        [
            (&json!("user"), &json!(QUESTION), &json!("complete")),
            (&json!("assistant"), &json!(""), &json!("writing")),
        ]
    );

    // Another question meanwhile: what is not said yet is no part of its history.
    model.push(Script::Reply(Reply::new("Thirty [1].")));
    desk.ask_in(id, QUESTION).await.expect(200);
    let asked = model.chat_requests();
    let roles: Vec<&Value> = asked[1].body["messages"]
        .as_array()
        .expect("messages")
        .iter()
        .map(|message| &message["role"])
        .collect();
    assert_eq!(roles, ["system", "user", "user"]);
    assert_eq!(acme.conversations().await[0]["message_count"], 4);
}

#[tokio::test]
async fn an_answer_in_writing_for_longer_than_any_turn_is_marked_as_interrupted() {
    let (service, model) = TestApp::with_model().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    desk.publish("returns.md", RETURNS).await;
    upkeep(&service).await;
    model.push(Script::HangAfter("You have 30 days [1] and"));
    let mut response = desk.open_stream(QUESTION).await;
    read_until(&mut response, " and").await;
    let longest = i64::try_from(service.app.config.llm.total_timeout_s).expect("a small number") + 60;

    // Not before its time.
    service.clock.advance(TimeDelta::seconds(longest - 1));
    frontdesk::chat::operator::fail_interrupted(&service.app)
        .await
        .expect("the upkeep works");
    assert_eq!(newest_message(&acme).await["state"], "writing");

    service.clock.advance(TimeDelta::minutes(5));
    upkeep(&service).await;

    let answer = newest_message(&acme).await;
    assert_eq!(
        (&answer["state"], &answer["error_code"]),
        (&json!("failed"), &json!("interrupted"))
    );

    // Its call has begun, so it is booked, as it was reserved.
    service.clock.advance(TimeDelta::minutes(10));
    upkeep(&service).await;
    let booked = acme.get("/api/usage").await.expect(200).json()["total"].clone();
    assert_eq!(booked["estimated_calls"], 1, "{booked}");
    assert!(booked["prompt_tokens"].as_i64() > Some(0), "{booked}");
    assert!(booked["completion_tokens"].as_i64() > Some(0), "{booked}");

    // The turn lives after all: what it says in the end stands, and is not booked again.
    drop(response);
    until("the turn has ended", async || {
        acme.last_answer().await["state"] == "incomplete"
    })
    .await;
    let answer = acme.last_answer().await;
    assert_eq!(
        (&answer["content"], &answer["error_code"]),
        (&json!("You have 30 days [1] and"), &Value::Null)
    );
    let total = acme.get("/api/usage").await.expect(200).json()["total"].clone();
    assert_eq!(total, booked);
}

#[tokio::test]
async fn the_error_of_a_stream_says_when_to_come_back() {
    let (service, model) = TestApp::with_model().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    desk.publish("returns.md", RETURNS).await;
    model.reply_with(|_| Script::rate_limited("3600"));

    let events = desk.stream(QUESTION).await;

    let last = events.last().expect("an event");
    assert_eq!(
        (last.name.as_str(), &last.data["retry_after"]),
        ("error", &json!(3600))
    );
}
