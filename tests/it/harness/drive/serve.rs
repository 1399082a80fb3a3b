//! The service's side of the requests: who asks, what is wrong with the request, what the answer holds.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use serde_json::{Value, json};

use super::State as Drive;
use super::store::{Content, media_type};
use super::{EMAIL, Shared, lock, mask};

/// What goes wrong with a request.
#[derive(Clone, Debug)]
pub enum Fault {
    /// 403 with this reason, for example `userRateLimitExceeded`; `Retry-After` where it is given.
    Forbidden {
        reason: &'static str,
        retry_after: Option<u64>,
    },
    Status(u16),
    /// 410: the page token is no longer known.
    Gone,
    /// 400 for the page token.
    BadPageToken,
    /// The list is said to be incomplete.
    Incomplete,
    /// The connection ends after these bytes of the body.
    CutAfter(usize),
    /// The whole file, whatever range was asked for.
    IgnoreRange,
    /// One byte of the body is another.
    Spoil,
}

/// What is going to go wrong.
#[derive(Default)]
pub(super) struct Script(Vec<(&'static str, usize, Fault)>);

impl Script {
    pub fn add(&mut self, kind: &'static str, times: usize, fault: Fault) {
        self.0.push((kind, times, fault));
    }

    /// The fault that is due for a request of this kind.
    pub fn next(&mut self, kind: &str) -> Option<Fault> {
        let due = self
            .0
            .iter_mut()
            .find(|(of, times, _)| (*of == kind || *of == "*") && *times > 0)?;
        due.1 -= 1;
        Some(due.2.clone())
    }
}

impl Fault {
    /// The answer in place of, or made of, a good one with this body.
    pub fn respond(self, body: Vec<u8>) -> Response {
        match self {
            Self::Forbidden { reason, retry_after } => {
                let mut response = refuse(403, reason, "");
                if let Some(seconds) = retry_after {
                    response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
                }
                response
            }
            Self::Status(status) => refuse(status, "backendError", ""),
            Self::Gone => refuse(410, "updateRequired", "pageToken"),
            Self::BadPageToken => refuse(400, "invalid", "pageToken"),
            Self::Incomplete => axum::Json(json!({ "files": [], "incompleteSearch": true })).into_response(),
            Self::CutAfter(kept) => {
                let length = body.len();
                let kept = Bytes::from(body).slice(..kept.min(length));
                // The length is announced; what is missing tells that the connection broke.
                let broken = futures::stream::iter([Ok(kept), Err(std::io::Error::other("cut off"))]);
                ([(header::CONTENT_LENGTH, length)], Body::from_stream(broken)).into_response()
            }
            Self::IgnoreRange => body.into_response(),
            Self::Spoil => {
                let mut body = body;
                if let Some(last) = body.last_mut() {
                    *last ^= 1;
                }
                body.into_response()
            }
        }
    }
}

type Params = Query<HashMap<String, String>>;

/// Counts the request and tells what it is answered before it is looked at.
fn enter(state: &mut Drive, kind: &'static str, headers: &HeaderMap) -> Option<Response> {
    state.requests.push(kind);
    let token = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
    if !token.is_some_and(|token| state.accounts.accepts(token, state.now)) {
        return Some(refuse(401, "authError", "Authorization"));
    }
    // Those of a body are looked at when there is one.
    if kind == "media" || kind == "export" {
        return None;
    }
    state.script.next(kind).map(|fault| fault.respond(Vec::new()))
}

fn refuse(status: u16, reason: &str, location: &str) -> Response {
    let message = "A sentence with names in it that nobody should repeat.";
    let body = json!({ "error": {
        "code": status,
        "message": message,
        "errors": [{ "domain": "global", "reason": reason, "message": message, "location": location, "locationType": "parameter" }],
    } });
    (StatusCode::from_u16(status).expect("a status"), axum::Json(body)).into_response()
}

fn field<'a>(params: &'a Params, name: &str) -> &'a str {
    params.0.get(name).map_or("", String::as_str)
}

fn answer(params: &Params, default_mask: &str, body: &Value) -> Response {
    let fields = match field(params, "fields") {
        "" => default_mask,
        fields => fields,
    };
    axum::Json(mask::apply(fields, body)).into_response()
}

/// Whether the caller is told of a file: those of shared drives only if it says that it knows of such.
fn is_told(state: &Drive, params: &Params, id: &str) -> bool {
    let in_shared_drive = state
        .store
        .files
        .get(id)
        .is_some_and(|file| file.drive_id.is_some());
    state.store.sees(id) && (!in_shared_drive || field(params, "supportsAllDrives") == "true")
}

