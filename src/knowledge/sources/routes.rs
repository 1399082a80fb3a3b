//! HTTP of sources and their runs.

use axum::extract::State;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::fields::{DriveInput, PagesInput, SitemapInput, WebsiteInput};
use super::input::SettingsInput;
use super::orders::{self, Order};
use super::push_routes;
use super::view::{RunDetail, RunResponse, SourceResponse, show};
use super::{NewSource, Schedule, SourceChange, SourceKind};
use crate::app::App;
use crate::error::Error;
use crate::http::access::{IngestAccess, KnowledgeAccess};
use crate::http::input::{Json, Page, PageQuery, Path, Query, present};
use crate::http::problem::Problem;
use crate::id::{ChatbotId, SourceId, SyncRunId};
use crate::knowledge::chunks::Chunking;
use crate::knowledge::labels::LabelsChange;
use crate::knowledge::routes::DocumentResponse;
use crate::knowledge::sync::{self, Cause, Wanted};
use crate::knowledge::{DocumentState, Labels};

/// The routes of sources.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(create_source, list_sources))
        .routes(routes!(crawl_website))
        .routes(routes!(get_source, update_source, delete_source))
        .routes(routes!(sync_source))
        .routes(routes!(pause_source))
        .routes(routes!(resume_source))
        .routes(routes!(cancel_sync))
        .routes(routes!(list_runs))
        .routes(routes!(get_run))
        .routes(routes!(super::events::stream_source_events))
        .routes(routes!(list_source_documents))
        .merge(push_routes::routes())
        .merge(super::exclusions_routes::routes())
}

/// What new sources can be.
#[derive(Clone, Copy, Debug, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum NewSourceKind {
    Website,
    Sitemap,
    Pages,
    Drive,
    Push,
}

impl From<NewSourceKind> for SourceKind {
    fn from(kind: NewSourceKind) -> Self {
        match kind {
            NewSourceKind::Website => Self::Website,
            NewSourceKind::Sitemap => Self::Sitemap,
            NewSourceKind::Pages => Self::Pages,
            NewSourceKind::Drive => Self::Drive,
            NewSourceKind::Push => Self::Push,
        }
    }
}

/// A source to make. The settings stand in the field that is called as the kind; `push` has none.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct CreateSourceRequest {
    kind: NewSourceKind,
    /// Named after what it reads unless given.
    #[schema(min_length = 1, max_length = 200)]
    name: Option<String>,
    /// Read on request only unless given.
    schedule: Option<Schedule>,
    /// How its documents are cut; as everywhere unless given.
    chunking: Option<Chunking>,
    /// Tags of documents that have none of their own.
    #[schema(max_items = 50)]
    tags: Option<Vec<String>>,
    /// Access groups of which a visitor needs one to be answered from documents that say nothing of their own; none: open
    /// to everyone.
    #[schema(max_items = 50)]
    access_groups: Option<Vec<String>>,
    website: Option<WebsiteInput>,
    sitemap: Option<SitemapInput>,
    pages: Option<PagesInput>,
    drive: Option<DriveInput>,
}

impl From<CreateSourceRequest> for NewSource {
    fn from(request: CreateSourceRequest) -> Self {
        Self {
            kind: request.kind.into(),
            name: request.name,
            schedule: request.schedule,
            chunking: request.chunking,
            labels: Labels {
                tags: request.tags,
                access_groups: request.access_groups,
            },
            settings: SettingsInput {
                website: request.website,
                sitemap: request.sitemap,
                pages: request.pages,
                drive: request.drive,
            },
        }
    }
}

