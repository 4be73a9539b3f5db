//! Azure: rights, locks, deny assignments, the server, the vault, the application.

use serde_json::{Value, json};

use super::{
    Away, Case, Said, answer, blocks, case, configured, file, note, other, play, state, unseen, warning,
};
use crate::lab::Lab;

const SERVER: &str = "azure_postgres_flexible:pgflex-mindwell-dev";
const URL: &str = "azure_key_vault:database-url";
const PASSWORD: &str = "azure_key_vault:postgres-admin-password";
const SETTING: &str = "azure_app_service:DATABASE_URL";
const APP: &str = "azure_app_service:mindwell-dev-api";
const LOG: &str = "log";

/// Takes an action of the control plane or of Key Vault's data plane away.
fn deny(action: &str) -> Away {
    state("resource_manager", "deny", json!([action]), json!([]))
}

fn lock(level: &str, at: &str) -> Away {
    state("resource_manager", "lock", json!({"level": level, "at": at}), Value::Null)
}

fn deny_assignment(action: &str, whom: &str) -> Away {
    state("resource_manager", "deny_assignment", json!({"actions": [action], "whom": whom}), Value::Null)
}

fn server(what: &'static str, bad: Value, good: Value) -> Away {
    state("resource_manager", what, bad, good)
}

fn property(pointer: &'static str, bad: &str, good: &str) -> Away {
    let value = |value| json!({"pointer": pointer, "value": value});
    server("property", value(bad), value(good))
}

fn vault(what: &'static str, bad: Value, good: Value) -> Away {
    state("key_vault", what, bad, good)
}

/// The first of the vault's secrets in another state, and back by another name.
fn secret(take: &'static str, give: &'static str) -> Away {
    Box::new(move |lab| {
        lab.set("key_vault", take, &json!("database-url"));
        Box::new(move |lab| lab.set("key_vault", give, &json!("database-url")))
    })
}

fn attributes(bad: Value) -> Away {
    vault("attributes", bad, json!({"secret": "database-url"}))
}

fn app(what: &'static str, bad: Value, good: Value) -> Away {
    state("app_service", what, bad, good)
}

/// Changes something for which the application restarts, and waits until it has.
fn restarting(lab: &Lab, what: &str, value: &Value) {
    let starts = || lab.state()["dev"]["app"]["starts"].as_u64();
    let before = starts();
    lab.set("app_service", what, value);
    lab.wait_for("the application's restart", || starts() > before);
}

/// The application's setting in another form, until it is put back. Without a URL the application does not start.
fn setting(what: &'static str, form: Value) -> Away {
    Box::new(move |lab| {
        let state = lab.state();
        let value = state["dev"]["copies"][SETTING]["value"].as_str().unwrap().to_owned();
        restarting(lab, what, &form);
        Box::new(move |lab| {
            restarting(lab, "setting", &json!({"name": "DATABASE_URL", "value": value}));
            lab.wait_for("the application", || lab.is_healthy("dev"));
        })
    })
}

/// Another place that holds the password, by the control's name for it.
fn another(what: &'static str, name: &'static str) -> Away {
    Box::new(move |lab| {
        let value = format!("host=db password={}", lab.password("dev"));
        restarting(lab, what, &json!({"name": name, "value": value}));
        lab.wait_for("the application", || lab.is_healthy("dev"));
        Box::new(move |lab| {
            restarting(lab, what, &json!({"name": name, "value": null}));
            lab.wait_for("the application", || lab.is_healthy("dev"));
        })
    })
}

fn slot() -> Away {
    other(
        |lab| lab.set("app_service", "slot", &json!("blue")),
        |lab| lab.set("app_service", "slot_removed", &json!("blue")),
    )
}

/// Everything of Azure's that changes by the resource manager.
fn all_locked(words: &'static str) -> [Said; 3] {
    [blocks(SERVER, words), blocks(SETTING, words), blocks(APP, words)]
}

