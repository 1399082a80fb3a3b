//! What a paragraph's style says: heading level, list, code, hidden. Styles inherit from each other.

use std::collections::HashMap;

use crate::ExtractError;
use crate::extract::xml::{Element, XmlEvent, XmlReader};

/// Styles inherit a few steps; longer chains are cycles.
const MAX_INHERITANCE: usize = 20;

/// Names of styles that programs give to listings.
const CODE_STYLES: [&str; 6] = [
    "code",
    "source code",
    "html preformatted",
    "preformatted text",
    "code block",
    "macro text",
];

/// The styles of a document by id.
#[derive(Debug, Default)]
pub(super) struct Styles(HashMap<String, Style>);

#[derive(Debug, Default)]
struct Style {
    /// In lower case; built-in names are English in every language version.
    name: String,
    based_on: Option<String>,
    outline_level: Option<u8>,
    num_id: Option<String>,
    list_level: Option<u8>,
    is_hidden: bool,
}

impl Styles {
    pub(super) fn parse(source: &str, max_depth: u32) -> Result<Self, ExtractError> {
        let mut reader = XmlReader::new(source, max_depth);
        let mut styles = HashMap::new();
        let mut current: Option<(String, Style)> = None;
        while let Some(event) = reader.next()? {
            match event {
                XmlEvent::Start(element) if element.name() == "style" => {
                    let id = element.attribute("styleId").unwrap_or_default();
                    current = Some((id, Style::default()));
                }
                XmlEvent::Start(element) => {
                    if let Some((_, style)) = &mut current {
                        style.take(&element);
                    }
                }
                XmlEvent::End(name) if name == "style" => styles.extend(current.take()),
                _ => {}
            }
        }
        Ok(Self(styles))
    }

    /// The level of headings of this style: by its outline level, or by its name.
    pub(super) fn heading_level(&self, id: &str) -> Option<u8> {
        let by_outline = self.lineage(id).find_map(|style| style.outline_level);
        if let Some(level) = by_outline {
            return heading_of_outline(level);
        }
        let by_name = self.lineage(id).find_map(|style| match style.name.as_str() {
            "title" => Some(1),
            name => name
                .strip_prefix("heading ")
                .and_then(|digits| digits.trim().parse::<u8>().ok()),
        });
        // Documents without a style sheet still use the usual ids.
        let by_id = || {
            id.to_ascii_lowercase()
                .strip_prefix("heading")
                .and_then(|digits| digits.parse::<u8>().ok())
        };
        by_name
            .or_else(by_id)
            .filter(|level| *level > 0)
            .map(|level| level.min(6))
    }

    pub(super) fn is_title(&self, id: &str) -> bool {
        self.lineage(id).any(|style| style.name == "title") || (self.0.is_empty() && id == "Title")
    }

    /// Tables of contents repeat the headings.
    pub(super) fn is_contents(&self, id: &str) -> bool {
        self.lineage(id)
            .any(|style| style.name.starts_with("toc ") && style.name != "toc heading")
    }

    pub(super) fn is_code(&self, id: &str) -> bool {
        self.lineage(id)
            .any(|style| CODE_STYLES.contains(&style.name.as_str()))
    }

    pub(super) fn is_list(&self, id: &str) -> bool {
        self.lineage(id)
            .any(|style| style.name.starts_with("list ") && style.name != "list paragraph")
    }

    pub(super) fn is_hidden(&self, id: &str) -> bool {
        self.lineage(id).any(|style| style.is_hidden)
    }

    /// The list of this style and the level in it, if the style names one.
    pub(super) fn numbering(&self, id: &str) -> Option<(String, Option<u8>)> {
        let num_id = self.lineage(id).find_map(|style| style.num_id.clone())?;
        Some((num_id, self.lineage(id).find_map(|style| style.list_level)))
    }

    /// The style and those it is based on.
    fn lineage<'a>(&'a self, id: &str) -> impl Iterator<Item = &'a Style> {
        std::iter::successors(self.0.get(id), |style| {
            style.based_on.as_ref().and_then(|id| self.0.get(id))
        })
        .take(MAX_INHERITANCE)
    }
}

impl Style {
    fn take(&mut self, element: &Element) {
        match element.name() {
            "name" => self.name = element.value().unwrap_or_default().to_lowercase(),
            "basedOn" => self.based_on = element.value(),
            "outlineLvl" => self.outline_level = element.value().and_then(|value| value.parse().ok()),
            "numId" => self.num_id = element.value(),
            "ilvl" => self.list_level = element.value().and_then(|value| value.parse().ok()),
            "vanish" => self.is_hidden = element.is_on(),
            _ => {}
        }
    }
}

/// Outline levels count from zero; nine means body text.
pub(super) fn heading_of_outline(level: u8) -> Option<u8> {
    (level < 9).then(|| (level + 1).min(6))
}
