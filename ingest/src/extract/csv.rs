//! Tables as text: every row is one block that can be found and cited alone.

use super::table::CELL_SEPARATOR;
use super::text::{decode, hinted_encoding};
use crate::document::{DocumentBuilder, one_line, shorten};
use crate::{BlockKind, ExtractError, ExtractedDocument, Hints, Limits};

/// Delimiters in use, most common first.
const DELIMITERS: [u8; 4] = [b',', b';', b'\t', b'|'];

/// What is looked at to find the delimiter.
const SNIFF_BYTES: usize = 16 << 10;

/// Column names stand in every row, so they must not be long.
const MAX_NAME_CHARS: usize = 60;

/// Rows of a table without a header that must read as a question for the first column to be one.
const QUESTION_SHARE_PERCENT: usize = 60;

const QUESTION_NAMES: [&str; 11] = [
    "question",
    "questions",
    "q",
    "frage",
    "fragen",
    "pregunta",
    "domanda",
    "pergunta",
    "vraag",
    "вопрос",
    "问题",
];
const ANSWER_NAMES: [&str; 12] = [
    "answer",
    "answers",
    "a",
    "antwort",
    "antworten",
    "réponse",
    "reponse",
    "respuesta",
    "risposta",
    "resposta",
    "antwoord",
    "ответ",
];

/// Reads a table: questions with answers where it has them, else rows of named values.
pub(crate) fn extract(
    bytes: &[u8],
    hints: &Hints,
    limits: &Limits,
) -> Result<ExtractedDocument, ExtractError> {
    let text = decode(bytes, hinted_encoding(hints), limits)?;
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
    let first: Vec<csv::StringRecord> = rows.by_ref().take(20).collect();
    let layout = Layout::of(&first);
    let data = first
        .into_iter()
        .skip(usize::from(layout.has_header()))
        .chain(rows);
    for row in data {
        layout.write(&row, &mut builder);
        if builder.is_full() {
            break;
        }
    }
    builder.finish()
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

/// What the columns mean.
#[derive(Debug)]
enum Layout {
    /// `names` is empty when the table has no header.
    Questions {
        question: usize,
        answer: usize,
        names: Vec<String>,
    },
    Records {
        names: Vec<String>,
    },
    Rows,
}

impl Layout {
    fn of(first: &[csv::StringRecord]) -> Self {
        let Some(header) = first.first() else {
            return Self::Rows;
        };
        let names: Vec<String> = header
            .iter()
            .map(|name| shorten(&one_line(name), MAX_NAME_CHARS))
            .collect();
        let find = |known: &[&str]| {
            names
                .iter()
                .position(|name| known.contains(&name.to_lowercase().as_str()))
        };
        if let (Some(question), Some(answer)) = (find(&QUESTION_NAMES), find(&ANSWER_NAMES)) {
            return Self::Questions {
                question,
                answer,
                names,
            };
        }
        let questions = first.iter().filter(|row| {
            row.get(0)
                .is_some_and(|cell| cell.trim_end().ends_with(['?', '？']))
        });
        let count = questions.count();
        let has_two_columns = first.iter().all(|row| row.len() == 2);
        if has_two_columns && count > 0 && count * 100 >= first.len() * QUESTION_SHARE_PERCENT {
            let is_header = first.len() > count && !header[0].trim_end().ends_with(['?', '？']);
            let names = if is_header { names } else { Vec::new() };
            return Self::Questions {
                question: 0,
                answer: 1,
                names,
            };
        }
        if first.len() > 1 && names.len() > 1 && header.iter().all(is_name) {
            return Self::Records { names };
        }
        Self::Rows
    }

    fn has_header(&self) -> bool {
        match self {
            Self::Questions { names, .. } => !names.is_empty(),
            Self::Records { .. } => true,
            Self::Rows => false,
        }
    }

    fn write(&self, row: &csv::StringRecord, builder: &mut DocumentBuilder) {
        match self {
            Self::Questions {
                question,
                answer,
                names,
            } => {
                builder.push(
                    BlockKind::Heading { level: 1 },
                    row.get(*question).unwrap_or_default(),
                    None,
                );
                builder.push(BlockKind::Paragraph, row.get(*answer).unwrap_or_default(), None);
                let others = (0..row.len()).filter(|column| column != question && column != answer);
                builder.push(BlockKind::Paragraph, &named_values(row, others, names), None);
            }
            Self::Records { names } => {
                builder.push(
                    BlockKind::TableRow { header: None },
                    &named_values(row, 0..row.len(), names),
                    None,
                );
            }
            Self::Rows => {
                let cells: Vec<&str> = row
                    .iter()
                    .map(str::trim)
                    .filter(|cell| !cell.is_empty())
                    .collect();
                builder.push(
                    BlockKind::TableRow { header: None },
                    &cells.join(CELL_SEPARATOR),
                    None,
                );
            }
        }
    }
}

/// `name: value` lines of the columns that have a value.
fn named_values(row: &csv::StringRecord, columns: impl Iterator<Item = usize>, names: &[String]) -> String {
    let mut lines = Vec::new();
    for column in columns {
        let value = row.get(column).map(one_line).unwrap_or_default();
        if value.is_empty() {
            continue;
        }
        match names.get(column).filter(|name| !name.is_empty()) {
            Some(name) => lines.push(format!("{name}: {value}")),
            None => lines.push(value),
        }
    }
    lines.join("\n")
}

/// Whether a cell of the first row may be the name of its column.
fn is_name(cell: &str) -> bool {
    let cell = cell.trim();
    cell.is_empty()
        || (cell.chars().count() <= MAX_NAME_CHARS
            && cell.chars().any(char::is_alphabetic)
            && !cell.ends_with(['.', '?', '!'])
            && !cell.contains('@')
            && !cell.contains("://"))
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
