//! The promises of the sandbox: a document that kills its reader fails alone and says why.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ingest::sandbox::ExtractorPool;
use ingest::{ExtractedDocument, Format, Hints, Limits};

struct Bench {
    folder: tempfile::TempDir,
    pool: Arc<ExtractorPool>,
}

impl Bench {
    fn new(size: usize, limits: Limits) -> Self {
        let program = PathBuf::from(env!("CARGO_BIN_EXE_faulty-child"));
        let pool =
            ExtractorPool::with_idle_timeout(program, Vec::new(), size, limits, Duration::from_millis(400));
        Self {
            folder: tempfile::tempdir().expect("a temporary folder"),
            pool: Arc::new(pool),
        }
    }

    fn file(&self, content: &str) -> PathBuf {
        static NUMBER: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let path = self.folder.path().join(format!("{number}"));
        std::fs::write(&path, content).expect("a file in the temporary folder");
        path
    }

    async fn read(&self, content: &str) -> Result<ExtractedDocument, &'static str> {
        read(&self.pool, &self.file(content)).await
    }
}

async fn read(pool: &ExtractorPool, path: &Path) -> Result<ExtractedDocument, &'static str> {
    pool.extract(path, Format::Text, &Hints::named("a.txt"))
        .await
        .map_err(|error| error.code())
}

fn short_limits() -> Limits {
    Limits {
        timeout: Duration::from_secs(2),
        memory_bytes: 128 << 20,
        ..Limits::default()
    }
}

fn text_of(result: Result<ExtractedDocument, &'static str>) -> Result<String, &'static str> {
    result.map(|document| document.text)
}

#[tokio::test]
async fn documents_are_read_by_a_process_that_is_reused() {
    let bench = Bench::new(1, short_limits());

    for number in 0..50 {
        let text = format!("document {number}");
        assert_eq!(text_of(bench.read(&text).await), Ok(text));
    }

    assert_eq!(bench.pool.idle_processes(), 1);
}

#[tokio::test]
async fn a_document_of_megabytes_comes_back_whole() {
    let bench = Bench::new(1, Limits::default());
    let text = "A paragraph among many, none of which is lost.\n\n".repeat(40_000);

    let document = bench.read(&text).await.expect("text");

    assert_eq!(document.blocks.len(), 40_000);
    assert_eq!(document.text, text.trim_end());
}

#[tokio::test]
async fn every_way_to_die_has_its_code_and_the_next_document_is_read() {
    let bench = Bench::new(1, short_limits());

    for (order, code) in [
        ("please abort", "crashed"),
        ("please exit", "crashed"),
        ("please panic", "crashed"),
        ("please overflow the stack", "crashed"),
        ("please hang", "timed_out"),
        ("please eat memory", "out_of_memory"),
    ] {
        assert_eq!(text_of(bench.read(order).await), Err(code), "{order}");
        assert_eq!(
            text_of(bench.read("and on").await),
            Ok("and on".to_owned()),
            "after {order}"
        );
    }
}

#[tokio::test]
async fn a_hanging_document_does_not_hold_up_others() {
    let bench = Bench::new(
        2,
        Limits {
            timeout: Duration::from_secs(60),
            ..short_limits()
        },
    );
    let (pool, path) = (Arc::clone(&bench.pool), bench.file("please hang"));
    let hanging = tokio::spawn(async move { read(&pool, &path).await });

    for _ in 0..20 {
        assert_eq!(text_of(bench.read("quick").await), Ok("quick".to_owned()));
    }

    assert!(!hanging.is_finished());
    hanging.abort();
}

#[tokio::test]
async fn an_extractor_cannot_open_files() {
    let bench = Bench::new(1, short_limits());

    assert_eq!(
        text_of(bench.read("please open a file").await),
        Ok("it is forbidden".to_owned())
    );
}

#[tokio::test]
async fn idle_processes_end_and_new_ones_start_when_needed() {
    let bench = Bench::new(1, short_limits());
    bench.read("first").await.expect("text");
    assert_eq!(bench.pool.idle_processes(), 1);

    tokio::time::sleep(Duration::from_millis(900)).await;

    assert_eq!(bench.pool.idle_processes(), 0);
    assert_eq!(text_of(bench.read("second").await), Ok("second".to_owned()));
}

#[tokio::test]
async fn a_cancelled_document_ends_its_process_and_frees_its_place() {
    let bench = Bench::new(
        1,
        Limits {
            timeout: Duration::from_secs(60),
            ..short_limits()
        },
    );
    let path = bench.file("please hang");

    let cancelled = tokio::time::timeout(Duration::from_millis(300), read(&bench.pool, &path)).await;

    assert!(cancelled.is_err());
    assert_eq!(text_of(bench.read("next").await), Ok("next".to_owned()));
}

#[tokio::test]
async fn what_the_machine_cannot_do_is_no_verdict_on_a_document() {
    let pool = ExtractorPool::new(
        PathBuf::from("/nonexistent/program"),
        Vec::new(),
        1,
        short_limits(),
    );
    let bench = Bench::new(1, short_limits());
    let unavailable = Err("reader_unavailable");

    assert_eq!(text_of(read(&pool, &bench.file("text")).await), unavailable);
    let absent = bench.folder.path().join("absent");
    assert_eq!(text_of(read(&bench.pool, &absent).await), unavailable);
    assert_eq!(text_of(bench.read("and on").await), Ok("and on".to_owned()));
}

#[tokio::test]
async fn a_document_that_kills_its_reader_is_tried_twice_at_most() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let starts = folder.path().join("starts");
    let arguments = vec![starts.to_str().expect("a path of text").to_owned()];
    let program = PathBuf::from(env!("CARGO_BIN_EXE_faulty-child"));
    let pool = ExtractorPool::new(program, arguments, 1, short_limits());
    let bench = Bench::new(1, short_limits());
    let count = || {
        let lines = std::fs::read_to_string(&starts).expect("starts were noted");
        lines.lines().count()
    };
    read(&pool, &bench.file("harmless")).await.expect("text");
    assert_eq!(count(), 1);

    // By the process that has read another document, and by a fresh one.
    assert_eq!(
        text_of(read(&pool, &bench.file("please abort")).await),
        Err("crashed")
    );
    assert_eq!(count(), 2);

    // With no process at hand the first is fresh.
    assert_eq!(
        text_of(read(&pool, &bench.file("please abort")).await),
        Err("crashed")
    );
    assert_eq!(count(), 3);
}

