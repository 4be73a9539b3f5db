//! To come.

use std::sync::Arc;

use axum::Router;

use super::World;

/// To come.
pub(crate) struct Webhook {}

impl Webhook {
    pub(crate) fn new(_world: &World) -> Self {
        Self {}
    }

    /// The HTTP interface.
    pub(crate) fn router(self: Arc<Self>) -> Router {
        Router::new()
    }
}
