//! Mistakes of form, as they are shown: what is no TOML, no key, no kind, no template.

use std::path::Path;

use super::{GOOD, rejected, shown, with};
use crate::config::Config;

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
     help: there are: project, confirm, credentials_file, ca_file, evidence, environments, database,
           password, azure, github, aws, onepassword, vault, authority, sinks, consumers, checks,
           records, vantages, census, strategy, roles, proven_first, proven_within
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
     help: there are: api, app_id, installation_id
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
    insta::assert_snapshot!(rejected(&with("[vault]", "[onepassword]\nvia = \"cil\"\n\n[vault]")), @r#"
     x `cil` can't be chosen here
       ,-[pgrotate.toml:13:7]
    12 | [onepassword]
    13 | via = "cil"
       :       ^^|^^
       :         `-- did you mean `cli`?
    14 |
       `----
     help: there are: connect, cli
    "#);
}

/// How the mistakes of these tables are shown by the providers of the program.
#[track_caller]
fn rejected_by_providers(tables: &str) -> String {
    let text = r#"project = "p"
[environments]
dev = {}
[database]
host = "localhost"
name = "app"
user = "admin"
[vault]
kind = "local_vault"
path = "v.age"
[authority]
kind = "postgres"
"#;
    match Config::parse(Path::new("pgrotate.toml"), format!("{text}{tables}")) {
        Ok(_) => panic!("it was accepted:\n{tables}"),
        Err(report) => shown(&report),
    }
}

/// The options that tables of several kinds share.
#[test]
fn how_another_machine_is_reached() {
    let sink = |rest: &str| {
        let own = "[[sinks]]\nkind = \"env_file\"\npath = \"/a.env\"\nkey = \"K\"\ndialect = \"shell\"\nvalue = \"{password}\"";
        rejected_by_providers(&format!("{own}\n{rest}\n"))
    };
    insta::assert_snapshot!(sink("host = \"agent-1\"\nssh = { prot = 22 }"), @r#"
     x unknown key `prot`
       ,-[pgrotate.toml:20:9]
    19 | host = "agent-1"
    20 | ssh = { prot = 22 }
       :         ^^|^
       :           `-- did you mean `port`?
       `----
     help: there are: port, identity_file, config_file, known_hosts_file
    "#);
    insta::assert_snapshot!(sink("ssh = { port = 22 }"), @r#"
     x cannot use `ssh` without `host`: nobody says which machine is meant
       ,-[pgrotate.toml:13:1]
    12 | kind = "postgres"
    13 | [[sinks]]
       : ^^^^^^^^^
    14 | kind = "env_file"
       `----
     help: add host = "…", or leave `ssh` out for this machine
    "#);
    insta::assert_snapshot!(sink("host = \"-oProxyCommand=x\""), @r#"
     x cannot reach "-oProxyCommand=x" by ssh: that can't be the name of a host
       ,-[pgrotate.toml:13:1]
    12 | kind = "postgres"
    13 | [[sinks]]
       : ^^^^^^^^^
    14 | kind = "env_file"
       `----
     help: host = "agent-1", "user@agent-1", or a Host of your ssh configuration
    "#);
    let consumer = "[[consumers]]\nkind = \"command\"\ncommand = [\"psql\", \"{database_url}\"]\n";
    insta::assert_snapshot!(rejected_by_providers(consumer), @r#"
     x no template variable {database_url} here; there are {ENV}, {env}
       ,-[pgrotate.toml:15:21]
    14 | kind = "command"
    15 | command = ["psql", "{database_url}"]
       :                     ^^^^^^^^^^^^^^
       `----
     help: it stands only in a sink's `value` and in the `environment` of a check of kind `command`
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
fn evidence_is_a_table_with_two_keys() {
    let with = |line: &str| rejected(&GOOD.replacen("[environments]", &format!("{line}\n[environments]"), 1));
    insta::assert_snapshot!(with("evidence = { sshkey = \"a\", trusted_keys = \"b\" }"), @r#"
      x 2 mistakes in pgrotate.toml

    Error:
      x unknown key `sshkey`
       ,-[pgrotate.toml:3:14]
     2 |
     3 | evidence = { sshkey = "a", trusted_keys = "b" }
       :              ^^^|^^
       :                 `-- did you mean `ssh_key`?
     4 | [environments]
       `----
      help: there are: ssh_key, trusted_keys

    Error:
      x a list is wanted here
       ,-[pgrotate.toml:3:43]
     2 |
     3 | evidence = { sshkey = "a", trusted_keys = "b" }
       :                                           ^|^
       :                                            `-- this is a string
     4 | [environments]
       `----
    "#);
}
