//! Two login roles that take turns: what the server knows about both, whether they can do the same, and how the idle
//! one is closed.
//!
//! Neither owns anything. What the application's sessions create belongs to a group role, because each login role is
//! set to act as it (`ALTER ROLE … SET role`); so the other one finds everything as if it had made it itself.
//!
//! Of PostgreSQL, by its manual (CREATE ROLE, GRANT, role membership), and held by `tests/pair` for each version that
//! can be installed:
//! - A role changes its own password without any further right, so two that rest with a password need no power over each
//!   other. To take the login from the other one does: CREATEROLE before PostgreSQL 16, from then on ADMIN OPTION on
//!   it too, and two roles can't have that of each other (membership has no loops). Superusers can, and members of
//!   `azure_pg_admin` on a flexible server.
//! - `SET role` in a role's settings needs membership with SET (from PostgreSQL 16 on), or it is ignored with a warning.
//! - A login's own `role=none` goes before that setting, so that our sessions are the login role itself.

mod facts;
mod findings;
mod prepare;
mod query;

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use pgrotate_core::by_hand::Instruction;
use pgrotate_core::database_url::Target;
use pgrotate_core::journal::Outcome;
use pgrotate_core::provider::{Authority, Change, Finding, Pair, Preparation, Seat};
use pgrotate_core::{Error, Kind, Result, Secret};
use postgres_protocol::escape::escape_identifier;

use super::connection::{Attempt, Connector, Session};
use super::{statement_with, verifier};
use crate::shared::Shared;
use facts::{Facts, Names};

/// Both roles of an environment.
pub struct PostgresPair {
    roles: [Connector; 2],
    owner: String,
    /// Whether each has to be allowed to take the login from the other.
    closes: bool,
}

impl PostgresPair {
    /// For two roles of one server, the first as the configuration names it. Connects to nothing yet.
    pub fn new(first: Arc<Shared>, second: Arc<Shared>, owner: String, closes: bool) -> Self {
        Self { roles: [Connector::new(first), Connector::new(second)], owner, closes }
    }

    fn connector(&self, seat: Seat) -> &Connector {
        &self.roles[usize::from(seat == Seat::Second)]
    }

    fn target(&self, seat: Seat) -> &Target {
        &self.connector(seat).shared.target
    }

    fn names(&self) -> Names<'_> {
        Names {
            first: &self.target(Seat::First).user,
            second: &self.target(Seat::Second).user,
            owner: &self.owner,
        }
    }

    async fn open(&self, seat: Seat, password: &Secret, operation: &str) -> Result<Session> {
        match self.connector(seat).open(password).await? {
            Attempt::In(session) => Ok(session),
            Attempt::Refused => Err(Error::new(Kind::Refused, operation)
                .because(format!("the server refuses the password of {}", self.target(seat)))),
        }
    }

    /// What the server knows about both roles and the group.
    async fn facts(&self, live: Seat, password: &Secret) -> Result<Facts> {
        let names = self.names();
        let operation = format!("look at the roles {} and {}", names.first, names.second);
        let session = self.open(live, password, &operation).await?;
        let facts = Facts::read(&session, &names, self.target(live), &operation).await;
        session.close().await;
        facts
    }
}

#[async_trait]
impl Pair for PostgresPair {
    async fn check(&self, live: Seat, password: &Secret) -> Result<Vec<Finding>> {
        Ok(self.findings(&self.facts(live, password).await?, live))
    }

    /// Without a password the server answers as to a wrong one, so that nobody learns from it.
    async fn close(&self, live: Seat, password: &Secret) -> Result<Outcome> {
        let other = &self.target(live.other()).user;
        let operation = format!("take the login from {other}");
        let session = self.open(live, password, &operation).await?;
        let sql = format!("alter role {} nologin password null", escape_identifier(other));
        let changed = change_as(&session, &self.connector(live).shared, &sql, &operation).await;
        session.close().await;
        changed.map(|()| Outcome::changed().note(format!("{other} may not log in until its turn comes")))
    }

    async fn prepare(&self, live: Seat, password: &Secret, idle: Option<&Secret>) -> Result<Preparation> {
        self.preparation(&self.facts(live, password).await?, live, idle)
    }

    async fn apply(&self, live: Seat, password: &Secret, preparation: &Preparation) -> Result<()> {
        let session = self.open(live, password, prepare::OPERATION).await?;
        let done = self.carry_out(&session, live, preparation).await;
        session.close().await;
        done
    }
}

/// The password of a role as the other one changes it, which lets it log in again.
pub struct PostgresTwin {
    /// Who does it.
    by: Connector,
    /// Whose it is.
    user: String,
}

impl PostgresTwin {
    /// `by` logs in; `user`'s password is changed.
    pub fn new(by: Arc<Shared>, user: String) -> Self {
        Self { by: Connector::new(by), user }
    }

    fn target(&self) -> &Target {
        &self.by.shared.target
    }
}

#[async_trait]
impl Authority for PostgresTwin {
    fn describe(&self) -> String {
        format!("postgres:{}", self.target().host)
    }

    fn location(&self) -> String {
        let Target { host, port, .. } = self.target();
        format!("postgres:{}@{}:{port}", self.user, host.to_ascii_lowercase())
    }

    /// What it may do is asked of the pair.
    async fn check(&self, _current: &Secret) -> Result<Vec<Finding>> {
        Ok(Vec::new())
    }

    async fn install(&self, change: &Change<'_>) -> Result<Outcome> {
        let operation = format!("give {} the new password", self.user);
        let session = match self.by.open(change.current).await? {
            Attempt::In(session) => session,
            Attempt::Refused => {
                return Err(Error::new(Kind::Refused, operation)
                    .because(format!("the server refuses the password of {}", self.target())));
            }
        };
        let sql = statement_with(&self.user, "login password", &verifier(change.next)?);
        let changed = change_as(&session, &self.by.shared, &sql, &operation).await;
        session.close().await;
        changed.map(|()| Outcome::changed())
    }

    fn by_hand(&self) -> Vec<Instruction> {
        vec![Instruction::elsewhere(pgrotate_core::by_hand::Part::Server, &self.describe())]
    }
}

/// Changes something as the role that was meant to log in, and as no other that a map or a pooler has made of it.
async fn change_as(session: &Session, shared: &Shared, sql: &str, operation: &str) -> Result<()> {
    session.expect_role(shared, operation).await?;
    session.change(sql, &shared.target, operation).await
}

/// Names as SQL writes them.
fn listed<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let quoted: BTreeSet<String> = names
        .into_iter()
        .map(|name| postgres_protocol::escape::escape_literal(name).trim().to_owned())
        .collect();
    quoted.into_iter().collect::<Vec<_>>().join(", ")
}
