//! Azure: rights, locks, the server, the vault, the application.

use serde_json::{Value, json};

use super::{Away, Case, blocks, case, play, state, warning};

const SERVER: &str = "azure_postgres_flexible:pgflex-mindwell-dev";
const SETTING: &str = "azure_app_service:DATABASE_URL";
const APP: &str = "azure_app_service:mindwell-dev-api";

/// Takes actions of the control plane or of Key Vault's data plane away.
fn deny(actions: &[&str]) -> Away {
    state("resource_manager", "deny", json!(actions), json!([]))
}

fn server(what: &'static str, bad: Value, good: Value) -> Away {
    state("resource_manager", what, bad, good)
}

fn table() -> Vec<Case> {
    vec![
        case(
            "the server is stopped",
            server("state", json!("Stopped"), json!("Ready")),
            [blocks(SERVER, "Stopped")],
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
            "the right to change the server",
            deny(&["Microsoft.DBforPostgreSQL/flexibleServers/write"]),
            [blocks(SERVER, "flexibleServers/write")],
        ),
        case(
            "the right to follow the operation",
            deny(&["Microsoft.DBforPostgreSQL/locations/azureAsyncOperation/read"]),
            [warning(SERVER, "azureAsyncOperation/read")],
        ),
        case(
            "the right to write settings",
            deny(&["Microsoft.Web/sites/config/write"]),
            [blocks(SETTING, "sites/config/write")],
        ),
        case(
            "the right to restart the application",
            deny(&["Microsoft.Web/sites/restart/action"]),
            [blocks(APP, "sites/restart/action")],
        ),
        case(
            "the application is stopped",
            state("app_service", "stopped", json!(true), json!(false)),
            [warning(APP, "stopped")],
        ),
    ]
}

#[test]
fn what_azure_takes_away_is_named_and_nothing_is_changed() {
    play(table());
}
