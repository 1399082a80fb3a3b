//! Lists of pages that a site publishes: sitemaps and their indexes (sitemaps.org), plain lists of addresses, RSS and
//! Atom feeds; packed or not. Written by strangers: read forward in one pass, without recursion, each list within limits.

use std::borrow::Cow;
use std::io::Read;

use flate2::read::MultiGzDecoder;
use quick_xml::Reader;
use quick_xml::events::{BytesStart, Event};
use url::Url;

use super::address::normalize;

/// Addresses in one file (the protocol's own limit).
pub const MAX_ENTRIES: usize = 50_000;

/// Of one file, unpacked.
pub const MAX_UNPACKED_BYTES: usize = 50 << 20;

/// Characters of a date that are kept.
const MAX_DATE_CHARS: usize = 64;

/// Bytes of the text of one field that are looked at. Longer addresses are refused anyway.
const MAX_FIELD_BYTES: usize = 8_192;

/// An address that a site lists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// In normal form.
    pub address: Url,
    /// As written: it is compared with what was written last time, never read as a date.
    pub lastmod: Option<String>,
}

/// What a file turned out to be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sitemap {
    /// Pages, in file order.
    pub pages: Vec<Entry>,
    /// Further sitemaps, if the file is an index.
    pub sitemaps: Vec<Url>,
    /// False if the file breaks off, is broken in the middle, or lists more than [`MAX_ENTRIES`].
    pub is_complete: bool,
}

/// Why a file lists nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SitemapError {
    #[error("the file is neither a sitemap nor a feed nor a list of addresses")]
    NotASitemap,
    #[error("the file unpacks to more than {} MiB", MAX_UNPACKED_BYTES >> 20)]
    TooLarge,
    #[error("the packed file is damaged")]
    Damaged,
}

impl Sitemap {
    /// Reads `bytes`, which came from `location`.
    pub fn parse(bytes: &[u8], location: &Url) -> Result<Self, SitemapError> {
        let unpacked = unpack(bytes)?;
        // Takes the byte order mark into account, so that UTF-16 is read as well.
        let (text, _, _) = encoding_rs::UTF_8.decode(&unpacked);
        if text.trim_start().starts_with('<') {
            parse_xml(&text, location)
        } else {
            parse_lines(&text)
        }
    }
}

fn unpack(bytes: &[u8]) -> Result<Cow<'_, [u8]>, SitemapError> {
    let mut unpacked = Cow::Borrowed(bytes);
    if bytes.starts_with(&[0x1f, 0x8b]) {
        let mut content = Vec::new();
        MultiGzDecoder::new(bytes)
            .take(MAX_UNPACKED_BYTES as u64 + 1)
            .read_to_end(&mut content)
            .map_err(|_| SitemapError::Damaged)?;
        unpacked = Cow::Owned(content);
    }
    if unpacked.len() > MAX_UNPACKED_BYTES {
        return Err(SitemapError::TooLarge);
    }
    Ok(unpacked)
}

fn parse_lines(text: &str) -> Result<Sitemap, SitemapError> {
    let mut addresses = text
        .lines()
        .map(str::trim)
        .filter(|line| line.starts_with("http://") || line.starts_with("https://"))
        .filter_map(|line| normalize(&Url::parse(line).ok()?).ok())
        .map(|address| Entry {
            address,
            lastmod: None,
        });
    let pages: Vec<Entry> = addresses.by_ref().take(MAX_ENTRIES).collect();
    if pages.is_empty() {
        return Err(SitemapError::NotASitemap);
    }
    Ok(Sitemap {
        pages,
        sitemaps: Vec::new(),
        is_complete: addresses.next().is_none(),
    })
}

/// What an element holds that lists an address.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Page,
    Sitemap,
    /// Of a feed.
    Item,
}

impl Kind {
    fn of(root: &str, name: &str) -> Option<Self> {
        match (root, name) {
            ("urlset", "url") => Some(Self::Page),
            ("sitemapindex", "sitemap") => Some(Self::Sitemap),
            ("rss" | "RDF", "item") | ("feed", "entry") => Some(Self::Item),
            _ => None,
        }
    }

