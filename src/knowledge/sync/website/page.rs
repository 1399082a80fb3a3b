//! One page: asked for, judged, and turned into what the engine stores.

use std::time::Duration;

use ingest::loader::web::{
    Answer, FetchFailure, Page, PageLinks, PageRequest, Retry as WebRetry, Validators as WebValidators,
    looks_missing, normalize,
};
use ingest::{ExtractError, ExtractedDocument, Format};
use tokio::time::Instant;
use url::Url;

use super::WebDriver;
use super::probing::Shown;
use super::vouching::is_vouched_for;
use crate::error::Result;
use crate::knowledge::files::clean_name;
use crate::knowledge::indexing;
use crate::knowledge::sync::driver::{Complaint, Content, File, Found, Outcome, Reading, Retry};
use crate::knowledge::sync::items::{Item, KnownAs, Validators};
use crate::knowledge::sync::{Note, text};

/// What a slice that is over grants to requests under way, beyond the time that one page may take.
const GRACE: Duration = Duration::from_secs(5);

/// What an owner is told of a page of the source's settings of which nothing is kept.
const MISSING: Complaint = Complaint {
    code: "page_missing",
    message: "There is no page at this address. Correct the address, or take it out of the source.",
};
const NOINDEX: Complaint = Complaint {
    code: "noindex",
    message: "The page asks not to be indexed (noindex), so nothing of it is kept. Change that at the site, or take the page out of the source.",
};
const EMPTY: Complaint = Complaint {
    code: "no_text",
    message: "The page has no text. Pages that are made by JavaScript have to be rendered.",
};

impl WebDriver {
    pub(super) async fn read_page(&self, item: &Item, begin_until: Instant) -> Result<Reading> {
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
        if let Some(pause) = self.catch_up(&url, begin_until).await {
            return Ok(Outcome::Busy { pause }.into());
        }
        let validators = WebValidators {
            etag: item.etag.clone().filter(|_| self.is_known(item)),
            last_modified: item.last_modified.clone().filter(|_| self.is_known(item)),
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
            begin_until,
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
            Err(failure) => Ok(match failure.host_pause() {
                Some(pause) => Outcome::Busy { pause }.into(),
                None => self.unread(item, &failure),
            }),
            Ok(Answer::NotModified) => Ok(self.same(item, None)),
            Ok(Answer::Gone { .. }) => Ok(self.gone(item)),
            Ok(Answer::Redirected { to }) => Ok(self.moved(item, &to, Validators::default(), 0)),
            Ok(Answer::Page(page)) => self.take_page(item, *page, begin_until).await,
        }
    }

    /// The item is as it was, and so are its links.
    fn same(&self, item: &Item, validators: Option<Validators>) -> Reading {
        Reading {
            found: self.known_links(item),
            ..Reading::from(Outcome::Same { validators })
        }
    }

    /// Whether what is known of a page may be relied upon. Why nothing is kept of a page that the owner named is found
    /// out, and said, anew each time.
    fn is_known(&self, item: &Item) -> bool {
        item.known_as()
            .is_some_and(|known_as| known_as != KnownAs::NotKept || !self.kind.names(item))
    }

    /// Where the page led when it was read last.
    fn known_links(&self, item: &Item) -> Vec<Found> {
        let target = item.moved_to.as_deref().and_then(|to| Url::parse(to).ok());
        let target = target.and_then(|target| self.find(&target, self.kind.target_depth(item), None));
        let links = item
            .links()
            .filter(|_| self.kind.follows_links())
            .filter_map(|link| self.find(&Url::parse(link).ok()?, item.depth + 1, None));
        links.chain(target).collect()
    }

    fn unread(&self, item: &Item, failure: &FetchFailure) -> Reading {
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
            return Reading {
                complaint: self.kind.names(item).then_some(MISSING),
                ..Outcome::Gone.into()
            };
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
        let outcome = Outcome::Moved {
            to: target.key.clone(),
            validators,
        };
        Reading {
            bytes,
            found: vec![target],
            ..Reading::from(outcome)
        }
    }

