//! The providers of the simulation: what the traits of core promise, over a network that promises nothing.

use std::sync::Arc;

use async_trait::async_trait;
use pgrotate_core::database_url::Target;
use pgrotate_core::env::{Clock, Entropy};
use pgrotate_core::journal::Outcome;
use pgrotate_core::keyring::Keyring;
use pgrotate_core::password::Policy;
use pgrotate_core::provider::{
    Activation, Authority, Capabilities, Change, Consumer, Content, Evidence, Finding, Inspection, Login,
    Recorder, Seen, Sink, Story, Survey, Vault, VaultState, Verification, Verifier,
};
use pgrotate_core::rotation::{BoundConsumer, Copy, Rotation};
use pgrotate_core::value::{Template, Update, UrlTemplate};
use pgrotate_core::{CopyId, Environment, Error, FingerprintKey, Kind, Result, RunId, Secret, VersionId};

use crate::network::Wire;
use crate::world::{Kept, Sabotage, World, url};

/// How long a change of the server takes.
const OPERATION_MS: u64 = 5_000;
/// How long the server's state is watched before somebody else has to look again.
const SETTLES: u32 = 40;

/// The vault of record, the server, the application and everybody else who is there once.
#[derive(Clone)]
struct Vendor {
    wire: Wire,
    id: CopyId,
}

#[async_trait]
impl Vault for Vendor {
    fn id(&self) -> &CopyId {
        &self.id
    }

    fn location(&self) -> String {
        "safe".into()
    }

    async fn check(&self) -> Result<Survey> {
        let state = self.wire.ask("vault: check", |world, _| Ok(world.safe.state())).await?;
        Ok(Survey { state: Some(state), findings: Vec::new() })
    }

    async fn read(&self) -> Result<VaultState> {
        self.wire.ask("vault: read", |world, _| Ok(world.safe.state())).await
    }

    async fn stage(&self, run: RunId, secret: &Secret) -> Result<()> {
        let kept = Kept { password: secret.expose().to_owned(), run: Some(run) };
        self.wire
            .change("vault: stage", move |world| match &world.safe.pending {
                Some(pending) if *pending != kept => Err(Error::new(Kind::Conflict, "stage a password")),
                Some(_) => Ok(()),
                None => {
                    world.safe.pending = Some(kept);
                    world.safe.writes += 1;
                    Ok(())
                }
            })
            .await
    }

    async fn promote(&self, run: RunId, next: &Secret) -> Result<Option<VersionId>> {
        let kept = Kept { password: next.expose().to_owned(), run: Some(run) };
        self.wire
            .change("vault: promote", move |world| {
                let safe = &mut world.safe;
                if safe.pending.as_ref() == Some(&kept) {
                    safe.previous = safe.current.take();
                    safe.current = safe.pending.take();
                    if world.sabotage == Some(Sabotage::PromoteForgets) {
                        safe.current.clone_from(&safe.previous);
                    }
                    safe.writes += 1;
                } else if safe.current.as_ref() != Some(&kept) {
                    return Err(Error::new(Kind::Conflict, "promote a password"));
                }
                Ok(Some(VersionId::new(safe.writes.to_string())))
            })
            .await
    }

    async fn discard(&self, run: RunId) -> Result<()> {
        self.wire
            .change("vault: discard", move |world| {
                if world.safe.pending.as_ref().is_some_and(|kept| kept.run == Some(run)) {
                    world.safe.pending = None;
                    world.safe.writes += 1;
                }
                Ok(())
            })
            .await
    }
}

#[async_trait]
impl Authority for Vendor {
    fn describe(&self) -> String {
        "simulated:server".into()
    }

    fn location(&self) -> String {
        "server".into()
    }

    async fn check(&self, _current: &Secret) -> Result<Vec<Finding>> {
        self.wire.ask("server: check", |_, _| Ok(Vec::new())).await
    }

