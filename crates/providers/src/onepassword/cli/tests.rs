//! Against a stand-in that behaves as the CLI's documentation says, and shares no code with this.

use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use pgrotate_core::provider::Vault;
use pgrotate_core::{Retry, RunId, VersionId};
use serde_json::json;

use super::super::{Onepassword, Options};
use super::*;
use crate::fake::{OTHER_RUN, run, shared};
use crate::shared::{OnepasswordSettings, OnepasswordVia, Vendors};

const VAULT: &str = "vvvvvvvvvvvvvvvvvvvvvvvvvv";
const ITEM: &str = "iiiiiiiiiiiiiiiiiiiiiiiiii";
const TITLE: &str = "MindWell dev Postgres Admin";
const LATER: Retry = Retry::Later { after_ms: None };

/// An account with one vault and one item, kept in a file.
struct World {
    folder: tempfile::TempDir,
    token: String,
}

fn item() -> Value {
    json!({
        "id": ITEM, "title": TITLE, "category": "DATABASE", "vault": {"id": VAULT, "name": "MindWell"},
        "version": 7, "tags": ["mindwell"], "urls": [{"primary": true, "href": "https://portal.azure.com"}],
        "created_at": "2025-01-01T00:00:00Z", "updated_at": "2025-06-01T00:00:00Z",
        "last_edited_by": "LKXQ5SJQYVGJBKCF4A6TSYFYPU",
        "sections": [{"id": "s1", "label": "Extra"}],
        "fields": [
            {"id": "username", "type": "STRING", "purpose": "USERNAME", "label": "username", "value": "mindwelladmin"},
            {"id": "password", "type": "CONCEALED", "purpose": "PASSWORD", "label": "password", "value": "old-canary",
             "password_details": {"strength": "FANTASTIC"}},
            {"id": "notesPlain", "type": "STRING", "purpose": "NOTES", "label": "notesPlain"},
            {"id": "otp", "type": "OTP", "label": "one-time", "value": "otpauth://x", "totp": "123456"},
            {"id": "f3", "section": {"id": "s1", "label": "Extra"}, "type": "CONCEALED", "label": "root key",
             "value": "untouched-canary"},
        ],
    })
}

impl World {
    fn new(item: Value) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let claims = json!({"state": folder.path().join("state.json"), "key": "k"});
        let token = format!("ops_{}", URL_SAFE_NO_PAD.encode(claims.to_string()));
        let world = Self { folder, token };
        world.write(&json!({
            "key": "k",
            "vaults": [{"id": VAULT, "name": "MindWell", "access": "write"},
                       {"id": "wwwwwwwwwwwwwwwwwwwwwwwwww", "name": "Other", "access": "read"}],
            "items": [item],
            "limits": {"read": 1000, "write": 100},
        }));
        world
    }

    fn write(&self, state: &Value) {
        std::fs::write(self.folder.path().join("state.json"), state.to_string()).unwrap();
    }

    fn state(&self) -> Value {
        serde_json::from_slice(&std::fs::read(self.folder.path().join("state.json")).unwrap()).unwrap()
    }

    /// Changes something in the account.
    fn set(&self, pointer: &str, value: Value) {
        let mut state = self.state();
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        state.pointer_mut(parent).unwrap()[key] = value;
        self.write(&state);
    }

    fn fault(&self, when: &str, kind: &str, text: &str) {
        let fault = json!({"command": "item edit", "when": when, "kind": kind, "text": text});
        self.set("/faults", json!([fault]));
    }

    fn vault_with(&self, credentials: &str, item: &str) -> Onepassword {
        let vendors = Vendors {
            onepassword: OnepasswordSettings { via: Some(OnepasswordVia::Cli), connect: None },
            ..Vendors::default()
        };
        let options = Options { vault: "MindWell".into(), item: item.into(), field: None };
        let mut vault = Onepassword::new(None, options, shared(vendors, credentials)).unwrap();
        vault.op = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../sandbox/stand-ins/op");
        vault.op = vault.op.canonicalize().unwrap();
        vault
    }

    fn vault(&self) -> Onepassword {
        self.vault_with(&format!("OP_SERVICE_ACCOUNT_TOKEN={}", self.token), TITLE)
    }

    fn field(&self, label: &str) -> Option<String> {
        let state = self.state();
        let field =
            state["items"][0]["fields"].as_array().unwrap().iter().find(|field| field["label"] == label)?;
        field["value"].as_str().map(str::to_owned)
    }

    fn calls(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.folder.path().join("state.json.calls")).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn edits(&self) -> usize {
        let is_edit =
            |call: &Value| call["argv"][1] == "edit" && !call["argv"].to_string().contains("--dry-run");
        self.calls().iter().filter(|call| is_edit(call)).count()
    }
}

