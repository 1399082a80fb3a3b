//! No byte sequence panics, hangs or goes over the limits: the files of `fixtures/broken`, and random and
//! mutated bytes in every format.

use std::io::{Cursor, Read};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ingest::sandbox::ExtractorPool;
use ingest::{ExtractedDocument, Format, Hints, Limits, extract};
use proptest::prelude::*;

#[path = "../fuzz/src/documents.rs"]
mod properties;
mod samples;

use properties::{check, detect_and_extract, extract_as, small_limits};
use samples::{archive, samples};

/// What each file of `fixtures/broken` must give: text, or a reason.
const BROKEN: [(&str, Result<&str, &str>); 41] = [
    ("empty.txt", Err("empty_file")),
    ("picture-named-text.txt", Err("unsupported_type")),
    ("other-charset.txt", Ok("Возврат товара")),
    ("scanned.pdf", Err("no_text")),
    ("locked.pdf", Err("password_protected")),
    ("editing-restricted.pdf", Ok("Goods may be returned")),
    ("damaged.pdf", Err("damaged")),
    ("nested-arrays.pdf", Ok("Goods may be returned")),
    ("page-tree-cycle.pdf", Ok("Goods may be returned")),
    ("outline-cycle.pdf", Ok("Goods may be returned")),
    ("wrong-table.pdf", Ok("Goods may be returned")),
    ("absurd-counts.pdf", Ok("Goods may be returned")),
    ("form-cycle.pdf", Ok("Goods may be returned")),
    ("image-bomb.pdf", Err("no_text")),
    ("font-of-all-codes.pdf", Ok("B")),
    ("stream-bomb.pdf", Err("too_large")),
    ("zip-bomb.docx", Err("too_large")),
    ("external-entity.docx", Err("damaged")),
    ("deep-elements.html", Ok("bottom")),
    ("slide-bomb.pptx", Err("too_large")),
    ("cut.pptx", Err("damaged")),
    ("slides-in-a-circle.pptx", Ok("Goods may be returned")),
    ("locked.pptx", Err("password_protected")),
    ("claims-a-million-rows.xlsx", Ok("Rules\n\nGoods may be returned")),
    ("sheet-bomb.xlsx", Err("too_large")),
    ("hidden-sheet.xlsx", Err("no_text")),
    ("old.doc", Err("unsupported_type")),
    ("repeated-cells.ods", Ok("Rules\n\nx: x")),
    ("locked.odt", Err("password_protected")),
    ("styles-in-a-circle.odt", Ok("Goods may be returned")),
    ("deep-groups.rtf", Err("too_large")),
    ("no-contents.epub", Err("damaged")),
    ("locked.epub", Err("password_protected")),
    ("deep-values.json", Err("too_large")),
    ("mails-in-mails.eml", Err("too_large")),
    ("cut.msg", Err("damaged")),
    ("names-upwards.zip", Ok("etc/terms.txt\n\nGoods may be returned")),
    ("archives-in-archives.zip", Err("too_large")),
    ("bomb-in-archive.zip", Err("too_large")),
    ("claims-many-entries.zip", Err("too_large")),
    ("recording.wav", Err("unsupported_type")),
];

fn fixtures(folder: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../fixtures")
        .join(folder)
}

fn assert_outcome(name: &str, outcome: Result<ExtractedDocument, &str>, expected: Result<&str, &str>) {
    match (outcome, expected) {
        (Ok(document), Ok(start)) => assert!(document.text.starts_with(start), "{name}: {}", document.text),
        (outcome, expected) => assert_eq!(
            outcome.map(|document| document.text),
            expected.map(str::to_owned),
            "{name}"
        ),
    }
}

