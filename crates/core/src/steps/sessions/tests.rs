use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use futures::FutureExt;
use wildmatch::WildMatch;

use super::*;
use crate::env::testing::{ManualClock, SeededEntropy};
use crate::env::{Clock, Entropy};
use crate::executor::{End, Executor, Patience};
use crate::journal::{Effect, MemoryJournal, Start};
use crate::lease::{Generation, Lease};
use crate::memory::{self, Memory};
use crate::observer::Unobserved;
use crate::past::Overrides;
use crate::{Environment, RunId, StepId};

/// A server that has these sessions by its clock.
struct Server {
    clock: Arc<dyn Clock>,
    sessions: Mutex<Vec<Session>>,
    /// When the consumer logs in, in seconds.
    logs_in: Option<i64>,
    /// Sessions that were ended log in again.
    comes_back: bool,
    /// How far its clock is ahead of ours.
    ahead: Duration,
}

fn session(name: &str, second: i64) -> Session {
    let since = Timestamp::from_second(second).unwrap();
    Session { pid: i32::try_from(second).unwrap(), application_name: name.into(), address: None, since }
}

#[async_trait]
impl Census for Arc<Server> {
    async fn take(&self, _: &Secret, _: Duration) -> Result<Sample> {
        let now = self.clock.now();
        let mut sessions = self.sessions.lock().unwrap().clone();
        sessions.extend(self.logs_in.filter(|at| *at <= now.as_second()).map(|at| session("api", at)));
        Ok(Sample { at: now + self.ahead, sessions })
    }

    async fn end(&self, _: &Secret, sessions: &[Session]) -> Result<usize> {
        let mut own = self.sessions.lock().unwrap();
        let before = own.len();
        own.retain(|session| !sessions.contains(session));
        let ended = before - own.len();
        if self.comes_back {
            own.push(session("api", self.clock.now().as_second()));
        }
        Ok(ended)
    }
}

/// A run with a consumer whose sessions are watched, begun at second 1000.
struct Lab {
    clock: Arc<dyn Clock>,
    world: Memory,
    server: Arc<Server>,
    sessions: Sessions,
}

impl Lab {
    fn new(there: &[Session], logs_in: Option<i64>) -> Self {
        let clock: Arc<dyn Clock> = Arc::new(ManualClock::at_second(1000));
        let sessions = Mutex::new(there.to_vec());
        let (comes_back, ahead) = (false, Duration::ZERO);
        let server = Arc::new(Server { clock: Arc::clone(&clock), sessions, logs_in, comes_back, ahead });
        let sessions = Sessions {
            application_name: WildMatch::new("api"),
            addresses: Vec::new(),
            optional: false,
            reconnect: Reconnect::Wait,
        };
        Self { clock, world: memory::world("OldOldOldOld1"), server, sessions }
    }

    fn run(&self) -> (RunState, End) {
        let entropy: Arc<dyn Entropy> = Arc::new(SeededEntropy::new(1));
        let mut rotation = memory::rotation(&self.world, &self.clock, &entropy);
        rotation.consumers[0].sessions = Some(self.sessions.clone());
        rotation.around.census = Some(Box::new(Arc::clone(&self.server)));
        let lease = Lease {
            environment: Environment::from("test"),
            generation: Generation(1),
            expires_at: Timestamp::MAX,
        };
        let executor = Executor {
            journal: &MemoryJournal::default(),
            world: &rotation,
            clock: &*self.clock,
            entropy: &*entropy,
            observer: &Unobserved,
            patience: Patience::default(),
            stop: &|| false,
        };
        let start = Start {
            plan: rotation.plan(),
            generation: Generation(1),
            operator: "somebody".into(),
            ticket: None,
            overrides: Overrides { waived: vec!["*".into()], ..Overrides::default() },
            version: "0".into(),
        };
        let run = RunId::generate(self.clock.now(), &*entropy);
        let mut state = executor.begin(run, start, &lease).now_or_never().unwrap().unwrap();
        let end = executor.drive(&mut state, &lease).now_or_never().unwrap().unwrap();
        (state, end)
    }

