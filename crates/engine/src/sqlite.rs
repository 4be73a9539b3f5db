//! The journal and the leases in SQLite.
//!
//! WAL with `synchronous=FULL`: when an append returns, its events are on disk. The table is
//! append-only by trigger, and `(run, seq)` is its key, so a late writer's insert fails even if
//! it should get past the lease.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use pgrotate_core::journal::{Journal, Record, RunHeading, fenced};
use pgrotate_core::lease::{Generation, Lease, Leases, TERM};
use pgrotate_core::{Environment, Error, Kind, Result, RunId};
use rusqlite::{Connection, ErrorCode, OptionalExtension, Transaction, TransactionBehavior, params};

use crate::holder::Holder;

/// The layout of the database. A higher number was made by a newer program.
const SCHEMA: i64 = 1;

const CREATE: &str = "
    CREATE TABLE entries (
        run TEXT NOT NULL,
        seq INTEGER NOT NULL,
        environment TEXT NOT NULL,
        generation INTEGER NOT NULL,
        record TEXT NOT NULL,
        PRIMARY KEY (run, seq)
    ) STRICT, WITHOUT ROWID;
    CREATE TRIGGER entries_stay BEFORE UPDATE ON entries BEGIN SELECT RAISE(ABORT, 'the journal is append-only'); END;
    CREATE TRIGGER entries_last BEFORE DELETE ON entries BEGIN SELECT RAISE(ABORT, 'the journal is append-only'); END;
    CREATE TABLE leases (
        environment TEXT PRIMARY KEY,
        generation INTEGER NOT NULL,
        holder TEXT,
        expires_at_ms INTEGER NOT NULL
    ) STRICT;
";

/// The journal and the leases of one state folder.
#[derive(Clone)]
pub struct SqliteStore {
    connection: Arc<Mutex<Connection>>,
    holder: Holder,
}

impl SqliteStore {
    /// Opens the database, and makes it if it does not exist.
    ///
    /// # Errors
    /// When the file can't be opened, is damaged, or was made by a newer program.
    pub fn open(path: &Path) -> Result<Self> {
        let connection = Connection::open(path).map_err(|error| damaged(&error))?;
        prepare(connection).map(|connection| Self {
            connection: Arc::new(Mutex::new(connection)),
            holder: Holder::this_process(),
        })
    }

    /// The same store in the hands of another process, for tests of two that compete.
    #[doc(hidden)]
    #[must_use]
    pub fn held_by(mut self, holder: Holder) -> Self {
        self.holder = holder;
        self
    }

    /// Runs a transaction away from the async threads: a durable write takes milliseconds.
    async fn transaction<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let connection = Arc::clone(&self.connection);
        let task = tokio::task::spawn_blocking(move || {
            let mut connection = connection.lock().expect("no holder of the connection panics");
            let transaction = connection
                .transaction_with_behavior(TransactionBehavior::Immediate)
                .map_err(|error| damaged(&error))?;
            let result = work(&transaction)?;
            transaction.commit().map_err(|error| damaged(&error))?;
            Ok(result)
        });
        task.await.map_err(|_| Error::internal("a write to the journal did not come to an end"))?
    }
}

fn prepare(mut connection: Connection) -> Result<Connection> {
    let set_up = |connection: &mut Connection| -> rusqlite::Result<i64> {
        connection.busy_timeout(Duration::from_secs(10))?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "foreign_keys", "ON")?;
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut schema: i64 = transaction.pragma_query_value(None, "user_version", |row| row.get(0))?;
        if schema == 0 {
            transaction.execute_batch(CREATE)?;
            transaction.pragma_update(None, "user_version", SCHEMA)?;
            schema = SCHEMA;
        }
        transaction.commit()?;
        Ok(schema)
    };
    match set_up(&mut connection) {
        Ok(schema) if schema <= SCHEMA => Ok(connection),
        Ok(schema) => Err(Error::new(Kind::BadState, "open the journal")
            .because(format!("a newer pgrotate made it (layout {schema}, this one knows {SCHEMA})"))
            .hint("use that version of pgrotate")),
        Err(error) => Err(damaged(&error)),
    }
}

