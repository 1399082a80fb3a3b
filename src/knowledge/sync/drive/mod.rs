//! Google Drive, driven through [`ingest::loader::drive`].
//!
//! Listing brings the graph of files up to date, by asking for everything or by following changes, and then compares what
//! is in scope with what was read: so whichever way it went, and however often it was interrupted, the run reads what is
//! new or changed and removes what is gone. Where changes go on from is fetched before anything is listed, so nothing
//! falls between two runs.

mod cursor;
mod store;
mod verdict;

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use chrono::TimeDelta;
use futures::StreamExt as _;
use futures::future::BoxFuture;
use ingest::loader::drive::{Drive, DriveError, Node, Scope, Tree, TreeChanges};
use tokio::time::Instant;

use self::cursor::{ChangeToken, Cursor};
use self::store::Refusal;
use self::verdict::{failed, list_error, version};
use super::driver::{Content, Driver, File, Found, Known, ListError, Listing, Outcome, Reading, Retry};
use super::items::{Item, KnownAs, Place, Validators};
use crate::app::App;
use crate::db::Write;
use crate::error::Result;
use crate::id::{SourceId, TenantId};
use crate::integrations::google;
use crate::knowledge::files::clean_name;
use crate::knowledge::sources::Source;
use crate::knowledge::sources::settings::Settings;
use crate::secrets;

/// Questions that one page of a list answers, and how many are asked at once.
const QUESTIONS_PER_PAGE: usize = 64;
const QUESTIONS_AT_ONCE: usize = 8;

/// Documents on one page of a list.
const DOCUMENTS_PER_PAGE: usize = 2_000;

/// Pages of changes that are followed. Behind it, listing everything is quicker.
const MOST_CHANGE_PAGES: usize = 200;

/// Files and folders of one source, at most.
const MOST_FILES: usize = 300_000;

/// After this time everything is listed, whatever Drive told of changes.
const TRUSTED_FOR: TimeDelta = TimeDelta::days(7);

/// Files that are downloaded at once.
const DOWNLOADS_AT_ONCE: usize = 4;

/// A source of Drive's files.
pub(super) struct DriveDriver {
    app: App,
    tenant_id: TenantId,
    source_id: SourceId,
    drive: Drive,
    scope: Scope,
    /// Whether it reads as the tenant's connected account.
    is_connection: bool,
    shrink_limit_percent: u8,
    /// None until it is loaded.
    graph: tokio::sync::Mutex<Option<Graph>>,
    /// What of the tree is not stored yet.
    unstored: Mutex<TreeChanges>,
    obstacle: Mutex<Option<DriveError>>,
    /// Files that could not be read are all to be tried again.
    forgets_refusals: AtomicBool,
}

/// The graph of files, and what it comes to.
struct Graph {
    tree: Tree,
    /// What is in scope and can be read, by id; none until the graph is complete.
    documents: Option<Vec<Node>>,
}

impl DriveDriver {
    /// None when the source is none of Drive.
    pub(super) async fn open(app: &App, source: &Source) -> Result<Option<Self>> {
        let Settings::Drive(settings) = &source.settings else {
            return Ok(None);
        };
        let credentials = source.secrets(app)?.drive_credentials;
        let drive = app
            .google
            .drive(app, source.tenant_id, credentials.as_ref())
            .await?;
        let folders = settings.folder_id.iter().chain(&settings.shared_drive_id);
        Ok(Some(Self {
            app: app.clone(),
            tenant_id: source.tenant_id,
            source_id: source.id,
            drive,
            scope: Scope {
                folders: folders.cloned().collect(),
                files: settings.file_ids.clone(),
            },
            is_connection: credentials.is_none(),
            shrink_limit_percent: settings.shrink_limit_percent,
            graph: tokio::sync::Mutex::new(None),
            unstored: Mutex::default(),
            obstacle: Mutex::default(),
            forgets_refusals: AtomicBool::new(false),
        }))
    }

