//! HTTP of documents that programs put into a source.

use axum::extract::{Request, State};
use http::{StatusCode, header};
use ingest::Format;
use serde::Deserialize;
use url::Url;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::push::{self, Put, file_name_of};
use crate::app::App;
use crate::error::{Error, Result};
use crate::http::access::IngestAccess;
use crate::http::input::{Path, Query, parse, read_body};
use crate::http::problem::Problem;
use crate::id::SourceId;
use crate::knowledge::files::IncomingFile;
use crate::knowledge::routes::DocumentResponse;
use crate::knowledge::upload::{NewFile, Told};
use crate::knowledge::{Labels, labels, receive};

const MAX_TITLE_CHARS: usize = 500;
const MAX_URL_CHARS: usize = 2_000;

/// The routes of pushed documents.
pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(put_document, delete_pushed_document))
}

/// A document: exactly one of `text`, `markdown` and `html`.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct PutDocumentRequest {
    text: Option<String>,
    markdown: Option<String>,
    html: Option<String>,
    /// Told from the content unless given.
    #[schema(max_length = 500)]
    title: Option<String>,
    /// Where people find it; citations link there.
    #[schema(max_length = 2_000, example = "https://www.example.com/help/returns")]
    url: Option<String>,
    /// For example `de` or `pt-BR`.
    #[schema(max_length = 35)]
    language: Option<String>,
    /// Those that it had, or its source's, unless given.
    #[schema(max_items = 50)]
    tags: Option<Vec<String>>,
    /// Access groups of which a visitor needs one to be answered from it; those that it had, or its source's, unless given.
    #[schema(max_items = 50)]
    access_groups: Option<Vec<String>>,
}

/// What the JSON of a document says besides its content, for a document that is sent as it is.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct PutDocumentQuery {
    /// Told from the content unless given.
    #[param(value_type = Option<String>, min_length = 1, max_length = 500)]
    title: Option<String>,
    /// Where people find it; citations link there.
    #[param(value_type = Option<String>, max_length = 2_000)]
    url: Option<String>,
    /// For example `de` or `pt-BR`.
    #[param(value_type = Option<String>, max_length = 35)]
    language: Option<String>,
    /// Separated by commas.
    #[param(value_type = Option<String>)]
    tags: Option<String>,
    /// Access groups of which a visitor needs one to be answered from it, separated by commas.
    #[param(value_type = Option<String>)]
    access_groups: Option<String>,
}

/// Puts a document under a name of one's own, or its new version. The same again changes nothing.
///
/// The body is the JSON of a text, or a file of any type that can be uploaded, with its content type.
#[utoipa::path(put, path = "/api/sources/{id}/documents/{external_id}", tag = "sources",
    params(("id" = String, Path, description = "The source, of kind `push`"), ("external_id" = String, Path, description = "The document's name: any text of 1 to 500 characters, percent-encoded"), PutDocumentQuery),
    request_body(content((PutDocumentRequest = "application/json"), (String = "application/octet-stream"))),
    responses((status = 200, description = "It was there already", body = DocumentResponse), (status = 201, description = "New", body = DocumentResponse), (status = 202, description = "A new version", body = DocumentResponse), (status = "4XX", body = Problem, content_type = "application/problem+json")), security(("bearer" = ["ingest"])))]
async fn put_document(
    access: IngestAccess,
    State(app): State<App>,
    Path((id, external_id)): Path<(SourceId, String)>,
    Query(query): Query<PutDocumentQuery>,
    request: Request,
) -> Result<(StatusCode, axum::Json<DocumentResponse>), Problem> {
    // Before a byte is stored: may this caller put this document at all?
    let mut conn = app.db.read(access.tenant_id).await?;
    push::check(&mut conn, access.reach(), id, &external_id).await?;
    drop(conn);
    let content_type = request
        .headers()
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let essence = content_type
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase();
    let mut told = Told {
        external_id,
        title: query.title,
        url: query.url,
        language: query.language,
        labels: Labels::listed(query.tags.as_deref(), query.access_groups.as_deref())?,
    };
    check_told(&told)?;
    let file = match essence.as_str() {
        "" => {
            return Err(Error::UnsupportedType {
                code: "unsupported_media_type",
                message:
                    "name the body's type in Content-Type: application/json for a text, or the file's own"
                        .into(),
            }
            .into());
        }
        "application/json" => {
            let body = read_body(request, app.config.server.body_limit_bytes).await?;
            receive_text(&app, parse(&body)?, &mut told).await?
        }
        essence => receive_file(&app, request, essence, &told).await?,
    };
    check_told(&told)?;
    let (document, put) = push::put(
        &app,
        access.reach(),
        id,
        file,
        told,
        &access.actor,
        &access.origin,
    )
    .await?;
    let status = match put {
        Put::New => StatusCode::CREATED,
        Put::Changed => StatusCode::ACCEPTED,
        Put::Unchanged => StatusCode::OK,
    };
    Ok((status, axum::Json(document.into())))
}

