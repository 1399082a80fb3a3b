//! The id of the request being answered, known wherever its future runs.

use uuid::Uuid;

tokio::task_local! {
    static REQUEST_ID: Uuid;
}

/// Runs `future` as the request with this id.
pub async fn scope<F: Future>(id: Uuid, future: F) -> F::Output {
    REQUEST_ID.scope(id, future).await
}

/// The current request's id; empty outside a request.
pub fn current() -> String {
    REQUEST_ID
        .try_with(|id| id.simple().to_string())
        .unwrap_or_default()
}
