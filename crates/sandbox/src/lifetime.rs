//! How long a sandbox lives: until it is told to stop, or its parent is gone.

use std::time::Duration;

use rustix::process::{Pid, getppid};
use tokio::signal::unix::{SignalKind, signal};

use crate::error::{Context, Result};

/// How often the parent is looked for. The kernel's own signal would come when the parent's *thread* ends, which a
/// parent with many threads does not mean.
const LOOK: Duration = Duration::from_millis(100);

/// The life of this process.
pub(crate) struct Lifetime {
    parent: Option<Pid>,
}

impl Lifetime {
    /// Remembers the parent.
    pub(crate) fn begin() -> Self {
        Self { parent: getppid() }
    }

    /// Waits for Ctrl-C, SIGTERM, the terminal's end, or the parent's.
    pub(crate) async fn over(&self) -> Result<()> {
        let listen = |kind| signal(kind).context(|| "cannot listen for signals".into());
        let mut interrupt = listen(SignalKind::interrupt())?;
        let mut terminate = listen(SignalKind::terminate())?;
        let mut hang_up = listen(SignalKind::hangup())?;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hang_up.recv() => {}
            () = self.orphaned() => tracing::info!("the parent process has ended"),
        }
        Ok(())
    }

    async fn orphaned(&self) {
        while getppid() == self.parent {
            tokio::time::sleep(LOOK).await;
        }
    }
}
