//! A `model.safetensors`, read tensor by tensor: at no time is there more in memory than the tensors asked for, so that a
//! model at rest takes what its weights take.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use serde::Deserialize;

use super::tokenizer::LoadError;

/// A description longer than this is none.
const MAX_HEADER_BYTES: u64 = 16 << 20;

/// Bytes read at once.
const READ_BYTES: usize = 1 << 20;

/// Of so many bytes one sample is taken, and so long it is.
const SAMPLED_BYTES: u64 = 64 << 10;
const SAMPLE_BYTES: u64 = 64;

/// The names and places of the tensors of an open file.
pub(super) struct Weights {
    file: File,
    entries: HashMap<String, Entry>,
    /// Where the first tensor begins.
    data_start: u64,
    /// From there to the end of the file.
    data_bytes: u64,
}

/// Why a tensor cannot be had.
#[derive(Debug, thiserror::Error)]
pub(super) enum WeightError {
    #[error("{name} is missing")]
    Missing { name: String },
    #[error("{name} has the shape {found:?} instead of {wanted:?}")]
    Shape {
        name: String,
        found: Vec<usize>,
        wanted: Vec<usize>,
    },
    #[error("{name} holds values of the unsupported type {dtype}")]
    Type { name: String, dtype: String },
    #[error("{name} has another length than its shape says, or the file ends before it")]
    Length { name: String },
    #[error("{name}: {source}")]
    Unreadable {
        name: String,
        #[source]
        source: io::Error,
    },
}

#[derive(Deserialize)]
struct Entry {
    dtype: String,
    shape: Vec<usize>,
    /// From where to where, counted from the first tensor.
    data_offsets: (u64, u64),
}

impl Weights {
    /// Opens the file, and says which one it was when it cannot be used.
    pub(super) fn load(path: &Path) -> Result<Self, LoadError> {
        Self::open(path).map_err(|source| match source.kind() {
            io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => LoadError::unusable(path, source),
            _ => LoadError::Unreadable {
                path: path.to_owned(),
                source,
            },
        })
    }

    /// Reads the description at the beginning of the file: its length in eight bytes, then JSON.
    fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let mut length = [0; 8];
        file.read_exact_at(&mut length, 0)?;
        let length = u64::from_le_bytes(length);
        if length > MAX_HEADER_BYTES {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "no safetensors file"));
        }
        let mut header = vec![0; length as usize];
        file.read_exact_at(&mut header, 8)?;
        let mut described: HashMap<String, serde_json::Value> = serde_json::from_slice(&header)?;
        described.remove("__metadata__");
        let entries = described
            .into_iter()
            .map(|(name, entry)| Ok((name, serde_json::from_value(entry)?)))
            .collect::<io::Result<_>>()?;
        let data_start = 8 + length;
        let data_bytes = file.metadata()?.len().saturating_sub(data_start);
        Ok(Self {
            file,
            entries,
            data_start,
            data_bytes,
        })
    }

    /// Whether there is a tensor of this name.
    pub(super) fn has(&self, name: &str) -> bool {
        self.entries.contains_key(name)
    }

    /// Shape of the tensor of this name.
    pub(super) fn shape(&self, name: &str) -> Result<&[usize], WeightError> {
        Ok(&self.entry(name)?.shape)
    }

    /// The tensor of this name, which must have this shape, row by row.
    pub(super) fn values(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, WeightError> {
        let entry = self.entry(name)?;
        let name = || name.to_owned();
        if entry.shape != shape {
            return Err(WeightError::Shape {
                name: name(),
                found: entry.shape.clone(),
                wanted: shape.to_owned(),
            });
        }
        let (bytes_per_value, decode): (usize, Decode) = match entry.dtype.as_str() {
            "F32" => (4, decode_f32),
            "F16" => (2, decode_f16),
            "BF16" => (2, decode_bf16),
            other => {
                return Err(WeightError::Type {
                    name: name(),
                    dtype: other.to_owned(),
                });
            }
        };
        let (start, end) = entry.data_offsets;
        let in_file = end <= self.data_bytes;
        let count = shape
            .iter()
            .try_fold(1_usize, |count, size| count.checked_mul(*size))
            .filter(|count| {
                let bytes = (*count as u64).checked_mul(bytes_per_value as u64);
                in_file && bytes.is_some() && end.checked_sub(start) == bytes
            });
        let Some(count) = count else {
            return Err(WeightError::Length { name: name() });
        };
        let unreadable = |source| WeightError::Unreadable { name: name(), source };
        let mut values = Vec::with_capacity(count);
        let mut buffer = vec![0; READ_BYTES.min(count * bytes_per_value)];
        let mut at = self.data_start + start;
        while values.len() < count {
            let part = buffer.len().min((count - values.len()) * bytes_per_value);
            self.file
                .read_exact_at(&mut buffer[..part], at)
                .map_err(unreadable)?;
            decode(&buffer[..part], &mut values);
            at += part as u64;
        }
        Ok(values)
    }

    /// Shows what tells these weights from others without reading all of them: the description of each tensor with its
    /// beginning and end, and a sample of all that lies between.
    pub(super) fn sample(&self, mut show: impl FnMut(&[u8])) -> io::Result<()> {
        let mut tensors: Vec<(&String, &Entry)> = self.entries.iter().collect();
        tensors.sort_unstable_by_key(|(name, entry)| (entry.data_offsets, *name));
        let mut samples: Vec<u64> = (0..self.data_bytes).step_by(SAMPLED_BYTES as usize).collect();
        for (name, entry) in tensors {
            let (start, end) = entry.data_offsets;
            show(format!("{name} {} {:?} {start} {end}\n", entry.dtype, entry.shape).as_bytes());
            samples.extend([start, end.saturating_sub(SAMPLE_BYTES)]);
        }
        samples.sort_unstable();
        samples.dedup();
        let mut buffer = [0; SAMPLE_BYTES as usize];
        for at in samples.into_iter().filter(|at| *at < self.data_bytes) {
            let length = SAMPLE_BYTES.min(self.data_bytes - at) as usize;
            self.file
                .read_exact_at(&mut buffer[..length], self.data_start + at)?;
            show(&buffer[..length]);
        }
        Ok(())
    }

    fn entry(&self, name: &str) -> Result<&Entry, WeightError> {
        self.entries.get(name).ok_or_else(|| WeightError::Missing {
            name: name.to_owned(),
        })
    }
}

