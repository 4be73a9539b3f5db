//! More than the runbook's one application: a second one, slots, a connection string, a secret of the organisation,
//! each with what is beside it.

use std::collections::BTreeMap;

use reqwest::{Certificate, Client, Method};
use serde_json::{Value, json};

use crate::lab::Lab;

/// The names follow the sandbox's, so that `status` and the control interface speak of the same copies.
const MORE: &str = r#"
[[sinks]]
kind = "azure_app_service"
name = "mindwell-{env}-api/connectionstrings/Database"
subscription = "{subscription}"
resource_group = "rg-mindwell-{env}"
app = "mindwell-{env}-api"
connection_string = "Database"
value = "{database_url}"

[[sinks]]
kind = "azure_app_service"
name = "mindwell-{env}-api/blue/DATABASE_URL"
subscription = "{subscription}"
resource_group = "rg-mindwell-{env}"
app = "mindwell-{env}-api"
slot = "blue"
setting = "DATABASE_URL"
value = "{database_url}"

[[consumers]]
kind = "azure_app_service"
subscription = "{subscription}"
resource_group = "rg-mindwell-{env}"
app = "mindwell-{env}-api"
slot = "blue"
waits_for = ["azure_app_service:mindwell-{env}-api/blue/DATABASE_URL"]

[[sinks]]
kind = "azure_app_service"
name = "mindwell-{env}-api/green/DATABASE_URL"
subscription = "{subscription}"
resource_group = "rg-mindwell-{env}"
app = "mindwell-{env}-api"
slot = "green"
setting = "DATABASE_URL"
value = "{database_url}"

[[consumers]]
kind = "azure_app_service"
subscription = "{subscription}"
resource_group = "rg-mindwell-{env}"
app = "mindwell-{env}-api"
slot = "green"
waits_for = ["azure_app_service:mindwell-{env}-api/green/DATABASE_URL"]

[[sinks]]
kind = "azure_app_service"
name = "mindwell-{env}-worker/DATABASE_URL"
subscription = "{subscription}"
resource_group = "rg-mindwell-{env}"
app = "mindwell-{env}-worker"
setting = "DATABASE_URL"
value = "{database_url}"

[[consumers]]
kind = "azure_app_service"
subscription = "{subscription}"
resource_group = "rg-mindwell-{env}"
app = "mindwell-{env}-worker"
waits_for = ["azure_app_service:mindwell-{env}-worker/DATABASE_URL"]

[[sinks]]
kind = "github_actions"
name = "mindwell/{ENV}_SHARED_DATABASE_URL"
organization = "mindwell"
secret = "{ENV}_SHARED_DATABASE_URL"
value = "{database_url}"
"#;

const BLUE: &str = "azure_app_service:mindwell-dev-api/blue/DATABASE_URL";
const GREEN: &str = "azure_app_service:mindwell-dev-api/green/DATABASE_URL";
const WORKER: &str = "azure_app_service:mindwell-dev-worker/DATABASE_URL";
const STRING: &str = "azure_app_service:mindwell-dev-api/connectionstrings/Database";
const SHARED: &str = "github_actions:mindwell/DEV_SHARED_DATABASE_URL";
/// Somebody else's, which the control interface shows too: it was not there from the beginning.
const BESIDE: &str = "azure_app_service:mindwell-dev-api/connectionstrings/Cache";

/// Application and slot, as Azure's paths have them.
const SITES: [&str; 4] = [
    "mindwell-dev-api",
    "mindwell-dev-api/slots/blue",
    "mindwell-dev-api/slots/green",
    "mindwell-dev-worker",
];

