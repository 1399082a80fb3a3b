//! What one document may cost: the bounds that hold for every format.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::Media;

/// Bounds on the extraction of one document. Going over one is [`ExtractError::TooLarge`]
/// (sizes and counts), [`ExtractError::TimedOut`] or [`ExtractError::OutOfMemory`].
///
/// [`ExtractError::TooLarge`]: crate::ExtractError::TooLarge
/// [`ExtractError::TimedOut`]: crate::ExtractError::TimedOut
/// [`ExtractError::OutOfMemory`]: crate::ExtractError::OutOfMemory
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Memory of an extractor process, in bytes. Held by the sandbox only.
    pub memory_bytes: u64,
    /// Wall-clock and CPU time of one document. Held by the sandbox only.
    pub timeout: Duration,
    /// Pages of a paged document.
    pub max_pages: u32,
    /// Bytes of everything that is unpacked for one document, and of its text.
    pub max_unpacked_bytes: u64,
    /// Unpacked to packed size, judged once more than [`Limits::RATIO_GRACE_BYTES`] are unpacked.
    pub max_ratio: u32,
    /// Entries of an archive, or objects that play this part in other containers.
    pub max_entries: u32,
    /// Nesting of elements, lists, arrays.
    pub max_depth: u32,
    /// Pictures and recordings inside of documents that others will read. The sandbox knows.
    #[serde(default)]
    pub media: Media,
}

impl Limits {
    /// Small files compress arbitrarily well and harm nobody; below this size the ratio is not judged.
    pub const RATIO_GRACE_BYTES: u64 = 10 << 20;

    /// How many bytes may come out of `packed` bytes.
    pub(crate) fn max_unpacked(&self, packed: u64) -> u64 {
        let by_ratio = packed
            .saturating_mul(u64::from(self.max_ratio))
            .max(Self::RATIO_GRACE_BYTES);
        by_ratio.min(self.max_unpacked_bytes)
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory_bytes: 512 << 20,
            timeout: Duration::from_secs(60),
            max_pages: 5_000,
            max_unpacked_bytes: 200 << 20,
            max_ratio: 100,
            max_entries: 5_000,
            max_depth: 256,
            media: Media::default(),
        }
    }
}
