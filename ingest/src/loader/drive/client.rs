//! Asks Drive: files, folders, changes. Waits where Google asks for it, and renews the access token when it has ended.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use google_drive3::api;
use reqwest::{Response, StatusCode, header};
use serde::de::DeserializeOwned;
use tokio::time::Instant;
use url::Url;

use super::download::Download;
use super::error::DriveError;
use super::file::{self, Export, File, FileKind};
use super::retry::{self, LONGEST_PAUSE, Verdict};
use super::token::AccessTokens;
use super::wire::FILE_FIELDS;

/// Files of one page of a list: as many as Drive gives.
const PAGE_SIZE: &str = "1000";

/// Largest answer that is no file: a page of a thousand files has about one megabyte.
const MAX_ANSWER_BYTES: usize = 32 * 1024 * 1024;

/// Largest refusal that is read.
const MAX_REFUSAL_BYTES: usize = 64 * 1024;

/// Pages of one folder, or of changes. Past it the list does not end.
const MAX_PAGES: usize = 10_000;

/// Google exports up to 10 MB; what an Office form of that unpacks to is the reader's matter.
const MAX_EXPORT_BYTES: usize = 16 * 1024 * 1024;

/// How patient a [`Drive`] is.
#[derive(Clone, Copy, Debug)]
pub struct DriveOptions {
    /// The first pause after a failure that may pass; each further one is twice as long, up to half a minute.
    pub first_pause: Duration,
    /// Tries of one request.
    pub attempts: u32,
    /// An answer has to begin, and to go on, within this time.
    pub patience: Duration,
}

impl Default for DriveOptions {
    fn default() -> Self {
        Self {
            first_pause: Duration::from_secs(1),
            attempts: 6,
            patience: Duration::from_secs(30),
        }
    }
}

/// A Drive, as one account sees it.
#[derive(Clone)]
pub struct Drive(Arc<Inner>);

struct Inner {
    client: reqwest::Client,
    base_url: Url,
    tokens: Arc<AccessTokens>,
    options: DriveOptions,
    /// Nobody asks before this: Google told one of us to wait, and means the account.
    held_until: Mutex<Option<Instant>>,
}

/// The tries of one request so far.
#[derive(Default)]
struct Tries {
    failed: u32,
    /// Whether the access token was replaced.
    renewed: bool,
}

/// A page of a folder's files.
struct FilePage {
    files: Vec<File>,
    /// None on the last page.
    next: Option<String>,
}

/// Something that happened since a token was given out. One for each file, with its present state.
#[derive(Debug, PartialEq, Eq)]
pub enum Change {
    /// The file is gone for this account: deleted, or no longer shared.
    Removed { id: String },
    /// The file is new, or something about it is.
    Present(File),
}

/// A page of changes.
#[derive(Debug, PartialEq, Eq)]
pub struct ChangePage {
    pub changes: Vec<Change>,
    /// None on the last page.
    pub next: Option<String>,
    /// Where to go on the next time; on the last page only.
    pub new_start: Option<String>,
}

impl ChangePage {
    /// A page as the service sends it.
    pub fn parse(body: &[u8]) -> Result<Self, DriveError> {
        let list: api::ChangeList = serde_json::from_slice(body).map_err(|_| unreadable())?;
        let changes = list.changes.unwrap_or_default().into_iter().filter_map(|change| {
            // Others are about shared drives themselves.
            if change.change_type.as_deref().is_some_and(|kind| kind != "file") {
                return None;
            }
            match change.file.and_then(File::of) {
                Some(file) if !change.removed.unwrap_or_default() => Some(Change::Present(file)),
                _ => change.file_id.map(|id| Change::Removed { id }),
            }
        });
        Ok(Self {
            changes: changes.collect(),
            next: list.next_page_token.filter(|token| !token.is_empty()),
            new_start: list.new_start_page_token.filter(|token| !token.is_empty()),
        })
    }
}

