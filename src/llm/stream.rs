//! A running answer: bytes of a response become events, within the time and size limits.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use hyper::body::Body as _;
use tokio::time::{Instant, Sleep};

use super::sse::Decoder;
use super::wire::Answer;
use super::{FinishReason, ModelEvent, Phase, ProviderError, TokenUsage, retry};

/// Bytes of one streamed answer, everything around the text included.
const MAX_STREAM_BYTES: usize = 64 * 1024 * 1024;

/// How long usage and the end are waited for once the model said that it is done.
const END_GRACE: Duration = Duration::from_secs(2);

/// What a connection may still bring after the end, to be used again.
const DRAIN_LIMIT: Duration = Duration::from_secs(1);

/// Reads without an event before other tasks get their turn.
const READS_PER_POLL: u32 = 32;

/// The connection ended before any text came.
#[derive(Debug, thiserror::Error)]
#[error("the connection ended before the answer began")]
struct EndedEarly;

/// What bounds a running answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// When the first token must have come.
    pub(super) first_token: Instant,
    /// Longest silence between two events.
    pub(super) idle: Duration,
    /// When everything must have come.
    pub(super) total: Instant,
    /// Bytes of text; more than this is no answer to what was asked.
    pub(super) text_bytes: usize,
}

/// A response as a stream of events. Dropping it closes the connection.
pub(super) struct AnswerStream {
    /// None once everything that counts has come.
    body: Option<reqwest::Body>,
    decoder: Decoder,
    bounds: Bounds,
    /// Rings at the latest when the next limit runs out; set later only when it rings.
    alarm: Pin<Box<Sleep>>,
    progress: Progress,
    ready: VecDeque<ModelEvent>,
    failed: Option<ProviderError>,
}

/// How far the answer has come.
struct Progress {
    stage: Stage,
    last_event: Instant,
    received_bytes: usize,
    text_bytes: usize,
    usage: Option<TokenUsage>,
    finish: Option<FinishReason>,
    /// The server said that nothing more comes.
    is_done: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Nothing of the answer is here.
    Waiting,
    /// The model thinks or asks for tools: there is no text, but the first token has come.
    Working,
    /// Text has been handed on, so nothing may be tried again.
    Talking,
}

impl AnswerStream {
    pub(super) fn new(body: reqwest::Body, bounds: Bounds) -> Self {
        let now = Instant::now();
        Self {
            body: Some(body),
            decoder: Decoder::default(),
            bounds,
            alarm: Box::pin(tokio::time::sleep_until(bounds.first_token.min(bounds.total))),
            progress: Progress {
                stage: Stage::Waiting,
                last_event: now,
                received_bytes: 0,
                text_bytes: 0,
                usage: None,
                finish: None,
                is_done: false,
            },
            ready: VecDeque::new(),
            failed: None,
        }
    }

    /// Puts an event that was taken out back in front.
    pub(super) fn put_back(&mut self, event: ModelEvent) {
        self.ready.push_front(event);
    }

    fn take_in(&mut self, bytes: &[u8], now: Instant) {
        self.progress.received_bytes += bytes.len();
        let (progress, ready, bounds) = (&mut self.progress, &mut self.ready, &self.bounds);
        let before = progress.stage;
        let mut failed = None;
        let fed = self.decoder.feed(bytes, |data| {
            match progress.take_event(data, now, bounds, ready) {
                Ok(()) => !progress.is_done,
                Err(error) => {
                    failed = Some(error);
                    false
                }
            }
        });
        if failed.is_none() && (fed.is_err() || progress.received_bytes > MAX_STREAM_BYTES) {
            failed = Some(too_long());
        }
        if let Some(error) = failed {
            self.fail(error);
        } else if self.progress.is_done {
            self.end();
        } else if self.progress.finish.is_some() || before != self.progress.stage {
            // The limits are others now, and may be nearer.
            let limit = self.limit().0;
            self.alarm.as_mut().reset(limit);
        }
    }

    /// The connection ended, properly or not.
    fn connection_ended(&mut self, now: Instant) {
        // A last event may lack its blank line. What cannot be read here was cut in the middle.
        let (progress, ready, bounds) = (&mut self.progress, &mut self.ready, &self.bounds);
        let _ = self
            .decoder
            .finish(|data| progress.take_event(data, now, bounds, ready).is_ok());
        if self.progress.finish.is_some() || self.progress.is_done {
            self.body = None;
            self.end();
        } else {
            self.fail(self.cut());
        }
    }

    /// What a cut is, depending on whether any text was handed on.
    fn cut(&self) -> ProviderError {
        if self.progress.stage == Stage::Talking {
            ProviderError::Interrupted
        } else {
            retry::unavailable(EndedEarly, None)
        }
    }

    /// When the next limit runs out, and which it is.
    fn limit(&self) -> (Instant, Phase) {
        let (until, phase) = if self.progress.finish.is_some() {
            (self.progress.last_event + END_GRACE, Phase::Idle)
        } else if self.progress.stage == Stage::Waiting {
            (self.bounds.first_token, Phase::FirstToken)
        } else {
            (self.progress.last_event + self.bounds.idle, Phase::Idle)
        };
        if until < self.bounds.total {
            (until, phase)
        } else {
            (self.bounds.total, Phase::Total)
        }
    }

