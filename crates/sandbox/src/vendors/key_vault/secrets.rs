//! The secrets of one vault and the operations on them.

use std::time::Instant;

use axum::response::Response;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::super::call::{random_hex, reply};
use super::Vault;

/// The largest value, in bytes.
const VALUE_BYTES_MAX: usize = 25 * 1024;
/// How long a deleted secret can be recovered.
const RECOVERABLE_DAYS: i64 = 90;

/// A secret with all its versions, oldest first.
pub(super) struct Secret {
    pub(super) versions: Vec<Version>,
    stage: Stage,
}

/// Where a name is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// In use.
    Live,
    /// Soft-deleted at this time: the name is taken, the values can be recovered.
    Deleted(Timestamp),
    /// Coming back, until then neither deleted nor there.
    Recovering(Instant),
}

/// One version of a secret.
pub(super) struct Version {
    pub(super) id: String,
    pub(super) value: String,
    pub(super) enabled: bool,
    content_type: Option<String>,
    tags: Value,
    not_before: Option<i64>,
    expires: Option<i64>,
    created: i64,
    updated: i64,
}

impl Version {
    /// What its owners have written beside the value.
    pub(super) fn remarks(&self) -> Value {
        json!({"content_type": self.content_type, "tags": self.tags})
    }
}

/// An error in Key Vault's form.
pub(super) struct Failure {
    status: u16,
    code: &'static str,
    inner: Option<&'static str>,
    text: String,
}

impl Failure {
    pub(super) fn plain(status: u16, code: &'static str, text: String) -> Self {
        Self { status, code, inner: None, text }
    }

    pub(super) fn inner(status: u16, code: &'static str, inner: &'static str, text: String) -> Self {
        Self { status, code, inner: Some(inner), text }
    }

    pub(super) fn bad(text: String) -> Self {
        Self::plain(400, "BadParameter", text)
    }

    fn not_found(name: &str) -> Self {
        let text = format!(
            "A secret with (name/id) {name} was not found in this key vault. If you recently deleted this secret you \
             may be able to recover it using the correct recovery command."
        );
        Self::plain(404, "SecretNotFound", text)
    }

    pub(super) fn into_response(self) -> Response {
        let mut error = json!({"code": self.code, "message": self.text});
        if let Some(inner) = self.inner {
            error["innererror"] = json!({"code": inner});
        }
        reply(self.status, json!({"error": error}))
    }
}

impl Version {
    /// A version with nothing but a value; it inherits nothing from the one before.
    pub(super) fn new(value: String) -> Self {
        let now = Timestamp::now().as_second();
        Self {
            id: random_hex(16),
            value,
            enabled: true,
            content_type: None,
            tags: json!({}),
            not_before: None,
            expires: None,
            created: now,
            updated: now,
        }
    }

    /// Takes over what a set or update request gives beside the value.
    fn apply(&mut self, request: &Value) {
        if let Some(content_type) = request["contentType"].as_str() {
            self.content_type = Some(content_type.to_owned());
        }
        if request["tags"].is_object() {
            self.tags = request["tags"].clone();
        }
        let attributes = &request["attributes"];
        if let Some(enabled) = attributes["enabled"].as_bool() {
            self.enabled = enabled;
        }
        self.not_before = attributes["nbf"].as_i64().or(self.not_before);
        self.expires = attributes["exp"].as_i64().or(self.expires);
    }

    /// Sets its dates; null takes one away.
    pub(super) fn date(&mut self, not_before: &Value, expires: &Value) {
        self.not_before = not_before.as_i64();
        self.expires = expires.as_i64();
    }

    /// Replaces its tags.
    pub(super) fn tag(&mut self, tags: &Value) {
        self.tags = tags.clone();
    }

    fn attributes(&self) -> Value {
        let mut attributes = json!({
            "enabled": self.enabled,
            "created": self.created,
            "updated": self.updated,
            "recoveryLevel": "Recoverable",
            "recoverableDays": RECOVERABLE_DAYS,
        });
        if let Some(not_before) = self.not_before {
            attributes["nbf"] = json!(not_before);
        }
        if let Some(expires) = self.expires {
            attributes["exp"] = json!(expires);
        }
        attributes
    }

