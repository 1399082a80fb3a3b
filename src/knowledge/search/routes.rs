//! HTTP of search.

use std::collections::BTreeMap;

use axum::extract::State;
use chrono::{DateTime, Utc};
use retrieval::index::Audience;
use retrieval::operators;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::explain::{Stage, StageItem, Trace};
use super::{Passage, Purpose, SearchFilter, SearchResult};
use crate::app::App;
use crate::error::Error;
use crate::http::access::SearchAccess;
use crate::http::input::{Json, Path};
use crate::http::problem::Problem;
use crate::id::{ChatbotId, ChunkId, DocumentId, SourceId};
use crate::knowledge::{Degradation, labels};

/// Passages of one search.
const MAX_SEARCH_LIMIT: i64 = 50;
const DEFAULT_SEARCH_LIMIT: i64 = 10;

/// Documents or languages that one search names, at most.
const MAX_NAMED: usize = 100;

/// Characters of a value that a message shows.
const MAX_SHOWN_CHARS: usize = 40;

/// The routes of searching.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(search))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct SearchRequest {
    /// What to look for. `"these words"` must be there in a row, `-word` and `-"these words"` must not; both are compared
    /// as they are written but for letter case and accents. How long it may be is a setting of the installation.
    #[schema(min_length = 1)]
    query: String,
    /// Passages wanted, 1 to 50; 10 unless given.
    #[schema(minimum = 1, maximum = 50)]
    limit: Option<i64>,
    filter: Option<SearchFilterRequest>,
    /// Access groups to search with, as a visitor who has them would. Without this, who may read all documents finds all of
    /// them, and everyone else what is open to everyone.
    #[schema(max_items = 50)]
    groups: Option<Vec<String>>,
    /// Whether to leave out what a better passage says already, as answers do unless their chatbot is set otherwise.
    #[serde(default)]
    without_repetitions: bool,
    /// Whether to tell how the passages were found.
    #[serde(default)]
    explain: bool,
}

#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct SearchFilterRequest {
    /// Only passages of these sources.
    #[schema(max_items = 100)]
    source_ids: Option<Vec<SourceId>>,
    /// Only passages of these documents.
    #[schema(max_items = 100)]
    document_ids: Option<Vec<DocumentId>>,
    /// Only passages of documents in one of these languages: tags such as `de`, of which the first part counts.
    #[schema(max_items = 100)]
    languages: Option<Vec<String>>,
    /// Only passages of documents with one of these tags.
    #[schema(max_items = 50)]
    tags: Option<Vec<String>>,
    /// Only passages of documents published then or later; where they do not say when, that came then or later.
    since: Option<DateTime<Utc>>,
    /// Only passages of documents published, or else come, before then; later than `since`.
    until: Option<DateTime<Utc>>,
}

impl SearchFilterRequest {
    /// What a search for this audience is narrowed to.
    fn check(self, audience: Audience) -> Result<SearchFilter, Error> {
        check_count("filter.source_ids", self.source_ids.as_ref().map_or(0, Vec::len))?;
        check_count(
            "filter.document_ids",
            self.document_ids.as_ref().map_or(0, Vec::len),
        )?;
        let languages = self.languages.as_deref().unwrap_or_default();
        check_count("filter.languages", languages.len())?;
        if let Some(odd) = languages.iter().find(|tag| !labels::is_language_tag(tag)) {
            return Err(Error::invalid(
                "invalid_language",
                "filter.languages",
                format!(
                    "{:?} is no tag of a language: give tags such as de or pt-BR",
                    shortened(odd)
                ),
            ));
        }
        if let Some((since, until)) = self.since.zip(self.until)
            && since >= until
        {
            return Err(Error::invalid(
                "invalid_period",
                "filter.until",
                "until must be later than since: no document lies between them",
            ));
        }
        let tags = self.tags.map(|tags| labels::check_names("filter.tags", tags));
        Ok(SearchFilter {
            source_ids: self.source_ids,
            document_ids: self.document_ids,
            languages: self.languages,
            tags: tags.transpose()?,
            since: self.since,
            until: self.until,
            audience,
            ..SearchFilter::default()
        })
    }
}

