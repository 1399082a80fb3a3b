//! Characters to lines: joins what stands on one baseline and finds the spaces between words.

use std::rc::Rc;

use unicode_normalization::UnicodeNormalization;

use super::bidi::{has_ltr_letter, has_rtl, in_reading_order, is_mark, is_rtl};
use super::order::ordered;
use super::text_state::Glyph;

/// Gaps between words, in ems. Fonts with real spaces leave smaller gaps than these between letters.
const WORD_GAP: f32 = 0.17;
const WORD_GAP_BESIDE_SPACES: f32 = 0.3;

/// Characters that lie further apart than this, in ems, belong to different cells or columns.
const COLUMN_GAP: f32 = 1.6;

/// How far back a character may lie behind the last one, in ems: accents, kerning, italics.
const MAX_BACKSTEP: f32 = 0.6;

/// Superscripts keep to their line.
const MAX_BASELINE_SHIFT: f32 = 0.45;

/// One line of text, or a cell's part of one.
#[derive(Debug, Clone)]
pub(super) struct Line {
    pub(super) text: String,
    pub(super) start: f32,
    pub(super) end: f32,
    pub(super) baseline: f32,
    /// The size of most of its characters, in points.
    pub(super) size: f32,
    pub(super) direction: i16,
    pub(super) is_bold: bool,
    pub(super) is_mono: bool,
}

/// The lines of a page, in the order in which it is to be read.
pub(super) fn lines_of(glyphs: Vec<Glyph>) -> Vec<Line> {
    let glyphs = with_marks_on_letters(glyphs);
    if is_mostly_rtl(glyphs.iter()) {
        return lines_from_the_right(glyphs);
    }
    let mut lines: Vec<Line> = Vec::new();
    let mut open: Vec<Glyph> = Vec::new();
    let mut reach = Reach::default();
    for glyph in glyphs {
        if !open.is_empty() && !reach.takes(&glyph) {
            lines.extend(finish(std::mem::take(&mut open), false));
        }
        if open.is_empty() {
            reach = Reach::of(&glyph);
        } else {
            reach.widen(&glyph);
        }
        open.push(glyph);
    }
    lines.extend(finish(open, false));
    ordered(lines, false)
}

/// Right-to-left pages draw the parts of a line in any order: what stands on one baseline is put in order, parted
/// where gaps are wide, and its parts are taken from the right.
fn lines_from_the_right(glyphs: Vec<Glyph>) -> Vec<Line> {
    let mut lines: Vec<Line> = Vec::new();
    let mut open: Vec<Glyph> = Vec::new();
    for glyph in glyphs {
        let is_same_line = open.first().is_none_or(|first| {
            first.direction == glyph.direction && (first.baseline - glyph.baseline).abs() < 0.3 * first.size
        });
        if !is_same_line {
            part_from_the_right(std::mem::take(&mut open), &mut lines);
        }
        open.push(glyph);
    }
    part_from_the_right(open, &mut lines);
    ordered(lines, true)
}

fn part_from_the_right(mut glyphs: Vec<Glyph>, lines: &mut Vec<Line>) {
    glyphs.sort_by(|a, b| a.start.total_cmp(&b.start));
    let mut parts: Vec<Vec<Glyph>> = Vec::new();
    let mut reach = f32::MIN;
    for glyph in glyphs {
        match parts.last_mut() {
            Some(part) if glyph.start - reach < COLUMN_GAP * glyph.size => part.push(glyph.clone()),
            _ => parts.push(vec![glyph.clone()]),
        }
        // A space may span the gap between two columns.
        if !glyph.text.trim().is_empty() {
            reach = reach.max(glyph.end);
        }
    }
    lines.extend(parts.into_iter().rev().filter_map(|part| finish(part, true)));
}

/// Where the open line lies.
#[derive(Debug, Default)]
struct Reach {
    start: f32,
    end: f32,
    last_end: f32,
    baseline: f32,
    size: f32,
    direction: i16,
    /// Some of its letters are written from right to left.
    is_rtl: bool,
}

