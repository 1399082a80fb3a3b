//! Puts aside what of a collection is damaged, so that it is made anew and filled again from the rows. What was put aside is
//! read by nobody here: for an hour it is there for whoever wants to know what happened, the latest of each place.

use std::ffi::OsStr;
use std::fs::{self, DirEntry};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::collection::{Collection, ShardName};
use super::damage::Broken;
use super::generation::{Lost, Makings};
use super::lost::Loss;
use super::placement::{Placement, Stage};
use super::shard::unavailable;
use crate::TenantId;
use crate::index::IndexError;

const SUFFIX: &str = "damaged";

/// What the system counts the size of a file's blocks in.
const BLOCK_BYTES: u64 = 512;

impl Collection {
    /// Puts a part of a shard aside, which must not be open; who was in it is put into the index again. A tenant whose own
    /// shard has no words any more is back in the shared one.
    pub(super) fn put_aside(&self, name: ShardName, broken: Broken) -> Result<(), IndexError> {
        if broken.is_of_the_machine() || !self.mends() {
            return Err(broken.into());
        }
        let failed = |error| unavailable("cannot put aside what of a shard is damaged", error);
        self.note_lost(name).map_err(failed)?;
        if let (Loss::Words, ShardName::Shared(number)) = (broken.part, name) {
            self.miss_no_more(number)?;
        }
        let dir = self.shard_dir(name);
        let aside = move_aside(&dir, broken.part).map_err(failed)?;
        if let (Loss::Words, ShardName::Own(tenant_id)) = (broken.part, name) {
            self.set_stage(tenant_id, Some(Stage::Moving))?;
        }
        tell(&broken.to_string(), &aside);
        Ok(())
    }
}

/// Removes what was put aside `at_least` so long ago below `root`, the folder of an index: it may hold what was deleted since. How
/// much there was.
pub fn remove_put_aside(root: &Path, at_least: Duration) -> io::Result<usize> {
    let mut removed = 0;
    let folders = children(root)?
        .into_iter()
        .filter(|path| path.is_dir() && !is_aside(path));
    for folder in [root.to_owned()].into_iter().chain(folders) {
        for aside in children(&folder)?.iter().filter(|path| is_aside(path)) {
            if time_since(aside)? >= at_least {
                remove(aside)?;
                removed += 1;
            }
        }
    }
    Ok(removed)
}

fn children(dir: &Path) -> io::Result<Vec<PathBuf>> {
    match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        entries => entries?.map(|entry| Ok(entry?.path())).collect(),
    }
}

/// How long ago it was put there. Renaming changes an inode, and no time of its contents.
fn time_since(aside: &Path) -> io::Result<Duration> {
    let changed = u64::try_from(fs::symlink_metadata(aside)?.ctime()).unwrap_or_default();
    let since = SystemTime::UNIX_EPOCH + Duration::from_secs(changed);
    Ok(since.elapsed().unwrap_or_default())
}

/// Puts a whole collection aside of which nobody can tell how it is laid out.
pub(super) fn put_collection_aside(dir: &Path, reason: &str) -> io::Result<()> {
    let aside = aside_of(dir);
    clear(&aside)?;
    fs::rename(dir, &aside)?;
    tell(reason, &aside);
    Ok(())
}

/// Who has a shard of their own. Where that cannot be read, the folders tell.
pub(super) fn read_placement(
    dir: &Path,
    makings: &mut Makings,
    mends: bool,
) -> Result<Placement, IndexError> {
    let error = match Placement::read(dir) {
        Ok(placement) => return Ok(placement),
        Err(error) => error,
    };
    let file = Placement::path(dir);
    let failed = |error| {
        let what = format!("cannot read {}: see to its disk and its rights", file.display());
        unavailable(&what, error)
    };
    match error.kind() {
        io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof if mends => {
            place_by_folders(dir, makings, &error).map_err(failed)
        }
        io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => Err(IndexError::PartDamaged {
            reason: format!("{}: {error}", file.display()),
        }),
        _ => Err(failed(error)),
    }
}

/// Which tenants of the collection in `dir` have a shard of their own, by the folders there: the file that says so cannot be
/// read, as `reason` says. Whatever their shards hold counts, and is put in again.
fn place_by_folders(dir: &Path, makings: &mut Makings, reason: &io::Error) -> io::Result<Placement> {
    let mut owners = Vec::new();
    for entry in fs::read_dir(dir)? {
        owners.extend(owner_of(&entry?)?);
    }
    for owner in &owners {
        makings.make(Lost::Own(*owner))?;
    }
    let file = Placement::path(dir);
    let aside = aside_of(&file);
    match fs::rename(&file, &aside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    tell(&format!("{}: {reason}", file.display()), &aside);
    Placement::of(dir, owners.into_iter().map(|owner| (owner, Stage::Sweeping)))
}

/// Whether it was put aside here.
pub(super) fn is_aside(path: &Path) -> bool {
    path.extension() == Some(OsStr::new(SUFFIX))
}

/// The tenant whose own shard it is, if it is one.
pub(super) fn owner_of(entry: &DirEntry) -> io::Result<Option<TenantId>> {
    let name = entry.file_name();
    let id = name.to_str().and_then(|name| name.strip_prefix("tenant-"));
    let owner = id.and_then(|id| id.parse().ok()).map(TenantId);
    Ok(owner.filter(|_| entry.file_type().is_ok_and(|kind| kind.is_dir())))
}

/// Where the part of the shard in `dir` was put.
fn move_aside(dir: &Path, part: Loss) -> io::Result<PathBuf> {
    let aside = aside_of(dir);
    clear(&aside)?;
    let (from, to) = (part.path(dir), part.path(&aside));
    if part != Loss::Words {
        fs::create_dir(&aside)?;
    }
    fs::rename(from, to)?;
    Ok(aside)
}

fn aside_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(SUFFIX);
    name.into()
}

/// Removes what was put there before.
fn clear(aside: &Path) -> io::Result<()> {
    match remove(aside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn remove(aside: &Path) -> io::Result<()> {
    match fs::symlink_metadata(aside)?.is_dir() {
        true => fs::remove_dir_all(aside),
        false => fs::remove_file(aside),
    }
}

fn tell(damage: &str, aside: &Path) {
    tracing::error!(
        damage,
        aside = %aside.display(),
        size_bytes = bytes_of(aside),
        "a part of the index is damaged and was put aside: it is filled again from the rows, and until then answers of whom it concerns say that some are not found. What was put aside is removed in one to two hours: keep a copy to look into it"
    );
}

/// What it takes of the disk, as far as that can be told.
fn bytes_of(path: &Path) -> u64 {
    let Ok(metadata) = fs::symlink_metadata(path) else {
        return 0;
    };
    let own = metadata.blocks() * BLOCK_BYTES;
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    own + entries.map(|entry| bytes_of(&entry.path())).sum::<u64>()
}
