//! Which elements a visitor of the page does not see, as far as the page itself says so.

use std::collections::HashSet;

use html5ever::tokenizer::Tag;

/// Style sheets inside a page are read up to here.
const MAX_STYLE_BYTES: usize = 256 << 10;

/// Landmarks that repeat on every page of a site.
const SKIPPED_ROLES: [&str; 3] = ["navigation", "contentinfo", "search"];

/// Rules of the page's own style sheets that hide elements.
#[derive(Debug, Default)]
pub(super) struct HidingRules {
    classes: HashSet<String>,
    ids: HashSet<String>,
    bytes_read: usize,
}

impl HidingRules {
    /// Takes in the rules of a `style` element with plain class and id selectors. Rules inside `@media` and
    /// the like hold for some screens only, so they hide nothing.
    pub(super) fn read(&mut self, sheet: &str) {
        self.bytes_read = self.bytes_read.saturating_add(sheet.len());
        if self.bytes_read > MAX_STYLE_BYTES {
            return;
        }
        let sheet = without_comments(sheet);
        let mut rest = sheet.as_str();
        while let Some((selectors, after)) = rest.split_once('{') {
            if selectors.trim_start().starts_with('@') {
                rest = after_matching_brace(after);
                continue;
            }
            let (declarations, after) = after.split_once('}').unwrap_or((after, ""));
            rest = after;
            if hides(declarations) {
                selectors
                    .split(',')
                    .for_each(|selector| self.add(selector.trim()));
            }
        }
    }

    fn add(&mut self, selector: &str) {
        let is_name = |name: &str| {
            !name.is_empty()
                && name
                    .chars()
                    .all(|c| c.is_alphanumeric() || matches!(c, '-' | '_'))
        };
        if let Some(class) = selector.strip_prefix('.').filter(|name| is_name(name)) {
            self.classes.insert(class.to_owned());
        } else if let Some(id) = selector.strip_prefix('#').filter(|name| is_name(name)) {
            self.ids.insert(id.to_owned());
        }
    }

    /// Whether the element of this start tag is hidden, or repeats on every page.
    pub(super) fn hide(&self, tag: &Tag) -> bool {
        tag.attrs.iter().any(|attribute| {
            let value: &str = &attribute.value;
            match &*attribute.name.local {
                // Browsers open this kind when a search finds its text.
                "hidden" => !value.eq_ignore_ascii_case("until-found"),
                "aria-hidden" => value.eq_ignore_ascii_case("true"),
                "style" => hides(value),
                "role" => SKIPPED_ROLES.iter().any(|role| value.eq_ignore_ascii_case(role)),
                "class" => {
                    !self.classes.is_empty()
                        && value.split_whitespace().any(|name| self.classes.contains(name))
                }
                "id" => self.ids.contains(value),
                _ => false,
            }
        })
    }
}

/// Whether CSS declarations make an element invisible.
fn hides(declarations: &str) -> bool {
    declarations.split(';').any(|declaration| {
        let Some((property, value)) = declaration.split_once(':') else {
            return false;
        };
        let value = value
            .trim()
            .trim_end_matches("!important")
            .trim()
            .to_ascii_lowercase();
        match property.trim().to_ascii_lowercase().as_str() {
            "display" => value == "none",
            "visibility" => value == "hidden" || value == "collapse",
            "opacity" => value.parse::<f32>().is_ok_and(|opacity| opacity < 0.01),
            "font-size" => is_zero_length(&value),
            "left" | "right" | "top" | "bottom" | "text-indent" | "margin-left" | "margin-top" => {
                is_off_screen(&value)
            }
            _ => false,
        }
    })
}

fn is_zero_length(value: &str) -> bool {
    let number = value.trim_end_matches(|c: char| c.is_ascii_alphabetic() || c == '%');
    number.parse::<f32>().is_ok_and(|number| number == 0.0)
}

/// Whether something that is moved so far is on no screen. What waits beside a screen to slide in is not that far.
fn is_off_screen(value: &str) -> bool {
    const FAR_PIXELS: f32 = -5_000.0;
    const FAR_LETTERS: f32 = -900.0;
    let number = value.trim_end_matches(|c: char| c.is_ascii_alphabetic() || c == '%');
    let far = match &value[number.len()..] {
        "em" | "rem" | "ch" | "%" => FAR_LETTERS,
        _ => FAR_PIXELS,
    };
    number.parse::<f32>().is_ok_and(|number| number <= far)
}

fn without_comments(sheet: &str) -> String {
    let mut out = String::with_capacity(sheet.len());
    let mut rest = sheet;
    while let Some((before, after)) = rest.split_once("/*") {
        out.push_str(before);
        rest = after.split_once("*/").map_or("", |(_, after)| after);
    }
    out.push_str(rest);
    out
}

fn after_matching_brace(text: &str) -> &str {
    let mut depth = 1_usize;
    for (offset, byte) in text.bytes().enumerate() {
        match byte {
            b'{' => depth += 1,
            b'}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return &text[offset + 1..];
        }
    }
    ""
}
