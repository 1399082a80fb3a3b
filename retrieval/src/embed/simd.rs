//! What the compiler does not turn into good vector code by itself: one tile of a matrix product, of floats and of bytes,
//! for the vector unit at hand. The only file of the project with `unsafe`; `retrieval/fuzz` compiles it alone.
//!
//! A tile is up to [`ROWS`] rows by up to [`GROUPS`] groups of [`LANES`] columns: as many sums as the registers hold. The
//! left factor lies row by row, the right one in panels: all values of a panel's columns for the first step of depth, then
//! for the second. Sums of bytes are exact and so the same on every machine; sums of floats differ in the last places.
//!
//! Two things make this sound: a [`Unit`] exists only for what the processor was asked and has, and every tile function
//! checks the lengths of its slices before it reads them through pointers.
#![allow(
    unsafe_code,
    reason = "vector loads go through pointers, and code for a vector unit may run only where there is one"
)]

use std::sync::LazyLock;

/// Rows of a tile at most.
pub(super) const ROWS: usize = 8;

/// Columns of a group: the floats of the widest vector.
pub(super) const LANES: usize = 16;

/// Groups of columns of a tile at most.
pub(super) const GROUPS: usize = 3;

/// Columns of a tile at most.
pub(super) const COLUMNS: usize = LANES * GROUPS;

/// Bytes of one column that are multiplied and summed at once; the depth of a product of bytes is a multiple of it.
pub(super) const QUAD: usize = 4;

/// Sums of one tile; only the rows and columns that were asked for are written.
pub(super) type Tile<T> = [[T; COLUMNS]; ROWS];

/// Runs `$work` with the number of rows and of column groups as constants.
macro_rules! each_shape {
    ($rows:expr, $width:expr, $R:ident, $G:ident => $work:expr) => {
        each_shape!(@rows $rows, $width, $R, $G, $work, 1 2 3 4 5 6 7 8)
    };
    (@rows $rows:expr, $width:expr, $R:ident, $G:ident, $work:expr, $($r:literal)*) => {
        match ($rows, $width) {
            $(
                ($r, 16) => { const $R: usize = $r; const $G: usize = 1; $work }
                ($r, 32) => { const $R: usize = $r; const $G: usize = 2; $work }
                ($r, 48) => { const $R: usize = $r; const $G: usize = 3; $work }
            )*
            (rows, width) => panic!("no tile has {rows} rows of {width} columns"),
        }
    };
}

/// A vector unit that this machine has.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Unit(Kind);

#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    /// 512 bits wide, with products of bytes.
    #[cfg(target_arch = "x86_64")]
    Avx512Vnni,
    #[cfg(target_arch = "x86_64")]
    Avx512,
    /// 256 bits wide, with products of bytes.
    #[cfg(target_arch = "x86_64")]
    AvxVnni,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// Whatever the compiler takes for granted.
    Portable,
}

impl Unit {
    /// The fastest one here.
    pub(super) fn best() -> Self {
        static BEST: LazyLock<Unit> = LazyLock::new(|| Unit::all()[0]);
        *BEST
    }

    /// All that this machine has, the fastest first.
    pub(super) fn all() -> Vec<Self> {
        let mut kinds = vec![];
        #[cfg(target_arch = "x86_64")]
        {
            let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
            let avx512 = avx2 && is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw");
            kinds.extend((avx512 && is_x86_feature_detected!("avx512vnni")).then_some(Kind::Avx512Vnni));
            kinds.extend(avx512.then_some(Kind::Avx512));
            kinds.extend((avx2 && is_x86_feature_detected!("avxvnni")).then_some(Kind::AvxVnni));
            kinds.extend(avx2.then_some(Kind::Avx2));
        }
        kinds.push(Kind::Portable);
        kinds.into_iter().map(Self).collect()
    }

