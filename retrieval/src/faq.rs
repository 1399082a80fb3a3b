//! Which fixed answer a question asks for, among the entries of a bank.
//!
//! Questions are compared with questions here, lines of few words, so none of them is left out: in "how is it tested" and
//! "where can I get tested" what tells them apart are words that say nothing of a passage. An entry is told by its nearest
//! wordings and by its question and answer together. A bank is a few thousand lines at most and is compared whole.
//! Figures: `docs/decisions/0014-fusion-and-confidence.md`.

use std::collections::HashMap;

use crate::analysis::{self, Language, each_stem};
use crate::confidence::usual_background;
use crate::fuse;

/// How much an entry's nearest wordings count, the nearest first. Of an entry with fewer the last one counts for the others.
const NEAREST: [f32; 3] = [0.5, 0.25, 0.25];

/// What the share of the question's words counts beside nearness.
const WORDS: f32 = 0.5;

/// What question and answer together count beside the wordings.
const WHOLE: f32 = 0.6;

/// How many wordings the usual background counts for: a bank of a few has none of its own.
const USUAL_COUNTS_FOR: f32 = 20.0;

/// Logistic regressions on an entry's nearness and its share of the words; fitted on two sets together, each weighed alike.
const BY_MEANING: Evidence = Evidence {
    nearness: 14.0,
    share: 1.4,
    constant: -6.8,
};
const BY_WORDS: Evidence = Evidence {
    nearness: 0.0,
    share: 6.0,
    constant: -3.0,
};

struct Evidence {
    nearness: f32,
    share: f32,
    constant: f32,
}

/// A line of a bank; its vector is of unit length, and absent where there is no embedding model.
#[derive(Debug, Clone, PartialEq)]
pub struct FaqText {
    pub text: String,
    pub vector: Option<Vec<f32>>,
}

/// What a bank is told of an entry.
#[derive(Debug, Clone, PartialEq)]
pub struct FaqTexts {
    /// All wordings of its question.
    pub wordings: Vec<FaqText>,
    /// Question and answer together, where there is an answer.
    pub whole: Option<FaqText>,
}

/// An entry that may be asked for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FaqMatch {
    /// Its place among the entries that the bank was made of.
    pub entry: usize,
    /// Higher is better; compares the entries of one bank.
    pub score: f32,
    /// How sure one may be that it is asked for, in [0, 1].
    pub confidence: f32,
}

/// All entries, ready to be compared with.
#[derive(Debug)]
pub struct FaqBank {
    entries: Vec<Entry>,
    words: Words,
    /// How near its questions are to each other: where nearness begins.
    background: f32,
}

#[derive(Debug)]
struct Entry {
    wordings: Vec<Line>,
    whole: Option<Line>,
}

/// A text as it is compared.
#[derive(Debug)]
struct Line {
    vector: Option<Vec<f32>>,
    /// Numbers of its words, in rising order.
    words: Vec<u32>,
}

/// What a line has in common with a question.
#[derive(Debug, Clone, Copy)]
struct Likeness {
    nearness: f32,
    share: f32,
}

impl FaqBank {
    /// `unrelated` is how near texts of nothing in common are to the embedding model, where that was measured.
    pub fn new(entries: Vec<FaqTexts>, unrelated: Option<f32>) -> Self {
        let wordings = || entries.iter().flat_map(|entry| &entry.wordings);
        let mut words = Words::of(wordings().map(|wording| wording.text.as_str()));
        let vectors = wordings().filter_map(|wording| wording.vector.as_deref());
        let background = background(vectors, usual_background(unrelated));
        let mut line = |text: FaqText| Line {
            words: words.numbers(&text.text),
            vector: text.vector,
        };
        let entries = entries.into_iter().map(|entry| Entry {
            wordings: entry.wordings.into_iter().map(&mut line).collect(),
            whole: entry.whole.map(&mut line),
        });
        Self {
            entries: entries.collect(),
            background,
            words,
        }
    }

    /// All entries that have a wording, the best first. `vector` is the question's, `read` the languages that the embedding
    /// model reads, `None` for all.
    pub fn rank(&self, question: &str, vector: Option<&[f32]>, read: Option<&[Language]>) -> Vec<FaqMatch> {
        let asked = self.words.asked(question);
        let meaning = match fuse::meaning_weight(question, analysis::detect(question), read) {
            // A line often does not show its language.
            weight if weight >= fuse::UNDETERMINED => 1.0,
            weight => weight,
        };
        let likeness = |line: &Line| Likeness {
            nearness: meaning * self.nearness(line, vector),
            share: asked.share_in(&line.words),
        };
        let is_by_meaning = vector.is_some() && meaning > 0.0;
        let evidence = if is_by_meaning { &BY_MEANING } else { &BY_WORDS };
        let mut matches: Vec<FaqMatch> = Vec::with_capacity(self.entries.len());
        for (entry, lines) in self.entries.iter().enumerate() {
            let Some(of_wordings) = of_nearest(lines.wordings.iter().map(likeness).collect()) else {
                continue;
            };
            let score = match lines.whole.as_ref().map(likeness) {
                Some(whole) => (of_wordings.score() + WHOLE * whole.score()) / (1.0 + WHOLE),
                None => of_wordings.score(),
            };
            matches.push(FaqMatch {
                entry,
                score,
                confidence: evidence.confidence(of_wordings),
            });
        }
        matches.sort_by(|a, b| b.score.total_cmp(&a.score).then(a.entry.cmp(&b.entry)));
        matches
    }

