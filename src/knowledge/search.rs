//! From a question to passages: by meaning and by words in the index, then checked against the rows.

pub mod explain;
pub(super) mod routes;

use std::collections::HashMap;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use retrieval::analysis;
use retrieval::confidence::{Background, Confidence};
use retrieval::embed::EmbedError;
use retrieval::fuse::{self, Hit};
use retrieval::index::{Audience, Filter, IndexError, SearchQuery};
use retrieval::operators::{Query, Refusal};

use self::explain::{Stage, StageItem, StageName, Trace};
use super::degraded::Degradation;
use super::labels::primary_language;
use super::{passages, store};
use crate::app::App;
use crate::error::{Error, Result};
use crate::http::access::Reach;
use crate::id::{ChatbotId, ChunkId, DocumentId, SourceId, TenantId};
use crate::usage::{self, Hold, UsageEvent};

/// Candidates asked of the index beyond the wanted passages: some may have lost their rows.
const SPARE_CANDIDATES: usize = 8;

/// Rows that are read at once behind the first ones.
const SPARE_ROWS: usize = 64;

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
    /// Fused over meaning and words, in (0, 1]; 1: best by each. Compares the passages of one search only.
    pub score: f32,
    /// Cosine similarity to the question; none: found by its words only.
    pub similarity: Option<f32>,
    /// BM25; none: found by its meaning only.
    pub keyword_score: Option<f32>,
    /// How sure one may be that it answers the question; none: nothing tells.
    pub confidence: Option<Confidence>,
    /// In tokens of the answering model; 0: not counted yet.
    pub prompt_tokens: i64,
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
}

/// What a search found.
#[derive(Clone, Debug)]
pub struct SearchResult {
    /// Best first.
    pub passages: Vec<Passage>,
    /// What the search had to do without.
    pub degraded: Vec<Degradation>,
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
}

