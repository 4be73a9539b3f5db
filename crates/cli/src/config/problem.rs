//! What is wrong with a configuration, where, and what was probably meant.
//!
//! A [`Problem`] is serde's error too. Its sentences are made here and not taken from serde, so
//! they are in this program's words and never repeat a value: a credential in the wrong place
//! gives an error that can be pasted into a ticket.

use std::fmt;

use miette::{Diagnostic, LabeledSpan, NamedSource, Report};
use pgrotate_core::value::closest;
use serde::de::{Expected, Unexpected};

use super::source::{Source, names_a_credential};
use super::tree::{Span, Table, Value};

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Problem {
    fault: Fault,
    labels: Vec<(Span, String)>,
    help: Option<String>,
}

#[derive(Clone, Debug, PartialEq)]
enum Fault {
    /// Kept apart from its words, because those who know more keys add them later.
    UnknownKey {
        key: String,
        known: Vec<String>,
    },
    Said(String),
}

impl Problem {
    /// Says what is wrong.
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self { fault: Fault::Said(message.into()), labels: Vec::new(), help: None }
    }

    /// A key that nobody asked for.
    pub(super) fn unknown_key(key: &str, known: &[&str]) -> Self {
        let known = known.iter().map(|&name| name.to_owned()).collect();
        Self { fault: Fault::UnknownKey { key: key.to_owned(), known }, labels: Vec::new(), help: None }
    }

    /// A name that is none of those that there are.
    pub(super) fn no_such(what: &str, name: &str, known: &[&str]) -> Self {
        let problem = Self::new(format!("there is no {what} `{name}`"));
        let problem = match known {
            [] => problem,
            _ => problem.help(format!("there are: {}", known.join(", "))),
        };
        match closest(name, known) {
            Some(meant) => problem.label(format!("did you mean `{meant}`?")),
            None => problem,
        }
    }

    /// Points at a place and says something there.
    #[must_use]
    pub(super) fn at(mut self, place: &Span, text: impl Into<String>) -> Self {
        self.labels.push((place.clone(), text.into()));
        self
    }

    /// Points at a place unless there is a better one already. Words that were meant for the
    /// place and had none yet stand there.
    #[must_use]
    pub(super) fn or_at(mut self, place: &Span) -> Self {
        match self.labels.first_mut() {
            Some((span, _)) if *span == NOWHERE => *span = place.clone(),
            Some(_) => {}
            None => self.labels.push((place.clone(), String::new())),
        }
        self
    }

    /// Says something at the place that is still to be named.
    #[must_use]
    fn label(self, text: String) -> Self {
        self.at(&NOWHERE, text)
    }

    /// Adds what to do about it.
    #[must_use]
    pub(super) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Adds the keys of this table that were taken out before somebody looked at the rest.
    #[must_use]
    pub(super) fn beside(mut self, table: &Table, more: &[&str]) -> Self {
        let here = |place: &Span| table.entries().any(|entry| entry.at == *place);
        if let Fault::UnknownKey { known, .. } = &mut self.fault
            && self.labels.first().is_some_and(|(place, _)| here(place))
        {
            known.splice(0..0, more.iter().map(|&key| key.to_owned()));
        }
        self
    }

    /// Puts an unknown key into words.
    fn worded(mut self) -> Self {
        let Fault::UnknownKey { key, known } = &self.fault else { return self };
        let (message, label, help) = if names_a_credential(key) {
            (
                format!("`{key}`: credentials never stand in the configuration"),
                Some("take it out, and replace what stood here if others could read it".to_owned()),
                "the role's password is kept in the vault of record; the vendors' credentials come from where \
                 their own tools look (Azure CLI login, AWS profiles, GH_TOKEN or `gh`, OP_CONNECT_TOKEN) or from \
                 a `credentials_file` that only its owner can read"
                    .to_owned(),
            )
        } else {
            let known: Vec<&str> = known.iter().map(String::as_str).collect();
            (
                format!("unknown key `{key}`"),
                closest(key, &known).map(|meant| format!("did you mean `{meant}`?")),
                match known.as_slice() {
                    [] => "no key can stand here".to_owned(),
                    known => format!("there are: {}", known.join(", ")),
                },
            )
        };
        if let (Some(first), Some(label)) = (self.labels.first_mut(), label) {
            first.1 = label;
        }
        self.help.get_or_insert(help);
        self.fault = Fault::Said(message);
        self
    }
}

