//! How the program ends: the contract's five numbers, and errors turned into words.

use std::process::ExitCode;

use pgrotate_core::engine::Trouble;
use pgrotate_core::{Error, Kind};

use crate::display;

/// The exit status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Status {
    /// Done.
    Done = 0,
    /// Failed, and nothing is left half-way.
    Failed = 1,
    /// The command line or the configuration can't be used.
    Usage = 2,
    /// A person is needed.
    Parked = 3,
    /// Something disagrees with the vault of record.
    Drift = 4,
}

impl From<Status> for ExitCode {
    fn from(status: Status) -> Self {
        Self::from(status as u8)
    }
}

/// Why a command could not do its work.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The configuration, with its source text.
    Config(miette::Report),
    /// Anything else, with the status that it means.
    Other(Status, Error),
}

impl Failure {
    /// Shows the failure, and gives the status.
    pub(crate) fn show(self) -> Status {
        match self {
            Self::Config(report) => {
                display::report(&report);
                Status::Usage
            }
            Self::Other(status, error) => {
                display::error(&error);
                status
            }
        }
    }
}

impl From<miette::Report> for Failure {
    fn from(report: miette::Report) -> Self {
        Self::Config(report)
    }
}

impl From<Trouble> for Failure {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Before(error) => error.into(),
            // Somebody else goes on with it.
            Trouble::During(_, error) if error.kind() == Kind::Fenced => error.into(),
            // Whatever the reason, the run waits for somebody.
            Trouble::During(run, error) => {
                Self::Other(Status::Parked, error.hint(format!("then go on with it: pgrotate resume {run}")))
            }
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let status = match error.kind() {
            Kind::Config => Status::Usage,
            // The environment has a run that waits for somebody, or a journal that does.
            Kind::BadState | Kind::Fenced | Kind::Corrupt => Status::Parked,
            _ => Status::Failed,
        };
        Self::Other(status, error)
    }
}
