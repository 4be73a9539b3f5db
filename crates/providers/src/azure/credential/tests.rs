//! Who signs in, and what is said when nobody can.

use std::ffi::OsStr;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{ExitStatus, Output};

use pgrotate_core::env::testing::ManualClock;

use super::*;
use crate::azure::testing::Fake;

fn credentials(text: &str) -> Credentials {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_permissions(std::fs::Permissions::from_mode(0o600)).unwrap();
    file.write_all(text.as_bytes()).unwrap();
    Credentials::with_file(file.path()).unwrap()
}

fn found(text: &str, tenant: Option<&str>) -> Result<Source> {
    source(&credentials(text), tenant.map(str::to_owned))
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
    Credential {
        source: Ok(Source::Person { tenant: Some("t".into()), machine: None }),
        options: ClientOptions::default(),
        executor: Some(Arc::new(cli)),
        clock: Arc::new(ManualClock::at_second(1_700_000_000)),
        slots: Mutex::default(),
    }
}

#[test]
fn the_first_complete_configuration_is_used() {
    let all = "AZURE_CLIENT_ID=c\nAZURE_CLIENT_SECRET=s\nAZURE_FEDERATED_TOKEN_FILE=/f\nAZURE_TENANT_ID=t\n";
    assert!(matches!(found(all, None), Ok(Source::Principal { tenant, .. }) if tenant == "t"));
    assert!(matches!(found(all, Some("u")), Ok(Source::Principal { tenant, .. }) if tenant == "u"));
    let workload = "AZURE_CLIENT_ID=c\nAZURE_FEDERATED_TOKEN_FILE=/f\n";
    assert!(matches!(found(workload, Some("t")), Ok(Source::Workload { .. })));
    let machine = found("AZURE_CLIENT_ID=c\n", None);
    assert!(
        matches!(machine, Ok(Source::Person { machine: Some(Machine { client: Some(c) }), .. }) if c == "c")
    );
    let own = found("IDENTITY_ENDPOINT=http://x\n", None);
    assert!(matches!(own, Ok(Source::Person { machine: Some(Machine { client: None }), .. })));
    assert!(matches!(found("", None), Ok(Source::Person { tenant: None, machine: None })));
}

#[test]
fn half_a_configuration_is_named() {
    let error = found("AZURE_CLIENT_SECRET=hunter2\nAZURE_CLIENT_ID=c\n", None).unwrap_err();
    let shown = format!("{error} {:?}", error.hints());
    assert!(shown.contains("AZURE_TENANT_ID is not") && shown.contains("az login"), "{shown}");
    assert!(!shown.contains("hunter2"));
}

#[tokio::test]
async fn the_cli_is_asked_once_for_each_scope() {
    let out = r#"{"accessToken":"hunter2","expires_on":9999999999,"tokenType":"Bearer"}"#;
    let credential = person(FakeCli { status: 0, out, err: "" });
    assert_eq!(credential.token("s").await.unwrap(), Secret::new("hunter2"));
    let credential = Credential {
        slots: Mutex::new(credential.slots.into_inner().unwrap()),
        ..person(FakeCli { status: 1, out: "", err: "must not be asked" })
    };
    assert_eq!(credential.token("s").await.unwrap(), Secret::new("hunter2"));
    assert!(!format!("{credential:?}").contains("hunter2"));
}

#[tokio::test]
async fn nobody_is_told_what_would_help() {
    let error =
        person(FakeCli { status: 127, out: "", err: "sh: az: not found" }).token("s").await.unwrap_err();
    assert!(error.to_string().contains("not installed"), "{error}");
    let hints = error.hints().join(" ");
    assert!(hints.contains("az login") && hints.contains("AZURE_CLIENT_SECRET"), "{hints}");
    let expired = "ERROR: AADSTS700082 token hunter2. Run: az login --tenant t";
    let error = person(FakeCli { status: 1, out: "", err: expired }).token("s").await.unwrap_err();
    assert!(error.to_string().contains("expired") && !format!("{error:?}").contains("hunter2"), "{error}");
}

#[tokio::test]
async fn a_federated_token_is_exchanged() {
    let fake = Fake::start(|_| crate::azure::testing::empty(500)).await;
    let mut token = tempfile::NamedTempFile::new().unwrap();
    token.write_all(b"assertion").unwrap();
    let text = format!("AZURE_FEDERATED_TOKEN_FILE={}\n", token.path().display());
    let shared = fake.shared_with(Arc::new(ManualClock::at_second(1_700_000_000)), &text);
    let account = crate::azure::account(&shared).unwrap();
    assert_eq!(account.scm_authorization().await.unwrap().as_str(), "Bearer token-1");

    let gone = fake.shared_with(shared.clock.clone(), "AZURE_FEDERATED_TOKEN_FILE=/nowhere\n");
    let error = crate::azure::account(&gone).unwrap().scm_authorization().await.unwrap_err();
    assert!(error.to_string().contains("token file can't be read"), "{error}");
}

#[test]
fn entras_codes_have_words() {
    assert!(entra(401, "7000222", "the app").to_string().contains("expired"));
    assert!(entra(400, "90002", "the app").hints()[0].contains("tenant"));
    assert_eq!(entra(503, "", "the app").retry(), pgrotate_core::Retry::Later { after_ms: None });
    assert!(!format!("{:?}", entra(400, "hunter2", "the app")).contains("hunter2"));
}
