//! How good an answer to one question is, and what the answers of a run sum up to.

use std::collections::BTreeMap;

use retrieval::analysis::Words;
use retrieval::eval::{Abstention, Measures};

use super::{EvalMeasures, EvalResult, EvalSummary, Expected};
use crate::id::DocumentId;
use crate::knowledge::Passage;

/// Documents in the order of their best passages, each once.
pub(super) fn ranking(passages: &[Passage]) -> Vec<DocumentId> {
    let mut ranking: Vec<DocumentId> = Vec::new();
    for passage in passages {
        if !ranking.contains(&passage.document_id) {
            ranking.push(passage.document_id);
        }
    }
    ranking
}

/// The documents that are right: those that were named, else the first one whose passage says the expected answer (as
/// answers are matched in open-domain question answering: Chen and others, ACL 2017).
pub(super) fn right_documents(expected: &Expected, passages: &[Passage]) -> Vec<DocumentId> {
    if !expected.document_ids.is_empty() {
        return expected.document_ids.clone();
    }
    let Some(answer) = &expected.answer else {
        return Vec::new();
    };
    let answer = Words::of(answer);
    let says_it = passages.iter().find(|passage| hold(&passage.text, &answer));
    says_it.map(|passage| passage.document_id).into_iter().collect()
}

/// Whether the `first` passage says the expected answer; none: none is expected in words.
pub(super) fn is_first_right(expected: &Expected, first: Option<&Passage>) -> Option<bool> {
    let answer = expected.answer.as_ref()?;
    Some(first.is_some_and(|passage| says(&passage.text, answer)))
}

/// Of one ranking, where `right` are the right documents. Without any, nothing that was found is right.
pub(super) fn measure(ranking: &[DocumentId], right: &[DocumentId]) -> EvalMeasures {
    let ranking: Vec<String> = ranking.iter().map(DocumentId::to_string).collect();
    let right: BTreeMap<String, f64> = right.iter().map(|id| (id.to_string(), 1.0)).collect();
    Measures::of(&ranking, &right).into()
}

/// Whether `text` says `wanted`, word by word, whatever stands between the words. In scripts that put no spaces between
/// words each character is one.
pub(super) fn says(text: &str, wanted: &str) -> bool {
    hold(text, &Words::of(wanted))
}

/// No words are said by nobody.
fn hold(text: &str, wanted: &Words) -> bool {
    !wanted.is_empty() && Words::of(text).hold(wanted)
}

impl EvalSummary {
    pub(super) fn of(results: &[EvalResult]) -> Self {
        let measures: Vec<Measures> = results
            .iter()
            .filter_map(|result| result.measures.map(Measures::from))
            .collect();
        let count = |holds: &dyn Fn(&EvalResult) -> bool| {
            results.iter().filter(|result| holds(result)).count() as i64
        };
        let confidences = |answerable: bool| -> Vec<f64> {
            let of_kind = results.iter().filter(|result| result.answerable == answerable);
            // Where nothing was found, nothing speaks for an answer.
            of_kind.map(|result| result.confidence.unwrap_or(0.0)).collect()
        };
        let judged = |result: &EvalResult| result.answer.as_ref().and_then(|answer| answer.holds_expected);
        let mut took: Vec<f64> = results.iter().map(|result| result.latency_ms).collect();
        took.sort_by(f64::total_cmp);
        let has_answers = results.iter().any(|result| result.answer.is_some());
        Self {
            answerable: count(&|result| result.answerable),
            measures: Measures::mean(&measures).into(),
            faq_accuracy: share(results.iter().filter_map(|result| result.is_first_right)),
            answered: count(&|result| result.answerable && result.is_answered),
            unanswerable: count(&|result| !result.answerable),
            declined: count(&|result| !result.answerable && !result.is_answered),
            auroc: Abstention::of(&confidences(true), &confidences(false)).map(|abstention| abstention.auroc),
            failed: count(&|result| result.failure.is_some()),
            right_answers: has_answers.then(|| count(&|result| judged(result) == Some(true))),
            expected_answers: count(&|result| judged(result).is_some()),
            latency_p50_ms: at_share(&took, 0.5),
            latency_p95_ms: at_share(&took, 0.95),
        }
    }
}

/// How many of them hold; none without any.
fn share(all: impl Iterator<Item = bool>) -> Option<f64> {
    let (holding, count) = all.fold((0_u32, 0_u32), |(holding, count), holds| {
        (holding + u32::from(holds), count + 1)
    });
    (count > 0).then(|| f64::from(holding) / f64::from(count))
}

/// The value below which this share of the sorted `values` lies; 0 without any.
fn at_share(values: &[f64], share: f64) -> f64 {
    let place = (values.len() as f64 * share) as usize;
    let last = values.len().saturating_sub(1);
    values.get(place.min(last)).copied().unwrap_or(0.0)
}

