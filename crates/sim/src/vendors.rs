//! The providers of the simulation: what the traits of core promise, over a network that promises nothing.

use std::sync::Arc;

use async_trait::async_trait;
use pgrotate_core::database_url::Target;
use pgrotate_core::env::{Clock, Entropy};
use pgrotate_core::journal::Outcome;
use pgrotate_core::keyring::Keyring;
use pgrotate_core::password::Policy;
use pgrotate_core::plan::{Back, Retirement};
use pgrotate_core::provider::{
    Activation, Authority, Capabilities, Change, Consumer, Content, Entry, Evidence, Finding, Inspection,
    Login, Recorder, Seat, Seen, Sink, Story, Survey, Vault, VaultState, Verification, Verifier,
};
use pgrotate_core::rotation::{BoundConsumer, Copy, Rotation, Surroundings};
use pgrotate_core::value::{Template, Update, UrlTemplate};
use pgrotate_core::{CopyId, Environment, Error, FingerprintKey, Kind, Result, RunId, Secret, VersionId};

use crate::network::Wire;
use crate::sabotage::Sabotage;
use crate::time::Due;
use crate::turns;
use crate::world::{Kept, Place, World, name};

/// How long a change of the server takes.
const OPERATION_MS: u64 = 5_000;
/// How long the server's state is watched before somebody else has to look again.
pub(crate) const SETTLES: u32 = 40;

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
        Ok(Survey { state: Some(state), findings: Vec::new(), identity: None })
    }

    async fn read(&self) -> Result<VaultState> {
        self.wire.ask("vault: read", |world, how| Ok(world.read_safe(how.stale, how.at_ms))).await
    }

    /// As a vault without conditions on its writes does it: a look, then a write that adds and replaces nothing.
    async fn stage(&self, run: RunId, secret: &Secret) -> Result<()> {
        let ours = |entry: &Entry| entry.run == Some(run) && entry.secret == *secret;
        let state = self.read().await?;
        match &state.pending[..] {
            [] if state.current.is_none_or(|current| !ours(&current)) => {}
            [pending] if ours(pending) => return Ok(()),
            _ => return Err(Error::new(Kind::Conflict, "stage a password")),
        }
        let password = secret.expose().to_owned();
        self.wire
            .change("vault: stage", move |world, how| {
                world.witness.learns(&password);
                world.write_safe(how.at_ms, |safe| {
                    if !safe.pending.iter().any(|kept| kept.is(run, &password)) {
                        safe.pending.push(Kept { password, run: Some(run), late: how.late });
                    }
                });
                Ok(())
            })
            .await
    }

    async fn promote(&self, run: RunId, next: &Secret, user: Option<&str>) -> Result<Option<VersionId>> {
        let (password, user) = (next.expose().to_owned(), user.map(str::to_owned));
        self.wire
            .change("vault: promote", move |world, how| {
                let forgets = world.is_sabotaged(Sabotage::PromoteForgets);
                let nameless = world.is_sabotaged(Sabotage::PromoteNamesNobody);
                world.write_safe(how.at_ms, |safe| {
                    let is_current = safe.current.as_ref().is_some_and(|kept| kept.is(run, &password));
                    if !is_current {
                        if !safe.pending.iter().any(|kept| kept.is(run, &password)) {
                            return Err(Error::new(Kind::Conflict, "promote a password"));
                        }
                        safe.previous = safe.current.take();
                        let next = Kept { password, run: Some(run), late: false };
                        safe.current = if forgets { safe.previous.clone() } else { Some(next) };
                        safe.user = if nameless { safe.user.take() } else { user.or(safe.user.take()) };
                    }
                    // A request that comes late drops what was there when it was sent, and that is gone by now.
                    if !(is_current && how.late) {
                        safe.pending.retain(|kept| kept.run != Some(run));
                    }
                    Ok(Some(VersionId::new(safe.writes.to_string())))
                })
            })
            .await
    }

    async fn lay_aside(&self, run: RunId, idle: &Secret) -> Result<()> {
        let password = idle.expose().to_owned();
        self.wire
            .change("vault: lay aside", move |world, how| {
                world.write_safe(how.at_ms, |safe| {
                    safe.previous = Some(Kept { password, run: Some(run), late: false });
                    safe.pending.retain(|kept| kept.run != Some(run));
                });
                Ok(())
            })
            .await
    }

    async fn discard(&self, run: RunId) -> Result<()> {
        self.wire
            .change("vault: discard", move |world, how| {
                world.write_safe(how.at_ms, |safe| safe.pending.retain(|kept| kept.run != Some(run)));
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
            .change("server: install", move |world, _| {
                if world.under_way > 0 {
                    return Err(Error::new(Kind::Busy, "change the server").later(None));
                }
                world.under_way += 1;
                let next =
                    if world.is_sabotaged(Sabotage::InstallGarbles) { format!("{next}?") } else { next };
                let (ready, effective) = (network.world.clone(), network.world.clone());
                let lag_ms = world.lag_ms;
                network.time.plan(OPERATION_MS, Due::Arrival(Box::new(move || ready.lock().under_way -= 1)));
                let takes_effect = move || {
                    let mut world = effective.lock();
                    world.server.change(Seat::First, Some(next));
                    world.inspect();
                };
                network.time.plan(OPERATION_MS + lag_ms, Due::Arrival(Box::new(takes_effect)));
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
                let accepted = world.server.accepts(Seat::First, &password);
                Ok(if accepted { Login::Accepted } else { Login::Refused })
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
            .change("application: restart", |world, _| {
                if !world.is_sabotaged(Sabotage::RestartIsFeigned) {
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

    async fn verify(&self, evidence: &Evidence<'_>) -> Result<Outcome> {
        let url = evidence.url.expose().to_owned();
        self.wire
            .ask("application: health", move |world, _| {
                let feigned = world.is_sabotaged(Sabotage::RestartIsFeigned);
                if feigned || world.application == url && world.server.opens_to(&url) {
                    return Ok(Outcome::confirmed());
                }
                Err(Error::new(Kind::BadState, "see the application healthy").later(None))
            })
            .await
    }
}

/// A channel that can't be asked whether a message has arrived.
struct Chat(Wire);

#[async_trait]
impl Recorder for Chat {
    fn id(&self) -> &str {
        "chat"
    }

    async fn check(&self, _ticket: Option<&str>) -> Result<Vec<Finding>> {
        self.0.ask("chat: check", |_, _| Ok(Vec::new())).await
    }

    async fn record(&self, story: &Story, again: bool) -> Result<Outcome> {
        if again {
            return Ok(Outcome::unseen("it may have been told already"));
        }
        let run = story.run;
        self.0
            .change("chat: tell", move |world, _| {
                world.messages.push(run);
                Ok(Outcome::changed())
            })
            .await
    }
}

/// A ticket, whose comments can be searched.
struct Ticket(Wire);

#[async_trait]
impl Recorder for Ticket {
    fn id(&self) -> &str {
        "ticket"
    }

    async fn check(&self, _ticket: Option<&str>) -> Result<Vec<Finding>> {
        self.0.ask("ticket: check", |_, _| Ok(Vec::new())).await
    }

    async fn record(&self, story: &Story, again: bool) -> Result<Outcome> {
        let run = story.run;
        let there = move |world: &mut World, _| Ok(world.comments.iter().any(|comment| comment.0 == run));
        if again && self.0.ask("ticket: search", there).await? {
            return Ok(Outcome::already_done());
        }
        self.0
            .change("ticket: comment", move |world, how| {
                world.comments.push((run, how.late));
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
    async fn look(&self) -> Result<(Option<String>, Option<VersionId>)> {
        let number = self.number;
        self.wire
            .ask(READ[number], move |world, how| {
                let place = &world.places[number];
                Ok((place.seen(how.stale, how.at_ms), place.version()))
            })
            .await
    }
}

/// What requests to the stores are called: each is a system of its own.
const READ: [&str; 4] = ["store 0: read", "store 1: read", "store 2: read", "store 3: read"];
const WRITE: [&str; 4] = ["store 0: write", "store 1: write", "store 2: write", "store 3: write"];

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
        Ok(Inspection { seen: self.inspect().await?, findings: Vec::new(), identity: None })
    }

    async fn inspect(&self) -> Result<Seen> {
        let (value, version) = self.look().await?;
        let content = value.map_or(Content::Unseen, |value| Content::Value(Secret::new(value)));
        Ok(Seen { content, version, updated_at: None })
    }

    async fn publish(&self, update: &Update<'_>) -> Result<Outcome> {
        let (present, version) = self.look().await?;
        let present = present.map(Secret::new);
        let value = update.value(present.as_ref())?;
        let blindly = self.wire.network.world.lock().is_sabotaged(Sabotage::WritesBlindly);
        if present.as_ref() == Some(&value) && !blindly {
            return Ok(Outcome::already_done().version(version));
        }
        let (number, run, value) = (self.number, update.run, value.expose().to_owned());
        let version = self
            .wire
            .change(WRITE[number], move |world, how| {
                if world.is_sabotaged(Sabotage::WriteSpills) {
                    world.places[number].neighbour = "spilt";
                }
                let lost = world.is_sabotaged(Sabotage::WriteIsLost) && !world.places[number].is_readable();
                if !lost {
                    world.places[number].write(run, value, how.late, how.at_ms);
                }
                Ok(world.places[number].version())
            })
            .await?;
        Ok(Outcome::changed().version(version))
    }
}

const URL: &str = "postgresql://{user}:{password}@{host}:{port}/{name}";

/// What is done beside the rotation of the password itself.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Extras {
    /// Everything is proven a second time.
    pub(crate) soak: bool,
    /// A ticket is told, too.
    pub(crate) ticket: bool,
    /// Two roles take turns, and this is how the one that was live is retired.
    pub(crate) turns: Option<Retirement>,
}

/// A process's own view of the world: two processes share nothing but what is outside of them.
pub(crate) fn rotation(wire: &Wire, extras: Extras, back: Option<Back>) -> Rotation {
    let target = target(Seat::First);
    let vendor = || Box::new(Vendor { wire: wire.clone(), id: CopyId::from("simulated:vault") });
    let copies = copies(wire);
    let (clock, entropy): (Arc<dyn Clock>, Arc<dyn Entropy>) =
        (Arc::new(wire.network.time.clone()), Arc::new(wire.network.dice.clone()));
    let mut recorders: Vec<Box<dyn Recorder>> = vec![Box::new(Chat(wire.clone()))];
    if extras.ticket {
        recorders.push(Box::new(Ticket(wire.clone())));
    }
    let rotation = Rotation {
        environment: environment(),
        url: UrlTemplate::parse(URL, &target).expect("the template of this file"),
        target,
        twin: None,
        policy: Policy::default(),
        vault: vendor(),
        authority: vendor(),
        verifier: vendor(),
        wholes: Rotation::locks(&copies),
        consumers: vec![BoundConsumer {
            consumer: vendor(),
            waits_for: vec![copies[0].sink.id().clone()],
            sessions: None,
        }],
        copies,
        verifications: vec![vendor()],
        back,
        repair: None,
        soak: extras.soak.then(|| std::time::Duration::from_secs(60)),
        recorders,
        around: Surroundings::default(),
        key: FingerprintKey::new([1; 32]),
        clock,
        entropy,
        keyring: Keyring::default(),
    };
    match extras.turns {
        Some(retirement) => turns::taken(wire, rotation, retirement),
        None => rotation,
    }
}

/// Where a role logs in.
pub(crate) fn target(seat: Seat) -> Target {
    Target { host: "db".into(), port: 5432, database: "app".into(), user: name(seat).into() }
}

fn copies(wire: &Wire) -> Vec<Copy> {
    let world = wire.network.world.lock();
    let copy = |(number, place): (usize, &Place)| Copy {
        sink: Box::new(Store {
            wire: wire.clone(),
            id: place.id.clone(),
            number,
            readable: place.is_readable(),
        }),
        template: Template::parse(if place.holds_url { "{database_url}" } else { "{password}" })
            .expect("a template of this file"),
        retire: false,
    };
    world.places.iter().enumerate().map(copy).collect()
}

/// The one environment there is.
pub(crate) fn environment() -> Environment {
    Environment::from("sim")
}
