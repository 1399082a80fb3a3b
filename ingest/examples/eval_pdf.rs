//! Measures the reading of PDF files against their known text, and what a large one costs.
//!
//! - `eval_pdf FOLDER`: recall, precision, F1 and order of words per file, and pages a second of CPU time.
//!   `NAME.pdf` is compared with `NAME.txt`, `NAME.pdf.truth.md` or `NAME.md` beside it.
//! - `eval_pdf FOLDER OUTPUTS`: the same for `OUTPUTS/NAME.pdf.txt`, the text that another program gave.
//! - `eval_pdf --generate PAGES FILE`: writes a document of that many pages.
//! - `eval_pdf --recognise EXTRACTOR PROGRAM LANGUAGE FILE`: the text with that of scanned pages, read by PROGRAM;
//!   EXTRACTOR runs `ingest::sandbox::child_main`.
//! - `eval_pdf --cost FILE`: pages a second of CPU time and the peak of memory for one file.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ingest::sandbox::ExtractorPool;
use ingest::{Format, Hints, Limits, OcrOptions, extract};
use lopdf::{Dictionary, Document, Object, Stream, dictionary};
use rustix::time::{ClockId, clock_gettime};
use unicode_normalization::UnicodeNormalization;

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

fn main() -> Outcome<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args[..] {
        ["--generate", pages, file] => Ok(std::fs::write(file, generate(pages.parse()?)?)?),
        ["--recognise", extractor, program, language, file] => recognise(extractor, program, language, file),
        ["--cost", file] => print_cost(file),
        [folder] => print_quality(Path::new(folder), None),
        [folder, outputs] => print_quality(Path::new(folder), Some(Path::new(outputs))),
        _ => Err("name a folder of PDF files".into()),
    }
}

#[derive(Debug, Default)]
struct Quality {
    recall: f64,
    precision: f64,
    f1: f64,
    order: f64,
}

#[expect(clippy::print_stdout, reason = "printing is what the example is for")]
fn print_quality(folder: &Path, outputs: Option<&Path>) -> Outcome<()> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "pdf"))
        .collect();
    files.sort();
    let (mut measured, mut pages, mut seconds) = (Vec::new(), 0, 0.0);
    println!(
        "{:>8} {:>8} {:>8} {:>8} {:>9}  file",
        "recall", "precis.", "F1", "order", "pages/s"
    );
    for path in files {
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let Some(truth) = truth_of(&path) else { continue };
        let (text, file_pages, file_seconds) = match outputs {
            Some(outputs) => (
                std::fs::read_to_string(outputs.join(format!("{name}.txt")))?,
                0,
                0.0,
            ),
            None => read(&path)?,
        };
        let quality = compare(&words_of(&truth), &words_of(&text));
        pages += file_pages;
        seconds += file_seconds;
        println!(
            "{:>8.4} {:>8.4} {:>8.4} {:>8.4} {:>9.0}  {name}",
            quality.recall,
            quality.precision,
            quality.f1,
            quality.order,
            f64::from(file_pages) / file_seconds
        );
        measured.push(quality);
    }
    let mean = |part: fn(&Quality) -> f64| measured.iter().map(part).sum::<f64>() / measured.len() as f64;
    println!(
        "{:>8.4} {:>8.4} {:>8.4} {:>8.4} {:>9.0}  mean of {} files; {pages} pages in {seconds:.3} s of CPU time",
        mean(|quality| quality.recall),
        mean(|quality| quality.precision),
        mean(|quality| quality.f1),
        mean(|quality| quality.order),
        f64::from(pages) / seconds,
        measured.len(),
    );
    Ok(())
}

/// The text of a file, its pages, and the seconds of CPU time for them: the least of three readings.
fn read(path: &Path) -> Outcome<(String, u32, f64)> {
    let bytes = std::fs::read(path)?;
    let mut least = f64::MAX;
    let mut document = None;
    for _ in 0..3 {
        let begin = cpu_time();
        let read = extract(&bytes, Format::Pdf, &Hints::default(), &Limits::default())?;
        least = least.min((cpu_time() - begin).as_secs_f64());
        document = Some(read);
    }
    let document = document.ok_or("not read")?;
    Ok((document.text, document.page_count.unwrap_or(0), least))
}

fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(
        time.tv_sec.unsigned_abs(),
        u32::try_from(time.tv_nsec).unwrap_or(0),
    )
}

fn truth_of(path: &Path) -> Option<String> {
    let name = path.file_name()?.to_string_lossy();
    [
        path.with_extension("txt"),
        path.with_file_name(format!("{name}.truth.md")),
        path.with_extension("md"),
    ]
    .iter()
    .find_map(|truth| std::fs::read_to_string(truth).ok())
}

/// Words in NFKC lower case; Chinese and Japanese by character. The comments of a Markdown truth are no text.
fn words_of(text: &str) -> Vec<String> {
    let mut plain = String::with_capacity(text.len());
    for (number, part) in text.split("<!--").enumerate() {
        match part.split_once("-->") {
            Some((_, rest)) if number > 0 => plain.push_str(rest),
            _ => plain.push_str(part),
        }
    }
    let mut words = Vec::new();
    let mut word = String::new();
    for c in plain.nfkc().flat_map(char::to_lowercase) {
        let is_ideograph =
            matches!(c, '\u{3040}'..='\u{30ff}' | '\u{3400}'..='\u{9fff}' | '\u{f900}'..='\u{faff}');
        if !word.is_empty() && (is_ideograph || !c.is_alphanumeric()) {
            words.push(std::mem::take(&mut word));
        }
        if is_ideograph {
            words.push(c.to_string());
        } else if c.is_alphanumeric() {
            word.push(c);
        }
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

fn compare(truth: &[String], found: &[String]) -> Quality {
    let mut left: HashMap<&str, usize> = HashMap::new();
    for word in truth {
        *left.entry(word).or_default() += 1;
    }
    let mut common = 0_usize;
    for word in found {
        if let Some(count) = left.get_mut(word.as_str()).filter(|count| **count > 0) {
            *count -= 1;
            common += 1;
        }
    }
    let share = |of: usize| if of == 0 { 0.0 } else { common as f64 / of as f64 };
    let (recall, precision) = (share(truth.len()), share(found.len()));
    Quality {
        recall,
        precision,
        f1: if common == 0 {
            0.0
        } else {
            2.0 * recall * precision / (recall + precision)
        },
        order: 1.0 - edits(truth, found) as f64 / (truth.len() + found.len()).max(1) as f64,
    }
}

/// Insertions and deletions that lead from `a` to `b` (Myers, An O(ND) Difference Algorithm, 1986).
fn edits(a: &[String], b: &[String]) -> usize {
    let most = a.len() + b.len();
    // The furthest place in `a` on each diagonal, which is `a` less `b`, shifted to be positive.
    let mut furthest = vec![0_usize; 2 * most + 3];
    for count in 0..=most {
        for diagonal in (most - count..=most + count).step_by(2) {
            let goes_down = diagonal == most - count
                || (diagonal != most + count && furthest[diagonal] < furthest[diagonal + 2]);
            let mut x = if goes_down {
                furthest[diagonal + 2]
            } else {
                furthest[diagonal] + 1
            };
            let Some(mut y) = (x + most).checked_sub(diagonal) else {
                continue;
            };
            while x < a.len() && y < b.len() && a[x] == b[y] {
                (x, y) = (x + 1, y + 1);
            }
            furthest[diagonal + 1] = x;
            if x >= a.len() && y >= b.len() {
                return count;
            }
        }
    }
    most
}

#[expect(clippy::print_stdout, reason = "printing is what the example is for")]
fn print_cost(file: &str) -> Outcome<()> {
    let bytes = std::fs::read(file)?;
    let before = memory_kib("VmHWM");
    let begin = cpu_time();
    let document = extract(&bytes, Format::Pdf, &Hints::default(), &Limits::default())?;
    let seconds = (cpu_time() - begin).as_secs_f64();
    let pages = document.page_count.unwrap_or(0);
    println!(
        "{pages} pages of {} bytes, {} characters: {seconds:.3} s of CPU time, {:.0} pages/s; peak of memory {} KiB, {before} KiB of it before reading",
        bytes.len(),
        document.text.chars().count(),
        f64::from(pages) / seconds,
        memory_kib("VmHWM"),
    );
    Ok(())
}

#[expect(clippy::print_stdout, reason = "printing is what the example is for")]
#[tokio::main(flavor = "current_thread")]
async fn recognise(extractor: &str, program: &str, language: &str, file: &str) -> Outcome<()> {
    let ocr = OcrOptions {
        program: PathBuf::from(program),
        languages: vec![language.to_owned()],
        timeout: Duration::from_secs(60),
        document_timeout: Duration::from_secs(3_600),
    };
    let pool = ExtractorPool::new(PathBuf::from(extractor), Vec::new(), 1, Limits::default()).with_ocr(ocr);
    let document = pool
        .extract(Path::new(file), Format::Pdf, &Hints::default())
        .await?;
    println!("{}", document.text);
    println!("--- pages without text: {:?}", document.scanned_pages);
    Ok(())
}

/// A figure of this process, from the kernel.
fn memory_kib(name: &str) -> u64 {
    std::fs::read_to_string("/proc/self/status")
        .unwrap_or_default()
        .lines()
        .find_map(|line| {
            line.strip_prefix(name)?
                .strip_prefix(':')?
                .split_whitespace()
                .next()?
                .parse()
                .ok()
        })
        .unwrap_or(0)
}

/// Pages of running text, about 3,000 characters each, with headings, headers and page numbers.
fn generate(pages: usize) -> Outcome<Vec<u8>> {
    const WORDS: [&str; 16] = [
        "goods",
        "may",
        "be",
        "returned",
        "within",
        "thirty",
        "days",
        "after",
        "delivery",
        "the",
        "customer",
        "pays",
        "for",
        "transport",
        "unless",
        "damaged",
    ];
    let mut document = Document::with_version("1.5");
    let tree = document.new_object_id();
    let font = document.add_object(dictionary! {
        "Type" => "Font", "Subtype" => "Type1", "BaseFont" => "Helvetica", "Encoding" => "WinAnsiEncoding",
    });
    let mut kids: Vec<Object> = Vec::with_capacity(pages);
    for page in 0..pages {
        let mut content = format!(
            "BT /F1 9 Tf 72 810 Td (Terms of trade) Tj ET BT /F1 9 Tf 280 30 Td (Page {page}) Tj ET\n\
             BT /F1 16 Tf 72 780 Td (Section {page}) Tj /F1 10 Tf 14 TL T* T*\n"
        );
        for line in 0..45 {
            let words: Vec<&str> = (0..12)
                .map(|word| WORDS[(page * 7 + line * 5 + word * 3) % WORDS.len()])
                .collect();
            content.push_str(&format!("({} {}) Tj T*\n", words.join(" "), page * 45 + line));
        }
        content.push_str("ET");
        let mut stream = Stream::new(Dictionary::new(), content.into_bytes());
        stream.compress()?;
        let stream = document.add_object(stream);
        kids.push(
            document
                .add_object(dictionary! {
                    "Type" => "Page", "Parent" => tree, "Contents" => stream,
                    "Resources" => dictionary! { "Font" => dictionary! { "F1" => font } },
                    "MediaBox" => vec![0.into(), 0.into(), 595.into(), 842.into()],
                })
                .into(),
        );
    }
    let count = i64::try_from(pages)?;
    document.objects.insert(
        tree,
        dictionary! { "Type" => "Pages", "Kids" => kids, "Count" => count }.into(),
    );
    let catalog = document.add_object(dictionary! { "Type" => "Catalog", "Pages" => tree });
    document.trailer.set("Root", catalog);
    let mut bytes = Vec::new();
    document.save_to(&mut bytes)?;
    Ok(bytes)
}
