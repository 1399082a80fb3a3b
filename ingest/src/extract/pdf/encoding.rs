//! Which text the bytes of a simple font stand for: its base encoding, the differences it names, and what its
//! glyph names mean.

use std::collections::HashMap;
use std::rc::Rc;

use lopdf::{Dictionary, Document, Object};

use super::objects::{array_in, name_in, resolve_in};
use super::program::Program;

/// The Symbol font's letters, from `A` and `a` on.
const SYMBOL_UPPER: &str = "ΑΒΧΔΕΦΓΗΙϑΚΛΜΝΟΠΘΡΣΤΥςΩΞΨΖ";
const SYMBOL_LOWER: &str = "αβχδεφγηιϕκλμνοπθρστυϖωξψζ";

/// Names of glyphs that the usual list lacks and that fonts of typesetting programs use.
const FURTHER_NAMES: [(&str, &str); 12] = [
    ("ff", "ff"),
    ("ffi", "ffi"),
    ("ffl", "ffl"),
    ("dotlessj", "ȷ"),
    ("visiblespace", " "),
    ("nbspace", " "),
    ("sfthyphen", "\u{ad}"),
    ("hyphenminus", "-"),
    ("arrowright", "→"),
    ("epsilon1", "ϵ"),
    ("phi1", "ϕ"),
    ("theta1", "ϑ"),
];

/// The text of each of the 256 bytes.
pub(super) type ByteTexts = Vec<Option<Rc<str>>>;

/// Encodings and glyph names that were looked up before: fonts of one document share most of them.
#[derive(Debug, Default)]
pub(super) struct Names {
    bases: HashMap<Vec<u8>, ByteTexts>,
    glyphs: HashMap<Vec<u8>, Option<Rc<str>>>,
}

impl Names {
    /// The text of each byte of a simple font. `program` is what its embedded file says.
    pub(super) fn of_font(
        &mut self,
        document: &Document,
        dict: &Dictionary,
        base_name: &str,
        program: &Program,
    ) -> ByteTexts {
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
        let mut texts = match base {
            Some(base) => self.base(&base),
            None if base_name.contains("symbol") && encoding.is_none() => {
                (0..=255).map(symbol_text).collect()
            }
            // TrueType fonts without an encoding are nearly always written in the Windows one.
            None if name_in(document, dict, b"Subtype") == Some(b"TrueType") => self.base(b"WinAnsiEncoding"),
            None => self.base(b"StandardEncoding"),
        };
        if !matches!(encoding, Some(Object::Name(_))) {
            for (code, name) in &program.names_by_code {
                if let Some(slot) = texts.get_mut(usize::from(*code)) {
                    *slot = self.glyph(name);
                }
            }
        }
        if let Some(Object::Dictionary(found)) = encoding
            && let Some(differences) = array_in(document, found, b"Differences")
        {
            let mut code = 0_usize;
            for entry in differences {
                match entry {
                    Object::Integer(next) => code = usize::try_from(*next).unwrap_or(256),
                    Object::Name(name) => {
                        if let Some(slot) = texts.get_mut(code) {
                            *slot = self.glyph(name);
                        }
                        code += 1;
                    }
                    _ => {}
                }
            }
        }
        texts
    }

    /// The text of the glyph with this name.
    pub(super) fn glyph(&mut self, name: &[u8]) -> Option<Rc<str>> {
        if let Some(text) = self.glyphs.get(name) {
            return text.clone();
        }
        let text = glyph_text(name).map(Rc::from);
        self.glyphs.insert(name.to_vec(), text.clone());
        text
    }

    fn base(&mut self, name: &[u8]) -> ByteTexts {
        self.bases
            .entry(name.to_vec())
            .or_insert_with(|| base_encoding(name))
            .clone()
    }
}

fn symbol_text(code: u8) -> Option<Rc<str>> {
    let letter = match code {
        b'A'..=b'Z' => SYMBOL_UPPER.chars().nth(usize::from(code - b'A')),
        b'a'..=b'z' => SYMBOL_LOWER.chars().nth(usize::from(code - b'a')),
        0xb7 => Some('•'),
        b' '..=b'?' => Some(char::from(code)),
        _ => None,
    };
    letter.map(|letter| Rc::from(letter.encode_utf8(&mut [0; 4]) as &str))
}

/// The text of each byte in one of the standard encodings, from the library's tables.
fn base_encoding(name: &[u8]) -> ByteTexts {
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
                .map(Rc::from)
        })
        .collect()
}

/// The text that a glyph name stands for (Adobe Glyph List Specification, section 2).
fn glyph_text(name: &[u8]) -> Option<String> {
    let name = std::str::from_utf8(name).ok()?;
    let name = name.split('.').next().filter(|stem| !stem.is_empty())?;
    if let Some(text) = component_text(name) {
        return Some(text);
    }
    name.contains('_')
        .then(|| name.split('_').map(component_text).collect())
        .flatten()
}

fn component_text(name: &str) -> Option<String> {
    let hex = |digits: &str| {
        u32::from_str_radix(digits, 16)
            .ok()
            .and_then(char::from_u32)
            .map(String::from)
    };
    if let Some(digits) = name.strip_prefix("uni")
        && digits.len() >= 4
        && digits.len() % 4 == 0
        && digits.is_ascii()
    {
        let units: Option<Vec<u16>> = (0..digits.len() / 4)
            .map(|at| u16::from_str_radix(&digits[at * 4..at * 4 + 4], 16).ok())
            .collect();
        if let Some(text) = units.and_then(|units| String::from_utf16(&units).ok()) {
            return Some(text);
        }
    }
    if let Some(text) = name
        .strip_prefix('u')
        .filter(|digits| (4..=6).contains(&digits.len()))
        .and_then(hex)
    {
        return Some(text);
    }
    if let Some((_, text)) = FURTHER_NAMES.iter().find(|(known, _)| *known == name) {
        return Some((*text).to_owned());
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
            ("uni00660069", Some("fi")),
            ("u1F600", Some("😀")),
            ("f_f_i", Some("ffi")),
            ("ffi", Some("ffi")),
            ("a.alt", Some("a")),
            (".notdef", None),
            ("g123", None),
        ] {
            let found = glyph_text(name.as_bytes());
            let plain: Option<String> = found.map(|text| {
                use unicode_normalization::UnicodeNormalization;
                text.nfkc().collect()
            });
            assert_eq!(plain.as_deref(), text, "{name}");
        }
    }
}
