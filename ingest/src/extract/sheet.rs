//! A sheet of a workbook while it is read: its cells come row by row, and become tables wherever rows adjoin.
//! Only cells that are there are kept, whatever size the sheet claims.

use std::collections::BTreeMap;

use super::records::{HEAD_ROWS, Layout, is_header};
use crate::BlockKind;
use crate::document::DocumentBuilder;

/// Cells that are held to take merged areas into account, which files name after the cells. Larger sheets are
/// written as they come, without.
const MAX_HELD_CELLS: usize = 100_000;

/// Rows that a merged cell is repeated in.
const MAX_MERGED_ROWS: usize = 1_000;

/// The level of the heading that a sheet's name becomes; questions in it stand one below.
const NAME_LEVEL: u8 = 1;

/// The cells of a row with their columns, ascending, empty ones left out.
pub(super) type SheetRow = Vec<(usize, String)>;

/// Cells that are shown as one: rows and columns from 0, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Merged {
    pub(super) rows: (usize, usize),
    pub(super) columns: (usize, usize),
}

pub(super) struct SheetWriter<'b> {
    builder: &'b mut DocumentBuilder,
    /// Written once there is something below it.
    name: Option<String>,
    held: BTreeMap<usize, SheetRow>,
    held_cells: usize,
    is_streaming: bool,
    table: OpenTable,
}

/// The table that is being written.
#[derive(Default)]
struct OpenTable {
    /// Rows that wait until it is clear what they are.
    head: Vec<SheetRow>,
    layout: Option<Layout>,
    last_row: Option<usize>,
}

impl<'b> SheetWriter<'b> {
    pub(super) fn new(name: &str, builder: &'b mut DocumentBuilder) -> Self {
        Self {
            builder,
            name: Some(name.to_owned()),
            held: BTreeMap::new(),
            held_cells: 0,
            is_streaming: false,
            table: OpenTable::default(),
        }
    }

    pub(super) fn is_full(&self) -> bool {
        self.builder.is_full()
    }

    /// Takes the row with this number, counted from 0. Rows come in ascending order.
    pub(super) fn add(&mut self, number: usize, mut cells: SheetRow) {
        cells.retain(|(_, cell)| !cell.trim().is_empty());
        cells.sort_by_key(|(column, _)| *column);
        if cells.is_empty() {
            return;
        }
        if self.is_streaming {
            self.write(number, cells);
            return;
        }
        self.held_cells += cells.len();
        self.held.insert(number, cells);
        if self.held_cells > MAX_HELD_CELLS {
            self.is_streaming = true;
            self.write_held();
        }
    }

    /// Ends the sheet; `merged` are its merged areas.
    pub(super) fn finish(mut self, merged: &[Merged]) {
        for area in merged {
            self.repeat_downwards(*area);
        }
        self.write_held();
        self.end_table();
    }

    /// Text of the sheet that stands in no cell.
    pub(super) fn push(builder: &mut DocumentBuilder, text: &str) {
        builder.push(BlockKind::Paragraph, text, None);
    }

    /// A cell that spans rows is repeated in each, so that every row can be understood alone.
    fn repeat_downwards(&mut self, area: Merged) {
        let column = area.columns.0;
        let (first, last) = area.rows;
        let above = self.held.get(&first);
        let Some(text) = above
            .and_then(|cells| cells.iter().find(|(at, _)| *at == column))
            .map(|(_, text)| text.clone())
        else {
            return;
        };
        if last <= first || last - first > MAX_MERGED_ROWS {
            return;
        }
        for (_, cells) in self.held.range_mut(first + 1..=last) {
            if let Err(at) = cells.binary_search_by_key(&column, |(column, _)| *column) {
                cells.insert(at, (column, text.clone()));
            }
        }
    }

    fn write_held(&mut self) {
        for (number, cells) in std::mem::take(&mut self.held) {
            if self.builder.is_full() {
                break;
            }
            self.write(number, cells);
        }
    }

    fn write(&mut self, number: usize, cells: SheetRow) {
        if let Some(name) = self.name.take() {
            self.builder
                .push(BlockKind::Heading { level: NAME_LEVEL }, &name, None);
        }
        let adjoins = self.table.last_row.is_some_and(|last| number <= last + 1);
        if !adjoins && !self.goes_on(&cells) {
            self.end_table();
        }
        self.table.last_row = Some(number);
        match &self.table.layout {
            Some(layout) => write_row(layout, &cells, self.builder),
            None => {
                self.table.head.push(cells);
                if self.table.head.len() >= HEAD_ROWS {
                    self.decide();
                }
            }
        }
    }

