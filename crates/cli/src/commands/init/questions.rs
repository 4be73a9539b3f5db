//! What `init` asks for. A flag is an answer; Enter takes what is proposed.

use clap::ValueEnum;
use dialoguer::{Input, MultiSelect, Select};
use pgrotate_core::{Error, Kind};

use super::{Answers, Args, answers, folder};

/// Asks for everything that no flag says.
///
/// # Errors
/// When the terminal goes away.
pub(super) fn ask(args: Args) -> Result<Answers, Error> {
    let project = text("project", args.project.clone(), folder(), filled)?;
    let environments = match args.environments.as_slice() {
        [] => names(&text("environments, in order", None, "dev,staging,prod".to_owned(), filled)?),
        given => given.to_vec(),
    };
    let several = environments.len() > 1;
    let args = Args { project: Some(project), environments, ..args };
    let proposed = answers(args.clone());
    let own_host = move |host: &str| match several && !host.contains('{') {
        true => Err("each environment has a server of its own: put {env} into the name"),
        false => filled(host),
    };
    Ok(Answers {
        host: text("host of the PostgreSQL server", args.host, proposed.host, own_host)?,
        database: text("database", args.database, proposed.database, filled)?,
        user: text("role whose password is rotated", args.user, proposed.user, filled)?,
        authority: one("what changes the password on the server", args.authority)?,
        vault: one("vault of record", args.vault)?,
        sinks: match args.sinks.is_empty() {
            true => some("where copies are kept")?,
            false => args.sinks,
        },
        project: proposed.project,
        environments: proposed.environments,
    })
}

/// The names in a list with commas.
fn names(list: &str) -> Vec<String> {
    list.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

fn filled(text: &str) -> Result<(), &'static str> {
    if text.trim().is_empty() { Err("it can't be empty") } else { Ok(()) }
}

fn text(
    question: &str,
    given: Option<String>,
    proposed: String,
    check: impl Fn(&str) -> Result<(), &'static str>,
) -> Result<String, Error> {
    if let Some(given) = given {
        return Ok(given);
    }
    let input = Input::new().with_prompt(question).default(proposed);
    input.validate_with(move |text: &String| check(text)).interact_text().map_err(gone)
}

/// The kinds with their explanations.
fn kinds<K: ValueEnum>() -> Vec<String> {
    let described = |kind: &K| {
        let value = kind.to_possible_value()?;
        let help = value.get_help().map(ToString::to_string).unwrap_or_default();
        Some(format!("{} ({help})", value.get_name()))
    };
    K::value_variants().iter().filter_map(described).collect()
}

fn one<K: ValueEnum>(question: &str, given: Option<K>) -> Result<K, Error> {
    if let Some(given) = given {
        return Ok(given);
    }
    let chosen =
        Select::new().with_prompt(question).items(kinds::<K>()).default(0).interact().map_err(gone)?;
    Ok(K::value_variants()[chosen].clone())
}

fn some<K: ValueEnum>(question: &str) -> Result<Vec<K>, Error> {
    let question = format!("{question} (space chooses, Enter ends)");
    let chosen = MultiSelect::new().with_prompt(question).items(kinds::<K>()).interact().map_err(gone)?;
    Ok(chosen.into_iter().map(|index| K::value_variants()[index].clone()).collect())
}

fn gone(_: dialoguer::Error) -> Error {
    Error::new(Kind::Config, "ask")
        .because("the terminal gave no answer")
        .hint("say everything with flags, and `--yes`; `pgrotate init --help` lists them")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::init::SinkKind;

    #[test]
    fn a_list_of_names_may_have_spaces() {
        assert_eq!(names("dev, staging ,,prod "), ["dev", "staging", "prod"]);
    }

    #[test]
    fn kinds_are_explained() {
        assert_eq!(kinds::<SinkKind>()[0], "azure_key_vault (Secrets in an Azure Key Vault)");
    }
}