fn pending() -> String {
    format!("pgrotate pending {}", run())
}

#[tokio::test]
async fn a_password_is_staged_then_promoted_and_nothing_shows_it() {
    let world = World::new(item());
    let vault = world.vault();
    let before = world.state()["items"][0].clone();
    vault.stage(run(), &Secret::new("new-canary")).await.unwrap();
    let state = vault.read().await.unwrap();
    assert_eq!(state.pending[0].secret, Secret::new("new-canary"));
    assert_eq!(state.current.unwrap().secret, Secret::new("old-canary"));
    assert_eq!(state.version, Some(VersionId::from("8")));
    assert!(state.updated_at.is_some());

    assert_eq!(
        vault.promote(run(), &Secret::new("new-canary"), None).await.unwrap(),
        Some(VersionId::from("9"))
    );
    let state = vault.read().await.unwrap();
    let (current, previous) = (state.current.unwrap(), state.previous.unwrap());
    assert_eq!((current.secret, current.run), (Secret::new("new-canary"), Some(run())));
    assert_eq!(previous.secret, Secret::new("old-canary"));
    assert!(state.pending.is_empty() && world.field(&pending()).is_none());

    let after = world.state()["items"][0].clone();
    for key in ["id", "title", "category", "vault", "tags", "urls"] {
        assert_eq!(before[key], after[key], "{key}");
    }
    for at in [0, 2, 4] {
        assert_eq!(before["fields"][at]["value"], after["fields"][at]["value"]);
    }
    let calls = world.calls();
    assert_eq!(world.edits(), 2);
    for call in &calls {
        assert_eq!(call["leak"], false, "{call}");
        assert_eq!(call["cache"], "false", "what another process changed would not be seen");
        let names = call["environment"].as_array().unwrap();
        let own: Vec<&str> =
            names.iter().filter_map(Value::as_str).filter(|name| name.starts_with("OP_")).collect();
        assert_eq!(own, ["OP_CACHE", "OP_SERVICE_ACCOUNT_TOKEN"]);
        assert!(!names.iter().any(|name| name.as_str().unwrap().starts_with("CARGO")), "{names:?}");
        assert_eq!(call["stdin"], call["argv"][1] == "edit");
        let of_item = call["argv"][0] == "item";
        assert_eq!(of_item, call["argv"].as_array().unwrap().contains(&json!("--vault")), "{call}");
    }
    assert_eq!(calls.iter().filter(|call| call["argv"][0] == "--version").count(), 1);
    assert_eq!(calls.iter().filter(|call| call["argv"][1] == "list").count(), 2, "found once");
}

#[tokio::test]
async fn a_repeat_writes_nothing_and_another_runs_password_is_left_alone() {
    let world = World::new(item());
    let vault = world.vault();
    let (secret, other): (_, RunId) = (Secret::new("new"), OTHER_RUN.parse().unwrap());
    vault.stage(run(), &secret).await.unwrap();
    vault.stage(run(), &secret).await.unwrap();
    assert_eq!(vault.stage(other, &secret).await.unwrap_err().kind(), Kind::Conflict);
    vault.discard(other).await.unwrap();
    assert_eq!(world.edits(), 1);
    vault.discard(run()).await.unwrap();
    assert_eq!((world.edits(), world.field(&pending())), (2, None));
    vault.stage(other, &secret).await.unwrap();
    vault.promote(other, &secret, None).await.unwrap();
    vault.promote(other, &secret, None).await.unwrap();
    assert_eq!(world.edits(), 4);
}