/// What changes of a source. What is left out stays, secrets too.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct UpdateSourceRequest {
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = String, required = false, min_length = 1, max_length = 200)]
    name: Option<String>,
    /// Null: read on request only.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<Schedule>)]
    schedule: Option<Option<Schedule>>,
    /// How its documents are cut: those that are there are cut beside their present chunks, which answer until all are (see
    /// `/api/index/generations`). Null: as
    /// everywhere.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<Chunking>)]
    chunking: Option<Option<Chunking>>,
    /// Tags of documents that have none of their own. Null: none.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<Vec<String>>, max_items = 50)]
    tags: Option<Option<Vec<String>>>,
    /// Access groups of which a visitor needs one to be answered from documents that say nothing of their own. Null: open
    /// to everyone.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<Vec<String>>, max_items = 50)]
    access_groups: Option<Option<Vec<String>>>,
    website: Option<WebsiteInput>,
    sitemap: Option<SitemapInput>,
    pages: Option<PagesInput>,
    drive: Option<DriveInput>,
}

impl From<UpdateSourceRequest> for SourceChange {
    fn from(request: UpdateSourceRequest) -> Self {
        Self {
            name: request.name,
            schedule: request.schedule,
            chunking: request.chunking,
            labels: LabelsChange {
                tags: request.tags,
                access_groups: request.access_groups,
            },
            settings: SettingsInput {
                website: request.website,
                sitemap: request.sitemap,
                pages: request.pages,
                drive: request.drive,
            },
        }
    }
}

/// A website to read.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct CrawlRequest {
    chatbot_id: ChatbotId,
    /// Where reading begins. Its host is the site.
    #[schema(max_length = 2_000, example = "https://www.example.com/help/")]
    url: String,
    /// Pages read, at most; no more than the installation allows.
    #[schema(minimum = 1)]
    max_pages: Option<u32>,
    /// Links away from `url`, which is 0; no more than the installation allows.
    #[schema(minimum = 0)]
    max_depth: Option<u32>,
    /// Patterns such as `/help/**`: only pages whose path fits one of them, where there are any.
    #[schema(max_items = 100)]
    include: Option<Vec<String>>,
    /// Patterns such as `/help/old/**` or `*.pdf`: no page whose path fits one of them.
    #[schema(max_items = 100)]
    exclude: Option<Vec<String>>,
    /// Whether hosts below the site's own belong to it; no unless given.
    subdomains: Option<bool>,
    /// Whether addresses that differ in their query are different pages; yes unless given.
    keep_query: Option<bool>,
}

/// A website's source, with its run.
#[derive(Serialize, ToSchema)]
struct CrawlResponse {
    source: SourceResponse,
    run: RunResponse,
}

/// How a run should go.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct SyncRequest {
    /// Read everything as if nothing were known; no unless given.
    full: Option<bool>,
    /// Let documents go that an earlier run kept because too many had vanished at once; no unless given.
    accept_removals: Option<bool>,
}

/// Makes a source and begins to read it.
#[utoipa::path(post, path = "/api/chatbots/{id}/sources", tag = "sources", params(("id" = String, Path, description = "The chatbot")), request_body = CreateSourceRequest,
    responses((status = 202, body = SourceResponse), (status = "4XX", body = Problem, content_type = "application/problem+json")), security(("bearer" = ["ingest"])))]
async fn create_source(
    access: IngestAccess,
    State(app): State<App>,
    Path(chatbot_id): Path<ChatbotId>,
    Json(request): Json<CreateSourceRequest>,
) -> Result<(StatusCode, axum::Json<SourceResponse>), Problem> {
    let new = NewSource::from(request);
    let source = super::create(
        &app,
        access.reach(),
        chatbot_id,
        new,
        &access.actor,
        &access.origin,
    )
    .await?;
    let mut conn = app.db.read(access.tenant_id).await?;
    Ok((StatusCode::ACCEPTED, axum::Json(show(&mut conn, source).await?)))
}

/// A chatbot's sources, newest first.
#[utoipa::path(get, path = "/api/chatbots/{id}/sources", tag = "sources", params(("id" = String, Path, description = "The chatbot"), PageQuery),
    responses((status = 200, body = Page<SourceResponse>), (status = "4XX", body = Problem, content_type = "application/problem+json")), security(("bearer" = ["knowledge:read"])))]
