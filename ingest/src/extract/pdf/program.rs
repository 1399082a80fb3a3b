//! What embedded font files tell about their characters, for fonts whose dictionaries do not: names by code
//! (Type 1), names by glyph (CFF), and characters by glyph (TrueType and OpenType).
//!
//! Every offset comes from the file, so each is checked; a broken font tells nothing.

use std::collections::HashMap;

use super::objects::{dict_in, resolve_in};
use lopdf::{Dictionary, Document};

/// Font files unpack to less than this; large Asian ones have twenty megabytes.
const MAX_PROGRAM_BYTES: usize = 32 << 20;

/// Glyphs of one font; the format allows no more.
const MAX_GLYPHS: usize = 65_536;

/// The names of the first standard strings of CFF (Adobe Technical Note 5176, appendix A), in order, from
/// `.notdef` on. Those after them belong to expert fonts.
const CFF_NAMES: &str = ".notdef space exclam quotedbl numbersign dollar percent ampersand quoteright parenleft parenright \
asterisk plus comma hyphen period slash zero one two three four five six seven eight nine colon semicolon less equal greater \
question at A B C D E F G H I J K L M N O P Q R S T U V W X Y Z bracketleft backslash bracketright asciicircum underscore \
quoteleft a b c d e f g h i j k l m n o p q r s t u v w x y z braceleft bar braceright asciitilde exclamdown cent sterling \
fraction yen florin section currency quotesingle quotedblleft guillemotleft guilsinglleft guilsinglright fi fl endash dagger \
daggerdbl periodcentered paragraph bullet quotesinglbase quotedblbase quotedblright guillemotright ellipsis perthousand \
questiondown grave acute circumflex tilde macron breve dotaccent dieresis ring cedilla hungarumlaut ogonek caron emdash AE \
ordfeminine Lslash Oslash OE ordmasculine ae dotlessi lslash oslash oe germandbls onesuperior logicalnot mu trademark Eth \
onehalf plusminus Thorn onequarter divide brokenbar degree thorn threequarters twosuperior registered minus eth multiply \
threesuperior copyright Aacute Acircumflex Adieresis Agrave Aring Atilde Ccedilla Eacute Ecircumflex Edieresis Egrave Iacute \
Icircumflex Idieresis Igrave Ntilde Oacute Ocircumflex Odieresis Ograve Otilde Scaron Uacute Ucircumflex Udieresis Ugrave \
Yacute Ydieresis Zcaron aacute acircumflex adieresis agrave aring atilde ccedilla eacute ecircumflex edieresis egrave iacute \
icircumflex idieresis igrave ntilde oacute ocircumflex odieresis ograve otilde scaron uacute ucircumflex udieresis ugrave \
yacute ydieresis zcaron";

/// Standard strings of CFF; numbers from here on are the font's own.
const CFF_STANDARD_STRINGS: usize = 391;

/// What a font file says.
#[derive(Debug, Default)]
pub(super) struct Program {
    /// Its built-in encoding.
    pub(super) names_by_code: HashMap<u8, Vec<u8>>,
    pub(super) names_by_glyph: HashMap<u16, Vec<u8>>,
    pub(super) chars_by_glyph: HashMap<u16, char>,
}

impl Program {
    /// Of the file embedded with this font descriptor.
    pub(super) fn of(document: &Document, descriptor: &Dictionary) -> Self {
        let unpacked = |key: &[u8]| {
            resolve_in(document, descriptor, key)?
                .as_stream()
                .ok()?
                .get_plain_content_with_limit(MAX_PROGRAM_BYTES)
                .ok()
        };
        if let Some(bytes) = unpacked(b"FontFile") {
            return Self {
                names_by_code: type1_encoding(&bytes),
                ..Self::default()
            };
        }
        if let Some(bytes) = unpacked(b"FontFile2") {
            return Self {
                chars_by_glyph: chars_of_sfnt(&bytes).unwrap_or_default(),
                ..Self::default()
            };
        }
        let Some(bytes) = unpacked(b"FontFile3") else {
            return Self::default();
        };
        if bytes.starts_with(b"OTTO") || bytes.starts_with(&[0, 1, 0, 0, 0]) {
            return Self {
                chars_by_glyph: chars_of_sfnt(&bytes).unwrap_or_default(),
                ..Self::default()
            };
        }
        Cff::parse(&bytes).map(Cff::into_program).unwrap_or_default()
    }

