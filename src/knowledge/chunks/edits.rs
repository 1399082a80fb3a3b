//! What owners changed in a document's chunks, and finding the passage that each change belongs to.

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, Utc};

use super::passage_hash;
use crate::id::ChunkEditId;

/// Passages are the same but for a few words when they share at least this share of the longer one's words, in percent.
const SAME_WORDS_PERCENT: usize = 80;

/// Pairs of passages that are compared for one document.
const MOST_COMPARISONS: usize = 20_000;

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
    /// Above the passage when it was changed, or above the owner's own chunk.
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
    pub(super) fn of_passage(
        original: &str,
        heading: Option<String>,
        repeat: i64,
        now: DateTime<Utc>,
    ) -> Self {
        Self {
            id: ChunkEditId::new(),
            kind: EditKind::Change,
            original_hash: Some(passage_hash(original)),
            original_text: Some(original.to_owned()),
            repeat,
            heading,
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
    /// Passages that changes have moved on to.
    followed: HashMap<ChunkEditId, Passage>,
}

/// A passage of a document as a change knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::knowledge) struct Passage {
    pub text: String,
    pub heading: Option<String>,
    /// How often the same comes before it.
    pub repeat: i64,
}

/// What became of a change when its document was cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::knowledge) struct Verdict {
    pub id: ChunkEditId,
    /// Its passage did not come.
    pub is_stale: bool,
    /// It belongs to this passage from now on.
    pub moved_to: Option<Passage>,
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

    /// Whether a passage that was switched off did not come so far.
    pub(in crate::knowledge) fn has_lost(&self) -> bool {
        let mut changes = self.changes.values();
        changes.any(|edit| !edit.is_enabled && !self.found.contains(&edit.id))
    }

    pub(in crate::knowledge) fn additions(&self) -> &[Edit] {
        &self.additions
    }

    /// Finds the new words of passages that were switched off and did not come: what an owner kept out of answers must
    /// not come back by a corrected word. `new` are passages that the document did not have before and that no change
    /// belongs to; each change is returned with the index of the one that it belongs to now.
    pub(in crate::knowledge) fn follow(&mut self, new: &[Passage]) -> Vec<(usize, Edit)> {
        let mut lost: Vec<&Edit> = self
            .changes
            .values()
            .filter(|edit| !edit.is_enabled && !self.found.contains(&edit.id))
            .collect();
        lost.sort_by_key(|edit| edit.id.0);
        let mut taken = HashSet::new();
        let mut followed = Vec::new();
        let mut comparisons = 0;
        for edit in lost {
            let original = Words::of(edit.original_text.as_deref().unwrap_or_default());
            let mut best: Option<(usize, usize)> = None;
            for (index, passage) in new.iter().enumerate() {
                comparisons += 1;
                if comparisons > MOST_COMPARISONS {
                    break;
                }
                if taken.contains(&index) || passage.heading != edit.heading {
                    continue;
                }
                let shared = original.shared_with(&Words::of(&passage.text));
                if shared.is_some_and(|shared| best.is_none_or(|(_, most)| shared > most)) {
                    best = shared.map(|shared| (index, shared));
                }
            }
            if let Some((index, _)) = best {
                taken.insert(index);
                followed.push((index, edit.clone()));
            }
        }
        for (index, edit) in &followed {
            self.found.insert(edit.id);
            self.followed.insert(edit.id, new[*index].clone());
        }
        followed
    }

    pub(in crate::knowledge) fn verdicts(&self) -> Vec<Verdict> {
        let verdict = |edit: &Edit| Verdict {
            id: edit.id,
            is_stale: !self.found.contains(&edit.id),
            moved_to: self.followed.get(&edit.id).cloned(),
        };
        self.changes.values().map(verdict).collect()
    }
}

/// The words of a passage in their order.
struct Words<'a>(Vec<&'a str>);

impl<'a> Words<'a> {
    fn of(text: &'a str) -> Self {
        Self(text.split_whitespace().collect())
    }