/// A question as the embedding model sees it, and what that took.
#[derive(Clone, Debug, Default)]
pub struct EmbeddedQuestion {
    /// None: there is no embedding model, or it was not asked, or it did not answer.
    pub vector: Option<Vec<f32>>,
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
        let mut event =
            UsageEvent::embedding(app, holders, channel, self.tokens, self.reported, self.latency);
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

/// Asks the embedding model for a question's vector, where there is anything to look through.
pub async fn embed_question(app: &App, question: &str, is_needed: bool) -> EmbeddedQuestion {
    let mut embedded = EmbeddedQuestion::default();
    let Some(embedder) = app.embedder.as_deref().filter(|_| is_needed) else {
        return embedded;
    };
    let started = Instant::now();
    match embedder.embed_query(question.to_owned()).await {
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

/// The passages that are nearest to the query by its words and its vector, best first.
pub async fn search_sources(
    app: &App,
    reach: Reach,
    search: Search<'_>,
    mut trace: Trace,
) -> Result<SearchResult> {
    reach.check_chatbot(search.chatbot_id)?;
    let mut degraded = Vec::new();
    let text = search.query.text.as_str();
    if search.sources.is_empty() || text.is_empty() {
        return Ok(SearchResult {
            passages: Vec::new(),
            degraded,
            stages: trace.into_stages(),
        });
    }
    if search.embedded.is_missing {
        Degradation::WORDS_ALONE.note(&mut degraded);
    }
    let language = analysis::detect(text);
    let read = app.embedder.as_ref().and_then(|embedder| embedder.languages());
    let meaning_weight = fuse::meaning_weight(text, language, read);
    let rows = Rows {
        app,
        reach,
        chatbot_id: search.chatbot_id,
        query: search.query,
        audience: search.filter.audience.clone(),
        limit: search.limit,
    };
    let mut query = SearchQuery {
        text: text.to_owned(),
        vector: search.embedded.vector.take(),
        filter: index_filter(&search.sources, search.filter),
        limit: (search.limit + SPARE_CANDIDATES).max(fuse::MIN_CANDIDATES),
        language: language.map(|language| language.subtag().to_owned()),
    };
    loop {
        let started = Instant::now();
        let candidates = app
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
        let passages = rows.attach(&hits, background, &mut trace).await?;
        if passages.len() >= search.limit || were_all || query.limit >= MOST_CANDIDATES {
            return Ok(SearchResult {
                passages,
                degraded,
                stages: trace.into_stages(),
            });
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
    mut trace: Trace,
) -> Result<SearchResult> {
    let mut conn = app.db.read(reach.tenant_id).await?;
    reach.check_chatbot(chatbot_id)?;
    let limits = usage::load_limits(&mut conn, reach.tenant_id, chatbot_id).await?;
    let now = app.clock.now();
    if app.embeds_remotely() {
        usage::check_embedding_priced(app, &limits)?;
        usage::check_open(&mut conn, &limits, reach.tenant_id, chatbot_id, now).await?;
    }
    let sources = store::list_sources(&mut conn, reach.tenant_id, chatbot_id).await?;
    drop(conn);
    let holders = (reach.tenant_id, chatbot_id);
    let mut hold = usage::hold_for_embedding(app, &limits, holders, SEARCH_CHANNEL, &query.text).await?;
    let started = Instant::now();
    let mut embedded = embed_question(app, &query.text, !sources.is_empty()).await;
    trace.add(StageName::Embed, started, Vec::new);
    // It is paid for, whatever comes of the search.
    embedded.book(app, holders, SEARCH_CHANNEL, &mut hold).await?;
    let search = Search {
        chatbot_id,
        sources,
        query,
        embedded: &mut embedded,
        limit,
        filter,
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

/// What turns hits into passages.
struct Rows<'a> {
    app: &'a App,
    reach: Reach,
    chatbot_id: ChatbotId,
    query: &'a Query,
    audience: Audience,
    /// Passages wanted.
    limit: usize,
}

impl Rows<'_> {
    /// The passages behind `hits` that may be told and are what was asked for, in the order of the hits.
    async fn attach(&self, hits: &[Hit], background: Background, trace: &mut Trace) -> Result<Vec<Passage>> {
        let mut passages = Vec::with_capacity(self.limit);
        // Nearly every hit has its row, so the first ones are mostly all that it takes.
        let (first, spare) = hits.split_at(hits.len().min(self.limit));
        for hits in std::iter::once(first).chain(spare.chunks(SPARE_ROWS)) {
            if hits.is_empty() || passages.len() >= self.limit {
                break;
            }
            let started = Instant::now();
            let open = self.read(hits, background).await?;
            trace.add(StageName::Rows, started, || {
                open.iter().map(by_confidence).collect()
            });
            trace.add(StageName::Index, Instant::now(), || {
                open.iter().map(by_side).collect()
            });
            trace.add(StageName::Fuse, Instant::now(), || {
                open.iter().map(by_score).collect()
            });
            let started = Instant::now();
            let mut refused = Vec::new();
            for passage in open {
                match refusal(self.query, &passage) {
                    Some(refusal) => refused.push(StageItem::left_out(passage.chunk_id, reason(refusal))),
                    None if passages.len() < self.limit => passages.push(passage),
                    None => {}
                }
            }
            trace.add(StageName::Operators, started, || refused);
        }
        trace.add(StageName::Operators, Instant::now(), || {
            passages.iter().map(by_score).collect()
        });
        Ok(passages)
    }

    /// The passages of those hits that have a row which the asker may read.
    async fn read(&self, hits: &[Hit], background: Background) -> Result<Vec<Passage>> {
        let ids: Vec<ChunkId> = hits.iter().map(|hit| ChunkId(hit.chunk_id.0)).collect();
        let mut conn = self.app.db.read(self.reach.tenant_id).await?;
        let rows = passages::find_passages(&mut conn, self.reach.tenant_id, self.chatbot_id, &ids).await?;
        drop(conn);
        let mut row_of: HashMap<ChunkId, passages::PassageRow> =
            rows.into_iter().map(|row| (row.id, row)).collect();
        let open = hits.iter().filter_map(|hit| {
            let row = row_of.remove(&ChunkId(hit.chunk_id.0))?;
            // The index was asked for the same. It may not know yet what changed a moment ago.
            row.is_open_to(&self.audience)
                .then(|| passage(hit, background.confidence(hit), row))
        });
        Ok(open.collect())
    }
}

fn by_side(passage: &Passage) -> StageItem {
    let scores = [
        ("similarity", passage.similarity),
        ("keyword_score", passage.keyword_score),
    ];
    StageItem::new(passage.chunk_id, scores)
}

fn by_score(passage: &Passage) -> StageItem {
    StageItem::new(passage.chunk_id, [("score", Some(passage.score))])
}

fn by_confidence(passage: &Passage) -> StageItem {
    let confidence = passage.confidence.map(|confidence| confidence.value);
    StageItem::new(passage.chunk_id, [("confidence", confidence)])
}

fn refusal(query: &Query, passage: &Passage) -> Option<Refusal> {
    let heading = passage.heading.as_deref().unwrap_or_default();
    query.refusal(&[&passage.text, heading, &passage.title])
}

const fn reason(refusal: Refusal) -> &'static str {
    match refusal {
        Refusal::PhraseMissing => "phrase_missing",
        Refusal::Excluded => "excluded",
    }
}

fn passage(hit: &Hit, confidence: Option<Confidence>, row: passages::PassageRow) -> Passage {
    Passage {
        chunk_id: row.id,
        document_id: row.document_id,
        title: row.title,
        file_name: row.file_name,
        url: row.url,
        text: row.text,
        heading: row.heading,
        page: row.page,
        start: row.start_char,
        end: row.end_char,
        score: hit.score,
        similarity: hit.similarity,
        keyword_score: hit.keyword_score,
        confidence,
        prompt_tokens: row.prompt_token_count,
    }
}

/// What an index failure means for a request or a job.
pub(super) fn index_error(error: IndexError) -> Error {
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
