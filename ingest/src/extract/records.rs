//! Rows of a data table as text: every row is one block that can be found and cited alone, because it names its
//! own values, or is a question with its answer.

use std::collections::HashMap;

use super::table::CELL_SEPARATOR;
use crate::BlockKind;
use crate::document::{DocumentBuilder, one_line, shorten};

/// Rows that are looked at to find out what the columns mean.
pub(super) const HEAD_ROWS: usize = 20;

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

/// The cells of a row with their columns, ascending. Columns without a cell are empty.
pub(super) type Cells<'a> = [(usize, &'a str)];

/// What the columns mean.
#[derive(Debug)]
pub(super) enum Layout {
    /// `names` is empty when the table has no header.
    Questions {
        question: usize,
        answer: usize,
        names: HashMap<usize, String>,
    },
    Records {
        names: HashMap<usize, String>,
    },
    Rows,
    /// Values in the order of the columns, which `header` names once for all.
    Columns {
        header: String,
    },
}

impl Layout {
    /// Judges by the first rows of the table.
    pub(super) fn of(first: &[&Cells<'_>]) -> Self {
        let Some(header) = first.first() else {
            return Self::Rows;
        };
        let names: HashMap<usize, String> = header
            .iter()
            .map(|(column, name)| (*column, shorten(&one_line(name), MAX_NAME_CHARS)))
            .collect();
        let find = |known: &[&str]| {
            header
                .iter()
                .find(|(_, name)| known.contains(&name.trim().to_lowercase().as_str()))
                .map(|(column, _)| *column)
        };
        if let (Some(question), Some(answer)) = (find(&QUESTION_NAMES), find(&ANSWER_NAMES)) {
            return Self::Questions {
                question,
                answer,
                names,
            };
        }
        if let Some(layout) = unnamed_questions(first, &names) {
            return layout;
        }
        let widest = first.iter().map(|row| row.len()).max().unwrap_or(0);
        if first.len() > 1 && header.len() * 2 > widest && is_header(header) {
            return Self::Records { names };
        }
        Self::Rows
    }

    pub(super) fn has_header(&self) -> bool {
        match self {
            Self::Questions { names, .. } => !names.is_empty(),
            Self::Records { .. } => true,
            // The header is a row like the others.
            Self::Rows | Self::Columns { .. } => false,
        }
    }

    /// The layout without names in every row.
    pub(super) fn unnamed(self) -> Self {
        let Self::Records { names } = self else {
            return self;
        };
        let mut names: Vec<(usize, String)> = names.into_iter().collect();
        names.sort();
        let names: Vec<String> = names.into_iter().map(|(_, name)| name).collect();
        Self::Columns {
            header: names.join(CELL_SEPARATOR),
        }
    }

    /// Bytes that a row gets from the names of its columns.
    pub(super) fn name_bytes(&self, row: &Cells<'_>) -> usize {
        let Self::Records { names } = self else { return 0 };
        let named = row.iter().filter(|(_, cell)| !cell.is_empty());
        named
            .filter_map(|(column, _)| names.get(column))
            .map(|name| name.len() + ": ".len())
            .sum()
    }

    /// Adds a row. `question_level` is the level of headings that questions become.
    pub(super) fn write(&self, row: &Cells<'_>, question_level: u8, builder: &mut DocumentBuilder) {
        let row_kind = BlockKind::TableRow { header: None };
        match self {
            Self::Questions {
                question,
                answer,
                names,
            } => {
                let cell = |wanted: usize| row.iter().find(|(column, _)| *column == wanted);
                let text = |wanted: usize| cell(wanted).map_or("", |(_, text)| *text);
                builder.push(
                    BlockKind::Heading {
                        level: question_level,
                    },
                    text(*question),
                    None,
                );
                builder.push(BlockKind::Paragraph, text(*answer), None);
                let others: Vec<(usize, &str)> = row
                    .iter()
                    .filter(|(column, _)| column != question && column != answer)
                    .copied()
                    .collect();
                builder.push(BlockKind::Paragraph, &named_values(&others, names), None);
            }
            Self::Records { names } => builder.push(row_kind, &named_values(row, names), None),
            Self::Rows => {
                let cells: Vec<&str> = row
                    .iter()
                    .map(|(_, cell)| cell.trim())
                    .filter(|cell| !cell.is_empty())
                    .collect();
                builder.push(row_kind, &cells.join(CELL_SEPARATOR), None);
            }
            Self::Columns { header } => {
                let cells: Vec<&str> = row.iter().map(|(_, cell)| *cell).collect();
                let kind = BlockKind::TableRow {
                    header: Some(header.clone()),
                };
                builder.push(kind, &cells.join(CELL_SEPARATOR), None);
            }
        }
    }
}

/// Two columns of which the first mostly asks.
fn unnamed_questions(first: &[&Cells<'_>], names: &HashMap<usize, String>) -> Option<Layout> {
    let [(question, opening), (answer, _)] = first.first()? else {
        return None;
    };
    let asks = |cell: &str| cell.trim_end().ends_with(['?', '？']);
    let count = first
        .iter()
        .filter(|row| row.first().is_some_and(|(_, cell)| asks(cell)))
        .count();
    let has_two_columns = first
        .iter()
        .all(|row| row.len() == 2 && row[0].0 == *question && row[1].0 == *answer);
    if !has_two_columns || count == 0 || count * 100 < first.len() * QUESTION_SHARE_PERCENT {
        return None;
    }
    let is_headed = first.len() > count && !asks(opening);
    Some(Layout::Questions {
        question: *question,
        answer: *answer,
        names: if is_headed { names.clone() } else { HashMap::new() },
    })
}

/// Whether a first row names the columns below it.
pub(super) fn is_header(row: &Cells<'_>) -> bool {
    row.len() > 1 && row.iter().all(|(_, cell)| is_name(cell)) && row.iter().any(|(_, cell)| has_letter(cell))
}

/// `name: value` lines of the columns that have a value.
fn named_values(row: &Cells<'_>, names: &HashMap<usize, String>) -> String {
    let mut lines = Vec::new();
    for (column, value) in row {
        let value = one_line(value);
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

/// Whether a cell of the first row may be the name of its column. Years name columns too.
fn is_name(cell: &str) -> bool {
    let cell = cell.trim();
    let is_year = || matches!(cell.parse::<u16>(), Ok(1900..=2100));
    cell.is_empty()
        || is_year()
        || (cell.chars().count() <= MAX_NAME_CHARS
            && has_letter(cell)
            && !cell.ends_with(['.', '?', '!'])
            && !cell.contains('@')
            && !cell.contains("://"))
}

fn has_letter(cell: &str) -> bool {
    cell.chars().any(char::is_alphabetic)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ExtractedDocument, Limits};

    const TABLE: [&[(usize, &str)]; 3] = [
        &[(0, "Region"), (1, "2023"), (2, "2024")],
        &[(0, "North"), (1, "5"), (2, "6")],
        &[(0, "South"), (2, "7")],
    ];

    fn write(layout: &Layout, rows: &[&[(usize, &str)]]) -> ExtractedDocument {
        let mut builder = DocumentBuilder::new(&Limits::default());
        for row in rows {
            layout.write(row, 1, &mut builder);
        }
        builder.finish().expect("the table has text")
    }

    #[test]
    fn years_name_columns_and_empty_cells_are_left_out() {
        let layout = Layout::of(&TABLE);

        assert!(layout.has_header());
        assert_eq!(
            write(&layout, &TABLE[1..]).text,
            "Region: North\n2023: 5\n2024: 6\n\nRegion: South\n2024: 7"
        );
    }

    #[test]
    fn rows_without_names_keep_their_header_beside_them() {
        let document = write(&Layout::of(&TABLE).unnamed(), &TABLE[..2]);

        assert_eq!(document.text, "Region | 2023 | 2024\nNorth | 5 | 6");
        assert_eq!(
            document.blocks[1].kind,
            BlockKind::TableRow {
                header: Some("Region | 2023 | 2024".to_owned())
            }
        );
    }

    #[test]
    fn numbers_and_sentences_name_no_columns() {
        assert!(!is_header(&[(0, "1"), (1, "2")]));
        assert!(!is_header(&[(0, "2023"), (1, "2024")]));
        assert!(!is_header(&[(0, "We are open."), (1, "Daily")]));
        assert!(is_header(&[(0, "Day"), (1, "Hours")]));
    }
}
