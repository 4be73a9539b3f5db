//! What is in the file, and how it is locked: JSON in age's format, binary or armored.
//!
//! A file is written the way it was found: armored or not, with a work factor no lower than it
//! had, and for everybody who could open it before.

use std::io::{Read, Write};

use age::armor::{ArmoredReader, ArmoredWriter, Format};
use age::secrecy::SecretString;
use age::{DecryptError, Decryptor, Encryptor};
use jiff::Timestamp;
use pgrotate_core::{Error, Kind, Result, RunId, Secret};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// The version of the JSON's form.
pub(super) const FORMAT: u32 = 1;
/// The work factor of scrypt, as a power of two: 2^17 needs 128 MiB and half a second
/// (OWASP's minimum). Tests don't wait for it.
const WORK_FACTOR: u8 = if cfg!(test) { 10 } else { 17 };
/// More work than this is not done for a file: 2^20 needs 1 GiB.
const MOST_WORK: u8 = 20;

/// What the vault holds.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Content {
    /// [`FORMAT`] when it was written.
    pub(super) version: u32,
    /// Counts the changes.
    #[serde(default)]
    pub(super) revision: u64,
    /// Who can open it, if it is locked for identities: their public keys.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) recipients: Vec<String>,
    /// Whose the current password is, where two roles take turns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) user: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) current: Option<Slot>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) pending: Option<Slot>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) previous: Option<Slot>,
}

/// One password.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Slot {
    #[serde(with = "password")]
    pub(super) password: Secret,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) run: Option<RunId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) at: Option<Timestamp>,
}

/// The one way in which a secret is serialised: into the buffer that is encrypted next.
mod password {
    use serde::{Deserialize, Deserializer, Serializer};

    use super::Secret;

    pub(super) fn serialize<S: Serializer>(secret: &Secret, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(secret.expose())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Secret, D::Error> {
        String::deserialize(deserializer).map(Secret::new)
    }
}

/// What opens the file.
pub(super) enum Key {
    Passphrase(Secret),
    Identities(Vec<age::x25519::Identity>),
}

impl Key {
    /// Reads the lines of an identity file, as `age-keygen` writes it.
    pub(super) fn from_identity_file(text: &str) -> std::result::Result<Self, String> {
        let lines = text.lines().enumerate().map(|(index, line)| (index + 1, line.trim()));
        let identities = lines
            .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
            .map(|(number, line)| line.parse().map_err(|_| format!("line {number} is no AGE-SECRET-KEY")))
            .collect::<std::result::Result<Vec<_>, _>>()?;
        if identities.is_empty() {
            Err("there is no AGE-SECRET-KEY in it".into())
        } else {
            Ok(Self::Identities(identities))
        }
    }
}

/// How a file was locked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Lock {
    armored: bool,
    /// The power of two of scrypt's work factor, if it is locked with a passphrase.
    work: Option<u8>,
    /// How many can open it.
    recipients: usize,
}

impl Lock {
    /// For a new file.
    pub(super) fn new() -> Self {
        Self { armored: true, work: None, recipients: 0 }
    }
}

/// An opened file.
pub(super) struct Opened {
    pub(super) content: Content,
    pub(super) lock: Lock,
}

/// Opens a file.
pub(super) fn open(bytes: &[u8], key: &Key, operation: &str) -> Result<Opened> {
    let damaged = |what: &str| Error::new(Kind::Corrupt, operation).because(what.to_owned());
    let mut binary = Vec::new();
    ArmoredReader::new(bytes)
        .read_to_end(&mut binary)
        .map_err(|_| damaged("it is no age file, or it was damaged").hint(RESTORE))?;
    let lock = lock_of(bytes, &binary);
    let decryptor = Decryptor::new_buffered(&binary[..]).map_err(|error| classify(&error, key, operation))?;
    let mut plain = Zeroizing::new(Vec::with_capacity(binary.len()));
    let opened = match key {
        Key::Passphrase(_) if !decryptor.is_scrypt() => return Err(mistaken(key, operation)),
        Key::Identities(_) if decryptor.is_scrypt() => return Err(mistaken(key, operation)),
        Key::Passphrase(passphrase) => {
            let mut identity = age::scrypt::Identity::new(SecretString::from(passphrase.expose().to_owned()));
            identity.set_max_work_factor(MOST_WORK);
            decryptor.decrypt(std::iter::once(&identity as &dyn age::Identity))
        }
        Key::Identities(identities) => {
            decryptor.decrypt(identities.iter().map(|identity| identity as &dyn age::Identity))
        }
    };
    let mut reader = opened.map_err(|error| classify(&error, key, operation))?;
    reader.read_to_end(&mut plain).map_err(|_| damaged("it was damaged or cut short").hint(RESTORE))?;
    Ok(Opened { content: parse(&plain, operation)?, lock })
}

