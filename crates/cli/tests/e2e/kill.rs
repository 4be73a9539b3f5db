//! The real program dies, over a real journal and a real server, wherever it can: at every request, and at instants
//! that nobody chose. What comes afterwards has to be everything new, or nothing changed.

mod boundaries;
mod late;
mod random;

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::lab::{Lab, Run};

/// The ticket that every rotation here is for.
const TICKET: &str = "OPS-7";

/// Starts the program.
fn start(lab: &Lab, arguments: &[&str]) -> Child {
    let mut command = lab.command(arguments);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Starts a rotation.
fn rotate(lab: &Lab, environment: &str) -> Child {
    start(lab, &["rotate", environment, "--ticket", TICKET, "--yes"])
}

/// Waits for the end of a process that was started by [`start`].
fn finish(child: Child) -> Run {
    Run(child.wait_with_output().unwrap())
}

/// Asks again and again, until there is an answer.
fn eventually<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(120);
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// An environment as it is before a run.
struct Picture {
    environment: String,
    password: String,
    versions: BTreeMap<String, u64>,
    values: BTreeMap<String, Value>,
    messages: usize,
    comments: usize,
    neighbours: Value,
}

impl Picture {
    fn take(lab: &Lab, environment: &str) -> Self {
        let state = lab.state()[environment].take();
        let copies = state["copies"].as_object().unwrap().clone();
        let count = |told: &str| state[told].as_array().unwrap().len();
        Self {
            environment: environment.to_owned(),
            password: state["postgres"]["password"].as_str().unwrap().to_owned(),
            versions: copies
                .iter()
                .map(|(id, copy)| (id.clone(), copy["versions"].as_u64().unwrap()))
                .collect(),
            values: copies.iter().map(|(id, copy)| (id.clone(), copy["value"].clone())).collect(),
            messages: count("messages"),
            comments: count("comments"),
            neighbours: neighbours(lab, environment, &state),
        }
    }

    /// Everything is new, nothing has happened twice, and what isn't ours is as it was.
    fn is_renewed(&self, lab: &Lab, twice: Twice) {
        let environment = &self.environment;
        lab.everything_is_new(environment, &self.password);
        let now = Self::take(lab, environment);
        for (id, before) in &self.versions {
            if id.starts_with("azure_key_vault:") || id.starts_with("aws_secrets_manager:") {
                let new = now.versions[id] - before;
                assert!((1..=twice.versions).contains(&new), "{id} has {new} new versions");
            }
        }
        let messages = now.messages - self.messages;
        assert!(twice.messages.contains(&messages), "it was told of {messages} times");
        let comments = now.comments - self.comments;
        assert!((1..=twice.comments).contains(&comments), "the ticket has {comments} new comments");
        assert_eq!(now.neighbours, self.neighbours, "something else has changed");
    }

    /// Everything is as it was.
    fn is_unchanged(&self, lab: &Lab) {
        let now = Self::take(lab, &self.environment);
        assert_eq!(now.password, self.password);
        assert_eq!(now.values, self.values);
        assert_eq!((now.messages, now.comments), (self.messages, self.comments));
        assert_eq!(now.neighbours, self.neighbours, "something else has changed");
    }
}

/// How often something may have happened in one run.
struct Twice {
    /// At most so many versions where each write makes one. It is one, unless a request came late.
    versions: u64,
    /// At most so many comments. It is one, unless a request came late.
    comments: usize,
    /// A message whose request was lost is not sent again.
    messages: RangeInclusive<usize>,
}

const ONCE: Twice = Twice { versions: 1, comments: 1, messages: 1..=1 };

/// What is not ours: other settings, fields, secrets, tags and lines.
fn neighbours(lab: &Lab, environment: &str, state: &Value) -> Value {
    let mut neighbours = state["neighbours"].clone();
    assert_eq!(neighbours.as_object().unwrap().len(), 3, "{neighbours}");
    // The program's own marks.
    for secret in neighbours["azure_key_vault"].as_object_mut().unwrap().values_mut() {
        if let Some(tags) = secret.get_mut("tags").and_then(Value::as_object_mut) {
            tags.remove("pgrotate-run");
        }
    }
    let foreign = |field: &Value| !field["label"].as_str().unwrap_or_default().starts_with("pgrotate ");
    neighbours["onepassword"].as_array_mut().unwrap().retain(foreign);
    let file = lab.world().join(format!("agents/{environment}/.config/mindwell/{environment}.env"));
    let text = std::fs::read_to_string(file).unwrap();
    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with("DATABASE_URL=")).collect();
    neighbours["env_file"] = lines.into();
    neighbours
}

/// Some version in the vault of record logs in to the server: the program itself has tried.
fn nobody_is_locked_out(lab: &Lab, environment: &str) {
    let text = lab.pgrotate(&["--json", "status", environment]).text();
    let status: Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    let server = &status["server"]["state"];
    assert!(server == "current" || server == "pending", "somebody is locked out: {text}");
}
