//! The reference providers: a world in memory that does what the traits say and nothing else.
//!
//! Tests and simulations wrap it. Every call goes through one gate, where a test can count it,
//! fail it before its effect, or lose its answer after it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;

use crate::database_url::Target;
use crate::env::{Clock, Entropy};
use crate::error::{Error, Kind, Result};
use crate::ids::{CopyId, Environment, RunId, VersionId};
use crate::journal::Outcome;
use crate::keyring::Keyring;
use crate::password::Policy;
use crate::plan::Retirement;
use crate::provider::{
    Activation, Authority, Capabilities, Change, Consumer, Content, Entry, Evidence, Finding, Inspection,
    Login, Pair, Preparation, Recorder, Seat, Seen, Sink, Story, Survey, Vault, VaultState, Verification,
    Verifier,
};
use crate::rotation::{BoundConsumer, Copy, Rotation, Surroundings, Twin};
use crate::secret::{FingerprintKey, Secret};
use crate::value::{Template, Update, UrlTemplate};

/// What a test does to one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It fails for good, without effect.
    Refuse,
    /// It fails without effect, and may work later.
    Before,
    /// It gets lost on its way: without effect, and nobody can know that.
    Lost,
    /// It has its effect, and its answer is lost.
    After,
}

/// Everything that exists.
#[derive(Debug, Default)]
pub struct State {
    /// The password that the server accepts.
    pub server: String,
    /// The one that it accepts from the second role, where two take turns; nothing if that may not log in.
    pub second: Option<String>,
    /// The vault's versions.
    pub vault: VaultState,
    /// How often the vault was written.
    pub vault_writes: u32,
    /// Each copy's values, oldest first.
    pub copies: BTreeMap<CopyId, Vec<String>>,
    /// The URL that the application was started with.
    pub application: Option<String>,
    /// How often the application was started.
    pub starts: u32,
    /// What the recorder was told.
    pub stories: Vec<RunId>,
    /// Every call, by name, in order.
    pub calls: Vec<String>,
    /// The fault of the call with this number, counted from 0.
    pub faults: BTreeMap<usize, Fault>,
    /// The call after whose effect the process dies, counted from 0.
    pub dies_after: Option<usize>,
    /// The copy that consumers are started with.
    pub awaited: Option<CopyId>,
}

/// The world; its providers are views of it.
#[derive(Clone, Debug, Default)]
pub struct Memory(Arc<Mutex<State>>);

impl Memory {
    /// A consistent world with this password everywhere.
    pub fn new(password: &str, url: &str, copies: &[(&CopyId, bool)]) -> Self {
        let memory = Self::default();
        {
            let mut state = memory.state();
            state.server = password.to_owned();
            state.vault.current = Some(Entry { secret: Secret::new(password), run: None });
            for (id, holds_url) in copies {
                let value = if *holds_url { url.to_owned() } else { password.to_owned() };
                state.copies.insert((*id).clone(), vec![value]);
                if *holds_url {
                    state.awaited.get_or_insert((*id).clone());
                }
            }
            state.application = Some(url.to_owned());
        }
        memory
    }

    /// Everything that exists, for a test to look at and to change.
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no holder of this lock panics")
    }

    /// The copy of this id.
    pub fn sink(&self, id: CopyId) -> MemorySink {
        MemorySink(self.clone(), id)
    }

    /// Lets a call through the gate. In a process that is dead nothing ever returns.
    async fn call<T>(
        &self,
        name: impl Into<String>,
        effect: impl FnOnce(&mut State) -> Result<T>,
    ) -> Result<T> {
        let result = self.pass(name.into(), effect);
        match result {
            Some(result) => result,
            None => std::future::pending().await,
        }
    }

    /// A call's effect and its answer; no answer if the process dies before it arrives.
    fn pass<T>(&self, name: String, effect: impl FnOnce(&mut State) -> Result<T>) -> Option<Result<T>> {
        let mut state = self.state();
        let number = state.calls.len();
        if state.dies_after.is_some_and(|last| number > last) {
            return None;
        }
        state.calls.push(name.clone());
        let error = |kind| Error::new(kind, name);
        let answer = match state.faults.remove(&number) {
            Some(Fault::Refuse) => Err(error(Kind::Forbidden)),
            Some(Fault::Before) => Err(error(Kind::Throttled).later(None)),
            Some(Fault::Lost) => Err(error(Kind::TimedOut).unknown()),
            Some(Fault::After) => effect(&mut state).and_then(|_| Err(error(Kind::TimedOut).unknown())),
            None => effect(&mut state),
        };
        (state.dies_after != Some(number)).then_some(answer)
    }
}

