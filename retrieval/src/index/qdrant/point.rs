//! A point as the collection holds it: an id, two named vectors, and what filters ask for.

use std::collections::HashMap;

use qdrant_client::qdrant::point_id::PointIdOptions;
use qdrant_client::qdrant::value::Kind;
use qdrant_client::qdrant::{ListValue, NamedVectors, PointId, PointStruct, Value, Vector};
use uuid::Uuid;

use crate::analysis::SparseTerms;
pub(super) use crate::index::field::{DATE, DOCUMENT, GROUPS, LANGUAGE, SOURCE, TAGS, TENANT};
use crate::index::point::fingerprint;
use crate::index::{Facets, StoredPoint};
use crate::{ChunkId, DocumentId, SourceId, TenantId};

/// Names of the vectors.
pub(super) const DENSE: &str = "dense";
pub(super) const WORDS: &str = "words";

/// A digest of language, tags, date and groups, by which points that already have them are left alone.
pub(super) const FACETS: &str = "facets";
const TEXT: &str = "text";
const HAS_VECTOR: &str = "has_vector";

/// The fields of a point or of an answer.
pub(super) type Fields = HashMap<String, Value>;

/// A point after analysis of its text.
pub(super) struct PreparedPoint {
    pub(super) chunk_id: ChunkId,
    pub(super) document_id: DocumentId,
    pub(super) source_id: SourceId,
    pub(super) text_hash: u64,
    pub(super) terms: SparseTerms,
    pub(super) vector: Option<Vec<f32>>,
    pub(super) facets: Facets,
}

impl PreparedPoint {
    /// The point as it is sent. One without words or without an embedding is on the other side alone.
    pub(super) fn to_stored(&self, tenant_id: TenantId, id: PointId) -> PointStruct {
        let mut fields = facets_to_fields(&self.facets);
        fields.extend([
            field(TENANT, tenant_id.to_string()),
            field(SOURCE, self.source_id.to_string()),
            field(DOCUMENT, self.document_id.to_string()),
            field(TEXT, hex(self.text_hash)),
            field(HAS_VECTOR, self.vector.is_some()),
        ]);
        let mut vectors = HashMap::new();
        if let Some(vector) = &self.vector {
            vectors.insert(DENSE.to_owned(), Vector::new_dense(vector.clone()));
        }
        if !self.terms.hashes.is_empty() {
            let words = Vector::new_sparse(self.terms.hashes.clone(), self.terms.weights.clone());
            vectors.insert(WORDS.to_owned(), words);
        }
        PointStruct {
            id: Some(id),
            payload: fields,
            vectors: Some(NamedVectors { vectors }.into()),
        }
    }
}

/// What is said of a document, every field of it, so that what it no longer says is overwritten.
pub(super) fn facets_to_fields(facets: &Facets) -> Fields {
    let texts = |texts: &[String]| {
        let values = texts.iter().map(|text| text.clone().into()).collect();
        Value::from(Kind::ListValue(ListValue { values }))
    };
    let null = || Value::from(Kind::NullValue(0));
    Fields::from([
        field(LANGUAGE, facets.language.clone().map_or_else(null, Value::from)),
        field(TAGS, texts(&facets.tags)),
        field(DATE, facets.date.map_or_else(null, Value::from)),
        field(GROUPS, texts(&facets.groups)),
        field(FACETS, facets_digest(facets)),
    ])
}

pub(super) fn facets_digest(facets: &Facets) -> String {
    hex(fingerprint(0, facets, false))
}

/// The point behind the fields of an answer; `None` where a field is missing that we always write.
pub(super) fn stored_point(chunk_id: ChunkId, fields: &Fields) -> Option<StoredPoint> {
    let facets = Facets {
        language: text_of(fields, LANGUAGE).map(str::to_owned),
        tags: texts_of(fields, TAGS),
        date: fields.get(DATE).and_then(Value::as_integer),
        groups: texts_of(fields, GROUPS),
    };
    let text_hash = u64::from_str_radix(text_of(fields, TEXT)?, 16).ok()?;
    let has_vector = fields.get(HAS_VECTOR)?.as_bool()?;
    Some(StoredPoint {
        chunk_id,
        document_id: DocumentId(read_id(fields, DOCUMENT)?),
        source_id: SourceId(read_id(fields, SOURCE)?),
        fingerprint: fingerprint(text_hash, &facets, has_vector),
    })
}

/// The id in a field.
pub(super) fn read_id(fields: &Fields, name: &str) -> Option<Uuid> {
    text_of(fields, name)?.parse().ok()
}

pub(super) fn uuid_of(id: &PointId) -> Option<Uuid> {
    match id.point_id_options.as_ref()? {
        PointIdOptions::Uuid(id) => id.parse().ok(),
        PointIdOptions::Num(_) => None,
    }
}

fn text_of<'a>(fields: &'a Fields, name: &str) -> Option<&'a str> {
    fields.get(name)?.as_str().map(String::as_str)
}

fn texts_of(fields: &Fields, name: &str) -> Vec<String> {
    let values = fields.get(name).and_then(Value::as_list).unwrap_or_default();
    values
        .iter()
        .filter_map(|value| value.as_str().cloned())
        .collect()
}

fn field(name: &str, value: impl Into<Value>) -> (String, Value) {
    (name.to_owned(), value.into())
}

/// Fields hold integers of 63 bits only.
fn hex(number: u64) -> String {
    format!("{number:016x}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::weigh_document;
    use crate::index::Point;
    use crate::index::point::text_hash;

    fn facets() -> Facets {
        Facets {
            language: Some("de".to_owned()),
            tags: vec!["returns".to_owned(), "goods".to_owned()],
            date: Some(-5),
            groups: vec!["staff".to_owned()],
        }
    }

    #[test]
    fn a_listed_point_has_the_fingerprint_of_the_point_that_was_stored() {
        for (facets, vector) in [(facets(), None), (Facets::default(), Some(vec![1.0, 0.0]))] {
            let point = Point {
                chunk_id: ChunkId(Uuid::from_u128(1)),
                document_id: DocumentId(Uuid::from_u128(2)),
                source_id: SourceId(Uuid::from_u128(3)),
                text: "Waren".to_owned(),
                vector,
                facets,
            };
            let prepared = PreparedPoint {
                chunk_id: point.chunk_id,
                document_id: point.document_id,
                source_id: point.source_id,
                text_hash: text_hash(&point.text),
                terms: weigh_document(&point.text, None),
                vector: point.vector.clone(),
                facets: point.facets.clone(),
            };
            let sent = prepared.to_stored(TenantId(Uuid::from_u128(4)), 5.into());

            let listed = stored_point(point.chunk_id, &sent.payload).expect("all fields are there");
            assert_eq!(listed.fingerprint, point.fingerprint());
            assert_eq!(listed.document_id, point.document_id);
            assert_eq!(listed.source_id, point.source_id);
        }
    }

    #[test]
    fn fields_that_facets_do_not_say_are_overwritten_all_the_same() {
        let mut names: Vec<String> = facets_to_fields(&Facets::default()).into_keys().collect();
        names.sort_unstable();

        assert_eq!(names, [DATE, FACETS, GROUPS, LANGUAGE, TAGS]);
        assert_ne!(facets_digest(&facets()), facets_digest(&Facets::default()));
    }
}
