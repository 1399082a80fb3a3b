//! What a document says about itself besides its text.

use serde::{Deserialize, Serialize};

/// Facts for show and for filters. Each is a claim of the document and absent when it makes none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Metadata {
    /// A BCP 47 tag, such as `de` or `pt-BR`.
    pub language: Option<String>,
    pub description: Option<String>,
    /// RFC 3339: a date, or a date with a time in UTC.
    pub published_at: Option<String>,
    /// The path of sections above a page, outermost first.
    pub breadcrumbs: Vec<String>,
}

/// What a web page says to a crawler. URLs stand as written: resolve them against `base`, and that against
/// the page's own address.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct WebPage {
    /// Of the `base` element.
    pub base: Option<String>,
    /// The address that the page wants to be known by.
    pub canonical: Option<String>,
    /// Where it sends a reader at once (`meta http-equiv=refresh`).
    pub refresh: Option<String>,
    /// Not to be kept.
    pub noindex: bool,
    /// None of its links is to be followed.
    pub nofollow: bool,
    /// In page order, each address once, without those marked `nofollow`.
    pub links: Vec<String>,
}