    /// The version without its value, as lists and updates show it.
    pub(super) fn item(&self, id: &str) -> Value {
        let mut item = json!({"id": id, "attributes": self.attributes(), "tags": self.tags});
        if let Some(content_type) = &self.content_type {
            item["contentType"] = json!(content_type);
        }
        item
    }

    fn bundle(&self, url: &str, name: &str) -> Value {
        let mut bundle = self.item(&format!("{url}/secrets/{name}/{}", self.id));
        bundle["value"] = json!(self.value);
        bundle
    }
}

impl From<Version> for Secret {
    fn from(version: Version) -> Self {
        Self { versions: vec![version], stage: Stage::Live }
    }
}

impl Secret {
    /// A secret as it was before the first rotation.
    pub(super) fn seed(value: &str, content_type: Option<&str>, tags: Value) -> Self {
        let mut version = Version::new(value.to_owned());
        version.content_type = content_type.map(str::to_owned);
        version.tags = tags;
        Self::from(version)
    }

    /// Where the secret is in its life; a recovery ends by itself.
    pub(super) fn stage(&mut self) -> Stage {
        if matches!(self.stage, Stage::Recovering(until) if until <= Instant::now()) {
            self.stage = Stage::Live;
        }
        self.stage
    }

    pub(super) fn delete(&mut self) {
        self.stage = Stage::Deleted(Timestamp::now());
    }

    /// What a recovery ends with.
    pub(super) fn restore(&mut self) {
        self.stage = Stage::Live;
    }

    pub(super) fn latest(&self) -> &Version {
        self.versions.last().expect("a secret is made with a version and never loses one")
    }

    pub(super) fn latest_mut(&mut self) -> &mut Version {
        self.versions.last_mut().expect("a secret is made with a version and never loses one")
    }

    pub(super) fn version(&self, id: &str) -> Option<&Version> {
        self.versions.iter().find(|version| version.id == id)
    }
}

impl Vault {
    pub(super) fn put(&mut self, url: &str, name: &str, request: &Value) -> Result<Response, Failure> {
        let plain = |character: char| character.is_ascii_alphanumeric() || character == '-';
        if name.is_empty() || name.len() > 127 || !name.chars().all(plain) {
            return Err(Failure::bad(format!(
                "The request URI contains an invalid name: {name} (letters, digits and hyphens, 1 to 127)"
            )));
        }
        let value = request["value"]
            .as_str()
            .ok_or_else(|| Failure::bad("Property value is required and must be a string.".to_owned()))?;
        if value.len() > VALUE_BYTES_MAX {
            return Err(Failure::bad(format!("The secret value is longer than {VALUE_BYTES_MAX} bytes.")));
        }
        self.refuse_taken(name)?;
        let mut version = Version::new(value.to_owned());
        version.apply(request);
        let bundle = version.bundle(url, name);
        match self.secrets.get_mut(&name.to_ascii_lowercase()) {
            Some(secret) => secret.versions.push(version),
            None => drop(self.secrets.insert(name.to_ascii_lowercase(), Secret::from(version))),
        }
        Ok(reply(200, bundle))
    }

    /// A deleted name can't be set again until it has been recovered or purged.
    fn refuse_taken(&mut self, name: &str) -> Result<(), Failure> {
        let stage = self.secrets.get_mut(&name.to_ascii_lowercase()).map(Secret::stage);
        let (inner, text) = match stage {
            None | Some(Stage::Live) => return Ok(()),
            Some(Stage::Deleted(_)) => (
                "ObjectIsDeletedButRecoverable",
                format!(
                    "Secret {name} is currently in a deleted but recoverable state, and its name cannot be reused; in \
                     this state, the secret can only be recovered or purged."
                ),
            ),
            Some(Stage::Recovering(_)) => (
                "ObjectIsBeingRecovered",
                format!("Secret {name} is currently being recovered and cannot be changed at this time."),
            ),
        };
        Err(Failure::inner(409, "Conflict", inner, text))
    }

