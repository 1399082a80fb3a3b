//! The trail of sections that a page shows above itself.

use html5ever::tokenizer::Tag;

use super::tag::attribute;
use crate::document::{clean_prose, one_line};

/// Sections above a page, and characters in the name of one. More is no trail.
pub(super) const MAX_CRUMBS: usize = 12;
const MAX_CRUMB_CHARS: usize = 120;

/// Collects the first trail of a page from its tags and text.
#[derive(Debug, Default)]
pub(super) struct Trail {
    /// Elements open inside the trail's own one, that included. Zero before and after.
    depth: usize,
    /// The name of the trail's element, to tell its end tag.
    element: String,
    is_done: bool,
    text: String,
    crumbs: Vec<String>,
}

impl Trail {
    /// Takes in a start tag.
    pub(super) fn open(&mut self, tag: &Tag) {
        if self.depth > 0 {
            self.cut(&tag.name);
            self.depth += usize::from(*tag.name == *self.element);
        } else if !self.is_done && is_trail(tag) {
            self.depth = 1;
            self.element = tag.name.to_string();
        }
    }

    pub(super) fn close(&mut self, name: &str) {
        if self.depth == 0 {
            return;
        }
        self.cut(name);
        if name == self.element {
            self.depth -= 1;
            self.is_done = self.depth == 0 && !self.crumbs.is_empty();
        }
    }

    pub(super) fn characters(&mut self, text: &str) {
        if self.depth > 0 && self.text.len() <= MAX_CRUMB_CHARS * 4 {
            self.text.push_str(text);
        }
    }

    pub(super) fn finish(self) -> Vec<String> {
        // An element that never closes, or holds whole sentences, was something else.
        match self.is_done && self.crumbs.len() <= MAX_CRUMBS {
            true => self.crumbs,
            false => Vec::new(),
        }
    }

    fn cut(&mut self, name: &str) {
        if matches!(name, "b" | "i" | "em" | "strong" | "wbr" | "svg" | "path") {
            return;
        }
        let text = std::mem::take(&mut self.text);
        if self.crumbs.len() <= MAX_CRUMBS
            && let Some(crumb) = crumb(&text)
        {
            self.crumbs.push(crumb);
        }
    }
}

/// `text` as the name of a section, unless it is a separator or too long for one.
pub(super) fn crumb(text: &str) -> Option<String> {
    let name = one_line(&clean_prose(text));
    let name = name.trim_matches(|c: char| {
        c.is_whitespace() || matches!(c, '>' | '/' | '\\' | '|' | '»' | '›' | '→' | '·')
    });
    let is_name = name.chars().any(char::is_alphanumeric) && name.chars().count() <= MAX_CRUMB_CHARS;
    is_name.then(|| name.to_owned())
}

fn is_trail(tag: &Tag) -> bool {
    if !matches!(&*tag.name, "nav" | "div" | "ol" | "ul" | "p" | "section") {
        return false;
    }
    ["aria-label", "class", "id", "itemtype"].iter().any(|name| {
        attribute(tag, name).is_some_and(|value| {
            value.split(|c: char| !c.is_ascii_alphanumeric()).any(|word| {
                ["breadcrumb", "breadcrumbs", "breadcrumblist"]
                    .iter()
                    .any(|known| word.eq_ignore_ascii_case(known))
            })
        })
    })
}
