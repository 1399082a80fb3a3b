//! A point as the engine stores it: one id, one vector, three ids to filter by.

use std::collections::HashMap;

use qdrant_edge::{
    Payload, PointStructPersisted, Record, VectorInternal, VectorPersisted, VectorStructInternal,
    VectorStructPersisted,
};
use uuid::Uuid;

use super::filter;
use super::operation::PreparedPoint;
use crate::TenantId;

/// Name of the vector.
pub(super) const DENSE: &str = "dense";

/// How far the cosine of a vector with its stored, normalised form may be from 1.
const ROUNDING: f32 = 1e-5;

/// A point as the engine takes it; `None` without a vector.
pub(super) fn form_of(tenant_id: TenantId, point: &PreparedPoint) -> Option<PointStructPersisted> {
    let vector = VectorPersisted::Dense(point.vector.clone()?);
    let vectors = HashMap::from([(DENSE.to_owned(), vector)]);
    let fields = [
        (filter::TENANT, tenant_id.0),
        (filter::SOURCE, point.source_id.0),
        (filter::DOCUMENT, point.document_id.0),
    ];
    let payload = fields
        .into_iter()
        .map(|(field, id)| (field.to_owned(), id.to_string().into()))
        .collect();
    Some(PointStructPersisted {
        id: filter::point_id(tenant_id, point.chunk_id),
        vector: VectorStructPersisted::Named(vectors),
        payload: Some(Payload(payload)),
    })
}

/// Whether a stored point says what this one would.
pub(super) fn is_same(stored: &Record, point: &PointStructPersisted) -> bool {
    let (Some(VectorStructInternal::Named(stored_vectors)), VectorStructPersisted::Named(vectors)) =
        (&stored.vector, &point.vector)
    else {
        return false;
    };
    let same_dense = match (stored_vectors.get(DENSE), vectors.get(DENSE)) {
        (Some(VectorInternal::Dense(stored)), Some(VectorPersisted::Dense(vector))) => {
            cosine(stored, vector) > 1.0 - ROUNDING
        }
        _ => false,
    };
    stored.payload == point.payload && same_dense
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
