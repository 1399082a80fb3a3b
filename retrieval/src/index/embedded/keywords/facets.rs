//! What is said of documents beside their chunks, of all tenants of the shard: in memory whole, and in a file to which
//! every checkpoint adds what changed. The manifest says how much of the file counts; a file that holds mostly what
//! counts no more is written anew.

use std::collections::{BTreeSet, HashMap};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::Spare;
use super::format::damaged;
use crate::index::Facets;
use crate::index::embedded::codec::{Reader, put_facets, put_id, put_len};
use crate::{DocumentId, TenantId};

/// Bytes of a frame before its payload: the payload's length and its CRC-32.
const FRAME_HEAD_BYTES: usize = 8;

/// Entries that a file may have beyond twice those that count, before it is written anew.
const SPARE_ENTRIES: usize = 1_000;

/// What documents without an entry have: they are in no language, of no date and open to everyone.
static NONE: Facets = Facets {
    language: None,
    tags: Vec::new(),
    date: None,
    groups: Vec::new(),
};

#[derive(Default)]
pub(super) struct FacetTable {
    tenants: HashMap<TenantId, TenantFacets>,
    /// Documents of which the file does not say what is here.
    changed: BTreeSet<(TenantId, DocumentId)>,
    /// Entries in the file, among them those that later ones replace.
    file_entries: usize,
}

#[derive(Default)]
struct TenantFacets {
    /// Documents that have facets at all.
    documents: HashMap<DocumentId, Facets>,
    /// How many of them not everyone may read.
    restricted: usize,
}

/// The part of a file that counts, as the manifest names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FacetFile {
    pub(super) number: u64,
    bytes: u64,
    entries: usize,
}

impl FacetTable {
    /// The table that `file` at `path` holds; an error unless it is whole.
    pub(super) fn read(path: &Path, file: FacetFile) -> io::Result<Self> {
        let bytes = fs::read(path)?;
        let counting = usize::try_from(file.bytes).ok().and_then(|len| bytes.get(..len));
        let mut rest = counting.ok_or_else(torn)?;
        let mut table = Self::default();
        while !rest.is_empty() {
            let (head, after) = rest.split_at_checked(FRAME_HEAD_BYTES).ok_or_else(torn)?;
            let mut head = Reader { rest: head };
            let (len, checksum) = head.word().zip(head.word()).ok_or_else(torn)?;
            let (payload, after) = after
                .split_at_checked(u32::from_le_bytes(len) as usize)
                .ok_or_else(torn)?;
            if crc32fast::hash(payload) != u32::from_le_bytes(checksum) {
                return Err(torn());
            }
            for (tenant_id, document_id, facets) in decode(payload).ok_or_else(torn)? {
                table.set(tenant_id, document_id, facets);
            }
            rest = after;
        }
        table.changed.clear();
        table.file_entries = file.entries;
        Ok(table)
    }

    /// The facets of a document; those of nothing where there is no entry.
    pub(super) fn get(&self, tenant_id: TenantId, document_id: DocumentId) -> &Facets {
        self.tenants
            .get(&tenant_id)
            .and_then(|tenant| tenant.documents.get(&document_id))
            .unwrap_or(&NONE)
    }

    /// What is said of this tenant's documents, none of it in a file yet.
    pub(super) fn of_tenant(&self, tenant_id: TenantId) -> Self {
        let mut own = Self::default();
        let documents = self.tenants.get(&tenant_id).map(|tenant| &tenant.documents);
        for (document_id, facets) in documents.into_iter().flatten() {
            own.set(tenant_id, *document_id, facets.clone());
        }
        own
    }

    /// Whether the tenant has documents that not everyone may read.
    pub(super) fn has_restricted(&self, tenant_id: TenantId) -> bool {
        self.tenants
            .get(&tenant_id)
            .is_some_and(|tenant| tenant.restricted > 0)
    }

    /// Whether that is something else than before.
    pub(super) fn set(&mut self, tenant_id: TenantId, document_id: DocumentId, facets: Facets) -> bool {
        if *self.get(tenant_id, document_id) == facets {
            return false;
        }
        self.changed.insert((tenant_id, document_id));
        let tenant = self.tenants.entry(tenant_id).or_default();
        tenant.restricted += usize::from(!facets.groups.is_empty());
        let previous = match facets == NONE {
            true => tenant.documents.remove(&document_id),
            false => tenant.documents.insert(document_id, facets),
        };
        tenant.restricted -= usize::from(previous.is_some_and(|previous| !previous.groups.is_empty()));
        if tenant.documents.is_empty() {
            self.tenants.remove(&tenant_id);
        }
        true
    }

