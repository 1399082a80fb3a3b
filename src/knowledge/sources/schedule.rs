//! When a source is read again by itself: every so often, or at times by the clock of a place.
//!
//! Times are spread by the source's id, so that not everybody's nights begin in the same second. A time by the clock
//! happens once a day even when that day's clock skips or repeats it: a skipped one moves to the end of the gap, a
//! repeated one counts at its first passing. (Patterns with a free hour, such as `*/15 * * * *`, follow real time.)

use std::hash::Hasher as _;
use std::str::FromStr as _;

use chrono::{DateTime, TimeDelta, Utc};
use chrono_tz::Tz;
use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::error::{Error, Result};
use crate::id::SourceId;

/// Longest interval: 31 days.
const MAX_EVERY_MINUTES: u32 = 31 * 24 * 60;

/// Longest pattern in characters.
const MAX_CRON_CHARS: usize = 100;

/// Times are moved by at most this share of the period, and by at most [`MAX_SPREAD`].
const SPREAD_SHARE: i32 = 10;
const MAX_SPREAD: TimeDelta = TimeDelta::minutes(10);

/// A pattern that names hours is looked at time by time, up to this many times a day.
const MAX_TIMES_A_DAY: usize = 96;

/// A pattern that does not come round within this time is a mistake; the 29th of February may take eight years.
const LONGEST_WAIT: TimeDelta = TimeDelta::days(9 * 366);

/// Either `every_minutes`, or `cron` with its `time_zone`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Schedule {
    /// 1 to 44640 (31 days).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 44_640, example = 1440)]
    pub every_minutes: Option<u32>,
    /// Minute, hour, day of the month (`L` is its last), month, day of the week.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 100, example = "0 3 * * *")]
    pub cron: Option<String>,
    /// Whose clock `cron` goes by: a name of the IANA database; UTC unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "Europe/Berlin")]
    pub time_zone: Option<String>,
}

/// A schedule that was understood.
enum Rule {
    Every(TimeDelta),
    /// The next time is the earliest of all.
    Times(Vec<Cron>, Tz),
}

impl Schedule {
    /// Refuses what names no times.
    pub fn check(&self, now: DateTime<Utc>) -> Result<()> {
        let rule = self.rule()?;
        match next_of(&rule, now) {
            Some(next) if next - now <= LONGEST_WAIT => Ok(()),
            _ => Err(refuse(
                "schedule.cron",
                "this pattern names no time that ever comes",
            )),
        }
    }

    /// The first time after `after`, moved by the share of the spread that `id` draws; none when there is none.
    pub fn next_after(&self, id: SourceId, after: DateTime<Utc>) -> Result<Option<DateTime<Utc>>> {
        let rule = self.rule()?;
        let Some(next) = next_of(&rule, after) else {
            return Ok(None);
        };
        let spread = match &rule {
            // Around the interval, and anew each time, so that on average it is as long as it says.
            Rule::Every(period) => {
                let width = width_of(*period);
                share(width, (id, after.timestamp())) - width / 2
            }
            Rule::Times(..) => {
                let period = next_of(&rule, next).map_or(TimeDelta::days(1), |second| second - next);
                share(width_of(period), id)
            }
        };
        Ok(Some(next + spread))
    }

    /// No due time that was set by a clock that went right lies later than this.
    pub fn latest_after(&self, now: DateTime<Utc>) -> Result<Option<DateTime<Utc>>> {
        Ok(next_of(&self.rule()?, now).map(|next| next + MAX_SPREAD))
    }

    fn rule(&self) -> Result<Rule> {
        match (self.every_minutes, &self.cron) {
            (Some(minutes), None) => {
                if !(1..=MAX_EVERY_MINUTES).contains(&minutes) {
                    return Err(refuse(
                        "schedule.every_minutes",
                        format!("every_minutes must be 1 to {MAX_EVERY_MINUTES}"),
                    ));
                }
                if self.time_zone.is_some() {
                    return Err(refuse("schedule.time_zone", "time_zone goes with cron only"));
                }
                Ok(Rule::Every(TimeDelta::minutes(minutes.into())))
            }
            (None, Some(cron)) => {
                let zone = self.time_zone.as_deref().unwrap_or("UTC");
                let zone = Tz::from_str(zone).map_err(|_| {
                    refuse(
                        "schedule.time_zone",
                        "time_zone must be a name of the IANA database, for example Europe/Berlin",
                    )
                })?;
                Ok(Rule::Times(times(cron)?, zone))
            }
            _ => Err(refuse(
                "schedule",
                "give either every_minutes, or cron with its time_zone",
            )),
        }
    }
}

