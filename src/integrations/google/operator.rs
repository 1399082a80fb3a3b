//! Upkeep of all tenants' connections: consents that never came back are forgotten.

use crate::app::App;
use crate::db::Scope;
use crate::error::Result;
use crate::on;

/// Deletes attempts whose time is over.
pub async fn forget_stale_attempts(app: &App) -> Result<()> {
    let mut write = app.db.write(Scope::Operator).await?;
    on!(write, c => sqlx::query("delete from connection_attempt where expires_at < $1")
        .bind(app.clock.now()).execute(c).await.map(drop))?;
    write.commit().await
}