    fn field(self, name: &str) -> Option<Field> {
        match (self, name) {
            (Self::Page | Self::Sitemap, "loc") | (Self::Item, "link") => Some(Field::Address),
            (Self::Page | Self::Sitemap, "lastmod") | (Self::Item, "pubDate" | "updated" | "date") => {
                Some(Field::Date)
            }
            _ => None,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Field {
    Address,
    Date,
}

/// The element that is being read, with what was found of it so far.
struct Open {
    kind: Kind,
    depth: usize,
    field: Option<Field>,
    address: String,
    date: String,
}

impl Open {
    fn push(&mut self, text: &str) {
        let target = match self.field {
            Some(Field::Address) => &mut self.address,
            Some(Field::Date) => &mut self.date,
            None => return,
        };
        if target.len() + text.len() <= MAX_FIELD_BYTES {
            target.push_str(text);
        }
    }

    /// Atom names its page by an attribute, once per relation.
    fn take_link(&mut self, tag: &BytesStart<'_>) {
        let relation = attribute(tag, "rel");
        let is_page = relation.is_none_or(|relation| relation == "alternate");
        if is_page && self.address.trim().is_empty() {
            self.address = attribute(tag, "href").unwrap_or_default();
        }
    }
}

fn parse_xml(text: &str, location: &Url) -> Result<Sitemap, SitemapError> {
    let mut reader = Reader::from_str(text);
    let config = reader.config_mut();
    config.expand_empty_elements = true;
    config.allow_dangling_amp = true;
    let mut sitemap = Sitemap::default();
    let mut root: Option<String> = None;
    let mut depth = 0usize;
    let mut open: Option<Open> = None;
    // A list that breaks in the middle still names what stands before.
    while let Ok(event) = reader.read_event() {
        match event {
            Event::Start(tag) => {
                depth += 1;
                let local_name = tag.local_name();
                let name: &str = local_name.as_ref();
                let Some(root) = &root else {
                    if !matches!(name, "urlset" | "sitemapindex" | "rss" | "RDF" | "feed") {
                        return Err(SitemapError::NotASitemap);
                    }
                    root = Some(name.to_owned());
                    continue;
                };
                match &mut open {
                    // Extensions have fields of the same name further down, such as the address of an image.
                    Some(open) if depth == open.depth + 1 => {
                        open.field = open.kind.field(name);
                        if open.kind == Kind::Item && open.field == Some(Field::Address) {
                            open.take_link(&tag);
                        }
                    }
                    Some(open) => open.field = None,
                    None => {
                        open = Kind::of(root, name).map(|kind| Open {
                            kind,
                            depth,
                            field: None,
                            address: String::new(),
                            date: String::new(),
                        });
                    }
                }
            }
            Event::End(_) => {
                if let Some(ended) = open.take_if(|open| open.depth == depth) {
                    if sitemap.pages.len() + sitemap.sitemaps.len() == MAX_ENTRIES {
                        return Ok(sitemap);
                    }
                    sitemap.add(&ended, location);
                } else if let Some(open) = &mut open {
                    open.field = None;
                }
                depth = depth.saturating_sub(1);
            }
            Event::Text(text) => {
                if let Some(open) = &mut open {
                    open.push(&text.xml10_content());
                }
            }
            Event::CData(text) => {
                if let Some(open) = &mut open {
                    open.push(&text.xml10_content());
                }
            }
            // Entities of a document type stay unknown: nothing is defined, fetched or expanded.
            Event::GeneralRef(reference) => {
                if let (Some(open), Some(text)) = (&mut open, resolve(&reference)) {
                    open.push(&text);
                }
            }
            Event::Eof => {
                sitemap.is_complete = depth == 0;
                break;
            }
            Event::Empty(_) | Event::Comment(_) | Event::Decl(_) | Event::PI(_) | Event::DocType(_) => {}
        }
    }
    if root.is_none() {
        return Err(SitemapError::NotASitemap);
    }
    Ok(sitemap)
}

impl Sitemap {
    fn add(&mut self, element: &Open, location: &Url) {
        let written = element.address.trim();
        let Some(address) = location.join(written).ok().filter(|_| !written.is_empty()) else {
            return;
        };
        let date: String = element.date.trim().chars().take(MAX_DATE_CHARS).collect();
        match element.kind {
            Kind::Sitemap if !matches!(address.scheme(), "http" | "https") => {}
            Kind::Sitemap => self.sitemaps.push(address),
            Kind::Page | Kind::Item => self.pages.extend(normalize(&address).ok().map(|address| Entry {
                address,
                lastmod: Some(date).filter(|date| !date.is_empty()),
            })),
        }
    }
}

fn attribute(tag: &BytesStart<'_>, name: &str) -> Option<String> {
    let found = tag
        .attributes()
        .with_checks(false)
        .take(32)
        .filter_map(Result::ok)
        .find(|attribute| attribute.key.local_name().as_ref() == name)?;
    quick_xml::escape::unescape(&found.value)
        .ok()
        .map(Cow::into_owned)
}

fn resolve(reference: &quick_xml::events::BytesRef<'_>) -> Option<String> {
    if let Ok(Some(c)) = reference.resolve_char_ref() {
        return Some(c.to_string());
    }
    quick_xml::escape::resolve_predefined_entity(reference).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    fn parse(file: &[u8]) -> Result<Sitemap, SitemapError> {
        Sitemap::parse(
            file,
            &Url::parse("https://example.org/sitemap.xml").expect("a URL"),
        )
    }

    fn pages(file: &str) -> Vec<(String, Option<String>)> {
        let sitemap = parse(file.as_bytes()).expect("a sitemap");
        sitemap
            .pages
            .into_iter()
            .map(|page| (page.address.into(), page.lastmod))
            .collect()
    }

    fn gzip(content: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(content).expect("memory");
        encoder.finish().expect("memory")
    }

    const URLSET: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
        <urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9" xmlns:image="http://www.google.com/schemas/sitemap-image/1.1">
          <url>
            <loc> https://example.org/a?x=1&amp;y=2 </loc><lastmod>2026-11-01</lastmod>
            <image:image><image:loc>https://example.org/a.png</image:loc></image:image>
          </url>
          <url><loc><![CDATA[https://example.org/b]]></loc></url>
          <url><lastmod>2026-01-01</lastmod></url>
        </urlset>"#;

    #[test]
    fn pages_come_with_the_date_they_are_said_to_have() {
        assert_eq!(
            pages(URLSET),
            [
                (
                    "https://example.org/a?x=1&y=2".to_owned(),
                    Some("2026-11-01".to_owned())
                ),
                ("https://example.org/b".to_owned(), None),
            ]
        );
    }

    #[test]
    fn a_packed_or_utf16_sitemap_is_read_like_a_plain_one() {
        let utf16: Vec<u8> = "\u{feff}"
            .chars()
            .chain(URLSET.chars())
            .flat_map(|c| (u32::from(c) as u16).to_le_bytes())
            .collect();

        assert_eq!(parse(&gzip(URLSET.as_bytes())), parse(URLSET.as_bytes()));
        assert_eq!(parse(&utf16), parse(URLSET.as_bytes()));
    }

    #[test]
    fn an_index_names_sitemaps() {
        let index = "<sitemapindex><sitemap><loc>/one.xml.gz</loc></sitemap>\
                     <sitemap><loc>https://cdn.example.net/two.xml</loc></sitemap></sitemapindex>";
        let sitemap = parse(index.as_bytes()).expect("an index");
        let named: Vec<&str> = sitemap.sitemaps.iter().map(Url::as_str).collect();
        assert_eq!(
            named,
            [
                "https://example.org/one.xml.gz",
                "https://cdn.example.net/two.xml"
            ]
        );
        assert!(sitemap.is_complete);
    }

    #[test]
    fn lists_and_feeds_name_pages_too() {
        assert_eq!(
            pages("https://example.org/a\r\n# note\nhttps://example.org/b\n"),
            [
                ("https://example.org/a".to_owned(), None),
                ("https://example.org/b".to_owned(), None)
            ]
        );
        let rss = "<rss><channel><link>https://example.org/</link><item><link>https://example.org/a</link>\
                   <pubDate>Fri, 20 Nov 2026</pubDate></item></channel></rss>";
        assert_eq!(
            pages(rss),
            [(
                "https://example.org/a".to_owned(),
                Some("Fri, 20 Nov 2026".to_owned())
            )]
        );
        let atom = r#"<feed xmlns="http://www.w3.org/2005/Atom"><link href="/"/><entry><link rel="edit" href="/e"/>
                   <link rel="alternate" href="/a"/><updated>2026</updated></entry></feed>"#;
        assert_eq!(
            pages(atom),
            [("https://example.org/a".to_owned(), Some("2026".to_owned()))]
        );
    }

    #[test]
    fn what_is_no_list_is_refused() {
        for file in [
            "",
            "<html><body>Not found</body></html>",
            "Not found",
            "<!DOCTYPE html>",
        ] {
            assert_eq!(parse(file.as_bytes()), Err(SitemapError::NotASitemap), "{file:?}");
        }
        assert_eq!(parse(&gzip(b"x")[..12]), Err(SitemapError::Damaged));
    }

    #[test]
    fn a_list_that_breaks_off_names_what_stands_before_and_says_so() {
        let cut = &URLSET[..URLSET.find("<url><lastmod>").expect("the last entry")];
        let sitemap = parse(cut.as_bytes()).expect("a sitemap");
        assert_eq!((sitemap.pages.len(), sitemap.is_complete), (2, false));
    }

    #[test]
    fn a_bomb_stops_at_the_limit() {
        let bomb = gzip(&vec![b' '; MAX_UNPACKED_BYTES + 10]);
        assert!(bomb.len() < 200_000);
        assert_eq!(parse(&bomb), Err(SitemapError::TooLarge));
    }

    #[test]
    fn no_more_than_the_protocols_number_of_pages_is_taken() {
        let file = format!(
            "<urlset>{}</urlset>",
            "<url><loc>/a</loc></url>".repeat(MAX_ENTRIES + 1)
        );
        let sitemap = parse(file.as_bytes()).expect("a sitemap");
        assert_eq!((sitemap.pages.len(), sitemap.is_complete), (MAX_ENTRIES, false));
        let lines = "https://example.org/a\n".repeat(MAX_ENTRIES + 1);
        let sitemap = parse(lines.as_bytes()).expect("a list");
        assert_eq!((sitemap.pages.len(), sitemap.is_complete), (MAX_ENTRIES, false));
    }

    #[test]
    fn entities_of_a_document_type_stay_unknown() {
        let file = r#"<!DOCTYPE urlset [<!ENTITY x "lol"><!ENTITY y SYSTEM "file:///etc/passwd">
            <!ENTITY z "&x;&x;&x;&x;&x;&x;&x;&x;">]>
            <urlset><url><loc>https://example.org/a&x;&y;&z;b</loc></url></urlset>"#;
        assert_eq!(pages(file), [("https://example.org/ab".to_owned(), None)]);
    }

    #[test]
    fn a_hundred_thousand_nested_elements_are_only_deep() {
        let file = format!("<urlset>{}", "<url>".repeat(100_000));
        assert_eq!(
            parse(file.as_bytes()).map(|sitemap| sitemap.is_complete),
            Ok(false)
        );
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            let _ = parse(&bytes);
        }

        #[test]
        fn no_markup_makes_it_panic(markup in "(<urlset>)?(</?(url|loc|lastmod|a:b|rss|item|link href='x'|!--|!\\[CDATA\\[|\\?|!DOCTYPE)>?|&amp;|&#x?[0-9]{1,9};|[a-z<>&]){0,30}") {
            let _ = parse(markup.as_bytes());
        }
    }
}
