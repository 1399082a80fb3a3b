//! The growth curves as a chart: latency, memory and disk over the chunks of one tenant.

use std::path::Path;

use plotters::prelude::*;

use super::Measured;

const SIZE: (u32, u32) = (900, 420);
const FONT: &str = "sans-serif";

const COLOURS: [RGBColor; 4] = [
    RGBColor(31, 119, 180),
    RGBColor(214, 39, 40),
    RGBColor(44, 160, 44),
    RGBColor(127, 127, 127),
];

type Value = fn(&Measured) -> f64;

/// Draws `measured`, indexes of one tenant in rising size, to `file`.
pub fn draw(file: &Path, measured: &[&Measured]) -> anyhow::Result<()> {
    let root = SVGBackend::new(file, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let (left, right) = root.split_horizontally(SIZE.0 / 2);
    let times: [(&str, Value); 4] = [
        ("hybrid, p95", |one| one.asked.hybrid.p95_ms),
        ("hybrid, CPU", |one| one.asked.hybrid.cpu_ms),
        ("by meaning, CPU", |one| one.asked.by_meaning.cpu_ms),
        ("by words, CPU", |one| one.asked.by_words.cpu_ms),
    ];
    panel(&left, "a search, ms", measured, &times)?;
    let sizes: [(&str, Value); 3] = [
        ("resident after searching", |one| one.asked.memory),
        ("without mapped files", |one| one.asked.memory_own),
        ("on disk", |one| one.built.disk_mib),
    ];
    panel(&right, "MiB", measured, &sizes)?;
    root.present()?;
    Ok(())
}

fn panel(
    area: &DrawingArea<SVGBackend<'_>, plotters::coord::Shift>,
    title: &str,
    measured: &[&Measured],
    curves: &[(&str, Value)],
) -> anyhow::Result<()> {
    let chunks = |one: &Measured| one.built.plan.chunks as f64;
    let all = || {
        curves
            .iter()
            .flat_map(|(_, value)| measured.iter().map(|one| value(one)))
    };
    let (least, most) = (all().fold(f64::MAX, f64::min), all().fold(0.0, f64::max));
    let from = measured.iter().map(|one| chunks(one)).fold(f64::MAX, f64::min);
    let to = measured.iter().map(|one| chunks(one)).fold(0.0, f64::max);
    if measured.is_empty() || least <= 0.0 {
        return Ok(());
    }
    let mut chart = ChartBuilder::on(area)
        .caption(title, (FONT, 18))
        .margin(10)
        .x_label_area_size(40)
        .y_label_area_size(55)
        .build_cartesian_2d(
            (from * 0.9..to * 1.1).log_scale(),
            (least / 1.5..most * 2.0).log_scale(),
        )?;
    chart
        .configure_mesh()
        .x_desc("chunks of one tenant")
        .x_label_formatter(&|chunks| format!("{chunks:.0}"))
        .y_label_formatter(&|value| match *value {
            value if value < 1.0 => format!("{value:.2}"),
            value => format!("{value:.0}"),
        })
        .light_line_style(BLACK.mix(0.05))
        .draw()?;
    for ((name, value), colour) in curves.iter().zip(COLOURS) {
        let points: Vec<(f64, f64)> = measured.iter().map(|one| (chunks(one), value(one))).collect();
        chart
            .draw_series(LineSeries::new(points.clone(), colour.stroke_width(2)))?
            .label(*name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2)));
        chart.draw_series(
            points
                .into_iter()
                .map(|point| Circle::new(point, 3, colour.filled())),
        )?;
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.8))
        .label_font((FONT, 13))
        .draw()?;
    Ok(())
}
