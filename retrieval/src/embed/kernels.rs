//! What a transformer does between its matrix products, row by row in place, compiled for the vector units at hand.
//!
//! The loops are plain Rust over lanes of eight that the compiler turns into vector instructions; [`pulp`] compiles them
//! for AVX2 too and picks at run time.

use std::f32::consts::{LOG2_E, SQRT_2};
use std::sync::LazyLock;

use pulp::Arch;

const LANES: usize = 8;

static ARCH: LazyLock<Arch> = LazyLock::new(Arch::new);

/// `x = norm(x + y + bias) * gain + offset`, for each row; every row and parameter has `gain.len()` values.
pub(super) fn add_and_normalise(x: &mut [f32], y: &[f32], bias: &[f32], norm: &Norm) {
    ARCH.dispatch(|| {
        let width = norm.gain.len();
        for (x, y) in x.chunks_exact_mut(width).zip(y.chunks_exact(width)) {
            for ((x, y), bias) in x.iter_mut().zip(y).zip(bias) {
                *x += y + bias;
            }
            normalise_row(x, norm);
        }
    });
}

/// `x = norm(x) * gain + offset`, for each row.
pub(super) fn normalise_rows(x: &mut [f32], norm: &Norm) {
    ARCH.dispatch(|| {
        x.chunks_exact_mut(norm.gain.len())
            .for_each(|row| normalise_row(row, norm))
    });
}

/// Parameters of a layer normalisation.
pub(super) struct Norm {
    pub(super) gain: Vec<f32>,
    pub(super) offset: Vec<f32>,
    pub(super) epsilon: f32,
}

/// `x = gelu(x + bias)` with the exact Gaussian, for each row of `bias.len()` values.
pub(super) fn add_and_gelu(x: &mut [f32], bias: &[f32]) {
    ARCH.dispatch(|| {
        for row in x.chunks_exact_mut(bias.len()) {
            for (x, bias) in row.iter_mut().zip(bias) {
                let value = *x + bias;
                *x = 0.5 * value * (1.0 + erf(value / SQRT_2));
            }
        }
    });
}

/// Each row of `width` values to the exponentials of its values, divided by their sum.
pub(super) fn softmax_rows(x: &mut [f32], width: usize) {
    ARCH.dispatch(|| {
        for row in x.chunks_exact_mut(width) {
            let highest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            row.iter_mut().for_each(|value| *value = exp(*value - highest));
            let scale = 1.0 / sum(row, |value| value);
            row.iter_mut().for_each(|value| *value *= scale);
        }
    });
}

#[inline(always)]
fn normalise_row(row: &mut [f32], norm: &Norm) {
    let count = row.len() as f32;
    let mean = sum(row, |value| value) / count;
    let variance = sum(row, |value| (value - mean) * (value - mean)) / count;
    let scale = 1.0 / (variance + norm.epsilon).sqrt();
    for ((value, gain), offset) in row.iter_mut().zip(&norm.gain).zip(&norm.offset) {
        *value = (*value - mean) * scale * gain + offset;
    }
}

/// Sums in lanes: faster than one after the other, and closer to the truth.
#[inline(always)]
fn sum(row: &[f32], value_of: impl Fn(f32) -> f32) -> f32 {
    let mut lanes = [0.0_f32; LANES];
    let chunks = row.chunks_exact(LANES);
    let rest: f32 = chunks.remainder().iter().map(|value| value_of(*value)).sum();
    for chunk in chunks {
        for (lane, value) in lanes.iter_mut().zip(chunk) {
            *lane += value_of(*value);
        }
    }
    lanes.iter().sum::<f32>() + rest
}

