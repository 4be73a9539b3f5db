//! Fills the names of one environment into the tree.
//!
//! `{env}`, `{ENV}` and the environment's own variables can stand in every string. What a copy
//! holds is only known during a run, so `{password}` and `{database_url}` stay where a value is
//! described, and the parts of the URL in the URL's template.

use std::borrow::Cow;
use std::collections::BTreeMap;

use pgrotate_core::value::{Template, TemplateError, UrlTemplate, expand};

use super::problem::{Problem, Problems};
use super::tree::{Entry, Node, Span, Table, Value};

/// The variables that a later template fills in.
type Later = &'static [&'static str];

/// Where mistakes go.
type Report<'a> = dyn FnMut(Problem) + 'a;

/// Fills in the names of one environment.
pub(super) struct Names<'a> {
    /// The file, to find the place within a string.
    pub(super) text: &'a str,
    /// The environment's variables.
    pub(super) variables: &'a BTreeMap<String, String>,
}

impl Names<'_> {
    /// Fills the whole file. Nothing, if that does not work everywhere: what comes of a name
    /// that is only half filled in would be a second mistake for one.
    pub(super) fn fill(&self, file: &Table, problems: &mut Problems) -> Option<Table> {
        let mut failed = false;
        let mut problems = |problem| {
            failed = true;
            problems.add(problem);
        };
        let filled = file.map(|entry| self.entry(entry, &mut problems));
        (!failed).then_some(filled)
    }

    fn entry(&self, entry: &Entry, problems: &mut Report<'_>) -> Value {
        match entry.key.as_str() {
            "database" => self.table(&entry.value, problems, |key, _| match key {
                "url" => UrlTemplate::VARIABLES,
                _ => &[],
            }),
            "sinks" => self.tables(&entry.value, problems, |key, _| match key {
                "value" => Template::VARIABLES,
                _ => &[],
            }),
            "checks" => self.tables(&entry.value, problems, |key, table| match (key, table.get("kind")) {
                ("environment", Some(Value { node: Node::Text(kind), .. })) if kind == "command" => {
                    Template::VARIABLES
                }
                _ => &[],
            }),
            _ => self.value(&entry.value, &[], problems),
        }
    }

    fn tables(
        &self,
        list: &Value,
        problems: &mut Report<'_>,
        later: impl Fn(&str, &Table) -> Later,
    ) -> Value {
        match &list.node {
            Node::List(items) => {
                let items = items.iter().map(|item| self.table(item, problems, &later)).collect();
                Value { node: Node::List(items), at: list.at.clone() }
            }
            _ => self.table(list, problems, later),
        }
    }

    fn table(
        &self,
        value: &Value,
        problems: &mut Report<'_>,
        later: impl Fn(&str, &Table) -> Later,
    ) -> Value {
        match &value.node {
            Node::Table(table) => {
                let filled = table.map(|entry| self.value(&entry.value, later(&entry.key, table), problems));
                Value { node: Node::Table(filled), at: value.at.clone() }
            }
            _ => self.value(value, &[], problems),
        }
    }

    fn value(&self, value: &Value, later: Later, problems: &mut Report<'_>) -> Value {
        let node = match &value.node {
            Node::Text(text) => match expand(text, &self.without(later), later) {
                Ok(filled) => Node::Text(filled),
                Err(error) => {
                    problems(self.problem(text, &value.at, error));
                    value.node.clone()
                }
            },
            Node::List(items) => {
                Node::List(items.iter().map(|item| self.value(item, later, problems)).collect())
            }
            Node::Table(table) => Node::Table(table.map(|entry| self.value(&entry.value, later, problems))),
            other => other.clone(),
        };
        Value { node, at: value.at.clone() }
    }

    /// The variables, without those that mean something else here: `{host}` in the URL's
    /// template is the host of the URL.
    fn without(&self, later: Later) -> Cow<'_, BTreeMap<String, String>> {
        if later.iter().all(|name| !self.variables.contains_key(*name)) {
            return Cow::Borrowed(self.variables);
        }
        let kept = self.variables.iter().filter(|(name, _)| !later.contains(&name.as_str()));
        Cow::Owned(kept.map(|(name, value)| (name.clone(), value.clone())).collect())
    }

    fn problem(&self, text: &str, at: &Span, error: TemplateError) -> Problem {
        let known = Template::VARIABLES.iter().any(|name| text[error.at.clone()] == format!("{{{name}}}"));
        let meant = error.suggestion.map(|meant| format!("did you mean {{{meant}}}?"));
        let place = within(self.text, at, text, &error.at);
        let problem = Problem::new(error.message).at(&place, meant.unwrap_or_default());
        match known {
            true => problem.help(
                "it stands only in a sink's `value` and in the `environment` of a check of kind `command`",
            ),
            false => problem,
        }
    }
}

/// The place of a part of a string. Where the string is written with escapes or over several
/// lines, the whole of it.
fn within(file: &str, at: &Span, text: &str, part: &Span) -> Span {
    let literal = &file[at.clone()];
    let plain = literal.len() == text.len() + 2 && literal[1..].starts_with(text);
    if plain { at.start + 1 + part.start..at.start + 1 + part.end } else { at.clone() }
}
