//! How a number is shown: as a date, a time, a percentage or itself.

use crate::ExtractError;
use crate::extract::package::Package;
use crate::extract::xml::XmlEvent;

/// Days from 1970-01-01 to the day 0 of each way of counting.
const DAY_ZERO_1900: i64 = -25_569;
const DAY_ZERO_1904: i64 = -24_107;

/// Excel believes that 1900 was a leap year: before this day its count is one ahead.
const FALSE_LEAP_DAY: f64 = 60.0;

/// The end of the year 9999.
const MAX_DAY: f64 = 2_958_466.0;

/// Digits that a number has; what a fraction adds beyond them is noise.
const SIGNIFICANT_DIGITS: usize = 15;

const SECONDS_OF_DAY: f64 = 86_400.0;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Plain,
    Percent,
    Date,
    Time,
    DateTime,
}

/// The number formats of a workbook by the style of a cell.
#[derive(Debug, Default)]
pub(super) struct Formats {
    of_style: Vec<Kind>,
    counts_from_1904: bool,
}

impl Formats {
    pub(super) fn read(
        package: &mut Package<'_>,
        part: &str,
        counts_from_1904: bool,
    ) -> Result<Self, ExtractError> {
        let mut formats = Self {
            of_style: Vec::new(),
            counts_from_1904,
        };
        let Some(mut reader) = package.xml(part)? else {
            return Ok(formats);
        };
        let mut own: Vec<(u32, Kind)> = Vec::new();
        let mut in_cell_formats = false;
        while let Some(event) = reader.next()? {
            match event {
                XmlEvent::Start(element) => match element.name() {
                    "numFmt" => {
                        let id = element.attribute("numFmtId").and_then(|id| id.parse().ok());
                        let code = element.attribute("formatCode").unwrap_or_default();
                        own.extend(id.map(|id| (id, kind_of_code(&code))));
                    }
                    "cellXfs" => in_cell_formats = true,
                    "xf" if in_cell_formats => {
                        let id = element.attribute("numFmtId").and_then(|id| id.parse().ok());
                        let id: u32 = id.unwrap_or(0);
                        let kind = own.iter().find(|(own_id, _)| *own_id == id);
                        let kind = kind.map_or_else(|| kind_of_built_in(id), |(_, kind)| *kind);
                        formats.of_style.push(kind);
                    }
                    _ => {}
                },
                XmlEvent::End(name) if name == "cellXfs" => in_cell_formats = false,
                _ => {}
            }
        }
        Ok(formats)
    }

    /// The number written as `raw`, as a cell of `style` shows it.
    pub(super) fn show(&self, raw: &str, style: Option<usize>) -> String {
        let kind = style.and_then(|style| self.of_style.get(style)).copied();
        let Ok(number) = raw.trim().parse::<f64>() else {
            return raw.to_owned();
        };
        if !number.is_finite() {
            return raw.to_owned();
        }
        let shown = match kind.unwrap_or(Kind::Plain) {
            Kind::Plain => None,
            Kind::Percent => Some(format!("{}%", plain(number * 100.0))),
            Kind::Date => self.date(number),
            Kind::Time => time(number),
            Kind::DateTime => match (self.date(number), time(number.fract())) {
                (Some(date), Some(time)) if time != "00:00" => Some(format!("{date} {time}")),
                (date, _) => date,
            },
        };
        shown.unwrap_or_else(|| plain(number))
    }

    fn date(&self, serial: f64) -> Option<String> {
        if !(0.0..MAX_DAY).contains(&serial) {
            return None;
        }
        let days = serial.floor() as i64;
        let since_1970 = if self.counts_from_1904 {
            days + DAY_ZERO_1904
        } else if serial < FALSE_LEAP_DAY {
            days + DAY_ZERO_1900 + 1
        } else {
            days + DAY_ZERO_1900
        };
        let (year, month, day) = civil(since_1970);
        Some(format!("{year:04}-{month:02}-{day:02}"))
    }
}

/// Hours and minutes, and seconds where there are any. More than a day is a duration.
fn time(days: f64) -> Option<String> {
    if !(0.0..MAX_DAY).contains(&days) {
        return None;
    }
    let seconds = (days * SECONDS_OF_DAY).round() as u64;
    let (hours, minutes, rest) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    Some(match rest {
        0 => format!("{hours:02}:{minutes:02}"),
        _ => format!("{hours:02}:{minutes:02}:{rest:02}"),
    })
}

