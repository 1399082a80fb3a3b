//! Taking in uploaded files: the same bytes again do no work, a changed file becomes a new version of its document.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use ingest::{ExtractError, Format};
use serde_json::json;

use super::files::StagedFile;
use super::{Document, DocumentState, Labels, indexing, store};
use crate::app::App;
use crate::chatbots;
use crate::db::Write;
use crate::error::{Error, Result};
use crate::http::access::{Actor, Reach};
use crate::id::{ChatbotId, DocumentId, SourceId, TenantId};
use crate::jobs::Priority;
use crate::tenancy::audit::{self, Change, Origin};

/// From this many files on, an upload is a bulk import that waits behind single files.
const BULK_FILES: usize = 10;

/// A file that was received.
pub struct NewFile {
    /// Cleaned for show.
    pub file_name: String,
    pub staged: StagedFile,
}

/// A received file with what its content turned out to be.
pub(super) struct Judged {
    file_name: String,
    staged: StagedFile,
    format: Result<Format, ExtractError>,
}

/// Makes or updates one document per file and queues their indexing, all in one transaction.
///
/// A file of a type that cannot be read becomes a failed document, and does not hold up the others; an upload of
/// nothing but such files is refused whole.
pub async fn upload(
    app: &App,
    reach: Reach,
    chatbot_id: ChatbotId,
    files: Vec<NewFile>,
    labels: Labels,
    actor: &Actor,
    origin: &Origin,
) -> Result<Vec<Document>> {
    let mut conn = app.db.read(reach.tenant_id).await?;
    chatbots::find(&mut conn, reach, chatbot_id).await?;
    drop(conn);

    check_names(&files)?;
    let judged = judge(app, files, None).await?;
    if let Some(refusal) = refuse_all(&judged) {
        return Err(refusal);
    }
    // Files are in place before the rows that name them; a crash in between leaves files that the sweep removes.
    let mut placed = Vec::with_capacity(judged.len());
    for file in judged {
        let told = Told {
            external_id: file.file_name.clone(),
            labels: labels.clone(),
            ..Told::default()
        };
        placed.push(place(app, reach.tenant_id, file, told).await?);
    }

    let file_keys: Vec<String> = placed.iter().map(|file| file.file_key.clone()).collect();
    let recorded = record(app, reach, chatbot_id, placed, actor, origin).await;
    commit(app, recorded, &file_keys).await
}

/// Rows that are written, and not committed yet.
pub(super) struct Recorded<T> {
    pub write: Write,
    pub outcome: T,
    /// Files that nothing names once the transaction is through.
    pub superfluous: Vec<String>,
}

/// Commits rows that name the new files `placed`, or removes these files where no rows could be written.
pub(super) async fn commit<T>(app: &App, recorded: Result<Recorded<T>>, placed: &[String]) -> Result<T> {
    let recorded = match recorded {
        Ok(recorded) => recorded,
        Err(error) => {
            app.files.remove_all(placed).await;
            return Err(error);
        }
    };
    // A commit that fails may have gone through all the same: then rows name the files. If not, the sweep removes them.
    recorded.write.commit().await?;
    app.wake_workers();
    // Only now: had the transaction failed, the old files would still be needed.
    app.files.remove_all(&recorded.superfluous).await;
    Ok(recorded.outcome)
}

/// Moves a received file to where it is kept.
pub(super) async fn place(app: &App, tenant_id: TenantId, file: Judged, told: Told) -> Result<Placed> {
    let (content_hash, size_bytes) = (file.staged.content_hash.clone(), file.staged.size_bytes);
    let file_key = app.files.keep(tenant_id, file.staged).await?;
    Ok(Placed {
        told,
        file_name: file.file_name,
        format: file.format,
        content_hash,
        size_bytes,
        file_key,
    })
}

