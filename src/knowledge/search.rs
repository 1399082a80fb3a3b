//! From a question to passages: by meaning and by words in the index, then checked against the rows.

mod boosts;
mod choice;
pub mod context;
pub mod explain;
mod reranking;
pub(super) mod routes;
mod rows;
mod settings;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use retrieval::analysis;
use retrieval::confidence::{Background, Confidence};
use retrieval::embed::EmbedError;
use retrieval::fuse;
use retrieval::index::{Audience, Filter, IndexError, SearchQuery};
use retrieval::operators::Query;

use self::boosts::Boosts;
use self::choice::{Choice, Wanted};
use self::explain::{Stage, StageName, Trace};
use self::rows::Rows;
pub use self::settings::{SearchSettings, SearchSettingsRequest};
use super::degraded::Degradation;
use super::labels::primary_language;
use super::store;
use crate::app::{App, Space};
use crate::chatbots;
use crate::db::Conn;
use crate::error::{Error, Result};
use crate::generations::{self, Live};
use crate::http::access::Reach;
use crate::id::{ChatbotId, ChunkId, ConversationId, DocumentId, MessageId, SourceId, TenantId};
use crate::usage::{self, Hold, Limits, UsageEvent};

/// Candidates asked of the index beyond the wanted passages: some may have lost their rows.
const SPARE_CANDIDATES: usize = 8;

/// Candidates at which a search gives up looking behind those that have no rows.
const MOST_CANDIDATES: usize = 4096;

/// How long a failing index or embedding endpoint is left alone, if it did not say.
const TRY_AGAIN_AFTER: Duration = Duration::from_secs(5);

/// What the ledger says of a search that belongs to no conversation.
const SEARCH_CHANNEL: &str = "search";

/// A chunk that may answer the question.
#[derive(Clone, Debug)]
pub struct Passage {
    pub chunk_id: ChunkId,
    pub document_id: DocumentId,
    pub source_id: SourceId,
    /// Among the chunks of its document.
    pub position: i64,
    /// When the document was published, or else when it came.
    pub dated: DateTime<Utc>,
    pub title: String,
    pub file_name: String,
    /// Where a reader finds the document; none: only here.
    pub url: Option<String>,
    pub text: String,
    pub heading: Option<String>,
    pub page: Option<i64>,
    /// Character offsets in the document's text, end exclusive.
    pub start: i64,
    pub end: i64,
    /// Fused over meaning and words, in (0, 1]; 1: best by each. Compares the passages of one search only. Less where the
    /// owner prefers others.
    pub score: f32,
    /// Cosine similarity to the question; none: found by its words only.
    pub similarity: Option<f32>,
    /// BM25; none: found by its meaning only.
    pub keyword_score: Option<f32>,
    /// How sure one may be that it answers the question; none: nothing tells.
    pub confidence: Option<Confidence>,
    /// In tokens of the answering model; 0: not counted yet.
    pub prompt_tokens: i64,
    /// It was not found: it stands around what was.
    pub is_context: bool,
}

/// What narrows a search further than the chatbot's own sources.
#[derive(Clone, Debug, Default)]
pub struct SearchFilter {
    /// Only these documents.
    pub document_ids: Option<Vec<DocumentId>>,
    /// Only documents in one of these languages, by the first part of their tags.
    pub languages: Option<Vec<String>>,
    /// Only documents with one of these tags.
    pub tags: Option<Vec<String>>,
    /// Only documents published then or later; where they do not say when, since they came.
    pub since: Option<DateTime<Utc>>,
    /// Only documents published before then.
    pub until: Option<DateTime<Utc>>,
    /// Who asks; somebody without any access group unless given.
    pub audience: Audience,
    /// Nothing that a better passage says already.
    pub without_repetitions: bool,
}

/// What a search found.
#[derive(Clone, Debug, Default)]
pub struct SearchResult {
    /// Best first.
    pub passages: Vec<Passage>,
    /// What the search had to do without.
    pub degraded: Vec<Degradation>,
    /// What a reranker took; booked already.
    pub reranked: Option<UsageEvent>,
    /// How they were found; none unless it was asked for.
    pub stages: Option<Vec<Stage>>,
}

/// What to look for.
pub struct Search<'a> {
    pub chatbot_id: ChatbotId,
    /// They narrow what the index is asked for; what may be told is decided by the rows.
    pub sources: Vec<SourceId>,
    pub query: &'a Query,
    /// The query's text; its vector is taken.
    pub embedded: &'a mut EmbeddedQuestion,
    /// Passages, at most.
    pub limit: usize,
    pub filter: SearchFilter,
    pub settings: &'a SearchSettings,
    pub payer: Payer<'a>,
}

