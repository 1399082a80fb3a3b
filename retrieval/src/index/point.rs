//! What an index stores: points with their facets, and the number that tells two of them apart.

use crate::analysis::Language;
use crate::{ChunkId, DocumentId, SourceId};

/// One chunk as the index stores it.
#[derive(Debug, Clone, PartialEq)]
pub struct Point {
    pub chunk_id: ChunkId,
    pub document_id: DocumentId,
    pub source_id: SourceId,
    /// What the keyword side reads. Not stored as such; the row has it.
    pub text: String,
    /// The chunk's embedding; `None` leaves it to be found by words alone.
    pub vector: Option<Vec<f32>>,
    /// Those of its document: the last ones that came with any of its points, or with
    /// [`Index::set_facets`](super::Index::set_facets), are those of all its points.
    pub facets: Facets,
}

/// What filters may ask of a chunk beside its place; the same for all chunks of a document.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Facets {
    /// Primary language subtag in lower case, as `de`; also chooses how the keyword side analyses the text.
    pub language: Option<String>,
    pub tags: Vec<String>,
    /// Unix seconds of the document's date.
    pub date: Option<i64>,
    /// Access groups, one of which an asker must have. Empty: everyone may read it.
    pub groups: Vec<String>,
}

/// A point as the index lists it, for comparing an index with what it should hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoredPoint {
    pub chunk_id: ChunkId,
    pub document_id: DocumentId,
    pub source_id: SourceId,
    /// As [`Point::fingerprint`]; 0 for a point whose text an earlier version stored without it, which equals none.
    pub fingerprint: u64,
}

impl Facets {
    /// A number for all of it, as [`Point::fingerprint`] is for a point.
    pub fn fingerprint(&self) -> u64 {
        fingerprint(0, self, false)
    }

    /// The document's language, if there are rules for it.
    pub(crate) fn known_language(&self) -> Option<Language> {
        self.language.as_deref().and_then(Language::from_tag)
    }

    /// With tags and groups in order and without repeats, as an index keeps them.
    pub(crate) fn in_order(mut self) -> Self {
        for texts in [&mut self.tags, &mut self.groups] {
            texts.sort_unstable();
            texts.dedup();
        }
        self
    }
}

impl Point {
    /// A number for the text, the facets and whether a vector is there. The same in every process and version; the order of
    /// tags and groups, and repeats among them, make no difference.
    pub fn fingerprint(&self) -> u64 {
        fingerprint(text_hash(&self.text), &self.facets, self.vector.is_some())
    }
}

/// The part of a fingerprint that an index keeps with each chunk, as it does not keep the text. Never 0.
pub(crate) fn text_hash(text: &str) -> u64 {
    let mut hash = Fnv::default();
    hash.text(text);
    hash.0.max(1)
}

/// [`Point::fingerprint`] of a text that is known by its [`text_hash`] alone.
pub(crate) fn fingerprint(text_hash: u64, facets: &Facets, has_vector: bool) -> u64 {
    let mut hash = Fnv::default();
    hash.bytes(&text_hash.to_le_bytes());
    hash.bytes(&[u8::from(has_vector)]);
    hash.texts(facets.language.iter());
    hash.texts(in_order(&facets.tags));
    hash.texts(in_order(&facets.groups));
    hash.bytes(&[u8::from(facets.date.is_some())]);
    hash.bytes(&facets.date.unwrap_or_default().to_le_bytes());
    hash.0.max(1)
}

fn in_order(texts: &[String]) -> impl ExactSizeIterator<Item = &String> {
    let mut texts: Vec<&String> = texts.iter().collect();
    texts.sort_unstable();
    texts.dedup();
    texts.into_iter()
}

/// FNV-1a (Fowler, Noll and Vo), 64 bits: fingerprints find what differs by accident, nobody gains by making two equal.
struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Fnv {
    fn bytes(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }

    /// With its length, so that two texts in a row are told from one.
    fn text(&mut self, text: &str) {
        self.bytes(&(text.len() as u64).to_le_bytes());
        self.bytes(text.as_bytes());
    }

    fn texts<'a>(&mut self, texts: impl ExactSizeIterator<Item = &'a String>) {
        self.bytes(&(texts.len() as u64).to_le_bytes());
        texts.for_each(|text| self.text(text));
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn point() -> Point {
        Point {
            chunk_id: ChunkId(Uuid::from_u128(1)),
            document_id: DocumentId(Uuid::from_u128(2)),
            source_id: SourceId(Uuid::from_u128(3)),
            text: "goods may be returned".to_owned(),
            vector: None,
            facets: Facets {
                language: Some("en".to_owned()),
                tags: vec!["returns".to_owned(), "goods".to_owned()],
                date: Some(1_700_000_000),
                groups: vec!["staff".to_owned()],
            },
        }
    }

    #[test]
    fn a_fingerprint_never_changes() {
        assert_eq!(point().fingerprint(), 7_955_902_451_163_251_642);
    }

    #[test]
    fn order_and_repeats_make_no_difference() {
        let mut other = point();
        other.facets.tags = vec!["goods".to_owned(), "returns".to_owned(), "goods".to_owned()];

        assert_eq!(other.fingerprint(), point().fingerprint());
    }

    #[test]
    fn whatever_filters_or_words_may_ask_of_a_point_is_in_its_fingerprint() {
        let changes: [fn(&mut Point); 8] = [
            |point| point.text.push('.'),
            |point| point.vector = Some(vec![0.0]),
            |point| point.facets.language = None,
            |point| point.facets.language = Some("de".to_owned()),
            |point| point.facets.tags = vec!["returnsgoods".to_owned()],
            |point| point.facets.date = None,
            |point| point.facets.groups.clear(),
            |point| std::mem::swap(&mut point.facets.groups, &mut point.facets.tags),
        ];
        let mut fingerprints = vec![point().fingerprint()];
        for change in changes {
            let mut changed = point();
            change(&mut changed);
            fingerprints.push(changed.fingerprint());
        }
        fingerprints.sort_unstable();
        fingerprints.dedup();

        assert_eq!(fingerprints.len(), 9);
    }
}
