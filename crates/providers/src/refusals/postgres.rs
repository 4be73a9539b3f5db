//! PostgreSQL itself: a server of our own that lets in or refuses as told, and quotes what it was sent.

use std::sync::Arc;

use pgrotate_core::database_url::Target;
use pgrotate_core::provider::{Authority, Change, Verifier};
use pgrotate_core::{Error, Kind, Retry, Secret};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::{CANARY, LATER, NEVER, Page, UNKNOWN, quiet};
use crate::azure::testing::run;
use crate::fake::shared;
use crate::log_scan::{Redactor, Trouble, trouble};
use crate::postgres::{Options, Postgres, PostgresLogin};
use crate::shared::{DatabaseTls, Shared, TlsMode, Vendors};

/// What the server says, and when.
#[derive(Clone, Copy)]
struct Says {
    code: &'static str,
    routine: &'static str,
    /// At the login; else when the password is to be changed.
    at_login: bool,
}

/// A message of the protocol: its kind, its length, its content.
fn message(kind: u8, content: &[u8]) -> Vec<u8> {
    let length = u32::try_from(content.len() + 4).unwrap().to_be_bytes();
    [&[kind], &length[..], content].concat()
}

fn error_message(says: Says) -> Vec<u8> {
    let mut content = Vec::new();
    let text = format!("somebody said {CANARY}");
    for (field, value) in [
        (b'S', "FATAL"),
        (b'V', "FATAL"),
        (b'C', says.code),
        (b'M', &text),
        (b'D', &text),
        (b'H', &text),
        (b'q', &text),
        (b'R', says.routine),
    ] {
        content.push(field);
        content.extend_from_slice(value.as_bytes());
        content.push(0);
    }
    content.push(0);
    message(b'E', &content)
}

fn row_message(values: &[&str]) -> Vec<u8> {
    let count = u16::try_from(values.len()).unwrap().to_be_bytes();
    let (mut described, mut data) = (count.to_vec(), count.to_vec());
    for value in values {
        // A column without a name, of the type text.
        described.extend_from_slice(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 25, 255, 255, 255, 255, 255, 255, 0, 0]);
        data.extend_from_slice(&u32::try_from(value.len()).unwrap().to_be_bytes());
        data.extend_from_slice(value.as_bytes());
    }
    [message(b'T', &described), message(b'D', &data), message(b'C', b"SELECT 1\0")].concat()
}

const READY: &[u8] = &[b'Z', 0, 0, 0, 5, b'I'];
const WELCOME: &[u8] = &[b'R', 0, 0, 0, 8, 0, 0, 0, 0];

async fn talk(mut stream: TcpStream, says: Says) -> std::io::Result<()> {
    let length = stream.read_u32().await?;
    let mut startup = vec![0; length as usize - 4];
    stream.read_exact(&mut startup).await?;
    if says.at_login {
        return stream.write_all(&error_message(says)).await;
    }
    stream.write_all(&[WELCOME, READY].concat()).await?;
    loop {
        let kind = stream.read_u8().await?;
        let length = stream.read_u32().await?;
        let mut content = vec![0; length as usize - 4];
        stream.read_exact(&mut content).await?;
        let sql = String::from_utf8_lossy(&content);
        let answer = match kind {
            b'Q' if sql.starts_with("select session_user") => {
                row_message(&["mindwelladmin", "mindwelladmin"])
            }
            b'Q' => error_message(says),
            _ => return Ok(()),
        };
        stream.write_all(&[&answer[..], READY].concat()).await?;
    }
}

async fn server(says: Says) -> Arc<Shared> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(talk(stream, says));
        }
    });
    let shared = Arc::into_inner(shared(Vendors::default(), "")).unwrap();
    let target = Target { host: "127.0.0.1".into(), port, ..shared.target };
    let database_tls = DatabaseTls { mode: TlsMode::Disable, ca_file: None };
    Arc::new(Shared { target, database_tls, ..shared })
}

async fn error_of(says: Says) -> Error {
    let shared = server(says).await;
    if says.at_login {
        return PostgresLogin::new(shared).login(&Secret::new(CANARY)).await.unwrap_err();
    }
    let authority = Postgres::new(None, serde_json::from_str::<Options>("{}").unwrap(), shared).unwrap();
    let (current, next) = (Secret::new("old"), Secret::new(CANARY));
    authority.install(&Change { run: run(), current: &current, next: &next }).await.unwrap_err()
}

