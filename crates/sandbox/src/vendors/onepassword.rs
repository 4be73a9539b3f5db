//! 1Password Connect, version 1.7.1 of its interface: vaults, items by title, and changes to an item by JSON Patch.
//!
//! Each item is seeded with more than a rotation needs (user name, notes, a section, a website), so that a writer who
//! replaces what it should have patched is found out. Simplified: files, activity and metrics don't exist; the server
//! makes no passwords (`generate`); a patch of several operations is applied as a whole or not at all.

mod patch;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::{Request, State};
use axum::response::Response;
use serde_json::{Value, json};

use super::call::{Call, empty, lock, now_text, random_id26, reply, text};
use super::{Copy, Environment, World};

/// The vault of the runbook.
const VAULT: &str = "MindWell";

/// A Connect server.
pub(crate) struct OnePassword {
    token: String,
    vault: String,
    other_vault: String,
    state: Mutex<Vault>,
}

struct Vault {
    items: Vec<Value>,
    read_only: bool,
    /// The items as they were before a bad state.
    aside: Option<Vec<Value>>,
}

/// An error in Connect's form.
struct Failure(u16, String);

type Outcome = Result<Response, Failure>;

impl OnePassword {
    /// A vault with an item for each environment.
    pub(crate) fn new(world: &World) -> Self {
        let vault = random_id26();
        let items = world.environments.iter().map(|environment| seed(&vault, environment)).collect();
        Self {
            token: world.credentials.connect_token.clone(),
            other_vault: random_id26(),
            state: Mutex::new(Vault { items, read_only: false, aside: None }),
            vault,
        }
    }

    /// The HTTP interface.
    pub(crate) fn router(self: Arc<Self>) -> Router {
        Router::new().fallback(serve).with_state(self)
    }

    /// What the control interface shows of an environment's item: the value of its password field.
    pub(crate) fn copies(&self, environment: &Environment) -> Vec<(String, Copy)> {
        let title = title(environment);
        let state = lock(&self.state);
        let Some(item) = state.items.iter().find(|item| item["title"] == title.as_str()) else {
            return Vec::new();
        };
        let version = item["version"].as_u64().unwrap_or_default();
        let copy = Copy {
            value: field(item, "password").map(str::to_owned),
            version: version.to_string(),
            versions: usize::try_from(version).unwrap_or(usize::MAX),
        };
        vec![(format!("onepassword:{title}"), copy)]
    }

    /// What a rotation has to leave as it is: the fields of the seed beside the password.
    pub(crate) fn neighbours(&self, environment: &Environment) -> Value {
        let title = title(environment);
        let state = lock(&self.state);
        let item = state.items.iter().find(|item| item["title"] == title.as_str());
        let Some(fields) = item.and_then(|item| item["fields"].as_array()) else { return Value::Null };
        let section = item.map(|item| &item["sections"][0]["id"]);
        let seeded = |field: &&Value| {
            field["id"] != "password"
                && (field["section"].is_null() || Some(&field["section"]["id"]) == section)
        };
        fields.iter().filter(seeded).cloned().collect()
    }

    /// Puts an environment's item into a state that a test wants to see handled.
    pub(crate) fn set(&self, environment: &Environment, what: &str, value: &Value) -> Result<(), String> {
        let title = title(environment);
        let mut state = lock(&self.state);
        let found = state.items.iter().position(|item| item["title"] == title.as_str());
        if matches!(what, "ambiguous" | "missing" | "archived") && state.aside.is_none() {
            state.aside = Some(state.items.clone());
        }
        match what {
            "read_only" => state.read_only = value.as_bool().ok_or("read_only takes true or false")?,
            "ambiguous" => {
                let mut copy = state.items[found.ok_or("no such item")?].clone();
                copy["id"] = json!(random_id26());
                state.items.push(copy);
            }
            "missing" => drop(state.items.remove(found.ok_or("no such item")?)),
            "archived" => state.items[found.ok_or("no such item")?]["state"] = json!("ARCHIVED"),
            "restored" => {
                let items = state.aside.take();
                state.items = items.ok_or("nothing has been put aside")?;
            }
            "password" => {
                let item = &mut state.items[found.ok_or("no such item")?];
                let operation = json!([{"op": "replace", "path": "/fields/password/value", "value": value}]);
                patch::apply(item, &operation)?;
                touch(item);
            }
            other => return Err(format!("onepassword can't set {other:?}")),
        }
        Ok(())
    }
}

fn title(environment: &Environment) -> String {
    format!("MindWell {} Postgres Admin", environment.name)
}

fn field<'a>(item: &'a Value, id: &str) -> Option<&'a str> {
    item["fields"].as_array()?.iter().find(|field| field["id"] == id)?["value"].as_str()
}

