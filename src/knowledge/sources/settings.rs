//! What an owner sets for a source, by its kind. What is secret of it lies apart, sealed: see [`super::secrets`].

use serde::{Deserialize, Serialize};
use serde_json::Value;
use url::Url;

use super::SourceKind;
use crate::error::{Error, Result};

/// What is read, and how. Stored as the JSON of the kind's own struct, beside the kind.
#[derive(Clone, Debug, PartialEq)]
pub enum Settings {
    /// Files that people upload.
    Upload,
    /// A website, from a page on along its links.
    Website(Website),
    /// The pages that a sitemap lists.
    Sitemap(Sitemap),
    /// Pages named one by one.
    Pages(Pages),
    /// Files of Google Drive.
    Drive(Drive),
    /// Documents that a program puts here.
    Push,
}

/// A website, read from `url` on along its links.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Website {
    #[serde(with = "address")]
    pub url: Url,
    pub max_pages: u32,
    /// Links away from `url`, which is 0.
    pub max_depth: u32,
    /// Patterns of paths; a page must fit one, where there are any.
    pub include: Vec<String>,
    /// Patterns of paths; a page that fits one is not read.
    pub exclude: Vec<String>,
    /// Whether hosts below the start page's belong to the site.
    pub subdomains: bool,
    /// Whether addresses that differ in their query are different pages.
    pub keep_query: bool,
    pub shrink_limit_percent: u8,
    pub fetching: Fetching,
}

/// The pages that the sitemap at `url` lists, itself or through further sitemaps.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sitemap {
    #[serde(with = "address")]
    pub url: Url,
    pub max_pages: u32,
    pub include: Vec<String>,
    pub exclude: Vec<String>,
    pub shrink_limit_percent: u8,
    pub fetching: Fetching,
}

/// These pages and no other.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pages {
    #[serde(with = "addresses")]
    pub urls: Vec<Url>,
    pub shrink_limit_percent: u8,
    pub fetching: Fetching,
}

/// A folder with all below it, a shared drive, or single files.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Drive {
    pub folder_id: Option<String>,
    pub file_ids: Vec<String>,
    pub shared_drive_id: Option<String>,
    /// Whether the source has credentials of its own; otherwise it reads with the tenant's Google connection.
    pub own_credentials: bool,
    pub shrink_limit_percent: u8,
}

/// How pages are asked for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Fetching {
    /// Headers sent with each request to the site; their values are sealed.
    pub header_names: Vec<String>,
    /// Who logs in by basic authentication; the password is sealed.
    pub basic_auth_user: Option<String>,
    /// Whether pages are rendered in a browser before they are read.
    pub render: bool,
    /// Pause between two requests to one host, where the site asks for no longer one.
    pub delay_ms: Option<u64>,
}

impl Settings {
    /// What they are the settings of.
    pub fn kind(&self) -> SourceKind {
        match self {
            Self::Upload => SourceKind::Upload,
            Self::Website(_) => SourceKind::Website,
            Self::Sitemap(_) => SourceKind::Sitemap,
            Self::Pages(_) => SourceKind::Pages,
            Self::Drive(_) => SourceKind::Drive,
            Self::Push => SourceKind::Push,
        }
    }

    /// What a source is called that nobody gave a name.
    pub(super) fn usual_name(&self) -> String {
        // A host may be longer than a name.
        let host = |url: &Url| -> String { url.host_str().unwrap_or_default().chars().take(150).collect() };
        match self {
            Self::Upload => "Uploaded files".to_owned(),
            Self::Website(website) => host(&website.url),
            Self::Sitemap(sitemap) => format!("Sitemap of {}", host(&sitemap.url)),
            Self::Pages(pages) => format!("{} pages", pages.urls.len()),
            Self::Drive(_) => "Google Drive".to_owned(),
            Self::Push => "Pushed documents".to_owned(),
        }
    }

    /// How its pages are asked for, where it has pages.
    pub fn fetching(&self) -> Option<&Fetching> {
        match self {
            Self::Website(website) => Some(&website.fetching),
            Self::Sitemap(sitemap) => Some(&sitemap.fetching),
            Self::Pages(pages) => Some(&pages.fetching),
            Self::Upload | Self::Drive(_) | Self::Push => None,
        }
    }

    /// A run that would remove a larger share of the documents, in percent, removes none and says so.
    pub fn shrink_limit_percent(&self) -> Option<u8> {
        match self {
            Self::Website(website) => Some(website.shrink_limit_percent),
            Self::Sitemap(sitemap) => Some(sitemap.shrink_limit_percent),
            Self::Pages(pages) => Some(pages.shrink_limit_percent),
            Self::Drive(drive) => Some(drive.shrink_limit_percent),
            Self::Upload | Self::Push => None,
        }
    }

    /// The addresses that its secrets are meant for: they go to these origins and no other.
    pub fn addresses(&self) -> Vec<&Url> {
        match self {
            Self::Website(website) => vec![&website.url],
            Self::Sitemap(sitemap) => vec![&sitemap.url],
            Self::Pages(pages) => pages.urls.iter().collect(),
            Self::Upload | Self::Drive(_) | Self::Push => Vec::new(),
        }
    }

    /// As it is stored.
    pub fn to_json(&self) -> Result<Value> {
        Ok(match self {
            Self::Upload | Self::Push => Value::Object(serde_json::Map::new()),
            Self::Website(website) => serde_json::to_value(website)?,
            Self::Sitemap(sitemap) => serde_json::to_value(sitemap)?,
            Self::Pages(pages) => serde_json::to_value(pages)?,
            Self::Drive(drive) => serde_json::to_value(drive)?,
        })
    }

    /// From what is stored.
    pub fn from_json(kind: SourceKind, json: Value) -> Result<Self> {
        let read = match kind {
            SourceKind::Upload => Ok(Self::Upload),
            SourceKind::Push => Ok(Self::Push),
            SourceKind::Website => serde_json::from_value(json).map(Self::Website),
            SourceKind::Sitemap => serde_json::from_value(json).map(Self::Sitemap),
            SourceKind::Pages => serde_json::from_value(json).map(Self::Pages),
            SourceKind::Drive => serde_json::from_value(json).map(Self::Drive),
        };
        read.map_err(Error::internal)
    }
}

/// An address as its text.
mod address {
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};
    use url::Url;

    pub(super) fn serialize<S: Serializer>(url: &Url, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(url.as_str())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Url, D::Error> {
        Url::parse(&String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

/// Addresses as their texts.
mod addresses {
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};
    use url::Url;

    pub(super) fn serialize<S: Serializer>(urls: &[Url], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(urls.iter().map(Url::as_str))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Url>, D::Error> {
        let texts = Vec::<String>::deserialize(deserializer)?;
        texts
            .iter()
            .map(|text| Url::parse(text).map_err(D::Error::custom))
            .collect()
    }
}
