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

    /// Questions that both runs asked and whose outcome became better, and worse.
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
    /// Whether the outcome is better than before (`Greater`), the same, or worse; none where only one run asked. What the visitor
    /// is told comes first, then what was found, at last which passage of a document came first.
    pub fn became(&self) -> Option<Ordering> {
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
    use crate::id::EvalRunId;

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
