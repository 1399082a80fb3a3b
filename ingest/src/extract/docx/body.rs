//! The text of a Word part: paragraphs, lists, tables and text boxes in document order.

use std::collections::HashMap;

use super::math::Equation;
use super::numbering::Numbering;
use super::pictures::Pictures;
use super::styles::{Styles, heading_of_outline};
use crate::document::DocumentBuilder;
use crate::extract::table::Table;
use crate::extract::xml::{Element, XmlEvent, XmlReader};
use crate::{BlockKind, ExtractError};

/// Elements that hold no text of the document: deleted and moved text, field codes, the old spelling of what
/// stands beside it in the new one, former properties.
const SKIPPED: [&str; 14] = [
    "del",
    "moveFrom",
    "delText",
    "instrText",
    "delInstrText",
    "Fallback",
    "rPrChange",
    "pPrChange",
    "sectPr",
    "tblGrid",
    "tblPr",
    "sdtPr",
    "fldData",
    "binData",
];

/// Notes by id, for references in the text.
#[derive(Debug, Default)]
pub(super) struct Notes {
    pub(super) footnotes: HashMap<String, String>,
    pub(super) endnotes: HashMap<String, String>,
}

/// Adds the blocks of `document.xml` to `builder`.
pub(super) fn read_body(
    source: &str,
    styles: &Styles,
    numbering: &mut Numbering,
    notes: &Notes,
    pictures: &mut Pictures<'_, '_>,
    max_depth: u32,
    builder: &mut DocumentBuilder,
) -> Result<(), ExtractError> {
    let mut reader = XmlReader::new(source, max_depth);
    let mut shown = Vec::new();
    let mut body = Body {
        builder,
        styles,
        numbering,
        notes,
        paragraphs: Vec::new(),
        tables: Vec::new(),
        code: Vec::new(),
        skip: 0,
        run: Run::default(),
        equation: None,
    };
    while let Some(event) = reader.next()? {
        if let Some(equation) = &mut body.equation {
            if let Some(latex) = equation.take(event) {
                body.equation = None;
                body.add_equation(&latex);
            }
            continue;
        }
        match event {
            XmlEvent::Start(element) => {
                body.start(&element);
                if body.skip == 0 && matches!(element.name(), "blip" | "imagedata") {
                    shown.extend(element.reference("embed").or_else(|| element.reference("id")));
                }
            }
            XmlEvent::End(name) => body.end(&name),
            XmlEvent::Text(text) => body.characters(&text),
        }
        // After the paragraph or the table that it stands in.
        if body.paragraphs.is_empty() && body.tables.is_empty() && !shown.is_empty() {
            body.flush_code();
            for id in shown.drain(..) {
                pictures.show(&id, body.builder);
            }
        }
        if body.builder.is_full() {
            break;
        }
    }
    body.flush_code();
    Ok(())
}

/// The plain text of notes by their ids.
pub(super) fn read_notes(
    source: &str,
    styles: &Styles,
    max_depth: u32,
) -> Result<HashMap<String, String>, ExtractError> {
    let mut reader = XmlReader::new(source, max_depth);
    let mut notes = HashMap::new();
    let mut current: Option<(String, String)> = None;
    let mut run = Run::default();
    let mut skip = 0_usize;
    while let Some(event) = reader.next()? {
        match event {
            XmlEvent::Start(_) if skip > 0 => skip += 1,
            XmlEvent::End(_) if skip > 0 => skip -= 1,
            XmlEvent::Start(element) => {
                let name = element.name();
                match name {
                    // Separators are lines, not notes.
                    "footnote" | "endnote"
                        if element.attribute("type").is_none_or(|kind| kind == "normal") =>
                    {
                        current = Some((element.attribute("id").unwrap_or_default(), String::new()));
                    }
                    name if SKIPPED.contains(&name) => skip = 1,
                    _ => run.start(&element, styles),
                }
            }
            XmlEvent::End(name) if name == "footnote" || name == "endnote" => notes.extend(current.take()),
            XmlEvent::End(name) => {
                run.end(&name);
                if name == "p"
                    && let Some((_, text)) = &mut current
                {
                    text.push(' ');
                }
            }
            XmlEvent::Text(text) => {
                if let Some((_, note)) = current.as_mut().filter(|_| run.is_visible_text()) {
                    note.push_str(&text);
                }
            }
        }
    }
    Ok(notes)
}

