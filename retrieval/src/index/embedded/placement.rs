//! Which tenants have a shard of their own, and how far each is on the way there. A small file that is replaced whole:
//! whatever ends the process, the move is begun anew or finished at the next start.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::aside::owner_of;
use super::keywords::write_whole;
use crate::TenantId;

const FILE: &str = "own-shards.json";

/// How far a tenant is on the way to a shard of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Stage {
    /// Its own shard is being filled; the shared one answers. What is in its own counts for nothing yet.
    Moving,
    /// Its own shard answers; what it had in the shared one is being deleted there.
    Sweeping,
    /// Its own shard has everything, and the shared one nothing.
    Settled,
}

/// All tenants with a shard of their own, as the disk has it.
#[derive(Debug)]
pub(super) struct Placement {
    path: PathBuf,
    stages: BTreeMap<TenantId, Stage>,
}

impl Placement {
    /// What is written in `dir`; nobody where nothing is, and nothing else speaks of anybody.
    pub(super) fn read(dir: &Path) -> io::Result<Self> {
        let path = Self::path(dir);
        let stages = match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                for entry in fs::read_dir(dir)? {
                    if owner_of(&entry?)?.is_some() {
                        let reason = "it is gone, and tenants have shards of their own";
                        return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
                    }
                }
                BTreeMap::new()
            }
            Err(error) => return Err(error),
        };
        Ok(Self { path, stages })
    }

    /// Writes these down in place of what was there.
    pub(super) fn of(dir: &Path, stages: impl Iterator<Item = (TenantId, Stage)>) -> io::Result<Self> {
        let (path, stages) = (Self::path(dir), stages.collect());
        write_whole(&path, &serde_json::to_vec_pretty(&stages)?)?;
        Ok(Self { path, stages })
    }

    pub(super) fn path(dir: &Path) -> PathBuf {
        dir.join(FILE)
    }

    pub(super) fn stages(&self) -> &BTreeMap<TenantId, Stage> {
        &self.stages
    }

    /// Sets the tenant's stage, `None` for a tenant of the shared shards, durably. After an error nobody knows which of the
    /// two the disk has: it may have failed after the file was replaced.
    pub(super) fn set(&mut self, tenant_id: TenantId, stage: Option<Stage>) -> io::Result<()> {
        let mut stages = self.stages.clone();
        match stage {
            Some(stage) => stages.insert(tenant_id, stage),
            None => stages.remove(&tenant_id),
        };
        write_whole(&self.path, &serde_json::to_vec_pretty(&stages)?)?;
        self.stages = stages;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn what_was_set_is_read_again() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let tenants = [1, 2, 3].map(|n| TenantId(Uuid::from_u128(n)));
        let mut placement = Placement::read(dir.path()).expect("nobody");
        assert!(placement.stages().is_empty());

        placement.set(tenants[0], Some(Stage::Moving)).expect("written");
        placement.set(tenants[1], Some(Stage::Moving)).expect("written");
        placement.set(tenants[2], Some(Stage::Moving)).expect("written");
        placement.set(tenants[1], Some(Stage::Settled)).expect("written");
        placement.set(tenants[2], None).expect("written");

        let again = Placement::read(dir.path()).expect("what was set");
        let expected = [(tenants[0], Stage::Moving), (tenants[1], Stage::Settled)];
        assert_eq!(again.stages(), &BTreeMap::from(expected));
    }
}
