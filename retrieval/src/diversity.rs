//! Passages that say nothing new, and an order that prefers what does.
//!
//! Copies of a page, overlapping chunks and repeated boilerplate fill a prompt without telling more. What is compared are
//! words: vectors are not at hand for what words alone found, and of two product pages that differ in a name they make one.

use std::collections::HashSet;

use crate::analysis::Words;

/// Words in a row that are compared as one (Broder, "On the resemblance and containment of documents", 1997).
const SHINGLE: usize = 3;

/// Share of a passage's rows of words that must stand in another one.
const SAID_BEFORE: f32 = 0.9;

/// The pairs of neighbouring letters in a passage, hashed: made in about a nanosecond for each byte, and enough to tell of
/// most passages that one does not say what another does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sketch([u64; SKETCH_BITS / 64]);

/// English text of a usual passage has some 250 different pairs.
const SKETCH_BITS: usize = 1024;

impl Sketch {
    /// Of all that a reader sees of it.
    pub fn of(parts: &[&str]) -> Self {
        let mut bits = [0_u64; SKETCH_BITS / 64];
        for part in parts {
            let mut before = 0;
            for byte in part.bytes() {
                let letter = match byte {
                    b'A'..=b'Z' => byte | 0x20,
                    b'a'..=b'z' | b'0'..=b'9' | 0x80.. => byte,
                    _ => 0,
                };
                if letter != 0 && before != 0 {
                    let pair = (u32::from(before) << 8 | u32::from(letter)).wrapping_mul(0x9e37_79b1) >> 22;
                    bits[(pair / 64) as usize] |= 1 << (pair % 64);
                }
                before = letter;
            }
        }
        Self(bits)
    }

    /// Whether `other` may say all of this; false is certain but for accents and for words that are written apart.
    pub fn may_be_said_by(&self, other: &Self) -> bool {
        self.0
            .iter()
            .zip(&other.0)
            .all(|(own, others)| own & !others == 0)
    }
}

/// What a passage says, as far as comparing it takes.
#[derive(Debug, Clone)]
pub struct Gist {
    words: HashSet<u64>,
    shingles: HashSet<u64>,
}

impl Gist {
    /// Of all that a reader sees of it, such as its title and its text. Rows of words do not reach across `parts`.
    pub fn of(parts: &[&str]) -> Self {
        let mut gist = Self {
            words: HashSet::new(),
            shingles: HashSet::new(),
        };
        for part in parts {
            let words: Vec<u64> = Words::of(part).iter().map(hash).collect();
            let row = |row: &[u64]| row.iter().fold(0, |all: u64, word| all.rotate_left(21) ^ word);
            if words.len() < SHINGLE {
                gist.shingles.insert(row(&words));
            }
            gist.shingles.extend(words.windows(SHINGLE).map(row));
            gist.words.extend(words);
        }
        gist
    }

    /// Whether `other` says all of this already: each word of it, and nearly all in the same rows. A passage with one new
    /// word, be it a name or a number, is not said.
    pub fn is_said_by(&self, other: &Self) -> bool {
        if self.words.len() > other.words.len() || !self.words.is_subset(&other.words) {
            return false;
        }
        let common = self.shingles.intersection(&other.shingles).count();
        common as f32 >= SAID_BEFORE * self.shingles.len() as f32
    }

    /// The cosine of the two sets of words, in [0, 1].
    pub fn similarity(&self, other: &Self) -> f32 {
        let common = self.words.intersection(&other.words).count() as f32;
        let sizes = self.words.len() as f32 * other.words.len() as f32;
        if sizes == 0.0 { 0.0 } else { common / sizes.sqrt() }
    }
}

/// A passage that is judged by how much it adds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pick {
    /// Its place among those given.
    pub place: usize,
    /// `lambda` times its score less `1 - lambda` times its similarity to the nearest one picked before.
    pub margin: f32,
}

/// The best `limit` passages by maximal marginal relevance (Carbonell and Goldstein, SIGIR 1998). `lambda` is 1 for the
/// order of the `scores` alone, 0 for passages as different as can be.
pub fn pick(passages: &[(f32, &Gist)], lambda: f32, limit: usize) -> Vec<Pick> {
    let mut left: Vec<usize> = (0..passages.len()).collect();
    let mut nearest = vec![0.0_f32; passages.len()];
    let mut picked: Vec<Pick> = Vec::with_capacity(limit.min(left.len()));
    while picked.len() < limit && !left.is_empty() {
        let margin = |place: usize| lambda * passages[place].0 - (1.0 - lambda) * nearest[place];
        let mut best = 0;
        for candidate in 1..left.len() {
            if margin(left[candidate]) > margin(left[best]) {
                best = candidate;
            }
        }
        let place = left.remove(best);
        picked.push(Pick {
            place,
            margin: margin(place),
        });
        for other in &left {
            let similarity = passages[*other].1.similarity(passages[place].1);
            nearest[*other] = nearest[*other].max(similarity);
        }
    }
    picked
}