#[tokio::test]
async fn one_that_is_killed_after_its_write_is_found_by_the_next_try() {
    let world = World::new(item());
    let vault = world.vault();
    let secret = Secret::new("new-canary");
    world.fault("before", "kill", "");
    let error = vault.stage(run(), &secret).await.unwrap_err();
    assert_eq!((error.kind(), error.retry()), (Kind::BadState, Retry::Unknown));
    assert_eq!(world.field(&pending()), None);
    vault.stage(run(), &secret).await.unwrap();
    world.fault("after", "kill", "");
    assert_eq!(vault.promote(run(), &secret, None).await.unwrap_err().retry(), Retry::Unknown);
    let edits = world.edits();
    assert_eq!(vault.promote(run(), &secret, None).await.unwrap(), Some(VersionId::from("9")));
    assert_eq!(world.edits(), edits, "it had happened");
    assert_eq!(world.field("pgrotate previous").as_deref(), Some("old-canary"));
}

#[tokio::test]
async fn a_change_beside_ours_is_noticed_and_named_without_values() {
    let world = World::new(item());
    world.fault("after", "somebody", "4");
    let error = world.vault().stage(run(), &Secret::new("new-canary")).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Conflict);
    assert!(error.to_string().contains("the field \"root key\" changed"), "{error}");
    assert!(!format!("{error:?}").contains("canary"));
}

#[tokio::test]
async fn the_check_writes_nothing_and_says_what_it_can_not_see() {
    let world = World::new(item());
    let findings = world.vault().check().await.unwrap().findings;
    let severities: Vec<_> = findings.iter().map(|found| found.severity).collect();
    assert_eq!(severities, [Severity::Unseen], "{findings:?}");
    assert!(findings[0].what.contains("may write"), "{findings:?}");
    assert_eq!((world.edits(), world.state()["items"][0]["version"].as_u64()), (0, Some(7)));

    world.set("/items/0/category", json!("LOGIN"));
    let findings = world.vault().check().await.unwrap().findings;
    assert!(findings[0].severity == Severity::Unseen && findings[0].what.contains("passkey"), "{findings:?}");
}

#[tokio::test]
async fn a_passkey_is_not_destroyed() {
    for place in ["/items/0/passkey", "/items/0/fields/2/id"] {
        let world = World::new(item());
        world.set(place, if place.ends_with("id") { json!("passkey") } else { json!({"username": "u"}) });
        let vault = world.vault();
        let findings = vault.check().await.unwrap().findings;
        let blocks =
            findings.iter().any(|found| found.severity == Severity::Blocks && found.what.contains("passkey"));
        assert!(blocks, "{place}: {findings:?}");
        let error = vault.stage(run(), &Secret::new("new")).await.unwrap_err();
        assert_eq!((error.kind(), error.retry()), (Kind::BadState, Retry::Never));
        assert!(error.hints()[0].contains("via = \"connect\""));
        assert_eq!(world.edits(), 0);
    }
}

#[tokio::test]
async fn what_a_write_would_lose_stops_the_run() {
    // The stand-in, like any template, knows no field without a section under this id.
    let world = World::new(item());
    world.set("/items/0/fields/2/id", json!(""));
    let findings = world.vault().check().await.unwrap().findings;
    let blocks = |found: &Finding| found.severity == Severity::Blocks && found.what.contains("notesPlain");
    assert!(findings.iter().any(blocks), "{findings:?}");
}