/// By whose budget a search is paid, and for what.
#[derive(Clone, Copy, Debug)]
pub struct Payer<'a> {
    pub limits: &'a Limits,
    pub channel: &'a str,
    pub conversation_id: Option<ConversationId>,
    pub message_id: Option<MessageId>,
}

/// A question as the embedding model sees it, and what that took.
#[derive(Clone, Debug)]
pub struct EmbeddedQuestion {
    /// The model that was asked, and where its vectors are: nothing else is compared with it.
    space: Arc<Space>,
    /// All chunks are in its index.
    is_whole: bool,
    /// None: there is no embedding model, or it was not asked, or it did not answer.
    vector: Option<Vec<f32>>,
    /// Tokens that the embedding model read, and whether it said so itself.
    tokens: u64,
    reported: bool,
    latency: Duration,
    /// The embedding model was asked and did not answer.
    is_missing: bool,
}

impl EmbeddedQuestion {
    /// The ledger's line; none when nothing was embedded. While `hold` is kept for the call, it has its id.
    pub fn event(
        &self,
        app: &App,
        holders: (TenantId, ChatbotId),
        channel: &str,
        hold: &Hold,
    ) -> Option<UsageEvent> {
        if self.tokens == 0 {
            return None;
        }
        let mut event = UsageEvent::embedding(
            app,
            &self.space,
            holders,
            channel,
            self.tokens,
            self.reported,
            self.latency,
        );
        if let Some(id) = hold.call_id() {
            event.id = id;
        }
        Some(event)
    }

    /// Books it for itself, where nobody else settles `hold`.
    pub async fn book(
        &self,
        app: &App,
        holders: (TenantId, ChatbotId),
        channel: &str,
        hold: &mut Hold,
    ) -> Result<()> {
        let event = self.event(app, holders, channel, hold);
        if event.is_none() && hold.reservation().is_none() {
            hold.close();
            return Ok(());
        }
        let (tenant_id, chatbot_id) = holders;
        let events: Vec<UsageEvent> = event.into_iter().collect();
        let mut write = app.db.write(tenant_id).await?;
        let reservation = hold.reservation().cloned();
        usage::settle(
            &mut write,
            tenant_id,
            chatbot_id,
            reservation,
            &events,
            app.clock.now(),
        )
        .await?;
        write.commit().await?;
        hold.close();
        Ok(())
    }
}

/// Asks the embedding model that answers for a question's vector, where there is anything to look through.
pub async fn embed_question(live: Live, question: &str, is_needed: bool) -> EmbeddedQuestion {
    let embedder = live.space.embedder.clone();
    let mut embedded = EmbeddedQuestion {
        is_whole: live.is_whole,
        vector: None,
        tokens: 0,
        reported: false,
        latency: Duration::ZERO,
        is_missing: embedder.is_none() && live.space.model.is_some(),
        space: live.space,
    };
    let Some(embedder) = embedder.filter(|_| is_needed) else {
        return embedded;
    };
    let started = Instant::now();
    let asked = embedder.embed_query(question.to_owned()).await;
    embedded.space.is_failing.store(asked.is_err(), Ordering::Relaxed);
    match asked {
        Ok(mut embeddings) => {
            embedded.vector = embeddings.vectors.pop();
            embedded.tokens = embeddings.tokens;
            embedded.reported = embeddings.reported;
            embedded.latency = started.elapsed();
        }
        Err(error) => {
            tracing::warn!(error = ?error, "the embedding model did not answer: searching by words alone");
            embedded.is_missing = true;
        }
    }
    embedded
}

