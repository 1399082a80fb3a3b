//! Cuts of all tenants: what upkeep takes up, and what was kept long enough.

use std::collections::HashSet;

use chrono::TimeDelta;

use super::{Cut, LONGEST_USE, fill, retire, state, store};
use crate::app::App;
use crate::db::Scope;
use crate::error::Result;
use crate::id::CutId;

/// Queues what is to be filled and has no job, and gives up what was kept long enough.
pub async fn take_up(app: &App) -> Result<()> {
    let mut conn = app.db.read(Scope::Operator).await?;
    let open = store::list_all_open(&mut conn).await?;
    let with_gaps: HashSet<CutId> = store::list_all_with_gaps(&mut conn).await?.into_iter().collect();
    drop(conn);
    let now = app.clock.now();
    let kept = TimeDelta::hours(app.config.index.keep_previous_hours.into());
    let kept_until = now - kept.max(LONGEST_USE);
    for cut in &open {
        let is_old = cut.left_at.is_some_and(|left_at| left_at <= kept_until);
        let is_unfinished = !cut.is_filled || with_gaps.contains(&cut.id) || cut.state == state::BUILDING;
        if cut.is_spare() && is_old && !cut.activates {
            let mut write = app.db.write(cut.tenant_id).await?;
            let present = store::hold_open(&mut write, cut.tenant_id, cut.source_id).await?;
            let kept_as = |cut: &Cut| (cut.id, cut.state.clone(), cut.left_at, cut.activates);
            if present.iter().any(|present| kept_as(present) == kept_as(cut)) {
                retire(app, &mut write, cut, now).await?;
                write.commit().await?;
            }
        } else if is_unfinished {
            let mut write = app.db.write(cut.tenant_id).await?;
            fill::queue(app, &mut write, cut.tenant_id, cut.id).await?;
            write.commit().await?;
        }
    }
    Ok(())
}
