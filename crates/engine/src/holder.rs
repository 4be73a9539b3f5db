//! Who holds a lease, and whether that process still lives.
//!
//! A process is named by machine, boot, id and start time, so that neither a reused process id
//! nor a state folder that moved to another machine is mistaken for a living holder.

use std::fs;

/// One process, as a lease names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    host: String,
    boot: String,
    pid: u32,
    started: String,
}

impl Holder {
    /// This process.
    pub fn this_process() -> Self {
        let pid = std::process::id();
        Self { host: host(), boot: boot(), pid, started: started(pid).unwrap_or_default() }
    }

    /// Reads what [`Holder::to_text`] wrote.
    pub fn from_text(text: &str) -> Option<Self> {
        let mut parts = text.splitn(4, ' ');
        Some(Self {
            pid: parts.next()?.parse().ok()?,
            started: parts.next()?.to_owned(),
            boot: parts.next()?.to_owned(),
            host: parts.next()?.to_owned(),
        })
    }

    /// The holder in one line.
    pub fn to_text(&self) -> String {
        format!("{} {} {} {}", self.pid, self.started, self.boot, self.host)
    }

    /// Whether the process is known to be gone. On another machine nobody can know.
    pub fn is_gone(&self) -> bool {
        self.host == host() && (self.boot != boot() || started(self.pid).as_deref() != Some(&self.started))
    }

    /// Whether it was started on this machine since it was last switched on: then both have the same uptime.
    pub fn is_of_this_boot(&self) -> bool {
        self.host == host() && self.boot == boot()
    }

    /// The process in words.
    pub fn describe(&self) -> String {
        format!("process {} on {}", self.pid, self.host)
    }
}

/// This machine's name.
pub fn host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

fn boot() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map_or_else(|_| "unknown".into(), |id| id.trim().to_owned())
}

/// When a process was started, in clock ticks since the boot: field 22 of its stat line. A
/// dead process that nobody has waited for is gone too.
fn started(pid: u32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field, the program's name, may contain spaces and parentheses itself.
    let mut fields = stat[stat.rfind(')')? + 1..].split_whitespace();
    let state = fields.next()?;
    (state != "Z" && state != "X").then(|| fields.nth(18).map(str::to_owned)).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_holder_survives_text_and_lives() {
        let this = Holder::this_process();
        assert_eq!(Holder::from_text(&this.to_text()), Some(this.clone()));
        assert!(!this.started.is_empty() && !this.is_gone());
    }

    #[test]
    fn a_dead_process_is_gone_and_a_foreign_one_is_not_known_to_be() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = child.id();
        let dead = Holder { pid, started: started(pid).unwrap_or_default(), ..Holder::this_process() };
        child.wait().unwrap();
        assert!(dead.is_gone());
        assert!(!Holder { host: "elsewhere".into(), ..dead }.is_gone());
    }

    #[test]
    fn a_dead_process_that_nobody_has_waited_for_is_gone_too() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let pid = child.id();
        let holder = Holder { pid, started: started(pid).unwrap(), ..Holder::this_process() };
        assert!(!holder.is_gone());
        child.kill().unwrap();
        let gone = (0..500).any(|_| {
            std::thread::sleep(std::time::Duration::from_millis(10));
            holder.is_gone()
        });
        child.wait().unwrap();
        assert!(gone);
    }

    #[test]
    fn a_reused_process_id_is_not_the_holder() {
        assert!(Holder { started: "1".into(), ..Holder::this_process() }.is_gone());
        // Nor is one whose clock began again.
        assert!(Holder { boot: "another".into(), ..Holder::this_process() }.is_gone());
        let since = |pid| started(pid).unwrap().parse::<u64>().unwrap();
        std::thread::sleep(std::time::Duration::from_millis(30));
        let mut later = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let (own, other) = (since(std::process::id()), since(later.id()));
        later.kill().unwrap();
        later.wait().unwrap();
        assert!(own < other, "{own} {other}");
    }

    #[test]
    fn uptimes_are_compared_within_one_boot_of_one_machine() {
        let this = Holder::this_process();
        assert!(this.is_of_this_boot());
        assert!(!Holder { boot: "another".into(), ..this.clone() }.is_of_this_boot());
        assert!(!Holder { host: "elsewhere".into(), ..this }.is_of_this_boot());
    }

    #[test]
    fn a_holder_is_named_as_its_machine_names_itself() {
        let this = Holder::this_process();
        let kernel = |name| fs::read_to_string(format!("/proc/sys/kernel/{name}")).unwrap().trim().to_owned();
        assert_eq!((&this.host, &this.boot), (&kernel("hostname"), &kernel("random/boot_id")));
        assert_eq!(this.describe(), format!("process {} on {}", std::process::id(), kernel("hostname")));
    }
}
