//! What a run leaves to show afterwards: a file of lines, each of which seals the one before it.
//!
//! Nothing here has a clock, a network or a disk: bytes come in, and bytes or a verdict go out. So a file that was
//! copied out is verified by the same code as the one in the state folder, and from nothing but itself and a key.
//! docs/evidence.md has the format for those who want to read it with other tools.
//!
//! - [`line`]: one line, as it is written and read
//! - [`batch`]: lines that are appended together, the last of them signed
//! - [`key`]: who signs, and whose signature counts
//! - [`survey`]: how far a file goes, for whoever appends to it
//! - [`verify`]: whether a file is what was written
//! - [`excerpt`]: the part of a file that shows one run

#![forbid(unsafe_code)]

pub mod batch;
pub mod excerpt;
pub mod key;
pub mod line;
pub mod survey;
pub mod verify;

pub use batch::Batch;
pub use key::{Signer, Trusted};
pub use survey::Survey;
pub use verify::{Proof, verify};

/// The version of the lines' own form. A file with a higher one was written by a newer program.
pub const FORMAT: u16 = 1;

/// What a signature is for, as `ssh-keygen -Y verify -n` wants it: one that was made for something else does not count.
pub const NAMESPACE: &str = "pgrotate-evidence";
