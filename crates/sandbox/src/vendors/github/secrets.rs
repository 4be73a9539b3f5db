//! Stores of Actions secrets: a repository's, an environment's, the organisation's, each with its own key pair.

use std::collections::BTreeMap;

use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use crypto_box::SecretKey;
use serde_json::{Value, json};

use super::super::call::{Call, empty, now_text, random_bytes, reply, with_header};
use super::super::{Copy, Environment};
use super::resources::{minimal_repository, site};
use super::{Failure, Hub, OWNER, Outcome, REPOSITORIES};

/// The largest value of a secret.
const VALUE_BYTES_MAX: usize = 48 * 1024;

/// Whose secrets a store holds.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Scope {
    /// A repository's, by full name.
    Repository(String),
    /// An environment's of a repository.
    Environment(String, String),
    /// An organisation's.
    Organization(String),
}

/// Secrets with the key pair that they are sealed for.
pub(super) struct Store {
    key: SecretKey,
    key_id: String,
    pub(super) secrets: BTreeMap<String, Secret>,
    created: String,
}

/// One secret; the value is what nobody can read back from GitHub.
pub(super) struct Secret {
    value: String,
    created: String,
    updated: String,
    writes: usize,
    visibility: String,
    selected: Vec<u64>,
}

/// What the organisation, the repositories and their environments hold before the first rotation.
pub(super) fn seed(environments: &[Environment]) -> BTreeMap<Scope, Store> {
    let backend = format!("{OWNER}/backend");
    let mut stores = BTreeMap::new();
    for (name, _) in REPOSITORIES {
        stores.insert(Scope::Repository(format!("{OWNER}/{name}")), Store::new());
    }
    let mut repository = Store::new();
    for environment in environments {
        let prefix = environment.name.to_ascii_uppercase();
        repository.put(&format!("{prefix}_DATABASE_URL"), &environment.database_url);
        repository.put(&format!("{prefix}_POSTGRES_ADMIN_PASSWORD"), &environment.password);
        stores.insert(Scope::Environment(backend.clone(), environment.name.clone()), Store::new());
    }
    repository.put("DEPLOY_KEY", "not-ours-to-change");
    stores.insert(Scope::Repository(backend.clone()), repository);
    // A name that has to be escaped in a path.
    stores.insert(Scope::Environment(backend, "qa/eu".to_owned()), Store::new());
    let mut organization = Store::new();
    organization.put("NPM_TOKEN", "not-ours-to-change");
    stores.insert(Scope::Organization(OWNER.to_owned()), organization);
    stores
}

