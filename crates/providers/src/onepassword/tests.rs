//! Against a server in this process that follows Connect's specification 1.7.1.

use std::sync::{Arc, Mutex};

use pgrotate_core::Retry;
use serde_json::{Value, json};

use super::*;
use crate::fake::{Call, Fake, OTHER_RUN, RUN, Reply, run, shared};
use crate::shared::{OnepasswordSettings, Vendors};

const VAULT: &str = "vvvvvvvvvvvvvvvvvvvvvvvvvv";
const ITEM: &str = "iiiiiiiiiiiiiiiiiiiiiiiiii";
const TITLE: &str = "MindWell \"dev\" Postgres Admin";

/// A Connect server with one vault; its one live item can be reached into.
struct World {
    fake: Fake,
    item: Arc<Mutex<Value>>,
    next: Arc<Mutex<Trouble>>,
}

/// What goes wrong with the next patch that changes something.
#[derive(Clone, Copy, PartialEq)]
enum Trouble {
    None,
    AnswerLost,
    SomebodyEdits,
    /// Somebody wrote first, and the patch does not fit any more.
    Overtaken,
    Refused(u16),
}

fn pending_of(run: &str) -> String {
    format!("pgrotate pending {run}")
}

fn item() -> Value {
    json!({
        "id": ITEM, "title": TITLE, "category": "DATABASE", "vault": {"id": VAULT}, "version": 7,
        "tags": ["mindwell"], "createdAt": "2025-01-01T00:00:00Z", "updatedAt": "2025-06-01T00:00:00Z",
        "sections": [{"id": "s1", "label": "Extra"}],
        "fields": [
            {"id": "username", "type": "STRING", "purpose": "USERNAME", "label": "username", "value": "mindwelladmin"},
            {"id": "password", "type": "CONCEALED", "purpose": "PASSWORD", "label": "password", "value": "old-canary", "entropy": 80.5},
            {"id": "otp", "type": "TOTP", "label": "one-time", "value": "otpauth://x", "totp": "123456"},
            {"id": "f3", "section": {"id": "s1"}, "type": "CONCEALED", "label": "root key", "value": "untouched-canary"},
        ],
    })
}

impl World {
    async fn start(item: Value) -> Self {
        let (item, next) = (Arc::new(Mutex::new(item)), Arc::new(Mutex::new(Trouble::None)));
        let (held, trouble) = (Arc::clone(&item), Arc::clone(&next));
        let fake =
            Fake::start(move |call| answer(call, &mut held.lock().unwrap(), &mut trouble.lock().unwrap()))
                .await;
        Self { fake, item, next }
    }

    fn vault(&self, field: Option<&str>) -> Onepassword {
        let vendors = Vendors {
            onepassword: OnepasswordSettings { connect: Some(format!("{}/", self.fake.url)), via: None },
            ..Vendors::default()
        };
        let options =
            Options { vault: "MindWell".into(), item: TITLE.into(), field: field.map(str::to_owned) };
        Onepassword::new(None, options, shared(vendors, "OP_CONNECT_TOKEN=connect-token")).unwrap()
    }

    fn field(&self, label: &str) -> Option<String> {
        let item = self.item.lock().unwrap();
        let field = item["fields"].as_array().unwrap().iter().find(|field| field["label"] == label)?;
        field["value"].as_str().map(str::to_owned)
    }

    fn trouble(&self, trouble: Trouble) {
        *self.next.lock().unwrap() = trouble;
    }
}

fn answer(call: &Call, item: &mut Value, trouble: &mut Trouble) -> Reply {
    if call.header("authorization") != Some("Bearer connect-token")
        && std::env::var("OP_CONNECT_TOKEN").is_err()
    {
        return Reply::json(401, &json!({"status": 401, "message": "Invalid token signature"}));
    }
    let path = format!("/v1/vaults/{VAULT}/items/{ITEM}");
    match (call.method.as_str(), call.path.as_str()) {
        ("GET", "/v1/vaults?filter=name+eq+%22MindWell%22") => {
            Reply::json(200, &json!([{"id": VAULT, "name": "MindWell"}]))
        }
        ("GET", titles) if titles.starts_with(&format!("/v1/vaults/{VAULT}/items?filter=")) => {
            assert!(titles.ends_with("=title+eq+%22MindWell+%5C%22dev%5C%22+Postgres+Admin%22"), "{titles}");
            let mut twins = vec![item.clone()];
            if let Some(more) = item["twins"].as_array() {
                twins.extend(more.clone());
            }
            Reply::json(200, &Value::Array(twins))
        }
        ("GET", one) if one == path => Reply::json(200, item),
        ("PATCH", one) if one == path => patched(&call.json(), item, trouble),
        _ => Reply::json(404, &json!({"status": 404, "message": "item not found"})),
    }
}

