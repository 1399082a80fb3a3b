//! Conversations: kept in order, listed in pages, deleted for good.

use std::time::Duration;

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::harness::app::{Event, TestApp, TestOptions};
use crate::harness::embedders::WatchedEmbedder;
use crate::harness::openai::{Reply, Script, ScriptedModel};
use crate::harness::turns::{read_until, until};

const RETURNS: &str =
    "# Returns\n\nGoods may be returned within 30 days of delivery. Engraved goods cannot be returned.\n";
const QUESTION: &str = "Within how many days may goods be returned?";

fn ids(items: &Value) -> Vec<String> {
    items
        .as_array()
        .expect("items")
        .iter()
        .map(|item| item["id"].as_str().expect("an id").to_owned())
        .collect()
}

fn conversation_of(answer: &Value) -> String {
    answer["conversation_id"].as_str().expect("an id").to_owned()
}

#[tokio::test]
async fn a_conversation_grows_by_a_question_and_an_answer_with_each_turn() {
    let (service, model) = TestApp::with_model().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    desk.publish("returns.md", RETURNS).await;

    model.reply("First answer [1].");
    let id = conversation_of(&desk.ask(QUESTION).await.expect(200).json());
    model.reply("Second answer [1].");
    let second = desk.ask_in(&id, "And engraved goods?").await.expect(200).json();

    assert_eq!(second["conversation_id"], json!(id));
    let thread: Vec<(Value, Value)> = acme
        .messages(&id)
        .await
        .into_iter()
        .map(|message| (message["role"].clone(), message["content"].clone()))
        .collect();
    let expected = [
        ("user", QUESTION),
        ("assistant", "First answer [1]."),
        ("user", "And engraved goods?"),
        ("assistant", "Second answer [1]."),
    ];
    assert_eq!(
        thread,
        expected.map(|(role, content)| (json!(role), json!(content)))
    );
    let listed = &acme.conversations().await[0];
    assert_eq!(
        (
            &listed["message_count"],
            &listed["channel"],
            &listed["chatbot_id"]
        ),
        (&json!(4), &json!("api"), &json!(desk.id))
    );
    assert!(listed["updated_at"].as_str() > listed["created_at"].as_str());
}

#[tokio::test]
async fn conversations_are_listed_newest_first_in_pages_and_by_chatbot() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let other = acme.chatbot("Other").await;
    let mut asked = Vec::new();
    for number in 0..5 {
        let chatbot = if number == 2 { &other } else { &desk };
        asked.push(conversation_of(&chatbot.ask("Hello?").await.expect(200).json()));
    }
    asked.reverse();

    let mut found = Vec::new();
    let mut cursor = String::new();
    let mut pages = 0;
    loop {
        let page = acme
            .get(&format!("/api/conversations?limit=2{cursor}"))
            .await
            .expect(200)
            .json();
        found.extend(ids(&page["items"]));
        pages += 1;
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }

    assert_eq!((found, pages), (asked.clone(), 3));
    let of_other = acme
        .get(&format!("/api/conversations?chatbot_id={}", other.id))
        .await
        .expect(200)
        .json();
    assert_eq!(ids(&of_other["items"]), [asked[2].clone()]);
    acme.get("/api/conversations?colour=red").await.expect(422);
    acme.get("/api/conversations?limit=0").await.expect(422);
    acme.get("/api/conversations?cursor=what").await.expect(422);
}

#[tokio::test]
async fn a_long_conversation_is_read_backwards_in_pages() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let id = conversation_of(&desk.ask("Question 0").await.expect(200).json());
    for number in 1..3 {
        desk.ask_in(&id, &format!("Question {number}")).await.expect(200);
    }
    let whole: Vec<Value> = acme.messages(&id).await;

    let latest = acme
        .get(&format!("/api/conversations/{id}?limit=4"))
        .await
        .expect(200)
        .json();
    let cursor = latest["earlier_cursor"].as_str().expect("there is more");
    let earlier = acme
        .get(&format!("/api/conversations/{id}?limit=4&cursor={cursor}"))
        .await
        .expect(200)
        .json();

    assert_eq!(whole.len(), 6);
    assert_eq!(latest["messages"], json!(whole[2..]));
    assert_eq!(earlier["messages"], json!(whole[..2]));
    assert_eq!(earlier["earlier_cursor"], Value::Null);
}

#[tokio::test]
async fn a_conversation_of_another_chatbot_or_tenant_is_absent_and_stays_as_it_is() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let other = acme.chatbot("Other").await;
    let globex = service.tenant("globex").await;
    let theirs = globex.chatbot("Desk").await;
    let id = conversation_of(&desk.ask("Hello?").await.expect(200).json());

    for refused in [
        other.ask_in(&id, "And?").await,
        theirs.ask_in(&id, "And?").await,
        desk.ask_in(&uuid::Uuid::now_v7().to_string(), "And?").await,
    ] {
        assert_eq!(
            (refused.status, refused.code().as_str()),
            (StatusCode::NOT_FOUND, "not_found"),
            "{}",
            refused.text
        );
    }

    assert_eq!(acme.messages(&id).await.len(), 2);
    assert_eq!(
        (
            acme.conversations().await.len(),
            globex.conversations().await.len()
        ),
        (1, 0)
    );
    globex.get(&format!("/api/conversations/{id}")).await.expect(404);
    globex
        .delete(&format!("/api/conversations/{id}"))
        .await
        .expect(404);
}