/// FNV-1a. Nothing of it is stored.
fn hash(word: &str) -> u64 {
    word.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RETURNS: &str =
        "Goods may be returned within thirty days. Please keep the receipt, and send them back in the box.";

    fn gist(text: &str) -> Gist {
        Gist::of(&["Returns", text])
    }

    #[test]
    fn a_copy_and_a_part_are_said_already() {
        let copy = RETURNS.to_uppercase().replace(", and", " - and");
        let part = "Please keep the receipt, and send them back in the box.";

        assert!(gist(&copy).is_said_by(&gist(RETURNS)));
        assert!(gist(part).is_said_by(&gist(RETURNS)));
        assert!(
            !gist(RETURNS).is_said_by(&gist(part)),
            "the whole says more than the part"
        );
    }

    #[test]
    fn one_new_word_or_number_is_something_new() {
        let of = |product: &str| {
            format!(
                "The {product} table is delivered in three weeks, oiled by hand, with a warranty of ten years for all parts. {RETURNS}"
            )
        };

        assert!(!gist(&of("teak")).is_said_by(&gist(&of("oak"))));
        assert!(!gist(&RETURNS.replace("thirty", "40")).is_said_by(&gist(RETURNS)));
        assert!(
            !Gist::of(&["Shops", RETURNS]).is_said_by(&gist(RETURNS)),
            "the title is read too"
        );
    }

    #[test]
    fn a_sign_that_makes_another_thing_is_something_new() {
        for (one, other) in [
            ("energy class A+", "energy class A"),
            ("kept at -18 °C", "kept at 18 °C"),
            ("written in C++", "written in C"),
        ] {
            let of = |said: &str| gist(&format!("This one is {said}. {RETURNS}"));
            assert!(!of(one).is_said_by(&of(other)), "{one}");
            assert!(!of(other).is_said_by(&of(one)), "{other}");
        }
    }

    #[test]
    fn the_same_words_in_other_rows_say_something_else() {
        assert!(!gist("The dog bit the man").is_said_by(&gist("The man bit the dog")));
    }

    #[test]
    fn a_lower_lambda_prefers_what_was_not_said() {
        let (returns, again, cards) = (
            gist("Goods may be returned within thirty days."),
            gist("Returned goods: within thirty days, goods may be sent back."),
            gist("Gift cards are valid for three years."),
        );
        let passages = [(1.0, &returns), (0.9, &again), (0.6, &cards)];
        let places = |lambda| -> Vec<usize> {
            let picks = pick(&passages, lambda, 2);
            picks.iter().map(|pick| pick.place).collect()
        };

        assert_eq!(places(1.0), [0, 1]);
        assert_eq!(places(0.5), [0, 2]);
    }

    #[test]
    fn a_sketch_tells_at_once_what_says_something_else() {
        let sketch = |text: &str| Sketch::of(&["Returns", text]);

        assert!(sketch(&RETURNS.to_uppercase()).may_be_said_by(&sketch(RETURNS)));
        assert!(sketch("Keep the receipt.").may_be_said_by(&sketch(RETURNS)));
        assert!(!sketch(RETURNS).may_be_said_by(&sketch("Gift cards are valid for three years.")));
        assert!(!sketch("within 30 days").may_be_said_by(&sketch("within 40 days")));
        assert!(!sketch("三十天内退货").may_be_said_by(&sketch("运费由客户承担")));
    }

    proptest! {
        #[test]
        fn what_is_said_in_plain_letters_has_no_sketch_of_its_own(
            words in prop::collection::vec("[a-z0-9]{1,6}", 1..30), from in 0_usize..30, to in 0_usize..30,
        ) {
            let (from, to) = (from.min(words.len()), to.min(words.len()));
            let part = words[from.min(to)..to.max(from)].join(", ");
            let whole = words.join(" ");
            prop_assert!(Sketch::of(&[&part]).may_be_said_by(&Sketch::of(&[&whole])));
        }

        #[test]
        fn anything_says_itself(text in any::<String>()) {
            prop_assert!(Sketch::of(&[&text]).may_be_said_by(&Sketch::of(&[&text])));
            let gist = gist(&text);
            prop_assert!(gist.is_said_by(&gist));
            prop_assert!((gist.similarity(&gist) - 1.0).abs() < 1e-5);
        }

        #[test]
        fn picks_are_different_and_the_first_is_the_best(
            texts in prop::collection::vec(("[a-e]( [a-e]){0,8}", 0.01_f32..1.0), 0..20),
            lambda in 0.01_f32..=1.0,
            limit in 0_usize..25,
        ) {
            let gists: Vec<Gist> = texts.iter().map(|(text, _)| Gist::of(&[text])).collect();
            let passages: Vec<(f32, &Gist)> = texts.iter().map(|(_, score)| *score).zip(&gists).collect();

            let picks = pick(&passages, lambda, limit);

            let places: HashSet<usize> = picks.iter().map(|pick| pick.place).collect();
            prop_assert_eq!(places.len(), picks.len());
            prop_assert_eq!(picks.len(), limit.min(passages.len()));
            if let Some(first) = picks.first() {
                prop_assert!(passages.iter().all(|(score, _)| *score <= passages[first.place].0));
            }
        }
    }
}
