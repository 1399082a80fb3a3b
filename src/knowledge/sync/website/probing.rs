//! What a site shows where there is nothing. Some sites answer every address with a page: one whose text is the text of
//! an address that cannot exist, or differs from it in the address alone, is no page, whatever its status says.
//!
//! A site is asked once in a while, and only when a page of it says something new.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ingest::loader::web::{Answer, PageRequest, Validators};
use ingest::{ExtractedDocument, Format};
use tokio::time::Instant;
use url::Url;
use uuid::Uuid;

use super::WebDriver;
use crate::id::SourceId;
use crate::knowledge::sync::text;

/// What a site showed is believed for this time.
const FRESH_FOR: Duration = Duration::from_secs(3_600);

/// Sites that are remembered.
const MAX_SITES: usize = 4_096;

/// The start of an address that no site has; what follows is never the same.
const PROBE_PATH: &str = "/no-such-page-";

/// What sites show where there is nothing, each for one source: another one may see it with another login. Cheap to
/// clone; clones share what they know.
#[derive(Clone, Default)]
pub struct Nowhere {
    sites: Arc<Mutex<Sites>>,
}

/// By source and origin.
type Sites = HashMap<(SourceId, String), Arc<tokio::sync::Mutex<Site>>>;

/// What is known of a site. Its lock is held while it is asked, so that it is asked once.
#[derive(Default)]
struct Site {
    /// What it says, or none where it admits that there is nothing; and since when this is known.
    shown: Option<(Option<Nothing>, Instant)>,
    /// The host had no time for the question: it goes before the next page.
    is_overdue: bool,
}

/// What a site says where there is nothing.
#[derive(Clone)]
pub(super) struct Nothing {
    text_hash: String,
    besides_address: String,
}

impl Nothing {
    fn of(extracted: &ExtractedDocument, address: &Url) -> Self {
        Self {
            text_hash: text::hash_reading(extracted),
            besides_address: text::hash_besides_address(extracted, address),
        }
    }

    /// Whether a page says no more.
    pub(super) fn is(&self, extracted: &ExtractedDocument, address: &Url) -> bool {
        let page = Self::of(extracted, address);
        page.text_hash == self.text_hash || page.besides_address == self.besides_address
    }
}

/// The answer to the question what a site shows where there is nothing.
pub(super) enum Shown {
    /// A text; none where the site admits that there is nothing, or cannot say.
    Text(Option<Nothing>),
    /// The host has no time for the question.
    Busy { pause: Duration },
}

impl Nowhere {
    fn site(&self, source_id: SourceId, url: &Url) -> Arc<tokio::sync::Mutex<Site>> {
        let key = (source_id, url.origin().ascii_serialization());
        // The map is whole between any two statements.
        let mut sites = self.sites.lock().unwrap_or_else(PoisonError::into_inner);
        if sites.len() >= MAX_SITES && !sites.contains_key(&key) {
            sites.retain(|_, site| Arc::strong_count(site) > 1);
        }
        sites.entry(key).or_default().clone()
    }
}

impl WebDriver {
    /// Asks the question that a busy host left open, before a page is asked for: otherwise the page would be fetched
    /// again and again, and never judged. The pause is that of a host that is still busy.
    pub(super) async fn catch_up(&self, url: &Url, begin_until: Instant) -> Option<Duration> {
        let site = self.app.nowhere.site(self.source_id, url);
        let is_overdue = site.lock().await.is_overdue;
        if !is_overdue {
            return None;
        }
        match self.shown_for_nothing(url, begin_until).await {
            Shown::Busy { pause } => Some(pause),
            Shown::Text(_) => None,
        }
    }

    /// What the site of `url` shows where there is nothing.
    pub(super) async fn shown_for_nothing(&self, url: &Url, begin_until: Instant) -> Shown {
        let site = self.app.nowhere.site(self.source_id, url);
        let mut site = site.lock().await;
        if let Some((nothing, since)) = &site.shown
            && since.elapsed() < FRESH_FOR
        {
            return Shown::Text(nothing.clone());
        }
        let shown = self.ask_for_nothing(url, begin_until).await;
        match &shown {
            Shown::Text(said) => {
                site.shown = Some((said.clone(), Instant::now()));
                site.is_overdue = false;
            }
            Shown::Busy { .. } => site.is_overdue = true,
        }
        shown
    }

    async fn ask_for_nothing(&self, url: &Url, begin_until: Instant) -> Shown {
        let mut nothing = url.clone();
        nothing.set_path(&format!("{PROBE_PATH}{}", Uuid::now_v7().simple()));
        nothing.set_query(None);
        let request = PageRequest {
            url: &nothing,
            validators: &Validators::default(),
            credentials: &self.credentials_for(&nothing),
            delay: self.delay,
            begin_until,
            render: self.render,
            may_follow: &|_| false,
        };
        let page = match self.web.fetch(&request).await {
            Ok(Answer::Page(page)) if page.format() == Ok(Format::Html) => page,
            Ok(_) => return Shown::Text(None),
            Err(failure) => {
                return match failure.host_pause() {
                    Some(pause) => Shown::Busy { pause },
                    None => Shown::Text(None),
                };
            }
        };
        let extractor = &self.app.extractor;
        let extracted = extractor
            .extract_bytes(&page.bytes, Format::Html, &page.hints())
            .await;
        Shown::Text(extracted.ok().map(|extracted| Nothing::of(&extracted, &nothing)))
    }
}
