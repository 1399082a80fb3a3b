//! What can be done to a shard, and its form in the redo log.
//!
//! Little endian throughout. Each operation is safe to do twice and leaves the same points when it and all that came
//! after it are done again, which is what recovery does.

use uuid::Uuid;

use crate::index::keyword::SparseTerms;
use crate::{ChunkId, DocumentId, SourceId, TenantId};

const UPSERT: u8 = 1;
const DELETE_CHUNKS: u8 = 2;
const DELETE_DOCUMENTS: u8 = 3;
const DELETE_TENANT: u8 = 4;
const DELETE_SOURCES: u8 = 5;

/// A change of one tenant's points.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Operation {
    pub(super) tenant_id: TenantId,
    pub(super) change: Change,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Change {
    Upsert(Vec<PreparedPoint>),
    DeleteChunks(Vec<ChunkId>),
    DeleteDocuments(Vec<DocumentId>),
    DeleteSources(Vec<SourceId>),
    DeleteTenant,
}

/// A point after analysis of its text.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct PreparedPoint {
    pub(super) chunk_id: ChunkId,
    pub(super) document_id: DocumentId,
    pub(super) source_id: SourceId,
    pub(super) terms: SparseTerms,
    pub(super) vector: Option<Vec<f32>>,
}

impl Operation {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.encoded_len_estimate());
        let kind = match &self.change {
            Change::Upsert(_) => UPSERT,
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
        let kind = reader.take(1)?[0];
        let tenant_id = TenantId(reader.id()?);
        let change = match kind {
            UPSERT => Change::Upsert(reader.list(Reader::point)?),
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
            Change::DeleteChunks(ids) => HEAD + ids.len() * size_of::<Uuid>(),
            Change::DeleteDocuments(ids) => HEAD + ids.len() * size_of::<Uuid>(),
            Change::DeleteSources(ids) => HEAD + ids.len() * size_of::<Uuid>(),
            Change::DeleteTenant => HEAD,
        }
    }
}

fn put_id(bytes: &mut Vec<u8>, id: Uuid) {
    bytes.extend_from_slice(id.as_bytes());
}

fn put_len(bytes: &mut Vec<u8>, len: usize) {
    let len = u32::try_from(len).expect("a batch that fits in memory has fewer than 2^32 entries");
    bytes.extend_from_slice(&len.to_le_bytes());
}

fn put_floats(bytes: &mut Vec<u8>, values: &[f32]) {
    put_len(bytes, values.len());
    values
        .iter()
        .for_each(|value| bytes.extend_from_slice(&value.to_le_bytes()));
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
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.rest.split_at_checked(len)?;
        self.rest = rest;
        Some(head)
    }

    fn id(&mut self) -> Option<Uuid> {
        Uuid::from_slice(self.take(size_of::<Uuid>())?).ok()
    }

    fn word(&mut self) -> Option<[u8; 4]> {
        self.take(4)?.try_into().ok()
    }

    fn list<T>(&mut self, mut entry: impl FnMut(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let len = u32::from_le_bytes(self.word()?);
        // Not allocated ahead: the length is not to be trusted before its entries have been read.
        (0..len).map(|_| entry(self)).collect()
    }

    fn floats(&mut self) -> Option<Vec<f32>> {
        self.list(|reader| reader.word().map(f32::from_le_bytes))
    }

    fn point(&mut self) -> Option<PreparedPoint> {
        let chunk_id = ChunkId(self.id()?);
        let document_id = DocumentId(self.id()?);
        let source_id = SourceId(self.id()?);
        let hashes = self.list(|reader| reader.word().map(u32::from_le_bytes))?;
        let weights = self.floats()?;
        if hashes.len() != weights.len() {
            return None;
        }
        let vector = match self.take(1)?[0] {
            0 => None,
            _ => Some(self.floats()?),
        };
        let terms = SparseTerms { hashes, weights };
        Some(PreparedPoint {
            chunk_id,
            document_id,
            source_id,
            terms,
            vector,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::index::keyword;

    fn operations() -> Vec<Operation> {
        let tenant_id = TenantId(Uuid::from_u128(7));
        let point = |n: u128, vector: Option<Vec<f32>>| PreparedPoint {
            chunk_id: ChunkId(Uuid::from_u128(n)),
            document_id: DocumentId(Uuid::from_u128(n + 1)),
            source_id: SourceId(Uuid::from_u128(n + 2)),
            terms: keyword::weigh_document("goods may be returned within thirty days"),
            vector,
        };
        [
            Change::Upsert(vec![
                point(1, Some(vec![0.25, -1.5, f32::MIN_POSITIVE])),
                point(9, None),
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
