//! Pictures and recordings inside of documents. Others read them: each that is wanted leaves a block at its place, with
//! a number by which its bytes are asked for, and all others are counted.

use std::cell::RefCell;

use super::pdf::{PageScan, Scans};
use crate::document::{DocumentBuilder, LeftOut, LeftOutReason};
use crate::{BlockKind, ExtractError, Format, Media};

/// Pictures and recordings of one document that are read.
pub(crate) const MAX_MEDIA: u32 = 200;

/// Those of which the beginning is looked at; a document of more is one of pictures.
const MAX_LOOKED_AT: u32 = 1_000;

/// What tells of a picture how large it is, also behind the preview that a camera puts first.
const HEAD_BYTES: usize = 256 << 10;

/// One that is larger is left out.
const MAX_BYTES: usize = 32 << 20;

/// What goes to the readers at once.
const BATCH_BYTES: usize = 32 << 20;

/// A picture with a shorter side holds no words: a bullet, a line, an icon.
const MIN_SIDE_PIXELS: usize = 48;

/// What is wanted of the media of one document, and what was found.
#[derive(Debug, Default)]
pub(crate) struct Shelf {
    wanted: Media,
    /// Bytes are collected of those after this number.
    after: Option<u32>,
    found: RefCell<Found>,
}

#[derive(Debug, Default)]
struct Found {
    looked_at: u32,
    /// Numbers given so far.
    numbers: u32,
    batch: Vec<PageScan>,
    batch_bytes: usize,
    left_out: Vec<LeftOut>,
}

/// What becomes of one.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Its text will stand where this block is.
    Block(BlockKind),
    /// Of no use to anybody.
    Nothing,
    LeftOut(LeftOutReason),
}

impl Shelf {
    /// For the places of what is `wanted`.
    pub(super) fn of(wanted: Media) -> Self {
        Self {
            wanted,
            ..Self::default()
        }
    }

    /// For the bytes of the next ones after `after`.
    pub(super) fn collecting(wanted: Media, after: u32) -> Self {
        Self {
            wanted,
            after: Some(after),
            ..Self::default()
        }
    }

    /// How many bytes of one have to be shown.
    pub(super) fn needed_bytes(&self) -> usize {
        match self.after {
            Some(_) => MAX_BYTES + 1,
            None => HEAD_BYTES,
        }
    }

    /// Takes one, of which at least [`Shelf::needed_bytes`] are shown. A `level` puts its text under a heading with its
    /// name.
    pub(super) fn take(&self, format: Format, bytes: &[u8], level: Option<u8>) -> Place {
        let mut found = self.found.borrow_mut();
        found.looked_at += 1;
        let is_small = format == Format::Picture
            && imagesize::blob_size(bytes).is_ok_and(|size| size.width.min(size.height) < MIN_SIDE_PIXELS);
        if is_small {
            return Place::Nothing;
        }
        let is_wanted = self.wanted.accept(format).is_ok();
        let reason = if !is_wanted {
            Some(LeftOutReason::NotConfigured)
        } else if found.numbers >= MAX_MEDIA {
            Some(LeftOutReason::TooMany)
        } else {
            None
        };
        if let Some(reason) = reason {
            LeftOut::count(&mut found.left_out, format, reason);
            return Place::LeftOut(reason);
        }
        found.numbers += 1;
        let number = found.numbers;
        if self.after.is_some_and(|after| number > after)
            && (found.batch.is_empty() || found.batch_bytes + bytes.len() <= BATCH_BYTES)
        {
            found.batch_bytes += bytes.len();
            // What is too large for us is told by its absence.
            let is_whole = bytes.len() <= MAX_BYTES;
            let images = is_whole.then(|| bytes.to_vec()).into_iter().collect();
            found.batch.push(PageScan { page: number, images });
        } else if self.after.is_some_and(|after| number > after) {
            // The batch is full: later ones must not come before this one.
            found.batch_bytes = BATCH_BYTES + 1;
        }
        Place::Block(BlockKind::Medium {
            number,
            format,
            level,
        })
    }

