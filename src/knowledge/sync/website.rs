//! Websites, sitemaps and lists of pages, driven through [`ingest::loader::web`].

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use chrono::{DateTime, NaiveDate, NaiveTime, TimeDelta, Utc};
use futures::future::BoxFuture;
use ingest::loader::web::{
    Answer, Credentials, Entry, FetchFailure, Hosts, Listing as SiteListing, Page, PageLinks, PageRequest,
    Scope, TrapGuard, Validators as WebValidators, WebLoader, looks_missing, normalize,
};
use ingest::{ExtractError, ExtractedDocument, Format};
use tokio::time::Instant;
use url::Url;

use super::driver::{Content, Driver, File, Found, Known, ListError, Listing, Outcome, Reading, Retry};
use super::items::{Item, KnownAs, Validators};
use super::{Note, text};
use crate::app::App;
use crate::error::{Error, Result};
use crate::knowledge::files::clean_name;
use crate::knowledge::sources::settings::{Fetching, Pages, Settings, Sitemap, Website};
use crate::knowledge::sources::{Secrets, Source};

/// Where links lead is not asked for sites that list themselves: no page of theirs is too deep.
const ANY_DEPTH: u32 = u32::MAX;

/// Entries of sitemaps that are taken for each page that may be read.
const ENTRIES_PER_PAGE: usize = 10;

/// A page that a sitemap calls unchanged is asked for after this time all the same: sitemaps forget to say so.
const TRUSTED_FOR: TimeDelta = TimeDelta::days(7);

/// What a slice that is over grants to requests under way, beyond the time that one page may take.
const GRACE: Duration = Duration::from_secs(5);

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

enum Kind {
    /// Read along its links.
    Site {
        scope: Scope,
        max_pages: u32,
        max_depth: u32,
        keeps_query: bool,
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
            self.take_entries(site, &mut listing);
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
        self.take_entries(site, &mut listing);
        Ok(listing)
    }

    fn take_entries(&self, site: SiteListing, listing: &mut Listing) {
        if !site.is_complete {
            listing.notes.push(Note::SitemapUnreadable);
        }
        let mut known: HashSet<String> = listing.items.iter().map(|found| found.key.clone()).collect();
        for Entry { address, lastmod } in site.entries {
            if let Some(found) = self.find(&address, 1, lastmod)
                && known.insert(found.key.clone())
            {
                listing.items.push(found);
            }
        }
    }

    async fn read_page(&self, item: &Item, begin_until: Instant) -> Result<Reading> {
        let Ok(url) = Url::parse(&item.url) else {
            return Ok(failed(
                item,
                "bad_address",
                "The address cannot be read.",
                Retry::Never,
            ));
        };
        if is_vouched_for(item, self.app.clock.now()) {
            return Ok(self.same(item, None));
        }
        let validators = WebValidators {
            etag: item.etag.clone().filter(|_| item.known_as().is_some()),
            last_modified: item.last_modified.clone().filter(|_| item.known_as().is_some()),
        };
        // A site that sends each new visitor to the same page with a cookie or a parameter means that page.
        let is_itself = |target: &Url| {
            normalize(target).is_ok_and(|target| self.kind.distinct(&target).as_str() == item.key)
        };
        let request = PageRequest {
            url: &url,
            validators: &validators,
            credentials: &self.credentials_for(&url),
            delay: self.delay,
            render: self.render,
            may_follow: &is_itself,
        };
        let page_time = Duration::from_secs(self.app.config.crawl.page_timeout_s);
        let patience = begin_until + page_time + GRACE;
        let Ok(answer) = tokio::time::timeout_at(patience, self.web.fetch(&request)).await else {
            // Others of the host went first.
            return Ok(Outcome::NotBegun.into());
        };
        match answer {
            Err(failure) => Ok(self.unread(item, &failure)),
            Ok(Answer::NotModified) => Ok(self.same(item, None)),
            Ok(Answer::Gone { .. }) => Ok(self.gone(item)),
            Ok(Answer::Redirected { to }) => Ok(self.moved(item, &to, Validators::default(), 0)),
            Ok(Answer::Page(page)) => self.take_page(item, *page).await,
        }
    }

