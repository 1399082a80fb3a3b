//! What owners tell a source to do: read again, wait, go on, stop.

use serde_json::json;

use super::{Source, SourceState, find, hold, record};
use crate::app::App;
use crate::db::Write;
use crate::error::{Error, Result};
use crate::http::access::{Actor, Reach};
use crate::id::SourceId;
use crate::knowledge::sync::{self, SyncRun, Wanted};
use crate::tenancy::audit::Origin;

/// Starts a run over a source.
pub(super) async fn start_run(
    app: &App,
    reach: Reach,
    id: SourceId,
    wanted: Wanted,
    actor: &Actor,
    origin: &Origin,
) -> Result<SyncRun> {
    let mut write = app.db.write(reach.tenant_id).await?;
    let source = hold_synced(&mut write, reach, id).await?;
    let run = begin_run(app, &mut write, &source, wanted, actor, origin).await?;
    write.commit().await?;
    app.wake_workers();
    Ok(run)
}

/// Starts a run and notes it, in the caller's transaction.
pub(super) async fn begin_run(
    app: &App,
    write: &mut Write,
    source: &Source,
    wanted: Wanted,
    actor: &Actor,
    origin: &Origin,
) -> Result<SyncRun> {
    let run = sync::request(app, write, source.tenant_id, source.id, wanted).await?;
    let after =
        json!({ "run_id": run.id, "full": wanted.is_full, "accept_removals": wanted.accepts_removals });
    record(
        app,
        write,
        source,
        "source.sync",
        (None, Some(after)),
        actor,
        origin,
    )
    .await?;
    Ok(run)
}

/// What can be asked of a source while a run is under way, or to come.
#[derive(Clone, Copy)]
pub(super) enum Order {
    Pause,
    Resume,
    Cancel,
}

/// Pauses, resumes or cancels; an order that changes nothing is carried out already.
pub(super) async fn order(
    app: &App,
    reach: Reach,
    id: SourceId,
    order: Order,
    actor: &Actor,
    origin: &Origin,
) -> Result<Source> {
    let tenant_id = reach.tenant_id;
    let mut write = app.db.write(tenant_id).await?;
    let source = hold_synced(&mut write, reach, id).await?;
    let is_paused = source.state == SourceState::Paused;
    let action = match order {
        Order::Pause if is_paused => return Ok(source),
        Order::Resume if !is_paused => return Ok(source),
        Order::Pause => {
            sync::pause(app, &mut write, tenant_id, id).await?;
            "source.pause"
        }
        Order::Resume => {
            sync::resume(app, &mut write, tenant_id, id).await?;
            "source.resume"
        }
        Order::Cancel => {
            if sync::cancel(app, &mut write, tenant_id, id).await?.is_none() {
                return Ok(source);
            }
            "source.cancel"
        }
    };
    let changed = find(&mut write, reach, id).await?;
    let states = (
        Some(json!({ "state": source.state.name() })),
        Some(json!({ "state": changed.state.name() })),
    );
    record(app, &mut write, &source, action, states, actor, origin).await?;
    write.commit().await?;
    app.wake_workers();
    Ok(changed)
}

async fn hold_synced(write: &mut Write, reach: Reach, id: SourceId) -> Result<Source> {
    let source = hold(write, reach, id).await?;
    if source.kind().is_synced() {
        return Ok(source);
    }
    Err(Error::conflict(
        "source_not_synced",
        format!(
            "a source of kind {} has nothing to read: its documents are put there",
            source.kind().name()
        ),
    ))
}
