//! A world in which everything that can go wrong does, around the real core: its plan, its executor and its steps.
//!
//! 1. [`play::seed`] throws the dice of one seed: what the world is like, which requests fail and how, when processes
//!    die, sleep or meet a rival, when the clock jumps.
//! 2. Time is virtual: it leaps to the next thing that is due. A request travels, and is carried out
//!    even if its sender has died; its answer may be lost, or come too late.
//! 3. After every event the world is inspected: what the contract promises must hold at every
//!    moment, and in the end everything is new or nothing is changed.
//!
//! The same seed gives the same journal, byte for byte.
//!
//! Beside it: [`fleet`], ten thousand rotations at vendors that count, in the same virtual time.

mod dice;
mod disk;
pub mod fleet;
mod moves;
mod network;
mod person;
pub mod play;
mod process;
mod sabotage;
mod shape;
mod story;
pub mod sweep;
mod time;
mod turns;
mod vendors;
mod witness;
mod world;

pub use moves::Moves;
pub use network::Fault;
pub use sabotage::Sabotage;
pub use shape::{Chosen, Death, Scenario, Way};
