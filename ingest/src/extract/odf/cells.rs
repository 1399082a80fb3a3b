//! The sheets of a spreadsheet, cell by cell as they are shown.

use std::io::BufRead;

use super::body::SKIPPED;
use super::styles::Styles;
use crate::ExtractError;
use crate::document::DocumentBuilder;
use crate::extract::sheet::{Merged, SheetRow, SheetWriter};
use crate::extract::xml::{Element, XmlEvent, XmlReader};

/// A row or cell with text may be written once for many alike, up to here.
const MAX_REPEATS: usize = 1_000;

/// Programs have no columns beyond this.
const MAX_COLUMNS: usize = 16_384;

/// Merged areas that are taken into account.
const MAX_MERGED: usize = 10_000;

/// Writes the visible sheets.
pub(super) fn read_sheets<R: BufRead>(
    mut reader: XmlReader<R>,
    styles: &Styles,
    builder: &mut DocumentBuilder,
) -> Result<(), ExtractError> {
    while let Some(event) = reader.next()? {
        let XmlEvent::Start(element) = event else { continue };
        if SKIPPED.contains(&element.name()) {
            reader.skip_element()?;
            continue;
        }
        if element.name() != "table" {
            continue;
        }
        let is_hidden = element
            .attribute("style-name")
            .is_some_and(|style| styles.is_hidden("table", &style));
        if is_hidden {
            reader.skip_element()?;
            continue;
        }
        let name = element.attribute("name").unwrap_or_default();
        let notes = read_sheet(&mut reader, SheetWriter::new(&name, builder))?;
        for note in notes {
            SheetWriter::push(builder, &note);
        }
        if builder.is_full() {
            break;
        }
    }
    Ok(())
}

#[derive(Default)]
struct Row {
    cells: SheetRow,
    repeats: usize,
    is_hidden: bool,
    next_column: usize,
}

#[derive(Default)]
struct Cell {
    text: String,
    repeats: usize,
    rows: usize,
    /// Under a cell that spans over it.
    is_covered: bool,
}

/// Reads up to the end of the table that was just begun; gives the notes on its cells.
fn read_sheet<R: BufRead>(
    reader: &mut XmlReader<R>,
    mut writer: SheetWriter<'_>,
) -> Result<Vec<String>, ExtractError> {
    let mut hidden_columns: Vec<(usize, usize)> = Vec::new();
    let mut columns = 0_usize;
    let mut merged = Vec::new();
    let mut notes = Vec::new();
    let mut row = Row::default();
    let mut row_number = 0_usize;
    let mut cell = Cell::default();
    let mut in_paragraph = false;
    while let Some(event) = reader.next()? {
        match event {
            XmlEvent::Start(element) => match element.name() {
                "table-column" => {
                    let count = number(&element, "number-columns-repeated");
                    if is_collapsed(&element) {
                        hidden_columns.push((columns, columns.saturating_add(count)));
                    }
                    columns = columns.saturating_add(count);
                }
                "table-row" => {
                    row = Row {
                        repeats: number(&element, "number-rows-repeated"),
                        is_hidden: is_collapsed(&element),
                        ..Row::default()
                    };
                }
                "table-cell" | "covered-table-cell" => {
                    cell = Cell {
                        repeats: number(&element, "number-columns-repeated"),
                        rows: number(&element, "number-rows-spanned"),
                        is_covered: element.name() == "covered-table-cell",
                        text: String::new(),
                    };
                }
                "annotation" => notes.extend(note_text(reader)?),
                "p" => {
                    in_paragraph = true;
                    if !cell.text.is_empty() {
                        cell.text.push('\n');
                    }
                }
                "s" | "tab" | "line-break" => cell.text.push(' '),
                name if SKIPPED.contains(&name) => reader.skip_element()?,
                _ => {}
            },
            XmlEvent::Text(text) if in_paragraph => cell.text.push_str(&text),
            XmlEvent::Text(_) => {}
            XmlEvent::End(name) => match name.as_str() {
                "p" => in_paragraph = false,
                "table-cell" | "covered-table-cell" => {
                    let cell = std::mem::take(&mut cell);
                    if cell.rows > 1 && merged.len() < MAX_MERGED {
                        merged.push(Merged {
                            rows: (row_number, row_number.saturating_add(cell.rows - 1)),
                            columns: (row.next_column, row.next_column),
                        });
                    }
                    row.take(cell, &hidden_columns);
                }
                "table-row" => {
                    let row = std::mem::take(&mut row);
                    if !row.is_hidden && !row.cells.is_empty() {
                        for at in 0..row.repeats.min(MAX_REPEATS) {
                            writer.add(row_number.saturating_add(at), row.cells.clone());
                        }
                    }
                    row_number = row_number.saturating_add(row.repeats);
                    if writer.is_full() {
                        break;
                    }
                }
                "table" => break,
                _ => {}
            },
        }
    }
    writer.finish(&merged);
    Ok(notes)
}

impl Row {
    fn take(&mut self, cell: Cell, hidden_columns: &[(usize, usize)]) {
        let first = self.next_column;
        self.next_column = first.saturating_add(cell.repeats);
        if cell.is_covered || cell.text.trim().is_empty() {
            return;
        }
        for column in first
            ..self
                .next_column
                .min(first.saturating_add(MAX_REPEATS))
                .min(MAX_COLUMNS)
        {
            let is_hidden = hidden_columns
                .iter()
                .any(|(start, end)| (*start..*end).contains(&column));
            if !is_hidden {
                self.cells.push((column, cell.text.clone()));
            }
        }
    }
}

/// The text of a note, without who wrote it when.
fn note_text<R: BufRead>(reader: &mut XmlReader<R>) -> Result<Option<String>, ExtractError> {
    let mut open = 1_usize;
    let mut text = String::new();
    let mut in_paragraph = 0_usize;
    while open > 0 {
        match reader.next()? {
            Some(XmlEvent::Start(element)) => {
                open += 1;
                if element.name() == "p" {
                    in_paragraph = open;
                }
            }
            Some(XmlEvent::End(name)) => {
                open -= 1;
                if name == "p" {
                    in_paragraph = 0;
                    text.push(' ');
                }
            }
            Some(XmlEvent::Text(part)) if in_paragraph > 0 => text.push_str(&part),
            Some(XmlEvent::Text(_)) => {}
            None => break,
        }
    }
    Ok((!text.trim().is_empty()).then_some(text))
}

fn number(element: &Element, name: &str) -> usize {
    element
        .attribute(name)
        .and_then(|number| number.parse().ok())
        .unwrap_or(1)
        .max(1)
}

fn is_collapsed(element: &Element) -> bool {
    element
        .attribute("visibility")
        .is_some_and(|visibility| matches!(visibility.as_str(), "collapse" | "filter"))
}
