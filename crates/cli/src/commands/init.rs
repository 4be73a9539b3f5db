//! `pgrotate init`

mod questions;
mod text;

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use pgrotate_core::{Error, Kind};
use serde_json::json;

use crate::app::App;
use crate::config::Config;
use crate::display;
use crate::exit::{Failure, Status};

/// Write a commented pgrotate.toml by asking, or from flags
///
/// Asks for what no flag says if there is a terminal, and takes what is proposed if there is
/// none. Credentials are never asked for: they don't belong into the file.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// The file to write; one that exists is left alone
    #[arg(long, value_name = "FILE", default_value = "pgrotate.toml")]
    output: PathBuf,
    /// What the environments belong to [default: the folder's name]
    #[arg(long, value_name = "NAME")]
    project: Option<String>,
    /// The environments, in order [default: dev,staging,prod]
    #[arg(long = "env", value_name = "ENV", value_delimiter = ',')]
    environments: Vec<String>,
    /// The server's host name, with {env} where the environments differ
    #[arg(long, value_name = "HOST")]
    host: Option<String>,
    /// The database's name
    #[arg(long, value_name = "NAME")]
    database: Option<String>,
    /// The role whose password is rotated
    #[arg(long, value_name = "ROLE")]
    user: Option<String>,
    /// What changes the password on the server
    #[arg(long, value_name = "KIND")]
    authority: Option<AuthorityKind>,
    /// The vault of record
    #[arg(long, value_name = "KIND")]
    vault: Option<VaultKind>,
    /// A place that keeps a copy; can be given several times
    #[arg(long = "sink", value_name = "KIND", value_delimiter = ',')]
    sinks: Vec<SinkKind>,
    /// Ask nothing
    #[arg(long)]
    yes: bool,
}

/// Authorities, as the configuration names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub(crate) enum AuthorityKind {
    /// PostgreSQL itself, by SQL
    Postgres,
    /// Azure Database for PostgreSQL, by the resource manager
    AzurePostgresFlexible,
}

/// Vaults of record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub(crate) enum VaultKind {
    /// 1Password, by a Connect server
    Onepassword,
    /// An encrypted file on this machine
    LocalVault,
}

/// Sinks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub(crate) enum SinkKind {
    /// Secrets in an Azure Key Vault
    AzureKeyVault,
    /// A setting of an Azure App Service
    AzureAppService,
    /// Secrets of GitHub Actions
    GithubActions,
    /// A line of an env file
    EnvFile,
    /// A secret in AWS Secrets Manager
    AwsSecretsManager,
}

/// All that the file needs to be told.
#[derive(Debug)]
struct Answers {
    project: String,
    environments: Vec<String>,
    host: String,
    database: String,
    user: String,
    authority: AuthorityKind,
    vault: VaultKind,
    sinks: Vec<SinkKind>,
}

pub(crate) async fn run(app: &App, args: Args) -> Result<Status, Failure> {
    let path = args.output.clone();
    // Before the questions, not after them.
    if path.symlink_metadata().is_ok() {
        return Err(refuse(&path, "it exists already").hint("name another file with --output").into());
    }
    let ask = !args.yes && std::io::stdin().is_terminal() && std::io::stderr().is_terminal();
    let answers = if ask { questions::ask(args)? } else { answers(args) };
    let config = write(&path, &text::text(&answers))?;
    tell(app, &config);
    Ok(Status::Done)
}

/// What the flags say, and what is proposed where they say nothing.
fn answers(args: Args) -> Answers {
    let project = args.project.unwrap_or_else(folder);
    let plain = text::plain(&project);
    let environments = match args.environments {
        none if none.is_empty() => ["dev", "staging", "prod"].map(str::to_owned).to_vec(),
        named => named,
    };
    Answers {
        environments,
        host: args.host.unwrap_or_else(|| format!("db-{plain}-{{env}}.example.com")),
        database: args.database.unwrap_or_else(|| plain.replace('-', "_")),
        user: args.user.unwrap_or_else(|| format!("{}_admin", plain.replace('-', "_"))),
        authority: args.authority.unwrap_or(AuthorityKind::Postgres),
        vault: args.vault.unwrap_or(VaultKind::LocalVault),
        sinks: match args.sinks {
            none if none.is_empty() => vec![SinkKind::EnvFile],
            named => named,
        },
        project,
    }
}

/// The name of the working folder.
fn folder() -> String {
    let folder = std::env::current_dir().ok();
    let name = folder.as_deref().and_then(Path::file_name).map(|name| name.to_string_lossy().into_owned());
    name.filter(|name| !name.is_empty()).unwrap_or_else(|| "project".to_owned())
}

/// Writes the file, once it is known that it can be read.
fn write(path: &Path, text: &str) -> Result<Config, Failure> {
    Config::parse(path, text.to_owned())?;
    let wrong = |error: std::io::Error| refuse(path, &error.kind().to_string());
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).open(path).map_err(wrong)?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(wrong)?;
    Ok(Config::load(path)?)
}

