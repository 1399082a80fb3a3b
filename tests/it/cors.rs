//! Cross-origin rules: a chatbot's own list of sites for the chat routes, the operator's list for all others.

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::app::{Reply, TestApp, TestOptions};

const SHOP: &str = "https://shop.example.com";

/// Sends a request as a page of `origin` would.
async fn from_page(
    service: &TestApp,
    origin: &str,
    method: Method,
    path: &str,
    credential: Option<&str>,
    body: Option<Value>,
) -> Reply {
    let mut request = service.request(method, path, credential).header("origin", origin);
    if let Some(body) = body {
        request = request.json(&body);
    }
    Reply::read(request.send().await.expect("an answer")).await
}

async fn preflight(service: &TestApp, origin: &str, path: &str) -> Reply {
    let request = service
        .request(Method::OPTIONS, path, None)
        .header("origin", origin);
    let request = request
        .header("access-control-request-method", "POST")
        .header("access-control-request-headers", "authorization, content-type");
    Reply::read(request.send().await.expect("an answer")).await
}

fn allowed(reply: &Reply) -> Option<&str> {
    assert!(
        !reply.headers.contains_key("access-control-allow-credentials"),
        "no cookie is ever asked for"
    );
    reply
        .headers
        .get("access-control-allow-origin")
        .map(|value| value.to_str().expect("text"))
}

/// A chatbot that the pages of `SHOP` may talk to, and the tenant's key for asking.
async fn open_desk(service: &TestApp) -> (String, String) {
    let acme = service.tenant("acme").await;
    let desk = acme
        .post(
            "/api/chatbots",
            json!({ "name": "Desk", "allowed_origins": [SHOP] }),
        )
        .await
        .expect(201)
        .id();
    let key = acme
        .make_key(json!({ "name": "site", "scopes": ["chat"], "chatbot_id": desk }))
        .await;
    (desk, key)
}

fn question(chatbot_id: &str) -> Option<Value> {
    Some(json!({ "chatbot_id": chatbot_id, "message": "May goods be returned?" }))
}

#[tokio::test]
async fn a_listed_site_may_read_answers_and_their_refusals() {
    let service = TestApp::start().await;
    let (desk, key) = open_desk(&service).await;

    let answer = from_page(
        &service,
        SHOP,
        Method::POST,
        "/api/chat/message",
        Some(&key),
        question(&desk),
    )
    .await
    .expect(200);
    assert_eq!(allowed(&answer), Some(SHOP));
    assert!(
        answer
            .headers
            .get_all("vary")
            .iter()
            .any(|value| value == "Origin"),
        "caches must tell origins apart"
    );

    let stream = json!({ "chatbot_id": desk, "message": "May goods be returned?", "stream": true });
    assert_eq!(
        allowed(
            &from_page(
                &service,
                SHOP,
                Method::POST,
                "/api/chat/message",
                Some(&key),
                Some(stream)
            )
            .await
            .expect(200)
        ),
        Some(SHOP)
    );
    let refused = from_page(
        &service,
        SHOP,
        Method::POST,
        "/api/chat/message",
        Some(&key),
        Some(json!({ "chatbot_id": desk, "message": "" })),
    )
    .await
    .expect(422);
    assert_eq!(allowed(&refused), Some(SHOP), "the page cannot tell why");
}

#[tokio::test]
async fn an_unlisted_site_gets_no_answer_and_may_not_read_the_refusal() {
    let service = TestApp::start().await;
    let (desk, key) = open_desk(&service).await;

    for origin in [
        "https://evil.example",
        "https://shop.example.com.evil.example",
        "https://evilshop.example.com",
        "https://sub.shop.example.com",
        "http://shop.example.com",
        "https://shop.example.com:8443",
        "https://shop.example.com/",
        "HTTPS://SHOP.EXAMPLE.COM",
        "null",
        "*",
        "",
    ] {
        for path in ["/api/chat/message", "/api/chat/inline"] {
            let body = if path.ends_with("message") {
                question(&desk)
            } else {
                Some(json!({ "chatbot_id": desk, "messages": [{ "role": "user", "content": "Hello?" }] }))
            };
            let reply = from_page(&service, origin, Method::POST, path, Some(&key), body).await;
            assert_eq!(
                (reply.status.as_u16(), reply.code().as_str()),
                (403, "origin_not_allowed"),
                "{origin:?} on {path}"
            );
            assert_eq!(allowed(&reply), None, "{origin:?} on {path}");
            assert!(
                !reply.headers.contains_key("x-frontdesk-origin-refused"),
                "an inner mark leaves the server"
            );
        }
    }
}

