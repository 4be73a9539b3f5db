//! Questions about runs: which are not over, which has overtaken which, and where one leads back to.

use std::time::Duration;

use jiff::Timestamp;

use crate::engine::{Engine, ways_on};
use crate::error::{Error, Kind, Result};
use crate::executor::World;
use crate::ids::{Environment, RunId};
use crate::journal::{Journal, RunHeading, RunOutcome};
use crate::lease::Leases;
use crate::past::{Forerunner, Past, Pinned};
use crate::plan::Back;
use crate::run::{Phase, RunState};

/// How many of an environment's runs are asked: with a rotation a week, those of two years.
const LOOKED_BACK: usize = 100;

impl<S: Journal + Leases> Engine<S> {
    /// Where a rollback of this run leads.
    ///
    /// # Errors
    /// When it changed nothing, or has not come far enough.
    pub async fn way_back(&self, run: RunId) -> Result<Back> {
        let state = self.state(run).await?;
        let refuse = |why: &str| Error::new(Kind::BadState, format!("take the run {run} back")).because(why);
        if state.changed_nothing() {
            return Err(refuse("it changed nothing"));
        }
        if !state.plan().changes_password() {
            return Err(refuse("it brought no other password, it put copies right"));
        }
        if !state.has_promoted() {
            let error =
                refuse("it is not over, and the vault of record does not call its password current yet");
            return Err(ways_on(&state).into_iter().fold(error, Error::hint));
        }
        let before = state.outcome_of("stage").and_then(|outcome| outcome.previous.clone());
        let to = before.ok_or_else(|| refuse("the vault of record held no password before it"))?;
        Ok(Back { run, to })
    }

    /// The run that has changed the environment since, or is about to.
    ///
    /// # Errors
    /// When the journal can't be read.
    pub async fn overtaken_by(&self, state: &RunState) -> Result<Option<RunId>> {
        for heading in self.newest_first(Some(&state.plan().environment)).await? {
            if heading.generation <= state.start.generation {
                break;
            }
            if !self.state(heading.run).await?.changed_nothing() {
                return Ok(Some(heading.run));
            }
        }
        Ok(None)
    }

    /// The runs, each environment's newest first.
    async fn newest_first(&self, environment: Option<&Environment>) -> Result<Vec<RunHeading>> {
        let mut headings = self.store.runs(environment).await?;
        headings.sort_by_key(|heading| std::cmp::Reverse(heading.generation));
        Ok(headings)
    }

    /// The runs that are not over. An environment has one at most, its newest: a run begins only when those before
    /// it are over, but for the one that it takes back. So an old entry that is damaged is nobody's trouble.
    ///
    /// # Errors
    /// When the journal can't be read.
    pub async fn unfinished(&self, environment: Option<&Environment>) -> Result<Vec<RunState>> {
        let mut open = Vec::new();
        let mut seen = Vec::new();
        for heading in self.newest_first(environment).await? {
            if seen.contains(&heading.environment) {
                continue;
            }
            let state = self.state(heading.run).await?;
            // A rollback that came to nothing leaves what it was to take back as it was.
            if state.changed_nothing() && state.plan().back().is_some() {
                continue;
            }
            if state.phase != Phase::Finished {
                open.push(state);
            }
            seen.push(heading.environment);
        }
        Ok(open)
    }

    /// What the journal knows that a new run of an environment must not contradict. `first` is the environment that has
    /// to be rotated before it, and how long ago at most.
    ///
    /// # Errors
    /// When the journal can't be read.
    pub async fn past(
        &self,
        environment: &Environment,
        first: Option<(Environment, Duration)>,
    ) -> Result<Past> {
        let mut past = Past::default();
        for heading in self.newest_first(Some(environment)).await?.into_iter().take(LOOKED_BACK) {
            let state = self.state(heading.run).await?;
            for (copy, published) in state.published() {
                past.published.entry(copy).or_insert(published);
            }
            past.pinned = past.pinned.or_else(|| pinned(&state));
        }
        if let Some((environment, within)) = first {
            let proven = self.last_success(&environment).await?;
            past.forerunner = Some(Forerunner { environment, within, proven });
        }
        Ok(past)
    }

    /// The newest run of an environment that came to its end with everything proven.
    async fn last_success(&self, environment: &Environment) -> Result<Option<(RunId, Timestamp)>> {
        for heading in self.newest_first(Some(environment)).await?.into_iter().take(LOOKED_BACK) {
            let state = self.state(heading.run).await?;
            if state.outcome == Some(RunOutcome::Done) && state.plan().changes_password() {
                return Ok(Some((state.run, state.moved_at)));
            }
        }
        Ok(None)
    }

    /// All runs, newest first.
    ///
    /// # Errors
    /// When the journal can't be read.
    pub async fn history(&self, environment: Option<&Environment>) -> Result<Vec<RunState>> {
        let mut states = Vec::new();
        for heading in self.store.runs(environment).await? {
            states.push(self.state(heading.run).await?);
        }
        Ok(states)
    }

    /// One run.
    ///
    /// # Errors
    /// When there is no such run, or the journal can't be read.
    pub async fn state(&self, run: RunId) -> Result<RunState> {
        RunState::fold(run, &self.store.read(run).await?)
    }
}

/// What a run has proven its systems to be, if it came to its end.
fn pinned(state: &RunState) -> Option<Pinned> {
    let identities = state.outcome_of("check")?.identities.clone();
    let proven = state.outcome == Some(RunOutcome::Done) && !identities.is_empty();
    proven.then_some(Pinned { run: state.run, at: state.moved_at, identities })
}

/// A run is carried on, and taken back, only where it began: under the same name another configuration,
/// or an edited one, may mean another server.
///
/// # Errors
/// When the world is another server or another vault of record, or another way to rotate.
pub fn same_place(world: &dyn World, state: &RunState) -> Result<()> {
    let (then, now) = (state.plan(), world.plan());
    // What may not be compared is left out: a repair brings no password to any role.
    let ways = then.way().zip(now.way()).unwrap_or_default();
    let differs = [
        ("way", ways.0, ways.1),
        ("target", then.target.as_str(), now.target.as_str()),
        ("authority", then.authority.as_str(), now.authority.as_str()),
        ("vault of record", then.vault.as_str(), now.vault.as_str()),
    ]
    .into_iter()
    .find(|(_, then, now)| then != now);
    match differs {
        None => Ok(()),
        Some((what, then, now)) => Err(Error::new(Kind::Config, format!("go on with the run {}", state.run))
            .because(format!("its {what} is {then}; the configuration now says {now}"))
            .hint(
                "use the configuration with which it began, or a state folder of its own for each project",
            )),
    }
}
