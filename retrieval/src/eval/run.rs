//! Puts a set into an index, asks its questions the way the product does, and reports.

use std::collections::{BTreeSet, HashMap};
use std::time::Instant;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::TestSet;
use super::measures::{Abstention, Measures};
use super::set::{SetDocument, Wording};
use crate::analysis::{self, Language, TextLanguages};
use crate::confidence::Threshold;
use crate::embed::{Asker, EmbedError, Embedder};
use crate::fuse::{Hit, MIN_CANDIDATES};
use crate::index::{Facets, Filter, Index, IndexError, Point};
use crate::question::{ModelTraits, Question};
use crate::{ChunkId, DocumentId, SourceId, TenantId};

/// Documents embedded and stored at once.
pub(super) const BATCH: usize = 128;

/// Documents of a ranking that the measures and the report look at.
const RANKED: usize = 100;
const REPORTED: usize = 10;

/// Why a measurement ended.
#[derive(Debug, thiserror::Error)]
pub enum EvalError {
    #[error("a text of the set cannot be embedded: {0}")]
    Embed(#[from] EmbedError),
    #[error(transparent)]
    Index(#[from] IndexError),
    /// Ask in a wording that each question has.
    #[error("question {id} has no such wording")]
    NoWording { id: String },
}

/// What is measured: an index, and the model whose vectors it holds.
pub struct Runner<'a> {
    pub index: &'a dyn Index,
    /// `None`: words alone.
    pub embedder: Option<&'a dyn Embedder>,
    pub answering: Answering,
}

/// From what the product answers, and when it declines to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Answering {
    /// Passages that it looks at, the best ones.
    pub passages: usize,
    /// What one of them has to inspire, as [`Threshold::of_similarity`] reads it.
    pub min_similarity: f32,
}

/// Of a set of passages.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    pub documents: usize,
    /// Those with a relevant document: what `measures` are the mean of.
    pub judged: usize,
    pub measures: Measures,
    /// Where the set has questions without an answer; by the confidence in the first passage.
    pub abstention: Option<Abstention>,
    /// The share of questions that the product declines to answer: of those that have an answer, and of those without.
    pub declined: Option<f64>,
    pub declined_without_answer: Option<f64>,
    pub latency: Latency,
    pub questions: Vec<QuestionResult>,
}

/// Of one question.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct QuestionResult {
    pub id: String,
    pub text: String,
    /// Ids of the first documents that were found, best first.
    pub found: Vec<String>,
    /// `None` for a question without a relevant document.
    pub measures: Option<Measures>,
    /// Of the first passage, in [0, 1]; 0 when nothing was found.
    pub confidence: f64,
    /// Whether none of the passages that the product would answer from counts.
    pub is_declined: bool,
}

/// Of one question, embedding included.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    pub p50_ms: f64,
    pub p95_ms: f64,
}

/// A set while it is in the index.
struct Stored<'a> {
    tenant_id: TenantId,
    source_id: SourceId,
    document_of: HashMap<ChunkId, &'a SetDocument>,
    /// How near unrelated texts are to the model.
    unrelated: Option<f32>,
    /// Of its documents.
    languages: TextLanguages,
}

/// What one question found: documents, best first, each once.
struct Asked<'a> {
    found: Vec<&'a str>,
    confidence: f64,
    is_declined: bool,
    took_ms: f64,
}

