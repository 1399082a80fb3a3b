//! SQL of chatbots.

use chrono::{DateTime, Utc};
use sqlx::FromRow;
use sqlx::types::Json;

use super::{Chatbot, Settings};
use crate::db::{Conn, Write};
use crate::error::Result;
use crate::http::access::Reach;
use crate::http::input::PageRequest;
use crate::id::{ChatbotId, TenantId};
use crate::knowledge::SearchSettings;
use crate::on;

/// A chatbot's own columns.
#[derive(FromRow)]
pub(crate) struct ChatbotRow {
    id: ChatbotId,
    tenant_id: TenantId,
    name: String,
    prompt: String,
    model: Option<String>,
    temperature: Option<f64>,
    no_answer_text: String,
    max_passages: i64,
    min_similarity: f64,
    search_settings: Json<SearchSettings>,
    allowed_origins: Json<Vec<String>>,
    monthly_token_limit: Option<i64>,
    monthly_cost_limit_micro_usd: Option<i64>,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

impl From<ChatbotRow> for Chatbot {
    fn from(row: ChatbotRow) -> Self {
        Self {
            id: row.id,
            tenant_id: row.tenant_id,
            settings: Settings {
                name: row.name,
                prompt: row.prompt,
                model: row.model,
                temperature: row.temperature,
                no_answer_text: row.no_answer_text,
                max_passages: row.max_passages,
                min_similarity: row.min_similarity,
                search: row.search_settings.0,
                allowed_origins: row.allowed_origins.0,
                monthly_token_limit: row.monthly_token_limit,
                monthly_cost_limit_micro_usd: row.monthly_cost_limit_micro_usd,
            },
            created_at: row.created_at,
            updated_at: row.updated_at,
        }
    }
}

pub(super) async fn insert(write: &mut Write, chatbot: &Chatbot) -> Result<()> {
    let settings = &chatbot.settings;
    on!(write, c => sqlx::query(
        "insert into chatbot (id, tenant_id, name, prompt, model, temperature, no_answer_text, max_passages, min_similarity,
                              allowed_origins, monthly_token_limit, monthly_cost_limit_micro_usd, created_at, updated_at, search_settings)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)",
    ).bind(chatbot.id).bind(chatbot.tenant_id).bind(&settings.name).bind(&settings.prompt).bind(&settings.model)
     .bind(settings.temperature).bind(&settings.no_answer_text).bind(settings.max_passages).bind(settings.min_similarity)
     .bind(Json(&settings.allowed_origins)).bind(settings.monthly_token_limit).bind(settings.monthly_cost_limit_micro_usd)
     .bind(chatbot.created_at).bind(chatbot.updated_at).bind(Json(&settings.search)).execute(c).await.map(drop))?;
    replace_origins(write, chatbot).await
}

pub(super) async fn update(write: &mut Write, chatbot: &Chatbot) -> Result<()> {
    let settings = &chatbot.settings;
    on!(write, c => sqlx::query(
        "update chatbot
            set name = $3, prompt = $4, model = $5, temperature = $6, no_answer_text = $7, max_passages = $8, min_similarity = $9,
                allowed_origins = $10, monthly_token_limit = $11, monthly_cost_limit_micro_usd = $12, updated_at = $13,
                search_settings = $14
          where id = $1
            and tenant_id = $2",
    ).bind(chatbot.id).bind(chatbot.tenant_id).bind(&settings.name).bind(&settings.prompt).bind(&settings.model)
     .bind(settings.temperature).bind(&settings.no_answer_text).bind(settings.max_passages).bind(settings.min_similarity)
     .bind(Json(&settings.allowed_origins)).bind(settings.monthly_token_limit).bind(settings.monthly_cost_limit_micro_usd)
     .bind(chatbot.updated_at).bind(Json(&settings.search)).execute(c).await.map(drop))?;
    replace_origins(write, chatbot).await
}

/// Lists the chatbot's sites where preflight requests find them.
async fn replace_origins(write: &mut Write, chatbot: &Chatbot) -> Result<()> {
    on!(write, c => sqlx::query("delete from chatbot_origin where tenant_id = $1 and chatbot_id = $2")
        .bind(chatbot.tenant_id).bind(chatbot.id).execute(c).await.map(drop))?;
    for origin in &chatbot.settings.allowed_origins {
        on!(write, c => sqlx::query(
            "insert into chatbot_origin (origin, chatbot_id, tenant_id) values ($1, $2, $3) on conflict do nothing",
        ).bind(origin).bind(chatbot.id).bind(chatbot.tenant_id).execute(c).await.map(drop))?;
    }
    Ok(())
}

