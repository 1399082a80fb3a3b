//! Vectors for chunks, bought within the budget, booked, and stored in the index.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::time::{Duration, Instant};

use retrieval::embed::{EmbedError, estimate_tokens};
use retrieval::index::Point;

use super::Work;
use super::store;
use crate::app::{App, Space};
use crate::error::{Error, Result};
use crate::id::{ChatbotId, SyncRunId, TenantId};
use crate::knowledge::cut::{CutChunk, as_i64};
use crate::knowledge::embedding_cache::{self, Recalled, Role};
use crate::knowledge::search::{denied, embed_error};
use crate::usage::{self, Reservation, UsageEvent};

/// Chunks that are embedded and stored in the index at once.
pub(in crate::knowledge) const EMBEDDED_AT_ONCE: usize = 256;

/// When a model that cannot be loaded is tried again.
const NO_MODEL_RETRY: Duration = Duration::from_secs(600);

/// What the ledger says where no conversation is involved.
pub(super) const CHANNEL: &str = "ingest";

/// For whom chunks are embedded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::knowledge) struct Payer {
    pub tenant_id: TenantId,
    pub chatbot_id: ChatbotId,
    /// The run that counts the calls.
    pub run_id: Option<SyncRunId>,
}

/// Embeds chunks that the index does not hold yet, of one payer, and stores them there; at most
/// [`EMBEDDED_AT_ONCE`]. The old version stays answerable.
///
/// What is returned is not stored yet: where the index lies in the database of the rows, the transaction that writes these is to
/// put it in.
pub(super) async fn add_to_index(
    app: &App,
    payer: Payer,
    group: &[(&Work, &CutChunk)],
) -> Result<Vec<Point>> {
    let Some((first, _)) = group.first() else {
        return Ok(Vec::new());
    };
    let space = &first.space;
    let vectors = match &space.model {
        Some(_) => {
            let texts = group
                .iter()
                .map(|(_, chunk)| chunk.embedding_text.clone())
                .collect();
            let estimate = group.iter().map(|(_, chunk)| estimate_of(chunk)).sum();
            embed(app, space, payer, texts, estimate)
                .await?
                .into_iter()
                .map(Some)
                .collect()
        }
        None => vec![None; group.len()],
    };
    let points = group
        .iter()
        .zip(vectors)
        .map(|((work, chunk), vector)| Point {
            chunk_id: retrieval::ChunkId(chunk.row.id.0),
            document_id: retrieval::DocumentId(work.id.0),
            source_id: work.cut.in_index(),
            text: chunk.embedding_text.clone(),
            vector,
            facets: work.facets.clone(),
        })
        .collect();
    app.disk.check_room()?;
    if space.index_with_rows().is_some() {
        return Ok(points);
    }
    let stored = space.index.upsert(retrieval::TenantId(payer.tenant_id.0), points);
    stored.await?;
    Ok(Vec::new())
}

/// Embeds texts of about `estimate` tokens with the model of `space`, within the tenant's budget, and books it. What was
/// embedded before is not bought again, and what was answered is kept also where the rest failed.
pub(in crate::knowledge) async fn embed(
    app: &App,
    space: &Space,
    payer: Payer,
    texts: Vec<String>,
    estimate: i64,
) -> Result<Vec<Vec<f32>>> {
    let embedder = space.embedder.as_deref().ok_or_else(|| Error::Unavailable {
        code: "embedding_unavailable",
        message: "the embedding model that answers this tenant cannot be loaded any more: it goes on when its new generation is live".into(),
        retry_after: NO_MODEL_RETRY,
        source: None,
    })?;
    let known = (Role::Document, texts.iter().map(String::as_str));
    let mut recalled = embedding_cache::recall(app, payer.tenant_id, space, known).await?;
    let Repeats {
        first: missing,
        again,
    } = Repeats::among(&texts, recalled.missing());
    let asked_estimate = share_of(estimate, &texts, &missing);
    let mut call = Call {
        app,
        space,
        payer,
        cached_tokens: estimate - asked_estimate,
        reservation: None,
        started: Instant::now(),
    };
    if missing.is_empty() {
        call.book(Some((0, false)), &recalled, &[]).await?;
        return Ok(recalled.vectors.into_iter().flatten().collect());
    }
    let now = app.clock.now();
    let trial = space.denial.trial(now);
    let trial = trial.map_err(|reason| denied(&reason, space.denial.pause(now)))?;
    call.reserve(asked_estimate).await?;
    call.started = Instant::now();
    let asked = missing.iter().map(|place| texts[*place].clone()).collect();
    let asker = retrieval::TenantId(payer.tenant_id.0).into();
    let mut answered = embedder.embed_documents(asker, asked).await;
    let now = app.clock.now();
    let why_to_wait = trial.judge(&answered, now);
    // Some requests of a bulk may have been answered before one failed: they are paid for as well.
    let (spent, vectors) = match &mut answered {
        Ok(embeddings) => {
            let vectors = std::mem::take(&mut embeddings.vectors);
            let spent = (embeddings.tokens, embeddings.reported);
            (Some(spent), vectors.into_iter().map(Some).collect())
        }
        Err(error) => (call.spent(error, asked_estimate), error.take_answered()),
    };
    let answers = missing.into_iter().zip(vectors);
    let new: Vec<(usize, Vec<f32>)> = answers
        .filter_map(|(place, vector)| Some((place, vector?)))
        .collect();
    call.book(spent, &recalled, &new).await?;
    answered.map_err(|error| match why_to_wait {
        Some(reason) => denied(&reason, space.denial.pause(now)),
        None => embed_error(error),
    })?;
    for (place, vector) in new {
        recalled.vectors[place] = Some(vector);
    }
    for (place, first) in again {
        recalled.vectors[place] = recalled.vectors[first].clone();
    }
    Ok(recalled.vectors.into_iter().flatten().collect())
}

