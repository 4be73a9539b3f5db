//! Hands `pgrotate_fuzz::env_file` what libFuzzer thinks of.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| pgrotate_fuzz::env_file(input));
