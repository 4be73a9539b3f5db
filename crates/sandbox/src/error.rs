//! The sandbox's own error: a sentence, and what caused it.
//!
//! Whoever starts a sandbox reads these on a terminal, so each says what was being done. No value that a vendor
//! holds (a password, a token) may be put into one.

use std::error::Error as StdError;
use std::fmt;

/// What went wrong, as a sentence, with its cause.
#[derive(Debug)]
pub(crate) struct Error {
    message: String,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

/// What the sandbox's functions return.
pub(crate) type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An error without a cause.
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), source: None }
    }

    /// The sentence and each cause, joined by colons.
    pub(crate) fn chain(&self) -> String {
        let mut text = self.message.clone();
        let mut cause = StdError::source(self);
        while let Some(error) = cause {
            text.push_str(": ");
            text.push_str(&error.to_string());
            cause = error.source();
        }
        text
    }
}

impl fmt::Display for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.message)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn StdError + 'static))
    }
}

/// Says what was being done when an error came up.
pub(crate) trait Context<T> {
    /// Wraps the error in a sentence.
    fn context(self, message: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: Into<Box<dyn StdError + Send + Sync>>> Context<T> for std::result::Result<T, E> {
    fn context(self, message: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|error| Error { message: message(), source: Some(error.into()) })
    }
}

impl<T> Context<T> for Option<T> {
    fn context(self, message: impl FnOnce() -> String) -> Result<T> {
        self.ok_or_else(|| Error::new(message()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_names_every_cause() {
        let inner: Result<()> =
            Err(std::io::Error::other("no space left")).context(|| "cannot write a".into());
        let outer = inner.context(|| "cannot start b".into()).unwrap_err();
        assert_eq!(outer.chain(), "cannot start b: cannot write a: no space left");
        assert_eq!(outer.to_string(), "cannot start b");
    }
}
