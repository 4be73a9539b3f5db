//! What no two environments, and no two tables of one, may have in common.
//!
//! Two environments with the same server, vault or secret are how a rotation of `dev` reaches
//! `prod`; nearly always a name was copied and its `{env}` forgotten. Two secrets in what can only
//! be written as a whole are no better: two runs at once would undo each other. Consumers, checks and
//! records may be shared: they keep nothing.

use std::collections::BTreeMap;

use super::binding::Parts;
use super::problem::{Problem, Problems};
use super::settings::Settings;
use super::tree::Span;

/// What can't belong to two.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum What {
    Login,
    Server,
    Store,
    /// What copies are written into as a whole, and each run by its own.
    Whole,
}

/// Somebody who claims a place in the world.
struct Claim<'a> {
    environment: &'a str,
    /// What it is called in its environment.
    name: String,
    /// Exactly where; of a whole, which part.
    place: String,
    at: &'a Span,
}

/// The claims of all environments.
#[derive(Default)]
pub(super) struct Claims<'a>(BTreeMap<(What, String), Vec<Claim<'a>>>);

impl<'a> Claims<'a> {
    /// Adds those of one environment.
    pub(super) fn add(&mut self, environment: &'a str, settings: &'a Settings, parts: &'a Parts) {
        let mut part = |what, location: String, place: String, name: String, at| {
            let claim = Claim { environment, name, place, at };
            self.0.entry((what, location)).or_default().push(claim);
        };
        for copy in &parts.copies {
            let sink = &copy.value.sink;
            if !sink.guards_whole() {
                part(What::Whole, sink.whole(), sink.location(), sink.id().to_string(), &copy.at);
            }
        }
        let mut claim = |what, location: String, name, at| part(what, location.clone(), location, name, at);
        let target = &settings.target;
        let login = format!("{}@{}:{}", target.user, target.host.to_ascii_lowercase(), target.port);
        claim(What::Login, login, target.to_string(), &settings.target_at);
        let authority = &parts.authority;
        claim(What::Server, authority.value.location(), authority.value.describe(), &authority.at);
        let vault = &parts.vault;
        claim(What::Store, vault.value.location(), vault.value.id().to_string(), &vault.at);
        for copy in &parts.copies {
            let sink = &copy.value.sink;
            claim(What::Store, sink.location(), sink.id().to_string(), &copy.at);
        }
    }

    /// Notes every place that is claimed twice.
    pub(super) fn settle(&self, problems: &mut Problems) {
        let mut within: Vec<(&Span, &Span)> = Vec::new();
        for ((what, location), claims) in &self.0 {
            if *what == What::Whole {
                if let Some(problem) = whole(location, claims) {
                    problems.add(problem);
                }
                continue;
            }
            for (index, second) in claims.iter().enumerate() {
                let first = claims[..index].iter().find(|first| first.environment == second.environment);
                // The same two tables clash in every environment; once is enough.
                if let Some(first) = first.filter(|first| !within.contains(&(first.at, second.at))) {
                    within.push((first.at, second.at));
                    problems.add(twice(first, second));
                }
            }
            // A server that is reached by the login itself is no second mistake.
            let by_login = self.0.iter().any(|((other, login), both)| {
                *what == What::Server && *other == What::Login && both.len() > 1 && location.ends_with(login)
            });
            if environments(claims).len() > 1 && !by_login {
                problems.add(shared(*what, location, claims));
            }
        }
    }
}

fn twice(first: &Claim<'_>, second: &Claim<'_>) -> Problem {
    let message = match first.name == second.name {
        true => format!("`{}` is there twice", first.name),
        false => format!("`{}` and `{}` are one and the same place", first.name, second.name),
    };
    Problem::new(message)
        .at(second.at, "this one again")
        .at(first.at, "the first")
        .help("one of the two names something else than was meant, or one of them is too many")
}

fn environments<'a>(claims: &[Claim<'a>]) -> Vec<&'a str> {
    let mut environments: Vec<&str> = claims.iter().map(|claim| claim.environment).collect();
    environments.dedup();
    environments
}

