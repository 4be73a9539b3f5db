//! What is left of passwords in memory, and who can get at it: no core file, no other process of the same user.

use std::os::unix::fs::{MetadataExt, lchown};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use rustix::process::{Pid, Resource, Rlimit, Signal, getuid, kill_process, prlimit};
use serde_json::{Value, json};

use crate::canary::Canary;
use crate::lab::Lab;
use crate::memory;

/// Debian's `nobody`.
const NOBODY: u32 = 65534;

fn pid(process: u32) -> Pid {
    Pid::from_raw(process.cast_signed()).unwrap()
}

fn signal(process: u32, signal: Signal) {
    kill_process(pid(process), signal).unwrap();
}

/// The same command in a shell whose limit for core files is as high as the machine lets it be.
fn with_cores(command: &Command) -> Command {
    let mut shell = Command::new("/bin/sh");
    shell
        .args(["-c", "ulimit -c unlimited 2>/dev/null || ulimit -c \"$(ulimit -H -c)\"; exec \"$0\" \"$@\""]);
    shell.arg(command.get_program()).args(command.get_args()).env_clear();
    shell.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    shell.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    shell
}

/// Whether a program that nobody protects leaves a core file here.
fn machine_makes_cores(folder: &Path) -> bool {
    let mut sleep = with_cores(Command::new("sleep").arg("60")).current_dir(folder).spawn().unwrap();
    while std::fs::read(format!("/proc/{}/cmdline", sleep.id())).unwrap() != b"sleep\x0060\0" {
        std::thread::yield_now();
    }
    signal(sleep.id(), Signal::ABORT);
    sleep.wait().unwrap().core_dumped()
}

fn held(lab: &Lab) -> bool {
    lab.requests().iter().any(|request| request["fault"] == "hold")
}

fn core_files(folder: &Path) -> Vec<PathBuf> {
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|file| file.file_name().unwrap().to_string_lossy().starts_with("core")).collect()
}

fn aborted(mut process: Child) -> ExitStatus {
    signal(process.id(), Signal::ABORT);
    let status = process.wait().unwrap();
    assert_eq!(status.signal(), Some(Signal::ABORT.as_raw()));
    status
}

#[test]
fn a_run_that_is_aborted_in_the_middle_leaves_no_core_file() {
    let lab = Lab::with_base64_passwords("dev");
    let folder = lab.state_folder().with_file_name("cores");
    std::fs::create_dir(&folder).unwrap();
    let possible = machine_makes_cores(&folder);
    let before = core_files(&folder);
    // The new password is staged, and the server is about to get it.
    lab.fault(
        &json!({ "method": "PATCH", "path_contains": "flexibleServers", "when": "before", "kind": "hold" }),
    );
    let process = with_cores(&lab.command(&["rotate", "dev"])).current_dir(&folder).spawn().unwrap();
    lab.wait_for("a request that is held", || held(&lab));
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", process.id())).unwrap();
    let limit = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(limit.split_whitespace().skip(4).take(2).collect::<Vec<_>>(), ["0", "0"]);
    // Somebody takes the limit away again: that the process is not dumpable is a lock of its own.
    let lifted = prlimit(Some(pid(process.id())), Resource::Core, Rlimit { current: None, maximum: None });
    let status = aborted(process);
    assert!(!status.core_dumped() && core_files(&folder) == before, "the program left a core file");
    match (possible, lifted.is_ok()) {
        (false, _) => {
            println!("skipped: this machine makes no core files, so that there is none shows nothing")
        }
        (true, false) => println!(
            "skipped: the limit could not be lifted, so this shows the limit alone and not the second lock behind it"
        ),
        (true, true) => {}
    }
    lab.clear_faults();
}

/// A child inherits the limit, though not that it is not dumpable.
#[test]
fn a_check_that_is_aborted_leaves_no_core_file() {
    let lab = Lab::with_base64_passwords("dev");
    let (old, folder) = (lab.password("dev"), lab.state_folder().with_file_name("cores"));
    std::fs::create_dir(&folder).unwrap();
    if !machine_makes_cores(&folder) {
        println!("skipped: this machine makes no core files");
        return;
    }
    let config = std::fs::read_to_string(lab.config()).unwrap();
    let directory = config.lines().find(|line| line.starts_with("directory = ")).unwrap();
    let slow = config
        .replace(directory, &format!("directory = {:?}", folder.display().to_string()))
        .replace(r#"[".venv/bin/alembic", "current"]"#, r#"["sleep", "77"]"#);
    std::fs::write(lab.config(), slow).unwrap();
    let process = with_cores(&lab.command(&["rotate", "dev"])).current_dir(&folder).spawn().unwrap();
    let child = std::cell::Cell::new(None);
    lab.wait_for("the check", || {
        child.set(child_of(process.id(), b"sleep\x0077\0"));
        child.get().is_some()
    });
    let child = child.get().unwrap();
    let environment = std::fs::read(format!("/proc/{child}/environ")).unwrap();
    let canary = Canary::of([("old", old), ("new", lab.password("dev"))]);
    assert!(!canary.find(&environment).is_empty(), "this is not the check that has the password");
    let before = core_files(&folder);
    signal(child, Signal::ABORT);
    let output = process.wait_with_output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    assert!(text.contains("SIGABRT") && !text.contains("core dumped"), "{text}");
    assert_eq!(core_files(&folder), before);
    canary.not_in("the output", text.as_bytes());
}

/// The child of a process that has become this command.
fn child_of(process: u32, line: &[u8]) -> Option<u32> {
    let tasks = std::fs::read_dir(format!("/proc/{process}/task")).ok()?.filter_map(Result::ok);
    let children = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok());
    let children: Vec<u32> = children
        .flat_map(|ids| ids.split_whitespace().map(|id| id.parse().unwrap()).collect::<Vec<_>>())
        .collect();
    let is_it = |child: &&u32| {
        std::fs::read(format!("/proc/{child}/cmdline"))
            .is_ok_and(|own| own.ends_with(line) && !own.contains(&b'-'))
    };
    children.iter().find(is_it).copied()
}