fn seed(vault: &str, environment: &Environment) -> Value {
    let section = random_id26();
    json!({
        "id": random_id26(),
        "title": title(environment),
        "vault": {"id": vault},
        "category": "LOGIN",
        "urls": [{"label": "portal", "primary": true, "href": "https://portal.azure.com"}],
        "favorite": false,
        "tags": ["postgres", environment.name],
        "version": 3,
        "createdAt": "2025-03-04T09:15:02Z",
        "updatedAt": "2026-08-01T07:42:11Z",
        "lastEditedBy": "LKXQ5SJQYVGJBKCF4A6TSYFYPU",
        "sections": [{"id": section, "label": "Server"}],
        "fields": [
            {
                "id": "username",
                "type": "STRING",
                "purpose": "USERNAME",
                "label": "username",
                "value": environment.postgres_user,
            },
            {
                "id": "password",
                "type": "CONCEALED",
                "purpose": "PASSWORD",
                "label": "password",
                "value": environment.password,
                "entropy": 166.5,
            },
            {
                "id": "notesPlain",
                "type": "STRING",
                "purpose": "NOTES",
                "label": "notesPlain",
                "value": "Rotated by the runbook.\nAsk #platform before changing anything by hand.",
            },
            {
                "id": random_id26(),
                "section": {"id": section},
                "type": "STRING",
                "label": "server",
                "value": format!("{}.postgres.database.azure.com", environment.server()),
            },
            {
                "id": random_id26(),
                "section": {"id": section},
                "type": "URL",
                "label": "runbook",
                "value": "https://wiki.mindwell.example/runbooks/postgres-rotation",
            },
        ],
    })
}

/// Every change is a new version of the item.
fn touch(item: &mut Value) {
    item["version"] = json!(item["version"].as_u64().unwrap_or_default() + 1);
    item["updatedAt"] = json!(now_text());
}

/// An item as lists show it: without what is inside.
fn summary(item: &Value) -> Value {
    let mut item = item.clone();
    if let Some(map) = item.as_object_mut() {
        for detail in ["fields", "sections", "files"] {
            map.remove(detail);
        }
    }
    item
}

async fn serve(State(service): State<Arc<OnePassword>>, request: Request) -> Response {
    let call = match Call::read(request).await {
        Ok(call) => call,
        Err(response) => return response,
    };
    let segments = call.segments();
    match (call.method.as_str(), segments.as_slice()) {
        ("GET", ["heartbeat"]) => text(200, "."),
        ("GET", ["health"]) => reply(200, health()),
        (_, ["v1", path @ ..]) => {
            let outcome = if call.bearer() == Some(&service.token) {
                service.dispatch(&call, path)
            } else {
                Err(Failure(401, "Invalid token signature".to_owned()))
            };
            outcome.unwrap_or_else(|Failure(status, message)| {
                reply(status, json!({"status": status, "message": message}))
            })
        }
        _ => reply(404, json!({"status": 404, "message": "not found"})),
    }
}

fn health() -> Value {
    json!({
        "name": "1Password Connect API",
        "version": "1.7.2",
        "dependencies": [
            {"service": "sync", "status": "ACTIVE"},
            {"service": "sqlite", "status": "ACTIVE", "message": "Connected to /home/opuser/.op/data/1password.sqlite"},
        ],
    })
}

/// The wanted value of a SCIM filter `attribute eq "value"`, the only kind that Connect knows.
fn filter(call: &Call, attribute: &str) -> Result<Option<String>, Failure> {
    let Some(filter) = call.query("filter").filter(|filter| !filter.is_empty()) else { return Ok(None) };
    let wanted = filter
        .strip_prefix(attribute)
        .and_then(|rest| rest.trim_start().strip_prefix("eq "))
        .and_then(|rest| serde_json::from_str::<String>(rest.trim()).ok());
    wanted.map(Some).ok_or_else(|| Failure(400, "The filter is not valid: only eq is supported".to_owned()))
}