    /// Whether a row behind a gap belongs to the table above: several values, and no new header.
    fn goes_on(&self, cells: &SheetRow) -> bool {
        let borrowed = borrow(cells);
        let has_names = match (&self.table.layout, self.table.head.first()) {
            (Some(layout), _) => layout.has_header(),
            (None, Some(first)) => is_header(&borrow(first)),
            (None, None) => false,
        };
        has_names && cells.len() > 1 && !is_header(&borrowed)
    }

    fn end_table(&mut self) {
        self.decide();
        self.table = OpenTable::default();
    }

    /// Finds out what the columns mean and writes the rows that waited for it.
    fn decide(&mut self) {
        let mut rows = std::mem::take(&mut self.table.head);
        if rows.is_empty() {
            return;
        }
        // Lines above the table are its title and remarks.
        let is_table = rows.iter().any(|row| row.len() > 1);
        let titles = rows.iter().take_while(|row| row.len() == 1).count();
        if !is_table || titles < rows.len() {
            for title in rows.drain(..titles) {
                Self::push(self.builder, &title[0].1);
            }
        }
        let borrowed: Vec<Vec<(usize, &str)>> = rows.iter().map(borrow).collect();
        let layout = Layout::of(&borrowed.iter().map(Vec::as_slice).collect::<Vec<_>>());
        for row in rows.iter().skip(usize::from(layout.has_header())) {
            write_row(&layout, row, self.builder);
        }
        if is_table {
            self.table.layout = Some(layout);
        }
    }
}

fn borrow(cells: &SheetRow) -> Vec<(usize, &str)> {
    cells
        .iter()
        .map(|(column, cell)| (*column, cell.as_str()))
        .collect()
}

fn write_row(layout: &Layout, cells: &SheetRow, builder: &mut DocumentBuilder) {
    layout.write(&borrow(cells), NAME_LEVEL + 1, builder);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ExtractedDocument, Limits};

    fn read(rows: &[(usize, &[(usize, &str)])], merged: &[Merged]) -> ExtractedDocument {
        let mut builder = DocumentBuilder::new(&Limits::default());
        let mut sheet = SheetWriter::new("Prices", &mut builder);
        for (number, cells) in rows {
            let cells = cells.iter().map(|(column, cell)| (*column, (*cell).to_owned()));
            sheet.add(*number, cells.collect());
        }
        sheet.finish(merged);
        builder.finish().expect("the sheet has text")
    }

    #[test]
    fn every_row_names_its_values_under_the_name_of_the_sheet() {
        let document = read(
            &[
                (0, &[(0, "All prices in euros")]),
                (1, &[(0, "Item"), (1, "Price")]),
                (2, &[(0, "Chair"), (1, "45")]),
                (3, &[(1, "80")]),
            ],
            &[],
        );

        assert_eq!(
            document.text,
            "Prices\n\nAll prices in euros\n\nItem: Chair\nPrice: 45\n\nPrice: 80"
        );
        assert_eq!(document.blocks[3].heading_path, ["Prices"]);
    }

    #[test]
    fn an_empty_row_parts_tables_unless_the_columns_go_on() {
        let document = read(
            &[
                (0, &[(0, "Item"), (1, "Price")]),
                (1, &[(0, "Chair"), (1, "45")]),
                (3, &[(0, "Desk"), (1, "99")]),
                (6, &[(0, "Town"), (1, "Street")]),
                (7, &[(0, "Bern"), (1, "Long Lane")]),
            ],
            &[],
        );

        assert!(
            document.text.contains("Item: Desk\nPrice: 99"),
            "{}",
            document.text
        );
        assert!(
            document.text.contains("Town: Bern\nStreet: Long Lane"),
            "{}",
            document.text
        );
    }

    #[test]
    fn a_cell_over_several_rows_stands_in_each_of_them() {
        let merged = Merged {
            rows: (1, 2),
            columns: (0, 0),
        };
        let document = read(
            &[
                (0, &[(0, "Kind"), (1, "Item")]),
                (1, &[(0, "Seats"), (1, "Chair")]),
                (2, &[(1, "Stool")]),
            ],
            &[merged],
        );

        assert!(
            document.text.ends_with("Kind: Seats\nItem: Stool"),
            "{}",
            document.text
        );
    }
}
