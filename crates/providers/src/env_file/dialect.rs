//! How the lines of an env file are read, which is different for each of its readers.
//!
//! | dialect | reader | its rules, from |
//! | --- | --- | --- |
//! | verbatim | GitHub's self-hosted runner | `LoadAndSetEnv` in actions/runner, `Program.cs` |
//! | docker | `docker run --env-file` | `parseKeyValueFile` in docker/cli, `pkg/kvfile` |
//! | shell | `. file` of a POSIX shell | POSIX, Shell Command Language |
//! | systemd | `EnvironmentFile=` | `parse_env_file_internal` in systemd, `env-file.c` |

use std::ops::Range;

use serde::Deserialize;
use zeroize::Zeroizing;

use super::{shell, systemd};

/// Who reads the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dialect {
    /// Everything after the first `=` is the value: no quotes, no comments, no escapes.
    Verbatim,
    /// A POSIX shell that sources the file.
    Shell,
    /// Docker's `--env-file`.
    Docker,
    /// systemd's `EnvironmentFile=`.
    Systemd,
}

/// How a value is written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Style {
    /// As it is.
    Bare,
    /// In `'` from end to end.
    Single,
    /// In `"` from end to end.
    Double,
    /// In pieces, or with escapes.
    Mixed,
}

/// One assignment of the key that we look for.
pub(crate) struct Place {
    /// The line on which it begins, from 1.
    pub(crate) line: usize,
    /// The bytes of the value as it is written, with its quotes.
    pub(crate) span: Range<usize>,
    /// How it is written.
    pub(crate) style: Style,
    /// The value as the reader takes it.
    pub(crate) value: Zeroizing<Vec<u8>>,
    /// Whether the reader would compute it, so that only the reader knows it.
    pub(crate) computed: bool,
}

/// Why a file can't be edited with certainty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Flaw {
    /// The line, from 1.
    pub(crate) line: usize,
    /// What is wrong with it.
    pub(crate) what: &'static str,
}

/// The mark that some editors put before the first character.
pub(super) const BOM: &[u8] = b"\xEF\xBB\xBF";

impl Dialect {
    /// Whether a variable can have this name here.
    pub(crate) fn takes_name(self, key: &str) -> bool {
        let first = key.chars().next();
        match self {
            Self::Shell | Self::Systemd => {
                first.is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
                    && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
            }
            Self::Verbatim | Self::Docker => {
                first.is_some_and(|c| c != '#')
                    && key.chars().all(|c| c != '=' && !c.is_whitespace() && !c.is_control())
            }
        }
    }

    /// Every assignment of the key.
    pub(super) fn find(self, text: &[u8], key: &str) -> Result<Vec<Place>, Flaw> {
        match self {
            Self::Verbatim => Ok(find_verbatim(text, key)),
            Self::Docker => find_docker(text, key),
            Self::Shell => shell::find(text, key),
            Self::Systemd => systemd::find(text, key),
        }
    }

    /// A value as it has to be written, in the present style if that is possible; or why it
    /// can't be written at all.
    pub(super) fn write(self, value: &str, style: Style) -> Result<Zeroizing<String>, &'static str> {
        if value.contains(['\n', '\r', '\0']) {
            return Err("a line break or a NUL can't stand in it");
        }
        match self {
            Self::Verbatim => Ok(Zeroizing::new(value.to_owned())),
            Self::Docker if quoted(value.as_bytes()) => {
                Err("versions of Docker differ on whether quotes around a value belong to it")
            }
            Self::Docker => Ok(Zeroizing::new(value.to_owned())),
            Self::Shell => Ok(shell::write(value, style)),
            Self::Systemd => systemd::write(value, style),
        }
    }
}

/// Whether a value begins and ends with the same quotation mark.
pub(super) fn quoted(value: &[u8]) -> bool {
    matches!(value, [b'"', .., b'"'] | [b'\'', .., b'\''])
}

/// .NET's `File.ReadAllLines` splits at CR, LF and both, and drops a byte order mark; the
/// runner then takes what stands before and after the first `=`, if anything stands before.
fn find_verbatim(text: &[u8], key: &str) -> Vec<Place> {
    let mut places = Vec::new();
    let mut line = 1;
    let mut start = if text.starts_with(BOM) { BOM.len() } else { 0 };
    while start < text.len() {
        let rest = &text[start..];
        let length = rest.iter().position(|byte| matches!(byte, b'\n' | b'\r')).unwrap_or(rest.len());
        if let Some(equals) = rest[..length].iter().position(|byte| *byte == b'=')
            && rest[..equals] == *key.as_bytes()
        {
            places.push(bare(text, line, start + equals + 1..start + length));
        }
        let both = rest[length..].starts_with(b"\r\n");
        start += length + if both { 2 } else { 1 };
        line += 1;
    }
    places
}

/// Docker splits at LF and drops one CR before it, a byte order mark, and white space before
/// the name. Some versions strip quotes around the value and some don't.
fn find_docker(text: &[u8], key: &str) -> Result<Vec<Place>, Flaw> {
    let mut places = Vec::new();
    let mut offset = 0;
    for (index, raw) in text.split_inclusive(|byte| *byte == b'\n').enumerate() {
        let line = index + 1;
        let flaw = |what| Err(Flaw { line, what });
        let mut start = offset;
        offset += raw.len();
        let content = raw.strip_suffix(b"\n").unwrap_or(raw);
        let mut content = content.strip_suffix(b"\r").unwrap_or(content);
        if index == 0 && content.starts_with(BOM) {
            content = &content[BOM.len()..];
            start += BOM.len();
        }
        let Ok(content) = std::str::from_utf8(content) else {
            return flaw("it is not UTF-8, and Docker refuses the whole file for that");
        };
        let trimmed = content.trim_start();
        start += content.len() - trimmed.len();
        match trimmed.split_once('=') {
            _ if trimmed.starts_with('#') => {}
            Some((name, value)) if name == key => {
                if quoted(value.as_bytes()) {
                    return flaw("versions of Docker differ on whether the quotes belong to the value");
                }
                let begin = start + name.len() + 1;
                places.push(bare(text, line, begin..begin + value.len()));
            }
            None if trimmed == key => {
                return flaw("without a `=` the value comes from the environment of whoever calls Docker");
            }
            _ => {}
        }
    }
    Ok(places)
}

fn bare(text: &[u8], line: usize, span: Range<usize>) -> Place {
    let value = Zeroizing::new(text[span.clone()].to_vec());
    Place { line, span, style: Style::Bare, value, computed: false }
}
