//! What can be done to a shard, and its form in the redo log.
//!
//! Little endian throughout. Each operation is safe to do twice and leaves the same points when it and all that came
//! after it are done again, which is what recovery does.

use uuid::Uuid;

use super::codec::{Reader, put_facets, put_floats, put_id, put_len};
use crate::analysis::SparseTerms;
use crate::index::Facets;
use crate::{ChunkId, DocumentId, SourceId, TenantId};

/// As an earlier version wrote it, without facets; still read.
const PLAIN_UPSERT: u8 = 1;
const DELETE_CHUNKS: u8 = 2;
const DELETE_DOCUMENTS: u8 = 3;
const DELETE_TENANT: u8 = 4;
const DELETE_SOURCES: u8 = 5;
const UPSERT: u8 = 6;
const SET_FACETS: u8 = 7;

/// In place of the text's hash where an earlier version kept none.
pub(super) const UNKNOWN_TEXT: u64 = 0;

/// A change of one tenant's points.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Operation {
    pub(super) tenant_id: TenantId,
    pub(super) change: Change,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Change {
    Upsert(Vec<PreparedPoint>),
    SetFacets(Vec<(DocumentId, Facets)>),
    DeleteChunks(Vec<ChunkId>),
    DeleteDocuments(Vec<DocumentId>),
    DeleteSources(Vec<SourceId>),
    DeleteTenant,
}

impl Change {
    pub(super) fn is_deletion(&self) -> bool {
        match self {
            Self::Upsert(_) | Self::SetFacets(_) => false,
            Self::DeleteChunks(_)
            | Self::DeleteDocuments(_)
            | Self::DeleteSources(_)
            | Self::DeleteTenant => true,
        }
    }
}

/// A point after analysis of its text.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct PreparedPoint {
    pub(super) chunk_id: ChunkId,
    pub(super) document_id: DocumentId,
    pub(super) source_id: SourceId,
    pub(super) terms: SparseTerms,
    pub(super) vector: Option<Vec<f32>>,
    /// What a fingerprint needs of the text, which is not kept.
    pub(super) text_hash: u64,
    pub(super) facets: Facets,
}

impl Operation {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.encoded_len_estimate());
        let kind = match &self.change {
            Change::Upsert(_) => UPSERT,
            Change::SetFacets(_) => SET_FACETS,
            Change::DeleteChunks(_) => DELETE_CHUNKS,
            Change::DeleteDocuments(_) => DELETE_DOCUMENTS,
            Change::DeleteSources(_) => DELETE_SOURCES,
            Change::DeleteTenant => DELETE_TENANT,
        };
        bytes.push(kind);
        put_id(&mut bytes, self.tenant_id.0);
        match &self.change {
            Change::Upsert(points) => {
                put_len(&mut bytes, points.len());
                points.iter().for_each(|point| put_point(&mut bytes, point));
            }
            Change::SetFacets(documents) => {
                put_len(&mut bytes, documents.len());
                for (document_id, facets) in documents {
                    put_id(&mut bytes, document_id.0);
                    put_facets(&mut bytes, facets);
                }
            }
            Change::DeleteChunks(ids) => {
                put_len(&mut bytes, ids.len());
                ids.iter().for_each(|id| put_id(&mut bytes, id.0));
            }
            Change::DeleteDocuments(ids) => {
                put_len(&mut bytes, ids.len());
                ids.iter().for_each(|id| put_id(&mut bytes, id.0));
            }
            Change::DeleteSources(ids) => {
                put_len(&mut bytes, ids.len());
                ids.iter().for_each(|id| put_id(&mut bytes, id.0));
            }
            Change::DeleteTenant => {}
        }
        bytes
    }

    /// The operation in `bytes`; `None` when they are not exactly one.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader { rest: bytes };
        let kind = reader.byte()?;
        let tenant_id = TenantId(reader.id()?);
        let change = match kind {
            PLAIN_UPSERT => Change::Upsert(reader.list(|reader| read_point(reader, false))?),
            UPSERT => Change::Upsert(reader.list(|reader| read_point(reader, true))?),
            SET_FACETS => {
                Change::SetFacets(reader.list(|reader| Some((DocumentId(reader.id()?), reader.facets()?)))?)
            }
            DELETE_CHUNKS => Change::DeleteChunks(reader.list(|reader| reader.id().map(ChunkId))?),
            DELETE_DOCUMENTS => Change::DeleteDocuments(reader.list(|reader| reader.id().map(DocumentId))?),
            DELETE_SOURCES => Change::DeleteSources(reader.list(|reader| reader.id().map(SourceId))?),
            DELETE_TENANT => Change::DeleteTenant,
            _ => return None,
        };
        reader.rest.is_empty().then_some(Self { tenant_id, change })
    }

    /// How many points change; a deletion by something else than their ids counts as one.
    pub(super) fn points(&self) -> usize {
        match &self.change {
            Change::Upsert(points) => points.len(),
            Change::DeleteChunks(ids) => ids.len(),
            Change::SetFacets(documents) => documents.len(),
            Change::DeleteDocuments(_) | Change::DeleteSources(_) | Change::DeleteTenant => 1,
        }
    }

    fn encoded_len_estimate(&self) -> usize {
        const HEAD: usize = 64;
        match &self.change {
            Change::Upsert(points) => {
                let numbers: usize = points
                    .iter()
                    .map(|point| 2 * point.terms.hashes.len() + point.vector.as_ref().map_or(0, Vec::len))
                    .sum();
                HEAD + points.len() * HEAD + numbers * size_of::<f32>()
            }
            Change::SetFacets(documents) => HEAD + documents.len() * HEAD,
            Change::DeleteChunks(ids) => HEAD + ids.len() * size_of::<Uuid>(),
            Change::DeleteDocuments(ids) => HEAD + ids.len() * size_of::<Uuid>(),
            Change::DeleteSources(ids) => HEAD + ids.len() * size_of::<Uuid>(),
            Change::DeleteTenant => HEAD,
        }
    }
}

