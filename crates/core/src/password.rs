//! Makes new passwords.
//!
//! Letters and digits, so that no layer has to encode anything: not the URL, not the shell, not
//! an env file, not Alembic's ConfigParser (which prints the whole URL when it meets a `%`).
//! A symbol, if a policy demands one, comes only from `-`, `_` and `.`, which no URL encodes.

use std::fmt;

use zeroize::Zeroize;

use crate::env::Entropy;
use crate::error::{Error, Kind, Result};
use crate::secret::Secret;

const UPPER: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ";
const LOWER: &[u8] = b"abcdefghijklmnopqrstuvwxyz";
const DIGITS: &[u8] = b"0123456789";
/// The only symbols that are left alone by URLs, shells and parsers alike.
pub const ALLOWED_SYMBOLS: &str = "-_.";
/// Shortest and longest password that a policy may ask for, in characters.
pub const LENGTHS: std::ops::RangeInclusive<usize> = 16..=128;
/// Least entropy of a password, in bits.
pub const MIN_BITS: f64 = 160.0;

/// What a new password looks like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    length: usize,
    symbols: Vec<u8>,
}

impl Default for Policy {
    /// 32 letters and digits: 190 bits.
    fn default() -> Self {
        Self { length: 32, symbols: Vec::new() }
    }
}

/// Why a policy can't be used.
#[derive(Clone, Debug, PartialEq)]
pub enum PolicyError {
    /// Outside of 16 to 128 characters.
    Length(usize),
    /// A symbol that some consumer would have to encode.
    Symbol(char),
    /// Fewer bits than [`MIN_BITS`].
    TooWeak {
        /// What the policy gives.
        bits: f64,
    },
}

impl fmt::Display for PolicyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Length(length) => {
                write!(
                    f,
                    "a password of {length} characters; {} to {} are possible",
                    LENGTHS.start(),
                    LENGTHS.end()
                )
            }
            Self::Symbol(symbol) => {
                write!(f, "{symbol:?} would have to be encoded somewhere; only `-`, `_` and `.` never are")
            }
            Self::TooWeak { bits } => {
                write!(f, "{bits:.0} bits are too few; at least {MIN_BITS:.0} are wanted, so make it longer")
            }
        }
    }
}

impl std::error::Error for PolicyError {}

impl Policy {
    /// Checks length (characters) and symbols.
    ///
    /// # Errors
    /// Says which of the two can't be used, or that they give less than 160 bits.
    pub fn new(length: usize, symbols: &str) -> std::result::Result<Self, PolicyError> {
        if !LENGTHS.contains(&length) {
            return Err(PolicyError::Length(length));
        }
        if let Some(symbol) = symbols.chars().find(|symbol| !ALLOWED_SYMBOLS.contains(*symbol)) {
            return Err(PolicyError::Symbol(symbol));
        }
        let mut symbols = symbols.as_bytes().to_vec();
        symbols.sort_unstable();
        symbols.dedup();
        let policy = Self { length, symbols };
        match policy.bits() {
            bits if bits < MIN_BITS => Err(PolicyError::TooWeak { bits }),
            _ => Ok(policy),
        }
    }

    /// Length in characters.
    pub fn length(&self) -> usize {
        self.length
    }

    /// Entropy in bits, from below: what the rejection of unlucky draws may cost is taken off.
    pub fn bits(&self) -> f64 {
        let first = (UPPER.len() + LOWER.len()) as f64;
        let rest = self.alphabet().len() as f64;
        // A draw is rejected when a class is missing or a run of the login appears. For 16
        // characters and more fewer than half of the draws are: that is less than one bit.
        first.log2() + (self.length as f64 - 1.0) * rest.log2() - 1.0
    }

    /// Draws a password until one satisfies the rules; on average fewer than two draws.
    ///
    /// # Errors
    /// Fails only if the randomness is broken: 1,000 draws in a row that break a rule.
    pub fn generate(&self, login: &str, entropy: &dyn Entropy) -> Result<Secret> {
        for _ in 0..1_000 {
            let candidate = self.draw(entropy);
            if self.violation(&candidate, login).is_none() {
                return Ok(candidate);
            }
        }
        Err(Error::new(Kind::Internal, "make a password")
            .because("1,000 draws in a row broke the rules")
            .hint(
                "the operating system's randomness seems to be broken; don't rotate anything on this machine",
            ))
    }

