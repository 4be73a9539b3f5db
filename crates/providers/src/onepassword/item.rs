//! One item as a document: where the versions of the password stand in it, the patch that
//! brings it where it shall be, and the proof that nothing else has changed.

use std::borrow::Cow;

use jiff::Timestamp;
use pgrotate_core::provider::{Entry, VaultState};
use pgrotate_core::{Error, Kind, Result, RunId, Secret, VersionId};
use serde_json::{Value, json};
use zeroize::{Zeroize, Zeroizing};

/// A place in an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Slot {
    /// The item's own password field.
    Password,
    /// The item's own username field, or one of ours where it has none: whose the current password is.
    User,
    /// The run that made the current password.
    Run,
    /// What a run has staged. Its name is part of the label: Connect writes without a condition, so a patch that
    /// arrives late adds a field of its own beside what has been staged since, and each still tells whose it is.
    Pending(RunId),
    /// The password before.
    Previous,
    /// The run that had made it.
    PreviousRun,
}

/// The slots of one field each that pgrotate adds to an item.
const OWN: [Slot; 4] = [Slot::User, Slot::Run, Slot::Previous, Slot::PreviousRun];
/// The beginning of the labels of what is staged.
const PENDING: &str = "pgrotate pending";

/// What makes a field what it is. The rest (entropy, a one-time code) moves by itself.
const FIELD_KEYS: [&str; 6] = ["id", "section", "type", "purpose", "label", "value"];
/// What makes an item what it is, beside its fields and sections.
const ITEM_KEYS: [&str; 7] = ["id", "title", "category", "vault", "urls", "tags", "files"];

impl Slot {
    /// The label by which a slot of ours is found: ids are given by the server.
    pub(super) fn label(self) -> Cow<'static, str> {
        match self {
            Self::Password => "the password field".into(),
            Self::User => "pgrotate user".into(),
            Self::Run => "pgrotate run".into(),
            Self::Pending(run) => format!("{PENDING} {run}").into(),
            Self::Previous => "pgrotate previous".into(),
            Self::PreviousRun => "pgrotate previous run".into(),
        }
    }

    fn kind(self) -> &'static str {
        match self {
            Self::Password | Self::Pending(_) | Self::Previous => "CONCEALED",
            Self::User | Self::Run | Self::PreviousRun => "STRING",
        }
    }

    /// A new field of this slot.
    fn field(self, value: &Secret) -> Value {
        json!({"label": self.label(), "type": self.kind(), "value": value.expose()})
    }

    /// Whether this label is one of ours.
    pub(super) fn is_own_label(label: &str) -> bool {
        label.starts_with(PENDING) || OWN.iter().any(|slot| slot.label() == label)
    }
}

/// What a slot shall hold; `None` for nothing.
pub(super) type Goal = (Slot, Option<Secret>);

/// An item with all its fields. Wiped when dropped.
pub(super) struct Item {
    document: Value,
    /// Which field is the password, as configured: an id or a label.
    choice: Option<String>,
}

impl Drop for Item {
    fn drop(&mut self) {
        wipe(&mut self.document);
    }
}

