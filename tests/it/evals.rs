//! A chatbot's own test sets: what is expected, what a run finds, what it costs, and two runs side by side.

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::app::{Chatbot, Reply, TestApp, TestOptions};
use crate::harness::openai::{Reply as Said, Script};
use crate::harness::stored::count_rows;

const RETURNS: &str = "# Returns\n\nGoods may be returned within 30 days of delivery.\n";
const OAK: &str = "# Oak\n\nHardwax oil suits oak, twice a year.\n";

/// A desk that knows two documents; their ids.
pub async fn furnish(desk: &Chatbot<'_, '_>) -> (String, String) {
    (
        desk.publish("returns.md", RETURNS).await,
        desk.publish("oak.md", OAK).await,
    )
}

pub fn evals(desk: &Chatbot<'_, '_>) -> String {
    format!("/api/chatbots/{}/evals", desk.id)
}

pub async fn make(desk: &Chatbot<'_, '_>, questions: Value) -> Reply {
    let body = json!({ "name": "Questions", "questions": questions });
    desk.tenant.post(&evals(desk), body).await
}

/// Runs a set to its end; the run with its results.
pub async fn run(desk: &Chatbot<'_, '_>, set: &str, answers: bool) -> Value {
    let runs = format!("{}/{set}/runs", evals(desk));
    let id = desk
        .tenant
        .post(&runs, json!({ "answers": answers }))
        .await
        .expect(202)
        .id();
    desk.tenant.service.drain_jobs().await;
    desk.tenant.get(&format!("{runs}/{id}")).await.expect(200).json()
}

#[tokio::test]
async fn a_run_tells_for_each_question_where_the_right_document_stood_and_sums_up() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let (returns, oak) = furnish(&desk).await;
    let set = make(
        &desk,
        json!([
            { "question": "Within how many days may goods be returned?", "document_ids": [returns] },
            { "question": "Which oil suits oak?", "answer": "Hardwax oil" },
            { "question": "Which oil suits oak best?", "document_ids": [returns] },
            { "question": "Zebras?", "answerable": false },
        ]),
    )
    .await
    .expect(201)
    .id();

    let run = run(&desk, &set, false).await;

    assert_eq!(
        (&run["state"], &run["done_count"]),
        (&json!("done"), &json!(4)),
        "{run}"
    );
    let results = run["results"].as_array().expect("results");
    assert_eq!(
        (&results[0]["rank"], &results[0]["found"][0]),
        (&json!(1), &json!(returns))
    );
    assert_eq!(
        (&results[1]["rank"], &results[1]["found"][0]),
        (&json!(1), &json!(oak))
    );
    assert_ne!(results[2]["rank"], 1, "another document was expected");
    let first: Vec<&Value> = results.iter().map(|result| &result["is_first_right"]).collect();
    assert_eq!(
        first,
        [&Value::Null, &json!(true), &Value::Null, &Value::Null],
        "one answer was expected in words"
    );
    assert_eq!(
        (&results[3]["measures"], &results[3]["is_answered"]),
        (&Value::Null, &json!(false))
    );
    let summary = &run["summary"];
    assert_eq!(
        (
            &summary["answerable"],
            &summary["unanswerable"],
            &summary["declined"]
        ),
        (&json!(3), &json!(1), &json!(1))
    );
    let ndcg = |result: &Value| result["measures"]["ndcg_at_10"].as_f64().expect("a measure");
    let mean = results[..3].iter().map(ndcg).sum::<f64>() / 3.0;
    assert!((ndcg(&json!({ "measures": summary["measures"] })) - mean).abs() < 1e-9);
    assert_eq!(summary["right_answers"], Value::Null);
}

#[tokio::test]
async fn of_a_file_of_questions_and_answers_the_share_is_told_whose_right_row_comes_first() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let rows = "question,answer\n\
                Do you sell gift cards?,\"Yes, from 10 to 200 euros.\"\n\
                When is the shop open?,From nine to six on weekdays.\n\
                Where do parcels arrive?,At the door or at a pick-up point.\n\
                Can I pay by invoice?,Companies can; others pay by card.\n";
    desk.publish("faq.csv", rows).await;
    let asked = json!([
        { "question": "When is your shop open?", "answer": "nine to six" },
        { "question": "May I pay by invoice?", "answer": "others pay by card" },
        { "question": "Are there gift cards?", "answer": "pick-up point" },
        { "question": "Where is the parcel?" , "answer": "at the door" },
    ]);
    let set = make(&desk, asked).await.expect(201).id();

    let run = run(&desk, &set, false).await;

    let first: Vec<&Value> = run["results"]
        .as_array()
        .expect("results")
        .iter()
        .map(|result| &result["is_first_right"])
        .collect();
    assert_eq!(
        first,
        [&json!(true), &json!(true), &json!(false), &json!(true)],
        "{run}"
    );
    assert_eq!(run["summary"]["faq_accuracy"], json!(0.75));
}