impl OnePassword {
    fn dispatch(&self, call: &Call, path: &[&str]) -> Outcome {
        let mut state = lock(&self.state);
        match (call.method.as_str(), path) {
            ("GET", ["vaults"]) => {
                let wanted = filter(call, "name")?;
                let all = [self.vault_resource(&state)];
                let shown: Vec<&Value> = all
                    .iter()
                    .filter(|vault| wanted.as_ref().is_none_or(|name| vault["name"] == *name))
                    .collect();
                Ok(reply(200, json!(shown)))
            }
            ("GET", ["vaults", vault]) => {
                self.in_scope(vault)?;
                Ok(reply(200, self.vault_resource(&state)))
            }
            ("GET", ["vaults", vault, "items"]) => {
                self.in_scope(vault)?;
                let wanted = filter(call, "title")?;
                // Archived items are there by id but not in lists.
                let shown: Vec<Value> = state
                    .items
                    .iter()
                    .filter(|item| item["state"].is_null())
                    .filter(|item| wanted.as_ref().is_none_or(|title| item["title"] == *title))
                    .map(summary)
                    .collect();
                Ok(reply(200, json!(shown)))
            }
            ("POST", ["vaults", vault, "items"]) => {
                self.in_scope(vault)?;
                writable(&state, vault)?;
                let mut item = self.item_of(call)?;
                item["id"] = json!(random_id26());
                item["version"] = json!(1);
                item["createdAt"] = json!(now_text());
                item["updatedAt"] = item["createdAt"].clone();
                state.items.push(item.clone());
                Ok(reply(200, item))
            }
            ("GET", ["vaults", vault, "items", id]) => {
                self.in_scope(vault)?;
                find(&mut state, id).map(|item| reply(200, item.clone()))
            }
            (method @ ("PATCH" | "PUT" | "DELETE"), ["vaults", vault, "items", id]) => {
                self.in_scope(vault)?;
                writable(&state, vault)?;
                self.change(&mut state, call, method, id)
            }
            _ => Err(Failure(404, "not found".to_owned())),
        }
    }

    fn change(&self, state: &mut Vault, call: &Call, method: &str, id: &str) -> Outcome {
        let item = find(state, id)?;
        match method {
            "PATCH" => {
                let operations = parse(call)?;
                // No operation is no change: neither version nor time.
                if operations.as_array().is_some_and(Vec::is_empty) {
                    return Ok(reply(200, item.clone()));
                }
                patch::apply(item, &operations).map_err(|text| Failure(400, text))?;
                touch(item);
            }
            "PUT" => {
                let mut given = self.item_of(call)?;
                if given["id"] != item["id"] {
                    return Err(Failure(400, "The item doesn't match the item in the path".to_owned()));
                }
                // What the body leaves out is gone, but for what only the server writes.
                for kept in ["createdAt", "version", "lastEditedBy"] {
                    given[kept] = item[kept].clone();
                }
                *item = given;
                touch(item);
            }
            _ => {
                state.items.retain(|item| item["id"] != id);
                return Ok(empty(204));
            }
        }
        Ok(reply(200, item.clone()))
    }

    /// A whole item from the body, its fields with ids.
    fn item_of(&self, call: &Call) -> Result<Value, Failure> {
        let mut item = parse(call)?;
        if item["vault"]["id"] != self.vault.as_str() {
            return Err(Failure(400, "The item doesn't contain the vault of the path".to_owned()));
        }
        if !item["category"].is_string() {
            return Err(Failure(400, "Missing the item's category".to_owned()));
        }
        patch::complete(&mut item).map_err(|text| Failure(400, text))?;
        Ok(item)
    }

    /// The token sees one vault; another one exists, and it may not look at it.
    fn in_scope(&self, vault: &str) -> Result<(), Failure> {
        if vault == self.vault {
            return Ok(());
        }
        let is_id =
            vault.len() == 26 && vault.chars().all(|one| one.is_ascii_lowercase() || one.is_ascii_digit());
        Err(match vault {
            _ if !is_id => Failure(400, "Invalid Vault UUID".to_owned()),
            _ if vault == self.other_vault => Failure(403, format!("vault {vault} is not in scope")),
            _ => Failure(404, format!("vault {vault} not found")),
        })
    }

    fn vault_resource(&self, state: &Vault) -> Value {
        json!({
            "id": self.vault,
            "name": VAULT,
            "description": "",
            "attributeVersion": 1,
            "contentVersion": state.items.iter().filter_map(|item| item["version"].as_u64()).sum::<u64>(),
            "items": state.items.len(),
            "type": "USER_CREATED",
            "createdAt": "2025-03-04T09:10:00Z",
            "updatedAt": "2025-03-04T09:10:00Z",
        })
    }
}

fn writable(state: &Vault, vault: &str) -> Result<(), Failure> {
    if state.read_only {
        return Err(Failure(403, format!("token does not have write access to vault {vault}")));
    }
    Ok(())
}

fn find<'a>(state: &'a mut Vault, id: &str) -> Result<&'a mut Value, Failure> {
    let found = state.items.iter_mut().find(|item| item["id"] == id);
    found.ok_or_else(|| Failure(404, format!("item {id} not found")))
}

fn parse(call: &Call) -> Result<Value, Failure> {
    call.json().map_err(|_| Failure(400, "Invalid JSON in the request body".to_owned()))
}
