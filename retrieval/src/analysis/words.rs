//! Texts word by word, folded as the index folds them but with every word and every form: what tells whether one text
//! holds another, and how much two texts have in common.

use unicode_normalization::char::is_combining_mark;
use unicode_segmentation::UnicodeSegmentation;

use super::fold::fold;
use super::script::Script;

/// The words of a text in order. Punctuation is none, and where a script puts no spaces between words each character is one. Signs
/// that make another thing of a word are part of it: `A+`, `C++`, `C#`, `-18`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Words {
    /// Each word between spaces: ` one two `.
    spaced: String,
}

impl Words {
    pub fn of(text: &str) -> Self {
        let folded = fold(text);
        let mut spaced = String::with_capacity(folded.len() + 2);
        spaced.push(' ');
        let mut push = |word: &str| {
            spaced.push_str(word);
            spaced.push(' ');
        };
        let is_joint = |c: char| !c.is_alphanumeric() && !is_combining_mark(c);
        for (start, joined) in folded.unicode_word_indices() {
            let end = start + joined.len();
            let minus = minus_before(&folded[..start], joined);
            let signs = signs_behind(&folded[end..], joined);
            let parts = joined.split(is_joint).filter(|part| !part.is_empty());
            let last = parts.clone().count().saturating_sub(1);
            for (place, word) in parts.enumerate() {
                if word.chars().next().is_some_and(Script::has_no_word_spaces) {
                    word.graphemes(true).for_each(&mut push);
                    continue;
                }
                let minus = if place == 0 { minus } else { "" };
                let signs = if place == last { signs } else { "" };
                match minus.is_empty() && signs.is_empty() {
                    true => push(word),
                    false => push(&format!("{minus}{word}{signs}")),
                }
            }
        }
        Self { spaced }
    }

    /// Whether all words of `other` stand here, in a row and in their order. No words stand everywhere.
    pub fn hold(&self, other: &Self) -> bool {
        self.spaced.contains(&other.spaced)
    }

    pub fn is_empty(&self) -> bool {
        self.spaced.len() == 1
    }

    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.spaced.split(' ').filter(|word| !word.is_empty())
    }
}

/// `-` where a number is below zero; between numbers, and behind words, it is a hyphen.
fn minus_before(before: &str, word: &str) -> &'static str {
    let mut before = before.chars().rev();
    let is_minus = word.starts_with(|c: char| c.is_numeric())
        && matches!(before.next(), Some('-' | '\u{2010}'..='\u{2013}' | '\u{2212}'))
        && before
            .next()
            .is_none_or(|c| c.is_whitespace() || OPENING.contains(c));
    if is_minus { "-" } else { "" }
}

/// What a number may stand behind that is no part of it.
const OPENING: &str = "([{<>=:|/~\"'„“«";

/// Plus and number signs that end the word: a single one between two words joins them (`Ctrl+C`).
fn signs_behind<'t>(behind: &'t str, word: &str) -> &'t str {
    let is_sign = |c: char| matches!(c, '+' | '#');
    let signs = behind.len() - behind.trim_start_matches(is_sign).len();
    let joins = || {
        let (last, next) = (word.chars().next_back(), behind[signs..].chars().next());
        last.zip(next).is_some_and(|(last, next)| {
            let is_same_script = Script::of(last) == Script::of(next);
            next.is_alphanumeric() && (is_same_script || last.is_numeric() || next.is_numeric())
        })
    };
    if signs == 1 && joins() {
        ""
    } else {
        &behind[..signs]
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn holds(text: &str, phrase: &str) -> bool {
        Words::of(text).hold(&Words::of(phrase))
    }

    #[test]
    fn a_text_holds_words_in_a_row_however_they_are_written() {
        assert!(holds("Our RETURN-Policy: 30 days", "return policy"));
        assert!(holds("a small Café in town", "cafe in"));
        assert!(holds("Die Straße ist lang.", "strasse ist"));
        assert!(holds("part XK-4711/b", "xk 4711"));
        assert!(holds("您可以在三十天内退货。", "三十天内"));
        assert!(holds("商品は30日以内に返品できます", "返品"));
        assert!(holds("ลูกค้าสามารถคืนสินค้าได้", "คืนสินค้า"));
    }

    #[test]
    fn parts_of_words_other_forms_and_other_orders_are_not_held() {
        assert!(!holds("our category", "cat"));
        assert!(!holds("returned goods", "return"));
        assert!(!holds("policy of return", "return policy"));
        assert!(!holds("return. And then the policy", "return policy"));
    }

    #[test]
    fn signs_that_make_another_thing_of_a_word_are_part_of_it() {
        for (text, phrase) in [
            ("Energy class A+ and better", "class A+"),
            ("We write C++17, C# and F#.", "C++"),
            ("We write C++17, C# and F#.", "c# and f#"),
            ("C++语言", "c++"),
            ("Store at -18 °C.", "-18 °C"),
            ("Store at \u{2212}18 °C (-4 °F).", "-18"),
            ("Store at \u{2013}18 °C.", "-18 °C"),
            ("Press Ctrl+C twice.", "ctrl c"),
            ("10-18 or 2020-12-24", "10 18"),
            ("part XK-4711", "4711"),
            ("a range of 5 - 18 pieces", "5 18"),
        ] {
            assert!(holds(text, phrase), "{phrase:?} in {text:?}");
        }
        for (text, phrase) in [
            ("Energy class A+ and better", "class A"),
            ("Energy class A and better", "class A+"),
            ("Energy class A++ only", "A+"),
            ("We write C.", "C++"),
            ("We write C++ and C#.", "C"),
            ("Store at 18 °C.", "-18"),
            ("Store at -18 °C.", "18 °C"),
            ("from 10-18", "-18"),
        ] {
            assert!(!holds(text, phrase), "{phrase:?} in {text:?}");
        }
    }

    #[test]
    fn no_words_are_told_as_such_and_held_by_any_text() {
        assert!(Words::of(" ?! ").is_empty());
        assert!(holds("", "...") && holds("text", ""));
    }

    proptest! {
        #[test]
        fn any_text_holds_itself(text in any::<String>()) {
            let words = Words::of(&text);
            prop_assert!(words.hold(&words));
        }

        #[test]
        fn a_text_holds_each_of_its_words(text in "[a-zA-Z0-9à-ÿА-я가-힣一-鿿ぁ-ん .,'/+#-]{0,40}") {
            let words = Words::of(&text);
            for word in words.iter() {
                prop_assert!(words.hold(&Words::of(word)), "{word:?}");
            }
        }
    }
}
