//! Connect's variant of JSON Patch: `add`, `remove` and `replace` only, and a field is named by its id where the
//! standard would have its index.

use serde_json::{Value, json};

use super::super::call::random_id26;

/// The types that a field can have.
const TYPES: [&str; 8] = ["STRING", "EMAIL", "CONCEALED", "URL", "TOTP", "DATE", "MONTH_YEAR", "MENU"];

/// The attributes that only the server writes.
const READ_ONLY: [&str; 6] = ["id", "vault", "version", "createdAt", "updatedAt", "lastEditedBy"];

/// Applies all operations or, if one can't be applied, none.
pub(super) fn apply(item: &mut Value, operations: &Value) -> Result<(), String> {
    let operations = operations.as_array().ok_or("The patch must be a list of operations")?;
    let mut changed = item.clone();
    for operation in operations {
        step(&mut changed, operation)?;
    }
    complete(&mut changed)?;
    *item = changed;
    Ok(())
}

/// Gives every field what the server adds, and refuses an item that can't be stored.
pub(super) fn complete(item: &mut Value) -> Result<(), String> {
    let sections: Vec<Value> =
        item["sections"].as_array().into_iter().flatten().map(|section| section["id"].clone()).collect();
    let fields = match &mut item["fields"] {
        Value::Null => return Ok(()),
        Value::Array(fields) => fields,
        _ => return Err("The fields must be a list".to_owned()),
    };
    let mut ids: Vec<String> = Vec::new();
    let mut passwords = 0;
    for field in fields {
        if !field.is_object() {
            return Err("A field must be an object".to_owned());
        }
        if field["id"].as_str().is_none_or(str::is_empty) {
            field["id"] = json!(random_id26());
        }
        let kind = field["type"].as_str().unwrap_or("STRING").to_ascii_uppercase();
        if !TYPES.contains(&kind.as_str()) {
            return Err(format!("The field type {kind} is not known"));
        }
        field["type"] = json!(kind);
        let id = field["id"].as_str().unwrap_or_default().to_owned();
        if ids.contains(&id) {
            return Err(format!("The field id {id} is used twice"));
        }
        ids.push(id);
        passwords += usize::from(field["purpose"] == "PASSWORD");
        let section = &field["section"]["id"];
        if !section.is_null() && !sections.contains(section) {
            return Err("A field refers to a section that doesn't exist".to_owned());
        }
    }
    if passwords > 1 {
        return Err("You can only use one \"password\" field.".to_owned());
    }
    Ok(())
}

fn step(item: &mut Value, operation: &Value) -> Result<(), String> {
    let kind = operation["op"].as_str().unwrap_or_default();
    if !matches!(kind, "add" | "remove" | "replace") {
        return Err(format!("The operation {kind:?} is not supported"));
    }
    let path = operation["path"].as_str().ok_or("An operation has no path")?;
    let path = path.strip_prefix('/').ok_or_else(|| format!("The path {path:?} is not a JSON pointer"))?;
    let steps: Vec<String> = path.split('/').map(|step| step.replace("~1", "/").replace("~0", "~")).collect();
    let steps: Vec<&str> = steps.iter().map(String::as_str).collect();
    let value = operation.get("value").cloned();
    if kind != "remove" && value.is_none() {
        return Err("An operation has no value".to_owned());
    }
    let value = value.unwrap_or(Value::Null);
    match steps.as_slice() {
        [""] => replace_item(item, kind, value),
        [name, ..] if READ_ONLY.contains(name) => Err(format!("The attribute {name} can't be changed")),
        // Adding to a list without saying where appends to it.
        [list @ ("fields" | "sections" | "urls" | "tags")] if kind == "add" && !value.is_array() => {
            if !item[*list].is_array() {
                item[*list] = json!([]);
            }
            let entries = item[*list].as_array_mut().ok_or("The list is none")?;
            entries.push(value);
            Ok(())
        }
        [name] => in_object(item, kind, name, value),
        [list @ ("fields" | "sections"), id] => entry(item, list, kind, id, value),
        [list @ ("fields" | "sections"), id, attribute] => {
            let found = item[*list].as_array_mut().into_iter().flatten().find(|entry| entry["id"] == *id);
            in_object(found.ok_or_else(|| format!("{list} has no {id}"))?, kind, attribute, value)
        }
        [list @ ("urls" | "tags"), index] => in_list(&mut item[*list], kind, index, value),
        _ => Err(format!("The path /{path} is not known")),
    }
}

/// The whole item, as PUT would.
fn replace_item(item: &mut Value, kind: &str, value: Value) -> Result<(), String> {
    let Value::Object(given) = value else { return Err("An item must be an object".to_owned()) };
    if kind != "replace" {
        return Err("The whole item can only be replaced".to_owned());
    }
    let mut whole = Value::Object(given);
    for name in READ_ONLY {
        whole[name] = item[name].clone();
    }
    if whole["category"].is_null() {
        whole["category"] = item["category"].clone();
    }
    *item = whole;
    Ok(())
}

fn in_object(target: &mut Value, kind: &str, name: &str, value: Value) -> Result<(), String> {
    let map = target.as_object_mut().ok_or("The path leads through a value")?;
    if kind == "remove" {
        return map.remove(name).map(drop).ok_or_else(|| format!("There is no {name} to remove"));
    }
    map.insert(name.to_owned(), value);
    Ok(())
}

fn entry(item: &mut Value, list: &str, kind: &str, id: &str, mut value: Value) -> Result<(), String> {
    if !item[list].is_array() {
        item[list] = json!([]);
    }
    let entries = item[list].as_array_mut().ok_or("The list is none")?;
    let found = entries.iter().position(|entry| entry["id"] == id);
    let missing = || format!("{list} has no {id}");
    if kind == "remove" {
        entries.remove(found.ok_or_else(missing)?);
        return Ok(());
    }
    if !value.is_object() {
        return Err(format!("An entry of {list} must be an object"));
    }
    value["id"] = json!(id);
    match found {
        Some(at) => entries[at] = value,
        None if kind == "add" => entries.push(value),
        None => return Err(missing()),
    }
    Ok(())
}

fn in_list(list: &mut Value, kind: &str, index: &str, value: Value) -> Result<(), String> {
    let entries = list.as_array_mut().ok_or("The list is none")?;
    let at = if index == "-" { Ok(entries.len()) } else { index.parse::<usize>() };
    let at = at.map_err(|_| format!("{index:?} is no index"))?;
    match kind {
        "add" if at <= entries.len() => entries.insert(at, value),
        "replace" if at < entries.len() => entries[at] = value,
        "remove" if at < entries.len() => drop(entries.remove(at)),
        _ => return Err(format!("There is no entry {index}")),
    }
    Ok(())
}
