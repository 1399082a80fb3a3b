//! Word documents: a zip archive of XML parts, of which only those with text are opened.

mod body;
mod math;
pub(super) mod numbering;
mod pictures;
mod styles;
#[cfg(test)]
mod tests;

use self::body::{Notes, read_body, read_notes};
use self::numbering::Numbering;
use self::pictures::Pictures;
use self::styles::Styles;
use super::drawing::{read_chart, read_diagram};
use super::package::Package;
use super::scope::Scope;
use crate::document::DocumentBuilder;
use crate::{BlockKind, ExtractError, ExtractedDocument};

/// Where nearly every document has its text.
const USUAL_MAIN_PART: &str = "word/document.xml";

/// Reads the body with its notes; page headers, comments and deleted text are not part of it.
pub(crate) fn extract(bytes: &[u8], scope: &Scope<'_>) -> Result<ExtractedDocument, ExtractError> {
    let mut package = Package::open(bytes, scope)?;
    let main = package.main_part(USUAL_MAIN_PART)?;
    let depth = scope.limits.max_depth;
    let folder = main.rfind('/').map_or("", |slash| &main[..=slash]);

    let source = package
        .read(&main)?
        .ok_or_else(|| ExtractError::damaged("its text is missing"))?;
    let part = |package: &mut Package<'_>, name: &str| package.read(&format!("{folder}{name}"));
    let styles = match part(&mut package, "styles.xml")? {
        Some(source) => Styles::parse(&source, depth)?,
        None => Styles::default(),
    };
    let mut numbering = match part(&mut package, "numbering.xml")? {
        Some(source) => Numbering::parse(&source, depth)?,
        None => Numbering::default(),
    };
    let mut notes = Notes::default();
    if let Some(source) = part(&mut package, "footnotes.xml")? {
        notes.footnotes = read_notes(&source, &styles, depth)?;
    }
    if let Some(source) = part(&mut package, "endnotes.xml")? {
        notes.endnotes = read_notes(&source, &styles, depth)?;
    }

    let mut builder = DocumentBuilder::new(scope.limits);
    let pictures = package
        .relationships(&main)?
        .into_iter()
        .filter(|part| part.kind == "image")
        .map(|part| (part.id, part.target))
        .collect();
    let mut pictures = Pictures::new(&mut package, pictures);
    read_body(
        &source,
        &styles,
        &mut numbering,
        &notes,
        &mut pictures,
        depth,
        &mut builder,
    )?;
    read_graphics(&mut package, &main, &mut builder)?;
    package.describe(&mut builder)?;
    builder.finish()
}

/// Adds the figures of charts and the entries of diagrams, which are parts of their own.
fn read_graphics(
    package: &mut Package<'_>,
    main: &str,
    builder: &mut DocumentBuilder,
) -> Result<(), ExtractError> {
    for part in package.relationships(main)? {
        if !matches!(part.kind.as_str(), "chart" | "diagramData") {
            continue;
        }
        let Some(reader) = package.xml(&part.target)? else {
            continue;
        };
        if part.kind == "chart" {
            read_chart(reader, builder)?;
            continue;
        }
        for entry in read_diagram(reader)? {
            builder.push(BlockKind::ListItem, &entry, None);
        }
    }
    Ok(())
}