const RESTORE: &str = "restore it from a backup; the password that works is also in every copy";

fn parse(plain: &[u8], operation: &str) -> Result<Content> {
    // The parser's own words can quote what stands there.
    let refuse = |what: String| Error::new(Kind::Corrupt, operation).because(what);
    #[derive(Deserialize)]
    struct Version {
        version: u32,
    }
    let Version { version } = serde_json::from_slice(plain).map_err(|error| {
        refuse(format!("what is locked in it is not a vault's JSON (line {})", error.line()))
    })?;
    if version != FORMAT {
        return Err(refuse(format!(
            "its form has version {version}, and this pgrotate knows version {FORMAT}"
        ))
        .hint("use the newer pgrotate that wrote it"));
    }
    serde_json::from_slice(plain).map_err(|error| {
        refuse(format!("a field of it can't be read or is not known (line {})", error.line()))
    })
}

/// Locks what a file is to hold, and opens it again: what can't be opened must never take the
/// place of what can.
pub(super) fn seal(content: &Content, key: &Key, like: &Lock, operation: &str) -> Result<Vec<u8>> {
    let failed = |what: &str| Error::new(Kind::Config, operation).because(what.to_owned());
    let plain = written(content, operation)?;
    let encryptor = match key {
        Key::Passphrase(passphrase) => {
            let mut recipient =
                age::scrypt::Recipient::new(SecretString::from(passphrase.expose().to_owned()));
            recipient
                .set_work_factor(like.work.map_or(WORK_FACTOR, |work| work.clamp(WORK_FACTOR, MOST_WORK)));
            Encryptor::with_recipients(std::iter::once(&recipient as &dyn age::Recipient))
        }
        Key::Identities(own) => {
            let audience = audience(content, own, like, operation)?;
            Encryptor::with_recipients(audience.iter().map(|recipient| recipient as &dyn age::Recipient))
        }
    };
    let encryptor = encryptor.map_err(|_| failed("it can't be locked for these recipients"))?;
    let format = if like.armored { Format::AsciiArmor } else { Format::Binary };
    let sealed = wrap(encryptor, &plain, format).map_err(|error| failed(&error.kind().to_string()))?;
    let again = open(&sealed, key, operation)?.content;
    let same = |a: &Option<Slot>, b: &Option<Slot>| {
        a.as_ref().map(|s| &s.password) == b.as_ref().map(|s| &s.password)
    };
    if same(&again.current, &content.current)
        && same(&again.pending, &content.pending)
        && again.revision == content.revision
    {
        Ok(sealed)
    } else {
        Err(Error::internal("a vault was sealed, and something else was in it when it was opened"))
    }
}

/// Locks a new file for others, who alone can open it.
pub(super) fn seal_for(
    content: &Content,
    recipients: &[age::x25519::Recipient],
    operation: &str,
) -> Result<Vec<u8>> {
    let failed = |what: &str| Error::new(Kind::Config, operation).because(what.to_owned());
    let plain = written(content, operation)?;
    Encryptor::with_recipients(recipients.iter().map(|recipient| recipient as &dyn age::Recipient))
        .map_err(|_| failed("it can't be locked for these recipients"))
        .and_then(|encryptor| {
            wrap(encryptor, &plain, Format::AsciiArmor).map_err(|error| failed(&error.kind().to_string()))
        })
}

/// The content as JSON.
fn written(content: &Content, operation: &str) -> Result<Zeroizing<Vec<u8>>> {
    // Large enough not to grow: a buffer that moves leaves a copy behind.
    let mut plain = Zeroizing::new(Vec::with_capacity(64 << 10));
    serde_json::to_writer(&mut *plain, content)
        .map_err(|_| Error::new(Kind::Config, operation).because("it could not be written as JSON"))?;
    Ok(plain)
}