/// Takes a document out of a source: out of answers at once.
#[utoipa::path(delete, path = "/api/sources/{id}/documents/{external_id}", tag = "sources",
    params(("id" = String, Path, description = "The source, of kind `push`"), ("external_id" = String, Path, description = "The document's name, percent-encoded")),
    responses((status = 204, description = "Deleted"), (status = "4XX", body = Problem, content_type = "application/problem+json")), security(("bearer" = ["ingest"])))]
async fn delete_pushed_document(
    access: IngestAccess,
    State(app): State<App>,
    Path((id, external_id)): Path<(SourceId, String)>,
) -> Result<StatusCode, Problem> {
    push::delete(
        &app,
        access.reach(),
        id,
        &external_id,
        &access.actor,
        &access.origin,
    )
    .await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn receive_text(
    app: &App,
    request: PutDocumentRequest,
    told: &mut Told,
) -> Result<(NewFile, Option<Format>)> {
    let given = [
        (request.text, Format::Text),
        (request.markdown, Format::Markdown),
        (request.html, Format::Html),
    ];
    let mut given = given
        .into_iter()
        .filter_map(|(content, format)| Some((content?, format)));
    let (Some((content, format)), None) = (given.next(), given.next()) else {
        return Err(Error::invalid(
            "content_missing",
            "text",
            "give exactly one of text, markdown and html",
        ));
    };
    if content.trim().is_empty() {
        let (field, message) = (
            format.as_str(),
            "the text is empty: give at least a word, or delete the document",
        );
        return Err(Error::invalid("empty_file", field, message));
    }
    told.title = request.title.or(told.title.take());
    told.url = request.url.or(told.url.take());
    told.language = request.language.or(told.language.take());
    let labels = Labels {
        tags: request.tags,
        access_groups: request.access_groups,
    };
    told.labels.put(labels.checked()?);
    let mut incoming = app.files.receive().await?;
    incoming.write(content.as_bytes()).await?;
    finish(incoming, &told.external_id, Some(format))
        .await
        .map(|file| (file, Some(format)))
}

async fn receive_file(
    app: &App,
    request: Request,
    essence: &str,
    told: &Told,
) -> Result<(NewFile, Option<Format>)> {
    let incoming = receive::body(app, request.into_body()).await?;
    // What the sender says of the type only chooses among kinds of text: the content decides.
    let claimed = Format::ALL
        .into_iter()
        .find(|format| format.media_type() == essence && !format.is_media());
    finish(incoming, &told.external_id, claimed)
        .await
        .map(|file| (file, None))
}

async fn finish(incoming: IncomingFile, external_id: &str, format: Option<Format>) -> Result<NewFile> {
    Ok(NewFile {
        file_name: file_name_of(external_id, format),
        staged: incoming.finish().await?,
    })
}

fn check_told(told: &Told) -> Result<()> {
    if let Some(title) = &told.title
        && (title.trim().is_empty() || title.chars().count() > MAX_TITLE_CHARS || title.contains('\0'))
    {
        return Err(Error::invalid(
            "invalid_title",
            "title",
            format!("title must have 1 to {MAX_TITLE_CHARS} characters"),
        ));
    }
    if let Some(url) = &told.url {
        let is_link = url.chars().count() <= MAX_URL_CHARS
            && Url::parse(url).is_ok_and(|url| {
                matches!(url.scheme(), "http" | "https")
                    && url.has_host()
                    && url.username().is_empty()
                    && url.password().is_none()
            });
        if !is_link {
            return Err(Error::invalid(
                "invalid_url",
                "url",
                format!("url must be an http or https address of at most {MAX_URL_CHARS} characters"),
            ));
        }
    }
    if let Some(language) = &told.language
        && !labels::is_language_tag(language)
    {
        return Err(Error::invalid(
            "invalid_language",
            "language",
            "language must be a tag such as de or pt-BR",
        ));
    }
    Ok(())
}
