//! Refuses tags with absurdly many attributes before the tokenizer sees them: it compares each attribute with
//! all before it.

use super::elements::raw_kind;
use crate::ExtractError;

/// Attributes of one tag. No element has a hundredth of these.
const MAX_ATTRIBUTES: usize = 2_000;

/// Checks the whole page in one pass.
pub(super) fn refuse_endless_tags(page: &str) -> Result<(), ExtractError> {
    match most_attributes(page) > MAX_ATTRIBUTES {
        true => Err(ExtractError::too_large("an element with too many attributes")),
        false => Ok(()),
    }
}

/// The number of attributes of the tag that has most of them, or one over the limit.
fn most_attributes(page: &str) -> usize {
    let mut scan = Scan {
        bytes: page.as_bytes(),
        at: 0,
        trusts_ends: true,
        most: 0,
    };
    while let Some(offset) = find(&scan.bytes[scan.at..], b"<") {
        scan.at += offset + 1;
        scan.pass_markup();
        if scan.most > MAX_ATTRIBUTES {
            break;
        }
    }
    scan.most
}

/// Follows the tokenizer's way through a page, or sees more tags than it does, never fewer.
struct Scan<'a> {
    bytes: &'a [u8],
    at: usize,
    /// Comments and scripts end where they seem to. No longer so after a script with a script in a comment,
    /// whose end is hard to tell: from there on everything is looked at.
    trusts_ends: bool,
    /// Attributes of the tag that has most of them so far.
    most: usize,
}

impl Scan<'_> {
    /// Passes what begins with the `<` just read.
    fn pass_markup(&mut self) {
        let rest = &self.bytes[self.at..];
        match rest {
            [b'!', b'-', b'-', ..] if self.trusts_ends => self.at += comment_length(rest),
            [b'/', letter, ..] if letter.is_ascii_alphabetic() => {
                self.at += 1;
                self.pass_tag();
            }
            [letter, ..] if letter.is_ascii_alphabetic() => {
                let name = self.pass_tag();
                if self.trusts_ends && raw_kind(&name).is_some() {
                    self.pass_raw(&name);
                }
            }
            // A declaration, or a comment by mistake.
            [b'!' | b'?' | b'/', ..] if self.trusts_ends => {
                self.at += find(rest, b">").unwrap_or(rest.len());
            }
            _ => {}
        }
    }

    /// Passes a tag and gives its name.
    fn pass_tag(&mut self) -> String {
        let (length, attributes) = scan_tag(&self.bytes[self.at..]);
        self.most = self.most.max(attributes);
        let tag = &self.bytes[self.at..self.at + length];
        let name_length = tag.iter().position(|byte| is_gap(*byte)).unwrap_or(length);
        self.at += length;
        String::from_utf8_lossy(&tag[..name_length]).to_ascii_lowercase()
    }

    /// Passes the content of an element that holds plain characters.
    fn pass_raw(&mut self, name: &str) {
        let content = &self.bytes[self.at..];
        let length = raw_length(content, name);
        if name == "script"
            && let Some(comment) = find(&content[..length], b"<!--")
            && raw_start(&content[comment..length])
        {
            self.trusts_ends = false;
            return;
        }
        self.at += length;
    }
}

/// Where in a tag a byte stands.
#[derive(Clone, Copy)]
enum Part {
    TagName,
    BeforeName,
    Name,
    AfterName,
    BeforeValue,
    Value,
    Quoted(u8),
}

/// The length of a tag from its name to its `>`, and the number of its attributes.
fn scan_tag(bytes: &[u8]) -> (usize, usize) {
    let mut attributes = 0;
    let mut part = Part::TagName;
    for (offset, byte) in bytes.iter().enumerate() {
        part = match (part, byte) {
            (Part::Quoted(quote), byte) if quote == *byte => Part::BeforeName,
            (Part::Quoted(_), _) => continue,
            (_, b'>') => return (offset, attributes),
            (Part::BeforeValue, quote @ (b'"' | b'\'')) => Part::Quoted(*quote),
            (Part::BeforeValue, byte) if is_space(*byte) => part,
            (Part::BeforeValue, _) => Part::Value,
            (Part::Value, byte) => {
                if is_space(*byte) {
                    Part::BeforeName
                } else {
                    part
                }
            }
            (Part::Name | Part::AfterName, b'=') => Part::BeforeValue,
            (_, b'/') => Part::BeforeName,
            (Part::Name | Part::AfterName, byte) if is_space(*byte) => Part::AfterName,
            (_, byte) if is_space(*byte) => Part::BeforeName,
            (Part::TagName | Part::Name, _) => part,
            (Part::BeforeName | Part::AfterName, _) => {
                attributes += 1;
                Part::Name
            }
        };
        if attributes > MAX_ATTRIBUTES {
            break;
        }
    }
    (bytes.len(), attributes)
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | b'\x0c')
}

/// Whether a name ends before this byte.
fn is_gap(byte: u8) -> bool {
    is_space(byte) || byte == b'/'
}

