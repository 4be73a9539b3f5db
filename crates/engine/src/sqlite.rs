//! The journal and the leases in SQLite.
//!
//! WAL with `synchronous=FULL`: when an append returns, its events are on disk, at the cost of one
//! synchronous write. The table of entries is append-only by trigger, and `(run, seq)` is its key,
//! so a late writer's insert fails even if it should get past the lease. Every row has a digest, and
//! a file beside the database knows how far it goes: see docs/design/003-journal.md.

mod damage;
mod layout;
mod rows;
mod seal;
mod witness;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use pgrotate_core::env::Clock;
use pgrotate_core::journal::{Journal, Record, RunHeading, fenced};
use pgrotate_core::lease::{Generation, Lease, Leases, TERM};
use pgrotate_core::{Environment, Error, Kind, Result, RunId};
use rusqlite::{Connection, Transaction, TransactionBehavior};

use self::rows::{Heading, LeaseRow, column, unsigned};
use self::witness::{Witness, Witnesses};
use crate::holder::Holder;
use crate::system::SystemClock;

/// The pages in SQLite's log from which on it is worth while to put them into the database.
const A_LONG_LOG: u32 = 1000;

/// The journal and the leases of one state folder.
#[derive(Clone)]
pub struct SqliteStore {
    connection: Arc<Mutex<Connection>>,
    path: Arc<Path>,
    witnesses: Witnesses,
    holder: Holder,
}

