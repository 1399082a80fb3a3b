//! The labels that Word writes in front of numbered paragraphs ("4.2"): people ask for clauses by them.

use std::collections::HashMap;

use crate::ExtractError;
use crate::extract::xml::{Element, XmlEvent, XmlReader};

/// Levels of a list; the format has no more.
const LEVELS: usize = 9;

/// A label is a few numbers; longer ones are made to hurt.
const MAX_LABEL_CHARS: usize = 32;

/// Lists by id, and how far each has counted.
#[derive(Debug, Default)]
pub(super) struct Numbering {
    /// What the lists look like; several lists may share a look and its count.
    looks: HashMap<String, Vec<Level>>,
    lists: HashMap<String, List>,
    counts: HashMap<String, [u32; LEVELS]>,
}

#[derive(Debug, Default, Clone)]
struct Level {
    format: String,
    /// The label with `%1` for the number of the first level, and so on.
    pattern: String,
    start: u32,
    style: Option<String>,
}

#[derive(Debug, Default)]
struct List {
    look: String,
    restarts: HashMap<usize, u32>,
    was_used: bool,
}

impl Numbering {
    pub(super) fn parse(source: &str, max_depth: u32) -> Result<Self, ExtractError> {
        let mut reader = XmlReader::new(source, max_depth);
        let mut numbering = Self::default();
        let mut place = Place::default();
        while let Some(event) = reader.next()? {
            match event {
                XmlEvent::Start(element) => numbering.take(&element, &mut place),
                XmlEvent::End(name) if name == "abstractNum" => place.look = None,
                XmlEvent::End(name) if name == "num" => place.list = None,
                _ => {}
            }
        }
        Ok(numbering)
    }

    fn take(&mut self, element: &Element, place: &mut Place) {
        let name = element.name();
        match name {
            "abstractNum" => {
                let id = element.attribute("abstractNumId").unwrap_or_default();
                self.looks.insert(id.clone(), vec![Level::default(); LEVELS]);
                place.look = Some(id);
            }
            "num" => {
                let id = element.attribute("numId").unwrap_or_default();
                self.lists.insert(id.clone(), List::default());
                place.list = Some(id);
            }
            "lvl" | "lvlOverride" => {
                let level = element
                    .attribute("ilvl")
                    .and_then(|level| level.parse().ok())
                    .unwrap_or(0);
                place.level = std::cmp::min(level, LEVELS - 1);
            }
            _ => {}
        }
        if let Some(list) = place.list.as_ref().and_then(|id| self.lists.get_mut(id)) {
            match name {
                "abstractNumId" => list.look = element.value().unwrap_or_default(),
                "startOverride" => {
                    let start = element.value().and_then(|start| start.parse().ok()).unwrap_or(1);
                    list.restarts.insert(place.level, start);
                }
                _ => {}
            }
            return;
        }
        let Some(levels) = place.look.as_ref().and_then(|id| self.looks.get_mut(id)) else {
            return;
        };
        let level = &mut levels[place.level];
        match name {
            "numFmt" => level.format = element.value().unwrap_or_default(),
            "lvlText" => level.pattern = element.value().unwrap_or_default(),
            "start" => level.start = element.value().and_then(|start| start.parse().ok()).unwrap_or(1),
            "pStyle" => level.style = element.value(),
            _ => {}
        }
    }

    /// The level of list `num_id` that belongs to a paragraph style.
    pub(super) fn level_of_style(&self, num_id: &str, style: &str) -> Option<u8> {
        let levels = self.looks.get(&self.lists.get(num_id)?.look)?;
        let level = levels
            .iter()
            .position(|level| level.style.as_deref() == Some(style))?;
        u8::try_from(level).ok()
    }

    /// Counts one more paragraph of list `num_id` and gives its label; bullets have none.
    pub(super) fn advance(&mut self, num_id: &str, level: u8) -> Option<String> {
        let list = self.lists.get_mut(num_id)?;
        let levels = self.looks.get(&list.look)?;
        let level = usize::from(level).min(LEVELS - 1);
        let counts = self.counts.entry(list.look.clone()).or_insert([0; LEVELS]);
        if !list.was_used {
            list.was_used = true;
            for (restarted, start) in &list.restarts {
                counts[*restarted] = start.saturating_sub(1);
            }
        }
        // A level that is skipped counts as begun.
        for (count, above) in counts.iter_mut().zip(levels).take(level) {
            if *count == 0 {
                *count = above.start.max(1);
            }
        }
        if counts[level] == 0 && !list.restarts.contains_key(&level) {
            counts[level] = levels[level].start.saturating_sub(1);
        }
        counts[level] = counts[level].saturating_add(1);
        counts[level + 1..].fill(0);
        label(levels, counts, level)
    }
}