/// Something else is wanted than what is there.
pub(super) fn wrong(wanted: &str, found: &Value) -> Problem {
    Problem::new(format!("{wanted} is wanted here")).at(&found.at, format!("this is {}", found.described()))
}

/// The place of a label that has none yet.
const NOWHERE: Span = usize::MAX..usize::MAX;

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.fault {
            Fault::UnknownKey { key, .. } => write!(f, "unknown key `{key}`"),
            Fault::Said(message) => f.write_str(message),
        }
    }
}

impl std::error::Error for Problem {}

impl serde::de::Error for Problem {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::new(message.to_string())
    }

    fn invalid_type(found: Unexpected<'_>, wanted: &dyn Expected) -> Self {
        let found = match found {
            Unexpected::Bool(_) => "true or false",
            Unexpected::Unsigned(_) | Unexpected::Signed(_) => "a number",
            Unexpected::Float(_) => "a number with a decimal point",
            Unexpected::Str(_) | Unexpected::Char(_) => "a string",
            Unexpected::Seq => "a list",
            Unexpected::Map => "a table",
            Unexpected::Other(other) => other,
            _ => "something else",
        };
        let label = format!("this is {found}");
        Self::new(format!("{} is wanted here", wanted_words(&wanted.to_string()))).label(label)
    }

    fn invalid_value(_found: Unexpected<'_>, wanted: &dyn Expected) -> Self {
        Self::new(format!("{} is wanted here", wanted_words(&wanted.to_string())))
    }

    fn invalid_length(length: usize, wanted: &dyn Expected) -> Self {
        Self::new(format!("{} is wanted here, not {length} values", wanted_words(&wanted.to_string())))
    }

    fn unknown_variant(found: &str, known: &'static [&'static str]) -> Self {
        let problem = Self::no_such("choice", found, known);
        Self { fault: Fault::Said(format!("`{found}` can't be chosen here")), ..problem }
    }

    fn unknown_field(found: &str, known: &'static [&'static str]) -> Self {
        Self::unknown_key(found, known)
    }

    fn missing_field(key: &'static str) -> Self {
        Self::new(format!("`{key}` is missing")).label("in this table".to_owned())
    }
}

/// What serde wants, in the words of somebody who writes a configuration.
fn wanted_words(wanted: &str) -> String {
    match wanted {
        "u8" => "a whole number from 0 to 255",
        "u16" => "a whole number from 0 to 65535",
        "u32" | "u64" | "usize" => "a whole number from 0 upwards",
        "i8" | "i16" | "i32" | "i64" => "a whole number",
        "f32" | "f64" => "a number",
        "a boolean" => "true or false",
        "a sequence" => "a list",
        "a map" => "a table",
        "path string" | "a borrowed string" => "a string",
        table if table.starts_with("struct ") => "a table",
        choice if choice.starts_with("enum ") => "one of a few words",
        other => other,
    }
    .to_owned()
}

/// All that is wrong, each thing once.
#[derive(Default)]
pub(super) struct Problems {
    found: Vec<Found>,
    /// The environments that were looked at; the last one is looked at now.
    environments: Vec<String>,
    inside: bool,
}

/// A problem with the environments in which it is.
struct Found {
    problem: Problem,
    within: Vec<String>,
    /// The environments in which there is one in the same place, in slightly other words.
    alike: Vec<String>,
}

impl Problems {
    /// From now on, what is found is found in this environment.
    pub(super) fn within(&mut self, environment: &str) {
        self.environments.retain(|known| known != environment);
        self.environments.push(environment.to_owned());
        self.inside = true;
    }

    /// From now on, what is found belongs to no environment.
    pub(super) fn outside(&mut self) {
        self.inside = false;
    }

