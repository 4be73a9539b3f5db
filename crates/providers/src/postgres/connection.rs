//! One session with the server, opened and ended with care: TLS that is checked, bounded
//! waiting, and errors that know whether the role was let in.

use std::error::Error as _;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use pgrotate_core::database_url::Target;
use pgrotate_core::{Error, Kind, Result, Secret};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::OnceCell;
use tokio::task::JoinHandle;
use tokio_postgres::config::SslMode;
use tokio_postgres::error::SqlState;
use tokio_postgres::tls::{MakeTlsConnect, TlsConnect};
use tokio_postgres::{Client, Config, NoTls, SimpleQueryMessage, SimpleQueryRow, Socket};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::files;
use crate::http::{self, Effect};
use crate::shared::{self, Shared, TlsMode};
use crate::ssh::Ssh;
use crate::ssh::forward::Forward;

/// The name under which our sessions appear in `pg_stat_activity` and the server's log.
const APPLICATION_NAME: &str = "pgrotate";
/// Time for a TCP connection with one address.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Time for everything until the role is let in.
const LOGIN_TIMEOUT: Duration = Duration::from_secs(25);
/// Time for a statement; longer than what the server is told for the change.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(30);
/// Time for saying goodbye.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Whose session it is, and how late it is there.
const WHO_AND_WHEN: &str = "\
select session_user, current_user, floor(extract(epoch from clock_timestamp()) * 1000)::bigint";

/// Opens sessions as the configured role.
pub(super) struct Connector {
    pub(super) shared: Arc<Shared>,
    /// The machine over which the server is reached, if it is not reached from here.
    through: Option<Ssh>,
    /// Read once: the system's trust store is more than a hundred certificates.
    tls: OnceCell<MakeRustlsConnect>,
}

/// What became of a login.
pub(super) enum Attempt {
    /// The server let the role in.
    In(Session),
    /// The server refuses the password.
    Refused,
}

impl Connector {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, through: None, tls: OnceCell::new() }
    }

    /// The same from another machine.
    pub(super) fn through(machine: Ssh, shared: Arc<Shared>) -> Self {
        Self { through: Some(machine), ..Self::new(shared) }
    }

    fn target(&self) -> &Target {
        &self.shared.target
    }

    /// Logs in on a fresh connection.
    pub(super) async fn open(&self, password: &Secret) -> Result<Attempt> {
        // For the proof of a password, which is made without a chance to refuse.
        self.shared.database_tls.allow(self.target())?;
        let operation = format!("log in as {}", self.target());
        let config = self.config(password);
        let dialled = match (&self.through, self.shared.database_tls.mode) {
            (None, TlsMode::VerifyFull) => dial(&config, self.tls().await?.clone()).await,
            (None, TlsMode::Disable) => dial(&config, NoTls).await,
            (Some(machine), mode) => return self.open_through(machine, &config, mode, &operation).await,
        };
        self.judge(dialled, operation)
    }

    /// Logs in by way of another machine. What `ssh` says tells more than a connection that ends.
    async fn open_through(
        &self,
        machine: &Ssh,
        config: &Config,
        mode: TlsMode,
        operation: &str,
    ) -> Result<Attempt> {
        let Target { host, port, .. } = self.target();
        let (forward, stream) = machine.forward(host, *port, operation)?;
        let dialled = match mode {
            TlsMode::VerifyFull => greet(config, stream, self.tls().await?.clone(), host).await,
            TlsMode::Disable => greet(config, stream, NoTls, host).await,
        };
        match dialled {
            // What carries the session ends with it.
            Some(Ok(session)) => Ok(Attempt::In(Session { carrier: Some(Box::new(forward)), ..session })),
            Some(Err(error)) if error.as_db_error().is_some() || rustls_error(&error).is_some() => {
                self.judge(Some(Err(error)), operation.to_owned())
            }
            _ => Err(forward.failure(machine, operation).await),
        }
    }

    fn judge(
        &self,
        dialled: Option<Result<Session, tokio_postgres::Error>>,
        operation: String,
    ) -> Result<Attempt> {
        match dialled {
            Some(Ok(session)) => Ok(Attempt::In(session)),
            Some(Err(error)) if error.code() == Some(&SqlState::INVALID_PASSWORD) => Ok(Attempt::Refused),
            Some(Err(error)) => Err(classify(&error, Effect::Reads, self.target(), &operation)),
            None => Err(Error::new(Kind::TimedOut, operation)
                .because(format!("{}: no answer in time", self.target().host))
                .later(None)),
        }
    }

    fn config(&self, password: &Secret) -> Config {
        let Target { host, port, database, user } = self.target();
        let mut config = Config::new();
        config.host(host).port(*port).dbname(database).user(user).password(password.expose());
        config.application_name(APPLICATION_NAME).connect_timeout(CONNECT_TIMEOUT);
        if self.shared.takes_turns {
            config.options("-c role=none");
        }
        config.ssl_mode(match self.shared.database_tls.mode {
            TlsMode::VerifyFull => SslMode::Require,
            TlsMode::Disable => SslMode::Disable,
        });
        // As for HTTP: RFC 6761 wants these names to be loopback, and not every system does so.
        if host.ends_with(".localhost") {
            config.hostaddr(IpAddr::V4(Ipv4Addr::LOCALHOST));
        }
        config
    }

    async fn tls(&self) -> Result<&MakeRustlsConnect> {
        self.tls
            .get_or_try_init(|| async {
                let settings = &self.shared.database_tls;
                let own = match &settings.ca_file {
                    Some(file) => {
                        let path = self.shared.path(&file.to_string_lossy());
                        let operation = format!("read the CA file {}", path.display());
                        let refuse =
                            move |why: String| Error::new(Kind::Config, operation.clone()).because(why);
                        let read = move || shared::read_small(&path).map_err(|e| refuse(shared::why(&e)));
                        Some(files::blocking(read).await?)
                    }
                    None => None,
                };
                let extra = own.as_deref().map(Vec::as_slice).or(self.shared.ca.as_deref());
                Ok(MakeRustlsConnect::new(http::tls_config(extra)?))
            })
            .await
    }
}

