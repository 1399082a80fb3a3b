//! One form for what readers take for the same: letter case, compatibility forms, accents that people leave out, digits.

use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;

use super::script::Script;

/// `text` with its differences of writing removed, those of wording kept.
///
/// A mark goes where words are commonly typed without it (Latin, Greek, ё, vowel points of Arabic and Hebrew) and stays
/// where it makes another letter (й, the vowel signs of Indic scripts and of Thai, voiced kana).
pub(super) fn fold(text: &str) -> String {
    if text.is_ascii() {
        return text.to_ascii_lowercase();
    }
    let mut base = ' ';
    let without_marks = text.nfkd().filter(move |c| {
        if !is_combining_mark(*c) {
            base = *c;
            return !is_invisible(*c);
        }
        !is_omitted(base, *c)
    });
    let mut folded = String::with_capacity(text.len());
    for c in without_marks.nfc().flat_map(char::to_lowercase) {
        match c {
            'ß' => folded.push_str("ss"),
            'æ' => folded.push_str("ae"),
            'œ' => folded.push_str("oe"),
            'ø' => folded.push('o'),
            'ł' => folded.push('l'),
            'đ' => folded.push('d'),
            'ı' => folded.push('i'),
            // Kaf and yeh as keyboards of Persian and Arabic have them.
            '\u{6a9}' => folded.push('\u{643}'),
            '\u{6cc}' => folded.push('\u{64a}'),
            _ => folded.push(ascii_digit(c).unwrap_or(c)),
        }
    }
    folded
}

/// Soft hyphens, joiners, marks of direction, the Arabic stroke that only widens a word.
fn is_invisible(c: char) -> bool {
    matches!(
        c,
        '\u{ad}' | '\u{640}' | '\u{200b}'..='\u{200f}' | '\u{2060}' | '\u{feff}'
    )
}

fn is_omitted(base: char, mark: char) -> bool {
    match mark {
        '\u{300}'..='\u{36f}' => match Script::of(base) {
            Some(Script::Cyrillic) => matches!(base, 'е' | 'Е'),
            _ => true,
        },
        '\u{591}'..='\u{5c7}' | '\u{64b}'..='\u{652}' | '\u{670}' => true,
        _ => false,
    }
}

/// The value of an Arabic, Persian or Devanagari digit, as the digit that is typed everywhere.
fn ascii_digit(c: char) -> Option<char> {
    let zero = match c {
        '\u{660}'..='\u{669}' => 0x660,
        '\u{6f0}'..='\u{6f9}' => 0x6f0,
        '\u{966}'..='\u{96f}' => 0x966,
        _ => return None,
    };
    char::from_digit(u32::from(c) - zero, 10)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_people_leave_out_is_no_difference() {
        for (written, typed) in [
            ("CAFÉ", "cafe"),
            ("Straße", "strasse"),
            ("ﬁle", "file"),
            ("Łódź", "lodz"),
            ("İstanbul", "istanbul"),
            ("ещё", "еще"),
            ("مُحَمَّد", "محمد"),
            ("שָׁלוֹם", "שלום"),
            ("١٢٣", "123"),
            ("re\u{ad}turn", "return"),
        ] {
            assert_eq!(fold(written), fold(typed), "{written}");
        }
    }

    #[test]
    fn a_mark_that_makes_another_letter_stays() {
        assert_ne!(fold("мой"), fold("мои"));
        assert_ne!(fold("कि"), fold("क"));
        assert_ne!(fold("が"), fold("か"));
        assert_ne!(fold("ที่"), fold("ท"));
    }

    proptest! {
        #[test]
        fn folding_twice_is_folding_once(text in "\\PC{0,40}") {
            let once = fold(&text);
            prop_assert_eq!(fold(&once), once);
        }
    }
}