async fn list_sources(
    access: KnowledgeAccess,
    State(app): State<App>,
    Path(chatbot_id): Path<ChatbotId>,
    Query(query): Query<PageQuery>,
) -> Result<axum::Json<Page<SourceResponse>>, Problem> {
    let page = query.check()?;
    let sources = super::list(&app, access.reach(), chatbot_id, page).await?;
    let sources = Page::of(sources, page.limit, |source| source.id.0, |source| source);
    let mut conn = app.db.read(access.tenant_id).await?;
    let mut items = Vec::with_capacity(sources.items.len());
    for source in sources.items {
        items.push(show(&mut conn, source).await?);
    }
    Ok(axum::Json(Page {
        items,
        next_cursor: sources.next_cursor,
    }))
}

/// Reads a website: the short way in. Asked again for the same address, it reads the same source again.
#[utoipa::path(post, path = "/api/chatbots/crawl", tag = "sources", request_body = CrawlRequest,
    responses((status = 202, body = CrawlResponse), (status = "4XX", body = Problem, content_type = "application/problem+json")), security(("bearer" = ["ingest"])))]
async fn crawl_website(
    access: IngestAccess,
    State(app): State<App>,
    Json(request): Json<CrawlRequest>,
) -> Result<(StatusCode, axum::Json<CrawlResponse>), Problem> {
    let website = WebsiteInput {
        url: Some(request.url),
        max_pages: request.max_pages,
        max_depth: request.max_depth,
        include: request.include,
        exclude: request.exclude,
        subdomains: request.subdomains,
        keep_query: request.keep_query,
        ..WebsiteInput::default()
    };
    let (source, run) = super::crawl(
        &app,
        access.reach(),
        request.chatbot_id,
        website,
        &access.actor,
        &access.origin,
    )
    .await?;
    let mut conn = app.db.read(access.tenant_id).await?;
    let run = RunResponse::load(&mut conn, access.tenant_id, run).await?;
    let source = SourceResponse::of(source, Some(run.clone()));
    Ok((StatusCode::ACCEPTED, axum::Json(CrawlResponse { source, run })))
}

/// A source with its last run.
#[utoipa::path(get, path = "/api/sources/{id}", tag = "sources", params(("id" = String, Path, description = "The source")),
    responses((status = 200, body = SourceResponse), (status = "4XX", body = Problem, content_type = "application/problem+json")), security(("bearer" = ["knowledge:read"])))]
async fn get_source(
    access: KnowledgeAccess,
    State(app): State<App>,
    Path(id): Path<SourceId>,
) -> Result<axum::Json<SourceResponse>, Problem> {
    let mut conn = app.db.read(access.tenant_id).await?;
    let source = super::find(&mut conn, access.reach(), id).await?;
    Ok(axum::Json(show(&mut conn, source).await?))
}

/// Changes a source, from its next run on. What is left out stays.
#[utoipa::path(patch, path = "/api/sources/{id}", tag = "sources", params(("id" = String, Path, description = "The source")), request_body = UpdateSourceRequest,
    responses((status = 200, body = SourceResponse), (status = "4XX", body = Problem, content_type = "application/problem+json")), security(("bearer" = ["ingest"])))]
async fn update_source(
    access: IngestAccess,
    State(app): State<App>,
    Path(id): Path<SourceId>,
    Json(request): Json<UpdateSourceRequest>,
) -> Result<axum::Json<SourceResponse>, Problem> {
    let source = super::update(
        &app,
        access.reach(),
        id,
        request.into(),
        &access.actor,
        &access.origin,
    )
    .await?;
    let mut conn = app.db.read(access.tenant_id).await?;
    Ok(axum::Json(show(&mut conn, source).await?))
}

/// Deletes a source with its documents: out of answers at once.
#[utoipa::path(delete, path = "/api/sources/{id}", tag = "sources", params(("id" = String, Path, description = "The source")),
    responses((status = 204, description = "Deleted"), (status = "4XX", body = Problem, content_type = "application/problem+json")), security(("bearer" = ["ingest"])))]