/// One call for texts of a payer, in the books.
struct Call<'a> {
    app: &'a App,
    space: &'a Space,
    payer: Payer,
    /// Of texts that need not be asked for.
    cached_tokens: i64,
    reservation: Option<Reservation>,
    started: Instant,
}

impl Call<'_> {
    const fn holders(&self) -> (TenantId, ChatbotId) {
        (self.payer.tenant_id, self.payer.chatbot_id)
    }

    fn event(&self, tokens: u64, reported: bool) -> UsageEvent {
        let took = self.started.elapsed();
        UsageEvent::embedding(
            self.app,
            self.space,
            self.holders(),
            CHANNEL,
            tokens,
            reported,
            took,
        )
    }

    /// What a failed call took: as it was reserved, where nobody knows.
    fn spent(&self, error: &EmbedError, reserved: i64) -> Option<(u64, bool)> {
        let (tokens, reported) = error.spent();
        if tokens == 0 && self.space.is_remote && error.may_have_cost() {
            return Some((reserved.unsigned_abs(), false));
        }
        (tokens > 0).then_some((tokens, reported))
    }

    /// Reserves what about so many tokens cost.
    async fn reserve(&mut self, estimate: i64) -> Result<()> {
        let (app, space, holders) = (self.app, self.space, self.holders());
        let mut expected = self.event(estimate.unsigned_abs(), false);
        (expected.estimated, expected.latency_ms) = (true, 0);
        let mut write = app.db.write(holders.0).await?;
        let limits = usage::load_limits(&mut write, holders.0, holders.1).await?;
        usage::check_embedding_priced(app, space, &limits)?;
        let spend = expected.spend();
        let calls = if space.is_remote {
            vec![expected]
        } else {
            Vec::new()
        };
        let now = app.clock.now();
        self.reservation = usage::reserve(&mut write, &limits, holders, spend, calls, now).await?;
        write.commit().await
    }

    /// Books what was `spent`, and keeps what came of it.
    async fn book(
        &mut self,
        spent: Option<(u64, bool)>,
        recalled: &Recalled,
        new: &[(usize, Vec<f32>)],
    ) -> Result<()> {
        let (app, (tenant_id, chatbot_id)) = (self.app, self.holders());
        let event = spent.map(|(tokens, reported)| UsageEvent {
            cached_tokens: self.cached_tokens,
            ..self.event(tokens, reported)
        });
        let events: Vec<UsageEvent> = event.into_iter().collect();
        let mut write = app.db.write(tenant_id).await?;
        let reservation = self.reservation.take();
        let now = app.clock.now();
        usage::settle(&mut write, tenant_id, chatbot_id, reservation, &events, now).await?;
        let vectors = new.iter().map(|(place, vector)| (*place, vector.as_slice()));
        let kept = embedding_cache::keep(app, &mut write, tenant_id, self.space, recalled, vectors).await?;
        if let Some(run_id) = self.payer.run_id.filter(|_| spent.is_some() && !new.is_empty()) {
            store::count_embedding_call(&mut write, tenant_id, run_id).await?;
        }
        write.commit().await?;
        embedding_cache::added(app, kept);
        Ok(())
    }
}

/// Places of texts, each text once: a boilerplate that many chunks are is one text.
#[derive(Debug, PartialEq, Eq)]
struct Repeats {
    first: Vec<usize>,
    /// Places of those that are there again, each with the first one's.
    again: Vec<(usize, usize)>,
}

impl Repeats {
    fn among(texts: &[String], places: Vec<usize>) -> Self {
        let mut first_of: HashMap<&str, usize> = HashMap::with_capacity(places.len());
        let mut repeats = Self {
            first: Vec::with_capacity(places.len()),
            again: Vec::new(),
        };
        for place in places {
            match first_of.entry(&texts[place]) {
                Entry::Occupied(first) => repeats.again.push((place, *first.get())),
                Entry::Vacant(new) => {
                    new.insert(place);
                    repeats.first.push(place);
                }
            }
        }
        repeats
    }
}

/// What of `estimate` falls to the texts at `places`, by their lengths.
fn share_of(estimate: i64, texts: &[String], places: &[usize]) -> i64 {
    let all: usize = texts.iter().map(String::len).sum();
    let asked: usize = places.iter().map(|place| texts[*place].len()).sum();
    if asked == all {
        return estimate;
    }
    (estimate as f64 * asked as f64 / all as f64).ceil() as i64
}

fn estimate_of(chunk: &CutChunk) -> i64 {
    let heading = chunk.row.heading.as_deref().map_or(0, estimate_tokens);
    chunk.row.token_count + as_i64(heading)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_texts_are_one() {
        let texts = ["known", "a", "b", "a", "known", "a"].map(str::to_owned);

        let repeats = Repeats::among(&texts, vec![1, 2, 3, 5]);

        let expected = Repeats {
            first: vec![1, 2],
            again: vec![(3, 1), (5, 1)],
        };
        assert_eq!(repeats, expected);
    }

    #[test]
    fn an_estimate_is_shared_by_length_and_never_less_than_what_is_asked() {
        let texts = ["one".to_owned(), "threes".to_owned(), String::new()];

        assert_eq!(share_of(30, &texts, &[0, 1, 2]), 30);
        assert_eq!(share_of(30, &texts, &[0]), 10);
        assert_eq!(share_of(31, &texts, &[1]), 21);
        assert_eq!(share_of(30, &texts, &[]), 0);
        assert_eq!(share_of(7, &[String::new()], &[0]), 7);
    }
}
