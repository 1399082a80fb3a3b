//! A turn as server-sent events: `message.start`, `delta`, `citation`, `message.end` or `error`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use axum::response::Response;
use bytes::Bytes;
use serde::Serialize;
use utoipa::ToSchema;

use super::turn::{Opening, RunningTurn, TurnEvent};
use super::{Answer, Citation};
use crate::app::App;
use crate::error::Error;
use crate::http::access::{self, Holder};
use crate::http::problem::Problem;
use crate::http::request_id;
use crate::http::sse::{self, HEARTBEAT, write_event};

/// Events that are sent in one write when they are ready together.
const WRITTEN_AT_ONCE: usize = 64;

/// How often a stream asks whether its credential still stands, at least.
const HOLDER_CHECK: Duration = Duration::from_secs(30);

/// The response that streams `turn`, with a comment line whenever `heartbeat` passes in silence. It ends soon after
/// `holder`'s credential was revoked. `has_failed` is set when it ends in an error.
pub(super) fn respond(
    app: &App,
    turn: RunningTurn,
    holder: Holder,
    heartbeat: Duration,
    has_failed: Arc<AtomicBool>,
) -> Response {
    let mut first = Vec::with_capacity(128);
    write_event(&mut first, "message.start", &turn.opening);
    let state = State {
        turn,
        waiting: Vec::with_capacity(WRITTEN_AT_ONCE),
        first: Some(first),
        request_id: request_id::current(),
        heartbeat,
        app: app.clone(),
        holder,
        checked_at: Instant::now(),
        is_over: false,
        has_failed,
    };
    sse::respond(futures::stream::unfold(state, |mut state| async move {
        state.next().await.map(|frame| (frame, state))
    }))
}

struct State {
    turn: RunningTurn,
    waiting: Vec<TurnEvent>,
    first: Option<Vec<u8>>,
    request_id: String,
    heartbeat: Duration,
    app: App,
    holder: Holder,
    checked_at: Instant,
    is_over: bool,
    has_failed: Arc<AtomicBool>,
}

impl State {
    async fn next(&mut self) -> Option<Bytes> {
        if let Some(first) = self.first.take() {
            return Some(first.into());
        }
        if self.is_over {
            return None;
        }
        if self.checked_at.elapsed() >= self.heartbeat.min(HOLDER_CHECK) {
            self.checked_at = Instant::now();
            if !self.holder.still_stands(&self.app).await {
                return Some(self.end_with(access::wrong()));
            }
        }
        match tokio::time::timeout(
            self.heartbeat,
            self.turn.events.recv_many(&mut self.waiting, WRITTEN_AT_ONCE),
        )
        .await
        {
            Err(_) => Some(Bytes::from_static(HEARTBEAT)),
            Ok(0) => None,
            Ok(_) => {
                let mut frame = Vec::with_capacity(64 * self.waiting.len());
                for event in self.waiting.drain(..) {
                    if matches!(event, TurnEvent::Failed(_)) {
                        self.has_failed.store(true, Ordering::Relaxed);
                    }
                    encode(&mut frame, event, &self.request_id);
                }
                Some(frame.into())
            }
        }
    }

    /// The last frame of a stream that may not go on.
    fn end_with(&mut self, error: Error) -> Bytes {
        self.is_over = true;
        self.has_failed.store(true, Ordering::Relaxed);
        let mut frame = Vec::with_capacity(256);
        encode(&mut frame, TurnEvent::Failed(error), &self.request_id);
        frame.into()
    }
}

/// One event of a stream: its name stands behind `event:`, its JSON behind `data:`.
#[derive(Serialize, ToSchema)]
#[serde(tag = "event", content = "data")]
#[expect(
    dead_code,
    reason = "describes the stream, whose events are written as they come"
)]
pub(super) enum AnswerEvent {
    /// The first.
    #[serde(rename = "message.start")]
    Start(Opening),
    #[serde(rename = "delta")]
    Delta(Delta),
    #[serde(rename = "citation")]
    Citation(Citation),
    /// The last one of an answer that is whole.
    #[serde(rename = "message.end")]
    End(Answer),
    /// The last one of any other.
    #[serde(rename = "error")]
    Error(Problem),
}

/// The next words of the answer.
#[derive(Serialize, ToSchema)]
#[schema(as = AnswerDelta)]
pub(super) struct Delta {
    text: String,
}

fn encode(frame: &mut Vec<u8>, event: TurnEvent, request_id: &str) {
    match event {
        TurnEvent::Delta(text) => write_event(frame, "delta", &Delta { text }),
        TurnEvent::Citation(citation) => write_event(frame, "citation", &citation),
        TurnEvent::End(answer) => write_event(frame, "message.end", &answer),
        TurnEvent::Failed(error) => {
            write_event(frame, "error", &Problem::from(error).with_request_id(request_id))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_cannot_end_or_forge_an_event() {
        let mut frame = Vec::new();

        encode(
            &mut frame,
            TurnEvent::Delta("a\n\nevent: message.end\r\ndata: {}\u{2028}".to_owned()),
            "",
        );

        let text = String::from_utf8(frame).expect("events are text");
        assert_eq!(text.lines().count(), 3, "{text}");
        assert_eq!(text.matches("\n\n").count(), 1);
    }
}