#[test]
fn every_broken_file_gives_its_text_or_its_reason_in_time() {
    let mut names: Vec<String> = std::fs::read_dir(fixtures("broken"))
        .expect("the folder is there")
        .map(|entry| {
            entry
                .expect("an entry")
                .file_name()
                .to_string_lossy()
                .into_owned()
        })
        .collect();
    names.sort();
    let mut expected_names: Vec<&str> = BROKEN.iter().map(|(name, _)| *name).collect();
    expected_names.sort_unstable();
    assert_eq!(names, expected_names);

    for (name, expected) in BROKEN {
        let bytes = std::fs::read(fixtures("broken").join(name)).expect("the file is there");
        let begin = Instant::now();

        let outcome = Format::detect(&bytes, name)
            .and_then(|format| extract(&bytes, format, &Hints::named(name), &Limits::default()))
            .map_err(|error| error.code());

        assert_outcome(name, outcome, expected);
        assert!(
            begin.elapsed() < Duration::from_secs(15),
            "{name} took {:?}",
            begin.elapsed()
        );
    }
}

#[tokio::test]
async fn broken_files_cost_the_sandbox_nothing_but_themselves() {
    let program = PathBuf::from(env!("CARGO_BIN_EXE_faulty-child"));
    let pool = ExtractorPool::new(program, Vec::new(), 1, Limits::default());

    for (name, expected) in BROKEN {
        let path = fixtures("broken").join(name);
        let bytes = std::fs::read(&path).expect("the file is there");
        let Ok(format) = Format::detect(&bytes, name) else {
            continue;
        };

        let outcome = pool
            .extract(&path, format, &Hints::named(name))
            .await
            .map_err(|error| error.code());

        assert_outcome(name, outcome, expected);
    }
}

#[test]
fn a_refusal_is_a_sentence_that_says_what_to_do() {
    for (name, expected) in BROKEN {
        let Err(code) = expected else { continue };
        let bytes = std::fs::read(fixtures("broken").join(name)).expect("the file is there");

        let error = Format::detect(&bytes, name)
            .and_then(|format| extract(&bytes, format, &Hints::named(name), &Limits::default()))
            .expect_err(code);

        let message = error.to_string();
        assert!(message.ends_with('.') && message.len() > 40, "{message}");
        assert!(
            !message.contains('/') || code == "unsupported_type",
            "no paths: {message}"
        );
        let stored = serde_json::to_string(&error).expect("an error is JSON");
        assert!(stored.contains(code), "{stored}");
    }
}

#[test]
fn a_sample_of_every_format_is_recognised_and_read() {
    for (format, bytes) in samples() {
        let name = format!("sample.{}", format.as_str());
        let name = match format {
            Format::Markdown => "sample.md",
            _ => &name,
        };

        let document = Format::detect(&bytes, name).and_then(|found| {
            assert_eq!(found, format, "{name}");
            extract(&bytes, format, &Hints::named(name), &Limits::default())
        });

        assert!(document.is_ok_and(|document| document.text.len() > 20), "{name}");
    }
}

type Place = prop::sample::Index;

fn mutate(
    bytes: &mut Vec<u8>,
    changes: &[(Place, u8)],
    cut: Option<&Place>,
    doubled: Option<&(Place, Place)>,
) {
    if bytes.is_empty() {
        return;
    }
    for (place, byte) in changes {
        let at = place.index(bytes.len());
        bytes[at] = *byte;
    }
    if let Some((from, to)) = doubled {
        let (from, to) = (from.index(bytes.len()), to.index(bytes.len()));
        let part = bytes[from.min(to)..from.max(to)].to_vec();
        bytes.splice(from..from, part);
    }
    if let Some(cut) = cut {
        bytes.truncate(cut.index(bytes.len()) + 1);
    }
}