    /// Whether the descriptor embeds a file.
    pub(super) fn is_embedded(descriptor: &Dictionary) -> bool {
        [b"FontFile".as_slice(), b"FontFile2", b"FontFile3"]
            .iter()
            .any(|key| descriptor.has(key))
    }
}

/// The glyph of each character code of a composite font, where its dictionary maps them.
pub(super) fn glyph_of_code(document: &Document, descendant: &Dictionary) -> Option<Vec<u8>> {
    // A name means that they are equal.
    dict_in(document, descendant, b"CIDToGIDMap")?;
    resolve_in(document, descendant, b"CIDToGIDMap")?
        .as_stream()
        .ok()?
        .get_plain_content_with_limit(2 * MAX_GLYPHS)
        .ok()
}

/// The encoding in the readable part of a Type 1 font: `dup 65 /A put`.
fn type1_encoding(bytes: &[u8]) -> HashMap<u8, Vec<u8>> {
    let end = find(bytes, b"eexec").unwrap_or(bytes.len().min(64 << 10));
    let clear = &bytes[..end];
    let Some(at) = find(clear, b"/Encoding") else {
        return HashMap::new();
    };
    let words: Vec<&[u8]> = clear[at..]
        .split(u8::is_ascii_whitespace)
        .filter(|word| !word.is_empty())
        .collect();
    let mut names = HashMap::new();
    for window in words.windows(3) {
        if window[0] == b"dup"
            && let Some(name) = window[2].strip_prefix(b"/")
            && let Some(code) = std::str::from_utf8(window[1])
                .ok()
                .and_then(|code| code.parse().ok())
        {
            names.insert(code, name.to_vec());
        }
    }
    names
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

/// Big-endian numbers at checked places.
#[derive(Debug, Clone, Copy)]
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn byte(self, at: usize) -> Option<usize> {
        self.0.get(at).map(|byte| usize::from(*byte))
    }

    fn short(self, at: usize) -> Option<usize> {
        Some(self.byte(at)? << 8 | self.byte(at.checked_add(1)?)?)
    }

    fn long(self, at: usize) -> Option<usize> {
        Some(self.short(at)? << 16 | self.short(at.checked_add(2)?)?)
    }

    fn from(self, at: usize) -> Option<Self> {
        self.0.get(at..).map(Self)
    }

    fn slice(self, at: usize, end: usize) -> Option<&'a [u8]> {
        self.0.get(at..end)
    }
}

/// The `cmap` table of a TrueType or OpenType font, turned round.
fn chars_of_sfnt(file: &[u8]) -> Option<HashMap<u16, char>> {
    let file = Bytes(file);
    let tables = file.short(4)?;
    let entry = (0..tables)
        .map(|number| 12 + number * 16)
        .find(|at| file.slice(*at, at + 4) == Some(b"cmap"))?;
    let cmap = file.from(file.long(entry + 8)?)?;
    let mut best: Option<(usize, Bytes)> = None;
    for number in 0..cmap.short(2)?.min(64) {
        let at = 4 + number * 8;
        let (platform, encoding) = (cmap.short(at)?, cmap.short(at + 2)?);
        // Full Unicode before the basic plane; symbol fonts and Macintosh codes are no Unicode.
        let rank = match (platform, encoding) {
            (3, 10) => 3,
            (0, _) => 2,
            (3, 1) => 2,
            _ => 0,
        };
        if rank > best.map_or(0, |(rank, _)| rank) {
            best = cmap.from(cmap.long(at + 4)?).map(|table| (rank, table));
        }
    }
    let table = best?.1;
    let mut chars = HashMap::new();
    let mut add = |glyph: usize, code: usize| {
        let char = u32::try_from(code).ok().and_then(char::from_u32);
        if let (Ok(glyph), Some(char)) = (u16::try_from(glyph), char)
            && glyph > 0
        {
            // The first character is the usual one of several that look alike.
            chars.entry(glyph).or_insert(char);
        }
        chars.len() < MAX_GLYPHS
    };
    match table.short(0)? {
        4 => segments(table, &mut add)?,
        12 => {
            for group in 0..table.long(12)?.min(MAX_GLYPHS) {
                let at = 16 + group * 12;
                let (first, last, glyph) = (table.long(at)?, table.long(at + 4)?, table.long(at + 8)?);
                for offset in 0..=last.saturating_sub(first).min(MAX_GLYPHS) {
                    if !add(glyph + offset, first + offset) {
                        return Some(chars);
                    }
                }
            }
        }
        _ => return None,
    }
    Some(chars)
}