/// The pattern, as one pattern for each time of day that it names; these skip and repeat nothing when clocks change.
fn times(text: &str) -> Result<Vec<Cron>> {
    let wrong = || {
        refuse(
            "schedule.cron",
            "cron must have five fields: minute, hour, day of the month, month, day of the week, for example 0 3 * * *",
        )
    };
    let fields: Vec<&str> = text.split_whitespace().collect();
    let &[_, _, ref days @ ..] = fields.as_slice() else {
        return Err(wrong());
    };
    if days.len() != 3 || text.chars().count() > MAX_CRON_CHARS {
        return Err(wrong());
    }
    let parser = CronParser::builder()
        .seconds(Seconds::Disallowed)
        .year(Year::Disallowed)
        .build();
    let whole = parser.parse(text).map_err(|_| {
        refuse(
            "schedule.cron",
            "cron has a field that is none: minute is 0 to 59, hour 0 to 23, day of the month 1 to 31, month 1 to 12, day of the week 0 to 7, each a number, a range such as 1-5, a list such as 1,15, a step such as */15, or *",
        )
    })?;
    let (hours, minutes) = (whole.pattern.hours.values(), whole.pattern.minutes.values());
    if whole.pattern.hours.from_wildcard || hours.len() * minutes.len() > MAX_TIMES_A_DAY {
        return Ok(vec![whole]);
    }
    let mut times = Vec::with_capacity(hours.len() * minutes.len());
    for hour in &hours {
        for minute in &minutes {
            let time = format!("{minute} {hour} {}", days.join(" "));
            times.push(parser.parse(&time).map_err(|_| wrong())?);
        }
    }
    Ok(times)
}

fn next_of(rule: &Rule, after: DateTime<Utc>) -> Option<DateTime<Utc>> {
    match rule {
        Rule::Every(period) => after.checked_add_signed(*period),
        Rule::Times(times, zone) => {
            let after = after.with_timezone(zone);
            let next = times
                .iter()
                .filter_map(|time| time.find_next_occurrence(&after, false).ok());
            next.min().map(|next| next.with_timezone(&Utc))
        }
    }
}

fn width_of(period: TimeDelta) -> TimeDelta {
    (period / SPREAD_SHARE).min(MAX_SPREAD)
}

/// A part of `width` that `seed` draws, in whole seconds; the same seed draws the same.
fn share(width: TimeDelta, seed: impl std::hash::Hash) -> TimeDelta {
    // Fixed keys: every process draws the same.
    let mut hasher = std::hash::DefaultHasher::new();
    seed.hash(&mut hasher);
    let seconds = width.num_seconds().max(1).unsigned_abs();
    TimeDelta::seconds(i64::try_from(hasher.finish() % seconds).unwrap_or_default())
}

