//! Objects behind references, by the type that is asked for. Wrong types are absent.

use lopdf::{Dictionary, Document, Object};

pub(super) fn resolve<'a>(document: &'a Document, object: &'a Object) -> Option<&'a Object> {
    document.dereference(object).ok().map(|(_, object)| object)
}

pub(super) fn resolve_in<'a>(document: &'a Document, dict: &'a Dictionary, key: &[u8]) -> Option<&'a Object> {
    resolve(document, dict.get(key).ok()?)
}

pub(super) fn name_in<'a>(document: &'a Document, dict: &'a Dictionary, key: &[u8]) -> Option<&'a [u8]> {
    resolve_in(document, dict, key)?.as_name().ok()
}

pub(super) fn dict_in<'a>(
    document: &'a Document,
    dict: &'a Dictionary,
    key: &[u8],
) -> Option<&'a Dictionary> {
    dict_of(document, dict.get(key).ok()?)
}

/// A dictionary, or that of a stream.
pub(super) fn dict_of<'a>(document: &'a Document, object: &'a Object) -> Option<&'a Dictionary> {
    match resolve(document, object)? {
        Object::Dictionary(dict) => Some(dict),
        Object::Stream(stream) => Some(&stream.dict),
        _ => None,
    }
}

pub(super) fn array_in<'a>(
    document: &'a Document,
    dict: &'a Dictionary,
    key: &[u8],
) -> Option<&'a Vec<Object>> {
    resolve_in(document, dict, key)?.as_array().ok()
}

pub(super) fn integer_in(document: &Document, dict: &Dictionary, key: &[u8]) -> Option<i64> {
    resolve_in(document, dict, key)?.as_i64().ok()
}

pub(super) fn number_in(document: &Document, dict: &Dictionary, key: &[u8]) -> Option<f32> {
    number_of(document, dict.get(key).ok()?)
}

pub(super) fn number_of(document: &Document, object: &Object) -> Option<f32> {
    match resolve(document, object)? {
        Object::Integer(value) => Some(*value as f32),
        Object::Real(value) => Some(*value),
        _ => None,
    }
    .filter(|number| number.is_finite())
}

/// The numbers of an array; whatever else it holds is left out.
pub(super) fn numbers_in(document: &Document, dict: &Dictionary, key: &[u8]) -> Option<Vec<f32>> {
    let entries = array_in(document, dict, key)?;
    Some(
        entries
            .iter()
            .filter_map(|entry| number_of(document, entry))
            .collect(),
    )
}

/// A text string of the document, which is UTF-16, UTF-8 or in an encoding of the format's own.
pub(super) fn text_in(document: &Document, dict: &Dictionary, key: &[u8]) -> Option<String> {
    let object = resolve_in(document, dict, key)?;
    matches!(object, Object::String(..))
        .then(|| lopdf::decode_text_string(object).ok())
        .flatten()
}
