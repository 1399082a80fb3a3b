//! Right-to-left writing: pages hold a line in the order of the eye, readers and indexes want the order of reading.
//!
//! This turns round what the Unicode Bidirectional Algorithm (UAX 9) did when the page was set. Its result does not
//! tell every case apart, so the usual one is taken: foreign words and numbers keep their order inside.

/// A run of pieces with one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Hebrew, Arabic and their kin.
    RightToLeft,
    /// Letters of other scripts, or numbers alone.
    Foreign { has_letter: bool },
    /// Spaces and punctuation, which belong to what is around them.
    Neutral,
}

/// The pieces of a line, given from left to right, in the order of reading.
pub(super) fn in_reading_order(pieces: &[&str], base_is_rtl: bool) -> String {
    // Behind Arabic letters, signs and hyphens are no part of numbers (UAX 9, rules W2 to W5).
    let is_arabic = pieces.iter().any(|piece| piece.chars().any(is_arabic_letter));
    let runs = merged(runs_of(pieces, !is_arabic), pieces, base_is_rtl, !is_arabic);
    let mut out = String::with_capacity(pieces.iter().map(|piece| piece.len()).sum());
    if base_is_rtl {
        let mirrors = needs_mirrors(pieces);
        for (kind, range) in runs.iter().rev() {
            match kind {
                Kind::Foreign { .. } => out.extend(pieces[range.clone()].iter().copied()),
                _ => append_reversed(&mut out, &pieces[range.clone()], mirrors),
            }
        }
    } else {
        for (kind, range) in &runs {
            match kind {
                Kind::RightToLeft => append_reversed(&mut out, &pieces[range.clone()], false),
                _ => out.extend(pieces[range.clone()].iter().copied()),
            }
        }
    }
    out
}

fn append_reversed(out: &mut String, pieces: &[&str], mirrors: bool) {
    for piece in pieces.iter().rev() {
        if mirrors && kind_of(piece) == Kind::Neutral {
            out.extend(piece.chars().map(mirrored));
        } else {
            out.push_str(piece);
        }
    }
}

type Runs = Vec<(Kind, std::ops::Range<usize>)>;

/// Runs of one direction. `signed` where signs of amounts belong to the number.
fn runs_of(pieces: &[&str], signed: bool) -> Runs {
    let mut runs: Runs = Vec::new();
    for (at, piece) in pieces.iter().enumerate() {
        let kind = kind_of(piece);
        match runs.last_mut() {
            Some((Kind::Foreign { has_letter }, range)) if matches!(kind, Kind::Foreign { .. }) => {
                *has_letter |= kind == Kind::Foreign { has_letter: true };
                range.end = at + 1;
            }
            Some((last, range)) if *last == kind => range.end = at + 1,
            Some((Kind::Foreign { .. }, range)) if signed && is_sign(piece) => range.end = at + 1,
            Some((last @ Kind::Neutral, range))
                if signed
                    && matches!(kind, Kind::Foreign { has_letter: false })
                    && range.len() == 1
                    && is_sign(pieces[range.start]) =>
            {
                *last = kind;
                range.end = at + 1;
            }
            _ => runs.push((kind, at..at + 1)),
        }
    }
    runs
}

/// Joins runs over the neutral pieces between them, where those belong to both.
fn merged(runs: Runs, pieces: &[&str], base_is_rtl: bool, hyphened: bool) -> Runs {
    let mut out: Runs = Vec::with_capacity(runs.len());
    for (kind, range) in runs {
        if let [.., (before, left), (Kind::Neutral, between)] = &mut out[..] {
            let joined = match (*before, kind) {
                (Kind::Foreign { has_letter: a }, Kind::Foreign { has_letter: b }) => {
                    let is_inside = a
                        || b
                        || pieces[between.clone()]
                            .iter()
                            .all(|piece| is_separator(piece, hyphened));
                    (base_is_rtl && is_inside).then_some(Kind::Foreign { has_letter: a || b })
                }
                (Kind::RightToLeft, Kind::RightToLeft) if !base_is_rtl => Some(Kind::RightToLeft),
                _ => None,
            };
            if let Some(joined) = joined {
                *before = joined;
                left.end = range.end;
                out.pop();
                continue;
            }
        }
        out.push((kind, range));
    }
    out
}

fn kind_of(piece: &str) -> Kind {
    let mut kind = Kind::Neutral;
    for c in piece.chars() {
        if is_rtl(c) {
            return Kind::RightToLeft;
        }
        if c.is_alphabetic() {
            kind = Kind::Foreign { has_letter: true };
        } else if c.is_numeric() && kind == Kind::Neutral {
            kind = Kind::Foreign { has_letter: false };
        }
    }
    kind
}

