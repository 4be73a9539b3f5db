//! What the fuzz targets call: a door to the configuration, which nobody else outside of this crate needs.

use std::path::Path;
use std::sync::Arc;

use miette::Report;
use pgrotate_core::FingerprintKey;
use pgrotate_core::plan::Plan;
use pgrotate_engine::system::{OsEntropy, SystemClock};

use crate::config::{Config, Deps};

/// Reads a text as the configuration, and makes the plan of each of its environments.
///
/// # Errors
/// Everything that is wrong with it, each mistake with its place.
pub fn config(text: &str) -> Result<Vec<Plan>, Report> {
    let config = Config::parse(Path::new("pgrotate.toml"), text.to_owned())?;
    let _ = (config.project(), config.path(), config.warnings());
    let environments = config.environments();
    // What is in the files that it names is not the text's business.
    if text.contains("ca_file") || text.contains("credentials_file") {
        return Ok(Vec::new());
    }
    let plan = |environment| {
        let deps = Deps {
            key: FingerprintKey::new([1; 32]),
            clock: Arc::new(SystemClock),
            entropy: Arc::new(OsEntropy),
        };
        let _ = config.asks_for_hash(environment);
        config.rotation(environment, deps).map(|rotation| rotation.plan())
    };
    environments.iter().map(plan).collect()
}