    /// Takes what may be a picture or a recording of a document, and leaves a block where it stands.
    pub(super) fn put(&self, name: &str, bytes: &[u8], builder: &mut DocumentBuilder) {
        let Ok(format @ (Format::Picture | Format::Recording)) = Format::detect(bytes, name) else {
            return;
        };
        if let Place::Block(kind) = self.take(format, bytes, None) {
            builder.push(kind, name, None);
        }
    }

    /// Whether enough were looked at.
    pub(super) fn is_full(&self) -> bool {
        self.found.borrow().looked_at >= MAX_LOOKED_AT
    }

    /// What nobody reads.
    pub(super) fn left_out(&self) -> Vec<LeftOut> {
        self.found.borrow().left_out.clone()
    }

    /// What was collected.
    pub(super) fn into_batch(self) -> Scans {
        Scans {
            page_count: 0,
            pages: self.found.into_inner().batch,
        }
    }

    /// Why a document without text has none.
    pub(super) fn judge(&self, error: ExtractError) -> ExtractError {
        let has_pictures = self
            .left_out()
            .iter()
            .any(|left_out| left_out.format == Format::Picture);
        match error {
            ExtractError::NoText { scanned } => ExtractError::NoText {
                scanned: scanned || has_pictures,
            },
            error => error,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: Media = Media {
        pictures: true,
        recordings: true,
    };

    /// The head of a GIF of this size.
    fn picture(side: u8) -> Vec<u8> {
        [b"GIF89a".as_slice(), &[side, 0, side, 0, 0, 0, 0]].concat()
    }

    #[test]
    fn icons_are_nothing_and_what_nobody_reads_is_counted_by_its_reason() {
        let shelf = Shelf::of(Media {
            pictures: true,
            recordings: false,
        });

        assert_eq!(shelf.take(Format::Picture, &picture(16), None), Place::Nothing);
        assert_eq!(
            shelf.take(Format::Recording, b"ID3", None),
            Place::LeftOut(LeftOutReason::NotConfigured)
        );
        for _ in 0..MAX_MEDIA {
            assert!(matches!(
                shelf.take(Format::Picture, &picture(200), None),
                Place::Block(_)
            ));
        }
        for _ in 0..2 {
            shelf.take(Format::Picture, &picture(200), None);
        }

        let counts: Vec<(Format, LeftOutReason, u32)> = shelf
            .left_out()
            .iter()
            .map(|left_out| (left_out.format, left_out.reason, left_out.count))
            .collect();
        assert_eq!(
            counts,
            [
                (Format::Recording, LeftOutReason::NotConfigured, 1),
                (Format::Picture, LeftOutReason::TooMany, 2)
            ]
        );
    }

    #[test]
    fn bytes_come_in_batches_in_the_order_of_the_numbers() {
        let large = [picture(200), vec![0; BATCH_BYTES / 2]].concat();
        let batch = |after| {
            let shelf = Shelf::collecting(BOTH, after);
            for bytes in [&large, &large, &picture(200), &large] {
                shelf.take(Format::Picture, bytes, None);
            }
            let pages = shelf.into_batch().pages;
            pages.iter().map(|scan| scan.page).collect::<Vec<_>>()
        };

        assert_eq!(batch(0), [1]);
        assert_eq!(batch(1), [2, 3]);
        assert_eq!(batch(3), [4]);
        assert!(batch(4).is_empty());
    }

    #[test]
    fn one_that_is_too_large_comes_without_its_bytes() {
        let shelf = Shelf::collecting(BOTH, 0);
        shelf.take(
            Format::Picture,
            &[picture(200), vec![0; MAX_BYTES]].concat(),
            None,
        );

        let pages = shelf.into_batch().pages;

        assert_eq!((pages[0].page, pages[0].images.len()), (1, 0));
    }
}
