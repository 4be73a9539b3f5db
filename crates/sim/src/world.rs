//! Everything that exists outside of pgrotate.

use std::sync::{Arc, Mutex, MutexGuard};

use pgrotate_core::plan::Retirement;
use pgrotate_core::provider::{Entry, Seat, VaultState};
use pgrotate_core::{CopyId, RunId, Secret, VersionId};

use crate::sabotage::Sabotage;
use crate::shape::Shape;
use crate::witness::Witness;

/// What works before anything happens.
pub(crate) const OLD: &str = "OldPassword1OldPassword1OldPassw";
/// What the idle role rests with before anything happens.
pub(crate) const IDLE: &str = "IdlePassword1IdlePassword1IdlePa";
/// What stands beside a copy and is none of pgrotate's business.
pub(crate) const NEIGHBOUR: &str = "neighbour";
/// For how long after a write a reader may still see what was there before.
const STALE_MS: u64 = 5_000;

/// How a store keeps what it is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sort {
    /// One value, which is overwritten: an application's setting.
    Plain,
    /// Each write makes a version: a Key Vault secret.
    Versioned,
    /// Each write carries a token, and one with a known token has no effect: an AWS secret.
    Tokened,
    /// One value that nobody can read back: a GitHub secret.
    Blind,
}

/// One place that keeps a copy.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) id: CopyId,
    pub(crate) sort: Sort,
    /// Whether it holds the URL rather than the bare password.
    pub(crate) holds_url: bool,
    /// Its values, oldest first.
    pub(crate) values: Vec<String>,
    /// The runs whose write it has taken.
    tokens: Vec<RunId>,
    /// When it was last written.
    written_at_ms: u64,
    /// How many writes arrived after their sender had given up: a store that makes a version of each can't know.
    pub(crate) late: usize,
    /// What else is written together with it.
    pub(crate) neighbour: &'static str,
}

impl Place {
    fn new(number: usize, sort: Sort) -> Self {
        let mut place = Self {
            id: CopyId::new(format!("store:{number}")),
            sort,
            holds_url: number == 0,
            values: Vec::new(),
            tokens: Vec::new(),
            written_at_ms: 0,
            late: 0,
            neighbour: NEIGHBOUR,
        };
        place.values.push(if place.holds_url { url(Seat::First, OLD) } else { OLD.to_owned() });
        place
    }

    /// Whether it holds this role's password.
    pub(crate) fn holds(&self, seat: Seat, password: &str) -> bool {
        self.values.last().is_some_and(|value| match self.holds_url {
            true => is_url(value, seat, password),
            false => value == password,
        })
    }

    pub(crate) fn is_readable(&self) -> bool {
        self.sort != Sort::Blind
    }

    /// What a reader sees: in a store that is slow to agree with itself, perhaps the value before.
    pub(crate) fn seen(&self, stale: bool, at_ms: u64) -> Option<String> {
        let slow = matches!(self.sort, Sort::Plain | Sort::Tokened);
        let stale = stale && slow && self.values.len() > 1 && at_ms < self.written_at_ms + STALE_MS;
        let back = if stale { 2 } else { 1 };
        self.is_readable().then(|| self.values[self.values.len() - back].clone())
    }

    /// Takes a write.
    pub(crate) fn write(&mut self, run: RunId, value: String, late: bool, at_ms: u64) {
        let same = self.values.last() == Some(&value);
        let known = self.tokens.contains(&run);
        let ignored = match self.sort {
            Sort::Plain | Sort::Blind => same,
            Sort::Tokened => known,
            Sort::Versioned => false,
        };
        self.late += usize::from(late);
        self.tokens.push(run);
        if !ignored {
            self.values.push(value);
            self.written_at_ms = at_ms;
        }
    }

    pub(crate) fn version(&self) -> Option<VersionId> {
        matches!(self.sort, Sort::Versioned | Sort::Tokened)
            .then(|| VersionId::new(self.values.len().to_string()))
    }
}

/// A version in the vault of record.
#[derive(Clone, Debug)]
pub(crate) struct Kept {
    pub(crate) password: String,
    pub(crate) run: Option<RunId>,
    /// Whether it came after its sender had given up.
    pub(crate) late: bool,
}

impl Kept {
    /// Whether it is this password of this run.
    pub(crate) fn is(&self, run: RunId, password: &str) -> bool {
        self.run == Some(run) && self.password == password
    }
}

/// The vault of record.
#[derive(Clone, Debug)]
pub(crate) struct Safe {
    pub(crate) current: Option<Kept>,
    pub(crate) pending: Vec<Kept>,
    pub(crate) previous: Option<Kept>,
    /// Whose the current password is, where two roles take turns.
    pub(crate) user: Option<String>,
    pub(crate) writes: u64,
}

impl Safe {
    /// What a reader sees.
    pub(crate) fn state(&self) -> VaultState {
        let entry = |kept: &Kept| Entry { secret: Secret::new(kept.password.as_str()), run: kept.run };
        VaultState {
            current: self.current.as_ref().map(entry),
            pending: self.pending.iter().map(entry).collect(),
            previous: self.previous.as_ref().map(entry),
            user: self.user.clone(),
            version: Some(VersionId::new(self.writes.to_string())),
            updated_at: None,
        }
    }

    /// Whose the current password is.
    pub(crate) fn live(&self) -> Seat {
        if self.user.as_deref() == Some(name(Seat::Second)) { Seat::Second } else { Seat::First }
    }
}

/// What the server accepts from each role; nothing if it may not log in.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    first: Option<String>,
    second: Option<String>,
}

