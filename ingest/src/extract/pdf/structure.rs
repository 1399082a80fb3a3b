//! Lines to blocks: paragraphs by gaps, headings by size and weight, lists by their marks, and page headers
//! and footers left out because they repeat.

use std::collections::HashMap;

use super::edges::drop_repeated_edges;
use super::layout::Line;
use super::outline::Outline;
use super::table::{Part, parts_of};
use super::words::{Words, join_over_pages, joined};
use crate::BlockKind;
use crate::document::DocumentBuilder;
use crate::extract::table::Table;

/// A heading is larger than the text by this factor.
const HEADING_FACTOR: f32 = 1.12;

/// Headings are short.
const MAX_HEADING_CHARS: usize = 160;
const MAX_BOLD_HEADING_CHARS: usize = 90;

/// A gap this much larger than between the lines of a paragraph parts two.
const PARAGRAPH_GAP_FACTOR: f32 = 1.28;

/// Between the lines of a paragraph, in ems, where the document gives no example.
const USUAL_LEADING: f32 = 1.2;

/// Entries on one page that make a table of contents.
const MIN_CONTENTS_LINES: usize = 5;

/// Width of the strips in which lines of one column start.
const COLUMN_POINTS: f32 = 24.0;

/// Marks of list items.
const BULLETS: [char; 16] = [
    '•', '◦', '▪', '▫', '●', '○', '■', '□', '‣', '⁃', '∙', '·', '–', '—', '➢', '✓',
];

/// Writes the pages as blocks.
pub(super) fn write_blocks(mut pages: Vec<Vec<Line>>, outline: &Outline, builder: &mut DocumentBuilder) {
    drop_repeated_edges(&mut pages);
    let page_count = pages.len();
    pages
        .iter_mut()
        .for_each(|lines| drop_contents(lines, page_count));
    let style = Style::of(&pages, outline);
    let words = Words::of(&pages);
    join_over_pages(&mut pages);
    for (lines, number) in pages.into_iter().zip(1_u32..) {
        let mut writer = Writer {
            style: &style,
            words: &words,
            page: number,
            builder: &mut *builder,
        };
        let mut paragraph: Vec<Line> = Vec::new();
        let margins = Margins::of(&lines);
        for part in parts_of(lines, style.leading) {
            match part {
                Part::Line(line) => {
                    if paragraph.last().is_some_and(|last| {
                        margins.is_broken_off(last, &line, style.body_size)
                            || !style.continues(&paragraph, last, &line, number)
                    }) {
                        writer.write_paragraph(&paragraph);
                        paragraph.clear();
                    }
                    paragraph.push(line);
                }
                Part::Table {
                    rows,
                    has_bold_header,
                } => {
                    writer.write_paragraph(&paragraph);
                    paragraph.clear();
                    writer.write_table(&rows, has_bold_header);
                }
            }
        }
        writer.write_paragraph(&paragraph);
        if builder.is_full() {
            return;
        }
    }
}

/// What is usual in the document.
#[derive(Debug)]
struct Style<'a> {
    outline: &'a Outline,
    /// Levels of the headings of a size, where the outline tells them.
    level_of_size: Vec<(f32, u8)>,
    body_size: f32,
    /// Distance of baselines within a paragraph, in ems.
    leading: f32,
    /// Sizes of headings, largest first.
    heading_sizes: Vec<f32>,
    bold_is_heading: bool,
}

