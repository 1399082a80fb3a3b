//! Rich Text Format: control words and groups become paragraphs, headings, lists and table rows. Only what is
//! shown is read: pictures, objects, field codes, headers and hidden text are passed over.

mod lexer;
mod state;
#[cfg(test)]
mod tests;

use encoding_rs::{Encoding, WINDOWS_1252};

use self::lexer::{Lexer, Token};
use self::state::{Destination, Group};
use super::table::Table;
use crate::document::DocumentBuilder;
use crate::{BlockKind, ExtractError, ExtractedDocument, Limits};

/// Fonts and styles that are remembered.
const MAX_DEFINITIONS: usize = 10_000;

/// Reads the text of the document.
pub(crate) fn extract(bytes: &[u8], limits: &Limits) -> Result<ExtractedDocument, ExtractError> {
    if bytes.len() as u64 > limits.max_unpacked_bytes {
        return Err(ExtractError::too_large("too much text"));
    }
    let mut reader = Reader::new(limits);
    for token in Lexer::new(bytes) {
        reader.take(token)?;
        if reader.builder.is_full() {
            break;
        }
    }
    reader.end_paragraph();
    reader.end_row();
    reader.builder.title = reader
        .builder
        .title
        .or(Some(reader.title).filter(|title| !title.trim().is_empty()));
    reader.builder.finish()
}

struct Reader {
    builder: DocumentBuilder,
    max_depth: usize,
    groups: Vec<Group>,
    group: Group,
    /// Characters outside Unicode escapes are in this encoding, or that of their font.
    encoding: &'static Encoding,
    font_encodings: Vec<(i32, &'static Encoding)>,
    /// The font or style that is being defined.
    defined: i32,
    style_name: String,
    heading_styles: Vec<(i32, u8)>,
    /// Bytes that wait for the ones after them, as characters may have two.
    bytes: Vec<u8>,
    /// A high surrogate that waits for its low one.
    surrogate: Option<u16>,
    /// Characters still to pass over: stand-ins behind a Unicode escape.
    stand_ins: u32,
    text: String,
    label: String,
    title: String,
    table: Option<Table>,
}

impl Reader {
    fn new(limits: &Limits) -> Self {
        Self {
            builder: DocumentBuilder::new(limits),
            max_depth: limits.max_depth as usize,
            groups: Vec::new(),
            group: Group::default(),
            encoding: WINDOWS_1252,
            font_encodings: Vec::new(),
            defined: 0,
            style_name: String::new(),
            heading_styles: Vec::new(),
            bytes: Vec::new(),
            surrogate: None,
            stand_ins: 0,
            text: String::new(),
            label: String::new(),
            title: String::new(),
            table: None,
        }
    }

    fn take(&mut self, token: Token<'_>) -> Result<(), ExtractError> {
        match token {
            Token::Open => {
                self.flush_bytes();
                if self.groups.len() >= self.max_depth {
                    return Err(ExtractError::too_large("groups are nested too deeply"));
                }
                self.groups.push(self.group.clone());
                self.group.is_start = true;
                self.stand_ins = 0;
            }
            Token::Close => {
                self.flush_bytes();
                self.end_definition();
                self.group = self.groups.pop().unwrap_or_default();
                self.stand_ins = 0;
            }
            Token::Ignorable => self.group.is_ignorable = true,
            Token::Byte(byte) => self.byte(byte),
            Token::Text(text) => {
                for byte in text {
                    self.byte(*byte);
                }
            }
            Token::Word(name, number) => self.word(name, number),
            Token::Symbol(symbol) => self.symbol(symbol),
        }
        Ok(())
    }

    fn byte(&mut self, byte: u8) {
        self.group.is_start = false;
        if self.stand_ins > 0 {
            self.stand_ins -= 1;
        } else if self.group.takes_text() {
            self.bytes.push(byte);
        }
    }