#[tokio::test]
async fn the_model_is_asked_only_when_answers_are_wanted_and_then_it_is_booked() {
    let (service, model) = TestApp::with_model().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    furnish(&desk).await;
    let question = "Within how many days may goods be returned?";
    let set = make(&desk, json!([{ "question": question, "answer": "30 days" }]))
        .await
        .expect(201)
        .id();

    let silent = run(&desk, &set, false).await;
    assert_eq!(silent["results"][0]["answer"], Value::Null);
    assert!(acme.ledger().await.iter().all(|line| line["kind"] != "chat"));

    model.push(Script::Reply(Said::new("You have 30 days [1].")));
    let spoken = run(&desk, &set, true).await;
    let answer = &spoken["results"][0]["answer"];
    assert_eq!(
        (&answer["source"], &answer["holds_expected"]),
        (&json!("model"), &json!(true)),
        "{spoken}"
    );
    assert_eq!(spoken["summary"]["right_answers"], 1);
    assert_eq!(
        acme.ledger()
            .await
            .iter()
            .filter(|line| line["kind"] == "chat")
            .count(),
        1
    );
    assert!(acme.conversations().await.is_empty(), "nobody talked");
}

#[tokio::test]
async fn two_runs_are_compared_question_by_question() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let (returns, oak) = furnish(&desk).await;
    let set = make(
        &desk,
        json!([
            { "question": "Within how many days may goods be returned?", "document_ids": [returns] },
            { "question": "Which oil suits oak?", "document_ids": [oak] },
        ]),
    )
    .await
    .expect(201)
    .id();
    let before = run(&desk, &set, false).await["id"]
        .as_str()
        .expect("an id")
        .to_owned();
    acme.delete(&format!("/api/documents/{oak}")).await.expect(204);
    let after = run(&desk, &set, false).await["id"]
        .as_str()
        .expect("an id")
        .to_owned();

    let path = format!("{}/{set}/runs/{before}/compare/{after}", evals(&desk));
    let compared = acme.get(&path).await.expect(200).json();

    assert_eq!(
        (&compared["better"], &compared["worse"]),
        (&json!(0), &json!(1)),
        "{compared}"
    );
    assert_eq!(
        (&compared["before"]["id"], &compared["after"]["id"]),
        (&json!(before), &json!(after))
    );
    let changes: Vec<&Value> = compared["questions"]
        .as_array()
        .expect("questions")
        .iter()
        .map(|question| &question["change"])
        .collect();
    assert_eq!(changes, ["same", "worse"]);
    assert_eq!(compared["questions"][1]["ndcg_difference"], -1.0);
    let back = format!("{}/{set}/runs/{after}/compare/{before}", evals(&desk));
    assert_eq!(acme.get(&back).await.expect(200).json()["better"], 1);
}

#[tokio::test]
async fn a_corrected_expectation_is_neither_a_better_nor_a_worse_search() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let (returns, oak) = furnish(&desk).await;
    let expecting = |oils: &str| {
        json!([
            { "question": "Within how many days may goods be returned?", "document_ids": [returns] },
            { "question": "Which oil suits oak?", "document_ids": [oils] },
        ])
    };
    let set = make(&desk, expecting(&returns)).await.expect(201).id();
    let before = run(&desk, &set, false).await;
    let corrected = json!({ "questions": expecting(&oak) });
    acme.patch(&format!("{}/{set}", evals(&desk)), corrected)
        .await
        .expect(200);
    let after = run(&desk, &set, false).await;

    let id = |run: &Value| run["id"].as_str().expect("an id").to_owned();
    let path = format!(
        "{}/{set}/runs/{}/compare/{}",
        evals(&desk),
        id(&before),
        id(&after)
    );
    let compared = acme.get(&path).await.expect(200).json();

    assert_eq!(
        (&compared["better"], &compared["worse"], &compared["relabelled"]),
        (&json!(0), &json!(0), &json!(1)),
        "{compared}"
    );
    let change = &compared["questions"][1];
    assert_eq!(
        (&change["change"], &change["ndcg_difference"]),
        (&json!("relabelled"), &Value::Null)
    );
    let documents = |of: &str| change[of]["expected"]["document_ids"].clone();
    assert_eq!(
        (documents("before"), documents("after")),
        (json!([returns]), json!([oak]))
    );
}

