//! Principal components: the directions in which vectors differ most (Jacobi's method for the eigenvectors of a symmetric
//! matrix; Golub and Van Loan, "Matrix Computations", 8.5).

/// Sweeps after which a matrix of any size is diagonal to the last place; they get closer quadratically.
const MAX_SWEEPS: usize = 16;

/// A component that varies less than the first one by this factor is noise.
const LEAST_SHARE: f64 = 1e-9;

/// Vectors of `width` values each, less their mean, along their first `dimension` principal components, each divided by the
/// square root of its deviation: halfway to all components counting the same.
pub(super) fn project(vectors: &[f32], width: usize, dimension: usize) -> Vec<f32> {
    let (mean, mut covariance) = moments(vectors, width);
    let mut directions = eigenvectors(&mut covariance, width);
    let mut variances: Vec<f64> = (0..width).map(|n| covariance[n * (width + 1)]).collect();
    variances.sort_by(|a, b| b.total_cmp(a));
    let least = variances[0].max(f64::MIN_POSITIVE) * LEAST_SHARE;
    for (direction, variance) in directions.chunks_exact_mut(width).zip(&variances) {
        let scale = if *variance > least {
            variance.powf(-0.25)
        } else {
            0.0
        };
        direction.iter_mut().for_each(|value| *value *= scale);
    }
    let mut projected = Vec::with_capacity(vectors.len() / width * dimension);
    let mut centred = vec![0.0; width];
    for vector in vectors.chunks_exact(width) {
        for ((centred, value), mean) in centred.iter_mut().zip(vector).zip(&mean) {
            *centred = f64::from(*value) - mean;
        }
        for direction in directions.chunks_exact(width).take(dimension) {
            projected.push(dot(&centred, direction) as f32);
        }
    }
    projected
}

/// The mean, and how the values vary together (`[width][width]`).
fn moments(vectors: &[f32], width: usize) -> (Vec<f64>, Vec<f64>) {
    let count = (vectors.len() / width).max(1) as f64;
    let mut mean = vec![0.0; width];
    for vector in vectors.chunks_exact(width) {
        mean.iter_mut()
            .zip(vector)
            .for_each(|(mean, value)| *mean += f64::from(*value) / count);
    }
    let mut covariance = vec![0.0; width * width];
    let mut centred = vec![0.0; width];
    for vector in vectors.chunks_exact(width) {
        for ((centred, value), mean) in centred.iter_mut().zip(vector).zip(&mean) {
            *centred = f64::from(*value) - mean;
        }
        for (row, factor) in covariance.chunks_exact_mut(width).zip(&centred) {
            row.iter_mut()
                .zip(&centred)
                .for_each(|(sum, value)| *sum += factor * value / count);
        }
    }
    (mean, covariance)
}

/// Eigenvectors of a symmetric matrix, one after the other, that of the largest eigenvalue first. Leaves the eigenvalues on
/// the diagonal.
fn eigenvectors(matrix: &mut [f64], size: usize) -> Vec<f64> {
    let mut vectors = vec![0.0; size * size];
    vectors
        .iter_mut()
        .step_by(size + 1)
        .for_each(|value| *value = 1.0);
    for _ in 0..MAX_SWEEPS {
        let (mut outside, mut all) = (0.0, 0.0);
        for (place, value) in matrix.iter().enumerate() {
            all += value * value;
            if place % (size + 1) != 0 {
                outside += value * value;
            }
        }
        if outside <= all * 1e-24 {
            break;
        }
        for p in 0..size {
            for q in p + 1..size {
                rotate(matrix, &mut vectors, size, p, q);
            }
        }
    }
    let mut order: Vec<usize> = (0..size).collect();
    order.sort_by(|a, b| matrix[b * (size + 1)].total_cmp(&matrix[a * (size + 1)]));
    order
        .iter()
        .flat_map(|row| vectors[row * size..][..size].to_vec())
        .collect()
}

/// Turns the plane of two axes so that they no longer vary together.
fn rotate(matrix: &mut [f64], vectors: &mut [f64], size: usize, p: usize, q: usize) {
    let together = matrix[p * size + q];
    if together == 0.0 {
        return;
    }
    let theta = (matrix[q * size + q] - matrix[p * size + p]) / (2.0 * together);
    let tangent = theta.signum() / (theta.abs() + (theta * theta + 1.0).sqrt());
    let cosine = 1.0 / (tangent * tangent + 1.0).sqrt();
    let sine = tangent * cosine;
    for row in matrix.chunks_exact_mut(size) {
        (row[p], row[q]) = (cosine * row[p] - sine * row[q], sine * row[p] + cosine * row[q]);
    }
    for rows in [matrix, vectors] {
        let (head, tail) = rows.split_at_mut(q * size);
        for (a, b) in head[p * size..][..size].iter_mut().zip(&mut tail[..size]) {
            (*a, *b) = (cosine * *a - sine * *b, sine * *a + cosine * *b);
        }
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_direction_of_the_largest_spread_comes_first() {
        // On a line through (5, 5), a little beside it.
        let vectors: Vec<f32> = (-10..=10)
            .flat_map(|n| [5.0 + n as f32, 5.0 + n as f32 + 0.1 * (n % 2) as f32])
            .collect();
        let projected = project(&vectors, 2, 1);

        assert_eq!(projected.len(), 21);
        let spread = projected.iter().map(|value| value * value).sum::<f32>() / 21.0;
        let deviation = (2.0 * 770.0 / 21.0_f32).sqrt();
        assert!((spread - deviation).abs() < 0.05, "{spread}");
        assert!(projected.iter().sum::<f32>().abs() < 1e-3, "around the mean");
    }

    proptest! {
        #[test]
        fn eigenvectors_are_orthogonal_and_make_the_matrix_diagonal(values in prop::collection::vec(-1.0_f64..1.0, 36)) {
            let size = 6;
            let symmetric: Vec<f64> = (0..36).map(|n| values[n] + values[n % size * size + n / size]).collect();
            let mut matrix = symmetric.clone();
            let vectors = eigenvectors(&mut matrix, size);

            let mut last = f64::INFINITY;
            for (number, vector) in vectors.chunks_exact(size).enumerate() {
                let image: Vec<f64> = symmetric.chunks_exact(size).map(|row| dot(row, vector)).collect();
                let eigenvalue = dot(&image, vector);
                prop_assert!(eigenvalue <= last + 1e-9, "largest first");
                last = eigenvalue;
                prop_assert!(image.iter().zip(vector).all(|(a, b)| (a - eigenvalue * b).abs() < 1e-8));
                for (other, second) in vectors.chunks_exact(size).enumerate() {
                    let wanted = if number == other { 1.0 } else { 0.0 };
                    prop_assert!((dot(vector, second) - wanted).abs() < 1e-8);
                }
            }
        }
    }

    #[test]
    fn vectors_that_are_all_the_same_have_no_direction() {
        assert_eq!(project(&[3.0, 4.0, 3.0, 4.0], 2, 2), [0.0; 4]);
    }
}
