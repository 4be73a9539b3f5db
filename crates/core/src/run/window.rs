//! For how long the applications can have been unable to log in, and what that time went to.

use jiff::Timestamp;

use super::RunState;
use crate::plan::{Action, StrategyName};

/// The time between the change of the server and the proof that the applications can log in again, in milliseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    /// All of it.
    pub total: u64,
    /// What it went to, in order: the parts make the total. Empty where there was no such time.
    pub parts: Vec<(&'static str, u64)>,
}

impl RunState {
    /// The longest time for which the applications can have been unable to log in: from the start of `install` to the
    /// proof that each of them can. Without a verification that proves it, nobody knows. Roles that take turns can both
    /// log in until all have moved.
    pub fn window(&self) -> Option<Window> {
        if self.plan().strategy == StrategyName::Alternating {
            return Some(Window { total: 0, parts: Vec::new() });
        }
        let install = self.steps().find(|(step, _)| step.action == Action::Install)?.1;
        let (begin, end) = (install.started_at?, self.healthy_at()?);
        let moments = [
            ("the server", install.finished_at),
            ("the proof of it", self.proven_at()),
            ("the copies that applications read", self.awaited_at()),
            ("their start", Some(end)),
        ];
        let mut parts = Vec::with_capacity(moments.len());
        let mut last = begin;
        for (name, moment) in moments {
            // What ended later than the whole was not waited for.
            let moment = moment.unwrap_or(last).clamp(last, end.max(last));
            parts.push((name, millis(last, moment)));
            last = moment;
        }
        Some(Window { total: parts.iter().map(|(_, part)| part).sum(), parts })
    }

    /// The same in all, in milliseconds.
    pub fn window_ms(&self) -> Option<u64> {
        self.window().map(|window| window.total)
    }

    /// When the last of the verifications had seen that an application can log in.
    fn healthy_at(&self) -> Option<Timestamp> {
        let seen = self.steps().filter_map(|(step, state)| match step.action {
            Action::Verify { .. } => state.outcome.as_ref()?.effect_at,
            _ => None,
        });
        seen.max()
    }

    /// When the last copy was written that a consumer had to wait for.
    fn awaited_at(&self) -> Option<Timestamp> {
        let awaited: Vec<_> = self.plan().of_kind("activate").flat_map(|step| &step.after).collect();
        let written = self.plan().of_kind("publish").filter(|step| awaited.contains(&&step.id));
        written.filter_map(|step| self.step(&step.id).finished_at).max()
    }
}

fn millis(from: Timestamp, to: Timestamp) -> u64 {
    u64::try_from(to.duration_since(from).as_millis()).unwrap_or(0)
}
