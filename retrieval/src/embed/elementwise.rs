//! What a transformer does between its matrix products, row by row in place. The loops are plain Rust without branches that
//! the compiler turns into vector instructions of the [`Unit`](super::simd::Unit) that runs them.

use std::f32::consts::LOG2_E;

use super::simd::Work;

/// Values that are summed side by side.
const LANES: usize = 16;

/// Parameters of a layer normalisation.
pub(super) struct Norm {
    pub(super) gain: Vec<f32>,
    pub(super) offset: Vec<f32>,
    pub(super) epsilon: f32,
}

impl Norm {
    /// `row = (row - mean) / deviation * gain + offset`.
    #[inline(always)]
    fn normalise(&self, row: &mut [f32]) {
        let count = row.len() as f32;
        let mean = sum(row, |value| value) / count;
        let variance = sum(row, |value| (value - mean) * (value - mean)) / count;
        let scale = 1.0 / (variance + self.epsilon).sqrt();
        for ((value, gain), offset) in row.iter_mut().zip(&self.gain).zip(&self.offset) {
            *value = (*value - mean) * scale * gain + offset;
        }
    }
}

/// `x = norm(x + y)`, for each row of as many values as the norm has gains.
pub(super) struct AddAndNormalise<'a> {
    pub(super) x: &'a mut [f32],
    pub(super) y: &'a [f32],
    pub(super) norm: &'a Norm,
}

impl Work for AddAndNormalise<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let width = self.norm.gain.len();
        for (x, y) in self.x.chunks_exact_mut(width).zip(self.y.chunks_exact(width)) {
            x.iter_mut().zip(y).for_each(|(x, y)| *x += y);
            self.norm.normalise(x);
        }
    }
}

/// The first `width` values of each row of `stride` to e to the power of what they are above the highest of them, and the
/// sum of these, at least one, to `sums`.
pub(super) struct Exponentials<'a> {
    pub(super) rows: &'a mut [f32],
    pub(super) stride: usize,
    pub(super) width: usize,
    pub(super) sums: &'a mut [f32],
}

impl Work for Exponentials<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        for (row, row_sum) in self.rows.chunks_exact_mut(self.stride).zip(self.sums) {
            let row = &mut row[..self.width];
            let highest = highest(row);
            row.iter_mut().for_each(|value| *value = exp(*value - highest));
            *row_sum = sum(row, |value| value);
        }
    }
}

/// `x = gelu(x)` with the exact Gaussian.
#[inline(always)]
pub(super) fn gelu(x: &mut [f32]) {
    for x in x {
        *x *= normal_distribution(*x);
    }
}

/// The lowest and the highest of the values and zero.
#[inline(always)]
pub(super) fn range(row: &[f32]) -> (f32, f32) {
    let (mut lows, mut highs) = ([0.0_f32; LANES], [0.0_f32; LANES]);
    let (chunks, rest) = row.as_chunks::<LANES>();
    let mut widen = |values: &[f32]| {
        for ((low, high), value) in lows.iter_mut().zip(&mut highs).zip(values) {
            *low = if *value < *low { *value } else { *low };
            *high = if *value > *high { *value } else { *high };
        }
    };
    chunks.iter().for_each(|chunk| widen(chunk));
    widen(rest);
    let low = lows.iter().fold(0.0_f32, |low, value| low.min(*value));
    let high = highs.iter().fold(0.0_f32, |high, value| high.max(*value));
    (low, high)
}

/// Adding this rounds to an integer, which then stands in the low bits.
const ROUNDER: f32 = 12_582_912.0;

/// The nearest of 0 to 255.
#[inline(always)]
pub(super) fn to_byte(value: f32) -> u8 {
    (value.clamp(0.0, 255.0) + ROUNDER).to_bits() as u8
}

#[inline(always)]
fn highest(row: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let (chunks, rest) = row.as_chunks::<LANES>();
    let mut raise = |values: &[f32]| {
        for (lane, value) in lanes.iter_mut().zip(values) {
            *lane = if *value > *lane { *value } else { *lane };
        }
    };
    chunks.iter().for_each(|chunk| raise(chunk));
    raise(rest);
    lanes
        .iter()
        .fold(f32::NEG_INFINITY, |highest, value| highest.max(*value))
}

