//! Upkeep of the whole installation, across tenants.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};

use super::{Job, JobContext, Outcome, Priority, enqueue_upkeep, store};
use crate::app::App;
use crate::db::{Scope, Write};
use crate::error::Result;
use crate::generations::operator::CheckIndex;
use crate::knowledge::embedding_cache::operator::TrimEmbeddings;
use crate::{chat, generations, http, integrations, knowledge, on, usage};

/// A recurring job.
pub(super) struct Schedule {
    pub name: &'static str,
    pub cron: &'static str,
    pub enqueue: for<'a> fn(&'a App, &'a mut Write, DateTime<Utc>) -> BoxFuture<'a, Result<()>>,
}

/// Everything that recurs.
pub(super) const SCHEDULES: &[Schedule] = &[
    Schedule {
        name: "upkeep",
        cron: "*/5 * * * *",
        enqueue: |app, write, now| {
            Box::pin(async move { enqueue_upkeep(app, write, &Upkeep {}, "upkeep", now).await })
        },
    },
    Schedule {
        name: "check_index",
        cron: "23 * * * *",
        enqueue: |app, write, now| {
            Box::pin(async move { enqueue_upkeep(app, write, &CheckIndex {}, "check_index", now).await })
        },
    },
    Schedule {
        name: "trim_embeddings",
        cron: "11,41 * * * *",
        enqueue: |app, write, now| {
            Box::pin(
                async move { enqueue_upkeep(app, write, &TrimEmbeddings {}, "trim_embeddings", now).await },
            )
        },
    },
];

/// Clears away what has ended: jobs, reservations and unfinished answers of dead turns, spent idempotency keys, files
/// that nothing names.
#[derive(Debug, Serialize, Deserialize)]
pub struct Upkeep {}

impl Job for Upkeep {
    const KIND: &'static str = "upkeep";
    const PRIORITY: Priority = Priority::Bulk;
    const TIMEOUT: Duration = Duration::from_secs(300);

    async fn run(self, app: App, _: JobContext) -> Outcome {
        clear(&app).await.into()
    }
}

async fn clear(app: &App) -> Result<()> {
    let now = app.clock.now();
    chat::operator::fail_interrupted(app).await?;
    usage::book_lapsed(app).await?;
    usage::journal::book_abandoned(&app.db, &app.config.data_dir).await?;
    let mut write = app.db.write(Scope::Operator).await?;
    store::delete_finished(
        &mut write,
        now - TimeDelta::days(app.config.jobs.keep_finished_days.into()),
    )
    .await?;
    http::idempotency::forget(&mut write, now).await?;
    for statement in [
        "delete from refresh_token where session_id in (select id from login_session where expires_at < $1)",
        "delete from login_session where expires_at < $1",
    ] {
        on!(write, c => sqlx::query(statement).bind(now).execute(c).await.map(drop))?;
    }
    write.commit().await?;
    integrations::google::operator::forget_stale_attempts(app).await?;
    knowledge::sync::operator::take_up_silent(app).await?;
    knowledge::sources::operator::mend_due_times(app).await?;
    knowledge::sync::operator::forget_old(app).await?;
    generations::operator::take_up(app).await?;
    knowledge::operator::sweep(app).await?;
    app.db.clear_log().await
}
