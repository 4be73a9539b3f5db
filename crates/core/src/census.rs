//! Who is logged in as the role, and who is meant to be.
//!
//! A session that logged in before the change goes on with it, whatever its password is worth by then. So a
//! consumer is proven only by a session that began after the change, and a session that no consumer
//! is declared for is somebody whom the rotation would lock out.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use wildmatch::WildMatch;

use crate::provider::{Finding, Severity};
use crate::rotation::Rotation;

/// The name under which our own sessions appear.
pub const OWN_NAME: &str = "pgrotate";

/// One session of the role.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Session {
    /// The server's process; with `since` it names the session.
    pub pid: i32,
    /// What the client calls itself; often nothing.
    pub application_name: String,
    /// Where it comes from; nothing for a socket of the server's own machine.
    pub address: Option<IpAddr>,
    /// When it began, by the server's clock.
    pub since: Timestamp,
}

impl Session {
    /// Who it is, as far as the server knows: `psql@10.0.0.7`. Sessions of one origin have one name.
    pub fn origin(&self) -> String {
        match self.address {
            Some(address) => format!("{}@{address}", self.application_name),
            None => format!("{}@socket", self.application_name),
        }
    }
}

/// Logins of programs that a check has started itself, which bear their own names.
#[derive(Clone, Copy, Debug)]
pub struct Trials {
    /// How many.
    pub logins: usize,
    /// From when to when, by the server's clock.
    pub time: (Timestamp, Timestamp),
}

/// How far the server's clock can be taken wrong, on the way of one answer.
const SLACK: SignedDuration = SignedDuration::from_millis(200);

impl Sample {
    /// Leaves out what a check has started: as many sessions as that were, of those that came from where we come from,
    /// while it ran. Who else begins a session here in that second is seen by the next look.
    #[must_use]
    pub fn without(mut self, trials: Trials) -> Self {
        let own: Vec<_> = self
            .sessions
            .iter()
            .filter(|own| own.application_name == OWN_NAME)
            .map(|own| own.address)
            .collect();
        let (from, to) = (trials.time.0 - SLACK, trials.time.1 + SLACK);
        let mut left = trials.logins;
        self.sessions.retain(|session| {
            let began_with_it = (from..=to).contains(&session.since) && own.contains(&session.address);
            let leaves = left > 0 && began_with_it && session.application_name != OWN_NAME;
            left -= usize::from(leaves);
            !leaves
        });
        self
    }
}

/// Who was seen in a time.
#[derive(Clone, Debug)]
pub struct Sample {
    /// The end of the look, by the server's clock.
    pub at: Timestamp,
    /// Every session that was seen, each once, without the one that looked.
    pub sessions: Vec<Session>,
}

/// What can be done about a session that goes on from before the change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reconnect {
    /// Its owner ends it.
    #[default]
    Wait,
    /// The server ends it (`pg_terminate_backend`).
    Terminate,
}

/// How a consumer's sessions look.
#[derive(Clone, Debug)]
pub struct Sessions {
    /// The application's name, where `*` stands for anything.
    pub application_name: WildMatch,
    /// Where they come from; empty for anywhere.
    pub addresses: Vec<IpNet>,
    /// Whether there may be none.
    pub optional: bool,
    /// What is done about those from before the change.
    pub reconnect: Reconnect,
}

impl Sessions {
    /// Whether a session is one of the consumer's.
    pub fn has(&self, session: &Session) -> bool {
        let comes_from =
            |address: IpAddr| self.addresses.iter().any(|net| net.contains(&address.to_canonical()));
        self.application_name.matches(&session.application_name)
            && (self.addresses.is_empty() || session.address.is_some_and(comes_from))
    }
}

/// Sessions of one origin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Group {
    /// [`Session::origin`].
    pub origin: String,
    /// The consumer that they are declared for.
    pub consumer: Option<String>,
    /// How many.
    pub sessions: usize,
    /// When the first of them began.
    pub since: Timestamp,
    /// When the last of them began.
    pub latest: Timestamp,
}

