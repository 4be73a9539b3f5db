//! Keeps the evidence up to the journal, and never in the way of a run.

use std::sync::Arc;

use pgrotate_core::env::{Clock, Entropy};
use pgrotate_core::{Error, Result, RunId};
use pgrotate_engine::evidence::Appended;
use pgrotate_engine::{Embedded, Evidence, Home};
use pgrotate_evidence::key::Public;
use pgrotate_evidence::{Signer, Trusted};

use crate::display;

/// The evidence of the state folder, and who signs it.
pub(crate) struct Keeper {
    pub(crate) evidence: Evidence,
    home: Home,
    /// The key that the configuration names.
    named: Option<Arc<Signer>>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
}

impl Keeper {
    /// # Errors
    /// When the state folder has a key that can't be used.
    pub(crate) fn new(
        home: Home,
        named: Option<Signer>,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
    ) -> Result<Self> {
        if named.is_none() {
            home.evidence_key()?;
        }
        Ok(Self { evidence: Evidence::of(&home, user()), home, named: named.map(Arc::new), clock, entropy })
    }

    /// Writes what earlier processes have left to be written. What can't be is a warning: the next command tries again.
    pub(crate) async fn catch_up(&self, engine: &Embedded) {
        self.append(engine, None).await;
    }

    /// Writes what there is of a run that this process does not carry on. The run's end stands, whatever comes of it.
    pub(crate) async fn conclude(&self, engine: &Embedded, run: RunId) {
        self.append(engine, Some(run)).await;
    }

    async fn append(&self, engine: &Embedded, own: Option<RunId>) {
        match self.try_append(engine, own).await {
            Ok(appended) => said(&appended),
            Err(error) => {
                display::warning(
                    "the evidence is not written yet; the next command that changes something does it",
                );
                display::error(&error);
            }
        }
    }

    async fn try_append(&self, engine: &Embedded, own: Option<RunId>) -> Result<Appended> {
        self.evidence.append(engine.store(), own, || self.signer(), self.clock.now()).await
    }

    fn signer(&self) -> Result<Arc<Signer>> {
        match &self.named {
            Some(named) => Ok(Arc::clone(named)),
            None => Ok(Arc::new(self.home.make_evidence_key(&*self.entropy)?)),
        }
    }

    /// Signs with the key that signs everything else here.
    pub(crate) fn excerpt(&self, file: &[u8], run: RunId) -> Result<Option<Vec<u8>>> {
        let at = self.clock.now().to_string();
        Ok(pgrotate_evidence::excerpt::of(
            file,
            &run.to_string(),
            &at,
            self.evidence.author(),
            &*self.signer()?,
        ))
    }

    /// The public half of the key that signs.
    pub(crate) fn public(&self) -> Result<Public> {
        Ok(self.signer()?.public())
    }

    /// The keys of this folder: their signatures count here.
    pub(crate) fn trust(&self, trusted: &mut Trusted) -> Result<()> {
        if let Some(named) = &self.named {
            trusted.add(&named.public());
        }
        if let Some(own) = self.home.evidence_key()? {
            trusted.add(&own.public());
        }
        Ok(())
    }
}

fn said(appended: &Appended) {
    if let Some(dropped) = &appended.dropped {
        display::warning(&format!(
            "the end of the evidence was cut off, as by a crash: {} bytes are taken away, and written again from the journal; \
             the evidence says so too",
            dropped.bytes
        ));
    }
    let late: Vec<String> =
        appended.runs.iter().filter(|(_, late)| *late).map(|(run, _)| run.to_string()).collect();
    match late.as_slice() {
        [] => {}
        [run] => display::warning(&format!("the evidence of the run {run} was missing, and is written now")),
        runs => display::warning(&format!(
            "the evidence of {} runs was missing, and is written now: {} to {}",
            runs.len(),
            runs[0],
            runs[runs.len() - 1]
        )),
    }
    let unread = |error: &Error| display::warning(&format!("without evidence: {error}"));
    appended.unread.iter().for_each(unread);
}

/// The user of the system, whoever asked for the run.
pub(crate) fn user() -> String {
    ["USER", "LOGNAME"]
        .iter()
        .find_map(|name| std::env::var(name).ok().filter(|user| !user.is_empty()))
        .unwrap_or_else(|| format!("uid {}", rustix::process::getuid().as_raw()))
}
