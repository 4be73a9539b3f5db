//! What went wrong between us and another machine: the only place that knows `ssh`'s words.
//!
//! They are searched and never shown, but for the place of a host key's line, which `ssh` names
//! and a person needs.

use std::time::Duration;

use pgrotate_core::{Error, Kind};

use super::{DAMAGED, Ssh};
use crate::child::Answer;
use crate::http::Effect;

/// `ssh`'s own exit status when it fails itself.
const ITS_OWN: i32 = 255;

/// Turns a call that did not succeed into an error. `began` says whether the script had begun.
pub(crate) fn classify(
    ssh: &Ssh,
    answer: &Answer,
    began: bool,
    effect: Effect,
    timeout: Duration,
    operation: &str,
) -> Error {
    // After its start a script that writes may have written; what only reads is read again.
    let open = |error: Error| match effect {
        Effect::Writes => error.unknown(),
        Effect::Reads => error.later(None),
    };
    let error = |kind| Error::new(kind, operation);
    let host = ssh.place();
    if answer.is_late() {
        let what = format!("{host} took longer than {} s", timeout.as_secs());
        return open(error(Kind::TimedOut).because(what));
    }
    match answer.code() {
        Some(ITS_OWN) | None if began => {
            open(error(Kind::Unreachable).because(format!("the connection to {host} broke")))
        }
        Some(ITS_OWN) => before_the_start(ssh, answer, &error, &open),
        None => open(error(Kind::BadState).because("ssh was ended by somebody else")),
        Some(code) if began => {
            open(error(Kind::BadState).because(format!("the script on {host} ended with {code}")))
        }
        Some(DAMAGED) => error(Kind::BadState)
            .because(format!("what {host} was to run did not arrive whole"))
            .hint("does a start-up file of the account's login shell read its input?"),
        Some(code) => error(Kind::BadState)
            .because(format!("the account on {host} can't run sh: it ended with {code}"))
            .hint("the account needs a login shell, and no forced command"),
    }
}

/// `ssh` failed, and the script has not said that it began.
fn before_the_start(
    ssh: &Ssh,
    answer: &Answer,
    error: &impl Fn(Kind) -> Error,
    open: &impl Fn(Error) -> Error,
) -> Error {
    let (host, said) = (ssh.place(), answer.complaint());
    let has = |parts: &[&str]| parts.iter().any(|part| said.contains(part));
    if let Some(error) = about_keys(ssh, answer, error) {
        return error;
    }
    if has(&["could not resolve hostname", "name or service not known"]) {
        let because = format!("nobody knows where {host} is");
        let hint = "correct `host`, or give it a Host in your ssh configuration";
        return error(Kind::Unreachable).because(because).hint(hint).later(None);
    }
    if has(&["connection timed out", "operation timed out"]) {
        let because = format!("{host} does not answer");
        return error(Kind::TimedOut)
            .because(because)
            .hint("is it running, and behind a firewall?")
            .later(None);
    }
    if has(&["connection refused", "no route to host", "network is unreachable", "host is down"]) {
        let because = format!("nobody takes ssh connections at {host}");
        return error(Kind::Unreachable)
            .because(because)
            .hint("is its sshd running, on this port?")
            .later(None);
    }
    if has(&["can't open user config file", "bad configuration option", "terminating,"]) {
        let because = "ssh can't use its configuration";
        return error(Kind::Config).because(because).hint(format!("look at it: {}", by_hand(ssh, "-G")));
    }
    // From here on it may have begun, and the answer that says so may have been lost.
    if has(&["connection closed", "connection reset", "kex_exchange", "broken pipe", "not responding"]) {
        return open(error(Kind::Unreachable).because(format!("{host} closed the connection")));
    }
    open(
        error(Kind::Unreachable)
            .because(format!("ssh to {host} fails, for a reason that is not among the known ones"))
            .hint(format!("see it with your own eyes: {}", by_hand(ssh, "-v"))),
    )
}