fn refuse(path: &Path, why: &str) -> Error {
    Error::new(Kind::Config, format!("write {}", path.display())).because(why)
}

fn tell(app: &App, config: &Config) {
    let (path, environments) = (config.path().display(), config.environments());
    if app.json {
        display::json(&json!({
            "config": path.to_string(), "project": config.project(), "environments": environments,
        }));
    } else {
        let names: Vec<&str> = environments.iter().map(pgrotate_core::Environment::as_str).collect();
        let first = names.first().copied().unwrap_or("ENV");
        display::out(&format!(
            "wrote {path} for {}: {}\nnext: put in the names of your own systems, then: pgrotate check {first}\n",
            config.project(),
            names.join(", "),
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(line: &str) -> Args {
        #[derive(clap::Parser)]
        struct Command {
            #[command(flatten)]
            args: Args,
        }
        <Command as clap::Parser>::parse_from(std::iter::once("init").chain(line.split_whitespace())).args
    }

    const EVERYTHING: &str = "--project MindWell --env dev,prod --host db-{env}.example.com --database app --user admin \
         --authority azure_postgres_flexible --vault onepassword \
         --sink azure_key_vault,azure_app_service,github_actions,env_file,aws_secrets_manager";

    #[test]
    fn every_choice_gives_a_file_that_can_be_read() {
        let folder = tempfile::tempdir().unwrap();
        let lines = [
            "",
            "--project x/y --env test",
            EVERYTHING,
            "--vault onepassword --sink github_actions",
            "--authority azure_postgres_flexible --sink azure_key_vault",
            "--sink azure_app_service --sink aws_secrets_manager",
        ];
        for (number, line) in lines.iter().enumerate() {
            let path = folder.path().join(format!("{number}.toml"));
            let text = text::text(&answers(args(line)));
            if let Err(failure) = write(&path, &text) {
                panic!("{line}: {failure:?}\n{text}");
            }
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        }
    }

    #[test]
    fn every_combination_of_sinks_can_be_read_and_waited_for() {
        let kinds = SinkKind::value_variants();
        for chosen in 0..1_u32 << kinds.len() {
            let sinks: Vec<SinkKind> =
                (0..).zip(kinds).filter(|(bit, _)| chosen >> bit & 1 == 1).map(|(_, kind)| *kind).collect();
            for (authority, vault) in AuthorityKind::value_variants().iter().zip(VaultKind::value_variants())
            {
                let answers = Answers {
                    sinks: sinks.clone(),
                    authority: *authority,
                    vault: *vault,
                    ..answers(args(""))
                };
                let text = text::text(&answers);
                if let Err(report) = Config::parse(Path::new("pgrotate.toml"), text.clone()) {
                    panic!("{sinks:?}: {report:?}\n{text}");
                }
                // What the application may read is there before it restarts.
                let waits = text.lines().find(|line| line.starts_with("waits_for"));
                let has = |kind| sinks.contains(&kind);
                assert_eq!(waits.is_some(), has(SinkKind::AzureAppService), "{sinks:?}");
                let both = waits.is_some_and(|line| line.contains("azure_key_vault:database-url"));
                assert_eq!(both, has(SinkKind::AzureAppService) && has(SinkKind::AzureKeyVault), "{sinks:?}");
            }
        }
    }

    /// Takes the tables that are commented out in, one at a time, in the place of the chosen one
    /// where there can be only one.
    #[test]
    fn what_is_commented_out_can_be_taken_in() {
        for line in ["--env dev", "--env dev --authority azure_postgres_flexible --vault onepassword"] {
            let text = text::text(&answers(args(line))).replace("dev = {}", "dev = { subscription = \"x\" }");
            let commented: Vec<&str> = text
                .split("\n\n")
                .filter_map(|block| Some(&block[block.find("# [[").or_else(|| block.find("# ["))?..]))
                .collect();
            assert_eq!(commented.len(), 10, "{commented:#?}");
            for block in commented {
                let taken: String =
                    block.lines().map(|line| format!("{}\n", &line[line.len().min(2)..])).collect();
                let mut changed = text.replace(block, &taken);
                let header = format!("\n{}\n", taken.lines().next().unwrap());
                let places: Vec<usize> = changed.match_indices(&header).map(|(at, _)| at).collect();
                if let ([first, _], false) = (places.as_slice(), header.starts_with("\n[[")) {
                    let end = first + changed[*first..].find("\n\n").unwrap();
                    changed.replace_range(*first..end, "");
                }
                assert!(changed.contains(&taken), "{changed}");
                if let Err(report) = Config::parse(Path::new("pgrotate.toml"), changed.clone()) {
                    panic!("{report:?}\n{changed}");
                }
            }
        }
    }

    #[test]
    fn a_file_that_exists_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pgrotate.toml");
        std::fs::write(&path, "mine").unwrap();
        let text = text::text(&answers(args("")));
        assert!(matches!(write(&path, &text), Err(Failure::Other(Status::Usage, _))));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "mine");
    }

    #[test]
    fn environments_that_would_share_a_server_are_not_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pgrotate.toml");
        let text = text::text(&answers(args("--host db.example.com")));
        assert!(matches!(write(&path, &text), Err(Failure::Config(_))));
        assert!(!path.exists());
    }

    #[test]
    fn the_file_explains_itself() {
        insta::assert_snapshot!(text::text(&answers(args(EVERYTHING))), @r#"
        # Where the password of one PostgreSQL role lives, and how pgrotate rotates it.
        #
        #   {env} and {ENV}            the environment's name, as it is and in upper case
        #   {anything-else}            a variable of [environments] below
        #   {password} {database_url}  only in values: what a copy holds
        #
        # No credential stands here. They come from where the vendors' own tools look: Azure CLI login or
        # AZURE_* variables, AWS profiles, GH_TOKEN or `gh`, OP_CONNECT_TOKEN.
        # Tables that are commented out are what else there is: take the `#` away from each of their lines.

        project = "MindWell"

        # One line for each environment, with its own template variables.
        [environments]
        dev = { subscription = "00000000-0000-0000-0000-000000000000" }
        prod = { subscription = "00000000-0000-0000-0000-000000000000" }

        # ---------------------------------------------------------------- the server and its role
        [database]
        host = "db-{env}.example.com"
        port = 5432
        name = "app"
        user = "admin"
        # verify-full checks certificate and host name; `ca_file` where the system's trust store is not enough.
        tls = { mode = "verify-full" }
        # What a copy of the URL looks like where the present one can't be read; a readable one keeps
        # everything but its password. {password} is percent-encoded here, always.
        # url = "postgresql://{user}:{password}@{host}:{port}/{name}?sslmode=require"

        # Letters and digits; symbols, if somebody demands them, only from `-_.`
        [password]
        length = 32

        # The Connect server; its token is OP_CONNECT_TOKEN.
        [onepassword]
        connect = "http://localhost:8080"

        # ---------------------------------------------------------------- the vault of record: its word counts
        [vault]
        kind = "onepassword"
        vault = "mindwell"
        item = "mindwell {env} Postgres"

        # [vault]
        # kind = "local_vault"
        # path = "~/.local/share/pgrotate/mindwell-{env}.age"
        # # An identity file of age opens it; without one, the passphrase in PGROTATE_VAULT_PASSPHRASE does.
        # # identity_file = "~/.config/age/identity.txt"

        # ---------------------------------------------------------------- what changes the password on the server
        [authority]
        kind = "azure_postgres_flexible"
        subscription = "{subscription}"
        resource_group = "rg-mindwell-{env}"
        server = "mindwell-{env}"

        # [authority]
        # kind = "postgres"

        # ---------------------------------------------------------------- the places that keep a copy
        [[sinks]]
        kind = "azure_key_vault"
        vault = "kv-mindwell-{env}"
        secret = "database-url"
        value = "{database_url}"
        # With these two, `check` sees whether the secret may be written before it is.
        # subscription = "00000000-0000-0000-0000-000000000000"
        # resource_group = "rg-mindwell-{env}"
        # "disable" takes the version before out of use once the new one is proven.
        retire = "keep"

        [[sinks]]
        kind = "azure_app_service"
        subscription = "{subscription}"
        resource_group = "rg-mindwell-{env}"
        app = "mindwell-{env}"
        setting = "DATABASE_URL"
        value = "{database_url}"

        # The application restarts once the copies that it reads are published.
        [[consumers]]
        kind = "azure_app_service"
        subscription = "{subscription}"
        resource_group = "rg-mindwell-{env}"
        app = "mindwell-{env}"
        waits_for = ["azure_app_service:DATABASE_URL", "azure_key_vault:database-url"]

        [[sinks]]
        kind = "github_actions"
        repository = "mindwell/mindwell"
        secret = "{ENV}_DATABASE_URL"
        value = "{database_url}"

        [[sinks]]
        kind = "env_file"
        path = "~/.config/mindwell/{env}.env"
        key = "DATABASE_URL"
        # How the file is read: verbatim, shell, docker or systemd.
        dialect = "verbatim"
        value = "{database_url}"

        [[sinks]]
        kind = "aws_secrets_manager"
        secret = "mindwell/{env}/postgres/password"
        value = "{password}"

        # ---------------------------------------------------------------- proofs
        # Beside these every run logs in afresh with the new password, sees the old one refused,
        # and reads back every copy that can be read.

        # [[checks]]
        # kind = "http"
        # name = "healthz"
        # url = "https://mindwell-{env}.example.com/healthz"

        # [[checks]]
        # kind = "command"
        # name = "alembic"
        # directory = "."
        # command = ["alembic", "current"]
        # environment = { DATABASE_URL = "{database_url}" }

        # ---------------------------------------------------------------- records
        # [[records]]
        # kind = "changelog"
        # path = "docs/security-changelog.md"

        # [[records]]
        # kind = "webhook"
        # name = "on-call"
        # format = "slack"
        # # A webhook's URL is a credential: named here, kept in the environment.
        # url_variable = "ONCALL_WEBHOOK_URL"
        "#);
    }
}