fn check_count(field: &str, count: usize) -> Result<(), Error> {
    if count <= MAX_NAMED {
        return Ok(());
    }
    Err(Error::invalid(
        "filter_too_long",
        field,
        format!("a search names at most {MAX_NAMED} here: ask in several searches"),
    ))
}

/// The beginning of what somebody sent, as far as a message shows it.
fn shortened(text: &str) -> String {
    text.chars().take(MAX_SHOWN_CHARS).collect()
}

#[derive(Serialize, ToSchema)]
struct PassageResponse {
    chunk_id: ChunkId,
    document_id: DocumentId,
    title: String,
    /// Where a reader finds the document, if it is elsewhere too.
    #[serde(skip_serializing_if = "Option::is_none")]
    url: Option<String>,
    text: String,
    /// In (0, 1]; higher is nearer. 1: first by meaning and by words.
    score: f32,
    /// Cosine similarity to the query.
    #[serde(skip_serializing_if = "Option::is_none")]
    similarity: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    page: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    heading: Option<String>,
    /// Character offsets in the document's text, end exclusive.
    start: i64,
    end: i64,
}

impl From<Passage> for PassageResponse {
    fn from(passage: Passage) -> Self {
        Self {
            chunk_id: passage.chunk_id,
            document_id: passage.document_id,
            title: passage.title,
            url: passage.url,
            text: passage.text,
            score: passage.score,
            similarity: passage.similarity,
            page: passage.page,
            heading: passage.heading,
            start: passage.start,
            end: passage.end,
        }
    }
}

#[derive(Serialize, ToSchema)]
struct SearchResponse {
    /// Best first.
    items: Vec<PassageResponse>,
    /// What the search had to do without; not there when nothing was left out.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    degraded: Vec<Degradation>,
    /// How they were found; there when it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    explain: Option<ExplainResponse>,
}

/// How passages were found.
#[derive(Serialize, ToSchema)]
#[schema(as = SearchExplanation)]
struct ExplainResponse {
    /// What was looked for: the query without what is excluded.
    text: String,
    /// What must be there in a row.
    phrases: Vec<String>,
    /// What must not be there.
    excluded: Vec<String>,
    /// How sure a chat that is asked the same may be that one of its passages answers the question, in [0, 1], and the same in
    /// every tenant: what it decides by whether it knows an answer. It looks at as many passages as its chatbot is set to,
    /// whatever `limit` is, through the same filter and operators, which a chat reads only in a message that has nothing else. Null
    /// where nothing was found or nothing tells.
    confidence: Option<f32>,
    /// Whether the confidence comes from meaning; else words alone tell, which know less.
    confidence_by_meaning: bool,
    /// The chatbot's setting of this name: what a chat asks of a passage.
    min_similarity: f64,
    /// What that setting asks for on the scale of the confidence; null where there is no confidence.
    needed_confidence: Option<f32>,
    /// Whether one of the chat's passages inspires as much. Where none does it says that it does not know.
    is_enough: bool,
    /// In the order in which they were carried out.
    stages: Vec<StageResponse>,
}

/// What one stage of a search did.
#[derive(Serialize, ToSchema)]
#[schema(as = SearchStage)]
struct StageResponse {
    /// `embed`, `index`, `fuse`, `rows` (reading them), `operators` (quotes and minus), `repetitions`, `rerank`, `boosts` (the
    /// recent and preferred sources), `mmr` (what differs), `context` (what stands around the passages that a chat would answer from, for a prompt).
    #[schema(value_type = String)]
    name: &'static str,
    /// Microseconds.
    took_us: u64,
    /// Passages in the order in which the stage left them, then those that it left out. Only what the asker may read.
    items: Vec<StageItemResponse>,
}

