//! GitHub, AWS, 1Password, files and machines, Alembic, health, clocks.
//!
//! IAM's simulator is the sandbox's own, because moto has none; its answers have the form that AWS documents. What only
//! another machine can take away (host keys, logins, folders over ssh) is taken away in the providers' own tests, which
//! have an sshd.

use std::process::Command;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::{
    Away, Case, answer, blocks, case, configured, file, other, play, play_in, state, unseen, warning,
};
use crate::lab::Lab;

const URL: &str = "github_actions:DEV_DATABASE_URL";
const PASSWORD: &str = "github_actions:DEV_POSTGRES_ADMIN_PASSWORD";
const SECRET: &str = "aws_secrets_manager:mindwell/dev/postgres/admin-password";
const ITEM: &str = "onepassword:MindWell dev Postgres Admin";
const FILE: &str = "env_file:dev.env";

fn github(what: &'static str, bad: Value, good: Value) -> Away {
    state("github", what, bad, good)
}

fn aws(what: &'static str, bad: Value) -> Away {
    state("aws", what, bad, Value::Null)
}

/// Takes actions away from the identity at AWS.
fn aws_denies(actions: &[&str]) -> Away {
    state("aws", "deny", json!(actions), json!([]))
}

/// GitHub's token ends after so many minutes.
fn token_ends(after: SignedDuration) -> Away {
    let ends = (Timestamp::now() + after).strftime("%Y-%m-%d %H:%M:%S UTC").to_string();
    github("token_ends", json!(ends), Value::Null)
}

/// A secret of the same name in an environment of the repository.
fn environment_secret(environment: &str) -> Away {
    let secret = |name: Value| json!({"environment": environment, "name": name});
    github("environment_secret", secret(json!("DEV_DATABASE_URL")), secret(Value::Null))
}

/// A workflow run in this state.
fn run(status: &'static str) -> Away {
    Box::new(move |lab| {
        lab.set("github", "run", &json!(status));
        Box::new(|lab| lab.set("github", "runs_done", &Value::Null))
    })
}

fn item(what: &'static str) -> Away {
    Box::new(move |lab| {
        lab.set("onepassword", what, &Value::Null);
        Box::new(|lab| lab.set("onepassword", "restored", &Value::Null))
    })
}

/// A credential that its system does not know.
fn credential(change: fn(&str) -> String) -> Away {
    file("credentials.env", change)
}

/// The line of a credential, with another value.
fn replaced(text: &str, name: &str, value: &str) -> String {
    let line = |line: &str| match line.split_once('=') {
        Some((own, _)) if own == name => format!("{name}={value}\n"),
        _ => format!("{line}\n"),
    };
    text.lines().map(line).collect()
}

/// The configuration with another text in one place.
fn reconfigured(change: fn(&str) -> String) -> Away {
    file("pgrotate.toml", change)
}

const AGENT: &str = "agents/dev/.config/mindwell/dev.env";

fn on_github() -> Vec<Case> {
    vec![
        case(
            "GitHub's token is revoked",
            credential(|text| replaced(text, "GH_TOKEN", "ghp_revoked")),
            [blocks(URL, "does not accept the token"), blocks(PASSWORD, "does not accept the token")],
        ),
        case(
            "a classic token's scope",
            github("scopes", json!([]), json!(["admin:org", "repo"])),
            [blocks(URL, "lacks the scope repo"), blocks(PASSWORD, "lacks the scope repo")],
        ),
        case(
            "single sign-on",
            answer(json!({
                "system": "github", "path_contains": "/repos/", "status": 403,
                "headers": {"x-github-sso": "required; url=https://github.com/orgs/mindwell/sso?ticket=1"},
            })),
            [blocks(URL, "single sign-on"), blocks(PASSWORD, "single sign-on")],
        ),
        case(
            "the account's role",
            github("role", json!("read"), json!("admin")),
            [
                blocks(URL, "may not write to the repository"),
                blocks(PASSWORD, "may not write to the repository"),
            ],
        ),
        case(
            "the repository is archived",
            github("archived", json!(true), json!(false)),
            [blocks(URL, "archived"), blocks(PASSWORD, "archived")],
        ),
        case(
            "the token ends in minutes",
            token_ends(SignedDuration::from_mins(5)),
            [blocks(URL, "the classic token ends on"), blocks(PASSWORD, "the classic token ends on")],
        ),
        case(
            "the token ends tomorrow",
            token_ends(SignedDuration::from_hours(24)),
            [warning(URL, "the classic token ends on")],
        ),
        case(
            "a run is queued",
            run("queued"),
            [
                warning(URL, "deploy dev #1 (queued)"),
                warning(PASSWORD, "refused, and shows as their failure"),
            ],
        ),
        case("a run waits for an approval", run("waiting"), [warning(URL, "deploy dev #1 (waiting)")]),
        case(
            "the right to see runs and environments",
            github("deny", json!(["actions=read"]), json!([])),
            [
                unseen(URL, "whether workflow runs are on their way"),
                unseen(URL, "whether an environment has a secret of the same name"),
            ],
        ),
        case(
            "an environment's secret that wins",
            environment_secret("dev"),
            [blocks(URL, "jobs of the environment dev read a secret of their own")],
        ),
        case(
            "a secret of another environment that wins",
            environment_secret("qa/eu"),
            [warning(URL, "jobs of the environment qa/eu read a secret of their own")],
        ),
        case(
            "there is no such secret of the organization",
            configured(
                "[[sinks]]\nkind = \"github_actions\"\norganization = \"mindwell\"\nsecret = \"DEV_GONE\"\n\
                 value = \"{database_url}\"",
            ),
            [blocks("github_actions:DEV_GONE", "there is no secret of this name")],
        ),
        case(
            "GitHub's clock is two minutes ahead",
            github("clock_ahead_s", json!(120), json!(0)),
            [warning("clock", "behind that of GitHub")],
        ),
    ]
}

