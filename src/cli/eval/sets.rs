//! Finds the test sets below a folder and reads them.

use std::fs;
use std::path::{Path, PathBuf};

use retrieval::eval::{FaqSet, SetError, TestSet};

use crate::cli::{Failure, failed};

/// A set and what it is called: its folder, below the one that was named.
#[derive(Debug)]
pub(super) struct Found {
    pub name: String,
    pub set: Set,
}

#[derive(Debug)]
pub(super) enum Set {
    Passages(TestSet),
    Faq(FaqSet),
}

/// All sets in `dir` and at most `depth` folders below it: those of passages first, each kind by its names. All are read
/// before the first one is measured, so that a broken line is told at once.
pub(super) fn read_below(dir: &Path, depth: usize) -> Result<Vec<Found>, Failure> {
    if !dir.is_dir() {
        return Err(Failure::NotFound(format!("there is no folder {}", dir.display())));
    }
    let mut folders = Vec::new();
    find(dir, depth, &mut folders)?;
    if folders.is_empty() {
        return Err(Failure::NotFound(format!(
            "there is no test set in {}, nor {depth} folders below it: a set has corpus.jsonl, queries.jsonl and qrels.tsv, or \
             faqs.jsonl and queries.jsonl",
            dir.display()
        )));
    }
    let mut found = Vec::with_capacity(folders.len());
    for folder in folders {
        let set = read(&folder).map_err(|error| Failure::Failed(error.to_string()))?;
        found.push(Found {
            name: name_of(dir, &folder),
            set,
        });
    }
    found.sort_by(|a, b| (a.set.is_faq(), &a.name).cmp(&(b.set.is_faq(), &b.name)));
    Ok(found)
}

/// Folders that hold a set. Nothing below a set is one.
fn find(dir: &Path, depth: usize, folders: &mut Vec<PathBuf>) -> Result<(), Failure> {
    if FaqSet::is_in(dir) || dir.join("corpus.jsonl").exists() {
        folders.push(dir.to_owned());
        return Ok(());
    }
    if depth == 0 {
        return Ok(());
    }
    let unreadable = |error: std::io::Error| failed(format_args!("{} cannot be read", dir.display()), &error);
    for entry in fs::read_dir(dir).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        if path.is_dir() {
            find(&path, depth - 1, folders)?;
        }
    }
    Ok(())
}

fn read(folder: &Path) -> Result<Set, SetError> {
    if FaqSet::is_in(folder) {
        return FaqSet::read(folder).map(Set::Faq);
    }
    TestSet::read(folder).map(Set::Passages)
}

fn name_of(dir: &Path, folder: &Path) -> String {
    let below = folder.strip_prefix(dir).unwrap_or(folder);
    let parts: Vec<_> = below.iter().map(|part| part.to_string_lossy()).collect();
    if parts.is_empty() {
        let own = dir.canonicalize().unwrap_or_else(|_| dir.to_owned());
        return own
            .file_name()
            .map_or_else(|| "set".to_owned(), |name| name.to_string_lossy().into_owned());
    }
    parts.join("/")
}

impl Set {
    fn is_faq(&self) -> bool {
        matches!(self, Self::Faq(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passages(dir: &Path) {
        fs::create_dir_all(dir).expect("made");
        let write = |name: &str, text: &str| fs::write(dir.join(name), text).expect("written");
        write("corpus.jsonl", "{\"_id\": \"d\", \"text\": \"Oak.\"}\n");
        write("queries.jsonl", "{\"_id\": \"q\", \"text\": \"oak\"}\n");
        write("qrels.tsv", "query-id\tcorpus-id\tscore\nq\td\t1\n");
    }

    fn faq(dir: &Path) {
        fs::create_dir_all(dir).expect("made");
        let write = |name: &str, text: &str| fs::write(dir.join(name), text).expect("written");
        write("faqs.jsonl", "{\"_id\": \"f\", \"question\": \"Where?\"}\n");
        write(
            "queries.jsonl",
            "{\"_id\": \"q\", \"text\": \"where\", \"faq_id\": \"f\"}\n",
        );
    }

    fn names(dir: &Path, depth: usize) -> Vec<String> {
        let found = read_below(dir, depth).expect("sets");
        found.into_iter().map(|found| found.name).collect()
    }

    #[test]
    fn sets_are_found_below_a_folder_passages_first_and_each_kind_by_name() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        faq(&dir.path().join("a-faq"));
        passages(&dir.path().join("two").join("en"));
        passages(&dir.path().join("one"));
        fs::create_dir(dir.path().join("nothing")).expect("made");

        assert_eq!(names(dir.path(), 2), ["one", "two/en", "a-faq"]);
        assert_eq!(names(dir.path(), 1), ["one", "a-faq"]);
        assert_eq!(names(&dir.path().join("one"), 0), ["one"]);
    }

    #[test]
    fn a_folder_without_a_set_is_not_found_and_a_broken_line_is_told_with_its_file_and_number() {
        let dir = tempfile::tempdir().expect("a temporary directory");

        for missing in [dir.path().to_owned(), dir.path().join("nowhere")] {
            let failure = read_below(&missing, 3).expect_err("no set");
            assert_eq!(failure.exit_code(), 4, "{failure}");
        }
        passages(dir.path());
        fs::write(
            dir.path().join("queries.jsonl"),
            "{\"_id\": \"q\", \"text\": \"oak\"}\n{\n",
        )
        .expect("written");
        let failure = read_below(dir.path(), 3).expect_err("a broken line");
        assert_eq!(failure.exit_code(), 1);
        assert!(failure.to_string().contains("queries.jsonl, line 2"), "{failure}");
        passages(dir.path());
        fs::remove_file(dir.path().join("qrels.tsv")).expect("removed");
        let failure = read_below(dir.path(), 3).expect_err("a missing file");
        assert!(failure.to_string().contains("qrels.tsv"), "{failure}");
    }
}