impl<'a> Style<'a> {
    fn of(pages: &[Vec<Line>], outline: &'a Outline) -> Self {
        let mut by_size: HashMap<i32, usize> = HashMap::new();
        let mut by_leading: HashMap<i32, usize> = HashMap::new();
        let (mut bold_chars, mut chars) = (0_usize, 0_usize);
        for lines in pages {
            for line in lines {
                let length = line.text.chars().count();
                *by_size.entry(rounded(line.size)).or_default() += length;
                chars += length;
                bold_chars += if line.is_bold { length } else { 0 };
            }
            for pair in lines.windows(2) {
                let gap = (pair[0].baseline - pair[1].baseline) / pair[1].size;
                if pair[0].direction == pair[1].direction && (0.8..3.0).contains(&gap) {
                    *by_leading.entry((gap * 20.0).round() as i32).or_default() += 1;
                }
            }
        }
        let body = most_frequent(&by_size).unwrap_or(20);
        let body_size = body as f32 / 2.0;
        let leading = most_frequent(&by_leading).map_or(USUAL_LEADING, |twentieths| twentieths as f32 / 20.0);
        let mut heading_sizes: Vec<i32> = by_size
            .keys()
            .copied()
            .filter(|size| *size as f32 / 2.0 >= body_size * HEADING_FACTOR)
            .collect();
        heading_sizes.sort_unstable_by(|a, b| b.cmp(a));
        Self {
            outline,
            level_of_size: levels_by_size(pages, outline),
            body_size,
            leading,
            heading_sizes: heading_sizes.into_iter().map(|size| size as f32 / 2.0).collect(),
            bold_is_heading: bold_chars * 4 < chars,
        }
    }

    /// Whether `line` goes on with the paragraph that ends in `last`.
    fn continues(&self, paragraph: &[Line], last: &Line, line: &Line, page: u32) -> bool {
        if last.direction != line.direction || last.is_mono != line.is_mono {
            return false;
        }
        if (last.size - line.size).abs() > 0.1 * last.size.max(line.size) {
            return false;
        }
        let gap = last.baseline - line.baseline;
        if goes_on_in_next_column(last, line) {
            return true;
        }
        if gap <= 0.0 || gap > self.leading * PARAGRAPH_GAP_FACTOR * line.size {
            return false;
        }
        if line.is_mono {
            return true;
        }
        if line.start > last.end || line.end < last.start {
            return false;
        }
        if last.is_bold != line.is_bold && paragraph.iter().all(|line| line.is_bold == last.is_bold) {
            return false;
        }
        if starts_item(&line.text) {
            return false;
        }
        if self.outline.level(page, &last.text).is_some() || self.outline.level(page, &line.text).is_some() {
            return false;
        }
        // A sentence that ends well before the margin ends its paragraph.
        let margin = paragraph.iter().map(|line| line.end).fold(line.end, f32::max);
        let width = margin - paragraph.iter().map(|line| line.start).fold(line.start, f32::min);
        let ends_early = margin - last.end > 0.25 * width;
        !(ends_early && last.text.ends_with(['.', '!', '?', ':', '。']))
    }

    fn heading_level(&self, paragraph: &[Line], text: &str, page: u32) -> Option<u8> {
        let first = paragraph.first()?;
        let length = text.chars().count();
        if let Some(level) = self.outline.level(page, text) {
            return Some(level);
        }
        if first.is_mono
            || length > MAX_HEADING_CHARS
            || paragraph.len() > 4
            || !text.chars().any(char::is_alphabetic)
        {
            return None;
        }
        let larger = self
            .heading_sizes
            .iter()
            .position(|size| (size - first.size).abs() < 0.3);
        if let Some(rank) = larger {
            return Some(self.outlined_level(first.size).unwrap_or(rank.min(5) as u8 + 1));
        }
        let is_bold_heading = self.bold_is_heading
            && paragraph.iter().all(|line| line.is_bold)
            && length <= MAX_BOLD_HEADING_CHARS
            && paragraph.len() <= 2
            && first.size >= self.body_size * 0.98
            && !text.ends_with(['.', ',', ';', ':'])
            && !starts_bulleted(text);
        is_bold_heading.then(|| {
            self.outlined_level(first.size)
                .unwrap_or(self.heading_sizes.len().min(5) as u8 + 1)
        })
    }

