//! Everything that pgrotate sends in full rotations, held against the vendors' own specifications, and with it what
//! the sandbox answers.
//!
//! The specifications are read where they lie and are no part of this repository. Where they are absent this suite
//! says *skipped* and proves nothing.

mod botocore;
mod differences;
mod exchange;
mod habits;
mod judge;
mod mutations;
mod openapi;
mod schema;
mod unspecified;

use std::collections::BTreeMap;
use std::io::Write;

use serde_json::json;

use self::exchange::Exchange;
use self::judge::{Specifications, Verdict};
use crate::lab::Lab;

/// The specifications, or a line that says that there are none.
fn specifications() -> Option<Specifications> {
    let found = Specifications::load();
    if found.is_none() {
        let folder = judge::folder();
        say(&format!("skipped: there are no specifications in {} (PGROTATE_SPECS)", folder.display()));
    }
    found
}

/// Past the test harness, which swallows what a test prints.
fn say(line: &str) {
    std::io::stderr().write_all(format!("{line}\n").as_bytes()).unwrap();
}

/// What the configuration of the sandbox does not have by itself. The organization's secrets are there before, because
/// pgrotate makes none: one for all its private repositories, and one for some that are named.
const MORE_COPIES: &str = r#"
[[sinks]]
kind = "github_actions"
name = "of the environment"
repository = "mindwell/backend"
environment = "qa/eu"
secret = "DATABASE_URL"
value = "{database_url}"

[[sinks]]
kind = "github_actions"
name = "of the organization"
organization = "mindwell"
secret = "NPM_TOKEN"
value = "{database_url}"

[[sinks]]
kind = "azure_app_service"
name = "connection string"
subscription = "{subscription}"
resource_group = "rg-mindwell-{env}"
app = "mindwell-{env}-worker"
connection_string = "Database"
value = "{database_url}"

[[sinks]]
kind = "azure_app_service"
name = "connection string of the slot"
subscription = "{subscription}"
resource_group = "rg-mindwell-{env}"
app = "mindwell-{env}-api"
slot = "staging"
connection_string = "Database"
value = "{database_url}"

[[sinks]]
kind = "azure_app_service"
name = "of the slot"
subscription = "{subscription}"
resource_group = "rg-mindwell-{env}"
app = "mindwell-{env}-api"
slot = "staging"
setting = "DATABASE_URL"
value = "{database_url}"

[[consumers]]
kind = "azure_app_service"
subscription = "{subscription}"
resource_group = "rg-mindwell-{env}"
app = "mindwell-{env}-api"
slot = "staging"
waits_for = ["azure_app_service:of the slot"]

[[sinks]]
kind = "github_actions"
name = "of the organization for some"
organization = "mindwell"
secret = "{ENV}_SHARED_DATABASE_URL"
value = "{database_url}"
"#;

/// Plays what pgrotate can do with the systems of the runbook: an ordinary rotation, one with references to Key Vault,
/// both kinds of ticket, and the commands that only look.
fn played() -> Vec<Exchange> {
    let lab = Lab::recording("dev");
    let config = lab.config();
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, format!("{text}{MORE_COPIES}")).unwrap();
    let url = &lab.state()["dev"]["copies"]["azure_app_service:DATABASE_URL"]["value"];
    lab.set("app_service", "slot", &json!("staging"));
    lab.set("app_service", "app", &json!("mindwell-dev-worker"));
    // Not of the first application: a change of its configuration would fetch the values behind its references, and
    // nothing would be left to ask for.
    for mut string in [json!({"slot": "staging"}), json!({"app": "mindwell-dev-worker"})] {
        string["name"] = json!("Database");
        string["value"] = url.clone();
        lab.set("app_service", "connection_string", &string);
    }
    let shared = json!({"name": "DEV_SHARED_DATABASE_URL", "value": url, "visibility": "selected",
        "repositories": ["backend"]});
    lab.set("github", "organization_secret", &shared);
    lab.pgrotate(&["check", "dev"]).exits(0);
    lab.pgrotate(&["rotate", "dev", "--ticket", "mindwell/ops#12"]).exits(0);
    lab.set("app_service", "reference", &json!({"name": "DATABASE_URL", "secret": "database-url"}));
    lab.pgrotate(&["rotate", "dev", "--ticket", "OPS-12"]).exits(0);
    let _ = lab.pgrotate(&["status", "dev"]);
    lab.get("/_sandbox/recording").as_array().unwrap().iter().map(Exchange::of).collect()
}

