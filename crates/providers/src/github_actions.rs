//! A secret of GitHub Actions, as a sink: of a repository, of an environment, or of an
//! organisation.
//!
//! *Needs* a token that may write secrets: with a classic token the scope `repo` (organisation:
//! `admin:org`), with a fine-grained one or an app the permission *Secrets: write* (environment:
//! *Environments: write* too). `check` also reads the repository and its runs (*Actions: read*).
//!
//! *Cannot* read a value back: GitHub never gives one out. What can be seen is when it was last
//! written, so `publish` proves that the write has arrived and `verify` says *unseen*.
//!
//! Of GitHub (REST API, 2022-11-28):
//! - A value travels in a sealed box of libsodium's. Each repository, environment and
//!   organisation has a key of its own; one sealed for another's key would be stored as garbage.
//! - Writing is an upsert without versions, so repeating it is harmless.
//! - Where names collide, an environment's secret wins over a repository's, and that one over
//!   an organisation's.
//! - Repository and organisation secrets are read when a run is *queued*, an environment's when
//!   the job starts: runs on their way keep the old password.
//! - An organisation's secret wants its visibility with every write. Present visibility and
//!   repositories are sent again; what leaving them out would do is not documented.
//! - Whether a fine-grained token may write can't be told without writing.

mod by_hand;
mod look;
mod shadows;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use crypto_box::PublicKey;
use crypto_box::aead::OsRng;
use jiff::{SignedDuration, Timestamp};
use pgrotate_core::by_hand::Instruction;
use pgrotate_core::journal::Outcome;
use pgrotate_core::provider::{Capabilities, Content, Inspection, Seen, Sink};
use pgrotate_core::value::{Template, Update};
use pgrotate_core::{CopyId, Error, Kind, Result};
use reqwest::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::github::{Answer, Api};
use crate::shared::Shared;

/// The kind's name in the configuration and in copy ids.
const KIND: &str = "github_actions";
/// The longest value that GitHub takes.
const VALUE_BYTES_MAX: usize = 48 * 1024;
/// How far GitHub's own clocks may disagree about when a secret was written.
const CLOCKS_APART: SignedDuration = SignedDuration::from_secs(5);
/// How often, and how far apart, a write is looked for before it counts as lost.
const LOOKS: usize = 4;
const BETWEEN_LOOKS: Duration = Duration::from_secs(1);

const READ_KEY: &str = "read GitHub's key for secrets";

/// Which secret.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// The repository, as `owner/name`.
    #[serde(default)]
    pub repository: Option<String>,
    /// The organisation, for a secret that its repositories share; instead of `repository`.
    #[serde(default)]
    pub organization: Option<String>,
    /// The repository's environment, for a secret of that environment.
    #[serde(default)]
    pub environment: Option<String>,
    /// The secret's name.
    pub secret: String,
}

/// Whose secret it is.
#[derive(Clone, Debug)]
enum Scope {
    Repository { owner: String, name: String },
    Environment { owner: String, name: String, environment: String },
    Organization { organization: String },
}

impl Scope {
    fn new(options: &Options) -> Result<Self> {
        let refuse = |why: &str| Error::new(Kind::Config, "tell whose secret it is").because(why);
        let named = |text: &str| {
            let known = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
            !text.is_empty() && text.bytes().all(known) && text.bytes().any(|byte| byte != b'.')
        };
        let Options { repository, organization, environment, .. } = options;
        match (repository, organization, environment.clone()) {
            (None, Some(organization), None) if named(organization) => {
                Ok(Self::Organization { organization: organization.clone() })
            }
            (None, Some(_), None) => Err(refuse("`organization` is no GitHub name")),
            (Some(repository), None, environment) => match repository.split_once('/') {
                Some((owner, name)) if named(owner) && named(name) => {
                    let (owner, name) = (owner.to_owned(), name.to_owned());
                    Ok(match environment {
                        Some(environment) => Self::Environment { owner, name, environment },
                        None => Self::Repository { owner, name },
                    })
                }
                _ => Err(refuse("`repository` is not owner/name")),
            },
            (None, Some(_), Some(_)) => Err(refuse("`environment` belongs to a `repository`")),
            _ => Err(refuse("there must be one of `repository` and `organization`")),
        }
    }

