//! E-books: the chapters of the spine in reading order, each a page of XHTML read whole.

use std::collections::{HashMap, HashSet};

use super::html::read_fragment;
use super::package::{Package, join};
use super::scope::Scope;
use super::xml::XmlEvent;
use crate::document::DocumentBuilder;
use crate::{ExtractError, ExtractedDocument};

/// Ways to obscure fonts, which leave the text readable.
const FONT_ALGORITHMS: [&str; 2] = [
    "http://www.idpf.org/2008/embedding",
    "http://ns.adobe.com/pdf/enc#RC",
];

/// Reads the chapters, without the table of contents.
pub(crate) fn extract(bytes: &[u8], scope: &Scope<'_>) -> Result<ExtractedDocument, ExtractError> {
    let mut package = Package::open(bytes, scope)?;
    if is_locked(&mut package)? {
        return Err(ExtractError::PasswordProtected);
    }
    let part = package_part(&mut package)?;
    let mut builder = DocumentBuilder::new(scope.limits);
    let chapters = read_contents(&mut package, &part, &mut builder)?;
    if chapters.len() > scope.limits.max_pages as usize {
        return Err(ExtractError::too_large("too many chapters"));
    }
    let mut seen = HashSet::new();
    for chapter in chapters {
        if let Some(source) = package.read(&chapter)? {
            builder = read_fragment(&source, builder, scope.limits)?;
            for picture in pictures_of(&chapter, &source) {
                if seen.insert(picture.clone()) {
                    package.put_medium(&picture, &mut builder);
                }
            }
        }
        if builder.is_full() {
            break;
        }
    }
    builder.finish()
}

/// The parts that a chapter shows, as its references name them.
fn pictures_of(chapter: &str, source: &str) -> Vec<String> {
    let folder = chapter.rsplit_once('/').map_or("", |(folder, _)| folder);
    let mut found = Vec::new();
    for name in ["src=", "xlink:href="] {
        let references = source.split(name).skip(1).filter_map(|after| {
            let quote = after.chars().next().filter(|quote| matches!(quote, '"' | '\''))?;
            after[1..].split_once(quote).map(|(reference, _)| reference)
        });
        found.extend(references.map(|reference| join(folder, &without_escapes(reference))));
    }
    found
}

