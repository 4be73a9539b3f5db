//! The provider `postgres` against real servers, and against a peer that breaks off where a
//! real one can't be made to.

#![allow(clippy::unwrap_used, reason = "tests say what they expect by unwrapping, and so do their helpers")]

mod common;

use std::sync::Arc;

use common::{Cluster, PASSWORD, USER, free_port, shared};
use pgrotate_core::database_url::Target;
use pgrotate_core::journal::Effect;
use pgrotate_core::provider::{Authority, Change, Login, Severity, Verifier};
use pgrotate_core::{Error, Kind, Retry, RunId, Secret};
use pgrotate_providers::Shared;
use pgrotate_providers::postgres::{Options, Postgres, PostgresLogin, is_verifier};
use pgrotate_providers::shared::TlsMode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const NEXT: &str = "NewPw7Kd93hXbQ4r";

async fn login(shared: Shared, password: &str) -> Result<Login, Error> {
    PostgresLogin::new(Arc::new(shared)).login(&Secret::new(password)).await
}

fn authority(shared: Shared) -> Postgres {
    Postgres::new(None, Options {}, Arc::new(shared)).unwrap()
}

async fn install(shared: Shared, current: &str, next: &str) -> Result<Effect, Error> {
    let (run, current, next) = (run(), Secret::new(current), Secret::new(next));
    let change = Change { run, current: &current, next: &next };
    authority(shared).install(&change).await.map(|outcome| outcome.effect)
}

fn run() -> RunId {
    "01ARZ3NDEKTSV4RRFFQ69G5FAV".parse().unwrap()
}

fn with_target(cluster: &Cluster, change: impl FnOnce(&mut Target)) -> Shared {
    let mut shared = cluster.shared();
    change(&mut shared.target);
    shared
}

#[tokio::test]
async fn a_login_is_proven_refused_or_explained() {
    let cluster = Cluster::start().await;
    cluster.sql("create role nobody login; create role asleep nologin password 'x'; create role lonely login password 'x' connection limit 0; create role guest login password 'x'; revoke connect on database app_db from public").await;
    assert_eq!(login(cluster.shared(), PASSWORD).await, Ok(Login::Accepted));
    assert_eq!(login(cluster.shared(), "wrong").await, Ok(Login::Refused));
    let unknown = with_target(&cluster, |target| target.user = "whoever".into());
    assert_eq!(login(unknown, PASSWORD).await, Ok(Login::Refused), "28P01 stands for both");

    let said = async |user: &str, database: &str, password: &str| {
        let shared = with_target(&cluster, |target| {
            target.user = user.into();
            target.database = database.into();
        });
        let error = login(shared, password).await.unwrap_err();
        assert!(!error.to_string().contains(PASSWORD), "{error}");
        (error.kind(), error.retry(), error.causes().join(": "))
    };
    let (kind, retry, cause) = said(USER, "none", PASSWORD).await;
    assert_eq!((kind, retry), (Kind::NotFound, Retry::Never));
    assert!(cause.contains("the login succeeded, but there is no database none"), "{cause}");
    let (kind, _, cause) = said("asleep", common::DATABASE, "x").await;
    assert!(kind == Kind::Forbidden && cause.contains("may not log in"), "{cause}");
    let (kind, _, cause) = said("nobody", common::DATABASE, "x").await;
    assert!(kind == Kind::Forbidden && cause.contains("pg_hba.conf"), "{cause}");
    let (kind, _, cause) = said("guest", common::DATABASE, "x").await;
    assert!(kind == Kind::Forbidden && cause.contains("may not connect to app_db"), "{cause}");
    let (kind, retry, cause) = said("lonely", "postgres", "x").await;
    assert_eq!((kind, retry), (Kind::Busy, Retry::Later { after_ms: None }), "{cause}");
}

#[tokio::test]
async fn a_session_of_another_role_is_no_proof() {
    let cluster = Cluster::start().await;
    cluster.sql("create role other; grant other to app; alter role app set role = 'other'").await;
    let error = login(cluster.shared(), PASSWORD).await.unwrap_err();
    assert!(error.to_string().contains("takes the session for the role \"other\""), "{error}");
    let error = install(cluster.shared(), PASSWORD, NEXT).await.unwrap_err();
    assert_eq!((error.kind(), error.retry()), (Kind::Conflict, Retry::Never));
}