    async fn settle(&self) -> Result<()> {
        for _ in 0..SETTLES {
            if self.wire.ask("server: busy?", |world, _| Ok(world.under_way)).await? == 0 {
                return Ok(());
            }
            self.wire.network.time.sleep_ms(1_000).await;
        }
        Err(Error::new(Kind::Busy, "see the server ready").later(None))
    }

    async fn install(&self, change: &Change<'_>) -> Result<Outcome> {
        let (next, network) = (change.next.expose().to_owned(), Arc::clone(&self.wire.network));
        self.wire
            .change("server: install", move |world| {
                if world.under_way > 0 {
                    return Err(Error::new(Kind::Busy, "change the server").later(None));
                }
                world.under_way += 1;
                let there = network.world.clone();
                let end = move || {
                    let mut world = there.lock();
                    world.server = match world.sabotage {
                        Some(Sabotage::InstallGarbles) => format!("{next}?"),
                        _ => next,
                    };
                    world.under_way -= 1;
                    world.inspect();
                };
                network.time.plan(OPERATION_MS, crate::time::Due::Arrival(Box::new(end)));
                Ok(())
            })
            .await?;
        self.settle().await.map_err(Error::unknown)?;
        Ok(Outcome::changed())
    }
}

#[async_trait]
impl Verifier for Vendor {
    async fn login(&self, secret: &Secret) -> Result<Login> {
        let password = secret.expose().to_owned();
        self.wire
            .ask("server: login", move |world, _| {
                Ok(if world.server == password { Login::Accepted } else { Login::Refused })
            })
            .await
    }
}

#[async_trait]
impl Consumer for Vendor {
    fn id(&self) -> &str {
        "simulated:application"
    }

    async fn check(&self) -> Result<Vec<Finding>> {
        self.wire.ask("application: check", |_, _| Ok(Vec::new())).await
    }

    async fn activate(&self, _activation: &Activation<'_>) -> Result<Outcome> {
        self.wire
            .change("application: restart", |world| {
                if world.sabotage != Some(Sabotage::RestartIsFeigned) {
                    world.application = world.places[0].values.last().cloned().unwrap_or_default();
                }
                Ok(Outcome::changed())
            })
            .await
    }
}

#[async_trait]
impl Verification for Vendor {
    fn id(&self) -> &str {
        "health"
    }

    async fn verify(&self, _evidence: &Evidence<'_>) -> Result<Outcome> {
        self.wire
            .ask("application: health", |world, _| {
                let feigned = world.sabotage == Some(Sabotage::RestartIsFeigned);
                if feigned || world.application == url(&world.server) {
                    return Ok(Outcome::confirmed());
                }
                Err(Error::new(Kind::BadState, "see the application healthy").later(None))
            })
            .await
    }
}

#[async_trait]
impl Recorder for Vendor {
    fn id(&self) -> &str {
        "chat"
    }

    async fn check(&self, _ticket: Option<&str>) -> Result<Vec<Finding>> {
        self.wire.ask("chat: check", |_, _| Ok(Vec::new())).await
    }

    async fn record(&self, story: &Story, again: bool) -> Result<Outcome> {
        if again {
            return Ok(Outcome::unseen("it may have been told already"));
        }
        let run = story.run;
        self.wire
            .change("chat: tell", move |world| {
                world.messages.push(run);
                if world.sabotage == Some(Sabotage::TellsTwice) {
                    world.messages.push(run);
                }
                Ok(Outcome::changed())
            })
            .await
    }
}

/// One copy.
struct Store {
    wire: Wire,
    id: CopyId,
    number: usize,
    readable: bool,
}

impl Store {
    async fn look(&self) -> Result<Option<String>> {
        let (number, readable) = (self.number, self.readable);
        self.wire
            .ask("copy: read", move |world, stale| {
                Ok(if readable { seen(world, number, stale) } else { None })
            })
            .await
    }
}

