#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| retrieval_fuzz::tiles::all_units_agree(bytes));
