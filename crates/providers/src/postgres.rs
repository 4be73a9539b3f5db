//! PostgreSQL itself, reached by SQL: the proof of every password ([`PostgresLogin`]) and an
//! authority ([`Postgres`]) for servers whose password no cloud keeps.
//!
//! The authority logs in as the role whose password it changes; a role may change its own
//! password without any further right (before PostgreSQL 16 not if it has REPLICATION). It
//! works on the primary only. It can't change another role's password.
//!
//! Quirks, each guarded by a test in `tests/postgres.rs`:
//! - What is sent is a SCRAM-SHA-256 verifier, so the password can't reach the server's log;
//!   the plain one would, with `log_statement = ddl` (PostgreSQL manual, ALTER ROLE, notes).
//! - A text that only looks like a verifier is silently taken for a password. The form is
//!   therefore checked before it is sent, and only a login counts as proof afterwards.
//! - 28P01 is the answer to a wrong password and to an unknown role alike; 3D000 (no such
//!   database) comes after a *successful* authentication.
//! - The statement takes no parameters, so the text is quoted here.
//! - Poolers answer for themselves: PgBouncer says some refusals with 08P01, which proves
//!   nothing about the password. Name the server's own port.

mod by_hand;
mod census;
mod connection;
mod pair;
mod vantage;

use std::sync::Arc;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pgrotate_core::by_hand::Instruction;
use pgrotate_core::journal::Outcome;
use pgrotate_core::provider::{Authority, Change, Finding, Login, Severity, Verifier};
use pgrotate_core::{Error, Kind, Result, Secret};
use postgres_protocol::escape::{escape_identifier, escape_literal};
use serde::Deserialize;
use tokio_postgres::SimpleQueryRow;

use crate::shared::Shared;
pub use census::PostgresCensus;
use connection::{Attempt, Connector};
pub use pair::{PostgresPair, PostgresTwin};
pub use vantage::SshVantage;

/// The kind of the authority in the configuration.
const KIND: &str = "postgres";

/// Proves a password: logs in on a fresh connection to the configured database.
pub struct PostgresLogin(Connector);

impl PostgresLogin {
    /// For the environment's target. Connects to nothing yet.
    pub fn new(shared: Arc<Shared>) -> Self {
        Self(Connector::new(shared))
    }
}

#[async_trait]
impl Verifier for PostgresLogin {
    async fn login(&self, secret: &Secret) -> Result<Login> {
        let target = &self.0.shared.target;
        match self.0.open(secret).await? {
            Attempt::Refused => Ok(Login::Refused),
            Attempt::In(session) => {
                let expected = session.expect_role(&self.0.shared, &format!("log in as {target}")).await;
                session.close().await;
                expected.map(|()| Login::Accepted)
            }
        }
    }

    fn by_hand(&self) -> Option<String> {
        Some(self.connection())
    }

    /// The system identifier, which a cluster is given when it is made (`pg_control_system()`, for everybody who may
    /// log in unless that was taken away). Replicas have their primary's.
    async fn identity(&self, secret: &Secret) -> Result<Option<String>> {
        let target = &self.0.shared.target;
        let Attempt::In(session) = self.0.open(secret).await? else { return Ok(None) };
        let sql = "select system_identifier from pg_catalog.pg_control_system()";
        let row =
            session.row(sql, target, &format!("ask the server of {target} for its system identifier")).await;
        session.close().await;
        Ok(row?.get(0).map(str::to_owned))
    }
}

/// There is nothing to set: where the role logs in stands under `[database]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Options {}

/// The server as the authority over one role's password.
pub struct Postgres {
    describe: String,
    connector: Connector,
}

impl Postgres {
    /// For the environment's target. Connects to nothing yet.
    ///
    /// # Errors
    /// When another machine would be reached without TLS.
    pub fn new(name: Option<String>, _options: Options, shared: Arc<Shared>) -> Result<Self> {
        shared.database_tls.allow(&shared.target)?;
        let name = name.unwrap_or_else(|| shared.target.host.clone());
        Ok(Self { describe: format!("{KIND}:{name}"), connector: Connector::new(shared) })
    }

    /// After the current password was refused: an earlier try may have changed it already.
    async fn changed_before(&self, next: &Secret, operation: &str) -> Result<Outcome> {
        match self.connector.open(next).await? {
            Attempt::In(session) => {
                let expected = session.expect_role(&self.connector.shared, operation).await;
                session.close().await;
                expected.map(|()| Outcome::already_done())
            }
            Attempt::Refused => Err(Error::new(Kind::Refused, operation)
                .because("the server refuses both the current password and the new one")
                .hint("somebody changed it meanwhile; find out which one works and store that in the vault of record")),
        }
    }
}

#[async_trait]
impl Authority for Postgres {
    fn describe(&self) -> String {
        self.describe.clone()
    }

    fn location(&self) -> String {
        let target = &self.connector.shared.target;
        format!("{KIND}:{}@{}:{}", target.user, target.host.to_ascii_lowercase(), target.port)
    }