    /// The item is as it was, and so are its links.
    fn same(&self, item: &Item, validators: Option<Validators>) -> Reading {
        let mut reading = Reading::from(Outcome::Same { validators });
        reading.found = self.known_links(item);
        if let Some(target) = item.moved_to.as_deref().and_then(|to| Url::parse(to).ok()) {
            reading
                .found
                .extend(self.find(&target, self.kind.target_depth(item), None));
        }
        reading
    }

    fn known_links(&self, item: &Item) -> Vec<Found> {
        if !self.kind.follows_links() {
            return Vec::new();
        }
        item.links()
            .filter_map(|link| self.find(&Url::parse(link).ok()?, item.depth + 1, None))
            .collect()
    }

    fn unread(&self, item: &Item, failure: &FetchFailure) -> Reading {
        use ingest::loader::web::Retry as WebRetry;
        if failure.code == "robots_disallowed" && item.depth > 0 && self.kind.follows_links() {
            return Outcome::Skipped.into();
        }
        let retry = match failure.retry {
            WebRetry::Never => Retry::Never,
            WebRetry::After(None) => Retry::Later,
            WebRetry::After(Some(pause)) => Retry::After(pause),
        };
        let mut reading = failed(item, failure.code, &failure.message, retry);
        if failure.code == "robots_unavailable" {
            reading.notes.push(Note::RobotsUnavailable);
        }
        // What it linked to when it could be read is still there.
        reading.found = self.known_links(item);
        reading
    }

    fn gone(&self, item: &Item) -> Reading {
        if item.depth > 0 {
            return Outcome::Gone.into();
        }
        let message = "There is no page at the start address. Correct the address of the source.";
        let mut reading = failed(item, "start_missing", message, Retry::Never);
        reading.found = self.known_links(item);
        reading
    }

    /// The page is known by the address `to`, if that is part of the source.
    fn moved(&self, item: &Item, to: &Url, validators: Validators, bytes: u64) -> Reading {
        let Some(target) = self.find(to, self.kind.target_depth(item), None) else {
            if item.depth > 0 && self.kind.follows_links() {
                return Outcome::Skipped.into();
            }
            let message = "The page leads on to an address outside the source. Use that address instead, if it is meant.";
            return failed(item, "redirected_away", message, Retry::Never);
        };
        if target.key == item.key {
            let message = "The page leads on to itself.";
            return failed(item, "redirect_loop", message, Retry::Never);
        }
        Reading {
            outcome: Outcome::Moved {
                to: target.key.clone(),
                validators,
            },
            bytes,
            found: vec![target],
            notes: Vec::new(),
        }
    }

    async fn take_page(&self, item: &Item, page: Page) -> Result<Reading> {
        let bytes = page.bytes.len() as u64;
        let body_hash = text::hash_bytes(&page.bytes);
        let validators = Validators {
            etag: page.validators.etag.clone(),
            last_modified: page.validators.last_modified.clone(),
        };
        let directives = text::Directives {
            noindex: page.directives.noindex,
            nofollow: page.directives.nofollow,
        }
        .folded_into(&body_hash);
        if item.known_as().is_some() && item.body_hash.as_deref() == Some(directives.as_str()) {
            let mut reading = self.same(item, Some(validators));
            reading.bytes = bytes;
            return Ok(reading);
        }
        let body_hash = directives;
        let mut reading = match page.format() {
            Ok(Format::Html) => self.take_html(item, &page, body_hash, validators).await?,
            Ok(_) if page.directives.noindex => Outcome::NotKept { validators }.into(),
            Ok(format) => take_file(&page, format, body_hash, validators),
            Err(error) => failed(item, error.code(), &error.to_string(), Retry::Never),
        };
        reading.bytes = bytes;
        Ok(reading)
    }

