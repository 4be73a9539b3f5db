//! Who asks for fewer requests is left alone for as long as it asks, everybody sees that, and nothing is done twice.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::process::Stdio;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::crash::one_new_version;
use crate::lab::Lab;

/// What the contract allows as events.
const EVENTS: [&str; 8] = [
    "run_started",
    "step_started",
    "step_finished",
    "sink_published",
    "check_passed",
    "check_failed",
    "parked",
    "run_finished",
];

const ARM: &str =
    "Number of requests for subscription exceeded the limit of 200 for time interval. Please try later.";
const BUSY: &str = "Server pgflex-mindwell-dev is busy with other operations. Please try later";
const PRIMARY: &str = "API rate limit exceeded for installation ID 1.";
const SECONDARY: &str =
    "You have exceeded a secondary rate limit. Please wait a few minutes before you try again.";

/// A vendor's way to say "not so fast": which request meets it, what is answered, and how long has to be waited then.
struct Throttle {
    system: &'static str,
    method: &'static str,
    /// In the path, or in the name of the AWS operation.
    path: &'static str,
    nth: u32,
    status: u16,
    code: &'static str,
    message: &'static str,
    headers: Value,
    told: SignedDuration,
}

fn throttle(system: &'static str, method: &'static str, path: &'static str, status: u16) -> Throttle {
    let told = SignedDuration::ZERO;
    let (code, message, headers) = ("TooManyRequests", "Too many requests", json!({}));
    Throttle { system, method, path, nth: 1, status, code, message, headers, told }
}

impl Throttle {
    fn says(self, code: &'static str, message: &'static str) -> Self {
        Self { code, message, ..self }
    }

    fn nth(self, nth: u32) -> Self {
        Self { nth, ..self }
    }

    fn header(mut self, name: &str, value: &str) -> Self {
        self.headers[name] = json!(value);
        self
    }

    fn retry_after(self, seconds: i64) -> Self {
        let told = SignedDuration::from_secs(seconds);
        Self { told, ..self }.header("Retry-After", &seconds.to_string())
    }

    fn fault(&self) -> Value {
        json!({ "system": self.system, "method": self.method, "path_contains": self.path, "nth": self.nth,
            "when": "before", "kind": "status", "status": self.status, "code": self.code, "message": self.message,
            "headers": self.headers })
    }

    fn fits(&self, request: &Value) -> bool {
        let contains = |field: &str| request[field].as_str().is_some_and(|text| text.contains(self.path));
        request["system"] == self.system
            && request["method"] == self.method
            && (contains("path") || contains("operation"))
    }

    /// It was met, and nobody came back before the time that it told.
    fn was_respected(&self, requests: &[Value]) {
        let name = format!("{} {} {}", self.system, self.method, self.path);
        let mut hits = requests.iter().filter(|request| self.fits(request)).skip(self.nth as usize - 1);
        let hit = hits.next().unwrap_or_else(|| panic!("{name} was never asked"));
        assert_eq!((&hit["fault"], &hit["status"]), (&json!("status"), &json!(self.status)), "{name}");
        let again = hits.find(|request| request["path"] == hit["path"] && request["host"] == hit["host"]);
        let again = again.unwrap_or_else(|| panic!("{name} was never asked again"));
        let waited = time(again).duration_since(time(hit));
        assert!(waited >= self.told, "{name} was left alone for {waited:#}, not for {:#}", self.told);
    }
}

fn time(request: &Value) -> Timestamp {
    request["time"].as_str().unwrap().parse().unwrap()
}

/// Each write of a rotation that is not the same when it is repeated, with its vendor's own throttle.
fn writes(reset: Timestamp) -> Vec<Throttle> {
    let primary = throttle("github", "PUT", "/actions/secrets/DEV_POSTGRES_ADMIN_PASSWORD", 403)
        .says("", PRIMARY)
        .header("x-ratelimit-remaining", "0")
        .header("x-ratelimit-reset", &reset.as_second().to_string());
    // The first change of the item is check's, which changes nothing; the second stages.
    let stage = throttle("onepassword", "PATCH", "/items/", 429).nth(2).retry_after(1);
    let server = || throttle("resource_manager", "PATCH", "flexibleServers", 409);
    vec![
        stage,
        server().says("", BUSY),
        Throttle { status: 429, ..server().nth(2) }.says("SubscriptionRequestsThrottled", ARM).retry_after(1),
        throttle("resource_manager", "GET", "azureAsyncOperation", 429)
            .says("SubscriptionRequestsThrottled", ARM)
            .retry_after(1),
        throttle("key_vault", "PUT", "/secrets/database-url", 429)
            .says("Throttled", "Request was not processed because too many requests were received.")
            .retry_after(2),
        throttle("key_vault", "PUT", "/secrets/postgres-admin-password", 429).says("Throttled", ""),
        throttle("resource_manager", "PUT", "config/appsettings", 429)
            .says("SubscriptionRequestsThrottled", ARM)
            .retry_after(1),
        throttle("resource_manager", "POST", "/restart", 429)
            .says("SubscriptionRequestsThrottled", ARM)
            .retry_after(1),
        throttle("github", "PUT", "/actions/secrets/DEV_DATABASE_URL", 403)
            .says("", SECONDARY)
            .retry_after(1),
        primary,
        throttle("aws", "POST", "PutSecretValue", 400).says("ThrottlingException", "Rate exceeded"),
        throttle("webhook", "POST", "/services/", 429).says("rate_limited", "").retry_after(1),
        throttle("jira", "POST", "/comment", 429).says("", "Rate limit exceeded.").retry_after(1),
    ]
}