/// A `cmap` subtable of format 4.
fn segments(table: Bytes, add: &mut impl FnMut(usize, usize) -> bool) -> Option<()> {
    let count = table.short(6)? / 2;
    // Segments of a sound table do not overlap, so all of them together hold no more than all codes.
    let mut left = MAX_GLYPHS;
    for segment in 0..count {
        let last = table.short(14 + segment * 2)?;
        let first = table.short(16 + (count + segment) * 2)?;
        let delta = table.short(16 + (2 * count + segment) * 2)?;
        let range_at = 16 + (3 * count + segment) * 2;
        let range = table.short(range_at)?;
        for code in first..=last {
            left = left.checked_sub(1)?;
            let glyph = if range == 0 {
                (code + delta) & 0xffff
            } else {
                match table.short(range_at + range + (code - first) * 2) {
                    Some(0) | None => continue,
                    Some(glyph) => (glyph + delta) & 0xffff,
                }
            };
            if code != 0xffff && !add(glyph, code) {
                return Some(());
            }
        }
    }
    Some(())
}

/// A compact font (Adobe Technical Note 5176).
struct Cff<'a> {
    file: Bytes<'a>,
    strings: Vec<&'a [u8]>,
    charset: usize,
    encoding: usize,
    glyphs: usize,
    is_cid_keyed: bool,
}

impl<'a> Cff<'a> {
    fn parse(bytes: &'a [u8]) -> Option<Self> {
        let file = Bytes(bytes);
        let (_, at) = index(file, file.byte(2)?)?;
        let (dicts, at) = index(file, at)?;
        let (strings, _) = index(file, at)?;
        let top = operators(dicts.first()?);
        let char_strings = *top.get(&17)?.first()?;
        Some(Self {
            file,
            strings,
            charset: top
                .get(&15)
                .and_then(|operands| operands.first().copied())
                .unwrap_or(0),
            encoding: top
                .get(&16)
                .and_then(|operands| operands.first().copied())
                .unwrap_or(0),
            glyphs: file.short(char_strings)?,
            is_cid_keyed: top.contains_key(&(12 << 8 | 30)),
        })
    }

    fn into_program(self) -> Program {
        if self.is_cid_keyed {
            return Program::default();
        }
        let standard: Vec<&str> = CFF_NAMES.split(' ').collect();
        let name = |string: usize| match string.checked_sub(CFF_STANDARD_STRINGS) {
            Some(own) => self.strings.get(own).map(|name| name.to_vec()),
            None => standard.get(string).map(|name| name.as_bytes().to_vec()),
        };
        let names_by_glyph: HashMap<u16, Vec<u8>> = self
            .charset()
            .into_iter()
            .filter_map(|(glyph, string)| Some((glyph, name(string)?)))
            .collect();
        let names_by_code = self
            .codes()
            .unwrap_or_default()
            .into_iter()
            .filter_map(|(code, glyph)| Some((code, names_by_glyph.get(&glyph)?.clone())))
            .collect();
        Program {
            names_by_code,
            names_by_glyph,
            chars_by_glyph: HashMap::new(),
        }
    }