/// What a reader sees: in a store that is slow to agree with itself, perhaps the value before.
fn seen(world: &World, number: usize, stale: bool) -> Option<String> {
    let values = &world.places[number].values;
    let back = if stale && values.len() > 1 { 2 } else { 1 };
    values.get(values.len() - back).cloned()
}

#[async_trait]
impl Sink for Store {
    fn id(&self) -> &CopyId {
        &self.id
    }

    fn location(&self) -> String {
        self.id.to_string()
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { read_back: self.readable, version_ids: true, reports_time: false }
    }

    async fn check(&self) -> Result<Inspection> {
        Ok(Inspection { seen: self.inspect().await?, findings: Vec::new() })
    }

    async fn inspect(&self) -> Result<Seen> {
        let content = match self.look().await? {
            Some(value) => Content::Value(Secret::new(value)),
            None => Content::Unseen,
        };
        Ok(Seen { content, version: None, updated_at: None })
    }

    async fn publish(&self, update: &Update<'_>) -> Result<Outcome> {
        let present = self.look().await?.map(Secret::new);
        let value = update.value(present.as_ref())?;
        if present.as_ref() == Some(&value) {
            return Ok(Outcome::already_done());
        }
        let (number, readable, value) = (self.number, self.readable, value.expose().to_owned());
        let version = self
            .wire
            .change("copy: write", move |world| {
                let sabotage = world.sabotage;
                let place = &mut world.places[number];
                if sabotage == Some(Sabotage::WriteSpills) {
                    place.neighbour = "spilt";
                }
                let values = &mut place.values;
                if sabotage == Some(Sabotage::WriteIsLost) && !readable {
                    return Ok(None);
                }
                if sabotage == Some(Sabotage::WriteRepeats) {
                    values.push(value.clone());
                    values.push(value);
                    return Ok(None);
                }
                // A store without versions, or one that knows a write's token, has one effect however often it comes.
                if values.last() != Some(&value) {
                    values.push(value);
                }
                Ok(readable.then(|| VersionId::new(values.len().to_string())))
            })
            .await?;
        Ok(Outcome::changed().version(version))
    }
}

const URL: &str = "postgresql://{user}:{password}@{host}:{port}/{name}";

/// A process's own view of the world: two processes share nothing but what is outside of them.
pub(crate) fn rotation(wire: &Wire, soak: bool) -> Rotation {
    let target =
        Target { host: "db".into(), port: 5432, database: "app".into(), user: "mindwelladmin".into() };
    let vendor = || Box::new(Vendor { wire: wire.clone(), id: CopyId::from("simulated:vault") });
    let places: Vec<(CopyId, bool)> =
        wire.network.world.lock().places.iter().map(|place| (place.id.clone(), place.readable)).collect();
    let copies: Vec<Copy> = places
        .iter()
        .enumerate()
        .map(|(number, (id, readable))| Copy {
            sink: Box::new(Store { wire: wire.clone(), id: id.clone(), number, readable: *readable }),
            template: Template::parse(if number == 0 { "{database_url}" } else { "{password}" })
                .expect("a template of this file"),
            retire: false,
        })
        .collect();
    let (clock, entropy): (Arc<dyn Clock>, Arc<dyn Entropy>) =
        (Arc::new(wire.network.time.clone()), Arc::new(wire.network.dice.clone()));
    Rotation {
        environment: Environment::from("sim"),
        url: UrlTemplate::parse(URL, &target).expect("the template of this file"),
        target,
        policy: Policy::default(),
        vault: vendor(),
        authority: vendor(),
        verifier: vendor(),
        wholes: Rotation::locks(&copies),
        consumers: vec![BoundConsumer { consumer: vendor(), waits_for: vec![places[0].0.clone()] }],
        copies,
        verifications: vec![vendor()],
        back: None,
        soak: soak.then(|| std::time::Duration::from_secs(60)),
        recorders: vec![vendor()],
        key: FingerprintKey::new([1; 32]),
        clock,
        entropy,
        keyring: Keyring::default(),
    }
}
