//! The OpenAPI document: a snapshot that reviews see, served as generated, and true: answers are what it says.

use std::collections::HashSet;

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::app::{Reply as Answered, TestApp, TestOptions};
use crate::harness::openai::{Reply, Script};
use crate::harness::operations::{Ids, Kind, Need, operations};
use crate::harness::stored::exclude_page;

fn document() -> Value {
    serde_json::to_value(frontdesk::http::router::openapi()).expect("the document is JSON")
}

#[test]
fn the_document_changes_only_on_purpose() {
    insta::with_settings!({ prepend_module_to_snapshot => false, omit_expression => true }, {
        insta::assert_json_snapshot!("openapi", document());
    });
}

#[tokio::test]
async fn the_served_document_is_the_generated_one() {
    let service = TestApp::start().await;

    let served = service
        .send(Method::GET, "/api/openapi.json", None, None)
        .await
        .expect(200);

    assert_eq!(served.json(), document());
    assert!(
        served.headers["content-type"]
            .to_str()
            .is_ok_and(|value| value.starts_with("application/json"))
    );
    let page = service.send(Method::GET, "/docs/", None, None).await.expect(200);
    assert!(page.text.contains("swagger-ui"), "the page that shows it");
}

#[test]
fn every_operation_is_described_and_says_how_it_refuses() {
    let document = document();
    let mut names = HashSet::new();
    for (path, item) in document["paths"].as_object().expect("paths") {
        for (method, operation) in item.as_object().expect("methods") {
            let place = format!("{method} {path}");
            assert!(
                operation["summary"]
                    .as_str()
                    .or(operation["description"].as_str())
                    .is_some_and(|text| text.len() > 5),
                "{place} says nothing"
            );
            assert!(
                operation["tags"].as_array().is_some_and(|tags| tags.len() == 1),
                "{place} has one tag"
            );
            assert!(
                names.insert(operation["operationId"].as_str().expect("an id").to_owned()),
                "{place} shares its operationId"
            );
            let responses = operation["responses"].as_object().expect("responses");
            assert!(
                responses.keys().any(|status| status.starts_with('2')),
                "{place} never succeeds"
            );
            if operation.get("security").is_some() || operation.get("requestBody").is_some() {
                let refusal = &responses["4XX"]["content"]["application/problem+json"]["schema"];
                assert_eq!(
                    refusal["$ref"], "#/components/schemas/Problem",
                    "{place} does not say how it refuses"
                );
            }
        }
    }
    assert!(names.len() >= 38, "{}", names.len());
}

