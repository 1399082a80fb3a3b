//! Page headers and footers: lines that repeat at the edge of pages. One copy stays, since a letterhead or the
//! name of a handbook may stand nowhere else; page numbers go.

use std::collections::{HashMap, HashSet};

use super::layout::Line;

/// Lines at the top and bottom of a page that may be header or footer.
const EDGE_LINES: usize = 3;

/// A line that stands at the edge of this share of pages is a header or footer. Those of left and right pages may
/// differ, and those of chapters too.
const REPEATED_SHARE_PERCENT: usize = 40;
const REPEATED_MIN_PAGES: usize = 3;

/// Share of the pages on which a number must count up with them to be their number.
const COUNTING_SHARE_PERCENT: usize = 80;

/// Numbers of one line that may be that of the page.
const MAX_NUMBERS: usize = 4;

/// Removes page headers and footers: lines at the edge of a page that stand, digits aside, on many pages.
///
/// Where digits differ, the line goes only if they count the pages and it is no larger than the text: "Chapter 3"
/// above each chapter is a heading.
pub(super) fn drop_repeated_edges(pages: &mut [Vec<Line>]) {
    let body_size = usual_size(pages);
    let mut found: HashMap<String, Repeated> = HashMap::new();
    for (page, lines) in pages.iter().enumerate() {
        for at in edges_of(lines) {
            let line = &lines[at];
            let repeated = found.entry(edge_key(line)).or_insert_with(|| Repeated {
                pages: 0,
                last_page: usize::MAX,
                text: line.text.clone(),
                differs: false,
                is_large: line.size > body_size * 1.1,
                offsets: HashMap::new(),
            });
            if repeated.last_page != page {
                repeated.pages += 1;
                repeated.last_page = page;
                for number in numbers_of(&line.text) {
                    *repeated.offsets.entry(number - page as i64).or_default() += 1;
                }
            }
            repeated.differs |= repeated.text != line.text;
        }
    }
    let needed = (pages.len() * REPEATED_SHARE_PERCENT / 100).max(REPEATED_MIN_PAGES);
    let mut kept: HashSet<String> = HashSet::new();
    for lines in pages.iter_mut() {
        let mut dropped = Vec::new();
        for at in edges_of(lines) {
            let key = edge_key(&lines[at]);
            let Some(repeated) = found.get(&key).filter(|repeated| repeated.pages >= needed) else {
                continue;
            };
            let is_dropped = if repeated.differs {
                repeated.counts_pages()
            } else {
                !kept.insert(without_place(&key).to_owned())
            };
            if is_dropped {
                dropped.push(at);
            }
        }
        let mut at = 0;
        lines.retain(|_| {
            at += 1;
            !dropped.contains(&(at - 1))
        });
    }
}

/// A text that stands at one place on several pages.
struct Repeated {
    pages: usize,
    last_page: usize,
    text: String,
    /// Its digits are not the same everywhere.
    differs: bool,
    is_large: bool,
    /// How often a number in it is ahead of the count of pages by so much.
    offsets: HashMap<i64, usize>,
}

impl Repeated {
    fn counts_pages(&self) -> bool {
        let most = self.offsets.values().copied().max().unwrap_or(0);
        !self.is_large && most * 100 >= self.pages * COUNTING_SHARE_PERCENT
    }
}

fn numbers_of(text: &str) -> impl Iterator<Item = i64> {
    text.split(|c: char| !c.is_ascii_digit())
        .filter_map(|digits| digits.parse::<u32>().ok())
        .map(i64::from)
        .take(MAX_NUMBERS)
}

/// The size of most letters.
fn usual_size(pages: &[Vec<Line>]) -> f32 {
    let mut letters: HashMap<i32, usize> = HashMap::new();
    for line in pages.iter().flatten() {
        *letters.entry((line.size * 2.0).round() as i32).or_default() += line.text.len();
    }
    letters
        .into_iter()
        .max_by_key(|(size, count)| (*count, *size))
        .map_or(f32::MAX, |(size, _)| size as f32 / 2.0)
}

/// The uppermost and lowest lines of a page, wherever they come in its order.
fn edges_of(lines: &[Line]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..lines.len()).collect();
    order.sort_by(|a, b| lines[*b].baseline.total_cmp(&lines[*a].baseline));
    let bottom = order.len().saturating_sub(EDGE_LINES);
    let mut edges: Vec<usize> = order
        .iter()
        .take(EDGE_LINES)
        .chain(order.iter().skip(bottom))
        .copied()
        .collect();
    edges.sort_unstable();
    edges.dedup();
    edges
}

fn edge_key(line: &Line) -> String {
    let digits_aside: String = line
        .text
        .chars()
        .map(|c| if c.is_numeric() { '0' } else { c })
        .collect();
    let mut key = String::with_capacity(digits_aside.len());
    for c in digits_aside.chars() {
        if !(c == '0' && key.ends_with('0')) {
            key.push(c);
        }
    }
    format!("{key}\n{}", (line.baseline / 4.0).round())
}

fn without_place(key: &str) -> &str {
    key.rsplit_once('\n').map_or(key, |(text, _)| text)
}
