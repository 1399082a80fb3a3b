//! One request has one address and one framing; whatever else comes is a problem with a request id and the security
//! headers.

use reqwest::Method;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::harness::app::{Reply, TestApp, TestOptions};
use crate::harness::operations::{Ids, Need, operations};

async fn start() -> TestApp {
    TestOptions::default()
        .set("limits.login_attempts", 1000)
        .start()
        .await
}

/// Writes `text` to the service's port and reads all that comes back. With `ends`, the client sends no more.
async fn raw(service: &TestApp, text: &str, ends: bool) -> String {
    let mut stream = tokio::net::TcpStream::connect(service.address)
        .await
        .expect("connected");
    stream.write_all(text.as_bytes()).await.expect("sent");
    if ends {
        stream.shutdown().await.expect("half closed");
    }
    let mut answer = Vec::new();
    let read = stream.read_to_end(&mut answer);
    let _ = tokio::time::timeout(std::time::Duration::from_secs(20), read)
        .await
        .expect("the answer ends");
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn a_body_that_ends_before_its_length_changes_nothing() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;

    let head = format!(
        "POST /api/chatbots HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n",
        acme.key
    );
    let answer = raw(&service, &format!("{head}{{\"name\": \"Desk\"}}"), true).await;

    assert!(
        answer.is_empty() || answer.starts_with("HTTP/1.1 400"),
        "{answer}"
    );
    assert_eq!(
        acme.get("/api/chatbots").await.expect(200).json()["items"],
        json!([])
    );
}

#[tokio::test]
async fn a_request_with_two_lengths_or_broken_framing_is_not_guessed_at() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let line = format!(
        "POST /api/chatbots HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\n",
        acme.key
    );
    let body = "{\"name\": \"Desk\"}";

    for framing in [
        "content-length: 16\r\ncontent-length: 5\r\n",
        "content-length: 16, 5\r\n",
        "content-length: -1\r\n",
        "content-length: 1e3\r\n",
        "transfer-encoding: chunked, identity\r\n",
        "transfer-encoding: xchunked\r\n",
    ] {
        let answer = raw(
            &service,
            &format!("{line}connection: close\r\n{framing}\r\n{body}"),
            false,
        )
        .await;
        assert!(
            answer.is_empty() || answer.starts_with("HTTP/1.1 4"),
            "{framing}: {answer}"
        );
    }
    assert_eq!(
        acme.get("/api/chatbots").await.expect(200).json()["items"],
        json!([])
    );
}

#[tokio::test]
async fn an_address_has_one_spelling() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    for target in [
        "/api/chatbots/",
        "//api/chatbots",
        "/api//chatbots",
        "/API/chatbots",
        "/api/Chatbots",
        "/api/%63hatbots",
        "/api/./chatbots",
        "/api/x/../chatbots",
        "/api/chatbots;v=1",
        "/api/chatbots%00",
        "/api/chatbots%2f",
        "/api",
        "/",
    ] {
        let answer = raw(
            &service,
            &format!(
                "GET {target} HTTP/1.1\r\nhost: x\r\nconnection: close\r\nauthorization: Bearer {}\r\n\r\n",
                acme.key
            ),
            false,
        )
        .await;
        assert!(answer.starts_with("HTTP/1.1 404"), "{target}: {answer}");
        assert!(!answer.contains(&desk.id), "{target}");
    }
}

#[tokio::test]
async fn an_id_that_is_no_id_names_nothing() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let absent = acme
        .get(&format!("/api/chatbots/{}", uuid::Uuid::now_v7()))
        .await
        .expect(404);
    for id in [
        "x",
        "1",
        "%00",
        "%ff",
        "..%2f..%2fetc%2fpasswd",
        "null",
        "00000000-0000-0000-0000-000000000000",
        &"a".repeat(5000),
        "%F0%9F%98%80",
    ] {
        for path in [
            format!("/api/chatbots/{id}"),
            format!("/api/documents/{id}"),
            format!("/api/conversations/{id}"),
            format!("/api/jobs/{id}"),
            format!("/api/documents/{id}/file"),
        ] {
            let reply = acme.get(&path).await;
            assert_eq!(
                (reply.status, reply.code()),
                (absent.status, absent.code()),
                "{path:.60}: {}",
                reply.text
            );
        }
    }
}

#[tokio::test]
async fn an_overlong_address_or_head_is_refused() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;

    let long = acme
        .get(&format!("/api/chatbots?cursor={}", "a".repeat(9000)))
        .await;
    assert_eq!(
        (long.status.as_u16(), long.code().as_str()),
        (414, "uri_too_long")
    );

    let many: String = (0..150).map(|number| format!("x-{number}: y\r\n")).collect();
    let wide = format!("x-wide: {}\r\n", "y".repeat(60_000));
    for headers in [many, wide] {
        let answer = raw(
            &service,
            &format!("GET /health HTTP/1.1\r\nhost: x\r\n{headers}\r\n"),
            false,
        )
        .await;
        assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
    }
}