impl Reach {
    fn of(glyph: &Glyph) -> Self {
        Self {
            start: glyph.start,
            end: glyph.end,
            last_end: glyph.end,
            baseline: glyph.baseline,
            size: glyph.size,
            direction: glyph.direction,
            is_rtl: has_rtl(&glyph.text),
        }
    }

    fn takes(&self, glyph: &Glyph) -> bool {
        let size = self.size.max(glyph.size);
        if glyph.direction != self.direction
            || (glyph.baseline - self.baseline).abs() > MAX_BASELINE_SHIFT * size
        {
            return false;
        }
        // A smaller size on a shifted baseline is a superscript; a shift at full size is the next line.
        let is_shifted = (glyph.baseline - self.baseline).abs() > 0.2 * size;
        if is_shifted && (glyph.size - self.size).abs() < 0.1 * size {
            return false;
        }
        let ahead = glyph.start - self.last_end;
        let follows = ahead > -MAX_BACKSTEP * size && ahead < COLUMN_GAP * size;
        // Right-to-left writing may be drawn from either side.
        let behind = self.start - glyph.end;
        let is_behind = behind > -MAX_BACKSTEP * size && behind < COLUMN_GAP * size;
        let precedes = is_behind && (self.is_rtl || !has_ltr_letter(&glyph.text));
        let fills = glyph.start >= self.start && glyph.end <= self.end && glyph.text.trim().is_empty();
        follows || precedes || fills
    }

    fn widen(&mut self, glyph: &Glyph) {
        self.start = self.start.min(glyph.start);
        self.end = self.end.max(glyph.end);
        self.last_end = glyph.end;
        self.is_rtl |= has_rtl(&glyph.text);
        if glyph.size > self.size {
            self.size = glyph.size;
            self.baseline = glyph.baseline;
        }
    }
}

/// The line of these characters. On a page from the right, a line with any such writing is read from there.
fn finish(mut glyphs: Vec<Glyph>, page_is_rtl: bool) -> Option<Line> {
    let inked: Vec<&Glyph> = glyphs
        .iter()
        .filter(|glyph| !glyph.text.trim().is_empty())
        .collect();
    let main = inked.iter().max_by(|a, b| a.size.total_cmp(&b.size))?;
    let size = usual_size(&inked).unwrap_or(main.size);
    let letters = inked.len();
    let count = |has: fn(&Glyph) -> bool| inked.iter().filter(|glyph| has(glyph)).count();
    let is_bold = count(|glyph| glyph.is_bold) * 10 >= letters * 9;
    let is_mono = count(|glyph| glyph.is_mono) * 10 >= letters * 9;
    let start = inked.iter().map(|glyph| glyph.start).fold(f32::MAX, f32::min);
    let end = inked.iter().map(|glyph| glyph.end).fold(f32::MIN, f32::max);
    let (baseline, direction) = (main.baseline, main.direction);
    let has_rtl_part = inked.iter().any(|glyph| has_rtl(&glyph.text));
    let base_is_rtl = has_rtl_part && (page_is_rtl || is_mostly_rtl(inked.iter().copied()));
    // Without Latin letters to tell, numbers may have been drawn from either side too.
    if has_rtl_part || !glyphs.iter().any(|glyph| has_ltr_letter(&glyph.text)) {
        glyphs.sort_by(|a, b| a.start.total_cmp(&b.start));
    }
    let text = spaced_text(&glyphs, size, has_rtl_part.then_some(base_is_rtl));
    let text = if text.chars().any(is_compatibility_form) {
        expand_forms(&text)
    } else {
        text
    };
    let text = text.trim().to_owned();
    (!text.is_empty()).then_some(Line {
        text,
        start,
        end,
        baseline,
        size,
        direction,
        is_bold,
        is_mono,
    })
}

/// The size of most characters.
fn usual_size(glyphs: &[&Glyph]) -> Option<f32> {
    let mut sizes: Vec<f32> = glyphs.iter().map(|glyph| glyph.size).collect();
    sizes.sort_by(f32::total_cmp);
    sizes.get(sizes.len() / 2).copied()
}