#[tokio::test]
async fn a_site_of_one_chatbot_is_a_stranger_to_another() {
    let service = TestApp::start().await;
    open_desk(&service).await;
    let globex = service.tenant("globex").await;
    let other = globex.chatbot("Other desk").await;

    let reply = from_page(
        &service,
        SHOP,
        Method::POST,
        "/api/chat/message",
        Some(&globex.key),
        question(&other.id),
    )
    .await;

    assert_eq!(
        (reply.status.as_u16(), reply.code().as_str(), allowed(&reply)),
        (403, "origin_not_allowed", None)
    );
    assert_eq!(
        globex.get("/api/conversations").await.expect(200).json()["items"],
        json!([]),
        "a refused page began a conversation"
    );
}

#[tokio::test]
async fn a_program_that_names_no_origin_needs_no_list() {
    let service = TestApp::start().await;
    let (desk, key) = open_desk(&service).await;

    let reply = service
        .send(Method::POST, "/api/chat/message", Some(&key), question(&desk))
        .await
        .expect(200);

    assert_eq!(allowed(&reply), None);
}

#[tokio::test]
async fn a_preflight_tells_what_a_listed_site_may_send() {
    let service = TestApp::start().await;
    open_desk(&service).await;

    let listed = preflight(&service, SHOP, "/api/chat/message").await.expect(204);
    assert_eq!(allowed(&listed), Some(SHOP));
    let header = |name: &str| listed.headers[name].to_str().expect("text").to_lowercase();
    assert!(header("access-control-allow-methods").contains("post"));
    for name in ["authorization", "content-type", "idempotency-key"] {
        assert!(header("access-control-allow-headers").contains(name), "{name}");
    }
    assert!(
        header("access-control-max-age").parse::<u32>().expect("seconds") <= 600,
        "a withdrawn site lives on in browsers"
    );

    assert_eq!(
        allowed(&preflight(&service, "https://evil.example", "/api/chat/message").await),
        None
    );
    assert_eq!(
        allowed(&preflight(&service, SHOP, "/api/chatbots").await),
        None,
        "a visitor's page is not the dashboard"
    );
}

#[tokio::test]
async fn owners_routes_are_for_the_operators_dashboards_only() {
    let service = TestOptions::default()
        .set("server.dashboard_origins", "https://desk.example.com")
        .start()
        .await;
    let acme = service.tenant("acme").await;
    acme.post(
        "/api/chatbots",
        json!({ "name": "Desk", "allowed_origins": [SHOP] }),
    )
    .await
    .expect(201);

    for (origin, expected) in [
        ("https://desk.example.com", Some("https://desk.example.com")),
        (SHOP, None),
        ("https://desk.example.com.evil.example", None),
    ] {
        assert_eq!(
            allowed(
                &from_page(
                    &service,
                    origin,
                    Method::GET,
                    "/api/chatbots",
                    Some(&acme.key),
                    None
                )
                .await
                .expect(200)
            ),
            expected
        );
        assert_eq!(
            allowed(&preflight(&service, origin, "/api/chatbots").await),
            expected
        );
    }
}

#[tokio::test]
async fn a_withdrawn_site_is_refused_at_once() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let desk = acme
        .post(
            "/api/chatbots",
            json!({ "name": "Desk", "allowed_origins": [SHOP] }),
        )
        .await
        .expect(201)
        .id();
    from_page(
        &service,
        SHOP,
        Method::POST,
        "/api/chat/message",
        Some(&acme.key),
        question(&desk),
    )
    .await
    .expect(200);

    acme.patch(&format!("/api/chatbots/{desk}"), json!({ "allowed_origins": [] }))
        .await
        .expect(200);

    assert_eq!(
        from_page(
            &service,
            SHOP,
            Method::POST,
            "/api/chat/message",
            Some(&acme.key),
            question(&desk)
        )
        .await
        .code(),
        "origin_not_allowed"
    );
    assert_eq!(
        allowed(&preflight(&service, SHOP, "/api/chat/message").await),
        None
    );
}

#[tokio::test]
async fn what_is_no_origin_cannot_be_listed() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;

    for origin in [
        "*",
        "null",
        "",
        "shop.example.com",
        "https://",
        "https://shop.example.com/",
        "https://shop.example.com/page",
        "https://*.example.com",
        "ftp://shop.example.com",
        "https://a.example.com, https://b.example.com",
        "https://SHOP.example.com",
        "https://user@shop.example.com",
    ] {
        let reply = acme
            .post(
                "/api/chatbots",
                json!({ "name": "Desk", "allowed_origins": [origin] }),
            )
            .await;
        assert_eq!(
            (reply.status.as_u16(), reply.code().as_str()),
            (422, "invalid_origins"),
            "{origin:?}"
        );
    }
}
