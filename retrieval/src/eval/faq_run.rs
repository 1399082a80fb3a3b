//! Makes a bank of a set of fixed answers, asks its questions of it, and reports.

use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::FaqSet;
use super::faq::FaqEntry;
use super::measures::Abstention;
use super::run::{BATCH, EvalError, Latency, Runner};
use crate::faq::{FaqBank, FaqText, FaqTexts};

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

impl Runner<'_> {
    /// Measures a set of fixed answers. The index is not asked: a bank is compared whole.
    pub async fn measure_faq(
        &self,
        set: &FaqSet,
        progress: &(dyn Fn(f64) + Sync),
    ) -> Result<FaqReport, EvalError> {
        let bank = self.bank(&set.entries, progress).await?;
        let mut questions = Vec::with_capacity(set.questions.len());
        let mut took = Vec::with_capacity(set.questions.len());
        for (done, question) in set.questions.iter().enumerate() {
            let started = Instant::now();
            let vector = self.embed_question(&question.text).await?;
            let ranked = bank.rank(&question.text, vector.as_deref(), self.languages());
            took.push(started.elapsed().as_secs_f64() * 1e3);
            // An entry that has nothing in common with the question was not found.
            let best = ranked.first().filter(|best| best.score > 0.0);
            let found = best.map(|best| set.entries[best.entry].id.clone());
            let is_right = found.as_deref().is_some_and(|id| question.is_answered_by(id));
            questions.push(FaqResult {
                id: question.id.clone(),
                text: question.text.clone(),
                found,
                is_right: question.faq_id.is_some().then_some(is_right),
                confidence: best.map_or(0.0, |best| f64::from(best.confidence)),
            });
            progress(0.5 + 0.5 * (done + 1) as f64 / set.questions.len() as f64);
        }
        Ok(report(set, questions, Latency::of(took)))
    }

    async fn bank(
        &self,
        entries: &[FaqEntry],
        progress: &(dyn Fn(f64) + Sync),
    ) -> Result<FaqBank, EvalError> {
        let mut texts: Vec<FaqTexts> = Vec::with_capacity(entries.len());
        for batch in entries.chunks(BATCH) {
            let lines = batch.iter().flat_map(|entry| {
                let wordings = entry.wordings().map(str::to_owned);
                wordings.chain(entry.whole())
            });
            let lines: Vec<String> = lines.collect();
            let vectors = self.embed(lines.clone()).await?;
            let mut lines = lines
                .into_iter()
                .zip(vectors)
                .map(|(text, vector)| FaqText { text, vector });
            for entry in batch {
                texts.push(FaqTexts {
                    wordings: lines.by_ref().take(entry.wordings().count()).collect(),
                    whole: entry.whole().and_then(|_| lines.next()),
                });
            }
            progress(0.5 * texts.len() as f64 / entries.len() as f64);
        }
        Ok(FaqBank::new(texts, self.unrelated().await?))
    }
}

fn report(set: &FaqSet, questions: Vec<FaqResult>, latency: Latency) -> FaqReport {
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
    FaqReport {
        entries: set.entries.len(),
        in_scope,
        top_1: right as f64 / in_scope.max(1) as f64,
        abstention: Abstention::of(&confidences(true), &confidences(false)),
        latency,
        questions,
    }
}
