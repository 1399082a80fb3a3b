//! Where else a writer's operations go: those of tenants who move to another shard, or have moved.

use std::collections::HashMap;
use std::sync::Arc;

use super::operation::Operation;
use super::shard::Shard;
use super::writer::Reply;
use crate::TenantId;

/// Points that are kept for a shard which is being made: some 50 MB. Who writes more meanwhile moves another time.
const MOST_KEPT: usize = 20_000;

enum Forward {
    /// Done here, and kept for the shard that is being made.
    Later { kept: Vec<Operation>, points: usize },
    /// Done here, and then there.
    Also(Arc<Shard>),
    /// Done there. Only what was on its way here when the tenant moved comes by here.
    Instead(Arc<Shard>),
}

/// Of all tenants of a shard.
#[derive(Default)]
pub(super) struct Forwards {
    of_tenant: HashMap<TenantId, Forward>,
}

impl Forwards {
    /// Whether the tenant's operations are done elsewhere, and here no more.
    pub(super) fn are_instead(&self, tenant_id: TenantId) -> bool {
        matches!(self.of_tenant.get(&tenant_id), Some(Forward::Instead(_)))
    }

    /// From now on the tenant's operations are kept, too.
    pub(super) fn keep(&mut self, tenant_id: TenantId) {
        let later = Forward::Later {
            kept: Vec::new(),
            points: 0,
        };
        self.of_tenant.insert(tenant_id, later);
    }

    /// Hands what was kept to `own`, and from now on the tenant's operations, too. False: too much came meanwhile.
    pub(super) fn hand_over(&mut self, tenant_id: TenantId, own: Arc<Shard>) -> bool {
        let Some(Forward::Later { kept, .. }) = self.of_tenant.remove(&tenant_id) else {
            return false;
        };
        // Whoever asked for them has been answered.
        kept.into_iter().for_each(|operation| drop(own.submit(operation)));
        self.of_tenant.insert(tenant_id, Forward::Also(own));
        true
    }

    /// From now on the tenant's operations are done there instead.
    pub(super) fn send_instead(&mut self, tenant_id: TenantId, own: Arc<Shard>) {
        self.of_tenant.insert(tenant_id, Forward::Instead(own));
    }

    /// Takes an operation to where else it is to be done; who asked for it hears from there, or that it was done here.
    pub(super) fn pass_on(&mut self, operation: Operation, reply: Reply) {
        let tenant_id = operation.tenant_id;
        match self.of_tenant.get_mut(&tenant_id) {
            Some(Forward::Also(own) | Forward::Instead(own)) => return own.submit_for(operation, reply),
            Some(Forward::Later { kept, points }) => {
                *points += operation.points();
                kept.push(operation);
                if *points > MOST_KEPT {
                    self.of_tenant.remove(&tenant_id);
                }
            }
            None => {}
        }
        // The caller may have gone; what was asked is done all the same.
        drop(reply.send(Ok(())));
    }

    /// Until it is put back the tenant's operations are done here alone.
    pub(super) fn take(&mut self, tenant_id: TenantId) -> Taken {
        Taken(
            self.of_tenant
                .remove(&tenant_id)
                .map(|forward| (tenant_id, forward)),
        )
    }

    /// Puts back what was taken.
    pub(super) fn put_back(&mut self, taken: Taken) {
        self.of_tenant.extend(taken.0);
    }

    /// From now on the tenant's operations are done here alone. A shard that was being filled is closed.
    pub(super) fn end(&mut self, tenant_id: TenantId) {
        if let Some(Forward::Also(own)) = self.of_tenant.remove(&tenant_id) {
            own.close();
        }
    }

    /// Ends all of them.
    pub(super) fn end_all(&mut self) {
        let tenants: Vec<TenantId> = self.of_tenant.keys().copied().collect();
        tenants.into_iter().for_each(|tenant_id| self.end(tenant_id));
    }
}

/// Where a tenant's operations went.
pub(super) struct Taken(Option<(TenantId, Forward)>);
