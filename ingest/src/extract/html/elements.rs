//! What the elements of HTML are to a reader of tokens.

use html5ever::tokenizer::Tag;
use html5ever::tokenizer::states::RawKind;

/// Elements whose content is no text of the page, or repeats on every page of the site.
pub(super) const SKIPPED: [&str; 17] = [
    "template", "noscript", "nav", "footer", "object", "svg", "canvas", "audio", "video", "select",
    "datalist", "map", "applet", "frameset", "noframes", "menu", "dialog",
];

/// Elements without content and end tag.
const VOID: [&str; 16] = [
    "area", "base", "basefont", "br", "col", "embed", "frame", "hr", "img", "input", "link", "meta", "param",
    "source", "track", "wbr",
];

/// What an open element means for those that come after it: which end tags may be left out, and how far back
/// the search for an element to close may go.
pub(super) type Role = u16;

pub(super) const PLAIN: Role = 0;
pub(super) const PARAGRAPH: Role = 1;
pub(super) const ITEM: Role = 1 << 1;
pub(super) const LIST: Role = 1 << 2;
pub(super) const TERM: Role = 1 << 3;
pub(super) const TERM_LIST: Role = 1 << 4;
pub(super) const CELL: Role = 1 << 5;
pub(super) const ROW: Role = 1 << 6;
pub(super) const ROW_GROUP: Role = 1 << 7;
pub(super) const CAPTION: Role = 1 << 8;
pub(super) const TABLE: Role = 1 << 9;
pub(super) const PAGE: Role = 1 << 10;

/// Elements that bound the search for an open paragraph.
pub(super) const SCOPE: Role = TABLE | CELL | CAPTION | PAGE | LIST;

/// The role of an element that stands apart from the text around it; inline elements have none.
pub(super) fn role_of(name: &str) -> Option<Role> {
    Some(match name {
        "p" => PARAGRAPH,
        "li" => ITEM,
        "ul" | "ol" => LIST,
        "dt" | "dd" => TERM,
        "dl" => TERM_LIST,
        "td" | "th" => CELL,
        "tr" => ROW,
        "tbody" | "thead" | "tfoot" => ROW_GROUP,
        "caption" => CAPTION,
        "table" => TABLE,
        "html" | "body" => PAGE,
        "address" | "article" | "aside" | "blockquote" | "button" | "center" | "details" | "dir" | "div"
        | "fieldset" | "figcaption" | "figure" | "form" | "h1" | "h2" | "h3" | "h4" | "h5" | "h6"
        | "head" | "header" | "hgroup" | "legend" | "main" | "optgroup" | "pre" | "search" | "section"
        | "summary" => PLAIN,
        _ => return None,
    })
}

pub(super) fn is_block(name: &str) -> bool {
    role_of(name).is_some()
}

pub(super) fn heading_level(name: &str) -> Option<u8> {
    match name.as_bytes() {
        [b'h', digit @ b'1'..=b'6'] => Some(digit - b'0'),
        _ => None,
    }
}

pub(super) fn is_void(tag: &Tag) -> bool {
    // A slash closes nothing in HTML, but the names that are closed by it in SVG and MathML are skipped anyway.
    VOID.contains(&&*tag.name) || tag.self_closing
}

/// Elements whose content the tokenizer takes as plain characters.
pub(super) fn raw_kind(name: &str) -> Option<RawKind> {
    match name {
        "script" => Some(RawKind::ScriptData),
        "style" | "xmp" | "iframe" | "noembed" => Some(RawKind::Rawtext),
        "title" | "textarea" => Some(RawKind::Rcdata),
        _ => None,
    }
}
