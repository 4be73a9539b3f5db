//! What is around a fleet in the real program: the vendors' budgets, the evidence of each run.

use std::sync::Arc;

use async_trait::async_trait;
use pgrotate_core::RunId;
use pgrotate_core::env::Clock;
use pgrotate_core::plan::Plan;
use pgrotate_engine::{Evidence, SqliteStore};
use pgrotate_evidence::Signer;
use pgrotate_providers::budget::{Budgets, Effect};
use pgrotate_sim::fleet::{Around, Request, Vendor};

/// The budgets of the process, and those that a member waits for before it begins.
#[derive(Default)]
pub(crate) struct Paced {
    budgets: Budgets,
    ahead: Budgets,
    keeper: Option<Keeper>,
}

/// Writes each run's evidence when it has ended.
pub(crate) struct Keeper {
    pub(crate) evidence: Evidence,
    pub(crate) store: SqliteStore,
    pub(crate) signer: Arc<Signer>,
}

impl Paced {
    /// With evidence.
    pub(crate) fn kept(keeper: Keeper) -> Self {
        Self { keeper: Some(keeper), ..Self::default() }
    }
}

#[async_trait]
impl Around for Paced {
    async fn before(&self, clock: &dyn Clock, request: &Request) -> Option<Box<dyn Send>> {
        let Request { vendor, place, writes } = request;
        let effect = if *writes { Effect::Writes } else { Effect::Reads };
        match vendor {
            Vendor::ResourceManager => self.budgets.resource_manager(clock, place, effect).await,
            Vendor::KeyVault => self.budgets.vault(clock, place).await,
            Vendor::Aws if *writes => self.budgets.aws_write(clock, place).await,
            Vendor::Github => {
                let permit = self.budgets.github(clock, place, effect).await;
                return permit.map(|permit| Box::new(permit) as Box<dyn Send>);
            }
            _ => {}
        }
        None
    }

    async fn room_for(&self, clock: &dyn Clock, plan: &Plan) {
        self.ahead.room_for(clock, "one for all", plan).await;
    }

    async fn ended(&self, run: RunId) {
        let Some(Keeper { evidence, store, signer }) = &self.keeper else { return };
        let signer = Arc::clone(signer);
        let appended = evidence.append(store, Some(run), || Ok(signer), jiff::Timestamp::now()).await;
        assert_eq!(appended.expect("the evidence can be written").runs, [(run, false)]);
    }
}
