//! Cuts of all tenants: what upkeep takes up, and what was kept long enough.

use std::collections::HashSet;

use chrono::TimeDelta;

use super::super::UNUSED_KEPT;
use super::{By, Cut, LONGEST_USE, fill, retire, state, store};
use crate::app::App;
use crate::db::Scope;
use crate::error::Result;
use crate::id::CutId;

/// What is told of a cut that was given up is told so long.
const HISTORY_KEPT: TimeDelta = TimeDelta::days(90);

/// Queues what is to be filled and has no job, gives up what was kept long enough, and forgets what was given up long ago.
pub async fn take_up(app: &App) -> Result<()> {
    let mut conn = app.db.read(Scope::Operator).await?;
    let open = store::list_all_open(&mut conn).await?;
    let with_gaps: HashSet<CutId> = store::list_all_with_gaps(&mut conn).await?.into_iter().collect();
    drop(conn);
    let now = app.clock.now();
    let kept = TimeDelta::hours(app.config.index.keep_previous_hours.into());
    let kept_until = now - kept.max(LONGEST_USE);
    let is_old = |cut: &Cut| {
        let left_long_ago = cut.left_at.is_some_and(|left_at| left_at <= kept_until);
        let ready_long_ago = cut.ready_at.is_some_and(|ready_at| ready_at <= now - UNUSED_KEPT);
        let is_unused = cut.state == state::READY && cut.is_tried() && ready_long_ago;
        !cut.activates && (cut.is_spare() && left_long_ago || is_unused)
    };
    for cut in &open {
        let is_unfinished = !cut.is_filled || with_gaps.contains(&cut.id) || cut.state == state::BUILDING;
        if is_old(cut) {
            let mut write = app.db.write(cut.tenant_id).await?;
            let present = store::hold_open(&mut write, cut.tenant_id, cut.source_id).await?;
            let present = present.iter().find(|present| present.id == cut.id);
            if let Some(present) = present.filter(|present| is_old(present)) {
                retire(app, &mut write, present, By::Itself).await?;
                write.commit().await?;
            }
        } else if is_unfinished {
            let mut write = app.db.write(cut.tenant_id).await?;
            fill::queue(app, &mut write, cut.tenant_id, cut.id).await?;
            write.commit().await?;
        }
    }
    let mut write = app.db.write(Scope::Operator).await?;
    store::delete_retired(&mut write, now - HISTORY_KEPT).await?;
    write.commit().await
}
