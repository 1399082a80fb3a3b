//! Gives back the room of cuts that nobody uses any more: rows a slice in each transaction, then what the index holds of them.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::store;
use crate::app::App;
use crate::error::Result;
use crate::generations;
use crate::id::{ChunkId, CutId, SourceId, TenantId};
use crate::jobs::{Job, JobContext, Outcome, Priority, by_slices};
use crate::knowledge::index_changes;
use crate::on;

/// Rows that one transaction deletes.
const ROWS_AT_ONCE: i64 = 1_000;

/// Removes the chunks of a cut that was given up.
#[derive(Debug, Serialize, Deserialize)]
pub struct ReclaimCut {
    pub source_id: SourceId,
    pub cut_id: CutId,
}

impl Job for ReclaimCut {
    const KIND: &'static str = "reclaim_cut";
    const PRIORITY: Priority = Priority::Bulk;
    const TIMEOUT: Duration = Duration::from_secs(10 * 60);

    async fn run(self, app: App, context: JobContext) -> Outcome {
        by_slices(&context, |tenant_id| self.reclaim_some(&app, tenant_id)).await
    }
}

impl ReclaimCut {
    /// Deletes a slice of rows, or at last the points; whether there may be more.
    async fn reclaim_some(&self, app: &App, tenant_id: TenantId) -> Result<bool> {
        if self.delete_some(app, tenant_id).await? {
            return Ok(true);
        }
        self.remove_points(app, tenant_id).await?;
        Ok(false)
    }

    /// Whether there may be more.
    async fn delete_some(&self, app: &App, tenant_id: TenantId) -> Result<bool> {
        let mut write = app.db.write(tenant_id).await?;
        if store::share(&mut write, tenant_id, self.cut_id).await? {
            return Ok(false);
        }
        let statement = match self.cut_id.in_rows(self.source_id) {
            Some(_) => {
                "delete from chunk
                  where coalesce(tenant_id, tenant_id) = $1
                    and id in (select id from chunk where source_id = $2 and cut_id = $3 limit $4)
                 returning id"
            }
            None => {
                "delete from chunk
                  where coalesce(tenant_id, tenant_id) = $1
                    and id in (select id from chunk where source_id = $2 and cut_id is null and source_id = $3 limit $4)
                 returning id"
            }
        };
        // Who changed a document while the cut was given up may have noted that it lacks that.
        store::delete_all_gaps(&mut write, tenant_id, self.cut_id).await?;
        let deleted: Vec<ChunkId> = on!(write, c => sqlx::query_scalar(statement)
            .bind(tenant_id).bind(self.source_id).bind(self.cut_id).bind(ROWS_AT_ONCE).fetch_all(c).await)?;
        if deleted.is_empty() {
            let forget = write
                .put("delete from document_version where tenant_id = $1 and cut_id = $2 and state = 'shown'");
            forget.bind(tenant_id).bind(self.cut_id).run().await?;
        }
        index_changes::remove_chunks(app, &mut write, tenant_id, &deleted).await?;
        write.commit().await?;
        Ok(!deleted.is_empty())
    }

    async fn remove_points(&self, app: &App, tenant_id: TenantId) -> Result<()> {
        let is_open = store::share(&mut app.db.write(tenant_id).await?, tenant_id, self.cut_id).await?;
        if is_open {
            return Ok(());
        }
        app.disk.check_room_to_remove()?;
        for space in generations::list_spaces(app, tenant_id).await? {
            space
                .index
                .delete_sources(retrieval::TenantId(tenant_id.0), vec![self.cut_id.in_index()])
                .await?;
        }
        Ok(())
    }
}
