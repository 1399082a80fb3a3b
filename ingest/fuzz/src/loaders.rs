//! What holds for what websites and Google Drive say of themselves.

use ingest::loader::drive::{Change, ChangePage, ServiceAccountKey};
use ingest::loader::web::{MAX_ADDRESS_BYTES, Patterns, Robots, Sitemap, normalize};

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
