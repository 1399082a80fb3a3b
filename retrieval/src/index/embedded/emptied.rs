//! Tenants who have nothing left: their own shards go, with their threads and folders, and they are back in a shared one.

use std::sync::Arc;
use std::thread;

use super::Inner;
use super::placement::Stage;
use super::promotion::Outcome;
use super::shard::BUILD_POLL;
use crate::TenantId;
use crate::index::IndexError;

/// Removes the tenant's own shard if nothing is in it.
///
/// An empty own shard whose folder is there counts for nothing at the next start, so that what is done in the shared one
/// from the moment on that this one is out of service is safe before the disk says so.
pub(super) fn retire(inner: &Arc<Inner>, tenant_id: TenantId) -> Result<Outcome, IndexError> {
    let collection = inner.collection()?;
    if collection.stage(tenant_id) != Some(Stage::Settled) || !take_out_of_service(inner, tenant_id)? {
        return Ok(Outcome::Done);
    }
    collection.set_stage(tenant_id, Some(Stage::Moving))?;
    collection.remove_own(tenant_id)?;
    collection.set_stage(tenant_id, None)?;
    tracing::info!(tenant.id = %tenant_id, "tenant's own index shard is empty and removed");
    Ok(Outcome::Done)
}

/// Has the shared shard asked and changed again, unless there is something in the tenant's own; whether that is so now.
fn take_out_of_service(inner: &Arc<Inner>, tenant_id: TenantId) -> Result<bool, IndexError> {
    let Some(own) = inner.own_shard(tenant_id) else {
        return Ok(true);
    };
    let shared = inner.shared_shard_for_writing(tenant_id)?;
    let within = inner.clone();
    let is_out = own.on_writer(move |writer| {
        // Nobody writes to it until this is done.
        if writer.state().read(|sides| sides.counts(tenant_id))? != (0, 0) {
            return Ok(false);
        }
        shared.on_writer(move |writer| {
            writer.forwards().end(tenant_id);
            writer.forget_announced(tenant_id);
            Ok(())
        })?;
        within.take_out_of_service(tenant_id);
        // What is on its way here.
        writer.forwards().send_instead(tenant_id, shared);
        Ok(true)
    })?;
    if is_out {
        let state = own.state().clone();
        own.retire();
        while state.is_building() {
            inner.go_on()?;
            thread::sleep(BUILD_POLL);
        }
        state.close_sides()?;
    }
    Ok(is_out)
}
