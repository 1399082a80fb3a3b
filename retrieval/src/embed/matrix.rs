//! Products with a model's weights: packed once when the model is loaded, then read in the order in which they lie.
//!
//! Weights are floats, or bytes with one scale for each column. Where they are bytes, what they are multiplied with is
//! brought to bytes too, each row by its own lowest and highest value, and the sums are exact.

use std::ops::Range;

use super::elementwise;
use super::simd::{COLUMNS, GROUPS, LANES, Left, QUAD, ROWS, Tile, Unit, Work};

/// How the weights of a local model are kept in memory and multiplied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precision {
    /// As the model was trained.
    F32,
    /// A quarter of the memory, and several times faster where the processor multiplies bytes. Vectors agree with those of
    /// [`Precision::F32`] to a cosine of 0.99.
    Int8,
}

/// A linear layer: `x * weight + bias`.
pub(super) struct Dense {
    weight: Weight,
    bias: Vec<f32>,
    inputs: usize,
}

enum Weight {
    Floats(Panels<f32>),
    Bytes {
        panels: Panels<i8>,
        /// Of each column: what one step of its bytes is worth.
        scales: Vec<f32>,
        /// Of each column: the sum of its bytes, which every step of a row's zero point takes off.
        sums: Vec<f32>,
    },
}

/// What follows a product at once, while its sums are in the nearest cache.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Then {
    Bias,
    BiasAndGelu,
}

/// The memory that a product of bytes needs, kept for the next one.
#[derive(Default)]
pub(super) struct Scratch {
    bytes: Vec<u8>,
    rows: Vec<ByteRow>,
}

/// How the bytes of a row stand for its values: `value = (byte - zero) * scale`.
#[derive(Debug, Clone, Copy, Default)]
struct ByteRow {
    scale: f32,
    zero: f32,
}

impl Dense {
    /// Packs a weight of `[bias.len()][inputs]` values.
    pub(super) fn pack(weight: &[f32], bias: Vec<f32>, inputs: usize, precision: Precision) -> Self {
        let outputs = bias.len();
        let weight = match precision {
            Precision::F32 => {
                let mut panels = Panels::default();
                panels.pack_columns(outputs, inputs, |column| &weight[column * inputs..][..inputs]);
                Weight::Floats(panels)
            }
            Precision::Int8 => pack_bytes(weight, outputs, inputs),
        };
        Self { weight, bias, inputs }
    }

    pub(super) fn outputs(&self) -> usize {
        self.bias.len()
    }

    /// Fills `out` (`[rows][outputs]`) from `x` (`[rows][inputs]`).
    pub(super) fn apply(&self, x: &[f32], then: Then, scratch: &mut Scratch, out: &mut [f32]) {
        let unit = Unit::best();
        let inputs = self.inputs;
        let count = x.len() / inputs;
        match &self.weight {
            Weight::Floats(panels) => {
                let mut tile: Tile<f32> = [[0.0; COLUMNS]; ROWS];
                panels.for_each_tile(count, |panel, columns, first, rows| {
                    let left = Left {
                        values: &x[first * inputs..],
                        stride: inputs,
                        count: rows,
                        depth: inputs,
                    };
                    unit.floats(left, panel.values, panel.width, &mut tile);
                    unit.run(FinishFloats {
                        tile: &tile[..rows],
                        bias: &self.bias[columns.clone()],
                        target: self.target(out, first, columns),
                        then,
                    });
                });
            }
            Weight::Bytes { panels, scales, sums } => {
                let depth = panels.depth;
                scratch.quantise(unit, x, inputs, depth);
                let mut tile: Tile<i32> = [[0; COLUMNS]; ROWS];
                panels.for_each_tile(count, |panel, columns, first, rows| {
                    let left = Left {
                        values: &scratch.bytes[first * depth..],
                        stride: depth,
                        count: rows,
                        depth,
                    };
                    unit.bytes(left, panel.values, panel.width, &mut tile);
                    unit.run(FinishBytes {
                        tile: &tile[..rows],
                        rows: &scratch.rows[first..],
                        scales: &scales[columns.clone()],
                        column_sums: &sums[columns.clone()],
                        bias: &self.bias[columns.clone()],
                        target: self.target(out, first, columns),
                        then,
                    });
                });
            }
        }
    }

