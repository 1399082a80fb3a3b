//! The directory of one embedded index: whose vectors it holds, how many shards, and that one process has it.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use serde::{Deserialize, Serialize};

use super::generation;
use super::placement::{Placement, Stage};
use super::shard::{lock, unavailable};
use crate::TenantId;
use crate::analysis;
use crate::index::IndexError;

/// Number of the layout of directories and files.
const LAYOUT: u32 = 4;

/// Layouts that are taken over when their shards are opened: in the first the engine kept both sides (`migrate`), the
/// second had no facets, the third no tenant with a shard of its own. Their number goes first, so that the version that
/// wrote one does not open a directory of which it knows half.
const EARLIER_LAYOUTS: [u32; 3] = [1, 2, 3];

pub(super) const MANIFEST_FILE: &str = "manifest.json";
const LOCK_FILE: &str = "lock";

/// An open collection. The lock falls when it is dropped, or with the process, whichever way that ends.
#[derive(Debug)]
pub(super) struct Collection {
    dir: PathBuf,
    manifest: Manifest,
    placement: Mutex<Placement>,
    lock: File,
}

/// Which shard of a collection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ShardName {
    /// One of the few that all other tenants share.
    Shared(usize),
    /// A large tenant's own.
    Own(TenantId),
}

impl Drop for Collection {
    fn drop(&mut self) {
        // In so many words: a child that was just forked shares the file, and would keep a lock that falls by closing.
        let _ = self.lock.unlock();
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Manifest {
    layout: u32,
    analysis: u32,
    model: Option<String>,
    dimension: Option<usize>,
    shards: usize,
}

impl Collection {
    /// Opens the collection of `model` below `root`, or makes it with `shards` shards; one that exists keeps its number.
    pub(super) fn open(root: &Path, model: Option<(&str, usize)>, shards: usize) -> Result<Self, IndexError> {
        let dir = root.join(directory_name(model));
        fs::create_dir_all(&dir).map_err(|error| unavailable("cannot make the index directory", error))?;
        let lock = acquire(&dir)?;
        let wanted = Manifest {
            layout: LAYOUT,
            analysis: analysis::ANALYSIS,
            model: model.map(|(id, _)| id.to_owned()),
            dimension: model.map(|(_, dimension)| dimension),
            shards: shards.max(1),
        };
        let path = dir.join(MANIFEST_FILE);
        let manifest = match fs::read(&path) {
            Ok(bytes) => {
                let mut found = accept(&dir, &bytes, &wanted)?;
                if found.analysis != wanted.analysis {
                    // Its terms are those of earlier rules. Another name has all documents put into it again, and
                    // until then most of them are still found.
                    generation::make(&dir)
                        .map_err(|error| unavailable("cannot name the index anew", error))?;
                }
                if (found.layout, found.analysis) != (LAYOUT, wanted.analysis) {
                    (found.layout, found.analysis) = (LAYOUT, wanted.analysis);
                    write_whole(&path, &found)
                        .map_err(|error| unavailable("cannot write the index manifest", error))?;
                }
                found
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                generation::make(&dir).map_err(|error| unavailable("cannot name the new index", error))?;
                write_whole(&path, &wanted)
                    .map_err(|error| unavailable("cannot write the index manifest", error))?;
                wanted
            }
            Err(error) => return Err(unavailable("cannot read the index manifest", error)),
        };
        let placement = Placement::read(&dir)
            .map_err(|error| unavailable("cannot read which tenants have a shard of their own", error))?;
        Ok(Self {
            dir,
            manifest,
            placement: Mutex::new(placement),
            lock,
        })
    }

    /// Which making of the collection this is.
    pub(super) fn generation(&self) -> String {
        generation::read(&self.dir)
    }

    pub(super) fn dimension(&self) -> Option<usize> {
        self.manifest.dimension
    }

    pub(super) fn shards(&self) -> usize {
        self.manifest.shards
    }

    /// The shared shard that holds this tenant, now and after every restart, unless it has its own.
    pub(super) fn shard_of(&self, tenant_id: TenantId) -> usize {
        // The low half of a UUIDv7, and of a v4, is random.
        let (_, random) = tenant_id.0.as_u64_pair();
        (random % self.manifest.shards as u64) as usize
    }

    pub(super) fn shard_dir(&self, name: ShardName) -> PathBuf {
        self.dir.join(match name {
            ShardName::Shared(number) => format!("shard-{number}"),
            ShardName::Own(tenant_id) => format!("tenant-{tenant_id}"),
        })
    }

    /// The tenants that have a shard of their own or are on the way there.
    pub(super) fn stages(&self) -> Vec<(TenantId, Stage)> {
        let placement = lock(&self.placement);
        placement
            .stages()
            .iter()
            .map(|(id, stage)| (*id, *stage))
            .collect()
    }

    pub(super) fn stage(&self, tenant_id: TenantId) -> Option<Stage> {
        lock(&self.placement).stages().get(&tenant_id).copied()
    }

    /// Notes durably how far the tenant is; `None`: it is in its shared shard.
    pub(super) fn set_stage(&self, tenant_id: TenantId, stage: Option<Stage>) -> Result<(), IndexError> {
        lock(&self.placement)
            .set(tenant_id, stage)
            .map_err(|error| unavailable("cannot note which tenants have a shard of their own", error))
    }

    /// Removes what lies in the place of the tenant's own shard, which must not be open.
    pub(super) fn remove_own(&self, tenant_id: TenantId) -> Result<(), IndexError> {
        match fs::remove_dir_all(self.shard_dir(ShardName::Own(tenant_id))) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(unavailable("cannot remove a tenant's own shard", error))
            }
            _ => Ok(()),
        }
    }
}

