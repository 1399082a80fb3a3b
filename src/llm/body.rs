//! The body of a streamed answer on its way to `async-openai`, which reads events and nothing else. What that reader
//! does not do happens here, on the bytes before it: they are counted, checked to be text, held back while nobody
//! listens, and how they ended is noted for [`super::stream`].

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use hyper::body::{Body, Frame};

use super::{BoxError, ProviderError};

/// Bytes of one streamed answer, everything around the text included.
const MAX_STREAM_BYTES: usize = 64 * 1024 * 1024;

/// Bytes of one event, at most.
const MAX_EVENT_BYTES: usize = 256 * 1024;

/// Bytes that are read while the listener is busy. The reader's queue has no limit of its own.
const MAX_AHEAD_BYTES: usize = 64 * 1024;

/// The reader copies what is left of a piece for every line in it, so pieces are small.
const PIECE_BYTES: usize = 4096;

/// What a connection may still bring after the end, to be used again.
const DRAIN_LIMIT: Duration = Duration::from_secs(1);

/// The reader panics over this mark; it says nothing.
const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

/// What the reader of a body and its listener, who are in different tasks, know of each other.
#[derive(Default)]
pub(super) struct Reading(Mutex<State>);

#[derive(Default)]
struct State {
    /// Bytes that were read since the listener last waited.
    ahead_bytes: usize,
    /// Waits until the listener has caught up.
    reader: Option<Waker>,
    /// Waits for the next event.
    listener: Option<Waker>,
    /// The listener wants no more.
    is_abandoned: bool,
    /// The server does not stream: everything comes at once.
    is_whole: bool,
    end: BodyEnd,
}

/// How a body ended.
#[derive(Debug, Default)]
pub(super) enum BodyEnd {
    /// It did not: the reader had its last event and wanted no more.
    #[default]
    Unread,
    /// As HTTP has it.
    Proper {
        /// In the middle of an event, all the same.
        in_event: bool,
    },
    /// The connection was cut.
    Cut,
    /// It broke a rule.
    Refused(ProviderError),
}

impl Reading {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The listener has heard everything and waits.
    pub(super) fn wait(&self, listener: &Waker) {
        let mut state = self.state();
        state.ahead_bytes = 0;
        state.listener = Some(listener.clone());
        if let Some(reader) = state.reader.take() {
            reader.wake();
        }
    }

    /// The server does not stream, so that its first token comes with the last.
    pub(super) fn expect_whole(&self) {
        self.state().is_whole = true;
    }

    pub(super) fn is_whole(&self) -> bool {
        self.state().is_whole
    }

    /// Nobody listens any more: the connection is to be closed.
    pub(super) fn abandon(&self) {
        self.state().is_abandoned = true;
    }

    /// Whether an event that cannot be read may be one that was cut.
    pub(super) fn ended_in_event(&self) -> bool {
        matches!(self.state().end, BodyEnd::Proper { in_event: true })
    }

    /// How the body ended, once the reader is done.
    pub(super) fn take_end(&self) -> BodyEnd {
        std::mem::take(&mut self.state().end)
    }

    pub(super) fn set_end(&self, end: BodyEnd) {
        self.state().end = end;
    }

    fn is_abandoned(&self) -> bool {
        self.state().is_abandoned
    }

    /// Whether the reader may have more now; it is woken when it may.
    fn may_read(&self, reader: &Waker) -> bool {
        let mut state = self.state();
        if state.ahead_bytes <= MAX_AHEAD_BYTES {
            return true;
        }
        state.reader = Some(reader.clone());
        // What was read may hold no event, so that the listener slept through it.
        if let Some(listener) = state.listener.take() {
            listener.wake();
        }
        false
    }
}

/// A body that is passed on within its limits, in pieces of whole characters.
pub(super) struct WatchedBody {
    /// None once it has ended.
    body: Option<reqwest::Body>,
    reading: Arc<Reading>,
    /// Read, not yet passed on.
    rest: Bytes,
    received_bytes: usize,
    /// Bytes of the event that has not ended.
    event_bytes: usize,
    is_line_start: bool,
}

impl WatchedBody {
    pub(super) fn new(body: reqwest::Body, reading: Arc<Reading>) -> Self {
        Self {
            body: Some(body),
            reading,
            rest: Bytes::new(),
            received_bytes: 0,
            event_bytes: 0,
            is_line_start: true,
        }
    }

