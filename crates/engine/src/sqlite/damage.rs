//! What can be wrong with a journal, in words: which part, and what a person does now.

use std::path::Path;

use pgrotate_core::{Error, Kind, RunId};
use rusqlite::{ErrorCode, ffi};

const LOOK: &str = "don't edit it; `pgrotate status ENV` shows which password works";
const GO_ON: &str =
    "docs/design/003-journal.md tells how to save it and go on without it (\"When it is damaged\")";

/// A part of the journal is not as it was written.
pub(super) fn unreadable(why: impl Into<String>) -> Error {
    Error::new(Kind::Corrupt, "read the journal").because(why).hint(LOOK).hint(GO_ON)
}

/// A part of one run's journal is not as it was written.
pub(super) fn run(run: RunId, why: impl Into<String>) -> Error {
    Error::new(Kind::Corrupt, format!("read the journal of the run {run}"))
        .because(why)
        .hint(LOOK)
        .hint(GO_ON)
}

/// The journal ends before what its witness has seen.
pub(super) fn lost(what: impl Into<String>) -> Error {
    unreadable(what)
        .because("journal.sqlite or journal.sqlite-wal was cut off, removed or put back from an older copy")
}

/// The witness itself can't be believed.
pub(super) fn witness(path: &Path) -> Error {
    unreadable(format!("what was noted of its end in {} is damaged", path.display())).hint(
        "if nothing else is damaged: move that one file away; the next run notes the journal's end again",
    )
}

/// Says where the journal is, to whom it can't be used.
pub(super) fn placed(error: Error, path: &Path) -> Error {
    match error.kind() {
        Kind::BadState | Kind::Config => error.because(format!("it is {}", path.display())),
        _ => error,
    }
}

/// Whether there is no room. Of the file that its processes share, SQLite says so by the failure to make it longer.
fn is_full(error: &rusqlite::Error) -> bool {
    error.sqlite_error().is_some_and(|error| {
        error.code == ErrorCode::DiskFull || error.extended_code == ffi::SQLITE_IOERR_SHMSIZE
    })
}

/// What SQLite says.
pub(super) fn sqlite(error: &rusqlite::Error) -> Error {
    let (kind, why, hint) = match error.sqlite_error_code() {
        _ if is_full(error) => (Kind::BadState, "the disk is full", "make room, then resume"),
        Some(ErrorCode::ReadOnly | ErrorCode::CannotOpen | ErrorCode::PermissionDenied) => (
            Kind::Config,
            "the state folder can't be written",
            "check its owner and mode, or set PGROTATE_STATE_DIR",
        ),
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
            return unreadable("the file is damaged").during("use the journal");
        }
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            let hint = "wait for it, or end it if it is stopped or hangs, which harms nothing; then resume";
            (Kind::Busy, "another process holds it for too long", hint)
        }
        Some(ErrorCode::SystemIoFailure) => {
            (Kind::BadState, "the disk failed", "check the disk, then resume")
        }
        _ => {
            return unreadable("SQLite refuses it: the file is damaged or of another program")
                .during("use the journal");
        }
    };
    Error::new(kind, "use the journal").because(why).hint(hint)
}