    async fn take_html(
        &self,
        item: &Item,
        page: &Page,
        body_hash: String,
        validators: Validators,
    ) -> Result<Reading> {
        let extracted = self
            .app
            .extractor
            .extract_bytes(&page.bytes, Format::Html, &page.hints())
            .await;
        let mut extracted = match extracted {
            Ok(extracted) => extracted,
            Err(error) => {
                let retry = match error {
                    ExtractError::Crashed => Retry::Later,
                    _ => Retry::Never,
                };
                let mut reading = failed(item, error.code(), &error.to_string(), retry);
                reading.found = self.known_links(item);
                return Ok(reading);
            }
        };
        let mut web = extracted.web.take().unwrap_or_default();
        web.nofollow |= page.directives.nofollow;
        let links = PageLinks::resolve(&page.final_url, &web);
        if let Some(target) = &links.refresh
            && self.find(target, self.kind.target_depth(item), None).is_some()
        {
            return Ok(self.moved(item, target, validators, 0));
        }
        let canonical = links.canonical.as_ref().or(page.directives.canonical.as_ref());
        if let Some(target) = canonical.filter(|target| self.is_meant(item, &page.final_url, target)) {
            return Ok(self.moved(item, target, validators, 0));
        }
        let found: Vec<Found> = if self.kind.follows_links() {
            links
                .links
                .iter()
                .filter_map(|link| self.find(link, item.depth + 1, None))
                .collect()
        } else {
            Vec::new()
        };
        let is_empty = extracted.text.trim().is_empty();
        let outcome = if web.noindex || page.directives.noindex {
            Outcome::NotKept { validators }
        } else if is_empty && item.depth == 0 && found.is_empty() {
            let error = ExtractError::NoText { scanned: false };
            let message = "The start page has no text and no links. Pages that are made by JavaScript have to be rendered.";
            return Ok(failed(item, error.code(), message, Retry::Never));
        } else if is_empty {
            Outcome::NotKept { validators }
        } else if looks_missing(extracted.title.as_deref(), &extracted.text) {
            return Ok(self.gone(item));
        } else {
            Outcome::Content(Box::new(self.content(page, extracted, body_hash, validators)))
        };
        Ok(Reading {
            found,
            ..Reading::from(outcome)
        })
    }

    fn content(
        &self,
        page: &Page,
        extracted: ExtractedDocument,
        body_hash: String,
        validators: Validators,
    ) -> Content {
        let file_name = clean_name(&page.hints().file_name);
        let metadata = &extracted.metadata;
        Content {
            title: extracted
                .title
                .clone()
                .filter(|title| !title.trim().is_empty())
                .unwrap_or_else(|| file_name.clone()),
            file_name,
            format: Format::Html.as_str().to_owned(),
            size_bytes: i64::try_from(page.bytes.len()).unwrap_or(i64::MAX),
            text_hash: text::hash_reading(&extracted),
            body_hash,
            language: metadata.language.clone(),
            description: metadata.description.clone(),
            published_at: metadata.published_at.as_deref().and_then(read_time),
            validators,
            file: File::Reading(Box::new(extracted)),
        }
    }

    /// Whether a page means it when it names another address as its own. Some sites name their front page on every page,
    /// by mistake: taken at their word they would consist of it alone.
    fn is_meant(&self, item: &Item, own: &Url, canonical: &Url) -> bool {
        let is_front = canonical.path() == "/" && canonical.query().is_none();
        let is_mistake = is_front && own.path() != "/";
        !is_mistake && canonical != own && self.find(canonical, item.depth, None).is_some()
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

impl Kind {
    fn site(website: &Website) -> Result<Self> {
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
            scope: scope.map_err(bad_scope)?,
            max_pages: website.max_pages,
            max_depth: website.max_depth,
            keeps_query: website.keep_query,
        })
    }

    fn sitemap(sitemap: &Sitemap) -> Result<Self> {
        let scope = Scope::new(
            &sitemap.url,
            Hosts::Same,
            &sitemap.include,
            &sitemap.exclude,
            ANY_DEPTH,
        );
        Ok(Self::Sitemap {
            url: sitemap.url.clone(),
            scope: scope.map_err(bad_scope)?,
            max_pages: sitemap.max_pages,
        })
    }

    fn pages(pages: &Pages) -> Self {
        let pages = pages
            .urls
            .iter()
            .filter_map(|url| normalize(url).ok())
            .map(|url| (url.to_string(), url));
        Self::Pages {
            pages: pages.collect(),
        }
    }

    fn follows_links(&self) -> bool {
        matches!(self, Self::Site { .. })
    }