impl Runner<'_> {
    /// Measures `set`, asked in this wording. `progress` hears the share of the work that is done.
    pub async fn measure(
        &self,
        set: &TestSet,
        wording: Wording,
        progress: &(dyn Fn(f64) + Sync),
    ) -> Result<Report, EvalError> {
        let stored = self.store(&set.documents, progress).await?;
        let measured = self.ask_all(set, wording, &stored, progress).await;
        self.index.delete_tenant(stored.tenant_id).await?;
        measured
    }

    async fn ask_all(
        &self,
        set: &TestSet,
        wording: Wording,
        stored: &Stored<'_>,
        progress: &(dyn Fn(f64) + Sync),
    ) -> Result<Report, EvalError> {
        let asked: Vec<_> = set.asked().collect();
        let mut questions = Vec::with_capacity(asked.len());
        let mut took = Vec::with_capacity(asked.len());
        for (done, question) in asked.iter().enumerate() {
            let text = question.wording(wording).ok_or_else(|| EvalError::NoWording {
                id: question.id.clone(),
            })?;
            let answer = self.ask(stored, &text).await?;
            let ranking: Vec<String> = answer.found.iter().map(|id| (*id).to_owned()).collect();
            let relevant = set.relevant.get(&question.id);
            questions.push(QuestionResult {
                id: question.id.clone(),
                text,
                measures: relevant.map(|relevant| Measures::of(&ranking, relevant)),
                found: ranking.into_iter().take(REPORTED).collect(),
                confidence: answer.confidence,
                is_declined: answer.is_declined,
            });
            took.push(answer.took_ms);
            progress(0.5 + 0.5 * (done + 1) as f64 / asked.len() as f64);
        }
        let measured: Vec<Measures> = questions
            .iter()
            .filter_map(|question| question.measures)
            .collect();
        let of = |is_answerable: bool| {
            let questions = questions.iter();
            questions.filter(move |question| question.measures.is_some() == is_answerable)
        };
        let confidences =
            |is_answerable| -> Vec<f64> { of(is_answerable).map(|question| question.confidence).collect() };
        let declined = |is_answerable| {
            let declined = of(is_answerable).filter(|question| question.is_declined).count();
            let all = of(is_answerable).count();
            (all > 0).then(|| declined as f64 / all as f64)
        };
        Ok(Report {
            documents: set.documents.len(),
            judged: measured.len(),
            measures: Measures::mean(&measured),
            abstention: Abstention::of(&confidences(true), &confidences(false)),
            declined: declined(true),
            declined_without_answer: declined(false),
            latency: Latency::of(took),
            questions,
        })
    }

    /// Stores one chunk for each document.
    async fn store<'a>(
        &self,
        documents: &'a [SetDocument],
        progress: &(dyn Fn(f64) + Sync),
    ) -> Result<Stored<'a>, EvalError> {
        let mut stored = Stored {
            tenant_id: TenantId(Uuid::now_v7()),
            source_id: SourceId(Uuid::now_v7()),
            document_of: HashMap::new(),
            unrelated: self.unrelated().await?,
            languages: TextLanguages::default(),
        };
        let mut languages = Vec::with_capacity(documents.len());
        for (number, batch) in documents.chunks(BATCH).enumerate() {
            let vectors = self
                .embed(batch.iter().map(SetDocument::full_text).collect())
                .await?;
            let points = batch.iter().zip(vectors).map(|(document, vector)| {
                let chunk_id = ChunkId(Uuid::now_v7());
                stored.document_of.insert(chunk_id, document);
                let text = document.full_text();
                let language = analysis::detect(&text);
                languages.push(language);
                Point {
                    chunk_id,
                    document_id: DocumentId(chunk_id.0),
                    source_id: stored.source_id,
                    text,
                    vector,
                    facets: Facets {
                        language: language.map(|language| language.subtag().to_owned()),
                        ..Facets::default()
                    },
                }
            });
            self.index.upsert(stored.tenant_id, points.collect()).await?;
            progress(0.5 * ((number + 1) * BATCH).min(documents.len()) as f64 / documents.len() as f64);
        }
        let all: BTreeSet<Language> = languages.iter().copied().flatten().collect();
        stored.languages = TextLanguages::new(all.into_iter().collect(), &languages);
        Ok(stored)
    }

    async fn ask<'a>(&self, stored: &Stored<'a>, text: &str) -> Result<Asked<'a>, EvalError> {
        let started = Instant::now();
        let model = ModelTraits {
            languages: self.languages(),
            unrelated: stored.unrelated,
        };
        let question = Question::of(text, model, &stored.languages);
        let vector = self.embed_question(text).await?;
        let filter = Filter {
            sources: vec![stored.source_id],
            ..Filter::default()
        };
        let query = question.query(vector, filter, MIN_CANDIDATES);
        let candidates = self.index.search(stored.tenant_id, query).await?;
        let judged = question.judge(&candidates);
        let threshold = Threshold::of_similarity(self.answering.min_similarity);
        let told = judged.hits.iter().take(self.answering.passages.max(1));
        let told = told.filter_map(|hit| Some((hit, stored.document_of.get(&hit.chunk_id)?)));
        let (mut first, mut is_declined) = (None, true);
        let told: Vec<_> = told.collect();
        let texts = told
            .iter()
            .flat_map(|(_, document)| [document.title.as_str(), document.text.as_str()]);
        let reading = judged.reading(texts);
        for (hit, document) in told {
            let confidence = reading.confidence(hit, &[&document.title], &document.text);
            first.get_or_insert(confidence.map_or(0.0, |confidence| f64::from(confidence.value)));
            is_declined &= !threshold.is_met_by(confidence);
        }
        Ok(Asked {
            found: documents(&judged.hits, stored),
            confidence: first.unwrap_or(0.0),
            is_declined,
            took_ms: started.elapsed().as_secs_f64() * 1e3,
        })
    }

    /// The texts' vectors, in their order; none without a model.
    pub(super) async fn embed(&self, texts: Vec<String>) -> Result<Vec<Option<Vec<f32>>>, EvalError> {
        let Some(embedder) = self.embedder else {
            return Ok(vec![None; texts.len()]);
        };
        let embedded = embedder.embed_documents(Asker::Service, texts).await?;
        Ok(embedded.vectors.into_iter().map(Some).collect())
    }

    pub(super) async fn embed_question(&self, text: &str) -> Result<Option<Vec<f32>>, EvalError> {
        match self.embedder {
            Some(embedder) => {
                let embedded = embedder.embed_query(Asker::Service, text.to_owned()).await?;
                Ok(embedded.vectors.into_iter().next())
            }
            None => Ok(None),
        }
    }

    pub(super) async fn unrelated(&self) -> Result<Option<f32>, EvalError> {
        match self.embedder {
            Some(embedder) => Ok(Some(embedder.unrelated().await?)),
            None => Ok(None),
        }
    }

    pub(super) fn languages(&self) -> Option<&[Language]> {
        self.embedder.and_then(|embedder| embedder.languages())
    }
}

/// The documents of `hits` in their order.
fn documents<'a>(hits: &[Hit], stored: &Stored<'a>) -> Vec<&'a str> {
    hits.iter()
        .filter_map(|hit| stored.document_of.get(&hit.chunk_id))
        .map(|document| document.id.as_str())
        .take(RANKED)
        .collect()
}

impl Latency {
    pub(super) fn of(mut took_ms: Vec<f64>) -> Self {
        took_ms.sort_by(f64::total_cmp);
        let at = |share: f64| {
            let place = (took_ms.len() as f64 * share) as usize;
            took_ms
                .get(place.min(took_ms.len().saturating_sub(1)))
                .copied()
                .unwrap_or(0.0)
        };
        Self {
            p50_ms: at(0.5),
            p95_ms: at(0.95),
        }
    }
}
