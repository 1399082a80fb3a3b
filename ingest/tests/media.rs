//! Pictures and recordings inside of documents are read where they stand, by who is configured to, and what nobody reads
//! is counted.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::routing::post;
use ingest::sandbox::ExtractorPool;
use ingest::{
    BlockKind, ExtractError, ExtractedDocument, Format, Hints, LeftOut, LeftOutReason, Limits, OcrOptions,
    Transcriber, TranscriptionOptions,
};

/// The heads of a picture of 320 by 320, of an icon, and of a recording.
const PICTURE: &[u8] = b"GIF89a\x40\x01\x40\x01\0\0\0\0\0\0\0\0";
const ICON: &[u8] = b"GIF89a\x10\0\x10\0\0\0\0\0\0\0\0\0";
const RECORDING: &[u8] = b"ID3\x04\0\0\0\0\0\0 and what is said in it";

/// What the stand-in for text recognition makes of a picture.
const RECOGNISED: &str = "A letter was recognised in GI.\n\nWith stdin stdout -l eng.";

fn pack(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut writer = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, content) in members {
        let options = zip::write::SimpleFileOptions::default();
        writer.start_file(*name, options).expect("a new entry");
        writer.write_all(content).expect("written to memory");
    }
    writer.finish().expect("a whole archive").into_inner()
}

