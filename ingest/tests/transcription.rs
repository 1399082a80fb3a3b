//! Recordings are transcribed by the configured server, which gets the recording and nothing else.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode, Uri};
use ingest::sandbox::ExtractorPool;
use ingest::{ExtractError, ExtractedDocument, Format, Hints, Limits, Transcriber, TranscriptionOptions};

/// An MP3 file, as far as its first bytes tell.
const RECORDING: &[u8] = b"ID3\x04\0\0\0\0\0\0 and what is said in it";

/// A server that answers as it is told and remembers what it was asked.
struct Server {
    base_url: String,
    requests: Arc<Mutex<Vec<(HeaderMap, Bytes)>>>,
}

impl Server {
    /// Answers one request after the other, the last answer for ever.
    async fn start(answers: &'static [(u16, &'static str)]) -> Self {
        let requests: Arc<Mutex<Vec<(HeaderMap, Bytes)>>> = Arc::default();
        let seen = Arc::clone(&requests);
        let answer = move |uri: Uri, headers: HeaderMap, body: Bytes| async move {
            assert_eq!(uri.path(), "/v1/audio/transcriptions");
            let number = {
                let mut seen = seen.lock().expect("nobody panicked");
                seen.push((headers, body));
                seen.len() - 1
            };
            let (status, text) = answers[number.min(answers.len() - 1)];
            if text == "hang" {
                tokio::time::sleep(Duration::from_secs(60)).await;
            }
            (StatusCode::from_u16(status).expect("a status"), text)
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a port");
        let address = listener.local_addr().expect("an address");
        tokio::spawn(async move {
            let router = Router::new().fallback(answer);
            axum::serve(listener, router).await.expect("it serves");
        });
        Self {
            base_url: format!("http://{address}/v1"),
            requests,
        }
    }

    async fn read(&self, recording: &[u8]) -> Result<ExtractedDocument, ExtractError> {
        read_by(&self.base_url, recording).await
    }

    fn requests(&self) -> Vec<(HeaderMap, Bytes)> {
        self.requests.lock().expect("nobody panicked").clone()
    }
}

async fn read_by(base_url: &str, recording: &[u8]) -> Result<ExtractedDocument, ExtractError> {
    #[expect(clippy::disallowed_methods, reason = "the test's own server")]
    let client = reqwest::Client::builder().no_proxy().build().expect("a client");
    let options = TranscriptionOptions {
        base_url: base_url.parse().expect("a URL"),
        api_key: Some("key".to_owned()),
        model: "whisper-1".to_owned(),
        timeout: Duration::from_secs(2),
        max_bytes: 1 << 20,
    };
    let transcriber = Transcriber::new(client, options).expect("it can be made");
    let pool = ExtractorPool::new(PathBuf::from("/nowhere"), Vec::new(), 1, Limits::default())
        .with_transcription(transcriber);
    let media = pool.media();
    let format = Format::detect(recording, "memo.txt").and_then(|format| media.accept(format));
    assert_eq!(format, Ok(Format::Recording));
    pool.extract_bytes(recording, Format::Recording, &Hints::named("../memo\r\n\".mp3"))
        .await
}

#[tokio::test]
async fn a_recording_becomes_its_text_under_times() {
    let server = Server::start(&[(
        200,
        r#"{"task": "transcribe", "language": "english", "duration": 70.0, "text": "Hello. Goods go back.",
            "segments": [{"id": 0, "start": 0.0, "end": 2.0, "text": " Hello."},
                         {"id": 1, "start": 65.2, "end": 70.0, "text": " Goods go back."}]}"#,
    )])
    .await;

    let document = server.read(RECORDING).await.expect("text");

    assert_eq!(document.text, "0:00\n\nHello.\n\n1:05\n\nGoods go back.");
    assert_eq!((document.blocks[3].heading_path.len(), document.title), (1, None));
}

#[tokio::test]
async fn the_server_gets_the_recording_the_model_and_the_key_and_no_name_of_ours() {
    let server = Server::start(&[(200, r#"{"text": "Hello."}"#)]).await;

    server.read(RECORDING).await.expect("text");

    let (headers, body) = server.requests().remove(0);
    assert_eq!(headers["authorization"], "Bearer key");
    let content_type = headers["content-type"].to_str().expect("text");
    let boundary = content_type
        .strip_prefix("multipart/form-data; boundary=")
        .expect("a form");
    let body = String::from_utf8_lossy(&body).into_owned();
    let parts: Vec<&str> = body.split(&format!("--{boundary}")).collect();
    assert_eq!(
        parts,
        [
            "",
            "\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nwhisper-1\r\n",
            "\r\nContent-Disposition: form-data; name=\"response_format\"\r\n\r\nverbose_json\r\n",
            &format!(
                "\r\nContent-Disposition: form-data; name=\"file\"; filename=\"recording.mp3\"\r\n\
                 Content-Type: audio/mpeg\r\n\r\n{}\r\n",
                String::from_utf8_lossy(RECORDING)
            ),
            "--\r\n",
        ]
    );
}

#[tokio::test]
async fn models_that_tell_no_times_are_asked_for_the_text_alone() {
    let server = Server::start(&[
        (400, "response_format is not supported"),
        (200, r#"{"text": "Hello."}"#),
    ])
    .await;

    let document = server.read(RECORDING).await.expect("text");

    assert_eq!(document.text, "Hello.");
    let (_, second) = server.requests().remove(1);
    assert!(String::from_utf8_lossy(&second).contains("\r\n\r\njson\r\n"));
}

#[tokio::test]
async fn what_the_server_says_of_a_recording_is_told_from_what_it_says_of_itself() {
    const ANSWERS: [(&[(u16, &str)], &str); 8] = [
        (&[(400, "Invalid file format.")], "damaged"),
        (&[(413, "")], "too_large"),
        (&[(401, "wrong key")], "reader_unavailable"),
        (&[(429, "")], "reader_unavailable"),
        (&[(500, "")], "reader_unavailable"),
        (&[(200, "<html>")], "reader_unavailable"),
        (&[(200, r#"{"text": " "}"#)], "no_text"),
        (&[(200, "hang")], "timed_out"),
    ];
    for (answers, code) in ANSWERS {
        let server = Server::start(answers).await;
        let begin = Instant::now();

        let outcome = server.read(RECORDING).await;

        assert_eq!(
            outcome.map_err(|error| error.code()).err(),
            Some(code),
            "{answers:?}"
        );
        assert!(begin.elapsed() < Duration::from_secs(20), "{:?}", begin.elapsed());
    }
    let nobody = read_by("http://127.0.0.1:1/v1", RECORDING).await;
    assert_eq!(
        nobody.map_err(|error| error.code()).err(),
        Some("reader_unavailable")
    );
}

#[tokio::test]
async fn a_recording_over_the_limit_is_not_sent() {
    let server = Server::start(&[(200, r#"{"text": "Hello."}"#)]).await;
    let recording = [RECORDING, &vec![1; 1 << 20]].concat();

    let outcome = server.read(&recording).await;

    assert_eq!(outcome.map_err(|error| error.code()).err(), Some("too_large"));
    assert!(server.requests().is_empty());
}
