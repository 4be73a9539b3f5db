//! A secret in AWS Secrets Manager, as a sink: the whole of it, or one key of its JSON.
//!
//! *Needs* `secretsmanager:DescribeSecret`, `secretsmanager:GetSecretValue` and
//! `secretsmanager:PutSecretValue` on the secret, and with a KMS key of your own `kms:Decrypt`
//! and `kms:GenerateDataKey` on that. Credentials come from the AWS chain (environment, profile,
//! SSO, role of the machine), after the profile that the configuration may name.
//!
//! `check` also asks STS who it is, IAM's simulator whether the write would be allowed
//! (`iam:SimulatePrincipalPolicy`), for the secret's own policy (`secretsmanager:GetResourcePolicy`) and for the state
//! of a key of your own (`kms:DescribeKey`); what it may not ask it calls *unseen*.
//!
//! *Cannot* create a secret, nor be certain before a write that it is allowed: there is no dry run.
//!
//! Of Secrets Manager (API 2017-10-17):
//! - A write that carries the token of a version that exists has no effect if the value is the
//!   same, and fails if it is another. Our token follows from run and copy, so a repeated write
//!   makes no second version; a second one would move `AWSPREVIOUS` off the old password.
//! - For the same reason a write under a spent token does not move `AWSCURRENT` back. Where
//!   somebody wrote after this run did, a second token follows from the version that stands
//!   there now.
//! - A write replaces the whole value. A JSON value is therefore never replaced by a bare one,
//!   and with `json_key` its text changes only where that key's value stands.
//! - With rotation switched on, AWS's own rotation would replace the value again: that blocks.
//! - Replicas in other regions follow by themselves, a moment later.

mod ask;
mod by_hand;
pub(crate) mod classify;
mod client;
mod json_key;
mod look;
mod rights;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use async_trait::async_trait;
use aws_sdk_secretsmanager::Client;
use aws_sdk_secretsmanager::error::ProvideErrorMetadata;
use jiff::Timestamp;
use pgrotate_core::by_hand::Instruction;
use pgrotate_core::journal::Outcome;
use pgrotate_core::provider::{Capabilities, Content, Inspection, Seen, Sink};
use pgrotate_core::secret::hex;
use pgrotate_core::value::{Template, Update};
use pgrotate_core::{CopyId, Error, Kind, Result, Secret, VersionId};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use tokio::sync::OnceCell;

use self::classify::{Request, classify};
use self::client::Connection;
use crate::http;
use crate::shared::Shared;

/// The kind's name in the configuration and in copy ids.
const KIND: &str = "aws_secrets_manager";
/// Writes of one `publish`: ours, and one more where somebody else wrote in between.
const WRITES_MAX: usize = 2;

/// Which secret.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// The secret's name or ARN.
    pub secret: String,
    /// The key to change, where the secret is a JSON object.
    #[serde(default)]
    pub json_key: Option<String>,
}

/// One secret, or one key of it.
pub struct AwsSecretsManager {
    id: CopyId,
    options: Options,
    shared: Arc<Shared>,
    connection: OnceCell<Connection>,
}

/// The version that is current.
struct Stored {
    text: Secret,
    version: VersionId,
    written_at: Option<Timestamp>,
}

impl AwsSecretsManager {
    /// Binds a copy to a secret.
    ///
    /// # Errors
    /// When the configured endpoint can't be used.
    pub fn new(name: Option<String>, options: Options, shared: Arc<Shared>) -> Result<Self> {
        if let Some(endpoint) = &shared.vendors.aws.endpoint {
            http::endpoint(endpoint)?;
        }
        let id = CopyId::new(format!("{KIND}:{}", name.as_ref().unwrap_or(&options.secret)));
        Ok(Self { id, options, shared, connection: OnceCell::new() })
    }

    async fn connection(&self) -> Result<&Connection> {
        self.connection.get_or_try_init(|| client::connect(&self.shared, &self.options.secret)).await
    }

    async fn client(&self) -> Result<&Client> {
        self.connection().await.map(|connection| &connection.client)
    }

    /// The current version; `None` where the secret has none.
    async fn stored(&self) -> Result<Option<Stored>> {
        let request = self.client().await?.get_secret_value().secret_id(&self.options.secret);
        let answer = match request.send().await {
            Ok(answer) => answer,
            // The secret exists, and nothing was ever put into it.
            Err(error)
                if error.code() == Some("ResourceNotFoundException")
                    && error.message().is_some_and(|message| message.contains("staging label")) =>
            {
                return Ok(None);
            }
            Err(error) => return Err(classify(&error, Request::Get, &self.options.secret)),
        };
        let refuse = |why| Error::new(Kind::BadState, self.operation("read")).because(why);
        let text =
            answer.secret_string.map(Secret::new).ok_or_else(|| refuse("it holds bytes and not a text"))?;
        let version = answer.version_id.map(VersionId::new).ok_or_else(|| refuse("AWS names no version"))?;
        let written_at = answer.created_date.and_then(|at| at.to_millis().ok());
        let written_at = written_at.and_then(|millis| Timestamp::from_millisecond(millis).ok());
        Ok(Some(Stored { text, version, written_at }))
    }

    /// The part of a stored value that is this copy's.
    fn own(&self, stored: &Stored) -> Result<Secret> {
        match &self.options.json_key {
            None => Ok(stored.text.clone()),
            Some(key) => json_key::get(stored.text.expose(), key).map_err(|trouble| {
                Error::new(Kind::BadState, self.operation("read")).because(trouble.words(key))
            }),
        }
    }

