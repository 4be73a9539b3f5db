//! Who signs in, and what is said when nobody can.

use std::ffi::OsStr;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{ExitStatus, Output};

use pgrotate_core::env::testing::ManualClock;

use super::failure::{MEANINGS, entra};
use super::machine::Machine;
use super::*;
use crate::azure::testing::{Fake, empty};
use crate::credentials::Credentials;
use crate::fake::{Fake as PlainFake, Reply};
use crate::shared::{AzureSettings, AzureSignIn};

fn credentials(text: &str) -> Credentials {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_permissions(std::fs::Permissions::from_mode(0o600)).unwrap();
    file.write_all(text.as_bytes()).unwrap();
    Credentials::with_file(file.path()).unwrap()
}

fn found(text: &str, tenant: Option<&str>) -> Result<Source> {
    source::find(
        &credentials(text),
        &AzureSettings { tenant: tenant.map(str::to_owned), ..AzureSettings::default() },
    )
}

fn chosen(text: &str, sign_in: AzureSignIn) -> Result<Source> {
    source::find(
        &credentials(text),
        &AzureSettings { sign_in: Some(sign_in), tenant: Some("t".into()), ..AzureSettings::default() },
    )
}

/// A JWT with these claims and a signature that nobody looks at.
fn jwt(claims: &serde_json::Value, signature: &str) -> String {
    use base64::Engine as _;
    let part = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(claims.to_string());
    format!("e30.{part}.{signature}")
}

/// Stands for `/bin/sh -c "az …"`.
#[derive(Debug)]
struct FakeCli {
    status: i32,
    out: &'static str,
    err: &'static str,
}

#[async_trait]
impl Executor for FakeCli {
    async fn run(&self, _program: &OsStr, args: &[&OsStr]) -> std::io::Result<Output> {
        assert!(
            args[1].to_string_lossy().contains("az account get-access-token -o json --scope s --tenant t")
        );
        let status = ExitStatus::from_raw(self.status << 8);
        Ok(Output { status, stdout: self.out.into(), stderr: self.err.into() })
    }
}

fn person(cli: FakeCli) -> Credential {
    let found =
        Found { tenant: Some("t".into()), cli: true, machine: None, missing: Vec::new(), in_actions: false };
    credential(Source::Found(found), cli)
}

fn credential(source: Source, cli: FakeCli) -> Credential {
    Credential {
        source: Ok(source),
        options: ClientOptions::default(),
        http: crate::http::client(crate::http::tls_config(None).unwrap()).unwrap(),
        audience: "api://AzureADTokenExchange",
        executor: Some(Arc::new(cli)),
        clock: Arc::new(ManualClock::at_second(1_700_000_000)),
        tokens: Tokens::default(),
    }
}

const NO_CLI: FakeCli = FakeCli { status: 127, out: "", err: "sh: az: not found" };

#[test]
fn the_first_complete_configuration_is_used() {
    let all = "AZURE_CLIENT_ID=c\nAZURE_CLIENT_SECRET=s\nAZURE_FEDERATED_TOKEN_FILE=/f\nAZURE_TENANT_ID=t\n\
               ACTIONS_ID_TOKEN_REQUEST_URL=https://x/\nACTIONS_ID_TOKEN_REQUEST_TOKEN=u\n\
               IDENTITY_ENDPOINT=http://localhost:1/msi\nIDENTITY_HEADER=h\n";
    let without = |names: &[&str]| {
        let lines = all.lines().filter(|line| !names.iter().any(|name| line.starts_with(name)));
        lines.map(|line| format!("{line}\n")).collect::<String>()
    };
    assert!(matches!(found(all, None), Ok(Source::Principal { app, .. }) if app.tenant == "t"));
    assert!(matches!(found(all, Some("u")), Ok(Source::Principal { app, .. }) if app.tenant == "u"));
    let workload = without(&["AZURE_CLIENT_SECRET"]);
    assert!(matches!(found(&workload, None), Ok(Source::Workload { token: Issued::File(_), .. })));
    let job = without(&["AZURE_CLIENT_SECRET", "AZURE_FED"]);
    assert!(matches!(found(&job, None), Ok(Source::Workload { token: Issued::Actions { .. }, .. })));
    let app_service = without(&["AZURE_CLIENT", "AZURE_FED"]);
    assert!(matches!(found(&app_service, None), Ok(Source::Machine(machine)) if machine.is_announced()));
    let Ok(Source::Found(rest)) = found("AZURE_CLIENT_ID=c\n", None) else { panic!("nothing is configured") };
    assert!(rest.cli && !rest.machine.unwrap().is_announced());
    assert_eq!(rest.missing.len(), 2);
}