fn refuse(field: &str, message: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::invalid("invalid_schedule", field, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cron(pattern: &str, zone: &str) -> Schedule {
        Schedule {
            every_minutes: None,
            cron: Some(pattern.to_owned()),
            time_zone: Some(zone.to_owned()),
        }
    }

    fn every(minutes: u32) -> Schedule {
        Schedule {
            every_minutes: Some(minutes),
            cron: None,
            time_zone: None,
        }
    }

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().expect("a time")
    }

    /// The times between two, without the spread.
    fn between(schedule: &Schedule, from: &str, to: &str) -> Vec<String> {
        let rule = schedule.rule().expect("a schedule");
        let (mut now, end) = (at(from), at(to));
        let mut times = Vec::new();
        while let Some(next) = next_of(&rule, now).filter(|next| *next < end) {
            times.push(next.format("%d %H:%M").to_string());
            now = next;
        }
        times
    }

    #[test]
    fn a_refusal_says_whether_fields_are_missing_or_wrong() {
        let refused = |pattern: &str| cron(pattern, "UTC").rule().err().map(|error| error.to_string());

        for wrong in ["61 * * * *", "*/0 * * * *", "5-1 * * * *"] {
            let message = refused(wrong).expect("refused");
            assert!(message.contains("minute is 0 to 59"), "{wrong}: {message}");
        }
        let message = refused("0 3 * *").expect("refused");
        assert!(message.contains("five fields"), "{message}");
        assert_eq!(refused("0 3 L * *"), None);
    }

    #[test]
    fn a_time_that_the_clock_skips_happens_once_at_the_end_of_the_gap() {
        // Berlin, 29 March 2026: 02:00 is 03:00, which is 01:00 UTC.
        let schedule = cron("30 2 * * *", "Europe/Berlin");

        let times = between(&schedule, "2026-03-27T12:00:00Z", "2026-03-31T00:00:00Z");

        assert_eq!(times, ["28 01:30", "29 01:00", "30 00:30"]);
    }

    #[test]
    fn several_times_in_one_gap_happen_once() {
        let schedule = cron("0,30 2,3 * * *", "Europe/Berlin");

        let times = between(&schedule, "2026-03-28T12:00:00Z", "2026-03-29T12:00:00Z");

        assert_eq!(times, ["29 01:00", "29 01:30"]);
    }

    #[test]
    fn a_time_that_the_clock_repeats_happens_once_at_its_first_passing() {
        // Berlin, 25 October 2026: 03:00 is 02:00 again, which is 01:00 UTC.
        for pattern in ["30 2 * * *", "30 2,23 * * *"] {
            let schedule = cron(pattern, "Europe/Berlin");

            let times = between(&schedule, "2026-10-24T23:00:00Z", "2026-10-25T12:00:00Z");

            assert_eq!(times, ["25 00:30"], "{pattern}");
        }
    }

    #[test]
    fn a_pattern_without_hours_follows_real_time_through_both_changes() {
        let schedule = cron("*/30 * * * *", "Europe/Berlin");

        for (from, to) in [
            ("2026-03-29T00:00:00Z", "2026-03-29T03:00:00Z"),
            ("2026-10-24T23:59:00Z", "2026-10-25T03:00:00Z"),
        ] {
            let times = between(&schedule, from, to);

            assert_eq!(
                times.len(),
                if from.contains("-03-") { 5 } else { 6 },
                "{times:?}"
            );
        }
    }

    #[test]
    fn the_spread_is_small_and_a_sources_own() {
        let schedule = cron("0 3 * * *", "UTC");
        let now = at("2026-11-20T10:00:00Z");
        let mut drawn = std::collections::BTreeSet::new();

        for _ in 0..50 {
            let id = SourceId::new();
            let next = schedule.next_after(id, now).expect("valid").expect("a time");
            let again = schedule.next_after(id, next).expect("valid").expect("a time");

            let spread = next - at("2026-11-21T03:00:00Z");
            assert!(spread >= TimeDelta::zero() && spread <= MAX_SPREAD, "{spread}");
            assert_eq!(again - next, TimeDelta::days(1), "one and the same each day");
            drawn.insert(next);
        }

        assert!(drawn.len() > 20, "{}", drawn.len());
    }

    #[test]
    fn an_interval_is_as_long_as_it_says_within_a_tenth() {
        let now = at("2026-11-20T10:00:00Z");
        for minutes in [1, 60, MAX_EVERY_MINUTES] {
            let schedule = every(minutes);
            let period = TimeDelta::minutes(minutes.into());
            let next = schedule
                .next_after(SourceId::new(), now)
                .expect("valid")
                .expect("a time");

            let off = (next - now - period).abs();
            assert!(off <= period / 10 && off <= MAX_SPREAD, "{minutes}: {off}");
            assert!(next <= schedule.latest_after(now).expect("valid").expect("a time"));
        }
    }

    #[test]
    fn what_names_no_times_is_refused_with_the_field_at_fault() {
        let now = at("2026-11-20T10:00:00Z");
        let neither = Schedule {
            every_minutes: None,
            cron: None,
            time_zone: None,
        };
        let both = Schedule {
            every_minutes: Some(5),
            ..cron("0 3 * * *", "UTC")
        };
        for (schedule, at_fault) in [
            (every(0), "schedule.every_minutes"),
            (every(MAX_EVERY_MINUTES + 1), "schedule.every_minutes"),
            (neither, "schedule"),
            (both, "schedule"),
            (cron("0 3 * *", "UTC"), "schedule.cron"),
            (cron("0 0 3 * * *", "UTC"), "schedule.cron"),
            (cron("61 3 * * *", "UTC"), "schedule.cron"),
            (cron("@reboot", "UTC"), "schedule.cron"),
            (cron("0 3 30 2 *", "UTC"), "schedule.cron"),
            (cron("0 3 * * *", "Mars/Olympus"), "schedule.time_zone"),
            (cron("0 3 * * *", "../../etc/passwd"), "schedule.time_zone"),
        ] {
            match schedule.check(now) {
                Err(Error::Invalid { code, field, .. }) => {
                    assert_eq!((code, field.as_deref()), ("invalid_schedule", Some(at_fault)));
                }
                other => panic!("{schedule:?}: {other:?}"),
            }
        }
    }

    #[test]
    fn a_rare_day_is_a_day() {
        let now = at("2026-11-20T10:00:00Z");

        cron("0 3 29 2 *", "Europe/Berlin")
            .check(now)
            .expect("2028 has one");
    }
}
