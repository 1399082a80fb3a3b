//! A source's progress as server-sent events: `source` and `run`, each with the same JSON as its own route, whenever
//! something of it changed.
//!
//! The rows are looked at about once a second: whichever process reads the source, every process can tell.

use std::time::{Duration, Instant};

use axum::extract::State;
use axum::response::Response;
use bytes::Bytes;
use tokio::sync::OwnedSemaphorePermit;

use super::view::{RunResponse, SourceResponse};
use crate::app::App;
use crate::error::{Error, Result};
use crate::http::access::{self, Holder, KnowledgeAccess, Reach};
use crate::http::input::Path;
use crate::http::problem::Problem;
use crate::http::request_id;
use crate::http::sse::{HEARTBEAT, respond, write_event};
use crate::id::SourceId;
use crate::knowledge::sync::{self, SyncRun};

/// How often the rows are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How often a stream asks whether its credential still stands.
const HOLDER_CHECK: Duration = Duration::from_secs(30);

/// When a client that found no free stream may try again.
const BUSY_RETRY: Duration = Duration::from_secs(5);

/// A source's progress, as it happens: events `source` and `run`, first as they are now and then at each change. The
/// stream stays open until the client closes it, the credential ends or the source is deleted (`error`).
#[utoipa::path(get, path = "/api/sources/{id}/events", tag = "sources", params(("id" = String, Path, description = "The source")),
    responses((status = 200, description = "Events `source`, `run` and `error`, with the JSON of a source, a run and a problem", body = String, content_type = "text/event-stream"), (status = "4XX", body = Problem, content_type = "application/problem+json")), security(("bearer" = ["knowledge:read"])))]
pub(super) async fn stream_source_events(
    access: KnowledgeAccess,
    State(app): State<App>,
    Path(id): Path<SourceId>,
) -> Result<Response, Problem> {
    let place = app
        .source_streams
        .clone()
        .try_acquire_owned()
        .map_err(|_| Error::Unavailable {
            code: "busy",
            message: "too many streams are open at once; try again shortly".into(),
            retry_after: BUSY_RETRY,
            source: None,
        })?;
    let mut watch = Watch {
        reach: access.reach(),
        holder: access.holder(),
        id,
        heartbeat: Duration::from_secs(app.config.chat.heartbeat_s),
        request_id: request_id::current(),
        checked_at: Instant::now(),
        sent_at: Instant::now(),
        shown: None,
        is_over: false,
        _place: place,
        app,
    };
    // What is absent is refused before a stream begins.
    let first = watch.look().await?;
    let frames = futures::stream::unfold((watch, first), |(mut watch, waiting)| async move {
        let frame = match waiting {
            Some(frame) => frame,
            None => watch.next().await?,
        };
        Some((frame, (watch, None)))
    });
    Ok(respond(frames))
}

/// One open stream.
struct Watch {
    app: App,
    reach: Reach,
    holder: Holder,
    id: SourceId,
    heartbeat: Duration,
    request_id: String,
    checked_at: Instant,
    sent_at: Instant,
    /// What the client knows: the source, and its last run without the failures.
    shown: Option<(SourceResponse, Option<RunResponse>)>,
    is_over: bool,
    _place: OwnedSemaphorePermit,
}

impl Watch {
    /// The next piece of the stream; none at its end.
    async fn next(&mut self) -> Option<Bytes> {
        while !self.is_over {
            tokio::select! {
                () = tokio::time::sleep(LOOK_EVERY.min(self.heartbeat)) => {}
                () = self.app.stopping.cancelled() => return None,
            }
            if self.checked_at.elapsed() >= HOLDER_CHECK {
                self.checked_at = Instant::now();
                if !self.holder.still_stands(&self.app).await {
                    return Some(self.end_with(access::wrong()));
                }
            }
            match self.look().await {
                Ok(Some(frame)) => return Some(frame),
                Ok(None) => {}
                Err(error @ Error::NotFound(_)) => return Some(self.end_with(error)),
                // It may answer at the next look.
                Err(error) => {
                    tracing::debug!(error = ?error, source.id = %self.id, "cannot look at a source")
                }
            }
            if self.sent_at.elapsed() >= self.heartbeat {
                self.sent_at = Instant::now();
                return Some(Bytes::from_static(HEARTBEAT));
            }
        }
        None
    }

    /// What changed since the last look.
    async fn look(&mut self) -> Result<Option<Bytes>> {
        let tenant_id = self.reach.tenant_id;
        let mut conn = self.app.db.read(tenant_id).await?;
        let source = super::find(&mut conn, self.reach, self.id).await?;
        let run: Option<SyncRun> = sync::find_last_run(&mut conn, tenant_id, self.id).await?;
        let bare_run = run.clone().map(RunResponse::without_failures);
        let bare_source = SourceResponse::of(source, None);
        let (source_is_new, run_is_new) = match &self.shown {
            Some((shown_source, shown_run)) => (*shown_source != bare_source, *shown_run != bare_run),
            None => (true, true),
        };
        if !source_is_new && !run_is_new {
            return Ok(None);
        }
        let whole_run = match run {
            Some(run) => Some(RunResponse::load(&mut conn, tenant_id, run).await?),
            None => None,
        };
        let mut frame = Vec::with_capacity(2048);
        if source_is_new {
            let mut source = bare_source.clone();
            source.last_run = whole_run.clone();
            write_event(&mut frame, "source", &source);
        }
        if let Some(run) = whole_run.filter(|_| run_is_new) {
            write_event(&mut frame, "run", &run);
        }
        self.shown = Some((bare_source, bare_run));
        self.sent_at = Instant::now();
        Ok(Some(frame.into()))
    }

    /// The last piece of a stream that may not go on.
    fn end_with(&mut self, error: Error) -> Bytes {
        self.is_over = true;
        let mut frame = Vec::with_capacity(256);
        write_event(
            &mut frame,
            "error",
            &Problem::from(error).with_request_id(&self.request_id),
        );
        frame.into()
    }
}