async fn delete_source(
    access: IngestAccess,
    State(app): State<App>,
    Path(id): Path<SourceId>,
) -> Result<StatusCode, Problem> {
    super::delete(&app, access.reach(), id, &access.actor, &access.origin).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Reads a source again: what is unchanged costs nothing, what has vanished is removed after the run.
#[utoipa::path(post, path = "/api/sources/{id}/sync", tag = "sources", params(("id" = String, Path, description = "The source")), request_body = Option<SyncRequest>,
    responses((status = 202, body = RunResponse), (status = "4XX", body = Problem, content_type = "application/problem+json")), security(("bearer" = ["ingest"])))]
async fn sync_source(
    access: IngestAccess,
    State(app): State<App>,
    Path(id): Path<SourceId>,
    request: Option<Json<SyncRequest>>,
) -> Result<(StatusCode, axum::Json<RunResponse>), Problem> {
    let request = request.map(|Json(request)| request).unwrap_or_default();
    let wanted = Wanted {
        cause: Cause::Request,
        is_full: request.full.unwrap_or_default(),
        accepts_removals: request.accept_removals.unwrap_or_default(),
    };
    let run = orders::start_run(&app, access.reach(), id, wanted, &access.actor, &access.origin).await?;
    let mut conn = app.db.read(access.tenant_id).await?;
    let run = RunResponse::load(&mut conn, access.tenant_id, run).await?;
    Ok((StatusCode::ACCEPTED, axum::Json(run)))
}

/// Holds a source still: nothing more is read, and a run that is under way keeps its place.
#[utoipa::path(post, path = "/api/sources/{id}/pause", tag = "sources", params(("id" = String, Path, description = "The source")),
    responses((status = 200, body = SourceResponse), (status = "4XX", body = Problem, content_type = "application/problem+json")), security(("bearer" = ["ingest"])))]
async fn pause_source(
    access: IngestAccess,
    State(app): State<App>,
    Path(id): Path<SourceId>,
) -> Result<axum::Json<SourceResponse>, Problem> {
    carry_out(access, &app, id, Order::Pause).await
}

/// Lets a paused source go on: a run that was under way continues where it stood.
#[utoipa::path(post, path = "/api/sources/{id}/resume", tag = "sources", params(("id" = String, Path, description = "The source")),
    responses((status = 200, body = SourceResponse), (status = "4XX", body = Problem, content_type = "application/problem+json")), security(("bearer" = ["ingest"])))]
async fn resume_source(
    access: IngestAccess,
    State(app): State<App>,
    Path(id): Path<SourceId>,
) -> Result<axum::Json<SourceResponse>, Problem> {
    carry_out(access, &app, id, Order::Resume).await
}

/// Ends the run that is under way: what it has read stays, nothing is removed.
#[utoipa::path(post, path = "/api/sources/{id}/cancel", tag = "sources", params(("id" = String, Path, description = "The source")),
    responses((status = 200, body = SourceResponse), (status = "4XX", body = Problem, content_type = "application/problem+json")), security(("bearer" = ["ingest"])))]
async fn cancel_sync(
    access: IngestAccess,
    State(app): State<App>,
    Path(id): Path<SourceId>,
) -> Result<axum::Json<SourceResponse>, Problem> {
    carry_out(access, &app, id, Order::Cancel).await
}

async fn carry_out(
    access: IngestAccess,
    app: &App,
    id: SourceId,
    order: Order,
) -> Result<axum::Json<SourceResponse>, Problem> {
    let source = orders::order(app, access.reach(), id, order, &access.actor, &access.origin).await?;
    let mut conn = app.db.read(access.tenant_id).await?;
    Ok(axum::Json(show(&mut conn, source).await?))
}

