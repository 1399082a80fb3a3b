//! What owners changed in a document's chunks, and finding the passage that each change belongs to.

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, Utc};

use super::passage_hash;
use crate::id::ChunkEditId;

/// What a change is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::knowledge) enum EditKind {
    /// Of a passage of the document.
    Change,
    /// A chunk of the owner's own.
    Addition,
}

impl EditKind {
    /// The name in the database.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Change => "change",
            Self::Addition => "addition",
        }
    }
}

/// One change.
#[derive(Clone, Debug)]
pub struct Edit {
    pub id: ChunkEditId,
    pub(in crate::knowledge) kind: EditKind,
    /// The passage as the document has it; none for an addition.
    pub original_text: Option<String>,
    pub(super) original_hash: Option<String>,
    /// How often the same passage comes before it.
    pub(super) repeat: i64,
    pub heading: Option<String>,
    /// The owner's words; none: only switched off.
    pub text: Option<String>,
    pub is_enabled: bool,
    pub is_stale: bool,
    pub(super) created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
}

impl Edit {
    /// A change of the passage that reads `original` and comes after `repeat` equal ones; nothing is changed yet.
    pub(super) fn of_passage(original: &str, repeat: i64, now: DateTime<Utc>) -> Self {
        Self {
            id: ChunkEditId::new(),
            kind: EditKind::Change,
            original_hash: Some(passage_hash(original)),
            original_text: Some(original.to_owned()),
            repeat,
            heading: None,
            text: None,
            is_enabled: true,
            is_stale: false,
            created_at: now,
            updated_at: now,
        }
    }

    pub(super) fn addition(text: String, heading: Option<String>, now: DateTime<Utc>) -> Self {
        Self {
            id: ChunkEditId::new(),
            kind: EditKind::Addition,
            original_hash: None,
            original_text: None,
            repeat: 0,
            heading,
            text: Some(text),
            is_enabled: true,
            is_stale: false,
            created_at: now,
            updated_at: now,
        }
    }
}

/// The changes to one document while it is cut.
#[derive(Default)]
pub(in crate::knowledge) struct Edits {
    changes: HashMap<(String, i64), Edit>,
    additions: Vec<Edit>,
    /// How often each passage came so far.
    seen: HashMap<String, i64>,
    found: HashSet<ChunkEditId>,
}

impl Edits {
    pub(in crate::knowledge) fn new(edits: Vec<Edit>) -> Self {
        let mut own = Self::default();
        for edit in edits {
            match (edit.kind, edit.original_hash.clone()) {
                (EditKind::Change, Some(hash)) => {
                    own.changes.insert((hash, edit.repeat), edit);
                }
                _ => own.additions.push(edit),
            }
        }
        own
    }

    /// The change of the next passage, which reads `text`.
    pub(in crate::knowledge) fn next_of(&mut self, text: &str) -> Option<&Edit> {
        if self.changes.is_empty() {
            return None;
        }
        let hash = passage_hash(text);
        let count = self.seen.entry(hash.clone()).or_default();
        let repeat = *count;
        *count += 1;
        let edit = self.changes.get(&(hash, repeat))?;
        self.found.insert(edit.id);
        Some(edit)
    }

    pub(in crate::knowledge) fn additions(&self) -> &[Edit] {
        &self.additions
    }

    /// Each change of a passage, and whether its passage did not come.
    pub(in crate::knowledge) fn verdicts(&self) -> Vec<(ChunkEditId, bool)> {
        self.changes
            .values()
            .map(|edit| (edit.id, !self.found.contains(&edit.id)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_000, 0).expect("a valid time")
    }

    #[test]
    fn a_change_belongs_to_its_own_one_of_equal_passages() {
        let second = Edit::of_passage("The same words.", 1, now());
        let mut edits = Edits::new(vec![second.clone()]);

        let found: Vec<Option<ChunkEditId>> =
            ["The same words.", "Others.", "The same words.", "The same words."]
                .iter()
                .map(|text| edits.next_of(text).map(|edit| edit.id))
                .collect();

        assert_eq!(found, [None, None, Some(second.id), None]);
        assert_eq!(edits.verdicts(), [(second.id, false)]);
    }

    #[test]
    fn a_change_whose_passage_does_not_come_is_stale() {
        let edit = Edit::of_passage("Gone.", 0, now());
        let mut edits = Edits::new(vec![
            edit.clone(),
            Edit::addition("Mine.".to_owned(), None, now()),
        ]);

        assert!(edits.next_of("Still here.").is_none());
        assert_eq!(edits.verdicts(), [(edit.id, true)]);
        assert_eq!(edits.additions().len(), 1);
    }
}