pub(super) async fn find(conn: &mut Conn, tenant_id: TenantId, id: ChatbotId) -> Result<Option<Chatbot>> {
    let row: Option<ChatbotRow> = on!(conn, c => sqlx::query_as(
        "select id, tenant_id, name, prompt, model, temperature, no_answer_text, max_passages, min_similarity, search_settings, allowed_origins,
                monthly_token_limit, monthly_cost_limit_micro_usd, created_at, updated_at
           from chatbot
          where tenant_id = $1
            and id = $2
            and deleted_at is null",
    ).bind(tenant_id).bind(id).fetch_optional(c).await)?;
    Ok(row.map(Chatbot::from))
}

pub(super) async fn list(conn: &mut Conn, reach: Reach, page: PageRequest) -> Result<Vec<Chatbot>> {
    let rows: Vec<ChatbotRow> = on!(conn, c => sqlx::query_as(
        "select id, tenant_id, name, prompt, model, temperature, no_answer_text, max_passages, min_similarity, search_settings, allowed_origins,
                monthly_token_limit, monthly_cost_limit_micro_usd, created_at, updated_at
           from chatbot
          where tenant_id = $1
            and id < $2
            and deleted_at is null
            and ($3 is null or id = $3)
          order by id desc
          limit $4",
    ).bind(reach.tenant_id).bind(page.before).bind(reach.chatbot_id).bind(page.limit + 1).fetch_all(c).await)?;
    Ok(rows.into_iter().map(Chatbot::from).collect())
}

pub(super) async fn count(conn: &mut Conn, tenant_id: TenantId) -> Result<i64> {
    Ok(
        on!(conn, c => sqlx::query_scalar("select count(*) from chatbot where tenant_id = $1 and deleted_at is null").bind(tenant_id).fetch_one(c).await)?,
    )
}

/// Holds the row until the transaction ends. SQLite has one writer anyway.
pub(super) async fn lock(write: &mut Write, tenant_id: TenantId, id: ChatbotId) -> Result<()> {
    if write.is_postgres() {
        on!(write, c => sqlx::query("select id from chatbot where tenant_id = $1 and id = $2 for update").bind(tenant_id).bind(id).execute(c).await.map(drop))?;
    }
    Ok(())
}

/// Keeps the row from being deleted until the transaction ends; false when there is none. SQLite has one writer anyway.
pub(super) async fn hold(write: &mut Write, tenant_id: TenantId, id: ChatbotId) -> Result<bool> {
    let statement = if write.is_postgres() {
        "select id from chatbot where tenant_id = $1 and id = $2 and deleted_at is null for key share"
    } else {
        "select id from chatbot where tenant_id = $1 and id = $2 and deleted_at is null"
    };
    let row: Option<ChatbotId> =
        on!(write, c => sqlx::query_scalar(statement).bind(tenant_id).bind(id).fetch_optional(c).await)?;
    Ok(row.is_some())
}

/// Nobody finds the chatbot any more.
pub(super) async fn hide(
    write: &mut Write,
    tenant_id: TenantId,
    id: ChatbotId,
    now: DateTime<Utc>,
) -> Result<()> {
    on!(write, c => sqlx::query("delete from chatbot_origin where tenant_id = $1 and chatbot_id = $2")
        .bind(tenant_id).bind(id).execute(c).await.map(drop))?;
    on!(write, c => sqlx::query("update chatbot set deleted_at = $3 where tenant_id = $1 and id = $2")
        .bind(tenant_id).bind(id).bind(now).execute(c).await.map(drop))?;
    Ok(())
}

pub(super) async fn delete_hidden(write: &mut Write, tenant_id: TenantId, id: ChatbotId) -> Result<()> {
    on!(write, c => sqlx::query("delete from chatbot where tenant_id = $1 and id = $2 and deleted_at is not null").bind(tenant_id).bind(id).execute(c).await.map(drop))?;
    Ok(())
}
