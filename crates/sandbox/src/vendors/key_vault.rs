//! To come.

use std::sync::Arc;

use axum::Router;

use super::{AzureSignIn, World};

/// To come.
pub(crate) struct KeyVault {}

impl KeyVault {
    pub(crate) fn new(_world: &World, _sign_in: Arc<AzureSignIn>) -> Self {
        Self {}
    }

    /// The HTTP interface.
    pub(crate) fn router(self: Arc<Self>) -> Router {
        Router::new()
    }
}
