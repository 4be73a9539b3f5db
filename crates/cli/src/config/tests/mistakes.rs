//! Every mistake that a configuration can have, as it is shown.

use std::path::Path;

use super::{Config, GOOD, Report, parse, rejected, shown, with};

#[test]
fn no_toml() {
    insta::assert_snapshot!(rejected("project = \"mindwell\"\n[environments\ndev = {}\n"), @r#"
     x this is no TOML: unclosed table, expected `]`
      ,-[pgrotate.toml:2:14]
    1 | project = "mindwell"
    2 | [environments
      :              ^
    3 | dev = {}
      `----
    "#);
    insta::assert_snapshot!(rejected(&with("name = \"app\"", "name = \"app\"\nname = \"app2\"")), @r#"
     x this is no TOML: duplicate key
       ,-[pgrotate.toml:10:1]
     9 | name = "app"
    10 | name = "app2"
       : ^^^^
    11 | user = "admin"
       `----
    "#);
}

#[test]
fn nothing_at_all() {
    insta::assert_snapshot!(rejected(""), @r#"
      x 2 mistakes in pgrotate.toml

    Error:
      x `project` is missing, in pgrotate.toml
      help: a name for what the environments belong to: project = "…"

    Error:
      x the table [environments] is missing, in pgrotate.toml
      help: one line for each environment, with its own variables: [environments] dev = {}
    "#);
    insta::assert_snapshot!(rejected("project = \" \"\n[environments]\n"), @r#"
      x 2 mistakes in pgrotate.toml

    Error:
      x `project` is empty
       ,-[pgrotate.toml:1:11]
     1 | project = " "
       :           ^^^
     2 | [environments]
       `----

    Error:
      x there is no environment
       ,-[pgrotate.toml:2:1]
     1 | project = " "
     2 | [environments]
       : ^^^^^^^^^^^^^^
       `----
      help: one line for each environment, with its own variables: [environments] dev = {}
    "#);
    insta::assert_snapshot!(rejected("project = \"x\"\n[environments]\ndev = {}\n"), @r"
      x 3 mistakes in pgrotate.toml

    Error:
      x the table [vault] is missing, in pgrotate.toml
      help: the vault of record: the one store whose word counts

    Error:
      x the table [authority] is missing, in pgrotate.toml
      help: the system that accepts or refuses the password: the server

    Error:
      x the table [database] is missing, in pgrotate.toml
      help: it says where the role logs in: host, name, user, and port if it is not 5432
    ");
}

#[test]
fn unknown_keys() {
    insta::assert_snapshot!(rejected(&with("resource_group", "resource_grup")), @r#"
     x unknown key `resource_grup`
       ,-[pgrotate.toml:28:1]
    27 | place = "{group}/password"
    28 | resource_grup = "{group}"
       : ^^^^^^|^^^^^^
       :       `-- did you mean `resource_group`?
    29 | value = "{password}"
       `----
     help: there are: kind, name, value, retire, place, resource_group, attempts, dialect, loud,
           environment
    "#);
    insta::assert_snapshot!(rejected(&with("name = \"app\"", "nmae = \"app\"")), @r#"
     x unknown key `nmae`
       ,-[pgrotate.toml:9:1]
     8 | host = "db-{env}.example.com"
     9 | nmae = "app"
       : ^^|^
       :   `-- did you mean `name`?
    10 | user = "admin"
       `----
     help: there are: url, host, port, name, user, tls
    "#);
    insta::assert_snapshot!(rejected(&with("[[consumers]]", "[[consumer]]")), @r#"
     x unknown key `consumer`
       ,-[pgrotate.toml:32:3]
    31 |
    32 | [[consumer]]
       :   ^^^^|^^^
       :       `-- did you mean `consumers`?
    33 | kind = "app"
       `----
     help: there are: project, credentials_file, ca_file, environments, database, password, azure,
           github, aws, onepassword, vault, authority, sinks, consumers, checks, records
    "#);
    insta::assert_snapshot!(rejected(&with("value = \"{password}\"", "vlaue = \"{password}\"")), @r#"
     x no template variable {password} here; there are {ENV}, {env}, {group}
       ,-[pgrotate.toml:29:10]
    28 | resource_group = "{group}"
    29 | vlaue = "{password}"
       :          ^^^^^^^^^^
    30 | retire = "disable"
       `----
     help: it stands only in a sink's `value` and in the `environment` of a check of kind `command`
    "#);
    insta::assert_snapshot!(rejected(&with("user = \"admin\"", "user = \"admin\"\ntls = { ca = \"x\" }")), @r#"
     x unknown key `ca`
       ,-[pgrotate.toml:11:9]
    10 | user = "admin"
    11 | tls = { ca = "x" }
       :         ^|
       :          `-- did you mean `ca_file`?
    12 |
       `----
     help: there are: mode, ca_file
    "#);
    insta::assert_snapshot!(rejected(&format!("{GOOD}\n[github]\nendpoint = \"https://example.com\"\n")), @r#"
     x unknown key `endpoint`
       ,-[pgrotate.toml:38:1]
    37 | [github]
    38 | endpoint = "https://example.com"
       : ^^^^^^^^
       `----
     help: there are: api
    "#);
}

#[test]
fn unknown_kinds_and_choices() {
    insta::assert_snapshot!(rejected(&with("kind = \"store\"", "kind = \"sotre\"")), @r#"
     x there is no sink of the kind `sotre`
       ,-[pgrotate.toml:21:8]
    20 | [[sinks]]
    21 | kind = "sotre"
       :        ^^^|^^^
       :           `-- did you mean `store`?
    22 | place = "{group}/url"
       `----
     help: there are: store
    "#);
    insta::assert_snapshot!(rejected(&with("kind = \"app\"\n", "")), @r#"
     x `kind` is missing
       ,-[pgrotate.toml:32:1]
    31 |
    32 | [[consumers]]
       : ^^^^^^|^^^^^^
       :       `-- in this table
    33 | place = "api-{env}"
       `----
     help: there are: app
    "#);
    insta::assert_snapshot!(rejected(&with("retire = \"disable\"", "retire = \"disabled\"\ndialect = \"shell\"")), @r#"
     x `disabled` can't be chosen here
       ,-[pgrotate.toml:30:10]
    29 | value = "{password}"
    30 | retire = "disabled"
       :          ^^^^^|^^^^
       :               `-- did you mean `disable`?
    31 | dialect = "shell"
       `----
     help: there are: keep, disable
    "#);
    insta::assert_snapshot!(rejected(&with("retire = \"disable\"", "dialect = \"verbtim\"")), @r#"
     x `verbtim` can't be chosen here
       ,-[pgrotate.toml:30:11]
    29 | value = "{password}"
    30 | dialect = "verbtim"
       :           ^^^^|^^^^
       :               `-- did you mean `verbatim`?
    31 |
       `----
     help: there are: verbatim, shell
    "#);
    insta::assert_snapshot!(rejected(&with("user = \"admin\"", "user = \"admin\"\ntls = { mode = \"require\" }")), @r#"
     x `require` can't be chosen here
       ,-[pgrotate.toml:11:16]
    10 | user = "admin"
    11 | tls = { mode = "require" }
       :                ^^^^^^^^^
    12 |
       `----
     help: there are: verify-full, disable
    "#);
}

#[test]
fn template_variables() {
    insta::assert_snapshot!(rejected(&with("safe/{env}", "safe/{enw}")), @r#"
     x no template variable {enw} here; there are {ENV}, {env}, {group}
       ,-[pgrotate.toml:14:15]
    13 | kind = "safe"
    14 | place = "safe/{enw}"
       :               ^^|^^
       :                 `-- did you mean {env}?
    15 |
       `----
    "#);
    insta::assert_snapshot!(rejected(&with("api-{env}", "api-{password}")), @r#"
     x no template variable {password} here; there are {ENV}, {env}, {group}
       ,-[pgrotate.toml:34:14]
    33 | kind = "app"
    34 | place = "api-{password}"
       :              ^^^^^^^^^^
    35 | waits_for = ["store:url"]
       `----
     help: it stands only in a sink's `value` and in the `environment` of a check of kind `command`
    "#);
    insta::assert_snapshot!(rejected(&with("value = \"{database_url}\"", "value = \"{databse_url}\"")), @r#"
     x no template variable {databse_url} here; there are {ENV}, {env}, {group}, {password},
     | {database_url}
       ,-[pgrotate.toml:23:10]
    22 | place = "{group}/url"
    23 | value = "{databse_url}"
       :          ^^^^^^|^^^^^^
       :                `-- did you mean {database_url}?
    24 |
       `----
    "#);
    insta::assert_snapshot!(rejected(&with("safe/{env}", "safe/{env")), @r#"
     x this brace is never closed; write `{{` for a brace itself
       ,-[pgrotate.toml:14:15]
    13 | kind = "safe"
    14 | place = "safe/{env"
       :               ^^^^
    15 |
       `----
    "#);
    insta::assert_snapshot!(rejected(&with("\"safe/{env}\"", "\"\"\"\nsafe/{enw}\"\"\"")), @r#"
     x no template variable {enw} here; there are {ENV}, {env}, {group}
       ,-[pgrotate.toml:14:9]
    13 |     kind = "safe"
    14 | ,-> place = """
    15 | |-> safe/{enw}"""
       : `---- did you mean {env}?
    16 |
       `----
    "#);
}

#[test]
fn values() {
    insta::assert_snapshot!(rejected(&with("value = \"{database_url}\"", "value = \"constant-hunter2\"")), @r#"
     x a value holds {password} or {database_url} once, not 0 times
       ,-[pgrotate.toml:23:9]
    22 | place = "{group}/url"
    23 | value = "****************"
       :         ^^^^^^^^^^^^^^^^^^
    24 |
       `----
    "#);
    insta::assert_snapshot!(rejected(&with("value = \"{database_url}\"\n", "")), @r#"
     x `value` is missing
       ,-[pgrotate.toml:20:1]
    19 |
    20 | [[sinks]]
       : ^^^^|^^^^
       :     `-- in this table
    21 | kind = "store"
       `----
     help: what the copy holds: "{password}", "{database_url}", or a text around one of them
    "#);
    insta::assert_snapshot!(rejected(&with("value = \"{database_url}\"", "value = \"{password}{password}\"")), @r#"
     x a value holds {password} or {database_url} once, not 2 times
       ,-[pgrotate.toml:23:9]
    22 | place = "{group}/url"
    23 | value = "{password}{password}"
       :         ^^^^^^^^^^^^^^^^^^^^^^
    24 |
       `----
    "#);
}

#[test]
fn types() {
    insta::assert_snapshot!(rejected(&with("name = \"app\"", "name = \"app\"\nport = \"five\"")), @r#"
     x a whole number from 0 to 65535 is wanted here
       ,-[pgrotate.toml:10:8]
     9 | name = "app"
    10 | port = "five"
       :        ^^^|^^
       :           `-- this is no number
    11 | user = "admin"
       `----
    "#);
    insta::assert_snapshot!(rejected(&with("name = \"app\"", "name = \"app\"\nport = 70000")), @r#"
     x a whole number from 0 to 65535 is wanted here
       ,-[pgrotate.toml:10:8]
     9 | name = "app"
    10 | port = 70000
       :        ^^^^^
    11 | user = "admin"
       `----
    "#);
    insta::assert_snapshot!(rejected(&with("place = \"api-{env}\"", "place = [\"api\"]")), @r#"
     x a string is wanted here
       ,-[pgrotate.toml:34:9]
    33 | kind = "app"
    34 | place = ["api"]
       :         ^^^|^^^
       :            `-- this is a list
    35 | waits_for = ["store:url"]
       `----
    "#);
    insta::assert_snapshot!(rejected(&with("[[consumers]]", "[consumers]")), @r#"
     x a list of tables, each one headed [[consumers]], is wanted here
       ,-[pgrotate.toml:32:1]
    31 |
    32 | [consumers]
       : ^^^^^|^^^^^
       :      `-- this is a table
    33 | kind = "app"
       `----
    "#);
    insta::assert_snapshot!(rejected(&with("[\"store:url\"]", "\"store:url\"")), @r#"
     x a list is wanted here
       ,-[pgrotate.toml:35:13]
    34 | place = "api-{env}"
    35 | waits_for = "store:url"
       :             ^^^^^|^^^^^
       :                  `-- this is a string
       `----
    "#);
    insta::assert_snapshot!(rejected(&with("retire = \"disable\"", "attempts = 1979-05-27")), @r#"
     x a whole number from 0 to 255 is wanted here
       ,-[pgrotate.toml:30:12]
    29 | value = "{password}"
    30 | attempts = 1979-05-27
       :            ^^^^^|^^^^
       :                 `-- this is a date
    31 |
       `----
    "#);
    insta::assert_snapshot!(rejected(&with("retire = \"disable\"", "attempts = 1.5\nloud = 1")), @r#"
     x a whole number from 0 to 255 is wanted here
       ,-[pgrotate.toml:30:12]
    29 | value = "{password}"
    30 | attempts = 1.5
       :            ^|^
       :             `-- this is a number with a decimal point
    31 | loud = 1
       `----
    "#);
}

#[test]
fn missing_keys() {
    insta::assert_snapshot!(rejected(&with("user = \"admin\"\n", "")), @r#"
     x `user` is missing
      ,-[pgrotate.toml:7:1]
    6 |
    7 | [database]
      : ^^^^^|^^^^
      :      `-- in this table
    8 | host = "db-{env}.example.com"
      `----
    "#);
    insta::assert_snapshot!(rejected(&with("place = \"server/{env}\"\n", "")), @r#"
     x `place` is missing
       ,-[pgrotate.toml:16:1]
    15 |
    16 | [authority]
       : ^^^^^|^^^^^
       :      `-- in this table
    17 | kind = "server"
       `----
    "#);
}

#[test]
fn copies_and_names() {
    let third = "[[sinks]]\nkind = \"store\"\nplace = \"other/url\"\nvalue = \"{password}\"\n";
    insta::assert_snapshot!(rejected(&format!("{GOOD}{third}").replace("other/", "{env}-other/")), @r#"
     x two copies are called `store:url`
       ,-[pgrotate.toml:36:1]
    35 | waits_for = ["store:url"]
    36 | [[sinks]]
       : ^^^^|^^^^
       :     `-- this one again
    37 | kind = "store"
       `----
     help: the first is in line 20
           give one of them a `name` of its own: name = "…"
    "#);
    insta::assert_snapshot!(rejected(&with("store:url\"]", "store:ulr\", \"safe\"]")), @r#"
      x 2 mistakes in pgrotate.toml

    Error:
      x there is no copy `store:ulr`
        ,-[pgrotate.toml:35:14]
     34 | place = "api-{env}"
     35 | waits_for = ["store:ulr", "safe"]
        :              ^^^^^|^^^^^
        :                   `-- did you mean `store:url`?
        `----
      help: there are: store:url, store:password

    Error:
      x there is no copy `safe`
        ,-[pgrotate.toml:35:27]
     34 | place = "api-{env}"
     35 | waits_for = ["store:ulr", "safe"]
        :                           ^^^^^^
        `----
      help: there are: store:url, store:password
    "#);
    insta::assert_snapshot!(rejected(&with("{group}/password", "{group}/url")), @r#"
     x `store:url` is there twice
       ,-[pgrotate.toml:25:1]
    24 |
    25 | [[sinks]]
       : ^^^^|^^^^
       :     `-- this one again
    26 | kind = "store"
       `----
     help: the first is in line 20
           one of the two names something else than was meant, or one of them is too many
    "#);
    insta::assert_snapshot!(rejected(&with("{group}/password", "safe/{env}")), @r#"
     x `safe:dev` and `store:dev` are one and the same place
       ,-[pgrotate.toml:25:1]
    24 |
    25 | [[sinks]]
       : ^^^^|^^^^
       :     `-- this one again
    26 | kind = "store"
       `----
     help: the first is in line 12
           one of the two names something else than was meant, or one of them is too many
    "#);
    let check = "[[checks]]\nkind = \"command\"\nplace = \"login\"\n";
    insta::assert_snapshot!(rejected(&format!("{GOOD}{check}")), @r#"
     x a check can't be called `login`: one that every run makes has this name
       ,-[pgrotate.toml:36:1]
    35 | waits_for = ["store:url"]
    36 | [[checks]]
       : ^^^^^^^^^^
    37 | kind = "command"
       `----
     help: give it another `name`
    "#);
}

#[test]
fn environments_that_meet() {
    insta::assert_snapshot!(rejected(&with("db-{env}.", "db.")), @r#"
     x dev and prod log in as the same role on the same server: admin@db.example.com:5432
      ,-[pgrotate.toml:8:8]
    7 | [database]
    8 | host = "db.example.com"
      :        ^^^^^^^^|^^^^^^^
      :                `-- the same in each
    9 | name = "app"
      `----
     help: put {env} into one of its names, or a variable that each environment has its own value for
    "#);
    insta::assert_snapshot!(rejected(&with("server/{env}", "server")), @r#"
     x dev and prod have the same server: server
       ,-[pgrotate.toml:16:1]
    15 |
    16 | [authority]
       : ^^^^^|^^^^^
       :      `-- the same in each
    17 | kind = "server"
       `----
     help: put {env} into one of its names, or a variable that each environment has its own value for
    "#);
    insta::assert_snapshot!(rejected(&with("safe/{env}", "safe")), @r#"
     x dev and prod keep the password in the same place: safe
       ,-[pgrotate.toml:12:1]
    11 |
    12 | [vault]
       : ^^^|^^^
       :    `-- the same in each
    13 | kind = "safe"
       `----
     help: put {env} into one of its names, or a variable that each environment has its own value for
    "#);
    insta::assert_snapshot!(rejected(&with("rg-2", "rg-1")), @r#"
      x 2 mistakes in pgrotate.toml

    Error:
      x dev and prod keep the password in the same place: rg-1/url
        ,-[pgrotate.toml:20:1]
     19 |
     20 | [[sinks]]
        : ^^^^|^^^^
        :     `-- the same in each
     21 | kind = "store"
        `----
      help: put {env} into one of its names, or a variable that each environment has its own value for

    Error:
      x dev and prod keep the password in the same place: rg-1/password
        ,-[pgrotate.toml:25:1]
     24 |
     25 | [[sinks]]
        : ^^^^|^^^^
        :     `-- the same in each
     26 | kind = "store"
        `----
      help: put {env} into one of its names, or a variable that each environment has its own value for
    "#);
}

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

#[test]
fn environments_that_differ() {
    let prod = "prod = { group = \"rg-2\" }";
    insta::assert_snapshot!(rejected(&with(prod, "prod = {}")), @r#"
     x prod has no variable `group`, which dev has
      ,-[pgrotate.toml:5:1]
    4 | dev = { group = "rg-1" }
    5 | prod = {}
      : ^^|^
      :   `-- every environment needs it
    6 |
      `----
    "#);
    insta::assert_snapshot!(rejected(&with(prod, "prod = { gruop = \"rg-2\" }")), @r#"
     x prod has no variable `group`, which dev has
      ,-[pgrotate.toml:5:10]
    4 | dev = { group = "rg-1" }
    5 | prod = { gruop = "rg-2" }
      :          ^^|^^
      :            `-- did you mean `group`?
    6 |
      `----
    "#);
    insta::assert_snapshot!(rejected(&with(prod, "prod = { group = \"rg-2\", env = \"x\" }")), @r#"
     x {env} means something else already
      ,-[pgrotate.toml:5:26]
    4 | dev = { group = "rg-1" }
    5 | prod = { group = "rg-2", env = "x" }
      :                          ^^^
    6 |
      `----
    "#);
    insta::assert_snapshot!(rejected(&with(prod, "\"pr od\" = {}\nstaging = \"x\"")), @r#"
      x 2 mistakes in pgrotate.toml

    Error:
      x this can't be the name of an environment
       ,-[pgrotate.toml:5:1]
     4 | dev = { group = "rg-1" }
     5 | "pr od" = {}
       : ^^^^^^^
     6 | staging = "x"
       `----
      help: letters, digits, `-` and `_`, with a letter or digit first: it becomes part of names
            elsewhere

    Error:
      x a table is wanted here
       ,-[pgrotate.toml:6:11]
     5 | "pr od" = {}
     6 | staging = "x"
       :           ^|^
       :            `-- this is a string
     7 |
       `----
      help: staging = {}, or with variables in the braces
    "#);
}

#[test]
fn one_environment_alone() {
    let text = with("name = \"app\"", "name = \"app\"\nport = \"{p}\"")
        .replace("{ group = \"rg-1\"", "{ group = \"rg-1\", p = 1")
        .replace("{ group = \"rg-2\"", "{ group = \"rg-2\", p = \"x\"");
    insta::assert_snapshot!(rejected(&text), @r#"
     x a whole number from 0 to 65535 is wanted here (in prod)
       ,-[pgrotate.toml:10:8]
     9 | name = "app"
    10 | port = "{p}"
       :        ^^|^^
       :          `-- this is no number
    11 | user = "admin"
       `----
    "#);
}

#[test]
fn passwords_and_urls() {
    let policy = |text: &str| rejected(&format!("{GOOD}\n[password]\n{text}\n"));
    insta::assert_snapshot!(policy("length = 12"), @r"
     x a password of 12 characters; 16 to 128 are possible
       ,-[pgrotate.toml:38:10]
    37 | [password]
    38 | length = 12
       :          ^^
       `----
    ");
    insta::assert_snapshot!(policy("length = 20"), @r"
     x 118 bits are too few; at least 160 are wanted, so make it longer
       ,-[pgrotate.toml:38:10]
    37 | [password]
    38 | length = 20
       :          ^^
       `----
    ");
    insta::assert_snapshot!(policy("symbols = \"-$\""), @r#"
     x '$' would have to be encoded somewhere; only `-`, `_` and `.` never are
       ,-[pgrotate.toml:38:11]
    37 | [password]
    38 | symbols = "-$"
       :           ^^^^
       `----
    "#);
    let url =
        |text: &str| rejected(&with("user = \"admin\"", &format!("user = \"admin\"\nurl = \"{text}\"")));
    insta::assert_snapshot!(url("postgresql://{user}:{password}@other/{name}"), @r#"
     x as a URL, its host is "other" where the configuration says "db-dev.example.com" (in dev; the
     | like in prod)
       ,-[pgrotate.toml:11:7]
    10 | user = "admin"
    11 | url = "postgresql://{user}:{password}@other/{name}"
       :       ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
    12 |
       `----
    "#);
    insta::assert_snapshot!(url("postgresql://{user}:{pasword}@{host}/{name}"), @r#"
     x no template variable {pasword} here; there are {ENV}, {env}, {group}, {user}, {password},
     | {host}, {port}, {name}
       ,-[pgrotate.toml:11:28]
    10 | user = "admin"
    11 | url = "postgresql://{user}:{pasword}@{host}/{name}"
       :                            ^^^^|^^^^
       :                                `-- did you mean {password}?
    12 |
       `----
    "#);
    insta::assert_snapshot!(url("postgresql://{user}:hunter2@{host}/{name}?p={password}"), @r#"
     x {password} must be the URL's password
       ,-[pgrotate.toml:11:7]
    10 | user = "admin"
    11 | url = "postgresql://{user}:*******@{host}/{name}?p={password}"
       :       ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
    12 |
       `----
    "#);
    insta::assert_snapshot!(rejected(&with("db-{env}.example.com", "db-{env}:5432")), @r#"
     x a host name is wanted here
      ,-[pgrotate.toml:8:8]
    7 | [database]
    8 | host = "db-{env}:5432"
      :        ^^^^^^^^^^^^^^^
    9 | name = "app"
      `----
     help: without scheme, user, port and path; those are keys of their own
    "#);
    insta::assert_snapshot!(rejected(&with("\"admin\"", "\"\"")), @r#"
     x `user` is empty
       ,-[pgrotate.toml:10:8]
     9 | name = "app"
    10 | user = ""
       :        ^^
    11 |
       `----
    "#);
}

#[test]
fn providers_own_words() {
    insta::assert_snapshot!(rejected(&with("safe/{env}", "nowhere")), @r#"
     x cannot use this place: there is no such thing
       ,-[pgrotate.toml:12:1]
    11 |
    12 | [vault]
       : ^^^^^^^
    13 | kind = "safe"
       `----
     help: name another one
    "#);
}

#[test]
fn several_at_once() {
    insta::assert_snapshot!(rejected(&with("resource_group", "resource_grup").replace("waits_for", "wait_for")), @r#"
      x 2 mistakes in pgrotate.toml

    Error:
      x unknown key `resource_grup`
        ,-[pgrotate.toml:28:1]
     27 | place = "{group}/password"
     28 | resource_grup = "{group}"
        : ^^^^^^|^^^^^^
        :       `-- did you mean `resource_group`?
     29 | value = "{password}"
        `----
      help: there are: kind, name, value, retire, place, resource_group, attempts, dialect, loud,
            environment

    Error:
      x unknown key `wait_for`
        ,-[pgrotate.toml:35:1]
     34 | place = "api-{env}"
     35 | wait_for = ["store:url"]
        : ^^^^|^^^
        :     `-- did you mean `waits_for`?
        `----
      help: there are: kind, name, waits_for, place, resource_group, attempts, dialect, loud,
            environment
    "#);
}

#[test]
fn credentials_are_refused_and_covered() {
    insta::assert_snapshot!(rejected(&with("user = \"admin\"", "user = \"admin\"\npassword = \"hunter2\"")), @r#"
     x `password`: credentials never stand in the configuration
       ,-[pgrotate.toml:11:1]
    10 | user = "admin"
    11 | password = "*******"
       : ^^^^|^^^
       :     `-- take it out, and replace what stood here if others could read it
    12 |
       `----
     help: the role's password is kept in the vault of record; the vendors' credentials come from
           where their own tools look (Azure CLI login, AWS profiles, GH_TOKEN or `gh`,
           OP_CONNECT_TOKEN) or from a `credentials_file` that only its owner can read
    "#);
    for text in [
        with("user = \"admin\"", "user = \"admin\"\npassword = \"hunter2\""),
        with("user = \"admin\"", "user = \"admin\"\npassword = hunter2"),
        format!("password = \"hunter2\"\n{GOOD}"),
        format!("token = \"hunter2\"\n{GOOD}"),
        format!("{GOOD}\n[github]\ntoken = \"hunter2\"\n"),
        format!("{GOOD}\n[password]\nvalue = \"hunter2\"\n"),
        with("{ group = \"rg-1\" }", "{ group = \"rg-1\", admin_password = \"hunter2\" }"),
        with("retire = \"disable\"", "client_secret = \"hunter2\""),
        with("retire = \"disable\"", "environment = { PGPASSWORD = \"hunter2\" }\nnonsense = 1"),
        with("value = \"{password}\"", "value = \"hunter2\""),
        with("user = \"admin\"", "user = \"admin\"\nurl = \"postgresql://{user}:hunter2@{host}/{name}\""),
        with("retire = \"disable\"", "api_key = [\"hunter2\"]"),
    ] {
        let report = parse(&text).err().expect("it is refused");
        assert!(!super::shown(&report).contains("hunter2"), "{}", super::shown(&report));
        assert!(!format!("{report:?} {report:#}").contains("hunter2"), "{report:?}");
    }
}

/// A file is cut off after every character: it is read or refused, and never shown uncovered.
#[test]
fn no_torn_file_ends_the_program_or_shows_a_credential() {
    let text = with(
        "user = \"admin\"",
        "user = \"admin\"\npassword = \"hunter2\"\nurl = \"postgresql://{user}:hunter2@{host}/{name}\"",
    )
    .replace("[\"store:url\"]", "[\"store:url\"]\ntoken = \"\"\"\nhunter2\n\"\"\" # ü");
    for (at, _) in text.char_indices() {
        if let Err(report) = parse(&text[..at]) {
            assert!(!super::shown(&report).contains("hunter2"), "{}", super::shown(&report));
        }
    }
}