/// Adds the values that bytes hold to a list.
type Decode = fn(&[u8], &mut Vec<f32>);

fn decode_f32(bytes: &[u8], values: &mut Vec<f32>) {
    values.extend(
        bytes
            .as_chunks::<4>()
            .0
            .iter()
            .map(|value| f32::from_le_bytes(*value)),
    );
}

/// The upper half of an `f32`.
fn decode_bf16(bytes: &[u8], values: &mut Vec<f32>) {
    let halves = bytes.as_chunks::<2>().0.iter();
    values.extend(halves.map(|half| f32::from_bits(u32::from(u16::from_le_bytes(*half)) << 16)));
}

fn decode_f16(bytes: &[u8], values: &mut Vec<f32>) {
    let halves = bytes.as_chunks::<2>().0.iter();
    values.extend(halves.map(|half| from_f16(u16::from_le_bytes(*half))));
}

/// IEEE 754 binary16: a sign, five bits of exponent, ten of fraction.
fn from_f16(half: u16) -> f32 {
    const EXPONENT_SHIFT: f32 = 5.192_297e33; // 2 to the power of 127 - 15
    const LARGEST: u32 = 0x7c00;
    let (sign, rest) = (u32::from(half & 0x8000) << 16, u32::from(half & 0x7fff));
    if rest >= LARGEST {
        // Infinite, or not a number.
        return f32::from_bits(sign | 0x7f80_0000 | (rest & 0x3ff) << 13);
    }
    (f32::from_bits(rest << 13) * EXPONENT_SHIFT).copysign(f32::from_bits(sign))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn file(header: &str, data: &[u8]) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
        let parts = [&(header.len() as u64).to_le_bytes(), header.as_bytes(), data];
        parts
            .iter()
            .for_each(|part| file.write_all(part).expect("written"));
        file
    }

    #[test]
    fn tensors_are_read_from_their_places() {
        let header = r#"{"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[2],"data_offsets":[4,12]},
            "b":{"dtype":"F16","shape":[1,2],"data_offsets":[0,4]}}"#;
        let data = [0, 0x3c, 0, 0xc0, 0, 0, 0x80, 0x3f, 0, 0, 0, 0xc0];
        let file = file(header, &data);
        let weights = Weights::open(file.path()).expect("readable");

        assert_eq!(weights.values("a", &[2]).expect("there"), [1.0, -2.0]);
        assert_eq!(weights.values("b", &[1, 2]).expect("there"), [1.0, -2.0]);
        assert!(weights.values("a", &[1, 2]).is_err(), "of another shape");
        assert!(weights.values("c", &[2]).is_err(), "absent");
    }

    #[test]
    fn half_floats_are_read_as_what_they_are() {
        let known = [
            (0x3c00, 1.0),
            (0xc000, -2.0),
            (0x3555, 0.333_251_95),
            (0x7bff, 65_504.0),
            (0x0001, 5.960_464_5e-8),
            (0x8000, -0.0),
            (0x7c00, f32::INFINITY),
        ];
        for (half, value) in known {
            assert_eq!(from_f16(half).to_bits(), f32::to_bits(value), "{half:#06x}");
        }
        assert!(from_f16(0x7e00).is_nan());
        let mut values = vec![];
        decode_bf16(&[0x80, 0x3f, 0x40, 0xc0], &mut values);
        assert_eq!(values, [1.0, -3.0]);
    }

    #[test]
    fn a_file_that_ends_too_early_or_lies_is_refused() {
        let header = r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[9],"data_offsets":[0,8]}}"#;
        let file = file(header, &[0; 6]);
        let weights = Weights::open(file.path()).expect("the description is whole");

        assert!(weights.values("a", &[2]).is_err());
        assert!(weights.values("b", &[9]).is_err());
        assert!(Weights::open(tempfile::NamedTempFile::new().expect("a file").path()).is_err());
    }
}
