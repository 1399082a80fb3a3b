//! Websites, sitemaps and lists of pages, driven through [`ingest::loader::web`].
mod kind;
mod page;
mod vouching;

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use ingest::loader::web::{
    Credentials, Entry, FetchFailure, Listing as SiteListing, Retry as WebRetry, Scope, TrapGuard, WebLoader,
};
use tokio::time::Instant;
use url::Url;

use super::Note;
use super::driver::{Driver, Found, Known, ListError, Listing, Reading};
use super::items::Item;
use crate::app::App;
use crate::error::{Error, Result};
use crate::knowledge::sources::settings::{Fetching, Settings};
use crate::knowledge::sources::{Secrets, Source};
use kind::Kind;

/// Entries of sitemaps that are taken for each page that may be read.
const ENTRIES_PER_PAGE: usize = 10;

/// A source of web pages.
pub(super) struct WebDriver {
    app: App,
    kind: Kind,
    web: WebLoader,
    credentials: HashMap<String, Credentials>,
    delay: Duration,
    render: bool,
    shrink_limit_percent: u8,
    traps: Mutex<TrapGuard>,
}

impl WebDriver {
    /// None when the source is none of web pages.
    pub(super) fn open(app: &App, source: &Source) -> Result<Option<Self>> {
        let kind = match &source.settings {
            Settings::Website(website) => Kind::site(website)?,
            Settings::Sitemap(sitemap) => Kind::sitemap(sitemap)?,
            Settings::Pages(pages) => Kind::pages(pages),
            Settings::Upload | Settings::Drive(_) | Settings::Push => return Ok(None),
        };
        let fetching = source.settings.fetching().cloned().unwrap_or_default();
        Ok(Some(Self {
            app: app.clone(),
            kind,
            web: app.web.clone(),
            credentials: credentials(source, &fetching, &source.secrets(app)?)?,
            delay: Duration::from_millis(fetching.delay_ms.unwrap_or_default()),
            render: fetching.render,
            shrink_limit_percent: source.settings.shrink_limit_percent().unwrap_or(100),
            traps: Mutex::default(),
        }))
    }

    fn credentials_for(&self, url: &Url) -> Credentials {
        self.credentials
            .get(&url.origin().ascii_serialization())
            .cloned()
            .unwrap_or_default()
    }

    /// The key of an address and whether it belongs to the source, `depth` links from the start.
    fn find(&self, url: &Url, depth: i64, version: Option<String>) -> Option<Found> {
        let url = self.kind.distinct(url);
        self.kind.admits(&url, depth).then(|| Found {
            key: url.to_string(),
            url: url.into(),
            depth,
            version,
        })
    }

    async fn list_site(&self, scope: &Scope, max_pages: u32, max_depth: u32) -> Listing {
        let start = scope.start();
        let mut listing = Listing {
            items: vec![Found {
                key: start.to_string(),
                url: start.to_string(),
                depth: 0,
                version: None,
            }],
            ..Listing::default()
        };
        let Ok(robots) = self.web.reload_robots(start).await else {
            // The start page fails for the same reason, and says so.
            listing.notes.push(Note::RobotsUnavailable);
            return listing;
        };
        if max_depth > 0 {
            let entries = most_entries(max_pages);
            let site = self
                .web
                .list_site(start, &robots, &self.credentials_for(start), entries)
                .await;
            self.take_entries(site, entries, &mut listing);
        }
        listing
    }

    async fn list_sitemap(&self, url: &Url, max_pages: u32) -> Result<Listing, ListError> {
        let entries = most_entries(max_pages);
        let site = self
            .web
            .list_sitemaps(std::slice::from_ref(url), &self.credentials_for(url), entries)
            .await;
        if site.sitemaps_read == 0
            && let Some((_, failure)) = site.failures.first()
        {
            return Err(list_error(failure));
        }
        let mut listing = Listing::default();
        self.take_entries(site, entries, &mut listing);
        Ok(listing)
    }

