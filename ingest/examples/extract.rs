//! Prints what is read from a file: `cargo run -p ingest --example extract -- FILE [--blocks]`.

use std::process::ExitCode;

use ingest::{Format, Limits, extract};

#[expect(clippy::print_stdout, reason = "printing is what the example is for")]
fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let Some(path) = args.next() else {
        println!("usage: extract FILE [--blocks]");
        return ExitCode::FAILURE;
    };
    let outcome = std::fs::read(&path).map_err(|error| error.to_string()).and_then(|bytes| {
        let format = Format::detect(&bytes, &path).map_err(|error| error.to_string())?;
        extract(&bytes, format, &path, &Limits::default()).map_err(|error| format!("{}: {error}", error.code()))
    });
    let document = match outcome {
        Ok(document) => document,
        Err(error) => {
            println!("{error}");
            return ExitCode::FAILURE;
        }
    };
    if args.next().is_none() {
        println!("{}", document.text);
        return ExitCode::SUCCESS;
    }
    println!("title: {:?}, pages: {:?}", document.title, document.page_count);
    let chars: Vec<char> = document.text.chars().collect();
    for block in &document.blocks {
        let text: String = chars[block.start..block.end].iter().collect();
        println!("{:?} p{:?} {}\n    {text}", block.kind, block.page, block.heading_path.join(" > "));
    }
    ExitCode::SUCCESS
}