    /// The first of Azure's and our own rules that a password breaks.
    pub fn violation(&self, password: &Secret, login: &str) -> Option<&'static str> {
        let bytes = password.expose().as_bytes();
        let symbols = |byte: &u8| !byte.is_ascii_alphanumeric();
        if !(8..=128).contains(&bytes.len()) {
            Some("8 to 128 characters")
        } else if !bytes[0].is_ascii_alphabetic() {
            Some("a letter first")
        } else if [u8::is_ascii_uppercase, u8::is_ascii_lowercase, u8::is_ascii_digit]
            .iter()
            .any(|class| !bytes.iter().any(class))
        {
            Some("an upper-case letter, a lower-case letter and a digit")
        } else if !self.symbols.is_empty() && !bytes.iter().any(symbols) {
            Some("one of the configured symbols")
        } else if shares_a_run(password.expose(), login) {
            Some("no three characters in a row of the login")
        } else {
            None
        }
    }

    fn alphabet(&self) -> Vec<u8> {
        [UPPER, LOWER, DIGITS, &self.symbols].concat()
    }

    /// Draws every character evenly. The first one is a letter: no tool takes it for an
    /// option or a number then.
    fn draw(&self, entropy: &dyn Entropy) -> Secret {
        let letters = [UPPER, LOWER].concat();
        let alphabet = self.alphabet();
        let mut text = String::with_capacity(self.length);
        text.push(char::from(letters[index(letters.len(), entropy)]));
        while text.len() < self.length {
            text.push(char::from(alphabet[index(alphabet.len(), entropy)]));
        }
        Secret::new(text)
    }
}

/// An evenly distributed index below `size`: bytes in the uneven rest at the top are thrown
/// away, where a remainder would favour the first characters.
fn index(size: usize, entropy: &dyn Entropy) -> usize {
    let limit = 256 - 256 % size;
    let mut byte = [0_u8];
    loop {
        entropy.fill(&mut byte);
        let value = usize::from(byte[0]);
        if value < limit {
            byte.zeroize();
            return value % size;
        }
    }
}

