//! Who holds which version: what should be, against what is seen.

use futures::future::join_all;
use jiff::Timestamp;
use serde::Serialize;

use crate::error::Result;
use crate::ids::{CopyId, Environment, VersionId};
use crate::past::Published;
use crate::plan::Retirement;
use crate::provider::{Content, Entry, Login, Seat, VaultState};
use crate::rotation::{Copy, Rotation};
use crate::secret::{Fingerprint, Secret};
use crate::value::Reading;

/// How a copy stands beside the vault of record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It holds the current password.
    Current,
    /// It holds the pending one.
    Pending,
    /// It holds another one.
    Stale,
    /// It can't be read, or there is nothing to compare it with; nobody knows from here.
    Unseen,
    /// It could not be asked.
    Unreachable,
}

/// One copy.
#[derive(Clone, Debug, Serialize)]
pub struct CopyStatus {
    /// Which.
    pub id: CopyId,
    /// How it stands.
    pub state: State,
    /// Its version, if the store has such.
    pub version: Option<VersionId>,
    /// The mark of the password in it.
    pub fingerprint: Option<Fingerprint>,
    /// When it was last written, if the store says so.
    pub updated_at: Option<Timestamp>,
    /// The last run that wrote it, and when, as the journal knows it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub changed_by: Option<Published>,
    /// What a person may want to know.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// The server.
#[derive(Clone, Debug, Serialize)]
pub struct ServerStatus {
    /// Where the role logs in.
    pub target: String,
    /// Which of the vault's versions it accepts: `current`, `pending`, `stale` (none of them, or the
    /// previous one) or `unreachable`.
    pub state: State,
    /// The mark of the password that it accepts.
    pub fingerprint: Option<Fingerprint>,
    /// What a person may want to know.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// The vault of record.
#[derive(Clone, Debug, Serialize)]
pub struct VaultStatus {
    /// Which.
    pub id: CopyId,
    /// Whether it can be read and has a current password.
    pub state: State,
    /// The mark of the current password.
    pub current: Option<Fingerprint>,
    /// The mark of the pending one.
    pub pending: Option<Fingerprint>,
    /// The mark of the one before.
    pub previous: Option<Fingerprint>,
    /// What a person may want to know.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// One environment.
#[derive(Clone, Debug, Serialize)]
pub struct Status {
    /// Which.
    pub environment: Environment,
    /// The server.
    pub server: ServerStatus,
    /// The vault of record.
    pub vault: VaultStatus,
    /// The copies, the vault of record's own first.
    pub copies: Vec<CopyStatus>,
}

impl Status {
    /// Whether something disagrees with the vault of record, or could not be asked. What can't
    /// be seen is no drift.
    pub fn drifts(&self) -> bool {
        let fine = |state: State| matches!(state, State::Current | State::Unseen);
        !fine(self.server.state)
            || !fine(self.vault.state)
            || self.copies.iter().any(|copy| !fine(copy.state))
    }
}

/// Why a copy is not judged.
const NOTHING_TO_COMPARE: &str = "the vault of record can't be read, so there is nothing to compare it with";
/// Why the server is not asked.
const NOTHING_TO_TRY: &str = "the vault of record can't be read, so there is no password to try";

/// Looks at everything at once. Changes nothing.
pub async fn status(rotation: &Rotation) -> Status {
    let (state, looks) = futures::join!(
        rotation.vault.read(),
        join_all(rotation.copies.iter().map(|copy| copy.sink.inspect()))
    );
    let (state, problem) = match state {
        Ok(state) => (state, None),
        Err(error) => (VaultState::default(), Some(format!("{error:#}"))),
    };
    let known = problem.is_none().then(|| Known::new(rotation, &state));
    let known = known.as_ref();
    let mut copies = vec![vault_copy(rotation, &state, known, problem.as_deref())];
    copies.extend(
        std::iter::zip(&rotation.copies, looks).map(|(copy, seen)| copy_status(rotation, copy, seen, known)),
    );
    Status {
        environment: rotation.environment.clone(),
        server: match known {
            Some(_) => server_status(rotation, &state).await,
            None => unknown_server(rotation.described(), State::Unseen, NOTHING_TO_TRY.to_owned()),
        },
        vault: VaultStatus {
            id: rotation.vault.id().clone(),
            state: copies[0].state,
            current: known.and_then(|known| known.current.clone()),
            pending: known.and_then(|known| known.pending.first().cloned()),
            previous: state.previous.as_ref().map(|entry| rotation.key.fingerprint(&entry.secret)),
            note: copies[0].note.clone(),
        },
        copies,
    }
}

/// The marks that a copy is compared with.
struct Known {
    current: Option<Fingerprint>,
    pending: Vec<Fingerprint>,
    /// Whose the current one is.
    live: Seat,
}

impl Known {
    fn new(rotation: &Rotation, state: &VaultState) -> Self {
        let mark = |entry: &Entry| rotation.key.fingerprint(&entry.secret);
        Self {
            current: state.current.as_ref().map(mark),
            pending: state.pending.iter().map(mark).collect(),
            live: state.live(rotation.twin_name()),
        }
    }

