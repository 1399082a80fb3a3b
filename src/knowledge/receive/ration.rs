//! A body that a parser reads ahead of, in rations: it never holds more than one, whatever it is looking for.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use axum::BoxError;
use axum::body::{Body, BodyDataStream};
use bytes::Bytes;
use futures::Stream;

/// Bytes of one ration: the longest headers of a part, and what is read ahead of a file.
pub(super) const RATION_BYTES: usize = 64 * 1024;

/// What is left of the present ration.
#[derive(Clone, Default)]
pub(super) struct Ration(Arc<AtomicUsize>);

impl Ration {
    /// `body`, to be read in rations of this.
    pub(super) fn apply(&self, body: Body) -> Body {
        Body::from_stream(Rationed {
            body: body.into_data_stream(),
            ration: self.clone(),
        })
    }

    /// Hands out a new one.
    pub(super) fn renew(&self) {
        self.0.store(RATION_BYTES, Ordering::Relaxed);
    }

    /// Whether it is used up: who still waits for more waits in vain.
    pub(super) fn is_used_up(&self) -> bool {
        self.0.load(Ordering::Relaxed) == 0
    }
}

struct Rationed {
    body: BodyDataStream,
    ration: Ration,
}

impl Stream for Rationed {
    type Item = Result<Bytes, BoxError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        // Nobody is woken for this: whoever renews the ration asks again.
        if self.ration.is_used_up() {
            return Poll::Pending;
        }
        let piece = ready!(Pin::new(&mut self.body).poll_next(context));
        if let Some(Ok(piece)) = &piece {
            let left = self.ration.0.load(Ordering::Relaxed).saturating_sub(piece.len());
            self.ration.0.store(left, Ordering::Relaxed);
        }
        Poll::Ready(piece.map(|piece| piece.map_err(BoxError::from)))
    }
}
