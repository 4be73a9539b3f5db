//! What a simulation is like, and how the one who plays it is told which: a seed, or faults chosen one by one.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use pgrotate_core::plan::Retirement;

use crate::dice::Dice;
use crate::network::Fault;
use crate::vendors::Extras;
use crate::world::Sort;

/// When processes die.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Deaths {
    /// So often in a thousand looks at one.
    Often(u64),
    /// At this look, counted from 0 over all of them.
    At(Option<usize>),
}

/// What a person sets out to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Goal {
    /// A new password.
    Rotate,
    /// The one from before the last run that is done.
    GoBack,
}

/// In which way passwords are rotated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// One role, whose password changes.
    InPlace,
    /// Two roles take turns; the idle one rests with a password that only the vault of record knows.
    Password,
    /// Two roles take turns; the idle one may not log in.
    NoLogin,
}

impl Way {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::InPlace, Self::Password, Self::NoLogin];

    /// What a seed says. These dice are the seed's second ones: what else it says is the same in every way.
    pub fn of(seed: u64) -> Self {
        Dice::new(!seed).one_of(&[Self::InPlace, Self::InPlace, Self::Password, Self::NoLogin])
    }

    fn turns(self) -> Option<Retirement> {
        match self {
            Self::InPlace => None,
            Self::Password => Some(Retirement::Password),
            Self::NoLogin => Some(Retirement::NoLogin),
        }
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

impl FromStr for Way {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let named = Self::ALL.into_iter().find(|way| way.to_string() == text);
        named.ok_or_else(|| format!("there is no way {text:?}"))
    }
}

/// What a simulation is like.
#[derive(Clone, Debug)]
pub(crate) struct Shape {
    pub(crate) goals: Vec<Goal>,
    /// The goal with which chosen faults begin.
    pub(crate) armed_at: usize,
    pub(crate) sorts: Vec<Sort>,
    pub(crate) extras: Extras,
    /// How late the server accepts a password that it says it has.
    pub(crate) lag_ms: u64,
    /// When a process dies.
    pub(crate) dies: Deaths,
    /// How often it is stopped for a while.
    pub(crate) sleeps: u64,
    /// How often somebody starts a second one.
    pub(crate) rivals: u64,
    /// How often the clock jumps.
    pub(crate) jumps: u64,
    /// How often a person would rather call a run off, or go back from one that is parked.
    pub(crate) changes_mind: u64,
    /// How often the disk is full.
    pub(crate) full: u64,
}

impl Shape {
    /// What a seed makes of it.
    pub(crate) fn of(dice: &Dice, way: Way) -> Self {
        const GOALS: [&[Goal]; 6] = [
            &[Goal::Rotate],
            &[Goal::Rotate],
            &[Goal::Rotate],
            &[Goal::Rotate],
            &[Goal::Rotate, Goal::GoBack],
            &[Goal::Rotate, Goal::Rotate, Goal::GoBack],
        ];
        let others = [Sort::Plain, Sort::Versioned, Sort::Tokened, Sort::Blind];
        let mut sorts = vec![dice.one_of(&[Sort::Plain, Sort::Versioned])];
        sorts.extend((0..dice.below(4)).map(|_| dice.one_of(&others)));
        let goals = dice.one_of(&GOALS);
        // Back to an earlier password goes nobody where that went with its role; but the roles go back and forth.
        let goals = goals.iter().map(|goal| if way == Way::InPlace { *goal } else { Goal::Rotate });
        Self {
            goals: goals.collect(),
            armed_at: 0,
            sorts,
            extras: Extras { soak: dice.in_thousand(200), ticket: dice.in_thousand(300), turns: way.turns() },
            lag_ms: dice.one_of(&[0, 0, 1_000, 5_000]),
            dies: Deaths::Often(dice.one_of(&[0, 2, 5, 20])),
            sleeps: dice.one_of(&[0, 0, 2, 10]),
            rivals: dice.one_of(&[0, 0, 0, 5]),
            jumps: dice.one_of(&[0, 0, 0, 5]),
            changes_mind: dice.one_of(&[0, 0, 100, 500]),
            full: dice.one_of(&[0, 0, 0, 10]),
        }
    }

    /// A world of three copies, one of which shows nothing, with nobody who disturbs.
    fn plain(scenario: Scenario, dies_at: Option<usize>) -> Self {
        let goals = match scenario {
            Scenario::Rotate | Scenario::Soak | Scenario::Turn | Scenario::TurnSoak => vec![Goal::Rotate],
            Scenario::Rollback => vec![Goal::Rotate, Goal::GoBack],
            // The first role's turn comes again.
            Scenario::Close => vec![Goal::Rotate, Goal::Rotate],
        };
        Self {
            armed_at: goals.len() - 1,
            goals,
            sorts: vec![Sort::Plain, Sort::Versioned, Sort::Blind],
            extras: Extras { soak: scenario.soaks(), ticket: false, turns: scenario.way().turns() },
            lag_ms: 0,
            dies: Deaths::At(dies_at),
            sleeps: 0,
            rivals: 0,
            jumps: 0,
            changes_mind: 0,
            full: 0,
        }
    }
}

