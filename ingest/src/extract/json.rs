//! JSON as records: every object in an array is one block of `path: value` lines, so that it can be found and
//! cited alone; values around the arrays come first. Values are read one by one and never become a tree.

use std::fmt;
use std::io::{BufRead, BufReader, Read};

use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::text::decode_in_place;
use super::text_reader::TextReader;
use crate::document::{DocumentBuilder, one_line, shorten};
use crate::{BlockKind, ExtractError, ExtractedDocument, Limits};

/// Between the names of nested values.
const PATH_SEPARATOR: &str = ".";

/// A name stands in every line below it.
const MAX_NAME_CHARS: usize = 80;

/// Innermost level of headings.
const MAX_LEVEL: u8 = 6;

/// A record is looked up and cited as one; values after this many bytes begin another.
const MAX_RECORD_BYTES: usize = 16 << 10;

/// Reads one JSON value.
pub(crate) fn extract(bytes: &[u8], limits: &Limits) -> Result<ExtractedDocument, ExtractError> {
    let source = decode_in_place(bytes, None, limits)?;
    let mut writer = Writer::new(DocumentBuilder::new(limits));
    // The first pass writes what describes the whole, the second the records.
    for pass in [Pass::Around, Pass::Records] {
        writer.pass = pass;
        let mut deserializer = serde_json::Deserializer::from_str(&source);
        let outcome = Node(&mut writer)
            .deserialize(&mut deserializer)
            .and_then(|()| deserializer.end());
        writer.flush();
        if writer.builder.is_full() {
            break;
        }
        outcome.map_err(|error| judge(&error))?;
    }
    writer.builder.finish()
}

/// Reads a JSON value from every line, each as a record. Lines that are none are passed over, unless all are.
pub(crate) fn extract_lines(bytes: &[u8], limits: &Limits) -> Result<ExtractedDocument, ExtractError> {
    let source = decode_in_place(bytes, None, limits)?;
    read_lines(source.as_bytes(), limits)
}

/// Reads lines of `size` bytes together as they come.
pub(super) fn extract_lines_stream(
    source: impl Read,
    size: u64,
    limits: &Limits,
) -> Result<ExtractedDocument, ExtractError> {
    if size > limits.max_unpacked_bytes {
        return Err(ExtractError::too_large("too much text"));
    }
    read_lines(BufReader::new(TextReader::new(source, None)), limits)
}

/// Reads lines in UTF-8.
fn read_lines(mut source: impl BufRead, limits: &Limits) -> Result<ExtractedDocument, ExtractError> {
    let mut writer = Writer::new(DocumentBuilder::new(limits));
    writer.pass = Pass::Records;
    writer.in_record = true;
    let mut first_error = None;
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = source.read_until(b'\n', &mut line);
        if read.map_err(|_| ExtractError::damaged("it breaks off"))? == 0 {
            break;
        }
        if line.trim_ascii().is_empty() {
            continue;
        }
        let mut deserializer = serde_json::Deserializer::from_slice(&line);
        let outcome = Node(&mut writer)
            .deserialize(&mut deserializer)
            .and_then(|()| deserializer.end());
        if let Err(error) = outcome {
            first_error.get_or_insert(judge(&error));
            writer.forget();
        }
        writer.flush();
        if writer.builder.is_full() {
            break;
        }
    }
    match (writer.builder.finish(), first_error) {
        (Err(ExtractError::NoText { .. }), Some(error)) => Err(error),
        (outcome, _) => outcome,
    }
}

