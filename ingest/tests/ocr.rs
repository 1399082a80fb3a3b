//! Scanned pages are read by the configured program, and nothing that it does makes a document fail.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ingest::sandbox::ExtractorPool;
use ingest::{BlockKind, ExtractError, ExtractedDocument, Format, Hints, Limits, OcrOptions};
use lopdf::{Dictionary, Document, Object, Stream, dictionary};

/// A page of a test document.
enum Page {
    Text(&'static str),
    /// Filled by an image of this colour space.
    Scan(&'static str),
}

fn pdf(pages: &[Page]) -> Vec<u8> {
    let mut document = Document::with_version("1.5");
    let tree = document.new_object_id();
    let font = document.add_object(dictionary! {
        "Type" => "Font", "Subtype" => "Type1", "BaseFont" => "Helvetica", "Encoding" => "WinAnsiEncoding",
    });
    let kids: Vec<Object> = pages
        .iter()
        .map(|page| {
            let (content, images) = match page {
                Page::Text(text) => (
                    format!("BT /F1 11 Tf 72 700 Td ({text}) Tj ET"),
                    Dictionary::new(),
                ),
                Page::Scan(space) => {
                    let image = document.add_object(Stream::new(
                        dictionary! {
                            "Subtype" => "Image", "Width" => 4, "Height" => 4, "BitsPerComponent" => 8,
                            "ColorSpace" => *space,
                        },
                        vec![200; 16],
                    ));
                    (
                        "q 595 0 0 842 0 0 cm /Im Do Q".to_owned(),
                        dictionary! { "Im" => image },
                    )
                }
            };
            let stream = document.add_object(Stream::new(Dictionary::new(), content.into_bytes()));
            let page = dictionary! {
                "Type" => "Page", "Parent" => tree, "Contents" => stream,
                "Resources" => dictionary! { "Font" => dictionary! { "F1" => font }, "XObject" => images },
                "MediaBox" => vec![0.into(), 0.into(), 595.into(), 842.into()],
            };
            document.add_object(page).into()
        })
        .collect();
    let count = kids.len() as i64;
    let pages = dictionary! { "Type" => "Pages", "Kids" => kids, "Count" => count };
    document.objects.insert(tree, pages.into());
    let catalog = document.add_object(dictionary! { "Type" => "Catalog", "Pages" => tree });
    document.trailer.set("Root", catalog);
    let mut bytes = Vec::new();
    document.save_to(&mut bytes).expect("written to memory");
    bytes
}

fn stand_in(language: &str) -> OcrOptions {
    OcrOptions {
        program: Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/ocr_stand_in.sh"),
        languages: vec![language.to_owned(), "deu".to_owned()],
        timeout: Duration::from_secs(2),
    }
}

async fn read(pages: &[Page], ocr: Option<OcrOptions>) -> Result<ExtractedDocument, ExtractError> {
    let program = PathBuf::from(env!("CARGO_BIN_EXE_faulty-child"));
    let mut pool = ExtractorPool::new(program, Vec::new(), 1, Limits::default());
    if let Some(ocr) = ocr {
        pool = pool.with_ocr(ocr);
    }
    pool.extract_bytes(&pdf(pages), Format::Pdf, &Hints::default())
        .await
}

const MIXED: [Page; 4] = [
    Page::Text("First page."),
    Page::Scan("DeviceGray"),
    Page::Text("Third page."),
    // A space that nobody knows: its image cannot be unpacked.
    Page::Scan("Unknown"),
];

#[tokio::test]
async fn scanned_pages_come_as_paragraphs_at_their_place() {
    let document = read(&MIXED, Some(stand_in("eng"))).await.expect("text");

    assert_eq!(
        document.text,
        "First page.\n\nA letter was recognised in P5.\n\nWith stdin stdout -l eng+deu.\n\nThird page."
    );
    let pages: Vec<Option<u32>> = document.blocks.iter().map(|block| block.page).collect();
    assert_eq!(pages, [Some(1), Some(2), Some(2), Some(3)]);
    assert!(
        document
            .blocks
            .iter()
            .all(|block| block.kind == BlockKind::Paragraph)
    );
    assert_eq!((document.scanned_pages, document.page_count), (vec![4], Some(4)));
}

#[tokio::test]
async fn a_document_of_scans_alone_is_read_too() {
    let pages = [
        Page::Scan("DeviceGray"),
        Page::Scan("DeviceGray"),
        Page::Scan("Unknown"),
    ];

    let document = read(&pages, Some(stand_in("eng"))).await.expect("text");

    let pages: Vec<Option<u32>> = document.blocks.iter().map(|block| block.page).collect();
    assert_eq!(pages, [Some(1), Some(1), Some(2), Some(2)]);
    assert_eq!((document.scanned_pages, document.page_count), (vec![3], Some(3)));
}

#[tokio::test]
async fn without_a_program_scans_are_reported() {
    let scans = [Page::Scan("DeviceGray")];

    assert_eq!(
        read(&scans, None).await,
        Err(ExtractError::NoText { scanned: true })
    );
    assert_eq!(read(&MIXED, None).await.expect("text").scanned_pages, [2, 4]);
}

#[tokio::test]
async fn a_program_that_hangs_fails_floods_or_is_missing_changes_nothing() {
    let missing = OcrOptions {
        program: PathBuf::from("/nowhere/tesseract"),
        ..stand_in("eng")
    };
    for ocr in [
        stand_in("hang"),
        stand_in("fail"),
        stand_in("flood"),
        stand_in("blank"),
        missing,
    ] {
        let begin = Instant::now();

        let document = read(&MIXED, Some(ocr.clone())).await.expect("text");

        assert_eq!(document.text, "First page.\n\nThird page.", "{ocr:?}");
        assert_eq!(document.scanned_pages, [2, 4], "{ocr:?}");
        assert!(begin.elapsed() < Duration::from_secs(20), "{:?}", begin.elapsed());
    }
}
