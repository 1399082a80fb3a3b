//! Removes what a generation that was given up left in its index, and puts right what an index holds otherwise than the rows.

use std::sync::Arc;
use std::time::Duration;

use chrono::TimeDelta;
use retrieval::index::Index;
use serde::{Deserialize, Serialize};

use super::fill::{Progress, outcome};
use super::{Generation, store};
use crate::app::App;
use crate::db::Write;
use crate::error::Result;
use crate::id::TenantId;
use crate::jobs::{self, Job, JobContext, Outcome, Priority};
use crate::knowledge::verify;

/// Whoever began to put something into a generation has ended so long after it was given up.
pub(super) const LAST_WRITES: TimeDelta = TimeDelta::hours(24);

/// A removal that takes longer is given up, and begun again.
const LONGEST_REMOVAL: TimeDelta = TimeDelta::minutes(10);

/// Removes a tenant's points from an embedding model's index that no generation of it uses any more.
#[derive(Debug, Serialize, Deserialize)]
pub struct ReclaimGeneration {
    pub space: String,
}

impl Job for ReclaimGeneration {
    const KIND: &'static str = "reclaim_generation";
    const PRIORITY: Priority = Priority::Bulk;
    const TIMEOUT: Duration = Duration::from_secs(10 * 60);

    async fn run(self, app: App, context: JobContext) -> Outcome {
        reclaim(&app, &context, &self.space).await.into()
    }
}

/// A generation that is begun in the space meanwhile is not filled before this is over: see `fill`.
async fn reclaim(app: &App, context: &JobContext, space: &str) -> Result<()> {
    let tenant_id = context.tenant()?;
    let index = find_index(app, space).await?;
    app.disk.check_room_to_remove()?;
    let until = app.clock.now() + LONGEST_REMOVAL;
    let mut write = app.db.write(tenant_id).await?;
    store::hold_live(&mut write, tenant_id).await?;
    if store::is_open(&mut write, tenant_id, space).await? {
        return Ok(());
    }
    store::set_reclaiming(&mut write, tenant_id, space, Some(until)).await?;
    write.commit().await?;
    index.delete_tenant(retrieval::TenantId(tenant_id.0)).await?;
    let mut write = app.db.write(tenant_id).await?;
    store::set_reclaiming(&mut write, tenant_id, space, None).await?;
    write.commit().await
}

/// The index of a space, unless documents are put into another making of it: who has that one does the work.
async fn find_index(app: &App, space: &str) -> Result<Arc<dyn Index>> {
    let space = app.space_for_index(space).await?;
    app.check_noted(&space).await?;
    Ok(space.index.clone())
}

/// Queues that what is left in a space is removed, unless that is queued already.
pub(super) async fn queue_reclaim(
    app: &App,
    write: &mut Write,
    tenant_id: TenantId,
    space: &str,
) -> Result<()> {
    let job = ReclaimGeneration {
        space: space.to_owned(),
    };
    let key = format!("reclaim:{tenant_id}:{space}");
    jobs::enqueue_once(app, write, tenant_id, &job, &key, app.clock.now()).await
}

/// Looks whether anything is left in a space that no generation of the tenant uses: whoever was late may have put it there.
/// It is removed; with `is_final`, nobody can come any more, and this is not asked again.
pub(super) async fn sweep(app: &App, tenant_id: TenantId, space: &str, is_final: bool) -> Result<()> {
    let index = find_index(app, space).await?;
    let left = index.count(retrieval::TenantId(tenant_id.0)).await?;
    if left == 0 && !is_final {
        return Ok(());
    }
    let mut write = app.db.write(tenant_id).await?;
    if left == 0 {
        store::set_reclaimed(&mut write, tenant_id, space, app.clock.now()).await?;
    } else {
        tracing::warn!(tenant.id = %tenant_id, space, points = left, "an index holds points that no generation uses: they are removed");
        queue_reclaim(app, &mut write, tenant_id, space).await?;
    }
    write.commit().await
}

/// Compares a tenant's rows with its indexes and puts right what differs.
#[derive(Debug, Serialize, Deserialize)]
pub struct MendIndex {}

impl Job for MendIndex {
    const KIND: &'static str = "mend_index";
    const PRIORITY: Priority = Priority::Bulk;
    const TIMEOUT: Duration = Duration::from_secs(30 * 60);

    async fn run(self, app: App, context: JobContext) -> Outcome {
        outcome(mend(&app, &context).await.map(|()| Progress::Done))
    }
}

/// Queues that a tenant's indexes are compared and mended, unless that is queued already.
pub(super) async fn queue_mend(app: &App, write: &mut Write, tenant_id: TenantId) -> Result<()> {
    let key = format!("mend:{tenant_id}");
    jobs::enqueue_once(app, write, tenant_id, &MendIndex {}, &key, app.clock.now()).await
}

/// Keeps that the index holds what the rows say.
pub(super) async fn note_whole(app: &App, generation: &Generation) -> Result<()> {
    let mut write = app.db.write(generation.tenant_id).await?;
    store::set_short(&mut write, (generation.tenant_id, generation.id), false).await?;
    write.commit().await
}

async fn mend(app: &App, context: &JobContext) -> Result<()> {
    let tenant_id = context.tenant()?;
    let open = store::list_open(&mut app.db.read(tenant_id).await?, tenant_id).await?;
    let mut ended = Ok(());
    for generation in open.iter().filter(|generation| generation.is_filled) {
        let mended = async {
            let space = app.space(&generation.space).await?;
            space.check_making(generation.making.as_deref())?;
            let findings = verify::compare(app, tenant_id, &space, true).await?;
            note_whole(app, generation).await?;
            Ok(findings)
        };
        let findings = match mended.await {
            Ok(findings) => findings,
            // The others are mended all the same.
            Err(error) => {
                ended = Err(error);
                continue;
            }
        };
        if !findings.agree() {
            tracing::warn!(
                tenant.id = %tenant_id,
                space = generation.space,
                missing = findings.missing,
                different = findings.different,
                stray = findings.stray,
                "the index did not hold what the rows say, and does again"
            );
        }
    }
    ended
}