/// A lab in which all of it is there and configured.
fn lab() -> Lab {
    let lab = Lab::new("dev");
    let url = lab.state()["dev"]["copies"]["azure_app_service:DATABASE_URL"]["value"].clone();
    for (what, value) in [
        ("app", json!("mindwell-dev-worker")),
        ("slot", json!("blue")),
        ("slot", json!({ "app": "mindwell-dev-api", "slot": "green" })),
        ("connection_string", json!({ "name": "Database", "value": url, "type": "PostgreSQL" })),
        ("connection_string", json!({ "name": "Cache", "value": "host=\"c\";ssl", "type": "RedisCache" })),
    ] {
        lab.set("app_service", what, &value);
    }
    let shared = json!({ "name": "DEV_SHARED_DATABASE_URL", "value": url, "visibility": "selected",
        "repositories": ["backend", "ops"] });
    lab.set("github", "organization_secret", &shared);
    let text = std::fs::read_to_string(lab.config()).unwrap();
    std::fs::write(lab.config(), format!("{text}{MORE}")).unwrap();
    lab.wait_for("the first start of each", || {
        starts(&lab).len() == 3 && starts(&lab).values().all(|starts| *starts == 1)
    });
    lab
}

/// How often the sites beside the one that runs were started.
fn starts(lab: &Lab) -> BTreeMap<String, u64> {
    serde_json::from_value(lab.state()["dev"]["sites"].clone()).unwrap()
}

/// What the vendors' own interfaces say, asked as any client of theirs would.
struct Vendors {
    http: Client,
    runtime: tokio::runtime::Runtime,
    group: String,
    github: String,
    azure_token: String,
    github_token: String,
}

