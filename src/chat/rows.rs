//! Rows of tables in a passage. A row says something as a whole: a price alone is nothing's price.
//!
//! Of files that consist of rows or objects `ingest` writes each as a block of lines, `name: value`, where the values have names.
//! Any other row is a line of cells with bars between them, below its header.

use std::cmp::Reverse;

use super::sentences::{is_question, sentences};
use crate::knowledge::{HEADING_SEPARATOR, Passage};

/// Between the cells of a row on one line.
const BAR: &str = " | ";

/// Characters of a column's name.
const MAX_NAME_CHARS: usize = 81;

/// Characters that an answer tells of a row, and of one of its cells.
const MAX_ROW_CHARS: usize = 500;
const MAX_CELL_CHARS: usize = 160;

/// A part of a passage that says something by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Statement<'p> {
    /// In bytes of the passage.
    pub start: usize,
    pub end: usize,
    /// None: it is a sentence.
    pub row: Option<Row<'p>>,
}

/// A row of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Row<'p> {
    /// Lines that name their values.
    Record(&'p str),
    /// Cells with bars between them.
    Cells {
        text: &'p str,
        /// The header of their columns, where there is one.
        header: Option<&'p str>,
    },
}

/// The sentences and the rows of tables that a passage consists of, in order. A header is no statement where rows follow it.
pub fn statements(passage: &Passage) -> Vec<Statement<'_>> {
    let (text, heading) = (passage.text.as_str(), passage.heading.as_deref());
    let mut found = Vec::new();
    for block in blocks(text) {
        // Elsewhere each line of that form may be about a thing of its own, as in a list of prices.
        if passage.has_records && is_record(&block) {
            let (start, end) = (block[0].0, end_of(block[block.len() - 1]));
            let row = Some(Row::Record(&text[start..end]));
            found.push(Statement { start, end, row });
            continue;
        }
        let mut header = heading.and_then(header_of);
        for (at, line) in block.iter().enumerate() {
            let (start, end) = (line.0, end_of(*line));
            if !line.1.contains(BAR) {
                found.extend(sentences(line.1).map(|(from, to)| Statement {
                    start: start + from,
                    end: start + to,
                    row: None,
                }));
                continue;
            }
            let is_first = at == 0 || !block[at - 1].1.contains(BAR);
            let next = block.get(at + 1).filter(|(_, next)| next.contains(BAR));
            if is_first && next.is_some_and(|next| names_columns(line.1, next.1)) {
                header = Some(line.1);
                continue;
            }
            let row = Some(Row::Cells {
                text: line.1,
                header: header.filter(|header| header.split(BAR).count() == line.1.split(BAR).count()),
            });
            found.push(Statement { start, end, row });
        }
    }
    found
}

impl Row<'_> {
    /// All that is compared with a question: its cells and the names of their columns.
    pub fn words(&self) -> String {
        match self {
            Self::Record(text) | Self::Cells { text, header: None } => (*text).to_owned(),
            Self::Cells {
                text,
                header: Some(header),
            } => format!("{header}\n{text}"),
        }
    }

    /// What an answer tells: the cells with the names of their columns. In a row that is too long those come first of which
    /// `says` tells most, as of a text how many words of the question it says; a long cell is told by its sentence of that kind.
    pub fn told(&self, says: impl Fn(&str) -> usize) -> String {
        let words = self.words();
        let cells: Vec<String> = match self {
            Self::Record(text) => text.lines().map(|cell| told_cell(cell, &says)).collect(),
            Self::Cells { .. } if words.chars().count() <= MAX_ROW_CHARS => return words,
            Self::Cells { text, header } => {
                let names = header.unwrap_or_default().split(BAR).map(Some);
                let cells = text.split(BAR).zip(names.chain(std::iter::repeat(None)));
                cells
                    .map(|(cell, name)| told_cell(&with_name(name, cell), &says))
                    .collect()
            }
        };
        let mut order: Vec<usize> = (0..cells.len()).collect();
        order.sort_by_cached_key(|cell| Reverse(says(&cells[*cell])));
        let mut left = MAX_ROW_CHARS;
        order.retain(|cell| {
            let chars = cells[*cell].chars().count() + 1;
            let fits = chars <= left;
            left -= if fits { chars } else { 0 };
            fits
        });
        order.sort_unstable();
        let mut told: Vec<&str> = order.iter().map(|cell| cells[*cell].as_str()).collect();
        if told.len() < cells.len() {
            told.push("…");
        }
        told.join("\n")
    }
}

