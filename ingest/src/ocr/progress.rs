//! How far recognition of a document came. It outlives the attempt that made it, for as long as there is room.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Text that is remembered, of all documents together.
const MEMORY_BYTES: usize = 16 << 20;

/// Documents that are remembered.
const MEMORY_DOCUMENTS: usize = 256;

/// What was recognised of one document.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    /// Scanned pages that were tried, ascending, with their text if there was any.
    pub(crate) pages: BTreeMap<u32, Option<String>>,
    /// Pages of the whole document.
    pub(crate) page_count: u32,
    /// There is no scanned page after the last one that was tried.
    pub(crate) is_complete: bool,
    pub(crate) spent: Duration,
}

impl Progress {
    pub(crate) fn texts(&self) -> BTreeMap<u32, &str> {
        self.pages
            .iter()
            .filter_map(|(page, text)| Some((*page, text.as_deref()?)))
            .collect()
    }

    /// Pages without a text, of a document that has no other text: those that gave none, and those never tried.
    pub(crate) fn unread_pages(&self) -> Vec<u32> {
        let last = self.pages.keys().last().copied().unwrap_or(0);
        let untried = if self.is_complete {
            0..0
        } else {
            last + 1..self.page_count.saturating_add(1)
        };
        let gave_none = self.pages.iter().filter(|(_, text)| text.is_none());
        gave_none.map(|(page, _)| *page).chain(untried).collect()
    }

    fn bytes(&self) -> usize {
        self.pages.values().flatten().map(String::len).sum()
    }
}

/// Documents by key, latest last.
#[derive(Debug, Default)]
pub(crate) struct Memory(Mutex<VecDeque<(String, Progress)>>);

impl Memory {
    fn take(&self, key: &str) -> Progress {
        let mut documents = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let found = documents.iter().position(|(known, _)| known == key);
        let taken = found.and_then(|place| documents.remove(place));
        taken.map(|(_, progress)| progress).unwrap_or_default()
    }

    fn keep(&self, key: String, progress: Progress) {
        let mut documents = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        documents.retain(|(known, _)| *known != key);
        documents.push_back((key, progress));
        let mut bytes: usize = documents.iter().map(|(_, progress)| progress.bytes()).sum();
        while documents.len() > MEMORY_DOCUMENTS || bytes > MEMORY_BYTES {
            let Some((_, oldest)) = documents.pop_front() else {
                break;
            };
            bytes -= oldest.bytes();
        }
    }
}

/// One attempt at a document. However it ends, what it came to is kept for the next one.
#[derive(Debug)]
pub(crate) struct Attempt<'a> {
    memory: &'a Memory,
    key: String,
    began: Instant,
    pub(crate) progress: Progress,
}

impl<'a> Attempt<'a> {
    pub(crate) fn resume(memory: &'a Memory, key: String) -> Self {
        Self {
            progress: memory.take(&key),
            memory,
            key,
            began: Instant::now(),
        }
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        let mut progress = std::mem::take(&mut self.progress);
        progress.spent += self.began.elapsed();
        self.memory.keep(std::mem::take(&mut self.key), progress);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn progress(pages: &[(u32, Option<&str>)]) -> Progress {
        Progress {
            pages: pages
                .iter()
                .map(|(page, text)| (*page, text.map(str::to_owned)))
                .collect(),
            page_count: 5,
            ..Progress::default()
        }
    }

    #[test]
    fn pages_that_were_never_tried_count_as_unread() {
        let cut_off = progress(&[(1, Some("One.")), (2, None)]);
        let complete = Progress {
            is_complete: true,
            ..progress(&[(1, Some("One.")), (2, None)])
        };

        assert_eq!(cut_off.unread_pages(), [2, 3, 4, 5]);
        assert_eq!(complete.unread_pages(), [2]);
    }

    #[test]
    fn the_oldest_documents_are_forgotten_first() {
        let memory = Memory::default();
        let text = "x".repeat(MEMORY_BYTES / 4);
        for key in ["a", "b", "c", "d", "e"] {
            memory.keep(key.to_owned(), progress(&[(1, Some(&text))]));
        }

        assert!(memory.take("a").pages.is_empty());
        assert_eq!(memory.take("e").pages.len(), 1);
        assert!(memory.take("e").pages.is_empty(), "it was taken");
    }
}
