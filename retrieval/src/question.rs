//! A question on its way through a search: what an index is asked for, the order of what it found, and how sure one may be
//! of each passage. The product and its evaluation both go this way.

use crate::analysis::{Asked, Language, NamedCodes, TextLanguages};
use crate::confidence::{Background, Confidence};
use crate::fuse::{self, Hit, MIN_CANDIDATES};
use crate::index::{Candidates, Filter, SearchQuery};

/// What is known of the model whose vectors are compared.
#[derive(Debug, Clone, Copy, Default)]
pub struct ModelTraits<'a> {
    /// The languages that it reads, `None` for all.
    pub languages: Option<&'a [Language]>,
    /// How near unrelated texts are to it, where that was measured ([`Embedder::unrelated`](crate::embed::Embedder::unrelated)).
    pub unrelated: Option<f32>,
}

/// A question and what its words tell.
#[derive(Debug, Clone)]
pub struct Question {
    text: String,
    /// Those that it may be in, the likeliest first.
    languages: Vec<Language>,
    meaning_weight: f32,
    unrelated: Option<f32>,
    asked: Asked,
    codes: NamedCodes,
    /// It has no letter and no digit: any passage is near to it by chance alone.
    asks_nothing: bool,
}

impl Question {
    /// `texts` are the languages of what it is asked of: few words do not show their own.
    pub fn of(text: &str, model: ModelTraits<'_>, texts: &TextLanguages) -> Self {
        let languages = texts.of_question(text);
        let language = languages.language;
        let weighed = match model.languages {
            Some(read) => languages.language_to(read),
            None => language,
        };
        Self {
            text: text.to_owned(),
            languages: languages.read_by,
            meaning_weight: fuse::meaning_weight(text, weighed, model.languages),
            unrelated: model.unrelated,
            asked: Asked::of(text, language),
            codes: NamedCodes::of(text),
            asks_nothing: !text.chars().any(char::is_alphanumeric),
        }
    }

    /// What to ask an index for at least `limit` candidates of each side.
    pub fn query(&self, vector: Option<Vec<f32>>, filter: Filter, limit: usize) -> SearchQuery {
        SearchQuery {
            text: self.text.clone(),
            vector,
            filter,
            limit: limit.max(MIN_CANDIDATES),
            languages: self.languages.clone(),
        }
    }

    /// Whether an index that was asked for `limit` candidates of each side has no more that would count.
    pub fn are_all(&self, found: &Candidates, limit: usize) -> bool {
        let of_words = || {
            found
                .hits
                .iter()
                .filter(|hit| hit.keyword_score.is_some())
                .count()
        };
        match fuse::is_by_words_alone(found, self.meaning_weight) {
            true => of_words() < limit,
            false => found.hits.len() < limit,
        }
    }

    /// What an index found, in one order.
    pub fn judge(&self, candidates: &Candidates) -> Judged<'_> {
        Judged {
            hits: fuse::fuse(candidates, self.meaning_weight),
            background: Background::of(candidates, self.meaning_weight, self.unrelated),
            question: self,
        }
    }
}

/// What was found, the best first, and what is known about it as a whole.
#[derive(Debug, Clone)]
pub struct Judged<'a> {
    pub hits: Vec<Hit>,
    background: Background,
    question: &'a Question,
}

impl Judged<'_> {
    /// What is known once the passages behind hits are read together: `texts` are all their names and what they say.
    pub fn reading<'t>(&self, texts: impl IntoIterator<Item = &'t str>) -> Reading<'_> {
        Reading {
            judged: self,
            has_its_code: self.question.codes.stand_in(texts),
        }
    }
}

/// The passages behind hits.
#[derive(Debug, Clone, Copy)]
pub struct Reading<'a> {
    judged: &'a Judged<'a>,
    /// One of them has a code that the question names.
    has_its_code: bool,
}

