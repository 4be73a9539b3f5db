//! Where runs live: today in SQLite, in the state folder of one machine. What they leave to show, [`evidence`], is a
//! file beside it.
//!
//! Nothing here knows what a step does, and nothing in the core knows of this crate: another
//! engine (a durable-execution service whose virtual object is the environment and whose
//! journaled run is the step) replaces it whole.

pub mod evidence;
pub mod holder;
pub mod home;
pub mod sqlite;
pub mod system;

pub use evidence::Evidence;
pub use home::Home;
pub use sqlite::SqliteStore;

/// The engine of one process, whose journal and leases are in the state folder.
pub type Embedded = pgrotate_core::engine::Engine<SqliteStore>;
