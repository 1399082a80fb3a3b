//! Measures the reader of web pages on annotated ones: `cargo run -p ingest --example eval_html -- FOLDER…`
//!
//! A folder holds `truth.json` and `html/*.gz`. Article bodies are compared by shingles of four words, precision
//! and recall averaged over the pages; segments to keep and to drop are looked up in the text. Files beside a
//! `.truth.md` are compared by their words. `--pages` prints each page, the worst first; `--speed` measures speed well.

use std::collections::HashMap;
use std::error::Error;
use std::io::Read;
use std::path::Path;
use std::time::{Duration, Instant};

use flate2::read::GzDecoder;
use ingest::{Format, Hints, Limits, extract};
use serde_json::Value;

/// With `--speed`, each page is read this often, and the fastest time counts.
const ROUNDS: usize = 5;

#[derive(Debug, Default)]
struct Scores {
    rounds: usize,
    /// Precision, recall and name of each page.
    pages: Vec<(f64, f64, String)>,
    bytes: usize,
    time: Duration,
}

#[expect(clippy::print_stdout, reason = "printing is what the example is for")]
fn main() -> Result<(), Box<dyn Error>> {
    let (options, folders): (Vec<String>, Vec<String>) =
        std::env::args().skip(1).partition(|arg| arg.starts_with("--"));
    let has = |name: &str| options.iter().any(|option| option == name);
    for folder in folders {
        let folder = Path::new(&folder);
        let mut scores = Scores {
            rounds: if has("--speed") { ROUNDS } else { 1 },
            ..Scores::default()
        };
        let (precision, recall) = match std::fs::read(folder.join("truth.json")) {
            Ok(truth) => annotated(folder, &serde_json::from_slice(&truth)?, &mut scores)?,
            Err(_) => beside_truth(folder, &mut scores)?,
        };
        let seconds = scores.time.as_secs_f64();
        println!(
            "{}: precision {precision:.4} recall {recall:.4} F1 {:.4}; {} pages, {:.0} pages/s, {:.1} MB/s",
            folder.display(),
            f1(precision, recall),
            scores.pages.len(),
            scores.pages.len() as f64 / seconds,
            scores.bytes as f64 / 1e6 / seconds,
        );
        if has("--pages") {
            scores.pages.sort_by(|a, b| f1(a.0, a.1).total_cmp(&f1(b.0, b.1)));
            for (precision, recall, name) in &scores.pages {
                println!("  P {precision:.3} R {recall:.3} {name}");
            }
        }
    }
    Ok(())
}

fn f1(precision: f64, recall: f64) -> f64 {
    match precision + recall {
        0.0 => 0.0,
        sum => 2.0 * precision * recall / sum,
    }
}

fn annotated(folder: &Path, truth: &Value, scores: &mut Scores) -> Result<(f64, f64), Box<dyn Error>> {
    let pages = truth.as_object().ok_or("truth.json is an object")?;
    let (mut found, mut wrong, mut missed) = (0, 0, 0);
    for (name, page) in pages {
        let path = ["html.gz", "gz"]
            .iter()
            .map(|ending| folder.join("html").join(format!("{name}.{ending}")))
            .find(|path| path.exists())
            .ok_or("a page is missing")?;
        let mut source = Vec::new();
        GzDecoder::new(std::fs::File::open(path)?).read_to_end(&mut source)?;
        let text = scores.read(&source, "page.html");
        let name = format!("{name} {}", page["url"].as_str().unwrap_or_default());
        if let Some(body) = page["articleBody"].as_str() {
            let (precision, recall) = shingle_scores(body, &text);
            scores.pages.push((precision, recall, name));
            continue;
        }
        let text = single_spaced(&text);
        let count = |key: &str| -> (usize, usize) {
            let segments = page[key].as_array().map(Vec::as_slice).unwrap_or_default();
            let is_found = |segment: &&Value| {
                segment
                    .as_str()
                    .is_some_and(|segment| text.contains(&single_spaced(segment)))
            };
            (segments.iter().filter(is_found).count(), segments.len())
        };
        let ((kept, wanted), (intruding, _)) = (count("with"), count("without"));
        found += kept;
        wrong += intruding;
        missed += wanted - kept;
        let precision = kept as f64 / (kept + intruding).max(1) as f64;
        let recall = kept as f64 / wanted.max(1) as f64;
        scores.pages.push((precision, recall, name));
    }
    if found + missed > 0 {
        let share = |of: usize| f64::from(found as u32) / (of.max(1) as f64);
        return Ok((share(found + wrong), share(found + missed)));
    }
    Ok(scores.averages())
}

fn beside_truth(folder: &Path, scores: &mut Scores) -> Result<(f64, f64), Box<dyn Error>> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let truth = path.with_added_extension("truth.md");
        if path.extension().is_none_or(|ending| ending != "html") || !truth.exists() {
            continue;
        }
        let text = scores.read(&std::fs::read(&path)?, "page.html");
        let lower = |text: &str| counted(words(text).map(str::to_lowercase));
        let (precision, recall) = overlap(&lower(&std::fs::read_to_string(truth)?), &lower(&text));
        scores.pages.push((precision, recall, path.display().to_string()));
    }
    Ok(scores.averages())
}

impl Scores {
    fn read(&mut self, source: &[u8], name: &str) -> String {
        let mut fastest = Duration::MAX;
        let mut text = String::new();
        for _ in 0..self.rounds {
            let begin = Instant::now();
            let outcome = extract(source, Format::Html, &Hints::named(name), &Limits::default());
            fastest = fastest.min(begin.elapsed());
            text = outcome.map(|document| document.text).unwrap_or_default();
        }
        self.time += fastest;
        self.bytes += source.len();
        text
    }

    fn averages(&self) -> (f64, f64) {
        let count = self.pages.len().max(1) as f64;
        let sum = |of: fn(&(f64, f64, String)) -> f64| self.pages.iter().map(of).sum::<f64>() / count;
        (sum(|page| page.0), sum(|page| page.1))
    }
}

fn shingle_scores(truth: &str, text: &str) -> (f64, f64) {
    let shingles = |text: &str| {
        let words: Vec<&str> = words(text).collect();
        let size = words.len().clamp(1, 4);
        counted(words.windows(size).map(|window| window.join(" ")))
    };
    overlap(&shingles(truth), &shingles(text))
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !(c.is_alphanumeric() || c == '_'))
        .filter(|word| !word.is_empty())
}

fn counted(items: impl Iterator<Item = String>) -> HashMap<String, usize> {
    let mut counts = HashMap::new();
    items.for_each(|item| *counts.entry(item).or_default() += 1);
    counts
}

/// Precision and recall of the second multiset against the first.
fn overlap(truth: &HashMap<String, usize>, found: &HashMap<String, usize>) -> (f64, f64) {
    let common: usize = found
        .iter()
        .map(|(item, count)| (*count).min(truth.get(item).copied().unwrap_or(0)))
        .sum();
    let share = |of: &HashMap<String, usize>| common as f64 / of.values().sum::<usize>().max(1) as f64;
    (share(found), share(truth))
}

fn single_spaced(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
