//! The words of a text that say what it is about, cut by rules of English alone: to tell whether a passage has to do with a
//! question at all, without an index and whatever either is written in.

use std::collections::HashSet;

use unicode_segmentation::UnicodeSegmentation;

/// English words that say nothing about what a text is about. Other languages' are short, or cost little precision.
const STOP_WORDS: &[&str] = &[
    "a", "about", "after", "all", "also", "am", "an", "and", "any", "are", "as", "at", "be", "because",
    "been", "before", "but", "by", "can", "could", "did", "do", "does", "for", "from", "get", "give", "had",
    "has", "have", "he", "her", "his", "how", "i", "if", "in", "into", "is", "it", "its", "just", "may",
    "me", "might", "more", "most", "much", "must", "my", "no", "not", "of", "on", "one", "only", "or",
    "other", "our", "out", "please", "she", "should", "so", "some", "such", "tell", "than", "that", "the",
    "their", "them", "then", "there", "these", "they", "this", "those", "to", "up", "us", "was", "we",
    "were", "what", "when", "where", "which", "who", "why", "will", "with", "would", "you", "your",
];

/// The words of `text` that say what it is about: lower case, without endings that only inflect.
pub fn content_words(text: &str) -> HashSet<String> {
    let mut words = HashSet::new();
    each_content_word(text, |word| {
        if !words.contains(word) {
            words.insert(word.to_owned());
        }
    });
    words
}

/// Hands `take` the content words of `text` in order, each as often as it is there.
pub fn each_content_word(text: &str, mut take: impl FnMut(&str)) {
    let mut lower = String::new();
    for word in text.unicode_words() {
        lower.clear();
        if word.is_ascii() {
            lower.push_str(word);
            lower.make_ascii_lowercase();
        } else {
            lower.push_str(&word.to_lowercase());
        }
        if STOP_WORDS.binary_search(&lower.as_str()).is_err() {
            take(stem(&lower));
        }
    }
}

/// Cuts common English endings, so that `returned` and `return`, `days` and `day` are one word.
fn stem(word: &str) -> &str {
    for ending in ["ing", "ed", "es", "s"] {
        if let Some(stem) = word.strip_suffix(ending)
            && stem.chars().count() >= 3
        {
            return stem;
        }
    }
    word
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stop_words_are_sorted_for_the_search_in_them() {
        assert!(STOP_WORDS.is_sorted());
    }

    #[test]
    fn content_words_leave_out_what_says_nothing() {
        assert_eq!(
            content_words("How long may I return the goods?"),
            HashSet::from(["long", "return", "good"].map(str::to_owned))
        );
    }
}