/// The length of a comment from its `!`. Only the shortest of the ends that it may have is certain to be one.
fn comment_length(bytes: &[u8]) -> usize {
    let content = &bytes[3..];
    if content.starts_with(b">") || content.starts_with(b"->") {
        return 3;
    }
    let ends = [b"-->".as_slice(), b"--!>"];
    ends.iter()
        .filter_map(|end| find(content, end))
        .min()
        .map_or(bytes.len(), |end| 3 + end)
}

/// The length of the content of a raw element before its end tag.
fn raw_length(content: &[u8], name: &str) -> usize {
    let mut at = 0;
    while let Some(offset) = find(&content[at..], b"</") {
        at += offset;
        let after = &content[at + 2..];
        let is_end = after
            .get(..name.len())
            .is_some_and(|found| found.eq_ignore_ascii_case(name.as_bytes()))
            && after
                .get(name.len())
                .is_some_and(|byte| is_gap(*byte) || *byte == b'>');
        if is_end {
            return at;
        }
        at += 2;
    }
    content.len()
}

/// Whether a script begins in this text.
fn raw_start(content: &[u8]) -> bool {
    content
        .windows(7)
        .any(|window| window.eq_ignore_ascii_case(b"<script"))
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    let (first, _) = wanted.split_first()?;
    let mut at = 0;
    while let Some(offset) = bytes[at..].iter().position(|byte| byte == first) {
        at += offset;
        if bytes[at..].starts_with(wanted) {
            return Some(at);
        }
        at += 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use html5ever::tendril::StrTendril;
    use html5ever::tokenizer::{
        BufferQueue, TagKind, Token, TokenSink, TokenSinkResult, Tokenizer, TokenizerOpts,
    };
    use proptest::prelude::*;

    use super::*;

    fn bomb() -> String {
        format!("<p {}>", "a ".repeat(MAX_ATTRIBUTES + 1))
    }

    #[test]
    fn tags_with_too_many_attributes_are_refused_wherever_the_tokenizer_may_see_them() {
        for before in [
            "",
            "</",
            "<!-->",
            "<!--->",
            "<!-- a -->",
            "<!-- a --!>",
            "<!doctype html>",
            "<title><script></title>",
            "<style><!-- </style>",
            "<script><!--</script>",
            "<script><!--<script></script> <!-- </script>",
            "<textarea><xmp></textarea >",
            "<a title='<script>'>",
            "<a title=\"<!--\">",
            "<p/><scripts>",
            "a < b <? c ?> ",
            "<p a=b=\">",
            "<p a='b'c=\"d\">",
        ] {
            let page = format!(
                "{before}{}text",
                bomb().trim_start_matches(if before == "</" { "<" } else { "" })
            );

            let refused = refuse_endless_tags(&page).map_err(|error| error.code());

            assert_eq!(refused, Err("too_large"), "{before}");
        }
    }

    #[test]
    fn what_only_looks_like_tags_is_let_through() {
        for page in [
            format!("<script>if (a <b || {}) c;</script><p>text", bomb()),
            format!("<SCRIPT type=x>{}</sCript\n><p>text", bomb()),
            format!("<!-- {} --><p>text", bomb()),
            format!("<style>{}</style><p>text", bomb()),
            format!("<p title=\"{}\">text", "a b c=d ".repeat(5_000)),
            format!("<title>{}", bomb()),
        ] {
            assert_eq!(refuse_endless_tags(&page), Ok(()));
        }
    }

    /// Counts attributes as they come, and takes the content of elements as the reader of pages does.
    #[derive(Default)]
    struct Counter(Cell<usize>);

    impl TokenSink for Counter {
        type Handle = ();

        fn process_token(&self, token: Token, _line_number: u64) -> TokenSinkResult<()> {
            let Token::TagToken(tag) = token else {
                return TokenSinkResult::Continue;
            };
            self.0.set(self.0.get().max(tag.attrs.len()));
            match raw_kind(&tag.name) {
                Some(kind) if tag.kind == TagKind::StartTag => TokenSinkResult::RawData(kind),
                _ => TokenSinkResult::Continue,
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn no_tag_has_more_attributes_than_were_counted(parts in prop::collection::vec(0_usize..44, 1..40)) {
            const PARTS: [&str; 40] = [
                "<p", "<script", "<style", "<title", "<textarea", "<!--", "-->", "--!>", "<!-->", "<!--->", "</script", "</style",
                "</title", "</textarea", "</p", ">", " >", "/>", "=", "'", "\"", "`", " ", "/", "\t", "<", "<!", "<?", "!", "-", "</",
                "<![CDATA[", "]]>", "<!doctype", "x", "\u{e9}", "<xmp", "</xmp", "&quot;", "<SCRIPT",
            ];
            let page: String = parts
                .iter()
                .enumerate()
                .map(|(place, part)| PARTS.get(*part).map_or_else(|| format!(" a{place} b{place}"), |part| (*part).to_owned()))
                .collect();
            let tokenizer = Tokenizer::new(Counter::default(), TokenizerOpts::default());
            let queue = BufferQueue::default();
            queue.push_back(StrTendril::from_slice(&page));
            while !queue.is_empty() {
                let _ = tokenizer.feed(&queue);
            }
            tokenizer.end();

            prop_assert!(most_attributes(&page) >= tokenizer.sink.0.get(), "{page}");
        }
    }
}
