//! What a kind of source has to be able to do to be synced.
//!
//! A driver knows one source. It tells what the source lists, page by page, and reads one item at a time; it keeps
//! nothing in the database. The engine decides what a reading means for the documents, and in which order things are
//! read.
//!
//! - A source that is found out by its links lists its start pages and reports the links of each page in
//!   [`Reading::found`].
//! - A source that can list itself (a folder elsewhere) lists everything, or only what changed since the run before when
//!   [`Known::change_token`] is there: then [`Listing::is_changes`] is true, what it does not name is still there, and what
//!   is gone is named in [`Listing::gone`]. The token for the next run belongs into [`Listing::change_token`] of the first
//!   page.
//! - An item whose [`Item::listed_version`] equals its `read_version` need not be read: the driver answers
//!   [`Outcome::Same`] without asking anyone.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use ingest::ExtractedDocument;
use tokio::time::Instant;

use super::Note;
use super::drive::DriveDriver;
use super::items::{Item, Place, Validators};
use super::website::WebDriver;
use crate::app::App;
use crate::db::Write;
use crate::error::{Error, Result};
use crate::knowledge::files::StagedFile;
use crate::knowledge::reading::KeptAs;
use crate::knowledge::sources::Source;

/// One source, as the engine reads it. Dropped and made again with every slice of a run.
pub(super) trait Driver: Send + Sync {
    /// What there is, from `cursor` on; `None` is the beginning.
    fn list<'a>(&'a self, known: &'a Known)
    -> BoxFuture<'a, Result<std::result::Result<Listing, ListError>>>;

    /// Stores what the driver itself has to know the next time, in the transaction that takes in the page it listed last.
    fn keep<'a>(&'a self, _write: &'a mut Write, _place: Place) -> BoxFuture<'a, Result<()>> {
        Box::pin(async { Ok(()) })
    }

    /// What stands in the way of reading anything more. Items that met it are [`Outcome::NotBegun`].
    fn obstacle(&self) -> Option<ListError> {
        None
    }

    /// Whether the owner's settings let this item be part of the source at all.
    fn admits(&self, item: &Item) -> bool;

    /// Whether the owner named this very item, and expects it to be known.
    fn names(&self, _: &Item) -> bool {
        false
    }

    /// Counts an item that is read for the first time in this run, and says whether its family of addresses is still
    /// within bounds. Called in the order of reading, so that a run that was interrupted draws the line where an
    /// undisturbed one does.
    fn admits_another(&self, _url: &str) -> bool {
        true
    }

    /// Reads one item. Must end in bounded time, and must not begin after `begin_until`.
    fn read<'a>(&'a self, item: &'a Item, begin_until: Instant) -> BoxFuture<'a, Result<Reading>>;

    /// Whether items lie on different hosts, of which one may have time while another has not.
    fn has_many_hosts(&self) -> bool {
        false
    }

    /// How many items may be read at once.
    fn concurrency(&self) -> usize {
        16
    }

    /// Items in a run, at most; what is beyond is noted.
    fn max_items(&self) -> i64;

    /// Whether a source in which nothing is found is a source in order.
    fn may_be_empty(&self) -> bool {
        true
    }

    /// A run that would remove a larger share, in percent, holds it back.
    fn shrink_limit_percent(&self) -> i64;
}

/// What is known when a source is asked for its list.
#[derive(Debug)]
pub(super) struct Known {
    /// [`Listing::next_cursor`] of the page before.
    pub cursor: Option<String>,
    /// A page that is still being read then ends there, and the next one goes on.
    pub begin_until: Instant,
    /// What the last complete run left for this one; none when everything is to be listed.
    pub change_token: Option<String>,
}

/// One page of what a source lists.
#[derive(Debug, Default)]
pub(super) struct Listing {
    pub items: Vec<Found>,
    /// Keys of items that are there no more, as the source itself says.
    pub gone: Vec<String>,
    /// Where the next page starts; `None` after the last one.
    pub next_cursor: Option<String>,
    /// The next page is not asked for before this pause.
    pub pause: Option<Duration>,
    /// Only what changed is listed.
    pub is_changes: bool,
    /// Where changes from now on are found by the next run.
    pub change_token: Option<String>,
    pub notes: Vec<Note>,
}

