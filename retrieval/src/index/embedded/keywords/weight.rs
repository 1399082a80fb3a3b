//! BM25 on stored weights: a byte for what a term says about a chunk, and the inverse document frequency on top.

use crate::analysis::LARGEST_WEIGHT;
pub(super) use crate::analysis::inverse_document_frequency;

/// The weight that the largest byte stands for.
const LARGEST: f32 = LARGEST_WEIGHT;

/// The stored form of a weight, never 0: a posting says at least that the term is there.
pub(super) fn quantise(weight: f32) -> u8 {
    let steps = (weight / LARGEST * 255.0).round();
    steps.clamp(1.0, 255.0) as u8
}

/// What a byte adds to the score of a chunk for a term of this inverse document frequency.
pub(super) fn contributions(inverse_document_frequency: f32) -> [f32; 256] {
    let step = LARGEST / 255.0 * inverse_document_frequency;
    std::array::from_fn(|byte| byte as f32 * step)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_weight_is_kept_to_half_a_step() {
        for weight in [0.02_f32, 0.5, 1.0, 1.37, 2.19] {
            let kept = contributions(1.0)[usize::from(quantise(weight))];
            assert!(
                (kept - weight).abs() <= LARGEST / 255.0 / 2.0,
                "{weight} became {kept}"
            );
        }
    }

    #[test]
    fn no_posting_is_without_weight() {
        assert_eq!(quantise(0.0), 1);
        assert_eq!(quantise(-1.0), 1);
        assert_eq!(quantise(99.0), 255);
    }

    #[test]
    fn rarer_terms_tell_more_and_none_tells_nothing() {
        assert!(inverse_document_frequency(1_000, 1) > inverse_document_frequency(1_000, 10));
        assert!(inverse_document_frequency(1_000, 1_000) > 0.0);
        assert!(inverse_document_frequency(0, 5) > 0.0);
    }
}