    /// The level of a heading that the outline lacks: that of others of its size, or one below larger ones.
    fn outlined_level(&self, size: f32) -> Option<u8> {
        let not_smaller = self
            .level_of_size
            .iter()
            .filter(|(known, _)| *known > size - 0.3)
            .min_by(|a, b| a.0.total_cmp(&b.0));
        match not_smaller {
            Some((known, level)) if (known - size).abs() < 0.3 => Some(*level),
            Some((_, level)) => Some((level + 1).min(6)),
            None => (!self.level_of_size.is_empty()).then_some(1),
        }
    }
}

/// How far to the right the lines of a page reach, by where they start.
#[derive(Debug)]
struct Margins(HashMap<i32, f32>);

impl Margins {
    fn of(lines: &[Line]) -> Self {
        let mut ends = HashMap::new();
        for line in lines {
            let end = ends.entry(Self::column(line)).or_insert(f32::MIN);
            *end = line.end.max(*end);
        }
        Self(ends)
    }

    /// Lines of a column start within a few points of each other.
    fn column(line: &Line) -> i32 {
        (line.start / COLUMN_POINTS) as i32
    }

    /// Whether `last` ends although the first word of `line` would have had room: an item of a list whose marks are
    /// drawn, a line of an address. Text that goes on in the middle of a sentence may run around a picture.
    fn is_broken_off(&self, last: &Line, line: &Line, body_size: f32) -> bool {
        let column = Self::column(last);
        let margin = (column - 1..=column + 1)
            .filter_map(|column| self.0.get(&column))
            .fold(last.end, |margin, end| margin.max(*end));
        let chars = line.text.chars().count().max(1) as f32;
        let first_word = line.text.split(' ').next().map_or(0, |word| word.chars().count()) as f32;
        let needed = (line.end - line.start) / chars * first_word + 2.0 * last.size;
        last.size < body_size * HEADING_FACTOR
            && !last.is_mono
            && line
                .text
                .starts_with(|c: char| c.is_uppercase() || c.is_numeric())
            && !last.text.ends_with([',', ';', '-', '\u{2010}', '\u{ad}'])
            && margin - last.end > needed
    }
}

/// Whether a sentence goes on at the top of the next column.
fn goes_on_in_next_column(last: &Line, line: &Line) -> bool {
    let is_next_column = line.baseline > last.baseline + 2.0 * line.size && line.start > last.end - line.size;
    is_next_column
        && !line.is_mono
        && last.is_bold == line.is_bold
        && last.end - last.start > 10.0 * last.size
        && line.text.starts_with(char::is_lowercase)
        && last
            .text
            .ends_with(|c: char| c.is_lowercase() || matches!(c, ',' | '-' | '\u{2010}' | '\u{ad}'))
        && !starts_item(&line.text)
}

/// Which level the lines that the outline names have, by their size.
fn levels_by_size(pages: &[Vec<Line>], outline: &Outline) -> Vec<(f32, u8)> {
    if outline.is_empty() {
        return Vec::new();
    }
    let mut counts: HashMap<i32, HashMap<i32, usize>> = HashMap::new();
    for (lines, number) in pages.iter().zip(1_u32..) {
        for line in lines {
            if let Some(level) = outline.level(number, &line.text) {
                let of_size = counts.entry(rounded(line.size)).or_default();
                *of_size.entry(i32::from(level)).or_default() += 1;
            }
        }
    }
    counts
        .into_iter()
        .filter_map(|(size, levels)| Some((size as f32 / 2.0, most_frequent(&levels)? as u8)))
        .collect()
}

fn rounded(size: f32) -> i32 {
    (size * 2.0).round() as i32
}

fn most_frequent(counts: &HashMap<i32, usize>) -> Option<i32> {
    counts
        .iter()
        .max_by_key(|(value, count)| (**count, std::cmp::Reverse(**value)))
        .map(|(value, _)| *value)
}