#[tokio::test]
async fn a_service_account_that_may_only_read_is_told_so() {
    let world = World::new(item());
    world.set("/vaults/0/access", json!("read"));
    let vault = world.vault();
    vault.check().await.unwrap();
    let error = vault.stage(run(), &Secret::new("new-canary")).await.unwrap_err();
    assert_eq!((error.kind(), error.retry()), (Kind::Forbidden, Retry::Never));
    assert!(error.to_string().contains("only the right to read"), "{error}");
    assert!(error.hints()[0].contains("write_items"), "{error:?}");
    world.set("/vaults/0/access", json!("write"));
    world.fault("before", "say", "Couldn't update the item.");
    assert_eq!(vault.stage(run(), &Secret::new("new")).await.unwrap_err().kind(), Kind::Forbidden);
}

#[tokio::test]
async fn titles_and_archives_are_told_apart() {
    let world = World::new(item());
    let mut twin = item();
    twin["id"] = json!("jjjjjjjjjjjjjjjjjjjjjjjjjj");
    let mut state = world.state();
    state["items"].as_array_mut().unwrap().push(twin);
    world.write(&state);
    let error = world.vault().read().await.unwrap_err();
    assert_eq!(error.kind(), Kind::Ambiguous);
    assert!(error.to_string().contains(ITEM) && error.to_string().contains("jjjj"), "{error}");
    world.set("/items/1/state", json!("ARCHIVED"));
    world.vault().read().await.unwrap();
    world.set("/items/0/state", json!("ARCHIVED"));
    assert_eq!(world.vault().check().await.unwrap_err().kind(), Kind::BadState, "found by title");
    let by_id = world.vault_with(&format!("OP_SERVICE_ACCOUNT_TOKEN={}", world.token), ITEM);
    let findings = by_id.check().await.unwrap().findings;
    assert!(
        findings.iter().any(|found| found.severity == Severity::Blocks && found.what.contains("archived"))
    );
    let lost =
        world.vault_with(&format!("OP_SERVICE_ACCOUNT_TOKEN={}", world.token), "zzzzzzzzzzzzzzzzzzzzzzzzzz");
    let error = lost.read().await.unwrap_err();
    assert_eq!((error.kind(), error.retry()), (Kind::NotFound, Retry::Never));
}

#[tokio::test]
async fn tokens_and_versions_are_judged() {
    let world = World::new(item());
    let claims = json!({"state": world.folder.path().join("state.json"), "key": "revoked"});
    let revoked = format!("ops_{}", URL_SAFE_NO_PAD.encode(claims.to_string()));
    for token in ["ops_torn-canary", "'quoted-canary'", &revoked] {
        let vault = world.vault_with(&format!("OP_SERVICE_ACCOUNT_TOKEN={token}"), TITLE);
        let error = vault.check().await.unwrap_err();
        assert_eq!((error.kind(), error.retry()), (Kind::Unauthenticated, Retry::Never), "{token}");
        assert!(error.to_string().contains("OP_SERVICE_ACCOUNT_TOKEN"), "{error}");
        assert!(!format!("{error:?}").contains("canary"));
    }
    for (version, expected) in [
        ("2.17.0", Some("version 2.17")),
        ("1.12.9", Some("version 1.12")),
        ("2.18.0-beta.01", None),
        ("3.0.0", None),
        ("hello", Some("does not answer")),
    ] {
        world.set("/version", json!(version));
        let error = world.vault().read().await.err().map(|error| error.to_string());
        assert_eq!(error.is_some(), expected.is_some(), "{version}: {error:?}");
        assert!(error.is_none_or(|error| error.contains(expected.unwrap())), "{version}");
    }
    let mut nowhere = world.vault();
    nowhere.op = PathBuf::from("no-such-op");
    let error = nowhere.read().await.unwrap_err();
    assert!(error.to_string().contains("no program op") && error.hints()[0].contains("2.18"), "{error:?}");
}

