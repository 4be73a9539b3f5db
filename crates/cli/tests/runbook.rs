//! `pgrotate runbook`: its text in both languages, what bash and shellcheck say to it, and its functions in a real bash.

// A test, helpers included, says what it expects by unwrapping.
#![allow(clippy::unwrap_used)]

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

fn pgrotate(config: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pgrotate"));
    command.env_clear().env("HOME", "/home/operator").arg("--config").arg(config).args(arguments);
    command.output().unwrap()
}

fn script(config: &Path, arguments: &[&str]) -> String {
    let output = pgrotate(config, &[&["runbook"], arguments].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn example() -> PathBuf {
    root().join("examples/mindwell/pgrotate.toml")
}

/// Runs a program on a text; it has to find nothing.
fn finds_nothing(program: &str, arguments: &[&str], text: &str) {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child =
        command.spawn().unwrap_or_else(|_| panic!("there is no {program}; `make setup` installs it"));
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program}: {said}\n{text}");
}

fn is_good_bash(text: &str) {
    finds_nothing("bash", &["-n"], text);
    finds_nothing("shellcheck", &["--shell=bash", "-"], text);
}

#[test]
fn the_example_in_english_and_in_russian() {
    for language in ["en", "ru"] {
        let text = script(&example(), &["dev", "--lang", language]);
        is_good_bash(&text);
        let shown = text.replace(&root().display().to_string(), "/srv/project");
        insta::assert_snapshot!(format!("mindwell_{language}"), shown);
    }
    assert_eq!(commands("en"), commands("ru"));
    assert!(commands("en").len() > 12);
}

/// The commands of every instruction.
fn commands(language: &str) -> Vec<String> {
    let data: serde_json::Value =
        serde_json::from_str(&script(&example(), &["--json", "dev", "--lang", language])).unwrap();
    let steps = data["steps"].as_array().unwrap().iter();
    let instructions = steps.flat_map(|step| step["instructions"].as_array().unwrap());
    instructions.map(|own| own["commands"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn as_data_it_is_one_object_with_every_step() {
    let text = script(&example(), &["--json", "prod"]);
    assert_eq!(text.lines().count(), 1);
    let data: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(data["environment"], "prod");
    let steps: Vec<u64> =
        data["steps"].as_array().unwrap().iter().map(|one| one["step"].as_u64().unwrap()).collect();
    assert_eq!(steps, [0, 1, 2, 3, 4, 5, 6, 7]);
    assert_eq!(data["steps"][1]["instructions"][0]["tools"], serde_json::json!(["az", "jq"]));
    assert!(data["script"].as_str().unwrap().starts_with("#!/usr/bin/env bash\n"));
}

#[test]
fn an_environment_that_is_not_there_is_a_usage_error() {
    let output = pgrotate(&example(), &["runbook", "dve"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("did you mean dev?"));
}

/// Every kind of provider that there is, with names that a shell would take for more than names.
const EVERY_KIND: &str = r##"
project = "hostile"
[environments]
dev = {}
[database]
host = "db.example.com"
name = "a'p$(touch owned)p"
user = "adm'in`touch owned`"
url = "postgresql+asyncpg://{user}:{password}@{host}:{port}/{name}?application_name=$(touch%20owned)';touch%20owned;'"
[onepassword]
via = "VIA"
[aws]
region = "eu-central-1"
profile = "$(touch owned)"
[github]
api = "https://github.example.com/api/v3"
AUTHORITY
VAULT

[[sinks]]
kind = "azure_key_vault"
vault = "kv-dev"
secret = "url"
value = "export X='{database_url}'; $(touch owned) \n#"
[[sinks]]
kind = "azure_app_service"
subscription = "s"
resource_group = "g"
app = "app"
slot = "blue"
setting = "A'; touch owned; '\ntouch owned #"
value = "{database_url}"
[[sinks]]
kind = "azure_app_service"
name = "string"
subscription = "s"
resource_group = "g"
app = "app"
connection_string = "$(touch owned)"
value = "{database_url}"
[[sinks]]
kind = "github_actions"
repository = "o/r"
secret = "A"
value = "{password}"
[[sinks]]
kind = "github_actions"
name = "of an environment"
repository = "o/r"
environment = "`touch owned`"
secret = "A"
value = "{password}"
[[sinks]]
kind = "github_actions"
name = "of all"
organization = "o"
secret = "A"
value = "{database_url}"
[[sinks]]
kind = "env_file"
path = "~/a'b $(touch owned)/verbatim.env"
key = "A*$(>owned)"
dialect = "verbatim"
value = "{database_url}"
[[sinks]]
kind = "env_file"
path = "/etc/shell.env"
key = "A"
dialect = "shell"
value = "{database_url}"
[[sinks]]
kind = "env_file"
host = "runner@agent-1"
ssh = { port = 2222, identity_file = "~/key file", known_hosts_file = "~/known", config_file = "/c" }
path = "~/a'b $(touch owned)/docker.env"
key = "A"
dialect = "docker"
value = "{password}"
[[sinks]]
kind = "env_file"
host = "agent-2"
path = "/etc/systemd.env"
key = "A"
dialect = "systemd"
value = "{database_url}"
[[sinks]]
kind = "aws_secrets_manager"
secret = "plain $(touch owned)"
value = "{password}"
[[sinks]]
kind = "aws_secrets_manager"
name = "key"
secret = "json"
json_key = "pass'word\" $(touch owned)"
value = "{password}"

[[consumers]]
kind = "azure_app_service"
subscription = "s"
resource_group = "g"
app = "app"
slot = "blue"
waits_for = ["azure_key_vault:url"]
[[consumers]]
kind = "command"
name = "here"
command = ["touch", "it's $(touch owned)\n"]
[[consumers]]
kind = "command"
name = "there\ntouch owned"
host = "runner@agent-1"
directory = "~/a'b $(touch owned)"
command = ["sudo", "it's $(touch owned)\n"]

[[checks]]
kind = "command"
name = "a\ntouch owned"
directory = "x'y"
command = ["./run", "$(touch owned)"]
environment = { A = "x{database_url}'$(touch owned)", B = "$(touch owned)", "C D" = "{password}" }
[[checks]]
kind = "http"
url = "https://example.com/a?b='$(touch%20owned)&c=`touch%20owned`"
headers = { x-a = "'$(touch owned)" }
[[checks]]
kind = "azure_app_service_log"
subscription = "s"
resource_group = "g"
app = "app"
patterns = ["'$(touch owned)"]

[[records]]
kind = "changelog"
path = "a'b $(touch owned).md"
[[records]]
kind = "webhook"
name = "slack"
format = "slack"
url_variable = "A"
[[records]]
kind = "webhook"
name = "teams"
format = "teams"
url_variable = "A"
[[records]]
kind = "webhook"
name = "json"
format = "json"
url_variable = "A"
[[records]]
kind = "github_issue"
[[records]]
kind = "jira"
url = "https://jira.example.com/base"
"##;

const VAULTS: [&str; 3] = [
    "[vault]\nkind = \"onepassword\"\nvault = \"V\\\"'$(touch owned)\"\nitem = \"I'`touch owned`\"\nfield = \"F'$(touch owned)\"",
    "[vault]\nkind = \"local_vault\"\npath = \"a'b $(touch owned).age\"",
    "[vault]\nkind = \"local_vault\"\npath = \"~/v.age\"\nidentity_file = \"~/i'$(touch owned)\"",
];
const AUTHORITIES: [&str; 2] = [
    "[authority]\nkind = \"azure_postgres_flexible\"\nsubscription = \"s\"\nresource_group = \"g\"\nserver = \"pg\"",
    "[authority]\nkind = \"postgres\"",
];

/// The configuration with every kind, several times, so that each vault, way and authority is in one of them.
fn hostile(folder: &Path) -> Vec<PathBuf> {
    let ways = ["connect", "cli", "cli"];
    let each = VAULTS.iter().zip(ways).zip(AUTHORITIES.iter().cycle()).enumerate();
    let write = |(number, ((vault, way), authority)): (usize, ((&&str, &str), &&str))| {
        let path = folder.join(format!("{number}.toml"));
        let text = EVERY_KIND.replace("VIA", way).replace("AUTHORITY", authority).replace("VAULT", vault);
        std::fs::write(&path, text).unwrap();
        path
    };
    let mut paths: Vec<PathBuf> = each.map(write).collect();
    let path = folder.join("op.toml");
    let text =
        EVERY_KIND.replace("VIA", "cli").replace("AUTHORITY", AUTHORITIES[1]).replace("VAULT", VAULTS[0]);
    std::fs::write(&path, text).unwrap();
    paths.push(path);
    paths
}

#[test]
fn every_kind_with_hostile_names_is_good_bash() {
    let folder = tempfile::tempdir().unwrap();
    for config in hostile(folder.path()) {
        for language in ["en", "ru"] {
            is_good_bash(&script(&config, &["dev", "--lang", language]));
        }
    }
}

/// Every program that a script calls, as a stand-in that does nothing but answer well.
const STAND_INS: &str = r#"
answers() { case "$*" in
    *keyvault*show*--query*) echo https://kv/secrets/x/1 ;;
    *keyvault*show*) echo '{"value":"","tags":{"a":"b"},"contentType":"t"}' ;;
    *appsettings*list*) echo '[]' ;;
    *connection-string*list*) printf '[{"name":"$(touch owned)","value":"","type":"Custom"}]\n' ;;
    *flexible-server*show*) echo '{"state":"Ready","authConfig":{"passwordAuth":"Enabled"}}' ;;
    *visibility*) echo selected ;;
    *get-secret-value*--secret-id\ json*) printf '{"pass'\''word\\" $(touch owned)":"x"}\n' ;;
    esac; }
