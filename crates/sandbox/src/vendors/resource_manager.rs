//! To come.

use std::sync::Arc;

use axum::Router;

use super::{AppService, AzureSignIn, KeyVault, World};

/// To come.
pub(crate) struct ResourceManager {}

impl ResourceManager {
    pub(crate) fn new(
        _world: &World,
        _sign_in: Arc<AzureSignIn>,
        _key_vault: Arc<KeyVault>,
        _app_service: Arc<AppService>,
    ) -> Self {
        Self {}
    }

    /// The HTTP interface.
    pub(crate) fn router(self: Arc<Self>) -> Router {
        Router::new()
    }
}