#[tokio::test]
async fn allowances_are_seen_before_and_waited_for() {
    let world = World::new(item());
    for (limits, severity, text) in [
        (
            json!({"read": 5000, "write": 15}),
            Severity::Warning,
            "may write only 15 more times, of 100 requests an hour",
        ),
        (json!({"read": 60, "write": 100}), Severity::Blocks, "may read only"),
        (
            json!({"read": 900, "write": 90, "account": 50}),
            Severity::Blocks,
            "read and write only 50 more times",
        ),
    ] {
        world.set("/limits", limits);
        let findings = world.vault().check().await.unwrap().findings;
        let found =
            findings.iter().find(|found| found.what.contains(text)).unwrap_or_else(|| panic!("{findings:?}"));
        assert_eq!((found.severity, found.mend.as_deref()), (severity, Some("wait 58 minutes")));
    }
    let vault = world.vault();
    vault.read().await.unwrap();
    world.set("/limits", json!({"read": 0, "write": 0}));
    let error = vault.stage(run(), &Secret::new("new")).await.unwrap_err();
    assert_eq!((error.kind(), error.retry()), (Kind::Throttled, Retry::Later { after_ms: Some(3_480_000) }));
}

#[tokio::test]
async fn trouble_on_the_way_is_unknown_to_a_writer_and_passing_to_a_reader() {
    let world = World::new(item());
    let vault = world.vault();
    vault.read().await.unwrap();
    for (text, kind) in [
        ("dial tcp: lookup my.1password.com: no such host", Kind::Unreachable),
        ("something that nobody has seen, with old-canary in it", Kind::BadState),
        ("the item version is out of date", Kind::Conflict),
    ] {
        world.fault("after", "say", text);
        let error = vault.stage(run(), &Secret::new("new-canary")).await.unwrap_err();
        assert_eq!((error.kind(), error.retry()), (kind, Retry::Unknown), "{text}");
        assert!(!format!("{error:?}").contains("canary"), "its words are not repeated");
        world.set("/faults", json!([{"command": "item get", "when": "before", "kind": "say", "text": text}]));
        let retry = if kind == Kind::Conflict { Retry::Unknown } else { LATER };
        assert_eq!(vault.read().await.unwrap_err().retry(), retry, "{text}");
        let edits = world.edits();
        vault.stage(run(), &Secret::new("new-canary")).await.unwrap();
        assert_eq!(world.edits(), edits, "it had happened");
        vault.discard(run()).await.unwrap();
    }
}

#[tokio::test]
async fn the_way_is_the_configured_one_or_the_one_with_credentials() {
    let world = World::new(item());
    let token = format!("OP_SERVICE_ACCOUNT_TOKEN={}", world.token);
    let way = |via, connect: Option<&str>, credentials: &str| {
        let settings = OnepasswordSettings { via, connect: connect.map(str::to_owned) };
        let shared = shared(Vendors { onepassword: settings, ..Vendors::default() }, credentials);
        transport::choose(&shared, Path::new("op"))
            .err()
            .map(|error| format!("{error}; {}", error.hints().join("; ")))
    };
    // Somebody's own variables would be a way, too.
    if ["OP_CONNECT_HOST", "OP_CONNECT_TOKEN", "OP_SERVICE_ACCOUNT_TOKEN"].map(std::env::var_os)
        != [None, None, None]
    {
        return;
    }
    assert_eq!(way(None, None, &token), None);
    let both = format!("{token}\nOP_CONNECT_HOST=http://localhost:1");
    assert!(way(None, None, &both).unwrap().contains("OP_CONNECT_TOKEN is not set"), "Connect goes first");
    assert_eq!(way(Some(OnepasswordVia::Cli), Some("http://localhost:1"), &token), None);
    assert!(way(Some(OnepasswordVia::Connect), None, &token).unwrap().contains("OP_CONNECT_HOST"));
    assert!(way(Some(OnepasswordVia::Cli), None, "").unwrap().contains("OP_SERVICE_ACCOUNT_TOKEN"));
    let neither = way(None, None, "").unwrap();
    assert!(neither.contains("OP_CONNECT_HOST") && neither.contains("OP_SERVICE_ACCOUNT_TOKEN"), "{neither}");
}