/// Sums in lanes: faster than one after the other, and closer to the truth.
#[inline(always)]
fn sum(row: &[f32], value_of: impl Fn(f32) -> f32) -> f32 {
    let mut lanes = [0.0_f32; LANES];
    let (chunks, rest) = row.as_chunks::<LANES>();
    for chunk in chunks {
        for (lane, value) in lanes.iter_mut().zip(chunk) {
            *lane += value_of(*value);
        }
    }
    for (lane, value) in lanes.iter_mut().zip(rest) {
        *lane += value_of(*value);
    }
    lanes.iter().sum()
}

/// e to the `x`, within 3 units of the last place. Without branches, so that it runs in all lanes at once.
#[inline(always)]
fn exp(x: f32) -> f32 {
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

/// The share of the normal distribution below `x`, within 3e-7: a polynomial in `x * x`, fitted up to 5 by Lawson's
/// algorithm; what lies farther out counts as 5.
#[inline(always)]
fn normal_distribution(x: f32) -> f32 {
    const LIMIT: f32 = 5.0;
    const COEFFICIENTS: [f32; 13] = [
        4.929_656e-4,
        -1.514_150_4e-3,
        2.001_869_5e-3,
        -2.915_680_6e-3,
        6.165_422_5e-3,
        -1.097_322_5e-2,
        1.649_751_6e-2,
        -2.333_673_3e-2,
        3.142_623e-2,
        -4.043_295e-2,
        5.152_142e-2,
        -7.029_665e-2,
        1.413_637_8e-1,
    ];
    let x = x.clamp(-LIMIT, LIMIT);
    // From -1 to 1, where the terms are small and lose nothing in their sum.
    let at = x * x * (2.0 / (LIMIT * LIMIT)) - 1.0;
    let series = COEFFICIENTS
        .iter()
        .fold(0.0, |series, coefficient| series * at + coefficient);
    0.5 + x * series
}

#[cfg(test)]
mod tests {
    use super::super::simd::Unit;
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
    fn gelu_is_the_exact_one() {
        let known = [
            (0.0, 0.0),
            (1.0, 0.841_344_7),
            (-1.0, -0.158_655_3),
            (3.0, 2.995_950_2),
            (-3.0, -0.004_049_7),
            (0.1, 0.053_982_8),
            (-4.9, -2.347_9e-6),
            (20.0, 20.0),
            (-20.0, 0.0),
        ];
        for (x, truth) in known {
            let mut value = [x];
            gelu(&mut value);
            assert!(
                (value[0] - truth).abs() < 1e-6 * x.abs().max(1.0),
                "gelu({x}) is {}",
                value[0]
            );
        }
    }

    #[test]
    fn rows_are_normalised_with_what_was_added() {
        let norm = Norm {
            gain: vec![2.0; 21],
            offset: vec![1.0; 21],
            epsilon: 1e-12,
        };
        let mut x: Vec<f32> = (0..42).map(|n| n as f32).collect();
        let work = AddAndNormalise {
            x: &mut x,
            y: &[4.0; 42],
            norm: &norm,
        };
        Unit::best().run(work);

        for row in x.chunks_exact(21) {
            let mean: f32 = row.iter().sum::<f32>() / 21.0;
            let variance = row.iter().map(|value| (value - mean).powi(2)).sum::<f32>() / 21.0;
            assert!((mean - 1.0).abs() < 1e-5, "{mean}");
            assert!((variance - 4.0).abs() < 1e-4, "{variance}");
        }
    }

    #[test]
    fn exponentials_over_their_sum_are_shares() {
        let mut row = [1.0, 2.0, 3.0, -1e30, 7.0];
        let mut sums = [0.0];
        Unit::best().run(Exponentials {
            rows: &mut row,
            stride: 5,
            width: 4,
            sums: &mut sums,
        });

        let shares = [0.090_030_57, 0.244_728_47, 0.665_240_94, 0.0];
        let close = |(value, share): (&f32, f32)| (value / sums[0] - share).abs() < 1e-6;
        assert!(row.iter().zip(shares).all(close), "{row:?}");
        assert_eq!(row[4], 7.0, "what lies behind the width stays");
    }

    #[test]
    fn a_range_holds_every_value_and_zero() {
        let values: Vec<f32> = (3..40).map(|n| n as f32).collect();

        assert_eq!(range(&values), (0.0, 39.0));
        assert_eq!(range(&[-2.0]), (-2.0, 0.0));
        assert_eq!(range(&[]), (0.0, 0.0));
    }

    #[test]
    fn bytes_are_the_nearest() {
        assert_eq!([-7.0, 0.4, 0.6, 254.6, 300.0].map(to_byte), [0, 0, 1, 255, 255]);
    }
}
