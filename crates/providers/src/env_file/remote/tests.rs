//! Against a real sshd on loopback: the other machine is this one.

use std::collections::BTreeSet;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use pgrotate_core::journal::Effect as Done;
use pgrotate_core::provider::{Content, Severity, Sink};
use pgrotate_core::{Retry, Secret};

use super::super::{Dialect, EnvFile, Options};
use super::*;
use crate::fake::{self, Job};
use crate::files;
use crate::shared::Vendors;
use crate::ssh::SshOptions;
use crate::ssh::testing::{Sshd, Wire};

const LATER: Retry = Retry::Later { after_ms: None };

/// A file `dev.env` with this content, in a folder of its own.
fn folder_with(content: impl AsRef<[u8]>) -> (tempfile::TempDir, std::path::PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().canonicalize().unwrap().join("dev.env");
    std::fs::write(&path, content).unwrap();
    (folder, path)
}

fn sink_at(path: &str, options: SshOptions, dialect: Dialect) -> EnvFile {
    let options = Options {
        path: path.to_owned(),
        key: "KEY".into(),
        dialect,
        host: Some("127.0.0.1".into()),
        ssh: Some(options),
    };
    EnvFile::new(None, options, fake::shared(Vendors::default(), "")).unwrap()
}

fn sink(sshd: &Sshd, path: &Path) -> EnvFile {
    sink_at(path.to_str().unwrap(), sshd.options(), Dialect::Verbatim)
}

async fn publish(sink: &EnvFile, password: &str) -> Result<Done> {
    sink.publish(&Job::new(sink.id(), "{password}", password).update()).await.map(|outcome| outcome.effect)
}

fn nothing_is_left(folder: &tempfile::TempDir, files: usize) {
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), files, "nothing is left beside it");
}

#[tokio::test]
async fn one_line_changes_and_every_other_byte_stays() {
    let sshd = Sshd::start();
    let before =
        b"\xEF\xBB\xBFA=$HOME `x` 'q'\r\n# KEY=no\r\nKEY=old\r\n\xFF\0\xFE=\"x\nKEYS=KEY=y".as_slice();
    let (folder, path) = folder_with(before);
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o640)).unwrap();
    let root = rustix::process::geteuid().is_root();
    if root {
        std::os::unix::fs::chown(&path, Some(12), Some(34)).unwrap();
    }
    let sink = sink(&sshd, &path);
    assert_eq!(sink.id().as_str(), "env_file:dev.env");
    assert_eq!(sink.location(), format!("env_file:127.0.0.1:{}:{}:KEY", sshd.port, path.display()));
    assert_eq!(publish(&sink, "n$w'\"`\\ %").await, Ok(Done::Changed));
    let after = b"\xEF\xBB\xBFA=$HOME `x` 'q'\r\n# KEY=no\r\nKEY=n$w'\"`\\ %\r\n\xFF\0\xFE=\"x\nKEYS=KEY=y";
    assert_eq!(std::fs::read(&path).unwrap(), after);
    let is = std::fs::metadata(&path).unwrap();
    assert_eq!(is.mode() & 0o7777, 0o640);
    assert!(!root || (is.uid(), is.gid()) == (12, 34));
    nothing_is_left(&folder, 1);
    assert_eq!(publish(&sink, "n$w'\"`\\ %").await, Ok(Done::AlreadyDone));
    assert_eq!(std::fs::metadata(&path).unwrap().ino(), is.ino(), "not written a second time");
    let seen = sink.inspect().await.unwrap();
    assert_eq!(seen.updated_at.unwrap().as_second(), is.mtime());
    assert!(matches!(seen.content, Content::Value(value) if value == Secret::new("n$w'\"`\\ %")));
}

#[tokio::test]
async fn attributes_are_carried_over_where_cp_can() {
    let sshd = Sshd::start();
    let (_folder, path) = folder_with("KEY=old\n");
    let flags = rustix::fs::XattrFlags::empty();
    if rustix::fs::setxattr(&path, "user.note", b"kept", flags).is_err() {
        return; // This file system has none.
    }
    assert_eq!(publish(&sink(&sshd, &path), "new").await, Ok(Done::Changed));
    let mut value = [0_u8; 4];
    assert_eq!(rustix::fs::getxattr(&path, "user.note", &mut value[..]), Ok(4));
}

