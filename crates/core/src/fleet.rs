//! Many environments in one process, so many of them at once.
//!
//! Each member is a run like any other, with a plan, a journal and a lease of its own: what holds for one run holds for
//! each of ten thousand, and the failure of one is nobody else's. A member is made when its turn has come and dropped when its run has
//! ended, so the memory of a fleet is that of the runs in hand. Making one may take its time: whoever waits there (until the vendors
//! have room for another run, say) holds no lease and has changed nothing yet.
//!
//! Who carries a run out is behind [`Runner`]: the [`Engine`] of this process, or one that is asked for it elsewhere.

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use std::pin::pin;
use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;
use futures::future::{Either, select};
use futures::stream::{self, StreamExt};

use crate::engine::{Engine, Trouble, Wish};
use crate::env::Clock;
use crate::error::{Error, Kind, Result};
use crate::executor::{End, World};
use crate::ids::{Environment, RunId};
use crate::journal::Journal;
use crate::lease::Leases;

/// How soon a fleet that waits for room notices that the process shall stop.
const NAP: Duration = Duration::from_millis(500);

/// Those whose turn comes one after the other.
#[async_trait]
pub trait Members: Send + Sync {
    /// How many they are.
    fn number(&self) -> usize;

    /// Makes one of them, counted from 0. It is called for one at a time, and may wait.
    ///
    /// # Errors
    /// When this one can't be made; the others go on.
    async fn member(&self, place: usize) -> Result<Box<dyn World>>;

    /// Hears how one ended, while it is still there.
    async fn ended(&self, _ended: &Ended) {}
}

/// Carries a member's run out, to its end.
#[async_trait]
pub trait Runner: Send + Sync {
    /// As [`Engine::start`] does.
    ///
    /// # Errors
    /// As [`Engine::start`].
    async fn start(&self, world: &dyn World, wish: Wish) -> Result<(RunId, End), Trouble>;

    /// Whether no other run shall begin.
    fn is_stopping(&self) -> bool;
}

#[async_trait]
impl<S: Journal + Leases> Runner for Engine<S> {
    async fn start(&self, world: &dyn World, wish: Wish) -> Result<(RunId, End), Trouble> {
        Self::start(self, world, wish).await
    }

    fn is_stopping(&self) -> bool {
        Self::is_stopping(self)
    }
}

/// What came of one member.
#[derive(Clone, Debug)]
pub struct Ended {
    /// Which it is, counted from 0.
    pub place: usize,
    /// Its environment; `None` if it could not be made.
    pub environment: Option<Environment>,
    /// Its run and how that ended.
    pub result: Result<(RunId, End), Trouble>,
}

/// What came of all.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// How many are rotated and proven.
    pub done: usize,
    /// The others that had their turn, in the order in which they ended.
    pub others: Vec<Ended>,
    /// How many had no turn, because the process was asked to stop.
    pub not_begun: usize,
}

/// Rotates many environments.
pub struct Fleet<'a> {
    runner: &'a dyn Runner,
    clock: &'a dyn Clock,
    at_once: NonZeroUsize,
    /// The environments that have had their turn. A runner may take two runs of one process for the same holder of a lease.
    known: Mutex<BTreeSet<Environment>>,
}

impl<'a> Fleet<'a> {
    /// A fleet of which so many are in hand at once.
    pub fn new(runner: &'a dyn Runner, clock: &'a dyn Clock, at_once: NonZeroUsize) -> Self {
        Self { runner, clock, at_once, known: Mutex::default() }
    }

    /// Gives every member its turn, in their order.
    pub async fn rotate(&self, members: &dyn Members, wish: &Wish) -> Summary {
        let made = stream::unfold(0, |place| async move {
            let made = self.make(members, place).await?;
            Some(((place, made), place + 1))
        });
        let ended = made
            .map(|(place, made)| self.carry_out(members, place, made, wish))
            .buffer_unordered(self.at_once.get());
        let (mut ended, mut summary) = (pin!(ended), Summary::default());
        while let Some(ended) = ended.next().await {
            match ended.result {
                Ok((_, End::Done)) => summary.done += 1,
                _ => summary.others.push(ended),
            }
        }
        summary.not_begun = members.number() - summary.done - summary.others.len();
        summary
    }

    /// The next member; none if there is no other, or none shall begin any more.
    async fn make(&self, members: &dyn Members, place: usize) -> Option<Result<Box<dyn World>>> {
        if place == members.number() || self.runner.is_stopping() {
            return None;
        }
        match select(members.member(place), pin!(self.stopping())).await {
            Either::Left((made, _)) => Some(made),
            Either::Right(_) => None,
        }
    }

    async fn stopping(&self) {
        while !self.runner.is_stopping() {
            self.clock.sleep(NAP).await;
        }
    }

    /// One member's turn. What it was made of is gone when it ends.
    async fn carry_out(
        &self,
        members: &dyn Members,
        place: usize,
        made: Result<Box<dyn World>>,
        wish: &Wish,
    ) -> Ended {
        let (environment, result) = match made {
            Err(error) => (None, Err(Trouble::Before(error))),
            Ok(world) => {
                let environment = world.plan().environment;
                let result = match self.is_its_first_turn(&environment) {
                    true => self.runner.start(&*world, wish.clone()).await,
                    false => Err(Trouble::Before(twice(&environment))),
                };
                (Some(environment), result)
            }
        };
        let ended = Ended { place, environment, result };
        members.ended(&ended).await;
        ended
    }

    fn is_its_first_turn(&self, environment: &Environment) -> bool {
        self.known.lock().expect("no holder of this lock panics").insert(environment.clone())
    }
}

fn twice(environment: &Environment) -> Error {
    Error::new(Kind::Config, format!("rotate {environment} twice in one fleet"))
}