fn patched(patch: &Value, item: &mut Value, trouble: &mut Trouble) -> Reply {
    if let Trouble::Refused(status) = *trouble {
        return Reply::json(status, &json!({"status": status, "message": "old-canary"}));
    }
    if *trouble == Trouble::Overtaken {
        item["version"] = json!(item["version"].as_i64().unwrap() + 1);
        return Reply::json(400, &json!({"status": 400, "message": "Couldn't apply the patch"}));
    }
    let patch = patch.as_array().unwrap();
    for operation in patch {
        apply(operation, item);
    }
    if patch.is_empty() {
        return Reply::json(200, item);
    }
    item["version"] = json!(item["version"].as_i64().unwrap() + 1);
    let fields = item["fields"].as_array_mut().unwrap();
    // These two move by themselves.
    fields[1]["entropy"] = json!(120.25);
    fields[2]["totp"] = json!("654321");
    match std::mem::replace(trouble, Trouble::None) {
        Trouble::AnswerLost => return Reply::hang_up(),
        Trouble::SomebodyEdits => fields[3]["value"] = json!("edited-canary"),
        Trouble::None | Trouble::Overtaken | Trouble::Refused(_) => {}
    }
    Reply::json(200, item)
}

/// One operation, with Connect's own pointers: fields are addressed by id.
fn apply(operation: &Value, item: &mut Value) {
    let path: Vec<&str> = operation["path"].as_str().unwrap().split('/').skip(1).collect();
    let version = item["version"].clone();
    let fields = item["fields"].as_array_mut().unwrap();
    match (operation["op"].as_str().unwrap(), &path[..]) {
        ("add", ["fields"]) => {
            let mut field = operation["value"].clone();
            field["id"] = json!(format!("new{version}-{}", fields.len()));
            // Fields without a section come back in one that the applications show last.
            field["section"] = json!({"id": "add more"});
            fields.push(field);
            let sections = item["sections"].as_array_mut().unwrap();
            if sections.iter().all(|section| section["id"] != "add more") {
                sections.push(json!({"id": "add more"}));
            }
        }
        ("remove", ["fields", id]) => {
            let before = fields.len();
            fields.retain(|field| field["id"] != *id);
            assert_eq!(fields.len() + 1, before, "one field of this id");
        }
        (op @ ("add" | "replace"), ["fields", id, "value"]) => {
            let field = fields.iter_mut().find(|field| field["id"] == *id).unwrap();
            assert!(op == "add" || field["value"].is_string(), "replace needs something to replace");
            field["value"] = operation["value"].clone();
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_password_is_staged_then_promoted_in_one_patch_each() {
    let world = World::start(item()).await;
    let vault = world.vault(None);
    assert_eq!(vault.id().as_str(), format!("onepassword:{TITLE}"));
    let untouched = world.item.lock().unwrap()["fields"][3].clone();

    vault.stage(run(), &Secret::new("new-canary")).await.unwrap();
    let state = vault.read().await.unwrap();
    let [pending] = &state.pending[..] else { panic!("one is staged") };
    assert_eq!((&pending.secret, pending.run), (&Secret::new("new-canary"), Some(run())));
    assert_eq!(state.current.unwrap().secret, Secret::new("old-canary"));
    assert_eq!(state.version, Some(VersionId::from("8")));

    let other = Secret::new("somebody-elses");
    assert_eq!(
        vault.promote(run(), &other, None).await.unwrap_err().kind(),
        Kind::Conflict,
        "the server has another one"
    );
    assert_eq!(
        vault.promote(run(), &Secret::new("new-canary"), None).await.unwrap(),
        Some(VersionId::from("9"))
    );
    let state = vault.read().await.unwrap();
    let (current, previous) = (state.current.unwrap(), state.previous.unwrap());
    assert_eq!((current.secret, current.run), (Secret::new("new-canary"), Some(run())));
    assert_eq!((previous.secret, previous.run), (Secret::new("old-canary"), None));
    assert!(state.pending.is_empty() && world.field(&pending_of(RUN)).is_none());
    assert_eq!(world.field("password").as_deref(), Some("new-canary"));
    assert_eq!(world.item.lock().unwrap()["fields"][3], untouched);

    let writes = world.fake.calls().iter().filter(|call| call.method == "PATCH").count();
    assert_eq!(
        (writes, world.fake.calls().len()),
        (2, 9),
        "2 to find the item, 2 reads, 2 times read and patch, and a read that found another password"
    );
}

#[tokio::test]
async fn a_second_run_moves_the_runs_along_and_uses_the_fields_that_are_there() {
    let world = World::start(item()).await;
    let vault = world.vault(None);
    let second: RunId = OTHER_RUN.parse().unwrap();
    for (run, password) in [(run(), "first"), (second, "second")] {
        vault.stage(run, &Secret::new(password)).await.unwrap();
        vault.promote(run, &Secret::new(password), None).await.unwrap();
    }
    let state = vault.read().await.unwrap();
    let previous = state.previous.unwrap();
    assert_eq!((previous.secret, previous.run), (Secret::new("first"), Some(run())));
    assert_eq!(state.current.unwrap().run, Some(second));
    assert_eq!(world.item.lock().unwrap()["fields"].as_array().unwrap().len(), 4 + 3);
}

#[tokio::test]
async fn a_repeat_writes_nothing() {
    let world = World::start(item()).await;
    let vault = world.vault(None);
    let secret = Secret::new("new");
    vault.stage(run(), &secret).await.unwrap();
    world.fake.take_lines();
    vault.stage(run(), &secret).await.unwrap();
    vault.promote(run(), &secret, None).await.unwrap();
    assert_eq!(vault.promote(run(), &secret, None).await.unwrap(), Some(VersionId::from("9")));
    vault.discard(run()).await.unwrap();
    let writes = world.fake.take_lines().iter().filter(|line| line.starts_with("PATCH")).count();
    assert_eq!(writes, 1, "only the first promote writes");
    assert_eq!(vault.stage(run(), &secret).await.unwrap_err().kind(), Kind::Conflict, "already current");
    assert_eq!(
        vault.promote(OTHER_RUN.parse().unwrap(), &secret, None).await.unwrap_err().kind(),
        Kind::Conflict
    );
}

#[tokio::test]
async fn another_runs_pending_password_is_left_alone() {
    let world = World::start(item()).await;
    let vault = world.vault(None);
    let other: RunId = OTHER_RUN.parse().unwrap();
    vault.stage(other, &Secret::new("theirs")).await.unwrap();
    let error = vault.stage(run(), &Secret::new("ours")).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Conflict);
    assert!(error.hints()[0].contains(&format!("pgrotate resume {OTHER_RUN}")));
    vault.discard(run()).await.unwrap();
    assert_eq!(world.field(&pending_of(OTHER_RUN)).as_deref(), Some("theirs"));
    vault.discard(other).await.unwrap();
    assert_eq!(world.field(&pending_of(OTHER_RUN)), None);
}

#[tokio::test]
async fn a_lost_answer_is_unknown_and_the_repeat_finds_it_done() {
    let world = World::start(item()).await;
    let vault = world.vault(None);
    let secret = Secret::new("new");
    vault.stage(run(), &secret).await.unwrap();
    world.trouble(Trouble::AnswerLost);
    assert_eq!(vault.promote(run(), &secret, None).await.unwrap_err().retry(), Retry::Unknown);
    assert_eq!(vault.promote(run(), &secret, None).await.unwrap(), Some(VersionId::from("9")));
    assert_eq!(world.field("pgrotate previous").as_deref(), Some("old-canary"));
}

#[tokio::test]
async fn a_change_beside_ours_is_noticed_and_named_without_values() {
    let world = World::start(item()).await;
    let vault = world.vault(None);
    world.trouble(Trouble::SomebodyEdits);
    let error = vault.stage(run(), &Secret::new("new-canary")).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Conflict);
    assert!(error.to_string().contains("the field \"root key\" changed"), "{error}");
    assert!(!format!("{error:?}").contains("canary"));
}

#[tokio::test]
async fn a_patch_that_somebody_overtook_is_made_anew() {
    let world = World::start(item()).await;
    let vault = world.vault(None);
    world.trouble(Trouble::Overtaken);
    let error = vault.stage(run(), &Secret::new("next-canary")).await.unwrap_err();
    assert_eq!((error.kind(), error.retry()), (Kind::Conflict, Retry::Unknown));
    world.trouble(Trouble::Refused(400));
    let error = vault.stage(run(), &Secret::new("next-canary")).await.unwrap_err();
    assert_eq!((error.kind(), error.retry()), (Kind::Rejected, Retry::Never), "nothing has moved");
}

#[tokio::test]
async fn a_blanked_field_of_ours_is_used_again() {
    let mut blank = item();
    blank["fields"].as_array_mut().unwrap().push(
        json!({"id": "p1", "type": "CONCEALED", "label": "pgrotate previous", "section": {"id": "add more"}}),
    );
    let world = World::start(blank).await;
    let (vault, secret) = (world.vault(None), Secret::new("new"));
    vault.stage(run(), &secret).await.unwrap();
    vault.promote(run(), &secret, None).await.unwrap();
    assert_eq!(world.field("pgrotate previous").as_deref(), Some("old-canary"));
    assert_eq!(world.item.lock().unwrap()["fields"].as_array().unwrap().len(), 4 + 2);
}

/// Connect writes without a condition: what comes late must not take the place of what the server has.
#[tokio::test]
async fn a_first_try_that_arrives_late_replaces_nothing_and_goes_with_the_promotion() {
    let world = World::start(item()).await;
    let vault = world.vault(None);
    let second = Secret::new("second");
    vault.stage(run(), &second).await.unwrap();
    let late = json!([{"op": "add", "path": "/fields", "value":
        {"label": pending_of(RUN), "type": "CONCEALED", "value": "first"}}]);
    let patch = world.fake.calls().into_iter().find(|call| call.method == "PATCH").unwrap();
    assert_eq!(
        patch.body.replace("second", "first"),
        late.to_string(),
        "what `stage` sends, whatever is there"
    );
    let arrives = || patched(&late, &mut world.item.lock().unwrap(), &mut Trouble::None);
    let _ = arrives();
    let staged: Vec<_> = vault.read().await.unwrap().pending.into_iter().map(|entry| entry.run).collect();
    assert_eq!(staged, [Some(run()), Some(run())]);
    let current = |state: VaultState| state.current.unwrap().secret;
    for _ in ["before the promotion", "after it"] {
        vault.promote(run(), &second, None).await.unwrap();
        let state = vault.read().await.unwrap();
        assert!(state.pending.is_empty());
        assert_eq!(current(state), second);
        let _ = arrives();
    }
    vault.discard(run()).await.unwrap();
    let state = vault.read().await.unwrap();
    assert!(state.pending.is_empty());
    assert_eq!(current(state), second);
}

#[tokio::test]
async fn check_is_an_empty_patch() {
    let world = World::start(item()).await;
    let vault = world.vault(None);
    assert_eq!(vault.check().await.unwrap().findings, []);
    let calls = world.fake.calls();
    assert_eq!((calls.len(), calls[2].method.as_str(), calls[2].body.as_str()), (3, "PATCH", "[]"));
    assert_eq!(world.item.lock().unwrap()["version"], 7);

    world.trouble(Trouble::Refused(403));
    let error = vault.check().await.unwrap_err();
    assert_eq!((error.kind(), error.retry()), (Kind::Forbidden, Retry::Never));
    assert!(!format!("{error:?}").contains("canary"), "the body is not repeated");
    world.trouble(Trouble::Refused(400));
    assert_eq!(vault.check().await.unwrap().findings[0].severity, Severity::Unseen);
    world.trouble(Trouble::Refused(502));
    assert_eq!(
        vault.check().await.unwrap_err().retry(),
        Retry::Later { after_ms: None },
        "it changes nothing"
    );
}

#[tokio::test]
async fn an_archived_item_stops_the_run() {
    let mut archived = item();
    archived["state"] = json!("ARCHIVED");
    let world = World::start(archived).await;
    let vault = world.vault(None);
    assert_eq!(vault.check().await.unwrap_err().kind(), Kind::BadState, "found by title");
    let options = Options { vault: VAULT.into(), item: ITEM.into(), field: None };
    let by_id = Onepassword::new(Some("x".into()), options, Arc::clone(&vault.shared)).unwrap();
    world.fake.take_lines();
    assert_eq!(by_id.check().await.unwrap().findings[0].severity, Severity::Blocks);
    assert_eq!(world.fake.take_lines().len(), 1, "ids need no looking up");
    assert_eq!(by_id.id().as_str(), "onepassword:x");
}

#[tokio::test]
async fn a_title_of_two_items_is_ambiguous_unless_one_is_archived() {
    let twin = |state: &str| json!([{"id": "jjjjjjjjjjjjjjjjjjjjjjjjjj", "title": TITLE, "state": state}]);
    let mut archived = item();
    archived["twins"] = twin("ARCHIVED");
    World::start(archived).await.vault(None).read().await.unwrap();
    let mut both = item();
    both["twins"] = twin("");
    let error = World::start(both).await.vault(None).read().await.unwrap_err();
    assert_eq!(error.kind(), Kind::Ambiguous);
    assert!(error.to_string().contains(ITEM) && error.to_string().contains("jjjj"));
    assert!(!format!("{error:?}").contains("canary"));
}

#[tokio::test]
async fn a_title_that_only_looks_alike_is_not_found() {
    let mut other = item();
    other["title"] = json!("MindWell \"dev\" Postgres Admin (old)");
    let error = World::start(other).await.vault(None).read().await.unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound);
}

