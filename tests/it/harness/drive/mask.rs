//! Partial answers: only the fields that `fields` names are in them.

use serde_json::{Map, Value};

/// What is left of `value` under a mask such as `nextPageToken,files(id,owners/emailAddress)`.
pub(super) fn apply(mask: &str, value: &Value) -> Value {
    match value {
        Value::Array(items) => Value::Array(items.iter().map(|item| apply(mask, item)).collect()),
        Value::Object(fields) => {
            let mut kept = Map::new();
            for (name, inner) in split(mask) {
                if name == "*" {
                    return value.clone();
                }
                if let Some(field) = fields.get(name) {
                    let field = inner.map_or_else(|| field.clone(), |inner| apply(inner, field));
                    kept.insert(name.to_owned(), field);
                }
            }
            Value::Object(kept)
        }
        other => other.clone(),
    }
}

/// The names at the top of a mask, each with the mask for what is in it.
fn split(mask: &str) -> Vec<(&str, Option<&str>)> {
    let (mut parts, mut depth, mut start) = (Vec::new(), 0, 0);
    for (position, character) in mask.char_indices() {
        match character {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&mask[start..position]);
                start = position + 1;
            }
            _ => {}
        }
    }
    parts.push(&mask[start..]);
    parts
        .into_iter()
        .map(|part| match part.find(['(', '/']) {
            None => (part.trim(), None),
            Some(position) if part[position..].starts_with('/') => {
                (part[..position].trim(), Some(&part[position + 1..]))
            }
            Some(position) => (
                part[..position].trim(),
                Some(part[position + 1..].trim_end_matches(')')),
            ),
        })
        .collect()
}

#[test]
fn only_what_was_asked_for_is_left() {
    let value = serde_json::json!({ "a": 1, "b": [{ "c": 2, "d": 3, "e": { "f": 4, "g": 5 } }], "h": 6 });

    assert_eq!(
        apply("a,b(c,e/f)", &value),
        serde_json::json!({ "a": 1, "b": [{ "c": 2, "e": { "f": 4 } }] })
    );
}
