//! The verification: a program that gets the new password in its environment.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pgrotate_core::by_hand::Instruction;
use pgrotate_core::journal::Outcome;
use pgrotate_core::provider::{Evidence, Finding, Present, Severity, Trial, Verification};
use pgrotate_core::value::{self, Template};
use pgrotate_core::{Error, Kind, Result};
use serde::Deserialize;
use tokio::process::Command;

use super::alembic::{Alembic, Looked};
use super::words::{Said, listen};
use super::{KIND, Program, default_timeout};
use crate::child::{self, Ended, Group};
use crate::log_scan::{Redactor, Trouble};
use crate::shared::Shared;

/// How long a trial before a run may take.
const TRIAL: Duration = Duration::from_secs(20);
/// The most that is taken of a trial's words.
const MOST: usize = 1 << 20;

/// What can be set.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// Where it runs; relative to the configuration file.
    pub directory: String,
    /// The program and its arguments. A program with a `/` is relative to the directory.
    pub command: Vec<String>,
    /// The variables that it gets; `{database_url}` and `{password}` are filled in.
    #[serde(default)]
    pub environment: BTreeMap<String, String>,
    /// Seconds that it may take.
    #[serde(default = "default_timeout")]
    pub timeout_s: u64,
}

/// A program to be run.
pub struct CommandCheck {
    pub(super) id: String,
    pub(super) directory: PathBuf,
    pub(super) program: Program,
    pub(super) environment: Vec<(String, Value)>,
    timeout: Duration,
    /// How it can be tried out before a run, if it is Alembic.
    alembic: Option<Alembic>,
}

/// The value of a variable.
pub(super) enum Value {
    Plain(String),
    Secret(Template),
}

impl CommandCheck {
    /// Reads the templates; runs nothing yet.
    ///
    /// # Errors
    /// When there is no program, an argument would hold a secret, or a variable can't be read.
    pub fn new(name: Option<String>, options: Options, shared: Arc<Shared>) -> Result<Self> {
        let Options { directory, command, environment, timeout_s } = options;
        let id = name.unwrap_or_else(|| KIND.to_owned());
        let whose = format!("the check {id}");
        let program = Program::new(command, &whose)?;
        let refuse = |why: String| Error::new(Kind::Config, format!("use {whose}")).because(why);
        let environment = environment
            .into_iter()
            .map(|(name, text)| match value_of(&name, &text) {
                Ok(value) => Ok((name, value)),
                Err(why) => Err(refuse(format!("the variable {name}: {why}"))),
            })
            .collect::<Result<_>>()?;
        let (directory, timeout) = (shared.path(&directory), Duration::from_secs(timeout_s));
        let alembic = Alembic::of(&program);
        Ok(Self { id, directory, program, environment, timeout, alembic })
    }

    fn operation(&self) -> String {
        format!("run {} in {}", self.program.name, self.directory.display())
    }

    /// The child, with nothing of ours in it but what it was given: without a password, none of what has one in it.
    fn command(&self, program: &Path, arguments: &[String], present: Option<&Present<'_>>) -> Command {
        let mut command = child::command(program);
        command.args(arguments).current_dir(&self.directory);
        for (name, value) in &self.environment {
            match (value, present) {
                (Value::Plain(text), _) => command.env(name, text),
                (Value::Secret(template), Some(present)) => {
                    command.env(name, template.fill(present.password, present.url).expose())
                }
                (Value::Secret(_), None) => &mut command,
            };
        }
        command
    }

    /// Where Alembic is in the database and in its scripts.
    async fn ask_alembic(&self, alembic: &Alembic, present: &Present<'_>) -> Option<Looked> {
        let program = self.program.find(&self.directory).filter(|_| self.directory.is_dir())?;
        let timeout = self.timeout.min(TRIAL);
        let mut heads = self.command(&program, &alembic.heads, None);
        let mut current = self.command(&program, &alembic.current, Some(present));
        let (heads, current) = futures::join!(
            child::ask(&mut heads, b"", MOST, timeout),
            child::ask(&mut current, b"", MOST, timeout),
        );
        Some(Looked { heads: heads.ok(), current: current.ok(), timeout })
    }

    /// What the run came to, in words.
    fn judge(&self, ended: Ended, said: Said) -> Result<Outcome> {
        let (kind, cause) = match (ended, said.trouble) {
            (_, Some(Trouble::Login)) => {
                (Kind::Refused, "it reports a login that the server refused".to_owned())
            }
            (_, Some(Trouble::Url)) => {
                (Kind::Rejected, "it reports a database URL that it can't use".to_owned())
            }
            (Ended::Status(status), None) if status.success() => return Ok(Outcome::confirmed()),
            (Ended::Status(status), None) => (Kind::BadState, format!("it ended with {status}")),
            (Ended::Late, None) => {
                (Kind::TimedOut, format!("it took longer than {} s", self.timeout.as_secs()))
            }
        };
        let error = Error::new(kind, self.operation()).because(cause);
        Err(said.last.into_iter().fold(error, |error, line| error.because(format!("it said: {line}"))))
    }
}

