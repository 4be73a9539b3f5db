//! Every way to sign in that the vendors' own tools know, one test each: the program gets in by this
//! way and has no other.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::lab::{Lab, Run};

const AZURE: &[&str] = &["AZURE_CLIENT_SECRET"];
const GITHUB: &[&str] = &["GH_TOKEN"];
const AWS: &[&str] = &["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"];

/// Lines of `NAME=value`.
fn variables(path: &Path) -> BTreeMap<String, String> {
    let text = std::fs::read_to_string(path).unwrap();
    let pairs = text.lines().filter_map(|line| line.split_once('='));
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// A lab whose credentials file lacks these, and what they were.
fn without(names: &[&str]) -> (Lab, BTreeMap<String, String>) {
    let lab = Lab::new("dev");
    let path = lab.world().join("credentials.env");
    let mut all = variables(&path);
    let taken = names.iter().map(|name| ((*name).to_owned(), all.remove(*name).unwrap())).collect();
    let left: String = all.iter().map(|(name, value)| format!("{name}={value}\n")).collect();
    std::fs::write(&path, left).unwrap();
    (lab, taken)
}

impl Lab {
    /// Some of the variables of the other ways.
    fn ways(&self, names: &[&str]) -> Vec<(String, String)> {
        let all = variables(&self.world().join("sign-in.env"));
        names.iter().map(|name| ((*name).to_owned(), all[*name].clone())).collect()
    }

    /// Adds lines to a table of the configuration.
    fn configure(&self, table: &str, lines: &str) {
        let text = std::fs::read_to_string(self.config()).unwrap();
        let head = format!("[{table}]\n");
        assert!(text.contains(&head), "{text}");
        std::fs::write(self.config(), text.replacen(&head, &format!("{head}{lines}\n"), 1)).unwrap();
    }

    /// Runs `check dev` with these variables.
    fn check<N: AsRef<str>, V: AsRef<str>>(&self, variables: &[(N, V)]) -> Run {
        let mut command = self.command(&["check", "dev"]);
        command.envs(variables.iter().map(|(name, value)| (name.as_ref(), value.as_ref())));
        run(&mut command)
    }

    /// A program in front of all others on the PATH.
    fn stand_in(&self, name: &str, script: &str) -> (String, String) {
        let folder = self.world().with_file_name("bin");
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join(name);
        std::fs::write(&path, script).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700)).unwrap();
        let rest = std::env::var("PATH").unwrap_or_default();
        ("PATH".to_owned(), format!("{}:{rest}", folder.display()))
    }

    /// How many requests went to a system whose path has this in it.
    fn asked(&self, system: &str, path: &str) -> usize {
        let fits = |request: &&Value| {
            request["system"] == system && request["path"].as_str().unwrap().contains(path)
        };
        self.requests().iter().filter(fits).count()
    }

    /// The endpoint of AWS, for the services that the configuration does not place.
    fn aws(&self) -> String {
        let text = std::fs::read_to_string(self.config()).unwrap();
        let line = text.lines().find(|line| line.starts_with("endpoint = ")).unwrap();
        line.split('"').nth(1).unwrap().to_owned()
    }

    /// A file below the home folder.
    fn at_home(&self, name: &str, text: &str) {
        let path = self.world().with_file_name(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
}

fn run(command: &mut Command) -> Run {
    Run(command.output().unwrap())
}

/// Refused with words and a hint, and nothing of what is secret.
#[track_caller]
fn refuses(run: Run, said: &[&str], secrets: &[&str]) {
    let text = run.text();
    let _ = run.exits(1);
    for part in said {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(secrets.iter().all(|secret| !text.contains(secret)), "a secret is shown");
}

// ------------------------------------------------------------------------------------------ Azure

#[test]
fn azure_by_a_client_secret() {
    let (lab, taken) = without(AZURE);
    let secret = [("AZURE_CLIENT_SECRET", taken["AZURE_CLIENT_SECRET"].as_str())];
    let _ = lab.check(&secret).exits(0);
    // One for the resource manager, one for the vaults, one for the log.
    let tokens = lab.asked("sign_in", "/oauth2/v2.0/token");
    assert!((1..=3).contains(&tokens), "{tokens} tokens");
}

#[test]
fn azure_by_a_token_file() {
    let (lab, _) = without(AZURE);
    let file = lab.ways(&["AZURE_FEDERATED_TOKEN_FILE"]);
    let _ = lab.check(&file).exits(0);
    assert!(lab.asked("sign_in", "/oauth2/v2.0/token") > 0);

    lab.set("sign_in", "assertions_expired", &json!(true));
    let token = std::fs::read_to_string(lab.world().join("federated-token")).unwrap();
    refuses(lab.check(&file), &["has expired", "AADSTS700024", "new token"], &[&token]);
}

#[test]
fn azure_by_a_github_jobs_id_token() {
    let (lab, _) = without(AZURE);
    let mut job = lab.ways(&["ACTIONS_ID_TOKEN_REQUEST_URL", "ACTIONS_ID_TOKEN_REQUEST_TOKEN"]);
    job.push(("GITHUB_ACTIONS".into(), "true".into()));
    let _ = lab.check(&job).exits(0);
    assert!(lab.asked("github_jobs", "audience=api%3A%2F%2FAzureADTokenExchange") > 0);

    lab.set("sign_in", "job", &json!("repo:mindwell/backend:pull_request"));
    let said = ["AADSTS700213", "federated-credential", "subject repo:mindwell/backend:pull_request"];
    refuses(lab.check(&job), &said, &[&job[1].1]);

    let unknown = [&job[..1], &[("ACTIONS_ID_TOKEN_REQUEST_TOKEN".into(), "canary".into())]].concat();
    refuses(lab.check(&unknown), &["cannot get an id token from GitHub", "id-token: write"], &["canary"]);

    // Without the permission the job has neither variable.
    let nowhere = ("AZURE_POD_IDENTITY_AUTHORITY_HOST".to_owned(), "http://127.0.0.1:1".to_owned());
    let without = [job[2].clone(), nowhere, lab.stand_in("az", "#!/bin/sh\nexit 1\n")];
    refuses(lab.check(&without), &["permissions: id-token: write"], &[]);
}

#[test]
fn azure_by_an_app_services_identity() {
    let (lab, _) = without(AZURE);
    let app = lab.ways(&["IDENTITY_ENDPOINT", "IDENTITY_HEADER"]);
    let _ = lab.check(&app).exits(0);
    assert!(lab.asked("managed_identity", "/msi/token?") > 0);
    assert_eq!(lab.asked("sign_in", "/oauth2/"), 0, "the identity needs no other sign-in");

    lab.set("sign_in", "identity", &json!(false));
    refuses(lab.check(&app), &["AZURE_CLIENT_ID is not assigned here"], &[&app[1].1]);
    let wrong = [app[0].clone(), ("IDENTITY_HEADER".into(), "canary".into())];
    refuses(lab.check(&wrong), &["IDENTITY_HEADER is not accepted"], &["canary"]);
}

#[test]
fn azure_by_a_virtual_machines_identity() {
    let (lab, _) = without(AZURE);
    let mut machine = lab.ways(&["AZURE_POD_IDENTITY_AUTHORITY_HOST"]);
    // Found where nobody is logged in, and never through a proxy: nobody listens there.
    machine.push(
        lab.stand_in("az", "#!/bin/sh\necho \"Please run 'az login' to setup account.\" >&2\nexit 1\n"),
    );
    machine.push(("HTTP_PROXY".into(), "http://127.0.0.1:1".into()));
    let _ = lab.check(&machine).exits(0);
    assert!(lab.asked("managed_identity", "/metadata/identity/oauth2/token?") > 0);

    lab.set("sign_in", "identity", &json!(false));
    let each = [
        "AZURE_CLIENT_SECRET is not set",
        "neither AZURE_FEDERATED_TOKEN_FILE nor ACTIONS_ID_TOKEN_REQUEST_URL",
        "Azure CLI: it is not logged in",
        "managed identity: the one of AZURE_CLIENT_ID is not assigned here",
        "az login",
    ];
    refuses(lab.check(&machine), &each, &[]);
}

/// Answers as `az account get-access-token` does, with tokens that the sandbox issues.
const AZ: &str = r#"#!/usr/bin/env python3
import json, os, ssl, sys, time, urllib.parse, urllib.request
here = os.path.dirname(os.path.abspath(__file__))
with open(os.path.join(here, "az.json")) as file: known = json.load(file)
arguments = sys.argv[1:]
with open(os.path.join(here, "az.calls"), "a") as file: file.write(" ".join(arguments) + "\n")
if arguments[:5] != ["account", "get-access-token", "-o", "json", "--scope"]: sys.exit(2)
tenant = arguments[arguments.index("--tenant") + 1]
form = dict(grant_type="client_credentials", client_id=known["client"], client_secret=known["secret"], scope=arguments[5])
url = known["host"] + "/" + tenant + "/oauth2/v2.0/token"
trusted = ssl.create_default_context(cafile=known["ca"])
with urllib.request.urlopen(url, urllib.parse.urlencode(form).encode(), context=trusted) as answer: token = json.load(answer)
expires = int(time.time()) + token["expires_in"]
print(json.dumps({"accessToken": token["access_token"], "expiresOn": "2026-01-01 00:00:00.000000", "expires_on": expires,
    "subscription": "00000000-0000-0000-0000-00000000d0e0", "tenant": tenant, "tokenType": "Bearer"}, indent=2))
"#;

#[test]
fn azure_by_the_clis_login() {
    let (lab, taken) = without(AZURE);
    let credentials = variables(&lab.world().join("credentials.env"));
    let path = lab.stand_in("az", AZ);
    let known = json!({
        "client": credentials["AZURE_CLIENT_ID"],
        "secret": taken["AZURE_CLIENT_SECRET"],
        "host": credentials["AZURE_AUTHORITY_HOST"],
        "ca": lab.world().join("ca.pem"),
    });
    lab.at_home("bin/az.json", &known.to_string());
    let _ = lab.check(std::slice::from_ref(&path)).exits(0);
    let calls = std::fs::read_to_string(lab.world().with_file_name("bin/az.calls")).unwrap();
    assert!((1..=3).contains(&calls.lines().count()), "once for each audience: {calls}");
    assert!(calls.lines().all(|call| call.contains("--tenant 00000000-")), "{calls}");

    // Chosen by name, it is asked although there is a secret.
    lab.configure("azure", "sign_in = \"cli\"");
    let both = [path, ("AZURE_CLIENT_SECRET".into(), "canary".into())];
    let _ = lab.check(&both).exits(0);
    let expired =
        "#!/bin/sh\necho 'ERROR: AADSTS700082: The refresh token canary has expired.' >&2\nexit 1\n";
    let late = [lab.stand_in("az", expired)];
    refuses(lab.check(&late), &["the login has expired (AADSTS700082)", "az login"], &["canary"]);
}

#[test]
fn azures_refusals_say_what_to_do() {
    let lab = Lab::new("dev");
    let unknown = [("AZURE_CLIENT_ID", "00000000-0000-0000-0000-00000000dead")];
    refuses(lab.check(&unknown), &["AADSTS700016", "AZURE_CLIENT_ID"], &[]);
    let wrong = [("AZURE_CLIENT_SECRET", "canary")];
    refuses(lab.check(&wrong), &["the secret is wrong", "value, not its id"], &["canary"]);
    lab.set("sign_in", "secret_expired", &json!(true));
    let none: [(&str, &str); 0] = [];
    refuses(lab.check(&none), &["AADSTS7000222", "az ad app credential reset"], &[]);
    // What fails for good is asked once for each audience, however many copies wait for it.
    let before = lab.asked("sign_in", "/oauth2/");
    refuses(lab.check(&none), &["AADSTS7000222"], &[]);
    assert!(lab.asked("sign_in", "/oauth2/") - before <= 3);
    lab.set("sign_in", "secret_expired", &json!(false));
    let text = std::fs::read_to_string(lab.config()).unwrap();
    let elsewhere = text.replace("tenant = \"00000000", "tenant = \"10000000");
    std::fs::write(lab.config(), elsewhere).unwrap();
    refuses(lab.check(&none), &["AADSTS90002", "[azure] tenant"], &[]);
}

// ----------------------------------------------------------------------------------------- GitHub

#[test]
fn github_by_a_token() {
    let (lab, taken) = without(GITHUB);
    // The last is for an enterprise server, which every other host than github.com's is.
    for name in ["GH_TOKEN", "GITHUB_TOKEN", "GH_ENTERPRISE_TOKEN"] {
        let _ = lab.check(&[(name, taken["GH_TOKEN"].as_str())]).exits(0);
    }
    refuses(
        lab.check(&[("GH_TOKEN", "canary")]),
        &["does not accept the token", "renew GH_TOKEN"],
        &["canary"],
    );
}

#[test]
fn github_by_ghs_login() {
    let (lab, taken) = without(GITHUB);
    let token = &taken["GH_TOKEN"];
    // The real one knows a host that is not at 443 by host and port.
    let script = "#!/bin/sh\ncase $* in 'auth token --hostname localhost:'[0-9]*) cat \"$0.token\" ;; *) exit 1 ;; esac\n";
    let path = [lab.stand_in("gh", script)];
    lab.at_home("bin/gh.token", &format!("{token}\n"));
    let _ = lab.check(&path).exits(0);
    let out = [lab.stand_in("gh", "#!/bin/sh\nexit 1\n")];
    refuses(lab.check(&out), &["`gh` is not logged in to localhost:", "GH_HOST=localhost:"], &[token]);
}

#[test]
fn github_by_an_apps_installation() {
    let (lab, taken) = without(GITHUB);
    let id = lab.ways(&["GITHUB_APP_ID"])[0].1.clone();
    lab.configure("github", &format!("app_id = {id}"));
    let key = lab.ways(&["GITHUB_APP_PRIVATE_KEY_FILE"]);
    let _ = lab.check(&key).exits(0);
    assert_eq!(
        lab.asked("github", "/installation"),
        2,
        "looked up and asked for a token, once for both secrets"
    );

    // As a variable's value, in one line; and a whole rotation by it.
    let pem = std::fs::read_to_string(&key[0].1).unwrap().replace('\n', "\\n");
    let old = lab.password("dev");
    let mut rotate = lab.command(&["rotate", "dev", "--ticket", "mindwell/ops#12"]);
    let _ = run(rotate.env("GITHUB_APP_PRIVATE_KEY", &pem)).exits(0);
    lab.everything_is_new("dev", &old);
    assert_eq!(lab.asked("github", "/issues/12/comments"), 2, "looked for and posted");

    let first_line = pem.split("\\n").nth(1).unwrap();
    let secrets = [taken["GH_TOKEN"].as_str(), first_line];
    let read = json!({"metadata": "read", "secrets": "read", "actions": "read"});
    lab.set("github", "app_permissions", &read);
    refuses(lab.check(&key), &["lacks the permission \"Secrets: write\"", "App's settings"], &secrets);
    lab.set("github", "app_suspended", &json!(true));
    refuses(lab.check(&key), &["installation is suspended"], &secrets);
    lab.set("github", "app_removed", &json!(true));
    refuses(lab.check(&key), &["not installed on mindwell/backend", "Install App"], &secrets);
    let none: [(&str, &str); 0] = [];
    refuses(lab.check(&none), &["neither GITHUB_APP_PRIVATE_KEY nor GITHUB_APP_PRIVATE_KEY_FILE"], &secrets);
}

// -------------------------------------------------------------------------------------------- AWS

const ROLE: &str = "arn:aws:iam::123456789012:role/rotation";

#[test]
fn aws_by_keys_in_the_environment() {
    let (lab, taken) = without(AWS);
    let _ = lab.check(&taken.into_iter().collect::<Vec<_>>()).exits(0);
}

#[test]
fn aws_by_a_shared_profile() {
    let (lab, taken) = without(AWS);
    let keys = format!(
        "[rotation]\naws_access_key_id = {}\naws_secret_access_key = {}\n",
        taken["AWS_ACCESS_KEY_ID"], taken["AWS_SECRET_ACCESS_KEY"]
    );
    lab.at_home(".aws/credentials", &keys);
    let _ = lab.check(&[("AWS_PROFILE", "rotation")]).exits(0);
    lab.configure("aws", "profile = \"rotation\"");
    let none: [(&str, &str); 0] = [];
    let _ = lab.check(&none).exits(0);
    // Named in the configuration, it has to be there.
    lab.at_home(".aws/credentials", "");
    refuses(lab.check(&none), &["there are no AWS credentials", "one that ~/.aws/config has"], &[]);
}

#[test]
fn aws_by_an_assumed_role() {
    let (lab, taken) = without(AWS);
    let keys = format!(
        "[base]\naws_access_key_id = {}\naws_secret_access_key = {}\n",
        taken["AWS_ACCESS_KEY_ID"], taken["AWS_SECRET_ACCESS_KEY"]
    );
    lab.at_home(".aws/credentials", &keys);
    let role =
        format!("[profile rotation]\nrole_arn = {ROLE}\nsource_profile = base\nregion = eu-central-1\n");
    lab.at_home(".aws/config", &role);
    let endpoint = lab.aws();
    let _ = lab.check(&[("AWS_PROFILE", "rotation"), ("AWS_ENDPOINT_URL_STS", &endpoint)]).exits(0);
    lab.configure("aws", "profile = \"rotation\"");
    let before = lab.requests().len();
    let _ = lab.check(&[("AWS_ENDPOINT_URL_STS", &endpoint)]).exits(0);
    assert_eq!(sts(&lab, before), 1, "one call of STS for all");
}

/// The calls of STS after so many requests: those without an operation of Secrets Manager.
fn sts(lab: &Lab, before: usize) -> usize {
    let fits = |request: &&Value| {
        request["operation"].as_str().is_some_and(|operation| operation.starts_with("AssumeRole"))
    };
    lab.requests()[before..].iter().filter(fits).count()
}

#[test]
fn aws_by_a_web_identity() {
    let (lab, _) = without(AWS);
    lab.at_home("web-identity", &std::fs::read_to_string(lab.world().join("federated-token")).unwrap());
    let token = lab.world().with_file_name("web-identity").display().to_string();
    let endpoint = lab.aws();
    let web = [
        ("AWS_WEB_IDENTITY_TOKEN_FILE", token.as_str()),
        ("AWS_ROLE_ARN", ROLE),
        ("AWS_ENDPOINT_URL_STS", &endpoint),
    ];
    let _ = lab.check(&web).exits(0);
    assert_eq!(sts(&lab, 0), 1);
    let gone = [("AWS_WEB_IDENTITY_TOKEN_FILE", "/nowhere"), web[1], web[2]];
    refuses(lab.check(&gone), &["the AWS credentials could not be fetched"], &[]);
}

#[test]
fn aws_by_a_credential_process() {
    let (lab, taken) = without(AWS);
    let answer = json!({
        "Version": 1,
        "AccessKeyId": taken["AWS_ACCESS_KEY_ID"],
        "SecretAccessKey": taken["AWS_SECRET_ACCESS_KEY"],
        "SessionToken": "session",
        "Expiration": "2126-01-01T00:00:00Z",
    });
    lab.at_home("keys.json", &answer.to_string());
    let keys = lab.world().with_file_name("keys.json");
    lab.at_home(".aws/config", &format!("[profile rotation]\ncredential_process = cat {}\n", keys.display()));
    let _ = lab.check(&[("AWS_PROFILE", "rotation")]).exits(0);
    std::fs::remove_file(keys).unwrap();
    refuses(lab.check(&[("AWS_PROFILE", "rotation")]), &["the AWS credentials could not be fetched"], &[]);
}

/// A service on loopback that gives every request one answer, and the requests' heads.
struct Giver {
    url: String,
    heads: std::sync::mpsc::Receiver<String>,
}

impl Giver {
    fn new(answer: &Value) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (seen, heads) = std::sync::mpsc::channel();
        let body = answer.to_string();
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let mut head = Vec::new();
                let mut byte = [0];
                while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap_or(0) == 1 {
                    head.push(byte[0]);
                }
                let _ = seen.send(String::from_utf8_lossy(&head).into_owned());
                let _ = write!(
                    stream,
                    "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                    body.len()
                );
            }
        });
        Self { url, heads }
    }
}

