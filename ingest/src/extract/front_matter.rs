//! What stands at the head of a Markdown file for programs: `key: value` lines (YAML) or `key = value` lines
//! (TOML). Only plain values of a few keys are taken; none of it is text.

use crate::document::DocumentBuilder;

/// Takes title, description, language and date from `front_matter`.
pub(super) fn describe(front_matter: &str, builder: &mut DocumentBuilder) {
    for line in front_matter.lines() {
        // Lines that are indented belong to the value above.
        if line.starts_with([' ', '\t', '#', '-']) {
            continue;
        }
        let Some((key, value)) = line.split_once([':', '=']) else {
            continue;
        };
        let Some(value) = plain(value) else { continue };
        let metadata = &mut builder.metadata;
        let place = match key.trim().to_ascii_lowercase().as_str() {
            "title" => &mut builder.title,
            "description" | "summary" => &mut metadata.description,
            "lang" | "language" | "locale" => &mut metadata.language,
            "date" | "published" | "publishdate" | "published_at" => {
                metadata.published_at = metadata.published_at.take().or_else(|| day(&value));
                continue;
            }
            _ => continue,
        };
        *place = place.take().or(Some(value));
    }
}

/// A value without its quotes, or `None` for lists, tables, blocks and nothing.
fn plain(value: &str) -> Option<String> {
    let value = value.trim();
    let unquoted = ['"', '\''].into_iter().find_map(|quote| {
        let inner = value.strip_prefix(quote)?;
        Some(&inner[..inner.find(quote)?])
    });
    let value = match unquoted {
        Some(inner) => inner,
        // A number sign after a space begins a comment.
        None => value.split(" #").next().unwrap_or(value).trim(),
    };
    let is_plain = unquoted.is_some() || !value.starts_with(['[', '{', '|', '>', '&', '*', '!']);
    (is_plain && !value.is_empty()).then(|| value.to_owned())
}

fn day(value: &str) -> Option<String> {
    let day = chrono::NaiveDate::parse_from_str(value.get(..10)?, "%Y-%m-%d").ok()?;
    Some(day.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Limits;

    #[test]
    fn plain_values_of_known_keys_are_taken_in_both_notations() {
        let yaml = "title: 'Care: a guide'\ndate: 2024-03-01T10:00:00Z\nlang: de # German\ntags: [a, b]\n  description: nested\nsummary: >\n";
        let toml = "title = \"Guide\"\ndate = 2024-03-01\ndescription = \"How to care\"\n";
        let describe = |source: &str| {
            let mut builder = DocumentBuilder::new(&Limits::default());
            super::describe(source, &mut builder);
            (builder.title, builder.metadata)
        };

        let (title, metadata) = describe(yaml);
        assert_eq!(title.as_deref(), Some("Care: a guide"));
        assert_eq!(metadata.published_at.as_deref(), Some("2024-03-01"));
        assert_eq!(metadata.language.as_deref(), Some("de"));
        assert_eq!(metadata.description, None);

        let (title, metadata) = describe(toml);
        assert_eq!(title.as_deref(), Some("Guide"));
        assert_eq!(metadata.description.as_deref(), Some("How to care"));
    }
}
