//! One process of pgrotate: a command, carried out by the real engine over a simulated state folder. It may die between
//! any two moments.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use pgrotate_core::engine::{Engine, Trouble, Wish};
use pgrotate_core::executor::{End, World};
use pgrotate_core::lease::Leases;
use pgrotate_core::observer::Unobserved;
use pgrotate_core::{Error, RunId};

use crate::disk::{Desk, Disk};
use crate::network::Wire;
use crate::sabotage::{Sabotage, Saboteur};
use crate::vendors::{self, Extras};

/// What a person wants of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    /// `rotate`.
    Rotate,
    /// `resume RUN`.
    Resume(RunId),
    /// `abort RUN`.
    Abort(RunId),
    /// `rollback RUN`.
    Rollback(RunId),
}

/// How a process ended, if it was not killed.
#[derive(Clone, Debug)]
pub(crate) enum Exit {
    /// The run came to this.
    Run(End),
    /// It could not begin, or not go on.
    Trouble(Error),
}

/// The engine as a process has it, or a person who only asks.
pub(crate) fn engine(desk: &Desk, wire: &Wire) -> Engine<Desk> {
    let (clock, entropy) = (Arc::new(wire.network.time.clone()), Arc::new(wire.network.dice.clone()));
    Engine::new(desk.clone(), clock, entropy, Arc::new(Unobserved), Arc::new(AtomicBool::new(false)))
}

/// Runs a process to its end.
pub(crate) async fn run(disk: Arc<Disk>, wire: Wire, command: Command, extras: Extras) -> Exit {
    let desk = Desk::new(Arc::clone(&disk), wire.process);
    match work(&engine(&desk, &wire), &desk, &wire, command, extras).await {
        Ok(end) => Exit::Run(end),
        Err(Trouble::Before(error) | Trouble::During(_, error)) => Exit::Trouble(error),
    }
}

async fn work(
    engine: &Engine<Desk>,
    desk: &Desk,
    wire: &Wire,
    command: Command,
    extras: Extras,
) -> Result<End, Trouble> {
    let back = match command {
        Command::Rollback(run) => Some(engine.way_back(run).await?),
        _ => None,
    };
    let rotation = vendors::rotation(wire, extras, back);
    let sabotage = wire.network.world.lock().sabotage;
    let saboteur = sabotage.map(|sabotage| Saboteur { rotation: &rotation, sabotage });
    let world: &dyn World = match &saboteur {
        Some(saboteur) => saboteur,
        None => &rotation,
    };
    match command {
        Command::Rotate | Command::Rollback(_) => {
            let wish = Wish { operator: "simulation".into(), ticket: None, ..Wish::default() };
            engine.start(world, wish).await.map(|(_, end)| end)
        }
        Command::Resume(run) => engine.resume(world, run).await,
        Command::Abort(run) if sabotage == Some(Sabotage::AbortPastNoReturn) => {
            let lease = desk.acquire(&vendors::environment()).await?;
            world.discard(&engine.state(run).await?).await?;
            desk.release(&lease).await?;
            Ok(End::Aborted)
        }
        Command::Abort(run) => engine.abort(world, run).await,
    }
}