/// Holds `value` against `schema`; the paths at which it does not fit.
fn misfits(document: &Value, schema: &Value, value: &Value, at: &str, found: &mut Vec<String>) {
    if let Some(reference) = schema["$ref"].as_str() {
        let target = document
            .pointer(reference.trim_start_matches('#'))
            .expect("the reference points somewhere");
        return misfits(document, target, value, at, found);
    }
    if let Some(choices) = schema["oneOf"].as_array().or(schema["anyOf"].as_array()) {
        let fits = choices.iter().any(|choice| {
            let mut misses = Vec::new();
            misfits(document, choice, value, at, &mut misses);
            misses.is_empty()
        });
        if !fits {
            found.push(format!("{at}: {value} fits none of its choices"));
        }
        return;
    }
    if schema["allOf"].is_array() {
        return misfits(document, &merged(document, schema), value, at, found);
    }
    let kinds: Vec<&str> = match &schema["type"] {
        Value::String(kind) => vec![kind],
        Value::Array(kinds) => kinds.iter().filter_map(Value::as_str).collect(),
        _ => return,
    };
    let is = |kind: &&str| match *kind {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        other => panic!("{at}: unknown type {other}"),
    };
    if !kinds.iter().any(is) {
        found.push(format!("{at}: {value} is no {kinds:?}"));
    }
    if let Some(allowed) = schema["enum"]
        .as_array()
        .filter(|allowed| !allowed.contains(value))
    {
        found.push(format!("{at}: {value} is none of {allowed:?}"));
    }
    for (number, item) in value.as_array().into_iter().flatten().enumerate() {
        misfits(document, &schema["items"], item, &format!("{at}/{number}"), found);
    }
    if let (Some(properties), Some(fields)) = (schema["properties"].as_object(), value.as_object()) {
        for (name, field) in fields {
            match properties.get(name) {
                Some(schema) => misfits(document, schema, field, &format!("{at}/{name}"), found),
                None => found.push(format!("{at}/{name} is not in the document")),
            }
        }
        for name in schema["required"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
        {
            if !fields.contains_key(name) {
                found.push(format!("{at}/{name} is missing"));
            }
        }
    }
}

/// One object schema of all parts of an `allOf`.
fn merged(document: &Value, schema: &Value) -> Value {
    let mut whole = json!({ "type": "object", "properties": {}, "required": [] });
    for part in schema["allOf"].as_array().into_iter().flatten() {
        let part = match part["$ref"].as_str() {
            Some(reference) => document
                .pointer(reference.trim_start_matches('#'))
                .expect("the reference points somewhere")
                .clone(),
            None => part.clone(),
        };
        let part = if part["allOf"].is_array() {
            merged(document, &part)
        } else {
            part
        };
        for (name, property) in part["properties"].as_object().into_iter().flatten() {
            whole["properties"][name] = property.clone();
        }
        let required = part["required"].as_array().cloned().unwrap_or_default();
        whole["required"].as_array_mut().expect("a list").extend(required);
    }
    whole
}

/// Fails the test unless the document describes this answer.
fn assert_described(document: &Value, path: &str, method: &Method, reply: &Answered) {
    let place = format!("{method} {path} with {}", reply.status);
    let responses = &document["paths"][path][method.as_str().to_lowercase()]["responses"];
    let status = reply.status.as_u16().to_string();
    let response = responses
        .get(&status)
        .or_else(|| responses.get(format!("{}XX", &status[..1])))
        .unwrap_or_else(|| panic!("{place} is not in the document: {}", reply.text));
    let Some(content) = response["content"].as_object() else {
        assert!(
            reply.text.is_empty(),
            "{place} has a body that is not in the document: {}",
            reply.text
        );
        return;
    };
    let content_type = reply.headers["content-type"]
        .to_str()
        .expect("text")
        .split(';')
        .next()
        .unwrap_or_default()
        .to_owned();
    let Some(described) = content.get(&content_type) else {
        // The original file comes in its own type; the document says that it is bytes.
        assert!(
            content.contains_key("application/octet-stream"),
            "{place}: {content_type} is not in the document"
        );
        return;
    };
    if content_type.ends_with("json") {
        let mut found = Vec::new();
        misfits(document, &described["schema"], &reply.json(), "", &mut found);
        assert!(found.is_empty(), "{place}: {found:#?}\n{}", reply.text);
    }
}

#[tokio::test]
async fn what_operations_answer_is_what_the_document_says() {
    let service = TestOptions::default()
        .set("limits.login_attempts", 1000)
        .start()
        .await;
    let document = document();
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let published = desk
        .publish(
            "returns.md",
            "# Returns\n\nGoods may be returned within 30 days.\n",
        )
        .await;
    let failed = desk.publish("broken.pdf", "%PDF-1.7 and nothing more").await;
    let conversation = desk
        .ask("Within how many days may goods be returned?")
        .await
        .expect(200)
        .json()["conversation_id"]
        .as_str()
        .expect("an id")
        .to_owned();
    let key = acme
        .post("/api/keys", json!({ "name": "second", "scopes": ["chat"] }))
        .await
        .expect(201)
        .id();
    let member = acme.bring("staff@example.com", "admin").await.member_id;
    let job = acme.get("/api/jobs").await.expect(200).json()["items"][0]["id"]
        .as_str()
        .expect("a job")
        .to_owned();
    let (eval, eval_run) = desk.run_eval(&published).await;
    let (source, run) = desk.aborted_source("https://www.example.com/").await;
    let exclusion = exclude_page(&acme, &source, "/left-out").await;
    let chunk = desk.first_chunk(&published).await;
    let ids = Ids([
        desk.id.clone(),
        published,
        conversation,
        key,
        member,
        job,
        source,
        run,
        chunk,
        exclusion,
        acme.open_invite("invited@example.com").await,
        eval,
        eval_run,
        acme.generation().await,
    ]);

    // Reads first, deletions last: each finds what it needs.
    let mut operations = operations();
    operations.sort_by_key(|operation| {
        (
            operation.method == "DELETE",
            operation.method != "GET",
            std::cmp::Reverse(operation.path.clone()),
        )
    });
    let mut succeeded = 0;
    for operation in &operations {
        let credential = (operation.need != Need::Nothing).then_some(acme.key.as_str());
        let reply = operation.call(&ids).send(&service, credential).await;
        assert_described(&document, &operation.path, &operation.method, &reply);
        succeeded += usize::from(reply.status.is_success());
        let refused = operation.call(&Ids::random()).send(&service, None).await;
        assert_described(&document, &operation.path, &operation.method, &refused);
        if operation.path == "/api/documents/{id}" && operation.method == "GET" {
            let reply = operation
                .call(&ids.with(Kind::Document, &failed))
                .send(&service, credential)
                .await;
            assert_eq!(reply.json()["state"], "failed");
            assert_described(&document, &operation.path, &operation.method, &reply);
        }
    }

    assert!(succeeded >= 30, "only {succeeded} operations succeeded");
}

#[tokio::test]
async fn a_streamed_answer_is_what_the_document_says() {
    let (service, model) = TestApp::with_model().await;
    let document = document();
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    desk.publish(
        "returns.md",
        "# Returns\n\nGoods may be returned within 30 days.\n",
    )
    .await;
    let schema = |path: &str| {
        let answers = &document["paths"][path]["post"]["responses"]["200"]["content"];
        assert_eq!(
            answers["application/json"]["schema"]["$ref"],
            "#/components/schemas/Answer"
        );
        answers["text/event-stream"]["schema"].clone()
    };
    let event = schema("/api/chat/message");
    assert_eq!(event, schema("/api/chat/inline"));
    model.push(Script::Reply(Reply::new("Within 30 days [1].")));
    model.push(Script::quota_exhausted());

    let mut names = Vec::new();
    for _ in 0..2 {
        for sent in desk.stream("Within how many days may goods be returned?").await {
            let mut found = Vec::new();
            let sent = json!({ "event": sent.name, "data": sent.data });
            misfits(&document, &event, &sent, "", &mut found);
            assert!(found.is_empty(), "{sent}: {found:#?}");
            names.push(sent["event"].as_str().expect("a name").to_owned());
        }
    }

    for name in ["message.start", "delta", "citation", "message.end", "error"] {
        assert!(names.iter().any(|seen| seen == name), "no {name} in {names:?}");
    }
}

#[test]
fn no_request_has_an_enum_whose_variants_are_told_apart_inside_or_by_their_shape() {
    let document = document();
    for operation in document["paths"]
        .as_object()
        .expect("paths")
        .values()
        .flat_map(|item| item.as_object().expect("methods").values())
    {
        let body = &operation["requestBody"]["content"]["application/json"]["schema"];
        check_variants(&document, body);
    }
}

/// Fails the test for a choice that serde would read from a buffer.
fn check_variants(document: &Value, schema: &Value) {
    if let Some(reference) = schema["$ref"].as_str() {
        let target = document.pointer(reference.trim_start_matches('#'));
        return check_variants(document, target.expect("the reference points somewhere"));
    }
    let choices: Vec<&Value> = schema["oneOf"].as_array().into_iter().flatten().collect();
    let choices: Vec<&&Value> = choices.iter().filter(|choice| choice["type"] != "null").collect();
    for choice in &choices {
        let fields = choice["properties"].as_object().map_or(0, serde_json::Map::len);
        assert!(
            choices.len() == 1 || choice["type"] == "string" || fields == 1,
            "a variant that is told apart inside or by its shape: {schema}"
        );
        check_variants(document, choice);
    }
    for (_, field) in schema["properties"].as_object().into_iter().flatten() {
        check_variants(document, field);
    }
    if schema["items"].is_object() {
        check_variants(document, &schema["items"]);
    }
}

#[tokio::test]
async fn a_login_is_what_the_document_says() {
    let service = TestOptions::default()
        .set("limits.login_attempts", 1000)
        .start()
        .await;
    let document = document();
    let owner = service.sign_up("owner@example.com", "Engines").await;
    let invite = owner.invite("bob@example.com", "viewer").await;

    let login = service
        .log_in("owner@example.com", crate::harness::people::PASSWORD)
        .await
        .expect(200);
    assert_described(&document, "/api/auth/login", &Method::POST, &login);
    assert_described(
        &document,
        "/api/auth/refresh",
        &Method::POST,
        &service.refresh(&owner.refresh_token).await.expect(200),
    );
    let accepted = service
        .accept_invite(&invite, crate::harness::people::PASSWORD)
        .await
        .expect(200);
    assert_described(&document, "/api/auth/accept-invite", &Method::POST, &accepted);
    let me = service
        .send(
            Method::GET,
            "/api/me",
            accepted.json()["access_token"].as_str(),
            None,
        )
        .await
        .expect(200);
    assert_described(&document, "/api/me", &Method::GET, &me);
}
