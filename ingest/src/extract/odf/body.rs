//! The text of a document or a presentation: headings, paragraphs, lists, tables, frames, in document order.

use std::io::BufRead;

use super::lists::Lists;
use super::styles::Styles;
use crate::document::DocumentBuilder;
use crate::extract::table::Table;
use crate::extract::xml::{Element, XmlEvent, XmlReader};
use crate::{BlockKind, ExtractError};

/// Elements that hold no text of the document, or repeat it.
pub(super) const SKIPPED: [&str; 17] = [
    "tracked-changes",
    "annotation",
    "forms",
    "table-of-content",
    "illustration-index",
    "table-index",
    "object-index",
    "sequence-decls",
    "variable-decls",
    "user-field-decls",
    "settings",
    "event-listeners",
    "hidden-text",
    "note-citation",
    "title",
    "desc",
    "automatic-styles",
];

/// Frames of a slide that repeat on every one.
const REPEATED_FRAMES: [&str; 4] = ["date-time", "footer", "header", "page-number"];

/// Spaces that one element may stand for.
const MAX_SPACES: usize = 100;

pub(super) struct Body<'b> {
    builder: &'b mut DocumentBuilder,
    styles: &'b Styles,
    is_paged: bool,
    max_pages: u32,
    page: Option<u32>,
    /// Notes and text boxes stand inside paragraphs.
    paragraphs: Vec<Paragraph>,
    /// How many of them lay around each open note.
    notes: Vec<usize>,
    lists: Lists,
    tables: Vec<Table>,
    /// Lines of a listing, a paragraph each.
    code: Vec<String>,
    /// What the open frames of a slide are.
    frames: Vec<Option<String>>,
    /// Whether the text of each open span is hidden.
    spans: Vec<bool>,
    objects: Vec<String>,
}

#[derive(Debug, Default)]
struct Paragraph {
    text: String,
    style: String,
    level: Option<u8>,
    is_hidden: bool,
    notes: Vec<String>,
}

impl<'b> Body<'b> {
    pub(super) fn new(
        builder: &'b mut DocumentBuilder,
        styles: &'b Styles,
        is_paged: bool,
        max_pages: u32,
    ) -> Self {
        Self {
            builder,
            styles,
            is_paged,
            max_pages,
            page: None,
            paragraphs: Vec::new(),
            notes: Vec::new(),
            lists: Lists::default(),
            tables: Vec::new(),
            code: Vec::new(),
            frames: Vec::new(),
            spans: Vec::new(),
            objects: Vec::new(),
        }
    }

    pub(super) fn read<R: BufRead>(&mut self, mut reader: XmlReader<R>) -> Result<(), ExtractError> {
        while let Some(event) = reader.next()? {
            match event {
                XmlEvent::Start(element) if self.is_skipped(&element) => {
                    // A hidden slide counts too, so that pages are numbered as in the program.
                    if self.is_paged && element.name() == "page" {
                        self.begin_page()?;
                    }
                    reader.skip_element()?;
                }
                XmlEvent::Start(element) => self.start(&element)?,
                XmlEvent::End(name) => self.end(&name),
                XmlEvent::Text(text) => self.characters(&text),
            }
            if self.builder.is_full() {
                break;
            }
        }
        Ok(())
    }

    /// Ends the document; gives the paths of the objects in it.
    pub(super) fn finish(mut self) -> Vec<String> {
        self.flush_code();
        if self.is_paged {
            self.builder.page_count = self.page;
        }
        self.objects
    }

    fn is_skipped(&self, element: &Element) -> bool {
        match element.name() {
            "section" => element
                .attribute("display")
                .is_some_and(|display| display == "none"),
            "page" if self.is_paged => self.is_hidden("drawing-page", element),
            "table" => self.is_hidden("table", element),
            "frame" | "custom-shape" => element
                .attribute("class")
                .is_some_and(|class| REPEATED_FRAMES.contains(&class.as_str())),
            name => SKIPPED.contains(&name),
        }
    }

    fn is_hidden(&self, family: &str, element: &Element) -> bool {
        element
            .attribute("style-name")
            .is_some_and(|style| self.styles.is_hidden(family, &style))
    }

    fn start(&mut self, element: &Element) -> Result<(), ExtractError> {
        match element.name() {
            "p" | "h" => self.begin_paragraph(element),
            "span" => self.spans.push(self.is_hidden("text", element)),
            "s" => {
                let count = element
                    .attribute("c")
                    .and_then(|count| count.parse().ok())
                    .unwrap_or(1);
                self.characters(&" ".repeat(MAX_SPACES.min(count)));
            }
            "tab" => self.characters("\t"),
            "line-break" => self.characters("\n"),
            "hidden-paragraph" => {
                if let Some(paragraph) = self.paragraphs.last_mut() {
                    paragraph.is_hidden = true;
                }
            }
            "note" => self.notes.push(self.paragraphs.len()),
            "list" => self.lists.begin_list(element),
            "list-item" => self.lists.begin_item(),
            "page" if self.is_paged => self.begin_page()?,
            "frame" | "custom-shape" => self.frames.push(element.attribute("class")),
            "object" => self.objects.extend(element.attribute("href")),
            "table" => self.open_table(),
            "table-row" => self.with_table(Table::open_row),
            "table-cell" => self.open_cell(element),
            "table-header-rows" => self.with_table(Table::mark_header_row),
            _ => {}
        }
        Ok(())
    }

