//! Two roles that take turns, on a server that is changed by SQL: each with its own side of its password, and both as a
//! pair.

use std::sync::Arc;

use async_trait::async_trait;
use pgrotate_core::journal::Outcome;
use pgrotate_core::plan::Retirement;
use pgrotate_core::provider::{
    Authority, Change, Finding, Login, Pair, Preparation, Seat, Severity, Verifier,
};
use pgrotate_core::rotation::{Rotation, Twin};
use pgrotate_core::{Error, Kind, Result, Secret};

use crate::network::Wire;
use crate::sabotage::Sabotage;
use crate::vendors::{SETTLES, target};
use crate::world::{World, name};

/// A rotation in which two roles take turns, made from one that knows the first.
pub(crate) fn taken(wire: &Wire, rotation: Rotation, retirement: Retirement) -> Rotation {
    let role = |seat| Box::new(Role { wire: wire.clone(), seat, retirement });
    let twin = Twin {
        target: target(Seat::Second),
        authority: role(Seat::Second),
        verifier: role(Seat::Second),
        census: None,
        elsewhere: Vec::new(),
        vantages: Vec::new(),
        pair: role(Seat::Second),
        retirement,
    };
    Rotation { twin: Some(twin), authority: role(Seat::First), verifier: role(Seat::First), ..rotation }
}

/// One of the two.
struct Role {
    wire: Wire,
    seat: Seat,
    retirement: Retirement,
}

#[async_trait]
impl Authority for Role {
    fn describe(&self) -> String {
        "simulated:server".into()
    }

    fn location(&self) -> String {
        format!("server as {}", name(self.seat))
    }

    async fn check(&self, _current: &Secret) -> Result<Vec<Finding>> {
        self.wire.ask("server: check", |_, _| Ok(Vec::new())).await
    }

    /// A session that somebody has left may still change the role: who calls a run off must not look before it has.
    async fn settle(&self) -> Result<()> {
        let busy = |world: &mut World, _| {
            let ignored = world.is_sabotaged(Sabotage::SessionsAreIgnored);
            Ok(Arc::strong_count(&world.sessions) > 1 && !ignored)
        };
        for _ in 0..SETTLES {
            if !self.wire.ask("server: sessions?", busy).await? {
                return Ok(());
            }
            self.wire.network.time.sleep_ms(1_000).await;
        }
        Err(Error::new(Kind::Busy, "see the sessions end").later(None))
    }

    /// A role changes its own password, unless it may not log in: then the other one does it.
    async fn install(&self, change: &Change<'_>) -> Result<Outcome> {
        let by = match self.retirement {
            Retirement::Password => self.seat,
            Retirement::NoLogin => self.seat.other(),
        };
        let seat = self.seat;
        let (current, next) = (change.current.expose().to_owned(), change.next.expose().to_owned());
        let alter = move |world: &mut World, _| {
            if !world.server.accepts(by, &current) {
                return match world.server.accepts(seat, &next) {
                    true => Ok(Outcome::already_done()),
                    false => Err(refused()),
                };
            }
            let whose =
                if world.is_sabotaged(Sabotage::InstallHitsTheLiveRole) { world.safe.live() } else { seat };
            world.server.change(whose, Some(next));
            Ok(Outcome::changed())
        };
        self.wire.statement("server: alter role", alter).await
    }
}

#[async_trait]
impl Verifier for Role {
    async fn login(&self, secret: &Secret) -> Result<Login> {
        let (seat, password) = (self.seat, secret.expose().to_owned());
        let login = move |world: &mut World, _| {
            Ok(if world.server.accepts(seat, &password) { Login::Accepted } else { Login::Refused })
        };
        self.wire.ask("server: login", login).await
    }
}

#[async_trait]
impl Pair for Role {
    /// As the server's own check: nobody may be logged in as a role whose password is about to change, and a role that
    /// rests has to be able to take over by itself.
    async fn check(&self, live: Seat, password: &Secret) -> Result<Vec<Finding>> {
        let (password, retirement) = (password.expose().to_owned(), self.retirement);
        let look = move |world: &mut World, _| {
            if !world.server.accepts(live, &password) {
                return Err(refused());
            }
            let idle = live.other();
            let wrong = match retirement {
                Retirement::Password => world.server.of(idle).is_none().then_some("it may not log in"),
                Retirement::NoLogin => world.is_logged_in_as(idle).then_some("somebody is logged in as it"),
            };
            Ok(wrong.map(|what| Finding::new(Severity::Blocks, name(idle), what)).into_iter().collect())
        };
        self.wire.ask("server: pair", look).await
    }

    async fn close(&self, live: Seat, password: &Secret) -> Result<Outcome> {
        let password = password.expose().to_owned();
        let close = move |world: &mut World, _| {
            if !world.server.accepts(live, &password) {
                return Err(refused());
            }
            world.server.change(live.other(), None);
            Ok(Outcome::changed())
        };
        self.wire.statement("server: no login", close).await
    }

    async fn prepare(&self, _live: Seat, _password: &Secret, _idle: Option<&Secret>) -> Result<Preparation> {
        Ok(Preparation::default())
    }

    async fn apply(&self, _live: Seat, _password: &Secret, _preparation: &Preparation) -> Result<()> {
        Ok(())
    }
}

fn refused() -> Error {
    Error::new(Kind::Refused, "log in")
}
