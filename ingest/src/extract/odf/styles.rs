//! What styles say of the text that has them: hidden, a title, code, which list. Styles inherit from each other.

use std::collections::HashMap;
use std::io::BufRead;

use super::lists::ListStyle;
use crate::ExtractError;
use crate::extract::package::Package;
use crate::extract::xml::{Element, XmlEvent, XmlReader};

/// Styles inherit a few steps; longer chains are cycles.
const MAX_INHERITANCE: usize = 20;

#[derive(Debug, Default)]
pub(super) struct Styles {
    /// By family and name.
    styles: HashMap<(String, String), Style>,
    lists: HashMap<String, ListStyle>,
}

#[derive(Debug, Default)]
struct Style {
    parent: Option<String>,
    is_hidden: bool,
}

impl Styles {
    pub(super) fn read(package: &mut Package<'_>) -> Result<Self, ExtractError> {
        let mut styles = Self::default();
        for part in ["styles.xml", "content.xml"] {
            if let Some(reader) = package.xml(part)? {
                styles.take(reader)?;
            }
        }
        Ok(styles)
    }

    /// Reads up to where the text begins.
    fn take<R: BufRead>(&mut self, mut reader: XmlReader<R>) -> Result<(), ExtractError> {
        let mut style: Option<(String, String)> = None;
        let mut list: Option<String> = None;
        while let Some(event) = reader.next()? {
            let XmlEvent::Start(element) = event else { continue };
            match element.name() {
                "body" | "master-styles" => break,
                "style" => {
                    let family = element.attribute("family").unwrap_or_default();
                    let key = (family, element.attribute("name").unwrap_or_default());
                    let parent = element.attribute("parent-style-name");
                    self.styles.insert(
                        key.clone(),
                        Style {
                            parent,
                            is_hidden: false,
                        },
                    );
                    style = Some(key);
                }
                "list-style" => {
                    let name = element.attribute("name").unwrap_or_default();
                    self.lists.insert(name.clone(), ListStyle::default());
                    list = Some(name);
                }
                "list-level-style-number" => {
                    if let Some(list) = list.as_ref().and_then(|name| self.lists.get_mut(name)) {
                        list.take_level(&element);
                    }
                }
                name if name.ends_with("-properties") && hides(&element) => {
                    if let Some(style) = style.as_ref().and_then(|key| self.styles.get_mut(key)) {
                        style.is_hidden = true;
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    pub(super) fn is_hidden(&self, family: &str, name: &str) -> bool {
        self.lineage(family, name)
            .any(|(_, style)| style.is_some_and(|style| style.is_hidden))
    }

    /// Whether a paragraph has this style or one that is based on it. Spaces in names are written `_20_`.
    pub(super) fn is_like(&self, name: &str, wanted: &str) -> bool {
        self.lineage("paragraph", name).any(|(name, _)| name == wanted)
    }

    pub(super) fn list(&self, name: &str) -> Option<&ListStyle> {
        self.lists.get(name)
    }

    /// The style and those it is based on, by name. The last may have no definition.
    fn lineage<'a>(
        &'a self,
        family: &'a str,
        name: &'a str,
    ) -> impl Iterator<Item = (&'a str, Option<&'a Style>)> {
        let find = move |name: &'a str| {
            let style = self.styles.get(&(family.to_owned(), name.to_owned()));
            (name, style)
        };
        std::iter::successors(Some(find(name)), move |(_, style)| {
            let parent = style.as_ref()?.parent.as_deref()?;
            Some(find(parent))
        })
        .take(MAX_INHERITANCE)
    }
}

/// Whether these properties hide what has them: text, a table, or a slide.
fn hides(properties: &Element) -> bool {
    let is = |name: &str, value: &str| properties.attribute(name).is_some_and(|found| found == value);
    match properties.name() {
        "text-properties" => is("display", "none"),
        "table-properties" => is("display", "false"),
        "drawing-page-properties" => is("visibility", "hidden"),
        _ => false,
    }
}
