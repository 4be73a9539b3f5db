//! The providers of a fleet: worlds in memory, behind the requests that reach them.

use std::sync::Arc;

use async_trait::async_trait;
use pgrotate_core::env::{Clock, Entropy};
use pgrotate_core::journal::Outcome;
use pgrotate_core::memory::{self, Memory, MemorySink};
use pgrotate_core::provider::{
    Activation, Authority, Capabilities, Change, Consumer, Evidence, Finding, Inspection, Recorder, Seen,
    Sink, Story, Survey, Vault, VaultState, Verification,
};
use pgrotate_core::rotation::{BoundConsumer, Copy, Rotation};
use pgrotate_core::value::{Template, Update};
use pgrotate_core::{CopyId, Environment, Error, Kind, Result, RunId, Secret, VersionId};

use super::limits::Gate;
use super::requests::{self as sent, Calls, Request, Sent, Vendor};
use super::{Around, Shape};
use crate::dice::Dice;
use crate::time::Time;

/// The copies of the runbook, what they hold and what they cost.
const COPIES: [(&str, bool, Calls); 7] = [
    ("azure_app_service:DATABASE_URL", true, sent::SETTING),
    ("azure_key_vault:database-url", true, sent::FIRST_SECRET),
    ("azure_key_vault:postgres-admin-password", false, sent::SECRET),
    ("github_actions:DATABASE_URL", true, sent::FIRST_ACTIONS_SECRET),
    ("github_actions:POSTGRES_ADMIN_PASSWORD", false, sent::ACTIONS_SECRET),
    ("env_file:runner.env", true, sent::FILE),
    ("aws_secrets_manager:admin-password", false, sent::AWS_SECRET),
];

/// One environment's way to the vendors.
#[derive(Clone)]
pub(super) struct Wire {
    pub(super) place: usize,
    pub(super) shape: Shape,
    pub(super) time: Time,
    pub(super) dice: Arc<Dice>,
    pub(super) around: Arc<dyn Around>,
    pub(super) gate: Arc<Gate>,
}

impl Wire {
    /// Sends these, one after the other. What is turned away ends the call, as a real provider's does.
    async fn send(&self, all: &[Sent]) -> Result<()> {
        for (vendor, writes, number) in all {
            for _ in 0..*number {
                self.send_one(*vendor, *writes).await?;
            }
        }
        Ok(())
    }

    async fn send_one(&self, vendor: Vendor, writes: bool) -> Result<()> {
        let request = Request { vendor, place: self.place_at(vendor), writes };
        let _kept = self.around.before(&self.time, &request).await;
        self.travel().await;
        let verdict = self.gate.lock().arrives(&request, &self.subscription(), self.time.now_ms());
        self.travel().await;
        self.gate.lock().answers(&request);
        verdict.map_err(|wait| Error::new(Kind::Throttled, format!("ask {vendor}")).later(Some(wait)))
    }

    /// Half a request's way. Who is answered at once lets the others go on nevertheless.
    async fn travel(&self) {
        let ms = if self.shape.at_once_answered { 0 } else { 30 + self.dice.below(41) };
        self.time.sleep_ms(ms).await;
    }

    /// What a system does beside answering.
    async fn work(&self, ms: u64) {
        if !self.shape.at_once_answered && ms > 0 {
            self.time.sleep_ms(ms).await;
        }
    }

    fn subscription(&self) -> String {
        if self.shape.one_subscription { "sub".to_owned() } else { format!("sub-{}", self.place) }
    }

    fn place_at(&self, vendor: Vendor) -> String {
        match vendor {
            Vendor::ResourceManager => self.subscription(),
            Vendor::KeyVault => format!("kv-{}", self.place),
            _ => "one for all".to_owned(),
        }
    }
}

/// A provider behind its requests.
struct Far<P> {
    inner: P,
    wire: Wire,
    calls: Calls,
}

#[async_trait]
impl Vault for Far<Memory> {
    fn id(&self) -> &CopyId {
        Vault::id(&self.inner)
    }

    fn location(&self) -> String {
        Vault::location(&self.inner)
    }

    async fn check(&self) -> Result<Survey> {
        self.wire.send(self.calls.check).await?;
        Vault::check(&self.inner).await
    }

    async fn read(&self) -> Result<VaultState> {
        Vault::read(&self.inner).await
    }

    async fn stage(&self, run: RunId, secret: &Secret) -> Result<()> {
        self.wire.send(self.calls.change).await?;
        self.inner.stage(run, secret).await
    }

    async fn promote(&self, run: RunId, next: &Secret, user: Option<&str>) -> Result<Option<VersionId>> {
        self.wire.send(self.calls.after).await?;
        self.inner.promote(run, next, user).await
    }

    async fn lay_aside(&self, run: RunId, idle: &Secret) -> Result<()> {
        self.wire.send(self.calls.change).await?;
        self.inner.lay_aside(run, idle).await
    }

    async fn discard(&self, run: RunId) -> Result<()> {
        self.wire.send(self.calls.change).await?;
        self.inner.discard(run).await
    }
}

#[async_trait]
impl Authority for Far<Memory> {
    fn describe(&self) -> String {
        self.inner.describe()
    }

    fn location(&self) -> String {
        Authority::location(&self.inner)
    }

    async fn check(&self, current: &Secret) -> Result<Vec<Finding>> {
        self.wire.send(self.calls.check).await?;
        Authority::check(&self.inner, current).await
    }