impl Server {
    pub(crate) fn of(&self, seat: Seat) -> Option<&str> {
        match seat {
            Seat::First => self.first.as_deref(),
            Seat::Second => self.second.as_deref(),
        }
    }

    pub(crate) fn accepts(&self, seat: Seat, password: &str) -> bool {
        self.of(seat) == Some(password)
    }

    /// Whether somebody with this URL can log in.
    pub(crate) fn opens_to(&self, url: &str) -> bool {
        let opens = |seat| self.of(seat).is_some_and(|password| is_url(url, seat, password));
        opens(Seat::First) || opens(Seat::Second)
    }

    /// Gives a role another password, or takes the login from it.
    pub(crate) fn change(&mut self, seat: Seat, password: Option<String>) {
        match seat {
            Seat::First => self.first = password,
            Seat::Second => self.second = password,
        }
    }
}

/// Everything outside of pgrotate.
pub(crate) struct World {
    pub(crate) server: Server,
    /// How the role that was live is retired, where two take turns.
    pub(crate) turns: Option<Retirement>,
    /// One more of it for each session that may still change a role.
    pub(crate) sessions: Arc<()>,
    /// Operations on the server that are under way.
    pub(crate) under_way: u32,
    /// How long the server takes, after it has said that all is done, until it accepts the new password.
    pub(crate) lag_ms: u64,
    pub(crate) safe: Safe,
    /// The vault as it was before its last write, and when that was: a cache may still show it.
    safe_before: (u64, Safe),
    pub(crate) places: Vec<Place>,
    /// The value with which the application was started.
    pub(crate) application: String,
    /// Who has been told of which run.
    pub(crate) messages: Vec<RunId>,
    /// The ticket's comments: of which run, and whether one came after its sender had given up.
    pub(crate) comments: Vec<(RunId, bool)>,
    /// The process with the newest lease: nobody else may change anything.
    pub(crate) writer: u32,
    pub(crate) witness: Witness,
    /// The promises that have been broken.
    pub(crate) broken: Vec<String>,
    /// Who breaks one on purpose.
    pub(crate) sabotage: Option<Sabotage>,
}

impl World {
    /// A consistent world; what the first store holds is what the application reads.
    pub(crate) fn new(shape: &Shape, sabotage: Option<Sabotage>) -> Self {
        let turns = shape.extras.turns;
        let made_by_hand = |password: &str| Kept { password: password.to_owned(), run: None, late: false };
        let idle = (turns == Some(Retirement::Password)).then_some(IDLE);
        let (current, previous) = (Some(made_by_hand(OLD)), idle.map(made_by_hand));
        let safe = Safe { current, pending: Vec::new(), previous, user: None, writes: 1 };
        let sorts = shape.sorts.iter().enumerate();
        Self {
            server: Server { first: Some(OLD.to_owned()), second: idle.map(str::to_owned) },
            turns,
            sessions: Arc::default(),
            under_way: 0,
            lag_ms: shape.lag_ms,
            safe_before: (0, safe.clone()),
            safe,
            places: sorts.map(|(number, sort)| Place::new(number, *sort)).collect(),
            application: url(Seat::First, OLD),
            messages: Vec::new(),
            comments: Vec::new(),
            writer: 0,
            witness: Witness::new(OLD, IDLE),
            broken: Vec::new(),
            sabotage,
        }
    }

    /// Notes a broken promise.
    pub(crate) fn breaks(&mut self, promise: impl Into<String>) {
        let promise = promise.into();
        if !self.broken.contains(&promise) {
            self.broken.push(promise);
        }
    }

    pub(crate) fn is_logged_in_as(&self, seat: Seat) -> bool {
        let rest = self.application.strip_prefix("postgresql://");
        rest.and_then(|rest| rest.strip_prefix(name(seat))).is_some_and(|rest| rest.starts_with(':'))
    }

    pub(crate) fn is_sabotaged(&self, by: Sabotage) -> bool {
        self.sabotage == Some(by)
    }

    /// Somebody sends a change.
    pub(crate) fn is_written_by(&mut self, process: u32, what: &str) {
        if self.writer != process {
            let writer = self.writer;
            self.breaks(format!(
                "3: process {process} sends `{what}`, and process {writer} has the environment"
            ));
        }
    }

    /// Changes the vault of record.
    pub(crate) fn write_safe<T>(&mut self, at_ms: u64, write: impl FnOnce(&mut Safe) -> T) -> T {
        self.safe_before = (at_ms, self.safe.clone());
        self.safe.writes += 1;
        write(&mut self.safe)
    }

    /// What a reader of the vault of record sees.
    pub(crate) fn read_safe(&self, stale: bool, at_ms: u64) -> VaultState {
        let (written_at_ms, before) = &self.safe_before;
        if stale && at_ms < written_at_ms + STALE_MS { before.state() } else { self.safe.state() }
    }
}

/// What a role is called.
pub(crate) fn name(seat: Seat) -> &'static str {
    match seat {
        Seat::First => "mindwelladmin",
        Seat::Second => "mindwelladmin_b",
    }
}

/// The value of the copy that the application reads.
pub(crate) fn url(seat: Seat, password: &str) -> String {
    format!("postgresql://{}:{password}@db:5432/app", name(seat))
}

/// Whether it is this one. Asked after everything that happens, so nothing is made for it.
fn is_url(text: &str, seat: Seat, password: &str) -> bool {
    let rest = text.strip_prefix("postgresql://").and_then(|rest| rest.strip_prefix(name(seat)));
    let rest = rest.and_then(|rest| rest.strip_prefix(':')).and_then(|rest| rest.strip_prefix(password));
    rest == Some("@db:5432/app")
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
