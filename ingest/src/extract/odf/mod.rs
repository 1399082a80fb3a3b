//! OpenDocument files (LibreOffice and others): texts, presentations and spreadsheets share one vocabulary in
//! `content.xml`. Deleted text, comments in texts, hidden parts and tables of contents are not read.

mod body;
mod cells;
mod lists;
mod styles;
#[cfg(test)]
mod tests;

use self::body::Body;
use self::cells::read_sheets;
use self::styles::Styles;
use super::package::{Package, join};
use super::scope::Scope;
use super::title::is_title;
use super::xml::XmlEvent;
use crate::document::DocumentBuilder;
use crate::{ExtractError, ExtractedDocument};

/// Embedded charts that are read.
const MAX_OBJECTS: usize = 200;

/// Reads a text document.
pub(crate) fn extract_text(bytes: &[u8], scope: &Scope<'_>) -> Result<ExtractedDocument, ExtractError> {
    extract(bytes, scope, false)
}

/// Reads a presentation, a page for each slide.
pub(crate) fn extract_presentation(
    bytes: &[u8],
    scope: &Scope<'_>,
) -> Result<ExtractedDocument, ExtractError> {
    extract(bytes, scope, true)
}

/// Reads the sheets of a spreadsheet.
pub(crate) fn extract_spreadsheet(
    bytes: &[u8],
    scope: &Scope<'_>,
) -> Result<ExtractedDocument, ExtractError> {
    let mut package = open(bytes, scope)?;
    let styles = Styles::read(&mut package)?;
    let mut builder = DocumentBuilder::new(scope.limits);
    describe(&mut package, &mut builder)?;
    builder.title.get_or_insert_default();
    let reader = package.xml("content.xml")?.ok_or_else(missing)?;
    read_sheets(reader, &styles, &mut builder)?;
    builder.finish()
}

fn extract(bytes: &[u8], scope: &Scope<'_>, is_paged: bool) -> Result<ExtractedDocument, ExtractError> {
    let mut package = open(bytes, scope)?;
    let styles = Styles::read(&mut package)?;
    let mut builder = DocumentBuilder::new(scope.limits);
    describe(&mut package, &mut builder)?;
    let mut body = Body::new(&mut builder, &styles, is_paged, scope.limits.max_pages);
    let reader = package.xml("content.xml")?.ok_or_else(missing)?;
    body.read(reader)?;
    let objects = body.finish();
    // Charts are documents of their own, with their figures in a table.
    for object in objects.iter().take(MAX_OBJECTS) {
        let part = join("", &format!("{object}/content.xml"));
        if let Some(reader) = package.xml(&part)? {
            let mut body = Body::new(&mut builder, &styles, false, scope.limits.max_pages);
            body.read(reader)?;
            body.finish();
        }
    }
    let mut pictures: Vec<String> = package.entries().into_iter().map(|(name, _)| name).collect();
    pictures.retain(|name| name.starts_with("Pictures/") || name.starts_with("Media/"));
    pictures.sort_unstable();
    for picture in pictures {
        package.put_medium(&picture, &mut builder);
    }
    builder.finish()
}

fn missing() -> ExtractError {
    ExtractError::damaged("its text is missing")
}

/// Opens the archive, unless its parts are encrypted.
fn open<'a>(bytes: &'a [u8], scope: &Scope<'a>) -> Result<Package<'a>, ExtractError> {
    let mut package = Package::open(bytes, scope)?;
    if let Some(mut reader) = package.xml("META-INF/manifest.xml")? {
        let mut reader_of_manifest = || -> Result<bool, ExtractError> {
            while let Some(event) = reader.next()? {
                if let XmlEvent::Start(element) = event
                    && element.name() == "encryption-data"
                {
                    return Ok(true);
                }
            }
            Ok(false)
        };
        // A manifest that does not parse says nothing.
        if reader_of_manifest().unwrap_or(false) {
            return Err(ExtractError::PasswordProtected);
        }
    }
    Ok(package)
}

/// Takes title, description and language from the properties.
fn describe(package: &mut Package<'_>, builder: &mut DocumentBuilder) -> Result<(), ExtractError> {
    let Some(mut reader) = package.xml("meta.xml")? else {
        return Ok(());
    };
    while let Some(event) = reader.next()? {
        let XmlEvent::Start(element) = event else { continue };
        let name = element.name().to_owned();
        if !matches!(name.as_str(), "title" | "description" | "language") {
            continue;
        }
        let value = reader.text_of_element()?;
        let is_given = !value.trim().is_empty() && (name != "title" || is_title(&value));
        let value = is_given.then(|| value.trim().to_owned());
        let place = match name.as_str() {
            "title" => &mut builder.title,
            "description" => &mut builder.metadata.description,
            _ => &mut builder.metadata.language,
        };
        *place = place.take().or(value);
    }
    Ok(())
}