    fn begin_page(&mut self) -> Result<(), ExtractError> {
        let page = self.page.unwrap_or(0) + 1;
        if page > self.max_pages {
            return Err(ExtractError::too_large("too many slides"));
        }
        self.page = Some(page);
        Ok(())
    }

    fn end(&mut self, name: &str) {
        match name {
            "p" | "h" => self.finish_paragraph(),
            "span" => {
                self.spans.pop();
            }
            "note" => {
                self.notes.pop();
            }
            "list" => self.lists.end_list(),
            "frame" | "custom-shape" => {
                self.frames.pop();
            }
            "table-cell" => self.with_table(Table::close_cell),
            "table-row" => self.close_row(),
            "table" => {
                self.close_row();
                self.tables.pop();
            }
            _ => {}
        }
    }

    fn characters(&mut self, text: &str) {
        if self.spans.contains(&true) {
            return;
        }
        if let Some(paragraph) = self.paragraphs.last_mut() {
            paragraph.text.push_str(text);
        }
    }

    fn begin_paragraph(&mut self, element: &Element) {
        let style = element.attribute("style-name").unwrap_or_default();
        let level = match element.name() {
            "h" => {
                let level = element
                    .attribute("outline-level")
                    .and_then(|level| level.parse::<u8>().ok());
                Some(level.unwrap_or(1).clamp(1, 6))
            }
            _ => None,
        };
        self.paragraphs.push(Paragraph {
            level,
            is_hidden: self.styles.is_hidden("paragraph", &style),
            style,
            ..Paragraph::default()
        });
    }

    fn finish_paragraph(&mut self) {
        let Some(paragraph) = self.paragraphs.pop() else {
            return;
        };
        if paragraph.is_hidden {
            return;
        }
        // The text of a note waits for the paragraph around it to end.
        if self
            .notes
            .last()
            .is_some_and(|around| self.paragraphs.len() >= *around && *around > 0)
        {
            if let Some(outer) = self.paragraphs.last_mut() {
                outer.notes.push(paragraph.text);
            }
            return;
        }
        let is_empty = paragraph.text.trim().is_empty();
        if self.styles.is_like(&paragraph.style, "Preformatted_20_Text") && !self.is_in_cell() {
            self.code.push(paragraph.text);
            return;
        }
        self.flush_code();
        if !is_empty {
            self.write(&paragraph);
        }
        for note in paragraph.notes {
            match self.tables.last_mut().filter(|table| table.is_in_cell()) {
                Some(table) => table.add(&note),
                None => self.builder.push(BlockKind::Paragraph, &note, self.page),
            }
        }
    }

    fn write(&mut self, paragraph: &Paragraph) {
        let kind = self.kind_of(paragraph);
        let label = self
            .lists
            .take_label(self.styles)
            .filter(|_| kind == BlockKind::ListItem);
        let text = match label {
            Some(label) => format!("{label} {}", paragraph.text),
            None => paragraph.text.clone(),
        };
        if let Some(table) = self.tables.last_mut().filter(|table| table.is_in_cell()) {
            table.add(&text);
            return;
        }
        if self.styles.is_like(&paragraph.style, "Title") && self.builder.title.is_none() {
            self.builder.title = Some(paragraph.text.clone());
        }
        self.builder.push(kind, &text, self.page);
    }

    fn kind_of(&self, paragraph: &Paragraph) -> BlockKind {
        let is_slide_title = self.frames.iter().flatten().any(|class| class == "title");
        if let Some(level) = paragraph.level {
            return BlockKind::Heading { level };
        }
        if is_slide_title || self.styles.is_like(&paragraph.style, "Title") {
            return BlockKind::Heading { level: 1 };
        }
        match self.lists.is_open() {
            true => BlockKind::ListItem,
            false => BlockKind::Paragraph,
        }
    }

    fn is_in_cell(&self) -> bool {
        self.tables.last().is_some_and(Table::is_in_cell)
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
                self.builder.push(BlockKind::Paragraph, &cell, self.page);
            }
        }
        self.tables.push(Table::default());
    }

    fn open_cell(&mut self, element: &Element) {
        let span = |name: &str| element.attribute(name).and_then(|span| span.parse::<u32>().ok());
        let rows = span("number-rows-spanned").unwrap_or(1);
        let columns = usize::try_from(span("number-columns-spanned").unwrap_or(1)).unwrap_or(1);
        self.with_table(|table| table.open_cell(false, rows, columns));
    }

    fn close_row(&mut self) {
        if let Some(row) = self.tables.last_mut().and_then(Table::close_row) {
            self.builder
                .push(BlockKind::TableRow { header: row.header }, &row.text, self.page);
        }
    }

    fn flush_code(&mut self) {
        if !self.code.is_empty() {
            let listing = std::mem::take(&mut self.code).join("\n");
            self.builder.push(BlockKind::Code, &listing, self.page);
        }
    }
}