#[async_trait]
impl Vault for Memory {
    fn id(&self) -> &CopyId {
        static ID: std::sync::LazyLock<CopyId> = std::sync::LazyLock::new(|| CopyId::from("memory:vault"));
        &ID
    }

    fn location(&self) -> String {
        "memory".into()
    }

    async fn check(&self) -> Result<Survey> {
        self.call("vault.check", |state| {
            Ok(Survey { state: Some(state.vault.clone()), findings: Vec::new(), identity: None })
        })
        .await
    }

    async fn read(&self) -> Result<VaultState> {
        self.call("vault.read", |state| Ok(state.vault.clone())).await
    }

    async fn stage(&self, run: RunId, secret: &Secret) -> Result<()> {
        self.call("vault.stage", |state| match &state.vault.pending[..] {
            [] if state
                .vault
                .current
                .as_ref()
                .is_some_and(|own| own.run == Some(run) && own.secret == *secret) =>
            {
                Err(Error::new(Kind::Conflict, "stage"))
            }
            [] => {
                state.vault.pending.push(Entry { secret: secret.clone(), run: Some(run) });
                state.vault_writes += 1;
                Ok(())
            }
            [pending] if pending.run == Some(run) && pending.secret == *secret => Ok(()),
            _ => Err(Error::new(Kind::Conflict, "stage")),
        })
        .await
    }

    async fn promote(&self, run: RunId, next: &Secret, user: Option<&str>) -> Result<Option<VersionId>> {
        self.call("vault.promote", |state| {
            let ours = |entry: &Entry| entry.run == Some(run) && entry.secret == *next;
            if !state.vault.current.as_ref().is_some_and(ours) {
                let place = state.vault.pending.iter().position(ours);
                let place = place.ok_or_else(|| Error::new(Kind::Conflict, "promote"))?;
                let next = state.vault.pending.swap_remove(place);
                state.vault.previous = state.vault.current.replace(next);
                if let Some(user) = user {
                    state.vault.user = Some(user.to_owned());
                }
                state.vault_writes += 1;
            }
            state.vault.pending.retain(|entry| entry.run != Some(run));
            Ok(Some(VersionId::new(state.vault_writes.to_string())))
        })
        .await
    }

    async fn lay_aside(&self, run: RunId, idle: &Secret) -> Result<()> {
        self.call("vault.lay_aside", |state| {
            let entry = Entry { secret: idle.clone(), run: Some(run) };
            let same = |kept: &Entry| kept.run == entry.run && kept.secret == entry.secret;
            if !state.vault.previous.as_ref().is_some_and(same) {
                state.vault.previous = Some(entry);
                state.vault_writes += 1;
            }
            state.vault.pending.retain(|entry| entry.run != Some(run));
            Ok(())
        })
        .await
    }

    async fn discard(&self, run: RunId) -> Result<()> {
        self.call("vault.discard", |state| {
            let before = state.vault.pending.len();
            state.vault.pending.retain(|entry| entry.run != Some(run));
            state.vault_writes += u32::from(state.vault.pending.len() < before);
            Ok(())
        })
        .await
    }
}

#[async_trait]
impl Authority for Memory {
    fn describe(&self) -> String {
        "memory:server".into()
    }

    fn location(&self) -> String {
        "memory".into()
    }

    async fn check(&self, _current: &Secret) -> Result<Vec<Finding>> {
        self.call("authority.check", |_| Ok(Vec::new())).await
    }

    async fn install(&self, change: &Change<'_>) -> Result<Outcome> {
        self.call("authority.install", |state| {
            change.next.expose().clone_into(&mut state.server);
            Ok(Outcome::changed())
        })
        .await
    }
}

#[async_trait]
impl Verifier for Memory {
    async fn login(&self, secret: &Secret) -> Result<Login> {
        self.call("login", |state| {
            Ok(if state.server == secret.expose() { Login::Accepted } else { Login::Refused })
        })
        .await
    }
}

