//! What comes of questions: of one, of one in words, and of all of a run.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Expected;
use crate::chat::AnswerSource;
use crate::id::{ConversationId, DocumentId, EvalQuestionId};

/// What came of one question.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct EvalResult {
    pub question_id: EvalQuestionId,
    pub question: String,
    /// The conversation that the question was taken over from: this result goes with it. Null: the owner's own question.
    #[serde(default)]
    pub conversation_id: Option<ConversationId>,
    pub answerable: bool,
    /// What was expected when the question was asked; null: the run is of a version that did not note it.
    #[serde(default)]
    pub expected: Option<Expected>,
    /// The first documents that were found, best first, at most ten.
    pub found: Vec<DocumentId>,
    /// Place of the first right document; null: not among what was found, or none is right.
    pub rank: Option<i64>,
    /// Null for a question that has no answer.
    pub measures: Option<EvalMeasures>,
    /// Whether the passage that the chatbot's answer would begin with says the expected answer, as the right entry of questions and
    /// answers does; where it would say that it does not know, the first that it looked at. Null: no answer was expected in words, or the run is of a version that did not look.
    #[serde(default)]
    pub is_first_right: Option<bool>,
    /// How sure a chat may be of the passage that it is surest of, in [0, 1]; null: nothing tells.
    pub confidence: Option<f64>,
    /// Whether the chatbot would answer rather than say that it does not know.
    pub is_answered: bool,
    pub latency_ms: f64,
    /// The search had to do without something, such as the embedding model or the reranker.
    pub degraded: bool,
    /// What the chatbot said; null when the run asked for no answers, or when it gave none.
    pub answer: Option<GivenAnswer>,
    /// Why the chatbot gave no answer to this question, such as that its model refused it; null: it did, or was not asked.
    #[serde(default)]
    pub failure: Option<String>,
}

/// What the chatbot said to a question.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(as = EvalAnswer)]
pub struct GivenAnswer {
    pub text: String,
    pub source: AnswerSource,
    /// The documents that it cites.
    pub cited: Vec<DocumentId>,
    /// Whether it says what was expected; null: no answer was expected in words.
    pub holds_expected: Option<bool>,
}

/// Of one question, or the mean of several.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct EvalMeasures {
    pub ndcg_at_10: f64,
    pub recall_at_5: f64,
    pub recall_at_10: f64,
    pub recall_at_100: f64,
    pub mrr_at_10: f64,
}

/// What a run's questions sum up to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct EvalSummary {
    /// Questions that have an answer: what `measures` are the mean of.
    pub answerable: i64,
    pub measures: EvalMeasures,
    /// Of the questions whose answer is expected in words: the share of those to which an answer would begin with a passage that
    /// says it, as the right entry of questions and answers does (top-1); null without any.
    #[serde(default)]
    pub faq_accuracy: Option<f64>,
    /// Of the questions that have an answer: those that the chatbot would answer.
    pub answered: i64,
    pub unanswerable: i64,
    /// Of the questions that have none: those to which it would say that it does not know.
    pub declined: i64,
    /// How often the confidence is higher for a question that has an answer than for one that has none; null without both.
    pub auroc: Option<f64>,
    /// Questions to which the chatbot gave no answer, since its model refused them. They are in no figure of answers.
    #[serde(default)]
    pub failed: i64,
    /// Of the answers whose words were expected: how many say it; null when the run asked for no answers.
    pub right_answers: Option<i64>,
    pub expected_answers: i64,
    pub latency_p50_ms: f64,
    pub latency_p95_ms: f64,
}
