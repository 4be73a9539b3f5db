//! What each step of a plan does, one file a step: probe, act, confirm.
//!
//! A step gets the run as its journal tells it and nothing else from the steps before it, so
//! that it can be carried out by any process.

pub mod activate;
pub mod check;
pub mod idle;
pub mod install;
pub mod promote;
pub mod prove;
pub mod publish;
pub mod record;
pub mod retire;
pub mod sessions;
pub mod stage;
pub mod verify;

#[cfg(test)]
pub(crate) mod testing;
