//! What one tenant has, taken at one moment and written to a keyword side of its own while this one goes on.

use std::fs;
use std::io;
use std::path::Path;

use super::Spare;
use super::facets::FacetTable;
use super::manifest::{Manifest, ManifestEntry};
use super::segment::Segment;
use super::write::SegmentWriter;
use super::{Keywords, facets_path, merge, segment_path};
use crate::TenantId;

/// A tenant's words at one moment.
pub(in super::super) struct TenantWords {
    tenant_id: TenantId,
    segments: Vec<Segment>,
    facets: FacetTable,
}

impl Keywords {
    /// What the tenant has now. What is in memory has to be written down before.
    pub(in super::super) fn words_of(&self, tenant_id: TenantId) -> io::Result<TenantWords> {
        debug_assert!(self.fresh.tenant(tenant_id).is_none());
        let parts = self
            .segments
            .iter()
            .map(|segment| segment.part_of(tenant_id))
            .collect::<io::Result<Vec<_>>>()?;
        Ok(TenantWords {
            tenant_id,
            segments: parts.into_iter().flatten().collect(),
            facets: self.facets.of_tenant(tenant_id),
        })
    }
}

impl TenantWords {
    /// Makes a keyword side of it in `dir`, which must be empty.
    pub(in super::super) fn write(&self, dir: &Path) -> io::Result<()> {
        fs::create_dir_all(dir)?;
        let segments: Vec<&Segment> = self.segments.iter().collect();
        let mut writer = SegmentWriter::create(&segment_path(dir, 0))?;
        merge::merge_tenant(self.tenant_id, &segments, &mut writer)?;
        let has_chunks = writer.finish()?;
        let manifest = Manifest {
            next_number: 2,
            segments: Vec::from_iter(has_chunks.then_some(ManifestEntry {
                number: 0,
                deletions: None,
            })),
            facets: self
                .facets
                .write(None, Spare::Little, 1, |number| facets_path(dir, number))?,
        };
        manifest.write(dir)
    }
}
