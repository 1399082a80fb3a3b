//! Tokens of a content stream. Lenient, as viewers are: whatever cannot be understood is skipped, and nesting
//! costs no recursion.

use std::borrow::Cow;

/// Names and operators are short; strings may be as long as the stream.
const MAX_WORD_BYTES: usize = 128;

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Token<'a> {
    Number(f32),
    Name(Cow<'a, [u8]>),
    /// The bytes of a literal or hexadecimal string.
    Text(Cow<'a, [u8]>),
    ArrayStart,
    ArrayEnd,
    DictStart,
    DictEnd,
    Operator(&'a [u8]),
}

pub(super) struct Lexer<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Lexer<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn skip_space(&mut self) {
        while let Some(byte) = self.peek() {
            if byte == b'%' {
                while self.peek().is_some_and(|byte| byte != b'\n' && byte != b'\r') {
                    self.at += 1;
                }
            } else if is_space(byte) {
                self.at += 1;
            } else {
                return;
            }
        }
    }

    /// Jumps behind the data of an inline image, whose start the caller has just read.
    pub(super) fn skip_inline_image(&mut self) {
        while self.at < self.bytes.len() {
            let rest = &self.bytes[self.at..];
            let ends_here = rest.starts_with(b"EI")
                && (self.at == 0 || is_space(self.bytes[self.at - 1]))
                && rest.get(2).is_none_or(|byte| is_space(*byte));
            // Image data may hold these letters too; what follows the true end reads as text.
            if ends_here
                && rest[2..]
                    .iter()
                    .take(12)
                    .all(|byte| is_space(*byte) || byte.is_ascii_graphic())
            {
                self.at += 2;
                return;
            }
            self.at += 1;
        }
    }

    fn word(&mut self) -> &'a [u8] {
        let start = self.at;
        while self
            .peek()
            .is_some_and(|byte| !is_space(byte) && !is_delimiter(byte))
        {
            self.at += 1;
        }
        &self.bytes[start..self.at]
    }

    fn name(&mut self) -> Token<'a> {
        let raw = self.word();
        if !raw.contains(&b'#') {
            return Token::Name(Cow::Borrowed(&raw[..raw.len().min(MAX_WORD_BYTES)]));
        }
        let mut name = Vec::with_capacity(raw.len().min(MAX_WORD_BYTES));
        let mut at = 0;
        while at < raw.len() && name.len() < MAX_WORD_BYTES {
            let escaped = (raw[at] == b'#')
                .then(|| hex_pair(raw.get(at + 1..at + 3)?))
                .flatten();
            match escaped {
                Some(byte) => {
                    name.push(byte);
                    at += 3;
                }
                None => {
                    name.push(raw[at]);
                    at += 1;
                }
            }
        }
        Token::Name(Cow::Owned(name))
    }

    fn literal(&mut self) -> Token<'a> {
        // Nearly all strings stand as they are meant.
        let rest = &self.bytes[self.at..];
        let plain = rest.iter().position(|byte| matches!(byte, b'(' | b')' | b'\\'));
        if let Some(end) = plain.filter(|end| rest[*end] == b')') {
            self.at += end + 1;
            return Token::Text(Cow::Borrowed(&rest[..end]));
        }
        let mut text = Vec::new();
        let mut depth = 1_usize;
        while let Some(byte) = self.peek() {
            self.at += 1;
            match byte {
                b'(' => depth += 1,
                b')' => {
                    depth -= 1;
                    if depth == 0 {
                        break;
                    }
                }
                b'\\' => {
                    self.escape(&mut text);
                    continue;
                }
                _ => {}
            }
            text.push(byte);
        }
        Token::Text(Cow::Owned(text))
    }

    fn escape(&mut self, text: &mut Vec<u8>) {
        let Some(byte) = self.peek() else { return };
        self.at += 1;
        match byte {
            b'n' => text.push(b'\n'),
            b'r' => text.push(b'\r'),
            b't' => text.push(b'\t'),
            b'b' => text.push(8),
            b'f' => text.push(12),
            b'\r' => {
                if self.peek() == Some(b'\n') {
                    self.at += 1;
                }
            }
            b'\n' => {}
            b'0'..=b'7' => {
                let mut code = u32::from(byte - b'0');
                for _ in 0..2 {
                    let Some(digit @ b'0'..=b'7') = self.peek() else {
                        break;
                    };
                    code = code * 8 + u32::from(digit - b'0');
                    self.at += 1;
                }
                text.push((code & 0xff) as u8);
            }
            other => text.push(other),
        }
    }

    fn hexadecimal(&mut self) -> Token<'a> {
        let mut text = Vec::new();
        let mut high: Option<u8> = None;
        while let Some(byte) = self.peek() {
            self.at += 1;
            if byte == b'>' {
                break;
            }
            let Some(digit) = hex_digit(byte) else { continue };
            match high.take() {
                Some(high) => text.push(high << 4 | digit),
                None => high = Some(digit),
            }
        }
        text.extend(high.map(|high| high << 4));
        Token::Text(Cow::Owned(text))
    }
}