#[test]
fn every_vendors_throttle_of_a_write_is_shown_and_waited_out() {
    let lab = Lab::new("dev");
    let (old, before) = (lab.password("dev"), Before::of(&lab));
    let reset = Timestamp::now() + SignedDuration::from_secs(6);
    let throttles = writes(reset);
    throttles.iter().for_each(|throttle| lab.fault(&throttle.fault()));
    let run = lab.pgrotate(&["rotate", "dev", "--ticket", "OPS-12"]);
    let text = run.text();
    run.exits(0);

    lab.everything_is_new("dev", &old);
    before.and_nothing_twice(&lab);
    let requests = lab.requests();
    throttles.iter().for_each(|throttle| throttle.was_respected(&requests));
    let last = requests.iter().rfind(|request| {
        request["method"] == "PUT"
            && request["path"].as_str().unwrap().contains("DEV_POSTGRES_ADMIN_PASSWORD")
    });
    assert!(time(last.unwrap()).as_second() >= reset.as_second(), "GitHub was asked before its reset");
    for said in [
        "again   stage in 1.0 s: ",
        "the server is busy with other operations",
        "again   install in 1.0 s: cannot set the administrator's password",
        "again   publish/azure_key_vault:database-url in 2.0 s: ",
        "the vault has had too many requests",
        "again   publish/azure_app_service:DATABASE_URL in 1.0 s: ",
        "again   publish/github_actions:DEV_DATABASE_URL in 1.0 s: ",
        "GitHub asks for fewer requests at a time",
        "the token's requests of this hour are used up",
        "again   publish/aws_secrets_manager:",
        "AWS asks for fewer requests",
        "again   record/on-call in 1.0 s: cannot post to the webhook on-call: the other side asks for fewer messages",
        "again   record/jira in 1.0 s: cannot comment on OPS-12: Jira asks for fewer requests",
    ] {
        assert!(text.contains(said), "{said}\n{text}");
    }
}

/// What there was before a rotation.
struct Before {
    state: Value,
    versions: BTreeMap<String, u64>,
}

impl Before {
    fn of(lab: &Lab) -> Self {
        Self { state: lab.state(), versions: lab.versions("dev") }
    }

    /// One new version of everything, one start, one message, one comment, one change of the server.
    fn and_nothing_twice(&self, lab: &Lab) {
        let (state, versions) = (lab.state(), lab.versions("dev"));
        one_new_version(&self.versions, &versions);
        for (id, count) in &versions {
            // The vault of record is written twice: staged, promoted.
            let once = if id.starts_with("onepassword:") { 2 } else { 1 };
            assert!(*count <= self.versions[id] + once, "{id} was written too often");
        }
        let starts = |state: &Value| state["dev"]["app"]["starts"].as_u64().unwrap();
        assert_eq!(starts(&state), starts(&self.state) + 1, "restarts");
        for told in ["messages", "comments"] {
            let times = |state: &Value| state["dev"][told].as_array().unwrap().len();
            assert_eq!(times(&state), times(&self.state) + 1, "{told}");
        }
        let accepted = lab.requests().into_iter().filter(|request| {
            request["method"] == "PATCH"
                && request["system"] == "resource_manager"
                && request["status"] == 202
        });
        assert_eq!(accepted.count(), 1, "changes of the server");
    }
}

