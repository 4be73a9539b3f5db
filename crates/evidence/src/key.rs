//! Who signs, and whose signature counts.
//!
//! Ed25519, in the form of OpenSSH: keys as `ssh-keygen` writes them, signatures as `ssh-keygen -Y sign` does
//! (PROTOCOL.sshsig), so that an auditor needs no program of ours. That form also says what a signature is for: a key
//! that signs logins as well can't be made to confuse the two.

use std::fmt;

use ssh_key::private::Ed25519Keypair;
use ssh_key::{HashAlg, LineEnding, PrivateKey, PublicKey, SshSig};
use zeroize::Zeroizing;

use crate::NAMESPACE;

const BEGIN: &str = "-----BEGIN SSH SIGNATURE-----\n";
const END: &str = "-----END SSH SIGNATURE-----";
/// The letters in a line of a signature file.
const WIDTH: usize = 70;

/// Why a key can't be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyProblem {
    /// It is no key in OpenSSH's form.
    Unreadable,
    /// Its file wants a passphrase, and nobody may be there to type it.
    Encrypted,
    /// It is of another kind.
    NotEd25519(String),
}

impl fmt::Display for KeyProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable => f.write_str("it is no key in the form of OpenSSH"),
            Self::Encrypted => f.write_str("it is protected by a passphrase"),
            Self::NotEd25519(kind) => write!(f, "it is of the kind {kind}, and ssh-ed25519 is wanted"),
        }
    }
}

impl std::error::Error for KeyProblem {}

/// A private key. Wiped when dropped.
pub struct Signer(PrivateKey);

impl Signer {
    /// A new key from 32 random bytes.
    pub fn from_seed(seed: &Zeroizing<[u8; 32]>, comment: &str) -> Self {
        let key = PrivateKey::new(Ed25519Keypair::from_seed(seed).into(), comment);
        Self(key.expect("the halves of one key fit together"))
    }

    /// Reads a private key of OpenSSH.
    ///
    /// # Errors
    /// When it is none, encrypted, or no Ed25519 key.
    pub fn from_openssh(text: &str) -> Result<Self, KeyProblem> {
        let key = PrivateKey::from_openssh(text).map_err(|_| KeyProblem::Unreadable)?;
        match key.algorithm() {
            ssh_key::Algorithm::Ed25519 if key.is_encrypted() => Err(KeyProblem::Encrypted),
            ssh_key::Algorithm::Ed25519 => Ok(Self(key)),
            other => Err(KeyProblem::NotEd25519(other.to_string())),
        }
    }

    /// The private key as a file.
    pub fn to_openssh(&self) -> Zeroizing<String> {
        self.0.to_openssh(LineEnding::LF).expect("a key of our own has a text")
    }

    /// The public half.
    pub fn public(&self) -> Public {
        Public(self.0.public_key().clone())
    }

    /// Signs; gives what stands between the first and the last line of a signature file, in one line.
    pub(crate) fn sign(&self, message: &[u8]) -> String {
        let signature = self.0.sign(NAMESPACE, HashAlg::Sha512, message);
        in_a_line(&signature.expect("an Ed25519 key signs everything"))
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signer({})", self.public().fingerprint())
    }
}

/// A public key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Public(PublicKey);

impl Public {
    /// In one line, as `~/.ssh/id_ed25519.pub` has it.
    pub fn to_openssh(&self) -> String {
        self.0.to_openssh().expect("a key of our own has a text")
    }

    /// The name that `ssh-keygen -l` gives it.
    pub fn fingerprint(&self) -> String {
        self.0.fingerprint(HashAlg::Sha256).to_string()
    }
}

/// Whose signatures count.
#[derive(Clone, Debug, Default)]
pub struct Trusted {
    fingerprints: Vec<String>,
}

impl Trusted {
    /// Those of this key.
    pub fn add(&mut self, key: &Public) {
        self.fingerprints.push(key.fingerprint());
    }

    /// Those of the keys in a text: public keys, a private key, or fingerprints (`SHA256:…`), one a line. What stands
    /// before the key in its line, as in the files of authorized keys and allowed signers, is passed over.
    ///
    /// # Errors
    /// When there is no key in it, or one that is none of Ed25519.
    pub fn add_text(&mut self, text: &str) -> Result<(), KeyProblem> {
        if text.contains("-----BEGIN") {
            let key = PrivateKey::from_openssh(text).map_err(|_| KeyProblem::Unreadable)?;
            // Of an encrypted one the public half can be read too.
            return self.add_public(key.public_key());
        }
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        let mut found = false;
        for line in lines {
            found = true;
            match line.strip_prefix("SHA256:") {
                Some(digest) if digest.len() == 43 => self.fingerprints.push(line.to_owned()),
                _ => {
                    let start = line.find("ssh-").or_else(|| line.find("ecdsa-"));
                    let key = start.and_then(|start| PublicKey::from_openssh(&line[start..]).ok());
                    self.add_public(&key.ok_or(KeyProblem::Unreadable)?)?;
                }
            }
        }
        if found { Ok(()) } else { Err(KeyProblem::Unreadable) }
    }