    /// Runs `work`, compiled for this unit.
    #[inline]
    pub(super) fn run<W: Work>(self, work: W) -> W::Output {
        match self.0 {
            // SAFETY: a unit of this kind exists only where the processor has these features.
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512Vnni | Kind::Avx512 => unsafe { x86::run_512(work) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Kind::AvxVnni | Kind::Avx2 => unsafe { x86::run_256(work) },
            Kind::Portable => work.run(),
        }
    }

    /// `tile[row][column]` = sum over `k < depth` of `rows[row * stride + k] * panel[k * width + column]`, for `count` rows
    /// and as many columns as the panel is wide.
    ///
    /// # Panics
    /// When the slices are shorter than that, or count or width are not those of a tile.
    pub(super) fn floats(self, left: Left<'_, f32>, panel: &[f32], width: usize, tile: &mut Tile<f32>) {
        left.check();
        check_panel(panel, left.depth, width);
        each_shape!(left.count, width, R, G => match self.0 {
            // SAFETY: the processor has the features, and the lengths were checked above.
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512Vnni | Kind::Avx512 => unsafe { x86::floats_512::<R, G>(left, panel, tile) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Kind::AvxVnni | Kind::Avx2 => unsafe { x86::floats_256::<R, G>(left, panel, tile) },
            Kind::Portable => portable::floats::<R, G>(left, panel, tile),
        });
    }

    /// The same of bytes: `rows[row * stride + k] * panel[(k / 4 * width + column) * 4 + k % 4]`; the depth is a multiple of
    /// four, and no value of the panel is -128.
    ///
    /// # Panics
    /// As for floats.
    pub(super) fn bytes(self, left: Left<'_, u8>, panel: &[i8], width: usize, tile: &mut Tile<i32>) {
        left.check();
        assert!(
            left.depth.is_multiple_of(QUAD),
            "the depth is no multiple of four"
        );
        check_panel(panel, left.depth, width);
        each_shape!(left.count, width, R, G => match self.0 {
            // SAFETY: the processor has the features, and the lengths were checked above.
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512Vnni => unsafe { x86::bytes_512::<R, G>(left, panel, tile) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Kind::AvxVnni => unsafe { x86::bytes_256::<R, G>(left, panel, tile) },
            // SAFETY: as above; what has AVX-512 has AVX2.
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512 | Kind::Avx2 => unsafe { x86::bytes_pairwise::<R, G>(left, panel, tile) },
            Kind::Portable => portable::bytes::<R, G>(left, panel, tile),
        });
    }
}

/// Loops in plain Rust that the compiler turns into vector instructions: anew for each unit, if [`Work::run`] and all that it
/// calls are `#[inline(always)]`. A closure would not do, because nothing makes the compiler inline it.
pub(super) trait Work {
    type Output;

    fn run(self) -> Self::Output;
}

/// Rows of the left factor.
#[derive(Clone, Copy)]
pub(super) struct Left<'a, T> {
    pub(super) values: &'a [T],
    /// From the beginning of one row to that of the next.
    pub(super) stride: usize,
    pub(super) count: usize,
    /// Values of a row that are multiplied.
    pub(super) depth: usize,
}

impl<T> Left<'_, T> {
    fn check(&self) {
        let behind_first = self.count.saturating_sub(1).checked_mul(self.stride);
        let needed = behind_first.and_then(|behind| behind.checked_add(self.depth));
        assert!(
            needed.is_some_and(|needed| self.values.len() >= needed),
            "the rows are too short"
        );
    }
}

fn check_panel<T>(panel: &[T], depth: usize, width: usize) {
    let needed = depth.checked_mul(width);
    assert!(
        needed.is_some_and(|needed| panel.len() >= needed),
        "the panel is too short"
    );
}

#[cfg(target_arch = "x86_64")]
#[expect(
    clippy::needless_range_loop,
    reason = "counted loops with constant bounds are unrolled, and the sums stay in registers"
)]
mod x86 {
    use std::arch::x86_64::*;

    use super::{LANES, Left, QUAD, Tile, Work};

    /// Lanes of 32 bits in half a group.
    const HALF: usize = LANES / 2;

    #[target_feature(enable = "avx512f,avx512bw,avx2,fma")]
    pub(super) unsafe fn run_512<W: Work>(work: W) -> W::Output {
        work.run()
    }

    #[target_feature(enable = "avx2,fma")]
    pub(super) unsafe fn run_256<W: Work>(work: W) -> W::Output {
        work.run()
    }

    /// # Safety
    /// `left` holds R rows of its depth, `panel` as many steps of G groups.
    #[target_feature(enable = "avx512f")]
    pub(super) unsafe fn floats_512<const R: usize, const G: usize>(
        left: Left<'_, f32>,
        panel: &[f32],
        tile: &mut Tile<f32>,
    ) {
        let mut sums = [[_mm512_setzero_ps(); G]; R];
        let (rows, panel) = (left.values.as_ptr(), panel.as_ptr());
        for k in 0..left.depth {
            let mut columns = [_mm512_setzero_ps(); G];
            for g in 0..G {
                // SAFETY: k < depth, g < G.
                columns[g] = unsafe { _mm512_loadu_ps(panel.add((k * G + g) * LANES)) };
            }
            for r in 0..R {
                // SAFETY: r < R, k < depth.
                let value = _mm512_set1_ps(unsafe { *rows.add(r * left.stride + k) });
                for g in 0..G {
                    sums[r][g] = _mm512_fmadd_ps(value, columns[g], sums[r][g]);
                }
            }
        }
        for (sums, row) in sums.iter().zip(tile) {
            for (sum, part) in sums.iter().zip(row.as_chunks_mut::<LANES>().0) {
                // SAFETY: the part has as many lanes as the vector.
                unsafe { _mm512_storeu_ps(part.as_mut_ptr(), *sum) };
            }
        }
    }

