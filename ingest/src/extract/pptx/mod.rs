//! PowerPoint presentations: every visible slide is a page with its title as heading, its notes at its end.

mod slide;
#[cfg(test)]
mod tests;

use std::collections::HashSet;

use self::slide::read_slide;
use super::drawing::{read_chart, read_diagram};
use super::package::Package;
use super::scope::Scope;
use super::xml::XmlEvent;
use crate::document::DocumentBuilder;
use crate::{BlockKind, ExtractError, ExtractedDocument};

/// Where nearly every presentation has its table of slides.
const USUAL_MAIN_PART: &str = "ppt/presentation.xml";

/// Reads the slides in the order in which they are shown.
pub(crate) fn extract(bytes: &[u8], scope: &Scope<'_>) -> Result<ExtractedDocument, ExtractError> {
    let mut package = Package::open(bytes, scope)?;
    let main = package.main_part(USUAL_MAIN_PART)?;
    let order = slide_ids(&mut package, &main)?;
    if order.len() > scope.limits.max_pages as usize {
        return Err(ExtractError::too_large("too many slides"));
    }
    let parts = package.relationships(&main)?;
    let mut builder = DocumentBuilder::new(scope.limits);
    package.describe(&mut builder)?;
    // A logo is the same part on every slide.
    let mut seen = HashSet::new();
    for (position, id) in order.iter().enumerate() {
        let part = parts.iter().find(|part| part.kind == "slide" && part.id == *id);
        if let Some(part) = part {
            let page = u32::try_from(position + 1).ok();
            builder.page = page;
            read_page(&mut package, &part.target, &mut seen, &mut builder)?;
        }
        if builder.is_full() {
            break;
        }
    }
    builder.page_count = u32::try_from(order.len()).ok();
    builder.finish()
}

fn slide_ids(package: &mut Package<'_>, main: &str) -> Result<Vec<String>, ExtractError> {
    let mut reader = package
        .xml(main)?
        .ok_or_else(|| ExtractError::damaged("its table of slides is missing"))?;
    let mut ids = Vec::new();
    while let Some(event) = reader.next()? {
        if let XmlEvent::Start(element) = event
            && element.name() == "sldId"
        {
            ids.extend(element.reference("id"));
        }
    }
    Ok(ids)
}

fn read_page(
    package: &mut Package<'_>,
    part: &str,
    seen: &mut HashSet<String>,
    builder: &mut DocumentBuilder,
) -> Result<(), ExtractError> {
    let Some(reader) = package.xml(part)? else {
        return Ok(());
    };
    let Some(blocks) = read_slide(reader)? else {
        return Ok(());
    };
    for (kind, text) in blocks {
        builder.push(kind, &text, None);
    }
    for beside in package.relationships(part)? {
        match beside.kind.as_str() {
            "chart" => {
                if let Some(reader) = package.xml(&beside.target)? {
                    read_chart(reader, builder)?;
                }
            }
            "diagramData" => {
                if let Some(reader) = package.xml(&beside.target)? {
                    for entry in read_diagram(reader)? {
                        builder.push(BlockKind::ListItem, &entry, None);
                    }
                }
            }
            "image" | "audio" | "video" if seen.insert(beside.target.clone()) => {
                package.put_medium(&beside.target, builder);
            }
            "notesSlide" => {
                let notes = match package.xml(&beside.target)? {
                    Some(reader) => read_slide(reader)?.unwrap_or_default(),
                    None => Vec::new(),
                };
                for (_, text) in notes {
                    builder.push(BlockKind::Paragraph, &text, None);
                }
            }
            _ => {}
        }
    }
    Ok(())
}
