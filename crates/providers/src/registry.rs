//! From a kind's name in the configuration to a provider: one line each.

use std::fmt;
use std::sync::Arc;

use pgrotate_core::Error;
use pgrotate_core::provider::{Authority, Consumer, Recorder, Sink, Vantage, Vault, Verification};
use serde::Deserializer;

use crate::shared::Shared;

/// Why a table of the configuration gave no provider.
#[derive(Debug)]
pub enum BuildError<E> {
    /// There is no provider of this kind; those that there are.
    UnknownKind(&'static [&'static str]),
    /// Its options can't be read.
    Options(E),
    /// Its options make no sense.
    Provider(Error),
}

impl<E: fmt::Display> fmt::Display for BuildError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownKind(known) => write!(f, "no such kind; there are {}", known.join(", ")),
            Self::Options(error) => error.fmt(f),
            Self::Provider(error) => error.fmt(f),
        }
    }
}

/// Writes the function that builds one role's providers, and the list of their kinds. Each
/// provider is a type with `Options`, and `new(name, options, shared)`, where `name` overrides
/// the name that the provider would give itself.
macro_rules! providers {
    ($(#[$doc:meta])* $function:ident -> $role:ident, $kinds:ident: { $($kind:literal => $module:ident::$provider:ident,)* }) => {
        /// The kinds that can stand in the configuration for this role.
        pub const $kinds: &[&str] = &[$($kind),*];

        $(#[$doc])*
        ///
        /// # Errors
        /// When there is no such kind, or its options can't be used.
        pub fn $function<'de, D: Deserializer<'de>>(
            kind: &str,
            name: Option<String>,
            options: D,
            shared: &Arc<Shared>,
        ) -> Result<Box<dyn $role>, BuildError<D::Error>> {
            match kind {
                $($kind => {
                    let options = serde::Deserialize::deserialize(options).map_err(BuildError::Options)?;
                    let provider = crate::$module::$provider::new(name, options, Arc::clone(shared));
                    Ok(Box::new(provider.map_err(BuildError::Provider)?))
                })*
                _ => {
                    let _ = (name, options, shared);
                    Err(BuildError::UnknownKind($kinds))
                }
            }
        }
    };
}

providers! {
    /// Builds the vault of record.
    vault -> Vault, VAULTS: {
        "local_vault" => local_vault::LocalVault,
        "onepassword" => onepassword::Onepassword,
    }
}

providers! {
    /// Builds the authority.
    authority -> Authority, AUTHORITIES: {
        "azure_postgres_flexible" => azure_postgres_flexible::Server,
        "postgres" => postgres::Postgres,
    }
}

providers! {
    /// Builds a sink.
    sink -> Sink, SINKS: {
        "aws_secrets_manager" => aws_secrets_manager::AwsSecretsManager,
        "azure_app_service" => azure_app_service::Setting,
        "azure_key_vault" => azure_key_vault::Copy,
        "env_file" => env_file::EnvFile,
        "github_actions" => github_actions::GithubActions,
    }
}

providers! {
    /// Builds a consumer.
    consumer -> Consumer, CONSUMERS: {
        "azure_app_service" => azure_app_service::App,
        "command" => command::CommandConsumer,
        "unmanaged" => unmanaged::Unmanaged,
    }
}

providers! {
    /// Builds a verification.
    verification -> Verification, VERIFICATIONS: {
        "azure_app_service_log" => azure_app_service::Log,
        "command" => command::CommandCheck,
        "http" => http_check::HttpCheck,
    }
}

providers! {
    /// Builds a recorder.
    recorder -> Recorder, RECORDERS: {
        "changelog" => changelog::Changelog,
        "github_issue" => github_issue::GithubIssue,
        "jira" => jira::Jira,
        "webhook" => webhook::Webhook,
    }
}

providers! {
    /// Builds a vantage.
    vantage -> Vantage, VANTAGES: {
        "ssh" => postgres::SshVantage,
    }
}