#[test]
fn aws_by_a_containers_endpoint() {
    let (lab, taken) = without(AWS);
    let giver = Giver::new(&json!({
        "AccessKeyId": taken["AWS_ACCESS_KEY_ID"],
        "SecretAccessKey": taken["AWS_SECRET_ACCESS_KEY"],
        "Token": "session",
        "Expiration": "2126-01-01T00:00:00Z",
    }));
    let url = format!("{}/v1/credentials", giver.url);
    let container =
        [("AWS_CONTAINER_CREDENTIALS_FULL_URI", url.as_str()), ("AWS_CONTAINER_AUTHORIZATION_TOKEN", "pod")];
    let _ = lab.check(&container).exits(0);
    let head = giver.heads.recv().unwrap();
    assert!(head.starts_with("GET /v1/credentials ") && head.contains("authorization: pod"), "{head}");
}

#[test]
fn aws_by_a_single_sign_on() {
    let (lab, taken) = without(AWS);
    let giver = Giver::new(&json!({"roleCredentials": {
        "accessKeyId": taken["AWS_ACCESS_KEY_ID"],
        "secretAccessKey": taken["AWS_SECRET_ACCESS_KEY"],
        "sessionToken": "session",
        "expiration": 4_922_000_000_000_u64,
    }}));
    lab.at_home(
        ".aws/config",
        "[profile rotation]\nsso_session = corporate\nsso_account_id = 123456789012\nsso_role_name = rotation\n\
         [sso-session corporate]\nsso_region = eu-central-1\nsso_start_url = https://corporate.awsapps.example/start\n",
    );
    let login = |expires: &str| {
        json!({"accessToken": "canary", "expiresAt": expires, "region": "eu-central-1",
            "startUrl": "https://corporate.awsapps.example/start"})
        .to_string()
    };
    // The file's name is the SHA-1 of the session's.
    let cache = ".aws/sso/cache/e276d18d65653fa285155bfd3e11ab029306830c.json";
    lab.at_home(cache, &login("2126-01-01T00:00:00Z"));
    let sso = [("AWS_PROFILE", "rotation"), ("AWS_ENDPOINT_URL_SSO", giver.url.as_str())];
    let _ = lab.check(&sso).exits(0);
    let head = giver.heads.recv().unwrap();
    assert!(head.starts_with("GET /federation/credentials?") && head.contains("canary"), "{head}");

    lab.at_home(cache, &login("2020-01-01T00:00:00Z"));
    refuses(lab.check(&sso), &["aws sso login"], &["canary"]);
}

#[test]
fn aws_without_any_way_says_what_there_is() {
    let (lab, _) = without(AWS);
    let none = [("AWS_EC2_METADATA_DISABLED", "true")];
    refuses(lab.check(&none), &["there are no AWS credentials", "AWS_ACCESS_KEY_ID", "aws sso login"], &[]);
}