/// A source's runs, newest first.
#[utoipa::path(get, path = "/api/sources/{id}/runs", tag = "sources", params(("id" = String, Path, description = "The source"), PageQuery),
    responses((status = 200, body = Page<RunResponse>), (status = "4XX", body = Problem, content_type = "application/problem+json")), security(("bearer" = ["knowledge:read"])))]
async fn list_runs(
    access: KnowledgeAccess,
    State(app): State<App>,
    Path(id): Path<SourceId>,
    Query(query): Query<PageQuery>,
) -> Result<axum::Json<Page<RunResponse>>, Problem> {
    let page = query.check()?;
    let mut conn = app.db.read(access.tenant_id).await?;
    super::find(&mut conn, access.reach(), id).await?;
    let runs = sync::list_runs(&mut conn, access.tenant_id, id, page).await?;
    let runs = Page::of(runs, page.limit, |run| run.id.0, |run| run);
    let mut items = Vec::with_capacity(runs.items.len());
    for run in runs.items {
        items.push(RunResponse::load(&mut conn, access.tenant_id, run).await?);
    }
    Ok(axum::Json(Page {
        items,
        next_cursor: runs.next_cursor,
    }))
}

/// One run, with all that could not be read, page by page.
#[utoipa::path(get, path = "/api/sources/{id}/runs/{run_id}", tag = "sources", params(("id" = String, Path, description = "The source"), ("run_id" = String, Path, description = "The run"), PageQuery),
    responses((status = 200, body = RunDetail), (status = "4XX", body = Problem, content_type = "application/problem+json")), security(("bearer" = ["knowledge:read"])))]
async fn get_run(
    access: KnowledgeAccess,
    State(app): State<App>,
    Path((id, run_id)): Path<(SourceId, SyncRunId)>,
    Query(query): Query<PageQuery>,
) -> Result<axum::Json<RunDetail>, Problem> {
    let page = query.check()?;
    let mut conn = app.db.read(access.tenant_id).await?;
    super::find(&mut conn, access.reach(), id).await?;
    let run = sync::get_run(&mut conn, access.tenant_id, id, run_id).await?;
    let failures = sync::list_failures(&mut conn, access.tenant_id, run_id, page).await?;
    Ok(axum::Json(RunDetail::of(run, failures, page.limit)))
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct DocumentsQuery {
    /// `queued`, `processing`, `indexed` or `failed`; all of them unless given.
    #[param(value_type = Option<String>)]
    state: Option<String>,
    /// Items on the page, 1 to 100; 50 unless given.
    #[param(value_type = Option<i64>, minimum = 1, maximum = 100)]
    limit: Option<i64>,
    /// `next_cursor` of the page before.
    #[param(value_type = Option<String>, format = "uuid")]
    cursor: Option<String>,
}

/// A source's documents, newest first.
#[utoipa::path(get, path = "/api/sources/{id}/documents", tag = "sources", params(("id" = String, Path, description = "The source"), DocumentsQuery),
    responses((status = 200, body = Page<DocumentResponse>), (status = "4XX", body = Problem, content_type = "application/problem+json")), security(("bearer" = ["knowledge:read"])))]
async fn list_source_documents(
    access: KnowledgeAccess,
    State(app): State<App>,
    Path(id): Path<SourceId>,
    Query(query): Query<DocumentsQuery>,
) -> Result<axum::Json<Page<DocumentResponse>>, Problem> {
    let page = PageQuery {
        limit: query.limit,
        cursor: query.cursor,
    };
    let page = page.check()?;
    if let Some(state) = &query.state
        && !DocumentState::NAMES.contains(&state.as_str())
    {
        return Err(Error::invalid(
            "invalid_state",
            "state",
            format!("state must be one of {}", DocumentState::NAMES.join(", ")),
        )
        .into());
    }
    let documents = super::list_documents(&app, access.reach(), id, query.state.as_deref(), page).await?;
    Ok(axum::Json(Page::of(
        documents,
        page.limit,
        |document| document.id.0,
        DocumentResponse::from,
    )))
}