    async fn list_page(&self, known: &Known) -> Result<Result<Listing, DriveError>> {
        let cursor: Option<Cursor> = match &known.cursor {
            Some(cursor) => Some(serde_json::from_str(cursor)?),
            None => None,
        };
        let mut held = self.graph.lock().await;
        let graph = match &mut *held {
            Some(graph) => graph,
            none => {
                let mut conn = self.app.db.read(self.tenant_id).await?;
                let nodes = store::list_nodes(&mut conn, self.tenant_id, self.source_id).await?;
                none.insert(Graph {
                    tree: Tree::new(self.scope.clone(), nodes),
                    documents: None,
                })
            }
        };
        let listing = match cursor {
            None => self.begin(&mut graph.tree, known).await?,
            Some(Cursor::Graph) => self.explore(&mut graph.tree).await?,
            Some(Cursor::Documents { after }) => {
                let in_scope = || graph.tree.documents().into_iter().cloned().collect();
                let documents = graph.documents.get_or_insert_with(in_scope);
                Ok(self.compare(documents, &after, known).await?)
            }
        };
        *self.unstored.lock().unwrap_or_else(PoisonError::into_inner) = graph.tree.take_changes();
        Ok(listing)
    }

    /// Finds out where changes go on from, and what has changed since the last run if that can be told.
    async fn begin(&self, tree: &mut Tree, known: &Known) -> Result<Result<Listing, DriveError>> {
        let now = self.app.clock.now();
        self.forgets_refusals
            .store(known.change_token.is_none(), Ordering::Relaxed);
        tree.doubt_roots();
        if let Err(error) = self.ask_about_roots(tree).await {
            return Ok(Err(error));
        }
        let drive_id = tree.followed_drive().map(str::to_owned);
        let last: Option<ChangeToken> = known
            .change_token
            .as_deref()
            .and_then(|token| serde_json::from_str(token).ok())
            .filter(|last: &ChangeToken| {
                last.scope == self.scope && last.drive_id == drive_id && now - last.listed_at < TRUSTED_FOR
            });
        let followed = match &last {
            Some(last) => match self.follow(tree, &last.token, drive_id.as_deref()).await {
                Ok(token) => token.map(|token| (token, last.listed_at)),
                Err(error) => return Ok(Err(error)),
            },
            None => None,
        };
        let (token, listed_at) = match followed {
            Some(followed) => {
                tree.doubt_foreign(drive_id.as_deref());
                followed
            }
            None => {
                let token = match self.drive.start_page_token(drive_id.as_deref()).await {
                    Ok(token) => token,
                    Err(error) => return Ok(Err(error)),
                };
                tree.doubt_everything();
                (token, now)
            }
        };
        let change_token = ChangeToken {
            token,
            drive_id,
            scope: self.scope.clone(),
            listed_at,
        };
        Ok(Ok(Listing {
            change_token: Some(serde_json::to_string(&change_token)?),
            ..Listing::up_to(&Cursor::Graph)?
        }))
    }

    async fn ask_about_roots(&self, tree: &mut Tree) -> Result<(), DriveError> {
        for question in tree.root_questions() {
            let answer = self.drive.answer(&question).await?;
            tree.answer(&question, answer);
        }
        self.check_roots(tree)
    }

    /// Of a folder that is not there nothing can be told: what was read from it stays.
    fn check_roots(&self, tree: &Tree) -> Result<(), DriveError> {
        if tree.lost_folders().next().is_some() || tree.has_lost_all() {
            return Err(DriveError::NotFound);
        }
        Ok(())
    }

    /// Takes changes in; gives where to go on the next time, or none when changes cannot be told from `token` on.
    async fn follow(
        &self,
        tree: &mut Tree,
        token: &str,
        drive_id: Option<&str>,
    ) -> Result<Option<String>, DriveError> {
        let mut token = token.to_owned();
        for _ in 0..MOST_CHANGE_PAGES {
            let page = match self.drive.list_changes(&token, drive_id).await {
                Err(DriveError::PageTokenExpired) => return Ok(None),
                page => page?,
            };
            page.changes.into_iter().for_each(|change| tree.apply(change));
            match (page.next, page.new_start) {
                (Some(next), _) => token = next,
                (None, Some(new_start)) => return Ok(Some(new_start)),
                (None, None) => return Err(DriveError::Incomplete),
            }
        }
        Ok(None)
    }

