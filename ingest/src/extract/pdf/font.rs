//! Fonts as far as text needs them: codes to characters, and how far each character advances.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use encoding_rs::Encoding as Charset;
use lopdf::{Dictionary, Document, Object};

use super::cmap::{CMap, code_of};
use super::encoding::{ByteTexts, Names};
use super::objects::{
    array_in, dict_in, dict_of, integer_in, name_in, number_in, number_of, numbers_in, resolve, resolve_in,
};
use super::program::{Program, glyph_of_code};

/// Character maps and widths of one font unpack to less than this.
const MAX_FONT_STREAM_BYTES: usize = 8 << 20;

/// Em units per advance unit.
const UNITS_PER_EM: f32 = 1_000.0;

/// Flags of a font descriptor.
const FLAG_FIXED_PITCH: i64 = 1;
const FLAG_FORCE_BOLD: i64 = 1 << 18;

/// Characters of one font that are remembered; more are looked up anew each time.
const MAX_KNOWN_CHARS: usize = 70_000;

/// Drawn letters that the font does not lift or lower are about this wide and high, in ems.
const DRAWN_MIN_EM: f32 = 0.2;

#[derive(Debug)]
pub(super) struct Font {
    to_unicode: Option<CMap>,
    codes: Codes,
    widths: HashMap<u32, f32>,
    default_width: Option<f32>,
    /// Text space units per glyph unit; only drawn fonts differ from a thousandth.
    scale: f32,
    /// How much larger the letters look than the size says; only drawn fonts differ from 1.
    size_factor: f32,
    /// Its characters are little pictures, which stand in front of list items.
    is_pictorial: bool,
    known: RefCell<HashMap<(u32, u8), Char>>,
    pub(super) is_bold: bool,
    pub(super) is_mono: bool,
}

#[derive(Debug)]
enum Codes {
    /// One byte each, with the text of each byte.
    Bytes(ByteTexts),
    /// As long as the embedded map says, else two bytes; the font file may know the text of a glyph.
    Mapped(CMap, GlyphTexts),
    /// Two bytes that are UTF-16 themselves.
    Utf16,
    /// One or two bytes of an older Asian encoding.
    Legacy(&'static Charset),
}

type GlyphTexts = HashMap<u32, Rc<str>>;

/// A character of a shown string.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Char {
    pub(super) text: Rc<str>,
    /// Advance in ems.
    pub(super) width: f32,
    /// The single byte 32, on which word spacing acts.
    pub(super) is_word_space: bool,
}

impl Font {
    pub(super) fn load(document: &Document, dict: &Dictionary, names: &mut Names) -> Self {
        let subtype = name_in(document, dict, b"Subtype");
        let is_composite = subtype == Some(b"Type0".as_slice());
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
        let to_unicode = stream_in(document, dict, b"ToUnicode")
            .map(|source| CMap::parse(&source))
            .filter(|map| !map.is_empty());
        let is_mono = flags & FLAG_FIXED_PITCH != 0
            || [
                "mono",
                "courier",
                "consolas",
                "menlo",
                "cmtt",
                "typewriter",
                "inconsolata",
            ]
            .iter()
            .any(|name| base_name.contains(name));
        // Reading the font file is slow and only needed where nothing else tells the characters.
        let program = descriptor
            .filter(|found| to_unicode.is_none() && Program::is_embedded(found))
            .filter(|_| is_composite || !has_full_encoding(document, dict))
            .map(|found| Program::of(document, found))
            .unwrap_or_default();
        let codes = if is_composite {
            composite_codes(document, dict, described, &program, names)
        } else {
            Codes::Bytes(names.of_font(document, dict, &base_name, &program))
        };
        let mut font = Self {
            to_unicode,
            codes,
            widths: HashMap::new(),
            default_width: None,
            scale: 1.0 / UNITS_PER_EM,
            size_factor: 1.0,
            is_pictorial: ["wingding", "dingbat", "webding"]
                .iter()
                .any(|name| base_name.contains(name)),
            known: RefCell::default(),
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
            if subtype == Some(b"Type3") {
                font.read_drawn_scale(document, dict);
            }
        }
        if is_mono && font.default_width.is_none() && font.widths.is_empty() {
            font.default_width = Some(600.0);
        }
        font
    }

    /// How large its letters look at this size.
    pub(super) fn looks(&self, size: f32) -> f32 {
        size * self.size_factor
    }

    /// Calls `show` for each character of a shown string.
    pub(super) fn decode(&self, bytes: &[u8], mut show: impl FnMut(Char)) {
        let mut at = 0;
        let mut known = self.known.borrow_mut();
        while at < bytes.len() {
            let rest = &bytes[at..];
            let length = self.code_length(rest);
            let raw = &rest[..length];
            let key = (code_of(raw), length as u8);
            at += length;
            if let Some(char) = known.get(&key) {
                show(char.clone());
                continue;
            }
            let text = self.text_of(key.0, raw);
            let char = Char {
                width: self.width_of(key.0, &text),
                text,
                is_word_space: raw == b" ",
            };
            if known.len() < MAX_KNOWN_CHARS {
                known.insert(key, char.clone());
            }
            show(char);
        }
    }

    fn code_length(&self, rest: &[u8]) -> usize {
        let length = match &self.codes {
            Codes::Bytes(_) => 1,
            Codes::Mapped(map, _) => map.code_length(rest).unwrap_or(2),
            Codes::Utf16 => 2,
            Codes::Legacy(_) => 1 + usize::from(rest[0] >= 0x81),
        };
        length.min(rest.len())
    }