/// Where within a run of text the reader is.
#[derive(Debug, Default)]
struct Run {
    depth: usize,
    in_properties: usize,
    in_text: bool,
    is_hidden: bool,
}

impl Run {
    fn start(&mut self, element: &Element, styles: &Styles) {
        match element.name() {
            "r" => {
                self.depth += 1;
                self.is_hidden = false;
            }
            "rPr" => self.in_properties += 1,
            "t" => self.in_text = true,
            "vanish" | "webHidden" if self.in_properties > 0 && self.depth > 0 => {
                self.is_hidden |= element.is_on()
            }
            "rStyle" if self.depth > 0 => {
                self.is_hidden |= element.value().is_some_and(|style| styles.is_hidden(&style));
            }
            _ => {}
        }
    }

    fn end(&mut self, name: &str) {
        match name {
            "r" => self.depth = self.depth.saturating_sub(1),
            "rPr" => self.in_properties = self.in_properties.saturating_sub(1),
            "t" => self.in_text = false,
            _ => {}
        }
    }

    fn is_visible_text(&self) -> bool {
        self.in_text && !self.is_hidden
    }

    /// Whether a tab or a break here is text, and not the definition of one.
    fn takes_marks(&self) -> bool {
        self.depth > 0 && self.in_properties == 0 && !self.is_hidden
    }
}

#[derive(Debug, Default)]
struct Paragraph {
    text: String,
    style: Option<String>,
    outline_level: Option<u8>,
    num_id: Option<String>,
    list_level: Option<u8>,
    notes: Vec<String>,
}

struct Body<'a> {
    builder: &'a mut DocumentBuilder,
    styles: &'a Styles,
    numbering: &'a mut Numbering,
    notes: &'a Notes,
    /// A text box is a paragraph inside a paragraph.
    paragraphs: Vec<Paragraph>,
    tables: Vec<Table>,
    /// Lines of a listing: Word makes a paragraph of each.
    code: Vec<String>,
    /// Open elements from a skipped one on.
    skip: usize,
    run: Run,
    equation: Option<Equation>,
}

