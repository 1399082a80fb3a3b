//! The extractor process of the sandbox tests: reads documents like the real one, but obeys a text that
//! orders it to fail in one of the ways that parsers fail.

use std::io::Write as _;
use std::process::ExitCode;

use ingest::{ExtractError, ExtractedDocument, Format, Hints, Limits};

fn main() -> ExitCode {
    note_start();
    ingest::sandbox::child_main_with(extract)
}

/// Adds a line to the file that the arguments name: a test counts how often a process was started.
fn note_start() {
    let Some(path) = std::env::args_os().nth(1) else {
        return;
    };
    let mut starts = std::fs::File::options()
        .append(true)
        .create(true)
        .open(path)
        .expect("the file of starts");
    writeln!(starts, "started").expect("written");
}

#[expect(
    clippy::disallowed_methods,
    reason = "ending without a word is one of the orders"
)]
fn extract(
    bytes: &[u8],
    format: Format,
    hints: &Hints,
    limits: &Limits,
) -> Result<ExtractedDocument, ExtractError> {
    match bytes {
        b"please abort" => std::process::abort(),
        b"please exit" => std::process::exit(3),
        b"please panic" => panic!("as ordered"),
        b"please hang" => loop {
            std::thread::sleep(std::time::Duration::from_secs(1));
        },
        b"please overflow the stack" => Ok(deepen(1)),
        b"please eat memory" => {
            let mut eaten: Vec<Vec<u8>> = Vec::new();
            loop {
                eaten.push(vec![1; 8 << 20]);
            }
        }
        b"please open a file" => match std::fs::File::open("/etc/hostname") {
            Ok(_) => Err(ExtractError::Crashed),
            Err(_) => ingest::extract(b"it is forbidden", format, hints, limits),
        },
        _ => ingest::extract(bytes, format, hints, limits),
    }
}

#[expect(unconditional_recursion, reason = "running out of stack is the order")]
fn deepen(depth: u64) -> ExtractedDocument {
    let deeper = deepen(std::hint::black_box(depth) + 1);
    std::hint::black_box(deeper)
}