    /// Asks what the graph does not know yet, as much as one page may take.
    async fn explore(&self, tree: &mut Tree) -> Result<Result<Listing, DriveError>> {
        let questions = tree.questions(QUESTIONS_PER_PAGE);
        if questions.is_empty() {
            tree.prune();
            let after = String::new();
            return Ok(Ok(Listing::up_to(&Cursor::Documents { after })?));
        }
        let mut answers = futures::stream::iter(questions)
            .map(|question| async {
                let answer = self.drive.answer(&question).await;
                (question, answer)
            })
            .buffer_unordered(QUESTIONS_AT_ONCE);
        while let Some((question, answer)) = answers.next().await {
            match answer {
                Ok(answer) => tree.answer(&question, answer),
                Err(error) => return Ok(Err(error)),
            }
        }
        if let Err(error) = self.check_roots(tree) {
            return Ok(Err(error));
        }
        if tree.len() > MOST_FILES {
            return Ok(Err(DriveError::TooMany { most: MOST_FILES }));
        }
        Ok(Ok(Listing::up_to(&Cursor::Graph)?))
    }

    /// Names the documents that are to be read, and on the last page those that are gone.
    async fn compare(&self, documents: &[Node], after: &str, known: &Known) -> Result<Listing> {
        let reads_everything = known.change_token.is_none();
        let start = documents.partition_point(|node| node.id.as_str() <= after);
        let end = documents.len().min(start + DOCUMENTS_PER_PAGE);
        let (page, is_last) = (&documents[start..end], end == documents.len());
        let keys: Vec<&str> = page.iter().map(|node| node.id.as_str()).collect();
        let mut conn = self.app.db.read(self.tenant_id).await?;
        let items = store::list_items(&mut conn, self.tenant_id, self.source_id, &keys).await?;
        let mut listing = match page.last() {
            Some(last) if !is_last => Listing::up_to(&Cursor::Documents {
                after: last.id.clone(),
            })?,
            _ => Listing {
                is_changes: true,
                ..Listing::default()
            },
        };
        for node in page {
            let version = version(&node.name, &node.version);
            let is_read = items
                .get(&node.id)
                .is_some_and(|item| item.is_read_as(&self.app, &version));
            if reads_everything || !is_read {
                listing.items.push(Found {
                    key: node.id.clone(),
                    url: node.url.clone(),
                    depth: 1,
                    version: Some(version),
                });
            }
        }
        if is_last {
            let present: HashSet<&str> = documents.iter().map(|node| node.id.as_str()).collect();
            let known = store::list_present(&mut conn, self.tenant_id, self.source_id).await?;
            listing.gone = known
                .into_iter()
                .filter(|key| !present.contains(key.as_str()))
                .collect();
        }
        Ok(listing)
    }

    async fn read_file(&self, item: &Item) -> Result<Reading> {
        if item.known_as() == Some(KnownAs::Page)
            && item.document_id.is_some()
            && item.read_version.is_some()
            && item.read_version == item.listed_version
        {
            return Ok(Outcome::Same { validators: None }.into());
        }
        let refused =
            store::find_refusal(&mut self.app.db.read(self.tenant_id).await?, self.place(item)).await?;
        if let Some(refusal) = refused.filter(|refusal| refusal.is_of(&self.app, item)) {
            return Ok(failed(item, &refusal.code, &refusal.message, Retry::Never));
        }
        match self.take(item).await? {
            Ok(reading) => Ok(reading),
            Err(DriveError::NotFound) => Ok(Outcome::Gone.into()),
            Err(error) if error.concerns_everything() => {
                self.meet(error).await?;
                Ok(Outcome::NotBegun.into())
            }
            // Neither changes without the version; whether a file may be downloaded does.
            Err(error @ (DriveError::ExportTooLarge | DriveError::Unreadable { .. })) => {
                self.refuse(item, error.code(), &error.to_string()).await
            }
            Err(error) => {
                let retry = error.retry_after().map_or(Retry::Never, Retry::After);
                Ok(failed(item, error.code(), &error.to_string(), retry))
            }
        }
    }

