//! Receiving the files of an upload: streamed to disk, and counted as they come, whatever headers say.

mod ration;

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;

use axum::body::Body;
use axum::extract::multipart::{Field, Multipart, MultipartError};
use axum::extract::{FromRequest as _, Request};
use futures::StreamExt as _;
use http::header;

use self::ration::{RATION_BYTES, Ration};
use super::NewFile;
use super::files::{IncomingFile, clean_name};
use crate::app::App;
use crate::error::{Error, Result};
use crate::http::input;
use crate::http::pace::is_too_slow;

/// Files of the largest size that one upload may add up to.
const LARGEST_FILES_IN_UPLOAD: u64 = 10;

/// All files of an upload, in their order. On any error nothing of them is left.
pub(super) async fn files(app: &App, request: Request) -> Result<Vec<NewFile>> {
    let ration = Ration::default();
    let request = request.map(|body| ration.apply(body));
    let mut multipart = Multipart::from_request(request, app)
        .await
        .map_err(|_| Error::UnsupportedType {
            code: "unsupported_media_type",
            message: "send the files as multipart/form-data, each as a part with a file name".into(),
        })?;
    let mut files = Vec::new();
    let mut total = 0_u64;
    let most_total = app
        .config
        .server
        .upload_limit_bytes
        .saturating_mul(LARGEST_FILES_IN_UPLOAD);
    while let Some(field) = within(&ration, multipart.next_field()).await? {
        if files.len() >= app.config.server.upload_files_limit {
            return Err(Error::TooLarge {
                code: "too_many_files",
                message: format!(
                    "at most {} files in one upload",
                    app.config.server.upload_files_limit
                )
                .into(),
            });
        }
        let file = one_file(app, &ration, field, most_total - total).await?;
        total += file.staged.size_bytes;
        files.push(file);
    }
    if files.is_empty() {
        return Err(Error::invalid("no_files", "file", "the upload holds no file"));
    }
    Ok(files)
}

/// Receives one file, counting the bytes as they come.
async fn one_file(app: &App, ration: &Ration, mut field: Field<'_>, left_in_upload: u64) -> Result<NewFile> {
    let Some(file_name) = field.file_name().map(clean_name) else {
        if names_a_file(&field) {
            return Err(Error::invalid(
                "unreadable_file_name",
                "file",
                "the file name of a part cannot be read: send it as UTF-8 without line breaks",
            ));
        }
        let name = field
            .name()
            .unwrap_or_default()
            .chars()
            .take(100)
            .collect::<String>();
        return Err(Error::invalid(
            "unknown_field",
            "file",
            format!("the part {name:?} is no file: every part must have a file name"),
        ));
    };
    let limit = app.config.server.upload_limit_bytes;
    let mut incoming = app.files.receive().await?;
    while let Some(bytes) = within(ration, field.chunk()).await? {
        if incoming.size_bytes() + bytes.len() as u64 > limit.min(left_in_upload) {
            let message = if limit <= left_in_upload {
                format!("{file_name} is larger than {limit} bytes")
            } else {
                format!(
                    "the upload is larger than {} bytes in all: send it in parts",
                    limit.saturating_mul(LARGEST_FILES_IN_UPLOAD)
                )
            };
            return Err(Error::TooLarge {
                code: "file_too_large",
                message: message.into(),
            });
        }
        incoming.write(&bytes).await?;
    }
    Ok(NewFile {
        file_name,
        staged: incoming.finish().await?,
    })
}

/// Receives a file that is the whole body of a request.
pub(super) async fn body(app: &App, body: Body) -> Result<IncomingFile> {
    let limit = app.config.server.upload_limit_bytes;
    let mut incoming = app.files.receive().await?;
    let mut pieces = body.into_data_stream();
    while let Some(piece) = pieces.next().await {
        let piece = piece.map_err(|error| {
            if is_too_slow(&error) {
                return input::too_slow();
            }
            Error::Malformed {
                code: "body_incomplete",
                message: "the body ended before its announced length".into(),
            }
        })?;
        if incoming.size_bytes() + piece.len() as u64 > limit {
            return Err(Error::TooLarge {
                code: "file_too_large",
                message: format!("the file is larger than {limit} bytes").into(),
            });
        }
        incoming.write(&piece).await?;
    }
    Ok(incoming)
}

/// Whether the part's header has a file name, readable or not.
fn names_a_file(field: &Field<'_>) -> bool {
    field
        .headers()
        .get(header::CONTENT_DISPOSITION)
        .is_some_and(|value| {
            let value = value.as_bytes().to_ascii_lowercase();
            value.windows(b"filename".len()).any(|part| part == b"filename")
        })
}

/// Waits for the parser within one ration of the body.
async fn within<T>(
    ration: &Ration,
    part: impl Future<Output = std::result::Result<T, MultipartError>>,
) -> Result<T> {
    ration.renew();
    let mut part = pin!(part);
    let parsed = poll_fn(|context| match part.as_mut().poll(context) {
        Poll::Pending if ration.is_used_up() => Poll::Ready(None),
        parsed => parsed.map(Some),
    });
    match parsed.await {
        Some(Ok(part)) => Ok(part),
        Some(Err(error)) if is_too_slow(&error) => Err(input::too_slow()),
        Some(Err(error)) => {
            tracing::debug!(error = ?error, "malformed upload");
            Err(Error::Malformed {
                code: "malformed_upload",
                message: "the upload is not valid multipart/form-data, or ended too early".into(),
            })
        }
        None => Err(Error::TooLarge {
            code: "part_headers_too_large",
            message: format!("what stands before a file in the upload is larger than {RATION_BYTES} bytes")
                .into(),
        }),
    }
}
