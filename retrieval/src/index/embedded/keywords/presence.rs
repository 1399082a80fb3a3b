//! Which chunks a segment may have: a Bloom filter (Bloom, CACM 1970), so that storing a new chunk asks no file whether
//! it replaces an old one.

use crate::{ChunkId, TenantId};

/// With this many bits per chunk and [`PROBES`] probes, one question of a hundred is answered yes in vain.
const BITS_PER_CHUNK: usize = 10;
const PROBES: u64 = 6;

pub(super) struct Presence {
    words: Vec<u64>,
}

impl Presence {
    pub(super) fn for_chunks(chunks: usize) -> Self {
        Self {
            words: vec![0; (chunks * BITS_PER_CHUNK).div_ceil(64).max(1)],
        }
    }

    pub(super) fn add(&mut self, tenant_id: TenantId, chunk_id: ChunkId) {
        let bits = self.bits(tenant_id, chunk_id);
        for bit in bits {
            self.words[bit / 64] |= 1 << (bit % 64);
        }
    }

    /// False only when the chunk was never added.
    pub(super) fn may_have(&self, tenant_id: TenantId, chunk_id: ChunkId) -> bool {
        self.bits(tenant_id, chunk_id)
            .into_iter()
            .all(|bit| self.words[bit / 64] >> (bit % 64) & 1 == 1)
    }

    /// Two hashes make all probes (Kirsch and Mitzenmacher, ESA 2006).
    fn bits(&self, tenant_id: TenantId, chunk_id: ChunkId) -> [usize; PROBES as usize] {
        let (tenant_high, tenant_low) = tenant_id.0.as_u64_pair();
        let (chunk_high, chunk_low) = chunk_id.0.as_u64_pair();
        let parts = [tenant_high, tenant_low, chunk_high, chunk_low];
        let first = parts.into_iter().fold(0, |hash, part| scramble(hash ^ part));
        let second = scramble(first) | 1;
        let bits = self.words.len() as u128 * 64;
        std::array::from_fn(|probe| {
            let hash = first.wrapping_add(second.wrapping_mul(probe as u64));
            ((u128::from(hash) * bits) >> 64) as usize
        })
    }
}

/// The finaliser of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014).
fn scramble(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn what_was_added_is_there_and_little_else() {
        let tenant_id = TenantId(Uuid::from_u128(1));
        let chunk = |n: u128| ChunkId(Uuid::from_u128(n));
        let mut presence = Presence::for_chunks(10_000);
        (0..10_000).for_each(|n| presence.add(tenant_id, chunk(n)));

        assert!((0..10_000).all(|n| presence.may_have(tenant_id, chunk(n))));
        let in_vain = (10_000..20_000)
            .filter(|n| presence.may_have(tenant_id, chunk(*n)))
            .count();
        assert!(in_vain < 300, "{in_vain} of 10,000");
        let of_another = (0..10_000)
            .filter(|n| presence.may_have(TenantId(Uuid::from_u128(2)), chunk(*n)))
            .count();
        assert!(of_another < 300, "{of_another} of 10,000");
    }
}
