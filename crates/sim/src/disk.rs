//! A state folder: the journal and the lease, with the rules of the real one.

use std::borrow::Cow;
use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use pgrotate_core::env::Clock;
use pgrotate_core::journal::{Journal, MemoryJournal, Record, RunHeading, fenced};
use pgrotate_core::lease::{Generation, Lease, Leases, TERM};
use pgrotate_core::{Environment, Error, Kind, Result, RunId};

use crate::network::Network;
use crate::sabotage::{Sabotage, held_back};

/// Who has the lease.
#[derive(Default)]
struct Grant {
    generation: u64,
    /// The process, and until when it holds, in milliseconds of virtual time.
    held: Option<(u32, u64)>,
}

/// What all processes share.
pub(crate) struct Disk {
    journal: MemoryJournal,
    grant: Mutex<Grant>,
    /// Every entry as it was written, in the order of writing.
    text: Mutex<Vec<u8>>,
    /// How often in a thousand writes the disk is full.
    pub(crate) full: u64,
    network: Arc<Network>,
}

impl Disk {
    pub(crate) fn new(network: Arc<Network>, full: u64) -> Arc<Self> {
        Arc::new(Self {
            journal: MemoryJournal::default(),
            grant: Mutex::default(),
            text: Mutex::default(),
            full,
            network,
        })
    }

    fn grant(&self) -> MutexGuard<'_, Grant> {
        self.grant.lock().expect("no holder of this lock panics")
    }

    /// Every entry as text.
    pub(crate) fn text(&self) -> String {
        let text = self.text.lock().expect("no holder of this lock panics");
        String::from_utf8_lossy(&text).into_owned()
    }

    fn is_sabotaged(&self, by: Sabotage) -> bool {
        self.network.world.lock().is_sabotaged(by)
    }

    fn is_full(&self) -> bool {
        let network = &self.network;
        self.full > 0 && !network.is_well() && network.dice.in_thousand(self.full)
    }

    /// What is written is looked at by a witness.
    fn show(&self, run: RunId, records: &[Record]) {
        let mut text = self.text.lock().expect("no holder of this lock panics");
        let mut world = self.network.world.lock();
        for record in records {
            let begin = text.len();
            serde_json::to_writer(&mut *text, record).expect("a record can be written as JSON");
            text.push(b'\n');
            let line = std::str::from_utf8(&text[begin..]).expect("JSON is text");
            world.is_written_down(run, record, line);
        }
        world.inspect();
    }
}

/// One process's access to the state folder.
#[derive(Clone)]
pub(crate) struct Desk {
    pub(crate) disk: Arc<Disk>,
    pub(crate) process: u32,
    /// What a saboteur has not written down yet.
    kept: Arc<Mutex<Vec<Record>>>,
}

impl Desk {
    pub(crate) fn new(disk: Arc<Disk>, process: u32) -> Self {
        Self { disk, process, kept: Arc::default() }
    }

    /// What comes to be written now; all of it, unless somebody has patched the order.
    fn due<'r>(&self, records: &'r [Record]) -> Cow<'r, [Record]> {
        if !self.disk.is_sabotaged(Sabotage::EffectBeforeJournal) {
            return records.into();
        }
        let mut kept = self.kept.lock().expect("no holder of this lock panics");
        kept.extend_from_slice(records);
        let due = held_back(&kept);
        kept.drain(..due).collect::<Vec<_>>().into()
    }
}

#[async_trait]
impl Journal for Desk {
    async fn append(&self, lease: &Lease, run: RunId, records: &[Record]) -> Result<()> {
        let (disk, time) = (&self.disk, &self.disk.network.time);
        // A process may die before its write, and after it without knowing.
        time.sleep_ms(1).await;
        if disk.is_full() {
            return Err(Error::new(Kind::BadState, "use the journal").because("the disk is full"));
        }
        let due = self.due(records);
        if !due.is_empty() {
            disk.journal.append(lease, run, &due).await?;
            disk.show(run, &due);
        }
        time.sleep_ms(1).await;
        Ok(())
    }

    async fn read(&self, run: RunId) -> Result<Vec<Record>> {
        self.disk.journal.read(run).await
    }

    async fn runs(&self, environment: Option<&Environment>) -> Result<Vec<RunHeading>> {
        self.disk.journal.runs(environment).await
    }
}

#[async_trait]
impl Leases for Desk {
    async fn acquire(&self, environment: &Environment) -> Result<Lease> {
        let (disk, now_ms) = (&self.disk, self.disk.network.time.now_ms());
        let for_everybody = disk.is_sabotaged(Sabotage::LeaseForEverybody);
        let mut grant = disk.grant();
        if let Some((process, until_ms)) = grant.held
            && until_ms > now_ms
            && !disk.network.is_dead(process)
            && !for_everybody
        {
            return Err(Error::new(Kind::Busy, "take the lease").because("a living process holds it"));
        }
        grant.generation += 1;
        grant.held = Some((self.process, now_ms + term_ms()));
        let lease = Lease {
            environment: environment.clone(),
            generation: Generation(grant.generation),
            expires_at: expiry(disk.network.time.now()),
        };
        disk.journal.fence(&lease);
        disk.network.world.lock().writer = self.process;
        Ok(lease)
    }

    async fn renew(&self, lease: &Lease) -> Result<Lease> {
        let time = &self.disk.network.time;
        let mut grant = self.disk.grant();
        if grant.generation != lease.generation.0 {
            return Err(fenced(&lease.environment));
        }
        grant.held = Some((self.process, time.now_ms() + term_ms()));
        Ok(Lease { expires_at: expiry(time.now()), ..lease.clone() })
    }

    async fn release(&self, lease: &Lease) -> Result<()> {
        let mut grant = self.disk.grant();
        if grant.generation == lease.generation.0 {
            grant.held = None;
        }
        Ok(())
    }
}

fn term_ms() -> u64 {
    u64::try_from(TERM.as_millis()).unwrap_or(u64::MAX)
}

fn expiry(now: Timestamp) -> Timestamp {
    now + SignedDuration::try_from(TERM).unwrap_or(SignedDuration::MAX)
}
