//! What other systems call the requests that a step has sent.
//!
//! Whoever asks a vendor what happened is asked for such an id first. They are collected beside the work, so that no
//! provider has to hand them on: [`Noting`] opens a collection for each step, and every answer is noted into the one that
//! is open where it came in.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use pgrotate_core::Result;
use pgrotate_core::executor::World;
use pgrotate_core::journal::{Outcome, Request};
use pgrotate_core::plan::{Plan, Step};
use pgrotate_core::run::RunState;

/// The headers that carry an id, with the system that sends it. Sources: Microsoft's "Azure Resource Manager request
/// limits" and "Key Vault REST API" (`x-ms-request-id`), AWS's "Request IDs" (`x-amzn-requestid`), GitHub's "Troubleshooting
/// the REST API" (`x-github-request-id`), Slack's and Atlassian's answers as they are seen.
const HEADERS: [(&str, &str); 6] = [
    ("x-ms-request-id", "azure"),
    ("x-amzn-requestid", "aws"),
    ("x-github-request-id", "github"),
    ("x-slack-req-id", "slack"),
    ("x-arequestid", "jira"),
    ("x-request-id", "other"),
];
/// Under this one, the activity log of Azure has everything that followed from a request.
const CORRELATION: &str = "x-ms-correlation-request-id";

/// The longest id that is kept; the known ones have up to 50 letters.
const LONGEST: usize = 80;
/// How many are kept of a step: of requests that changed something, and of the last others.
const CHANGES: usize = 8;
const LOOKS: usize = 2;

/// What a request asks for.
pub(crate) struct Asked {
    /// In a word.
    pub(crate) what: String,
    /// Whether it is there to change something.
    pub(crate) changes: bool,
}

impl Asked {
    /// As far as a method and a path tell.
    pub(crate) fn by_http(method: &str, path: &str) -> Self {
        // Azure reads settings by POST, because they are secret, and signs in by it.
        let looks =
            method == "GET" || method == "HEAD" || path.ends_with("/list") || path.ends_with("/token");
        Self { what: method.to_owned(), changes: !looks }
    }
}

#[derive(Default)]
struct Noted {
    changes: Vec<Request>,
    looks: VecDeque<Request>,
}

tokio::task_local! {
    /// The collection of the step that is being carried out.
    static NOTED: Arc<Mutex<Noted>>;
}

/// Notes an answer by its headers. Nowhere, where nobody collects.
pub(crate) fn note<'h>(asked: &Asked, header: impl Fn(&'static str) -> Option<&'h str>) {
    let _ = NOTED.try_with(|noted| {
        let Some((system, id)) =
            HEADERS.iter().find_map(|(name, system)| Some((*system, known(header(name)?)?)))
        else {
            return;
        };
        let request = |what: &str, id: &str| Request {
            system: system.to_owned(),
            what: what.to_owned(),
            id: id.to_owned(),
        };
        let mut noted = noted.lock().expect("no holder of this lock panics");
        if !asked.changes {
            noted.looks.push_back(request(&asked.what, id));
            if noted.looks.len() > LOOKS {
                noted.looks.pop_front();
            }
            return;
        }
        let correlation = header(CORRELATION).and_then(known).filter(|own| *own != id);
        noted.changes.push(request(&asked.what, id));
        noted.changes.extend(correlation.map(|own| request(&format!("{}, correlation", asked.what), own)));
        noted.changes.truncate(CHANGES);
    });
}

/// An id, if it looks like one: it is repeated to people.
fn known(id: &str) -> Option<&str> {
    let letter = |own: u8| own.is_ascii_alphanumeric() || b"-_:.".contains(&own);
    (!id.is_empty() && id.len() <= LONGEST && id.bytes().all(letter)).then_some(id)
}

/// Does work; gives the ids that were noted meanwhile.
async fn collect<T>(work: impl Future<Output = T>) -> (T, Vec<Request>) {
    let noted = Arc::new(Mutex::new(Noted::default()));
    let result = NOTED.scope(Arc::clone(&noted), work).await;
    let Noted { changes, looks } = std::mem::take(&mut *noted.lock().expect("no holder of this lock panics"));
    (result, changes.into_iter().chain(looks).collect())
}

/// A world whose outcomes and errors say under which ids others know what was asked.
pub struct Noting<'a>(pub &'a dyn World);

#[async_trait]
impl World for Noting<'_> {
    fn plan(&self) -> Plan {
        self.0.plan()
    }

    async fn perform(&self, step: &Step, run: &RunState) -> Result<Outcome> {
        match collect(self.0.perform(step, run)).await {
            (Ok(outcome), requests) => Ok(Outcome { requests, ..outcome }),
            (Err(error), requests) => Err(error.asked(requests)),
        }
    }

    async fn discard(&self, run: &RunState) -> Result<()> {
        self.0.discard(run).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(method: &str, path: &str, headers: &[(&'static str, &str)]) {
        note(&Asked::by_http(method, path), |name| {
            headers.iter().find(|(own, _)| *own == name).map(|(_, value)| *value)
        });
    }

    fn ids(requests: &[Request]) -> Vec<String> {
        requests.iter().map(|own| format!("{} {} {}", own.system, own.what, own.id)).collect()
    }

    #[tokio::test]
    async fn what_changed_something_is_kept_and_a_few_looks() {
        let ((), requests) = collect(async {
            for look in ["a", "b", "c"] {
                answer("GET", "/x", &[("x-github-request-id", look)]);
            }
            answer("POST", "/config/appsettings/list", &[("x-ms-request-id", "d")]);
            answer("PUT", "/x", &[("x-ms-request-id", "e"), (CORRELATION, "f")]);
            answer("PUT", "/x", &[("x-ms-request-id", "g"), (CORRELATION, "g")]);
        })
        .await;
        let wanted =
            ["azure PUT e", "azure PUT, correlation f", "azure PUT g", "github GET c", "azure POST d"];
        assert_eq!(ids(&requests), wanted);
    }

    #[tokio::test]
    async fn what_looks_like_no_id_is_not_repeated_and_nobody_makes_the_journal_long() {
        let long = "x".repeat(LONGEST + 1);
        let ((), requests) = collect(async {
            for id in ["", "two words", "<b>", "a\"b", "ü", &long] {
                answer("PUT", "/x", &[("x-ms-request-id", id)]);
            }
            for _ in 0..100 {
                answer("PUT", "/x", &[("x-amzn-requestid", "id")]);
            }
        })
        .await;
        assert_eq!(ids(&requests), vec!["aws PUT id"; CHANGES]);
        answer("PUT", "/x", &[("x-ms-request-id", "nobody collects")]);
    }

    /// Steps that are carried out side by side don't get each other's.
    #[tokio::test]
    async fn each_step_has_its_own() {
        let step = |id: &'static str| {
            collect(async move {
                for _ in 0..2 {
                    tokio::task::yield_now().await;
                    answer("PUT", "/x", &[("x-request-id", id)]);
                }
            })
        };
        let ((_, one), (_, two)) = futures::join!(step("one"), step("two"));
        assert_eq!(
            (ids(&one), ids(&two)),
            (vec!["other PUT one".into(); 2], vec!["other PUT two".into(); 2])
        );
    }
}
