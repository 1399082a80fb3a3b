//! Puts a set into an index, asks its questions the way the product does, and reports.

use std::collections::HashMap;
use std::time::Instant;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::measures::{Abstention, Measures};
use super::set::Wording;
use super::{FaqSet, TestSet};
use crate::analysis::{self, Language};
use crate::confidence::Background;
use crate::embed::{EmbedError, Embedder};
use crate::fuse::{self, Hit};
use crate::index::{Filter, Index, IndexError, Point, SearchQuery};
use crate::{ChunkId, DocumentId, SourceId, TenantId};

/// Documents embedded and stored at once.
const BATCH: usize = 128;

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
}

/// Of a set of passages.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    pub documents: usize,
    /// Those with a relevant document: what `measures` are the mean of.
    pub judged: usize,
    pub measures: Measures,
    /// Where the set has questions without an answer.
    pub abstention: Option<Abstention>,
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
}

/// Of a set of fixed answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FaqReport {
    pub entries: usize,
    /// Questions that an entry answers: what `top_1` is a share of.
    pub in_scope: usize,
    pub top_1: f64,
    /// Where the set has questions that no entry answers.
    pub abstention: Option<Abstention>,
    pub latency: Latency,
    pub questions: Vec<FaqResult>,
}

/// Of one question to fixed answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FaqResult {
    pub id: String,
    pub text: String,
    pub found: Option<String>,
    /// `None` for a question that no entry answers.
    pub is_right: Option<bool>,
    pub confidence: f64,
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
    /// What is stored are questions themselves.
    is_faq: bool,
    /// What the set calls the documents.
    name_of: HashMap<DocumentId, &'a str>,
}