/// Opens a session in bounded time.
async fn dial<T>(config: &Config, tls: T) -> Option<Result<Session, tokio_postgres::Error>>
where
    T: MakeTlsConnect<Socket>,
    T::Stream: Send + 'static,
{
    let (client, connection) = match tokio::time::timeout(LOGIN_TIMEOUT, config.connect(tls)).await.ok()? {
        Ok(pair) => pair,
        Err(error) => return Some(Err(error)),
    };
    // What goes wrong with the connection is told to whoever waits for an answer on it.
    let driver = tokio::spawn(async move { drop(connection.await) });
    Some(Ok(Session { client, driver, carrier: None }))
}

/// The same over a stream that is open already.
async fn greet<S, T>(
    config: &Config,
    stream: S,
    mut tls: T,
    host: &str,
) -> Option<Result<Session, tokio_postgres::Error>>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    T: MakeTlsConnect<S>,
    T::TlsConnect: TlsConnect<S>,
    T::Stream: Send + 'static,
{
    let tls = tls.make_tls_connect(host).ok()?;
    let (client, connection) =
        match tokio::time::timeout(LOGIN_TIMEOUT, config.connect_raw(stream, tls)).await.ok()? {
            Ok(pair) => pair,
            Err(error) => return Some(Err(error)),
        };
    let driver = tokio::spawn(async move { drop(connection.await) });
    Some(Ok(Session { client, driver, carrier: None }))
}

/// A session of the configured role.
pub(super) struct Session {
    client: Client,
    driver: JoinHandle<()>,
    /// What carries its bytes, where that is another program.
    carrier: Option<Box<Forward>>,
}

impl Session {
    /// Asks for one row of texts.
    pub(super) async fn row(&self, sql: &str, target: &Target, operation: &str) -> Result<SimpleQueryRow> {
        let rows = self.rows(sql, target, operation).await?;
        rows.into_iter()
            .next()
            .ok_or_else(|| Error::new(Kind::Corrupt, operation).because("the server answers without a row"))
    }

