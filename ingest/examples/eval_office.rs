//! Measures the reading of files against a text of what is in them, word by word:
//! `cargo run --release -p ingest --example eval_office -- FOLDER`, where every `NAME` has a `NAME.truth.md`.
//!
//! Words are runs of letters and digits in NFKC lower case, Chinese and Japanese characters stand alone. Recall
//! and precision compare multisets, order is 1 - (insertions + deletions) / (words of both).

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::time::Instant;

use ingest::{ExtractedDocument, Format, Hints, Limits, extract};
use unicode_normalization::UnicodeNormalization;

const TRUTH: &str = ".truth.md";

/// Edits after which the order counts as lost, so that the search for it stays quick.
const MAX_EDITS: usize = 20_000;

#[derive(Debug, Clone, Copy, Default)]
struct Score {
    recall: f64,
    precision: f64,
    order: f64,
}

#[expect(clippy::print_stdout, reason = "printing is what the example is for")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = std::env::args().nth(1).ok_or("name the folder with the files")?;
    let mut names: Vec<String> = std::fs::read_dir(&folder)?
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter_map(|name| name.strip_suffix(TRUTH).map(str::to_owned))
        .collect();
    names.sort();
    let mut by_format: BTreeMap<&str, Vec<Score>> = BTreeMap::new();
    let mut all = Vec::new();
    println!("{:<42} {:<9} recall  prec.  order      ms", "file", "format");
    for name in &names {
        let path = Path::new(&folder).join(name);
        let bytes = std::fs::read(&path)?;
        let truth = std::fs::read_to_string(Path::new(&folder).join(format!("{name}{TRUTH}")))?;
        let begin = Instant::now();
        let (format, text) = match read(&bytes, name) {
            Ok((format, document)) => (format.as_str(), document.text),
            Err(error) => {
                println!("{name:<42} {}", error.code());
                ("failed", String::new())
            }
        };
        let elapsed = begin.elapsed().as_secs_f64() * 1_000.0;
        let score = compare(&words(&without_comments(&truth)), &words(&text));
        print_score(name, format, score, elapsed);
        by_format.entry(format).or_default().push(score);
        all.push(score);
    }
    println!();
    for (format, scores) in &by_format {
        print_score(&format!("{} files", scores.len()), format, mean(scores), 0.0);
    }
    print_score(&format!("{} files", all.len()), "all", mean(&all), 0.0);
    Ok(())
}

#[expect(clippy::print_stdout, reason = "printing is what the example is for")]
fn print_score(name: &str, format: &str, score: Score, elapsed: f64) {
    println!(
        "{name:<42} {format:<9} {:.4} {:.4} {:.4} {elapsed:7.1}",
        score.recall, score.precision, score.order
    );
}

fn read(bytes: &[u8], name: &str) -> Result<(Format, ExtractedDocument), ingest::ExtractError> {
    let format = Format::detect(bytes, name)?;
    Ok((
        format,
        extract(bytes, format, &Hints::named(name), &Limits::default())?,
    ))
}

/// Comments of Markdown stand for pictures.
fn without_comments(markdown: &str) -> String {
    let mut rest = markdown;
    let mut out = String::new();
    while let Some((before, after)) = rest.split_once("<!--") {
        out.push_str(before);
        rest = after.split_once("-->").map_or("", |(_, after)| after);
    }
    out + rest
}

fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    for c in text.nfkc().flat_map(char::to_lowercase) {
        if c.is_alphanumeric() && !is_cjk(c) {
            word.push(c);
            continue;
        }
        if !word.is_empty() {
            words.push(std::mem::take(&mut word));
        }
        if is_cjk(c) {
            words.push(c.to_string());
        }
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

fn is_cjk(c: char) -> bool {
    matches!(c, '\u{3040}'..='\u{30ff}' | '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}' | '\u{f900}'..='\u{faff}')
}

fn compare(truth: &[String], found: &[String]) -> Score {
    let mut wanted: HashMap<&str, usize> = HashMap::new();
    for word in truth {
        *wanted.entry(word).or_default() += 1;
    }
    let mut common = 0_usize;
    for word in found {
        if let Some(left) = wanted.get_mut(word.as_str()).filter(|left| **left > 0) {
            *left -= 1;
            common += 1;
        }
    }
    let share = |whole: usize| {
        if whole == 0 {
            1.0
        } else {
            common as f64 / whole as f64
        }
    };
    let both = truth.len() + found.len();
    Score {
        recall: share(truth.len()),
        precision: share(found.len()),
        order: if both == 0 {
            1.0
        } else {
            1.0 - edits(truth, found) as f64 / both as f64
        },
    }
}

/// Insertions and deletions that turn one list into the other (Myers, "An O(ND) difference algorithm", 1986).
fn edits(a: &[String], b: &[String]) -> usize {
    let max = (a.len() + b.len()).min(MAX_EDITS);
    let offset = max + 1;
    let mut furthest = vec![0_usize; 2 * max + 3];
    for d in 0..=max {
        let mut k = -(d as isize);
        while k <= d as isize {
            let at = (offset as isize + k) as usize;
            let down = k == -(d as isize) || (k != d as isize && furthest[at - 1] < furthest[at + 1]);
            let mut x = if down {
                furthest[at + 1]
            } else {
                furthest[at - 1] + 1
            };
            let mut y = (x as isize - k) as usize;
            while x < a.len() && y < b.len() && a[x] == b[y] {
                x += 1;
                y += 1;
            }
            furthest[at] = x;
            if x >= a.len() && y >= b.len() {
                return d;
            }
            k += 2;
        }
    }
    a.len() + b.len()
}

fn mean(scores: &[Score]) -> Score {
    let count = scores.len().max(1) as f64;
    let sum = |of: fn(&Score) -> f64| scores.iter().map(of).sum::<f64>() / count;
    Score {
        recall: sum(|score| score.recall),
        precision: sum(|score| score.precision),
        order: sum(|score| score.order),
    }
}