    /// How many words two passages share in the same order, if these are most of both.
    fn shared_with(&self, other: &Words<'_>) -> Option<usize> {
        let longer = self.0.len().max(other.0.len());
        let is_most = |shared: usize| shared * 100 >= longer * SAME_WORDS_PERCENT;
        // Neither the count of words nor the words in any order can be less than those in order: both are quick to tell.
        if longer == 0 || !is_most(self.0.len().min(other.0.len())) {
            return None;
        }
        let mut counts: HashMap<&str, usize> = HashMap::with_capacity(self.0.len());
        self.0
            .iter()
            .for_each(|word| *counts.entry(word).or_default() += 1);
        let mut in_any_order = 0;
        for word in &other.0 {
            if let Some(left) = counts.get_mut(word).filter(|left| **left > 0) {
                *left -= 1;
                in_any_order += 1;
            }
        }
        if !is_most(in_any_order) {
            return None;
        }
        Some(self.longest_common_subsequence(other)).filter(|shared| is_most(*shared))
    }

    fn longest_common_subsequence(&self, other: &Words<'_>) -> usize {
        let mut row = vec![0; other.0.len() + 1];
        for word in &self.0 {
            let mut diagonal = 0;
            for (column, candidate) in other.0.iter().enumerate() {
                let above = row[column + 1];
                row[column + 1] = if word == candidate {
                    diagonal + 1
                } else {
                    above.max(row[column])
                };
                diagonal = above;
            }
        }
        row.last().copied().unwrap_or_default()
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
        let second = Edit::of_passage("The same words.", None, 1, now());
        let mut edits = Edits::new(vec![second.clone()]);

        let found: Vec<Option<ChunkEditId>> =
            ["The same words.", "Others.", "The same words.", "The same words."]
                .iter()
                .map(|text| edits.next_of(text).map(|edit| edit.id))
                .collect();

        assert_eq!(found, [None, None, Some(second.id), None]);
        assert_eq!(edits.verdicts(), [verdict(&second, false, None)]);
    }

    #[test]
    fn a_change_whose_passage_does_not_come_is_stale() {
        let edit = Edit::of_passage("Gone.", None, 0, now());
        let mut edits = Edits::new(vec![
            edit.clone(),
            Edit::addition("Mine.".to_owned(), None, now()),
        ]);

        assert!(edits.next_of("Still here.").is_none());
        assert_eq!(edits.verdicts(), [verdict(&edit, true, None)]);
        assert_eq!(edits.additions().len(), 1);
    }

    fn verdict(edit: &Edit, is_stale: bool, moved_to: Option<Passage>) -> Verdict {
        Verdict {
            id: edit.id,
            is_stale,
            moved_to,
        }
    }

    fn passage(text: &str, heading: &str) -> Passage {
        Passage {
            text: text.to_owned(),
            heading: Some(heading.to_owned()),
            repeat: 0,
        }
    }

    #[test]
    fn what_was_switched_off_stays_off_when_a_word_of_it_changes() {
        let words = "Our offer holds until the end of March and only while stocks last";
        let mut off = Edit::of_passage(words, Some("Offers".to_owned()), 0, now());
        off.is_enabled = false;
        let corrected = passage(&words.replace("March", "April"), "Offers");
        let elsewhere = passage(&words.replace("March", "May"), "Archive");
        let other = passage(
            "Our shop opens at ten and closes at six on every day but Sunday",
            "Offers",
        );
        let backwards = passage(&words.split(' ').rev().collect::<Vec<_>>().join(" "), "Offers");

        let mut edits = Edits::new(vec![off.clone()]);
        let followed = edits.follow(&[
            elsewhere.clone(),
            other.clone(),
            backwards.clone(),
            corrected.clone(),
        ]);
        assert_eq!(followed.len(), 1);
        assert_eq!((followed[0].0, followed[0].1.id), (3, off.id));
        assert_eq!(edits.verdicts(), [verdict(&off, false, Some(corrected.clone()))]);

        let mut edits = Edits::new(vec![off.clone()]);
        assert!(edits.follow(&[elsewhere, other, backwards]).is_empty());
        assert_eq!(edits.verdicts(), [verdict(&off, true, None)]);

        let mut changed = off;
        changed.is_enabled = true;
        let mut edits = Edits::new(vec![changed.clone()]);
        assert!(
            edits.follow(&[corrected]).is_empty(),
            "an owner's words go with the words they were put for"
        );
        assert_eq!(edits.verdicts(), [verdict(&changed, true, None)]);
    }
}