/// The passages that are nearest to the query by its words and its vector, as the chatbot's owner wants them, best first.
pub async fn search_sources(
    app: &App,
    reach: Reach,
    search: Search<'_>,
    mut trace: Trace,
) -> Result<SearchResult> {
    reach.check_chatbot(search.chatbot_id)?;
    let mut found = SearchResult::default();
    if !search.sources.is_empty() && !search.query.text.is_empty() {
        if search.embedded.is_missing {
            Degradation::WORDS_ALONE.note(&mut found.degraded);
        }
        if !search.embedded.is_whole {
            Degradation::INDEX_INCOMPLETE.note(&mut found.degraded);
        }
        let (query, settings, payer) = (search.query, search.settings, search.payer);
        let (chatbot_id, audience) = (search.chatbot_id, search.filter.audience.clone());
        let mut choice = candidates(app, reach, search, &mut trace).await?;
        if settings.rerank
            && let Some(reranker) = app.reranker.as_deref()
        {
            let reranking = reranking::Reranking {
                app,
                holders: (reach.tenant_id, chatbot_id),
                payer,
                reranker,
            };
            found.reranked = reranking
                .run(&query.text, &mut choice, &mut found.degraded, &mut trace)
                .await?;
        }
        found.passages = choice.finish(&mut trace);
        let most_tokens = usize::try_from(settings.context_tokens).unwrap_or_default();
        // A prompt has it; whoever asks how passages were chosen sees what a prompt would have.
        if trace.is_on() && most_tokens > 0 {
            let started = Instant::now();
            let around =
                context::around(app, reach, chatbot_id, &audience, &found.passages, most_tokens).await?;
            trace.add(StageName::Context, started, || {
                around.iter().map(rows::by_tokens).collect()
            });
        }
    }
    found.stages = trace.into_stages();
    Ok(found)
}

/// What the index and the rows have to offer, before a reranker looks at it.
async fn candidates<'a>(
    app: &App,
    reach: Reach,
    search: Search<'a>,
    trace: &mut Trace,
) -> Result<Choice<'a>> {
    let text = search.query.text.as_str();
    let space = search.embedded.space.clone();
    let language = analysis::detect(text);
    let read = space.embedder.as_ref().and_then(|embedder| embedder.languages());
    let meaning_weight = fuse::meaning_weight(text, language, read);
    let rows = Rows {
        app,
        reach,
        chatbot_id: search.chatbot_id,
        query: search.query,
        audience: search.filter.audience.clone(),
    };
    let settings = search.settings;
    let reranked = app.reranker.as_ref().filter(|_| settings.rerank);
    let reranked = reranked.map(|_| app.config.rerank.top_n);
    let now = app.clock.now();
    let without_repetitions = search.filter.without_repetitions;
    let wanted = Wanted {
        limit: search.limit,
        reranked,
        without_repetitions,
    };
    let choice = || Choice::new(settings, Boosts::of(settings, now), wanted);
    let mut query = SearchQuery {
        text: text.to_owned(),
        vector: search.embedded.vector.take(),
        filter: index_filter(&search.sources, search.filter),
        limit: (choice().pool() + SPARE_CANDIDATES).max(fuse::MIN_CANDIDATES),
        language: language.map(|language| language.subtag().to_owned()),
    };
    loop {
        let started = Instant::now();
        let candidates = space
            .index
            .search(retrieval::TenantId(reach.tenant_id.0), query.clone())
            .await
            .map_err(index_error)?;
        trace.add(StageName::Index, started, Vec::new);
        let started = Instant::now();
        let were_all = candidates.hits.len() < query.limit;
        let background = Background::of(&candidates, meaning_weight);
        let hits = fuse::fuse(&candidates, meaning_weight);
        trace.add(StageName::Fuse, started, Vec::new);
        let mut choice = choice();
        rows.offer(&hits, background, &mut choice, trace).await?;
        if choice.is_enough() || were_all || query.limit >= MOST_CANDIDATES {
            return Ok(choice);
        }
        // A new version that is being indexed stands in front of the old one, which still answers: look behind it.
        query.limit *= 4;
        trace.begin_again();
    }
}

/// The passages of a chatbot's knowledge that are nearest to `query`, best first, at most `limit`. What embedding the
/// question took goes to the ledger.
pub async fn search(
    app: &App,
    reach: Reach,
    chatbot_id: ChatbotId,
    query: &Query,
    limit: usize,
    filter: SearchFilter,
    trace: Trace,
) -> Result<SearchResult> {
    let mut conn = app.db.read(reach.tenant_id).await?;
    let live = generations::live(app, &mut conn, reach.tenant_id).await?;
    let place = (reach, chatbot_id);
    search_live(
        app,
        (conn, live),
        place,
        query,
        (limit, SEARCH_CHANNEL),
        filter,
        trace,
    )
    .await
}

/// Like [`search`], with an embedding model that need not be the one that answers; `channel` is what the ledger says.
pub async fn search_space(
    app: &App,
    space: &Arc<Space>,
    place: (Reach, ChatbotId),
    question: &str,
    (limit, channel): (usize, &str),
    filter: SearchFilter,
) -> Result<SearchResult> {
    let live = Live {
        space: space.clone(),
        is_whole: true,
    };
    let query = Query::said(question);
    let conn = app.db.read(place.0.tenant_id).await?;
    search_live(
        app,
        (conn, live),
        place,
        &query,
        (limit, channel),
        filter,
        Trace::default(),
    )
    .await
}

