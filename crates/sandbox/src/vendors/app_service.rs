//! To come.

use std::sync::Arc;

use axum::Router;

use super::{AzureSignIn, KeyVault, World};

/// To come.
pub(crate) struct AppService {}

impl AppService {
    pub(crate) fn new(_world: &World, _sign_in: Arc<AzureSignIn>, _key_vault: Arc<KeyVault>) -> Self {
        Self {}
    }

    /// The HTTP interface.
    pub(crate) fn router(self: Arc<Self>) -> Router {
        Router::new()
    }

    /// Starts every application with its settings and waits until they run.
    pub(crate) async fn start_all(self: &Arc<Self>) {}
}
