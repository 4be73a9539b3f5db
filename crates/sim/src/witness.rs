//! The seven promises, looked into after everything that happens: in the world, and in every word that is written down.
//!
//! What a journal says is compared with what is so. That a step is done must be true, and what can't be seen must not
//! be called fine.

use pgrotate_core::RunId;
use pgrotate_core::journal::{Effect, Event, Outcome, Record, RunOutcome};
use pgrotate_core::plan::{Back, Retirement};
use pgrotate_core::provider::Seat;

use crate::world::{Kept, NEIGHBOUR, Safe, Sort, World, url};

/// How things stood when a run began.
struct Begun {
    run: RunId,
    back: Option<Back>,
    outcome: Option<RunOutcome>,
    /// The password that the vault of record called current, and whose it was.
    before: String,
    live: Seat,
    /// Server, vault of record, copies, application.
    picture: String,
}

/// What a witness remembers.
pub(crate) struct Witness {
    /// The password that everything held when the last run was done.
    settled: String,
    /// All passwords there have been.
    known: Vec<String>,
    begun: Vec<Begun>,
}

impl Witness {
    pub(crate) fn new(password: &str, idle: &str) -> Self {
        let known = vec![password.to_owned(), idle.to_owned()];
        Self { settled: password.to_owned(), known, begun: Vec::new() }
    }

    /// The runs, in the order in which they began, and how they ended.
    pub(crate) fn runs(&self) -> impl DoubleEndedIterator<Item = (RunId, Option<RunOutcome>)> + '_ {
        self.begun.iter().map(|begun| (begun.run, begun.outcome))
    }

    /// The newest run that is not over, but for those that others have taken back.
    pub(crate) fn open(&self) -> Option<RunId> {
        let takes_back = |begun: &Begun, run: RunId| begun.back.as_ref().is_some_and(|back| back.run == run);
        let nothing = |begun: &Begun| matches!(begun.outcome, Some(RunOutcome::Failed | RunOutcome::Aborted));
        let overtaken = |run: RunId| self.begun.iter().any(|begun| takes_back(begun, run) && !nothing(begun));
        let open = |begun: &&Begun| begun.outcome.is_none() && !overtaken(begun.run);
        self.begun.iter().rev().find(open).map(|begun| begun.run)
    }

    /// A password has been made.
    pub(crate) fn learns(&mut self, password: &str) {
        if !self.known.iter().any(|known| known == password) {
            self.known.push(password.to_owned());
        }
    }
}

impl World {
    /// What must hold after everything that happens out there.
    pub(crate) fn inspect(&mut self) {
        let live = self.safe.live();
        let logs_in = |seat: Seat, kept: &Kept| self.server.accepts(seat, &kept.password);
        let current = self.safe.current.as_ref().is_some_and(|kept| logs_in(live, kept));
        // What is not current is for the role that is not live, where there are two.
        let mut others = self.safe.pending.iter().chain(&self.safe.previous);
        if !current && !others.any(|kept| logs_in(self.other(live), kept)) {
            self.breaks("1: no version in the vault of record logs in");
        }
        if self.turns.is_some() {
            self.nobody_is_ever_locked_out(current);
        }
        if self.places.iter().any(|place| place.neighbour != NEIGHBOUR) {
            self.breaks("5: something was changed that is not pgrotate's");
        }
        let runs = self.witness.begun.len();
        for number in 0..self.places.len() {
            let place = &self.places[number];
            // What comes after its sender has given up makes one version more, where each write makes one.
            let excused = if place.sort == Sort::Versioned { place.late } else { 0 };
            let twice = place.values.windows(2).filter(|pair| pair[0] == pair[1]).count();
            if twice > excused || place.values.len() > 1 + runs + excused {
                let id = place.id.clone();
                self.breaks(format!("6: {id} got the same value twice"));
            }
        }
        let told_twice = |run: &RunId| self.messages.iter().filter(|told| *told == run).count() > 1;
        let in_time =
            |run: &RunId| self.comments.iter().filter(|(commented, late)| commented == run && !late).count();
        if self.messages.iter().any(told_twice) || self.comments.iter().any(|(run, _)| in_time(run) > 1) {
            self.breaks("6: a run was told twice");
        }
    }

    /// What two roles are for: there is no moment at which somebody can't log in.
    fn nobody_is_ever_locked_out(&mut self, current: bool) {
        if !current {
            self.breaks("1: what the vault of record calls current does not log in");
        }
        if !self.server.opens_to(&self.application) {
            self.breaks("1: the application can't log in");
        }
        if !self.places[0].values.last().is_some_and(|url| self.server.opens_to(url)) {
            self.breaks("1: whoever starts now can't log in");
        }
    }

