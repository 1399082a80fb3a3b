//! The writing systems that analysis tells apart.

use unicode_normalization::UnicodeNormalization;

/// A script, or a group of scripts that are handled alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Script {
    Arabic,
    Armenian,
    Cyrillic,
    Devanagari,
    Greek,
    Han,
    Hangul,
    Hebrew,
    Kana,
    Latin,
    Tamil,
    Thai,
    /// Any that no language with rules is written in.
    Other,
}

/// Letters that one of another script than Latin counts for: names and products are Latin in texts of every script, and
/// seldom the other way round.
const LETTERS_PER_OTHER: usize = 3;

/// The same for a Han, kana or Hangul character, which is about half a word.
const LETTERS_PER_IDEOGRAPH: usize = 6;

/// Of kana and Han characters, the share of kana from which on a text is Japanese.
const LEAST_KANA: f32 = 0.1;

impl Script {
    const ALL: &[Self] = &[
        Self::Arabic,
        Self::Armenian,
        Self::Cyrillic,
        Self::Devanagari,
        Self::Greek,
        Self::Han,
        Self::Hangul,
        Self::Hebrew,
        Self::Kana,
        Self::Latin,
        Self::Tamil,
        Self::Thai,
        Self::Other,
    ];

    /// The script of a letter; `None` for what is none. Forms of compatibility are of the script of what they stand for.
    pub(super) fn of(c: char) -> Option<Self> {
        Some(match c {
            'a'..='z'
            | 'A'..='Z'
            | '\u{aa}'
            | '\u{ba}'
            | '\u{c0}'..='\u{d6}'
            | '\u{d8}'..='\u{f6}'
            | '\u{f8}'..='\u{2af}'
            | '\u{1e00}'..='\u{1eff}'
            | '\u{2c60}'..='\u{2c7f}'
            | '\u{a722}'..='\u{a7ff}' => Self::Latin,
            '\u{370}'..='\u{3ff}' | '\u{1f00}'..='\u{1fff}' => Self::Greek,
            '\u{400}'..='\u{52f}' => Self::Cyrillic,
            '\u{531}'..='\u{587}' => Self::Armenian,
            '\u{5d0}'..='\u{5f4}' => Self::Hebrew,
            '\u{620}'..='\u{65f}' | '\u{66e}'..='\u{6d5}' | '\u{6fa}'..='\u{6ff}' | '\u{750}'..='\u{77f}' => {
                Self::Arabic
            }
            // Between them the marks that end sentences in Bengali and other scripts, too.
            '\u{900}'..='\u{963}' | '\u{966}'..='\u{97f}' => Self::Devanagari,
            '\u{b80}'..='\u{bff}' => Self::Tamil,
            '\u{e01}'..='\u{e4f}' => Self::Thai,
            '\u{1100}'..='\u{11ff}' | '\u{3130}'..='\u{318f}' | '\u{ac00}'..='\u{d7af}' => Self::Hangul,
            '\u{3040}'..='\u{30ff}' | '\u{31f0}'..='\u{31ff}' => Self::Kana,
            '\u{3400}'..='\u{4dbf}'
            | '\u{4e00}'..='\u{9fff}'
            | '\u{f900}'..='\u{faff}'
            | '\u{20000}'..='\u{3ffff}' => Self::Han,
            // Modifiers and signs: degrees, units, numbers in circles.
            '\0'..='\u{58f}' | '\u{2000}'..='\u{2bff}' => return None,
            _ if c.is_alphabetic() => return Self::of_rare(c),
            _ => return None,
        })
    }

    fn of_rare(letter: char) -> Option<Self> {
        match std::iter::once(letter).nfkd().next() {
            Some(plain) if plain != letter => Self::of(plain),
            _ => Some(Self::Other),
        }
    }

    /// The script that most of `text` is written in; Japanese counts as kana.
    pub(crate) fn of_text(text: &str) -> Option<Self> {
        let mut letters = [0_usize; Self::ALL.len()];
        for script in text.chars().filter_map(Self::of) {
            letters[script as usize] += 1;
        }
        let (kana, han) = (letters[Self::Kana as usize], letters[Self::Han as usize]);
        let is_japanese = kana as f32 >= LEAST_KANA * (kana + han) as f32;
        let (japanese, chinese) = if is_japanese { (kana + han, 0) } else { (0, han) };
        letters[Self::Kana as usize] = japanese;
        letters[Self::Han as usize] = chinese;
        let weighed = Self::ALL.iter().map(|script| {
            let letters_each = match script {
                Self::Latin => 1,
                Self::Han | Self::Kana | Self::Hangul => LETTERS_PER_IDEOGRAPH,
                _ => LETTERS_PER_OTHER,
            };
            (*script, letters[*script as usize] * letters_each)
        });
        // Of equal ones the first, so that a text tells the same each time.
        weighed
            .filter(|(_, letters)| *letters > 0)
            .rev()
            .max_by_key(|(_, letters)| *letters)
            .map(|(script, _)| script)
    }

    /// Han, kana, Hangul, Thai, Lao, Khmer, Burmese: no spaces between words, or none that help.
    pub(super) fn has_no_word_spaces(c: char) -> bool {
        matches!(c,
            '\u{0e00}'..='\u{0eff}' | '\u{1000}'..='\u{109f}' | '\u{1780}'..='\u{17ff}' | '\u{1100}'..='\u{11ff}'
            | '\u{3040}'..='\u{30ff}' | '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}' | '\u{ac00}'..='\u{d7af}'
            | '\u{f900}'..='\u{faff}' | '\u{20000}'..='\u{3ffff}')
    }
    /// Of those without spaces the ones that are written in letters: Thai, Lao, Khmer, Burmese. One letter is no word there,
    /// as a Han character may be.
    pub(super) fn is_spelled_without_spaces(c: char) -> bool {
        matches!(c, '\u{0e00}'..='\u{0eff}' | '\u{1000}'..='\u{109f}' | '\u{1780}'..='\u{17ff}')
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_has_the_script_of_most_of_its_letters() {
        for (text, script) in [
            ("Goods may be returned", Some(Script::Latin)),
            ("Ａｐｐｌｅ ﬁt", Some(Script::Latin)),
            ("ｶﾀｶﾅ", Some(Script::Kana)),
            ("ﻣﺮﺣﺒﺎ", Some(Script::Arabic)),
            ("नमस्ते।", Some(Script::Devanagari)),
            ("10 °C, 5 µm, ①, ™, ½", Some(Script::Latin)),
            ("4711 ①½™।", None),
        ] {
            assert_eq!(Script::of_text(text), script, "{text}");
        }
    }

    #[test]
    fn letters_without_rules_are_of_a_script_nonetheless() {
        for text in [
            "როდის არის ბიბლიოთეკა ღია",
            "বাসের টিকিটের দাম কত।",
            "បណ្ណាល័យបើកម៉ោងប៉ុន្មាន",
            "စာကြည့်တိုက် ဘယ်အချိန်ဖွင့်သလဲ",
            "ຫໍສະໝຸດເປີດຈັກໂມງ",
            "గ్రంథాలయం ఎప్పుడు తెరుస్తారు",
            "પુસ્તકાલય ક્યારે ખુલ્લું રહે છે",
            "ቤተ መጻሕፍት መቼ ክፍት ነው",
        ] {
            assert_eq!(Script::of_text(text), Some(Script::Other), "{text}");
        }
    }
}
