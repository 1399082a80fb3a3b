//! Fonts as far as text needs them: codes to characters, and how far each character advances.

use std::collections::HashMap;

use encoding_rs::Encoding as Charset;
use lopdf::{Dictionary, Document, Object};

use super::cmap::{CMap, code_of};

/// Character maps and widths of one font unpack to less than this.
const MAX_FONT_STREAM_BYTES: usize = 8 << 20;

/// Em units per advance unit.
const UNITS_PER_EM: f32 = 1_000.0;

/// Flags of a font descriptor.
const FLAG_FIXED_PITCH: i64 = 1;
const FLAG_FORCE_BOLD: i64 = 1 << 18;

/// The Symbol font's letters, from `A` and `a` on.
const SYMBOL_UPPER: &str = "ΑΒΧΔΕΦΓΗΙϑΚΛΜΝΟΠΘΡΣΤΥςΩΞΨΖ";
const SYMBOL_LOWER: &str = "αβχδεφγηιϕκλμνοπθρστυϖωξψζ";

#[derive(Debug)]
pub(super) struct Font {
    to_unicode: Option<CMap>,
    codes: Codes,
    widths: HashMap<u32, f32>,
    default_width: Option<f32>,
    /// Text space units per glyph unit; only drawn fonts differ from a thousandth.
    scale: f32,
    /// Its characters are little pictures, which stand in front of list items.
    is_pictorial: bool,
    pub(super) is_bold: bool,
    pub(super) is_mono: bool,
}

#[derive(Debug)]
enum Codes {
    /// One byte each, with the text of each byte.
    Bytes(Vec<Option<String>>),
    /// As long as the embedded map says, else two bytes.
    Mapped(CMap),
    /// Two bytes that are UTF-16 themselves.
    Utf16,
    /// One or two bytes of an older Asian encoding.
    Legacy(&'static Charset),
}

/// A character of a shown string.
#[derive(Debug, PartialEq)]
pub(super) struct Char {
    pub(super) text: String,
    /// Advance in ems.
    pub(super) width: f32,
    /// The single byte 32, on which word spacing acts.
    pub(super) is_word_space: bool,
}

impl Font {
    pub(super) fn load(document: &Document, dict: &Dictionary) -> Self {
        let is_composite = name_in(document, dict, b"Subtype") == Some(b"Type0".as_slice());
        let descendant = is_composite.then(|| descendant_of(document, dict)).flatten();
        let described = descendant.unwrap_or(dict);
        let base_name = name_in(document, dict, b"BaseFont")
            .map(|name| String::from_utf8_lossy(name).to_lowercase())
            .unwrap_or_default();
        let descriptor = dict_in(document, described, b"FontDescriptor");
        let flags = descriptor
            .and_then(|found| integer_in(document, found, b"Flags"))
            .unwrap_or(0);
        let weight = descriptor
            .and_then(|found| number_in(document, found, b"FontWeight"))
            .unwrap_or(400.0);
        let to_unicode = stream_in(document, dict, b"ToUnicode").map(|source| CMap::parse(&source));
        let is_mono = flags & FLAG_FIXED_PITCH != 0
            || ["mono", "courier", "consolas", "menlo"]
                .iter()
                .any(|name| base_name.contains(name));
        let mut font = Self {
            to_unicode,
            codes: if is_composite {
                composite_codes(document, dict)
            } else {
                simple_codes(document, dict, &base_name)
            },
            widths: HashMap::new(),
            default_width: None,
            scale: 1.0 / UNITS_PER_EM,
            is_pictorial: ["wingding", "dingbat", "webding"]
                .iter()
                .any(|name| base_name.contains(name)),
            is_bold: flags & FLAG_FORCE_BOLD != 0
                || weight >= 600.0
                || ["bold", "black", "heavy"]
                    .iter()
                    .any(|name| base_name.contains(name)),
            is_mono,
        };
        if is_composite {
            font.read_composite_widths(document, described);
        } else {
            font.read_simple_widths(document, dict, descriptor);
        }
        if is_mono && font.default_width.is_none() && font.widths.is_empty() {
            font.default_width = Some(600.0);
        }
        font
    }

    /// The characters of a shown string.
    pub(super) fn decode(&self, bytes: &[u8]) -> Vec<Char> {
        let mut chars = Vec::with_capacity(bytes.len());
        let mut at = 0;
        while at < bytes.len() {
            let rest = &bytes[at..];
            let length = self.code_length(rest);
            let raw = &rest[..length];
            let code = code_of(raw);
            let text = self.text_of(code, raw);
            chars.push(Char {
                width: self.width_of(code, &text),
                text,
                is_word_space: length == 1 && raw[0] == b' ',
            });
            at += length;
        }
        chars
    }

