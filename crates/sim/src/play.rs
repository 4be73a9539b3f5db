//! One simulation, from a world at rest to a world at rest.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use futures::FutureExt;
use pgrotate_core::executor::End;
use pgrotate_core::journal::{Journal, RunOutcome};

use crate::dice::Dice;
use crate::disk::{Desk, Disk};
use crate::moves::Moves;
use crate::network::{Fates, Fault, Network, Wire};
use crate::person::Person;
use crate::process::{self, Command, Exit};
use crate::sabotage::Sabotage;
use crate::shape::{Chosen, Deaths, Shape, Way};
use crate::story::Story;
use crate::time::{Due, Flag, Time};
use crate::world::{Shared, World};

/// A person who has started this many processes is told that it does not converge.
const PROCESSES_MAX: u32 = 300;
/// How long a lease holds.
const TERM_MS: u64 = pgrotate_core::lease::TERM.as_millis() as u64;
/// Everything that can befall a process; what never does is not proven to be harmless.
pub const BEFALLS: [&str; 10] = [
    "dies",
    "sleeps",
    "has a rival",
    "is fenced off",
    "is done",
    "fails",
    "parks",
    "calls off",
    "goes back",
    "is refused",
];
/// The process number of who only looks.
pub(crate) const NOBODY: u32 = 0;

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
    /// How the runs ended, newest first; none for one that was taken back before its end.
    pub outcomes: Vec<Option<RunOutcome>>,
    /// The journal as it was written, if it was to be kept.
    pub journal: String,
    /// The transitions, if they were to be kept.
    pub moves: Moves,
    /// What happened, if it was to be kept.
    pub story: Vec<String>,
    /// What befell the processes, and how often.
    pub befell: BTreeMap<&'static str, u64>,
    /// How many requests met each fault.
    pub met: BTreeMap<Fault, u64>,
    /// How many requests were sent since faults began to matter.
    pub requests: usize,
    /// How often a process was looked at since then.
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
    disk: Arc<Disk>,
    tasks: Vec<Task>,
    befell: BTreeMap<&'static str, u64>,
    /// When somebody comes who takes a sleeper for dead.
    rival_at_ms: Option<u64>,
    started: u32,
    looks: usize,
    keep: Keep,
}

/// Plays what a seed says.
pub fn seed(seed: u64, keep: Keep) -> Verdict {
    seed_by(Way::of(seed), seed, keep, None)
}

/// The same in a way that is given, and perhaps with a promise that somebody breaks on purpose.
pub fn seed_by(way: Way, seed: u64, keep: Keep, sabotage: Option<Sabotage>) -> Verdict {
    let dice = Dice::new(seed);
    let shape = Shape::of(&dice, way);
    let fates = Fates::Random { in_thousand: dice.one_of(&[0, 10, 50, 200]) };
    Play::new(shape, dice, fates, keep, sabotage).play()
}

/// Plays a small world in which exactly this goes wrong.
pub fn chosen(chosen: &Chosen, keep: Keep) -> Verdict {
    sabotaged(chosen, keep, None)
}

/// The same, with a promise that somebody breaks on purpose.
pub fn sabotaged(chosen: &Chosen, keep: Keep, sabotage: Option<Sabotage>) -> Verdict {
    let fates = Fates::Chosen { faults: chosen.faults.clone(), deadly: chosen.deadly() };
    Play::new(chosen.shape(), Dice::new(1), fates, keep, sabotage).play()
}

impl Play {
    fn new(shape: Shape, dice: Dice, fates: Fates, keep: Keep, sabotage: Option<Sabotage>) -> Self {
        let time = Time::default();
        let story = if keep.story { Story::kept() } else { Story::default() };
        let world = Shared::new(World::new(&shape, sabotage));
        let network = Arc::new(Network::new(world, time.clone(), dice.clone(), story, fates));
        let disk = Disk::new(Arc::clone(&network), shape.full);
        let (tasks, befell) = (Vec::new(), BTreeMap::new());
        Self {
            shape,
            dice,
            time,
            network,
            disk,
            tasks,
            befell,
            rival_at_ms: None,
            started: 0,
            looks: 0,
            keep,
        }
    }

    fn play(mut self) -> Verdict {
        let mut person = Person::new(&self.shape, self.desk(NOBODY), self.wire(NOBODY));
        while self.is_unbroken() {
            self.look_at_processes();
            if !self.tasks.is_empty() {
                if !self.happens_next() {
                    self.breaks("2: everybody waits and nobody comes");
                }
                continue;
            }
            if self.started > PROCESSES_MAX {
                self.breaks("2: it does not converge");
                continue;
            }
            // Who begins anew lets what is under way arrive.
            while person.lets_pass(&self.time) && self.happens_next() {}
            let Some(command) = person.wants() else { break };
            self.start(command);
        }
        self.verdict(&person)
    }

    fn is_unbroken(&self) -> bool {
        self.network.world.lock().broken.is_empty()
    }

    fn breaks(&self, promise: &str) {
        self.network.world.lock().breaks(promise);
    }

    fn tell(&self, words: impl FnOnce() -> String) {
        self.network.story.tell(&self.time, words);
    }

    fn befalls(&mut self, what: &'static str) {
        *self.befell.entry(what).or_default() += 1;
    }

    fn chance(&self, in_thousand: u64) -> bool {
        in_thousand > 0 && !self.network.is_well() && self.dice.in_thousand(in_thousand)
    }

    fn dies_now(&self, number: u32) -> bool {
        if self.network.doomed() == Some(number) {
            return true;
        }
        match self.shape.dies {
            Deaths::Often(in_thousand) => self.chance(in_thousand),
            Deaths::At(look) => self.network.is_armed() && look.is_some_and(|look| self.looks == look + 1),
        }
    }