fn judge(error: &serde_json::Error) -> ExtractError {
    if error.to_string().starts_with("recursion limit") {
        return ExtractError::too_large("its values are nested too deeply");
    }
    ExtractError::damaged(format!("line {} is not valid JSON", error.line()))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pass {
    /// Values that stand in no array.
    Around,
    /// What stands in arrays.
    Records,
}

struct Writer {
    builder: DocumentBuilder,
    pass: Pass,
    /// Inside an element of an array: everything below belongs to one record.
    in_record: bool,
    path: Vec<String>,
    /// The path that the record's names start from.
    base: usize,
    record: String,
    /// The line that a further value of the same array is added to.
    open_line: Option<String>,
    /// Level and text of a heading that waits for a record below it.
    heading: Option<(u8, String)>,
}

impl Writer {
    fn new(mut builder: DocumentBuilder) -> Self {
        // The name of the first array is no title.
        builder.title = Some(String::new());
        Self {
            builder,
            pass: Pass::Around,
            in_record: false,
            path: Vec::new(),
            base: 0,
            record: String::new(),
            open_line: None,
            heading: None,
        }
    }

    fn value(&mut self, text: &str) {
        let is_wanted = self.in_record || self.pass == Pass::Around;
        let text = one_line(text);
        if !is_wanted || text.is_empty() || self.builder.is_full() {
            return;
        }
        let name = self.path[self.base.min(self.path.len())..].join(PATH_SEPARATOR);
        if self.open_line.as_ref() == Some(&name) && !self.record.is_empty() {
            self.record.push_str(if name.is_empty() { "\n" } else { ", " });
            self.record.push_str(&text);
            return;
        }
        if self.record.len() > MAX_RECORD_BYTES {
            self.flush();
        }
        if !self.record.is_empty() {
            self.record.push('\n');
        }
        if !name.is_empty() {
            self.record.push_str(&name);
            self.record.push_str(": ");
        }
        self.record.push_str(&text);
        self.open_line = Some(name);
    }

    /// Ends the record.
    fn flush(&mut self) {
        let record = std::mem::take(&mut self.record);
        self.open_line = None;
        if record.is_empty() {
            return;
        }
        if let Some((level, name)) = self.heading.take() {
            self.builder.push(BlockKind::Heading { level }, &name, None);
        }
        self.builder
            .push(BlockKind::TableRow { header: None }, &record, None);
    }

    fn forget(&mut self) {
        self.record.clear();
        self.path.clear();
        self.open_line = None;
    }

    /// The records that follow stand under the name of their array.
    fn begin_records(&mut self) {
        let level = u8::try_from(self.path.len()).unwrap_or(MAX_LEVEL).min(MAX_LEVEL);
        self.heading = (level > 0).then(|| (level, self.path.join(PATH_SEPARATOR)));
    }
}

/// The value that comes next.
struct Node<'w>(&'w mut Writer);

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("any value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<(), E> {
        self.0.value(if value { "true" } else { "false" });
        Ok(())
    }

    fn visit_i64<E>(self, value: i64) -> Result<(), E> {
        self.0.value(&value.to_string());
        Ok(())
    }

    fn visit_u64<E>(self, value: u64) -> Result<(), E> {
        self.0.value(&value.to_string());
        Ok(())
    }

    fn visit_f64<E>(self, value: f64) -> Result<(), E> {
        self.0.value(&value.to_string());
        Ok(())
    }

    fn visit_str<E>(self, value: &str) -> Result<(), E> {
        self.0.value(value);
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let writer = self.0;
        while let Some(name) = map.next_key::<String>()? {
            writer.path.push(shorten(&one_line(&name), MAX_NAME_CHARS));
            map.next_value_seed(Node(&mut *writer))?;
            writer.path.pop();
        }
        if !writer.in_record {
            writer.flush();
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<(), A::Error> {
        let writer = self.0;
        if writer.in_record {
            // Plain values share a line, values of objects stand one after the other.
            while elements.next_element_seed(Node(&mut *writer))?.is_some() {}
            return Ok(());
        }
        if writer.pass == Pass::Around {
            while elements.next_element::<IgnoredAny>()?.is_some() {}
            return Ok(());
        }
        (writer.in_record, writer.base) = (true, writer.path.len());
        writer.begin_records();
        let outcome = loop {
            match elements.next_element_seed(Node(&mut *writer)) {
                Ok(Some(())) => writer.flush(),
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        (writer.in_record, writer.base) = (false, 0);
        writer.heading = None;
        outcome
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(source: &str) -> Result<ExtractedDocument, ExtractError> {
        extract(source.as_bytes(), &Limits::default())
    }

    #[test]
    fn objects_of_an_array_are_records_under_its_name() {
        let document = read(
            r#"{"products": [{"name": "Chair", "price": {"eur": 45}, "tags": ["oak", "new"]}, {"name": "Desk"}], "shop": "Acme"}"#,
        )
        .expect("it has text");

        assert_eq!(
            document.text,
            "shop: Acme\n\nproducts\n\nname: Chair\nprice.eur: 45\ntags: oak, new\n\nname: Desk"
        );
        assert_eq!(document.blocks[3].heading_path, ["products"]);
        assert_eq!(document.title, None);
    }

    #[test]
    fn every_line_of_json_lines_is_a_record() {
        let source = b"{\"q\": \"Open?\", \"a\": \"Daily.\"}\nbroken {\n{\"q\": \"Parking?\"}\n";

        let document = extract_lines(source, &Limits::default()).expect("it has text");

        assert_eq!(document.text, "q: Open?\na: Daily.\n\nq: Parking?");
        let streamed = extract_lines_stream(&source[..], source.len() as u64, &Limits::default());
        assert_eq!(streamed, Ok(document));
    }

    #[test]
    fn broken_and_too_deep_values_are_refused() {
        let deep = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));

        assert_eq!(read("{\"a\": ").map_err(|error| error.code()), Err("damaged"));
        assert_eq!(read(&deep).map_err(|error| error.code()), Err("too_large"));
        assert_eq!(
            read("[null, [], {}]").map_err(|error| error.code()),
            Err("no_text")
        );
    }
}
