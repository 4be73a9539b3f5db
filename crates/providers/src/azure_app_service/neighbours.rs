//! What stands beside a copy and holds the same password without being among the copies: another setting, a connection
//! string, the settings of a slot. A run would leave the old password there.

use futures::future::try_join_all;
use pgrotate_core::database_url::DatabaseUrl;
use pgrotate_core::provider::{Finding, Severity};
use pgrotate_core::{Error, Kind, Result, Secret};
use serde_json::Value;

use super::reference::Pointer;
use super::setting::Setting;
use super::settings::{Settings, Table};
use crate::azure::{Account, Call};

/// A shorter text stands in other values by chance.
const SHORTEST: usize = 8;

/// The password in a value: of a URL its own, else the value; none in one that points elsewhere.
fn password(value: &Secret) -> Option<Secret> {
    if Pointer::read(value).is_some() {
        return None;
    }
    let password = match DatabaseUrl::parse(value) {
        Ok(url) => url.password(),
        Err(_) => value.clone(),
    };
    (password.len() >= SHORTEST).then_some(password)
}

/// The names under which a table holds a password, in whatever encoding of a URL.
fn holders<'s>(settings: &'s Settings, password: &Secret) -> Vec<&'s str> {
    let encoded = pgrotate_core::database_url::encode(password.expose());
    let holds = |value: &Secret| {
        value.expose().contains(password.expose())
            || value.expose().contains(encoded.as_str())
            || DatabaseUrl::parse(value).is_ok_and(|url| url.password() == *password)
    };
    settings.iter().filter(|(_, value)| holds(value)).map(|(name, _)| name).collect()
}

impl Setting {
    /// Looks beside the copy, at its own table, at the other one, and into the slots.
    pub(super) async fn look_beside(&self, account: &Account, settings: &Settings) -> Result<Vec<Finding>> {
        let Some(password) = settings.get(self.name()).and_then(password) else {
            return self.slots(account, None).await;
        };
        let own = self.undeclared(settings, self.table(), &password);
        let (other, slots) =
            futures::join!(self.other_table(account, &password), self.slots(account, Some(&password)));
        Ok([own, other?, slots?].concat())
    }

    fn undeclared(&self, settings: &Settings, table: Table, password: &Secret) -> Vec<Finding> {
        let site = self.site();
        let undeclared = holders(settings, password)
            .into_iter()
            .filter(|name| !site.shared.azure.has_copy_at(&super::setting::location(site, table, name)));
        let finding = |name: &str| {
            let what = format!(
                "the {} {name} of {} holds the same password and is not among the copies",
                table.noun(),
                site.name()
            );
            self.found(Severity::Warning, what)
                .why("it would keep the old password, which the server then refuses")
                .mend(format!("name it as a sink of its own, with `{}`, or take it away", table.option()))
        };
        undeclared.map(finding).collect()
    }

    async fn other_table(&self, account: &Account, password: &Secret) -> Result<Vec<Finding>> {
        let other = self.table().other();
        match self.look_at(account, other).await {
            Ok(settings) => Ok(self.undeclared(&settings, other, password)),
            Err(error) if is_hidden(&error) => {
                let what = format!("whether a {} holds the password too can't be seen", other.noun());
                Ok(vec![self.found(Severity::Unseen, what)])
            }
            Err(error) => Err(error),
        }
    }

    /// Each slot has settings of its own, and a swap brings them into production.
    async fn slots(&self, account: &Account, password: Option<&Secret>) -> Result<Vec<Finding>> {
        let site = self.site();
        if site.slot.is_some() {
            return Ok(Vec::new());
        }
        let operation = format!("list the slots of {}", site.name());
        let list = match site.look::<Value>(account, &["slots"], Call::get, &operation).await {
            Ok(list) => list,
            Err(error) if is_hidden(&error) => {
                let what = "whether the application has slots can't be seen";
                let why = "each has settings of its own, and a swap brings them into production";
                return Ok(vec![self.found(Severity::Unseen, what).why(why)]);
            }
            Err(error) => return Err(error),
        };
        let names = list["value"].as_array().into_iter().flatten().filter_map(|slot| slot["name"].as_str());
        let slots = names.map(|name| name.rsplit('/').next().unwrap_or(name)).filter_map(|name| {
            let slot = site.slot(name).ok()?;
            let location = super::setting::location(&slot, self.table(), self.name());
            (!site.shared.azure.has_copy_at(&location)).then_some(slot)
        });
        let slots: Vec<super::Site> = slots.collect();
        if slots.is_empty() {
            return Ok(Vec::new());
        }
        let sticky = self.is_sticky(account).await?;
        let findings = slots.iter().map(|slot| self.slot(account, slot, password, sticky));
        try_join_all(findings).await
    }

    /// What a slot that is not among the sinks means.
    async fn slot(
        &self,
        account: &Account,
        slot: &super::Site,
        password: Option<&Secret>,
        sticky: Option<bool>,
    ) -> Result<Finding> {
        let name = slot.name();
        let mend = "name it as a sink with `slot`, if it holds the password";
        let settings = match Settings::look(slot, account, self.table()).await {
            Ok(settings) => settings,
            Err(error) if is_hidden(&error) => {
                let what =
                    format!("what the slot {name} holds can't be seen, and it is not among the copies");
                return Ok(self.found(Severity::Unseen, what).why(swap(sticky)).mend(mend));
            }
            Err(error) => return Err(error),
        };
        let holders = password.map(|password| holders(&settings, password)).unwrap_or_default();
        if !holders.is_empty() {
            let what = format!(
                "the slot {name} holds the same password in {} and is not among the copies",
                holders.join(", ")
            );
            let why = format!("it would keep the old password; {}", swap(sticky));
            return Ok(self.found(Severity::Warning, what).why(why).mend("name it as a sink with `slot`"));
        }
        let what = match settings.get(self.name()) {
            Some(_) => format!("the slot {name} has a {} of its own", self.table().noun()),
            None => format!("the slot {name} has no such {}", self.table().noun()),
        };
        Ok(self.found(Severity::Note, what).why(swap(sticky)).mend(mend))
    }

    /// Whether the row stays with its slot in a swap, if that can be seen.
    async fn is_sticky(&self, account: &Account) -> Result<Option<bool>> {
        let site = self.site();
        let operation = format!("read which settings of {} stay with their slot", site.name());
        match site.look::<Value>(account, &["config", "slotConfigNames"], Call::get, &operation).await {
            Ok(names) => {
                let names = names["properties"][self.table().sticky()].as_array();
                Ok(Some(names.into_iter().flatten().any(|name| name.as_str() == Some(self.name()))))
            }
            Err(error) if is_hidden(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

fn swap(sticky: Option<bool>) -> &'static str {
    match sticky {
        Some(true) => "it stays with its slot in a swap",
        Some(false) => "a swap brings it into production",
        None => "a swap may bring it into production",
    }
}

/// An answer that is not understood hides as much as one that is refused.
pub(super) fn is_hidden(error: &Error) -> bool {
    matches!(error.kind(), Kind::Forbidden | Kind::NotFound | Kind::Corrupt)
}
