//! The website loader: fetches pages politely and within bounds, and judges addresses. It keeps no frontier and no run:
//! the service's database does, so that a crawl goes on at its checkpoint after any death.
//!
//! Every request goes through [`outbound::GuardedClient`] and [`WebLoader`], which asks robots.txt, waits for the host's
//! slot and pace, and follows redirects only within the origin of the request. HTML is never parsed here: extraction
//! runs in a child process ([`crate::sandbox`]), and what a page says comes back as [`crate::WebPage`].

mod address;
mod credentials;
mod failure;
mod fetch;
mod listing;
mod missing;
mod page;
mod pattern;
mod percent;
mod politeness;
mod render;
mod robots;
mod robots_cache;
mod scope;
mod sitemap;
mod trap;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use outbound::{GuardedClient, Limits};
use tokio::time::Instant;
use url::Url;

use crate::Format;

pub use address::{AddressError, MAX_ADDRESS_BYTES, PageLinks, normalize};
pub use credentials::{Credentials, CredentialsError};
pub use failure::{FetchFailure, Retry};
pub use fetch::{Answer, BadUserAgent, PageRequest};
pub use listing::{Listing, Sitemaps};
pub use missing::looks_missing;
pub use page::{Directives, Page, Validators};
pub use pattern::{PatternError, Patterns};
pub use politeness::{Busy, MAX_BACK_OFF, MAX_CRAWL_DELAY, MAX_WAIT, Permit, Politeness};
pub use render::{RenderSettings, Renderer};
pub use robots::Robots;
pub use scope::{Hosts, OutOfScope, Scope, ScopeError, TrapGuard, TrapLimits};
pub use sitemap::{Entry, Sitemap, SitemapError};

use fetch::{FetchSettings, Fetcher};
use render::Manners;
use robots_cache::RobotsCache;

/// The pause of a host that limits us without saying for how long.
const DEFAULT_BACK_OFF: Duration = Duration::from_secs(5);

/// How the web is read by this process.
#[derive(Clone, Debug)]
pub struct WebSettings {
    /// Sent with each request. Its first word, up to a slash, is the name that a robots.txt knows us by.
    pub user_agent: String,
    /// Requests at a time to one host, over all tenants.
    pub per_host_concurrency: usize,
    /// The pause between requests to one host that holds where nobody wishes for a longer one.
    pub min_delay: Duration,
    /// Of one page, redirects included.
    pub limits: Limits,
}

/// Reads the web for the whole process. Cheap to clone; clones share slots, connections and what is known of sites.
#[derive(Clone)]
pub struct WebLoader {
    fetcher: Fetcher,
    sitemap_fetcher: Fetcher,
    politeness: Politeness,
    robots: RobotsCache,
    renderer: Option<Renderer>,
}

impl WebLoader {
    pub fn new(client: &GuardedClient, settings: &WebSettings) -> Result<Self, BadUserAgent> {
        let fetcher = Fetcher::new(
            client,
            &FetchSettings {
                user_agent: settings.user_agent.clone(),
                limits: settings.limits,
            },
        )?;
        let politeness = Politeness::new(settings.per_host_concurrency, settings.min_delay);
        let robots_fetcher = fetcher.with_max_bytes(robots_cache::MAX_FILE_BYTES, settings.limits);
        Ok(Self {
            sitemap_fetcher: fetcher.with_max_bytes(sitemap::MAX_UNPACKED_BYTES, settings.limits),
            robots: RobotsCache::new(robots_fetcher, politeness.clone()),
            politeness,
            fetcher,
            renderer: None,
        })
    }

    /// Renders the pages of requests that ask for it.
    pub fn with_renderer(self, renderer: Renderer) -> Self {
        Self {
            renderer: Some(renderer),
            ..self
        }
    }

    /// Fetches one page: asks robots.txt, waits for the host, sends the request, and leaves the host alone for a while
    /// if it asks for that. A redirect is followed if it stays at the origin, robots.txt allows it, and the request's
    /// `may_follow` agrees; any other is [`Answer::Redirected`]. A request that the host has no time for yet is not sent:
    /// its failure has a [`FetchFailure::host_pause`].
    pub async fn fetch(&self, request: &PageRequest<'_>) -> Result<Answer, FetchFailure> {
        let robots = self.robots.rules_for(request.url, request.begin_until).await?;
        if !robots.allows(request.url) {
            return Err(FetchFailure::robots_disallowed());
        }
        let may_follow = |target: &Url| robots.allows(target) && (request.may_follow)(target);
        let guarded = PageRequest {
            may_follow: &may_follow,
            ..*request
        };
        let delay = robots.crawl_delay().unwrap_or_default().max(request.delay);
        let permit = self
            .politeness
            .acquire(request.url, delay, request.begin_until)
            .await?;
        let answer = self.fetcher.fetch(&guarded).await;
        // What a page's scripts ask for takes a slot for each request.
        drop(permit);
        if let Err(failure) = &answer {
            self.note(request.url, failure);
        }
        match answer? {
            Answer::Page(page) if request.render && page.format() == Ok(Format::Html) => {
                Ok(Answer::Page(Box::new(self.render(*page, &robots, delay).await?)))
            }
            answer => Ok(answer),
        }
    }

