#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ingest_fuzz::extract_as(ingest::Format::Html, bytes));
