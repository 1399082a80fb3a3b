//! Long deletions, done in many short transactions.

use super::{JobContext, Outcome};
use crate::error::Result;
use crate::id::TenantId;

/// Slices that a job does before others have its place.
const SLICES_AT_ONCE: usize = 20;

/// Does slices of a tenant's long deletion until one says that there is no more, or until others have the job's place.
pub async fn by_slices<S, F>(context: &JobContext, slice: S) -> Outcome
where
    S: Fn(TenantId) -> F,
    F: Future<Output = Result<bool>>,
{
    match some_slices(context, slice).await {
        Ok(true) => Outcome::TurnOver,
        ended => Outcome::of_slice(ended.map(drop)),
    }
}

/// Whether there may be more.
async fn some_slices<S, F>(context: &JobContext, slice: S) -> Result<bool>
where
    S: Fn(TenantId) -> F,
    F: Future<Output = Result<bool>>,
{
    let tenant_id = context.tenant()?;
    for _ in 0..SLICES_AT_ONCE {
        if !slice(tenant_id).await? {
            return Ok(false);
        }
    }
    Ok(true)
}