async fn search_live(
    app: &App,
    (mut conn, live): (Conn, Live),
    (reach, chatbot_id): (Reach, ChatbotId),
    query: &Query,
    (limit, channel): (usize, &str),
    filter: SearchFilter,
    mut trace: Trace,
) -> Result<SearchResult> {
    reach.check_chatbot(chatbot_id)?;
    let limits = usage::load_limits(&mut conn, reach.tenant_id, chatbot_id).await?;
    let mut settings = chatbots::find(&mut conn, reach, chatbot_id)
        .await?
        .settings
        .search;
    // Two models are compared before a reranker evens out what they find.
    settings.rerank &= channel == SEARCH_CHANNEL;
    let now = app.clock.now();
    if live.space.is_remote {
        usage::check_embedding_priced(app, &live.space, &limits)?;
        usage::check_open(&mut conn, &limits, reach.tenant_id, chatbot_id, now).await?;
    }
    let sources = store::list_sources(&mut conn, reach.tenant_id, chatbot_id).await?;
    drop(conn);
    let holders = (reach.tenant_id, chatbot_id);
    let mut hold =
        usage::hold_for_embedding(app, &live.space, &limits, holders, channel, &query.text).await?;
    let started = Instant::now();
    let mut embedded = embed_question(live, &query.text, !sources.is_empty()).await;
    trace.add(StageName::Embed, started, Vec::new);
    // It is paid for, whatever comes of the search.
    embedded.book(app, holders, channel, &mut hold).await?;
    let search = Search {
        chatbot_id,
        sources,
        query,
        embedded: &mut embedded,
        limit,
        filter,
        settings: &settings,
        payer: Payer {
            limits: &limits,
            channel,
            conversation_id: None,
            message_id: None,
        },
    };
    search_sources(app, reach, search, trace).await
}

/// What the index is asked for.
fn index_filter(sources: &[SourceId], filter: SearchFilter) -> Filter {
    let languages = |tags: Vec<String>| tags.iter().filter_map(|tag| primary_language(tag)).collect();
    Filter {
        sources: sources.iter().map(|id| retrieval::SourceId(id.0)).collect(),
        documents: filter
            .document_ids
            .map(|ids| ids.into_iter().map(|id| retrieval::DocumentId(id.0)).collect()),
        languages: filter.languages.map(languages),
        tags: filter.tags,
        since: filter.since.map(|since| since.timestamp()),
        until: filter.until.map(|until| until.timestamp()),
        audience: filter.audience,
    }
}

/// What an index failure means for a request or a job.
pub fn index_error(error: IndexError) -> Error {
    match error {
        IndexError::Unavailable { .. } | IndexError::InUse { .. } => Error::Unavailable {
            code: "index_unavailable",
            message: "the search index does not answer; try again shortly".into(),
            retry_after: TRY_AGAIN_AFTER,
            source: Some(Box::new(error)),
        },
        error => Error::internal(error),
    }
}

/// What a failure of the embedding model means for a job.
pub(super) fn embed_error(error: EmbedError) -> Error {
    match error {
        EmbedError::Unavailable { retry_after, source } => Error::Unavailable {
            code: "embedding_unavailable",
            message: "the embedding model does not answer; this is tried again by itself".into(),
            retry_after: retry_after.unwrap_or(TRY_AGAIN_AFTER),
            source: Some(source),
        },
        EmbedError::Broken { cause, .. } => embed_error(*cause),
        EmbedError::Refused { reason } => Error::Upstream {
            code: "embedding_refused",
            message: format!("the embedding model refused the request: {reason}").into(),
            source: None,
        },
        EmbedError::BadVectors { reason } => Error::Upstream {
            code: "embedding_unusable",
            message: format!("the embedding model gave unusable vectors: {reason}").into(),
            source: None,
        },
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A passage that says this, for what is told of passages.
    pub(crate) fn passage(text: &str) -> Passage {
        Passage {
            chunk_id: ChunkId::new(),
            document_id: DocumentId::new(),
            source_id: SourceId::new(),
            position: 0,
            dated: DateTime::<Utc>::UNIX_EPOCH,
            title: "Returns".to_owned(),
            file_name: "returns.md".to_owned(),
            url: None,
            text: text.to_owned(),
            heading: None,
            page: Some(2),
            start: 100,
            end: 100 + text.chars().count() as i64,
            score: 0.9,
            similarity: Some(0.8),
            keyword_score: None,
            confidence: None,
            prompt_tokens: 0,
            is_context: false,
        }
    }
}
