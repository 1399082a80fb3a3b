//! The numbers of list items.

use std::collections::HashMap;

use super::styles::Styles;
use crate::extract::docx::numbering::{letters, roman};
use crate::extract::xml::Element;

const LEVELS: usize = 10;

/// How each level of a list is numbered; levels with bullets have no number.
#[derive(Debug, Default)]
pub(super) struct ListStyle {
    levels: [Option<Level>; LEVELS],
}

#[derive(Debug)]
struct Level {
    format: String,
    prefix: String,
    suffix: String,
    start: u32,
}

impl ListStyle {
    pub(super) fn take_level(&mut self, element: &Element) {
        let level = element
            .attribute("level")
            .and_then(|level| level.parse::<usize>().ok());
        let Some(place) = level.and_then(|level| self.levels.get_mut(level.checked_sub(1)?)) else {
            return;
        };
        let text = |name: &str| element.attribute(name).unwrap_or_default();
        *place = Some(Level {
            format: text("num-format"),
            prefix: text("num-prefix"),
            suffix: text("num-suffix"),
            start: text("start-value").parse().unwrap_or(1),
        });
    }
}

/// The lists that are open, outermost first, and how far each style has counted.
#[derive(Debug, Default)]
pub(super) struct Lists {
    open: Vec<OpenList>,
    counts: HashMap<(String, usize), u32>,
}

#[derive(Debug)]
struct OpenList {
    style: String,
    /// The item has its number already.
    is_labelled: bool,
}

impl Lists {
    pub(super) fn begin_list(&mut self, element: &Element) {
        let outer = self.open.last().map(|list| list.style.clone());
        let style = element.attribute("style-name").or(outer).unwrap_or_default();
        let goes_on = element
            .attribute("continue-numbering")
            .is_some_and(|value| value == "true")
            || element.attribute("continue-list").is_some();
        if !goes_on {
            self.counts.remove(&(style.clone(), self.open.len()));
        }
        self.open.push(OpenList {
            style,
            is_labelled: true,
        });
    }

    pub(super) fn end_list(&mut self) {
        self.open.pop();
    }

    pub(super) fn begin_item(&mut self) {
        if let Some(list) = self.open.last_mut() {
            list.is_labelled = false;
        }
    }

    pub(super) fn is_open(&self) -> bool {
        !self.open.is_empty()
    }

    /// The number of the current item, for the first paragraph of it.
    pub(super) fn take_label(&mut self, styles: &Styles) -> Option<String> {
        let depth = self.open.len().checked_sub(1)?;
        let list = self.open.last_mut().filter(|list| !list.is_labelled)?;
        list.is_labelled = true;
        let level = styles.list(&list.style)?.levels.get(depth)?.as_ref()?;
        let next = self
            .counts
            .get(&(list.style.clone(), depth))
            .map_or(level.start, |count| count.saturating_add(1));
        self.counts.insert((list.style.clone(), depth), next);
        let number = match level.format.as_str() {
            "" => return None,
            "A" => letters(next),
            "a" => letters(next).to_lowercase(),
            "I" => roman(next),
            "i" => roman(next).to_lowercase(),
            _ => next.to_string(),
        };
        Some(format!("{}{number}{}", level.prefix, level.suffix))
    }
}
