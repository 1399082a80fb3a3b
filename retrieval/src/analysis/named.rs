//! Codes that a question names, and whether texts speak of them or only of others of their kind: the price of an `XK-4711`
//! answers nobody who asks for an `XK-4713`.

use super::codes;
use super::fold::fold;

/// Letters that a code has at most before a hyphen: more are a word.
const LETTERS: usize = 4;

/// Digits in a row from which on they may stand for any.
const DIGITS_OF_ANY: usize = 4;

/// The codes of a question, letters with digits behind them, each in its pieces: letters and digits apart.
#[derive(Debug, Clone, Default)]
pub struct NamedCodes {
    codes: Vec<Vec<String>>,
}

impl NamedCodes {
    pub fn of(question: &str) -> Self {
        let question = fold(question);
        let codes = question.split_whitespace().filter_map(code);
        Self {
            codes: codes.collect(),
        }
    }

    /// Whether one of these stands in `texts`, whole, however its pieces are parted, or inside of a longer one.
    pub fn stand_in<'t>(&self, texts: impl IntoIterator<Item = &'t str>) -> bool {
        !self.codes.is_empty()
            && texts.into_iter().any(|text| {
                let text = fold(text);
                let all: Vec<&str> = codes::pieces(&text).collect();
                let has_code =
                    |code: &Vec<String>| all.windows(code.len()).any(|place| place == code.as_slice());
                self.codes.iter().any(has_code)
            })
    }

    /// Whether `text` has a code that differs from one of these in its digits alone.
    pub fn are_like_others_in(&self, text: &str) -> bool {
        if self.codes.is_empty() {
            return false;
        }
        fold(text).split_whitespace().any(|token| {
            let pieces: Vec<&str> = codes::pieces(token).collect();
            let is_like = |code: &Vec<String>| pieces.windows(code.len()).any(|place| are_alike(place, code));
            self.codes.iter().any(is_like)
        })
    }
}

/// What stands before an amount of money, before a day or a year, and before a postcode with its number of digits.
const CURRENCIES: &str = "eur usd chf gbp jpy cny inr aud cad nzd sek nok dkk pln czk huf ron try brl zar sgd hkd mad us fr rs kr zl rm";
const MONTHS: &str = "jan feb mar apr may jun jul aug sep sept oct nov dec";
const POSTCODES: [(&str, usize); 5] = [("d", 5), ("de", 5), ("a", 4), ("at", 4), ("ch", 4)];

/// Whether `letters` and the digits behind them, parted by `joint`, are an amount (`EUR60`, `US$60`), a day of a month (`Dec-24`) or a
/// postcode (`D-28195`): no code. An `RS-232` and a `D3300` are none of these.
fn is_no_code(letters: &str, joint: &str, digits: &str) -> bool {
    let is_among = |words: &str| words.split_whitespace().any(|word| word == letters);
    let is_day = || {
        digits
            .parse::<u16>()
            .is_ok_and(|day| matches!(day, 1..=31 | 1900..=2099))
    };
    let is_amount = || digits.len() > 1 && matches!(joint, "" | "." | "$" | "€" | "£" | "¥");
    is_among(CURRENCIES) && is_amount()
        || is_among(MONTHS) && is_day()
        || joint == "-" && POSTCODES.contains(&(letters, digits.len()))
}

/// The code that `token` is. Amounts (`30-day`, `5kg`) begin with digits or their currency (`EUR60`), days and postcodes with their
/// month or country (`Dec-24`, `D-28195`), and some compounds with a word (`under-16s`).
fn code(token: &str) -> Option<Vec<String>> {
    let word = token.split(['\'', '\u{2019}']).next()?;
    let begins_with_word = word.split_once('-').is_some_and(|(first, _)| {
        first.chars().nth(LETTERS).is_some() && first.chars().all(char::is_alphabetic)
    });
    if begins_with_word {
        return None;
    }
    let pieces: Vec<String> = codes::pieces(word).map(str::to_owned).collect();
    if let [letters, digits] = pieces.as_slice()
        && codes::is_digits(digits)
        && let Some(joint) = between(word, letters, digits)
        && is_no_code(letters, joint, digits)
    {
        return None;
    }
    let is_code = pieces.iter().any(|piece| codes::is_digits(piece)) && !codes::is_digits(&pieces[0]);
    is_code.then_some(pieces)
}

/// What parts the two in `word`.
fn between<'w>(word: &'w str, first: &str, second: &str) -> Option<&'w str> {
    let start = word.find(first)? + first.len();
    let rest = &word[start..];
    Some(&rest[..rest.find(second)?])
}

