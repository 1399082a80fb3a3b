//! The side of words without an index: texts are read one after the other and weighed as an index weighs them. For the
//! time in which no index answers; it costs the reading of every text.

use crate::analysis::{self, QueryTerms, inverse_document_frequency};
use crate::index::{Candidate, Candidates, Facets, SearchQuery};
use crate::{ChunkId, DocumentId};

/// A question, and what is known of the texts that were read for it.
#[derive(Debug)]
pub struct TextScan {
    terms: QueryTerms,
    read: u64,
    /// How many of the texts have each of the question's terms.
    having: Vec<u64>,
    found: Vec<Found>,
}

/// A text that has some of the question's terms.
#[derive(Debug)]
struct Found {
    chunk_id: ChunkId,
    document_id: DocumentId,
    /// Places among the question's terms, with the weight of each.
    weights: Vec<(usize, f32)>,
}

impl TextScan {
    /// For the words of `query`; its vector is not looked at, and whose texts are read is the caller's choice.
    pub fn new(query: &SearchQuery) -> Self {
        let terms = analysis::query_terms(&query.text, query.known_language());
        Self {
            having: vec![0; terms.hashes.len()],
            terms,
            read: 0,
            found: Vec::new(),
        }
    }

    /// Reads the text of one chunk, as an index would be given it.
    pub fn read(&mut self, chunk_id: ChunkId, document_id: DocumentId, text: &str, facets: &Facets) {
        self.read += 1;
        let offered = analysis::weigh_document(text, facets.known_language());
        let mut weights = Vec::new();
        for (place, term) in self.terms.hashes.iter().enumerate() {
            if let Ok(at) = offered.hashes.binary_search(term) {
                weights.push((place, offered.weights[at]));
                self.having[place] += 1;
            }
        }
        if !weights.is_empty() {
            self.found.push(Found {
                chunk_id,
                document_id,
                weights,
            });
        }
    }

    /// The `limit` best of what was read.
    pub fn finish(self, limit: usize) -> Candidates {
        let frequencies: Vec<f32> = self
            .having
            .iter()
            .map(|having| inverse_document_frequency(self.read, *having))
            .collect();
        let scored = self.found.iter().map(|found| Candidate {
            chunk_id: found.chunk_id,
            document_id: found.document_id,
            similarity: None,
            keyword_score: Some(
                found
                    .weights
                    .iter()
                    .map(|(place, weight)| frequencies[*place] * weight)
                    .sum(),
            ),
        });
        let mut hits: Vec<Candidate> = scored.collect();
        let score = |candidate: &Candidate| candidate.keyword_score.unwrap_or_default();
        hits.sort_by(|a, b| {
            score(b)
                .total_cmp(&score(a))
                .then_with(|| a.chunk_id.cmp(&b.chunk_id))
        });
        hits.truncate(limit);
        Candidates {
            hits,
            keyword_ceiling: (!self.terms.hashes.is_empty()).then(|| self.terms.ceiling(&frequencies)),
        }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::index::Filter;

    fn scan(question: &str, texts: &[&str], limit: usize) -> (Vec<u128>, Candidates) {
        let query = SearchQuery {
            text: question.to_owned(),
            vector: None,
            filter: Filter::default(),
            limit,
            language: None,
        };
        let mut scan = TextScan::new(&query);
        for (text, n) in texts.iter().zip(0_u128..) {
            let ids = (ChunkId(Uuid::from_u128(n)), DocumentId(Uuid::from_u128(n)));
            scan.read(ids.0, ids.1, text, &Facets::default());
        }
        let found = scan.finish(limit);
        let places = found.hits.iter().map(|hit| hit.chunk_id.0.as_u128()).collect();
        (places, found)
    }

    #[test]
    fn the_text_with_the_rarer_words_comes_first_and_one_without_any_is_not_found() {
        let texts = [
            "Goods are shipped within two days.",
            "Goods may be returned within thirty days.",
            "Opening hours are from nine to five.",
            "Goods are packed in paper.",
        ];

        let (places, found) = scan("Which goods can be returned?", &texts, 10);

        assert_eq!(places[0], 1);
        assert!(!places.contains(&2), "{places:?}");
        let ceiling = found.keyword_ceiling.expect("words were asked for");
        assert!(found.hits.iter().all(|hit| {
            hit.keyword_score
                .is_some_and(|score| score > 0.0 && score <= ceiling)
        }));
    }

    #[test]
    fn no_more_are_told_than_are_wanted_and_a_question_without_words_finds_nothing() {
        let texts = ["gift cards", "gift paper", "gift shop"];

        assert_eq!(scan("gift", &texts, 2).0, [0, 1]);
        let (places, found) = scan("?!", &texts, 2);
        assert!(places.is_empty() && found.keyword_ceiling.is_none());
    }
}
