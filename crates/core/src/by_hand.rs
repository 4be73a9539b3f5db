//! A rotation by hand: what a person does where no run can, as text and as shell commands.
//!
//! Each provider says how its own part is done ([`Instruction`]); whoever prints them puts them in the runbook's order
//! ([`Part`]). Nothing here asks the outside, and no password is known: it is a variable of the shell.
//!
//! Commands are bash, carried out with `set -euo pipefail`. They may use, and must not export:
//!
//! | name | is |
//! | --- | --- |
//! | `$old_password`, `$new_password` | what the person has typed |
//! | `$database_url` | the configured URL with the new password, percent-encoded |
//! | `$environment`, `$operator`, `$ticket` | as of a run; the last may be empty |
//! | `with_new_password BEFORE AFTER` | takes a copy's present value on stdin and gives the new one: of a URL only the password differs |
//! | `secret_ids` | what the instructions' [references](Instruction::reference) print, one a line |
//! | `message` | the news in one sentence |
//! | `mask` | stdin without the passwords in it |
//! | `troubles` | takes a log on stdin and shows the lines about refused logins, masked |
//! | `stop TEXT` | ends everything with this error |
//!
//! A password is given to a program on its stdin, or in that one program's environment; never among its arguments,
//! which every user of the machine can read.

use serde::Serialize;

/// A language that instructions are written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Language {
    /// English.
    English,
    /// Russian, in the words of the original runbook.
    Russian,
}

/// The same text in each language.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Words {
    english: String,
    russian: String,
}

impl Words {
    /// A text and its translation.
    pub fn new(english: impl Into<String>, russian: impl Into<String>) -> Self {
        Self { english: english.into(), russian: russian.into() }
    }

    /// A name, which is the same everywhere.
    pub fn same(text: impl Into<String>) -> Self {
        let text = text.into();
        Self { english: text.clone(), russian: text }
    }

    /// The text in this language.
    pub fn of(&self, language: Language) -> &str {
        match language {
            Language::English => &self.english,
            Language::Russian => &self.russian,
        }
    }
}

/// The steps of the runbook, in its order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// Before you start: the vault of record.
    Before,
    /// 1: the server.
    Server,
    /// 2: the store that applications may refer to.
    KeyVault,
    /// 3: the applications and their settings.
    Applications,
    /// 4: CI and its agents.
    Ci,
    /// 5: the other cloud.
    Aws,
    /// 6: proofs.
    Validation,
    /// 7: what people read afterwards.
    Records,
}

impl Part {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Before,
        Self::Server,
        Self::KeyVault,
        Self::Applications,
        Self::Ci,
        Self::Aws,
        Self::Validation,
        Self::Records,
    ];

    /// The runbook's number for it.
    pub fn number(self) -> usize {
        Self::ALL.iter().position(|own| *own == self).expect("every part is among all of them")
    }
}

/// One thing to do by hand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// The step that it belongs to.
    pub part: Part,
    /// What is done.
    pub title: Words,
    /// What to know about it, a paragraph each.
    pub prose: Vec<Words>,
    /// The commands, as the module says; empty where there are none.
    pub commands: String,
    /// The programs that the commands need.
    pub tools: Vec<&'static str>,
    /// A command that prints what a ticket should name of it: a Key Vault Secret Id.
    pub reference: Option<String>,
}

impl Instruction {
    /// Something to do, so far without commands.
    pub fn new(part: Part, english: impl Into<String>, russian: impl Into<String>) -> Self {
        let title = Words::new(english, russian);
        Self { part, title, prose: Vec::new(), commands: String::new(), tools: Vec::new(), reference: None }
    }

    /// What a provider without instructions of its own leaves to the person.
    pub fn elsewhere(part: Part, name: &str) -> Self {
        Self::new(part, name, name).say(
            "There are no commands for it: do it in its own system.",
            "Команд для этого нет: сделайте это в самой системе.",
        )
    }

    /// Adds a paragraph.
    #[must_use]
    pub fn say(mut self, english: impl Into<String>, russian: impl Into<String>) -> Self {
        self.prose.push(Words::new(english, russian));
        self
    }

    /// Adds lines to the commands.
    #[must_use]
    pub fn run(mut self, commands: impl AsRef<str>) -> Self {
        if !self.commands.is_empty() {
            self.commands.push('\n');
        }
        self.commands.push_str(commands.as_ref().trim_end());
        self
    }

    /// Names the programs that the commands need.
    #[must_use]
    pub fn needs(mut self, tools: &[&'static str]) -> Self {
        self.tools.extend_from_slice(tools);
        self
    }

    /// Names the command that prints what a ticket should name.
    #[must_use]
    pub fn refer(mut self, command: impl Into<String>) -> Self {
        self.reference = Some(command.into());
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_have_the_runbooks_numbers() {
        assert_eq!(Part::Before.number(), 0);
        assert_eq!(Part::Records.number(), 7);
        assert!(Part::ALL.is_sorted());
    }

    #[test]
    fn an_instruction_is_read_in_its_language() {
        let own = Instruction::new(Part::Server, "Set it", "Задайте его").run("one").run("two\n");
        assert_eq!(
            (own.title.of(Language::English), own.title.of(Language::Russian)),
            ("Set it", "Задайте его")
        );
        assert_eq!(own.commands, "one\ntwo");
        let left = Instruction::elsewhere(Part::Ci, "store:x");
        assert_eq!((left.title.of(Language::Russian), left.prose.len()), ("store:x", 1));
    }
}
