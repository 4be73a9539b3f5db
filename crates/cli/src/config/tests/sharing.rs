//! What environments may share and what they must not, with the real providers.

use std::path::Path;

use super::{Config, Report, shown};

/// Two environments with the sinks of real providers, told apart by `{env}` where it stands.
fn with_sinks(sinks: &str) -> Result<Config, Report> {
    let text = format!(
        r#"project = "mindwell"
[environments]
dev = {{}}
prod = {{}}
[aws]
region = "eu-central-1"
[database]
host = "db-{{env}}.example.com"
name = "app"
user = "admin"
[vault]
kind = "local_vault"
path = "/x/{{env}}.age"
[authority]
kind = "postgres"
{sinks}"#
    );
    Config::parse(Path::new("pgrotate.toml"), text)
}

#[test]
fn environments_that_meet_in_what_is_written_as_a_whole() {
    let refused = |sinks: &str| shown(&with_sinks(sinks).err().expect("it is refused"));
    let app = r#"[[sinks]]
kind = "azure_app_service"
subscription = "s"
resource_group = "rg"
app = "api"
setting = "DATABASE_URL_{ENV}"
value = "{database_url}"
"#;
    insta::assert_snapshot!(refused(app), @r#"
     x dev and prod have copies in what can only be written as a whole: azure_app_service s/rg/api
       ,-[pgrotate.toml:16:1]
    15 | kind = "postgres"
    16 | [[sinks]]
       : ^^^^|^^^^
       :     `-- in it
    17 | kind = "azure_app_service"
       `----
     help: two runs at once could undo each other's change: give each environment one of its own
    "#);
    let json = r#"[[sinks]]
kind = "aws_secrets_manager"
secret = "app"
json_key = "{env}"
value = "{password}"
"#;
    insta::assert_snapshot!(refused(json), @r#"
     x dev and prod have copies in what can only be written as a whole: aws_secrets_manager/-/eu-
     | central-1/app
       ,-[pgrotate.toml:16:1]
    15 | kind = "postgres"
    16 | [[sinks]]
       : ^^^^|^^^^
       :     `-- in it
    17 | kind = "aws_secrets_manager"
       `----
     help: two runs at once could undo each other's change: give each environment one of its own
    "#);
    let same = refused(&json.replace("{env}", "password"));
    assert!(same.contains("keep the password in the same place") && !same.contains("as a whole"), "{same}");
    // Of each environment's own, several copies may be in one.
    let two = |sink: &str, key: &str| {
        format!("{sink}{}", sink.replace(key, "\"another\"").replace("value", "name = \"b\"\nvalue"))
    };
    for own in [
        two(&app.replace("app = \"api\"", "app = \"api-{env}\""), "\"DATABASE_URL_{ENV}\""),
        two(
            &json.replace("\"app\"", "\"app-{env}\"").replace("json_key = \"{env}\"", "json_key = \"key\""),
            "\"key\"",
        ),
    ] {
        if let Err(report) = with_sinks(&own) {
            panic!("{own}\n{}", shown(&report));
        }
    }
}

#[test]
fn environments_may_have_places_side_by_side() {
    let sinks = [
        "kind = \"env_file\"\npath = \"/x/.env\"\nkey = \"{ENV}_URL\"\ndialect = \"shell\"",
        "kind = \"github_actions\"\nrepository = \"a/b\"\nsecret = \"{ENV}_URL\"",
        "kind = \"azure_key_vault\"\nvault = \"kv\"\nsecret = \"{env}-url\"",
        "kind = \"azure_key_vault\"\nvault = \"kv-{env}\"\nsecret = \"database-url\"",
        "kind = \"aws_secrets_manager\"\nsecret = \"{env}/url\"",
    ];
    for sink in sinks {
        if let Err(report) = with_sinks(&format!("[[sinks]]\n{sink}\nvalue = \"{{database_url}}\"\n")) {
            panic!("{sink}\n{}", shown(&report));
        }
    }
}