/// Which run the chosen faults hit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scenario {
    /// A rotation in place.
    Rotate,
    /// The same, with everything proven a second time.
    Soak,
    /// The run that takes a rotation back.
    Rollback,
    /// A run in which the second role takes over from the first, which rests with a password from then on.
    Turn,
    /// The same, with everything proven a second time.
    TurnSoak,
    /// A run in which the first role takes over from the second again, which may not log in from then on.
    Close,
}

impl Scenario {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Rotate, Self::Soak, Self::Rollback, Self::Turn, Self::TurnSoak, Self::Close];

    /// Whether everything is proven a second time.
    pub(crate) fn soaks(self) -> bool {
        matches!(self, Self::Soak | Self::TurnSoak)
    }

    pub(crate) fn way(self) -> Way {
        match self {
            Self::Rotate | Self::Soak | Self::Rollback => Way::InPlace,
            Self::Turn | Self::TurnSoak => Way::Password,
            Self::Close => Way::NoLogin,
        }
    }
}

/// When the process of a chosen simulation dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Death {
    /// At this look at it.
    AtLook(usize),
    /// With the answer to this request.
    WithAnswer(usize),
}

/// Exactly what goes wrong, in words: `rotate 12:Late 17:Refused answer:12`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chosen {
    /// In which run.
    pub scenario: Scenario,
    /// The faults, by the number of the request, counted from 0.
    pub faults: BTreeMap<usize, Fault>,
    /// When the process dies, if it does.
    pub death: Option<Death>,
}

impl Chosen {
    /// Nothing goes wrong.
    pub fn nothing(scenario: Scenario) -> Self {
        Self { scenario, faults: BTreeMap::new(), death: None }
    }

    /// These faults, and this death.
    pub fn new(
        scenario: Scenario,
        faults: impl IntoIterator<Item = (usize, Fault)>,
        death: Option<Death>,
    ) -> Self {
        Self { scenario, faults: faults.into_iter().collect(), death }
    }

    pub(crate) fn shape(&self) -> Shape {
        let dies_at = match self.death {
            Some(Death::AtLook(look)) => Some(look),
            _ => None,
        };
        Shape::plain(self.scenario, dies_at)
    }

    pub(crate) fn deadly(&self) -> Option<usize> {
        match self.death {
            Some(Death::WithAnswer(number)) => Some(number),
            _ => None,
        }
    }
}

impl fmt::Display for Chosen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", format!("{:?}", self.scenario).to_lowercase())?;
        for (number, fault) in &self.faults {
            write!(f, " {number}:{fault}")?;
        }
        match self.death {
            Some(Death::AtLook(look)) => write!(f, " look:{look}"),
            Some(Death::WithAnswer(number)) => write!(f, " answer:{number}"),
            None => Ok(()),
        }
    }
}

impl FromStr for Chosen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut words = text.split_whitespace();
        let named = words.next().unwrap_or_default();
        let scenario = Scenario::ALL.into_iter().find(|own| format!("{own:?}").to_lowercase() == named);
        let mut chosen = Self::nothing(scenario.ok_or_else(|| format!("there is no scenario {named:?}"))?);
        for word in words {
            let (left, right) = word.split_once(':').ok_or_else(|| format!("{word:?} has no colon"))?;
            let number = |text: &str| text.parse().map_err(|_| format!("{word:?} has no number"));
            match left {
                "look" => chosen.death = Some(Death::AtLook(number(right)?)),
                "answer" => chosen.death = Some(Death::WithAnswer(number(right)?)),
                _ => drop(chosen.faults.insert(number(left)?, right.parse()?)),
            }
        }
        Ok(chosen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_wrong_survives_words() {
        let faults = [(12, Fault::Late), (17, Fault::Refused)];
        for death in [None, Some(Death::AtLook(3)), Some(Death::WithAnswer(12))] {
            let chosen = Chosen::new(Scenario::Rollback, faults, death);
            assert_eq!(chosen.to_string().parse(), Ok(chosen));
        }
        assert_eq!(Chosen::new(Scenario::Rotate, faults, None).to_string(), "rotate 12:Late 17:Refused");
        for wrong in ["", "rotat", "rotate 12", "rotate x:Late", "rotate 1:Nothing", "rotate look:x"] {
            assert!(wrong.parse::<Chosen>().is_err(), "{wrong}");
        }
    }
}
