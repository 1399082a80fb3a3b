//! What each token takes over from the others of its text (Vaswani et al., "Attention is all you need", 2017). Eight tokens
//! at a time, so that their shares never leave the nearest cache; the sums are divided by the shares' sum at the end.

use super::elementwise::Exponentials;
use super::matrix::Panels;
use super::simd::{COLUMNS, LANES, Left, ROWS, Tile, Unit};

/// The memory of one text's attention, kept for the next one.
#[derive(Default)]
pub(super) struct Attention {
    keys: Panels<f32>,
    values: Panels<f32>,
    /// `[rows of a tile][tokens]`: what each token of a tile takes of every other.
    shares: Vec<f32>,
}

impl Attention {
    /// Fills `out` (`[tokens][width]`) from `projected` (`[tokens][3 * width]`): queries, already scaled, keys and values of
    /// one text, each head by head.
    pub(super) fn apply(&mut self, projected: &[f32], width: usize, heads: usize, out: &mut [f32]) {
        let unit = Unit::best();
        let head_width = width / heads;
        let stride = 3 * width;
        let tokens = projected.len() / stride;
        let share_stride = tokens.next_multiple_of(LANES);
        self.shares.clear();
        self.shares.resize(ROWS * share_stride, 0.0);
        for head in 0..heads {
            let queries_at = head * head_width;
            let keys_at = width + queries_at;
            let values_at = 2 * width + queries_at;
            self.keys.pack_columns(tokens, head_width, |token| {
                &projected[token * stride + keys_at..][..head_width]
            });
            self.values.pack_steps(tokens, head_width, |token| {
                &projected[token * stride + values_at..][..head_width]
            });
            for first in (0..tokens).step_by(ROWS) {
                let rows = (tokens - first).min(ROWS);
                let queries = Left {
                    values: &projected[first * stride + queries_at..],
                    stride,
                    count: rows,
                    depth: head_width,
                };
                self.score(unit, queries, share_stride);
                let mut sums = [0.0_f32; ROWS];
                unit.run(Exponentials {
                    rows: &mut self.shares,
                    stride: share_stride,
                    width: tokens,
                    sums: &mut sums[..rows],
                });
                self.take(unit, rows, tokens, share_stride, |row, columns, taken| {
                    let start = (first + row) * width + queries_at;
                    let scale = 1.0 / sums[row];
                    let out = &mut out[start + columns.start..start + columns.end];
                    out.iter_mut()
                        .zip(taken)
                        .for_each(|(out, value)| *out = value * scale);
                });
            }
        }
    }

    /// How well each query fits each key.
    #[inline(always)]
    fn score(&mut self, unit: Unit, queries: Left<'_, f32>, share_stride: usize) {
        let mut tile: Tile<f32> = [[0.0; COLUMNS]; ROWS];
        for (panel, columns) in self.keys.iter() {
            unit.floats(queries, panel.values, panel.width, &mut tile);
            for (sums, row) in tile
                .iter()
                .zip(self.shares.chunks_exact_mut(share_stride))
                .take(queries.count)
            {
                row[columns.start..columns.start + panel.width].copy_from_slice(&sums[..panel.width]);
            }
        }
    }

    /// The values of all tokens, by their shares.
    #[inline(always)]
    fn take(
        &self,
        unit: Unit,
        rows: usize,
        tokens: usize,
        share_stride: usize,
        mut each: impl FnMut(usize, std::ops::Range<usize>, &[f32]),
    ) {
        let mut tile: Tile<f32> = [[0.0; COLUMNS]; ROWS];
        for (panel, columns) in self.values.iter() {
            let shares = Left {
                values: &self.shares,
                stride: share_stride,
                count: rows,
                depth: tokens,
            };
            unit.floats(shares, panel.values, panel.width, &mut tile);
            for (row, taken) in tile[..rows].iter().enumerate() {
                each(row, columns.clone(), taken);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_token_takes_values_by_how_well_its_query_fits_the_keys() {
        // Two heads of three values; more tokens than a tile has rows and a panel columns.
        let (tokens, width, heads) = (53, 6, 2);
        let projected: Vec<f32> = (0..tokens * 3 * width)
            .map(|n| ((n * 37 % 101) as f32 / 50.0) - 1.0)
            .collect();
        let mut out = vec![0.0; tokens * width];
        let mut attention = Attention::default();
        // What a longer text left behind does not count.
        attention.apply(&projected, width, heads, &mut out);
        attention.apply(&projected[..11 * 3 * width], width, heads, &mut out[..11 * width]);
        attention.apply(&projected, width, heads, &mut out);

        let part =
            |token: usize, number: usize, head: usize| &projected[token * 18 + number * 6 + head * 3..][..3];
        for head in 0..heads {
            for query in 0..tokens {
                let weight = |key: usize| {
                    let fit = part(query, 0, head)
                        .iter()
                        .zip(part(key, 1, head))
                        .map(|(a, b)| a * b);
                    fit.sum::<f32>().exp()
                };
                let sum: f32 = (0..tokens).map(weight).sum();
                for place in 0..3 {
                    let truth = (0..tokens)
                        .map(|key| weight(key) * part(key, 2, head)[place])
                        .sum::<f32>()
                        / sum;
                    let found = out[query * width + head * 3 + place];
                    assert!((found - truth).abs() < 1e-5, "{found} instead of {truth}");
                }
            }
        }
    }
}
