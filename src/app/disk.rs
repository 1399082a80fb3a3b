//! Room in the data folder. Files of the index are mapped into memory before their blocks exist: writing to one on a
//! full disk ends the process without a word. So nothing is taken in long before that.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::StartError;
use crate::config::{Config, IndexBackend};
use crate::error::{Error, Result};

const MIB: u64 = 1024 * 1024;

/// What one shard of the embedded index may grow by between two looks.
const SHARD_BYTES: u64 = 64 * MIB;

/// Removing things writes a little too: it goes on down to this part of the floor.
const REMOVAL_PART: u64 = 4;

/// Measures the bytes that are free in a folder's file system.
pub type FreeBytes = Arc<dyn Fn(&Path) -> io::Result<u64> + Send + Sync>;

/// The data folder's room. Cheap to clone.
#[derive(Clone)]
pub struct Disk {
    folder: PathBuf,
    floor_bytes: u64,
    free_bytes: FreeBytes,
}

impl Disk {
    /// The room that this configuration wants to be left; `free_bytes` measures where the system is not to be asked.
    pub(super) fn new(config: &Config, free_bytes: Option<FreeBytes>) -> Self {
        let shards = match config.index.backend {
            IndexBackend::Embedded => config.index.shards as u64,
            IndexBackend::Qdrant | IndexBackend::Pgvector => 0,
        };
        Self {
            folder: config.data_dir.clone(),
            floor_bytes: config
                .limits
                .free_disk_mb
                .saturating_mul(MIB)
                .saturating_add(shards * SHARD_BYTES),
            free_bytes: free_bytes.unwrap_or_else(|| Arc::new(measure)),
        }
    }

    /// A folder of which nothing has to be left, for tests of what lies in it.
    #[cfg(test)]
    pub fn unlimited(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
            floor_bytes: 0,
            free_bytes: Arc::new(measure),
        }
    }

    /// Refuses what would take room when too little is left.
    pub fn check_room(&self) -> Result<()> {
        self.check(self.floor_bytes)
    }

    /// Why nothing is taken in at present, for people; none: there is room.
    pub fn shortage(&self) -> Result<Option<String>> {
        let free = (self.free_bytes)(&self.folder).map_err(Error::storage_unavailable)?;
        Ok((free < self.floor_bytes).then(|| {
            format!(
                "the disk has {} MB of room, and {} MB have to be left (limits.free_disk_mb): nothing is taken in until there is \
                 room, while questions are answered and removals go on",
                free / MIB,
                self.floor_bytes.div_ceil(MIB),
            )
        }))
    }

    /// Like [`Disk::check_room`], for what is written in order to remove something.
    pub fn check_room_to_remove(&self) -> Result<()> {
        self.check(self.floor_bytes / REMOVAL_PART)
    }

    fn check(&self, least: u64) -> Result<()> {
        match (self.free_bytes)(&self.folder) {
            Ok(free) if free < least => Err(Error::StorageFull),
            Ok(_) => Ok(()),
            Err(error) => Err(Error::storage_unavailable(error)),
        }
    }

    /// Refuses to start where opening the index could be the end.
    pub(super) fn check_start(&self) -> std::result::Result<(), StartError> {
        let folder = self.folder.display();
        let free = (self.free_bytes)(&self.folder)
            .map_err(|error| StartError::Failed(format!("cannot measure the room in {folder}: {error}")))?;
        if free >= self.floor_bytes {
            return Ok(());
        }
        Err(StartError::Failed(format!(
            "{folder} has {} MB of room, and {} MB have to be left: make room, or lower limits.free_disk_mb",
            free / MIB,
            self.floor_bytes.div_ceil(MIB),
        )))
    }
}

fn measure(folder: &Path) -> io::Result<u64> {
    let room = rustix::fs::statvfs(folder)?;
    Ok(room.f_bavail.saturating_mul(room.f_frsize))
}
