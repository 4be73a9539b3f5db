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
    fn a_reused_process_id_is_not_the_holder() {
        assert!(Holder { started: "1".into(), ..Holder::this_process() }.is_gone());
    }
}