/// A number without the noise of its binary form.
fn plain(number: f64) -> String {
    if number == number.trunc() && number.abs() < 1e15 {
        return format!("{number:.0}");
    }
    let rounded: f64 = format!("{number:.*e}", SIGNIFICANT_DIGITS - 1)
        .parse()
        .unwrap_or(number);
    match rounded.abs() {
        1e-5..1e15 => format!("{rounded}"),
        _ => format!("{rounded:e}"),
    }
}

/// Year, month and day of a count of days since 1970-01-01 (Howard Hinnant, "chrono-compatible low-level date
/// algorithms").
fn civil(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

/// ECMA-376 part 1, 18.8.30.
fn kind_of_built_in(id: u32) -> Kind {
    match id {
        9 | 10 => Kind::Percent,
        14..=17 | 27..=31 | 36 | 50..=54 | 57 | 58 => Kind::Date,
        18..=21 | 32..=35 | 45..=47 | 55 | 56 => Kind::Time,
        22 => Kind::DateTime,
        _ => Kind::Plain,
    }
}

/// Judges a format such as `[$-409]d-mmm-yy;@` by its letters outside quotes and brackets.
fn kind_of_code(code: &str) -> Kind {
    let mut letters = String::new();
    let mut chars = code.split(';').next().unwrap_or_default().chars();
    while let Some(c) = chars.next() {
        match c {
            '"' => {
                chars.by_ref().find(|c| *c == '"');
            }
            '\\' | '_' | '*' => {
                chars.next();
            }
            '[' => {
                let inside: String = chars.by_ref().take_while(|c| *c != ']').collect();
                // Elapsed hours, minutes or seconds; anything else is a colour, a locale or a condition.
                if matches!(
                    inside.to_ascii_lowercase().as_str(),
                    "h" | "hh" | "m" | "mm" | "s" | "ss"
                ) {
                    letters.push('h');
                }
            }
            c => letters.push(c.to_ascii_lowercase()),
        }
    }
    let letters = letters.replace("general", "");
    let has_date = letters.contains(['y', 'd']);
    let has_time = letters.contains(['h', 's']);
    match (has_date, has_time) {
        (true, true) => Kind::DateTime,
        (true, false) => Kind::Date,
        (false, true) => Kind::Time,
        (false, false) if letters.contains('m') => Kind::Date,
        (false, false) if letters.contains('%') => Kind::Percent,
        (false, false) => Kind::Plain,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn show(raw: &str, code: &str) -> String {
        let formats = Formats {
            of_style: vec![kind_of_code(code)],
            counts_from_1904: false,
        };
        formats.show(raw, Some(0))
    }

    #[test]
    fn numbers_are_shown_as_their_format_says() {
        assert_eq!(show("45292", "yyyy\\-mm\\-dd"), "2024-01-01");
        assert_eq!(show("45292.75", "dd/mm/yy hh:mm"), "2024-01-01 18:00");
        assert_eq!(show("0.5", "h:mm AM/PM"), "12:00");
        assert_eq!(show("1.25", "[h]:mm"), "30:00");
        assert_eq!(show("0.125", "0.0%"), "12.5%");
        assert_eq!(show("1", "d.m.yyyy"), "1900-01-01");
        assert_eq!(show("61", "d.m.yyyy"), "1900-03-01");
        assert_eq!(show("1234.5", "[Red]#,##0.00 \"days\""), "1234.5");
    }

    #[test]
    fn noise_of_the_binary_form_is_dropped() {
        assert_eq!(show("0.30000000000000004", "General"), "0.3");
        assert_eq!(show("5", "General"), "5");
        assert_eq!(show("1E+20", "General"), "1e20");
        assert_eq!(show("-3", "General"), "-3");
    }

    #[test]
    fn absurd_dates_are_numbers() {
        assert_eq!(show("-5", "yyyy"), "-5");
        assert_eq!(show("1e300", "yyyy"), "1e300");
        assert_eq!(show("NaN", "yyyy"), "NaN");
    }
}
