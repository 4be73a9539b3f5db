//! What a configuration says, and how its mistakes are shown: as a person reads them, without
//! colour and 100 columns wide.

mod fakes;
mod meanings;
mod mistakes;
mod sharing;

use std::path::Path;
use std::sync::Arc;

use pgrotate_core::database_url::Target;
use pgrotate_core::env::testing::{ManualClock, SeededEntropy};
use pgrotate_core::rotation::Rotation;
use pgrotate_core::{Environment, FingerprintKey, Secret};

use super::{Config, Deps, Report, find};
use fakes::Fakes;

/// A file without mistakes, to be changed by the tests.
const GOOD: &str = r#"project = "mindwell"

[environments]
dev = { group = "rg-1" }
prod = { group = "rg-2" }

[database]
host = "db-{env}.example.com"
name = "app"
user = "admin"

[vault]
kind = "safe"
place = "safe/{env}"

[authority]
kind = "server"
place = "server/{env}"

[[sinks]]
kind = "store"
place = "{group}/url"
value = "{database_url}"

[[sinks]]
kind = "store"
place = "{group}/password"
resource_group = "{group}"
value = "{password}"
retire = "disable"

[[consumers]]
kind = "app"
place = "api-{env}"
waits_for = ["store:url"]
"#;

fn parse(text: &str) -> Result<Config, Report> {
    Config::parse_with(Path::new("pgrotate.toml"), text.to_owned(), &Fakes)
}

/// The file with one thing changed.
fn with(old: &str, new: &str) -> String {
    assert!(GOOD.contains(old), "{old}");
    GOOD.replacen(old, new, 1)
}

fn deps() -> Deps {
    let (clock, entropy) = (Arc::new(ManualClock::at_second(0)), Arc::new(SeededEntropy::new(1)));
    Deps { key: FingerprintKey::new([1; 32]), clock, entropy }
}

fn rotation(config: &Config, environment: &str) -> Rotation {
    config.rotation(&Environment::from(environment), deps()).unwrap()
}

