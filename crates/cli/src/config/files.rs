//! The files that the configuration names, and the clients that are built from them.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;

use pgrotate_core::Error;
use pgrotate_providers::credentials::Credentials;
use pgrotate_providers::http::{self, Client, TlsConfig};
use pgrotate_providers::shared;

use super::problem::Problem;
use super::settings::Placed;

/// A new HTTP client that trusts the system's CAs and these.
pub(super) fn client(ca: Option<&[u8]>) -> pgrotate_core::Result<Client> {
    http::client(tls(ca)?)
}

/// Whom to trust. Reading the system's trust store takes longer than everything else that happens before a run, so a
/// process does it once. Only that outlives an environment, and no connection: what it has read last would stay in
/// memory.
fn tls(ca: Option<&[u8]>) -> pgrotate_core::Result<TlsConfig> {
    static CONFIGS: Mutex<BTreeMap<Option<Vec<u8>>, TlsConfig>> = Mutex::new(BTreeMap::new());
    let mut configs = CONFIGS.lock().expect("no holder of this lock panics");
    let key = ca.map(<[u8]>::to_vec);
    if let Some(config) = configs.get(&key) {
        return Ok(config.clone());
    }
    let config = http::tls_config(ca)?;
    configs.insert(key, config.clone());
    Ok(config)
}

/// Reads a CA file, if there is one.
pub(super) fn certificate(base: &Path, named: Option<&Placed<String>>) -> Result<Option<Vec<u8>>, Problem> {
    let Some(named) = named else { return Ok(None) };
    let path = shared::resolve(base, &named.value);
    let refuse = |why: &str| {
        let problem = Problem::new(format!("cannot read the CA file {}: {why}", path.display()));
        problem.at(&named.at, "named here")
    };
    let pem = shared::read_small(&path).map_err(|error| refuse(&shared::why(&error)))?;
    const MARK: &[u8] = b"-----BEGIN CERTIFICATE-----";
    match pem.windows(MARK.len()).any(|part| part == MARK) {
        true => Ok(Some(pem.to_vec())),
        false => Err(refuse("it has no certificate in PEM form")),
    }
}

/// Reads the credentials file, if there is one.
pub(super) fn credentials(base: &Path, named: Option<&Placed<String>>) -> Result<Credentials, Problem> {
    match named {
        None => Ok(Credentials::from_environment()),
        Some(named) => Credentials::with_file(&shared::resolve(base, &named.value))
            .map_err(|error| problem(&error).at(&named.at, "named here")),
    }
}

/// An error of the core in the form of the configuration's.
pub(super) fn problem(error: &Error) -> Problem {
    let problem = Problem::new(error.to_string());
    match error.hints() {
        [] => problem,
        hints => problem.help(hints.join("; ")),
    }
}
