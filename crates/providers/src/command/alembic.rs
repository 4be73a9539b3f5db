//! Alembic before a run: whether it can be run at all, and whether migrations are pending.
//!
//! Two questions that change nothing, whatever the configured command is: `alembic current`, which logs in, and
//! `alembic heads`, which reads the scripts and needs no password. The command itself is not run: `upgrade head`
//! would migrate.
//!
//! Of Alembic (1.20): a revision is the first word of a line on stdout; log lines go to stderr; the exit status is not
//! 0 for a login that was refused, a URL that can't be read and a revision that the scripts don't have, alike.

use std::collections::BTreeSet;
use std::time::Duration;

use pgrotate_core::Secret;
use pgrotate_core::provider::{Finding, Severity};

use super::Program;
use super::words::Said;
use crate::child::Answer;
use crate::log_scan::Redactor;

/// The options before a command that take a value of their own.
const WITH_VALUE: [&str; 6] = ["-c", "--config", "-n", "--name", "-x", "-m"];

/// The arguments of the two questions.
pub(super) struct Alembic {
    pub(super) current: Vec<String>,
    pub(super) heads: Vec<String>,
}

/// What came of them; `None` where it could not be started.
pub(super) struct Looked {
    pub(super) heads: Option<Answer>,
    pub(super) current: Option<Answer>,
    pub(super) timeout: Duration,
}

impl Alembic {
    /// If the program is Alembic: called by its name, or as a module of Python.
    pub(super) fn of(program: &Program) -> Option<Self> {
        let name = program.name.rsplit('/').next().unwrap_or_default();
        let mut options: Vec<String> = Vec::new();
        let mut words = program.arguments.iter();
        if name != "alembic" {
            let module = |word: Option<&String>, is: &str| word.is_some_and(|word| word == is);
            let python = name.starts_with("python");
            if !(python && module(words.next(), "-m") && module(words.next(), "alembic")) {
                return None;
            }
            options.extend(["-m".to_owned(), "alembic".to_owned()]);
        }
        // What stands before the command says which configuration is meant.
        while let Some(word) = words.next() {
            if !word.starts_with('-') {
                break;
            }
            options.push(word.clone());
            if WITH_VALUE.contains(&word.as_str()) {
                options.extend(words.next().cloned());
            }
        }
        let with = |command: &str| options.iter().cloned().chain([command.to_owned()]).collect();
        Some(Self { current: with("current"), heads: with("heads") })
    }
}

impl Looked {
    /// What stands in the way of the check after a run, or is worth knowing before one.
    pub(super) fn findings(&self, subject: &str, password: &Secret) -> Vec<Finding> {
        let redactor = Redactor::new([password]);
        let current = match revisions(self.current.as_ref(), &redactor) {
            Ok(current) => current,
            Err(why) => return vec![self.broken(subject, &why)],
        };
        let Ok(heads) = revisions(self.heads.as_ref(), &redactor) else {
            let what = "whether migrations are pending can't be seen: `alembic heads` fails";
            let mend = "run it by hand, where the check runs";
            return vec![Finding::new(Severity::Unseen, subject, what).mend(mend)];
        };
        pending(subject, &current, &heads).into_iter().collect()
    }

    fn broken(&self, subject: &str, why: &str) -> Finding {
        if self.current.as_ref().is_some_and(Answer::is_late) {
            let what = format!("`alembic current` was not done after {} s", self.timeout.as_secs());
            return Finding::new(Severity::Unseen, subject, what)
                .why("whether the check can succeed after a run is not known")
                .mend("run it by hand, where the check runs");
        }
        let what = format!("`alembic current` fails with the password of now: {why}");
        Finding::new(Severity::Blocks, subject, what)
            .why("the check would fail after the password has changed just the same, and the run would stop there")
            .mend("mend its environment (dependencies, alembic.ini, the variable that it reads), or take the check out")
    }
}

