//! One form for what readers take for the same: letter case, compatibility forms, accents that people leave out, digits.

use std::borrow::Cow;

use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;

use super::script::Script;

/// `text` with its differences of writing removed, those of wording kept.
///
/// A mark goes where words are commonly typed without it (Latin, Greek, ё, vowel points of Arabic and Hebrew) and stays
/// where it makes another letter (й, the vowel signs of Indic scripts and of Thai, voiced kana).
pub(super) fn fold(text: &str) -> String {
    fold_with(text, Accents::Dropped)
}

/// The same with the accents of Latin letters: in Vietnamese they make other words.
pub(super) fn fold_but_accents(text: &str) -> String {
    fold_with(text, Accents::Kept)
}

/// A word of [`fold_but_accents`] as [`fold`] has it.
pub(super) fn without_accents(word: &str) -> Cow<'_, str> {
    match has_accents(word) {
        true => fold(word).into(),
        false => word.into(),
    }
}

/// A word of [`fold_but_accents`] with its tones behind its letters: they are written on one vowel or the other (`hòa`, `hoà`).
pub(super) fn with_tones_last(word: &str) -> Cow<'_, str> {
    if !has_accents(word) {
        return word.into();
    }
    let (tones, letters): (String, String) = word.nfd().partition(|c| TONES.contains(c));
    letters.nfc().chain(tones.chars()).collect::<String>().into()
}

/// Whether a folded word has letters that [`fold`] would change.
pub(super) fn has_accents(word: &str) -> bool {
    let is_accented = |c| matches!(c, '\u{c0}'..='\u{24f}' | '\u{300}'..='\u{36f}' | '\u{1e00}'..='\u{1eff}');
    !word.is_ascii() && word.contains(is_accented)
}

/// Whether a word of [`fold_but_accents`] has a letter that only Vietnamese has: `ơ`, `ư`, a hook above, or a tone on `ă`, `â`,
/// `ê`, `ô`. Others have `ă`, `đ` and dots below, too.
pub(super) fn is_vietnamese(word: &str) -> bool {
    let is_own = |c| matches!(c, 'ơ' | 'ư' | 'ả' | 'ẻ' | 'ỉ' | 'ỏ' | 'ủ' | 'ỷ' | 'ấ'..='ặ' | 'ế'..='ệ' | 'ố'..='ợ' | 'ứ'..='ự');
    !word.is_ascii() && word.contains(is_own)
}

const NON_JOINER: char = '\u{200c}';

/// Grave, acute, tilde, hook above, dot below.
const TONES: [char; 5] = ['\u{300}', '\u{301}', '\u{303}', '\u{309}', '\u{323}'];

#[derive(Clone, Copy, PartialEq)]
enum Accents {
    Kept,
    Dropped,
}