pub(super) async fn about(State(shared): State<Arc<Shared>>, params: Params, headers: HeaderMap) -> Response {
    let mut state = lock(&shared);
    if let Some(response) = enter(&mut state, "about", &headers) {
        return response;
    }
    // The manual: this method needs the parameter.
    if field(&params, "fields").is_empty() {
        return refuse(400, "required", "fields");
    }
    answer(
        &params,
        "",
        &json!({ "kind": "drive#about", "user": { "emailAddress": EMAIL, "displayName": "Desk" } }),
    )
}

pub(super) async fn list(State(shared): State<Arc<Shared>>, params: Params, headers: HeaderMap) -> Response {
    let mut state = lock(&shared);
    if let Some(response) = enter(&mut state, "list", &headers) {
        return response;
    }
    let query = field(&params, "q");
    let Some(folder) = query
        .strip_prefix('\'')
        .and_then(|rest| rest.strip_suffix("' in parents and trashed = false"))
    else {
        return refuse(400, "invalid", "q");
    };
    if !is_told(&state, &params, folder) {
        return refuse(404, "notFound", "fileId");
    }
    let (all_drives, corpora) = (
        field(&params, "includeItemsFromAllDrives") == "true",
        field(&params, "corpora"),
    );
    let drive_id = field(&params, "driveId");
    if (corpora == "drive") == drive_id.is_empty() || (corpora == "drive" && !all_drives) {
        return refuse(400, "invalid", "corpora");
    }
    let inside = state.store.files.iter().filter(|(id, file)| {
        let in_corpus = match corpora {
            "drive" => file.drive_id.as_deref() == Some(drive_id),
            // The hardest reading of "files the user has accessed": none in a shared drive.
            _ => file.drive_id.is_none(),
        };
        file.parents.iter().any(|parent| parent == folder)
            && in_corpus
            && file.is_shared
            && !state.store.is_trashed(id)
    });
    let files: Vec<Value> = inside.map(|(id, _)| state.store.show(id)).collect();
    let Some((files, next)) = page(&state, &params, &files) else {
        return refuse(400, "invalid", "pageToken");
    };
    let mut body = json!({ "kind": "drive#fileList", "incompleteSearch": false, "files": files });
    if let Some(next) = next {
        body["nextPageToken"] = json!(format!("page-{next}"));
    }
    answer(
        &params,
        "kind,incompleteSearch,nextPageToken,files(kind,id,name,mimeType)",
        &body,
    )
}

/// A page of `items`, and where the next one begins. None when the page token is none.
fn page(state: &Drive, params: &Params, items: &[Value]) -> Option<(Vec<Value>, Option<usize>)> {
    let start = match field(params, "pageToken") {
        "" => 0,
        token => token.strip_prefix("page-")?.parse().ok()?,
    };
    let size = field(params, "pageSize")
        .parse()
        .unwrap_or(100)
        .min(state.page_size);
    let end = (start + size).min(items.len());
    let page = items.get(start..end)?.to_vec();
    Some((page, (end < items.len()).then_some(end)))
}

pub(super) async fn file(
    State(shared): State<Arc<Shared>>,
    Path(id): Path<String>,
    params: Params,
    headers: HeaderMap,
) -> Response {
    let is_media = field(&params, "alt") == "media";
    let mut state = lock(&shared);
    if let Some(response) = enter(&mut state, if is_media { "media" } else { "get" }, &headers) {
        return response;
    }
    if !is_told(&state, &params, &id) {
        return refuse(404, "notFound", "fileId");
    }
    if !is_media {
        return answer(&params, "kind,id,name,mimeType", &state.store.show(&id));
    }
    let stored = &state.store.files[&id];
    let Content::Uploaded(_, bytes) = &stored.content else {
        return refuse(403, "fileNotDownloadable", "alt");
    };
    if !stored.can_download {
        return refuse(403, "cannotDownloadFile", "");
    }
    let (bytes, media_type) = (bytes.clone(), media_type(&stored.content).to_owned());
    let fault = state.script.next("media");
    if matches!(fault, Some(Fault::IgnoreRange)) {
        return bytes.into_response();
    }
    let range = headers.get(header::RANGE).and_then(|value| value.to_str().ok());
    let start = range.and_then(|range| {
        range
            .strip_prefix("bytes=")?
            .strip_suffix('-')?
            .parse::<usize>()
            .ok()
    });
    let (status, body, content_range) = match start {
        None => (StatusCode::OK, bytes, None),
        Some(start) if start >= bytes.len() => return refuse(416, "requestedRangeNotSatisfiable", "Range"),
        Some(start) => {
            let range = format!("bytes {start}-{}/{}", bytes.len() - 1, bytes.len());
            (StatusCode::PARTIAL_CONTENT, bytes[start..].to_vec(), Some(range))
        }
    };
    let mut response = match fault {
        Some(fault @ (Fault::CutAfter(_) | Fault::Spoil)) => {
            let mut response = fault.respond(body);
            *response.status_mut() = status;
            response
        }
        Some(fault) => return fault.respond(body),
        None => (status, body).into_response(),
    };
    let media_type = media_type.parse().expect("a media type");
    response.headers_mut().insert(header::CONTENT_TYPE, media_type);
    if let Some(range) = content_range {
        response
            .headers_mut()
            .insert(header::CONTENT_RANGE, range.parse().expect("a range"));
    }
    response
}

