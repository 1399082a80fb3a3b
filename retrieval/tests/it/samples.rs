//! Points, vectors and ids for tests, the same ones every time.

use retrieval::fuse::{Hit, fuse};
use retrieval::index::{Facets, Filter, Index, Point, SearchQuery};
use retrieval::{ChunkId, DocumentId, SourceId, TenantId};
use uuid::Uuid;

pub(crate) const DIMENSION: usize = 16;

pub(crate) fn tenant(n: u128) -> TenantId {
    TenantId(Uuid::from_u128(0x7e0a_0000_0000 + n))
}

pub(crate) fn source(n: u128) -> SourceId {
    SourceId(Uuid::from_u128(0x50_0000_0000 + n))
}

pub(crate) fn document(n: u128) -> DocumentId {
    DocumentId(Uuid::from_u128(0xd0_0000_0000 + n))
}

pub(crate) fn chunk(n: u128) -> ChunkId {
    ChunkId(Uuid::from_u128(0xc0_0000_0000 + n))
}

/// The document of a chunk of [`point`]'s.
pub(crate) fn document_of(chunk_id: ChunkId) -> DocumentId {
    document((chunk_id.0.as_u128() - chunk(0).0.as_u128()) / 10)
}

/// Unit vectors that point anywhere, by a small linear congruential generator.
pub(crate) fn vector(seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut values: Vec<f32> = (0..DIMENSION)
        .map(|_| {
            state = state
                .wrapping_mul(0x5851_f42d_4c95_7f2d)
                .wrapping_add(0x1405_7b7e_f767_814f);
            (state >> 40) as f32 / (1_u64 << 24) as f32 - 0.5
        })
        .collect();
    let norm = values.iter().map(|value| value * value).sum::<f32>().sqrt();
    values.iter_mut().for_each(|value| *value /= norm);
    values
}

/// Chunk `n` of document `n / 10` of source `n / 100`.
pub(crate) fn point(n: u64, text: &str) -> Point {
    Point {
        chunk_id: chunk(n.into()),
        document_id: document((n / 10).into()),
        source_id: source((n / 100).into()),
        text: text.to_owned(),
        vector: Some(vector(n)),
        facets: Facets::default(),
    }
}

pub(crate) fn all_sources() -> Filter {
    Filter {
        sources: (0..100).map(source).collect(),
        ..Filter::default()
    }
}

pub(crate) fn by_words(text: &str) -> SearchQuery {
    SearchQuery {
        text: text.to_owned(),
        vector: None,
        filter: all_sources(),
        limit: 10,
        languages: Vec::new(),
    }
}

pub(crate) fn by_vector(vector: Vec<f32>) -> SearchQuery {
    SearchQuery {
        text: String::new(),
        vector: Some(vector),
        filter: all_sources(),
        limit: 10,
        languages: Vec::new(),
    }
}

/// The chunks that a search finds, best first, at most `query.limit`.
pub(crate) async fn found(index: &dyn Index, tenant_id: TenantId, query: SearchQuery) -> Vec<ChunkId> {
    let hits = hits(index, tenant_id, query).await;
    hits.into_iter().map(|hit| hit.chunk_id).collect()
}

/// Meaning and words weigh the same.
const EVEN: f32 = 0.5;

/// What a search finds, fused, best first, at most `query.limit`.
pub(crate) async fn hits(index: &dyn Index, tenant_id: TenantId, query: SearchQuery) -> Vec<Hit> {
    let limit = query.limit;
    let candidates = index
        .search(tenant_id, query)
        .await
        .expect("a search of a healthy index");
    let mut hits = fuse(&candidates, EVEN);
    hits.truncate(limit);
    hits
}
