//! Dates in the forms that pages write them in.

use chrono::{DateTime, NaiveDate, NaiveDateTime, SecondsFormat, Utc};

/// Longer text is no date.
const MAX_BYTES: usize = 64;

/// Forms with a time whose zone is not given: they are taken as UTC.
const LOCAL_TIMES: [&str; 4] = [
    "%Y-%m-%dT%H:%M:%S%.f",
    "%Y-%m-%dT%H:%M",
    "%Y-%m-%d %H:%M:%S%.f",
    "%Y-%m-%d %H:%M",
];

/// Forms with a zone beside RFC 3339 and RFC 2822.
const ZONED_TIMES: [&str; 4] = [
    "%Y-%m-%dT%H:%M:%S%.f%z",
    "%Y-%m-%dT%H:%M%#z",
    "%Y-%m-%d %H:%M:%S%.f %z",
    "%Y-%m-%d %H:%M:%S%.f%z",
];

/// Days whose order of numbers leaves no doubt.
const DAYS: [&str; 8] = [
    "%Y-%m-%d",
    "%Y/%m/%d",
    "%Y%m%d",
    "%d.%m.%Y",
    "%B %d, %Y",
    "%b %d, %Y",
    "%d %B %Y",
    "%d %b %Y",
];

/// `written` as RFC 3339: a day, or a time in UTC. `None` if it is neither.
pub(super) fn normalized(written: &str) -> Option<String> {
    let written = written.trim();
    if written.is_empty() || written.len() > MAX_BYTES {
        return None;
    }
    let zoned = DateTime::parse_from_rfc3339(written)
        .or_else(|_| DateTime::parse_from_rfc2822(written))
        .ok()
        .or_else(|| {
            ZONED_TIMES
                .iter()
                .find_map(|form| DateTime::parse_from_str(written, form).ok())
        })
        .map(|time| time.with_timezone(&Utc));
    let time = zoned.or_else(|| {
        LOCAL_TIMES
            .iter()
            .find_map(|form| NaiveDateTime::parse_from_str(written, form).ok())
            .map(|time| time.and_utc())
    });
    if let Some(time) = time {
        return is_plausible(time.date_naive()).then(|| time.to_rfc3339_opts(SecondsFormat::Secs, true));
    }
    DAYS.iter()
        .find_map(|form| NaiveDate::parse_from_str(written, form).ok())
        .filter(|day| is_plausible(*day))
        .map(|day| day.to_string())
}

/// Placeholders such as the year 1 are no dates, and RFC 3339 has four digits for the year.
fn is_plausible(day: NaiveDate) -> bool {
    use chrono::Datelike;
    (1_900..=9_998).contains(&day.year())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usual_forms_become_a_day_or_a_time_in_utc() {
        for (written, date) in [
            ("2024-03-05", Some("2024-03-05")),
            (" 2024-03-05T10:20:30+02:00 ", Some("2024-03-05T08:20:30Z")),
            ("2024-03-05T10:20:30.123+0200", Some("2024-03-05T08:20:30Z")),
            ("2024-03-05T10:20Z", Some("2024-03-05T10:20:00Z")),
            ("2024-03-05 10:20:30", Some("2024-03-05T10:20:30Z")),
            ("Tue, 05 Mar 2024 10:20:30 GMT", Some("2024-03-05T10:20:30Z")),
            ("March 5, 2024", Some("2024-03-05")),
            ("5 Mar 2024", Some("2024-03-05")),
            ("05.03.2024", Some("2024-03-05")),
            ("20240305", Some("2024-03-05")),
            ("0001-01-01T00:00:00Z", None),
            ("+12024-03-05", None),
            ("yesterday", None),
            ("", None),
        ] {
            assert_eq!(normalized(written).as_deref(), date, "{written}");
        }
    }
}
