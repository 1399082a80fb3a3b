//! The directory of one embedded index: whose vectors it holds, how many shards, and that one process has it.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use serde::{Deserialize, Serialize};

use super::aside;
use super::generation::{Lost, Makings};
use super::keywords::write_whole;
use super::lost::{self, Loss};
use super::placement::{Placement, Stage};
use super::shard::{lock, unavailable};
use crate::TenantId;
use crate::analysis;
use crate::index::IndexError;

/// Number of the layout of directories and files.
const LAYOUT: u32 = 5;

/// Layouts that are taken over when their shards are opened: in the first the engine kept both sides (`migrate`), the
/// second had no facets, the third no tenant with a shard of its own, the fourth no checksums of words. Their number goes first, so that the version that
/// wrote one does not open a directory of which it knows half.
const EARLIER_LAYOUTS: [u32; 4] = [1, 2, 3, 4];

pub(super) const MANIFEST_FILE: &str = "manifest.json";
const LOCK_FILE: &str = "lock";

/// An open collection. The lock falls when it is dropped, or with the process, whichever way that ends.
#[derive(Debug)]
pub(super) struct Collection {
    dir: PathBuf,
    manifest: Manifest,
    /// The shared shards that were made, as the disk has it.
    made: Mutex<BTreeSet<usize>>,
    placement: Mutex<Placement>,
    makings: Mutex<Makings>,
    /// Whether what is damaged is put aside and made anew.
    mends: bool,
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
    /// Shared shards that were made. Earlier versions noted none: what lies there is taken over as it is.
    #[serde(default)]
    made: BTreeSet<usize>,
}

/// What manifests of all versions say.
#[derive(Deserialize)]
struct Written {
    layout: u32,
}

impl Collection {
    /// Opens the collection of `model` below `root`, or makes it with `shards` shards; one that exists keeps its number.
    /// `mends`: what is damaged is put aside and made anew; otherwise it is an error.
    pub(super) fn open(
        root: &Path,
        model: Option<(&str, usize)>,
        shards: usize,
        mends: bool,
    ) -> Result<Self, IndexError> {
        let dir = root.join(directory_name(model));
        fs::create_dir_all(&dir).map_err(|error| unavailable("cannot make the index directory", error))?;
        let lock = acquire(&dir)?;
        let mut makings = Makings::read(&dir);
        let wanted = Manifest {
            layout: LAYOUT,
            analysis: analysis::ANALYSIS,
            model: model.map(|(id, _)| id.to_owned()),
            dimension: model.map(|(_, dimension)| dimension),
            shards: shards.max(1),
            made: BTreeSet::new(),
        };
        let path = dir.join(MANIFEST_FILE);
        let manifest = match fs::read(&path) {
            Ok(bytes) => {
                let mut found = match accept(&dir, &bytes, &wanted) {
                    Err(IndexError::PartDamaged { reason }) if mends => {
                        aside::put_collection_aside(&dir, &reason)
                            .and_then(|()| lock.unlock())
                            .map_err(|error| unavailable("cannot put a damaged index aside", error))?;
                        return Self::open(root, model, shards, mends);
                    }
                    accepted => accepted?,
                };
                if found.analysis != wanted.analysis {
                    // Its terms are those of earlier rules. Another name has all documents put into it again, and
                    // until then most of them are still found.
                    makings
                        .make(Lost::Everything)
                        .map_err(|error| unavailable("cannot name the index anew", error))?;
                }
                if (found.layout, found.analysis) != (LAYOUT, wanted.analysis) {
                    (found.layout, found.analysis) = (LAYOUT, wanted.analysis);
                    write_manifest(&dir, &found)?;
                }
                found
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                makings
                    .make(Lost::Everything)
                    .map_err(|error| unavailable("cannot name the new index", error))?;
                write_manifest(&dir, &wanted)?;
                wanted
            }
            Err(error) => {
                let what = format!("cannot read {}: see to its disk and its rights", path.display());
                return Err(unavailable(&what, error));
            }
        };
        let placement = aside::read_placement(&dir, &mut makings, mends)?;
        let collection = Self {
            dir,
            made: Mutex::new(manifest.made.clone()),
            manifest,
            placement: Mutex::new(placement),
            makings: Mutex::new(makings),
            mends,
            lock,
        };
        collection.set_right_what_is_lost()?;
        Ok(collection)
    }

