//! What could stop a run is found before it starts, named, and nothing is changed.

use serde_json::{Value, json};

use crate::lab::Lab;

/// A bad state, how it is mended, and a word that the finding must contain.
struct Case {
    system: &'static str,
    what: &'static str,
    bad: Value,
    good: Option<Value>,
    said: &'static str,
}

fn case(
    system: &'static str,
    what: &'static str,
    bad: Value,
    good: Option<Value>,
    said: &'static str,
) -> Case {
    Case { system, what, bad, good, said }
}

#[test]
fn bad_states_that_can_be_mended_are_found_one_by_one() {
    let lab = Lab::new("dev");
    let cases = [
        case("resource_manager", "state", json!("Stopped"), Some(json!("Ready")), "Stopped"),
        case("resource_manager", "replica", json!(true), Some(json!(false)), "replica"),
        case("resource_manager", "password_auth", json!(false), Some(json!(true)), "password"),
        case("onepassword", "read_only", json!(true), Some(json!(false)), "write"),
    ];
    let before = lab.state();
    for case in cases {
        lab.set(case.system, case.what, &case.bad);
        found(&lab, case.said);
        lab.set(case.system, case.what, &case.good.unwrap());
        lab.pgrotate(&["check", "dev"]).exits(0);
    }
    unchanged(&lab, &before);
}

#[test]
fn bad_states_that_stay_are_found_too() {
    for case in [
        case("key_vault", "deleted", json!("database-url"), None, "recover"),
        case("onepassword", "ambiguous", Value::Null, None, "MindWell dev Postgres Admin"),
    ] {
        let lab = Lab::new("dev");
        lab.set(case.system, case.what, &case.bad);
        let before = lab.state();
        found(&lab, case.said);
        unchanged(&lab, &before);
    }
}

/// `check` names it, and `rotate` refuses for it.
fn found(lab: &Lab, said: &str) {
    let check = lab.pgrotate(&["check", "dev"]);
    assert_eq!(check.0.status.code(), Some(1), "{said}: {}", check.text());
    assert!(check.text().contains(said), "{said}: {}", check.text());
    let rotate = lab.pgrotate(&["rotate", "dev"]);
    assert!(rotate.text().contains(said), "{said}: {}", rotate.text());
    let _ = rotate.exits(1);
}

fn unchanged(lab: &Lab, before: &Value) {
    let after = lab.state();
    for (id, copy) in before["dev"]["copies"].as_object().unwrap() {
        // Not assert_eq: its message would show the values.
        assert!(copy["value"] == after["dev"]["copies"][id]["value"], "{id} was changed");
        assert!(copy["versions"] == after["dev"]["copies"][id]["versions"], "{id} was written");
    }
    assert!(before["dev"]["postgres"] == after["dev"]["postgres"], "the server was changed");
    assert_eq!(before["dev"]["app"], after["dev"]["app"]);
}

#[test]
fn an_env_file_that_can_not_be_changed_safely_is_found() {
    let lab = Lab::new("dev");
    let before = lab.state();
    let file = lab.world().join("agents/dev/.config/mindwell/dev.env");
    let text = std::fs::read_to_string(&file).unwrap();

    std::fs::write(&file, format!("{text}\nDATABASE_URL=again\n")).unwrap();
    found(&lab, "DATABASE_URL");
    std::fs::write(&file, &text).unwrap();

    let elsewhere = lab.world().join("elsewhere.env");
    std::fs::rename(&file, &elsewhere).unwrap();
    std::os::unix::fs::symlink(&elsewhere, &file).unwrap();
    found(&lab, "link");
    std::fs::remove_file(&file).unwrap();
    found(&lab, "dev.env");
    std::fs::rename(&elsewhere, &file).unwrap();

    let other_host = text.replace("@localhost:", "@db.prod.example:");
    assert_ne!(other_host, text);
    std::fs::write(&file, other_host).unwrap();
    found(&lab, "host");
    std::fs::write(&file, &text).unwrap();
    lab.pgrotate(&["check", "dev"]).exits(0);
    unchanged(&lab, &before);
}

#[test]
fn missing_credentials_are_named() {
    let lab = Lab::new("dev");
    let path = lab.world().join("credentials.env");
    let text = std::fs::read_to_string(&path).unwrap();
    for name in ["OP_CONNECT_TOKEN", "GH_TOKEN", "ONCALL_WEBHOOK_URL"] {
        let without: String =
            text.lines().filter(|line| !line.starts_with(name)).map(|line| format!("{line}\n")).collect();
        std::fs::write(&path, without).unwrap();
        found(&lab, name);
    }
    std::fs::write(&path, &text).unwrap();
    lab.pgrotate(&["check", "dev"]).exits(0);
}

#[test]
fn slips_in_the_configuration_are_pointed_at() {
    let lab = Lab::new("dev");
    let path = lab.config();
    let text = std::fs::read_to_string(&path).unwrap();
    for (from, to, said) in [
        ("resource_group = \"rg", "resource_gruop = \"rg", "resource_group"),
        ("kv-mindwell-{env}", "kv-mindwell-{enw}", "{enw}"),
        ("project = ", "projetc = ", "project"),
        ("kind = \"onepassword\"", "kind = \"onepasswort\"", "onepassword"),
    ] {
        std::fs::write(&path, text.replacen(from, to, 1)).unwrap();
        let run = lab.pgrotate(&["plan", "dev"]);
        let shown = run.text();
        assert!(shown.contains(said) && shown.contains("pgrotate.toml:"), "{from}: {shown}");
        let _ = run.exits(2);
    }
    std::fs::write(&path, &text).unwrap();
    let run = lab.pgrotate(&["rotate", "dve"]);
    assert!(run.text().contains("did you mean dev?"), "{}", run.text());
    let _ = run.exits(2);
}
