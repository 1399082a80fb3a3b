//! What a page says about itself in its head, its links and its structured data.

use std::collections::HashSet;

use html5ever::tokenizer::Tag;

use super::breadcrumbs::Trail;
use super::tag::{attribute, has_word};
use super::{date, structured};
use crate::document::{clean_prose, one_line, shorten};
use crate::{Metadata, WebPage};

/// The name by which `meta` elements may address this crawler alone.
const CRAWLER_NAMES: [&str; 3] = ["robots", "frontdesk", "frontdeskbot"];

/// A page that sends its reader on later than this is meant to be read.
const MAX_REFRESH_SECONDS: u32 = 10;

const MAX_LINKS: usize = 5_000;
const MAX_URL_BYTES: usize = 2_000;
const MAX_DESCRIPTION_CHARS: usize = 1_000;
const MAX_LANGUAGE_BYTES: usize = 35;

/// Structured data of one page is read up to here.
const MAX_STRUCTURED_BYTES: usize = 512 << 10;

/// Beginnings of addresses that lead to no page.
const NO_PAGE: [&str; 7] = ["#", "javascript:", "mailto:", "tel:", "sms:", "data:", "blob:"];

/// Names of `meta` elements that hold the day of publication, the surest first.
const DATE_NAMES: [&str; 16] = [
    "article:published_time",
    "og:article:published_time",
    "og:published_time",
    "datepublished",
    "citation_publication_date",
    "dc.date.issued",
    "dcterms.issued",
    "dcterms.created",
    "dc.date.created",
    "dc.date",
    "dcterms.date",
    "sailthru.date",
    "parsely-pub-date",
    "publish-date",
    "pubdate",
    "date",
];

/// Collects the facts while the tags of a page go by.
#[derive(Debug, Default)]
pub(super) struct Facts {
    web: WebPage,
    seen_links: HashSet<String>,
    language: Claim,
    description: Claim,
    published_at: Claim,
    /// Of the whole site.
    pub(super) site_name: Option<String>,
    /// As the page wants to be shown elsewhere.
    pub(super) shared_title: Option<String>,
    structured_bytes: usize,
    structured: structured::Facts,
    pub(super) trail: Trail,
}

/// A value and the rank of the place that it comes from: 0 is the surest.
#[derive(Debug, Default)]
struct Claim(Option<(usize, String)>);

impl Claim {
    /// Keeps the first value of the best rank.
    fn offer(&mut self, rank: usize, value: impl Into<String>) {
        if self.0.as_ref().is_none_or(|(held, _)| rank < *held) {
            self.0 = Some((rank, value.into()));
        }
    }

    fn take(self) -> Option<String> {
        self.0.map(|(_, value)| value)
    }
}

impl Facts {
    /// Takes in a start tag, whether a visitor sees the element or not.
    pub(super) fn see(&mut self, tag: &Tag) {
        match &*tag.name {
            "meta" => self.see_meta(tag),
            "link" => self.see_link(tag),
            "a" | "area" | "frame" => self.see_anchor(tag),
            "base" if self.web.base.is_none() => self.web.base = address(tag, "href"),
            "html" => {
                if let Some(language) = attribute(tag, "lang").or_else(|| attribute(tag, "xml:lang")) {
                    self.offer_language(0, language);
                }
            }
            "time" => self.see_time(tag),
            _ => {}
        }
    }

    /// Takes in the text of a script of structured data.
    pub(super) fn see_structured(&mut self, json: &str) {
        self.structured_bytes = self.structured_bytes.saturating_add(json.len());
        if self.structured_bytes <= MAX_STRUCTURED_BYTES {
            self.structured.read(json);
        }
    }

