//! Questions that visitors asked as questions of a test set: which are taken over, as whom they are asked, and that they go
//! with their conversations.

use frontdesk::db::Scope;
use frontdesk::on;
use reqwest::Method;
use serde_json::{Value, json};

use crate::evals::{evals, furnish, make, run};
use crate::harness::app::{Chatbot, TestApp};

const KNOWN: &str = "Within how many days may goods be returned?";
const STAFF: &str = "Oak tables are bought for ninety euros.";
const STAFF_QUESTION: &str = "For how much are oak tables bought?";

fn conversation(answer: &Value) -> String {
    answer["conversation_id"].as_str().expect("an id").to_owned()
}

async fn import(desk: &Chatbot<'_, '_>, set: &str, body: Value) -> Value {
    let path = format!("{}/{set}/import", evals(desk));
    desk.tenant.post(&path, body).await.expect(200).json()
}

/// The texts of a set's questions.
fn texts(set: &Value) -> Vec<&str> {
    let questions = set["questions"].as_array().expect("questions");
    questions
        .iter()
        .map(|question| question["question"].as_str().expect("a text"))
        .collect()
}

/// Everything that the rows of test sets and runs hold.
async fn everything(service: &TestApp) -> String {
    let mut conn = service.app.db.read(Scope::Operator).await.expect("a connection");
    let rows: Vec<String> = on!(conn, c => sqlx::query_scalar(
        "select cast(questions as text) from eval_set
         union all
         select cast(questions as text) from eval_run
         union all
         select cast(result as text) from eval_result",
    ).fetch_all(c).await)
    .expect("rows");
    rows.concat()
}

#[tokio::test]
async fn a_conversation_gives_its_first_question_which_expects_what_its_answer_cited() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let (returns, _) = furnish(&desk).await;
    let answer = desk.ask(KNOWN).await.expect(200).json();
    let talk = conversation(&answer);
    desk.ask_in(&talk, "And zebras?").await.expect(200);
    let set = make(&desk, json!([])).await.expect(201).id();

    let imported = import(&desk, &set, json!({ "conversation_id": talk })).await;

    assert_eq!(texts(&imported), [KNOWN], "the second leans on the first");
    let first = imported["questions"][0].clone();
    assert_eq!(
        (
            &first["document_ids"],
            &first["answerable"],
            &first["conversation_id"]
        ),
        (&json!([returns]), &json!(true), &json!(talk))
    );
    let unknown = json!({ "conversation_id": talk, "messages": [uuid::Uuid::now_v7()] });
    let path = format!("{}/{set}/import", evals(&desk));
    acme.post(&path, unknown).await.expect(404);
    let other = acme.chatbot("Other").await;
    let elsewhere = make(&other, json!([])).await.expect(201).id();
    let path = format!("{}/{elsewhere}/import", evals(&other));
    acme.post(&path, json!({ "conversation_id": talk }))
        .await
        .expect(404);
}

#[tokio::test]
async fn further_questions_are_taken_over_where_their_answers_are_named() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    furnish(&desk).await;
    let answer = desk.ask(KNOWN).await.expect(200).json();
    let talk = conversation(&answer);
    let second = desk.ask_in(&talk, "Zebras?").await.expect(200).json();
    let set = make(&desk, json!([])).await.expect(201).id();

    let named = json!({ "conversation_id": talk, "messages": [second["message_id"]] });
    let imported = import(&desk, &set, named).await;

    assert_eq!(texts(&imported), ["Zebras?"]);
    assert_eq!(imported["questions"][0]["answerable"], false);
    let all = import(&desk, &set, json!({ "conversation_id": talk })).await;
    assert_eq!(texts(&all), ["Zebras?", KNOWN]);
    assert_eq!(all["questions"][0], imported["questions"][0], "it is there once");
}

#[tokio::test]
async fn a_question_is_asked_by_a_visitor_of_the_groups_that_its_conversation_had() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let prices = desk.publish("prices.md", STAFF).await;
    acme.patch(
        &format!("/api/documents/{prices}"),
        json!({ "access_groups": ["staff"] }),
    )
    .await
    .expect(200);
    service.drain_jobs().await;
    let body = json!({ "chatbot_id": desk.id, "message": STAFF_QUESTION, "groups": ["staff"] });
    let answer = acme.post("/api/chat/message", body).await.expect(200).json();
    let own = json!([
        { "question": "How much are oak tables?", "document_ids": [prices] },
        { "question": "What do oak tables cost?", "document_ids": [prices], "groups": [" staff "] },
    ]);
    let set = make(&desk, own).await.expect(201).id();

    let imported = import(&desk, &set, json!({ "conversation_id": conversation(&answer) })).await;
    let run = run(&desk, &set, true).await;

    let groups: Vec<&Value> = imported["questions"]
        .as_array()
        .expect("questions")
        .iter()
        .map(|question| &question["groups"])
        .collect();
    assert_eq!(groups, [&json!([]), &json!(["staff"]), &json!(["staff"])]);
    let ranks: Vec<&Value> = (0..3).map(|place| &run["results"][place]["rank"]).collect();
    assert_eq!(ranks, [&Value::Null, &json!(1), &json!(1)], "{run}");
    assert_eq!(
        (
            &run["results"][0]["answer"]["cited"],
            &run["results"][2]["answer"]["cited"]
        ),
        (&json!([]), &json!([prices])),
        "{run}"
    );
    let odd = json!([{ "question": "Why?", "answer": "So.", "groups": ["a,b"] }]);
    assert_eq!(make(&desk, odd).await.expect(422).code(), "invalid_names");
}

