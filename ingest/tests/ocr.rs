//! Scanned pages and pictures are read by the configured program, and nothing that it does makes a paged document fail.

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
        document_timeout: Duration::from_secs(60),
    }
}

/// The stand-in in a folder of its own, where it notes each of its runs.
struct Counted {
    folder: tempfile::TempDir,
}

impl Counted {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/ocr_stand_in.sh");
        std::fs::copy(script, folder.path().join("program")).expect("copied");
        std::fs::write(folder.path().join("runs"), "").expect("written");
        Self { folder }
    }

    fn options(&self, language: &str) -> OcrOptions {
        OcrOptions {
            program: self.folder.path().join("program"),
            timeout: Duration::from_secs(30),
            ..stand_in(language)
        }
    }

    fn runs(&self) -> usize {
        let runs = std::fs::read_to_string(self.folder.path().join("runs")).expect("it is there");
        runs.lines().count()
    }

    async fn wait_for_runs(&self, count: usize) {
        while self.runs() < count {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

fn pool(ocr: OcrOptions) -> ExtractorPool {
    let program = PathBuf::from(env!("CARGO_BIN_EXE_faulty-child"));
    ExtractorPool::new(program, Vec::new(), 1, Limits::default()).with_ocr(ocr)
}

fn scans(count: usize) -> Vec<Page> {
    (0..count).map(|_| Page::Scan("DeviceGray")).collect()
}

fn pages_of(document: &ExtractedDocument) -> Vec<u32> {
    let mut pages: Vec<u32> = document.blocks.iter().filter_map(|block| block.page).collect();
    pages.dedup();
    pages
}

/// A picture of this size, as far as its head says.
fn gif(width: u16, height: u16) -> Vec<u8> {
    [
        b"GIF89a".as_slice(),
        &width.to_le_bytes(),
        &height.to_le_bytes(),
        &[0; 8],
    ]
    .concat()
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

#[tokio::test]
async fn all_pages_of_a_document_share_a_time_and_what_was_read_by_then_counts() {
    let ocr = OcrOptions {
        timeout: Duration::from_secs(30),
        document_timeout: Duration::from_secs(3),
        ..stand_in("slow")
    };
    let begin = Instant::now();

    let document = read(&scans(12), Some(ocr)).await.expect("text");

    let read = pages_of(&document);
    assert!((1..8).contains(&read.len()), "{read:?}");
    let unread: Vec<u32> = (read.len() as u32 + 1..=12).collect();
    assert_eq!((document.scanned_pages, document.page_count), (unread, Some(12)));
    assert!(begin.elapsed() < Duration::from_secs(30), "{:?}", begin.elapsed());
}

#[tokio::test]
async fn a_document_that_was_interrupted_goes_on_where_it_was() {
    let program = Counted::new();
    let pool = pool(program.options("slow"));
    let bytes = pdf(&scans(4));
    let hints = Hints::default();
    tokio::select! {
        _ = pool.extract_bytes(&bytes, Format::Pdf, &hints) => panic!("it cannot be that fast"),
        () = program.wait_for_runs(3) => {}
    }

    let document = pool
        .extract_bytes(&bytes, Format::Pdf, &hints)
        .await
        .expect("text");

    assert_eq!(pages_of(&document), [1, 2, 3, 4]);
    // The third page was under way and is read again.
    assert_eq!(program.runs(), 5);
    let again = pool.extract_bytes(&bytes, Format::Pdf, &hints).await;
    assert_eq!(again, Ok(document));
    assert_eq!(program.runs(), 5);
}

#[tokio::test]
async fn other_documents_are_read_while_the_program_works() {
    let program = Counted::new();
    let pool = pool(program.options("hang"));
    let bytes = pdf(&scans(1));
    let hints = Hints::default();
    let others = async {
        program.wait_for_runs(1).await;
        pool.extract_bytes(b"Quick.", Format::Text, &hints).await
    };

    let other = tokio::select! {
        _ = pool.extract_bytes(&bytes, Format::Pdf, &hints) => panic!("the program hangs"),
        other = others => other,
    };

    assert_eq!(other.expect("text").text, "Quick.");
}

#[tokio::test]
async fn a_picture_is_read_as_a_page_without_a_number() {
    let picture = gif(640, 480);
    let pool = pool(stand_in("eng"));
    assert_eq!(Format::detect(&picture, "scan.txt"), Ok(Format::Picture));
    assert!(pool.media().pictures && !pool.media().recordings);

    let document = pool
        .extract_bytes(&picture, Format::Picture, &Hints::default())
        .await
        .expect("text");

    assert_eq!(
        document.text,
        "A letter was recognised in GI.\n\nWith stdin stdout -l eng+deu."
    );
    assert!(document.blocks.iter().all(|block| block.page.is_none()));
}

#[tokio::test]
async fn a_picture_that_cannot_be_read_says_why() {
    let missing = OcrOptions {
        program: PathBuf::from("/nowhere/tesseract"),
        ..stand_in("eng")
    };
    for (ocr, picture, code) in [
        (stand_in("eng"), gif(4_097, 4_097), "too_large"),
        (stand_in("eng"), b"GIF89a".to_vec(), "damaged"),
        (stand_in("fail"), gif(9, 9), "damaged"),
        (stand_in("blank"), gif(9, 9), "no_text"),
        (stand_in("hang"), gif(9, 9), "timed_out"),
        (missing, gif(9, 9), "reader_unavailable"),
    ] {
        let outcome = pool(ocr)
            .extract_bytes(&picture, Format::Picture, &Hints::default())
            .await;

        assert_eq!(outcome.map_err(|error| error.code()).err(), Some(code));
    }
    let outcome = ExtractorPool::new(PathBuf::from("/nowhere"), Vec::new(), 1, Limits::default())
        .extract_bytes(&gif(9, 9), Format::Picture, &Hints::default())
        .await;
    assert_eq!(
        outcome.map_err(|error| error.code()).err(),
        Some("unsupported_type")
    );
}
