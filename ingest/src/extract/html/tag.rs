//! Attributes of a start tag.

use html5ever::tokenizer::Tag;

/// The value of the attribute of this name.
pub(super) fn attribute<'a>(tag: &'a Tag, name: &str) -> Option<&'a str> {
    tag.attrs
        .iter()
        .find(|attribute| &*attribute.name.local == name)
        .map(|attribute| &*attribute.value)
}

/// Whether one of the words of this attribute is `word`, whatever its case.
pub(super) fn has_word(tag: &Tag, name: &str, word: &str) -> bool {
    attribute(tag, name).is_some_and(|value| {
        value
            .split_ascii_whitespace()
            .any(|found| found.eq_ignore_ascii_case(word))
    })
}