#[test]
fn a_job_that_may_ask_for_a_token_for_something_else_is_no_identity() {
    let job =
        "ACTIONS_ID_TOKEN_REQUEST_URL=https://x/\nACTIONS_ID_TOKEN_REQUEST_TOKEN=u\nAZURE_TENANT_ID=t\n";
    let Ok(Source::Found(rest)) = found(job, None) else { panic!("there is no application") };
    assert!(rest.missing[1].contains("AZURE_CLIENT_ID is not set"), "{:?}", rest.missing);
    let error = chosen(job, AzureSignIn::WorkloadIdentity).unwrap_err();
    assert!(error.to_string().contains("AZURE_CLIENT_ID is not"), "{error}");
}

#[test]
fn one_way_can_be_chosen() {
    let all = "AZURE_CLIENT_ID=c\nAZURE_CLIENT_SECRET=s\nAZURE_FEDERATED_TOKEN_FILE=/f\n";
    assert!(matches!(chosen(all, AzureSignIn::ClientSecret), Ok(Source::Principal { .. })));
    assert!(matches!(chosen(all, AzureSignIn::WorkloadIdentity), Ok(Source::Workload { .. })));
    assert!(matches!(chosen(all, AzureSignIn::ManagedIdentity), Ok(Source::Machine(_))));
    let Ok(Source::Found(cli)) = chosen(all, AzureSignIn::Cli) else { panic!("the CLI is chosen") };
    assert!(cli.cli && cli.machine.is_none() && cli.missing.is_empty());
    let Ok(Source::Found(none)) = chosen("", AzureSignIn::ClientSecret) else { panic!("nothing is set") };
    assert!(!none.cli && none.machine.is_none());
    assert_eq!(none.missing, ["client secret: AZURE_CLIENT_SECRET is not set"]);
    for (value, cli, machine) in
        [("dev", true, false), ("AzureCliCredential", true, false), ("PROD", false, true)]
    {
        let text = format!("AZURE_TOKEN_CREDENTIALS={value}\n");
        let Ok(Source::Found(rest)) = found(&text, None) else { panic!("{value}") };
        assert_eq!((rest.cli, rest.machine.is_some()), (cli, machine), "{value}");
    }
    let error = found("AZURE_TOKEN_CREDENTIALS=browser\n", None).unwrap_err();
    assert!(error.hints()[0].contains("sign_in"), "{error:?}");
}

#[test]
fn half_a_configuration_is_named() {
    let error = found("AZURE_CLIENT_SECRET=hunter2\nAZURE_CLIENT_ID=c\n", None).unwrap_err();
    let shown = format!("{error} {:?}", error.hints());
    assert!(shown.contains("AZURE_TENANT_ID is not") && shown.contains("az login"), "{shown}");
    assert!(!shown.contains("hunter2"));
    let error = found("AZURE_CLIENT_SECRET=s\nAZURE_CLIENT_ID=c\n", Some("a/../b")).unwrap_err();
    assert!(error.to_string().contains("neither an id nor a domain"), "{error}");
}

#[tokio::test]
async fn the_cli_is_asked_once_for_each_scope() {
    let out = r#"{"accessToken":"hunter2","expires_on":9999999999,"tokenType":"Bearer"}"#;
    let credential = person(FakeCli { status: 0, out, err: "" });
    assert_eq!(credential.token("s").await.unwrap(), Secret::new("hunter2"));
    let credential = Credential {
        tokens: credential.tokens.clone(),
        ..person(FakeCli { status: 1, out: "", err: "must not be asked" })
    };
    assert_eq!(credential.token("s").await.unwrap(), Secret::new("hunter2"));
    assert!(!format!("{credential:?}").contains("hunter2"));
}