/// Locks the collection in `dir`, for as long as the file lives.
pub(super) fn acquire(dir: &Path) -> Result<File, IndexError> {
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(dir.join(LOCK_FILE))
        .map_err(|error| unavailable("cannot open the index lock", error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(IndexError::InUse {
            dir: dir.display().to_string(),
        }),
        Err(TryLockError::Error(error)) => Err(unavailable("cannot lock the index directory", error)),
    }
}

fn accept(dir: &Path, bytes: &[u8], wanted: &Manifest) -> Result<Manifest, IndexError> {
    let damaged = |reason: String| IndexError::Damaged {
        reason: format!("{}: {reason}", dir.display()),
    };
    let found: Manifest = serde_json::from_slice(bytes)
        .map_err(|error| damaged(format!("the manifest cannot be read: {error}")))?;
    let is_known = found.layout == LAYOUT || EARLIER_LAYOUTS.contains(&found.layout);
    if !is_known || found.analysis > wanted.analysis {
        return Err(damaged(
            "written by another version of this program; delete it and index again".to_owned(),
        ));
    }
    if (&found.model, found.dimension) != (&wanted.model, wanted.dimension) {
        let model = found.model.as_deref().unwrap_or("no model");
        return Err(damaged(format!(
            "holds vectors of {model}; delete it and index again"
        )));
    }
    if found.shards == 0 {
        return Err(damaged("the manifest names no shards".to_owned()));
    }
    Ok(found)
}

/// Writes the file so that a crash leaves all of it or none.
fn write_whole(path: &Path, manifest: &Manifest) -> std::io::Result<()> {
    let unfinished = path.with_extension("new");
    let mut file = File::create(&unfinished)?;
    file.write_all(&serde_json::to_vec_pretty(manifest)?)?;
    file.sync_all()?;
    fs::rename(&unfinished, path)
}

/// `all-minilm-l6-v2-384`, or `keyword-0` without a model.
fn directory_name(model: Option<(&str, usize)>) -> String {
    let (id, dimension) = model.unwrap_or(("keyword", 0));
    let slug: String = id
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() {
                c.to_ascii_lowercase()
            } else {
                '-'
            }
        })
        .collect();
    format!("{slug}-{dimension}")
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn directories_are_named_after_model_and_dimension() {
        assert_eq!(
            directory_name(Some(("all-MiniLM-L6-v2", 384))),
            "all-minilm-l6-v2-384"
        );
        assert_eq!(directory_name(Some(("../evil/model", 8))), "---evil-model-8");
        assert_eq!(directory_name(None), "keyword-0");
    }

    #[test]
    fn a_directory_is_open_once() {
        let root = tempfile::tempdir().expect("a temporary directory");
        let first = Collection::open(root.path(), None, 4).expect("free");

        let second = Collection::open(root.path(), None, 4).expect_err("taken");
        assert!(matches!(second, IndexError::InUse { .. }));

        drop(first);
        Collection::open(root.path(), None, 4).expect("free again");
    }

    #[test]
    fn tenants_stay_in_their_shard_whatever_number_is_asked_for_later() {
        let root = tempfile::tempdir().expect("a temporary directory");
        let tenants: Vec<TenantId> = (0..100_u128)
            .map(|n| TenantId(Uuid::from_u128(n * n + 3)))
            .collect();
        let shards_of = |shards| {
            let collection = Collection::open(root.path(), None, shards).expect("free");
            tenants
                .iter()
                .map(|tenant| collection.shard_of(*tenant))
                .collect::<Vec<_>>()
        };

        assert_eq!(shards_of(4), shards_of(9));
    }

    #[test]
    fn a_directory_of_an_earlier_version_is_opened_and_from_then_on_ours() {
        let root = tempfile::tempdir().expect("a temporary directory");
        drop(Collection::open(root.path(), None, 3).expect("free"));
        let path = root.path().join("keyword-0").join(MANIFEST_FILE);
        let read = || fs::read_to_string(&path).expect("the manifest");
        for earlier in ["\"layout\": 1", "\"layout\": 2", "\"layout\": 3"] {
            fs::write(&path, read().replace("\"layout\": 4", earlier)).expect("written");

            assert_eq!(Collection::open(root.path(), None, 4).expect("known").shards(), 3);

            assert!(read().contains("\"layout\": 4"), "{}", read());
        }
        fs::write(&path, read().replace("\"layout\": 4", "\"layout\": 9")).expect("written");
        let error = Collection::open(root.path(), None, 4).expect_err("of a version to come");
        assert!(error.to_string().contains("another version"), "{error}");
    }

    #[test]
    fn a_directory_whose_words_were_read_by_earlier_rules_counts_as_another_making() {
        let root = tempfile::tempdir().expect("a temporary directory");
        let opened = || Collection::open(root.path(), None, 3).map(|collection| collection.generation());
        let made = opened().expect("free");
        let path = root.path().join("keyword-0").join(MANIFEST_FILE);
        let present = format!("\"analysis\": {}", analysis::ANALYSIS);
        let rewrite = |analysis: u32| {
            let manifest = fs::read_to_string(&path).expect("the manifest");
            assert!(manifest.contains(&present), "{manifest}");
            let other = format!("\"analysis\": {analysis}");
            fs::write(&path, manifest.replace(&present, &other)).expect("written");
        };

        rewrite(analysis::ANALYSIS - 1);
        let anew = opened().expect("taken over");
        assert_ne!(anew, made);
        assert_eq!(opened().expect("ours from then on"), anew);

        rewrite(analysis::ANALYSIS + 1);
        let error = opened().expect_err("of a version to come").to_string();
        assert!(error.contains("another version"), "{error}");
    }

    #[test]
    fn a_model_whose_directory_another_one_has_is_refused() {
        let root = tempfile::tempdir().expect("a temporary directory");
        drop(Collection::open(root.path(), Some(("a/b", 8)), 1).expect("free"));

        let error = Collection::open(root.path(), Some(("a-b", 8)), 1).expect_err("another model's");

        assert!(error.to_string().contains("a/b"), "{error}");
    }
}
