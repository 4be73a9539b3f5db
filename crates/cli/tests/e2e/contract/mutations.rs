//! The judge is judged: good requests pass, and each with one mistake in it is refused for that mistake.

use super::exchange::{Answer, Exchange, Message};

const SERVER: &str =
    "/subscriptions/s/resourceGroups/g/providers/Microsoft.DBforPostgreSQL/flexibleServers/n";
const SITE: &str = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Web/sites/a";
const ITEM: &str = "/v1/vaults/aaaaaaaaaaaaaaaaaaaaaaaaaa/items/bbbbbbbbbbbbbbbbbbbbbbbbbb";
const SECRET: &str = "/repos/o/r/actions/secrets/NAME";

fn azure(method: &str, target: &str, body: &str) -> Exchange {
    let headers = [("authorization", "Bearer ***"), ("content-type", "application/json")];
    Exchange::new("resource_manager", method, target, &headers, body)
}

fn key_vault(method: &str, target: &str, body: &str) -> Exchange {
    let headers = [("authorization", "Bearer ***"), ("content-type", "application/json")];
    Exchange::new("key_vault", method, target, &headers, body)
}

fn github(method: &str, target: &str, body: &str) -> Exchange {
    let headers = [
        ("authorization", "Bearer ***"),
        ("content-type", "application/json"),
        ("accept", "application/vnd.github+json"),
        ("user-agent", "pgrotate/1"),
        ("x-github-api-version", "2022-11-28"),
    ];
    Exchange::new("github", method, target, &headers, body)
}

fn onepassword(method: &str, target: &str, body: &str) -> Exchange {
    let headers = [("authorization", "Bearer ***"), ("content-type", "application/json")];
    Exchange::new("onepassword", method, target, &headers, body)
}

fn secrets_manager(operation: &str, body: &str) -> Exchange {
    let target = format!("secretsmanager.{operation}");
    let headers = [
        ("authorization", "AWS4-HMAC-SHA256 ***"),
        ("content-type", "application/x-amz-json-1.1"),
        ("x-amz-date", "20260101T000000Z"),
        ("x-amz-target", &target),
    ];
    Exchange::new("aws", "POST", "/", &headers, body)
}

fn form(body: &str) -> Exchange {
    let headers = [
        ("authorization", "AWS4-HMAC-SHA256 ***"),
        ("content-type", "application/x-www-form-urlencoded; charset=utf-8"),
        ("x-amz-date", "20260101T000000Z"),
    ];
    Exchange::new("aws", "POST", "/", &headers, body)
}

/// The same with a header that is another, or gone.
fn with(mut exchange: Exchange, name: &str, value: Option<&str>) -> Exchange {
    exchange.message.set(name, value);
    exchange
}

const TOKEN: &str = "0123456789abcdef0123456789abcdef";