    async fn render(&self, page: Page, robots: &Robots, delay: Duration) -> Result<Page, FetchFailure> {
        let renderer = self
            .renderer
            .as_ref()
            .ok_or_else(FetchFailure::render_unavailable)?;
        let charset = page.charset.as_deref();
        let content_type = match charset {
            Some(charset) => format!("text/html; charset={charset}"),
            None => "text/html".to_owned(),
        };
        let origin = page.final_url.origin();
        let manners = Manners {
            may_ask: &|url| url.origin() != origin || robots.allows(url),
            politeness: &self.politeness,
            delay,
        };
        Ok(Page {
            bytes: renderer
                .render(&page.final_url, &content_type, &page.bytes, manners)
                .await?,
            charset: Some("utf-8".to_owned()),
            // They belong to the bytes before the scripts ran.
            validators: Validators::default(),
            ..page
        })
    }

    /// What robots.txt says about the origin of `url`, from a copy that is at most an hour old, or a day if the site
    /// cannot answer. The error is that of [`WebLoader::fetch`] for all its pages.
    pub async fn robots(&self, url: &Url, begin_until: Instant) -> Result<Arc<Robots>, FetchFailure> {
        self.robots.rules_for(url, begin_until).await
    }

    /// Like [`WebLoader::robots`], but asks the site now: for the start of a run.
    pub async fn reload_robots(&self, url: &Url, begin_until: Instant) -> Result<Arc<Robots>, FetchFailure> {
        self.robots.reload(url, begin_until).await
    }

    /// The slots of all hosts, for requests of other kinds.
    pub fn politeness(&self) -> &Politeness {
        &self.politeness
    }

    /// Reads one sitemap; `None` if there is none at this address. Whoever names it may read it, but at the pace that the
    /// site wishes for.
    pub async fn sitemap(
        &self,
        url: &Url,
        credentials: &Credentials,
        delay: Duration,
        begin_until: Instant,
    ) -> Result<Option<Sitemap>, FetchFailure> {
        let wished = match self.robots.rules_for(url, begin_until).await {
            Ok(robots) => robots.crawl_delay().unwrap_or_default(),
            Err(failure) if failure.host_pause().is_some() => return Err(failure),
            Err(_) => Duration::ZERO,
        };
        let permit = self
            .politeness
            .acquire(url, wished.max(delay), begin_until)
            .await?;
        let fetched = self.sitemap_fetcher.get(url, credentials).await?;
        drop(permit);
        let failure = match fetched.status.as_u16() {
            200..=299 => match parse_sitemap(fetched.body, fetched.final_url).await? {
                Ok(sitemap) => return Ok(Some(sitemap)),
                Err(error) => FetchFailure::new(
                    "bad_sitemap",
                    format!("The sitemap could not be read: {error}."),
                    Retry::Never,
                ),
            },
            404 | 410 => return Ok(None),
            status => FetchFailure::of_status(status, fetch::retry_after(&fetched.headers)),
        };
        self.note(url, &failure);
        Err(failure)
    }

    fn note(&self, url: &Url, failure: &FetchFailure) {
        match failure.retry {
            Retry::After(Some(pause)) => self.politeness.back_off(url, pause),
            Retry::After(None) if failure.code == "http_429" => {
                self.politeness.back_off(url, DEFAULT_BACK_OFF);
            }
            _ => {}
        }
    }
}

/// Reads a sitemap where a file of some megabytes holds nobody up.
async fn parse_sitemap(body: Bytes, location: Url) -> Result<Result<Sitemap, SitemapError>, FetchFailure> {
    let parsing = tokio::task::spawn_blocking(move || Sitemap::parse(&body, &location));
    parsing.await.map_err(|error| {
        tracing::error!(%error, "the reader of sitemaps crashed");
        FetchFailure::new(
            "bad_sitemap",
            "The sitemap could not be read: it breaks the reader.",
            Retry::Never,
        )
    })
}
