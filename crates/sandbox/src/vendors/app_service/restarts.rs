//! When a site's process is started anew. One at a time: each start takes the configuration as it is at that moment,
//! so a change that comes while a start is waiting is part of it, and one that comes later brings another start. An
//! explicit restart is never merged with the start that a change has already caused: together they are two, as in
//! Azure.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;
use tokio::sync::watch;

use super::super::call::lock;
use super::site::Site;
use super::{AppService, SiteIndex};

/// The starts that a site has been asked for and those that are done.
pub(super) struct Restarts {
    requested: u64,
    /// Starts that have taken their configuration: a later change isn't in them.
    taken: u64,
    /// The configuration that the latest of them took.
    taken_generation: Option<u64>,
    /// Starts that are done; waiting callers watch it.
    done: watch::Sender<u64>,
    working: bool,
}

/// A start that a caller may wait for.
#[derive(Clone, Copy)]
pub(super) struct Ticket(u64);

impl Default for Restarts {
    fn default() -> Self {
        Self { requested: 0, taken: 0, taken_generation: None, done: watch::Sender::new(0), working: false }
    }
}

impl Restarts {
    /// The start that will show a change made now.
    fn for_change(&mut self) -> Ticket {
        if self.requested == self.taken {
            self.requested += 1;
        }
        Ticket(self.requested)
    }

    /// A start of its own.
    fn explicit(&mut self) -> Ticket {
        self.requested += 1;
        Ticket(self.requested)
    }
}

impl AppService {
    /// Starts every application with its settings and waits until they run.
    pub(crate) async fn start_all(self: &Arc<Self>) {
        let count = lock(&self.sites).len();
        let tickets: Vec<_> =
            (0..count).map(|index| (SiteIndex(index), self.hard_restart(SiteIndex(index)))).collect();
        for (index, ticket) in tickets {
            self.wait_for(index, ticket).await;
        }
    }

    /// Changes the settings; if that makes a difference, every reference is read anew and the process restarted.
    pub(super) fn change_settings(
        self: &Arc<Self>,
        index: SiteIndex,
        change: impl FnOnce(&mut BTreeMap<String, String>),
    ) {
        if lock(&self.sites)[index.0].change_settings(change) {
            self.configuration_changed(index);
        }
    }

    /// Changes the connection strings; if that makes a difference, the process is restarted too.
    pub(super) fn change_strings(
        self: &Arc<Self>,
        index: SiteIndex,
        change: impl FnOnce(&mut BTreeMap<String, Value>),
    ) {
        if lock(&self.sites)[index.0].change_strings(change) {
            self.configuration_changed(index);
        }
    }

    /// How often a site has been started. One without a process is only said to have been.
    pub(super) fn starts_of(&self, site: &Site) -> u64 {
        if site.has_process() { self.apps.starts(&site.app) } else { *site.restarts.done.borrow() }
    }

    /// After any change of the configuration: references are read anew, and a restart is on its way.
    pub(super) fn configuration_changed(self: &Arc<Self>, index: SiteIndex) {
        {
            let mut sites = lock(&self.sites);
            let site = &mut sites[index.0];
            site.resolve(&self.key_vault);
            site.generation += 1;
            site.restarts.for_change();
        }
        self.work(index);
    }

    /// A restart that happens in any case.
    pub(super) fn hard_restart(self: &Arc<Self>, index: SiteIndex) -> Ticket {
        let ticket = lock(&self.sites)[index.0].restarts.explicit();
        self.work(index);
        ticket
    }

    /// A restart only if the process doesn't have the present configuration; one that is on its way is enough.
    pub(super) fn soft_restart(self: &Arc<Self>, index: SiteIndex) -> Ticket {
        let ticket = {
            let mut sites = lock(&self.sites);
            let site = &mut sites[index.0];
            if site.running == Some(site.generation) {
                Ticket(site.restarts.requested)
            } else if site.restarts.working && site.restarts.taken_generation == Some(site.generation) {
                Ticket(site.restarts.taken)
            } else {
                site.restarts.for_change()
            }
        };
        self.work(index);
        ticket
    }

    /// Waits until a start is done.
    pub(super) async fn wait_for(&self, index: SiteIndex, Ticket(wanted): Ticket) {
        let mut done = lock(&self.sites)[index.0].restarts.done.subscribe();
        // The sender lives as long as the site, so waiting can't fail.
        let _ = done.wait_for(|done| *done >= wanted).await;
    }

    /// Sees to it that somebody carries out what has been requested.
    fn work(self: &Arc<Self>, index: SiteIndex) {
        let mut sites = lock(&self.sites);
        let restarts = &mut sites[index.0].restarts;
        if !restarts.working && *restarts.done.borrow() < restarts.requested {
            restarts.working = true;
            tokio::spawn(self.clone().carry_out(index));
        }
    }

    async fn carry_out(self: Arc<Self>, index: SiteIndex) {
        loop {
            tokio::time::sleep(self.latency.app_start).await;
            let (name, has_process, generation, variables) = {
                let mut sites = lock(&self.sites);
                let site = &mut sites[index.0];
                site.restarts.taken += 1;
                site.restarts.taken_generation = Some(site.generation);
                (site.app.clone(), site.has_process(), site.generation, site.variables())
            };
            let started = if has_process { self.apps.start(&name, variables).await } else { Ok(()) };
            if let Err(error) = &started {
                tracing::warn!(app = name, error, "the application did not start");
            }
            let mut sites = lock(&self.sites);
            let site = &mut sites[index.0];
            site.running = started.is_ok().then_some(generation);
            site.restarts.done.send_modify(|done| *done += 1);
            if *site.restarts.done.borrow() >= site.restarts.requested {
                site.restarts.working = false;
                return;
            }
        }
    }
}
