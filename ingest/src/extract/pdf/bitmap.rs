//! Images of scanned pages as grey pixels, for text recognition. Every size is checked before memory is taken.

use hayro_ccitt::EncodingMode;
use lopdf::{Dictionary, Document, Object, Stream};

use super::objects::{array_in, integer_in, number_of, resolve_in};
use super::page::resolved_filters;
use super::samples::samples;
use super::text_state::Matrix;

/// Pixels that are unpacked: A4 at 600 dots an inch has 35 million.
const MAX_PIXELS: usize = 48 << 20;

/// Pixels that are handed on; larger images are made smaller.
const MAX_KEPT_PIXELS: usize = 4_096 * 4_096;

const MAX_SIDE: usize = 32_768;

/// An image as a file of its own, JPEG or PGM, as its stream is to be seen with `matrix`. None where its
/// compression is not known, it is broken, or it is too large.
pub(super) fn image_file(document: &Document, image: &Stream, matrix: Matrix) -> Option<Vec<u8>> {
    let packed = Packed::of(document, image)?;
    if packed.filter.as_deref() == Some(b"DCTDecode".as_slice()) {
        let (width, height) = jpeg_size(&packed.bytes)?;
        return (width * height <= MAX_KEPT_PIXELS).then_some(packed.bytes);
    }
    let bitmap = Bitmap::decode(document, image, &packed)?;
    drop(packed);
    Some(bitmap.reduced().turned(matrix).into_pgm())
}

/// An image unpacked down to the filter that only images have.
struct Packed {
    bytes: Vec<u8>,
    filter: Option<Vec<u8>>,
    params: Dictionary,
}

impl Packed {
    fn of(document: &Document, image: &Stream) -> Option<Self> {
        let resolved = resolved_filters(document, image);
        let image = resolved.as_ref().unwrap_or(image);
        let mut filters: Vec<Vec<u8>> = image
            .filters()
            .map(|filters| filters.into_iter().map(<[u8]>::to_vec).collect())
            .unwrap_or_default();
        let is_of_images = |name: &Vec<u8>| {
            matches!(
                name.as_slice(),
                b"DCTDecode" | b"CCITTFaxDecode" | b"JBIG2Decode" | b"JPXDecode"
            )
        };
        let filter = filters.pop_if(|name| is_of_images(name));
        let params = match image.dict.get(b"DecodeParms") {
            Ok(Object::Dictionary(params)) => params.clone(),
            Ok(Object::Array(list)) => list
                .last()
                .and_then(|params| params.as_dict().ok())
                .cloned()
                .unwrap_or_default(),
            _ => Dictionary::new(),
        };
        let max_bytes = 4 * MAX_PIXELS;
        let bytes = if filters.is_empty() {
            image.content.clone()
        } else {
            let mut outer = image.clone();
            let names: Vec<Object> = filters.into_iter().map(Object::Name).collect();
            outer.dict.set("Filter", names);
            outer.get_plain_content_with_limit(max_bytes).ok()?
        };
        Some(Self {
            bytes,
            filter,
            params,
        })
    }
}

/// Rows from top to bottom; 0 is black.
#[derive(Debug, PartialEq, Eq)]
struct Bitmap {
    width: usize,
    height: usize,
    pixels: Vec<u8>,
}

impl Bitmap {
    fn decode(document: &Document, image: &Stream, packed: &Packed) -> Option<Self> {
        let side = |key: &[u8]| {
            let length = usize::try_from(integer_in(document, &image.dict, key)?).ok()?;
            (1..=MAX_SIDE).contains(&length).then_some(length)
        };
        let (width, height) = (side(b"Width")?, side(b"Height")?);
        if width * height > MAX_PIXELS {
            return None;
        }
        let mut pixels = match packed.filter.as_deref() {
            None => samples(document, image, &packed.bytes, width, height)?,
            Some(b"CCITTFaxDecode") => fax(document, packed, width, height)?,
            Some(b"JBIG2Decode") => jbig2(document, packed, width, height)?,
            _ => return None,
        };
        let is_inverted = array_in(document, &image.dict, b"Decode").is_some_and(|range| {
            let bound = |at: usize| range.get(at).and_then(|bound| number_of(document, bound));
            bound(0) > bound(1)
        });
        if is_inverted {
            pixels.iter_mut().for_each(|pixel| *pixel = 255 - *pixel);
        }
        Some(Self {
            width,
            height,
            pixels,
        })
    }

