//! The text that `init` writes: what was chosen, and beside it, commented out, what else there is.

use super::{Answers, AuthorityKind, SinkKind, VaultKind};

/// What stands in every file. `@…@` is put in.
const HEAD: &str = r#"# Where the password of one PostgreSQL role lives, and how pgrotate rotates it.
#
#   {env} and {ENV}            the environment's name, as it is and in upper case
#   {anything-else}            a variable of [environments] below
#   {password} {database_url}  only in values: what a copy holds
#
# No credential stands here. They come from where the vendors' own tools look: Azure CLI login or
# AZURE_* variables, AWS profiles, GH_TOKEN or `gh`, OP_CONNECT_TOKEN.
# Tables that are commented out are what else there is: take the `#` away from each of their lines.

project = @project@

# One line for each environment, with its own template variables.
[environments]
@environments@
# ---------------------------------------------------------------- the server and its role
[database]
host = @host@
port = 5432
name = @database@
user = @user@
# verify-full checks certificate and host name; `ca_file` where the system's trust store is not enough.
tls = { mode = "verify-full" }
# What a copy of the URL looks like where the present one can't be read; a readable one keeps
# everything but its password. {password} is percent-encoded here, always.
# url = "postgresql://{user}:{password}@{host}:{port}/{name}?sslmode=require"

# Letters and digits; symbols, if somebody demands them, only from `-_.`
[password]
length = 32
"#;

const VAULT: &str = "
# ---------------------------------------------------------------- the vault of record: its word counts
";
const ONEPASSWORD: &str = r#"[vault]
kind = "onepassword"
vault = "@plain@"
item = "@plain@ {env} Postgres"
"#;
const LOCAL_VAULT: &str = r#"[vault]
kind = "local_vault"
path = "~/.local/share/pgrotate/@plain@-{env}.age"
# An identity file of age opens it; without one, the passphrase in PGROTATE_VAULT_PASSPHRASE does.
# identity_file = "~/.config/age/identity.txt"
"#;
/// Stands before the other tables, because it belongs to a vendor and not to a table.
const CONNECT: &str = r#"
# The Connect server; its token is OP_CONNECT_TOKEN.
[onepassword]
connect = "http://localhost:8080"
"#;

const AUTHORITY: &str = "
# ---------------------------------------------------------------- what changes the password on the server
";
const POSTGRES: &str = r#"[authority]
kind = "postgres"
"#;
const FLEXIBLE: &str = r#"[authority]
kind = "azure_postgres_flexible"
subscription = "{subscription}"
resource_group = "rg-@plain@-{env}"
server = "@plain@-{env}"
"#;

const SINKS: &str = "
# ---------------------------------------------------------------- the places that keep a copy
";
const KEY_VAULT: &str = r#"[[sinks]]
kind = "azure_key_vault"
vault = "kv-@plain@-{env}"
secret = "database-url"
value = "{database_url}"
# With these two, `check` sees whether the secret may be written before it is.
# subscription = "00000000-0000-0000-0000-000000000000"
# resource_group = "rg-@plain@-{env}"
# "disable" takes the version before out of use once the new one is proven.
retire = "keep"
"#;
const APP_SERVICE: &str = r#"[[sinks]]
kind = "azure_app_service"
subscription = "{subscription}"
resource_group = "rg-@plain@-{env}"
app = "@plain@-{env}"
setting = "DATABASE_URL"
value = "{database_url}"

# The application restarts once the copies that it reads are published.
[[consumers]]
kind = "azure_app_service"
subscription = "{subscription}"
resource_group = "rg-@plain@-{env}"
app = "@plain@-{env}"
waits_for = @awaited@
"#;
const GITHUB: &str = r#"[[sinks]]
kind = "github_actions"
repository = "@plain@/@plain@"
secret = "{ENV}_DATABASE_URL"
value = "{database_url}"
"#;
const ENV_FILE: &str = r#"[[sinks]]
kind = "env_file"
path = "~/.config/@plain@/{env}.env"
key = "DATABASE_URL"
# How the file is read: verbatim, shell, docker or systemd.
dialect = "verbatim"
value = "{database_url}"
"#;
const AWS: &str = r#"[[sinks]]
kind = "aws_secrets_manager"
secret = "@plain@/{env}/postgres/password"
value = "{password}"
"#;

const CHECKS: &str = "
# ---------------------------------------------------------------- proofs
# Beside these every run logs in afresh with the new password, sees the old one refused,
# and reads back every copy that can be read.