    /// A shard that was made and lacks a part is never taken for an empty one: the collection gets another name, so that the
    /// documents of all who were in it are put in again and their answers say until then that some are missing. What is left
    /// answers meanwhile. For a process that only looks it is an error: what is away may come back.
    fn set_right_what_is_lost(&self) -> Result<(), IndexError> {
        let made = lock(&self.made).clone();
        let moved = self.stages().into_iter();
        let moved = moved.filter(|(_, stage)| *stage != Stage::Moving);
        let names = made.into_iter().map(ShardName::Shared);
        let names = names.chain(moved.map(|(tenant_id, _)| ShardName::Own(tenant_id)));
        let has_vectors = self.manifest.dimension.is_some();
        let lost: Vec<(ShardName, Loss)> = names
            .filter_map(|name| Some((name, lost::look(&self.shard_dir(name), has_vectors)?)))
            .collect();
        if !self.mends && !lost.is_empty() {
            return Err(self.gone(&lost));
        }
        for (name, loss) in lost {
            let dir = self.shard_dir(name);
            tracing::error!(shard = %dir.display(), lost = loss.name(), "a part of an index shard is gone: what was in the shard is put into the index again");
            self.note_lost(name)
                .map_err(|error| unavailable("cannot name the index anew", error))?;
            match (loss, name) {
                (Loss::Words, ShardName::Shared(number)) => self.forget_made(number)?,
                // What is left of it is removed when the others are opened; the tenant is in the shared one again.
                (Loss::Words, ShardName::Own(tenant_id)) => {
                    self.set_stage(tenant_id, Some(Stage::Moving))?;
                }
                (Loss::Vectors | Loss::RedoLog, _) => {}
            }
        }
        Ok(())
    }

    fn gone(&self, lost: &[(ShardName, Loss)]) -> IndexError {
        let parts = lost.iter().map(|(name, loss)| {
            let dir = self.shard_dir(*name);
            format!("{}: its {} are gone", dir.display(), loss.name())
        });
        IndexError::PartDamaged {
            reason: parts.collect::<Vec<_>>().join("; "),
        }
    }

    /// From now on this counts as another making of the collection, into which what this shard held is put again.
    pub(super) fn note_lost(&self, name: ShardName) -> io::Result<()> {
        let lost = match name {
            ShardName::Shared(shard) => {
                let moved = self
                    .stages()
                    .into_iter()
                    .filter(|(_, stage)| *stage != Stage::Moving);
                let moved = moved.map(|(tenant_id, _)| tenant_id);
                let but = moved
                    .filter(|tenant_id| self.shard_of(*tenant_id) == shard)
                    .collect();
                Lost::Shared { shard, but }
            }
            ShardName::Own(tenant_id) => Lost::Own(tenant_id),
        };
        lock(&self.makings).make(lost)
    }

    /// As [`Collection::note_lost`], before what cannot be read of a redo log is cut off, unless this process only looks.
    pub(super) fn note_damaged_log(&self, name: ShardName) -> io::Result<()> {
        match self.mends {
            true => self.note_lost(name),
            false => Err(io::Error::new(io::ErrorKind::InvalidData, "it is damaged")),
        }
    }

    pub(super) fn mends(&self) -> bool {
        self.mends
    }

    /// Notes durably that a shared shard was made and is on the disk: from now on it is missed.
    pub(super) fn note_made(&self, number: usize) -> Result<(), IndexError> {
        let mut made = lock(&self.made);
        if made.contains(&number) {
            return Ok(());
        }
        File::open(self.shard_dir(ShardName::Shared(number)))
            .and_then(|dir| dir.sync_all())
            .map_err(|error| unavailable("cannot write a new shard down", error))?;
        self.change_made(&mut made, |made| {
            made.insert(number);
        })
    }

    /// Notes durably that a shared shard is to be made again when it is needed.
    pub(super) fn miss_no_more(&self, number: usize) -> Result<(), IndexError> {
        self.change_made(&mut lock(&self.made), |made| {
            made.remove(&number);
        })
    }

