//! Pages that only JavaScript fills, through a Chromium of the operator's; off unless configured.
//!
//! The browser fetches no page: it is given the bytes that [`super::WebLoader`] fetched, with all of its politeness,
//! limits and credentials. What the page's scripts ask for waits for its host like any request of ours, goes through
//! [`outbound::GuardedProxy`], which judges where each connection leads, and carries no credential of ours. Pages of different requests share no cookie or store.

mod browser;
mod visit;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use outbound::{Guard, GuardedProxy};
use tokio::sync::{OnceCell, Semaphore};
use url::Url;

use super::failure::{FetchFailure, Retry};
use browser::{Browser, BrowserError};
pub(super) use visit::Manners;
use visit::Visit;

/// A browser is replaced after this many pages: what leaks, leaks this often.
const PAGES_PER_BROWSER: u32 = 50;

/// An unused browser is ended after this time.
const IDLE_TIME: Duration = Duration::from_secs(30);

/// How pages are rendered.
#[derive(Clone, Debug)]
pub struct RenderSettings {
    /// Chromium, or Chrome.
    pub program: PathBuf,
    /// Where a browser may keep its files while it runs.
    pub work_dir: PathBuf,
    pub user_agent: String,
    /// Chromium's own sandbox. Without it, a page that breaks the browser has broken into this machine. Chromium
    /// cannot use it as root, and in containers only where user namespaces are allowed.
    pub sandbox: bool,
    /// For one page, from its bytes to its rendered form.
    pub timeout: Duration,
    /// Browsers at a time; each takes some 200 MiB.
    pub browsers: usize,
    /// Of the rendered page.
    pub max_bytes: usize,
}

/// Renders pages for the whole process. Cheap to clone.
#[derive(Clone)]
pub struct Renderer {
    shared: Arc<Shared>,
}

struct Shared {
    settings: RenderSettings,
    guard: Guard,
    proxy: OnceCell<GuardedProxy>,
    slots: Semaphore,
    idle: Mutex<Vec<Idle>>,
}

struct Idle {
    browser: Browser,
    pages: u32,
    /// Tells a browser that was used again from one that was not.
    ticket: u64,
}

impl Renderer {
    /// Starts nothing yet: the first page starts the first browser.
    pub fn new(guard: Guard, settings: RenderSettings) -> Self {
        Self {
            shared: Arc::new(Shared {
                slots: Semaphore::new(settings.browsers.max(1)),
                settings,
                guard,
                proxy: OnceCell::new(),
                idle: Mutex::default(),
            }),
        }
    }

    /// The page at `url`, whose bytes are `html`, after its scripts ran, in UTF-8. They get what `manners` and the guard
    /// allow, no faster than that.
    pub(super) async fn render(
        &self,
        url: &Url,
        content_type: &str,
        html: &Bytes,
        manners: Manners<'_>,
    ) -> Result<Bytes, FetchFailure> {
        let shared = &self.shared;
        let _slot = shared
            .slots
            .acquire()
            .await
            .expect("the semaphore of the renderer is never closed");
        let visit = Visit {
            url,
            content_type,
            html,
            manners,
            max_bytes: shared.settings.max_bytes,
            timeout: shared.settings.timeout,
        };
        let work = async {
            let mut idle = match shared.take_idle() {
                Some(idle) => idle,
                None => shared.start().await?,
            };
            let rendered = visit.run(&mut idle.browser).await?;
            idle.pages += 1;
            // A browser that failed is not used again: dropping it ends it.
            self.keep(idle);
            Ok(rendered)
        };
        match tokio::time::timeout(shared.settings.timeout, work).await {
            Ok(Ok(rendered)) => Ok(rendered),
            Ok(Err(error)) => {
                tracing::warn!(error = %error, "the browser could not render a page");
                Err(failure_of(&error))
            }
            Err(_) => Err(timed_out(shared.settings.timeout)),
        }
    }

    fn keep(&self, mut idle: Idle) {
        if idle.pages >= PAGES_PER_BROWSER {
            return;
        }
        idle.ticket += 1;
        let (ticket, process) = (idle.ticket, idle.browser.process());
        self.shared.lock_idle().push(idle);
        let shared = Arc::downgrade(&self.shared);
        tokio::spawn(async move {
            tokio::time::sleep(IDLE_TIME).await;
            if let Some(shared) = shared.upgrade() {
                let mut idle = shared.lock_idle();
                idle.retain(|idle| idle.ticket != ticket || idle.browser.process() != process);
            }
        });
    }
}

impl Shared {
    async fn start(&self) -> Result<Idle, BrowserError> {
        let start_proxy = || GuardedProxy::start(self.guard.clone());
        let proxy = self.proxy.get_or_try_init(start_proxy).await?;
        Ok(Idle {
            browser: Browser::start(&self.settings, proxy.address()).await?,
            pages: 0,
            ticket: 0,
        })
    }

    fn take_idle(&self) -> Option<Idle> {
        self.lock_idle().pop()
    }

    fn lock_idle(&self) -> std::sync::MutexGuard<'_, Vec<Idle>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn failure_of(error: &BrowserError) -> FetchFailure {
    match error {
        BrowserError::TooLarge => FetchFailure::new(
            "too_large",
            "The page grows too large when its scripts run. Turn rendering off for this source.",
            Retry::Never,
        ),
        BrowserError::Held => FetchFailure::new(
            "render_too_slow",
            "The page's scripts ask for more than the site's pace allows in the time of a page. Have the site name a shorter Crawl-delay, raise crawl.page_timeout_s, or turn rendering off for this source.",
            Retry::After(None),
        ),
        BrowserError::Io(_) | BrowserError::Refused { .. } | BrowserError::Ended => FetchFailure::new(
            "render_failed",
            "The browser that runs the page's scripts failed. It is tried again.",
            Retry::After(None),
        ),
    }
}

fn timed_out(timeout: Duration) -> FetchFailure {
    FetchFailure::new(
        "render_timed_out",
        format!(
            "The page's scripts did not end within {} seconds.",
            timeout.as_secs()
        ),
        Retry::After(None),
    )
}