#[tokio::test]
async fn a_conversation_that_is_deleted_takes_its_questions_and_what_came_of_them_along() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let (returns, _) = furnish(&desk).await;
    let kept = desk
        .ask("Within how many days may Anna return goods?")
        .await
        .expect(200)
        .json();
    let removed = desk
        .ask("Which oil suits the oak of Bert?")
        .await
        .expect(200)
        .json();
    let own = json!([{ "question": KNOWN, "document_ids": [returns] }]);
    let set = make(&desk, own.clone()).await.expect(201).id();
    for answer in [&kept, &removed] {
        import(&desk, &set, json!({ "conversation_id": conversation(answer) })).await;
    }
    let path = format!("{}/{set}", evals(&desk));
    let ran = run(&desk, &set, true).await;
    assert_eq!(ran["results"].as_array().map(Vec::len), Some(3), "{ran}");
    // The owner saves the set as it is, but for one question.
    let saved = json!([
        own[0],
        { "question": "Within how many days may Anna return goods?", "document_ids": [returns] },
    ]);
    acme.patch(&path, json!({ "questions": saved })).await.expect(200);

    for answer in [&kept, &removed] {
        acme.delete(&format!("/api/conversations/{}", conversation(answer)))
            .await
            .expect(204);
    }

    assert_eq!(texts(&acme.get(&path).await.expect(200).json()), [KNOWN]);
    let run_path = format!("{path}/runs/{}", ran["id"].as_str().expect("an id"));
    let left = acme.get(&run_path).await.expect(200).json();
    assert_eq!(left["results"].as_array().map(Vec::len), Some(1), "{left}");
    assert_eq!(left["results"][0]["question"], KNOWN);
    assert_eq!(left["summary"], ran["summary"], "sums name nobody");
    let held = everything(&service).await;
    assert!(held.contains(KNOWN), "{held}");
    for name in ["Anna", "Bert"] {
        assert!(!held.contains(name), "{name} is still in {held}");
    }
}

#[tokio::test]
async fn a_run_that_asks_what_a_deleted_conversation_asked_ends_and_says_why() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    furnish(&desk).await;
    let set = make(&desk, json!([])).await.expect(201).id();
    let other = make(&desk, json!([{ "question": "Zebras?", "answerable": false }]))
        .await
        .expect(201)
        .id();
    let talk = conversation(&desk.ask(KNOWN).await.expect(200).json());
    import(&desk, &set, json!({ "conversation_id": talk })).await;
    let mut runs = Vec::new();
    for set in [&set, &other] {
        let path = format!("{}/{set}/runs", evals(&desk));
        let id = acme.post(&path, json!({})).await.expect(202).id();
        runs.push(format!("{path}/{id}"));
    }

    acme.delete(&format!("/api/conversations/{talk}"))
        .await
        .expect(204);
    service.drain_jobs().await;

    let ended = acme.get(&runs[0]).await.expect(200).json();
    assert_eq!(
        (&ended["state"], &ended["done_count"]),
        (&json!("failed"), &json!(0))
    );
    let error = ended["error"].as_str().expect("a reason");
    assert!(error.contains("conversation"), "{error}");
    assert_eq!(acme.get(&runs[1]).await.expect(200).json()["state"], "done");
    assert!(!everything(&service).await.contains(KNOWN));
}

#[tokio::test]
async fn who_only_brings_documents_does_not_read_what_visitors_asked() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    furnish(&desk).await;
    let talk = conversation(&desk.ask(KNOWN).await.expect(200).json());
    let set = make(&desk, json!([])).await.expect(201).id();
    import(&desk, &set, json!({ "conversation_id": talk })).await;
    let run = run(&desk, &set, false).await["id"]
        .as_str()
        .expect("an id")
        .to_owned();
    let key = acme
        .make_key(json!({ "name": "loader", "scopes": ["ingest"] }))
        .await;

    let all = evals(&desk);
    for path in [
        all.clone(),
        format!("{all}/{set}"),
        format!("{all}/{set}/runs"),
        format!("{all}/{set}/runs/{run}"),
        format!("{all}/{set}/runs/{run}/compare/{run}"),
    ] {
        let refused = service
            .send(Method::GET, &path, Some(&key), None)
            .await
            .expect(403);
        assert_eq!(refused.code(), "permission_missing", "{path}");
        assert!(!refused.text.contains(KNOWN));
        acme.get(&path).await.expect(200);
    }
}
