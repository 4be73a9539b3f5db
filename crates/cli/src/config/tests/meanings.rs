//! Mistakes of meaning, as they are shown: names that clash, environments that meet, credentials.

use super::{GOOD, parse, rejected, with};

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
    // The fake's place says where it is, as PostgreSQL itself does.
    let by_sql = with("db-{env}.", "db.").replace("server/{env}", "sql:admin@db.example.com:5432");
    assert!(!rejected(&by_sql).contains("2 mistakes"), "{}", rejected(&by_sql));
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
      help: there are: kind, name, waits_for, sessions, place, resource_group, attempts, dialect,
            loud, environment
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
