//! Test sets that were deleted: hidden at once, then taken apart by a job, a slice of results in each transaction.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::store;
use crate::app::App;
use crate::error::Result;
use crate::id::{ChatbotId, EvalSetId, TenantId};
use crate::jobs::{Job, JobContext, Outcome, Priority, by_slices};

/// Results that one transaction deletes, at most.
const RESULTS_AT_ONCE: i64 = 1_000;

/// Takes a hidden test set apart.
#[derive(Debug, Serialize, Deserialize)]
pub struct DeleteEval {
    pub set_id: EvalSetId,
}

impl Job for DeleteEval {
    const KIND: &'static str = "delete_eval";
    const PRIORITY: Priority = Priority::Normal;
    const TIMEOUT: Duration = Duration::from_secs(10 * 60);

    async fn run(self, app: App, context: JobContext) -> Outcome {
        by_slices(&context, |tenant_id| delete_slice(&app, tenant_id, self.set_id)).await
    }
}

/// Deletes some results of a hidden set, or at last the set; false when it is gone.
async fn delete_slice(app: &App, tenant_id: TenantId, id: EvalSetId) -> Result<bool> {
    let mut write = app.db.write(tenant_id).await?;
    let deleted = store::delete_results_of_set(&mut write, (tenant_id, id), RESULTS_AT_ONCE).await?;
    if deleted == 0 {
        store::delete_hidden_set(&mut write, tenant_id, id).await?;
    }
    write.commit().await?;
    Ok(deleted > 0)
}

/// Deletes some results of a chatbot that is being deleted; false when none are left.
pub async fn delete_some(app: &App, tenant_id: TenantId, chatbot_id: ChatbotId) -> Result<bool> {
    let mut write = app.db.write(tenant_id).await?;
    let deleted =
        store::delete_results_of_chatbot(&mut write, (tenant_id, chatbot_id), RESULTS_AT_ONCE).await?;
    write.commit().await?;
    Ok(deleted > 0)
}