/// While a password is changed, nobody who looks at the list of processes sees it, here or there.
#[tokio::test]
async fn no_process_shows_it_while_it_is_changed() {
    let sshd = Sshd::start();
    let (_folder, path) = folder_with(format!("KEY=old-canary-1\n{}", "X=y\n".repeat(200_000)));
    let sink = sink(&sshd, &path);
    let done = Arc::new(AtomicBool::new(false));
    let until = Arc::clone(&done);
    let watch = std::thread::spawn(move || {
        let mut seen = BTreeSet::new();
        while !until.load(Ordering::Relaxed) {
            for process in std::fs::read_dir("/proc").unwrap().filter_map(std::result::Result::ok) {
                let read = |name: &str| std::fs::read(process.path().join(name)).unwrap_or_default();
                let both = [read("cmdline"), read("environ")].concat();
                seen.insert(String::from_utf8_lossy(&both).replace('\0', " "));
            }
        }
        seen
    });
    publish(&sink, "new-canary-2").await.unwrap();
    done.store(true, Ordering::Relaxed);
    let seen = watch.join().unwrap();
    assert!(seen.iter().any(|line| line.contains("dd bs=1 count=")), "the watch saw nothing of it");
    assert!(!seen.iter().any(|line| line.contains("-canary-")));
    assert!(std::fs::read_to_string(&path).unwrap().starts_with("KEY=new-canary-2\n"));
}

#[tokio::test]
async fn a_connection_that_breaks_while_the_content_goes_there_changes_nothing() {
    let sshd = Sshd::start();
    let before = format!("KEY=old\n{}", "X=y\n".repeat(200_000));
    let (folder, path) = folder_with(&before);
    let wire = Wire::to(&sshd);
    let sink = sink_at(path.to_str().unwrap(), sshd.options_by(&wire), Dialect::Verbatim);
    wire.there.store(300_000, Ordering::SeqCst);
    wire.holds.store(true, Ordering::SeqCst);
    let beside = folder.path().join(".dev.env.pgrotate-new");
    // Cut when the other side is in the middle of it, and not before.
    let cut = async {
        wait_for(|| beside.metadata().is_ok_and(|file| file.len() > 200_000)).await;
        assert_eq!(beside.metadata().unwrap().mode() & 0o777, 0o600, "nobody else can read it yet");
        wire.holds.store(false, Ordering::SeqCst);
    };
    let (error, ()) = futures::join!(publish(&sink, "new"), cut);
    let error = error.unwrap_err();
    assert_eq!((error.kind(), error.retry()), (Kind::Unreachable, Retry::Unknown), "{error}");
    // The other side has to notice that what arrived is not the whole.
    wait_for(|| !beside.exists() && files::hold(&path, "look").is_ok()).await;
    assert!(std::fs::read_to_string(&path).unwrap() == before, "the file is as it was");
    wire.there.store(u64::MAX, Ordering::SeqCst);
    assert_eq!(publish(&sink, "new").await, Ok(Done::Changed));
    assert!(std::fs::read_to_string(&path).unwrap() == before.replace("KEY=old", "KEY=new"));
}

#[tokio::test]
async fn an_answer_that_is_lost_is_found_by_the_next_try() {
    let sshd = Sshd::start();
    let (folder, path) = folder_with("KEY=old\nX=y\n");
    let wire = Wire::to(&sshd);
    let sink = sink_at(path.to_str().unwrap(), sshd.options_by(&wire), Dialect::Verbatim);
    let draft = sink.store.begin("edit it").await.unwrap();
    let large = Zeroizing::new(format!("KEY=new\n{}", "X=y\n".repeat(200_000)).into_bytes());
    wire.back.store(100_000, Ordering::SeqCst);
    let error = sink.store.replace(draft, large, "edit it").await.unwrap_err();
    assert_eq!((error.kind(), error.retry()), (Kind::Unreachable, Retry::Unknown), "{error}");
    wire.back.store(u64::MAX, Ordering::SeqCst);
    assert_eq!(publish(&sink, "new").await, Ok(Done::AlreadyDone));
    nothing_is_left(&folder, 1);
}

async fn wait_for(condition: impl Fn() -> bool) {
    for _ in 0..500 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("waited in vain");
}

