//! The append-only memory of runs.
//!
//! It remembers references (version ids, fingerprints) and never values. What a run is at any
//! moment follows from its events alone; see [`RunState`](crate::run::RunState).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Kind, Result};
use crate::ids::{CopyId, Environment, RunId, StepId, VersionId};
use crate::lease::{Generation, Lease};
use crate::past::Overrides;
use crate::plan::Plan;
use crate::provider::Finding;
use crate::secret::Fingerprint;

/// The version of the events' own form, written into every entry. A journal with a higher one
/// was written by a newer program and is not read.
pub const FORMAT: u16 = 1;

/// One line of a run's journal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// [`FORMAT`] when it was written.
    pub format: u16,
    /// Its place in the run, from 0, without gaps.
    pub seq: u64,
    /// When it was written.
    pub at: Timestamp,
    /// What happened.
    pub event: Event,
}

/// What can happen to a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// The run was made. Always the first event.
    RunStarted(Arc<Start>),
    /// Another process took the run over, after a crash or by `resume`.
    RunResumed {
        /// The lease under which it goes on.
        generation: Generation,
    },
    /// A step is about to have its effect. Written before the effect, so that a crash can't
    /// hide that it may have happened.
    StepStarted {
        /// Which.
        step: StepId,
        /// Its how many-th try, from 1.
        attempt: u32,
    },
    /// A step is done.
    StepFinished {
        /// Which.
        step: StepId,
        /// What came of it.
        outcome: Box<Outcome>,
    },
    /// A try of a step failed.
    StepFailed {
        /// Which.
        step: StepId,
        /// Why.
        error: Error,
    },
    /// A step waits for a person; the rest of what can be done is done.
    StepParked {
        /// Which.
        step: StepId,
    },
    /// Nothing more can be done without a person.
    RunParked,
    /// The run is being called off: the pending password is dropped next.
    AbortStarted {
        /// Whether a person asked for it, rather than a step having failed.
        asked: bool,
    },
    /// The run is over.
    RunFinished {
        /// How it ended.
        outcome: RunOutcome,
    },
}

/// How a run began.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Start {
    /// What it does.
    pub plan: Plan,
    /// The lease under which it began.
    pub generation: Generation,
    /// Who asked for it.
    pub operator: String,
    /// The ticket, as the operator named it.
    pub ticket: Option<String>,
    /// What a person lets pass.
    #[serde(default, skip_serializing_if = "Overrides::is_empty")]
    pub overrides: Overrides,
    /// The program's version.
    pub version: String,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunOutcome {
    /// Everything new.
    Done,
    /// A step before the point of no return failed; nothing is changed.
    Failed,
    /// A person called it off; nothing is changed.
    Aborted,
}

/// What a step did to the world.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// It changed something.
    Changed,
    /// The change had already happened.
    AlreadyDone,
    /// It looked, and all is well.
    #[default]
    Confirmed,
    /// It left something alone on purpose.
    Kept,
    /// There was nothing to do.
    Skipped,
    /// It can't be seen from here whether all is well.
    Unseen,
}

/// What came of a step: references and words, never values.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// What it did.
    pub effect: Effect,
    /// The version that a store gave to what was written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<VersionId>,
    /// The mark of the new password, where the step handled it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<Fingerprint>,
    /// The mark of the password before, where the step handled it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<Fingerprint>,
    /// The versions that were current before the run, by copy (of `check`).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub before: BTreeMap<CopyId, VersionId>,
    /// What each system truly is: its place, or the id that it has for itself (of `check`).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub identities: BTreeMap<String, String>,
    /// What the database server's clock said (of `prove`): sessions from later on have logged in with the new password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_time: Option<Timestamp>,
    /// When the effect was seen, if that was well before the step ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effect_at: Option<Timestamp>,
    /// What a person may want to know.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// What a check found.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub findings: Vec<Finding>,
}

impl Outcome {
    /// An outcome with this effect.
    pub fn of(effect: Effect) -> Self {
        Self { effect, ..Self::default() }
    }

    /// Something was changed.
    pub fn changed() -> Self {
        Self::of(Effect::Changed)
    }

    /// The change had already happened.
    pub fn already_done() -> Self {
        Self::of(Effect::AlreadyDone)
    }

    /// Looked, and all is well.
    pub fn confirmed() -> Self {
        Self::of(Effect::Confirmed)
    }

    /// Nothing to do, and why.
    pub fn skipped(why: impl Into<String>) -> Self {
        Self::of(Effect::Skipped).note(why)
    }

    /// It can't be seen, and why.
    pub fn unseen(why: impl Into<String>) -> Self {
        Self::of(Effect::Unseen).note(why)
    }

