//! From a question to passages: by meaning and by words in the index, then checked against the rows.

mod boosts;
mod candidates;
mod choice;
pub mod context;
pub mod explain;
mod question;
mod reranking;
pub(super) mod routes;
mod rows;
mod settings;
mod told;
mod without_index;

use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use retrieval::confidence::{Confidence, Threshold};
use retrieval::index::Audience;
use retrieval::operators::Query;

use self::explain::{Stage, StageName, Trace};
pub use self::question::{EmbeddedQuestion, embed_question};
pub(super) use self::question::{TEXT_REFUSED, denied, embed_error};
use self::reranking::Reranking;
pub use self::reranking::Said;
pub use self::settings::{SearchSettings, SearchSettingsRequest};
pub use self::told::{Told, keep_relevant};
pub use self::without_index::RowScans;
use super::cuts::{self, LiveCut};
use super::degraded::Degradation;
use crate::app::{App, Space};
use crate::chatbots;
use crate::db::Conn;
use crate::error::Result;
use crate::generations::{self, Live};
use crate::http::access::Reach;
use crate::id::{ChatbotId, ChunkId, ConversationId, CutId, DocumentId, MessageId, SourceId};
use crate::llm::tokens;
use crate::usage::{self, Limits, UsageEvent};

/// How long a failing index or embedding endpoint is left alone, if it did not say.
const TRY_AGAIN_AFTER: Duration = Duration::from_secs(5);

/// A chunk that may answer the question.
#[derive(Clone, Debug)]
pub struct Passage {
    pub chunk_id: ChunkId,
    pub document_id: DocumentId,
    pub source_id: SourceId,
    pub cut: CutId,
    /// Among the chunks of its document in this cut.
    pub position: i64,
    /// When the version of the document was indexed that it is of.
    pub indexed_at: DateTime<Utc>,
    /// When the document was published, or else when it came.
    pub dated: DateTime<Utc>,
    pub title: String,
    pub file_name: String,
    /// Its document consists of rows or objects, whose values stand in lines of their own behind their names.
    pub has_records: bool,
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

impl Passage {
    /// Tokens of its text to a model that answers: as counted when it was indexed, or else now.
    pub fn count_prompt_tokens(&self) -> usize {
        match usize::try_from(self.prompt_tokens) {
            Ok(counted) if counted > 0 => counted,
            _ => tokens::count(&self.text),
        }
    }
}

/// What narrows a search further than the chatbot's own sources.
#[derive(Clone, Debug, Default)]
pub struct SearchFilter {
    /// Only documents of these sources.
    pub source_ids: Option<Vec<SourceId>>,
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
    /// What the reranker said.
    pub said: Option<Said>,
    /// What a chat would be told to the same question; none: nobody wanted to know.
    pub told: Option<Told>,
    /// How they were found; none unless it was asked for.
    pub stages: Option<Vec<Stage>>,
}

/// What a search outside of conversations is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    Search,
    /// A question of a test set, which measures what the index finds.
    Eval,
    /// What another embedding model would find: by the index alone, before a reranker evens it out.
    Comparison,
}

impl Purpose {
    /// What the ledger says.
    pub const fn channel(self) -> &'static str {
        match self {
            Self::Search => "search",
            Self::Eval | Self::Comparison => "eval",
        }
    }
}

/// What to look for.
#[derive(Clone)]
pub struct Search<'a> {
    pub chatbot_id: ChatbotId,
    /// Those that answer for the chatbot's sources. They narrow what the index is asked for; what may be told is decided by the
    /// rows.
    pub cuts: Vec<CutId>,
    pub query: &'a Query,
    /// The query's text.
    pub embedded: &'a EmbeddedQuestion,
    /// Passages, at most.
    pub limit: usize,
    pub filter: SearchFilter,
    pub settings: &'a SearchSettings,
    /// What a chat asks of a passage.
    pub threshold: Threshold,
    /// What a reranker said in an earlier look at the same question: it is not paid twice for the same passages.
    pub said: Option<Said>,
    pub payer: Payer<'a>,
    /// Words are looked for in the rows where the index does not answer.
    pub reads_rows: bool,
}

/// By whose budget a search is paid, and for what.
#[derive(Clone, Copy, Debug)]
pub struct Payer<'a> {
    pub limits: &'a Limits,
    pub channel: &'a str,
    pub conversation_id: Option<ConversationId>,
    pub message_id: Option<MessageId>,
}

/// The passages that are nearest to the query by its words and its vector, as the chatbot's owner wants them, best first.
pub async fn search_sources(
    app: &App,
    reach: Reach,
    search: Search<'_>,
    trace: &mut Trace,
) -> Result<SearchResult> {
    reach.check_chatbot(search.chatbot_id)?;
    let mut found = SearchResult::default();
    if !search.cuts.is_empty() && !search.query.text.is_empty() {
        if search.embedded.is_missing {
            Degradation::WORDS_ALONE.note(&mut found.degraded);
        }
        if !search.embedded.is_whole {
            Degradation::INDEX_INCOMPLETE.note(&mut found.degraded);
        }
        let (query, settings, payer) = (search.query, search.settings, search.payer);
        let chatbot_id = search.chatbot_id;
        found.said = search.said.clone();
        let mut choice = candidates::gather(app, reach, search, &mut found.degraded, trace).await?;
        if settings.rerank
            && let Some(reranker) = app.reranker.as_deref()
        {
            let reranking = Reranking {
                app,
                holders: (reach.tenant_id, chatbot_id),
                payer,
                reranker,
            };
            found.reranked = reranking.run(&query.text, &mut choice, &mut found, trace).await?;
        }
        found.passages = choice.finish(trace);
    }
    Ok(found)
}

