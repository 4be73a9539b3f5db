//! The sandbox's `pgrotate.toml`: the example's own, with nothing changed but where things are.
//!
//! Because the example is what is loaded, a run against the sandbox proves the example, name for name.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use toml::{Table, Value};

use crate::error::{Context, Error, Result};

/// The example's configuration.
pub(crate) struct Example {
    root: Table,
}

/// Where things are in the sandbox.
pub(crate) struct Places<'a> {
    /// The chosen environments, in order.
    pub(crate) environments: Vec<Place>,
    /// The sandbox's folder.
    pub(crate) folder: PathBuf,
    /// The application's folder.
    pub(crate) service: &'a Path,
    /// The port of Azure's listener.
    pub(crate) azure: u16,
    /// The port of GitHub's.
    pub(crate) github: u16,
    /// The port before moto.
    pub(crate) aws: u16,
    /// The port of 1Password Connect.
    pub(crate) onepassword: u16,
    /// The port of the webhook and of Jira.
    pub(crate) messages: u16,
}

/// Where one environment is.
pub(crate) struct Place {
    /// Its name.
    pub(crate) name: String,
    /// Its PostgreSQL's port.
    pub(crate) postgres_port: u16,
    /// Its application's base URL.
    pub(crate) app_url: String,
}

impl Example {
    /// Reads `pgrotate.toml` of the example.
    pub(crate) fn load(folder: &Path) -> Result<Self> {
        let path = folder.join("pgrotate.toml");
        let text = std::fs::read_to_string(&path).context(|| format!("cannot read {}", path.display()))?;
        let root = text.parse().context(|| format!("{} is not valid", path.display()))?;
        Ok(Self { root })
    }

    /// Every environment with its Azure subscription.
    pub(crate) fn subscriptions(&self) -> BTreeMap<String, String> {
        let environments = self.root.get("environments").and_then(Value::as_table);
        let named = environments.into_iter().flatten().map(|(name, variables)| {
            let subscription = variables.get("subscription").and_then(Value::as_str);
            (name.clone(), subscription.unwrap_or_default().to_owned())
        });
        named.collect()
    }

    /// A text of a table, such as Azure's tenant.
    pub(crate) fn text(&self, table: &str, key: &str) -> Result<&str> {
        let value = self.root.get(table).and_then(|table| table.get(key)).and_then(Value::as_str);
        value.context(|| format!("the example's pgrotate.toml has no {table}.{key}"))
    }

    /// The configuration for the sandbox.
    pub(crate) fn adapt(mut self, places: &Places<'_>) -> Result<String> {
        self.place_environments(places)?;
        self.place_vendors(places)?;
        self.place_sinks(places)?;
        self.place_checks(places)?;
        self.place_records(places)?;
        let text = toml::to_string(&self.root).context(|| "cannot write the configuration".into())?;
        Ok(format!(
            "# Made by pgrotate-sandbox from examples/mindwell/pgrotate.toml: only places differ.\n{text}"
        ))
    }

    fn place_environments(&mut self, places: &Places<'_>) -> Result<()> {
        let all = self.table("environments")?;
        let mut chosen = Table::new();
        for place in &places.environments {
            let mut variables = all.get(&place.name).and_then(Value::as_table).cloned().unwrap_or_default();
            set(&mut variables, "pg_port", place.postgres_port.to_string());
            set(&mut variables, "app_url", &place.app_url);
            chosen.insert(place.name.clone(), Value::Table(variables));
        }
        *all = chosen;
        let ca_file = in_folder(&places.folder, "ca.pem");
        let database = self.table("database")?;
        set(database, "host", "localhost");
        set(database, "port", "{pg_port}");
        let mut tls = Table::new();
        set(&mut tls, "mode", "verify-full");
        set(&mut tls, "ca_file", &ca_file);
        database.insert("tls".into(), Value::Table(tls));
        set(&mut self.root, "ca_file", ca_file);
        set(&mut self.root, "credentials_file", in_folder(&places.folder, "credentials.env"));
        Ok(())
    }

    fn place_vendors(&mut self, places: &Places<'_>) -> Result<()> {
        let azure = self.table("azure")?;
        set(azure, "resource_manager", format!("https://localhost:{}", places.azure));
        set(azure, "key_vault_suffix", format!("vault.localhost:{}", places.azure));
        set(self.table("github")?, "api", format!("https://localhost:{}", places.github));
        set(self.table("aws")?, "endpoint", format!("http://127.0.0.1:{}", places.aws));
        set(self.table("onepassword")?, "connect", format!("http://127.0.0.1:{}", places.onepassword));
        Ok(())
    }