#[tokio::test]
async fn a_document_that_was_just_deleted_is_expected_of_no_question() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let path = format!("/api/chatbots/{}/sources", desk.id);
    let source = acme.post(&path, json!({ "kind": "push" })).await.expect(202).id();
    let path = format!("/api/sources/{source}/documents/returns");
    let pushed = service.send(
        Method::PUT,
        &path,
        Some(&acme.key),
        Some(json!({ "text": RETURNS })),
    );
    let returns = pushed.await.expect(201).id();
    service.drain_jobs().await;
    acme.delete(&format!("/api/sources/{source}")).await.expect(204);

    make(&desk, json!([{ "question": "Why?", "document_ids": [returns] }]))
        .await
        .expect(404);
    service.drain_jobs().await;
}

#[tokio::test]
async fn a_set_says_what_does_not_hold_and_keeps_what_did() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let other = acme.chatbot("Other").await;
    let (returns, _) = furnish(&desk).await;
    for (questions, code) in [
        (
            json!([{ "question": " ", "document_ids": [returns] }]),
            "invalid_question",
        ),
        (json!([{ "question": "Why?" }]), "invalid_expectation"),
        (
            json!([{ "question": "Why?", "answer": "So.", "answerable": false }]),
            "invalid_expectation",
        ),
        (json!([{ "question": "Why?", "answer": "" }]), "invalid_answer"),
        (
            json!([{ "question": "Why?", "answer": "So." }, { "question": "Why?", "answer": "No." }]),
            "question_twice",
        ),
    ] {
        let refused = make(&desk, questions).await.expect(422);
        assert_eq!(refused.code(), code, "{}", refused.text);
    }
    let of_another = json!([{ "question": "Why?", "document_ids": [returns] }]);
    make(&other, of_another).await.expect(404);

    let empty = make(&desk, json!([])).await.expect(201).id();
    let refused = acme
        .post(&format!("{}/{empty}/runs", evals(&desk)), json!({}))
        .await;
    assert_eq!(refused.expect(409).code(), "eval_empty");
    let path = format!("{}/{empty}", evals(&desk));
    let question = json!({ "question": "May goods be returned?", "document_ids": [returns] });
    let changed = acme
        .patch(&path, json!({ "questions": [question] }))
        .await
        .expect(200)
        .json();
    let renamed = acme
        .patch(&path, json!({ "name": "Returns" }))
        .await
        .expect(200)
        .json();
    assert_eq!(
        (&renamed["name"], &renamed["questions"]),
        (&json!("Returns"), &changed["questions"])
    );
    let runs = format!("{path}/runs");
    acme.post(&runs, json!({})).await.expect(202);
    assert_eq!(
        acme.post(&runs, json!({})).await.expect(409).code(),
        "eval_running"
    );

    acme.delete(&path).await.expect(204);
    acme.get(&path).await.expect(404);
    acme.post(&runs, json!({})).await.expect(404);
    let left = acme.get(&evals(&desk)).await.expect(200).json();
    assert_eq!(left["items"], json!([]));
    service.drain_jobs().await;
    for table in ["eval_set", "eval_run", "eval_result"] {
        assert_eq!(count_rows(&service, table).await, 0, "{table}");
    }
}

#[tokio::test]
async fn a_set_keeps_its_fifty_latest_runs() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let set = make(&desk, json!([{ "question": "Zebras?", "answerable": false }]))
        .await
        .expect(201)
        .id();
    let mut ids = Vec::new();
    for _ in 0..52 {
        let ran = run(&desk, &set, false).await;
        ids.push(ran["id"].as_str().expect("an id").to_owned());
    }

    let runs = format!("{}/{set}/runs", evals(&desk));
    let listed = acme.get(&format!("{runs}?limit=100")).await.expect(200).json();

    assert_eq!(listed["items"].as_array().map(Vec::len), Some(50));
    assert_eq!(count_rows(&service, "eval_result").await, 50);
    for (id, status) in [(&ids[1], 404), (&ids[2], 200)] {
        acme.get(&format!("{runs}/{id}")).await.expect(status);
    }
}