#[tokio::test]
async fn the_change_is_made_once_and_the_password_reaches_no_log() {
    let cluster = Cluster::start().await;
    assert_eq!(install(cluster.shared(), PASSWORD, NEXT).await, Ok(Effect::Changed));
    assert_eq!(login(cluster.shared(), NEXT).await, Ok(Login::Accepted));
    assert_eq!(login(cluster.shared(), PASSWORD).await, Ok(Login::Refused));
    assert_eq!(install(cluster.shared(), PASSWORD, NEXT).await, Ok(Effect::AlreadyDone));
    let stored = cluster.ask("select rolpassword from pg_authid where rolname = 'app'").await;
    assert!(is_verifier(&stored), "{stored}");
    let log = cluster.log();
    assert!(log.contains(&stored), "the statement is logged, with the verifier");
    assert!(!log.contains(NEXT) && !log.contains(PASSWORD), "{log}");
    let neither = install(cluster.shared(), PASSWORD, "Other9Pw8Kd93hXb").await.unwrap_err();
    assert_eq!((neither.kind(), neither.retry()), (Kind::Refused, Retry::Never));
}

/// The trap that made `is_verifier` and the login after every change necessary.
#[tokio::test]
async fn the_server_takes_a_damaged_verifier_for_a_password() {
    let cluster = Cluster::start().await;
    let whole = postgres_protocol::password::scram_sha_256(NEXT.as_bytes());
    // What a shell's double quotes make of it: `$4096` and what follows each `$` is expanded.
    let damaged = whole.replacen("$4096", "096", 1);
    assert!(is_verifier(&whole) && !is_verifier(&damaged));
    cluster.sql(&format!("alter role {USER} password '{damaged}'")).await;
    let stored = cluster.ask("select rolpassword from pg_authid where rolname = 'app'").await;
    assert!(stored != damaged && is_verifier(&stored), "the text itself was hashed, without a word");
    assert_eq!(login(cluster.shared(), NEXT).await, Ok(Login::Refused), "the login finds it out");
    assert_eq!(login(cluster.shared(), &damaged).await, Ok(Login::Accepted));
}

#[tokio::test]
async fn the_check_sees_what_would_stop_the_change() {
    let mut cluster = Cluster::start().await;
    let current = Secret::new(PASSWORD);
    assert_eq!(authority(cluster.shared()).check(&current).await.unwrap(), []);
    let unseen = authority(cluster.shared()).check(&Secret::new("wrong")).await.unwrap();
    assert_eq!(unseen[0].severity, Severity::Unseen);

    cluster.sql("alter role app replication valid until '2099-12-31'; alter system set password_encryption = 'md5'; select pg_reload_conf()").await;
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    let findings = authority(cluster.shared()).check(&current).await.unwrap();
    let about =
        |text: &str| findings.iter().find(|finding| finding.what.contains(text)).map(|found| found.severity);
    assert_eq!(about("ends on 2099-12-31"), Some(Severity::Note));
    assert_eq!(about("password_encryption is md5"), Some(Severity::Warning));
    // Only PostgreSQL 16 and newer let such a role change its own password; ask the real thing.
    let changed = install(cluster.shared(), PASSWORD, PASSWORD).await;
    match about("REPLICATION") {
        Some(Severity::Blocks) => assert_eq!(changed.unwrap_err().kind(), Kind::Forbidden),
        _ => assert_eq!(changed, Ok(Effect::Changed)),
    }

    cluster.sql("alter role app noreplication").await;
    cluster.demote().await;
    let findings = authority(cluster.shared()).check(&current).await.unwrap();
    assert!(
        findings.iter().any(|found| found.severity == Severity::Blocks && found.what.contains("replica")),
        "{findings:?}"
    );
    let error = install(cluster.shared(), PASSWORD, NEXT).await.unwrap_err();
    assert_eq!((error.kind(), error.retry()), (Kind::BadState, Retry::Never), "{error}");
    assert_eq!(login(cluster.shared(), PASSWORD).await, Ok(Login::Accepted));
}

#[tokio::test]
async fn a_change_that_another_session_blocks_is_taken_back() {
    let cluster = Cluster::start().await;
    let (blocker, connection) = {
        let mut config = tokio_postgres::Config::new();
        config.host_path(cluster.path("")).port(cluster.target().port).user("postgres").dbname("postgres");
        config.connect(tokio_postgres::NoTls).await.unwrap()
    };
    tokio::spawn(connection);
    blocker.batch_execute("begin; alter role app connection limit 7").await.unwrap();
    let error = install(cluster.shared(), PASSWORD, NEXT).await.unwrap_err();
    assert_eq!((error.kind(), error.retry()), (Kind::Busy, Retry::Later { after_ms: None }), "{error}");
    blocker.batch_execute("rollback").await.unwrap();
    assert_eq!(login(cluster.shared(), PASSWORD).await, Ok(Login::Accepted));
    assert_eq!(install(cluster.shared(), PASSWORD, NEXT).await, Ok(Effect::Changed));
}