    fn text_of(&self, code: u32, raw: &[u8]) -> Rc<str> {
        let text = self.mapped_text(code, raw);
        let mut chars = text.chars();
        match (chars.next(), chars.next()) {
            (_, None) if self.is_pictorial && !text.chars().all(char::is_whitespace) => "•".into(),
            (None, None) if self.is_pictorial => "•".into(),
            (Some('\0'..='\u{8}' | '\u{e}'..='\u{1f}' | '\u{7f}'..='\u{9f}'), None) => Rc::default(),
            // Symbolic fonts shift their characters to here.
            (Some(c @ '\u{f020}'..='\u{f07e}'), None) => char::from_u32(u32::from(c) - 0xf000)
                .map(String::from)
                .unwrap_or_default()
                .into(),
            _ => text,
        }
    }

    fn mapped_text(&self, code: u32, raw: &[u8]) -> Rc<str> {
        // A map to nothing but zeros, as some programs write it, tells nothing.
        if let Some(text) = self.to_unicode.as_ref().and_then(|map| map.text(code))
            && !text.chars().all(|c| matches!(c, '\0' | '\u{fffd}'))
        {
            return text.into();
        }
        match &self.codes {
            Codes::Bytes(texts) => texts.get(code as usize).cloned().flatten().unwrap_or_default(),
            Codes::Mapped(map, glyphs) => map
                .text(code)
                .map(Rc::from)
                .or_else(|| glyphs.get(&map.glyph(code)).cloned())
                .unwrap_or_default(),
            Codes::Utf16 => encoding_rs::UTF_16BE.decode_without_bom_handling(raw).0.into(),
            Codes::Legacy(charset) => charset.decode_without_bom_handling(raw).0.into(),
        }
    }

    fn width_of(&self, code: u32, text: &str) -> f32 {
        let code = match &self.codes {
            Codes::Mapped(map, _) => map.glyph(code),
            _ => code,
        };
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
    }

    /// Drawn fonts have a unit of their own, and often the size 1 with letters as large as they come.
    fn read_drawn_scale(&mut self, document: &Document, dict: &Dictionary) {
        let matrix = numbers_in(document, dict, b"FontMatrix").unwrap_or_default();
        let [a, b, _, d, ..] = matrix[..] else { return };
        self.scale = a.hypot(b).clamp(1e-6, 10.0);
        let letters = numbers_in(document, dict, b"FontBBox").unwrap_or_default();
        let [_, bottom, _, top] = letters[..] else { return };
        let height = ((top - bottom) * d).abs();
        if height > 0.0 && !(DRAWN_MIN_EM..2.0).contains(&height) {
            self.size_factor = height.clamp(1e-3, 1e3);
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

/// Whether the dictionary names the text of every code by itself.
fn has_full_encoding(document: &Document, dict: &Dictionary) -> bool {
    match resolve_in(document, dict, b"Encoding") {
        Some(Object::Name(_)) => true,
        Some(Object::Dictionary(found)) => found.has(b"BaseEncoding"),
        _ => false,
    }
}

fn composite_codes(
    document: &Document,
    dict: &Dictionary,
    descendant: &Dictionary,
    program: &Program,
    names: &mut Names,
) -> Codes {
    if let Some(source) = stream_in(document, dict, b"Encoding") {
        let glyphs = glyph_texts(document, descendant, program, names);
        return Codes::Mapped(CMap::parse(&source), glyphs);
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
    Codes::Mapped(CMap::default(), glyph_texts(document, descendant, program, names))
}

/// The text of each glyph that the font file knows, by the number that selects it.
fn glyph_texts(
    document: &Document,
    descendant: &Dictionary,
    program: &Program,
    names: &mut Names,
) -> GlyphTexts {
    let mut texts: HashMap<u16, Rc<str>> = program
        .chars_by_glyph
        .iter()
        .map(|(glyph, char)| (*glyph, Rc::from(char.encode_utf8(&mut [0; 4]) as &str)))
        .collect();
    for (glyph, name) in &program.names_by_glyph {
        texts.extend(names.glyph(name).map(|text| (*glyph, text)));
    }
    if texts.is_empty() {
        return HashMap::new();
    }
    match glyph_of_code(document, descendant) {
        Some(map) => (0_u32..)
            .zip(map.chunks_exact(2))
            .filter_map(|(code, pair)| {
                let text = texts.get(&u16::from_be_bytes([pair[0], pair[1]]))?;
                Some((code, Rc::clone(text)))
            })
            .collect(),
        None => texts
            .into_iter()
            .map(|(glyph, text)| (u32::from(glyph), text))
            .collect(),
    }
}

fn descendant_of<'a>(document: &'a Document, dict: &'a Dictionary) -> Option<&'a Dictionary> {
    let descendants = array_in(document, dict, b"DescendantFonts")?;
    dict_of(document, descendants.first()?)
}

fn stream_in(document: &Document, dict: &Dictionary, key: &[u8]) -> Option<Vec<u8>> {
    let stream = resolve_in(document, dict, key)?.as_stream().ok()?;
    stream.get_plain_content_with_limit(MAX_FONT_STREAM_BYTES).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_font_without_anything_reads_latin_text() {
        let mut dict = Dictionary::new();
        dict.set("Type", Object::Name(b"Font".to_vec()));
        dict.set("Subtype", Object::Name(b"Type1".to_vec()));
        dict.set("Encoding", Object::Name(b"WinAnsiEncoding".to_vec()));
        let mut chars = Vec::new();

        Font::load(&Document::new(), &dict, &mut Names::default())
            .decode(b"M \xe4\x80", |char| chars.push(char));

        let text: String = chars.iter().map(|char| &*char.text).collect();
        assert_eq!(text, "M ä€");
        assert!(chars[1].is_word_space && chars[0].width > chars[1].width);
    }
}