#[async_trait]
impl Journal for SqliteStore {
    async fn append(&self, lease: &Lease, run: RunId, records: &[Record]) -> Result<()> {
        let lines: Vec<(i64, String)> = records.iter().map(line).collect::<Result<_>>()?;
        let lease = lease.clone();
        self.transaction(move |transaction| {
            if newest(transaction, &lease.environment)? != Some(lease.generation) {
                return Err(fenced(&lease.environment));
            }
            let mut insert = transaction
                .prepare_cached(
                    "INSERT INTO entries (run, seq, environment, generation, record) VALUES (?1, ?2, ?3, ?4, ?5)",
                )
                .map_err(|error| damaged(&error))?;
            for (seq, text) in &lines {
                let row = params![run.to_string(), seq, lease.environment.as_str(), number(lease.generation), text];
                insert.execute(row).map_err(|error| match error.sqlite_error_code() {
                    Some(ErrorCode::ConstraintViolation) => fenced(&lease.environment),
                    _ => damaged(&error),
                })?;
            }
            Ok(())
        })
        .await
    }

    async fn read(&self, run: RunId) -> Result<Vec<Record>> {
        self.transaction(move |transaction| {
            let mut select = transaction
                .prepare_cached("SELECT record FROM entries WHERE run = ?1 ORDER BY seq")
                .map_err(|error| damaged(&error))?;
            let rows = select
                .query_map([run.to_string()], |row| row.get::<_, String>(0))
                .map_err(|error| damaged(&error))?;
            rows.enumerate()
                .map(|(place, row)| parse(run, place, &row.map_err(|error| damaged(&error))?))
                .collect()
        })
        .await
    }

    async fn runs(&self, environment: Option<&Environment>) -> Result<Vec<RunHeading>> {
        let wanted = environment.map(|environment| environment.as_str().to_owned());
        self.transaction(move |transaction| {
            let mut select = transaction
                .prepare_cached(
                    "SELECT run, environment, generation FROM entries WHERE seq = 0 AND (?1 IS NULL OR environment = ?1) \
                     ORDER BY run DESC",
                )
                .map_err(|error| damaged(&error))?;
            let rows = select
                .query_map([wanted], |row| {
                    Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?, row.get::<_, i64>(2)?))
                })
                .map_err(|error| damaged(&error))?;
            rows.map(|row| {
                let (run, environment, generation) = row.map_err(|error| damaged(&error))?;
                let run = run.parse().map_err(|_| unreadable("it has a run without a proper id"))?;
                let generation =
                    u64::try_from(generation).map_err(|_| unreadable("it has a negative generation"))?;
                let (environment, generation) = (Environment::new(environment), Generation(generation));
                Ok(RunHeading { run, environment, generation })
            })
            .collect()
        })
        .await
    }
}

#[async_trait]
impl Leases for SqliteStore {
    async fn acquire(&self, environment: &Environment) -> Result<Lease> {
        let (environment, holder) = (environment.clone(), self.holder.clone());
        self.transaction(move |transaction| {
            let now = Timestamp::now();
            let last = current(transaction, &environment)?;
            if let Some((_, Some(other), expires_at)) = &last
                && *other != holder
                && *expires_at > now
                && !other.is_gone()
            {
                return Err(busy(&environment, other, *expires_at));
            }
            let generation = Generation(last.map_or(0, |(generation, ..)| generation.0) + 1);
            let lease = Lease { environment, generation, expires_at: now + TERM };
            write(transaction, &lease, Some(&holder))?;
            Ok(lease)
        })
        .await
    }

    async fn renew(&self, lease: &Lease) -> Result<Lease> {
        let (lease, holder) =
            (Lease { expires_at: Timestamp::now() + TERM, ..lease.clone() }, self.holder.clone());
        self.transaction(move |transaction| {
            if newest(transaction, &lease.environment)? != Some(lease.generation) {
                return Err(fenced(&lease.environment));
            }
            write(transaction, &lease, Some(&holder))?;
            Ok(lease)
        })
        .await
    }

    async fn release(&self, lease: &Lease) -> Result<()> {
        let lease = Lease { expires_at: Timestamp::now(), ..lease.clone() };
        self.transaction(move |transaction| match newest(transaction, &lease.environment)? {
            Some(newest) if newest == lease.generation => write(transaction, &lease, None),
            _ => Ok(()),
        })
        .await
    }
}