    /// # Safety
    /// As for [`floats_512`], and the depth is a multiple of four.
    #[target_feature(enable = "avx512f,avx512vnni")]
    pub(super) unsafe fn bytes_512<const R: usize, const G: usize>(
        left: Left<'_, u8>,
        panel: &[i8],
        tile: &mut Tile<i32>,
    ) {
        let mut sums = [[_mm512_setzero_si512(); G]; R];
        let (rows, panel) = (left.values.as_ptr(), panel.as_ptr());
        for quad in 0..left.depth / QUAD {
            let mut columns = [_mm512_setzero_si512(); G];
            for g in 0..G {
                // SAFETY: quad * QUAD < depth, g < G.
                columns[g] = unsafe { _mm512_loadu_si512(panel.add((quad * G + g) * LANES * QUAD).cast()) };
            }
            for r in 0..R {
                // SAFETY: r < R, and four bytes lie behind quad * QUAD, which is below the depth.
                let value = unsafe {
                    rows.add(r * left.stride + quad * QUAD)
                        .cast::<i32>()
                        .read_unaligned()
                };
                let value = _mm512_set1_epi32(value);
                for g in 0..G {
                    sums[r][g] = _mm512_dpbusd_epi32(sums[r][g], value, columns[g]);
                }
            }
        }
        for (sums, row) in sums.iter().zip(tile) {
            for (sum, part) in sums.iter().zip(row.as_chunks_mut::<LANES>().0) {
                // SAFETY: the part has as many lanes as the vector.
                unsafe { _mm512_storeu_si512(part.as_mut_ptr().cast(), *sum) };
            }
        }
    }

    /// # Safety
    /// As for [`floats_512`].
    #[target_feature(enable = "avx2,fma")]
    pub(super) unsafe fn floats_256<const R: usize, const G: usize>(
        left: Left<'_, f32>,
        panel: &[f32],
        tile: &mut Tile<f32>,
    ) {
        // Half the registers of half the width: four rows of one group at a time.
        for g in 0..G {
            for first in (0..R).step_by(4) {
                let mut sums = [[_mm256_setzero_ps(); 2]; 4];
                let count = (R - first).min(4);
                for k in 0..left.depth {
                    // SAFETY: k < depth, g < G, and a group has two halves.
                    let (low, high) = unsafe {
                        let columns = panel.as_ptr().add((k * G + g) * LANES);
                        (_mm256_loadu_ps(columns), _mm256_loadu_ps(columns.add(HALF)))
                    };
                    for r in 0..4 {
                        // Rows that there are not repeat the last one; their sums are not stored.
                        let row = first + r.min(count - 1);
                        // SAFETY: row < R, k < depth.
                        let value =
                            _mm256_set1_ps(unsafe { *left.values.as_ptr().add(row * left.stride + k) });
                        sums[r][0] = _mm256_fmadd_ps(value, low, sums[r][0]);
                        sums[r][1] = _mm256_fmadd_ps(value, high, sums[r][1]);
                    }
                }
                for (sums, row) in sums.iter().zip(&mut tile[first..first + count]) {
                    for (sum, part) in sums.iter().zip(row[g * LANES..].as_chunks_mut::<HALF>().0) {
                        // SAFETY: the part has as many lanes as the vector.
                        unsafe { _mm256_storeu_ps(part.as_mut_ptr(), *sum) };
                    }
                }
            }
        }
    }

    /// # Safety
    /// As for [`bytes_512`].
    #[target_feature(enable = "avx2,avxvnni")]
    pub(super) unsafe fn bytes_256<const R: usize, const G: usize>(
        left: Left<'_, u8>,
        panel: &[i8],
        tile: &mut Tile<i32>,
    ) {
        let step = |sum, value, columns| _mm256_dpbusd_avx_epi32(sum, value, columns);
        // SAFETY: as demanded of the caller.
        unsafe { bytes_in_halves::<R, G>(left, panel, tile, step) };
    }

