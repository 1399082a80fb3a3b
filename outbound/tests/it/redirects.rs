//! Redirects: every hop is judged like a new URL, and carries only what its server may see.

use bytes::Bytes;
use outbound::{Accept, HeaderMap, HeaderValue, Limits, Method, Request};

use crate::server::{Server, client_for, limits, ok, redirect};

fn credentials() -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in [
        ("authorization", "Bearer secret"),
        ("cookie", "session=secret"),
        ("x-api-key", "secret"),
        ("accept-language", "de"),
        ("if-none-match", "\"v1\""),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers
}

#[tokio::test]
async fn a_redirect_into_a_private_place_is_refused_before_anything_is_sent() {
    let inside = Server::always(ok("text/plain", b"internal")).await;
    let port = inside.address.port();
    for target in [
        format!("http://127.0.0.1:{port}/"),
        format!("//127.0.0.1:{port}/"),
        format!("http://2130706433:{port}/"),
        format!("http://[::ffff:7f00:1]:{port}/"),
        format!("http://localhost:{port}/"),
        "http://169.254.169.254/latest/meta-data/".to_owned(),
        "file:///etc/passwd".to_owned(),
        "http://user:pass@example.org/".to_owned(),
    ] {
        let location = target.clone();
        let server = Server::start(move |_| redirect(302, &location)).await;

        let answer = client_for(&[&server])
            .get(&server.url("/"), &Accept::anything(), HeaderMap::new())
            .await;

        assert_eq!(answer.expect_err("refused").code(), "url_not_public", "{target}");
    }
    assert_eq!(inside.seen(), Vec::<String>::new());
}

#[tokio::test]
async fn redirects_are_followed_up_to_the_limit_and_the_last_url_is_told() {
    // /5 leads to /4 and so on to /0, which answers.
    let server = Server::start(|path| match path.trim_start_matches('/').parse::<u32>() {
        Ok(0) => ok("text/plain", b"arrived"),
        Ok(left) => redirect(301, format!("/{}", left - 1)),
        Err(_) => redirect(302, "/endless"),
    })
    .await;
    let client = client_for(&[&server]);

    let fetched = client
        .get(&server.url("/5"), &Accept::anything(), HeaderMap::new())
        .await
        .expect("five redirects");
    assert_eq!(
        (fetched.body.as_ref(), fetched.final_url.path()),
        (b"arrived".as_slice(), "/0")
    );

    for path in ["/6", "/endless"] {
        let error = client
            .get(&server.url(path), &Accept::anything(), HeaderMap::new())
            .await
            .expect_err("too many");
        assert_eq!(error.code(), "too_many_redirects", "{path}");
    }
    let none = client.with_limits(Limits {
        max_redirects: 0,
        ..limits()
    });
    let error = none
        .get(&server.url("/1"), &Accept::anything(), HeaderMap::new())
        .await
        .expect_err("none allowed");
    assert_eq!(error.code(), "too_many_redirects");
}

#[tokio::test]
async fn credentials_stay_with_the_server_they_were_meant_for() {
    let other = Server::always(ok("text/plain", b"other")).await;
    let elsewhere = other.url("/");
    let server = Server::start(move |path| match path {
        "/same" => redirect(302, "/landed"),
        "/away" => redirect(302, &elsewhere),
        _ => ok("text/plain", b"same"),
    })
    .await;
    let client = client_for(&[&server, &other]);

    client
        .get(&server.url("/same"), &Accept::anything(), credentials())
        .await
        .expect("same server");
    client
        .get(&server.url("/away"), &Accept::anything(), credentials())
        .await
        .expect("other server");

    let [first, landed, _away] = server.seen().try_into().expect("three requests");
    for request in [first, landed] {
        assert!(request.contains("authorization: Bearer secret"), "{request}");
        assert!(request.contains("x-api-key: secret"), "{request}");
    }
    let [request] = other.seen().try_into().expect("one request");
    assert!(!request.contains("secret"), "{request}");
    assert!(
        request.contains("accept-language: de") && request.contains("if-none-match: \"v1\""),
        "{request}"
    );
    assert!(!request.contains("referer"), "{request}");
}

