//! A running answer: what `async-openai` reads becomes events, within the time limits and as long as was asked for.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_openai::error::OpenAIError;
use futures::Stream;
use futures::stream::BoxStream;
use tokio::time::{Instant, Sleep};

use super::body::{BodyEnd, Reading};
use super::transport::provider_error;
use super::wire::Answer;
use super::{FinishReason, ModelEvent, Phase, ProviderError, TokenUsage, retry};

/// How long usage and the end are waited for once the model said that it is done.
const END_GRACE: Duration = Duration::from_secs(2);

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

impl Bounds {
    /// When the first token must have come, and which limit that is.
    pub(super) fn first_limit(&self) -> (Instant, Phase) {
        self.nearest(self.first_token, Phase::FirstToken)
    }

    fn nearest(&self, until: Instant, phase: Phase) -> (Instant, Phase) {
        if until < self.total {
            (until, phase)
        } else {
            (self.total, Phase::Total)
        }
    }
}

/// A response as a stream of events. Dropping it closes the connection.
pub(super) struct AnswerStream {
    /// None once everything that counts has come.
    upstream: Option<Upstream>,
    bounds: Bounds,
    /// Rings at the latest when the next limit runs out; set later only when it rings.
    alarm: Pin<Box<Sleep>>,
    progress: Progress,
    ready: VecDeque<ModelEvent>,
    failed: Option<ProviderError>,
}

/// What the crate reads, in a task of its own that ends when this is dropped.
struct Upstream {
    answers: BoxStream<'static, Result<Answer, OpenAIError>>,
    reading: Arc<Reading>,
}

impl Upstream {
    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Answer, OpenAIError>>> {
        let next = self.answers.as_mut().poll_next(context);
        if next.is_pending() {
            self.reading.wait(context.waker());
        }
        next
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.reading.abandon();
    }
}

/// How far the answer has come.
struct Progress {
    stage: Stage,
    last_event: Instant,
    text_bytes: usize,
    usage: Option<TokenUsage>,
    finish: Option<FinishReason>,
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
    pub(super) fn new(
        answers: BoxStream<'static, Result<Answer, OpenAIError>>,
        reading: Arc<Reading>,
        mut bounds: Bounds,
    ) -> Self {
        if reading.is_whole() {
            bounds.first_token = bounds.total;
        }
        Self {
            upstream: Some(Upstream { answers, reading }),
            bounds,
            alarm: Box::pin(tokio::time::sleep_until(bounds.first_limit().0)),
            progress: Progress {
                stage: Stage::Waiting,
                last_event: Instant::now(),
                text_bytes: 0,
                usage: None,
                finish: None,
            },
            ready: VecDeque::new(),
            failed: None,
        }
    }

    /// Puts an event that was taken out back in front.
    pub(super) fn put_back(&mut self, event: ModelEvent) {
        self.ready.push_front(event);
    }

    fn take_in(&mut self, read: Result<Answer, OpenAIError>) {
        let before = (self.progress.stage, self.progress.finish);
        let taken = match read {
            Ok(answer) => self.progress.take_in(answer, &self.bounds, &mut self.ready),
            // An event without data says nothing.
            Err(OpenAIError::JSONDeserialize(_, data)) if data.is_empty() => return,
            Err(error) => Err(self.failure(error)),
        };
        let now = Instant::now();
        self.progress.last_event = now;
        if let Err(error) = taken {
            return self.fail(error);
        }
        let (limit, phase) = self.limit();
        if limit <= now {
            // A server that never pauses never lets the alarm ring.
            self.time_is_up(phase);
        } else if before != (self.progress.stage, self.progress.finish) {
            // The limits are others now, and may be nearer.
            self.alarm.as_mut().reset(limit);
        }
    }

    /// What an error of the reader is: of the body, if that has failed.
    fn failure(&self, error: OpenAIError) -> ProviderError {
        let reading = self.upstream.as_ref().map(|upstream| &upstream.reading);
        match (error, reading) {
            (OpenAIError::StreamError(_), Some(reading)) => match reading.take_end() {
                BodyEnd::Refused(error) => error,
                _ => self.cut(),
            },
            (OpenAIError::JSONDeserialize(..), Some(reading)) if reading.ended_in_event() => self.cut(),
            (error, _) => provider_error(error),
        }
    }

    /// The reader is done.
    fn reader_ended(&mut self) {
        let end = self
            .upstream
            .take()
            .map(|upstream| upstream.reading.take_end())
            .unwrap_or_default();
        // A reader that wanted no more has seen `[DONE]`.
        if self.progress.finish.is_some() || matches!(end, BodyEnd::Unread) {
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
        let progress = &self.progress;
        if progress.finish.is_some() {
            self.bounds.nearest(progress.last_event + END_GRACE, Phase::Idle)
        } else if progress.stage == Stage::Waiting {
            self.bounds.first_limit()
        } else {
            self.bounds
                .nearest(progress.last_event + self.bounds.idle, Phase::Idle)
        }
    }

    fn time_is_up(&mut self, phase: Phase) {
        if self.progress.finish.is_some() {
            self.end();
        } else {
            self.fail(ProviderError::TimedOut { phase });
        }
    }

    fn fail(&mut self, error: ProviderError) {
        self.upstream = None;
        self.failed = Some(error);
    }

    /// The answer is whole.
    fn end(&mut self) {
        self.upstream = None;
        self.ready
            .extend(self.progress.usage.take().map(ModelEvent::Usage));
        self.ready.push_back(ModelEvent::Finished(
            self.progress.finish.unwrap_or(FinishReason::Stop),
        ));
    }
}

impl Progress {
    /// Takes one event in.
    fn take_in(
        &mut self,
        mut answer: Answer,
        bounds: &Bounds,
        ready: &mut VecDeque<ModelEvent>,
    ) -> Result<(), ProviderError> {
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
                return Err(ProviderError::unreadable(
                    "the answer is far longer than was asked for",
                ));
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
        loop {
            if let Some(event) = this.ready.pop_front() {
                return Poll::Ready(Some(Ok(event)));
            }
            if let Some(error) = this.failed.take() {
                return Poll::Ready(Some(Err(error)));
            }
            let Some(upstream) = &mut this.upstream else {
                return Poll::Ready(None);
            };
            match upstream.poll_next(context) {
                Poll::Ready(Some(read)) => this.take_in(read),
                Poll::Ready(None) => this.reader_ended(),
                Poll::Pending => {
                    ready!(this.alarm.as_mut().poll(context));
                    let (limit, phase) = this.limit();
                    if limit <= Instant::now() {
                        this.time_is_up(phase);
                    } else {
                        this.alarm.as_mut().reset(limit);
                    }
                }
            }
        }
    }
}
