//! Drawings of Office files (DrawingML): the text in shapes and diagrams, and the figures that charts show.

use std::collections::BTreeMap;
use std::io::BufRead;

use super::records::Layout;
use super::xml::{XmlEvent, XmlReader};
use crate::document::{DocumentBuilder, one_line};
use crate::{BlockKind, ExtractError};

/// Points of one series that are read; a chart with more shows a curve, not values.
const MAX_POINTS: usize = 1_000;

const MAX_SERIES: usize = 100;

/// Adds the text of the shapes of a sheet's drawing.
pub(super) fn read_drawing<R: BufRead>(
    mut reader: XmlReader<R>,
    builder: &mut DocumentBuilder,
) -> Result<(), ExtractError> {
    let mut paragraph = String::new();
    while let Some(event) = reader.next()? {
        match event {
            XmlEvent::Start(element) => match element.name() {
                // The same shape for older programs.
                "Fallback" => reader.skip_element()?,
                "t" => paragraph.push_str(&reader.text_of_element()?),
                "br" => paragraph.push('\n'),
                _ => {}
            },
            XmlEvent::End(name) if name == "p" => {
                builder.push(BlockKind::Paragraph, &std::mem::take(&mut paragraph), None);
            }
            _ => {}
        }
    }
    Ok(())
}

/// The entries of a diagram (SmartArt), one text each.
pub(super) fn read_diagram<R: BufRead>(mut reader: XmlReader<R>) -> Result<Vec<String>, ExtractError> {
    let mut entries = Vec::new();
    let mut entry = String::new();
    while let Some(event) = reader.next()? {
        match event {
            XmlEvent::Start(element) if matches!(element.name(), "p" | "br") => entry.push(' '),
            XmlEvent::Start(element) if element.name() == "t" => {
                // The text of a point is an element of the same name as the text of a run.
                entry.push_str(&text_of_runs(&mut reader)?);
            }
            XmlEvent::End(name) if name == "pt" => {
                let text = one_line(&std::mem::take(&mut entry));
                entries.extend((!text.is_empty()).then_some(text));
            }
            _ => {}
        }
    }
    Ok(entries)
}

/// The text of the runs of the element that was just begun, paragraphs a space apart.
fn text_of_runs<R: BufRead>(reader: &mut XmlReader<R>) -> Result<String, ExtractError> {
    let mut open = 1_usize;
    let mut text = String::new();
    while open > 0 {
        match reader.next()? {
            Some(XmlEvent::Start(_)) => open += 1,
            Some(XmlEvent::End(name)) => {
                open -= 1;
                if name == "p" {
                    text.push(' ');
                }
            }
            Some(XmlEvent::Text(part)) => text.push_str(&part),
            None => break,
        }
    }
    Ok(text)
}

/// A chart with the figures that it was saved with.
#[derive(Debug, Default)]
struct Chart {
    kind: Option<&'static str>,
    title: String,
    categories: BTreeMap<usize, String>,
    series: Vec<Series>,
}

#[derive(Debug, Default)]
struct Series {
    name: String,
    values: BTreeMap<usize, String>,
}

/// Which part of a chart the reader is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Elsewhere,
    Title,
    SeriesName,
    Categories,
    Values,
}

