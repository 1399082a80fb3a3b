//! Percent-encoding in its normal form (RFC 3986, sections 6.2.2.1 and 6.2.2.2).

/// `text` with upper-case escapes, unreserved characters written plainly, and everything that is not visible ASCII
/// escaped. A `%` that begins no escape stays, and begins none afterwards either.
pub(super) fn normalize(text: &str) -> String {
    normalize_bytes(text.as_bytes())
}

/// Like [`normalize`], for text of an unknown charset.
pub(super) fn normalize_bytes(bytes: &[u8]) -> String {
    let mut normal = String::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte == b'%'
            && let Some((value, after)) = escape(after)
        {
            rest = after;
            let plainly = is_unreserved(value) && !would_end_escape(&normal, value);
            push(&mut normal, value, plainly);
        } else {
            push(&mut normal, byte, byte.is_ascii_graphic());
        }
    }
    normal
}

fn push(normal: &mut String, byte: u8, plainly: bool) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    if plainly {
        normal.push(char::from(byte));
    } else {
        normal.push('%');
        normal.push(char::from(HEX[usize::from(byte >> 4)]));
        normal.push(char::from(HEX[usize::from(byte & 15)]));
    }
}

/// Whether a `%` that begins no escape would begin one with `byte` behind it: `%a` with a `0`.
fn would_end_escape(normal: &str, byte: u8) -> bool {
    let is_begun = match normal.as_bytes() {
        [.., b'%'] => true,
        [.., b'%', digit] => digit.is_ascii_hexdigit(),
        _ => false,
    };
    is_begun && byte.is_ascii_hexdigit()
}

/// The value of the two hexadecimal digits that follow a `%`, and what follows them.
fn escape(after_percent: &[u8]) -> Option<(u8, &[u8])> {
    let (digits, rest) = after_percent.split_at_checked(2)?;
    let value = |digit: u8| char::from(digit).to_digit(16);
    let byte = value(digits[0])? * 16 + value(digits[1])?;
    Some((u8::try_from(byte).ok()?, rest))
}

fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_have_one_spelling() {
        assert_eq!(normalize("%7e%2f%4a%zz%"), "~%2FJ%zz%");
        assert_eq!(normalize("é b"), "%C3%A9%20b");
    }

    #[test]
    fn what_is_no_escape_does_not_become_one() {
        for text in ["%a%30", "%%30%30", "%%41%42", "%a%%30"] {
            assert_eq!(normalize(&normalize(text)), normalize(text), "{text}");
        }
        assert_eq!(normalize("%a%30"), "%a%30");
        assert_eq!(normalize("%z%30"), "%z0");
    }
}
