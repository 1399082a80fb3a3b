//! What stands in a text as several words and is read as one, too: codes and compounds (`XK-4711`, `e-mail`), and numbers whose
//! thousands are parted by spaces (`1 234,50`).

use super::codes;

/// The words of a text in a row, as far as they may be one.
#[derive(Default)]
pub(super) struct Joined {
    compound: String,
    words: usize,
    number: Thousands,
}

impl Joined {
    /// The next word, with what stands between it and the one before. Hands over what the words before it are as one, and how
    /// many they are.
    pub(super) fn take(&mut self, between: &str, word: &str, mut emit: impl FnMut(&str, usize)) {
        if !matches!(between, "-" | "/" | "\u{2010}" | "\u{2011}") {
            self.end_compound(&mut emit);
        }
        self.compound.push_str(word);
        self.words += 1;
        self.number.take(between, word, emit);
    }

    pub(super) fn end(&mut self, mut emit: impl FnMut(&str, usize)) {
        self.end_compound(&mut emit);
        self.number.end(emit);
    }

    fn end_compound(&mut self, emit: &mut impl FnMut(&str, usize)) {
        if self.words > 1 {
            emit(&self.compound, self.words);
        }
        self.compound.clear();
        self.words = 0;
    }
}

/// Digits in groups of three.
#[derive(Default)]
struct Thousands {
    digits: String,
    groups: usize,
    /// The last group has decimals.
    is_whole: bool,
    follows_number: bool,
}

impl Thousands {
    fn take(&mut self, between: &str, word: &str, emit: impl FnMut(&str, usize)) {
        let is_number = word.starts_with(|c: char| c.is_ascii_digit());
        let goes_on = between == " " && is_number;
        if goes_on && self.groups > 0 && !self.is_whole && is_next_group(word) {
            self.digits.push_str(word);
            self.groups += 1;
            self.is_whole = word.len() > 3;
            return;
        }
        match goes_on {
            // A row of other numbers, such as a telephone has.
            true => self.clear(),
            false => self.end(emit),
        }
        if is_first_group(word) && !(goes_on && self.follows_number) {
            self.digits.push_str(word);
            self.groups = 1;
        }
        self.follows_number = is_number;
    }

    fn end(&mut self, mut emit: impl FnMut(&str, usize)) {
        if self.groups > 1 {
            let plain = codes::plain_number(&self.digits);
            emit(plain.as_deref().unwrap_or(&self.digits), self.groups);
        }
        self.clear();
    }

    fn clear(&mut self) {
        self.digits.clear();
        self.groups = 0;
        self.is_whole = false;
    }
}

fn is_first_group(word: &str) -> bool {
    word.len() <= 3 && codes::is_digits(word) && !word.starts_with('0')
}

fn is_next_group(word: &str) -> bool {
    let (digits, decimals) = word.split_once(['.', ',']).unwrap_or((word, "0"));
    digits.len() == 3 && codes::is_digits(digits) && codes::is_digits(decimals)
}

#[cfg(test)]
mod tests {
    use unicode_segmentation::UnicodeSegmentation;

    use super::*;

    fn joined(text: &str) -> Vec<(String, usize)> {
        let (mut found, mut joined, mut end) = (Vec::new(), Joined::default(), 0);
        let mut emit = |text: &str, words: usize| found.push((text.to_owned(), words));
        for (start, word) in text.unicode_word_indices() {
            joined.take(&text[end..start], word, &mut emit);
            end = start + word.len();
        }
        joined.end(emit);
        found
    }

    #[test]
    fn codes_and_compounds_are_one_word() {
        assert_eq!(
            joined("the XK-4711/b, an e-mail"),
            [("XK4711b".to_owned(), 3), ("email".to_owned(), 2)]
        );
        assert_eq!(joined("one two"), []);
    }

    #[test]
    fn thousands_that_spaces_part_are_one_number() {
        for (written, plain, groups) in [
            ("1 234,50 EUR", "1234.5", 2),
            ("of 1 234 567.89 kr", "1234567.89", 3),
            ("12 345", "12345", 2),
        ] {
            assert_eq!(joined(written), [(plain.to_owned(), groups)], "{written}");
        }
    }

    #[test]
    fn numbers_that_only_stand_beside_each_other_are_none() {
        for text in [
            "0421 555 019",
            "555 0199",
            "12 34 56",
            "1  234",
            "1, 234",
            "421 555 0199",
            "4 x 234",
            "1 234,50,1",
        ] {
            assert_eq!(joined(text), [], "{text}");
        }
    }
}
