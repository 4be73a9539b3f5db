//! Hands `pgrotate_fuzz::url` what libFuzzer thinks of.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| pgrotate_fuzz::url(input));