/// A passage in one stage.
#[derive(Serialize, ToSchema)]
#[schema(as = SearchStageItem)]
struct StageItemResponse {
    chunk_id: ChunkId,
    /// What the stage knows of it by name: `similarity` (cosine), `keyword_score` (BM25), `score` (as in the answer),
    /// `confidence`, `relevance` (the reranker's own), `factor` (of the owner's preferences), `margin` (of what it adds),
    /// `tokens`.
    #[schema(value_type = BTreeMap<String, f32>)]
    scores: BTreeMap<&'static str, f32>,
    /// Why the stage left it out: `phrase_missing`, `excluded` or `repetition`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    left_out: Option<&'static str>,
}

impl From<StageItem> for StageItemResponse {
    fn from(item: StageItem) -> Self {
        Self {
            chunk_id: item.chunk_id,
            scores: item.scores.into_iter().collect(),
            left_out: item.left_out,
        }
    }
}

impl From<Stage> for StageResponse {
    fn from(stage: Stage) -> Self {
        Self {
            name: stage.name.name(),
            took_us: u64::try_from(stage.took.as_micros()).unwrap_or(u64::MAX),
            items: stage.items.into_iter().map(StageItemResponse::from).collect(),
        }
    }
}

/// `None` unless it was asked for.
fn explain(query: &operators::Query, found: &mut SearchResult) -> Option<ExplainResponse> {
    let stages = found.stages.take()?;
    let told = found.told.take()?;
    let confidence = told.confidence();
    Some(ExplainResponse {
        text: query.text.clone(),
        phrases: query.phrases().map(str::to_owned).collect(),
        excluded: query.excluded().map(str::to_owned).collect(),
        confidence: confidence.map(|confidence| confidence.value),
        confidence_by_meaning: confidence.is_some_and(|confidence| confidence.is_by_meaning),
        min_similarity: told.min_similarity,
        needed_confidence: told.needed_confidence(),
        is_enough: told.is_enough(),
        stages: stages.into_iter().map(StageResponse::from).collect(),
    })
}

/// Finds passages in a chatbot's knowledge, by meaning and by words. Not for keys of scope `chat`, which browsers see: a
/// visitor is told what answers, and not all that stands around it.
#[utoipa::path(post, path = "/api/chatbots/{id}/search", tag = "knowledge", params(("id" = String, Path, description = "The chatbot")), request_body = SearchRequest,
    responses((status = 200, body = SearchResponse), (status = "4XX", body = Problem, content_type = "application/problem+json")), security(("bearer" = ["search"])))]
async fn search(
    access: SearchAccess,
    State(app): State<App>,
    Path(chatbot_id): Path<ChatbotId>,
    Json(request): Json<SearchRequest>,
) -> Result<axum::Json<SearchResponse>, Problem> {
    let limit = request.limit.unwrap_or(DEFAULT_SEARCH_LIMIT);
    if !(1..=MAX_SEARCH_LIMIT).contains(&limit) {
        return Err(Error::invalid(
            "invalid_limit",
            "limit",
            format!("limit must be 1 to {MAX_SEARCH_LIMIT}"),
        )
        .into());
    }
    let most_chars = app.config.chat.message_limit_chars;
    if request.query.trim().is_empty() || request.query.chars().count() > most_chars {
        return Err(Error::invalid(
            "invalid_query_text",
            "query",
            format!("query must have 1 to {most_chars} characters"),
        )
        .into());
    }
    let query = operators::Query::read(&request.query);
    if query.text.is_empty() {
        return Err(Error::invalid(
            "invalid_query_text",
            "query",
            "query must name something to look for beside what it excludes",
        )
        .into());
    }
    let audience = labels::searcher(&access.actor, request.groups)?;
    let filter = SearchFilter {
        without_repetitions: request.without_repetitions,
        ..request.filter.unwrap_or_default().check(audience)?
    };
    let trace = if request.explain {
        Trace::on()
    } else {
        Trace::default()
    };
    let limit = limit as usize;
    let (place, wanted) = ((access.reach(), chatbot_id), (limit, Purpose::Search));
    let mut found = super::search(&app, place, &query, wanted, filter, trace).await?;
    let explain = explain(&query, &mut found);
    Ok(axum::Json(SearchResponse {
        items: found.passages.into_iter().map(PassageResponse::from).collect(),
        degraded: found.degraded,
        explain,
    }))
}
