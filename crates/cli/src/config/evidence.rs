//! `[evidence]`: who signs it, and whose signatures count beside.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use pgrotate_evidence::key::KeyProblem;
use pgrotate_evidence::{Signer, Trusted};
use pgrotate_providers::shared;

use super::problem::{Problem, Problems};
use super::settings::{Placed, own, placed};
use super::tree::{Table, Value};

/// The table, as far as it can be read without the files that it names.
#[derive(Default)]
pub(super) struct Evidence {
    ssh_key: Option<Placed<String>>,
    trusted: Option<Placed<Vec<String>>>,
}

impl Evidence {
    pub(super) fn read(file: &mut Table, problems: &mut Problems) -> Self {
        let table = file.take("evidence").and_then(|value| problems.keep(own(&value)));
        let Some(mut table) = table else { return Self::default() };
        let ssh_key = table.take("ssh_key").and_then(|value: Value| problems.keep(placed(&value)));
        let trusted = table.take("trusted_keys").and_then(|value| problems.keep(placed(&value)));
        for entry in table.entries() {
            problems.add(Problem::unknown_key(&entry.key, &["ssh_key", "trusted_keys"]).at(&entry.at, ""));
        }
        Self { ssh_key, trusted }
    }

    /// The key that shall sign, if the file names one.
    pub(super) fn signer(&self, base: &Path) -> Result<Option<Signer>, Problem> {
        let Some(named) = &self.ssh_key else { return Ok(None) };
        let path = shared::resolve(base, &named.value);
        let refuse = |why: &str, help: &str| {
            let problem = Problem::new(format!("cannot sign evidence with {}: {why}", path.display()));
            problem.at(&named.at, "named here").help(help.to_owned())
        };
        let unreadable = |error: std::io::Error| {
            refuse(
                &shared::why(&error),
                "make one: ssh-keygen -t ed25519 -N '' -f FILE; or leave ssh_key out",
            )
        };
        let mode = std::fs::metadata(&path).map_err(unreadable)?.mode();
        if mode & 0o077 != 0 {
            let help = format!("chmod 600 {}", path.display());
            return Err(refuse("others than its owner may read it", &help));
        }
        let text = shared::read_small_text(&path).map_err(unreadable)?;
        Signer::from_openssh(&text).map(Some).map_err(|problem| {
            let help = match problem {
                KeyProblem::Encrypted => {
                    "a run may end when nobody is there to type it: name a key of its own without a passphrase \
                     (ssh-keygen -t ed25519 -N '' -f FILE), or leave ssh_key out"
                }
                _ => "name a private key that was made by: ssh-keygen -t ed25519 -N '' -f FILE",
            };
            refuse(&problem.to_string(), help)
        })
    }

    /// Adds the keys whose signatures count beside the own ones.
    pub(super) fn trust(&self, base: &Path, trusted: &mut Trusted) -> Result<(), Problem> {
        let Some(named) = &self.trusted else { return Ok(()) };
        for text in &named.value {
            trust(text, &shared::resolve(base, text), trusted).map_err(|why| {
                Problem::new(format!("cannot use a key of `trusted_keys`: {why}")).at(&named.at, "named here")
            })?;
        }
        Ok(())
    }
}

/// Adds a key that is a text, or stands in a file.
///
/// # Errors
/// Why it can't be used, in words.
pub(crate) fn trust(text: &str, path: &Path, trusted: &mut Trusted) -> Result<(), String> {
    let itself = ["ssh-", "ecdsa-", "SHA256:"].iter().any(|start| text.starts_with(start));
    if itself {
        return trusted.add_text(text).map_err(|problem| problem.to_string());
    }
    let words = shared::read_small_text(path);
    let words = words.map_err(|error| format!("{}: {}", path.display(), shared::why(&error)))?;
    trusted.add_text(&words).map_err(|problem| format!("{}: {problem}", path.display()))
}
