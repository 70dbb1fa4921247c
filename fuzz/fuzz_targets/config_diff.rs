//! See `rathole::fuzzing`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| rathole::fuzzing::run("config_diff", bytes));