#[tokio::test]
async fn a_deleted_conversation_is_gone_and_its_usage_stays_booked() {
    let (service, _model) = TestApp::with_model().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    desk.publish("returns.md", RETURNS).await;
    let id = conversation_of(&desk.ask(QUESTION).await.expect(200).json());
    let usage = acme.usage().await;

    acme.delete(&format!("/api/conversations/{id}")).await.expect(204);

    acme.get(&format!("/api/conversations/{id}")).await.expect(404);
    acme.delete(&format!("/api/conversations/{id}")).await.expect(404);
    desk.ask_in(&id, "And?").await.expect(404);
    assert!(acme.conversations().await.is_empty());
    assert_eq!(acme.usage().await, usage);
    let audit = acme.get("/api/audit?limit=1").await.expect(200).json();
    assert_eq!(
        (&audit["items"][0]["action"], &audit["items"][0]["object"]["id"]),
        (&json!("conversation.delete"), &json!(id))
    );
}

#[tokio::test]
async fn a_conversation_deleted_while_an_answer_streams_stays_deleted_and_the_answer_is_booked() {
    let (service, model) = TestApp::with_model().await;
    let acme = service.tenant("acme").await;
    acme.patch("/api/tenant", json!({ "monthly_token_limit": 100_000 }))
        .await
        .expect(200);
    let desk = acme.chatbot("Desk").await;
    desk.publish("returns.md", RETURNS).await;
    model.push(Script::Reply(
        Reply::new("You have thirty days to return goods [1].").delay(Duration::from_millis(40)),
    ));
    let mut response = desk.open_stream(QUESTION).await;
    let beginning = read_until(&mut response, "event: delta").await;
    let id = conversation_of(
        &Event::parse_all(beginning.split_inclusive("\n\n").next().expect("a first event"))[0].data,
    );

    acme.delete(&format!("/api/conversations/{id}")).await.expect(204);

    let rest = response.text().await.expect("the stream ends");
    assert!(
        rest.contains("event: message.end") || rest.contains("event: error"),
        "{rest}"
    );
    acme.get(&format!("/api/conversations/{id}")).await.expect(404);
    assert!(acme.conversations().await.is_empty());
    until("nothing is held any more", async || {
        acme.budget().await["reserved_tokens"] == 0
    })
    .await;
    assert_eq!(acme.usage().await["completion_tokens"], 8);
}

#[tokio::test]
async fn what_a_turn_belongs_to_is_told_as_absent_when_it_is_deleted_before_the_question_is_saved() {
    let model = ScriptedModel::start().await;
    let embedder = WatchedEmbedder::new();
    let service = TestOptions::default()
        .model(&model)
        .embedder(embedder.clone())
        .start()
        .await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    desk.publish("returns.md", RETURNS).await;
    let id = conversation_of(&desk.ask(QUESTION).await.expect(200).json());

    for (held, (asked, deleted)) in [
        (Some(id.as_str()), format!("/api/conversations/{id}")),
        (None, format!("/api/chatbots/{}", desk.id)),
    ]
    .into_iter()
    .enumerate()
    {
        embedder.hold_questions();
        let ask = async {
            match asked {
                Some(id) => desk.ask_in(id, QUESTION).await,
                None => desk.ask(QUESTION).await,
            }
        };
        let delete = async {
            embedder.wait_held(held + 1).await;
            acme.delete(&deleted).await.expect(204);
            embedder.let_one_go();
        };
        let (answer, ()) = tokio::join!(ask, delete);

        answer.expect(404);
    }
    assert!(acme.conversations().await.is_empty());
}

#[tokio::test]
async fn parallel_turns_in_one_conversation_all_get_their_answer_and_keep_their_order() {
    const TURNS: usize = 8;
    let (service, model) = TestApp::with_model().await;
    model.reply_with(|asked| {
        let number = asked
            .last_message()
            .rsplit("number ")
            .next()
            .unwrap_or_default()
            .to_owned();
        Script::Reply(Reply::new(format!("Reply to {number}")))
    });
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    desk.publish("returns.md", RETURNS).await;
    let id = conversation_of(
        &desk
            .ask("May goods be returned? number first")
            .await
            .expect(200)
            .json(),
    );

    let questions: Vec<String> = (0..TURNS)
        .map(|number| format!("May goods be returned? number {number}"))
        .collect();
    let answers =
        futures::future::join_all(questions.iter().map(|question| desk.ask_in(&id, question))).await;

    for (number, answer) in answers.into_iter().enumerate() {
        assert_eq!(
            answer.expect(200).json()["answer"],
            json!(format!("Reply to {number}"))
        );
    }
    let messages = acme.messages(&id).await;
    assert_eq!(messages.len(), 2 * (TURNS + 1));
    assert_eq!(
        acme.conversations().await[0]["message_count"],
        json!(messages.len())
    );
    let place = |content: String| {
        messages
            .iter()
            .position(|message| message["content"] == json!(content))
            .expect("it is saved")
    };
    for (number, question) in questions.iter().enumerate() {
        assert!(
            place(question.clone()) < place(format!("Reply to {number}")),
            "a question stands before its answer"
        );
    }
}
