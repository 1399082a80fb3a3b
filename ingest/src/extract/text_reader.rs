//! Text that is decoded as it is read, for files that nobody holds whole.

use std::io::{self, Read};

use encoding_rs::{Decoder, Encoding};

use super::text::{encoding_of_window, marked_encoding};

/// What is read at once.
const CHUNK_BYTES: usize = 64 << 10;

/// Bytes that tell an encoding; fewer may mislead.
const TELLING_BYTES: usize = 4 << 10;

/// What stands before the first byte that tells.
const BEFORE_BYTES: usize = 1_024;

/// Reads any of the usual encodings as UTF-8. Which one it is shows at the beginning, or at the first byte beyond ASCII.
pub(super) struct TextReader<R> {
    source: R,
    /// What is said of the encoding.
    declared: Option<&'static Encoding>,
    /// None as long as all is ASCII.
    decoder: Option<Decoder>,
    has_begun: bool,
    is_at_end: bool,
    text: Vec<u8>,
    at: usize,
}

impl<R: Read> TextReader<R> {
    pub(super) fn new(source: R, declared: Option<&'static Encoding>) -> Self {
        Self {
            source,
            declared,
            decoder: None,
            has_begun: false,
            is_at_end: false,
            text: Vec::new(),
            at: 0,
        }
    }

    fn fill(&mut self) -> io::Result<()> {
        let mut raw = self.read_chunk()?;
        if self.decoder.is_none() {
            self.decoder = self.find_decoder(&mut raw)?;
        }
        self.has_begun = true;
        self.at = 0;
        self.text = match &mut self.decoder {
            None => raw,
            Some(decoder) => {
                let length = decoder.max_utf8_buffer_length(raw.len());
                let mut text = String::with_capacity(length.unwrap_or(raw.len() * 3));
                let _ = decoder.decode_to_string(&raw, &mut text, self.is_at_end);
                text.into_bytes()
            }
        };
        Ok(())
    }

    fn read_chunk(&mut self) -> io::Result<Vec<u8>> {
        let mut raw = Vec::with_capacity(CHUNK_BYTES);
        (&mut self.source)
            .take(CHUNK_BYTES as u64)
            .read_to_end(&mut raw)?;
        self.is_at_end = raw.len() < CHUNK_BYTES;
        Ok(raw)
    }

    /// The decoder that `raw` asks for, which grows where it is too short to tell.
    fn find_decoder(&mut self, raw: &mut Vec<u8>) -> io::Result<Option<Decoder>> {
        if !self.has_begun
            && let Some(encoding) = marked_encoding(raw)
        {
            return Ok(Some(encoding.new_decoder_with_bom_removal()));
        }
        let Some(first) = raw.iter().position(|byte| !byte.is_ascii()) else {
            return Ok(None);
        };
        if raw.len() - first < TELLING_BYTES && !self.is_at_end {
            let more = self.read_chunk()?;
            raw.extend(more);
        }
        let window = &raw[first.saturating_sub(BEFORE_BYTES)..];
        let encoding = encoding_of_window(window, self.declared);
        Ok(Some(encoding.new_decoder_without_bom_handling()))
    }
}

impl<R: Read> Read for TextReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.at == self.text.len() && !self.is_at_end {
            self.fill()?;
        }
        let rest = &self.text[self.at..];
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        self.at += count;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use encoding_rs::{WINDOWS_1251, WINDOWS_1252};

    use super::*;

    /// Gives a few bytes at a time, as pipes do.
    struct Dripping<'a>(&'a [u8]);

    impl Read for Dripping<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let count = self.0.len().min(buffer.len()).min(1_000);
            buffer[..count].copy_from_slice(&self.0[..count]);
            self.0 = &self.0[count..];
            Ok(count)
        }
    }

    fn read(bytes: &[u8]) -> String {
        let mut text = String::new();
        let read = TextReader::new(Dripping(bytes), None).read_to_string(&mut text);
        assert!(read.is_ok());
        text
    }

    #[test]
    fn encodings_are_told_wherever_they_show() {
        let words = "Überprüfung der Größe: 5 € für Zürich\n";
        for before in [0, 10, CHUNK_BYTES - 1, CHUNK_BYTES, 3 * CHUNK_BYTES + 5] {
            let text = format!("{}{}", "a".repeat(before), words.repeat(4_000));
            let (windows, _, _) = WINDOWS_1252.encode(&text);

            assert!(read(text.as_bytes()) == text, "UTF-8 after {before}");
            assert!(read(&windows) == text, "Windows-1252 after {before}");
        }
        let russian = "Возврат товара возможен в течение тридцати дней\n".repeat(3_000);
        let (windows, _, _) = WINDOWS_1251.encode(&russian);
        assert!(read(&windows) == russian);
    }

    #[test]
    fn marks_tell_and_are_no_text() {
        let words = "Größe ".repeat(30_000);
        let utf16: Vec<u8> = words.encode_utf16().flat_map(u16::to_le_bytes).collect();

        assert!(read(&[b"\xff\xfe".as_slice(), &utf16].concat()) == words);
        assert!(read(&utf16) == words);
        assert!(read(&[b"\xef\xbb\xbf", words.as_bytes()].concat()) == words);
        assert!(read(b"\xef\xbb\xbfplain") == "plain");
    }
}