    /// What came of the step that looks at the sessions.
    fn proof(&self) -> Result<Outcome> {
        let (state, end) = self.run();
        let step = StepId::from("verify/sessions of memory:application");
        match end {
            End::Done => Ok(state.step(&step).outcome.clone().unwrap()),
            End::Parked(parked) => {
                assert!(parked.len() == 1 && parked[0].0 == step, "{parked:?}");
                Err(parked[0].1.clone())
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_session_from_after_the_change_is_proof() {
    let outcome = Lab::new(&[session("api", 500)], Some(1010)).proof().unwrap();
    assert_eq!(outcome.effect, Effect::Confirmed);
    assert!(outcome.notes[0].contains("1970-01-01T00:16:50"), "{:?}", outcome.notes);
    assert!(outcome.notes[0].ends_with("; one session now"), "{:?}", outcome.notes);
    assert!(outcome.notes[1].contains("which proves nothing: api@socket (pid 500"), "{:?}", outcome.notes);
}

#[test]
fn who_has_none_from_before_has_nothing_more_to_say() {
    let outcome = Lab::new(&[session("api", 1001)], Some(1002)).proof().unwrap();
    assert_eq!(outcome.notes.len(), 1, "{:?}", outcome.notes);
    assert!(outcome.notes[0].contains("at 1970-01-01T00:16:41"), "the first of them: {:?}", outcome.notes);
    let outcome = Lab::new(&[session("api", 1001), session("api", 1002)], None).proof().unwrap();
    assert!(outcome.notes[0].ends_with("; 2 sessions now"), "{:?}", outcome.notes);
}

#[test]
fn one_from_the_very_instant_of_the_change_proves_nothing() {
    let error = Lab::new(&[session("api", 1000)], None).proof().unwrap_err();
    assert!(error.causes()[0].contains("api@socket (pid 1000"), "{error}");
}

/// By our own clock, which is late, it would have come after the change.
#[test]
fn before_and_after_are_told_by_the_clock_of_the_server() {
    let mut lab = Lab::new(&[session("api", 1050)], None);
    Arc::get_mut(&mut lab.server).unwrap().ahead = Duration::from_secs(100);
    assert!(lab.proof().unwrap_err().causes()[0].contains("api@socket (pid 1050"));
    let mut lab = Lab::new(&[session("api", 1101)], None);
    Arc::get_mut(&mut lab.server).unwrap().ahead = Duration::from_secs(100);
    assert!(lab.proof().is_ok());
}

#[test]
fn one_from_before_it_is_none_however_long_it_is_watched() {
    let lab = Lab::new(&[session("api", 500)], None);
    let error = lab.proof().unwrap_err();
    assert!(
        error.causes()[0].contains("it goes on with what logged in before the change: api@socket (pid 500")
    );
    assert!(lab.clock.now().as_second() >= 1060, "bounded, and not hurried");
    let late = Lab::new(&[session("api", 500)], Some(1000 + 3600));
    assert!(late.proof().is_err(), "an hour is too late");
}

#[test]
fn who_never_appears_is_missed_unless_nobody_expects_them() {
    let mut lab = Lab::new(&[session("other", 1001)], None);
    let error = lab.proof().unwrap_err();
    assert!(error.causes()[0].contains("no session of it appeared within 60 s"), "{error:?}");
    lab.sessions.optional = true;
    assert_eq!(Lab { world: memory::world("OldOldOldOld1"), ..lab }.proof().unwrap().effect, Effect::Unseen);
}

#[test]
fn an_optional_consumer_with_old_sessions_alone_is_unproven_too() {
    let mut lab = Lab::new(&[session("api", 500)], None);
    lab.sessions.optional = true;
    assert!(lab.proof().is_err());
}

#[test]
fn old_sessions_are_ended_where_that_is_wanted() {
    let mut lab = Lab::new(&[session("api", 500), session("psql", 500)], None);
    let server = Arc::get_mut(&mut lab.server).unwrap();
    server.comes_back = true;
    lab.sessions.reconnect = Reconnect::Terminate;
    // It logs in again in the second in which the change was, which might be before it; so there is a second try.
    let outcome = lab.proof();
    let left: Vec<_> = lab.server.sessions.lock().unwrap().iter().map(Session::origin).collect();
    assert!(left.contains(&"psql@socket".to_owned()), "another's session stays: {left:?}");
    let outcome = outcome.unwrap();
    assert!(outcome.notes[1].contains("the server ended"), "{:?}", outcome.notes);
}
