//! Which pages make up a source: a site along its links, what a sitemap lists, or pages named one by one.

use std::collections::HashMap;

use ingest::Media;
use ingest::loader::web::{Hosts, Scope, normalize};
use url::Url;

use crate::error::{Error, Result};
use crate::knowledge::sources::settings::{Pages, Sitemap, Website};
use crate::knowledge::sync::items::Item;

/// Where links lead is not asked for sites that list themselves: no page of theirs is too deep.
const ANY_DEPTH: u32 = u32::MAX;

/// What a source consists of.
pub(super) enum Kind {
    /// Read along its links.
    Site {
        scope: Scope,
        max_pages: u32,
        max_depth: u32,
        keeps_query: bool,
        has_subdomains: bool,
    },
    Sitemap {
        url: Url,
        scope: Scope,
        max_pages: u32,
    },
    Pages {
        /// By their keys.
        pages: HashMap<String, Url>,
    },
}

impl Kind {
    pub(super) fn site(website: &Website, media: Media) -> Result<Self> {
        let hosts = if website.subdomains {
            Hosts::Subdomains
        } else {
            Hosts::Same
        };
        let scope = Scope::new(
            &website.url,
            hosts,
            &website.include,
            &website.exclude,
            website.max_depth,
        );
        Ok(Self::Site {
            scope: scope.map_err(bad_scope)?.with_media(media),
            max_pages: website.max_pages,
            max_depth: website.max_depth,
            keeps_query: website.keep_query,
            has_subdomains: website.subdomains,
        })
    }

    pub(super) fn sitemap(sitemap: &Sitemap, media: Media) -> Result<Self> {
        let scope = Scope::new(
            &sitemap.url,
            Hosts::Same,
            &sitemap.include,
            &sitemap.exclude,
            ANY_DEPTH,
        );
        Ok(Self::Sitemap {
            url: sitemap.url.clone(),
            scope: scope.map_err(bad_scope)?.with_media(media),
            max_pages: sitemap.max_pages,
        })
    }

    pub(super) fn pages(pages: &Pages) -> Self {
        let pages = pages
            .urls
            .iter()
            .filter_map(|url| normalize(url).ok())
            .map(|url| (url.to_string(), url));
        Self::Pages {
            pages: pages.collect(),
        }
    }

    /// Whether further pages are found by the links of pages.
    pub(super) fn follows_links(&self) -> bool {
        matches!(self, Self::Site { .. })
    }

    /// Whether its pages may lie on several hosts.
    pub(super) fn has_many_hosts(&self) -> bool {
        match self {
            Self::Site { has_subdomains, .. } => *has_subdomains,
            Self::Sitemap { .. } => false,
            Self::Pages { .. } => true,
        }
    }

    /// `url` without what does not tell pages of this source apart.
    pub(super) fn distinct(&self, url: &Url) -> Url {
        let mut url = url.clone();
        if let Self::Site {
            scope,
            keeps_query: false,
            ..
        } = self
            && url != *scope.start()
        {
            url.set_query(None);
        }
        url
    }

    /// Whether an address in normal form, `depth` links from the start, belongs to the source.
    pub(super) fn admits(&self, url: &Url, depth: i64) -> bool {
        let depth_of_link = u32::try_from(depth).unwrap_or(u32::MAX);
        match self {
            Self::Site { scope, .. } => scope.admits(url, depth_of_link).is_ok(),
            Self::Sitemap { scope, .. } => scope.admits(url, 1).is_ok(),
            // What is not on the list is where a page of the list leads on to, on a host of the list.
            Self::Pages { pages } if depth <= 1 => pages.contains_key(url.as_str()),
            Self::Pages { pages } => pages.values().any(|page| {
                Scope::new::<&str>(page, Hosts::Same, &[], &[], 0).is_ok_and(|scope| scope.is_own_host(url))
            }),
        }
    }

    /// Whether an address is left out only because nobody is configured to read such pictures or recordings.
    pub(super) fn lacks_reader_of(&self, url: &Url, depth: i64) -> bool {
        let depth = u32::try_from(depth).unwrap_or(u32::MAX);
        matches!(self, Self::Site { scope, .. } if scope.lacks_reader_of(url, depth))
    }

    /// Whether the owner named this very page, and expects it to be known.
    pub(super) fn names(&self, item: &Item) -> bool {
        match self {
            Self::Site { .. } | Self::Sitemap { .. } => item.depth == 0,
            Self::Pages { .. } => item.depth <= 1,
        }
    }

    /// The depth of the page that `item` names as itself.
    pub(super) fn target_depth(&self, item: &Item) -> i64 {
        match self {
            Self::Pages { .. } => 2,
            Self::Site { .. } | Self::Sitemap { .. } => item.depth,
        }
    }
}

fn bad_scope(error: impl std::fmt::Display) -> Error {
    Error::conflict(
        "bad_scope",
        format!("The source's settings cannot be used: {error}."),
    )
}
