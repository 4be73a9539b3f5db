//! Where the token comes from.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use futures::lock::Mutex;
use pgrotate_core::{Error, Kind, Result, Secret};
use reqwest::Url;
use zeroize::Zeroizing;

use crate::shared::Shared;

/// How long `gh` may take to answer.
const CLI_PATIENCE: Duration = Duration::from_secs(10);

/// What `gh` said, by host: several providers need it, and it is asked once.
static FROM_CLI: LazyLock<Mutex<BTreeMap<String, Secret>>> = LazyLock::new(Mutex::default);

/// What kind a token is, as its first letters say (GitHub, "GitHub's token formats").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TokenKind {
    /// A personal one with scopes.
    Classic,
    /// A personal one with permissions, which nobody is told.
    FineGrained,
    /// What `gh auth login` and other OAuth apps get; it has scopes.
    OAuth,
    /// Of a person, by way of an App.
    AppUser,
    /// Of an App's installation; a workflow's own `GITHUB_TOKEN` is one too.
    Installation,
    /// Of another form: older, or of another server.
    Other,
}

impl TokenKind {
    /// What a token is.
    pub(super) fn of(token: &Secret) -> Self {
        let kinds = [
            ("ghp_", Self::Classic),
            ("github_pat_", Self::FineGrained),
            ("gho_", Self::OAuth),
            ("ghu_", Self::AppUser),
            ("ghs_", Self::Installation),
        ];
        let found = kinds.into_iter().find(|(letters, _)| token.expose().starts_with(letters));
        found.map_or(Self::Other, |(_, kind)| kind)
    }

    /// In words, after "the".
    pub(crate) fn named(self) -> &'static str {
        match self {
            Self::Classic => "classic token",
            Self::FineGrained => "fine-grained token",
            Self::OAuth => "OAuth token",
            Self::AppUser => "App's user token",
            Self::Installation => "installation's token",
            Self::Other => "token",
        }
    }
}

/// The token for the GitHub behind this API.
///
/// # Errors
/// When there is none; names what provides one.
pub(super) async fn find(shared: &Arc<Shared>, base: &Url, cli: &Path) -> Result<Secret> {
    let host = base.host_str().unwrap_or_default();
    let host = if host == "api.github.com" { "github.com" } else { host };
    let names: &[&str] = match host {
        "github.com" => &["GH_TOKEN", "GITHUB_TOKEN"],
        _ => &["GH_ENTERPRISE_TOKEN", "GITHUB_ENTERPRISE_TOKEN", "GH_TOKEN", "GITHUB_TOKEN"],
    };
    if let Some(token) = names.iter().find_map(|name| shared.credentials.get(name)) {
        return Ok(token);
    }
    // `gh` knows an enterprise server that is not at 443 by host and port.
    let host = base.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
    let mut known = FROM_CLI.lock().await;
    if let Some(token) = known.get(&host) {
        return Ok(token.clone());
    }
    let token = ask(cli, &host).await?;
    known.insert(host, token.clone());
    Ok(token)
}

async fn ask(cli: &Path, host: &str) -> Result<Secret> {
    // `gh auth login --hostname` refuses a port, which it takes from the variable.
    let login = match host.contains(':') {
        true => format!("GH_HOST={host} gh auth login"),
        false => format!("gh auth login --hostname {host}"),
    };
    let refuse = |why: &str| {
        Error::new(Kind::Unauthenticated, "sign in to GitHub")
            .because(format!("GH_TOKEN is not set, and {why}"))
            .hint(format!("log in with `{login}`, or set GH_TOKEN"))
    };
    let answer = tokio::process::Command::new(cli)
        .args(["auth", "token", "--hostname", host])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .output();
    let answer = tokio::time::timeout(CLI_PATIENCE, answer)
        .await
        .map_err(|_| refuse("`gh auth token` does not come back"))?
        .map_err(|_| refuse("there is no `gh` to ask"))?;
    let output = Zeroizing::new(answer.stdout);
    if !answer.status.success() {
        return Err(refuse(&format!("`gh` is not logged in to {host}")));
    }
    let token = std::str::from_utf8(&output).map(str::trim).unwrap_or_default();
    if token.is_empty() {
        return Err(refuse("`gh auth token` gives nothing"));
    }
    Ok(Secret::new(token))
}