/// An item that a list or a page names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// The normalised address, or the file's id elsewhere.
    pub key: String,
    /// For a person to open.
    pub url: String,
    /// Links away from a start page. Items of lesser depth are read first; those of depth 0 are what the owner named,
    /// and when one of them cannot be read, the run has not seen the whole source.
    pub depth: i64,
    pub version: Option<String>,
}

/// Why a list could not be had.
#[derive(Debug)]
pub(super) enum ListError {
    /// The same call may work later.
    Later {
        message: String,
        retry_after: Option<Duration>,
    },
    /// Nothing is wrong: the other side is asked after this pause.
    Busy { pause: Duration },
    /// The run fails, and nothing is removed.
    Failed { code: String, message: String },
}

/// What came of reading an item.
#[derive(Debug)]
pub(super) struct Reading {
    pub outcome: Outcome,
    /// Bytes received.
    pub bytes: u64,
    /// Items that it names.
    pub found: Vec<Found>,
    pub notes: Vec<Note>,
    /// Why nothing is kept of an item that the owner named, where that is no failure to read it.
    pub complaint: Option<Complaint>,
}

/// What the owner is told about an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Complaint {
    /// Stable.
    pub code: &'static str,
    pub message: &'static str,
}

impl From<Outcome> for Reading {
    fn from(outcome: Outcome) -> Self {
        Self {
            outcome,
            bytes: 0,
            found: Vec::new(),
            notes: Vec::new(),
            complaint: None,
        }
    }
}

/// What an item turned out to be.
#[derive(Debug)]
pub(super) enum Outcome {
    /// As it was when it was read last; with other validators from now on, where they are given.
    Same {
        validators: Option<Validators>,
    },
    Content(Box<Content>),
    /// Known by another address, which is in [`Reading::found`].
    Moved {
        to: String,
        validators: Validators,
    },
    /// Not there, by a clear answer.
    Gone,
    /// There, but not to be kept.
    NotKept {
        validators: Validators,
    },
    /// Not to be read, by the site's rules or the source's.
    Skipped,
    /// It could not be read. Its document stays.
    Failed {
        code: String,
        message: String,
        retry: Retry,
    },
    /// There was no time to begin: it waits for the next slice.
    NotBegun,
    /// Its host has no time for us before this pause is over.
    Busy {
        pause: Duration,
    },
}

/// Whether the same attempt may work later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Retry {
    Never,
    Later,
    After(Duration),
}

/// What was read, with its file in place.
#[derive(Debug)]
pub(super) struct Content {
    pub title: String,
    pub file_name: String,
    /// One of [`ingest::Format`]'s names.
    pub format: String,
    pub size_bytes: i64,
    /// Of what a reader sees. Equal hashes are one document.
    pub text_hash: String,
    /// Of the bytes as they were received.
    pub body_hash: String,
    pub file: File,
    pub validators: Validators,
}

/// What will be kept of an item if it is new or changed.
#[derive(Debug)]
pub(super) enum File {
    /// The file as it was received; it is read when it is indexed.
    Original(Bytes),
    /// Like [`File::Original`], of a file that was too large for memory. None once it is in its place.
    Staged(Option<Box<StagedFile>>),
    /// What was read already.
    Reading(Box<ExtractedDocument>),
}

impl File {
    /// What the document's row says of it.
    pub(super) fn kept_as(&self) -> KeptAs {
        match self {
            Self::Original(_) | Self::Staged(_) => KeptAs::Original,
            Self::Reading(_) => KeptAs::Reading,
        }
    }
}

/// Opens a source for reading. Refused with a conflict when its settings or secrets cannot be used.
pub(super) async fn open(app: &App, source: &Source) -> Result<Arc<dyn Driver>> {
    if let Some(driver) = DriveDriver::open(app, source).await? {
        return Ok(Arc::new(driver));
    }
    match WebDriver::open(app, source)? {
        Some(driver) => Ok(Arc::new(driver)),
        None => Err(Error::conflict(
            "not_synced",
            "Nothing is read for this kind of source: documents are put there.",
        )),
    }
}