    fn code_length(&self, rest: &[u8]) -> usize {
        let length = match &self.codes {
            Codes::Bytes(_) => 1,
            Codes::Mapped(map) => map.code_length(rest).unwrap_or(2),
            Codes::Utf16 => 2,
            Codes::Legacy(_) => 1 + usize::from(rest[0] >= 0x81),
        };
        length.min(rest.len())
    }

    fn text_of(&self, code: u32, raw: &[u8]) -> String {
        let text = self.mapped_text(code, raw);
        let mut chars = text.chars();
        match (chars.next(), chars.next()) {
            (_, None) if self.is_pictorial && !text.chars().all(char::is_whitespace) => "•".to_owned(),
            (None, None) if self.is_pictorial => "•".to_owned(),
            // Symbolic fonts shift their characters to here.
            (Some(c @ '\u{f020}'..='\u{f07e}'), None) => char::from_u32(u32::from(c) - 0xf000)
                .map(String::from)
                .unwrap_or_default(),
            _ => text,
        }
    }

    fn mapped_text(&self, code: u32, raw: &[u8]) -> String {
        if let Some(text) = self.to_unicode.as_ref().and_then(|map| map.text(code)) {
            return text.to_owned();
        }
        match &self.codes {
            Codes::Bytes(texts) => texts.get(code as usize).cloned().flatten().unwrap_or_default(),
            Codes::Mapped(map) => map.text(code).unwrap_or_default().to_owned(),
            Codes::Utf16 => encoding_rs::UTF_16BE
                .decode_without_bom_handling(raw)
                .0
                .into_owned(),
            Codes::Legacy(charset) => charset.decode_without_bom_handling(raw).0.into_owned(),
        }
    }

    fn width_of(&self, code: u32, text: &str) -> f32 {
        let units = self
            .widths
            .get(&code)
            .copied()
            .or(self.default_width)
            .unwrap_or_else(|| usual_width(text));
        units * self.scale
    }

    fn read_simple_widths(
        &mut self,
        document: &Document,
        dict: &Dictionary,
        descriptor: Option<&Dictionary>,
    ) {
        let first = integer_in(document, dict, b"FirstChar")
            .unwrap_or(0)
            .clamp(0, 255) as u32;
        if let Some(widths) = array_in(document, dict, b"Widths") {
            for (code, width) in (first..256).zip(widths) {
                if let Some(width) = number_of(document, width) {
                    self.widths.insert(code, width);
                }
            }
            self.default_width = descriptor.and_then(|found| number_in(document, found, b"MissingWidth"));
        }
        // Drawn fonts have their own unit.
        if name_in(document, dict, b"Subtype") == Some(b"Type3".as_slice())
            && let Some(matrix) = array_in(document, dict, b"FontMatrix")
            && let Some(scale) = matrix.first().and_then(|scale| number_of(document, scale))
        {
            self.scale = scale.abs().clamp(1e-6, 10.0);
        }
    }