#[tokio::test]
async fn dropped_credentials_do_not_come_back_when_a_redirect_returns() {
    let back = Server::start(|path| redirect(302, path.trim_start_matches("/back?"))).await;
    let away = back.url("/");
    let server = Server::start(move |path| match path {
        "/landed" => ok("text/plain", b"landed"),
        start => redirect(302, format!("{away}back?{}", start.trim_start_matches("/start?"))),
    })
    .await;
    let client = client_for(&[&server, &back]);
    let start = server.url(&format!("/start?{}", server.url("/landed")));

    let fetched = client
        .get(&start, &Accept::anything(), credentials())
        .await
        .expect("two redirects");

    assert_eq!(fetched.body, "landed");
    let [first, landed] = server.seen().try_into().expect("two requests");
    assert!(first.contains("secret"));
    assert!(!landed.contains("secret"), "{landed}");
}

#[tokio::test]
async fn a_post_turns_into_a_get_or_is_repeated_as_the_status_says() {
    for (status, expected) in [
        (301, "GET"),
        (302, "GET"),
        (303, "GET"),
        (307, "POST"),
        (308, "POST"),
    ] {
        let server = Server::start(move |path| match path {
            "/start" => redirect(status, "/landed"),
            _ => ok("text/plain", b"done"),
        })
        .await;

        let body = Bytes::from_static(b"order=1");
        let answer = client_for(&[&server])
            .post(&server.url("/start"), &Accept::anything(), HeaderMap::new(), body)
            .await;

        answer.expect("same server");
        let landed = &server.seen()[1];
        assert!(
            landed.starts_with(&format!("{expected} /landed ")),
            "{status}: {landed}"
        );
        assert_eq!(
            landed.ends_with("order=1"),
            expected == "POST",
            "{status}: {landed}"
        );
    }
}

#[tokio::test]
async fn a_changing_request_is_not_carried_to_another_server() {
    for method in [Method::POST, Method::PUT, Method::DELETE] {
        let other = Server::always(ok("text/plain", b"other")).await;
        let elsewhere = other.url("/");
        let server = Server::start(move |_| redirect(307, &elsewhere)).await;
        let request = Request {
            method: method.clone(),
            url: server.url("/"),
            headers: HeaderMap::new(),
            body: Some(Bytes::from_static(b"order=1")),
        };

        let answer = client_for(&[&server, &other])
            .send(request, &Accept::anything())
            .await;

        assert_eq!(answer.expect_err("refused").code(), "bad_redirect", "{method}");
        assert_eq!(other.seen(), Vec::<String>::new());
    }
}

#[tokio::test]
async fn a_redirect_without_a_usable_target_is_an_answer_or_an_error() {
    let server = Server::start(|path| match path {
        "/none" => crate::server::Reply::Raw(
            b"HTTP/1.1 302 Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".to_vec(),
        ),
        _ => redirect(302, "http://[broken/"),
    })
    .await;
    let client = client_for(&[&server]);

    let fetched = client
        .get(&server.url("/none"), &Accept::anything(), HeaderMap::new())
        .await
        .expect("an answer");
    assert_eq!(fetched.status.as_u16(), 302);
    let error = client
        .get(&server.url("/broken"), &Accept::anything(), HeaderMap::new())
        .await
        .expect_err("no URL");
    assert_eq!(error.code(), "bad_redirect");
}

#[tokio::test]
async fn a_redirect_that_the_caller_declines_is_the_answer_and_is_not_requested() {
    let other = Server::always(ok("text/plain", b"other")).await;
    let elsewhere = other.url("/page");
    let server = Server::start(move |path| match path {
        "/start" => redirect(302, "/middle"),
        _ => redirect(308, &elsewhere),
    })
    .await;
    let start = server.url("/start");
    let own = start.origin();
    let request = Request {
        method: Method::GET,
        url: start,
        headers: HeaderMap::new(),
        body: None,
    };

    let fetched = client_for(&[&server, &other])
        .send_following(request, &Accept::only(["text/html"]), &|target| {
            target.origin() == own
        })
        .await
        .expect("the redirect itself");

    assert_eq!(
        (fetched.status.as_u16(), fetched.final_url.path()),
        (308, "/middle")
    );
    assert_eq!(fetched.redirect_target(), Some(other.url("/page")));
    assert_eq!(other.seen(), Vec::<String>::new());
}
