#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ingest_fuzz::detect_and_extract(bytes, "a.csv"));