    async fn check(&self, current: &Secret) -> Result<Vec<Finding>> {
        let target = &self.connector.shared.target;
        let operation = format!("look at the role {target}");
        let session = match self.connector.open(current).await? {
            Attempt::In(session) => session,
            // That it blocks is what the login says; here it only hides the rest.
            Attempt::Refused => {
                let what = "what the role may do can't be seen while its password is refused";
                return Ok(vec![Finding::new(Severity::Unseen, self.describe(), what)]);
            }
        };
        let row = session.row(ROLE_QUERY, target, &operation).await;
        session.close().await;
        Ok(Role::read(&row?, &operation)?.findings(&self.describe, &target.user))
    }

    async fn install(&self, change: &Change<'_>) -> Result<Outcome> {
        let target = &self.connector.shared.target;
        let operation = format!("change the password of {target}");
        let verifier = verifier(change.next)?;
        let session = match self.connector.open(change.current).await? {
            Attempt::In(session) => session,
            Attempt::Refused => return self.changed_before(change.next, &operation).await,
        };
        let changed = match session.expect_role(&self.connector.shared, &operation).await {
            Ok(()) => session.change(&statement(&target.user, &verifier), target, &operation).await,
            Err(error) => Err(error),
        };
        session.close().await;
        changed.map(|()| Outcome::changed())
    }

    fn by_hand(&self) -> Vec<Instruction> {
        self.instructions()
    }
}

/// The change, in a transaction of its own: one that takes too long is taken back by the server
/// while we still listen, and one that is reported is on the server's disk.
fn statement(user: &str, verifier: &str) -> String {
    statement_with(user, "password", verifier)
}

/// The same with more than the password.
fn statement_with(user: &str, words: &str, verifier: &str) -> String {
    format!(
        "begin read write; \
         set local lock_timeout = '5s'; set local statement_timeout = '20s'; \
         select set_config('synchronous_commit', 'on', true) where current_setting('synchronous_commit') = 'off'; \
         alter role {} {words} {}; \
         commit",
        escape_identifier(user),
        escape_literal(verifier)
    )
}

/// The SCRAM-SHA-256 verifier of a password, as libpq's `PQencryptPasswordConn` makes it.
pub(crate) fn verifier(password: &Secret) -> Result<String> {
    let verifier = postgres_protocol::password::scram_sha_256(password.expose().as_bytes());
    if is_verifier(&verifier) {
        Ok(verifier)
    } else {
        Err(Error::internal("a SCRAM verifier came out damaged; the server would take it for a password"))
    }
}

/// Whether the server will recognise a text as a verifier: its scheme, iterations, salt, and
/// two keys of 32 bytes, by the rules of the server's `parse_scram_secret`, and a salt and
/// iterations no weaker than the server's own.
pub fn is_verifier(text: &str) -> bool {
    let bytes = |text: &str| STANDARD.decode(text).map_or(0, |bytes| bytes.len());
    let parts = || {
        let (work, keys) = text.strip_prefix("SCRAM-SHA-256$")?.split_once('$')?;
        let ((iterations, salt), (stored, server)) = (work.split_once(':')?, keys.split_once(':')?);
        Some((iterations.parse::<u32>().ok()?, bytes(salt), bytes(stored), bytes(server)))
    };
    parts().is_some_and(|(iterations, salt, stored, server)| {
        iterations >= 4096 && salt >= 16 && stored == 32 && server == 32
    })
}

const ROLE_QUERY: &str = "\
select session_user, current_user, pg_is_in_recovery(), current_setting('server_version_num'), \
       current_setting('password_encryption'), role.rolcanlogin, role.rolsuper, role.rolreplication, \
       case when isfinite(role.rolvaliduntil) then to_char(role.rolvaliduntil at time zone 'UTC', 'YYYY-MM-DD') end, \
       coalesce(role.rolvaliduntil < now() + interval '30 days', false) \
from pg_catalog.pg_roles role where role.rolname = session_user";

/// What the server says about the role and itself.
#[derive(Clone, Debug)]
struct Role {
    session_user: String,
    current_user: String,
    in_recovery: bool,
    version: u32,
    password_encryption: String,
    may_log_in: bool,
    superuser: bool,
    replication: bool,
    expires: Option<String>,
    expires_soon: bool,
}

impl Role {
    fn read(row: &SimpleQueryRow, operation: &str) -> Result<Self> {
        let text = |index: usize| row.try_get(index).ok().flatten().unwrap_or_default().to_owned();
        let flag = |index| text(index) == "t";
        let version = text(3).parse().map_err(|_| {
            Error::new(Kind::Corrupt, operation).because("the server tells no version that could be read")
        })?;
        Ok(Self {
            session_user: text(0),
            current_user: text(1),
            in_recovery: flag(2),
            version,
            password_encryption: text(4),
            may_log_in: flag(5),
            superuser: flag(6),
            replication: flag(7),
            expires: Some(text(8)).filter(|date| !date.is_empty()),
            expires_soon: flag(9),
        })
    }