    /// Removes what is left of a shared shard, which must not be open. It is made again when it is needed.
    fn forget_made(&self, number: usize) -> Result<(), IndexError> {
        self.miss_no_more(number)?;
        match fs::remove_dir_all(self.shard_dir(ShardName::Shared(number))) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(unavailable("cannot remove what is left of a shard", error))
            }
            _ => Ok(()),
        }
    }

    fn change_made(
        &self,
        made: &mut BTreeSet<usize>,
        change: impl FnOnce(&mut BTreeSet<usize>),
    ) -> Result<(), IndexError> {
        let mut changed = made.clone();
        change(&mut changed);
        let manifest = Manifest {
            made: changed.clone(),
            ..self.manifest.clone()
        };
        write_manifest(&self.dir, &manifest)?;
        *made = changed;
        Ok(())
    }

    /// Which making of the collection this is.
    pub(super) fn generation(&self) -> String {
        lock(&self.makings).name().to_owned()
    }

    /// Whether something of the tenant's may be lost since the collection was called `since`.
    pub(super) fn has_lost(&self, tenant_id: TenantId, since: &str) -> bool {
        lock(&self.makings).has_lost(since, (tenant_id, self.shard_of(tenant_id)))
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
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
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
    let unreadable = |error| IndexError::PartDamaged {
        reason: format!("{}: {error}", dir.join(MANIFEST_FILE).display()),
    };
    // Another version's may have another form.
    let written: Written = serde_json::from_slice(bytes).map_err(unreadable)?;
    let is_known = written.layout == LAYOUT || EARLIER_LAYOUTS.contains(&written.layout);
    let found: Option<Manifest> = match is_known {
        true => Some(serde_json::from_slice(bytes).map_err(unreadable)?),
        false => None,
    };
    let Some(found) = found.filter(|found| found.analysis <= wanted.analysis) else {
        return Err(damaged(
            "written by another version of this program; delete it and index again".to_owned(),
        ));
    };
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

fn write_manifest(dir: &Path, manifest: &Manifest) -> Result<(), IndexError> {
    serde_json::to_vec_pretty(manifest)
        .map_err(io::Error::from)
        .and_then(|bytes| write_whole(&dir.join(MANIFEST_FILE), &bytes))
        .map_err(|error| unavailable("cannot write the index manifest", error))
}

/// `all-minilm-l6-v2-384`, or `keyword-0` without a model.
pub(super) fn directory_name(model: Option<(&str, usize)>) -> String {
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
        let first = Collection::open(root.path(), None, 4, true).expect("free");

        let second = Collection::open(root.path(), None, 4, true).expect_err("taken");
        assert!(matches!(second, IndexError::InUse { .. }));

        drop(first);
        Collection::open(root.path(), None, 4, true).expect("free again");
    }

    #[test]
    fn tenants_stay_in_their_shard_whatever_number_is_asked_for_later() {
        let root = tempfile::tempdir().expect("a temporary directory");
        let tenants: Vec<TenantId> = (0..100_u128)
            .map(|n| TenantId(Uuid::from_u128(n * n + 3)))
            .collect();
        let shards_of = |shards| {
            let collection = Collection::open(root.path(), None, shards, true).expect("free");
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
        drop(Collection::open(root.path(), None, 3, true).expect("free"));
        let path = root.path().join("keyword-0").join(MANIFEST_FILE);
        let read = || fs::read_to_string(&path).expect("the manifest");
        for earlier in [1, 2, 3, 4].map(|earlier| format!("\"layout\": {earlier}")) {
            fs::write(&path, read().replace("\"layout\": 5", &earlier)).expect("written");

            assert_eq!(
                Collection::open(root.path(), None, 4, true)
                    .expect("known")
                    .shards(),
                3
            );

            assert!(read().contains("\"layout\": 5"), "{}", read());
        }
        fs::write(&path, read().replace("\"layout\": 5", "\"layout\": 9")).expect("written");
        let error = Collection::open(root.path(), None, 4, true).expect_err("of a version to come");
        assert!(error.to_string().contains("another version"), "{error}");
    }

    #[test]
    fn a_directory_whose_words_were_read_by_earlier_rules_counts_as_another_making() {
        let root = tempfile::tempdir().expect("a temporary directory");
        let opened =
            || Collection::open(root.path(), None, 3, true).map(|collection| collection.generation());
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
        drop(Collection::open(root.path(), Some(("a/b", 8)), 1, true).expect("free"));

        let error = Collection::open(root.path(), Some(("a-b", 8)), 1, true).expect_err("another model's");

        assert!(error.to_string().contains("a/b"), "{error}");
    }
}
