//! Hands `pgrotate_fuzz::scram` what libFuzzer thinks of.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| pgrotate_fuzz::scram(input));
