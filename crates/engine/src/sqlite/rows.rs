//! The rows of the three tables. No row is believed before its digest was looked at.
//!
//! A run's heading says how many entries the run has and which is the last, a lease says how many
//! runs its environment has: so what is missing is noticed as well as what is changed.

use pgrotate_core::journal::Record;
use pgrotate_core::{Environment, Error, Result, RunId};
use rusqlite::types::{FromSql, FromSqlResult, ToSql, ToSqlOutput, Type, ValueRef};
use rusqlite::{OptionalExtension, Row, Transaction, params};

use super::damage;
use super::seal::{self, Digest, Seal};

/// Who may write an environment, and how many runs it has.
#[derive(Clone, Debug)]
pub(super) struct LeaseRow {
    pub(super) environment: Environment,
    pub(super) generation: i64,
    /// Nobody, when it was given back.
    pub(super) holder: Option<String>,
    /// When it ends, for holders on other machines.
    pub(super) expires_at_ms: i64,
    /// The same by the uptime of the holder's machine, which no clock that is set can change; 0 if it is not known.
    pub(super) expires_up_ms: i64,
    pub(super) runs: i64,
}

impl LeaseRow {
    /// Of an environment that never had one.
    pub(super) fn first(environment: Environment) -> Self {
        Self { environment, generation: 0, holder: None, expires_at_ms: 0, expires_up_ms: 0, runs: 0 }
    }

    /// The lease of an environment; none if it never had one.
    pub(super) fn read(transaction: &Transaction<'_>, environment: &Environment) -> Result<Option<Self>> {
        Ok(Self::all(transaction, Some(environment))?.pop())
    }

    /// Those of one environment or all.
    pub(super) fn all(transaction: &Transaction<'_>, environment: Option<&Environment>) -> Result<Vec<Self>> {
        let columns = |row: &Row<'_>| -> rusqlite::Result<(Self, Digest)> {
            let lease = Self {
                environment: Environment::new(row.get::<_, String>(0)?),
                generation: row.get(1)?,
                holder: row.get(2)?,
                expires_at_ms: row.get(3)?,
                expires_up_ms: row.get(4)?,
                runs: row.get(5)?,
            };
            Ok((lease, row.get(6)?))
        };
        let sql =
            "SELECT environment, generation, holder, expires_at_ms, expires_up_ms, runs, digest FROM leases";
        let rows = match environment {
            Some(environment) => {
                let sql = format!("{sql} WHERE environment = ?1");
                select(transaction, &sql, params![environment.as_str()], columns)?
            }
            None => select(transaction, sql, params![], columns)?,
        };
        rows.into_iter().map(|(lease, digest)| lease.checked(digest)).collect()
    }

    pub(super) fn write(&self, transaction: &Transaction<'_>) -> Result<()> {
        let mut replace = transaction
            .prepare_cached(
                "REPLACE INTO leases (environment, generation, holder, expires_at_ms, expires_up_ms, runs, digest) \
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            )
            .map_err(|error| damage::sqlite(&error))?;
        let Self { environment, generation, holder, expires_at_ms, expires_up_ms, runs } = self;
        let (environment, digest) = (environment.as_str(), self.digest());
        replace
            .execute(params![environment, generation, holder, expires_at_ms, expires_up_ms, runs, digest])
            .map_err(|error| damage::sqlite(&error))?;
        Ok(())
    }

    fn digest(&self) -> Digest {
        let seal = Seal::of("lease").text(self.environment.as_str()).number(self.generation);
        let seal = seal.number(self.expires_at_ms).number(self.expires_up_ms).number(self.runs);
        self.holder.iter().fold(seal, |seal, holder| seal.text(holder)).done()
    }

    fn checked(self, digest: Digest) -> Result<Self> {
        if self.digest() == digest {
            return Ok(self);
        }
        Err(damage::unreadable(format!(
            "the lease of {} is damaged",
            self.environment.as_str().escape_debug()
        )))
    }
}

