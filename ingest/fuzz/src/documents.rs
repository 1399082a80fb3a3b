//! What holds for documents in every format.

use std::time::Duration;

use ingest::{ChunkOptions, ExtractError, ExtractedDocument, Format, Hints, Limits, Media, chunk, extract};

/// Small limits keep a run quick; what they refuse is refused the same way with larger ones.
pub fn small_limits() -> Limits {
    Limits {
        memory_bytes: 64 << 20,
        timeout: Duration::from_secs(5),
        max_pages: 50,
        max_unpacked_bytes: 4 << 20,
        max_ratio: 100,
        max_entries: 200,
        max_depth: 64,
        media: Media {
            pictures: true,
            recordings: true,
        },
    }
}

/// Reads `bytes` as `format`: no panic, and a document keeps its promises.
pub fn extract_as(format: Format, bytes: &[u8]) {
    let outcome = extract(bytes, format, &Hints::default(), &small_limits());
    check(outcome);
}

/// Finds out what `bytes` are, whatever the name says, and reads them.
pub fn detect_and_extract(bytes: &[u8], file_name: &str) {
    if let Ok(format) = Format::detect(bytes, file_name) {
        extract_as(format, bytes);
    }
}

/// Blocks are ordered, do not overlap, lie within the text, and give chunks.
pub fn check(outcome: Result<ExtractedDocument, ExtractError>) {
    let document = match outcome {
        Ok(document) => document,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            return;
        }
    };
    let length = document.text.chars().count();
    let mut end = 0;
    for block in &document.blocks {
        assert!(
            end <= block.start && block.start < block.end && block.end <= length,
            "{block:?}"
        );
        end = block.end;
    }
    // A web page may have links and no text.
    if document.text.is_empty() && document.web.is_some() {
        return;
    }
    assert!(!document.text.trim().is_empty());
    let chunks = chunk(&document, &ChunkOptions::default(), &|text| {
        text.split_whitespace().count()
    });
    assert!(!chunks.is_empty());
}