    /// The value to store, so that this copy's part of it is the wanted one.
    fn whole_with(&self, stored: Option<&Stored>, wanted: &Secret) -> Result<Secret> {
        let refuse = |why| Error::new(Kind::Conflict, self.operation("write")).because(why);
        match (&self.options.json_key, stored) {
            (None, Some(stored)) if json_key::is_object(stored.text.expose()) => {
                Err(refuse("it holds a JSON object, which a bare value would replace".to_owned())
                    .hint("name the key to change in the configuration: json_key = \"…\""))
            }
            (None, _) => Ok(wanted.clone()),
            (Some(key), Some(stored)) => json_key::replace(stored.text.expose(), key, wanted)
                .map_err(|trouble| refuse(trouble.words(key))),
            (Some(_), None) => Err(refuse("it has no JSON yet in which a key could be changed".to_owned())),
        }
    }

    /// Writes a version under this token. Tells whether it is the current one now, as far as
    /// AWS says so.
    async fn put(&self, token: &str, whole: &Secret) -> Result<bool> {
        let Connection { client, region, .. } = self.connection().await?;
        let place = self.shared.vendors.aws.endpoint.as_ref().unwrap_or(region);
        self.shared.budgets.aws_write(&*self.shared.clock, place).await;
        let request = client.put_secret_value().secret_id(&self.options.secret);
        let request = request.client_request_token(token).secret_string(whole.expose());
        match request.send().await {
            Ok(answer) => Ok(answer.version_stages().iter().any(|stage| stage == "AWSCURRENT")),
            Err(error) => match classify(&error, Request::Put, &self.options.secret) {
                // The token is spent on another value: somebody else changed the rest of the JSON
                // after this run's first write.
                error if error.kind() == Kind::Conflict => Ok(false),
                error => Err(error),
            },
        }
    }

    fn operation(&self, verb: &str) -> String {
        format!("{verb} the AWS secret {}", self.options.secret)
    }

    fn seen(&self, stored: Option<Stored>) -> Result<Seen> {
        let Some(stored) = stored else {
            return Ok(Seen { content: Content::Absent, version: None, updated_at: None });
        };
        let content = Content::Value(self.own(&stored)?);
        Ok(Seen { content, version: Some(stored.version), updated_at: stored.written_at })
    }
}

/// What came of a write, after so many that did not last.
fn written(others: usize) -> Outcome {
    match others {
        0 => Outcome::changed(),
        _ => {
            Outcome::changed().note("somebody else wrote the secret meanwhile; theirs is the version before")
        }
    }
}

/// The token of a write over this version, after the run's first token is spent. Repeating the
/// write over the same version repeats the token.
fn later_token(first: &str, over: Option<&VersionId>) -> String {
    let over = over.map_or("", VersionId::as_str);
    hex(&Sha256::digest(format!("pgrotate request over 1\0{first}\0{over}")))
}

#[async_trait]
impl Sink for AwsSecretsManager {
    fn id(&self) -> &CopyId {
        &self.id
    }

    fn location(&self) -> String {
        format!("{}#{}", self.whole(), self.options.json_key.as_deref().unwrap_or(""))
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { read_back: true, version_ids: true, reports_time: true }
    }

    fn whole(&self) -> String {
        let secret = &self.options.secret;
        let region = client::region(&self.shared, secret);
        let region = region.as_ref().map_or("-", |region| region.as_ref());
        let profile = self.shared.vendors.aws.profile.as_deref().unwrap_or("-");
        format!("{KIND}/{profile}/{region}/{secret}")
    }

    async fn check(&self) -> Result<Inspection> {
        self.look().await
    }

    async fn inspect(&self) -> Result<Seen> {
        self.seen(self.stored().await?)
    }

    async fn publish(&self, update: &Update<'_>) -> Result<Outcome> {
        let first = update.request_token();
        let mut stored = self.stored().await?;
        for write in 0..=WRITES_MAX {
            let own = stored.as_ref().map(|stored| self.own(stored)).transpose()?;
            let wanted = update.value(own.as_ref())?;
            let version = stored.as_ref().map(|stored| stored.version.clone());
            if own.as_ref() == Some(&wanted) {
                let outcome = if write == 0 { Outcome::already_done() } else { written(write - 1) };
                return Ok(outcome.version(version));
            }
            if write == WRITES_MAX {
                break;
            }
            let token = if write == 0 { first.clone() } else { later_token(&first, version.as_ref()) };
            if self.put(&token, &self.whole_with(stored.as_ref(), &wanted)?).await? {
                // AWS has said that this is the current version; `verify` reads it back.
                return Ok(written(write).version(Some(VersionId::new(token))));
            }
            stored = self.stored().await?;
        }
        Err(Error::new(Kind::Conflict, self.operation("write"))
            .because("it holds another value again right after each write")
            .hint("find out who else writes it; is there a rotation function?")
            .later(None))
    }

    async fn retire(&self, _previous: &VersionId) -> Result<Outcome> {
        Ok(Outcome::skipped(
            "AWS keeps the version before as AWSPREVIOUS until the next write, then drops it",
        ))
    }

    fn by_hand(&self, template: &Template) -> Vec<Instruction> {
        self.instructions(template)
    }
}
