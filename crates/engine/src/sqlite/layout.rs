//! The layout of the database: how it is made, opened, brought up to date, and told from another.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use pgrotate_core::{Environment, Error, Kind, Result, RunId};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, Transaction, TransactionBehavior};

use super::damage;
use super::rows::{self, Heading, LeaseRow};
use super::witness::{Witness, Witnesses};

/// The number of this layout. A higher one was made by a newer program.
const LAYOUT: i64 = 2;

/// As many bytes of log as a run of some sixty steps writes, and a half more.
const A_RUNS_LOG: u64 = 1 << 20;

const TABLES: [(&str, &str); 5] = [
    (
        "entries",
        "CREATE TABLE entries (
    run TEXT NOT NULL,
    seq INTEGER NOT NULL,
    environment TEXT NOT NULL,
    generation INTEGER NOT NULL,
    record TEXT NOT NULL,
    digest BLOB NOT NULL,
    PRIMARY KEY (run, seq)
) STRICT, WITHOUT ROWID",
    ),
    (
        "entries_stay",
        "CREATE TRIGGER entries_stay BEFORE UPDATE ON entries \
         BEGIN SELECT RAISE(ABORT, 'the journal is append-only'); END",
    ),
    (
        "entries_last",
        "CREATE TRIGGER entries_last BEFORE DELETE ON entries \
         BEGIN SELECT RAISE(ABORT, 'the journal is append-only'); END",
    ),
    (
        "runs",
        "CREATE TABLE runs (
    run TEXT NOT NULL PRIMARY KEY,
    environment TEXT NOT NULL,
    number INTEGER NOT NULL,
    generation INTEGER NOT NULL,
    length INTEGER NOT NULL,
    tip BLOB NOT NULL,
    digest BLOB NOT NULL
) STRICT, WITHOUT ROWID",
    ),
    (
        "leases",
        "CREATE TABLE leases (
    environment TEXT NOT NULL PRIMARY KEY,
    generation INTEGER NOT NULL,
    holder TEXT,
    expires_at_ms INTEGER NOT NULL,
    expires_up_ms INTEGER NOT NULL,
    runs INTEGER NOT NULL,
    digest BLOB NOT NULL
) STRICT, WITHOUT ROWID",
    ),
];

/// Finds an environment's runs among those of thousands. It came later than the tables and only saves time: a journal that
/// can't be given one is as good without it, and what it may hide shows in the number of an environment's runs.
const INDEX: &str = "CREATE INDEX runs_of ON runs (environment, run)";

/// Opens the database, makes it if there is none, and looks whether it is all there.
pub(super) fn open(path: &Path, witnesses: &Witnesses) -> Result<Connection> {
    // Read before the database is: whatever is noted by now must be found in it, whoever writes meanwhile.
    let noted = witnesses.all()?;
    refuse_what_is_gone(path, &noted)?;
    let mut connection = Connection::open(path).map_err(|error| damage::sqlite(&error))?;
    set_up(&connection).map_err(|error| damage::sqlite(&error))?;
    look_through(&mut connection, &noted)?;
    let _ = make_index(&connection);
    connection
        .set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false)
        .map_err(|error| damage::sqlite(&error))?;
    Ok(connection)
}

/// Before SQLite sees it: where the database is empty, SQLite removes the write-ahead log beside it.
fn refuse_what_is_gone(path: &Path, noted: &[Witness]) -> Result<()> {
    let size = |path: &Path| std::fs::metadata(path).map_or(0, |metadata| metadata.len());
    if size(path) > 0 || (noted.is_empty() && size(&log_beside(path)) == 0) {
        return Ok(());
    }
    let of = noted.first().map(|witness| format!(" of {}", witness.environment)).unwrap_or_default();
    Err(damage::lost(format!("there was a journal{of}, and {} is empty or gone", path.display())))
}

/// SQLite's write-ahead log.
fn log_beside(database: &Path) -> PathBuf {
    let mut log = database.as_os_str().to_owned();
    log.push("-wal");
    PathBuf::from(log)
}

