//! The login seen from another machine: PostgreSQL's own protocol through `ssh -W`, which opens the connection over
//! there and hands its bytes here. The other machine needs no PostgreSQL client, and never has the password: SCRAM
//! and, where it is configured, TLS end at the server.
//!
//! *Needs*, over there, a server of ssh that forwards (`AllowTcpForwarding`, `PermitOpen`).

use std::sync::Arc;

use async_trait::async_trait;
use pgrotate_core::provider::{Login, Vantage, Verifier};
use pgrotate_core::{Result, Secret};
use serde::Deserialize;

use super::{PostgresLogin, connection::Connector};
use crate::shared::Shared;
use crate::ssh::{Ssh, SshOptions};

/// Where it is, and how it is reached.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// The machine, as `ssh` takes it.
    pub host: String,
    /// How `ssh` is called.
    #[serde(default)]
    pub ssh: SshOptions,
}

/// Another machine, from which the server is asked as from here.
pub struct SshVantage {
    name: String,
    login: PostgresLogin,
}

impl SshVantage {
    /// Connects to nothing yet.
    ///
    /// # Errors
    /// When `ssh` could not be called so, or the server would be reached without TLS.
    pub fn new(name: Option<String>, options: Options, shared: Arc<Shared>) -> Result<Self> {
        let ssh = Ssh::new(&options.host, options.ssh, &shared)?;
        let name = name.unwrap_or_else(|| ssh.place());
        Ok(Self { name, login: PostgresLogin(Connector::through(ssh, shared)) })
    }
}

impl Vantage for SshVantage {
    fn name(&self) -> &str {
        &self.name
    }
}

#[async_trait]
impl Verifier for SshVantage {
    async fn login(&self, secret: &Secret) -> Result<Login> {
        self.login.login(secret).await
    }
}
