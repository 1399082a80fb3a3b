//! Points in the form that the tables keep.

use std::collections::{BTreeMap, HashMap, HashSet};

use pgvector::{HalfVector, SparseVector, Vector};

use super::open::{Layout, refused};
use super::tenant::Statement;
use crate::analysis::{self, SparseTerms};
use crate::index::point::text_hash;
use crate::index::{Facets, IndexError, Point};
use crate::{ChunkId, DocumentId, SourceId};

/// Different terms, and so the length of a `sparsevec` of words: the most that pgvector allows. Terms whose hashes fall
/// together are one.
const DIFFERENT_TERMS: u32 = 1_000_000_000;

/// Terms of one chunk that pgvector can keep.
const MOST_TERMS: usize = 16_000;

/// A point after analysis of its text.
pub(super) struct PreparedPoint {
    pub(super) chunk_id: ChunkId,
    pub(super) document_id: DocumentId,
    pub(super) source_id: SourceId,
    pub(super) text_hash: i64,
    pub(super) words: SparseVector,
    /// Of unit length, so that the inner product is the cosine.
    pub(super) vector: Option<Vec<f32>>,
}

/// Points with the facets of each of their documents.
pub(super) struct Prepared {
    pub(super) points: Vec<PreparedPoint>,
    pub(super) facets_of: HashMap<DocumentId, Facets>,
}

/// Checks all points, of those with one chunk id takes the last, and reads their texts.
pub(super) fn prepare(layout: &Layout, points: Vec<Point>) -> Result<Prepared, IndexError> {
    let vectors = points.iter().filter_map(|point| point.vector.as_ref());
    for vector in vectors {
        check_vector(layout, vector)?;
    }
    let mut facets_of = HashMap::new();
    let mut seen = HashSet::with_capacity(points.len());
    let mut prepared = Vec::with_capacity(points.len());
    for point in points.into_iter().rev() {
        let language = point.facets.known_language();
        facets_of
            .entry(point.document_id)
            .or_insert_with(|| point.facets.in_order());
        if !seen.insert(point.chunk_id) {
            continue;
        }
        prepared.push(PreparedPoint {
            chunk_id: point.chunk_id,
            document_id: point.document_id,
            source_id: point.source_id,
            text_hash: text_hash(&point.text).cast_signed(),
            words: document_words(analysis::weigh_document(&point.text, language)),
            vector: point.vector.map(normalise),
        });
    }
    Ok(Prepared {
        points: prepared,
        facets_of,
    })
}

pub(super) fn check_vector(layout: &Layout, vector: &[f32]) -> Result<(), IndexError> {
    match layout.dimension {
        None => Err(refused("this index holds no vectors")),
        Some(expected) if expected != vector.len() => Err(IndexError::DimensionMismatch {
            expected,
            actual: vector.len(),
        }),
        Some(_) if !vector.iter().all(|value| value.is_finite()) => {
            Err(refused("a vector has a value that is no number"))
        }
        Some(_) => Ok(()),
    }
}

/// At unit length; a vector without direction stays as it is.
pub(super) fn normalise(mut vector: Vec<f32>) -> Vec<f32> {
    let square: f64 = vector.iter().map(|value| f64::from(*value).powi(2)).sum();
    if square > 0.0 {
        let length = square.sqrt();
        vector
            .iter_mut()
            .for_each(|value| *value = (f64::from(*value) / length) as f32);
    }
    vector
}

/// Adds vectors to a statement as the array that a table's column is filled from.
pub(super) fn bind_vectors(
    statement: &mut Statement,
    layout: &Layout,
    vectors: Vec<Option<Vec<f32>>>,
) -> String {
    if layout.halfvec {
        let halves = vectors
            .into_iter()
            .map(|vector| vector.map(|vector| HalfVector::from_f32_slice(&vector)));
        statement.bind(halves.collect::<Vec<_>>())
    } else {
        let full = vectors.into_iter().map(|vector| vector.map(Vector::from));
        statement.bind(full.collect::<Vec<_>>())
    }
}

pub(super) fn bind_vector(statement: &mut Statement, layout: &Layout, vector: &[f32]) -> String {
    if layout.halfvec {
        statement.bind(HalfVector::from_f32_slice(vector))
    } else {
        statement.bind(Vector::from(vector.to_vec()))
    }
}

/// The number by which the tables know a term: from 1 on.
pub(super) fn term(hash: u32) -> i32 {
    position(hash) + 1
}

