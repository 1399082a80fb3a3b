//! Holding a job: the lease, and its heartbeat.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use uuid::Uuid;

use super::store;
use crate::app::App;
use crate::db::Scope;
use crate::id::JobId;

/// A worker's hold on one job.
#[derive(Clone, Copy, Debug)]
pub struct Lease {
    pub(super) job_id: JobId,
    pub(super) token: Uuid,
}

impl Lease {
    /// Renews the lease at a third of its length, until it is lost. Returns then: whoever else holds the job now must
    /// not be disturbed.
    pub(super) async fn keep(self, app: &App) {
        let length = length(app);
        let mut deadline = app.clock.now() + length;
        let pause = length.to_std().unwrap_or(Duration::from_secs(60)) / 3;
        loop {
            tokio::time::sleep(pause).await;
            match self.renew(app).await {
                Ok(true) => deadline = app.clock.now() + length,
                Ok(false) => return,
                Err(error) => {
                    tracing::warn!(error = ?error, job.id = %self.job_id, "cannot renew the lease");
                    if app.clock.now() >= deadline {
                        return;
                    }
                }
            }
        }
    }

    async fn renew(self, app: &App) -> crate::error::Result<bool> {
        let mut write = app.db.write(Scope::Operator).await?;
        let renewed = store::renew(&mut write, self.job_id, self.token, until(app)).await?;
        write.commit().await?;
        Ok(renewed)
    }
}

/// When a lease taken now runs out.
pub(super) fn until(app: &App) -> DateTime<Utc> {
    app.clock.now() + length(app)
}

fn length(app: &App) -> TimeDelta {
    TimeDelta::seconds(i64::try_from(app.config.jobs.lease_s).unwrap_or(60))
}
