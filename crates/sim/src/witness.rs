//! The seven promises, looked into after everything that happens: in the world, and in every word that is written down.
//!
//! What a journal says is compared with what is so. That a step is done must be true, and what can't be seen must not
//! be called fine.

use pgrotate_core::RunId;
use pgrotate_core::journal::{Effect, Event, Outcome, Record, RunOutcome};
use pgrotate_core::plan::Back;

use crate::world::{NEIGHBOUR, Sort, World, url};

/// How things stood when a run began.
struct Begun {
    run: RunId,
    back: Option<Back>,
    outcome: Option<RunOutcome>,
    /// The password that the vault of record called current.
    before: String,
    /// Server, current password, copies, application.
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
    pub(crate) fn new(password: &str) -> Self {
        Self { settled: password.to_owned(), known: vec![password.to_owned()], begun: Vec::new() }
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
        if !self.safe.versions().any(|kept| kept.password == self.server) {
            self.breaks("1: no version in the vault of record logs in");
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
                let picture = self.picture();
                self.witness.begun.push(Begun { run, back, outcome: None, before, picture });
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
        // A first try to stage one that came late stands beside the run's own password.
        let mut own = self.safe.versions().filter(|kept| kept.run == Some(run));
        step == "check" || own.any(|kept| self.is_true_of(run, &kept.password, step))
    }

    /// The same, if this is the run's password.
    fn is_true_of(&self, run: RunId, password: &str, step: &str) -> bool {
        let (verb, subject) = step.split_once('/').unwrap_or((step, ""));
        let verb = verb.trim_end_matches("-again");
        let place = self.places.iter().find(|place| place.id.as_str() == subject);
        match (verb, place) {
            ("publish", Some(place)) => place.holds(password),
            ("verify", Some(place)) => place.is_readable() && place.holds(password),
            ("prove", _) => self.server == password,
            ("promote", _) => self.safe.current.as_ref().is_some_and(|kept| kept.run == Some(run)),
            ("verify", None) if subject == "login" => self.server == password,
            ("verify", None) | ("activate", _) => self.application == url(password),
            ("record", _) if subject == "ticket" => {
                self.comments.iter().any(|(commented, _)| *commented == run)
            }
            ("record", _) => self.messages.contains(&run),
            _ => true,
        }
    }

    /// Server, vault of record, copies and application in one text.
    fn picture(&self) -> String {
        let mut picture = format!("{} {:?} {}", self.server, self.safe.current, self.application);
        for place in &self.places {
            picture.push_str(place.values.last().map_or("", |value| value));
        }
        picture
    }

    fn all_hold(&self, password: &str) -> bool {
        self.server == password
            && self.safe.current.as_ref().is_some_and(|kept| kept.password == password)
            && self.places.iter().all(|place| place.holds(password))
            && self.application == url(password)
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
        let is_lost = before != kept;
        let back = begun(run).and_then(|begun| begun.back.clone());
        let as_wished = match back.and_then(|back| begun(back.run)) {
            Some(taken_back) => taken_back.before == password,
            None => self.witness.settled != password,
        };
        if !as_wished {
            self.breaks("2: a run is done, and its password is not the one that was wished for");
        }
        if is_lost {
            self.breaks("2: a run is done, and the password from before it is lost");
        }
        self.witness.settled = password;
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
