//! Zip archives of parts, as office files and e-books are: parts by name, with one allowance for all that is
//! unpacked, and the relationships between parts. Nothing outside the package is ever followed.

use std::io::{BufReader, Cursor, Error, ErrorKind, Read};

use quick_xml::encoding::DecodingReader;
use zip::ZipArchive;
use zip::read::ZipFile;
use zip::result::ZipError;

use super::scope::Scope;
use super::text::decode_owned;
use super::title::is_title;
use super::xml::{XmlEvent, XmlReader};
use crate::ExtractError;
use crate::document::DocumentBuilder;

/// What one read from a streamed part asks for.
const READ_BYTES: usize = 64 << 10;

/// Where the end of the table of contents of an archive must begin, counted from its end.
const END_RECORD_WINDOW: usize = (64 << 10) + 22;

/// A part that is read while it is unpacked.
pub(super) type PartXml<'p, 'a> =
    XmlReader<DecodingReader<BufReader<Counted<'p, ZipFile<'p, Cursor<&'a [u8]>>>>>>;

/// The archive of one document.
pub(super) struct Package<'a> {
    archive: ZipArchive<Cursor<&'a [u8]>>,
    scope: Scope<'a>,
}

/// How one part refers to another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Relationship {
    pub(super) id: String,
    /// The last segment of the type's URI, such as `slide`.
    pub(super) kind: String,
    /// The full name of the part.
    pub(super) target: String,
}

impl<'a> Package<'a> {
    pub(super) fn open(bytes: &'a [u8], scope: &Scope<'a>) -> Result<Self, ExtractError> {
        let too_many = || ExtractError::too_large("its archive has too many entries");
        // The table of contents is read whole, so it is judged by what it says of itself first.
        if declared_entries(bytes) > u64::from(scope.limits.max_entries) {
            return Err(too_many());
        }
        let archive = ZipArchive::new(Cursor::new(bytes)).map_err(judge)?;
        if archive.len() > scope.limits.max_entries as usize {
            return Err(too_many());
        }
        Ok(Self {
            archive,
            scope: *scope,
        })
    }

    /// The names of all entries with their index, as far as they are text.
    pub(super) fn entries(&self) -> Vec<(String, usize)> {
        let names = self.archive.file_names().enumerate();
        names
            .filter_map(|(index, name)| Some((name.ok()?.into_owned(), index)))
            .collect()
    }

    /// The bytes of a part, or `None` if there is none of this name.
    pub(super) fn read_bytes(&mut self, name: &str) -> Result<Option<Vec<u8>>, ExtractError> {
        let Some(index) = self.archive.index_for_name(name) else {
            return Ok(None);
        };
        self.read_entry(index).map(|(_, bytes)| Some(bytes))
    }

    /// The name and the bytes of the entry at `index`.
    pub(super) fn read_entry(&mut self, index: usize) -> Result<(String, Vec<u8>), ExtractError> {
        let entry = self.archive.by_index(index).map_err(judge)?;
        let name = entry.name().map(|name| name.into_owned()).unwrap_or_default();
        if entry.is_dir() {
            return Ok((name, Vec::new()));
        }
        let mut bytes = Vec::new();
        Counted {
            inner: entry,
            scope: &self.scope,
        }
        .read_to_end(&mut bytes)
        .map_err(|error| judge_read(&error))?;
        Ok((name, bytes))
    }

    /// Puts a picture or a recording on the shelf, and its place into the text. What is needed of it is unpacked beside
    /// the allowance, which is for what we read ourselves.
    pub(super) fn put_medium(&mut self, name: &str, builder: &mut DocumentBuilder) {
        let shelf = self.scope.shelf;
        if shelf.is_full() {
            return;
        }
        let Some(index) = self.archive.index_for_name(name) else {
            return;
        };
        let Ok(entry) = self.archive.by_index(index) else {
            return;
        };
        let mut bytes = Vec::new();
        let needed = shelf.needed_bytes() as u64;
        // One that is broken says so by what it is taken for.
        let _ = entry.take(needed).read_to_end(&mut bytes);
        let shown = name.rsplit('/').next().unwrap_or(name);
        shelf.put(shown, &bytes, builder);
    }

    /// The text of a part, or `None` if there is none of this name.
    pub(super) fn read(&mut self, name: &str) -> Result<Option<String>, ExtractError> {
        self.read_bytes(name)?
            .map(|bytes| decode_owned(bytes, self.scope.limits))
            .transpose()
    }

    /// A part as XML, unpacked while it is read.
    pub(super) fn xml(&mut self, name: &str) -> Result<Option<PartXml<'_, 'a>>, ExtractError> {
        let Some(index) = self.archive.index_for_name(name) else {
            return Ok(None);
        };
        let counted = Counted {
            inner: self.archive.by_index(index).map_err(judge)?,
            scope: &self.scope,
        };
        let decoded = DecodingReader::new(BufReader::with_capacity(READ_BYTES, counted));
        Ok(Some(XmlReader::of(decoded, self.scope.limits.max_depth)))
    }