fn put_secret(more: &str) -> Exchange {
    let body = format!(r#"{{"SecretId": "s", "ClientRequestToken": "{TOKEN}", "SecretString": "x"{more}}}"#);
    secrets_manager("PutSecretValue", &body)
}

fn sealed(more: &str) -> Exchange {
    github("PUT", SECRET, &format!(r#"{{"key_id": "1", "encrypted_value": "c2VjcmV0"{more}}}"#))
}

const PATCH: &str = r#"[{"op": "replace", "path": "/fields/x/value", "value": "text"}]"#;
const ASSUME: &str = "Action=AssumeRoleWithWebIdentity&Version=2011-06-15&RoleArn=arn:aws:iam::123456789012:role/r\
                      &RoleSessionName=run&WebIdentityToken=tttttttttttttttttttttttttttt";
const SIMULATE: &str = "Action=SimulatePrincipalPolicy&Version=2010-05-08&PolicySourceArn=arn:aws:iam::123456789012:\
                        role/r&ActionNames.member.1=secretsmanager:PutSecretValue&ActionNames.member.2=kms:Decrypt";

#[test]
fn good_requests_pass() {
    let Some(specifications) = super::specifications() else { return };
    for exchange in [
        azure(
            "PATCH",
            &format!("{SERVER}?api-version=2026-10-01"),
            r#"{"properties": {"administratorLoginPassword": "x"}}"#,
        ),
        azure("GET", &format!("{}?api-version=2026-10-01", SERVER.to_lowercase()), ""),
        azure(
            "PUT",
            &format!("{SITE}/config/appsettings?api-version=2025-05-01"),
            r#"{"properties": {"A": "b"}}"#,
        ),
        azure("POST", &format!("{SITE}/restart?api-version=2025-05-01&softRestart=true"), ""),
        azure("POST", &format!("{SITE}/slots/s/config/connectionstrings/list?api-version=2025-05-01"), ""),
        azure(
            "PUT",
            &format!("{SITE}/config/connectionstrings?api-version=2025-05-01"),
            r#"{"properties": {"A": {"value": "b", "type": "PostgreSQL"}}}"#,
        ),
        key_vault("PUT", "/secrets/name?api-version=2026-04-01", r#"{"value": "x", "tags": {"a": "b"}}"#),
        key_vault("GET", "/secrets/name/?api-version=2026-04-01", ""),
        with(key_vault("GET", "/secrets/name/v?api-version=2026-04-01", ""), "authorization", None),
        github("GET", "/repos/o/r/environments/qa%2Feu/secrets/public-key", ""),
        sealed(""),
        onepassword("PATCH", ITEM, PATCH),
        onepassword("PATCH", ITEM, "[]"),
        put_secret(""),
        form("Action=GetCallerIdentity&Version=2011-06-15"),
        with(form(ASSUME), "authorization", None),
        form(SIMULATE),
    ] {
        let verdict = specifications.judge(&exchange, &[]);
        assert!(verdict.is_ok(), "{}: {:?}", exchange.line(), verdict.err());
    }
}

/// A request with a mistake, and a word of what is to be said of it.
type Mistake = (Exchange, &'static str);

fn azure_mistakes() -> Vec<Mistake> {
    let patch = |body: &str| azure("PATCH", &format!("{SERVER}?api-version=2026-10-01"), body);
    let settings =
        |body: &str| azure("PUT", &format!("{SITE}/config/appsettings?api-version=2025-05-01"), body);
    let strings =
        |body: &str| azure("PUT", &format!("{SITE}/config/connectionstrings?api-version=2025-05-01"), body);
    let restart = |query: &str| azure("POST", &format!("{SITE}/restart?{query}"), "");
    vec![
        (azure("PUT", &format!("{SERVER}?api-version=2026-10-01"), "{}"), "no operation"),
        (azure("GET", &format!("{SERVER}x/y?api-version=2026-10-01"), ""), "no operation"),
        (azure("GET", SERVER, ""), "api-version\" is missing"),
        (azure("GET", &format!("{SERVER}?api-version=2020-01-01"), ""), "api-version"),
        (azure("GET", &format!("{SERVER}?api-version=2026-10-01&expand=x"), ""), "expand is unknown"),
        (azure("GET", &format!("{SERVER}?api-version=2026-10-01&api-version=2026-10-01"), ""), "twice"),
        (azure("GET", &format!("{SERVER}?api-version=2026-10-01"), "{}"), "a body where none"),
        (with(azure("GET", &format!("{SERVER}?api-version=2026-10-01"), ""), "authorization", None), "token"),
        (patch(""), "the body is missing"),
        (patch("{"), "no JSON"),
        (with(patch("{}"), "content-type", Some("text/plain")), "media type"),
        (patch(r#"{"properties": {"administratorLoginPasword": "x"}}"#), "administratorLoginPasword"),
        (patch(r#"{"properties": {"administratorLogin": "x"}}"#), "/properties/administratorLogin"),
        (
            patch(r#"{"properties": {"administratorLoginPassword": 1}}"#),
            "/properties/administratorLoginPassword",
        ),
        (patch(r#"{"tags": {"a": 1}}"#), "/tags/a"),
        (settings(r#"{"A": "b"}"#), "'A' was unexpected"),
        (settings(r#"{"properties": {"A": null}}"#), "/properties/A"),
        (settings(r#"{"id": "x", "properties": {}}"#), "/id"),
        (strings(r#"{"properties": {"A": "b"}}"#), "/properties/A"),
        (strings(r#"{"properties": {"A": {"value": "b"}}}"#), "type"),
        (strings(r#"{"properties": {"A": {"value": "b", "type": "Postgres"}}}"#), "/properties/A/type"),
        (strings(r#"{"A": {"value": "b", "type": "PostgreSQL"}}"#), "'A' was unexpected"),
        (
            azure("POST", &format!("{SITE}/config/connectionstrings/list?api-version=2022-03-01"), ""),
            "api-version",
        ),
        (restart("api-version=2025-05-01&softRestart=yes"), "softRestart"),
        (restart("api-version=2022-03-01"), "api-version"),
        (
            azure(
                "POST",
                &format!("{SITE}/config/configreferences/appsettings/refresh?api-version=2025-05-01"),
                "",
            ),
            "api-version",
        ),
        (
            azure(
                "GET",
                "/subscriptions/s/providers/Microsoft.DBforPostgreSQL/locations/l/azureAsyncOperation/i?t=1",
                "",
            ),
            "handed out",
        ),
    ]
}

fn key_vault_mistakes() -> Vec<Mistake> {
    let put = |body: &str| key_vault("PUT", "/secrets/name?api-version=2026-04-01", body);
    vec![
        (key_vault("PUT", "/secrets/na_me?api-version=2026-04-01", r#"{"value": "x"}"#), "secret-name"),
        (key_vault("PUT", "/secrets/name/?api-version=2026-04-01", r#"{"value": "x"}"#), "no operation"),
        (key_vault("GET", "/secrets/name?api-version=2026-04-01", ""), "no operation"),
        (key_vault("GET", "/secrets/name/?api-version=2025-07-01", ""), "api-version"),
        (put(""), "the body is missing"),
        (put(r#"{"value": 1}"#), "/value"),
        (put(r#"{"value": "x", "contenttype": "y"}"#), "contenttype"),
        (put(r#"{"value": "x", "attributes": {"created": 1}}"#), "/attributes/created"),
        (put(r#"{"value": "x", "attributes": {"exp": "tomorrow"}}"#), "/attributes/exp"),
        (with(put(r#"{"value": "x"}"#), "authorization", None), "before the vault has said"),
    ]
}

fn github_mistakes() -> Vec<Mistake> {
    vec![
        (github("POST", SECRET, "{}"), "no operation"),
        (github("GET", "/repos/o/r/actions/secrets/", ""), "no operation"),
        (github("GET", "/repos/o/r/environments/qa/eu/secrets/public-key", ""), "no operation"),
        (github("GET", "/repos/o/r/actions/secrets/public-key?page=1", ""), "page is unknown"),
        (github("PUT", SECRET, r#"{"key_id": "1"}"#), "encrypted_value"),
        (github("PUT", SECRET, r#"{"key_id": 1, "encrypted_value": "c2VjcmV0"}"#), "/key_id"),
        (github("PUT", SECRET, r#"{"key_id": "1", "encrypted_value": "not base64"}"#), "/encrypted_value"),
        (sealed(r#", "visibility": "all""#), "visibility"),
        (with(sealed(""), "user-agent", None), "User-Agent"),
        (with(sealed(""), "accept", Some("*/*")), "Accept"),
        (with(sealed(""), "x-github-api-version", Some("2020-01-01")), "X-GitHub-Api-Version"),
        (with(sealed(""), "authorization", Some("Basic ***")), "token"),
        (
            github(
                "PUT",
                "/orgs/o/actions/secrets/NAME",
                r#"{"encrypted_value": "c2VjcmV0", "key_id": "1"}"#,
            ),
            "visibility",
        ),
        (github("POST", "/repos/o/r/issues/x/comments", r#"{"body": "text"}"#), "issue_number"),
        (github("GET", "/repos/o/r/actions/runs?status=queued", ""), "per_page is missing"),
    ]
}

fn onepassword_mistakes() -> Vec<Mistake> {
    vec![
        (onepassword("PATCH", &ITEM.replace("/v1", ""), PATCH), "no operation"),
        (onepassword("PATCH", &ITEM.replace("bbb", "B"), PATCH), "itemUuid"),
        (onepassword("PATCH", ITEM, "{}"), "not of type \"array\""),
        (onepassword("PATCH", ITEM, r#"[{"op": "test", "path": "/x"}]"#), "/0/op"),
        (onepassword("PATCH", ITEM, r#"[{"op": "add"}]"#), "path"),
        (onepassword("PATCH", ITEM, r#"[{"op": "remove", "path": "/x", "from": "/y"}]"#), "from"),
        (
            onepassword(
                "PUT",
                ITEM,
                r#"{"vault": {"id": "aaaaaaaaaaaaaaaaaaaaaaaaaa"}, "category": "LOGIN", "state": "DELETED"}"#,
            ),
            "/state",
        ),
        (onepassword("GET", "/v1/vaults?name=x", ""), "name is unknown"),
        (with(onepassword("PATCH", ITEM, PATCH), "authorization", None), "token"),
    ]
}

fn aws_mistakes() -> Vec<Mistake> {
    let mut elsewhere = put_secret("");
    elsewhere.path = "/secret".to_owned();
    vec![
        (put_secret(r#", "Owner": "x""#), "Owner"),
        (put_secret(r#", "VersionStages": "AWSCURRENT""#), "/VersionStages"),
        (put_secret(r#", "VersionStages": []"#), "/VersionStages"),
        (
            secrets_manager("PutSecretValue", r#"{"SecretId": "s", "SecretString": "x"}"#),
            "ClientRequestToken is missing",
        ),
        (
            secrets_manager(
                "PutSecretValue",
                r#"{"SecretId": "s", "SecretString": "x", "ClientRequestToken": "short"}"#,
            ),
            "/ClientRequestToken",
        ),
        (secrets_manager("GetSecretValue", "{}"), "SecretId"),
        (secrets_manager("DeleteSecret", "{}"), "no operation"),
        (with(put_secret(""), "x-amz-target", Some("SecretsManager.PutSecretValue")), "no operation"),
        (with(put_secret(""), "content-type", Some("application/json")), "media type"),
        (with(put_secret(""), "authorization", None), "not signed"),
        (with(put_secret(""), "x-amz-date", None), "x-amz-date"),
        (elsewhere, "method or path"),
        (form("Action=GetCallerIdentity&Version=2010-05-08"), "Version"),
        (form("Action=GetCallerIdentity&Version=2011-06-15&RoleArn=x"), "RoleArn is unknown"),
        (form(&ASSUME.replace("RoleArn", "Role")), "RoleArn"),
        (form(&format!("{ASSUME}&DurationSeconds=1")), "/DurationSeconds"),
        (form(&SIMULATE.replace("member.2", "2")), "ActionNames.2 is unknown"),
        (with(form(SIMULATE), "authorization", None), "not signed"),
    ]
}

#[test]
fn each_mistake_is_refused_for_what_it_is() {
    let Some(specifications) = super::specifications() else { return };
    let all =
        [azure_mistakes(), key_vault_mistakes(), github_mistakes(), onepassword_mistakes(), aws_mistakes()];
    for (exchange, said) in all.into_iter().flatten() {
        match specifications.judge(&exchange, &[]) {
            Ok(_) => panic!("{} with {:?} passed", exchange.line(), exchange.message.text()),
            Err(complaints) => {
                let complaints = complaints.join("; ");
                assert!(complaints.contains(said), "{}: {complaints:?} and not {said:?}", exchange.line());
            }
        }
    }
}

const AWS: (&str, &str) = ("content-type", "application/x-amz-json-1.1");

/// The request answered so.
fn answered(mut exchange: Exchange, status: u16, headers: &[(&str, &str)], body: &str) -> Exchange {
    let mut message = Message::default();
    message.body = Some(body.to_owned());
    message.set("content-type", Some("application/json"));
    headers.iter().for_each(|(name, value)| message.set(name, Some(value)));
    exchange.answer = Some(Answer { status, message });
    exchange
}

#[test]
fn answers_are_judged_as_strictly() {
    let Some(specifications) = super::specifications() else { return };
    let server = || azure("GET", &format!("{SERVER}?api-version=2026-10-01"), "");
    let patch = || azure("PATCH", &format!("{SERVER}?api-version=2026-10-01"), "{}");
    let key = || github("GET", "/repos/o/r/actions/secrets/public-key", "");
    let bare = || with(key_vault("GET", "/secrets/name/?api-version=2026-04-01", ""), "authorization", None);
    let error =
        r#"{"message": "Not Found", "documentation_url": "https://docs.github.com/rest", "status": "404"}"#;
    let challenge = ("www-authenticate", r#"Bearer authorization="https://l/t", resource="https://vault""#);
    let good = [
        answered(server(), 200, &[], r#"{"location": "x", "properties": {"state": "Ready"}}"#),
        answered(server(), 404, &[], r#"{"error": {"code": "ResourceNotFound", "message": "x"}}"#),
        answered(patch(), 202, &[("azure-asyncoperation", "https://x")], ""),
        answered(key(), 200, &[], r#"{"key_id": "1", "key": "x"}"#),
        answered(key(), 404, &[], error),
        answered(sealed(""), 204, &[], ""),
        answered(bare(), 401, &[challenge], r#"{"error": {"code": "Unauthorized", "message": "x"}}"#),
        answered(put_secret(""), 400, &[AWS], r#"{"__type": "ResourceNotFoundException", "message": "x"}"#),
        answered(put_secret(""), 400, &[AWS], r#"{"__type": "com.amazonaws#ThrottlingException:http://x/"}"#),
    ];
    for exchange in good {
        let verdict = specifications.judge_answer(&exchange);
        assert!(verdict.is_ok(), "{}: {:?}", exchange.line(), verdict.err());
    }
    let bad = [
        (server(), "there is no answer"),
        (answered(server(), 200, &[], r#"{"properties": {"stat": "Ready"}}"#), "stat"),
        (
            answered(server(), 200, &[], r#"{"properties": {"administratorLoginPassword": "x"}}"#),
            "administratorLoginPassword",
        ),
        (answered(server(), 404, &[], r#"{"message": "x"}"#), "message"),
        (answered(patch(), 202, &[], ""), "where to ask"),
        (answered(key(), 200, &[], r#"{"key_id": 1, "key": "x"}"#), "/key_id"),
        (answered(key(), 200, &[("content-type", "text/html")], "{}"), "media type"),
        (answered(key(), 301, &[], ""), "301 is not described"),
        (answered(key(), 404, &[], "{}"), "message"),
        (answered(sealed(""), 204, &[], "{}"), "a body where none"),
        (answered(sealed(""), 201, &[], r#"{"name": "NAME"}"#), "name"),
        (answered(bare(), 401, &[], r#"{"error": {"code": "Unauthorized"}}"#), "challenge"),
        (answered(put_secret(""), 400, &[AWS], r#"{"__type": "NoSuchThing"}"#), "__type"),
        (answered(put_secret(""), 200, &[AWS], r#"{"VersionStages": "x"}"#), "/VersionStages"),
        (answered(put_secret(""), 200, &[AWS], r#"{"Name": null}"#), "/Name"),
        (
            answered(put_secret(""), 200, &[AWS], r#"{"SecretVersionsToStages": {}}"#),
            "SecretVersionsToStages",
        ),
        (answered(put_secret(""), 200, &[], "{}"), "media type"),
    ];
    for (exchange, said) in bad {
        let complaints = specifications.judge_answer(&exchange).err().unwrap_or_default().join("; ");
        assert!(complaints.contains(said), "{}: {complaints:?} and not {said:?}", exchange.line());
    }
}
