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

#[cfg(test)]
mod tests {
    use super::*;

    fn said(code: i32) -> Error {
        sqlite(&rusqlite::Error::SqliteFailure(ffi::Error::new(code), None))
    }

    /// Who is told that the journal is damaged goes on without it; so only what is damaged is called that.
    #[test]
    fn what_passes_or_can_be_put_right_is_not_called_damage() {
        for (code, kind, word) in [
            (ffi::SQLITE_FULL, Kind::BadState, "the disk is full"),
            (ffi::SQLITE_IOERR_SHMSIZE, Kind::BadState, "the disk is full"),
            (ffi::SQLITE_IOERR, Kind::BadState, "the disk failed"),
            (ffi::SQLITE_READONLY, Kind::Config, "can't be written"),
            (ffi::SQLITE_CANTOPEN, Kind::Config, "can't be written"),
            (ffi::SQLITE_PERM, Kind::Config, "can't be written"),
            (ffi::SQLITE_BUSY, Kind::Busy, "another process holds it for too long"),
            (ffi::SQLITE_LOCKED, Kind::Busy, "another process holds it for too long"),
            (ffi::SQLITE_CORRUPT, Kind::Corrupt, "the file is damaged"),
            (ffi::SQLITE_NOTADB, Kind::Corrupt, "the file is damaged"),
            (ffi::SQLITE_ERROR, Kind::Corrupt, "of another program"),
        ] {
            let error = said(code);
            assert_eq!(error.kind(), kind, "{code}: {error}");
            assert!(error.causes().iter().any(|cause| cause.ends_with(word)), "{code}: {error}");
        }
    }

    #[test]
    fn who_has_to_put_the_state_folder_right_is_told_where_it_is() {
        let path = Path::new("state/journal.sqlite");
        for (code, told) in
            [(ffi::SQLITE_FULL, true), (ffi::SQLITE_READONLY, true), (ffi::SQLITE_BUSY, false)]
        {
            let error = placed(said(code), path);
            assert_eq!(
                error.causes().iter().any(|cause| cause.contains("state/journal.sqlite")),
                told,
                "{error}"
            );
        }
    }
}