/// Whether they are the same in all but their digits.
fn are_alike(pieces: &[&str], code: &[String]) -> bool {
    let mut pairs = pieces.iter().zip(code);
    pairs.all(|(piece, of_code)| {
        let differ_in_digits = codes::is_digits(piece) && codes::is_digits(of_code) && !are_any(piece);
        piece == of_code || differ_in_digits
    })
}

/// Whether digits stand for any: `12345` or `0000`, as in a page that shows what an order's number looks like.
fn are_any(digits: &str) -> bool {
    let bytes = digits.as_bytes();
    let steps = |step: u8| bytes.windows(2).all(|pair| pair[0] + step == pair[1]);
    bytes.len() >= DIGITS_OF_ANY && (steps(0) || (digits.starts_with(['0', '1']) && steps(1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn are_others(question: &str, texts: &[&str]) -> bool {
        let codes = NamedCodes::of(question);
        !codes.stand_in(texts.iter().copied()) && texts.iter().any(|text| codes.are_like_others_in(text))
    }

    #[test]
    fn a_code_is_told_from_others_of_its_kind() {
        for (question, text) in [
            ("What does XK-4713 cost?", "The XK-4711 costs 499 euros."),
            ("What does the xk4713 cost?", "The XK-4711 costs 499 euros."),
            ("What does WH-1000XM6 cost?", "The WH-1000XM5 costs 349 euros."),
            ("What is the warranty of AB12/35?", "AB12/34: two years."),
            (
                "How much is an M8x60 bolt?",
                "The hex bolt M8x40 costs 0.35 euros.",
            ),
            ("XK-4713的价格", "XK-4711的价格是499欧元。"),
        ] {
            assert!(are_others(question, &[text]), "{question}");
            let asked = question.replace("3 cost", "1 cost");
            assert!(asked == question || !are_others(&asked, &[text]), "{asked}");
        }
    }

    #[test]
    fn amounts_days_and_postcodes_are_no_codes() {
        for (question, text) in [
            (
                "Is shipping free for an order of EUR60?",
                "Orders from EUR50 ship free of charge.",
            ),
            ("May I pay CHF100 in cash?", "Cash up to CHF200."),
            ("Is it US$60?", "It is US$49."),
            ("Are you open on Dec-24?", "Open from Dec-1 to Dec-31."),
            ("Do you deliver to D-28195?", "Our shop: D-20095 Hamburg."),
            ("Do you deliver to AT-1010?", "Our shop: AT-5020 Salzburg."),
        ] {
            assert!(!are_others(question, &[text]), "{question}");
        }
        for (question, text) in [
            ("How much is the Nikon D3300?", "The Nikon D3200 costs 399 euros."),
            ("Has it an RS-232?", "It has an RS-485."),
            ("What does an RS3 cost?", "The RS6 costs more."),
            ("Which battery has the RM-510?", "The RM-505 has a BL-5C."),
            ("What is DEC-510?", "DEC-512 is a valve."),
            ("What is D-281?", "D-282 is a drill."),
        ] {
            assert!(are_others(question, &[text]), "{question}");
        }
    }

    #[test]
    fn a_code_that_only_shows_what_they_look_like_is_none_of_another_thing() {
        for example in ["ORD-12345", "ORD-0000", "ORD-0123", "ord 123456"] {
            assert!(!are_others("Where is order ORD-88213?", &[example]), "{example}");
        }
        for other in ["ORD-12354", "ORD-123", "ORD-3456"] {
            assert!(are_others("Where is order ORD-88213?", &[other]), "{other}");
        }
    }

    #[test]
    fn a_text_that_has_the_code_in_any_writing_speaks_of_it() {
        for text in ["XK-4713", "the xk4713", "XK 4713", "SXK-4713", "type A-XK/4713-b"] {
            assert_eq!(
                are_others("What does XK-4713 cost?", &["The XK-4711 costs 499 euros.", text]),
                text.starts_with('S'),
                "{text}"
            );
        }
        assert!(!are_others(
            "How much is the XM5?",
            &["The WH-1000XM5 and the WH-1000XM4"]
        ));
        assert!(!are_others(
            "Compare XK-4711 and XK-4713",
            &["The XK-4711 costs 499 euros."]
        ));
    }

    #[test]
    fn where_texts_have_nothing_of_its_kind_nothing_is_known_of_a_code() {
        assert!(!are_others(
            "What does XK-4713 cost?",
            &["It costs 499 euros.", "XM-4711", "XK"]
        ));
        assert!(!are_others(
            "Is there a 30-day return?",
            &["within a 14-day return"]
        ));
        assert!(!are_others(
            "May under-16s swim?",
            &["Under-18s may swim with an adult."]
        ));
        assert!(!are_others("How long may I return shoes?", &["XK-4711"]));
        assert!(!are_others("", &[""]));
    }
}