/// What one question found: documents, best first, each once.
struct Asked<'a> {
    found: Vec<&'a str>,
    confidence: f64,
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
        let texts = set
            .documents
            .iter()
            .map(|document| (document.id.as_str(), document.full_text()));
        let stored = self.store(texts.collect(), progress).await?;
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
            });
            took.push(answer.took_ms);
            progress(0.5 + 0.5 * (done + 1) as f64 / asked.len() as f64);
        }
        let measured: Vec<Measures> = questions
            .iter()
            .filter_map(|question| question.measures)
            .collect();
        let confidences = |is_answerable: bool| -> Vec<f64> {
            questions
                .iter()
                .filter(|question| question.measures.is_some() == is_answerable)
                .map(|question| question.confidence)
                .collect()
        };
        Ok(Report {
            documents: set.documents.len(),
            judged: measured.len(),
            measures: Measures::mean(&measured),
            abstention: Abstention::of(&confidences(true), &confidences(false)),
            latency: Latency::of(took),
            questions,
        })
    }

    /// Measures a set of fixed answers: an entry is as near as the nearest wording of its question.
    pub async fn measure_faq(
        &self,
        set: &FaqSet,
        progress: &(dyn Fn(f64) + Sync),
    ) -> Result<FaqReport, EvalError> {
        let texts = set.entries.iter().flat_map(|entry| {
            let wordings = entry.wordings();
            wordings.map(|wording| (entry.id.as_str(), wording.to_owned()))
        });
        let mut stored = self.store(texts.collect(), progress).await?;
        stored.is_faq = true;
        let measured = self.ask_all_of_faq(set, &stored, progress).await;
        self.index.delete_tenant(stored.tenant_id).await?;
        measured
    }

    async fn ask_all_of_faq(
        &self,
        set: &FaqSet,
        stored: &Stored<'_>,
        progress: &(dyn Fn(f64) + Sync),
    ) -> Result<FaqReport, EvalError> {
        let mut questions = Vec::with_capacity(set.questions.len());
        let mut took = Vec::with_capacity(set.questions.len());
        for (done, question) in set.questions.iter().enumerate() {
            let answer = self.ask(stored, &question.text).await?;
            let found = answer.found.first().map(|id| (*id).to_owned());
            let is_right = found.as_deref().is_some_and(|id| question.is_answered_by(id));
            questions.push(FaqResult {
                id: question.id.clone(),
                text: question.text.clone(),
                found,
                is_right: question.faq_id.is_some().then_some(is_right),
                confidence: answer.confidence,
            });
            took.push(answer.took_ms);
            progress(0.5 + 0.5 * (done + 1) as f64 / set.questions.len() as f64);
        }
        let confidences = |is_in_scope: bool| -> Vec<f64> {
            questions
                .iter()
                .filter(|question| question.is_right.is_some() == is_in_scope)
                .map(|question| question.confidence)
                .collect()
        };
        let right = questions
            .iter()
            .filter(|question| question.is_right == Some(true))
            .count();
        let in_scope = confidences(true).len();
        Ok(FaqReport {
            entries: set.entries.len(),
            in_scope,
            top_1: right as f64 / in_scope.max(1) as f64,
            abstention: Abstention::of(&confidences(true), &confidences(false)),
            latency: Latency::of(took),
            questions,
        })
    }

    /// Stores one chunk for each text; texts of one name are one document.
    async fn store<'a>(
        &self,
        texts: Vec<(&'a str, String)>,
        progress: &(dyn Fn(f64) + Sync),
    ) -> Result<Stored<'a>, EvalError> {
        let mut stored = Stored {
            tenant_id: TenantId(Uuid::now_v7()),
            source_id: SourceId(Uuid::now_v7()),
            is_faq: false,
            name_of: HashMap::new(),
        };
        let mut document_of: HashMap<&str, DocumentId> = HashMap::new();
        for (number, batch) in texts.chunks(BATCH).enumerate() {
            let vectors = match self.embedder {
                Some(embedder) => {
                    let batch = batch.iter().map(|(_, text)| text.clone()).collect();
                    embedder
                        .embed_documents(batch)
                        .await?
                        .vectors
                        .into_iter()
                        .map(Some)
                        .collect()
                }
                None => vec![None; batch.len()],
            };
            let points = batch.iter().zip(vectors).map(|((name, text), vector)| {
                let document_id = *document_of
                    .entry(*name)
                    .or_insert_with(|| DocumentId(Uuid::now_v7()));
                stored.name_of.insert(document_id, *name);
                Point {
                    chunk_id: ChunkId(Uuid::now_v7()),
                    document_id,
                    source_id: stored.source_id,
                    text: text.clone(),
                    vector,
                    facets: Default::default(),
                }
            });
            self.index.upsert(stored.tenant_id, points.collect()).await?;
            progress(0.5 * ((number + 1) * BATCH).min(texts.len()) as f64 / texts.len() as f64);
        }
        Ok(stored)
    }

    async fn ask<'a>(&self, stored: &Stored<'a>, question: &str) -> Result<Asked<'a>, EvalError> {
        let started = Instant::now();
        let language = analysis::detect(question);
        let vector = match self.embedder {
            Some(embedder) => embedder.embed_query(question.to_owned()).await?.vectors.pop(),
            None => None,
        };
        let query = SearchQuery {
            text: question.to_owned(),
            vector,
            filter: Filter {
                sources: vec![stored.source_id],
                ..Filter::default()
            },
            limit: fuse::MIN_CANDIDATES,
            language: language.map(|language| language.subtag().to_owned()),
        };
        let candidates = self.index.search(stored.tenant_id, query).await?;
        let weight = match fuse::meaning_weight(question, language, self.languages()) {
            weight if stored.is_faq => fuse::between_questions(weight),
            weight => weight,
        };
        let hits = fuse::fuse(&candidates, weight);
        let background = Background::of(&candidates, weight);
        let confidence = hits.first().and_then(|hit| background.confidence(hit));
        Ok(Asked {
            found: documents(&hits, stored),
            confidence: confidence.map_or(0.0, |confidence| f64::from(confidence.value)),
            took_ms: started.elapsed().as_secs_f64() * 1e3,
        })
    }

    fn languages(&self) -> Option<&[Language]> {
        self.embedder.and_then(|embedder| embedder.languages())
    }
}

/// The documents of `hits` in their order, each once.
fn documents<'a>(hits: &[Hit], stored: &Stored<'a>) -> Vec<&'a str> {
    let mut found = Vec::new();
    for name in hits.iter().filter_map(|hit| stored.name_of.get(&hit.document_id)) {
        if found.len() == RANKED {
            break;
        }
        if !found.contains(name) {
            found.push(*name);
        }
    }
    found
}

impl Latency {
    fn of(mut took_ms: Vec<f64>) -> Self {
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
