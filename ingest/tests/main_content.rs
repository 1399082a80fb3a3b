//! The main content of pages of many kinds. Texts marked `data-keep` are content, those marked `data-drop` are not; the
//! reader knows nothing of the marks. `examples/eval_html` measures the same on pages of the web.

use std::path::Path;

use ingest::{Format, Hints, Limits, extract};

/// Least share of the marked texts that are judged right, over all pages.
const LEAST_RECALL: f64 = 1.0;
const LEAST_PRECISION: f64 = 0.97;

/// The texts of elements with this mark, up to the next tag.
fn marked(page: &str, mark: &str) -> Vec<String> {
    let attribute = format!(" {mark}>");
    page.split(&attribute)
        .skip(1)
        .filter_map(|rest| Some(words(rest.split('<').next()?)))
        .collect()
}

fn words(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn what_is_content_stays_and_what_surrounds_it_goes() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/pages");
    let (mut kept, mut lost, mut strange, mut pages) = (0_usize, Vec::new(), Vec::new(), 0);
    for entry in std::fs::read_dir(folder).expect("the folder is there") {
        let path = entry.expect("an entry").path();
        let page = std::fs::read_to_string(&path).expect("text");
        let name = path.file_stem().expect("a name").to_string_lossy().into_owned();

        let document = extract(
            page.as_bytes(),
            Format::Html,
            &Hints::default(),
            &Limits::default(),
        );

        let text = words(&document.expect("the page has text").text);
        pages += 1;
        for keep in marked(&page, "data-keep") {
            if text.contains(&keep) {
                kept += 1;
            } else {
                lost.push(format!("{name}: {keep}"));
            }
        }
        let wrong = marked(&page, "data-drop")
            .into_iter()
            .filter(|drop| text.contains(drop));
        strange.extend(wrong.map(|drop| format!("{name}: {drop}")));
    }

    assert!(pages >= 8 && kept > 40, "{pages} pages with {kept} texts");
    let recall = kept as f64 / (kept + lost.len()) as f64;
    let precision = kept as f64 / (kept + strange.len()) as f64;
    assert!(recall >= LEAST_RECALL, "{recall:.3}; lost: {lost:#?}");
    assert!(
        precision >= LEAST_PRECISION,
        "{precision:.3}; not content: {strange:#?}"
    );
}