fn put_point(bytes: &mut Vec<u8>, point: &PreparedPoint) {
    put_id(bytes, point.chunk_id.0);
    put_id(bytes, point.document_id.0);
    put_id(bytes, point.source_id.0);
    put_len(bytes, point.terms.hashes.len());
    point
        .terms
        .hashes
        .iter()
        .for_each(|hash| bytes.extend_from_slice(&hash.to_le_bytes()));
    put_floats(bytes, &point.terms.weights);
    bytes.push(u8::from(point.vector.is_some()));
    if let Some(vector) = &point.vector {
        put_floats(bytes, vector);
    }
    bytes.extend_from_slice(&point.text_hash.to_le_bytes());
    put_facets(bytes, &point.facets);
}

fn read_point(reader: &mut Reader<'_>, with_facets: bool) -> Option<PreparedPoint> {
    let chunk_id = ChunkId(reader.id()?);
    let document_id = DocumentId(reader.id()?);
    let source_id = SourceId(reader.id()?);
    let hashes = reader.list(|reader| reader.word().map(u32::from_le_bytes))?;
    let weights = reader.floats()?;
    if hashes.len() != weights.len() {
        return None;
    }
    let vector = match reader.byte()? {
        0 => None,
        _ => Some(reader.floats()?),
    };
    let (text_hash, facets) = match with_facets {
        true => (u64::from_le_bytes(reader.double_word()?), reader.facets()?),
        false => (UNKNOWN_TEXT, Facets::default()),
    };
    Some(PreparedPoint {
        chunk_id,
        document_id,
        source_id,
        terms: SparseTerms { hashes, weights },
        vector,
        text_hash,
        facets,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::analysis;

    fn facets() -> Facets {
        Facets {
            language: Some("de".to_owned()),
            tags: vec!["returns".to_owned(), "Rückgabe".to_owned()],
            date: Some(-1),
            groups: vec!["staff".to_owned()],
        }
    }

    fn operations() -> Vec<Operation> {
        let tenant_id = TenantId(Uuid::from_u128(7));
        let point = |n: u128, vector: Option<Vec<f32>>| PreparedPoint {
            chunk_id: ChunkId(Uuid::from_u128(n)),
            document_id: DocumentId(Uuid::from_u128(n + 1)),
            source_id: SourceId(Uuid::from_u128(n + 2)),
            terms: analysis::weigh_document("goods may be returned within thirty days", None),
            vector,
            text_hash: 0x1234_5678_9abc_def0,
            facets: facets(),
        };
        [
            Change::Upsert(vec![
                point(1, Some(vec![0.25, -1.5, f32::MIN_POSITIVE])),
                point(9, None),
            ]),
            Change::SetFacets(vec![
                (DocumentId(Uuid::from_u128(3)), facets()),
                (DocumentId(Uuid::from_u128(4)), Facets::default()),
            ]),
            Change::Upsert(vec![]),
            Change::DeleteChunks(vec![ChunkId(Uuid::from_u128(1)), ChunkId(Uuid::from_u128(2))]),
            Change::DeleteDocuments(vec![DocumentId(Uuid::from_u128(3))]),
            Change::DeleteSources(vec![SourceId(Uuid::from_u128(4))]),
            Change::DeleteTenant,
        ]
        .map(|change| Operation { tenant_id, change })
        .to_vec()
    }

    #[test]
    fn every_operation_is_read_as_it_was_written() {
        for operation in operations() {
            assert_eq!(Operation::decode(&operation.encode()), Some(operation));
        }
    }

    #[test]
    fn an_upsert_of_an_earlier_version_is_read() {
        let chunk_id = ChunkId(Uuid::from_u128(1));
        let mut bytes = vec![PLAIN_UPSERT];
        put_id(&mut bytes, Uuid::from_u128(7));
        put_len(&mut bytes, 1);
        for id in [chunk_id.0, Uuid::from_u128(2), Uuid::from_u128(3)] {
            put_id(&mut bytes, id);
        }
        put_len(&mut bytes, 1);
        bytes.extend_from_slice(&77_u32.to_le_bytes());
        put_floats(&mut bytes, &[0.5]);
        bytes.push(1);
        put_floats(&mut bytes, &[1.0, 2.0]);

        let Some(Operation {
            change: Change::Upsert(points),
            ..
        }) = Operation::decode(&bytes)
        else {
            panic!("an upsert")
        };

        assert_eq!(
            (points[0].chunk_id, points[0].vector.clone()),
            (chunk_id, Some(vec![1.0, 2.0]))
        );
        assert_eq!(
            (points[0].text_hash, &points[0].facets),
            (UNKNOWN_TEXT, &Facets::default())
        );
    }

    #[test]
    fn a_part_of_an_operation_is_none() {
        for operation in operations() {
            let bytes = operation.encode();
            for len in 0..bytes.len() {
                assert_eq!(Operation::decode(&bytes[..len]), None);
            }
        }
    }

    proptest! {
        #[test]
        fn bytes_of_any_kind_are_read_without_harm(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Some(operation) = Operation::decode(&bytes) {
                prop_assert_eq!(Operation::decode(&operation.encode()).map(|again| again.points()), Some(operation.points()));
            }
        }
    }
}