fn on_aws() -> Vec<Case> {
    const PUT: &str = "secretsmanager:PutSecretValue";
    let denies = json!({"Statement": [{"Effect": "Deny", "Principal": "*", "Action": PUT, "Resource": "*"}]});
    vec![
        case("the right to write the secret", aws_denies(&[PUT]), [blocks(SECRET, "no policy allows")]),
        case(
            "the right to write, and to see the secret's own policy",
            aws_denies(&[PUT, "secretsmanager:GetResourcePolicy"]),
            [unseen(SECRET, "without conditions")],
        ),
        case(
            "the right to read the secret",
            aws_denies(&["secretsmanager:GetSecretValue"]),
            [blocks(SECRET, "secretsmanager:GetSecretValue is not allowed")],
        ),
        case(
            "the right to look at the secret",
            aws_denies(&["secretsmanager:DescribeSecret"]),
            [blocks(SECRET, "secretsmanager:DescribeSecret is not allowed")],
        ),
        case(
            "the right to ask what is allowed",
            aws_denies(&["iam:SimulatePrincipalPolicy"]),
            [unseen(SECRET, "may not ask IAM")],
        ),
        case(
            "the secret's own policy denies writes",
            aws("policy", json!(denies.to_string())),
            [warning(SECRET, "own policy denies writes")],
        ),
        case(
            "AWS rotates the secret itself",
            aws("described", json!({"RotationEnabled": true})),
            [blocks(SECRET, "rotation is switched on")],
        ),
        case(
            "the secret is to be deleted",
            aws("described", json!({"DeletedDate": 1_795_000_000.0})),
            [blocks(SECRET, "scheduled for deletion")],
        ),
        case(
            "the secret is another service's",
            aws("described", json!({"OwningService": "rds"})),
            [blocks(SECRET, "managed by rds")],
        ),
        case(
            "the secret is a replica",
            aws("described", json!({"PrimaryRegion": "us-east-1"})),
            [blocks(SECRET, "a replica")],
        ),
        case(
            "a replica does not follow",
            aws("described", json!({"ReplicationStatus": [{"Region": "eu-west-1", "Status": "Failed"}]})),
            [warning(SECRET, "eu-west-1 does not follow")],
        ),
        case("the key is disabled", aws("key", json!("Disabled")), [blocks(SECRET, "in the state Disabled")]),
        case(
            "the key is to be deleted",
            aws("key", json!("PendingDeletion")),
            [blocks(SECRET, "in the state PendingDeletion")],
        ),
        case(
            "the right to use the key",
            aws_denies(&["kms:GenerateDataKey"]),
            [unseen(SECRET, "allows kms:GenerateDataKey")],
        )
        .with(aws("key", json!("Enabled"))),
        case(
            "the right to look at the key",
            aws_denies(&["kms:DescribeKey"]),
            [unseen(SECRET, "the state of the secret's KMS key")],
        )
        .with(aws("key", json!("Enabled"))),
        case(
            "AWS does not know the credentials' clock",
            state("aws", "clock_ahead_s", json!(400), json!(0)),
            [blocks("clock", "6 min"), blocks(SECRET, "InvalidSignatureException")],
        ),
    ]
}