fn with_name(column: Option<&str>, cell: &str) -> String {
    match column {
        Some(name) if !name.is_empty() => format!("{name}: {cell}"),
        _ => cell.to_owned(),
    }
}

/// The first `most` characters, with a sign where there are more.
pub fn shorten(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        None => text.to_owned(),
        Some((index, _)) => format!("{}…", text[..index].trim_end()),
    }
}

/// A cell as it stands there, or of a long one the name and the first sentence that `says` most.
fn told_cell(cell: &str, says: &impl Fn(&str) -> usize) -> String {
    if cell.chars().count() <= MAX_CELL_CHARS {
        return cell.to_owned();
    }
    let (name, value) = named(cell).map_or((None, cell), |(name, value)| (Some(name), value));
    let mut said = sentences(value).map(|(start, end)| &value[start..end]);
    let (first, others) = (said.next().unwrap_or(value), said);
    let best = others.fold(
        first,
        |best, other| {
            if says(other) > says(best) { other } else { best }
        },
    );
    let told = shorten(best, MAX_CELL_CHARS);
    let more = if told.ends_with('…') { "" } else { " …" };
    match name {
        Some(name) => format!("{name}: {told}{more}"),
        None => format!("{told}{more}"),
    }
}

type Line<'p> = (usize, &'p str);

/// The lines of `text`, trimmed, with their places in bytes, by what empty lines part.
fn blocks(text: &str) -> Vec<Vec<Line<'_>>> {
    let mut blocks = vec![Vec::new()];
    let mut offset = 0;
    for line in text.split_inclusive('\n') {
        let trimmed = line.trim();
        if trimmed.is_empty() {
            blocks.push(Vec::new());
        } else if let Some(block) = blocks.last_mut() {
            block.push((offset + line.len() - line.trim_start().len(), trimmed));
        }
        offset += line.len();
    }
    blocks.retain(|block| !block.is_empty());
    blocks
}

fn end_of((start, line): Line<'_>) -> usize {
    start + line.len()
}

