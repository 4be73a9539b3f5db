//! The vendors' habits that a client has to know, seen in the traffic of a rotation: they are played, and pgrotate
//! goes through them. This needs no specification.

use super::MORE_COPIES;
use super::exchange::{Answer, Exchange};
use crate::lab::Lab;

const ABSENT: &str = r#"
[[sinks]]
kind = "aws_secrets_manager"
secret = "mindwell/{env}/absent"
value = "{password}"
"#;

#[test]
fn the_vendors_habits_are_played_and_gone_through() {
    let lab = Lab::recording("dev");
    let (config, old) = (lab.config(), lab.password("dev"));
    let text = std::fs::read_to_string(&config).unwrap();
    // The slot of the common configuration is not there: these two are only about GitHub.
    let github = MORE_COPIES.split("\n[[sinks]]\nkind = \"azure_app_service\"").next().unwrap();
    std::fs::write(&config, format!("{text}{github}{ABSENT}")).unwrap();
    let check = lab.pgrotate(&["check", "dev"]);
    assert!(check.text().contains("cannot look at the AWS secret mindwell/dev/absent"), "{}", check.text());
    let _ = check.exits(1);
    std::fs::write(&config, format!("{text}{github}")).unwrap();
    lab.pgrotate(&["rotate", "dev"]).exits(0);
    assert_ne!(lab.password("dev"), old);

    let recording = lab.get("/_sandbox/recording");
    let exchanges: Vec<Exchange> = recording.as_array().unwrap().iter().map(Exchange::of).collect();
    key_vault_asks_for_a_token(&exchanges);
    the_server_takes_its_time(&exchanges);
    github_tells_a_new_secret_from_an_old_one(&exchanges);
    aws_names_its_errors(&exchanges);
}

/// The requests to a system by a method, with their answers.
fn to<'e>(
    exchanges: &'e [Exchange],
    system: &'e str,
    method: &'e str,
) -> impl Iterator<Item = (&'e Exchange, &'e Answer)> {
    let of = move |exchange: &&Exchange| exchange.system == system && exchange.method == method;
    exchanges.iter().filter(of).map(|exchange| (exchange, exchange.answer.as_ref().unwrap()))
}

/// A first request without token and body is told for what one is wanted; then it is sent again with one.
fn key_vault_asks_for_a_token(exchanges: &[Exchange]) {
    let all: Vec<_> = to(exchanges, "key_vault", "GET").collect();
    let (bare, challenge) = all[0];
    assert!(bare.message.header("authorization").is_none() && bare.message.text().is_empty());
    assert_eq!(challenge.status, 401);
    let words = challenge.message.header("www-authenticate").unwrap();
    assert!(
        words.starts_with("Bearer authorization=\"https://") && words.contains("resource=\"https://"),
        "{words}"
    );
    assert_eq!(challenge.message.json().unwrap()["error"]["code"], "Unauthorized");
    let again = all[1..].iter().find(|(exchange, _)| exchange.path == bare.path).unwrap();
    assert_eq!((again.0.message.header("authorization"), again.1.status), (Some("Bearer ***"), 200));
    let put = to(exchanges, "key_vault", "PUT").all(|(put, _)| put.message.header("authorization").is_some());
    assert!(put, "a value was sent before the vault had said who it is");
}

/// 202, a signed address of more than 3 KB, nobody says how long to wait; the address is used as it is.
fn the_server_takes_its_time(exchanges: &[Exchange]) {
    let accepted: Vec<_> = to(exchanges, "resource_manager", "PATCH").collect();
    assert_eq!(accepted.len(), 1);
    let (_, accepted) = accepted[0];
    assert_eq!(accepted.status, 202);
    assert!(accepted.message.header("retry-after").is_none());
    let url = accepted.message.header("azure-asyncoperation").unwrap();
    assert!(url.len() > 3000, "{}", url.len());
    let polls: Vec<_> = to(exchanges, "resource_manager", "GET")
        .filter(|(poll, _)| poll.path.contains("/azureAsyncOperation/"))
        .collect();
    assert!(polls.iter().all(|(poll, _)| url.ends_with(&format!("{}?{}", poll.path, poll.raw_query))));
    let (_, last) = polls.last().unwrap();
    assert_eq!(last.message.json().unwrap()["status"], "Succeeded");
    assert!(last.message.header("retry-after").is_none());
}

/// 201 with an empty object for the first, 204 without a body for every other.
fn github_tells_a_new_secret_from_an_old_one(exchanges: &[Exchange]) {
    let written: Vec<_> = to(exchanges, "github", "PUT").collect();
    let new = |(put, _): &&(&Exchange, &Answer)| put.path.contains("/environments/qa%2Feu/");
    let (_, created) = written.iter().find(new).unwrap();
    assert_eq!((created.status, created.message.text()), (201, "{}"));
    let updated: Vec<_> = written.iter().filter(|put| !new(put)).collect();
    assert_eq!(updated.len(), 3);
    for (put, answer) in updated {
        assert_eq!((answer.status, answer.message.text()), (204, ""), "{}", put.path);
    }
}

/// Status 400 for everything; `__type` says what it is.
fn aws_names_its_errors(exchanges: &[Exchange]) {
    let refused: Vec<_> = to(exchanges, "aws", "POST").filter(|(_, answer)| answer.status != 200).collect();
    assert!(!refused.is_empty());
    for (_, answer) in refused {
        assert_eq!(answer.status, 400);
        let kind = answer.message.json().unwrap()["__type"].as_str().unwrap().to_owned();
        assert!(kind.ends_with("ResourceNotFoundException"), "{kind}");
    }
}
