//! The body of a request from a client that must not take for ever: neither silent nor drop by drop.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until};

/// Longest silence in the middle of a body.
const SILENCE_LIMIT: Duration = Duration::from_secs(30);

/// A whole body may keep us waiting so long, and longer only for what it brings.
const WAITING_LIMIT: Duration = Duration::from_secs(30);

/// What buys another second of waiting. Slower lines than this are slower than any modem.
const LEAST_BYTES_PER_SECOND: f64 = 4096.0;

/// Why such a body ended.
#[derive(Debug, thiserror::Error)]
#[error("the body comes too slowly")]
pub struct TooSlow;

/// A body that fails as [`TooSlow`] when it makes us wait for too long. Only waiting counts: what we do ourselves between
/// two pieces costs the client nothing.
pub(super) struct Paced<B> {
    body: B,
    received_bytes: f64,
    waited: Duration,
    /// Runs while a piece is being waited for, since the time beside it.
    waiting: Option<(Instant, Pin<Box<Sleep>>)>,
}

impl<B> Paced<B> {
    pub(super) fn new(body: B) -> Self {
        Self {
            body,
            received_bytes: 0.0,
            waited: Duration::ZERO,
            waiting: None,
        }
    }

    /// How long the next piece may take.
    fn patience(&self) -> Duration {
        let earned = Duration::from_secs_f64(self.received_bytes / LEAST_BYTES_PER_SECOND);
        (WAITING_LIMIT + earned)
            .saturating_sub(self.waited)
            .min(SILENCE_LIMIT)
    }
}

impl<B> Body for Paced<B>
where
    B: Body<Data = Bytes, Error: std::error::Error + Send + Sync + 'static> + Unpin,
{
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) {
            if let Some((since, _)) = self.waiting.take() {
                self.waited += since.elapsed();
            }
            if let Some(Ok(frame)) = &frame {
                self.received_bytes += frame.data_ref().map_or(0, Bytes::len) as f64;
            }
            return Poll::Ready(frame.map(|frame| frame.map_err(axum::Error::new)));
        }
        let patience = self.patience();
        let (_, end) = self.waiting.get_or_insert_with(|| {
            let now = Instant::now();
            (now, Box::pin(sleep_until(now + patience)))
        });
        match end.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(Some(Err(axum::Error::new(TooSlow)))),
            Poll::Pending => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Whether a body ended because it came too slowly.
pub fn is_too_slow(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if error.is::<TooSlow>() {
            return true;
        }
        cause = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures::StreamExt as _;
    use http_body_util::{BodyExt as _, StreamBody};

    use super::*;

    /// A body of `pieces`, each of `size` bytes, with `pause` before each.
    fn body(
        pieces: usize,
        size: usize,
        pause: Duration,
    ) -> Paced<impl Body<Data = Bytes, Error = Infallible> + Unpin> {
        let pieces = futures::stream::iter(0..pieces).then(move |_| async move {
            tokio::time::sleep(pause).await;
            Ok(Frame::data(Bytes::from(vec![b'x'; size])))
        });
        Paced::new(StreamBody::new(Box::pin(pieces)))
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_drips_is_given_up_after_a_while_however_long_it_would_go_on() {
        let started = Instant::now();

        let Err(error) = body(100_000, 1, Duration::from_secs(10)).collect().await else {
            panic!("it was waited for to the end");
        };

        assert!(is_too_slow(&error));
        assert!(
            started.elapsed() <= Duration::from_secs(31),
            "{:?}",
            started.elapsed()
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_body_is_given_up() {
        let error = body(1, 1, Duration::from_secs(3600)).collect().await.err();

        assert!(error.is_some_and(|error| is_too_slow(&error)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_line_that_goes_on_sending_may_take_its_time() {
        let received = body(600, 8192, Duration::from_secs(1))
            .collect()
            .await
            .expect("received");

        assert_eq!(received.to_bytes().len(), 600 * 8192);
    }
}
