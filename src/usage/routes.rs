//! `/api/usage`: reports, export and budgets.

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use futures::TryStreamExt as _;
use http::header;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::time::Duration;
use tokio::sync::Semaphore;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::report::{self, Filter, GroupBy, ReportLine};
use super::{Balance, Limit, export, next_period, period_of, store};
use crate::app::App;
use crate::chatbots;
use crate::db::Conn;
use crate::error::{Error, Result};
use crate::http::access::{Reach, UsageAccess};
use crate::http::input::Query;
use crate::http::problem::Problem;
use crate::id::ChatbotId;
use crate::tenancy::audit::{self, Change};

/// Exports that one process sends at once.
static EXPORTS: Semaphore = Semaphore::const_new(4);

/// All costs are micro-units of this.
const CURRENCY: &str = "USD";

/// The routes of this room.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(get_usage))
        .routes(routes!(export_usage))
        .routes(routes!(get_budget))
}

/// What to sum, and by what.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct UsageQuery {
    /// One line per day (of UTC), model, chatbot or channel; per day unless given.
    #[serde(default)]
    #[param(value_type = Option<GroupBy>)]
    group_by: GroupBy,
    /// From this day (of UTC) or RFC 3339 time on.
    #[param(value_type = Option<String>, example = "2026-11-01")]
    from: Option<String>,
    /// Up to and with this day, or up to this time.
    #[param(value_type = Option<String>, example = "2026-11-30")]
    to: Option<String>,
    /// This chatbot's calls only.
    #[param(value_type = Option<String>, format = "uuid")]
    chatbot_id: Option<ChatbotId>,
}

/// What to export.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ExportQuery {
    /// From this day (of UTC) or RFC 3339 time on.
    #[param(value_type = Option<String>, example = "2026-11-01")]
    from: Option<String>,
    /// Up to and with this day, or up to this time.
    #[param(value_type = Option<String>, example = "2026-11-30")]
    to: Option<String>,
    /// This chatbot's calls only.
    #[param(value_type = Option<String>, format = "uuid")]
    chatbot_id: Option<ChatbotId>,
}

/// Whose budget.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct BudgetQuery {
    /// This chatbot's budget too.
    #[param(value_type = Option<String>, format = "uuid")]
    chatbot_id: Option<ChatbotId>,
}

/// A report of usage and cost.
#[derive(Debug, Serialize, ToSchema)]
pub struct UsageReport {
    /// One line per key, in order of the keys.
    items: Vec<UsageLine>,
    /// The sum of all lines.
    total: UsageSum,
    /// Costs are millionths of this.
    #[schema(value_type = String, example = "USD")]
    currency: &'static str,
}

/// One line of a report.
#[derive(Debug, Serialize, ToSchema)]
pub struct UsageLine {
    /// The day, model, chatbot id or channel; empty for calls without a chatbot.
    key: String,
    #[serde(flatten)]
    sum: UsageSum,
}

/// Tokens, seconds and cost of some calls.
#[derive(Debug, Serialize, ToSchema)]
pub struct UsageSum {
    /// Tokens read, cached ones included.
    prompt_tokens: i64,
    /// Tokens written.
    completion_tokens: i64,
    /// The part of the tokens read that the vendor had cached; of embeddings the tokens of texts that were embedded before,
    /// which cost nothing and are no part of those embedded.
    cached_tokens: i64,
    /// Tokens turned into vectors.
    embedding_tokens: i64,
    /// Seconds of recordings that were listened to.
    audio_seconds: i64,
    cost_micro_usd: i64,
    /// How many calls.
    calls: i64,
    /// Of these, how many are booked as they were reserved: the process that made them died before it knew what they took.
    estimated_calls: i64,
}

impl From<&ReportLine> for UsageSum {
    fn from(line: &ReportLine) -> Self {
        Self {
            prompt_tokens: line.prompt_tokens,
            completion_tokens: line.completion_tokens,
            cached_tokens: line.cached_tokens,
            embedding_tokens: line.embedding_tokens,
            audio_seconds: line.audio_seconds,
            cost_micro_usd: line.cost_micro_usd,
            calls: line.calls,
            estimated_calls: line.estimated_calls,
        }
    }
}

/// How the running month stands.
#[derive(Debug, Serialize, ToSchema)]
pub struct BudgetResponse {
    /// The month, in UTC.
    #[schema(example = "2026-11")]
    period: String,
    /// The day on which limits start anew.
    #[schema(example = "2026-12-01")]
    resets_on: String,
    /// All chatbots together.
    tenant: BudgetState,
    /// The chatbot that was asked for.
    chatbot: Option<BudgetState>,
    /// Costs are millionths of this.
    #[schema(value_type = String, example = "USD")]
    currency: &'static str,
}

/// Limits and what is left of them.
#[derive(Debug, Serialize, ToSchema)]
pub struct BudgetState {
    /// Null: unlimited.
    monthly_token_limit: Option<i64>,
    /// Null: unlimited.
    monthly_cost_limit_micro_usd: Option<i64>,
    used_tokens: i64,
    used_micro_usd: i64,
    /// Held by turns that are running.
    reserved_tokens: i64,
    /// Held by turns that are running.
    reserved_micro_usd: i64,
}

impl BudgetState {
    fn new(limit: Limit, balance: Balance) -> Self {
        Self {
            monthly_token_limit: limit.tokens,
            monthly_cost_limit_micro_usd: limit.micro_usd,
            used_tokens: balance.used.tokens,
            used_micro_usd: balance.used.micro_usd,
            reserved_tokens: balance.reserved.tokens,
            reserved_micro_usd: balance.reserved.micro_usd,
        }
    }
}

