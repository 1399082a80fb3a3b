//! Tables: lines that stand side by side are cells, and rows of such cells below each other are a table.

use super::layout::Line;

/// Cells hold a few lines; more is a column of running text.
const MAX_CELL_LINES: usize = 10;

/// Rows of running text in two columns look like a table of two long cells.
const MAX_CELL_CHARS: usize = 400;

/// Edges that differ by less than this, in ems, are aligned.
const ALIGNED: f32 = 1.5;

/// A piece of a page, in its order.
#[derive(Debug)]
pub(super) enum Part {
    Line(Line),
    /// Rows of cells; the first may be a header.
    Table {
        rows: Vec<Vec<String>>,
        has_bold_header: bool,
    },
}

/// Lines that may be one row of a table.
#[derive(Debug, Default)]
struct Row {
    cells: Vec<Vec<Line>>,
}

/// Finds the tables among the lines of a page. `leading` is the distance of lines in a paragraph, in ems.
pub(super) fn parts_of(lines: Vec<Line>, leading: f32) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut pending: Vec<Row> = Vec::new();
    for row in rows_of(lines, leading) {
        if row.is_tabular() && pending.last().is_none_or(|last| row.lies_below(last)) {
            pending.push(row);
            continue;
        }
        settle(std::mem::take(&mut pending), &mut parts);
        if row.is_tabular() {
            pending.push(row);
        } else {
            row.dissolve(&mut parts);
        }
    }
    settle(pending, &mut parts);
    parts
}

/// Two rows or more are a table, one is a line with gaps in it.
fn settle(rows: Vec<Row>, parts: &mut Vec<Part>) {
    if rows.len() < 2 {
        rows.into_iter().for_each(|row| row.dissolve(parts));
        return;
    }
    let has_bold_header = rows[0].is_bold() && !rows[1].is_bold();
    let rows = rows.iter().map(Row::texts).collect();
    parts.push(Part::Table {
        rows,
        has_bold_header,
    });
}

fn rows_of(lines: Vec<Line>, leading: f32) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    for line in lines {
        match rows.last_mut() {
            Some(row) if row.goes_on_with(&line, leading) => {
                if let Some(cell) = row.cells.last_mut() {
                    cell.push(line);
                }
            }
            Some(row) if row.has_beside(&line) => row.cells.push(vec![line]),
            _ => rows.push(Row {
                cells: vec![vec![line]],
            }),
        }
    }
    rows
}

impl Row {
    fn lines(&self) -> impl Iterator<Item = &Line> {
        self.cells.iter().flatten()
    }

    /// Whether `line` is the next line of the last cell.
    fn goes_on_with(&self, line: &Line, leading: f32) -> bool {
        let Some(last) = self
            .cells
            .last()
            .filter(|cell| cell.len() < MAX_CELL_LINES)
            .and_then(|cell| cell.last())
        else {
            return false;
        };
        let gap = last.baseline - line.baseline;
        last.direction == line.direction
            && gap > 0.0
            && gap < leading * 1.28 * line.size
            && (last.size - line.size).abs() < 0.1 * line.size
            && last.is_bold == line.is_bold
            && line.start < last.end
            && line.end > last.start
            // In a row of its own, the next line belongs to the paragraph only if it starts where it does.
            && (self.cells.len() == 1 || (line.start - last.start).abs() < ALIGNED * line.size || overlaps_alone(self, line))
    }

    /// Whether `line` stands beside the last cell, at the height of the row.
    fn has_beside(&self, line: &Line) -> bool {
        let Some(last) = self.cells.last() else {
            return false;
        };
        if self.cells.iter().any(|cell| cell.len() >= MAX_CELL_LINES) {
            return false;
        }
        let top = self.lines().map(|line| line.baseline).fold(f32::MIN, f32::max);
        let bottom = self.lines().map(|line| line.baseline).fold(f32::MAX, f32::min);
        let tolerance = 0.35 * line.size;
        let is_level = line.baseline < top + tolerance && line.baseline > bottom - tolerance;
        let end = last.iter().map(|line| line.end).fold(f32::MIN, f32::max);
        let start = last.iter().map(|line| line.start).fold(f32::MAX, f32::min);
        last.iter().all(|other| other.direction == line.direction)
            && is_level
            && (line.start > end - 0.2 * line.size || line.end < start + 0.2 * line.size)
    }