#[test]
fn every_request_and_every_answer_of_full_rotations_keeps_to_the_specifications() {
    let Some(specifications) = specifications() else { return };
    let exchanges = played();
    let mut report = Report::default();
    for (index, exchange) in exchanges.iter().enumerate() {
        match specifications.judge(exchange, &exchanges[..index]) {
            Ok(Verdict::Specified(operation, differences)) => {
                *report.specified.entry(operation).or_default() += 1;
                report.differing += usize::from(!differences.is_empty());
                report.differ(&differences);
            }
            Ok(Verdict::Unspecified(kind)) => {
                report.unspecified.entry(kind.name).or_insert((0, kind.source)).0 += 1;
            }
            Err(complaints) => report.complain("request", exchange, &complaints),
        }
        match specifications.judge_answer(exchange) {
            Ok(differences) => report.differ(&differences),
            Err(complaints) => report.complain("answer", exchange, &complaints),
        }
    }
    report.conclude(exchanges.len());
}

/// What became of all the requests.
#[derive(Default)]
struct Report {
    specified: BTreeMap<String, usize>,
    /// By name; with the times, where it is documented.
    unspecified: BTreeMap<&'static str, (usize, &'static str)>,
    /// By their line; with the times, why they are right.
    differences: BTreeMap<String, (usize, &'static str)>,
    differing: usize,
    complaints: BTreeMap<String, usize>,
}

impl Report {
    fn differ(&mut self, differences: &[&'static differences::Difference]) {
        for difference in differences {
            self.differences.entry(difference.line()).or_insert((0, difference.why)).0 += 1;
        }
    }

    fn complain(&mut self, side: &str, exchange: &Exchange, complaints: &[String]) {
        let text = format!("{side} {}\n    {}", exchange.line(), complaints.join("\n    "));
        *self.complaints.entry(text).or_default() += 1;
    }

    fn conclude(self, all: usize) {
        let complaints: Vec<String> =
            self.complaints.iter().map(|(text, times)| format!("{times} x {text}")).collect();
        assert!(complaints.is_empty(), "{}", complaints.join("\n"));
        let specified: usize = self.specified.values().sum();
        let unspecified: usize = self.unspecified.values().map(|(times, _)| times).sum();
        say(&format!(
            "contract: {all} requests and their answers: {specified} keep to a specification ({} operations; {} of \
             them with a named difference), {unspecified} are named exceptions",
            self.specified.len(),
            self.differing
        ));
        for (name, (times, source)) in &self.unspecified {
            say(&format!("  excepted {times} x {name} ({source})"));
        }
        for (name, (times, why)) in &self.differences {
            say(&format!("  differs {times} x {name} ({why})"));
        }
        assert_eq!(specified + unspecified, all, "a request was not judged");
        self.nothing_is_kept_for_nobody();
    }

    /// A difference or an exception that nothing needs would hide the next mistake.
    fn nothing_is_kept_for_nobody(&self) {
        let unused = differences::all().map(differences::Difference::line);
        let unused: Vec<String> = unused.filter(|line| !self.differences.contains_key(line)).collect();
        assert!(unused.is_empty(), "differences that nothing needs: {unused:?}");
        let kinds = unspecified::UNSPECIFIED.iter().map(|kind| kind.name);
        let unused: Vec<&str> = kinds.filter(|name| !self.unspecified.contains_key(name)).collect();
        assert!(unused.is_empty(), "exceptions that nothing needs: {unused:?}");
    }
}
