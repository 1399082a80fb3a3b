//! Questions about the chatbots of all tenants.

use crate::app::App;
use crate::db::{Db, Scope};
use crate::error::Result;
use crate::id::{ChatbotId, TenantId};
use crate::on;

/// Whether any chatbot lists `origin`. A browser's preflight names no chatbot, so this is all that can be told then;
/// the request itself is judged by its own chatbot's list.
pub async fn any_allows_origin(app: &App, origin: &str) -> Result<bool> {
    let mut conn = app.db.read(Scope::Operator).await?;
    let count: i64 = on!(conn, c => sqlx::query_scalar(
        "select count(*) from (select 1 from chatbot_origin where origin = $1 limit 1) found",
    ).bind(origin).fetch_one(c).await)?;
    Ok(count > 0)
}

/// Whose chatbot this is, if there is such a one.
pub async fn find_tenant(db: &Db, id: ChatbotId) -> Result<Option<TenantId>> {
    let mut conn = db.read(Scope::Operator).await?;
    Ok(
        on!(conn, c => sqlx::query_scalar("select tenant_id from chatbot where id = $1 and deleted_at is null").bind(id).fetch_optional(c).await)?,
    )
}
