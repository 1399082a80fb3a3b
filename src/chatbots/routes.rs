//! `/api/chatbots`: making, showing, changing and deleting chatbots.

use axum::Extension;
use axum::extract::State;
use chrono::{DateTime, Utc};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{Chatbot, Settings};
use crate::app::App;
use crate::chatbots;
use crate::http::access::{EditAccess, KnowledgeAccess};
use crate::http::idempotency::Subject;
use crate::http::input::{Json, Page, PageQuery, Path, Query, present};
use crate::http::problem::Problem;
use crate::id::ChatbotId;
use crate::knowledge::{SearchSettings, SearchSettingsRequest};

/// The routes of this room.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(create_chatbot, list_chatbots))
        .routes(routes!(get_chatbot, update_chatbot, delete_chatbot))
}

/// A chatbot to make. What is left out gets a sensible value.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct CreateChatbotRequest {
    #[schema(min_length = 1, max_length = 200)]
    name: String,
    /// Added to the built-in instructions: tone, role, rules.
    #[schema(max_length = 20_000)]
    prompt: Option<String>,
    /// Null: the installation's default model.
    model: Option<String>,
    /// Null: the model's own default.
    #[schema(minimum = 0, maximum = 2)]
    temperature: Option<f64>,
    /// Said when the chatbot's knowledge holds no answer.
    #[schema(min_length = 1, max_length = 2_000)]
    no_answer_text: Option<String>,
    /// Passages put into a prompt, at most.
    #[schema(minimum = 1, maximum = 20)]
    max_passages: Option<i64>,
    /// Cosine similarity that a passage without a word of the question needs to count, on a usual background; words of the
    /// question, and standing out from the other passages, make up for some of it.
    #[schema(minimum = 0, maximum = 1)]
    min_similarity: Option<f64>,
    /// How passages are chosen.
    #[serde(default)]
    search: SearchSettingsRequest,
    /// Sites whose pages may talk to this chatbot from a browser, for example `https://www.example.com`.
    #[schema(max_items = 50)]
    allowed_origins: Option<Vec<String>>,
    /// Tokens of a month; null: unlimited.
    #[schema(minimum = 0)]
    monthly_token_limit: Option<i64>,
    /// Millionths of a US dollar in a month; null: unlimited.
    #[schema(minimum = 0)]
    monthly_cost_limit_micro_usd: Option<i64>,
}

impl From<CreateChatbotRequest> for Settings {
    fn from(request: CreateChatbotRequest) -> Self {
        let mut usual = Self::named(request.name);
        request.search.apply(&mut usual.search);
        Self {
            prompt: request.prompt.unwrap_or(usual.prompt),
            model: request.model,
            temperature: request.temperature,
            no_answer_text: request.no_answer_text.unwrap_or(usual.no_answer_text),
            max_passages: request.max_passages.unwrap_or(usual.max_passages),
            min_similarity: request.min_similarity.unwrap_or(usual.min_similarity),
            search: usual.search,
            allowed_origins: request.allowed_origins.unwrap_or(usual.allowed_origins),
            monthly_token_limit: request.monthly_token_limit,
            monthly_cost_limit_micro_usd: request.monthly_cost_limit_micro_usd,
            name: usual.name,
        }
    }
}