    /// Decodes the bytes that wait.
    fn flush_bytes(&mut self) {
        if self.bytes.is_empty() {
            return;
        }
        let bytes = std::mem::take(&mut self.bytes);
        let of_font = self
            .font_encodings
            .iter()
            .find(|(font, _)| *font == self.group.font)
            .map(|(_, encoding)| *encoding);
        let (text, _) = of_font
            .unwrap_or(self.encoding)
            .decode_without_bom_handling(&bytes);
        self.add(&text);
    }

    fn add(&mut self, text: &str) {
        self.surrogate = None;
        match self.group.destination {
            Destination::Body if self.group.is_hidden => {}
            Destination::Body => self.text.push_str(text),
            Destination::Label => self.label.push_str(text),
            Destination::Title => self.title.push_str(text),
            Destination::Styles => self.style_name.push_str(text),
            Destination::Fonts | Destination::Properties | Destination::Skipped => {}
        }
    }

    fn symbol(&mut self, symbol: u8) {
        self.flush_bytes();
        if self.stand_ins > 0 {
            self.stand_ins -= 1;
            return;
        }
        match symbol {
            b'~' => self.add("\u{a0}"),
            b'_' => self.add("-"),
            b'\\' | b'{' | b'}' => self.add(char::from(symbol).encode_utf8(&mut [0; 4])),
            b'\n' | b'\r' => self.end_paragraph(),
            _ => {}
        }
    }

    fn word(&mut self, name: &str, number: Option<i32>) {
        self.flush_bytes();
        if std::mem::take(&mut self.group.is_start) {
            self.group.enter(name);
        }
        if self.group.destination == Destination::Skipped {
            return;
        }
        let on = number != Some(0);
        match name {
            "u" => self.unicode(number.unwrap_or(0)),
            "uc" => self.group.stand_ins = u32::try_from(number.unwrap_or(1)).unwrap_or(1),
            "ansicpg" => self.encoding = number.and_then(encoding_of_page).unwrap_or(self.encoding),
            "mac" => self.encoding = encoding_rs::MACINTOSH,
            "f" if self.group.destination == Destination::Fonts => self.defined = number.unwrap_or(0),
            "f" => self.group.font = number.unwrap_or(0),
            "fcharset" if self.font_encodings.len() < MAX_DEFINITIONS => {
                let encoding = number.and_then(encoding_of_charset);
                self.font_encodings
                    .extend(encoding.map(|encoding| (self.defined, encoding)));
            }
            "s" if self.group.destination == Destination::Styles => self.defined = number.unwrap_or(0),
            "s" => self.group.style = number,
            "outlinelevel" if self.group.destination == Destination::Body => {
                self.group.outline = number.and_then(|level| u8::try_from(level).ok());
            }
            "v" => self.group.is_hidden = on,
            "deleted" => self.group.is_hidden |= on,
            "plain" => self.group.is_hidden = false,
            "pard" => {
                self.group.style = None;
                self.group.outline = None;
                self.group.is_in_table = false;
                self.group.is_in_list = false;
            }
            "intbl" => self.group.is_in_table = true,
            "ls" | "pnlvlblt" | "pnlvlbody" => self.group.is_in_list = true,
            "par" | "sect" | "page" => self.end_paragraph(),
            "line" => self.add("\n"),
            "tab" => self.add("\t"),
            "cell" | "nestcell" => self.end_cell(),
            "row" | "nestrow" => self.end_row(),
            "emdash" => self.add("—"),
            "endash" => self.add("–"),
            "lquote" => self.add("‘"),
            "rquote" => self.add("’"),
            "ldblquote" => self.add("“"),
            "rdblquote" => self.add("”"),
            "bullet" => self.add("•"),
            "emspace" | "enspace" | "qmspace" => self.add(" "),
            _ => {}
        }
    }

    /// A UTF-16 unit, written as a signed number, with stand-ins for old programs behind it.
    fn unicode(&mut self, number: i32) {
        let unit = (number & 0xffff) as u16;
        let high = self.surrogate.take();
        self.stand_ins = self.group.stand_ins;
        if (0xd800..0xdc00).contains(&unit) {
            self.surrogate = Some(unit);
            return;
        }
        let units: Vec<u16> = high.into_iter().chain([unit]).collect();
        self.add(&String::from_utf16_lossy(&units));
    }