    /// The facts; a trail ends above the page, so `title` is no part of it.
    pub(super) fn finish(mut self, title: Option<&str>) -> (Metadata, WebPage) {
        if let Some(day) = self.structured.published_at.take() {
            self.published_at.offer(0, day);
        }
        let mut breadcrumbs = match self.structured.breadcrumbs.is_empty() {
            true => self.trail.finish(),
            false => self.structured.breadcrumbs,
        };
        if breadcrumbs.last().map(String::as_str) == title {
            breadcrumbs.pop();
        }
        let metadata = Metadata {
            language: self.language.take(),
            description: self
                .description
                .take()
                .map(|text| shorten(&one_line(&clean_prose(&text)), MAX_DESCRIPTION_CHARS))
                .filter(|text| !text.is_empty()),
            published_at: self.published_at.take(),
            breadcrumbs,
        };
        (metadata, self.web)
    }

    fn see_meta(&mut self, tag: &Tag) {
        let Some(content) = attribute(tag, "content").map(str::trim) else {
            return;
        };
        if let Some(header) = attribute(tag, "http-equiv") {
            match header.trim().to_ascii_lowercase().as_str() {
                "refresh" if self.web.refresh.is_none() => self.web.refresh = refresh_target(content),
                "content-language" => self.offer_language(1, content),
                _ => {}
            }
        }
        for key in ["name", "property", "itemprop"] {
            let Some(name) = attribute(tag, key) else { continue };
            let name = name.trim().to_ascii_lowercase();
            if content.is_empty() {
                continue;
            }
            if let Some(rank) = DATE_NAMES.iter().position(|known| *known == name) {
                self.offer_date(rank + 1, content);
            }
            match name.as_str() {
                "description" => self.description.offer(0, content),
                "og:description" => self.description.offer(1, content),
                "twitter:description" => self.description.offer(2, content),
                "og:site_name" => self.site_name = Some(content.to_owned()),
                "og:title" => self.shared_title = Some(content.to_owned()),
                "language" | "dc.language" | "dcterms.language" => self.offer_language(2, content),
                "og:locale" => self.offer_language(3, content),
                _ if CRAWLER_NAMES.contains(&name.as_str()) => self.obey(content),
                _ => {}
            }
        }
    }

    fn obey(&mut self, directives: &str) {
        for directive in directives.split([',', ' ']) {
            match directive.trim().to_ascii_lowercase().as_str() {
                "noindex" => self.web.noindex = true,
                "nofollow" => self.web.nofollow = true,
                "none" => {
                    self.web.noindex = true;
                    self.web.nofollow = true;
                }
                _ => {}
            }
        }
    }

    fn see_link(&mut self, tag: &Tag) {
        if has_word(tag, "rel", "canonical") && self.web.canonical.is_none() {
            self.web.canonical = address(tag, "href");
        }
        // The rest of an article or list that is cut into pages.
        if has_word(tag, "rel", "next") {
            self.add_link(tag, "href");
        }
    }

    fn see_anchor(&mut self, tag: &Tag) {
        if has_word(tag, "rel", "nofollow") {
            return;
        }
        self.add_link(tag, if &*tag.name == "frame" { "src" } else { "href" });
    }

    fn add_link(&mut self, tag: &Tag, name: &str) {
        if self.web.links.len() >= MAX_LINKS {
            return;
        }
        let Some(link) = address(tag, name) else { return };
        let leads_nowhere = NO_PAGE.iter().any(|beginning| {
            link.get(..beginning.len())
                .is_some_and(|start| start.eq_ignore_ascii_case(beginning))
        });
        if !leads_nowhere && self.seen_links.insert(link.clone()) {
            self.web.links.push(link);
        }
    }

    /// Times stand everywhere on a page; only some say that they are about the page.
    fn see_time(&mut self, tag: &Tag) {
        let Some(time) = attribute(tag, "datetime") else {
            return;
        };
        let rank = if has_word(tag, "itemprop", "datePublished") || attribute(tag, "pubdate").is_some() {
            DATE_NAMES.len() + 1
        } else if ["published", "entry-date", "post-date", "dt-published"]
            .iter()
            .any(|class| has_word(tag, "class", class))
        {
            DATE_NAMES.len() + 2
        } else {
            return;
        };
        self.offer_date(rank, time);
    }

