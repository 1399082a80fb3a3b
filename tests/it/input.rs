//! Strict input, the same on every operation: sizes, types, unknown fields, broken JSON.

use reqwest::Method;
use reqwest::header::CONTENT_TYPE;
use serde_json::{Value, json};

use crate::harness::app::{Reply, Tenant, TestApp, TestOptions};
use crate::harness::operations::{Call, CallBody, Ids, Kind, Operation, operations};

/// What a JSON operation answers to this body, sent by someone who may do everything.
async fn send_raw(
    service: &TestApp,
    credential: &str,
    call: &Call,
    content_type: Option<&str>,
    body: Vec<u8>,
) -> Reply {
    let mut request = service
        .request(call.method.clone(), &call.target, Some(credential))
        .body(body);
    if let Some(content_type) = content_type {
        request = request.header(CONTENT_TYPE, content_type);
    }
    Reply::read(request.send().await.expect("an answer")).await
}

/// The operations with a JSON body and no other, each with a request that fits it.
fn json_operations() -> Vec<(Operation, Call, Value)> {
    let mut found = Vec::new();
    for operation in operations()
        .into_iter()
        .filter(|operation| !operation.takes_files())
    {
        let call = operation.call(&Ids::random());
        if let CallBody::Json(body) = &call.body {
            let body = body.clone();
            found.push((operation, call, body));
        }
    }
    assert!(found.len() >= 12, "the document has lost its bodies");
    found
}

/// A service whose doors open often enough to try every operation many times.
async fn start() -> TestApp {
    TestOptions::default()
        .set("limits.login_attempts", 1000)
        .start()
        .await
}

