//! Where runs live and who drives them: today one process and SQLite in the state folder.
//!
//! Nothing here knows what a step does, and nothing in the core knows of this crate: another
//! engine (a durable-execution service whose virtual object is the environment and whose
//! journaled run is the step) replaces it whole.

pub mod embedded;
pub mod holder;
pub mod home;
pub mod sqlite;
pub mod system;

pub use embedded::Embedded;
pub use home::Home;
pub use sqlite::SqliteStore;
