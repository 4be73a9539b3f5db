//! Everything that exists outside of pgrotate, and what must hold of it at every moment.

use std::sync::{Arc, Mutex, MutexGuard};

use pgrotate_core::provider::{Entry, VaultState};
use pgrotate_core::{CopyId, RunId, Secret, VersionId};

/// What works before anything happens.
pub(crate) const OLD: &str = "OldPassword1OldPassword1OldPassw";
/// What stands beside a copy and is none of pgrotate's business.
const NEIGHBOUR: &str = "neighbour";

/// A promise that is broken on purpose, to see that somebody notices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sabotage {
    /// The vault of record forgets the pending password when it becomes current.
    PromoteForgets,
    /// A store changes what stands beside a copy.
    WriteSpills,
    /// A store makes two versions of one write.
    WriteRepeats,
    /// A store takes a write and does not keep it, and shows what it was told.
    WriteIsLost,
    /// The application is told to restart, and stays as it is, and looks healthy.
    RestartIsFeigned,
    /// The server says that it has changed its password, and takes another one.
    InstallGarbles,
    /// What is told is told twice.
    TellsTwice,
}

impl Sabotage {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::PromoteForgets,
        Self::WriteSpills,
        Self::WriteRepeats,
        Self::WriteIsLost,
        Self::RestartIsFeigned,
        Self::InstallGarbles,
        Self::TellsTwice,
    ];
}

/// One place that keeps a copy.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) id: CopyId,
    /// Whether its value can be read back.
    pub(crate) readable: bool,
    /// Its values, oldest first.
    pub(crate) values: Vec<String>,
    /// What else is written together with it.
    pub(crate) neighbour: &'static str,
}

impl Place {
    fn new(id: &str, readable: bool, value: &str) -> Self {
        Self { id: CopyId::from(id), readable, values: vec![value.to_owned()], neighbour: NEIGHBOUR }
    }
}

/// A version in the vault of record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Kept {
    pub(crate) password: String,
    pub(crate) run: Option<RunId>,
}

/// The vault of record.
#[derive(Clone, Debug)]
pub(crate) struct Safe {
    pub(crate) current: Option<Kept>,
    pub(crate) pending: Option<Kept>,
    pub(crate) previous: Option<Kept>,
    pub(crate) writes: u64,
}

impl Safe {
    /// What a reader sees.
    pub(crate) fn state(&self) -> VaultState {
        let entry = |kept: &Option<Kept>| {
            kept.as_ref().map(|kept| Entry { secret: Secret::new(kept.password.as_str()), run: kept.run })
        };
        VaultState {
            current: entry(&self.current),
            pending: entry(&self.pending).into_iter().collect(),
            previous: entry(&self.previous),
            version: Some(VersionId::new(self.writes.to_string())),
            updated_at: None,
        }
    }
}

/// Everything outside of pgrotate.
#[derive(Clone, Debug)]
pub(crate) struct World {
    /// The password that the server accepts.
    pub(crate) server: String,
    /// Operations on the server that are under way.
    pub(crate) under_way: u32,
    pub(crate) safe: Safe,
    pub(crate) places: Vec<Place>,
    /// The value with which the application was started.
    pub(crate) application: String,
    /// Who has been told of which run.
    pub(crate) messages: Vec<RunId>,
    /// The promises that have been broken.
    pub(crate) broken: Vec<String>,
    /// Who breaks one on purpose.
    pub(crate) sabotage: Option<Sabotage>,
}

impl World {
    /// A consistent world with so many copies; the first is what the application reads, the last can't be read back
    /// if `blind`.
    pub(crate) fn new(copies: usize, blind: bool) -> Self {
        let place = |number: usize| {
            let readable = !(blind && number + 1 == copies && number > 0);
            let value = if number == 0 { url(OLD) } else { OLD.to_owned() };
            Place::new(&format!("store:{number}"), readable, &value)
        };
        Self {
            server: OLD.to_owned(),
            under_way: 0,
            safe: Safe {
                current: Some(Kept { password: OLD.to_owned(), run: None }),
                pending: None,
                previous: None,
                writes: 1,
            },
            places: (0..copies).map(place).collect(),
            application: url(OLD),
            messages: Vec::new(),
            broken: Vec::new(),
            sabotage: None,
        }
    }

    /// Notes a broken promise.
    pub(crate) fn breaks(&mut self, promise: impl Into<String>) {
        let promise = promise.into();
        if !self.broken.contains(&promise) {
            self.broken.push(promise);
        }
    }

    /// What must hold after everything that happens.
    pub(crate) fn inspect(&mut self) {
        let safe = &self.safe;
        let known = [&safe.current, &safe.pending, &safe.previous];
        if !known.into_iter().flatten().any(|kept| kept.password == self.server) {
            self.breaks("1: no version in the vault of record logs in");
        }
        if self.places.iter().any(|place| place.neighbour != NEIGHBOUR) {
            self.breaks("5: something was changed that is not pgrotate's");
        }
        let twice = |values: &[String]| values.windows(2).any(|pair| pair[0] == pair[1]);
        if self.places.iter().any(|place| twice(&place.values)) {
            self.breaks("6: a copy got the same value twice");
        }
        if self.messages.windows(2).any(|pair| pair[0] == pair[1]) {
            self.breaks("6: a run was told twice");
        }
    }

    /// Everything is new, once.
    pub(crate) fn everything_is_new(&mut self, run: RunId) {
        let new = self.server.clone();
        let current =
            self.safe.current.as_ref().is_some_and(|kept| kept.password == new && kept.run == Some(run));
        if new == OLD || !current || self.safe.pending.is_some() {
            self.breaks("2: a run is done, and server and vault of record are not at its password");
        }
        let holds = |place: &Place| {
            let expected = if place.id.as_str() == "store:0" { url(&new) } else { new.clone() };
            place.values.last() == Some(&expected)
        };
        if !self.places.iter().all(holds) {
            self.breaks("2: a run is done, and a copy does not hold its password");
        }
        if self.application != url(&new) {
            self.breaks("2: a run is done, and the application was not started with its password");
        }
        // GitHub's secrets show no value, so a repeated write can't be told from the first one there.
        let several = |place: &Place| place.readable && place.values.len() > 2;
        if self.places.iter().any(several) {
            self.breaks("6: a copy got more than one new version");
        }
    }

    /// Nothing has changed.
    pub(crate) fn nothing_is_changed(&mut self) {
        let same = self.server == OLD
            && self.safe.current.as_ref().is_some_and(|kept| kept.password == OLD)
            && self.safe.pending.is_none()
            && self.places.iter().all(|place| place.values.len() == 1);
        if !same {
            self.breaks("2: a run ended without success, and something is changed");
        }
    }
}

/// The value of the copy that the application reads.
pub(crate) fn url(password: &str) -> String {
    format!("postgresql://mindwelladmin:{password}@db:5432/app")
}

/// The world, as everybody in a simulation shares it.
#[derive(Clone)]
pub(crate) struct Shared(Arc<Mutex<World>>);

impl Shared {
    pub(crate) fn new(world: World) -> Self {
        Self(Arc::new(Mutex::new(world)))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, World> {
        self.0.lock().expect("no holder of this lock panics")
    }
}
