//! Telling the owner that a month's limit was reached: one line in the audit log per chatbot, limit and month.

use serde_json::json;

use super::period_of;
use crate::app::App;
use crate::error::{Error, Result};
use crate::id::{ChatbotId, TenantId};
use crate::on;
use crate::tenancy::audit::{self, Change, Origin};

/// The action under which the line stands in the audit log.
const ACTION: &str = "budget.reached";

/// Passes `error` on; when it is a limit's refusal, the owner is told, once.
pub async fn tell_owner_of_refusal(
    app: &App,
    tenant_id: TenantId,
    chatbot_id: ChatbotId,
    error: Error,
) -> Error {
    if let Error::BudgetExceeded { code, message } = &error
        && let Err(failure) = tell(app, tenant_id, chatbot_id, code, message).await
    {
        // The refusal stands either way.
        tracing::warn!(error = ?failure, "cannot note that a limit was reached");
    }
    error
}

async fn tell(
    app: &App,
    tenant_id: TenantId,
    chatbot_id: ChatbotId,
    code: &str,
    message: &str,
) -> Result<()> {
    let now = app.clock.now();
    let object_id = format!("{chatbot_id} {code} {}", period_of(now));
    // Refusals come in crowds; only the first one of a month has something to write.
    let mut conn = app.db.read(tenant_id).await?;
    if is_told(&mut conn, tenant_id, &object_id).await? {
        return Ok(());
    }
    drop(conn);
    let mut write = app.db.write(tenant_id).await?;
    if write.is_postgres() {
        // Two refusals at once: the second one waits, and then finds the first one's line.
        on!(write, c => sqlx::query("select id from tenant where id = $1 for update").bind(tenant_id).execute(c).await.map(drop))?;
    }
    if is_told(&mut write, tenant_id, &object_id).await? {
        return Ok(());
    }
    let change = Change {
        action: ACTION,
        object_kind: "budget",
        object_id,
        before: None,
        after: Some(json!({ "chatbot_id": chatbot_id, "code": code, "message": message })),
    };
    let actor = ("system", "budgets");
    audit::record_as(&mut write, tenant_id, actor, &Origin::default(), change, now).await?;
    write.commit().await?;
    tracing::info!(tenant.id = %tenant_id, chatbot.id = %chatbot_id, code, "a monthly limit was reached");
    Ok(())
}

async fn is_told(conn: &mut crate::db::Conn, tenant_id: TenantId, object_id: &str) -> Result<bool> {
    let count: i64 = on!(conn, c => sqlx::query_scalar(
        "select count(*) from audit_event where tenant_id = $1 and action = $2 and object_id = $3",
    ).bind(tenant_id).bind(ACTION).bind(object_id).fetch_one(c).await)?;
    Ok(count > 0)
}
