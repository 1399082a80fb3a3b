//! Whether there is room for one more shard of a tenant's own: on the disk, and among the others.

use std::path::Path;

use super::collection::Collection;
use super::shard::{ShardState, unavailable};
use crate::TenantId;
use crate::index::IndexError;

/// What a chunk takes beside its vector: its words, its fields and its place in the graph.
const BYTES_BESIDE: u64 = 4 << 10;

/// What a value of a vector takes: at half precision, quantised, and again in the log while it is copied.
const BYTES_PER_VALUE: u64 = 4;

const MIB: u64 = 1 << 20;

/// Why the tenant, who has so many chunks, cannot have a shard of its own at present; `None`: it can.
pub(super) fn lacking(
    collection: &Collection,
    shared: &ShardState,
    tenant_id: TenantId,
    chunks: u64,
) -> Result<Option<String>, IndexError> {
    let most = shared.tuning().most_own_shards;
    let others = collection.stages().into_iter().filter(|(id, _)| *id != tenant_id);
    if others.count() >= most {
        return Ok(Some(format!(
            "{most} tenants have an index shard of their own already"
        )));
    }
    let needed = needed(collection.dimension(), chunks).saturating_add(shared.tuning().left_free_bytes);
    let free = free_bytes(shared.dir())
        .map_err(|error| unavailable("cannot measure the room on the disk", error))?;
    Ok((free < needed).then(|| {
        let (needed, free) = (needed.div_ceil(MIB), free / MIB);
        format!("an index shard of its own needs {needed} MB of free disk, and {free} MB are")
    }))
}

fn needed(dimension: Option<usize>, chunks: u64) -> u64 {
    let per_chunk = dimension.unwrap_or_default() as u64 * BYTES_PER_VALUE + BYTES_BESIDE;
    chunks.saturating_mul(per_chunk)
}

pub(super) fn free_bytes(dir: &Path) -> std::io::Result<u64> {
    let room = rustix::fs::statvfs(dir)?;
    Ok(room.f_bavail.saturating_mul(room.f_frsize))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_million_chunks_of_384_values_need_less_than_six_gigabytes() {
        assert_eq!(needed(Some(384), 1_000_000) / MIB, 5_371);
        assert_eq!(needed(None, u64::MAX), u64::MAX);
    }
}