    /// Adds the version that was written.
    #[must_use]
    pub fn version(mut self, version: Option<VersionId>) -> Self {
        self.version = version;
        self
    }

    /// Adds a remark.
    #[must_use]
    pub fn note(mut self, note: impl Into<String>) -> Self {
        self.notes.push(note.into());
        self
    }
}

/// A run as a list shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunHeading {
    /// Which.
    pub run: RunId,
    /// Of which environment.
    pub environment: Environment,
    /// Under which lease it began. Of one environment the newest run has the highest; a run's id tells only what
    /// the clock said.
    pub generation: Generation,
}

/// Where events are kept.
#[async_trait]
pub trait Journal: Send + Sync {
    /// Appends events in one durable write: all or none, and all on disk when it returns.
    ///
    /// # Errors
    /// [`Kind::Fenced`] if the lease is no longer the newest, or an entry with one of these
    /// numbers exists: another process writes this run.
    async fn append(&self, lease: &Lease, run: RunId, records: &[Record]) -> Result<()>;

    /// All entries of a run, in order; none if there is no such run.
    async fn read(&self, run: RunId) -> Result<Vec<Record>>;

    /// The runs, newest first, of one environment or all.
    async fn runs(&self, environment: Option<&Environment>) -> Result<Vec<RunHeading>>;
}

/// A journal in memory, with the rules of a real one.
#[derive(Debug, Default)]
pub struct MemoryJournal {
    inner: Mutex<BTreeMap<RunId, (Environment, Vec<Record>)>>,
    /// The newest generation by environment, as the leases announce it.
    fences: Mutex<BTreeMap<Environment, Generation>>,
}

impl MemoryJournal {
    /// Makes all leases older than this one late.
    pub fn fence(&self, lease: &Lease) {
        let mut fences = self.fences.lock().expect("no holder of this lock panics");
        fences.insert(lease.environment.clone(), lease.generation);
    }
}

#[async_trait]
impl Journal for MemoryJournal {
    async fn append(&self, lease: &Lease, run: RunId, records: &[Record]) -> Result<()> {
        let fences = self.fences.lock().expect("no holder of this lock panics");
        if fences.get(&lease.environment).is_some_and(|newest| *newest > lease.generation) {
            return Err(fenced(&lease.environment));
        }
        let mut inner = self.inner.lock().expect("no holder of this lock panics");
        let (_, kept) = inner.entry(run).or_insert_with(|| (lease.environment.clone(), Vec::new()));
        if records.first().is_some_and(|first| first.seq != kept.len() as u64) {
            return Err(fenced(&lease.environment));
        }
        kept.extend_from_slice(records);
        Ok(())
    }

    async fn read(&self, run: RunId) -> Result<Vec<Record>> {
        let inner = self.inner.lock().expect("no holder of this lock panics");
        Ok(inner.get(&run).map(|(_, records)| records.clone()).unwrap_or_default())
    }

    async fn runs(&self, environment: Option<&Environment>) -> Result<Vec<RunHeading>> {
        let inner = self.inner.lock().expect("no holder of this lock panics");
        let of_interest = |own: &Environment| environment.is_none_or(|wanted| wanted == own);
        let begun = |records: &[Record]| match &records.first()?.event {
            Event::RunStarted(start) => Some(start.generation),
            _ => None,
        };
        Ok(inner
            .iter()
            .rev()
            .filter(|(_, (own, _))| of_interest(own))
            .map(|(run, (own, records))| RunHeading {
                run: *run,
                environment: own.clone(),
                generation: begun(records).unwrap_or_default(),
            })
            .collect())
    }
}

/// The error of a late writer.
pub fn fenced(environment: &Environment) -> Error {
    Error::new(Kind::Fenced, format!("write the journal of {environment}"))
        .because("another pgrotate has taken this environment over")
        .hint(format!("let it finish, then look: pgrotate status {environment}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `history` and the report tell a person by these words what has happened to each system.
    #[test]
    fn an_outcome_says_what_was_done_and_why_not() {
        let (skipped, unseen) = (Outcome::skipped("no consumer"), Outcome::unseen("no right to look"));
        assert_eq!(skipped.notes, ["no consumer"]);
        assert_eq!(unseen.notes, ["no right to look"]);
        let effects = [Outcome::changed(), Outcome::already_done(), Outcome::confirmed(), skipped, unseen]
            .map(|outcome| serde_json::to_value(outcome.effect).unwrap());
        assert_eq!(effects, ["changed", "already_done", "confirmed", "skipped", "unseen"]);
    }
}
