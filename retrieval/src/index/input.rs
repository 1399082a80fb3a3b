//! What every backend asks of its input before anything is stored.

use std::collections::HashSet;

use super::{IndexError, Point};

/// Whether an index of `dimension`, `None` for one of words alone, can compare this vector.
pub(super) fn check_vector(dimension: Option<usize>, vector: &[f32]) -> Result<(), IndexError> {
    let refused = |reason: &str| {
        Err(IndexError::Refused {
            reason: reason.to_owned(),
        })
    };
    match dimension {
        None => refused("this index holds no vectors"),
        Some(expected) if expected != vector.len() => Err(IndexError::DimensionMismatch {
            expected,
            actual: vector.len(),
        }),
        Some(_) if !vector.iter().all(|value| value.is_finite()) => {
            refused("a vector has a value that is no number")
        }
        Some(_) => Ok(()),
    }
}

/// Of points with one chunk id the last, as if they had come one after the other.
pub(super) fn without_repeats(mut points: Vec<Point>) -> Vec<Point> {
    let mut seen = HashSet::with_capacity(points.len());
    points.reverse();
    points.retain(|point| seen.insert(point.chunk_id));
    points.reverse();
    points
}
