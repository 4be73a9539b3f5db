//! Hands `pgrotate_fuzz::journal` what libFuzzer thinks of.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| pgrotate_fuzz::journal(input));
