//! The words, groups and bytes of a Rich Text file.

/// Digits of a number that is believed.
const MAX_DIGITS: usize = 10;

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Token<'a> {
    Open,
    Close,
    /// `\*`: the group may be passed over.
    Ignorable,
    /// `\par`, `\u8364`: a control word and its number.
    Word(&'a str, Option<i32>),
    /// `\~`: a control symbol.
    Symbol(u8),
    /// `\'e4`: a byte in the encoding of its font.
    Byte(u8),
    Text(&'a [u8]),
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

    fn control(&mut self) -> Option<Token<'a>> {
        let first = self.peek()?;
        if !first.is_ascii_alphabetic() {
            self.at += 1;
            return Some(match first {
                b'*' => Token::Ignorable,
                b'\'' => Token::Byte(self.hexadecimal()),
                symbol => Token::Symbol(symbol),
            });
        }
        let start = self.at;
        while self.peek().is_some_and(|byte| byte.is_ascii_alphabetic()) {
            self.at += 1;
        }
        let name = std::str::from_utf8(&self.bytes[start..self.at]).unwrap_or_default();
        let number = self.number();
        if self.peek() == Some(b' ') {
            self.at += 1;
        }
        // Raw bytes may hold braces and backslashes.
        if name == "bin" {
            let count = usize::try_from(number.unwrap_or(0)).unwrap_or(0);
            self.at = self.at.saturating_add(count).min(self.bytes.len());
        }
        Some(Token::Word(name, number))
    }

    fn number(&mut self) -> Option<i32> {
        let start = self.at;
        let is_signed = self.peek() == Some(b'-');
        let digits_at = start + usize::from(is_signed);
        let digits = self.bytes[digits_at.min(self.bytes.len())..]
            .iter()
            .take(MAX_DIGITS)
            .take_while(|byte| byte.is_ascii_digit())
            .count();
        if digits == 0 {
            return None;
        }
        self.at = digits_at + digits;
        let text = std::str::from_utf8(&self.bytes[start..self.at]).ok()?;
        let number: i64 = text.parse().ok()?;
        Some(number.clamp(i64::from(i32::MIN), i64::from(i32::MAX)) as i32)
    }

    fn hexadecimal(&mut self) -> u8 {
        let digits = self.bytes.get(self.at..self.at + 2);
        let byte = digits
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        if byte.is_some() {
            self.at += 2;
        }
        byte.unwrap_or(b' ')
    }
}

impl<'a> Iterator for Lexer<'a> {
    type Item = Token<'a>;

    fn next(&mut self) -> Option<Token<'a>> {
        loop {
            let byte = self.peek()?;
            self.at += 1;
            match byte {
                b'{' => return Some(Token::Open),
                b'}' => return Some(Token::Close),
                b'\\' => return self.control(),
                // Line ends in the file are none in the text.
                b'\r' | b'\n' | 0 => {}
                _ => {
                    let start = self.at - 1;
                    let rest = &self.bytes[start..];
                    let length = rest
                        .iter()
                        .position(|byte| matches!(byte, b'{' | b'}' | b'\\' | b'\r' | b'\n' | 0))
                        .unwrap_or(rest.len());
                    self.at = start + length;
                    return Some(Token::Text(&rest[..length]));
                }
            }
        }
    }
}
