//! What is known about a file from outside its bytes.

use serde::{Deserialize, Serialize};

/// Characters of a file name that are passed on. More than any system allows.
const MAX_NAME_CHARS: usize = 255;

/// What the place a file came from said about it. All of it may be wrong, so none of it is trusted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hints {
    /// For show and for formats that only their extension tells apart. Never a path.
    pub file_name: String,
    /// The character set that the server named in its `Content-Type`; it goes before what the file says of itself.
    pub charset: Option<String>,
    /// Opens a protected file.
    pub password: Option<String>,
}

impl Hints {
    /// A file of which only the name is known.
    pub fn named(file_name: &str) -> Self {
        Self {
            file_name: file_name.chars().take(MAX_NAME_CHARS).collect(),
            ..Self::default()
        }
    }
}
