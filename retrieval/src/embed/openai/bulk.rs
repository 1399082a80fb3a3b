//! A call for many texts: its requests, a few of them at once, and which of its texts are refused.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use futures::{StreamExt, stream};
use tokio::sync::{Mutex, SemaphorePermit};
use tokio::time::{Instant, timeout_at};

use super::{Failure, OpenAiEmbedder, estimate_of};
use crate::BoxFuture;
use crate::embed::{Answered, EmbedError, Embeddings, estimate_tokens};

/// Requests of one bulk that are under way at once.
const REQUESTS_AT_ONCE: usize = 4;

/// Further requests by which a call finds out which of its texts are refused.
const SEARCHING_REQUESTS: usize = 32;

/// A call for many texts, while its requests are under way.
struct Bulk<'a> {
    embedder: &'a OpenAiEmbedder,
    texts: &'a [String],
    deadline: Instant,
    /// No further request begins.
    has_failed: AtomicBool,
    /// Left of [`SEARCHING_REQUESTS`].
    searches: AtomicUsize,
    /// Whether a harmless text is taken; none: nobody asked as yet.
    takes_any: Mutex<Option<bool>>,
}

/// What became of neighbouring texts.
struct Part {
    range: Range<usize>,
    came_to: Result<Embeddings, Failure>,
}

/// The vectors of `texts`, at most `batch_size` of them in a request.
pub(super) async fn embed(
    embedder: &OpenAiEmbedder,
    texts: &[String],
    batch_size: usize,
) -> Result<Embeddings, EmbedError> {
    let bulk = Bulk {
        embedder,
        texts,
        deadline: Instant::now() + embedder.longest_bulk,
        has_failed: AtomicBool::new(false),
        searches: AtomicUsize::new(SEARCHING_REQUESTS),
        takes_any: Mutex::new(None),
    };
    let mut parts = Vec::new();
    if embedder.is_in_doubt.load(Ordering::Relaxed) {
        let checked = bulk.check().await.map_err(Failure::into_error)?;
        parts.extend(checked);
    }
    // Those under way when one fails are waited for, since they are paid for; dropping the stream, with the caller,
    // ends them.
    let of_batches: Vec<Vec<Part>> =
        stream::iter(into_batches(texts, batch_size, embedder.pace.most_tokens()))
            .map(|range| bulk.embed(range))
            .buffered(REQUESTS_AT_ONCE)
            .collect()
            .await;
    joined(
        texts.len(),
        parts.into_iter().chain(of_batches.into_iter().flatten()),
    )
}

impl Bulk<'_> {
    /// Asks for the texts of a range. Where they are refused, and not because anything would be, halves are asked for, and halves
    /// of these, until it is known which of them are at fault.
    fn embed(&self, range: Range<usize>) -> BoxFuture<'_, Vec<Part>> {
        Box::pin(async move {
            let came_to = self.request(range.clone()).await;
            let is_of_texts = |failure: &Failure| failure.of_texts;
            if !came_to.as_ref().is_err_and(is_of_texts) {
                if came_to.is_err() {
                    self.has_failed.store(true, Ordering::Relaxed);
                }
                return vec![Part { range, came_to }];
            }
            let mut parts = match self.check().await {
                Ok(checked) => Vec::from_iter(checked),
                Err(setting) => {
                    let came_to = Err(setting);
                    return vec![Part { range, came_to }];
                }
            };
            if range.len() == 1 || !self.may_search() {
                parts.push(Part { range, came_to });
                return parts;
            }
            let middle = range.start + range.len() / 2;
            parts.extend(self.embed(range.start..middle).await);
            parts.extend(self.embed(middle..range.end).await);
            parts
        })
    }

    /// Finds out, once in a call, whether the server takes a harmless text: what that took, of no text of the call. Where it does
    /// not, no further request begins.
    async fn check(&self) -> Result<Option<Part>, Failure> {
        let mut takes_any = self.takes_any.lock().await;
        match *takes_any {
            Some(true) => Ok(None),
            Some(false) => Err(another_failed()),
            None => {
                let _place = self.place().await?;
                let checked = self.embedder.ask_harmless(self.request_deadline()).await;
                *takes_any = Some(checked.is_ok());
                if checked.is_err() {
                    self.has_failed.store(true, Ordering::Relaxed);
                }
                let came_to = Ok(checked?);
                Ok(Some(Part { range: 0..0, came_to }))
            }
        }
    }

    async fn request(&self, range: Range<usize>) -> Result<Embeddings, Failure> {
        let _place = self.place().await?;
        if self.has_failed.load(Ordering::Relaxed) {
            return Err(another_failed());
        }
        let (texts, began) = (&self.texts[range], Instant::now());
        let asked = self.embedder.request(texts, self.request_deadline()).await;
        let (pace, tokens) = (&self.embedder.pace, estimate_of(texts));
        match &asked {
            Ok(_) => pace.answered(tokens, began.elapsed(), self.embedder.options.timeout),
            Err(failure) if matches!(failure.error, EmbedError::TooLate) => pace.took_too_long(tokens),
            Err(_) => {}
        }
        asked
    }

    /// One of the places that all calls share.
    async fn place(&self) -> Result<SemaphorePermit<'_>, Failure> {
        let place = timeout_at(self.deadline, self.embedder.bulk_places.acquire()).await;
        let place = place.ok().and_then(Result::ok);
        place.ok_or_else(|| EmbedError::unavailable("other calls took all the time that this one has").into())
    }

    /// Of a request that begins now.
    fn request_deadline(&self) -> Instant {
        self.deadline.min(Instant::now() + self.embedder.options.timeout)
    }

    /// Whether two further requests may be spent on finding out which texts are refused.
    fn may_search(&self) -> bool {
        let spend = |left: usize| left.checked_sub(2);
        self.searches
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, spend)
            .is_ok()
    }
}