#[test]
fn production_is_confirmed_by_hash_unless_the_file_names_others() {
    let asks = |text: &str| {
        let config = parse(text).unwrap_or_else(|report| panic!("{}", shown(&report)));
        let names = config.environments();
        let asking = names.into_iter().filter(|name| config.asks_for_hash(name));
        asking.map(|name| name.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(asks(GOOD), ["prod"]);
    let renamed = |name: &str| GOOD.replace("prod = {", &format!("{name} = {{"));
    assert_eq!(asks(&renamed("eu-Production")), ["eu-Production"]);
    assert!(asks(&renamed("product")).is_empty());
    let named =
        |names: &str| with("project = \"mindwell\"", &format!("project = \"mindwell\"\nconfirm = {names}"));
    assert_eq!(asks(&named("[\"dev\"]")), ["dev"]);
    assert!(asks(&named("[]")).is_empty());
    insta::assert_snapshot!(rejected(&named("[\"prd\"]")), @r#"
     x there is no environment `prd`
      ,-[pgrotate.toml:2:11]
    1 | project = "mindwell"
    2 | confirm = ["prd"]
      :           ^^^|^^^
      :              `-- did you mean `prod`?
    3 |
      `----
     help: there are: dev, prod
    "#);
}

/// How a mistake is shown.
fn shown(report: &Report) -> String {
    shown_in(100, report)
}

fn shown_in(width: usize, report: &Report) -> String {
    let mut text = String::new();
    miette::GraphicalReportHandler::new_themed(miette::GraphicalTheme::none())
        .with_width(width)
        .render_report(&mut text, report.as_ref())
        .unwrap();
    text.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

/// How the mistakes of a text are shown.
#[track_caller]
fn rejected(text: &str) -> String {
    match parse(text) {
        Ok(_) => panic!("it was accepted:\n{text}"),
        Err(report) => shown(&report),
    }
}

#[test]
fn environments_come_in_the_order_of_the_file() {
    let text = with("dev = { group = \"rg-1\" }", "zeta = { group = \"rg-0\" }\ndev = { group = \"rg-1\" }");
    let config = parse(&text).unwrap();
    let names: Vec<_> = config.environments().iter().map(ToString::to_string).collect();
    assert_eq!(names, ["zeta", "dev", "prod"]);
    assert_eq!(config.project(), "mindwell");
    assert_eq!(config.path(), Path::new("pgrotate.toml"));
    assert_eq!(config.warnings(), [""; 0]);
}

#[test]
fn names_are_filled_in_for_each_environment() {
    let rotation = rotation(&parse(GOOD).unwrap(), "prod");
    assert_eq!(rotation.target.to_string(), "admin@db-prod.example.com:5432/app");
    assert_eq!(rotation.vault.location(), "safe/prod");
    assert_eq!(rotation.authority.location(), "server/prod");
    let copies: Vec<_> = rotation.copies.iter().map(|copy| (copy.sink.location(), copy.retire)).collect();
    assert_eq!(copies, [("rg-2/url".to_owned(), false), ("rg-2/password".to_owned(), true)]);
    assert!(rotation.copies[0].template.holds_url() && !rotation.copies[1].template.holds_url());
    assert_eq!(rotation.consumers[0].waits_for[0].as_str(), "store:url");
    assert_eq!(rotation.wholes.len(), 2);
    assert_eq!(rotation.policy.length(), 32);
    let url = rotation.url.render(&rotation.target, &Secret::new("a/b"));
    assert_eq!(url.expose(), "postgresql://admin:a%2Fb@db-prod.example.com:5432/app");
}

#[test]
fn a_string_can_stand_for_a_number() {
    let text = with("name = \"app\"", "name = \"app\"\nport = \"{pg_port}\"")
        .replace("{ group = \"rg-1\" }", "{ group = \"rg-1\", pg_port = 6001 }")
        .replace("{ group = \"rg-2\" }", "{ group = \"rg-2\", pg_port = \"6002\" }")
        .replace("place = \"{group}/url\"", "place = \"{group}/url\"\nattempts = \"3\"\nloud = \"true\"");
    let config = parse(&text).unwrap();
    assert_eq!(rotation(&config, "dev").target.port, 6001);
    assert_eq!(rotation(&config, "prod").target.port, 6002);
}

#[test]
fn a_variable_may_use_the_environment_and_braces_may_be_doubled() {
    let text = with("group = \"rg-1\"", "group = \"rg-{ENV}\"").replace("api-{env}", "{{{env}}}");
    let rotation = rotation(&parse(&text).unwrap(), "dev");
    assert_eq!(rotation.copies[0].sink.location(), "rg-DEV/url");
    assert_eq!(rotation.consumers[0].consumer.id(), "app:{dev}");
}

#[test]
fn the_url_has_its_own_variables_even_where_an_environment_has_them_too() {
    let text = with(
        "user = \"admin\"",
        "user = \"admin\"\nurl = \"postgresql+asyncpg://{user}:{password}@{host}/{name}?ssl={group}\"",
    )
    .replace("host = \"db-{env}.example.com\"", "host = \"db-{host}.example.com\"")
    .replace("{ group", "{ host = \"{env}\", group");
    let rotation = rotation(&parse(&text).unwrap(), "dev");
    let url = rotation.url.render(&rotation.target, &Secret::new("x"));
    assert_eq!(url.expose(), "postgresql+asyncpg://admin:x@db-dev.example.com/app?ssl=rg-1");
}

#[test]
fn a_check_may_get_the_password_in_its_environment() {
    let check = "[[checks]]\nkind = \"command\"\nplace = \"{env}\"\nenvironment = { URL = \"{database_url}\", E = \"{env}\" }\n";
    assert_eq!(rotation(&parse(&format!("{GOOD}{check}")).unwrap(), "dev").verifications[0].id(), "dev");
}

#[test]
fn what_keeps_nothing_may_be_shared() {
    let both = "[[checks]]\nkind = \"command\"\nplace = \"x\"\n[[records]]\nkind = \"diary\"\nplace = \"diary.md\"\n";
    assert_eq!(rotation(&parse(&format!("{GOOD}{both}")).unwrap(), "prod").recorders.len(), 1);
}

#[test]
fn a_driver_that_does_not_know_its_tls_parameter_is_worth_a_warning() {
    let url = "user = \"admin\"\nurl = \"postgresql+asyncpg://{user}:{password}@{host}:{port}/{name}?sslmode=require\"";
    let config = parse(&with("user = \"admin\"", url)).unwrap();
    assert_eq!(config.warnings().len(), 1, "the same for both environments");
    assert!(config.warnings()[0].starts_with("database.url: SQLAlchemy with asyncpg refuses `sslmode=`"));
}

#[test]
fn a_named_file_is_taken_and_a_missing_one_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    for name in ["a.toml", "b.toml", "pgrotate.toml"] {
        std::fs::write(path(name), GOOD).unwrap();
    }
    let usual = path("pgrotate.toml");
    let variable = Some(path("b.toml").into_os_string());
    assert_eq!(find(Some(path("a.toml")), variable.clone(), &usual).unwrap(), path("a.toml"));
    assert_eq!(find(None, variable, &usual).unwrap(), path("b.toml"));
    assert_eq!(find(None, Some("".into()), &usual).unwrap(), usual);
    insta::assert_snapshot!(shown(&find(None, None, Path::new("pgrotate.toml")).unwrap_err()), @r"
    x cannot read the configuration pgrotate.toml: there is no such file
    help: name it with `--config FILE` or PGROTATE_CONFIG, or work in the folder that has a
          pgrotate.toml; `pgrotate init` writes one
    ");
    insta::assert_snapshot!(shown(&find(None, Some("x.toml".into()), &usual).unwrap_err()), @r"
    x cannot read the configuration x.toml: there is no such file
    help: name it with `--config FILE` or PGROTATE_CONFIG, or work in the folder that has a
          pgrotate.toml; `pgrotate init` writes one
    ");
}

#[test]
fn a_file_without_an_end_is_no_ca_file() {
    for (key, named) in [
        ("ca_file = \"/dev/zero\"\n", ""),
        ("", "tls = { mode = \"verify-full\", ca_file = \"/dev/zero\" }\n"),
    ] {
        let text = format!("{key}{GOOD}").replace("host = \"db", &format!("{named}host = \"db"));
        let config = Config::parse_with(Path::new("x.toml"), text, &Fakes).unwrap();
        let report = config.rotation(&Environment::from("dev"), deps()).err().expect("it is refused");
        let said = shown_in(1_000, &report);
        assert!(said.contains("cannot read the CA file /dev/zero: it is larger than 1 MiB"), "{said}");
        assert!(said.contains("named here"), "{said}");
    }
}

#[test]
fn files_that_the_configuration_names_count_from_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pgrotate.toml");
    let text = format!("ca_file = \"{{env}}.pem\"\ncredentials_file = \"{{env}}.credentials\"\n{GOOD}");
    let config = Config::parse_with(&path, text, &Fakes).unwrap();
    let refused = |environment: &str| {
        let report = config.rotation(&Environment::from(environment), deps()).err().expect("it is refused");
        // Wide, because the folder's name has another length everywhere.
        shown_in(1_000, &report).replace(&folder.path().display().to_string(), "DIR")
    };
    insta::assert_snapshot!(refused("dev"), @r#"
     x cannot read the CA file DIR/dev.pem: there is no such file
      ,-[DIR/pgrotate.toml:1:11]
    1 | ca_file = "{env}.pem"
      :           ^^^^^|^^^^^
      :                `-- named here
    2 | credentials_file = "{env}.credentials"
      `----
    "#);
    std::fs::write(folder.path().join("dev.pem"), "no certificate").unwrap();
    insta::assert_snapshot!(refused("dev"), @r#"
     x cannot read the CA file DIR/dev.pem: it has no certificate in PEM form
      ,-[DIR/pgrotate.toml:1:11]
    1 | ca_file = "{env}.pem"
      :           ^^^^^|^^^^^
      :                `-- named here
    2 | credentials_file = "{env}.credentials"
      `----
    "#);
    let pem = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n";
    std::fs::write(folder.path().join("dev.pem"), pem).unwrap();
    std::fs::write(folder.path().join("dev.credentials"), "GH_TOKEN=x").unwrap();
    insta::assert_snapshot!(refused("dev"), @r#"
     x cannot read the credentials file DIR/dev.credentials: others than its owner may read it
      ,-[DIR/pgrotate.toml:2:20]
    1 | ca_file = "{env}.pem"
    2 | credentials_file = "{env}.credentials"
      :                    ^^^^^^^^^|^^^^^^^^^
      :                             `-- named here
    3 | project = "mindwell"
      `----
     help: chmod 600 DIR/dev.credentials
    "#);
    let owner_only = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(folder.path().join("dev.credentials"), owner_only).unwrap();
    insta::assert_snapshot!(refused("dev"), @r#"
     x cannot read the CA file: it has no certificate in PEM form
      ,-[DIR/pgrotate.toml:1:11]
    1 | ca_file = "{env}.pem"
      :           ^^^^^|^^^^^
      :                `-- named here
    2 | credentials_file = "{env}.credentials"
      `----
    "#);
    insta::assert_snapshot!(refused("pord"), @r"
    x there is no environment `pord`, in DIR/pgrotate.toml
    help: did you mean `prod`?
          there are: dev, prod
    ");
}

#[test]
fn a_credentials_file_for_all_is_looked_at_while_loading() {
    let text = format!("credentials_file = \"missing-credentials\"\n{GOOD}");
    let folder = std::env::current_dir().unwrap();
    let report = parse(&text).err().expect("it is refused");
    let shown = shown_in(1_000, &report).replace(&folder.display().to_string(), "DIR");
    insta::assert_snapshot!(shown, @r#"
     x cannot read the credentials file DIR/missing-credentials: there is no such file
      ,-[pgrotate.toml:1:20]
    1 | credentials_file = "missing-credentials"
      :                    ^^^^^^^^^^|^^^^^^^^^^
      :                              `-- named here
    2 | project = "mindwell"
      `----
    "#);
}

/// The runbook, name for name, with the providers of the program.
#[test]
fn the_example_is_what_the_runbook_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/mindwell/pgrotate.toml");
    let config = Config::load(&path).unwrap_or_else(|report| panic!("{}", shown(&report)));
    let environments: Vec<_> = config.environments().iter().map(ToString::to_string).collect();
    assert_eq!(environments, ["dev", "staging", "prod"]);
    assert_eq!(config.project(), "mindwell");
    assert_eq!(config.warnings().len(), 1, "asyncpg does not know `sslmode`, as the runbook's URL has it");
    let rotation = rotation(&config, "staging");
    insta::assert_snapshot!(rotation.target, @r"mindwelladmin@pgflex-mindwell-staging.postgres.database.azure.com:5432/mindwell_app");
    let mut copies: Vec<_> = rotation.copies.iter().map(|copy| copy.sink.id().to_string()).collect();
    copies.insert(0, rotation.vault.id().to_string());
    insta::assert_snapshot!(copies.join("\n"), @r"
    onepassword:MindWell staging Postgres Admin
    azure_key_vault:postgres-admin-password
    azure_key_vault:database-url
    azure_app_service:DATABASE_URL
    github_actions:STAGING_DATABASE_URL
    github_actions:STAGING_POSTGRES_ADMIN_PASSWORD
    env_file:staging.env
    aws_secrets_manager:mindwell/staging/postgres/admin-password
    ");
    let steps: Vec<_> = rotation.plan().steps.iter().map(|step| step.id.to_string()).collect();
    insta::assert_snapshot!(steps.join("\n"), @r"
    check
    stage
    install
    prove
    promote
    publish/azure_key_vault:database-url
    publish/azure_app_service:DATABASE_URL
    publish/azure_key_vault:postgres-admin-password
    publish/github_actions:STAGING_DATABASE_URL
    publish/github_actions:STAGING_POSTGRES_ADMIN_PASSWORD
    publish/env_file:staging.env
    publish/aws_secrets_manager:mindwell/staging/postgres/admin-password
    activate/azure_app_service:mindwell-staging-api
    activate/unmanaged:migrations
    verify/azure_key_vault:database-url
    verify/azure_app_service:DATABASE_URL
    verify/azure_key_vault:postgres-admin-password
    verify/github_actions:STAGING_DATABASE_URL
    verify/github_actions:STAGING_POSTGRES_ADMIN_PASSWORD
    verify/env_file:staging.env
    verify/aws_secrets_manager:mindwell/staging/postgres/admin-password
    verify/alembic
    verify/healthz
    verify/log
    verify/sessions of azure_app_service:mindwell-staging-api
    verify/sessions of unmanaged:migrations
    verify/login elsewhere
    verify/login
    record/changelog
    record/on-call
    record/github_issue
    record/jira
    ");
}

/// Each role has its own name everywhere that its password is tried, and nothing else is another one's.
#[test]
fn two_roles_that_take_turns_share_everything_but_their_names() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/mindwell/pgrotate.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = text.split_once("[authority]\n").unwrap();
    let rest = &rest[rest.find("\n[").unwrap()..];
    let text = format!("strategy = \"alternating\"\n{before}[authority]\nkind = \"postgres\"\n{rest}");
    let config = Config::parse(&path, text).unwrap_or_else(|report| panic!("{}", shown(&report)));
    let rotation = rotation(&config, "dev");
    let twin = rotation.twin.as_ref().unwrap();
    assert_eq!(
        (twin.target.user.as_str(), rotation.target.user.as_str()),
        ("mindwelladmin_b", "mindwelladmin")
    );
    assert_eq!(Target { user: rotation.target.user.clone(), ..twin.target.clone() }, rotation.target);
    assert_eq!(twin.elsewhere.len(), rotation.around.elsewhere.len());
    assert_ne!(twin.authority.location(), rotation.authority.location());
    assert_eq!(rotation.plan().steps.iter().filter(|step| step.action.kind() == "retire").count(), 3);
}

/// What stands there commented out is what else there is, and can be taken as it is.
#[test]
fn the_alternatives_in_the_example_can_be_taken() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/mindwell/pgrotate.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    let is_entry = |line: &str| {
        let key = line.split_once(" = ").map_or("", |(key, _)| key);
        line.starts_with('[') || (!key.is_empty() && key.bytes().all(|c| c.is_ascii_lowercase() || c == b'_'))
    };
    let lines = text.lines().map(|line| match line.strip_prefix("# ") {
        Some(rest) if is_entry(rest) => rest,
        _ => line,
    });
    let text = lines.collect::<Vec<_>>().join("\n");
    let config = Config::parse(&path, text).unwrap_or_else(|report| panic!("{}", shown(&report)));
    let rotation = rotation(&config, "dev");
    let agent = rotation.copies.iter().find(|copy| copy.sink.id().as_str() == "env_file:agent-1").unwrap();
    insta::assert_snapshot!(agent.sink.location(), @"env_file:runner@agent-1:~/.config/mindwell/dev.env:DATABASE_URL");
    let steps: Vec<_> = rotation.plan().steps.iter().map(|step| step.id.to_string()).collect();
    for step in [
        "activate/command:runner",
        "publish/azure_app_service:connection string",
        "publish/azure_app_service:blue",
        "activate/azure_app_service:mindwell-dev-api/blue",
        "publish/azure_app_service:worker",
        "activate/azure_app_service:mindwell-dev-worker",
        "publish/github_actions:DEV_SHARED_DATABASE_URL",
        "activate/unmanaged:nightly report",
        "verify/sessions of unmanaged:nightly report",
        "verify/login from agent-1",
    ] {
        assert!(steps.contains(&step.to_owned()), "{step}: {steps:?}");
    }
}