/// Overwrites every text of a document.
pub(super) fn wipe(value: &mut Value) {
    match value {
        Value::String(text) => text.zeroize(),
        Value::Array(values) => values.iter_mut().for_each(wipe),
        Value::Object(map) => map.values_mut().for_each(wipe),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

impl Item {
    /// Takes a document into custody.
    pub(super) fn new(document: Value, choice: Option<String>) -> Self {
        Self { document, choice }
    }

    /// Where the item is in its life: absent while it is in use.
    pub(super) fn state(&self) -> Option<&str> {
        self.document["state"].as_str().filter(|state| !state.is_empty())
    }

    /// The item's version.
    pub(super) fn version(&self) -> Option<VersionId> {
        self.document["version"].as_i64().map(|version| VersionId::new(version.to_string()))
    }

    fn updated_at(&self) -> Option<Timestamp> {
        // Connect's name for it, and the CLI's.
        let at = ["updatedAt", "updated_at"].iter().find_map(|key| self.document[*key].as_str())?;
        at.parse().ok()
    }

    /// What sort of item it is.
    pub(super) fn category(&self) -> Option<&str> {
        self.document["category"].as_str()
    }

    /// Whether it shows a passkey; that it shows none does not say that it has none.
    pub(super) fn has_passkey(&self) -> bool {
        fn anywhere(value: &Value) -> bool {
            let tells = |(key, value): (&String, &Value)| {
                let named = matches!(key.as_str(), "id" | "type" | "purpose")
                    && value.as_str().is_some_and(|text| text.eq_ignore_ascii_case("passkey"));
                (key.eq_ignore_ascii_case("passkey") && settled(value).is_some()) || named || anywhere(value)
            };
            match value {
                Value::Object(map) => map.iter().any(tells),
                Value::Array(values) => values.iter().any(anywhere),
                _ => false,
            }
        }
        anywhere(&self.document)
    }

    /// The whole item as JSON.
    pub(super) fn text(&self) -> Zeroizing<Vec<u8>> {
        // Reserved beforehand: a buffer that grows leaves copies of secrets behind.
        let mut text = Zeroizing::new(Vec::with_capacity(256 << 10));
        serde_json::to_writer(&mut *text, &self.document).expect("a document read from JSON is JSON");
        text
    }

    fn fields(&self) -> &[Value] {
        self.document["fields"].as_array().map_or(&[], Vec::as_slice)
    }

    /// The fields of a slot: at most one, but for what a run has staged.
    ///
    /// # Errors
    /// When more than one could be meant, or the password field is missing.
    fn fields_of(&self, slot: Slot) -> Result<Vec<&Value>> {
        if slot == Slot::Password {
            return self.password_field().map(|field| vec![field]);
        }
        if slot == Slot::User
            && let Some(field) = self.username_field()
        {
            return Ok(vec![field]);
        }
        let label = slot.label();
        let fields: Vec<&Value> = self.fields().iter().filter(|field| field["label"] == *label).collect();
        if fields.len() > 1 && !matches!(slot, Slot::Pending(_)) {
            return Err(Error::new(Kind::Ambiguous, format!("find the field \"{label}\""))
                .because("the item has more than one of this label")
                .hint("somebody copied it; remove the wrong one in 1Password"));
        }
        Ok(fields)
    }

    /// The one that 1Password marks as the username; items of the category Database have one of that id.
    fn username_field(&self) -> Option<&Value> {
        let marked = self.fields().iter().find(|field| field["purpose"] == "USERNAME");
        marked.or_else(|| self.fields().iter().find(|field| field["id"] == "username"))
    }

    fn password_field(&self) -> Result<&Value> {
        let refuse = |kind, why: &str| {
            Err(Error::new(kind, "find the item's password field").because(why.to_owned()).hint(format!(
                "name its id or label in the configuration: field = \"…\"; hidden fields there are: {}",
                self.concealed()
            )))
        };
        let Some(choice) = &self.choice else {
            let marked = self.fields().iter().filter(|field| field["purpose"] == "PASSWORD");
            return match marked.collect::<Vec<_>>()[..] {
                [field] => Ok(field),
                [] => refuse(Kind::NotFound, "the item has no field that 1Password marks as its password"),
                _ => refuse(Kind::Ambiguous, "1Password marks more than one field as the password"),
            };
        };
        if let Some(field) = self.fields().iter().find(|field| field["id"] == choice.as_str()) {
            return Ok(field);
        }
        match self.fields().iter().filter(|field| field["label"] == choice.as_str()).collect::<Vec<_>>()[..] {
            [field] => Ok(field),
            [] => refuse(Kind::NotFound, "the item has no field of the configured id or label"),
            _ => refuse(Kind::Ambiguous, "the item has more than one field of the configured label"),
        }
    }

    /// The labels of the hidden fields that are not ours.
    fn concealed(&self) -> String {
        let hidden = self.fields().iter().filter(|field| field["type"] == "CONCEALED");
        let labels: Vec<_> = hidden
            .filter_map(|field| field["label"].as_str())
            .filter(|label| !Slot::is_own_label(label))
            .collect();
        if labels.is_empty() { "none".to_owned() } else { labels.join(", ") }
    }

    fn value(&self, slot: Slot) -> Result<Option<Secret>> {
        Ok(self.fields_of(slot)?.into_iter().find_map(held))
    }

    fn entry(&self, password: Slot, run: Slot) -> Result<Option<Entry>> {
        let run = self.value(run)?.and_then(|run| run.expose().parse::<RunId>().ok());
        Ok(self.value(password)?.map(|secret| Entry { secret, run }))
    }

    /// What runs have staged.
    fn pending(&self) -> Vec<Entry> {
        let entry = |field: &Value| {
            let run = field["label"].as_str()?.strip_prefix(PENDING)?.trim();
            Some(Entry { secret: held(field)?, run: run.parse().ok() })
        };
        self.fields().iter().filter_map(entry).collect()
    }

    /// What the item holds for the role.
    ///
    /// # Errors
    /// When a field can't be told from another.
    pub(super) fn read(&self) -> Result<VaultState> {
        Ok(VaultState {
            current: self.entry(Slot::Password, Slot::Run)?,
            pending: self.pending(),
            previous: self.entry(Slot::Previous, Slot::PreviousRun)?,
            user: self.value(Slot::User)?.map(|user| user.expose().to_owned()),
            version: self.version(),
            updated_at: self.updated_at(),
        })
    }

    /// The JSON Patch that reaches the goals, in their order; empty if they are reached.
    ///
    /// # Errors
    /// When a field can't be told from another, or has no id.
    pub(super) fn patch(&self, goals: &[Goal]) -> Result<Patch> {
        let mut operations = Vec::new();
        for (slot, goal) in goals {
            let fields = self.fields_of(*slot)?;
            let id = |field: &Value| match field["id"].as_str() {
                Some(id) => Ok(id.to_owned()),
                None => Err(Error::new(Kind::Corrupt, format!("change \"{}\"", slot.label()))
                    .because("1Password shows the field without an id")),
            };
            let Some(goal) = goal else {
                for field in fields {
                    operations.push(json!({"op": "remove", "path": pointer(&id(field)?, "")}));
                }
                continue;
            };
            if fields.iter().any(|field| field["value"] == goal.expose()) {
                continue;
            }
            operations.push(match (slot, &fields[..]) {
                // `replace` needs a value to be there, and 1Password leaves empty ones out.
                (
                    Slot::Password | Slot::User | Slot::Run | Slot::Previous | Slot::PreviousRun,
                    [field, ..],
                ) => {
                    let op = if field["value"].is_string() { "replace" } else { "add" };
                    json!({"op": op, "path": pointer(&id(field)?, "/value"), "value": goal.expose()})
                }
                // What is staged comes beside what is there: that may be what the server has.
                _ => json!({"op": "add", "path": "/fields", "value": slot.field(goal)}),
            });
        }
        Ok(Patch(Value::Array(operations)))
    }

    /// The whole item as it shall be.
    ///
    /// # Errors
    /// When a field can't be told from another.
    pub(super) fn edited(&self, goals: &[Goal]) -> Result<Self> {
        let mut edited = Self::new(self.document.clone(), self.choice.clone());
        for (slot, goal) in goals {
            let ids: Vec<&Value> = self.fields_of(*slot)?.iter().map(|field| &field["id"]).collect();
            let Value::Array(fields) = &mut edited.document["fields"] else {
                return Err(Error::new(Kind::Corrupt, format!("change \"{}\"", slot.label()))
                    .because("1Password shows the item without fields"));
            };
            let own = |field: &&mut Value| ids.contains(&&field["id"]);
            match goal {
                None => fields.retain_mut(|field| {
                    let goes = own(&field);
                    if goes {
                        wipe(field);
                    }
                    !goes
                }),
                Some(goal) => match fields.iter_mut().find(own) {
                    Some(field) => field["value"] = goal.expose().into(),
                    None => fields.push(slot.field(goal)),
                },
            }
        }
        Ok(edited)
    }

    /// What another document of this item has not, or has otherwise: a field, a section, a file.
    /// Values are not compared: who previews a change may hide them.
    pub(super) fn lost_in(&self, other: &Value) -> Option<String> {
        for key in ["title", "category", "urls", "tags", "files"] {
            if settled(&self.document[key]) != settled(&other[key]) {
                return Some(format!("the item's {key}"));
            }
        }
        let sections = list(&other["sections"]);
        if list(&self.document["sections"])
            .iter()
            .any(|own| sections.iter().all(|one| one["id"] != own["id"]))
        {
            return Some("a section".to_owned());
        }
        let alike = |old: &Value, new: &Value| {
            let same =
                |key: &str| key == "section" || key == "value" || settled(&old[key]) == settled(&new[key]);
            FIELD_KEYS.iter().all(|key| same(key)) && old["section"]["id"] == new["section"]["id"]
        };
        let lost = self.fields().iter().find(|old| !list(&other["fields"]).iter().any(|new| alike(old, new)));
        lost.map(|field| format!("the field \"{}\"", name_of(field)))
    }

    /// What is not as it was asked for: a goal that was missed, or something beside the goals
    /// that has changed. Names fields by label, never by value.
    ///
    /// # Errors
    /// When a field can't be told from another.
    pub(super) fn deviation(&self, before: &Self, goals: &[Goal]) -> Result<Option<String>> {
        for (slot, goal) in goals {
            let now = self.fields_of(*slot)?;
            let reached = match goal {
                Some(goal) => now.iter().any(|field| field["value"] == goal.expose()),
                // What arrives at the same moment is a matter for the next look.
                None => {
                    before.fields_of(*slot)?.iter().all(|old| now.iter().all(|new| new["id"] != old["id"]))
                }
            };
            if !reached {
                return Ok(Some(format!("\"{}\" is not what was written", slot.label())));
            }
        }
        for key in ITEM_KEYS {
            if settled(&self.document[key]) != settled(&before.document[key]) {
                return Ok(Some(format!("the item's {key} changed")));
            }
        }
        let gone = |section: &Value| !list(&self.document["sections"]).contains(section);
        // One without a name goes and comes with the fields that are in none.
        let named = |section: &Value| settled(&section["label"]).is_some();
        if list(&before.document["sections"]).iter().any(|section| named(section) && gone(section)) {
            return Ok(Some("a section changed".to_owned()));
        }
        self.changed_field(before, goals)
    }

    fn changed_field(&self, before: &Self, goals: &[Goal]) -> Result<Option<String>> {
        let is_goal = |field: &Value| {
            let own = |slot: &Slot| *slot != Slot::Password && field["label"] == *slot.label();
            goals.iter().any(|(slot, _)| own(slot))
        };
        let has_goal = |slot: Slot| goals.iter().any(|(own, _)| *own == slot);
        let password = before.password_field()?;
        let password = has_goal(Slot::Password).then_some(&password["id"]);
        let username = before.username_field().filter(|_| has_goal(Slot::User)).map(|field| &field["id"]);
        let alike = |old: &Value, new: &Value| {
            let is = |id: Option<&Value>| id.is_some_and(|id| old["id"] == *id);
            let written = |key: &str| key == "value" && (is(password) || is(username));
            FIELD_KEYS.iter().all(|key| written(key) || settled(&old[*key]) == settled(&new[*key]))
        };
        fn others<'i>(item: &'i Item, is_goal: &impl Fn(&Value) -> bool) -> Vec<&'i Value> {
            item.fields().iter().filter(|field| !is_goal(field)).collect()
        }
        let (old, new) = (others(before, &is_goal), others(self, &is_goal));
        let gone = old.iter().find(|old| !new.iter().any(|new| alike(old, new)));
        let gone = gone.map(|field| format!("the field \"{}\" changed", name_of(field)));
        Ok(gone.or_else(|| (new.len() != old.len()).then(|| "a field came or went".to_owned())))
    }
}