/// Whether the text is encrypted, as shops do.
fn is_locked(package: &mut Package<'_>) -> Result<bool, ExtractError> {
    let Some(mut reader) = package.xml("META-INF/encryption.xml")? else {
        return Ok(false);
    };
    while let Some(event) = reader.next()? {
        let XmlEvent::Start(element) = event else { continue };
        let algorithm = element.attribute("Algorithm").unwrap_or_default();
        if element.name() == "EncryptionMethod" && !FONT_ALGORITHMS.contains(&algorithm.as_str()) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The part that lists all others.
fn package_part(package: &mut Package<'_>) -> Result<String, ExtractError> {
    if let Some(reader) = package.xml("META-INF/container.xml")? {
        let mut reader = reader.passing_over_types();
        while let Some(event) = reader.next()? {
            if let XmlEvent::Start(element) = event
                && element.name() == "rootfile"
                && let Some(path) = element.attribute("full-path")
            {
                return Ok(join("", &path));
            }
        }
    }
    let listing = package
        .entries()
        .into_iter()
        .map(|(name, _)| name)
        .find(|name| name.ends_with(".opf"));
    listing.ok_or_else(|| ExtractError::damaged("its table of contents is missing"))
}

/// A part that the e-book lists.
struct Item {
    path: String,
    is_text: bool,
}

/// Takes title, language, description and date, and gives the chapters in reading order.
fn read_contents(
    package: &mut Package<'_>,
    part: &str,
    builder: &mut DocumentBuilder,
) -> Result<Vec<String>, ExtractError> {
    let mut reader = package
        .xml(part)?
        .ok_or_else(|| ExtractError::damaged("its table of contents is missing"))?
        .passing_over_types();
    let folder = part.rsplit_once('/').map_or("", |(folder, _)| folder);
    let mut items: HashMap<String, Item> = HashMap::new();
    let mut spine = Vec::new();
    while let Some(event) = reader.next()? {
        let XmlEvent::Start(element) = event else { continue };
        match element.name() {
            "item" => {
                let is_contents = element.attribute("properties").is_some_and(|properties| {
                    properties.split_whitespace().any(|property| property == "nav")
                });
                let media_type = element.attribute("media-type").unwrap_or_default();
                let item = Item {
                    path: join(
                        folder,
                        &without_escapes(&element.attribute("href").unwrap_or_default()),
                    ),
                    is_text: !is_contents && (media_type.contains("html") || media_type.contains("oeb1")),
                };
                items.insert(element.attribute("id").unwrap_or_default(), item);
            }
            "itemref" => spine.extend(element.attribute("idref")),
            "title" | "language" | "description" | "date" => {
                let name = element.name().to_owned();
                let value = reader.text_of_element()?;
                let value = (!value.trim().is_empty()).then(|| value.trim().to_owned());
                let place = match name.as_str() {
                    "title" => &mut builder.title,
                    "language" => &mut builder.metadata.language,
                    "description" => &mut builder.metadata.description,
                    _ => &mut builder.metadata.published_at,
                };
                *place = place.take().or(value);
            }
            _ => {}
        }
    }
    builder.metadata.published_at = builder
        .metadata
        .published_at
        .take()
        .and_then(|date| full_date(&date));
    let chapters = spine
        .iter()
        .filter_map(|id| items.get(id))
        .filter(|item| item.is_text);
    Ok(chapters.map(|item| item.path.clone()).collect())
}

/// The day of a date, where one is given and not just a year.
fn full_date(date: &str) -> Option<String> {
    let day = date.get(..10)?;
    chrono::NaiveDate::parse_from_str(day, "%Y-%m-%d")
        .ok()
        .map(|day| day.to_string())
}

/// A reference without a fragment, its escapes resolved: parts are named as they are.
fn without_escapes(reference: &str) -> String {
    let path = reference.split('#').next().unwrap_or_default();
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let escaped = (*first == b'%')
            .then(|| std::str::from_utf8(after.get(..2)?).ok())
            .flatten()
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match escaped {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use crate::extract::package::pack;
    use crate::{Format, Hints, Limits};

    #[test]
    fn chapters_are_read_in_the_order_of_the_spine() {
        let book = pack(&[
            (
                "META-INF/container.xml",
                r#"<container><rootfile full-path="b/content.opf"/></container>"#,
            ),
            (
                "b/content.opf",
                r#"<!DOCTYPE package><package><metadata><title>Care</title><language>en</language><date>2024-03-01T00:00:00Z</date></metadata><manifest>
                   <item id="one" href="z%20one.xhtml" media-type="application/xhtml+xml"/><item id="two" href="text/a.xhtml#x" media-type="application/xhtml+xml"/>
                   <item id="nav" href="nav.xhtml" properties="scripted nav" media-type="application/xhtml+xml"/><item id="css" href="c.css" media-type="text/css"/>
                   </manifest><spine><itemref idref="nav"/><itemref idref="one"/><itemref idref="two"/><itemref idref="css"/><itemref idref="gone"/></spine></package>"#,
            ),
            (
                "b/z one.xhtml",
                "<html><head><title>x</title></head><body><h1>One</h1><p>First.</p></body></html>",
            ),
            (
                "b/text/a.xhtml",
                "<html><body><h1>Two</h1><p>Second.</p></body></html>",
            ),
            ("b/nav.xhtml", "<html><body><p>Contents</p></body></html>"),
            ("b/c.css", "p { color: red }"),
        ]);

        let document =
            crate::extract(&book, Format::Epub, &Hints::default(), &Limits::default()).expect("it has text");

        assert_eq!(document.text, "One\n\nFirst.\n\nTwo\n\nSecond.");
        assert_eq!(document.title.as_deref(), Some("Care"));
        assert_eq!(document.metadata.published_at.as_deref(), Some("2024-03-01"));
        assert_eq!(document.blocks[3].heading_path, ["Two"]);
    }
}
