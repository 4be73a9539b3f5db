//! Who is logged in as the role, from `pg_stat_activity`. A role sees all of its own sessions, and may end them,
//! without any further right (PostgreSQL manual, monitoring statistics; server signalling functions).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use pgrotate_core::census::{Sample, Session as Seen};
use pgrotate_core::provider::Census;
use pgrotate_core::{Error, Kind, Result, Secret};
use tokio::time::Instant;
use tokio_postgres::SimpleQueryRow;

use super::connection::{Attempt, Connector, Session};
use crate::shared::Shared;

/// The wait between two looks of one window.
const PAUSE: Duration = Duration::from_millis(100);
/// What a session's beginning is written as: microseconds since 1970.
const BEGAN: &str = "(extract(epoch from backend_start) * 1000000)::bigint";

/// The sessions of the configured role.
pub struct PostgresCensus(Connector);

impl PostgresCensus {
    /// For the environment's target. Connects to nothing yet.
    pub fn new(shared: Arc<Shared>) -> Self {
        Self(Connector::new(shared))
    }

    fn operation(&self) -> String {
        format!("see who is logged in as {}", self.0.shared.target)
    }

    async fn open(&self, secret: &Secret) -> Result<Session> {
        match self.0.open(secret).await? {
            Attempt::In(session) => Ok(session),
            Attempt::Refused => {
                Err(Error::new(Kind::Refused, self.operation()).because("the server refuses the password"))
            }
        }
    }

    /// One look: the server's time, and who is there.
    async fn look(&self, session: &Session) -> Result<(Timestamp, Vec<Seen>)> {
        let sql = format!(
            "select (extract(epoch from clock_timestamp()) * 1000000)::bigint, pid, application_name, \
             host(client_addr), {BEGAN} \
             from pg_catalog.pg_stat_activity where usename = session_user and backend_type = 'client backend' \
             union all select (extract(epoch from clock_timestamp()) * 1000000)::bigint, null, null, null, null"
        );
        let operation = self.operation();
        let rows = session.rows(&sql, &self.0.shared.target, &operation).await?;
        let nonsense =
            || Error::new(Kind::Corrupt, operation.as_str()).because("the server's answer makes no sense");
        let at = rows.last().and_then(|row| time(row, 0)).ok_or_else(nonsense)?;
        let people = rows.iter().filter(|row| row.get(1).is_some());
        let people = people.map(|row| seen(row).ok_or_else(nonsense)).collect::<Result<_>>()?;
        Ok((at, people))
    }
}

fn time(row: &SimpleQueryRow, column: usize) -> Option<Timestamp> {
    Timestamp::from_microsecond(row.get(column)?.parse().ok()?).ok()
}

fn seen(row: &SimpleQueryRow) -> Option<Seen> {
    Some(Seen {
        pid: row.get(1)?.parse().ok()?,
        // The server keeps to printable ASCII here; what answers in its place may not.
        application_name: row
            .get(2)
            .unwrap_or_default()
            .chars()
            .filter(|c| !c.is_control())
            .take(64)
            .collect(),
        address: row.get(3).and_then(|text| text.parse().ok()),
        since: time(row, 4)?,
    })
}

#[async_trait]
impl Census for PostgresCensus {
    async fn take(&self, secret: &Secret, window: Duration) -> Result<Sample> {
        let session = self.open(secret).await?;
        let until = Instant::now() + window;
        let mut all: BTreeMap<(i32, Timestamp), Seen> = BTreeMap::new();
        let mut last = self.look(&session).await;
        while let Ok((_, seen)) = &last {
            all.extend(seen.iter().map(|one| ((one.pid, one.since), one.clone())));
            if Instant::now() + PAUSE > until {
                break;
            }
            tokio::time::sleep(PAUSE).await;
            last = self.look(&session).await;
        }
        session.close().await;
        Ok(Sample { at: last?.0, sessions: all.into_values().collect() })
    }

    async fn end(&self, secret: &Secret, sessions: &[Seen]) -> Result<usize> {
        let session = self.open(secret).await?;
        let each: Vec<String> = sessions
            .iter()
            .map(|one| format!("({}, {}::bigint)", one.pid, one.since.as_microsecond()))
            .collect();
        let sql = format!(
            "select count(*) filter (where pg_catalog.pg_terminate_backend(pid)) \
             from pg_catalog.pg_stat_activity where usename = session_user and pid <> pg_catalog.pg_backend_pid() \
             and (pid, {BEGAN}) in (values {})",
            each.join(", ")
        );
        let operation = format!("end sessions of {}", self.0.shared.target);
        let row = session.row(&sql, &self.0.shared.target, &operation).await;
        session.close().await;
        row?.get(0)
            .and_then(|text| text.parse().ok())
            .ok_or_else(|| Error::new(Kind::Corrupt, operation).because("the server's answer makes no sense"))
    }
}