#[tokio::test]
async fn a_failure_that_stays_is_not_tried_again_at_once() {
    let asked = Arc::new(std::sync::atomic::AtomicU64::new(0));
    let seen = Arc::clone(&asked);
    let fake = PlainFake::start(move |_| {
        seen.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        Reply::empty(400)
    })
    .await;
    let text = format!("AZURE_POD_IDENTITY_AUTHORITY_HOST={}\n", fake.url);
    let clock = Arc::new(ManualClock::at_second(1_700_000_000));
    let source = chosen(&text, AzureSignIn::ManagedIdentity).unwrap();
    let credential = Credential { clock: clock.clone(), ..credential(source, NO_CLI) };
    let (one, two) = futures::join!(credential.token("s"), credential.token("s"));
    assert_eq!(one.unwrap_err(), two.unwrap_err());
    assert_eq!(asked.load(std::sync::atomic::Ordering::SeqCst), 1);
    clock.sleep(Duration::from_secs(11)).await;
    credential.token("s").await.unwrap_err();
    assert_eq!(asked.load(std::sync::atomic::Ordering::SeqCst), 2);
}

#[tokio::test]
async fn nobody_is_told_each_way_and_what_would_help() {
    let near = PlainFake::start(|_| Reply::json(400, &serde_json::json!({"error": "hunter2"}))).await;
    for (endpoint, said) in [
        ("http://127.0.0.1:1", "no metadata service"),
        (near.url.as_str(), "there is none here (status 400)"),
    ] {
        let text = format!("AZURE_POD_IDENTITY_AUTHORITY_HOST={endpoint}\n");
        let error = credential(found(&text, Some("t")).unwrap(), NO_CLI).token("s").await.unwrap_err();
        let shown = format!("{error} {:?}", error.hints());
        for part in [
            "AZURE_CLIENT_SECRET is not set",
            "neither AZURE_FEDERATED_TOKEN_FILE nor",
            "`az` is not installed",
            said,
            "log in: az login",
        ] {
            assert!(shown.contains(part), "{part}: {shown}");
        }
        assert!(!format!("{error:?}").contains("hunter2"));
    }
}

#[tokio::test]
async fn a_github_job_is_told_its_permission() {
    let Ok(Source::Found(mut found)) = found("", Some("t")) else { panic!("nothing is configured") };
    found.machine = None;
    found.in_actions = true;
    let error = credential(Source::Found(found), NO_CLI).token("s").await.unwrap_err();
    assert!(error.hints()[0].contains("id-token: write"), "{error:?}");
}

#[tokio::test]
async fn the_clis_words_are_searched_and_not_repeated() {
    for (err, said) in [
        ("ERROR: AADSTS700082 token hunter2. Run: az login --tenant t", "expired (AADSTS700082)"),
        ("ERROR: AADSTS50034: The user hunter2 does not exist", "does not know this account"),
        ("ERROR: AADSTS123456: hunter2", "not accepted (AADSTS123456)"),
        ("Please run 'az login' to setup account. hunter2", "not logged in"),
        ("Traceback hunter2", "az account get-access-token"),
    ] {
        let error = person(FakeCli { status: 1, out: "", err }).token("s").await.unwrap_err();
        assert!(error.to_string().contains(said), "{said}: {error}");
        assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
    }
}

fn claims(audience: &str) -> serde_json::Value {
    serde_json::json!({"iss": "https://issuer.test", "sub": "repo:o/r:environment:dev", "aud": audience})
}

#[tokio::test]
async fn a_federated_token_is_exchanged() {
    let fake = Fake::start(|_| empty(500)).await;
    let mut token = tempfile::NamedTempFile::new().unwrap();
    token.write_all(jwt(&claims("x"), "good\n").as_bytes()).unwrap();
    let text = format!("AZURE_FEDERATED_TOKEN_FILE={}\n", token.path().display());
    let shared = fake.shared_with(Arc::new(ManualClock::at_second(1_700_000_000)), &text);
    let account = crate::azure::account(&shared).unwrap();
    assert_eq!(account.scm_authorization().await.unwrap().as_str(), "Bearer token-1");

    let gone = fake.shared_with(shared.clock.clone(), "AZURE_FEDERATED_TOKEN_FILE=/nowhere\n");
    let error = crate::azure::account(&gone).unwrap().scm_authorization().await.unwrap_err();
    assert!(error.to_string().contains("token file can't be used: /nowhere"), "{error}");
}