/// One of the two sides can't show that it is who it says.
fn about_keys(ssh: &Ssh, answer: &Answer, error: &impl Fn(Kind) -> Error) -> Option<Error> {
    let (host, said) = (ssh.place(), answer.complaint());
    let has = |parts: &[&str]| parts.iter().any(|part| said.contains(part));
    let known =
        ssh.known_hosts.as_ref().map_or("~/.ssh/known_hosts".into(), |file| file.display().to_string());
    if has(&["identification has changed"]) {
        let line = offending(answer).map(|place| format!(" (the old one: {place})")).unwrap_or_default();
        return Some(
            error(Kind::Unauthenticated)
                .because(format!("{host} shows another host key than the one that is known{line}"))
                .hint("find out why before anything else: this is what an attack looks like")
                .hint(format!("if the host was set up anew, replace its line in {known}")),
        );
    }
    if has(&["host key verification failed", "host key is known for"]) {
        return Some(
            error(Kind::Unauthenticated)
                .because(format!("the host key of {host} is not known here"))
                .hint(format!(
                    "compare the key with the host's own (ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub, there), \
                     then add its line to {known}; ssh-keyscan prints it"
                )),
        );
    }
    if has(&["unprotected private key", "bad permissions"]) {
        let file = ssh.identity.as_ref().map_or("the private key".into(), |file| file.display().to_string());
        return Some(
            error(Kind::Config)
                .because(format!("others than its owner may read {file}, so ssh does not use it"))
                .hint(format!("chmod 600 {file}")),
        );
    }
    if has(&["permission denied", "too many authentication failures", "no supported authentication"]) {
        let key = match &ssh.identity {
            Some(file) if !file.exists() => format!("there is no file {}", file.display()),
            Some(file) => format!("is the public key of {} in its authorized_keys?", file.display()),
            None => "is a public key of yours in its authorized_keys, and the private one in your agent \
                     or named as ssh = { identity_file = \"…\" }?"
                .into(),
        };
        return Some(
            error(Kind::Unauthenticated)
                .because(format!("{host} lets nobody in with the keys that ssh has"))
                .hint(key),
        );
    }
    None
}

/// The file and line of the key that does not fit any more.
fn offending(answer: &Answer) -> Option<String> {
    let said = String::from_utf8_lossy(&answer.stderr);
    let line = said.lines().find(|line| line.starts_with("Offending "))?;
    let (_, place) = line.split_once(" key in ")?;
    is_place(place.trim()).then(|| place.trim().to_owned())
}

/// Whether a text is a file's path and a line: a host's banner comes the same way as `ssh`'s own words.
fn is_place(text: &str) -> bool {
    let fits = |letter: char| letter.is_ascii_alphanumeric() || "/._-".contains(letter);
    let file = |file: &str| file.starts_with('/') && file.chars().all(fits);
    let number = |line: &str| !line.is_empty() && line.bytes().all(|byte| byte.is_ascii_digit());
    text.len() <= 200 && text.rsplit_once(':').is_some_and(|(path, line)| file(path) && number(line))
}

/// The call as a person would make it.
fn by_hand(ssh: &Ssh, flag: &str) -> String {
    let config = ssh.config.as_ref().map(|file| format!(" -F {}", file.display())).unwrap_or_default();
    let port = ssh.port.map(|port| format!(" -p {port}")).unwrap_or_default();
    format!("ssh {flag}{config}{port} {} true", ssh.destination)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_place_is_repeated() {
        assert!(is_place("/home/me/.ssh/known_hosts:7"));
        for other in
            ["known_hosts:7", "/home/me:", "/home/me", "/home/\u{1b}[31m:7", "/home/me it says:7", ":7", ""]
        {
            assert!(!is_place(other), "{other:?}");
        }
        assert!(!is_place(&format!("/{}:7", "a".repeat(200))));
    }
}
