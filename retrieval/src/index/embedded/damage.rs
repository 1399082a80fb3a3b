//! Files of a shard that are not what was written: torn, emptied, overwritten, or gone. The rows have all that was in them, so
//! the part is put aside (`aside`) and made anew. Where it is the machine that fails, with its room, its rights or its memory,
//! nothing is wrong with the files, and they stay where they are.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use super::lost::Loss;
use crate::index::IndexError;

/// What the system says of files that are not as they should be. All else that it says is about the machine.
const ABOUT_FILES: [Errno; 6] = [
    Errno::NOENT,
    Errno::EXIST,
    Errno::NOTDIR,
    Errno::ISDIR,
    Errno::INVAL,
    Errno::OVERFLOW,
];

/// How an error of the system's says its number, in its text and in that of a panic. The engine hands on no more than text.
const NUMBER_FOLLOWS: [&str; 2] = ["os error ", "Os { code: "];

/// How the engine says that memory is short.
const OUT_OF_MEMORY: &str = "Out of memory";

/// Says in a shard's folder that its words are damaged though they open, and how.
const NOTE: &str = "damaged";

/// A part of a shard that does not open.
#[derive(Debug, thiserror::Error)]
#[error("{}: {reason}", .dir.display())]
pub(super) struct Broken {
    /// The shard's folder.
    pub(super) dir: PathBuf,
    pub(super) part: Loss,
    pub(super) reason: String,
}

/// Why a shard is not open.
pub(super) enum Unopened {
    Broken(Broken),
    Failed(IndexError),
}

impl Broken {
    /// Whether its files may be as good as ever.
    pub(super) fn is_of_the_machine(&self) -> bool {
        let numbers = NUMBER_FOLLOWS.iter().flat_map(|before| {
            let behind = self.reason.split(before).skip(1);
            behind.filter_map(|text| text.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok())
        });
        let mut faults = numbers.filter(|number: &i32| {
            ABOUT_FILES
                .iter()
                .all(|about_files| about_files.raw_os_error() != *number)
        });
        faults.next().is_some() || self.reason.contains(OUT_OF_MEMORY)
    }
}

/// Has the shard in `dir` put aside at the next start: some of its words are not what was written.
pub(super) fn note(dir: &Path, reason: &str) {
    let shard = dir.display();
    match fs::write(dir.join(NOTE), reason) {
        Ok(()) => {
            tracing::error!(%shard, reason, "an index shard is damaged, and some words may not be found: the next start puts it aside and fills it again")
        }
        Err(error) => {
            tracing::error!(%shard, reason, %error, "an index shard is damaged, and that cannot be noted: frontdesk index repair puts it right")
        }
    }
}

/// Why the shard in `dir` is to be put aside, if it is.
pub(super) fn noted(dir: &Path) -> Option<Broken> {
    let reason = fs::read_to_string(dir.join(NOTE)).ok()?;
    Some(Broken {
        dir: dir.to_owned(),
        part: Loss::Words,
        reason,
    })
}

impl From<Broken> for IndexError {
    fn from(broken: Broken) -> Self {
        if !broken.is_of_the_machine() {
            return Self::PartDamaged {
                reason: broken.to_string(),
            };
        }
        Self::Unavailable {
            reason: format!(
                "{broken}: see to the disk of this folder, its room and its rights, and to this machine's limits; \
                 if the files are beyond help, remove the folder, and it is filled again from the rows"
            ),
            source: None,
        }
    }
}

impl From<Broken> for Unopened {
    fn from(broken: Broken) -> Self {
        Self::Broken(broken)
    }
}

impl From<IndexError> for Unopened {
    fn from(error: IndexError) -> Self {
        Self::Failed(error)
    }
}

impl From<Unopened> for IndexError {
    fn from(unopened: Unopened) -> Self {
        match unopened {
            Unopened::Broken(broken) => broken.into(),
            Unopened::Failed(error) => error,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io;

    use super::*;

    fn broken(reason: impl ToString) -> Broken {
        Broken {
            dir: PathBuf::from("shard-2"),
            part: Loss::Words,
            reason: reason.to_string(),
        }
    }

    #[test]
    fn what_the_files_hold_is_damage_and_what_the_machine_lacks_is_not() {
        let gone = File::open("no/such/file").expect_err("it is not there");
        let is_folder = io::Error::from(Errno::ISDIR);
        for of_files in [
            broken("keyword segment with a torn end"),
            broken("EOF while parsing a value at line 1 column 0"),
            broken(&gone),
            broken(format!("called `Result::unwrap()` on an `Err` value: {gone:?}")),
            broken(is_folder),
        ] {
            assert!(!of_files.is_of_the_machine(), "{of_files}");
            let error = IndexError::from(of_files);
            assert!(matches!(error, IndexError::PartDamaged { .. }), "{error}");
        }

        for errno in [Errno::ACCESS, Errno::IO, Errno::NOSPC, Errno::MFILE, Errno::NOMEM] {
            let fault = io::Error::from(errno);
            for of_the_machine in [
                broken(&fault),
                broken(format!(
                    "failed to load segment: failed to open file `x`: {fault}"
                )),
                broken(format!("called `Result::unwrap()` on an `Err` value: {fault:?}")),
            ] {
                assert!(of_the_machine.is_of_the_machine(), "{of_the_machine}");
                let told = IndexError::from(of_the_machine).to_string();
                assert!(
                    told.contains("shard-2: ") && told.contains("remove the folder"),
                    "{told}"
                );
            }
        }
        assert!(broken("Out of memory, free: 7, IO Error").is_of_the_machine());
    }
}