    fn wire(&self, process: u32) -> Wire {
        Wire { network: Arc::clone(&self.network), process }
    }

    fn desk(&self, process: u32) -> Desk {
        Desk::new(Arc::clone(&self.disk), process)
    }

    fn start(&mut self, command: Command) {
        self.started += 1;
        let number = self.started;
        if matches!(command, Command::Rollback(_)) {
            self.befalls("goes back");
        }
        self.tell(|| format!("process {number} begins: {command:?}"));
        let future = process::run(Arc::clone(&self.disk), self.wire(number), command, self.shape.extras);
        self.tasks.push(Task { number, future: Box::pin(future), flag: Flag::up(), asleep_until_ms: 0 });
    }

    /// Lets every process that has something to do go as far as it can.
    fn look_at_processes(&mut self) {
        let comes = self.rival_at_ms.take_if(|at_ms| *at_ms <= self.time.now_ms()).is_some();
        if !self.tasks.is_empty() && self.tasks.len() < 3 && (comes || self.chance(self.shape.rivals)) {
            self.befalls("has a rival");
            self.start(Person::rival(&self.network));
        }
        let mut place = 0;
        while place < self.tasks.len() {
            if self.look_at(place) {
                place += 1;
            }
        }
        if self.chance(self.shape.jumps) {
            let by = i64::try_from(self.dice.below(240_000)).unwrap_or(0) - 120_000;
            self.time.jump(by);
            self.tell(|| format!("the clock jumps by {by} ms"));
        }
    }

    /// Looks at one process; tells whether it lives on.
    fn look_at(&mut self, place: usize) -> bool {
        let now = self.time.now_ms();
        let task = &mut self.tasks[place];
        if task.asleep_until_ms > now || !task.flag.take() {
            return true;
        }
        let (number, waker) = (task.number, Waker::from(Arc::clone(&task.flag)));
        self.looks += usize::from(self.network.is_armed());
        match task.future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(exit) => {
                drop(self.tasks.remove(place));
                // Nobody hears any more of what it has sent.
                self.network.bury(number);
                self.befalls(ending(&exit));
                self.tell(|| format!("process {number} ends: {}", shown(&exit)));
                false
            }
            Poll::Pending if self.dies_now(number) => {
                drop(self.tasks.remove(place));
                self.network.bury(number);
                self.befalls("dies");
                self.tell(|| format!("process {number} dies"));
                false
            }
            Poll::Pending => {
                if self.chance(self.shape.sleeps) {
                    self.put_to_sleep(place);
                }
                true
            }
        }
    }

    fn put_to_sleep(&mut self, place: usize) {
        let for_ms = self.dice.below(180_000);
        let task = &mut self.tasks[place];
        task.asleep_until_ms = self.time.now_ms() + for_ms;
        // Whoever wakes up looks around.
        task.flag.raise();
        let number = task.number;
        self.plan_a_look(for_ms);
        if self.dice.in_thousand(500) {
            // After the lease has run out, and perhaps before the sleeper wakes.
            let in_ms = TERM_MS + self.dice.below(60_000);
            self.rival_at_ms = Some(self.time.now_ms() + in_ms);
            self.plan_a_look(in_ms);
        }
        self.befalls("sleeps");
        self.tell(|| format!("process {number} sleeps for {for_ms} ms"));
    }

    /// Sees to it that the time comes even if nothing else happens then.
    fn plan_a_look(&self, in_ms: u64) {
        self.time.plan(in_ms, Due::Arrival(Box::new(|| ())));
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

    fn moves(&self) -> Moves {
        let desk = self.desk(NOBODY);
        let runs = desk.runs(None).now_or_never().and_then(Result::ok).unwrap_or_default();
        let of = |run| desk.read(run).now_or_never().and_then(Result::ok).unwrap_or_default();
        runs.iter().map(|heading| Moves::of(heading.run, &of(heading.run))).fold(Moves::default(), Moves::and)
    }

    fn verdict(self, person: &Person) -> Verdict {
        if self.is_unbroken() {
            self.network.world.lock().is_over();
        }
        let broken = self.network.world.lock().broken.clone();
        Verdict {
            broken,
            outcomes: person.outcomes(),
            journal: if self.keep.journal { self.disk.text() } else { String::new() },
            moves: if self.keep.moves { self.moves() } else { Moves::default() },
            story: self.network.story.lines(),
            befell: self.befell,
            met: self.network.met(),
            requests: self.network.sent(),
            looks: self.looks,
        }
    }
}

/// The end of a process in a word or two.
fn ending(exit: &Exit) -> &'static str {
    match exit {
        Exit::Run(End::Done) => "is done",
        Exit::Run(End::Failed(_)) => "fails",
        Exit::Run(End::Aborted) => "calls off",
        Exit::Run(End::Parked(_)) => "parks",
        Exit::Run(End::Stopped) => "stops",
        Exit::Trouble(error) if error.kind() == pgrotate_core::Kind::Fenced => "is fenced off",
        Exit::Trouble(_) => "is refused",
    }
}

fn shown(exit: &Exit) -> String {
    match exit {
        Exit::Run(End::Failed(error)) => format!("failed: {error:#}"),
        Exit::Run(End::Parked(steps)) => {
            let steps: Vec<String> = steps.iter().map(|(step, error)| format!("{step} ({error})")).collect();
            format!("parked: {}", steps.join(", "))
        }
        Exit::Trouble(error) => format!("trouble: {error:#}"),
        Exit::Run(_) => ending(exit).to_owned(),
    }
}