#[async_trait]
impl Verification for CommandCheck {
    fn id(&self) -> &str {
        &self.id
    }

    async fn check(&self) -> Result<Vec<Finding>> {
        let find = |what: String, mend: &str| vec![Finding::new(Severity::Blocks, &self.id, what).mend(mend)];
        if !self.directory.is_dir() {
            let what = format!("there is no folder {}", self.directory.display());
            return Ok(find(what, "correct `directory`; it counts from the configuration file"));
        }
        if self.program.find(&self.directory).is_none() {
            let what =
                format!("there is no program {} to run in {}", self.program.name, self.directory.display());
            return Ok(find(
                what,
                "install it (a virtual environment has to be made first), or correct `command`",
            ));
        }
        if self.alembic.is_none() {
            let what = "what it does is not known, so it is not run before the passwords have changed";
            return Ok(vec![Finding::new(Severity::Unseen, &self.id, what)]);
        }
        Ok(Vec::new())
    }

    async fn try_out(&self, present: &Present<'_>) -> Result<Trial> {
        let Some(alembic) = &self.alembic else { return Ok(Trial::default()) };
        // What is missing stands among the findings already.
        let Some(looked) = self.ask_alembic(alembic, present).await else { return Ok(Trial::default()) };
        Ok(Trial { findings: looked.findings(&self.id, present.password), logins: 1 })
    }

    async fn verify(&self, evidence: &Evidence<'_>) -> Result<Outcome> {
        let program = self.program.find(&self.directory).ok_or_else(|| {
            Error::new(Kind::NotFound, self.operation())
                .because("there is no such program, or it can't be executed")
        })?;
        let present = Present { password: evidence.password, url: evidence.url };
        let mut command = self.command(&program, &self.program.arguments, Some(&present));
        let mut child = command.spawn().map_err(|error| {
            Error::new(Kind::BadState, self.operation()).because(error.kind().to_string())
        })?;
        let group = Group::of(&child);
        let redactor = Redactor::new(evidence.previous.into_iter().chain([evidence.password]));
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let mut said = Said::default();
        let ended = {
            let mut heard = (Said::default(), Said::default());
            let listen = async {
                tokio::join!(
                    listen(stdout, &redactor, &mut heard.0),
                    listen(stderr, &redactor, &mut heard.1)
                );
            };
            let ended = child::watch(&mut child, listen, self.timeout).await;
            said.add(heard.0);
            said.add(heard.1);
            ended
        };
        drop(group);
        match ended {
            Some(ended) => self.judge(ended, said),
            None => Err(Error::new(Kind::BadState, self.operation()).because("the system lost sight of it")),
        }
    }

    fn by_hand(&self) -> Vec<Instruction> {
        self.instructions()
    }
}

