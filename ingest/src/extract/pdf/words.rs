//! Lines to running text: what a hyphen at the end of a line is, and where no space belongs.

use std::collections::HashSet;

use super::layout::Line;
use crate::document::is_invisible;

/// Words that are remembered to tell hyphens apart.
const MAX_WORDS: usize = 200_000;

/// A document that parts words has hyphens at the end of this share of its lines.
const PARTED_SHARE_PERCENT: usize = 3;

/// Too few lines to tell.
const FEW_LINES: usize = 20;

/// The lines of a paragraph as running text, with words put together that were parted at a line end.
pub(super) fn joined(lines: &[Line], words: &Words) -> String {
    let mut out = String::new();
    for line in lines {
        let (Some(last), Some(next)) = (out.chars().last(), line.text.chars().next()) else {
            out.push_str(&line.text);
            continue;
        };
        match hyphen_between(&out, &line.text, words) {
            Hyphen::OfParting => {
                out.pop();
            }
            Hyphen::OfCompound => {}
            Hyphen::None if is_unspaced(last) && is_unspaced(next) => {}
            Hyphen::None => out.push(' '),
        }
        out.push_str(&line.text);
    }
    out.retain(|c| !is_invisible(c) || matches!(c, '\u{200c}' | '\u{200d}'));
    collapse_leaders(&out)
}

/// Brings words together that were parted at the end of a page: their rest moves to the page where they start.
pub(super) fn join_over_pages(pages: &mut [Vec<Line>]) {
    for at in 1..pages.len() {
        let (before, after) = pages.split_at_mut(at);
        let (Some(last), Some(next)) = (before[at - 1].last(), after[0].first_mut()) else {
            continue;
        };
        let is_parted = last
            .text
            .strip_suffix(['-', '\u{2010}', '\u{ad}'])
            .is_some_and(|stem| stem.ends_with(char::is_alphabetic));
        let goes_on = next.text.starts_with(char::is_lowercase)
            && next.direction == last.direction
            && (next.size - last.size).abs() < 0.1 * last.size;
        if !is_parted || !goes_on {
            continue;
        }
        let (rest, text) = next.text.split_once(' ').unwrap_or((&next.text, ""));
        let moved = Line {
            text: rest.to_owned(),
            baseline: last.baseline - last.size * 1.1,
            end: last.start + last.size * rest.len() as f32 / 2.0,
            ..last.clone()
        };
        next.text = text.to_owned();
        if next.text.is_empty() {
            after[0].remove(0);
        }
        before[at - 1].push(moved);
    }
}

/// What a hyphen at the end of a line is.
#[derive(Debug, PartialEq, Eq)]
enum Hyphen {
    None,
    /// The word was parted to fill the line.
    OfParting,
    /// It is written with a hyphen.
    OfCompound,
}

/// Decides by the words that the document uses elsewhere.
fn hyphen_between(before: &str, after: &str, words: &Words) -> Hyphen {
    if before.ends_with('\u{ad}') {
        return Hyphen::OfParting;
    }
    let Some(stem) = before.strip_suffix(['-', '\u{2010}']) else {
        return Hyphen::None;
    };
    let head = stem
        .rsplit(|c: char| !c.is_alphanumeric())
        .next()
        .unwrap_or_default();
    let tail: String = after.chars().take_while(|c| c.is_alphabetic()).collect();
    if head.is_empty() || tail.is_empty() {
        return Hyphen::None;
    }
    // "3rd-and-9": figures are not parted.
    if head.contains(char::is_numeric) {
        return Hyphen::OfCompound;
    }
    let (head, tail) = (head.to_lowercase(), tail.to_lowercase());
    let knows = |word: &str| words.known.contains(word);
    if knows(&format!("{head}{tail}")) {
        return Hyphen::OfParting;
    }
    let is_lowercase = after.starts_with(char::is_lowercase);
    if (knows(&head) && knows(&tail)) || !is_lowercase {
        // "Vor- und Nachteile": the hyphen stands for a part left out, and the word ends.
        let is_elliptic = is_lowercase
            && matches!(
                tail.as_str(),
                "und" | "oder" | "bzw" | "and" | "or" | "to" | "et" | "ou"
            );
        return if is_elliptic {
            Hyphen::None
        } else {
            Hyphen::OfCompound
        };
    }
    if words.are_parted {
        Hyphen::OfParting
    } else {
        Hyphen::OfCompound
    }
}

/// What the document tells about its words.
#[derive(Debug, Default)]
pub(super) struct Words {
    /// In lower case, those at line ends left out because they may be parts.
    known: HashSet<String>,
    /// Words are parted at line ends, rather than only broken at a hyphen they have.
    are_parted: bool,
}

impl Words {
    pub(super) fn of(pages: &[Vec<Line>]) -> Self {
        let mut known = HashSet::new();
        let (mut lines, mut hyphens) = (0_usize, 0_usize);
        for line in pages.iter().flatten() {
            lines += 1;
            let stem = line.text.strip_suffix(['-', '\u{2010}', '\u{ad}']);
            hyphens += usize::from(stem.is_some_and(|stem| stem.ends_with(char::is_alphabetic)));
            if known.len() > MAX_WORDS {
                continue;
            }
            let text = stem.map_or(line.text.as_str(), |stem| {
                stem.rfind(|c: char| !c.is_alphabetic())
                    .map_or("", |at| &stem[..at])
            });
            known.extend(
                text.split(|c: char| !c.is_alphabetic())
                    .filter(|word| !word.is_empty())
                    .map(str::to_lowercase),
            );
        }
        Self {
            known,
            are_parted: lines < FEW_LINES || hyphens * 100 >= lines * PARTED_SHARE_PERCENT,
        }
    }
}

/// Rows of dots that lead the eye are no text.
fn collapse_leaders(text: &str) -> String {
    if !text.contains("....") {
        return text.to_owned();
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("....") {
        out.push_str(rest[..at].trim_end());
        out.push_str(" … ");
        rest = rest[at..].trim_start_matches(['.', ' ']);
    }
    out.push_str(rest);
    out
}

/// Writing systems without spaces between words.
fn is_unspaced(c: char) -> bool {
    matches!(u32::from(c), 0x2e80..=0x9fff | 0xf900..=0xfaff | 0xff00..=0xffef | 0x20000..=0x3134f)
}