/// The names and contents of an archive's entries, or `None` if it is none.
fn unpacked(bytes: &[u8]) -> Option<Vec<(String, Vec<u8>)>> {
    let mut archive = zip::ZipArchive::new(Cursor::new(bytes)).ok()?;
    let entries = (0..archive.len()).map(|index| {
        let mut entry = archive.by_index(index).expect("an entry");
        let name = entry.name().expect("a name").into_owned();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).expect("unpacked");
        (name, content)
    });
    Some(entries.collect())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..2_000)) {
        detect_and_extract(&bytes, "a.csv");
        for format in Format::ALL {
            extract_as(format, &bytes);
        }
    }

    #[test]
    fn mutated_files_never_panic(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..24),
        cut in prop::option::of(any::<prop::sample::Index>()),
        doubled in prop::option::of((any::<prop::sample::Index>(), any::<prop::sample::Index>())),
    ) {
        for (format, mut bytes) in samples() {
            mutate(&mut bytes, &changes, cut.as_ref(), doubled.as_ref());
            detect_and_extract(&bytes, "a.md");
            extract_as(format, &bytes);
        }
    }

    /// In an archive a changed byte is found by its checksum, so the parts are changed before they are packed.
    #[test]
    fn archives_of_mutated_parts_never_panic(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..24),
        cut in prop::option::of(any::<prop::sample::Index>()),
        doubled in prop::option::of((any::<prop::sample::Index>(), any::<prop::sample::Index>())),
        part in any::<prop::sample::Index>(),
    ) {
        for (format, bytes) in samples() {
            let Some(mut parts) = unpacked(&bytes) else { continue };
            let at = part.index(parts.len());
            mutate(&mut parts[at].1, &changes, cut.as_ref(), doubled.as_ref());
            let parts: Vec<(&str, &[u8])> =
                parts.iter().map(|(name, content)| (name.as_str(), content.as_slice())).collect();
            extract_as(format, &archive(&parts));
        }
    }

    #[test]
    fn markup_of_random_parts_never_panics(parts in prop::collection::vec(0_usize..40, 1..200)) {
        const PARTS: [&str; 40] = [
            "<table>", "<tr>", "<td>", "</td>", "</tr>", "</table>", "<p>", "</p>", "<li>", "<ul>", "</ul>", "<h1>", "</h1>",
            "<div hidden>", "</div>", "<span style='display:none'>", "</span>", "<pre>", "</pre>", "<script>", "</script>",
            "<style>.a{display:none}", "</style>", "<title>", "</title>", "<!--", "-->", "text ", "\n\n", "# h\n", "- i\n", "| a | b |\n",
            "|---|---|\n", "```\n", "> ", "\u{0}", "\u{202e}", "&amp;", "&#0;", "<plaintext>",
        ];
        let source: String = parts.iter().map(|part| PARTS[*part]).collect();
        for format in [
            Format::Html,
            Format::Markdown,
            Format::Text,
            Format::Csv,
            Format::Rst,
            Format::Asciidoc,
        ] {
            extract_as(format, source.as_bytes());
        }
    }

    #[test]
    fn content_streams_of_random_operators_never_panic(parts in prop::collection::vec((0_usize..26, any::<i16>()), 1..120)) {
        const OPERATORS: [&str; 26] = [
            "q", "Q", "cm", "BT", "ET", "/F1 12 Tf", "Tc", "Tw", "Tz", "TL", "Ts", "Tr", "Td", "TD", "Tm", "T*", "(text) Tj",
            "[(a) -300 (b)] TJ", "(x) '", "1 2 (y) \"", "/X Do", "BI ID x EI", "[", "]", "<<", "(unclosed \\",
        ];
        let mut content = String::from("BT /F1 12 Tf 72 700 Td (start) Tj ");
        for (operator, number) in parts {
            content.push_str(&format!("{number} {} {} 0.5 {number} 7 {} ", number / 3, i32::from(number) * 1_000, OPERATORS[operator]));
        }
        let file = format!(
            "%PDF-1.4\n1 0 obj\n<</Type/Catalog/Pages 2 0 R>>\nendobj\n\
             2 0 obj\n<</Type/Pages/Kids[3 0 R]/Count 1>>\nendobj\n\
             3 0 obj\n<</Type/Page/Parent 2 0 R/Contents 4 0 R/Resources<</Font<</F1 5 0 R>>>>>>\nendobj\n\
             5 0 obj\n<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>\nendobj\n\
             4 0 obj\n<</Length {}>>\nstream\n{content}\nendstream\nendobj\n\
             trailer\n<</Root 1 0 R/Size 6>>\nstartxref\n0\n%%EOF",
            content.len()
        );
        let outcome = extract(file.as_bytes(), Format::Pdf, &Hints::default(), &small_limits());
        prop_assert!(outcome.is_ok(), "{outcome:?}");
        check(outcome);
    }
}
