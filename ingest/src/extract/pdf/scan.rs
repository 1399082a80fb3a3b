//! The images of scanned pages, a batch at a time, for text recognition outside of this process.

use super::bitmap::image_file;
use super::page::PageReader;
use super::{load, pages_of};
use crate::{ExtractError, Hints, Limits};

/// A batch ends with the page that fills it.
const BATCH_BYTES: usize = 16 << 20;

/// Images of one page that are handed on, and what they may hold together.
const MAX_IMAGES_PER_PAGE: usize = 16;
const MAX_PAGE_BYTES: usize = 48 << 20;

/// Images smaller than this share of their page are stains and stamps.
const MIN_SHARE: f32 = 0.02;

/// Scanned pages with their images.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Scans {
    /// Pages of the whole document.
    pub(crate) page_count: u32,
    pub(crate) pages: Vec<PageScan>,
}

#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct PageScan {
    /// Counted from 1.
    pub(crate) page: u32,
    /// JPEG or PGM files from top to bottom; none where no image could be unpacked.
    pub(crate) images: Vec<Vec<u8>>,
}

/// The next scanned pages after page `after`; none when there are no more.
pub(crate) fn scans(bytes: &[u8], hints: &Hints, limits: &Limits, after: u32) -> Result<Scans, ExtractError> {
    let max_unpacked = limits.max_unpacked(bytes.len() as u64);
    let document = load(bytes, hints, max_unpacked)?;
    let pages = pages_of(&document, limits)?;
    let mut reader = PageReader::new(&document, max_unpacked);
    let mut scans = Scans {
        page_count: u32::try_from(pages.len()).unwrap_or(u32::MAX),
        pages: Vec::new(),
    };
    let mut batch_bytes = 0;
    for (page, number) in pages.iter().zip(1_u32..).skip(after as usize) {
        let content = reader.read(*page)?;
        if !content.is_scanned {
            continue;
        }
        let area = |[a, b, c, d, ..]: [f32; 6]| (a * d - b * c).abs();
        let whole: f32 = content.images.iter().map(|(_, matrix)| area(*matrix)).sum();
        let mut images = content.images;
        images.retain(|(_, matrix)| area(*matrix) > MIN_SHARE * whole);
        // A matrix places the lower left corner; the upper edge is what counts.
        images.sort_by(|(_, a), (_, b)| (b[5] + b[3].max(0.0)).total_cmp(&(a[5] + a[3].max(0.0))));
        let mut scan = PageScan {
            page: number,
            images: Vec::new(),
        };
        let mut page_bytes = 0;
        for (image, matrix) in images.into_iter().take(MAX_IMAGES_PER_PAGE) {
            if let Some(file) = image_file(&document, image, matrix) {
                page_bytes += file.len();
                if page_bytes > MAX_PAGE_BYTES {
                    break;
                }
                scan.images.push(file);
            }
        }
        batch_bytes += page_bytes;
        scans.pages.push(scan);
        if batch_bytes >= BATCH_BYTES {
            break;
        }
    }
    Ok(scans)
}