/// Makes a secret of the organisation's, or replaces it, with its audience.
pub(super) fn share(hub: &mut Hub, wanted: &Value) -> Result<(), String> {
    let text = |key: &str| {
        let missing =
            || format!("organization_secret takes {{name, value, visibility, repositories?}}: {key}");
        wanted[key].as_str().ok_or_else(missing)
    };
    let (name, value, visibility) = (text("name")?, text("value")?, text("visibility")?);
    let named: Vec<&str> =
        wanted["repositories"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let known = |name: &str| REPOSITORIES.iter().find(|(own, _)| *own == name).map(|(_, id)| *id);
    let ids = named.iter().map(|name| known(name).ok_or_else(|| format!("there is no repository {name:?}")));
    let ids = ids.collect::<Result<Vec<u64>, String>>()?;
    let store = hub.stores.entry(Scope::Organization(OWNER.to_owned())).or_insert_with(Store::new);
    store.put(name, value);
    let secret = store.secrets.get_mut(name).expect("it has just been put");
    visibility.clone_into(&mut secret.visibility);
    secret.selected = ids;
    Ok(())
}

/// Makes a secret in an environment of the repository, or takes all of that environment's away.
pub(super) fn of_environment(hub: &mut Hub, wanted: &Value) -> Result<(), String> {
    let environment = wanted["environment"].as_str().ok_or("environment_secret takes {environment, name}")?;
    let scope = Scope::Environment(format!("{OWNER}/backend"), environment.to_owned());
    let store = hub.stores.entry(scope).or_insert_with(Store::new);
    match wanted["name"].as_str() {
        Some(name) => drop(store.put(name, "somebody-elses")),
        None => store.secrets.clear(),
    }
    Ok(())
}

impl Store {
    fn new() -> Self {
        let (key, key_id) = key_pair();
        Self { key, key_id, secrets: BTreeMap::new(), created: now_text() }
    }

    /// Makes values that were sealed for the key until now unreadable, as GitHub does when it renews a key.
    pub(super) fn renew_key(&mut self) {
        (self.key, self.key_id) = key_pair();
    }

    /// Puts a value and tells whether the secret is new.
    fn put(&mut self, name: &str, value: &str) -> bool {
        let now = now_text();
        if let Some(secret) = self.secrets.get_mut(name) {
            value.clone_into(&mut secret.value);
            secret.updated = now;
            secret.writes += 1;
            return false;
        }
        let secret = Secret {
            value: value.to_owned(),
            created: now.clone(),
            updated: now,
            writes: 1,
            visibility: "private".to_owned(),
            selected: Vec::new(),
        };
        self.secrets.insert(name.to_owned(), secret);
        true
    }

    /// Opens a sealed value with the store's key.
    fn open(&self, request: &Value) -> Result<String, Failure> {
        let field = |name: &str| {
            request[name]
                .as_str()
                .ok_or_else(|| Failure::new(422, format!("Invalid request.\n\n\"{name}\" wasn't supplied.")))
        };
        let (sealed, key_id) = (field("encrypted_value")?, field("key_id")?);
        let sealed = STANDARD.decode(sealed).map_err(|_| {
            let pattern =
                "/^(?:[A-Za-z0-9+\\/]{4})*(?:[A-Za-z0-9+\\/]{2}==|[A-Za-z0-9+\\/]{3}=|[A-Za-z0-9+\\/]{4})$/";
            Failure::new(422, format!("Invalid request.\n\nencrypted_value does not match {pattern}."))
        })?;
        if key_id != self.key_id {
            return Err(Failure::new(422, "Bad request - key_id does not match the public key"));
        }
        let improper =
            || Failure::new(422, "Bad request - validation failed due to an improperly encrypted secret");
        let value = self.key.unseal(&sealed).map_err(|_| improper())?;
        if value.len() > VALUE_BYTES_MAX {
            return Err(Failure::new(422, "Secret is too large. The limit is 48 KB."));
        }
        String::from_utf8(value).map_err(|_| improper())
    }
}

fn key_pair() -> (SecretKey, String) {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(&random_bytes(32));
    // Key ids are long decimal numbers.
    let id = random_bytes(18).iter().map(|byte| char::from(b'0' + byte % 10)).collect();
    (SecretKey::from_bytes(bytes), id)
}

impl Secret {
    pub(super) fn copy(&self) -> Copy {
        Copy { value: Some(self.value.clone()), version: self.updated.clone(), versions: self.writes }
    }

    fn resource(&self, scope: &Scope, name: &str, base: &str) -> Value {
        let mut resource = json!({"name": name, "created_at": self.created, "updated_at": self.updated});
        if let Scope::Organization(owner) = scope {
            resource["visibility"] = json!(self.visibility);
            if self.visibility == "selected" {
                let url = format!("{base}/orgs/{owner}/actions/secrets/{name}/repositories");
                resource["selected_repositories_url"] = json!(url);
            }
        }
        resource
    }
}

/// A call to the secrets of one store; `rest` is what follows `…/secrets`.
pub(super) fn serve(hub: &mut Hub, call: &Call, scope: &Scope, rest: &[&str], base: &str) -> Outcome {
    let store = hub.stores.get_mut(scope).ok_or_else(Failure::not_found)?;
    let name = rest.first().map(|name| name.to_ascii_uppercase()).unwrap_or_default();
    match (call.method.as_str(), rest) {
        ("GET", []) => {
            let secrets: Vec<Value> =
                store.secrets.iter().map(|(name, secret)| secret.resource(scope, name, base)).collect();
            Ok(page(call, base, "secrets", &secrets))
        }
        ("GET", ["public-key"]) => {
            let key = STANDARD.encode(store.key.public_key().as_bytes());
            Ok(reply(200, json!({"key_id": store.key_id, "key": key})))
        }
        ("GET", [_]) => {
            let secret = store.secrets.get(&name).ok_or_else(Failure::not_found)?;
            Ok(reply(200, secret.resource(scope, &name, base)))
        }
        ("PUT", [_]) => put(store, call, scope, &name),
        ("DELETE", [_]) => {
            store.secrets.remove(&name).ok_or_else(Failure::not_found)?;
            Ok(empty(204))
        }
        ("GET", [_, "repositories"]) if matches!(scope, Scope::Organization(_)) => {
            let secret = store.secrets.get(&name).ok_or_else(Failure::not_found)?;
            let known = REPOSITORIES.iter().filter(|(_, id)| secret.selected.contains(id));
            let shown: Vec<Value> = known.map(|(name, id)| minimal_repository(base, name, *id)).collect();
            Ok(page(call, base, "repositories", &shown))
        }
        _ => Err(Failure::not_found()),
    }
}

fn put(store: &mut Store, call: &Call, scope: &Scope, name: &str) -> Outcome {
    let request = call.json().map_err(|_| Failure::new(400, "Problems parsing JSON"))?;
    let plain = |character: char| character.is_ascii_alphanumeric() || character == '_';
    if name.starts_with(|first: char| first.is_ascii_digit()) || !name.chars().all(plain) {
        let text = "Secret names can only contain alphanumeric characters ([a-z], [A-Z], [0-9]) or underscores (_). \
                    Spaces are not allowed. Must start with a letter ([a-z], [A-Z]) or underscores (_).";
        return Err(Failure::new(422, text));
    }
    if name.starts_with("GITHUB_") {
        return Err(Failure::new(422, "Secret names must not start with GITHUB_."));
    }
    let value = store.open(&request)?;
    let visibility = request["visibility"].as_str();
    if matches!(scope, Scope::Organization(_)) && visibility.is_none() {
        return Err(Failure::new(422, "Invalid request.\n\n\"visibility\" wasn't supplied."));
    }
    let created = store.put(name, &value);
    if let Some(secret) = store.secrets.get_mut(name)
        && let Some(visibility) = visibility
    {
        visibility.clone_into(&mut secret.visibility);
        // A list that is left out is an empty one: the repositories lose their access.
        let ids = request["selected_repository_ids"].as_array();
        secret.selected = ids.into_iter().flatten().filter_map(Value::as_u64).collect();
    }
    Ok(if created { reply(201, json!({})) } else { empty(204) })
}

/// The organisation's secrets that a repository can use.
pub(super) fn inherited(hub: &Hub, call: &Call) -> Outcome {
    let store = hub.stores.get(&Scope::Organization(OWNER.to_owned())).ok_or_else(Failure::not_found)?;
    let secrets: Vec<Value> = store
        .secrets
        .iter()
        .map(|(name, secret)| json!({"name": name, "created_at": secret.created, "updated_at": secret.updated}))
        .collect();
    Ok(page(call, "", "secrets", &secrets))
}

/// An environment of a repository: there if it has a store.
pub(super) fn environment(hub: &Hub, repository: &str, name: &str, base: &str) -> Outcome {
    let scope = Scope::Environment(repository.to_owned(), name.to_owned());
    let store = hub.stores.get(&scope).ok_or_else(Failure::not_found)?;
    Ok(reply(200, environment_resource(repository, name, base, store)))
}

/// The environments of a repository.
pub(super) fn environments(hub: &Hub, call: &Call, repository: &str, base: &str) -> Response {
    let all: Vec<Value> = hub
        .stores
        .iter()
        .filter_map(|(scope, store)| match scope {
            Scope::Environment(own, name) if own == repository => {
                Some(environment_resource(repository, name, base, store))
            }
            _ => None,
        })
        .collect();
    page(call, base, "environments", &all)
}

fn environment_resource(repository: &str, name: &str, base: &str, store: &Store) -> Value {
    let site = site(base);
    json!({
        "id": 161_088_068,
        "node_id": "MDExOkVudmlyb25tZW50MTYxMDg4MDY4",
        "name": name,
        "url": format!("{base}/repos/{repository}/environments/{name}"),
        "html_url": format!("{site}/{repository}/deployments/activity_log?environments_filter={name}"),
        "created_at": store.created,
        "updated_at": store.created,
        "protection_rules": [],
        "deployment_branch_policy": null,
    })
}

/// One page of a list under a name, with links to the others.
pub(super) fn page(call: &Call, base: &str, name: &str, all: &[Value]) -> Response {
    let (shown, links) = slice(call, base, all);
    let answer = reply(200, json!({"total_count": all.len(), name: shown}));
    match links {
        Some(links) => with_header(answer, "link", &links),
        None => answer,
    }
}

/// The entries of the page that was asked for, and the `Link` header if there are more pages.
pub(super) fn slice<'a>(call: &Call, base: &str, all: &'a [Value]) -> (&'a [Value], Option<String>) {
    let size = call.query_number("per_page").unwrap_or(30).clamp(1, 100);
    let page = call.query_number("page").unwrap_or(1).max(1);
    let last = all.len().div_ceil(size).max(1);
    let start = ((page - 1) * size).min(all.len());
    let shown = &all[start..(start + size).min(all.len())];
    let path = call.path.strip_prefix("/api/v3").unwrap_or(&call.path);
    let link = |to: usize, rel: &str| format!("<{base}{path}?per_page={size}&page={to}>; rel=\"{rel}\"");
    let mut links = Vec::new();
    if page > 1 {
        links.push(link(page - 1, "prev"));
        links.push(link(1, "first"));
    }
    if page < last {
        links.push(link(page + 1, "next"));
        links.push(link(last, "last"));
    }
    (shown, (!links.is_empty()).then(|| links.join(", ")))
}