impl<'a> Iterator for Lexer<'a> {
    type Item = Token<'a>;

    fn next(&mut self) -> Option<Token<'a>> {
        loop {
            self.skip_space();
            let byte = self.peek()?;
            match byte {
                b'/' => {
                    self.at += 1;
                    return Some(self.name());
                }
                b'(' => {
                    self.at += 1;
                    return Some(self.literal());
                }
                b'<' if self.bytes.get(self.at + 1) == Some(&b'<') => {
                    self.at += 2;
                    return Some(Token::DictStart);
                }
                b'<' => {
                    self.at += 1;
                    return Some(self.hexadecimal());
                }
                b'>' if self.bytes.get(self.at + 1) == Some(&b'>') => {
                    self.at += 2;
                    return Some(Token::DictEnd);
                }
                b'[' => {
                    self.at += 1;
                    return Some(Token::ArrayStart);
                }
                b']' => {
                    self.at += 1;
                    return Some(Token::ArrayEnd);
                }
                b')' | b'>' | b'{' | b'}' => self.at += 1,
                _ => {
                    let word = self.word();
                    if let Some(number) = number(word) {
                        return Some(Token::Number(number));
                    }
                    return Some(Token::Operator(&word[..word.len().min(MAX_WORD_BYTES)]));
                }
            }
        }
    }
}

/// A number as viewers read it: signs may repeat, what follows a second point is ignored.
fn number(word: &[u8]) -> Option<f32> {
    if !matches!(word.first()?, b'0'..=b'9' | b'+' | b'-' | b'.') {
        return None;
    }
    let digits = word.iter().position(|byte| !matches!(byte, b'+' | b'-'))?;
    let is_negative = word[..digits].contains(&b'-');
    let body = &word[digits..];
    let end = body
        .iter()
        .position(|byte| !byte.is_ascii_digit() && *byte != b'.')
        .unwrap_or(body.len());
    let (mut whole, mut scale, mut behind_point) = (0.0_f64, 1.0_f64, false);
    for byte in &body[..end] {
        match byte {
            b'.' if behind_point => break,
            b'.' => behind_point = true,
            digit => {
                whole = whole * 10.0 + f64::from(digit - b'0');
                scale *= if behind_point { 10.0 } else { 1.0 };
            }
        }
    }
    if end == 0 || !whole.is_finite() || !scale.is_finite() {
        return None;
    }
    let value = (whole / scale) as f32;
    Some(if is_negative { -value } else { value })
}

fn hex_pair(pair: &[u8]) -> Option<u8> {
    let [high, low] = pair else { return None };
    Some(hex_digit(*high)? << 4 | hex_digit(*low)?)
}

fn hex_digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\n' | b'\r' | b'\t' | b'\x0c' | b'\0')
}

fn is_delimiter(byte: u8) -> bool {
    matches!(
        byte,
        b'(' | b')' | b'<' | b'>' | b'[' | b']' | b'{' | b'}' | b'/' | b'%'
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(source: &[u8]) -> Vec<Token<'_>> {
        Lexer::new(source).collect()
    }

    #[test]
    fn all_kinds_of_tokens_are_told_apart() {
        assert_eq!(
            tokens(b"/F#31 12.5 Tf % note\n[(a\\)\\101(b)) -.5 <4142 4>] TJ --3 .5.1"),
            [
                Token::Name(Cow::Borrowed(b"F1")),
                Token::Number(12.5),
                Token::Operator(b"Tf"),
                Token::ArrayStart,
                Token::Text(Cow::Borrowed(b"a)A(b)")),
                Token::Number(-0.5),
                Token::Text(Cow::Borrowed(b"AB@")),
                Token::ArrayEnd,
                Token::Operator(b"TJ"),
                Token::Number(-3.0),
                Token::Number(0.5),
            ]
        );
    }

    #[test]
    fn image_data_is_jumped_over() {
        let source = b"BI /W 1 ID \x00EI\xff\x01 EI Q (x) Tj";
        let mut lexer = Lexer::new(source);
        lexer.by_ref().find(|token| *token == Token::Operator(b"ID"));

        lexer.skip_inline_image();

        assert_eq!(lexer.next(), Some(Token::Operator(b"Q")));
    }
}