    fn end_definition(&mut self) {
        if self.group.destination != Destination::Styles || self.style_name.is_empty() {
            return;
        }
        let name = std::mem::take(&mut self.style_name).to_lowercase();
        let name = name.trim().trim_end_matches(';');
        let level = match name.strip_prefix("heading ") {
            Some(level) => level.parse::<u8>().ok(),
            None => (name == "title").then_some(1),
        };
        if let Some(level) = level.filter(|level| (1..=9).contains(level))
            && self.heading_styles.len() < MAX_DEFINITIONS
        {
            self.heading_styles.push((self.defined, level.min(6)));
        }
        self.defined = 0;
    }

    fn end_paragraph(&mut self) {
        self.flush_bytes();
        if self.group.destination != Destination::Body {
            return;
        }
        let text = std::mem::take(&mut self.text);
        let label = std::mem::take(&mut self.label);
        if self.group.is_in_table {
            self.cell_text(&text);
            return;
        }
        self.end_table();
        if text.trim().is_empty() {
            return;
        }
        let label = label.trim();
        // The number of an item is text that people refer to, a bullet is not.
        let text = match label.chars().any(char::is_alphanumeric) {
            true => format!("{label} {text}"),
            false => text,
        };
        self.builder.push(self.kind(!label.is_empty()), &text, None);
    }

    fn kind(&self, has_label: bool) -> BlockKind {
        let by_outline = self
            .group
            .outline
            .filter(|level| *level < 9)
            .map(|level| (level + 1).min(6));
        let by_style = || {
            let style = self.group.style?;
            let found = self.heading_styles.iter().find(|(id, _)| *id == style)?;
            Some(found.1)
        };
        match by_outline.or_else(by_style) {
            Some(level) => BlockKind::Heading { level },
            None if has_label || self.group.is_in_list => BlockKind::ListItem,
            None => BlockKind::Paragraph,
        }
    }

    /// Adds text to the cell that is open, and opens one where none is.
    fn cell_text(&mut self, text: &str) {
        let table = self.table.get_or_insert_with(|| {
            let mut table = Table::default();
            table.open_row();
            table
        });
        if !table.is_in_cell() {
            table.open_cell(false, 1, 1);
        }
        table.add(text);
    }

    fn end_cell(&mut self) {
        self.flush_bytes();
        let text = std::mem::take(&mut self.text);
        self.label.clear();
        self.cell_text(&text);
        if let Some(table) = &mut self.table {
            table.close_cell();
        }
    }

    fn end_row(&mut self) {
        let Some(table) = &mut self.table else { return };
        if let Some(row) = table.close_row() {
            self.builder
                .push(BlockKind::TableRow { header: row.header }, &row.text, None);
        }
        table.open_row();
    }

    fn end_table(&mut self) {
        self.end_row();
        self.table = None;
    }
}

/// The encoding of a Windows code page.
fn encoding_of_page(page: i32) -> Option<&'static Encoding> {
    let label = match page {
        932 => "shift_jis".to_owned(),
        936 => "gbk".to_owned(),
        949 => "euc-kr".to_owned(),
        950 => "big5".to_owned(),
        874 | 1250..=1258 => format!("windows-{page}"),
        10000 => "macintosh".to_owned(),
        65001 => "utf-8".to_owned(),
        866 => "ibm866".to_owned(),
        _ => return None,
    };
    Encoding::for_label(label.as_bytes())
}

/// The encoding of a font's character set.
fn encoding_of_charset(charset: i32) -> Option<&'static Encoding> {
    let page = match charset {
        77 => 10000,
        128 => 932,
        129 => 949,
        134 => 936,
        136 => 950,
        161 => 1253,
        162 => 1254,
        163 => 1258,
        177 => 1255,
        178 => 1256,
        186 => 1257,
        204 => 1251,
        222 => 874,
        238 => 1250,
        _ => return None,
    };
    encoding_of_page(page)
}
