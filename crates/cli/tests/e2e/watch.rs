//! Everything that can be seen of the program from outside while it runs: its output, its files, and the list of
//! processes with all that it starts.
//!
//! It looks every millisecond and keeps what it saw: the new password of a run is known only when the run has made it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{BuildHasher, RandomState};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::canary::{Canary, files_under};
use crate::lab::{Lab, Run};

/// Where the program may leave something: its working, home and temporary folder, and its state.
const FOLDERS: [&str; 3] = ["work", "home", "tmp"];

/// The variable in which a child may have a password: the check that the configuration gives it to.
const DECLARED: &[u8] = b"DATABASE_URL=";

/// A watched stretch of time, with as many calls of the program as a test wants.
pub(crate) struct Watch<'l> {
    lab: &'l Lab,
    over: Arc<AtomicBool>,
    watcher: Option<JoinHandle<Seen>>,
    heard: Vec<u8>,
}

/// What was seen.
#[derive(Default)]
pub(crate) struct Seen {
    /// Each command line with the environment that it was seen with.
    processes: BTreeSet<[Vec<u8>; 2]>,
    /// Each content that a file was seen with.
    files: HashMap<u64, (PathBuf, Vec<u8>)>,
    /// All that the program printed.
    heard: Vec<u8>,
    folders: Vec<PathBuf>,
}

/// The folders of a lab that the program is given to leave something in.
fn folders(lab: &Lab) -> Vec<PathBuf> {
    FOLDERS.map(|name| lab.state_folder().with_file_name(name)).into()
}

/// The program with folders of its own and every log that can be asked for: those of libraries by the variables that
/// people try, and TLS keys by the one that browsers know.
pub(crate) fn talkative(lab: &Lab, arguments: &[&str]) -> Command {
    let folders = folders(lab);
    folders.iter().for_each(|folder| std::fs::create_dir_all(folder).unwrap());
    let mut command = lab.command(arguments);
    let everything = "trace,hyper=trace,reqwest=trace,rustls=trace,azure_core=trace,aws_smithy_runtime=trace,\
                      aws_sdk_secretsmanager=trace,tokio_postgres=trace,h2=trace,pgrotate_providers=trace";
    for variable in ["PGROTATE_LOG", "RUST_LOG", "AZURE_LOG_LEVEL", "AWS_LOG"] {
        command.env(variable, everything);
    }
    command.env("RUST_BACKTRACE", "full").env("SSLKEYLOGFILE", folders[2].join("tls-keys"));
    command.current_dir(&folders[0]).env("HOME", &folders[1]).env("TMPDIR", &folders[2]);
    command
}

impl<'l> Watch<'l> {
    /// Begins to look.
    pub(crate) fn over(lab: &'l Lab) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let mut folders = folders(lab);
        folders.push(lab.state_folder());
        let watcher = {
            let (over, sandbox) = (Arc::clone(&over), lab.sandbox());
            std::thread::spawn(move || look(&over, sandbox, folders))
        };
        Self { lab, over, watcher: Some(watcher), heard: Vec::new() }
    }

    /// Runs the program to its end.
    pub(crate) fn run(&mut self, arguments: &[&str]) -> Run {
        self.finish(self.start(arguments))
    }

    /// The same, with words on its stdin.
    pub(crate) fn answered(&mut self, mut command: Command, words: &str) -> Run {
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(words.as_bytes()).unwrap();
        self.finish(child)
    }