/// The text with spaces where gaps are; `base_is_rtl` where some of it is written from the right.
fn spaced_text(glyphs: &[Glyph], size: f32, base_is_rtl: Option<bool>) -> String {
    let has_spaces = glyphs.iter().any(|glyph| glyph.text.trim().is_empty());
    let threshold = size
        * if has_spaces {
            WORD_GAP_BESIDE_SPACES
        } else {
            WORD_GAP
        };
    let mut pieces: Vec<&str> = Vec::with_capacity(glyphs.len() * 2);
    let mut previous_end: Option<f32> = None;
    for glyph in glyphs {
        if previous_end.is_some_and(|end| glyph.start - end > threshold) {
            pieces.push(" ");
        }
        previous_end = Some(glyph.end);
        pieces.push(&glyph.text);
    }
    match base_is_rtl {
        Some(base_is_rtl) => in_reading_order(&pieces, base_is_rtl),
        None => pieces.concat(),
    }
}

/// Puts vowel signs of right-to-left writing behind their letters. A sign is drawn next to its letter, but may stand
/// anywhere above it: in front of it where the page is drawn as the eye goes, from the left, and behind it otherwise.
fn with_marks_on_letters(glyphs: Vec<Glyph>) -> Vec<Glyph> {
    let is_sign = |glyph: &Glyph| {
        !glyph.text.is_empty()
            && glyph
                .text
                .chars()
                .all(|c| is_mark(c) && (is_rtl(c) || c < '\u{370}'))
    };
    if !glyphs.iter().any(|glyph| is_sign(glyph) && has_rtl(&glyph.text)) {
        return glyphs;
    }
    let (mut rightward, mut leftward) = (0_usize, 0_usize);
    let mut before: Option<&Glyph> = None;
    for glyph in glyphs
        .iter()
        .filter(|glyph| has_rtl(&glyph.text) && !is_sign(glyph))
    {
        if let Some(before) =
            before.filter(|before| (before.baseline - glyph.baseline).abs() < 0.1 * glyph.size)
        {
            rightward += usize::from(glyph.start > before.start);
            leftward += usize::from(glyph.start < before.start);
        }
        before = Some(glyph);
    }
    let signs_come_first = rightward >= leftward;
    let mut letters: Vec<Glyph> = Vec::with_capacity(glyphs.len());
    let mut waiting = String::new();
    for glyph in glyphs {
        if is_sign(&glyph) {
            match letters.last_mut() {
                Some(letter) if !signs_come_first => {
                    letter.text = Rc::from(format!("{}{}", letter.text, glyph.text))
                }
                // Several signs of one letter come in reverse order too.
                _ => waiting.insert_str(0, &glyph.text),
            }
            continue;
        }
        letters.push(glyph);
        if !waiting.is_empty()
            && let Some(letter) = letters.last_mut()
        {
            letter.text = Rc::from(format!("{}{}", letter.text, waiting));
            waiting.clear();
        }
    }
    if let Some(letter) = letters.last_mut().filter(|_| !waiting.is_empty()) {
        letter.text = Rc::from(format!("{}{}", letter.text, waiting));
    }
    letters
}

fn is_mostly_rtl<'a>(glyphs: impl Iterator<Item = &'a Glyph>) -> bool {
    let letters = glyphs
        .flat_map(|glyph| glyph.text.chars())
        .filter(|c| c.is_alphabetic());
    let (mut rtl, mut all) = (0_usize, 0_usize);
    for letter in letters {
        all += 1;
        rtl += usize::from(is_rtl(letter));
    }
    rtl * 2 > all
}

/// Ligatures and shaped letters that stand for others.
fn is_compatibility_form(c: char) -> bool {
    matches!(c, '\u{fb00}'..='\u{fdff}' | '\u{fe70}'..='\u{fefc}' | '\u{2f00}'..='\u{2fd5}')
}

fn expand_forms(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if is_compatibility_form(c) {
            out.extend(std::iter::once(c).nfkc());
        } else {
            out.push(c);
        }
    }
    out
}
