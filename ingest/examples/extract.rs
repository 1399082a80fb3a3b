//! Prints what is read from a file: `cargo run -p ingest --example extract -- FILE [--blocks|--chunks]`.

use std::process::ExitCode;

use ingest::{ChunkOptions, ExtractedDocument, Format, Hints, Limits, chunk, extract};

#[expect(clippy::print_stdout, reason = "printing is what the example is for")]
fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let Some(path) = args.next() else {
        println!("usage: extract FILE [--blocks|--chunks]");
        return ExitCode::FAILURE;
    };
    let outcome = std::fs::read(&path)
        .map_err(|error| error.to_string())
        .and_then(|bytes| {
            let format = Format::detect(&bytes, &path).map_err(|error| error.to_string())?;
            extract(&bytes, format, &Hints::named(&path), &Limits::default())
                .map_err(|error| format!("{}: {error}", error.code()))
        });
    let document = match outcome {
        Ok(document) => document,
        Err(error) => {
            println!("{error}");
            return ExitCode::FAILURE;
        }
    };
    match args.next().as_deref() {
        Some("--blocks") => print_blocks(&document),
        Some("--chunks") => print_chunks(&document),
        _ => println!("{}", document.text),
    }
    ExitCode::SUCCESS
}

#[expect(clippy::print_stdout, reason = "printing is what the example is for")]
fn print_chunks(document: &ExtractedDocument) {
    // Without a model at hand: a token of English has about four characters.
    let count_tokens = |text: &str| text.chars().count().div_ceil(4);
    for chunk in chunk(document, &ChunkOptions::default(), &count_tokens) {
        println!(
            "--- {}..{} page {:?}, {} tokens",
            chunk.start, chunk.end, chunk.page, chunk.token_count
        );
        println!("{}", chunk.embedding_text());
    }
}

#[expect(clippy::print_stdout, reason = "printing is what the example is for")]
fn print_blocks(document: &ExtractedDocument) {
    println!("title: {:?}, pages: {:?}", document.title, document.page_count);
    let chars: Vec<char> = document.text.chars().collect();
    for block in &document.blocks {
        let text: String = chars[block.start..block.end].iter().collect();
        println!(
            "{:?} p{:?} {}\n    {text}",
            block.kind,
            block.page,
            block.heading_path.join(" > ")
        );
    }
}