#[tokio::test]
async fn certificates_are_checked() {
    let cluster = Cluster::start_as("db.example.com").await;
    let hinted = async |shared: Shared| {
        let error = login(shared, PASSWORD).await.unwrap_err();
        assert_eq!((error.kind(), error.retry()), (Kind::Unreachable, Retry::Never));
        format!("{error}; {}", error.hints().join("; "))
    };
    let other_name = hinted(cluster.shared()).await;
    assert!(other_name.contains("for another host name"), "{other_name}");
    let mut stranger = cluster.shared();
    stranger.ca = None;
    let stranger = hinted(stranger).await;
    assert!(stranger.contains("ca_file"), "{stranger}");

    // A CA file of the database's own goes before the shared one.
    std::fs::write(cluster.path("ca.pem"), cluster.ca()).unwrap();
    let mut own = cluster.shared();
    own.ca = Some(b"not a certificate".to_vec());
    own.database_tls.ca_file = Some(cluster.path("ca.pem"));
    assert!(hinted(own).await.contains("for another host name"), "so the chain itself is trusted");
    let mut missing = cluster.shared();
    missing.database_tls.ca_file = Some("missing.pem".into());
    let error = login(missing, PASSWORD).await.unwrap_err();
    assert!(error.to_string().contains("/nowhere/missing.pem"), "{error}");
}

#[tokio::test]
async fn where_nobody_listens_it_can_be_tried_again() {
    let target =
        Target { port: free_port(), host: "127.0.0.1".into(), database: "d".into(), user: "u".into() };
    let error = login(shared(target.clone(), TlsMode::Disable, None), PASSWORD).await.unwrap_err();
    assert_eq!((error.kind(), error.retry()), (Kind::Unreachable, Retry::Later { after_ms: None }));
    let nowhere = Target { host: "no-such-host.invalid".into(), ..target };
    let error = login(shared(nowhere, TlsMode::VerifyFull, None), PASSWORD).await.unwrap_err();
    assert!(error.to_string().contains("no such host name"), "{error}");
}

#[tokio::test]
async fn another_machine_is_never_reached_without_tls() {
    let target = Target { host: "192.0.2.1".into(), port: 5432, database: "d".into(), user: "u".into() };
    let plain = || shared(target.clone(), TlsMode::Disable, None);
    let error = login(plain(), PASSWORD).await.unwrap_err();
    assert_eq!((error.kind(), error.retry()), (Kind::Config, Retry::Never));
    let error = Postgres::new(None, Options {}, Arc::new(plain())).err().unwrap();
    assert!(error.hints()[0].contains("ca_file"), "{error}");
}

/// What a scripted server does after a client's startup message.
#[derive(Clone, Copy)]
enum Script {
    /// Wants the password hashed so many times, and refuses it.
    Rounds(u32),
    /// Refuses TLS.
    NoTls,
    /// Says no at once, with this SQLSTATE.
    Fails(&'static str),
    /// Lets everybody in, answers the first question, and hangs up at the second.
    HangsUp,
    /// The same, but says this SQLSTATE before.
    EndsWith(&'static str),
}

async fn scripted(script: Script) -> Target {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = play(&mut stream, script).await;
        }
    });
    Target { host: "127.0.0.1".into(), port, database: "d".into(), user: "u".into() }
}

async fn play(stream: &mut tokio::net::TcpStream, script: Script) -> std::io::Result<()> {
    let mut startup = vec![0; stream.read_u32().await? as usize - 4];
    stream.read_exact(&mut startup).await?;
    match script {
        Script::Rounds(rounds) => return ask_for_rounds(stream, rounds).await,
        Script::NoTls => return stream.write_all(b"N").await,
        Script::Fails(state) => return stream.write_all(&failure(state)).await,
        Script::HangsUp | Script::EndsWith(_) => {}
    }
    let ready = message(b'Z', b"I");
    stream.write_all(&[message(b'R', &[0, 0, 0, 0]), ready.clone()].concat()).await?;
    question(stream).await?;
    let row = [&2_u16.to_be_bytes()[..], &1_u32.to_be_bytes(), b"u", &1_u32.to_be_bytes(), b"u"].concat();
    let column = [&b"c\0"[..], &[0; 6], &25_u32.to_be_bytes(), &[0; 8]].concat();
    let columns = [&2_u16.to_be_bytes()[..], &column, &column].concat();
    let answer = [message(b'T', &columns), message(b'D', &row), message(b'C', b"SELECT 1\0"), ready].concat();
    stream.write_all(&answer).await?;
    question(stream).await?;
    match script {
        Script::EndsWith(state) => stream.write_all(&failure(state)).await,
        _ => Ok(()),
    }
}