    fn offer_date(&mut self, rank: usize, written: &str) {
        if let Some(day) = date::normalized(written) {
            self.published_at.offer(rank, day);
        }
    }

    fn offer_language(&mut self, rank: usize, written: &str) {
        if let Some(tag) = language_tag(written) {
            self.language.offer(rank, tag);
        }
    }
}

/// An address as written, apart from the white space that browsers drop too.
fn address(tag: &Tag, name: &str) -> Option<String> {
    let written: String = attribute(tag, name)?
        .trim()
        .chars()
        .filter(|c| !matches!(c, '\n' | '\r' | '\t'))
        .collect();
    (!written.is_empty() && written.len() <= MAX_URL_BYTES).then_some(written)
}

/// The address in `5; url='/next'`, unless the page is to be read first or only reloads itself.
fn refresh_target(content: &str) -> Option<String> {
    let digits = content
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(content.len());
    let seconds = &content[..digits];
    if !seconds.is_empty() && seconds.parse::<u32>().map_or(true, |s| s > MAX_REFRESH_SECONDS) {
        return None;
    }
    let rest = content[digits..].trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
    let rest = rest.trim_start_matches(|c: char| c.is_whitespace() || matches!(c, ';' | ','));
    let target = match rest.get(..3) {
        Some(start) if start.eq_ignore_ascii_case("url") => {
            let after = rest[3..].trim_start();
            after.strip_prefix('=').unwrap_or(rest).trim_start()
        }
        _ => rest,
    };
    let target = match target.chars().next() {
        Some(quote @ ('"' | '\'')) => target[1..].split(quote).next().unwrap_or(""),
        _ => target,
    };
    let target = target.trim();
    (!target.is_empty() && target.len() <= MAX_URL_BYTES).then(|| target.to_owned())
}

/// `de_DE` and `DE-de` are written `de-DE`; what is no tag at all is dropped.
fn language_tag(written: &str) -> Option<String> {
    let first = written.split([',', ';', ' ']).find(|part| !part.is_empty())?;
    let mut parts = first.split(['-', '_']);
    let language = parts.next()?.to_ascii_lowercase();
    let is_tag = (2..=3).contains(&language.len())
        && first.len() <= MAX_LANGUAGE_BYTES
        && first
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'))
        && language.bytes().all(|byte| byte.is_ascii_lowercase());
    if !is_tag {
        return None;
    }
    let mut tag = language;
    for part in parts.filter(|part| !part.is_empty()) {
        tag.push('-');
        match part.len() {
            2 => tag.push_str(&part.to_ascii_uppercase()),
            4 => {
                let lower = part.to_ascii_lowercase();
                tag.push_str(&lower[..1].to_ascii_uppercase());
                tag.push_str(&lower[1..]);
            }
            _ => tag.push_str(part),
        }
    }
    Some(tag)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refresh_counts_when_it_leads_elsewhere_soon() {
        let targets = [
            ("0; url=/new", Some("/new")),
            ("5;URL='next page.html'", Some("next page.html")),
            ("3, https://a.example/", Some("https://a.example/")),
            ("0.5; url=\"x\"", Some("x")),
            ("; url=y", Some("y")),
            ("30; url=/later", None),
            ("99999999999; url=/never", None),
            ("5", None),
            ("", None),
        ];
        for (content, target) in targets {
            assert_eq!(refresh_target(content).as_deref(), target, "{content}");
        }
    }

    #[test]
    fn languages_are_written_one_way() {
        for (written, tag) in [
            ("de", Some("de")),
            ("pt_br", Some("pt-BR")),
            ("EN-us, de", Some("en-US")),
            ("zh-hant-TW", Some("zh-Hant-TW")),
            ("german", None),
            ("", None),
            ("{{lang}}", None),
        ] {
            assert_eq!(language_tag(written).as_deref(), tag, "{written}");
        }
    }
}
