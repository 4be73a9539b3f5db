//! One simulation, from a world at rest to a world at rest.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use futures::FutureExt;
use pgrotate_core::executor::End;
use pgrotate_core::journal::RunOutcome;
use pgrotate_core::run::{Phase, RunState};

use crate::dice::Dice;
use crate::moves::Moves;
use crate::network::{Fates, Fault, Network, Wire};
use crate::process::{self, Command, Disk, Exit};
use crate::story::Story;
use crate::time::{Due, Flag, Time};
use crate::world::{OLD, Sabotage, Shared, World};

/// A person who has started this many processes is told that it does not converge.
const PROCESSES_MAX: u32 = 200;
/// After this time everything is well: faults, deaths and jumps are over, and the run has to come to its end.
const WELL_AFTER_MS: u64 = 900_000;

/// When processes die.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Deaths {
    /// So often in a thousand looks at one.
    Often(u64),
    /// At this look, counted from 0 over all of them.
    At(usize),
}

/// What a simulation is like.
#[derive(Clone, Debug)]
pub(crate) struct Shape {
    pub(crate) copies: usize,
    pub(crate) blind: bool,
    pub(crate) soak: bool,
    /// When a process dies.
    pub(crate) dies: Deaths,
    /// How often it is stopped for a while.
    pub(crate) sleeps: u64,
    /// How often somebody starts a second one.
    pub(crate) rivals: u64,
    /// How often the clock jumps.
    pub(crate) jumps: u64,
    /// How often a person would rather call the run off.
    pub(crate) aborts: u64,
}

impl Shape {
    /// Three copies, one of which shows nothing, and nobody who disturbs.
    fn plain(dies_at: Option<usize>) -> Self {
        Self {
            copies: 3,
            blind: true,
            soak: false,
            dies: dies_at.map_or(Deaths::Often(0), Deaths::At),
            sleeps: 0,
            rivals: 0,
            jumps: 0,
            aborts: 0,
        }
    }

    /// What a seed makes of it.
    fn of(dice: &Dice) -> Self {
        let often = |choices: [u64; 4]| choices[usize::try_from(dice.below(4)).unwrap_or(0)];
        Self {
            copies: 1 + usize::try_from(dice.below(4)).unwrap_or(0),
            blind: dice.in_thousand(500),
            soak: dice.in_thousand(200),
            dies: Deaths::Often(often([0, 2, 10, 50])),
            sleeps: often([0, 0, 2, 10]),
            rivals: often([0, 0, 5, 20]),
            jumps: often([0, 0, 0, 5]),
            aborts: often([0, 0, 100, 500]),
        }
    }
}

/// What is to be kept of a simulation beside its verdict.
#[derive(Clone, Copy, Debug, Default)]
pub struct Keep {
    /// What happened, for a person to read.
    pub story: bool,
    /// Which transitions of core's tables were taken.
    pub moves: bool,
    /// The journal as text.
    pub journal: bool,
}

/// What came of a simulation.
#[derive(Debug)]
pub struct Verdict {
    /// The promises that were broken; none, if all is well.
    pub broken: Vec<String>,
    /// How the run ended.
    pub outcome: Option<RunOutcome>,
    /// The journal as it was written, if it was to be kept.
    pub journal: String,
    /// The transitions, if they were to be kept.
    pub moves: Moves,
    /// What happened, if it was to be kept.
    pub story: Vec<String>,
    /// How many processes it took.
    pub processes: u32,
    /// How many requests were sent.
    pub requests: usize,
    /// How often a process was looked at.
    pub looks: usize,
}

/// A living process.
struct Task {
    number: u32,
    future: Pin<Box<dyn Future<Output = Exit> + Send>>,
    flag: Arc<Flag>,
    asleep_until_ms: u64,
}

/// A simulation in progress.
struct Play {
    shape: Shape,
    dice: Dice,
    time: Time,
    network: Arc<Network>,
    disk: Disk,
    tasks: Vec<Task>,
    started: u32,
    looks: usize,
    keep: Keep,
}