    /// The products of bytes that AVX2 has would saturate, so even and odd bytes are widened first.
    ///
    /// # Safety
    /// As for [`bytes_512`].
    #[target_feature(enable = "avx2")]
    pub(super) unsafe fn bytes_pairwise<const R: usize, const G: usize>(
        left: Left<'_, u8>,
        panel: &[i8],
        tile: &mut Tile<i32>,
    ) {
        let step = |sum, value, columns| {
            let low_bytes = _mm256_set1_epi16(0xff);
            let even = _mm256_madd_epi16(
                _mm256_and_si256(value, low_bytes),
                _mm256_srai_epi16::<8>(_mm256_slli_epi16::<8>(columns)),
            );
            let odd = _mm256_madd_epi16(_mm256_srli_epi16::<8>(value), _mm256_srai_epi16::<8>(columns));
            _mm256_add_epi32(sum, _mm256_add_epi32(even, odd))
        };
        // SAFETY: as demanded of the caller.
        unsafe { bytes_in_halves::<R, G>(left, panel, tile, step) };
    }

    /// Four rows of one group at a time; `step` adds the products of four bytes to each lane.
    ///
    /// # Safety
    /// As for [`bytes_512`], and the processor has AVX2.
    #[inline(always)]
    unsafe fn bytes_in_halves<const R: usize, const G: usize>(
        left: Left<'_, u8>,
        panel: &[i8],
        tile: &mut Tile<i32>,
        step: impl Fn(__m256i, __m256i, __m256i) -> __m256i,
    ) {
        for g in 0..G {
            for first in (0..R).step_by(4) {
                // SAFETY: the processor has AVX2.
                let mut sums = unsafe { [[_mm256_setzero_si256(); 2]; 4] };
                let count = (R - first).min(4);
                for quad in 0..left.depth / QUAD {
                    // SAFETY: quad * QUAD < depth, g < G, and a group has two halves.
                    let (low, high) = unsafe {
                        let columns = panel.as_ptr().add((quad * G + g) * LANES * QUAD);
                        (
                            _mm256_loadu_si256(columns.cast()),
                            _mm256_loadu_si256(columns.add(HALF * QUAD).cast()),
                        )
                    };
                    for r in 0..4 {
                        // Rows that there are not repeat the last one; their sums are not stored.
                        let row = first + r.min(count - 1);
                        // SAFETY: row < R, and four bytes lie behind quad * QUAD, which is below the depth.
                        let value = unsafe {
                            let bytes = left.values.as_ptr().add(row * left.stride + quad * QUAD);
                            _mm256_set1_epi32(bytes.cast::<i32>().read_unaligned())
                        };
                        sums[r][0] = step(sums[r][0], value, low);
                        sums[r][1] = step(sums[r][1], value, high);
                    }
                }
                for (sums, row) in sums.iter().zip(&mut tile[first..first + count]) {
                    for (sum, part) in sums.iter().zip(row[g * LANES..].as_chunks_mut::<HALF>().0) {
                        // SAFETY: the part has as many lanes as the vector.
                        unsafe { _mm256_storeu_si256(part.as_mut_ptr().cast(), *sum) };
                    }
                }
            }
        }
    }
}

/// The same in plain Rust: for other processors, and what the others are tested against.
mod portable {
    use super::{LANES, Left, QUAD, Tile};

    pub(super) fn floats<const R: usize, const G: usize>(
        left: Left<'_, f32>,
        panel: &[f32],
        tile: &mut Tile<f32>,
    ) {
        for (r, target) in tile.iter_mut().enumerate().take(R) {
            let row = &left.values[r * left.stride..][..left.depth];
            let mut sums = [[0.0_f32; LANES]; G];
            for (value, step) in row.iter().zip(panel.chunks_exact(G * LANES)) {
                for (sums, columns) in sums.iter_mut().zip(step.as_chunks::<LANES>().0) {
                    for (sum, column) in sums.iter_mut().zip(columns) {
                        *sum += value * column;
                    }
                }
            }
            target[..G * LANES].copy_from_slice(sums.as_flattened());
        }
    }

    pub(super) fn bytes<const R: usize, const G: usize>(
        left: Left<'_, u8>,
        panel: &[i8],
        tile: &mut Tile<i32>,
    ) {
        for (r, target) in tile.iter_mut().enumerate().take(R) {
            let row = &left.values[r * left.stride..][..left.depth];
            let mut sums = [[0_i32; LANES]; G];
            let steps = panel.chunks_exact(G * LANES * QUAD);
            for (values, step) in row.as_chunks::<QUAD>().0.iter().zip(steps) {
                for (sums, columns) in sums.iter_mut().zip(step.as_chunks::<{ LANES * QUAD }>().0) {
                    for (sum, column) in sums.iter_mut().zip(columns.as_chunks::<QUAD>().0) {
                        let products = values
                            .iter()
                            .zip(column)
                            .map(|(a, b)| i32::from(*a) * i32::from(*b));
                        *sum += products.sum::<i32>();
                    }
                }
            }
            target[..G * LANES].copy_from_slice(sums.as_flattened());
        }
    }
}

#[cfg(test)]
mod tests;