/// What stands in a field.
fn held(field: &Value) -> Option<Secret> {
    field["value"].as_str().filter(|text| !text.is_empty()).map(Secret::new)
}

/// An absent attribute and an empty one are the same to 1Password.
fn settled(value: &Value) -> Option<&Value> {
    let empty = match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Array(values) => values.is_empty(),
        Value::Object(map) => map.is_empty(),
        Value::Bool(true) | Value::Number(_) => false,
    };
    (!empty).then_some(value)
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn name_of(field: &Value) -> &str {
    field["label"].as_str().or_else(|| field["id"].as_str()).unwrap_or("without a name")
}

/// The JSON Pointer of a field, which Connect addresses by id and not by place.
fn pointer(id: &str, rest: &str) -> String {
    format!("/fields/{}{rest}", id.replace('~', "~0").replace('/', "~1"))
}

/// A JSON Patch. Wiped when dropped.
pub(super) struct Patch(Value);

impl Patch {
    /// The patch that changes nothing.
    pub(super) fn nothing() -> Self {
        Self(json!([]))
    }

    /// Whether it changes nothing.
    pub(super) fn is_empty(&self) -> bool {
        list(&self.0).is_empty()
    }

    /// The document to send.
    pub(super) fn document(&self) -> &Value {
        &self.0
    }
}

impl Drop for Patch {
    fn drop(&mut self) {
        wipe(&mut self.0);
    }
}
