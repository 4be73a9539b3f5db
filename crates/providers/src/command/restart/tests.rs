//! A restart that works, one that fails, and one that is not there; here and over a real sshd.

use std::collections::BTreeMap;

use pgrotate_core::{Retry, Secret};

use super::*;
use crate::fake;
use crate::shared::Vendors;
use crate::ssh::testing::{Sshd, Wire};

const PASSWORD: &str = "Zq8xPTkn5VbR2mWc";

fn consumer(command: &[&str], ssh: Option<SshOptions>, timeout_s: u64) -> Result<CommandConsumer> {
    let options = ConsumerOptions {
        command: command.iter().map(ToString::to_string).collect(),
        directory: Some("/".into()),
        host: ssh.is_some().then(|| "127.0.0.1".into()),
        ssh,
        timeout_s,
    };
    CommandConsumer::new(None, options, fake::shared(Vendors::default(), ""))
}

async fn activate(consumer: &CommandConsumer) -> Result<Outcome> {
    let (password, previous) = (Secret::new(PASSWORD), Secret::new("J7hwLsd3GyN9pFeT"));
    let versions = BTreeMap::new();
    let activation =
        Activation { run: fake::run(), versions: &versions, password: &password, previous: Some(&previous) };
    consumer.activate(&activation).await
}

#[tokio::test]
async fn it_runs_here_and_there_with_its_words_as_they_are() {
    let sshd = Sshd::start();
    let folder = tempfile::tempdir().unwrap();
    let mark = folder.path().join("it's $(odd) \"x\"");
    for ssh in [None, Some(sshd.options())] {
        let there = ssh.is_some();
        let consumer = consumer(&["touch", mark.to_str().unwrap()], ssh, 20).unwrap();
        assert_eq!(consumer.id(), "command:touch");
        assert_eq!(consumer.check().await, Ok(Vec::new()));
        assert!(!mark.exists(), "a check runs nothing");
        assert_eq!(activate(&consumer).await, Ok(Outcome::changed()), "{there}");
        assert!(mark.exists() && activate(&consumer).await.is_ok(), "twice is as good as once");
        std::fs::remove_file(&mark).unwrap();
    }
}

#[tokio::test]
async fn a_failure_says_its_status_and_last_words_without_a_password() {
    let sshd = Sshd::start();
    let script = format!("pwd; echo using {PASSWORD} from the file; echo Job failed. >&2; exit 5");
    for ssh in [None, Some(sshd.options())] {
        let error = activate(&consumer(&["sh", "-c", &script], ssh, 20).unwrap()).await.unwrap_err();
        assert_eq!((error.kind(), error.retry()), (Kind::BadState, Retry::Never));
        let words = error.to_string();
        assert!(words.contains("exit status 5: it said: /: it said: using *** from the file"), "{words}");
        assert!(words.ends_with("it said: Job failed."), "{words}");
        assert!(!format!("{error:?}").contains(&PASSWORD[..6]));
    }
}

#[tokio::test]
async fn no_password_is_in_its_environment() {
    // Nothing was passed on that could hold one: only what programs need to start at all.
    let script = "env | grep -Ev '^(PATH|HOME|LANG|USER|TMPDIR|PWD|OLDPWD|SHLVL|_|XDG_RUNTIME_DIR|DBUS_SESSION_BUS_ADDRESS)='";
    let error = activate(&consumer(&["sh", "-c", script], None, 20).unwrap()).await.unwrap_err();
    assert!(error.to_string().ends_with("exit status 1"), "{error}");
}

#[tokio::test]
async fn one_that_does_not_end_is_unknown() {
    let sshd = Sshd::start();
    for ssh in [None, Some(sshd.options())] {
        let error = activate(&consumer(&["sleep", "60"], ssh, 2).unwrap()).await.unwrap_err();
        assert_eq!((error.kind(), error.retry()), (Kind::TimedOut, Retry::Unknown), "{error}");
    }
}

#[tokio::test]
async fn a_connection_that_breaks_meanwhile_is_unknown() {
    let sshd = Sshd::start();
    let wire = Wire::to(&sshd);
    let options = sshd.options_by(&wire);
    wire.back.store(20_000, std::sync::atomic::Ordering::SeqCst);
    let chatty = consumer(&["head", "-c", "90000", "/dev/zero"], Some(options), 20).unwrap();
    let error = activate(&chatty).await.unwrap_err();
    assert_eq!((error.kind(), error.retry()), (Kind::Unreachable, Retry::Unknown), "{error}");
}

#[tokio::test]
async fn what_is_missing_is_found_before() {
    let sshd = Sshd::start();
    for ssh in [None, Some(sshd.options())] {
        let consumer = consumer(&["no-such-program"], ssh.clone(), 20).unwrap();
        let findings = consumer.check().await.unwrap();
        assert_eq!(findings[0].severity, Severity::Blocks);
        assert!(findings[0].what.contains("run no-such-program"), "{findings:?}");
        assert!(activate(&consumer).await.is_err());
    }
}

#[test]
fn what_makes_no_sense_is_refused() {
    assert!(consumer(&["psql", "{database_url}"], None, 1).err().unwrap().to_string().contains("would show"));
    assert!(consumer(&[], None, 1).is_err());
    let options = ConsumerOptions {
        command: vec!["/usr/bin/systemctl".into()],
        directory: Some("relative".into()),
        host: Some("agent-1".into()),
        ssh: None,
        timeout_s: 1,
    };
    let error = CommandConsumer::new(Some("runner".into()), options, fake::shared(Vendors::default(), ""));
    assert!(error.err().unwrap().to_string().contains("command:runner"));
}