    fn target<'a>(&self, out: &'a mut [f32], first: usize, columns: Range<usize>) -> Target<'a> {
        Target {
            values: &mut out[first * self.outputs()..],
            stride: self.outputs(),
            columns,
        }
    }
}

/// Where the sums of a tile go.
struct Target<'a> {
    /// From the first row of the tile on.
    values: &'a mut [f32],
    stride: usize,
    columns: Range<usize>,
}

impl Target<'_> {
    #[inline(always)]
    fn row(&mut self, row: usize) -> &mut [f32] {
        let start = row * self.stride;
        &mut self.values[start + self.columns.start..start + self.columns.end]
    }
}

struct FinishFloats<'a> {
    tile: &'a [[f32; COLUMNS]],
    bias: &'a [f32],
    target: Target<'a>,
    then: Then,
}

impl Work for FinishFloats<'_> {
    type Output = ();

    #[inline(always)]
    fn run(mut self) {
        for (row, sums) in self.tile.iter().enumerate() {
            let out = self.target.row(row);
            for ((out, sum), bias) in out.iter_mut().zip(sums).zip(self.bias) {
                *out = sum + bias;
            }
            finish(out, self.then);
        }
    }
}

struct FinishBytes<'a> {
    tile: &'a [[i32; COLUMNS]],
    rows: &'a [ByteRow],
    scales: &'a [f32],
    column_sums: &'a [f32],
    bias: &'a [f32],
    target: Target<'a>,
    then: Then,
}

impl Work for FinishBytes<'_> {
    type Output = ();

    #[inline(always)]
    fn run(mut self) {
        for (row, (sums, of_row)) in self.tile.iter().zip(self.rows).enumerate() {
            let out = self.target.row(row);
            let of_columns = self.scales.iter().zip(self.column_sums).zip(self.bias);
            for ((out, sum), ((scale, column_sum), bias)) in out.iter_mut().zip(sums).zip(of_columns) {
                let sum = *sum as f32 - of_row.zero * column_sum;
                *out = sum * (of_row.scale * scale) + bias;
            }
            finish(out, self.then);
        }
    }
}

#[inline(always)]
fn finish(out: &mut [f32], then: Then) {
    if then == Then::BiasAndGelu {
        elementwise::gelu(out);
    }
}

/// Each column symmetrically, by its largest value.
fn pack_bytes(weight: &[f32], outputs: usize, inputs: usize) -> Weight {
    const STEPS: f32 = 127.0;
    let mut bytes = Vec::with_capacity(weight.len());
    let mut scales = Vec::with_capacity(outputs);
    let mut sums = Vec::with_capacity(outputs);
    for column in weight.chunks_exact(inputs) {
        let largest = column
            .iter()
            .fold(0.0_f32, |largest, value| largest.max(value.abs()));
        let scale = if largest > 0.0 { largest / STEPS } else { 1.0 };
        let start = bytes.len();
        bytes.extend(column.iter().map(|value| (value / scale).round() as i8));
        scales.push(scale);
        sums.push(bytes[start..].iter().map(|byte| i32::from(*byte)).sum::<i32>() as f32);
    }
    let mut panels = Panels::default();
    panels.pack_quads(inputs, outputs, |k, column| bytes[column * inputs + k]);
    Weight::Bytes { panels, scales, sums }
}

impl Scratch {
    /// Brings rows of `width` values to bytes, `depth` of them each.
    fn quantise(&mut self, unit: Unit, x: &[f32], width: usize, depth: usize) {
        let count = x.len() / width;
        self.bytes.clear();
        self.bytes.resize(count * depth, 0);
        self.rows.clear();
        self.rows.resize(count, ByteRow::default());
        unit.run(Quantise {
            x,
            width,
            depth,
            scratch: self,
        });
    }
}

