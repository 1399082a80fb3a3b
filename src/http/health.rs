//! Whether this process lives, and whether it can do its work.

use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use retrieval::index::IndexError;
use serde::Serialize;
use tokio::time::timeout;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::{App, innermost};
use crate::config::IndexBackend;

/// How long the database may take to answer a probe.
const DATABASE_LIMIT: Duration = Duration::from_secs(3);

/// The routes of this file.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(health))
        .routes(routes!(ready))
}

/// What a probe learns.
#[derive(Serialize, ToSchema)]
struct Health {
    /// `ok`, or `failing`.
    #[schema(value_type = String)]
    status: &'static str,
    #[schema(value_type = String)]
    version: &'static str,
}

/// What this process depends on, part by part: `ok`, `off` (works without), or `failing`.
#[derive(Serialize, ToSchema)]
struct Readiness {
    /// `ok`; `degraded` (200): questions are answered, and something is wrong that somebody should see to; `failing` (503).
    #[schema(value_type = String)]
    status: &'static str,
    /// Answers, and takes writes.
    #[schema(value_type = String)]
    database: &'static str,
    /// `failing`: words are looked for in the rows until it answers. Where it is on a server, the process is ready all the same.
    /// `damaged`: some words in its files are not what was written, and may not be found; the next start, or
    /// `frontdesk index repair`, fills them again. The log names the folder.
    #[schema(value_type = String)]
    index: &'static str,
    /// The store of original files. `full`: nothing is taken in (507) until there is room, and `shortage` says what is lacking.
    #[schema(value_type = String)]
    files: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    shortage: Option<String>,
    /// `off`: no embedding model; search goes by keywords alone. `failing`: it did not answer the last question, or lets nobody ask
    /// (`denial`), so that words alone do for now; the process is ready all the same.
    #[schema(value_type = String)]
    model: &'static str,
    /// Why the model's server cannot be asked, as with a wrong key or a limit of time that it does not meet: what is brought in
    /// waits until the operator has put that right.
    #[serde(skip_serializing_if = "Option::is_none")]
    denial: Option<String>,
}

/// Whether the process lives.
#[utoipa::path(get, path = "/health", tag = "operation", responses((status = 200, body = Health)))]
async fn health() -> axum::Json<Health> {
    axum::Json(Health {
        status: "ok",
        version: env!("CARGO_PKG_VERSION"),
    })
}

/// Whether the process can do its work now: database, index, files and embedding model.
#[utoipa::path(get, path = "/ready", tag = "operation", responses((status = 200, body = Readiness), (status = 503, body = Readiness)))]
async fn ready(State(app): State<App>) -> Response {
    let database = match timeout(DATABASE_LIMIT, app.db.check()).await {
        Ok(Ok(())) => "ok",
        Ok(Err(error)) => {
            tracing::warn!(error = ?error, "the database does not answer, or takes nothing");
            "failing"
        }
        Err(_) => {
            tracing::warn!("the database does not answer");
            "failing"
        }
    };
    let wanted = app.spaces.wanted();
    app.reopen_when_due(&wanted.name, app.clock.now());
    let index = match check_index(&app).await {
        Ok(word) => word,
        Err(error) => {
            tracing::warn!(%error, cause = innermost(&error), "the index does not answer");
            "failing"
        }
    };
    let (files, shortage) = match app.files.check().await.and_then(|()| app.disk.shortage()) {
        Ok(None) => ("ok", None),
        Ok(shortage) => ("full", shortage),
        Err(error) => {
            tracing::warn!(error = ?error, "the store of files does not answer");
            ("failing", None)
        }
    };
    let denial = wanted.denial.reason();
    let model = match &wanted.embedder {
        None => "off",
        Some(_) if denial.is_some() || wanted.is_failing.load(Ordering::Relaxed) => "failing",
        Some(_) => "ok",
    };
    let has_own_index = app.config.index.backend == IndexBackend::Embedded;
    let is_failing = [database, files].contains(&"failing") || (index == "failing" && has_own_index);
    let (status, word) = if is_failing || app.stopping.is_cancelled() {
        (StatusCode::SERVICE_UNAVAILABLE, "failing")
    } else if shortage.is_some() || index != "ok" || model == "failing" {
        // Who asks is answered, and not better by another process in its place.
        (StatusCode::OK, "degraded")
    } else {
        (StatusCode::OK, "ok")
    };
    (
        status,
        axum::Json(Readiness {
            status: word,
            database,
            index,
            files,
            shortage,
            model,
            denial,
        }),
    )
        .into_response()
}

async fn check_index(app: &App) -> Result<&'static str, IndexError> {
    app.spaces.check().await?;
    Ok(match app.spaces.are_damaged().await? {
        true => "damaged",
        false => "ok",
    })
}