    async fn take_page(&self, item: &Item, page: Page, begin_until: Instant) -> Result<Reading> {
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
        if self.is_known(item) && item.body_hash.as_deref() == Some(directives.as_str()) {
            let mut reading = self.same(item, Some(validators));
            reading.bytes = bytes;
            return Ok(reading);
        }
        let body_hash = directives;
        let mut reading = match page
            .format()
            .and_then(|format| self.app.extractor.media().accept(format))
        {
            Ok(Format::Html) => {
                let reading = self.take_html(item, &page, body_hash, validators).await?;
                self.without_nowhere(item, &page, reading, begin_until).await
            }
            Ok(_) if page.directives.noindex => Reading {
                complaint: self.kind.names(item).then_some(NOINDEX),
                ..Outcome::NotKept { validators }.into()
            },
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
            Err(ExtractError::Unavailable) => return Err(indexing::reader_unavailable()),
            Err(error) => {
                // What kills its reader has had its second try there.
                let mut reading = failed(item, error.code(), &error.to_string(), Retry::Never);
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
        let lacks_reader = links
            .links
            .iter()
            .any(|link| self.kind.lacks_reader_of(link, item.depth + 1));
        let is_empty = extracted.text.trim().is_empty();
        // A page that leads on is worth something even if nothing of it is kept.
        let is_missed = self.kind.names(item) && found.is_empty();
        let mut reading = Reading::from(Outcome::Skipped);
        reading.outcome = if web.noindex || page.directives.noindex {
            reading.complaint = is_missed.then_some(NOINDEX);
            Outcome::NotKept { validators }
        } else if is_empty && item.depth == 0 && found.is_empty() {
            let error = ExtractError::NoText { scanned: false };
            let message = "The start page has no text and no links. Pages that are made by JavaScript have to be rendered.";
            return Ok(failed(item, error.code(), message, Retry::Never));
        } else if is_empty {
            reading.complaint = is_missed.then_some(EMPTY);
            Outcome::NotKept { validators }
        } else if looks_missing(extracted.title.as_deref(), &extracted.text) {
            return Ok(self.soft_not_found(item));
        } else {
            Outcome::Content(Box::new(self.content(page, extracted, body_hash, validators)))
        };
        reading.found = found;
        reading.notes.extend(lacks_reader.then_some(Note::MediaLeftOut));
        Ok(reading)
    }

    /// The reading of a page, unless it is what the site shows where there is nothing.
    async fn without_nowhere(
        &self,
        item: &Item,
        page: &Page,
        reading: Reading,
        begin_until: Instant,
    ) -> Reading {
        let Outcome::Content(content) = &reading.outcome else {
            return reading;
        };
        let File::Reading(extracted) = &content.file else {
            return reading;
        };
        let says_nothing_new = item.text_hash.as_deref() == Some(content.text_hash.as_str());
        if self.kind.names(item) || says_nothing_new {
            return reading;
        }
        match self.shown_for_nothing(&page.final_url, begin_until).await {
            Shown::Busy { pause } => Outcome::Busy { pause }.into(),
            Shown::Text(Some(nothing)) if nothing.is(extracted, &page.final_url) => self.soft_not_found(item),
            Shown::Text(_) => reading,
        }
    }

    /// A page that is none, although its status says otherwise.
    fn soft_not_found(&self, item: &Item) -> Reading {
        let mut reading = self.gone(item);
        if !self.kind.names(item) {
            reading.notes.push(Note::SoftNotFound);
        }
        reading
    }

    fn content(
        &self,
        page: &Page,
        extracted: ExtractedDocument,
        body_hash: String,
        validators: Validators,
    ) -> Content {
        let file_name = clean_name(&page.hints().file_name);
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
        validators,
    }))
    .into()
}
