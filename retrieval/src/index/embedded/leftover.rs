//! Collections of models that nobody uses any more. When the last tenant has left, nothing but empty shards is in one, and
//! the next start of the index removes it.

use std::fs;
use std::io;
use std::path::Path;

use super::aside::is_aside;
use super::collection::{MANIFEST_FILE, acquire};
use super::keywords;
use super::shard::REDO_LOG_FILE;
use super::sides::keywords_dir;

/// Removes the collections below `root` that hold nothing; those that are open stay.
pub(super) fn remove_empty(root: &Path) {
    let entries = fs::read_dir(root).into_iter().flatten().flatten();
    for dir in entries.map(|entry| entry.path()) {
        match remove_if_empty(&dir) {
            Ok(true) => tracing::info!(collection = %dir.display(), "empty index removed"),
            Ok(false) => {}
            Err(error) => {
                tracing::warn!(collection = %dir.display(), %error, "cannot look whether an index is empty");
            }
        }
    }
}

fn remove_if_empty(dir: &Path) -> io::Result<bool> {
    if !dir.join(MANIFEST_FILE).is_file() || is_aside(dir) {
        return Ok(false);
    }
    // Somebody has it.
    let Ok(_lock) = acquire(dir) else {
        return Ok(false);
    };
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() && !is_empty_shard(&entry.path())? {
            return Ok(false);
        }
    }
    fs::remove_dir_all(dir)?;
    Ok(true)
}

/// Whether a shard was closed with nothing in it. One of which that is not written down may hold anything.
fn is_empty_shard(dir: &Path) -> io::Result<bool> {
    if is_aside(dir) {
        return Ok(false);
    }
    let is_shared = dir
        .file_name()
        .is_some_and(|name| name.to_string_lossy().starts_with("shard-"));
    let has_nothing_to_repeat = match fs::metadata(dir.join(REDO_LOG_FILE)) {
        Ok(log) => log.len() == 0,
        Err(_) => false,
    };
    Ok(is_shared && has_nothing_to_repeat && keywords::says_empty(&keywords_dir(dir))?)
}