    fn state(&self, fingerprint: &Fingerprint) -> State {
        match Some(fingerprint) {
            mark if mark == self.current.as_ref() => State::Current,
            _ if self.pending.contains(fingerprint) => State::Pending,
            _ => State::Stale,
        }
    }
}

fn vault_copy(
    rotation: &Rotation,
    state: &VaultState,
    known: Option<&Known>,
    problem: Option<&str>,
) -> CopyStatus {
    let (standing, note) = match known {
        None => (State::Unreachable, problem.map(str::to_owned)),
        Some(Known { current: None, .. }) => (State::Stale, Some("it holds no current password".to_owned())),
        Some(Known { pending, .. }) => {
            (State::Current, (!pending.is_empty()).then(|| "a pending password is staged".to_owned()))
        }
    };
    CopyStatus {
        id: rotation.vault.id().clone(),
        state: standing,
        version: state.version.clone(),
        fingerprint: known.and_then(|known| known.current.clone()),
        updated_at: state.updated_at,
        changed_by: None,
        note,
    }
}

fn copy_status(
    rotation: &Rotation,
    copy: &Copy,
    seen: Result<crate::provider::Seen>,
    known: Option<&Known>,
) -> CopyStatus {
    let id = copy.sink.id().clone();
    let changed_by = rotation.around.past.published.get(&id).cloned();
    let seen = match seen {
        Ok(seen) => seen,
        Err(error) => {
            let note = Some(format!("{error:#}"));
            return CopyStatus {
                id,
                state: State::Unreachable,
                version: None,
                fingerprint: None,
                updated_at: None,
                changed_by,
                note,
            };
        }
    };
    let (state, fingerprint, note) = match &seen.content {
        Content::Value(value) => judge(rotation, copy, value, known),
        Content::Reference(to) => (State::Unseen, None, Some(format!("it points at {to}"))),
        Content::Unseen => {
            let why = "its value can't be read now; `pgrotate check` says why";
            (State::Unseen, None, copy.sink.capabilities().read_back.then(|| why.to_owned()))
        }
        Content::Absent => (State::Stale, None, Some("there is nothing".to_owned())),
    };
    CopyStatus {
        id,
        state,
        version: seen.version,
        fingerprint,
        updated_at: seen.updated_at,
        changed_by,
        note,
    }
}

/// A copy with the right password and the wrong host is stale too.
fn judge(
    rotation: &Rotation,
    copy: &Copy,
    value: &Secret,
    known: Option<&Known>,
) -> (State, Option<Fingerprint>, Option<String>) {
    match copy.template.read(value) {
        (Reading::Foreign(why), _) => (State::Stale, None, Some(why)),
        (Reading::Password(password), url) => {
            let fingerprint = rotation.key.fingerprint(&password);
            let live = rotation.role(known.map_or(Seat::First, |known| known.live));
            let wrong = url.as_ref().and_then(|url| url.disagreements(live.target).into_iter().next());
            match (wrong, known) {
                (Some(wrong), _) => (State::Stale, Some(fingerprint), Some(format!("in its URL, {wrong}"))),
                (None, Some(known)) => {
                    let state = known.state(&fingerprint);
                    let other = || "it holds another password than the vault of record".to_owned();
                    let stale = (state == State::Stale).then(other);
                    (state, Some(fingerprint), stale.or_else(|| url.and_then(|url| url.encoding_warning())))
                }
                (None, None) => (State::Unseen, Some(fingerprint), Some(NOTHING_TO_COMPARE.to_owned())),
            }
        }
    }
}

/// Tries the vault's passwords, the current one first; a second one only if that is refused.
async fn server_status(rotation: &Rotation, state: &VaultState) -> ServerStatus {
    let live = state.live(rotation.twin_name());
    let target = rotation.role(live).target.to_string();
    let half_way = "it accepts the pending password: a run stopped half-way; pgrotate resume";
    let older = "it accepts the previous password, not the current one";
    // Of two roles that take turns the other one may log in with what is kept for it.
    let all = rotation.twin.is_none();
    let candidates = (state.current.iter().map(|entry| (entry, State::Current, None)))
        .chain(state.pending.iter().filter(|_| all).map(|entry| (entry, State::Pending, Some(half_way))))
        .chain(state.previous.iter().filter(|_| all).map(|entry| (entry, State::Stale, Some(older))));
    for (entry, standing, note) in candidates {
        match rotation.role(live).verifier.login(&entry.secret).await {
            Ok(Login::Accepted) => {
                let fingerprint = Some(rotation.key.fingerprint(&entry.secret));
                let note = match note {
                    Some(note) => Some(note.to_owned()),
                    None => unready(rotation, live, state).await,
                };
                return ServerStatus { target, state: standing, fingerprint, note };
            }
            Ok(Login::Refused) => {}
            Err(error) => return unknown_server(target, State::Unreachable, format!("{error:#}")),
        }
    }
    let note = Some("it accepts none of the passwords that the vault of record holds".to_owned());
    ServerStatus { target, state: State::Stale, fingerprint: None, note }
}

/// Whether the role that is idle could take over, where two take turns. If not, nobody is hurt until the next rotation.
async fn unready(rotation: &Rotation, live: Seat, state: &VaultState) -> Option<String> {
    let rests = rotation.twin.as_ref().is_some_and(|twin| twin.retirement == Retirement::Password);
    // While a run is on its way the idle role has what is pending.
    if !rests || !state.pending.is_empty() {
        return None;
    }
    let idle = rotation.role(live.other());
    let ready = match &state.previous {
        Some(kept) => matches!(idle.verifier.login(&kept.secret).await, Ok(Login::Accepted) | Err(_)),
        None => false,
    };
    let mend = format!("pgrotate roles prepare {}", rotation.environment);
    (!ready).then(|| format!("{} could not take over; {mend} shows what it needs", idle.target.user))
}

fn unknown_server(target: String, state: State, why: String) -> ServerStatus {
    ServerStatus { target, state, fingerprint: None, note: Some(why) }
}

#[cfg(test)]
mod tests;