struct Quantise<'a> {
    x: &'a [f32],
    width: usize,
    depth: usize,
    scratch: &'a mut Scratch,
}

impl Work for Quantise<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        const STEPS: f32 = 255.0;
        let Scratch { bytes, rows } = self.scratch;
        let places = bytes.chunks_exact_mut(self.depth).zip(rows);
        for (values, (bytes, row)) in self.x.chunks_exact(self.width).zip(places) {
            // Zero is always among the values that bytes stand for.
            let (low, high) = elementwise::range(values);
            let scale = ((high - low) / STEPS).max(f32::MIN_POSITIVE);
            let zero = (-low / scale).round_ties_even();
            *row = ByteRow { scale, zero };
            let steps = 1.0 / scale;
            for (byte, value) in bytes.iter_mut().zip(values) {
                *byte = elementwise::to_byte(value * steps + zero);
            }
        }
    }
}

/// The right factor of a product as tiles read it: panels of neighbouring columns, each step of depth after the other.
/// Columns are filled up with zeros to whole groups.
#[derive(Default)]
pub(super) struct Panels<T> {
    values: Vec<T>,
    pub(super) depth: usize,
    columns: usize,
}

#[derive(Clone, Copy)]
pub(super) struct Panel<'a, T> {
    pub(super) values: &'a [T],
    /// Columns, those of zeros included.
    pub(super) width: usize,
}

impl Panels<f32> {
    /// Takes in columns of `depth` values each, in place of what was there.
    pub(super) fn pack_columns<'a>(
        &mut self,
        columns: usize,
        depth: usize,
        column: impl Fn(usize) -> &'a [f32],
    ) {
        self.reset(depth, columns);
        let mut values = self.values.as_mut_slice();
        for (start, width) in panel_columns(columns) {
            let (panel, rest) = values.split_at_mut(depth * width);
            values = rest;
            for place in 0..width.min(columns - start) {
                for (step, value) in panel.chunks_exact_mut(width).zip(column(start + place)) {
                    step[place] = *value;
                }
            }
        }
    }

    /// The same of a factor that lies step by step: `depth` times one value of each column.
    pub(super) fn pack_steps<'a>(
        &mut self,
        depth: usize,
        columns: usize,
        values_of: impl Fn(usize) -> &'a [f32],
    ) {
        self.reset(depth, columns);
        let mut values = self.values.as_mut_slice();
        for (start, width) in panel_columns(columns) {
            let (panel, rest) = values.split_at_mut(depth * width);
            values = rest;
            for (k, step) in panel.chunks_exact_mut(width).enumerate() {
                let of_panel = &values_of(k)[start..columns.min(start + width)];
                step[..of_panel.len()].copy_from_slice(of_panel);
            }
        }
    }
}

impl Panels<i8> {
    /// The same for bytes: four steps of a column side by side, the depth filled up with zeros.
    fn pack_quads(&mut self, depth: usize, columns: usize, value: impl Fn(usize, usize) -> i8) {
        self.reset(depth.next_multiple_of(QUAD), columns);
        let mut values = self.values.as_mut_slice();
        for (start, width) in panel_columns(columns) {
            let (panel, rest) = values.split_at_mut(self.depth * width);
            values = rest;
            for (quad, step) in panel.chunks_exact_mut(width * QUAD).enumerate() {
                for (column, target) in (start..columns).zip(step.as_chunks_mut::<QUAD>().0) {
                    for (k, target) in (quad * QUAD..depth).zip(target) {
                        *target = value(k, column);
                    }
                }
            }
        }
    }
}

impl<T: Copy + Default> Panels<T> {
    fn reset(&mut self, depth: usize, columns: usize) {
        self.depth = depth;
        self.columns = columns;
        self.values.clear();
        self.values
            .resize(depth * columns.next_multiple_of(LANES), T::default());
    }

