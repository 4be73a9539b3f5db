//! What the providers of one environment share: connections, credentials, settings of vendors.

use std::io::{self, Read};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use pgrotate_core::database_url::Target;
use pgrotate_core::env::Clock;
use pgrotate_core::provider::{Finding, Overheard};
use pgrotate_core::{Environment, Error, Kind, Result};
use serde::Deserialize;
use zeroize::Zeroizing;

use crate::azure::Accounts;
use crate::budget::Budgets;
use crate::clocks::Clocks;
use crate::credentials::Credentials;
use crate::http;
use crate::looks::Looks;

/// Everything that a provider may need beside its own options.
pub struct Shared {
    /// The environment.
    pub environment: Environment,
    /// Where the role logs in.
    pub target: Target,
    /// Whether it takes turns with another one: then its settings let it act as a group, and our sessions must not.
    pub takes_turns: bool,
    /// How connections to the database are secured.
    pub database_tls: DatabaseTls,
    /// Where credentials come from.
    pub credentials: Credentials,
    /// The HTTP client.
    pub http: reqwest::Client,
    /// The configured CA file's content, for clients that are not built on [`Shared::http`].
    pub ca: Option<Vec<u8>>,
    /// The vendors' settings.
    pub vendors: Vendors,
    /// Azure's sign-ins; environments that share them sign in once.
    pub azure: Accounts,
    /// How many requests the vendors still take from this process.
    pub budgets: Budgets,
    /// What has been asked already.
    pub looks: Looks,
    /// How late it is elsewhere.
    pub clocks: Clocks,
    /// The folder of the configuration file, from which relative paths count.
    pub base: PathBuf,
    /// The door to time.
    pub clock: Arc<dyn Clock>,
}

impl Shared {
    /// A path of the configuration: `~/` is the home folder, relative ones count from the
    /// configuration file.
    pub fn path(&self, text: &str) -> PathBuf {
        resolve(&self.base, text)
    }
}

impl Overheard for Shared {
    fn findings(&self) -> Vec<Finding> {
        self.clocks.findings()
    }
}

/// The same, where nothing is shared yet.
pub fn resolve(base: &Path, text: &str) -> PathBuf {
    match (text.strip_prefix("~/"), std::env::var_os("HOME")) {
        (Some(rest), Some(home)) => PathBuf::from(home).join(rest),
        _ => base.join(text),
    }
}

/// More than certificates, keys and credentials take; all CAs that a system trusts are a fifth of it.
const LARGEST: u64 = 1 << 20;

/// Reads a file that is named in the configuration. A device has no end, and a wrong path may lead to a disk's image.
///
/// # Errors
/// As the system says; [`io::ErrorKind::FileTooLarge`] for more than 1 MiB.
pub fn read_small(path: &Path) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut bytes = Zeroizing::new(Vec::new());
    std::fs::File::open(path)?.take(LARGEST + 1).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > LARGEST {
        true => Err(io::ErrorKind::FileTooLarge.into()),
        false => Ok(bytes),
    }
}

/// Reads such a file as a text.
///
/// # Errors
/// As [`read_small`]; [`io::ErrorKind::InvalidData`] if it is not UTF-8.
pub fn read_small_text(path: &Path) -> io::Result<Zeroizing<String>> {
    let bytes = read_small(path)?;
    let text = std::str::from_utf8(&bytes).map_err(|_| io::ErrorKind::InvalidData)?;
    Ok(Zeroizing::new(text.to_owned()))
}

/// Why such a file can't be read.
pub fn why(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "there is no such file".into(),
        io::ErrorKind::InvalidData => "it is not UTF-8 text".into(),
        io::ErrorKind::FileTooLarge => {
            "it is larger than 1 MiB, which is hardly the file that was meant".into()
        }
        kind => kind.to_string(),
    }
}

/// How a connection to the database is secured.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatabaseTls {
    /// How much is checked.
    #[serde(default)]
    pub mode: TlsMode,
    /// A PEM file with the CA, beside the system's trust store.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
}

impl DatabaseTls {
    /// Refuses to go without TLS to another machine: everybody on the way could read the
    /// session, and a server that asks for it would be sent the password itself.
    ///
    /// # Errors
    /// When TLS is switched off and the target is neither loopback nor a socket.
    pub fn allow(&self, target: &Target) -> Result<()> {
        if self.mode == TlsMode::Disable && !is_on_this_machine(&target.host) {
            return Err(Error::new(Kind::Config, format!("log in as {target} without TLS"))
                .because("tls = { mode = \"disable\" } is possible only to a server on this machine itself")
                .hint("leave `mode` out, and name the server's CA with `ca_file` if the system does not trust it"));
        }
        Ok(())
    }
}

/// Whether a database's host is loopback or the folder of a socket.
fn is_on_this_machine(host: &str) -> bool {
    host.starts_with('/')
        || http::is_localhost(host)
        || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// How much of the server's certificate is checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TlsMode {
    /// Certificate and host name.
    #[default]
    VerifyFull,
    /// No TLS at all; for a server on the same machine, and refused for any other.
    Disable,
}