/// Not a benchmark, but the reason for reusing processes: one per document would take many seconds.
#[tokio::test]
async fn a_thousand_short_documents_take_a_moment() {
    let bench = Bench::new(2, Limits::default());
    let path = bench.file("a short document, as most are");
    let begin = Instant::now();

    for _ in 0..1_000 {
        read(&bench.pool, &path).await.expect("text");
    }

    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
}

#[test]
fn an_extractor_ends_when_its_parent_closes_the_pipe_even_while_it_is_busy() {
    use std::io::Write;
    let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_faulty-child"))
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::null())
        .spawn()
        .expect("the extractor starts");
    let body = b"please hang";
    let limits = serde_json::to_string(&Limits::default()).expect("limits are JSON");
    let head = format!(
        r#"{{"format":"text","hints":{{"file_name":"a"}},"limits":{limits},"body_bytes":{}}}"#,
        body.len()
    );
    let mut input = child.stdin.take().expect("a pipe");
    input
        .write_all(&(head.len() as u32).to_le_bytes())
        .expect("written");
    input.write_all(head.as_bytes()).expect("written");
    input.write_all(body).expect("written");
    std::thread::sleep(Duration::from_millis(100));
    assert!(child.try_wait().expect("its state").is_none(), "it is busy");

    drop(input);

    let begin = Instant::now();
    while child.try_wait().expect("its state").is_none() {
        assert!(begin.elapsed() < Duration::from_secs(5), "it outlives its parent");
        std::thread::sleep(Duration::from_millis(10));
    }
}
