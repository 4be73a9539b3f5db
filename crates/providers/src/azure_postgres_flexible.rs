//! Azure Database for PostgreSQL flexible server, as the authority: the administrator's password
//! changes through the resource manager.
//!
//! Needs `Microsoft.DBforPostgreSQL/flexibleServers/read` and `…/write`, and
//! `Microsoft.DBforPostgreSQL/locations/azureAsyncOperation/read`, which custom roles tend to
//! forget. Azure asks for the last at the subscription, below which operations are; whether it is there too, where a
//! role is given at the resource group alone, can't be seen from the server. Without it the server's state has to tell.
//!
//! Can't: change another role's password than the administrator's, set a SCRAM verifier instead of
//! the password, or prove anything. A server with password sign-in disabled reports success and
//! changes nothing; only a login tells, and that is the next step of the plan.
//!
//! Quirks (Azure Database for PostgreSQL REST reference, "Servers - Update"; Azure Resource Manager,
//! "Track asynchronous operations"):
//! - the PATCH names the one property and nothing else. The Azure CLI sends storage, backup and
//!   network settings back as it read them, and so undoes what others change meanwhile.
//! - the answer is 202, without `Retry-After`; the operation takes about a minute.
//! - one operation at a time: a second one is refused as "busy", with an *empty* code.
//! - the state `Ready` means that no operation is running, not that the database can be reached.

#[cfg(test)]
mod tests;

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use pgrotate_core::journal::Outcome;
use pgrotate_core::provider::{Authority, Change, Finding, Severity};
use pgrotate_core::{Error, Kind, Result, Secret};
use reqwest::Url;
use serde::Deserialize;
use zeroize::Zeroizing;

use crate::azure::{self, Account, Action, Answer, Call, End, Need, Operation, Pace, below, checked_name};
use crate::http::Effect;
use crate::shared::Shared;

/// Time for one operation. A minute is usual.
const OPERATION_LIMIT: Duration = Duration::from_secs(20 * 60);
/// Time for somebody else's operation to end.
const BUSY_LIMIT: Duration = Duration::from_secs(10 * 60);
/// Time for the server to call itself ready after the change. Whether the password works shows at
/// the login that comes next, and applications wait for it.
const AFTERWARDS_LIMIT: Duration = Duration::from_secs(30);
/// Time after which an operation that can't be asked about has left its mark on the server's state.
const SETTLED_AFTER: Duration = Duration::from_secs(60);
/// Time for the name servers to answer.
const RESOLVE_LIMIT: Duration = Duration::from_secs(5);

const PROVIDER: &str = "Microsoft.DBforPostgreSQL";
const WRITE: &str = "Microsoft.DBforPostgreSQL/flexibleServers/write";
const POLL: &str = "Microsoft.DBforPostgreSQL/locations/azureAsyncOperation/read";
const RESULTS: &str = "Microsoft.DBforPostgreSQL/locations/operationResults/read";

/// `kind = "azure_postgres_flexible"`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// The subscription's id.
    pub subscription: String,
    /// The resource group.
    pub resource_group: String,
    /// The server's name, without the domain.
    pub server: String,
}

/// One flexible server.
pub struct Server {
    options: Options,
    shared: Arc<Shared>,
}