/// Makes the log as long as a usual run needs it, with zeros behind what stands in it, which SQLite takes for its end.
/// A write that makes no file longer is on disk sooner (the file system has nothing of its own to write down), and
/// finds its room even where the disk has become full. Where this fails the log grows as it is written, as ever.
///
/// Only for who holds the database's write lock: nobody else writes the log then.
pub(super) fn lengthen_the_log(database: &Path) -> std::io::Result<()> {
    let log = OpenOptions::new().write(true).open(log_beside(database))?;
    let length = log.metadata()?.len();
    let zeros = vec![0; usize::try_from(A_RUNS_LOG.saturating_sub(length)).unwrap_or(0)];
    if !zeros.is_empty() {
        log.write_all_at(&zeros, length)?;
        log.sync_all()?;
    }
    Ok(())
}

fn set_up(connection: &Connection) -> rusqlite::Result<()> {
    // What is left of a damaged one is not changed by our looking at it.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    connection.busy_timeout(Duration::from_secs(10))?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "cell_size_check", "ON")
}

fn look_through(connection: &mut Connection, noted: &[Witness]) -> Result<()> {
    let behaviour = match layout(connection)? {
        LAYOUT => TransactionBehavior::Deferred,
        _ => TransactionBehavior::Immediate,
    };
    let transaction =
        connection.transaction_with_behavior(behaviour).map_err(|error| damage::sqlite(&error))?;
    // Of two that come first at the same time, the second finds it made.
    match layout(&transaction)? {
        0 => create(&transaction)?,
        1 => migrate(&transaction)?,
        LAYOUT => {}
        newer if newer > LAYOUT => {
            return Err(Error::new(Kind::BadState, "open the journal")
                .because(format!("a newer pgrotate made it (layout {newer}, this one knows {LAYOUT})"))
                .hint("use that version of pgrotate"));
        }
        _ => return Err(damage::unreadable("the number of its layout is damaged")),
    }
    compare(&transaction)?;
    noted.iter().try_for_each(|witness| hear(&transaction, witness))?;
    transaction.commit().map_err(|error| damage::sqlite(&error))
}

/// After how many pages a commit puts the log into the database; never, if 0. The last one to leave does in any case.
pub(super) fn empty_the_log_from(connection: &Connection, pages: u32) -> Result<()> {
    connection.pragma_update(None, "wal_autocheckpoint", pages).map_err(|error| damage::sqlite(&error))
}

fn layout(connection: &Connection) -> Result<i64> {
    connection
        .pragma_query_value(None, "user_version", |row| row.get(0))
        .map_err(|error| damage::sqlite(&error))
}

fn create(transaction: &Transaction<'_>) -> Result<()> {
    if !described(transaction)?.is_empty() {
        return Err(damage::unreadable("the number of its layout is gone"));
    }
    make_tables(transaction).map_err(|error| damage::sqlite(&error))
}

fn make_tables(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    TABLES.iter().try_for_each(|(_, sql)| transaction.execute_batch(sql))?;
    transaction.execute_batch(INDEX)?;
    transaction.pragma_update(None, "user_version", LAYOUT)
}

/// Makes the index where there is none. Of two that do so at the same time the second finds it made, and that is as well.
fn make_index(connection: &Connection) -> rusqlite::Result<()> {
    let known = "SELECT count(*) FROM sqlite_schema WHERE name = 'runs_of'";
    match connection.query_row(known, [], |row| row.get::<_, i64>(0))? {
        0 => connection.execute_batch(INDEX),
        _ => Ok(()),
    }
}

/// What the database says of its tables.
fn described(connection: &Connection) -> Result<Vec<(String, String)>> {
    let rows = || -> rusqlite::Result<Vec<_>> {
        connection
            .prepare("SELECT name, sql FROM sqlite_schema WHERE sql IS NOT NULL")?
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
            .collect()
    };
    rows().map_err(|error| damage::sqlite(&error))
}

/// A table or a trigger whose description was damaged would do something else than it should.
fn compare(transaction: &Transaction<'_>) -> Result<()> {
    let described = described(transaction)?;
    let as_made = |(name, sql): &&(&str, &str)| {
        described.iter().any(|(own, text)| own.as_str() == *name && text.as_str() == *sql)
    };
    match TABLES.iter().find(|table| !as_made(table)) {
        None => Ok(()),
        Some((name, _)) => Err(damage::unreadable(format!("the description of its part {name} is damaged"))),
    }
}

