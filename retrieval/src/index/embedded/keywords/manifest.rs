//! Which files of the keyword side count.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::super::lost::is_there;
use super::facets::FacetFile;

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Manifest {
    pub(super) next_number: u64,
    pub(super) segments: Vec<ManifestEntry>,
    /// Absent where no document has facets, and in manifests of earlier versions.
    #[serde(default)]
    pub(super) facets: Option<FacetFile>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ManifestEntry {
    pub(super) number: u64,
    /// The file that names its deleted chunks.
    pub(super) deletions: Option<u64>,
}

impl Manifest {
    pub(super) fn read(dir: &Path) -> io::Result<Self> {
        Ok(serde_json::from_slice(&fs::read(path(dir))?)?)
    }

    pub(super) fn write(&self, dir: &Path) -> io::Result<()> {
        write_whole(&path(dir), &serde_json::to_vec(self)?)
    }
}

pub(super) fn path(dir: &Path) -> PathBuf {
    dir.join("manifest.json")
}

/// Whether there is a keyword side in `dir`.
pub(in super::super) fn is_made(dir: &Path) -> bool {
    is_there(&path(dir))
}

/// Writes the file so that a crash leaves all of it or what was there before.
pub(in super::super) fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let unfinished = path.with_extension("new");
    let mut file = File::create(&unfinished)?;
    file.write_all(bytes)?;
    file.sync_data()?;
    fs::rename(&unfinished, path)?;
    match path.parent() {
        // The name is on the disk when the directory is; so are those of files made before it.
        Some(dir) => File::open(dir)?.sync_all(),
        None => Ok(()),
    }
}