/// The passages of a chatbot's knowledge that are nearest to `query`, best first, at most `limit`. What embedding the
/// question took goes to the ledger.
pub async fn search(
    app: &App,
    place: (Reach, ChatbotId),
    query: &Query,
    (limit, purpose): (usize, Purpose),
    filter: SearchFilter,
    trace: Trace,
) -> Result<SearchResult> {
    let mut conn = app.db.read(place.0.tenant_id).await?;
    let live = generations::live(app, &mut conn, place.0.tenant_id).await?;
    let wanted = (limit, purpose);
    search_live(app, (conn, live, None), place, query, wanted, filter, trace).await
}

/// What a search looks through that need not be what answers.
#[derive(Clone, Debug)]
pub struct Aim {
    pub space: Arc<Space>,
    /// This cut instead of the source's live one.
    pub cut: Option<(SourceId, CutId)>,
}

impl Aim {
    /// The cuts to look through, of sources with what answers for them.
    fn instead(cut: Option<(SourceId, CutId)>, live: &[LiveCut]) -> Vec<CutId> {
        let instead = |live: &LiveCut| match cut {
            Some((of, cut)) if of == live.source_id => cut,
            _ => live.cut,
        };
        live.iter().map(instead).collect()
    }
}

/// What is found for a visitor by what need not be what answers.
pub async fn search_aimed(
    app: &App,
    aim: &Aim,
    place: (Reach, ChatbotId),
    (question, audience): (&str, Audience),
    limit: usize,
) -> Result<SearchResult> {
    let live = Live {
        space: aim.space.clone(),
        is_whole: true,
    };
    let query = Query::said(question);
    let conn = app.db.read(place.0.tenant_id).await?;
    let wanted = (limit, Purpose::Comparison);
    let filter = SearchFilter {
        audience,
        ..SearchFilter::default()
    };
    search_live(
        app,
        (conn, live, aim.cut),
        place,
        &query,
        wanted,
        filter,
        Trace::default(),
    )
    .await
}

async fn search_live(
    app: &App,
    (mut conn, mut live, cut): (Conn, Live, Option<(SourceId, CutId)>),
    (reach, chatbot_id): (Reach, ChatbotId),
    query: &Query,
    (limit, purpose): (usize, Purpose),
    filter: SearchFilter,
    mut trace: Trace,
) -> Result<SearchResult> {
    reach.check_chatbot(chatbot_id)?;
    let limits = usage::load_limits(&mut conn, reach.tenant_id, chatbot_id).await?;
    let mut decided = chatbots::find(&mut conn, reach, chatbot_id).await?.settings;
    decided.search.rerank &= purpose != Purpose::Comparison;
    let now = app.clock.now();
    if live.space.is_remote {
        usage::check_embedding_priced(app, &live.space, &limits)?;
        usage::check_open(&mut conn, &limits, reach.tenant_id, chatbot_id, now).await?;
    }
    let mut answering = cuts::list_live(&mut conn, reach.tenant_id, chatbot_id).await?;
    if let Some(wanted) = &filter.source_ids {
        answering.retain(|of| wanted.contains(&of.source_id));
    }
    live.is_whole &= !answering.iter().any(|answering| answering.is_lacking);
    let cuts = Aim::instead(cut, &answering);
    drop(conn);
    let holders = (reach.tenant_id, chatbot_id);
    let payer = Payer {
        limits: &limits,
        channel: purpose.channel(),
        conversation_id: None,
        message_id: None,
    };
    let started = Instant::now();
    let (embedded, mut hold) =
        embed_question(app, live, holders, payer, &query.text, !cuts.is_empty()).await?;
    trace.add(StageName::Embed, started, Vec::new);
    // It is paid for, whatever comes of the search.
    embedded.book(app, holders, payer.channel, &mut hold).await?;
    let search = Search {
        chatbot_id,
        cuts,
        query,
        embedded: &embedded,
        limit,
        filter,
        settings: &decided.search,
        threshold: Threshold::of_similarity(decided.min_similarity as f32),
        said: None,
        payer,
        reads_rows: purpose == Purpose::Search,
    };
    let mut found = search_sources(app, reach, search.clone(), &mut trace).await?;
    if purpose == Purpose::Eval || trace.is_on() {
        let told = told::tell(app, reach, search, &decided, &mut found, &mut trace).await?;
        found.told = Some(told);
    }
    found.stages = trace.into_stages();
    Ok(found)
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
            cut: CutId::new(),
            position: 0,
            indexed_at: DateTime::<Utc>::UNIX_EPOCH,
            dated: DateTime::<Utc>::UNIX_EPOCH,
            title: "Returns".to_owned(),
            file_name: "returns.md".to_owned(),
            has_records: false,
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