#[tokio::test]
async fn a_change_by_somebody_else_is_not_overwritten() {
    let sshd = Sshd::start();
    let (folder, path) = folder_with("KEY=old\n");
    let sink = sink(&sshd, &path);
    let draft = sink.store.begin("edit it").await.unwrap();
    std::fs::write(&path, "KEY=old\nTHEIRS=1\n").unwrap();
    let new = Zeroizing::new(b"KEY=new\n".to_vec());
    let error = sink.store.replace(draft, new, "edit it").await.unwrap_err();
    assert_eq!((error.kind(), error.retry()), (Kind::Conflict, LATER));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "KEY=old\nTHEIRS=1\n");
    nothing_is_left(&folder, 1);
}

/// The lock is the one that pgrotate takes on a file of its own machine.
#[tokio::test]
async fn another_process_that_changes_the_file_is_waited_for() {
    let sshd = Sshd::start();
    let (_folder, path) = folder_with("KEY=old\n");
    let sink = sink(&sshd, &path);
    let theirs = files::hold(&path, "change it").unwrap();
    let error = publish(&sink, "new").await.unwrap_err();
    assert_eq!((error.kind(), error.retry()), (Kind::Busy, LATER));
    sink.inspect().await.unwrap();
    drop(theirs);
    assert_eq!(publish(&sink, "new").await, Ok(Done::Changed));
}

#[tokio::test]
async fn what_a_killed_try_has_left_is_swept_and_never_written_through() {
    let sshd = Sshd::start();
    let (folder, path) = folder_with("KEY=old\n");
    let (outside, victim) = folder_with("untouched");
    symlink(&victim, folder.path().join(".dev.env.pgrotate-new")).unwrap();
    let sink = sink(&sshd, &path);
    assert_eq!(publish(&sink, "new").await, Ok(Done::Changed));
    assert_eq!(std::fs::read_to_string(&victim).unwrap(), "untouched");
    std::fs::write(folder.path().join(".dev.env.pgrotate-new"), "half").unwrap();
    assert!(sink.check().await.is_ok());
    nothing_is_left(&folder, 2);
    assert_eq!(publish(&sink, "new").await, Ok(Done::AlreadyDone));
    nothing_is_left(&folder, 1);
    drop(outside);
}

async fn refusal(sshd: &Sshd, path: &Path) -> String {
    let sink = sink(sshd, path);
    let (checked, published) = (sink.check().await, publish(&sink, "new").await);
    let error = checked.expect_err("the check refuses it");
    assert_eq!(error.retry(), Retry::Never);
    assert_eq!(published, Err(error.clone()), "and the change for the same reason");
    error.to_string()
}

#[tokio::test]
async fn the_wrong_kind_of_file_is_refused() {
    let sshd = Sshd::start();
    let (folder, path) = folder_with("KEY=a\n");
    let (outside, target) = folder_with("KEY=a\n");
    let named = |name: &str| folder.path().join(name);
    symlink(&target, named("out.env")).unwrap();
    symlink("gone", named("dangling.env")).unwrap();
    std::fs::create_dir(named("folder")).unwrap();
    std::fs::write(named("large.env"), "KEY=a\n".repeat(800_000)).unwrap();
    std::fs::write(named("twice.env"), "KEY=a\nKEY=b\n").unwrap();
    for (name, why) in [
        ("none.env", "no such file"),
        ("none/dev.env", "no such file"),
        ("out.env", "leads out of its folder"),
        ("dangling.env", "no such file"),
        ("folder", "not a regular file"),
        ("large.env", "larger than 4 MiB"),
        ("twice.env", "twice, in lines 1 and 2"),
    ] {
        let said = refusal(&sshd, &named(name)).await;
        assert!(said.contains(why) && said.contains("127.0.0.1:"), "{name}: {said}");
    }
    symlink("dev.env", named("link.env")).unwrap();
    assert_eq!(publish(&sink(&sshd, &named("link.env")), "new").await, Ok(Done::Changed));
    assert_eq!(std::fs::read_link(named("link.env")).unwrap(), Path::new("dev.env"));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "KEY=new\n");
    drop(outside);
}

