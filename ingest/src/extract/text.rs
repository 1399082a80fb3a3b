//! Plain text in any of the usual encodings, and the decoding that the other text formats share.

use std::borrow::Cow;

use chardetng::{EncodingDetector, Iso2022JpDetection, Utf8Detection};
use encoding_rs::{Encoding, UTF_8, UTF_16BE, UTF_16LE};

use crate::document::DocumentBuilder;
use crate::{BlockKind, ExtractError, ExtractedDocument, Hints, Limits};

/// How much of a file is looked at to tell text from binary data and to guess its encoding.
const DETECT_WINDOW: usize = 64 << 10;

/// Text has hardly any control characters, random bytes have one in nine.
const MAX_CONTROL_SHARE: f32 = 0.01;

/// Whole characters beyond ASCII for each broken one in UTF-8 that was cut or glued carelessly.
const WHOLE_PER_BROKEN: usize = 10;

/// Reads plain text: a blank line ends a paragraph.
pub(crate) fn extract(
    bytes: &[u8],
    hints: &Hints,
    limits: &Limits,
) -> Result<ExtractedDocument, ExtractError> {
    let text = decode_in_place(bytes, hinted_encoding(hints), limits)?;
    let mut builder = DocumentBuilder::new(limits);
    write_paragraphs(&text, &mut builder);
    builder.finish()
}

/// Adds the paragraphs of a plain text.
pub(crate) fn write_paragraphs(text: &str, builder: &mut DocumentBuilder) {
    for paragraph in paragraphs(text) {
        if builder.is_full() {
            break;
        }
        builder.push(BlockKind::Paragraph, paragraph, None);
    }
}

/// The encoding that the server named.
pub(crate) fn hinted_encoding(hints: &Hints) -> Option<&'static Encoding> {
    Encoding::for_label(hints.charset.as_ref()?.as_bytes())
}

/// Decodes a whole file. `declared` is what is said of it; a byte order mark wins over that, and so does
/// valid UTF-8, which no other text of more than a few letters is by chance.
pub(crate) fn decode(
    bytes: &[u8],
    declared: Option<&'static Encoding>,
    limits: &Limits,
) -> Result<String, ExtractError> {
    decode_in_place(bytes, declared, limits).map(Cow::into_owned)
}

/// As [`decode`], without a copy of what is UTF-8 already.
pub(crate) fn decode_in_place<'a>(
    bytes: &'a [u8],
    declared: Option<&'static Encoding>,
    limits: &Limits,
) -> Result<Cow<'a, str>, ExtractError> {
    if bytes.len() as u64 > limits.max_unpacked_bytes {
        return Err(ExtractError::too_large("too much text"));
    }
    let (text, _, _) = encoding_of(bytes, declared).decode(bytes);
    Ok(text)
}

/// Decodes a part that says nothing of its encoding. UTF-8 is taken as it is, without a copy.
pub(crate) fn decode_owned(bytes: Vec<u8>, limits: &Limits) -> Result<String, ExtractError> {
    if bytes.len() as u64 > limits.max_unpacked_bytes {
        return Err(ExtractError::too_large("too much text"));
    }
    match String::from_utf8(bytes) {
        Ok(text) if text.starts_with('\u{feff}') => Ok(text['\u{feff}'.len_utf8()..].to_owned()),
        Ok(text) if !text.contains('\0') => Ok(text),
        Ok(text) => decode(text.as_bytes(), None, limits),
        Err(error) => decode(error.as_bytes(), None, limits),
    }
}

/// The first `window` bytes as text, or `None` if these are not the bytes of a text.
pub(crate) fn decode_sample(bytes: &[u8], window: usize) -> Option<String> {
    let head = &bytes[..bytes.len().min(DETECT_WINDOW)];
    let encoding = encoding_of(head, None);
    let (text, _, _) = encoding.decode(head);
    let mut chars = 0_usize;
    let mut controls = 0_usize;
    for c in text.chars() {
        chars += 1;
        if matches!(c, '\0') {
            return None;
        }
        if c.is_control() && !matches!(c, '\n' | '\r' | '\t' | '\u{c}' | '\u{85}') {
            controls += 1;
        }
    }
    if controls as f32 > chars as f32 * MAX_CONTROL_SHARE + 1.0 {
        return None;
    }
    let mut cut = text.len().min(window);
    while !text.is_char_boundary(cut) {
        cut -= 1;
    }
    Some(text[..cut].to_owned())
}

fn encoding_of(bytes: &[u8], declared: Option<&'static Encoding>) -> &'static Encoding {
    let head = &bytes[..bytes.len().min(DETECT_WINDOW)];
    if let Some(encoding) = marked_encoding(head) {
        return encoding;
    }
    if is_utf8_so_far(head) && std::str::from_utf8(bytes).is_ok() {
        return UTF_8;
    }
    if let Some(encoding) = declared.filter(|declared| *declared != UTF_8) {
        return encoding;
    }
    if is_damaged_utf8(head) {
        return UTF_8;
    }
    let mut detector = EncodingDetector::new(Iso2022JpDetection::Deny);
    detector.feed(&first_non_ascii_window(bytes), true);
    detector.guess(None, Utf8Detection::Allow)
}

/// The encoding that the beginning of a file shows.
pub(super) fn marked_encoding(head: &[u8]) -> Option<&'static Encoding> {
    Encoding::for_bom(head)
        .map(|(encoding, _)| encoding)
        .or_else(|| utf16_without_mark(&head[..head.len().min(DETECT_WINDOW)]))
}