    /// The path of its secrets.
    fn secrets(&self) -> Vec<&str> {
        match self {
            Self::Repository { owner, name } => vec!["repos", owner, name, "actions", "secrets"],
            Self::Environment { owner, name, environment } => {
                vec!["repos", owner, name, "environments", environment, "secrets"]
            }
            Self::Organization { organization } => vec!["orgs", organization, "actions", "secrets"],
        }
    }

    /// What comes after the secrets' path.
    fn below<'s>(&'s self, rest: &[&'s str]) -> Vec<&'s str> {
        [&self.secrets(), rest].concat()
    }
}

/// One secret.
pub struct GithubActions {
    id: CopyId,
    scope: Scope,
    secret: String,
    api: Api,
    shared: Arc<Shared>,
}

impl GithubActions {
    /// Binds a copy to a secret.
    ///
    /// # Errors
    /// When the options don't name one secret, or GitHub's endpoint can't be used.
    pub fn new(name: Option<String>, options: Options, shared: Arc<Shared>) -> Result<Self> {
        let scope = Scope::new(&options)?;
        let secret = options.secret;
        let letters = secret.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        let reserved = secret.to_ascii_uppercase().starts_with("GITHUB_");
        if secret.is_empty()
            || !letters
            || secret.starts_with(|first: char| first.is_ascii_digit())
            || reserved
        {
            return Err(Error::new(Kind::Config, format!("use the secret's name \"{secret}\"")).because(
                "GitHub takes letters, digits and _, no digit first, and nothing that begins with GITHUB_",
            ));
        }
        let id = CopyId::new(format!("{KIND}:{}", name.as_ref().unwrap_or(&secret)));
        let own = Self { id, scope, secret, api: Api::new(&shared)?, shared };
        own.shared.looks.claim(own.location());
        Ok(own)
    }

    fn operation(&self, verb: &str) -> String {
        format!("{verb} the GitHub secret {}", self.secret)
    }

    /// Where a secret of this name is in some store.
    fn place_of(&self, secrets: &[&str]) -> String {
        // GitHub's names don't tell capitals from small letters.
        let path = secrets.join("/").to_lowercase();
        format!("{}/{path}/{}", self.api.web_host(), self.secret.to_ascii_uppercase())
    }

    async fn metadata(&self) -> Result<Option<Answer>> {
        self.api.find(&self.scope.below(&[&self.secret]), &self.operation("look at")).await
    }

    /// The key with which values are sealed, as this run first read it.
    async fn known_key(&self) -> Result<Arc<Answer>> {
        self.api.look(&self.scope.below(&["public-key"]), &[], READ_KEY).await
    }

    /// Who may read an organisation's secret, as a write has to repeat it.
    async fn audience(&self, metadata: Option<&Answer>) -> Result<Value> {
        let operation = self.operation("find the repositories of");
        let metadata = metadata.ok_or_else(|| {
            Error::new(Kind::NotFound, operation.clone())
                .because("the organisation has no such secret")
                .hint("create it once by hand: pgrotate does not choose which repositories may read it")
        })?;
        let visibility = metadata.text("visibility").unwrap_or_default();
        if visibility != "selected" {
            return Ok(json!({ "visibility": visibility }));
        }
        let path = self.scope.below(&[&self.secret, "repositories"]);
        let mut ids: Vec<u64> = Vec::new();
        for page in 1_u32.. {
            let page = page.to_string();
            let answer = self.api.get(&path, &[("per_page", "100"), ("page", &page)], &operation).await?;
            let found = answer.body["repositories"].as_array().map_or(&[][..], Vec::as_slice);
            ids.extend(found.iter().filter_map(|repository| repository["id"].as_u64()));
            if found.is_empty() || ids.len() as u64 >= answer.body["total_count"].as_u64().unwrap_or(0) {
                break;
            }
        }
        ids.sort_unstable();
        Ok(json!({ "visibility": visibility, "selected_repository_ids": ids }))
    }