";
const HTTP: &str = r#"[[checks]]
kind = "http"
name = "healthz"
url = "https://@plain@-{env}.example.com/healthz"
"#;
const COMMAND: &str = r#"[[checks]]
kind = "command"
name = "alembic"
directory = "."
command = ["alembic", "current"]
environment = { DATABASE_URL = "{database_url}" }
"#;

const RECORDS: &str = "
# ---------------------------------------------------------------- records
";
const CHANGELOG: &str = r#"[[records]]
kind = "changelog"
path = "docs/security-changelog.md"
"#;
const WEBHOOK: &str = r#"[[records]]
kind = "webhook"
name = "on-call"
format = "slack"
# A webhook's URL is a credential: named here, kept in the environment.
url_variable = "ONCALL_WEBHOOK_URL"
"#;

/// The file for these answers.
pub(super) fn text(answers: &Answers) -> String {
    let vault = |kind, text| (answers.vault == kind, text);
    let authority = |kind, text| (answers.authority == kind, text);
    let sink = |kind, text| (answers.sinks.contains(&kind), text);
    let connect = if answers.vault == VaultKind::Onepassword { CONNECT } else { "" };
    let file = [
        HEAD.to_owned(),
        connect.to_owned(),
        part(VAULT, &[vault(VaultKind::Onepassword, ONEPASSWORD), vault(VaultKind::LocalVault, LOCAL_VAULT)]),
        part(
            AUTHORITY,
            &[
                authority(AuthorityKind::Postgres, POSTGRES),
                authority(AuthorityKind::AzurePostgresFlexible, FLEXIBLE),
            ],
        ),
        part(
            SINKS,
            &[
                sink(SinkKind::AzureKeyVault, KEY_VAULT),
                sink(SinkKind::AzureAppService, APP_SERVICE),
                sink(SinkKind::GithubActions, GITHUB),
                sink(SinkKind::EnvFile, ENV_FILE),
                sink(SinkKind::AwsSecretsManager, AWS),
            ],
        ),
        part(CHECKS, &[(false, HTTP), (false, COMMAND)]),
        part(RECORDS, &[(false, CHANGELOG), (false, WEBHOOK)]),
    ];
    filled(&file.concat(), answers)
}

/// A part of the file: what was chosen first, then the rest as comments.
fn part(title: &str, blocks: &[(bool, &str)]) -> String {
    let chosen = blocks.iter().filter(|(chosen, _)| *chosen).map(|(_, text)| (*text).to_owned());
    let others = blocks.iter().filter(|(chosen, _)| !*chosen).map(|(_, text)| commented(text));
    let blocks: Vec<String> = chosen.chain(others).collect();
    format!("{title}{}", blocks.join("\n"))
}

fn commented(text: &str) -> String {
    text.lines().map(|line| format!("#{}{line}\n", if line.is_empty() { "" } else { " " })).collect()
}

fn filled(text: &str, answers: &Answers) -> String {
    // Both are known to Azure by the subscription.
    let azure = answers.authority == AuthorityKind::AzurePostgresFlexible
        || answers.sinks.contains(&SinkKind::AzureAppService);
    let variables = if azure { "{ subscription = \"00000000-0000-0000-0000-000000000000\" }" } else { "{}" };
    let environments = answers.environments.iter().map(|name| format!("{} = {variables}\n", key(name)));
    let environments: String = environments.collect();
    // The setting may point at the secret: a restart in between would bring the old one.
    let awaited = match answers.sinks.contains(&SinkKind::AzureKeyVault) {
        true => r#"["azure_app_service:DATABASE_URL", "azure_key_vault:database-url"]"#,
        false => r#"["azure_app_service:DATABASE_URL"]"#,
    };
    text.replace("@environments@", &environments)
        .replace("@awaited@", awaited)
        .replace("@plain@", &plain(&answers.project))
        .replace("@host@", &quoted(&answers.host))
        .replace("@database@", &quoted(&answers.database))
        .replace("@user@", &quoted(&answers.user))
        .replace("@project@", &quoted(&answers.project))
}

/// A name that can be part of a host name, a path and a secret's name.
pub(super) fn plain(name: &str) -> String {
    let plain: String = name
        .chars()
        .map(|part| if part.is_ascii_alphanumeric() { part.to_ascii_lowercase() } else { '-' })
        .collect();
    match plain.trim_matches('-') {
        "" => "project".to_owned(),
        plain => plain.to_owned(),
    }
}

fn key(name: &str) -> String {
    let bare = |part: char| part.is_ascii_alphanumeric() || part == '-' || part == '_';
    if !name.is_empty() && name.chars().all(bare) { name.to_owned() } else { quoted(name) }
}

fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}
