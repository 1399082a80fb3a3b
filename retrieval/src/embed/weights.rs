//! A `model.safetensors`, read tensor by tensor: at no time is there more in memory than the tensors asked for, so that a
//! model at rest takes what its weights take.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use candle_core::{DType, Device, Result, Tensor};
use serde::Deserialize;

/// A description longer than this is none.
const MAX_HEADER_BYTES: u64 = 16 << 20;

/// Bytes read at once.
const READ_BYTES: usize = 1 << 20;

/// The names and places of the tensors of an open file.
pub(super) struct Weights {
    file: File,
    entries: HashMap<String, Entry>,
    /// Where the first tensor begins.
    data_start: u64,
}

#[derive(Deserialize)]
struct Entry {
    dtype: String,
    shape: Vec<usize>,
    /// From where to where, counted from the first tensor.
    data_offsets: (u64, u64),
}

impl Weights {
    /// Reads the description at the beginning of the file: its length in eight bytes, then JSON.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
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
        Ok(Self {
            file,
            entries,
            data_start: 8 + length,
        })
    }

    /// The tensor of this name, which must have this shape, row by row.
    pub(super) fn values(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        // Some files have `bert.` before every name.
        let entry = self
            .entries
            .get(name)
            .or_else(|| self.entries.get(&format!("bert.{name}")));
        let Some(entry) = entry else {
            candle_core::bail!("{name} is missing")
        };
        if entry.shape != shape {
            candle_core::bail!("{name} has the shape {:?} instead of {shape:?}", entry.shape);
        }
        let count: usize = shape.iter().product();
        let (start, end) = entry.data_offsets;
        let bytes_per_value = match entry.dtype.as_str() {
            "F32" => 4,
            "F16" | "BF16" => 2,
            other => candle_core::bail!("{name} holds values of the unsupported type {other}"),
        };
        if end.checked_sub(start) != Some((count * bytes_per_value) as u64) {
            candle_core::bail!("{name} has another length than its shape says");
        }
        let mut values = Vec::with_capacity(count);
        let mut buffer = vec![0; READ_BYTES.min(count * bytes_per_value)];
        let mut at = self.data_start + start;
        while values.len() < count {
            let part = buffer.len().min((count - values.len()) * bytes_per_value);
            self.file.read_exact_at(&mut buffer[..part], at)?;
            decode(&entry.dtype, &buffer[..part], &mut values)?;
            at += part as u64;
        }
        Ok(values)
    }

    /// Like [`Weights::values`], as a tensor.
    pub(super) fn tensor(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
        Tensor::from_vec(self.values(name, shape)?, shape, &Device::Cpu)
    }
}

/// Adds the values that `bytes` hold to `values`.
fn decode(dtype: &str, bytes: &[u8], values: &mut Vec<f32>) -> Result<()> {
    let halves = match dtype {
        "F16" => DType::F16,
        "BF16" => DType::BF16,
        _ => {
            let (whole, _) = bytes.as_chunks::<4>();
            values.extend(whole.iter().map(|value| f32::from_le_bytes(*value)));
            return Ok(());
        }
    };
    let tensor = Tensor::from_raw_buffer(bytes, halves, &[bytes.len() / 2], &Device::Cpu)?;
    values.extend(tensor.to_dtype(DType::F32)?.to_vec1::<f32>()?);
    Ok(())
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
            "bert.b":{"dtype":"F16","shape":[1,2],"data_offsets":[0,4]}}"#;
        let data = [0, 0x3c, 0, 0xc0, 0, 0, 0x80, 0x3f, 0, 0, 0, 0xc0];
        let file = file(header, &data);
        let weights = Weights::open(file.path()).expect("readable");

        assert_eq!(weights.values("a", &[2]).expect("there"), [1.0, -2.0]);
        assert_eq!(weights.values("b", &[1, 2]).expect("there"), [1.0, -2.0]);
        assert!(weights.values("a", &[1, 2]).is_err(), "of another shape");
        assert!(weights.values("c", &[2]).is_err(), "absent");
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
