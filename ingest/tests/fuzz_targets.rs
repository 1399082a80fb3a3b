//! The fuzz targets, compiled without libFuzzer, so that they cannot rot, and run on seeds and what becomes of them.
//! What they call is `fuzz/src/lib.rs`.

// The targets name both crates; here this one stands in for them.
extern crate self as ingest_fuzz;
extern crate self as libfuzzer_sys;

use std::collections::BTreeSet;
use std::path::Path;

use ingest::Format;
use proptest::prelude::*;

#[path = "../fuzz/src/lib.rs"]
mod properties;

pub(crate) use properties::*;

macro_rules! fuzz_target {
    (|$bytes:ident: &[u8]| $call:expr) => {
        pub(crate) fn run($bytes: &[u8]) {
            $call;
        }
    };
}
pub(crate) use fuzz_target;

macro_rules! targets {
    ($($name:ident)*) => {
        #[path = "../fuzz/fuzz_targets"]
        #[allow(unused_attributes, reason = "each is a program of its own where libFuzzer runs it")]
        mod targets {
            $(pub(crate) mod $name;)*
        }

        /// Every target with its name.
        const TARGETS: &[(&str, fn(&[u8]))] = &[$((stringify!($name), targets::$name::run)),*];
    };
}

targets! {
    address asciidoc csv detect docx drive eml epub html json jsonl markdown msg odp ods odt patterns pdf pptx robots rst
    rtf sitemap text xlsx zip
}

/// What the targets that read no documents are about.
const SEEDS: [(&str, &str); 9] = [
    (
        "robots",
        "User-agent: frontdesk\nDisallow: /a*b$\nAllow: /a\nCrawl-delay: 2\n\nUser-agent: *\nDisallow: /\nSitemap: /s.xml\n",
    ),
    (
        "sitemap",
        "<?xml version='1.0'?><urlset xmlns='http://www.sitemaps.org/schemas/sitemap/0.9'><url><loc>https://shop.example/a?b=c&amp;d</loc>\
         <lastmod>2024-03-04</lastmod></url></urlset>",
    ),
    (
        "sitemap",
        "<sitemapindex><sitemap><loc>https://shop.example/1.xml.gz</loc></sitemap></sitemapindex>",
    ),
    ("sitemap", "https://shop.example/a\nhttps://shop.example/b\n"),
    ("address", "../x/%7Ey/./z;s?utm_source=a&b=%c3%bc&phpsessid=1#top"),
    ("address", "http://[::ffff:127.0.0.1]:80/\u{202e}\u{fc}?"),
    (
        "patterns",
        "/blog/**\n*.pdf\n/[0-9]{4}/\nhttps://shop.example/*?*\n",
    ),
    (
        "drive",
        r#"{"nextPageToken": "2", "changes": [{"changeType": "file", "removed": false, "fileId": "a_-1", "file":
            {"id": "a_-1", "name": "x/../y", "mimeType": "application/pdf", "size": "12", "parents": ["r"], "md5Checksum": "AB",
             "webViewLink": "https://drive.google.com/x", "modifiedTime": "2024-03-04T09:00:00Z"}}, {"fileId": "b", "removed": true}]}"#,
    ),
    (
        "drive",
        r#"{"type": "service_account", "client_email": "a@b", "private_key": "-----BEGIN PRIVATE KEY-----\nAA==\n-----END PRIVATE KEY-----\n",
            "token_uri": "https://oauth2.googleapis.com/token"}"#,
    ),
];

fn target(name: &str) -> fn(&[u8]) {
    let found = TARGETS.iter().find(|(known, _)| *known == name);
    found.expect("it is a target").1
}

#[test]
fn every_target_is_compiled_here_and_built_for_the_fuzzer() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    let manifest = std::fs::read_to_string(folder.join("Cargo.toml")).expect("it is there");
    let files: BTreeSet<String> = std::fs::read_dir(folder.join("fuzz_targets"))
        .expect("it is there")
        .map(|entry| entry.expect("an entry").path())
        .filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned()))
        .collect();

    let compiled: BTreeSet<String> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();

    assert_eq!(files, compiled);
    for name in &compiled {
        let program = format!("[[bin]]\nname = \"{name}\"\npath = \"fuzz_targets/{name}.rs\"\n");
        assert!(
            manifest.contains(&program),
            "{name} is missing in fuzz/Cargo.toml"
        );
    }
}

#[test]
fn every_format_that_we_read_ourselves_has_a_target() {
    for format in Format::ALL {
        let is_read_by_others = matches!(format, Format::Picture | Format::Recording);
        let has_target = TARGETS.iter().any(|(name, _)| *name == format.as_str());
        assert_eq!(has_target, !is_read_by_others, "{}", format.as_str());
    }
}

#[test]
fn seeds_keep_every_promise() {
    for (name, seed) in SEEDS {
        target(name)(seed.as_bytes());
    }
    for (_, run) in TARGETS {
        run(b"");
        run(b"Goods may be returned.");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn changed_seeds_and_arbitrary_bytes_keep_every_promise(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
        doubled in any::<(prop::sample::Index, prop::sample::Index)>(),
        other in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        for (name, seed) in SEEDS {
            let mut bytes = seed.as_bytes().to_vec();
            for (place, byte) in &changes {
                let at = place.index(bytes.len());
                bytes[at] = *byte;
            }
            let (from, to) = (doubled.0.index(bytes.len()), doubled.1.index(bytes.len()));
            let part = bytes[from.min(to)..from.max(to)].to_vec();
            bytes.splice(from..from, part);
            target(name)(&bytes);
            target(name)(&other);
        }
    }
}