    fn is_tabular(&self) -> bool {
        self.cells.len() > 1
            && !self.starts_with_mark()
            && self
                .texts()
                .iter()
                .all(|text| text.chars().count() <= MAX_CELL_CHARS)
    }

    /// A bullet or number that stands apart from its list item.
    fn starts_with_mark(&self) -> bool {
        self.cells
            .first()
            .and_then(|cell| cell.first())
            .is_some_and(|line| {
                let text = line.text.trim_end_matches(['.', ')']);
                let is_short = text.chars().count() <= 3 && self.cells[0].len() == 1 && self.cells.len() == 2;
                is_short && (text != line.text || !text.chars().any(char::is_alphanumeric))
            })
    }

    /// Whether this row may be the next row of the table that `above` belongs to: some columns are aligned.
    fn lies_below(&self, above: &Self) -> bool {
        let edges = |row: &Self| -> Vec<(f32, f32)> {
            row.cells
                .iter()
                .map(|cell| {
                    let start = cell.iter().map(|line| line.start).fold(f32::MAX, f32::min);
                    let end = cell.iter().map(|line| line.end).fold(f32::MIN, f32::max);
                    (start, end)
                })
                .collect()
        };
        let Some(size) = self.lines().next().map(|line| line.size) else {
            return false;
        };
        let Some(above_size) = above.lines().next().map(|line| line.size) else {
            return false;
        };
        let (mine, others) = (edges(self), edges(above));
        let aligned = mine.iter().filter(|(start, end)| {
            others.iter().any(|(other_start, other_end)| {
                let centre = ((start + end) - (other_start + other_end)).abs() / 2.0;
                (start - other_start).abs() < ALIGNED * size
                    || (end - other_end).abs() < ALIGNED * size
                    || centre < ALIGNED * size
            })
        });
        let bottom = above.lines().map(|line| line.baseline).fold(f32::MAX, f32::min);
        let top = self.lines().map(|line| line.baseline).fold(f32::MIN, f32::max);
        aligned.count() >= 2
            && top < bottom
            && bottom - top < 5.0 * size
            && (size - above_size).abs() < 0.25 * size
    }

    fn is_bold(&self) -> bool {
        self.lines().all(|line| line.is_bold)
    }

    fn texts(&self) -> Vec<String> {
        self.cells
            .iter()
            .map(|cell| {
                cell.iter()
                    .map(|line| line.text.as_str())
                    .collect::<Vec<_>>()
                    .join(" ")
            })
            .collect()
    }

    /// Gives the lines back; first lines of cells at one height become one line again.
    fn dissolve(self, parts: &mut Vec<Part>) {
        let mut lines = self.cells.into_iter().flatten();
        let Some(mut open) = lines.next() else { return };
        for line in lines {
            let is_level = (open.baseline - line.baseline).abs() < 0.3 * line.size;
            if is_level && line.start > open.end - 0.5 * line.size {
                open.text = format!("{} {}", open.text, line.text);
                open.end = line.end;
                open.is_bold &= line.is_bold;
                open.is_mono &= line.is_mono;
                continue;
            }
            parts.push(Part::Line(std::mem::replace(&mut open, line)));
        }
        parts.push(Part::Line(open));
    }
}

/// Whether `line` lies below the last cell of `row` and below no other.
fn overlaps_alone(row: &Row, line: &Line) -> bool {
    let Some((_, before)) = row.cells.split_last() else {
        return false;
    };
    before
        .iter()
        .flatten()
        .all(|other| line.start > other.end || line.end < other.start)
}
