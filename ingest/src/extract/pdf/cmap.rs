//! Character maps: which text a character code stands for, and how long codes are.

use std::collections::HashMap;

use super::lexer::{Lexer, Token};

/// Ranges that tell the lengths of codes; real maps have a handful, and each code is looked up in all of them.
const MAX_CODE_SPACES: usize = 100;

/// Codes of one map; two-byte fonts have at most this many.
const MAX_CODES: usize = 70_000;

#[derive(Debug, Default)]
pub(super) struct CMap {
    texts: HashMap<u32, String>,
    /// First code, last code, glyph of the first.
    glyphs: Vec<(u32, u32, u32)>,
    /// Length in bytes, first and last code.
    code_spaces: Vec<(usize, u32, u32)>,
}

impl CMap {
    /// Reads what can be read; a broken map leaves codes without text.
    pub(super) fn parse(source: &[u8]) -> Self {
        let mut map = Self::default();
        let mut operands: Vec<Operand> = Vec::new();
        let mut array: Option<Vec<Vec<u8>>> = None;
        for token in Lexer::new(source) {
            match token {
                Token::ArrayStart => array = Some(Vec::new()),
                Token::ArrayEnd => operands.extend(array.take().map(Operand::Array)),
                Token::Number(number) if array.is_none() => operands.push(Operand::Number(number as u32)),
                Token::Text(text) => match &mut array {
                    Some(texts) => texts.push(text.into_owned()),
                    None => operands.push(Operand::Text(text.into_owned())),
                },
                Token::Operator(operator) => {
                    map.apply(operator, &operands);
                    operands.clear();
                }
                _ => {}
            }
            if map.texts.len() > MAX_CODES || map.glyphs.len() > MAX_CODES || operands.len() > 3 * MAX_CODES {
                break;
            }
        }
        map.glyphs.sort_unstable();
        map
    }

    pub(super) fn is_empty(&self) -> bool {
        self.texts.is_empty()
    }

    /// The number that selects the glyph of this code; the code itself where the map does not say.
    pub(super) fn glyph(&self, code: u32) -> u32 {
        let after = self.glyphs.partition_point(|(first, ..)| *first <= code);
        match after.checked_sub(1).and_then(|at| self.glyphs.get(at)) {
            Some((first, last, glyph)) if code <= *last => glyph.saturating_add(code - first),
            _ => code,
        }
    }

    pub(super) fn text(&self, code: u32) -> Option<&str> {
        self.texts.get(&code).map(String::as_str)
    }

    /// The bytes of the code at the start of `bytes`, if this map says so.
    pub(super) fn code_length(&self, bytes: &[u8]) -> Option<usize> {
        (1..=bytes.len().min(4)).find(|length| {
            let code = code_of(&bytes[..*length]);
            self.code_spaces
                .iter()
                .any(|(known, first, last)| known == length && (*first..=*last).contains(&code))
        })
    }

    fn apply(&mut self, operator: &[u8], operands: &[Operand]) {
        match operator {
            b"endcodespacerange" => {
                for pair in operands.chunks_exact(2) {
                    if let [Operand::Text(first), Operand::Text(last)] = pair
                        && self.code_spaces.len() < MAX_CODE_SPACES
                    {
                        self.code_spaces
                            .push((first.len(), code_of(first), code_of(last)));
                    }
                }
            }
            b"endbfchar" => {
                for pair in operands.chunks_exact(2) {
                    if let [Operand::Text(code), Operand::Text(text)] = pair {
                        self.texts.insert(code_of(code), utf16(text));
                    }
                }
            }
            b"endcidchar" => {
                for pair in operands.chunks_exact(2) {
                    if let [Operand::Text(code), Operand::Number(glyph)] = pair {
                        self.glyphs.push((code_of(code), code_of(code), *glyph));
                    }
                }
            }
            b"endcidrange" => {
                for range in operands.chunks_exact(3) {
                    if let [Operand::Text(first), Operand::Text(last), Operand::Number(glyph)] = range {
                        self.glyphs.push((code_of(first), code_of(last), *glyph));
                    }
                }
            }
            b"endbfrange" => {
                for range in operands.chunks_exact(3) {
                    self.add_range(range);
                }
            }
            _ => {}
        }
    }

    fn add_range(&mut self, range: &[Operand]) {
        let [Operand::Text(first), Operand::Text(last), target] = range else {
            return;
        };
        let (first, last) = (code_of(first), code_of(last));
        let codes = (first..=last).take(MAX_CODES.saturating_sub(self.texts.len()));
        match target {
            Operand::Array(texts) => self
                .texts
                .extend(codes.zip(texts).map(|(code, text)| (code, utf16(text)))),
            Operand::Text(text) => {
                // The last unit counts up through the range.
                let mut units = units_of(text);
                let Some(base) = units.pop() else { return };
                for (code, offset) in codes.zip(0_u32..) {
                    units.push(base.wrapping_add(offset as u16));
                    self.texts.insert(code, String::from_utf16_lossy(&units));
                    units.pop();
                }
            }
            Operand::Number(_) => {}
        }
    }
}

#[derive(Debug)]
enum Operand {
    Number(u32),
    Text(Vec<u8>),
    Array(Vec<Vec<u8>>),
}

pub(super) fn code_of(bytes: &[u8]) -> u32 {
    bytes
        .iter()
        .take(4)
        .fold(0, |code, byte| code << 8 | u32::from(*byte))
}

fn units_of(bytes: &[u8]) -> Vec<u16> {
    if let [single] = bytes {
        return vec![u16::from(*single)];
    }
    bytes
        .chunks_exact(2)
        .map(|pair| u16::from_be_bytes([pair[0], pair[1]]))
        .collect()
}

fn utf16(bytes: &[u8]) -> String {
    String::from_utf16_lossy(&units_of(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_ranges_and_lists_are_mapped() {
        let map = CMap::parse(
            b"1 begincodespacerange <0000> <FFFF> endcodespacerange 2 beginbfchar <0001> <0041> <0002> <00660069>
              endbfchar 2 beginbfrange <0010> <0012> <0061> <0020> <0021> [<0078> <0079>] endbfrange",
        );

        let texts: Vec<Option<&str>> = [1, 2, 0x11, 0x21, 0x99]
            .into_iter()
            .map(|code| map.text(code))
            .collect();

        assert_eq!(texts, [Some("A"), Some("fi"), Some("b"), Some("y"), None]);
        assert_eq!(map.code_length(&[0, 1, 0, 2]), Some(2));
    }

    #[test]
    fn a_range_over_all_codes_is_bounded() {
        let map = CMap::parse(b"1 beginbfrange <00000000> <FFFFFFFF> <0041> endbfrange");

        assert!(map.texts.len() <= MAX_CODES);
    }
}