#[tokio::test]
async fn a_github_jobs_token_is_asked_for_entra_and_exchanged() {
    let fake = Fake::start(|_| empty(500)).await;
    let github = PlainFake::start(|call| {
        assert_eq!(call.header("authorization"), Some("Bearer hunter2"));
        let audience = call.path.split("audience=").nth(1).unwrap().replace("%3A", ":").replace("%2F", "/");
        Reply::json(200, &serde_json::json!({"count": 1, "value": jwt(&claims(&audience), "hunter3")}))
    })
    .await;
    let text = format!(
        "ACTIONS_ID_TOKEN_REQUEST_URL={}/idtoken?api-version=2.0\nACTIONS_ID_TOKEN_REQUEST_TOKEN=hunter2\n",
        github.url
    );
    let shared = fake.shared_with(Arc::new(ManualClock::at_second(1_700_000_000)), &text);
    let account = crate::azure::account(&shared).unwrap();
    assert_eq!(account.scm_authorization().await.unwrap().as_str(), "Bearer token-1");
    assert_eq!(
        github.take_lines(),
        ["GET /idtoken?api-version=2.0&audience=api%3A%2F%2FAzureADTokenExchange"]
    );
}

#[tokio::test]
async fn a_token_that_nobody_trusts_is_described() {
    let fake = Fake::start(|_| empty(500)).await;
    let github = PlainFake::start(|_| {
        Reply::json(200, &serde_json::json!({"value": jwt(&claims("aud"), "hunter2AADSTS700213")}))
    })
    .await;
    let text =
        format!("ACTIONS_ID_TOKEN_REQUEST_URL={}\nACTIONS_ID_TOKEN_REQUEST_TOKEN=hunter2\n", github.url);
    let shared = fake.shared_with(Arc::new(ManualClock::at_second(1_700_000_000)), &text);
    let error = crate::azure::account(&shared).unwrap().scm_authorization().await.unwrap_err();
    let shown = format!("{error} {:?}", error.hints());
    assert!(shown.contains("subject repo:o/r:environment:dev, audience aud"), "{shown}");
    assert!(!format!("{error:?}").contains("hunter2"));
}

#[tokio::test]
async fn a_job_that_github_gives_no_token_is_told_the_permission() {
    for (status, retry) in
        [(403, pgrotate_core::Retry::Never), (503, pgrotate_core::Retry::Later { after_ms: None })]
    {
        let github = PlainFake::start(move |_| Reply::empty(status)).await;
        let text = format!(
            "AZURE_CLIENT_ID=c\nACTIONS_ID_TOKEN_REQUEST_URL={}\nACTIONS_ID_TOKEN_REQUEST_TOKEN=hunter2\n",
            github.url
        );
        let error = credential(found(&text, Some("t")).unwrap(), NO_CLI).token("s").await.unwrap_err();
        assert_eq!(error.retry(), retry);
        assert_eq!(status == 403, error.hints().join(" ").contains("id-token: write"), "{error:?}");
        assert!(!format!("{error:?}").contains("hunter2"));
    }
}

#[tokio::test]
async fn both_managed_identities_are_asked_as_azure_documents_it() {
    let fake = PlainFake::start(|call| {
        let expires = match call.header("x-identity-header") {
            Some(_) => serde_json::json!("1700003600"),
            None => serde_json::json!(1_700_003_600),
        };
        assert_eq!(call.header("metadata"), Some("true"));
        Reply::json(200, &serde_json::json!({"access_token": "hunter2", "expires_on": expires}))
    })
    .await;
    let app = format!("IDENTITY_ENDPOINT={}/MSI/token/\nIDENTITY_HEADER=secret\n", fake.url);
    let machine = format!("AZURE_CLIENT_ID=own\nAZURE_POD_IDENTITY_AUTHORITY_HOST={}\n", fake.url);
    let token = async |text: &str| {
        let source = chosen(text, AzureSignIn::ManagedIdentity).unwrap();
        credential(source, NO_CLI).token("https://vault.azure.net/.default").await
    };
    assert_eq!(token(&app).await.unwrap(), Secret::new("hunter2"));
    assert_eq!(token(&machine).await.unwrap(), Secret::new("hunter2"));
    assert_eq!(
        fake.take_lines(),
        [
            "GET /MSI/token/?api-version=2019-08-01&resource=https%3A%2F%2Fvault.azure.net",
            "GET /metadata/identity/oauth2/token?api-version=2018-02-01&resource=https%3A%2F%2Fvault.azure.net&client_id=own",
        ]
    );
}