#[tokio::test]
async fn a_path_is_a_path_and_no_piece_of_shell() {
    let sshd = Sshd::start();
    let folder = tempfile::tempdir_in(std::env::var("HOME").unwrap()).unwrap();
    let odd = "it's $(touch canary) \"x\";*.env";
    std::fs::write(folder.path().join(odd), "KEY=old\n").unwrap();
    let below = folder.path().file_name().unwrap().to_str().unwrap();
    let sink = sink_at(&format!("~/{below}/{odd}"), sshd.options(), Dialect::Verbatim);
    assert_eq!(publish(&sink, "new").await, Ok(Done::Changed));
    assert_eq!(std::fs::read_to_string(folder.path().join(odd)).unwrap(), "KEY=new\n");
    nothing_is_left(&folder, 1);
    for path in ["relative.env", "~other/x.env", "/a/", "/a\nb"] {
        let ssh = Ssh::new("host", SshOptions::default(), &fake::shared(Vendors::default(), "")).unwrap();
        assert!(RemoteFile::new(ssh, path.into()).is_err(), "{path:?}");
    }
}

#[tokio::test]
async fn the_check_says_what_is_there_and_changes_nothing() {
    let sshd = Sshd::start();
    let (folder, path) = folder_with("KEY=\"quoted\"\n");
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).unwrap();
    std::fs::hard_link(&path, folder.path().join("second")).unwrap();
    let before = std::fs::metadata(&path).unwrap();
    let inspection = sink(&sshd, &path).check().await.unwrap();
    let warned = |what: &str| {
        let mut all = inspection.findings.iter();
        all.any(|found| found.severity == Severity::Warning && found.what.contains(what))
    };
    assert!(warned("everybody") && warned("second name") && warned("quotes"), "{:?}", inspection.findings);
    let chmod = inspection
        .findings
        .iter()
        .filter_map(|found| found.mend.as_deref())
        .find(|mend| mend.contains("chmod"));
    assert_eq!(chmod.unwrap(), format!("on 127.0.0.1:{}: chmod o= {}", sshd.port, path.display()));
    assert_eq!(std::fs::metadata(&path).unwrap().ctime_nsec(), before.ctime_nsec());
}

/// What the other side would say to somebody who is not root, taken apart by hand.
#[test]
fn another_users_file_is_known_before() {
    let said = |user: &str, groups: &str, writable: &str| {
        let said =
            format!("640 12 34 1 1767225600 6\n{user}\n{groups}\n{writable}\n12\n/etc/dev.env\nKEY=a\n");
        text(said.as_bytes()).unwrap().facts
    };
    assert!(!said("0", "0", "yes").foreign && !said("12", "12 34", "yes").foreign);
    assert!(said("12", "12", "yes").foreign && said("13", "34", "yes").foreign);
    assert!(said("12", "34", "no").unwritable.is_some() && said("12", "34", "yes").unwritable.is_none());
    assert_eq!((said("0", "0", "yes").mode, said("0", "0", "yes").folder.as_str()), (0o640, "/etc"));
    assert_eq!(said("0", "0", "yes").room, Some(12 << 10));
    let told = |size: u8, room: &str| {
        text(format!("640 12 34 1 1767225600 {size}\n0\n0\nyes\n{room}\n/dev.env\nKEY=a\n").as_bytes())
    };
    assert_eq!(told(6, "").unwrap().facts.room, None, "there is no df");
    assert!(told(7, "1").is_none(), "a byte is missing");
}

/// What the parts say together, run by the shell itself: as a user who is not root, with these
/// folders as PATH.
async fn by_hand(path: &Path, parts: &[&str], input: &[u8], tools: &std::ffi::OsStr) -> String {
    let path = format!("path={}", ssh::quoted(path.to_str().unwrap()));
    let script = std::iter::once(path.as_str()).chain(parts.iter().copied()).collect::<Vec<_>>().join("\n");
    let find = |name: &str| crate::child::find(name).unwrap();
    let mut command = if rustix::process::geteuid().is_root() {
        let mut command = crate::child::command(&find("setpriv"));
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(find("sh"));
        command
    } else {
        crate::child::command(&find("sh"))
    };
    command.args(["-c", &script]).env("PATH", tools).env("LC_ALL", "C");
    let answer = crate::child::ask(&mut command, input, 1000, PATIENCE).await.unwrap();
    String::from_utf8(answer.stdout.to_vec()).unwrap()
}

