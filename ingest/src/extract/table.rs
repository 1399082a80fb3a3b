//! Tables while they are read: cells become rows, and the first row may be the header of the others. A cell
//! that spans several rows is repeated in each, so that every row can be understood alone.

use std::collections::BTreeMap;

use crate::document::shorten;

/// A cell of a header row is a short name.
const MAX_HEADER_CELL_CHARS: usize = 60;

/// What is repeated of a cell that spans rows.
const MAX_REPEATED_CHARS: usize = 120;

/// Spans beyond these are mistakes or made to hurt.
const MAX_ROW_SPAN: u32 = 1_000;
const MAX_COLUMN_SPAN: usize = 100;

/// Between the cells of a row.
pub(super) const CELL_SEPARATOR: &str = " | ";

#[derive(Debug, Default)]
pub(super) struct Table {
    header: Option<String>,
    rows: usize,
    cells: Vec<Cell>,
    /// The column of the next cell.
    next_column: usize,
    /// Cells of earlier rows that reach into the next ones, by column.
    spanning: BTreeMap<usize, Spanning>,
    /// The cells of the row above by column.
    above: BTreeMap<usize, String>,
    /// All cells of the current row were marked as header cells.
    only_header_cells: bool,
    is_marked_header: bool,
    in_cell: bool,
    /// The table arranges the page: its cells hold whole sections, not values.
    is_layout: bool,
}

#[derive(Debug, Default)]
struct Cell {
    text: String,
    column: usize,
    /// Rows that it spans.
    rows: u32,
}

#[derive(Debug)]
struct Spanning {
    text: String,
    rows_left: u32,
}

/// A finished row.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) text: String,
    pub(super) header: Option<String>,
}

impl Table {
    pub(super) fn new(is_layout: bool) -> Self {
        Self {
            is_layout,
            ..Self::default()
        }
    }

    pub(super) fn open_row(&mut self) {
        self.cells.clear();
        self.next_column = 0;
        self.only_header_cells = true;
        self.is_marked_header = false;
        self.in_cell = false;
    }

    pub(super) fn open_cell(&mut self, is_header: bool, rows: u32, columns: usize) {
        if self.cells.is_empty() {
            self.only_header_cells = true;
        }
        self.take_spanning();
        self.only_header_cells &= is_header;
        self.cells.push(Cell {
            text: String::new(),
            column: self.next_column,
            rows: rows.clamp(1, MAX_ROW_SPAN),
        });
        self.next_column += columns.clamp(1, MAX_COLUMN_SPAN);
        self.in_cell = true;
    }

    pub(super) fn close_cell(&mut self) {
        self.in_cell = false;
    }

    /// The open cell spans this many columns.
    pub(super) fn widen_cell(&mut self, columns: usize) {
        if let Some(cell) = self.cells.last() {
            self.next_column = cell.column + columns.clamp(1, MAX_COLUMN_SPAN);
        }
    }

    /// The open cell goes on with the one above it.
    pub(super) fn continue_cell_above(&mut self) {
        if let Some(cell) = self.cells.last_mut() {
            cell.text = self.above.get(&cell.column).cloned().unwrap_or_default();
        }
    }

    pub(super) fn is_in_cell(&self) -> bool {
        self.in_cell && !self.is_layout
    }

    /// The current row is a header whatever its cells look like.
    pub(super) fn mark_header_row(&mut self) {
        self.is_marked_header = true;
    }

    /// Adds text to the open cell.
    pub(super) fn add(&mut self, text: &str) {
        let Some(cell) = self.cells.last_mut() else { return };
        for word in text.split_whitespace() {
            if !cell.text.is_empty() {
                cell.text.push(' ');
            }
            cell.text.push_str(word);
        }
    }

    /// What the row held when the table turns out to arrange the page.
    pub(super) fn become_layout(&mut self) -> Vec<String> {
        self.is_layout = true;
        std::mem::take(&mut self.cells)
            .into_iter()
            .map(|cell| cell.text)
            .filter(|text| !text.is_empty())
            .collect()
    }

    /// The finished row, unless it is empty.
    pub(super) fn close_row(&mut self) -> Option<Row> {
        self.in_cell = false;
        if self.cells.is_empty() {
            return None;
        }
        self.take_spanning();
        let cells = std::mem::take(&mut self.cells);
        self.remember(&cells);
        if cells.iter().all(|cell| cell.text.is_empty()) {
            return None;
        }
        let texts: Vec<&str> = cells.iter().map(|cell| cell.text.as_str()).collect();
        let text = texts.join(CELL_SEPARATOR);
        let is_first = self.rows == 0;
        self.rows += 1;
        let is_header = self.only_header_cells || self.is_marked_header || looks_like_header(&texts);
        if is_first && is_header && texts.len() > 1 {
            self.header = Some(text.clone());
            return Some(Row { text, header: None });
        }
        Some(Row {
            text,
            header: self.header.clone(),
        })
    }

    /// Puts in the cells of earlier rows that reach into this one before the next column.
    fn take_spanning(&mut self) {
        while let Some(spanning) = self.spanning.get_mut(&self.next_column) {
            self.cells.push(Cell {
                text: spanning.text.clone(),
                column: self.next_column,
                rows: 1,
            });
            spanning.rows_left -= 1;
            if spanning.rows_left == 0 {
                self.spanning.remove(&self.next_column);
            }
            self.next_column += 1;
        }
    }

    fn remember(&mut self, cells: &[Cell]) {
        self.above.clear();
        for cell in cells {
            let text = shorten(&cell.text, MAX_REPEATED_CHARS);
            if cell.rows > 1 {
                self.spanning.insert(
                    cell.column,
                    Spanning {
                        text: text.clone(),
                        rows_left: cell.rows - 1,
                    },
                );
            }
            self.above.insert(cell.column, text);
        }
    }
}

/// A first row of short names rather than values.
fn looks_like_header(cells: &[&str]) -> bool {
    cells.len() > 1
        && cells.iter().all(|cell| {
            !cell.is_empty()
                && cell.chars().count() <= MAX_HEADER_CELL_CHARS
                && cell.chars().any(char::is_alphabetic)
                && !cell.starts_with(|c: char| c.is_ascii_digit())
                && !cell.ends_with(['.', '!', '?'])
        })
}
