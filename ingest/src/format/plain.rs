//! Tells kinds of text apart: by their content where it shows, else by the extension of the file's name.

use serde::de::IgnoredAny;

use super::Format;
use crate::extract::csv;

/// Larger files without a telling name are not tried as JSON.
const MAX_JSON_TRIAL_BYTES: usize = 1 << 20;

/// Header fields that every mail has some of.
const MAIL_FIELDS: [&str; 12] = [
    "from",
    "to",
    "subject",
    "date",
    "received",
    "return-path",
    "message-id",
    "mime-version",
    "delivered-to",
    "content-type",
    "x-mailer",
    "reply-to",
];

/// What `sample`, the head of `bytes`, is.
pub(super) fn detect(sample: &str, bytes: &[u8], file_name: &str) -> Format {
    let extension = file_name
        .rsplit_once('.')
        .map(|(_, end)| end.to_ascii_lowercase())
        .unwrap_or_default();
    let extension = extension.as_str();
    match sniff_markup(sample) {
        Markup::Page => return Format::Html,
        // Texts may open with a few tags; only their names tell.
        Markup::Fragment
            if !matches!(
                extension,
                "md" | "markdown" | "mdx" | "txt" | "rst" | "adoc" | "asciidoc"
            ) =>
        {
            return Format::Html;
        }
        _ => {}
    }
    if is_mail(sample, extension) {
        return Format::Eml;
    }
    match extension {
        "md" | "markdown" | "mdx" => Format::Markdown,
        "rst" | "rest" => Format::Rst,
        "adoc" | "asciidoc" => Format::Asciidoc,
        "csv" | "tsv" | "tab" if csv::is_plausible(bytes) => Format::Csv,
        "html" | "htm" | "xhtml" if sample.contains("</") => Format::Html,
        "jsonl" | "ndjson" if opens_json(sample) => Format::Jsonl,
        "json" | "geojson" if opens_json(sample) => Format::Json,
        "" | "json" if opens_json(sample) && is_json(bytes) => Format::Json,
        _ => Format::Text,
    }
}

fn opens_json(sample: &str) -> bool {
    sample
        .trim_start_matches('\u{feff}')
        .trim_start()
        .starts_with(['{', '['])
}

fn is_json(bytes: &[u8]) -> bool {
    bytes.len() <= MAX_JSON_TRIAL_BYTES && serde_json::from_slice::<IgnoredAny>(bytes).is_ok()
}

/// A mail begins with header fields; a text that happens to do so is one only by its name.
fn is_mail(sample: &str, extension: &str) -> bool {
    let mut known = Vec::new();
    for line in sample.trim_start_matches('\u{feff}').lines() {
        if line.is_empty() {
            break;
        }
        // A long field goes on in lines that begin with a space; mailboxes begin with a line of their own.
        if line.starts_with([' ', '\t']) || (known.is_empty() && line.starts_with("From ")) {
            continue;
        }
        let Some((name, _)) = line.split_once(':') else {
            return false;
        };
        if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_graphic()) {
            return false;
        }
        let name = name.to_ascii_lowercase();
        known.extend(MAIL_FIELDS.iter().find(|field| **field == name));
    }
    let has = |field: &str| known.contains(&field);
    let is_transported = has("received") || has("message-id") || has("mime-version") || has("return-path");
    match extension {
        "eml" | "mbox" => known.len() > 1,
        _ => is_transported && has("from") && known.len() > 2,
    }
}

enum Markup {
    /// Says that it is an HTML page.
    Page,
    /// Starts with an HTML tag.
    Fragment,
    None,
}

/// Tags at the start of a text that make it HTML (WHATWG MIME sniffing, section 7.1, with common blocks added).
const OPENING_TAGS: [&str; 20] = [
    "script", "iframe", "h1", "h2", "h3", "div", "font", "table", "a", "style", "title", "b", "br", "p",
    "ul", "ol", "section", "article", "main", "meta",
];

fn sniff_markup(sample: &str) -> Markup {
    let mut rest = sample.trim_start_matches(['\u{feff}', ' ', '\t', '\r', '\n', '\u{c}']);
    let mut starts_with_comment = false;
    // Comments and the XML declaration may stand before the first tag.
    loop {
        let skipped = if let Some(after) = rest.strip_prefix("<!--") {
            starts_with_comment = true;
            after.split_once("-->").map(|(_, after)| after)
        } else if let Some(after) = rest.strip_prefix("<?xml") {
            after.split_once('>').map(|(_, after)| after)
        } else {
            break;
        };
        let Some(after) = skipped else { break };
        rest = after.trim_start();
    }
    let head: String = rest.chars().take(16).collect::<String>().to_ascii_lowercase();
    if ["<!doctype html", "<html", "<head", "<body"]
        .iter()
        .any(|tag| starts_with_tag(&head, tag))
    {
        return Markup::Page;
    }
    let is_tag = |name: &&str| {
        head.strip_prefix('<')
            .is_some_and(|tag| starts_with_tag(tag, name))
    };
    if OPENING_TAGS.iter().any(is_tag) || (starts_with_comment && rest.starts_with('<')) {
        return Markup::Fragment;
    }
    Markup::None
}

fn starts_with_tag(text: &str, tag: &str) -> bool {
    text.strip_prefix(tag).is_some_and(|after| {
        after.is_empty() || after.starts_with(|c: char| c.is_whitespace() || c == '>' || c == '/')
    })
}