    /// Made smaller by a whole factor until it may be kept.
    fn reduced(self) -> Self {
        let factor = (1..).find(|factor| self.width * self.height / (factor * factor) <= MAX_KEPT_PIXELS);
        let factor = factor.unwrap_or(1);
        if factor == 1 {
            return self;
        }
        let (width, height) = (self.width / factor, self.height / factor);
        let mut pixels = Vec::with_capacity(width * height);
        for row in 0..height {
            for column in 0..width {
                let sum: usize = (0..factor * factor)
                    .map(|part| {
                        let (y, x) = (row * factor + part / factor, column * factor + part % factor);
                        usize::from(self.pixels[y * self.width + x])
                    })
                    .sum();
                pixels.push((sum / (factor * factor)) as u8);
            }
        }
        Self {
            width,
            height,
            pixels,
        }
    }

    /// As the page shows it: images may be drawn upside down, mirrored or on their side.
    fn turned(self, [a, b, c, d, ..]: Matrix) -> Self {
        let lies = b.abs() > a.abs();
        if !lies && a >= 0.0 && d >= 0.0 {
            return self;
        }
        let (width, height) = if lies {
            (self.height, self.width)
        } else {
            (self.width, self.height)
        };
        let mut pixels = Vec::with_capacity(self.pixels.len());
        for y in 0..height {
            for x in 0..width {
                let (column, row) = if lies {
                    (
                        if b > 0.0 { self.width - 1 - y } else { y },
                        if c > 0.0 { self.height - 1 - x } else { x },
                    )
                } else {
                    (
                        if a < 0.0 { self.width - 1 - x } else { x },
                        if d < 0.0 { self.height - 1 - y } else { y },
                    )
                };
                pixels.push(self.pixels[row * self.width + column]);
            }
        }
        Self {
            width,
            height,
            pixels,
        }
    }

    fn into_pgm(self) -> Vec<u8> {
        let mut file = format!("P5 {} {} 255\n", self.width, self.height).into_bytes();
        file.extend(self.pixels);
        file
    }
}

/// Black and white pixels, row by row.
struct Rows {
    width: usize,
    pixels: Vec<u8>,
    at: usize,
    row: usize,
    black: u8,
}

impl Rows {
    fn new(width: usize, height: usize, black: u8) -> Self {
        Self {
            width,
            pixels: vec![255 - black; width * height],
            at: 0,
            row: 0,
            black,
        }
    }

    fn push(&mut self, is_black: bool, count: usize) {
        let begin = self.row * self.width + self.at.min(self.width);
        let end = self.row * self.width + (self.at + count).min(self.width);
        self.at += count;
        if is_black && let Some(pixels) = self.pixels.get_mut(begin..end) {
            pixels.fill(self.black);
        }
    }

    fn end_row(&mut self) {
        self.row += 1;
        self.at = 0;
    }
}

impl hayro_ccitt::Decoder for Rows {
    fn push_row(&mut self, changes: &[u32]) {
        let mut is_black = false;
        for change in changes {
            self.push(is_black, (*change as usize).saturating_sub(self.at));
            is_black = !is_black;
        }
        self.push(is_black, self.width.saturating_sub(self.at));
        self.end_row();
    }
}

impl hayro_jbig2::Decoder for Rows {
    fn push_pixel(&mut self, black: bool) {
        self.push(black, 1);
    }