    /// What stands in the way, or will.
    fn findings(&self, subject: &str, user: &str) -> Vec<Finding> {
        let mut findings = Vec::new();
        let mut find = |severity, what: String, mend: &str| {
            findings.push(Finding::new(severity, subject, what).mend(mend));
        };
        if let Some(other) = [&self.session_user, &self.current_user].into_iter().find(|seen| *seen != user) {
            let what = format!("the server takes the session for the role {other:?}");
            find(
                Severity::Blocks,
                what,
                "look for a map in pg_hba.conf, a pooler, or `ALTER ROLE … SET role`",
            );
        }
        if self.in_recovery {
            let what = "the server is a replica: it takes no changes";
            find(Severity::Blocks, what.into(), "name the primary as `host` under [database]");
        }
        if !self.may_log_in {
            let what = "the role has NOLOGIN; only a pooler's old session let us in";
            find(Severity::Blocks, what.into(), "as an administrator: ALTER ROLE … LOGIN");
        }
        if self.version < 100_000 {
            let what = "the server is older than PostgreSQL 10 and knows no SCRAM";
            find(Severity::Blocks, what.into(), "upgrade the server");
        }
        if self.version < 160_000 && self.replication && !self.superuser {
            let what = "the role has REPLICATION: before PostgreSQL 16 it can't change its own password then";
            find(
                Severity::Blocks,
                what.into(),
                "use a role of its own for replication, or a cloud's authority",
            );
        }
        if self.password_encryption != "scram-sha-256" {
            let what = format!(
                "password_encryption is {}; pgrotate stores SCRAM-SHA-256 all the same, and a client too old for it is refused then",
                self.password_encryption
            );
            find(
                Severity::Warning,
                what,
                "set password_encryption to scram-sha-256, once no such client is left",
            );
        }
        if let Some(date) = &self.expires {
            let severity = if self.expires_soon { Severity::Warning } else { Severity::Note };
            let what = format!("the role's password ends on {date}, and a new one does not move that date");
            find(severity, what, "as an administrator: ALTER ROLE … VALID UNTIL …");
        }
        findings
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_to_the_server_is_a_verifier_and_never_the_password() {
        let verifier = verifier(&Secret::new("hunter2")).unwrap();
        assert_eq!(verifier.len(), 133);
        let statement = statement("o'\"k", &verifier);
        assert!(statement.contains(&format!("alter role \"o'\"\"k\" password '{verifier}'")), "{statement}");
        assert!(!statement.contains("hunter2"));
        let opened = statement_with("no password yet", "login password", &verifier);
        assert!(opened.contains("alter role \"no password yet\" login password '"), "{opened}");
    }

    #[test]
    fn a_damaged_verifier_is_noticed() {
        let whole = verifier(&Secret::new("x")).unwrap();
        assert!(is_verifier(&whole));
        // As a shell's `$` expansion leaves it, cut short, and with one character too many.
        let cut: String = whole.chars().take(100).collect();
        for damaged in [
            whole.replace("$4096", "096"),
            whole.replace("SCRAM-SHA-256$", "SCRAM-SHA-256"),
            whole.replace("4096", "409x"),
            whole.replace(':', ""),
            whole.replace("SCRAM", "scram"),
            format!("{whole}="),
            format!(" {whole}"),
            cut,
            String::new(),
        ] {
            assert!(!is_verifier(&damaged), "{damaged}");
        }
    }

    fn role() -> Role {
        Role {
            session_user: "app".into(),
            current_user: "app".into(),
            in_recovery: false,
            version: 150_018,
            password_encryption: "scram-sha-256".into(),
            may_log_in: true,
            superuser: false,
            replication: false,
            expires: None,
            expires_soon: false,
        }
    }

    #[test]
    fn what_stands_in_the_way_is_found() {
        assert_eq!(role().findings("postgres:db", "app"), []);
        let blocks = |role: Role| {
            let found = role.findings("postgres:db", "app");
            found.iter().any(|finding| finding.severity == Severity::Blocks && finding.mend.is_some())
        };
        assert!(blocks(Role { in_recovery: true, ..role() }));
        assert!(blocks(Role { may_log_in: false, ..role() }));
        assert!(blocks(Role { version: 90_624, ..role() }));
        assert!(blocks(Role { current_user: "other".into(), ..role() }));
        assert!(blocks(Role { replication: true, ..role() }));
        assert!(!blocks(Role { replication: true, superuser: true, ..role() }));
        assert!(!blocks(Role { replication: true, version: 160_000, ..role() }));
        let ends = |soon| Role { expires: Some("2027-01-01".into()), expires_soon: soon, ..role() };
        assert_eq!(ends(true).findings("x", "app")[0].severity, Severity::Warning);
        assert_eq!(ends(false).findings("x", "app")[0].severity, Severity::Note);
    }
}
