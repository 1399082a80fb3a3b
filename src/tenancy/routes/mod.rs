//! HTTP of this room: `/api/auth`, `/api/me`, `/api/tenant`, `/api/members`, `/api/invites`, `/api/keys`, `/api/audit`.

mod auth;
mod invites;
mod keys;
mod members;
mod tenant;

use utoipa_axum::router::OpenApiRouter;

use crate::app::App;

/// The routes of this room.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .merge(auth::routes())
        .merge(tenant::routes())
        .merge(members::routes())
        .merge(invites::routes())
        .merge(keys::routes())
}
