//! Settings that point at a Key Vault secret: `@Microsoft.KeyVault(SecretUri=…)` or
//! `@Microsoft.KeyVault(VaultName=…;SecretName=…;SecretVersion=…)`.

use std::collections::BTreeMap;
use std::sync::Arc;

use pgrotate_core::{CopyId, Error, Kind, Result, Secret, VersionId};
use reqwest::Url;
use serde::Deserialize;

use super::Site;
use crate::azure::{Account, Answer, Call, below};

/// How a reference begins.
const BEGINNING: &str = "@microsoft.keyvault(";
/// The refresh is documented with this version alone.
const REFRESH_API_VERSION: &str = "2022-03-01";

/// What happens without a refresh.
const BY_ITSELF: &str = "App Service fetches it within 24 hours by itself; `pgrotate resume` asks again";

/// Where a reference points.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reference {
    pub(super) vault: String,
    pub(super) secret: String,
    pub(super) version: Option<String>,
}

/// What a setting holds, if it is not an ordinary value.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Pointer {
    /// A reference.
    To(Reference),
    /// It begins like one and can't be read.
    Unreadable,
}

impl Pointer {
    /// Reads a setting; `None` is an ordinary value.
    pub(super) fn read(value: &Secret) -> Option<Self> {
        let text = value.expose().trim();
        let head = text.get(..BEGINNING.len())?;
        if !head.eq_ignore_ascii_case(BEGINNING) {
            return None;
        }
        let inside = text[BEGINNING.len()..].strip_suffix(')');
        Some(inside.and_then(Reference::parse).map_or(Self::Unreadable, Self::To))
    }
}

impl Reference {
    fn parse(inside: &str) -> Option<Self> {
        let fields: BTreeMap<String, &str> = inside
            .split(';')
            .filter_map(|field| field.split_once('='))
            .map(|(name, value)| (name.trim().to_ascii_lowercase(), value.trim()))
            .collect();
        match fields.get("secreturi") {
            Some(uri) => Self::of_uri(uri),
            None => Some(Self {
                vault: filled(fields.get("vaultname")?)?,
                secret: filled(fields.get("secretname")?)?,
                version: fields.get("secretversion").and_then(|version| filled(version)),
            }),
        }
    }

    /// Reads a Secret Id, with or without version.
    pub(super) fn of_uri(uri: &str) -> Option<Self> {
        let url = Url::parse(uri).ok()?;
        let vault = url.host_str()?.split('.').next()?.to_owned();
        let mut path = url.path_segments()?;
        let secrets = path.next()? == "secrets";
        let secret = path.next().and_then(filled)?;
        secrets.then(|| Self { vault, secret, version: path.next().and_then(filled) })
    }

    /// Whether it points at the secret of which the other is a version.
    fn means(&self, other: &Self) -> bool {
        self.vault.eq_ignore_ascii_case(&other.vault) && self.secret.eq_ignore_ascii_case(&other.secret)
    }
}

impl std::fmt::Display for Reference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the secret {} in the vault {}", self.secret, self.vault)
    }
}

