//! Tables and JSON Lines are read as they come: a reader holds neither the file nor its text, whatever their size.

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use ingest::sandbox::ExtractorPool;
use ingest::{ExtractError, Format, FreeOfCharge, Hints, Limits};

/// The file is larger than what its reader may hold.
const FILE_BYTES: usize = 48 << 20;
const MEMORY_BYTES: u64 = 40 << 20;

fn pool() -> ExtractorPool {
    let limits = Limits {
        memory_bytes: MEMORY_BYTES,
        timeout: Duration::from_secs(300),
        ..Limits::default()
    };
    ExtractorPool::new(
        PathBuf::from(env!("CARGO_BIN_EXE_faulty-child")),
        Vec::new(),
        1,
        limits,
    )
}

/// A file of this head and of lines that `line` makes, with their number.
fn file(head: &str, line: impl Fn(usize) -> String) -> (tempfile::NamedTempFile, usize) {
    let file = tempfile::NamedTempFile::new().expect("a file");
    let mut writer = std::io::BufWriter::new(file.as_file());
    writer.write_all(head.as_bytes()).expect("written");
    let (mut bytes, mut lines) = (head.len(), 0);
    while bytes < FILE_BYTES {
        let line = line(lines);
        writer.write_all(line.as_bytes()).expect("written");
        bytes += line.len();
        lines += 1;
    }
    writer.flush().expect("written");
    drop(writer);
    (file, lines)
}

/// What comes of a file: how many blocks, the largest part, and the last block.
async fn read(
    file: &tempfile::NamedTempFile,
    format: Format,
) -> Result<(usize, usize, String), ExtractError> {
    let pool = pool();
    let mut parts = pool
        .extract_parts(file.path(), format, &Hints::default(), &FreeOfCharge)
        .await?;
    let (mut blocks, mut largest, mut last) = (0, 0, String::new());
    while let Some(part) = parts.next().await? {
        blocks += part.blocks.len();
        largest = largest.max(part.text.len());
        if let Some(block) = part.blocks.last() {
            last = part.text.chars().skip(block.start).collect();
        }
    }
    Ok((blocks, largest, last))
}

#[tokio::test]
async fn a_table_larger_than_its_readers_memory_names_the_columns_of_every_row() {
    let words = "Größe und Farbe nach Wahl ".repeat(40);
    let (file, rows) = file("Nummer;Artikel;Preis\n", |row| format!("{row};{words};{row} €\n"));

    let (blocks, largest, last) = read(&file, Format::Csv).await.expect("text");

    assert_eq!(blocks, rows);
    assert!(largest < 4 << 20, "a part of {largest} bytes");
    let number = rows - 1;
    let expected = format!(
        "Nummer: {number}\nArtikel: {}\nPreis: {number} €",
        words.trim_end()
    );
    assert_eq!(last, expected);
}

#[tokio::test]
async fn json_lines_larger_than_their_readers_memory_are_read_line_by_line() {
    let words = "within thirty days ".repeat(60);
    let (file, lines) = file("", |line| format!("{{\"id\": {line}, \"text\": \"{words}\"}}\n"));

    let (blocks, largest, last) = read(&file, Format::Jsonl).await.expect("text");

    assert_eq!(blocks, lines);
    assert!(largest < 4 << 20, "a part of {largest} bytes");
    assert_eq!(last, format!("id: {}\ntext: {}", lines - 1, words.trim_end()));
}

#[tokio::test]
async fn a_table_over_the_limit_is_refused_at_once_and_its_reader_ends() {
    let (file, _) = file("a;b\n", |row| format!("{row};{}\n", "x".repeat(1_000)));
    let limits = Limits {
        max_unpacked_bytes: 1 << 20,
        ..Limits::default()
    };
    let program = PathBuf::from(env!("CARGO_BIN_EXE_faulty-child"));
    let pool = ExtractorPool::new(program, Vec::new(), 1, limits);

    let outcome = pool.extract(file.path(), Format::Csv, &Hints::default()).await;

    assert_eq!(outcome.map_err(|error| error.code()).err(), Some("too_large"));
    let next = pool
        .extract_bytes(b"Words.", Format::Text, &Hints::default())
        .await;
    assert!(next.is_ok_and(|document| document.text == "Words."));
}