    /// Notes one.
    pub(super) fn add(&mut self, problem: Problem) {
        let environment = self.environments.last().filter(|_| self.inside);
        let Some(environment) = environment else {
            self.found.push(Found { problem, within: Vec::new(), alike: Vec::new() });
            return;
        };
        if let Some(same) = self.found.iter_mut().find(|found| found.problem == problem) {
            if !same.within.contains(environment) {
                same.within.push(environment.clone());
            }
            return;
        }
        // The words may have the environment's names in them.
        let place = problem.labels.first().map(|(place, _)| place);
        let alike = self.found.iter_mut().find(|found| {
            let elsewhere = !found.within.is_empty() && !found.within.contains(environment);
            elsewhere && place.is_some() && found.problem.labels.first().map(|(place, _)| place) == place
        });
        match alike {
            Some(found) if found.alike.contains(environment) => {}
            Some(found) => found.alike.push(environment.clone()),
            None => {
                self.found.push(Found { problem, within: vec![environment.clone()], alike: Vec::new() });
            }
        }
    }

    /// Gives the value, or notes what stands in its way.
    pub(super) fn keep<T>(&mut self, result: Result<T, Problem>) -> Option<T> {
        result.map_err(|problem| self.add(problem)).ok()
    }

    /// Reports all of them, in the order of the file.
    ///
    /// # Errors
    /// When there is any.
    pub(super) fn report(self, source: &Source) -> Result<(), Report> {
        let mut found = self.found;
        found.sort_by_key(|found| found.problem.labels.first().map_or(usize::MAX, |(place, _)| place.start));
        let all = self.environments.len();
        let mut mistakes: Vec<Mistake> =
            found.into_iter().map(|found| Mistake::new(found, all, source)).collect();
        match mistakes.len() {
            0 => Ok(()),
            1 => Err(mistakes.remove(0).into()),
            count => {
                let message = format!("{count} mistakes in {}", source.path.display());
                Err(Mistakes { message, mistakes }.into())
            }
        }
    }
}

/// How far apart two places can be and still be shown in one piece of the file.
const LINES: usize = 4;

/// A problem as miette shows it.
#[derive(Debug)]
struct Mistake {
    message: String,
    labels: Vec<LabeledSpan>,
    help: Option<String>,
    source: NamedSource<std::sync::Arc<str>>,
}

impl Mistake {
    fn new(found: Found, environments: usize, source: &Source) -> Self {
        let problem = found.problem.worded();
        let mut message = problem.to_string();
        match (found.within.as_slice(), found.alike.as_slice()) {
            (within, []) if within.is_empty() || within.len() == environments => {}
            (within, []) => message.push_str(&format!(" (in {})", within.join(", "))),
            (within, alike) => {
                message.push_str(&format!(" (in {}; the like in {})", within.join(", "), alike.join(", ")));
            }
        }
        if problem.labels.iter().all(|(place, _)| *place == NOWHERE) {
            message.push_str(&format!(", in {}", source.path.display()));
        }
        let main = problem.labels.first().map_or(0, |(place, _)| source.line(place.start));
        let (mut labels, mut help) = (Vec::new(), Vec::new());
        for (place, text) in problem.labels {
            if place == NOWHERE {
                help.push(text);
            } else if source.line(place.start).abs_diff(main) > LINES {
                help.push(format!("{text} is in line {}", source.line(place.start)));
            } else {
                labels.push(LabeledSpan::new_with_span(Some(text).filter(|text| !text.is_empty()), place));
            }
        }
        help.extend(problem.help);
        let help = Some(help.join("\n")).filter(|help| !help.is_empty());
        Self { message, labels, help, source: source.shown() }
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Mistake {}

impl Diagnostic for Mistake {
    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.help.as_ref().map(|help| Box::new(help) as Box<dyn fmt::Display>)
    }

    fn source_code(&self) -> Option<&dyn miette::SourceCode> {
        Some(&self.source)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        (!self.labels.is_empty()).then(|| Box::new(self.labels.iter().cloned()) as Box<_>)
    }
}

/// Several problems, as miette shows them.
#[derive(Debug, Diagnostic)]
struct Mistakes {
    message: String,
    #[related]
    mistakes: Vec<Mistake>,
}

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Mistakes {}