#[tokio::test]
async fn the_password_field_is_found_by_purpose_id_or_label() {
    let world = World::start(item()).await;
    for (field, expected) in
        [(None, "old-canary"), (Some("f3"), "untouched-canary"), (Some("root key"), "untouched-canary")]
    {
        let state = world.vault(field).read().await.unwrap();
        assert_eq!(state.current.unwrap().secret, Secret::new(expected), "{field:?}");
    }
    let error = world.vault(Some("gone")).read().await.unwrap_err();
    assert!(error.hints()[0].ends_with("password, root key"), "{error:?}");
    let mut unmarked = item();
    unmarked["fields"][1]["purpose"] = json!("");
    let error = World::start(unmarked).await.vault(None).read().await.unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound);
    assert!(!format!("{error:?}").contains("canary"));
    let options = Options { vault: VAULT.into(), item: ITEM.into(), field: Some("pgrotate previous".into()) };
    assert!(Onepassword::new(None, options, shared(Vendors::default(), "")).is_err());
}

#[tokio::test]
async fn two_fields_of_our_label_are_ambiguous() {
    let mut twice = item();
    for id in ["p1", "p2"] {
        let field = json!({"id": id, "type": "CONCEALED", "label": "pgrotate previous", "value": "x"});
        twice["fields"].as_array_mut().unwrap().push(field);
    }
    let vault = World::start(twice).await.vault(None);
    assert_eq!(vault.check().await.unwrap_err().kind(), Kind::Ambiguous, "found before anything changes");
}

