//! What a failed sign-in means, in this program's words: Entra's own repeat names and times.

use azure_core::error::ErrorKind;
use pgrotate_core::{Error, Kind};

use super::SIGN_IN;
use super::source::Found;
use crate::http::{Effect, unanswered};

/// What a failure of Microsoft's crates means for `who`.
pub(super) fn classify(error: &azure_core::Error, who: &str) -> Error {
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(cause) = next {
        if let Some(lost) = cause.downcast_ref::<reqwest::Error>() {
            return unanswered(lost, Effect::Reads, SIGN_IN);
        }
        let answered = cause.downcast_ref::<azure_core::Error>().map(azure_core::Error::kind);
        if let Some(ErrorKind::HttpResponse { status, error_code, .. }) = answered {
            return entra(u16::from(*status), error_code.as_deref().unwrap_or_default(), who);
        }
        next = cause.source();
    }
    Error::new(Kind::Unauthenticated, SIGN_IN)
        .because(format!("{who}: the sign-in service's answer makes no sense"))
        .hint("look at AZURE_AUTHORITY_HOST")
}

/// Whether Entra's code says that nothing in the application matches a token of somebody else's.
pub(super) fn is_mistrust(error: &Error) -> bool {
    let codes = ["AADSTS70021)", "AADSTS700211", "AADSTS700212", "AADSTS700213"];
    error.causes().iter().any(|cause| codes.iter().any(|code| cause.contains(code)))
}

/// What Entra's codes (`AADSTS…`) mean. They may change, says Microsoft, so what is not known here
/// is shown by its number.
pub(crate) fn entra(status: u16, codes: &str, who: &str) -> Error {
    let digits = !codes.is_empty()
        && codes.len() <= 32
        && codes.chars().all(|letter| letter.is_ascii_digit() || letter == ',');
    let shown = if digits { format!("AADSTS{codes}") } else { format!("status {status}") };
    let first = if digits { codes.split(',').next().unwrap_or_default() } else { "" };
    if let Some(meaning) = MEANINGS.iter().find(|meaning| meaning.codes.contains(&first)) {
        return Error::new(meaning.kind, SIGN_IN)
            .because(format!("{who}: {} ({shown})", meaning.why))
            .hint(meaning.mend);
    }
    let error = |kind, why: &str| Error::new(kind, SIGN_IN).because(format!("{who}: {why} ({shown})"));
    match status {
        429 => error(Kind::Throttled, "the sign-in service asks for fewer requests").later(None),
        500.. => error(Kind::ServerFault, "the sign-in service has no answer now").later(None),
        _ => error(Kind::Unauthenticated, "the sign-in is refused").hint(
            "look the code up at https://login.microsoftonline.com/error, and at AZURE_TENANT_ID and AZURE_CLIENT_ID",
        ),
    }
}

/// What some codes mean.
pub(super) struct Meaning {
    pub(super) codes: &'static [&'static str],
    kind: Kind,
    pub(super) why: &'static str,
    pub(super) mend: &'static str,
}

const fn meaning(
    codes: &'static [&'static str],
    kind: Kind,
    why: &'static str,
    mend: &'static str,
) -> Meaning {
    Meaning { codes, kind, why, mend }
}

