//! What is refused, with its reason, and leaves nothing.

use reqwest::Method;
use reqwest::multipart::{Form, Part};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::{PNG, expect_nothing_left, path_of};
use crate::harness::app::{Reply, TestApp, TestOptions};
use crate::harness::stored::stored_files;
use crate::harness::work::until;

#[tokio::test]
async fn a_file_over_the_limit_is_refused_with_all_its_companions_whatever_headers_say() {
    let service = TestOptions::default()
        .set("server.upload_limit_bytes", 1000)
        .start()
        .await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let (small, large) = (vec![b'a'; 1000], vec![b'a'; 1001]);

    let reply = desk
        .upload(&[("small.txt", &small), ("large.txt", &large)])
        .await
        .expect(413);
    assert_eq!(reply.code(), "file_too_large");
    assert!(
        reply.json()["detail"]
            .as_str()
            .is_some_and(|detail| detail.contains("large.txt")),
        "{}",
        reply.text
    );

    // Without a length, in pieces.
    let pieces = futures::stream::iter((0..11).map(|_| Ok::<_, std::io::Error>(vec![b'b'; 100])));
    let form = Form::new().part(
        "file",
        Part::stream(reqwest::Body::wrap_stream(pieces)).file_name("pieces.txt"),
    );
    let request = service
        .request(Method::POST, &path_of(&desk), Some(&acme.key))
        .multipart(form);
    assert_eq!(
        Reply::read(request.send().await.expect("an answer"))
            .await
            .expect(413)
            .code(),
        "file_too_large"
    );

    // Each file is small enough, all together are not.
    let many: Vec<(String, Vec<u8>)> = (0..11)
        .map(|number| (format!("{number}.txt"), vec![b'0' + number; 1000]))
        .collect();
    let many: Vec<(&str, &[u8])> = many
        .iter()
        .map(|(name, bytes)| (name.as_str(), bytes.as_slice()))
        .collect();
    assert_eq!(desk.upload(&many).await.expect(413).code(), "file_too_large");

    expect_nothing_left(&service).await;
    desk.upload(&[("small.txt", &small)]).await.expect(202);
}

#[tokio::test]
async fn too_many_files_at_once_are_refused() {
    let service = TestOptions::default()
        .set("server.upload_files_limit", 2)
        .start()
        .await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;

    let reply = desk
        .upload(&[("1.txt", b"one"), ("2.txt", b"two"), ("3.txt", b"three")])
        .await
        .expect(413);

    assert_eq!(reply.code(), "too_many_files");
    expect_nothing_left(&service).await;
}

#[tokio::test]
async fn an_upload_of_nothing_readable_is_refused_with_the_list_of_accepted_types() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;

    let reply = desk.upload(&[("report.pdf", PNG)]).await.expect(415);

    assert_eq!(reply.code(), "unsupported_type");
    let detail = reply.json()["detail"].as_str().expect("a sentence").to_owned();
    for accepted in ["PDF", "Word", "HTML", "Markdown", "CSV", "text"] {
        assert!(detail.contains(accepted), "{accepted} is missing in {detail}");
    }
    expect_nothing_left(&service).await;
}

#[tokio::test]
async fn a_body_that_only_imitates_an_upload_is_none() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let send = async |content_type: &str, body: &str| {
        let request = service
            .request(Method::POST, &path_of(&desk), Some(&acme.key))
            .header("content-type", content_type)
            .body(body.to_owned());
        Reply::read(request.send().await.expect("an answer")).await
    };

    let imitation = r#"{"file": {"filepath": "/etc/passwd", "originalFilename": "a.txt"}}"#;
    assert_eq!(
        send("application/json", imitation).await.expect(415).code(),
        "unsupported_media_type"
    );
    assert_eq!(
        send("application/x-www-form-urlencoded", "file=/etc/passwd")
            .await
            .expect(415)
            .code(),
        "unsupported_media_type"
    );
    assert_eq!(
        send("multipart/form-data", "no boundary")
            .await
            .expect(415)
            .code(),
        "unsupported_media_type"
    );
    let field = "--cut\r\ncontent-disposition: form-data; name=\"file\"\r\n\r\n/etc/passwd\r\n--cut--\r\n";
    assert_eq!(
        send("multipart/form-data; boundary=cut", field)
            .await
            .expect(422)
            .code(),
        "unknown_field"
    );
    assert_eq!(
        send("multipart/form-data; boundary=cut", "--cut--\r\n")
            .await
            .expect(422)
            .code(),
        "no_files"
    );
    assert_eq!(
        send("multipart/form-data; boundary=cut", "--cut\r\ngarbage")
            .await
            .expect(400)
            .code(),
        "malformed_upload"
    );
    expect_nothing_left(&service).await;
}

#[tokio::test]
async fn an_upload_that_is_cut_off_leaves_nothing() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let mut stream = TcpStream::connect(service.address).await.expect("a connection");
    let head = format!(
        "POST {} HTTP/1.1\r\nhost: desk\r\nauthorization: Bearer {}\r\ncontent-type: multipart/form-data; boundary=cut\r\ncontent-length: 400000\r\n\r\n\
         --cut\r\ncontent-disposition: form-data; name=\"file\"; filename=\"half.txt\"\r\n\r\n",
        path_of(&desk),
        acme.key
    );
    stream.write_all(head.as_bytes()).await.expect("written");
    stream.write_all(&vec![b'a'; 200_000]).await.expect("written");
    let received = || {
        stored_files(&service.data_dir())
            .iter()
            .any(|path| path.metadata().is_ok_and(|file| file.len() > 0))
    };
    until("the file begins to arrive", async || received()).await;

    drop(stream);

    until("the half file is gone", async || {
        stored_files(&service.data_dir()).is_empty()
    })
    .await;
    expect_nothing_left(&service).await;
}

#[tokio::test]
async fn an_absent_chatbot_is_told_before_a_byte_is_taken() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let globex = service.tenant("globex").await;
    let theirs = globex.chatbot("Desk").await;

    for id in [theirs.id.as_str(), "0190b5a0-0000-7000-8000-000000000000"] {
        let mut stream = TcpStream::connect(service.address).await.expect("a connection");
        let head = format!(
            "POST /api/chatbots/{id}/documents HTTP/1.1\r\nhost: desk\r\nauthorization: Bearer {}\r\ncontent-type: multipart/form-data; boundary=cut\r\ncontent-length: 400000\r\n\r\n--cut\r\n",
            acme.key
        );
        stream.write_all(head.as_bytes()).await.expect("written");
        // The rest of the body is never sent, so an answer can only come without it.
        let mut status = [0; 12];
        stream.read_exact(&mut status).await.expect("an answer");
        assert_eq!(&status, b"HTTP/1.1 404");
    }
    expect_nothing_left(&service).await;
}