#[tokio::test]
async fn what_came_of_questions_is_told_page_by_page_in_their_order() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let asked = ["Zebras?", "Yaks?", "Apes?"];
    let questions: Vec<Value> = asked
        .iter()
        .map(|question| json!({ "question": question, "answerable": false }))
        .collect();
    let set = make(&desk, json!(questions)).await.expect(201).id();
    let (before, after) = (run(&desk, &set, false).await, run(&desk, &set, false).await);
    let runs = format!("{}/{set}/runs", evals(&desk));
    let id = |run: &Value| run["id"].as_str().expect("an id").to_owned();

    for (path, list, text) in [
        (format!("{runs}/{}", id(&after)), "results", "/question"),
        (
            format!("{runs}/{}/compare/{}", id(&before), id(&after)),
            "questions",
            "/after/question",
        ),
    ] {
        let mut told = Vec::new();
        let mut cursor = String::new();
        for size in [2, 1] {
            let page = acme
                .get(&format!("{path}?limit=2{cursor}"))
                .await
                .expect(200)
                .json();
            let items = page[list].as_array().expect("items");
            assert_eq!(items.len(), size, "{page}");
            told.extend(items.iter().map(|item| {
                item.pointer(text)
                    .and_then(Value::as_str)
                    .expect("a text")
                    .to_owned()
            }));
            cursor = match page["next_cursor"].as_str() {
                Some(next) => format!("&cursor={next}"),
                None => String::new(),
            };
        }
        assert_eq!(
            (told.as_slice(), cursor.as_str()),
            (asked.map(str::to_owned).as_slice(), "")
        );
        acme.get(&format!("{path}?limit=101")).await.expect(422);
        let unknown = acme.get(&format!("{path}?cursor={set}")).await;
        assert_eq!(unknown.expect(422).json()["code"], "invalid_cursor");
    }
}

#[tokio::test]
async fn a_question_that_the_model_refuses_is_told_as_such_and_the_others_are_answered() {
    let (service, model) = TestApp::with_model().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    furnish(&desk).await;
    model.reply_with(|asked| match asked.last_message().contains("oak") {
        true => Script::error(400, "invalid_request_error", "content_filter"),
        false => Script::Reply(Said::new("You have 30 days [1].")),
    });
    let set = make(
        &desk,
        json!([
            { "question": "Which oil suits oak?", "answer": "Hardwax oil" },
            { "question": "Within how many days may goods be returned?", "answer": "30 days" },
        ]),
    )
    .await
    .expect(201)
    .id();

    let ran = run(&desk, &set, true).await;

    assert_eq!(ran["state"], "done", "{ran}");
    let refused = &ran["results"][0];
    assert_eq!((&refused["answer"], &refused["rank"]), (&Value::Null, &json!(1)));
    let failure = refused["failure"].as_str().expect("a reason");
    assert!(failure.contains("refused"), "{failure}");
    assert_eq!(ran["results"][1]["failure"], Value::Null);
    let summary = &ran["summary"];
    assert_eq!(
        (
            &summary["failed"],
            &summary["right_answers"],
            &summary["expected_answers"]
        ),
        (&json!(1), &json!(1), &json!(1)),
        "{summary}"
    );
}

#[tokio::test]
async fn a_run_over_the_budget_ends_as_failed_and_says_why() {
    let (service, _model) = TestApp::with_model().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    furnish(&desk).await;
    let question = json!({ "question": "Within how many days may goods be returned?", "answer": "30 days" });
    let set = make(&desk, json!([question])).await.expect(201).id();
    acme.patch(
        &format!("/api/chatbots/{}", desk.id),
        json!({ "monthly_token_limit": 1 }),
    )
    .await
    .expect(200);

    let failed = run(&desk, &set, true).await;

    assert_eq!(failed["state"], "failed", "{failed}");
    assert!(
        failed["error"]
            .as_str()
            .is_some_and(|error| error.contains("budget") || error.contains("limit")),
        "{failed}"
    );
    let silent = run(&desk, &set, false).await;
    assert_eq!(silent["state"], "done", "searching spends nothing of it");
}

#[tokio::test]
async fn viewers_see_sets_and_do_not_change_or_run_them() {
    let service = TestOptions::default().start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let set = make(&desk, json!([{ "question": "Zebras?", "answerable": false }]))
        .await
        .expect(201)
        .id();
    let viewer = acme.bring("viewer@example.com", "viewer").await;
    let path = format!("{}/{set}", evals(&desk));

    viewer.get(&path).await.expect(200);
    viewer.post(&format!("{path}/runs"), json!({})).await.expect(403);
    viewer.send(Method::DELETE, &path, None).await.expect(403);
}