    /// The string of each glyph. What is read before the end of a broken table counts.
    fn charset(&self) -> Vec<(u16, usize)> {
        let mut found = Vec::new();
        if self.charset <= 2 {
            // The predefined ones are the strings in order, expert ones aside.
            let count = if self.charset == 0 {
                self.glyphs.min(229)
            } else {
                0
            };
            found.extend((1..count).filter_map(|glyph| Some((u16::try_from(glyph).ok()?, glyph))));
            return found;
        }
        let Some(format) = self.file.byte(self.charset) else {
            return found;
        };
        let (mut at, mut glyph) = (self.charset + 1, 1_usize);
        while glyph < self.glyphs {
            let Some(first) = self.file.short(at) else { break };
            let (more, length) = match format {
                0 => (Some(0), 2),
                1 => (self.file.byte(at + 2), 3),
                _ => (self.file.short(at + 2), 4),
            };
            let Some(more) = more else { break };
            for offset in 0..=more {
                if glyph >= self.glyphs {
                    break;
                }
                found.extend(u16::try_from(glyph).ok().map(|glyph| (glyph, first + offset)));
                glyph += 1;
            }
            at += length;
        }
        found
    }

    /// The glyph of each code, where the font has an encoding of its own.
    fn codes(&self) -> Option<Vec<(u8, u16)>> {
        if self.encoding <= 1 {
            return None;
        }
        let format = self.file.byte(self.encoding)?;
        let count = self.file.byte(self.encoding + 1)?;
        let mut found = Vec::new();
        let mut glyph = 1_u16;
        for number in 0..count {
            let (first, more) = match format & 0x7f {
                0 => (self.file.byte(self.encoding + 2 + number)?, 0),
                _ => {
                    let at = self.encoding + 2 + number * 2;
                    (self.file.byte(at)?, self.file.byte(at + 1)?)
                }
            };
            for code in first..=first + more {
                found.extend(u8::try_from(code).ok().map(|code| (code, glyph)));
                glyph = glyph.checked_add(1)?;
            }
        }
        Some(found)
    }
}

/// The entries of an index, and the place behind it.
fn index(file: Bytes<'_>, at: usize) -> Option<(Vec<&[u8]>, usize)> {
    let count = file.short(at)?;
    if count == 0 {
        return Some((Vec::new(), at + 2));
    }
    let size = file.byte(at + 2)?;
    let offset = |number: usize| {
        let at = at + 3 + number * size;
        (0..size.min(4)).try_fold(0_usize, |value, byte| Some(value << 8 | file.byte(at + byte)?))
    };
    let data = at + 2 + (count + 1) * size;
    let mut entries = Vec::with_capacity(count);
    for number in 0..count {
        entries.push(file.slice(data + offset(number)?, data + offset(number + 1)?)?);
    }
    Some((entries, data + offset(count)?))
}

/// The operators of a dictionary with their whole, positive operands.
fn operators(bytes: &[u8]) -> HashMap<usize, Vec<usize>> {
    let dict = Bytes(bytes);
    let mut found = HashMap::new();
    let mut operands: Vec<usize> = Vec::new();
    let mut at = 0;
    while let Some(first) = dict.byte(at) {
        at += 1;
        match first {
            0..=21 => {
                let operator = if first == 12 {
                    at += 1;
                    12 << 8 | dict.byte(at - 1).unwrap_or(0)
                } else {
                    first
                };
                found.insert(operator, std::mem::take(&mut operands));
            }
            28 => {
                operands.push(dict.short(at).unwrap_or(0));
                at += 2;
            }
            29 => {
                operands.push(dict.long(at).unwrap_or(0));
                at += 4;
            }
            // Digits, two in a byte, up to a mark of the end; none of the operands that matter is one.
            30 => {
                while dict.byte(at).is_some_and(|byte| byte & 0xf != 0xf) {
                    at += 1;
                }
                at += 1;
                operands.push(0);
            }
            32..=246 => operands.push(first.saturating_sub(139)),
            247..=250 => {
                operands.push((first - 247) * 256 + dict.byte(at).unwrap_or(0) + 108);
                at += 1;
            }
            251..=254 => {
                operands.push(0);
                at += 1;
            }
            _ => {}
        }
    }
    found
}