    /// What `part` refers to inside the package, by the table that stands beside it.
    pub(super) fn relationships(&mut self, part: &str) -> Result<Vec<Relationship>, ExtractError> {
        let (folder, file) = part.rsplit_once('/').unwrap_or(("", part));
        let table = join(folder, &format!("_rels/{file}.rels"));
        let Some(mut reader) = self.xml(&table)? else {
            return Ok(Vec::new());
        };
        let mut found = Vec::new();
        while let Some(event) = reader.next()? {
            let XmlEvent::Start(element) = event else { continue };
            let is_external = element
                .attribute("TargetMode")
                .is_some_and(|mode| mode.eq_ignore_ascii_case("external"));
            if element.name() != "Relationship" || is_external {
                continue;
            }
            let kind = element.attribute("Type").unwrap_or_default();
            found.push(Relationship {
                id: element.attribute("Id").unwrap_or_default(),
                kind: kind.rsplit('/').next().unwrap_or_default().to_owned(),
                target: join(folder, &element.attribute("Target").unwrap_or_default()),
            });
        }
        Ok(found)
    }

    /// The name of the part with the body, by the package's own table of contents.
    pub(super) fn main_part(&mut self, usual: &str) -> Result<String, ExtractError> {
        let main = self
            .relationships("")?
            .into_iter()
            .find(|found| found.kind == "officeDocument");
        Ok(main.map_or_else(|| usual.to_owned(), |found| found.target))
    }

    /// Takes title, description and language from the properties of an Office file.
    pub(super) fn describe(&mut self, builder: &mut DocumentBuilder) -> Result<(), ExtractError> {
        let Some(mut reader) = self.xml("docProps/core.xml")? else {
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
}

/// `path` as it is meant inside `folder`. Steps upwards end at the root of the package.
pub(super) fn join(folder: &str, path: &str) -> String {
    let base = if path.starts_with('/') { "" } else { folder };
    let mut steps: Vec<&str> = Vec::new();
    for step in base.split('/').chain(path.split('/')) {
        match step {
            "" | "." => {}
            ".." => {
                steps.pop();
            }
            step => steps.push(step),
        }
    }
    steps.join("/")
}

/// The number of entries that the end of an archive declares.
pub(crate) fn declared_entries(bytes: &[u8]) -> u64 {
    let number = |at: usize, width: usize| -> Option<u64> {
        let field = bytes.get(at..at.checked_add(width)?)?;
        Some(
            field
                .iter()
                .rev()
                .fold(0, |number, byte| number << 8 | u64::from(*byte)),
        )
    };
    let from = bytes.len().saturating_sub(END_RECORD_WINDOW);
    let Some(end) = bytes[from..]
        .windows(4)
        .rposition(|window| window == b"PK\x05\x06")
    else {
        return 0;
    };
    let short = number(from + end + 10, 2).unwrap_or(0);
    if short < 0xffff {
        return short;
    }
    // The long form stands right before, behind a locator of 20 bytes.
    let head = &bytes[..from + end];
    let near = head.len().saturating_sub(END_RECORD_WINDOW);
    head[near..]
        .windows(4)
        .rposition(|window| window == b"PK\x06\x06")
        .and_then(|long| number(near + long + 32, 8))
        .unwrap_or(u64::MAX)
}

/// Counts what comes out, whatever size the archive declares.
pub(super) struct Counted<'s, R> {
    inner: R,
    scope: &'s Scope<'s>,
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.inner.read(buffer)?;
        if !self.scope.spend(count as u64) {
            return Err(Error::from(ErrorKind::FileTooLarge));
        }
        Ok(count)
    }
}

pub(super) fn judge_read(error: &Error) -> ExtractError {
    match error.kind() {
        ErrorKind::FileTooLarge => ExtractError::too_large("it unpacks to too much data"),
        _ => ExtractError::damaged("its archive is broken"),
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

/// An archive with these members, for the tests of what is packed so.
#[cfg(test)]
pub(super) fn pack(members: &[(&str, &str)]) -> Vec<u8> {
    use std::io::Write;

    let mut writer = zip::ZipWriter::new(Cursor::new(Vec::new()));
    for (name, content) in members {
        let options = zip::write::SimpleFileOptions::default();
        writer.start_file(*name, options).expect("a new entry");
        writer.write_all(content.as_bytes()).expect("written to memory");
    }
    writer.finish().expect("a whole archive").into_inner()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_found_from_the_folder_of_the_part_and_never_leave_the_package() {
        assert_eq!(join("ppt/slides", "../notes/n1.xml"), "ppt/notes/n1.xml");
        assert_eq!(join("ppt", "/xl/workbook.xml"), "xl/workbook.xml");
        assert_eq!(join("a", "../../../etc/passwd"), "etc/passwd");
    }
}