#[tokio::test]
async fn unknown_addresses_and_methods_are_problems() {
    let service = TestApp::start().await;

    let nowhere = service.send(Method::GET, "/api/nowhere", None, None).await;
    assert_eq!(
        (nowhere.status.as_u16(), nowhere.code().as_str()),
        (404, "no_such_route")
    );

    let wrong = service.send(Method::PUT, "/api/chatbots", None, None).await;
    assert_eq!(
        (wrong.status.as_u16(), wrong.code().as_str()),
        (405, "method_not_allowed")
    );
    let allow = wrong.headers["allow"].to_str().expect("text");
    assert!(allow.contains("GET") && allow.contains("POST"), "{allow}");
    for method in ["TRACE", "CONNECT", "PROPFIND"] {
        let reply = service
            .send(method.parse().expect("a method"), "/api/chatbots", None, None)
            .await;
        assert!(reply.status.is_client_error(), "{method}: {}", reply.status);
    }
}

#[tokio::test]
async fn a_problem_names_its_request_as_the_header_does_and_every_request_has_a_name_of_its_own() {
    let service = start().await;
    let acme = service.tenant("acme").await;
    let mut names = std::collections::HashSet::new();
    for (credential, path) in [
        (None, "/api/me"),
        (Some("fdk_x"), "/api/me"),
        (Some(acme.key.as_str()), "/api/nowhere"),
        (Some(&acme.key), "/api/chatbots/x"),
        (Some(&acme.key), "/api/chatbots?limit=0"),
    ] {
        let request = service
            .request(Method::GET, path, credential)
            .header("x-request-id", "chosen-by-the-client");
        let reply = Reply::read(request.send().await.expect("an answer")).await;
        let header = reply.headers["x-request-id"].to_str().expect("text").to_owned();
        let body = reply.json();

        assert_eq!(body["request_id"], json!(header), "{path}");
        assert_eq!(
            (body["type"].as_str(), body["status"].as_u64()),
            (Some("about:blank"), Some(reply.status.as_u16().into())),
            "{path}"
        );
        assert!(
            body["title"].is_string() && body["detail"].is_string() && body["code"].is_string(),
            "{body}"
        );
        assert_ne!(header, "chosen-by-the-client");
        assert!(names.insert(header), "two requests have one name");
    }
}

#[tokio::test]
async fn every_answer_carries_the_security_headers() {
    let service = start().await;
    let acme = service.tenant("acme").await;
    let mut replies = vec![
        (
            "an unknown address".to_owned(),
            service.send(Method::GET, "/nowhere", None, None).await,
        ),
        (
            "a wrong method".to_owned(),
            service.send(Method::PUT, "/api/chatbots", None, None).await,
        ),
        (
            "an overlong address".to_owned(),
            service
                .send(
                    Method::GET,
                    &format!("/api/me?x={}", "a".repeat(9000)),
                    None,
                    None,
                )
                .await,
        ),
        (
            "the metrics".to_owned(),
            service.send(Method::GET, "/metrics", None, None).await,
        ),
    ];
    for operation in operations() {
        let credential = (operation.need != Need::Nothing).then_some(acme.key.as_str());
        replies.push((
            operation.name(),
            operation.call(&Ids::random()).send(&service, credential).await,
        ));
        replies.push((
            format!("{} without a credential", operation.name()),
            operation.call(&Ids::random()).send(&service, None).await,
        ));
    }
    for (what, reply) in replies {
        for (name, expected) in [
            ("x-content-type-options", "nosniff"),
            ("x-frame-options", "DENY"),
            ("referrer-policy", "no-referrer"),
            ("cache-control", "no-store"),
            (
                "content-security-policy",
                "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; sandbox",
            ),
        ] {
            assert_eq!(
                reply.headers.get(name).and_then(|value| value.to_str().ok()),
                Some(expected),
                "{name} on {what}"
            );
        }
        assert!(reply.headers.contains_key("x-request-id"), "{what}");
        assert!(
            !reply.headers.contains_key("server") && !reply.headers.contains_key("x-powered-by"),
            "{what}"
        );
    }
    let docs = service.send(Method::GET, "/docs/", None, None).await.expect(200);
    let policy = docs.headers["content-security-policy"].to_str().expect("text");
    assert!(
        policy.contains("script-src 'self';") && policy.contains("frame-ancestors 'none'"),
        "{policy}"
    );
}
