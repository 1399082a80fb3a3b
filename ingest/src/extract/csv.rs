//! Tables as text: every row is one block that can be found and cited alone.

use super::records::{HEAD_ROWS, Layout};
use super::text::{decode_in_place, hinted_encoding};
use crate::document::DocumentBuilder;
use crate::{ExtractError, ExtractedDocument, Hints, Limits};

/// Delimiters in use, most common first.
const DELIMITERS: [u8; 4] = [b',', b';', b'\t', b'|'];

/// What is looked at to find the delimiter.
const SNIFF_BYTES: usize = 16 << 10;

/// Larger tables do not repeat the names of their columns in every row, which would multiply them.
const MAX_NAMED_BYTES: usize = 64 << 20;

/// Reads a table: questions with answers where it has them, else rows of named values.
pub(crate) fn extract(
    bytes: &[u8],
    hints: &Hints,
    limits: &Limits,
) -> Result<ExtractedDocument, ExtractError> {
    let text = decode_in_place(bytes, hinted_encoding(hints), limits)?;
    let (delimiter, table) = split_off_declaration(&text);
    let delimiter = delimiter
        .or_else(|| sniff_delimiter(head_of(table.as_bytes())))
        .unwrap_or(b',');
    let mut builder = DocumentBuilder::new(limits);
    // The first row is no title.
    builder.title = Some(String::new());
    let mut reader = csv::ReaderBuilder::new()
        .delimiter(delimiter)
        .has_headers(false)
        .flexible(true)
        .from_reader(table.as_bytes());
    let mut rows = reader.records().map_while(Result::ok);
    let first: Vec<csv::StringRecord> = rows.by_ref().take(HEAD_ROWS).collect();
    let layout = {
        let cells: Vec<Vec<(usize, &str)>> = first.iter().map(cells_of).collect();
        let layout = Layout::of(&cells.iter().map(Vec::as_slice).collect::<Vec<_>>());
        match table.len() > MAX_NAMED_BYTES {
            true => layout.unnamed(),
            false => layout,
        }
    };
    let data = first
        .into_iter()
        .skip(usize::from(layout.has_header()))
        .chain(rows);
    for row in data {
        layout.write(&cells_of(&row), 1, &mut builder);
        if builder.is_full() {
            break;
        }
    }
    builder.finish()
}

fn cells_of(row: &csv::StringRecord) -> Vec<(usize, &str)> {
    row.iter().enumerate().collect()
}

/// Whether `bytes` parse as a table of at least two columns.
pub(crate) fn is_plausible(bytes: &[u8]) -> bool {
    let head = head_of(bytes);
    // In UTF-16 every other byte of a delimiter is zero, so the bytes themselves do not parse.
    let (text, _, _) = encoding_rs::Encoding::for_bom(head)
        .map_or(encoding_rs::UTF_8, |(found, _)| found)
        .decode(head);
    split_off_declaration(&text).0.is_some() || sniff_delimiter(text.as_bytes()).is_some()
}

fn head_of(bytes: &[u8]) -> &[u8] {
    &bytes[..bytes.len().min(SNIFF_BYTES)]
}

/// Spreadsheets may declare the delimiter in a first line `sep=;`.
fn split_off_declaration(text: &str) -> (Option<u8>, &str) {
    let Some(after) = text.strip_prefix("sep=") else {
        return (None, text);
    };
    let (line, table) = after.split_once('\n').unwrap_or((after, ""));
    match line.trim_end_matches('\r').as_bytes() {
        [delimiter] if delimiter.is_ascii() => (Some(*delimiter), table),
        _ => (None, text),
    }
}

/// The delimiter under which the first rows have the same number of columns, at least two.
fn sniff_delimiter(head: &[u8]) -> Option<u8> {
    DELIMITERS
        .into_iter()
        .filter_map(|delimiter| {
            let mut reader = csv::ReaderBuilder::new()
                .delimiter(delimiter)
                .has_headers(false)
                .flexible(true)
                .from_reader(head);
            let mut widths: Vec<usize> = reader
                .byte_records()
                .take(20)
                .map_while(Result::ok)
                .map(|record| record.len())
                .collect();
            if widths.len() > 2 && head.len() == SNIFF_BYTES {
                // The last row may be cut off.
                widths.pop();
            }
            let columns = *widths.first()?;
            let alike = widths.iter().filter(|width| **width == columns).count();
            (columns >= 2 && alike * 10 >= widths.len() * 7).then_some((
                alike * 100 / widths.len(),
                columns,
                delimiter,
            ))
        })
        .max_by_key(|(alike, columns, _)| (*alike, *columns))
        .map(|(_, _, delimiter)| delimiter)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(table: &str) -> ExtractedDocument {
        extract(table.as_bytes(), &Hints::default(), &Limits::default()).expect("the table has text")
    }

    #[test]
    fn every_row_names_its_values() {
        let document = read("Size,Price,Note\nS,5,\nM,6,\"two, words\"\n");

        assert_eq!(
            document.text,
            "Size: S\nPrice: 5\n\nSize: M\nPrice: 6\nNote: two, words"
        );
        assert_eq!(document.blocks.len(), 2);
        assert_eq!(document.title, None);
    }

    #[test]
    fn questions_and_answers_read_as_such() {
        let named = read("question;answer;topic\nOpen on Sunday?;No.;hours\n");
        let unnamed = read("Open on Sunday?,No.\nParking?,Behind the house.\n");

        assert_eq!(named.text, "Open on Sunday?\n\nNo.\n\ntopic: hours");
        assert_eq!(named.blocks[1].heading_path, ["Open on Sunday?"]);
        assert_eq!(unnamed.blocks[3].heading_path, ["Parking?"]);
    }

    #[test]
    fn delimiters_are_found_or_declared() {
        assert_eq!(read("a;b\n1,5;2\n").text, "a: 1,5\nb: 2");
        assert_eq!(read("a\tb\n1\t2\n").text, "a: 1\nb: 2");
        assert_eq!(read("sep=|\na|b\n1|2\n").text, "a: 1\nb: 2");
        let utf16: Vec<u8> = "\u{feff}a;b\n1;2\n"
            .encode_utf16()
            .flat_map(u16::to_le_bytes)
            .collect();
        assert!(is_plausible(&utf16));
        assert_eq!(
            extract(&utf16, &Hints::default(), &Limits::default()).map(|document| document.text),
            Ok("a: 1\nb: 2".to_owned())
        );
    }

    #[test]
    fn rows_of_any_width_and_open_quotes_are_read() {
        assert_eq!(read("1,2\n3\n4,5,6\n").text, "1 | 2\n3\n4 | 5 | 6");
        assert_eq!(read("a,b\n1,\"open\n").text, "a: 1\nb: open");
    }
}
