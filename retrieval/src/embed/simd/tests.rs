//! Every kernel against plain sums.

use proptest::prelude::*;

use super::*;

#[path = "../../../fuzz/src/tiles.rs"]
mod tiles;

proptest! {
    #[test]
    fn every_unit_sums_what_plain_loops_sum(bytes in prop::collection::vec(any::<u8>(), 0..2_000)) {
        tiles::all_units_agree(&bytes);
    }
}

#[test]
fn tiles_of_every_shape_agree() {
    let values: Vec<u8> = (0..=u8::MAX).collect();
    for (rows, groups, quads) in (0..ROWS as u8).flat_map(|rows| {
        (0..GROUPS as u8).flat_map(move |groups| [0, 1, 2, 7].map(|quads| (rows, groups, quads)))
    }) {
        for gap in [0, 3] {
            tiles::all_units_agree(&[&[rows, gap, groups, quads], values.as_slice()].concat());
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