    /// The role that takes turns with this one; without one it is the same.
    fn other(&self, seat: Seat) -> Seat {
        if self.turns.is_none() { seat } else { seat.other() }
    }

    /// What must hold of every entry of a journal; `text` is the entry as it is written.
    pub(crate) fn is_written_down(&mut self, run: RunId, record: &Record, text: &str) {
        if self.witness.known.iter().any(|password| text.contains(password.as_str())) {
            self.breaks("4: the journal holds a password");
        }
        match &record.event {
            Event::RunStarted(start) => {
                let taken_back = start.plan.back().map(|back| back.run);
                if self.witness.open().is_some_and(|open| Some(open) != taken_back) {
                    self.breaks("3: a run begins, and another one is not over");
                }
                let back = start.plan.back().cloned();
                let before = self.safe.current.as_ref().map(|kept| kept.password.clone()).unwrap_or_default();
                let (live, picture) = (self.safe.live(), self.picture());
                self.witness.begun.push(Begun { run, back, outcome: None, before, live, picture });
            }
            Event::StepFinished { step, outcome } if !self.is_true(run, step.as_str(), outcome) => {
                self.breaks(format!("7: {step} is said to be {:?}, and it is not so", outcome.effect));
            }
            Event::RunFinished { outcome } => {
                match outcome {
                    RunOutcome::Done => self.everything_is_new(run),
                    _ => self.nothing_is_changed(run),
                }
                if let Some(begun) = self.witness.begun.iter_mut().find(|begun| begun.run == run) {
                    begun.outcome = Some(*outcome);
                }
            }
            _ => {}
        }
    }

    /// Whether what a step is said to have done or seen is so.
    fn is_true(&self, run: RunId, step: &str, outcome: &Outcome) -> bool {
        if !matches!(outcome.effect, Effect::Changed | Effect::AlreadyDone | Effect::Confirmed) {
            return true;
        }
        let live = self.safe.live();
        let ours = |kept: &&Kept| kept.run == Some(run);
        if step == "check" {
            return true;
        }
        if let Some(current) = self.safe.current.as_ref().filter(ours) {
            return self.is_true_of(run, live, &current.password, step);
        }
        // A first try to stage one that came late stands beside the run's own password.
        let mut own = self.safe.pending.iter().filter(ours);
        own.any(|kept| self.is_true_of(run, self.other(live), &kept.password, step))
    }

    /// The same, if this is the run's password, and whose it is.
    fn is_true_of(&self, run: RunId, seat: Seat, password: &str, step: &str) -> bool {
        let (verb, subject) = step.split_once('/').unwrap_or((step, ""));
        let verb = verb.trim_end_matches("-again");
        let place = self.places.iter().find(|place| place.id.as_str() == subject);
        match (verb, place) {
            ("publish", Some(place)) => place.holds(seat, password),
            ("verify", Some(place)) => place.is_readable() && place.holds(seat, password),
            ("prove", _) => self.server.accepts(seat, password),
            ("promote", _) => self.safe.current.as_ref().is_some_and(|kept| kept.run == Some(run)),
            ("verify", None) if subject == "login" => {
                self.server.accepts(seat, password) && self.is_dead(run, self.other(seat))
            }
            ("verify", None) | ("activate", _) => self.application == url(seat, password),
            ("retire", None) if subject == "idle password" => self.has_staged_another(run, password),
            ("retire", None) if subject == "role" => self.is_retired(run, seat.other()),
            ("retire", None) if subject == "dead password" => {
                self.is_at_rest() && self.is_dead(run, seat.other())
            }
            ("record", _) if subject == "ticket" => {
                self.comments.iter().any(|(commented, _)| *commented == run)
            }
            ("record", _) => self.messages.contains(&run),
            _ => true,
        }
    }

    /// Whether the server refuses the password from before a run.
    fn is_dead(&self, run: RunId, seat: Seat) -> bool {
        let begun = self.witness.begun.iter().find(|begun| begun.run == run);
        begun.is_some_and(|begun| !self.server.accepts(seat, &begun.before))
    }

    fn has_staged_another(&self, run: RunId, password: &str) -> bool {
        self.safe.pending.iter().any(|kept| kept.run == Some(run) && kept.password != password)
    }