    async fn install(&self, change: &Change<'_>) -> Result<Outcome> {
        self.wire.send(self.calls.change).await?;
        self.wire.work(self.calls.takes_ms).await;
        self.inner.install(change).await
    }
}

#[async_trait]
impl Sink for Far<MemorySink> {
    fn id(&self) -> &CopyId {
        self.inner.id()
    }

    fn location(&self) -> String {
        self.inner.location()
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    async fn check(&self) -> Result<Inspection> {
        self.wire.send(self.calls.check).await?;
        self.inner.check().await
    }

    async fn inspect(&self) -> Result<Seen> {
        self.wire.send(self.calls.after).await?;
        self.inner.inspect().await
    }

    async fn publish(&self, update: &Update<'_>) -> Result<Outcome> {
        self.wire.send(self.calls.change).await?;
        self.inner.publish(update).await
    }
}

#[async_trait]
impl Consumer for Far<Memory> {
    fn id(&self) -> &str {
        Consumer::id(&self.inner)
    }

    async fn check(&self) -> Result<Vec<Finding>> {
        self.wire.send(self.calls.check).await?;
        Consumer::check(&self.inner).await
    }

    async fn activate(&self, activation: &Activation<'_>) -> Result<Outcome> {
        self.wire.send(self.calls.change).await?;
        self.wire.work(self.calls.takes_ms).await;
        self.inner.activate(activation).await
    }
}

#[async_trait]
impl Verification for Far<Memory> {
    fn id(&self) -> &str {
        Verification::id(&self.inner)
    }

    async fn verify(&self, evidence: &Evidence<'_>) -> Result<Outcome> {
        self.wire.send(self.calls.after).await?;
        self.inner.verify(evidence).await
    }
}

/// Several recorders of one world, told apart by their names.
struct Line {
    far: Far<Memory>,
    id: &'static str,
}

#[async_trait]
impl Recorder for Line {
    fn id(&self) -> &str {
        self.id
    }

    async fn check(&self, ticket: Option<&str>) -> Result<Vec<Finding>> {
        self.far.wire.send(self.far.calls.check).await?;
        Recorder::check(&self.far.inner, ticket).await
    }

    async fn record(&self, story: &Story, again: bool) -> Result<Outcome> {
        self.far.wire.send(self.far.calls.change).await?;
        self.far.inner.record(story, again).await
    }
}

/// A consistent world with the runbook's copies and this password everywhere.
pub(super) fn world(password: &str) -> Memory {
    let ids: Vec<(CopyId, bool)> =
        COPIES.iter().map(|(id, holds_url, _)| ((*id).into(), *holds_url)).collect();
    let copies: Vec<(&CopyId, bool)> = ids.iter().map(|(id, holds_url)| (id, *holds_url)).collect();
    Memory::new(password, &memory::url(password), &copies)
}

/// The rotation of such a world.
pub(super) fn rotation(wire: &Wire, world: &Memory) -> Rotation {
    let (clock, entropy): (Arc<dyn Clock>, Arc<dyn Entropy>) =
        (Arc::new(wire.time.clone()), Arc::clone(&wire.dice) as Arc<dyn Entropy>);
    let far = |calls| Far { inner: world.clone(), wire: wire.clone(), calls };
    let copies: Vec<Copy> = COPIES.iter().map(|copy| bound(copy, wire, world)).collect();
    Rotation {
        environment: Environment::new(format!("env-{:05}", wire.place)),
        vault: Box::new(far(sent::VAULT)),
        authority: Box::new(far(sent::SERVER)),
        wholes: Rotation::locks(&copies),
        consumers: vec![BoundConsumer {
            consumer: Box::new(far(sent::APPLICATION)),
            waits_for: vec![copies[0].sink.id().clone()],
            sessions: None,
        }],
        copies,
        verifications: vec![Box::new(far(sent::APPLICATION))],
        recorders: vec![
            Box::new(Line { far: far(sent::CHAT), id: "webhook" }),
            Box::new(Line { far: far(sent::TICKET), id: "jira" }),
        ],
        ..memory::rotation(world, &clock, &entropy)
    }
}

fn bound((id, holds_url, calls): &(&str, bool, Calls), wire: &Wire, world: &Memory) -> Copy {
    let template = if *holds_url { "{database_url}" } else { "{password}" };
    Copy {
        sink: Box::new(Far { inner: world.sink((*id).into()), wire: wire.clone(), calls: *calls }),
        template: Template::parse(template).expect("a template of this file"),
        retire: false,
    }
}

/// Whether a world has one new password everywhere, and has been told of this run and of no other.
pub(super) fn is_rotated(world: &Memory, before: &str, run: RunId) -> bool {
    let state = world.state();
    let url = memory::url(&state.server);
    let holds = |(id, holds_url, _): &(&str, bool, Calls)| {
        let value = state.copies.get(&CopyId::from(*id)).and_then(|values| values.last());
        value == Some(if *holds_url { &url } else { &state.server })
    };
    let current = state.vault.current.as_ref();
    state.server != before
        && current.is_some_and(|entry| entry.run == Some(run) && entry.secret.expose() == state.server)
        && COPIES.iter().all(holds)
        && state.application.as_ref() == Some(&url)
        && state.stories.iter().all(|told| *told == run)
        && state.stories.len() == 2
}
