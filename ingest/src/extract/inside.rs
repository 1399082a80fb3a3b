//! Documents inside a document: members of an archive, attachments of a mail. Each is read by its own format
//! and stands under a heading with its name; one that cannot be read is named at the end and fails nothing else.

use super::media::Place;
use super::read;
use super::scope::Scope;
use crate::document::{DocumentBuilder, LeftOutReason, one_line, shorten};
use crate::{BlockKind, ExtractError, ExtractedDocument, Format, Hints};

/// Innermost level of headings.
const MAX_LEVEL: u8 = 6;

/// Unread documents that are named.
const MAX_NAMED: usize = 50;

const MAX_NAME_CHARS: usize = 120;

/// Collects what is inside one document.
#[derive(Debug, Default)]
pub(super) struct Inside {
    read: usize,
    unread: Vec<String>,
    /// More of them than are named.
    unnamed: usize,
    first_error: Option<ExtractError>,
}

impl Inside {
    /// Reads one document and adds it under a heading of `level`.
    pub(super) fn add(
        &mut self,
        name: &str,
        bytes: &[u8],
        level: u8,
        scope: &Scope<'_>,
        builder: &mut DocumentBuilder,
    ) {
        let name = shorten(&one_line(name), MAX_NAME_CHARS);
        let hints = Hints::named(&name);
        if let Ok(format @ (Format::Picture | Format::Recording)) = Format::detect(bytes, &name) {
            return self.add_medium(&name, format, bytes, level, scope, builder);
        }
        let outcome = match scope.inside(&hints) {
            None => Err(ExtractError::too_large("documents are nested too deeply")),
            Some(inner) => Format::detect(bytes, &name).and_then(|format| read(bytes, format, &inner)),
        };
        match outcome {
            Ok(document) if document.blocks.is_empty() => {
                self.skip(&name, ExtractError::NoText { scanned: false });
            }
            Ok(document) => {
                self.read += 1;
                builder.push(BlockKind::Heading { level }, &name, None);
                append(&document, level, builder);
            }
            Err(error) => self.skip(&name, error),
        }
    }

    /// Leaves the place of a picture or a recording, which others read.
    fn add_medium(
        &mut self,
        name: &str,
        format: Format,
        bytes: &[u8],
        level: u8,
        scope: &Scope<'_>,
        builder: &mut DocumentBuilder,
    ) {
        match scope.shelf.take(format, bytes, Some(level)) {
            Place::Block(kind) => {
                self.read += 1;
                builder.push(kind, name, None);
            }
            Place::Nothing => self.note(
                name,
                "a picture too small for words",
                ExtractError::unread(format),
            ),
            Place::LeftOut(LeftOutReason::TooMany) => {
                self.note(name, "more than are read", ExtractError::unread(format));
            }
            Place::LeftOut(_) if format == Format::Picture => {
                self.note(
                    name,
                    "a picture, which nobody is set up to read",
                    ExtractError::unread(format),
                );
            }
            Place::LeftOut(_) => {
                self.note(
                    name,
                    "a recording, which nobody is set up to hear",
                    ExtractError::unread(format),
                );
            }
        }
    }

    /// Notes that the document `name` is not read.
    pub(super) fn skip(&mut self, name: &str, error: ExtractError) {
        self.note(name, reason(&error), error);
    }

    fn note(&mut self, name: &str, reason: &str, error: ExtractError) {
        if self.unread.len() < MAX_NAMED {
            let name = shorten(&one_line(name), MAX_NAME_CHARS);
            self.unread.push(format!("{name} ({reason})"));
        } else {
            self.unnamed += 1;
        }
        self.first_error.get_or_insert(error);
    }

    /// Names what was not read. `Err` with the first reason when nothing was.
    pub(super) fn finish(mut self, builder: &mut DocumentBuilder) -> Result<(), ExtractError> {
        if let Some(error) = self.first_error.take_if(|_| self.read == 0) {
            return Err(error);
        }
        self.name_unread(builder);
        Ok(())
    }

    pub(super) fn name_unread(self, builder: &mut DocumentBuilder) {
        if self.unread.is_empty() {
            return;
        }
        let more = match self.unnamed {
            0 => String::new(),
            count => format!(" and {count} more"),
        };
        let note = format!("Not read: {}{more}.", self.unread.join(", "));
        builder.push(BlockKind::Paragraph, &note, None);
    }
}

fn reason(error: &ExtractError) -> &'static str {
    match error {
        ExtractError::EmptyFile => "empty",
        ExtractError::UnsupportedType { .. } => "file type not supported",
        ExtractError::NoText { .. } => "no text in it",
        ExtractError::PasswordProtected => "protected with a password",
        ExtractError::Damaged { .. } => "damaged",
        _ => "too large",
    }
}

/// Adds the blocks of `document`, its headings below `level`. Pages of a part say nothing about the whole.
fn append(document: &ExtractedDocument, level: u8, builder: &mut DocumentBuilder) {
    let mut rest = document.text.as_str();
    let mut at = 0;
    for block in &document.blocks {
        let from = byte_of(rest, block.start - at);
        let to = from + byte_of(&rest[from..], block.end - block.start);
        let kind = match &block.kind {
            BlockKind::Heading { level: inner } => BlockKind::Heading {
                level: inner.saturating_add(level).min(MAX_LEVEL),
            },
            kind => kind.clone(),
        };
        builder.push(kind, &rest[from..to], None);
        rest = &rest[to..];
        at = block.end;
        if builder.is_full() {
            break;
        }
    }
}

/// The byte offset of the character at `char`.
fn byte_of(text: &str, char: usize) -> usize {
    text.char_indices()
        .nth(char)
        .map_or(text.len(), |(offset, _)| offset)
}