    /// Asks for rows of texts.
    pub(super) async fn rows(
        &self,
        sql: &str,
        target: &Target,
        operation: &str,
    ) -> Result<Vec<SimpleQueryRow>> {
        let asked = tokio::time::timeout(STATEMENT_TIMEOUT, self.client.simple_query(sql)).await;
        let messages = asked
            .map_err(|_| Error::new(Kind::TimedOut, operation).because("no answer in time").later(None))?
            .map_err(|error| classify(&error, Effect::Reads, target, operation))?;
        let rows = messages.into_iter().filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(row),
            _ => None,
        });
        Ok(rows.collect())
    }

    /// Makes sure that the session is the configured role's. Somebody's map of names, a pooler
    /// or `ALTER ROLE … SET role` can make it another's, whose password would be changed then.
    pub(super) async fn expect_role(&self, shared: &Shared, operation: &str) -> Result<()> {
        let target = &shared.target;
        let row = self.row(WHO_AND_WHEN, target, operation).await?;
        let told = row
            .try_get(2)
            .ok()
            .flatten()
            .and_then(|millis| Timestamp::from_millisecond(millis.parse().ok()?).ok());
        if let Some(told) = told {
            shared.clocks.hear("the database server", told, shared.clock.now());
        }
        let is = |index| row.get(index) == Some(target.user.as_str());
        if is(0) && is(1) {
            return Ok(());
        }
        let seen = row.get(if is(0) { 1 } else { 0 }).unwrap_or_default();
        Err(Error::new(Kind::Conflict, operation)
            .because(format!("the server takes the session for the role {seen:?}"))
            .hint("look for a map in pg_hba.conf, a pooler in between, or `ALTER ROLE … SET role`"))
    }

    /// Sends statements that change something. An error says whether that can have happened.
    pub(super) async fn change(&self, sql: &str, target: &Target, operation: &str) -> Result<()> {
        match tokio::time::timeout(STATEMENT_TIMEOUT, self.client.batch_execute(sql)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(classify(&error, Effect::Writes, target, operation)),
            Err(_) => Err(Error::new(Kind::TimedOut, operation).because("no answer in time").unknown()),
        }
    }

    /// Sends a statement of which a person is told what the server says. `shown` is what may be shown of it: where that
    /// is not all, the server's own words are left out, for they may repeat the rest.
    pub(super) async fn tell(&self, sql: &str, shown: &str, operation: &str) -> Result<()> {
        let told = tokio::time::timeout(STATEMENT_TIMEOUT, self.client.batch_execute(sql)).await;
        let error = match told {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => error,
            Err(_) => {
                return Err(Error::new(Kind::TimedOut, operation).because("no answer in time").unknown());
            }
        };
        let Some(answer) = error.as_db_error() else {
            return Err(Error::new(Kind::Unreachable, operation)
                .because("the connection broke off")
                .unknown());
        };
        let words = if sql == shown { format!("{} ", answer.message()) } else { String::new() };
        Err(Error::new(kind_of(answer.code(), Effect::Writes), operation)
            .because(format!("{words}({})", answer.code().code()))
            .because(format!("the server refuses this statement: {shown}")))
    }

    /// Ends the session in the way that leaves no complaint in the server's log.
    pub(super) async fn close(self) {
        drop(self.client);
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, self.driver).await;
        drop(self.carrier);
    }
}

/// Turns what the server, or the way to it, says into our words. Only the code is taken from
/// an answer of the server: its text can be in any language and quote what was sent.
pub(super) fn classify(
    error: &tokio_postgres::Error,
    effect: Effect,
    target: &Target,
    operation: &str,
) -> Error {
    match (error.as_db_error(), rustls_error(error)) {
        (Some(answer), _) => {
            let (code, routine) = (answer.code(), answer.routine().unwrap_or_default());
            of_state(code, routine, effect, target, Error::new(kind_of(code, effect), operation))
        }
        (None, Some(tls)) => of_tls(tls, target, operation),
        (None, None) => of_connection(error, effect, target, operation),
    }
}

fn kind_of(code: &SqlState, effect: Effect) -> Kind {
    match (code.code(), effect) {
        ("28000" | "42501", _) => Kind::Forbidden,
        ("28P01", _) => Kind::Refused,
        ("3D000" | "42704", _) => Kind::NotFound,
        ("25006" | "0A000" | "55000", _) => Kind::BadState,
        ("57P03" | "55P03" | "40001" | "40P01" | "XX000", _) => Kind::Busy,
        ("57014", _) => Kind::TimedOut,
        ("57P01" | "57P02" | "40003", _) => Kind::Unreachable,
        (code, _) if code.starts_with("53") => Kind::Busy,
        (code, _) if code.starts_with("08") => Kind::Unreachable,
        _ => Kind::Rejected,
    }
}

/// The words for a SQLSTATE, and whether to try again.
fn of_state(code: &SqlState, routine: &str, effect: Effect, target: &Target, error: Error) -> Error {
    let Target { user, database, .. } = target;
    match (code.code(), effect) {
        ("28000", _) if routine == "ClientAuthentication" => error
            .because("no line of the server's pg_hba.conf lets this connection in (28000)")
            .hint(format!("a line like `hostssl {database} {user} <our address> scram-sha-256` would")),
        ("28000", _) => error
            .because(format!("the role {user} may not log in, or does not exist (28000)"))
            .hint(format!("as an administrator: ALTER ROLE {user} LOGIN")),
        ("28P01", _) => error.because("the server refuses the password (28P01)"),
        ("3D000", _) => error
            .because(format!("the login succeeded, but there is no database {database} (3D000)"))
            .hint("correct `name` under [database]"),
        ("42501", Effect::Reads) => error
            .because(format!("the login succeeded, but the role may not connect to {database} (42501)"))
            .hint(format!("GRANT CONNECT ON DATABASE {database} TO {user}")),
        ("42501", Effect::Writes) => error
            .because("the role may not change its own password (42501)")
            .hint("before PostgreSQL 16 a role with REPLICATION needs a superuser for that"),
        // The second is what a replica says to `begin read write`.
        ("25006" | "0A000", _) => error
            .because(format!("the server is a replica: it takes no changes ({})", code.code()))
            .hint("name the primary as `host` under [database]"),
        ("53300", _) => error
            .because("the server has no connection free for this role (53300)")
            .hint("too many sessions, or a CONNECTION LIMIT of the role or the database")
            .later(None),
        ("57P03", _) => error.because("the server is starting or stopping (57P03)").later(None),
        ("55P03" | "40001" | "40P01" | "XX000" | "57014", Effect::Writes) => error
            .because(format!("another session is changing this role; the change was taken back ({})", code.code()))
            .later(None),
        // The session ended while we waited: the change may have been the last thing it did.
        ("57P01" | "57P02" | "40003", _) => ended(code.code(), error, effect),
        (code, _) if code.starts_with("08") => ended(code, error, effect),
        (code, _) if code.starts_with("53") => {
            error.because(format!("the server is short of resources ({code})")).later(None)
        }
        (code, Effect::Reads) => error
            .because(format!("the server does not let us in ({code})"))
            .hint("the server's log says why"),
        (code, Effect::Writes) => error.because(format!("the server rejects the change ({code})")).hint(
            "an extension that judges passwords may refuse one that the client has hashed; its settings can allow it",
        ),
    }
}

