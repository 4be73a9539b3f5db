//! What the tests of an App share: a key that is made for them, so that none stands in the source.

use std::process::Command;
use std::sync::OnceLock;

/// An RSA key in the form in which GitHub hands them out.
pub(super) fn key() -> &'static str {
    static KEY: OnceLock<String> = OnceLock::new();
    KEY.get_or_init(|| {
        let made = Command::new("openssl").args(["genrsa", "-traditional", "2048"]).output();
        let made = made.expect("openssl is installed, as `make setup` sees to");
        String::from_utf8(made.stdout).unwrap()
    })
}
