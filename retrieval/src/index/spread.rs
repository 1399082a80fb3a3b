//! Where the chunks of a tenant lie among those of all: two tenants that store a chunk under one id have two points.

use crate::TenantId;

/// The tenant's id with its bits spread evenly over all 128, so that ids which resemble each other, as those made in the
/// same millisecond do, still keep their chunks apart. Stored by every backend that uses it, so it may never change.
pub(super) fn spread(tenant_id: TenantId) -> u128 {
    let (mut high, mut low) = tenant_id.0.as_u64_pair();
    // A Feistel network: whatever the round function, no two tenants come out the same.
    for round in 1..=4 {
        (high, low) = (low, high ^ scramble(low.wrapping_add(round)));
    }
    u128::from(high) << 64 | u128::from(low)
}

/// The finaliser of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014).
fn scramble(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}