/// Adds a chart as a table: a row for each category, a column for each series.
pub(super) fn read_chart<R: BufRead>(
    mut reader: XmlReader<R>,
    builder: &mut DocumentBuilder,
) -> Result<(), ExtractError> {
    let mut chart = Chart::default();
    let mut place = Place::Elsewhere;
    let mut point = 0_usize;
    while let Some(event) = reader.next()? {
        match event {
            XmlEvent::Start(element) => match element.name() {
                "ser" if chart.series.len() < MAX_SERIES => chart.series.push(Series::default()),
                "ser" => reader.skip_element()?,
                "title" => place = Place::Title,
                "tx" if place == Place::Elsewhere && !chart.series.is_empty() => place = Place::SeriesName,
                "cat" | "xVal" => place = Place::Categories,
                "val" | "yVal" => place = Place::Values,
                "pt" => {
                    point = element
                        .attribute("idx")
                        .and_then(|at| at.parse().ok())
                        .unwrap_or(point + 1)
                }
                "ptCount" | "formatCode" | "f" => reader.skip_element()?,
                "v" | "t" => chart.take(place, point, &reader.text_of_element()?),
                name => chart.kind = chart.kind.or(kind_of(name)),
            },
            XmlEvent::End(name) => match (name.as_str(), place) {
                ("title", Place::Title)
                | ("tx", Place::SeriesName)
                | ("cat" | "xVal", Place::Categories)
                | ("val" | "yVal", Place::Values) => place = Place::Elsewhere,
                ("p", Place::Title) => chart.title.push(' '),
                _ => {}
            },
            XmlEvent::Text(_) => {}
        }
    }
    chart.write(builder);
    Ok(())
}

impl Chart {
    fn take(&mut self, place: Place, point: usize, text: &str) {
        if place == Place::Title {
            self.title.push_str(text);
            return;
        }
        let is_first = self.series.len() == 1;
        let Some(series) = self.series.last_mut() else {
            return;
        };
        match place {
            Place::SeriesName => series.name.push_str(text),
            // All series usually repeat the same categories.
            Place::Categories
                if point < MAX_POINTS && (is_first || !self.categories.contains_key(&point)) =>
            {
                let levels = self.categories.entry(point).or_default();
                if !levels.is_empty() {
                    levels.push(' ');
                }
                levels.push_str(text);
            }
            Place::Values if point < MAX_POINTS => {
                series.values.insert(point, shorten_number(text));
            }
            _ => {}
        }
    }

    fn write(&self, builder: &mut DocumentBuilder) {
        if self.series.iter().all(|series| series.values.is_empty()) {
            return;
        }
        let title = one_line(&self.title);
        let caption = match (self.kind, title.is_empty()) {
            (Some(kind), false) => format!("{kind}: {title}"),
            (Some(kind), true) => kind.to_owned(),
            (None, _) => title,
        };
        builder.push(BlockKind::Paragraph, &caption, None);
        let mut names = std::collections::HashMap::new();
        for (at, series) in self.series.iter().enumerate() {
            names.insert(at + 1, one_line(&series.name));
        }
        let layout = Layout::Records { names };
        let points: std::collections::BTreeSet<usize> = self
            .series
            .iter()
            .flat_map(|series| series.values.keys().copied())
            .collect();
        for point in points {
            let mut row: Vec<(usize, &str)> = Vec::new();
            row.extend(self.categories.get(&point).map(|category| (0, category.as_str())));
            for (at, series) in self.series.iter().enumerate() {
                row.extend(series.values.get(&point).map(|value| (at + 1, value.as_str())));
            }
            layout.write(&row, 1, builder);
            if builder.is_full() {
                break;
            }
        }
    }
}

/// Charts keep all digits of a figure.
fn shorten_number(text: &str) -> String {
    match text.trim().parse::<f64>() {
        Ok(number) if text.trim().len() > 15 && number.is_finite() => format!("{:.6}", number)
            .trim_end_matches('0')
            .trim_end_matches('.')
            .to_owned(),
        _ => text.trim().to_owned(),
    }
}

fn kind_of(name: &str) -> Option<&'static str> {
    Some(match name {
        "barChart" | "bar3DChart" => "Bar chart",
        "lineChart" | "line3DChart" => "Line chart",
        "pieChart" | "pie3DChart" | "doughnutChart" | "ofPieChart" => "Pie chart",
        "areaChart" | "area3DChart" => "Area chart",
        "scatterChart" => "Scatter chart",
        "bubbleChart" => "Bubble chart",
        "radarChart" => "Radar chart",
        "stockChart" => "Stock chart",
        "surfaceChart" | "surface3DChart" => "Surface chart",
        _ => return None,
    })
}