/// The codes that can come of the ways here.
pub(super) const MEANINGS: &[Meaning] = &[
    meaning(
        &["7000215"],
        Kind::Unauthenticated,
        "the secret is wrong",
        "AZURE_CLIENT_SECRET holds the secret's value, not its id",
    ),
    meaning(
        &["7000222"],
        Kind::Unauthenticated,
        "the secret has expired",
        "make a new one: az ad app credential reset --id APP, and set AZURE_CLIENT_SECRET to it",
    ),
    meaning(
        &["7000218"],
        Kind::Unauthenticated,
        "the sign-in service saw neither a secret nor a token",
        "set AZURE_CLIENT_SECRET or AZURE_FEDERATED_TOKEN_FILE",
    ),
    meaning(
        &["700016"],
        Kind::Unauthenticated,
        "the tenant does not know this application",
        "look at AZURE_CLIENT_ID and AZURE_TENANT_ID: the application may belong to another tenant",
    ),
    meaning(
        &["7000229"],
        Kind::Unauthenticated,
        "the application has no service principal in the tenant",
        "make it: az ad sp create --id APP",
    ),
    meaning(
        &["7000112", "50057"],
        Kind::Unauthenticated,
        "the application or account is disabled",
        "have an administrator of the tenant enable it",
    ),
    meaning(
        &["90002", "900023", "50059"],
        Kind::Unauthenticated,
        "there is no such tenant",
        "look at [azure] tenant or AZURE_TENANT_ID, and at AZURE_AUTHORITY_HOST in a sovereign cloud",
    ),
    meaning(
        &["50034"],
        Kind::Unauthenticated,
        "the tenant does not know this account",
        "sign in to the tenant that has it: az login --tenant TENANT",
    ),
    meaning(
        &["70021", "700211", "700212", "700213"],
        Kind::Unauthenticated,
        "its token is not trusted: no federated credential of the application matches it",
        "issuer, subject and audience must be the same to the letter: az ad app federated-credential list --id APP",
    ),
    meaning(
        &["700024", "500133"],
        Kind::Unauthenticated,
        "its token has expired, or is not good yet",
        "have a new token issued, and is this machine's clock right?",
    ),
    meaning(
        &["700027", "50027", "5002730", "50013", "50008"],
        Kind::Unauthenticated,
        "its token is damaged, or its signature does not fit",
        "the token must be the one that was issued, whole and in one line",
    ),
    meaning(
        &["500011", "650057"],
        Kind::Unauthenticated,
        "the tenant does not know the service that the token is for",
        "look at [azure]: resource_manager, key_vault_suffix",
    ),
    meaning(
        &["53003", "530003", "50105"],
        Kind::Forbidden,
        "a policy of the tenant forbids the sign-in",
        "ask its administrator for conditional access and assignments of this application",
    ),
    meaning(
        &["50076", "50079", "50078"],
        Kind::Unauthenticated,
        "the tenant wants a second factor",
        "sign in as a person: az login",
    ),
    meaning(
        &["70043", "700082", "700084", "50173", "70008"],
        Kind::Unauthenticated,
        "the login has expired",
        "log in again: az login",
    ),
];

/// Why the Azure CLI gave no token, from what it said. Its own words may hold anything, so they are
/// searched and not repeated.
pub(crate) fn why_not_the_cli(error: &azure_core::Error) -> String {
    let text = error.to_string();
    let code = text
        .split("AADSTS")
        .nth(1)
        .map(|rest| rest.chars().take_while(char::is_ascii_digit).take(10).collect::<String>());
    let known = code.as_deref().and_then(|code| MEANINGS.iter().find(|one| one.codes.contains(&code)));
    match (known, code) {
        _ if text.contains("not found on PATH") => "Azure CLI: `az` is not installed".into(),
        (Some(meaning), Some(code)) => format!("Azure CLI: {} (AADSTS{code})", meaning.why),
        (_, Some(code)) if !code.is_empty() => {
            format!("Azure CLI: its login is not accepted (AADSTS{code})")
        }
        _ if text.contains("az login") => "Azure CLI: it is not logged in, or its login has expired".into(),
        _ => "Azure CLI: it gives no token (`az account get-access-token` shows why)".into(),
    }
}

/// The error when no way is left: each with the reason.
pub(super) fn nobody(found: &Found, cli: Option<String>, machine: Option<Error>) -> Error {
    let machine = machine.as_ref().map(Error::causes).unwrap_or_default();
    let ways: Vec<&str> = found.missing.iter().chain(&cli).chain(machine).map(String::as_str).collect();
    let error =
        Error::new(Kind::Unauthenticated, SIGN_IN).because(format!("there is no way: {}", ways.join("; ")));
    let error = match found.in_actions {
        true => error.hint(
            "give the job `permissions: id-token: write`, AZURE_CLIENT_ID and AZURE_TENANT_ID; or log in with azure/login before",
        ),
        false => error,
    };
    let error = if found.cli { error.hint("log in: az login") } else { error };
    error.hint(
        "or set AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET (or AZURE_FEDERATED_TOKEN_FILE)",
    )
}
