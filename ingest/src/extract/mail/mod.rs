//! Mails: who wrote to whom when, the text with what it quotes, and the attachments by their own formats.

mod eml;
mod msg;
#[cfg(test)]
mod tests;

use super::html::read_fragment;
use super::inside::Inside;
use super::scope::Scope;
use super::text::write_paragraphs;
use crate::document::DocumentBuilder;
use crate::{BlockKind, ExtractError, ExtractedDocument};

/// The level of the subject; names of attachments stand one below.
const SUBJECT_LEVEL: u8 = 1;

/// Reads a mail as it is sent.
pub(crate) fn extract_eml(bytes: &[u8], scope: &Scope<'_>) -> Result<ExtractedDocument, ExtractError> {
    write(eml::read(bytes)?, scope)
}

/// Reads a mail as Outlook stores it.
pub(crate) fn extract_msg(bytes: &[u8], scope: &Scope<'_>) -> Result<ExtractedDocument, ExtractError> {
    write(msg::read(bytes, scope)?, scope)
}

/// What is shown of a mail.
#[derive(Debug, Default)]
struct Letter {
    subject: String,
    from: String,
    to: String,
    cc: String,
    /// RFC 3339.
    date: Option<String>,
    bodies: Vec<Body>,
    attachments: Vec<Attachment>,
}

#[derive(Debug)]
enum Body {
    Plain(String),
    Html(String),
}

#[derive(Debug)]
struct Attachment {
    name: String,
    bytes: Vec<u8>,
    /// A picture of the text, such as a logo.
    is_picture: bool,
}

fn write(letter: Letter, scope: &Scope<'_>) -> Result<ExtractedDocument, ExtractError> {
    let mut builder = DocumentBuilder::new(scope.limits);
    builder.title = Some(letter.subject.clone());
    builder.metadata.published_at = letter.date.as_deref().and_then(in_utc);
    let level = SUBJECT_LEVEL;
    builder.push(BlockKind::Heading { level }, &letter.subject, None);
    let head = [
        ("From", letter.from.as_str()),
        ("To", letter.to.as_str()),
        ("Cc", letter.cc.as_str()),
        ("Date", letter.date.as_deref().unwrap_or_default()),
    ];
    let lines: Vec<String> = head
        .iter()
        .filter(|(_, value)| !value.trim().is_empty())
        .map(|(name, value)| format!("{name}: {}", value.trim()))
        .collect();
    builder.push(BlockKind::Paragraph, &lines.join("\n"), None);
    for body in &letter.bodies {
        match body {
            Body::Plain(text) => write_paragraphs(text, &mut builder),
            Body::Html(page) => builder = read_fragment(page, builder, scope.limits)?,
        }
    }
    let mut inside = Inside::default();
    for attachment in &letter.attachments {
        // Logos and photographs stand in the text without a name to speak of.
        if attachment.is_picture {
            scope.shelf.put(&attachment.name, &attachment.bytes, &mut builder);
            continue;
        }
        if !scope.spend(attachment.bytes.len() as u64) {
            inside.skip(
                &attachment.name,
                ExtractError::too_large("it unpacks to too much data"),
            );
            continue;
        }
        inside.add(
            &attachment.name,
            &attachment.bytes,
            level + 1,
            scope,
            &mut builder,
        );
    }
    inside.name_unread(&mut builder);
    builder.finish()
}

/// The metadata of all formats is in UTC; the text shows the time of the writer.
fn in_utc(date: &str) -> Option<String> {
    let date = chrono::DateTime::parse_from_rfc3339(date).ok()?;
    Some(date.to_utc().to_rfc3339_opts(chrono::SecondsFormat::Secs, true))
}
