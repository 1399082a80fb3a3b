//! Bodies of uploads that never come to a file: they are ended by their size, at once, and hold up nobody.

use reqwest::Method;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::harness::app::{Chatbot, Reply, TestApp};

/// Sends a body that goes on without end after `opening`, until it is answered.
async fn send_endless(desk: &Chatbot<'_, '_>, opening: &str) -> String {
    let service = desk.tenant.service;
    let mut stream = TcpStream::connect(service.address).await.expect("connected");
    let head = format!(
        "POST /api/chatbots/{}/documents HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\ncontent-type: multipart/form-data; boundary=cut\r\ncontent-length: 40000000\r\n\r\n{opening}",
        desk.id, desk.tenant.key
    );
    stream.write_all(head.as_bytes()).await.expect("sent");
    let (mut reading, mut writing) = stream.into_split();
    let endless = tokio::spawn(async move {
        let piece = vec![b'a'; 8192];
        // It stops where the server stops reading.
        while writing.write_all(&piece).await.is_ok() {}
    });
    let mut answer = Vec::new();
    let mut piece = [0; 4096];
    while !String::from_utf8_lossy(&answer).contains("\"code\"") {
        match reading.read(&mut piece).await {
            Ok(length) if length > 0 => answer.extend_from_slice(&piece[..length]),
            _ => break,
        }
    }
    endless.abort();
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn what_stands_before_a_file_is_limited_whatever_it_claims_to_be() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;

    for opening in [
        "",
        "--cut\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.txt\"\r\nX-A: ",
        "--cut\r\nContent-Disposition: form-data; name=\"file\"; filename=\"",
        "--cut\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.txt\"\r\n\r\nWords.\r\n--cut\r\nX-A: ",
    ] {
        let answer = send_endless(&desk, opening).await;

        assert!(
            answer.starts_with("HTTP/1.1 413") && answer.contains("part_headers_too_large"),
            "{opening:?}: {answer}"
        );
    }
    let page = acme
        .get(&format!("/api/chatbots/{}/documents", desk.id))
        .await
        .expect(200)
        .json();
    assert_eq!(page["items"].as_array().map(Vec::len), Some(0));
}

#[tokio::test]
async fn a_file_of_many_times_the_ration_arrives_whole_in_whatever_pieces_it_comes() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let line = "Goods may be returned within 30 days.\r\n";
    let text = line.repeat(20_000);
    let mut body = format!(
        "--cut\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.txt\"\r\n\r\n{text}\r\n"
    );
    body += "--cut\r\nContent-Disposition: form-data; name=\"file\"; filename=\"b.txt\"\r\n\r\nOther words.\r\n--cut--\r\n";
    for size in [997, 70_001, body.len()] {
        let pieces: Vec<Result<Vec<u8>, std::io::Error>> = body
            .as_bytes()
            .chunks(size)
            .map(|piece| Ok(piece.to_vec()))
            .collect();
        let request = service
            .request(
                Method::POST,
                &format!("/api/chatbots/{}/documents", desk.id),
                Some(&acme.key),
            )
            .header("content-type", "multipart/form-data; boundary=cut")
            .body(reqwest::Body::wrap_stream(futures::stream::iter(pieces)));

        let taken = Reply::read(request.send().await.expect("an answer"))
            .await
            .expect(202)
            .json();

        let sizes: Vec<&Value> = taken["items"]
            .as_array()
            .expect("items")
            .iter()
            .map(|item| &item["size_bytes"])
            .collect();
        assert_eq!(
            sizes,
            [&Value::from(text.len()), &Value::from(12)],
            "pieces of {size}"
        );
    }
}