/// The environments as a sentence names them.
fn who(claims: &[Claim<'_>]) -> String {
    let environments = environments(claims);
    let (last, rest) = environments.split_last().expect("a place has claims");
    if rest.is_empty() { (*last).to_owned() } else { format!("{} and {last}", rest.join(", ")) }
}

/// The tables, each once.
fn at_each<'a>(problem: Problem, claims: &[Claim<'a>], label: &str) -> Problem {
    let mut places: Vec<&Span> = Vec::new();
    for claim in claims {
        if !places.contains(&claim.at) {
            places.push(claim.at);
        }
    }
    places.iter().fold(problem, |problem, place| problem.at(place, label))
}

/// Different parts of one whole, which belong to different environments.
fn whole(location: &str, claims: &[Claim<'_>]) -> Option<Problem> {
    let environments = environments(claims);
    // A part that all of them have has been noted as such.
    let own = |part: &Claim<'_>| {
        let has = |environment: &&str| {
            claims.iter().any(|other| other.environment == *environment && other.place == part.place)
        };
        !environments.iter().all(has)
    };
    if !claims.iter().any(own) {
        return None;
    }
    let message = format!("{} have copies in what can only be written as a whole: {location}", who(claims));
    Some(
        at_each(Problem::new(message), claims, "in it")
            .help("two runs at once could undo each other's change: give each environment one of its own"),
    )
}

fn shared(what: What, location: &str, claims: &[Claim<'_>]) -> Problem {
    let who = who(claims);
    let message = match what {
        What::Login => format!("{who} log in as the same role on the same server: {location}"),
        What::Server => format!("{who} have the same server: {location}"),
        What::Store | What::Whole => format!("{who} keep the password in the same place: {location}"),
    };
    at_each(Problem::new(message), claims, "the same in each")
        .help("put {env} into one of its names, or a variable that each environment has its own value for")
}

/// Notes the names that two of the same environment have: a plan's steps are told apart by them.
pub(super) fn names(parts: &Parts, problems: &mut Problems) {
    let vault = &parts.vault;
    let mut copies = vec![Name::new(vault.value.id(), &vault.at, vault.value.location())];
    copies.extend(parts.copies.iter().map(|copy| {
        let sink = &copy.value.sink;
        Name::new(sink.id(), &copy.at, sink.location())
    }));
    unique("copies", &copies, problems);
    let named = |id: &str, at| Name::new(id, at, String::new());
    let consumers: Vec<_> =
        parts.consumers.iter().map(|own| named(own.value.consumer.id(), &own.at)).collect();
    unique("consumers", &consumers, problems);
    let checks: Vec<_> = parts.verifications.iter().map(|own| named(own.value.id(), &own.at)).collect();
    unique("checks", &checks, problems);
    let records: Vec<_> = parts.recorders.iter().map(|own| named(own.value.id(), &own.at)).collect();
    unique("records", &records, problems);
    let own = |name: &&Name<'_>| name.id == "login" || copies.iter().any(|copy| copy.id == name.id);
    for check in checks.iter().filter(own) {
        let message =
            format!("a check can't be called `{}`: one that every run makes has this name", check.id);
        problems.add(Problem::new(message).at(check.at, "").help("give it another `name`"));
    }
}

struct Name<'a> {
    id: String,
    at: &'a Span,
    /// Where it is; two names of the same place are another mistake, and noted as such.
    location: String,
}

impl<'a> Name<'a> {
    fn new(id: impl ToString, at: &'a Span, location: String) -> Self {
        Self { id: id.to_string(), at, location }
    }
}

fn unique(what: &str, names: &[Name<'_>], problems: &mut Problems) {
    for (index, second) in names.iter().enumerate() {
        let Some(first) = names[..index].iter().find(|first| first.id == second.id) else { continue };
        if first.location.is_empty() || first.location != second.location {
            let problem = Problem::new(format!("two {what} are called `{}`", second.id));
            let problem = problem.at(second.at, "this one again").at(first.at, "the first");
            problems.add(problem.help("give one of them a `name` of its own: name = \"…\""));
        }
    }
}
