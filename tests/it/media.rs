//! Pictures and recordings are documents where somebody is configured to read them.

use std::path::Path;

use axum::Router;
use axum::routing::post;
use serde_json::json;

use crate::harness::app::TestOptions;

const PICTURE: &[u8] = b"GIF89a\x40\x01\x40\x01\0\0\0\0\0\0\0\0";
const RECORDING: &[u8] = b"ID3\x04\0\0\0\0\0\0 and what is said in it";

#[tokio::test]
async fn a_picture_and_a_recording_are_indexed_and_answered_from() {
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("ingest/tests/ocr_stand_in.sh");
    let transcript =
        json!({ "text": "", "segments": [{ "start": 61.0, "text": "The gate opens at seven." }] });
    let reply = transcript.to_string();
    let server = Router::new().route("/v1/audio/transcriptions", post(|| async move { reply }));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move { axum::serve(listener, server).await.expect("it serves") });
    let service = TestOptions::default()
        .set("extract.ocr_program", program.display())
        .set("extract.transcription_base_url", format!("http://{address}/v1"))
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
