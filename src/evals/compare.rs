//! Two runs of a set side by side.

use std::cmp::Ordering;
use std::collections::HashMap;

use super::{EvalResult, EvalRun, SetupDifference};
use crate::id::EvalQuestionId;

/// What changed from one run to another one.
#[derive(Debug)]
pub struct Comparison {
    pub before: EvalRun,
    pub after: EvalRun,
    /// Questions of either run, in the order of the later set.
    pub questions: Vec<QuestionChange>,
}

/// One question in both runs; none: the run did not ask it, or not yet.
#[derive(Debug)]
pub struct QuestionChange {
    pub question_id: EvalQuestionId,
    pub before: Option<EvalResult>,
    pub after: Option<EvalResult>,
}

impl Comparison {
    pub(super) fn of(before: (EvalRun, Vec<EvalResult>), after: (EvalRun, Vec<EvalResult>)) -> Self {
        let mut earlier: HashMap<EvalQuestionId, EvalResult> = HashMap::new();
        let mut order = Vec::new();
        for result in before.1 {
            order.push(result.question_id);
            earlier.insert(result.question_id, result);
        }
        let mut questions: Vec<QuestionChange> = after
            .1
            .into_iter()
            .map(|result| QuestionChange {
                question_id: result.question_id,
                before: earlier.remove(&result.question_id),
                after: Some(result),
            })
            .collect();
        let gone = order.into_iter().filter_map(|id| earlier.remove(&id));
        questions.extend(gone.map(|result| QuestionChange {
            question_id: result.question_id,
            before: Some(result),
            after: None,
        }));
        Self {
            before: before.0,
            after: after.0,
            questions,
        }
    }

    /// What answered the later run that did not answer the earlier one; none: of one of them nobody knows what answered.
    pub fn setup_difference(&self) -> Option<SetupDifference> {
        let (before, after) = (self.before.setup.as_ref()?, self.after.setup.as_ref()?);
        Some(before.difference(after))
    }

    /// Questions that both runs asked and of which they expected something else.
    pub fn relabelled(&self) -> i64 {
        let relabelled = self.questions.iter().filter(|change| change.is_relabelled());
        relabelled.count() as i64
    }

    /// Questions that both runs asked with the same expectation and whose outcome became better, and worse.
    pub fn better_and_worse(&self) -> (i64, i64) {
        let count = |wanted| {
            let became = self
                .questions
                .iter()
                .filter(|change| change.became() == Some(wanted));
            became.count() as i64
        };
        (count(Ordering::Greater), count(Ordering::Less))
    }
}

impl QuestionChange {
    /// Whether the runs expected something else of it: then their outcomes are not of one measure. Runs of versions that did
    /// not note what they expected say only whether there is an answer.
    pub fn is_relabelled(&self) -> bool {
        let (Some(before), Some(after)) = (&self.before, &self.after) else {
            return false;
        };
        let expected = before.expected.as_ref().zip(after.expected.as_ref());
        before.answerable != after.answerable
            || expected.is_some_and(|(before, after)| !before.is_same_as(after))
    }

    /// Whether the outcome is better than before (`Greater`), the same, or worse; none where only one run asked, or they expected
    /// something else. What the visitor is told comes first, then what was found, at last which passage of a document came
    /// first.
    pub fn became(&self) -> Option<Ordering> {
        if self.is_relabelled() {
            return None;
        }
        let (before, after) = (self.before.as_ref()?, self.after.as_ref()?);
        let says_it = |result: &EvalResult| result.answer.as_ref().and_then(|answer| answer.holds_expected);
        let by_told = where_both_tell(says_it(before), says_it(after));
        let by_goodness = by_told.then(goodness(after).total_cmp(&goodness(before)));
        let by_found = by_goodness.then(found(after).total_cmp(&found(before)));
        Some(by_found.then(where_both_tell(before.is_first_right, after.is_first_right)))
    }
}

/// How `after` is to `before`; equal where one of them does not tell.
fn where_both_tell(before: Option<bool>, after: Option<bool>) -> Ordering {
    match (before, after) {
        (Some(before), Some(after)) => after.cmp(&before),
        _ => Ordering::Equal,
    }
}

/// By nDCG@10, of which a visitor gets nothing where the chatbot declines; a question without an answer is right when it is
/// declined.
fn goodness(result: &EvalResult) -> f64 {
    match (result.measures, result.is_answered) {
        (Some(measures), true) => measures.ndcg_at_10,
        (Some(_), false) | (None, true) => 0.0,
        (None, false) => 1.0,
    }
}

/// By nDCG@10, answered or not.
fn found(result: &EvalResult) -> f64 {
    result.measures.map_or(0.0, |measures| measures.ndcg_at_10)
}

#[cfg(test)]
mod tests {
    use super::super::judging::tests::result;
    use super::super::outcome::GivenAnswer;
    use super::*;
    use crate::chat::AnswerSource;
    use crate::evals::Expected;
    use crate::id::{DocumentId, EvalRunId};