#[derive(Deserialize)]
struct Resource {
    properties: Properties,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Properties {
    state: String,
    administrator_login: Option<String>,
    fully_qualified_domain_name: Option<String>,
    replication_role: Option<String>,
    auth_config: Option<AuthConfig>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct AuthConfig {
    password_auth: Option<String>,
}

impl Server {
    /// Binds the server. Nothing is asked of Azure yet.
    ///
    /// # Errors
    /// When a name can't be one of Azure's.
    pub fn new(_name: Option<String>, options: Options, shared: Arc<Shared>) -> Result<Self> {
        checked_name("subscription", &options.subscription)?;
        checked_name("resource_group", &options.resource_group)?;
        checked_name("server", &options.server)?;
        Ok(Self { options, shared })
    }

    fn resource(&self, account: &Account) -> Url {
        let Options { subscription, resource_group, server } = &self.options;
        account.resource(subscription, resource_group, &[PROVIDER, "flexibleServers", server])
    }

    fn url(&self, account: &Account) -> Url {
        below(&self.resource(account), &[], &self.shared.vendors.azure.postgres_api_version)
    }

    async fn read(&self, account: &Account) -> Result<Properties> {
        let operation = format!("read the server {}", self.options.server);
        let answer = account.send(Call::get(self.url(account)), &operation).await?;
        answer.json::<Resource>(&operation).map(|resource| resource.properties)
    }

    /// Waits until no operation is running.
    async fn wait_until_ready(&self, account: &Account, limit: Duration) -> Result<()> {
        let mut pace = Pace::new(&*self.shared.clock, limit);
        loop {
            let properties = self.read(account).await?;
            if properties.is_ready() {
                return Ok(());
            }
            if !properties.is_passing() {
                return Err(self.not_usable(&properties));
            }
            if !pace.rest(None).await {
                return Err(Error::new(Kind::TimedOut, format!("change the server {}", self.options.server))
                    .because("other operations on it do not end")
                    .hint(self.show_command())
                    .later(None));
            }
        }
    }

    fn not_usable(&self, properties: &Properties) -> Error {
        Error::new(Kind::BadState, format!("change the server {}", self.options.server))
            .because(format!("its state is {}", word(&properties.state)))
            .hint(self.mend(properties))
    }

    /// Asks for the change; gives Azure's word that it is being carried out, or done already. A
    /// server that is busy has refused it: the run waits, where that can be seen, and comes back.
    async fn ask(&self, account: &Account, next: &Secret) -> Result<Answer> {
        let operation = self.operation();
        let answer = account.exchange(Call::patch(self.url(account), body(next)), &operation).await?;
        match answer.is_success() {
            true => Ok(answer),
            false if is_busy(&answer) => Err(Error::new(Kind::Busy, operation)
                .because("the server is busy with other operations")
                .hint(self.show_command())
                .later(answer.retry_after())),
            false => Err(classify(&answer, &operation)),
        }
    }

    fn operation(&self) -> String {
        format!("set the administrator's password of the server {}", self.options.server)
    }

    /// Waits for the end of the operation. Gives the time at which success was seen.
    async fn finish(&self, account: &Account, answer: &Answer) -> Result<(Timestamp, Option<String>)> {
        let operation = self.operation();
        let mut pace = Pace::new(&*self.shared.clock, OPERATION_LIMIT);
        let Some(announced) = Operation::announced(account, answer, &operation)? else {
            return Ok((self.shared.clock.now(), None));
        };
        match announced.follow(account, &mut pace, &operation).await? {
            End::Succeeded(at) => Ok((at, None)),
            End::Failed { canceled, failure } => Err(failed(canceled, &failure, &operation)),
            End::Untold(error) => {
                let at = self.watch_state(account, &mut pace).await?;
                let why = error.causes().join(": ");
                Ok((
                    at,
                    Some(format!("Azure did not say how the operation went ({why}); the server's state did")),
                ))
            }
        }
    }

    /// Takes the server's state for an operation that can't be asked about: it must have been
    /// seen to change, or had time to.
    async fn watch_state(&self, account: &Account, pace: &mut Pace<'_>) -> Result<Timestamp> {
        let clock = &*self.shared.clock;
        let began = clock.now();
        let mut was_busy = false;
        loop {
            match self.read(account).await {
                Ok(properties) if properties.is_ready() => {
                    let waited = clock.now().duration_since(began).unsigned_abs();
                    if was_busy || waited >= SETTLED_AFTER {
                        return Ok(clock.now());
                    }
                }
                Ok(_) => was_busy = true,
                Err(error) => {
                    pace.outlast(error).await.map_err(Error::unknown)?;
                    continue;
                }
            }
            if !pace.rest(None).await {
                return Err(Error::new(Kind::TimedOut, self.operation())
                    .because("Azure's operation has not ended in time")
                    .unknown());
            }
        }
    }

    /// What helps where a server is not ready.
    fn mend(&self, properties: &Properties) -> String {
        match properties.state.to_ascii_lowercase().as_str() {
            "stopped" => self.start_command(),
            "stopping" => format!("wait until it has stopped, then {}", self.start_command()),
            "dropping" => "somebody is deleting it: is it the right server?".to_owned(),
            "inaccessible" => {
                "Azure can't reach the key that encrypts the server: look at its data encryption, and at that key's vault"
                    .to_owned()
            }
            _ => self.show_command(),
        }
    }

    fn start_command(&self) -> String {
        let Options { server, resource_group, .. } = &self.options;
        format!(
            "start it first: az postgres flexible-server start --resource-group {resource_group} --name {server}"
        )
    }

    fn show_command(&self) -> String {
        let Options { server, resource_group, .. } = &self.options;
        format!(
            "see what it is doing: az postgres flexible-server show --resource-group {resource_group} --name {server}"
        )
    }

    fn judge(&self, properties: &Properties) -> Vec<Finding> {
        let subject = self.describe();
        let found = |severity, what: String| Finding::new(severity, subject.clone(), what);
        let target = &self.shared.target;
        let mut findings = Vec::new();
        if !properties.is_ready() {
            let what = format!("its state is {}, not Ready", word(&properties.state));
            let why = "Azure changes a server only when no other operation is running on it";
            findings.push(found(Severity::Blocks, what).why(why).mend(self.mend(properties)));
        }
        if properties.is_replica() {
            findings.push(
                found(Severity::Blocks, "it is a read replica".into())
                    .why("passwords come from its primary; Azure changes none here")
                    .mend("name the primary server in [authority]"),
            );
        }
        if !properties.accepts_passwords() {
            let Options { server, resource_group, .. } = &self.options;
            findings.push(
                found(Severity::Blocks, "password sign-in is disabled".to_owned())
                    .why("Azure would report success and change nothing")
                    .mend(format!(
                        "if passwords are really wanted there: az postgres flexible-server update --resource-group \
                         {resource_group} --name {server} --password-auth Enabled"
                    )),
            );
        }
        match &properties.administrator_login {
            Some(login) if *login != target.user => findings.push(
                found(Severity::Blocks, format!("its administrator is {login:?}, not {:?}", target.user))
                    .why("the resource manager changes the administrator's password and no other")
                    .mend("correct [database] user, or use [authority] kind = \"postgres\""),
            ),
            Some(_) => {}
            None => findings.push(found(Severity::Unseen, "it does not say who its administrator is".into())),
        }
        findings
    }

    /// The password must change on the very server that the login is proven on.
    async fn judge_host(&self, properties: &Properties) -> Option<Finding> {
        let configured = &self.shared.target.host;
        let found = |severity, what: String| Finding::new(severity, self.describe(), what);
        let Some(own) = &properties.fully_qualified_domain_name else {
            return Some(found(Severity::Unseen, "it does not say what its host name is".into()));
        };
        // A name may end with the root's dot.
        let plain = |name: &str| name.trim_end_matches('.').to_ascii_lowercase();
        if plain(own) == plain(configured) {
            return None;
        }
        let differ = format!("its host name is {own:?} where [database] host is {configured:?}");
        let port = self.shared.target.port;
        let (theirs, ours) = futures::join!(addresses(own, port), addresses(configured, port));
        if theirs.iter().any(|address| ours.contains(address)) {
            return Some(found(Severity::Note, format!("{differ}; both lead to the same address")));
        }
        let why = match (theirs.is_empty(), ours.is_empty()) {
            (false, false) => "they lead to different addresses".to_owned(),
            (true, false) => format!("{own:?} can't be resolved here"),
            (false, true) => format!("{configured:?} can't be resolved here"),
            (true, true) => "neither can be resolved here".to_owned(),
        };
        let mend = "correct [database] host or [authority] server: the password would change on one server \
                    and be tried on another";
        Some(found(Severity::Blocks, format!("{differ}, and {why}")).mend(mend))
    }

    /// What stands in the way of the change and of following it.
    async fn hindrances(&self, account: &Account) -> Result<Vec<Finding>> {
        let subject = self.describe();
        let watch = "the server's state has to tell how the operation went: the run takes a minute longer, with the \
                     applications waiting";
        let results = "needed only where Azure announces an operation in this way alone";
        let actions = [
            Action::control(WRITE, "without it the password can't be changed"),
            Action::control(POLL, watch).at_most(Severity::Warning),
            Action::control(RESULTS, results).at_most(Severity::Note),
        ];
        let need = Need { subject: &subject, actions: &actions, role: "Contributor" };
        azure::hindrances(&self.shared, account, &self.resource(account), &need).await
    }
}

impl Properties {
    fn is_ready(&self) -> bool {
        self.state.eq_ignore_ascii_case("Ready")
    }

    /// Whether the state will change by itself.
    fn is_passing(&self) -> bool {
        ["Updating", "Starting", "Restarting", "Provisioning"]
            .iter()
            .any(|state| self.state.eq_ignore_ascii_case(state))
    }

    fn is_replica(&self) -> bool {
        self.replication_role.as_deref().is_some_and(|role| role.to_ascii_lowercase().contains("replica"))
    }

    /// What an older interface does not mention is enabled.
    fn accepts_passwords(&self) -> bool {
        let auth = self.auth_config.as_ref().and_then(|config| config.password_auth.as_deref());
        auth.is_none_or(|auth| !auth.eq_ignore_ascii_case("Disabled"))
    }
}

/// The addresses behind a host name; none if it can't be resolved in time.
async fn addresses(host: &str, port: u16) -> Vec<IpAddr> {
    let found = tokio::time::timeout(RESOLVE_LIMIT, tokio::net::lookup_host((host, port))).await;
    found.ok().and_then(io::Result::ok).into_iter().flatten().map(|address| address.ip()).collect()
}

/// A state's name, if it is a word.
fn word(state: &str) -> &str {
    let plain = !state.is_empty() && state.len() < 32 && state.chars().all(|c| c.is_ascii_alphanumeric());
    if plain { state } else { "unknown" }
}

/// `{"properties":{"administratorLoginPassword":"…"}}` and nothing else.
fn body(password: &Secret) -> Zeroizing<Vec<u8>> {
    let password = azure::json_text(password);
    let parts = [r#"{"properties":{"administratorLoginPassword":"#, &password, "}}"];
    Zeroizing::new(parts.concat().into_bytes())
}

/// Whether another operation is running. The code is empty then, so the words have to tell; on
/// an error that names the state, the state is looked at next.
fn is_busy(answer: &Answer) -> bool {
    let failure = answer.failure();
    let busy = failure.message.to_ascii_lowercase().contains("busy");
    busy && (failure.code.is_empty() || answer.status() == 409) || failure.code == "ServerIsNotReady"
}

/// What an answer to the PATCH means where it is more than the resource manager's usual.
pub(crate) fn classify(answer: &Answer, operation: &str) -> Error {
    if !matches!(answer.status(), 400 | 422) {
        return answer.classify(Effect::Writes, operation);
    }
    let failure = answer.failure();
    let rejected = Error::new(Kind::Rejected, operation);
    if failure.code == NO_CREDENTIALS {
        return rejected.because(WITHOUT_CREDENTIALS).hint(WITH_CREDENTIALS);
    }
    let code = azure::show_code(&failure.code);
    rejected.because(format!("Azure rejects the change, most likely because of the password{code}")).hint(
        "Azure wants 8 to 128 characters of three classes, and no three characters of the login in a row; \
         does [password] ask for less?",
    )
}

/// Azure's code for password sign-in that is being switched on by a change without a password.
const NO_CREDENTIALS: &str = "EngineCredentialsNotProvided";
const WITHOUT_CREDENTIALS: &str = "password sign-in is being switched on there without a login and a password (EngineCredentialsNotProvided)";
const WITH_CREDENTIALS: &str = "set `--password-auth Enabled` with `--admin-user` and `--admin-password` once, by `az postgres flexible-server update`";

/// What the end of an operation means. Whether a failed one has changed the password shows only
/// at a login.
pub(crate) fn failed(canceled: bool, failure: &azure::Failure, operation: &str) -> Error {
    let how = if canceled { "canceled" } else { "failed" };
    let kind = if canceled { Kind::Conflict } else { Kind::ServerFault };
    let code = azure::show_code(&failure.code);
    let error =
        Error::new(kind, operation).because(format!("Azure's operation was accepted and then {how}{code}"));
    let error = match failure.code.as_str() {
        NO_CREDENTIALS => error.because(WITHOUT_CREDENTIALS).hint(WITH_CREDENTIALS),
        "ServerIsNotReady" => error.because("the server was not ready when its turn came"),
        _ => error,
    };
    error.hint("the server's activity log in the portal has the details").unknown()
}

#[async_trait]
impl Authority for Server {
    fn describe(&self) -> String {
        format!("azure_postgres_flexible:{}", self.options.server)
    }

    fn location(&self) -> String {
        let Options { subscription, resource_group, server } = &self.options;
        format!("azure_postgres_flexible {subscription}/{resource_group}/{server}").to_ascii_lowercase()
    }

    async fn check(&self, _current: &Secret) -> Result<Vec<Finding>> {
        let account = azure::account(&self.shared)?;
        let look = async {
            let properties = self.read(&account).await?;
            let mut findings = self.judge(&properties);
            findings.extend(self.judge_host(&properties).await);
            Ok::<_, Error>(findings)
        };
        let (found, hindrances) = futures::join!(look, self.hindrances(&account));
        Ok([found?, hindrances?].concat())
    }

    async fn settle(&self) -> Result<()> {
        let account = azure::account(&self.shared)?;
        self.wait_until_ready(&account, BUSY_LIMIT).await
    }

    /// Waits, changes, waits. Whether this is a repeat makes no difference: an operation of an
    /// earlier try would be busy still, and setting the same password again has the same end.
    async fn install(&self, change: &Change<'_>) -> Result<Outcome> {
        let account = azure::account(&self.shared)?;
        self.wait_until_ready(&account, BUSY_LIMIT).await?;
        let answer = self.ask(&account, change.next).await?;
        // Accepted is accepted: however following it fails, the password may have changed.
        let (effect_at, note) = self.finish(&account, &answer).await.map_err(Error::unknown)?;
        // The password is set; a server that is slow to call itself ready is no reason to fail.
        let ready = self.wait_until_ready(&account, AFTERWARDS_LIMIT).await;
        let outcome = Outcome { effect_at: Some(effect_at), ..Outcome::changed() };
        let outcome = note.into_iter().fold(outcome, Outcome::note);
        Ok(match ready {
            Ok(()) => outcome,
            Err(error) => outcome.note(format!("the operation succeeded; afterwards: {error}")),
        })
    }
}
