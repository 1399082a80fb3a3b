//! Texts word by word, folded as the index folds them but with every word and every form: what tells whether one text
//! holds another, and how much two texts have in common.

use unicode_normalization::char::is_combining_mark;
use unicode_segmentation::UnicodeSegmentation;

use super::fold::fold;
use super::script::Script;

/// The words of a text in order. Punctuation is none, and where a script puts no spaces between words each character is one.
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
        for word in folded.unicode_words().flat_map(|word| word.split(is_joint)) {
            match word.chars().next() {
                Some(first) if Script::has_no_word_spaces(first) => word.graphemes(true).for_each(&mut push),
                Some(_) => push(word),
                None => {}
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
        fn a_text_holds_each_of_its_words(text in "[a-zA-Z0-9à-ÿА-я가-힣一-鿿ぁ-ん .,'/-]{0,40}") {
            let words = Words::of(&text);
            for word in words.iter() {
                prop_assert!(words.hold(&Words::of(word)), "{word:?}");
            }
        }
    }
}