    fn run() -> EvalRun {
        EvalRun {
            id: EvalRunId::new(),
            state: "done".to_owned(),
            with_answers: false,
            embedding_model: None,
            setup: None,
            question_count: 0,
            done_count: 0,
            summary: None,
            error: None,
            created_at: "2026-11-20T10:00:00Z".parse().expect("a time"),
            finished_at: None,
        }
    }

    #[test]
    fn an_answer_that_turned_into_a_declination_is_worse_and_a_right_one_better() {
        let change = |before: &EvalResult, after: &EvalResult| QuestionChange {
            question_id: after.question_id,
            before: Some(before.clone()),
            after: Some(after.clone()),
        };
        let answered = result(Some(1), 0.9, true);
        let declined = result(Some(1), 0.1, false);
        assert_eq!(change(&answered, &declined).became(), Some(Ordering::Less));
        assert_eq!(change(&declined, &answered).became(), Some(Ordering::Greater));
        let declined_lower = result(Some(3), 0.1, false);
        assert_eq!(
            change(&declined_lower, &declined).became(),
            Some(Ordering::Greater),
            "it is found better, though nobody is told"
        );

        let told = |holds_expected| EvalResult {
            answer: Some(GivenAnswer {
                text: "Within 30 days.".to_owned(),
                source: AnswerSource::Model,
                cited: Vec::new(),
                holds_expected,
            }),
            ..answered.clone()
        };
        let (right, wrong) = (told(Some(true)), told(Some(false)));
        assert_eq!(change(&right, &wrong).became(), Some(Ordering::Less));
        assert_eq!(change(&wrong, &right).became(), Some(Ordering::Greater));
        assert_eq!(
            change(&wrong, &answered).became(),
            Some(Ordering::Equal),
            "one of the runs asked for no answers"
        );

        let other_row = EvalResult {
            is_first_right: Some(false),
            ..answered.clone()
        };
        assert_eq!(
            change(&other_row, &answered).became(),
            Some(Ordering::Greater),
            "another row of the same document came first"
        );
    }

    #[test]
    fn a_question_of_which_something_else_is_expected_became_neither_better_nor_worse() {
        let expected = Expected {
            question: "May goods be returned?".to_owned(),
            document_ids: vec![DocumentId::new(), DocumentId::new()],
            answer: None,
            answerable: true,
            groups: Vec::new(),
        };
        let corrected = Expected {
            document_ids: expected.document_ids[..1].to_vec(),
            ..expected.clone()
        };
        let reordered = Expected {
            document_ids: expected.document_ids.iter().rev().copied().collect(),
            ..expected.clone()
        };
        let found_third = EvalResult {
            expected: Some(expected.clone()),
            ..result(Some(3), 0.5, true)
        };
        let became = |expected| {
            let found_first = EvalResult {
                expected,
                question_id: found_third.question_id,
                ..result(Some(1), 0.5, true)
            };
            let compared = Comparison::of((run(), vec![found_third.clone()]), (run(), vec![found_first]));
            let change = compared.questions[0].became();
            (change, compared.relabelled(), compared.better_and_worse())
        };

        assert_eq!(became(Some(corrected)), (None, 1, (0, 0)));
        let better = (Some(Ordering::Greater), 0, (1, 0));
        assert_eq!(became(Some(reordered)), better);
        assert_eq!(became(None), better, "a run of an earlier version");
        let no_longer_answerable = EvalResult {
            question_id: found_third.question_id,
            ..result(None, 0.5, true)
        };
        let change = QuestionChange {
            question_id: found_third.question_id,
            before: Some(found_third.clone()),
            after: Some(no_longer_answerable),
        };
        assert_eq!(change.became(), None);
    }

    #[test]
    fn questions_of_both_runs_are_paired_and_judged() {
        let same = result(Some(1), 0.9, true);
        let lower = result(Some(3), 0.5, true);
        let higher = EvalResult {
            measures: result(Some(1), 0.5, true).measures,
            ..lower.clone()
        };
        let answered = result(None, 0.5, true);
        let declined = EvalResult {
            is_answered: false,
            ..answered.clone()
        };
        let (gone, new) = (result(Some(1), 0.1, true), result(Some(1), 0.1, true));

        let compared = Comparison::of(
            (run(), vec![same.clone(), lower, declined, gone.clone()]),
            (run(), vec![new.clone(), same, higher, answered]),
        );

        let became: Vec<_> = compared.questions.iter().map(QuestionChange::became).collect();
        assert_eq!(
            became,
            [
                None,
                Some(Ordering::Equal),
                Some(Ordering::Greater),
                Some(Ordering::Less),
                None
            ]
        );
        assert_eq!(compared.better_and_worse(), (1, 1));
        assert_eq!(compared.questions[0].after.as_ref(), Some(&new));
        assert_eq!(compared.questions[4].before.as_ref(), Some(&gone));
    }
}
