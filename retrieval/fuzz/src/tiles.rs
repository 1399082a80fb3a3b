//! What must hold for every product of a tile: each vector unit of the machine sums what plain loops sum, and reads nothing
//! beyond its factors.

use super::{COLUMNS, GROUPS, LANES, Left, QUAD, ROWS, Tile, Unit};

/// Values of a row that belong to no product, at most.
const MOST_GAP: usize = 20;

/// Steps of four that a product has, at most: beyond the longest loop that is unrolled.
const MOST_QUADS: usize = 90;

/// Sums of floats may differ in their last places: by this share of what was summed.
const CLOSE: f64 = 1e-5;

/// The factors of one tile.
#[derive(Debug)]
struct Product {
    count: usize,
    stride: usize,
    depth: usize,
    width: usize,
    rows: Vec<u8>,
    panel: Vec<i8>,
}

impl Product {
    /// The first bytes are the shape, the others the values, from the beginning again where they do not reach.
    fn of(bytes: &[u8]) -> Option<Self> {
        let (&[rows, gap, groups, quads], values) = bytes.split_first_chunk()?;
        let count = 1 + usize::from(rows) % ROWS;
        let depth = usize::from(quads) % MOST_QUADS * QUAD;
        let stride = depth + usize::from(gap) % MOST_GAP;
        let width = (1 + usize::from(groups) % GROUPS) * LANES;
        let mut values = values.iter().copied().cycle();
        let mut next = || values.next().unwrap_or(u8::MAX);
        // Exactly as long as needed: a read beyond the end would be one beyond the allocation.
        let rows = (0..(count - 1) * stride + depth).map(|_| next()).collect();
        // Weights are symmetric: -128 is none.
        let panel = (0..depth * width).map(|_| (next() as i8).max(-127)).collect();
        Some(Self {
            count,
            stride,
            depth,
            width,
            rows,
            panel,
        })
    }

    /// Rows and columns of all sums.
    fn places(&self) -> impl Iterator<Item = (usize, usize)> {
        (0..self.count).flat_map(|row| (0..self.width).map(move |column| (row, column)))
    }
}

/// Panics where a unit multiplies what `bytes` stand for and another sum comes out than that of plain loops.
pub fn all_units_agree(bytes: &[u8]) {
    let Some(product) = Product::of(bytes) else {
        return;
    };
    for unit in Unit::all() {
        bytes_agree(unit, &product);
        floats_agree(unit, &product);
    }
}

fn bytes_agree(unit: Unit, product: &Product) {
    let left = Left {
        values: &product.rows,
        stride: product.stride,
        count: product.count,
        depth: product.depth,
    };
    let mut tile: Tile<i32> = [[0; COLUMNS]; ROWS];
    unit.bytes(left, &product.panel, product.width, &mut tile);
    for (row, column) in product.places() {
        let products = (0..product.depth).map(|k| {
            let place = (k / QUAD * product.width + column) * QUAD + k % QUAD;
            i32::from(product.rows[row * product.stride + k]) * i32::from(product.panel[place])
        });
        let truth: i32 = products.sum();
        assert_eq!(
            tile[row][column], truth,
            "{unit:?} in row {row} and column {column}"
        );
    }
}

fn floats_agree(unit: Unit, product: &Product) {
    let values: Vec<f32> = product
        .rows
        .iter()
        .map(|byte| f32::from(*byte) / 16.0 - 8.0)
        .collect();
    let panel: Vec<f32> = product.panel.iter().map(|byte| f32::from(*byte) / 16.0).collect();
    let left = Left {
        values: &values,
        stride: product.stride,
        count: product.count,
        depth: product.depth,
    };
    let mut tile: Tile<f32> = [[0.0; COLUMNS]; ROWS];
    unit.floats(left, &panel, product.width, &mut tile);
    for (row, column) in product.places() {
        let (mut truth, mut size) = (0.0, 0.0);
        for k in 0..product.depth {
            let step =
                f64::from(values[row * product.stride + k]) * f64::from(panel[k * product.width + column]);
            truth += step;
            size += step.abs();
        }
        let error = (f64::from(tile[row][column]) - truth).abs();
        assert!(
            error <= CLOSE * size,
            "{unit:?} in row {row} and column {column} is off by {error}"
        );
    }
}