/// Whether the lines are the cells of one row. The first column alone may have no name, as one that counts the rows.
fn is_record(block: &[Line<'_>]) -> bool {
    let names = |line: &Line<'_>| named(line.1).is_some() && !is_question(line.1);
    let (first, others) = (&block[0], &block[1..]);
    let is_counter = first.1.chars().all(|c| c.is_ascii_digit());
    (names(first) && !others.is_empty() || is_counter && others.len() > 1) && others.iter().all(names)
}

/// The name and the value of a cell.
fn named(cell: &str) -> Option<(&str, &str)> {
    let (name, value) = cell.split_once(": ")?;
    let is_name = name.contains(char::is_alphanumeric) && name.chars().count() <= MAX_NAME_CHARS;
    is_name.then_some((name, value))
}

/// The header of the table whose rows go on below a heading: the innermost part of it.
fn header_of(heading: &str) -> Option<&str> {
    let innermost = heading.rsplit(HEADING_SEPARATOR).next()?;
    innermost.contains(BAR).then_some(innermost)
}

/// Whether the cells of a first line are names rather than values, as those of the `next` one.
fn names_columns(line: &str, next: &str) -> bool {
    let are_others = line
        .split(BAR)
        .zip(next.split(BAR))
        .all(|(cell, below)| cell != below);
    are_others
        && line.split(BAR).all(|cell| {
            let has_letter = cell.contains(char::is_alphabetic);
            let is_year = || matches!(cell.parse::<u16>(), Ok(1900..=2100));
            (has_letter && !cell.starts_with(|c: char| c.is_numeric()) || is_year())
                && cell.chars().count() <= MAX_NAME_CHARS
                && !cell.ends_with(['.', '!', '?'])
                && !cell.contains('@')
                && !cell.contains("://")
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::knowledge::sample_passage;

    fn of_records(text: &str, heading: Option<&str>) -> Passage {
        Passage {
            heading: heading.map(str::to_owned),
            has_records: true,
            ..sample_passage(text)
        }
    }

    fn stated(passage: &Passage) -> Vec<&str> {
        let statements = statements(passage);
        let text_of = |statement: &Statement<'_>| &passage.text[statement.start..statement.end];
        statements.iter().map(text_of).collect()
    }

    fn told(text: &str, heading: Option<&str>, asked: &str) -> Vec<String> {
        let passage = of_records(text, heading);
        let statements = statements(&passage).into_iter();
        let says = |text: &str| asked.split(' ').filter(|word| text.contains(word)).count();
        statements
            .filter_map(|statement| Some(statement.row?.told(says)))
            .collect()
    }

    #[test]
    fn lines_that_name_their_values_are_one_row_and_others_are_sentences() {
        let text = "Prices\n\nname: WH-1000XM5\nprice: 349\n\n0\nname: Case\nprice: 19\n\nThey fold.\nThey last: long.\n\nsize: S\n";

        assert_eq!(
            stated(&of_records(text, None)),
            [
                "Prices",
                "name: WH-1000XM5\nprice: 349",
                "0\nname: Case\nprice: 19",
                "They fold.",
                "They last: long.",
                "size: S"
            ]
        );
        assert_eq!(
            stated(&of_records("Customer: Does it fold?\nWe: It does.", None)),
            ["Customer: Does it fold?", "We: It does."],
            "who asks states nothing"
        );
    }

    #[test]
    fn in_a_text_each_line_speaks_for_itself() {
        let prices = sample_passage("Chair: 310 euros\nBed: 1240 euros");

        assert_eq!(stated(&prices), ["Chair: 310 euros", "Bed: 1240 euros"]);
    }

    #[test]
    fn cells_with_bars_between_them_are_told_with_their_header() {
        let table = "We sell these.\nSize | Price\nS | 5\nM (St. Gallen) | 6";
        let above = Some("Tables › Size | Price");

        assert_eq!(
            told(table, None, ""),
            ["Size | Price\nS | 5", "Size | Price\nM (St. Gallen) | 6"]
        );
        assert_eq!(told("S | 5", above, ""), ["Size | Price\nS | 5"]);
        assert_eq!(told("S | 5 | red", above, ""), ["S | 5 | red"], "it is another's");
        assert_eq!(told("S | 5\nM | 6", None, ""), ["S | 5", "M | 6"]);
        assert_eq!(stated(&of_records(table, None))[0], "We sell these.");
        for without_header in [
            "Email | info@shop.example\nPhone | +49 421 555",
            "Monday | closed\nSunday | closed",
        ] {
            assert_eq!(
                told(without_header, None, ""),
                without_header.lines().collect::<Vec<_>>()
            );
        }
    }

    #[test]
    fn of_a_wide_table_the_cells_are_told_that_say_what_was_asked_each_with_its_column() {
        let names: Vec<String> = (0..24)
            .map(|number| format!("Includes feature number {number}"))
            .collect();
        let values: Vec<String> = (0..24).map(|number| format!("yes{number}")).collect();
        let table = format!("{}\n{}", names.join(BAR), values.join(BAR));

        let of_the_last = &told(&table, None, "yes23")[0];

        assert!(
            of_the_last.contains("Includes feature number 23: yes23"),
            "{of_the_last}"
        );
        assert!(
            of_the_last.starts_with("Includes feature number 0: yes0\n"),
            "{of_the_last}"
        );
        assert!(of_the_last.chars().count() <= MAX_ROW_CHARS + 1, "{of_the_last}");
    }

    #[test]
    fn of_a_long_row_the_cells_are_told_that_say_what_was_asked_and_else_the_first() {
        let long = format!(
            "text: It folds. {} It is washed cold. {}",
            "It is light. ".repeat(12),
            "It is fine. ".repeat(3)
        );
        let cells: String = (0..40)
            .map(|number| format!("column {number}: some value of it\n"))
            .collect();
        let text = format!("name: Cap\n{long}\n{cells}colour: red");

        let of_colour = &told(&text, None, "colour washed")[0];

        assert!(
            of_colour.starts_with("name: Cap\ntext: It is washed cold. …\ncolumn 0:"),
            "{of_colour}"
        );
        assert!(of_colour.ends_with("\ncolour: red\n…"), "{of_colour}");
        assert!(of_colour.chars().count() <= MAX_ROW_CHARS + 1, "{of_colour}");
        assert!(!told(&text, None, "nothing")[0].contains("colour"));
    }
}