/// Gives a folder and what is in it to whom [`by_hand`] works as.
fn give(folder: &Path, mode: u32) {
    if rustix::process::geteuid().is_root() {
        let all = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        for path in all.chain([folder.to_owned()]) {
            std::os::unix::fs::chown(path, Some(65534), Some(65534)).unwrap();
        }
    }
    std::fs::set_permissions(folder, PermissionsExt::from_mode(mode)).unwrap();
}

fn numbers(old: &str, new: &str) -> String {
    let sum = |text: &str| format!("{:x}", Sha256::digest(text));
    format!("was={}\nwill={}\nsize={}", sum(old), sum(new), new.len())
}

/// Without flock, and with small tools that know less.
#[tokio::test]
async fn a_poorer_machine_keeps_the_same_promises() {
    let tools = tempfile::tempdir().unwrap();
    let few = "cat chmod chown id ls mkdir mv readlink rm sha256sum stat sync touch wc";
    for name in few.split(' ') {
        symlink(crate::child::find(name).unwrap(), tools.path().join(name)).unwrap();
    }
    std::fs::set_permissions(tools.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let (folder, path) = folder_with("KEY=old\n");
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o640)).unwrap();
    // Somebody who lives holds the folder that stands for the lock.
    let lock = folder.path().join(".dev.env.pgrotate-lock");
    std::fs::create_dir(&lock).unwrap();
    let mut living = std::process::Command::new("sleep");
    if rustix::process::geteuid().is_root() {
        std::os::unix::process::CommandExt::uid(&mut living, 65534);
    }
    let mut living = living.arg("60").spawn().unwrap();
    std::fs::write(lock.join("pid"), living.id().to_string()).unwrap();
    give(&lock, 0o755);
    give(folder.path(), 0o755);
    let (new, numbers) = ("KEY=new\n", numbers("KEY=old\n", "KEY=new\n"));
    let swap = [FIND, LOCK, &numbers, SWAP];
    let run = |parts, input| by_hand(&path, parts, input, tools.path().as_os_str());
    assert_eq!(run(&swap, new.as_bytes()).await, "no busy\n");
    living.kill().unwrap();
    living.wait().unwrap();
    assert_eq!(run(&swap, b"KEY=ne").await, "no torn\n");
    assert_eq!(run(&swap, new.as_bytes()).await, "ok\nKEY=new\n");
    assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o7777, 0o640);
    nothing_is_left(&folder, 1);
    assert_eq!(run(&swap, new.as_bytes()).await, "no changed\n");
    std::fs::remove_file(tools.path().join("sha256sum")).unwrap();
    assert_eq!(run(&[FIND, LOOK], b"").await, "no tool sha256sum\n");
}

/// Each wrong right has its own word, and what is refused is as it was.
#[tokio::test]
async fn missing_rights_are_told_apart() {
    let tools = std::env::var_os("PATH").unwrap();
    let (folder, path) = folder_with("KEY=old\n");
    give(folder.path(), 0o555);
    let numbers = numbers("KEY=old\n", "KEY=new\n");
    let swap = [FIND, LOCK, &numbers, SWAP];
    let run = |parts, input| by_hand(&path, parts, input, &tools);
    assert_eq!(run(&swap, b"KEY=new\n").await, "no forbidden\n");
    let look = run(&[FIND, LOOK], b"").await;
    assert!(
        text(look.strip_prefix("ok\n").unwrap().as_bytes()).unwrap().facts.unwritable.is_some(),
        "{look}"
    );
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o000)).unwrap();
    assert_eq!(run(&[FIND, LOOK], b"").await, "no forbidden\n");
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).unwrap();
    if rustix::process::geteuid().is_root() {
        give(folder.path(), 0o755);
        std::os::unix::fs::chown(&path, Some(0), Some(0)).unwrap();
        assert_eq!(run(&swap, b"KEY=new\n").await, "no foreign\n");
        let look = run(&[FIND, LOOK], b"").await;
        assert!(text(look.strip_prefix("ok\n").unwrap().as_bytes()).unwrap().facts.foreign, "{look}");
        std::os::unix::fs::chown(folder.path(), Some(0), Some(0)).unwrap();
        std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o700)).unwrap();
        assert_eq!(run(&[FIND, LOOK], b"").await, "no forbidden\n", "nor may it enter the folder");
    }
    std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).unwrap();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "KEY=old\n");
    nothing_is_left(&folder, 1);
}
