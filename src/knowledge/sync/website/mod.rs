//! Websites, sitemaps and lists of pages, driven through [`ingest::loader::web`].
mod kind;
mod page;
mod probing;
mod vouching;

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use ingest::loader::web::{
    Credentials, Entry, FetchFailure, Listing as SiteListing, Retry as WebRetry, Scope, Sitemaps, TrapGuard,
    WebLoader,
};
use tokio::time::Instant;
use url::Url;

use super::Note;
use super::driver::{Driver, Found, Known, ListError, Listing, Reading};
use super::items::Item;
use crate::app::App;
use crate::error::{Error, Result};
use crate::id::SourceId;
use crate::knowledge::sources::settings::{Fetching, Settings};
use crate::knowledge::sources::{Secrets, Source};
use kind::Kind;

pub use probing::Nowhere;

/// Entries of sitemaps that are taken for each page that may be read.
const ENTRIES_PER_PAGE: usize = 10;

/// A source of web pages.
pub(super) struct WebDriver {
    app: App,
    source_id: SourceId,
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
        let media = app.extractor.media();
        let kind = match &source.settings {
            Settings::Website(website) => Kind::site(website, media)?,
            Settings::Sitemap(sitemap) => Kind::sitemap(sitemap, media)?,
            Settings::Pages(pages) => Kind::pages(pages),
            Settings::Upload | Settings::Drive(_) | Settings::Push => return Ok(None),
        };
        let fetching = source.settings.fetching().cloned().unwrap_or_default();
        Ok(Some(Self {
            app: app.clone(),
            source_id: source.id,
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

    async fn list_site(
        &self,
        scope: &Scope,
        (max_pages, max_depth): (u32, u32),
        known: &Known,
    ) -> Result<Listing, ListError> {
        let start = scope.start();
        let mut listing = Listing::default();
        let mut sitemaps = match known.cursor.as_deref().and_then(read_cursor) {
            Some(sitemaps) => sitemaps,
            None => {
                listing.items.push(Found {
                    key: start.to_string(),
                    url: start.to_string(),
                    depth: 0,
                    version: None,
                });
                match self.web.reload_robots(start, known.begin_until).await {
                    Ok(_) if max_depth == 0 => return Ok(listing),
                    Ok(robots) => Sitemaps::of_site(start, &robots),
                    Err(failure) => {
                        if let Some(pause) = failure.host_pause() {
                            return Err(ListError::Busy { pause });
                        }
                        // The start page fails for the same reason, and says so.
                        listing.notes.push(Note::RobotsUnavailable);
                        return Ok(listing);
                    }
                }
            }
        };
        self.list_sitemaps(&mut sitemaps, start, max_pages, known, &mut listing)
            .await?;
        Ok(listing)
    }

    async fn list_sitemap(&self, url: &Url, max_pages: u32, known: &Known) -> Result<Listing, ListError> {
        let cursor = known.cursor.as_deref().and_then(read_cursor);
        let is_first = cursor.is_none();
        let mut sitemaps = cursor.unwrap_or_else(|| Sitemaps::named(std::slice::from_ref(url)));
        let mut listing = Listing::default();
        let site = self
            .list_sitemaps(&mut sitemaps, url, max_pages, known, &mut listing)
            .await?;
        match site.failures.first() {
            Some((_, failure)) if is_first && site.sitemaps_read == 0 => Err(list_error(failure)),
            _ => Ok(listing),
        }
    }

    /// Reads sitemaps on, and takes what they name into `listing`.
    async fn list_sitemaps(
        &self,
        sitemaps: &mut Sitemaps,
        site: &Url,
        max_pages: u32,
        known: &Known,
        listing: &mut Listing,
    ) -> Result<SiteListing, ListError> {
        let credentials = self.credentials_for(site);
        let most = most_entries(max_pages);
        let mut read = self
            .web
            .list(sitemaps, &credentials, self.delay, most, known.begin_until)
            .await;
        self.take_entries(&mut read, listing);
        listing.pause = read.pause;
        listing.next_cursor = (!sitemaps.is_done())
            .then(|| serde_json::to_string(sitemaps))
            .transpose()
            .map_err(|error| ListError::Failed {
                code: "internal_error".to_owned(),
                message: format!("The site maps cannot be kept: {error}."),
            })?;
        Ok(read)
    }

    fn take_entries(&self, site: &mut SiteListing, listing: &mut Listing) {
        if !site.is_complete {
            listing.notes.push(if site.is_cut && site.failures.is_empty() {
                Note::PageLimit
            } else {
                Note::SitemapUnreadable
            });
        }
        let mut known: HashSet<String> = listing.items.iter().map(|found| found.key.clone()).collect();
        for Entry { address, lastmod } in site.entries.drain(..) {
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
    fn list<'a>(&'a self, known: &'a Known) -> BoxFuture<'a, Result<Result<Listing, ListError>>> {
        Box::pin(async move {
            Ok(match &self.kind {
                Kind::Site {
                    scope,
                    max_pages,
                    max_depth,
                    ..
                } => self.list_site(scope, (*max_pages, *max_depth), known).await,
                Kind::Sitemap { url, max_pages, .. } => self.list_sitemap(url, *max_pages, known).await,
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

    fn names(&self, item: &Item) -> bool {
        self.kind.names(item)
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

    fn has_many_hosts(&self) -> bool {
        self.kind.has_many_hosts()
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

    fn may_be_empty(&self) -> bool {
        false
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

/// How far the site maps were read; none for what another version wrote.
fn read_cursor(cursor: &str) -> Option<Sitemaps> {
    serde_json::from_str(cursor).ok()
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