/// Plays what a seed says.
pub fn seed(seed: u64, keep: Keep) -> Verdict {
    let dice = Dice::new(seed);
    let shape = Shape::of(&dice);
    let in_thousand = [0, 10, 50, 200][usize::try_from(dice.below(4)).unwrap_or(0)];
    let fates = Fates::Random { in_thousand, until_ms: WELL_AFTER_MS };
    Play::new(shape, dice, fates, keep, None).play()
}

/// Plays a small world in which exactly these requests meet these faults, counted from 0, and a process dies at one
/// look at it, or none does.
pub fn chosen(faults: &BTreeMap<usize, Fault>, dies_at: Option<usize>, keep: Keep) -> Verdict {
    Play::new(Shape::plain(dies_at), Dice::new(1), Fates::Chosen(faults.clone()), keep, None).play()
}

/// The same world, well in every way, but for a promise that somebody breaks on purpose.
pub fn sabotaged(sabotage: Sabotage) -> Verdict {
    let fates = Fates::Chosen(BTreeMap::new());
    Play::new(Shape::plain(None), Dice::new(1), fates, Keep::default(), Some(sabotage)).play()
}

impl Play {
    fn new(shape: Shape, dice: Dice, fates: Fates, keep: Keep, sabotage: Option<Sabotage>) -> Self {
        let time = Time::default();
        let story = if keep.story { Story::kept() } else { Story::default() };
        let world = Shared::new(World { sabotage, ..World::new(shape.copies, shape.blind) });
        let network = Arc::new(Network::new(world, time.clone(), dice.clone(), story, fates));
        let disk = Disk::new(time.clone());
        Self { shape, dice, time, network, disk, tasks: Vec::new(), started: 0, looks: 0, keep }
    }

    fn play(mut self) -> Verdict {
        self.start(Command::Forward);
        while self.started < PROCESSES_MAX && self.network.world.lock().broken.is_empty() {
            self.look_at_processes();
            if !self.tasks.is_empty() {
                if !self.happens_next() {
                    self.network.world.lock().breaks("2: everybody waits and nobody comes");
                }
                continue;
            }
            if self.person_goes_on() {
                continue;
            }
            // What is still on its way arrives, and a person looks once more.
            while self.happens_next() {}
            if !self.person_goes_on() {
                break;
            }
        }
        self.verdict()
    }

    fn tell(&self, words: impl FnOnce() -> String) {
        self.network.story.tell(&self.time, words);
    }

    fn well(&self) -> bool {
        self.time.now_ms() >= WELL_AFTER_MS
    }

    fn chance(&self, in_thousand: u64) -> bool {
        in_thousand > 0 && !self.well() && self.dice.in_thousand(in_thousand)
    }

    fn dies_now(&self) -> bool {
        match self.shape.dies {
            Deaths::Often(in_thousand) => self.chance(in_thousand),
            Deaths::At(look) => self.looks == look + 1,
        }
    }

    fn start(&mut self, command: Command) {
        self.started += 1;
        let number = self.started;
        self.tell(|| format!("process {number} begins: {command:?}"));
        let wire = Wire { network: Arc::clone(&self.network), process: number };
        let future = Box::pin(process::run(self.disk.clone(), wire, command, self.shape.soak));
        self.tasks.push(Task { number, future, flag: Flag::up(), asleep_until_ms: 0 });
    }

    /// Lets every process that has something to do go as far as it can.
    fn look_at_processes(&mut self) {
        let mut place = 0;
        while place < self.tasks.len() {
            let now = self.time.now_ms();
            let task = &mut self.tasks[place];
            if task.asleep_until_ms > now || !task.flag.take() {
                place += 1;
                continue;
            }
            let waker = Waker::from(Arc::clone(&task.flag));
            self.looks += 1;
            match task.future.as_mut().poll(&mut Context::from_waker(&waker)) {
                Poll::Ready(exit) => {
                    let Task { number, .. } = self.tasks.remove(place);
                    self.tell(|| format!("process {number} ends: {}", shown(&exit)));
                }
                Poll::Pending if self.dies_now() => {
                    let Task { number, .. } = self.tasks.remove(place);
                    self.disk.bury(number);
                    self.tell(|| format!("process {number} dies"));
                }
                Poll::Pending => {
                    if self.chance(self.shape.sleeps) {
                        self.put_to_sleep(place);
                    }
                    place += 1;
                }
            }
        }
        if !self.tasks.is_empty() && self.tasks.len() < 3 && self.chance(self.shape.rivals) {
            self.start(Command::Forward);
        }
        if self.chance(self.shape.jumps) {
            let by = i64::try_from(self.dice.below(240_000)).unwrap_or(0) - 120_000;
            self.time.jump(by);
            self.tell(|| format!("the clock jumps by {by} ms"));
        }
    }