/// The settings of each vendor, all optional.
#[derive(Clone, Debug, Default)]
pub struct Vendors {
    /// `[azure]`
    pub azure: AzureSettings,
    /// `[github]`
    pub github: GithubSettings,
    /// `[aws]`
    pub aws: AwsSettings,
    /// `[onepassword]`
    pub onepassword: OnepasswordSettings,
}

/// `[azure]`: which cloud, which tenant.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AzureSettings {
    /// The Entra tenant; else `AZURE_TENANT_ID`, else what the Azure CLI is logged in to.
    pub tenant: Option<String>,
    /// The one way to sign in; else `AZURE_TOKEN_CREDENTIALS`, else the first that is configured.
    pub sign_in: Option<AzureSignIn>,
    /// The resource manager's endpoint.
    pub resource_manager: String,
    /// What follows the vault's name in its host name, with a port if it is not 443.
    pub key_vault_suffix: String,
    /// The API version for PostgreSQL flexible servers.
    pub postgres_api_version: String,
    /// The API version for App Service.
    pub web_api_version: String,
}

/// A way to sign in to Azure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AzureSignIn {
    /// A service principal with a secret.
    ClientSecret,
    /// A token that somebody else has issued, whom Entra trusts: a cluster's or a GitHub job's.
    WorkloadIdentity,
    /// The identity of the machine or the App Service that this runs on.
    ManagedIdentity,
    /// Whoever is logged in to the Azure CLI.
    Cli,
}

impl Default for AzureSettings {
    fn default() -> Self {
        Self {
            tenant: None,
            sign_in: None,
            resource_manager: "https://management.azure.com".into(),
            key_vault_suffix: "vault.azure.net".into(),
            postgres_api_version: "2025-08-01".into(),
            web_api_version: "2025-05-01".into(),
        }
    }
}

/// `[github]`: which GitHub, and as whom.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GithubSettings {
    /// The API's base; `https://HOST/api/v3` for GitHub Enterprise.
    pub api: String,
    /// The id or client id of the GitHub App as whose installation the program signs in, with the
    /// key in `GITHUB_APP_PRIVATE_KEY` or in the file that `GITHUB_APP_PRIVATE_KEY_FILE` names.
    #[serde(deserialize_with = "text_or_number")]
    pub app_id: Option<String>,
    /// The App's installation; else it is looked up for each repository or organisation.
    pub installation_id: Option<u64>,
}

/// An id that looks like a number, written as one or as a text.
fn text_or_number<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "a string or a number")]
    enum Id {
        Text(String),
        Number(u64),
    }
    Ok(Some(match Id::deserialize(deserializer)? {
        Id::Text(text) => text,
        Id::Number(number) => number.to_string(),
    }))
}

impl Default for GithubSettings {
    fn default() -> Self {
        Self { api: "https://api.github.com".into(), app_id: None, installation_id: None }
    }
}

/// `[aws]`: which region and account.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AwsSettings {
    /// The region; else `AWS_REGION` or the profile's.
    pub region: Option<String>,
    /// The profile of the AWS configuration files.
    pub profile: Option<String>,
    /// Another endpoint for Secrets Manager.
    pub endpoint: Option<String>,
}

/// `[onepassword]`: how 1Password is reached.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OnepasswordSettings {
    /// The way there; by itself Connect where a server is named, else the CLI.
    pub via: Option<OnepasswordVia>,
    /// The Connect server; else `OP_CONNECT_HOST`.
    pub connect: Option<String>,
}

/// The ways to 1Password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnepasswordVia {
    /// A Connect server, with `OP_CONNECT_TOKEN`.
    Connect,
    /// The CLI `op`, with `OP_SERVICE_ACCOUNT_TOKEN`.
    Cli,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_reached_without_tls() {
        let allow = |mode, host: &str| {
            let target = Target { host: host.into(), port: 5432, database: "d".into(), user: "u".into() };
            DatabaseTls { mode, ca_file: None }.allow(&target)
        };
        for host in ["localhost", "db.localhost", "127.0.0.1", "127.8.9.10", "::1", "/var/run/postgresql"] {
            assert_eq!(allow(TlsMode::Disable, host), Ok(()), "{host}");
        }
        for host in [
            "db.example.com",
            "10.0.0.1",
            "0.0.0.0",
            "::",
            "fe80::1",
            "localhost.example.com",
            "notlocalhost",
            "127.0.0.1.example.com",
            "db",
            "",
        ] {
            let refused = allow(TlsMode::Disable, host).unwrap_err();
            assert_eq!((refused.kind(), refused.hints().len()), (Kind::Config, 1), "{host}");
            assert_eq!(allow(TlsMode::VerifyFull, host), Ok(()), "{host}");
        }
    }
}