/// Words and their weights, by [`term`].
pub(super) fn sparse(weights: &BTreeMap<i32, f32>) -> SparseVector {
    let positions: Vec<(i32, f32)> = weights.iter().map(|(term, weight)| (term - 1, *weight)).collect();
    SparseVector::from_map(
        positions.iter().map(|(position, weight)| (position, weight)),
        DIFFERENT_TERMS.cast_signed(),
    )
}

/// The terms of stored words, each with its weight.
pub(super) fn terms_in(words: &SparseVector) -> impl Iterator<Item = (i32, f32)> {
    let positions = words.indices().iter();
    positions
        .zip(words.values())
        .map(|(position, weight)| (position + 1, *weight))
}

fn document_words(terms: SparseTerms) -> SparseVector {
    let mut weights: BTreeMap<i32, f32> = BTreeMap::new();
    for (hash, weight) in terms.hashes.into_iter().zip(terms.weights) {
        *weights.entry(term(hash)).or_default() += weight;
    }
    if weights.len() > MOST_TERMS {
        let mut heaviest: Vec<(i32, f32)> = weights.into_iter().collect();
        heaviest.sort_by(|a, b| b.1.total_cmp(&a.1));
        heaviest.truncate(MOST_TERMS);
        weights = heaviest.into_iter().collect();
    }
    sparse(&weights)
}

fn position(hash: u32) -> i32 {
    (hash % DIFFERENT_TERMS).cast_signed()
}

/// The lists of facets as arrays of equal length, in which an array of texts is written as PostgreSQL reads it.
#[derive(Default)]
pub(super) struct FacetColumns {
    pub(super) languages: Vec<Option<String>>,
    pub(super) dates: Vec<Option<i64>>,
    pub(super) tags: Vec<String>,
    pub(super) groups: Vec<String>,
}

impl FacetColumns {
    pub(super) fn push(&mut self, facets: &Facets) {
        self.languages.push(facets.language.as_deref().map(storable));
        self.dates.push(facets.date);
        self.tags.push(array_literal(&facets.tags));
        self.groups.push(array_literal(&facets.groups));
    }
}

/// PostgreSQL has no NUL in texts; what is stored and what is asked for lose it alike.
pub(super) fn storable(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

fn array_literal(texts: &[String]) -> String {
    let mut literal = String::from("{");
    for (position, text) in texts.iter().enumerate() {
        if position > 0 {
            literal.push(',');
        }
        literal.push('"');
        for c in storable(text).chars() {
            if matches!(c, '"' | '\\') {
                literal.push('\\');
            }
            literal.push(c);
        }
        literal.push('"');
    }
    literal.push('}');
    literal
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terms_that_fall_together_are_one_and_none_is_out_of_range() {
        let terms = SparseTerms {
            hashes: vec![0, 5, 1_000_000_005, u32::MAX],
            weights: vec![1.0, 0.5, 0.25, 2.0],
        };

        let words = document_words(terms);

        let stored: Vec<(i32, f32)> = terms_in(&words).collect();
        assert_eq!(stored, [(1, 1.0), (6, 0.75), (294_967_296, 2.0)]);
        assert_eq!(term(1_000_000_005), 6);
    }

    #[test]
    fn of_more_terms_than_can_be_kept_the_heaviest_stay() {
        let hashes: Vec<u32> = (0..20_000).collect();
        let weights = hashes.iter().map(|hash| 1.0 + *hash as f32).collect();

        let words = document_words(SparseTerms { hashes, weights });

        assert_eq!(words.indices().len(), MOST_TERMS);
        assert_eq!(words.indices().first(), Some(&4_000));
    }

    #[test]
    fn texts_of_every_kind_are_written_as_an_array() {
        let texts = ["plain", "a,b", "quo\"te", "back\\slash", "{brace}", "", "nul\0"].map(str::to_owned);

        assert_eq!(
            array_literal(&texts),
            "{\"plain\",\"a,b\",\"quo\\\"te\",\"back\\\\slash\",\"{brace}\",\"\",\"nul\u{fffd}\"}"
        );
        assert_eq!(array_literal(&[]), "{}");
    }

    #[test]
    fn normalising_keeps_the_direction_and_leaves_nothing_alone() {
        assert_eq!(normalise(vec![3.0, 4.0]), [0.6, 0.8]);
        assert_eq!(normalise(vec![0.0, 0.0]), [0.0, 0.0]);
        assert_eq!(normalise(vec![f32::MAX, 0.0]), [1.0, 0.0]);
    }
}
