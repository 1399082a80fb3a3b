//! Size, encoding and type of answers: limits count decoded bytes, whatever the headers say.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use outbound::{Accept, Fetched, HeaderMap, HeaderValue, OutboundError};

use crate::server::{Reply, Server, client_for, ok};

/// The limit of the test client.
const MAX_BYTES: usize = 1000;

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(content).expect("memory");
    encoder.finish().expect("memory")
}

/// An answer that ends with the connection, so that no length is known before.
fn unannounced(headers: &str, body: &[u8]) -> Reply {
    let head = format!("HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\nconnection: close\r\n{headers}\r\n");
    Reply::Raw([head.as_bytes(), body].concat())
}

async fn fetch(reply: Reply) -> Result<Fetched, OutboundError> {
    let server = Server::always(reply).await;
    client_for(&[&server])
        .get(&server.url("/"), &Accept::anything(), HeaderMap::new())
        .await
}

async fn code_of(reply: Reply) -> &'static str {
    fetch(reply).await.expect_err("over a limit").code()
}

#[tokio::test]
async fn a_body_of_exactly_the_limit_is_read_and_one_byte_more_is_not() {
    let full = vec![b'a'; MAX_BYTES];
    let over = vec![b'a'; MAX_BYTES + 1];
    assert_eq!(fetch(ok("text/plain", &full)).await.expect("fits").body, full);
    assert_eq!(fetch(unannounced("", &full)).await.expect("fits").body, full);
    assert_eq!(code_of(ok("text/plain", &over)).await, "too_large");
    assert_eq!(code_of(unannounced("", &over)).await, "too_large");
    assert_eq!(
        fetch(unannounced("content-encoding: gzip\r\n", &gzip(&full)))
            .await
            .expect("fits")
            .body,
        full
    );
    assert_eq!(
        code_of(unannounced("content-encoding: gzip\r\n", &gzip(&over))).await,
        "too_large"
    );
}

#[tokio::test]
async fn a_small_answer_that_unpacks_to_much_stops_at_the_limit() {
    let bomb = gzip(&vec![0; 16 * 1024 * 1024]);
    assert!(bomb.len() < 20_000);
    assert_eq!(
        code_of(unannounced("content-encoding: gzip\r\n", &bomb)).await,
        "too_large"
    );
}

#[tokio::test]
async fn an_announced_length_over_the_limit_is_refused_without_waiting_for_the_body() {
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: {}\r\n\r\n",
        MAX_BYTES + 1
    );
    assert_eq!(code_of(Reply::Hang(head.into_bytes())).await, "too_large");
}

#[tokio::test]
async fn gzip_is_decoded_and_the_headers_no_longer_speak_of_it() {
    let packed = gzip(b"hello");
    let headers = format!("content-encoding: GZIP\r\ncontent-length: {}\r\n", packed.len());
    let fetched = fetch(unannounced(&headers, &packed)).await.expect("gzip");
    assert_eq!(fetched.body, "hello");
    assert!(
        !fetched.headers.contains_key("content-encoding") && !fetched.headers.contains_key("content-length")
    );
}

#[tokio::test]
async fn a_damaged_or_unknown_encoding_is_unreadable() {
    let packed = gzip(&[7; 500]);
    let cut = &packed[..packed.len() - 4];
    assert_eq!(
        code_of(unannounced("content-encoding: gzip\r\n", cut)).await,
        "unreadable_answer"
    );
    assert_eq!(
        code_of(unannounced("content-encoding: gzip\r\n", b"plain text")).await,
        "unreadable_answer"
    );
    assert_eq!(
        code_of(unannounced("content-encoding: br\r\n", b"x")).await,
        "unreadable_answer"
    );
    assert_eq!(
        code_of(unannounced("content-encoding: gzip, gzip\r\n", &gzip(&packed))).await,
        "unreadable_answer"
    );
    let short = b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\nconnection: close\r\n\r\nhalf".to_vec();
    assert_eq!(code_of(Reply::Raw(short)).await, "unreadable_answer");
}

#[tokio::test]
async fn an_answer_of_another_type_is_refused_before_its_body() {
    let accept = Accept::only(["text/html", "image/*"]);
    let head = b"HTTP/1.1 200 OK\r\ncontent-type: application/zip\r\ncontent-length: 500\r\n\r\n".to_vec();
    let zip = Server::always(Reply::Hang(head)).await;
    let untyped = Server::always(Reply::Raw(
        b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nhello".to_vec(),
    ))
    .await;
    let client = client_for(&[&zip, &untyped]);
    for server in [&zip, &untyped] {
        let error = client
            .get(&server.url("/"), &accept, HeaderMap::new())
            .await
            .expect_err("another type");
        assert_eq!(error.code(), "content_type");
        assert!(server.seen()[0].contains("accept: text/html, image/*\r\n"));
    }

    for accepted in ["text/html", "Text/HTML; charset=utf-8", "image/png"] {
        let server = Server::always(ok(accepted, b"x")).await;
        client_for(&[&server])
            .get(&server.url("/"), &accept, HeaderMap::new())
            .await
            .expect(accepted);
    }
}

#[tokio::test]
async fn an_answer_that_names_no_type_is_read_if_the_caller_looks_for_itself() {
    let accept = Accept::only(["text/html"]).or_unnamed();
    let untyped = Server::always(Reply::Raw(
        b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nhello".to_vec(),
    ))
    .await;
    let image = Server::always(ok("image/png", b"x")).await;
    let client = client_for(&[&untyped, &image]);

    let fetched = client.get(&untyped.url("/"), &accept, HeaderMap::new()).await;
    assert_eq!(fetched.expect("any type").body, "hello");
    let refused = client.get(&image.url("/"), &accept, HeaderMap::new()).await;
    assert_eq!(refused.expect_err("another type").code(), "content_type");
}

#[tokio::test]
async fn a_refusal_or_an_unchanged_page_is_an_answer_of_any_type() {
    let accept = Accept::only(["text/html"]);
    for (head, status, body) in [
        (
            "404 Not Found\r\ncontent-type: application/json\r\ncontent-length: 2\r\n",
            404,
            "{}",
        ),
        (
            "304 Not Modified\r\netag: \"v1\"\r\ncontent-encoding: gzip\r\n",
            304,
            "",
        ),
        ("204 No Content\r\n", 204, ""),
    ] {
        let server = Server::always(Reply::Raw(
            format!("HTTP/1.1 {head}connection: close\r\n\r\n{body}").into_bytes(),
        ))
        .await;
        let mut headers = HeaderMap::new();
        headers.insert("if-none-match", HeaderValue::from_static("\"v1\""));

        let fetched = client_for(&[&server])
            .get(&server.url("/"), &accept, headers)
            .await
            .expect(head);

        assert_eq!(
            (fetched.status.as_u16(), fetched.body.as_ref()),
            (status, body.as_bytes())
        );
        assert!(server.seen()[0].contains("if-none-match: \"v1\""));
    }
}
