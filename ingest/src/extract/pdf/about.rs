//! What a document says about itself: title, language, subject and date, from its properties and its metadata
//! stream (XMP), which newer programs write instead.

use lopdf::Document;
use quick_xml::Reader;
use quick_xml::events::Event;

use super::objects::{dict_in, resolve_in, text_in};
use crate::Metadata;
use crate::extract::title::is_title;

/// Metadata streams are a few kilobytes; some programs keep their history in them.
const MAX_XMP_BYTES: usize = 1 << 20;

const MAX_DESCRIPTION_CHARS: usize = 1_000;

/// Title, if a person gave it, and the rest.
pub(super) fn about(document: &Document) -> (Option<String>, Metadata) {
    let info = dict_in(document, &document.trailer, b"Info");
    let xmp = Xmp::of(document).unwrap_or_default();
    let property = |key: &[u8]| info.and_then(|info| text_in(document, info, key));
    let title = property(b"Title")
        .filter(|title| is_title(title))
        .or_else(|| xmp.title.filter(|title| is_title(title)));
    let language = document
        .catalog()
        .ok()
        .and_then(|catalog| text_in(document, catalog, b"Lang"))
        .or(xmp.language)
        .map(|language| language.trim().to_owned())
        .filter(|language| is_language(language));
    let description = property(b"Subject")
        .or(xmp.description)
        .map(|text| text.split_whitespace().collect::<Vec<_>>().join(" "))
        .filter(|text| !text.is_empty() && text.chars().count() <= MAX_DESCRIPTION_CHARS);
    let published_at = property(b"CreationDate")
        .as_deref()
        .and_then(date)
        .or_else(|| xmp.created.as_deref().and_then(date));
    let metadata = Metadata {
        language,
        description,
        published_at,
        ..Metadata::default()
    };
    (title, metadata)
}

/// The shape of a BCP 47 tag.
fn is_language(tag: &str) -> bool {
    let mut parts = tag.split('-');
    let is_main = |part: &str| (2..=3).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_alphabetic());
    parts.next().is_some_and(is_main)
        && parts.all(|part| (1..=8).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_alphanumeric()))
        && tag.len() <= 35
}

/// The day in `D:20260131120000+01'00'` or `2026-01-31T12:00:00Z`. Its hour would need the zone, which many
/// programs write wrongly.
fn date(text: &str) -> Option<String> {
    let text = text.trim();
    let digits: Vec<u32> = text
        .strip_prefix("D:")
        .unwrap_or(text)
        .chars()
        .filter(|c| *c != '-')
        .map_while(|c| c.to_digit(10))
        .take(8)
        .collect();
    let number = |from: usize, to: usize| {
        let part = digits.get(from..to)?;
        Some(part.iter().fold(0, |value, digit| value * 10 + digit))
    };
    let (year, month, day) = (number(0, 4)?, number(4, 6)?, number(6, 8)?);
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let days = match month {
        2 if leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    ((1970..2200).contains(&year) && (1..=days).contains(&day))
        .then(|| format!("{year:04}-{month:02}-{day:02}"))
}

#[derive(Debug, Default)]
struct Xmp {
    title: Option<String>,
    language: Option<String>,
    description: Option<String>,
    created: Option<String>,
}

impl Xmp {
    fn of(document: &Document) -> Option<Self> {
        let stream = resolve_in(document, document.catalog().ok()?, b"Metadata")?
            .as_stream()
            .ok()?;
        Some(Self::parse(
            &stream.get_plain_content_with_limit(MAX_XMP_BYTES).ok()?,
        ))
    }

    /// Reads as far as the XML is sound. Only the first text of a property counts: titles come in several languages.
    fn parse(source: &[u8]) -> Self {
        let mut xmp = Self::default();
        let mut reader = Reader::from_reader(source);
        let mut buffer = Vec::new();
        let mut property: Option<String> = None;
        loop {
            buffer.clear();
            match reader.read_event_into(&mut buffer) {
                Ok(Event::Start(element)) => {
                    let name = element.name();
                    if !name.as_ref().starts_with("rdf:") {
                        property = Some(name.as_ref().to_owned());
                    }
                }
                Ok(Event::Text(text)) => {
                    let text = text.trim().to_owned();
                    if !text.is_empty() {
                        xmp.set(property.as_deref().unwrap_or_default(), text);
                    }
                }
                Ok(Event::End(element)) if property.as_deref() == Some(element.name().as_ref()) => {
                    property = None;
                }
                Ok(Event::Eof) | Err(_) => return xmp,
                Ok(_) => {}
            }
        }
    }

    fn set(&mut self, property: &str, text: String) {
        let slot = match property {
            "dc:title" => &mut self.title,
            "dc:language" => &mut self.language,
            "dc:description" => &mut self.description,
            "xmp:CreateDate" => &mut self.created,
            _ => return,
        };
        slot.get_or_insert(text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_of_both_kinds_give_their_day_and_broken_ones_none() {
        for (text, day) in [
            ("D:20260131120000+01'00'", Some("2026-01-31")),
            ("D:20240229", Some("2024-02-29")),
            ("2026-01-31T12:00:00Z", Some("2026-01-31")),
            ("D:20230229", None),
            ("D:2026", None),
            ("31 January", None),
            ("D:99999999999999", None),
        ] {
            assert_eq!(date(text).as_deref(), day, "{text}");
        }
    }

    #[test]
    fn metadata_streams_give_the_first_text_of_a_property() {
        let xmp = Xmp::parse(
            b"<x:xmpmeta><rdf:RDF><rdf:Description><dc:title><rdf:Alt><rdf:li xml:lang='x-default'>Terms of trade</rdf:li>\
              <rdf:li>Andere</rdf:li></rdf:Alt></dc:title><xmp:CreateDate>2025-03-01T08:00:00Z</xmp:CreateDate>\
              </rdf:Description></rdf:RDF>",
        );

        assert_eq!(xmp.title.as_deref(), Some("Terms of trade"));
        assert_eq!(xmp.created.as_deref(), Some("2025-03-01T08:00:00Z"));
    }

    #[test]
    fn only_tags_of_languages_are_languages() {
        let tags = ["de", "pt-BR", "zh-Hans-CN", "", "english language", "x", "de_DE"];

        assert_eq!(
            tags.map(is_language),
            [true, true, true, false, false, false, false]
        );
    }
}