    /// `url` without what does not tell pages of this source apart.
    fn distinct(&self, url: &Url) -> Url {
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

    fn admits(&self, url: &Url, depth: i64) -> bool {
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

    /// The depth of the page that `item` names as itself.
    fn target_depth(&self, item: &Item) -> i64 {
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
    use ingest::loader::web::Retry as WebRetry;
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

fn failed(item: &Item, code: &str, message: &str, retry: Retry) -> Reading {
    tracing::debug!(url = item.url, code, "a page could not be read");
    Outcome::Failed {
        code: code.to_owned(),
        message: message.to_owned(),
        retry,
    }
    .into()
}

/// A file that is no page: it is kept as it came, and read when it is indexed.
fn take_file(page: &Page, format: Format, body_hash: String, validators: Validators) -> Reading {
    let file_name = clean_name(&page.hints().file_name);
    Outcome::Content(Box::new(Content {
        title: file_name.clone(),
        file_name,
        format: format.as_str().to_owned(),
        size_bytes: i64::try_from(page.bytes.len()).unwrap_or(i64::MAX),
        text_hash: body_hash.clone(),
        body_hash,
        file: File::Original(page.bytes.clone()),
        language: None,
        description: None,
        published_at: None,
        validators,
    }))
    .into()
}

/// Whether the site's list of pages says that this one is as it was, for a page whose server cannot say so itself. A day
/// counts as a date only once it is over.
fn is_vouched_for(item: &Item, now: DateTime<Utc>) -> bool {
    let has_validators = item.etag.is_some() || item.last_modified.is_some();
    if has_validators || item.known_as() != Some(KnownAs::Page) || item.document_id.is_none() {
        return false;
    }
    let (Some(read_at), Some(listed)) = (item.read_at, &item.listed_version) else {
        return false;
    };
    item.read_version.as_ref() == Some(listed)
        && now - read_at < TRUSTED_FOR
        && changed_until(listed).is_some_and(|changed| changed < read_at)
}

/// The end of the time at which a change with this date may have happened.
fn changed_until(lastmod: &str) -> Option<DateTime<Utc>> {
    let lastmod = lastmod.trim();
    if let Ok(time) = DateTime::parse_from_rfc3339(lastmod) {
        return Some(time.to_utc() + TimeDelta::seconds(1));
    }
    let day = NaiveDate::parse_from_str(lastmod, "%Y-%m-%d").ok()?;
    // Somewhere on earth the day lasts fourteen hours longer than here.
    Some(day.and_time(NaiveTime::MIN).and_utc() + TimeDelta::hours(24 + 14))
}

fn read_time(text: &str) -> Option<DateTime<Utc>> {
    if let Ok(time) = DateTime::parse_from_rfc3339(text) {
        return Some(time.to_utc());
    }
    let day = NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?;
    Some(day.and_time(NaiveTime::MIN).and_utc())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(text: &str) -> DateTime<Utc> {
        text.parse().expect("the test names a time")
    }

    fn read_page(lastmod: &str, read_at: &str) -> Item {
        Item {
            document_id: Some(crate::id::DocumentId::new()),
            listed_version: Some(lastmod.to_owned()),
            read_version: Some(lastmod.to_owned()),
            read_at: Some(time(read_at)),
            ..Item::known_page("https://example.org/a")
        }
    }

    #[test]
    fn a_sitemap_vouches_for_pages_that_were_read_after_their_date() {
        let now = time("2026-11-20T12:00:00Z");

        for (lastmod, read_at, is_vouched) in [
            ("2026-11-01", "2026-11-18T00:00:00Z", true),
            ("2026-11-01T08:00:00+01:00", "2026-11-18T00:00:00Z", true),
            // It may have changed later that day.
            ("2026-11-18", "2026-11-18T10:00:00Z", false),
            // Sitemaps forget to say that something changed.
            ("2026-11-01", "2026-11-10T00:00:00Z", false),
            ("yesterday", "2026-11-18T00:00:00Z", false),
        ] {
            assert_eq!(
                is_vouched_for(&read_page(lastmod, read_at), now),
                is_vouched,
                "{lastmod}"
            );
        }
        let changed = Item {
            listed_version: Some("2026-11-02".to_owned()),
            ..read_page("2026-11-01", "2026-11-18T00:00:00Z")
        };
        assert!(!is_vouched_for(&changed, now));
    }

    #[test]
    fn a_server_that_can_say_what_changed_is_asked() {
        let item = Item {
            etag: Some("\"1\"".to_owned()),
            ..read_page("2026-11-01", "2026-11-18T00:00:00Z")
        };

        assert!(!is_vouched_for(&item, time("2026-11-20T12:00:00Z")));
    }
}
