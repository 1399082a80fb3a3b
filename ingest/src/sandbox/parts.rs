//! A document that comes from an extractor process part by part.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::OwnedSemaphorePermit;

use super::pool::Shared;
use super::process::{Body, Process};
use super::protocol::{Part, Reply};
use crate::part::{self, Joined};
use crate::{ExtractError, ExtractedDocument, Format};

/// Messages from this size on take milliseconds to decode, which must not hold up the other tasks.
const DECODE_ASIDE_FROM_BYTES: usize = 512 << 10;

/// A document in parts. See [`ExtractorPool::extract_parts`](super::ExtractorPool::extract_parts).
#[derive(Debug)]
pub struct DocumentParts {
    ready: VecDeque<ExtractedDocument>,
    /// Where further parts come from; none after the last one.
    rest: Option<(Exchange, OwnedSemaphorePermit)>,
}

impl DocumentParts {
    /// Of which `message` is the first part.
    pub(super) async fn begin(
        exchange: Exchange,
        message: Vec<u8>,
        slot: OwnedSemaphorePermit,
    ) -> Result<Self, ExtractError> {
        let (part, exchange) = exchange.take(message).await?;
        Ok(Self {
            ready: VecDeque::from([part]),
            rest: exchange.map(|exchange| (exchange, slot)),
        })
    }

    /// Of a document that was read whole.
    pub fn of(document: ExtractedDocument) -> Self {
        let mut ready = VecDeque::new();
        let last = part::split(document, |part| ready.push_back(part));
        ready.push_back(last);
        Self { ready, rest: None }
    }

    /// Whether another part comes.
    pub fn has_more(&self) -> bool {
        self.rest.is_some() || !self.ready.is_empty()
    }

    /// The next part; none after the last one. After an error there is nothing more.
    pub async fn next(&mut self) -> Result<Option<ExtractedDocument>, ExtractError> {
        if let Some(part) = self.ready.pop_front() {
            return Ok(Some(part));
        }
        let Some((mut exchange, slot)) = self.rest.take() else {
            return Ok(None);
        };
        let message = exchange.message().await?;
        let (part, exchange) = exchange.take(message).await?;
        self.rest = exchange.map(|exchange| (exchange, slot));
        Ok(Some(part))
    }

    /// All parts as one document.
    pub async fn join(mut self) -> Result<ExtractedDocument, ExtractError> {
        let mut joined = Joined::default();
        while let Some(part) = self.next().await? {
            joined.add(part);
        }
        Ok(joined.finish())
    }

    /// [`DocumentParts::join`] of what an exchange gives, whose place in the pool its caller holds.
    pub(super) async fn join_all(
        exchange: Exchange,
        message: Vec<u8>,
    ) -> Result<ExtractedDocument, ExtractError> {
        let mut joined = Joined::default();
        let (part, mut rest) = exchange.take(message).await?;
        joined.add(part);
        while let Some(mut exchange) = rest {
            let message = exchange.message().await?;
            let (part, next) = exchange.take(message).await?;
            joined.add(part);
            rest = next;
        }
        Ok(joined.finish())
    }
}

/// One document's stay with a process. Dropped before its end, it ends the process.
#[derive(Debug)]
pub(super) struct Exchange {
    shared: Arc<Shared>,
    process: Process,
    format: Format,
    body_bytes: u64,
    /// Of waiting for the process; what the caller does in between does not count.
    time_left: Duration,
    bytes_left: u64,
}

impl Exchange {
    pub(super) fn new(
        shared: &Arc<Shared>,
        process: Process,
        (format, body_bytes): (Format, u64),
        max_bytes: u64,
    ) -> Self {
        Self {
            shared: Arc::clone(shared),
            process,
            format,
            body_bytes,
            time_left: shared.limits.timeout,
            bytes_left: max_bytes,
        }
    }

    /// Sends the request and waits for the first message. After an error the process is dead.
    pub(super) async fn begin(&mut self, head: &[u8], body: &mut Body<'_>) -> Result<Vec<u8>, ExtractError> {
        let began = Instant::now();
        let sent = self
            .process
            .send(head, body, &self.shared.limits, self.time_left)
            .await;
        self.time_left = self.time_left.saturating_sub(began.elapsed());
        sent.inspect_err(|error| self.tell_of_death(error))?;
        self.message().await
    }

    /// The next message. After an error the process is dead.
    pub(super) async fn message(&mut self) -> Result<Vec<u8>, ExtractError> {
        let began = Instant::now();
        let message = self
            .process
            .receive(&self.shared.limits, self.time_left, &mut self.bytes_left)
            .await;
        self.time_left = self.time_left.saturating_sub(began.elapsed());
        message.inspect_err(|error| self.tell_of_death(error))
    }

    /// Reads a message as a part; the exchange comes back unless that was the last one.
    async fn take(self, message: Vec<u8>) -> Result<(ExtractedDocument, Option<Self>), ExtractError> {
        match decode(message).await {
            Ok(Part { document, is_last }) if is_last => {
                self.end();
                Ok((document, None))
            }
            Ok(Part { document, .. }) => Ok((document, Some(self))),
            Err(ExtractError::Crashed) => {
                // A panic may leave anything behind.
                tracing::warn!(
                    format = self.format.as_str(),
                    "an extractor panicked on a document"
                );
                Err(ExtractError::Crashed)
            }
            Err(error) => {
                self.end();
                Err(error)
            }
        }
    }

    /// The process is done with the document.
    pub(super) fn end(mut self) {
        self.process.count_document();
        if self.process.may_be_kept(self.body_bytes) {
            Shared::keep(&self.shared, self.process);
        }
    }

    fn tell_of_death(&self, error: &ExtractError) {
        tracing::warn!(
            format = self.format.as_str(),
            code = error.code(),
            "an extractor process died"
        );
    }
}

async fn decode(message: Vec<u8>) -> Reply {
    let decoded = if message.len() < DECODE_ASIDE_FROM_BYTES {
        serde_json::from_slice(&message).map_err(std::io::Error::from)
    } else {
        tokio::task::spawn_blocking(move || serde_json::from_slice(&message).map_err(std::io::Error::from))
            .await
            .unwrap_or_else(|error| Err(std::io::Error::other(error)))
    };
    decoded.unwrap_or_else(|error| {
        tracing::warn!(%error, "an extractor gave a reply that cannot be read");
        Err(ExtractError::Crashed)
    })
}