/// Writes all rows of an upload in one transaction.
async fn record(
    app: &App,
    reach: Reach,
    chatbot_id: ChatbotId,
    placed: Vec<Placed>,
    actor: &Actor,
    origin: &Origin,
) -> Result<Recorded<Vec<Document>>> {
    let now = app.clock.now();
    let priority = if placed.len() >= BULK_FILES {
        Priority::Bulk
    } else {
        Priority::Normal
    };
    let mut write = app.db.write(reach.tenant_id).await?;
    let source_id = store::hold_upload_source(&mut write, reach.tenant_id, chatbot_id)
        .await?
        .ok_or(Error::NotFound("chatbot"))?;
    let place = Place {
        tenant_id: reach.tenant_id,
        chatbot_id,
        source_id,
        matching: Matching::ByNameOrContent,
        now,
    };
    let mut documents = Vec::with_capacity(placed.len());
    let mut superfluous = Vec::new();
    let mut queued = Vec::new();
    for file in placed {
        let (document, effect) = store_one(&mut write, &place, file, &mut superfluous).await?;
        if effect != Effect::Nothing {
            queued.push((document.id, document.file_key.clone()));
        }
        documents.push(document);
    }
    indexing::enqueue(app, &mut write, reach.tenant_id, &queued, priority).await?;
    check_count(app, &mut write, reach.tenant_id, chatbot_id).await?;
    let after = json!({ "chatbot_id": chatbot_id, "files": documents.iter().map(|document| json!({ "id": document.id, "file_name": document.file_name })).collect::<Vec<_>>() });
    let change = Change {
        action: "document.upload",
        object_kind: "chatbot",
        object_id: chatbot_id.to_string(),
        before: None,
        after: Some(after),
    };
    audit::record(&mut write, reach.tenant_id, actor, origin, change, now).await?;
    Ok(Recorded {
        write,
        outcome: documents,
        superfluous,
    })
}

/// Refuses what makes a chatbot's documents more than there may be.
pub(super) async fn check_count(
    app: &App,
    write: &mut Write,
    tenant_id: TenantId,
    chatbot_id: ChatbotId,
) -> Result<()> {
    if store::count_of_chatbot(write, tenant_id, chatbot_id).await? > app.config.limits.documents_per_chatbot
    {
        return Err(Error::conflict(
            "too_many_documents",
            "this chatbot has as many documents as it may have: delete some first",
        ));
    }
    Ok(())
}

/// Two files of one name would be two versions of one document, and the first would be lost without a word.
fn check_names(files: &[NewFile]) -> Result<()> {
    let mut hashes = HashMap::with_capacity(files.len());
    for file in files {
        let hash = file.staged.content_hash.as_str();
        let known = hashes.insert(file.file_name.as_str(), hash);
        if known.is_some_and(|known| known != hash) {
            return Err(Error::invalid(
                "duplicate_file_name",
                "file",
                format!(
                    "two different files of this upload are called {}: rename one, or send them in two uploads",
                    file.file_name
                ),
            ));
        }
    }
    Ok(())
}

/// Reads each file's type from its bytes, off the async threads; only whether it is empty where the type is `known`.
pub(super) async fn judge(app: &App, files: Vec<NewFile>, known: Option<Format>) -> Result<Vec<Judged>> {
    let media = app.extractor.media();
    tokio::task::spawn_blocking(move || {
        let mut judged = Vec::with_capacity(files.len());
        for NewFile { file_name, staged } in files {
            let format = match (Format::detect_file(staged.path(), &file_name)?, known) {
                (Ok(_), Some(known)) => Ok(known),
                (detected, _) => detected.and_then(|format| media.accept(format)),
            };
            judged.push(Judged {
                file_name,
                staged,
                format,
            });
        }
        Ok(judged)
    })
    .await
    .map_err(Error::internal)?
}

/// Refuses a file that cannot be read.
pub(super) fn refuse(file: &Judged) -> Option<Error> {
    let reason = file.format.as_ref().err()?;
    let message = reason.to_string().into();
    Some(match reason {
        ExtractError::UnsupportedType { .. } => Error::UnsupportedType {
            code: "unsupported_type",
            message,
        },
        reason => Error::Invalid {
            code: reason.code(),
            field: None,
            message,
        },
    })
}

fn refuse_all(files: &[Judged]) -> Option<Error> {
    let unsupported = |file: &Judged| matches!(file.format, Err(ExtractError::UnsupportedType { .. }));
    let first = files.first()?;
    let reason = first.format.as_ref().err()?;
    files.iter().all(unsupported).then(|| Error::UnsupportedType {
        code: "unsupported_type",
        message: format!("{}: {reason}", first.file_name).into(),
    })
}

/// What is said of a document by who brings it.
#[derive(Default)]
pub(super) struct Told {
    /// How the source names it.
    pub external_id: String,
    /// None: what its content says.
    pub title: Option<String>,
    pub url: Option<String>,
    pub language: Option<String>,
    /// Where it says nothing, what was said before stays.
    pub labels: Labels,
}

