//! Which files a command line names: folders are walked through, links and hidden files left alone.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::cli::{Failure, failed};

/// How deep folders may nest.
const MAX_DEPTH: usize = 64;

/// Longest name that the server keeps whole, in characters.
const MAX_NAME_CHARS: usize = 200;

/// A file to send.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct FoundFile {
    pub path: PathBuf,
    /// What the document is called: in a folder, the way from the folder to the file, so that two files of one name
    /// are two documents.
    pub name: String,
    pub size_bytes: u64,
    /// The command line names this very file, so leaving it out is a failure.
    pub is_named: bool,
}

/// What the command line's paths lead to.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub files: Vec<FoundFile>,
    /// Lines for what was left out.
    pub skipped: Vec<String>,
}

/// All files below `paths`, in the order of their names.
pub(super) fn find_files(paths: &[PathBuf]) -> Result<Found, Failure> {
    let mut found = Found::default();
    let mut taken = BTreeSet::new();
    for path in paths {
        let metadata = std::fs::metadata(path).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => {
                Failure::Usage(format!("there is no file or folder {}", path.display()))
            }
            _ => failed(path.display(), &error),
        })?;
        if metadata.is_dir() {
            walk(path, &mut Vec::new(), &mut found)?;
        } else if metadata.is_file() {
            let name = path.file_name().unwrap_or(path.as_os_str());
            found.files.push(FoundFile {
                path: path.clone(),
                name: clean(&name.to_string_lossy()),
                size_bytes: metadata.len(),
                is_named: true,
            });
        } else {
            // A pipe or a device may never end.
            let what = format!("{} is neither a file nor a folder", path.display());
            return Err(Failure::Usage(what));
        }
    }
    for file in &found.files {
        if !taken.insert(&file.name) {
            return Err(Failure::Usage(format!(
                "two files would be called {}: send them one after the other from their own folder, or rename one",
                file.name
            )));
        }
    }
    Ok(found)
}

/// Adds what is in `folder`, which lies `above` the folder that was named.
fn walk(folder: &Path, above: &mut Vec<String>, found: &mut Found) -> Result<(), Failure> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if above.is_empty() => return Err(failed(folder.display(), &error)),
        Err(error) => {
            found.skipped.push(format!("{}: {error}", folder.display()));
            return Ok(());
        }
    };
    let mut entries: Vec<_> = entries.filter_map(Result::ok).collect();
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = entry.path();
        let Ok(kind) = entry.file_type() else { continue };
        if name.starts_with('.') {
            continue;
        }
        if kind.is_dir() && above.len() < MAX_DEPTH {
            above.push(name);
            walk(&path, above, found)?;
            above.pop();
        } else if kind.is_file() {
            let size_bytes = entry.metadata().map_or(0, |metadata| metadata.len());
            let name = full_name(above, &name);
            found.files.push(FoundFile {
                path,
                name,
                size_bytes,
                is_named: false,
            });
        } else {
            let what = if kind.is_symlink() {
                "a link"
            } else {
                "no plain file"
            };
            found.skipped.push(format!("{}: {what}", path.display()));
        }
    }
    Ok(())
}

/// The way from the folder that was named to the file. Of a long one the end is kept, which tells more.
fn full_name(above: &[String], name: &str) -> String {
    let mut parts: Vec<&str> = above.iter().map(String::as_str).collect();
    parts.push(name);
    let whole = clean(&parts.join(" - "));
    let too_many = whole.chars().count().saturating_sub(MAX_NAME_CHARS);
    whole.chars().skip(too_many).collect()
}

/// A name without characters that are for machines: they would end a header, or order a terminal about.
fn clean(name: &str) -> String {
    name.chars().filter(|character| !character.is_control()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(found: &Found) -> Vec<&str> {
        found.files.iter().map(|file| file.name.as_str()).collect()
    }

    #[test]
    fn a_folder_gives_all_files_below_it_but_hidden_ones_and_links() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let root = folder.path();
        std::fs::create_dir_all(root.join("guides/old")).expect("made");
        std::fs::create_dir_all(root.join(".git")).expect("made");
        for file in [
            "index.md",
            "guides/index.md",
            "guides/old/a.txt",
            ".git/config",
            ".env",
            "z.pdf",
        ] {
            std::fs::write(root.join(file), "text").expect("written");
        }
        std::os::unix::fs::symlink("/etc/passwd", root.join("link.txt")).expect("linked");
        std::os::unix::fs::symlink(root, root.join("guides/loop")).expect("linked");

        let found = find_files(&[root.to_owned()]).expect("found");

        assert_eq!(
            names(&found),
            ["guides - index.md", "guides - old - a.txt", "index.md", "z.pdf"]
        );
        assert_eq!(found.skipped.len(), 2, "{:?}", found.skipped);
    }

    #[test]
    fn a_single_file_keeps_its_name_and_a_missing_one_stops_everything() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = folder.path().join("price list.csv");
        std::fs::write(&file, "a,b").expect("written");

        let found = find_files(std::slice::from_ref(&file)).expect("found");

        assert_eq!(names(&found), ["price list.csv"]);
        assert_eq!(found.files[0].size_bytes, 3);
        let missing = find_files(&[file, folder.path().join("absent.md")]);
        assert_eq!(missing.expect_err("refused").exit_code(), 2);
    }

    #[test]
    fn names_hold_nothing_that_orders_a_terminal_about() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        for name in ["new\nline.md", "\u{1b}[2Jred.md"] {
            std::fs::write(folder.path().join(name), "text").expect("written");
        }

        let found = find_files(&[folder.path().to_owned()]).expect("found");

        assert_eq!(names(&found), ["[2Jred.md", "newline.md"]);
    }

    #[test]
    fn what_may_never_end_is_refused() {
        let refused = find_files(&["/dev/null".into()]);

        assert_eq!(refused.expect_err("refused").exit_code(), 2);
    }

    #[test]
    fn two_files_of_one_name_are_refused_rather_than_one_lost() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let paths = ["a", "b"].map(|name| {
            let inner = folder.path().join(name);
            std::fs::create_dir(&inner).expect("made");
            std::fs::write(inner.join("index.md"), name).expect("written");
            inner.join("index.md")
        });

        assert_eq!(find_files(&paths).expect_err("refused").exit_code(), 2);
    }

    #[test]
    fn of_a_long_way_the_end_is_kept() {
        let name = full_name(&["x".repeat(300)], "index.md");

        assert_eq!(name.chars().count(), MAX_NAME_CHARS);
        assert!(name.ends_with("x - index.md"));
    }
}