/// New settings of a chatbot. What is left out stays.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct UpdateChatbotRequest {
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = String, required = false, min_length = 1, max_length = 200)]
    name: Option<String>,
    /// Added to the built-in instructions: tone, role, rules.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = String, required = false, max_length = 20_000)]
    prompt: Option<String>,
    /// Null: the installation's default model.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<String>)]
    model: Option<Option<String>>,
    /// Null: the model's own default.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<f64>, minimum = 0, maximum = 2)]
    temperature: Option<Option<f64>>,
    /// Said when the chatbot's knowledge holds no answer.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = String, required = false, min_length = 1, max_length = 2_000)]
    no_answer_text: Option<String>,
    /// Passages put into a prompt, at most.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = i64, required = false, minimum = 1, maximum = 20)]
    max_passages: Option<i64>,
    /// Cosine similarity that a passage without a word of the question needs to count, on a usual background; words of the
    /// question, and standing out from the other passages, make up for some of it.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = f64, required = false, minimum = 0, maximum = 1)]
    min_similarity: Option<f64>,
    /// How passages are chosen.
    #[serde(default)]
    search: SearchSettingsRequest,
    /// Sites whose pages may talk to this chatbot from a browser, for example `https://www.example.com`.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Vec<String>, required = false, max_items = 50)]
    allowed_origins: Option<Vec<String>>,
    /// Tokens of a month; null: unlimited.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<i64>, minimum = 0)]
    monthly_token_limit: Option<Option<i64>>,
    /// Millionths of a US dollar in a month; null: unlimited.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<i64>, minimum = 0)]
    monthly_cost_limit_micro_usd: Option<Option<i64>>,
}

impl UpdateChatbotRequest {
    fn apply(self, settings: &mut Settings) {
        fn put<T>(target: &mut T, value: Option<T>) {
            if let Some(value) = value {
                *target = value;
            }
        }
        put(&mut settings.name, self.name);
        put(&mut settings.prompt, self.prompt);
        put(&mut settings.model, self.model);
        put(&mut settings.temperature, self.temperature);
        put(&mut settings.no_answer_text, self.no_answer_text);
        put(&mut settings.max_passages, self.max_passages);
        put(&mut settings.min_similarity, self.min_similarity);
        self.search.apply(&mut settings.search);
        put(&mut settings.allowed_origins, self.allowed_origins);
        put(&mut settings.monthly_token_limit, self.monthly_token_limit);
        put(
            &mut settings.monthly_cost_limit_micro_usd,
            self.monthly_cost_limit_micro_usd,
        );
    }
}

/// A chatbot with its settings.
#[derive(Debug, Serialize, ToSchema)]
struct ChatbotResponse {
    id: ChatbotId,
    name: String,
    /// Added to the built-in instructions: tone, role, rules.
    prompt: String,
    /// Null: the installation's default model.
    model: Option<String>,
    /// Null: the model's own default.
    temperature: Option<f64>,
    /// Said when the chatbot's knowledge holds no answer.
    no_answer_text: String,
    /// Passages put into a prompt, at most.
    max_passages: i64,
    /// Cosine similarity that a passage without a word of the question needs to count, on a usual background; words of the
    /// question, and standing out from the other passages, make up for some of it.
    min_similarity: f64,
    /// How passages are chosen.
    search: SearchSettings,
    /// Sites whose pages may talk to this chatbot from a browser.
    allowed_origins: Vec<String>,
    /// Tokens of a month; null: unlimited.
    monthly_token_limit: Option<i64>,
    /// Millionths of a US dollar in a month; null: unlimited.
    monthly_cost_limit_micro_usd: Option<i64>,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

impl From<Chatbot> for ChatbotResponse {
    fn from(chatbot: Chatbot) -> Self {
        let settings = chatbot.settings;
        Self {
            id: chatbot.id,
            name: settings.name,
            prompt: settings.prompt,
            model: settings.model,
            temperature: settings.temperature,
            no_answer_text: settings.no_answer_text,
            max_passages: settings.max_passages,
            min_similarity: settings.min_similarity,
            search: settings.search,
            allowed_origins: settings.allowed_origins,
            monthly_token_limit: settings.monthly_token_limit,
            monthly_cost_limit_micro_usd: settings.monthly_cost_limit_micro_usd,
            created_at: chatbot.created_at,
            updated_at: chatbot.updated_at,
        }
    }
}

/// Makes a chatbot.
#[utoipa::path(
    post,
    path = "/api/chatbots",
    tag = "chatbots",
    request_body = CreateChatbotRequest,
    security(("bearer" = ["edit"])),
    responses(
        (status = 201, description = "The new chatbot", body = ChatbotResponse),
        (status = "4XX", description = "Refused", body = Problem, content_type = "application/problem+json"),
    ),
)]
async fn create_chatbot(
    access: EditAccess,
    State(app): State<App>,
    Json(request): Json<CreateChatbotRequest>,
) -> Result<(StatusCode, Extension<Subject>, axum::Json<ChatbotResponse>), Problem> {
    access.reach().check_whole()?;
    let chatbot = chatbots::create(
        &app,
        access.tenant_id,
        request.into(),
        &access.actor,
        &access.origin,
    )
    .await?;
    let subject = Subject::chatbot(chatbot.id);
    Ok((
        StatusCode::CREATED,
        Extension(subject),
        axum::Json(chatbot.into()),
    ))
}