    /// Waits until GitHub shows the write: not earlier than the time at which it took it.
    async fn confirm(&self, before: Option<Timestamp>) -> Result<Answer> {
        let since = before.map(|before| before - CLOCKS_APART);
        for look in 0..LOOKS {
            if look > 0 {
                self.shared.clock.sleep(BETWEEN_LOOKS).await;
            }
            let Some(metadata) = self.metadata().await? else { continue };
            if since.is_none_or(|since| metadata.time("updated_at") >= Some(since)) {
                return Ok(metadata);
            }
        }
        Err(Error::new(Kind::Conflict, self.operation("confirm"))
            .because("GitHub took the new value and still shows the time of an older one")
            .later(None))
    }

    async fn publish_shared(&self, value: &str) -> Result<()> {
        let before = self.audience(self.metadata().await?.as_ref()).await?;
        let metadata = self.write(value, before.clone()).await?;
        if self.audience(Some(&metadata)).await? == before {
            return Ok(());
        }
        Err(Error::new(Kind::Conflict, self.operation("write"))
            .because("the repositories that may read it are not the same as before")
            .hint("somebody changed them at the same moment: put them right in the organisation's settings"))
    }

    /// Writes the value beside what else the body has to say, and waits until it shows.
    async fn write(&self, value: &str, body: Value) -> Result<Answer> {
        let key = self.known_key().await?;
        let taken = match self.put(&key, value, body.clone()).await {
            // GitHub may renew its key between giving it and taking what was sealed with it.
            Err(error) if error.kind() == Kind::Rejected => {
                let renewed = self.api.get(&self.scope.below(&["public-key"]), &[], READ_KEY).await?;
                if renewed.body["key_id"] == key.body["key_id"] {
                    return Err(error);
                }
                self.put(&renewed, value, body).await?
            }
            put => put?,
        };
        self.confirm(taken.date).await
    }

    async fn put(&self, key: &Answer, value: &str, mut body: Value) -> Result<Answer> {
        body["encrypted_value"] = json!(seal(key, value)?);
        body["key_id"] = key.body["key_id"].clone();
        let path = self.scope.below(&[&self.secret]);
        self.api.write(Method::PUT, &path, &body, &self.operation("write")).await
    }
}

/// Seals a value for the holder of a public key.
fn seal(key: &Answer, value: &str) -> Result<String> {
    let corrupt = || {
        Error::new(Kind::Corrupt, "seal a value for GitHub")
            .because("GitHub's public key can't be read")
            .hint("is it GitHub that answers at `api` under [github]? a proxy may answer in its place")
    };
    let bytes = STANDARD.decode(key.text("key").unwrap_or_default()).map_err(|_| corrupt())?;
    let bytes: [u8; 32] = bytes.try_into().map_err(|_| corrupt())?;
    let sealed = PublicKey::from(bytes).seal(&mut OsRng, value.as_bytes()).map_err(|_| corrupt())?;
    Ok(STANDARD.encode(sealed))
}

#[async_trait]
impl Sink for GithubActions {
    fn id(&self) -> &CopyId {
        &self.id
    }

    fn location(&self) -> String {
        self.place_of(&self.scope.secrets())
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { read_back: false, version_ids: false, reports_time: true }
    }

    async fn check(&self) -> Result<Inspection> {
        self.look().await
    }

    async fn inspect(&self) -> Result<Seen> {
        Ok(seen(self.metadata().await?.as_ref()))
    }

    async fn publish(&self, update: &Update<'_>) -> Result<Outcome> {
        let value = update.value(None)?;
        if value.len() > VALUE_BYTES_MAX {
            return Err(Error::new(Kind::Rejected, self.operation("write"))
                .because("the value is longer than GitHub's 48 KB"));
        }
        match self.scope {
            Scope::Organization { .. } => self.publish_shared(value.expose()).await?,
            _ => drop(self.write(value.expose(), json!({})).await?),
        }
        Ok(Outcome::changed()
            .note("GitHub never gives a value back; it shows that this one was just written"))
    }

    fn by_hand(&self, template: &Template) -> Vec<Instruction> {
        self.instructions(template)
    }
}

fn seen(metadata: Option<&Answer>) -> Seen {
    Seen {
        content: if metadata.is_some() { Content::Unseen } else { Content::Absent },
        version: None,
        updated_at: metadata.and_then(|answer| answer.time("updated_at")),
    }
}