/// What no right and no lock hides.
fn rights() -> Vec<Case> {
    let data = |action: &str| deny(&format!("Microsoft.KeyVault/vaults/secrets/{action}"));
    vec![
        case(
            "the right to read the server",
            deny("Microsoft.DBforPostgreSQL/flexibleServers/read"),
            [blocks(SERVER, "flexibleServers/read")],
        ),
        case(
            "the right to change the server",
            deny("Microsoft.DBforPostgreSQL/flexibleServers/write"),
            [blocks(SERVER, "the right to Microsoft.DBforPostgreSQL/flexibleServers/write is missing")],
        ),
        case(
            "all rights to change the server, by a wildcard",
            deny("microsoft.dbforpostgresql/*/WRITE"),
            [blocks(SERVER, "flexibleServers/write")],
        ),
        case(
            "all rights to change anything",
            deny("*/write"),
            [blocks(SERVER, "flexibleServers/write"), blocks(SETTING, "sites/config/write")],
        ),
        case(
            "the right to follow the operation",
            deny("Microsoft.DBforPostgreSQL/locations/azureAsyncOperation/read"),
            [warning(SERVER, "azureAsyncOperation/read is missing")],
        ),
        case(
            "the right to the operation's result",
            deny("Microsoft.DBforPostgreSQL/locations/operationResults/read"),
            [note(SERVER, "operationResults/read is missing")],
        ),
        case(
            "the right to read settings",
            deny("Microsoft.Web/sites/config/list/action"),
            [blocks(SETTING, "sites/config/list/action is missing")],
        ),
        case(
            "the right to write settings",
            deny("Microsoft.Web/sites/config/write"),
            [blocks(SETTING, "sites/config/write is missing")],
        ),
        case(
            "the right to restart the application",
            deny("Microsoft.Web/sites/restart/action"),
            [blocks(APP, "sites/restart/action is missing")],
        ),
        case(
            "the right to read the application",
            deny("Microsoft.Web/sites/read"),
            [blocks(APP, "sites/read"), blocks(LOG, "sites/read")],
        ),
        case(
            "the right to read the application's configuration",
            deny("Microsoft.Web/sites/config/read"),
            [blocks(APP, "references can't be seen"), unseen(LOG, "switched on can't be seen")],
        ),
        case(
            "the right to see slots",
            deny("Microsoft.Web/sites/slots/read"),
            [unseen(SETTING, "whether the application has slots")],
        ),
        case(
            "the right to the log",
            deny("Microsoft.Web/sites/publish/action"),
            [blocks(LOG, "the log can't be read: the SCM site refuses the token (403)")],
        ),
        case(
            "the right to read secrets",
            data("getSecret/action"),
            [blocks(URL, "getSecret/action is missing"), blocks(PASSWORD, "getSecret/action is missing")],
        ),
        case(
            "the right to write secrets",
            data("setSecret/action"),
            [blocks(URL, "setSecret/action is missing"), blocks(PASSWORD, "setSecret/action is missing")],
        ),
        case("the right to list secrets, which nobody needs", data("readMetadata/action"), []),
        case(
            "the right to disable a version that is to be retired",
            data("update/action"),
            [blocks(PASSWORD, "update/action is missing")],
        )
        .with(file("pgrotate.toml", |text| {
            text.replacen("kind = \"azure_key_vault\"", "kind = \"azure_key_vault\"\nretire = \"disable\"", 1)
        })),
        case("the right to disable a version, which nobody needs", data("update/action"), []),
        case(
            "the right to see the vault",
            deny("Microsoft.KeyVault/vaults/read"),
            [unseen(URL, "Microsoft.KeyVault/vaults/read")],
        ),
        case(
            "the right to see rights",
            deny("Microsoft.Authorization/permissions/read"),
            [
                unseen(SERVER, "rights"),
                unseen(SETTING, "rights"),
                unseen(APP, "rights"),
                unseen(URL, "rights"),
            ],
        ),
        case(
            "the right to see locks",
            deny("Microsoft.Authorization/locks/read"),
            [unseen(SERVER, "lock"), unseen(SETTING, "lock")],
        ),
        case(
            "the right to see deny assignments",
            deny("Microsoft.Authorization/denyAssignments/read"),
            [
                unseen(SERVER, "deny assignment"),
                unseen(SETTING, "deny assignment"),
                unseen(URL, "deny assignment"),
            ],
        ),
    ]
}

