//! Upkeep of all tenants' conversations: answers whose turn died are told apart from those being written.

use chrono::{DateTime, TimeDelta, Utc};

use crate::app::App;
use crate::db::{Db, Scope};
use crate::error::Result;
use crate::on;

/// What the end of a turn may take after the model's last word, on a slow database.
const END_OF_TURN: TimeDelta = TimeDelta::minutes(1);

/// Marks as failed every answer that has been in writing for longer than any turn may last: its process is gone. Should
/// a turn end after all, what it then saves stands.
pub async fn fail_interrupted(app: &App) -> Result<()> {
    let longest =
        TimeDelta::seconds(i64::try_from(app.config.llm.total_timeout_s).unwrap_or(i64::MAX / 1000));
    let Some(before) = app.clock.now().checked_sub_signed(longest + END_OF_TURN) else {
        return Ok(());
    };
    fail_begun_before(&app.db, before).await
}

/// Like [`fail_interrupted`], at the start of the only process that works on this database: no turn is alive.
pub async fn fail_all_interrupted(app: &App) -> Result<()> {
    match &app.db {
        Db::Sqlite { .. } => fail_begun_before(&app.db, app.clock.now() + END_OF_TURN).await,
        Db::Postgres(_) => fail_interrupted(app).await,
    }
}

async fn fail_begun_before(db: &Db, before: DateTime<Utc>) -> Result<()> {
    let mut write = db.write(Scope::Operator).await?;
    let failed = on!(write, c => sqlx::query(
        "update message
            set state = 'failed', error_code = 'interrupted'
          where state = 'writing'
            and created_at < $1",
    ).bind(before).execute(c).await.map(|done| done.rows_affected()))?;
    write.commit().await?;
    if failed > 0 {
        tracing::warn!(answers = failed, "answers were cut off when their process ended");
    }
    Ok(())
}
