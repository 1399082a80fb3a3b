//! The id of the request being answered, known wherever its future runs.

use tokio_util::task::TaskTracker;
use tracing::Instrument as _;
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

/// Runs `future` in a task of its own, one of `tasks`, as part of the present request, so that it ends its work even when
/// the client leaves. A panic goes on to whoever waits.
pub async fn detach<T: Send + 'static>(
    tasks: &TaskTracker,
    future: impl Future<Output = T> + Send + 'static,
) -> T {
    let id = REQUEST_ID.try_with(|id| *id).unwrap_or_default();
    let task = tasks.spawn(scope(id, future).in_current_span());
    match task.await {
        Ok(output) => output,
        // Nobody aborts the task, so it can only have panicked.
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}
