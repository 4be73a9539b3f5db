//! Makes one consumer take up its copies.

use crate::error::Result;
use crate::journal::Outcome;
use crate::provider::Activation;
use crate::rotation::{Rotation, gone};
use crate::run::RunState;

/// Tells a consumer: refresh, restart.
pub(crate) async fn perform(rotation: &Rotation, id: &str, run: &RunState) -> Result<Outcome> {
    let bound = rotation.consumers.iter().find(|bound| bound.consumer.id() == id).ok_or_else(|| gone(id))?;
    let keys = rotation.keys(run).await?;
    let activation = Activation {
        run: run.run,
        versions: &run.versions(),
        password: &keys.next,
        previous: keys.previous.as_ref(),
    };
    bound.consumer.activate(&activation).await
}