/// The world's second role.
#[derive(Clone, Debug)]
pub struct Second(Memory);

#[async_trait]
impl Authority for Second {
    fn describe(&self) -> String {
        "memory:second".into()
    }

    fn location(&self) -> String {
        "memory second".into()
    }

    async fn check(&self, _current: &Secret) -> Result<Vec<Finding>> {
        self.0.call("second.check", |_| Ok(Vec::new())).await
    }

    async fn install(&self, change: &Change<'_>) -> Result<Outcome> {
        let install = |state: &mut State| {
            state.second = Some(change.next.expose().to_owned());
            Ok(Outcome::changed())
        };
        self.0.call("second.install", install).await
    }
}

#[async_trait]
impl Verifier for Second {
    async fn login(&self, secret: &Secret) -> Result<Login> {
        let accepted = |state: &mut State| Ok(state.second.as_deref() == Some(secret.expose()));
        let accepted = self.0.call("second.login", accepted).await?;
        Ok(if accepted { Login::Accepted } else { Login::Refused })
    }
}

#[async_trait]
impl Pair for Second {
    async fn check(&self, _live: Seat, _password: &Secret) -> Result<Vec<Finding>> {
        self.0.call("pair.check", |_| Ok(Vec::new())).await
    }

    async fn close(&self, live: Seat, _password: &Secret) -> Result<Outcome> {
        let close = |state: &mut State| {
            match live {
                Seat::First => state.second = None,
                Seat::Second => state.server.clear(),
            }
            Ok(Outcome::changed())
        };
        self.0.call("pair.close", close).await
    }

    async fn prepare(&self, _live: Seat, _password: &Secret, _idle: Option<&Secret>) -> Result<Preparation> {
        Ok(Preparation::default())
    }

    async fn apply(&self, _live: Seat, _password: &Secret, _preparation: &Preparation) -> Result<()> {
        Ok(())
    }
}

/// One copy of the world.
#[derive(Clone, Debug)]
pub struct MemorySink(Memory, CopyId);

#[async_trait]
impl Sink for MemorySink {
    fn id(&self) -> &CopyId {
        &self.1
    }

    fn location(&self) -> String {
        self.1.to_string()
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { read_back: true, version_ids: true, reports_time: false }
    }

    async fn check(&self) -> Result<Inspection> {
        Ok(Inspection { seen: self.inspect().await?, findings: Vec::new(), identity: None })
    }

    async fn inspect(&self) -> Result<Seen> {
        self.0
            .call(format!("{}.inspect", self.1), |state| {
                let values = &state.copies[&self.1];
                let content = values
                    .last()
                    .map_or(Content::Absent, |value| Content::Value(Secret::new(value.as_str())));
                Ok(Seen {
                    content,
                    version: Some(VersionId::new(values.len().to_string())),
                    updated_at: None,
                })
            })
            .await
    }

    async fn publish(&self, update: &Update<'_>) -> Result<Outcome> {
        self.0
            .call(format!("{}.publish", self.1), |state| {
                let values = state.copies.get_mut(&self.1).expect("the copy exists");
                let present = values.last().map(|value| Secret::new(value.as_str()));
                let value = update.value(present.as_ref())?;
                let outcome = if present == Some(value.clone()) {
                    Outcome::already_done()
                } else {
                    values.push(value.expose().to_owned());
                    Outcome::changed()
                };
                Ok(outcome.version(Some(VersionId::new(values.len().to_string()))))
            })
            .await
    }

    async fn retire(&self, previous: &VersionId) -> Result<Outcome> {
        self.0.call(format!("{}.retire {previous}", self.1), |_| Ok(Outcome::changed())).await
    }
}

#[async_trait]
impl Consumer for Memory {
    fn id(&self) -> &str {
        "memory:application"
    }

    async fn check(&self) -> Result<Vec<Finding>> {
        self.call("consumer.check", |_| Ok(Vec::new())).await
    }

    async fn activate(&self, _activation: &Activation<'_>) -> Result<Outcome> {
        self.call("consumer.activate", |state| {
            let awaited = state.awaited.clone();
            state.application = awaited.and_then(|copy| state.copies[&copy].last().cloned());
            state.starts += 1;
            Ok(Outcome::changed())
        })
        .await
    }
}