/// The tenant's chatbots, newest first.
#[utoipa::path(
    get,
    path = "/api/chatbots",
    tag = "chatbots",
    params(PageQuery),
    security(("bearer" = ["knowledge:read"])),
    responses(
        (status = 200, description = "A page of chatbots", body = Page<ChatbotResponse>),
        (status = "4XX", description = "Refused", body = Problem, content_type = "application/problem+json"),
    ),
)]
async fn list_chatbots(
    access: KnowledgeAccess,
    State(app): State<App>,
    Query(query): Query<PageQuery>,
) -> Result<axum::Json<Page<ChatbotResponse>>, Problem> {
    let page = query.check()?;
    let chatbots = chatbots::list(&app, access.reach(), page).await?;
    Ok(axum::Json(Page::of(
        chatbots,
        page.limit,
        |chatbot| chatbot.id.0,
        ChatbotResponse::from,
    )))
}

/// One chatbot.
#[utoipa::path(
    get,
    path = "/api/chatbots/{id}",
    tag = "chatbots",
    params(("id" = String, Path, format = "uuid", description = "The chatbot's id")),
    security(("bearer" = ["knowledge:read"])),
    responses(
        (status = 200, description = "The chatbot", body = ChatbotResponse),
        (status = "4XX", description = "Refused", body = Problem, content_type = "application/problem+json"),
    ),
)]
async fn get_chatbot(
    access: KnowledgeAccess,
    State(app): State<App>,
    Path(id): Path<ChatbotId>,
) -> Result<axum::Json<ChatbotResponse>, Problem> {
    let chatbot = chatbots::get(&app, access.reach(), id).await?;
    Ok(axum::Json(chatbot.into()))
}

/// Changes a chatbot's settings. What is left out stays.
#[utoipa::path(
    patch,
    path = "/api/chatbots/{id}",
    tag = "chatbots",
    params(("id" = String, Path, format = "uuid", description = "The chatbot's id")),
    request_body = UpdateChatbotRequest,
    security(("bearer" = ["edit"])),
    responses(
        (status = 200, description = "The changed chatbot", body = ChatbotResponse),
        (status = "4XX", description = "Refused", body = Problem, content_type = "application/problem+json"),
    ),
)]
async fn update_chatbot(
    access: EditAccess,
    State(app): State<App>,
    Path(id): Path<ChatbotId>,
    Json(request): Json<UpdateChatbotRequest>,
) -> Result<axum::Json<ChatbotResponse>, Problem> {
    let edit = |settings: &mut Settings| request.apply(settings);
    let chatbot = chatbots::update(&app, access.reach(), id, edit, &access.actor, &access.origin).await?;
    Ok(axum::Json(chatbot.into()))
}

/// Deletes a chatbot with its knowledge and conversations.
#[utoipa::path(
    delete,
    path = "/api/chatbots/{id}",
    tag = "chatbots",
    params(("id" = String, Path, format = "uuid", description = "The chatbot's id")),
    security(("bearer" = ["edit"])),
    responses(
        (status = 204, description = "Gone"),
        (status = "4XX", description = "Refused", body = Problem, content_type = "application/problem+json"),
    ),
)]
async fn delete_chatbot(
    access: EditAccess,
    State(app): State<App>,
    Path(id): Path<ChatbotId>,
) -> Result<StatusCode, Problem> {
    chatbots::delete(&app, access.reach(), id, &access.actor, &access.origin).await?;
    Ok(StatusCode::NO_CONTENT)
}
