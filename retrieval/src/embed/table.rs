//! One vector for each token of a vocabulary: the largest part of a small model.

use super::matrix::Precision;

/// `[tokens][width]`.
pub(super) struct Table {
    values: Values,
    width: usize,
}

enum Values {
    Floats(Vec<f32>),
    /// Each row symmetrically, by its largest value.
    Bytes {
        bytes: Vec<i8>,
        scales: Vec<f32>,
    },
}

impl Table {
    pub(super) fn pack(values: Vec<f32>, width: usize, precision: Precision) -> Self {
        let values = match precision {
            Precision::F32 => Values::Floats(values),
            Precision::Int8 => to_bytes(&values, width),
        };
        Self { values, width }
    }

    /// Copies the vector of a token; `None` when there is none.
    pub(super) fn copy(&self, token: usize, target: &mut [f32]) -> Option<()> {
        let start = token.checked_mul(self.width)?;
        let range = start..start.checked_add(self.width)?;
        match &self.values {
            Values::Floats(values) => target.copy_from_slice(values.get(range)?),
            Values::Bytes { bytes, scales } => {
                let (bytes, scale) = (bytes.get(range)?, scales.get(token)?);
                for (target, byte) in target.iter_mut().zip(bytes) {
                    *target = f32::from(*byte) * scale;
                }
            }
        }
        Some(())
    }
}

fn to_bytes(values: &[f32], width: usize) -> Values {
    const STEPS: f32 = 127.0;
    let mut bytes = Vec::with_capacity(values.len());
    let mut scales = Vec::with_capacity(values.len() / width);
    for row in values.chunks_exact(width) {
        let largest = row
            .iter()
            .fold(0.0_f32, |largest, value| largest.max(value.abs()));
        let scale = if largest > 0.0 { largest / STEPS } else { 1.0 };
        bytes.extend(row.iter().map(|value| (value / scale).round() as i8));
        scales.push(scale);
    }
    Values::Bytes { bytes, scales }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_come_back_as_they_were_or_nearly() {
        let values = vec![1.0, -2.0, 0.5, 0.0, 0.0, 0.0];
        for (precision, allowed) in [(Precision::F32, 0.0), (Precision::Int8, 0.01)] {
            let table = Table::pack(values.clone(), 3, precision);
            let mut row = [9.0; 3];
            for (token, truth) in values.chunks_exact(3).enumerate() {
                table.copy(token, &mut row).expect("in the table");
                assert!(
                    row.iter().zip(truth).all(|(a, b)| (a - b).abs() <= allowed),
                    "{row:?}"
                );
            }
            assert_eq!(table.copy(2, &mut row), None);
        }
    }
}
