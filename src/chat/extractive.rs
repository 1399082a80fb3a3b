//! Answers without a model: the sentences of the passages that support the question best, word for word, cited, and in
//! the order in which they were written. Only a document's own `[5]` is left out: in an answer it would be our marker. The row
//! of a table is told with its cells and the names of their columns.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};

use retrieval::analysis::Language;

use super::citation::{Citation, cite};
use super::marker::without_markers;
use super::rows::{Statement, shorten, statements};
use super::sentences::{ContentWords, is_question, is_statement, language_of};
use crate::knowledge::Passage;

/// Sentences in an answer.
const MAX_SENTENCES: usize = 3;

/// Characters of one sentence, so that a text without full stops does not become the answer.
const MAX_SENTENCE_CHARS: usize = 500;

/// What a word of the question counts when it stands in the heading above a sentence, and in the heading right above.
/// A word in the sentence itself counts 1.
const HEADING_WEIGHT: f32 = 0.5;
const FIRST_BELOW_HEADING_WEIGHT: f32 = 0.8;

/// How much of a sentence's score its passage's place among the found ones decides.
const PLACE_WEIGHT: f32 = 0.2;

/// What a sentence counts that hardly says anything by itself: a label, or a question.
const LABEL_WEIGHT: f32 = 0.3;

/// Said before the sentences, so that nobody takes an extract for a worded answer.
pub const LEAD: &str = "From the documents:";

/// An answer made of the passages' own sentences.
pub struct Extract {
    pub text: String,
    pub citations: Vec<Citation>,
}

/// A sentence, or the row of a table.
struct Candidate<'p> {
    passage: usize,
    /// Where it begins in its passage.
    start: usize,
    text: &'p str,
    /// What an answer says of it.
    told: String,
    is_row: bool,
    score: f32,
    /// It is neither a label nor a question.
    states: bool,
    /// The question's words in it, and in it or above it.
    own: HashSet<String>,
    near: HashSet<String>,
    /// It has itself what fewest of the passages say of the question's words.
    says_rarest: bool,
    /// That is a code or a number, and stands in it or above it.
    is_named: bool,
}

/// The best-supported sentences for `question`; `None` when there are no passages.
///
/// The passage of the best sentence comes first, and within a passage sentences keep their order.
pub fn extract(question: &str, passages: &[Passage]) -> Option<Extract> {
    let mut chosen = choose(list_candidates(question, passages));
    if chosen.is_empty() {
        return None;
    }
    let mut order: Vec<usize> = Vec::new();
    for candidate in &chosen {
        if !order.contains(&candidate.passage) {
            order.push(candidate.passage);
        }
    }
    let rank = |passage: usize| order.iter().position(|index| *index == passage);
    chosen.sort_by_key(|candidate| (rank(candidate.passage), candidate.start));

    let mut citations: Vec<Citation> = Vec::new();
    let mut text = LEAD.to_owned();
    for candidate in &chosen {
        let passage = &passages[candidate.passage];
        let marker = match citations
            .iter()
            .find(|citation| citation.chunk_id == passage.chunk_id)
        {
            Some(citation) => citation.marker,
            None => {
                // The best of the passage's sentences is its quote.
                let of_passage = chosen.iter().filter(|other| other.passage == candidate.passage);
                let quoted = of_passage.max_by(|one, other| {
                    one.score
                        .total_cmp(&other.score)
                        .then(Reverse(one.start).cmp(&Reverse(other.start)))
                });
                citations.push(cite(
                    passage,
                    citations.len() + 1,
                    quoted.unwrap_or(candidate).text,
                    question,
                ));
                citations.len()
            }
        };
        text.push_str(&format!("\n\n{} [{marker}]", candidate.told));
    }
    Some(Extract { text, citations })
}

