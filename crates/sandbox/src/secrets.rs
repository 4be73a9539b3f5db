//! The passwords and tokens of a sandbox: made afresh each time, so that none stands in the source.

use crate::error::{Error, Result};

const ALPHABET: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

/// Letters and digits from the operating system's randomness.
pub(crate) fn alphanumeric(length: usize) -> Result<String> {
    let mut text = String::with_capacity(length);
    let mut buffer = [0_u8; 64];
    while text.len() < length {
        getrandom::fill(&mut buffer)
            .map_err(|error| Error::new(format!("no randomness from the operating system: {error}")))?;
        // 248 is the greatest multiple of 62 in a byte: what lies above would favour the first letters.
        let fair = buffer.iter().filter(|byte| **byte < 248);
        let letters = fair.map(|byte| char::from(ALPHABET[usize::from(byte % 62)]));
        text.extend(letters.take(length - text.len()));
    }
    Ok(text)
}

/// A password that Azure takes for a server's administrator `login`: of three classes, and without a run of three
/// characters of the login. It may come back to the server when a rotation is rolled back. As `base64` it has
/// characters that have to be encoded in a URL.
pub(crate) fn password(login: &str, base64: bool) -> Result<String> {
    loop {
        // The beginning sees to the classes; 29 random characters follow.
        let (first, last) = (alphanumeric(14)?, alphanumeric(15)?);
        let password = if base64 { format!("Pw0{first}/+{last}=") } else { format!("Pw0{first}{last}") };
        if !shares_a_run(&password, login) {
            return Ok(password);
        }
    }
}

fn shares_a_run(password: &str, login: &str) -> bool {
    let (password, login) = (password.to_ascii_lowercase(), login.to_ascii_lowercase());
    login.as_bytes().windows(3).any(|run| password.as_bytes().windows(3).any(|other| other == run))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_alphanumeric_long_enough_and_new_each_time() {
        let (first, second) =
            (password("mindwelladmin", false).unwrap(), password("mindwelladmin", false).unwrap());
        assert_eq!(first.len(), 32);
        assert!(first.bytes().all(|byte| byte.is_ascii_alphanumeric()));
        assert_ne!(first, second);
    }

    #[test]
    fn a_run_of_the_login_is_seen_in_either_case() {
        assert!(shares_a_run("xxDWExx", "mindwelladmin"));
        assert!(!shares_a_run("xxDWxx", "mindwelladmin"));
    }
}