/// e to the `x`, within 3 units of the last place. Without branches, so that it runs in all lanes at once.
#[inline(always)]
fn exp(x: f32) -> f32 {
    // Adding this rounds to an integer, which then stands in the low bits.
    const ROUNDER: f32 = 12_582_912.0;
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    const EXPONENT_BIAS: i32 = 127;
    const MANTISSA_BITS: u32 = 23;
    let x = x.clamp(-87.0, 88.0);
    let rounded = x * LOG2_E + ROUNDER;
    let power = rounded - ROUNDER;
    let rest = x - power * LN_2_HIGH - power * LN_2_LOW;
    // Taylor's series; `rest` is at most ln(2) / 2 from 0.
    let series = 1.0
        + rest
            * (1.0
                + rest
                    * (0.5
                        + rest
                            * (1.0 / 6.0
                                + rest * (1.0 / 24.0 + rest * (1.0 / 120.0 + rest * (1.0 / 720.0))))));
    let exponent = (rounded.to_bits() as i32).wrapping_sub(ROUNDER.to_bits() as i32) + EXPONENT_BIAS;
    series * f32::from_bits((exponent << MANTISSA_BITS) as u32)
}

/// The error function, within 5e-7 (Abramowitz and Stegun, 7.1.26).
#[inline(always)]
fn erf(x: f32) -> f32 {
    let size = x.abs();
    let t = 1.0 / (1.0 + 0.327_591_1 * size);
    let series =
        t * (0.254_829_6 + t * (-0.284_496_74 + t * (1.421_413_7 + t * (-1.453_152 + t * 1.061_405_4))));
    (1.0 - series * exp(-size * size)).copysign(x)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_close_over_its_whole_range() {
        for step in -8_700..=8_800 {
            let x = step as f32 / 100.0;
            let truth = f64::from(x).exp();
            let error = (f64::from(exp(x)) - truth).abs() / truth;
            assert!(error < 4e-7, "exp({x}) is off by {error}");
        }
        assert!(exp(-1e9) < 1e-37 && exp(f32::NEG_INFINITY) < 1e-37);
    }

    #[test]
    fn erf_has_its_known_values() {
        let known = [
            (0.0, 0.0),
            (0.5, 0.520_499_9),
            (1.0, 0.842_700_8),
            (2.0, 0.995_322_3),
            (4.0, 1.0),
        ];
        for (x, value) in known {
            assert!((erf(x) - value).abs() < 1e-6, "erf({x})");
            assert!((erf(-x) + value).abs() < 1e-6, "erf(-{x})");
        }
    }

    #[test]
    fn rows_are_normalised_with_what_was_added() {
        let norm = Norm {
            gain: vec![2.0; 11],
            offset: vec![1.0; 11],
            epsilon: 1e-12,
        };
        let mut x: Vec<f32> = (0..22).map(|n| n as f32).collect();
        add_and_normalise(&mut x, &[1.0; 22], &[3.0; 11], &norm);

        for row in x.chunks_exact(11) {
            let mean: f32 = row.iter().sum::<f32>() / 11.0;
            let variance = row.iter().map(|value| (value - mean).powi(2)).sum::<f32>() / 11.0;
            assert!((mean - 1.0).abs() < 1e-5, "{mean}");
            assert!((variance - 4.0).abs() < 1e-4, "{variance}");
        }
        let again = x.clone();
        normalise_rows(&mut x, &norm);
        assert!(x.iter().zip(again).all(|(a, b)| (a - b).abs() < 1e-4));
    }

    #[test]
    fn softmax_gives_shares() {
        let mut x = vec![1.0, 2.0, 3.0, -1e30, 0.0, 0.0, 0.0, 0.0];
        softmax_rows(&mut x, 4);

        let shares = [
            0.090_030_57,
            0.244_728_47,
            0.665_240_94,
            0.0,
            0.25,
            0.25,
            0.25,
            0.25,
        ];
        assert!(x.iter().zip(shares).all(|(a, b)| (a - b).abs() < 1e-6), "{x:?}");
    }

    #[test]
    fn gelu_is_the_exact_one() {
        let mut x = vec![0.0, 1.0, -1.0, 3.0];
        add_and_gelu(&mut x, &[0.0, 0.0]);

        let known = [0.0, 0.841_344_7, -0.158_655_3, 2.995_950_2];
        assert!(x.iter().zip(known).all(|(a, b)| (a - b).abs() < 2e-6), "{x:?}");
    }
}