    /// Whether the role that was live has what the run has staged for it, or no login.
    fn is_retired(&self, run: RunId, seat: Seat) -> bool {
        let mut pending = self.safe.pending.iter();
        match self.turns {
            Some(Retirement::Password) => {
                pending.any(|kept| kept.run == Some(run) && self.server.accepts(seat, &kept.password))
            }
            _ => self.server.of(seat).is_none(),
        }
    }

    /// Whether the role that is not live, if there is one, is as it has to be until its turn comes.
    fn is_at_rest(&self) -> bool {
        let idle = self.safe.live().other();
        match self.turns {
            Some(Retirement::Password) => {
                let kept = self.safe.previous.as_ref();
                kept.is_some_and(|kept| self.server.accepts(idle, &kept.password))
            }
            Some(Retirement::NoLogin) => self.server.of(idle).is_none(),
            None => true,
        }
    }

    /// Server, vault of record, copies and application in one text.
    fn picture(&self) -> String {
        let Safe { current, previous, user, .. } = &self.safe;
        let mut picture = format!("{:?} {current:?} {previous:?} {user:?} {}", self.server, self.application);
        for place in &self.places {
            picture.push_str(place.values.last().map_or("", |value| value));
        }
        picture
    }

    fn all_hold(&self, password: &str) -> bool {
        let live = self.safe.live();
        self.server.accepts(live, password)
            && self.safe.current.as_ref().is_some_and(|kept| kept.password == password)
            && self.places.iter().all(|place| place.holds(live, password))
            && self.application == url(live, password)
            && self.is_at_rest()
    }

    /// A run is done: everything is at its password, which is a new one, or the one that was to be brought back.
    fn everything_is_new(&mut self, run: RunId) {
        let current = self.safe.current.clone().filter(|kept| kept.run == Some(run));
        let Some(password) = current.map(|kept| kept.password) else {
            return self.breaks("2: a run is done, and the vault of record is not at its password");
        };
        if !self.all_hold(&password) {
            self.breaks("2: a run is done, and not everything is at its password");
        }
        let begun = |run: RunId| self.witness.begun.iter().find(|begun| begun.run == run);
        let before = begun(run).map(|begun| begun.before.as_str());
        let kept = self.safe.previous.as_ref().map(|kept| kept.password.as_str());
        // The idle role's takes its place where that rests with one.
        let is_lost = before != kept && self.turns != Some(Retirement::Password);
        let back = begun(run).and_then(|begun| begun.back.clone());
        let as_wished = match back.and_then(|back| begun(back.run)) {
            Some(taken_back) => taken_back.before == password && self.turns.is_none(),
            None => self.witness.settled != password,
        };
        if !as_wished {
            self.breaks("2: a run is done, and its password is not the one that was wished for");
        }
        if is_lost {
            self.breaks("2: a run is done, and the password from before it is lost");
        }
        if self.turns.is_some() {
            self.the_turn_is_over(run, &password);
        }
        self.witness.settled = password;
    }

    /// A run is done in which two roles have taken turns: the other one is live, and the one that was rests with
    /// something that nobody has ever used.
    fn the_turn_is_over(&mut self, run: RunId, password: &str) {
        let live = self.safe.live();
        let begun = self.witness.begun.iter().find(|begun| begun.run == run);
        if begun.is_none_or(|begun| begun.live == live) {
            self.breaks("2: a run is done, and the role that was live still is");
        }
        let rests_with = self.server.of(live.other());
        let used =
            |with: &str| with == password || self.witness.begun.iter().any(|begun| begun.before == with);
        if rests_with.is_some_and(used) {
            self.breaks("2: a run is done, and the role that was live has a password that was in use");
        }
        if self.safe.pending.iter().any(|kept| kept.run == Some(run) && !kept.late) {
            self.breaks("2: a run is done, and the vault of record still holds something pending of it");
        }
    }

    /// A run has ended without success: all is as it was when it began.
    fn nothing_is_changed(&mut self, run: RunId) {
        let same = self.witness.begun.iter().any(|begun| begun.run == run && begun.picture == self.picture());
        // What comes after its sender has given up can't be dropped before it is there.
        if !same || self.safe.pending.iter().any(|kept| kept.run == Some(run) && !kept.late) {
            self.breaks("2: a run ended without success, and something is changed");
        }
    }

    /// When all is over: one password everywhere, and nothing pending.
    pub(crate) fn is_over(&mut self) {
        let settled = self.witness.settled.clone();
        if !self.all_hold(&settled) || !self.safe.pending.is_empty() {
            self.breaks("2: all is over, and not everything holds the same password");
        }
    }
}
