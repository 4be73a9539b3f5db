//! A certificate authority for the life of one sandbox.
//!
//! Its certificate is written to `ca.pem`; its key never leaves memory, so the file can be trusted without risk.

use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::error::{Context, Result};

/// What every certificate is for: a client may name the loopback in any of these ways.
const LOOPBACK: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// The authority.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

/// A server's certificate with its key.
pub(crate) struct Leaf {
    certificate: rcgen::Certificate,
    key: KeyPair,
}

impl Authority {
    /// Makes a new authority.
    pub(crate) fn new() -> Result<Self> {
        let key = KeyPair::generate().context(|| "cannot make the authority's key".into())?;
        let mut params = CertificateParams::new(Vec::<String>::new())
            .context(|| "cannot describe the authority".into())?;
        params.distinguished_name.push(DnType::CommonName, "pgrotate sandbox");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key).context(|| "cannot sign the authority".into())?;
        Ok(Self { pem: certificate.pem(), issuer: Issuer::new(params, key) })
    }

    /// The authority's certificate, for `ca.pem`.
    pub(crate) fn pem(&self) -> &str {
        &self.pem
    }

    /// A certificate for the loopback and `more` names.
    pub(crate) fn leaf(&self, more: &[&str]) -> Result<Leaf> {
        let names: Vec<String> = LOOPBACK.iter().chain(more).map(ToString::to_string).collect();
        let mut params = CertificateParams::new(names).context(|| "cannot describe a certificate".into())?;
        params.distinguished_name.push(DnType::CommonName, "localhost");
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let key = KeyPair::generate().context(|| "cannot make a certificate's key".into())?;
        let certificate =
            params.signed_by(&key, &self.issuer).context(|| "cannot sign a certificate".into())?;
        Ok(Leaf { certificate, key })
    }
}

impl Leaf {
    /// The certificate, as PostgreSQL reads it.
    pub(crate) fn certificate_pem(&self) -> String {
        self.certificate.pem()
    }

    /// Its key, as PostgreSQL reads it.
    pub(crate) fn key_pem(&self) -> String {
        self.key.serialize_pem()
    }

    /// What our own listeners serve with. HTTP/1.1 alone is offered: there a dropped connection hits exactly the
    /// request that a fault was set for.
    pub(crate) fn server_config(&self) -> Result<Arc<ServerConfig>> {
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(self.key.serialize_der()));
        let mut config = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![self.certificate.der().clone()], key)
            .context(|| "cannot serve with the sandbox's certificate".into())?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }
}