/// What the journal knows of a run before its entries are read.
#[derive(Clone, Debug)]
pub(super) struct Heading {
    pub(super) run: RunId,
    pub(super) environment: Environment,
    /// The environment's how-many-th run, from 0.
    pub(super) number: i64,
    /// Under which lease it began.
    pub(super) generation: i64,
    /// How many entries it has.
    pub(super) length: i64,
    /// The digest of the last one.
    pub(super) tip: Digest,
}

impl Heading {
    /// Of a run without entries yet, the next of its environment.
    pub(super) fn new(run: RunId, lease: &LeaseRow) -> Self {
        Self {
            run,
            environment: lease.environment.clone(),
            number: lease.runs,
            generation: lease.generation,
            length: 0,
            tip: seal::beginning(run, &lease.environment),
        }
    }

    /// Of this run; none if there is no such run.
    pub(super) fn read(transaction: &Transaction<'_>, run: RunId) -> Result<Option<Self>> {
        let sql = "SELECT run, environment, number, generation, length, tip, digest FROM runs WHERE run = ?1";
        select(transaction, sql, params![run.to_string()], Self::columns)?
            .pop()
            .map(Self::checked)
            .transpose()
    }

    /// Those of one environment or all, the latest ids first.
    pub(super) fn all(transaction: &Transaction<'_>, environment: Option<&Environment>) -> Result<Vec<Self>> {
        let sql = "SELECT run, environment, number, generation, length, tip, digest FROM runs";
        let rows = match environment {
            Some(environment) => {
                // In words that the index over environments is used for: a journal may have those of thousands.
                let sql = format!("{sql} WHERE environment = ?1 ORDER BY run DESC");
                select(transaction, &sql, params![environment.as_str()], Self::columns)?
            }
            None => select(transaction, &format!("{sql} ORDER BY run DESC"), params![], Self::columns)?,
        };
        rows.into_iter().map(Self::checked).collect()
    }