impl Body<'_> {
    fn start(&mut self, element: &Element) {
        let name = element.name();
        if self.skip > 0 || SKIPPED.contains(&name) {
            self.skip += 1;
            return;
        }
        self.run.start(element, self.styles);
        match name {
            "p" => self.paragraphs.push(Paragraph::default()),
            "oMath" => self.equation = Some(Equation::begin()),
            "tbl" => self.open_table(),
            "tr" => self.with_table(Table::open_row),
            "tc" => self.with_table(|table| table.open_cell(false, 1, 1)),
            "gridSpan" => {
                let columns = element
                    .value()
                    .and_then(|columns| columns.parse().ok())
                    .unwrap_or(1);
                self.with_table(|table| table.widen_cell(columns));
            }
            "vMerge" if element.value().is_none_or(|value| value != "restart") => {
                self.with_table(Table::continue_cell_above);
            }
            "tblHeader" if element.is_on() => self.with_table(Table::mark_header_row),
            "tab" | "ptab" if self.run.takes_marks() => self.add("\t"),
            "br" | "cr" if self.run.takes_marks() => self.add("\n"),
            "noBreakHyphen" if self.run.takes_marks() => self.add("-"),
            "footnoteReference" | "endnoteReference" => self.add_note(name, element),
            "pStyle" | "outlineLvl" | "numId" | "ilvl" => self.take_property(name, element),
            _ => {}
        }
    }

    fn end(&mut self, name: &str) {
        if self.skip > 0 {
            self.skip -= 1;
            return;
        }
        self.run.end(name);
        match name {
            "p" => self.finish_paragraph(),
            "tc" => self.with_table(Table::close_cell),
            "tr" => self.close_row(),
            "tbl" => {
                self.close_row();
                self.tables.pop();
            }
            _ => {}
        }
    }

    fn characters(&mut self, text: &str) {
        if self.skip == 0 && self.run.is_visible_text() {
            self.add(text);
        }
    }

    fn add(&mut self, text: &str) {
        if let Some(paragraph) = self.paragraphs.last_mut() {
            paragraph.text.push_str(text);
        }
    }

    fn add_equation(&mut self, latex: &str) {
        if !latex.trim().is_empty() {
            self.add(&format!(" ${}$ ", latex.trim()));
        }
    }

    fn add_note(&mut self, name: &str, element: &Element) {
        let notes = if name == "footnoteReference" {
            &self.notes.footnotes
        } else {
            &self.notes.endnotes
        };
        let note = element.attribute("id").and_then(|id| notes.get(&id));
        if let (Some(note), Some(paragraph)) = (note, self.paragraphs.last_mut()) {
            paragraph.notes.push(note.clone());
        }
    }

    fn take_property(&mut self, name: &str, element: &Element) {
        let Some(paragraph) = self.paragraphs.last_mut() else {
            return;
        };
        let value = element.value();
        match name {
            "pStyle" => paragraph.style = value,
            "outlineLvl" => paragraph.outline_level = value.and_then(|level| level.parse().ok()),
            "numId" => paragraph.num_id = value,
            _ => paragraph.list_level = value.and_then(|level| level.parse().ok()),
        }
    }

    fn with_table(&mut self, act: impl FnOnce(&mut Table)) {
        if let Some(table) = self.tables.last_mut() {
            act(table);
        }
    }

    /// A table inside a cell means that the outer one arranges the page.
    fn open_table(&mut self) {
        self.flush_code();
        if let Some(outer) = self.tables.last_mut().filter(|table| table.is_in_cell()) {
            for cell in outer.become_layout() {
                self.builder.push(BlockKind::Paragraph, &cell, None);
            }
        }
        self.tables.push(Table::default());
    }

    fn close_row(&mut self) {
        if let Some(row) = self.tables.last_mut().and_then(Table::close_row) {
            self.builder
                .push(BlockKind::TableRow { header: row.header }, &row.text, None);
        }
    }

    fn finish_paragraph(&mut self) {
        let Some(paragraph) = self.paragraphs.pop() else {
            return;
        };
        let style = paragraph.style.as_deref().unwrap_or_default();
        if self.styles.is_contents(style) || self.styles.is_hidden(style) {
            return;
        }
        let label = self.label_of(&paragraph, style);
        let is_empty = paragraph.text.trim().is_empty();
        let text = match &label {
            Some(label) if !is_empty => format!("{label} {}", paragraph.text),
            _ => paragraph.text.clone(),
        };
        if let Some(table) = self.tables.last_mut().filter(|table| table.is_in_cell()) {
            table.add(&text);
            paragraph.notes.iter().for_each(|note| table.add(note));
            return;
        }
        if self.styles.is_code(style) {
            self.code.push(text);
            return;
        }
        self.flush_code();
        if !is_empty {
            if self.styles.is_title(style) && self.builder.title.is_none() {
                self.builder.title = Some(paragraph.text.clone());
            }
            let kind = self.kind_of(&paragraph, style);
            self.builder.push(kind, &text, None);
        }
        for note in &paragraph.notes {
            self.builder.push(BlockKind::Paragraph, note, None);
        }
    }

    fn kind_of(&self, paragraph: &Paragraph, style: &str) -> BlockKind {
        let by_outline = paragraph.outline_level.map(heading_of_outline);
        // An outline level on the paragraph itself wins, also when it says that it is no heading.
        if let Some(level) = by_outline.unwrap_or_else(|| self.styles.heading_level(style)) {
            return BlockKind::Heading { level };
        }
        if self.list_of(paragraph, style).is_some() || self.styles.is_list(style) {
            return BlockKind::ListItem;
        }
        BlockKind::Paragraph
    }

    /// The list of a paragraph and its level; list "0" takes a paragraph out of its style's list.
    fn list_of(&self, paragraph: &Paragraph, style: &str) -> Option<(String, u8)> {
        let by_style = self.styles.numbering(style);
        let style_level = by_style.as_ref().and_then(|(_, level)| *level);
        let num_id = paragraph
            .num_id
            .clone()
            .or(by_style.map(|(num_id, _)| num_id))
            .filter(|id| id != "0")?;
        let level = paragraph
            .list_level
            .or(style_level)
            .or_else(|| self.numbering.level_of_style(&num_id, style))
            .unwrap_or(0);
        Some((num_id, level))
    }

    fn label_of(&mut self, paragraph: &Paragraph, style: &str) -> Option<String> {
        let (num_id, level) = self.list_of(paragraph, style)?;
        self.numbering.advance(&num_id, level)
    }

    fn flush_code(&mut self) {
        if !self.code.is_empty() {
            let listing = std::mem::take(&mut self.code).join("\n");
            self.builder.push(BlockKind::Code, &listing, None);
        }
    }
}
