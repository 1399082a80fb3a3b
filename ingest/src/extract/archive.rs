//! Zip archives of files: every member that can be read, under a heading with its name. Members are read from
//! memory, one at a time, and their names are only shown, so no path leads anywhere.

use super::inside::Inside;
use super::package::Package;
use super::scope::Scope;
use crate::document::{DocumentBuilder, clean_prose};
use crate::{ExtractError, ExtractedDocument};

/// The level of the headings that members' names become.
const NAME_LEVEL: u8 = 1;

/// What systems add to archives unasked.
const JUNK_FOLDERS: [&str; 1] = ["__MACOSX"];
const JUNK_FILES: [&str; 3] = ["Thumbs.db", "desktop.ini", ".DS_Store"];

/// Reads the members in the order of their names.
pub(crate) fn extract(bytes: &[u8], scope: &Scope<'_>) -> Result<ExtractedDocument, ExtractError> {
    let mut package = Package::open(bytes, scope)?;
    let mut builder = DocumentBuilder::new(scope.limits);
    // Of many documents none gives the archive its title.
    builder.title = Some(String::new());
    let mut inside = Inside::default();
    let mut entries = package.entries();
    entries.sort();
    for (name, index) in entries {
        let shown = shown_name(&name);
        if name.ends_with('/') || shown.is_empty() || is_junk(&shown) {
            continue;
        }
        match package.read_entry(index) {
            Ok((_, content)) => inside.add(&shown, &content, NAME_LEVEL, scope, &mut builder),
            // A bomb is refused whole: the next member would only go on.
            Err(error @ ExtractError::TooLarge { .. }) => return Err(error),
            Err(error) => inside.skip(&shown, error),
        }
        if builder.is_full() {
            break;
        }
    }
    inside.finish(&mut builder)?;
    builder.finish()
}

/// A member's path as it is shown: no steps upwards, no drive, no invisible characters.
fn shown_name(name: &str) -> String {
    let name = name.replace('\\', "/");
    let steps = name
        .split('/')
        .filter(|step| !matches!(*step, "" | "." | "..") && !step.ends_with(':'));
    clean_prose(&steps.collect::<Vec<_>>().join("/"))
}

fn is_junk(name: &str) -> bool {
    let file = name.rsplit('/').next().unwrap_or(name);
    JUNK_FILES.contains(&file)
        || file.starts_with("._")
        || name.split('/').any(|step| JUNK_FOLDERS.contains(&step))
}