fn wrap(encryptor: Encryptor, plain: &[u8], format: Format) -> std::io::Result<Vec<u8>> {
    let mut writer = encryptor.wrap_output(ArmoredWriter::wrap_output(Vec::new(), format)?)?;
    writer.write_all(plain)?;
    writer.finish()?.finish()
}

/// Those who will be able to open it: the listed ones, else those that we are ourselves.
///
/// # Errors
/// When somebody who can open it now could not any more.
pub(super) fn audience(
    content: &Content,
    own: &[age::x25519::Identity],
    like: &Lock,
    operation: &str,
) -> Result<Vec<age::x25519::Recipient>> {
    let refuse = |why: String| Error::new(Kind::Config, operation).because(why);
    let ours: Vec<_> = own.iter().map(age::x25519::Identity::to_public).collect();
    let listed = parse_recipients(&content.recipients).map_err(refuse)?;
    let among = |own: &age::x25519::Recipient| content.recipients.contains(&own.to_string());
    if !listed.is_empty() && !ours.iter().any(among) {
        return Err(refuse("our own identity is not among its `recipients`".into()));
    }
    let audience = if listed.is_empty() { ours } else { listed };
    if audience.len() < like.recipients {
        return Err(refuse("others can open it too, and could not any more after a change".into())
            .hint("list the public keys (age1…) of everybody who may open it in its field `recipients`"));
    }
    Ok(audience)
}

/// Reads public keys.
pub(super) fn parse_recipients(
    listed: &[String],
) -> std::result::Result<Vec<age::x25519::Recipient>, String> {
    listed.iter().map(|key| key.parse().map_err(|_| format!("{key:?} is no age recipient (age1…)"))).collect()
}

/// What the file's header, which is text, says about who can open it.
fn lock_of(bytes: &[u8], binary: &[u8]) -> Lock {
    let header = binary.split(|byte| *byte == b'\n').take_while(|line| !line.starts_with(b"---"));
    let stanzas: Vec<String> = header
        .filter_map(|line| Some(String::from_utf8_lossy(line.strip_prefix(b"-> ")?).into_owned()))
        // Stanzas that mean nothing and keep others from relying on there being none.
        .filter(|stanza| !stanza.split(' ').next().unwrap_or_default().ends_with("-grease"))
        .collect();
    let work =
        stanzas.iter().find_map(|stanza| stanza.strip_prefix("scrypt ")?.split(' ').nth(1)?.parse().ok());
    Lock { armored: bytes.starts_with(b"-----BEGIN"), work, recipients: stanzas.len() }
}

/// The other kind of key is needed.
fn mistaken(key: &Key, operation: &str) -> Error {
    let error = Error::new(Kind::Config, operation);
    match key {
        Key::Passphrase(_) => error
            .because("it is locked for identities, not with a passphrase")
            .hint("name the file with your AGE-SECRET-KEY as `identity_file`"),
        Key::Identities(_) => error
            .because("it is locked with a passphrase, not for identities")
            .hint("remove `identity_file` from the configuration"),
    }
}

/// Turns age's errors into ours.
fn classify(error: &DecryptError, key: &Key, operation: &str) -> Error {
    let refuse = |kind, cause: &str| Error::new(kind, operation).because(cause.to_owned());
    match (error, key) {
        (DecryptError::ExcessiveWork { required, .. }, _) => {
            let cause = format!(
                "opening it would take the work of 2^{required}, and 2^{MOST_WORK} is the most that is done"
            );
            refuse(Kind::Rejected, &cause).hint("lock it again with less: age -d FILE | age -p -o FILE.new")
        }
        (
            DecryptError::DecryptionFailed | DecryptError::KeyDecryptionFailed | DecryptError::NoMatchingKeys,
            Key::Passphrase(_),
        ) => refuse(Kind::Unauthenticated, "the passphrase does not open it"),
        (
            DecryptError::DecryptionFailed | DecryptError::KeyDecryptionFailed | DecryptError::NoMatchingKeys,
            Key::Identities(_),
        ) => refuse(Kind::Unauthenticated, "none of the identities opens it"),
        _ => refuse(Kind::Corrupt, "it is no age file, or it was damaged").hint(RESTORE),
    }
}
