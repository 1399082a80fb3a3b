//! A point as the engine stores it: one id, one vector, and what it is filtered by: three ids and its facets.

use std::collections::HashMap;

use qdrant_edge::{
    Payload, PointStructPersisted, Record, VectorInternal, VectorPersisted, VectorStructInternal,
    VectorStructPersisted,
};
use serde_json::Value;
use uuid::Uuid;

use super::filter;
use super::operation::PreparedPoint;
use crate::TenantId;
use crate::index::Facets;

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
    let mut payload: serde_json::Map<String, Value> = fields
        .into_iter()
        .map(|(field, id)| (field.to_owned(), id.to_string().into()))
        .collect();
    // What is not said has no field.
    payload.extend(facet_fields(&point.facets).filter(|(_, value)| !value.is_null()));
    Some(PointStructPersisted {
        id: filter::point_id(tenant_id, point.chunk_id),
        vector: VectorStructPersisted::Named(vectors),
        payload: Some(Payload(payload)),
    })
}

/// What was read, as the engine takes it; `None` without a vector.
pub(super) fn again(record: Record) -> Option<PointStructPersisted> {
    let dense = VectorPersisted::Dense(dense_of(record.vector?)?);
    Some(PointStructPersisted {
        id: record.id,
        vector: VectorStructPersisted::Named(HashMap::from([(DENSE.to_owned(), dense)])),
        payload: record.payload,
    })
}

/// Facets as fields, `null` where nothing is said.
fn facet_fields(facets: &Facets) -> impl Iterator<Item = (String, Value)> {
    let list = |texts: &[String]| (!texts.is_empty()).then(|| Value::from(texts.to_vec()));
    let fields = [
        (filter::LANGUAGE, facets.language.clone().map(Value::from)),
        (filter::TAGS, list(&facets.tags)),
        (filter::DATE, facets.date.map(Value::from)),
        (filter::GROUPS, list(&facets.groups)),
    ];
    fields
        .into_iter()
        .map(|(field, value)| (field.to_owned(), value.unwrap_or(Value::Null)))
}

/// What changes a point's facets to these: the engine takes a field away that is set to `null`.
pub(super) fn change_to(facets: &Facets) -> Payload {
    Payload(facet_fields(facets).collect())
}

/// Whether the payload says just these facets.
pub(super) fn has_facets(payload: &Payload, facets: &Facets) -> bool {
    facet_fields(facets).all(|(field, value)| payload.0.get(&field).unwrap_or(&Value::Null) == &value)
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