    /// Starts the program.
    pub(crate) fn start(&self, arguments: &[&str]) -> Child {
        talkative(self.lab, arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// Waits for the end of a program, whoever brings it about.
    pub(crate) fn finish(&mut self, child: Child) -> Run {
        self.hear(child.wait_with_output().unwrap())
    }

    fn hear(&mut self, output: Output) -> Run {
        self.heard.extend([output.stdout.as_slice(), &output.stderr].concat());
        Run(output)
    }

    /// Stops looking.
    pub(crate) fn end(mut self) -> Seen {
        self.over.store(true, Ordering::Relaxed);
        let seen = self.watcher.take().unwrap().join().unwrap();
        Seen { heard: std::mem::take(&mut self.heard), ..seen }
    }
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}

impl Seen {
    /// Expects nothing of it in anything that was seen but in the one variable that the check of the configuration is
    /// given.
    #[track_caller]
    pub(crate) fn shows_nothing_of(&self, canary: &Canary) {
        canary.not_in("the output", &self.heard);
        for [line, environment] in &self.processes {
            canary.not_in("a command line", line);
            let declared = |variable: &&[u8]| is_check(line) && variable.starts_with(DECLARED);
            for variable in environment.split(|byte| *byte == 0).filter(|variable| !declared(variable)) {
                canary.not_in(&format!("the environment of {}", String::from_utf8_lossy(line)), variable);
            }
        }
        for (path, bytes) in self.files.values() {
            canary.not_in("the name of a file", path.as_os_str().as_encoded_bytes());
            canary.not_in(&path.display().to_string(), bytes);
        }
        let keys = self.folders.iter().map(|folder| folder.join("tls-keys")).find(|file| file.exists());
        assert_eq!(keys, None, "whoever has this file can read what went over the network");
    }

    /// Whether the watch saw what it had to see: a journal, and the check with the password in its environment.
    #[track_caller]
    pub(crate) fn saw_the_check_with(&self, canary: &Canary) {
        let environments = self.processes.iter().filter(|[line, _]| is_check(line));
        let with_password = environments.filter(|[_, environment]| !canary.find(environment).is_empty());
        assert!(with_password.count() > 0, "the watch did not see the check with the password that it gets");
        self.saw_the_program();
    }

    /// Whether it saw the program itself and its journal.
    #[track_caller]
    pub(crate) fn saw_the_program(&self) {
        assert!(self.processes.iter().any(|[line, _]| is_program(line)), "the watch did not see the program");
        let journal =
            |path: &Path| path.file_name().is_some_and(|name| name.to_string_lossy().contains("journal"));
        assert!(self.files.values().any(|(path, _)| journal(path)), "the watch did not see the journal");
    }
}

/// Whether a command line is the configuration's check, which `setpriv` becomes.
fn is_check(line: &[u8]) -> bool {
    let line = String::from_utf8_lossy(line);
    line.contains("alembic") || line.contains("a-check")
}

fn is_program(line: &[u8]) -> bool {
    let program = line.split(|byte| *byte == 0).next().unwrap_or_default();
    program.ends_with(b"/pgrotate")
}

fn look(over: &AtomicBool, sandbox: u32, folders: Vec<PathBuf>) -> Seen {
    let mut seen = Seen { folders, ..Seen::default() };
    let (mut rounds, hash) = (0_u32, RandomState::new());
    loop {
        let last = over.load(Ordering::Relaxed);
        processes(std::process::id(), sandbox, false, &mut seen.processes);
        // A file stays for longer than a process: what a run wrote is there when it is over.
        if rounds.is_multiple_of(8) || last {
            for path in seen.folders.iter().flat_map(|folder| files_under(folder, &[])) {
                let Ok(bytes) = std::fs::read(&path) else { continue };
                seen.files.entry(hash.hash_one((&path, &bytes))).or_insert((path, bytes));
            }
        }
        if last {
            return seen;
        }
        rounds = rounds.wrapping_add(1);
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Notes the program and everything below it in the tree of processes.
fn processes(of: u32, sandbox: u32, ours: bool, seen: &mut BTreeSet<[Vec<u8>; 2]>) {
    let tasks = std::fs::read_dir(format!("/proc/{of}/task")).into_iter().flatten().filter_map(Result::ok);
    for task in tasks {
        let children = std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
        let children = children.split_whitespace().filter_map(|child| child.parse().ok());
        for child in children.filter(|child| *child != sandbox) {
            let process = look_at(child);
            let ours = ours || process.as_ref().is_some_and(|[line, _]| is_program(line));
            seen.extend(process.filter(|_| ours));
            processes(child, sandbox, ours, seen);
        }
    }
}

/// The command line of a process, with its environment. While a process becomes another program it has a moment without
/// either; what is read then may be half of one and half of the other.
fn look_at(process: u32) -> Option<[Vec<u8>; 2]> {
    let read = |what: &str| std::fs::read(format!("/proc/{process}/{what}")).unwrap_or_default();
    let looks = std::iter::repeat_with(|| (read("cmdline"), read("environ"), read("cmdline"))).take(5);
    let mut whole = looks.filter(|(before, _, after)| before == after && !before.is_empty());
    whole.next().map(|(line, environment, _)| [line, environment])
}

/// The secrets by which the sandbox's vendors know the program, for a canary.
pub(crate) fn credentials(lab: &Lab) -> BTreeMap<String, String> {
    let text = std::fs::read_to_string(lab.world().join("credentials.env")).unwrap();
    let secret = |name: &str| ["SECRET", "TOKEN", "WEBHOOK"].iter().any(|part| name.contains(part));
    let lines = text.lines().filter_map(|line| line.split_once('=')).filter(|(name, _)| secret(name));
    lines.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}