/// The value of a variable, if it can be one.
fn value_of(name: &str, text: &str) -> Result<Value, String> {
    if name.is_empty() || name.contains(['=', '\0']) {
        return Err("no variable can have this name".into());
    }
    // Without variables in it, a text is what it says, but for doubled braces.
    match value::expand(text, &BTreeMap::new(), &[]) {
        Ok(plain) => Ok(Value::Plain(plain)),
        Err(_) => Template::parse(text).map(Value::Secret).map_err(|error| error.message),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use pgrotate_core::{Retry, Secret};

    use super::*;
    use crate::fake;
    use crate::shared::Vendors;

    const PASSWORD: &str = "Zq8xPTkn5VbR2mWc";
    const PREVIOUS: &str = "J7hwLsd3GyN9pFeT";

    fn check(script: &str, timeout_s: u64) -> CommandCheck {
        let environment = [("URL", "{database_url}"), ("WRAPPED", "<{password}>"), ("PLAIN", "{{x}}")];
        let options = Options {
            directory: "/".into(),
            command: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
            environment: environment.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
            timeout_s,
        };
        CommandCheck::new(None, options, fake::shared(Vendors::default(), "")).unwrap()
    }

    async fn run(check: &CommandCheck) -> Result<Outcome> {
        let (password, url) = (Secret::new(PASSWORD), Secret::new(format!("postgresql://u:{PASSWORD}@h/d")));
        let previous = Secret::new(PREVIOUS);
        let since = "2026-01-01T00:00:00Z".parse().unwrap();
        check
            .verify(&Evidence {
                run: fake::run(),
                password: &password,
                previous: Some(&previous),
                url: &url,
                changing_since: since,
                since,
            })
            .await
    }

    #[tokio::test]
    async fn the_child_gets_its_variables_and_nothing_else() {
        let script = format!(
            "test \"$URL\" = postgresql://u:{PASSWORD}@h/d && test \"$WRAPPED\" = '<{PASSWORD}>' && test \"$PLAIN\" = '{{x}}' && \
             test -z \"$CARGO_MANIFEST_DIR\" && test -n \"$PATH\" && ! grep -q {} /proc/$$/cmdline",
            &PASSWORD[..12].replace('q', "[q]")
        );
        // The script itself is an argument here, so it must not spell the password it looks for.
        let script = script.replace(PASSWORD, "Zq8x\"\"PTkn5VbR2mWc").replace("'<Zq8x\"\"", "'<Zq8x''");
        assert_eq!(run(&check(&script, 10)).await, Ok(Outcome::confirmed()));
    }

    #[tokio::test]
    async fn a_failure_quotes_the_last_lines_without_the_password() {
        let script = "for i in 1 2 3 4 5 6 7 8 9 10 11 12; do echo line $i; done; echo \"cannot use $URL\" >&2; exit 3";
        let error = run(&check(script, 10)).await.unwrap_err();
        assert_eq!((error.kind(), error.retry()), (Kind::BadState, Retry::Never));
        let text = error.to_string();
        assert!(
            text.contains("exit status: 3") && text.contains("cannot use postgresql://u:***@h/d"),
            "{text}"
        );
        assert!(!text.contains("line 1:") && text.contains("line 12"), "{text}");
        assert!(!format!("{error:?}").contains(&PASSWORD[..6]));
    }

    #[tokio::test]
    async fn what_still_has_the_old_password_does_not_get_it_quoted() {
        let error =
            run(&check(&format!("echo trying {PREVIOUS} from a file; exit 1"), 10)).await.unwrap_err();
        let text = format!("{error} {error:?}");
        assert!(text.contains("trying *** from a file") && !text.contains(&PREVIOUS[..6]), "{text}");
    }

    #[tokio::test]
    async fn what_it_prints_counts_even_if_it_ends_well() {
        for (says, kind) in [
            ("FATAL:  password authentication failed for user \"u\"", Kind::Refused),
            ("TypeError: connect() got an unexpected keyword argument 'sslmode'", Kind::Rejected),
        ] {
            let script = format!("cat <<'END' >&2\n{says}\nEND\necho all is well");
            assert_eq!(run(&check(&script, 10)).await.unwrap_err().kind(), kind);
        }
    }

    #[tokio::test]
    async fn a_late_child_ends_with_its_children() {
        let folder = tempfile::tempdir().unwrap();
        let mark = folder.path().join("mark");
        let script = format!("(sleep 3; touch {}) & echo started; sleep 60", mark.display());
        let error = run(&check(&script, 1)).await.unwrap_err();
        assert_eq!((error.kind(), error.retry()), (Kind::TimedOut, Retry::Never));
        assert!(error.to_string().contains("it said: started"), "{error}");
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert!(!mark.exists(), "the grandchild was ended too");
    }

    #[tokio::test]
    async fn a_grandchild_that_keeps_the_pipe_does_not_hold_us_up() {
        let began = std::time::Instant::now();
        assert_eq!(run(&check("sleep 60 & echo done", 30)).await, Ok(Outcome::confirmed()));
        assert!(began.elapsed() < Duration::from_secs(10));
    }

    #[tokio::test]
    async fn endless_output_is_read_in_bounded_memory() {
        let error = run(&check("head -c 3000000 /dev/zero | tr '\\0' x; exit 1", 20)).await.unwrap_err();
        assert!(error.to_string().len() < 10_000);
    }

    #[tokio::test]
    async fn what_is_missing_is_found_before() {
        let with = |directory: &str, program: &str| {
            let options = Options {
                directory: directory.into(),
                command: vec![program.into()],
                environment: BTreeMap::new(),
                timeout_s: 1,
            };
            CommandCheck::new(Some("alembic".into()), options, fake::shared(Vendors::default(), "")).unwrap()
        };
        for present in ["bin/sh", "sh"] {
            let findings = with("/", present).check().await.unwrap();
            let [finding] = &findings[..] else { panic!("{findings:?}") };
            assert!(
                finding.severity == Severity::Unseen && finding.what.contains("not run before"),
                "{finding:?}"
            );
        }
        for (directory, program, missing) in [
            ("/nowhere", "sh", "folder /nowhere"),
            ("/", ".venv/bin/alembic", "program .venv"),
            ("/", "no-such", "no-such"),
        ] {
            let check = with(directory, program);
            let findings = check.check().await.unwrap();
            assert!(
                findings[0].severity == Severity::Blocks && findings[0].what.contains(missing),
                "{findings:?}"
            );
            assert!(run(&check).await.is_err());
        }
    }

    /// Alembic, as far as it is asked: what it prints for `current` and for `heads`.
    async fn tried(current: &str, heads: &str) -> Vec<Finding> {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("alembic");
        let script = format!(
            "#!/bin/sh\ncase \"$3\" in\ncurrent) {current} ;;\nheads) {heads} ;;\n*) exit 9 ;;\nesac\n"
        );
        std::fs::write(&program, script).unwrap();
        std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
        let options = Options {
            directory: folder.path().to_str().unwrap().to_owned(),
            command: ["./alembic", "-c", "a.ini", "upgrade", "head"].map(str::to_owned).to_vec(),
            environment: [("URL", "{database_url}"), ("PLAIN", "x")]
                .map(|(n, v)| (n.into(), v.into()))
                .into(),
            timeout_s: 2,
        };
        let check =
            CommandCheck::new(Some("alembic".into()), options, fake::shared(Vendors::default(), "")).unwrap();
        assert_eq!(check.check().await, Ok(Vec::new()));
        let (password, url) = (Secret::new(PASSWORD), Secret::new(format!("postgresql://u:{PASSWORD}@h/d")));
        check.try_out(&Present { password: &password, url: &url }).await.unwrap().findings
    }

    #[tokio::test]
    async fn alembic_is_tried_out_with_the_password_of_now_and_never_with_its_own_command() {
        let with_url = format!("test \"$URL\" = postgresql://u:{PASSWORD}@h/d && echo '0002 (head)'");
        let without = "test -z \"$URL\" && test \"$PLAIN\" = x && echo '0002 (head)'";
        assert_eq!(tried(&with_url, without).await, []);
        let pending = tried("echo 0001", "echo '0002 (head)'").await;
        assert!(pending.len() == 1 && pending[0].what.contains("at 0001"), "{pending:?}");
        assert_eq!(pending[0].severity, Severity::Warning);
        let blind = tried("echo 0001", "exit 1").await;
        assert_eq!((blind.len(), blind[0].severity), (1, Severity::Unseen));
    }

    #[tokio::test]
    async fn what_alembic_can_not_do_now_blocks_and_shows_no_password() {
        let broken = tried("echo \"can't use $URL\" >&2; exit 255", "echo 0002").await;
        let [finding] = &broken[..] else { panic!("{broken:?}") };
        assert_eq!(finding.severity, Severity::Blocks);
        assert!(finding.what.contains("exit status 255") && !finding.what.contains(PASSWORD), "{finding:?}");
        let slow = tried("sleep 60", "echo 0002").await;
        assert!(slow[0].severity == Severity::Unseen && slow[0].what.contains("after 2 s"), "{slow:?}");
    }

    #[tokio::test]
    async fn a_program_is_relative_to_its_directory() {
        let folder = tempfile::tempdir_in(".").unwrap();
        let program = folder.path().join("program");
        std::fs::write(&program, "#!/bin/sh\ntest -x program\n").unwrap();
        std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
        let options = Options {
            directory: folder.path().file_name().unwrap().to_str().unwrap().to_owned(),
            command: vec!["./program".into()],
            environment: BTreeMap::new(),
            timeout_s: 10,
        };
        let check = CommandCheck::new(None, options, fake::shared(Vendors::default(), "")).unwrap();
        assert_eq!(run(&check).await, Ok(Outcome::confirmed()));
    }

    #[test]
    fn a_secret_among_the_arguments_is_refused() {
        let with = |command: &[&str], variable: &str| {
            let options = Options {
                directory: ".".into(),
                command: command.iter().map(ToString::to_string).collect(),
                environment: [("X".to_owned(), variable.to_owned())].into(),
                timeout_s: 1,
            };
            CommandCheck::new(None, options, fake::shared(Vendors::default(), ""))
                .err()
                .map(|error| error.to_string())
        };
        assert_eq!(with(&["psql"], "a"), None);
        assert!(with(&["psql", "{database_url}"], "a").unwrap().contains("would show the password"));
        assert!(with(&["psql", "-p={password}"], "a").unwrap().contains("would show the password"));
        assert!(with(&[], "a").unwrap().contains("empty"));
        assert!(with(&["psql"], "{database_uri}").unwrap().contains("no template variable"));
    }
}