impl SqliteStore {
    /// Opens the database, and makes it if it does not exist.
    ///
    /// # Errors
    /// When the file can't be opened, is damaged, has lost something, or was made by a newer program.
    pub fn open(path: &Path) -> Result<Self> {
        let witnesses = Witnesses::beside(path);
        let connection = layout::open(path, &witnesses).map_err(|error| damage::placed(error, path))?;
        Ok(Self {
            connection: Arc::new(Mutex::new(connection)),
            path: path.into(),
            witnesses,
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

    /// The same store on a disk that is full when the database has this many pages, for tests.
    ///
    /// # Errors
    /// When SQLite refuses.
    #[doc(hidden)]
    pub fn limit_pages(&self, pages: u32) -> Result<()> {
        let connection = self.connection.lock().expect("no holder of the connection panics");
        connection
            .pragma_update_and_check(None, "max_page_count", pages, |_| Ok(()))
            .map_err(|error| damage::sqlite(&error))
    }

    /// How many entries each run has, the earliest ids first.
    ///
    /// # Errors
    /// When the journal can't be read, or has lost something.
    pub fn lengths(&self) -> Result<Vec<(RunId, u64)>> {
        let length = |heading: Heading| Ok((heading.run, unsigned(heading.length)?));
        self.look(|transaction| headings(transaction, None)?.into_iter().rev().map(length).collect())
    }

    /// How many entries this run has; none if there is no such run.
    ///
    /// # Errors
    /// When the journal can't be read.
    pub fn length(&self, run: RunId) -> Result<u64> {
        let heading = self.look(|transaction| Heading::read(transaction, run))?;
        heading.map_or(Ok(0), |heading| unsigned(heading.length))
    }

    /// Runs a transaction. What `after` does with its result comes after the commit and before the next transaction
    /// of this process.
    ///
    /// On the thread that runs everything: a commit takes milliseconds, and handing it to another thread and back takes
    /// as long again on a busy machine. Whatever is in hand meanwhile waits for answers from far away.
    fn transaction<T>(
        &self,
        behaviour: TransactionBehavior,
        work: impl FnOnce(&Transaction<'_>) -> Result<T>,
        after: impl FnOnce(&T) -> Result<()>,
    ) -> Result<T> {
        let mut connection = self.connection.lock().expect("no holder of the connection panics");
        let carry_out = || {
            let transaction =
                connection.transaction_with_behavior(behaviour).map_err(|error| damage::sqlite(&error))?;
            let result = work(&transaction)?;
            transaction.commit().map_err(|error| damage::sqlite(&error))?;
            after(&result)?;
            Ok(result)
        };
        carry_out().map_err(|error| damage::placed(error, &self.path))
    }

    fn look<T>(&self, work: impl FnOnce(&Transaction<'_>) -> Result<T>) -> Result<T> {
        self.transaction(TransactionBehavior::Deferred, work, |_| Ok(()))
    }

    fn change<T>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> Result<T>,
        after: impl FnOnce(&T) -> Result<()>,
    ) -> Result<T> {
        self.transaction(TransactionBehavior::Immediate, work, after)
    }

    /// Moves the end of a lease that is still the newest.
    fn extend(&self, lease: Lease, holder: Option<String>) -> Result<Lease> {
        let work = |transaction: &Transaction<'_>| {
            let row = mine(transaction, &lease)?;
            let expires_at_ms = lease.expires_at.as_millisecond();
            if holder.is_none() {
                layout::empty_the_log_from(transaction, A_LONG_LOG)?;
            }
            let expires_up_ms = if holder.is_some() { ends_up_ms() } else { 0 };
            LeaseRow { holder, expires_at_ms, expires_up_ms, ..row }.write(transaction)
        };
        self.change(work, |()| Ok(()))?;
        Ok(lease)
    }
}

#[async_trait]
impl Journal for SqliteStore {
    async fn append(&self, lease: &Lease, run: RunId, records: &[Record]) -> Result<()> {
        let lines: Vec<(i64, String)> = records.iter().map(line).collect::<Result<_>>()?;
        let note = |witness: &Witness| {
            // The entries are on disk. A witness that stays behind is harmless.
            let _ = self.witnesses.note(witness);
            Ok(())
        };
        self.change(|transaction| append(transaction, lease, run, &lines), note).map(drop)
    }

    async fn read(&self, run: RunId) -> Result<Vec<Record>> {
        self.look(|transaction| match Heading::read(transaction, run)? {
            Some(heading) => rows::entries(transaction, &heading),
            None if rows::has_entries(transaction, run)? => {
                Err(damage::run(run, "it has entries and no heading"))
            }
            // Nobody says that there is no such run before the headings are known to be all there.
            None => headings(transaction, None).map(|_| Vec::new()),
        })
    }

    async fn runs(&self, environment: Option<&Environment>) -> Result<Vec<RunHeading>> {
        let heading = |heading: Heading| {
            let Heading { run, environment, .. } = heading;
            Ok(RunHeading { run, environment, generation: Generation(unsigned(heading.generation)?) })
        };
        self.look(|transaction| headings(transaction, environment)?.into_iter().map(heading).collect())
    }
}

#[async_trait]
impl Leases for SqliteStore {
    async fn acquire(&self, environment: &Environment) -> Result<Lease> {
        let work = |transaction: &Transaction<'_>| {
            // No step pays for it: it costs three synchronous writes. Who gives the lease back does.
            layout::empty_the_log_from(transaction, 0)?;
            let _ = layout::lengthen_the_log(&self.path);
            take(transaction, environment, &self.holder, Timestamp::now())
        };
        lease(&self.change(work, |row| self.witnesses.begin(row))?)
    }

    async fn renew(&self, lease: &Lease) -> Result<Lease> {
        let lease = Lease { expires_at: Timestamp::now() + TERM, ..lease.clone() };
        self.extend(lease, Some(self.holder.to_text()))
    }

    async fn release(&self, lease: &Lease) -> Result<()> {
        let lease = Lease { expires_at: Timestamp::now(), ..lease.clone() };
        match self.extend(lease, None) {
            Err(error) if error.kind() == Kind::Fenced => Ok(()),
            result => result.map(drop),
        }
    }
}

/// The row of a lease.
///
/// # Errors
/// [`Kind::Fenced`] when there is a newer one.
fn mine(transaction: &Transaction<'_>, lease: &Lease) -> Result<LeaseRow> {
    match LeaseRow::read(transaction, &lease.environment)? {
        Some(row) if unsigned(row.generation)? == lease.generation.0 => Ok(row),
        _ => Err(fenced(&lease.environment)),
    }
}

fn take(
    transaction: &Transaction<'_>,
    environment: &Environment,
    holder: &Holder,
    now: Timestamp,
) -> Result<LeaseRow> {
    let Some(last) = LeaseRow::read(transaction, environment)? else {
        headings(transaction, Some(environment))?;
        return renewed(transaction, LeaseRow::first(environment.clone()), holder, now);
    };
    let expires_at = expiry(&last)?;
    if let Some(other) = last.holder.as_deref().and_then(Holder::from_text)
        && other != *holder
        && !is_over(&last, &other, now)?
        && !other.is_gone()
    {
        return Err(busy(environment, &other, expires_at));
    }
    renewed(transaction, last, holder, now)
}

/// Whether a lease has run out. On the holder's own machine the uptime tells: the clock may have been set meanwhile.
fn is_over(lease: &LeaseRow, holder: &Holder, now: Timestamp) -> Result<bool> {
    if lease.expires_up_ms > 0 && holder.is_of_this_boot() {
        return Ok(lease.expires_up_ms <= up_ms(SystemClock.uptime()));
    }
    Ok(expiry(lease)? <= now)
}

/// When a lease ends that is given now.
fn ends_up_ms() -> i64 {
    up_ms(SystemClock.uptime() + TERM)
}

fn up_ms(uptime: Duration) -> i64 {
    i64::try_from(uptime.as_millis()).unwrap_or(i64::MAX)
}

fn renewed(
    transaction: &Transaction<'_>,
    last: LeaseRow,
    holder: &Holder,
    now: Timestamp,
) -> Result<LeaseRow> {
    let row = LeaseRow {
        generation: last.generation + 1,
        holder: Some(holder.to_text()),
        expires_at_ms: (now + TERM).as_millisecond(),
        expires_up_ms: ends_up_ms(),
        ..last
    };
    row.write(transaction)?;
    Ok(row)
}

fn lease(row: &LeaseRow) -> Result<Lease> {
    let generation = Generation(unsigned(row.generation)?);
    Ok(Lease { environment: row.environment.clone(), generation, expires_at: expiry(row)? })
}

fn expiry(row: &LeaseRow) -> Result<Timestamp> {
    Timestamp::from_millisecond(row.expires_at_ms)
        .map_err(|_| damage::unreadable("a lease ends at an impossible time"))
}

/// Puts entries behind those that a run has, and tells how far the journal goes then.
fn append(
    transaction: &Transaction<'_>,
    lease: &Lease,
    run: RunId,
    lines: &[(i64, String)],
) -> Result<Witness> {
    let mut row = mine(transaction, lease)?;
    let known = Heading::read(transaction, run)?;
    let first = lines.first().map_or(0, |(seq, _)| *seq);
    let begins = known.is_none();
    if begins && first > 0 {
        return Err(damage::run(run, "it has no beginning any more"));
    }
    let mut heading = known.unwrap_or_else(|| Heading::new(run, &row));
    if first != heading.length || heading.environment != lease.environment {
        return Err(fenced(&lease.environment));
    }
    for (seq, text) in lines {
        // Where an entry is there already, its heading has not told the truth: nobody else writes meanwhile.
        rows::push_entry(transaction, &mut heading, row.generation, (*seq, text))
            .map_err(|error| damage::sqlite(&error))?;
    }
    heading.write(transaction)?;
    if begins {
        row.runs += 1;
        row.write(transaction)?;
    }
    Ok(Witness::of(&row, &heading))
}

/// The headings, after a look whether they are all there.
fn headings(transaction: &Transaction<'_>, environment: Option<&Environment>) -> Result<Vec<Heading>> {
    let headings = Heading::all(transaction, environment)?;
    let mut numbers: BTreeMap<&Environment, Vec<i64>> = BTreeMap::new();
    let leases = LeaseRow::all(transaction, environment)?;
    for heading in &headings {
        numbers.entry(&heading.environment).or_default().push(heading.number);
    }
    for lease in &leases {
        let mut own = numbers.remove(&lease.environment).unwrap_or_default();
        own.sort_unstable();
        if !own.iter().copied().eq(0..lease.runs) {
            let why =
                format!("{} had {} runs, and {} of them are left", lease.environment, lease.runs, own.len());
            return Err(damage::unreadable(why));
        }
    }
    match numbers.keys().next() {
        None => Ok(headings),
        Some(environment) => Err(damage::unreadable(format!("the lease of {environment} is gone"))),
    }
}

fn line(record: &Record) -> Result<(i64, String)> {
    let text = serde_json::to_string(record)
        .map_err(|_| Error::internal("an event could not be written as JSON"))?;
    Ok((column(record.seq)?, text))
}

fn busy(environment: &Environment, holder: &Holder, until: Timestamp) -> Error {
    Error::new(Kind::Busy, format!("take the lease of {environment}"))
        .because(format!("{} holds it until {until:.0} or longer", holder.describe()))
        .hint("one run at a time: wait for it to end, then look with `pgrotate history`")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A lease that ends at these times, by the clock and by the uptime.
    fn ending(clock: Timestamp, up_ms: i64) -> LeaseRow {
        LeaseRow {
            expires_at_ms: clock.as_millisecond(),
            expires_up_ms: up_ms,
            ..LeaseRow::first(Environment::from("test"))
        }
    }

    #[test]
    fn a_clock_that_is_set_ends_no_lease_of_this_machine() {
        let (now, here) = (Timestamp::now(), Holder::this_process());
        let (passed, to_come) = (now - TERM, now + TERM);
        let ends = ends_up_ms();
        // The clock was put forward, and back.
        assert!(!is_over(&ending(passed, ends), &here, now).unwrap());
        assert!(is_over(&ending(to_come, 1), &here, now).unwrap());
        // Of another machine, or of a program that knew no better, only the clock can tell.
        let elsewhere = Holder::from_text("1 1 some-boot elsewhere").unwrap();
        for (holder, up_ms) in [(&elsewhere, ends), (&here, 0)] {
            assert!(is_over(&ending(passed, up_ms), holder, now).unwrap());
            assert!(!is_over(&ending(to_come, up_ms), holder, now).unwrap());
        }
    }
}