impl From<Measures> for EvalMeasures {
    fn from(measures: Measures) -> Self {
        Self {
            // The sum of no gains is a negative zero, which would compare as less than a zero.
            ndcg_at_10: measures.ndcg_at_10 + 0.0,
            recall_at_5: measures.recall_at_5,
            recall_at_10: measures.recall_at_10,
            recall_at_100: measures.recall_at_100,
            mrr_at_10: measures.mrr_at_10,
        }
    }
}

impl From<EvalMeasures> for Measures {
    fn from(measures: EvalMeasures) -> Self {
        Self {
            ndcg_at_10: measures.ndcg_at_10,
            recall_at_5: measures.recall_at_5,
            recall_at_10: measures.recall_at_10,
            recall_at_100: measures.recall_at_100,
            mrr_at_10: measures.mrr_at_10,
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::id::EvalQuestionId;
    use crate::knowledge::sample_passage as passage;

    /// What came of a question whose first right document stands at `rank`; of one without an answer for `None`.
    pub(in crate::evals) fn result(rank: Option<i64>, confidence: f64, is_answered: bool) -> EvalResult {
        let right = [DocumentId::new()];
        let mut ranking: Vec<DocumentId> = (1..rank.unwrap_or(1)).map(|_| DocumentId::new()).collect();
        ranking.extend(right);
        EvalResult {
            question_id: EvalQuestionId::new(),
            question: "May goods be returned?".to_owned(),
            conversation_id: None,
            answerable: rank.is_some(),
            expected: None,
            found: ranking.clone(),
            rank,
            measures: rank.map(|_| measure(&ranking, &right)),
            is_first_right: rank.map(|rank| rank == 1),
            confidence: Some(confidence),
            is_answered,
            latency_ms: 1.0,
            degraded: false,
            answer: None,
            failure: None,
        }
    }

    #[test]
    fn a_run_sums_up_ranks_decisions_and_confidences() {
        let results = [
            result(Some(1), 0.9, true),
            result(Some(2), 0.4, false),
            result(None, 0.6, true),
            result(None, 0.1, false),
        ];

        let summary = EvalSummary::of(&results);

        assert_eq!((summary.answerable, summary.answered), (2, 1));
        assert_eq!((summary.unanswerable, summary.declined), (2, 1));
        assert_eq!(summary.measures.mrr_at_10, 0.75);
        assert_eq!(summary.measures.recall_at_5, 1.0);
        assert_eq!(summary.faq_accuracy, Some(0.5));
        assert_eq!(summary.auroc, Some(0.75));
        assert_eq!((summary.right_answers, summary.latency_p95_ms), (None, 1.0));
        assert_eq!(EvalSummary::of(&[]), EvalSummary::default());
    }

    #[test]
    fn to_find_nothing_is_as_bad_as_to_find_what_is_wrong() {
        let right = [DocumentId::new()];

        let nothing = measure(&[], &right).ndcg_at_10;
        let wrong = measure(&[DocumentId::new()], &right).ndcg_at_10;

        assert!(nothing.total_cmp(&wrong).is_eq(), "{nothing} and {wrong}");
    }

    #[test]
    fn an_answer_is_said_by_its_words_in_their_order() {
        assert!(says("Goods may be returned within 30\ndays.", "Within 30 days"));
        assert!(!says("Within 300 days.", "within 30"));
        assert!(!says("days 30 within", "within 30 days"));
        assert!(!says("Anything.", " ... "), "no words are said by nobody");
    }

    #[test]
    fn an_answer_is_said_in_every_script_and_with_or_without_its_accents() {
        for (text, answer) in [
            ("您可以在三十天内退货。", "三十天"),
            ("商品は30日以内に返品できます", "30日以内"),
            ("ลูกค้าสามารถคืนสินค้าได้", "คืนสินค้า"),
            ("상품은 30일 이내에 반품할 수 있습니다", "30일 이내"),
            ("Ein Café in der Straße", "cafe in der Strasse"),
            ("Within \u{664}\u{660} days", "40 days"),
        ] {
            assert!(says(text, answer), "{answer:?} in {text:?}");
        }
        assert!(!says("您可以在三十天内退货。", "四十天"));
    }

    #[test]
    fn the_first_document_that_says_the_answer_is_right_also_without_spaces() {
        let passages = ["运费由客户承担。", "您可以在三十天内退货。"].map(passage);
        let expected = Expected {
            question: "多少天内可以退货？".to_owned(),
            document_ids: Vec::new(),
            answer: Some("三十天".to_owned()),
            answerable: true,
            groups: Vec::new(),
        };

        assert_eq!(right_documents(&expected, &passages), [passages[1].document_id]);
        assert_eq!(is_first_right(&expected, passages.first()), Some(false));
        assert_eq!(is_first_right(&expected, passages.last()), Some(true));
        assert_eq!(is_first_right(&expected, None), Some(false));
        let in_no_words = Expected {
            answer: None,
            ..expected
        };
        assert_eq!(is_first_right(&in_no_words, passages.first()), None);
    }
}