/// What stands between the parts of a number or a date.
fn is_separator(piece: &str, hyphened: bool) -> bool {
    piece
        .chars()
        .all(|c| matches!(c, '.' | ',' | ':' | '/' | '\u{66b}' | '\u{66c}') || (hyphened && c == '-'))
}

fn is_arabic_letter(c: char) -> bool {
    is_rtl(c)
        && c.is_alphabetic()
        && !matches!(c, '\u{590}'..='\u{5ff}' | '\u{7c0}'..='\u{85f}' | '\u{fb1d}'..='\u{fb4f}')
}

fn is_sign(piece: &str) -> bool {
    matches!(piece, "%" | "$" | "€" | "£" | "#" | "°" | "+" | "\u{66a}")
}

/// Whether brackets stand as they look. Some programs note the character that was typed instead: then the first
/// bracket of a pair, read from the right, already opens.
fn needs_mirrors(pieces: &[&str]) -> bool {
    let mut depth = 0_i32;
    for c in pieces.iter().rev().flat_map(|piece| piece.chars()) {
        match c {
            '(' | '[' | '{' | '«' => depth += 1,
            ')' | ']' | '}' | '»' => depth -= 1,
            _ => {}
        }
        if depth < 0 {
            return true;
        }
    }
    depth > 0
}

fn mirrored(c: char) -> char {
    match c {
        '(' => ')',
        ')' => '(',
        '[' => ']',
        ']' => '[',
        '{' => '}',
        '}' => '{',
        '«' => '»',
        '»' => '«',
        other => other,
    }
}

pub(super) fn has_rtl(text: &str) -> bool {
    text.chars().any(is_rtl)
}

pub(super) fn has_ltr_letter(text: &str) -> bool {
    text.chars().any(|c| c.is_alphabetic() && !is_rtl(c))
}

/// Hebrew, Arabic and their presentation forms. Their digits are written from left to right, as all are.
pub(super) fn is_rtl(c: char) -> bool {
    matches!(c, '\u{590}'..='\u{8ff}' | '\u{fb1d}'..='\u{fdff}' | '\u{fe70}'..='\u{fefc}')
        && !matches!(c, '\u{660}'..='\u{66c}' | '\u{6f0}'..='\u{6f9}' | '\u{6dd}')
}

/// Vowel signs and points, which stand above or below a letter.
pub(super) fn is_mark(c: char) -> bool {
    matches!(c,
        '\u{300}'..='\u{36f}' | '\u{591}'..='\u{5bd}' | '\u{5bf}' | '\u{5c1}' | '\u{5c2}' | '\u{5c4}' | '\u{5c5}'
        | '\u{5c7}' | '\u{610}'..='\u{61a}' | '\u{64b}'..='\u{65f}' | '\u{670}' | '\u{6d6}'..='\u{6dc}'
        | '\u{6df}'..='\u{6e4}' | '\u{6e7}' | '\u{6e8}' | '\u{6ea}'..='\u{6ed}')
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One piece per character, from left to right as the eye sees them.
    fn read(seen: &str, base_is_rtl: bool) -> String {
        let pieces: Vec<String> = seen.chars().map(String::from).collect();
        let pieces: Vec<&str> = pieces.iter().map(String::as_str).collect();
        in_reading_order(&pieces, base_is_rtl)
    }

    #[test]
    fn lines_are_turned_round_but_not_their_numbers_and_foreign_words() {
        for (seen, expected) in [
            ("אבג", "גבא"),
            ("2026 - 2024 אב", "בא 2024 - 2026"),
            ("10.5% אב", "בא 10.5%"),
            ("1403/09/19 אב", "בא 1403/09/19"),
            ("אב two words 3.1 גד", "דג two words 3.1 בא"),
            ("٢٠٢٤ אב", "בא ٢٠٢٤"),
            ("2024-26 אב", "בא 2024-26"),
            ("26-2024 بت", "تب 2024-26"),
            ("%50 بت", "تب 50%"),
            ("1403/09/19 بت", "تب 1403/09/19"),
        ] {
            assert_eq!(read(seen, true), expected, "{seen}");
        }
    }

    #[test]
    fn brackets_open_towards_their_text_however_they_are_noted() {
        assert_eq!(read("(2024) אב", true), "בא (2024)");
        assert_eq!(read(")2024( אב", true), "בא (2024)");
    }

    #[test]
    fn a_foreign_phrase_in_a_line_from_left_to_right_is_turned_round_alone() {
        assert_eq!(
            read("the word דג בא means (x)", false),
            "the word אב גד means (x)"
        );
    }
}