/// What was used, summed by day, model, chatbot or channel.
#[utoipa::path(
    get,
    path = "/api/usage",
    tag = "usage",
    params(UsageQuery),
    security(("bearer" = ["usage:read"])),
    responses(
        (status = 200, description = "The report", body = UsageReport),
        (status = "4XX", description = "Refused", body = Problem, content_type = "application/problem+json"),
    ),
)]
async fn get_usage(
    access: UsageAccess,
    State(app): State<App>,
    Query(query): Query<UsageQuery>,
) -> Result<axum::Json<UsageReport>, Problem> {
    let filter = Filter::new(query.from.as_deref(), query.to.as_deref(), query.chatbot_id)?;
    let mut conn = app.db.read(access.tenant_id).await?;
    check_chatbot(&mut conn, access.reach(), query.chatbot_id).await?;
    let report = report::report(&mut conn, access.tenant_id, &filter, query.group_by).await?;
    let total = UsageSum::from(&report.total);
    let items = report
        .lines
        .into_iter()
        .map(|line| UsageLine {
            sum: UsageSum::from(&line),
            key: line.key,
        })
        .collect();
    Ok(axum::Json(UsageReport {
        items,
        total,
        currency: CURRENCY,
    }))
}

/// The ledger as CSV, one line per call, oldest first. Text cells that a spreadsheet would take for a formula (they
/// start with =, +, -, @, a tab or a carriage return) get an apostrophe in front.
#[utoipa::path(
    get,
    path = "/api/usage/export",
    tag = "usage",
    params(ExportQuery),
    security(("bearer" = ["usage:read"])),
    responses(
        (status = 200, description = "The ledger", body = String, content_type = "text/csv"),
        (status = "4XX", description = "Refused", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "Too many exports are running", body = Problem, content_type = "application/problem+json"),
    ),
)]
async fn export_usage(
    access: UsageAccess,
    State(app): State<App>,
    Query(query): Query<ExportQuery>,
) -> Result<Response, Problem> {
    let filter = Filter::new(query.from.as_deref(), query.to.as_deref(), query.chatbot_id)?;
    let permit = EXPORTS.try_acquire().map_err(|_| Error::Unavailable {
        code: "too_many_exports",
        message: "too many exports are running; try again shortly".into(),
        retry_after: Duration::from_secs(10),
        source: None,
    })?;
    let mut write = app.db.write(access.tenant_id).await?;
    check_chatbot(&mut write, access.reach(), query.chatbot_id).await?;
    let what = json!({ "from": query.from, "to": query.to, "chatbot_id": query.chatbot_id });
    let change = Change {
        action: "usage.export",
        object_kind: "usage",
        object_id: access.tenant_id.to_string(),
        before: None,
        after: Some(what),
    };
    audit::record(
        &mut write,
        access.tenant_id,
        &access.actor,
        &access.origin,
        change,
        app.clock.now(),
    )
    .await?;
    write.commit().await?;
    let pieces = export::stream(app.db.clone(), access.tenant_id, filter, permit)
        .inspect_err(|error| tracing::error!(error = ?error, "an export broke off"));
    let headers = [
        (header::CONTENT_TYPE, "text/csv; charset=utf-8"),
        (header::CONTENT_DISPOSITION, "attachment; filename=\"usage.csv\""),
    ];
    Ok((headers, Body::from_stream(pieces)).into_response())
}

/// How the running month stands against its limits.
#[utoipa::path(
    get,
    path = "/api/usage/budget",
    tag = "usage",
    params(BudgetQuery),
    security(("bearer" = ["usage:read"])),
    responses(
        (status = 200, description = "Limits, what is used and what running turns hold", body = BudgetResponse),
        (status = "4XX", description = "Refused", body = Problem, content_type = "application/problem+json"),
    ),
)]
async fn get_budget(
    access: UsageAccess,
    State(app): State<App>,
    Query(query): Query<BudgetQuery>,
) -> Result<axum::Json<BudgetResponse>, Problem> {
    let now = app.clock.now();
    let tenant_id = access.tenant_id;
    let mut conn = app.db.read(tenant_id).await?;
    let (tenant_limit, chatbot_limit) = match query.chatbot_id {
        None => (
            store::find_tenant_limit(&mut conn, tenant_id)
                .await?
                .ok_or(Error::NotFound("tenant"))?,
            None,
        ),
        Some(chatbot_id) => {
            access.reach().check_chatbot(chatbot_id)?;
            let limits = super::load_limits(&mut conn, tenant_id, chatbot_id).await?;
            (limits.tenant, Some(limits.chatbot))
        }
    };
    let tenant = BudgetState::new(
        tenant_limit,
        super::balance(&mut conn, tenant_id, None, now).await?,
    );
    let chatbot = match chatbot_limit {
        None => None,
        Some(limit) => Some(BudgetState::new(
            limit,
            super::balance(&mut conn, tenant_id, query.chatbot_id, now).await?,
        )),
    };
    Ok(axum::Json(BudgetResponse {
        period: period_of(now),
        resets_on: next_period(now).to_string(),
        tenant,
        chatbot,
        currency: CURRENCY,
    }))
}

/// A filter by chatbot is a look-up like any other: one out of reach is absent.
async fn check_chatbot(conn: &mut Conn, reach: Reach, chatbot_id: Option<ChatbotId>) -> Result<()> {
    let Some(chatbot_id) = chatbot_id else {
        return Ok(());
    };
    reach.check_chatbot(chatbot_id)?;
    chatbots::check_exists(conn, reach.tenant_id, chatbot_id).await
}