/// The best sentence, what its passage says of the words that are missing in it, and what else is about as good. Another
/// passage may be about another thing of the kind, and another row of a table is: only its sentences count that say the
/// question's rarest word themselves.
fn choose(mut candidates: Vec<Candidate<'_>>) -> Vec<Candidate<'_>> {
    candidates.sort_by(|one, other| other.score.total_cmp(&one.score));
    let mut seen = HashSet::new();
    candidates.retain(|candidate| seen.insert(candidate.text));
    if candidates.is_empty() {
        return candidates;
    }
    // Where a product is named by its code, the best sentence about another one is none.
    let place = candidates.iter().position(|candidate| candidate.is_named);
    let best = candidates.remove(place.unwrap_or_default());
    let (passage, is_row, least) = (best.passage, best.is_row, best.score / 2.0);
    let is_of_it = |candidate: &Candidate<'_>| candidate.passage == passage && !(is_row && candidate.is_row);
    let mut said = best.near.clone();
    let mut chosen = vec![best];
    while chosen.len() < MAX_SENTENCES {
        let adds = |candidate: &Candidate<'_>| {
            is_of_it(candidate) && candidate.states && !candidate.own.is_subset(&said)
        };
        let Some(place) = candidates.iter().position(adds) else {
            break;
        };
        let next = candidates.remove(place);
        said.extend(next.own.iter().cloned());
        chosen.push(next);
    }
    candidates.retain(|candidate| candidate.score >= least && (is_of_it(candidate) || candidate.says_rarest));
    candidates.truncate(MAX_SENTENCES - chosen.len());
    chosen.extend(candidates);
    chosen
}

/// The sentences of all passages, scored.
fn list_candidates<'p>(question: &str, passages: &'p [Passage]) -> Vec<Candidate<'p>> {
    let read: Vec<(Option<Language>, ContentWords)> = passages
        .iter()
        .map(|passage| {
            let language = language_of(&passage.text, question);
            (language, ContentWords::of(&passage.text, language))
        })
        .collect();
    let is_known = |word: &str| read.iter().any(|(_, words)| words.contains(word));
    let wanted: Vec<ContentWords> = read
        .iter()
        .map(|(language, _)| ContentWords::asked(question, *language, is_known))
        .collect();
    let mut said_by: HashMap<&str, usize> = HashMap::new();
    for ((_, words), wanted) in read.iter().zip(&wanted) {
        for word in wanted.iter().filter(|word| words.contains(word)) {
            *said_by.entry(word).or_default() += 1;
        }
    }
    let mut candidates = Vec::new();
    for (index, passage) in passages.iter().enumerate() {
        let fewest = wanted[index].iter().filter_map(|word| said_by.get(word)).min();
        let rarest = wanted[index].iter().filter(|word| said_by.get(word) == fewest);
        let asked = Asked {
            language: read[index].0,
            wanted: &wanted[index],
            rarest: rarest.filter(|_| fewest.is_some()).collect(),
        };
        add_candidates(&mut candidates, index, passage, &asked);
    }
    candidates
}

/// A question, by the rules of a passage's language.
struct Asked<'q> {
    language: Option<Language>,
    wanted: &'q ContentWords,
    /// Its words that fewest of the passages say, but some does.
    rarest: HashSet<&'q str>,
}

impl Asked<'_> {
    /// How many of the question's words a text says.
    fn count_in(&self, text: &str) -> usize {
        let words = ContentWords::of(text, self.language);
        self.wanted.iter().filter(|word| words.contains(word)).count()
    }
}