    fn take_entries(&self, site: SiteListing, most: usize, listing: &mut Listing) {
        if !site.is_complete {
            let is_cut = site.failures.is_empty() && site.entries.len() >= most;
            listing.notes.push(if is_cut {
                Note::PageLimit
            } else {
                Note::SitemapUnreadable
            });
        }
        let mut known: HashSet<String> = listing.items.iter().map(|found| found.key.clone()).collect();
        for Entry { address, lastmod } in site.entries {
            // PostgreSQL stores no such text, and no date holds it.
            let version = lastmod.filter(|date| !date.contains('\0'));
            if let Some(found) = self.find(&address, 1, version)
                && known.insert(found.key.clone())
            {
                listing.items.push(found);
            }
        }
    }
}

impl Driver for WebDriver {
    fn list<'a>(&'a self, _: &'a Known) -> BoxFuture<'a, Result<Result<Listing, ListError>>> {
        Box::pin(async move {
            Ok(match &self.kind {
                Kind::Site {
                    scope,
                    max_pages,
                    max_depth,
                    ..
                } => Ok(self.list_site(scope, *max_pages, *max_depth).await),
                Kind::Sitemap { url, max_pages, .. } => self.list_sitemap(url, *max_pages).await,
                Kind::Pages { pages } => Ok(Listing {
                    items: pages
                        .iter()
                        .map(|(key, url)| Found {
                            key: key.clone(),
                            url: url.to_string(),
                            depth: 1,
                            version: None,
                        })
                        .collect(),
                    ..Listing::default()
                }),
            })
        })
    }

    fn admits(&self, item: &Item) -> bool {
        Url::parse(&item.key).is_ok_and(|url| self.kind.admits(&url, item.depth))
    }

    fn admits_another(&self, url: &str) -> bool {
        let Ok(url) = Url::parse(url) else { return false };
        // Each admission is whole, whoever panicked between two.
        let mut traps = self.traps.lock().unwrap_or_else(PoisonError::into_inner);
        !self.kind.follows_links() || traps.admit(&url)
    }

    fn read<'a>(&'a self, item: &'a Item, begin_until: Instant) -> BoxFuture<'a, Result<Reading>> {
        Box::pin(self.read_page(item, begin_until))
    }

    /// More than one host lets in at once, so that pages are read while others are fetched; each may be as large as a
    /// page may be.
    fn concurrency(&self) -> usize {
        (2 * self.app.config.crawl.per_host_concurrency).clamp(8, 64)
    }

    fn max_items(&self) -> i64 {
        match &self.kind {
            Kind::Site { max_pages, .. } | Kind::Sitemap { max_pages, .. } => (*max_pages).into(),
            // Each may lead on to another address.
            Kind::Pages { pages } => i64::try_from(pages.len() * 2).unwrap_or(i64::MAX),
        }
    }

    fn shrink_limit_percent(&self) -> i64 {
        self.shrink_limit_percent.into()
    }
}

/// What each origin that the owner named is sent.
fn credentials(
    source: &Source,
    fetching: &Fetching,
    secrets: &Secrets,
) -> Result<HashMap<String, Credentials>> {
    let headers: Vec<(String, String)> = fetching
        .header_names
        .iter()
        .filter_map(|name| {
            Some((
                name.clone(),
                secrets.headers.get(&name.to_ascii_lowercase())?.clone(),
            ))
        })
        .collect();
    let basic = fetching
        .basic_auth_user
        .as_deref()
        .map(|user| (user, secrets.password.as_deref().unwrap_or_default()));
    let mut by_origin = HashMap::new();
    for url in source.settings.addresses() {
        let credentials = Credentials::new(url, &headers, basic).map_err(|error| {
            Error::conflict(
                "bad_headers",
                format!("The source's headers cannot be used: {error}."),
            )
        })?;
        by_origin.insert(url.origin().ascii_serialization(), credentials);
    }
    Ok(by_origin)
}

fn most_entries(max_pages: u32) -> usize {
    usize::try_from(max_pages)
        .unwrap_or(usize::MAX)
        .saturating_mul(ENTRIES_PER_PAGE)
}

fn list_error(failure: &FetchFailure) -> ListError {
    match failure.retry {
        WebRetry::Never => ListError::Failed {
            code: failure.code.to_owned(),
            message: failure.message.clone(),
        },
        WebRetry::After(retry_after) => ListError::Later {
            message: failure.message.clone(),
            retry_after,
        },
    }
}