fn fold_with(text: &str, accents: Accents) -> String {
    if text.is_ascii() {
        return text.to_ascii_lowercase();
    }
    let is_kept = |base, mark| {
        let is_accent = matches!(mark, '\u{300}'..='\u{36f}') && Script::of(base) == Some(Script::Latin);
        // The Turkish capital İ is that of an i without an accent.
        let is_dot = matches!(base, 'i' | 'I') && mark == '\u{307}';
        !is_omitted(base, mark) || (accents == Accents::Kept && is_accent && !is_dot)
    };
    let mut base = ' ';
    let without_marks = text.nfkd().filter_map(move |c| {
        if is_combining_mark(c) {
            return is_kept(base, c).then_some(c);
        }
        let before = std::mem::replace(&mut base, c);
        match c {
            // Parts words of Persian, which are as often typed with a space.
            NON_JOINER if Script::of(before) == Some(Script::Arabic) => Some(' '),
            _ => (!is_invisible(c)).then_some(c),
        }
    });
    let mut folded = String::with_capacity(text.len());
    for c in without_marks.nfc().flat_map(char::to_lowercase) {
        match c {
            'ß' => folded.push_str("ss"),
            'æ' => folded.push_str("ae"),
            'œ' => folded.push_str("oe"),
            'ø' => folded.push('o'),
            'ł' => folded.push('l'),
            'đ' if accents == Accents::Dropped => folded.push('d'),
            'ı' => folded.push('i'),
            // Arabic marks of decimals and of thousands.
            '\u{66b}' => folded.push('.'),
            '\u{66c}' => folded.push(','),
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

/// The zeros of the scripts that have digits of their own; each is followed by its other nine. Wide, superscript and other
/// digits of compatibility are ASCII ones by then.
const ZEROS: [char; 33] = [
    '\u{660}', '\u{6f0}', '\u{7c0}', '\u{966}', '\u{9e6}', '\u{a66}', '\u{ae6}', '\u{b66}', '\u{be6}',
    '\u{c66}', '\u{ce6}', '\u{d66}', '\u{de6}', '\u{e50}', '\u{ed0}', '\u{f20}', '\u{1040}', '\u{1090}',
    '\u{17e0}', '\u{1810}', '\u{1946}', '\u{19d0}', '\u{1a80}', '\u{1a90}', '\u{1b50}', '\u{1bb0}',
    '\u{1c40}', '\u{1c50}', '\u{a620}', '\u{a8d0}', '\u{a900}', '\u{a9d0}', '\u{abf0}',
];

/// A digit of any script as the one that is typed everywhere.
fn ascii_digit(c: char) -> Option<char> {
    let before = ZEROS.partition_point(|zero| *zero <= c);
    let zero = *ZEROS.get(before.checked_sub(1)?)?;
    char::from_digit(u32::from(c) - u32::from(zero), 10)
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
            ("۱۲۳", "123"),
            ("١٢٬٣٤٥٫٦٧", "12,345.67"),
            ("१२३", "123"),
            ("১২৩", "123"),
            ("௧௨௩", "123"),
            ("๑๒๓", "123"),
            ("၁၂၃", "123"),
            ("១២៣", "123"),
            ("１２３", "123"),
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

    #[test]
    fn accents_are_kept_where_they_are_asked_for() {
        assert_eq!(
            fold_but_accents("Đường Phở Straße ЁЛКА"),
            "đường phở strasse елка"
        );
        assert_eq!(without_accents("đường"), "duong");
        assert_eq!(with_tones_last("hòa"), with_tones_last("hoà"));
        assert_ne!(with_tones_last("bò"), with_tones_last("bó"));
        assert_ne!(with_tones_last("bo"), with_tones_last("bơ"));
    }

    #[test]
    fn letters_of_vietnamese_are_told_from_those_that_others_have_too() {
        for word in [
            "phở",
            "nước",
            "tiếng",
            "việt",
            "trả",
            "ngủ",
            "tư",
            "lặng",
            "một cuộc",
        ] {
            assert!(is_vietnamese(&fold_but_accents(word)), "{word}");
        }
        for word in [
            "trà",
            "él",
            "été",
            "são",
            "ñandú",
            "București",
            "brașov",
            "ẹ̀kọ́",
            "ŵyth",
            "đak",
            "ǎ",
        ] {
            assert!(!is_vietnamese(&fold_but_accents(word)), "{word}");
        }
    }

    #[test]
    fn all_digits_of_every_script_are_folded_and_nothing_beside_them() {
        assert!(ZEROS.is_sorted());
        for zero in ZEROS.map(u32::from) {
            let at = |offset: u32| char::from_u32(zero + offset).and_then(ascii_digit);
            assert_eq!((at(0), at(9), at(10)), (Some('0'), Some('9'), None), "{zero:x}");
        }
        assert_eq!(ascii_digit('a'), None);
    }

    proptest! {
        #[test]
        fn folding_twice_is_folding_once(text in "\\PC{0,40}") {
            let once = fold(&text);
            prop_assert_eq!(fold(&once), once);
        }

        #[test]
        fn accents_may_be_dropped_later(text in "[A-Za-zÀ-ɏḀ-ỿ\u{300}\u{301}\u{302}\u{323}Ѐ-џก-๎ ]{0,20}") {
            let kept = fold_but_accents(&text);
            prop_assert_eq!(without_accents(&kept), fold(&text));
        }
    }
}
