//! Connection strings: the second table of a site, with a type in each row.

use super::*;

fn connection_string(fake: &Fake) -> Setting {
    let options = with(options(), "connection_string", json!("Database"));
    Setting::new(None, serde_json::from_value(options).unwrap(), fake.shared()).unwrap()
}

/// A site that keeps its connection strings.
async fn stringy(initial: Value) -> Fake {
    let mut kept = initial;
    Fake::start(move |request| match request.line().strip_prefix(&format!("POST {SITE}/config/")) {
        Some("connectionstrings/list") => reply(200, json!({"properties": kept})),
        Some("appsettings/list") => reply(200, json!({"properties": {"DATABASE_URL": "sqlite:"}})),
        _ if request.line() == format!("PUT {SITE}/config/connectionstrings") => {
            kept = request.json()["properties"].clone();
            reply(200, json!({"properties": kept}))
        }
        _ => surroundings(request),
    })
    .await
}

#[tokio::test]
async fn a_connection_string_changes_and_keeps_its_type_and_its_neighbours() {
    let strings = |url: &str| json!({"Database": {"value": url, "type": "PostgreSQL"}, "Cache": {"value": SALT, "type": "RedisCache"}});
    let fake = stringy(strings(OLD)).await;
    let string = connection_string(&fake);
    assert_eq!(string.id().as_str(), "azure_app_service:Database");
    assert_ne!(string.whole(), setting(&fake).whole(), "the two tables are written apart");
    assert_eq!(string.check().await.unwrap().findings, []);
    let outcome = string.publish(&wanted(&string).update()).await.unwrap();
    assert_eq!(outcome.effect, Did::Changed);
    let put = fake.seen().into_iter().find(|request| request.method == "PUT").unwrap();
    assert_eq!(put.json(), json!({"properties": strings(NEW)}));
    let seen = string.inspect().await.unwrap();
    assert!(matches!(seen.content, Content::Value(value) if value == Secret::new(NEW)));
}

#[tokio::test]
async fn a_connection_string_that_is_missing_or_points_elsewhere_blocks() {
    let reference = json!({"Database": {"value": REFERENCE, "type": "Custom"}});
    for (strings, says) in [
        (json!({}), "its type would have to be chosen"),
        (json!({"DATABASE": {"value": "x", "type": "Custom"}}), "DATABASE"),
        (reference.clone(), "Key Vault reference"),
    ] {
        let fake = stringy(strings).await;
        let found = connection_string(&fake).check().await.unwrap().findings;
        assert_eq!(found[0].severity, Severity::Blocks);
        assert!(found[0].what.contains(says), "{found:?}");
    }
    let fake = stringy(json!({})).await;
    let options = with(options(), "connection_string", json!("DATABASE_URL"));
    let string = Setting::new(None, serde_json::from_value(options).unwrap(), fake.shared()).unwrap();
    let found = string.check().await.unwrap().findings;
    assert_eq!(found[0].mend.as_deref(), Some("name it as `setting`"));
    let fake = stringy(reference).await;
    let string = connection_string(&fake);
    assert_eq!(string.publish(&wanted(&string).update()).await.unwrap_err().kind(), Kind::BadState);
    assert!(fake.lines().iter().all(|line| !line.starts_with("PUT")));
}

#[tokio::test]
async fn exactly_one_of_setting_and_connection_string_is_named() {
    let fake = stringy(json!({})).await;
    let both = with(with(options(), "setting", json!("A")), "connection_string", json!("B"));
    for wrong in [options(), both, with(options(), "setting", json!(" "))] {
        assert!(Setting::new(None, serde_json::from_value(wrong).unwrap(), fake.shared()).is_err());
    }
}