    /// Downloads a file and looks at what it is.
    async fn take(&self, item: &Item) -> Result<Result<Reading, DriveError>> {
        let limit_bytes = self.app.config.server.upload_limit_bytes;
        let file = match self.drive.file(&item.key).await {
            Ok(file) if file.is_trashed => return Ok(Err(DriveError::NotFound)),
            Ok(file) => file,
            Err(error) => return Ok(Err(error)),
        };
        let mut download = match self.drive.open(&file, limit_bytes).await {
            Ok(download) => download,
            Err(error) => return Ok(Err(error)),
        };
        let mut incoming = self.app.files.receive().await?;
        loop {
            match download.next().await {
                Ok(Some(bytes)) => incoming.write(&bytes).await?,
                Ok(None) => break,
                Err(error) => return Ok(Err(error)),
            }
        }
        let file_name = clean_name(download.file_name());
        let staged = incoming.finish().await?;
        let bytes = staged.size_bytes;
        let (format, staged) = staged.detect(&file_name).await?;
        let media = self.app.extractor.media();
        let format = match format.and_then(|format| media.accept(format)) {
            Ok(format) => format,
            Err(error) => {
                let mut reading = self.refuse(item, error.code(), &error.to_string()).await?;
                reading.bytes = bytes;
                return Ok(Ok(reading));
            }
        };
        let body_hash = staged.content_hash.clone();
        Ok(Ok(Reading {
            bytes,
            ..Reading::from(Outcome::Content(Box::new(Content {
                title: file.name.clone(),
                format: format.as_str().to_owned(),
                size_bytes: i64::try_from(bytes).unwrap_or(i64::MAX),
                // Two files of one content are two documents, as they are in Drive; and a name is something to read.
                text_hash: secrets::token_hash(&format!("{}\n{file_name}\n{body_hash}", item.key)),
                file_name,
                body_hash,
                file: File::Staged(Some(Box::new(staged))),
                validators: Validators::default(),
            })))
        }))
    }

    /// A file whose content cannot be read in this version is not asked for again before there is another one.
    async fn refuse(&self, item: &Item, code: &str, message: &str) -> Result<Reading> {
        let refusal = Refusal::new(&self.app, item, code, message);
        let mut write = self.app.db.write(self.tenant_id).await?;
        store::put_refusal(&mut write, self.place(item), &refusal).await?;
        write.commit().await?;
        Ok(failed(item, code, message, Retry::Never))
    }

    /// Notes what stands in the way of everything else too.
    async fn meet(&self, error: DriveError) -> Result<()> {
        if error == DriveError::AccessWithdrawn && self.is_connection {
            google::note_withdrawn(&self.app, self.tenant_id).await?;
        }
        *self.obstacle.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
        Ok(())
    }

    fn place<'a>(&self, item: &'a Item) -> store::FilePlace<'a> {
        store::FilePlace {
            tenant_id: self.tenant_id,
            source_id: self.source_id,
            file_id: &item.key,
        }
    }
}

impl Driver for DriveDriver {
    fn list<'a>(&'a self, known: &'a Known) -> BoxFuture<'a, Result<Result<Listing, ListError>>> {
        Box::pin(async move {
            match self.list_page(known).await? {
                Ok(listing) => Ok(Ok(listing)),
                Err(error) => {
                    let told = list_error(&error);
                    self.meet(error).await?;
                    Ok(Err(told))
                }
            }
        })
    }

    fn keep<'a>(&'a self, write: &'a mut Write, place: Place) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let changes = std::mem::take(&mut *self.unstored.lock().unwrap_or_else(PoisonError::into_inner));
            if self.forgets_refusals.swap(false, Ordering::Relaxed) {
                store::forget_refusals(write, place).await?;
            }
            store::store_nodes(write, place, &changes).await
        })
    }

    fn admits(&self, _: &Item) -> bool {
        true
    }

    fn read<'a>(&'a self, item: &'a Item, begin_until: Instant) -> BoxFuture<'a, Result<Reading>> {
        Box::pin(async move {
            if self.obstacle().is_some() || Instant::now() >= begin_until {
                return Ok(Outcome::NotBegun.into());
            }
            if item.is_excluded {
                return Ok(Outcome::Skipped.into());
            }
            self.read_file(item).await
        })
    }

    fn obstacle(&self) -> Option<ListError> {
        let obstacle = self.obstacle.lock().unwrap_or_else(PoisonError::into_inner);
        obstacle.as_ref().map(list_error)
    }

    fn concurrency(&self) -> usize {
        DOWNLOADS_AT_ONCE
    }

    fn max_items(&self) -> i64 {
        self.app.config.limits.documents_per_chatbot
    }

    fn shrink_limit_percent(&self) -> i64 {
        self.shrink_limit_percent.into()
    }
}