/// What a process of the same user can open of another one. For `mem` the kernel asks what it asks a debugger.
fn open_to_nobody(process: u32) -> Vec<&'static str> {
    let opens = |what: &&str| {
        let mut sh = Command::new("/bin/sh");
        sh.args(["-c", "exec 3<\"$0\"", &format!("/proc/{process}/{what}")]);
        sh.uid(NOBODY).gid(NOBODY).stderr(Stdio::null()).status().unwrap().success()
    };
    ["environ", "maps", "auxv", "mem"].into_iter().filter(opens).collect()
}

#[test]
fn nobody_else_of_the_same_user_can_look_into_the_process() {
    if !getuid().is_root() {
        println!("skipped: only root can start programs as somebody else");
        return;
    }
    // `nobody` can't read the example's folder, so a check of it would stop the run.
    let lab = Lab::with_base64_passwords("dev").without_alembic();
    let folder = lab.state_folder();
    hand_over(folder.parent().unwrap());
    lab.fault(
        &json!({ "method": "PATCH", "path_contains": "flexibleServers", "when": "before", "kind": "hold" }),
    );
    let mut command = lab.command(&["rotate", "dev"]);
    command.uid(NOBODY).gid(NOBODY).stdout(Stdio::null()).stderr(Stdio::null());
    let mut process = command.spawn().unwrap();
    let mut sleep = Command::new("sleep").arg("60").uid(NOBODY).gid(NOBODY).spawn().unwrap();
    lab.wait_for("a request that is held", || held(&lab));
    let id = process.id();
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap();
    assert!(status.lines().any(|line| line.starts_with(&format!("Uid:\t{NOBODY}\t"))), "{status}");
    let owner = |process: u32| std::fs::metadata(format!("/proc/{process}/environ")).unwrap().uid();
    assert_eq!((owner(id), owner(sleep.id())), (0, NOBODY));
    assert_eq!(open_to_nobody(sleep.id()), ["environ", "maps", "auxv", "mem"], "the control");
    assert_eq!(open_to_nobody(id), Vec::<&str>::new());
    process.kill().unwrap();
    process.wait().unwrap();
    sleep.kill().unwrap();
    sleep.wait().unwrap();
}

/// Gives what a lab has made to `nobody`; whoever is root can go on with it.
fn hand_over(path: &Path) {
    lchown(path, Some(NOBODY), Some(NOBODY)).unwrap();
    if path.is_dir() && !path.is_symlink() {
        std::fs::read_dir(path).unwrap().for_each(|entry| hand_over(&entry.unwrap().path()));
    }
}

/// Dev is rotated and proven, and staging begins: nothing of dev's passwords is left, not in what our own types held
/// and not in the buffers of HTTP, TLS and JSON.
#[test]
fn a_run_that_is_over_leaves_no_password_in_memory() {
    let lab = Lab::with_base64_passwords("dev,staging");
    let old = lab.password("dev");
    // Slow enough to be looked at in the middle: the ticket's comment is the last request.
    lab.fault(&json!({ "method": "POST", "path_contains": "/comment", "when": "before", "kind": "delay", "delay_ms": 4000 }));
    let next =
        json!({ "system": "onepassword", "path_contains": "staging", "when": "before", "kind": "hold" });
    lab.fault(&next);
    let mut command = lab.command(&["rotate", "dev", "staging", "--ticket", "OPS-7"]);
    let mut process = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    lab.wait_for("the last request of dev", || {
        lab.requests().iter().any(|request| request["fault"] == "delay" && request["status"] == Value::Null)
    });
    let canary = Canary::of([("old", old), ("new", lab.password("dev"))]);
    let during = match memory::search(process.id(), &canary) {
        Ok(memory) => memory,
        Err(error) => {
            println!("skipped: this user can't read another process's memory ({error})");
            process.kill().unwrap();
            process.wait().unwrap();
            return;
        }
    };
    assert!(
        during.copies_of("old") > 0 && during.copies_of("new") > 0,
        "the search misses what is there: {during:?}"
    );
    lab.wait_for("a request of staging", || held(&lab));
    // Connections end in tasks of their own; a moment, not a race.
    let over = std::cell::RefCell::new(memory::Memory::default());
    let clean = || {
        *over.borrow_mut() = memory::search(process.id(), &canary).unwrap();
        over.borrow().found.is_empty()
    };
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(5);
    while !clean() && std::time::Instant::now() < deadline {
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    let over = over.into_inner();
    println!(
        "copies in memory, old and new: {} and {} at the last request of the run, {} and {} after it ({} MB searched)",
        during.copies_of("old"),
        during.copies_of("new"),
        over.copies_of("old"),
        over.copies_of("new"),
        over.bytes >> 20
    );
    process.kill().unwrap();
    process.wait().unwrap();
    assert!(over.found.is_empty(), "{over:?}");
}
