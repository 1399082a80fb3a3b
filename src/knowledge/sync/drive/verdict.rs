//! What a file's version and its refusals mean.

use ingest::loader::drive::DriveError;

use super::store::{KnownItem, Refusal};
use crate::app::App;
use crate::knowledge::indexing;
use crate::knowledge::sync::driver::{ListError, Outcome, Reading, Retry};
use crate::knowledge::sync::items::Item;
use crate::knowledge::sync::text;

/// What a document's version hangs on: a new name is something new to read.
pub(super) fn version(name: &str, content: &str) -> String {
    format!("{content} {name}")
}

pub(super) fn list_error(error: &DriveError) -> ListError {
    match (error, error.retry_after()) {
        (DriveError::NotFound, _) => ListError::Failed {
            code: "root_missing".to_owned(),
            message: "The folder is not there, or the account does not see it any more. Share it with the account, or correct the source; what was read is kept.".to_owned(),
        },
        (error, Some(retry_after)) => ListError::Later {
            message: error.to_string(),
            retry_after: Some(retry_after),
        },
        (error, None) => ListError::Failed {
            code: error.code().to_owned(),
            message: error.to_string(),
        },
    }
}

pub(super) fn failed(item: &Item, code: &str, message: &str, retry: Retry) -> Reading {
    tracing::debug!(file.id = item.key, code, "a file could not be read");
    Outcome::Failed {
        code: code.to_owned(),
        message: message.to_owned(),
        retry,
    }
    .into()
}

impl Refusal {
    pub(super) fn new(app: &App, item: &Item, code: &str, message: &str) -> Self {
        Self {
            version: refused_version(app, item),
            code: code.to_owned(),
            message: message.to_owned(),
        }
    }

    pub(super) fn is_of(&self, app: &App, item: &Item) -> bool {
        self.version == refused_version(app, item)
    }
}

/// A reader that has learned since may be able to read what an older one could not.
fn refused_version(app: &App, item: &Item) -> String {
    let listed = item.listed_version.as_deref().unwrap_or_default();
    format!("{}, {listed}", indexing::reader(app))
}

impl KnownItem {
    /// Whether the document is there and was read in this version, by the present reader, and could be indexed if it
    /// can be at all.
    pub(super) fn is_read_as(&self, app: &App, version: &str) -> bool {
        let awaits_another_try = self
            .failed
            .as_ref()
            .is_some_and(|(code, read_with)| indexing::is_worth_another_try(app, code, read_with.as_deref()));
        self.has_document
            && !awaits_another_try
            && self.read_version.as_deref() == Some(version)
            && self.reader_version == Some(text::reader_version(app.extractor.media()))
            && matches!(self.state.as_str(), "new" | "changed" | "unchanged")
    }
}
