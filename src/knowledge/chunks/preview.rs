//! How a text would be cut, without keeping anything of it.
//!
//! A preview costs what reading a document costs, and a person waits for it. So few run at once, one for each tenant,
//! nobody waits long for a place, and one that takes too long is ended.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ingest::{ExtractError, ExtractedDocument, Format, Hints};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::Chunking;
use crate::app::App;
use crate::error::{Error, Result};
use crate::id::TenantId;
use crate::knowledge::cut::count_tokens;

/// Characters of a text that is cut for show.
pub const MAX_TEXT_CHARS: usize = 500_000;

/// How long a preview waits for a place.
const MAX_WAIT: Duration = Duration::from_secs(2);

/// When to try again.
const RETRY_AFTER: Duration = Duration::from_secs(2);

/// A text and what it is.
pub struct PreviewText {
    pub text: String,
    pub format: Format,
}

/// The previews that run in this process.
pub struct Previews {
    places: Arc<Semaphore>,
    tenants: Arc<Mutex<HashSet<TenantId>>>,
}

/// The right of one tenant to one preview, given back when dropped.
pub struct Turn {
    tenants: Arc<Mutex<HashSet<TenantId>>>,
    tenant_id: TenantId,
    place: Option<OwnedSemaphorePermit>,
}

impl Previews {
    /// Lets at most `size` previews run at once.
    pub fn new(size: usize) -> Self {
        Self {
            places: Arc::new(Semaphore::new(size)),
            tenants: Arc::default(),
        }
    }

    /// Waits for a place, not for long. A tenant has one at a time.
    pub async fn enter(&self, tenant_id: TenantId) -> Result<Turn> {
        let is_first = self
            .tenants
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(tenant_id);
        if !is_first {
            return Err(Error::RateLimited {
                retry_after: RETRY_AFTER,
            });
        }
        // From here on the tenant's turn ends by itself, also when the caller leaves while it waits.
        let mut turn = Turn {
            tenants: Arc::clone(&self.tenants),
            tenant_id,
            place: None,
        };
        let place = timeout(MAX_WAIT, Arc::clone(&self.places).acquire_owned()).await;
        let place = place.map_err(|_| busy("too many texts are being cut at once; try again shortly"))?;
        turn.place = Some(place.map_err(Error::internal)?);
        Ok(turn)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.tenants
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&self.tenant_id);
    }
}

/// Reads the text as a document would be read, and cuts it.
pub async fn preview(
    app: &App,
    tenant_id: TenantId,
    text: PreviewText,
    chunking: &Chunking,
) -> Result<Vec<ingest::Chunk>> {
    chunking.check()?;
    let chars = text.text.chars().count();
    if text.text.trim().is_empty() || chars > MAX_TEXT_CHARS {
        return Err(Error::invalid(
            "invalid_preview_text",
            text.format.as_str(),
            format!("give a text of 1 to {MAX_TEXT_CHARS} characters"),
        ));
    }
    let turn = app.previews.enter(tenant_id).await?;
    let limit = Duration::from_secs(app.config.extract.preview_timeout_s);
    let work = async {
        let extracted = read(app, &text).await?;
        cut(app, turn, extracted, chunking).await
    };
    timeout(limit, work).await.unwrap_or_else(|_| {
        Err(busy(
            "the text could not be cut in time; try again shortly, or with less of it",
        ))
    })
}

async fn read(app: &App, text: &PreviewText) -> Result<ExtractedDocument> {
    app.extractor
        .extract_bytes(text.text.as_bytes(), text.format, &Hints::default())
        .await
        .map_err(|error| match error {
            ExtractError::Unavailable => Error::Unavailable {
                code: "reader_unavailable",
                message: "texts cannot be read at the moment; try again shortly".into(),
                retry_after: RETRY_AFTER,
                source: None,
            },
            error => Error::Invalid {
                code: error.code(),
                field: Some(text.format.as_str().to_owned()),
                message: error.to_string().into(),
            },
        })
}

/// A caller who leaves ends this future and not the work: the turn goes with the work.
async fn cut(
    app: &App,
    turn: Turn,
    extracted: ExtractedDocument,
    chunking: &Chunking,
) -> Result<Vec<ingest::Chunk>> {
    let embedder = app.spaces.wanted().embedder.clone();
    let options = chunking.options(embedder.as_deref().map(|embedder| embedder.max_tokens()));
    tokio::task::spawn_blocking(move || {
        let count = |text: &str| count_tokens(embedder.as_deref(), text);
        let chunks = ingest::chunk(&extracted, &options, &count);
        drop(turn);
        chunks
    })
    .await
    .map_err(Error::internal)
}

fn busy(message: &'static str) -> Error {
    Error::Unavailable {
        code: "busy",
        message: message.into(),
        retry_after: RETRY_AFTER,
        source: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(outcome: Result<Turn>) -> &'static str {
        match outcome {
            Ok(_) => "ok",
            Err(Error::RateLimited { .. }) => "rate_limited",
            Err(Error::Unavailable { code, .. }) => code,
            Err(_) => "other",
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_tenant_has_one_preview_at_a_time_and_its_next_one_after_that() {
        let previews = Previews::new(2);
        let [acme, globex] = [TenantId::new(), TenantId::new()];

        let first = previews.enter(acme).await.expect("a place");

        assert_eq!(code(previews.enter(acme).await), "rate_limited");
        assert_eq!(code(previews.enter(globex).await), "ok");
        drop(first);
        assert_eq!(code(previews.enter(acme).await), "ok");
    }

    #[tokio::test(start_paused = true)]
    async fn past_the_places_nobody_waits_long_and_nothing_of_those_who_gave_up_remains() {
        let previews = Previews::new(1);
        let [acme, globex] = [TenantId::new(), TenantId::new()];
        let first = previews.enter(acme).await.expect("a place");
        let begin = tokio::time::Instant::now();

        assert_eq!(code(previews.enter(globex).await), "busy");
        assert!(begin.elapsed() <= MAX_WAIT + Duration::from_millis(10));

        drop(first);
        assert_eq!(code(previews.enter(globex).await), "ok");
    }
}
