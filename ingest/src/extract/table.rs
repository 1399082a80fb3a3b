//! Tables while they are read: cells become rows, and the first row may be the header of the others.

/// A cell of a header row is a short name.
const MAX_HEADER_CELL_CHARS: usize = 60;

/// Between the cells of a row.
pub(super) const CELL_SEPARATOR: &str = " | ";

#[derive(Debug, Default)]
pub(super) struct Table {
    header: Option<String>,
    rows: usize,
    cells: Vec<String>,
    /// All cells of the current row were marked as header cells.
    only_header_cells: bool,
    is_marked_header: bool,
    in_cell: bool,
    /// The table arranges the page: its cells hold whole sections, not values.
    is_layout: bool,
}

/// A finished row.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) text: String,
    pub(super) header: Option<String>,
}

impl Table {
    pub(super) fn new(is_layout: bool) -> Self {
        Self { is_layout, ..Self::default() }
    }

    pub(super) fn open_row(&mut self) {
        self.cells.clear();
        self.only_header_cells = true;
        self.is_marked_header = false;
        self.in_cell = false;
    }

    pub(super) fn open_cell(&mut self, is_header: bool) {
        if self.cells.is_empty() {
            self.only_header_cells = true;
        }
        self.only_header_cells &= is_header;
        self.cells.push(String::new());
        self.in_cell = true;
    }

    pub(super) fn close_cell(&mut self) {
        self.in_cell = false;
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
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        let Some(cell) = self.cells.last_mut().filter(|_| !text.is_empty()) else { return };
        if !cell.is_empty() {
            cell.push(' ');
        }
        cell.push_str(&text);
    }

    /// What the row held when the table turns out to arrange the page.
    pub(super) fn become_layout(&mut self) -> Vec<String> {
        self.is_layout = true;
        std::mem::take(&mut self.cells).into_iter().filter(|cell| !cell.is_empty()).collect()
    }

    /// The finished row, unless it is empty.
    pub(super) fn close_row(&mut self) -> Option<Row> {
        self.in_cell = false;
        let cells = std::mem::take(&mut self.cells);
        if cells.iter().all(String::is_empty) {
            return None;
        }
        let text = cells.join(CELL_SEPARATOR);
        let is_first = self.rows == 0;
        self.rows += 1;
        if is_first && (self.only_header_cells || self.is_marked_header || looks_like_header(&cells)) && cells.len() > 1 {
            self.header = Some(text.clone());
            return Some(Row { text, header: None });
        }
        Some(Row { text, header: self.header.clone() })
    }
}

/// A first row of short, distinct words rather than values.
fn looks_like_header(cells: &[String]) -> bool {
    cells.len() > 1
        && cells.iter().all(|cell| {
            !cell.is_empty()
                && cell.chars().count() <= MAX_HEADER_CELL_CHARS
                && cell.chars().any(char::is_alphabetic)
                && !cell.starts_with(|c: char| c.is_ascii_digit())
                && !cell.ends_with(['.', '!', '?'])
        })
}
