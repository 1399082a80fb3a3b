//! The cells of one sheet, read while they are unpacked.

use std::io::BufRead;

use super::number::Formats;
use super::strings::SharedStrings;
use crate::ExtractError;
use crate::extract::sheet::{Merged, SheetRow, SheetWriter};
use crate::extract::xml::{Element, XmlEvent, XmlReader};

/// Excel has no cells beyond these.
const MAX_COLUMNS: usize = 16_384;
const MAX_ROWS: usize = 1_048_576;

/// Merged areas that are taken into account.
const MAX_MERGED: usize = 10_000;

/// Writes the visible cells of a sheet.
pub(super) fn read_worksheet<R: BufRead>(
    mut reader: XmlReader<R>,
    mut writer: SheetWriter<'_>,
    strings: &SharedStrings,
    formats: &Formats,
) -> Result<(), ExtractError> {
    let mut hidden_columns: Vec<(usize, usize)> = Vec::new();
    let mut merged = Vec::new();
    let mut row = Row::default();
    let mut next_row = 0;
    let mut cell = Cell::default();
    let mut in_value = false;
    while let Some(event) = reader.next()? {
        match event {
            XmlEvent::Start(element) => match element.name() {
                "col" if element.has_flag("hidden") => hidden_columns.extend(column_range(&element)),
                "row" => {
                    row = Row::begin(&element, next_row);
                    next_row = row.number.saturating_add(1);
                }
                "c" => cell = Cell::begin(&element, row.next_column),
                // Inline strings may say how a word is pronounced.
                "rPh" => reader.skip_element()?,
                "v" | "t" => in_value = true,
                "mergeCell" if merged.len() < MAX_MERGED => {
                    merged.extend(element.attribute("ref").and_then(|area| area_of(&area)));
                }
                _ => {}
            },
            XmlEvent::Text(text) if in_value => cell.text.push_str(&text),
            XmlEvent::Text(_) => {}
            XmlEvent::End(name) => match name.as_str() {
                "v" | "t" => in_value = false,
                "c" => {
                    let cell = std::mem::take(&mut cell);
                    row.next_column = cell.column + 1;
                    let is_hidden = row.is_hidden
                        || hidden_columns
                            .iter()
                            .any(|(first, last)| (*first..=*last).contains(&cell.column));
                    if !is_hidden && cell.column < MAX_COLUMNS {
                        let column = cell.column;
                        row.cells
                            .extend(cell.show(strings, formats).map(|text| (column, text)));
                    }
                }
                "row" => {
                    let row = std::mem::take(&mut row);
                    if row.number < MAX_ROWS {
                        writer.add(row.number, row.cells);
                    }
                    if writer.is_full() {
                        break;
                    }
                }
                _ => {}
            },
        }
    }
    writer.finish(&merged);
    Ok(())
}

#[derive(Default)]
struct Row {
    number: usize,
    is_hidden: bool,
    next_column: usize,
    cells: SheetRow,
}

impl Row {
    fn begin(element: &Element, next: usize) -> Self {
        let number = element.attribute("r").and_then(|row| row.parse::<usize>().ok());
        Self {
            number: number.and_then(|number| number.checked_sub(1)).unwrap_or(next),
            is_hidden: element.has_flag("hidden"),
            ..Self::default()
        }
    }
}

#[derive(Default)]
struct Cell {
    column: usize,
    kind: String,
    style: Option<usize>,
    text: String,
}

impl Cell {
    fn begin(element: &Element, next_column: usize) -> Self {
        let place = element.attribute("r").and_then(|place| place_of(&place));
        Self {
            column: place.map_or(next_column, |(column, _)| column),
            kind: element.attribute("t").unwrap_or_default(),
            style: element.attribute("s").and_then(|style| style.parse().ok()),
            text: String::new(),
        }
    }

    /// What the cell shows. Formulas show what they gave when the file was saved; errors are no text.
    fn show(self, strings: &SharedStrings, formats: &Formats) -> Option<String> {
        match self.kind.as_str() {
            "s" => strings.get(self.text.trim().parse().ok()?).map(str::to_owned),
            "b" => Some(if self.text.trim() == "1" { "TRUE" } else { "FALSE" }.to_owned()),
            "e" => None,
            "inlineStr" | "str" | "d" => Some(self.text),
            _ if self.text.trim().is_empty() => None,
            _ => Some(formats.show(&self.text, self.style)),
        }
    }
}

fn column_range(element: &Element) -> Option<(usize, usize)> {
    let number = |name: &str| element.attribute(name)?.parse::<usize>().ok()?.checked_sub(1);
    Some((number("min")?, number("max")?))
}

/// Column and row, from 0, of a place such as `AB12`.
fn place_of(place: &str) -> Option<(usize, usize)> {
    let letters = place.bytes().take_while(u8::is_ascii_alphabetic).count();
    let mut column = 0_usize;
    for letter in place.bytes().take(letters) {
        let digit = usize::from(letter.to_ascii_uppercase() - b'A') + 1;
        column = column.checked_mul(26)?.checked_add(digit)?;
    }
    let row = place[letters..].parse::<usize>().ok()?;
    Some((column.checked_sub(1)?, row.checked_sub(1)?))
}

fn area_of(area: &str) -> Option<Merged> {
    let (first, last) = area.split_once(':')?;
    let (first, last) = (place_of(first)?, place_of(last)?);
    Some(Merged {
        rows: (first.1, last.1),
        columns: (first.0, last.0),
    })
}
