//! Tables as text: every row is one block that can be found and cited alone.

use std::io::Read;

use super::records::{HEAD_ROWS, Layout};
use super::text::{decode_in_place, hinted_encoding};
use super::text_reader::TextReader;
use crate::document::DocumentBuilder;
use crate::{ExtractError, ExtractedDocument, Hints, Limits};

/// Delimiters in use, most common first.
const DELIMITERS: [u8; 4] = [b',', b';', b'\t', b'|'];

/// What is looked at to find the delimiter.
const SNIFF_BYTES: usize = 16 << 10;

/// Names of columns stand in every row, unless they would make the text more than this many times the table.
const MAX_GROWTH: u64 = 3;

/// Reads a table: questions with answers where it has them, else rows of named values.
pub(crate) fn extract(
    bytes: &[u8],
    hints: &Hints,
    limits: &Limits,
) -> Result<ExtractedDocument, ExtractError> {
    let text = decode_in_place(bytes, hinted_encoding(hints), limits)?;
    read(text.as_bytes(), limits)
}

/// Reads a table of `size` bytes as it comes.
pub(super) fn extract_stream(
    source: impl Read,
    size: u64,
    hints: &Hints,
    limits: &Limits,
) -> Result<ExtractedDocument, ExtractError> {
    if size > limits.max_unpacked_bytes {
        return Err(ExtractError::too_large("too much text"));
    }
    read(TextReader::new(source, hinted_encoding(hints)), limits)
}

/// Reads a table in UTF-8.
fn read(mut source: impl Read, limits: &Limits) -> Result<ExtractedDocument, ExtractError> {
    let mut head = Vec::new();
    (&mut source)
        .take(SNIFF_BYTES as u64)
        .read_to_end(&mut head)
        .map_err(|_| ExtractError::damaged("it breaks off"))?;
    let (delimiter, table) = split_off_declaration(&head);
    let delimiter = delimiter.or_else(|| sniff_delimiter(table)).unwrap_or(b',');
    let mut builder = DocumentBuilder::new(limits);
    // The first row is no title.
    builder.title = Some(String::new());
    let mut reader = csv::ReaderBuilder::new()
        .delimiter(delimiter)
        .has_headers(false)
        .flexible(true)
        .from_reader(table.chain(source));
    let mut rows = reader.records().map_while(Result::ok);
    let first: Vec<csv::StringRecord> = rows.by_ref().take(HEAD_ROWS).collect();
    let layout = {
        let cells: Vec<Vec<(usize, &str)>> = first.iter().map(cells_of).collect();
        let layout = Layout::of(&cells.iter().map(Vec::as_slice).collect::<Vec<_>>());
        match growth(&layout, &cells) > MAX_GROWTH {
            true => layout.unnamed(),
            false => layout,
        }
    };
    let data = first
        .into_iter()
        .skip(usize::from(layout.has_header()))
        .chain(rows);
    for row in data {
        let cells = cells_of(&row);
        // What we add to the table is not its own text.
        builder.allow(layout.name_bytes(&cells));
        layout.write(&cells, 1, &mut builder);
        if builder.is_full() {
            break;
        }
    }
    builder.finish()
}

/// How many times the table its text will be, as the first rows tell.
fn growth(layout: &Layout, first: &[Vec<(usize, &str)>]) -> u64 {
    let data = first.iter().skip(1);
    let (mut table, mut names) = (0, 0);
    for row in data {
        table += row.iter().map(|(_, cell)| cell.len() + 1).sum::<usize>();
        names += layout.name_bytes(row);
    }
    // Small tables have a narrow sample and cost nothing.
    1 + (names / table.max(1)) as u64
}

fn cells_of(row: &csv::StringRecord) -> Vec<(usize, &str)> {
    row.iter().enumerate().collect()
}

/// Whether `bytes` parse as a table of at least two columns.
pub(crate) fn is_plausible(bytes: &[u8]) -> bool {
    let head = &bytes[..bytes.len().min(SNIFF_BYTES)];
    // In UTF-16 every other byte of a delimiter is zero, so the bytes themselves do not parse.
    let (text, _, _) = encoding_rs::Encoding::for_bom(head)
        .map_or(encoding_rs::UTF_8, |(found, _)| found)
        .decode(head);
    split_off_declaration(text.as_bytes()).0.is_some() || sniff_delimiter(text.as_bytes()).is_some()
}

/// Spreadsheets may declare the delimiter in a first line `sep=;`.
fn split_off_declaration(text: &[u8]) -> (Option<u8>, &[u8]) {
    let Some(after) = text.strip_prefix(b"sep=") else {
        return (None, text);
    };
    let end = after
        .iter()
        .position(|byte| *byte == b'\n')
        .unwrap_or(after.len());
    match after[..end].trim_ascii_end() {
        [delimiter] if delimiter.is_ascii() => (Some(*delimiter), &after[after.len().min(end + 1)..]),
        // A tab is white space itself.
        [] if after.starts_with(b"\t") => (Some(b'\t'), &after[after.len().min(end + 1)..]),
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
    fn a_table_that_comes_piece_by_piece_is_read_as_one_that_is_there() {
        for (number, head) in ["Größe;Preis\n", "sep=;\nGröße;Preis\n", "Open?;No.\n"]
            .iter()
            .enumerate()
        {
            let table = format!("{head}{}", "Süd;5 €\n\"two\nlines\";\n".repeat(3_000));
            let (bytes, limits) = (table.as_bytes(), Limits::default());

            let streamed = extract_stream(bytes, bytes.len() as u64, &Hints::default(), &limits);

            assert_eq!(streamed, extract(bytes, &Hints::default(), &limits), "{number}");
        }
    }

    #[test]
    fn names_of_columns_do_not_count_as_text_and_do_not_multiply_it_without_end() {
        let limits = Limits {
            max_unpacked_bytes: 1 << 20,
            ..Limits::default()
        };
        let table = format!(
            "Description,Price\n{}",
            "some longer words about it,12345\n".repeat(30_000)
        );
        let named = extract(table.as_bytes(), &Hints::default(), &limits).expect("within the limits");
        assert!(
            named
                .text
                .ends_with("Description: some longer words about it\nPrice: 12345")
        );
        assert!(named.text.len() > 1 << 20);

        let narrow = format!("{},b\n{}", "Long name ".repeat(6), "1,2\n".repeat(100));
        let narrow = extract(narrow.as_bytes(), &Hints::default(), &limits).expect("within the limits");
        assert!(narrow.text.ends_with("1 | 2\n1 | 2"), "{}", narrow.text);
    }

    #[test]
    fn rows_of_any_width_and_open_quotes_are_read() {
        assert_eq!(read("1,2\n3\n4,5,6\n").text, "1 | 2\n3\n4 | 5 | 6");
        assert_eq!(read("a,b\n1,\"open\n").text, "a: 1\nb: open");
    }
}