az() { [[ -t 0 ]] || cat >/dev/null; answers "$*"; }
aws() { az "$@"; }
gh() { az "$@"; }
ssh() { [[ ${*: -1} == *cat\ --* ]] && echo "A=" || cat >/dev/null; }
curl() { [[ $* == *write-out* ]] && printf 200 || cat >/dev/null; }
psql() { case $PGPASSWORD in new*) [[ -e installed ]] || return 2; echo;; *) [[ ! -e installed ]] || { echo "password authentication failed"; return 2; }; esac; }
"#;

/// What is in the folders of a run: whatever the names said, nothing was made that no command meant.
#[test]
fn no_name_is_carried_out() {
    let folder = tempfile::tempdir().unwrap();
    for config in hostile(folder.path()) {
        let text = script(&config, &["dev"]);
        // The steps one after the other, each in a shell of its own that goes on after what fails: here it is about
        // what is carried out that should not be.
        let (functions, _) = text.split_once("\nfirst=").unwrap();
        let functions = functions.replace("set -euo pipefail", "set -uo pipefail");
        let passwords = "old_password=old_Password1 new_password=new_Password1 encoded_password=$new_password database_url=u";
        let steps = (0..8).map(|step| format!("(step_{step}) || true\n")).collect::<String>();
        let bash = format!(
            "{functions}\nbegin() {{ :; }}\nstop() {{ exit 1; }}\nexpect() {{ :; }}\nsessions() {{ :; }}\n\
             sleep() {{ :; }}\n{STAND_INS}\n{passwords}\nTICKET=o/r#1\n{steps}"
        );
        let mut command = Command::new("bash");
        command
            .current_dir(folder.path())
            .env("HOME", folder.path())
            .env("A", "https://x")
            .stdin(Stdio::null());
        let output = command.args(["-c", &bash]).output().unwrap();
        let made = find(folder.path(), "owned");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(made.is_empty(), "{made:?}\n{said}");
        // The control: the steps were carried out, names and all.
        for name in ["a'b $(touch owned).md", "it's $(touch owned)\n"] {
            assert!(folder.path().join(name).exists(), "{name:?} was not made\n{said}");
        }
    }
}