fn ended(code: &str, error: Error, effect: Effect) -> Error {
    let error = error.because(format!("the server, or a pooler before it, ended the session ({code})"));
    match effect {
        Effect::Reads => error.later(None),
        Effect::Writes => error.unknown(),
    }
}

fn of_tls(tls: &rustls::Error, target: &Target, operation: &str) -> Error {
    use rustls::CertificateError as Wrong;
    let error = Error::new(Kind::Unreachable, operation);
    let host = &target.host;
    match tls {
        rustls::Error::InvalidCertificate(Wrong::UnknownIssuer) => error
            .because(format!("{host}: its certificate was signed by nobody whom this machine trusts"))
            .hint(
                "name the CA's file in the configuration: tls = { mode = \"verify-full\", ca_file = \"…\" }",
            ),
        rustls::Error::InvalidCertificate(Wrong::NotValidForName | Wrong::NotValidForNameContext { .. }) => {
            error
                .because(format!("{host}: its certificate is for another host name"))
                .hint("write the name that stands in the certificate as `host` under [database]")
        }
        rustls::Error::InvalidCertificate(
            Wrong::Expired
            | Wrong::ExpiredContext { .. }
            | Wrong::NotValidYet
            | Wrong::NotValidYetContext { .. },
        ) => error
            .because(format!("{host}: its certificate has expired or is not valid yet"))
            .hint("renew the server's certificate, or set this machine's clock right"),
        rustls::Error::InvalidCertificate(_) => error
            .because(format!("{host}: its certificate can't be used to identify a server"))
            .hint("a certificate of its own, signed by a CA and with the host name in it, would do"),
        _ => error.because(format!("{host}: no TLS session could be agreed on")),
    }
}

/// A failure without an answer of the server.
fn of_connection(error: &tokio_postgres::Error, effect: Effect, target: &Target, operation: &str) -> Error {
    let host = &target.host;
    let refuse = |kind, cause: String| Error::new(kind, operation).because(cause);
    let text = error.to_string();
    let cause = error.source().map(ToString::to_string).unwrap_or_default();
    if text.starts_with("error performing TLS") && cause.contains("does not support TLS") {
        return refuse(Kind::BadState, format!("{host}: the server offers no TLS"))
            .hint("switch `ssl` on at the server; tls = { mode = \"disable\" } is for a server on this very machine");
    }
    if cause.contains("iteration count exceeds") {
        return refuse(
            Kind::BadState,
            format!("{host}: it wants the password hashed more than 100 000 times, which could take hours"),
        )
        .hint("set the password anew as an administrator, with `scram_iterations` = 100000 or less");
    }
    if text.starts_with("authentication error") {
        return refuse(Kind::Unauthenticated, format!("{host}: it asks for a way to log in other than SCRAM, MD5 or a password, or can't prove that it knows the role's password"))
            .hint("pg_hba.conf should say scram-sha-256 for this role");
    }
    if text.starts_with("error connecting") {
        let cause = if cause.contains("lookup address") { "no such host name" } else { "no connection" };
        return refuse(Kind::Unreachable, format!("{host}:{}: {cause}", target.port)).later(None);
    }
    let lost = refuse(Kind::Unreachable, format!("{host}: the connection broke"));
    match effect {
        Effect::Reads => lost.later(None),
        Effect::Writes => lost.unknown(),
    }
}

/// The error of the TLS library, if it is at the root of this one.
fn rustls_error(error: &tokio_postgres::Error) -> Option<&rustls::Error> {
    let io = error.source()?.downcast_ref::<std::io::Error>()?;
    io.get_ref()?.downcast_ref::<rustls::Error>()
}