    /// The panels with the columns they hold.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Panel<'_, T>, Range<usize>)> {
        let mut rest = self.values.as_slice();
        panel_columns(self.columns).map(move |(start, width)| {
            let (values, behind) = rest.split_at(self.depth * width);
            rest = behind;
            (Panel { values, width }, start..(start + width).min(self.columns))
        })
    }

    /// Calls `work` with each panel, its columns, and the first and the number of the rows of each tile.
    #[inline(always)]
    fn for_each_tile(&self, rows: usize, mut work: impl FnMut(Panel<'_, T>, Range<usize>, usize, usize)) {
        for (panel, columns) in self.iter() {
            for first in (0..rows).step_by(ROWS) {
                work(panel, columns.clone(), first, (rows - first).min(ROWS));
            }
        }
    }
}

/// First column and width of each panel: as few panels as possible, and none much narrower than the others.
fn panel_columns(columns: usize) -> impl Iterator<Item = (usize, usize)> {
    let groups = columns.div_ceil(LANES);
    let panels = groups.div_ceil(GROUPS);
    let mut start = 0;
    (0..panels).map(move |panel| {
        let width = LANES * ((panel + 1) * groups / panels - panel * groups / panels);
        start += width;
        (start - width, width)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Weights, biases and rows that fit together.
    fn layer() -> impl Strategy<Value = (usize, Vec<f32>, Vec<f32>, Vec<f32>)> {
        (1_usize..70, 1_usize..130, 1_usize..20).prop_flat_map(|(inputs, outputs, rows)| {
            let values = |count| prop::collection::vec(-2.0_f32..2.0, count);
            (
                Just(inputs),
                values(inputs * outputs),
                values(outputs),
                values(inputs * rows),
            )
        })
    }

    proptest! {
        #[test]
        fn a_layer_is_its_weight_times_its_input((inputs, weight, bias, x) in layer()) {
            let outputs = bias.len();
            let rows = x.len() / inputs;
            for (precision, allowed) in [(Precision::F32, 1e-4), (Precision::Int8, 0.08)] {
                let dense = Dense::pack(&weight, bias.clone(), inputs, precision);
                let mut out = vec![0.0; rows * outputs];
                dense.apply(&x, Then::Bias, &mut Scratch::default(), &mut out);

                let mut positions = (0..rows).flat_map(|row| (0..outputs).map(move |column| (row, column)));
                let close = positions.all(|(row, column)| {
                    let x = &x[row * inputs..][..inputs];
                    let products = x.iter().zip(&weight[column * inputs..]).map(|(x, weight)| x * weight);
                    let truth = products.sum::<f32>() + bias[column];
                    (out[row * outputs + column] - truth).abs() <= allowed * (inputs as f32).sqrt()
                });
                prop_assert!(close, "{:?}", precision);
            }
        }

        #[test]
        fn panels_hold_every_column_once(columns in 1_usize..600) {
            let panels: Vec<(usize, usize)> = panel_columns(columns).collect();

            let mut next = 0;
            for (start, width) in &panels {
                prop_assert_eq!(*start, next);
                prop_assert!([LANES, 2 * LANES, COLUMNS].contains(width));
                next += width;
            }
            prop_assert_eq!(next, columns.next_multiple_of(LANES));
            prop_assert_eq!(panels.len(), columns.div_ceil(COLUMNS));
        }
    }

    #[test]
    fn a_weight_of_zeros_and_a_row_of_zeros_give_the_bias() {
        for precision in [Precision::F32, Precision::Int8] {
            let mut out = [9.0; 4];
            let dense = Dense::pack(&[0.0; 6], vec![1.0, -2.0], 3, precision);
            dense.apply(
                &[0.0, 0.0, 0.0, 5.0, 0.0, -5.0],
                Then::Bias,
                &mut Scratch::default(),
                &mut out,
            );
            assert_eq!(out, [1.0, -2.0, 1.0, -2.0], "{precision:?}");
        }
    }
}
