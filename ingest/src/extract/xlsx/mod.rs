//! Excel workbooks: what their visible sheets show, with cached values of formulas, notes on cells, text boxes
//! and the figures of charts. Hidden sheets, rows and columns are not read.

mod number;
mod strings;
#[cfg(test)]
mod tests;
mod worksheet;

use self::number::Formats;
use self::strings::SharedStrings;
use self::worksheet::read_worksheet;
use super::drawing::{read_chart, read_drawing};
use super::package::{Package, Relationship};
use super::scope::Scope;
use super::sheet::SheetWriter;
use super::xml::XmlEvent;
use crate::document::DocumentBuilder;
use crate::{ExtractError, ExtractedDocument};

/// Where nearly every workbook has its table of sheets.
const USUAL_MAIN_PART: &str = "xl/workbook.xml";

/// What Excel puts in the old kind of note for programs that do not know threads.
const THREAD_STAND_IN: &str = "[Threaded comment]";

/// Reads the sheets in the order of their tabs.
pub(crate) fn extract(bytes: &[u8], scope: &Scope<'_>) -> Result<ExtractedDocument, ExtractError> {
    let mut package = Package::open(bytes, scope)?;
    let main = package.main_part(USUAL_MAIN_PART)?;
    let workbook = Workbook::read(&mut package, &main)?;
    let parts = package.relationships(&main)?;
    let strings = match part_of(&parts, "sharedStrings") {
        Some(part) => SharedStrings::read(&mut package, part)?,
        None => SharedStrings::default(),
    };
    let formats = match part_of(&parts, "styles") {
        Some(part) => Formats::read(&mut package, part, workbook.counts_from_1904)?,
        None => Formats::default(),
    };

    let mut builder = DocumentBuilder::new(scope.limits);
    // Of the many names in a workbook none is a title, unless its properties give one.
    package.describe(&mut builder)?;
    builder.title.get_or_insert_default();
    for sheet in workbook.sheets.iter().filter(|sheet| !sheet.is_hidden) {
        let Some(part) = parts.iter().find(|part| part.id == sheet.part_id) else {
            continue;
        };
        read_sheet(&mut package, sheet, part, &strings, &formats, &mut builder)?;
        if builder.is_full() {
            break;
        }
    }
    builder.finish()
}

fn part_of<'p>(parts: &'p [Relationship], kind: &str) -> Option<&'p str> {
    parts
        .iter()
        .find(|part| part.kind == kind)
        .map(|part| part.target.as_str())
}

fn read_sheet(
    package: &mut Package<'_>,
    sheet: &Sheet,
    part: &Relationship,
    strings: &SharedStrings,
    formats: &Formats,
    builder: &mut DocumentBuilder,
) -> Result<(), ExtractError> {
    if part.kind == "worksheet"
        && let Some(reader) = package.xml(&part.target)?
    {
        let writer = SheetWriter::new(&sheet.name, builder);
        read_worksheet(reader, writer, strings, formats)?;
    }
    let beside = package.relationships(&part.target)?;
    for drawing in beside.iter().filter(|part| part.kind == "drawing") {
        if let Some(reader) = package.xml(&drawing.target)? {
            read_drawing(reader, builder)?;
        }
        for chart in package.relationships(&drawing.target)? {
            if chart.kind == "chart"
                && let Some(reader) = package.xml(&chart.target)?
            {
                read_chart(reader, builder)?;
            }
        }
    }
    for notes in &beside {
        let element = match notes.kind.as_str() {
            "comments" => "comment",
            "threadedComment" => "threadedComment",
            _ => continue,
        };
        read_notes(package, &notes.target, element, builder)?;
    }
    Ok(())
}

/// Adds the notes on cells, each with the cell that it stands at.
fn read_notes(
    package: &mut Package<'_>,
    part: &str,
    element_name: &str,
    builder: &mut DocumentBuilder,
) -> Result<(), ExtractError> {
    let Some(mut reader) = package.xml(part)? else {
        return Ok(());
    };
    while let Some(event) = reader.next()? {
        let XmlEvent::Start(element) = event else { continue };
        if element.name() != element_name {
            continue;
        }
        let cell = element.attribute("ref").unwrap_or_default();
        let text = reader.text_of_element()?;
        if !text.trim().is_empty() && !text.trim_start().starts_with(THREAD_STAND_IN) {
            SheetWriter::push(builder, &format!("{cell}: {}", text.trim()));
        }
    }
    Ok(())
}

/// What the table of sheets says.
struct Workbook {
    sheets: Vec<Sheet>,
    /// Days are counted from 1904, as old Macintosh versions did.
    counts_from_1904: bool,
}

struct Sheet {
    name: String,
    part_id: String,
    is_hidden: bool,
}

impl Workbook {
    fn read(package: &mut Package<'_>, main: &str) -> Result<Self, ExtractError> {
        let mut reader = package
            .xml(main)?
            .ok_or_else(|| ExtractError::damaged("its table of sheets is missing"))?;
        let mut workbook = Self {
            sheets: Vec::new(),
            counts_from_1904: false,
        };
        while let Some(event) = reader.next()? {
            let XmlEvent::Start(element) = event else { continue };
            match element.name() {
                "workbookPr" => workbook.counts_from_1904 = element.has_flag("date1904"),
                "sheet" => workbook.sheets.push(Sheet {
                    name: element.attribute("name").unwrap_or_default(),
                    part_id: element.reference("id").unwrap_or_default(),
                    is_hidden: element.attribute("state").is_some_and(|state| state != "visible"),
                }),
                _ => {}
            }
        }
        Ok(workbook)
    }
}
