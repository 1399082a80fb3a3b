//! A point as the engine stores it: one id, up to two vectors, three ids to filter by.

use std::collections::HashMap;

use qdrant_edge::{
    Payload, PointStructPersisted, Record, SparseVector, VectorInternal, VectorPersisted,
    VectorStructInternal, VectorStructPersisted,
};
use uuid::Uuid;

use super::filter;
use super::operation::PreparedPoint;
use crate::TenantId;
use crate::index::keyword::SparseTerms;

/// Names of the two vectors.
pub(super) const DENSE: &str = "dense";
pub(super) const KEYWORD: &str = "keyword";

/// How far the cosine of a vector with its stored, normalised form may be from 1.
const ROUNDING: f32 = 1e-5;

/// A point as the engine takes it.
pub(super) fn form_of(tenant_id: TenantId, point: &PreparedPoint) -> PointStructPersisted {
    let mut vectors = HashMap::with_capacity(2);
    vectors.insert(
        KEYWORD.to_owned(),
        VectorPersisted::Sparse(sparse(point.terms.clone())),
    );
    if let Some(vector) = &point.vector {
        vectors.insert(DENSE.to_owned(), VectorPersisted::Dense(vector.clone()));
    }
    let fields = [
        (filter::TENANT, tenant_id.0),
        (filter::SOURCE, point.source_id.0),
        (filter::DOCUMENT, point.document_id.0),
    ];
    let payload = fields
        .into_iter()
        .map(|(field, id)| (field.to_owned(), id.to_string().into()))
        .collect();
    PointStructPersisted {
        id: filter::point_id(tenant_id, point.chunk_id),
        vector: VectorStructPersisted::Named(vectors),
        payload: Some(Payload(payload)),
    }
}

/// Whether a stored point says what this one would.
pub(super) fn is_same(stored: &Record, point: &PointStructPersisted) -> bool {
    let (Some(VectorStructInternal::Named(stored_vectors)), VectorStructPersisted::Named(vectors)) =
        (&stored.vector, &point.vector)
    else {
        return false;
    };
    let same_keyword = match (stored_vectors.get(KEYWORD), vectors.get(KEYWORD)) {
        (Some(VectorInternal::Sparse(stored)), Some(VectorPersisted::Sparse(vector))) => stored == vector,
        // The engine stores no empty sparse vector.
        (None, Some(VectorPersisted::Sparse(vector))) => vector.indices.is_empty(),
        _ => false,
    };
    let same_dense = match (stored_vectors.get(DENSE), vectors.get(DENSE)) {
        (Some(VectorInternal::Dense(stored)), Some(VectorPersisted::Dense(vector))) => {
            cosine(stored, vector) > 1.0 - ROUNDING
        }
        (None, None) => true,
        _ => false,
    };
    stored.payload == point.payload && same_keyword && same_dense
}

/// The cosine of the angle between two vectors of one length; 0 where one has no direction.
pub(super) fn cosine(a: &[f32], b: &[f32]) -> f32 {
    let dot: f32 = a.iter().zip(b).map(|(x, y)| x * y).sum();
    let norm = |v: &[f32]| v.iter().map(|x| x * x).sum::<f32>().sqrt();
    let norms = norm(a) * norm(b);
    if norms > 0.0 {
        (dot / norms).clamp(-1.0, 1.0)
    } else {
        0.0
    }
}

pub(super) fn sparse(terms: SparseTerms) -> SparseVector {
    SparseVector {
        indices: terms.hashes,
        values: terms.weights,
    }
}

/// The id in a field of the payload.
pub(super) fn read_id(payload: &Payload, field: &str) -> Option<Uuid> {
    payload.0.get(field)?.as_str()?.parse().ok()
}

/// The embedding among a point's vectors.
pub(super) fn dense_of(vectors: VectorStructInternal) -> Option<Vec<f32>> {
    let dense = match vectors {
        VectorStructInternal::Named(mut named) => named.remove(DENSE)?,
        VectorStructInternal::Single(vector) => return Some(vector),
        VectorStructInternal::MultiDense(_) => return None,
    };
    match dense {
        VectorInternal::Dense(vector) => Some(vector),
        VectorInternal::Sparse(_) | VectorInternal::MultiDense(_) => None,
    }
}