    fn add_public(&mut self, key: &PublicKey) -> Result<(), KeyProblem> {
        match key.algorithm() {
            ssh_key::Algorithm::Ed25519 => self.add(&Public(key.clone())),
            other => return Err(KeyProblem::NotEd25519(other.to_string())),
        }
        Ok(())
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.fingerprints.is_empty()
    }

    fn has(&self, fingerprint: &str) -> bool {
        self.fingerprints.iter().any(|own| own == fingerprint)
    }
}

/// What a signature is worth.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It was made over this message, by this key, which counts.
    Good(String),
    /// It was made over this message, by this key, of which nobody has said that it counts.
    Stranger(String),
    /// It was not made over this message.
    Bad,
}

/// Looks into a signature over a message.
pub(crate) fn judge(message: &[u8], signature: &str, trusted: &Trusted) -> Verdict {
    let Some(read) = read(signature) else { return Verdict::Bad };
    let key = PublicKey::new(read.public_key().clone(), "");
    if key.algorithm() != ssh_key::Algorithm::Ed25519 || key.verify(NAMESPACE, message, &read).is_err() {
        return Verdict::Bad;
    }
    let fingerprint = key.fingerprint(HashAlg::Sha256).to_string();
    if trusted.has(&fingerprint) { Verdict::Good(fingerprint) } else { Verdict::Stranger(fingerprint) }
}

/// Reads a signature if it has the one form in which it is written: parts of it are not signed themselves.
fn read(signature: &str) -> Option<SshSig> {
    if !signature.is_ascii() {
        return None;
    }
    let lines = signature.as_bytes().chunks(WIDTH).map(|line| std::str::from_utf8(line).unwrap_or_default());
    let text = lines.fold(BEGIN.to_owned(), |text, line| text + line + "\n") + END;
    let read = SshSig::from_pem(text).ok()?;
    (read.version() == SshSig::VERSION && in_a_line(&read) == signature).then_some(read)
}

fn in_a_line(signature: &SshSig) -> String {
    let text = signature.to_pem(LineEnding::LF).expect("a signature that was read or made has a text");
    text.lines().filter(|line| !line.starts_with("-----")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signer(seed: u8) -> Signer {
        Signer::from_seed(&Zeroizing::new([seed; 32]), "test")
    }

    /// `ssh-keygen -t rsa -b 2048`, the public half.
    const RSA: &str =
        "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAABAQC6R2b2pqg3QH0L3oVzY6SGvPhdXh5nFgQQk5sXQvVwQZ2ZVQY5q";

    #[test]
    fn a_key_survives_its_file_and_shows_nothing() {
        let key = signer(1);
        let again = Signer::from_openssh(&key.to_openssh()).unwrap();
        assert_eq!(again.public().fingerprint(), key.public().fingerprint());
        assert_eq!(format!("{key:?}"), format!("Signer({})", key.public().fingerprint()));
    }

    #[test]
    fn whose_signatures_count_is_said_in_several_ways() {
        let key = signer(1);
        let signature = key.sign(b"words");
        let public = key.public().to_openssh();
        for text in [
            public.clone(),
            format!("# the auditor's list\n\n{public}\n"),
            format!("ana@example.com namespaces=\"pgrotate-evidence\" {public}"),
            key.public().fingerprint(),
            key.to_openssh().to_string(),
        ] {
            let mut trusted = Trusted::default();
            trusted.add_text(&text).unwrap();
            assert_eq!(judge(b"words", &signature, &trusted), Verdict::Good(key.public().fingerprint()));
        }
        let mut other = Trusted::default();
        other.add(&signer(2).public());
        assert_eq!(judge(b"words", &signature, &other), Verdict::Stranger(key.public().fingerprint()));
        assert_eq!(judge(b"other words", &signature, &other), Verdict::Bad);
    }

    #[test]
    fn what_is_no_key_is_refused() {
        for text in ["", "# only words\n", "SHA256:short", "hello", RSA] {
            assert_eq!(Trusted::default().add_text(text), Err(KeyProblem::Unreadable), "{text}");
        }
        assert_eq!(Signer::from_openssh("hello").unwrap_err(), KeyProblem::Unreadable);
    }

    #[test]
    fn a_signature_for_something_else_does_not_count() {
        let key = signer(1);
        let mut trusted = Trusted::default();
        trusted.add(&key.public());
        let other = in_a_line(&key.0.sign("file", HashAlg::Sha512, b"words").unwrap());
        assert_eq!(judge(b"words", &other, &trusted), Verdict::Bad);
        for wrong in ["", "AAAA", "not base64!", "ü"] {
            assert_eq!(judge(b"words", wrong, &trusted), Verdict::Bad);
        }
    }
}
