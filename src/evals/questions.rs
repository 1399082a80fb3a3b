//! The questions of a set, and what must hold of them.

use std::collections::{BTreeSet, HashMap};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::app::App;
use crate::db::Write;
use crate::error::{Error, Result};
use crate::id::{ChatbotId, ConversationId, DocumentId, EvalQuestionId, TenantId};
use crate::knowledge::{self, labels};

/// Of one set, of one question, and of one expected answer, at most.
const MAX_QUESTIONS: usize = 500;
const MAX_DOCUMENTS: usize = 50;
const MAX_ANSWER_CHARS: usize = 2_000;

/// One question, and what is expected of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct EvalQuestion {
    /// Stays while the question's text stays, so that runs can be compared.
    pub id: EvalQuestionId,
    /// The conversation that it was taken over from, with which it goes; null: the owner's own. Stays with the text, too.
    #[serde(default)]
    pub conversation_id: Option<ConversationId>,
    #[serde(flatten)]
    pub expected: Expected,
}

/// A question with what its owner expects.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(as = EvalExpectation)]
pub struct Expected {
    pub question: String,
    /// The documents that hold the answer.
    pub document_ids: Vec<DocumentId>,
    /// What the answer has to say, in words that stand in the documents.
    pub answer: Option<String>,
    /// False: nothing the chatbot knows answers it, and it should say so.
    pub answerable: bool,
    /// Access groups of the visitor who asks; empty: what is open to everyone answers.
    #[serde(default)]
    pub groups: Vec<String>,
}

/// The questions, when all hold; those whose text `present` has keep their ids, and where they come from.
pub(super) async fn checked(
    app: &App,
    write: &mut Write,
    holders: (TenantId, ChatbotId),
    mut questions: Vec<Expected>,
    present: &[EvalQuestion],
) -> Result<Vec<EvalQuestion>> {
    if questions.len() > MAX_QUESTIONS {
        return Err(Error::invalid(
            "too_many_questions",
            "questions",
            format!("a test set has at most {MAX_QUESTIONS} questions: make another one"),
        ));
    }
    for (position, question) in questions.iter_mut().enumerate() {
        let groups = std::mem::take(&mut question.groups);
        question.groups = labels::check_names(&format!("questions[{position}].groups"), groups)?;
    }
    let mut texts = BTreeSet::new();
    let mut named: BTreeSet<DocumentId> = BTreeSet::new();
    for (position, question) in questions.iter().enumerate() {
        question.check(app.config.chat.message_limit_chars, position)?;
        if !texts.insert(question.question.as_str()) {
            return Err(Error::invalid(
                "question_twice",
                &format!("questions[{position}].question"),
                "this question is in the set already",
            ));
        }
        named.extend(&question.document_ids);
    }
    // A document may have been deleted since it was expected: then the question stays, and is missed.
    let before: BTreeSet<DocumentId> = present
        .iter()
        .flat_map(|own| own.expected.document_ids.iter().copied())
        .collect();
    let new: Vec<DocumentId> = named.difference(&before).copied().collect();
    if knowledge::list_existing(write, holders, &new).await?.len() < new.len() {
        return Err(Error::NotFound("document"));
    }
    let known: HashMap<&str, &EvalQuestion> = present
        .iter()
        .map(|own| (own.expected.question.as_str(), own))
        .collect();
    let with_id = |expected: Expected| {
        let known = known.get(expected.question.as_str());
        EvalQuestion {
            id: known.map_or_else(EvalQuestionId::new, |known| known.id),
            conversation_id: known.and_then(|known| known.conversation_id),
            expected,
        }
    };
    Ok(questions.into_iter().map(with_id).collect())
}

impl Expected {
    /// Whether what is right is the same, and for the same visitors; the order of documents and groups says nothing.
    pub(super) fn is_same_as(&self, other: &Self) -> bool {
        let of = |expected: &Self| {
            let documents: BTreeSet<DocumentId> = expected.document_ids.iter().copied().collect();
            let groups: BTreeSet<String> = expected.groups.iter().cloned().collect();
            (documents, expected.answer.clone(), expected.answerable, groups)
        };
        of(self) == of(other)
    }

    fn check(&self, most_chars: usize, position: usize) -> Result<()> {
        let field = |name: &str| format!("questions[{position}].{name}");
        let chars = self.question.chars().count();
        if self.question.trim().is_empty() || chars > most_chars {
            return Err(Error::invalid(
                "invalid_question",
                &field("question"),
                format!("a question has 1 to {most_chars} characters"),
            ));
        }
        if self.document_ids.len() > MAX_DOCUMENTS {
            return Err(Error::invalid(
                "too_many_documents",
                &field("document_ids"),
                format!("at most {MAX_DOCUMENTS} documents are expected of one question"),
            ));
        }
        let answer = self.answer.as_deref();
        if answer.is_some_and(|answer| answer.trim().is_empty() || answer.chars().count() > MAX_ANSWER_CHARS)
        {
            return Err(Error::invalid(
                "invalid_answer",
                &field("answer"),
                format!(
                    "an expected answer has 1 to {MAX_ANSWER_CHARS} characters; leave it out when none is"
                ),
            ));
        }
        let expects = !self.document_ids.is_empty() || answer.is_some();
        if self.answerable != expects {
            return Err(Error::invalid(
                "invalid_expectation",
                &field("answerable"),
                "name the documents or the answer that are expected, or say \"answerable\": false and name neither",
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expected() -> Expected {
        Expected {
            question: "May goods be returned?".to_owned(),
            document_ids: Vec::new(),
            answer: Some("within 30 days".to_owned()),
            answerable: true,
            groups: Vec::new(),
        }
    }

    #[test]
    fn a_question_expects_something_or_that_nothing_answers_it() {
        let good = expected();
        let none = Expected {
            answer: None,
            answerable: false,
            ..expected()
        };
        for fine in [&good, &none] {
            fine.check(100, 0).expect("it holds");
        }
        let nothing = Expected {
            answer: None,
            ..expected()
        };
        let both = Expected {
            answerable: false,
            ..expected()
        };
        let empty = Expected {
            question: " ".to_owned(),
            ..expected()
        };
        for broken in [nothing, both, empty] {
            assert!(broken.check(100, 0).is_err(), "{broken:?}");
        }
        assert!(good.check(5, 0).is_err(), "too long");
    }
}