/// Writes the parts of one page.
struct Writer<'a> {
    style: &'a Style<'a>,
    words: &'a Words,
    page: u32,
    builder: &'a mut DocumentBuilder,
}

impl Writer<'_> {
    fn write_paragraph(&mut self, paragraph: &[Line]) {
        let Some(first) = paragraph.first() else { return };
        let page = Some(self.page);
        if paragraph.iter().all(|line| line.is_mono) && paragraph.len() > 1 {
            self.builder.push(BlockKind::Code, &code_text(paragraph), page);
            return;
        }
        let text = joined(paragraph, self.words);
        if let Some(level) = self.style.heading_level(paragraph, &text, self.page) {
            self.builder.push(BlockKind::Heading { level }, &text, page);
            return;
        }
        let kind = if starts_item(&first.text) {
            BlockKind::ListItem
        } else {
            BlockKind::Paragraph
        };
        self.builder.push(kind, &text, page);
    }

    fn write_table(&mut self, rows: &[Vec<String>], has_bold_header: bool) {
        let mut table = Table::new(false);
        for (number, cells) in rows.iter().enumerate() {
            table.open_row();
            if number == 0 && has_bold_header {
                table.mark_header_row();
            }
            for cell in cells {
                table.open_cell(false, 1, 1);
                table.add(cell);
                table.close_cell();
            }
            if let Some(row) = table.close_row() {
                self.builder.push(
                    BlockKind::TableRow { header: row.header },
                    &row.text,
                    Some(self.page),
                );
            }
        }
    }
}

/// Lines of a listing with the indentation that they show.
fn code_text(lines: &[Line]) -> String {
    let margin = lines.iter().map(|line| line.start).fold(f32::MAX, f32::min);
    let mut out = String::new();
    for line in lines {
        // Characters of fixed pitch are six tenths of their size wide.
        let columns = ((line.start - margin) / (line.size * 0.6))
            .round()
            .clamp(0.0, 80.0) as usize;
        out.extend(std::iter::repeat_n(' ', columns));
        out.push_str(&line.text);
        out.push('\n');
    }
    out
}

/// Removes the lines of a table of contents: they repeat the headings. A price list has leading dots too, so
/// the numbers must be page numbers.
fn drop_contents(lines: &mut Vec<Line>, page_count: usize) {
    let mut last = 0;
    let mut found = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let Some((before, number)) = line.text.rsplit_once('.') else {
            continue;
        };
        if !before.ends_with("...") && !before.ends_with(". .") {
            continue;
        }
        let Ok(number) = number.trim().parse::<usize>() else {
            continue;
        };
        if number < last || number > page_count {
            return;
        }
        last = number;
        found.push(at);
    }
    if found.len() >= MIN_CONTENTS_LINES {
        let mut at = 0;
        lines.retain(|_| {
            at += 1;
            found.binary_search(&(at - 1)).is_err()
        });
    }
}

fn starts_bulleted(text: &str) -> bool {
    let mut chars = text.chars();
    let is_mark = chars
        .next()
        .is_some_and(|c| BULLETS.contains(&c) || matches!(c, '-' | '*' | '\u{f0b7}'));
    is_mark && chars.next().is_none_or(char::is_whitespace)
}

/// Whether a line starts with the mark of a list item: a bullet, or a short number or letter with a point.
fn starts_item(text: &str) -> bool {
    if starts_bulleted(text) {
        return true;
    }
    let Some((label, _)) = text.split_once(' ') else {
        return false;
    };
    let Some(stem) = label.strip_suffix(['.', ')']) else {
        return false;
    };
    let stem = stem.strip_prefix('(').unwrap_or(stem);
    let is_number = !stem.is_empty() && stem.len() <= 2 && stem.bytes().all(|byte| byte.is_ascii_digit());
    let is_letter = stem.len() == 1 && stem.bytes().all(|byte| byte.is_ascii_lowercase());
    is_number || is_letter
}