    fn push_pixel_chunk(&mut self, black: bool, chunk_count: u32) {
        self.push(black, chunk_count as usize * 8);
    }

    fn next_line(&mut self) {
        self.end_row();
    }
}

fn fax(document: &Document, packed: &Packed, width: usize, height: usize) -> Option<Vec<u8>> {
    let flag = |key: &[u8], usual: bool| {
        resolve_in(document, &packed.params, key)
            .and_then(|flag| flag.as_bool().ok())
            .unwrap_or(usual)
    };
    let columns = integer_in(document, &packed.params, b"Columns").unwrap_or(1_728);
    if usize::try_from(columns) != Ok(width) {
        return None;
    }
    let settings = hayro_ccitt::DecodeSettings {
        columns: u32::try_from(width).ok()?,
        rows: u32::try_from(height).ok()?,
        end_of_block: flag(b"EndOfBlock", true),
        end_of_line: flag(b"EndOfLine", false),
        rows_are_byte_aligned: flag(b"EncodedByteAlign", false),
        encoding: match integer_in(document, &packed.params, b"K").unwrap_or(0) {
            ..0 => EncodingMode::Group4,
            0 => EncodingMode::Group3_1D,
            1.. => EncodingMode::Group3_2D,
        },
        strict: false,
    };
    // A black pixel is the bit 0, which is black, unless the file says that it is the bit 1.
    let black = if flag(b"BlackIs1", false) { 255 } else { 0 };
    let mut rows = Rows::new(width, height, black);
    // The rows before the damage count.
    let _ = hayro_ccitt::decode(
        &packed.bytes,
        &mut rows,
        &mut hayro_ccitt::DecoderContext::new(settings),
    );
    (rows.row > 0).then_some(rows.pixels)
}

fn jbig2(document: &Document, packed: &Packed, width: usize, height: usize) -> Option<Vec<u8>> {
    let settings = hayro_jbig2::DecodeSettings::default();
    let shared = resolve_in(document, &packed.params, b"JBIG2Globals")
        .and_then(|globals| globals.as_stream().ok())
        .and_then(|globals| globals.get_plain_content_with_limit(MAX_PIXELS).ok())
        .and_then(|globals| hayro_jbig2::Globals::new(&globals, &settings).ok());
    let page = hayro_jbig2::Page::new_embedded(&packed.bytes, shared.as_ref(), &settings).ok()?;
    if page.width() as usize * page.height() as usize > MAX_PIXELS {
        return None;
    }
    let mut rows = Rows::new(width, height, 0);
    page.decode(&mut rows).ok()?;
    Some(rows.pixels)
}

/// Width and height in the frame header of a JPEG file.
fn jpeg_size(bytes: &[u8]) -> Option<(usize, usize)> {
    let mut at = 2;
    if bytes.get(..2)? != [0xff, 0xd8] {
        return None;
    }
    loop {
        let [0xff, marker] = bytes.get(at..at + 2)? else {
            return None;
        };
        let short = |at: usize| {
            Some(usize::from(u16::from_be_bytes(
                bytes.get(at..at + 2)?.try_into().ok()?,
            )))
        };
        match marker {
            0xff => at += 1,
            // A start of frame, the kinds of tables among those numbers aside.
            0xc0..=0xcf if !matches!(marker, 0xc4 | 0xc8 | 0xcc) => {
                return Some((short(at + 7)?, short(at + 5)?))
                    .filter(|(width, height)| *width > 0 && *height > 0);
            }
            _ => at += 2 + short(at + 2)?,
        }
    }
}

#[cfg(test)]
mod tests {
    use lopdf::dictionary;

    use super::*;

    const UPRIGHT: Matrix = [1.0, 0.0, 0.0, 1.0, 0.0, 0.0];

    fn image(dict: Dictionary, content: &[u8]) -> Stream {
        Stream::new(dict, content.to_vec())
    }