    /// The next piece, if enough of it is here.
    fn take_piece(&mut self) -> Result<Option<Bytes>, ProviderError> {
        let piece = &self.rest[..self.rest.len().min(PIECE_BYTES)];
        let text_bytes = match std::str::from_utf8(piece) {
            Ok(text) => text.len(),
            Err(error) if error.valid_up_to() == 0 && error.error_len().is_some() => {
                return Err(ProviderError::unreadable("the answer is not text"));
            }
            Err(error) => error.valid_up_to(),
        };
        let mut piece = self.rest.split_to(text_bytes);
        if self.received_bytes == 0 && piece.starts_with(BYTE_ORDER_MARK) {
            piece = piece.slice(BYTE_ORDER_MARK.len()..);
        }
        self.received_bytes += text_bytes;
        self.count_event(&piece);
        if self.received_bytes > MAX_STREAM_BYTES || self.event_bytes > MAX_EVENT_BYTES {
            return Err(ProviderError::unreadable(
                "the answer is far longer than was asked for",
            ));
        }
        Ok(Some(piece).filter(|piece| !piece.is_empty()))
    }

    /// Counts the bytes since the last blank line.
    fn count_event(&mut self, piece: &[u8]) {
        for line in piece.split_inclusive(|byte| *byte == b'\n') {
            let is_blank = self.is_line_start && matches!(line, b"\n" | b"\r\n" | b"\r");
            let is_ended = line.ends_with(b"\n");
            self.event_bytes = if is_blank && is_ended {
                0
            } else {
                self.event_bytes + line.len()
            };
            self.is_line_start = is_ended || is_blank;
        }
    }

    fn end(&mut self, end: BodyEnd) {
        self.body = None;
        self.reading.set_end(end);
    }
}

impl Body for WatchedBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        if !this.reading.may_read(context.waker()) {
            return Poll::Pending;
        }
        loop {
            match this.take_piece() {
                Ok(Some(piece)) => {
                    this.reading.state().ahead_bytes += piece.len();
                    return Poll::Ready(Some(Ok(Frame::data(piece))));
                }
                Ok(None) => {}
                Err(error) => {
                    this.end(BodyEnd::Refused(error));
                    return Poll::Ready(Some(Err("the answer broke a rule".into())));
                }
            }
            let Some(body) = &mut this.body else {
                return Poll::Ready(None);
            };
            match ready!(Pin::new(body).poll_frame(context)) {
                Some(Ok(frame)) => this.rest = joined(&this.rest, frame.into_data().unwrap_or_default()),
                Some(Err(_)) => {
                    this.end(BodyEnd::Cut);
                    return Poll::Ready(Some(Err("the connection was cut".into())));
                }
                None => {
                    let in_event = this.event_bytes > 0 || !this.rest.is_empty();
                    this.end(BodyEnd::Proper { in_event });
                    this.rest = Bytes::new();
                    // A last event may lack its blank line, without which the reader would leave it out.
                    return Poll::Ready(in_event.then(|| Ok(Frame::data(Bytes::from_static(b"\n\n")))));
                }
            }
        }
    }
}

impl Drop for WatchedBody {
    fn drop(&mut self) {
        let Some(body) = self.body.take() else {
            return;
        };
        if std::thread::panicking() {
            self.reading.set_end(BodyEnd::Cut);
        } else if !self.reading.is_abandoned() {
            reuse_connection(body);
        }
    }
}

/// `rest`, which is less than a character, and what came after it.
fn joined(rest: &Bytes, data: Bytes) -> Bytes {
    if rest.is_empty() {
        return data;
    }
    let mut joined = BytesMut::with_capacity(rest.len() + data.len());
    joined.extend_from_slice(rest);
    joined.extend_from_slice(&data);
    joined.freeze()
}

/// Reads what little follows the end, so that the connection goes back to the pool instead of being closed.
fn reuse_connection(mut body: reqwest::Body) {
    let drain = async move {
        while let Some(Ok(_)) = std::future::poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await
        {
        }
    };
    // The service may be about to stop.
    let Ok(runtime) = tokio::runtime::Handle::try_current() else {
        return;
    };
    let mut drain = Box::pin(tokio::time::timeout(DRAIN_LIMIT, drain));
    // Mostly the end is here already, and no task is needed.
    let mut context = Context::from_waker(Waker::noop());
    if drain.as_mut().poll(&mut context).is_pending() {
        runtime.spawn(drain);
    }
}

#[cfg(test)]
mod tests;
