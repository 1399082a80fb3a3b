//! The end of the service: answers on their way are cut off in so many words, saved and booked before the database is
//! closed.

use frontdesk::db::Scope;
use serde_json::{Value, json};

use crate::harness::app::{Event, TestApp};
use crate::harness::openai::Script;
use crate::harness::turns::{read_until, until};

const RETURNS: &str = "# Returns\n\nGoods may be returned within 30 days of delivery.\n";
const QUESTION: &str = "Within how many days may goods be returned?";

#[tokio::test]
async fn answers_that_run_when_the_service_ends_are_saved_and_booked_and_their_clients_told() {
    const STREAMS: usize = 24;
    let (service, model) = TestApp::with_model().await;
    let acme = service.tenant("acme").await;
    acme.patch("/api/tenant", json!({ "monthly_token_limit": 1_000_000 }))
        .await
        .expect(200);
    let desk = acme.chatbot("Desk").await;
    desk.publish("returns.md", RETURNS).await;
    model.reply_with(|_| Script::HangAfter("You have 30 days [1] and"));
    let streams = futures::future::join_all((0..STREAMS).map(async |_| {
        let mut response = desk.open_stream(QUESTION).await;
        let beginning = read_until(&mut response, " and").await;
        (beginning, response)
    }))
    .await;
    let (tenant_id, key) = (acme.id, acme.key.clone());

    let service = service.restart(&[]).await;

    for (beginning, response) in streams {
        let text = beginning + &response.text().await.expect("the stream is ended, not broken");
        let events = Event::parse_all(&text);
        let last = events.last().expect("an event");
        assert_eq!(
            (last.name.as_str(), &last.data["code"]),
            ("error", &json!("answer_cut_off"))
        );
    }
    let get = async |path: &str| {
        service
            .send(reqwest::Method::GET, path, Some(&key), None)
            .await
            .expect(200)
            .json()
    };
    let conversations = get("/api/conversations").await;
    let mut completion_tokens = 0;
    for conversation in conversations["items"].as_array().expect("items") {
        let id = conversation["id"].as_str().expect("an id");
        let answer = get(&format!("/api/conversations/{id}")).await["messages"][1].clone();
        assert_eq!(
            (&answer["state"], &answer["content"], &answer["error_code"]),
            (
                &json!("incomplete"),
                &json!("You have 30 days [1] and"),
                &Value::Null
            )
        );
        completion_tokens += answer["usage"]["completion_tokens"].as_i64().expect("a number");
    }
    assert_eq!(conversations["items"].as_array().map(Vec::len), Some(STREAMS));
    let total = get("/api/usage").await["total"].clone();
    assert_eq!(total["completion_tokens"], json!(completion_tokens));
    assert!(completion_tokens >= 6 * STREAMS as i64, "{total}");
    assert_eq!(get("/api/usage/budget").await["tenant"]["reserved_tokens"], 0);
    let mut conn = service
        .app
        .db
        .read(Scope::Tenant(tenant_id))
        .await
        .expect("a connection");
    let held: i64 =
        frontdesk::on!(conn, c => sqlx::query_scalar("select count(*) from reservation").fetch_one(c).await)
            .expect("counted");
    assert_eq!(held, 0);
}

#[tokio::test]
async fn whoever_waits_for_a_whole_answer_is_told_that_the_service_ends() {
    let (service, model) = TestApp::with_model().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    desk.publish("returns.md", RETURNS).await;
    model.push(Script::HangBeforeHeaders);

    let (reply, ()) = tokio::join!(desk.ask(QUESTION), async {
        until("the model is asked", async || model.open() == 1).await;
        service.app.ending.cancel();
    });

    assert_eq!(reply.expect(503).code(), "answer_cut_off");
    service.wait_idle().await;
    assert_eq!(acme.last_answer().await["state"], "incomplete");
}