#[test]
fn a_throttled_look_is_taken_again_and_the_events_stay_those_of_the_contract() {
    let lab = Lab::new("dev");
    let (old, before) = (lab.password("dev"), Before::of(&lab));
    let throttles = [
        throttle("onepassword", "GET", "/items", 429).retry_after(1),
        throttle("resource_manager", "GET", "flexibleServers/pgflex", 429).retry_after(2),
        throttle("key_vault", "GET", "/secrets/database-url", 429).says("Throttled", "").retry_after(1),
        throttle("resource_manager", "POST", "config/appsettings/list", 429).retry_after(1),
        throttle("github", "GET", "/actions/secrets/DEV_DATABASE_URL", 429)
            .says("", SECONDARY)
            .retry_after(1),
        throttle("github", "POST", "/comments", 403).says("", SECONDARY).retry_after(1),
        throttle("aws", "POST", "GetSecretValue", 400).says("ThrottlingException", "Rate exceeded"),
    ];
    throttles.iter().for_each(|throttle| lab.fault(&throttle.fault()));
    let events = lab.pgrotate(&["--json", "rotate", "dev", "--ticket", "mindwell/ops#12"]).events(0);

    lab.everything_is_new("dev", &old);
    before.and_nothing_twice(&lab);
    let requests = lab.requests();
    throttles.iter().for_each(|throttle| throttle.was_respected(&requests));
    let kinds: BTreeSet<&str> = events.iter().map(|event| event["event"].as_str().unwrap()).collect();
    assert!(kinds.is_subset(&EVENTS.into()), "{kinds:?}");
    let failed = events.iter().find(|event| event["event"] == "check_failed").unwrap();
    assert!(failed["detail"]["retry_in_ms"].as_u64().unwrap() >= 1000, "{failed}");
}

/// Half an hour and more is a matter for a person: before the point of no return the run is called off, after it the
/// step is parked. Both say how long the vendor asked for.
#[test]
fn a_wait_that_is_too_long_is_left_to_a_person() {
    let lab = Lab::new("dev");
    let (old, before) = (lab.password("dev"), lab.versions("dev"));
    lab.fault(&throttle("onepassword", "PATCH", "/items/", 429).nth(2).retry_after(3600).fault());
    let run = lab.pgrotate(&["rotate", "dev"]);
    let text = run.text();
    assert!(
        text.contains("nothing is changed") && text.contains("it may be asked again in 60 min"),
        "{text}"
    );
    let _ = run.exits(1);
    assert_eq!((lab.password("dev"), lab.versions("dev")), (old.clone(), before.clone()));

    lab.clear_faults();
    let long = throttle("key_vault", "PUT", "/secrets/database-url", 429).retry_after(1800);
    lab.fault(&long.fault());
    let run = lab.pgrotate(&["rotate", "dev"]);
    let text = run.text();
    let parked = "parked: publish/azure_key_vault:database-url";
    assert!(text.contains(parked) && text.contains("it may be asked again in 30 min"), "{text}");
    let _ = run.exits(3);
    let asked = lab.requests().into_iter().filter(|request| long.fits(request)).count();
    assert_eq!(asked, 1, "it was asked again before its time");

    lab.pgrotate(&["resume"]).exits(0);
    lab.everything_is_new("dev", &old);
    one_new_version(&before, &lab.versions("dev"));
}

/// Where GitHub names no time it is a minute. Nobody who wants to stop has to wait for it.
#[test]
fn a_limit_without_a_time_is_a_minute_and_can_be_interrupted() {
    let lab = Lab::new("dev");
    let (old, before) = (lab.password("dev"), lab.versions("dev"));
    let secret = "/actions/secrets/DEV_DATABASE_URL";
    lab.fault(&throttle("github", "PUT", secret, 403).says("", SECONDARY).fault());
    let mut process =
        lab.command(&["rotate", "dev"]).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(process.stderr.take().unwrap()).lines().map(Result::unwrap);
    let mut again =
        lines.skip_while(|line| !line.contains("again   publish/github_actions:DEV_DATABASE_URL"));
    let line = again.next().unwrap();
    assert!(line.contains("in 1 min 00 s") && line.contains("GitHub asks for fewer requests"), "{line}");
    let pid = rustix::process::Pid::from_raw(i32::try_from(process.id()).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    again.for_each(drop);
    assert_eq!(process.wait().unwrap().code(), Some(3));

    lab.pgrotate(&["resume"]).exits(0);
    lab.everything_is_new("dev", &old);
    one_new_version(&before, &lab.versions("dev"));
}

/// Where nobody waits, the wait is told in words.
#[test]
fn what_only_looks_says_when_to_look_again() {
    let lab = Lab::new("dev");
    let copy = "azure_key_vault:database-url";
    for (arguments, status) in [(["check", "dev"], 1), (["status", "dev"], 4), (["plan", "dev"], 0)] {
        lab.fault(&throttle("key_vault", "GET", "/secrets/database-url", 429).retry_after(7).fault());
        let run = lab.pgrotate(&arguments);
        let text = run.text();
        let line =
            text.lines().find(|line| line.contains(copy) && line.contains("may be asked again in 7 s"));
        assert!(line.is_some_and(|line| line.contains("too many requests")), "{arguments:?}: {text}");
        let _ = run.exits(status);
        lab.clear_faults();

        lab.fault(&throttle("onepassword", "GET", "/items", 429).retry_after(7).fault());
        let run = lab.pgrotate(&arguments);
        let text = run.text();
        assert!(text.contains("may be asked again in 7 s"), "{arguments:?}: {text}");
        let _ = run.exits(status);
        lab.clear_faults();
    }
}
