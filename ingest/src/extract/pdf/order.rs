//! The order of lines on a page. Nearly all programs write a page in the order of reading, columns and all, and
//! that order is kept. Where it jumps about, the page is cut along its white space instead (recursive X-Y cut;
//! Nagy and Seth, 1984).

use super::layout::Line;

/// Jumps back up within a column that show the order to be none: so many, and this share of the lines.
const MIN_JUMPS: usize = 4;
const JUMPS_SHARE_PERCENT: usize = 15;

/// How far back the last line of the same column is looked for.
const LINES_BACK: usize = 6;

/// White space between columns, in ems.
const GUTTER: f32 = 1.2;

/// Columns of running text have this many lines of this many characters; those of tables are narrower.
const MIN_COLUMN_LINES: usize = 3;
const MIN_COLUMN_CHARS: usize = 15;

/// Cuts inside cuts.
const MAX_CUTS: usize = 64;

/// Lines at one height differ by less than this, in ems.
const LEVEL: f32 = 0.3;

/// The lines in the order of reading.
pub(super) fn ordered(lines: Vec<Line>, from_the_right: bool) -> Vec<Line> {
    if !is_disordered(&lines) {
        return lines;
    }
    let upright = lines.iter().filter(|line| line.direction == 0).count();
    let main = if upright * 2 >= lines.len() {
        0
    } else {
        lines[0].direction
    };
    let (mut main, others): (Vec<Line>, Vec<Line>) =
        lines.into_iter().partition(|line| line.direction == main);
    cut(&mut main, from_the_right, 0);
    main.extend(others);
    main
}

fn is_disordered(lines: &[Line]) -> bool {
    let jumps = lines
        .iter()
        .enumerate()
        .filter(|(at, line)| {
            let above = lines[at.saturating_sub(LINES_BACK)..*at]
                .iter()
                .rev()
                .find(|before| {
                    before.direction == line.direction && line.start < before.end && line.end > before.start
                });
            above.is_some_and(|before| line.baseline > before.baseline + 0.5 * line.size)
        })
        .count();
    jumps >= MIN_JUMPS && jumps * 100 >= lines.len() * JUMPS_SHARE_PERCENT
}

fn cut(lines: &mut [Line], from_the_right: bool, depth: usize) {
    if lines.len() > 1 && depth < MAX_CUTS {
        if let Some(at) = gutter(lines) {
            let (left, right) = lines.split_at_mut(at);
            cut(left, from_the_right, depth + 1);
            cut(right, from_the_right, depth + 1);
            if from_the_right {
                lines.rotate_left(at);
            }
            return;
        }
        if let Some(at) = widest_gap(lines) {
            let (upper, lower) = lines.split_at_mut(at);
            cut(upper, from_the_right, depth + 1);
            cut(lower, from_the_right, depth + 1);
            return;
        }
    }
    by_rows(lines, from_the_right);
}

/// Sorts by the left edge and gives the place of the widest white column between two columns of text.
fn gutter(lines: &mut [Line]) -> Option<usize> {
    lines.sort_by(|a, b| a.start.total_cmp(&b.start));
    let mut best: Option<(f32, usize)> = None;
    let mut reach = f32::MIN;
    for (at, line) in lines.iter().enumerate() {
        let gap = line.start - reach;
        if at > 0 && gap > GUTTER * line.size && best.is_none_or(|(widest, _)| gap > widest) {
            best = Some((gap, at));
        }
        reach = reach.max(line.end);
    }
    let (_, at) = best?;
    let (left, right) = lines.split_at(at);
    (is_column(left) && is_column(right) && stand_beside(left, right)).then_some(at)
}

fn is_column(lines: &[Line]) -> bool {
    let chars: usize = lines.iter().map(|line| line.text.chars().count()).sum();
    lines.len() >= MIN_COLUMN_LINES && chars >= MIN_COLUMN_CHARS * lines.len()
}

fn stand_beside(left: &[Line], right: &[Line]) -> bool {
    let extent = |lines: &[Line]| {
        lines.iter().fold((f32::MAX, f32::MIN), |(low, high), line| {
            (low.min(line.baseline), high.max(line.baseline))
        })
    };
    let ((low, high), (other_low, other_high)) = (extent(left), extent(right));
    let shared = high.min(other_high) - low.max(other_low);
    shared > 0.5 * (high - low).min(other_high - other_low)
}

/// Sorts from top to bottom and gives the place of the widest white row.
fn widest_gap(lines: &mut [Line]) -> Option<usize> {
    lines.sort_by(|a, b| b.baseline.total_cmp(&a.baseline));
    let mut best: Option<(f32, usize)> = None;
    let mut reach = f32::MAX;
    for (at, line) in lines.iter().enumerate() {
        let gap = reach - (line.baseline + 0.8 * line.size);
        if at > 0 && gap > 0.1 * line.size && best.is_none_or(|(widest, _)| gap > widest) {
            best = Some((gap, at));
        }
        reach = reach.min(line.baseline - 0.25 * line.size);
    }
    best.map(|(_, at)| at)
}

/// Rows from top to bottom, each in the direction of reading.
fn by_rows(lines: &mut [Line], from_the_right: bool) {
    lines.sort_by(|a, b| b.baseline.total_cmp(&a.baseline));
    let mut begin = 0;
    while begin < lines.len() {
        let first = &lines[begin];
        let floor = first.baseline - LEVEL * first.size;
        let length = lines[begin..]
            .iter()
            .take_while(|line| line.baseline >= floor)
            .count()
            .max(1);
        lines[begin..begin + length].sort_by(|a, b| a.start.total_cmp(&b.start));
        if from_the_right {
            lines[begin..begin + length].reverse();
        }
        begin += length;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str, start: f32, baseline: f32) -> Line {
        Line {
            text: text.to_owned(),
            start,
            end: start + text.len() as f32 * 5.0,
            baseline,
            size: 10.0,
            direction: 0,
            is_bold: false,
            is_mono: false,
        }
    }

    #[test]
    fn a_page_written_out_of_order_is_read_by_its_columns() {
        let rows = 1..=8;
        let mut lines = vec![line(
            "A title over both of the columns of this page",
            100.0,
            700.0,
        )];
        for row in rows.clone() {
            let baseline = 680.0 - row as f32 * 12.0;
            lines.push(line(&format!("left column, line {row}"), 50.0, baseline));
            lines.push(line(&format!("right column, line {row}"), 300.0, baseline));
        }
        // Bottom first, as some programs write.
        lines.reverse();

        let texts: Vec<String> = ordered(lines, false).into_iter().map(|line| line.text).collect();

        let column = |side: &str| {
            rows.clone()
                .map(|row| format!("{side} column, line {row}"))
                .collect::<Vec<_>>()
        };
        let mut expected = vec!["A title over both of the columns of this page".to_owned()];
        expected.extend(column("left"));
        expected.extend(column("right"));
        assert_eq!(texts, expected);
    }

    #[test]
    fn an_order_that_only_goes_from_column_to_column_is_kept() {
        let mut lines = Vec::new();
        for column in 0..3 {
            for row in 0..10 {
                lines.push(line(
                    "narrow column text",
                    column as f32 * 200.0,
                    700.0 - row as f32 * 12.0,
                ));
            }
        }
        let before: Vec<(f32, f32)> = lines.iter().map(|line| (line.start, line.baseline)).collect();

        let after = ordered(lines, false);

        assert_eq!(
            after
                .iter()
                .map(|line| (line.start, line.baseline))
                .collect::<Vec<_>>(),
            before
        );
    }
}