#[tokio::test]
async fn the_first_refused_token_is_tried_once_more() {
    let refusals = Arc::new(Mutex::new(1));
    let left = Arc::clone(&refusals);
    let fake = Fake::start(move |call| {
        let mut left = left.lock().unwrap();
        if *left > 0 {
            *left -= 1;
            return Reply::json(401, &json!({"status": 401, "message": "Invalid token signature"}));
        }
        answer(call, &mut item(), &mut Trouble::None)
    })
    .await;
    let world = World { fake, item: Arc::default(), next: Arc::new(Mutex::new(Trouble::None)) };
    let vault = world.vault(None);
    vault.read().await.unwrap();
    *refusals.lock().unwrap() = 1;
    let error = vault.read().await.unwrap_err();
    assert_eq!((error.kind(), error.retry()), (Kind::Unauthenticated, Retry::Never));
    assert_eq!(*refusals.lock().unwrap(), 0, "asked once");
}

#[tokio::test]
async fn what_is_missing_is_named() {
    let options = || Options { vault: VAULT.into(), item: ITEM.into(), field: None };
    let nowhere = Onepassword::new(None, options(), shared(Vendors::default(), "")).unwrap();
    if std::env::var("OP_CONNECT_HOST").is_err() {
        assert!(nowhere.read().await.unwrap_err().hints()[0].contains("OP_CONNECT_HOST"));
    }
    let plain = "OP_CONNECT_HOST=http://connect.example.com\nOP_CONNECT_TOKEN=x";
    let readable = Onepassword::new(None, options(), shared(Vendors::default(), plain)).unwrap();
    if std::env::var("OP_CONNECT_HOST").is_err() {
        assert_eq!(readable.read().await.unwrap_err().kind(), Kind::Config, "no password over plain http");
    }
}

#[test]
fn two_fields_of_one_item_are_one_place() {
    let vault = |field: Option<&str>| {
        let options = Options { vault: VAULT.into(), item: ITEM.into(), field: field.map(str::to_owned) };
        Onepassword::new(None, options, shared(Vendors::default(), "")).unwrap().location()
    };
    assert_eq!(vault(None), vault(Some("prod password")), "what a run stages belongs to the item");
}
