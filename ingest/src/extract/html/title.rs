//! What a page is called: by its own heading where its title agrees, and without the name of the site.

use super::facts::Facts;
use super::page::{Page, Piece};
use crate::BlockKind;
use crate::document::{clean_prose, one_line, shorten};

/// Signs between the title of a page and the name of its site.
const SEPARATORS: [&str; 9] = [" | ", " - ", " – ", " — ", " :: ", " » ", " « ", " · ", " • "];

/// Every heading is looked for in the names, so these are kept short.
const MAX_NAME_CHARS: usize = 400;

/// Headings of the first level that are compared with the names.
const MAX_HEADINGS: usize = 8;

/// The names that a page gives itself outside its text.
#[derive(Debug)]
pub(super) struct Names {
    /// Of the `title` element.
    title: Option<String>,
    /// As it wants to be shown elsewhere.
    shared: Option<String>,
    site: Option<String>,
}

impl Names {
    pub(super) fn new(title: Option<String>, facts: &Facts) -> Self {
        let clean = |name: &Option<String>| {
            name.as_ref()
                .map(|name| shorten(&one_line(&clean_prose(name)), MAX_NAME_CHARS))
                .filter(|name| !name.is_empty())
        };
        Self {
            title: clean(&title),
            shared: clean(&facts.shared_title),
            site: clean(&facts.site_name),
        }
    }

    /// The name in which a heading of the page is looked for.
    pub(super) fn longest(&self) -> Option<&str> {
        [&self.title, &self.shared]
            .into_iter()
            .flatten()
            .max_by_key(|name| name.len())
            .map(String::as_str)
    }

    /// The heading of the page if its names contain it, else a name without that of the site, else the heading.
    pub(super) fn choose(&self, page: &Page, kept: &[bool]) -> Option<String> {
        let headings = || {
            let is_main = |piece: &&Piece| piece.kind == BlockKind::Heading { level: 1 };
            let own = page.pieces.iter().zip(kept).filter(|(_, kept)| **kept);
            own.map(|(piece, _)| piece)
                .filter(is_main)
                .chain(page.pieces.iter().filter(is_main))
                .map(|piece| one_line(&clean_prose(page.text_of(piece))))
        };
        let names = || [&self.shared, &self.title].into_iter().flatten();
        let agreed = headings().take(MAX_HEADINGS).find(|heading| {
            !heading.is_empty()
                && self.site.as_ref() != Some(heading)
                && names().any(|name| is_part(name, heading))
        });
        agreed
            .or_else(|| names().next().map(|name| self.without_site(name)))
            .or_else(|| headings().next())
    }

    fn without_site(&self, name: &str) -> String {
        let Some(site) = &self.site else {
            return name.to_owned();
        };
        for separator in SEPARATORS {
            if let Some((before, after)) = name.rsplit_once(separator)
                && after.trim().eq_ignore_ascii_case(site)
                && !before.trim().is_empty()
            {
                return before.trim().to_owned();
            }
            if let Some((before, after)) = name.split_once(separator)
                && before.trim().eq_ignore_ascii_case(site)
                && !after.trim().is_empty()
            {
                return after.trim().to_owned();
            }
        }
        name.to_owned()
    }
}

/// Whether `name` is `heading`, or begins or ends with it and a separator.
fn is_part(name: &str, heading: &str) -> bool {
    if name == heading {
        return true;
    }
    SEPARATORS.iter().any(|separator| {
        name.strip_prefix(heading)
            .is_some_and(|rest| rest.starts_with(separator))
            || name
                .strip_suffix(heading)
                .is_some_and(|rest| rest.ends_with(separator))
    })
}
