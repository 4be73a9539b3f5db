//! The private key of the sandbox's GitHub App: made at each start, so that none stands in the source.
//!
//! openssl's command makes it, in the form in which GitHub hands them out: ring uses RSA keys and makes none.

use std::path::Path;

use ring::signature::{KeyPair, RsaKeyPair};
use rustix::process::Signal;
use rustls::pki_types::PrivatePkcs1KeyDer;
use rustls::pki_types::pem::PemObject;

use crate::error::{Context, Error, Result};
use crate::process::{Launcher, find_program};

/// Makes a key in a new file; gives its public part, with which the App's proofs are checked.
pub(crate) async fn make(launcher: &Launcher, path: &Path) -> Result<Vec<u8>> {
    let openssl = find_program("openssl");
    let openssl = openssl.ok_or_else(|| Error::new("there is no openssl: run `make setup`"))?;
    let mut command = launcher.command(&openssl, Signal::KILL);
    command.args(["genrsa", "-traditional", "-out"]).arg(path).arg("2048");
    launcher.run("openssl", command).await?;
    let pem = std::fs::read(path).context(|| format!("cannot read {}", path.display()))?;
    public_part(&pem)
}

/// The public part of a key as GitHub hands it out.
pub(crate) fn public_part(pem: &[u8]) -> Result<Vec<u8>> {
    let der = PrivatePkcs1KeyDer::from_pem_slice(pem).context(|| "openssl made no RSA key".into())?;
    let key = RsaKeyPair::from_der(der.secret_pkcs1_der());
    let key = key.map_err(|error| Error::new(format!("openssl made no usable key: {error}")))?;
    Ok(key.public_key().as_ref().to_vec())
}