/// Layout 1 had no digests, no headings, and no count of an environment's runs. What it holds is
/// sealed as it is; whether its entries make sense is judged when they are read, as before.
fn migrate(transaction: &Transaction<'_>) -> Result<()> {
    let sqlite = |error: rusqlite::Error| damage::sqlite(&error);
    transaction
        .execute_batch(
            "DROP TRIGGER entries_stay; DROP TRIGGER entries_last;
             ALTER TABLE entries RENAME TO entries_1; ALTER TABLE leases RENAME TO leases_1;",
        )
        .map_err(sqlite)?;
    make_tables(transaction).map_err(sqlite)?;
    for mut lease in old_leases(transaction).map_err(sqlite)? {
        for (run, generation) in old_runs(transaction, &lease.environment).map_err(sqlite)? {
            let run: RunId =
                run.parse().map_err(|_| damage::unreadable("it has a run without a proper id"))?;
            let mut heading = Heading { generation, ..Heading::new(run, &lease) };
            seal_run(transaction, &mut heading).map_err(sqlite)?;
            heading.write(transaction)?;
            lease.runs += 1;
        }
        lease.write(transaction)?;
    }
    let left: i64 = transaction
        .query_row("SELECT (SELECT count(*) FROM entries_1) - (SELECT count(*) FROM entries)", [], |row| {
            row.get(0)
        })
        .map_err(sqlite)?;
    if left != 0 {
        return Err(damage::unreadable("it has entries that belong to no run or no environment"));
    }
    transaction.execute_batch("DROP TABLE entries_1; DROP TABLE leases_1;").map_err(sqlite)
}

fn old_leases(transaction: &Transaction<'_>) -> rusqlite::Result<Vec<LeaseRow>> {
    transaction
        .prepare("SELECT environment, generation, holder, expires_at_ms FROM leases_1")?
        .query_map([], |row| {
            Ok(LeaseRow {
                environment: Environment::new(row.get::<_, String>(0)?),
                generation: row.get(1)?,
                holder: row.get(2)?,
                expires_at_ms: row.get(3)?,
                expires_up_ms: 0,
                runs: 0,
            })
        })?
        .collect()
}

/// An environment's runs in the order in which they began, each with its lease's generation.
fn old_runs(
    transaction: &Transaction<'_>,
    environment: &Environment,
) -> rusqlite::Result<Vec<(String, i64)>> {
    transaction
        .prepare(
            "SELECT run, generation FROM entries_1 WHERE seq = 0 AND environment = ?1 ORDER BY generation, run",
        )?
        .query_map([environment.as_str()], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect()
}

fn seal_run(transaction: &Transaction<'_>, heading: &mut Heading) -> rusqlite::Result<()> {
    let mut select = transaction.prepare_cached(
        "SELECT seq, generation, record FROM entries_1 WHERE run = ?1 AND environment = ?2 ORDER BY seq",
    )?;
    let mut rows = select.query([heading.run.to_string().as_str(), heading.environment.as_str()])?;
    while let Some(row) = rows.next()? {
        let record: String = row.get(2)?;
        rows::push_entry(transaction, heading, row.get(1)?, (row.get(0)?, &record))?;
    }
    Ok(())
}

/// What was noted after a commit must still be there.
fn hear(transaction: &Transaction<'_>, witness: &Witness) -> Result<()> {
    let environment = &witness.environment;
    let lease = LeaseRow::read(transaction, environment)?;
    let Some(lease) = lease else {
        return Err(damage::lost(format!("there was a journal of {environment}, and nothing of it is left")));
    };
    if let Some(last) = &witness.last {
        let run = last.run;
        let length = Heading::read(transaction, run)?.map_or(0, |heading| heading.length);
        if length < last.length {
            return Err(damage::lost(format!(
                "the run {run} of {environment} had {} entries, and the journal has {length} of them",
                last.length
            )));
        }
        let place = last.length - 1;
        match rows::digest_of_entry(transaction, run, place)? {
            None => return Err(damage::run(run, format!("entry {place} is gone"))),
            Some(tip) if tip.to_text() != last.tip => {
                return Err(damage::lost(format!(
                    "entry {place} of the run {run} of {environment} is not the one that was written"
                )));
            }
            Some(_) => {}
        }
    }
    if lease.runs < witness.runs || lease.generation < witness.generation {
        return Err(damage::lost(format!(
            "{environment} had {} runs and {} leases, and the journal knows of {} and {}",
            witness.runs, witness.generation, lease.runs, lease.generation
        )));
    }
    Ok(())
}