type LeaseRow = (Generation, Option<Holder>, Timestamp);

fn current(transaction: &Transaction<'_>, environment: &Environment) -> Result<Option<LeaseRow>> {
    let row = transaction
        .query_row(
            "SELECT generation, holder, expires_at_ms FROM leases WHERE environment = ?1",
            [environment.as_str()],
            |row| Ok((row.get::<_, i64>(0)?, row.get::<_, Option<String>>(1)?, row.get::<_, i64>(2)?)),
        )
        .optional()
        .map_err(|error| damaged(&error))?;
    row.map(|(generation, holder, expires_at)| {
        let generation = u64::try_from(generation).map_err(|_| unreadable("it has a negative generation"))?;
        let expires_at =
            Timestamp::from_millisecond(expires_at).map_err(|_| unreadable("it has an impossible time"))?;
        Ok((Generation(generation), holder.as_deref().and_then(Holder::from_text), expires_at))
    })
    .transpose()
}

fn newest(transaction: &Transaction<'_>, environment: &Environment) -> Result<Option<Generation>> {
    Ok(current(transaction, environment)?.map(|(generation, ..)| generation))
}

fn write(transaction: &Transaction<'_>, lease: &Lease, holder: Option<&Holder>) -> Result<()> {
    transaction
        .execute(
            "INSERT INTO leases (environment, generation, holder, expires_at_ms) VALUES (?1, ?2, ?3, ?4) \
             ON CONFLICT (environment) DO UPDATE SET generation = ?2, holder = ?3, expires_at_ms = ?4",
            params![
                lease.environment.as_str(),
                number(lease.generation),
                holder.map(Holder::to_text),
                lease.expires_at.as_millisecond()
            ],
        )
        .map_err(|error| damaged(&error))?;
    Ok(())
}

fn number(generation: Generation) -> i64 {
    i64::try_from(generation.0).expect("nobody takes a lease 2^63 times")
}

fn line(record: &Record) -> Result<(i64, String)> {
    let seq = i64::try_from(record.seq).map_err(|_| Error::internal("a run has too many entries"))?;
    let text = serde_json::to_string(record)
        .map_err(|_| Error::internal("an event could not be written as JSON"))?;
    Ok((seq, text))
}

fn parse(run: RunId, place: usize, text: &str) -> Result<Record> {
    // The text of serde's error would repeat what stands there.
    serde_json::from_str(text).map_err(|_| {
        Error::new(Kind::Corrupt, format!("read the journal of the run {run}"))
            .because(format!("entry {place} can't be read: it is damaged, or a newer pgrotate wrote it"))
            .hint("don't edit it; `pgrotate status ENV` shows which password works")
    })
}

fn busy(environment: &Environment, holder: &Holder, until: Timestamp) -> Error {
    Error::new(Kind::Busy, format!("take the lease of {environment}"))
        .because(format!("{} holds it until {until:.0} or longer", holder.describe()))
        .hint("one run at a time: wait for it to end, then look with `pgrotate history`")
}

fn unreadable(why: &str) -> Error {
    Error::new(Kind::Corrupt, "read the journal").because(why)
}

fn damaged(error: &rusqlite::Error) -> Error {
    let (kind, why, hint) = match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => (Kind::BadState, "the disk is full", "make room, then resume"),
        Some(ErrorCode::ReadOnly | ErrorCode::CannotOpen | ErrorCode::PermissionDenied) => (
            Kind::Config,
            "the state folder can't be written",
            "check its owner and mode, or set PGROTATE_STATE_DIR",
        ),
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => (
            Kind::Corrupt,
            "the file is damaged",
            "don't edit it; `pgrotate status ENV` shows which password works",
        ),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            (Kind::Busy, "another process holds it for too long", "wait for it, then resume")
        }
        Some(ErrorCode::SystemIoFailure) => {
            (Kind::BadState, "the disk failed", "check the disk, then resume")
        }
        _ => (Kind::Corrupt, "SQLite refuses it", "the file may be damaged or of another program"),
    };
    Error::new(kind, "use the journal").because(why).hint(hint)
}