    fn time_is_up(&mut self, phase: Phase) {
        if self.progress.finish.is_some() {
            self.body = None;
            self.end();
        } else {
            self.fail(ProviderError::TimedOut { phase });
        }
    }

    fn fail(&mut self, error: ProviderError) {
        self.body = None;
        self.failed = Some(error);
    }

    /// The answer is whole: tells so, and lets the connection be used again.
    fn end(&mut self) {
        if let Some(body) = self.body.take() {
            reuse_connection(body);
        }
        self.ready
            .extend(self.progress.usage.take().map(ModelEvent::Usage));
        self.ready.push_back(ModelEvent::Finished(
            self.progress.finish.unwrap_or(FinishReason::Stop),
        ));
    }
}

impl Progress {
    /// Takes one event's data in.
    fn take_event(
        &mut self,
        data: &[u8],
        now: Instant,
        bounds: &Bounds,
        ready: &mut VecDeque<ModelEvent>,
    ) -> Result<(), ProviderError> {
        if data.is_empty() {
            return Ok(());
        }
        self.last_event = now;
        if data == b"[DONE]" {
            self.is_done = true;
            return Ok(());
        }
        let mut answer: Answer =
            serde_json::from_slice(data).map_err(|_| unreadable("an event is not the expected JSON"))?;
        if let Some(error) = &answer.error {
            let error = retry::of_error_event(error);
            return Err(if self.stage == Stage::Talking {
                ProviderError::Interrupted
            } else {
                error
            });
        }
        if let Some(usage) = answer.usage.as_ref().and_then(|usage| usage.reported()) {
            self.usage = Some(usage);
        }
        let text = answer.choice.take_text();
        if !text.is_empty() {
            self.stage = Stage::Talking;
            self.text_bytes += text.len();
            ready.push_back(ModelEvent::Delta(text));
            if self.text_bytes > bounds.text_bytes {
                return Err(too_long());
            }
        } else if self.stage == Stage::Waiting && answer.choice.shows_life() {
            self.stage = Stage::Working;
        }
        if let Some(finish) = answer.choice.finish() {
            self.finish = Some(finish);
        }
        Ok(())
    }
}

impl Stream for AnswerStream {
    type Item = Result<ModelEvent, ProviderError>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        for _ in 0..READS_PER_POLL {
            if let Some(event) = this.ready.pop_front() {
                return Poll::Ready(Some(Ok(event)));
            }
            if let Some(error) = this.failed.take() {
                return Poll::Ready(Some(Err(error)));
            }
            let Some(body) = &mut this.body else {
                return Poll::Ready(None);
            };
            let Poll::Ready(frame) = Pin::new(body).poll_frame(context) else {
                ready!(this.alarm.as_mut().poll(context));
                let (limit, phase) = this.limit();
                if limit <= Instant::now() {
                    this.time_is_up(phase);
                } else {
                    this.alarm.as_mut().reset(limit);
                }
                continue;
            };
            let now = Instant::now();
            match frame {
                Some(Ok(frame)) => {
                    let bytes = frame.into_data().unwrap_or_default();
                    this.take_in(&bytes, now);
                    // A server that never pauses never lets the alarm ring.
                    let (limit, phase) = this.limit();
                    if this.body.is_some() && limit <= now {
                        this.time_is_up(phase);
                    }
                }
                Some(Err(_)) | None => this.connection_ended(now),
            }
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }
}

/// Reads what little follows the end, so that the connection goes back to the pool instead of being closed.
fn reuse_connection(mut body: reqwest::Body) {
    let drain = async move {
        while let Some(Ok(_)) = std::future::poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await
        {
        }
    };
    let mut drain = Box::pin(tokio::time::timeout(DRAIN_LIMIT, drain));
    // Mostly the end is here already, and no task is needed.
    let mut context = Context::from_waker(std::task::Waker::noop());
    if drain.as_mut().poll(&mut context).is_pending() {
        tokio::spawn(drain);
    }
}

/// The bytes of a whole body, read within its limits.
pub(super) async fn read_body(
    mut body: reqwest::Body,
    max_bytes: usize,
    idle: Duration,
) -> Result<Bytes, ReadError> {
    let mut first = Bytes::new();
    let mut all = Vec::new();
    loop {
        let frame = tokio::time::timeout(
            idle,
            std::future::poll_fn(|context| Pin::new(&mut body).poll_frame(context)),
        );
        let data = match frame.await.map_err(|_| ReadError::Silent)? {
            Some(Ok(frame)) => frame.into_data().unwrap_or_default(),
            Some(Err(error)) => return Err(ReadError::Cut(error.without_url())),
            // Most answers are one piece, which is not copied.
            None => return Ok(if all.is_empty() { first } else { Bytes::from(all) }),
        };
        if first.len() + all.len() + data.len() > max_bytes {
            return Err(ReadError::TooLarge);
        }
        if first.is_empty() && all.is_empty() {
            first = data;
        } else {
            all.extend_from_slice(&std::mem::take(&mut first));
            all.extend_from_slice(&data);
        }
    }
}

/// Why a body could not be read.
#[derive(Debug)]
pub(super) enum ReadError {
    Silent,
    Cut(reqwest::Error),
    TooLarge,
}

fn too_long() -> ProviderError {
    unreadable("the answer is far longer than was asked for")
}

pub(super) fn unreadable(reason: &'static str) -> ProviderError {
    ProviderError::Unreadable {
        reason: reason.into(),
    }
}
