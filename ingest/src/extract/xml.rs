//! A bounded view of XML: elements by local name, text with its references resolved, nothing else. No entity
//! is ever defined, let alone fetched or expanded: document types are refused or passed over.

use std::io::{BufRead, ErrorKind};

use quick_xml::Reader;
use quick_xml::events::{BytesStart, Event};

use crate::ExtractError;

/// Attributes of one element that are looked at.
const MAX_ATTRIBUTES: usize = 256;

#[derive(Debug)]
pub(super) enum XmlEvent {
    Start(Element),
    /// The local name of the element that ends. Empty elements end too.
    End(String),
    Text(String),
}

/// A start tag.
#[derive(Debug)]
pub(super) struct Element(BytesStart<'static>);

impl Element {
    /// The name without its prefix.
    pub(super) fn name(&self) -> &str {
        self.0.local_name().into_inner()
    }

    /// The value of the attribute with this local name.
    pub(super) fn attribute(&self, name: &str) -> Option<String> {
        self.0
            .attributes()
            .with_checks(false)
            .take(MAX_ATTRIBUTES)
            .filter_map(Result::ok)
            .find(|attribute| attribute.key.local_name().as_ref() == name)
            .map(|attribute| {
                quick_xml::escape::unescape(&attribute.value)
                    .map_or_else(|_| attribute.value.to_string(), |value| value.into_owned())
            })
    }

    /// The value of the attribute with this local name that has a prefix, as references to other parts have.
    pub(super) fn reference(&self, name: &str) -> Option<String> {
        self.0
            .attributes()
            .with_checks(false)
            .take(MAX_ATTRIBUTES)
            .filter_map(Result::ok)
            .find(|attribute| attribute.key.prefix().is_some() && attribute.key.local_name().as_ref() == name)
            .map(|attribute| attribute.value.into_owned())
    }

    /// The attribute `val`, where most properties keep their value.
    pub(super) fn value(&self) -> Option<String> {
        self.attribute("val")
    }

    /// Whether a property that may be present or absent is on.
    pub(super) fn is_on(&self) -> bool {
        !self
            .value()
            .is_some_and(|value| matches!(value.as_str(), "0" | "false" | "off" | "none"))
    }

    /// Whether an attribute is there and says yes.
    pub(super) fn has_flag(&self, name: &str) -> bool {
        self.attribute(name)
            .is_some_and(|value| matches!(value.as_str(), "1" | "true" | "on"))
    }
}

pub(super) struct XmlReader<R> {
    reader: Reader<R>,
    buffer: Vec<u8>,
    depth: usize,
    max_depth: usize,
    passes_over_types: bool,
}

impl<'a> XmlReader<&'a [u8]> {
    pub(super) fn new(source: &'a str, max_depth: u32) -> Self {
        Self::of(source.as_bytes(), max_depth)
    }
}

impl<R: BufRead> XmlReader<R> {
    /// Reads UTF-8 as it comes, so that a part need not be in memory.
    pub(super) fn of(source: R, max_depth: u32) -> Self {
        let mut reader = Reader::from_reader(source);
        let config = reader.config_mut();
        config.expand_empty_elements = true;
        config.allow_dangling_amp = true;
        Self {
            reader,
            buffer: Vec::new(),
            depth: 0,
            max_depth: max_depth as usize,
            passes_over_types: false,
        }
    }

    /// Formats that predate the rule against document types still begin with one; what it defines stays undefined.
    pub(super) fn passing_over_types(mut self) -> Self {
        self.passes_over_types = true;
        self
    }

    /// The next event, or `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<XmlEvent>, ExtractError> {
        loop {
            self.buffer.clear();
            let event = self.reader.read_event_into(&mut self.buffer).map_err(judge)?;
            match event {
                Event::Start(tag) => {
                    self.depth += 1;
                    if self.depth > self.max_depth {
                        return Err(ExtractError::too_large("elements are nested too deeply"));
                    }
                    return Ok(Some(XmlEvent::Start(Element(tag.into_owned()))));
                }
                Event::End(tag) => {
                    self.depth = self.depth.saturating_sub(1);
                    return Ok(Some(XmlEvent::End(tag.local_name().as_ref().to_owned())));
                }
                Event::Text(text) => return Ok(Some(XmlEvent::Text(text.xml10_content().into_owned()))),
                Event::CData(text) => return Ok(Some(XmlEvent::Text(text.xml10_content().into_owned()))),
                Event::GeneralRef(reference) => {
                    if let Some(text) = resolve(&reference) {
                        return Ok(Some(XmlEvent::Text(text)));
                    }
                }
                Event::DocType(_) if self.passes_over_types => {}
                Event::DocType(_) => return Err(ExtractError::damaged("it declares a document type")),
                Event::Eof if self.depth > 0 => return Err(ExtractError::damaged("its XML ends too early")),
                Event::Eof => return Ok(None),
                Event::Empty(_) | Event::Comment(_) | Event::Decl(_) | Event::PI(_) => {}
            }
        }
    }

    /// Passes over the rest of the element that was just begun.
    pub(super) fn skip_element(&mut self) -> Result<(), ExtractError> {
        let mut open = 1_usize;
        while open > 0 {
            match self.next()? {
                Some(XmlEvent::Start(_)) => open += 1,
                Some(XmlEvent::End(_)) => open -= 1,
                Some(XmlEvent::Text(_)) => {}
                None => break,
            }
        }
        Ok(())
    }

    /// All text within the element that was just begun.
    pub(super) fn text_of_element(&mut self) -> Result<String, ExtractError> {
        let mut open = 1_usize;
        let mut content = String::new();
        while open > 0 {
            match self.next()? {
                Some(XmlEvent::Start(_)) => open += 1,
                Some(XmlEvent::End(_)) => open -= 1,
                Some(XmlEvent::Text(text)) => content.push_str(&text),
                None => break,
            }
        }
        Ok(content)
    }
}

fn judge(error: quick_xml::Error) -> ExtractError {
    match error {
        quick_xml::Error::Io(error) if error.kind() == ErrorKind::FileTooLarge => {
            ExtractError::too_large("it unpacks to too much data")
        }
        quick_xml::Error::Io(_) => ExtractError::damaged("its archive is broken"),
        _ => ExtractError::damaged("its XML is broken"),
    }
}

/// The five predefined entities and character references; others have no definition.
fn resolve(reference: &quick_xml::events::BytesRef<'_>) -> Option<String> {
    if let Ok(Some(c)) = reference.resolve_char_ref() {
        return Some(c.to_string());
    }
    quick_xml::escape::resolve_predefined_entity(reference).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(source: &str) -> Result<String, &'static str> {
        let mut reader = XmlReader::new(source, 8);
        let mut out = String::new();
        while let Some(event) = reader.next().map_err(|error| error.code())? {
            if let XmlEvent::Text(text) = event {
                out.push_str(&text);
            }
        }
        Ok(out)
    }

    #[test]
    fn references_are_resolved_and_unknown_ones_dropped() {
        assert_eq!(
            texts("<a>1 &lt; 2 &#x41;&amp;&nope;</a>"),
            Ok("1 < 2 A&".to_owned())
        );
    }

    #[test]
    fn document_types_depth_and_broken_markup_are_refused() {
        assert_eq!(texts("<!DOCTYPE a [<!ENTITY b 'c'>]><a>&b;</a>"), Err("damaged"));
        assert_eq!(texts(&"<a>".repeat(9)), Err("too_large"));
        assert_eq!(texts("<a><b></a>"), Err("damaged"));
        assert_eq!(texts("<a>cut"), Err("damaged"));
    }
}