#[tokio::test]
async fn a_managed_identity_that_fails_says_why() {
    for (status, text, said, later) in [
        (400, "", "az vm identity assign", false),
        (400, "AZURE_CLIENT_ID=c\n", "unset AZURE_CLIENT_ID", false),
        (410, "", "no answer now", true),
        (429, "", "no answer now", true),
        (200, "", "makes no sense", false),
    ] {
        let fake = PlainFake::start(move |_| Reply::json(status, &serde_json::json!("hunter2"))).await;
        let text = format!("{text}AZURE_POD_IDENTITY_AUTHORITY_HOST={}\n", fake.url);
        let source = chosen(&text, AzureSignIn::ManagedIdentity).unwrap();
        let error = credential(source, NO_CLI).token("s").await.unwrap_err();
        let shown = format!("{error} {:?}", error.hints());
        assert!(shown.contains(said), "{status} {said}: {shown}");
        assert_eq!(error.retry() != pgrotate_core::Retry::Never, later, "{status}");
        assert!(!format!("{error:?}").contains("hunter2"));
    }
    let arc = Machine::find(&credentials("IDENTITY_ENDPOINT=http://localhost:40342/x\n"), None).unwrap();
    let error = credential(Source::Machine(arc), NO_CLI).token("s").await.unwrap_err();
    assert!(error.to_string().contains("Azure Arc"), "{error}");
}

#[test]
fn who_gives_an_identity_by_plain_http_is_near() {
    let made = |endpoint: &str| {
        let text = format!("IDENTITY_ENDPOINT={endpoint}\nIDENTITY_HEADER=h\n");
        Machine::find(&credentials(&text), None).map(drop)
    };
    for near in ["http://localhost:42356/msi/token", "http://169.254.129.2:8081/msi/token", "https://x.test/"]
    {
        assert_eq!(made(near), Ok(()), "{near}");
    }
    for far in ["http://example.test/msi", "http://10.0.0.1/msi", "http://u:p@169.254.1.1/", "msi"] {
        assert!(made(far).unwrap_err().to_string().contains("IDENTITY_ENDPOINT"), "{far}");
    }
}

#[test]
fn each_cloud_has_a_name_of_its_own_for_the_exchange() {
    let audience = |text: &str| exchange_audience(&Url::parse(text).unwrap());
    assert_eq!(audience("https://management.azure.com"), "api://AzureADTokenExchange");
    assert_eq!(audience("https://management.usgovcloudapi.net"), "api://AzureADTokenExchangeUSGov");
    assert_eq!(audience("https://management.chinacloudapi.cn"), "api://AzureADTokenExchangeChina");
}

#[tokio::test]
async fn entras_codes_have_words_and_what_to_do() {
    let fake = Fake::start(|_| empty(500)).await;
    let clock = Arc::new(ManualClock::at_second(1_700_000_000));
    for meaning in MEANINGS {
        for code in meaning.codes {
            let text = format!("AZURE_CLIENT_SECRET=hunter2AADSTS{code}\n");
            let shared = fake.shared_with(clock.clone(), &text);
            let error = crate::azure::account(&shared).unwrap().scm_authorization().await.unwrap_err();
            let shown = error.to_string();
            assert!(shown.contains(meaning.why) && shown.contains(&format!("(AADSTS{code})")), "{shown}");
            assert_eq!(error.hints(), [meaning.mend], "{code}");
            assert_eq!(error.retry(), pgrotate_core::Retry::Never, "{code}");
            assert!(!format!("{error:?}").contains("hunter2"), "{code}");
        }
    }
    let unknown = entra(400, "7000000", "the app");
    assert!(
        unknown.to_string().contains("AADSTS7000000") && unknown.hints()[0].contains("/error"),
        "{unknown}"
    );
    assert_eq!(entra(503, "", "the app").retry(), pgrotate_core::Retry::Later { after_ms: None });
    assert!(!format!("{:?}", entra(400, "hunter2", "the app")).contains("hunter2"));
    assert!(MEANINGS.iter().flat_map(|meaning| meaning.codes).all(|code| code.parse::<u64>().is_ok()));
}
