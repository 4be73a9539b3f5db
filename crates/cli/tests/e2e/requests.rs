//! A rotation asks nothing twice and nothing that its plan does not need: every request of it is in the snapshot.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::Value;

use crate::lab::Lab;

/// One request, in a form that is the same in every run.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Request {
    system: String,
    /// Method, or operation, and what it is about.
    line: String,
    /// What it is about, however it is asked or changed.
    thing: String,
    pub(crate) writes: bool,
}

impl Request {
    pub(crate) fn of(recorded: &Value) -> Self {
        let text = |name: &str| recorded[name].as_str().unwrap_or_default();
        let body: Value = serde_json::from_str(text("body")).unwrap_or_default();
        let (system, method) = (text("system"), text("method"));
        let host = text("host").split(['.', ':']).next().unwrap();
        let host =
            if matches!(system, "key_vault" | "app_service") { format!("{host}: ") } else { String::new() };
        let path = steady(text("path"));
        let (line, thing) = match system {
            "aws" => {
                let operation = Self::operation(recorded).to_owned();
                // Who we are and what we may do is no part of what a write changes.
                let around = matches!(
                    operation.as_str(),
                    "GetCallerIdentity" | "SimulatePrincipalPolicy" | "DescribeKey" | "GetResourcePolicy"
                );
                let thing = if around { operation.clone() } else { "the secret".to_owned() };
                (operation, thing)
            }
            // One token for each audience.
            "sign_in" => {
                let scope = text("body").split('&').find_map(|pair| pair.strip_prefix("scope="));
                let scope = without_port(&scope.unwrap_or_default().replace("%3A", ":").replace("%2F", "/"));
                (format!("token for {scope}"), scope)
            }
            _ => {
                let bare = path.split('?').next().unwrap().trim_end_matches("/list");
                (format!("{method} {host}{path}"), format!("{host}{}", bare.trim_end_matches('/')))
            }
        };
        // The vault says where to sign in.
        let challenged = recorded["answer"]["status"] == 401;
        let line = if challenged { format!("{host}challenge") } else { line };
        // Some reads are POSTs, because they show secrets; an empty patch is a question too.
        let asks = matches!(method, "GET")
            || path.contains("/list?")
            || (system == "aws" && !line.starts_with("Put"))
            || system == "sign_in"
            || body.as_array().is_some_and(Vec::is_empty);
        Self { system: system.to_owned(), line, thing, writes: !asks }
    }

    /// The AWS operation, of either protocol, else nothing.
    pub(crate) fn operation(recorded: &Value) -> &str {
        let target = header(recorded, "x-amz-target");
        let action = || recorded["body"].as_str().unwrap_or_default().strip_prefix("Action=");
        match target.rsplit('.').next().unwrap() {
            "" => action().and_then(|rest| rest.split('&').next()).unwrap_or_default(),
            operation => operation,
        }
    }

    /// Whether somebody can only wait and ask again, or what is asked for is another one each time, as a stream is.
    fn polls(&self) -> bool {
        self.line.contains("azureAsyncOperation") || self.line.contains("/logstream")
    }
}

fn header<'r>(recorded: &'r Value, wanted: &str) -> &'r str {
    let headers = recorded["headers"].as_array().unwrap();
    headers
        .iter()
        .find(|header| header[0] == wanted)
        .and_then(|header| header[1].as_str())
        .unwrap_or_default()
}

/// A URL without the port, which is another one in every run.
fn without_port(url: &str) -> String {
    let port = |part: &&str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    url.split('/')
        .map(|part| part.rsplit_once(':').filter(|(_, end)| port(end)).map_or(part, |(host, _)| host))
        .collect::<Vec<_>>()
        .join("/")
}

/// A path without what is different in every run: 1Password's ids, operations, and the credential of a webhook.
pub(crate) fn steady(path: &str) -> String {
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let mut steady: Vec<&str> = Vec::new();
    for part in path.split('/') {
        let id =
            part.len() == 26 && part.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
        let subscription = steady.last() == Some(&"subscriptions");
        let operation = steady.last() == Some(&"azureAsyncOperation");
        let credential = steady.get(1) == Some(&"services") && steady.len() == 4;
        steady.push(match part {
            _ if id || subscription || operation || credential => "*",
            own => own,
        });
    }
    let path = steady.join("/").replace("/subscriptions/*/resourceGroups/rg-mindwell-dev/providers/", "");
    match query {
        _ if path.contains("azureAsyncOperation") => path,
        "" => path,
        query => format!("{path}?{query}"),
    }
}

fn rotation(lab: &Lab) -> Vec<Request> {
    lab.pgrotate(&["rotate", "dev", "--ticket", "OPS-12"]).exits(0);
    lab.get("/_sandbox/recording").as_array().unwrap().iter().map(Request::of).collect()
}

/// How many requests of each kind, by system. How often a running operation is asked about depends on the hour.
fn counted(requests: &[Request]) -> String {
    let mut systems: BTreeMap<&str, BTreeMap<&str, usize>> = BTreeMap::new();
    for request in requests {
        let count = systems.entry(&request.system).or_default().entry(&request.line).or_default();
        *count = if request.polls() { 1 } else { *count + 1 };
    }
    let mut text = String::new();
    for (system, lines) in systems {
        writeln!(text, "{system}: {}", lines.values().sum::<usize>()).unwrap();
        for (line, count) in lines {
            let times = if count > 1 { format!("{count} × ") } else { String::new() };
            writeln!(text, "  {times}{line}").unwrap();
        }
    }
    text
}

/// The same question comes again only after something was written there, or right before.
fn asked_in_vain(requests: &[Request]) -> Vec<&Request> {
    let answers_anew = |place: usize, first: usize| {
        let request = &requests[place];
        let written =
            requests[first..place].iter().any(|other| other.writes && other.system == request.system);
        let mut next = requests[place + 1..].iter().filter(|other| other.thing == request.thing);
        written || next.next().is_some_and(|next| next.writes)
    };
    let mut in_vain = Vec::new();
    for (place, request) in
        requests.iter().enumerate().filter(|(_, request)| !request.writes && !request.polls())
    {
        let before = requests[..place].iter().rposition(|other| other.line == request.line);
        if before.is_some_and(|first| !answers_anew(place, first)) {
            in_vain.push(request);
        }
    }
    in_vain
}

#[test]
fn a_rotation_asks_nothing_twice_and_nothing_too_much() {
    let lab = Lab::recording("dev");
    let requests = rotation(&lab);
    assert_eq!(asked_in_vain(&requests), Vec::<&Request>::new());
    insta::assert_snapshot!(counted(&requests));
}

#[test]
fn a_question_in_vain_is_noticed() {
    let request = |line: &str, writes| Request {
        system: "x".into(),
        line: line.into(),
        thing: line.rsplit(' ').next().unwrap().into(),
        writes,
    };
    let (read, write, other) = (request("GET a", false), request("PUT a", true), request("GET b", false));
    let in_vain = |requests: &[&Request]| {
        let requests: Vec<Request> = requests.iter().map(|request| (*request).clone()).collect();
        asked_in_vain(&requests).len()
    };
    assert_eq!(in_vain(&[&read, &other, &read, &write, &read]), 0);
    assert_eq!(in_vain(&[&read, &read]), 1);
    assert_eq!(in_vain(&[&read, &other, &read, &read, &write]), 1, "only the last of them is right before");
    assert_eq!(in_vain(&[&read, &write, &read, &read]), 1);
}