impl Reading<'_> {
    /// How sure one may be that `hit` answers the question. `names` are those of the passage, its title and headings; `text`
    /// is what it says. `None`: nothing is known, as of a question of signs alone.
    pub fn confidence(&self, hit: &Hit, names: &[&str], text: &str) -> Option<Confidence> {
        let question = self.judged.question;
        if question.asks_nothing {
            return None;
        }
        let said = question.asked.share_said(names, text);
        let confidence = self.judged.background.confidence(hit, said)?;
        // What has no code at all may be true of all of them.
        let is_of_another = || {
            let mut parts = names.iter().copied().chain([text]);
            parts.any(|part| question.codes.are_like_others_in(part))
        };
        Some(match !self.has_its_code && is_of_another() {
            true => confidence.of_another_code(),
            false => confidence,
        })
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::ChunkId;
    use crate::confidence::Threshold;
    use crate::index::Candidate;

    fn found(similarities: &[f32]) -> Candidates {
        let hits = similarities
            .iter()
            .zip(0_u128..)
            .map(|(similarity, n)| Candidate {
                chunk_id: ChunkId(Uuid::from_u128(n)),
                similarity: Some(*similarity),
                keyword_score: Some(3.0),
            });
        Candidates {
            hits: hits.collect(),
            keyword_ceiling: Some(20.0),
            ..Candidates::default()
        }
    }

    #[test]
    fn an_index_is_asked_for_enough_to_tell_what_stands_out() {
        let question = Question::of(
            "Wie lange kann ich die Ware zurückgeben?",
            ModelTraits::default(),
            &TextLanguages::default(),
        );

        let query = question.query(None, Filter::default(), 8);

        assert_eq!(query.limit, MIN_CANDIDATES);
        assert_eq!(query.languages, [Language::German]);
        assert_eq!(question.query(None, Filter::default(), 400).limit, 400);
    }

    #[test]
    fn a_passage_that_says_what_is_asked_is_surer_than_one_that_is_only_named_so() {
        let question = Question::of(
            "How long may I return damaged shoes?",
            ModelTraits::default(),
            &TextLanguages::default(),
        );
        let candidates = found(&[0.6, 0.3]);
        let judged = question.judge(&candidates);

        let sure = |text| {
            let reading = judged.reading([text]);
            let confidence = reading.confidence(&judged.hits[0], &["Shoes", "Returns"], text);
            confidence.expect("evidence").value
        };

        assert!(sure("What came damaged goes back within 30 days.") > sure("We are glad to help.") + 0.1);
    }

    #[test]
    fn nothing_is_known_to_answer_a_question_of_signs_alone() {
        for (text, is_known) in [
            ("😀😀🎁", false),
            ("...", false),
            ("( ?! )", false),
            ("5?", true),
            ("何?", true),
        ] {
            let question = Question::of(text, ModelTraits::default(), &TextLanguages::default());
            let candidates = found(&[0.6, 0.3]);
            let judged = question.judge(&candidates);

            let reading = judged.reading([]);
            let confidence = reading.confidence(&judged.hits[0], &[], "Gifts are wrapped.");

            assert_eq!(confidence.is_some(), is_known, "{text}");
        }
    }

    #[test]
    fn a_passage_about_another_code_counts_for_no_answer_whatever_tells() {
        let texts = ["The XK-4711 costs 499 euros.", "The XK-4712 costs 549 euros."];
        for by_meaning in [true, false] {
            let counts = |text: &str| {
                let question = Question::of(text, ModelTraits::default(), &TextLanguages::default());
                let mut candidates = found(&[0.9, 0.8]);
                for hit in &mut candidates.hits {
                    hit.similarity = hit.similarity.filter(|_| by_meaning);
                    hit.keyword_score = Some(15.0);
                }
                let judged = question.judge(&candidates);
                let confidence = judged.reading(texts).confidence(&judged.hits[0], &[], texts[0]);
                Threshold::default().is_met_by(confidence)
            };

            assert!(counts("What does XK-4711 cost?") && counts("What does it cost?"));
            assert!(!counts("What does XK-4713 cost?"), "{by_meaning}");
        }
    }

    #[test]
    fn a_passage_without_codes_answers_whatever_code_the_question_mentions() {
        let question = Question::of(
            "My order AB-99812 is late. How long does shipping take?",
            ModelTraits::default(),
            &TextLanguages::default(),
        );
        let judged = question.judge(&found(&[0.9, 0.8]));
        let texts = [
            "Shipping takes five working days.",
            "Order AB-99811 came in two parts.",
        ];
        let reading = judged.reading(texts);
        let counts = |text| Threshold::default().is_met_by(reading.confidence(&judged.hits[0], &[], text));

        assert!(counts(texts[0]) && !counts(texts[1]));
    }

    /// A tenant of so many chunks, before a model to which unrelated texts have a cosine of 0.75: the surest of its passages.
    fn surest_of(chunks: usize, nearest: f32, unrelated: Option<f32>) -> bool {
        let model = ModelTraits {
            languages: None,
            unrelated,
        };
        let question = Question::of(
            "How long may I return damaged shoes?",
            model,
            &TextLanguages::default(),
        );
        // Unrelated ones differ by a few hundredths.
        let mut similarities: Vec<f32> = (0..chunks).map(|n| 0.73 + 0.04 * (n % 7) as f32 / 6.0).collect();
        similarities[0] = nearest;
        let mut candidates = found(&similarities);
        candidates
            .hits
            .iter_mut()
            .for_each(|hit| hit.keyword_score = None);
        let judged = question.judge(&candidates);
        let threshold = Threshold::of_similarity(0.4);
        let reading = judged.reading([]);
        let is_enough = |hit: &Hit| threshold.is_met_by(reading.confidence(hit, &[], "We are glad to help."));
        judged.hits.iter().any(is_enough)
    }

    #[test]
    fn a_model_whose_cosines_are_all_high_answers_and_declines_in_tenants_of_any_size() {
        for chunks in [1, 10, 100] {
            assert!(!surest_of(chunks, 0.77, Some(0.75)), "{chunks} chunks");
            assert!(surest_of(chunks, 0.9, Some(0.75)), "{chunks} chunks");
        }
        assert!(
            surest_of(10, 0.77, None),
            "taken for another model it answers everything"
        );
    }
}
