//! Questions about the chatbots of all tenants.

use crate::app::App;
use crate::db::Scope;
use crate::error::Result;
use crate::on;

/// Whether any chatbot lists `origin`. A browser's preflight names no chatbot, so this is all that can be told then;
/// the request itself is judged by its own chatbot's list.
pub async fn any_allows_origin(app: &App, origin: &str) -> Result<bool> {
    let mut conn = app.db.read(Scope::Operator).await?;
    let quoted = serde_json::to_string(origin)?;
    let text = if conn.is_postgres() {
        "select count(*) from chatbot where allowed_origins @> cast($1 as jsonb)"
    } else {
        "select count(*) from chatbot where exists (select 1 from json_each(allowed_origins) where json_quote(value) = $1)"
    };
    let count: i64 = on!(conn, c => sqlx::query_scalar(text).bind(quoted).fetch_one(c).await)?;
    Ok(count > 0)
}