fn filled(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

#[derive(Deserialize)]
struct List {
    value: Vec<Item>,
}

#[derive(Deserialize)]
struct Item {
    #[serde(default)]
    name: String,
    properties: ItemProperties,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ItemProperties {
    status: Option<String>,
    active_version: Option<String>,
    vault_name: Option<String>,
    secret_name: Option<String>,
}

/// What App Service says of its references.
pub(super) struct Statuses(Vec<Status>);

/// What App Service says of one reference.
pub(super) struct Status {
    /// The setting.
    pub(super) setting: String,
    /// `Resolved`, or why not.
    pub(super) status: String,
    active_version: Option<String>,
    points_at: Option<Reference>,
}

impl Status {
    /// Whether the application gets a value.
    pub(super) fn is_resolved(&self) -> bool {
        self.status.eq_ignore_ascii_case("Resolved")
    }

    /// Whether it has not been looked at yet.
    fn is_fresh(&self) -> bool {
        self.status.eq_ignore_ascii_case("Initialized")
    }

    /// What helps.
    pub(super) fn mend(&self) -> String {
        match self.status.as_str() {
            "AccessToKeyVaultDenied" | "UnauthorizedClient" => {
                "give the application's managed identity the role \"Key Vault Secrets User\" on the vault"
                    .into()
            }
            "MSINotEnabled" => "give the application a managed identity: az webapp identity assign".into(),
            "InvalidSyntax" => "correct the reference in the setting".into(),
            "VaultNotFound" | "SecretNotFound" | "SecretVersionNotFound" => {
                "correct the reference, or make what it points at".into()
            }
            _ => {
                "look at the setting in the portal: Environment variables, Key Vault reference details".into()
            }
        }
    }
}

impl Statuses {
    /// Reads the statuses of all references.
    pub(super) async fn read(site: &Site, account: &Account) -> Result<Self> {
        let operation = format!("read the Key Vault references of {}", site.name());
        let url = site.url(account, &["config", "configreferences", "appsettings"]);
        let answer = account.send(Call::get(url), &operation).await.map_err(|error| site.explain(error))?;
        Self::of(&answer, &operation)
    }

    /// The same, asked once: for checks.
    pub(super) async fn look(site: &Site, account: &Account) -> Result<Arc<Self>> {
        let question = format!("references of {}", site.location());
        site.shared.looks.once(question, Self::read(site, account)).await
    }

    /// Has all references fetched anew.
    pub(super) async fn refresh(site: &Site, account: &Account) -> Result<()> {
        let operation = format!("refresh the Key Vault references of {}", site.name());
        let path = ["config", "configreferences", "appsettings", "refresh"];
        let url = below(&site.resource(account), &path, REFRESH_API_VERSION);
        let sent = account.send(Call::post(url), &operation).await;
        sent.map(drop).map_err(|error| error.hint(BY_ITSELF))
    }

    fn of(answer: &Answer, operation: &str) -> Result<Self> {
        let list: List = answer.json(operation)?;
        let plain = |text: String| {
            let word = text.len() <= 40 && text.chars().all(|character| character.is_ascii_alphanumeric());
            if word { text } else { "unknown".to_owned() }
        };
        let statuses = list.value.into_iter().map(|Item { name, properties }| Status {
            setting: name,
            status: plain(properties.status.unwrap_or_default()),
            active_version: properties.active_version,
            points_at: properties.vault_name.zip(properties.secret_name).map(|(vault, secret)| Reference {
                vault,
                secret,
                version: None,
            }),
        });
        Ok(Self(statuses.collect()))
    }

    /// The status of one setting.
    pub(super) fn of_setting(&self, setting: &str) -> Option<&Status> {
        self.0.iter().find(|status| status.setting.eq_ignore_ascii_case(setting))
    }

    /// The references that give the application no value.
    pub(super) fn broken(&self) -> impl Iterator<Item = &Status> {
        self.0.iter().filter(|status| !status.is_resolved() && !status.is_fresh())
    }

    /// Whether one of them points at a secret of which that is so.
    pub(super) fn points_at(&self, is_so: impl Fn(&str, &str) -> bool) -> bool {
        self.0.iter().filter_map(|status| status.points_at.as_ref()).any(|to| is_so(&to.vault, &to.secret))
    }

    /// The references to secrets that the run has written, each with the version that it has to
    /// arrive at.
    pub(super) fn awaited(&self, written: &BTreeMap<CopyId, VersionId>) -> Vec<(&Status, Reference)> {
        let of_vaults = written.iter().filter(|(copy, _)| copy.kind() == "azure_key_vault");
        let versions: Vec<Reference> =
            of_vaults.filter_map(|(_, id)| Reference::of_uri(id.as_str())).collect();
        self.0
            .iter()
            .filter_map(|status| {
                let points_at = status.points_at.as_ref()?;
                versions
                    .iter()
                    .find(|version| points_at.means(version))
                    .map(|version| (status, version.clone()))
            })
            .collect()
    }

    /// The error while awaited references have not arrived; the status of each is named.
    pub(super) fn still_waiting(&self, written: &BTreeMap<CopyId, VersionId>, site: &str) -> Option<Error> {
        let awaited = self.awaited(written);
        let late = awaited
            .iter()
            .find(|(status, wanted)| !status.is_resolved() || status.active_version != wanted.version);
        let (status, _) = late?;
        let why = if status.is_resolved() {
            format!("the reference in {} still has the version before", status.setting)
        } else {
            format!("the reference in {} is {}", status.setting, status.status)
        };
        let mend = if status.is_resolved() { BY_ITSELF.to_owned() } else { status.mend() };
        Some(
            Error::new(Kind::BadState, format!("have {site} take up the new secret")).because(why).hint(mend),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Option<Pointer> {
        Pointer::read(&Secret::new(text))
    }

    fn reference(version: Option<&str>) -> Option<Pointer> {
        let version = version.map(str::to_owned);
        Some(Pointer::To(Reference { vault: "kv".into(), secret: "s".into(), version }))
    }

    #[test]
    fn both_forms_are_read() {
        assert_eq!(
            read("@Microsoft.KeyVault(SecretUri=https://kv.vault.azure.net/secrets/s/)"),
            reference(None)
        );
        assert_eq!(
            read("@Microsoft.KeyVault(SecretUri=https://kv.vault.azure.net/secrets/s)"),
            reference(None)
        );
        let pinned = read("@Microsoft.KeyVault(SecretUri=https://kv.vault.azure.net/secrets/s/0a1b)");
        assert_eq!(pinned, reference(Some("0a1b")));
        assert_eq!(read("@Microsoft.KeyVault(VaultName=kv;SecretName=s)"), reference(None));
        assert_eq!(
            read("@microsoft.keyvault(vaultName=kv; secretName=s; secretVersion=0a1b)"),
            reference(Some("0a1b"))
        );
        assert_eq!(read("@Microsoft.KeyVault(VaultName=kv;SecretName=s;SecretVersion=)"), reference(None));
    }

    #[test]
    fn what_is_no_reference_is_a_value() {
        assert_eq!(read("postgresql://u:p@h/d"), None);
        assert_eq!(read("@Microsoft"), None);
        assert_eq!(read("é"), None);
    }

    #[test]
    fn a_reference_that_cannot_be_read_is_no_value_either() {
        for text in [
            "@Microsoft.KeyVault(",
            "@Microsoft.KeyVault()",
            "@Microsoft.KeyVault(SecretUri=nowhere)",
            "@Microsoft.KeyVault(VaultName=kv)",
            "@Microsoft.KeyVault(SecretUri=https://kv.vault.azure.net/keys/s)",
        ] {
            assert_eq!(read(text), Some(Pointer::Unreadable), "{text}");
        }
    }
}