fn locks() -> Vec<Case> {
    let write = "Microsoft.DBforPostgreSQL/flexibleServers/write";
    let set = "Microsoft.KeyVault/vaults/secrets/setSecret/action";
    let denied = "the deny assignment \"keep as it is\" forbids";
    vec![
        case(
            "a read-only lock on the group",
            lock("ReadOnly", "group"),
            all_locked("lock \"keep\" on the resource group"),
        ),
        case(
            "a read-only lock on the subscription",
            lock("ReadOnly", "subscription"),
            all_locked("lock \"keep\" on the subscription"),
        ),
        case(
            "a read-only lock on the server",
            lock("ReadOnly", "server"),
            [blocks(SERVER, "the read-only lock \"keep\" forbids changes")],
        ),
        case(
            "a read-only lock on the application",
            lock("ReadOnly", "application"),
            [blocks(SETTING, "the read-only lock"), blocks(APP, "the read-only lock")],
        ),
        case("a lock on the vault, which keeps no secret", lock("ReadOnly", "vault"), []),
        case("a lock against deletion", lock("CanNotDelete", "group"), []),
        case(
            "a deny assignment for everybody",
            deny_assignment(write, "everybody"),
            [blocks(SERVER, denied)],
        ),
        case(
            "a deny assignment for a group",
            deny_assignment(write, "group"),
            [unseen(SERVER, "whether the deny assignment \"keep as it is\"")],
        ),
        case("a deny assignment for everybody else", deny_assignment(write, "others"), []),
        case(
            "a deny assignment for what is in the vault",
            deny_assignment(set, "everybody"),
            [blocks(URL, denied), blocks(PASSWORD, denied)],
        ),
    ]
}

fn the_server() -> Vec<Case> {
    let ready = || json!("Ready");
    vec![
        case(
            "the server is stopped",
            server("state", json!("Stopped"), ready()),
            [blocks(SERVER, "Stopped")],
        ),
        case("the server is busy", server("state", json!("Updating"), ready()), [blocks(SERVER, "Updating")]),
        case(
            "the server's key is out of reach",
            server("state", json!("Inaccessible"), ready()),
            [blocks(SERVER, "Inaccessible")],
        ),
        case(
            "the server is a replica",
            server("replica", json!(true), json!(false)),
            [blocks(SERVER, "replica")],
        ),
        case(
            "password sign-in is off",
            server("password_auth", json!(false), json!(true)),
            [blocks(SERVER, "password sign-in is disabled")],
        ),
        case(
            "the server has another administrator",
            property("/properties/administratorLogin", "somebody", "mindwelladmin"),
            [blocks(SERVER, "its administrator is \"somebody\"")],
        ),
        case(
            "the server has another name",
            property("/properties/fullyQualifiedDomainName", "elsewhere.invalid", "localhost"),
            [blocks(SERVER, "its host name is \"elsewhere.invalid\"")],
        ),
    ]
}

fn the_vault() -> Vec<Case> {
    let policy = |rights: &[&str]| vault("access_policy", json!(rights), Value::Null);
    let tags: Value = (0..15).map(|index| (format!("tag{index}"), json!("x"))).collect();
    let dates =
        |nbf: Value, exp: Value| attributes(json!({"secret": "database-url", "nbf": nbf, "exp": exp}));
    vec![
        case("an access policy that suffices", policy(&["Get", "Set"]), []),
        case(
            "an access policy without writing",
            policy(&["get", "list"]),
            [blocks(URL, "policies give \"set\""), blocks(PASSWORD, "policies give \"set\"")],
        ),
        case(
            "an access policy without reading",
            policy(&["set"]),
            [blocks(URL, "policies give \"get\""), blocks(PASSWORD, "policies give \"get\"")],
        ),
        case(
            "a firewall before the vault",
            vault("firewall", json!(true), json!(false)),
            [blocks(URL, "firewall"), blocks(PASSWORD, "firewall")],
        ),
        case("the secret is deleted", secret("deleted", "recovered"), [blocks(URL, "it is deleted")]),
        case(
            "the secret is gone, and who is deleted can't be seen",
            secret("deleted", "recovered"),
            [unseen(URL, "whether its name is taken by a deleted one")],
        )
        .with(deny("Microsoft.KeyVault/vaults/secrets/readMetadata/action")),
        case("the secret is disabled", secret("disabled", "enabled"), [blocks(URL, "disabled")]),
        case(
            "the secret has expired",
            dates(Value::Null, json!(1_700_000_000)),
            [warning(URL, "expired on 2023-11-14")],
        ),
        case(
            "the secret is for later",
            dates(json!(4_000_000_000_u64), Value::Null),
            [warning(URL, "not to be used before 2096-10-02")],
        ),
        case(
            "the secret has no place for a tag",
            vault(
                "tags",
                json!({"secret": "database-url", "tags": tags}),
                json!({"secret": "database-url", "tags": {"owner": "platform", "rotation": "manual"}}),
            ),
            [note(URL, "15 tags")],
        ),
        case(
            "there is no such vault in the group",
            file("pgrotate.toml", |text| {
                let (first, rest) = text.split_once("kind = \"azure_key_vault\"").unwrap();
                let rest = rest.replacen("rg-mindwell-{env}", "rg-elsewhere", 1);
                format!("{first}kind = \"azure_key_vault\"{rest}")
            }),
            [unseen(PASSWORD, "shows only at the write")],
        ),
        case(
            "the vault refuses and does not say why",
            answer(json!({"system": "key_vault", "path_contains": "/secrets/database-url", "status": 403})),
            [blocks(URL, "the vault refuses it")],
        ),
    ]
}

