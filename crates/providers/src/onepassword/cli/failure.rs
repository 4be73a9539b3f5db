//! What `op` means by its words on stderr, which are searched and never shown: it quotes what it
//! was given.

use std::time::Duration;

use pgrotate_core::{Error, Kind};

use crate::child::Answer;
use crate::http::Effect;

/// Turns a call that did not succeed into an error.
pub(crate) fn classify(answer: &Answer, effect: Effect, timeout: Duration, operation: &str) -> Error {
    // What may have been sent may have had its effect; what only reads is read again.
    let open = |error: Error| match effect {
        Effect::Writes => error.unknown(),
        Effect::Reads => error.later(None),
    };
    let error = |kind| Error::new(kind, operation);
    if answer.is_late() {
        return open(error(Kind::TimedOut).because(format!("op took longer than {} s", timeout.as_secs())));
    }
    let Some(code) = answer.code() else {
        return open(error(Kind::BadState).because("op was ended by somebody else"));
    };
    let said = answer.complaint();
    let has = |parts: &[&str]| parts.iter().any(|part| said.contains(part));
    if has(&["too many requests", "rate-limited", "rate limit exceeded", "(429)"]) {
        return error(Kind::Throttled)
            .because("the service account has used up what it may ask for")
            .hint("op service-account ratelimit shows what is left")
            .later(wait(&said));
    }
    if let Some(error) = known(&said, effect, &error) {
        return error;
    }
    if has(&["item version", "(409)"]) {
        // Somebody wrote between our read and our write: look again.
        return error(Kind::Conflict).because("somebody else changed the item at the same moment").unknown();
    }
    if has(&["no such host", "dial tcp", "connection refused", "connection reset", "timeout", "eof", "tls"]) {
        return open(error(Kind::Unreachable).because("op does not reach 1Password"));
    }
    open(
        error(Kind::BadState)
            .because(format!(
                "op ended with exit status {code}, for a reason that is not among the known ones"
            ))
            .hint("see it with your own eyes: op vault list, with the same OP_SERVICE_ACCOUNT_TOKEN"),
    )
}

/// What stays as it is until a person does something.
fn known(said: &str, effect: Effect, error: &impl Fn(Kind) -> Error) -> Option<Error> {
    let has = |parts: &[&str]| parts.iter().any(|part| said.contains(part));
    if has(&["isn't a vault"]) {
        return Some(
            error(Kind::NotFound)
                .because("1Password knows no such vault, or the service account may not see it")
                .hint("correct `vault` in the configuration, or give the service account access to it"),
        );
    }
    if has(&["isn't an item", "could not find item"]) {
        return Some(error(Kind::NotFound).because("1Password knows no such item in the vault").hint(
            "a text of 26 small letters and digits is taken for an id; correct `item` in the configuration",
        ));
    }
    if has(&["more than one vault matches", "more than one item matches"]) {
        return Some(
            error(Kind::Ambiguous)
                .because("more than one answers to the name")
                .hint("name it by its id in the configuration"),
        );
    }
    if has(&["do not have permission", "aren't authorized", "(403)"])
        || effect == Effect::Writes && has(&["couldn't update the item"])
    {
        return Some(
            error(Kind::Forbidden)
                .because("the service account has not the right to do this in the vault; most have only the right to read")
                .hint("give it read_items and write_items on the vault (in 1Password: Developer, Service Accounts)"),
        );
    }
    if has(&[
        "signin credentials are not compatible",
        "sacredentials",
        "serviceaccountauthtoken",
        "invalid credentials",
        "unauthorized",
        "(401)",
        "not currently signed in",
        "no accounts configured",
        "service account has been deleted",
        "expired",
    ]) {
        return Some(
            error(Kind::Unauthenticated)
                .because("1Password does not accept the token in OP_SERVICE_ACCOUNT_TOKEN")
                .hint("is it whole and without quotes, and the service account neither expired nor deleted?"),
        );
    }
    if has(&["unknown flag", "unknown command"]) {
        return Some(
            error(Kind::BadState)
                .because("this version of 1Password's CLI does not know what is asked of it")
                .hint("install a newer one"),
        );
    }
    None
}

/// How long to wait, where the words tell it: `retry in 58 minutes`.
fn wait(said: &str) -> Option<Duration> {
    let words: Vec<&str> = said.split_whitespace().collect();
    words.windows(3).find_map(|three| {
        let ("in", Ok(number)) = (three[0], three[1].parse::<u64>()) else { return None };
        let unit = match three[2].trim_end_matches(|c: char| !c.is_alphabetic()).trim_end_matches('s') {
            "second" => 1,
            "minute" => 60,
            "hour" => 3600,
            _ => return None,
        };
        Some(Duration::from_secs(number.checked_mul(unit)?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_to_wait_is_read_from_the_words() {
        assert_eq!(wait("please retry in 58 minutes or try other"), Some(Duration::from_secs(3480)));
        assert_eq!(wait("try again in 1 second."), Some(Duration::from_secs(1)));
        assert_eq!(wait("in 99999999999999999999 hours"), None);
        assert_eq!(wait("some time in the future"), None);
    }
}