    fn read_composite_widths(&mut self, document: &Document, dict: &Dictionary) {
        self.default_width = Some(number_in(document, dict, b"DW").unwrap_or(UNITS_PER_EM));
        let Some(entries) = array_in(document, dict, b"W") else {
            return;
        };
        let mut at = 0;
        // Either a code and an array of widths, or two codes and one width for all between them.
        while at + 1 < entries.len() {
            let Some(first) = number_of(document, &entries[at]).map(|code| code.max(0.0) as u32) else {
                break;
            };
            if let Some(widths) =
                resolve(document, &entries[at + 1]).and_then(|object| object.as_array().ok())
            {
                for (code, width) in (first..=0xffff).zip(widths) {
                    self.widths
                        .extend(number_of(document, width).map(|width| (code, width)));
                }
                at += 2;
                continue;
            }
            let last = number_of(document, &entries[at + 1]).map_or(first, |code| code.max(0.0) as u32);
            if let Some(width) = entries.get(at + 2).and_then(|width| number_of(document, width)) {
                self.widths
                    .extend((first..=last.min(0xffff)).map(|code| (code, width)));
            }
            at += 3;
        }
    }
}

/// The advance of a character in a font that does not say, as in the usual sans-serif fonts.
fn usual_width(text: &str) -> f32 {
    match text.chars().next() {
        None => 0.0,
        Some(' ' | 'i' | 'j' | 'l' | 'f' | 't' | 'I' | '.' | ',' | ':' | ';' | '\'' | '!' | '/' | '|') => {
            278.0
        }
        Some('r' | '(' | ')' | '-' | '"' | '[' | ']') => 333.0,
        Some('m' | 'M' | 'W') => 833.0,
        Some('w') => 722.0,
        Some(c) if c.is_uppercase() => 690.0,
        Some(c) if u32::from(c) >= 0x2e80 => 1_000.0,
        Some(_) => 556.0,
    }
}

fn composite_codes(document: &Document, dict: &Dictionary) -> Codes {
    if let Some(source) = stream_in(document, dict, b"Encoding") {
        return Codes::Mapped(CMap::parse(&source));
    }
    let name = name_in(document, dict, b"Encoding").unwrap_or_default();
    let contains = |part: &[u8]| name.windows(part.len()).any(|window| window == part);
    if contains(b"UCS2") || contains(b"UTF16") {
        return Codes::Utf16;
    }
    for (part, charset) in [
        (b"GBK".as_slice(), encoding_rs::GBK),
        (b"GB-EUC".as_slice(), encoding_rs::GBK),
        (b"B5".as_slice(), encoding_rs::BIG5),
        (b"RKSJ".as_slice(), encoding_rs::SHIFT_JIS),
        (b"KSC".as_slice(), encoding_rs::EUC_KR),
    ] {
        if contains(part) {
            return Codes::Legacy(charset);
        }
    }
    Codes::Mapped(CMap::default())
}

fn simple_codes(document: &Document, dict: &Dictionary, base_name: &str) -> Codes {
    if base_name.contains("symbol") && !dict.has(b"Encoding") {
        return Codes::Bytes((0..=255).map(symbol_text).collect());
    }
    let encoding = resolve_in(document, dict, b"Encoding");
    let base = match encoding {
        Some(Object::Name(name)) => Some(name.clone()),
        Some(Object::Dictionary(found)) => found
            .get(b"BaseEncoding")
            .and_then(Object::as_name)
            .ok()
            .map(<[u8]>::to_vec),
        _ => None,
    };
    // TrueType fonts without an encoding are nearly always written in the Windows one.
    let base = base.unwrap_or_else(|| match name_in(document, dict, b"Subtype") {
        Some(b"TrueType") => b"WinAnsiEncoding".to_vec(),
        _ => b"StandardEncoding".to_vec(),
    });
    let mut texts = base_encoding(&base);
    if let Some(Object::Dictionary(found)) = encoding
        && let Some(differences) = array_in(document, found, b"Differences")
    {
        let mut code = 0_usize;
        for entry in differences {
            match entry {
                Object::Integer(next) => code = usize::try_from(*next).unwrap_or(256),
                Object::Name(name) => {
                    if let Some(slot) = texts.get_mut(code) {
                        *slot = glyph_text(name);
                    }
                    code += 1;
                }
                _ => {}
            }
        }
    }
    Codes::Bytes(texts)
}

fn symbol_text(code: u8) -> Option<String> {
    let letter = match code {
        b'A'..=b'Z' => SYMBOL_UPPER.chars().nth(usize::from(code - b'A')),
        b'a'..=b'z' => SYMBOL_LOWER.chars().nth(usize::from(code - b'a')),
        0xb7 => Some('•'),
        b' '..=b'?' => Some(char::from(code)),
        _ => None,
    };
    letter.map(String::from)
}

/// The text of each byte in one of the standard encodings, from the library's tables.
fn base_encoding(name: &[u8]) -> Vec<Option<String>> {
    let mut dict = Dictionary::new();
    dict.set("Type", Object::Name(b"Font".to_vec()));
    dict.set("Encoding", Object::Name(name.to_vec()));
    let document = Document::new();
    let Ok(encoding) = dict.get_font_encoding(&document) else {
        return vec![None; 256];
    };
    (0..=255_u8)
        .map(|byte| {
            encoding
                .bytes_to_string(&[byte])
                .ok()
                .filter(|text| !text.is_empty())
        })
        .collect()
}

/// The text that a glyph name stands for (Adobe Glyph List Specification, section 2).
fn glyph_text(name: &[u8]) -> Option<String> {
    let name = std::str::from_utf8(name).ok()?;
    let name = name.split('.').next().filter(|stem| !stem.is_empty())?;
    if name.contains('_') {
        return name.split('_').map(component_text).collect();
    }
    component_text(name)
}

fn component_text(name: &str) -> Option<String> {
    let hex = |digits: &str| {
        u32::from_str_radix(digits, 16)
            .ok()
            .and_then(char::from_u32)
            .map(String::from)
    };
    if let Some(text) = name
        .strip_prefix("uni")
        .filter(|digits| digits.len() == 4)
        .and_then(hex)
    {
        return Some(text);
    }
    if let Some(text) = name
        .strip_prefix('u')
        .filter(|digits| (4..=6).contains(&digits.len()))
        .and_then(hex)
    {
        return Some(text);
    }
    // The library knows the list, but gives access to it only through an encoding.
    let mut differences = Dictionary::new();
    differences.set(
        "Differences",
        vec![Object::Integer(1), Object::Name(name.as_bytes().to_vec())],
    );
    let mut dict = Dictionary::new();
    dict.set("Type", Object::Name(b"Font".to_vec()));
    dict.set("Encoding", differences);
    let document = Document::new();
    let encoding = dict.get_font_encoding(&document).ok()?;
    encoding
        .bytes_to_string(&[1])
        .ok()
        .filter(|text| !text.is_empty())
}

fn descendant_of<'a>(document: &'a Document, dict: &'a Dictionary) -> Option<&'a Dictionary> {
    let descendants = array_in(document, dict, b"DescendantFonts")?;
    resolve(document, descendants.first()?)?.as_dict().ok()
}

pub(super) fn resolve<'a>(document: &'a Document, object: &'a Object) -> Option<&'a Object> {
    document.dereference(object).ok().map(|(_, object)| object)
}

fn resolve_in<'a>(document: &'a Document, dict: &'a Dictionary, key: &[u8]) -> Option<&'a Object> {
    resolve(document, dict.get(key).ok()?)
}

fn name_in<'a>(document: &'a Document, dict: &'a Dictionary, key: &[u8]) -> Option<&'a [u8]> {
    resolve_in(document, dict, key)?.as_name().ok()
}

pub(super) fn dict_in<'a>(
    document: &'a Document,
    dict: &'a Dictionary,
    key: &[u8],
) -> Option<&'a Dictionary> {
    resolve_in(document, dict, key)?.as_dict().ok()
}

