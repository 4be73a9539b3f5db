//! Questions about runs: which are not over, which has overtaken which, and where one leads back to.

use crate::engine::{Engine, ways_on};
use crate::error::{Error, Kind, Result};
use crate::executor::World;
use crate::ids::{Environment, RunId};
use crate::journal::{Journal, RunHeading};
use crate::lease::Leases;
use crate::plan::Back;
use crate::run::{Phase, RunState};

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

/// A run is carried on, and taken back, only where it began: under the same name another configuration,
/// or an edited one, may mean another server.
///
/// # Errors
/// When the world is another server or another vault of record.
pub fn same_place(world: &dyn World, state: &RunState) -> Result<()> {
    let (then, now) = (state.plan(), world.plan());
    let differs = [
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