/// Scores each sentence and each row of a passage. Whatever stands above a sentence speaks for it too: the heading, and below a
/// question in the text, as in a list of questions and answers, that question instead.
fn add_candidates<'p>(
    candidates: &mut Vec<Candidate<'p>>,
    index: usize,
    passage: &'p Passage,
    asked: &Asked<'_>,
) {
    let heading = passage.heading.as_deref().unwrap_or_default();
    let mut above = ContentWords::of(&format!("{} {heading}", passage.title), asked.language);
    let mut is_first = true;
    for Statement { start, end, row } in statements(passage) {
        let text = &passage.text[start..end];
        if !without_markers(text).contains(char::is_alphanumeric) {
            continue;
        }
        let weight = if is_first {
            FIRST_BELOW_HEADING_WEIGHT
        } else {
            HEADING_WEIGHT
        };
        let words = match row {
            Some(row) => ContentWords::of(&row.words(), asked.language),
            None => ContentWords::of(text, asked.language),
        };
        let shared = |is_said: &dyn Fn(&str) -> bool| -> HashSet<String> {
            let said = asked.wanted.iter().filter(|word| is_said(word));
            said.map(str::to_owned).collect()
        };
        let own = shared(&|word| words.contains(word));
        let near = shared(&|word| words.contains(word) || above.contains(word));
        let states = row.is_some() || !is_question(text) && (!words.is_label() || is_statement(text));
        let place = 1.0 - PLACE_WEIGHT * (1.0 - passage.score);
        let is_rarest = |word: &String| asked.rarest.contains(word.as_str());
        candidates.push(Candidate {
            passage: index,
            start,
            text,
            told: match row {
                Some(row) => without_markers(&row.told(|cell| asked.count_in(cell))).into_owned(),
                None => shorten(without_markers(text).trim(), MAX_SENTENCE_CHARS),
            },
            is_row: row.is_some(),
            score: score(own.len(), near.len(), asked.wanted.count(), weight, states) * place,
            states,
            says_rarest: own.iter().any(is_rarest),
            is_named: near
                .iter()
                .any(|word| is_rarest(word) && word.contains(char::is_numeric)),
            own,
            near,
        });
        is_first = is_question(text);
        if is_first {
            above = ContentWords::of(text, asked.language);
        }
    }
}