/// The revisions that an answer names, else why it names none.
fn revisions(answer: Option<&Answer>, redactor: &Redactor) -> Result<BTreeSet<String>, String> {
    let answer = answer.ok_or_else(|| "it can't be started".to_owned())?;
    if answer.code() == Some(0) {
        let said = String::from_utf8_lossy(&answer.stdout);
        return Ok(said.lines().filter_map(revision).map(str::to_owned).collect());
    }
    let mut words = Said::default();
    for said in [&answer.stdout, &answer.stderr] {
        String::from_utf8_lossy(said).lines().for_each(|line| words.hear(line, redactor));
    }
    let how = answer.code().map_or("it was ended".to_owned(), |code| format!("exit status {code}"));
    Err(words.last.pop().map_or(how.clone(), |last| format!("{how}, {last}")))
}

/// The revision of a line: its id, and after it only what stands in parentheses. What else a script prints to stdout
/// is none.
fn revision(line: &str) -> Option<&str> {
    let (word, rest) = line.split_once(' ').unwrap_or((line, "("));
    let letters = word.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.'));
    (letters && (1..=64).contains(&word.len()) && rest.starts_with('(')).then_some(word)
}

fn pending(subject: &str, current: &BTreeSet<String>, heads: &BTreeSet<String>) -> Option<Finding> {
    if current == heads {
        return None;
    }
    let list = |all: &BTreeSet<String>| match all.is_empty() {
        true => "none".to_owned(),
        false => all.iter().map(String::as_str).collect::<Vec<_>>().join(", "),
    };
    let what = format!(
        "migrations are pending: the database is at {}, the scripts' heads are {}",
        list(current),
        list(heads)
    );
    let why = "a rotation restarts the application, which may migrate then or expect that it has happened; the \
               rotation itself migrates nothing";
    let mend = "`alembic upgrade head` first, in a deployment of its own, if that is due";
    Some(Finding::new(Severity::Warning, subject, what).why(why).mend(mend))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(command: &[&str]) -> Option<(String, String)> {
        let words = command.iter().map(ToString::to_string).collect();
        let alembic = Alembic::of(&Program::new(words, "a check").unwrap())?;
        Some((alembic.current.join(" "), alembic.heads.join(" ")))
    }

    #[test]
    fn alembic_is_known_by_its_name_and_keeps_its_options() {
        let both = |options: &str| Some((format!("{options}current"), format!("{options}heads")));
        assert_eq!(of(&[".venv/bin/alembic", "upgrade", "head"]), both(""));
        assert_eq!(
            of(&["alembic", "-c", "db/alembic.ini", "--raiseerr", "current", "-v"]),
            both("-c db/alembic.ini --raiseerr ")
        );
        assert_eq!(
            of(&["alembic", "--config=a.ini", "-x", "env=dev", "check"]),
            both("--config=a.ini -x env=dev ")
        );
        assert_eq!(of(&["python3.12", "-m", "alembic", "-n", "two", "current"]), both("-m alembic -n two "));
        for other in [
            &["psql"][..],
            &["python3", "-m", "app"],
            &["python3", "alembic"],
            &["sh", "-c", "alembic current"],
        ] {
            assert_eq!(of(other), None, "{other:?}");
        }
    }

    #[test]
    fn migrations_are_pending_where_database_and_scripts_differ() {
        let set = |names: &[&str]| names.iter().map(ToString::to_string).collect::<BTreeSet<_>>();
        assert_eq!(pending("alembic", &set(&["b"]), &set(&["b"])), None);
        let behind = pending("alembic", &set(&[]), &set(&["b", "c"])).unwrap();
        assert_eq!(behind.severity, Severity::Warning);
        assert!(
            behind.what.ends_with("the database is at none, the scripts' heads are b, c"),
            "{}",
            behind.what
        );
        assert!(pending("alembic", &set(&["b"]), &set(&["b", "c"])).is_some(), "one of two branches");
    }

    #[test]
    fn what_is_no_revision_is_passed_over() {
        assert_eq!(revision("0002_mood_notes (head)"), Some("0002_mood_notes"));
        assert_eq!(revision("1975ea83b712"), Some("1975ea83b712"));
        assert_eq!(revision("ae1027a6acf (shop) (effective head)"), Some("ae1027a6acf"));
        for line in
            ["INFO  [alembic] Context impl", "loading settings", "", "postgresql://u@h", "Rev: 1 (head)"]
        {
            assert_eq!(revision(line), None, "{line}");
        }
    }
}