    /// How far from the background towards the question a line is: 1 says the same.
    fn nearness(&self, line: &Line, vector: Option<&[f32]>) -> f32 {
        let Some((line, question)) = line.vector.as_deref().zip(vector) else {
            return 0.0;
        };
        let cosine: f32 = line.iter().zip(question).map(|(a, b)| a * b).sum();
        (cosine - self.background) / (1.0 - self.background).max(0.01)
    }
}

/// The mean of the nearest lines; `None` without any.
fn of_nearest(mut lines: Vec<Likeness>) -> Option<Likeness> {
    lines.sort_by(|a, b| b.score().total_cmp(&a.score()));
    let last = lines.len().checked_sub(1)?;
    let mut mean = Likeness {
        nearness: 0.0,
        share: 0.0,
    };
    for (place, weight) in NEAREST.iter().enumerate() {
        let line = lines[place.min(last)];
        mean.nearness += weight * line.nearness;
        mean.share += weight * line.share;
    }
    Some(mean)
}

impl Likeness {
    fn score(self) -> f32 {
        self.nearness + WORDS * self.share
    }
}

impl Evidence {
    fn confidence(&self, likeness: Likeness) -> f32 {
        let evidence = self.nearness * likeness.nearness + self.share * likeness.share + self.constant;
        1.0 / (1.0 + (-evidence).exp())
    }
}

/// The mean cosine between the vectors; `usual` where they are too few to tell.
fn background<'a>(vectors: impl Iterator<Item = &'a [f32]>, usual: f32) -> f32 {
    let mut sum: Vec<f64> = Vec::new();
    let mut count = 0.0;
    for vector in vectors {
        sum.resize(vector.len().max(sum.len()), 0.0);
        for (sum, value) in sum.iter_mut().zip(vector) {
            *sum += f64::from(*value);
        }
        count += 1.0;
    }
    if count < 2.0 {
        return usual;
    }
    // The square of the sum has each pair twice, and each vector with itself.
    let pairs = sum.iter().map(|value| value * value).sum::<f64>() - count;
    let mean = (pairs / (count * (count - 1.0))) as f32;
    let count = count as f32;
    (mean * count + usual * USUAL_COUNTS_FOR) / (count + USUAL_COUNTS_FOR)
}

/// The words of a bank's lines, by their stems.
#[derive(Debug)]
struct Words {
    language: Option<Language>,
    number_of: HashMap<String, u32>,
    /// How telling each word is: the fewer wordings have it, the more.
    weights: Vec<f32>,
    /// The same of a word that no wording has.
    unknown: f32,
}

/// A question's words.
struct AskedWords {
    /// Number and weight, in rising order.
    known: Vec<(u32, f32)>,
    /// The weight of all, unknown ones among them.
    total: f32,
}

impl Words {
    /// Of the wordings of a bank. They are read as being in one language: what shows in a single line says little.
    fn of<'a>(wordings: impl Iterator<Item = &'a str> + Clone) -> Self {
        let language = analysis::detect(&wordings.clone().collect::<Vec<_>>().join("\n"));
        let mut words = Self {
            language,
            number_of: HashMap::new(),
            weights: Vec::new(),
            unknown: 0.0,
        };
        let mut lines_with: Vec<u32> = Vec::new();
        let mut lines = 0_u32;
        for wording in wordings {
            lines += 1;
            for number in words.numbers(wording) {
                lines_with.resize(words.number_of.len(), 0);
                lines_with[number as usize] += 1;
            }
        }
        // As BM25 has it.
        let weight = |with: u32| (1.0 + ((lines - with) as f32 + 0.5) / (with as f32 + 0.5)).ln();
        words.weights = lines_with.into_iter().map(weight).collect();
        words.unknown = weight(0);
        words
    }

    /// The different words of `text`, in rising order; new ones get numbers.
    fn numbers(&mut self, text: &str) -> Vec<u32> {
        let mut numbers = Vec::new();
        each_stem(text, self.language, |stem| {
            let next = self.number_of.len() as u32;
            numbers.push(match self.number_of.get(stem) {
                Some(number) => *number,
                None => *self.number_of.entry(stem.to_owned()).or_insert(next),
            });
        });
        numbers.sort_unstable();
        numbers.dedup();
        numbers
    }

    fn asked(&self, question: &str) -> AskedWords {
        let mut known: Vec<(u32, f32)> = Vec::new();
        let mut unknown: Vec<String> = Vec::new();
        each_stem(question, self.language, |stem| match self.number_of.get(stem) {
            Some(number) => known.push((*number, self.weight(*number))),
            None => unknown.push(stem.to_owned()),
        });
        known.sort_unstable_by_key(|(number, _)| *number);
        known.dedup_by_key(|(number, _)| *number);
        unknown.sort_unstable();
        unknown.dedup();
        let total = known.iter().map(|(_, weight)| weight).sum::<f32>() + self.unknown * unknown.len() as f32;
        AskedWords { known, total }
    }

    /// Words that only answers have are as telling as those that nobody has.
    fn weight(&self, number: u32) -> f32 {
        self.weights.get(number as usize).copied().unwrap_or(self.unknown)
    }
}

impl AskedWords {
    /// What a line with these words has of the question's, by weight, in [0, 1].
    fn share_in(&self, words: &[u32]) -> f32 {
        let is_in = |number: &u32| words.binary_search(number).is_ok();
        let shared = self.known.iter().filter(|(number, _)| is_in(number));
        let shared: f32 = shared.map(|(_, weight)| weight).sum();
        if self.total > 0.0 {
            shared / self.total
        } else {
            0.0
        }
    }
}

#[cfg(test)]
mod tests;