impl Drive {
    /// `base_url` is the operator's, for example `https://www.googleapis.com/drive/v3`; `client` reaches it.
    pub fn new(
        client: reqwest::Client,
        base_url: Url,
        tokens: Arc<AccessTokens>,
        options: DriveOptions,
    ) -> Self {
        Self(Arc::new(Inner {
            client,
            base_url,
            tokens,
            options,
            held_until: Mutex::new(None),
        }))
    }

    /// The account's e-mail address.
    pub async fn account(&self) -> Result<String, DriveError> {
        let about: api::About = self
            .get_json("about", &[("fields", "user(emailAddress)")])
            .await?;
        about
            .user
            .and_then(|user| user.email_address)
            .ok_or_else(unreadable)
    }

    /// A file by its id.
    pub async fn file(&self, id: &str) -> Result<File, DriveError> {
        let query = [("fields", FILE_FIELDS), ("supportsAllDrives", "true")];
        let file: api::File = self.get_json(&file_path(id, "")?, &query).await?;
        File::of(file).ok_or_else(unreadable)
    }

    /// All files directly in a folder. `drive_id` names the shared drive that the folder is in.
    pub async fn list_folder(&self, id: &str, drive_id: Option<&str>) -> Result<Vec<File>, DriveError> {
        let mut restarted = false;
        'list: loop {
            let mut files = Vec::new();
            let mut next = None;
            for _ in 0..MAX_PAGES {
                let page = match self.list_page(id, drive_id, next.as_deref()).await {
                    // The list begins anew, says the manual, when a page's token is refused.
                    Err(DriveError::PageTokenExpired) if !restarted => {
                        restarted = true;
                        continue 'list;
                    }
                    Err(DriveError::PageTokenExpired) => return Err(DriveError::Incomplete),
                    page => page?,
                };
                files.extend(page.files);
                next = page.next;
                if next.is_none() {
                    return Ok(files);
                }
            }
            return Err(DriveError::Incomplete);
        }
    }

    async fn list_page(
        &self,
        id: &str,
        drive_id: Option<&str>,
        page_token: Option<&str>,
    ) -> Result<FilePage, DriveError> {
        if !file::is_id(id) {
            return Err(DriveError::NotFound);
        }
        // An id holds no quote, so nothing needs to be escaped.
        let inside = format!("'{id}' in parents and trashed = false");
        let fields = format!("nextPageToken,incompleteSearch,files({FILE_FIELDS})");
        let mut query = vec![
            ("q", inside.as_str()),
            ("fields", fields.as_str()),
            ("pageSize", PAGE_SIZE),
            ("supportsAllDrives", "true"),
            ("includeItemsFromAllDrives", "true"),
        ];
        match drive_id {
            Some(drive_id) => query.extend([("corpora", "drive"), ("driveId", drive_id)]),
            None => query.push(("corpora", "user")),
        }
        query.extend(page_token.map(|token| ("pageToken", token)));
        let list: api::FileList = self.get_json("files", &query).await?;
        if list.incomplete_search.unwrap_or_default() {
            return Err(DriveError::Incomplete);
        }
        Ok(FilePage {
            files: list
                .files
                .unwrap_or_default()
                .into_iter()
                .filter_map(File::of)
                .collect(),
            next: list.next_page_token.filter(|token| !token.is_empty()),
        })
    }

    /// The token from which changes of a shared drive, or of the account's own files, can be listed later.
    pub async fn start_page_token(&self, drive_id: Option<&str>) -> Result<String, DriveError> {
        let mut query = vec![("supportsAllDrives", "true")];
        query.extend(drive_id.map(|drive_id| ("driveId", drive_id)));
        let token: api::StartPageToken = self.get_json("changes/startPageToken", &query).await?;
        token.start_page_token.ok_or_else(unreadable)
    }

    /// A page of what changed since `page_token` was given out.
    pub async fn list_changes(
        &self,
        page_token: &str,
        drive_id: Option<&str>,
    ) -> Result<ChangePage, DriveError> {
        let fields =
            format!("nextPageToken,newStartPageToken,changes(changeType,removed,fileId,file({FILE_FIELDS}))");
        let mut query = vec![
            ("pageToken", page_token),
            ("fields", fields.as_str()),
            ("pageSize", PAGE_SIZE),
            ("includeRemoved", "true"),
            ("supportsAllDrives", "true"),
            ("includeItemsFromAllDrives", "true"),
        ];
        query.extend(drive_id.map(|drive_id| ("driveId", drive_id)));
        let body = self
            .get_whole(self.url("changes", &query), MAX_ANSWER_BYTES)
            .await?;
        ChangePage::parse(&body)
    }

    /// Begins to read a file's content, of at most `limit_bytes`; says in which form it comes.
    pub async fn open(&self, file: &File, limit_bytes: u64) -> Result<Download, DriveError> {
        file.check_readable(limit_bytes)?;
        let FileKind::Google(exports) = &file.kind else {
            return Download::begin(self.clone(), file, limit_bytes).await;
        };
        let mut refusal = DriveError::ExportTooLarge;
        for export in exports.iter() {
            match self.export(file, *export).await {
                Ok(bytes) if bytes.len() as u64 > limit_bytes => {
                    refusal = DriveError::TooLarge { limit_bytes }
                }
                Ok(bytes) => return Ok(Download::whole(file.file_name(Some(*export)), bytes)),
                Err(DriveError::ExportTooLarge) => {}
                Err(error) => return Err(error),
            }
        }
        Err(refusal)
    }

    /// A document of Google's own as a file. There is no part of an export to go on from, so each try is a whole one.
    async fn export(&self, file: &File, export: Export) -> Result<Vec<u8>, DriveError> {
        let url = self.url(
            &file_path(&file.id, "/export")?,
            &[("mimeType", export.media_type)],
        );
        self.get_whole(url, MAX_EXPORT_BYTES)
            .await
            .map_err(|error| match error {
                // Ours, a little above Google's own.
                DriveError::TooLarge { .. } => DriveError::ExportTooLarge,
                error => error,
            })
    }

    /// The bytes of an uploaded file from `start` on.
    pub(super) async fn media(&self, id: &str, start: u64) -> Result<Response, DriveError> {
        let query = [("alt", "media"), ("supportsAllDrives", "true")];
        let url = self.url(&file_path(id, "")?, &query);
        let mut tries = Tries::default();
        loop {
            match self.ask(&url, start).await {
                Ok(response) => return Ok(response),
                Err(verdict) => self.go_on(verdict, &mut tries).await?,
            }
        }
    }

    pub(super) fn options(&self) -> DriveOptions {
        self.0.options
    }

    async fn get_json<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &[(&str, &str)],
    ) -> Result<T, DriveError> {
        let body = self.get_whole(self.url(path, query), MAX_ANSWER_BYTES).await?;
        serde_json::from_slice(&body).map_err(|_| unreadable())
    }

    /// An answer, read whole; one that breaks off is asked for again.
    async fn get_whole(&self, url: Url, limit_bytes: usize) -> Result<Vec<u8>, DriveError> {
        let mut tries = Tries::default();
        loop {
            match self.ask_whole(&url, limit_bytes).await {
                Ok(body) => return Ok(body),
                Err(verdict) => self.go_on(verdict, &mut tries).await?,
            }
        }
    }

    async fn ask_whole(&self, url: &Url, limit_bytes: usize) -> Result<Vec<u8>, Verdict> {
        let response = self.ask(url, 0).await?;
        let reading = retry::read_body(response, limit_bytes);
        match tokio::time::timeout(self.0.options.patience, reading).await {
            Ok(Ok(body)) => Ok(body),
            Ok(Err(retry::BodyError::TooLong)) => Err(Verdict::End(DriveError::TooLarge {
                limit_bytes: limit_bytes as u64,
            })),
            Ok(Err(retry::BodyError::Broken(reason))) => Err(passing(&reason)),
            Err(_) => Err(passing("it took too long")),
        }
    }

    /// Waits for the next try after one that failed; ends with why there is none.
    async fn go_on(&self, verdict: Verdict, tries: &mut Tries) -> Result<(), DriveError> {
        let options = self.0.options;
        let (retry_after, error) = match verdict {
            Verdict::End(error) => return Err(error),
            // A token may end between two looks at the clock; one that was just made and is refused is no accident.
            Verdict::NewToken if tries.renewed => return Err(DriveError::AccessWithdrawn),
            Verdict::NewToken => {
                tries.renewed = true;
                return Ok(());
            }
            Verdict::Again { retry_after, error } => (retry_after, error),
        };
        tries.failed += 1;
        let pause = retry::pause(options.first_pause, tries.failed, retry_after);
        if tries.failed >= options.attempts || pause > LONGEST_PAUSE + options.first_pause {
            return Err(error);
        }
        if matches!(error, DriveError::RateLimited { .. }) {
            self.hold(pause);
        }
        tokio::time::sleep(pause).await;
        Ok(())
    }

    /// Sends one request; anything but success is a verdict.
    async fn ask(&self, url: &Url, start: u64) -> Result<Response, Verdict> {
        self.wait_while_held().await;
        let token = self
            .0
            .tokens
            .get()
            .await
            .map_err(|error| Verdict::End(error.into()))?;
        let mut request = self.0.client.get(url.clone()).bearer_auth(&token);
        if start > 0 {
            request = request.header(header::RANGE, format!("bytes={start}-"));
        }
        let response = match tokio::time::timeout(self.0.options.patience, request.send()).await {
            Ok(response) => response.map_err(|error| passing(&retry::describe(&error)))?,
            Err(_) => return Err(passing("it took too long")),
        };
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        if status == StatusCode::RANGE_NOT_SATISFIABLE {
            return Err(Verdict::End(DriveError::Changed));
        }
        let headers = response.headers().clone();
        let reading = retry::read_body(response, MAX_REFUSAL_BYTES);
        // A refusal whose words do not come is still a refusal.
        let body = match tokio::time::timeout(self.0.options.patience, reading).await {
            Ok(Ok(body)) => body,
            _ => Vec::new(),
        };
        let verdict = retry::judge(status, &headers, &body);
        if verdict == Verdict::NewToken {
            self.0.tokens.forget(&token).await;
        }
        Err(verdict)
    }

    async fn wait_while_held(&self) {
        let until = *self.0.held_until.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(until) = until {
            tokio::time::sleep_until(until).await;
        }
    }

    fn hold(&self, pause: Duration) {
        let until = Instant::now() + pause;
        let mut held_until = self.0.held_until.lock().unwrap_or_else(PoisonError::into_inner);
        *held_until = Some(held_until.map_or(until, |present| present.max(until)));
    }

    fn url(&self, path: &str, query: &[(&str, &str)]) -> Url {
        let mut url = self.0.base_url.clone();
        url.set_path(&format!("{}/{path}", url.path().trim_end_matches('/')));
        url.query_pairs_mut().extend_pairs(query);
        url
    }
}

/// The path of a file; an id that is none names nothing.
fn file_path(id: &str, rest: &str) -> Result<String, DriveError> {
    if file::is_id(id) {
        Ok(format!("files/{id}{rest}"))
    } else {
        Err(DriveError::NotFound)
    }
}

fn passing(reason: &str) -> Verdict {
    Verdict::Again {
        retry_after: None,
        error: DriveError::Unavailable {
            reason: reason.to_owned(),
        },
    }
}

fn unreadable() -> DriveError {
    DriveError::Unavailable {
        reason: "its answer cannot be understood".to_owned(),
    }
}