#[async_trait]
impl Verification for Memory {
    fn id(&self) -> &str {
        "health"
    }

    async fn verify(&self, evidence: &Evidence<'_>) -> Result<Outcome> {
        self.call("health.verify", |state| {
            if state.application.as_deref() == Some(evidence.url.expose()) {
                Ok(Outcome { effect_at: Some(evidence.since), ..Outcome::confirmed() })
            } else {
                Err(Error::new(Kind::Refused, "see the application healthy").later(None))
            }
        })
        .await
    }
}

#[async_trait]
impl Recorder for Memory {
    fn id(&self) -> &str {
        "chat"
    }

    async fn check(&self, _ticket: Option<&str>) -> Result<Vec<Finding>> {
        self.call("recorder.check", |_| Ok(Vec::new())).await
    }

    async fn record(&self, story: &Story, again: bool) -> Result<Outcome> {
        if again {
            return Ok(Outcome::unseen("it may have been written already"));
        }
        self.call("recorder.record", |state| {
            state.stories.push(story.run);
            Ok(Outcome::changed())
        })
        .await
    }
}

/// A rotation of the world: two copies, an application that reads one of them, a health check
/// and a recorder. Each call gives a fresh process's view of the same world.
pub fn rotation(memory: &Memory, clock: &Arc<dyn Clock>, entropy: &Arc<dyn Entropy>) -> Rotation {
    let target = target();
    let copy = |id: &CopyId, template: &str| Copy {
        sink: Box::new(memory.sink(id.clone())),
        template: Template::parse(template).expect("a template of this file"),
        retire: false,
    };
    let copies = vec![copy(&password_copy(), "{password}"), copy(&url_copy(), "{database_url}")];
    Rotation {
        environment: Environment::from("test"),
        url: UrlTemplate::parse(URL, &target).expect("the template of this file"),
        target,
        twin: None,
        policy: Policy::default(),
        vault: Box::new(memory.clone()),
        authority: Box::new(memory.clone()),
        verifier: Box::new(memory.clone()),
        wholes: Rotation::locks(&copies),
        copies,
        consumers: vec![BoundConsumer {
            consumer: Box::new(memory.clone()),
            waits_for: vec![url_copy()],
            sessions: None,
        }],
        verifications: vec![Box::new(memory.clone())],
        soak: None,
        back: None,
        repair: None,
        recorders: vec![Box::new(memory.clone())],
        around: Surroundings::default(),
        key: FingerprintKey::new([1; 32]),
        clock: Arc::clone(clock),
        entropy: Arc::clone(entropy),
        keyring: Keyring::default(),
    }
}

/// The same of a world with two roles that take turns.
pub fn alternating(
    memory: &Memory,
    clock: &Arc<dyn Clock>,
    entropy: &Arc<dyn Entropy>,
    retirement: Retirement,
) -> Rotation {
    let second = || Box::new(Second(memory.clone()));
    let twin = Twin {
        target: Target { user: SECOND.into(), ..target() },
        authority: second(),
        verifier: second(),
        census: None,
        elsewhere: Vec::new(),
        vantages: Vec::new(),
        pair: second(),
        retirement,
    };
    Rotation { twin: Some(twin), ..rotation(memory, clock, entropy) }
}

/// The name of the second role.
pub const SECOND: &str = "mindwelladmin_b";

const URL: &str = "postgresql://{user}:{password}@{host}:{port}/{name}";

/// Where the world's role logs in.
pub fn target() -> Target {
    Target { host: "db".into(), port: 5432, database: "app".into(), user: "mindwelladmin".into() }
}

/// The URL of a password.
pub fn url(password: &str) -> String {
    format!("postgresql://mindwelladmin:{password}@db:5432/app")
}

/// The copy that holds the bare password.
pub fn password_copy() -> CopyId {
    CopyId::from("memory:password")
}

/// The copy that holds the URL.
pub fn url_copy() -> CopyId {
    CopyId::from("memory:url")
}

/// A consistent world with this password everywhere.
pub fn world(password: &str) -> Memory {
    Memory::new(password, &url(password), &[(&password_copy(), false), (&url_copy(), true)])
}