impl Group {
    /// Whether nobody has declared them.
    pub fn is_strange(&self) -> bool {
        self.consumer.is_none()
    }
}

/// Everybody who was seen, each origin once, in the order of their names.
pub fn groups(rotation: &Rotation, sample: &Sample) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for session in sample.sessions.iter().filter(|session| session.application_name != OWN_NAME) {
        let origin = session.origin();
        match groups.iter_mut().find(|group| group.origin == origin) {
            Some(group) => {
                group.sessions += 1;
                group.since = group.since.min(session.since);
                group.latest = group.latest.max(session.since);
            }
            None => groups.push(Group {
                consumer: declared(rotation, session).map(str::to_owned),
                origin,
                sessions: 1,
                since: session.since,
                latest: session.since,
            }),
        }
    }
    groups.sort_by(|one, other| one.origin.cmp(&other.origin));
    groups
}

/// The consumer that a session is declared for.
fn declared<'a>(rotation: &'a Rotation, session: &Session) -> Option<&'a str> {
    let own = |bound: &&crate::rotation::BoundConsumer| {
        bound.sessions.as_ref().is_some_and(|sessions| sessions.has(session))
    };
    rotation.consumers.iter().find(own).map(|bound| bound.consumer.id())
}

/// What a look at the sessions means for a run. Who is waived is named all the same.
pub fn findings(rotation: &Rotation, user: &str, sample: &Sample, waived: &[String]) -> Vec<Finding> {
    let groups = groups(rotation, sample);
    let strangers =
        groups.iter().filter(|group| group.is_strange()).map(|group| stranger(rotation, user, group, waived));
    let absent = rotation.consumers.iter().filter_map(|bound| {
        let sessions = bound.sessions.as_ref()?;
        let id = bound.consumer.id();
        let seen = groups.iter().any(|group| group.consumer.as_deref() == Some(id));
        (!seen && !sessions.optional).then(|| absent(id, sessions))
    });
    strangers.chain(absent).collect()
}

fn stranger(rotation: &Rotation, user: &str, group: &Group, waived: &[String]) -> Finding {
    let (origin, many) = (&group.origin, many(group, user));
    let what = format!("{many}, and no consumer is declared for that");
    if waived.iter().any(|waiver| waives(waiver, origin)) {
        return Finding::new(Severity::Warning, origin.as_str(), what).mend("it is let go for this run");
    }
    Finding::new(Severity::Blocks, origin.as_str(), what)
        .why("its next login would fail, and nobody would see whether it has the new password")
        .mend(format!(
            "declare it as a consumer (`pgrotate consumers {}` has the lines for it), or let it go for this run: \
             --waive '{origin}'",
            rotation.environment
        ))
}

fn many(Group { sessions, since, .. }: &Group, user: &str) -> String {
    let many = if *sessions == 1 { "a session is".to_owned() } else { format!("{sessions} sessions are") };
    format!("{many} logged in as {user} since {since:.0}")
}

/// Who is logged in as a role that should be idle: its password is about to change. Who is waived is named all the same.
pub fn in_use(rotation: &Rotation, user: &str, sample: &Sample, waived: &[String]) -> Vec<Finding> {
    let find = |group: Group| {
        let origin = &group.origin;
        let what = format!("{}, the role that should be idle", many(&group, user));
        if waived.iter().any(|waiver| waives(waiver, origin)) {
            return Finding::new(Severity::Warning, origin.as_str(), what).mend("it is let go for this run");
        }
        let mend = format!(
            "let it log in as the role that is live, which the copies name; or let it go for this run: --waive '{origin}'"
        );
        Finding::new(Severity::Blocks, origin.as_str(), what)
            .why("its next login would fail: the run gives that role another password")
            .mend(mend)
    };
    groups(rotation, sample).into_iter().map(find).collect()
}

