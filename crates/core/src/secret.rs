//! Values that must not be seen, and the marks by which equal ones are recognised.

use std::fmt;

use hmac::{Hmac, Mac};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// A password, or a text that holds one. Wiped when dropped.
///
/// It has no `Display` and no `Serialize`, and its `Debug` shows nothing, so the ways in which
/// a value usually escapes don't compile:
///
/// ```compile_fail,E0277
/// // A step's outcome is written to the journal, so everything in it must be `Serialize`.
/// #[derive(serde::Serialize)]
/// struct Outcome { password: pgrotate_core::Secret }
/// ```
/// ```compile_fail,E0308
/// // The outcome that steps return has no place for one either.
/// let secret = pgrotate_core::Secret::new("hunter2");
/// let outcome = pgrotate_core::journal::Outcome { fingerprint: Some(secret), ..Default::default() };
/// ```
/// ```compile_fail,E0277
/// // Neither has an error or a log line.
/// let secret = pgrotate_core::Secret::new("hunter2");
/// let text = format!("the password is {secret}");
/// ```
#[derive(Clone)]
pub struct Secret(SecretString);

impl Secret {
    /// Takes a value into custody. A text that is handed over is wiped; a copy that the caller kept is not.
    pub fn new(value: impl Into<String>) -> Self {
        // Not taken as it is: to be cut to its length, a text with room to spare may have to move.
        let value = Zeroizing::new(value.into());
        Self(SecretString::from(value.as_str()))
    }

    /// Lends the value to the one line that has to send or compare it.
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }

    /// Length in bytes; a length is not a secret here, the configuration states it.
    pub fn len(&self) -> usize {
        self.expose().len()
    }

    /// Whether the value is the empty text.
    pub fn is_empty(&self) -> bool {
        self.expose().is_empty()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(hidden)")
    }
}

/// Compares in constant time, so that a comparison with something an outsider sent tells
/// nothing by how long it took.
impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.expose().as_bytes().ct_eq(other.expose().as_bytes()).into()
    }
}

impl Eq for Secret {}

/// The key that turns secrets into [`Fingerprint`]s. It lives in the state folder; without it
/// a fingerprint says nothing, not even to somebody who can guess passwords.
#[derive(Clone)]
pub struct FingerprintKey(Zeroizing<[u8; 32]>);

impl FingerprintKey {
    /// Makes a key of 32 bytes from the operating system's randomness.
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// Marks a password: equal passwords have equal marks.
    pub fn fingerprint(&self, secret: &Secret) -> Fingerprint {
        let mut mac = Hmac::<Sha256>::new_from_slice(&*self.0).expect("HMAC takes keys of every length");
        mac.update(b"pgrotate fingerprint 1\0");
        mac.update(secret.expose().as_bytes());
        let digest = mac.finalize().into_bytes();
        Fingerprint(hex(&digest[..6]))
    }
}

impl fmt::Debug for FingerprintKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FingerprintKey(hidden)")
    }
}

/// A keyed mark of a password: 48 bits in hexadecimal. Enough to tell a handful of versions
/// apart, too little to help a guess along.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Fingerprint(String);

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Bytes as lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    use fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to a String can't fail");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_passwords_have_equal_fingerprints_and_others_do_not() {
        let key = FingerprintKey::new([7; 32]);
        let (a, b) = (Secret::new("correct horse"), Secret::new("correct horsf"));
        assert_eq!(key.fingerprint(&a), key.fingerprint(&a.clone()));
        assert_ne!(key.fingerprint(&a), key.fingerprint(&b));
        assert_ne!(key.fingerprint(&a), FingerprintKey::new([8; 32]).fingerprint(&a));
    }

    #[test]
    fn debug_shows_neither_value_nor_length() {
        let secret = Secret::new("hunter2");
        assert_eq!(format!("{secret:?}"), "Secret(hidden)");
        assert_eq!(format!("{:?}", FingerprintKey::new([7; 32])), "FingerprintKey(hidden)");
    }

    /// Asks the kernel what stands where a value was.
    #[test]
    #[expect(
        clippy::disallowed_methods,
        reason = "nothing else can show memory that belongs to nobody any more"
    )]
    fn what_is_handed_over_and_what_is_dropped_is_gone() {
        use std::os::unix::fs::FileExt;
        let memory = std::fs::File::open("/proc/self/mem").unwrap();
        let value = hex(&std::array::from_fn::<u8, 64, _>(|at| u8::try_from(at).unwrap() ^ 0xa5));
        let left_of_it_at = |address: usize| {
            let mut bytes = vec![0; value.len()];
            memory.read_exact_at(&mut bytes, address.try_into().unwrap()).unwrap();
            value.as_bytes().windows(8).any(|part| bytes.windows(8).any(|own| own == part))
        };
        let mut roomy = String::with_capacity(4 * value.len());
        roomy.push_str(&value);
        let given = roomy.as_ptr().addr();
        assert!(left_of_it_at(given), "the control");
        let secret = Secret::new(roomy);
        assert!(!left_of_it_at(given));
        let (copy, kept) = (secret.clone(), secret.expose().as_ptr().addr());
        let copied = copy.expose().as_ptr().addr();
        assert!(left_of_it_at(kept) && left_of_it_at(copied));
        drop((secret, copy));
        assert!(!left_of_it_at(kept) && !left_of_it_at(copied));
    }

    #[test]
    fn a_length_is_in_bytes() {
        assert_eq!((Secret::new("ü1").len(), Secret::new("ü1").is_empty()), (3, false));
        assert_eq!((Secret::new("").len(), Secret::new("").is_empty()), (0, true));
    }

    /// Journals hold these, so the mark of a password stays what it is.
    #[test]
    fn a_fingerprint_is_48_bits_of_the_keyed_hash() {
        let mark = FingerprintKey::new([7; 32]).fingerprint(&Secret::new("hunter2")).to_string();
        let mut mac = Hmac::<Sha256>::new_from_slice(&[7; 32]).unwrap();
        mac.update(b"pgrotate fingerprint 1\0hunter2");
        assert_eq!(mark, hex(&mac.finalize().into_bytes())[..12]);
        assert_eq!(hex(&[0x00, 0x0A, 0xFF]), "000aff");
    }

    #[test]
    fn comparison_is_by_value() {
        assert_eq!(Secret::new("a"), Secret::new("a"));
        assert_ne!(Secret::new("a"), Secret::new("ab"));
    }
}
