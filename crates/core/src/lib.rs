//! What rotating a password means.
//!
//! This crate decides; it never touches the world. It can't reach a clock, a network or a
//! disk (`clippy.toml` beside it keeps it so), which is what makes a simulation of it worth
//! anything. The life of a run, and where to read about each part:
//!
//! 1. A [`Rotation`](rotation::Rotation) binds one environment to its providers: the vault of
//!    record, the authority, the sinks, the consumers ([`provider`] has the traits).
//! 2. A [`strategy`] turns its [`Outline`](plan::Outline) into a [`Plan`](plan::Plan): data,
//!    a list of named steps. Printing it and carrying it out use the same value.
//! 3. The [`Executor`](executor::Executor) walks the plan. Each [`step`](steps) probes before
//!    it acts, acts, and confirms.
//! 4. What happened is an [`Event`](journal::Event) in a [`Journal`](journal::Journal); what a
//!    run *is* at any moment is the fold of its events, [`RunState`](run::RunState), with one
//!    table of legal transitions.
//! 5. A [`Lease`](lease::Lease) with a generation keeps a second writer out; the
//!    [`Engine`](engine::Engine) holds it while a run begins, goes on or is called off.
//! 6. A [`Fleet`](fleet::Fleet) does that for many environments, so many of them at once.
//!
//! The journal remembers references (version ids, fingerprints), never values: a
//! [`Secret`](secret::Secret) can't be serialised, so journalling one does not compile.

#![forbid(unsafe_code)]

pub mod by_hand;
pub mod census;
pub mod database_url;
pub mod drift;
pub mod engine;
pub mod env;
pub mod error;
pub mod executor;
pub mod fleet;
pub mod ids;
pub mod journal;
pub mod keyring;
pub mod lease;
pub mod memory;
pub mod observer;
pub mod password;
pub mod past;
pub mod plan;
pub mod provider;
pub mod rotation;
pub mod run;
pub mod secret;
pub mod steps;
pub mod strategy;
pub mod value;

pub use error::{Error, Kind, Result, Retry};
pub use ids::{CopyId, Environment, RunId, StepId, VersionId};
pub use secret::{Fingerprint, FingerprintKey, Secret};
