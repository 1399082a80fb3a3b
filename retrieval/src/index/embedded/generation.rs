//! Which making of a collection this is, so that one that was lost and made anew is told from the one that was filled.

use std::fs;
use std::io;
use std::path::Path;

use uuid::Uuid;

use super::keywords::write_whole;

const FILE: &str = "generation";

/// The name of collections that were made before they had names.
const UNNAMED: &str = "0";

/// Names a collection that is being made, or of which a part is gone.
pub(super) fn make(dir: &Path) -> io::Result<()> {
    write_whole(&dir.join(FILE), Uuid::now_v7().to_string().as_bytes())
}

/// The collection's name.
pub(super) fn read(dir: &Path) -> String {
    fs::read_to_string(dir.join(FILE))
        .ok()
        .map(|name| name.trim().to_owned())
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| UNNAMED.to_owned())
}