pub(super) fn array_in<'a>(
    document: &'a Document,
    dict: &'a Dictionary,
    key: &[u8],
) -> Option<&'a Vec<Object>> {
    resolve_in(document, dict, key)?.as_array().ok()
}

fn integer_in(document: &Document, dict: &Dictionary, key: &[u8]) -> Option<i64> {
    resolve_in(document, dict, key)?.as_i64().ok()
}

fn number_in(document: &Document, dict: &Dictionary, key: &[u8]) -> Option<f32> {
    number_of(document, dict.get(key).ok()?)
}

pub(super) fn number_of(document: &Document, object: &Object) -> Option<f32> {
    match resolve(document, object)? {
        Object::Integer(value) => Some(*value as f32),
        Object::Real(value) => Some(*value),
        _ => None,
    }
}

fn stream_in(document: &Document, dict: &Dictionary, key: &[u8]) -> Option<Vec<u8>> {
    let stream = resolve_in(document, dict, key)?.as_stream().ok()?;
    stream.get_plain_content_with_limit(MAX_FONT_STREAM_BYTES).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn glyph_names_of_all_kinds_have_their_text() {
        for (name, text) in [
            ("a", Some("a")),
            ("Adieresis", Some("Ä")),
            ("Euro", Some("€")),
            ("uni20AC", Some("€")),
            ("u1F600", Some("😀")),
            ("f_f_i", Some("ffi")),
            ("a.alt", Some("a")),
            (".notdef", None),
            ("g123", None),
        ] {
            assert_eq!(glyph_text(name.as_bytes()).as_deref(), text, "{name}");
        }
    }

    #[test]
    fn a_font_without_anything_reads_latin_text() {
        let mut dict = Dictionary::new();
        dict.set("Type", Object::Name(b"Font".to_vec()));
        dict.set("Subtype", Object::Name(b"Type1".to_vec()));
        dict.set("Encoding", Object::Name(b"WinAnsiEncoding".to_vec()));

        let chars = Font::load(&Document::new(), &dict).decode(b"M \xe4\x80");

        let text: String = chars.iter().map(|char| char.text.as_str()).collect();
        assert_eq!(text, "M ä€");
        assert!(chars[1].is_word_space && chars[0].width > chars[1].width);
    }
}