/// Whether a person's waiver is meant for an origin: it names all of it, or the application alone.
fn waives(waiver: &str, origin: &str) -> bool {
    let application = origin.rsplit_once('@').map_or(origin, |(application, _)| application);
    let pattern = WildMatch::new(waiver);
    pattern.matches(origin) || (!application.is_empty() && pattern.matches(application))
}

fn absent(id: &str, sessions: &Sessions) -> Finding {
    let what = format!("it is declared, and no session of it was seen ({sessions})");
    Finding::new(Severity::Warning, id, what)
        .why("after the change it has to log in before the run can be done")
        .mend("correct `sessions`, or say that it need not be logged in: sessions = { …, optional = true }")
}

impl fmt::Display for Sessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "application_name {:?}", self.application_name.to_string())?;
        match &self.addresses[..] {
            [] => Ok(()),
            nets => {
                let nets: Vec<String> = nets.iter().map(ToString::to_string).collect();
                write!(f, " from {}", nets.join(", "))
            }
        }
    }
}

/// How long is looked, and waited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// How long a check looks who is there.
    pub window: Duration,
    /// How long a run waits for a consumer's new session.
    pub adoption: Duration,
}

impl Default for Times {
    fn default() -> Self {
        Self { window: Duration::from_secs(1), adoption: Duration::from_secs(60) }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::env::testing::{ManualClock, SeededEntropy};
    use crate::env::{Clock, Entropy};
    use crate::memory;

    fn session(name: &str, address: Option<&str>, second: i64) -> Session {
        Session {
            pid: 1,
            application_name: name.into(),
            address: address.map(|text| text.parse().unwrap()),
            since: Timestamp::from_second(second).unwrap(),
        }
    }

    fn sessions(name: &str, nets: &[&str]) -> Sessions {
        Sessions {
            application_name: WildMatch::new(name),
            addresses: nets.iter().map(|net| net.parse().unwrap()).collect(),
            optional: false,
            reconnect: Reconnect::Wait,
        }
    }

    fn rotation(declared: Option<Sessions>) -> Rotation {
        let clock: Arc<dyn Clock> = Arc::new(ManualClock::at_second(0));
        let entropy: Arc<dyn Entropy> = Arc::new(SeededEntropy::new(1));
        let mut rotation = memory::rotation(&memory::world("x"), &clock, &entropy);
        rotation.consumers[0].sessions = declared;
        rotation
    }

    fn sample(sessions: &[Session]) -> Sample {
        Sample { at: Timestamp::from_second(100).unwrap(), sessions: sessions.to_vec() }
    }

    #[test]
    fn what_a_check_has_started_itself_is_nobody() {
        let second = |second| Timestamp::from_second(second).unwrap();
        let trials = |logins| Trials { logins, time: (second(50), second(52)) };
        let here = Some("10.0.0.1");
        let looker = session(OWN_NAME, here, 50);
        let own = session("", here, 51);
        let left = |others: &[&Session], logins| {
            let seen: Vec<Session> = others.iter().copied().chain([&looker]).cloned().collect();
            sample(&seen).without(trials(logins)).sessions.len() - 1
        };
        assert_eq!(left(&[&own], 1), 0);
        assert_eq!(left(&[&own], 0), 1, "nothing was tried out");
        assert_eq!(left(&[&own, &own], 1), 1, "one more than that");
        for millisecond in [49_900, 52_100] {
            let since = Timestamp::from_millisecond(millisecond).unwrap();
            assert_eq!(left(&[&Session { since, ..own.clone() }], 1), 0, "the clocks are not the same");
        }
        for stranger in [session("", here, 40), session("", here, 60), session("", Some("10.0.0.2"), 51)] {
            assert_eq!(left(&[&stranger], 1), 1, "{stranger:?}");
        }
    }

    #[test]
    fn a_session_is_told_by_its_name_and_its_address() {
        let own = sessions("api*", &["10.0.0.0/8", "::1/128"]);
        assert!(own.has(&session("api", Some("10.1.2.3"), 0)));
        assert!(own.has(&session("api-2", Some("::1"), 0)));
        assert!(own.has(&session("api", Some("::ffff:10.1.2.3"), 0)), "as a dual-stack server says it");
        assert!(!own.has(&session("api", Some("192.0.2.1"), 0)));
        assert!(!own.has(&session("api", None, 0)), "a socket has no address");
        assert!(!own.has(&session("psql", Some("10.1.2.3"), 0)));
        assert!(sessions("", &[]).has(&session("", None, 0)));
        assert!(!sessions("", &[]).has(&session("psql", None, 0)), "no name is a name of its own");
    }

    #[test]
    fn strangers_are_named_once_each_and_block() {
        let rotation = rotation(Some(sessions("api", &[])));
        let seen = sample(&[
            session("psql", Some("10.0.0.7"), 50),
            session("psql", Some("10.0.0.7"), 20),
            session("api", None, 1),
            session(OWN_NAME, None, 99),
        ]);
        let found = findings(&rotation, "mindwelladmin", &seen, &[]);
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!((found[0].severity, found[0].subject.as_str()), (Severity::Blocks, "psql@10.0.0.7"));
        assert!(
            found[0].what.starts_with("2 sessions are logged in as mindwelladmin since 1970-01-01T00:00:20Z")
        );
        assert!(found[0].mend.as_ref().unwrap().contains("--waive 'psql@10.0.0.7'"));
        assert_eq!(groups(&rotation, &seen)[1].latest, Timestamp::from_second(50).unwrap());
    }

    #[test]
    fn who_is_waived_is_named_and_blocks_no_more() {
        let rotation = rotation(Some(Sessions { optional: true, ..sessions("api", &[]) }));
        let seen = sample(&[session("psql", Some("10.0.0.7"), 1), session("", Some("10.0.0.8"), 1)]);
        let blocking = |waived: &[&str]| {
            let waived: Vec<String> = waived.iter().map(|text| (*text).to_owned()).collect();
            let found = findings(&rotation, "mindwelladmin", &seen, &waived);
            assert_eq!(found.len(), 2);
            found
                .into_iter()
                .filter(|one| one.severity == Severity::Blocks)
                .map(|one| one.subject)
                .collect::<Vec<_>>()
        };
        assert_eq!(blocking(&["psql"]), ["@10.0.0.8"]);
        assert_eq!(blocking(&["psql@10.0.0.7", "@10.0.0.8"]), Vec::<String>::new());
        assert_eq!(blocking(&["*"]), Vec::<String>::new());
        assert_eq!(blocking(&[""]), ["@10.0.0.8", "psql@10.0.0.7"], "nothing is nobody's name");
        assert_eq!(blocking(&["psql@10.0.0.9"]).len(), 2);
    }

    #[test]
    fn who_is_declared_and_not_there_is_worth_a_warning() {
        let nobody = sample(&[]);
        let found =
            findings(&rotation(Some(sessions("api", &["10.0.0.0/8"]))), "mindwelladmin", &nobody, &[]);
        assert_eq!((found[0].severity, found[0].subject.as_str()), (Severity::Warning, "memory:application"));
        assert!(found[0].what.contains("application_name \"api\" from 10.0.0.0/8"), "{}", found[0].what);
        let there = rotation(Some(sessions("api", &[])));
        assert_eq!(findings(&there, "mindwelladmin", &sample(&[session("api", None, 1)]), &[]), []);
        let another = findings(&there, "mindwelladmin", &sample(&[session("psql", None, 1)]), &[]);
        assert_eq!(another.len(), 2, "who else is there is not who is missing: {another:?}");
        let optional = Sessions { optional: true, ..sessions("api", &[]) };
        assert_eq!(findings(&rotation(Some(optional)), "mindwelladmin", &nobody, &[]), []);
        assert_eq!(findings(&rotation(None), "mindwelladmin", &nobody, &[]), []);
    }
}
