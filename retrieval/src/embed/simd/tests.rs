//! Every kernel against plain sums.

use proptest::prelude::*;

use super::*;

/// A product of any shape that a tile can have, on values of the whole range.
#[derive(Debug)]
struct Case {
    count: usize,
    stride: usize,
    depth: usize,
    width: usize,
    bytes: Vec<u8>,
    panel: Vec<i8>,
}

fn case() -> impl Strategy<Value = Case> {
    let shape = (1..=ROWS, 0_usize..20, 0_usize..90, 1..=GROUPS);
    shape.prop_flat_map(|(count, gap, depth, groups)| {
        let depth = depth * QUAD;
        let (stride, width) = (depth + gap, groups * LANES);
        // Exactly as long as needed: a read beyond the end would be one beyond the allocation.
        let bytes = prop::collection::vec(any::<u8>(), (count - 1) * stride + depth);
        let panel = prop::collection::vec(-127_i8..=127, depth * width);
        (bytes, panel).prop_map(move |(bytes, panel)| Case {
            count,
            stride,
            depth,
            width,
            bytes,
            panel,
        })
    })
}

proptest! {
    #[test]
    fn every_unit_sums_bytes_exactly(case in case()) {
        let left = Left { values: &case.bytes, stride: case.stride, count: case.count, depth: case.depth };
        for unit in Unit::all() {
            let mut tile: Tile<i32> = [[0; COLUMNS]; ROWS];
            unit.bytes(left, &case.panel, case.width, &mut tile);
            for (row, sums) in tile.iter().enumerate().take(case.count) {
                for (column, sum) in sums.iter().enumerate().take(case.width) {
                    let truth: i32 = (0..case.depth)
                        .map(|k| {
                            let byte = case.bytes[row * case.stride + k];
                            let place = (k / QUAD * case.width + column) * QUAD + k % QUAD;
                            i32::from(byte) * i32::from(case.panel[place])
                        })
                        .sum();
                    prop_assert_eq!(*sum, truth, "{:?} in row {} and column {}", unit, row, column);
                }
            }
        }
    }

    #[test]
    fn every_unit_sums_floats_closely(case in case()) {
        let values: Vec<f32> = case.bytes.iter().map(|byte| f32::from(*byte) / 16.0 - 8.0).collect();
        let panel: Vec<f32> = case.panel.iter().map(|byte| f32::from(*byte) / 16.0).collect();
        let left = Left { values: &values, stride: case.stride, count: case.count, depth: case.depth };
        for unit in Unit::all() {
            let mut tile: Tile<f32> = [[0.0; COLUMNS]; ROWS];
            unit.floats(left, &panel, case.width, &mut tile);
            for (row, sums) in tile.iter().enumerate().take(case.count) {
                for (column, sum) in sums.iter().enumerate().take(case.width) {
                    let products = (0..case.depth).map(|k| {
                        f64::from(values[row * case.stride + k]) * f64::from(panel[k * case.width + column])
                    });
                    let (truth, size) = products.fold((0.0, 0.0), |(sum, size), product| {
                        (sum + product, size + product.abs())
                    });
                    let error = (f64::from(*sum) - truth).abs();
                    prop_assert!(error <= 1e-5 * size, "{:?} is off by {}", unit, error);
                }
            }
        }
    }
}

#[test]
fn the_largest_bytes_do_not_saturate() {
    let depth = 64;
    let (bytes, panel) = ([255_u8; 64], [-127_i8; 64 * LANES]);
    for unit in Unit::all() {
        let mut tile: Tile<i32> = [[0; COLUMNS]; ROWS];
        let left = Left {
            values: &bytes,
            stride: depth,
            count: 1,
            depth,
        };
        unit.bytes(left, &panel, LANES, &mut tile);
        assert_eq!(tile[0][..LANES], [-255 * 127 * 64; LANES], "{unit:?}");
    }
}

#[test]
fn slices_that_are_too_short_are_noticed_before_they_are_read() {
    let (rows, panel) = ([1.0_f32; 15], [1.0_f32; 8 * LANES]);
    let (bytes, byte_panel) = ([1_u8; 15], [1_i8; 8 * LANES]);
    for unit in Unit::all() {
        // Rows, depth, width: a row too many, a step too many, a group too many, no shape of a tile.
        for (count, depth, width) in [
            (3, 8, 16),
            (1, 16, 16),
            (1, 8, 32),
            (9, 1, 16),
            (0, 8, 16),
            (1, 8, 20),
        ] {
            let floats = std::panic::catch_unwind(|| {
                let left = Left {
                    values: &rows,
                    stride: 7,
                    count,
                    depth,
                };
                unit.floats(left, &panel, width, &mut [[0.0; COLUMNS]; ROWS]);
            });
            let bytes = std::panic::catch_unwind(|| {
                let left = Left {
                    values: &bytes,
                    stride: 7,
                    count,
                    depth,
                };
                unit.bytes(left, &byte_panel, width, &mut [[0; COLUMNS]; ROWS]);
            });
            assert!(
                floats.is_err() && bytes.is_err(),
                "{unit:?} took {count} x {depth} x {width}"
            );
        }
    }
}

#[test]
fn work_runs_on_every_unit() {
    struct Sum<'a>(&'a [f32]);
    impl Work for Sum<'_> {
        type Output = f32;

        #[inline(always)]
        fn run(self) -> f32 {
            self.0.iter().sum()
        }
    }
    for unit in Unit::all() {
        assert_eq!(unit.run(Sum(&[1.0, 2.0, 39.0])), 42.0);
    }
}