/// Azure refuses a password with three alphanumeric characters in a row of the login.
/// Upper and lower case count as equal, to be on the safe side of unclear wording.
fn shares_a_run(password: &str, login: &str) -> bool {
    let password = zeroize::Zeroizing::new(password.to_ascii_lowercase());
    let login: Vec<u8> = login.to_ascii_lowercase().into_bytes();
    login
        .windows(3)
        .filter(|run| run.iter().all(u8::is_ascii_alphanumeric))
        .any(|run| password.as_bytes().windows(3).any(|own| own == run))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::testing::SeededEntropy;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_password_satisfies_the_rules(seed: u64, length in 32_usize..=128, symbols in "[-_.]{0,3}") {
            let policy = Policy::new(length, &symbols).unwrap();
            let password = policy.generate("mindwelladmin", &SeededEntropy::new(seed)).unwrap();
            prop_assert_eq!(policy.violation(&password, "mindwelladmin"), None);
            prop_assert_eq!(password.len(), length);
            prop_assert!(password.expose().chars().all(|c| c.is_ascii_alphanumeric() || symbols.contains(c)));
        }
    }

    #[test]
    fn a_policy_says_what_is_wrong_with_it() {
        assert_eq!(Policy::new(15, ""), Err(PolicyError::Length(15)));
        assert_eq!(Policy::new(129, ""), Err(PolicyError::Length(129)));
        assert_eq!(Policy::new(32, "-$"), Err(PolicyError::Symbol('$')));
        assert!(matches!(Policy::new(16, ""), Err(PolicyError::TooWeak { .. })));
        assert!(Policy::new(28, "").is_ok());
    }

    #[test]
    fn the_default_has_about_189_bits() {
        assert_eq!(Policy::default().bits().round(), 189.0);
    }

    #[test]
    fn rules_are_those_of_azure() {
        let policy = Policy::default();
        let broken = |text: &str| policy.violation(&Secret::new(text), "mindwelladmin");
        assert_eq!(broken("Ab1defg"), Some("8 to 128 characters"));
        assert_eq!(broken("1bCdefgh"), Some("a letter first"));
        assert_eq!(broken("abcdefg1"), Some("an upper-case letter, a lower-case letter and a digit"));
        assert_eq!(broken("Zq8xMINk"), Some("no three characters in a row of the login"));
        assert_eq!(broken("Zq8xMIkn"), None);
    }

    /// Each limit from both sides.
    #[test]
    fn the_rules_begin_where_they_say() {
        let broken = |text: &str, login: &str| Policy::default().violation(&Secret::new(text), login);
        assert_eq!(broken("Ab1defgh", "x"), None, "8 characters");
        let long = |length: usize| format!("Ab1{}", "x".repeat(length - 3));
        assert_eq!(broken(&long(128), "y"), None);
        assert_eq!(broken(&long(129), "y"), Some("8 to 128 characters"));
        // Two characters of the login are no run, and signs between them end one.
        assert_eq!(broken("Zq8xMIkn", "mi"), None);
        assert_eq!(broken("Zq8xm-ikn", "m-i"), None);
        assert_eq!(broken("Zq8xMINk", "amin"), Some("no three characters in a row of the login"));
        let signs = Policy::new(32, "-_").unwrap();
        let broken = |text: &str| signs.violation(&Secret::new(text), "x");
        assert_eq!(broken("Ab1defgh"), Some("one of the configured symbols"));
        assert_eq!(broken("Ab1defg-"), None);
    }

    #[test]
    fn a_policy_begins_and_ends_where_it_says() {
        assert_eq!(Policy::new(128, "").unwrap().length(), 128);
        assert!(
            matches!(Policy::new(16, ""), Err(PolicyError::TooWeak { bits }) if bits > 90.0 && bits < 96.0)
        );
        // 27 characters are 159.5 bits from below, and 28 are 165.5.
        assert!(matches!(Policy::new(27, ""), Err(PolicyError::TooWeak { .. })));
        let said = |length, symbols| Policy::new(length, symbols).unwrap_err().to_string();
        assert!(said(15, "").contains("15 characters; 16 to 128 are possible"));
        assert!(said(32, "$").contains("'$' would have to be encoded"));
        assert!(said(16, "").contains("bits are too few; at least 160"));
    }

    #[test]
    fn broken_randomness_makes_no_password() {
        struct Stuck;
        impl Entropy for Stuck {
            fn fill(&self, buffer: &mut [u8]) {
                buffer.fill(0);
            }
        }
        let error = Policy::default().generate("x", &Stuck).unwrap_err();
        assert_eq!(error.kind(), Kind::Internal);
        assert!(error.hints()[0].contains("don't rotate"));
    }

    /// Over 62,000 draws of a 62-letter alphabet each character is expected 1,000 times; the
    /// chi-square statistic with 61 degrees of freedom exceeds 120 once in 100,000 such tests.
    #[test]
    fn characters_are_drawn_evenly() {
        let entropy = SeededEntropy::new(42);
        let mut counts = [0_f64; 62];
        (0..62_000).for_each(|_| counts[index(62, &entropy)] += 1.0);
        let chi_square: f64 = counts.iter().map(|count| (count - 1000.0).powi(2) / 1000.0).sum();
        assert!(chi_square < 120.0, "chi-square {chi_square}");
    }

    /// A source that only ever gives the bytes a remainder would map unevenly, then good ones.
    #[test]
    fn the_uneven_rest_is_thrown_away() {
        struct Script(std::sync::Mutex<Vec<u8>>);
        impl Entropy for Script {
            fn fill(&self, buffer: &mut [u8]) {
                let mut bytes = self.0.lock().unwrap();
                buffer.iter_mut().for_each(|byte| *byte = bytes.remove(0));
            }
        }
        let script = Script(std::sync::Mutex::new(vec![255, 248, 247]));
        assert_eq!(index(62, &script), 247 % 62);
    }
}
