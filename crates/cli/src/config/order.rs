//! `proven_first`: an environment that is rotated only after another one has been, not long ago.

use std::collections::BTreeMap;
use std::time::Duration;

use pgrotate_core::Environment;

use super::de;
use super::environments::Named;
use super::problem::Problem;
use super::settings::{Placed, placed, time};
use super::tree::{Node, Table, Value};

/// How long ago at most, unless the file says otherwise.
const WITHIN: Duration = Duration::from_secs(7 * 24 * 3600);

/// Which environment has to be rotated before which.
pub(super) struct Order {
    first: BTreeMap<String, String>,
    within: Duration,
}

impl Default for Order {
    fn default() -> Self {
        Self { first: BTreeMap::new(), within: WITHIN }
    }
}

impl Order {
    /// What comes before an environment.
    pub(super) fn first(&self, environment: &Environment) -> Option<(Environment, Duration)> {
        self.first.get(environment.as_str()).map(|first| (Environment::from(first.as_str()), self.within))
    }
}

/// `proven_first = { prod = "staging" }` and `proven_within = "7d"`. Without them it is prod after staging, where both exist.
pub(super) fn read(file: &mut Table, environments: &[Named]) -> Result<Order, Problem> {
    let known: Vec<&str> = environments.iter().map(|own| own.environment.as_str()).collect();
    let within = match file.take("proven_within") {
        Some(value) => time(&de::read::<String>(&value)?).map_err(|problem| problem.at(&value.at, ""))?,
        None => WITHIN,
    };
    let first = match file.take("proven_first") {
        Some(value) => pairs(&value, &known)?,
        None if known.contains(&"staging") && known.contains(&"prod") => {
            BTreeMap::from([("prod".to_owned(), "staging".to_owned())])
        }
        None => BTreeMap::new(),
    };
    Ok(Order { first, within })
}

fn pairs(value: &Value, known: &[&str]) -> Result<BTreeMap<String, String>, Problem> {
    let Node::Table(table) = &value.node else { return Err(super::problem::wrong("a table", value)) };
    let mut pairs = BTreeMap::new();
    for entry in table.entries() {
        let first: Placed<String> = placed(&entry.value)?;
        for (name, at) in [(entry.key.as_str(), &entry.at), (first.value.as_str(), &first.at)] {
            if !known.contains(&name) {
                return Err(Problem::no_such("environment", name, known).or_at(at));
            }
        }
        if waits_for_itself(&pairs, &entry.key, &first.value) {
            let why = format!("{} would wait for itself", entry.key);
            return Err(Problem::new(why).at(&first.at, ""));
        }
        pairs.insert(entry.key.clone(), first.value);
    }
    Ok(pairs)
}

fn waits_for_itself(pairs: &BTreeMap<String, String>, own: &str, first: &str) -> bool {
    let mut next = Some(first);
    while let Some(name) = next {
        if name == own {
            return true;
        }
        next = pairs.get(name).map(String::as_str);
    }
    false
}