impl Vendors {
    fn of(lab: &Lab) -> Self {
        let ca = std::fs::read(lab.world().join("ca.pem")).unwrap();
        let http = Client::builder()
            .no_proxy()
            .user_agent("tests")
            .add_root_certificate(Certificate::from_pem(&ca).unwrap())
            .build()
            .unwrap();
        let config: toml::Table = std::fs::read_to_string(lab.config()).unwrap().parse().unwrap();
        let text = |table: &str, key: &str| config[table][key].as_str().unwrap().to_owned();
        let credentials = std::fs::read_to_string(lab.world().join("credentials.env")).unwrap();
        let credential = |name: &str| {
            let line = credentials.lines().find_map(|line| line.strip_prefix(&format!("{name}=")));
            line.unwrap_or_else(|| panic!("{name} is missing")).to_owned()
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let azure = text("azure", "resource_manager");
        let subscription = config["environments"]["dev"]["subscription"].as_str().unwrap();
        let form = [
            ("grant_type", "client_credentials"),
            ("client_id", &credential("AZURE_CLIENT_ID")),
            ("client_secret", &credential("AZURE_CLIENT_SECRET")),
            ("scope", "https://management.azure.com/.default"),
        ];
        let host = credential("AZURE_AUTHORITY_HOST");
        let url =
            format!("{}/{}/oauth2/v2.0/token", host.trim_end_matches('/'), credential("AZURE_TENANT_ID"));
        let token: Value = runtime
            .block_on(async { http.post(url).form(&form).send().await.unwrap().json().await })
            .unwrap();
        Self {
            group: format!("{azure}/subscriptions/{subscription}/resourceGroups/rg-mindwell-dev"),
            github: text("github", "api"),
            azure_token: token["access_token"].as_str().unwrap().to_owned(),
            github_token: credential("GH_TOKEN"),
            http,
            runtime,
        }
    }

    fn ask(&self, method: Method, url: &str, token: &str) -> Value {
        let request = self.http.request(method, url).bearer_auth(token);
        self.runtime.block_on(async {
            let answer = request.send().await.unwrap();
            assert!(answer.status().is_success(), "{url}: {}", answer.status());
            answer.json().await.unwrap()
        })
    }

    fn site(&self, method: Method, path: &str) -> Value {
        let url = format!("{}/providers/Microsoft.Web/sites/{path}?api-version=2025-05-01", self.group);
        self.ask(method, &url, &self.azure_token)["properties"].clone()
    }

    /// Everything that the sites keep, by the path of each.
    fn sites(&self) -> Value {
        let list = |path: String| self.site(Method::POST, &format!("{path}/list"));
        let of = |site: &str| {
            let mut all = json!({
                "settings": list(format!("{site}/config/appsettings")),
                "strings": list(format!("{site}/config/connectionstrings")),
            });
            if !site.contains('/') {
                all["sticky"] = self.site(Method::GET, &format!("{site}/config/slotConfigNames"));
            }
            all
        };
        SITES.iter().map(|site| ((*site).to_owned(), of(site))).collect()
    }

    /// Who may use the organisation's secret.
    fn audience(&self) -> Value {
        let url = format!("{}/orgs/mindwell/actions/secrets/DEV_SHARED_DATABASE_URL", self.github);
        let secret = self.ask(Method::GET, &url, &self.github_token);
        let repositories = self.ask(Method::GET, &format!("{url}/repositories"), &self.github_token);
        json!({ "visibility": secret["visibility"], "repositories": repositories })
    }
}

/// Takes the copies out of what the sites keep, and leaves what is beside them.
fn beside(mut sites: Value) -> Value {
    for site in SITES {
        // A string's type is beside its value.
        for copy in ["/settings/DATABASE_URL", "/strings/Database/value"] {
            if let Some(value) = sites[site].pointer_mut(copy) {
                *value = Value::Null;
            }
        }
    }
    sites
}

/// Every copy but those that are named holds the server's password.
fn all_new_but(lab: &Lab, kept: &[&str], old: &str) {
    let state = lab.state()["dev"].clone();
    let new = state["postgres"]["password"].as_str().unwrap();
    assert!(new != old, "the password is the old one");
    for (id, copy) in state["copies"].as_object().unwrap() {
        // Not assert_eq: its message would show the values.
        let holds = copy["value"].as_str().unwrap().contains(new);
        assert!(holds != (kept.contains(&id.as_str()) || id == BESIDE), "{id}");
    }
    assert!(lab.logs_in(&state["postgres"], new) && !lab.logs_in(&state["postgres"], old));
    assert_eq!(lab.health(&state), 200, "the application can't open a new connection");
}

#[test]
fn applications_slots_strings_and_the_organisations_secret_are_rotated_and_nothing_beside_them() {
    let lab = lab();
    let (old, vendors) = (lab.password("dev"), Vendors::of(&lab));
    let (sites, audience, runs) = (vendors.sites(), vendors.audience(), lab.state()["dev"]["app"].clone());
    assert_eq!(audience["visibility"], "selected");
    assert_eq!(audience["repositories"]["total_count"], 2);
    assert_eq!(sites[SITES[0]]["sticky"]["appSettingNames"], json!(["LOG_LEVEL"]));
    for id in [BLUE, GREEN, WORKER, STRING, SHARED, BESIDE] {
        assert!(lab.state()["dev"]["copies"][id]["value"].is_string(), "{id} is missing");
    }

    let events = lab.pgrotate(&["--json", "rotate", "dev", "--ticket", "OPS-12"]).events(0);
    all_new_but(&lab, &[], &old);
    let after = vendors.sites();
    assert!(beside(after.clone()) == beside(sites), "something beside the copies was changed");
    assert_eq!(after[SITES[0]]["strings"]["Database"]["type"], "PostgreSQL");
    assert!(vendors.audience() == audience, "the secret's audience was changed");

    let expected = ["mindwell-dev-api/blue", "mindwell-dev-api/green", "mindwell-dev-worker"];
    assert_eq!(starts(&lab), expected.map(|site| (site.to_owned(), 2)).into(), "one restart each");
    assert!(lab.state()["dev"]["app"]["starts"].as_u64() > runs["starts"].as_u64());
    for site in expected {
        let activated = format!("azure_app_service:{site}");
        let done = events.iter().any(|event| {
            event["event"] == "step_finished"
                && event["step"] == "activate"
                && event["detail"]["subject"] == *activated
        });
        assert!(done, "{activated}");
    }
    let output: String = events.iter().map(Value::to_string).collect();
    assert!(!output.contains(&lab.password("dev")) && !output.contains(&old), "the output holds a password");

    let status = lab.pgrotate(&["--json", "status", "dev"]).events(0);
    let copies = status[0]["copies"].as_array().unwrap();
    for (id, state) in
        [(BLUE, "current"), (GREEN, "current"), (WORKER, "current"), (STRING, "current"), (SHARED, "unseen")]
    {
        let copy = copies.iter().find(|copy| copy["id"] == id).unwrap_or_else(|| panic!("{id} is missing"));
        assert_eq!(copy["state"], state, "{id}");
    }

    // What somebody else does to one slot is told of that slot.
    lab.set("app_service", "setting", &json!({ "slot": "green", "name": "DATABASE_URL", "value": "gone" }));
    let status = lab.pgrotate(&["--json", "status", "dev"]).events(4);
    let copies = status[0]["copies"].as_array().unwrap();
    let stale =
        copies.iter().filter(|copy| !["current", "unseen"].contains(&copy["state"].as_str().unwrap()));
    assert_eq!(stale.map(|copy| copy["id"].as_str().unwrap()).collect::<Vec<_>>(), [GREEN]);
}

#[test]
fn a_slot_that_can_only_be_read_parks_its_own_steps_and_no_others() {
    let lab = lab();
    let old = lab.password("dev");
    lab.fault(
        &json!({ "method": "PUT", "path_contains": "/slots/green/config/appsettings", "when": "before",
        "kind": "status", "status": 403, "times": 100 }),
    );
    let events = lab.pgrotate(&["--json", "rotate", "dev"]).events(3);
    let parked: Vec<&Value> = events.iter().filter(|event| event["event"] == "parked").collect();
    assert_eq!(parked.len(), 1, "{parked:?}");
    assert_eq!(parked[0]["sink"], GREEN);
    all_new_but(&lab, &[GREEN], &old);
    let expected = [("mindwell-dev-api/blue", 2), ("mindwell-dev-api/green", 1), ("mindwell-dev-worker", 2)];
    assert_eq!(starts(&lab), expected.map(|(site, starts)| (site.to_owned(), starts)).into());
    assert!(lab.state()["dev"]["messages"].as_array().unwrap().is_empty(), "nobody is told that it is done");

    lab.clear_faults();
    lab.pgrotate(&["resume"]).exits(0);
    all_new_but(&lab, &[], &old);
    assert_eq!(starts(&lab)["mindwell-dev-api/green"], 2);
    assert_eq!(starts(&lab)["mindwell-dev-api/blue"], 2, "what was done is not done again");
}

#[test]
fn a_name_that_is_taken_and_a_slot_that_is_not_there_are_found() {
    let lab = Lab::new("dev");
    let text = std::fs::read_to_string(lab.config()).unwrap();
    let start =
        MORE.find("[[sinks]]\nkind = \"azure_app_service\"\nname = \"mindwell-{env}-api/blue").unwrap();
    let blue = &MORE[start..start + MORE[start..].find("[[consumers]]").unwrap()];

    let name = "name = \"mindwell-{env}-api/blue/DATABASE_URL\"\n";
    assert!(blue.contains(name));
    std::fs::write(lab.config(), format!("{text}\n{}", blue.replace(name, ""))).unwrap();
    let refused = lab.pgrotate(&["check", "dev"]);
    let said = refused.text();
    let _ = refused.exits(2);
    assert!(said.contains("two copies are called `azure_app_service:DATABASE_URL`"), "{said}");
    assert!(said.contains("give one of them a `name` of its own"), "{said}");

    std::fs::write(lab.config(), format!("{text}\n{blue}")).unwrap();
    let before = lab.state();
    for command in ["check", "rotate"] {
        let blocked = lab.pgrotate(&[command, "dev"]);
        let said = blocked.text();
        let _ = blocked.exits(1);
        assert!(said.contains(BLUE), "{said}");
        assert!(said.contains("mindwell-dev-api has no slot \"blue\""), "{said}");
        assert!(said.contains("az webapp deployment slot list"), "{said}");
        assert!(said.contains("--resource-group rg-mindwell-dev --name mindwell-dev-api"), "{said}");
    }
    assert!(lab.state() == before, "nothing was changed");
    lab.set("app_service", "slot", &json!("blue"));
    lab.pgrotate(&["check", "dev"]).exits(0);
}
