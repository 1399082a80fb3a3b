//! A test set for fixed answers: `faqs.jsonl` and `queries.jsonl`, each question with the entry that answers it, or none.

use std::path::Path;

use serde::Deserialize;

use super::set::{HasId, SetError, read_lines};

/// Entries and questions.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct FaqSet {
    pub entries: Vec<FaqEntry>,
    pub questions: Vec<FaqQuestion>,
}

/// One fixed answer with the wordings of its question.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct FaqEntry {
    #[serde(rename = "_id")]
    pub id: String,
    pub question: String,
    #[serde(default)]
    pub variants: Vec<String>,
    #[serde(default)]
    pub answer: String,
}

/// What somebody asks.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct FaqQuestion {
    #[serde(rename = "_id")]
    pub id: String,
    pub text: String,
    /// The entry that answers it; `None`: no entry does.
    pub faq_id: Option<String>,
    /// Further entries that do.
    #[serde(default)]
    pub also: Vec<String>,
}

impl FaqSet {
    /// Reads the set in `dir`.
    pub fn read(dir: &Path) -> Result<Self, SetError> {
        Ok(Self {
            entries: read_lines(&dir.join("faqs.jsonl"))?,
            questions: read_lines(&dir.join("queries.jsonl"))?,
        })
    }

    /// Whether `dir` holds such a set.
    pub fn is_in(dir: &Path) -> bool {
        dir.join("faqs.jsonl").exists()
    }
}

impl FaqEntry {
    /// All wordings of its question.
    pub fn wordings(&self) -> impl Iterator<Item = &str> {
        std::iter::once(self.question.as_str()).chain(self.variants.iter().map(String::as_str))
    }

    /// Question and answer together, where there is an answer.
    pub fn whole(&self) -> Option<String> {
        let has_answer = !self.answer.trim().is_empty();
        has_answer.then(|| format!("{} {}", self.question, self.answer))
    }
}

impl FaqQuestion {
    /// Whether the entry with this id answers it.
    pub fn is_answered_by(&self, entry_id: &str) -> bool {
        self.faq_id.as_deref() == Some(entry_id) || self.also.iter().any(|id| id == entry_id)
    }
}

impl HasId for FaqEntry {
    fn id(&self) -> &str {
        &self.id
    }
}

impl HasId for FaqQuestion {
    fn id(&self) -> &str {
        &self.id
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_of_entries_is_read() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).expect("written");
        assert!(!FaqSet::is_in(dir.path()));
        write(
            "faqs.jsonl",
            "{\"_id\": \"f1\", \"question\": \"Where?\", \"variants\": [\"Which place?\"], \"answer\": \"Here.\"}\n",
        );
        write(
            "queries.jsonl",
            "{\"_id\": \"q1\", \"text\": \"where\", \"faq_id\": \"f0\", \"also\": [\"f1\"]}\n{\"_id\": \"q2\", \"text\": \"why\", \"faq_id\": null}\n",
        );

        let set = FaqSet::read(dir.path()).expect("a set");

        assert!(FaqSet::is_in(dir.path()));
        assert_eq!(
            set.entries[0].wordings().collect::<Vec<_>>(),
            ["Where?", "Which place?"]
        );
        assert!(set.questions[0].is_answered_by("f1") && !set.questions[1].is_answered_by("f1"));
    }
}
