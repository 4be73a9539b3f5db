//! The outside systems, one file each.
//!
//! A provider's file has its module doc (what it can be, the permissions it needs, the vendor's
//! quirks), its `Options`, its handle with the trait implementations of
//! [`pgrotate_core::provider`], `classify` (the only function that knows the vendor's errors),
//! and its tests. Outside of the file it has one line in [`registry`].

pub mod aws_secrets_manager;
pub mod azure;
pub mod azure_app_service;
pub mod azure_key_vault;
pub mod azure_postgres_flexible;
pub mod budget;
pub mod by_hand;
pub mod changelog;
mod child;
pub mod clocks;
pub mod command;
pub mod credentials;
pub mod env_file;
#[cfg(test)]
mod fake;
mod files;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod github;
pub mod github_actions;
pub mod github_issue;
pub mod http;
pub mod http_check;
pub mod jira;
pub mod local_vault;
pub mod log_scan;
pub mod looks;
pub mod onepassword;
pub mod postgres;
#[cfg(test)]
mod refusals;
pub mod registry;
pub mod requests;
pub mod shared;
pub mod ssh;
mod ticket;
pub mod unmanaged;
pub mod webhook;

pub use registry::BuildError;
pub use shared::Shared;