/// Higher is better: the share of the question's words in the sentence, and `weight` of those only above it.
fn score(own: usize, near: usize, wanted: usize, weight: f32, states: bool) -> f32 {
    let says_something = if states { 1.0 } else { LABEL_WEIGHT };
    (0.1 + (own as f32 + (near - own) as f32 * weight) / wanted.max(1) as f32) * says_something
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::knowledge::sample_passage;

    fn passage(heading: Option<&str>, text: &str, score: f32) -> Passage {
        Passage {
            title: "Help".to_owned(),
            heading: heading.map(str::to_owned),
            score,
            ..sample_passage(text)
        }
    }

    fn answer(question: &str, passages: &[Passage]) -> Vec<String> {
        let extract = extract(question, passages).expect("there are passages");
        extract.text.split("\n\n").skip(1).map(str::to_owned).collect()
    }

    #[test]
    fn the_first_sentence_below_a_matching_heading_leads_and_the_order_is_kept() {
        let faq = passage(
            Some("How long can I return something?"),
            "45 days from delivery, for anything unused. Made-to-order pieces can only be returned when they are faulty.",
            1.0,
        );

        assert_eq!(
            answer("How long can I return something?", &[faq]),
            [
                "45 days from delivery, for anything unused. [1]",
                "Made-to-order pieces can only be returned when they are faulty. [1]"
            ]
        );
    }

    #[test]
    fn sentences_are_chosen_by_the_rules_of_the_passages_language() {
        let german = passage(
            None,
            "Wie lange etwas bei uns im Lager ist, das wissen wir nicht. Rücksendungen der Kunden sind kostenlos und werden geprüft.",
            1.0,
        );
        let chinese = passage(None, "我们的商店在市中心，欢迎光临。您可以在三十天内退货。", 1.0);

        let of_german = answer("Was ist mit der Rücksendung, die ich als Kunde habe?", &[german]);
        assert_eq!(
            of_german[0],
            "Rücksendungen der Kunden sind kostenlos und werden geprüft. [1]"
        );
        assert_eq!(
            answer("多少天内可以退货？", &[chinese]),
            ["您可以在三十天内退货。 [1]"]
        );
    }

    #[test]
    fn the_passage_of_the_best_sentence_comes_first() {
        let passages = [
            passage(
                None,
                "Delivery takes three whole days. Everything else about returning goods is on another page.",
                0.9,
            ),
            passage(None, "Goods can be returned within thirty days of delivery.", 0.9),
        ];

        let found = answer(
            "Within how many days can goods be returned after delivery?",
            &passages,
        );

        assert_eq!(
            found[0],
            "Goods can be returned within thirty days of delivery. [1]"
        );
    }

    #[test]
    fn below_a_question_in_the_text_its_answer_is_found_and_not_the_question() {
        let faq = passage(
            None,
            "Do you sell gift cards?\nYes, by e-mail or on printed paper.\nDo you ship abroad?\nNo, we only ship within the country.\n",
            1.0,
        );

        let found = answer("Do you sell gift cards?", &[faq]);

        assert_eq!(found, ["Yes, by e-mail or on printed paper. [1]"]);
    }

    #[test]
    fn a_sentence_that_stands_in_two_passages_is_said_once() {
        let text = "Goods can be returned within thirty days.";
        let passages = [passage(None, text, 0.9), passage(None, text, 0.8)];

        assert_eq!(answer("When can goods be returned?", &passages).len(), 1);
    }

    #[test]
    fn a_documents_own_brackets_pose_as_no_citation() {
        let wiki = passage(
            None,
            "Goods may be returned within 30 days [5]. [1] Gift cards are never returned [1-3][2]. [7][8].",
            1.0,
        );
        let cited = passage(None, "[3].", 1.0);

        assert_eq!(
            answer("May goods and gift cards be returned?", &[wiki]),
            [
                "Goods may be returned within 30 days. [1]",
                "Gift cards are never returned. [1]"
            ]
        );
        assert!(extract("May goods be returned?", &[cited]).is_none());
    }

    #[test]
    fn a_price_is_told_of_the_product_that_was_asked_for_and_of_no_other() {
        let product = |name: &str, price: u32, score: f32| {
            let text = format!(
                "The {name} is made of walnut and comes in green. It is 90 cm wide and 200 cm long. It costs {price} euros and is delivered within 7 weeks. The warranty is 5 years."
            );
            passage(None, &text, score)
        };
        let bed = "The bed HV-2725 is made of walnut and comes in green. [1]";
        let its_price = "It costs 1240 euros and is delivered within 7 weeks. [1]";

        for (of_bed, of_others) in [(1.0, 0.9), (0.8, 1.0)] {
            let passages = [
                product("table KL-1810", 2725, of_others),
                product("bed HV-2725", 1240, of_bed),
                product("chair HV-1001", 310, of_others),
            ];
            for question in ["What does the HV-2725 cost?", "What does the HV2725 cost?"] {
                assert_eq!(answer(question, &passages), [bed, its_price], "{question}");
            }
        }
    }

    #[test]
    fn the_row_of_a_table_is_told_with_its_cells_and_no_other_row() {
        let rows = [
            "name: Sony WH-1000XM5\nprice: 349\ncolour: black",
            "name: Sony WH-1000XM4\nprice: 249\ncolour: black",
        ];
        let of_table = |text: &str| Passage {
            has_records: true,
            ..passage(None, text, 1.0)
        };
        let (alone, together) = (rows.map(of_table), of_table(&rows.join("\n\n")));
        let wanted = ["name: Sony WH-1000XM5\nprice: 349\ncolour: black [1]"];

        for passages in [&alone[..], &[together]] {
            let found = extract("How much is the WH-1000XM5?", passages).expect("an answer");
            let told: Vec<&str> = found.text.split("\n\n").skip(1).collect();

            assert_eq!(told, wanted);
            assert_eq!(found.citations[0].quote, rows[0]);
        }
    }

    #[test]
    fn a_code_that_no_passage_says_is_looked_for_by_its_parts() {
        let bed = passage(None, "The bed HV-2725 is made of walnut.", 1.0);

        assert_eq!(
            answer("Is there an HV-2725-B?", &[bed]),
            ["The bed HV-2725 is made of walnut. [1]"]
        );
    }

    #[test]
    fn other_passages_add_what_says_the_rarest_word_of_the_question() {
        let passages = [
            passage(None, "Teak is oiled twice a year.", 1.0),
            passage(None, "Steel is never oiled at all.", 0.9),
            passage(None, "Oil for teak is sold in our shop.", 0.8),
        ];

        assert_eq!(
            answer("Is teak oiled?", &passages),
            [
                "Teak is oiled twice a year. [1]",
                "Oil for teak is sold in our shop. [2]"
            ]
        );
    }

    #[test]
    fn without_passages_there_is_no_extract() {
        assert!(extract("Why?", &[]).is_none());
    }
}
