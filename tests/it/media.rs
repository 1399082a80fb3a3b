//! Pictures and recordings are documents where somebody is configured to read them.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::http::StatusCode;
use axum::routing::post;
use serde_json::{Value, json};

use crate::cuts;
use crate::harness::app::TestOptions;

const PICTURE: &[u8] = b"GIF89a\x40\x01\x40\x01\0\0\0\0\0\0\0\0";
const RECORDING: &[u8] = b"ID3\x04\0\0\0\0\0\0 and what is said in it";

/// A transcription server that gives one answer, and counts how often it was asked.
struct Listener {
    base_url: String,
    asked: Arc<AtomicUsize>,
}

impl Listener {
    async fn start(answer: Value) -> Self {
        Self::answering(StatusCode::OK, answer).await
    }

    async fn answering(status: StatusCode, answer: Value) -> Self {
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        let answer = move || async move {
            count.fetch_add(1, Ordering::Relaxed);
            (status, answer.to_string())
        };
        let server = Router::new().route("/v1/audio/transcriptions", post(answer));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a port");
        let address = listener.local_addr().expect("an address");
        tokio::spawn(async move { axum::serve(listener, server).await.expect("it serves") });
        Self {
            base_url: format!("http://{address}/v1"),
            asked,
        }
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

#[tokio::test]
async fn a_transcription_is_a_line_of_the_ledger_with_its_seconds_and_their_price() {
    for (answer, reported, seconds, tokens, cost) in [
        (
            json!({ "text": "Seven.", "duration": 61.5 }),
            "true",
            62,
            0,
            6_200,
        ),
        (json!({ "text": "Seven." }), "false", 1, 0, 100),
        (
            json!({ "text": "Seven.", "usage": { "type": "tokens", "input_tokens": 40, "output_tokens": 2 } }),
            "true",
            1,
            42,
            100,
        ),
    ] {
        let listener = Listener::start(answer).await;
        let service = TestOptions::default()
            .set("extract.transcription_base_url", &listener.base_url)
            .start()
            .await;
        let acme = service.tenant("acme").await;
        let desk = acme.chatbot("Desk").await;

        desk.upload(&[("memo.mp3", RECORDING)]).await.expect(202);
        service.drain_jobs().await;

        let ledger = acme.get("/api/usage/export").await.expect(200).text;
        let mut lines = csv::Reader::from_reader(ledger.as_bytes());
        let header = lines.headers().expect("a header").clone();
        let line = lines
            .records()
            .map(|line| line.expect("a line"))
            .find(|line| line.iter().any(|cell| cell == "transcription"))
            .expect("the call was booked");
        let cell = |name: &str| {
            let place = header.iter().position(|column| column == name);
            line[place.expect("a column")].to_owned()
        };
        assert_eq!(
            (
                cell("model").as_str(),
                cell("channel").as_str(),
                cell("reported").as_str()
            ),
            ("whisper-1", "ingest", reported)
        );
        assert_eq!(cell("audio_seconds"), seconds.to_string());
        assert_eq!(cell("chatbot_id"), desk.id);
        let (usage, budget) = (acme.usage().await, acme.budget().await);
        assert_eq!(usage["audio_seconds"], json!(seconds));
        assert_eq!(usage["cost_micro_usd"], json!(cost));
        assert_eq!(budget["used_micro_usd"], json!(cost));
        let counted = if tokens == 0 { seconds * 10 } else { tokens };
        assert_eq!(
            budget["used_tokens"],
            json!(counted),
            "a length counts where no tokens do"
        );
        assert_eq!(
            (&budget["reserved_tokens"], &budget["reserved_micro_usd"]),
            (&json!(0), &json!(0))
        );
    }
}

#[tokio::test]
async fn a_recording_over_the_limit_is_not_sent_and_is_read_once_the_limit_allows() {
    let listener = Listener::start(json!({ "text": "The gate opens at seven.", "duration": 2 })).await;
    let service = TestOptions::default()
        .set("extract.transcription_base_url", &listener.base_url)
        .start()
        .await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    for (limit, code) in [
        ("monthly_cost_limit_micro_usd", "cost_budget_exceeded"),
        ("monthly_token_limit", "token_budget_exceeded"),
    ] {
        let name = format!("{limit}.mp3");
        let recording = [RECORDING, limit.as_bytes()].concat();
        acme.patch("/api/tenant", json!({ limit: 9 })).await.expect(200);

        let taken = desk.upload(&[(&name, &recording)]).await.expect(202).json();
        service.drain_jobs().await;

        let id = taken["items"][0]["id"].as_str().expect("an id").to_owned();
        let failed = desk.document(&id).await;
        assert_eq!(
            (&failed["state"], &failed["error"]["code"]),
            (&json!("failed"), &json!(code))
        );
        let message = failed["error"]["message"].as_str().expect("a sentence");
        assert!(message.contains("limit"), "{message}");
        let asked_before = listener.asked();

        acme.patch("/api/tenant", json!({ limit: null }))
            .await
            .expect(200);
        desk.upload(&[(&name, &recording)]).await.expect(202);
        service.drain_jobs().await;

        assert_eq!(desk.document(&id).await["state"], json!("indexed"));
        assert_eq!(listener.asked(), asked_before + 1);
        assert_eq!(acme.budget().await["reserved_micro_usd"], json!(0));
    }
    assert_eq!(listener.asked(), 2, "what was refused was never sent");
}

#[tokio::test]
async fn what_a_server_refuses_to_write_down_costs_nothing() {
    let listener = Listener::answering(StatusCode::UNSUPPORTED_MEDIA_TYPE, json!({})).await;
    let service = TestOptions::default()
        .set("extract.transcription_base_url", &listener.base_url)
        .start()
        .await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    acme.patch("/api/tenant", json!({ "monthly_cost_limit_micro_usd": 1_000 }))
        .await
        .expect(200);

    desk.upload(&[("memo.mp3", RECORDING)]).await.expect(202);
    service.drain_jobs().await;

    let budget = acme.budget().await;
    assert_eq!(listener.asked(), 1);
    assert_eq!(
        (&budget["used_micro_usd"], &budget["reserved_micro_usd"]),
        (&json!(0), &json!(0))
    );
    assert_eq!(acme.usage().await["calls"], json!(0));
}

#[tokio::test]
async fn a_picture_and_a_recording_are_indexed_and_answered_from() {
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("ingest/tests/ocr_stand_in.sh");
    let transcript =
        json!({ "text": "", "segments": [{ "start": 61.0, "text": "The gate opens at seven." }] });
    let listener = Listener::start(transcript).await;
    let service = TestOptions::default()
        .set("extract.ocr_program", program.display())
        .set("extract.transcription_base_url", &listener.base_url)
        .start()
        .await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;

    let taken = desk
        .upload(&[("scan.gif", PICTURE), ("memo.mp3", RECORDING)])
        .await
        .expect(202)
        .json();
    service.drain_jobs().await;

    for (item, format, text) in [
        (0, "picture", "A letter was recognised in GI."),
        (1, "recording", "The gate opens at seven."),
    ] {
        let id = taken["items"][item]["id"].as_str().expect("an id");
        let document = desk.document(id).await;
        assert_eq!(
            (&document["format"], &document["state"]),
            (&json!(format), &json!("indexed")),
            "{document}"
        );
        let chunks = acme
            .get(&format!("/api/documents/{id}/chunks"))
            .await
            .expect(200)
            .json();
        assert!(chunks.to_string().contains(text), "{chunks}");
    }
}

#[tokio::test]
async fn what_nobody_reads_inside_of_a_document_is_counted_on_it() {
    let listener = Listener::start(json!({ "text": "The gate opens at seven.", "duration": 2 })).await;
    let bundle = archive(&[
        ("a.txt", b"Words."),
        ("memo.mp3", RECORDING),
        ("scan.gif", PICTURE),
    ]);
    let service = TestOptions::default()
        .set("extract.transcription_base_url", &listener.base_url)
        .start()
        .await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;

    let taken = desk.upload(&[("bundle.zip", &bundle)]).await.expect(202).json();
    service.drain_jobs().await;

    let id = taken["items"][0]["id"].as_str().expect("an id");
    let document = desk.document(id).await;
    assert_eq!(document["state"], json!("indexed"), "{document}");
    assert_eq!(
        document["left_out"],
        json!([{ "format": "picture", "reason": "not_configured", "count": 1 }])
    );
    let chunks = acme
        .get(&format!("/api/documents/{id}/chunks"))
        .await
        .expect(200)
        .text;
    assert!(chunks.contains("The gate opens at seven."), "{chunks}");
    assert!(
        chunks.contains("scan.gif (a picture, which nobody is set up to read)"),
        "{chunks}"
    );
    assert_eq!(
        acme.usage().await["audio_seconds"],
        json!(2),
        "inside of documents too"
    );
}

#[tokio::test]
async fn a_recording_inside_of_a_document_over_the_limit_fails_the_document_until_the_limit_allows() {
    let listener = Listener::start(json!({ "text": "The gate opens at seven.", "duration": 2 })).await;
    let bundle = archive(&[("a.txt", b"Words."), ("memo.mp3", RECORDING)]);
    let service = TestOptions::default()
        .set("extract.transcription_base_url", &listener.base_url)
        .start()
        .await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let limit = async |limit: Value| {
        let limits = json!({ "monthly_cost_limit_micro_usd": limit });
        acme.patch("/api/tenant", limits).await.expect(200);
        desk.upload(&[("bundle.zip", &bundle)]).await.expect(202);
        service.drain_jobs().await;
        let listed = acme
            .get(&format!("/api/chatbots/{}/documents", desk.id))
            .await
            .expect(200)
            .json();
        let document = &listed["items"][0];
        (document["state"].clone(), document["error"]["code"].clone())
    };

    assert_eq!(
        limit(json!(9)).await,
        (json!("failed"), json!("cost_budget_exceeded"))
    );
    assert_eq!(listener.asked(), 0);
    assert_eq!(limit(Value::Null).await.0, json!("indexed"));
}

/// A ZIP archive of these members, unpacked.
fn archive(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut writer = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, content) in members {
        let options = zip::write::SimpleFileOptions::default();
        writer.start_file(*name, options).expect("a new entry");
        std::io::Write::write_all(&mut writer, content).expect("written to memory");
    }
    writer.finish().expect("a whole archive").into_inner()
}

#[tokio::test]
async fn where_nobody_reads_them_they_are_refused_with_the_setting_that_is_missing() {
    let service = TestOptions::default().start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;

    for (name, bytes, setting) in [
        ("scan.gif", PICTURE, "extract.ocr_program"),
        ("memo.mp3", RECORDING, "extract.transcription_base_url"),
    ] {
        let reply = desk.upload(&[(name, bytes)]).await.expect(415);

        assert_eq!(reply.code(), "unsupported_type");
        assert!(
            reply.json()["detail"]
                .as_str()
                .is_some_and(|detail| detail.contains(setting)),
            "{name}"
        );
    }
}

#[tokio::test]
async fn a_recording_is_cut_otherwise_without_listening_to_it_once_more() {
    let words = "We oil oak tables twice a year. ".repeat(60);
    let listener = Listener::start(json!({ "text": words, "duration": 90.0 })).await;
    let service = TestOptions::default()
        .set("extract.transcription_base_url", &listener.base_url)
        .start()
        .await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let id = desk.upload(&[("memo.mp3", RECORDING)]).await.expect(202).json()["items"][0]["id"]
        .as_str()
        .expect("an id")
        .to_owned();
    service.drain_jobs().await;
    let before = cuts::chunk_count(&desk, &id).await;

    let cut = cuts::begin(&acme, cuts::small()).await;
    service.drain_jobs().await;
    cuts::order(&acme, &cut, "activate", 200).await;
    service.drain_jobs().await;

    assert!(cuts::chunk_count(&desk, &id).await > before);
    assert_eq!(listener.asked(), 1);
}
