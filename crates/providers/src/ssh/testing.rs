//! A real sshd on loopback for tests, and a wire to it that can be cut.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::SshOptions;

/// A running sshd, with keys of its own.
pub(crate) struct Sshd {
    child: Child,
    folder: tempfile::TempDir,
    /// Where it listens.
    pub(crate) port: u16,
}

impl Sshd {
    /// Starts one and waits until it takes connections.
    pub(crate) fn start() -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../sandbox/stand-ins/sshd");
        let folder = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let child = Command::new(script)
            .arg(folder.path())
            .arg(port.to_string())
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let mut sshd = Self { child, folder, port };
        let deadline = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(sshd.child.try_wait().unwrap().is_none(), "no sshd: `make setup` installs it");
            assert!(Instant::now() < deadline, "sshd takes no connections");
            std::thread::sleep(Duration::from_millis(20));
        }
        sshd
    }

    /// A file of its folder.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// How to reach it, with nothing of this machine's own configuration.
    pub(crate) fn options(&self) -> SshOptions {
        let file = |name: &str| Some(self.file(name).display().to_string());
        SshOptions {
            port: Some(self.port),
            identity_file: file("client_key"),
            config_file: Some("/dev/null".into()),
            known_hosts_file: file("known_hosts"),
        }
    }

    /// How to reach it by way of a wire.
    pub(crate) fn options_by(&self, wire: &Wire) -> SshOptions {
        let known = std::fs::read_to_string(self.file("known_hosts")).unwrap();
        let known = known.replace(&format!(":{} ", self.port), &format!(":{} ", wire.port));
        std::fs::write(self.file("known_hosts_by_wire"), known).unwrap();
        let file = self.file("known_hosts_by_wire").display().to_string();
        SshOptions { port: Some(wire.port), known_hosts_file: Some(file), ..self.options() }
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A wire that is cut when it has carried so many bytes in one of its connections.
pub(crate) struct Wire {
    /// Where it begins.
    pub(crate) port: u16,
    /// Bytes to the other machine.
    pub(crate) there: Arc<AtomicU64>,
    /// Bytes from the other machine.
    pub(crate) back: Arc<AtomicU64>,
    /// Whether it only stops carrying there, and is cut when this is no longer so.
    pub(crate) holds: Arc<AtomicBool>,
}

impl Wire {
    /// A wire to an sshd that carries everything, for now.
    pub(crate) fn to(sshd: &Sshd) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (port, end) = (listener.local_addr().unwrap().port(), sshd.port);
        let endless = || Arc::new(AtomicU64::new(u64::MAX));
        let (there, back) = (endless(), endless());
        let holds = Arc::new(AtomicBool::new(false));
        let (limits, held) = ((Arc::clone(&there), Arc::clone(&back)), Arc::clone(&holds));
        std::thread::spawn(move || {
            for near in listener.incoming() {
                let (near, far) = (near.unwrap(), TcpStream::connect(("127.0.0.1", end)).unwrap());
                for (from, to, limit) in [(&near, &far, &limits.0), (&far, &near, &limits.1)] {
                    let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    let (limit, held) = (Arc::clone(limit), Arc::clone(&held));
                    std::thread::spawn(move || carry(from, to, &limit, &held));
                }
            }
        });
        Self { port, there, back, holds }
    }
}

fn carry(mut from: TcpStream, mut to: TcpStream, limit: &AtomicU64, held: &AtomicBool) {
    let (mut piece, mut carried) = (vec![0; 4096], 0);
    while let Ok(length @ 1..) = from.read(&mut piece) {
        carried += length as u64;
        if carried > limit.load(Ordering::SeqCst) {
            while held.load(Ordering::SeqCst) {
                std::thread::sleep(Duration::from_millis(5));
            }
            break;
        }
        if to.write_all(&piece[..length]).is_err() {
            break;
        }
    }
    let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
}
