//! Codes, numbers and amounts: what is found by its parts, and what is written in more than one way.

use super::script::Script;

/// Whether a word is a code: `xk4711` or `v1.2`, and no number.
pub(super) fn is_code(word: &str) -> bool {
    word.contains(char::is_numeric) && word.contains(char::is_alphabetic)
}

/// The pieces of `xk4711` or `iphone15`, letters and digits apart, so that each of them finds it; none of a word that is
/// one of either.
pub(super) fn each_piece<'a>(word: &'a str, take: impl FnMut(&'a str)) {
    if !is_code(word) {
        return;
    }
    runs(word).for_each(take);
}

/// The pieces of all words of a text, letters and digits apart, in their order.
pub(super) fn pieces(text: &str) -> impl Iterator<Item = &str> {
    let is_between = |c: char| !c.is_alphanumeric() || Script::has_no_word_spaces(c);
    text.split(is_between).flat_map(runs)
}

fn runs(word: &str) -> impl Iterator<Item = &str> {
    let mut rest = word;
    std::iter::from_fn(move || {
        let first = rest.chars().next()?;
        let end = rest.find(|c: char| c.is_numeric() != first.is_numeric());
        let (run, behind) = rest.split_at(end.unwrap_or(rest.len()));
        rest = behind;
        Some(run)
    })
}

/// A number as it is written without marks between thousands, with a point before its decimals, and without zeros behind
/// them: `1,000`, `1.000` and `1'000` are `1000`, `2,45,000` is `245000` (as India parts them), and `12,50` is `12.5`. `None`
/// where it is written so already, and for what is no number.
pub(super) fn plain_number(word: &str) -> Option<String> {
    let is_mark = |c: char| matches!(c, '.' | ',' | '\'' | '\u{2019}');
    let mut marks = word.matches(is_mark);
    let first_mark = marks.next()?;
    let same_marks = marks.all(|mark| mark == first_mark);
    let parts: Vec<&str> = word.split(is_mark).collect();
    if !parts.iter().all(|part| is_digits(part)) {
        return None;
    }
    let (last, others) = parts.split_last()?;
    let is_grouped = |parts: &[&str]| are_groups(parts, first_mark == ",");
    if same_marks && is_grouped(&parts) {
        return Some(parts.concat());
    }
    // With one mark it is the one before the decimals; with several the last one is, if the others are of another kind.
    let has_decimals = match others {
        [_] => matches!(first_mark, "." | ","),
        _ => {
            let before_decimals = &word[..word.len() - last.len()];
            let groups = before_decimals.strip_suffix(['.', ',']);
            let has_one_mark = |groups: &str| groups.matches(is_mark).all(|mark| mark == first_mark);
            is_grouped(others) && !same_marks && groups.is_some_and(has_one_mark)
        }
    };
    if !has_decimals {
        return None;
    }
    // Three decimals could be read as thousands.
    let decimals = match last.trim_end_matches('0') {
        short if short.len() == 3 => *last,
        short => short,
    };
    let plain = match decimals {
        "" => others.concat(),
        decimals => format!("{}.{decimals}", others.concat()),
    };
    (plain != word).then_some(plain)
}

/// Whether digits are parted as thousands are; where `has_commas`, also by hundreds of thousands.
fn are_groups(parts: &[&str], has_commas: bool) -> bool {
    let (first, others) = (parts[0], &parts[1..]);
    let have = |parts: &[&str], digits| parts.iter().all(|part| part.len() == digits);
    let are_thousands = first.len() <= 3 && have(others, 3);
    let are_lakhs = match others {
        [hundreds @ .., last] => has_commas && first.len() <= 2 && have(hundreds, 2) && last.len() == 3,
        [] => false,
    };
    !first.starts_with('0') && (are_thousands || are_lakhs)
}

/// The two parts of an amount that is written in one: `3.5mm` is `3.5` and `mm`.
pub(super) fn amount_and_unit(word: &str) -> Option<(&str, &str)> {
    let (amount, unit) = word.split_at(word.find(char::is_alphabetic)?);
    let has_decimals = amount
        .split_once(['.', ','])
        .is_some_and(|(whole, decimals)| is_digits(whole) && is_digits(decimals));
    (has_decimals && unit.chars().all(char::is_alphabetic)).then_some((amount, unit))
}

/// Groups of digits in one word whose neighbours are found together.
const MOST_GROUPS: usize = 6;

