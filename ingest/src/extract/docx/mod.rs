//! Word documents: a zip archive of XML parts, of which only those with text are opened.

mod body;
mod math;
mod numbering;
mod styles;
#[cfg(test)]
mod tests;
mod xml;

use std::io::{Cursor, Read};

use zip::ZipArchive;
use zip::result::ZipError;

use self::body::{Notes, read_body, read_notes};
use self::numbering::Numbering;
use self::styles::Styles;
use self::xml::{XmlEvent, XmlReader};
use super::text::decode;
use crate::document::DocumentBuilder;
use crate::{ExtractError, ExtractedDocument, Limits};

/// Where nearly every document has its text.
const USUAL_MAIN_PART: &str = "word/document.xml";

/// Reads the body with its notes; page headers, comments and deleted text are not part of it.
pub(crate) fn extract(bytes: &[u8], limits: &Limits) -> Result<ExtractedDocument, ExtractError> {
    let mut package = Package::open(bytes, limits)?;
    let main = package.main_part()?;
    let depth = limits.max_depth;
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

    let mut builder = DocumentBuilder::new(limits);
    read_body(&source, &styles, &mut numbering, &notes, depth, &mut builder)?;
    if builder.title.is_none() {
        builder.title = package.title()?;
    }
    builder.finish()
}

/// The archive, with one allowance for all that is unpacked from it.
struct Package<'a> {
    archive: ZipArchive<Cursor<&'a [u8]>>,
    limits: &'a Limits,
    packed_bytes: u64,
    unpacked_bytes: u64,
}

impl<'a> Package<'a> {
    fn open(bytes: &'a [u8], limits: &'a Limits) -> Result<Self, ExtractError> {
        let archive = ZipArchive::new(Cursor::new(bytes)).map_err(judge)?;
        if archive.len() > limits.max_entries as usize {
            return Err(ExtractError::too_large("its archive has too many entries"));
        }
        Ok(Self {
            archive,
            limits,
            packed_bytes: bytes.len() as u64,
            unpacked_bytes: 0,
        })
    }

    /// The text of a part, or `None` if there is none of this name.
    fn read(&mut self, name: &str) -> Result<Option<String>, ExtractError> {
        // The declared size is a claim; what comes out is counted.
        let allowed = self
            .limits
            .max_unpacked(self.packed_bytes)
            .saturating_sub(self.unpacked_bytes);
        let mut entry = match self.archive.by_name(name) {
            Ok(entry) => entry,
            Err(ZipError::FileNotFound) => return Ok(None),
            Err(error) => return Err(judge(error)),
        };
        let mut bytes = Vec::new();
        entry
            .by_ref()
            .take(allowed + 1)
            .read_to_end(&mut bytes)
            .map_err(|_| ExtractError::damaged("its archive is broken"))?;
        self.unpacked_bytes += bytes.len() as u64;
        if bytes.len() as u64 > allowed {
            return Err(ExtractError::too_large("it unpacks to too much data"));
        }
        decode(&bytes, None, self.limits).map(Some)
    }

    /// The name of the part with the body, by the package's own table of contents.
    fn main_part(&mut self) -> Result<String, ExtractError> {
        let Some(source) = self.read("_rels/.rels")? else {
            return Ok(USUAL_MAIN_PART.to_owned());
        };
        let mut reader = XmlReader::new(&source, self.limits.max_depth);
        while let Some(event) = reader.next()? {
            let XmlEvent::Start(element) = event else { continue };
            let kind = element.attribute("Type").unwrap_or_default();
            // A part outside the package is never followed.
            let is_external = element
                .attribute("TargetMode")
                .is_some_and(|mode| mode == "External");
            if kind.ends_with("/officeDocument") && !is_external {
                let target = element.attribute("Target").unwrap_or_default();
                return Ok(target.trim_start_matches('/').to_owned());
            }
        }
        Ok(USUAL_MAIN_PART.to_owned())
    }

    /// The title in the document's properties.
    fn title(&mut self) -> Result<Option<String>, ExtractError> {
        let Some(source) = self.read("docProps/core.xml")? else {
            return Ok(None);
        };
        let mut reader = XmlReader::new(&source, self.limits.max_depth);
        let mut title: Option<String> = None;
        let mut in_title = false;
        while let Some(event) = reader.next()? {
            match event {
                XmlEvent::Start(element) => in_title = element.name() == "title",
                XmlEvent::End(_) => in_title = false,
                XmlEvent::Text(text) if in_title => title.get_or_insert_default().push_str(&text),
                XmlEvent::Text(_) => {}
            }
        }
        Ok(title.filter(|title| !title.trim().is_empty()))
    }
}

fn judge(error: ZipError) -> ExtractError {
    match error {
        ZipError::UnsupportedArchive(ZipError::PASSWORD_REQUIRED) | ZipError::InvalidPassword => {
            ExtractError::PasswordProtected
        }
        _ => ExtractError::damaged("its archive is broken"),
    }
}
