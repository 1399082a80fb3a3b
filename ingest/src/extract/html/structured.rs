//! Structured data in JSON-LD, with the vocabulary of schema.org: the day of publication and the trail of
//! sections above the page.

use serde_json::Value;

use super::breadcrumbs::{MAX_CRUMBS, crumb};
use super::date;

/// Objects looked at in one script.
const MAX_OBJECTS: usize = 2_000;

/// What the scripts of a page say.
#[derive(Debug, Default)]
pub(super) struct Facts {
    pub(super) published_at: Option<String>,
    /// The day comes from an article rather than from the page around it.
    is_of_article: bool,
    pub(super) breadcrumbs: Vec<String>,
}

impl Facts {
    pub(super) fn read(&mut self, json: &str) {
        // Some pages still wrap scripts into comments.
        let json = json.trim();
        let json = json.strip_prefix("<!--").unwrap_or(json);
        let json = json.strip_suffix("-->").unwrap_or(json);
        // The parser bounds nesting itself.
        let Ok(root) = serde_json::from_str::<Value>(json) else {
            return;
        };
        let mut waiting = vec![&root];
        let mut looked_at = 0;
        while let Some(value) = waiting.pop() {
            looked_at += 1;
            if looked_at > MAX_OBJECTS {
                break;
            }
            match value {
                Value::Array(items) => waiting.extend(items.iter().rev().take(MAX_OBJECTS)),
                Value::Object(fields) => {
                    self.see(value);
                    waiting.extend(
                        ["breadcrumb", "mainEntity", "@graph"]
                            .iter()
                            .filter_map(|name| fields.get(*name)),
                    );
                }
                _ => {}
            }
        }
    }

    fn see(&mut self, object: &Value) {
        if is_of_type(object, |kind| kind == "BreadcrumbList") {
            if self.breadcrumbs.is_empty() {
                self.breadcrumbs = trail(object);
            }
            return;
        }
        let is_article = is_of_type(object, |kind| {
            kind.ends_with("Article") || kind.ends_with("Posting")
        });
        let is_page = is_of_type(object, |kind| kind.ends_with("Page"));
        let is_better = self.published_at.is_none() || (is_article && !self.is_of_article);
        if !(is_article || is_page) || !is_better {
            return;
        }
        let day = object.get("datePublished").and_then(Value::as_str);
        if let Some(day) = day.and_then(date::normalized) {
            self.published_at = Some(day);
            self.is_of_article = is_article;
        }
    }
}

fn is_of_type(object: &Value, matches: impl Fn(&str) -> bool) -> bool {
    match object.get("@type") {
        Some(Value::String(kind)) => matches(kind),
        Some(Value::Array(kinds)) => kinds.iter().filter_map(Value::as_str).any(matches),
        _ => false,
    }
}

/// The names of a list of breadcrumbs in the order of their positions.
fn trail(list: &Value) -> Vec<String> {
    let Some(Value::Array(items)) = list.get("itemListElement") else {
        return Vec::new();
    };
    let mut crumbs: Vec<(u64, String)> = items
        .iter()
        .take(MAX_CRUMBS)
        .enumerate()
        .filter_map(|(index, item)| {
            let name = [Some(item), item.get("item")]
                .into_iter()
                .flatten()
                .find_map(|holder| holder.get("name").and_then(Value::as_str))?;
            let position = item.get("position").and_then(|position| match position {
                Value::String(digits) => digits.parse().ok(),
                number => number.as_u64(),
            });
            Some((position.unwrap_or(index as u64 + 1), crumb(name)?))
        })
        .collect();
    crumbs.sort_by_key(|(position, _)| *position);
    crumbs.into_iter().map(|(_, name)| name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Facts {
        let mut facts = Facts::default();
        facts.read(json);
        facts
    }

    #[test]
    fn an_article_dates_the_page_before_the_page_itself_does() {
        let facts = read(
            r#"{"@graph": [
                {"@type": "WebPage", "datePublished": "2020-01-01"},
                {"@type": ["NewsArticle", "Thing"], "datePublished": "2021-02-03T04:05:06+01:00"},
                {"@type": "Comment", "datePublished": "2022-01-01"}]}"#,
        );

        assert_eq!(facts.published_at.as_deref(), Some("2021-02-03T03:05:06Z"));
    }

    #[test]
    fn breadcrumbs_stand_in_the_order_of_their_positions() {
        let facts = read(
            r#"[{"@type": "BreadcrumbList", "itemListElement": [
                {"@type": "ListItem", "position": "2", "item": {"@id": "/b", "name": "Second"}},
                {"@type": "ListItem", "position": 1, "name": " First "}, 7]}]"#,
        );

        assert_eq!(facts.breadcrumbs, ["First", "Second"]);
    }

    #[test]
    fn what_is_no_structured_data_says_nothing() {
        for json in [
            "",
            "{",
            "null",
            &"[".repeat(100_000),
            r#"{"@type": 5, "datePublished": []}"#,
        ] {
            let facts = read(json);

            assert_eq!(facts.published_at, None);
            assert!(facts.breadcrumbs.is_empty());
        }
    }
}
