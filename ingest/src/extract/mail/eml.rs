//! Mails in the form in which they travel (RFC 5322, MIME).

use std::borrow::Cow;

use chardetng::{EncodingDetector, Iso2022JpDetection, Utf8Detection};
use mail_parser::{Address, MessageParser, MessagePart, MimeHeaders, PartType};

use super::{Attachment, Body, Letter};
use crate::ExtractError;

/// Mails within mails. The parser nests them, so their number bounds how deep it goes.
const MAX_NESTED_MAILS: usize = 500;

/// Types whose parts are mails.
const NESTING_TYPES: [&[u8]; 3] = [b"message/rfc822", b"message/global", b"multipart/digest"];

pub(super) fn read(bytes: &[u8]) -> Result<Letter, ExtractError> {
    if nested_mails(bytes) > MAX_NESTED_MAILS {
        return Err(ExtractError::too_large("mails are nested too deeply"));
    }
    let readable = with_readable_header(bytes);
    let mail = MessageParser::default()
        .parse(readable.as_ref())
        .ok_or_else(|| ExtractError::damaged("its header is missing"))?;
    let bodies = mail
        .text_body
        .iter()
        .filter_map(|id| mail.parts.get(*id as usize))
        .filter_map(|part| match &part.body {
            PartType::Text(text) => Some(Body::Plain(text.to_string())),
            PartType::Html(page) => Some(Body::Html(page.to_string())),
            _ => None,
        })
        .collect();
    Ok(Letter {
        subject: mail.subject().unwrap_or_default().to_owned(),
        from: mail.from().map(names).unwrap_or_default(),
        to: mail.to().map(names).unwrap_or_default(),
        cc: mail.cc().map(names).unwrap_or_default(),
        date: mail
            .date()
            .filter(|date| date.is_valid())
            .map(|date| date.to_rfc3339()),
        bodies,
        attachments: mail.attachments().map(attachment).collect(),
    })
}

/// Old programs wrote names and subjects as the bytes of some character set, without a word about which: it is told
/// from the bytes.
fn with_readable_header(bytes: &[u8]) -> Cow<'_, [u8]> {
    let end = bytes
        .windows(2)
        .enumerate()
        .find(|(at, pair)| *pair == b"\n\n" || (*pair == b"\n\r" && bytes.get(at + 2) == Some(&b'\n')))
        .map_or(bytes.len(), |(at, _)| at);
    let (header, rest) = bytes.split_at(end);
    if std::str::from_utf8(header).is_ok() {
        return Cow::Borrowed(bytes);
    }
    let mut detector = EncodingDetector::new(Iso2022JpDetection::Deny);
    detector.feed(header, true);
    let (header, _) = detector
        .guess(None, Utf8Detection::Deny)
        .decode_without_bom_handling(header);
    Cow::Owned([header.as_bytes(), rest].concat())
}

/// How many mails may be nested, at most.
fn nested_mails(bytes: &[u8]) -> usize {
    let slashes = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'/');
    slashes
        .filter(|(at, _)| {
            NESTING_TYPES.iter().any(|kind| {
                let before = kind.iter().position(|byte| *byte == b'/').unwrap_or(0);
                at.checked_sub(before)
                    .and_then(|start| bytes.get(start..start + kind.len()))
                    .is_some_and(|found| found.eq_ignore_ascii_case(kind))
            })
        })
        .count()
}

fn names(address: &Address<'_>) -> String {
    let one = |name: Option<&str>, address: Option<&str>| match (name, address) {
        (Some(name), Some(address)) if name != address => format!("{name} <{address}>"),
        (name, address) => address.or(name).unwrap_or_default().to_owned(),
    };
    let all: Vec<String> = address
        .iter()
        .map(|addr| one(addr.name(), addr.address()))
        .collect();
    all.join(", ")
}

fn attachment(part: &MessagePart<'_>) -> Attachment {
    let is_mail = matches!(part.body, PartType::Message(_));
    let fallback = if is_mail { "mail.eml" } else { "attachment" };
    Attachment {
        name: part.attachment_name().unwrap_or(fallback).to_owned(),
        bytes: part.contents().to_vec(),
        is_picture: part
            .content_type()
            .is_some_and(|kind| kind.ctype().eq_ignore_ascii_case("image")),
    }
}
