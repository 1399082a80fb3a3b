//! Shards that were made and lack a part by now: a restore that missed a folder, a disk that lost one. Opened as it lies
//! there, such a shard would be taken for one that is empty.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::keywords;
use super::shard::REDO_LOG_FILE;
use super::sides::{keywords_dir, vectors_dir};

/// What a shard has lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Loss {
    /// Its words, or all of it. By the words a shard lists what it holds: what else is left of it is of no use.
    Words,
    /// The rest goes on answering.
    Vectors,
    /// Operations that were acknowledged and may not be in its files.
    RedoLog,
}

impl Loss {
    /// Where it lies, in the folder of its shard.
    pub(super) fn path(self, dir: &Path) -> PathBuf {
        match self {
            Self::Words => dir.to_owned(),
            Self::Vectors => vectors_dir(dir),
            Self::RedoLog => dir.join(REDO_LOG_FILE),
        }
    }

    /// For people.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Words => "words",
            Self::Vectors => "vectors",
            Self::RedoLog => "redo log",
        }
    }
}

/// What a shard in `dir` that was made has lost; none: it is whole.
pub(super) fn look(dir: &Path, has_vectors: bool) -> Option<Loss> {
    if !keywords::is_made(&keywords_dir(dir)) {
        return Some(Loss::Words);
    }
    if has_vectors && !has_segments(&vectors_dir(dir)) {
        return Some(Loss::Vectors);
    }
    (!is_there(&dir.join(REDO_LOG_FILE))).then_some(Loss::RedoLog)
}

/// Whether the engine has anything to open there: where it has not, it makes something empty.
fn has_segments(vectors_dir: &Path) -> bool {
    match fs::read_dir(vectors_dir.join("segments")) {
        Ok(mut entries) => entries.next().is_some(),
        Err(error) => error.kind() != io::ErrorKind::NotFound,
    }
}

/// Whether there is a file, or one that cannot be looked at: that is told when it is opened, and nothing is lost by it.
pub(super) fn is_there(path: &Path) -> bool {
    path.try_exists().unwrap_or(true)
}
