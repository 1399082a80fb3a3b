//! The text of one slide, shape by shape in the order that a screen reader takes.

use std::io::BufRead;

use crate::extract::table::Table;
use crate::extract::xml::{Element, XmlEvent, XmlReader};
use crate::{BlockKind, ExtractError};

/// Placeholders that repeat on every slide.
const REPEATED: [&str; 5] = ["dt", "ftr", "sldNum", "hdr", "sldImg"];

/// The level of a slide's title.
const TITLE_LEVEL: u8 = 1;

/// The blocks of a slide, or `None` for one that is hidden.
pub(super) fn read_slide<R: BufRead>(
    mut reader: XmlReader<R>,
) -> Result<Option<Vec<(BlockKind, String)>>, ExtractError> {
    let mut slide = Slide::default();
    while let Some(event) = reader.next()? {
        match event {
            XmlEvent::Start(element) => match element.name() {
                "sld"
                    if element
                        .attribute("show")
                        .is_some_and(|show| matches!(show.as_str(), "0" | "false")) =>
                {
                    return Ok(None);
                }
                // The same shape for older programs, and what was put into a field by the program.
                "Fallback" => reader.skip_element()?,
                "fld" if element.attribute("type").is_some_and(|kind| kind == "slidenum") => {
                    reader.skip_element()?;
                }
                "t" => slide.characters(&reader.text_of_element()?),
                _ => slide.start(&element),
            },
            XmlEvent::End(name) => slide.end(&name),
            XmlEvent::Text(_) => {}
        }
    }
    Ok(Some(slide.into_blocks()))
}

#[derive(Debug, Default)]
struct Slide {
    title: Vec<String>,
    blocks: Vec<(BlockKind, String)>,
    shape: Shape,
    paragraph: Paragraph,
    table: Option<Table>,
}

#[derive(Debug, Default)]
struct Shape {
    /// The kind of placeholder; the empty one is the body of the slide.
    placeholder: Option<String>,
    is_hidden: bool,
}

#[derive(Debug, Default)]
struct Paragraph {
    text: String,
    level: u8,
    bullet: Option<bool>,
}

impl Slide {
    fn start(&mut self, element: &Element) {
        match element.name() {
            "sp" | "pic" | "graphicFrame" | "cxnSp" => self.shape = Shape::default(),
            "cNvPr" if element.has_flag("hidden") => self.shape.is_hidden = true,
            "ph" => {
                self.shape.placeholder = Some(element.attribute("type").unwrap_or_else(|| "obj".to_owned()));
            }
            "p" => self.paragraph = Paragraph::default(),
            "pPr" => {
                let level = element.attribute("lvl").and_then(|level| level.parse().ok());
                self.paragraph.level = level.unwrap_or(0);
            }
            "buNone" => self.paragraph.bullet = Some(false),
            "buChar" | "buAutoNum" | "buBlip" => self.paragraph.bullet = Some(true),
            "br" => self.characters("\n"),
            "tab" => self.characters("\t"),
            "tbl" => self.table = Some(Table::default()),
            "tr" => self.with_table(Table::open_row),
            "tc" => self.open_cell(element),
            _ => {}
        }
    }

    fn end(&mut self, name: &str) {
        match name {
            "p" => self.finish_paragraph(),
            "tc" => self.with_table(Table::close_cell),
            "tr" => {
                if let Some(row) = self.table.as_mut().and_then(Table::close_row)
                    && !self.shape.is_hidden
                {
                    self.blocks
                        .push((BlockKind::TableRow { header: row.header }, row.text));
                }
            }
            "tbl" => self.table = None,
            // A table and a picture have no text body of their own that could follow.
            "sp" | "pic" | "graphicFrame" | "cxnSp" => self.shape = Shape::default(),
            _ => {}
        }
    }

    fn characters(&mut self, text: &str) {
        self.paragraph.text.push_str(text);
    }

    fn with_table(&mut self, act: impl FnOnce(&mut Table)) {
        if let Some(table) = &mut self.table {
            act(table);
        }
    }

    fn open_cell(&mut self, element: &Element) {
        let span = |name: &str| element.attribute(name).and_then(|span| span.parse::<u32>().ok());
        let columns = usize::try_from(span("gridSpan").unwrap_or(1)).unwrap_or(1);
        // Cells that lie under a spanning one are there, empty.
        let continues_above = element.has_flag("vMerge");
        let continues_left = element.has_flag("hMerge");
        self.with_table(|table| {
            if continues_left {
                return;
            }
            table.open_cell(false, 1, columns);
            if continues_above {
                table.continue_cell_above();
            }
        });
    }

    fn finish_paragraph(&mut self) {
        let paragraph = std::mem::take(&mut self.paragraph);
        let is_repeated = self
            .shape
            .placeholder
            .as_deref()
            .is_some_and(|kind| REPEATED.contains(&kind));
        if self.shape.is_hidden || is_repeated || paragraph.text.trim().is_empty() {
            return;
        }
        if let Some(table) = self.table.as_mut().filter(|table| table.is_in_cell()) {
            table.add(&paragraph.text);
            return;
        }
        let kind = match self.shape.placeholder.as_deref() {
            Some("title" | "ctrTitle") => {
                self.title.push(paragraph.text);
                return;
            }
            Some("subTitle") => BlockKind::Paragraph,
            // The body of a slide is a list unless it says otherwise.
            Some("body" | "obj") if paragraph.bullet != Some(false) => BlockKind::ListItem,
            _ if paragraph.bullet == Some(true) || paragraph.level > 0 => BlockKind::ListItem,
            _ => BlockKind::Paragraph,
        };
        self.blocks.push((kind, paragraph.text));
    }

    /// The title comes first wherever its shape stands.
    fn into_blocks(self) -> Vec<(BlockKind, String)> {
        let title = self.title.join(" ");
        let heading = (BlockKind::Heading { level: TITLE_LEVEL }, title);
        let has_title = !heading.1.trim().is_empty();
        has_title
            .then_some(heading)
            .into_iter()
            .chain(self.blocks)
            .collect()
    }
}