    fn file(dict: Dictionary, content: &[u8]) -> Option<Vec<u8>> {
        image_file(&Document::new(), &image(dict, content), UPRIGHT)
    }

    #[test]
    fn samples_of_all_kinds_become_grey_pixels() {
        let of = |space: Object, bits: i64, width: i64| {
            dictionary! { "Width" => width, "Height" => 1, "BitsPerComponent" => bits, "ColorSpace" => space }
        };
        let table = vec![
            "Indexed".into(),
            "DeviceRGB".into(),
            1.into(),
            Object::string_literal(vec![255, 255, 255, 0, 0, 0]),
        ];
        for (dict, content, pixels) in [
            (
                of("DeviceGray".into(), 8, 3),
                &[0_u8, 100, 255][..],
                &[0_u8, 100, 255][..],
            ),
            (of("DeviceGray".into(), 1, 3), &[0b0100_0000], &[0, 255, 0]),
            (of("DeviceGray".into(), 4, 2), &[0x0f], &[0, 255]),
            (of("DeviceRGB".into(), 8, 2), &[255, 255, 255, 0, 0, 0], &[255, 0]),
            (
                of("DeviceCMYK".into(), 8, 2),
                &[0, 0, 0, 0, 0, 0, 0, 255],
                &[255, 0],
            ),
            (of(table.into(), 1, 2), &[0b0100_0000], &[255, 0]),
        ] {
            let expected = [format!("P5 {} 1 255\n", pixels.len()).as_bytes(), pixels].concat();
            assert_eq!(file(dict, content), Some(expected));
        }
    }

    #[test]
    fn fax_pages_are_unpacked() {
        // Group 4: one all-white row, then the end of the block.
        let dict = dictionary! {
            "Width" => 8, "Height" => 1, "Filter" => "CCITTFaxDecode",
            "DecodeParms" => dictionary! { "K" => -1, "Columns" => 8 },
        };

        assert_eq!(
            file(dict, &[0b1000_0000, 0b0000_1000, 0b0000_0000, 0b1000_0000]),
            Some([b"P5 8 1 255\n".as_slice(), &[255; 8]].concat())
        );
    }

    #[test]
    fn absurd_sizes_and_unknown_kinds_are_no_images() {
        let huge = dictionary! { "Width" => 30_000, "Height" => 30_000, "BitsPerComponent" => 1, "ColorSpace" => "DeviceGray" };
        let unknown = dictionary! { "Width" => 1, "Height" => 1, "Filter" => "JPXDecode" };
        let photo = |side: u8| {
            [
                &[0xff, 0xd8, 0xff, 0xc0, 0, 11, 8, side, 0, side, 0, 1][..],
                &[0; 8],
            ]
            .concat()
        };
        let jpeg = || dictionary! { "Filter" => "DCTDecode" };

        assert_eq!(file(huge, b"x"), None);
        assert_eq!(file(unknown, b"x"), None);
        assert_eq!(file(jpeg(), &photo(0x40)), None);
        assert_eq!(file(jpeg(), &photo(0x08)), Some(photo(0x08)));
        assert_eq!(file(jpeg(), &[0xff, 0xd8, 0xff]), None);
    }

    #[test]
    fn images_are_turned_as_the_page_shows_them() {
        let pixels = |matrix: Matrix| {
            let bitmap = Bitmap {
                width: 2,
                height: 1,
                pixels: vec![1, 2],
            };
            let turned = bitmap.turned(matrix);
            (turned.width, turned.pixels)
        };

        assert_eq!(pixels(UPRIGHT), (2, vec![1, 2]));
        assert_eq!(pixels([-1.0, 0.0, 0.0, -1.0, 0.0, 0.0]), (2, vec![2, 1]));
        // Turned to the left: the right end is up.
        assert_eq!(pixels([0.0, 1.0, -1.0, 0.0, 0.0, 0.0]), (1, vec![2, 1]));
    }
}