/// SCRAM, as far as a client has to compute something.
async fn ask_for_rounds(stream: &mut tokio::net::TcpStream, rounds: u32) -> std::io::Result<()> {
    let says = |kind: u32, body: &[u8]| message(b'R', &[&kind.to_be_bytes()[..], body].concat());
    stream.write_all(&says(10, b"SCRAM-SHA-256\0\0")).await?;
    stream.read_u8().await?;
    let mut first = vec![0; stream.read_u32().await? as usize - 4];
    stream.read_exact(&mut first).await?;
    let first = String::from_utf8_lossy(&first);
    let nonce = first.split_once("r=").unwrap().1;
    stream.write_all(&says(11, format!("r={nonce}more,s=c2FsdA==,i={rounds}").as_bytes())).await?;
    question(stream).await?;
    stream.write_all(&failure("28P01")).await
}

async fn question(stream: &mut tokio::net::TcpStream) -> std::io::Result<()> {
    stream.read_u8().await?;
    let mut rest = vec![0; stream.read_u32().await? as usize - 4];
    stream.read_exact(&mut rest).await.map(drop)
}

fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    [&[tag][..], &(body.len() as u32 + 4).to_be_bytes(), body].concat()
}

fn failure(state: &str) -> Vec<u8> {
    message(b'E', format!("SFATAL\0VFATAL\0C{state}\0Mthe text is not looked at\0\0").as_bytes())
}

#[tokio::test]
async fn what_ends_a_change_halfway_leaves_it_open() {
    for script in [Script::HangsUp, Script::EndsWith("57P01"), Script::EndsWith("08006")] {
        let shared = shared(scripted(script).await, TlsMode::Disable, None);
        let error = install(shared, PASSWORD, NEXT).await.unwrap_err();
        assert_eq!(error.retry(), Retry::Unknown, "{error}");
    }
    let refused = shared(scripted(Script::EndsWith("22023")).await, TlsMode::Disable, None);
    let error = install(refused, PASSWORD, NEXT).await.unwrap_err();
    assert_eq!((error.kind(), error.retry()), (Kind::Rejected, Retry::Never), "{error}");
}

/// Nothing ends the hashing once it has begun: 4 294 967 295 rounds would take an hour, whatever a login's time is.
#[tokio::test]
async fn a_server_that_wants_hours_of_hashing_is_refused() {
    let wants = async |rounds| {
        let shared = shared(scripted(Script::Rounds(rounds)).await, TlsMode::Disable, None);
        login(shared, PASSWORD).await
    };
    assert_eq!(wants(4096).await, Ok(Login::Refused), "this much is hashed, and sent");
    for rounds in [100_001, u32::MAX] {
        let began = std::time::Instant::now();
        let error = wants(rounds).await.unwrap_err();
        assert!(began.elapsed() < std::time::Duration::from_secs(10));
        assert_eq!((error.kind(), error.retry()), (Kind::BadState, Retry::Never), "{error}");
        assert!(error.to_string().contains("more than 100 000 times"), "{error}");
    }
}

#[tokio::test]
async fn a_server_that_is_not_ready_is_asked_later() {
    for (state, kind) in [("57P03", Kind::Busy), ("53300", Kind::Busy), ("57P01", Kind::Unreachable)] {
        let shared = shared(scripted(Script::Fails(state)).await, TlsMode::Disable, None);
        let error = login(shared, PASSWORD).await.unwrap_err();
        assert_eq!((error.kind(), error.retry()), (kind, Retry::Later { after_ms: None }), "{error}");
    }
    let pooler = shared(scripted(Script::Fails("08P01")).await, TlsMode::Disable, None);
    assert!(login(pooler, PASSWORD).await.is_err(), "a pooler's own refusal proves nothing");
    let plain = shared(scripted(Script::NoTls).await, TlsMode::VerifyFull, None);
    let error = login(plain, PASSWORD).await.unwrap_err();
    assert_eq!((error.kind(), error.retry()), (Kind::BadState, Retry::Never), "{error}");
}
