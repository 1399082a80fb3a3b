//! The outline of a document (bookmarks): which headings its author sees, on which page and at which depth.

use std::collections::{HashMap, HashSet};

use lopdf::{Dictionary, Document, Object, ObjectId};

use super::objects::{array_in, dict_in, dict_of, name_in, resolve, resolve_in, text_in};

/// Entries that are read; a book has hundreds.
const MAX_ENTRIES: usize = 20_000;

/// Nodes of the tree of named places that are looked at.
const MAX_NODES: usize = 20_000;

/// Named places that are remembered.
const MAX_NAMES: usize = 200_000;

/// Headings go no deeper.
const MAX_LEVEL: u8 = 6;

/// Levels of headings by page, counted from 1, and by their letters and digits.
#[derive(Debug, Default)]
pub(super) struct Outline {
    levels: HashMap<u32, HashMap<String, u8>>,
}

impl Outline {
    pub(super) fn of(document: &Document, pages: &[ObjectId]) -> Self {
        let mut outline = Self::default();
        let Some(first) = document
            .catalog()
            .ok()
            .and_then(|catalog| dict_in(document, catalog, b"Outlines"))
            .and_then(|root| root.get(b"First").ok())
        else {
            return outline;
        };
        let numbers: HashMap<ObjectId, u32> = pages.iter().copied().zip(1_u32..).collect();
        let places = Places::of(document, &numbers);
        let mut seen = HashSet::new();
        let mut waiting = vec![(first, 1_u8)];
        while let Some((entry, level)) = waiting.pop() {
            let is_new = entry.as_reference().is_ok_and(|id| seen.insert(id));
            if !is_new || seen.len() > MAX_ENTRIES {
                continue;
            }
            let Some(entry) = dict_of(document, entry) else {
                continue;
            };
            waiting.extend(entry.get(b"Next").ok().map(|next| (next, level)));
            waiting.extend(
                entry
                    .get(b"First")
                    .ok()
                    .map(|first| (first, (level + 1).min(MAX_LEVEL))),
            );
            let Some(title) = text_in(document, entry, b"Title") else {
                continue;
            };
            let key = key_of(&title);
            if let Some(page) = places.page_of(entry).filter(|_| !key.is_empty()) {
                outline
                    .levels
                    .entry(page)
                    .or_default()
                    .entry(key)
                    .or_insert(level);
            }
        }
        outline
    }

    /// The level of the entry that names this text on this page.
    pub(super) fn level(&self, page: u32, text: &str) -> Option<u8> {
        let levels = self.levels.get(&page)?;
        let key = key_of(text);
        let unnumbered = key.trim_start_matches(|c: char| c.is_ascii_digit());
        levels.get(&key).or_else(|| levels.get(unnumbered)).copied()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.levels.is_empty()
    }
}

/// Letters and digits of a heading: spaces and marks differ between outline and page.
fn key_of(text: &str) -> String {
    text.chars()
        .filter(|c| c.is_alphanumeric())
        .flat_map(char::to_lowercase)
        .take(200)
        .collect()
}

/// Where entries lead.
struct Places<'a> {
    document: &'a Document,
    numbers: &'a HashMap<ObjectId, u32>,
    named: HashMap<&'a [u8], &'a Object>,
}

impl<'a> Places<'a> {
    fn of(document: &'a Document, numbers: &'a HashMap<ObjectId, u32>) -> Self {
        let mut named: HashMap<&[u8], &Object> = HashMap::new();
        let catalog = document.catalog().ok();
        if let Some(old) = catalog.and_then(|catalog| dict_in(document, catalog, b"Dests")) {
            named.extend(
                old.iter()
                    .take(MAX_NAMES)
                    .map(|(name, place)| (name.as_slice(), place)),
            );
        }
        let root = catalog
            .and_then(|catalog| dict_in(document, catalog, b"Names"))
            .and_then(|names| names.get(b"Dests").ok());
        let mut waiting: Vec<&Object> = root.into_iter().collect();
        let mut nodes = 0;
        while let Some(node) = waiting.pop() {
            nodes += 1;
            if nodes > MAX_NODES || named.len() > MAX_NAMES {
                break;
            }
            let Some(node) = dict_of(document, node) else {
                continue;
            };
            let room = MAX_NODES.saturating_sub(waiting.len());
            waiting.extend(array_in(document, node, b"Kids").into_iter().flatten().take(room));
            for pair in array_in(document, node, b"Names")
                .map_or(&[][..], Vec::as_slice)
                .chunks_exact(2)
            {
                if let Some(Object::String(name, _)) = resolve(document, &pair[0]) {
                    named.insert(name, &pair[1]);
                }
            }
        }
        Self {
            document,
            numbers,
            named,
        }
    }

    fn page_of(&self, entry: &'a Dictionary) -> Option<u32> {
        let place = entry.get(b"Dest").ok().or_else(|| {
            let action = dict_in(self.document, entry, b"A")?;
            (name_in(self.document, action, b"S") == Some(b"GoTo")).then(|| action.get(b"D").ok())?
        })?;
        let place = match resolve(self.document, place)? {
            Object::Name(name) | Object::String(name, _) => {
                resolve(self.document, self.named.get(name.as_slice())?)?
            }
            place => place,
        };
        let place = match place {
            Object::Dictionary(dict) => resolve_in(self.document, dict, b"D")?,
            place => place,
        };
        match place.as_array().ok()?.first()? {
            Object::Reference(id) => self.numbers.get(id).copied(),
            Object::Integer(index) => u32::try_from(*index).ok()?.checked_add(1),
            _ => None,
        }
    }
}