/// The encoding of a text of which only a part is at hand, the first with bytes beyond ASCII.
pub(super) fn encoding_of_window(window: &[u8], declared: Option<&'static Encoding>) -> &'static Encoding {
    if is_utf8_so_far(window) {
        return UTF_8;
    }
    if let Some(encoding) = declared.filter(|declared| *declared != UTF_8) {
        return encoding;
    }
    if is_damaged_utf8(window) {
        return UTF_8;
    }
    let mut detector = EncodingDetector::new(Iso2022JpDetection::Deny);
    detector.feed(window, false);
    detector.guess(None, Utf8Detection::Allow)
}

/// The guess needs bytes that tell: the window starts shortly before the first non-ASCII byte.
fn first_non_ascii_window(bytes: &[u8]) -> Vec<u8> {
    let first = bytes
        .iter()
        .position(|byte| !byte.is_ascii())
        .unwrap_or(0)
        .saturating_sub(1_024);
    bytes[first..bytes.len().min(first + DETECT_WINDOW)].to_vec()
}

/// Whether `head` is valid UTF-8 apart from a character cut at its end.
fn is_utf8_so_far(head: &[u8]) -> bool {
    std::str::from_utf8(head).map_or_else(|error| error.error_len().is_none(), |_| true)
}

/// Whether a few broken characters stand among many whole ones beyond ASCII. Other encodings are invalid as
/// UTF-8 nearly everywhere.
fn is_damaged_utf8(head: &[u8]) -> bool {
    let mut whole = 0_usize;
    let mut broken = 0_usize;
    for part in head.utf8_chunks() {
        whole += part.valid().chars().filter(|c| !c.is_ascii()).count();
        broken += usize::from(!part.invalid().is_empty());
    }
    whole > 0 && whole >= WHOLE_PER_BROKEN * broken
}

/// UTF-16 of mostly Latin text has a zero in every other byte, which no other text has.
fn utf16_without_mark(head: &[u8]) -> Option<&'static Encoding> {
    if head.len() < 4 || (!head.len().is_multiple_of(2) && head.len() < DETECT_WINDOW) {
        return None;
    }
    let zeros_at = |offset: usize| {
        head.iter()
            .skip(offset)
            .step_by(2)
            .filter(|byte| **byte == 0)
            .count()
    };
    let (even, odd) = (zeros_at(0), zeros_at(1));
    let half = head.len() / 2;
    if odd * 10 > half * 7 && even * 20 < half {
        return Some(UTF_16LE);
    }
    if even * 10 > half * 7 && odd * 20 < half {
        return Some(UTF_16BE);
    }
    None
}

/// The parts between blank lines.
fn paragraphs(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        while !rest.is_empty() {
            let (paragraph, after) = split_at_blank_line(rest);
            rest = after;
            if !paragraph.trim().is_empty() {
                return Some(paragraph);
            }
        }
        None
    })
}

fn split_at_blank_line(text: &str) -> (&str, &str) {
    let mut offset = 0;
    for line in text.split_inclusive('\n') {
        if offset > 0 && line.trim().is_empty() {
            return (&text[..offset], &text[offset + line.len()..]);
        }
        offset += line.len();
    }
    (text, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> String {
        extract(bytes, &Hints::default(), &Limits::default())
            .expect("the sample is text")
            .text
    }

    #[test]
    fn blank_lines_separate_paragraphs() {
        let document = extract(
            b"one\ntwo\r\n \r\nthree\n\n\n\nfour",
            &Hints::default(),
            &Limits::default(),
        )
        .expect("text");

        assert_eq!(document.text, "one\ntwo\n\nthree\n\nfour");
        assert_eq!(document.blocks.len(), 3);
    }

    #[test]
    fn usual_encodings_are_read() {
        let words = "Überprüfung der Größe: 5 € für Zürich";
        let utf16: Vec<u8> = words.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let (windows, _, _) = encoding_rs::WINDOWS_1252.encode(words);
        let (russian, _, _) =
            encoding_rs::WINDOWS_1251.encode("Возврат товара возможен в течение тридцати дней");

        assert_eq!(read(words.as_bytes()), words);
        assert_eq!(read(&[b"\xef\xbb\xbf", words.as_bytes()].concat()), words);
        assert_eq!(read(&utf16), words);
        assert_eq!(read(&[b"\xff\xfe".as_slice(), &utf16].concat()), words);
        assert_eq!(read(&windows), words);
        assert_eq!(read(&russian), "Возврат товара возможен в течение тридцати дней");
    }

    #[test]
    fn text_of_white_space_has_no_text() {
        assert_eq!(
            extract("\u{200b} \n".as_bytes(), &Hints::default(), &Limits::default()),
            Err(ExtractError::NoText { scanned: false })
        );
    }
}