    pub(super) fn write(&self, transaction: &Transaction<'_>) -> Result<()> {
        let mut replace = transaction
            .prepare_cached(
                "REPLACE INTO runs (run, environment, number, generation, length, tip, digest) \
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            )
            .map_err(|error| damage::sqlite(&error))?;
        let Self { run, environment, number, generation, length, tip } = self;
        let (run, environment) = (run.to_string(), environment.as_str());
        replace
            .execute(params![run, environment, number, generation, length, tip, self.digest(&run)])
            .map_err(|error| damage::sqlite(&error))?;
        Ok(())
    }

    fn columns(row: &Row<'_>) -> rusqlite::Result<(String, Self, Digest)> {
        let run: String = row.get(0)?;
        let heading = Self {
            run: run
                .parse()
                .map_err(|error| rusqlite::Error::FromSqlConversionFailure(0, Type::Text, Box::new(error)))?,
            environment: Environment::new(row.get::<_, String>(1)?),
            number: row.get(2)?,
            generation: row.get(3)?,
            length: row.get(4)?,
            tip: row.get(5)?,
        };
        Ok((run, heading, row.get(6)?))
    }

    /// With the run's id as it stands there.
    fn digest(&self, run: &str) -> Digest {
        Seal::of("heading")
            .text(run)
            .text(self.environment.as_str())
            .number(self.number)
            .number(self.generation)
            .number(self.length)
            .digest(self.tip)
            .done()
    }

    fn checked((run, heading, digest): (String, Self, Digest)) -> Result<Self> {
        if heading.digest(&run) == digest {
            return Ok(heading);
        }
        Err(damage::unreadable(format!("the heading of the run {} is damaged", run.escape_debug())))
    }
}

/// One entry as it stands in its table.
struct EntryRow {
    seq: i64,
    environment: Environment,
    generation: i64,
    record: String,
    digest: Digest,
}

/// All entries of a run, each proven to follow the one before it.
pub(super) fn entries(transaction: &Transaction<'_>, heading: &Heading) -> Result<Vec<Record>> {
    let run = heading.run;
    let (mut records, mut tip, mut place) = (Vec::new(), seal::beginning(run, &heading.environment), 0);
    for row in entry_rows(transaction, run)? {
        if row.seq != place {
            let why = format!("entry {place} is missing: entry {} comes in its place", row.seq);
            return Err(damage::run(run, why));
        }
        tip = seal::entry(tip, row.seq, &row.environment, row.generation, &row.record);
        if tip != row.digest || row.environment != heading.environment {
            return Err(damage::run(run, format!("entry {place} is damaged: it is not as it was written")));
        }
        records.push(parse(run, place, &row.record)?);
        place += 1;
    }
    match (place == heading.length, tip == heading.tip) {
        (true, true) => Ok(records),
        (true, false) => {
            Err(damage::run(run, format!("entry {} is not the last that was written", place - 1)))
        }
        (false, _) => Err(damage::run(run, format!("it had {} entries and has {place}", heading.length))),
    }
}

/// Whether there are entries of a run, for one that has no heading.
pub(super) fn has_entries(transaction: &Transaction<'_>, run: RunId) -> Result<bool> {
    Ok(!entry_rows(transaction, run)?.is_empty())
}

/// The digest of one entry.
pub(super) fn digest_of_entry(transaction: &Transaction<'_>, run: RunId, seq: i64) -> Result<Option<Digest>> {
    let sql = "SELECT digest FROM entries WHERE run = ?1 AND seq = ?2";
    transaction
        .query_row(sql, params![run.to_string(), seq], |row| row.get(0))
        .optional()
        .map_err(|error| damage::sqlite(&error))
}

/// Puts an entry behind the last one.
pub(super) fn push_entry(
    transaction: &Transaction<'_>,
    heading: &mut Heading,
    generation: i64,
    (seq, record): (i64, &str),
) -> rusqlite::Result<()> {
    let tip = seal::entry(heading.tip, seq, &heading.environment, generation, record);
    let mut insert = transaction.prepare_cached(
        "INSERT INTO entries (run, seq, environment, generation, record, digest) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )?;
    let (run, environment) = (heading.run.to_string(), heading.environment.as_str());
    insert.execute(params![run, seq, environment, generation, record, tip])?;
    heading.tip = tip;
    heading.length += 1;
    Ok(())
}

fn entry_rows(transaction: &Transaction<'_>, run: RunId) -> Result<Vec<EntryRow>> {
    let sql = "SELECT seq, environment, generation, record, digest FROM entries WHERE run = ?1 ORDER BY seq";
    select(transaction, sql, params![run.to_string()], |row| {
        Ok(EntryRow {
            seq: row.get(0)?,
            environment: Environment::new(row.get::<_, String>(1)?),
            generation: row.get(2)?,
            record: row.get(3)?,
            digest: row.get(4)?,
        })
    })
}

fn parse(run: RunId, place: i64, text: &str) -> Result<Record> {
    // The text of serde's error would repeat what stands there.
    serde_json::from_str(text).map_err(|_| {
        damage::run(run, format!("entry {place} can't be read: it is damaged, or a newer pgrotate wrote it"))
    })
}

fn select<T>(
    transaction: &Transaction<'_>,
    sql: &str,
    parameters: &[&dyn ToSql],
    row: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
) -> Result<Vec<T>> {
    let rows = || -> rusqlite::Result<Vec<T>> {
        transaction.prepare_cached(sql)?.query_map(parameters, row)?.collect()
    };
    rows().map_err(|error| damage::sqlite(&error))
}

/// A number for a column.
pub(super) fn column(number: u64) -> Result<i64> {
    i64::try_from(number).map_err(|_| Error::internal("a number is too high for the journal"))
}

/// A number from a column.
pub(super) fn unsigned(number: i64) -> Result<u64> {
    u64::try_from(number).map_err(|_| damage::unreadable("it has a negative number where there can be none"))
}

impl ToSql for Digest {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(self.bytes().into())
    }
}

impl FromSql for Digest {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        FromSql::column_result(value).map(Self::new)
    }
}