fn elsewhere() -> Vec<Case> {
    vec![
        case("two items of one title", item("ambiguous"), [blocks(ITEM, "there are 2 of this name")]),
        case("there is no item", item("missing"), [blocks(ITEM, "there is none of this name")]),
        // Connect does not list what is archived.
        case("the item is archived", item("archived"), [blocks(ITEM, "there is none of this name")]),
        case(
            "the right to write the vault of record",
            state("onepassword", "read_only", json!(true), json!(false)),
            [blocks(ITEM, "does not have the right")],
        ),
        case(
            "Connect's token is revoked",
            credential(|text| replaced(text, "OP_CONNECT_TOKEN", "revoked")),
            [blocks(ITEM, "does not accept the token")],
        ),
        case("there is no file", other(hide, show), [blocks(FILE, "there is no such file")]),
        case(
            "a line that is there twice",
            file(AGENT, |text| format!("{text}DATABASE_URL=again\n")),
            [blocks(FILE, "DATABASE_URL stands in it twice")],
        ),
        case(
            "a line that is not there",
            file(AGENT, |text| text.replace("DATABASE_URL=", "DATABASE_URI=")),
            [blocks(FILE, "no line for DATABASE_URL")],
        ),
        case(
            "the URL in the file points elsewhere",
            file(AGENT, |text| text.replace("@localhost:", "@db.example.com:")),
            [blocks(FILE, "in the URL it holds")],
        ),
        case(
            "a link that leads out of its folder",
            other(
                |lab| {
                    hide(lab);
                    std::os::unix::fs::symlink(hidden(lab), lab.world().join(AGENT)).unwrap();
                },
                |lab| {
                    std::fs::remove_file(lab.world().join(AGENT)).unwrap();
                    show(lab);
                },
            ),
            [blocks(FILE, "leads out of its folder")],
        ),
        case(
            "a program that restarts something",
            configured(
                "[[consumers]]\nkind = \"command\"\nname = \"agent\"\ncommand = [\"no-such-program\"]",
            ),
            [blocks("command:agent", "there is no such program")],
        ),
        case(
            "the folder of such a program",
            configured(
                "[[consumers]]\nkind = \"command\"\nname = \"agent\"\ncommand = [\"true\"]\ndirectory = \"/nowhere\"",
            ),
            [blocks("command:agent", "there is no folder /nowhere")],
        ),
        case(
            "the health check is red before",
            reconfigured(|text| text.replace("/api/healthz", "/api/nowhere")),
            [warning("healthz", "it answers 404"), warning("healthz", "red before anything has changed")],
        ),
    ]
}

fn of_alembic() -> Vec<Case> {
    vec![
        case(
            "there is no Alembic",
            reconfigured(|text| text.replace(".venv/bin/alembic", ".venv/bin/alembik")),
            [blocks("alembic", "there is no program .venv/bin/alembik")],
        ),
        case(
            "Alembic's configuration",
            reconfigured(|text| text.replace("\"alembic.ini\"", "\"nowhere.ini\"")),
            [blocks("alembic", "`alembic current` fails with the password of now")],
        ),
        case(
            "a URL that the application can't use",
            reconfigured(|text| {
                text.replace(
                    "DATABASE_URL = \"{database_url}\"",
                    "DATABASE_URL = \"{database_url}&sslmode=1\"",
                )
            }),
            [blocks("alembic", "`alembic current` fails with the password of now")],
        ),
        case(
            "migrations are pending",
            other(|lab| at_revision(lab, "0001"), |lab| at_revision(lab, "0002")),
            [warning("alembic", "the database is at 0001, the scripts' heads are 0002")],
        ),
        case(
            "a revision that the scripts don't have",
            other(|lab| at_revision(lab, "9999"), |lab| at_revision(lab, "0002")),
            [blocks("alembic", "`alembic current` fails")],
        ),
    ]
}

fn hidden(lab: &Lab) -> std::path::PathBuf {
    lab.world().join("hidden.env")
}

fn hide(lab: &Lab) {
    std::fs::rename(lab.world().join(AGENT), hidden(lab)).unwrap();
}

fn show(lab: &Lab) {
    std::fs::rename(hidden(lab), lab.world().join(AGENT)).unwrap();
}

/// Tells Alembic's table that the database is at this revision.
fn at_revision(lab: &Lab, revision: &str) {
    let postgres = lab.state()["dev"]["postgres"].clone();
    let text = |name: &str| postgres[name].as_str().unwrap().to_owned();
    let target = format!(
        "host=127.0.0.1 port={} user={} dbname={} sslmode=require",
        postgres["port"],
        text("user"),
        text("database")
    );
    let output = Command::new("psql")
        .args([&target, "-v", "ON_ERROR_STOP=1", "-c"])
        .arg(format!("update alembic_version set version_num = '{revision}'"))
        .env("PGPASSWORD", text("password"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn what_github_takes_away_is_named_and_nothing_is_changed() {
    play(on_github());
}

#[test]
fn what_aws_takes_away_is_named_and_nothing_is_changed() {
    play(on_aws());
}

#[test]
fn what_the_vault_files_and_programs_lack_is_named_and_nothing_is_changed() {
    play(elsewhere());
}

#[test]
fn what_alembic_lacks_is_named_and_nothing_is_changed() {
    play_in(&Lab::recording("dev"), of_alembic());
}