/// Where in the part the reader is.
#[derive(Debug, Default)]
struct Place {
    look: Option<String>,
    list: Option<String>,
    level: usize,
}

fn label(levels: &[Level], counts: &[u32; LEVELS], level: usize) -> Option<String> {
    if levels[level].format == "bullet" || levels[level].format == "none" {
        return None;
    }
    let mut label = String::new();
    let mut chars = levels[level].pattern.chars();
    while let Some(c) = chars.next() {
        let shown = (c == '%')
            .then(|| chars.clone().next().and_then(|digit| digit.to_digit(10)))
            .flatten();
        match shown {
            Some(shown @ 1..=9) => {
                chars.next();
                let shown = shown as usize - 1;
                label.push_str(&number(counts[shown].max(1), &levels[shown].format));
            }
            _ => label.push(c),
        }
        if label.chars().count() > MAX_LABEL_CHARS {
            return None;
        }
    }
    let label = label.trim();
    (!label.is_empty()).then(|| label.to_owned())
}

fn number(count: u32, format: &str) -> String {
    match format {
        "lowerLetter" => letters(count).to_lowercase(),
        "upperLetter" => letters(count),
        "lowerRoman" => roman(count).to_lowercase(),
        "upperRoman" => roman(count),
        "decimalZero" => format!("{count:02}"),
        _ => count.to_string(),
    }
}

/// A to Z, then AA, BB and so on, as Word counts.
pub(in crate::extract) fn letters(count: u32) -> String {
    let index = count.saturating_sub(1);
    let letter = char::from(b'A' + u8::try_from(index % 26).expect("a remainder of 26 fits"));
    let repeats = (index / 26 + 1).min(4) as usize;
    std::iter::repeat_n(letter, repeats).collect()
}

pub(in crate::extract) fn roman(count: u32) -> String {
    const SIGNS: [(u32, &str); 13] = [
        (1000, "M"),
        (900, "CM"),
        (500, "D"),
        (400, "CD"),
        (100, "C"),
        (90, "XC"),
        (50, "L"),
        (40, "XL"),
        (10, "X"),
        (9, "IX"),
        (5, "V"),
        (4, "IV"),
        (1, "I"),
    ];
    if count > 3_999 {
        return count.to_string();
    }
    let mut rest = count;
    let mut out = String::new();
    for (value, sign) in SIGNS {
        while rest >= value {
            out.push_str(sign);
            rest -= value;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Numbering {
        let level = |ilvl: u8, format: &str, text: &str| {
            format!(
                r#"<w:lvl w:ilvl="{ilvl}"><w:start w:val="1"/><w:numFmt w:val="{format}"/><w:lvlText w:val="{text}"/></w:lvl>"#
            )
        };
        let source = format!(
            r#"<w:numbering xmlns:w="w"><w:abstractNum w:abstractNumId="0">{}{}{}</w:abstractNum>
               <w:num w:numId="1"><w:abstractNumId w:val="0"/></w:num>
               <w:num w:numId="2"><w:abstractNumId w:val="0"/><w:lvlOverride w:ilvl="0"><w:startOverride w:val="7"/></w:lvlOverride></w:num>
               </w:numbering>"#,
            level(0, "decimal", "%1."),
            level(1, "lowerLetter", "%1.%2)"),
            level(2, "bullet", "*"),
        );
        Numbering::parse(&source, 64).expect("well-formed")
    }

    #[test]
    fn labels_count_by_level_and_start_again_below() {
        let mut numbering = sample();

        let labels: Vec<Option<String>> = [0, 0, 1, 1, 2, 0, 1]
            .into_iter()
            .map(|level| numbering.advance("1", level))
            .collect();

        let labels: Vec<&str> = labels
            .iter()
            .map(|label| label.as_deref().unwrap_or("-"))
            .collect();
        assert_eq!(labels, ["1.", "2.", "2.a)", "2.b)", "-", "3.", "3.a)"]);
        assert_eq!(numbering.advance("1", 0).as_deref(), Some("4."));
        assert_eq!(numbering.advance("1", 2), None);
        assert_eq!(
            numbering.advance("1", 1).as_deref(),
            Some("4.b)"),
            "the skipped level counts as begun"
        );
    }

    #[test]
    fn a_list_may_start_elsewhere() {
        let mut numbering = sample();

        assert_eq!(numbering.advance("2", 0).as_deref(), Some("7."));
        assert_eq!(numbering.advance("2", 0).as_deref(), Some("8."));
        assert_eq!(numbering.advance("9", 0), None);
    }

    #[test]
    fn roman_numbers_and_letters() {
        assert_eq!(roman(1_994), "MCMXCIV");
        assert_eq!(letters(28), "BB");
    }
}