async fn page(at_login: bool, rows: &[(&str, &'static str, &'static str, Kind, Retry)]) -> String {
    let mut page = Page::default();
    for (what, code, routine, kind, retry) in rows {
        let error = error_of(Says { code, routine, at_login }).await;
        page.error(&format!("{code}: {what}"), &error, *kind, *retry);
    }
    // The port is another one in each run.
    let lines = page.0.lines().map(|line| match line.split_once("@127.0.0.1:") {
        Some((before, after)) => {
            format!("{before}@SERVER{}", after.trim_start_matches(|c: char| c.is_ascii_digit()))
        }
        None => line.to_owned(),
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[tokio::test]
async fn a_login_that_the_server_refuses() {
    let rows = [
        ("no line of pg_hba.conf fits", "28000", "ClientAuthentication", Kind::Forbidden, NEVER),
        ("the role may not log in", "28000", "InitializeSessionUserId", Kind::Forbidden, NEVER),
        ("no such database", "3D000", "InitPostgres", Kind::NotFound, NEVER),
        ("no right to connect", "42501", "CheckMyDatabase", Kind::Forbidden, NEVER),
        ("too many sessions", "53300", "InitProcess", Kind::Busy, LATER),
        ("out of memory", "53200", "", Kind::Busy, LATER),
        ("starting or stopping", "57P03", "", Kind::Busy, LATER),
        ("ended by an administrator", "57P01", "", Kind::Unreachable, LATER),
        ("a pooler lost its server", "08006", "", Kind::Unreachable, LATER),
        ("something else", "XX001", "", Kind::Rejected, NEVER),
    ];
    insta::assert_snapshot!("postgres_login", page(true, &rows).await);
}

/// 28P01 is an answer and not an error: the password is wrong, or there is no such role. The server says the same of
/// both.
#[tokio::test]
async fn a_password_that_is_refused_is_an_answer() {
    let shared = server(Says { code: "28P01", routine: "auth_failed", at_login: true }).await;
    let login = PostgresLogin::new(Arc::clone(&shared)).login(&Secret::new(CANARY)).await.unwrap();
    assert_eq!(login, pgrotate_core::provider::Login::Refused);
    let authority = Postgres::new(None, serde_json::from_str::<Options>("{}").unwrap(), shared).unwrap();
    let (current, next) = (Secret::new("old"), Secret::new(CANARY));
    let error = authority.install(&Change { run: run(), current: &current, next: &next }).await.unwrap_err();
    assert_eq!((error.kind(), error.retry(), error.hints().len()), (Kind::Refused, NEVER, 1));
    quiet("28P01", &format!("{error} {error:?}"));
}

#[tokio::test]
async fn a_change_that_the_server_refuses() {
    let rows = [
        ("the role may not change itself", "42501", "", Kind::Forbidden, NEVER),
        ("a replica", "25006", "", Kind::BadState, NEVER),
        ("a replica, by its words for `begin read write`", "0A000", "", Kind::BadState, NEVER),
        ("another session changes the role", "55P03", "", Kind::Busy, LATER),
        ("another session has changed the role", "XX000", "", Kind::Busy, LATER),
        ("it took too long", "57014", "", Kind::TimedOut, LATER),
        ("the session was ended", "57P01", "", Kind::Unreachable, UNKNOWN),
        ("the end of a transaction is unknown", "40003", "", Kind::Unreachable, UNKNOWN),
        ("a check of passwords refuses it", "22023", "", Kind::Rejected, NEVER),
    ];
    insta::assert_snapshot!("postgres_change", page(false, &rows).await);
}

/// What the stacks print when a login fails, as a log has it; nothing of it is shown that could be a password.
#[test]
fn what_applications_print_is_recognised_and_hidden() {
    let redactor = Redactor::new([&Secret::new(CANARY)]).strict();
    let login = [
        "FATAL:  password authentication failed for user \"u\"",
        "DETAIL:  Connection matched; FATAL:  password authentication failed for user \"u\": Role \"u\" does not exist.",
        "connection to server at \"h\", port 5432 failed: FATAL:  password authentication failed for user \"u\"",
        "asyncpg.exceptions.InvalidPasswordError: password authentication failed for user \"u\"",
        "sqlalchemy.exc.DBAPIError: (sqlalchemy.dialects.postgresql.asyncpg.Error) password authentication failed for user \"u\"",
        "sqlalchemy.exc.OperationalError: (psycopg.OperationalError) connection failed: FATAL:  password authentication failed for user \"u\"",
        "asyncpg.exceptions.InvalidAuthorizationSpecificationError: role \"u\" is not permitted to log in",
        "FATAL:  no pg_hba.conf entry for host \"10.0.0.1\", user \"u\", database \"d\", no encryption",
        "sqlstate 28P01",
    ];
    let url = [
        "TypeError: connect() got an unexpected keyword argument 'sslmode'",
        "ValueError: invalid interpolation syntax in 'postgresql://u:Canary/8Zq+9x:@h/d' at position 20",
        "ValueError: invalid literal for int() with base 10: '9x:'",
    ];
    for (lines, meaning) in [(&login[..], Trouble::Login), (&url[..], Trouble::Url)] {
        for line in lines {
            assert_eq!(trouble(line), Some(meaning), "{line}");
            quiet(line, &redactor.line(&format!("{line} {CANARY} postgresql://u:{CANARY}@h/d")));
        }
    }
    // The words of the runbook are printed by nobody.
    assert_eq!(trouble("invalid password"), None);
}
