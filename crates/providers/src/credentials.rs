//! Where credentials come from: the variables that the vendors' own tools read.
//!
//! The configuration never holds one. It may name a *credentials file* of `NAME=value` lines,
//! readable by its owner alone, for places that have no better way to hand variables to a
//! process; the environment wins over it.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use pgrotate_core::{Error, Kind, Result, Secret};

use crate::shared;

/// Looks up credentials by the name of their variable.
#[derive(Clone, Debug, Default)]
pub struct Credentials {
    file: BTreeMap<String, Secret>,
}

impl Credentials {
    /// The environment alone.
    pub fn from_environment() -> Self {
        Self::default()
    }

    /// The environment, then this file.
    ///
    /// # Errors
    /// When the file can't be read, others may read it too, or a line has no `=`.
    pub fn with_file(path: &Path) -> Result<Self> {
        let refuse = |why: String| {
            Error::new(Kind::Config, format!("read the credentials file {}", path.display())).because(why)
        };
        let metadata = std::fs::metadata(path).map_err(|error| refuse(shared::why(&error)))?;
        if metadata.mode() & 0o077 != 0 {
            return Err(refuse("others than its owner may read it".into())
                .hint(format!("chmod 600 {}", path.display())));
        }
        let text = shared::read_small_text(path).map_err(|error| refuse(shared::why(&error)))?;
        let lines =
            text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty() && !line.starts_with('#'));
        let file = lines
            .map(|(number, line)| match line.split_once('=') {
                Some((name, value)) => Ok((name.trim().to_owned(), Secret::new(value))),
                None => Err(refuse(format!("line {} is not NAME=value", number + 1))),
            })
            .collect::<Result<_>>()?;
        Ok(Self { file })
    }

    /// The value of a variable, if it is set and not empty.
    pub fn get(&self, name: &str) -> Option<Secret> {
        let set = std::env::var(name).ok().filter(|value| !value.is_empty()).map(Secret::new);
        set.or_else(|| self.file.get(name).filter(|value| !value.is_empty()).cloned())
    }

    /// The value of a variable that is no secret: a tenant's id, a region, an endpoint.
    pub fn plain(&self, name: &str) -> Option<String> {
        self.get(name).map(|value| value.expose().to_owned())
    }

    /// The value of a variable that is needed.
    ///
    /// # Errors
    /// Names the variable, and what provides it.
    pub fn need(&self, name: &str, purpose: &str, otherwise: &str) -> Result<Secret> {
        self.get(name).ok_or_else(|| {
            Error::new(Kind::Unauthenticated, format!("sign in to {purpose}"))
                .because(format!("{name} is not set"))
                .hint(format!("{otherwise}, or set {name}"))
        })
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn file(mode: u32, text: &str) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file.as_file().set_permissions(std::fs::Permissions::from_mode(mode)).unwrap();
        file
    }

    #[test]
    fn lines_are_taken_verbatim_after_the_first_equals_sign() {
        let file = file(0o600, "# comment\n\nPGROTATE_TEST_TOKEN=a=b \n");
        let credentials = Credentials::with_file(file.path()).unwrap();
        assert_eq!(credentials.get("PGROTATE_TEST_TOKEN"), Some(Secret::new("a=b ")));
        assert_eq!(credentials.get("PGROTATE_TEST_OTHER"), None);
    }

    #[test]
    fn a_file_that_others_may_read_is_refused() {
        let file = file(0o640, "X=y");
        assert!(Credentials::with_file(file.path()).unwrap_err().hints()[0].starts_with("chmod 600"));
    }

    #[test]
    fn what_is_no_credentials_file_is_not_read_to_its_end() {
        let why = |text: &str| Credentials::with_file(file(0o600, text).path()).unwrap_err().to_string();
        let whole = format!("#{}\n", "-".repeat((1 << 20) - 2));
        assert!(Credentials::with_file(file(0o600, &whole).path()).is_ok());
        assert!(
            why(&format!("{whole}\n"))
                .ends_with("larger than 1 MiB, which is hardly the file that was meant")
        );
    }

    #[test]
    fn what_is_missing_is_named() {
        let error = Credentials::default()
            .need("PGROTATE_TEST_NONE", "GitHub", "log in with `gh auth login`")
            .unwrap_err();
        assert!(error.to_string().contains("PGROTATE_TEST_NONE is not set"));
    }
}
