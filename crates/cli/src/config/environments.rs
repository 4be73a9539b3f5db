//! `[environments]`: their names, in the order of the file, and each one's own variables.

use std::collections::BTreeMap;

use pgrotate_core::Environment;
use pgrotate_core::value::{Template, closest, expand};

use super::de;
use super::problem::{Problem, Problems, wrong};
use super::source::names_a_credential;
use super::tree::{Entry, Node, Span, Table};

/// One environment as the file names it.
pub(super) struct Named {
    pub(super) environment: Environment,
    /// Where its name stands.
    pub(super) at: Span,
    /// What templates can say: `env`, `ENV` and its own.
    pub(super) variables: BTreeMap<String, String>,
    /// Where its own variables stand.
    places: BTreeMap<String, Span>,
}

impl Named {
    /// Whether it has all the variables that the others have, so that a template that can't be
    /// filled in is the template's fault.
    pub(super) fn complete(&self, all: &[Self]) -> bool {
        all.iter().flat_map(|other| other.places.keys()).all(|name| self.places.contains_key(name))
    }
}

/// Reads the table.
pub(super) fn read(file: &mut Table, problems: &mut Problems) -> Vec<Named> {
    const EXAMPLE: &str = "one line for each environment, with its own variables: [environments] dev = {}";
    let Some(value) = file.take("environments") else {
        problems.add(Problem::new("the table [environments] is missing").help(EXAMPLE));
        return Vec::new();
    };
    let Node::Table(table) = &value.node else {
        problems.add(wrong("a table", &value).help(EXAMPLE));
        return Vec::new();
    };
    let all: Vec<Named> = table.entries().filter_map(|entry| environment(entry, problems)).collect();
    if table.entries().next().is_none() {
        problems.add(Problem::new("there is no environment").at(&value.at, "").help(EXAMPLE));
    }
    compare(&all, problems);
    all
}

fn environment(entry: &Entry, problems: &mut Problems) -> Option<Named> {
    let name = entry.key.as_str();
    let part = |letter: char| letter.is_ascii_alphanumeric() || letter == '-' || letter == '_';
    if !name.starts_with(|first: char| first.is_ascii_alphanumeric()) || !name.chars().all(part) {
        let help =
            "letters, digits, `-` and `_`, with a letter or digit first: it becomes part of names elsewhere";
        problems.add(Problem::new("this can't be the name of an environment").at(&entry.at, "").help(help));
        return None;
    }
    let Node::Table(own) = &entry.value.node else {
        problems.add(
            wrong("a table", &entry.value).help(format!("{name} = {{}}, or with variables in the braces")),
        );
        return None;
    };
    let given = [("env".to_owned(), name.to_owned()), ("ENV".to_owned(), name.to_ascii_uppercase())];
    let given = BTreeMap::from(given);
    let mut named = Named {
        environment: Environment::from(name),
        at: entry.at.clone(),
        variables: given.clone(),
        places: BTreeMap::new(),
    };
    for variable in own.entries() {
        if let Some(value) = problems.keep(self::variable(variable, &given)) {
            named.variables.insert(variable.key.clone(), value);
            named.places.insert(variable.key.clone(), variable.at.clone());
        }
    }
    Some(named)
}

/// A variable's value; it may itself use `{env}` and `{ENV}`.
fn variable(entry: &Entry, given: &BTreeMap<String, String>) -> Result<String, Problem> {
    let name = entry.key.as_str();
    if names_a_credential(name) {
        return Err(Problem::unknown_key(name, &[]).at(&entry.at, ""));
    }
    if given.contains_key(name) || Template::VARIABLES.contains(&name) {
        return Err(Problem::new(format!("{{{name}}} means something else already")).at(&entry.at, ""));
    }
    let at = &entry.value.at;
    match &entry.value.node {
        Node::Text(text) => expand(text, given, &[]).map_err(|error| Problem::new(error.message).at(at, "")),
        Node::Integer(number) => Ok(number.to_string()),
        Node::Boolean(yes) => Ok(yes.to_string()),
        _ => de::read(&entry.value),
    }
}

/// A variable that some environment lacks is almost always a slip in one of them.
fn compare(all: &[Named], problems: &mut Problems) {
    let owners = |name: &str| all.iter().filter(|own| own.places.contains_key(name)).count();
    let mut names: Vec<&String> = all.iter().flat_map(|own| own.places.keys()).collect();
    // Those that most have come first: against them the slip shows.
    names.sort_by_key(|name| std::cmp::Reverse(owners(name)));
    let mut seen: Vec<&str> = Vec::new();
    for name in names {
        if seen.contains(&name.as_str()) {
            continue;
        }
        seen.push(name);
        let owner = all.iter().find(|own| own.places.contains_key(name));
        for lacking in all.iter().filter(|own| !own.places.contains_key(name)) {
            let others: Vec<&str> =
                lacking.places.keys().map(String::as_str).filter(|other| owners(other) < all.len()).collect();
            let owner = owner.map_or("another", |own| own.environment.as_str());
            let message = format!("{} has no variable `{name}`, which {owner} has", lacking.environment);
            let problem = match closest(name, &others) {
                Some(slip) => {
                    let place = &lacking.places[&slip];
                    let problem = Problem::new(message).at(place, format!("did you mean `{name}`?"));
                    seen.extend(others.into_iter().find(|other| *other == slip));
                    problem
                }
                None => Problem::new(message).at(&lacking.at, "every environment needs it"),
            };
            problems.add(problem);
        }
    }
}
