//! What must hold for every input, as functions of bytes: the fuzz targets call them with what libFuzzer finds,
//! and the property tests of the crate with random and mutated files, so both check the same.

use std::time::Duration;

use ingest::loader::drive::{Change, ChangePage, ServiceAccountKey};
use ingest::loader::web::{MAX_ADDRESS_BYTES, Patterns, Robots, Sitemap, normalize};
use ingest::{ChunkOptions, ExtractError, ExtractedDocument, Format, Hints, Limits, chunk, extract};

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

/// Reads a robots.txt: it allows or forbids, and names sitemaps that can be fetched.
pub fn read_robots(bytes: &[u8]) {
    let robots = Robots::parse(bytes, "frontdesk");
    let site = url("https://shop.example/");
    for path in ["", "robots.txt", "a/b?c=d", "%2F*$"] {
        let _ = robots.allows(&url(&format!("https://shop.example/{path}")));
    }
    let _ = robots.crawl_delay();
    for sitemap in robots.sitemaps(&site) {
        assert!(matches!(sitemap.scheme(), "http" | "https"), "{sitemap}");
    }
}

/// Reads a sitemap, packed or not: what it lists can be fetched.
pub fn read_sitemap(bytes: &[u8]) {
    let location = url("https://shop.example/sitemap.xml");
    let Ok(sitemap) = Sitemap::parse(bytes, &location) else {
        return;
    };
    let pages = sitemap.pages.iter().map(|entry| &entry.address);
    for address in pages.chain(&sitemap.sitemaps) {
        assert!(matches!(address.scheme(), "http" | "https"), "{address}");
    }
}

/// Normalises an address: the outcome is bounded, and normalising it again changes nothing.
pub fn read_address(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let base = url("https://shop.example/a/b?c");
    let Ok(normal) = base.join(&text).map(|address| normalize(&address)) else {
        return;
    };
    let Ok(normal) = normal else { return };
    assert!(normal.as_str().len() <= MAX_ADDRESS_BYTES);
    assert_eq!(normalize(&normal), Ok(normal));
}

/// Reads patterns of addresses, one a line, and asks them about some.
pub fn read_patterns(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let lines: Vec<&str> = text.lines().collect();
    if let Ok(patterns) = Patterns::parse(&lines) {
        for path in ["", "blog/2024/a", "a?b=c", "%C3%BC"] {
            let _ = patterns.matches(&url(&format!("https://shop.example/{path}")));
        }
    }
}

/// Reads what Google Drive answers, and the key of a service account: ids lead to no other path of the service.
pub fn read_drive(bytes: &[u8]) {
    if let Ok(page) = ChangePage::parse(bytes) {
        for change in page.changes {
            if let Change::Present(file) = change {
                assert!(
                    !file.id.is_empty() && !file.id.contains(['/', '\'', '?', '#']),
                    "{file:?}"
                );
                assert!(file.url.starts_with("https://"), "{file:?}");
            }
        }
    }
    if let Ok(json) = serde_json::from_slice(bytes) {
        let _ = ServiceAccountKey::parse(&json);
    }
}

fn url(text: &str) -> url::Url {
    url::Url::parse(text).expect("an address that is written here")
}