    /// A secret that is neither deleted nor coming back.
    pub(super) fn live(&mut self, name: &str) -> Result<&mut Secret, Failure> {
        let secret = self.secrets.get_mut(&name.to_ascii_lowercase());
        secret
            .and_then(|secret| (secret.stage() == Stage::Live).then_some(secret))
            .ok_or_else(|| Failure::not_found(name))
    }

    pub(super) fn get(&mut self, url: &str, name: &str, version: Option<&str>) -> Result<Response, Failure> {
        let secret = self.live(name)?;
        let found = match version {
            None => secret.latest(),
            Some(id) => secret.version(id).ok_or_else(|| Failure::not_found(&format!("{name}/{id}")))?,
        };
        if !found.enabled {
            let text = "Operation get is not allowed on a disabled secret.".to_owned();
            return Err(Failure::inner(403, "Forbidden", "SecretDisabled", text));
        }
        Ok(reply(200, found.bundle(url, name)))
    }

    /// The latest version of each secret that is in use.
    pub(super) fn list(&mut self, url: &str) -> Vec<Value> {
        let live = self.secrets.iter_mut().filter_map(|(name, secret)| {
            (secret.stage() == Stage::Live).then(|| secret.latest().item(&format!("{url}/secrets/{name}")))
        });
        live.collect()
    }

    /// In the order of version ids, which says nothing of their age.
    pub(super) fn list_versions(&mut self, url: &str, name: &str) -> Result<Vec<Value>, Failure> {
        let mut versions: Vec<&Version> = self.live(name)?.versions.iter().collect();
        versions.sort_by(|one, other| one.id.cmp(&other.id));
        Ok(versions
            .into_iter()
            .map(|version| version.item(&format!("{url}/secrets/{name}/{}", version.id)))
            .collect())
    }

    pub(super) fn patch(
        &mut self,
        url: &str,
        name: &str,
        version: &str,
        request: &Value,
    ) -> Result<Response, Failure> {
        let secret = self.live(name)?;
        let found = secret
            .versions
            .iter_mut()
            .find(|candidate| candidate.id == version)
            .ok_or_else(|| Failure::not_found(&format!("{name}/{version}")))?;
        found.apply(request);
        found.updated = Timestamp::now().as_second();
        Ok(reply(200, found.item(&format!("{url}/secrets/{name}/{version}"))))
    }

    pub(super) fn deleted(&mut self, url: &str, name: &str) -> Result<Response, Failure> {
        let secret = self.secrets.get_mut(&name.to_ascii_lowercase());
        let found = secret.and_then(|secret| match secret.stage() {
            Stage::Deleted(at) => Some((at, secret)),
            _ => None,
        });
        let (at, secret) = found.ok_or_else(|| {
            Failure::plain(404, "SecretNotFound", format!("Deleted Secret not found: {name}"))
        })?;
        let mut body = secret.latest().item(&format!("{url}/secrets/{name}/{}", secret.latest().id));
        body["recoveryId"] = json!(format!("{url}/deletedsecrets/{name}"));
        body["deletedDate"] = json!(at.as_second());
        let purge = at + SignedDuration::from_hours(24 * RECOVERABLE_DAYS);
        body["scheduledPurgeDate"] = json!(purge.as_second());
        Ok(reply(200, body))
    }

    /// Answers at once; the name comes back at `until`.
    pub(super) fn recover(&mut self, url: &str, name: &str, until: Instant) -> Result<Response, Failure> {
        self.deleted(url, name)?;
        let secret =
            self.secrets.get_mut(&name.to_ascii_lowercase()).ok_or_else(|| Failure::not_found(name))?;
        secret.stage = Stage::Recovering(until);
        Ok(reply(200, secret.latest().item(&format!("{url}/secrets/{name}/{}", secret.latest().id))))
    }
}
