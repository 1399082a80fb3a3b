//! Plain samples of an image as grey pixels: colour spaces, bits a sample, tables of colours.

use lopdf::{Document, Object, Stream};

use super::objects::{integer_in, resolve, resolve_in};

/// How samples stand for light.
enum Colours {
    Grey,
    /// More is darker, as of one ink.
    Ink,
    Rgb,
    Cmyk,
    /// The light of each entry of a table.
    Table(Vec<u8>),
}

impl Colours {
    fn of(document: &Document, space: &Object) -> Option<Self> {
        match resolve(document, space)? {
            Object::Name(name) => Self::named(name),
            Object::Array(parts) => {
                let name = resolve(document, parts.first()?)?.as_name().ok()?;
                match name {
                    b"ICCBased" => {
                        let profile = resolve(document, parts.get(1)?)?.as_stream().ok()?;
                        match integer_in(document, &profile.dict, b"N")? {
                            1 => Some(Self::Grey),
                            3 => Some(Self::Rgb),
                            4 => Some(Self::Cmyk),
                            _ => None,
                        }
                    }
                    b"Indexed" | b"I" => Self::table(document, parts),
                    b"Separation" => Some(Self::Ink),
                    name => Self::named(name),
                }
            }
            _ => None,
        }
    }

    fn named(name: &[u8]) -> Option<Self> {
        match name {
            b"DeviceGray" | b"CalGray" | b"G" => Some(Self::Grey),
            b"DeviceRGB" | b"CalRGB" | b"RGB" => Some(Self::Rgb),
            b"DeviceCMYK" | b"CMYK" => Some(Self::Cmyk),
            _ => None,
        }
    }

    fn table(document: &Document, parts: &[Object]) -> Option<Self> {
        // A table of a table is not allowed, and would not end.
        let base = match resolve(document, parts.get(1)?)? {
            Object::Array(inner) if inner.first()?.as_name().is_ok_and(|name| name == b"Indexed") => {
                return None;
            }
            base => Self::of(document, base)?,
        };
        let entries = match resolve(document, parts.get(3)?)? {
            Object::String(bytes, _) => bytes.clone(),
            Object::Stream(stream) => stream.get_plain_content_with_limit(4 * 256).ok()?,
            _ => return None,
        };
        let lights = entries
            .chunks_exact(base.parts())
            .map(|entry| base.light(entry))
            .collect();
        Some(Self::Table(lights))
    }

    /// Samples of one pixel.
    fn parts(&self) -> usize {
        match self {
            Self::Grey | Self::Ink | Self::Table(_) => 1,
            Self::Rgb => 3,
            Self::Cmyk => 4,
        }
    }

    /// The light of a pixel from samples of one byte; of tables, the sample is the entry.
    fn light(&self, pixel: &[u8]) -> u8 {
        let sample = |at: usize| u32::from(pixel.get(at).copied().unwrap_or(0));
        let mixed = |r: u32, g: u32, b: u32| (77 * r + 150 * g + 29 * b) >> 8;
        match self {
            Self::Grey => pixel.first().copied().unwrap_or(255),
            Self::Ink => 255 - pixel.first().copied().unwrap_or(0),
            Self::Rgb => mixed(sample(0), sample(1), sample(2)) as u8,
            Self::Cmyk => 255 - (mixed(sample(0), sample(1), sample(2)) + sample(3)).min(255) as u8,
            Self::Table(lights) => lights.get(sample(0) as usize).copied().unwrap_or(255),
        }
    }
}

/// Pixels of plain samples. What a cut-off image lacks is white.
pub(super) fn samples(
    document: &Document,
    image: &Stream,
    bytes: &[u8],
    width: usize,
    height: usize,
) -> Option<Vec<u8>> {
    let is_mask = resolve_in(document, &image.dict, b"ImageMask")
        .is_some_and(|mask| matches!(mask, Object::Boolean(true)));
    let (colours, bits) = if is_mask {
        (Colours::Grey, 1)
    } else {
        (
            Colours::of(document, image.dict.get(b"ColorSpace").ok()?)?,
            usize::try_from(integer_in(document, &image.dict, b"BitsPerComponent")?).ok()?,
        )
    };
    if !matches!(bits, 1 | 2 | 4 | 8 | 16) {
        return None;
    }
    let parts = colours.parts();
    let row_bytes = (width * parts * bits).div_ceil(8);
    let most = (1_u32 << bits.min(8)) - 1;
    let mut pixels = Vec::with_capacity(width * height);
    let mut pixel = [0_u8; 4];
    for row in bytes.chunks_exact(row_bytes).take(height) {
        for column in 0..width {
            for (part, sample) in pixel.iter_mut().enumerate().take(parts) {
                let at = (column * parts + part) * bits;
                let raw = match bits {
                    8 | 16 => u32::from(row[at / 8]),
                    _ => u32::from(row[at / 8]) >> (8 - bits - at % 8) & most,
                };
                *sample = match colours {
                    Colours::Table(_) => raw as u8,
                    _ => (raw * 255 / most) as u8,
                };
            }
            pixels.push(colours.light(&pixel[..parts]));
        }
    }
    pixels.resize(width * height, 255);
    Some(pixels)
}