/// A received file in its final place.
pub(super) struct Placed {
    pub told: Told,
    pub file_name: String,
    pub format: Result<Format, ExtractError>,
    pub content_hash: String,
    pub size_bytes: u64,
    pub file_key: String,
}

/// Where documents go.
pub(super) struct Place {
    pub tenant_id: TenantId,
    pub chatbot_id: ChatbotId,
    pub source_id: SourceId,
    pub matching: Matching,
    pub now: DateTime<Utc>,
}

/// Which document a file is a version of.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Matching {
    /// The one of its name.
    ByName,
    /// That, or else the one with the same content.
    ByNameOrContent,
}

/// What came of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// A document that is to be indexed.
    New,
    /// A new version that is to be indexed.
    Changed,
    /// There is nothing to index.
    Nothing,
}

/// Writes the row of one document; the keys of files that are not needed any more are added to `superfluous`.
pub(super) async fn store_one(
    write: &mut Write,
    place: &Place,
    file: Placed,
    superfluous: &mut Vec<String>,
) -> Result<(Document, Effect)> {
    let Place {
        tenant_id,
        source_id,
        now,
        ..
    } = *place;
    let Told {
        external_id,
        title,
        url,
        language,
        labels,
    } = file.told;
    let same_name = store::find_by_external_id(write, tenant_id, source_id, &external_id).await?;
    let same = match &same_name {
        Some(named) => Some(named)
            .filter(|named| {
                let told = (&named.given_title, &named.url, &named.language);
                named.content_hash == file.content_hash
                    && told == (&title, &url, &language)
                    && labels.adds_nothing_to(&named.labels)
            })
            .cloned(),
        None if place.matching == Matching::ByNameOrContent => {
            let same = store::find_by_content(write, tenant_id, source_id, &file.content_hash).await?;
            same.filter(|same| labels.adds_nothing_to(&same.labels))
        }
        None => None,
    };
    if let Some(known) = same.filter(|known| !matches!(known.state, DocumentState::Failed { .. })) {
        superfluous.push(file.file_key);
        return Ok((known, Effect::Nothing));
    }
    let (state, effect) = match &file.format {
        Ok(_) if same_name.is_none() => (DocumentState::Queued, Effect::New),
        Ok(_) => (DocumentState::Queued, Effect::Changed),
        Err(error) => (
            DocumentState::Failed {
                code: error.code().to_owned(),
                message: error.to_string(),
            },
            Effect::Nothing,
        ),
    };
    let keeps_old =
        file.format.is_err() && same_name.as_ref().is_some_and(|named| named.indexed_at.is_some());
    let format = file.format.map_or("unknown", Format::as_str);
    let mut document = same_name.unwrap_or_else(|| Document {
        id: DocumentId::new(),
        chatbot_id: place.chatbot_id,
        source_id,
        external_id,
        title: title.clone().unwrap_or_else(|| file.file_name.clone()),
        given_title: None,
        url: None,
        language: None,
        detected_language: None,
        description: None,
        published_at: None,
        breadcrumbs: Vec::new(),
        file_name: file.file_name.clone(),
        format: String::new(),
        size_bytes: 0,
        content_hash: String::new(),
        file_key: String::new(),
        state: DocumentState::Queued,
        chunk_count: 0,
        token_count: 0,
        page_count: None,
        scanned_pages: None,
        left_out: Vec::new(),
        labels: Labels::default(),
        stale_changes: 0,
        staged_chunks: None,
        created_at: now,
        updated_at: now,
        indexed_at: None,
    });
    if keeps_old {
        // The old version still answers, so its original stays what citations open.
        superfluous.push(file.file_key);
    } else {
        if !document.file_key.is_empty() {
            superfluous.push(std::mem::take(&mut document.file_key));
        }
        document.format = format.to_owned();
        document.size_bytes = i64::try_from(file.size_bytes).unwrap_or(i64::MAX);
        document.content_hash = file.content_hash;
        document.file_key = file.file_key;
    }
    document.given_title = title;
    document.url = url;
    document.language = language;
    document.labels.put(labels);
    document.state = state;
    document.updated_at = now;
    store::upsert(write, tenant_id, &document).await?;
    Ok((document, effect))
}
