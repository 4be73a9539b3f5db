//! What the fuzz targets demand of any input.
//!
//! A target is a plain function that takes bytes and panics when a promise is broken. `fuzz/` hands it what libFuzzer
//! thinks of (`make fuzz`); `tests/corpus.rs` hands it the committed corpus and some hundreds of changed inputs, so that
//! a target is compiled and run with all other tests and can't rot.

#![forbid(unsafe_code)]

#[cfg(feature = "providers")]
mod answers;
#[cfg(feature = "providers")]
mod config;
#[cfg(feature = "providers")]
mod env_file;
mod journal;
#[cfg(feature = "providers")]
mod scram;
mod url;

#[cfg(feature = "providers")]
pub use answers::answers;
#[cfg(feature = "providers")]
pub use config::config;
#[cfg(feature = "providers")]
pub use env_file::env_file;
pub use journal::journal;
#[cfg(feature = "providers")]
pub use scram::scram;
pub use url::url;

/// The input as lines of text; the last of `N` takes the rest. What is no text is no input.
fn lines<const N: usize>(input: &[u8]) -> Option<[&str; N]> {
    let lines: Vec<&str> = std::str::from_utf8(input).ok()?.splitn(N, '\n').collect();
    lines.try_into().ok()
}
