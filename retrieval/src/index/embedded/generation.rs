//! Which making of a collection this is, so that one that was lost and made anew is told from the one that was filled.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;

use uuid::Uuid;

const FILE: &str = "generation";

/// The name of collections that were made before they had names.
const UNNAMED: &str = "0";

/// Names a collection that is being made.
pub(super) fn make(dir: &Path) -> io::Result<()> {
    let mut file = File::create(dir.join(FILE))?;
    file.write_all(Uuid::now_v7().to_string().as_bytes())?;
    file.sync_all()
}

/// The collection's name.
pub(super) fn read(dir: &Path) -> String {
    fs::read_to_string(dir.join(FILE))
        .ok()
        .map(|name| name.trim().to_owned())
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| UNNAMED.to_owned())
}