pub(super) async fn export(
    State(shared): State<Arc<Shared>>,
    Path(id): Path<String>,
    params: Params,
    headers: HeaderMap,
) -> Response {
    let mut state = lock(&shared);
    if let Some(response) = enter(&mut state, "export", &headers) {
        return response;
    }
    // This method takes no supportsAllDrives: it knows all drives.
    if !state.store.sees(&id) {
        return refuse(404, "notFound", "fileId");
    }
    if let Content::Uploaded(..) | Content::Folder | Content::Shortcut(_) = state.store.files[&id].content {
        return refuse(403, "fileNotExportable", "");
    }
    if !state.store.files[&id].can_download {
        return refuse(403, "cannotExportFile", "");
    }
    let body = match state.store.export(&id, field(&params, "mimeType")) {
        None => return refuse(400, "badRequest", "convertTo"),
        Some(None) => return refuse(403, "exportSizeLimitExceeded", ""),
        Some(Some(body)) => body,
    };
    match state.script.next("export") {
        Some(fault) => fault.respond(body),
        None => body.into_response(),
    }
}

pub(super) async fn start_token(
    State(shared): State<Arc<Shared>>,
    params: Params,
    headers: HeaderMap,
) -> Response {
    let mut state = lock(&shared);
    if let Some(response) = enter(&mut state, "start_token", &headers) {
        return response;
    }
    let token = state.store.changes.len().to_string();
    answer(
        &params,
        "*",
        &json!({ "kind": "drive#startPageToken", "startPageToken": token }),
    )
}

pub(super) async fn changes(
    State(shared): State<Arc<Shared>>,
    params: Params,
    headers: HeaderMap,
) -> Response {
    let mut state = lock(&shared);
    if let Some(response) = enter(&mut state, "changes", &headers) {
        return response;
    }
    let Ok(start) = field(&params, "pageToken").parse::<usize>() else {
        return refuse(400, "invalid", "pageToken");
    };
    if start < state.store.oldest_token || start > state.store.changes.len() {
        return refuse(410, "updateRequired", "pageToken");
    }
    let drive_id = field(&params, "driveId");
    let size = field(&params, "pageSize")
        .parse()
        .unwrap_or(100)
        .min(state.page_size);
    let end = (start + size).min(state.store.changes.len());
    let followed = (!drive_id.is_empty()).then_some(drive_id);
    let is_followed =
        |(id, of_drive): &&(String, Option<String>)| of_drive.as_deref() == followed && !id.is_empty();
    // A file that changed again later is told of there.
    let later: BTreeSet<&String> = state.store.changes[end..]
        .iter()
        .filter(is_followed)
        .map(|(id, _)| id)
        .collect();
    let told: BTreeSet<String> = state.store.changes[start..end]
        .iter()
        .filter(is_followed)
        .map(|(id, _)| id.clone())
        .filter(|id| !later.contains(id))
        .collect();
    let changes: Vec<Value> = told
        .into_iter()
        .map(|id| {
            // To those who follow a drive, what left it is gone.
            let is_here = state.store.sees(&id)
                && state.store.files[&id].drive_id.as_deref().unwrap_or_default() == drive_id;
            let mut change = json!({
                "kind": "drive#change", "changeType": "file", "type": "file", "fileId": id,
                "removed": !is_here, "time": "2026-11-20T10:00:00.000Z",
            });
            if is_here {
                change["file"] = state.store.show(&id);
            }
            change
        })
        .collect();
    let mut body = json!({ "kind": "drive#changeList", "changes": changes });
    if end < state.store.changes.len() {
        body["nextPageToken"] = json!(end.to_string());
    } else {
        body["newStartPageToken"] = json!(end.to_string());
    }
    answer(
        &params,
        "kind,nextPageToken,newStartPageToken,changes(kind,changeType,type,fileId,removed,time,file(kind,id,name,mimeType))",
        &body,
    )
}
