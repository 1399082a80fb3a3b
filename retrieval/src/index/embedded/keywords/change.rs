//! What changes the keyword side, in memory.

use std::collections::BTreeSet;
use std::io;

use super::Keywords;
use crate::index::embedded::operation::{Change, Operation, PreparedPoint};
use crate::{DocumentId, SourceId, TenantId};

impl Keywords {
    /// Does one operation, in memory. Doing it again changes nothing. Whether chunks or documents were deleted by it, or chunks
    /// replaced.
    pub(in super::super) fn apply(&mut self, operation: &Operation) -> io::Result<bool> {
        let tenant_id = operation.tenant_id;
        let mut is_gone = false;
        match &operation.change {
            Change::Upsert(points) => is_gone = self.upsert(tenant_id, points)?,
            Change::SetFacets(documents) => {
                let ids = documents.iter().map(|(document_id, _)| *document_id).collect();
                let present = self.present(tenant_id, &ids)?;
                for (document_id, facets) in documents.iter().filter(|(id, _)| present.contains(id)) {
                    self.facets.set(tenant_id, *document_id, facets.clone());
                }
            }
            Change::DeleteChunks(ids) => {
                for chunk_id in ids {
                    is_gone |= self.fresh.delete_chunk(tenant_id, *chunk_id);
                    for segment in &mut self.segments {
                        is_gone |= segment.delete_chunk(tenant_id, *chunk_id)?;
                    }
                }
            }
            Change::DeleteDocuments(ids) => {
                let ids: BTreeSet<DocumentId> = ids.iter().copied().collect();
                is_gone = self.facets.remove(tenant_id, &ids);
                is_gone |= self.fresh.delete_documents(tenant_id, &ids);
                for segment in &mut self.segments {
                    is_gone |= segment.delete_documents(tenant_id, &ids)?;
                }
            }
            Change::DeleteSources(ids) => {
                let ids: BTreeSet<SourceId> = ids.iter().copied().collect();
                let gone = self.documents_in_only(tenant_id, &ids)?;
                is_gone = self.facets.remove(tenant_id, &gone);
                is_gone |= self.fresh.delete_sources(tenant_id, &ids);
                for segment in &mut self.segments {
                    is_gone |= segment.delete_sources(tenant_id, &ids)?;
                }
            }
            Change::DeleteTenant => {
                is_gone = self.facets.remove_tenant(tenant_id);
                is_gone |= self.fresh.delete_tenant(tenant_id);
                for segment in &mut self.segments {
                    is_gone |= segment.delete_tenant(tenant_id);
                }
            }
        }
        Ok(is_gone)
    }

    /// The part of [`Keywords::apply`] that may be done piece by piece. Whether chunks were replaced.
    pub(in super::super) fn upsert(
        &mut self,
        tenant_id: TenantId,
        points: &[PreparedPoint],
    ) -> io::Result<bool> {
        let mut is_replaced = false;
        for point in points {
            for segment in &mut self.segments {
                is_replaced |= segment.delete_chunk(tenant_id, point.chunk_id)?;
            }
            self.facets
                .set(tenant_id, point.document_id, point.facets.clone());
            is_replaced |= self.fresh.insert(tenant_id, point);
        }
        Ok(is_replaced)
    }

    /// Those of `document_ids` that have chunks here.
    fn present(
        &self,
        tenant_id: TenantId,
        document_ids: &BTreeSet<DocumentId>,
    ) -> io::Result<BTreeSet<DocumentId>> {
        let mut present = BTreeSet::new();
        for segment in &self.segments {
            if let Some(block) = segment.block(tenant_id) {
                present.extend(segment.present(block, document_ids)?);
            }
        }
        if let Some(tenant) = self.fresh.tenant(tenant_id) {
            let documents = tenant.live().map(|chunk| chunk.document_id);
            present.extend(documents.filter(|id| document_ids.contains(id)));
        }
        Ok(present)
    }

    /// Documents of which all chunks are in these sources.
    fn documents_in_only(
        &self,
        tenant_id: TenantId,
        source_ids: &BTreeSet<SourceId>,
    ) -> io::Result<BTreeSet<DocumentId>> {
        let (mut inside, mut outside) = (BTreeSet::new(), BTreeSet::new());
        let mut note = |document_id, source_id| match source_ids.contains(&source_id) {
            true => inside.insert(document_id),
            false => outside.insert(document_id),
        };
        for segment in &self.segments {
            if let Some(block) = segment.block(tenant_id) {
                for (document_id, source_id) in segment.documents(block)? {
                    note(document_id, source_id);
                }
            }
        }
        if let Some(tenant) = self.fresh.tenant(tenant_id) {
            for chunk in tenant.live() {
                note(chunk.document_id, chunk.source_id);
            }
        }
        Ok(inside.difference(&outside).copied().collect())
    }
}
