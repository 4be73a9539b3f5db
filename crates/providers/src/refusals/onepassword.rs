//! 1Password Connect.

use pgrotate_core::provider::Vault;
use pgrotate_core::{Error, Kind, Secret};
use serde_json::{Value, json};

use super::{CANARY, LATER, NEVER, Page, Play, Row, UNKNOWN, after, row};
use crate::fake::{Call, Fake, Reply, run, shared};
use crate::onepassword::{Onepassword, Options};
use crate::shared::{OnepasswordSettings, Vendors};

const VAULT: &str = "vvvvvvvvvvvvvvvvvvvvvvvvvv";
const ITEM: &str = "iiiiiiiiiiiiiiiiiiiiiiiiii";

fn vault(fake: &Fake, vault: &str, item: &str) -> Onepassword {
    let onepassword = OnepasswordSettings { connect: Some(fake.url.clone()), via: None };
    let shared = shared(Vendors { onepassword, ..Vendors::default() }, "OP_CONNECT_TOKEN=token");
    let options = serde_json::from_value::<Options>(json!({"vault": vault, "item": item})).unwrap();
    Onepassword::new(None, options, shared).unwrap()
}

fn item() -> Value {
    json!({"id": ITEM, "title": "MindWell dev", "category": "LOGIN", "vault": {"id": VAULT}, "version": 1, "fields": [
        {"id": "password", "type": "CONCEALED", "purpose": "PASSWORD", "label": "password", "value": "old"}]})
}

fn connect(status: u16, message: &str) -> Play {
    Play::new(status, json!({"status": status, "message": format!("{message} {CANARY}")}))
}

fn rows() -> Vec<Row> {
    vec![
        row("400", connect(400, "Invalid patch"), Kind::Rejected, NEVER),
        row("401", connect(401, "Invalid token signature"), Kind::Unauthenticated, NEVER),
        row("403", connect(403, "vault is not in scope"), Kind::Forbidden, NEVER),
        row("404", connect(404, "item not found"), Kind::NotFound, NEVER),
        row("429", connect(429, "slow down").header("retry-after", "6"), Kind::Throttled, after(6000)),
        row("409: another version", connect(409, "incorrect item version"), Kind::Conflict, UNKNOWN),
    ]
}

async fn error_of(method: &'static str, play: Play) -> (Error, usize) {
    let fake = Fake::start(move |call: &Call| match call.method.as_str() {
        own if own == method => play.reply(),
        _ => Reply::json(200, &item()),
    })
    .await;
    let error = vault(&fake, VAULT, ITEM).stage(run(), &Secret::new(CANARY)).await.unwrap_err();
    (error, fake.calls().iter().filter(|call| call.method == method).count())
}

#[tokio::test]
async fn a_change_that_connect_refuses() {
    let mut page = Page::default();
    let fault = row("500", connect(500, "boom"), Kind::ServerFault, UNKNOWN);
    for row in rows().into_iter().chain([fault]) {
        let (error, writes) = error_of("PATCH", row.play).await;
        page.error(&format!("PATCH: {}", row.what), &error, row.kind, row.retry);
        assert_eq!(writes, 1, "{}", row.what);
    }
    insta::assert_snapshot!("onepassword_write", page.0);
}

#[tokio::test]
async fn a_read_that_connect_refuses() {
    let mut page = Page::default();
    let own = [
        row("500", connect(500, "boom"), Kind::ServerFault, LATER),
        row("200 that is no JSON", Play::new(200, Value::Null), Kind::Corrupt, LATER),
    ];
    for row in rows().into_iter().chain(own) {
        let (error, reads) = error_of("GET", row.play).await;
        page.error(&format!("GET: {}", row.what), &error, row.kind, row.retry);
        // A server that has just started may refuse the first token that it sees.
        assert_eq!(reads, if row.kind == Kind::Unauthenticated { 2 } else { 1 }, "{}", row.what);
    }
    insta::assert_snapshot!("onepassword_read", page.0);
}

/// Names that lead to nothing, or to more than one thing; fields that can't be told apart.
#[tokio::test]
async fn what_can_not_be_found() {
    let mut page = Page::default();
    let named = |id: &str| json!({"id": id, "title": "MindWell dev", "name": "MindWell"});
    let archived = json!({"id": ITEM, "title": "MindWell dev", "name": "MindWell", "state": "ARCHIVED"});
    let lists = [
        ("there is none", json!([]), Kind::NotFound),
        ("two have the name", json!([named(VAULT), named(ITEM)]), Kind::Ambiguous),
        ("it is archived", json!([archived]), Kind::BadState),
    ];
    for (what, list, kind) in lists {
        let fake = Fake::start(move |_: &Call| Reply::json(200, &list)).await;
        for (vault_name, item_name) in [("MindWell", "MindWell dev"), (VAULT, "MindWell dev")] {
            let error = vault(&fake, vault_name, item_name).read().await.err().unwrap();
            page.error(what, &error, kind, NEVER);
        }
    }
    let field = |id: &str, label: &str, purpose: &str| json!({"id": id, "type": "CONCEALED", "label": label, "purpose": purpose, "value": CANARY});
    let fields = [
        ("no field is the password", json!([field("a", "root key", "")]), Kind::NotFound),
        ("two are", json!([field("a", "x", "PASSWORD"), field("b", "y", "PASSWORD")]), Kind::Ambiguous),
        (
            "two of pgrotate's own",
            json!([
                field("p", "password", "PASSWORD"),
                field("a", "pgrotate previous", ""),
                field("b", "pgrotate previous", "")
            ]),
            Kind::Ambiguous,
        ),
    ];
    for (what, fields, kind) in fields {
        let mut document = item();
        document["fields"] = fields;
        let fake = Fake::start(move |_: &Call| Reply::json(200, &document)).await;
        page.error(what, &vault(&fake, VAULT, ITEM).read().await.err().unwrap(), kind, NEVER);
    }
    insta::assert_snapshot!("onepassword_names", page.0);
}