fn letter() -> Vec<u8> {
    let picture = |id: &str| format!(r#"<w:drawing><a:blip r:embed="{id}"/></w:drawing>"#);
    let body = format!(
        r#"<w:document xmlns:w="w" xmlns:a="a" xmlns:r="r"><w:body><w:p><w:r><w:t>Above.</w:t>{}{}</w:r></w:p>
           <w:p><w:r><w:t>Below.</w:t>{}</w:r></w:p></w:body></w:document>"#,
        picture("p1"),
        picture("p2"),
        picture("p1"),
    );
    let parts = r#"<Relationships><Relationship Id="p1" Type="x/image" Target="media/scan.gif"/>
        <Relationship Id="p2" Type="x/image" Target="media/icon.gif"/></Relationships>"#;
    pack(&[
        ("word/document.xml", body.as_bytes()),
        ("word/_rels/document.xml.rels", parts.as_bytes()),
        ("word/media/scan.gif", PICTURE),
        ("word/media/icon.gif", ICON),
    ])
}

fn bundle() -> Vec<u8> {
    pack(&[
        ("a.md", b"# Hours\n\nTen to five."),
        ("memo.mp3", RECORDING),
        ("scan.gif", PICTURE),
        ("z.txt", b"The end."),
    ])
}

fn pool() -> ExtractorPool {
    let program = PathBuf::from(env!("CARGO_BIN_EXE_faulty-child"));
    ExtractorPool::new(program, Vec::new(), 1, Limits::default())
}

fn stand_in(language: &str) -> OcrOptions {
    OcrOptions {
        program: Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/ocr_stand_in.sh"),
        languages: vec![language.to_owned()],
        timeout: Duration::from_secs(10),
        document_timeout: Duration::from_secs(60),
    }
}

/// A transcription server that answers `status`, and how often it was asked.
async fn transcriber(status: u16) -> (Transcriber, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let answer = move || async move {
        count.fetch_add(1, Ordering::Relaxed);
        let status = axum::http::StatusCode::from_u16(status).expect("a status");
        (status, r#"{"text": "The gate opens at seven."}"#)
    };
    let router = Router::new().route("/v1/audio/transcriptions", post(answer));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move { axum::serve(listener, router).await.expect("it serves") });
    #[expect(clippy::disallowed_methods, reason = "the test's own server")]
    let client = reqwest::Client::builder().no_proxy().build().expect("a client");
    let options = TranscriptionOptions {
        base_url: format!("http://{address}/v1").parse().expect("a URL"),
        api_key: None,
        model: "whisper-1".to_owned(),
        timeout: Duration::from_secs(5),
        max_bytes: 1 << 20,
    };
    (Transcriber::new(client, options).expect("it can be made"), asked)
}

async fn read(pool: &ExtractorPool, bytes: &[u8], format: Format) -> Result<ExtractedDocument, ExtractError> {
    assert_eq!(Format::detect(bytes, "a"), Ok(format));
    pool.extract_bytes(bytes, format, &Hints::default()).await
}

fn left_out(format: Format, reason: LeftOutReason, count: u32) -> LeftOut {
    LeftOut {
        format,
        reason,
        count,
    }
}

#[tokio::test]
async fn a_picture_in_a_letter_is_read_once_where_it_is_shown_first_and_an_icon_never() {
    let pool = pool().with_ocr(stand_in("eng"));

    let document = read(&pool, &letter(), Format::Docx).await.expect("it has text");

    assert_eq!(document.text, format!("Above.\n\n{RECOGNISED}\n\nBelow."));
    assert_eq!(document.left_out, []);
    assert!(
        document
            .blocks
            .iter()
            .all(|block| block.kind == BlockKind::Paragraph)
    );
}

#[tokio::test]
async fn what_nobody_is_configured_to_read_is_counted() {
    let document = read(&pool(), &letter(), Format::Docx).await.expect("it has text");

    assert_eq!(document.text, "Above.\n\nBelow.");
    assert_eq!(
        document.left_out,
        [left_out(Format::Picture, LeftOutReason::NotConfigured, 1)]
    );
}

#[tokio::test]
async fn pictures_and_recordings_in_an_archive_stand_under_their_names() {
    let (transcriber, _) = transcriber(200).await;
    let pool = pool().with_ocr(stand_in("eng")).with_transcription(transcriber);

    let document = read(&pool, &bundle(), Format::Zip).await.expect("it has text");

    assert_eq!(
        document.text,
        format!(
            "a.md\n\nHours\n\nTen to five.\n\nmemo.mp3\n\nThe gate opens at seven.\n\nscan.gif\n\n{RECOGNISED}\n\nz.txt\n\nThe end."
        )
    );
    let spoken = document
        .blocks
        .iter()
        .find(|block| block.heading_path == ["memo.mp3"]);
    assert!(spoken.is_some(), "{:?}", document.blocks);
    assert_eq!(document.title, None);
}

#[tokio::test]
async fn one_that_cannot_be_read_is_named_and_counted_and_fails_nothing_else() {
    let (transcriber, _) = transcriber(415).await;
    let pool = pool().with_ocr(stand_in("blank")).with_transcription(transcriber);

    let document = read(&pool, &bundle(), Format::Zip).await.expect("it has text");

    let note = "Not read: memo.mp3 (damaged), scan.gif (no text in it).";
    assert!(document.text.ends_with(note), "{}", document.text);
    assert_eq!(
        document.left_out,
        [left_out(Format::Recording, LeftOutReason::Unreadable, 1)]
    );
}

#[tokio::test]
async fn a_document_that_is_tried_again_has_no_recording_transcribed_twice() {
    let (transcriber, asked) = transcriber(200).await;
    let pool = pool().with_transcription(transcriber);

    for _ in 0..2 {
        read(&pool, &bundle(), Format::Zip).await.expect("it has text");
    }

    assert_eq!(asked.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn while_the_server_does_not_answer_the_document_waits_for_it() {
    let (transcriber, _) = transcriber(503).await;
    let pool = pool().with_transcription(transcriber);

    let outcome = read(&pool, &bundle(), Format::Zip).await;

    assert_eq!(outcome, Err(ExtractError::Unavailable));
}

#[tokio::test]
async fn a_letter_of_nothing_but_pictures_is_called_scanned_until_somebody_reads_them() {
    let body = r#"<w:document xmlns:w="w" xmlns:a="a" xmlns:r="r"><w:p><w:drawing><a:blip r:embed="p"/></w:drawing></w:p></w:document>"#;
    let parts =
        r#"<Relationships><Relationship Id="p" Type="x/image" Target="media/1.gif"/></Relationships>"#;
    let scan = pack(&[
        ("word/document.xml", body.as_bytes()),
        ("word/_rels/document.xml.rels", parts.as_bytes()),
        ("word/media/1.gif", PICTURE),
    ]);

    let unread = read(&pool(), &scan, Format::Docx).await;
    let read = read(&pool().with_ocr(stand_in("eng")), &scan, Format::Docx).await;

    assert_eq!(unread, Err(ExtractError::NoText { scanned: true }));
    assert_eq!(read.map(|document| document.text), Ok(RECOGNISED.to_owned()));
}