fn another_failed() -> Failure {
    EmbedError::unavailable("another request of the same call failed").into()
}

/// The answers as one, or what was answered and the failure that says most: one of the server before one of a text, the
/// first before those that followed from it.
fn joined(texts: usize, parts: impl Iterator<Item = Part>) -> Result<Embeddings, EmbedError> {
    let mut answered = Answered {
        vectors: vec![None; texts],
        reported: true,
        ..Answered::default()
    };
    let (mut of_server, mut of_texts) = (None, None);
    let mut is_answered = false;
    for Part { range, came_to } in parts {
        match came_to {
            Ok(part) => {
                is_answered = true;
                for (place, vector) in range.zip(part.vectors) {
                    answered.vectors[place] = Some(vector);
                }
                answered.tokens = answered.tokens.saturating_add(part.tokens);
                answered.reported &= part.reported;
            }
            Err(Failure {
                error,
                of_texts: true,
                ..
            }) => {
                if range.len() == 1 {
                    answered.refused.push(range.start);
                }
                of_texts.get_or_insert(error);
            }
            Err(Failure { error, spent, .. }) => {
                if spent.0 > 0 {
                    is_answered = true;
                    answered.tokens = answered.tokens.saturating_add(spent.0);
                    answered.reported &= spent.1;
                }
                // What may have cost something says most about the whole, and what ends every call more than what followed from it.
                let may_have_cost = of_server.as_ref().is_some_and(EmbedError::may_have_cost);
                let says_more = error.may_have_cost() || (error.denial().is_some() && !may_have_cost);
                if of_server.is_none() || says_more {
                    of_server = Some(error);
                }
            }
        }
    }
    let Some(error) = of_server.or(of_texts) else {
        let vectors = answered.vectors.into_iter().flatten().collect();
        return Ok(Embeddings {
            vectors,
            tokens: answered.tokens,
            reported: answered.reported && texts > 0,
        });
    };
    if !is_answered && answered.refused.is_empty() {
        return Err(error);
    }
    answered.reported &= is_answered;
    Err(EmbedError::Broken {
        answered: Box::new(answered),
        cause: Box::new(error),
    })
}

/// Ranges of neighbouring texts that fit into one request of so many tokens each; a longer text has one of its own.
fn into_batches(texts: &[String], batch_size: usize, most_tokens: usize) -> Vec<Range<usize>> {
    let mut batches: Vec<Range<usize>> = Vec::new();
    let mut tokens_in_last = 0;
    for (place, text) in texts.iter().enumerate() {
        let tokens = estimate_tokens(text);
        match batches.last_mut() {
            Some(last) if last.len() < batch_size && tokens_in_last + tokens <= most_tokens => {
                last.end = place + 1;
                tokens_in_last += tokens;
            }
            _ => {
                batches.push(place..place + 1);
                tokens_in_last = tokens;
            }
        }
    }
    batches
}

#[cfg(test)]
mod tests;