/// A request that does not fit: what is wrong, its type, its body, and what it is told.
type Misfit = (&'static str, Option<&'static str>, Vec<u8>, u16, &'static str);

/// Everything that can be wrong with a body of which `body` is a good one.
fn misfits(body: &Value) -> Vec<Misfit> {
    let fields = body.as_object().expect("bodies are objects");
    let (field, value) = fields.iter().next().expect("a field");
    let json = Some("application/json");
    let whole = body.to_string().into_bytes();
    let mut unknown = body.clone();
    unknown["surprise"] = json!(1);
    let unknown = unknown.to_string().into_bytes();
    let twice = format!("{{\"{field}\":{value},{}", &body.to_string()[1..]).into_bytes();
    let values = json!(fields.values().collect::<Vec<_>>())
        .to_string()
        .into_bytes();
    let no_utf8 = [format!("{{\"{field}\": \"").as_bytes(), b"\xff\xfe\"}"].concat();
    let half = whole[..whole.len() - 1].to_vec();
    let more = [whole.as_slice(), b" {}"].concat();
    let deep = format!("{{\"{field}\":{}{}}}", "[".repeat(100), "]".repeat(100)).into_bytes();
    let nul = format!("{{\"{field}\": \"a\\u0000b\"}}").into_bytes();
    let form = Some("application/x-www-form-urlencoded");
    vec![
        ("an unknown field", json, unknown, 422, "invalid_body"),
        ("a field twice", json, twice, 422, "invalid_body"),
        ("a list of its values", json, values, 422, "invalid_body"),
        ("half a body", json, half, 400, "malformed_json"),
        ("a body and more", json, more, 400, "malformed_json"),
        ("no UTF-8", json, no_utf8, 400, "malformed_json"),
        ("nothing", json, Vec::new(), 400, "malformed_json"),
        ("nesting", json, deep, 400, "json_too_deep"),
        ("U+0000", json, nul, 422, "nul_character"),
        ("a form", form, whole.clone(), 415, "unsupported_media_type"),
        (
            "text",
            Some("text/plain"),
            whole.clone(),
            415,
            "unsupported_media_type",
        ),
        (
            "a near miss",
            Some("application/jsonp"),
            whole.clone(),
            415,
            "unsupported_media_type",
        ),
        ("no type", None, whole, 415, "unsupported_media_type"),
    ]
}

#[tokio::test]
async fn every_json_operation_refuses_what_does_not_fit_before_it_does_anything() {
    let service = start().await;
    let owner = service.sign_up("owner@example.com", "Engines").await;
    for (operation, call, body) in json_operations() {
        for (what, content_type, body, status, code) in misfits(&body) {
            let reply = send_raw(&service, &owner.access_token, &call, content_type, body).await;
            let told = (reply.status.as_u16(), reply.code());
            let place = format!("{} with {what}: {}", operation.name(), reply.text);
            assert_eq!(told, (status, code.to_owned()), "{place}");
        }
    }
    assert!(owner.is_let_in().await, "a refused request was carried out");
}

/// Values of a field just past what its schema allows.
fn past_bounds(schema: &Value) -> Vec<Value> {
    let mut past = Vec::new();
    if let Some(most) = schema["maxLength"].as_u64() {
        past.push(json!(
            "a".repeat(usize::try_from(most).expect("a small number") + 1)
        ));
    }
    if schema["minLength"].as_u64() > Some(0) {
        past.push(json!(""));
    }
    if let Some(most) = schema["maxItems"].as_u64() {
        let items: Vec<String> = (0..=most).map(|n| format!("https://{n}.example")).collect();
        past.push(json!(items));
    }
    // Whole numbers may be sent for fractions as well.
    let bound = |name: &str| schema[name].as_f64().map(|bound| bound as i64);
    past.extend(bound("maximum").map(|most| json!(most + 1)));
    past.extend(bound("minimum").map(|least| json!(least - 1)));
    past
}

#[tokio::test]
async fn what_the_document_bounds_is_refused_past_its_bounds() {
    let service = start().await;
    let owner = service.sign_up("owner@example.com", "Engines").await;
    let acme = Tenant {
        service: &service,
        id: serde_json::from_value(json!(owner.tenant_id)).expect("an id"),
        key: owner.access_token.clone(),
    };
    let desk = acme.chatbot("Desk").await;
    let document = desk.publish("a.md", "Tables are oiled twice a year.").await;
    let chunk = desk.first_chunk(&document).await;
    let path = format!("/api/chatbots/{}/sources", desk.id);
    let push = json!({ "kind": "push", "name": "Ours" });
    let source = acme.post(&path, push).await.expect(202).id();
    let (eval, eval_run) = desk.run_eval(&document).await;
    let ids = Ids::random()
        .with(Kind::Chatbot, &desk.id)
        .with(Kind::Document, &document)
        .with(Kind::Chunk, &chunk)
        .with(Kind::Source, &source)
        .with(Kind::Eval, &eval)
        .with(Kind::EvalRun, &eval_run);
    let described = serde_json::to_value(frontdesk::http::router::openapi()).expect("the document is JSON");
    let mut tried = 0;
    for operation in operations() {
        let call = operation.call(&ids);
        let method = operation.method.as_str().to_lowercase();
        let body = &described["paths"][&operation.path][&method]["requestBody"]["content"];
        let reference = body["application/json"]["schema"]["$ref"]
            .as_str()
            .unwrap_or("#/absent");
        let properties = described.pointer(&format!("{}/properties", &reference[1..]));
        let (CallBody::Json(example), Some(properties)) = (&call.body, properties.and_then(Value::as_object))
        else {
            continue;
        };
        for (field, schema) in properties {
            for value in past_bounds(schema) {
                let mut body = example.clone();
                body[field] = value;
                let sent = body.to_string().into_bytes();
                let json = Some("application/json");
                let reply = send_raw(&service, &acme.key, &call, json, sent).await;
                assert!(
                    [400, 413, 422].contains(&reply.status.as_u16()),
                    "{} takes {field} of {:.60}: {} {}",
                    operation.name(),
                    body[field],
                    reply.status,
                    reply.text
                );
                tried += 1;
            }
        }
    }
    assert!(tried >= 30, "only {tried} bounds were tried");
}

#[tokio::test]
async fn a_body_past_the_limit_is_refused_by_the_bytes_received() {
    let service = TestOptions::default()
        .set("limits.login_attempts", 1000)
        .set("server.body_limit_bytes", 1000)
        .start()
        .await;
    let owner = service.sign_up("owner@example.com", "Engines").await;
    for (operation, call, _) in json_operations() {
        let huge = json!({ "name": "x".repeat(2000) }).to_string().into_bytes();
        let with_length = send_raw(
            &service,
            &owner.access_token,
            &call,
            Some("application/json"),
            huge.clone(),
        )
        .await;
        assert_eq!(
            (with_length.status.as_u16(), with_length.code().as_str()),
            (413, "body_too_large"),
            "{}",
            operation.name()
        );

        let chunks = futures::stream::iter(
            huge.chunks(100)
                .map(|chunk| Ok::<_, std::io::Error>(chunk.to_vec()))
                .collect::<Vec<_>>(),
        );
        let request = service
            .request(call.method.clone(), &call.target, Some(&owner.access_token))
            .header(CONTENT_TYPE, "application/json");
        let chunked = Reply::read(
            request
                .body(reqwest::Body::wrap_stream(chunks))
                .send()
                .await
                .expect("an answer"),
        )
        .await;
        assert_eq!(
            (chunked.status.as_u16(), chunked.code().as_str()),
            (413, "body_too_large"),
            "{} in chunks",
            operation.name()
        );
    }
    let fits = json!({ "name": "x".repeat(150) });
    owner.post("/api/chatbots", fits).await.expect(201);
}

#[tokio::test]
async fn a_query_that_an_operation_does_not_know_is_refused() {
    let service = start().await;
    let acme = service.tenant("acme").await;
    // Google says more to the address where it sends a browser back than its manual tells.
    let is_ours = |operation: &&Operation| operation.path != "/api/integrations/google/callback";
    for operation in operations()
        .iter()
        .filter(|operation| operation.has_query())
        .filter(is_ours)
    {
        let ids = Ids::random();
        let plain = operation.call(&ids);
        let path = plain.target.split('?').next().expect("a path").to_owned();
        for query in [
            "surprise=1",
            "limit=1&limit=2",
            "Limit=1",
            "limit=%zz",
            "cursor=%ff",
        ] {
            if query.contains("imit") && !operation.takes_query("limit")
                || query.contains("cursor") && !operation.takes_query("cursor")
            {
                continue;
            }
            let reply = service
                .send(
                    operation.method.clone(),
                    &format!("{path}?{query}"),
                    Some(&acme.key),
                    None,
                )
                .await;
            assert_eq!(
                (reply.status.as_u16(), reply.code().starts_with("invalid_")),
                (422, true),
                "{} ?{query}: {}",
                operation.name(),
                reply.text
            );
        }
    }
}

#[tokio::test]
async fn pages_have_one_to_a_hundred_items() {
    let service = start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    for operation in operations()
        .iter()
        .filter(|operation| operation.takes_query("limit"))
    {
        let parts = operation.path.split('/');
        let path: Vec<&str> = parts
            .map(|part| {
                if part.starts_with('{') {
                    desk.id.as_str()
                } else {
                    part
                }
            })
            .collect();
        let path = path.join("/");
        for (limit, status) in [
            ("1", 200),
            ("100", 200),
            ("0", 422),
            ("-1", 422),
            ("101", 422),
            ("9223372036854775808", 422),
            ("ten", 422),
            ("", 422),
            ("1.5", 422),
        ] {
            let reply = acme.get(&format!("{path}?limit={limit}")).await;
            // The chatbot's id is no conversation's, source's or test set's: those are absent, once the query holds.
            let is_absent = ["/conversations/", "/sources/", "/evals/"]
                .iter()
                .any(|room| path.contains(room));
            let expected = if status == 200 && is_absent { 404 } else { status };
            assert_eq!(
                reply.status.as_u16(),
                expected,
                "{} limit={limit}: {}",
                operation.name(),
                reply.text
            );
        }
        assert_eq!(
            acme.get(&format!("{path}?cursor=x")).await.code(),
            "invalid_cursor",
            "{}",
            operation.name()
        );
    }
}

#[tokio::test]
async fn no_odd_text_is_a_failure_of_ours() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    for text in [
        "'; drop table chatbot; --",
        "\u{202e}evil",
        "\u{feff}",
        "a\u{301}\u{301}\u{301}",
        "👩‍👩‍👧‍👦",
        "\\u0000",
        "%00",
        "\u{fffd}",
        "<script>",
        "${7*7}",
    ] {
        let made = acme.post("/api/chatbots", json!({ "name": text })).await;
        assert!(
            [201, 422].contains(&made.status.as_u16()),
            "{text:?}: {}",
            made.text
        );
        if made.status == 201 {
            assert_eq!(
                acme.get(&format!("/api/chatbots/{}", made.id()))
                    .await
                    .expect(200)
                    .json()["name"],
                json!(text)
            );
        }
    }
    for body in [
        r#"{"name": "\ud800"}"#,
        r#"{"name": "x", "temperature": 1e999}"#,
        r#"{"name": "x", "temperature": NaN}"#,
        r#"{"name": "x", "monthly_token_limit": 9223372036854775808}"#,
        r#"{"name": "x", "monthly_token_limit": -1}"#,
        r#"{"name": 5}"#,
        r#"{"name": null}"#,
    ] {
        let request = service
            .request(Method::POST, "/api/chatbots", Some(&acme.key))
            .header(CONTENT_TYPE, "application/json")
            .body(body);
        let reply = Reply::read(request.send().await.expect("an answer")).await;
        assert!(
            [400, 422].contains(&reply.status.as_u16()),
            "{body}: {}",
            reply.text
        );
    }
}

#[tokio::test]
async fn an_id_spelled_in_another_way_names_nothing() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    acme.get(&format!("/api/chatbots/{}", desk.id)).await.expect(200);

    for spelling in [
        desk.id.replace('-', ""),
        format!("%7B{}%7D", desk.id),
        format!("urn:uuid:{}", desk.id),
    ] {
        let reply = acme.get(&format!("/api/chatbots/{spelling}")).await;
        assert_eq!(
            (reply.status.as_u16(), reply.code().as_str()),
            (404, "not_found"),
            "{spelling}"
        );
    }
}