    /// Whether there was anything to remove, as with the next.
    pub(super) fn remove(&mut self, tenant_id: TenantId, document_ids: &BTreeSet<DocumentId>) -> bool {
        let nothing = Facets::default;
        let set = document_ids.iter().map(|id| self.set(tenant_id, *id, nothing()));
        set.filter(|was_there| *was_there).count() > 0
    }

    pub(super) fn remove_tenant(&mut self, tenant_id: TenantId) -> bool {
        let gone = self.tenants.remove(&tenant_id).unwrap_or_default();
        let was_there = !gone.documents.is_empty();
        self.changed.extend(
            gone.documents
                .into_keys()
                .map(|document_id| (tenant_id, document_id)),
        );
        was_there
    }

    /// Brings what changed to the disk, to the file that counts or to a new one numbered `next_number`; gives the file that
    /// counts from then on. `path_of` tells where a number's file is. Without `spare` it says nothing of documents that are gone.
    pub(super) fn write(
        &self,
        current: Option<FacetFile>,
        spare: Spare,
        next_number: u64,
        path_of: impl Fn(u64) -> std::path::PathBuf,
    ) -> io::Result<Option<FacetFile>> {
        if self.changed.is_empty() && spare == Spare::Little {
            return Ok(current);
        }
        let live: usize = self.tenants.values().map(|tenant| tenant.documents.len()).sum();
        if self.changed.is_empty() && self.file_entries == live {
            return Ok(current);
        }
        let most = match spare {
            Spare::Little => 2 * live + SPARE_ENTRIES,
            Spare::Nothing => live,
        };
        let appended = current.filter(|_| self.file_entries + self.changed.len() <= most);
        let Some(current) = appended else {
            let everything = self.tenants.iter().flat_map(|(tenant_id, tenant)| {
                let documents = tenant.documents.keys();
                documents.map(|document_id| (*tenant_id, *document_id))
            });
            let frame = self.encode(everything.collect());
            let mut file = File::create(path_of(next_number))?;
            file.write_all(&frame)?;
            file.sync_data()?;
            return Ok(Some(FacetFile {
                number: next_number,
                bytes: frame.len() as u64,
                entries: live,
            }));
        };
        let frame = self.encode(self.changed.iter().copied().collect());
        let mut file = OpenOptions::new().write(true).open(path_of(current.number))?;
        // What a crash left behind the part that counts is not carried on.
        file.set_len(current.bytes)?;
        file.seek(SeekFrom::Start(current.bytes))?;
        file.write_all(&frame)?;
        file.sync_data()?;
        Ok(Some(FacetFile {
            bytes: current.bytes + frame.len() as u64,
            entries: self.file_entries + self.changed.len(),
            ..current
        }))
    }

    /// Notes that all of it is in `file`.
    pub(super) fn written(&mut self, file: Option<FacetFile>) {
        self.changed.clear();
        self.file_entries = file.map_or(0, |file| file.entries);
    }

    /// What the changes that are in no file yet take, about.
    pub(super) fn changed_bytes(&self) -> usize {
        const ENTRY_BYTES: usize = 200;
        self.changed.len() * ENTRY_BYTES
    }

    fn encode(&self, documents: Vec<(TenantId, DocumentId)>) -> Vec<u8> {
        let mut payload = Vec::new();
        put_len(&mut payload, documents.len());
        for (tenant_id, document_id) in documents {
            put_id(&mut payload, tenant_id.0);
            put_id(&mut payload, document_id.0);
            put_facets(&mut payload, self.get(tenant_id, document_id));
        }
        let mut frame = Vec::with_capacity(FRAME_HEAD_BYTES + payload.len());
        put_len(&mut frame, payload.len());
        frame.extend_from_slice(&crc32fast::hash(&payload).to_le_bytes());
        frame.extend_from_slice(&payload);
        frame
    }
}

fn decode(payload: &[u8]) -> Option<Vec<(TenantId, DocumentId, Facets)>> {
    let mut reader = Reader { rest: payload };
    let entries =
        reader.list(|reader| Some((TenantId(reader.id()?), DocumentId(reader.id()?), reader.facets()?)))?;
    reader.rest.is_empty().then_some(entries)
}

fn torn() -> io::Error {
    damaged("a torn list of facets")
}