/// What some, but not all, of the groups are together in a word of three and more groups of digits: `8471.30` and `30.01` of
/// `8471.30.01`.
pub(super) fn each_run_of_groups<'a>(word: &'a str, mut take: impl FnMut(&'a str)) {
    let joints: Vec<(usize, &str)> = word.match_indices(|c: char| !c.is_ascii_digit()).collect();
    let groups = joints.len() + 1;
    let start_of = |group: usize| {
        group
            .checked_sub(1)
            .map_or(0, |joint| joints[joint].0 + joints[joint].1.len())
    };
    let end_of = |group: usize| joints.get(group).map_or(word.len(), |(at, _)| *at);
    let is_one = |group: usize| start_of(group) < end_of(group);
    if !(3..=MOST_GROUPS).contains(&groups) || word.contains(char::is_alphabetic) || !(0..groups).all(is_one)
    {
        return;
    }
    for first in 0..groups {
        let whole = first + groups - 1;
        for last in (first + 1..groups).take_while(|last| *last < whole) {
            take(&word[start_of(first)..end_of(last)]);
        }
    }
}

/// The number of a version: `10.15.7` of `v10.15.7`, which is as often written without its letter.
pub(super) fn version_number(word: &str) -> Option<&str> {
    let number = word.strip_prefix('v')?;
    let is_number = number.contains('.') && number.split('.').all(is_digits);
    is_number.then_some(number)
}

pub(super) fn is_digits(part: &str) -> bool {
    !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_number_is_one_however_its_thousands_and_decimals_are_marked() {
        for (written, plain) in [
            ("1,000", Some("1000")),
            ("1.000", Some("1000")),
            ("1'000", Some("1000")),
            ("1.234.567", Some("1234567")),
            ("1,234.50", Some("1234.5")),
            ("1.234,50", Some("1234.5")),
            ("12,50", Some("12.5")),
            ("2,45,000", Some("245000")),
            ("1,23,45,678.90", Some("12345678.9")),
            ("2.45.000", None),
            ("123,45,000", None),
            ("12.00", Some("12")),
            ("0,125", Some("0.125")),
            ("1.2340", None),
            ("3.5", None),
            ("1000", None),
            ("1.2.3", None),
            ("10.0.0.1", None),
            ("v1,000", None),
            ("1,00,0", None),
            ("", None),
        ] {
            assert_eq!(plain_number(written).as_deref(), plain, "{written}");
        }
    }

    #[test]
    fn an_amount_is_parted_from_its_unit() {
        assert_eq!(amount_and_unit("3.5mm"), Some(("3.5", "mm")));
        assert_eq!(amount_and_unit("3mm"), None, "its pieces say the same");
        assert_eq!(amount_and_unit("1.2.3mm"), None);
        assert_eq!(amount_and_unit("v1.2"), None);
        assert_eq!(amount_and_unit("3.5"), None);
    }

    #[test]
    fn groups_of_digits_are_found_with_their_neighbours() {
        let runs = |word| {
            let mut runs = Vec::new();
            each_run_of_groups(word, |run| runs.push(run));
            runs
        };
        assert_eq!(runs("8471.30.01"), ["8471.30", "30.01"]);
        assert_eq!(runs("10.0.0.1"), ["10.0", "10.0.0", "0.0", "0.0.1", "0.1"]);
        for word in ["8471.30", "8471", "v1.2.3", "1..2.3", "1.2.3.4.5.6.7", ""] {
            assert!(runs(word).is_empty(), "{word}");
        }
    }

    #[test]
    fn a_version_is_its_number() {
        assert_eq!(version_number("v10.15.7"), Some("10.15.7"));
        for word in ["10.15.7", "v7", "v1.2b", "v.1", "version"] {
            assert_eq!(version_number(word), None, "{word}");
        }
    }

    proptest! {
        #[test]
        fn any_word_is_looked_at_without_harm(word in "[0-9.,'a-z\u{e9}]{0,12}") {
            if let Some(plain) = plain_number(&word) {
                prop_assert_eq!(plain_number(&plain).filter(|again| *again != plain), None);
            }
            each_run_of_groups(&word, |run| assert!(word.contains(run) && run.len() < word.len()));
            let mut pieces = String::new();
            each_piece(&word, |piece| pieces.push_str(piece));
            prop_assert!(pieces.is_empty() || pieces == word);
            let parted = amount_and_unit(&word).map(|(amount, unit)| [amount, unit].concat());
            prop_assert!(parted.is_none_or(|parted| parted == word));
        }
    }
}