fn the_application() -> Vec<Case> {
    let other_slot = "[[sinks]]\nkind = \"azure_app_service\"\nname = \"green\"\nsubscription = \"{subscription}\"\n\
                      resource_group = \"rg-mindwell-{env}\"\napp = \"mindwell-{env}-api\"\nslot = \"green\"\n\
                      setting = \"DATABASE_URL\"\nvalue = \"{database_url}\"";
    vec![
        case(
            "the application is stopped",
            app("stopped", json!(true), json!(false)),
            [warning(APP, "stopped")],
        ),
        case(
            "the log is off",
            app("logs_off", json!(true), json!(false)),
            [unseen(LOG, "logs are switched off")],
        ),
        case(
            "a slot that nobody has listed",
            slot(),
            [warning(SETTING, "the slot mindwell-dev-api/blue holds the same password in DATABASE_URL")],
        ),
        case(
            "a slot that nobody has listed and nobody may read",
            slot(),
            [unseen(SETTING, "what the slot mindwell-dev-api/blue holds can't be seen")],
        )
        .with(deny("Microsoft.Web/sites/slots/config/list/action")),
        case(
            "a slot whose setting stays with it",
            slot(),
            [warning(SETTING, "it would keep the old password; it stays with its slot in a swap")],
        )
        .with(app("sticky", json!(["DATABASE_URL"]), json!(["LOG_LEVEL"]))),
        case(
            "a slot that is not there",
            configured(other_slot),
            [blocks("azure_app_service:green", "no slot \"green\"")],
        ),
        case(
            "a setting that nobody has listed",
            another("setting", "REPORTS_DSN"),
            [warning(SETTING, "the setting REPORTS_DSN of mindwell-dev-api holds the same password")],
        ),
        case(
            "a connection string that nobody has listed",
            another("connection_string", "Reports"),
            [warning(SETTING, "the connection string Reports of mindwell-dev-api holds the same password")],
        ),
        case(
            "the setting is missing",
            setting("setting", json!({"name": "DATABASE_URL", "value": null})),
            [warning(SETTING, "there is no such setting yet")],
        ),
        case(
            "the setting points at one version",
            setting(
                "reference",
                json!({"secret": "database-url", "version": "0123456789abcdef0123456789abcdef"}),
            ),
            [blocks(SETTING, "it points at one version")],
        ),
        case(
            "the setting points at nothing",
            setting("reference", json!({"secret": "no-such-secret"})),
            [blocks(SETTING, "gives no value: SecretNotFound")],
        ),
        case(
            "the setting points at a secret that is no copy",
            setting("reference", json!({"secret": "smtp-password"})),
            [blocks(SETTING, "which is not among the copies")],
        ),
        case(
            "the right to have references fetched anew",
            setting("reference", json!({"secret": "database-url"})),
            [blocks(APP, "sites/config/write is missing"), blocks(SETTING, "sites/config/write is missing")],
        )
        .with(deny("Microsoft.Web/sites/config/write")),
    ]
}

#[test]
fn rights_that_are_taken_away_are_named() {
    play(rights());
}

#[test]
fn locks_and_deny_assignments_are_named() {
    play(locks());
}

#[test]
fn states_of_the_server_and_the_vault_are_named() {
    play(the_server().into_iter().chain(the_vault()).collect());
}

#[test]
fn states_of_the_application_are_named() {
    play(the_application());
}