/// Files of exactly this name.
fn find(folder: &Path, name: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(find(&path, name));
        } else if path.file_name().is_some_and(|own| own == name) {
            found.push(path);
        }
    }
    found
}

/// Runs lines of bash with the script's functions and these passwords.
fn with_functions(new: &str, lines: &str) -> Output {
    let text = script(&example(), &["dev"]);
    let (functions, _) = text.split_once("\nconnection=").unwrap();
    let (_, env) = text.split_once("# What a line of an env file").unwrap();
    let (env, _) = env.split_once("\nmessage()").unwrap();
    let bash = format!("{functions}\n#{env}\nask_passwords\n{lines}");
    let mut command = Command::new("bash");
    command.args(["-c", &bash]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // A refused password ends the script before it has read everything.
    let _ = child.stdin.take().unwrap().write_all(format!("old_Password1\n{new}\n").as_bytes());
    child.wait_with_output().unwrap()
}

fn said(new: &str, lines: &str) -> String {
    let output = with_functions(new, lines);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

const PRESENT: &str = "postgresql+psycopg://mindwelladmin:o/l@d@pgflex-mindwell-dev.postgres.database.azure.com/mindwell_app?a=b";

#[test]
fn of_a_url_only_the_password_changes_and_it_is_encoded() {
    let given = format!("printf '%s' '{PRESENT}' | with_new_password '' ''");
    assert_eq!(said("n/w+P%ss@ord1", &given), PRESENT.replace("o/l@d", "n%2Fw%2BP%25ss%40ord1"));
    let none = "printf '' | with_new_password 'A=' ';'";
    let url = "postgresql+asyncpg://mindwelladmin:n%2FwPassword1@pgflex-mindwell-dev.postgres.database.azure.com:5432\
               /mindwell_app?sslmode=require";
    assert_eq!(said("n/wPassword1", none), format!("A={url};"));
    for other in [
        "postgresql://other:x@pgflex-mindwell-dev.postgres.database.azure.com/d",
        "postgresql://mindwelladmin:x@prod/d",
        "no URL",
    ] {
        let output = with_functions(
            "new_Password1",
            &format!("x=$(printf '%s' '{other}' | with_new_password '' '')\necho on"),
        );
        assert!(!output.status.success() && output.stdout.is_empty(), "{other}");
    }
}

#[test]
fn a_line_of_an_env_file_changes_alone_in_every_dialect() {
    let changed = |dialect: &str, text: &str| {
        let lines = format!(
            "text=$(cat <<'END' && printf x\n{text}\nEND\n)\ntext=${{text%x}}\n\
             printf '%s' \"$text\" | with_env_value K {dialect} 'a\"'\\''\\b'"
        );
        said("new_Password1", &lines)
    };
    assert_eq!(changed("verbatim", "# x\nK=old value\nKK=1\n K=2"), "# x\nK=a\"'\\b\nKK=1\n K=2\n");
    assert_eq!(changed("docker", " K=old\nA=1"), " K=a\"'\\b\nA=1\n");
    assert_eq!(changed("shell", "export K=\"old\"\nA=1"), "export K='a\"'\\''\\b'\nA=1\n");
    assert_eq!(changed("systemd", "K='old'\r\nA=1\r"), "K=\"a\\\"'\\\\b\"\r\nA=1\r\n");
    let value = |dialect, line| said("new_Password1", &format!("printf '%s' {line} | env_value K {dialect}"));
    assert_eq!(value("shell", r#"$'A=1\nexport K="x"\n'"#), "x");
    assert_eq!(value("verbatim", r#"$'K="x"'"#), "\"x\"");
    for bad in ["$'A=1'", "$'K=1\\nK=2'", "'K=\"a://b\\\"c\"'"] {
        let output =
            with_functions("new_Password1", &format!("x=$(printf '%s' {bad} | env_value K shell)\necho on"));
        assert!(!output.status.success() && output.stdout.is_empty(), "{bad}");
    }
}

#[test]
fn what_is_shown_has_no_password_and_a_poor_password_is_refused() {
    let lines = "printf 'a n/wPassword1 n%%2FwPassword1 old_Password1\\nFATAL: Password authentication failed x\\n' |\
                 tee >(mask >&2) | troubles 'password authentication failed'";
    let output = with_functions("n/wPassword1", lines);
    let shown = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && !shown.contains("Password1"), "{shown}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "FATAL: Password authentication failed x\n");
    for poor in ["short", "with a space", "пароль-пароль", "old_Password1", ""] {
        assert!(!with_functions(poor, "").status.success(), "{poor}");
    }
}
