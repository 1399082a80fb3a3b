//! The side of words without an index: texts are read one after the other and weighed as an index weighs them. For the
//! time in which no index answers; it costs the reading of every text.

use crate::ChunkId;
use crate::analysis::{self, QueryTerms, inverse_document_frequency};
use crate::index::{Candidate, Candidates, Facets, SearchQuery};

/// A question, and what is known of the texts that were read for it.
#[derive(Debug)]
pub struct TextScan {
    asked: QueryTerms,
    /// What is counted: the question's terms and all parts of its codes.
    terms: Vec<u32>,
    read: u64,
    /// How many of the texts have each of these terms.
    having: Vec<u64>,
    found: Vec<Found>,
}

/// A text that has some of the question's terms.
#[derive(Debug)]
struct Found {
    chunk_id: ChunkId,
    /// Places among what is counted, with the weight of each.
    weights: Vec<(usize, f32)>,
}

impl TextScan {
    /// For the words of `query`; its vector is not looked at, and whose texts are read is the caller's choice.
    pub fn new(query: &SearchQuery) -> Self {
        let asked = analysis::query_terms(&query.text, &query.languages);
        let terms = asked.with_all_parts();
        Self {
            having: vec![0; terms.len()],
            asked,
            terms,
            read: 0,
            found: Vec::new(),
        }
    }

    /// Reads the text of one chunk, as an index would be given it.
    pub fn read(&mut self, chunk_id: ChunkId, text: &str, facets: &Facets) {
        self.read += 1;
        let offered = analysis::weigh_document(text, facets.known_language());
        let mut weights = Vec::new();
        for (place, term) in self.terms.iter().enumerate() {
            if let Ok(at) = offered.hashes.binary_search(term) {
                weights.push((place, offered.weights[at]));
                self.having[place] += 1;
            }
        }
        if !weights.is_empty() {
            self.found.push(Found { chunk_id, weights });
        }
    }

    /// The `limit` best of what was read.
    pub fn finish(self, limit: usize) -> Candidates {
        let place_of = |term: u32| self.terms.binary_search(&term).ok();
        let frequency_of = |place: usize| inverse_document_frequency(self.read, self.having[place].max(1));
        let having_of = |term: u32| place_of(term).map_or(0, |place| self.having[place]);
        let settled = self.asked.settle(having_of);
        // Of each counted term; none of parts that are not asked for.
        let is_asked = |term: &u32| settled.hashes.binary_search(term).is_ok();
        let frequencies: Vec<Option<f32>> = self
            .terms
            .iter()
            .enumerate()
            .map(|(place, term)| is_asked(term).then(|| frequency_of(place)))
            .collect();
        let scored = self.found.iter().filter_map(|found| {
            let weights = found.weights.iter();
            let score: f32 = weights
                .filter_map(|(place, weight)| frequencies[*place].map(|frequency| frequency * weight))
                .sum();
            (score > 0.0).then_some(Candidate {
                chunk_id: found.chunk_id,
                similarity: None,
                keyword_score: Some(score),
            })
        });
        let mut hits: Vec<Candidate> = scored.collect();
        let score = |candidate: &Candidate| candidate.keyword_score.unwrap_or_default();
        hits.sort_by(|a, b| {
            score(b)
                .total_cmp(&score(a))
                .then_with(|| a.chunk_id.cmp(&b.chunk_id))
        });
        hits.truncate(limit);
        let of_asked: Vec<f32> = frequencies.iter().copied().flatten().collect();
        let keyword_ceiling = (!settled.hashes.is_empty()).then(|| settled.ceiling(&of_asked));
        Candidates {
            hits,
            keyword_ceiling,
            names_rare_code: self.asked.name_rare_code(having_of),
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
            languages: Vec::new(),
        };
        let mut scan = TextScan::new(&query);
        for (text, n) in texts.iter().zip(0_u128..) {
            scan.read(ChunkId(Uuid::from_u128(n)), text, &Facets::default());
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
    fn a_code_that_no_text_has_whole_is_found_by_its_parts() {
        let texts = [
            "Write to www.example.com.",
            "The WH-1000XM5 has a plug of 3.5mm.",
            "It costs 2,500 francs, in 5 rates.",
        ];
        let found = |question| scan(question, &texts, 10).0;

        assert_eq!(found("example.com"), [0]);
        assert_eq!(found("XM5")[0], 1);
        assert_eq!(found("3.5 mm"), [1]);
        assert_eq!(found("2500 Franken"), [2]);
        assert_eq!(found("XM4"), [1], "its letters");
        assert_eq!(found("www.example.com"), [0]);
        assert_eq!(found("10.0.0.1"), [0_u128; 0]);
    }

    #[test]
    fn a_code_that_a_text_has_whole_is_not_looked_for_by_its_parts() {
        let texts = [
            "Release v1.2.3 is out.",
            "Release v1.2.4 is out.",
            "The xm5 is new.",
            "An xm and 5 more.",
        ];

        assert_eq!(scan("v1.2.3", &texts, 10).0, [0]);
        assert_eq!(scan("xm5", &texts, 10).0, [2]);
    }

    #[test]
    fn no_more_are_told_than_are_wanted_and_a_question_without_words_finds_nothing() {
        let texts = ["gift cards", "gift paper", "gift shop"];

        assert_eq!(scan("gift", &texts, 2).0, [0, 1]);
        let (places, found) = scan("?!", &texts, 2);
        assert!(places.is_empty() && found.keyword_ceiling.is_none());
    }
}
