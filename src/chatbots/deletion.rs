//! Chatbots that were deleted, taken apart by a job: their sources, then their conversations and test results, the row
//! itself last.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::store;
use crate::app::App;
use crate::error::Result;
use crate::id::{ChatbotId, TenantId};
use crate::jobs::{Job, JobContext, Outcome, Priority, by_slices};
use crate::{chat, evals, knowledge};

/// Takes a hidden chatbot apart.
#[derive(Debug, Serialize, Deserialize)]
pub struct DeleteChatbot {
    pub chatbot_id: ChatbotId,
}

impl Job for DeleteChatbot {
    const KIND: &'static str = "delete_chatbot";
    const PRIORITY: Priority = Priority::Normal;
    const TIMEOUT: Duration = Duration::from_secs(10 * 60);

    async fn run(self, app: App, context: JobContext) -> Outcome {
        by_slices(&context, |tenant_id| {
            delete_some(&app, tenant_id, self.chatbot_id)
        })
        .await
    }
}

/// Deletes one slice of a hidden chatbot; false when it is gone.
pub async fn delete_some(app: &App, tenant_id: TenantId, id: ChatbotId) -> Result<bool> {
    if let Some(source_id) = knowledge::deletion::find_remaining(app, tenant_id, id).await? {
        return knowledge::deletion::delete_some(app, tenant_id, source_id).await;
    }
    if chat::delete_some(app, tenant_id, id).await? || evals::delete_some(app, tenant_id, id).await? {
        return Ok(true);
    }
    let mut write = app.db.write(tenant_id).await?;
    store::delete_hidden(&mut write, tenant_id, id).await?;
    write.commit().await?;
    Ok(false)
}