    fn place_sinks(&mut self, places: &Places<'_>) -> Result<()> {
        for sink in self.entries("sinks", "env_file") {
            let path = text_of(sink, "path")?;
            let below_home = path.strip_prefix("~/").unwrap_or(&path);
            // Each environment's agent is another machine, so each gets a home of its own.
            set(sink, "path", in_folder(&places.folder, &format!("agents/{{env}}/{below_home}")));
        }
        Ok(())
    }

    fn place_checks(&mut self, places: &Places<'_>) -> Result<()> {
        let service = places.service.display().to_string();
        for check in self.entries("checks", "command") {
            set(check, "directory", &service);
        }
        for check in self.entries("checks", "http") {
            let url = text_of(check, "url")?;
            let (_, path) = url
                .strip_prefix("https://")
                .and_then(|rest| rest.split_once('/'))
                .context(|| format!("an http check of the example has no path: {url}"))?;
            set(check, "url", format!("{{app_url}}/{path}"));
        }
        Ok(())
    }

    fn place_records(&mut self, places: &Places<'_>) -> Result<()> {
        for record in self.entries("records", "changelog") {
            set(record, "path", in_folder(&places.folder, "security-changelog.md"));
        }
        for record in self.entries("records", "jira") {
            set(record, "url", format!("https://localhost:{}", places.messages));
        }
        Ok(())
    }

    fn table(&mut self, name: &str) -> Result<&mut Table> {
        let table = self.root.get_mut(name).and_then(Value::as_table_mut);
        table.ok_or_else(|| Error::new(format!("the example's pgrotate.toml has no [{name}]")))
    }

    /// The entries of a list with that kind.
    fn entries(&mut self, list: &str, kind: &str) -> Vec<&mut Table> {
        let entries = self.root.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten();
        let tables = entries.filter_map(Value::as_table_mut);
        tables.filter(|table| table.get("kind").and_then(Value::as_str) == Some(kind)).collect()
    }
}

fn set(table: &mut Table, key: &str, value: impl Into<String>) {
    table.insert(key.to_owned(), Value::String(value.into()));
}

fn text_of(table: &Table, key: &str) -> Result<String> {
    let text = table.get(key).and_then(Value::as_str).map(str::to_owned);
    text.context(|| format!("an entry of the example's pgrotate.toml has no {key}"))
}

fn in_folder(folder: &Path, name: &str) -> String {
    folder.join(name).display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn adapted() -> Table {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/mindwell");
        let staging =
            Place { name: "staging".into(), postgres_port: 20_001, app_url: "http://127.0.0.1:20002".into() };
        let places = Places {
            environments: vec![staging],
            folder: "/sandbox".into(),
            service: Path::new("/example/services/backend"),
            azure: 1,
            github: 2,
            aws: 3,
            onepassword: 4,
            messages: 5,
        };
        Example::load(&folder).unwrap().adapt(&places).unwrap().parse().unwrap()
    }

    #[test]
    fn only_the_chosen_environments_stay_and_keep_their_variables() {
        let environments = adapted()["environments"].as_table().unwrap().clone();
        assert_eq!(environments.keys().collect::<Vec<_>>(), ["staging"]);
        let staging = &environments["staging"];
        assert_eq!(staging["pg_port"].as_str(), Some("20001"));
        assert_eq!(staging["app_url"].as_str(), Some("http://127.0.0.1:20002"));
        assert!(staging["subscription"].as_str().unwrap().starts_with("00000000-"));
    }

    #[test]
    fn everything_is_on_the_loopback_and_in_the_sandboxs_folder() {
        let config = adapted();
        assert_eq!(config["database"]["host"].as_str(), Some("localhost"));
        assert_eq!(config["database"]["tls"]["ca_file"].as_str(), Some("/sandbox/ca.pem"));
        assert_eq!(config["azure"]["key_vault_suffix"].as_str(), Some("vault.localhost:1"));
        assert_eq!(config["aws"]["region"].as_str(), Some("eu-central-1"), "what is no place stays");
        let text = toml::to_string(&config).unwrap();
        let remote = ["azurewebsites.net", "atlassian.net", ".azure.com", "~/", "\"docs/"];
        for remote in remote {
            assert!(!text.contains(remote), "{remote} is left in\n{text}");
        }
        for local in ["{app_url}/api/healthz", "/sandbox/agents/{env}/.config/mindwell/{env}.env"] {
            assert!(text.contains(local), "{local} is missing in\n{text}");
        }
    }
}