    fn put_to_sleep(&mut self, place: usize) {
        let for_ms = self.dice.below(180_000);
        let task = &mut self.tasks[place];
        task.asleep_until_ms = self.time.now_ms() + for_ms;
        // Whoever wakes up looks around, and the hour comes even if nothing else happens.
        task.flag.raise();
        let number = task.number;
        self.time.plan(for_ms, Due::Arrival(Box::new(|| ())));
        self.tell(|| format!("process {number} sleeps for {for_ms} ms"));
    }

    /// What comes next in time. Nothing comes when nothing is planned.
    fn happens_next(&self) -> bool {
        match self.time.next() {
            Some(Due::Wake(waker)) => waker.wake(),
            Some(Due::Arrival(arrival)) => arrival(),
            None => return false,
        }
        true
    }

    fn last(&self) -> Option<RunState> {
        self.disk.last().now_or_never()?.ok().flatten()
    }

    /// When no process lives: a person looks how things stand and starts the next one, unless all is over.
    fn person_goes_on(&mut self) -> bool {
        let last = self.last();
        let command = match &last {
            None => Command::Forward,
            Some(state) if state.phase == Phase::Finished => {
                // What came late is dropped, as the next run's check would ask for it.
                if self.network.world.lock().safe.pending.is_none() {
                    return false;
                }
                Command::Abort
            }
            Some(state) if !state.past_point_of_no_return() && self.chance(self.shape.aborts) => {
                Command::Abort
            }
            Some(_) => Command::Forward,
        };
        self.start(command);
        true
    }

    fn journal(&self) -> String {
        self.disk.text().now_or_never().and_then(Result::ok).unwrap_or_default()
    }

    fn moves(&self) -> Moves {
        let runs = self.disk.records().now_or_never().and_then(Result::ok).unwrap_or_default();
        runs.iter().map(|(run, records)| Moves::of(*run, records)).fold(Moves::default(), Moves::and)
    }

    fn verdict(self) -> Verdict {
        let last = self.last();
        let outcome = last.as_ref().and_then(|state| state.outcome);
        {
            let mut world = self.network.world.lock();
            match (&last, outcome) {
                (Some(state), Some(RunOutcome::Done)) => world.everything_is_new(state.run),
                (_, Some(RunOutcome::Failed | RunOutcome::Aborted)) => world.nothing_is_changed(),
                _ => world.breaks("2: it does not converge"),
            }
        }
        let journal = if self.keep.journal { self.journal() } else { String::new() };
        let moves = if self.keep.moves { self.moves() } else { Moves::default() };
        let mut world = self.network.world.lock();
        if journal.contains(&world.server) || journal.contains(OLD) {
            world.breaks("4: the journal holds a password");
        }
        Verdict {
            broken: world.broken.clone(),
            outcome,
            journal,
            moves,
            looks: self.looks,
            story: self.network.story.lines(),
            processes: self.started,
            requests: self.network.sent(),
        }
    }
}

fn shown(exit: &Exit) -> String {
    match exit {
        Exit::Run(End::Done) => "done".to_owned(),
        Exit::Run(End::Failed(error)) => format!("failed: {error}"),
        Exit::Run(End::Aborted) => "called off".to_owned(),
        Exit::Run(End::Parked(steps)) => {
            let steps: Vec<String> = steps.iter().map(|(step, error)| format!("{step} ({error})")).collect();
            format!("parked: {}", steps.join(", "))
        }
        Exit::Run(End::Stopped) => "stopped".to_owned(),
        Exit::Trouble(error) => format!("trouble: {error}"),
    }
}
